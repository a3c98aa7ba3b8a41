/* The products that have one row or one column: nothing would be used twice, so nothing is tiled or
 * packed, and the matrix is read once, where it lies. */
#ifndef PYFRAME_GEMM_ROW_H
#define PYFRAME_GEMM_ROW_H

#include "vector.h"

enum {
    ROW_VECTORS = PF_VECTOR_REGISTERS / 4, /* sums that are open at once: they hide the latency */
    ROW_DEPTH = 512,                       /* terms of a sum in one go; these sums are added up */
    DOT_DEPTH = 256 * LANES,
    DOT_COLUMNS = LANES < 4 ? LANES : 4,
    FEW_COLUMNS = LANES / 2 > 1 ? LANES / 2 : 1
};

/* y[j] = f(scale sum_p x[p] matrix[p][j] + ...), j < n */
typedef struct {
    const real *x;
    int64_t x_step, k, n;
    const real *matrix; /* its rows, or, for dots, its columns, are `stride` apart */
    int64_t stride;
    real *y;
    int add;
    real scale;
    const real *bias; /* NULL, or period numbers, which begin anew after the last of them */
    int64_t period;
    const real *residual; /* (n,) or NULL */
} pf_row;

/* Stores sums of columns j to j + count; `last` tells whether these are the last terms. */
static inline void put(const pf_row *r, int64_t j, int64_t count, const vec *sum, int add,
                       int last) {
    for (; count > 0; j += LANES, count -= LANES, sum++) {
        const part lanes = first_lanes(count < LANES ? count : LANES);
        vec x = *sum;
        if (r->scale != 1) x *= r->scale; /* rounded here, wherever the element lies */
        if (add) x += load_part(r->y + j, lanes);
        if (last && r->bias) {
            if (r->period == r->n)
                x += load_part(r->bias + j, lanes);
            else
                for (int i = 0; i < LANES; i++) x[i] += r->bias[(j + i) % r->period];
        }
        if (last && r->residual) x += load_part(r->residual + j, lanes);
        store_part(r->y + j, lanes, x);
    }
}

/* `vectors` vectors of columns from j on: `ways` sums for each, of every ways-th term. */
__attribute__((always_inline)) static inline void row_strip(const int vectors, const pf_row *r,
                                                            int64_t j, int64_t count, int64_t p,
                                                            int64_t depth, int add, int is_last) {
    enum { WAYS = 4 };
    const int ways = vectors * WAYS <= ROW_VECTORS ? WAYS : vectors * 2 <= ROW_VECTORS ? 2 : 1;
    const part last = first_lanes(count - (vectors - 1) * LANES);
    const real *b = r->matrix + p * r->stride + j, *x = r->x + p * r->x_step;
    vec sum[WAYS][ROW_VECTORS] = {{{0}}};
    int64_t q = 0;
#define PF_ROW_TERM(way)                                                              \
    PF_UNROLL for (int v = 0; v < vectors; v++) sum[way][v] +=                        \
        x[(q + way) * r->x_step] * (v < vectors - 1                                   \
                                        ? load(b + (q + way) * r->stride + v * LANES) \
                                        : load_part(b + (q + way) * r->stride + v * LANES, last));
    for (; q + ways <= depth; q += ways) PF_UNROLL for (int way = 0; way < ways; way++) {
            PF_ROW_TERM(way)
        }
    for (; q < depth; q++) {
        PF_ROW_TERM(0)
    }
#undef PF_ROW_TERM
    PF_UNROLL for (int way = 1; way < ways; way++) PF_UNROLL for (int v = 0; v < vectors; v++)
        sum[0][v] += sum[way][v];
    put(r, j, count, sum[0], add, is_last);
}

#define PF_ROW_STRIP(vectors)                                                             \
    static void row_strip_##vectors(const pf_row *r, int64_t j, int64_t count, int64_t p, \
                                    int64_t depth, int add, int last) {                   \
        row_strip(vectors, r, j, count, p, depth, add, last);                             \
    }
PF_ROW_STRIP(1)
PF_ROW_STRIP(2)
PF_ROW_STRIP(4)
#if PF_VECTOR_REGISTERS == 32
PF_ROW_STRIP(8)
#endif

/* y = x matrix: each row of the matrix, times a number, is added to the sums. */
static void row_times_matrix(const pf_row *r) {
    int64_t p = 0;
    do {
        const int64_t depth = r->k - p < ROW_DEPTH ? r->k - p : ROW_DEPTH;
        const int add = r->add || p > 0, last = p + depth == r->k;
        for (int64_t j = 0, count; j < r->n; j += count) {
            const int64_t left = r->n - j;
            /* Elsewhere than with masked loads, a rest of a vector is no business of a wide strip
             */
            const int64_t whole = PF_MASKED_LOADS ? left + LANES - 1 : left;
            const int64_t vectors = whole / LANES;
#if PF_VECTOR_REGISTERS == 32
            if (vectors >= 8) {
                count = left < 8 * LANES ? left : 8 * LANES;
                row_strip_8(r, j, count, p, depth, add, last);
            } else
#endif
                if (vectors >= 4) {
                count = left < 4 * LANES ? left : 4 * LANES;
                row_strip_4(r, j, count, p, depth, add, last);
            } else if (vectors >= 2) {
                count = left < 2 * LANES ? left : 2 * LANES;
                row_strip_2(r, j, count, p, depth, add, last);
            } else {
                count = left < LANES ? left : LANES;
                row_strip_1(r, j, count, p, depth, add, last);
            }
        }
        p += depth;
    } while (p < r->k);
}

/* sum[i] = column[i] . x, for `together` columns side by side; more of them would push each other
 * out of the cache when the columns are long. */
__attribute__((always_inline)) static inline void dots(const int together,
                                                       const real *const *column, const real *x,
                                                       int64_t depth, vec *sum) {
    enum { WAYS = PF_VECTOR_REGISTERS / 8 };
    const int ways = together < LANES ? WAYS : 1;
    vec open[WAYS][LANES];
    PF_UNROLL for (int way = 0; way < ways; way++) PF_UNROLL for (int i = 0; i < together; i++)
        open[way][i] = (vec){0};
    int64_t q = 0;
    for (; q + ways * LANES <= depth; q += ways * LANES)
        PF_UNROLL for (int way = 0; way < ways; way++) {
            const vec factor = load(x + q + way * LANES);
            PF_UNROLL for (int i = 0; i < together; i++) open[way][i] +=
                factor * load(column[i] + q + way * LANES);
        }
    for (; q + LANES <= depth; q += LANES) {
        const vec factor = load(x + q);
        PF_UNROLL for (int i = 0; i < together; i++) open[0][i] += factor * load(column[i] + q);
    }
    if (q < depth) {
        const part rest = first_lanes(depth - q);
        const vec factor = load_part(x + q, rest);
        PF_UNROLL for (int i = 0; i < together; i++) open[0][i] +=
            factor * load_part(column[i] + q, rest);
    }
    PF_UNROLL for (int way = 1; way < ways; way++) PF_UNROLL for (int i = 0; i < together; i++)
        open[0][i] += open[way][i];
    PF_UNROLL for (int i = 0; i < together; i++) sum[i] = open[0][i];
}

/* y[j] = x . column j, the columns contiguous: LANES of them at a time. */
static void row_times_columns(const pf_row *r) {
    int64_t p = 0;
    do {
        const int64_t depth = r->k - p < DOT_DEPTH ? r->k - p : DOT_DEPTH;
        for (int64_t j = 0; j < r->n; j += LANES) {
            const int64_t count = r->n - j < LANES ? r->n - j : LANES;
            const real *column[LANES];
            for (int i = 0; i < LANES; i++) /* what is beyond the end repeats the last one */
                column[i] = r->matrix + (j + (i < count ? i : count - 1)) * r->stride + p;
            vec total;
            if (depth < 16 * LANES && count > LANES / 2) {
                vec sum[LANES];
                dots(LANES, column, r->x + p, depth, sum);
                total = fold(sum);
            } else {
                vec sum[LANES] = {{0}};
                for (int i = 0; i < count; i += DOT_COLUMNS)
                    dots(DOT_COLUMNS, column + i, r->x + p, depth, sum + i);
                total = fold(sum);
            }
            put(r, j, count, &total, r->add || p > 0, p + depth == r->k);
        }
        p += depth;
    } while (p < r->k);
}

/* y (m, n) = a (m, k) b, with b^T (n, k) and n so small that rows of y would not fill a vector: as
 * many rows at a time as do. Here r->x is b^T, r->matrix is a, r->n is m n. */
__attribute__((always_inline)) static inline void few_columns(const int n, const pf_row *r) {
    const int rows = LANES / n;
    for (int64_t j = 0; j < r->n; j += rows * n) {
        const int64_t count = r->n - j < rows * n ? r->n - j : rows * n;
        const real *row[LANES];
        for (int i = 0; i < rows; i++)
            row[i] = r->matrix + (j / n + (i * n < count ? i : count / n - 1)) * r->stride;
        vec sum[LANES];
        PF_UNROLL for (int i = 0; i < LANES; i++) sum[i] = (vec){0};
        int64_t q = 0;
#define PF_FEW_TERMS(loaded)                                                   \
    vec x[FEW_COLUMNS];                                                        \
    PF_UNROLL for (int t = 0; t < n; t++) x[t] = loaded(r->x + t * r->k + q);  \
    PF_UNROLL for (int i = 0; i < rows; i++) {                                 \
        const vec factor = loaded(row[i] + q);                                 \
        PF_UNROLL for (int t = 0; t < n; t++) sum[i * n + t] += factor * x[t]; \
    }
        for (; q + LANES <= r->k; q += LANES) {
            PF_FEW_TERMS(load)
        }
        if (q < r->k) {
            const part rest = first_lanes(r->k - q);
#define PF_LOAD_REST(p) load_part(p, rest)
            PF_FEW_TERMS(PF_LOAD_REST)
#undef PF_LOAD_REST
        }
#undef PF_FEW_TERMS
        const vec total = fold(sum);
        put(r, j, count, &total, r->add, 1);
    }
}

#define PF_FEW_COLUMNS(n) \
    static void few_columns_##n(const pf_row *r) { few_columns(n, r); }
PF_FEW_COLUMNS(2)
#if PF_VECTOR_BYTES / (PF_REAL_BITS / 8) >= 8
PF_FEW_COLUMNS(3)
PF_FEW_COLUMNS(4)
#endif
#if PF_VECTOR_BYTES / (PF_REAL_BITS / 8) >= 16
PF_FEW_COLUMNS(5)
PF_FEW_COLUMNS(6)
PF_FEW_COLUMNS(7)
PF_FEW_COLUMNS(8)
#endif
static void (*const few_columns_of[])(const pf_row *) = {
    NULL,          NULL,          few_columns_2,
#if PF_VECTOR_BYTES / (PF_REAL_BITS / 8) >= 8
    few_columns_3, few_columns_4,
#endif
#if PF_VECTOR_BYTES / (PF_REAL_BITS / 8) >= 16
    few_columns_5, few_columns_6, few_columns_7, few_columns_8,
#endif
};

#endif
