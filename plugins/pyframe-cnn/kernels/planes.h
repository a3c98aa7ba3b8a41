/* Between few filters that lie side by side, pixel by pixel, and planes: a vector of pixels for
 * each filter. */
#ifndef PYFRAME_CNN_PLANES_H
#define PYFRAME_CNN_PLANES_H

#include "vector.h"

enum { FEW_FILTERS = 8 };

#if defined(__AVX512F__)

/* Vectors gathered from others: lane i of number v is lane index[v][i] % LANES of one of the pair
 * 2 p and 2 p + 1, for the p in whose mask pair[v][p] bit i is set. */
typedef struct {
    __m512i index[FEW_FILTERS];
    __mmask16 pair[FEW_FILTERS][FEW_FILTERS / 2];
} sorting;

/* How planes become vectors of filters side by side; or, if `apart`, the other way round. */
static inline sorting sorting_of(int filters, int apart) {
    sorting s = {.pair = {{0}}};
    for (int v = 0; v < filters; v++) {
        int32_t index[LANES];
        for (int i = 0; i < LANES; i++) {
            const int element = apart ? i * filters + v : v * LANES + i;
            const int number = apart ? element / LANES : element % filters;
            const int lane = apart ? element % LANES : element / filters;
            index[i] = lane + number % 2 * LANES;
            s.pair[v][number / 2] |= (__mmask16)(1 << i);
        }
        s.index[v] = _mm512_loadu_si512(index);
    }
    return s;
}

__attribute__((always_inline)) static inline vec gather(const sorting *s, int v, const int filters,
                                                        const vec from[]) {
    vec all = {0};
    CNN_UNROLL for (int p = 0; 2 * p < filters; p++) {
        const vec other = from[2 * p + 1 < filters ? 2 * p + 1 : 2 * p];
        const vec two = _mm512_permutex2var_ps(from[2 * p], s->index[v], other);
        all = p == 0 ? two : (vec)_mm512_mask_mov_ps(all, s->pair[v][p], two);
    }
    return all;
}

/* y[i filters + f] = planes[f][i], of which there are `left` elements. */
__attribute__((always_inline)) static inline void put_planes(const sorting *s, const int filters,
                                                             const vec planes[], real *y,
                                                             int64_t left) {
    CNN_UNROLL for (int v = 0; v < filters && left > 0; v++, left -= LANES, y += LANES)
        store(y, first_lanes(left), gather(s, v, filters, planes));
}

/* planes[f][i] = y[i filters + f], and zeros behind the `left` elements of y. */
__attribute__((always_inline)) static inline void take_planes(const sorting *s, const int filters,
                                                              const real *y, int64_t left,
                                                              vec planes[]) {
    vec from[FEW_FILTERS];
    CNN_UNROLL for (int v = 0; v < filters; v++) from[v] =
        load(y + v * LANES, first_lanes(max_of(left - v * LANES, 0)));
    CNN_UNROLL for (int f = 0; f < filters; f++) planes[f] = gather(s, f, filters, from);
}

#else

/* Transposes the square whose rows are the vectors row[0] ... row[LANES - 1], by rounds that take
 * one lane, two and four of two rows by turns; within 16 bytes, as processors do it. */
#if PF_VECTOR_BYTES == 32
#define CNN_FIRST_ONES 0, 8, 1, 9, 4, 12, 5, 13
#define CNN_LAST_ONES 2, 10, 3, 11, 6, 14, 7, 15
#define CNN_FIRST_TWOS 0, 1, 8, 9, 4, 5, 12, 13
#define CNN_LAST_TWOS 2, 3, 10, 11, 6, 7, 14, 15
#else
#define CNN_FIRST_ONES 0, 4, 1, 5
#define CNN_LAST_ONES 2, 6, 3, 7
#define CNN_FIRST_TWOS 0, 1, 4, 5
#define CNN_LAST_TWOS 2, 3, 6, 7
#endif
__attribute__((always_inline)) static inline void transpose(vec row[LANES]) {
    vec ones[LANES];
    CNN_UNROLL for (int i = 0; i < LANES; i += 2) {
        ones[i] = __builtin_shufflevector(row[i], row[i + 1], CNN_FIRST_ONES);
        ones[i + 1] = __builtin_shufflevector(row[i], row[i + 1], CNN_LAST_ONES);
    }
    CNN_UNROLL for (int i = 0; i < LANES; i += 4) CNN_UNROLL for (int j = 0; j < 2; j++) {
        const vec x = ones[i + j], y = ones[i + j + 2];
        row[i + 2 * j] = __builtin_shufflevector(x, y, CNN_FIRST_TWOS);
        row[i + 2 * j + 1] = __builtin_shufflevector(x, y, CNN_LAST_TWOS);
    }
#if PF_VECTOR_BYTES == 32
    CNN_UNROLL for (int i = 0; i < 4; i++) {
        const vec x = row[i], y = row[i + 4];
        row[i] = __builtin_shufflevector(x, y, 0, 1, 2, 3, 8, 9, 10, 11);
        row[i + 4] = __builtin_shufflevector(x, y, 4, 5, 6, 7, 12, 13, 14, 15);
    }
#endif
}

/* Squares of LANES x LANES are transposed, and what they have of the filters overlaps in memory:
 * what is stored behind a pixel's filters is overwritten by those of the next one. */
typedef struct {
    char none;
} sorting;

static inline sorting sorting_of(int filters, int apart) {
    (void)filters, (void)apart;
    return (sorting){0};
}

enum { SQUARES = FEW_FILTERS / LANES }; /* of up to LANES planes each */

__attribute__((always_inline)) static inline void put_planes(const sorting *s, const int filters,
                                                             const vec planes[], real *y,
                                                             int64_t left) {
    const int squares = (filters + LANES - 1) / LANES;
    vec square[SQUARES][LANES];
    (void)s;
    CNN_UNROLL for (int q = 0; q < squares; q++) {
        CNN_UNROLL for (int i = 0; i < LANES; i++) square[q][i] =
            q * LANES + i < filters ? planes[q * LANES + i] : (vec){0};
        transpose(square[q]);
    }
    if (left >= LANES * filters + LANES) {
        CNN_UNROLL for (int i = 0; i < LANES; i++) CNN_UNROLL for (int q = 0; q < squares; q++) *
            (vec *)(y + i * filters + q * LANES) = square[q][i];
        return;
    }
    for (int i = 0; i < LANES; i++)
        for (int q = 0; q < squares; q++) {
            const int64_t at = i * filters + q * LANES;
            if (at < left) store(y + at, first_lanes(left - at), square[q][i]);
        }
}

__attribute__((always_inline)) static inline void take_planes(const sorting *s, const int filters,
                                                              const real *y, int64_t left,
                                                              vec planes[]) {
    const int squares = (filters + LANES - 1) / LANES, whole = left >= LANES * filters + LANES;
    (void)s;
    CNN_UNROLL for (int q = 0; q < squares; q++) {
        vec square[LANES];
        const real *first = y + q * LANES;
        CNN_UNROLL for (int i = 0; i < LANES; i++) square[i] =
            whole
                ? *(const vec *)(first + i * filters)
                : load(first + i * filters, first_lanes(max_of(left - q * LANES - i * filters, 0)));
        transpose(square);
        CNN_UNROLL for (int i = 0; i < LANES; i++) if (q * LANES + i < filters)
            planes[q * LANES + i] = square[i];
    }
}

#endif
#endif
