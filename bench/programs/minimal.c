/*
 * The least that a server can do: accept, send a poem, close. The limit that the others are measured against.
 *
 *     minimal PORT POEM
 *
 * One thread and one epoll, as an event loop has. A client that is slow, or that sent something, is not
 * thought of.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static char poem[1 << 20];

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int listen_on(int port)
{
    int on = 1, sock = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(sock, (struct sockaddr *)&address, sizeof address) != 0 || listen(sock, 4096) != 0)
        fail("listen");
    return sock;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    int file = open(argv[2], O_RDONLY);
    ssize_t size = read(file, poem, sizeof poem);
    if (size < 0)
        fail(argv[2]);
    int listener = listen_on(atoi(argv[1]));
    int poll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int client;
        epoll_wait(poll, &event, 1, -1);
        while ((client = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
            send(client, poem, (size_t)size, MSG_NOSIGNAL);
            close(client);
        }
    }
}
