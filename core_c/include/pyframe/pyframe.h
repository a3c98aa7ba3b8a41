/* The kernel contract of pyframe, for its own kernels and for those of plugins. */
#ifndef PYFRAME_PYFRAME_H
#define PYFRAME_PYFRAME_H

#include <stddef.h>
#include <stdint.h>

/* What is declared here is frozen: a library that was built for 1.n loads in every later 1.m. */
#define PF_ABI_MAJOR 1
#define PF_ABI_MINOR 0

/* The minor version that a plugin is built for: it may use what hosts of that minor have, and older
 * hosts refuse it. To ask for a later one, define it before this header. What came after that minor
 * is not declared. */
#ifndef PF_TARGET_MINOR
#define PF_TARGET_MINOR 0
#endif
#if PF_TARGET_MINOR > PF_ABI_MINOR
#error "PF_TARGET_MINOR is newer than these headers"
#endif

#ifdef __cplusplus
extern "C" {
#endif

#include "activations.h"

#include "gemm.inc"

#include "abi.inc" /* needs the above */

/* The first three fields of a plugin's table. */
#define PF_PLUGIN_HEAD sizeof(pf_plugin), PF_ABI_MAJOR, PF_TARGET_MINOR

/* Makes the one function of a plugin visible. */
#ifdef _WIN32
#define PF_EXPORT __declspec(dllexport)
#else
#define PF_EXPORT __attribute__((visibility("default")))
#endif
PF_EXPORT const pf_plugin *pyframe_plugin(const pf_host *host);

/* Whether a struct from the other side is long enough to have a field: PF_HAS(host, vector).
 */
#define PF_HAS(table, field) \
    ((size_t)((const char *)(&(table)->field + 1) - (const char *)(table)) <= (table)->size)

#ifdef __cplusplus
}
#define PF_STATIC_ASSERT static_assert
#else
#define PF_STATIC_ASSERT _Static_assert
#endif

/* The frozen prefix of the host table, and of a plugin's. */
PF_STATIC_ASSERT(offsetof(pf_host, size) == 0, "pf_host.size moved");
PF_STATIC_ASSERT(offsetof(pf_host, abi_major) == 4, "pf_host.abi_major moved");
PF_STATIC_ASSERT(offsetof(pf_host, abi_minor) == 6, "pf_host.abi_minor moved");
PF_STATIC_ASSERT(offsetof(pf_plugin, size) == 0, "pf_plugin.size moved");
PF_STATIC_ASSERT(offsetof(pf_plugin, abi_major) == 4, "pf_plugin.abi_major moved");
PF_STATIC_ASSERT(offsetof(pf_plugin, abi_minor) == 6, "pf_plugin.abi_minor moved");

#if UINTPTR_MAX == UINT64_MAX
#include "layout.h"
#endif

#endif
