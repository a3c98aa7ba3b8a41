/* The kernels of one instruction set, in the order of kernels.h; compiled once for each set. */
#include "isa.h"
#include "kernel.h"

#define PF_F32(name) PF_SYMBOL(name, f32, PF_ISA)
#define PF_F64(name) PF_SYMBOL(name, f64, PF_ISA)
#define PF_PLAIN_F32(name) PF_SYMBOL(name, f32, PF_PLAIN_ISA) /* see kernels.h */
#define PF_PLAIN_F64(name) PF_SYMBOL(name, f64, PF_PLAIN_ISA)

#define PF_KERNEL(name)                    \
    int PF_F32(name)(const pf_call *call); \
    int PF_F64(name)(const pf_call *call);
#define PF_PLAIN(name)                     \
    int PF_F32(name)(const pf_call *call); \
    int PF_PLAIN_F64(name)(const pf_call *call);
#define PF_SHARED(name)                          \
    int PF_PLAIN_F32(name)(const pf_call *call); \
    int PF_PLAIN_F64(name)(const pf_call *call);
#include "kernels.h"
#undef PF_KERNEL
#undef PF_PLAIN
#undef PF_SHARED

static const pf_kernel_row rows[] = {
#define PF_KERNEL(name) {PF_F32(name), PF_F64(name)},
#define PF_PLAIN(name) {PF_F32(name), PF_PLAIN_F64(name)},
#define PF_SHARED(name) {PF_PLAIN_F32(name), PF_PLAIN_F64(name)},
#include "kernels.h"
#undef PF_KERNEL
#undef PF_PLAIN
#undef PF_SHARED
};

#define PF_TABLE_OF(isa) pf_kernels_##isa
#define PF_TABLE(isa) PF_TABLE_OF(isa)

#define PF_GEMM(symbol)                                  \
    void symbol(gemm)(const pf_gemm *g);                 \
    int64_t symbol(gemm_scratch_size)(const pf_gemm *g); \
    int64_t symbol(gemm_packed_size)(const pf_gemm *g);  \
    void symbol(gemm_pack)(const pf_gemm *g, void *packed);
PF_GEMM(PF_F32)
PF_GEMM(PF_F64)
#undef PF_GEMM
#define PF_GEMM(symbol)                         \
    {.size = sizeof(pf_gemm_functions),         \
     .run = symbol(gemm),                       \
     .scratch_size = symbol(gemm_scratch_size), \
     .packed_size = symbol(gemm_packed_size),   \
     .pack = symbol(gemm_pack)}

extern const pf_vector_functions PF_F32(vector_functions);
extern const pf_vector_functions PF_F64(vector_functions);

double PF_F32(peak_operations)(int64_t rounds);
double PF_F64(peak_operations)(int64_t rounds);
double PF_F32(peak_operations_again)(int64_t rounds);
double PF_F64(peak_operations_again)(int64_t rounds);
double PF_F32(peak_bytes)(void *to, const void *from, int64_t n, int64_t rounds);
double PF_F64(peak_bytes)(void *to, const void *from, int64_t n, int64_t rounds);
#define PF_PEAKS(symbol) \
    {symbol(peak_operations), symbol(peak_operations_again), symbol(peak_bytes)}

const pf_kernel_table PF_TABLE(PF_ISA) = {rows,
                                          PF_GEMM(PF_F32),
                                          PF_GEMM(PF_F64),
                                          &PF_F32(vector_functions),
                                          &PF_F64(vector_functions),
                                          PF_PEAKS(PF_F32),
                                          PF_PEAKS(PF_F64)};
