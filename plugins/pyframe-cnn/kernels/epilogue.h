/* Bias and activation of the convolutions that are no products of matrices. */
#ifndef PYFRAME_CNN_EPILOGUE_H
#define PYFRAME_CNN_EPILOGUE_H

#include "conv.h"

/* y = f(y), or y f'(saved) */
static inline void finish(const pf_call *call, real *y, const real *saved, int64_t n) {
    const conv_attributes *attributes = call->attributes;
    const pf_vector_functions *vector = call->host->vector(CNN_BITS);
    const real slope = (real)attributes->slope;
    if (!saved) switch (attributes->activation) {
            case PF_RELU:
                for (int64_t i = 0; i < n; i++) y[i] = y[i] < 0 ? 0 : y[i];
                break;
            case PF_LEAKY_RELU:
                for (int64_t i = 0; i < n; i++) y[i] = y[i] > 0 ? y[i] : slope * y[i];
                break;
            case PF_SIGMOID:
                vector->sigmoid(n, y, y);
                break;
            case PF_TANH:
                vector->tanh(n, y, y);
                break;
        }
    else
        switch (attributes->activation) {
            case PF_RELU:
                for (int64_t i = 0; i < n; i++) y[i] = saved[i] <= 0 ? 0 : y[i];
                break;
            case PF_LEAKY_RELU:
                for (int64_t i = 0; i < n; i++) y[i] = saved[i] > 0 ? y[i] : slope * y[i];
                break;
            case PF_SIGMOID: /* of these two the derivative itself is saved */
            case PF_TANH:
                for (int64_t i = 0; i < n; i++) y[i] *= saved[i];
                break;
        }
}

/* y (rows, channels) = the bias, or zero: what is added to */
static inline void start(real *y, const real *bias, int64_t rows, int64_t channels) {
    if (!bias) {
        memset(y, 0, (size_t)(rows * channels) * sizeof(real));
        return;
    }
    for (int64_t i = 0; i < rows; i++)
        memcpy(y + i * channels, bias, (size_t)channels * sizeof(real));
}

#endif
