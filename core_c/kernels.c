/* The kernels of one instruction set, by name; compiled once for each set. */
#include "isa.h"
#include "kernel.h"

#define PF_F32(name) PF_SYMBOL(name, f32, PF_ISA)
#define PF_F64(name) PF_SYMBOL(name, f64, PF_ISA)

#define PF_KERNEL(name)                    \
    int PF_F32(name)(const pf_call *call); \
    int PF_F64(name)(const pf_call *call);
#include "kernels.h"
#undef PF_KERNEL

static const pf_kernel_row rows[] = {
#define PF_KERNEL(name) {#name, PF_F32(name), PF_F64(name)},
#include "kernels.h"
#undef PF_KERNEL
};

#define PF_TABLE_OF(isa) pf_kernels_##isa
#define PF_TABLE(isa) PF_TABLE_OF(isa)
const pf_kernel_table PF_TABLE(PF_ISA) = {rows, sizeof rows / sizeof rows[0]};
