/* exp, log and erf in float64, without branches: as in math32.h, but with more terms, and also
 * within 4 units in the last place (gelu and the slope of sigmoid, made of them, within 5). */
#ifndef PYFRAME_MATH64_H
#define PYFRAME_MATH64_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t pf_bits_of64(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static inline double pf_of_bits64(uint64_t bits) {
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* ln 2 in two parts. The first has 32 bits: times a whole number below 2^20 it is exact. */
#define PF_LN2_HIGH 0.693147180369123816490
#define PF_LN2_LOW 1.90821492927058770002e-10
#define PF_WHOLE 6755399441055744.0 /* adding 1.5 2^52 rounds to a whole number */

/* exp(x) = 2^k (1 + fraction), the power as first * second, since one double cannot hold 2^k for
 * every k. */
typedef struct {
    double fraction, first, second;
} pf_exponential64;

/* For -746 <= x <= 710. */
static inline pf_exponential64 pf_exponential_of64(double x) {
    const double shifted = x * 1.4426950408889634 + PF_WHOLE, n = shifted - PF_WHOLE;
    const double halved = n * 0.5 + PF_WHOLE;
    const double r = (x - n * PF_LN2_HIGH) - n * PF_LN2_LOW;
    const uint64_t k = pf_bits_of64(shifted) - pf_bits_of64(PF_WHOLE);
    const uint64_t half = pf_bits_of64(halved) - pf_bits_of64(PF_WHOLE);
    /* (exp(r) - 1 - r) / r^2 for |r| <= ln(2) / 2 */
    double p = 2.09147553258932022e-9;
    p = p * r + 2.51053127296221018e-8;
    p = p * r + 2.75572734787185805e-7;
    p = p * r + 2.75572551700008874e-6;
    p = p * r + 2.48015873856774619e-5;
    p = p * r + 1.98412698750022788e-4;
    p = p * r + 1.38888888888837112e-3;
    p = p * r + 8.33333333332608312e-3;
    p = p * r + 4.16666666666666698e-2;
    p = p * r + 1.6666666666666671e-1;
    p = p * r + 0.5;
    return (pf_exponential64){p * (r * r) + r, pf_of_bits64((half + 1023) << 52),
                              pf_of_bits64((k - half + 1023) << 52)};
}

static inline double pf_exp(double x) {
    x = x < -746.0 ? -746.0 : x; /* 0 there, and infinity beyond 710 */
    x = x > 710.0 ? 710.0 : x;
    const pf_exponential64 e = pf_exponential_of64(x);
    return (1.0 + e.fraction) * e.first * e.second;
}

/* exp(-|x|) = power (1 + fraction), which cannot overflow */
typedef struct {
    double power, fraction;
} pf_decay64;

static inline pf_decay64 pf_decay_of64(double x) {
    double size = fabs(x);
    size = size > 746.0 ? 746.0 : size; /* 0 there */
    const pf_exponential64 e = pf_exponential_of64(-size);
    return (pf_decay64){e.first * e.second, e.fraction};
}
static inline double pf_exp_minus_abs(double x) {
    const pf_decay64 e = pf_decay_of64(x);
    return e.power + e.power * e.fraction;
}

/* exp(x) - 1 = 2^k fraction + (2^k - 1), halved, since 2^1024 would overflow */
static inline double pf_expm1(double x) {
    const double size = fabs(x), small = x;
    x = x < -40.0 ? -40.0 : x;
    x = x > 710.0 ? 710.0 : x;
    const pf_exponential64 e = pf_exponential_of64(x);
    const double half = 0.5 * e.first * e.second;
    const double y = 2.0 * (half * e.fraction + (half - 0.5));
    return size < 1e-20 ? small : y;
}

/* k ln 2 + log(1 + f), sqrt(1/2) <= 1 + f <= sqrt(2), where `lost` is still to be added to f */
static inline double pf_log_of64(double f, double lost, double k) {
    const double s = f / (2.0 + f), z = s * s;
    /* (2 artanh(s) - 2 s) / s^3 for |s| <= 0.172 */
    double q = 1.46191661348879714e-1;
    q = q * z + 1.53315016111453277e-1;
    q = q * z + 1.8182895750119194e-1;
    q = q * z + 2.22222110437768582e-1;
    q = q * z + 2.85714286265336159e-1;
    q = q * z + 3.99999999998982728e-1;
    q = q * z + 6.66666666666666973e-1;
    const double log1p = f - (s * (f - z * q) - lost);
    return k * PF_LN2_HIGH + (log1p + k * PF_LN2_LOW);
}

static inline double pf_log(double x) {
    const double smallest = 2.2250738585072014e-308; /* normal; numbers below are scaled by 2^54 */
    const double scaled = x < smallest ? x * 18014398509481984.0 : x;
    const double extra = x < smallest ? 1023.0 + 54.0 : 1023.0;
    /* Subtracting the bits of sqrt(1/2) and adding those of 2^0 leaves the exponent. */
    const uint64_t root = 0x3FE6A09E667F3BCDu;
    const uint64_t above = pf_bits_of64(scaled) - root;
    /* A whole number below 2^52 in the digits of 2^52 becomes a double without a conversion. */
    const uint64_t exponent = (above + 0x3FF0000000000000u) >> 52;
    const double k = (pf_of_bits64(exponent | 0x4330000000000000u) - 4503599627370496.0) - extra;
    const double m = pf_of_bits64((above & 0x000FFFFFFFFFFFFFu) + root);
    double y = pf_log_of64(m - 1.0, 0.0, k);
    y = x < INFINITY ? y : x; /* infinity and NaN */
    y = x < 0.0 ? NAN : y;
    return x == 0.0 ? -INFINITY : y;
}

/* log(1 + x) for 0 <= x <= 1 */
static inline double pf_log1p_unit(double x) {
    const double u = 1.0 + x, lost = x - (u - 1.0);
    const double k = u > 1.4142135623730951 ? 1.0 : 0.0, half = k > 0.0 ? 0.5 : 1.0;
    return pf_log_of64(half * u - 1.0, lost / u, k);
}

/* A number as a sum of two, the second much smaller: for the argument of an exponential, whose
 * relative error is the argument's absolute error. */
typedef struct {
    double high, low;
} pf_pair;

/* x y, exact but for the last of some 106 bits, for finite x and y (Dekker, "A floating-point
 * technique for extending the available precision", 1971) */
static inline pf_pair pf_product(double x, double y) {
    const double high = x * y;
#if defined(__FMA__) || defined(__aarch64__)
    return (pf_pair){high, __builtin_fma(x, y, -high)};
#else
    const uint64_t upper = ~(uint64_t)0x7FFFFFF;
    const double x1 = pf_of_bits64(pf_bits_of64(x) & upper), x2 = x - x1;
    const double y1 = pf_of_bits64(pf_bits_of64(y) & upper), y2 = y - y1;
    return (pf_pair){high, ((x1 * y1 - high) + (x1 * y2 + x2 * y1)) + x2 * y2};
#endif
}

/* exp(-x^2 / 2) and exp(-x^2), |x| <= 40 */
static inline double pf_exp_half_square(double x) {
    const pf_pair square = pf_product(x, x);
    const double y = pf_exp(-0.5 * square.high);
    return y - y * (0.5 * square.low);
}
static inline double pf_exp_square(double x) {
    const pf_pair square = pf_product(x, x);
    const double y = pf_exp(-square.high);
    return y - y * square.low;
}

/* The argument of gelu's logistic, x (c1 + c3 x^2), c1 = 2 sqrt(2/pi) and c3 = 0.044715 c1, |x| <=
 * 40 */
static inline pf_pair pf_gelu_argument(double x) {
    const double c1 = 1.5957691216057308, c1_low = -9.96930880911092e-17;
    const double c3 = 0.07135481627260025, c3_low = -6.175149918155315e-19;
    const pf_pair square = pf_product(x, x), cubic = pf_product(c3, square.high);
    const double sum = c1 + cubic.high;
    const double lost = cubic.high > c1 ? c1 - (sum - cubic.high) : cubic.high - (sum - c1);
    const double low = lost + (cubic.low + (c3 * square.low + c3_low * square.high) + c1_low);
    const pf_pair v = pf_product(x, sum);
    return (pf_pair){v.high, v.low + x * low};
}

/* With t = 1 / (1 + 0.4 x) for x >= 0, t in (0, 1], and u = 2 t - 1:
 *     erfc(x) exp(x^2) = t P(u)
 * Takes 0.4 x. P is smooth up to both ends, so one polynomial serves all x. Its coefficients are
 * those of the Chebyshev expansion, computed with 50 digits and cut off at 2^-56. */
static inline double pf_erfc_scaled(double x_04) {
    const double t = 1.0 / (1.0 + x_04), u = 2.0 * t - 1.0;
    double p = -4.557735030522008e-10;
    p = p * u + 1.3869554058265714e-11;
    p = p * u + 4.544666184431134e-09;
    p = p * u - 2.5848158085343653e-09;
    p = p * u - 2.147570943632587e-08;
    p = p * u + 2.967982426137417e-08;
    p = p * u + 5.5684398226278584e-08;
    p = p * u - 1.8170530677190366e-07;
    p = p * u - 2.6981676373634754e-09;
    p = p * u + 7.872549683511264e-07;
    p = p * u - 9.327979411546438e-07;
    p = p * u - 2.7029522241719813e-06;
    p = p * u + 7.297723520086234e-06;
    p = p * u + 7.813335383110337e-06;
    p = p * u - 4.504192982418114e-05;
    p = p * u - 2.3323223494144642e-05;
    p = p * u + 0.00028107748934135565;
    p = p * u + 0.0001756833200423262;
    p = p * u - 0.0019275142092821508;
    p = p * u - 0.003357217721904868;
    p = p * u + 0.011344620052797892;
    p = p * u + 0.06850045809844763;
    p = p * u + 0.1815656466592384;
    p = p * u + 0.32186073977565927;
    p = p * u + 0.4216127281222872;
    return t * p;
}

/* The tail of a standard normal Z, P(Z > |x|) = erfc(|x| / sqrt(2)) / 2, divided by its bell
 * exp(-x^2 / 2): both vanish together, but the quotient keeps its digits. */
static inline double pf_normal_tail_scaled(double x) {
    return 0.5 * pf_erfc_scaled(0.28284271247461900976 * fabs(x)); /* 0.4 / sqrt(2) */
}

/* erf(x) for |x| < 1/2: its Taylor series, x (2 / sqrt(pi)) sum_n (-x^2)^n / (n! (2 n + 1)) */
static inline double pf_erf_near(double x) {
    const double z = x * x;
    double p = 1.0 / (479001600.0 * 25);
    p = p * z - 1.0 / (39916800.0 * 23);
    p = p * z + 1.0 / (3628800.0 * 21);
    p = p * z - 1.0 / (362880.0 * 19);
    p = p * z + 1.0 / (40320.0 * 17);
    p = p * z - 1.0 / (5040.0 * 15);
    p = p * z + 1.0 / (720.0 * 13);
    p = p * z - 1.0 / (120.0 * 11);
    p = p * z + 1.0 / (24.0 * 9);
    p = p * z - 1.0 / (6.0 * 7);
    p = p * z + 1.0 / (2.0 * 5);
    p = p * z - 1.0 / 3;
    return 1.12837916709551257390 * (x + x * (p * z));
}

/* erf(x); for |x| >= 1/2 it is 1 - erfc(|x|) with the sign of x, since erf is above 1/2 there */
static inline double pf_erf(double x) {
    const double size = fabs(x) < 6.0 ? fabs(x) : 6.0; /* 1 there */
    const double far = 1.0 - pf_exp(-size * size) * pf_erfc_scaled(0.4 * size);
    const double y = copysign(size < 0.5 ? pf_erf_near(size) : far, x);
    return x == x ? y : x;
}

#endif
