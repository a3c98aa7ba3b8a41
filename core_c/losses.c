/* Losses: how far a prediction y_hat (n, ...) is from its target y.
 *
 * Each takes an optional weight (n,), one for a row, and reduces the losses l of the elements by
 *     mean  sum_ij w_i l_ij / (m sum_i w_i), m elements a row; without weights sum l / (n m).
 *           0 when the weights sum to 0; NaN when there is no element: 0 / 0.
 *     sum   sum_ij w_i l_ij
 *     none  w_i l_ij, element by element.
 * The weights are data: they get no gradient. */
#include "rows.h"
#include "spans.h"

enum { MEAN = 0, SUM = 1, NONE = 2 };

typedef struct {
    int64_t reduction;
    double delta; /* Huber only; the others have no such field */
} loss_attributes;

/* The last field of each: the elements of the whole batch, of which a call may see some rows only.
 */
static int64_t all_elements(const pf_call *call) {
    const int64_t *fields = call->attributes;
    return fields[call->attribute_size / sizeof *fields - 1];
}

/* The batch of a loss: n rows of m elements, and a weight for each row or NULL. */
typedef struct {
    int64_t rows, row, count;
    int64_t reduction;
    const real *weight;
    real unit;  /* the factor of weights */
    real total; /* of a mean: the weight of all elements */
} weighted_rows;

/* Scales large numbers so that their sum stays finite: fewer than 1 / LITTLE of them are added. */
#define LITTLE R(0x1p-60)

/* Divides the weights of a mean, whose sum is very large or small, by a power of two near it. This
 * is exact, and then neither the weights nor their products with losses overflow or vanish. If
 * `sum` itself has overflowed, it is formed anew from smaller weights. */
void PF_RARE(scale_weights)(weighted_rows *b, real sum);
#if PF_DEFINES_RARE
void PF_RARE(scale_weights)(weighted_rows *b, real sum) {
    enum { LEAST = PF_REAL_BITS == 32 ? -120 : -1000 };
    int exponent = 0;
    if (!(r_fabs(sum) < INFINITY)) {
        b->unit = LITTLE, sum = 0;
        for (int64_t r = 0; r < b->rows; r++) sum += b->weight[r] * LITTLE;
    }
    if (r_fabs(sum) < INFINITY) (void)PF_MATH(frexp)(sum, &exponent);
    const real factor = PF_MATH(ldexp)(R(1.0), -(exponent < LEAST ? LEAST : exponent));
    b->unit *= factor;
    b->total = sum * factor * (real)b->row;
}
#endif

PF_ONCE static void weigh(weighted_rows *b) {
    const real sum = pf_sum(b->weight, b->rows);
    b->total = sum * (real)b->row;
    if (!(sum > R(0x1p-16) && sum < R(0x1p16))) PF_RARE(scale_weights)(b, sum);
}

static void find_rows(const pf_call *call, const pf_operand *shape, int weight, weighted_rows *b) {
    b->count = pf_count(shape);
    b->rows = shape->ndim > 0 ? shape->dims[0] : 1;
    b->row = shape->ndim > 1 ? b->rows > 0 ? b->count / b->rows : 0 : 1;
    b->reduction = ((const loss_attributes *)call->attributes)->reduction;
    b->weight = pf_in(call, weight);
    /* With a weight for each element, every one is a row. */
    if (b->weight && shape->ndim > 1 && call->inputs[weight]->ndim == shape->ndim)
        b->rows = b->count, b->row = 1;
    b->unit = R(1.0), b->total = (real)all_elements(call);
    if (b->weight && b->reduction == MEAN) weigh(b);
}

static inline real weight_of(const weighted_rows *b, int64_t r) {
    return b->weight ? b->weight[r] * b->unit : R(1.0);
}

/* out_ij = w_i dl_ij out_ij; w is 1 without weights, and dl is 1 if it is NULL. */
PF_ONCE static void weigh_rows(const weighted_rows *b, const real *restrict dl,
                               real *restrict out) {
    if (!b->weight && !dl) return;
    for (int64_t r = 0; r < b->rows; r++) {
        const real weight = weight_of(b, r);
        if (dl)
            for (int64_t i = r * b->row; i < (r + 1) * b->row; i++) out[i] *= weight * dl[i];
        else
            for (int64_t i = r * b->row; i < (r + 1) * b->row; i++) out[i] *= weight;
    }
}

/* A sum over the batch, reduced as `reduction` says. Given the gradient of the result as `total`,
 * it is the gradient of each element of weight 1. */
static real reduced(const weighted_rows *b, real total) {
    if (b->reduction == SUM) return total;
    return b->count > 0 && b->total == 0 ? total * 0 : total / b->total; /* NaN stays NaN */
}

/* A loss of one element, or a derivative of it. */
typedef real element_function(real y, real y_hat, real delta);

/* The loop over the elements of a loss or derivative f, delta being p: q f(y, y_hat). */
#define PF_EACH_OF(f)                                                                           \
    static void f##_loop(int64_t n, const real *as, const real *bs, real *ys, real *zs, real p, \
                         real q) {                                                              \
        (void)zs;                                                                               \
        PF_INDEPENDENT                                                                          \
        for (int64_t i = 0; i < n; i++) ys[i] = q * f(as[i], bs[i], p);                         \
    }
#define PF_LONG_EACH_OF(f) PF_LOOP(f, ys[i] = q * f(as[i], bs[i], p))

/* sum_i w_i f(y_i, y_hat_i), block by block and in a fixed order; without weights w is 1. If `out`
 * is given, the terms are stored there instead of being added up. */
static inline real sum_elements(pf_loop *each, const real *y, const real *y_hat, const real *w,
                                real unit, int64_t n, real delta, real *out) {
    real block[PF_BLOCK], total = 0;
    for (int64_t start = 0; start < n; start += PF_BLOCK, y += PF_BLOCK, y_hat += PF_BLOCK) {
        const int64_t size = n - start < PF_BLOCK ? n - start : PF_BLOCK;
        real *restrict l = out ? out + start : block;
        each(size, y, y_hat, l, NULL, delta, 1);
        if (w)
            for (int64_t i = 0; i < size; i++) l[i] *= w[start + i] * unit;
        if (!out) total += PF_NAME(sum_block)(l, size);
    }
    return total;
}

/* The finite mean of losses when their sum overflows, or single losses do: f gives LITTLE l. */
real PF_RARE(great_mean)(const weighted_rows *b, element_function *f, const real *y,
                         const real *y_hat, real delta);
#if PF_DEFINES_RARE
real PF_RARE(great_mean)(const weighted_rows *b, element_function *f, const real *y,
                         const real *y_hat, real delta) {
    double total = 0;
    for (int64_t r = 0; r < b->rows; r++)
        for (int64_t i = r * b->row; i < (r + 1) * b->row; i++)
            total += (double)(weight_of(b, r) * f(y[i], y_hat[i], delta));
    return (real)(total / (double)b->total) / LITTLE;
}
#endif

/* y, y_hat, [weight] -> loss; y_hat is input number `second`. One function for all losses,
 * with the loops of each; rare(...) is LITTLE times the loss of an element. */
PF_ONCE static int loss(const pf_call *call, int second, pf_loop *each, element_function *rare,
                        real delta) {
    weighted_rows b;
    find_rows(call, call->inputs[second], second + 1, &b);
    const real *y = pf_in(call, 0), *y_hat = pf_in(call, second);
    real *out = pf_out(call, 0);
    /* All as one row, unless each row has a weight of its own and several elements. */
    const int as_one = b.weight == NULL || b.row == 1;
    const int64_t rows = as_one ? 1 : b.rows, n = as_one ? b.count : b.row;
    real total = 0, lane[PF_LANES] = {0};
    for (int64_t r = 0; r < rows; r++) {
        const real l = sum_elements(each, y + r * n, y_hat + r * n, as_one ? b.weight : NULL,
                                    b.unit, n, delta, b.reduction == NONE ? out + r * n : NULL);
        if (as_one)
            total = l;
        else
            lane[r % PF_LANES] += weight_of(&b, r) * l;
    }
    if (b.reduction == NONE) {
        if (!as_one) weigh_rows(&b, NULL, out);
        return PF_OK;
    }
    if (!as_one) total = pf_fold(lane);
    out[0] = reduced(&b, total);
    if (b.reduction == MEAN && !(r_fabs(out[0]) < INFINITY))
        out[0] = PF_RARE(great_mean)(&b, rare, y, y_hat, delta);
    return PF_OK;
}

/* dl, y, y_hat, [weight] -> dy, dy_hat, from the derivatives with respect to y_hat and y; without
 * the second it is minus the first. */
static int loss_grad(const pf_call *call, pf_loop *by_y_hat, pf_loop *by_y, real delta) {
    weighted_rows b;
    find_rows(call, call->inputs[2], 3, &b);
    const real *dl = pf_in(call, 0), *y = pf_in(call, 1), *y_hat = pf_in(call, 2);
    real *dy = pf_out(call, 0), *dy_hat = pf_out(call, 1);
    const real scale = b.reduction == NONE ? R(1.0) : reduced(&b, dl[0]);
    if (b.reduction != NONE) dl = NULL;
    if (dy_hat) {
        by_y_hat(b.count, y, y_hat, dy_hat, NULL, delta, scale);
        weigh_rows(&b, dl, dy_hat);
    }
    if (dy) {
        if (by_y)
            by_y(b.count, y, y_hat, dy, NULL, delta, scale);
        else
            by_y_hat(b.count, y, y_hat, dy, NULL, delta, -scale);
        weigh_rows(&b, dl, dy);
    }
    return PF_OK;
}

/* The kernel of a loss. */
#define PF_LOSS(name, f, delta) \
    int PF_NAME(name)(const pf_call *call) { return loss(call, 1, f##_loop, PF_RARE(f), delta); }

/* ---- L1: l = |y_hat - y| ---- */

static inline real l1(real y, real y_hat, real delta) {
    (void)delta;
    return r_fabs(y_hat - y);
}
static inline real l1_by_y_hat(real y, real y_hat, real delta) {
    (void)delta;
    const real d = y_hat - y;
    /* The sign; 0 at 0, and NaN for NaN, for which both comparisons are false. */
    return d > 0 ? R(1.0) : d < 0 ? R(-1.0) : d;
}

element_function PF_RARE(l1);
#if PF_DEFINES_RARE
real PF_RARE(l1)(real y, real y_hat, real delta) { return l1(y * LITTLE, y_hat * LITTLE, delta); }
#endif

PF_EACH_OF(l1)
PF_LOSS(l1_loss, l1, 0)
PF_EACH_OF(l1_by_y_hat)
int PF_NAME(l1_loss_grad)(const pf_call *call) {
    return loss_grad(call, l1_by_y_hat_loop, NULL, 0);
}

/* ---- L2: l = (y_hat - y)^2 ---- */

static inline real l2(real y, real y_hat, real delta) {
    (void)delta;
    return (y_hat - y) * (y_hat - y);
}
static inline real l2_by_y_hat(real y, real y_hat, real delta) {
    (void)delta;
    return R(2.0) * (y_hat - y);
}

element_function PF_RARE(l2);
#if PF_DEFINES_RARE
real PF_RARE(l2)(real y, real y_hat, real delta) {
    (void)delta;
    return (y_hat - y) * LITTLE * (y_hat - y);
}
#endif

PF_EACH_OF(l2)
PF_LOSS(l2_loss, l2, 0)
PF_EACH_OF(l2_by_y_hat)
int PF_NAME(l2_loss_grad)(const pf_call *call) {
    return loss_grad(call, l2_by_y_hat_loop, NULL, 0);
}

/* ---- Huber: with d = y_hat - y, l = d^2 / 2 for |d| <= delta, else delta (|d| - delta / 2) ----
 */

static inline real huber(real y, real y_hat, real delta) {
    const real d = r_fabs(y_hat - y);
    return d <= delta ? R(0.5) * d * d : delta * (d - R(0.5) * delta);
}
static inline real huber_by_y_hat(real y, real y_hat, real delta) {
    const real d = y_hat - y;
    return d > delta ? delta : d < -delta ? -delta : d;
}

element_function PF_RARE(huber);
#if PF_DEFINES_RARE
real PF_RARE(huber)(real y, real y_hat, real delta) {
    const real d = r_fabs(y_hat - y);
    if (d <= delta) return R(0.5) * LITTLE * d * d;
    return delta * (r_fabs(y_hat * LITTLE - y * LITTLE) - R(0.5) * LITTLE * delta);
}
#endif

static real delta_of(const pf_call *call) {
    return (real)((const loss_attributes *)call->attributes)->delta;
}

PF_EACH_OF(huber)
PF_LOSS(huber_loss, huber, delta_of(call))
PF_EACH_OF(huber_by_y_hat)
int PF_NAME(huber_loss_grad)(const pf_call *call) {
    return loss_grad(call, huber_by_y_hat_loop, NULL, delta_of(call));
}

/* ---- binary cross-entropy of the logit x = y_hat, p = sigmoid(x):
 * l = -y log p - (1 - y) log(1 - p) = max(x, 0) - x y + log(1 + exp(-|x|)) ---- */

static inline real bce(real y, real x, real delta) {
    (void)delta;
    /* max(x, 0) - x y without subtracting two large numbers when y is 0 or 1. For a certain and
     * right answer an infinite x times 0 counts as 0. */
    const real factor = x > 0 ? R(1.0) - y : -y;
    const real linear = factor == 0 ? R(0.0) : x * factor;
    return linear + r_log1p_unit(r_exp_minus_abs(x));
}
static inline real bce_by_x(real y, real x, real delta) {
    (void)delta;
    /* sigmoid(x) - y over one denominator: 1 / (1 + e) - 1 would lose all of a small e. */
    const real e = r_exp_minus_abs(x), rest = R(1.0) - y;
    return (x >= 0 ? rest - y * e : rest * e - y) / (R(1.0) + e);
}
static inline real bce_by_y(real y, real x, real delta) {
    (void)y, (void)delta;
    return -x;
}

element_function PF_RARE(bce);
#if PF_DEFINES_RARE
real PF_RARE(bce)(real y, real y_hat, real delta) { return bce(y, y_hat, delta) * LITTLE; }
#endif

PF_LONG_EACH_OF(bce)
PF_LOSS(binary_cross_entropy, bce, 0)
PF_LONG_EACH_OF(bce_by_x)
PF_EACH_OF(bce_by_y)
int PF_NAME(binary_cross_entropy_grad)(const pf_call *call) {
    return loss_grad(call, bce_by_x_loop, bce_by_y_loop, 0);
}

/* ---- losses that have been computed: l (n, ...), to which a loss of any formula is reduced ----
 */

static inline real given(real y, real l, real delta) {
    (void)y, (void)delta;
    return l;
}

element_function PF_RARE(given);
#if PF_DEFINES_RARE
real PF_RARE(given)(real y, real l, real delta) { return given(y, l, delta) * LITTLE; }
#endif

PF_EACH_OF(given)
int PF_NAME(reduce_loss)(const pf_call *call) {
    return loss(call, 0, given_loop, PF_RARE(given), 0);
}

int PF_NAME(reduce_loss_grad)(const pf_call *call) {
    weighted_rows b;
    find_rows(call, call->inputs[1], 2, &b);
    const real *dl = pf_in(call, 0);
    const real scale = b.reduction == NONE ? R(1.0) : reduced(&b, dl[0]);
    real *restrict out = pf_out(call, 0);
    for (int64_t i = 0; i < b.count; i++) out[i] = scale;
    weigh_rows(&b, b.reduction == NONE ? dl : NULL, out);
    return PF_OK;
}

/* ---- cross-entropy of logits x (..., classes) and labels y (...):
 * l = log sum_c exp(x_c) - x_y, and 0 where y is the label to be ignored ---- */

typedef struct {
    int64_t label, given; /* `given` is 0 if none is ignored */
} ignored_label;

static inline int is_ignored(ignored_label ignored, int64_t label) {
    return ignored.given && label == ignored.label;
}

typedef struct {
    int64_t reduction;
    ignored_label ignored;
} cross_entropy_attributes;

/* Fails at the first label that is neither a class nor the one to be ignored. */
PF_ONCE static int check_labels(const pf_call *call, int operand, int64_t classes,
                                ignored_label ignored) {
    const int64_t *labels = pf_in_int(call, operand), n = pf_count(call->inputs[operand]);
    for (int64_t i = 0; i < n; i++)
        if ((labels[i] < 0 || labels[i] >= classes) && !is_ignored(ignored, labels[i]))
            return call->host->fail(call, PF_ERROR_LABEL, operand, i, labels[i]);
    return PF_OK;
}

/* The finite mean of cross-entropies when their sum overflows, or single ones do. */
real PF_RARE(great_cross_entropy)(const weighted_rows *b, const int64_t *labels, const real *x,
                                  int64_t classes, ignored_label ignored);
#if PF_DEFINES_RARE
real PF_RARE(great_cross_entropy)(const weighted_rows *b, const int64_t *labels, const real *x,
                                  int64_t classes, ignored_label ignored) {
    double total = 0;
    real top, log_sum;
    for (int64_t i = 0; i < b->count; i++, x += classes) {
        if (is_ignored(ignored, labels[i])) continue;
        pf_log_sum_rows(x, 1, classes, &top, &log_sum);
        const real l = (top * LITTLE - x[labels[i]] * LITTLE) + log_sum * LITTLE;
        total += (double)(weight_of(b, i / b->row) * l);
    }
    return (real)(total / (double)b->total) / LITTLE;
}
#endif

int PF_NAME(cross_entropy)(const pf_call *call) {
    const int64_t classes = pf_last_dim(call->inputs[1]);
    const ignored_label ignored = ((const cross_entropy_attributes *)call->attributes)->ignored;
    const int status = check_labels(call, 0, classes, ignored);
    if (status != PF_OK) return status;
    weighted_rows b;
    find_rows(call, call->inputs[0], 2, &b);
    const int64_t *labels = pf_in_int(call, 0);
    const real *restrict x = pf_in(call, 1);
    real *restrict out = pf_out(call, 0);
    real lane[PF_LANES] = {0}, top[PF_BLOCK_ROWS], log_sum[PF_BLOCK_ROWS];
    const int64_t block = pf_block_rows(b.count, classes);
    for (int64_t start = 0; start < b.count; start += block) {
        const int64_t rows = b.count - start < block ? b.count - start : block;
        pf_log_sum_rows(x, rows, classes, top, log_sum);
        for (int64_t r = 0; r < rows; r++, x += classes) {
            const int64_t i = start + r;
            const real l =
                is_ignored(ignored, labels[i]) ? R(0.0) : (top[r] - x[labels[i]]) + log_sum[r];
            const real weighted = weight_of(&b, i / b.row) * l;
            if (b.reduction == NONE)
                out[i] = weighted;
            else
                lane[i % PF_LANES] += weighted;
        }
    }
    if (b.reduction == NONE) return PF_OK;
    out[0] = reduced(&b, pf_fold(lane));
    if (b.reduction == MEAN && !(r_fabs(out[0]) < INFINITY))
        out[0] = PF_RARE(great_cross_entropy)(&b, labels, pf_in(call, 1), classes, ignored);
    return PF_OK;
}

/* dx_c = dl w (softmax(x)_c - [c = y]) */
int PF_NAME(cross_entropy_grad)(const pf_call *call) {
    const int64_t classes = pf_last_dim(call->inputs[2]);
    const ignored_label ignored = ((const cross_entropy_attributes *)call->attributes)->ignored;
    const int status = check_labels(call, 1, classes, ignored);
    if (status != PF_OK) return status;
    weighted_rows b;
    find_rows(call, call->inputs[1], 3, &b);
    const int64_t *labels = pf_in_int(call, 1);
    const real *restrict dl = pf_in(call, 0), *restrict x = pf_in(call, 2);
    real *restrict dx = pf_out(call, 0);
    const real scale = b.reduction == NONE ? R(1.0) : reduced(&b, dl[0]);
    real top[PF_BLOCK_ROWS];
    const int64_t block = pf_block_rows(b.count, classes);
    for (int64_t start = 0; start < b.count; start += block) {
        const int64_t rows = b.count - start < block ? b.count - start : block;
        pf_exp_rows(x + start * classes, dx, rows, classes, top);
        for (int64_t i = start; i < start + rows; i++, dx += classes) {
            if (is_ignored(ignored, labels[i])) {
                for (int64_t c = 0; c < classes; c++) dx[c] = 0;
                continue;
            }
            real w = scale * weight_of(&b, i / b.row);
            if (b.reduction == NONE) w *= dl[i];
            /* At the label p - 1 is minus the sum of the others: with p near 1 the difference would
             * cancel. */
            const real own = dx[labels[i]];
            dx[labels[i]] = 0;
            const real others = pf_sum(dx, classes), inverse = R(1.0) / (others + own);
            for (int64_t c = 0; c < classes; c++) dx[c] = w * (dx[c] * inverse);
            dx[labels[i]] = -w * (others * inverse);
        }
    }
    return PF_OK;
}

/* w = table[label], and 0 for the label to be ignored */
int PF_NAME(label_weight)(const pf_call *call) {
    const int64_t classes = pf_count(call->inputs[1]), n = pf_count(call->inputs[0]);
    const ignored_label ignored = *(const ignored_label *)call->attributes;
    const int64_t *labels = pf_in_int(call, 0);
    const int status = check_labels(call, 0, classes, ignored);
    if (status != PF_OK) return status;
    const real *restrict table = pf_in(call, 1);
    real *restrict w = pf_out(call, 0);
    for (int64_t i = 0; i < n; i++) w[i] = is_ignored(ignored, labels[i]) ? 0 : table[labels[i]];
    return PF_OK;
}
