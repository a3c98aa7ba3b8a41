/* The product of one row with a matrix that the L2 cache holds, step after step. What it takes is
 * reading the matrix from there, which is fastest if all of it lies in a row. So it is kept in
 * strips: the columns of a few vectors, of all rows, one behind the other. A matrix is read to and
 * fro: what was read last is the likeliest to be still in the L1 cache, or in the L2 cache if not
 * all matrices of a step fit into it, and the next product with it begins there.
 *
 * Each sum is in the order of k, as those of the host's products are. */
#include "recurrent.h"

enum {
    VECTORS = PF_VECTOR_BYTES == 64 ? 4 : 8, /* of a strip; the last one is filled up with zeros */
    WIDTH = VECTORS * LANES,
    HOST_WIDTH = (PF_VECTOR_REGISTERS == 32 ? 16 : 8) * LANES, /* of its strips, in place */
    MOST_TERMS = 512,                                          /* it sums up so many at a time */
    LEAST_BYTES = 1 << 14 /* what is smaller stays in the L1 cache anyway */
};

typedef OF_REAL(pf_part) part;

/* c (columns) [+]= x (k) b (k, WIDTH) + [bias], of the first so many columns */
static void run(const real *x, const real *b, int64_t k, int64_t columns, real *c, const real *bias,
                int accumulate) {
    vec sum[VECTORS];
    SEQ_UNROLL for (int v = 0; v < VECTORS; v++) sum[v] = (vec){0};
    for (int64_t p = 0; p < k; p++, b += WIDTH)
        SEQ_UNROLL for (int v = 0; v < VECTORS; v++) sum[v] += x[p] * load(b + v * LANES);
    SEQ_UNROLL for (int v = 0; v < VECTORS; v++) {
        if (v * LANES >= columns) break;
        const part lanes = OF_REAL(pf_first_lanes)(columns - v * LANES);
        vec y = sum[v];
        if (accumulate) y += OF_REAL(pf_load_part)(c + v * LANES, lanes);
        if (bias) y += OF_REAL(pf_load_part)(bias + v * LANES, lanes);
        OF_REAL(pf_store_part)(c + v * LANES, lanes, y);
    }
}

matrix NAME(prepare_steps)(recurrence *r, const real *b, int64_t k, int64_t n, int64_t b_row) {
    const int64_t whole = (n + WIDTH - 1) / WIDTH * WIDTH, bytes = k * n * (int64_t)sizeof(real);
    const int lies_so = b_row == n && n <= HOST_WIDTH;
    const int pays = r->samples == 1 && r->steps >= MANY_STEPS && bytes >= LEAST_BYTES && !lies_so;
    real *to = pays && k <= MOST_TERMS ? take(&r->scratch, k * whole) : NULL;
    if (!to) return NAME(prepare)(r, b, k, n, b_row, 0);
    const matrix m = {.b = to, .k = k, .n = n, .turn = &r->turns[r->strips++]};
    for (int64_t first = 0; first < n; first += WIDTH)
        for (int64_t p = 0; p < k; p++)
            for (int64_t j = first; j < first + WIDTH; j += LANES, to += LANES) {
                const part lanes = OF_REAL(pf_first_lanes)(j < n ? n - j : 0);
                store(to, OF_REAL(pf_load_part)(b + p * b_row + j, lanes));
            }
    return m;
}

void NAME(multiply_strips)(const matrix *b, const real *x, real *c, const real *bias,
                           int accumulate) {
    const int64_t count = (b->n + WIDTH - 1) / WIDTH;
    const int backwards = *b->turn ^= 1;
    for (int64_t i = 0; i < count; i++) {
        const int64_t j = (backwards ? count - 1 - i : i) * WIDTH;
        run(x, b->b + j * b->k, b->k, b->n - j, c + j, bias ? bias + j : NULL, accumulate);
    }
}
