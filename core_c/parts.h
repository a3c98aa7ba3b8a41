/* Kernels that divide their work among threads.
 *
 * How rows, or elements, are cut into parts depends on the shape alone, and each part writes its
 * sums to its own memory: so the bits do not depend on the number of threads. */
#ifndef PYFRAME_PARTS_H
#define PYFRAME_PARTS_H

#include "cost.h"
#include "kernel.h"

enum {
    PF_PART_BYTES = 1 << 15 /* of a part's operands, roughly: several parts for each thread */
};

/* What a kernel does with rows first to end of its operands. `results` is the caller's. */
typedef void pf_part_body(const pf_call *call, int64_t part, int64_t first, int64_t end,
                          void *results);

/* Runs the body for all rows, `each` rows a part; no part is empty unless there are no rows at all.
 * `row_bytes`: the work on one row, in bytes that a simple loop reads in the same time. */
void pf_in_parts(const pf_call *call, int64_t rows, int64_t each, int64_t row_bytes,
                 pf_part_body *body, void *results);

/* How many rows make a part. */
static inline int64_t pf_rows_of_part(int64_t row_bytes) {
    const int64_t rows = row_bytes > 0 ? PF_PART_BYTES / row_bytes : PF_PART_BYTES;
    return rows > 0 ? rows : 1;
}

#endif
