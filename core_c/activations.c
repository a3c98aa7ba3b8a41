/* Activations: element-wise, x and y of any one shape (...).
 *
 * Each gradient takes dy and whichever of x and y makes it cheapest, and writes dx = dy * f'(x). */
#include "kernel.h"

/* 1 / (1 + exp(-x)), without overflow: the exponent is never positive. */
static inline real sigmoid(real x) {
    real e = r_exp(-r_fabs(x));
    return (x >= 0 ? R(1.0) : e) / (R(1.0) + e);
}

/* y = 1 / (1 + exp(-x)) */
int PF_NAME(sigmoid)(const pf_call *call) {
    const real *restrict x = pf_in(call, 0);
    real *restrict y = pf_out(call, 0);
    int64_t n = pf_count(call->outputs[0]);
    for (int64_t i = 0; i < n; i++) y[i] = sigmoid(x[i]);
    return PF_OK;
}

/* dx = dy y (1 - y) */
int PF_NAME(sigmoid_grad)(const pf_call *call) {
    const real *restrict dy = pf_in(call, 0), *restrict y = pf_in(call, 1);
    real *restrict dx = pf_out(call, 0);
    int64_t n = pf_count(call->outputs[0]);
    for (int64_t i = 0; i < n; i++) dx[i] = dy[i] * y[i] * (R(1.0) - y[i]);
    return PF_OK;
}

typedef struct {
    double slope;
} leaky_relu_attributes;

/* y = x for x > 0, else slope x */
int PF_NAME(leaky_relu)(const pf_call *call) {
    const leaky_relu_attributes *attributes = call->attributes;
    const real *restrict x = pf_in(call, 0);
    real *restrict y = pf_out(call, 0);
    real slope = (real)attributes->slope;
    int64_t n = pf_count(call->outputs[0]);
    for (int64_t i = 0; i < n; i++) y[i] = x[i] > 0 ? x[i] : slope * x[i];
    return PF_OK;
}

/* dx = dy for x > 0, else slope dy */
int PF_NAME(leaky_relu_grad)(const pf_call *call) {
    const leaky_relu_attributes *attributes = call->attributes;
    const real *restrict dy = pf_in(call, 0), *restrict x = pf_in(call, 1);
    real *restrict dx = pf_out(call, 0);
    real slope = (real)attributes->slope;
    int64_t n = pf_count(call->outputs[0]);
    for (int64_t i = 0; i < n; i++) dx[i] = x[i] > 0 ? dy[i] : slope * dy[i];
    return PF_OK;
}
