/* exp, log, erf and what smooth activations are made of in float32, without branches, so that a
 * loop over them becomes vector code at every width; those of the C library would be calls. NaN and
 * infinity propagate, results below the smallest normal number are right, and all are within 4
 * units in the last place of the true value, with fused multiply-add and without it.
 *
 * The polynomials are interpolations at Chebyshev nodes, computed with 40 digits; each comment says
 * which function is approximated, and where. The range reductions are the textbook ones: J.-M.
 * Muller, "Elementary Functions", 3rd edition, 2016, chapters 3, 10 and 11. */
#ifndef PYFRAME_MATH32_H
#define PYFRAME_MATH32_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* Of functions so large that compilers would have them called: a loop that calls is no vector loop,
 * and takes up to 15 times as long. */
#define PF_IN_LOOPS __attribute__((always_inline)) static inline

static inline uint32_t pf_bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static inline float pf_of_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* 2^k, -126 <= k <= 127 */
static inline float pf_power_of_two(uint32_t k) { return pf_of_bits((k + 127) << 23); }

/* y 2^k for -252 <= k <= 254, in two halves, since one power does not reach that far; rounded once,
 * since only the second half can lead below the normal numbers. */
static inline float pf_scale_by(float y, uint32_t k) {
    const uint32_t half = (uint32_t)((int32_t)k >> 1);
    return y * pf_power_of_two(half) * pf_power_of_two(k - half);
}

/* exp(x) - 1 = 2^k (1 + fraction) - 1, |fraction| < 0.42 */
typedef struct {
    float fraction;
    uint32_t k;
} pf_exponential;

/* Of x, -126 <= x <= 89: n = k + 1.5 2^23, k = round(x / ln 2), and x less k times the first of two
 * parts of ln 2, which is exact. */
static inline float pf_reduce(float *x) {
    /* Adding 1.5 2^23 rounds to a whole number, which is then in the low bits. */
    const float n = *x * 1.44269504f + 12582912.0f;
    *x -= (n - 12582912.0f) * 0.693359375f;
    return n;
}

/* The exponential of k ln 2 + r: its fraction is exp(r) - 1. */
static inline pf_exponential pf_exponential_near(float n, float r) {
    /* (exp(r) - 1 - r) / r^2 for |r| <= ln(2) / 2, by pairs of terms (Estrin's scheme): fewer steps
     * wait for each other, and a loop of such functions takes as long as its longest chain */
    const float square = r * r;
    const float upper = 1.98910805e-4f * r + 1.39337307e-3f;
    const float middle = 8.33331084e-3f * r + 4.16664642e-2f;
    const float lower = 1.66666667e-1f * r + 0.5f;
    const float p = (upper * square + middle) * square + lower;
    return (pf_exponential){p * square + r, pf_bits_of(n) - 0x4B400000u};
}

/* exp(x), and exp(high + low), low much smaller than high */
static inline pf_exponential pf_exponential_of(float x) {
    const float n = pf_reduce(&x);
    return pf_exponential_near(n, x + (n - 12582912.0f) * 2.12194440e-4f);
}
static inline pf_exponential pf_exponential_of_sum(float high, float low) {
    const float n = pf_reduce(&high);
    return pf_exponential_near(n, high + ((n - 12582912.0f) * 2.12194440e-4f + low));
}

/* exp is 0 at the least of its arguments, -104, and infinity beyond the most, 89. A compiler that
 * knows such a bound takes what lies beyond it for a case of its own, whose comparisons and
 * selections take longer than the bound: a tenth of the time of tanh or sigmoid. */
extern const float pf_least_exponent, pf_most_exponent;

static inline float pf_expf(float x) {
    x = x < pf_least_exponent ? pf_least_exponent : x;
    x = x > pf_most_exponent ? pf_most_exponent : x;
    const pf_exponential e = pf_exponential_of(x);
    return pf_scale_by(1.0f + e.fraction, e.k);
}

/* exp(-|x|) = power (1 + fraction), which cannot overflow: -150 <= k <= 0, so that 2^(k + 64) is a
 * normal number; times 2^-64 it is a power of two that float32 has, or 0. */
typedef struct {
    float power, fraction;
} pf_decay;

static inline pf_decay pf_decay_of(float x) {
    const float y = -fabsf(x);
    const pf_exponential e = pf_exponential_of(y < pf_least_exponent ? pf_least_exponent : y);
    return (pf_decay){pf_power_of_two(e.k + 64) * 5.42101086e-20f, e.fraction};
}
static inline float pf_exp_minus_absf(float x) {
    const pf_decay e = pf_decay_of(x);
    return e.power + e.power * e.fraction;
}

/* exp(x) - 1 = 2^k fraction + (2^k - 1) */
static inline float pf_expm1f(float x) {
    const float size = fabsf(x), small = x; /* 0 keeps its sign; a tiny x is its own result */
    x = x < -18.0f ? -18.0f : x;
    x = x > 89.0f ? 89.0f : x;
    const pf_exponential e = pf_exponential_of(x);
    /* In units of 2^(k - 1), since 2^128 would overflow before the subtraction. */
    const float half = pf_power_of_two(e.k - 1);
    const float y = 2.0f * (half * e.fraction + (half - 0.5f));
    return size < 1e-10f ? small : y;
}

/* log(x) = k ln 2 + log(1 + f), x = 2^k (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2), and log(1 + f) =
 * 2 artanh(s), s = f / (2 + f):  2 s + s z q(z), z = s^2. With s f in the place of 2 s: 2 s = f - s
 * f, in which f is exact. */
static inline float pf_log_of(float f, float k) {
    const float s = f / (2.0f + f), z = s * s;
    /* (2 artanh(s) - 2 s) / s^3 for |s| <= 0.172 */
    float q = 2.33327630e-1f;
    q = q * z + 2.85507364e-1f;
    q = q * z + 4.00001226e-1f;
    q = q * z + 6.66666666e-1f;
    /* f - s (f - z q), where s (f - z q) is much smaller than f */
    const float log1p = f - s * (f - z * q);
    return k * 0.693359375f + (log1p - k * 2.12194440e-4f);
}

static inline float pf_logf(float x) {
    /* Numbers below the normal ones are scaled up by 2^23. */
    const float scaled = x < 1.17549435e-38f ? x * 8388608.0f : x;
    const float extra = x < 1.17549435e-38f ? -23.0f : 0.0f;
    /* Subtracting the bits of sqrt(1/2) leaves k in the exponent's bits. */
    const uint32_t above = pf_bits_of(scaled) - 0x3F3504F3u;
    const float k = (float)((int32_t)above >> 23) + extra;
    const float m = pf_of_bits((above & 0x007FFFFFu) + 0x3F3504F3u);
    float y = pf_log_of(m - 1.0f, k);
    y = x < INFINITY ? y : x; /* infinity and NaN */
    y = x < 0.0f ? NAN : y;
    return x == 0.0f ? -INFINITY : y;
}

/* log(1 + x) for 0 <= x <= 1: what rounding 1 + x loses is added to the f of its logarithm. */
static inline float pf_log1p_unitf(float x) {
    const float u = 1.0f + x, lost = x - (u - 1.0f);
    const float k = u > 1.41421356f ? 1.0f : 0.0f, half = u > 1.41421356f ? 0.5f : 1.0f;
    return pf_log_of((half * u - 1.0f) + half * lost, k);
}

/* ---- the normal distribution ----
 *
 * The tail q(a) = P(Z > a), a >= 0, of a standard normal Z is exp(-a^2 / 2) t P(t) with
 * t = 1 / (1 + 0.375 a). The exponent is computed as -(b^2 + (a - b) (a + b)) / 2, where b is the
 * upper half of the digits of a: its square is exact. */

/* exp(-a^2 / 2) for 0 <= a <= 15 */
static inline pf_exponential pf_bell_of(float a) {
    const float b = pf_of_bits(pf_bits_of(a) & 0xFFFFF000u);
    return pf_exponential_of_sum(-0.5f * (b * b), -0.5f * ((a - b) * (a + b)));
}

/* exp(a^2 / 2) q(a) from t = 1 / (1 + 0.375 a), 0 <= a <= 14.6 */
static inline float pf_tail_of(float t) {
    float p = 5.42980028e-03f;
    p = p * t - 8.87931247e-03f;
    p = p * t - 6.29146017e-02f;
    p = p * t + 2.47836999e-01f;
    p = p * t - 3.40465102e-01f;
    p = p * t + 1.68239987e-01f;
    p = p * t - 3.83510752e-02f;
    p = p * t + 1.03724262e-01f;
    p = p * t + 1.25958462e-01f;
    p = p * t + 1.49825331e-01f;
    p = p * t + 1.49595251e-01f;
    return p * t;
}

/* erf(x) = 1 - 2 q(sqrt(2) |x|) with the sign of x; near 0, where that cancels, x times a
 * polynomial. */
static inline float pf_erff(float x) {
    const float size = fabsf(x), z = x * x;
    float a = 1.41421356f * size;
    a = a > 15.0f ? 15.0f : a;
    const pf_exponential e = pf_bell_of(a);
    const float tail = pf_tail_of(1.0f / (1.0f + 0.375f * a)) * (1.0f + e.fraction);
    const float large = 1.0f - 2.0f * pf_scale_by(tail, e.k);
    /* erf(x) / x for |x| <= 0.9, z = x^2 */
    float q = 8.52940132e-5f;
    q = q * z - 8.17963218e-4f;
    q = q * z + 5.20422670e-3f;
    q = q * z - 2.68606648e-2f;
    q = q * z + 1.12837180e-1f;
    q = q * z - 3.76126352e-1f;
    q = q * z + 1.12837917f;
    return size < 0.9f ? x * q : x == x ? copysignf(large, x) : x;
}

/* ---- gelu: y = x P(Z < x), y' = P(Z < x) + x p(x), p the density ----
 *
 * With a = |x| and q as above, y is -a q(a) on the left and a - a q(a) on the right. y' is
 * q(a) - a p(a) on the left, which is 0 at a0 = 0.7517915..., and 1 minus that on the right. Both
 * are exp(-a^2 / 2) times smooth functions, polynomials of
 *     u = (a / 2) / (1 + a / 2):  a q(a) = exp(-a^2 / 2) u P(u),
 *     t = 1 - u:                  q(a) - a p(a) = exp(-a^2 / 2) (a0 - a) H(t).
 * u P(u) hardly depends on u where u is near 1, nor H(t) on t where t is near 0; so rounding u
 * does little harm in the tails, which have to keep their digits. */
typedef struct {
    float a, u, fraction, power; /* exp(-a^2 / 2) = power 2^-64 (1 + fraction) */
} pf_geluf_terms;

static inline pf_geluf_terms pf_geluf_of(float x) {
    const float size = fabsf(x), a = size > 15.0f ? 15.0f : size; /* q is 0 there */
    const pf_exponential e = pf_bell_of(a);
    const float u = 0.5f * a / (1.0f + 0.5f * a);
    return (pf_geluf_terms){a, u, e.fraction, pf_power_of_two(e.k + 64)};
}

/* y exp(-a^2 / 2), where only the last factor rounds numbers below the normal ones */
static inline float pf_times_bell(float factor, float y, pf_geluf_terms g) {
    return factor * (y + y * g.fraction) * g.power * 5.42101086e-20f;
}

PF_IN_LOOPS float pf_geluf(float x) {
    const pf_geluf_terms g = pf_geluf_of(x);
    /* for 0 <= a <= 14.6 */
    float p = -1.33654151e-1f;
    p = p * g.u + 5.82837972e-1f;
    p = p * g.u - 1.00858541f;
    p = p * g.u + 9.52252851e-1f;
    p = p * g.u - 6.12247382e-1f;
    p = p * g.u + 2.22262332e-1f;
    p = p * g.u - 1.61868523e-2f;
    p = p * g.u + 1.15386229e-1f;
    p = p * g.u + 8.41447290e-2f;
    p = p * g.u - 1.91497511e-1f;
    p = p * g.u + 4.04230123e-1f;
    p = p * g.u + (1.0f - g.u); /* in the tail most of a 1 alone would be subtracted again */
    const float left = pf_times_bell(g.u, p, g), size = x > 0.0f ? x - left : left;
    return x == x ? copysignf(size, x) : x; /* zero keeps its sign */
}

static inline float pf_gelu_slopef(float x) {
    const pf_geluf_terms g = pf_geluf_of(x);
    const float t = 1.0f - g.u;
    float h = 1.24981906e-2f;
    h = h * t - 7.40238128e-2f;
    h = h * t + 1.77247433e-1f;
    h = h * t - 1.97617846e-1f;
    h = h * t + 6.11769937e-2f;
    h = h * t + 2.73717951e-2f;
    h = h * t + 1.09797346e-1f;
    h = h * t + 1.49675055e-1f;
    h = h * t + 3.98952843e-1f;
    const float before_zero = 0.751791537f - g.a - 1.21144495e-8f; /* a0 in two parts */
    const float left = pf_times_bell(before_zero, h, g);
    return x > 0.0f ? 1.0f - left : x == x ? left : x;
}

/* ---- gates: y = x s(v(x)), s(v) = 1 / (1 + exp(-v)), v an odd function ----
 *
 * On the left, with a = -x > 0 and e = exp(-v(a)), y = -a e / (1 + e); on the right y = a / (1 +
 * e). In the left tail an error of v is a relative error of y, hence v = high + low. */
static inline float pf_gatef(float x, float a, float high, float low) {
    const pf_exponential p = pf_exponential_of_sum(-high, -low);
    const float e = (1.0f + p.fraction) * pf_scale_by(1.0f, p.k);
    const float share = a / (1.0f + e);
    const float left = pf_scale_by(share * (1.0f + p.fraction), p.k);
    return x == x ? copysignf(x > 0.0f ? share : left, x) : x; /* zero keeps its sign */
}

/* silu: v(x) = x */
static inline float pf_siluf(float x) {
    const float a = fabsf(x), bound = a > 120.0f ? 120.0f : a;
    return pf_gatef(x, x > 0.0f ? x : bound, bound, 0.0f);
}

/* gelu by tanh: v(x) = x (c1 + c3 x^2) */
#define PF_GELU_C1 1.5957691216057307118   /* 2 sqrt(2/pi) */
#define PF_GELU_C3 0.071354816272600248776 /* 0.044715 c1 */

static inline float pf_gelu_tanhf(float x) {
    const float a = fabsf(x), bound = a > 11.0f ? 11.0f : a;
    const double wide = bound, v = wide * (PF_GELU_C1 + PF_GELU_C3 * (wide * wide));
    const float high = (float)v, low = (float)(v - (double)high);
    return pf_gatef(x, x > 0.0f ? x : bound, high, low);
}

/* ---- the slopes of the gates: in double, with a relative error of 3e-8 ----
 *
 * They change their sign on the left, and near that point a difference of two float32 numbers would
 * lose all of its digits. Each is written as a product, or as a sum of terms of one sign, that is 0
 * at the same point; then a relative error of 3e-8 in them is one of the result. */

/* exp(x) = power (1 + fraction), -700 <= x <= 700 */
typedef struct {
    double power, fraction;
} pf_wide_exponential;

static inline pf_wide_exponential pf_wide_exponential_of(double x) {
    const double shift = 6755399441055744.0; /* 1.5 2^52, as above */
    const double shifted = x * 1.4426950408889634 + shift, n = shifted - shift;
    const double r = x - n * 0.69314718055994531;
    uint64_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 1023) << 52;
    pf_wide_exponential e;
    memcpy(&e.power, &bits, sizeof bits);
    /* (exp(r) - 1 - r) / r^2 for |r| <= ln(2) / 2 */
    double p = 0.00019891080463998842;
    p = p * r + 0.00139337307157920825;
    p = p * r + 0.00833331084464786256;
    p = p * r + 0.0416664641974056923;
    p = p * r + 0.16666666681704215;
    p = p * r + 0.500000001353872989;
    e.fraction = p * (r * r) + r;
    return e;
}

/* The slope of a gate: on the left e (1 + e - a v'(a)) / (1 + e)^2, which is 0 at a0, and on the
 * right 1 minus that. With u = v(a0) - v(a) and e0 = exp(-v(a0)), 1 + e - a v' is the difference
 * from its value at a0: e0 (exp(u) - 1) + (a0 v'(a0) - a v'(a)), two terms of one sign. */
static inline double pf_gate_slope(float x, double u, double e0, double difference) {
    const pf_wide_exponential p = pf_wide_exponential_of(u);
    const double e = e0 * (p.power * (1.0 + p.fraction));
    const double grown = p.power * p.fraction + (p.power - 1.0); /* exp(u) - 1 */
    const double left = e * (e0 * grown + difference) / ((1.0 + e) * (1.0 + e));
    return x > 0.0f ? 1.0 - left : x == x ? left : (double)x;
}

static inline double pf_silu_slopef(float x) {
    const float size = fabsf(x), bound = size > 120.0f ? 120.0f : size;
    const double d = 1.2784645427610738 - (double)bound;
    return pf_gate_slope(x, d, 0.2784645427610738, d);
}

/* v0 - v = d (c1 + c3 (a0^2 + a0 a + a^2)), d = a0 - a; for a v' with 3 c3 instead of c3 */
static inline double pf_gelu_tanh_slopef(float x) {
    const float size = fabsf(x), bound = size > 11.0f ? 11.0f : size;
    const double zero = 0.75246142207101626, a = bound, d = zero - a;
    const double cubic = PF_GELU_C3 * (zero * zero + zero * a + a * a);
    return pf_gate_slope(x, d * (PF_GELU_C1 + cubic), 0.29195521191467136,
                         d * (PF_GELU_C1 + 3.0 * cubic));
}

#endif
