/* exp, log and tanh in float64, without branches; as in math32.h, with more terms, and within 4
 * units in the last place as well. */
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

/* ln 2 in two parts, the first of 32 bits: times a whole number below 2^20 it is exact. */
#define PF_LN2_HIGH 0.693147180369123816490
#define PF_LN2_LOW 1.90821492927058770002e-10
#define PF_WHOLE 6755399441055744.0 /* adding 1.5 2^52 rounds to a whole number */

/* exp(x) = 2^k (1 + fraction), the power as first * second: k reaches further than one does. */
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

/* exp(x) - 1 = 2^k fraction + (2^k - 1), halved lest 2^1024 overflow before all is subtracted */
static inline double pf_expm1(double x) {
    const double size = fabs(x), small = x;
    x = x < -40.0 ? -40.0 : x;
    x = x > 710.0 ? 710.0 : x;
    const pf_exponential64 e = pf_exponential_of64(x);
    const double half = 0.5 * e.first * e.second;
    const double y = 2.0 * (half * e.fraction + (half - 0.5));
    return size < 1e-20 ? small : y;
}

/* k ln 2 + log(1 + f), sqrt(1/2) <= 1 + f <= sqrt(2), and `lost` more of f */
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
    const double smallest = 2.2250738585072014e-308; /* normal; what is below is scaled by 2^54 */
    const double scaled = x < smallest ? x * 18014398509481984.0 : x;
    const double extra = x < smallest ? 1023.0 + 54.0 : 1023.0;
    /* Taking the bits of sqrt(1/2) away, and those of 2^0 back, leaves the exponent. */
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

/* tanh(x) = m / (m + 2), m = exp(2 |x|) - 1 */
static inline double pf_tanh(double x) {
    double size = fabs(x);
    size = size > 20.0 ? 20.0 : size;
    const double m = pf_expm1(2.0 * size);
    return copysign(m / (m + 2.0), x);
}

#endif
