/* Attention, forward: see attention.h. */
#include "attention.h"

/* The largest of them that is not NaN; `least` if all are less. */
static inline real largest(int64_t n, const real *x, real least) {
    vec top = splat(least);
    for (int64_t j = 0; j < n; j += LANES) {
        const vec y = load(x + j);
        const whole_vec is_more = y > top;
        top = (vec)(((whole_vec)y & is_more) | ((whole_vec)top & ~is_more));
    }
    return top_of_lanes(top);
}

static inline real total(int64_t n, const real *x) {
    vec sums = {0};
    for (int64_t j = 0; j < n; j += LANES) sums += load(x + j);
    return sum_of_lanes(sums);
}

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
    NAME(scores)(a, b, t, s);
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
    NAME(add_product)(a, t,
                      &(product){.m = t->rows,
                                 .n = a->v.size,
                                 .k = t->seen,
                                 .a = s,
                                 .b = b->v,
                                 .b_row = b->v_row,
                                 .c = head_at(&f->y, t->n, t->i, t->h),
                                 .c_row = f->y.row});
}

typedef struct {
    block_room blocks;
    real *s, *top, *sum, *factor, *clean;
} forward_room;

static forward_room forward_room_in(const attention *a, arena *at) {
    const attention_attributes *of = a->attributes;
    forward_room room = {.blocks = NAME(room_for_blocks)(a, at, 0)};
    room.s = take(at, of->query_block * whole_vectors(of->key_block));
    room.top = take(at, a->group * a->queries);
    room.sum = take(at, a->group * a->queries);
    room.factor = take(at, of->query_block);
    room.clean = NAME(room_for_care)(a, at);
    return room;
}

/* y of all heads of queries that share key head g. */
static void all_tiles(const forward *f, const forward_room *room, int64_t n, int64_t g) {
    const attention *a = &f->a;
    const int64_t first_head = g * a->group, most = a->attributes->key_block;
    real *top = room->top, *sum = room->sum;
    for (int64_t x = 0; x < a->group * a->queries; x++) top[x] = -INFINITY, sum[x] = 0;
    NAME(clear_heads)(&f->y, n, first_head, a->group);
    const int64_t from = seen_by(a, n, 0).from / most * most;
    const int64_t to = seen_by(a, n, a->queries - 1).to;
    for (int64_t j = from; j < to; j += most) {
        const int64_t size = min_of(most, to - j); /* nobody sees the keys behind */
        const key_block b = NAME(block_of)(a, &room->blocks, n, g, j, size);
        for (int64_t h = 0; h < a->group; h++)
            for (int64_t i = 0; i < a->queries; i += a->attributes->query_block) {
                const tile t = NAME(tile_of)(a, &b, n, first_head + h, i);
                const int64_t row = h * a->queries + i;
                if (t.seen) add_tile(f, &b, &t, room->s, top + row, sum + row, room->factor);
            }
    }
    for (int64_t h = 0; f->y.data && h < a->group; h++)
        for (int64_t i = 0; i < a->queries; i++) {
            real *y = head_at(&f->y, n, i, first_head + h);
            const real sum_i = sum[h * a->queries + i], share = sum_i == 0 ? 0 : 1 / sum_i;
            for (int64_t d = 0; d < f->y.size; d++) y[d] *= share;
        }
}

/* One sample and one head of keys, with all heads of queries that share it. */
static void forward_part(void *context, int64_t part) {
    const forward *f = context;
    const attention *a = &f->a;
    const attention_attributes *of = a->attributes;
    const int64_t n = part / of->kv_heads, g = part % of->kv_heads, first_head = g * a->group;
    const forward_room room = forward_room_in(a, &(arena){a->scratch + part * a->piece, 0});
    all_tiles(f, &room, n, g);
    int care = 0;
    for (int64_t h = 0; room.clean && h < a->group; h++)
        care = care || NAME(has_infinite)(&f->y, n, first_head + h);
    if (care) {
        forward with_care = *f;
        with_care.a.clean = room.clean;
        all_tiles(&with_care, &room, n, g);
    }
    if (!f->lse) return;
    real *lse = f->lse + (n * of->heads + first_head) * a->queries;
    a->vector->log(a->group * a->queries, room.sum, lse);
    for (int64_t x = 0; x < a->group * a->queries; x++) lse[x] += shift_by(room.top[x]);
}

/* q (N, Tq, H D), k (N, Tk, G D), v (N, Tk, G Dv), or all three side by side in q; [bias (N or 1,
 * H or 1, Tq or 1, Tk)], [lengths (N,)], [start (N,)], [mask (N, Tk)], [slopes (H,)]
 *     y (N, Tq, H Dv), lse (N, H, Tq) */
int NAME(attention)(const pf_call *call) {
    forward f = {.a = NAME(open_attention)(call), .lse = output(call, 1)};
    const int status = NAME(check_input)(call, &f.a);
    if (status != PF_OK) return status;
    attention *a = &f.a;
    f.y = heads_in(call->outputs[0], output(call, 0), a->v.size);
    if (a->queries == 0) return PF_OK;
    arena counted = {NULL, 0};
    forward_room_in(a, &counted);
    return NAME(run_parts)(call, a, a->samples * a->attributes->kv_heads, counted.used, 2,
                           forward_part, &f);
}
