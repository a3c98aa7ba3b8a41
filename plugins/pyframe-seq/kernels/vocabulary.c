/* Cross-entropy of a large vocabulary, from what the logits are made of: for each row
 *
 *     z = x W + b,  lse = log sum_j exp(z_j),  l = lse - z_label
 *     dz = dl (exp(z - lse) - [j = label]),  dx = dz W^T,  dW = x^T dz,  db = sum dz
 *
 * Logits exist a tile at a time, those of ROWS rows and COLUMNS words, so that memory grows with
 * the rows and with the words, and not with their product. The sum of exponentials runs over the
 * tiles of a row, as in attention.c; the gradient computes the tiles anew.
 *
 * M rows of d numbers, V words. Threads share the rows of a tile, and then the columns of dW. */
#include <math.h>
#include <string.h>

#include "pyframe/real.h"

enum {
    ROWS = 1024,
    COLUMNS = 512,
    PART = 64, /* rows, or columns, that a thread takes at a time */
    ALIGNMENT = 64,
    TERMS_PER_NANOSECOND = 32
};

typedef struct {
    int64_t ignore_index, ignores; /* the label that stands for "not known", if there is one */
} vocabulary_attributes;

typedef struct {
    const pf_call *call;
    const pf_gemm_functions *gemm;
    const pf_vector_functions *vector;
    int64_t depth, words; /* d, V */
    const int64_t *labels;
    const real *x, *weight, *bias;
    int64_t row, rows, column, columns; /* of the tile: the first ones, and how many */
    real *tile, *packed;                /* z, or dz (rows, columns); W as `gemm` takes it */
    /* forward, for each row of the tile */
    real *top, *sum, *chosen; /* max z so far, sum exp(z - top), the logit of the label */
    /* backward */
    const real *dl, *lse;
    real *turned, *dx, *dweight, *dbias; /* turned: W^T as `gemm` takes it */
} vocabulary;

static inline int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }

static int is_ignored(const vocabulary *v, int64_t label) {
    const vocabulary_attributes *of = v->call->attributes;
    return of->ignores && label == of->ignore_index;
}

/* Labels, x, weight and bias are the inputs from `first` on. */
static vocabulary open_vocabulary(const pf_call *call, int first) {
    return (vocabulary){.call = call,
                        .gemm = call->host->gemm(BITS),
                        .vector = call->host->vector(BITS),
                        .depth = call->inputs[first + 2]->dims[0],
                        .words = call->inputs[first + 2]->dims[1],
                        .labels = call->inputs[first]->data,
                        .x = input(call, first + 1),
                        .weight = input(call, first + 2),
                        .bias = input(call, first + 3)};
}

static int check_labels(const vocabulary *v, int operand) {
    for (int64_t i = 0; i < elements(v->call, operand); i++) {
        const int64_t label = v->labels[i];
        if ((label < 0 || label >= v->words) && !is_ignored(v, label))
            return v->call->host->fail(v->call, PF_ERROR_LABEL, operand, i, label);
    }
    return PF_OK;
}

/* ---- products ---- */

/* z (m, columns) = x W, of the columns of the tile */
static pf_gemm logits_product(const vocabulary *v) {
    return (pf_gemm){.size = sizeof(pf_gemm),
                     .n = v->columns,
                     .k = v->depth,
                     .a_row = v->depth,
                     .a_step = 1,
                     .b = v->weight + v->column,
                     .b_row = v->words,
                     .c_row = v->columns};
}

/* dx (m, d) [+]= dz W^T */
static pf_gemm input_product(const vocabulary *v) {
    return (pf_gemm){.size = sizeof(pf_gemm),
                     .n = v->depth,
                     .k = v->columns,
                     .a_row = v->columns,
                     .a_step = 1,
                     .b = v->weight + v->column,
                     .b_row = v->words,
                     .b_transposed = 1,
                     .c_row = v->depth,
                     .accumulate = v->column > 0};
}

/* The logits of m rows of the tile, from row `from` of it on. */
static real *part_logits(const vocabulary *v, int64_t from, int64_t m) {
    pf_gemm g = logits_product(v);
    g.m = m, g.a = v->x + (v->row + from) * v->depth;
    g.b = v->packed, g.b_packed = 1;
    g.bias = v->bias ? v->bias + v->column : NULL;
    g.c = v->tile + from * v->columns;
    v->gemm->run(&g);
    return g.c;
}

/* ---- tiles ---- */

static real *take(char **at, int64_t count) {
    real *taken = (real *)(void *)*at;
    *at += (count * (int64_t)sizeof(real) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return taken;
}

/* Gives a tile its memory; 0 if there is too little. */
static int make_room(vocabulary *v, int64_t rows) {
    const int64_t most = min_of(rows, ROWS);
    char *at = v->call->scratch;
    v->columns = min_of(v->words, COLUMNS);
    v->tile = take(&at, most * v->columns);
    const pf_gemm logits = logits_product(v), back = input_product(v);
    v->packed = take(&at, v->gemm->packed_size(&logits));
    if (v->dl) {
        v->turned = take(&at, v->gemm->packed_size(&back));
    } else {
        v->top = take(&at, most), v->sum = take(&at, most), v->chosen = take(&at, most);
    }
    return (uint64_t)(at - (char *)v->call->scratch) <= v->call->scratch_size;
}

static int out_of_scratch(const pf_call *call) {
    return call->host->refuse(call, "the op class has asked for too little scratch memory");
}

/* Goes to the words from `column` on. */
static void begin_columns(vocabulary *v, int64_t column) {
    v->column = column, v->columns = min_of(v->words - column, COLUMNS);
    const pf_gemm logits = logits_product(v), back = input_product(v);
    v->gemm->pack(&logits, v->packed);
    if (v->dx) v->gemm->pack(&back, v->turned);
}

/* Calls `body` for the parts of `count` rows or columns. */
static void share(vocabulary *v, int64_t count, pf_body body) {
    const int64_t terms = v->rows * v->columns * (v->depth + 32);
    v->call->host->parallel_for((count + PART - 1) / PART, terms / TERMS_PER_NANOSECOND, body, v);
}

/* ---- forward ---- */

/* The largest of some numbers and `least`; NaN counts for nothing. */
static real largest(int64_t n, const real *x, real least) {
    enum { LANES = 16 }; /* each with a maximum of its own, so that they are compared at once */
    real lane[LANES];
    int64_t j = 0;
    for (int l = 0; l < LANES; l++) lane[l] = least;
    for (; j + LANES <= n; j += LANES)
        for (int l = 0; l < LANES; l++) lane[l] = x[j + l] > lane[l] ? x[j + l] : lane[l];
    for (; j < n; j++) least = x[j] > least ? x[j] : least;
    for (int l = 0; l < LANES; l++) least = lane[l] > least ? lane[l] : least;
    return least;
}

static void forward_part(void *context, int64_t part) {
    const vocabulary *v = context;
    const int64_t from = part * PART, m = min_of(v->rows - from, PART), n = v->columns;
    real *z = part_logits(v, from, m);
    for (int64_t r = 0; r < m; r++) {
        const int64_t i = from + r, at = v->labels[v->row + i] - v->column;
        real *restrict zr = z + r * n;
        const real top = largest(n, zr, v->top[i]);
        if (at >= 0 && at < n) v->chosen[i] = zr[at];
        const real shift = top == -INFINITY ? 0 : top; /* infinity less infinity is no number */
        for (int64_t j = 0; j < n; j++) zr[j] -= shift;
        v->sum[i] *= (real)exp((double)(v->top[i] - shift));
        v->top[i] = top;
    }
    v->vector->exp(m * n, z, z);
    for (int64_t r = 0; r < m; r++) v->sum[from + r] += (real)v->vector->sum(n, z + r * n);
}

/* labels (M), x (M, d), weight (d, V), [bias (V)] -> losses (M), 0 where the label is ignored;
 * lse (M) */
int NAME(linear_cross_entropy)(const pf_call *call) {
    vocabulary v = open_vocabulary(call, 0);
    real *losses = output(call, 0), *lse = output(call, 1);
    const int64_t count = rows(call, 1);
    const int status = check_labels(&v, 0);
    if (status != PF_OK) return status;
    if (!make_room(&v, count)) return out_of_scratch(call);
    for (v.row = 0; v.row < count; v.row += ROWS) {
        v.rows = min_of(count - v.row, ROWS);
        for (int64_t i = 0; i < v.rows; i++) v.top[i] = -INFINITY, v.sum[i] = 0;
        for (int64_t j = 0; j < v.words; j += COLUMNS) {
            begin_columns(&v, j);
            share(&v, v.rows, forward_part);
        }
        v.vector->log(v.rows, v.sum, v.sum);
        for (int64_t i = 0, at = v.row; i < v.rows; i++, at++) {
            if (lse) lse[at] = v.top[i] + v.sum[i];
            if (!losses) continue;
            losses[at] = is_ignored(&v, v.labels[at]) ? 0 : v.top[i] - v.chosen[i] + v.sum[i];
        }
    }
    return PF_OK;
}

/* ---- backward ---- */

/* dz of a part of the tile, and what it gives to dx. */
static void backward_part(void *context, int64_t part) {
    const vocabulary *v = context;
    const int64_t from = part * PART, m = min_of(v->rows - from, PART), n = v->columns;
    real *z = part_logits(v, from, m);
    for (int64_t r = 0; r < m; r++)
        for (int64_t j = 0; j < n; j++) {
            const real less = z[r * n + j] - v->lse[v->row + from + r];
            z[r * n + j] = less > 0 ? 0 : less; /* above 0 by rounding only */
        }
    v->vector->exp(m * n, z, z);
    for (int64_t r = 0; r < m; r++) {
        const int64_t i = v->row + from + r, label = v->labels[i], at = label - v->column;
        real *restrict zr = z + r * n;
        if (is_ignored(v, label)) {
            memset(zr, 0, (size_t)n * sizeof(real));
            continue;
        }
        if (at >= 0 && at < n) zr[at] -= 1;
        for (int64_t j = 0; j < n; j++) zr[j] *= v->dl[i];
    }
    if (!v->dx) return;
    pf_gemm g = input_product(v);
    g.m = m, g.a = z, g.b = v->turned, g.b_packed = 1;
    g.c = v->dx + (v->row + from) * v->depth;
    v->gemm->run(&g);
}

/* What some columns of the tile give to dW and db; rows before it have given theirs. */
static void weight_part(void *context, int64_t part) {
    const vocabulary *v = context;
    const int64_t from = part * PART, n = min_of(v->columns - from, PART);
    const real *dz = v->tile + from;
    if (v->dweight) {
        const pf_gemm g = {.size = sizeof g,
                           .m = v->depth,
                           .n = n,
                           .k = v->rows,
                           .a = v->x + v->row * v->depth,
                           .a_row = 1,
                           .a_step = v->depth,
                           .b = dz,
                           .b_row = v->columns,
                           .c = v->dweight + v->column + from,
                           .c_row = v->words,
                           .accumulate = v->row > 0};
        v->gemm->run(&g);
    }
    if (!v->dbias) return;
    real *restrict sums = v->dbias + v->column + from;
    for (int64_t j = 0; j < n && v->row == 0; j++) sums[j] = 0;
    for (int64_t i = 0; i < v->rows; i++)
        for (int64_t j = 0; j < n; j++) sums[j] += dz[i * v->columns + j];
}

static void clear(real *x, int64_t count) {
    if (x) memset(x, 0, (size_t)count * sizeof(real));
}

/* dl (M), labels (M), x (M, d), weight (d, V), [bias (V)], lse (M) -> dx, dweight, dbias (V) */
int NAME(linear_cross_entropy_grad)(const pf_call *call) {
    vocabulary v = open_vocabulary(call, 1);
    v.dl = input(call, 0), v.lse = input(call, 5);
    v.dx = output(call, 0), v.dweight = output(call, 1), v.dbias = output(call, 2);
    const int64_t count = rows(call, 2);
    const int status = check_labels(&v, 1);
    if (status != PF_OK) return status;
    if (count == 0) { /* sums of nothing */
        clear(v.dweight, v.depth * v.words);
        clear(v.dbias, v.words);
        return PF_OK;
    }
    if (!make_room(&v, count)) return out_of_scratch(call);
    for (v.row = 0; v.row < count; v.row += ROWS) {
        v.rows = min_of(count - v.row, ROWS);
        for (int64_t j = 0; j < v.words; j += COLUMNS) {
            begin_columns(&v, j);
            share(&v, v.rows, backward_part);
            if (v.dweight || v.dbias) share(&v, v.columns, weight_part);
        }
    }
    return PF_OK;
}
