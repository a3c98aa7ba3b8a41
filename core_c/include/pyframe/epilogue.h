/* The activations of activations.h as functions, for a kernel that, like a product, ends with an
 * activation. pyframe.h does not include this header. For n elements; _f64 for doubles:
 *
 *     pf_activate_f32(host->vector(32), PF_RELU, 0, y, n);   y = f(y)
 *     pf_activate_grad_f32(PF_RELU, 0, dx, saved, n);        dx = dx f', from what is saved */
#ifndef PYFRAME_EPILOGUE_H
#define PYFRAME_EPILOGUE_H

#include "pyframe.h"

/* Of `y = c ? y : 0` in place Clang makes a store by a mask, which takes dozens of cycles on some
 * processors with AVX2: there it reads by a pointer that it does not know to be the same, and is
 * told that no iteration writes what another one reads. */
#if defined(__clang__) && defined(__AVX2__) && !defined(__AVX512F__)
#define PF_UNKNOWN(pointer) __asm__("" : "+r"(pointer));
#define PF_INDEPENDENT_OF_IT _Pragma("clang loop vectorize(assume_safety)")
#else
#define PF_UNKNOWN(pointer)
#define PF_INDEPENDENT_OF_IT
#endif

#define PF_VALUE_OF_EACH(code, number, name, value, grad) \
    case code:                                            \
        PF_INDEPENDENT_OF_IT                              \
        for (int64_t i = 0; i < n; i++) {                 \
            const pf_element y = from[i];                 \
            ys[i] = value;                                \
        }                                                 \
        break;
#define PF_VALUE_OF_ROW(code, number, name, grad) \
    case code:                                    \
        vector->name(n, ys, ys);                  \
        break;
#define PF_GRAD_OF_ROW(code, number, name, grad)                  \
    case code:                                                    \
        PF_INDEPENDENT_OF_IT                                      \
        for (int64_t i = 0; i < n; i++) {                         \
            const pf_element dx = from[i], saved = each_saved[i]; \
            dxs[i] = grad;                                        \
        }                                                         \
        break;
#define PF_GRAD_OF_EACH(code, number, name, value, grad) PF_GRAD_OF_ROW(code, number, name, grad)

#define PF_EPILOGUE(type, suffix)                                                                 \
    static inline void pf_activate##suffix(const pf_vector_functions *vector, int activation,     \
                                           type slope, type *ys, int64_t n) {                     \
        typedef type pf_element;                                                                  \
        const type *from = ys;                                                                    \
        PF_UNKNOWN(from)                                                                          \
        switch (activation) {                                                                     \
            PF_ACTIVATIONS(PF_VALUE_OF_EACH, PF_VALUE_OF_ROW)                                     \
            default:                                                                              \
                break;                                                                            \
        }                                                                                         \
    }                                                                                             \
    static inline void pf_activate_grad##suffix(int activation, type slope, type *__restrict dxs, \
                                                const type *__restrict each_saved, int64_t n) {   \
        typedef type pf_element;                                                                  \
        const type *from = dxs;                                                                   \
        PF_UNKNOWN(from)                                                                          \
        switch (activation) {                                                                     \
            PF_ACTIVATIONS(PF_GRAD_OF_EACH, PF_GRAD_OF_ROW)                                       \
            default:                                                                              \
                break;                                                                            \
        }                                                                                         \
    }
PF_EPILOGUE(float, _f32)
PF_EPILOGUE(double, _f64)

#undef PF_EPILOGUE
#undef PF_UNKNOWN
#undef PF_INDEPENDENT_OF_IT
#undef PF_VALUE_OF_EACH
#undef PF_VALUE_OF_ROW
#undef PF_GRAD_OF_EACH
#undef PF_GRAD_OF_ROW

#endif
