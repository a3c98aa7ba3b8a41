/* Vectors of the instruction set that a file is compiled for. */
#ifndef PYFRAME_VECTOR_H
#define PYFRAME_VECTOR_H

#include "kernel.h"

/* Loops of a constant, small count are to be unrolled before the compiler decides what stays in
 * registers; no others are (see CMakeLists.txt). */
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
static inline part first_lanes(int64_t count) { return PF_OF_REAL(pf_first_lanes)(count); }
static inline vec load_part(const real *p, part lanes) {
    return PF_OF_REAL(pf_load_part)(p, lanes);
}
static inline void store_part(real *p, part lanes, vec x) {
    PF_OF_REAL(pf_store_part)(p, lanes, x);
}

/* max(x, 0), and NaN where x is */
static inline vec relu(vec x) { return (vec)((ivec)x & ~(x < 0)); }

/* Whether a part of a vector costs no more than all of it. */
#if defined(__AVX512F__)
#define PF_MASKED_LOADS 1
#else
#define PF_MASKED_LOADS 0
#endif

/* low(x, y) = x0 y0 x1 y1 ..., and high(x, y) those of the upper halves. */
#if PF_VECTOR_BYTES / (PF_REAL_BITS / 8) == 2
#define PF_LOW_LANES 0, 2
#define PF_HIGH_LANES 1, 3
#elif PF_VECTOR_BYTES / (PF_REAL_BITS / 8) == 4
#define PF_LOW_LANES 0, 4, 1, 5
#define PF_HIGH_LANES 2, 6, 3, 7
#elif PF_VECTOR_BYTES / (PF_REAL_BITS / 8) == 8
#define PF_LOW_LANES 0, 8, 1, 9, 2, 10, 3, 11
#define PF_HIGH_LANES 4, 12, 5, 13, 6, 14, 7, 15
#else
#define PF_LOW_LANES 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define PF_HIGH_LANES 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#endif
static inline vec low(vec x, vec y) { return __builtin_shufflevector(x, y, PF_LOW_LANES); }
static inline vec high(vec x, vec y) { return __builtin_shufflevector(x, y, PF_HIGH_LANES); }

/* Transposes the square whose rows are the vectors row[0] ... row[LANES - 1]. Each round of
 * interleaving rows i and i + LANES / 2 moves one bit of the row's number to the column's. */
__attribute__((always_inline)) static inline void transpose(vec row[LANES]) {
    PF_UNROLL for (int round = 0; round < LANE_BITS; round++) {
        vec next[LANES];
        PF_UNROLL for (int i = 0; i < LANES / 2; i++) {
            next[2 * i] = low(row[i], row[i + LANES / 2]);
            next[2 * i + 1] = high(row[i], row[i + LANES / 2]);
        }
        PF_UNROLL for (int i = 0; i < LANES; i++) row[i] = next[i];
    }
}

#endif
