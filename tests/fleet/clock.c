/* Clocks of a machine that run at another rate: preload this with CLOCK_RATE, such as 1.05 for one that is fast.

   The clocks of the time since the start are scaled, and the timers of the kernel that are set by them. (Of
   libfaketime, CLOCK_BOOTTIME is another clock, and no timer that is set by it ever ends.) The time of day
   stays, as nothing that is proved here looks at it. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static double rate(void) {
    static double known;
    if (known == 0) {
        const char *text = getenv("CLOCK_RATE");
        known = text ? atof(text) : 1;
    }
    return known;
}

static int is_scaled(clockid_t clock) {
    return clock == CLOCK_BOOTTIME || clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE;
}

static struct timespec times(struct timespec time, double factor) {
    long double seconds = (time.tv_sec + time.tv_nsec / 1e9L) * factor;
    time.tv_sec = (time_t)seconds;
    time.tv_nsec = (long)((seconds - time.tv_sec) * 1e9L);
    return time;
}

static struct itimerspec real(const struct itimerspec *setting) {
    struct itimerspec found = {times(setting->it_interval, 1 / rate()), times(setting->it_value, 1 / rate())};
    return found;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int failed = (int)syscall(SYS_clock_gettime, clock, time);
    if (!failed && is_scaled(clock))
        *time = times(*time, rate());
    return failed;
}

int timerfd_settime(int descriptor, int flags, const struct itimerspec *setting, struct itimerspec *old) {
    struct itimerspec scaled = real(setting);
    return (int)syscall(SYS_timerfd_settime, descriptor, flags, &scaled, old);
}

int timer_settime(timer_t timer, int flags, const struct itimerspec *setting, struct itimerspec *old) {
    int (*next)(timer_t, int, const struct itimerspec *, struct itimerspec *) = dlsym(RTLD_NEXT, "timer_settime");
    struct itimerspec scaled = real(setting);
    return next(timer, flags, &scaled, old);
}

/* Waits until a time, which Python's sleep and its locks use. */

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until, struct timespec *rest) {
    int (*next)(clockid_t, int, const struct timespec *, struct timespec *) = dlsym(RTLD_NEXT, "clock_nanosleep");
    struct timespec scaled = is_scaled(clock) ? times(*until, 1 / rate()) : *until;
    return next(clock, flags, &scaled, rest);
}

int sem_clockwait(sem_t *semaphore, clockid_t clock, const struct timespec *until) {
    int (*next)(sem_t *, clockid_t, const struct timespec *) = dlsym(RTLD_NEXT, "sem_clockwait");
    struct timespec scaled = is_scaled(clock) ? times(*until, 1 / rate()) : *until;
    return next(semaphore, clock, &scaled);
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until) {
    /* Python's conditions are of CLOCK_MONOTONIC. */
    int (*next)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    next = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    struct timespec scaled = times(*until, 1 / rate());
    return next(condition, mutex, &scaled);
}
