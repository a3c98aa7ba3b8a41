/* Normalization: x, y (B, C); scale and shift (C,).
 *
 * With a mean m and a variance v,  x^ = (x - m) / sqrt(v + epsilon)  and  y = scale x^ + shift.
 * BatchNorm takes m and v of each column over the batch, LayerNorm of each row by itself. */
#include "cost.h"
#include "parallel.h"
#include "vector.h"

/* ---- over a batch ---- */

enum {
    PF_ROWS = 64, /* of a block */
    PARTS = 8,
    PART_ELEMENTS = 1 << 15, /* of x, enough to be worth waking a thread */
    WAYS = PF_SMALL ? 1 : 4, /* independent sums, which hide the latency */
};

typedef struct {
    double momentum, epsilon;
    int64_t activation; /* none or relu */
} batch_norm_attributes;

/* The rows of a batch are cut into parts, and those into blocks of PF_ROWS rows, which stay in the
 * L1 cache while they are read twice. */
typedef struct {
    const real *x, *dy, *scale, *shift, *mean, *low, *inverse;
    real *y;
    real *sums; /* for each part three rows of C, for the gradient two */
    int64_t rows, width, parts;
    /* for the gradient: dscale and dshift, and their share in each dx */
    const real *dscale, *dshift;
    real share;
    int relu;
} column_statistics;

static column_statistics statistics_of(const pf_call *call, uint32_t x) {
    column_statistics b = {.rows = pf_row_count(call->inputs[x]),
                           .width = pf_last_dim(call->inputs[x])};
    const int64_t parts = b.rows * b.width / PART_ELEMENTS;
    b.parts = parts < 1 ? 1 : parts > PARTS ? PARTS : parts;
    return b;
}

static void each_part(column_statistics *b, pf_body body) {
    pf_parallel_for(b->parts, b->rows * b->width / PF_NORMALIZED_PER_NANOSECOND, body, b);
}

/* `count` rows from `top` on, and LANES columns from `column` on, or as many as there are. */
typedef struct {
    int64_t index, top, count, column, at; /* part; at: of the first element */
    part lanes;
    int is_first; /* of its part */
} block;

/* body(b, k) for each block k of a part. */
__attribute__((always_inline)) static inline void each_block(const column_statistics *b,
                                                             int64_t index,
                                                             void (*body)(const column_statistics *,
                                                                          const block *)) {
    const int64_t first = b->rows * index / b->parts, end = b->rows * (index + 1) / b->parts;
    for (int64_t top = first; top < end; top += PF_ROWS)
        for (int64_t c = 0; c < b->width; c += LANES) {
            const block k = {.index = index,
                             .top = top,
                             .count = end - top < PF_ROWS ? end - top : PF_ROWS,
                             .column = c,
                             .at = top * b->width + c,
                             .lanes = first_lanes(b->width - c < LANES ? b->width - c : LANES),
                             .is_first = top == first};
            body(b, &k);
        }
}

/* Sums over rows in WAYS independent sums: runs `add` for each row `r` < count, `way` being its
 * sum. */
#define PF_EACH_ROW(count, add)                                                                   \
    {                                                                                             \
        int64_t at = 0;                                                                           \
        for (; at + WAYS <= (count); at += WAYS) PF_UNROLL for (int way = 0; way < WAYS; way++) { \
                const int64_t r = at + way;                                                       \
                add;                                                                              \
            }                                                                                     \
        for (int64_t r = at; r < (count); r++) {                                                  \
            enum { way = 0 };                                                                     \
            add;                                                                                  \
        }                                                                                         \
    }

static inline vec total_of(vec open[WAYS]) {
    PF_UNROLL for (int apart = 1; apart < WAYS; apart *= 2)
        PF_UNROLL for (int i = 0; i < WAYS; i += 2 * apart) open[i] += open[i + apart];
    return open[0];
}

/* sum = the sum over r < count of `term`, a vector */
#define PF_SUM_ROWS(sum, count, term)           \
    vec sum = {0};                              \
    {                                           \
        vec open[WAYS] = {{0}};                 \
        PF_EACH_ROW(count, open[way] += (term)) \
        sum = total_of(open);                   \
    }

/* Of some rows: the mean, the part of it that rounding cut off (`low`), and the sum of squared
 * deviations. A mean far from 0 has no digits left for small deviations, so `low` keeps them. */
typedef struct {
    vec mean, low, squares;
} moments;

static inline moments load_moments(const real *at, int64_t width, part lanes) {
    return (moments){load_part(at, lanes), load_part(at + width, lanes),
                     load_part(at + 2 * width, lanes)};
}

static inline void store_moments(real *at, int64_t width, part lanes, moments m) {
    store_part(at, lanes, m.mean);
    store_part(at + width, lanes, m.low);
    store_part(at + 2 * width, lanes, m.squares);
}

/* a + b, b small, as a mean and what rounding cuts off from it */
static inline void settle(moments *m, vec a, vec b) {
    m->mean = a + b;
    m->low = b - (m->mean - a);
}

/* The moments of `seen` rows and `count` more. */
static inline moments join(moments m, real seen, moments more, real count) {
    const real share = count / (seen + count);
    const vec apart = (more.mean - m.mean) + (more.low - m.low);
    m.squares += more.squares + apart * apart * (seen * share);
    settle(&m, m.mean, m.low + apart * share);
    return m;
}

/* Moments of a part's rows, block by block. The mean has a rounding error, which the deviations
 * from it reveal; so equal numbers get a variance of 0.
 * Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing sample
 * variances, 1979, equation 2.1; Algorithms for computing the sample variance, 1983, equation 1.7.
 */
static void block_moments(const column_statistics *b, const block *k) {
    const real *x = b->x + k->at;
    real *sums = b->sums + k->index * 3 * b->width + k->column;
    PF_SUM_ROWS(sum, k->count, load_part(x + r * b->width, k->lanes))
    const vec middle = sum / (real)k->count;
    vec off[WAYS] = {{0}}, squares_of[WAYS] = {{0}};
    PF_EACH_ROW(k->count, const vec d = load_part(x + r * b->width, k->lanes) - middle;
                off[way] += d; squares_of[way] += d * d)
    const vec rest = total_of(off);
    moments m = {.squares = total_of(squares_of) - rest * rest / (real)k->count};
    settle(&m, middle, rest / (real)k->count);
    const int64_t seen = k->top - b->rows * k->index / b->parts;
    if (!k->is_first)
        m = join(load_moments(sums, b->width, k->lanes), (real)seen, m, (real)k->count);
    store_moments(sums, b->width, k->lanes, m);
}

static void part_moments(void *context, int64_t index) {
    each_block(context, index, block_moments);
}

/* The same for a column whose squares have overflowed, with the numbers scaled down by a power of
 * two, which costs no digits. Gives the mean, what rounding cut off from it, and 1 /
 * sqrt(variance), in which epsilon makes no difference unless all numbers are equal. If there is a
 * NaN or an infinity, the mean and the inverse become NaN. */
void PF_RARE(scaled_moments)(const real *x, int64_t n, int64_t apart, real *mean, real *low,
                             real *inverse, real epsilon);
#if PF_DEFINES_RARE
void PF_RARE(scaled_moments)(const real *x, int64_t n, int64_t apart, real *mean, real *low,
                             real *inverse, real epsilon) {
    real most = 0;
    int equal = 1;
    double sum = 0, rest = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) {
        const real size = r_fabs(x[i * apart]);
        most = size > most || size != size ? size : most;
        equal = equal && x[i * apart] == x[0];
    }
    if (equal && most < INFINITY) {
        *mean = x[0], *low = 0, *inverse = R(1.0) / r_sqrt(epsilon);
        return;
    }
    int exponent = 0;
    (void)PF_MATH(frexp)(most, &exponent);
    const real down = PF_MATH(ldexp)(R(1.0), -exponent), up = PF_MATH(ldexp)(R(1.0), exponent - 1);
    for (int64_t i = 0; i < n; i++) sum += (double)(x[i * apart] * down);
    const real middle = (real)(sum / (double)n);
    for (int64_t i = 0; i < n; i++) {
        const double off = (double)(x[i * apart] * down) - (double)middle;
        rest += off;
        squares += off * off;
    }
    rest /= (double)n;
    *mean = middle * R(2.0) * up; /* 2^exponent itself may overflow */
    *low = rest == rest ? (real)rest * R(2.0) * up : 0;
    /* finite, whatever rounding does to the difference */
    *inverse = down / (real)sqrt(fabs(squares / (double)n - rest * rest) + 1e-36);
}
#endif

/* Above this size of a mean, the deviation of a number near the type's largest may overflow; from a
 * smaller mean no deviation does. */
#define GREAT_MEAN PF_MATH(ldexp)(R(1.0), PF_REAL_BITS == 32 ? 100 : 960)

/* Computes the moments of all rows, stored in place of the first part's. */
static void all_moments(column_statistics *b) {
    each_part(b, part_moments);
    const int64_t width = b->width;
    for (int64_t index = 1; index < b->parts; index++) {
        const int64_t seen = b->rows * index / b->parts;
        const int64_t count = b->rows * (index + 1) / b->parts - seen;
        for (int64_t c = 0; c < width; c += LANES) {
            const part lanes = first_lanes(width - c < LANES ? width - c : LANES);
            const real *more = b->sums + index * 3 * width + c;
            const moments m = join(load_moments(b->sums + c, width, lanes), (real)seen,
                                   load_moments(more, width, lanes), (real)count);
            store_moments(b->sums + c, width, lanes, m);
        }
    }
}

/* y = scale inverse (x - (mean + low)) + shift */
static void block_normalize(const column_statistics *b, const block *k) {
    const int64_t width = b->width, c = k->column;
    const vec mean = load_part(b->mean + c, k->lanes);
    const vec factor = load_part(b->inverse + c, k->lanes) * load_part(b->scale + c, k->lanes);
    const vec shift = load_part(b->shift + c, k->lanes) - load_part(b->low + c, k->lanes) * factor;
    const real *x = b->x + k->at;
    real *y = b->y + k->at;
    for (int64_t r = 0; r < k->count; r++) {
        const vec normal = (load_part(x + r * width, k->lanes) - mean) * factor + shift;
        store_part(y + r * width, k->lanes, b->relu ? relu(normal) : normal);
    }
}

static void part_normalize(void *context, int64_t index) {
    each_block(context, index, block_normalize);
}

/* Whether a column has a large mean, or a scale times inverse that overflows although its products
 * with deviations may not. */
static inline int is_great(const column_statistics *b, int64_t c) {
    return r_fabs(b->mean[c]) > GREAT_MEAN || r_fabs(b->scale[c] * b->inverse[c]) == INFINITY;
}

/* The same for such a column: y, the sum of dy x^, and dx. */
void PF_RARE(normalize_column)(const column_statistics *b, int64_t c);
real PF_RARE(column_tilt)(const column_statistics *b, int64_t c);
void PF_RARE(column_gradient)(const column_statistics *b, int64_t c);
#if PF_DEFINES_RARE
/* x^ of one number, from halves, whose difference cannot overflow. */
static real normal_of(real x, real mean, real low, real inverse) {
    return (x * R(0.5) - mean * R(0.5) - low * R(0.5)) * (R(2.0) * inverse);
}

static real normal_at(const column_statistics *b, int64_t r, int64_t c) {
    return normal_of(b->x[r * b->width + c], b->mean[c], b->low[c], b->inverse[c]);
}

void PF_RARE(normalize_column)(const column_statistics *b, int64_t c) {
    for (int64_t r = 0; r < b->rows; r++) {
        const real normal = normal_at(b, r, c) * b->scale[c] + b->shift[c];
        b->y[r * b->width + c] = b->relu && normal < 0 ? 0 : normal;
    }
}

real PF_RARE(column_tilt)(const column_statistics *b, int64_t c) {
    real sum = 0;
    for (int64_t r = 0; r < b->rows; r++) sum += b->dy[r * b->width + c] * normal_at(b, r, c);
    return sum;
}

void PF_RARE(column_gradient)(const column_statistics *b, int64_t c) {
    const real level = b->dshift[c] * b->share, slope = b->dscale[c] * b->share;
    for (int64_t r = 0; r < b->rows; r++)
        b->y[r * b->width + c] = b->inverse[c] *
                                 (b->dy[r * b->width + c] - level - normal_at(b, r, c) * slope) *
                                 b->scale[c];
}
#endif

/* x, scale, shift; states running mean and variance -> y, and those used: the mean (C,), 1 / sqrt(v
 * + epsilon) (C,) and low (C,), what rounding cut off from the mean. Training takes them from the
 * batch and updates the running ones: running = momentum running + (1 - momentum) batch with the
 * unbiased variance of the batch, sum (x - m)^2 / (B - 1), as its estimate for all data. An empty
 * batch has no statistics; then the running ones are used. Scratch: (3 PARTS + 2) C. */
int PF_NAME(batch_norm)(const pf_call *call) {
    const batch_norm_attributes *attributes = call->attributes;
    column_statistics b = statistics_of(call, 0);
    const int64_t rows = b.rows, width = b.width;
    real *restrict running_mean = pf_state(call, 0), *restrict running_variance = pf_state(call, 1);
    real *restrict mean = call->scratch, *restrict inverse = mean + width;
    b.x = pf_in(call, 0), b.scale = pf_in(call, 1), b.shift = pf_in(call, 2), b.y = pf_out(call, 0);
    real *restrict low = inverse + 2 * width; /* the second row of the sums */
    b.mean = mean, b.low = low, b.inverse = inverse, b.sums = inverse + width;
    b.relu = attributes->activation == PF_RELU;

    const real epsilon = (real)attributes->epsilon;
    if ((call->flags & PF_TRAINING) && rows > 0) {
        const real keep = (real)attributes->momentum, take = (real)(1 - attributes->momentum);
        const real unbiased = (real)(rows > 1 ? rows - 1 : 1);
        all_moments(&b);
        const real *batch_mean = b.sums, *squares = b.sums + 2 * width;
        for (int64_t c = 0; c < width; c++) {
            running_variance[c] = keep * running_variance[c] + take * (squares[c] / unbiased);
            mean[c] = batch_mean[c];
            inverse[c] = R(1.0) / r_sqrt(squares[c] / (real)rows + epsilon);
        }
        for (int64_t c = 0; c < width; c++)
            if (!(squares[c] < INFINITY))
                PF_RARE(scaled_moments)(b.x + c, rows, width, &mean[c], &low[c], &inverse[c],
                                        epsilon);
        for (int64_t c = 0; c < width; c++)
            running_mean[c] = keep * running_mean[c] + take * mean[c];
    } else {
        for (int64_t c = 0; c < width; c++) {
            mean[c] = running_mean[c];
            low[c] = 0;
            inverse[c] = R(1.0) / r_sqrt(running_variance[c] + epsilon);
        }
    }
    if (b.y) {
        each_part(&b, part_normalize);
        for (int64_t c = 0; c < width; c++)
            if (is_great(&b, c)) PF_RARE(normalize_column)(&b, c);
    }
    const size_t bytes = (size_t)width * sizeof(real);
    if (pf_out(call, 1) && bytes > 0) memcpy(pf_out(call, 1), mean, bytes);
    if (pf_out(call, 2) && bytes > 0) memcpy(pf_out(call, 2), inverse, bytes);
    if (pf_out(call, 3) && bytes > 0) memcpy(pf_out(call, 3), low, bytes);
    return PF_OK;
}

/* sums += sum dy, and sum dy (x - mean); what the next block reads is fetched meanwhile */
static void block_gradient_sums(const column_statistics *b, const block *k) {
    const int64_t width = b->width;
    const vec mean = load_part(b->mean + k->column, k->lanes);
    const real *x = b->x + k->at, *dy = b->dy + k->at;
    real *flow = b->sums + k->index * 2 * width + k->column, *tilt = flow + width;
    vec each_dy[WAYS] = {{0}}, each_both[WAYS] = {{0}};
    PF_EACH_ROW(k->count, {
        const vec given = load_part(dy + r * width, k->lanes);
        __builtin_prefetch(dy + (r + PF_ROWS) * width);
        __builtin_prefetch(x + (r + PF_ROWS) * width);
        each_dy[way] += given;
        each_both[way] += given * (load_part(x + r * width, k->lanes) - mean);
    })
    store_part(flow, k->lanes, load_part(flow, k->lanes) + total_of(each_dy));
    store_part(tilt, k->lanes, load_part(tilt, k->lanes) + total_of(each_both));
}

static void part_gradient_sums(void *context, int64_t index) {
    each_block(context, index, block_gradient_sums);
}

/* dscale = sum dy x^, dshift = sum dy */
static void sum_gradients(column_statistics *b, real *restrict dscale, real *restrict dshift) {
    const int64_t width = b->width;
    memset(b->sums, 0, 2 * (size_t)(b->parts * width) * sizeof(real));
    each_part(b, part_gradient_sums);
    for (int64_t c = 0; c < width; c++) {
        dshift[c] = dscale[c] = 0;
        for (int64_t index = 0; index < b->parts; index++) {
            dshift[c] += b->sums[2 * index * width + c];
            dscale[c] += b->sums[(2 * index + 1) * width + c];
        }
        dscale[c] = (dscale[c] - b->low[c] * dshift[c]) * b->inverse[c];
        if (is_great(b, c)) dscale[c] = PF_RARE(column_tilt)(b, c);
    }
}

/* dx = scale inverse (dy - share (dshift + x^ dscale)) */
static void block_input_gradient(const column_statistics *b, const block *k) {
    const int64_t width = b->width, c = k->column;
    const vec mean = load_part(b->mean + c, k->lanes);
    const vec inverse = load_part(b->inverse + c, k->lanes);
    const vec factor = load_part(b->scale + c, k->lanes) * inverse;
    const vec slope = load_part(b->dscale + c, k->lanes) * inverse * b->share;
    const vec level =
        load_part(b->dshift + c, k->lanes) * b->share - load_part(b->low + c, k->lanes) * slope;
    const real *x = b->x + k->at, *dy = b->dy + k->at;
    real *dx = b->y + k->at;
    for (int64_t r = 0; r < k->count; r++) {
        const vec off = load_part(x + r * width, k->lanes) - mean;
        const vec rest = load_part(dy + r * width, k->lanes) - level - off * slope;
        store_part(dx + r * width, k->lanes, factor * rest);
    }
}

static void part_input_gradient(void *context, int64_t index) {
    each_block(context, index, block_input_gradient);
}

/* dy, x, scale, mean (C,), inverse (C,), low (C,) -> dx, dscale = sum dy x^, dshift = sum dy.
 *     training:  dx = scale inverse (dy - dshift / B - x^ dscale / B)
 *     otherwise: dx = scale inverse dy, since the running statistics do not depend on x.
 * A seventh input, (2 C,), is dscale / B and dshift / B of a larger batch that these rows are of.
 * Ioffe and Szegedy, "Batch normalization", 2015, section 3. Scratch: 2 (PARTS + 1) C. */
int PF_NAME(batch_norm_grad)(const pf_call *call) {
    column_statistics b = statistics_of(call, 1);
    const int64_t width = b.width;
    real *restrict dscale = call->scratch, *restrict dshift = dscale + width;
    b.dy = pf_in(call, 0), b.x = pf_in(call, 1), b.scale = pf_in(call, 2);
    b.mean = pf_in(call, 3), b.inverse = pf_in(call, 4), b.low = pf_in(call, 5);
    b.y = pf_out(call, 0);
    b.sums = dshift + width, b.dscale = dscale, b.dshift = dshift;
    b.share = (call->flags & PF_TRAINING) && b.rows > 0 ? R(1.0) / (real)b.rows : 0;
    if (call->input_count > 6) {
        memcpy(dscale, pf_in(call, 6), 2 * (size_t)width * sizeof(real));
        b.share = 1;
    } else {
        sum_gradients(&b, dscale, dshift);
    }
    if (b.y) {
        each_part(&b, part_input_gradient);
        for (int64_t c = 0; c < width; c++)
            if (is_great(&b, c)) PF_RARE(column_gradient)(&b, c);
    }
    const size_t bytes = (size_t)width * sizeof(real);
    if (pf_out(call, 1) && bytes > 0) memcpy(pf_out(call, 1), dscale, bytes);
    if (pf_out(call, 2) && bytes > 0) memcpy(pf_out(call, 2), dshift, bytes);
    return PF_OK;
}

/* ---- over a row ---- */

typedef struct {
    double epsilon;
} layer_norm_attributes;

/* hat = x^ of a row whose squares overflow; returns 1 / sqrt(variance). */
real PF_RARE(great_row)(const real *x, int64_t n, real epsilon, real *hat);
/* g = dy scale, and the means of g and of g x^, all times the returned factor, which keeps them
 * finite. */
real PF_RARE(scale_flow)(const real *dy, const real *scale, const real *hat, int64_t n, real *g,
                         real *mean_g, real *mean_g_hat);
#if PF_DEFINES_RARE
real PF_RARE(great_row)(const real *x, int64_t n, real epsilon, real *hat) {
    real mean, low, inverse;
    PF_RARE(scaled_moments)(x, n, 1, &mean, &low, &inverse, epsilon);
    for (int64_t i = 0; i < n; i++) hat[i] = normal_of(x[i], mean, low, inverse);
    return inverse;
}

real PF_RARE(scale_flow)(const real *dy, const real *scale, const real *hat, int64_t n, real *g,
                         real *mean_g, real *mean_g_hat) {
    const real unit = PF_MATH(ldexp)(R(1.0), PF_REAL_BITS == 32 ? -100 : -1000);
    for (int64_t i = 0; i < n; i++) g[i] = dy[i] * unit * scale[i];
    *mean_g = pf_sum(g, n) / (real)n;
    *mean_g_hat = pf_dot(g, hat, n) / (real)n;
    return unit;
}
#endif

/* Rows are treated a few at a time, step by step: while the sum of one is folded and waited for,
 * those of the others go on. */
enum {
    ROWS_AT_ONCE = 8,
    LONG_ROW = 1024 /* from here on a row has enough to do by itself, and more would not be in L1 */
};
static inline int64_t rows_at_once(int64_t n) { return n < LONG_ROW ? ROWS_AT_ONCE : 1; }

/* hat (count, n) = x^ of some rows, n > 0; inverse (count,) = 1 / sqrt(variance + epsilon). The
 * rounding error of a mean is subtracted again, so that equal numbers give 0. */
static void normalize_rows(const real *restrict x, int64_t count, int64_t n, real epsilon,
                           real *restrict hat, real *restrict inverse) {
    real sum[ROWS_AT_ONCE]; /* of x, of its deviations, and of their squares */
    for (int64_t r = 0; r < count; r++) sum[r] = pf_sum(x + r * n, n) / (real)n;
    for (int64_t r = 0; r < count; r++)
        for (int64_t i = 0; i < n; i++) hat[r * n + i] = x[r * n + i] - sum[r];
    for (int64_t r = 0; r < count; r++) sum[r] = pf_sum(hat + r * n, n) / (real)n;
    for (int64_t r = 0; r < count; r++)
        for (int64_t i = 0; i < n; i++) hat[r * n + i] -= sum[r];
    for (int64_t r = 0; r < count; r++) sum[r] = pf_dot(hat + r * n, hat + r * n, n) / (real)n;
    for (int64_t r = 0; r < count; r++) inverse[r] = R(1.0) / r_sqrt(sum[r] + epsilon);
    for (int64_t r = 0; r < count; r++)
        if (sum[r] < INFINITY)
            for (int64_t i = 0; i < n; i++) hat[r * n + i] *= inverse[r];
        else
            inverse[r] = PF_RARE(great_row)(x + r * n, n, epsilon, hat + r * n);
}

/* x, scale, shift -> y */
int PF_NAME(layer_norm)(const pf_call *call) {
    const layer_norm_attributes *attributes = call->attributes;
    const real *restrict x = pf_in(call, 0), *restrict scale = pf_in(call, 1);
    const real *restrict shift = pf_in(call, 2);
    real *restrict y = pf_out(call, 0), inverse[ROWS_AT_ONCE];
    const int64_t n = pf_last_dim(call->inputs[0]), rows = pf_row_count(call->inputs[0]);
    if (n == 0) return PF_OK;
    for (int64_t r = 0, count; r < rows; r += count, x += count * n) {
        count = rows - r < rows_at_once(n) ? rows - r : rows_at_once(n);
        normalize_rows(x, count, n, (real)attributes->epsilon, y, inverse);
        for (int64_t k = 0; k < count; k++, y += n)
            for (int64_t i = 0; i < n; i++) y[i] = y[i] * scale[i] + shift[i];
    }
    return PF_OK;
}

/* dx of some rows, see layer_norm_grad; g (count, n) is room to work in. */
static void row_gradients(const real *restrict dy, const real *restrict scale,
                          const real *restrict hat, const real *restrict inverse, int64_t count,
                          int64_t n, real *restrict g, real *restrict dx) {
    real mean_g[ROWS_AT_ONCE], mean_g_hat[ROWS_AT_ONCE];
    for (int64_t r = 0; r < count; r++)
        for (int64_t i = 0; i < n; i++) g[r * n + i] = dy[r * n + i] * scale[i];
    for (int64_t r = 0; r < count; r++) mean_g[r] = pf_sum(g + r * n, n) / (real)n;
    for (int64_t r = 0; r < count; r++) mean_g_hat[r] = pf_dot(g + r * n, hat + r * n, n) / (real)n;
    for (int64_t r = 0; r < count; r++, dy += n, g += n, hat += n, dx += n) {
        real factor = inverse[r];
        if (!(r_fabs(mean_g[r]) + r_fabs(mean_g_hat[r]) < INFINITY))
            factor /= PF_RARE(scale_flow)(dy, scale, hat, n, g, &mean_g[r], &mean_g_hat[r]);
        for (int64_t i = 0; i < n; i++)
            dx[i] = factor * (g[i] - mean_g[r] - hat[i] * mean_g_hat[r]);
    }
}

/* dy, x, scale -> dx, dscale = sum over rows of dy x^, dshift = sum over rows of dy.
 * With g = dy scale, each row by itself:  dx = inverse (g - mean(g) - x^ mean(g x^)).
 * Ba, Kiros and Hinton, "Layer normalization", 2016. The sums over
 * rows are taken PF_ROWS rows at a time. Scratch: 2 ROWS_AT_ONCE + 2 rows. */
int PF_NAME(layer_norm_grad)(const pf_call *call) {
    const layer_norm_attributes *attributes = call->attributes;
    const real *restrict dy = pf_in(call, 0), *restrict x = pf_in(call, 1);
    const real *restrict scale = pf_in(call, 2);
    real *restrict dx = pf_out(call, 0), inverse[ROWS_AT_ONCE];
    real *restrict dscale = pf_out(call, 1), *restrict dshift = pf_out(call, 2);
    const int64_t n = pf_last_dim(call->inputs[0]), rows = pf_row_count(call->inputs[0]);
    if (n == 0) return PF_OK;
    real *restrict hat = call->scratch, *restrict g = hat + ROWS_AT_ONCE * n;
    real *restrict scale_sum = g + ROWS_AT_ONCE * n, *restrict shift_sum = scale_sum + n;
    const size_t bytes = (size_t)n * sizeof(real);
    if (dscale) memset(dscale, 0, bytes);
    if (dshift) memset(dshift, 0, bytes);
    memset(scale_sum, 0, 2 * bytes);
    for (int64_t r = 0, count; r < rows; r += count, x += count * n, dy += count * n) {
        count = rows - r < rows_at_once(n) ? rows - r : rows_at_once(n);
        normalize_rows(x, count, n, (real)attributes->epsilon, hat, inverse);
        for (int64_t k = 0; k < count; k++)
            for (int64_t i = 0; i < n; i++) {
                scale_sum[i] += dy[k * n + i] * hat[k * n + i];
                shift_sum[i] += dy[k * n + i];
            }
        if (dx) row_gradients(dy, scale, hat, inverse, count, n, g, dx + r * n);
        if ((r + count) % PF_ROWS == 0 || r + count == rows) {
            if (dscale)
                for (int64_t i = 0; i < n; i++) dscale[i] += scale_sum[i];
            if (dshift)
                for (int64_t i = 0; i < n; i++) dshift[i] += shift_sum[i];
            memset(scale_sum, 0, 2 * bytes);
        }
    }
    return PF_OK;
}
