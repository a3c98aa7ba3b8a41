/* What the recurrent kernels share; see recurrent.h. */
#include "recurrent.h"

#include "steps.h"

enum {
    FEW_ROWS = 4,
    PRODUCT_ROWS = 64, /* of x in one product, if the batch is small; recurrent_base.py knows it */
    FEW_COLUMNS = 16,  /* of weights that are packed even so */
    BYTES_PER_NANOSECOND = 8
};

/* ---- the order of the steps ---- */

/* How long each sequence is, from lengths (N,) or a mask (N, T) of 0 and 1. */
static int read_lengths(const recurrence *r, int which, int64_t *length) {
    const pf_operand *given = r->call->inputs[which];
    const int64_t *value = given->data, steps = r->steps;
    const int status = check_steps(r->call, which, steps);
    if (status != PF_OK) return status;
    for (int64_t n = 0; n < r->samples; n++) {
        length[n] = given->ndim == 1 ? value[n] : 0;
        for (int64_t t = 0; given->ndim == 2 && t < steps; t++) length[n] += value[n * steps + t];
    }
    return PF_OK;
}

/* All sequences have all steps. */
static void order_full(recurrence *r, int reverse) {
    const int64_t samples = r->samples, steps = r->steps;
    for (int64_t n = 0; n < samples; n++) r->sample[n] = n;
    for (int64_t s = 0; s < steps; s++) {
        const int64_t t = reverse ? steps - 1 - s : s;
        r->count[s] = samples;
        r->first[s] = s * samples;
        for (int64_t n = 0; n < samples; n++) r->at[s * samples + n] = n * steps + t;
    }
    r->first[steps] = r->total = samples * steps;
}

/* Longest first, those of one length as they come. `next` (T + 1) is room to work in. */
static void order_by_length(recurrence *r, int which, int reverse, const int64_t *length,
                            int64_t *next) {
    const int64_t samples = r->samples, steps = r->steps;
    const pf_operand *given = r->call->inputs[which];
    const int64_t *mask = given->ndim == 2 ? given->data : NULL;
    for (int64_t s = 0; s <= steps; s++) next[s] = 0;
    for (int64_t n = 0; n < samples; n++) next[length[n]]++;
    for (int64_t s = steps, longer = 0; s >= 0; s--) {
        const int64_t here = next[s];
        next[s] = longer; /* the place of the first one that is s long */
        if (s < steps) r->count[s] = longer;
        longer += here;
    }
    r->first[0] = 0;
    for (int64_t s = 0; s < steps; s++) r->first[s + 1] = r->first[s] + r->count[s];
    r->total = r->first[steps];
    for (int64_t n = 0; n < samples; n++) {
        const int64_t place = next[length[n]]++, *row = mask ? mask + n * steps : NULL;
        r->sample[place] = n;
        for (int64_t i = 0, s = 0; i < steps; i++) {
            const int64_t t = reverse ? steps - 1 - i : i;
            if (row ? row[t] : t < length[n]) r->at[r->first[s++] + place] = n * steps + t;
        }
    }
}

static int order(recurrence *r, int which, int reverse) {
    const int64_t samples = r->samples, steps = r->steps, word = sizeof(int64_t);
    r->sample = take_bytes(&r->scratch, samples * word);
    r->count = take_bytes(&r->scratch, steps * word);
    r->first = take_bytes(&r->scratch, (steps + 1) * word);
    r->at = take_bytes(&r->scratch, samples * steps * word);
    if (!r->sample || !r->count || !r->first || !r->at) return out_of_scratch(r->call);
    if (!r->call->inputs[which]->data) {
        order_full(r, reverse);
        return PF_OK;
    }
    int64_t *length = take_bytes(&r->scratch, samples * word);
    int64_t *next = take_bytes(&r->scratch, (steps + 1) * word);
    if (!length || !next) return out_of_scratch(r->call);
    const int status = read_lengths(r, which, length);
    if (status == PF_OK) order_by_length(r, which, reverse, length, next);
    return status;
}

/* Whether the packed rows are those of (N, T, ...) as they are. */
static int is_packed(const recurrence *r) {
    for (int64_t row = 0; row < r->total; row++)
        if (r->at[row] != row) return 0;
    return 1;
}

/* How many steps one product of x has, so that a small batch gives it rows enough. */
static int64_t chunk_of(const recurrence *r) {
    if (r->samples > r->part_rows || r->samples < 1) return 1;
    const int64_t chunk = min_of(PRODUCT_ROWS / r->samples, r->steps);
    return chunk > 1 ? chunk : 1;
}

int NAME(begin)(recurrence *r, int x, int steps, int reverse) {
    const pf_call *call = r->call;
    const pf_operand *given = call->inputs[x];
    r->gemm = call->host->gemm(BITS);
    r->vector = call->host->vector(BITS);
    r->scratch = (arena){call->scratch, call->scratch_size};
    r->samples = given->dims[0], r->steps = given->dims[1], r->channels = given->dims[2];
    r->chunk = chunk_of(r);
    const int status = order(r, steps, reverse);
    if (status != PF_OK) return status;
    r->x = given->data;
    if (is_packed(r)) return PF_OK;
    const int64_t channels = r->channels;
    real *packed = take(&r->scratch, r->total * channels);
    if (!packed) return out_of_scratch(call);
    for (int64_t row = 0; row < r->total; row++)
        memcpy(packed + row * channels, r->x + r->at[row] * channels,
               (size_t)channels * sizeof(real));
    r->x = packed;
    return PF_OK;
}

/* ---- products ---- */

matrix NAME(prepare)(recurrence *r, const real *b, int64_t k, int64_t n, int64_t b_row,
                     int transposed) {
    matrix m = {.b = b, .k = k, .n = n, .b_row = b_row, .transposed = transposed};
    const int few = r->samples <= (r->steps < MANY_STEPS ? FEW_ROWS : 1);
    /* For few rows packing costs more than it gains. But few columns, or terms, have ways of their
     * own, whose sums may differ in their last bits. */
    if (few && n >= FEW_COLUMNS && k > 1) return m;
    const pf_gemm g = {
        .size = sizeof g, .n = n, .k = k, .b = b, .b_row = b_row, .b_transposed = transposed};
    real *packed = take(&r->scratch, r->gemm->packed_size(&g));
    if (packed) {
        r->gemm->pack(&g, packed);
        m.b = packed, m.packed = 1;
    }
    return m;
}

void NAME(multiply)(const recurrence *r, const matrix *b, int64_t m, const real *a, int64_t a_row,
                    real *c, int64_t c_row, const real *bias, int accumulate) {
    if (b->turn) {
        NAME(multiply_strips)(b, a, c, bias, accumulate);
        return;
    }
    const pf_gemm g = {.size = sizeof g,
                       .m = m,
                       .n = b->n,
                       .k = b->k,
                       .a = a,
                       .a_row = a_row,
                       .a_step = 1,
                       .b = b->b,
                       .b_row = b->b_row,
                       .b_transposed = b->transposed,
                       .b_packed = b->packed,
                       .c = c,
                       .c_row = c_row,
                       .bias = bias,
                       .accumulate = accumulate};
    r->gemm->run(&g);
}

void NAME(sum_products)(recurrence *r, const real *a, int64_t m, const real *b, int64_t n,
                        int64_t b_row, real *c, int64_t c_row) {
    pf_gemm g = {.size = sizeof g,
                 .m = m,
                 .n = n,
                 .k = r->total,
                 .a = a,
                 .a_row = 1,
                 .a_step = m,
                 .b = b,
                 .b_row = b_row,
                 .c = c,
                 .c_row = c_row};
    arena rest = r->scratch; /* given back afterwards */
    g.scratch = take(&rest, r->gemm->scratch_size(&g));
    r->gemm->run(&g);
}

int NAME(input_gradient)(recurrence *r, const real *weight, real *dx) {
    const int64_t channels = r->channels, all = r->samples * r->steps;
    const size_t row_bytes = (size_t)channels * sizeof(real);
    const matrix turned = {
        .b = weight, .k = r->gates, .n = channels, .b_row = r->gates, .transposed = 1};
    const int in_place = is_packed(r);
    real *packed = in_place ? dx : take(&r->scratch, r->total * channels);
    if (!packed) return 0;
    if (in_place)
        memset(dx + r->total * channels, 0, (size_t)(all - r->total) * row_bytes);
    else if (r->total < all)
        memset(dx, 0, (size_t)all * row_bytes);
    NAME(multiply)(r, &turned, r->total, r->z, r->gates, packed, channels, NULL, 0);
    for (int64_t row = 0; !in_place && row < r->total; row++)
        memcpy(dx + r->at[row] * channels, packed + row * channels, row_bytes);
    return 1;
}

/* ---- states ---- */

real *NAME(take_states)(recurrence *r, const real *states, int64_t width) {
    real *ordered = take(&r->scratch, r->samples * width);
    const size_t bytes = (size_t)width * sizeof(real);
    if (ordered && !states) memset(ordered, 0, (size_t)r->samples * bytes);
    if (ordered && states)
        for (int64_t i = 0; i < r->samples; i++)
            memcpy(ordered + i * width, states + r->sample[i] * width, bytes);
    return ordered;
}

void NAME(give_states)(const recurrence *r, const real *ordered, int64_t width, real *states) {
    if (!states) return;
    for (int64_t i = 0; i < r->samples; i++)
        memcpy(states + r->sample[i] * width, ordered + i * width, (size_t)width * sizeof(real));
}

int NAME(make_room)(recurrence *r, int64_t room) {
    r->room = room * min_of(r->part_rows, r->samples);
    r->rooms = take(&r->scratch, r->room * parts_of(r));
    return r->rooms != NULL;
}

void NAME(add_parts)(const recurrence *r, const real *of_parts, int64_t n, real *sums) {
    memset(sums, 0, (size_t)n * sizeof(real));
    for (int64_t part = 0; part < parts_of(r); part++)
        for (int64_t i = 0; i < n; i++) sums[i] += of_parts[part * n + i];
}

/* ---- time ---- */

/* How many sequences of a part have step s. */
static int64_t rows_of(const recurrence *r, int64_t part, int64_t s) {
    const int64_t place = part * r->part_rows;
    return min_of(place + r->part_rows, r->count[s]) - place;
}

static void forward_part(void *context, int64_t part) {
    const recurrence *r = context;
    step now = {.part = part, .place = part * r->part_rows};
    real *buffer = r->rooms + part * r->room; /* of gates, unless they are kept */
    const int64_t buffer_rows = r->chunk * min_of(r->part_rows, r->samples);
    now.room = r->z ? buffer : buffer + buffer_rows * r->gates;
    for (int64_t s = 0; s < r->steps; s++) {
        now.m = rows_of(r, part, s);
        if (now.m <= 0) break;
        const int64_t row = r->first[s] + now.place;
        if (s % r->chunk == 0) {
            const int64_t end = r->first[min_of(s + r->chunk, r->steps)];
            now.z = r->z ? r->z + row * r->gates : buffer;
            NAME(multiply)(r, &r->input_weight, r->chunk > 1 ? end - row : now.m,
                           r->x + row * r->channels, r->channels, now.z, r->gates, r->bias, 0);
        } else {
            now.z += (row - now.row) * r->gates;
        }
        now.row = row;
        r->cell(r, &now);
        const real *h = r->h + now.place * r->width;
        for (int64_t i = 0; r->y && i < now.m; i++)
            memcpy(r->y + r->at[row + i] * r->width, h + i * r->width,
                   (size_t)r->width * sizeof(real));
    }
}

static void backward_part(void *context, int64_t part) {
    const recurrence *r = context;
    step now = {.part = part, .place = part * r->part_rows, .room = r->rooms + part * r->room};
    for (int64_t s = r->steps - 1; s >= 0; s--) {
        now.m = rows_of(r, part, s);
        if (now.m <= 0) continue;
        now.row = r->first[s] + now.place;
        now.z = r->z + now.row * r->gates;
        for (int64_t i = 0; r->dy && i < now.m; i++) {
            real *restrict dh = r->h + (now.place + i) * r->width;
            const real *dy = r->dy + r->at[now.row + i] * r->width;
            SEQ_INDEPENDENT
            for (int64_t j = 0; j < r->width; j++) dh[j] += dy[j];
        }
        r->cell(r, &now);
    }
}

static void run(recurrence *r, pf_body body) {
    const int64_t terms = r->total * r->gates * (r->channels + r->width);
    r->call->host->parallel_for(parts_of(r), terms / TERMS_PER_NANOSECOND, body, r);
}

void NAME(run_forward)(recurrence *r) {
    const int64_t all = r->samples * r->steps;
    if (r->y && r->total < all) memset(r->y, 0, (size_t)(all * r->width) * sizeof(real));
    clear_rest(r, r->z, r->gates);
    run(r, forward_part);
}

void NAME(run_backward)(recurrence *r) { run(r, backward_part); }
