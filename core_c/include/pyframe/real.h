/* For a file of kernels that is compiled once for each element type and instruction set. The build
 * says which: -DBITS=32 or 64, -DISA=baseline, avx2, avx512 or neon. Then `real` is float or
 * double, and `int NAME(scan)(const pf_call *call)` is scan_f32_avx2, say.
 */
#ifndef PYFRAME_REAL_H
#define PYFRAME_REAL_H

#include "pyframe.h"

#if !defined BITS || !defined ISA
#error "define BITS (32 or 64) and ISA (baseline, avx2, ...) before pyframe/real.h"
#elif BITS == 32
typedef float real;
#else
typedef double real;
#endif

#define PF_SYMBOL(name, bits, isa) name##_f##bits##_##isa
#define PF_EXPANDED(name, bits, isa) PF_SYMBOL(name, bits, isa)
#define NAME(name) PF_EXPANDED(name, BITS, ISA)

/* Operands of a call. The data of an absent input, or of an output not wanted, are NULL. */
static inline const real *input(const pf_call *call, int i) {
    return (const real *)call->inputs[i]->data;
}
static inline real *output(const pf_call *call, int i) { return (real *)call->outputs[i]->data; }

/* How many elements input i has, and how long its last axis is, that is, each of its rows. */
static inline int64_t elements(const pf_call *call, int i) {
    const pf_operand *x = call->inputs[i];
    int64_t n = 1;
    for (int axis = 0; axis < x->ndim; axis++) n *= x->dims[axis];
    return n;
}
static inline int64_t columns(const pf_call *call, int i) {
    const pf_operand *x = call->inputs[i];
    return x->ndim ? x->dims[x->ndim - 1] : 1;
}
/* The rows of input i: all of its axes but the last. */
static inline int64_t rows(const pf_call *call, int i) {
    const pf_operand *x = call->inputs[i];
    int64_t n = 1;
    for (int axis = 0; axis + 1 < x->ndim; axis++) n *= x->dims[axis];
    return n;
}

#endif
