/* The peak rates of one core of this machine, against which the profiler measures. */
#include "vector.h"

/* Enough independent sums to hide the latency of a multiply-add, and few enough for the registers.
 */
enum { SUMS = PF_VECTOR_REGISTERS == 32 ? 16 : 12 };

/* A step is one instruction where there are fused multiply-adds: x86 has one that overwrites any of
 * its operands, ARM only one that overwrites the addend, so a sum has to be both factor and addend.
 * The constants are read at run time: a compiler that knew them could see that the sums never
 * change. The sums neither overflow nor underflow in 2^32 steps. */
#if defined(__aarch64__) || defined(_M_ARM64)
#define PF_STEP_OF(sum) (sum) += (sum) * factor
static const volatile real constants[] = {R(1e-9), R(0.25)};
#else
#define PF_STEP_OF(sum) (sum) = (sum) * factor + start
static const volatile real constants[] = {R(0.999), R(0.25)};
#endif

/* The number of operations in `steps` steps of all sums; a multiply-add counts as two. The sums
 * stay positive; the comparison keeps the compiler from removing them. */
static double operations(real total, int64_t steps) {
    return total < 0 ? 0 : 2.0 * SUMS * LANES * (double)steps;
}

/* Multiplies and adds in registers, with nothing loaded, and returns the number of operations.
 * Every loop over the sums is unrolled; otherwise the compiler would keep them on the stack, which
 * gives a third of the true rate. */
double PF_NAME(peak_operations)(int64_t rounds) {
    const vec factor = splat(constants[0]), start = splat(constants[1]);
    vec sum[SUMS];
    PF_UNROLL for (int i = 0; i < SUMS; i++) sum[i] = start * (real)(i + 1);
    for (int64_t r = 0; r < rounds; r++)
        PF_UNROLL for (int i = 0; i < SUMS; i++) PF_STEP_OF(sum[i]);
    real total = 0;
    PF_UNROLL for (int i = 0; i < SUMS; i++) total += sum[i][0];
    return operations(total, rounds);
}

/* The same written without loops to unroll: each sum has a name. The two rates must agree; if they
 * do not, the compiler has spoilt one of them. */
double PF_NAME(peak_operations_again)(int64_t rounds) {
    const vec factor = splat(constants[0]), start = splat(constants[1]);
#define PF_TWELVE(of) of(0) of(1) of(2) of(3) of(4) of(5) of(6) of(7) of(8) of(9) of(10) of(11)
#if PF_VECTOR_REGISTERS == 32
#define PF_EACH(of) PF_TWELVE(of) of(12) of(13) of(14) of(15)
#else
#define PF_EACH(of) PF_TWELVE(of)
#endif
#define PF_BEGIN(i) vec sum##i = start * (real)((i) + 1);
#define PF_STEP(i) PF_STEP_OF(sum##i);
#define PF_TOTAL(i) +sum##i[0]
    PF_EACH(PF_BEGIN)
    for (int64_t r = 0; r < rounds; r++) {
        PF_EACH(PF_STEP)
        PF_EACH(PF_STEP)
    }
    return operations(PF_EACH(PF_TOTAL), 2 * rounds);
}

/* p = p / 2 + g, n elements: passes over memory as an update does. Returns the bytes moved: p is
 * read and written, g is read. */
double PF_NAME(peak_bytes)(void *to, const void *from, int64_t n, int64_t rounds) {
    real *restrict p = to;
    const real *restrict g = from;
    for (int64_t r = 0; r < rounds; r++)
        for (int64_t i = 0; i < n; i++) p[i] = R(0.5) * p[i] + g[i];
    return 3.0 * sizeof(real) * (double)n * (double)rounds;
}
