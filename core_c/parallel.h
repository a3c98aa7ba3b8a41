/* Work shared out to threads. */
#ifndef PYFRAME_PARALLEL_H
#define PYFRAME_PARALLEL_H

#include <stdint.h>

typedef void (*pf_body)(void *context, int64_t part);

/* body(context, part) for each part in [0, parts), perhaps on several threads at once.
 * `nanoseconds` is what all of it takes one core, roughly; below what waking threads costs, it runs
 * here. Which parts there are must depend on shapes only, never on the number of threads. */
static inline void pf_parallel_for(int64_t parts, int64_t nanoseconds, pf_body body,
                                   void *context) {
    (void)nanoseconds;
    for (int64_t part = 0; part < parts; part++) body(context, part);
}

#endif
