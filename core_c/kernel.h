/* What every family of kernels is built on.
 *
 * A family's file is compiled for each element type, with PF_REAL_BITS 32 and 64, and for each
 * instruction set: `real` is the element type, and PF_NAME(relu) the symbol pf_relu_f32_avx2, say.
 * Nothing else in such a file may be visible from outside. */
#ifndef PYFRAME_KERNEL_H
#define PYFRAME_KERNEL_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "math32.h"
#include "math64.h"
#include "pyframe/lanes.h"
#include "pyframe/pyframe.h"

#ifndef PF_REAL_BITS
#define PF_REAL_BITS 32
#endif
#ifndef PF_ISA
#define PF_ISA baseline
#endif

/* Whether this instruction set is to be small rather than fast (see CMakeLists.txt): a family then
 * leaves out what only saves time. */
#ifndef PF_SMALL
#define PF_SMALL 0
#endif

/* Goes before a function that is called in several places, in none of them so often that a copy of
 * it there would pay. */
#define PF_ONCE __attribute__((noinline, unused))

#define PF_SYMBOL_OF(name, type, isa) pf_##name##_##type##_##isa
#define PF_SYMBOL(name, type, isa) PF_SYMBOL_OF(name, type, isa)

/* What a family does rarely, or without vectors, is not worth a copy for each instruction set. The
 * baseline copy, where PF_DEFINES_RARE holds, defines PF_RARE(name); the others call it. */
#define PF_RARE_IN_baseline 1
#define PF_RARE_IN_OF(isa) PF_RARE_IN_##isa
#define PF_RARE_IN(isa) PF_RARE_IN_OF(isa)
#define PF_DEFINES_RARE PF_RARE_IN(PF_ISA)

/* The kernel `name` of every instruction set calls the one that PF_RARE(name) is. */
#define PF_RARE_KERNEL(name)                \
    int PF_RARE(name)(const pf_call *call); \
    int PF_NAME(name)(const pf_call *call) { return PF_RARE(name)(call); }

/* PF_OF_REAL(name): what the public headers have for both types. */
#if PF_REAL_BITS == 32
typedef float real;
#define PF_OF_REAL(name) name##_f32
#define PF_NAME(name) PF_SYMBOL(name, f32, PF_ISA)
#define PF_RARE(name) PF_SYMBOL(name, f32, rare)
#define R(literal) literal##f /* a constant of type real */
#define PF_MATH(function) function##f
#define r_exp pf_expf
#define r_exp_minus_abs pf_exp_minus_absf
#define r_expm1 pf_expm1f
#define r_log pf_logf
#define r_decay pf_decay /* exp(-|x|) in two parts */
#define r_decay_of pf_decay_of
#define r_erf pf_erff
#define r_log1p_unit pf_log1p_unitf /* of 0 to 1 */
#else
typedef double real;
#define PF_OF_REAL(name) name##_f64
#define PF_NAME(name) PF_SYMBOL(name, f64, PF_ISA)
#define PF_RARE(name) PF_SYMBOL(name, f64, rare)
#define R(literal) literal
#define PF_MATH(function) function
#define r_exp pf_exp
#define r_exp_minus_abs pf_exp_minus_abs
#define r_expm1 pf_expm1
#define r_log pf_log
#define r_decay pf_decay64
#define r_decay_of pf_decay_of64
#define r_erf pf_erf
#define r_log1p_unit pf_log1p_unit
#endif

#define r_sqrt PF_MATH(sqrt)
#define r_fabs PF_MATH(fabs)
#define r_copysign PF_MATH(copysign)

/* Operands of a call. An absent one has data NULL. */
static inline const real *pf_in(const pf_call *call, int i) {
    return (const real *)call->inputs[i]->data;
}
static inline const int64_t *pf_in_int(const pf_call *call, int i) {
    return (const int64_t *)call->inputs[i]->data;
}
static inline real *pf_out(const pf_call *call, int i) { return (real *)call->outputs[i]->data; }
static inline double *pf_out_double(const pf_call *call, int i) {
    return (double *)call->outputs[i]->data;
}
static inline real *pf_state(const pf_call *call, int i) { return (real *)call->states[i]->data; }

/* The number of elements; 1 for a scalar, 0 when an extent is zero. */
static inline int64_t pf_count(const pf_operand *t) {
    int64_t n = 1;
    for (int i = 0; i < t->ndim; i++) n *= t->dims[i];
    return n;
}
static inline int64_t pf_last_dim(const pf_operand *t) {
    return t->ndim > 0 ? t->dims[t->ndim - 1] : 1;
}
/* The number of rows when the last axis is a row. */
static inline int64_t pf_row_count(const pf_operand *t) {
    int64_t n = 1;
    for (int i = 0; i + 1 < t->ndim; i++) n *= t->dims[i];
    return n;
}

/* Goes before loops over a few numbers, of which Clang would make a kilobyte each. */
#ifdef __clang__
#define PF_ROLLED _Pragma("clang loop unroll(disable) vectorize(disable)")
#else
#define PF_ROLLED
#endif

/* Where `y[i] = c ? x : y[i]` is written in place, y is read by another pointer, which Clang does
 * not know to be the same: see pyframe/epilogue.h. The loop has to be PF_INDEPENDENT. */
static inline const real *pf_aside(const real *y) {
#if defined(__clang__) && defined(__AVX2__) && !defined(__AVX512F__)
    __asm__("" : "+r"(y));
#endif
    return y;
}

/* Reductions run in PF_LANES independent sums, which a compiler turns into vectors, and are then
 * folded in a fixed tree: the order depends on the length alone, so the bits do too. Anything
 * longer than PF_BLOCK is summed in blocks, and the blocks' sums in a tree: the error grows only
 * with the logarithm of the length. */
enum { PF_LANES = 16, PF_BLOCK = 2048 };

/* Goes before a loop over the lanes: Clang vectorizes it only once it is unrolled. */
#if defined(__clang__) && !PF_SMALL
#define PF_EACH_LANE _Pragma("clang loop unroll(full)")
#else
#define PF_EACH_LANE
#endif

/* And this before one whose steps halve a number of lanes, which must be known in each. */
#if defined(__clang__) || PF_SMALL
#define PF_EACH_HALF PF_EACH_LANE
#else
#define PF_EACH_HALF _Pragma("GCC unroll 4")
#endif

static inline real pf_fold(real lane[PF_LANES]) {
    PF_EACH_HALF for (int width = PF_LANES / 2; width > 0;
                      width /= 2) for (int j = 0; j < width; j++) lane[j] += lane[j + width];
    return lane[0];
}

/* sum_i x[i] and sum_i a[i] b[i]: of at most PF_BLOCK terms, and of more. */
real PF_NAME(sum_block)(const real *restrict x, int64_t n);
real PF_NAME(dot_block)(const real *restrict a, const real *restrict b, int64_t n);
/* dot_block(a, b, n), and sum_block(b, n) in *sum, in one pass: neither sum waits for the additions
 * of the other. n is at least PF_LANES. */
real PF_NAME(dot_and_sum_block)(const real *restrict a, const real *restrict b, int64_t n,
                                real *sum);
real PF_NAME(long_sum)(const real *restrict x, int64_t n);
real PF_NAME(long_dot)(const real *restrict a, const real *restrict b, int64_t n);

/* sum_i x[i] */
static inline real pf_sum(const real *restrict x, int64_t n) {
    return n <= PF_BLOCK ? PF_NAME(sum_block)(x, n) : PF_NAME(long_sum)(x, n);
}

/* sum_i a[i] b[i] */
static inline real pf_dot(const real *restrict a, const real *restrict b, int64_t n) {
    return n <= PF_BLOCK ? PF_NAME(dot_block)(a, b, n) : PF_NAME(long_dot)(a, b, n);
}

#endif
