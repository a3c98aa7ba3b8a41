/* exp, log, tanh and their kin in float32 without branches, so that a loop over them becomes vector
 * code; the C library's are calls. NaN and infinity go through, results below the smallest normal
 * number are right, and all are within 2 units in the last place. */
#ifndef PYFRAME_MATH32_H
#define PYFRAME_MATH32_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* 2^k, -126 <= k <= 127 */
static inline float pf_power_of_two(uint32_t k) {
    uint32_t bits = (k + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return power;
}

/* exp(x) = 2^n exp(r), n = round(x / ln 2), r = x - n ln 2. The polynomial in r, |r| <= ln(2) / 2,
 * is that of the Cephes library (S. L. Moshier). */
static inline float pf_expf(float x) {
    x = x < -104.0f ? -104.0f : x; /* 0 there, and infinity beyond 89 */
    x = x > 89.0f ? 89.0f : x;
    /* Adding 1.5 2^23 rounds to a whole number, which then stands in the low bits. */
    const float shift = 12582912.0f;
    float shifted = x * 1.44269504f + shift, n = shifted - shift;
    uint32_t k;
    memcpy(&k, &shifted, sizeof k);
    k -= 0x4B400000u;
    /* ln 2 in two parts, of which n times the first is exact */
    float r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    float y = p * (r * r) + r + 1.0f;
    /* 2^n in two halves: n reaches from -150 to 128, further than one power goes */
    uint32_t half = (uint32_t)((int32_t)k >> 1);
    return y * pf_power_of_two(half) * pf_power_of_two(k - half);
}

/* exp(x) - 1 = 2^n (exp(r) - 1) + (2^n - 1), n and r as above: near 0, where n is 0, no digit of r
 * is lost. Beyond 80 it is exp(x). */
static inline float pf_expm1f(float x) {
    float t = x < -30.0f ? -30.0f : x; /* -1 there */
    t = t > 80.0f ? 80.0f : t;
    const float shift = 12582912.0f;
    float shifted = t * 1.44269504f + shift, n = shifted - shift;
    uint32_t k;
    memcpy(&k, &shifted, sizeof k);
    k -= 0x4B400000u;
    float r = t - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    float power = pf_power_of_two(k), y = power * (p * (r * r) + r) + (power - 1.0f);
    return x > 80.0f ? pf_expf(x) : y;
}

/* log(x) for x = 2^e (1 + f), sqrt(1/2) <= 1 + f < sqrt(2): with s = f / (2 + f)
 *     log(1 + f) = f - s (f - 2 s^2 (1/3 + s^2/5 + s^4/7 + ...)) */
static inline float pf_logf(float x) {
    const uint32_t root = 0x3F3504F3u;              /* the bits of sqrt(1/2) */
    float scaled = x < 0x1p-126f ? x * 0x1p25f : x; /* no leading bit: move one there */
    uint32_t bits;
    memcpy(&bits, &scaled, sizeof bits);
    const uint32_t above = bits - root;
    float e = (float)((int32_t)above >> 23) - (x < 0x1p-126f ? 25.0f : 0.0f), one_f;
    bits = (above & 0x007FFFFFu) + root;
    memcpy(&one_f, &bits, sizeof one_f);
    const float f = one_f - 1.0f, s = f / (2.0f + f), z = s * s;
    float p = 1.0f / 11;
    p = p * z + 1.0f / 9;
    p = p * z + 1.0f / 7;
    p = p * z + 1.0f / 5;
    p = p * z + 1.0f / 3;
    const float rest = s * (f - 2.0f * z * p) + e * 2.12194440e-4f;
    float y = e * 0.693359375f + (f - rest);
    y = x == INFINITY ? x : y;
    y = x == 0.0f ? -INFINITY : y;
    return x >= 0.0f ? y : NAN; /* NaN and below 0 */
}

/* tanh(x) = 1 - 2 / (exp(2x) + 1) for large x > 0; near 0, where that cancels, x + x^3 q(x^2) with
 * the polynomial of the Cephes library. */
static inline float pf_tanhf(float x) {
    float size = fabsf(x), z = x * x;
    float large = 1.0f - 2.0f / (pf_expf(2.0f * size) + 1.0f);
    float q = -5.70498872745e-3f;
    q = q * z + 2.06390887954e-2f;
    q = q * z - 5.37397155531e-2f;
    q = q * z + 1.33314422036e-1f;
    q = q * z - 3.33332819422e-1f;
    float small = q * z * size + size;
    return copysignf(size < 0.625f ? small : large, x);
}

/* log(1 + x) for 0 <= x <= 1, as 2 artanh(s), s = x / (2 + x) <= 1/3: s + s^3/3 + s^5/5 + ... */
static inline float pf_log1p_unitf(float x) {
    float s = x / (2.0f + x), z = s * s;
    float p = 1.0f / 15;
    p = p * z + 1.0f / 13;
    p = p * z + 1.0f / 11;
    p = p * z + 1.0f / 9;
    p = p * z + 1.0f / 7;
    p = p * z + 1.0f / 5;
    p = p * z + 1.0f / 3;
    return 2.0f * (s + s * (p * z));
}

#endif
