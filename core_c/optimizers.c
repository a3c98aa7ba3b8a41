/* Optimizers: each kernel is one pass over a span, n consecutive elements of a flat buffer.
 *
 * p are the parameters, g their gradients; slots are states as well. Between two parameters lies
 * padding, where p and g are 0: every update leaves it at 0. `scalar` slots are one double. */
#include "elementwise.h"
#include "parts.h"
#include "plan.h"
#include "random.h"

static inline double *scalar_state(const pf_call *call, int i) {
    return (double *)call->states[i]->data;
}

enum { LAYER_PART = 1 << 13 }; /* elements */

/* ---- gradient descent ---- */

typedef struct {
    double learning_rate_factor, weight_decay, momentum;
    int64_t nesterov, decoupled_weight_decay;
} sgd_attributes;

/* p -= rate (g + decay p), whichever way the decay is meant */
int PF_NAME(sgd_update)(const pf_call *call) {
    const sgd_attributes *attributes = call->attributes;
    const real *restrict g = pf_in(call, 0);
    real *restrict p = pf_state(call, 0);
    real rate = (real)(call->step->learning_rate * attributes->learning_rate_factor);
    real decay = (real)attributes->weight_decay;
    int64_t n = pf_count(call->states[0]);
    for (int64_t i = 0; i < n; i++) p[i] -= rate * (g[i] + decay * p[i]);
    return PF_OK;
}

/* h = g + decay p;  v = momentum v + h;  p -= rate v, with Nesterov rate (h + momentum v)
 * Decoupled the decay goes to p at once:  h = g;  p -= rate (v + decay p) */
int PF_NAME(sgd_momentum_update)(const pf_call *call) {
    const sgd_attributes *attributes = call->attributes;
    const real *restrict g = pf_in(call, 0);
    real *restrict p = pf_state(call, 0), *restrict v = pf_state(call, 1);
    real rate = (real)(call->step->learning_rate * attributes->learning_rate_factor);
    real momentum = (real)attributes->momentum, decay = (real)attributes->weight_decay, shrink = 0;
    if (attributes->decoupled_weight_decay) shrink = decay, decay = 0;
    int64_t n = pf_count(call->states[0]);
    if (attributes->nesterov) {
        for (int64_t i = 0; i < n; i++) {
            real h = g[i] + decay * p[i];
            v[i] = momentum * v[i] + h;
            p[i] -= rate * (h + momentum * v[i] + shrink * p[i]);
        }
    } else {
        for (int64_t i = 0; i < n; i++) {
            v[i] = momentum * v[i] + (g[i] + decay * p[i]);
            p[i] -= rate * (v[i] + shrink * p[i]);
        }
    }
    return PF_OK;
}

/* ---- adaptive rates ---- */

/* Goes before a loop whose cases are constants where it is called: each call is a loop of its own.
 */
#define PF_EACH_CASE __attribute__((always_inline))

/* Weight decay is either coupled, a part of the gradient: h = g + decay p; or decoupled: p is
 * multiplied by `shrink` before anything is subtracted from it. The other of the two has no effect.
 */
typedef struct {
    real decay, shrink;
} weight_decay;

static inline weight_decay decay_of(double decay, int64_t decoupled, double rate) {
    return decoupled ? (weight_decay){0, (real)(1.0 - rate * decay)}
                     : (weight_decay){(real)decay, 1};
}

typedef struct {
    double learning_rate_factor, weight_decay, beta1, beta2, epsilon, momentum_decay;
    int64_t epsilon_hat; /* epsilon is added to sqrt(v), not to sqrt(v') */
    int64_t decoupled_weight_decay, rule;
} adam_attributes;

enum { NADAM = 1, RADAM = 2, ADAMAX = 3 };

/* mu_t: the momentum of NAdam in step t, which rises to beta1. */
static inline double nadam_momentum(const adam_attributes *attributes, double t) {
    return attributes->beta1 * (1.0 - 0.5 * pow(0.96, t * attributes->momentum_decay));
}

/* product = mu_1 ... mu_t, of which NAdam keeps 1 - product, at first 0 */
int PF_NAME(nadam_product)(const pf_call *call) {
    double t = (double)(call->step->step + 1), *rest = scalar_state(call, 0);
    *rest = 1.0 - (1.0 - *rest) * nadam_momentum(call->attributes, t);
    return PF_OK;
}

/* What the elements of an update by moments have in common. */
typedef struct {
    weight_decay decay;
    real rest1, beta2, rest2, step, look, correction, epsilon;
} moments;

/* h = g + decay p;  m = beta1 m + (1 - beta1) h;  v = beta2 v + (1 - beta2) h^2;  w = max(w, v)
 * p = shrink p - (step m + look h) / (correction sqrt(w) + epsilon)
 * `looks` and `keeps`, whether there is a w, are known at compile time: each combination is a loop
 * of its own, in which nothing is stored by a mask. */
PF_EACH_CASE static inline void update_by_moments(int64_t n, const real *restrict g,
                                                  real *restrict p, real *restrict m,
                                                  real *restrict v, real *restrict w,
                                                  const moments c, const int looks,
                                                  const int keeps) {
    const real *largest = keeps ? pf_aside(w) : NULL;
    PF_INDEPENDENT
    for (int64_t i = 0; i < n; i++) {
        real h = g[i] + c.decay.decay * p[i];
        m[i] += c.rest1 * (h - m[i]);
        real square = c.beta2 * v[i] + c.rest2 * h * h;
        v[i] = square;
        if (keeps) {
            const real most = largest[i];
            square = square > most ? square : most;
            w[i] = square;
        }
        real u = c.step * m[i];
        if (looks) u += c.look * h;
        p[i] = c.decay.shrink * p[i] - u / (r_sqrt(square) * c.correction + c.epsilon);
    }
}

/* u = max(beta2 u, |h| + epsilon);  p = shrink p - step m / u */
PF_EACH_CASE static inline void update_by_maximum(int64_t n, const real *restrict g,
                                                  real *restrict p, real *restrict m,
                                                  real *restrict u, const moments c) {
    PF_INDEPENDENT
    for (int64_t i = 0; i < n; i++) {
        real h = g[i] + c.decay.decay * p[i];
        m[i] += c.rest1 * (h - m[i]);
        real kept = c.beta2 * u[i], now = r_fabs(h) + c.epsilon;
        u[i] = kept > now ? kept : now;
        p[i] = c.decay.shrink * p[i] - c.step * m[i] / u[i];
    }
}

/* Adam and what stands on it: the same loops with other factors. With m' = m / (1 - beta1^t) and
 * v' = v / (1 - beta2^t)
 *   Adam    p -= rate m' / (sqrt(v') + epsilon), AMSGrad with the largest v so far
 *   NAdam   a part of the step is along h, as if m were one step further
 *   RAdam   the rate is multiplied by how far v can be trusted; p -= rate m' when it cannot
 *   AdaMax  the maximum of |h|, falling by beta2, instead of sqrt(v')
 * The factors are the same for the whole span: they are computed outside the loop, in double. */
int PF_NAME(adam_update)(const pf_call *call) {
    const adam_attributes *attributes = call->attributes;
    const real *restrict g = pf_in(call, 0);
    real *restrict p = pf_state(call, 0);
    real *restrict m = pf_state(call, 1), *restrict v = pf_state(call, 2);
    const double beta1 = attributes->beta1, beta2 = attributes->beta2;
    double t = (double)(call->step->step + 1);
    double rate = call->step->learning_rate * attributes->learning_rate_factor;
    double rest1 = 1.0 - pow(beta1, t), left2 = pow(beta2, t), look = 0.0;
    double correction = 1.0 / sqrt(1.0 - left2), epsilon = attributes->epsilon, step = rate / rest1;
    if (attributes->epsilon_hat) epsilon *= correction;
    if (attributes->rule == NADAM) {
        double rest = *(const double *)call->inputs[1]->data; /* 1 - mu_1 ... mu_t */
        double next = nadam_momentum(attributes, t + 1);
        look = rate * (1.0 - nadam_momentum(attributes, t)) / rest;
        step = rate * next / (1.0 - (1.0 - rest) * next);
    } else if (attributes->rule == RADAM) {
        double most = 2.0 / (1.0 - beta2) - 1.0, rho = most - 2.0 * t * left2 / (1.0 - left2);
        if (rho > 5) {
            step *= sqrt((rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho));
            epsilon *= correction;
        } else {
            correction = 0.0, epsilon = 1.0;
        }
    }
    const moments c = {decay_of(attributes->weight_decay, attributes->decoupled_weight_decay, rate),
                       (real)(1.0 - beta1),
                       (real)beta2,
                       (real)(1.0 - beta2),
                       (real)step,
                       (real)look,
                       (real)correction,
                       (real)epsilon};
    int64_t n = pf_count(call->states[0]);
    if (attributes->rule == ADAMAX)
        update_by_maximum(n, g, p, m, v, c);
    else if (attributes->rule == NADAM)
        update_by_moments(n, g, p, m, v, NULL, c, 1, 0);
    else if (call->state_count > 3)
        update_by_moments(n, g, p, m, v, pf_state(call, 3), c, 0, 1);
    else
        update_by_moments(n, g, p, m, v, NULL, c, 0, 0);
    return PF_OK;
}

typedef struct {
    double learning_rate_factor, weight_decay, rho, epsilon, momentum, learning_rate_decay;
    int64_t decoupled_weight_decay, centered, sums;
} squares_attributes;

/* h = g + decay p;  s = keep s + add h^2;  with a mean: a = keep a + add h, q = s - a^2, else q = s
 * u = h / (sqrt(q) + epsilon), with a velocity: u = v = momentum v + u;  p = shrink p - rate u
 * `centers` and `moves`, whether there is an a or a v, are known at compile time. Rounding may make
 * q negative: its size counts. */
PF_EACH_CASE static inline void update_by_squares(int64_t n, const real *restrict g,
                                                  real *restrict p, real *restrict s,
                                                  real *restrict a, real *restrict v,
                                                  weight_decay decay, real keep, real add,
                                                  real epsilon, real momentum, real rate,
                                                  const int centers, const int moves) {
    PF_INDEPENDENT
    for (int64_t i = 0; i < n; i++) {
        real h = g[i] + decay.decay * p[i];
        real q = keep * s[i] + add * h * h;
        s[i] = q;
        if (centers) {
            const real mean = a[i] + add * (h - a[i]);
            a[i] = mean;
            q = r_fabs(q - mean * mean);
        }
        real u = h / (r_sqrt(q) + epsilon);
        if (moves) v[i] = u = momentum * v[i] + u;
        p[i] = decay.shrink * p[i] - rate * u;
    }
}

/* RMSProp, where the squares fade; and Adagrad, which sums them and lets the rate fall:
 * rate / (1 + t learning_rate_decay). */
int PF_NAME(squares_update)(const pf_call *call) {
    const squares_attributes *attributes = call->attributes;
    const real *restrict g = pf_in(call, 0);
    real *restrict p = pf_state(call, 0), *restrict s = pf_state(call, 1);
    double rate = call->step->learning_rate * attributes->learning_rate_factor;
    rate /= 1.0 + (double)call->step->step * attributes->learning_rate_decay;
    weight_decay decay =
        decay_of(attributes->weight_decay, attributes->decoupled_weight_decay, rate);
    real keep = attributes->sums ? 1 : (real)attributes->rho;
    real add = attributes->sums ? 1 : (real)(1.0 - attributes->rho);
    real epsilon = (real)attributes->epsilon, momentum = (real)attributes->momentum;
    int64_t n = pf_count(call->states[0]);
    int moves = call->state_count > (attributes->centered ? 3 : 2);
    if (attributes->centered && moves)
        update_by_squares(n, g, p, s, pf_state(call, 2), pf_state(call, 3), decay, keep, add,
                          epsilon, momentum, (real)rate, 1, 1);
    else if (attributes->centered)
        update_by_squares(n, g, p, s, pf_state(call, 2), NULL, decay, keep, add, epsilon, 0,
                          (real)rate, 1, 0);
    else if (moves)
        update_by_squares(n, g, p, s, NULL, pf_state(call, 2), decay, keep, add, epsilon, momentum,
                          (real)rate, 0, 1);
    else
        update_by_squares(n, g, p, s, NULL, NULL, decay, keep, add, epsilon, 0, (real)rate, 0, 0);
    return PF_OK;
}

typedef struct {
    double learning_rate_factor, weight_decay, rho, epsilon;
    int64_t decoupled_weight_decay;
} adadelta_attributes;

/* h = g + decay p;  s = rho s + (1 - rho) h^2;  u = sqrt(d + epsilon) / sqrt(s + epsilon) h
 * d = rho d + (1 - rho) u^2;  p = shrink p - rate u */
int PF_NAME(adadelta_update)(const pf_call *call) {
    const adadelta_attributes *attributes = call->attributes;
    const real *restrict g = pf_in(call, 0);
    real *restrict p = pf_state(call, 0);
    real *restrict s = pf_state(call, 1), *restrict d = pf_state(call, 2);
    double factor = call->step->learning_rate * attributes->learning_rate_factor;
    weight_decay decay =
        decay_of(attributes->weight_decay, attributes->decoupled_weight_decay, factor);
    real rate = (real)factor, epsilon = (real)attributes->epsilon;
    real rho = (real)attributes->rho, rest = (real)(1.0 - attributes->rho);
    int64_t n = pf_count(call->states[0]);
    PF_INDEPENDENT
    for (int64_t i = 0; i < n; i++) {
        real h = g[i] + decay.decay * p[i];
        s[i] = rho * s[i] + rest * h * h;
        real u = r_sqrt((d[i] + epsilon) / (s[i] + epsilon)) * h;
        d[i] = rho * d[i] + rest * u * u;
        p[i] = decay.shrink * p[i] - rate * u;
    }
    return PF_OK;
}

typedef struct {
    double learning_rate_factor, eta_minus, eta_plus, smallest, largest;
} rprop_attributes;

/* With b the gradient before: where g b > 0 the step s grows, where g b < 0 it shrinks and p rests
 *   s = s (g b > 0 ? eta_plus : g b < 0 ? eta_minus : 1), rate s within [smallest, largest]
 *   b = g b < 0 ? 0 : g;  p -= rate s sign(b)
 * s is in units of the rate, so that it follows a schedule. */
int PF_NAME(rprop_update)(const pf_call *call) {
    const rprop_attributes *attributes = call->attributes;
    const real *restrict g = pf_in(call, 0);
    real *restrict p = pf_state(call, 0);
    real *restrict b = pf_state(call, 1), *restrict s = pf_state(call, 2);
    double factor = call->step->learning_rate * attributes->learning_rate_factor;
    real rate = (real)factor, up = (real)attributes->eta_plus, down = (real)attributes->eta_minus;
    if (factor == 0) return PF_OK;
    real low = (real)(attributes->smallest / factor), high = (real)(attributes->largest / factor);
    int64_t n = pf_count(call->states[0]);
    PF_INDEPENDENT
    for (int64_t i = 0; i < n; i++) {
        /* Signs, not numbers: a product of two small gradients is 0. */
        real now = (real)((g[i] > 0) - (g[i] < 0)), before = (real)((b[i] > 0) - (b[i] < 0));
        real same = now * before, x = s[i] * (same > 0 ? up : same < 0 ? down : 1);
        x = x < low ? low : x;
        s[i] = x = x > high ? high : x;
        b[i] = same < 0 ? 0 : g[i];
        p[i] -= rate * x * (same < 0 ? 0 : now);
    }
    return PF_OK;
}

/* ---- without a schedule: x = p is the average of the z, whose distance d = z - x is kept ---- */

typedef struct {
    double learning_rate_factor, weight_decay, beta1, beta2, epsilon;
} schedule_free_attributes;

/* y = x + (1 - beta1) d, where gradients are taken */
int PF_NAME(schedule_free_propose)(const pf_call *call) {
    const schedule_free_attributes *attributes = call->attributes;
    const real *restrict x = pf_in(call, 0), *restrict d = pf_in(call, 1);
    real *restrict y = pf_out(call, 0);
    const real rest = (real)(1.0 - attributes->beta1);
    const int64_t n = pf_count(call->outputs[0]);
    PF_INDEPENDENT
    for (int64_t i = 0; i < n; i++) y[i] = x[i] + rest * d[i];
    return PF_OK;
}

/* weight = weight + rate^2 */
int PF_NAME(schedule_free_weight)(const pf_call *call) {
    const schedule_free_attributes *attributes = call->attributes;
    const double rate = call->step->learning_rate * attributes->learning_rate_factor;
    *scalar_state(call, 0) += rate * rate;
    return PF_OK;
}

/* v = beta2 v + (1 - beta2) g^2;  z = z - rate (g / (sqrt(v') + epsilon) + decay y)
 * x = x + c (z - x), c = rate^2 / weight */
int PF_NAME(schedule_free_update)(const pf_call *call) {
    const schedule_free_attributes *attributes = call->attributes;
    const real *restrict g = pf_in(call, 0), *restrict y = pf_in(call, 1);
    real *restrict x = pf_state(call, 0), *restrict d = pf_state(call, 1);
    real *restrict v = pf_state(call, 2);
    const double factor = call->step->learning_rate * attributes->learning_rate_factor;
    const double weight = *(const double *)call->inputs[2]->data;
    const double t = (double)(call->step->step + 1);
    const real rate = (real)factor, decay = (real)attributes->weight_decay;
    const real c = (real)(weight > 0 ? factor * factor / weight : 0.0), left = 1 - c;
    const real beta2 = (real)attributes->beta2, rest2 = (real)(1.0 - attributes->beta2);
    const real correction = (real)(1.0 / sqrt(1.0 - pow(attributes->beta2, t)));
    const real epsilon = (real)attributes->epsilon;
    const int64_t n = pf_count(call->states[0]);
    PF_INDEPENDENT
    for (int64_t i = 0; i < n; i++) {
        const real square = beta2 * v[i] + rest2 * g[i] * g[i];
        v[i] = square;
        const real u = g[i] / (r_sqrt(square) * correction + epsilon) + decay * y[i];
        const real z = d[i] - rate * u;
        x[i] += c * z;
        d[i] = left * z;
    }
    return PF_OK;
}

/* ---- gradients of a step that runs in parts ---- */

/* total = total + w g, weight = weight + w, both from 0 in the first part of a step; of the two
 * numbers of the first input w, what a part counts by, is the second */
int PF_NAME(add_gradients)(const pf_call *call) {
    const real *restrict g = pf_in(call, 0);
    real *restrict total = pf_state(call, 0);
    double *weight = scalar_state(call, 1), w = ((const double *)call->inputs[1]->data)[1];
    const int64_t n = pf_count(call->states[0]);
    if (call->step->first_sample == 0) {
        memset(total, 0, (size_t)n * sizeof(real));
        *weight = 0;
    }
    if (w == 0) return PF_OK; /* whatever g is: a mean over nothing */
    *weight += w;
    PF_INDEPENDENT
    for (int64_t i = 0; i < n; i++) total[i] += (real)w * g[i];
    return PF_OK;
}

/* g = total / weight */
int PF_NAME(mean_gradients)(const pf_call *call) {
    const real *restrict total = pf_in(call, 0);
    const double weight = *(const double *)call->inputs[1]->data;
    real *restrict g = pf_state(call, 0);
    const real scale = (real)(weight > 0 ? 1.0 / weight : 0.0);
    const int64_t n = pf_count(call->states[0]);
    PF_INDEPENDENT
    for (int64_t i = 0; i < n; i++) g[i] = scale * total[i];
    return PF_OK;
}

/* ---- averages of parameters ---- */

typedef struct {
    const real *p;
    real *a, part;
} averaged;

static void average_part(const pf_call *call, int64_t part, int64_t first, int64_t end,
                         void *context) {
    (void)call, (void)part;
    const averaged c = *(const averaged *)context;
    const real *restrict p = c.p;
    real *restrict a = c.a;
    PF_INDEPENDENT
    for (int64_t i = first; i < end; i++) a[i] += c.part * (p[i] - a[i]);
}

/* a = a + part (p - a), a = p at count 0, with part = 1 - decay, or 1 / (count + 1) for a decay
 * below 0; count = count + 1, and below 0 this is all */
int PF_NAME(average_update)(const pf_call *call) {
    const double decay = *(const double *)call->inputs[1]->data, count = (*scalar_state(call, 1))++;
    const int64_t n = pf_count(call->states[0]);
    averaged of = {pf_in(call, 0), pf_state(call, 0),
                   (real)(decay < 0 ? 1.0 / (count + 1.0) : 1.0 - decay)};
    if (count < 0) return PF_OK;
    if (count == 0)
        memcpy(of.a, of.p, (size_t)n * sizeof(real));
    else
        pf_in_parts(call, n, LAYER_PART, 3 * sizeof(real), average_part, &of);
    return PF_OK;
}

/* ---- clipping ---- */

typedef struct {
    double limit;
} clip_attributes;

/* g = min(max(g, -limit), limit); NaN stays NaN */
int PF_NAME(clip_value)(const pf_call *call) {
    const clip_attributes *attributes = call->attributes;
    real *restrict g = pf_state(call, 0);
    real limit = (real)attributes->limit;
    int64_t n = pf_count(call->states[0]);
    for (int64_t i = 0; i < n; i++) {
        real x = g[i] < -limit ? -limit : g[i];
        g[i] = x > limit ? limit : x;
    }
    return PF_OK;
}

enum { SQUARE_PARTS = 64, SQUARE_PART = 1 << 14 };

typedef struct {
    const real *x;
    double sums[SQUARE_PARTS];
} squares;

/* sums[part] = sum_i x[i]^2 over a part */
static void square_sum_part(const pf_call *call, int64_t part, int64_t first, int64_t end,
                            void *context) {
    (void)call;
    const real *restrict x = ((squares *)context)->x + first;
    const int64_t n = end - first;
    double lane[PF_LANES] = {0};
    int64_t i = 0;
    for (; i + PF_LANES <= n; i += PF_LANES)
        PF_EACH_LANE for (int j = 0; j < PF_LANES; j++) lane[j] +=
            (double)x[i + j] * (double)x[i + j];
    PF_ROLLED for (int j = 0; i < n; i++, j++) lane[j] += (double)x[i] * (double)x[i];
    PF_EACH_HALF for (int width = PF_LANES / 2; width > 0; width /= 2)
        PF_EACH_LANE for (int j = 0; j < width; j++) lane[j] += lane[j + width];
    ((squares *)context)->sums[part] = lane[0];
}

#if PF_REAL_BITS == 64
/* The norm of numbers whose squares have overflowed: the numbers are scaled down first. */
__attribute__((noinline, cold)) static double scaled_norm(const double *x, int64_t n) {
    double total = 0;
    for (int64_t i = 0; i < n; i++) total += (x[i] * 0x1p-600) * (x[i] * 0x1p-600);
    return sqrt(total) * 0x1p600;
}
#endif

/* sqrt(sum_i x[i]^2), in double, so that float32 neither overflows nor loses the small ones; NaN or
 * infinite if any of them is */
PF_ONCE static double norm_of(const pf_call *call, const real *x, int64_t n) {
    int64_t each = (n + SQUARE_PARTS - 1) / SQUARE_PARTS;
    if (each < SQUARE_PART) each = SQUARE_PART;
    squares of = {x, {0}};
    double total = 0;
    pf_in_parts(call, n, each, sizeof(real), square_sum_part, &of);
    for (int64_t part = 0; part * each < n; part++) total += of.sums[part];
    double norm = sqrt(total);
#if PF_REAL_BITS == 64
    if (isinf(norm)) norm = scaled_norm(x, n);
#endif
    return norm;
}

/* norm = sqrt(norm^2 + sum_i g[i]^2) */
int PF_NAME(gradient_norm)(const pf_call *call) {
    double *so_far = scalar_state(call, 0);
    *so_far = hypot(*so_far, norm_of(call, pf_in(call, 0), pf_count(call->inputs[0])));
    return PF_OK;
}

typedef struct {
    int64_t skip;
} check_norm_attributes;

/* Ends a step whose gradients hold NaN or infinity before anything is updated: with an error, or by
 * counting the step as skipped. */
int PF_NAME(check_norm)(const pf_call *call) {
    const check_norm_attributes *attributes = call->attributes;
    if (isfinite(*(const double *)call->inputs[0]->data)) return PF_OK;
    if (!attributes->skip) return call->host->fail(call, PF_ERROR_NONFINITE, -1, -1, 0);
    *scalar_state(call, 0) += 1;
    return PF_SKIP_UPDATE;
}

/* g *= limit / norm when the norm is above the limit */
int PF_NAME(scale_by_norm)(const pf_call *call) {
    const clip_attributes *attributes = call->attributes;
    double norm = *(const double *)call->inputs[0]->data;
    if (!(norm > attributes->limit)) return PF_OK;
    real *restrict g = pf_state(call, 0);
    real scale = (real)(attributes->limit / norm);
    int64_t n = pf_count(call->states[0]);
    for (int64_t i = 0; i < n; i++) g[i] *= scale;
    return PF_OK;
}

/* ---- other gradients: with noise, and from where the loss is higher ---- */

typedef struct {
    double eta, gamma;
} noise_attributes;

int PF_RARE(gradient_noise)(const pf_call *call);
#if PF_DEFINES_RARE
/* g += sigma n, n normal, sigma^2 = eta / (1 + step)^gamma; only where the
 * mask is not 0, which the padding is */
int PF_RARE(gradient_noise)(const pf_call *call) {
    const noise_attributes *attributes = call->attributes;
    const real *restrict mask = pf_in(call, 0);
    real *restrict g = pf_state(call, 0);
    const double steps = 1.0 + (double)call->step->step;
    const double sigma = sqrt(attributes->eta / pow(steps, attributes->gamma));
    const int64_t n = pf_count(call->states[0]);
    for (int64_t i = 0; i < n; i += 4) {
        uint32_t words[4];
        double normal[4];
        pf_philox(call->step->seed, call->stream, (uint64_t)(i / 4), (uint64_t)call->step->step,
                  words);
        pf_normal(words, normal);
        for (int64_t j = i; j < n && j < i + 4; j++)
            if (mask[j] != 0) g[j] += (real)(sigma * normal[j - i]);
    }
    return PF_OK;
}
#endif

int PF_NAME(gradient_noise)(const pf_call *call) { return PF_RARE(gradient_noise)(call); }

typedef struct {
    double sharpness;
} ascent_attributes;

/* c += sharpness g / norm, unless the norm is 0 */
int PF_NAME(ascent)(const pf_call *call) {
    const ascent_attributes *attributes = call->attributes;
    const double norm = *(const double *)call->inputs[1]->data;
    if (norm == 0) return PF_OK;
    const real *restrict g = pf_in(call, 0);
    real *restrict c = pf_state(call, 0);
    const real scale = (real)(attributes->sharpness / norm);
    const int64_t n = pf_count(call->states[0]);
    PF_INDEPENDENT
    for (int64_t i = 0; i < n; i++) c[i] += scale * g[i];
    return PF_OK;
}

/* ---- rates for each parameter: these see one parameter at a time, in its own shape ---- */

/* What an update by layers does to some elements: u = momentum u + rate (g + decay p), p -= u. Or,
 * without a momentum, p -= rate u. */
typedef struct {
    const real *g;
    real *p, *u;
    real decay, momentum, rate;
} layer_step;

static void layer_part(const pf_call *call, int64_t part, int64_t first, int64_t end,
                       void *context) {
    (void)call, (void)part;
    const layer_step c = *(const layer_step *)context;
    real *restrict p = c.p, *restrict u = c.u;
    if (!c.g) {
        PF_INDEPENDENT
        for (int64_t i = first; i < end; i++) p[i] -= c.rate * u[i];
        return;
    }
    const real *restrict g = c.g;
    PF_INDEPENDENT
    for (int64_t i = first; i < end; i++) {
        u[i] = c.momentum * u[i] + c.rate * (g[i] + c.decay * p[i]);
        p[i] -= u[i];
    }
}

typedef struct {
    double learning_rate_factor, weight_decay, momentum, trust_coefficient;
} lars_attributes;

/* local = trust |p| / (|g| + decay |p|), 1 where a norm is 0
 * v = momentum v + rate local (g + decay p);  p -= v */
int PF_NAME(lars_update)(const pf_call *call) {
    const lars_attributes *attributes = call->attributes;
    int64_t n = pf_count(call->states[0]);
    double decay = attributes->weight_decay;
    double rate = call->step->learning_rate * attributes->learning_rate_factor;
    double of_p = norm_of(call, pf_state(call, 0), n), of_g = norm_of(call, pf_in(call, 0), n);
    if (of_p > 0 && of_g > 0) rate *= attributes->trust_coefficient * of_p / (of_g + decay * of_p);
    layer_step step = {pf_in(call, 0), pf_state(call, 0),          pf_state(call, 1),
                       (real)decay,    (real)attributes->momentum, (real)rate};
    pf_in_parts(call, n, LAYER_PART, 5 * sizeof(real), layer_part, &step);
    return PF_OK;
}

typedef struct {
    double learning_rate_factor, weight_decay, beta1, beta2, epsilon;
} lamb_attributes;

typedef struct {
    real decay, rest1, beta2, rest2, mean, root, epsilon;
} lamb_factors;

/* m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
 * u = m' / (sqrt(v') + epsilon) + decay p */
static void lamb_part(const pf_call *call, int64_t part, int64_t first, int64_t end,
                      void *context) {
    (void)part;
    const lamb_factors c = *(const lamb_factors *)context;
    const real *restrict g = pf_in(call, 0), *restrict p = pf_state(call, 0);
    real *restrict m = pf_state(call, 1), *restrict v = pf_state(call, 2);
    real *restrict u = call->scratch;
    PF_INDEPENDENT
    for (int64_t i = first; i < end; i++) {
        m[i] += c.rest1 * (g[i] - m[i]);
        v[i] = c.beta2 * v[i] + c.rest2 * g[i] * g[i];
        u[i] = c.mean * m[i] / (r_sqrt(v[i]) * c.root + c.epsilon) + c.decay * p[i];
    }
}

/* p -= rate |p| / |u| u, without the norms where one is 0 */
int PF_NAME(lamb_update)(const pf_call *call) {
    const lamb_attributes *attributes = call->attributes;
    int64_t n = pf_count(call->states[0]);
    double t = (double)(call->step->step + 1);
    double rate = call->step->learning_rate * attributes->learning_rate_factor;
    lamb_factors factors = {(real)attributes->weight_decay,
                            (real)(1.0 - attributes->beta1),
                            (real)attributes->beta2,
                            (real)(1.0 - attributes->beta2),
                            (real)(1.0 / (1.0 - pow(attributes->beta1, t))),
                            (real)(1.0 / sqrt(1.0 - pow(attributes->beta2, t))),
                            (real)attributes->epsilon};
    pf_in_parts(call, n, LAYER_PART, 8 * sizeof(real), lamb_part, &factors);
    real *u = call->scratch;
    double of_p = norm_of(call, pf_state(call, 0), n), of_u = norm_of(call, u, n);
    if (of_p > 0 && of_u > 0) rate *= of_p / of_u;
    layer_step step = {NULL, pf_state(call, 0), u, 0, 0, (real)rate};
    pf_in_parts(call, n, LAYER_PART, 3 * sizeof(real), layer_part, &step);
    return PF_OK;
}

typedef struct {
    double learning_rate_factor, weight_decay, beta1, beta2, epsilon, momentum, match_rms;
    int64_t nesterov, newton_steps;
} muon_attributes;

int PF_RARE(muon_update)(const pf_call *call);
#if PF_DEFINES_RARE
/* c += a b; a (m, k), b (k, n) */
static void muon_product(const pf_call *call, int64_t m, int64_t n, int64_t k, const real *a,
                         const real *b, real *c) {
    pf_gemm g = {.size = sizeof(pf_gemm),
                 .m = m,
                 .n = n,
                 .k = k,
                 .a = a,
                 .a_row = k,
                 .a_step = 1,
                 .b = b,
                 .b_row = n,
                 .c = c,
                 .c_row = n,
                 .accumulate = 1,
                 .scale = 1};
    call->host->gemm(PF_REAL_BITS)->run(&g);
}

/* Rows of a symmetric product that are computed at a time, up to the diagonal. */
enum { MUON_ROWS = 64 };

/* c = a a^T (side, side), or with `scale` c += scale a a^T for a symmetric c; a is (side, k), or
 * the transpose of what is there. Half of it is computed, and the other half is its mirror image.
 */
static void muon_square(const pf_call *call, int64_t side, int64_t k, const real *a,
                        int a_transposed, real *c, double scale) {
    for (int64_t i = 0; i < side; i += MUON_ROWS) {
        const int64_t m = side - i < MUON_ROWS ? side - i : MUON_ROWS;
        pf_gemm g = {.size = sizeof(pf_gemm),
                     .m = m,
                     .n = i + m,
                     .k = k,
                     .a = a + (a_transposed ? i : i * k),
                     .a_row = a_transposed ? 1 : k,
                     .a_step = a_transposed ? side : 1,
                     .b = a,
                     .b_row = a_transposed ? side : k,
                     .b_transposed = !a_transposed,
                     .c = c + i * side,
                     .c_row = side,
                     .accumulate = scale != 0,
                     .scale = scale};
        call->host->gemm(PF_REAL_BITS)->run(&g);
    }
    for (int64_t i = 0; i < side; i++)
        for (int64_t j = 0; j < i; j++) c[j * side + i] = c[i * side + j];
}

/* The orthogonal matrix nearest to x (rows, columns), roughly: its singular values come near 1, by
 * some steps of a polynomial, which on x are x = a x + (b s + c s s) x, s = x x^T; from the side on
 * which s is small. Returns x or `other`, whichever holds it; s and q are (side, side), side the
 * smaller extent. */
static real *muon_orthogonal(const pf_call *call, int64_t rows, int64_t columns, int64_t steps,
                             real *x, real *other, real *s, real *q) {
    const double a = 3.4445, b = -4.7750, c = 2.0315;
    const int tall = rows > columns;
    const int64_t n = rows * columns, side = tall ? columns : rows, along = tall ? rows : columns;
    double scale = 1.0 / (norm_of(call, x, n) + 1e-7);
    PF_RARE_INDEPENDENT
    for (int64_t i = 0; i < n; i++) x[i] = (real)(x[i] * scale);
    for (int64_t step = 0; step < steps; step++) {
        muon_square(call, side, along, x, tall, s, 0);
        PF_RARE_INDEPENDENT
        for (int64_t i = 0; i < side * side; i++) q[i] = (real)b * s[i];
        muon_square(call, side, side, s, 0, q, c);
        PF_RARE_INDEPENDENT
        for (int64_t i = 0; i < n; i++) other[i] = (real)a * x[i];
        if (tall)
            muon_product(call, rows, columns, side, x, q, other);
        else
            muon_product(call, rows, columns, side, q, x, other);
        real *kept = x;
        x = other, other = kept;
    }
    return x;
}

/* A matrix: m = momentum m + (1 - momentum) g, and p = shrink p - rate size o, where o is m, or
 * with Nesterov momentum m + (1 - momentum) g, made orthogonal. A vector: as AdamW. */
int PF_RARE(muon_update)(const pf_call *call) {
    const muon_attributes *attributes = call->attributes;
    const pf_operand *shape = call->states[0];
    const real *restrict g = pf_in(call, 0);
    real *restrict p = pf_state(call, 0), *restrict m = pf_state(call, 1);
    int64_t n = pf_count(shape);
    double rate = call->step->learning_rate * attributes->learning_rate_factor;
    weight_decay decay = decay_of(attributes->weight_decay, 1, rate);
    if (n == 0) return PF_OK;
    if (shape->ndim < 2) {
        double t = (double)(call->step->step + 1);
        moments c = {decay,
                     (real)(1.0 - attributes->beta1),
                     (real)attributes->beta2,
                     (real)(1.0 - attributes->beta2),
                     (real)(rate / (1.0 - pow(attributes->beta1, t))),
                     0,
                     (real)(1.0 / sqrt(1.0 - pow(attributes->beta2, t))),
                     (real)attributes->epsilon};
        update_by_moments(n, g, p, m, pf_state(call, 2), NULL, c, 0, 0);
        return PF_OK;
    }
    real rest = (real)(1.0 - attributes->momentum);
    real ahead = attributes->nesterov ? rest : 0, *u = call->scratch;
    PF_RARE_INDEPENDENT
    for (int64_t i = 0; i < n; i++) {
        m[i] += rest * (g[i] - m[i]);
        u[i] = m[i] + ahead * (g[i] - m[i]);
    }
    int64_t columns = pf_last_dim(shape), rows = n / columns;
    int64_t side = rows < columns ? rows : columns;
    real *s = u + 2 * n;
    u = muon_orthogonal(call, rows, columns, attributes->newton_steps, u, u + n, s,
                        s + side * side);
    double longer = (double)(rows < columns ? columns : rows);
    double size = attributes->match_rms > 0 ? attributes->match_rms * sqrt(longer)
                                            : sqrt(columns > rows ? longer / (double)rows : 1.0);
    PF_RARE_INDEPENDENT
    for (int64_t i = 0; i < n; i++) p[i] = decay.shrink * p[i] - (real)(rate * size) * u[i];
    return PF_OK;
}
#endif

int PF_NAME(muon_update)(const pf_call *call) { return PF_RARE(muon_update)(call); }

/* ---- searches, which propose a candidate, look at its loss, and keep it if that is the best ----
 */

typedef struct {
    double low, high;
} random_search_attributes;

/* candidate = low + (high - low) u, u uniform in [0, 1); 0 where the mask is 0 (padding) */
int PF_NAME(random_search_propose)(const pf_call *call) {
    const random_search_attributes *attributes = call->attributes;
    const real *restrict mask = pf_in(call, 0);
    real *restrict candidate = pf_out(call, 0);
    double low = attributes->low, span = attributes->high - attributes->low;
    /* Rounding must not reach `high`, which the range excludes. */
    real first = (real)low, last = PF_MATH(nextafter)((real)attributes->high, first);
    int64_t n = pf_count(call->outputs[0]);
    for (int64_t i = 0; i < n; i += 4) {
        uint32_t words[4];
        pf_philox(call->step->seed, call->stream, (uint64_t)(i / 4), (uint64_t)call->step->step,
                  words);
        for (int64_t j = i; j < n && j < i + 4; j++) {
            real x = (real)(low + span * (double)pf_uniform(words[j - i]));
            candidate[j] = mask[j] == 0 ? 0 : x > last ? last : x;
        }
    }
    return PF_OK;
}

typedef struct {
    double step_size;
} direction_search_attributes;

enum { SIGNS = 128, ATTEMPTS = 64 };

/* The signs of the elements from SIGNS * block on: each takes one bit of a Philox block. */
PF_ONCE static void draw_signs(const pf_call *call, int attempt, int64_t block, real signs[SIGNS]) {
    uint32_t words[4];
    uint64_t counter = (uint64_t)call->step->step | (uint64_t)attempt << 56;
    pf_philox(call->step->seed, call->stream, (uint64_t)block, counter, words);
    for (int j = 0; j < SIGNS; j++) signs[j] = words[j / 32] >> (j % 32) & 1 ? R(1.0) : R(-1.0);
}

/* Whether the direction of an attempt differs from the present one. */
static int is_new(const pf_call *call, int attempt, const real *mask, const real *direction,
                  int64_t n) {
    for (int64_t i = 0; i < n; i += SIGNS) {
        real signs[SIGNS];
        draw_signs(call, attempt, i / SIGNS, signs);
        for (int64_t j = i; j < n && j < i + SIGNS; j++)
            if (mask[j] != 0 && signs[j - i] != direction[j]) return 1;
    }
    return 0;
}

/* A fair choice among all directions but the present one: draws until the direction is a different
 * one. With k parameters one draw in 2^k is not, so the last attempt is almost never reached. Of
 * several spans only the first must change: if each had to, two spans of one number each could only
 * change sign together. */
static void draw_direction(const pf_call *call, const real *mask, real *direction, int64_t n) {
    int is_first = *(const double *)call->inputs[2]->data == 0, attempt = 0;
    while (is_first && attempt < ATTEMPTS && !is_new(call, attempt, mask, direction, n)) attempt++;
    for (int64_t i = 0; i < n; i += SIGNS) {
        real signs[SIGNS];
        draw_signs(call, attempt, i / SIGNS, signs);
        for (int64_t j = i; j < n && j < i + SIGNS; j++)
            direction[j] = mask[j] == 0 ? 0 : signs[j - i];
    }
}

/* candidate = p + step_size direction, with a new direction if the last one did not help */
int PF_NAME(direction_search_propose)(const pf_call *call) {
    const direction_search_attributes *attributes = call->attributes;
    const real *restrict p = pf_in(call, 0), *restrict mask = pf_in(call, 1);
    real *restrict candidate = pf_out(call, 0), *restrict direction = pf_state(call, 0);
    double *redraw = scalar_state(call, 1);
    int64_t n = pf_count(call->outputs[0]);
    if (*redraw != 0) draw_direction(call, mask, direction, n);
    *redraw = 0;
    real step_size = (real)attributes->step_size;
    for (int64_t i = 0; i < n; i++) candidate[i] = p[i] + step_size * direction[i];
    return PF_OK;
}

/* cost < best: best = cost, p = candidate; else redraw = 1, if there is such a slot. NaN is no
 * improvement. */
int PF_NAME(search_accept)(const pf_call *call) {
    const pf_operand *loss = call->inputs[1];
    double cost =
        loss->type_bits == 32 ? (double)*(const float *)loss->data : *(const double *)loss->data;
    double *best = scalar_state(call, 1);
    if (cost < *best) {
        *best = cost;
        memcpy(pf_state(call, 0), pf_in(call, 0), (size_t)pf_count(call->states[0]) * sizeof(real));
    } else if (call->state_count > 2) {
        *scalar_state(call, 2) = 1;
    }
    return PF_OK;
}
