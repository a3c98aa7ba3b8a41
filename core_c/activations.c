/* Activations: element-wise, x and y of any one shape (...).
 *
 * Each gradient takes dy and x, y or the slope f'(x), and writes dx = dy f'(x).
 * Comparisons are written so that NaN falls through to a NaN result.
 *
 * In float32, gelu, silu and their slopes come from math32.h; in float64 they are written out here.
 */
#include "activation.h"
#include "pyframe/epilogue.h"
#include "spans.h"

/* y = max(x, 0) */
PF_MAP(relu, x < 0 ? R(0.0) : x)
/* dx = dy for y > 0, else 0 */
PF_MAP_GRAD(relu_grad, y, y <= 0 ? R(0.0) : dy)

/* The kernel `name`: output 0 is y = f(x), and output 1, if it is wanted, f'(x). */
#define MAP_WITH_SLOPE(name, factor)                                                          \
    PF_DECAY_LOOP(name, factor, const pf_with_slope both = pf_##name(x, d);                   \
                  ys[at + i] = both.value; zs[at + i] = both.slope)                           \
    int PF_NAME(name)(const pf_call *call) {                                                  \
        const real *x = pf_in(call, 0);                                                       \
        real *y = pf_out(call, 0), *slopes = call->output_count > 1 ? pf_out(call, 1) : NULL; \
        const int64_t n = pf_count(call->outputs[0]);                                         \
        if (!slopes)                                                                          \
            PF_NAME(name##_all)(n, x, y);                                                     \
        else /* without y they are written over it */                                         \
            name##_loop(n, x, NULL, y ? y : slopes, slopes, 0, 0);                            \
        return PF_OK;                                                                         \
    }

/* y = 1 / (1 + exp(-x)) */
MAP_WITH_SLOPE(sigmoid, 1)
/* dx = dy y', for whatever has such an output */
PF_MAP_GRAD(sigmoid_grad, slope, slope *dy)

/* y = tanh(x) */
MAP_WITH_SLOPE(tanh, 2)

/* y = log(1 + exp(x)), without overflow */
PF_LONG_MAP(softplus, (x > 0 ? x : R(0.0)) + r_log1p_unit(r_exp_minus_abs(x)))
/* dx = dy / (1 + exp(-x)) */
static inline real sigmoid_of(real x) { return pf_sigmoid(x, r_decay_of(x)).value; }
PF_LONG_MAP_GRAD(softplus_grad, x, sigmoid_of(x) * dy)

typedef struct {
    double slope;
} leaky_relu_attributes;

/* y = x for x > 0, else slope x */
int PF_NAME(leaky_relu)(const pf_call *call) {
    const leaky_relu_attributes *attributes = call->attributes;
    const real *x = pf_in(call, 0);
    real *y = pf_out(call, 0);
    real slope = (real)attributes->slope;
    int64_t n = pf_count(call->outputs[0]);
    PF_INDEPENDENT
    for (int64_t i = 0; i < n; i++) y[i] = x[i] > 0 ? x[i] : slope * x[i];
    return PF_OK;
}

/* dx = dy for x > 0, else slope dy */
int PF_NAME(leaky_relu_grad)(const pf_call *call) {
    const leaky_relu_attributes *attributes = call->attributes;
    const real *dy = pf_in(call, 0), *x = pf_in(call, 1);
    real *dx = pf_out(call, 0);
    real slope = (real)attributes->slope;
    int64_t n = pf_count(call->outputs[0]);
    PF_INDEPENDENT
    for (int64_t i = 0; i < n; i++) dx[i] = x[i] > 0 ? dy[i] : slope * dy[i];
    return PF_OK;
}

typedef struct {
    double alpha;
} elu_attributes;

static real alpha_of(const pf_call *call) {
    return (real)((const elu_attributes *)call->attributes)->alpha;
}

/* y = x for x > 0, else alpha (exp(x) - 1) */
PF_LOOP(elu, const real x = as[i]; ys[i] = x > 0 ? x : p * r_expm1(x))
int PF_NAME(elu)(const pf_call *call) {
    elu_loop(pf_count(call->outputs[0]), pf_in(call, 0), NULL, pf_out(call, 0), NULL,
             alpha_of(call), 0);
    return PF_OK;
}

/* dx = dy for x > 0, else dy alpha exp(x); from x, since y + alpha would cancel */
PF_LOOP(elu_grad, const real dy = as[i], x = bs[i]; ys[i] = x > 0 ? dy : dy * (p * r_exp(x)))
int PF_NAME(elu_grad)(const pf_call *call) {
    elu_grad_loop(pf_count(call->outputs[0]), pf_in(call, 0), pf_in(call, 1), pf_out(call, 0), NULL,
                  alpha_of(call), 0);
    return PF_OK;
}

#if PF_REAL_BITS == 32
#define r_silu pf_siluf
#define r_silu_slope pf_silu_slopef
#define r_gelu pf_geluf
#define r_gelu_slope pf_gelu_slopef
#define r_gelu_tanh pf_gelu_tanhf
#define r_gelu_tanh_slope pf_gelu_tanh_slopef
#else

/* gelu and silu are x s(x) with s rising from 0 to 1. Beyond these bounds s is 0 or 1 to the last
 * bit, and x is clamped there: -infinity times 0 would be NaN instead of the limit. */
#define GELU_BOUND 40.0
#define SILU_BOUND 800.0

static inline double at_least(double low, double x) { return x < low ? low : x; }
static inline double within(double bound, double x) {
    return x < -bound ? -bound : x > bound ? bound : x;
}

/* e = exp(-|v|) as far * near. For large |v| e itself would lose digits that a product with it
 * could keep: so the product is formed with one factor after the other. */
typedef struct {
    double far, near;
} two_steps;

static inline two_steps decay(pf_pair v) {
    const double size = fabs(v.high);
    const double e = pf_exp(size > 600.0 ? 200.0 - size : -size);
    const double near = size > 600.0 ? 1.3838965267367376e-87 : 1.0; /* exp(-200) */
    return (two_steps){e - e * (v.high >= 0 ? v.low : -v.low), near};
}

/* factor s, s = 1 / (1 + exp(-v)) */
static inline double times_logistic(double factor, pf_pair v) {
    const two_steps e = decay(v);
    return (v.high >= 0 ? factor : factor * e.far * e.near) / (1 + e.far * e.near);
}

/* The derivative of x s: s + x s' = s (1 + x (1 - s) v'), dv = v' */
static inline double gate_slope(double x, pf_pair v, double dv) {
    const two_steps e = decay(v);
    const double all = e.far * e.near, rest = (v.high >= 0 ? all : 1.0) / (1 + all); /* 1 - s */
    return times_logistic(1 + x * rest * dv, v);
}

/* y = x / (1 + exp(-x)) */
static inline double r_silu(double x) {
    x = at_least(-SILU_BOUND, x);
    return times_logistic(x, (pf_pair){x, 0});
}
static inline double r_silu_slope(double x) {
    x = within(SILU_BOUND, x);
    return gate_slope(x, (pf_pair){x, 0}, 1);
}

#define NORMAL_PEAK 0.39894228040143267794 /* 1 / sqrt(2 pi) */
#define TANH_SCALE 1.59576912160573071176  /* 2 sqrt(2/pi) */
#define TANH_CUBIC 0.044715

/* y = x P(Z < x); near 0 from erf: it is small beside the 1/2, and so is its error. (No product
 * here is also one of the derivative: which ones are rounded must not depend on what else is
 * wanted.) */
PF_IN_LOOPS double r_gelu(double x) {
    const double t = within(GELU_BOUND, x);
    const double left = t * pf_normal_tail_scaled(t) * pf_exp_half_square(t);
    const double y = x < 0 ? left : x - left;
    return fabs(x) < 0.7 ? x * (0.5 + 0.5 * pf_erf_near(0.70710678118654752440 * x)) : y;
}
/* y' = P(Z < x) + x p(x), p(x) = exp(-x^2 / 2) / sqrt(2 pi) */
static inline double r_gelu_slope(double x) {
    x = within(GELU_BOUND, x);
    const double bell = pf_exp_half_square(x), tail = pf_normal_tail_scaled(x) * bell;
    return (x < 0 ? tail : 1.0 - tail) + x * (NORMAL_PEAK * bell);
}

/* y = x (1 + tanh(v / 2)) / 2 = x / (1 + exp(-v)), v = 2 sqrt(2/pi) (x + 0.044715 x^3) */
static inline double r_gelu_tanh(double x) {
    const double t = within(GELU_BOUND, x);
    return times_logistic(at_least(-GELU_BOUND, x), pf_gelu_argument(t));
}
static inline double r_gelu_tanh_slope(double x) {
    x = within(GELU_BOUND, x);
    return gate_slope(x, pf_gelu_argument(x), TANH_SCALE * (1 + 3 * TANH_CUBIC * x * x));
}

#endif

PF_LONG_MAP(silu, (real)r_silu(x))
PF_LONG_MAP_GRAD(silu_grad, x, (real)(dy * r_silu_slope(x)))

typedef struct {
    int64_t approximate; /* 0: erf, 1: tanh */
} gelu_attributes;

/* Both need the same exponential: a derivative that is wanted is made along with y. */
#define GELU(name)                                                       \
    PF_LOOP(name, ys[i] = r_##name(as[i]))                               \
    PF_LOOP(name##_and_slope, const real x = as[i]; ys[i] = r_##name(x); \
            zs[i] = (real)r_##name##_slope(x))
GELU(gelu)
GELU(gelu_tanh)

/* y = x P(Z < x), or by tanh; output 1, if it is wanted, is y' */
int PF_NAME(gelu)(const pf_call *call) {
    static pf_loop *const loops[2][2] = {{gelu_loop, gelu_and_slope_loop},
                                         {gelu_tanh_loop, gelu_tanh_and_slope_loop}};
    const gelu_attributes *attributes = call->attributes;
    real *y = pf_out(call, 0), *slopes = call->output_count > 1 ? pf_out(call, 1) : NULL;
    loops[attributes->approximate != 0][slopes != NULL](pf_count(call->outputs[0]), pf_in(call, 0),
                                                        NULL, y ? y : slopes, slopes, 0, 0);
    return PF_OK;
}

/* ---- as the end of a product ---- */

void PF_NAME(activate_all)(int activation, real slope, int64_t rows, int64_t n, real *y,
                           int64_t y_row, const real *saved, int64_t saved_row) {
    if (y_row == n && (!saved || saved_row == n)) n *= rows, rows = 1;
    for (int64_t r = 0; r < rows; r++, y += y_row) {
        if (saved)
            PF_OF_REAL(pf_activate_grad)(activation, slope, y, saved + r * saved_row, n);
        else
            PF_OF_REAL(pf_activate)(&PF_NAME(vector_functions), activation, slope, y, n);
    }
}
