/* The tiles of a matrix product: rows x columns sums that stay in registers. */
#ifndef PYFRAME_GEMM_TILE_H
#define PYFRAME_GEMM_TILE_H

#include "vector.h"

/* Programs that share a core, each on a hyperthread, share what it starts in a cycle and its L1 and
 * L2 caches. So with vectors of 32 bytes or more the inner loop of most tiles has no instruction
 * that can be spared, and a panel takes at most 32 kB. AVX2 takes twice the instructions of AVX-512
 * for its sums: there that loop takes several terms at a time, and in strips the rows of a tile lie
 * side by side, so that they are one stream with one pointer instead of six. */
#define PF_LEAN (PF_VECTOR_BYTES >= 32)
#define PF_SIDE_BY_SIDE (PF_VECTOR_BYTES == 32)

enum {
    VECTORS = 2, /* of columns; besides the sums, registers hold a row of b and a number of a */
    ROWS = PF_SMALL             ? 2
    : PF_VECTOR_REGISTERS == 32 ? 8
    : PF_VECTOR_BYTES == 32     ? 6
                                : 4,
    COLUMNS = VECTORS * LANES,
    DEPTH = PF_LEAN ? 256 : 512, /* terms of a sum at a time; these partial sums are added up */
    /* How many the loop of a tile takes at once: with pointers to rows, and with a single one. */
    TERMS = PF_SIDE_BY_SIDE ? 2 : 1,
    TERMS_BESIDE = 4,
    /* From a term of a strip to the next one, where the rows of a tile are side by side. Where they
     * are fewer than a vector has numbers, the vectors that are stored overlap. */
    STRIP_STEP = (int)ROWS < (int)LANES ? (int)ROWS : ((int)ROWS + LANES - 1) / LANES * LANES
};

static inline int64_t vectors_for(int64_t width) { return (width + LANES - 1) / LANES; }

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
    int64_t edge_rows; /* the last rows, behind which a whole vector must not be stored */
    int fetch;         /* ask for c beforehand: it will be read, or is likely not in the cache */
    /* What is done to the sums before they are stored, in this order. */
    real scale;
    int add;              /* c += instead of c = */
    const real *bias;     /* one a column, or NULL */
    const real *residual; /* one an element, or NULL */
    int64_t residual_row;
    int relu;
} gemm_tile;

/* What a tile may expect: b anywhere, and of any width; b in full vectors, if PF_LEAN in a panel,
 * and, if PF_SIDE_BY_SIDE, the terms of a row of a end to end; or instead its rows side by side, in
 * a strip or transposed. */
enum tile_kind { ANYWHERE, IN_PANEL, BESIDE, TILE_KINDS };

/* One function for each number of rows and vectors, less one. */
typedef void (*tile_function)(const gemm_tile *);
extern const tile_function PF_NAME(gemm_tiles)[ROWS][VECTORS][TILE_KINDS];

#endif
