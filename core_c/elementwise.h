/* Kernels that treat each element by itself.
 *
 * The output may share the memory of an input: element i of the input is read before element i of
 * the output is written, and in no other iteration. So the pointers are not `restrict`;
 * PF_INDEPENDENT before a loop says instead that no iteration writes what another one reads, which
 * is all that vector code needs. */
#ifndef PYFRAME_ELEMENTWISE_H
#define PYFRAME_ELEMENTWISE_H

#include "kernel.h"

#ifdef __clang__
#define PF_RARE_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define PF_RARE_INDEPENDENT _Pragma("GCC ivdep")
#endif

/* A small set has vectors only in its rare functions (PF_RARE), which all sets run. */
#if PF_SMALL
#define PF_INDEPENDENT
#else
#define PF_INDEPENDENT PF_RARE_INDEPENDENT
#endif

/* The kernel `name`: output 0 is `expression` of the element x of input 0. */
#define PF_MAP(name, expression)                \
    int PF_NAME(name)(const pf_call *call) {    \
        const real *xs = pf_in(call, 0);        \
        real *ys = pf_out(call, 0);             \
        int64_t n = pf_count(call->outputs[0]); \
        PF_INDEPENDENT                          \
        for (int64_t i = 0; i < n; i++) {       \
            const real x = xs[i];               \
            ys[i] = expression;                 \
        }                                       \
        return PF_OK;                           \
    }

/* The gradient kernel `name`: output 0 is `expression` of dy and of the element that the forward
 * pass kept, under the name (x or y) given as `saved`. */
#define PF_MAP_GRAD(name, saved, expression)                    \
    int PF_NAME(name)(const pf_call *call) {                    \
        const real *dys = pf_in(call, 0), *xs = pf_in(call, 1); \
        real *dxs = pf_out(call, 0);                            \
        int64_t n = pf_count(call->outputs[0]);                 \
        PF_INDEPENDENT                                          \
        for (int64_t i = 0; i < n; i++) {                       \
            const real dy = dys[i], saved = xs[i];              \
            dxs[i] = expression;                                \
        }                                                       \
        return PF_OK;                                           \
    }

#endif
