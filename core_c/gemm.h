/* General matrix product. */
#ifndef PYFRAME_GEMM_H
#define PYFRAME_GEMM_H

#include "kernel.h"

void PF_NAME(gemm)(const pf_gemm *g);
/* The same with scratch memory of `pieces` times the size, one for each of so many threads. */
void PF_NAME(gemm_in_pieces)(const pf_gemm *g, int64_t pieces);
int64_t PF_NAME(gemm_scratch_size)(const pf_gemm *g);
int64_t PF_NAME(gemm_packed_size)(const pf_gemm *g);
void PF_NAME(gemm_pack)(const pf_gemm *g, void *packed);

#endif
