/* The simple recurrent network (Elman 1990). For each step
 *
 *     h' = f(x W + h U + b),  f = tanh or relu
 *
 * Kept for the backward pass, in packed rows: h', and h from before the step. */
#include "recurrent.h"

typedef struct {
    int64_t reverse, is_relu, part_rows;
} rnn_attributes;

typedef struct {
    recurrence r;
    matrix recurrent;
    int is_relu;
    real *hidden;      /* kept, or NULL: (total, H) */
    const real *after; /* of the backward pass: h' (total, H) */
    real *bias_sums;   /* (parts, H) */
} rnn;

static int begin(rnn *l, const pf_call *call, int x, int recurrent, int steps) {
    const rnn_attributes *a = call->attributes;
    recurrence *r = &l->r;
    r->call = call;
    r->width = r->units = r->gates = call->inputs[recurrent]->dims[0];
    r->part_rows = a->part_rows;
    l->is_relu = (int)a->is_relu;
    return NAME(begin)(r, x, steps, (int)a->reverse);
}

static void rnn_step(const recurrence *r, const step *s) {
    const rnn *l = (const rnn *)(const void *)r;
    const int64_t units = r->units, n = s->m * units;
    real *h = r->h + s->place * units;
    const real *left = kept(r, s, s->room);
    save(l->hidden, s, left, units);
    NAME(multiply)(r, &l->recurrent, s->m, left, units, s->z, units, NULL, 1);
    if (l->is_relu) { /* into h: of this in place Clang would make stores by a mask */
        for (int64_t i = 0; i < n; i++) h[i] = s->z[i] < 0 ? 0 : s->z[i];
    } else {
        r->vector->tanh(n, s->z, h);
    }
    memcpy(s->z, h, (size_t)n * sizeof(real));
}

/* inputs: x (N, T, C), weight (C, H), recurrent weight (H, H), [bias (H)], [h (N, H)],
 * [lengths (N) or mask (N, T)], [keep (N, H)]
 * outputs: y (N, T, H), h (N, H), gates (T, N, H), hidden (T, N, H) */
int NAME(rnn)(const pf_call *call) {
    rnn l = {.hidden = output(call, 3)};
    recurrence *r = &l.r;
    const int status = begin(&l, call, 0, 2, 5);
    if (status != PF_OK) return status;
    r->input_weight = NAME(prepare)(r, input(call, 1), r->channels, r->units, r->units, 0);
    l.recurrent = NAME(prepare_steps)(r, input(call, 2), r->units, r->units, r->units);
    r->bias = input(call, 3);
    r->h = NAME(take_states)(r, input(call, 4), r->units);
    if (input(call, 6)) r->keep = NAME(take_states)(r, input(call, 6), r->units);
    r->y = output(call, 0), r->z = output(call, 2);
    const int64_t room = r->z ? 0 : r->chunk * r->units;
    if (!NAME(make_room)(r, room + r->units) || !r->h) return out_of_scratch(call);
    clear_rest(r, l.hidden, r->units);
    r->cell = rnn_step;
    NAME(run_forward)(r);
    NAME(give_states)(r, r->h, r->units, output(call, 1));
    return PF_OK;
}

static void rnn_step_gradient(const recurrence *r, const step *s) {
    const rnn *l = (const rnn *)(const void *)r;
    const int64_t units = r->units;
    real *dh = r->h + s->place * units, *restrict sums = l->bias_sums + s->part * units;
    for (int64_t i = 0; i < s->m; i++) {
        const real *y = l->after + (s->row + i) * units, *d = dh + i * units;
        real *restrict dz = s->z + i * units;
        if (l->is_relu) {
            SEQ_INDEPENDENT
            for (int64_t j = 0; j < units; j++) dz[j] = y[j] > 0 ? d[j] : 0;
        } else {
            SEQ_INDEPENDENT
            for (int64_t j = 0; j < units; j++) dz[j] = d[j] * (1 - y[j] * y[j]);
        }
        SEQ_INDEPENDENT
        for (int64_t j = 0; j < units; j++) sums[j] += dz[j];
    }
    NAME(multiply)(r, &l->recurrent, s->m, s->z, units, dh, units, NULL, 0);
    keep_gradient(r, s, dh);
}

/* inputs: [dy (N, T, H)], [dh (N, H)], x, weight, recurrent weight, gates, hidden,
 * [lengths or mask], [keep], as above
 * outputs: dx, dweight, drecurrent weight, dbias, dh (from before the first step) */
int NAME(rnn_grad)(const pf_call *call) {
    rnn l = {.after = input(call, 5)};
    recurrence *r = &l.r;
    const int status = begin(&l, call, 2, 4, 7);
    if (status != PF_OK) return status;
    const int64_t units = r->units;
    l.recurrent = NAME(prepare)(r, input(call, 4), units, units, units, 1);
    r->dy = input(call, 0);
    r->h = NAME(take_states)(r, input(call, 1), units);
    if (input(call, 8)) r->keep = NAME(take_states)(r, input(call, 8), units);
    r->z = take(&r->scratch, r->total * units);
    l.bias_sums = take(&r->scratch, parts_of(r) * units);
    if (!NAME(make_room)(r, 0) || !r->h || !r->z || !l.bias_sums) return out_of_scratch(call);
    memset(l.bias_sums, 0, (size_t)(parts_of(r) * units) * sizeof(real));
    r->cell = rnn_step_gradient;
    NAME(run_backward)(r);
    NAME(give_states)(r, r->h, units, output(call, 4));
    if (output(call, 3)) NAME(add_parts)(r, l.bias_sums, units, output(call, 3));
    if (output(call, 1))
        NAME(sum_products)(r, r->x, r->channels, r->z, units, units, output(call, 1), units);
    if (output(call, 2))
        NAME(sum_products)(r, input(call, 6), units, r->z, units, units, output(call, 2), units);
    if (output(call, 0) && !NAME(input_gradient)(r, input(call, 3), output(call, 0)))
        return out_of_scratch(call);
    return PF_OK;
}
