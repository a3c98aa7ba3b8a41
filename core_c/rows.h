/* Exponentials of the rows of a matrix, a block of rows at a time: those of a whole block are one
 * vector loop, however short its rows are. */
#ifndef PYFRAME_ROWS_H
#define PYFRAME_ROWS_H

#include "elementwise.h"
#include "vector_functions.h"

/* A block has at most PF_BLOCK_ROWS rows and, unless it is a single row, PF_BLOCK_SIZE elements. */
enum { PF_BLOCK_ROWS = 64, PF_BLOCK_SIZE = 1024 };

static inline int64_t pf_block_rows(int64_t rows, int64_t n) {
    int64_t most = n > 0 ? PF_BLOCK_SIZE / n : PF_BLOCK_ROWS;
    most = most < 1 ? 1 : most > PF_BLOCK_ROWS ? PF_BLOCK_ROWS : most;
    return rows < most ? rows : most;
}

static inline real pf_greater(real a, real b) { return a > b ? a : b; }

/* The largest of n > 0 numbers. If one is NaN, the value does not matter: its exponential is NaN in
 * any case. */
static inline real pf_row_max(const real *x, int64_t n) {
    real best = x[0];
    int64_t i = 0;
    if (n >= PF_LANES) {
        real lane[PF_LANES];
        PF_EACH_LANE for (int j = 0; j < PF_LANES; j++) lane[j] = x[j];
        for (i = PF_LANES; i + PF_LANES <= n; i += PF_LANES)
            PF_EACH_LANE for (int j = 0; j < PF_LANES; j++) lane[j] = pf_greater(x[i + j], lane[j]);
        PF_EACH_HALF for (int width = PF_LANES / 2; width > 0; width /= 2)
            PF_EACH_LANE for (int j = 0; j < width; j++) lane[j] =
                pf_greater(lane[j], lane[j + width]);
        best = lane[0];
    }
    for (; i < n; i++) best = pf_greater(x[i], best);
    return best;
}

/* e = exp(x - the largest of the row), for one block of rows; e may be x. */
static inline void pf_exp_rows(const real *x, real *e, int64_t rows, int64_t n, real *top) {
    for (int64_t r = 0; r < rows; r++) {
        const real *from = x + r * n;
        real *to = e + r * n;
        const real best = top[r] = pf_row_max(from, n);
        PF_INDEPENDENT
        for (int64_t c = 0; c < n; c++) to[c] = from[c] - best;
    }
    PF_NAME(exp_all)(rows * n, e, e);
}

/* log sum_c exp(x_c - top), top = max_c x_c, for one block of rows of n > 0 elements. */
static inline void pf_log_sum_rows(const real *x, int64_t rows, int64_t n, real *top,
                                   real *log_sum) {
    real e[PF_BLOCK_SIZE];
    if (rows <= 0 || n <= 0) return; /* so that compilers see that what is read was written */
    if (n <= PF_BLOCK_SIZE) {
        pf_exp_rows(x, e, rows, n, top);
        for (int64_t r = 0; r < rows; r++) log_sum[r] = pf_sum(e + r * n, n);
    } else { /* one long row */
        top[0] = pf_row_max(x, n);
        log_sum[0] = 0;
        for (int64_t start = 0; start < n; start += PF_BLOCK_SIZE) {
            const int64_t size = n - start < PF_BLOCK_SIZE ? n - start : PF_BLOCK_SIZE;
            for (int64_t i = 0; i < size; i++) e[i] = x[start + i] - top[0];
            PF_NAME(exp_all)(size, e, e);
            log_sum[0] += pf_sum(e, size);
        }
    }
    PF_NAME(log_all)(rows, log_sum, log_sum);
}

#endif
