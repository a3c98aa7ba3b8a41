/* The activations that a matrix product can apply to its tiles while they are in registers or in
 * the L1 cache, the derivatives that it can multiply the tiles by, and sigmoid and tanh with their
 * derivatives. */
#ifndef PYFRAME_ACTIVATION_H
#define PYFRAME_ACTIVATION_H

#include "vector_functions.h"

typedef struct {
    real value, slope;
} pf_with_slope;

/* y = 1 / (1 + exp(-x)), y' = y (1 - y). With e = exp(-|x|), which cannot overflow, the smaller of
 * y and 1 - y is e / (1 + e); it keeps its digits, and so does the slope. Where y is near 1, a log
 * loss sees 1 - y, of which little but rounding is left: y is rounded as by others, as 1 / (1 + e)
 * and not as 1 - e / (1 + e). */
static inline pf_with_slope pf_sigmoid(real x, r_decay d) {
    const real e = d.power + d.power * d.fraction;
    const real y = (x >= 0 ? R(1.0) : e) / (R(1.0) + e), small = x >= 0 ? e * y : y;
    return (pf_with_slope){y, small * (R(1.0) - small)};
}

/* y = tanh(x), y' = 1 - y^2. With e = exp(-2 |x|), y is (1 - e) / (1 + e) with the sign of x; near
 * 0, where the power is 1, 1 - e has the digits of the fraction. y' = w (2 - w) with
 * w = 1 - |y| = e (1 + |y|), which keeps its digits where y is near 1. */
static inline pf_with_slope pf_tanh(real x, r_decay d) {
    const real e = d.power + d.power * d.fraction;
    const real rest = (R(1.0) - d.power) - d.power * d.fraction;
    const real size = rest / (R(1.0) + e), w = e * (R(1.0) + size);
    return (pf_with_slope){r_copysign(size, x), w * (R(2.0) - w)};
}

/* rows x n elements, the rows of y and of saved so far apart: y = f(y), or, if what is saved is
 * given, y = y f'. activation is one of enum pf_activation. */
void PF_NAME(activate_all)(int activation, real slope, int64_t rows, int64_t n, real *y,
                           int64_t y_row, const real *saved, int64_t saved_row);

#endif
