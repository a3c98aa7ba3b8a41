/* exp, log and their kin in float64, and the error function, without branches, so that a loop over
 * them becomes vector code at every vector width; the C library's are calls. NaN and infinity go
 * through, and all are within 4 units in the last place (gelu, which is made of them, within 5).
 *
 * Only operations that every instruction set has for vectors of 64-bit numbers are used: no
 * arithmetic shift to the right, no conversion between integers and doubles. */
#ifndef PYFRAME_MATH64_H
#define PYFRAME_MATH64_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t pf_bits(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline double pf_from_bits(uint64_t bits) {
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* x = n ln 2 + r, |r| <= ln(2) / 2, for |x| < 2^20. n comes as a biased integer, n + 2^11. */
static inline double pf_reduce(double x, uint64_t *biased) {
    /* Adding 1.5 2^52 rounds to a whole number, which then stands in the low bits. */
    const double shift = 0x1.8p52;
    const double shifted = x * 1.4426950408889634 + shift, n = shifted - shift;
    *biased = pf_bits(shifted) - pf_bits(shift) + 2048;
    /* ln 2 in two parts; the first has 32 bits, so n times it is exact */
    const double r = x - n * 0x1.62e42feep-1;
    return r - n * 0x1.a39ef35793c76p-33;
}

/* exp(r) - 1 for |r| <= ln(2) / 2: its Taylor series, whose rest is below 2^-56 r */
static inline double pf_expm1_reduced(double r) {
    double p = 1.0 / 6227020800;
    p = p * r + 1.0 / 479001600;
    p = p * r + 1.0 / 39916800;
    p = p * r + 1.0 / 3628800;
    p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    return p * (r * r) + r;
}

/* 2^n for -1022 <= n <= 1023, of n + bias */
static inline double pf_power(uint64_t biased, uint64_t bias) {
    return pf_from_bits((biased - bias + 1023) << 52);
}

/* exp(x) = 2^n exp(r); 2^n in two halves, since n reaches further than one power goes */
static inline double pf_exp(double x) {
    x = x < -750.0 ? -750.0 : x; /* 0 there, and infinity beyond 710 */
    x = x > 720.0 ? 720.0 : x;
    uint64_t n;
    const double r = pf_reduce(x, &n), y = pf_expm1_reduced(r) + 1.0;
    const uint64_t half = n >> 1;
    return y * pf_power(half, 1024) * pf_power(n - half, 1024);
}

/* exp(x) - 1 = 2^n (exp(r) - 1) + (2^n - 1), which loses nothing near 0, where n is 0 */
static inline double pf_expm1(double x) {
    double t = x < -50.0 ? -50.0 : x; /* -1 there */
    t = t > 700.0 ? 700.0 : t;
    uint64_t n;
    const double r = pf_reduce(t, &n), power = pf_power(n, 2048);
    const double y = power * pf_expm1_reduced(r) + (power - 1.0);
    return x > 700.0 ? pf_exp(x) : y;
}

/* log(x) for x = 2^e (1 + f), sqrt(1/2) <= 1 + f < sqrt(2):
 *     log(1 + f) = 2 artanh(s), s = f / (2 + f), = f - s (f - 2 s^2 (1/3 + s^2/5 + s^4/7 + ...))
 * where the last form keeps the digits of f. */
static inline double pf_log(double x) {
    const uint64_t root = 0x3FE6A09E667F3BCDu; /* the bits of sqrt(1/2) */
    const double is_small = x < 0x1p-1022 ? 1.0 : 0.0;
    const double scaled = x < 0x1p-1022 ? x * 0x1p54 : x; /* no leading bit: move one there */
    const uint64_t above = pf_bits(scaled) - root + ((uint64_t)1024 << 52);
    /* above >> 52 is e + 1024; put below 2^52 it becomes a double by its bits alone */
    const double e =
        pf_from_bits((above >> 52) | 0x4330000000000000u) - (0x1p52 + 1024.0) - 54.0 * is_small;
    const double f = pf_from_bits((above & 0x000FFFFFFFFFFFFFu) + root) - 1.0;
    const double s = f / (2.0 + f), z = s * s;
    double p = 1.0 / 23;
    p = p * z + 1.0 / 21;
    p = p * z + 1.0 / 19;
    p = p * z + 1.0 / 17;
    p = p * z + 1.0 / 15;
    p = p * z + 1.0 / 13;
    p = p * z + 1.0 / 11;
    p = p * z + 1.0 / 9;
    p = p * z + 1.0 / 7;
    p = p * z + 1.0 / 5;
    p = p * z + 1.0 / 3;
    const double rest = s * (f - 2.0 * z * p) - e * 0x1.a39ef35793c76p-33;
    double y = e * 0x1.62e42feep-1 + (f - rest);
    y = x == INFINITY ? x : y;
    y = x == 0.0 ? -INFINITY : y;
    return x >= 0.0 ? y : NAN; /* NaN and below 0 */
}

/* log(1 + x) for 0 <= x <= 1: of u = 1 + x as it is rounded, and then what the rounding has lost */
static inline double pf_log1p_unit(double x) {
    const double u = 1.0 + x;
    return pf_log(u) + (x - (u - 1.0)) / u;
}

/* tanh(x) = -m / (2 + m), m = exp(-2 |x|) - 1, with the sign of x */
static inline double pf_tanh(double x) {
    const double m = pf_expm1(-2.0 * fabs(x));
    return copysign(m / (2.0 + m), x);
}

/* exp(-x^2 / 2) for a product that is rounded: x^2 = square + rest, exactly */
static inline double pf_exp_half_square(double x) {
    const double high = pf_from_bits(pf_bits(x) & ~(uint64_t)0x7FFFFFF), low = x - high;
    const double square = x * x;
    const double rest = ((high * high - square) + 2.0 * high * low) + low * low;
    const double y = pf_exp(-0.5 * square);
    return y - y * (0.5 * rest);
}

/* With t = 1 / (1 + 0.4 x) for x >= 0, t in (0, 1], and u = 2 t - 1:
 *     erfc(x) exp(x^2) = t P(u)
 * Takes 0.4 x. P is smooth up to both ends, so one polynomial does for all x. Its coefficients are
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
 * exp(-x^2 / 2): the two shrink together, and the quotient keeps its digits. */
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

/* erf(x); from 1/2 on it is 1 - erfc(|x|), with the sign of x: erf is above 1/2 there */
static inline double pf_erf(double x) {
    const double size = fabs(x) < 6.0 ? fabs(x) : 6.0; /* 1 there */
    const double far = 1.0 - pf_exp(-size * size) * pf_erfc_scaled(0.4 * size);
    const double y = size < 0.5 ? pf_erf_near(x) : copysign(far, x);
    return x == x ? y : x;
}

#endif
