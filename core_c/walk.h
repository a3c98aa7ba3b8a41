/* Walks in row-major order over an array whose operands lie in memory in orders of their own:
 * broadcast (stride 0), transposed, sliced or with axes left out. */
#ifndef PYFRAME_WALK_H
#define PYFRAME_WALK_H

#include "kernel.h"

/* An odometer over `dims`, with the offset of up to two operands. Zeroed, it is a scalar's. */
typedef struct {
    int ndim;
    int64_t dims[PF_MAX_NDIM], strides[2][PF_MAX_NDIM];
    int64_t index[PF_MAX_NDIM], offset[2];
} pf_walk;

/* Appends an axis on the inside. One of extent 1 is left out, and one that continues its neighbour
 * in both operands is joined to it: what remains is the fewest loops there can be. */
static inline void pf_walk_push(pf_walk *walk, int64_t extent, int64_t stride0, int64_t stride1) {
    if (extent == 1) return;
    int last = walk->ndim - 1;
    if (last >= 0 && walk->strides[0][last] == extent * stride0 &&
        walk->strides[1][last] == extent * stride1) {
        walk->dims[last] *= extent;
    } else {
        last = walk->ndim++;
        walk->dims[last] = extent;
    }
    walk->strides[0][last] = stride0;
    walk->strides[1][last] = stride1;
}

/* One axis taken off. */
typedef struct {
    int64_t extent, strides[2];
} pf_axis;

/* Takes the innermost axis off, for a loop of its own; a scalar's is of extent 1. */
static inline pf_axis pf_walk_pop(pf_walk *walk) {
    if (walk->ndim == 0) return (pf_axis){1, {0, 0}};
    int last = --walk->ndim;
    return (pf_axis){walk->dims[last], {walk->strides[0][last], walk->strides[1][last]}};
}

/* The number of positions. */
static inline int64_t pf_walk_count(const pf_walk *walk) {
    int64_t n = 1;
    for (int i = 0; i < walk->ndim; i++) n *= walk->dims[i];
    return n;
}

/* Goes on by one position; from the last, back to the first. */
static inline void pf_walk_next(pf_walk *walk) {
    for (int i = walk->ndim - 1; i >= 0; i--) {
        walk->offset[0] += walk->strides[0][i];
        walk->offset[1] += walk->strides[1][i];
        if (++walk->index[i] < walk->dims[i]) return;
        walk->offset[0] -= walk->dims[i] * walk->strides[0][i];
        walk->offset[1] -= walk->dims[i] * walk->strides[1][i];
        walk->index[i] = 0;
    }
}

/* strides[i] of a contiguous operand. */
static inline void pf_strides(const pf_operand *t, int64_t strides[PF_MAX_NDIM]) {
    int64_t stride = 1;
    for (int i = t->ndim - 1; i >= 0; i--) {
        strides[i] = stride;
        stride *= t->dims[i];
    }
}

/* y, in order, from x as the walk's operand 0 finds it. */
static inline void pf_gather(real *restrict y, const real *restrict x, pf_walk walk) {
    pf_axis row = pf_walk_pop(&walk);
    int64_t rows = pf_walk_count(&walk), n = row.extent, stride = row.strides[0];
    if (n == 0) return;
    for (int64_t r = 0; r < rows; r++, y += n, pf_walk_next(&walk)) {
        const real *from = x + walk.offset[0];
        if (stride == 1)
            memcpy(y, from, (size_t)n * sizeof(real));
        else
            for (int64_t i = 0; i < n; i++) y[i] = from[i * stride];
    }
}

#endif
