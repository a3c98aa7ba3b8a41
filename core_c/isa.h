/* Instruction sets. Every family of kernels is compiled once for each set that the compiler knows
 * for this architecture; which one runs is chosen when the library is loaded. */
#ifndef PYFRAME_ISA_H
#define PYFRAME_ISA_H

#include "plan.h"

/* A kernel's name is in isa.c, once for all sets. */
typedef struct pf_kernel_row {
    pf_kernel f32, f64;
} pf_kernel_row;

/* The kernels of one set, as kernels.c lists them. */
typedef struct pf_kernel_table {
    const pf_kernel_row *rows;
    pf_gemm_functions gemm_f32, gemm_f64;
    const pf_vector_functions *vector_f32, *vector_f64;
    pf_peaks peaks_f32, peaks_f64;
} pf_kernel_table;

/* Of the set in use, for the host table. */
const pf_gemm_functions *pf_host_gemm(int bits);
const pf_vector_functions *pf_host_vector(int bits);

extern const pf_kernel_table pf_kernels_baseline;
extern const pf_kernel_table pf_kernels_avx2;
extern const pf_kernel_table pf_kernels_avx512;
extern const pf_kernel_table pf_kernels_neon;

#endif
