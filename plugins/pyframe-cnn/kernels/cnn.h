/* What every family of kernels here stands on.
 *
 * A family's file is compiled for each element type, with CNN_BITS 32 and 64, and for each
 * instruction set: `real` is the element type, and CNN_NAME(conv) the symbol cnn_conv_f32_avx2,
 * say. Images are channels-last: (N, D, H, W, C), where D, or D and H, may be absent. */
#ifndef PYFRAME_CNN_H
#define PYFRAME_CNN_H

#include <stdint.h>
#include <string.h>

#include "pyframe/pyframe.h"

#ifndef CNN_BITS
#define CNN_BITS 32
#endif
#ifndef CNN_ISA
#define CNN_ISA baseline
#endif

#define CNN_SYMBOL_OF(name, type, isa) cnn_##name##_##type##_##isa
#define CNN_SYMBOL(name, type, isa) CNN_SYMBOL_OF(name, type, isa)
/* CNN_OF_REAL(name): what pyframe's headers have for both types. */
#if CNN_BITS == 32
typedef float real;
#define CNN_OF_REAL(name) name##_f32
#define CNN_NAME(name) CNN_SYMBOL(name, f32, CNN_ISA)
#else
typedef double real;
#define CNN_OF_REAL(name) name##_f64
#define CNN_NAME(name) CNN_SYMBOL(name, f64, CNN_ISA)
#endif

/* Iterations do not touch each other's memory: the compiler may make vectors of them. */
#if defined(__clang__)
#define CNN_INDEPENDENT _Pragma("clang loop vectorize(assume_safety) interleave(enable)")
#elif defined(__GNUC__)
#define CNN_INDEPENDENT _Pragma("GCC ivdep")
#else
#define CNN_INDEPENDENT
#endif

enum {
    AXES = 3,       /* depth, height, width */
    ALIGNMENT = 64, /* of pieces of scratch memory, in bytes */
    CHUNK = 64,     /* channels whose sums are kept on the stack */
    NANOSECONDS_PER_KILOBYTE = 64
};

static inline int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* ---- operands ---- */

static inline const real *input(const pf_call *call, uint32_t i) {
    return i < call->input_count ? (const real *)call->inputs[i]->data : NULL;
}
static inline real *output(const pf_call *call, uint32_t i) {
    return i < call->output_count ? (real *)call->outputs[i]->data : NULL;
}

/* A batch of images as kernels see it: three spatial axes, of which the first may be 1. */
typedef struct {
    int64_t count, size[AXES], channels;
} images;

static inline images images_of(const pf_operand *t) {
    images x = {t->dims[0], {1, 1, 1}, t->dims[t->ndim - 1]};
    for (int axis = 1; axis + 1 < t->ndim; axis++)
        x.size[axis + AXES + 1 - t->ndim] = t->dims[axis];
    return x;
}

static inline int64_t pixels_of(const images *x) { return x->size[0] * x->size[1] * x->size[2]; }
static inline int64_t image_elements(const images *x) { return pixels_of(x) * x->channels; }

/* ---- scratch memory, handed out piece by piece ---- */

typedef struct {
    char *at;
    uint64_t left;
} arena;

static inline arena arena_of(const pf_call *call) {
    return (arena){call->scratch, call->scratch_size};
}

/* `bytes` of it, or NULL when there are not as many. */
static inline void *take(arena *a, int64_t bytes) {
    const uint64_t size = ((uint64_t)bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (size > a->left) return NULL;
    void *piece = a->at;
    a->at += size;
    a->left -= size;
    return piece;
}

static inline int out_of_scratch(const pf_call *call) {
    return call->host->refuse(call, "the op class has asked for too little scratch memory");
}

#endif
