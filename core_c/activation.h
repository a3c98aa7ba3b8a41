/* The activations that a matrix product can apply to its tiles while they are in registers or in
 * the L1 cache, the derivatives that it can multiply the tiles by, and sigmoid and tanh with their
 * derivatives. */
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

/* tanh'(x) = (1 - |y|) (1 + |y|) = w (2 - w), y = tanh(x), w = 1 - |y| = exp(-2 |x|) (1 + |y|) */
static inline real pf_tanh_slope(real x, real y) {
    const real w = r_exp_minus_abs(R(2.0) * x) * (R(1.0) + r_fabs(y));
    return w * (R(2.0) - w);
}

/* rows x n elements, the rows of y and of saved so far apart: y = f(y), or, if what is saved is
 * given, y = y f'. activation is one of enum pf_activation. */
void PF_NAME(activate_all)(int activation, real slope, int64_t rows, int64_t n, real *y,
                           int64_t y_row, const real *saved, int64_t saved_row);

#endif
