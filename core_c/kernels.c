/* Finds a built-in kernel by name and element type. */
#include "plan.h"

#include <string.h>

#define PF_KERNEL(name)                       \
    int pf_##name##_f32(const pf_call *call); \
    int pf_##name##_f64(const pf_call *call);
#include "kernels.h"
#undef PF_KERNEL

static const struct {
    const char *name;
    pf_kernel f32, f64;
} table[] = {
#define PF_KERNEL(name) {#name, pf_##name##_f32, pf_##name##_f64},
#include "kernels.h"
#undef PF_KERNEL
};

enum { KERNEL_COUNT = sizeof table / sizeof table[0] };

pf_kernel pf_find_kernel(const char *name, int bits) {
    for (int i = 0; i < KERNEL_COUNT; i++)
        if (strcmp(table[i].name, name) == 0) return bits == 32 ? table[i].f32 : table[i].f64;
    return NULL;
}

int pf_kernel_count(void) { return KERNEL_COUNT; }

const char *pf_kernel_name(int index) {
    return index >= 0 && index < KERNEL_COUNT ? table[index].name : NULL;
}
