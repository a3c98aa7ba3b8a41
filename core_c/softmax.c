/* Softmax and its logarithm over one axis. x, y: (outer, n, inner), n being the axis.
 *
 * Both subtract the largest element first, so that no exponential overflows. */
#include "rows.h"

typedef struct {
    int64_t axis; /* counted from the front */
} softmax_attributes;

/* How an array splits around the axis. */
typedef struct {
    int64_t outer, n, inner;
} split;

PF_ONCE static split split_at(const pf_call *call) {
    const pf_operand *x = call->inputs[0];
    const int64_t axis = ((const softmax_attributes *)call->attributes)->axis;
    split s = {1, x->dims[axis], 1};
    for (int i = 0; i < x->ndim; i++) {
        if (i < axis) s.outer *= x->dims[i];
        if (i > axis) s.inner *= x->dims[i];
    }
    return s;
}

/* Along an axis that is not the last: n rows, `apart` elements apart, of `width` <= PF_BLOCK_ROWS
 * neighbours, so that the loops over the neighbours are vector code. */
typedef void columns_function(int64_t n, int64_t apart, int64_t width, const real *a, const real *b,
                              real *out);

/* top_j = max_i x_ij; with a NaN in column j its value does not matter. */
static void greatest(int64_t n, int64_t apart, int64_t width, const real *x, real *top) {
    for (int64_t j = 0; j < width; j++) top[j] = x[j];
    const real *known = pf_aside(top);
    for (int64_t i = 1; i < n; i++) {
        PF_INDEPENDENT
        for (int64_t j = 0; j < width; j++) top[j] = pf_greater(x[i * apart + j], known[j]);
    }
}

/* As many rows as fit into a buffer of PF_BLOCK_SIZE without gaps, so that their exponentials are
 * one vector loop, however few neighbours there are. */
static int64_t rows_from(int64_t i, int64_t n, int64_t width) {
    return n - i < PF_BLOCK_SIZE / width ? n - i : PF_BLOCK_SIZE / width;
}

/* e_ij = exp(x_ij - top_j), the rows of e one after the other. */
PF_ONCE static void exponentials(int64_t rows, int64_t apart, int64_t width, const real *x,
                                 const real *top, real *e) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < width; j++) e[i * width + j] = x[i * apart + j] - top[j];
    PF_NAME(exp_all)(rows * width, e, e);
}

/* y_ij = exp(x_ij - max) / sum_i exp(x_ij - max) */
static void softmax_columns(int64_t n, int64_t apart, int64_t width, const real *x, const real *b,
                            real *y) {
    (void)b;
    real top[PF_BLOCK_ROWS], sum[PF_BLOCK_ROWS] = {0}, e[PF_BLOCK_SIZE];
    greatest(n, apart, width, x, top);
    for (int64_t i = 0, rows; i < n; i += rows, x += rows * apart) {
        rows = rows_from(i, n, width);
        exponentials(rows, apart, width, x, top, e);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = 0; j < width; j++) {
                y[(i + r) * apart + j] = e[r * width + j];
                sum[j] += e[r * width + j];
            }
    }
    for (int64_t j = 0; j < width; j++) sum[j] = R(1.0) / sum[j];
    for (int64_t i = 0; i < n * apart; i += apart)
        for (int64_t j = 0; j < width; j++) y[i + j] *= sum[j];
}

/* dx_ij = y_ij (dy_ij - sum_i dy_ij y_ij) */
static void softmax_grad_columns(int64_t n, int64_t apart, int64_t width, const real *dy,
                                 const real *y, real *dx) {
    real sum[PF_BLOCK_ROWS] = {0};
    for (int64_t i = 0; i < n * apart; i += apart)
        for (int64_t j = 0; j < width; j++) sum[j] += dy[i + j] * y[i + j];
    for (int64_t i = 0; i < n * apart; i += apart) {
        PF_INDEPENDENT
        for (int64_t j = 0; j < width; j++) dx[i + j] = y[i + j] * (dy[i + j] - sum[j]);
    }
}

/* y_ij = x_ij - max - log sum_i exp(x_ij - max) */
static void log_softmax_columns(int64_t n, int64_t apart, int64_t width, const real *x,
                                const real *b, real *y) {
    (void)b;
    real top[PF_BLOCK_ROWS], sum[PF_BLOCK_ROWS] = {0}, e[PF_BLOCK_SIZE];
    greatest(n, apart, width, x, top);
    for (int64_t i = 0, rows; i < n; i += rows) {
        rows = rows_from(i, n, width);
        exponentials(rows, apart, width, x + i * apart, top, e);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = 0; j < width; j++) sum[j] += e[r * width + j];
    }
    PF_NAME(log_all)(width, sum, sum);
    for (int64_t i = 0; i < n * apart; i += apart) {
        PF_INDEPENDENT
        for (int64_t j = 0; j < width; j++) y[i + j] = (x[i + j] - top[j]) - sum[j];
    }
}

/* dx_ij = dy_ij - exp(y_ij) sum_i dy_ij */
static void log_softmax_grad_columns(int64_t n, int64_t apart, int64_t width, const real *dy,
                                     const real *y, real *dx) {
    const real zero[PF_BLOCK_ROWS] = {0};
    real sum[PF_BLOCK_ROWS] = {0}, e[PF_BLOCK_SIZE];
    for (int64_t i = 0; i < n * apart; i += apart)
        for (int64_t j = 0; j < width; j++) sum[j] += dy[i + j];
    for (int64_t i = 0, rows; i < n; i += rows) {
        rows = rows_from(i, n, width);
        exponentials(rows, apart, width, y + i * apart, zero, e);
        for (int64_t r = 0; r < rows; r++) {
            const int64_t at = (i + r) * apart;
            PF_INDEPENDENT
            for (int64_t j = 0; j < width; j++) dx[at + j] = dy[at + j] - e[r * width + j] * sum[j];
        }
    }
}

/* Runs a function over all columns, block by block. */
static int run_columns(const pf_call *call, columns_function *function) {
    const split s = split_at(call);
    const real *a = pf_in(call, 0), *b = call->input_count > 1 ? pf_in(call, 1) : a;
    real *out = pf_out(call, 0);
    if (s.n == 0) return PF_OK;
    for (int64_t i = 0; i < s.outer; i++)
        for (int64_t j = 0; j < s.inner; j += PF_BLOCK_ROWS) {
            const int64_t at = i * s.n * s.inner + j, left = s.inner - j;
            function(s.n, s.inner, left < PF_BLOCK_ROWS ? left : PF_BLOCK_ROWS, a + at, b + at,
                     out + at);
        }
    return PF_OK;
}

/* Along the last axis: `rows` <= PF_BLOCK_ROWS contiguous rows of n elements. */
typedef void rows_function(int64_t rows, int64_t n, const real *a, const real *b, real *out);

static void softmax_rows(int64_t rows, int64_t n, const real *x, const real *b, real *y) {
    (void)b;
    real top[PF_BLOCK_ROWS];
    pf_exp_rows(x, y, rows, n, top);
    for (int64_t r = 0; r < rows; r++, y += n) {
        const real scale = R(1.0) / pf_sum(y, n);
        for (int64_t i = 0; i < n; i++) y[i] *= scale;
    }
}

static void softmax_grad_rows(int64_t rows, int64_t n, const real *dy, const real *y, real *dx) {
    for (int64_t r = 0; r < rows; r++, dy += n, y += n, dx += n) {
        const real sum = pf_dot(dy, y, n);
        PF_INDEPENDENT
        for (int64_t i = 0; i < n; i++) dx[i] = y[i] * (dy[i] - sum);
    }
}

static void log_softmax_rows(int64_t rows, int64_t n, const real *x, const real *b, real *y) {
    (void)b;
    real top[PF_BLOCK_ROWS], log_sum[PF_BLOCK_ROWS];
    pf_log_sum_rows(x, rows, n, top, log_sum);
    for (int64_t r = 0; r < rows; r++, x += n, y += n) {
        PF_INDEPENDENT
        for (int64_t i = 0; i < n; i++) y[i] = (x[i] - top[r]) - log_sum[r];
    }
}

static void log_softmax_grad_rows(int64_t rows, int64_t n, const real *dy, const real *y,
                                  real *dx) {
    PF_NAME(exp_all)(rows * n, y, dx);
    for (int64_t r = 0; r < rows; r++, dy += n, dx += n) {
        const real sum = pf_sum(dy, n);
        PF_INDEPENDENT
        for (int64_t i = 0; i < n; i++) dx[i] = dy[i] - dx[i] * sum;
    }
}

/* Runs a function over all rows, block by block. */
PF_ONCE static void run_blocks(rows_function *function, int64_t rows, int64_t n, const real *a,
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
        return run_columns(call, name##_columns);                          \
    }

SOFTMAX(softmax)
SOFTMAX(softmax_grad)
SOFTMAX(log_softmax)
SOFTMAX(log_softmax_grad)
