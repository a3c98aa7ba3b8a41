/* Sums of rows and of products of rows, in the order that kernel.h describes; once for all kernels,
 * for which a call costs no more than the folding of a row of some sixteen numbers. */
#include "kernel.h"

/* Goes before a loop of a few steps, whose counting would take longer than the steps. */
#if PF_SMALL
#define PF_FEW_STEPS
#elif defined(__clang__)
#define PF_FEW_STEPS _Pragma("clang loop unroll_count(8)")
#else
#define PF_FEW_STEPS _Pragma("GCC unroll 8")
#endif

/* A binary tree of sums: for each bit k set in count, partial[] holds the sum of 2^k blocks.
 */
typedef struct {
    int64_t count;
    int depth;
    real partial[64];
} pf_tree;

static inline void pf_tree_add(pf_tree *tree, real sum) {
    for (int64_t c = tree->count++; c & 1; c >>= 1) sum += tree->partial[--tree->depth];
    tree->partial[tree->depth++] = sum;
}

static inline real pf_tree_total(const pf_tree *tree) {
    real total = 0;
    for (int i = tree->depth - 1; i >= 0; i--) total += tree->partial[i];
    return total;
}

real PF_NAME(sum_block)(const real *restrict x, int64_t n) {
    if (n < PF_LANES) { /* a few numbers are not worth the folding */
        real total = 0;
        PF_FEW_STEPS for (int64_t i = 0; i < n; i++) total += x[i];
        return total;
    }
    real lane[PF_LANES] = {0};
    int64_t i = 0;
    for (; i + PF_LANES <= n; i += PF_LANES)
        PF_EACH_LANE for (int j = 0; j < PF_LANES; j++) lane[j] += x[i + j];
    PF_FEW_STEPS for (int64_t j = 0; j < n % PF_LANES; j++) lane[j] += x[i + j];
    return pf_fold(lane);
}

real PF_NAME(long_sum)(const real *restrict x, int64_t n) {
    pf_tree tree = {0};
    for (; n > PF_BLOCK; x += PF_BLOCK, n -= PF_BLOCK)
        pf_tree_add(&tree, PF_NAME(sum_block)(x, PF_BLOCK));
    pf_tree_add(&tree, PF_NAME(sum_block)(x, n));
    return pf_tree_total(&tree);
}

real PF_NAME(dot_block)(const real *restrict a, const real *restrict b, int64_t n) {
    if (n < PF_LANES) {
        real total = 0;
        PF_FEW_STEPS for (int64_t i = 0; i < n; i++) total += a[i] * b[i];
        return total;
    }
    real lane[PF_LANES] = {0};
    int64_t i = 0;
    for (; i + PF_LANES <= n; i += PF_LANES)
        PF_EACH_LANE for (int j = 0; j < PF_LANES; j++) lane[j] += a[i + j] * b[i + j];
    PF_FEW_STEPS for (int64_t j = 0; j < n % PF_LANES; j++) lane[j] += a[i + j] * b[i + j];
    return pf_fold(lane);
}

real PF_NAME(long_dot)(const real *restrict a, const real *restrict b, int64_t n) {
    pf_tree tree = {0};
    for (; n > PF_BLOCK; a += PF_BLOCK, b += PF_BLOCK, n -= PF_BLOCK)
        pf_tree_add(&tree, PF_NAME(dot_block)(a, b, PF_BLOCK));
    pf_tree_add(&tree, PF_NAME(dot_block)(a, b, n));
    return pf_tree_total(&tree);
}
