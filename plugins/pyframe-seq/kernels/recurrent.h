/* What the recurrent kernels share: the order in which the steps of a batch are computed, products
 * with weights that are packed once a call, and the loops over time.
 *
 * A step that a sequence does not have is never computed. The sequences are put in order, longest
 * first, so that those which still have a step s are the first `count[s]` of them. Their steps lie
 * one behind the other, in "packed rows": all sequences at step 0, then those that have a step 1,
 * and so on. x, gates and gradients in that order are matrices without gaps, of `total` rows, and
 * what is in the array where a sequence has no step is not read.
 *
 * N sequences, T steps, C channels, H units, G gates; h is W wide: H, or less with a projection. */
#ifndef PYFRAME_SEQ_RECURRENT_H
#define PYFRAME_SEQ_RECURRENT_H

#include <string.h>

#include "vectors.h"

/* Iterations do not touch each other's memory: the compiler may make vectors of them. */
#if defined(__clang__)
#define SEQ_INDEPENDENT _Pragma("clang loop vectorize(assume_safety) interleave(disable)")
#elif defined(__GNUC__)
#define SEQ_INDEPENDENT _Pragma("GCC ivdep")
#else
#define SEQ_INDEPENDENT
#endif

enum {
    MANY_STEPS = 16, /* so many products with a matrix that a copy pays, however few the rows are */
    ALIGNMENT = 64,
    LINE = 64 / (int)sizeof(real), /* elements in a line of the cache */
    TERMS_PER_NANOSECOND = 40
};

static inline int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- scratch memory, handed out piece by piece ---- */

typedef struct {
    char *at;
    uint64_t left;
} arena;

static inline void *take_bytes(arena *a, int64_t bytes) {
    const uint64_t size = ((uint64_t)bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (size > a->left) return NULL;
    void *piece = a->at;
    a->at += size;
    a->left -= size;
    return piece;
}
static inline real *take(arena *a, int64_t count) {
    return take_bytes(a, count * (int64_t)sizeof(real));
}

/* ---- products ---- */

/* A matrix b (k, n), or a transposed one (n, k), that many rows are multiplied with. */
typedef struct {
    const real *b;
    int64_t k, n, b_row;
    int32_t transposed, packed;
    int *turn; /* of strips: whether the next product begins at the end; otherwise NULL */
} matrix;

/* ---- one call ---- */

typedef struct recurrence recurrence;

/* One step of the sequences of a part: m rows, the first of which is packed row `row`, and belongs
 * to the sequence at `place` in the order. */
typedef struct {
    int64_t part, place, row, m;
    real *z;    /* forward: (m, G H) what the input gives to the gates; backward: their gradients */
    real *room; /* of the part, as large as the kernel has asked for */
} step;

struct recurrence {
    const pf_call *call;
    const pf_gemm_functions *gemm;
    const pf_vector_functions *vector;
    arena scratch;
    int64_t samples, steps, channels, units, width, gates; /* N, T, C, H, W, G H */
    int64_t part_rows, chunk; /* sequences of a part; steps whose input product is one */
    int turns[2], strips;     /* of the matrices in strips, at most two; how many there are */

    int64_t total;
    int64_t *sample; /* (N) place in the order -> sample */
    int64_t *count;  /* (T) how many sequences have this step */
    int64_t *first;  /* (T + 1) the first packed row of a step */
    int64_t *at;     /* (total) packed row -> row n T + t of an array (N, T, ...) */

    const real *x; /* (total, C), packed */
    matrix input_weight;
    const real *bias;
    real *z, *y;      /* (total, G H) packed, or NULL in the forward pass; (N, T, W) */
    real *h, *c;      /* (N, W), (N, H) in order: states, or their gradients */
    const real *dy;   /* (N, T, W) */
    const real *keep; /* (N, W) in order: what h is multiplied with before the product */
    real *rooms;      /* of all parts */
    int64_t room;     /* elements of one of them */
    void (*cell)(const recurrence *, const step *);
};

/* Begins a call: x is input `x`, W and G H are known, `steps` is the input with lengths or a mask.
 * An error code if one of them is wrong. */
int NAME(begin)(recurrence *r, int x, int steps, int reverse);

/* The matrix as it is multiplied with fastest: packed, unless few rows make that a loss. */
matrix NAME(prepare)(recurrence *r, const real *b, int64_t k, int64_t n, int64_t b_row,
                     int transposed);

/* The same for a matrix that each step is multiplied with, and c (n) [+]= x (k) b + [bias] if that
 * gives it a turn. A call may have two of them. */
matrix NAME(prepare_steps)(recurrence *r, const real *b, int64_t k, int64_t n, int64_t b_row);
void NAME(multiply_strips)(const matrix *b, const real *x, real *c, const real *bias,
                           int accumulate);

/* c (m, n) [+]= a (m, k) b + [bias]; the rows of a and c are a_row and c_row apart */
void NAME(multiply)(const recurrence *r, const matrix *b, int64_t m, const real *a, int64_t a_row,
                    real *c, int64_t c_row, const real *bias, int accumulate);

/* c (m, n) = a^T b, of all packed rows: a (total, m), b (total, n) in rows that are b_row apart */
void NAME(sum_products)(recurrence *r, const real *a, int64_t m, const real *b, int64_t n,
                        int64_t b_row, real *c, int64_t c_row);

/* States (N, width) of all sequences, in order; zeros if there are none. And the way back. */
real *NAME(take_states)(recurrence *r, const real *states, int64_t width);
void NAME(give_states)(const recurrence *r, const real *ordered, int64_t width, real *states);

/* Rows for each part of the sequences: `room` elements for each of its sequences. */
int NAME(make_room)(recurrence *r, int64_t room);

/* All steps, from the first or from the last. The cell computes the states after a step from those
 * before it, or the gradients before it from those after it. */
void NAME(run_forward)(recurrence *r);
void NAME(run_backward)(recurrence *r);

/* dx (N, T, C) = dz (total, G H) weight^T, 0 where there is no step. 0: too little scratch. */
int NAME(input_gradient)(recurrence *r, const real *weight, real *dx);

/* sums (n) = the sums that the parts have left in `of_parts` (parts, n) */
void NAME(add_parts)(const recurrence *r, const real *of_parts, int64_t n, real *sums);

static inline int64_t parts_of(const recurrence *r) {
    return (r->samples + r->part_rows - 1) / r->part_rows;
}
static inline int out_of_scratch(const pf_call *call) {
    return call->host->refuse(call, "the op class has asked for too little scratch memory");
}

/* h, or what is left of it, for the product of m rows; `to` holds it if something is taken away. */
static inline const real *kept(const recurrence *r, const step *s, real *to) {
    const int64_t n = s->m * r->width, at = s->place * r->width;
    if (!r->keep) return r->h + at;
    SEQ_INDEPENDENT
    for (int64_t i = 0; i < n; i++) to[i] = r->h[at + i] * r->keep[at + i];
    return to;
}
/* The gradient of h from that of what is left of it, in place. */
static inline void keep_gradient(const recurrence *r, const step *s, real *dh) {
    const int64_t n = s->m * r->width, at = s->place * r->width;
    if (!r->keep) return;
    SEQ_INDEPENDENT
    for (int64_t i = 0; i < n; i++) dh[i] *= r->keep[at + i];
}
/* The sigmoid of the gates of m rows, in place, but for the candidates from column `at` on. If
 * these fill few vectors, or parts of them, all are computed in one go, and those are of no use. */
static inline void sigmoid_gates(const recurrence *r, int64_t m, real *z, int64_t at) {
    const int64_t after = at + r->units;
    if (r->units < 2 * LANES || r->units % LANES) {
        r->vector->sigmoid(m * r->gates, z, z);
        return;
    }
    for (int64_t i = 0; i < m; i++, z += r->gates) {
        r->vector->sigmoid(at, z, z);
        if (after < r->gates) r->vector->sigmoid(r->gates - after, z + after, z + after);
    }
}
/* Asks for a row that a step reads, or writes, before its turn comes. Such rows were kept some
 * steps ago or are new, and those of a gate are too short for the processor to see them coming. */
static inline void ask_for(const real *x, int64_t n) {
    for (int64_t j = 0; j < n; j += LINE) __builtin_prefetch(x + j);
}
static inline void ask_to_write(real *x, int64_t n) {
    for (int64_t j = 0; j < n; j += LINE) __builtin_prefetch(x + j, 1);
}
/* Keeps m rows for the backward pass, if somebody wants them. */
static inline void save(real *all, const step *s, const real *rows, int64_t width) {
    if (all) memcpy(all + s->row * width, rows, (size_t)(s->m * width) * sizeof(real));
}
/* Packed rows that no step has: zeros. */
static inline void clear_rest(const recurrence *r, real *all, int64_t width) {
    const int64_t rest = (r->samples * r->steps - r->total) * width;
    if (all && rest > 0) memset(all + r->total * width, 0, (size_t)rest * sizeof(real));
}

#endif
