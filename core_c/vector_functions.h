/* Vector math as functions, for whole rows or more: there the cost of a call does not matter, and
 * the library holds the code of each only once. Plugins get them in a table, pf_vector_functions in
 * pyframe/abi.inc. */
#ifndef PYFRAME_VECTOR_FUNCTIONS_H
#define PYFRAME_VECTOR_FUNCTIONS_H

#include "kernel.h"

/* y = f(x), n elements; y may be x. */
void PF_NAME(exp_all)(int64_t n, const void *x, void *y);
void PF_NAME(log_all)(int64_t n, const void *x, void *y);
void PF_NAME(tanh_all)(int64_t n, const void *x, void *y);
void PF_NAME(sigmoid_all)(int64_t n, const void *x, void *y);
void PF_NAME(erf_all)(int64_t n, const void *x, void *y);

/* y = exp(x - top) / sum exp(x - top), top = max x, row by row; y may be x. */
void PF_NAME(softmax_all)(int64_t rows, int64_t n, const void *x, void *y);

/* The kernel `name`: output 0 is the function `name` of input 0. */
#define PF_MAP_ALL(name)                                                                  \
    int PF_NAME(name)(const pf_call *call) {                                              \
        PF_NAME(name##_all)(pf_count(call->outputs[0]), pf_in(call, 0), pf_out(call, 0)); \
        return PF_OK;                                                                     \
    }

extern const pf_vector_functions PF_NAME(vector_functions);

#endif
