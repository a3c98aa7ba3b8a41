/* Which instruction sets this library holds, which of them the machine runs, and which is in use.
 *
 * The processor is asked directly: the compilers' own __builtin_cpu_supports needs their runtime
 * libraries, and answers no to everything where those are not linked. */
#include "isa.h"

#include <string.h>

#if defined(__x86_64__) || defined(_M_X64)

#include <cpuid.h>

static int bit(unsigned word, int index) { return word >> index & 1; }

/* The register sets that the operating system saves (XCR0): bit 1 SSE, 2 AVX, 5 to 7 AVX-512. */
static unsigned saved_registers(void) {
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !bit(ecx, 27)) return 0; /* OSXSAVE */
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

/* Bits of the processor's manuals: leaf 1 ecx, then leaf 7 ebx. */
static int has_avx2(void) {
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx)) return 0;
    if (!bit(ecx, 12) || !bit(ecx, 28)) return 0; /* FMA, AVX */
    if ((saved_registers() & 0x06) != 0x06) return 0;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && bit(ebx, 5);
}

static int has_avx512(void) {
    unsigned eax, ebx, ecx, edx;
    if (!has_avx2() || (saved_registers() & 0xE6) != 0xE6) return 0;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return 0;
    return bit(ebx, 16) && bit(ebx, 17) && bit(ebx, 30) && bit(ebx, 31); /* F, DQ, BW, VL */
}

#ifdef PF_HAVE_NEON /* in tests: see instruction_sets.cmake */
static int has_neon(void) { return has_avx2(); }
#endif

#elif defined(__linux__) && defined(__aarch64__)

#include <sys/auxv.h>

static int has_neon(void) { return (getauxval(AT_HWCAP) >> 1 & 1) != 0; } /* HWCAP_ASIMD */

#elif defined(__aarch64__) || defined(_M_ARM64)

static int has_neon(void) { return 1; } /* macOS and Windows on ARM require it */

#endif

static int always(void) { return 1; }

/* In ascending order: a later set is better. */
static const struct {
    const char *name;
    const pf_kernel_table *kernels;
    int (*runs_here)(void);
} sets[] = {
    {"baseline", &pf_kernels_baseline, always},
#ifdef PF_HAVE_NEON
    {"neon", &pf_kernels_neon, has_neon},
#endif
#ifdef PF_HAVE_AVX2
    {"avx2", &pf_kernels_avx2, has_avx2},
#endif
#ifdef PF_HAVE_AVX512
    {"avx512", &pf_kernels_avx512, has_avx512},
#endif
};

static const char *const names[] = {
#define PF_KERNEL(name) #name,
#define PF_PLAIN(name) #name,
#define PF_SHARED(name) #name,
#include "kernels.h"
#undef PF_KERNEL
#undef PF_PLAIN
#undef PF_SHARED
};

enum { KERNEL_COUNT = sizeof names / sizeof names[0] };
enum { SET_COUNT = sizeof sets / sizeof sets[0] };

static int selected = 0;

int pf_isa_count(void) { return SET_COUNT; }
const char *pf_isa_name(int isa) { return sets[isa].name; }
int pf_isa_runs(int isa) { return sets[isa].runs_here(); }
void pf_select_isa(int isa) { selected = isa; }
int pf_selected_isa(void) { return selected; }

pf_kernel pf_find_kernel(int isa, const char *name, int bits) {
    const pf_kernel_row *rows = sets[isa].kernels->rows;
    for (int i = 0; i < KERNEL_COUNT; i++)
        if (strcmp(names[i], name) == 0) return bits == 32 ? rows[i].f32 : rows[i].f64;
    return NULL;
}

const pf_peaks *pf_find_peaks(int isa, int bits) {
    return bits == 32 ? &sets[isa].kernels->peaks_f32 : &sets[isa].kernels->peaks_f64;
}

const pf_gemm_functions *pf_find_gemm(int isa, int bits) {
    return bits == 32 ? &sets[isa].kernels->gemm_f32 : &sets[isa].kernels->gemm_f64;
}

const pf_gemm_functions *pf_host_gemm(int bits) {
    return bits == 32 || bits == 64 ? pf_find_gemm(selected, bits) : NULL;
}

const pf_vector_functions *pf_host_vector(int bits) {
    const pf_kernel_table *kernels = sets[selected].kernels;
    return bits == 32 ? kernels->vector_f32 : bits == 64 ? kernels->vector_f64 : NULL;
}

void pf_repeat_gemm(const pf_gemm_functions *functions, const pf_gemm *const *products,
                    int64_t count, int64_t repeats) {
    for (int64_t repeat = 0; repeat < repeats; repeat++)
        for (int64_t i = 0; i < count; i++) functions->run(products[i]);
}

int pf_kernel_count(void) { return KERNEL_COUNT; }

const char *pf_kernel_name(int index) {
    return index >= 0 && index < KERNEL_COUNT ? names[index] : NULL;
}
