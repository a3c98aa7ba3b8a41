/* The product of one row with a matrix that the L2 cache holds, step after step. What it takes is
 * reading the matrix from there, which is fastest if all of it lies in a row. So it is kept in
 * strips: the columns of a few vectors, of all rows, one behind the other. The last strip of a
 * product is still in the L1 cache for the next one, which begins with it.
 *
 * Each sum is in the order of k, as those of the host's products are. */
#include "recurrent.h"
#include "vectors.h"

enum {
    VECTORS = PF_VECTOR_BYTES == 64 ? 4 : 8,           /* of a strip; the last one may have less */
    HOST_VECTORS = PF_VECTOR_REGISTERS == 32 ? 16 : 8, /* of the host's strips, in place */
    MOST_TERMS = 512,                                  /* the host sums up so many at a time */
    LEAST_BYTES = 1 << 14 /* what is smaller stays in the L1 cache anyway */
};

typedef OF_REAL(pf_part) part;

/* c (columns) [+]= x (k) b (k, vectors) + [bias] */
typedef struct {
    const real *x, *b, *bias;
    real *c;
    int64_t k, columns;
    int accumulate;
} strip;

__attribute__((always_inline)) static inline void run(const int vectors, const strip *s) {
    const real *b = s->b, *x = s->x;
    vec sum[VECTORS];
    SEQ_UNROLL for (int v = 0; v < vectors; v++) sum[v] = (vec){0};
    for (int64_t p = 0; p < s->k; p++, b += vectors * LANES)
        SEQ_UNROLL for (int v = 0; v < vectors; v++) sum[v] += x[p] * load(b + v * LANES);
    SEQ_UNROLL for (int v = 0; v < vectors; v++) {
        const part lanes = OF_REAL(pf_first_lanes)(s->columns - v * LANES);
        real *c = s->c + v * LANES;
        vec y = sum[v];
        if (s->accumulate) y += OF_REAL(pf_load_part)(c, lanes);
        if (s->bias) y += OF_REAL(pf_load_part)(s->bias + v * LANES, lanes);
        OF_REAL(pf_store_part)(c, lanes, y);
    }
}

#define STRIP(vectors) \
    static void run_##vectors(const strip *s) { run(vectors, s); }
STRIP(1)
STRIP(2) STRIP(3) STRIP(4)
#if PF_VECTOR_BYTES < 64
    STRIP(5) STRIP(6) STRIP(7) STRIP(8)
#endif
        static void (*const run_of[])(const strip *) = {
            NULL,  run_1, run_2, run_3, run_4,
#if PF_VECTOR_BYTES < 64
            run_5, run_6, run_7, run_8,
#endif
};

static inline int64_t vectors_for(int64_t n) { return (n + LANES - 1) / LANES; }

matrix NAME(prepare_steps)(recurrence *r, const real *b, int64_t k, int64_t n, int64_t b_row) {
    const int64_t all = vectors_for(n), bytes = k * n * (int64_t)sizeof(real);
    const int lies_so = b_row == n && all <= HOST_VECTORS;
    const int pays = r->samples == 1 && r->steps >= MANY_STEPS && bytes >= LEAST_BYTES && !lies_so;
    real *to = pays && k <= MOST_TERMS ? take(&r->scratch, k * all * LANES) : NULL;
    if (!to) return NAME(prepare)(r, b, k, n, b_row, 0);
    const matrix m = {.b = to, .k = k, .n = n, .turn = &r->turn};
    for (int64_t first = 0; first < all; first += VECTORS)
        for (int64_t p = 0; p < k; p++)
            for (int64_t v = first; v < min_of(first + VECTORS, all); v++, to += LANES) {
                const part lanes = OF_REAL(pf_first_lanes)(n - v * LANES);
                store(to, OF_REAL(pf_load_part)(b + p * b_row + v * LANES, lanes));
            }
    return m;
}

void NAME(multiply_strips)(const matrix *b, const real *x, real *c, const real *bias,
                           int accumulate) {
    const int64_t all = vectors_for(b->n), count = (all + VECTORS - 1) / VECTORS;
    const int backwards = *b->turn ^= 1;
    for (int64_t i = 0; i < count; i++) {
        const int64_t first = VECTORS * (backwards ? count - 1 - i : i), j = first * LANES;
        const strip s = {.x = x,
                         .b = b->b + j * b->k,
                         .bias = bias ? bias + j : NULL,
                         .c = c + j,
                         .k = b->k,
                         .columns = b->n - j,
                         .accumulate = accumulate};
        run_of[min_of(all - first, VECTORS)](&s);
    }
}
