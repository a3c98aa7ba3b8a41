/* Metrics: float64 sums over a batch that add up over batches; Python computes the metric from them
 * at the end of the epoch. Each takes an optional weight (n,), one for a row. */
#include "kernel.h"

/* A batch of n rows of m elements each. */
typedef struct {
    int64_t rows, row;
    const real *weight; /* one a row, or NULL */
} weighted_rows;

static weighted_rows weighted_rows_of(const pf_call *call, int shape, int weight) {
    const pf_operand *t = call->inputs[shape];
    weighted_rows b = {t->ndim > 0 ? t->dims[0] : 1, 0, pf_in(call, weight)};
    b.row = b.rows > 0 ? pf_count(t) / b.rows : 0;
    return b;
}

static double weight_of(weighted_rows b, int64_t r) { return b.weight ? (double)b.weight[r] : 1.0; }

/* The weight of all elements: m sum_r w_r. */
static double total_weight(weighted_rows b) {
    if (!b.weight) return (double)b.rows * (double)b.row;
    double sum = 0;
    for (int64_t r = 0; r < b.rows; r++) sum += weight_of(b, r);
    return sum * (double)b.row;
}

/* The index of the largest of n > 0 elements, the first one of a tie. */
static int64_t argmax(const real *restrict x, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

/* Fails at the first label of input 0 that is not a class. */
static int check_labels(const pf_call *call, int64_t classes) {
    const int64_t *labels = pf_in_int(call, 0), n = pf_count(call->inputs[0]);
    for (int64_t i = 0; i < n; i++)
        if (labels[i] < 0 || labels[i] >= classes)
            return call->host->fail(call, PF_ERROR_LABEL, 0, i, labels[i]);
    return PF_OK;
}

/* labels (n, ...), logits (n, ..., classes), [w] -> sum w [argmax = label], sum w */
int PF_NAME(accuracy)(const pf_call *call) {
    const int64_t classes = pf_last_dim(call->inputs[1]);
    const int status = check_labels(call, classes);
    if (status != PF_OK) return status;
    const weighted_rows b = weighted_rows_of(call, 0, 2);
    const int64_t *labels = pf_in_int(call, 0);
    const real *logits = pf_in(call, 1);
    double *sums = pf_out_double(call, 0), correct = 0;
    for (int64_t r = 0; r < b.rows; r++) {
        int64_t right = 0;
        for (int64_t i = r * b.row; i < (r + 1) * b.row; i++)
            right += argmax(logits + i * classes, classes) == labels[i];
        correct += weight_of(b, r) * (double)right;
    }
    sums[0] = correct, sums[1] = total_weight(b);
    return PF_OK;
}

/* labels (n, ...), logits (n, ..., classes), [w] -> counts (classes, classes):
 * counts[label][argmax] = sum w */
int PF_NAME(confusion_matrix)(const pf_call *call) {
    const int64_t classes = pf_last_dim(call->inputs[1]);
    const int status = check_labels(call, classes);
    if (status != PF_OK) return status;
    const weighted_rows b = weighted_rows_of(call, 0, 2);
    const int64_t *labels = pf_in_int(call, 0);
    const real *logits = pf_in(call, 1);
    double *counts = pf_out_double(call, 0);
    for (int64_t i = 0; i < classes * classes; i++) counts[i] = 0;
    for (int64_t i = 0; i < b.rows * b.row; i++)
        counts[labels[i] * classes + argmax(logits + i * classes, classes)] +=
            weight_of(b, i / b.row);
    return PF_OK;
}

/* y, y_hat (n, ...), [w] -> sum w [(y_hat > 0) = (y > 1/2)], sum w */
int PF_NAME(binary_accuracy)(const pf_call *call) {
    const weighted_rows b = weighted_rows_of(call, 1, 2);
    const real *y = pf_in(call, 0), *y_hat = pf_in(call, 1);
    double *sums = pf_out_double(call, 0), correct = 0;
    for (int64_t r = 0; r < b.rows; r++) {
        int64_t right = 0;
        for (int64_t i = r * b.row; i < (r + 1) * b.row; i++)
            right += (y_hat[i] > 0) == (y[i] > R(0.5));
        correct += weight_of(b, r) * (double)right;
    }
    sums[0] = correct, sums[1] = total_weight(b);
    return PF_OK;
}

/* y, y_hat (n, ...), [w] -> sum w |y_hat - y|, sum w */
int PF_NAME(mae)(const pf_call *call) {
    const weighted_rows b = weighted_rows_of(call, 1, 2);
    const real *y = pf_in(call, 0), *y_hat = pf_in(call, 1);
    double *sums = pf_out_double(call, 0), errors = 0;
    for (int64_t r = 0; r < b.rows; r++) {
        double sum = 0;
        for (int64_t i = r * b.row; i < (r + 1) * b.row; i++)
            sum += fabs((double)y_hat[i] - (double)y[i]);
        errors += weight_of(b, r) * sum;
    }
    sums[0] = errors, sums[1] = total_weight(b);
    return PF_OK;
}

/* sum w (y_hat - y)^2 */
static double squared_errors(weighted_rows b, const real *restrict y, const real *restrict y_hat) {
    double errors = 0;
    for (int64_t r = 0; r < b.rows; r++) {
        double sum = 0;
        for (int64_t i = r * b.row; i < (r + 1) * b.row; i++) {
            const double d = (double)y_hat[i] - (double)y[i];
            sum += d * d;
        }
        errors += weight_of(b, r) * sum;
    }
    return errors;
}

/* y, y_hat (n, ...), [w] -> sum w (y_hat - y)^2, sum w */
int PF_NAME(rmse)(const pf_call *call) {
    const weighted_rows b = weighted_rows_of(call, 1, 2);
    double *sums = pf_out_double(call, 0);
    sums[0] = squared_errors(b, pf_in(call, 0), pf_in(call, 1)), sums[1] = total_weight(b);
    return PF_OK;
}

/* parts = sum w in 2 parts, sum w y and sum w y^2 in 3. When the mean of y is far from 0, its
 * variation is a small difference of two large numbers. So the sums are taken about c, the y
 * nearest to the mean, and moved to 0 with twice the digits:
 *     sum w y = s + c sum w,  sum w y^2 = q + 2 c s + c^2 sum w,
 *     s = sum w (y - c),  q = sum w (y - c)^2 */
void PF_RARE(write_moments)(weighted_rows b, const real *y, double *parts);
#if PF_DEFINES_RARE
/* A sum with twice the digits of a double: high + low, low at most half a unit in high's last
 * place.
 */
typedef struct {
    double high, low;
} wide;

static wide add_up(double a, double b) {
    const double sum = a + b, more = sum - a;
    return (wide){sum, (a - (sum - more)) + (b - more)};
}
static wide times(double a, double b) {
    volatile double product = a * b; /* rounded: not fused with a sum that it enters */
    const double high = product;
    return (wide){high, fma(a, b, -high)};
}
static wide plus(wide a, wide b) {
    const wide sum = add_up(a.high, b.high);
    return add_up(sum.high, sum.low + (a.low + b.low));
}

/* The first 26 binary digits of x. A double holds the sum of millions of such numbers exactly, as
 * long as they are of similar size, as those of batches are. */
static double leading(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits &= ~(uint64_t)0 << 27;
    memcpy(&x, &bits, sizeof bits);
    return x;
}

/* parts[0] + .. + parts[count - 1] = x; each but the last has 26 digits. */
static void write_parts(wide x, int count, double *parts) {
    for (int i = 0; i + 1 < count; i++) {
        parts[i] = leading(x.high);
        x = add_up(x.high - parts[i], x.low);
    }
    parts[count - 1] = x.high;
}

void PF_RARE(write_moments)(weighted_rows b, const real *y, double *parts) {
    double mean = 0, about = 0, first = 0, second = 0;
    const double weight = total_weight(b);
    for (int64_t r = 0; r < b.rows; r++) {
        double sum = 0;
        for (int64_t i = r * b.row; i < (r + 1) * b.row; i++) sum += (double)y[i];
        mean += weight_of(b, r) * sum;
    }
    mean /= weight; /* NaN if the weights sum to 0: then no y is nearest, and c is 0 */
    double nearest = INFINITY;
    for (int64_t i = 0; i < b.rows * b.row; i++) {
        const double off = fabs((double)y[i] - mean);
        if (off < nearest) nearest = off, about = (double)y[i];
    }
    for (int64_t r = 0; r < b.rows; r++) {
        double sum = 0, squares = 0;
        for (int64_t i = r * b.row; i < (r + 1) * b.row; i++) {
            const double off = (double)y[i] - about;
            sum += off;
            squares += off * off;
        }
        first += weight_of(b, r) * sum;
        second += weight_of(b, r) * squares;
    }
    const wide square = times(about, about);
    const wide most = plus(times(square.high, weight), times(square.low, weight));
    write_parts((wide){weight, 0}, 2, parts);
    write_parts(plus(times(about, weight), (wide){first, 0}), 3, parts + 2);
    write_parts(plus(plus(most, times(2 * about, first)), (wide){second, 0}), 3, parts + 5);
}
#endif

/* y, y_hat (n, ...), [w] -> sum w (y_hat - y)^2, and in 2, 3 and 3 parts sum w, sum w y and
 * sum w y^2 */
int PF_NAME(r2)(const pf_call *call) {
    const weighted_rows b = weighted_rows_of(call, 1, 2);
    double *sums = pf_out_double(call, 0);
    sums[0] = squared_errors(b, pf_in(call, 0), pf_in(call, 1));
    PF_RARE(write_moments)(b, pf_in(call, 0), sums + 1);
    return PF_OK;
}

/* loss s(), the shape of the batch (n, ...), [w] -> loss sum w, sum w. A batch without weight adds
 * nothing, whatever its loss is. */
int PF_NAME(mean_of)(const pf_call *call) {
    weighted_rows b = weighted_rows_of(call, 1, 2);
    b.row = 1;
    const double weight = total_weight(b);
    double *sums = pf_out_double(call, 0);
    sums[0] = weight == 0 ? 0 : (double)pf_in(call, 0)[0] * weight;
    sums[1] = weight;
    return PF_OK;
}

/* v (n, ...), [w] -> sum w v, sum w */
int PF_NAME(element_mean)(const pf_call *call) {
    const weighted_rows b = weighted_rows_of(call, 0, 1);
    const real *v = pf_in(call, 0);
    double *sums = pf_out_double(call, 0), total = 0;
    for (int64_t r = 0; r < b.rows; r++) {
        double sum = 0;
        for (int64_t i = r * b.row; i < (r + 1) * b.row; i++) sum += (double)v[i];
        total += weight_of(b, r) * sum;
    }
    sums[0] = total, sums[1] = total_weight(b);
    return PF_OK;
}

/* y, y_hat (n, ...), [w] -> counts (2, 2): counts[y > 1/2][y_hat > 0] = sum w */
int PF_NAME(binary_confusion_matrix)(const pf_call *call) {
    const weighted_rows b = weighted_rows_of(call, 1, 2);
    const real *y = pf_in(call, 0), *y_hat = pf_in(call, 1);
    double *counts = pf_out_double(call, 0);
    for (int i = 0; i < 4; i++) counts[i] = 0;
    for (int64_t i = 0; i < b.rows * b.row; i++)
        counts[2 * (y[i] > R(0.5)) + (y_hat[i] > 0)] += weight_of(b, i / b.row);
    return PF_OK;
}

/* labels (n, ...), logits (n, ..., classes), [w] -> sum w [the label is among the k largest], sum
 * w. Of equal logits the last ones count as larger. */
int PF_NAME(top_k_accuracy)(const pf_call *call) {
    const int64_t classes = pf_last_dim(call->inputs[1]), k = *(const int64_t *)call->attributes;
    const int status = check_labels(call, classes);
    if (status != PF_OK) return status;
    const weighted_rows b = weighted_rows_of(call, 0, 2);
    const int64_t *labels = pf_in_int(call, 0);
    const real *x = pf_in(call, 1);
    double *sums = pf_out_double(call, 0), correct = 0;
    for (int64_t i = 0; i < b.rows * b.row; i++, x += classes) {
        int64_t above = 0;
        for (int64_t c = 0; c < classes; c++)
            above += x[c] > x[labels[i]] || (x[c] == x[labels[i]] && c > labels[i]);
        if (above < k) correct += weight_of(b, i / b.row);
    }
    sums[0] = correct, sums[1] = total_weight(b);
    return PF_OK;
}

/* labels (n, ...), probabilities p (n, ..., classes), [w] -> sums (bins, 3): of the rows with
 * max p in a bin sum w, sum w max p, sum w [argmax p = label] */
int PF_NAME(calibration_bins)(const pf_call *call) {
    const int64_t classes = pf_last_dim(call->inputs[1]), bins = *(const int64_t *)call->attributes;
    const int status = check_labels(call, classes);
    if (status != PF_OK) return status;
    const weighted_rows b = weighted_rows_of(call, 0, 2);
    const int64_t *labels = pf_in_int(call, 0);
    const real *p = pf_in(call, 1);
    double *sums = pf_out_double(call, 0);
    for (int64_t i = 0; i < 3 * bins; i++) sums[i] = 0;
    for (int64_t i = 0; i < b.rows * b.row; i++, p += classes) {
        const int64_t best = argmax(p, classes);
        const double weight = weight_of(b, i / b.row), most = (double)p[best];
        if (!(most >= 0 && most <= 1)) { /* no probability: the result is none either */
            sums[0] += (double)NAN;
            continue;
        }
        const int64_t bin = most < 1 ? (int64_t)(most * (double)bins) : bins - 1;
        sums[3 * bin] += weight;
        sums[3 * bin + 1] += weight * most;
        sums[3 * bin + 2] += weight * (best == labels[i]);
    }
    return PF_OK;
}

/* total (...), count (...) -> the sum of each */
int PF_NAME(sum_over_count)(const pf_call *call) {
    double *sums = pf_out_double(call, 0);
    for (int k = 0; k < 2; k++) {
        const real *x = pf_in(call, k);
        sums[k] = 0;
        for (int64_t i = 0; i < pf_count(call->inputs[k]); i++) sums[k] += (double)x[i];
    }
    return PF_OK;
}
