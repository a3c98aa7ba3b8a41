/* The inner loop of the matrix product: a tile of rows x columns sums that stay in registers while
 * they run along k. Each vector loaded from b serves all rows of the tile, and each number of a,
 * broadcast, all its columns. */
#include "gemm_tile.h"

/* ---- sums of columns that do not fill vectors: stored from memory, by functions for all tiles,
 * since storing parts of vectors takes much code ---- */

/* What is finished already. Where the rows of c lie end to end, what a whole vector writes beyond
 * its row is the beginning of the next ones, which are stored after it; the last rows, behind which
 * c may end, are stored in parts. */
PF_ONCE static void store_edge(const gemm_tile *t, int64_t rows, int64_t width,
                               const real edge[][COLUMNS]) {
    real *c = t->c;
    const int64_t c_row = t->c_row, vectors = vectors_for(width), whole = rows - t->edge_rows;
    int64_t i = 0;
    for (; i < whole; i++, c += c_row) {
        store(c, load(edge[i]));
        if (vectors > 1) store(c + LANES, load(edge[i] + LANES));
    }
    for (; i < rows; i++, c += c_row)
        for (int64_t j = 0; j < width; j += LANES)
            store_part(c + j, first_lanes(width - j), load(edge[i] + j));
}

/* What is added to the elements of another matrix, and so in parts anyway. */
PF_ONCE static void add_edge(const gemm_tile *t, int64_t rows, int64_t width,
                             const real edge[][COLUMNS]) {
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

/* ---- the tile ---- */

/* sum += factor * column, rounded once as in add_product, in the sum's own register. Of the three
 * forms of the instruction GCC would choose others as well, and move sums from register to register
 * where terms follow. */
__attribute__((always_inline)) static inline void accumulate(vec *sum, vec factor, vec column) {
#if PF_SIDE_BY_SIDE && PF_REAL_BITS == 32
    __asm__("vfmadd231ps %2, %1, %0" : "+x"(*sum) : "x"(factor), "x"(column));
#elif PF_SIDE_BY_SIDE
    __asm__("vfmadd231pd %2, %1, %0" : "+x"(*sum) : "x"(factor), "x"(column));
#else
    *sum = add_product(*sum, factor, column);
#endif
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
        PF_UNROLL for (int v = 0; v < vectors; v++) accumulate(&sum[i][v], factor, columns[v]);
    }
}

/* Inlined with all arguments but t constant, so that loops unroll and the sums become registers. */
__attribute__((always_inline)) static inline void run_tile(const int rows, const int vectors,
                                                           const enum tile_kind kind,
                                                           const gemm_tile *t) {
    vec sum[ROWS][VECTORS];
    PF_UNROLL for (int i = 0; i < rows; i++) PF_UNROLL for (int v = 0; v < vectors; v++) sum[i][v] =
        (vec){0};
    const real *b = t->b;
    real *panel = t->panel;
    const int cut = kind == ANYWHERE;
    const int64_t b_row = t->b_row, ahead_row = t->ahead_row;
    const int64_t step = PF_SIDE_BY_SIDE && kind == IN_PANEL ? 1 : t->step;
    const real *ahead = t->ahead;
    if (t->fetch)
        PF_UNROLL for (int i = 0; i < rows; i++) PF_UNROLL for (int v = 0; v < vectors; v++)
            /* The last number: where the first one's line is another one, it was the last of the
             * panel before. */
            __builtin_prefetch(t->c + i * t->c_row + (v + 1) * LANES - 1, 1);
    const part last = t->last;
    const real *const *first = t->row;
    for (int64_t taps = t->taps; taps > 0; taps--, first += t->tap_stride) {
        if (PF_LEAN) /* most have one tap: the compiler is to prepare nothing for several */
            __asm__ volatile("" ::: "memory");
        const real *a[ROWS], *const *row = first;
        int64_t offset = t->offset, at = 0;
        if (kind == BESIDE)
            PF_UNROLL for (int i = 0; i < rows; i++) a[i] = *row + offset + i;
        else
            PF_UNROLL for (int i = 0; i < rows; i++, row += t->row_stride, offset += t->apart)
                a[i] = *row != t->zero ? *row + offset : *row;
        if (PF_LEAN && !cut) {
            const int terms = kind == BESIDE ? TERMS_BESIDE : TERMS;
            for (int64_t rounds = t->depth / terms; rounds > 0; rounds--) {
                PF_UNROLL for (int term = 0; term < terms; term++)
                    add_term(rows, vectors, sum, a, at + term * step, b + term * vectors * LANES);
                b += terms * vectors * LANES;
                at += terms * step;
            }
            PF_ROLLED for (int64_t rest = t->depth % terms; rest > 0; rest--) {
                add_term(rows, vectors, sum, a, at, b);
                b += vectors * LANES;
                at += step;
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
                PF_UNROLL for (int v = 0; v < vectors; v++)
                    accumulate(&sum[i][v], factor, columns[v]);
            }
            __builtin_prefetch(ahead, 0, 2);
            ahead += ahead_row;
            b += b_row;
            at += step;
        }
    }
    real edge[ROWS][COLUMNS];
    const int narrow = !PF_MASKED_LOADS && last != first_lanes(LANES);
    const int64_t width = (vectors - 1) * LANES + (narrow ? (int64_t)last : LANES);
    if (narrow && (t->add || t->residual)) {
        PF_UNROLL for (int i = 0; i < rows; i++) PF_UNROLL for (int v = 0; v < vectors; v++)
            store(&edge[i][v * LANES], sum[i][v]);
        add_edge(t, rows, width, edge);
        return;
    }
    if (t->scale != 1)
        PF_UNROLL for (int i = 0; i < rows; i++) PF_UNROLL for (int v = 0; v < vectors; v++)
            sum[i][v] *= t->scale;
    real *c = t->c;
    const int64_t c_row = t->c_row;
#define PF_PART(v) ((v) == vectors - 1 ? last : first_lanes(LANES))
#define PF_MASK(v) (PF_MASKED_LOADS && (v) == vectors - 1 ? last : first_lanes(LANES))
    if (t->add)
        PF_UNROLL for (int i = 0; i < rows; i++) PF_UNROLL for (int v = 0; v < vectors; v++)
            sum[i][v] += load_part(c + i * c_row + v * LANES, PF_MASK(v));
    if (t->bias) PF_UNROLL for (int v = 0; v < vectors; v++) {
            const vec bias = load_part(t->bias + v * LANES, PF_PART(v));
            PF_UNROLL for (int i = 0; i < rows; i++) sum[i][v] += bias;
        }
    if (t->residual)
        PF_UNROLL for (int i = 0; i < rows; i++) PF_UNROLL for (int v = 0; v < vectors; v++)
            sum[i][v] += load_part(t->residual + i * t->residual_row + v * LANES, PF_MASK(v));
    if (t->relu)
        PF_UNROLL for (int i = 0; i < rows; i++) PF_UNROLL for (int v = 0; v < vectors; v++)
            sum[i][v] = relu(sum[i][v]);
    if (narrow) {
        PF_UNROLL for (int i = 0; i < rows; i++) PF_UNROLL for (int v = 0; v < vectors; v++)
            store(&edge[i][v * LANES], sum[i][v]);
        store_edge(t, rows, width, edge);
        return;
    }
    PF_UNROLL for (int i = 0; i < rows; i++) PF_UNROLL for (int v = 0; v < vectors; v++)
        store_part(c + i * c_row + v * LANES, PF_MASK(v), sum[i][v]);
#undef PF_MASK
#undef PF_PART
}

/* ---- one function for each number of rows and vectors ---- */

enum { FEW_ROWS = 5 };

/* `cut`, of the kind ANYWHERE, is a little slower than `panel`, but also handles a partial last
 * vector and can leave a copy of b. Where it loses less than 4 %, it is all there is, and where
 * rows are few, which only the smallest products have. */
#define PF_TILE(name, kind, rows, vectors) \
    static void name##_##rows##_##vectors(const gemm_tile *t) { run_tile(rows, vectors, kind, t); }
#define PF_UNLESS_FEW(name, rows, vectors) \
    rows < FEW_ROWS ? cut_##rows##_##vectors : name##_##rows##_##vectors
#define PF_ALL_CUT(rows, vectors) \
    {cut_##rows##_##vectors, cut_##rows##_##vectors, cut_##rows##_##vectors}
#define PF_PANEL_OR_CUT(rows, vectors)                            \
    {cut_##rows##_##vectors, PF_UNLESS_FEW(panel, rows, vectors), \
     PF_UNLESS_FEW(panel, rows, vectors)}
#if PF_SMALL || (!PF_LEAN && (PF_REAL_BITS == 64 || PF_VECTOR_REGISTERS == 16))
#define PF_TILES(rows) PF_TILE(cut, ANYWHERE, rows, 1) PF_TILE(cut, ANYWHERE, rows, 2)
#define PF_ENTRY(rows) {PF_ALL_CUT(rows, 1), PF_ALL_CUT(rows, 2)},
#elif PF_VECTOR_BYTES == 64 && PF_REAL_BITS == 32
#define PF_TILES(rows)              \
    PF_TILE(cut, ANYWHERE, rows, 1) \
    PF_TILE(cut, ANYWHERE, rows, 2) \
    PF_TILE(panel, IN_PANEL, rows, 1) PF_TILE(panel, IN_PANEL, rows, 2)
#define PF_ENTRY(rows) {PF_PANEL_OR_CUT(rows, 1), PF_PANEL_OR_CUT(rows, 2)},
#elif PF_SIDE_BY_SIDE
#define PF_TILES(rows)              \
    PF_TILE(cut, ANYWHERE, rows, 1) \
    PF_TILE(cut, ANYWHERE, rows, 2) \
    PF_TILE(panel, IN_PANEL, rows, 2) PF_TILE(beside, BESIDE, rows, 2)
#define PF_ENTRY(rows)    \
    {PF_ALL_CUT(rows, 1), \
     {cut_##rows##_2, PF_UNLESS_FEW(panel, rows, 2), PF_UNLESS_FEW(beside, rows, 2)}},
#else
#define PF_TILES(rows)              \
    PF_TILE(cut, ANYWHERE, rows, 1) \
    PF_TILE(cut, ANYWHERE, rows, 2) PF_TILE(panel, IN_PANEL, rows, 2)
#define PF_ENTRY(rows) {PF_ALL_CUT(rows, 1), PF_PANEL_OR_CUT(rows, 2)},
#endif

#if PF_SMALL
#define PF_EACH_ROWS(do) \
    do (1) do(2)
#elif PF_VECTOR_REGISTERS == 32
#define PF_EACH_ROWS(do) \
    do (1) do(2) do(3) do(4) do(5) do(6) do(7) do(8)
#elif PF_VECTOR_BYTES == 32
#define PF_EACH_ROWS(do) \
    do (1) do(2) do(3) do(4) do(5) do(6)
#else
#define PF_EACH_ROWS(do) \
    do (1) do(2) do(3) do(4)
#endif
PF_EACH_ROWS(PF_TILES)
const tile_function PF_NAME(gemm_tiles)[ROWS][VECTORS][TILE_KINDS] = {PF_EACH_ROWS(PF_ENTRY)};
