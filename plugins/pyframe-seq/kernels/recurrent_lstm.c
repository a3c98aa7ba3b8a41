/* LSTM, with an optional projection (Hochreiter, Schmidhuber 1997; Gers et al. 2000; Sak et al.
 * 2014). For each step, with gates in the order i, f, g, o:
 *
 *     i, f, o = sigmoid(x W + h U + b),  g = tanh(x W + h U + b)
 *     c' = f c + i g,  m = o tanh(c'),  h' = m or m P
 *
 * Kept for the backward pass, in packed rows: the gates, and c and h from before the step. */
#include "recurrent.h"

typedef struct {
    int64_t reverse, part_rows;
} lstm_attributes;

typedef struct {
    recurrence r;
    matrix recurrent, projection;
    int projects;
    real *hidden, *cells; /* kept, or NULL: (total, W), (total, H) */
    /* of the backward pass */
    const real *gates, *before; /* (total, 4 H), (total, H): kept */
    real *bias_sums;            /* (parts, 4 H) */
    real *output, *dh;          /* (total, H), (total, W): m and the gradient of m P */
} lstm;

static int begin(lstm *l, const pf_call *call, int x, int recurrent, int steps) {
    const lstm_attributes *a = call->attributes;
    recurrence *r = &l->r;
    const int64_t *dims = call->inputs[recurrent]->dims;
    r->call = call;
    r->width = dims[0], r->gates = dims[1], r->units = r->gates / 4;
    r->part_rows = a->part_rows;
    return NAME(begin)(r, x, steps, (int)a->reverse);
}

/* ---- forward ---- */

static void lstm_step(const recurrence *r, const step *s) {
    const lstm *l = (const lstm *)(const void *)r;
    const int64_t m = s->m, units = r->units, gates = r->gates;
    real *h = r->h + s->place * r->width, *c = r->c + s->place * units;
    real *restrict g = s->room, *restrict t = g + m * units;
    const real *left = kept(r, s, t + m * units);
    save(l->hidden, s, left, r->width);
    save(l->cells, s, c, units);
    NAME(multiply)(r, &l->recurrent, m, left, r->width, s->z, gates, NULL, 1);
    for (int64_t i = 0; i < m; i++)
        memcpy(g + i * units, s->z + i * gates + 2 * units, (size_t)units * sizeof(real));
    sigmoid_gates(r, m, s->z, 2 * units);
    r->vector->tanh(m * units, g, g);
    for (int64_t i = 0; i < m; i++) {
        real *restrict z = s->z + i * gates, *restrict to = c + i * units;
        const real *candidate = g + i * units;
        SEQ_INDEPENDENT
        for (int64_t j = 0; j < units; j++) {
            z[2 * units + j] = candidate[j];
            to[j] = z[units + j] * to[j] + z[j] * candidate[j];
        }
    }
    r->vector->tanh(m * units, c, t);
    real *out = l->projects ? t : h;
    for (int64_t i = 0; i < m; i++) {
        const real *o = s->z + i * gates + 3 * units;
        SEQ_INDEPENDENT
        for (int64_t j = 0; j < units; j++) out[i * units + j] = o[j] * t[i * units + j];
    }
    if (l->projects) NAME(multiply)(r, &l->projection, m, t, units, h, r->width, NULL, 0);
}

/* inputs: x (N, T, C), weight (C, 4 H), recurrent weight (W, 4 H), [bias (4 H)], [h (N, W)],
 * [c (N, H)], [projection (H, W)], [lengths (N) or mask (N, T)], [keep (N, W)]
 * outputs: y (N, T, W), h (N, W), c (N, H), gates (T, N, 4 H), cells (T, N, H), hidden (T, N, W) */
int NAME(lstm)(const pf_call *call) {
    lstm l = {.projects = call->inputs[6]->data != NULL};
    recurrence *r = &l.r;
    const int status = begin(&l, call, 0, 2, 7);
    if (status != PF_OK) return status;
    r->input_weight = NAME(prepare)(r, input(call, 1), r->channels, r->gates, r->gates, 0);
    l.recurrent = NAME(prepare_steps)(r, input(call, 2), r->width, r->gates, r->gates);
    if (l.projects)
        l.projection = NAME(prepare_steps)(r, input(call, 6), r->units, r->width, r->width);
    r->bias = input(call, 3);
    r->h = NAME(take_states)(r, input(call, 4), r->width);
    r->c = NAME(take_states)(r, input(call, 5), r->units);
    if (input(call, 8)) r->keep = NAME(take_states)(r, input(call, 8), r->width);
    r->y = output(call, 0), r->z = output(call, 3);
    l.cells = output(call, 4), l.hidden = output(call, 5);
    const int64_t room = r->z ? 0 : r->chunk * r->gates;
    if (!NAME(make_room)(r, room + 2 * r->units + r->width) || !r->h || !r->c)
        return out_of_scratch(call);
    clear_rest(r, l.cells, r->units);
    clear_rest(r, l.hidden, r->width);
    r->cell = lstm_step;
    NAME(run_forward)(r);
    NAME(give_states)(r, r->h, r->width, output(call, 1));
    NAME(give_states)(r, r->c, r->units, output(call, 2));
    return PF_OK;
}

/* ---- backward ---- */

/* dz, and dc from before the step, of one row; t = tanh(c'), dm the gradient of m. */
static void row_gradient(int64_t units, const real *gates, const real *c, const real *t,
                         const real *dm, real *restrict dc, real *restrict dz,
                         real *restrict sums) {
    const real *i = gates, *f = i + units, *g = f + units, *o = g + units;
    SEQ_INDEPENDENT
    for (int64_t j = 0; j < units; j++) {
        const real d = dc[j] + dm[j] * o[j] * (1 - t[j] * t[j]);
        const real di = d * g[j] * (i[j] * (1 - i[j])), df = d * c[j] * (f[j] * (1 - f[j]));
        const real dg = d * i[j] * (1 - g[j] * g[j]), d_o = dm[j] * t[j] * (o[j] * (1 - o[j]));
        dc[j] = d * f[j];
        dz[j] = di, dz[units + j] = df, dz[2 * units + j] = dg, dz[3 * units + j] = d_o;
        sums[j] += di, sums[units + j] += df, sums[2 * units + j] += dg, sums[3 * units + j] += d_o;
    }
}

static void lstm_step_gradient(const recurrence *r, const step *s) {
    const lstm *l = (const lstm *)(const void *)r;
    const int64_t m = s->m, units = r->units, all = r->gates;
    const real *gates = l->gates + s->row * all, *before = l->before + s->row * units;
    real *dh = r->h + s->place * r->width, *dc = r->c + s->place * units;
    real *restrict t = s->room, *dm = dh;
    for (int64_t i = 0; i < m; i++) {
        const real *z = gates + i * all, *c = before + i * units;
        ask_to_write(s->z + i * all, all);
        if (i + 1 < m) ask_for(z + all, all), ask_for(c + units, units);
        SEQ_INDEPENDENT
        for (int64_t j = 0; j < units; j++)
            t[i * units + j] = z[units + j] * c[j] + z[j] * z[2 * units + j];
    }
    r->vector->tanh(m * units, t, t);
    if (l->projects) {
        dm = t + m * units;
        save(l->dh, s, dh, r->width);
        NAME(multiply)(r, &l->projection, m, dh, r->width, dm, units, NULL, 0);
        real *restrict out = l->output + s->row * units;
        for (int64_t i = 0; i < m; i++) {
            const real *o = gates + i * all + 3 * units;
            SEQ_INDEPENDENT
            for (int64_t j = 0; j < units; j++) out[i * units + j] = o[j] * t[i * units + j];
        }
    }
    for (int64_t i = 0; i < m; i++)
        row_gradient(units, gates + i * all, before + i * units, t + i * units, dm + i * units,
                     dc + i * units, s->z + i * all, l->bias_sums + s->part * all);
    NAME(multiply)(r, &l->recurrent, m, s->z, all, dh, r->width, NULL, 0);
    keep_gradient(r, s, dh);
}

/* inputs: [dy (N, T, W)], [dh (N, W)], [dc (N, H)], x, weight, recurrent weight, gates, cells,
 * hidden, [projection], [lengths or mask], [keep], as above
 * outputs: dx, dweight, drecurrent weight, dbias, dh, dc (from before the first step), dprojection
 */
int NAME(lstm_grad)(const pf_call *call) {
    lstm l = {.projects = call->inputs[9]->data != NULL};
    recurrence *r = &l.r;
    const int status = begin(&l, call, 3, 5, 10);
    if (status != PF_OK) return status;
    const int64_t units = r->units, width = r->width, gates = r->gates;
    l.recurrent = NAME(prepare)(r, input(call, 5), gates, width, gates, 1);
    l.gates = input(call, 6), l.before = input(call, 7);
    r->dy = input(call, 0);
    r->h = NAME(take_states)(r, input(call, 1), width);
    r->c = NAME(take_states)(r, input(call, 2), units);
    if (input(call, 11)) r->keep = NAME(take_states)(r, input(call, 11), width);
    r->z = take(&r->scratch, r->total * gates);
    l.bias_sums = take(&r->scratch, parts_of(r) * gates);
    if (l.projects) {
        l.projection = NAME(prepare)(r, input(call, 9), width, units, width, 1);
        l.output = take(&r->scratch, r->total * units);
        l.dh = take(&r->scratch, r->total * width);
        if (!l.output || !l.dh) return out_of_scratch(call);
    }
    if (!NAME(make_room)(r, 2 * units) || !r->h || !r->c || !r->z || !l.bias_sums)
        return out_of_scratch(call);
    memset(l.bias_sums, 0, (size_t)(parts_of(r) * gates) * sizeof(real));
    r->cell = lstm_step_gradient;
    NAME(run_backward)(r);
    NAME(give_states)(r, r->h, width, output(call, 4));
    NAME(give_states)(r, r->c, units, output(call, 5));
    if (output(call, 3)) NAME(add_parts)(r, l.bias_sums, gates, output(call, 3));
    if (output(call, 1))
        NAME(sum_products)(r, r->x, r->channels, r->z, gates, gates, output(call, 1), gates);
    if (output(call, 2))
        NAME(sum_products)(r, input(call, 8), width, r->z, gates, gates, output(call, 2), gates);
    if (output(call, 6) && l.projects)
        NAME(sum_products)(r, l.output, units, l.dh, width, width, output(call, 6), width);
    if (output(call, 0) && !NAME(input_gradient)(r, input(call, 4), output(call, 0)))
        return out_of_scratch(call);
    return PF_OK;
}
