/* Vectors of the instruction set that a file is compiled for. */
#ifndef PYFRAME_VECTOR_H
#define PYFRAME_VECTOR_H

#include "kernel.h"

#if defined(__aarch64__) || defined(_M_ARM64)
#include <arm_neon.h>
#elif defined(PF_LIKE_NEON)
#include <immintrin.h>
#endif

/* Goes before loops of a small, constant count, which must be unrolled before the compiler decides
 * what stays in registers; no other loops are (see CMakeLists.txt). */
#ifdef __clang__
#define PF_UNROLL _Pragma("clang loop unroll(full)")
#else
#define PF_UNROLL _Pragma("GCC unroll 16")
#endif

enum {
    LANES = PF_VECTOR_BYTES / (int)sizeof(real),
    LANE_BITS = LANES == 16 ? 4
    : LANES == 8            ? 3
    : LANES == 4            ? 2
                            : 1 /* LANES = 2^LANE_BITS */
};

/* See pyframe/lanes.h, also for parts of vectors. */
typedef PF_OF_REAL(pf_vec) vec;
typedef PF_OF_REAL(pf_part) part;

#if PF_REAL_BITS == 32
typedef int32_t ivec __attribute__((vector_size(PF_VECTOR_BYTES)));
#else
typedef int64_t ivec __attribute__((vector_size(PF_VECTOR_BYTES)));
#endif

static inline vec splat(real x) { return x - (vec){0}; }
static inline vec load(const real *p) { return PF_OF_REAL(pf_load)(p); }
static inline void store(real *p, vec x) { PF_OF_REAL(pf_store)(p, x); }
/* Without masks, parts of vectors take much code: in a small set they are not inlined. */
#if PF_SMALL
#define PF_OF_PARTS __attribute__((noinline, unused)) static
#else
#define PF_OF_PARTS static inline
#endif
static inline part first_lanes(int64_t count) { return PF_OF_REAL(pf_first_lanes)(count); }
PF_OF_PARTS vec load_part(const real *p, part lanes) { return PF_OF_REAL(pf_load_part)(p, lanes); }
PF_OF_PARTS void store_part(real *p, part lanes, vec x) { PF_OF_REAL(pf_store_part)(p, lanes, x); }

/* sum + a b. Where loading a part of a vector takes branches, compilers move the product away from
 * the sum, in some lanes, and round twice; fused by name, it is rounded once in all of them. */
static inline vec add_product(vec sum, vec a, vec b) {
#if defined(__aarch64__) || defined(_M_ARM64)
#if PF_REAL_BITS == 32
    return (vec)vfmaq_f32((float32x4_t)sum, (float32x4_t)a, (float32x4_t)b);
#else
    return (vec)vfmaq_f64((float64x2_t)sum, (float64x2_t)a, (float64x2_t)b);
#endif
#elif PF_VECTOR_BYTES == 32 /* as the tiles of a product, whatever the compiler is told */
#if PF_REAL_BITS == 32
    return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)sum);
#else
    return (vec)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)sum);
#endif
#elif defined(PF_LIKE_NEON)
#if PF_REAL_BITS == 32
    return (vec)_mm_fmadd_ps((__m128)a, (__m128)b, (__m128)sum);
#else
    return (vec)_mm_fmadd_pd((__m128d)a, (__m128d)b, (__m128d)sum);
#endif
#else
    return sum + a * b;
#endif
}

/* max(x, 0), and NaN where x is */
static inline vec relu(vec x) { return (vec)((ivec)x & ~(x < 0)); }

/* Whether loading a part of a vector costs no more than loading all of it. */
#if defined(__AVX512F__)
#define PF_MASKED_LOADS 1
#else
#define PF_MASKED_LOADS 0
#endif

/* The following turns rows into columns in LANE_BITS rounds, each of which pairs rows i and
 * i + pair_distance(round): for two rows x and y, low(round, x, y) and high(round, x, y) have half
 * of the lanes each, so that one bit of a row's number changes places with one of a lane's.
 * Processors move numbers within 16 bytes, or whole pieces of 16 bytes, by one instruction, but not
 * both. So the first rounds interleave the numbers of such pieces, x0 y0 x1 y1 x4 y4 x5 y5 ... and
 * x2 y2 x3 y3 x6 y6 ..., and the others take every other piece of x, and then of y. */
enum { PIECE_BITS = PF_REAL_BITS == 32 ? 2 : 1 };
static inline int pair_distance(int round) {
    return 1 << (round <= PIECE_BITS ? PIECE_BITS - round : round - 1);
}
#if PF_VECTOR_BYTES == 64 && PF_REAL_BITS == 32
#define PF_LOW_LANES 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29
#define PF_HIGH_LANES 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31
#define PF_LOW_PIECES 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27
#define PF_HIGH_PIECES 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31
#elif PF_VECTOR_BYTES == 64
#define PF_LOW_LANES 0, 8, 2, 10, 4, 12, 6, 14
#define PF_HIGH_LANES 1, 9, 3, 11, 5, 13, 7, 15
#define PF_LOW_PIECES 0, 1, 4, 5, 8, 9, 12, 13
#define PF_HIGH_PIECES 2, 3, 6, 7, 10, 11, 14, 15
#elif PF_VECTOR_BYTES == 32 && PF_REAL_BITS == 32
#define PF_LOW_LANES 0, 8, 1, 9, 4, 12, 5, 13
#define PF_HIGH_LANES 2, 10, 3, 11, 6, 14, 7, 15
#define PF_LOW_PIECES 0, 1, 2, 3, 8, 9, 10, 11
#define PF_HIGH_PIECES 4, 5, 6, 7, 12, 13, 14, 15
#elif PF_VECTOR_BYTES == 32
#define PF_LOW_LANES 0, 4, 2, 6
#define PF_HIGH_LANES 1, 5, 3, 7
#define PF_LOW_PIECES 0, 1, 4, 5
#define PF_HIGH_PIECES 2, 3, 6, 7
#elif PF_REAL_BITS == 32
#define PF_LOW_LANES 0, 4, 1, 5
#define PF_HIGH_LANES 2, 6, 3, 7
#else
#define PF_LOW_LANES 0, 2
#define PF_HIGH_LANES 1, 3
#endif
#ifndef PF_LOW_PIECES /* a vector is one piece */
#define PF_LOW_PIECES PF_LOW_LANES
#define PF_HIGH_PIECES PF_HIGH_LANES
#endif
__attribute__((always_inline)) static inline vec low(int round, vec x, vec y) {
    return round > PIECE_BITS ? __builtin_shufflevector(x, y, PF_LOW_PIECES)
                              : __builtin_shufflevector(x, y, PF_LOW_LANES);
}
__attribute__((always_inline)) static inline vec high(int round, vec x, vec y) {
    return round > PIECE_BITS ? __builtin_shufflevector(x, y, PF_HIGH_PIECES)
                              : __builtin_shufflevector(x, y, PF_HIGH_LANES);
}

/* Transposes the square whose rows are the vectors row[0] ... row[LANES - 1]. */
__attribute__((always_inline)) static inline void transpose(vec row[LANES]) {
    PF_UNROLL for (int round = 1; round <= LANE_BITS; round++) {
        const int distance = pair_distance(round);
        PF_UNROLL for (int i = 0; i < LANES; i++) if (!(i & distance)) {
            const vec x = row[i], y = row[i + distance];
            row[i] = low(round, x, y);
            row[i + distance] = high(round, x, y);
        }
    }
}

/* Folds LANES sums into one vector: lane i becomes the total of sum[i]. */
__attribute__((always_inline)) static inline vec fold(vec sum[LANES]) {
    int folded = 0; /* bits of i by which sums have been paired: an i with one is done */
    PF_UNROLL for (int round = 1; round <= LANE_BITS; round++) {
        const int distance = pair_distance(round);
        folded |= distance;
        PF_UNROLL for (int i = 0; i < LANES; i++) if (!(i & folded)) sum[i] =
            low(round, sum[i], sum[i + distance]) + high(round, sum[i], sum[i + distance]);
    }
    return sum[0];
}

#endif
