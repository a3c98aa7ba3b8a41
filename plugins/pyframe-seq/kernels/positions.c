/* Places in a sequence: rotary embeddings, and rows of a table of positions. */
#include <math.h>
#include <string.h>

#include "pyframe/real.h"

typedef struct {
    int64_t heads, rotated, interleaved, inverse; /* of the heads the first ones are rotated */
    double base;
} rotary_attributes;

typedef struct {
    const rotary_attributes *of;
    const real *x, *start;
    real *y, *scratch;
    int64_t samples, tokens, size; /* size: of a head */
} rotation;

/* Token t of all samples: the pair (a, b) of angle p base^(-2 i / D) becomes
 * (a cos - b sin, b cos + a sin). */
static void rotate_token(void *context, int64_t t) {
    const rotation *r = context;
    const int64_t half = r->size / 2, row = r->of->heads * r->size;
    const int64_t apart = r->of->interleaved ? 1 : half, step = r->of->interleaved ? 2 : 1;
    const double sign = r->of->inverse ? -1 : 1;
    real *cosines = r->scratch + t * r->size, *sines = cosines + half;
    for (int64_t n = 0; n < r->samples; n++) {
        for (int64_t i = 0; i < half && (n == 0 || r->start); i++) {
            const double place = (double)t + (r->start ? (double)r->start[n] : 0);
            const double angle = place * pow(r->of->base, -2.0 * (double)i / (double)r->size);
            cosines[i] = (real)cos(angle), sines[i] = (real)(sign * sin(angle));
        }
        const real *x = r->x + (n * r->tokens + t) * row;
        real *y = r->y + (n * r->tokens + t) * row;
        for (int64_t h = 0; h < r->of->rotated; h++, x += r->size, y += r->size)
            for (int64_t i = 0; i < half; i++) {
                const real a = x[i * step], b = x[i * step + apart];
                y[i * step] = a * cosines[i] - b * sines[i];
                y[i * step + apart] = b * cosines[i] + a * sines[i];
            }
        memcpy(y, x, (size_t)((r->of->heads - r->of->rotated) * r->size) * sizeof(real));
    }
}

/* x (N, T, heads D), [start (N,)] -> y, of the shape of x */
int NAME(rotary)(const pf_call *call) {
    const rotary_attributes *of = call->attributes;
    const int64_t *dims = call->inputs[0]->dims;
    rotation r = {.of = of,
                  .x = input(call, 0),
                  .start = input(call, 1),
                  .y = output(call, 0),
                  .scratch = call->scratch,
                  .samples = dims[0],
                  .tokens = dims[1],
                  .size = dims[2] / of->heads};
    const int64_t angles = r.tokens * r.size * (r.start ? r.samples : 1);
    call->host->parallel_for(r.tokens, 30 * angles + r.samples * r.tokens * dims[2] / 4,
                             rotate_token, &r);
    return PF_OK;
}

/* table (P, d), x (N, T, d): only its shape -> y (T, d), the first T rows */
int NAME(position_rows)(const pf_call *call) {
    const int64_t *dims = call->outputs[0]->dims;
    memcpy(output(call, 0), input(call, 0), (size_t)(dims[0] * dims[1]) * sizeof(real));
    return PF_OK;
}

/* dy (T, d), table (P, d): only its shape -> dtable (P, d) */
int NAME(position_rows_grad)(const pf_call *call) {
    const int64_t *dims = call->inputs[1]->dims, given = elements(call, 0);
    real *to = output(call, 0);
    memcpy(to, input(call, 0), (size_t)given * sizeof(real));
    memset(to + given, 0, (size_t)(dims[0] * dims[1] - given) * sizeof(real));
    return PF_OK;
}
