/* Optimizers: each kernel is one pass over a span, n consecutive elements of a flat buffer.
 *
 * p are the parameters, g their gradients; slots are states as well. Between two parameters lies
 * padding, where p and g are 0: every update leaves it at 0. `scalar` slots are one double. */
#include "parts.h"
#include "plan.h"
#include "random.h"

static inline double *scalar_state(const pf_call *call, int i) {
    return (double *)call->states[i]->data;
}

/* ---- gradient descent ---- */

typedef struct {
    double learning_rate_factor, weight_decay, momentum;
    int64_t nesterov;
} sgd_attributes;

/* p -= rate (g + decay p) */
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

/* h = g + decay p;  v = momentum v + h;  p -= rate v, with Nesterov rate (h + momentum v) */
int PF_NAME(sgd_momentum_update)(const pf_call *call) {
    const sgd_attributes *attributes = call->attributes;
    const real *restrict g = pf_in(call, 0);
    real *restrict p = pf_state(call, 0), *restrict v = pf_state(call, 1);
    real rate = (real)(call->step->learning_rate * attributes->learning_rate_factor);
    real decay = (real)attributes->weight_decay, momentum = (real)attributes->momentum;
    int64_t n = pf_count(call->states[0]);
    if (attributes->nesterov) {
        for (int64_t i = 0; i < n; i++) {
            real h = g[i] + decay * p[i];
            v[i] = momentum * v[i] + h;
            p[i] -= rate * (h + momentum * v[i]);
        }
    } else {
        for (int64_t i = 0; i < n; i++) {
            v[i] = momentum * v[i] + (g[i] + decay * p[i]);
            p[i] -= rate * v[i];
        }
    }
    return PF_OK;
}

typedef struct {
    double learning_rate_factor, weight_decay, beta1, beta2, epsilon;
    int64_t epsilon_hat; /* epsilon is added to sqrt(v), not to sqrt(v') */
} adam_attributes;

/* h = g + decay p;  m = beta1 m + (1 - beta1) h;  v = beta2 v + (1 - beta2) h^2, and for step t
 * p -= rate m' / (sqrt(v') + epsilon), m' = m / (1 - beta1^t), v' = v / (1 - beta2^t).
 * The corrections are the same for the whole span: they are computed outside the loop, in double.
 */
int PF_NAME(adam_update)(const pf_call *call) {
    const adam_attributes *attributes = call->attributes;
    const real *restrict g = pf_in(call, 0);
    real *restrict p = pf_state(call, 0);
    real *restrict m = pf_state(call, 1), *restrict v = pf_state(call, 2);
    double t = (double)(call->step->step + 1);
    double rate = call->step->learning_rate * attributes->learning_rate_factor;
    real step = (real)(rate / (1.0 - pow(attributes->beta1, t)));
    real correction = (real)(1.0 / sqrt(1.0 - pow(attributes->beta2, t)));
    real decay = (real)attributes->weight_decay, epsilon = (real)attributes->epsilon;
    if (attributes->epsilon_hat) epsilon *= correction;
    real rest1 = (real)(1.0 - attributes->beta1), rest2 = (real)(1.0 - attributes->beta2);
    real beta2 = (real)attributes->beta2;
    int64_t n = pf_count(call->states[0]);
    for (int64_t i = 0; i < n; i++) {
        real h = g[i] + decay * p[i];
        m[i] += rest1 * (h - m[i]);
        v[i] = beta2 * v[i] + rest2 * h * h;
        p[i] -= step * m[i] / (r_sqrt(v[i]) * correction + epsilon);
    }
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

/* sums[part] = sum_i g[i]^2 over a part */
static void square_sum_part(const pf_call *call, int64_t part, int64_t first, int64_t end,
                            void *sums) {
    const real *restrict g = pf_in(call, 0) + first;
    const int64_t n = end - first;
    double lane[PF_LANES] = {0};
    int64_t i = 0;
    for (; i + PF_LANES <= n; i += PF_LANES)
        PF_EACH_LANE for (int j = 0; j < PF_LANES; j++) lane[j] +=
            (double)g[i + j] * (double)g[i + j];
    for (int j = 0; i < n; i++, j++) lane[j] += (double)g[i] * (double)g[i];
    for (int width = PF_LANES / 2; width > 0; width /= 2)
        for (int j = 0; j < width; j++) lane[j] += lane[j + width];
    ((double *)sums)[part] = lane[0];
}

#if PF_REAL_BITS == 64
/* The norm of numbers whose squares have overflowed: the numbers are scaled down first. */
__attribute__((noinline, cold)) static double scaled_norm(const double *g, int64_t n) {
    double total = 0;
    for (int64_t i = 0; i < n; i++) total += (g[i] * 0x1p-600) * (g[i] * 0x1p-600);
    return sqrt(total) * 0x1p600;
}
#endif

/* norm = sqrt(norm^2 + sum_i g[i]^2), in double, so that float32 neither overflows nor loses the
 * small ones; NaN or infinite if any of them is */
int PF_NAME(gradient_norm)(const pf_call *call) {
    const int64_t n = pf_count(call->inputs[0]);
    int64_t each = (n + SQUARE_PARTS - 1) / SQUARE_PARTS;
    if (each < SQUARE_PART) each = SQUARE_PART;
    double sums[SQUARE_PARTS] = {0}, total = 0;
    pf_in_parts(call, n, each, sizeof(real), square_sum_part, sums);
    for (int64_t part = 0; part * each < n; part++) total += sums[part];
    double norm = sqrt(total), *so_far = scalar_state(call, 0);
#if PF_REAL_BITS == 64
    if (isinf(norm)) norm = scaled_norm(pf_in(call, 0), n);
#endif
    *so_far = hypot(*so_far, norm);
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
static void draw_signs(const pf_call *call, int attempt, int64_t block, real signs[SIGNS]) {
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
