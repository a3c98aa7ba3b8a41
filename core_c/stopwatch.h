/* Decides when a run returns to Python. */
#ifndef PYFRAME_STOPWATCH_H
#define PYFRAME_STOPWATCH_H

#include "system.h"

/* Bytes that the kernels may touch between two readings of the clock: well below a millisecond. */
enum { PF_WORK_PER_CLOCK = 1 << 20 };

/* The first reading of the clock starts the watch: a run with less work than PF_WORK_PER_CLOCK
 * reads no clock.
 */
typedef struct {
    double seconds; /* negative: never */
    double deadline;
    int64_t work; /* since the last look */
    int started;
} pf_stopwatch;

static inline int pf_is_over(pf_stopwatch *watch) {
    watch->work = 0;
    if (watch->seconds < 0) return 0;
    const double time = 1e-9 * (double)pf_nanoseconds();
    if (!watch->started) {
        watch->started = 1;
        watch->deadline = time + watch->seconds;
        return watch->seconds == 0;
    }
    return time > watch->deadline;
}

#endif
