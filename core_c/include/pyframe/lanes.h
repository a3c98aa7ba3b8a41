/* Vectors of the instruction set that a file is compiled for, whole and in part, for kernels that
 * are written with the vector extensions of GCC and Clang. pyframe.h does not include this header:
 * a kernel that leaves vectors to the compiler does not need it.
 *
 * The rest at the end of a row is a part of a vector: its first lanes. A load sets the other lanes
 * to zero, and a store leaves their memory as it is; neither touches that memory, so that the end
 * of a row may be the end of an allocation.
 *
 *     for (int64_t i = 0; i < n; i += PF_LANES_F32) {
 *         const pf_part_f32 lanes = pf_first_lanes_f32(n - i);
 *         pf_store_part_f32(y + i, lanes, 2 * pf_load_part_f32(x + i, lanes));
 *     } */
#ifndef PYFRAME_LANES_H
#define PYFRAME_LANES_H

#include <stdint.h>
#include <string.h>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

/* The widest vectors of the instruction set, in bytes, and how many registers hold them. */
#if defined(__AVX512F__)
#define PF_VECTOR_BYTES 64
#define PF_VECTOR_REGISTERS 32
#elif defined(__AVX2__)
#define PF_VECTOR_BYTES 32
#define PF_VECTOR_REGISTERS 16
#elif defined(__aarch64__) || defined(_M_ARM64) || defined(PF_LIKE_NEON)
#define PF_VECTOR_BYTES 16
#define PF_VECTOR_REGISTERS 32
#else
#define PF_VECTOR_BYTES 16
#define PF_VECTOR_REGISTERS 16
#endif
#define PF_LANES_F32 (PF_VECTOR_BYTES / 4)
#define PF_LANES_F64 (PF_VECTOR_BYTES / 8)

/* Unaligned, and allowed to alias the numbers that it loads. */
typedef float pf_vec_f32 __attribute__((vector_size(PF_VECTOR_BYTES), aligned(4), may_alias));
typedef double pf_vec_f64 __attribute__((vector_size(PF_VECTOR_BYTES), aligned(8), may_alias));

static inline pf_vec_f32 pf_load_f32(const float *p) { return *(const pf_vec_f32 *)p; }
static inline pf_vec_f64 pf_load_f64(const double *p) { return *(const pf_vec_f64 *)p; }
static inline void pf_store_f32(float *p, pf_vec_f32 x) { *(pf_vec_f32 *)p = x; }
static inline void pf_store_f64(double *p, pf_vec_f64 x) { *(pf_vec_f64 *)p = x; }

/* pf_first_lanes(count): a part of `count` lanes, or the whole vector if it has no more lanes than
 * that; count >= 0. */
#if defined(__AVX512F__)

/* A mask: load and store are single instructions, for whole vectors as well. */
typedef __mmask16 pf_part_f32;
typedef __mmask8 pf_part_f64;
static inline pf_part_f32 pf_first_lanes_f32(int64_t count) {
    return (pf_part_f32)(count >= 16 ? 0xffff : (1 << count) - 1);
}
static inline pf_part_f64 pf_first_lanes_f64(int64_t count) {
    return (pf_part_f64)(count >= 8 ? 0xff : (1 << count) - 1);
}
static inline pf_vec_f32 pf_load_part_f32(const float *p, pf_part_f32 lanes) {
    return (pf_vec_f32)_mm512_maskz_loadu_ps(lanes, p);
}
static inline pf_vec_f64 pf_load_part_f64(const double *p, pf_part_f64 lanes) {
    return (pf_vec_f64)_mm512_maskz_loadu_pd(lanes, p);
}
static inline void pf_store_part_f32(float *p, pf_part_f32 lanes, pf_vec_f32 x) {
    _mm512_mask_storeu_ps(p, lanes, (__m512)x);
}
static inline void pf_store_part_f64(double *p, pf_part_f64 lanes, pf_vec_f64 x) {
    _mm512_mask_storeu_pd(p, lanes, (__m512d)x);
}

#else

/* The number of lanes. */
typedef int64_t pf_part_f32;
typedef int64_t pf_part_f64;
static inline pf_part_f32 pf_first_lanes_f32(int64_t count) {
    return count < PF_LANES_F32 ? count : PF_LANES_F32;
}
static inline pf_part_f64 pf_first_lanes_f64(int64_t count) {
    return count < PF_LANES_F64 ? count : PF_LANES_F64;
}

#if defined(__AVX2__)

/* Loads by a mask. Stores in pieces of 4, 2 and 1 lanes: a store by a mask takes dozens of cycles
 * on some processors. */
static inline __m256i pf_first_words(int64_t count) {
    static const int32_t words[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
    return _mm256_loadu_si256((const __m256i *)(const void *)(words + 8 - count));
}
static inline pf_vec_f32 pf_load_part_f32(const float *p, pf_part_f32 lanes) {
    return (pf_vec_f32)_mm256_maskload_ps(p, pf_first_words(lanes));
}
static inline pf_vec_f64 pf_load_part_f64(const double *p, pf_part_f64 lanes) {
    return (pf_vec_f64)_mm256_maskload_pd(p, pf_first_words(2 * lanes));
}
static inline void pf_store_part_f32(float *p, pf_part_f32 lanes, pf_vec_f32 x) {
    if (lanes == PF_LANES_F32) {
        pf_store_f32(p, x);
        return;
    }
    __m128 rest = _mm256_castps256_ps128((__m256)x);
    if (lanes & 4) {
        _mm_storeu_ps(p, rest);
        rest = _mm256_extractf128_ps((__m256)x, 1);
        p += 4;
    }
    if (lanes & 2) {
        _mm_storel_pi((__m64 *)(void *)p, rest);
        rest = _mm_movehl_ps(rest, rest);
        p += 2;
    }
    if (lanes & 1) _mm_store_ss(p, rest);
}
static inline void pf_store_part_f64(double *p, pf_part_f64 lanes, pf_vec_f64 x) {
    if (lanes == PF_LANES_F64) {
        pf_store_f64(p, x);
        return;
    }
    __m128d rest = _mm256_castpd256_pd128((__m256d)x);
    if (lanes & 2) {
        _mm_storeu_pd(p, rest);
        rest = _mm256_extractf128_pd((__m256d)x, 1);
        p += 2;
    }
    if (lanes & 1) _mm_store_sd(p, rest);
}

#else

/* Vectors of 16 bytes, in pieces of 8 and 4: SSE2 and NEON have instructions for half a vector and
 * for one lane. */
static inline pf_vec_f32 pf_load_part_f32(const float *p, pf_part_f32 lanes) {
    if (lanes == PF_LANES_F32) return pf_load_f32(p);
    pf_vec_f32 x = {0};
    if (lanes & 2) {
        memcpy(&x, p, 8);
        if (lanes & 1) x[2] = p[2];
    } else if (lanes & 1) {
        x[0] = p[0];
    }
    return x;
}
static inline pf_vec_f64 pf_load_part_f64(const double *p, pf_part_f64 lanes) {
    if (lanes == PF_LANES_F64) return pf_load_f64(p);
    pf_vec_f64 x = {0};
    if (lanes) x[0] = p[0];
    return x;
}
static inline void pf_store_part_f32(float *p, pf_part_f32 lanes, pf_vec_f32 x) {
    if (lanes == PF_LANES_F32) {
        pf_store_f32(p, x);
    } else if (lanes & 2) {
        memcpy(p, &x, 8);
        if (lanes & 1) p[2] = x[2];
    } else if (lanes & 1) {
        p[0] = x[0];
    }
}
static inline void pf_store_part_f64(double *p, pf_part_f64 lanes, pf_vec_f64 x) {
    if (lanes == PF_LANES_F64)
        pf_store_f64(p, x);
    else if (lanes)
        p[0] = x[0];
}

#endif
#endif
#endif
