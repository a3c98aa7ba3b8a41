/* Bias and activation of the convolutions that are no products of matrices. */
#ifndef PYFRAME_CNN_EPILOGUE_H
#define PYFRAME_CNN_EPILOGUE_H

#include "conv.h"
#include "pyframe/epilogue.h"

/* y = f(y), or y f'(saved) */
static inline void finish(const pf_call *call, real *y, const real *saved, int64_t n) {
    const conv_attributes *attributes = call->attributes;
    const int activation = (int)attributes->activation;
    const real slope = (real)attributes->slope;
    if (saved)
        CNN_OF_REAL(pf_activate_grad)(activation, slope, y, saved, n);
    else
        CNN_OF_REAL(pf_activate)(call->host->vector(CNN_BITS), activation, slope, y, n);
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
