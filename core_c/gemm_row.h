/* Products with one row or one column: no element of the matrix is used twice, so nothing is tiled
 * or packed, and the matrix is read once, in place. */
#ifndef PYFRAME_GEMM_ROW_H
#define PYFRAME_GEMM_ROW_H

#include "gemm_tile.h"

enum {
    /* independent sums, which hide the latency, and long stretches of rows that lie far apart */
    ROW_VECTORS = PF_VECTOR_REGISTERS == 32 ? 16 : 8,
    WIDEST_STRIP = ROW_VECTORS == 16 ? 4 : 3, /* 2 to this power is ROW_VECTORS */
    FAR_MATRIX = 1 << 16,                     /* so many bytes are not in the L1 cache */
    MANY_ROWS = 32,                           /* of which it pays, ... */
    ROWS_TOGETHER = 4,                        /* ... so many at a time, ... */
    SUMS_TOGETHER = 1024, /* ... to read so many columns on end, whose sums are in the L1 cache */
    DOT_DEPTH = 256 * LANES,
    DOT_COLUMNS = LANES < 4 ? LANES : 4,
    DOT_WAYS = DOT_COLUMNS < LANES ? PF_VECTOR_REGISTERS / 8 : 1,
    FEW_COLUMNS = LANES / 2 > 1 ? LANES / 2 : 1,
    FEW_TERMS = PF_REAL_BITS == 32 ? 4 : 1
};

/* y[j] = f(scale sum_p x[p] matrix[p][j] + ...), j < n */
typedef struct {
    const real *x;
    int64_t x_step, k, n;
    const real *matrix; /* its rows (for dots, its columns) are `stride` apart */
    int64_t stride;
    real *y;
    int add;
    real scale;
    const real *bias;     /* (n,) or NULL; ... */
    int bias_repeats;     /* ... or one vector for all, if rows of c do not fill one */
    int in_order;         /* maybe a row of a batch: it is summed along k in the order of a tile */
    const real *residual; /* (n,) or NULL */
} pf_row;

/* Stores sums of columns j to j + count; `last`: whether these are the last terms. */
static inline void put(const pf_row *r, int64_t j, int64_t count, const vec *sum, int add,
                       int last) {
    for (; count > 0; j += LANES, count -= LANES, sum++) {
        const part lanes = first_lanes(count < LANES ? count : LANES);
        vec x = *sum;
        if (r->scale != 1) x *= r->scale; /* rounded here, at any position of the element */
        if (add) x += load_part(r->y + j, lanes);
        if (last && r->bias) x += load_part(r->bias + (r->bias_repeats ? 0 : j), lanes);
        if (last && r->residual) x += load_part(r->residual + j, lanes);
        store_part(r->y + j, lanes, x);
    }
}

/* `vectors` vectors of columns from j on, each with `ways` sums, each of every ways-th term. */
__attribute__((always_inline)) static inline void row_strip(const int vectors, const int ways,
                                                            const pf_row *r, int64_t j,
                                                            int64_t count, int64_t p, int64_t depth,
                                                            int add, int is_last) {
    const part last = first_lanes(count - (vectors - 1) * LANES);
    const int64_t stride = r->stride, x_step = r->x_step;
    const real *b = r->matrix + p * stride + j, *x = r->x + p * x_step;
    vec sum[ROW_VECTORS], total[ROW_VECTORS]; /* one register each; the results, for `put` */
    PF_UNROLL for (int i = 0; i < ways * vectors; i++) sum[i] = (vec){0};
    int64_t q = 0;
#define PF_ROW_TERM(way)                                                   \
    PF_UNROLL for (int v = 0; v < vectors; v++) sum[(way) * vectors + v] = \
        add_product(sum[(way) * vectors + v], splat(x[(way) * x_step]),    \
                    v < vectors - 1 ? load(b + (way) * stride + v * LANES) \
                                    : load_part(b + (way) * stride + v * LANES, last));
    for (; q + ways <= depth; q += ways, b += ways * stride, x += ways * x_step)
        PF_UNROLL for (int way = 0; way < ways; way++) { PF_ROW_TERM(way) }
    if (ways > 1)
        for (; q < depth; q++, b += stride, x += x_step) {
            PF_ROW_TERM(0)
        }
#undef PF_ROW_TERM
    PF_UNROLL for (int v = 0; v < vectors; v++) {
        PF_UNROLL for (int way = 1; way < ways; way++) sum[v] += sum[way * vectors + v];
        total[v] = sum[v];
    }
    put(r, j, count, total, add, is_last);
}

#define PF_ROW_STRIP(vectors, ways)                                                                \
    static void row_strip_##vectors##_##ways(const pf_row *r, int64_t j, int64_t count, int64_t p, \
                                             int64_t depth, int add, int last) {                   \
        row_strip(vectors, ways, r, j, count, p, depth, add, last);                                \
    }
PF_ROW_STRIP(1, 1)
PF_ROW_STRIP(1, 4)
PF_ROW_STRIP(2, 1)
PF_ROW_STRIP(2, 4)
PF_ROW_STRIP(4, 1)
PF_ROW_STRIP(8, 1)
#if PF_VECTOR_REGISTERS == 32
PF_ROW_STRIP(16, 1)
#endif
static void (*const row_strips[][2])(const pf_row *, int64_t, int64_t, int64_t, int64_t, int,
                                     int) = {{row_strip_1_4, row_strip_1_1},
                                             {row_strip_2_4, row_strip_2_1},
                                             {row_strip_4_1, row_strip_4_1},
                                             {row_strip_8_1, row_strip_8_1},
#if PF_VECTOR_REGISTERS == 32
                                             {row_strip_16_1, row_strip_16_1}
#endif
};

/* sums[j] += sum_i x[i] row i[j], j < width, for the next `rows` rows of the matrix */
__attribute__((always_inline)) static inline void add_rows(const int rows, const pf_row *r,
                                                           const real *x, const real *row,
                                                           int64_t width, real *sums) {
    vec factor[ROWS_TOGETHER];
    PF_UNROLL for (int i = 0; i < rows; i++) factor[i] = splat(x[i * r->x_step]);
    int64_t j = 0;
    for (; j + 2 * LANES <= width; j += 2 * LANES) { /* two, which do not wait for each other */
        vec even = load(sums + j), odd = load(sums + j + LANES);
        PF_UNROLL for (int i = 0; i < rows; i++) {
            even = add_product(even, factor[i], load(row + i * r->stride + j));
            odd = add_product(odd, factor[i], load(row + i * r->stride + j + LANES));
        }
        store(sums + j, even);
        store(sums + j + LANES, odd);
    }
    for (; j < width; j += LANES) {
        const part lanes = first_lanes(width - j < LANES ? width - j : LANES);
        vec sum = load(sums + j);
        PF_UNROLL for (int i = 0; i < rows; i++) sum =
            add_product(sum, factor[i], load_part(row + i * r->stride + j, lanes));
        store(sums + j, sum);
    }
}

/* A matrix of several strips that comes from the L2 or L3 cache: long stretches of its rows are
 * read, as processors read ahead, and the sums, in the order of a strip, wait in the L1 cache. */
static void row_times_long_rows(const pf_row *r, int64_t p, int64_t depth, int add, int is_last) {
    real sums[SUMS_TOGETHER] __attribute__((aligned(64)));
    for (int64_t j = 0, width; j < r->n; j += width) {
        width = r->n - j < SUMS_TOGETHER ? r->n - j : SUMS_TOGETHER;
        for (int64_t i = 0; i < width; i += LANES) store(sums + i, (vec){0});
        const real *row = r->matrix + p * r->stride + j, *x = r->x + p * r->x_step;
        int64_t left = depth;
        for (; left >= ROWS_TOGETHER; left -= ROWS_TOGETHER) {
            add_rows(ROWS_TOGETHER, r, x, row, width, sums);
            x += ROWS_TOGETHER * r->x_step, row += ROWS_TOGETHER * r->stride;
        }
        for (; left > 0; left--, x += r->x_step, row += r->stride)
            add_rows(1, r, x, row, width, sums);
        for (int64_t i = 0; i < width; i += LANES) {
            const vec sum = load(sums + i);
            put(r, j + i, width - i < LANES ? width - i : LANES, &sum, add, is_last);
        }
    }
}

/* y = x matrix: each row of the matrix, times a number, is added to the sums. */
static void row_times_matrix(const pf_row *r) {
    const int64_t pieces = r->k > DEPTH ? (r->k + DEPTH - 1) / DEPTH : 1;
    /* Strips of AVX-512 are a kilobyte wide, which is long enough. */
    const int long_rows = PF_VECTOR_BYTES < 64 && r->n >= 2 * ROW_VECTORS * LANES &&
                          r->k >= MANY_ROWS && r->n * r->k * (int64_t)sizeof(real) >= FAR_MATRIX;
    for (int64_t piece = 0; piece < pieces; piece++) {
        const int64_t p = r->k * piece / pieces, depth = r->k * (piece + 1) / pieces - p;
        if (long_rows) {
            row_times_long_rows(r, p, depth, r->add || piece > 0, piece + 1 == pieces);
            continue;
        }
        for (int64_t j = 0, count; j < r->n; j += count) {
            const int64_t left = r->n - j;
            /* Without masked loads, which vectors of 16 bytes lack, a wide strip takes whole
             * vectors only, and the rest of a row gets a narrow one. */
            const int64_t whole = PF_VECTOR_BYTES > 16 ? left + LANES - 1 : left;
            const int64_t vectors = whole / LANES;
            const int size = vectors >= ROW_VECTORS ? WIDEST_STRIP
                             : vectors >= 8         ? 3
                             : vectors >= 4         ? 2
                             : vectors >= 2         ? 1
                                                    : 0;
            count = left < (LANES << size) ? left : LANES << size;
            row_strips[size][r->in_order](r, j, count, p, depth, r->add || piece > 0,
                                          piece + 1 == pieces);
        }
    }
}

/* One vector of columns of c (m, n) = a (m, k) b (k, n) + bias for a small k: that of b stays in
 * registers for all rows. The terms are added up as they come, as in a tile. In the first `whole`
 * rows all of the vector is stored, in the others `lanes` of it. */
__attribute__((always_inline)) static inline void few_terms(const int k, const pf_gemm *g, real *c,
                                                            part lanes, int64_t whole,
                                                            const real *b, vec bias) {
    const int64_t a_row = g->a_row, a_step = g->a_step, c_row = g->c_row;
    const real *a = g->a;
    vec column[FEW_TERMS];
    PF_UNROLL for (int p = 0; p < k; p++) column[p] = load(b + p * LANES);
    int64_t i = 0;
    for (; i < whole; i++, a += a_row, c += c_row) {
        vec sum = {0};
        PF_UNROLL for (int p = 0; p < k; p++) sum =
            add_product(sum, splat(a[p * a_step]), column[p]);
        store(c, sum + bias);
    }
    for (; i < g->m; i++, a += a_row, c += c_row) {
        vec sum = {0};
        PF_UNROLL for (int p = 0; p < k; p++) sum =
            add_product(sum, splat(a[p * a_step]), column[p]);
        store_part(c, lanes, sum + bias);
    }
}

#define PF_FEW_TERMS(k)                                                                            \
    static void few_terms_##k(const pf_gemm *g, real *c, part lanes, int64_t whole, const real *b, \
                              vec bias) {                                                          \
        few_terms(k, g, c, lanes, whole, b, bias);                                                 \
    }
PF_FEW_TERMS(1)
#if PF_REAL_BITS == 32
PF_FEW_TERMS(2)
PF_FEW_TERMS(3)
PF_FEW_TERMS(4)
#endif
#undef PF_FEW_TERMS
static void (*const few_terms_of[])(const pf_gemm *, real *, part, int64_t, const real *, vec) = {
    NULL,        few_terms_1,
#if PF_REAL_BITS == 32
    few_terms_2, few_terms_3, few_terms_4,
#endif
};

/* sum[i] = column[i] . x, for `together` columns side by side; more of them would push each other
 * out of the cache when the columns are long. */
__attribute__((always_inline)) static inline void dots(const int together, const int ways,
                                                       const real *const *column, const real *x,
                                                       int64_t depth, vec *sum) {
    vec open[DOT_WAYS][LANES];
    PF_UNROLL for (int way = 0; way < ways; way++) PF_UNROLL for (int i = 0; i < together; i++)
        open[way][i] = (vec){0};
    int64_t q = 0;
    for (; q + ways * LANES <= depth; q += ways * LANES)
        PF_UNROLL for (int way = 0; way < ways; way++) {
            const vec factor = load(x + q + way * LANES);
            PF_UNROLL for (int i = 0; i < together; i++) open[way][i] =
                add_product(open[way][i], factor, load(column[i] + q + way * LANES));
        }
    for (; q + LANES <= depth; q += LANES) {
        const vec factor = load(x + q);
        PF_UNROLL for (int i = 0; i < together; i++) open[0][i] =
            add_product(open[0][i], factor, load(column[i] + q));
    }
    if (q < depth) {
        const part rest = first_lanes(depth - q);
        const vec factor = load_part(x + q, rest);
        PF_UNROLL for (int i = 0; i < together; i++) open[0][i] =
            add_product(open[0][i], factor, load_part(column[i] + q, rest));
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
            for (int i = 0; i < LANES; i++) /* columns beyond the end repeat the last */
                column[i] = r->matrix + (j + (i < count ? i : count - 1)) * r->stride + p;
            /* the order depends on k alone, not on how many other columns there are */
            vec total;
            if (depth < 16 * LANES && count > LANES / 2) {
                vec sum[LANES];
                dots(LANES, 1, column, r->x + p, depth, sum);
                total = fold(sum);
            } else {
                vec sum[LANES] = {{0}};
                for (int i = 0; i < count; i += DOT_COLUMNS)
                    if (depth < 16 * LANES)
                        dots(DOT_COLUMNS, 1, column + i, r->x + p, depth, sum + i);
                    else
                        dots(DOT_COLUMNS, DOT_WAYS, column + i, r->x + p, depth, sum + i);
                total = fold(sum);
            }
            put(r, j, count, &total, r->add || p > 0, p + depth == r->k);
        }
        p += depth;
    } while (p < r->k);
}

/* y (m, n) = a (m, k) b, with b^T (n, k) and n so small that a row of y does not fill a vector: as
 * many rows at a time as fill one. Here r->x is b^T, r->matrix is a, r->n is m n. */
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
#define PF_FEW_TERMS(loaded)                                                  \
    vec x[FEW_COLUMNS];                                                       \
    PF_UNROLL for (int t = 0; t < n; t++) x[t] = loaded(r->x + t * r->k + q); \
    PF_UNROLL for (int i = 0; i < rows; i++) {                                \
        const vec factor = loaded(row[i] + q);                                \
        PF_UNROLL for (int t = 0; t < n; t++) sum[i * n + t] =                \
            add_product(sum[i * n + t], factor, x[t]);                        \
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
