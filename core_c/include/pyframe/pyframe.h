/* The kernel contract of pyframe, for its own kernels and for those of plugins. */
#ifndef PYFRAME_PYFRAME_H
#define PYFRAME_PYFRAME_H

#include <stddef.h>
#include <stdint.h>

#define PF_ABI_MAJOR 0 /* 0 promises nothing yet */
#define PF_ABI_MINOR 2

#ifdef __cplusplus
extern "C" {
#endif

#include "abi.inc"

#ifdef __cplusplus
}
#define PF_STATIC_ASSERT static_assert
#else
#define PF_STATIC_ASSERT _Static_assert
#endif

/* The frozen prefix of the host table. */
PF_STATIC_ASSERT(offsetof(pf_host, size) == 0, "pf_host.size moved");
PF_STATIC_ASSERT(offsetof(pf_host, abi_major) == 4, "pf_host.abi_major moved");
PF_STATIC_ASSERT(offsetof(pf_host, abi_minor) == 6, "pf_host.abi_minor moved");

#endif
