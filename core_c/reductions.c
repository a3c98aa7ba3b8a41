/* Reductions over any set of axes. An element of y is the reduction of the elements of x that share
 * its index along the kept axes. */
#include "elementwise.h"
#include "walk.h"

typedef struct {
    uint64_t axes; /* bit i: axis i of x is reduced */
    int64_t keepdims;
} reduction_attributes;

/* Columns of neighbouring elements of y that are reduced together. */
enum { TILE = 64 };

/* How x is traversed: for each position of `kept` (a place in y), each of `reduced`. Usually one of
 * `columns` and `length` is above 1: `columns` elements of y lie side by side in x, or `length`
 * elements that belong to one element of y do. */
typedef struct {
    pf_walk kept, reduced;
    int64_t columns, length;
} layout;

static layout make_layout(const pf_operand *x, uint64_t axes) {
    layout l = {0};
    int64_t strides[PF_MAX_NDIM];
    pf_strides(x, strides);
    for (int i = 0; i < x->ndim; i++)
        pf_walk_push(axes >> i & 1 ? &l.reduced : &l.kept, x->dims[i], strides[i], 0);
    l.columns = l.length = 1;
    if (l.kept.ndim > 0 && l.kept.strides[0][l.kept.ndim - 1] == 1)
        l.columns = pf_walk_pop(&l.kept).extent;
    else if (l.reduced.ndim > 0 && l.reduced.strides[0][l.reduced.ndim - 1] == 1)
        l.length = pf_walk_pop(&l.reduced).extent;
    return l;
}

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* Rows are added in blocks of about sqrt(rows), and then the blocks: the error is that of 2
 * sqrt(rows) additions instead of that of `rows`. */
static int64_t block_rows(int64_t rows) {
    int64_t n = 1;
    while (n * n < rows) n *= 2;
    return n;
}

/* One element of y: the sum of the rows, each of `length` neighbours. */
static real sum_rows(const real *restrict x, int64_t length, pf_walk *reduced) {
    int64_t rows = pf_walk_count(reduced), step = block_rows(rows);
    real total = 0;
    for (int64_t r = 0; r < rows;) {
        int64_t end = smaller(rows, r + step);
        real block = 0;
        for (; r < end; r++, pf_walk_next(reduced)) block += pf_sum(x + reduced->offset[0], length);
        total += block;
    }
    return total;
}

/* `width` <= TILE neighbouring elements of y: the sums of as many columns. */
static void sum_columns(const real *restrict x, real *restrict y, int64_t width, pf_walk *reduced) {
    int64_t rows = pf_walk_count(reduced), step = block_rows(rows);
    real total[TILE] = {0};
    for (int64_t r = 0; r < rows;) {
        int64_t end = smaller(rows, r + step);
        real block[TILE] = {0};
        for (; r < end; r++, pf_walk_next(reduced)) {
            const real *restrict row = x + reduced->offset[0];
            for (int64_t j = 0; j < width; j++) block[j] += row[j];
        }
        for (int64_t j = 0; j < width; j++) total[j] += block[j];
    }
    memcpy(y, total, (size_t)width * sizeof(real));
}

/* y = sum x */
static void sum(const real *x, real *y, layout l) {
    int64_t places = pf_walk_count(&l.kept);
    for (int64_t k = 0; k < places; k++, y += l.columns, pf_walk_next(&l.kept)) {
        const real *from = x + l.kept.offset[0];
        if (l.columns == 1)
            y[0] = sum_rows(from, l.length, &l.reduced);
        else
            for (int64_t c = 0; c < l.columns; c += TILE)
                sum_columns(from + c, y + c, smaller(l.columns - c, TILE), &l.reduced);
    }
}

/* The larger of the two; NaN if either is. */
static inline real greater(real a, real b) { return b > a || b != b ? b : a; }

static real row_max(const real *restrict x, int64_t n) {
    real lane[PF_LANES];
    PF_EACH_LANE for (int j = 0; j < PF_LANES; j++) lane[j] = -(real)INFINITY;
    int64_t i = 0;
    for (; i + PF_LANES <= n; i += PF_LANES)
        PF_EACH_LANE for (int j = 0; j < PF_LANES; j++) lane[j] = greater(lane[j], x[i + j]);
    for (; i < n; i++) lane[0] = greater(lane[0], x[i]);
    PF_EACH_LANE for (int j = 1; j < PF_LANES; j++) lane[0] = greater(lane[0], lane[j]);
    return lane[0];
}

/* y = sum x over the axes */
int PF_NAME(sum)(const pf_call *call) {
    const reduction_attributes *attributes = call->attributes;
    sum(pf_in(call, 0), pf_out(call, 0), make_layout(call->inputs[0], attributes->axes));
    return PF_OK;
}

/* y = sum x^2, over everything */
int PF_NAME(sum_of_squares)(const pf_call *call) {
    const real *x = pf_in(call, 0);
    pf_out(call, 0)[0] = pf_dot(x, x, pf_count(call->inputs[0]));
    return PF_OK;
}

/* The number of elements of x that are reduced to one element of y. */
static int64_t terms(const pf_operand *x, uint64_t axes) {
    int64_t n = 1;
    for (int i = 0; i < x->ndim; i++)
        if (axes >> i & 1) n *= x->dims[i];
    return n;
}

/* The same as mean where sums overflow. */
void PF_RARE(mean)(const pf_operand *t, uint64_t axes, real divisor, real *y);
#if PF_DEFINES_RARE
void PF_RARE(mean)(const pf_operand *t, uint64_t axes, real divisor, real *y) {
    const real little = R(0x1p-60); /* x times this stays finite, however many are added */
    layout l = make_layout(t, axes);
    const int64_t places = pf_walk_count(&l.kept), rows = pf_walk_count(&l.reduced);
    for (int64_t k = 0; k < places; k++, pf_walk_next(&l.kept))
        for (int64_t c = 0; c < l.columns; c++) {
            double total = 0;
            for (int64_t r = 0; r < rows; r++, pf_walk_next(&l.reduced)) {
                const real *x = (const real *)t->data + l.kept.offset[0] + l.reduced.offset[0] + c;
                for (int64_t i = 0; i < l.length; i++) total += (double)(x[i] * little);
            }
            *y++ = (real)(total / (double)divisor) / little;
        }
}
#endif

/* y = sum x / n; NaN for the mean of no elements */
int PF_NAME(mean)(const pf_call *call) {
    const reduction_attributes *attributes = call->attributes;
    real *restrict y = pf_out(call, 0);
    PF_NAME(sum)(call);
    real divisor = (real)terms(call->inputs[0], attributes->axes);
    int64_t n = pf_count(call->outputs[0]);
    int overflow = 0;
    for (int64_t i = 0; i < n; i++) {
        y[i] /= divisor;
        overflow |= !(r_fabs(y[i]) < INFINITY);
    }
    if (overflow) PF_RARE(mean)(call->inputs[0], attributes->axes, divisor, y);
    return PF_OK;
}

/* dx = dy, repeated along the reduced axes */
int PF_NAME(sum_grad)(const pf_call *call) {
    const reduction_attributes *attributes = call->attributes;
    const pf_operand *dx = call->outputs[0];
    pf_walk walk = {0};
    int64_t strides[PF_MAX_NDIM], stride = 1;
    for (int i = dx->ndim - 1; i >= 0; i--) {
        int reduced = attributes->axes >> i & 1;
        strides[i] = reduced ? 0 : stride;
        if (!reduced) stride *= dx->dims[i];
    }
    for (int i = 0; i < dx->ndim; i++) pf_walk_push(&walk, dx->dims[i], strides[i], 0);
    pf_gather(call, pf_in(call, 0), walk);
    return PF_OK;
}

/* dx = dy / n, repeated along the reduced axes */
int PF_NAME(mean_grad)(const pf_call *call) {
    const reduction_attributes *attributes = call->attributes;
    real *restrict dx = pf_out(call, 0);
    PF_NAME(sum_grad)(call);
    real divisor = (real)terms(call->outputs[0], attributes->axes);
    int64_t n = pf_count(call->outputs[0]);
    for (int64_t i = 0; i < n; i++) dx[i] /= divisor;
    return PF_OK;
}

/* y = max x over the axes, none of which is empty */
int PF_NAME(max)(const pf_call *call) {
    const reduction_attributes *attributes = call->attributes;
    const real *restrict x = pf_in(call, 0);
    real *restrict y = pf_out(call, 0);
    layout l = make_layout(call->inputs[0], attributes->axes);
    int64_t places = pf_walk_count(&l.kept), rows = pf_walk_count(&l.reduced);
    for (int64_t k = 0; k < places; k++, y += l.columns, pf_walk_next(&l.kept)) {
        for (int64_t j = 0; j < l.columns; j++) y[j] = -(real)INFINITY;
        for (int64_t r = 0; r < rows; r++, pf_walk_next(&l.reduced)) {
            const real *restrict row = x + l.kept.offset[0] + l.reduced.offset[0];
            if (l.columns == 1)
                y[0] = greater(y[0], row_max(row, l.length));
            else {
                const real *known = pf_aside(y);
                PF_INDEPENDENT
                for (int64_t j = 0; j < l.columns; j++) y[j] = greater(known[j], row[j]);
            }
        }
    }
    return PF_OK;
}

/* Whether x attains the maximum y; if y is NaN, every NaN does. */
static inline int is_max(real x, real y) { return (x == y) | (x != x); }

/* dx = dy / (how many elements reach the maximum) at each of them, else 0 */
int PF_NAME(max_grad)(const pf_call *call) {
    const reduction_attributes *attributes = call->attributes;
    const real *restrict dy = pf_in(call, 0), *restrict x = pf_in(call, 1);
    const real *restrict y = pf_in(call, 2);
    real *restrict dx = pf_out(call, 0);
    layout l = make_layout(call->inputs[1], attributes->axes);
    int64_t places = pf_walk_count(&l.kept), rows = pf_walk_count(&l.reduced);
    for (int64_t k = 0; k < places; k++, pf_walk_next(&l.kept))
        for (int64_t c = 0, width; c < l.columns; c += width, dy += width, y += width) {
            int64_t base = l.kept.offset[0] + c;
            width = smaller(l.columns - c, TILE);
            int64_t ties[TILE] = {0};
            real share[TILE];
            for (int64_t r = 0; r < rows; r++, pf_walk_next(&l.reduced)) {
                const real *restrict row = x + base + l.reduced.offset[0];
                if (l.columns == 1)
                    for (int64_t i = 0; i < l.length; i++) ties[0] += is_max(row[i], y[0]);
                else
                    for (int64_t j = 0; j < width; j++) ties[j] += is_max(row[j], y[j]);
            }
            for (int64_t j = 0; j < width; j++) share[j] = dy[j] / (real)ties[j];
            for (int64_t r = 0; r < rows; r++, pf_walk_next(&l.reduced)) {
                const real *restrict row = x + base + l.reduced.offset[0];
                real *restrict to = dx + base + l.reduced.offset[0];
                if (l.columns == 1)
                    for (int64_t i = 0; i < l.length; i++)
                        to[i] = is_max(row[i], y[0]) ? share[0] : R(0.0);
                else
                    for (int64_t j = 0; j < width; j++)
                        to[j] = is_max(row[j], y[j]) ? share[j] : R(0.0);
            }
        }
    return PF_OK;
}

/* dx(A) = the sum of dy over the axes that A lacks, or has with extent 1 where dy has more */
int PF_NAME(sum_to)(const pf_call *call) {
    const pf_operand *dy = call->inputs[0], *dx = call->outputs[0];
    int missing = dy->ndim - dx->ndim;
    uint64_t axes = 0;
    for (int i = 0; i < dy->ndim; i++)
        if (i < missing || dx->dims[i - missing] != dy->dims[i]) axes |= (uint64_t)1 << i;
    sum(pf_in(call, 0), pf_out(call, 0), make_layout(dy, axes));
    return PF_OK;
}

typedef struct {
    int64_t axis; /* counted from the front */
    int64_t reverse;
} scan_attributes;

PF_RARE_KERNEL(cumsum)
PF_RARE_KERNEL(argmax)
#if PF_DEFINES_RARE
/* The extents before, along and behind an axis. */
static void extents_around(const pf_operand *x, int64_t axis, int64_t extents[3]) {
    extents[0] = extents[1] = extents[2] = 1;
    for (int i = 0; i < x->ndim; i++) extents[i < axis ? 0 : i > axis ? 2 : 1] *= x->dims[i];
}

/* y_i = x_0 + .. + x_i along the axis; in reverse x_i + .. + x_last */
int PF_RARE(cumsum)(const pf_call *call) {
    const scan_attributes *attributes = call->attributes;
    const real *restrict x = pf_in(call, 0);
    real *restrict y = pf_out(call, 0);
    int64_t extents[3];
    extents_around(call->inputs[0], attributes->axis, extents);
    const int64_t n = extents[1], inner = extents[2], step = attributes->reverse ? -inner : inner;
    const int64_t first = attributes->reverse ? (n - 1) * inner : 0;
    for (int64_t o = 0; o < extents[0] && n > 0; o++) {
        const int64_t start = o * n * inner + first;
        for (int64_t j = 0; j < inner; j++) y[start + j] = x[start + j];
        for (int64_t i = 1, at = start + step; i < n; i++, at += step) {
            PF_RARE_INDEPENDENT
            for (int64_t j = 0; j < inner; j++) y[at + j] = y[at - step + j] + x[at + j];
        }
    }
    return PF_OK;
}

/* y = the index of the first of the largest x along the axis; of the first NaN, if there is one */
int PF_RARE(argmax)(const pf_call *call) {
    const scan_attributes *attributes = call->attributes;
    const real *restrict x = pf_in(call, 0);
    int64_t *restrict y = call->outputs[0]->data, extents[3];
    extents_around(call->inputs[0], attributes->axis, extents);
    const int64_t n = extents[1], inner = extents[2];
    for (int64_t o = 0; o < extents[0]; o++, x += n * inner)
        for (int64_t j = 0; j < inner; j++) {
            int64_t best = 0;
            real top = x[j];
            for (int64_t i = 1; i < n && top == top; i++)
                if (!(x[i * inner + j] <= top)) top = x[i * inner + j], best = i;
            *y++ = best;
        }
    return PF_OK;
}
#endif
