/* The gradient of attention: see attention.h. */
#include "attention.h"

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
    NAME(scores)(a, b, t, s);
    for (int64_t r = 0; r < t->rows; r++) {
        real *row = s + r * t->stride;
        if (lse[r] == lse[r])
            subtract(t->stride, row, shift_by(lse[r]));
        else /* not a number, but where a pair does not see each other */
            for (int64_t j = 0; j < t->stride; j++)
                row[j] = row[j] == -INFINITY ? -INFINITY : lse[r];
    }
    a->vector->exp(size, s, s);
    NAME(times_rows)(a, dy, w->dy.row, t->rows, b->v, b->v_row, b->packed_v, b->count, a->v.size, 0,
                     ds, t->stride);
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
        NAME(add_product)(a, t,
                          &(product){.m = t->seen,
                                     .n = a->v.size,
                                     .k = t->rows,
                                     .turned = 1,
                                     .a = s,
                                     .b = dy,
                                     .b_row = w->dy.row,
                                     .c = head_at(&w->dv, t->n, b->first, g),
                                     .c_row = w->dv.row});
    if (w->dk.data)
        NAME(add_product)(a, t,
                          &(product){.m = t->seen,
                                     .n = a->k.size,
                                     .k = t->rows,
                                     .turned = 1,
                                     .a = ds,
                                     .b = q,
                                     .b_row = a->q.row,
                                     .c = head_at(&w->dk, t->n, b->first, g),
                                     .c_row = w->dk.row,
                                     .scale = scale});
    if (w->dq.data)
        NAME(add_product)(a, t,
                          &(product){.m = t->rows,
                                     .n = a->k.size,
                                     .k = t->seen,
                                     .a = ds,
                                     .b = b->k,
                                     .b_row = b->k_row,
                                     .c = head_at(&w->dq, t->n, t->i, t->h),
                                     .c_row = w->dq.row,
                                     .scale = scale});
}

typedef struct {
    block_room blocks;
    real *s, *ds, *delta, *clean;
} backward_room;

static backward_room backward_room_in(const attention *a, arena *at) {
    const attention_attributes *of = a->attributes;
    const int64_t size = of->query_block * whole_vectors(of->key_block);
    backward_room room = {.blocks = NAME(room_for_blocks)(a, at, 1)};
    room.s = take(at, size);
    room.ds = take(at, size);
    room.delta = take(at, a->group * a->queries);
    room.clean = NAME(room_for_care)(a, at);
    return room;
}

/* sum_j a[j] b[j] */
static inline real product_of(int64_t n, const real *one, const real *other) {
    vec sums = {0};
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES) sums += load(one + j) * load(other + j);
    real rest = 0;
    for (; j < n; j++) rest += one[j] * other[j];
    return sum_of_lanes(sums) + rest;
}

/* What one key head gives. */
static void all_tiles(const backward *w, const backward_room *room, int64_t n, int64_t g) {
    const attention *a = &w->a;
    const int64_t first_head = g * a->group, most = a->attributes->key_block;
    NAME(clear_heads)(&w->dq, n, first_head, a->group);
    NAME(clear_heads)(&w->dk, n, g, 1);
    NAME(clear_heads)(&w->dv, n, g, 1);
    const int64_t from = seen_by(a, n, 0).from / most * most;
    const int64_t to = seen_by(a, n, a->queries - 1).to;
    for (int64_t j = from; j < to; j += most) {
        const key_block b = NAME(block_of)(a, &room->blocks, n, g, j, most);
        for (int64_t h = 0; h < a->group; h++)
            for (int64_t i = 0; i < a->queries; i += a->attributes->query_block) {
                const tile t = NAME(tile_of)(a, &b, n, first_head + h, i);
                if (t.seen)
                    add_tile_gradient(w, &b, &t, g, room->delta + h * a->queries + i, room->s,
                                      room->ds);
            }
    }
}

/* One sample and one head of keys. */
static void pair_gradient(const backward *w, char *at, int64_t n, int64_t g) {
    const attention *a = &w->a;
    const int64_t first_head = g * a->group;
    const backward_room room = backward_room_in(a, &(arena){at, 0});
    for (int64_t h = 0; h < a->group; h++)
        for (int64_t i = 0; i < a->queries; i++)
            room.delta[h * a->queries + i] =
                product_of(w->y.size, head_at(&w->y, n, i, first_head + h),
                           head_at(&w->dy, n, i, first_head + h));
    all_tiles(w, &room, n, g);
    if (!room.clean) return;
    int care = NAME(has_infinite)(&w->dk, n, g) || NAME(has_infinite)(&w->dv, n, g);
    for (int64_t h = 0; h < a->group; h++)
        care = care || NAME(has_infinite)(&w->dq, n, first_head + h);
    if (!care) return;
    backward with_care = *w;
    with_care.a.clean = room.clean;
    with_care.dbias = NULL; /* is no product, so that hidden pairs have added nothing to it */
    all_tiles(&with_care, &room, n, g);
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
    backward w = {
        .a = NAME(open_attention)(call), .lse = input(call, LSE), .dbias = output(call, BIAS)};
    const int status = NAME(check_input)(call, &w.a);
    if (status != PF_OK) return status;
    attention *a = &w.a;
    const attention_attributes *of = a->attributes;
    w.y = heads_in(call->inputs[Y], call->inputs[Y]->data, a->v.size);
    w.dy = heads_in(call->inputs[DY], call->inputs[DY]->data, a->v.size);
    NAME(open_heads)(of, call->outputs, !call->inputs[K]->data, &w.dq, &w.dk, &w.dv);
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
    return NAME(run_parts)(call, a, w.sample_parts * w.head_parts, counted.used, 5, backward_part,
                           &w);
}
