/* The activations that a matrix product can apply to its tiles while they are in registers or in
 * the L1 cache, and the derivatives that it can multiply them by.
 *
 * That of a relu is read off its result. Those of sigmoid and tanh are not: where the result has
 * rounded to 1 it says nothing of a derivative that is small, and yet a normal number. So these two
 * also give their derivative, from the exponential that they need anyway, and that is saved. */
#ifndef PYFRAME_ACTIVATION_H
#define PYFRAME_ACTIVATION_H

#include "vector_functions.h"

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

/* y = f(y), n elements. Comparisons are written so that NaN falls through. */
static inline void pf_activate_all(int kind, real slope, real *restrict y, int64_t n) {
    switch (kind) {
        case PF_RELU:
            for (int64_t i = 0; i < n; i++) y[i] = y[i] < 0 ? R(0.0) : y[i];
            break;
        case PF_SIGMOID:
            PF_NAME(sigmoid_all)(n, y, y);
            break;
        case PF_TANH:
            PF_NAME(tanh_all)(n, y, y);
            break;
        case PF_LEAKY_RELU:
            for (int64_t i = 0; i < n; i++) y[i] = y[i] > 0 ? y[i] : slope * y[i];
            break;
        default:
            break;
    }
}

/* dx = dx f'(x), n elements, from what is saved: the derivative of sigmoid and tanh, of the others
 * y = f(x). */
static inline void pf_activate_grad_all(int kind, real slope, real *restrict dx,
                                        const real *restrict saved, int64_t n) {
    switch (kind) {
        case PF_RELU:
            for (int64_t i = 0; i < n; i++) dx[i] = saved[i] <= 0 ? R(0.0) : dx[i];
            break;
        case PF_SIGMOID:
        case PF_TANH:
            for (int64_t i = 0; i < n; i++) dx[i] *= saved[i];
            break;
        case PF_LEAKY_RELU:
            for (int64_t i = 0; i < n; i++) dx[i] = saved[i] > 0 ? dx[i] : slope * dx[i];
            break;
        default:
            break;
    }
}

#endif
