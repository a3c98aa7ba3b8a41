/* Softmax and its logarithm over one axis. x, y: (outer, n, inner), n the axis.
 *
 * Both subtract the greatest element first, so that no exponential overflows. */
#include "rows.h"

typedef struct {
    int64_t axis; /* counted from the front */
} softmax_attributes;

/* How an array splits around the axis. */
typedef struct {
    int64_t outer, n, inner;
} split;

static split split_at(const pf_call *call) {
    const pf_operand *x = call->inputs[0];
    const int64_t axis = ((const softmax_attributes *)call->attributes)->axis;
    split s = {1, x->dims[axis], 1};
    for (int i = 0; i < x->ndim; i++) {
        if (i < axis) s.outer *= x->dims[i];
        if (i > axis) s.inner *= x->dims[i];
    }
    return s;
}

/* Work on one line of n elements that lie `stride` apart. */
typedef void line_function(int64_t n, int64_t stride, const real *a, const real *b, real *out);

/* Runs a line function over all lines. */
static inline __attribute__((always_inline)) int run(const pf_call *call, line_function *line) {
    const split s = split_at(call);
    const real *a = pf_in(call, 0), *b = call->input_count > 1 ? pf_in(call, 1) : a;
    real *out = pf_out(call, 0);
    if (s.n == 0) return PF_OK;
    for (int64_t i = 0; i < s.outer; i++)
        for (int64_t j = 0; j < s.inner; j++) {
            const int64_t at = i * s.n * s.inner + j;
            line(s.n, s.inner, a + at, b + at, out + at);
        }
    return PF_OK;
}

static inline real greatest(int64_t n, int64_t stride, const real *restrict x) {
    real best = x[0];
    for (int64_t i = 1; i < n; i++) best = x[i * stride] > best ? x[i * stride] : best;
    return best;
}

/* y_i = exp(x_i - max) / sum_j exp(x_j - max) */
static inline void softmax_line(int64_t n, int64_t stride, const real *restrict x, const real *b,
                                real *restrict y) {
    (void)b;
    const real top = greatest(n, stride, x);
    real sum = 0;
    for (int64_t i = 0; i < n; i++) {
        y[i * stride] = r_exp(x[i * stride] - top);
        sum += y[i * stride];
    }
    const real scale = R(1.0) / sum;
    for (int64_t i = 0; i < n; i++) y[i * stride] *= scale;
}

/* dx_i = y_i (dy_i - sum_j dy_j y_j) */
static inline void softmax_grad_line(int64_t n, int64_t stride, const real *restrict dy,
                                     const real *restrict y, real *restrict dx) {
    real sum = 0;
    for (int64_t i = 0; i < n; i++) sum += dy[i * stride] * y[i * stride];
    for (int64_t i = 0; i < n; i++) dx[i * stride] = y[i * stride] * (dy[i * stride] - sum);
}

/* y_i = x_i - max - log sum_j exp(x_j - max) */
static inline void log_softmax_line(int64_t n, int64_t stride, const real *restrict x,
                                    const real *b, real *restrict y) {
    (void)b;
    const real top = greatest(n, stride, x);
    real sum = 0;
    for (int64_t i = 0; i < n; i++) sum += r_exp(x[i * stride] - top);
    const real log_sum = r_log(sum);
    for (int64_t i = 0; i < n; i++) y[i * stride] = (x[i * stride] - top) - log_sum;
}

/* dx_i = dy_i - exp(y_i) sum_j dy_j */
static inline void log_softmax_grad_line(int64_t n, int64_t stride, const real *restrict dy,
                                         const real *restrict y, real *restrict dx) {
    real sum = 0;
    for (int64_t i = 0; i < n; i++) sum += dy[i * stride];
    for (int64_t i = 0; i < n; i++) dx[i * stride] = dy[i * stride] - r_exp(y[i * stride]) * sum;
}

/* The same along the last axis, for `rows` <= PF_BLOCK_ROWS contiguous rows of n elements. */
typedef void rows_function(int64_t rows, int64_t n, const real *a, const real *b, real *out);

static inline void softmax_rows(int64_t rows, int64_t n, const real *x, const real *b, real *y) {
    (void)b;
    real top[PF_BLOCK_ROWS];
    pf_exp_rows(x, y, rows, n, top);
    for (int64_t r = 0; r < rows; r++, y += n) {
        const real scale = R(1.0) / pf_sum(y, n);
        for (int64_t i = 0; i < n; i++) y[i] *= scale;
    }
}

static inline void softmax_grad_rows(int64_t rows, int64_t n, const real *dy, const real *y,
                                     real *dx) {
    for (int64_t r = 0; r < rows; r++, dy += n, y += n, dx += n) {
        const real sum = pf_dot(dy, y, n);
        PF_INDEPENDENT
        for (int64_t i = 0; i < n; i++) dx[i] = y[i] * (dy[i] - sum);
    }
}

static inline void log_softmax_rows(int64_t rows, int64_t n, const real *x, const real *b,
                                    real *y) {
    (void)b;
    real top[PF_BLOCK_ROWS], log_sum[PF_BLOCK_ROWS];
    pf_log_sum_rows(x, rows, n, top, log_sum);
    for (int64_t r = 0; r < rows; r++, x += n, y += n) {
        PF_INDEPENDENT
        for (int64_t i = 0; i < n; i++) y[i] = (x[i] - top[r]) - log_sum[r];
    }
}

static inline void log_softmax_grad_rows(int64_t rows, int64_t n, const real *dy, const real *y,
                                         real *dx) {
    for (int64_t r = 0; r < rows; r++, dy += n, y += n, dx += n) {
        const real sum = pf_sum(dy, n);
        PF_INDEPENDENT
        for (int64_t i = 0; i < n; i++) dx[i] = dy[i] - r_exp(y[i]) * sum;
    }
}

/* Runs a function over all rows, block by block. */
static void run_blocks(rows_function *function, int64_t rows, int64_t n, const real *a,
                       const real *b, real *out) {
    if (n == 0) return;
    const int64_t size = pf_block_rows(rows, n);
    for (int64_t r = 0; r < rows; r += size)
        function(rows - r < size ? rows - r : size, n, a + r * n, b + r * n, out + r * n);
}

void PF_NAME(softmax_all)(int64_t rows, int64_t n, const void *x, void *y) {
    run_blocks(softmax_rows, rows, n, x, x, y);
}

static int run_rows(const pf_call *call, rows_function *function) {
    const split s = split_at(call);
    const real *a = pf_in(call, 0), *b = call->input_count > 1 ? pf_in(call, 1) : a;
    run_blocks(function, s.outer, s.n, a, b, pf_out(call, 0));
    return PF_OK;
}

#define SOFTMAX(name)                                                      \
    int PF_NAME(name)(const pf_call *call) {                               \
        if (split_at(call).inner == 1) return run_rows(call, name##_rows); \
        return run(call, name##_line);                                     \
    }

SOFTMAX(softmax)
SOFTMAX(softmax_grad)
SOFTMAX(log_softmax)
SOFTMAX(log_softmax_grad)
