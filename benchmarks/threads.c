/* The bodies and the stopwatch of threads.py, which compiles this. */
#define _POSIX_C_SOURCE 200809L
#include <stdlib.h>
#include <time.h>

#include "pyframe/pyframe.h"

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* What a body works on: `length` numbers a part. */
typedef struct {
    float *x;
    int64_t length;
} task;

static void nothing(void *context, int64_t part) {
    (void)context;
    (void)part;
}

/* x = x * 0.5 + 1 over memory: bound by bandwidth when x is larger than the caches. */
static void stream(void *context, int64_t part) {
    const task *t = context;
    float *x = t->x + part * t->length;
    for (int64_t i = 0; i < t->length; i++) x[i] = x[i] * 0.5f + 1.0f;
}

/* The same 64 times over 256 numbers that stay in the first cache: bound by the processor. */
static void compute(void *context, int64_t part) {
    const task *t = context;
    float *x = t->x + part * t->length;
    for (int64_t first = 0; first < t->length; first += 256)
        for (int round = 0; round < 64; round++)
            for (int64_t i = first; i < first + 256; i++) x[i] = x[i] * 0.5f + 1.0f;
}

static int compare(const void *a, const void *b) {
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* The median time of a region, nanoseconds. Between two regions nothing happens for `pause` of
 * them: above what a worker spins, it sleeps. */
int64_t measure(const pf_host *host, int kind, float *x, int64_t parts, int64_t length,
                int64_t nanoseconds, int64_t pause, int64_t rounds);
int64_t measure(const pf_host *host, int kind, float *x, int64_t parts, int64_t length,
                int64_t nanoseconds, int64_t pause, int64_t rounds) {
    const pf_body bodies[] = {nothing, stream, compute};
    task t = {x, length};
    int64_t *times = malloc((size_t)rounds * sizeof *times);
    for (int64_t r = 0; r < rounds; r++) {
        for (const int64_t until = now() + pause; now() < until;) continue;
        const int64_t start = now();
        host->parallel_for(parts, nanoseconds, bodies[kind], &t);
        times[r] = now() - start;
    }
    qsort(times, (size_t)rounds, sizeof *times, compare);
    const int64_t median = times[rounds / 2];
    free(times);
    return median;
}
