/* Sets the wall clock of one process ahead by LAB_CLOCK_AHEAD seconds, and by as many more as the number in the
 * file LAB_CLOCK_FILE says, which may change while the process runs; timers keep the true one.
 *
 * Preloaded into a node by the lab (faults/clock.rs). libfaketime cannot be used: it allocates while the
 * allocator of the node asks for the time, and both wait for each other for ever. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile long *jump;

__attribute__((constructor)) static void follow(void) {
    const char *path = getenv("LAB_CLOCK_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *map = file < 0 ? MAP_FAILED : mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
    if (map != MAP_FAILED) jump = map;
    if (file >= 0) close(file);
}

static long ahead(void) {
    const char *text = getenv("LAB_CLOCK_AHEAD");
    return (text ? atol(text) : 0) + (jump ? *jump : 0);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += ahead();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec exact;
    if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
    if (out) *out = exact.tv_sec;
    return exact.tv_sec;
}
