/* What one core of this machine can do at most: the roofs that the profiler measures against. */
#include "kernel.h"

typedef real vec __attribute__((vector_size(PF_VECTOR_BYTES)));

enum { SUMS = 12, LANES = PF_VECTOR_BYTES / (int)sizeof(real) };

/* Multiplies and adds in registers, as many independent sums at a time as hide the latency, with
 * nothing loaded. Returns the number of operations, a multiply-add being two. */
double PF_NAME(peak_operations)(int64_t rounds) {
    /* Read at run time: a compiler that knew the factors would find sums that never change. */
    static const volatile real factors[] = {R(0.999), R(0.25)};
    vec sum[SUMS], x = {0}, y = {0};
    x += factors[0], y += factors[1];
    for (int i = 0; i < SUMS; i++) sum[i] = y * (real)i;
    for (int64_t r = 0; r < rounds; r++)
        for (int i = 0; i < SUMS; i++) sum[i] = sum[i] * x + y;
    real total = 0;
    for (int i = 0; i < SUMS; i++) total += sum[i][0];
    /* The sums stay positive; the comparison keeps the compiler from leaving them out. */
    return total < 0 ? 0 : 2.0 * SUMS * LANES * (double)rounds;
}

/* p = p / 2 + g, n elements, as an update passes over memory. Returns the bytes moved: p is read
 * and written, g is read. */
double PF_NAME(peak_bytes)(void *to, const void *from, int64_t n, int64_t rounds) {
    real *restrict p = to;
    const real *restrict g = from;
    for (int64_t r = 0; r < rounds; r++)
        for (int64_t i = 0; i < n; i++) p[i] = R(0.5) * p[i] + g[i];
    return 3.0 * sizeof(real) * (double)n * (double)rounds;
}
