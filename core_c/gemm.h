/* General matrix product, row-major. */
#ifndef PYFRAME_GEMM_H
#define PYFRAME_GEMM_H

#include "kernel.h"

/* c (m, n) = op(a) op(b), or c += op(a) op(b) when accumulate is not 0.
 *
 * op(a) is (m, k): a itself, or with transpose_a the transpose of a (k, m).
 * op(b) is (k, n): b itself, or with transpose_b the transpose of b (n, k).
 * Any extent may be 0; with k = 0 the product is zero. The order in which an element's terms are
 * added depends on m, n, k and the transposes alone. c overlaps neither a nor b. */
void PF_NAME(gemm)(int transpose_a, int transpose_b, int64_t m, int64_t n, int64_t k, const real *a,
                   const real *b, real *c, int accumulate);

#endif
