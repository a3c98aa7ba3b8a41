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
 * All products are those of the host. A product of 0 and NaN is NaN, so a tile must not contain
 * pairs that do not see each other if a number of the operands is not finite: then blocks have one
 * query and one key. Of keys that the mask hides a copy is used that has zeros in their place. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "pyframe/lanes.h"
#include "pyframe/real.h"

#if BITS == 32
#define OF_REAL(name) name##_f32
typedef int32_t whole;
#else
#define OF_REAL(name) name##_f64
typedef int64_t whole;
#endif
typedef OF_REAL(pf_vec) vec;
typedef whole whole_vec __attribute__((vector_size(PF_VECTOR_BYTES)));
enum {
    LANES = PF_VECTOR_BYTES / (int)sizeof(real),
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
    const real *bias, *mask, *slopes;
    const int64_t *lengths, *start;
    int64_t bias_sample, bias_head, bias_row; /* strides; 0 where the bias is broadcast */
    char *scratch;                            /* a piece for each part of the work */
    int64_t piece;
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

/* Of sample n, query i, without regard to the mask. Neither end moves backwards as i grows. */
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
    const real *k, *v; /* rows of one head, those that the mask hides as zeros */
    int64_t k_row, v_row;
    const real *packed_k, *packed_v; /* transposed, as `gemm` takes them; NULL: not packed */
} key_block;

/* A product of a tile with one of its sides. */
typedef struct {
    int64_t m, n, k;
    const real *a;
    int64_t a_row, a_step;
    const real *b;
    int64_t b_row;
    real *c;
    int64_t c_row;
    double scale;
} product;

/* c += scale a b */
static inline void add_product(const attention *a, const product *p) {
    const pf_gemm g = {.size = sizeof g,
                       .m = p->m,
                       .n = p->n,
                       .k = p->k,
                       .a = p->a,
                       .a_row = p->a_row,
                       .a_step = p->a_step,
                       .b = p->b,
                       .b_row = p->b_row,
                       .c = p->c,
                       .c_row = p->c_row,
                       .accumulate = 1,
                       .scale = p->scale};
    a->gemm->run(&g);
}

/* b (size, count) = rows (count, size)^T as `gemm` takes it */
static pf_gemm turned_rows(const real *rows, int64_t row, int64_t count, int64_t size) {
    return (pf_gemm){
        .size = sizeof(pf_gemm), .n = count, .k = size, .b = rows, .b_row = row, .b_transposed = 1};
}

static int64_t packed_size(const attention *a, int64_t count, int64_t size) {
    const pf_gemm g = turned_rows(NULL, size, count, size);
    return a->gemm->packed_size(&g);
}

static const real *pack(const attention *a, const real *rows, int64_t row, int64_t count,
                        int64_t size, real *to) {
    const pf_gemm g = turned_rows(rows, row, count, size);
    a->gemm->pack(&g, to);
    return to;
}

/* c (rows, count) = scale x (rows, size) keys (count, size)^T */
static void times_rows(const attention *a, const real *x, int64_t x_row, int64_t rows,
                       const real *keys, int64_t key_row, const real *packed, int64_t count,
                       int64_t size, double scale, real *c, int64_t c_row) {
    pf_gemm g = turned_rows(keys, key_row, count, size);
    if (packed) g.b = packed, g.b_packed = 1;
    g.m = rows, g.a = x, g.a_row = x_row, g.a_step = 1;
    g.c = c, g.c_row = c_row, g.scale = scale;
    a->gemm->run(&g);
}

/* The rows of a block with zeros in place of those that the mask hides. */
static const real *without_hidden(const attention *a, const heads_of *x, int64_t n, int64_t g,
                                  int64_t first, int64_t count, real *to) {
    for (int64_t j = 0; j < count; j++) {
        real *row = to + j * x->size;
        if (a->mask[n * a->keys + first + j] != 0)
            memcpy(row, head_at(x, n, first + j, g), (size_t)x->size * sizeof(real));
        else
            memset(row, 0, (size_t)x->size * sizeof(real));
    }
    return to;
}

/* What the blocks of one key head are kept in. */
typedef struct {
    real *packed_k, *packed_v, *clean_k, *clean_v;
} block_room;

static block_room room_for_blocks(const attention *a, arena *at, int with_packed_v) {
    const int64_t count = a->attributes->key_block, depth = a->k.size, width = a->v.size;
    block_room room = {.packed_k = take(at, packed_size(a, count, depth))};
    if (with_packed_v) room.packed_v = take(at, packed_size(a, count, width));
    if (a->mask) room.clean_k = take(at, depth * count), room.clean_v = take(at, width * count);
    return room;
}

static key_block block_of(const attention *a, const block_room *room, int64_t n, int64_t g,
                          int64_t first, int64_t size) {
    key_block b = {.first = first, .count = min_of(a->keys - first, size)};
    b.k = head_at(&a->k, n, first, g), b.k_row = a->k.row;
    b.v = head_at(&a->v, n, first, g), b.v_row = a->v.row;
    if (a->mask) {
        b.k = without_hidden(a, &a->k, n, g, first, b.count, room->clean_k), b.k_row = a->k.size;
        b.v = without_hidden(a, &a->v, n, g, first, b.count, room->clean_v), b.v_row = a->v.size;
    }
    if (a->queries * a->group < PACKING_PAYS) return b;
    b.packed_k = pack(a, b.k, b.k_row, b.count, a->k.size, room->packed_k);
    if (room->packed_v) b.packed_v = pack(a, b.v, b.v_row, b.count, a->v.size, room->packed_v);
    return b;
}

/* ---- tiles ---- */

typedef struct {
    int64_t n, h, i, rows; /* rows: of queries */
    int64_t seen;          /* keys of the block up to the last one that a query sees; 0: none */
    int64_t stride;        /* of the tile's rows, whole vectors */
} tile;

static tile tile_of(const attention *a, const key_block *b, int64_t n, int64_t h, int64_t i,
                    int64_t size) {
    tile t = {.n = n, .h = h, .i = i, .rows = min_of(a->queries - i, size)};
    const int64_t from = seen_by(a, n, i).from, to = seen_by(a, n, i + t.rows - 1).to;
    t.seen = from >= b->first + b->count ? 0 : max_of(0, min_of(b->count, to - b->first));
    if (t.seen && a->mask && b->count == 1 && a->mask[n * a->keys + b->first] == 0) t.seen = 0;
    t.stride = whole_vectors(b->count);
    return t;
}

/* s (rows, stride): the scores of a tile */
static void scores(const attention *a, const key_block *b, const tile *t, real *s) {
    times_rows(a, head_at(&a->q, t->n, t->i, t->h), a->q.row, t->rows, b->k, b->k_row, b->packed_k,
               b->count, a->k.size, a->attributes->scale, s, t->stride);
    const real *bias = a->bias ? a->bias + t->n * a->bias_sample + t->h * a->bias_head : NULL;
    const real *mask = a->mask ? a->mask + t->n * a->keys + b->first : NULL;
    for (int64_t r = 0; r < t->rows; r++, s += t->stride) {
        const int64_t i = t->i + r;
        if (bias) {
            const real *row = bias + i * a->bias_row + b->first;
            for (int64_t j = 0; j < b->count; j++) s[j] += row[j];
        }
        if (a->slopes) {
            const real slope = a->slopes[t->h], at = (real)(place_of(a, t->n, i) - b->first);
            for (int64_t j = 0; j < b->count; j++) {
                const real apart = at - (real)j;
                s[j] -= slope * (apart < 0 ? -apart : apart);
            }
        }
        if (mask)
            for (int64_t j = 0; j < b->count; j++) s[j] = mask[j] != 0 ? s[j] : -INFINITY;
        const span seen = seen_by(a, t->n, i);
        const int64_t from = min_of(seen.from - b->first, b->count);
        for (int64_t j = 0; j < from; j++) s[j] = -INFINITY;
        for (int64_t j = max_of(0, min_of(seen.to - b->first, b->count)); j < t->stride; j++)
            s[j] = -INFINITY;
    }
}

/* Whether a tile of one pair has nothing to add, although the key is in reach: a bias of -inf. */
static int is_hidden(const tile *t, const key_block *b, const real *s) {
    return t->rows == 1 && b->count == 1 && s[0] == -INFINITY;
}

/* ---- rows of whole vectors ---- */

static inline vec load(const real *x) { return OF_REAL(pf_load)(x); }
static inline void store(real *x, vec y) { OF_REAL(pf_store)(x, y); }
static inline vec splat(real x) { return x - (vec){0}; }

/* The largest of them that is not NaN; `least` if all are less. */
static real largest(int64_t n, const real *x, real least) {
    vec top = splat(least);
    for (int64_t j = 0; j < n; j += LANES) {
        const vec y = load(x + j);
        const whole_vec is_more = y > top;
        top = (vec)(((whole_vec)y & is_more) | ((whole_vec)top & ~is_more));
    }
    for (int l = 0; l < LANES; l++) least = top[l] > least ? top[l] : least;
    return least;
}

static real total(int64_t n, const real *x) {
    vec sums = {0};
    for (int64_t j = 0; j < n; j += LANES) sums += load(x + j);
    real sum = 0;
    for (int l = 0; l < LANES; l++) sum += sums[l];
    return sum;
}

/* x less y, which is at least as large but for rounding. */
static void subtract(int64_t n, real *x, real y) {
    for (int64_t j = 0; j < n; j += LANES) {
        const vec less = load(x + j) - y;
        store(x + j, (vec)((whole_vec)less & ~(less > 0)));
    }
}

/* What is subtracted in front of an exponential: infinity less infinity is not a number. */
static inline real shift_by(real top) { return top == -INFINITY ? 0 : top; }

/* ---- the whole of it ---- */

static heads_of heads_in(const pf_operand *x, real *data, int64_t size) {
    return (heads_of){data, x->dims[1], x->dims[2], size};
}

/* q, k and v, or their gradients; k and v may lie behind q in the same rows. */
static void open_heads(const attention_attributes *of, const pf_operand *const *x, int side_by_side,
                       heads_of *q, heads_of *k, heads_of *v) {
    *q = heads_in(x[Q], x[Q]->data, of->depth);
    if (!side_by_side) {
        *k = heads_in(x[K], x[K]->data, of->depth);
        *v = heads_in(x[V], x[V]->data, x[V]->dims[2] / of->kv_heads);
        return;
    }
    *k = *v = *q;
    if (!q->data) return;
    k->data += of->heads * of->depth;
    v->data = k->data + of->kv_heads * of->depth;
}

static attention open_attention(const pf_call *call) {
    const attention_attributes *of = call->attributes;
    attention a = {.attributes = of,
                   .gemm = call->host->gemm(BITS),
                   .vector = call->host->vector(BITS),
                   .samples = call->inputs[Q]->dims[0],
                   .group = of->heads / of->kv_heads,
                   .bias = input(call, BIAS),
                   .mask = input(call, MASK),
                   .slopes = input(call, SLOPES),
                   .lengths = call->inputs[LENGTHS]->data,
                   .start = call->inputs[START]->data,
                   .scratch = call->scratch};
    open_heads(of, call->inputs, !call->inputs[K]->data, &a.q, &a.k, &a.v);
    a.queries = a.q.tokens, a.keys = a.k.tokens;
    if (a.bias) {
        const int64_t *dims = call->inputs[BIAS]->dims;
        a.bias_row = dims[2] > 1 ? a.keys : 0;
        a.bias_head = dims[1] > 1 ? dims[2] * a.keys : 0;
        a.bias_sample = dims[0] > 1 ? dims[1] * dims[2] * a.keys : 0;
    }
    return a;
}

/* Lengths, and places of first queries, lie in [0, keys]. */
static int check_numbers(const pf_call *call, const attention *a, int which, const char *what) {
    const int64_t *numbers = call->inputs[which]->data;
    for (int64_t n = 0; numbers && n < a->samples; n++)
        if (numbers[n] < 0 || numbers[n] > a->keys) {
            const int code = call->host->fail(call, PF_ERROR_LABEL, which, n, numbers[n]);
            snprintf(call->error->message, sizeof call->error->message,
                     "the %s of sample %" PRId64 " is %" PRId64 ", outside of [0, %" PRId64
                     "], the number of keys",
                     what, n, numbers[n], a->keys);
            return code;
        }
    return PF_OK;
}

static int check_input(const pf_call *call, const attention *a) {
    const int status = check_numbers(call, a, LENGTHS, "length");
    return status != PF_OK ? status : check_numbers(call, a, START, "start");
}

static void clear_heads(const heads_of *x, int64_t n, int64_t first, int64_t heads) {
    for (int64_t t = 0; x->data && t < x->tokens; t++)
        memset(head_at(x, n, t, first), 0, (size_t)(heads * x->size) * sizeof(real));
}

static int is_finite(const heads_of *x, int64_t n, int64_t h, int64_t heads) {
    vec sums = {0}, others = {0};
    real rest = 0;
    const int64_t size = heads * x->size;
    for (int64_t t = 0; t < x->tokens; t++) {
        const real *row = head_at(x, n, t, h);
        int64_t j = 0;
        for (; j + 2 * LANES <= size; j += 2 * LANES) {
            sums += 0 * load(row + j);
            others += 0 * load(row + j + LANES);
        }
        for (; j < size; j++) rest += 0 * row[j];
    }
    sums += others;
    for (int l = 0; l < LANES; l++) rest += sums[l];
    return rest == 0;
}

/* Whether blocks must have one query and one key; `more`: the gradient of y, if it is in use. */
static int needs_care(const attention *a, const heads_of *more, int64_t n, int64_t g) {
    const int all_see_all = !a->attributes->causal && !a->attributes->window && !a->bias;
    return !all_see_all && !(is_finite(&a->k, n, g, 1) && is_finite(&a->v, n, g, 1) &&
                             (!more || (is_finite(&a->q, n, g * a->group, a->group) &&
                                        is_finite(more, n, g * a->group, a->group))));
}

static int run_parts(const pf_call *call, attention *a, int64_t parts, int64_t piece, int products,
                     pf_body body, void *context) {
    a->piece = piece;
    if ((uint64_t)(parts * piece) > call->scratch_size)
        return call->host->refuse(call, "the op class has asked for too little scratch memory");
    const int64_t terms = a->samples * a->attributes->heads * a->queries * a->keys *
                          (a->k.size + a->v.size) * products / 2;
    call->host->parallel_for(parts, terms / TERMS_PER_NANOSECOND, body, context);
    return PF_OK;
}

/* ---- forward ---- */

typedef struct {
    attention a;
    heads_of y;
    real *lse; /* (N, H, Tq), or NULL */
} forward;

/* Running over the blocks of keys, y is the sum of P v, with P = exp(s - top), and `sum` that of P.
 */
static void add_tile(const forward *f, const key_block *b, const tile *t, real *s, real *top,
                     real *sum, real *factor) {
    const attention *a = &f->a;
    scores(a, b, t, s);
    if (is_hidden(t, b, s)) return;
    for (int64_t r = 0; r < t->rows; r++) {
        const real now = largest(t->stride, s + r * t->stride, top[r]);
        factor[r] = top[r] - shift_by(now);
        top[r] = now;
        subtract(t->stride, s + r * t->stride, shift_by(now));
    }
    a->vector->exp(t->rows * t->stride, s, s);
    a->vector->exp(t->rows, factor, factor);
    for (int64_t r = 0; r < t->rows; r++) {
        if (f->y.data && factor[r] != 1 && sum[r] != 0) {
            real *y = head_at(&f->y, t->n, t->i + r, t->h);
            for (int64_t d = 0; d < f->y.size; d++) y[d] *= factor[r];
        }
        sum[r] = sum[r] * factor[r] + total(t->stride, s + r * t->stride);
    }
    if (!f->y.data) return;
    add_product(a, &(product){.m = t->rows,
                              .n = a->v.size,
                              .k = t->seen,
                              .a = s,
                              .a_row = t->stride,
                              .a_step = 1,
                              .b = b->v,
                              .b_row = b->v_row,
                              .c = head_at(&f->y, t->n, t->i, t->h),
                              .c_row = f->y.row});
}

typedef struct {
    block_room blocks;
    real *s, *top, *sum, *factor;
} forward_room;

static forward_room forward_room_in(const attention *a, arena *at) {
    const attention_attributes *of = a->attributes;
    forward_room room = {.blocks = room_for_blocks(a, at, 0)};
    room.s = take(at, of->query_block * whole_vectors(of->key_block));
    room.top = take(at, a->group * a->queries);
    room.sum = take(at, a->group * a->queries);
    room.factor = take(at, of->query_block);
    return room;
}

/* One sample and one head of keys, with all heads of queries that share it. */
static void forward_part(void *context, int64_t part) {
    const forward *f = context;
    const attention *a = &f->a;
    const attention_attributes *of = a->attributes;
    const int64_t n = part / of->kv_heads, g = part % of->kv_heads, first_head = g * a->group;
    const forward_room room = forward_room_in(a, &(arena){a->scratch + part * a->piece, 0});
    real *top = room.top, *sum = room.sum;
    for (int64_t x = 0; x < a->group * a->queries; x++) top[x] = -INFINITY, sum[x] = 0;
    clear_heads(&f->y, n, first_head, a->group);

    const int care = needs_care(a, NULL, n, g);
    const int64_t query_block = care ? 1 : of->query_block,
                  key_block_size = care ? 1 : of->key_block;
    const int64_t from = seen_by(a, n, 0).from / key_block_size * key_block_size;
    const int64_t to = seen_by(a, n, a->queries - 1).to;
    for (int64_t j = from; j < to; j += key_block_size) {
        const key_block b = block_of(a, &room.blocks, n, g, j, key_block_size);
        for (int64_t h = 0; h < a->group; h++)
            for (int64_t i = 0; i < a->queries; i += query_block) {
                const tile t = tile_of(a, &b, n, first_head + h, i, query_block);
                const int64_t row = h * a->queries + i;
                if (t.seen) add_tile(f, &b, &t, room.s, top + row, sum + row, room.factor);
            }
    }

    for (int64_t h = 0; f->y.data && h < a->group; h++)
        for (int64_t i = 0; i < a->queries; i++) {
            real *y = head_at(&f->y, n, i, first_head + h);
            const real sum_i = sum[h * a->queries + i], share = sum_i == 0 ? 0 : 1 / sum_i;
            for (int64_t d = 0; d < f->y.size; d++) y[d] *= share;
        }
    if (!f->lse) return;
    real *lse = f->lse + (n * of->heads + first_head) * a->queries;
    a->vector->log(a->group * a->queries, sum, lse);
    for (int64_t x = 0; x < a->group * a->queries; x++) lse[x] += shift_by(top[x]);
}

/* q (N, Tq, H D), k (N, Tk, G D), v (N, Tk, G Dv), or all three side by side in q; [bias (N or 1,
 * H or 1, Tq or 1, Tk)], [lengths (N,)], [start (N,)], [mask (N, Tk)], [slopes (H,)]
 *     y (N, Tq, H Dv), lse (N, H, Tq) */
int NAME(attention)(const pf_call *call) {
    forward f = {.a = open_attention(call), .lse = output(call, 1)};
    const int status = check_input(call, &f.a);
    if (status != PF_OK) return status;
    attention *a = &f.a;
    f.y = heads_in(call->outputs[0], output(call, 0), a->v.size);
    if (a->queries == 0) return PF_OK;
    arena counted = {NULL, 0};
    forward_room_in(a, &counted);
    return run_parts(call, a, a->samples * a->attributes->kv_heads, counted.used, 2, forward_part,
                     &f);
}

/* ---- backward ---- */

typedef struct {
    attention a;
    heads_of y, dy, dq, dk, dv;
    const real *lse;
    real *dbias;
    int64_t sample_parts, head_parts; /* samples, and heads, that share no row of dbias */
} backward;

/* With P as it was: dv_j += P_ij dy_i, dP_ij = dy_i v_j, ds_ij = P_ij (dP_ij - dy_i y_i),
 * dq_i += scale ds_ij k_j, dk_j += scale ds_ij q_i. */
static void add_tile_gradient(const backward *w, const key_block *b, const tile *t, int64_t g,
                              const real *delta, real *s, real *ds) {
    const attention *a = &w->a;
    const double scale = a->attributes->scale;
    const int64_t size = t->rows * t->stride;
    const real *lse = w->lse + (t->n * a->attributes->heads + t->h) * a->queries + t->i;
    const real *dy = head_at(&w->dy, t->n, t->i, t->h), *q = head_at(&a->q, t->n, t->i, t->h);
    scores(a, b, t, s);
    if (is_hidden(t, b, s)) return;
    for (int64_t r = 0; r < t->rows; r++) subtract(t->stride, s + r * t->stride, shift_by(lse[r]));
    a->vector->exp(size, s, s);
    times_rows(a, dy, w->dy.row, t->rows, b->v, b->v_row, b->packed_v, b->count, a->v.size, 0, ds,
               t->stride);
    for (int64_t r = 0; r < t->rows; r++)
        for (int64_t j = 0; j < t->stride; j++) {
            const int64_t x = r * t->stride + j;
            const real p = s[x], slope = p * (ds[x] - delta[r]);
            ds[x] = p == 0 ? 0 : slope;
        }
    if (w->dbias) {
        real *row = w->dbias + t->n * a->bias_sample + t->h * a->bias_head + b->first;
        for (int64_t r = 0; r < t->rows; r++)
            for (int64_t j = 0; j < t->seen; j++)
                row[(t->i + r) * a->bias_row + j] += ds[r * t->stride + j];
    }
    if (w->dv.data)
        add_product(a, &(product){.m = t->seen,
                                  .n = a->v.size,
                                  .k = t->rows,
                                  .a = s,
                                  .a_row = 1,
                                  .a_step = t->stride,
                                  .b = dy,
                                  .b_row = w->dy.row,
                                  .c = head_at(&w->dv, t->n, b->first, g),
                                  .c_row = w->dv.row});
    if (w->dk.data)
        add_product(a, &(product){.m = t->seen,
                                  .n = a->k.size,
                                  .k = t->rows,
                                  .a = ds,
                                  .a_row = 1,
                                  .a_step = t->stride,
                                  .b = q,
                                  .b_row = a->q.row,
                                  .c = head_at(&w->dk, t->n, b->first, g),
                                  .c_row = w->dk.row,
                                  .scale = scale});
    if (w->dq.data)
        add_product(a, &(product){.m = t->rows,
                                  .n = a->k.size,
                                  .k = t->seen,
                                  .a = ds,
                                  .a_row = t->stride,
                                  .a_step = 1,
                                  .b = b->k,
                                  .b_row = b->k_row,
                                  .c = head_at(&w->dq, t->n, t->i, t->h),
                                  .c_row = w->dq.row,
                                  .scale = scale});
}

typedef struct {
    block_room blocks;
    real *s, *ds, *delta;
} backward_room;

static backward_room backward_room_in(const attention *a, arena *at) {
    const attention_attributes *of = a->attributes;
    const int64_t size = of->query_block * whole_vectors(of->key_block);
    backward_room room = {.blocks = room_for_blocks(a, at, 1)};
    room.s = take(at, size);
    room.ds = take(at, size);
    room.delta = take(at, a->group * a->queries);
    return room;
}

/* One sample and one head of keys. */
static void pair_gradient(const backward *w, char *at, int64_t n, int64_t g) {
    const attention *a = &w->a;
    const attention_attributes *of = a->attributes;
    const int64_t first_head = g * a->group;
    const backward_room room = backward_room_in(a, &(arena){at, 0});
    real *delta = room.delta;
    for (int64_t h = 0; h < a->group; h++)
        for (int64_t i = 0; i < a->queries; i++)
            delta[h * a->queries + i] =
                (real)a->vector->dot(w->y.size, head_at(&w->y, n, i, first_head + h),
                                     head_at(&w->dy, n, i, first_head + h));
    clear_heads(&w->dq, n, first_head, a->group);
    clear_heads(&w->dk, n, g, 1);
    clear_heads(&w->dv, n, g, 1);

    const int care = needs_care(a, &w->dy, n, g);
    const int64_t query_block = care ? 1 : of->query_block,
                  key_block_size = care ? 1 : of->key_block;
    const int64_t from = seen_by(a, n, 0).from / key_block_size * key_block_size;
    const int64_t to = seen_by(a, n, a->queries - 1).to;
    for (int64_t j = from; j < to; j += key_block_size) {
        const key_block b = block_of(a, &room.blocks, n, g, j, key_block_size);
        for (int64_t h = 0; h < a->group; h++)
            for (int64_t i = 0; i < a->queries; i += query_block) {
                const tile t = tile_of(a, &b, n, first_head + h, i, query_block);
                if (t.seen)
                    add_tile_gradient(w, &b, &t, g, delta + h * a->queries + i, room.s, room.ds);
            }
        for (int64_t x = 0; a->mask && x < b.count; x++)
            if (a->mask[n * a->keys + j + x] == 0) { /* 0 times what may not be finite */
                if (w->dk.data)
                    memset(head_at(&w->dk, n, j + x, g), 0, (size_t)a->k.size * sizeof(real));
                if (w->dv.data)
                    memset(head_at(&w->dv, n, j + x, g), 0, (size_t)a->v.size * sizeof(real));
            }
    }
}

static void backward_part(void *context, int64_t part) {
    const backward *w = context;
    const attention *a = &w->a;
    const int64_t samples = a->samples / w->sample_parts;
    const int64_t heads = a->attributes->kv_heads / w->head_parts;
    const int64_t n = part / w->head_parts * samples, g = part % w->head_parts * heads;
    for (int64_t x = 0; x < samples * heads; x++)
        pair_gradient(w, a->scratch + part * a->piece, n + x / heads, g + x % heads);
}

/* The inputs of attention, y, lse and dy (N, Tq, H Dv)
 *     dq, dk, dv, or all three side by side in dq; dbias, summed where the bias is broadcast */
int NAME(attention_grad)(const pf_call *call) {
    backward w = {.a = open_attention(call), .lse = input(call, LSE), .dbias = output(call, BIAS)};
    const int status = check_input(call, &w.a);
    if (status != PF_OK) return status;
    attention *a = &w.a;
    const attention_attributes *of = a->attributes;
    w.y = heads_in(call->inputs[Y], call->inputs[Y]->data, a->v.size);
    w.dy = heads_in(call->inputs[DY], call->inputs[DY]->data, a->v.size);
    open_heads(of, call->outputs, !call->inputs[K]->data, &w.dq, &w.dk, &w.dv);
    w.sample_parts = a->samples, w.head_parts = of->kv_heads;
    if (!a->bias) w.dbias = NULL;
    if (w.dbias) {
        const pf_operand *bias = call->outputs[BIAS];
        if (!a->bias_sample) w.sample_parts = min_of(a->samples, 1);
        if (!a->bias_head) w.head_parts = 1;
        int64_t count = 1;
        for (int i = 0; i < bias->ndim; i++) count *= bias->dims[i];
        memset(w.dbias, 0, (size_t)count * sizeof(real));
    }
    arena counted = {NULL, 0};
    backward_room_in(a, &counted);
    return run_parts(call, a, w.sample_parts * w.head_parts, counted.used, 5, backward_part, &w);
}
