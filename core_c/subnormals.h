/* Subnormal numbers: those below the least normal one, 1.2e-38 in float32, which have fewer digits.
 *
 * The moments of a weight whose gradient stays 0 fade until they are subnormal, and there they
 * stay: 0.9 times the least subnormal number is rounded to itself. Many processors leave
 * instructions that meet such a number to microcode, some 150 cycles each, so that a network with a
 * few dead units would be updated several times slower, for ever. So updates take them for 0. */
#ifndef PYFRAME_SUBNORMALS_H
#define PYFRAME_SUBNORMALS_H

#include <stdint.h>

#if defined(__x86_64__) || defined(_M_X64)

/* This thread's modes of arithmetic. */
static inline uint64_t pf_float_modes(void) { return __builtin_ia32_stmxcsr(); }
static inline void pf_set_float_modes(uint64_t modes) { __builtin_ia32_ldmxcsr((unsigned)modes); }
/* Results below the least normal number become 0, and operands count as 0. */
enum { PF_FLUSH_SUBNORMALS = 1 << 15 | 1 << 6 };

#elif defined(__aarch64__)

static inline uint64_t pf_float_modes(void) {
    uint64_t modes;
    __asm__ volatile("mrs %0, fpcr" : "=r"(modes));
    return modes;
}
static inline void pf_set_float_modes(uint64_t modes) {
    __asm__ volatile("msr fpcr, %0" : : "r"(modes));
}
enum { PF_FLUSH_SUBNORMALS = 1 << 24 };

#else

static inline uint64_t pf_float_modes(void) { return 0; }
static inline void pf_set_float_modes(uint64_t modes) { (void)modes; }
enum { PF_FLUSH_SUBNORMALS = 0 };

#endif
#endif
