/* GRU (Cho et al. 2014), with gates in the order r, z, n. For each step
 *
 *     r, z = sigmoid(x W + h U + b)
 *     reset after:  q = h U_n + v,  n = tanh(x W_n + b_n + r q)
 *     reset before: q = r h,        n = tanh(x W_n + b_n + q U_n)
 *     h' = (1 - z) n + z h
 *
 * Kept for the backward pass, in packed rows: the gates, q, and h from before the step. */
#include "recurrent.h"

typedef struct {
    int64_t reverse, reset_after, part_rows;
} gru_attributes;

typedef struct {
    recurrence r;
    matrix gates_weight, candidate_weight; /* the columns of U for r and z, and for n */
    const real *recurrent_bias;            /* v (H,) or NULL */
    int reset_after;
    real *inner, *hidden; /* kept, or NULL: q, h (total, H) */
    /* of the backward pass */
    const real *gates, *q, *before; /* (total, 3 H), (total, H), (total, H): kept */
    real *left, *dq;                /* (total, H): what is left of h; the gradient of q */
    real *bias_sums;                /* (parts, 4 H): of r, z, n and q */
} gru;

static int begin(gru *l, const pf_call *call, int x, int recurrent, int steps) {
    const gru_attributes *a = call->attributes;
    recurrence *r = &l->r;
    const int64_t units = call->inputs[recurrent]->dims[0];
    r->call = call;
    r->width = r->units = units, r->gates = 3 * units;
    r->part_rows = a->part_rows;
    l->reset_after = (int)a->reset_after;
    return NAME(begin)(r, x, steps, (int)a->reverse);
}

/* ---- forward ---- */

static void gru_step(const recurrence *r, const step *s) {
    const gru *l = (const gru *)(const void *)r;
    const int64_t m = s->m, units = r->units, gates = r->gates;
    real *h = r->h + s->place * units;
    real *n = s->room, *q = n + m * units;
    const real *left = kept(r, s, q + m * units);
    save(l->hidden, s, h, units);
    NAME(multiply)(r, &l->gates_weight, m, left, units, s->z, gates, NULL, 1);
    if (l->reset_after)
        NAME(multiply)(r, &l->candidate_weight, m, left, units, q, units, l->recurrent_bias, 0);
    for (int64_t i = 0; i < m; i++)
        memcpy(n + i * units, s->z + i * gates + 2 * units, (size_t)units * sizeof(real));
    sigmoid_gates(r, m, s->z, 2 * units);
    for (int64_t i = 0; i < m; i++) {
        const real *reset = s->z + i * gates, *was = left + i * units;
        real *restrict ni = n + i * units, *restrict qi = q + i * units;
        if (l->reset_after) {
            SEQ_INDEPENDENT
            for (int64_t j = 0; j < units; j++) ni[j] += reset[j] * qi[j];
        } else {
            SEQ_INDEPENDENT
            for (int64_t j = 0; j < units; j++) qi[j] = reset[j] * was[j];
        }
    }
    save(l->inner, s, q, units);
    if (!l->reset_after) NAME(multiply)(r, &l->candidate_weight, m, q, units, n, units, NULL, 1);
    r->vector->tanh(m * units, n, n);
    for (int64_t i = 0; i < m; i++) {
        real *restrict z = s->z + i * gates, *restrict hi = h + i * units;
        const real *ni = n + i * units;
        SEQ_INDEPENDENT
        for (int64_t j = 0; j < units; j++) {
            hi[j] = (1 - z[units + j]) * ni[j] + z[units + j] * hi[j];
            z[2 * units + j] = ni[j];
        }
    }
}

/* inputs: x (N, T, C), weight (C, 3 H), recurrent weight (H, 3 H), [bias (3 H)],
 * [recurrent bias (H)], [h (N, H)], [lengths (N) or mask (N, T)], [keep (N, H)]
 * outputs: y (N, T, H), h (N, H), gates (T, N, 3 H), inner (T, N, H), hidden (T, N, H) */
int NAME(gru)(const pf_call *call) {
    gru l = {.recurrent_bias = input(call, 4), .inner = output(call, 3), .hidden = output(call, 4)};
    recurrence *r = &l.r;
    const int status = begin(&l, call, 0, 2, 6);
    if (status != PF_OK) return status;
    const int64_t units = r->units, gates = r->gates;
    r->input_weight = NAME(prepare)(r, input(call, 1), r->channels, gates, gates, 0);
    l.gates_weight = NAME(prepare_steps)(r, input(call, 2), units, 2 * units, gates);
    l.candidate_weight = NAME(prepare_steps)(r, input(call, 2) + 2 * units, units, units, gates);
    r->bias = input(call, 3);
    r->h = NAME(take_states)(r, input(call, 5), units);
    if (input(call, 7)) r->keep = NAME(take_states)(r, input(call, 7), units);
    r->y = output(call, 0), r->z = output(call, 2);
    const int64_t room = r->z ? 0 : r->chunk * gates;
    if (!NAME(make_room)(r, room + 3 * units) || !r->h) return out_of_scratch(call);
    clear_rest(r, l.inner, units);
    clear_rest(r, l.hidden, units);
    r->cell = gru_step;
    NAME(run_forward)(r);
    NAME(give_states)(r, r->h, units, output(call, 1));
    return PF_OK;
}

/* ---- backward ---- */

/* Of one row: the gradients in front of the activations, and of q; what of dh goes by z alone is
 * left in it; and the sums of the gradients over the rows. First if r is applied after the product.
 */
static void row_gradient(int64_t units, const real *gates, const real *h, const real *q,
                         real *restrict dh, real *restrict dz, real *restrict dq,
                         real *restrict sums) {
    const real *reset = gates, *z = gates + units, *n = z + units;
    SEQ_INDEPENDENT
    for (int64_t j = 0; j < units; j++) {
        const real di = dh[j] * (h[j] - n[j]) * (z[j] * (1 - z[j]));
        const real dn = dh[j] * (1 - z[j]) * (1 - n[j] * n[j]);
        const real dr = dn * q[j] * (reset[j] * (1 - reset[j])), d = dn * reset[j];
        dh[j] *= z[j];
        dz[j] = dr, dz[units + j] = di, dz[2 * units + j] = dn, dq[j] = d;
        sums[j] += dr, sums[units + j] += di, sums[2 * units + j] += dn, sums[3 * units + j] += d;
    }
}

/* If r is applied before: what does not need the gradient of q, which is a product with that of n;
 * and then the rest, with p = dq r. */
static void blend_gradient(int64_t units, const real *gates, const real *h, real *restrict dh,
                           real *restrict dz, real *restrict sums) {
    const real *z = gates + units, *n = z + units;
    SEQ_INDEPENDENT
    for (int64_t j = 0; j < units; j++) {
        const real di = dh[j] * (h[j] - n[j]) * (z[j] * (1 - z[j]));
        const real dn = dh[j] * (1 - z[j]) * (1 - n[j] * n[j]);
        dh[j] *= z[j];
        dz[units + j] = di, dz[2 * units + j] = dn;
        sums[units + j] += di, sums[2 * units + j] += dn;
    }
}
static void reset_gradient(int64_t units, const real *reset, const real *left, const real *dq,
                           real *restrict dz, real *restrict p, real *restrict sums) {
    SEQ_INDEPENDENT
    for (int64_t j = 0; j < units; j++) {
        const real dr = dq[j] * left[j] * (reset[j] * (1 - reset[j]));
        dz[j] = dr, p[j] = dq[j] * reset[j];
        sums[j] += dr, sums[3 * units + j] += dq[j];
    }
}

static void gru_step_gradient(const recurrence *r, const step *s) {
    const gru *l = (const gru *)(const void *)r;
    const int64_t m = s->m, units = r->units, all = r->gates, at = s->row * units;
    const real *gates = l->gates + s->row * all, *h = l->before + at, *left = h;
    real *dh = r->h + s->place * units, *dq = l->dq + at, *restrict p = s->room;
    real *z = s->z, *sums = l->bias_sums + s->part * 4 * units;
    if (r->keep) {
        real *restrict to = l->left + at;
        const real *keep = r->keep + s->place * units;
        SEQ_INDEPENDENT
        for (int64_t i = 0; i < m * units; i++) to[i] = h[i] * keep[i];
        left = to;
    }
    if (l->reset_after) {
        for (int64_t i = 0; i < m; i++) {
            const real *g = gates + i * all, *q = l->q + at + i * units;
            if (i + 1 < m) ask_for(g + all, all), ask_for(q + units, units);
            if (i + 1 < m) ask_for(h + (i + 1) * units, units);
            if (i + 1 < m) ask_to_write(z + (i + 1) * all, all);
            if (i + 1 < m) ask_to_write(dq + (i + 1) * units, units);
            row_gradient(units, g, h + i * units, q, dh + i * units, z + i * all, dq + i * units,
                         sums);
        }
        NAME(multiply)(r, &l->candidate_weight, m, dq, units, p, units, NULL, 0);
    } else {
        for (int64_t i = 0; i < m; i++)
            blend_gradient(units, gates + i * all, h + i * units, dh + i * units, z + i * all,
                           sums);
        NAME(multiply)(r, &l->candidate_weight, m, z + 2 * units, all, dq, units, NULL, 0);
        for (int64_t i = 0; i < m; i++)
            reset_gradient(units, gates + i * all, left + i * units, dq + i * units, z + i * all,
                           p + i * units, sums);
    }
    NAME(multiply)(r, &l->gates_weight, m, z, all, p, units, NULL, 1);
    keep_gradient(r, s, p);
    SEQ_INDEPENDENT
    for (int64_t i = 0; i < m * units; i++) dh[i] += p[i];
}

static void add_bias_gradients(const gru *l, real *dbias, real *recurrent) {
    const int64_t units = l->r.units, gates = 3 * units, parts = parts_of(&l->r);
    for (int64_t j = 0; j < gates + units; j++) {
        real *to = j < gates ? dbias : recurrent, sum = 0;
        for (int64_t part = 0; part < parts; part++) sum += l->bias_sums[part * 4 * units + j];
        if (to) to[j < gates ? j : j - gates] = sum;
    }
}

/* inputs: [dy (N, T, H)], [dh (N, H)], x, weight, recurrent weight, gates, inner, hidden,
 * [lengths or mask], [keep], as above
 * outputs: dx, dweight, drecurrent weight, dbias, drecurrent bias, dh (from before the first step)
 */
int NAME(gru_grad)(const pf_call *call) {
    gru l = {.gates = input(call, 5), .q = input(call, 6), .before = input(call, 7)};
    recurrence *r = &l.r;
    const int status = begin(&l, call, 2, 4, 8);
    if (status != PF_OK) return status;
    const int64_t units = r->units, gates = r->gates;
    const real *u = input(call, 4);
    l.gates_weight = NAME(prepare)(r, u, 2 * units, units, gates, 1);
    l.candidate_weight = NAME(prepare)(r, u + 2 * units, units, units, gates, 1);
    r->dy = input(call, 0);
    r->h = NAME(take_states)(r, input(call, 1), units);
    r->z = take(&r->scratch, r->total * gates);
    l.dq = take(&r->scratch, r->total * units);
    l.bias_sums = take(&r->scratch, parts_of(r) * 4 * units);
    const real *left = l.before;
    if (input(call, 9)) {
        r->keep = NAME(take_states)(r, input(call, 9), units);
        left = l.left = take(&r->scratch, r->total * units);
        if (!left) return out_of_scratch(call);
    }
    if (!NAME(make_room)(r, units) || !r->h || !r->z || !l.dq || !l.bias_sums)
        return out_of_scratch(call);
    memset(l.bias_sums, 0, (size_t)(parts_of(r) * 4 * units) * sizeof(real));
    r->cell = gru_step_gradient;
    NAME(run_backward)(r);
    NAME(give_states)(r, r->h, units, output(call, 5));
    add_bias_gradients(&l, output(call, 3), output(call, 4));
    if (output(call, 1))
        NAME(sum_products)(r, r->x, r->channels, r->z, gates, gates, output(call, 1), gates);
    real *du = output(call, 2);
    if (du) {
        const real *a = l.reset_after ? left : l.q, *b = l.reset_after ? l.dq : r->z + 2 * units;
        NAME(sum_products)(r, left, units, r->z, 2 * units, gates, du, gates);
        NAME(sum_products)(r, a, units, b, units, l.reset_after ? units : gates, du + 2 * units,
                           gates);
    }
    if (output(call, 0) && !NAME(input_gradient)(r, input(call, 3), output(call, 0)))
        return out_of_scratch(call);
    return PF_OK;
}
