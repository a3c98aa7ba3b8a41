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
 * Most P are numbers that a double holds, and then so is all that matters for them: a and b are
 * probabilities themselves, and what is lost below TINY is nothing beside a P of LEAST. Only for a
 * smaller P all is done once more in logarithms. There is one copy of it, in double, for all
 * instruction sets. */
#include "elementwise.h"
#include "math64.h"
#include "parts.h"

typedef struct {
    int64_t blank;
} ctc_attributes;

int PF_RARE(ctc_nll)(const pf_call *call);

#if PF_DEFINES_RARE

#define TINY 1e-300
#define LEAST 1e-250

/* One target and its frames, of which those without mark are not there. A row of a, or b, has two
 * more places, in which nothing is. */
typedef struct {
    int64_t frames, classes, places; /* T, C, and S */
    double *p, *log_p;               /* softmax(x) (T, C), which becomes dl/dx, and its logarithm */
    double *a, *b;                   /* (T + 1, 2 + S) and (S + 2) to work in */
    double *skip;                    /* (S + 2) whether place s is reached from s - 2: 1 or 0 */
    int64_t *label, *there;          /* (S) and (T) */
} alignment;

/* Returns l, and leaves dl/dx in p if it is wanted. */
double pf_ctc_of_sample(const alignment *z, int wants_slope);

/* ---- what is the same for both types, and so compiled with one of them ---- */

#if PF_REAL_BITS == 32

/* log(exp(a) + exp(b)) */
static double add_logs(double a, double b) {
    if (a == -INFINITY) return b;
    if (b == -INFINITY) return a;
    return a > b ? a + pf_log1p_unit(pf_exp(b - a)) : b + pf_log1p_unit(pf_exp(a - b));
}

/* Fills the rows of a: the first, in front of all frames, and one for each that is there. Returns
 * P, or, in logarithms, log P. */
static double forward(const alignment *z, int in_logs) {
    const int64_t places = z->places;
    const double nothing = in_logs ? -INFINITY : 0;
    double *a = z->a + 2;
    for (int64_t s = -2; s < places; s++) a[s] = s ? nothing : in_logs ? 0 : 1;
    for (int64_t t = 0; t < z->frames; t++) {
        if (!z->there[t]) continue;
        const double *before = a, *p = z->p + t * z->classes;
        a += places + 2;
        a[-2] = a[-1] = nothing;
        if (in_logs) {
            for (int64_t s = 0; s < places; s++) {
                double sum = add_logs(before[s], before[s - 1]);
                if (z->skip[s] != 0) sum = add_logs(sum, before[s - 2]);
                a[s] = sum + z->log_p[t * z->classes + z->label[s]];
            }
            continue;
        }
        PF_RARE_INDEPENDENT
        for (int64_t s = 0; s < places; s++) {
            const double sum = before[s] + before[s - 1] + z->skip[s] * before[s - 2];
            const double next = sum * p[z->label[s]];
            a[s] = next < TINY ? 0 : next;
        }
    }
    return in_logs ? add_logs(a[places - 1], a[places - 2]) : a[places - 1] + a[places - 2];
}

/* a becomes the shares of the places of a frame, from logarithms whose sums a + b may be so large,
 * with long targets and large logits, that only their sum in this frame is sure to make them 1. */
static void log_shares(double *a, const double *b, int64_t places) {
    double top = -INFINITY, sum = 0;
    for (int64_t s = 0; s < places; s++) {
        a[s] += b[s];
        if (a[s] > top) top = a[s];
    }
    for (int64_t s = 0; s < places; s++) sum += a[s] = pf_exp(a[s] - top);
    for (int64_t s = 0; s < places; s++) a[s] /= sum;
}

/* p becomes dl/dx, from the rows of a and what forward has returned. */
static void backward(const alignment *z, int in_logs, double total) {
    const int64_t places = z->places, classes = z->classes;
    const double nothing = in_logs ? -INFINITY : 0, scale = in_logs ? 0 : 1 / total;
    double *a = z->a + 2, *b = z->b;
    for (int64_t t = 0; t < z->frames; t++) a += z->there[t] ? places + 2 : 0;
    for (int64_t s = 0; s < places + 2; s++)
        b[s] = s == places - 1 || s == places - 2 ? (in_logs ? 0 : 1) : nothing;
    for (int64_t t = z->frames - 1; t >= 0; t--) {
        double *p = z->p + t * classes;
        const double *log_p = z->log_p + t * classes;
        if (!z->there[t] || total == -INFINITY) {
            memset(p, 0, (size_t)classes * sizeof *p);
            continue;
        }
        /* a becomes the share of the place, b is c */
        if (in_logs) log_shares(a, b, places);
        for (int64_t s = 0; s < places; s++) {
            const double log_step = log_p[z->label[s]], step = p[z->label[s]];
            if (!in_logs) a[s] *= b[s] * scale;
            b[s] = in_logs ? b[s] + log_step : b[s] * step;
        }
        for (int64_t s = 0; s < places; s++) p[z->label[s]] -= a[s];
        a -= places + 2;
        for (int64_t s = 0; s < places; s++) {
            if (in_logs) {
                b[s] = add_logs(b[s], b[s + 1]);
                if (z->skip[s + 2] != 0) b[s] = add_logs(b[s], b[s + 2]);
            } else {
                const double sum = b[s] + b[s + 1] + z->skip[s + 2] * b[s + 2];
                b[s] = sum < TINY ? 0 : sum;
            }
        }
    }
}

double pf_ctc_of_sample(const alignment *z, int wants_slope) {
    double total = forward(z, 0);
    const int in_logs = total < LEAST;
    if (in_logs) total = forward(z, 1);
    if (wants_slope) backward(z, in_logs, total);
    return -(in_logs ? total : pf_log(total));
}

#endif

/* ---- what reads and writes arrays ---- */

/* How many doubles, or as large integers, an alignment has; the op reserves as much. */
static int64_t room_of(int64_t frames, int64_t classes, int64_t length) {
    const int64_t row = 2 * length + 3;
    return frames * (2 * classes + 1) + (frames + 1) * row + 3 * row;
}

static void softmax(const real *x, int64_t n, double *p, double *log_p) {
    double top = (double)x[0], sum = 0;
    for (int64_t k = 1; k < n; k++)
        if ((double)x[k] > top) top = (double)x[k];
    PF_RARE_INDEPENDENT
    for (int64_t k = 0; k < n; k++) p[k] = pf_exp((double)x[k] - top);
    for (int64_t k = 0; k < n; k++) sum += p[k];
    const double log_sum = pf_log(sum);
    for (int64_t k = 0; k < n; k++) {
        p[k] /= sum;
        log_p[k] = (double)x[k] - top - log_sum; /* top + log_sum is top, of great numbers */
    }
}

/* Fills label and skip from a target, which is filled up with blanks, and returns S. */
static int64_t spread(const int64_t *target, int64_t length, int64_t blank, int64_t *label,
                      double *skip) {
    int64_t s = 0;
    label[0] = blank, skip[0] = 0;
    for (int64_t u = 0; u < length; u++) {
        if (target[u] == blank) continue;
        label[s + 1] = target[u], skip[s + 1] = s > 0 && label[s - 1] != target[u];
        label[s + 2] = blank, skip[s + 2] = 0;
        s += 2;
    }
    skip[s + 1] = skip[s + 2] = 0;
    return s + 1;
}

static void align(const pf_call *call, int64_t part, int64_t first, int64_t end, void *none) {
    (void)part, (void)none;
    const int64_t length = call->inputs[0]->dims[1], *dims = call->inputs[1]->dims;
    const int64_t frames = dims[1], classes = dims[2], row = 2 * length + 3;
    const real *mask = call->input_count > 2 ? pf_in(call, 2) : NULL;
    real *loss = pf_out(call, 0), *dx = call->output_count > 1 ? pf_out(call, 1) : NULL;
    for (int64_t i = first; i < end; i++) {
        const real *x = pf_in(call, 1) + i * frames * classes;
        alignment z = {frames, classes, 0, (double *)call->scratch, 0, 0, 0, 0, 0, 0};
        z.p += i * room_of(frames, classes, length);
        z.log_p = z.p + frames * classes;
        z.a = z.log_p + frames * classes;
        z.b = z.a + (frames + 1) * row;
        z.skip = z.b + row;
        z.label = (int64_t *)(z.skip + row);
        z.there = z.label + row;
        z.places = spread(pf_in_int(call, 0) + i * length, length,
                          ((const ctc_attributes *)call->attributes)->blank, z.label, z.skip);
        for (int64_t t = 0; t < frames; t++) {
            z.there[t] = !mask || mask[i * frames + t] != 0;
            softmax(x + t * classes, classes, z.p + t * classes, z.log_p + t * classes);
        }
        const double l = pf_ctc_of_sample(&z, dx != NULL);
        if (loss) loss[i] = (real)l;
        if (dx)
            for (int64_t k = 0; k < frames * classes; k++)
                dx[i * frames * classes + k] = (real)z.p[k];
    }
}

int PF_RARE(ctc_nll)(const pf_call *call) {
    enum { NANOSECONDS = 5 }; /* about, for a place or a class in a frame */
    const int64_t *labels = pf_in_int(call, 0), n = pf_count(call->inputs[0]);
    const int64_t *dims = call->inputs[1]->dims, length = call->inputs[0]->dims[1];
    for (int64_t i = 0; i < n; i++)
        if (labels[i] < 0 || labels[i] >= dims[2])
            return call->host->fail(call, PF_ERROR_LABEL, 0, i, labels[i]);
    const int64_t bytes =
        (dims[1] + 1) * (2 * length + 1 + dims[2]) * NANOSECONDS * PF_LOOP_BYTES_PER_NANOSECOND;
    pf_in_parts(call, dims[0], pf_rows_of_part(bytes), bytes, align, NULL);
    return PF_OK;
}

#endif

/* labels y (n, L), x (n, T, C), [mask (n, T)] -> -log P (n), and its derivatives by x (n, T, C). */
int PF_NAME(ctc_nll)(const pf_call *call) { return PF_RARE(ctc_nll)(call); }
