/* Vector math for the kernels of plugins: what the built-in families inline, as plain functions. */
#include "vector_functions.h"

#include "activation.h"
#include "elementwise.h"
#include "rows.h"

#define PF_VECTOR_MAP(name, expression)                             \
    static void map_##name(int64_t n, const void *from, void *to) { \
        const real *xs = from;                                      \
        real *ys = to;                                              \
        PF_INDEPENDENT                                              \
        for (int64_t i = 0; i < n; i++) {                           \
            const real x = xs[i];                                   \
            ys[i] = expression;                                     \
        }                                                           \
    }

PF_VECTOR_MAP(exp, r_exp(x))
PF_VECTOR_MAP(log, r_log(x))
PF_VECTOR_MAP(tanh, r_tanh(x))
PF_VECTOR_MAP(sigmoid, pf_sigmoid(x))
PF_VECTOR_MAP(erf, r_erf(x))

/* y = exp(x - top) / sum exp(x - top), top = max x, row by row */
static void softmax(int64_t rows, int64_t n, const void *from, void *to) {
    const real *x = from;
    real *y = to, top[PF_BLOCK_ROWS];
    const int64_t step = pf_block_rows(rows, n);
    if (n == 0) return;
    for (int64_t first = 0; first < rows; first += step) {
        const int64_t count = rows - first < step ? rows - first : step;
        pf_exp_rows(x + first * n, y + first * n, count, n, top);
        for (int64_t r = first; r < first + count; r++) {
            const real scale = R(1.0) / pf_sum(y + r * n, n);
            for (int64_t i = 0; i < n; i++) y[r * n + i] *= scale;
        }
    }
}

static double sum(int64_t n, const void *x) { return (double)pf_sum(x, n); }
static double dot(int64_t n, const void *x, const void *y) { return (double)pf_dot(x, y, n); }

const pf_vector_functions PF_NAME(vector_functions) = {.size = sizeof(pf_vector_functions),
                                                       .exp = map_exp,
                                                       .log = map_log,
                                                       .tanh = map_tanh,
                                                       .sigmoid = map_sigmoid,
                                                       .erf = map_erf,
                                                       .softmax = softmax,
                                                       .sum = sum,
                                                       .dot = dot};
