/* Indexing: rows of a table, picked by their numbers.
 *
 * Rows are copied and added as memory delivers them, so wider vectors gain nothing: there is one
 * copy of these kernels for all instruction sets. */
#include "parts.h"
#include "vector.h"

typedef struct {
    int64_t padding_index; /* the row that gets no gradient; -1: there is none */
    int64_t sparse;        /* for the planner; not of embedding_grad_rows */
} embedding_attributes;

int PF_RARE(embedding)(const pf_call *call);
int PF_RARE(embedding_grad)(const pf_call *call);
int PF_RARE(embedding_grad_rows)(const pf_call *call);

#if PF_DEFINES_RARE

/* Fails at the first index that is no row of the table. */
static int check_indices(const pf_call *call, int operand, int64_t rows) {
    const int64_t *indices = pf_in_int(call, operand), n = pf_count(call->inputs[operand]);
    for (int64_t i = 0; i < n; i++)
        if (indices[i] < 0 || indices[i] >= rows)
            return call->host->fail(call, PF_ERROR_LABEL, operand, i, indices[i]);
    return PF_OK;
}

static void pick(const pf_call *call, int64_t part, int64_t first, int64_t end, void *none) {
    (void)part, (void)none;
    const int64_t *indices = pf_in_int(call, 0), units = call->inputs[1]->dims[1];
    const real *weight = pf_in(call, 1);
    real *y = pf_out(call, 0);
    for (int64_t i = first; i < end; i++)
        memcpy(y + i * units, weight + indices[i] * units, (size_t)units * sizeof(real));
}

int PF_RARE(embedding)(const pf_call *call) {
    const int64_t n = pf_count(call->inputs[0]);
    const int64_t bytes = call->inputs[1]->dims[1] * (int64_t)sizeof(real);
    const int status = check_indices(call, 0, call->inputs[1]->dims[0]);
    if (status != PF_OK || bytes == 0) return status;
    pf_in_parts(call, n, pf_rows_of_part(bytes), 2 * bytes, pick, NULL);
    return PF_OK;
}

/* to += from, in vectors of the baseline */
static void add_row(real *restrict to, const real *restrict from, int64_t units) {
    int64_t j = 0;
    for (; j + LANES <= units; j += LANES) store(to + j, load(to + j) + load(from + j));
    for (; j < units; j++) to[j] += from[j];
}

/* Each part goes through all indices and adds up the rows that are its own, in the order of the
 * batch: the bits are the same however the table is cut. */
static void add_rows(const pf_call *call, int64_t part, int64_t first, int64_t end, void *none) {
    (void)part, (void)none;
    const embedding_attributes *attributes = call->attributes;
    const int64_t *indices = pf_in_int(call, 1), n = pf_count(call->inputs[1]);
    const int64_t units = call->outputs[0]->dims[1];
    const real *dy = pf_in(call, 0);
    real *dweight = pf_out(call, 0);
    memset(dweight + first * units, 0, (size_t)((end - first) * units) * sizeof(real));
    for (int64_t i = 0; i < n; i++) {
        const int64_t row = indices[i];
        if (row < first || row >= end || row == attributes->padding_index) continue;
        add_row(dweight + row * units, dy + i * units, units);
    }
}

int PF_RARE(embedding_grad)(const pf_call *call) {
    enum { PARTS = 8 }; /* at most, since each reads all indices */
    const int64_t rows = call->outputs[0]->dims[0], n = pf_count(call->inputs[1]);
    const int64_t bytes = call->outputs[0]->dims[1] * (int64_t)sizeof(real);
    const int status = check_indices(call, 1, rows);
    if (status != PF_OK || rows == 0 || bytes == 0) return status;
    const int64_t least = pf_rows_of_part(bytes), each = (rows + PARTS - 1) / PARTS;
    pf_in_parts(call, rows, each > least ? each : least, bytes + 2 * bytes * n / rows, add_rows,
                NULL);
    return PF_OK;
}

/* Finds where each of n rows occurs first: firsts[i] <= i. `places` has a number for each row of
 * the table, whatever it is: it counts if an earlier occurrence of the row is at that place. So
 * nothing has to be cleared (Briggs, Torczon, "An efficient representation for sparse sets", 1993).
 */
static void find_firsts(int64_t n, const int64_t *rows, int64_t *places, int64_t *firsts) {
    for (int64_t i = 0; i < n; i++) {
        int64_t *place = &places[rows[i]];
        if (!(*place >= 0 && *place < i && rows[*place] == rows[i])) *place = i;
        firsts[i] = *place;
    }
}

/* The gradient of one look-up. */
typedef struct {
    const real *dy;
    const int64_t *indices, *firsts;
    real *sums;
    int64_t n, units, padding;
} lookup;

/* Each part adds up the sums that are its own, in the order of the batch. */
static void add_to_firsts(const pf_call *call, int64_t part, int64_t first, int64_t end,
                          void *context) {
    (void)call, (void)part;
    const lookup *l = context;
    for (int64_t i = first; i < l->n; i++) {
        real *to = l->sums + l->firsts[i] * l->units;
        const int is_added = l->firsts[i] >= first && l->firsts[i] < end;
        const int is_padding = l->indices[i] == l->padding;
        if (i < end && (l->firsts[i] != i || is_padding))
            memset(l->sums + i * l->units, 0, (size_t)l->units * sizeof(real));
        if (!is_added || is_padding) continue;
        if (l->firsts[i] == i) memset(to, 0, (size_t)l->units * sizeof(real));
        add_row(to, l->dy + i * l->units, l->units);
    }
}

int PF_RARE(embedding_grad_rows)(const pf_call *call) {
    enum { PARTS = 4 }; /* at most, since each reads all indices behind it */
    const embedding_attributes *attributes = call->attributes;
    const int64_t rows = call->inputs[0]->dims[0], units = call->inputs[0]->dims[1];
    const int64_t bytes = units * (int64_t)sizeof(real);
    int64_t *places = call->scratch, *firsts = places + rows, *all = firsts, total = 0;
    int lookups = 0;
    for (int k = 1; k < (int)call->input_count && call->inputs[k]->data; k += 2, lookups++) {
        const int64_t n = pf_count(call->inputs[k + 1]), *indices = pf_in_int(call, k + 1);
        const int status = check_indices(call, k + 1, rows);
        if (status != PF_OK) return status;
        find_firsts(n, indices, places, firsts);
        lookup l = {
            pf_in(call, k),           indices, firsts, pf_out(call, 0) + total * units, n, units,
            attributes->padding_index};
        const int64_t least = pf_rows_of_part(bytes), each = (n + PARTS - 1) / PARTS;
        if (bytes) pf_in_parts(call, n, each > least ? each : least, 3 * bytes, add_to_firsts, &l);
        total += n;
    }
    if (lookups < 2) return PF_OK;
    /* Sums of one row over several look-ups, from left to right as `add_n` adds. */
    int64_t *end = all;
    for (int k = 2; k < (int)call->input_count && call->inputs[k - 1]->data; k += 2) {
        const int64_t n = pf_count(call->inputs[k]);
        if (n) memcpy(end, pf_in_int(call, k), (size_t)n * sizeof(int64_t));
        end += n;
    }
    find_firsts(total, all, places, end);
    for (int64_t i = 0; i < total; i++) {
        real *from = pf_out(call, 0) + i * units, *to = pf_out(call, 0) + end[i] * units;
        if (to == from) continue;
        add_row(to, from, units);
        if (bytes) memset(from, 0, (size_t)bytes);
    }
    return PF_OK;
}

#endif

/* y_i = row indices_i of the table */
int PF_NAME(embedding)(const pf_call *call) { return PF_RARE(embedding)(call); }

/* dweight_r = the sum of the dy_i whose index is r; 0 for the padding */
int PF_NAME(embedding_grad)(const pf_call *call) { return PF_RARE(embedding_grad)(call); }

/* What embedding_grad gives, in a row for each index: at the first occurrence of a row of the table
 * its sum, 0 elsewhere */
int PF_NAME(embedding_grad_rows)(const pf_call *call) { return PF_RARE(embedding_grad_rows)(call); }
