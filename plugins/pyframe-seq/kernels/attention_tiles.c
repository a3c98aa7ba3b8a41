/* What attention and its gradient share: see attention.h. */
#include "attention.h"
#include "steps.h"

/* ---- products ---- */

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

void NAME(times_rows)(const attention *a, const real *x, int64_t x_row, int64_t rows,
                      const real *keys, int64_t key_row, const real *packed, int64_t count,
                      int64_t size, double scale, real *c, int64_t c_row) {
    pf_gemm g = turned_rows(keys, key_row, count, size);
    if (packed) g.b = packed, g.b_packed = 1;
    g.m = rows, g.a = x, g.a_row = x_row, g.a_step = 1;
    g.c = c, g.c_row = c_row, g.scale = scale;
    a->gemm->run(&g);
}

/* ---- blocks of keys ---- */

block_room NAME(room_for_blocks)(const attention *a, arena *at, int with_packed_v) {
    const int64_t count = a->attributes->key_block, depth = a->k.size, width = a->v.size;
    block_room room = {.packed_k = take(at, packed_size(a, count, depth))};
    if (with_packed_v) room.packed_v = take(at, packed_size(a, count, width));
    return room;
}

key_block NAME(block_of)(const attention *a, const block_room *room, int64_t n, int64_t g,
                         int64_t first, int64_t size) {
    key_block b = {.first = first, .count = min_of(a->keys - first, size)};
    b.k = head_at(&a->k, n, first, g), b.k_row = a->k.row;
    b.v = head_at(&a->v, n, first, g), b.v_row = a->v.row;
    if (a->queries * a->group < PACKING_PAYS) return b;
    b.packed_k = pack(a, b.k, b.k_row, b.count, a->k.size, room->packed_k);
    if (room->packed_v) b.packed_v = pack(a, b.v, b.v_row, b.count, a->v.size, room->packed_v);
    return b;
}

/* ---- tiles ---- */

tile NAME(tile_of)(const attention *a, const key_block *b, int64_t n, int64_t h, int64_t i) {
    tile t = {.n = n, .h = h, .i = i, .first = b->first};
    t.rows = min_of(a->queries - i, a->attributes->query_block);
    const int64_t from = seen_by(a, n, i).from, to = seen_by(a, n, i + t.rows - 1).to;
    t.seen = from >= b->first + b->count ? 0 : max_of(0, min_of(b->count, to - b->first));
    t.stride = whole_vectors(b->count);
    return t;
}

/* Row i of the bias of a tile's head is at i bias_row. */
static const real *bias_of(const attention *a, const tile *t) {
    return a->bias ? a->bias + t->n * a->bias_sample + t->h * a->bias_head : NULL;
}

void NAME(scores)(const attention *a, const key_block *b, const tile *t, real *s) {
    NAME(times_rows)(a, head_at(&a->q, t->n, t->i, t->h), a->q.row, t->rows, b->k, b->k_row,
                     b->packed_k, b->count, a->k.size, a->attributes->scale, s, t->stride);
    const real *bias = bias_of(a, t);
    const int64_t *mask = a->mask ? a->mask + t->n * a->keys + b->first : NULL;
    for (int64_t r = 0; r < t->rows; r++, s += t->stride) {
        const int64_t i = t->i + r;
        if (bias) {
            const real *row = bias + i * a->bias_row + b->first;
            for (int64_t j = 0; j < b->count; j++)
                s[j] = row[j] == -INFINITY ? -INFINITY : s[j] + row[j];
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

/* ---- products of a tile ---- */

/* Whether the query in row r of a tile sees its key j. */
static int sees(const attention *a, const tile *t, int64_t r, int64_t j) {
    const int64_t i = t->i + r, key = t->first + j;
    const span seen = seen_by(a, t->n, i);
    if (key < seen.from || key >= seen.to) return 0;
    if (a->mask && a->mask[t->n * a->keys + key] == 0) return 0;
    const real *bias = bias_of(a, t);
    return !bias || bias[i * a->bias_row + key] != -INFINITY;
}

/* b (k, n) with zeros in place of what is not finite. */
static const real *finite_part(const product *p, real *to, int64_t row) {
    for (int64_t l = 0; l < p->k; l++)
        for (int64_t d = 0; d < p->n; d++) {
            const real x = p->b[l * p->b_row + d];
            to[l * row + d] = isfinite(x) ? x : 0;
        }
    return to;
}

/* c += scale a b, of the rest, where a pair sees each other. */
static void add_rest(const attention *a, const tile *t, const product *p, int64_t a_row,
                     int64_t a_step) {
    const real scale = p->scale == 0 ? 1 : (real)p->scale;
    for (int64_t l = 0; l < p->k; l++) {
        const real *b = p->b + l * p->b_row;
        real rest = 0;
        for (int64_t d = 0; d < p->n; d++) rest += 0 * b[d];
        for (int64_t r = 0; rest != 0 && r < p->m; r++) {
            if (!(p->turned ? sees(a, t, l, r) : sees(a, t, r, l))) continue;
            const real factor = scale * p->a[r * a_row + l * a_step];
            real *c = p->c + r * p->c_row;
            for (int64_t d = 0; d < p->n; d++)
                if (!isfinite(b[d])) c[d] += factor * b[d];
        }
    }
}

void NAME(add_product)(const attention *a, const tile *t, const product *p) {
    pf_gemm g = {.size = sizeof g,
                 .m = p->m,
                 .n = p->n,
                 .k = p->k,
                 .a = p->a,
                 .a_row = p->turned ? 1 : t->stride,
                 .a_step = p->turned ? t->stride : 1,
                 .b = p->b,
                 .b_row = p->b_row,
                 .c = p->c,
                 .c_row = p->c_row,
                 .accumulate = 1,
                 .scale = p->scale};
    if (a->clean) { /* end to end or not, as b is: a single column is summed in another order then
                     */
        g.b_row = min_of(p->b_row, p->n + 1);
        g.b = finite_part(p, a->clean, g.b_row);
    }
    a->gemm->run(&g);
    if (a->clean) add_rest(a, t, p, g.a_row, g.a_step);
}

/* ---- a call ---- */

void NAME(open_heads)(const attention_attributes *of, const pf_operand *const *x, int side_by_side,
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

attention NAME(open_attention)(const pf_call *call) {
    const attention_attributes *of = call->attributes;
    attention a = {.attributes = of,
                   .gemm = call->host->gemm(BITS),
                   .vector = call->host->vector(BITS),
                   .samples = call->inputs[Q]->dims[0],
                   .group = of->heads / of->kv_heads,
                   .bias = input(call, BIAS),
                   .slopes = input(call, SLOPES),
                   .lengths = call->inputs[LENGTHS]->data,
                   .start = call->inputs[START]->data,
                   .mask = call->inputs[MASK]->data,
                   .scratch = call->scratch};
    NAME(open_heads)(of, call->inputs, !call->inputs[K]->data, &a.q, &a.k, &a.v);
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

int NAME(check_input)(const pf_call *call, const attention *a) {
    int status = check_numbers(call, a, LENGTHS, "length");
    if (status == PF_OK) status = check_numbers(call, a, START, "start");
    return status == PF_OK ? check_steps(call, MASK, a->keys) : status;
}

void NAME(clear_heads)(const heads_of *x, int64_t n, int64_t first, int64_t heads) {
    for (int64_t t = 0; x->data && t < x->tokens; t++)
        memset(head_at(x, n, t, first), 0, (size_t)(heads * x->size) * sizeof(real));
}

real *NAME(room_for_care)(const attention *a, arena *at) {
    const attention_attributes *of = a->attributes;
    if (!of->causal && !of->window && !a->bias && !a->mask) return NULL;
    return take(at, max_of(of->query_block, of->key_block) * (max_of(a->k.size, a->v.size) + 1));
}

int NAME(has_infinite)(const heads_of *made, int64_t n, int64_t h) {
    vec sums = {0};
    real rest = 0;
    for (int64_t t = 0; made->data && t < made->tokens; t++) {
        const real *row = head_at(made, n, t, h);
        int64_t j = 0;
        for (; j + LANES <= made->size; j += LANES) sums += 0 * load(row + j);
        for (; j < made->size; j++) rest += 0 * row[j];
    }
    return !(rest + sum_of_lanes(sums) == 0);
}

int NAME(run_parts)(const pf_call *call, attention *a, int64_t parts, int64_t piece, int products,
                    pf_body body, void *context) {
    a->piece = piece;
    if ((uint64_t)(parts * piece) > call->scratch_size)
        return call->host->refuse(call, "the op class has asked for too little scratch memory");
    const int64_t terms = a->samples * a->attributes->heads * a->queries * a->keys *
                          (a->k.size + a->v.size) * products / 2;
    call->host->parallel_for(parts, terms / TERMS_PER_NANOSECOND, body, context);
    return PF_OK;
}
