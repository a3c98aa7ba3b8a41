/* The matrix product: blocks of k, panels of columns, tiles of rows.
 *
 *     for each block of k (at most DEPTH terms, so that a panel stays in the cache)
 *         for each panel of COLUMNS columns of b
 *             for each tile of ROWS rows of a:  c (ROWS, COLUMNS) += a (ROWS, DEPTH) panel
 *
 * a is read where it lies, through a table of pointers to its rows. b is copied into a panel of
 * consecutive vectors where that pays: while the first tile of rows uses it, so the copy costs
 * little more than its stores; or beforehand, if b has to be transposed. */
#include "gemm.h"

#include "activation.h"
#include "cost.h"
#include "gemm_row.h"
#include "gemm_tile.h"
#include "parallel.h"

#include <stdatomic.h>

enum {
    PART_ROWS = PF_SIDE_BY_SIDE ? 264 : 256, /* with DEPTH terms each they are in the L2 cache */
    PACK_TILES = 3, /* from so many tiles of rows on copying a panel of b pays, ... */
    FAR_ROW = 2048, /* ... or from one less if its rows lie a multiple of so many bytes apart */
    LONGEST = 1024, /* terms of few columns */
    LINE = 64 / (int)sizeof(real), /* elements in a line of the cache */
    /* Of a panel the next lines are asked for by their last numbers, or those of vectors if these
     * are shorter: arrays of NumPy begin anywhere, and what comes before is in a line already read.
     */
    LAST = (PF_LEAN ? (int)LINE : (int)LANES) - 1,
    NEAR_B = 1 << 16,      /* so many elements of b are in the L2 cache */
    NEAR_C = 1 << 16,      /* a result of so many elements is in the L2 cache, ... */
    FAR_C = 1 << 18,       /* ... and of so many it is not */
    NEAR_A = 1 << 22,      /* so many bytes of a are in the L2 or L3 cache */
    ROWS_AT_ONCE = 64,     /* packed, or finished */
    PARTS = 16,            /* enough to keep several threads busy */
    MOST_PIECES = 16,      /* of scratch memory, a bit each */
    LEAST_ROWS = 64,       /* of a part, where a thread packs for itself */
    PART_TERMS = 1 << 18,  /* below so many products a part is not worth a thread */
    IN_ONE_PART = 1 << 20, /* so many, where terms are few, are done before there are tiles */
    TERMS_PER_NANOSECOND = PF_VECTOR_TERMS_PER_NANOSECOND * LANES
};

/* ---- the blocks of k ---- */

/* A stretch of k: `taps` whole taps, or `depth` terms of a single tap, starting at `from`. */
typedef struct {
    int64_t tap, taps, from, depth;
} k_block;

typedef struct {
    int64_t taps, depth;  /* of all of k */
    int64_t taps_at_once; /* if a tap is short, ... */
    int64_t pieces;       /* ... and into how many it is cut if it is long */
    int64_t count;
} k_blocks;

PF_ONCE static k_blocks blocks_of(const pf_gemm *g) {
    /* With k = 0 there are no taps: `a_rows` would point to no rows. */
    if (g->k == 0 || (g->taps <= 1 && g->k <= DEPTH))
        return (k_blocks){.taps = 1, .depth = g->k, .taps_at_once = 1, .pieces = 1, .count = 1};
    k_blocks b = {.taps = g->taps > 1 ? g->taps : 1};
    b.depth = g->k / b.taps;
    b.pieces = b.depth > DEPTH ? (b.depth + DEPTH - 1) / DEPTH : 1;
    b.taps_at_once = b.pieces > 1 ? 1 : DEPTH / (b.depth > 0 ? b.depth : 1);
    if (b.taps_at_once > b.taps) b.taps_at_once = b.taps;
    b.count = (b.taps + b.taps_at_once - 1) / b.taps_at_once * b.pieces;
    return b;
}

static k_block block_at(const k_blocks *b, int64_t index) {
    if (b->count == 1) return (k_block){.taps = b->taps, .depth = b->depth};
    const int64_t tap = index / b->pieces * b->taps_at_once, piece = index % b->pieces;
    const int64_t left = b->taps - tap, from = b->depth * piece / b->pieces;
    return (k_block){.tap = tap,
                     .taps = left < b->taps_at_once ? left : b->taps_at_once,
                     .from = from,
                     .depth = b->depth * (piece + 1) / b->pieces - from};
}

/* ---- panels of b ---- */

static inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }

/* The lanes of the last of the vectors that hold `width` columns. */
static inline part last_lanes(int64_t width) {
    return first_lanes(width - (vectors_for(width) - 1) * LANES);
}

/* panel[p][j] = b[p][j], p < depth, j < width filled up to whole vectors */
PF_ONCE static void pack_rows(const real *b, int64_t b_row, int64_t depth, int64_t width,
                              real *panel, int64_t panel_row) {
    const int64_t vectors = vectors_for(width);
    const part last = last_lanes(width);
    for (int64_t p = 0; p < depth; p++, b += b_row, panel += panel_row)
        for (int64_t v = 0; v < vectors; v++)
            store(panel + v * LANES,
                  load_part(b + v * LANES, v + 1 < vectors ? first_lanes(LANES) : last));
}

/* panel[p][j] = b[j][p], p < depth, j < width filled up to whole vectors: squares of LANES x LANES
 * are transposed in registers. */
PF_ONCE static void pack_columns(const real *b, int64_t b_row, int64_t depth, int64_t width,
                                 real *panel, int64_t panel_row) {
    for (int64_t j = 0; j < width; j += LANES) {
        const int64_t rows = min(width - j, LANES);
        for (int64_t p = 0; p < depth; p += LANES) {
            const int64_t columns = min(depth - p, LANES);
            const part lanes = first_lanes(columns);
            vec square[LANES];
            if (j + LANES < width)
                PF_ROLLED for (int i = 0; i < LANES; i++)
                    __builtin_prefetch(b + (j + LANES + i) * b_row + p);
            if (rows == LANES && columns == LANES) {
                PF_UNROLL for (int i = 0; i < LANES; i++) square[i] = load(b + (j + i) * b_row + p);
            } else if (PF_LEAN && columns == LANES) {
                PF_UNROLL for (int i = 0; i < LANES; i++) square[i] =
                    i < rows ? load(b + (j + i) * b_row + p) : (vec){0};
            } else {
                for (int i = 0; i < LANES; i++)
                    square[i] = i < rows ? load_part(b + (j + i) * b_row + p, lanes) : (vec){0};
            }
            transpose(square);
            for (int i = 0; i < columns; i++) store(panel + (p + i) * panel_row + j, square[i]);
        }
    }
}

PF_ONCE static void pack(const pf_gemm *g, int64_t p, int64_t depth, int64_t j, int64_t width,
                         real *panel) {
    const real *b = g->b;
    if (g->b_transposed && g->b_row != 1) /* a column of one term each is a row */
        pack_columns(b + j * g->b_row + p, g->b_row, depth, width, panel,
                     vectors_for(width) * LANES);
    else
        pack_rows(b + p * g->b_row + j, g->b_row, depth, width, panel, vectors_for(width) * LANES);
}

int64_t PF_NAME(gemm_packed_size)(const pf_gemm *g) { return vectors_for(g->n) * LANES * g->k; }

void PF_NAME(gemm_pack)(const pf_gemm *g, void *panels) {
    real *packed = panels;
    const k_blocks blocks = blocks_of(g);
    for (int64_t i = 0; i < blocks.count; i++) {
        const k_block block = block_at(&blocks, i);
        const int64_t p = block.tap * blocks.depth + block.from, depth = block.taps * block.depth;
        for (int64_t j = 0; j < g->n; j += COLUMNS) {
            const int64_t width = min(g->n - j, COLUMNS);
            pack(g, p, depth, j, width, packed);
            packed += vectors_for(width) * LANES * depth;
        }
    }
}

/* ---- the rest of the epilogue, run while a stored tile is still in the L1 cache ---- */

PF_ONCE static void finish(const pf_gemm *g, int64_t i, int64_t rows, int64_t j, int64_t width) {
    const real *saved = g->saved ? (const real *)g->saved + i * g->saved_row + j : NULL;
    PF_NAME(activate_all)(g->activation, (real)g->slope, rows, width,
                          (real *)g->c + i * g->c_row + j, g->c_row, saved, g->saved_row);
}

/* ---- parts: row blocks times groups of panels ---- */

/* A product that is cut into parts: blocks of rows times groups of panels. */
typedef struct {
    const pf_gemm *g;
    k_blocks blocks;
    int64_t row_block, row_parts; /* rows of a block, whole tiles; how many blocks there are */
    int64_t panels, column_parts;
    int64_t block, block_count; /* the blocks of k to be run */
    real *strips;               /* where rows of a are packed, or NULL; ... */
    int64_t row;                /* ... the first of these rows; ... */
    int64_t pieces;             /* ... and how many threads find room */
    atomic_uint *packing;       /* a bit for each piece of the strips that is in use */
} cut;

/* The tiles of a number of rows have nearly equal height, instead of full ones and one small rest:
 * the first `higher` of them have height + 1 rows. */
typedef struct {
    int64_t count, height, higher;
} heights;

static inline heights heights_of(int64_t rows) {
    const int64_t count = (rows + ROWS - 1) / ROWS;
    return (heights){.count = count, .height = rows / count, .higher = rows % count};
}

/* The distance between packed rows of a. Not a power of two, which would map all rows to the same
 * few sets of the L1 cache. */
static inline int64_t strip_row(int64_t depth) { return (vectors_for(depth) + 1) * LANES; }

/* The same between tiles whose rows are side by side. The last vector is not full. */
static inline int64_t strip_tile(int64_t depth) {
    return (vectors_for(depth * STRIP_STEP) + 1) * LANES;
}

/* Packs the strips of rows `whole->row` to end for one block of k. */
PF_ONCE static void pack_strips(const cut *whole, int64_t end) {
    const pf_gemm *g = whole->g;
    const k_block block = block_at(&whole->blocks, whole->block);
    const real *a = (const real *)g->a + whole->row * g->a_row + block.from * g->a_step;
    real *to = whole->strips;
    const heights of = heights_of(end - whole->row);
    const int64_t to_row = strip_row(block.depth);
    if (PF_SIDE_BY_SIDE)
        for (int64_t tile = 0, rows; tile < of.count; tile++, a += rows * g->a_row) {
            rows = of.height + (tile < of.higher);
            if (g->a_step == 1)
                pack_columns(a, g->a_row, block.depth, rows, to, STRIP_STEP);
            else
                pack_rows(a, g->a_step, block.depth, rows, to, STRIP_STEP);
            to += strip_tile(block.depth);
        }
    else
        for (int64_t i = whole->row, rows; i < end; i += rows) {
            rows = min(end - i, ROWS_AT_ONCE);
            if (g->a_step != 1) pack_columns(a, g->a_step, rows, block.depth, to, to_row);
            for (int64_t r = 0; r < rows; r++, a += g->a_row, to += to_row)
                if (g->a_step == 1) memcpy(to, a, (size_t)block.depth * sizeof(real));
        }
}

/* Where the rows of a tile are, for one block of k: by a table, or all by the first one. */
static inline void find_rows(const cut *whole, const k_block *block, int64_t tile, int64_t top,
                             const real **first, gemm_tile *t) {
    const pf_gemm *g = whole->g;
    if (g->a_rows) {
        t->row = (const real *const *)g->a_rows + block->tap * t->tap_stride + top * t->row_stride;
        t->offset = g->a_offset + block->from * g->a_step + top * t->apart;
    } else if (whole->strips) {
        *first = whole->strips + (PF_SIDE_BY_SIDE ? tile * strip_tile(block->depth)
                                                  : (top - whole->row) * t->apart);
    } else {
        *first = (const real *)g->a + top * g->a_row + block->from * g->a_step;
    }
}

/* c (rows i to end, columns j to j + width) of one block of k */
static void run_panel(const cut *whole, const k_block *block, gemm_tile *t, int64_t i, int64_t end,
                      int64_t j, int64_t width, real *panel) {
    const pf_gemm *g = whole->g;
    const int64_t vectors = vectors_for(width), depth = block->taps * block->depth;
    const int64_t p = block->tap * whole->blocks.depth + block->from;
    const heights of = heights_of(end - i);
    const int64_t count = of.count;
    const int beside = !g->a_rows && t->apart == 1;
    int cut_short = 0;
    /* The tiles after the first prefetch what is read next: `fetches` stretches, next_tile apart,
     * one for each tile; a stretch has a number for each term, next_row apart. Or, if PF_LEAN, all
     * its lines are asked for between the tiles: `fetches` lines, next_tile apart, and as many
     * again next_row further on. */
    const real *next = NULL, *row;
    const int64_t row_lines = COLUMNS / LINE; /* of a panel */
    int64_t next_row = g->b_row, next_tile = LANES, fetches = PF_LEAN ? row_lines : VECTORS;
    int64_t lines = PF_LEAN && depth * g->n > NEAR_B ? depth * row_lines : 0, line = 0;
    const int64_t lines_at_once = lines ? lines / count + 1 : 0;
    t->last = last_lanes(width);
    t->edge_rows = g->c_row == g->n && g->n == width ? (vectors * LANES - 1) / width : ROWS;
    t->b = panel, t->b_row = vectors * LANES;
    t->panel = NULL;
    if (!g->a_rows) t->row = &row;
    if (g->b_packed) {
        t->b = (const real *)g->b + p * vectors_for(g->n) * LANES + j * depth;
        next = t->b + depth * COLUMNS + LAST, next_row = COLUMNS;
    } else if (g->b_transposed || (width % LANES != 0 && !PF_MASKED_LOADS)) {
        pack(g, p, depth, j, width, panel);
        if (PF_VECTOR_BYTES < 64 && g->b_transposed && count >= PACK_TILES && g->taps <= 1 &&
            j + 2 * COLUMNS <= g->n) {
            next = (const real *)g->b + (j + COLUMNS) * g->b_row + p;
            next_row = PF_LEAN ? LINE : 1, next_tile = g->b_row, fetches = COLUMNS;
        }
    } else {
        t->b = (const real *)g->b + p * g->b_row + j, t->b_row = g->b_row;
        cut_short = width % LANES != 0;
        const int is_panel = g->b_row == vectors * LANES; /* laid out as a copy would be */
        const int far = PF_VECTOR_BYTES < 64 && g->b_row * (int64_t)sizeof(real) % FAR_ROW == 0;
        if ((count >= PACK_TILES - far && !is_panel) || (cut_short && count > 1)) t->panel = panel;
        if (count >= PACK_TILES && j + 2 * COLUMNS <= g->n) next = t->b + COLUMNS + LAST;
    }
    for (int64_t tile = 0, top = i, rows; tile < count; tile++, top += rows) {
        rows = of.height + (tile < of.higher);
        find_rows(whole, block, tile, top, &row, t);
        t->c = (real *)g->c + top * g->c_row + j;
        if (t->residual) t->residual = (const real *)g->residual + top * g->residual_row + j;
        t->ahead = t->c, t->ahead_row = 0;
        if (PF_LEAN && next)
            for (int64_t n = min(lines, lines_at_once); n > 0; n--, lines--) {
                __builtin_prefetch(next + line * next_tile, 0, 2);
                if (++line == fetches) line = 0, next += next_row;
            }
        else if (next && tile >= 1 && tile <= fetches)
            t->ahead = next + (tile - 1) * next_tile, t->ahead_row = next_row;
        const int any = cut_short || t->panel || (PF_LEAN && t->b_row != vectors * LANES) ||
                        (PF_SIDE_BY_SIDE && !beside && t->step != 1);
        const enum tile_kind kind = any ? ANYWHERE : beside ? BESIDE : IN_PANEL;
        PF_NAME(gemm_tiles)[rows - 1][vectors - 1][kind](t);
        if (t->panel) { /* from now on b is read from the copy */
            t->b = panel, t->b_row = vectors * LANES;
            t->panel = NULL;
            cut_short = 0;
        }
    }
}

/* c (rows i to end, columns first to stop) */
static void run_range(const cut *whole, int64_t i, int64_t end, int64_t first, int64_t stop) {
    const pf_gemm *g = whole->g;
    real panel[DEPTH * COLUMNS] __attribute__((aligned(64)));
    const int shared = g->a_rows_shared || !g->a_rows; /* one pointer for all rows */
    gemm_tile t = {.zero = g->a_rows ? g->a_zero : NULL,
                   .tap_stride = shared ? 1 : g->m,
                   .row_stride = !shared,
                   .apart = shared ? g->a_row : 0,
                   .step = !whole->strips    ? g->a_step
                           : PF_SIDE_BY_SIDE ? STRIP_STEP
                                             : 1,
                   .c_row = g->c_row,
                   .scale = g->scale != 0 ? (real)g->scale : 1,
                   .residual_row = g->residual_row};
    const int finishes = g->activation != PF_NO_ACTIVATION && !whole->strips;
    /* A result that the L2 cache holds is finished as a whole: its rows may lie end to end. */
    const int at_once = (end - i) * (stop - first) <= NEAR_C;
    for (int64_t b = whole->block; b < whole->block + whole->block_count; b++) {
        const k_block block = block_at(&whole->blocks, b);
        const int is_last = b + 1 == whole->blocks.count;
        t.taps = block.taps;
        t.depth = block.depth;
        if (whole->strips) t.apart = PF_SIDE_BY_SIDE ? 1 : strip_row(block.depth);
        t.add = g->accumulate || b > 0;
        t.fetch = t.add || g->m * g->n >= FAR_C;
        t.relu = is_last && g->activation == PF_RELU && !g->saved;
        t.residual = is_last ? g->residual : NULL;
        for (int64_t j = first; j < stop; j += COLUMNS) {
            const int64_t width = min(stop - j, COLUMNS);
            t.bias = is_last && g->bias ? (const real *)g->bias + j : NULL;
            run_panel(whole, &block, &t, i, end, j, width, panel);
            if (is_last && finishes && !t.relu && !at_once) finish(g, i, end - i, j, width);
        }
        if (is_last && finishes && !t.relu && at_once) finish(g, i, end - i, first, stop - first);
    }
}

/* Whether reading a in place would be slow: columns of a large matrix touch many pages, and rows a
 * multiple of half a kilobyte apart share few sets of the cache; with AVX2 other rows are slower,
 * too. Each panel of columns reads a once; together the panels must gain more by a copy
 * than the copy costs. */
static int wants_strips(const pf_gemm *g) {
    const int64_t panels = g->a_step == 1 ? 8 : 4, bytes = g->m * g->k * (int64_t)sizeof(real);
    if (g->a_rows || bytes < (1 << 18) || g->n < panels * COLUMNS) return 0;
    if (g->a_step != 1 && g->a_row != 1) return 0; /* neither row-major nor transposed */
    return PF_SIDE_BY_SIDE || g->a_step != 1 || g->a_row * (int64_t)sizeof(real) % 512 == 0;
}

static int64_t round_up(int64_t x, int64_t step) { return (x + step - 1) / step * step; }

/* The strips of `rows` rows, whole tiles, for one block of k. */
static int64_t strips_size(const pf_gemm *g, int64_t rows) {
    const int64_t depth = min(g->k, DEPTH);
    return PF_SIDE_BY_SIDE ? rows / ROWS * strip_tile(depth) : rows * strip_row(depth);
}

/* A piece of scratch memory: the strips of one thread. */
int64_t PF_NAME(gemm_scratch_size)(const pf_gemm *g) {
    return wants_strips(g) ? strips_size(g, round_up(min(g->m, PART_ROWS), ROWS)) : 0;
}

/* Takes a piece that no other thread uses; if there is none, `pieces`. */
static int64_t take_piece(const cut *whole) {
    int64_t piece = 0;
    while (piece < whole->pieces && atomic_fetch_or(whole->packing, 1u << piece) >> piece & 1)
        piece++;
    return piece;
}

static void run_with_strips(const cut *all, int64_t i, int64_t end, int64_t first, int64_t stop) {
    const pf_gemm *g = all->g;
    cut own = *all;
    const int64_t piece = take_piece(all);
    if (piece == all->pieces) { /* a in place: slower, but the same bits */
        own.strips = NULL;
        run_range(&own, i, end, first, stop);
        return;
    }
    own.strips += piece * strips_size(g, all->row_block);
    own.row = i;
    own.block_count = 1;
    for (own.block = 0; own.block < own.blocks.count; own.block++) {
        pack_strips(&own, end);
        run_range(&own, i, end, first, stop);
    }
    /* Panel by panel it would read and write what lies far from each other. */
    if (g->activation && (g->activation != PF_RELU || g->saved))
        for (; i < end; i += ROWS_AT_ONCE)
            finish(g, i, min(end - i, ROWS_AT_ONCE), first, stop - first);
    atomic_fetch_and(all->packing, ~(1u << piece));
}

/* Neighbours have the same rows: a thread that takes some of them finds those of the layer before
 * in its own cache. */
static void run_part(void *context, int64_t index) {
    const cut *whole = context;
    const int64_t row_part = index / whole->column_parts, column_part = index % whole->column_parts;
    const int64_t i = row_part * whole->row_block;
    const int64_t end = min(i + whole->row_block, whole->g->m);
    const int64_t first = whole->panels * column_part / whole->column_parts * COLUMNS;
    const int64_t stop = whole->panels * (column_part + 1) / whole->column_parts * COLUMNS;
    if (whole->strips)
        run_with_strips(whole, i, end, first, min(stop, whole->g->n));
    else
        run_range(whole, i, end, first, min(stop, whole->g->n));
}

/* Chooses the parts of a product with strips. Threads with rows of their own pack all of b each,
 * those with columns of their own all of a; it is done only where there are not enough blocks of
 * rows for all threads. None of this changes a bit, since an element is summed in one order. */
static void divide(cut *whole) {
    const pf_gemm *g = whole->g;
    const int64_t threads = min(pf_threads_free(), PARTS);
    if (whole->row_parts >= 2 * threads || whole->row_parts % threads == 0) return;
    const int64_t row_parts = round_up(whole->row_parts, threads);
    if (g->m >= g->n && g->m >= LEAST_ROWS * row_parts)
        whole->row_parts = row_parts;
    else
        whole->column_parts = min(whole->panels, threads);
}

/* The bias of n columns, repeated until it fills a vector; n <= LANES. */
static const real *repeat_bias(const pf_gemm *g, real to[LANES]) {
    const real *bias = g->bias;
    if (!bias) return NULL;
    PF_ROLLED for (int i = 0, j = 0; i < LANES; i++, j = j + 1 < g->n ? j + 1 : 0) to[i] = bias[j];
    return to;
}

/* One row or one column; 0 if the layout of its operands would make this slow. */
static int run_row(const pf_gemm *g) {
    if (g->a_rows || g->b_packed) return 0;
    pf_row r = {.k = g->k,
                .y = g->c,
                .add = g->accumulate,
                .scale = g->scale != 0 ? (real)g->scale : 1,
                .bias = g->bias,
                .residual = g->residual};
    real bias[LANES];
    int dots;
    if (g->n > 1) {
        r.in_order = g->a_step != 0;
        r.x = g->a, r.x_step = g->a_step;
        r.matrix = g->b, r.stride = g->b_row;
        r.n = g->n;
        dots = g->b_transposed;
    } else {
        /* a column: c^T = b^T a^T */
        r.bias = repeat_bias(g, bias), r.bias_repeats = 1;
        if (g->c_row != 1 || (g->residual && g->residual_row != 1)) return 0;
        if (g->saved && g->saved_row != 1) return 0;
        r.x = g->b, r.x_step = g->b_transposed ? 1 : g->b_row;
        r.matrix = g->a;
        r.n = g->m;
        dots = g->a_row != 1;
        r.stride = dots ? g->a_row : g->a_step;
        if (dots && g->a_step != 1) return 0;
    }
    if (dots && r.x_step != 1) return 0;
    if (dots)
        row_times_columns(&r);
    else
        row_times_matrix(&r);
    if (g->activation) {
        pf_gemm row = *g;
        row.c_row = row.saved_row = 0;
        finish(&row, 0, 1, 0, r.n);
    }
    return 1;
}

/* A few columns, too few to fill a vector: each element of c is the product of two long rows. */
static int run_few_columns(const pf_gemm *g) {
    const int in_place = g->c_row == g->n && (!g->residual || g->residual_row == g->n) &&
                         (!g->saved || g->saved_row == g->n);
    if (!in_place || g->a_rows || g->b_packed || g->a_step != 1) return 0;
    if (g->k < LANES || g->k > LONGEST) return 0;
    real turned[FEW_COLUMNS * LONGEST], bias[LANES];
    const int64_t across = g->b_transposed ? g->b_row : 1, along = g->b_transposed ? 1 : g->b_row;
    for (int64_t j = 0; j < g->n; j++)
        PF_ROLLED for (int64_t p = 0; p < g->k; p++) turned[j * g->k + p] =
            ((const real *)g->b)[j * across + p * along];
    const pf_row r = {.k = g->k,
                      .x = turned,
                      .matrix = g->a,
                      .stride = g->a_row,
                      .n = g->m * g->n,
                      .y = g->c,
                      .add = g->accumulate,
                      .scale = g->scale != 0 ? (real)g->scale : 1,
                      .bias = repeat_bias(g, bias),
                      .bias_repeats = 1,
                      .residual = g->residual};
    few_columns_of[g->n](&r);
    if (g->activation) finish(g, 0, g->m, 0, g->n);
    return 1;
}

/* Few terms: the gradient of a layer with few outputs, or a layer with few inputs. */
static int run_few_terms(const pf_gemm *g) {
    if (g->a_rows || g->b_packed || g->accumulate || g->scale != 0 || g->residual) return 0;
    if (g->m * g->n * g->k > IN_ONE_PART) return 0;
    /* From right to left: where the rows of c lie end to end, what a whole vector writes beyond the
     * last column is the beginning of the next rows, which are stored after it. */
    for (int64_t j = (vectors_for(g->n) - 1) * LANES; j >= 0; j -= LANES) {
        const int64_t width = min(g->n - j, LANES), room = g->m * g->n - j - LANES;
        const int64_t whole = width == LANES                  ? g->m
                              : g->c_row == g->n && room >= 0 ? room / g->n + 1
                                                              : 0;
        const part lanes = first_lanes(width);
        real columns[FEW_TERMS * LANES];
        pack(g, 0, g->k, j, width, columns);
        const vec bias = g->bias ? load_part((const real *)g->bias + j, lanes)
                                 : splat(R(-0.0)); /* x + -0 is x */
        few_terms_of[g->k](g, (real *)g->c + j, lanes, whole, columns, bias);
    }
    if (g->activation) finish(g, 0, g->m, 0, g->n);
    return 1;
}

/* Rows of at most one vector, with a transposed, as the gradient of a weight with few outputs has
 * it: c^T = b^T a has longer rows, and the terms of each element in the same order. Not if the last
 * vector of these is so empty that they are more vectors, nor if a is in memory: panels of its
 * columns are read one after another, for all of k; nor, where parts of vectors are as quick as
 * whole ones, if the sums are so short that turning c back takes longer. */
static int run_turned(const pf_gemm *g) {
    if (g->a_rows || g->b_packed || g->b_transposed || g->a_row != 1 || g->accumulate) return 0;
    if (g->m < 2 * g->n || g->m > LONGEST / 2) return 0;
    if (g->n * vectors_for(g->m) > g->m + g->m / 16) return 0;
    if (PF_MASKED_LOADS && g->k < 4 * g->n) return 0;
    if (g->m > COLUMNS && g->m * g->k * (int64_t)sizeof(real) > NEAR_A) return 0;
    if (g->activation || g->bias || g->residual || g->saved || g->scale != 0) return 0;
    real turned[LANES * LONGEST / 2], *c = g->c;
    pf_gemm t = *g;
    t.m = g->n, t.n = g->m;
    t.a = g->b, t.a_row = 1, t.a_step = g->b_row;
    t.b = g->a, t.b_row = g->a_step;
    t.c = turned, t.c_row = g->m;
    t.scratch = NULL;
    PF_NAME(gemm)(&t);
    if (g->n == LANES)
        pack_columns(turned, g->m, g->m, g->n, c, g->c_row);
    else
        for (int64_t i = 0; i < g->m; i++)
            PF_ROLLED for (int64_t j = 0; j < g->n; j++) c[i * g->c_row + j] = turned[j * g->m + i];
    return 1;
}

void PF_NAME(gemm_in_pieces)(const pf_gemm *g, int64_t pieces) {
    if (g->m == 0 || g->n == 0) return;
    if (!PF_SMALL) { /* without these, all products are cut into tiles */
        if (g->k > 0 && g->k <= FEW_TERMS && run_few_terms(g)) return;
        if (g->n > 1 && g->n <= FEW_COLUMNS && run_few_columns(g)) return;
        if ((g->m == 1 || g->n == 1) && run_row(g)) return;
        if (g->n > 1 && g->n <= LANES && run_turned(g)) return;
    }
    cut whole = {.g = g, .blocks = blocks_of(g), .column_parts = 1};
    whole.panels = (g->n + COLUMNS - 1) / COLUMNS;
    whole.block_count = whole.blocks.count;
    whole.row_parts = (g->m + PART_ROWS - 1) / PART_ROWS;
    atomic_uint packing = 0;
    const int64_t terms = g->m * g->n * g->k, parts = min(terms / PART_TERMS, PARTS);
    if (g->scratch && wants_strips(g)) {
        whole.strips = g->scratch;
        whole.pieces = min(pieces, MOST_PIECES);
        whole.packing = &packing;
        divide(&whole);
    } else if (parts > whole.row_parts && pf_threads_free() > 1) {
        whole.column_parts = min(whole.panels, parts / whole.row_parts);
    }
    whole.row_block = round_up((g->m + whole.row_parts - 1) / whole.row_parts, ROWS);
    whole.row_parts = (g->m + whole.row_block - 1) / whole.row_block;
    pf_parallel_for(whole.row_parts * whole.column_parts, terms / TERMS_PER_NANOSECOND, run_part,
                    &whole);
}

void PF_NAME(gemm)(const pf_gemm *g) { PF_NAME(gemm_in_pieces)(g, 1); }
