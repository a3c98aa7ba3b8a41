/* Vectors of the instruction set that a file is compiled for: LANES channels at a time. */
#ifndef PYFRAME_CNN_VECTOR_H
#define PYFRAME_CNN_VECTOR_H

#include "cnn.h"
#include "pyframe/lanes.h"

/* Loops of a constant, small count are to be unrolled before the compiler decides what stays in
 * registers. */
#ifdef __clang__
#define CNN_UNROLL _Pragma("clang loop unroll(full)")
#else
#define CNN_UNROLL _Pragma("GCC unroll 32")
#endif

enum { LANES = PF_VECTOR_BYTES / (int)sizeof(real) };
typedef CNN_OF_REAL(pf_vec) vec;
typedef CNN_OF_REAL(pf_part) part;
#if CNN_BITS == 32
typedef int32_t bits __attribute__((vector_size(PF_VECTOR_BYTES)));
#else
typedef int64_t bits __attribute__((vector_size(PF_VECTOR_BYTES)));
#endif

static inline vec splat(real x) { return x - (vec){0}; }

/* Masks, a truth value for each lane: of comparisons, and to be joined by &, | and ~. And the
 * larger of two numbers, which is `top` if they are equal, and NaN if one of them is. */
#if defined(__AVX512F__)
#if CNN_BITS == 32
typedef __mmask16 mask;
static inline mask equal(vec x, vec y) { return _mm512_cmp_ps_mask(x, y, _CMP_EQ_OQ); }
static inline mask equal_among(mask m, vec x, vec y) {
    return _mm512_mask_cmp_ps_mask(m, x, y, _CMP_EQ_OQ);
}
static inline mask above(vec x, vec y) { return _mm512_cmp_ps_mask(x, y, _CMP_GT_OQ); }
static inline mask at_most(vec x, vec y) { return _mm512_cmp_ps_mask(x, y, _CMP_LE_OQ); }
static inline mask is_nan(vec x) { return _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q); }
static inline vec select(mask m, vec yes, vec no) { return _mm512_mask_blend_ps(m, no, yes); }
static inline vec larger(vec top, vec x) {
    return _mm512_mask_max_ps(x, _mm512_cmp_ps_mask(x, x, _CMP_ORD_Q), x, top);
}
#else
typedef __mmask8 mask;
static inline mask equal(vec x, vec y) { return _mm512_cmp_pd_mask(x, y, _CMP_EQ_OQ); }
static inline mask equal_among(mask m, vec x, vec y) {
    return _mm512_mask_cmp_pd_mask(m, x, y, _CMP_EQ_OQ);
}
static inline mask above(vec x, vec y) { return _mm512_cmp_pd_mask(x, y, _CMP_GT_OQ); }
static inline mask at_most(vec x, vec y) { return _mm512_cmp_pd_mask(x, y, _CMP_LE_OQ); }
static inline mask is_nan(vec x) { return _mm512_cmp_pd_mask(x, x, _CMP_UNORD_Q); }
static inline vec select(mask m, vec yes, vec no) { return _mm512_mask_blend_pd(m, no, yes); }
static inline vec larger(vec top, vec x) {
    return _mm512_mask_max_pd(x, _mm512_cmp_pd_mask(x, x, _CMP_ORD_Q), x, top);
}
#endif
#else
typedef bits mask;
static inline mask equal(vec x, vec y) { return x == y; }
static inline mask equal_among(mask m, vec x, vec y) { return m & (x == y); }
static inline mask above(vec x, vec y) { return x > y; }
static inline mask at_most(vec x, vec y) { return x <= y; }
static inline mask is_nan(vec x) { return x != x; }
static inline vec select(mask m, vec yes, vec no) {
    return (vec)(((mask)yes & m) | ((mask)no & ~m));
}
#if defined(__AVX2__) && CNN_BITS == 32
static inline vec larger(vec top, vec x) {
    return select(is_nan(x), x, (vec)_mm256_max_ps((__m256)x, (__m256)top));
}
#elif defined(__AVX2__)
static inline vec larger(vec top, vec x) {
    return select(is_nan(x), x, (vec)_mm256_max_pd((__m256d)x, (__m256d)top));
}
#else
static inline vec larger(vec top, vec x) { return select((x <= top) | (top != top), top, x); }
#endif
#endif

/* max(x, 0), and NaN where x is */
static inline vec rectified(vec x) { return (vec)((bits)x & ~(x < (vec){0})); }

/* Loads and stores of the first lanes of a vector: see pyframe/lanes.h. */
static inline part first_lanes(int64_t count) { return CNN_OF_REAL(pf_first_lanes)(count); }
static inline vec load(const real *p, part lanes) { return CNN_OF_REAL(pf_load_part)(p, lanes); }
static inline void store(real *p, part lanes, vec x) { CNN_OF_REAL(pf_store_part)(p, lanes, x); }

#endif
