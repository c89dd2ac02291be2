/*
 * A load generator for servers that send an answer and close: single thread, epoll.
 *
 *     load [options] IPV4-ADDRESS PORT
 *     load [options] UNIX-SOCKET-PATH
 *
 *     -n COUNT    stop after so many connections (0: no limit)
 *     -d SECONDS  begin no connection after so long (0: no limit)
 *     -c COUNT    connections at a time (32)
 *     -r RATE     begin so many connections a second, however fast the answers come, with -c at a time at most
 *                 (0: a new one whenever one has ended)
 *     -t SECONDS  give a connection up after so long (10)
 *     -e FILE     what the answer has to be; given more often, one of these
 *     -w TEXT     send this before reading
 *     -H          the answers are HTTP: compare what follows the first empty line
 *     -s COUNT    source addresses, spread over 127.0.0.0/8 (4096); 0 leaves it to the system
 *
 * SIGTERM and SIGINT end it at once. In every case it prints one JSON object, in which every connection that
 * began is counted once:
 *
 *     ok          the whole answer, and then the end of the stream
 *     refused     connect(2) was refused, or there is no such unix socket
 *     reset       the other side reset it, or did not take what was to be sent
 *     short       the stream ended before the answer did
 *     wrong       something else than the answer, or more
 *     timeouts    given up after -t seconds
 *     errors      this side's own trouble (no descriptors, no ports); "error" names the first
 *     unfinished  open when it was told to stop
 *
 * "matched" says how many got the first body, the second, and so on. Times are in seconds. A latency lasts
 * from the begin of connect(2), at a given rate from the moment when that was due, to the end of the stream,
 * and is of good answers only. "late" are good answers that took a second or more, which is when the kernel
 * sends a lost SYN again. "gap" is the longest time without a good answer, begin and end of the run included.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAX_BODIES 8
#define SECOND 1000000000LL
#define SPIN 1000000LL /* nanoseconds before a connection is due in which we do not sleep: epoll is too coarse */
#define RETRY 1000000LL /* nanoseconds until a unix socket with a full backlog is asked again */

enum outcome { OK, REFUSED, RESET, SHORT, WRONG, TIMEOUT, ERROR, UNFINISHED, OUTCOMES };

static const char *const outcome_names[OUTCOMES] = {
    "ok", "refused", "reset", "short", "wrong", "timeouts", "errors", "unfinished",
};

struct body {
    char *bytes;
    size_t size;
};

struct connection {
    struct connection *previous, *next; /* in the order in which they began */
    int64_t due;
    size_t received;      /* bytes of the body */
    size_t sent;
    unsigned candidates;  /* a bit for each body that it can still become */
    unsigned header_end;  /* how much of the empty line has been seen */
    int fd;
    bool waits;           /* for room in the backlog of a unix socket; the others are watched by epoll */
};

static struct {
    long count;
    double seconds, rate, timeout;
    int at_once, bodies, sources;
    struct body body[MAX_BODIES];
    const char *send;
    size_t send_size;
    bool http;
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_un un;
    } address;
    socklen_t address_size;
} want = {.at_once = 32, .timeout = 10, .sources = 4096};

static struct {
    long begun;
    long outcome[OUTCOMES];
    long matched[MAX_BODIES];
    long late;
    int first_error;
    int64_t began, ended, last_ok, gap;
    uint32_t *latency; /* microseconds */
    size_t latencies, room;
} have;

static struct connection *slots, *unused;
static struct connection open_ones; /* the head of a ring */
static long open_count;
static int epoll;
static volatile sig_atomic_t told_to_stop;

static void fail(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

/* ---- what a connection came to ---- */

static void note_ok(const struct connection *c, int64_t moment)
{
    int64_t taken = moment - c->due;
    if (have.latencies == have.room) {
        have.room = have.room ? 2 * have.room : 65536;
        have.latency = realloc(have.latency, have.room * sizeof *have.latency);
        if (have.latency == NULL)
            fail("no memory for the latencies");
    }
    have.latency[have.latencies++] = (uint32_t)(taken / 1000);
    if (taken >= SECOND)
        have.late++;
    if (moment - have.last_ok > have.gap)
        have.gap = moment - have.last_ok;
    have.last_ok = moment;
}

static void finish(struct connection *c, enum outcome outcome)
{
    have.outcome[outcome]++;
    if (outcome == OK)
        note_ok(c, now());
    if (c->fd >= 0)
        close(c->fd);
    c->previous->next = c->next;
    c->next->previous = c->previous;
    c->next = unused;
    unused = c;
    open_count--;
}

static void finish_with_errno(struct connection *c)
{
    switch (errno) {
    case ECONNREFUSED:
    case ENOENT:
        finish(c, REFUSED);
        return;
    case ECONNRESET:
    case ECONNABORTED:
    case EPIPE:
        finish(c, RESET);
        return;
    default:
        if (have.first_error == 0)
            have.first_error = errno;
        finish(c, ERROR);
    }
}

/* ---- the answer ---- */

/* Return how many of these bytes are the header's. */
static size_t skip_header(struct connection *c, const char *bytes, size_t size)
{
    static const char end[] = "\r\n\r\n";
    size_t i = 0;
    while (i < size && c->header_end < 4) {
        c->header_end = bytes[i] == end[c->header_end] ? c->header_end + 1 : bytes[i] == '\r';
        i++;
    }
    return i;
}

static bool take_bytes(struct connection *c, const char *bytes, size_t size)
{
    if (want.http) {
        size_t header = skip_header(c, bytes, size);
        bytes += header;
        size -= header;
    }
    for (int i = 0; i < want.bodies; i++) {
        const struct body *b = &want.body[i];
        if (c->received + size > b->size || memcmp(b->bytes + c->received, bytes, size) != 0)
            c->candidates &= ~(1u << i);
    }
    c->received += size;
    return want.bodies == 0 || c->candidates != 0;
}

static void take_end(struct connection *c)
{
    if (want.http && c->header_end < 4) {
        finish(c, SHORT);
        return;
    }
    for (int i = 0; i < want.bodies; i++)
        if (c->candidates & (1u << i) && c->received == want.body[i].size) {
            have.matched[i]++;
            finish(c, OK);
            return;
        }
    finish(c, want.bodies == 0 && c->received > 0 ? OK : SHORT);
}

static void receive(struct connection *c)
{
    static char buffer[256 * 1024];
    for (;;) {
        ssize_t size = read(c->fd, buffer, sizeof buffer);
        if (size == 0) {
            take_end(c);
            return;
        }
        if (size < 0) {
            if (errno != EAGAIN)
                finish_with_errno(c);
            return;
        }
        if (!take_bytes(c, buffer, (size_t)size)) {
            finish(c, WRONG);
            return;
        }
    }
}

/* Send what is to be sent; tell whether the connection is still there. */
static bool send_text(struct connection *c)
{
    while (c->sent < want.send_size) {
        ssize_t size = send(c->fd, want.send + c->sent, want.send_size - c->sent, MSG_NOSIGNAL);
        if (size < 0 && errno == EAGAIN)
            return true;
        if (size < 0) {
            finish_with_errno(c);
            return false;
        }
        c->sent += (size_t)size;
    }
    return true;
}

/* ---- the beginning ---- */

static void choose_source(int fd)
{
    int on = 1;
    uint32_t number = (uint32_t)(have.begun % want.sources);
    struct sockaddr_in source = {.sin_family = AF_INET};
    /* 127.1.1.1, 127.2.1.1, ... : no octet is 0 or 255 */
    source.sin_addr.s_addr = htonl(127u << 24 | (1 + number % 254) << 16 | (1 + number / 254 % 254) << 8 | 1);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&source, sizeof source) != 0)
        fail("cannot bind to a source address in 127.0.0.0/8 (-s 0 goes without)");
}

static bool waiting; /* some connection waits for room in a backlog */

static void watch(struct connection *c)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    if (want.send_size > 0)
        event.events |= EPOLLOUT;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event) != 0)
        fail("epoll_ctl");
}

static void try_connect(struct connection *c)
{
    c->waits = false;
    if (connect(c->fd, &want.address.any, want.address_size) == 0 || errno == EINPROGRESS)
        watch(c);
    else if (errno == EAGAIN) /* where it may block, connect(2) to a unix socket would wait */
        c->waits = waiting = true;
    else
        finish_with_errno(c);
}

static struct connection *take_slot(int64_t due)
{
    struct connection *c = unused;
    unused = c->next;
    *c = (struct connection){.due = due, .candidates = (1u << want.bodies) - 1};
    c->previous = open_ones.previous;
    c->next = &open_ones;
    c->previous->next = c->next->previous = c;
    open_count++;
    return c;
}

static void begin(int64_t due)
{
    struct connection *c = take_slot(due);
    have.begun++;
    c->fd = socket(want.address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) {
        finish_with_errno(c);
        return;
    }
    if (want.address.any.sa_family == AF_INET && want.sources > 0)
        choose_source(c->fd);
    try_connect(c);
}

static void try_those_that_wait(void)
{
    struct connection *next;
    waiting = false;
    for (struct connection *c = open_ones.next; c != &open_ones; c = next) {
        next = c->next;
        if (c->waits)
            try_connect(c);
    }
}

/* ---- the run ---- */

static bool is_to_go_on(int64_t moment)
{
    return (want.count == 0 || have.begun < want.count) &&
           (want.seconds == 0 || moment - have.began < want.seconds * SECOND);
}

static bool may_begin(int64_t moment)
{
    return unused != NULL && is_to_go_on(moment);
}

static int64_t due_next(void)
{
    return have.began + (int64_t)((double)have.begun / want.rate * SECOND);
}

static void begin_what_is_due(void)
{
    /* What fails at once leaves its slot free: not more than one round of them, or nothing else is done. */
    int64_t moment = now();
    for (int i = 0; i < want.at_once && may_begin(moment); i++) {
        int64_t due = want.rate > 0 ? due_next() : moment;
        if (due > moment)
            break;
        begin(due);
        moment = now();
    }
}

static void give_up_what_is_overdue(void)
{
    int64_t limit = now() - (int64_t)(want.timeout * SECOND);
    while (open_ones.next != &open_ones && open_ones.next->due < limit)
        finish(open_ones.next, TIMEOUT);
}

/* Never for long: a signal that comes just before the waiting does not end it. */
static int milliseconds_to_wait(void)
{
    int64_t moment = now(), until = moment + SECOND / 10;
    if (may_begin(moment)) {
        if (want.rate == 0)
            return 0;
        if (due_next() - SPIN < until)
            until = due_next() - SPIN;
    }
    if (waiting && moment + RETRY < until)
        until = moment + RETRY;
    if (open_count > 0 && open_ones.next->due + (int64_t)(want.timeout * SECOND) < until)
        until = open_ones.next->due + (int64_t)(want.timeout * SECOND);
    return until <= moment ? 0 : (int)((until - moment + 999999) / 1000000);
}

static void serve_events(void)
{
    struct epoll_event events[256];
    int count = epoll_wait(epoll, events, 256, milliseconds_to_wait());
    for (int i = 0; i < count; i++) {
        struct connection *c = events[i].data.ptr;
        if (events[i].events & EPOLLOUT && !send_text(c))
            continue;
        if (events[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
            receive(c);
    }
}

static void run(void)
{
    have.began = have.last_ok = now();
    while (!told_to_stop && (open_count > 0 || is_to_go_on(now()))) {
        begin_what_is_due();
        serve_events();
        if (waiting)
            try_those_that_wait();
        give_up_what_is_overdue();
    }
    have.ended = now();
    if (have.ended - have.last_ok > have.gap)
        have.gap = have.ended - have.last_ok;
    while (open_count > 0)
        finish(open_ones.next, UNFINISHED);
}

/* ---- the report ---- */

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* The smallest latency that so large a share of the good answers did not exceed. */
static double quantile(double share)
{
    if (have.latencies == 0)
        return 0;
    size_t rank = (size_t)(share * (double)have.latencies + 0.999999);
    return have.latency[rank == 0 ? 0 : rank - 1] / 1e6;
}

static void report(void)
{
    double seconds = (double)(have.ended - have.began) / SECOND;
    qsort(have.latency, have.latencies, sizeof *have.latency, compare);
    printf("{\"begun\": %ld", have.begun);
    for (int i = 0; i < OUTCOMES; i++)
        printf(", \"%s\": %ld", outcome_names[i], have.outcome[i]);
    printf(", \"matched\": [");
    for (int i = 0; i < want.bodies; i++)
        printf("%s%ld", i ? ", " : "", have.matched[i]);
    printf("], \"error\": \"%s\"", have.first_error ? strerror(have.first_error) : "");
    printf(", \"seconds\": %.6f, \"rate\": %.1f", seconds, seconds > 0 ? have.outcome[OK] / seconds : 0);
    printf(", \"p50\": %.6f, \"p90\": %.6f, \"p99\": %.6f, \"max\": %.6f", quantile(0.5), quantile(0.9),
           quantile(0.99), quantile(1));
    printf(", \"late\": %ld, \"gap\": %.6f}\n", have.late, (double)have.gap / SECOND);
}

/* ---- the command line ---- */

static void read_body(const char *path)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) != 0)
        fail(path);
    if (want.bodies == MAX_BODIES) {
        fprintf(stderr, "load: at most %d bodies\n", MAX_BODIES);
        exit(2);
    }
    struct body *b = &want.body[want.bodies++];
    b->size = (size_t)status.st_size;
    b->bytes = malloc(b->size + 1);
    if (b->bytes == NULL || read(fd, b->bytes, b->size) != (ssize_t)b->size)
        fail(path);
    close(fd);
}

static void read_address(int count, char **words)
{
    if (count == 2) {
        want.address.in.sin_family = AF_INET;
        want.address.in.sin_port = htons((uint16_t)atoi(words[1]));
        want.address_size = sizeof want.address.in;
        if (inet_pton(AF_INET, words[0], &want.address.in.sin_addr) == 1)
            return;
    } else if (count == 1 && strlen(words[0]) < sizeof want.address.un.sun_path) {
        want.address.un.sun_family = AF_UNIX;
        strcpy(want.address.un.sun_path, words[0]);
        want.address_size = sizeof want.address.un;
        return;
    }
    fprintf(stderr, "load: expected an IPv4 address and a port, or the path of a unix socket\n");
    exit(2);
}

static void read_command_line(int argc, char **argv)
{
    int letter;
    while ((letter = getopt(argc, argv, "n:d:c:r:t:e:w:Hs:")) != -1)
        switch (letter) {
        case 'n': want.count = atol(optarg); break;
        case 'd': want.seconds = atof(optarg); break;
        case 'c': want.at_once = atoi(optarg); break;
        case 'r': want.rate = atof(optarg); break;
        case 't': want.timeout = atof(optarg); break;
        case 'e': read_body(optarg); break;
        case 'w': want.send = optarg; want.send_size = strlen(optarg); break;
        case 'H': want.http = true; break;
        case 's': want.sources = atoi(optarg); break;
        default: exit(2);
        }
    read_address(argc - optind, argv + optind);
    if (want.at_once < 1 || want.sources < 0 || want.sources > 254 * 254) {
        fprintf(stderr, "load: -c is at least 1, and -s at most %d\n", 254 * 254);
        exit(2);
    }
}

static void stop(int number)
{
    (void)number;
    told_to_stop = 1;
}

static void prepare(void)
{
    struct sigaction action = {.sa_handler = stop};
    struct rlimit limit;
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    epoll = epoll_create1(EPOLL_CLOEXEC);
    slots = calloc((size_t)want.at_once, sizeof *slots);
    if (epoll < 0 || slots == NULL)
        fail("cannot begin");
    for (int i = want.at_once - 1; i >= 0; i--) {
        slots[i].next = unused;
        unused = &slots[i];
    }
    open_ones.next = open_ones.previous = &open_ones;
}

int main(int argc, char **argv)
{
    read_command_line(argc, argv);
    prepare();
    run();
    report();
    return 0;
}
