/* Walks in row-major order over an array, with operands that have strides of their own: broadcast
 * (stride 0), transposed, sliced or with axes left out. */
#ifndef PYFRAME_WALK_H
#define PYFRAME_WALK_H

#include "parts.h"

/* An odometer over `dims`, with the offsets of up to two operands. All zero, it is that of a
 * scalar. */
typedef struct {
    int ndim;
    int64_t dims[PF_MAX_NDIM], strides[2][PF_MAX_NDIM];
    int64_t index[PF_MAX_NDIM], offset[2];
} pf_walk;

/* Appends an innermost axis. One of extent 1 is left out, and one that continues its neighbour in
 * both operands is merged with it: that leaves the fewest loops possible. */
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

/* One axis, taken off a walk. */
typedef struct {
    int64_t extent, strides[2];
} pf_axis;

/* Takes the innermost axis off, for a loop of its own; that of a scalar has extent 1. */
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

/* Moves on by one position; from the last, back to the first. */
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

/* Goes to a position, counted from the first. */
static inline void pf_walk_seek(pf_walk *walk, int64_t position) {
    walk->offset[0] = walk->offset[1] = 0;
    for (int i = walk->ndim - 1; i >= 0; i--) {
        walk->index[i] = position % walk->dims[i];
        position /= walk->dims[i];
        walk->offset[0] += walk->index[i] * walk->strides[0][i];
        walk->offset[1] += walk->index[i] * walk->strides[1][i];
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

/* Where pf_gather reads; rows of the walk's innermost axis. */
typedef struct {
    const real *x;
    pf_walk rows;
    pf_axis row;
} pf_gathering;

static inline void pf_gather_part(const pf_call *call, int64_t index, int64_t first, int64_t end,
                                  void *gathering) {
    (void)index;
    const pf_gathering *g = gathering;
    const int64_t n = g->row.extent, stride = g->row.strides[0];
    real *restrict y = pf_out(call, 0) + first * n;
    pf_walk rows = g->rows;
    pf_walk_seek(&rows, first);
    for (int64_t r = first; r < end; r++, y += n, pf_walk_next(&rows)) {
        const real *restrict from = g->x + rows.offset[0];
        if (stride == 1)
            memcpy(y, from, (size_t)n * sizeof(real));
        else if (stride == 0) /* a loop that compilers vectorize */
            for (int64_t i = 0; i < n; i++) y[i] = *from;
        else
            for (int64_t i = 0; i < n; i++) y[i] = from[i * stride];
    }
}

/* Fills output 0, in order, from x at the offsets of the walk's operand 0. */
static inline void pf_gather(const pf_call *call, const real *x, pf_walk walk) {
    if (pf_walk_count(&walk) == 0) return;
    pf_gathering gathering = {.x = x, .row = pf_walk_pop(&walk)};
    gathering.rows = walk;
    const int64_t bytes = gathering.row.extent * (int64_t)sizeof(real);
    pf_in_parts(call, pf_walk_count(&walk), pf_rows_of_part(bytes), 2 * bytes, pf_gather_part,
                &gathering);
}

#endif
