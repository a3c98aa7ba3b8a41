/* General matrix product, row-major: the one driver of all heavy layers. */
#ifndef PYFRAME_GEMM_H
#define PYFRAME_GEMM_H

#include "activation.h"

/* c (m, n) = f(scale a b + [c] + [bias] + [residual]),  a (m, k), b (k, n).
 *
 * Elements are of the type of the function that takes the struct; strides count elements. What is
 * zero or NULL is not there. Any extent may be 0; with k = 0 the product is zero. The terms of an
 * element are added in an order that depends on k, taps and the transposes (and on whether m or n
 * is 1) alone. c overlaps no operand, except that it may be the residual. */
typedef struct {
    uint32_t size;      /* of this struct */
    int32_t activation; /* f: enum pf_activation */
    int64_t m, n, k;

    /* a[i][p] = a[i * a_row + p * a_step]: one of the two strides is 1 as a rule. */
    const void *a;
    int64_t a_row, a_step;
    /* Or, where a_rows is given, an indirect a: k consists of `taps` stretches of k / taps terms
     * each, and a_rows[t * m + i] + a_offset is where row i has the terms of stretch t, a_step
     * apart. A pointer equal to a_zero is taken as it is, without the offset: a row of zeros, which
     * is what lies outside of an image. So one table serves all images of a batch. */
    const void *const *a_rows;
    const void *a_zero;
    int64_t a_offset, taps;

    /* b[p][j] = b[p * b_row + j], or b[j * b_row + p] with b_transposed; with b_packed what
     * gemm_pack has made of it. */
    const void *b;
    int64_t b_row;
    int32_t b_transposed, b_packed;

    void *c;
    int64_t c_row;
    int32_t accumulate; /* add to c */
    int32_t reserved;
    double scale;         /* 0: none */
    const void *bias;     /* (n,) */
    const void *residual; /* (m, n) */
    int64_t residual_row;
    double slope; /* of the leaky relu */
    /* (m, n), or NULL. Where it is given, the result is not f of the sum but the sum times the
     * derivative of f where f had this value. */
    const void *saved;
    int64_t saved_row;
    /* gemm_scratch_size elements, or NULL; it makes large products faster. */
    void *scratch;
} pf_gemm;

void PF_NAME(gemm)(const pf_gemm *g);

int64_t PF_NAME(gemm_scratch_size)(const pf_gemm *g);

/* The b of g, n and k and taps being those of the products to come, in panels that need no packing
 * any more; `packed` has room for gemm_packed_size elements. */
int64_t PF_NAME(gemm_packed_size)(const pf_gemm *g);
void PF_NAME(gemm_pack)(const pf_gemm *g, real *packed);

#endif
