/* Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
 * 1, 2, 3", SC 2011, section 5.3). The key says which stream, the counter which element, so any
 * element can be drawn by itself and the result does not depend on who draws it. */
#ifndef PYFRAME_RANDOM_H
#define PYFRAME_RANDOM_H

#include <math.h>
#include <stdint.h>

static inline void pf_philox(uint64_t key_low, uint64_t key_high, uint64_t counter_low,
                             uint64_t counter_high, uint32_t words[4]) {
    /* The 128-bit key is folded to the 64 bits that Philox4x32 takes. The odd multiplier spreads
     * key_high over all of them, so that (seed, stream) pairs with equal sums do not collide. */
    uint64_t key = key_low ^ (key_high * 0x9E3779B97F4A7C15u + 0x632BE59BD9B4E019u);
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t c0 = (uint32_t)counter_low, c1 = (uint32_t)(counter_low >> 32);
    uint32_t c2 = (uint32_t)counter_high, c3 = (uint32_t)(counter_high >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1, c3 = (uint32_t)p0, c0 = n0, c2 = n2;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    words[0] = c0, words[1] = c1, words[2] = c2, words[3] = c3;
}

/* A word as a uniform number in [0, 1): its 24 bits fit float and double alike. */
static inline float pf_uniform(uint32_t word) { return (float)(word >> 8) * 0x1p-24f; }

/* Four words as normal numbers of mean 0 and variance 1 (Box, Muller, "A note on the generation of
 * random normal deviates", 1958). */
static inline void pf_normal(const uint32_t words[4], double normal[4]) {
    for (int j = 0; j < 4; j += 2) {
        const double radius = sqrt(-2.0 * log1p(-(double)pf_uniform(words[j])));
        const double angle = 6.283185307179586 * (double)pf_uniform(words[j + 1]);
        normal[j] = radius * cos(angle), normal[j + 1] = radius * sin(angle);
    }
}

#endif
