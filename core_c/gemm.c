/* The plain matrix product: tiles of ROWS x COLUMNS sums that stay in registers while they run
 * along k, so each load of b serves ROWS rows and each load of a serves COLUMNS columns. */
#include "gemm.h"

/* 128 bits, what every 64-bit processor has; unaligned, and an alias of the reals it loads. */
typedef real vec __attribute__((vector_size(16), aligned(sizeof(real)), may_alias));

enum {
    LANES = 16 / (int)sizeof(real),
    VECTORS = 2,
    COLUMNS = VECTORS * LANES,
    ROWS = 4,       /* ROWS x VECTORS: half of sixteen registers, the rest for loads */
    DEPTH = 256,    /* terms of a sum at a time: a panel of b is 8 kB */
    MANY_ROWS = 16, /* from here on copying a panel of b pays */
    LONG = 64       /* from here on a dot product pays for folding its lanes */
};

/* c[i][j] (+)= sum_p a[i * a_row + p * a_step] b[p * b_row + j], i < rows, j < width <= COLUMNS.
 * b has COLUMNS readable columns. Called with rows a constant, so that the loops unroll. */
static inline void tile(int rows, int64_t width, int64_t k, const real *restrict a, int64_t a_row,
                        int64_t a_step, const real *restrict b, int64_t b_row, real *restrict c,
                        int64_t c_row, int accumulate) {
    vec sum[ROWS][VECTORS] = {{{0}}};
    for (int64_t p = 0; p < k; p++)
        for (int i = 0; i < rows; i++)
            for (int v = 0; v < VECTORS; v++)
                sum[i][v] += a[i * a_row + p * a_step] * *(const vec *)(b + p * b_row + v * LANES);
    for (int i = 0; i < rows; i++)
        for (int64_t j = 0; j < width; j++) {
            const real product = sum[i][j / LANES][j % LANES];
            c[i * c_row + j] = accumulate ? c[i * c_row + j] + product : product;
        }
}

/* panel (k, COLUMNS) = columns j .. j + width of op(b), from row p on, the rest zero. */
static void pack(int transpose_b, int64_t n, int64_t depth, int64_t p, int64_t k, int64_t j,
                 int64_t width, const real *restrict b, real *restrict panel) {
    if (width < COLUMNS) memset(panel, 0, (size_t)k * COLUMNS * sizeof(real));
    if (transpose_b) {
        for (int64_t column = 0; column < width; column++)
            for (int64_t q = 0; q < k; q++)
                panel[q * COLUMNS + column] = b[(j + column) * depth + p + q];
    } else {
        for (int64_t q = 0; q < k; q++)
            memcpy(panel + q * COLUMNS, b + (p + q) * n + j, (size_t)width * sizeof(real));
    }
}

void PF_NAME(gemm)(int transpose_a, int transpose_b, int64_t m, int64_t n, int64_t k, const real *a,
                   const real *b, real *c, int accumulate) {
    if (n == 1 && m > 1) {
        /* A column is a row in memory: c^T = op(b)^T op(a)^T, whose long side is then vectors. */
        PF_NAME(gemm)(!transpose_b, !transpose_a, 1, m, k, b, a, c, accumulate);
        return;
    }
    if (k == 0) {
        if (!accumulate && m * n > 0) memset(c, 0, (size_t)(m * n) * sizeof(real));
        return;
    }
    if (m == 1 && (n == 1 || (transpose_b && k >= LONG))) {
        /* One row against rows of b, or against its one column. The row of op(a) is contiguous
         * either way. */
        for (int64_t j = 0; j < n; j++) {
            real product = pf_dot(a, b + j * k, k);
            c[j] = accumulate ? c[j] + product : product;
        }
        return;
    }
    if (m == 1 && (!transpose_b || k == 1)) {
        /* One row: a sum of rows of b, a long vector operation for each term. */
        for (int64_t p = 0; p < k; p++) {
            const real factor = a[p], *restrict row = b + p * n;
            if (p == 0 && !accumulate)
                for (int64_t j = 0; j < n; j++) c[j] = factor * row[j];
            else
                for (int64_t j = 0; j < n; j++) c[j] += factor * row[j];
        }
        return;
    }
    const int64_t a_row = transpose_a ? 1 : k, a_step = transpose_a ? m : 1;
    real panel[DEPTH * COLUMNS];
    for (int64_t p = 0; p < k; p += DEPTH) {
        const int64_t depth = k - p < DEPTH ? k - p : DEPTH;
        const int add = accumulate || p > 0;
        for (int64_t j = 0; j < n; j += COLUMNS) {
            const int64_t width = n - j < COLUMNS ? n - j : COLUMNS;
            const real *columns = b + p * n + j;
            int64_t b_row = n;
            if (transpose_b || width < COLUMNS || m >= MANY_ROWS) {
                pack(transpose_b, n, k, p, depth, j, width, b, panel);
                columns = panel, b_row = COLUMNS;
            }
            int64_t i = 0;
            for (; i + ROWS <= m; i += ROWS)
                tile(ROWS, width, depth, a + i * a_row + p * a_step, a_row, a_step, columns, b_row,
                     c + i * n + j, n, add);
            for (; i < m; i++)
                tile(1, width, depth, a + i * a_row + p * a_step, a_row, a_step, columns, b_row,
                     c + i * n + j, n, add);
        }
    }
}
