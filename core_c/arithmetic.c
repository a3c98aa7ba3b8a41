/* Arithmetic: one or two operands, element by element; two are broadcast as in NumPy. */
#include "spans.h"
#include "vector_functions.h"
#include "walk.h"

/* 0 for 0, NaN for NaN */
static inline real sign(real x) { return x > 0 ? R(1.0) : x < 0 ? R(-1.0) : x; }

PF_MAP(neg, -x)
PF_MAP(abs, r_fabs(x))
PF_MAP_GRAD(abs_grad, x, sign(x) * dy)
PF_MAP(square, (x * x))
PF_MAP_GRAD(square_grad, x, R(2.0) * dy * x)
PF_MAP(sqrt, r_sqrt(x))
PF_MAP_GRAD(sqrt_grad, y, R(0.5) * dy / y)
PF_MAP_ALL(exp)
PF_MAP_ALL(log)
PF_MAP_ALL(erf)
/* exp(-x^2), which is 0 from 30 on */
static inline double bell(double x) {
    return pf_exp_square(x < -30.0 ? -30.0 : x > 30.0 ? 30.0 : x);
}
/* dx = dy 2 / sqrt(pi) exp(-x^2) */
PF_LONG_MAP_GRAD(erf_grad, x, (real)(dy * 1.12837916709551257390 * bell(x)))

/* Walks over y with operands a and b; an operand has stride 0 along an axis it is stretched on. */
static pf_walk broadcast(const pf_operand *a, const pf_operand *b, const pf_operand *y) {
    pf_walk walk = {0};
    int64_t a_strides[PF_MAX_NDIM], b_strides[PF_MAX_NDIM];
    pf_strides(a, a_strides);
    pf_strides(b, b_strides);
    for (int i = 0; i < y->ndim; i++) {
        int in_a = i - (y->ndim - a->ndim), in_b = i - (y->ndim - b->ndim);
        pf_walk_push(&walk, y->dims[i], in_a >= 0 && a->dims[in_a] != 1 ? a_strides[in_a] : 0,
                     in_b >= 0 && b->dims[in_b] != 1 ? b_strides[in_b] : 0);
    }
    return walk;
}

/* n elements of y from those of a and b. A step is 1, or 0 for an operand that is one number. */
typedef void row_function(real *y, const real *a, int64_t a_step, const real *b, int64_t b_step,
                          int64_t n);

static int binary(const pf_call *call, row_function *function) {
    const real *a = pf_in(call, 0), *b = pf_in(call, 1);
    real *y = pf_out(call, 0);
    const int64_t n = pf_count(call->outputs[0]);
    const int64_t a_count = pf_count(call->inputs[0]), b_count = pf_count(call->inputs[1]);
    if ((a_count == n || a_count == 1) && (b_count == n || b_count == 1)) { /* one long row */
        function(y, a, a_count == n, b, b_count == n, n);
        return PF_OK;
    }
    pf_walk walk = broadcast(call->inputs[0], call->inputs[1], call->outputs[0]);
    pf_axis row = pf_walk_pop(&walk);
    int64_t rows = pf_walk_count(&walk);
    for (int64_t r = 0; r < rows; r++, y += row.extent, pf_walk_next(&walk))
        function(y, a + walk.offset[0], row.strides[0], b + walk.offset[1], row.strides[1],
                 row.extent);
    return PF_OK;
}

/* The kernel `name`: y is `expression` of a and b. Each loop has its own combination of steps, so
 * that it becomes vector code. */
#define BINARY(name, expression)                                                     \
    static void name##_row(real *ys, const real *as, int64_t a_step, const real *bs, \
                           int64_t b_step, int64_t n) {                              \
        if (n == 0) return; /* without elements, a or b may have no data */          \
        if (a_step && b_step) {                                                      \
            PF_INDEPENDENT                                                           \
            for (int64_t i = 0; i < n; i++) {                                        \
                const real a = as[i], b = bs[i];                                     \
                ys[i] = expression;                                                  \
            }                                                                        \
        } else if (a_step) {                                                         \
            const real b = bs[0];                                                    \
            PF_INDEPENDENT                                                           \
            for (int64_t i = 0; i < n; i++) {                                        \
                const real a = as[i];                                                \
                ys[i] = expression;                                                  \
            }                                                                        \
        } else if (b_step) {                                                         \
            const real a = as[0];                                                    \
            PF_INDEPENDENT                                                           \
            for (int64_t i = 0; i < n; i++) {                                        \
                const real b = bs[i];                                                \
                ys[i] = expression;                                                  \
            }                                                                        \
        } else {                                                                     \
            const real a = as[0], b = bs[0], y = expression;                         \
            for (int64_t i = 0; i < n; i++) ys[i] = y;                               \
        }                                                                            \
    }                                                                                \
    int PF_NAME(name)(const pf_call *call) { return binary(call, name##_row); }

BINARY(add, a + b)
BINARY(sub, a - b)
BINARY(mul, (a * b))
BINARY(div, a / b)
BINARY(maximum, a > b || a != a ? a : b)

/* ---- pairs for which one loop does: single numbers are spread out beforehand ---- */

enum { SPREAD = 256 };

/* At most SPREAD elements of y from as many of a and b. */
typedef void block_function(const pf_call *call, real *y, const real *a, const real *b, int64_t n);

PF_ONCE static void row_in_blocks(const pf_call *call, block_function *function, real *y,
                                  const real *a, int64_t a_step, const real *b, int64_t b_step,
                                  int64_t n) {
    if (n == 0) return;
    real as[SPREAD], bs[SPREAD];
    const int64_t width = n < SPREAD ? n : SPREAD;
    for (int64_t i = 0; i < width && !a_step; i++) as[i] = a[0];
    for (int64_t i = 0; i < width && !b_step; i++) bs[i] = b[0];
    for (int64_t i = 0; i < n; i += SPREAD)
        function(call, y + i, a_step ? a + i : as, b_step ? b + i : bs,
                 n - i < SPREAD ? n - i : SPREAD);
}

static int in_blocks(const pf_call *call, block_function *function) {
    const real *a = pf_in(call, 0), *b = pf_in(call, 1);
    real *y = pf_out(call, 0);
    const int64_t n = pf_count(call->outputs[0]);
    const int64_t a_count = pf_count(call->inputs[0]), b_count = pf_count(call->inputs[1]);
    if ((a_count == n || a_count == 1) && (b_count == n || b_count == 1)) { /* one long row */
        row_in_blocks(call, function, y, a, a_count == n, b, b_count == n, n);
        return PF_OK;
    }
    pf_walk walk = broadcast(call->inputs[0], call->inputs[1], call->outputs[0]);
    pf_axis row = pf_walk_pop(&walk);
    int64_t rows = pf_walk_count(&walk);
    for (int64_t r = 0; r < rows; r++, y += row.extent, pf_walk_next(&walk))
        row_in_blocks(call, function, y, a + walk.offset[0], row.strides[0], b + walk.offset[1],
                      row.strides[1], row.extent);
    return PF_OK;
}

typedef struct {
    double less, equal, greater, unordered; /* unordered: one of them is NaN */
} compare_attributes;

static void compare_block(const pf_call *call, real *y, const real *a, const real *b, int64_t n) {
    const compare_attributes *t = call->attributes;
    const real less = (real)t->less, equal = (real)t->equal, greater = (real)t->greater;
    const real unordered = (real)t->unordered;
    PF_INDEPENDENT
    for (int64_t i = 0; i < n; i++) {
        const real u = a[i], v = b[i], ordered = u < v ? less : u > v ? greater : equal;
        y[i] = u != u || v != v ? unordered : ordered;
    }
}

/* y = the number that the attributes give for a < b, a = b, a > b, or neither */
int PF_NAME(compare)(const pf_call *call) { return in_blocks(call, compare_block); }

static void select_block(const pf_call *call, real *y, const real *a, const real *b, int64_t n) {
    (void)call;
    PF_INDEPENDENT
    for (int64_t i = 0; i < n; i++) y[i] = a[i] != 0 ? b[i] : R(0.0);
}

/* y = b where a is not 0, else 0, whatever b is there */
int PF_NAME(select)(const pf_call *call) { return in_blocks(call, select_block); }

void PF_SYMBOL(exp_all, f64, PF_ISA)(int64_t n, const void *x, void *y);
void PF_SYMBOL(log_all, f64, PF_ISA)(int64_t n, const void *x, void *y);

/* a^b for a < 0, from |a|^b: that, or minus that, or NaN where b is not whole */
static inline double signed_power(double b, double power) {
    if (fabs(b) >= 0x1p53) return power; /* even */
    const int64_t whole = (int64_t)b;
    return (double)whole != b ? (double)NAN : whole & 1 ? -power : power;
}

/* In double, so that float32 results are right to the last bit or two, however large b log a is. */
static void pow_block(const pf_call *call, real *y, const real *a, const real *b, int64_t n) {
    (void)call;
    double power[SPREAD];
    power[0] = 0; /* so that compilers see that what is read was written */
    for (int64_t i = 0; i < n; i++) power[i] = fabs((double)a[i]);
    PF_SYMBOL(log_all, f64, PF_ISA)(n, power, power);
    for (int64_t i = 0; i < n; i++) power[i] *= (double)b[i];
    PF_SYMBOL(exp_all, f64, PF_ISA)(n, power, power);
    for (int64_t i = 0; i < n; i++) {
        const double size = b[i] == 0 || a[i] * a[i] == 1 ? 1.0 : power[i];
        y[i] = (real)(a[i] < 0 ? signed_power((double)b[i], size) : size);
    }
}

/* y = a^b */
int PF_NAME(pow)(const pf_call *call) { return in_blocks(call, pow_block); }

static inline real share(real dy, real a, real b) {
    return a < b ? R(0.0) : a == b ? R(0.5) * dy : dy;
}

/* The gradient with respect to a: dy where a > b (or either is NaN), dy / 2 where a = b, else 0. */
int PF_NAME(maximum_grad)(const pf_call *call) {
    const real *dy = pf_in(call, 0), *a = pf_in(call, 1), *b = pf_in(call, 2);
    real *da = pf_out(call, 0);
    const int64_t count = pf_count(call->outputs[0]);
    if (pf_count(call->inputs[1]) == count && pf_count(call->inputs[2]) == count) {
        PF_INDEPENDENT
        for (int64_t i = 0; i < count; i++) da[i] = share(dy[i], a[i], b[i]);
        return PF_OK;
    }
    pf_walk walk = broadcast(call->inputs[1], call->inputs[2], call->outputs[0]);
    pf_axis row = pf_walk_pop(&walk);
    int64_t rows = pf_walk_count(&walk), n = row.extent;
    for (int64_t r = 0; r < rows; r++, dy += n, da += n, pf_walk_next(&walk)) {
        const real *u = a + walk.offset[0], *v = b + walk.offset[1];
        PF_INDEPENDENT
        for (int64_t i = 0; i < n; i++)
            da[i] = share(dy[i], u[i * row.strides[0]], v[i * row.strides[1]]);
    }
    return PF_OK;
}

/* y = x_1 + .. + x_n, added from left to right; in blocks, since y may be any of the x */
int PF_NAME(add_n)(const pf_call *call) {
    enum { BLOCK = 1024 };
    real *y = pf_out(call, 0), sum[BLOCK];
    const int64_t n = pf_count(call->outputs[0]);
    const int last = (int)call->input_count - 1;
    for (int64_t start = 0; start < n; start += BLOCK) {
        const int64_t size = n - start < BLOCK ? n - start : BLOCK;
        const real *from = pf_in(call, 0) + start;
        for (int k = 1; k <= last; k++, from = sum) {
            const real *x = pf_in(call, k) + start;
            real *to = k == last ? y + start : sum;
            PF_INDEPENDENT
            for (int64_t i = 0; i < size; i++) to[i] = from[i] + x[i];
        }
        if (last == 0 && from != y + start) memcpy(y + start, from, (size_t)size * sizeof(real));
    }
    return PF_OK;
}

/* y = x, whatever their shapes */
int PF_NAME(copy)(const pf_call *call) {
    const real *x = pf_in(call, 0);
    real *y = pf_out(call, 0);
    int64_t n = pf_count(call->outputs[0]);
    if (n > 0 && x != y) memcpy(y, x, (size_t)n * sizeof(real));
    return PF_OK;
}

/* y = x, which in training becomes the state as well */
int PF_NAME(remember)(const pf_call *call) {
    const size_t bytes = (size_t)pf_count(call->outputs[0]) * sizeof(real);
    if (bytes == 0) return PF_OK;
    memcpy(pf_out(call, 0), pf_in(call, 0), bytes);
    if (call->flags & PF_TRAINING) memcpy(pf_state(call, 0), pf_in(call, 0), bytes);
    return PF_OK;
}
