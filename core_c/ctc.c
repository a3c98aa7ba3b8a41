/* Connectionist temporal classification: how likely a sequence of labels is, over all alignments to
 * a longer sequence of frames (Graves et al., "Connectionist temporal classification", ICML 2006,
 * section 4.1).
 *
 * With a blank before, between and after its U labels, a target has S = 2 U + 1 places: place 2 u +
 * 1 is label u, and even ones are blanks. Frame by frame an alignment stays, goes on by one place,
 * or by two over a blank between different labels. With p_t = softmax(x_t), all in logarithms:
 *
 *     a_t(s) = log p_t(s) + log(exp a_t-1(s) + exp a_t-1(s - 1) + exp a_t-1(s - 2))
 *     b_t(s) = log(exp c(s) + exp c(s + 1) + exp c(s + 2)),  c(s) = log p_t+1(s) + b_t+1(s)
 *     l = -log P,  log P = log(exp a_T(S - 1) + exp a_T(S - 2))
 *     dl/dx_tk = p_tk - sum over places s with label k of exp(a_t(s) + b_t(s) - log P)
 *
 * Sums of logarithms keep what a product of probabilities would lose. There is one copy of it, in
 * double, for all instruction sets. */
#include "math64.h"
#include "parts.h"

typedef struct {
    int64_t blank;
} ctc_attributes;

int PF_RARE(ctc_nll)(const pf_call *call);

#if PF_DEFINES_RARE

/* log(exp(a) + exp(b)) */
static double add_logs(double a, double b) {
    if (a == -INFINITY) return b;
    if (b == -INFINITY) return a;
    return a > b ? a + pf_log1p_unit(pf_exp(b - a)) : b + pf_log1p_unit(pf_exp(a - b));
}

/* One target and its frames. */
typedef struct {
    int64_t frames, classes, blank, places; /* T, C, and S */
    const real *x, *mask;                   /* (T, C), and (T) or NULL */
    const double *lse;                      /* log sum_k exp(x_tk), of each frame */
    const int64_t *labels;                  /* U, without blanks */
} alignment;

static int64_t label_of(const alignment *z, int64_t s) {
    return s & 1 ? z->labels[s / 2] : z->blank;
}

static double log_p(const alignment *z, int64_t t, int64_t s) {
    return (double)z->x[t * z->classes + label_of(z, s)] - z->lse[t];
}

static int is_there(const alignment *z, int64_t t) { return !z->mask || z->mask[t] != 0; }

/* Whether an alignment may go from place s - 2 to s. */
static int may_skip(const alignment *z, int64_t s) {
    return s > 2 && (s & 1) && label_of(z, s) != label_of(z, s - 2);
}

/* Fills a_t (S), one after another for the frames that are there, and returns log P. */
static double forward(const alignment *z, double *a) {
    const int64_t places = z->places;
    const double *before = NULL;
    for (int64_t t = 0; t < z->frames; t++) {
        if (!is_there(z, t)) continue;
        for (int64_t s = 0; s < places; s++) {
            double sum = before ? before[s] : s < 2 ? 0 : -INFINITY;
            if (before && s > 0) sum = add_logs(sum, before[s - 1]);
            if (before && may_skip(z, s)) sum = add_logs(sum, before[s - 2]);
            a[s] = sum == -INFINITY ? sum : sum + log_p(z, t, s);
        }
        before = a;
        a += places;
    }
    if (!before) return places == 1 ? 0 : -INFINITY; /* no frames are the empty target */
    return places == 1 ? before[0] : add_logs(before[places - 1], before[places - 2]);
}

/* dx (T, C), from a_t; b (S) and share (C) are memory to work in. */
static void backward(const alignment *z, const double *a, double log_total, double *b,
                     double *share, real *dx) {
    const int64_t places = z->places, classes = z->classes;
    for (int64_t t = 0; t < z->frames; t++) a += is_there(z, t) ? places : 0;
    for (int64_t s = 0; s < places; s++) b[s] = s + 2 < places ? -INFINITY : 0;
    for (int64_t t = z->frames - 1; t >= 0; t--) {
        real *slope = dx + t * classes;
        if (!is_there(z, t) || log_total == -INFINITY) {
            for (int64_t k = 0; k < classes; k++) slope[k] = 0;
            continue;
        }
        a -= places;
        for (int64_t k = 0; k < classes; k++)
            share[k] = pf_exp((double)z->x[t * classes + k] - z->lse[t]);
        for (int64_t s = 0; s < places; s++)
            share[label_of(z, s)] -= pf_exp(a[s] + b[s] - log_total);
        for (int64_t k = 0; k < classes; k++) slope[k] = (real)share[k];
        for (int64_t s = 0; s < places; s++) b[s] += b[s] == -INFINITY ? 0 : log_p(z, t, s);
        for (int64_t s = 0; s < places; s++) {
            if (s + 1 < places) b[s] = add_logs(b[s], b[s + 1]);
            if (s + 2 < places && may_skip(z, s + 2)) b[s] = add_logs(b[s], b[s + 2]);
        }
    }
}

static double log_sum_exp(const real *x, int64_t n) {
    double top = (double)x[0], sum = 0;
    for (int64_t k = 1; k < n; k++)
        if ((double)x[k] > top) top = (double)x[k];
    for (int64_t k = 0; k < n; k++) sum += pf_exp((double)x[k] - top);
    return top + pf_log(sum);
}

/* Doubles, or as large integers, that a sample works in: a, b, lse, share and labels; the op
 * reserves as much. */
static int64_t room_of(int64_t frames, int64_t classes, int64_t length) {
    const int64_t places = 2 * length + 1;
    return frames * places + places + frames + classes + length;
}

static void align(const pf_call *call, int64_t part, int64_t first, int64_t end, void *none) {
    (void)part, (void)none;
    const ctc_attributes *attributes = call->attributes;
    const int64_t length = call->inputs[0]->dims[1], *dims = call->inputs[1]->dims;
    const int64_t frames = dims[1], classes = dims[2];
    const real *mask = call->input_count > 2 ? pf_in(call, 2) : NULL;
    real *loss = pf_out(call, 0), *dx = call->output_count > 1 ? pf_out(call, 1) : NULL;
    for (int64_t i = first; i < end; i++) {
        double *a = (double *)call->scratch + i * room_of(frames, classes, length);
        double *b = a + frames * (2 * length + 1), *lse = b + 2 * length + 1;
        double *share = lse + frames;
        int64_t *labels = (int64_t *)(share + classes), count = 0;
        const int64_t *given = pf_in_int(call, 0) + i * length;
        for (int64_t u = 0; u < length; u++)
            if (given[u] != attributes->blank) labels[count++] = given[u];
        const real *x = pf_in(call, 1) + i * frames * classes;
        const alignment z = {frames,        classes, attributes->blank,
                             2 * count + 1, x,       mask ? mask + i * frames : NULL,
                             lse,           labels};
        for (int64_t t = 0; t < frames; t++) lse[t] = log_sum_exp(x + t * classes, classes);
        const double log_total = forward(&z, a);
        if (loss) loss[i] = (real)-log_total;
        if (dx) backward(&z, a, log_total, b, share, dx + i * frames * classes);
    }
}

int PF_RARE(ctc_nll)(const pf_call *call) {
    enum { NANOSECONDS = 50 }; /* about, for a place in a frame */
    const int64_t *labels = pf_in_int(call, 0), n = pf_count(call->inputs[0]);
    const int64_t *dims = call->inputs[1]->dims, length = call->inputs[0]->dims[1];
    for (int64_t i = 0; i < n; i++)
        if (labels[i] < 0 || labels[i] >= dims[2])
            return call->host->fail(call, PF_ERROR_LABEL, 0, i, labels[i]);
    const int64_t bytes =
        (dims[1] + 1) * (2 * length + 1) * NANOSECONDS * PF_LOOP_BYTES_PER_NANOSECOND;
    pf_in_parts(call, dims[0], pf_rows_of_part(bytes), bytes, align, NULL);
    return PF_OK;
}

#endif

/* labels y (n, L), x (n, T, C), [mask (n, T)] -> -log P (n), and its derivatives by x (n, T, C). */
int PF_NAME(ctc_nll)(const pf_call *call) { return PF_RARE(ctc_nll)(call); }
