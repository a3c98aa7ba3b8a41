/* The inner loop of the matrix product: a tile of rows x columns sums that stay in registers while
 * they run along k. Each vector loaded from b serves all rows of the tile, and each number of a,
 * broadcast, all its columns. */
#ifndef PYFRAME_GEMM_TILE_H
#define PYFRAME_GEMM_TILE_H

#include "vector.h"

/* Programs that share a core, each on a hyperthread, share what it starts in a cycle and its L1 and
 * L2 caches. So with vectors of 32 bytes or more the inner loop of most tiles has no instruction
 * that can be spared, and a panel takes at most 32 kB. AVX2 takes twice the instructions of AVX-512
 * for its sums: there that loop takes two terms at a time, and the rows of a tile lie side by side
 * in strips, so that they are one stream instead of six. */
#define PF_LEAN (PF_VECTOR_BYTES >= 32)
#define PF_SIDE_BY_SIDE (PF_VECTOR_BYTES == 32)

enum {
    VECTORS = 2, /* of columns; besides the sums, registers hold a row of b and a number of a */
    ROWS = PF_SMALL             ? 2
    : PF_VECTOR_REGISTERS == 32 ? 8
    : PF_VECTOR_BYTES == 32     ? 6
                                : 4,
    COLUMNS = VECTORS * LANES,
    DEPTH = PF_LEAN ? 256 : 512,    /* terms of a sum at a time; these partial sums are added up */
    TERMS = PF_SIDE_BY_SIDE ? 2 : 1 /* that the loop of a tile in a panel takes at once */
};

/* c[i][j] = f(scale sum_p a[i][p] b[p][j] + ...), i < rows, j < columns. */
typedef struct {
    /* The terms run over `taps` stretches of `depth` each. Row i of a has tap t i * apart + offset
     * behind row[t * tap_stride + i * row_stride], its terms `step` apart, except for a row whose
     * pointer is `zero`, which is all zeros. */
    const real *const *row;
    const real *zero;
    int64_t tap_stride, row_stride, apart, taps, depth, offset, step;
    /* b, in full vectors, or with the last one cut to `last` lanes. */
    const real *b;
    int64_t b_row;
    part last;
    const real *ahead; /* prefetched into the L2 cache meanwhile, ahead_row apart */
    int64_t ahead_row;
    real *panel; /* where to leave a copy of b in full vectors, or NULL */
    real *c;
    int64_t c_row;
    int fetch; /* ask for c beforehand: it will be read, or is likely not in the cache */
    /* What is done to the sums before they are stored, in this order. */
    real scale;
    int add;              /* c += instead of c = */
    const real *bias;     /* one a column, or NULL */
    const real *residual; /* one an element, or NULL */
    int64_t residual_row;
    int relu;
} pf_tile;

/* The last step of pf_tile_run, for columns that do not fill vectors. One function for all tiles,
 * since storing parts of vectors takes much code. */
__attribute__((noinline, unused)) static void store_edge(const pf_tile *t, int64_t rows,
                                                         int64_t width, real edge[][COLUMNS]) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < width; j += LANES) {
            const part lanes = first_lanes(width - j);
            real *c = t->c + i * t->c_row + j;
            vec x = load(&edge[i][j]);
            if (t->scale != 1) x *= t->scale; /* rounded here, as in full vectors */
            if (t->add) x += load_part(c, lanes);
            if (t->bias) x += load_part(t->bias + j, lanes);
            if (t->residual) x += load_part(t->residual + i * t->residual_row + j, lanes);
            store_part(c, lanes, t->relu ? relu(x) : x);
        }
}

/* sum[i][v] += a[i][at] b[v], b being in full vectors */
__attribute__((always_inline)) static inline void add_term(const int rows, const int vectors,
                                                           vec sum[][VECTORS],
                                                           const real *const a[], int64_t at,
                                                           const real *b) {
    vec columns[VECTORS];
    PF_UNROLL for (int v = 0; v < vectors; v++) columns[v] = load(b + v * LANES);
    PF_UNROLL for (int i = 0; i < rows; i++) {
        const vec factor = splat(a[i][at]);
        PF_UNROLL for (int v = 0; v < vectors; v++) sum[i][v] += factor * columns[v];
    }
}

/* Inlined with all arguments but t constant, so that loops unroll and the sums become registers. */
__attribute__((always_inline)) static inline void pf_tile_run(const int rows, const int vectors,
                                                              const int cut, const pf_tile *t) {
    vec sum[ROWS][VECTORS];
    PF_UNROLL for (int i = 0; i < rows; i++) PF_UNROLL for (int v = 0; v < vectors; v++) sum[i][v] =
        (vec){0};
    const real *b = t->b;
    real *panel = t->panel;
    const int64_t b_row = t->b_row, step = t->step, ahead_row = t->ahead_row;
    const real *ahead = t->ahead;
    if (t->fetch)
        PF_UNROLL for (int i = 0; i < rows; i++) PF_UNROLL for (int v = 0; v < vectors; v++)
            __builtin_prefetch(t->c + i * t->c_row + v * LANES, 1);
    const part last = t->last;
    const real *const *first = t->row;
    for (int64_t taps = t->taps; taps > 0; taps--, first += t->tap_stride) {
        if (PF_LEAN) /* most have one tap: the compiler is to prepare nothing for several */
            __asm__ volatile("" ::: "memory");
        const real *a[ROWS], *const *row = first;
        int64_t offset = t->offset, at = 0;
        PF_UNROLL for (int i = 0; i < rows; i++, row += t->row_stride, offset += t->apart) a[i] =
            *row != t->zero ? *row + offset : *row;
        if (PF_LEAN && !cut) { /* from a panel */
            for (int64_t rounds = t->depth / TERMS; rounds > 0; rounds--) {
                PF_UNROLL for (int term = 0; term < TERMS; term++)
                    add_term(rows, vectors, sum, a, at + term * step, b + term * vectors * LANES);
                b += TERMS * vectors * LANES;
                at += TERMS * step;
            }
            if (t->depth % TERMS) {
                add_term(rows, vectors, sum, a, at, b);
                b += vectors * LANES;
            }
            continue;
        }
        for (int64_t p = t->depth; p > 0; p--) {
            vec columns[VECTORS];
            PF_UNROLL for (int v = 0; v < vectors; v++) columns[v] =
                cut && PF_MASKED_LOADS && v == vectors - 1 ? load_part(b + v * LANES, last)
                                                           : load(b + v * LANES);
            if (cut && panel) {
                PF_UNROLL for (int v = 0; v < vectors; v++) store(panel + v * LANES, columns[v]);
                panel += vectors * LANES;
            }
            PF_UNROLL for (int i = 0; i < rows; i++) {
                const vec factor = splat(a[i][at]);
                PF_UNROLL for (int v = 0; v < vectors; v++) sum[i][v] += factor * columns[v];
            }
            __builtin_prefetch(ahead, 0, 2);
            ahead += ahead_row;
            b += b_row;
            at += step;
        }
    }
    if (!PF_MASKED_LOADS && last != first_lanes(LANES)) {
        real edge[ROWS][COLUMNS];
        PF_UNROLL for (int i = 0; i < rows; i++) PF_UNROLL for (int v = 0; v < vectors; v++)
            store(&edge[i][v * LANES], sum[i][v]);
        store_edge(t, rows, (vectors - 1) * LANES + (int64_t)last, edge);
        return;
    }
    if (t->scale != 1)
        PF_UNROLL for (int i = 0; i < rows; i++) PF_UNROLL for (int v = 0; v < vectors; v++)
            sum[i][v] *= t->scale;
    real *c = t->c;
    const int64_t c_row = t->c_row;
#define PF_PART(v) (PF_MASKED_LOADS && (v) == vectors - 1 ? last : first_lanes(LANES))
    if (t->add)
        PF_UNROLL for (int i = 0; i < rows; i++) PF_UNROLL for (int v = 0; v < vectors; v++)
            sum[i][v] += load_part(c + i * c_row + v * LANES, PF_PART(v));
    if (t->bias) PF_UNROLL for (int v = 0; v < vectors; v++) {
            const vec bias = load_part(t->bias + v * LANES, PF_PART(v));
            PF_UNROLL for (int i = 0; i < rows; i++) sum[i][v] += bias;
        }
    if (t->residual)
        PF_UNROLL for (int i = 0; i < rows; i++) PF_UNROLL for (int v = 0; v < vectors; v++)
            sum[i][v] += load_part(t->residual + i * t->residual_row + v * LANES, PF_PART(v));
    if (t->relu)
        PF_UNROLL for (int i = 0; i < rows; i++) PF_UNROLL for (int v = 0; v < vectors; v++)
            sum[i][v] = relu(sum[i][v]);
    PF_UNROLL for (int i = 0; i < rows; i++) PF_UNROLL for (int v = 0; v < vectors; v++)
        store_part(c + i * c_row + v * LANES, PF_PART(v), sum[i][v]);
#undef PF_PART
}

#endif
