/* The activations that a matrix product can apply to its tiles while they are in registers or in
 * the L1 cache, and the derivatives that it can multiply them by.
 *
 * That of a relu is read off its result. Those of sigmoid and tanh are not: where the result has
 * rounded to 1 it says nothing of a derivative that is small, and yet a normal number. So these two
 * also give their derivative, from the exponential that they need anyway, and that is saved. */
#ifndef PYFRAME_ACTIVATION_H
#define PYFRAME_ACTIVATION_H

#include "kernel.h"

/* 1 / (1 + exp(-x)), without overflow: the exponent is never positive. */
static inline real pf_sigmoid(real x) {
    const real e = r_exp_minus_abs(x), top = x >= 0 ? R(1.0) : e;
    return top / (R(1.0) + e);
}

/* sigmoid'(x) = y (1 - y), y = sigmoid(x); where y is near 1, 1 - y is exp(-x) y */
static inline real pf_sigmoid_slope(real x, real y) {
    const real small = x >= 0 ? r_exp_minus_abs(x) * y : R(1.0) - y;
    return y * small;
}

/* tanh'(x) = (1 - |y|) (1 + |y|) = w (2 - w), w = 1 - |tanh(x)| = 2 / (exp(2 |x|) + 1) */
static inline real pf_tanh_slope(real x) {
    const real e = r_exp_minus_abs(R(2.0) * x), w = R(2.0) * e / (R(1.0) + e);
    return w * (R(2.0) - w);
}

/* y = f(x). Comparisons are written so that NaN falls through. */
static inline real pf_activate(int kind, real x, real slope) {
    switch (kind) {
        case PF_RELU:
            return x < 0 ? R(0.0) : x;
        case PF_SIGMOID:
            return pf_sigmoid(x);
        case PF_TANH:
            return r_tanh(x);
        case PF_LEAKY_RELU:
            return x > 0 ? x : slope * x;
        default:
            return x;
    }
}

/* dx = dy f'(x), from what is saved: the derivative of sigmoid and tanh, of the others y = f(x). */
static inline real pf_activate_grad(int kind, real dy, real y, real slope) {
    switch (kind) {
        case PF_RELU:
            return y <= 0 ? R(0.0) : dy;
        case PF_SIGMOID:
        case PF_TANH:
            return dy * y;
        case PF_LEAKY_RELU:
            return y > 0 ? dy : slope * dy;
        default:
            return dy;
    }
}

/* `loop` with KIND as the constant that `kind` is, so that it becomes vector code. */
#define PF_WITH_KIND(kind, loop)           \
    switch (kind) {                        \
        case PF_RELU: {                    \
            enum { KIND = PF_RELU };       \
            loop                           \
        } break;                           \
        case PF_SIGMOID: {                 \
            enum { KIND = PF_SIGMOID };    \
            loop                           \
        } break;                           \
        case PF_TANH: {                    \
            enum { KIND = PF_TANH };       \
            loop                           \
        } break;                           \
        case PF_LEAKY_RELU: {              \
            enum { KIND = PF_LEAKY_RELU }; \
            loop                           \
        } break;                           \
        default:                           \
            break;                         \
    }

/* y = f(y), n elements */
static inline void pf_activate_all(int kind, real slope, real *restrict y, int64_t n) {
    PF_WITH_KIND(kind, for (int64_t i = 0; i < n; i++) y[i] = pf_activate(KIND, y[i], slope);)
}

/* dx = dx f'(x), from what is saved in y, n elements */
static inline void pf_activate_grad_all(int kind, real slope, real *restrict dx,
                                        const real *restrict y, int64_t n) {
    PF_WITH_KIND(
        kind, for (int64_t i = 0; i < n; i++) dx[i] = pf_activate_grad(KIND, dx[i], y[i], slope);)
}

#endif
