/* Scaled dot-product attention, and its gradient.
 *
 *     s_ij = scale q_i k_j + bias_ij - slope |p_i - j|,  p_i = start + i,  for each sample and head
 *     y_i  = sum_j P_ij v_j,   P_ij = exp(s_ij - lse_i),   lse_i = log sum_j exp(s_ij)
 *
 * with s_ij = -inf where query i does not see key j, and y_i = 0 where it sees none. Scores exist a
 * tile at a time, those of a block of queries and a block of keys, so that memory grows with the
 * number of tokens and not with its square: T. Dao, "FlashAttention-2", arXiv:2307.08691,
 * section 3.
 *
 * All products are those of the host. In a tile the weight of a pair that does not see each other
 * is 0, and a product of 0 and NaN is NaN. So where a result is not finite, it is computed once
 * more, with care: numbers of the operands that are not finite are zeros in the products, and are
 * added for the pairs that do see each other. The order of all sums is the same, and so are the
 * bits of what such a number does not reach. */
#ifndef PYFRAME_SEQ_ATTENTION_H
#define PYFRAME_SEQ_ATTENTION_H

#include <math.h>
#include <string.h>

#include "vectors.h"

#if BITS == 32
typedef int32_t whole;
#else
typedef int64_t whole;
#endif
typedef whole whole_vec __attribute__((vector_size(PF_VECTOR_BYTES)));
enum {
    ALIGNMENT = 64,   /* of pieces of scratch, in bytes */
    PACKING_PAYS = 8, /* from so many rows of queries on */
    TERMS_PER_NANOSECOND = 32
};

/* The inputs: those of attention, and what only its gradient reads. */
enum { Q, K, V, BIAS, LENGTHS, START, MASK, SLOPES, Y, LSE, DY };

typedef struct {
    int64_t heads, kv_heads, causal, window; /* window 0: none */
    double scale;
    int64_t depth; /* of a head of q and k */
    int64_t query_block, key_block;
} attention_attributes;

/* q, k, v, y or a gradient of theirs: head h of token t of sample n is `size` numbers at
 * data + (n tokens + t) row + h size. */
typedef struct {
    real *data;
    int64_t tokens, row, size;
} heads_of;

static inline real *head_at(const heads_of *x, int64_t n, int64_t t, int64_t h) {
    return x->data + (n * x->tokens + t) * x->row + h * x->size;
}

typedef struct {
    const attention_attributes *attributes;
    const pf_gemm_functions *gemm;
    const pf_vector_functions *vector;
    int64_t samples, queries, keys, group; /* group: query heads that share a key head */
    heads_of q, k, v;
    const real *bias, *slopes;
    const int64_t *lengths, *start, *mask;
    int64_t bias_sample, bias_head, bias_row; /* strides; 0 where the bias is broadcast */
    char *scratch;                            /* a piece for each part of the work */
    int64_t piece;
    real *clean; /* room for an operand without what is not finite; NULL: no care is taken */
} attention;

static inline int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t whole_vectors(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

/* Scratch memory, handed out piece by piece; without a base it is only counted. */
typedef struct {
    char *base;
    int64_t used;
} arena;

static inline real *take(arena *from, int64_t count) {
    real *taken = from->base ? (real *)(from->base + from->used) : NULL;
    from->used += (count * (int64_t)sizeof(real) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return taken;
}

/* ---- which keys a query sees ---- */

typedef struct {
    int64_t from, to;
} span;

static inline int64_t place_of(const attention *a, int64_t n, int64_t i) {
    return i + (a->start ? a->start[n] : 0);
}

/* Of sample n, query i, without regard to mask and bias. Neither end moves backwards as i grows. */
static inline span seen_by(const attention *a, int64_t n, int64_t i) {
    const int64_t at = place_of(a, n, i), window = a->attributes->window;
    span s = {0, a->lengths ? a->lengths[n] : a->keys};
    if (a->attributes->causal) s.to = min_of(s.to, at + 1);
    if (window) s.from = max_of(0, at - window + 1);
    if (window && !a->attributes->causal) s.to = min_of(s.to, at + window);
    return s;
}

/* ---- blocks of keys ---- */

typedef struct {
    int64_t first, count;
    const real *k, *v; /* rows of one head */
    int64_t k_row, v_row;
    const real *packed_k, *packed_v; /* transposed, as `gemm` takes them; NULL: not packed */
} key_block;

/* What the blocks of one key head are kept in. */
typedef struct {
    real *packed_k, *packed_v;
} block_room;

/* Takes that room from an arena; `with_packed_v`: the gradient needs v packed as well. */
block_room NAME(room_for_blocks)(const attention *a, arena *at, int with_packed_v);

/* The keys of head g from `first` on, at most `size`. */
key_block NAME(block_of)(const attention *a, const block_room *room, int64_t n, int64_t g,
                         int64_t first, int64_t size);

/* ---- products ---- */

/* c (rows, count) = scale x (rows, size) keys (count, size)^T */
void NAME(times_rows)(const attention *a, const real *x, int64_t x_row, int64_t rows,
                      const real *keys, int64_t key_row, const real *packed, int64_t count,
                      int64_t size, double scale, real *c, int64_t c_row);

/* ---- tiles ---- */

typedef struct {
    int64_t n, h, i, rows; /* rows: of queries */
    int64_t first;         /* key */
    int64_t seen;          /* keys of the block up to the last one that a query sees; 0: none */
    int64_t stride;        /* of the tile's rows, whole vectors */
} tile;

/* Of the block of queries of head h from i on. */
tile NAME(tile_of)(const attention *a, const key_block *b, int64_t n, int64_t h, int64_t i);

/* s (rows, stride): the scores of a tile, -inf where a pair does not see each other */
void NAME(scores)(const attention *a, const key_block *b, const tile *t, real *s);

/* A product of a tile, or of the turned tile, with one of its sides. */
typedef struct {
    int64_t m, n, k;
    int turned; /* rows of the product are keys: m keys, k queries */
    const real *a;
    const real *b;
    int64_t b_row;
    real *c;
    int64_t c_row;
    double scale; /* 0: none */
} product;

/* c += scale a b, where a pair that does not see each other adds nothing. */
void NAME(add_product)(const attention *a, const tile *t, const product *p);

/* ---- rows of whole vectors ---- */

static inline vec splat(real x) { return x - (vec){0}; }

/* x less y, which is at least as large but for rounding. */
static inline void subtract(int64_t n, real *x, real y) {
    for (int64_t j = 0; j < n; j += LANES) {
        const vec less = load(x + j) - y;
        store(x + j, (vec)((whole_vec)less & ~(less > 0)));
    }
}

/* The sum of a vector's lanes, and the largest of them. Halves meet, which takes no loop if their
 * width is known. */
#define FOLD_LANES(x, meet)                                                                  \
    __attribute__((aligned(PF_VECTOR_BYTES))) real lane[LANES];                              \
    store(lane, x);                                                                          \
    SEQ_UNROLL for (int width = LANES / 2; width > 0; width /= 2) for (int l = 0; l < width; \
                                                                       l++) {                \
        const real one = lane[l], other = lane[l + width];                                   \
        lane[l] = meet;                                                                      \
    }                                                                                        \
    return lane[0];
static inline real sum_of_lanes(vec x) { FOLD_LANES(x, one + other) }
static inline real top_of_lanes(vec x) { FOLD_LANES(x, other > one ? other : one) }

/* What is subtracted in front of an exponential: infinity less infinity is not a number. */
static inline real shift_by(real top) { return top == -INFINITY ? 0 : top; }

/* ---- a call ---- */

static inline heads_of heads_in(const pf_operand *x, real *data, int64_t size) {
    return (heads_of){data, x->dims[1], x->dims[2], size};
}

/* q, k and v, or their gradients; k and v may lie behind q in the same rows. */
void NAME(open_heads)(const attention_attributes *of, const pf_operand *const *x, int side_by_side,
                      heads_of *q, heads_of *k, heads_of *v);
attention NAME(open_attention)(const pf_call *call);

/* An error code if a length, or the place of a first query, is none. */
int NAME(check_input)(const pf_call *call, const attention *a);

/* Zeros in some heads of sample n. */
void NAME(clear_heads)(const heads_of *x, int64_t n, int64_t first, int64_t heads);

/* Whether one of the numbers of a head is not finite. */
int NAME(has_infinite)(const heads_of *made, int64_t n, int64_t h);

/* Takes room for `clean`; NULL, with or without a base, if all pairs see each other. */
real *NAME(room_for_care)(const attention *a, arena *at);

/* Calls `body` for all parts, each with a piece of scratch. */
int NAME(run_parts)(const pf_call *call, attention *a, int64_t parts, int64_t piece, int products,
                    pf_body body, void *context);

#endif
