/* Sums of rows and of products of rows, in the order that kernel.h describes; once for all kernels,
 * for which a call costs no more than the folding of a row of some sixteen numbers. */
#include "vector.h"

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

/* So many vectors of sums wait for no one's addition but their own. */
enum { WAYS = PF_VECTOR_BYTES == 16 ? 4 : 2 };

PF_ONCE static real fold_lanes(vec sum) {
    PF_UNROLL for (int round = 1; round <= LANE_BITS; round++) sum =
        low(round, sum, sum) + high(round, sum, sum);
    return sum[0];
}

static inline real total_of(vec sum[WAYS]) {
    PF_UNROLL for (int ways = WAYS / 2; ways > 0; ways /= 2)
        PF_UNROLL for (int w = 0; w < ways; w++) sum[w] += sum[w + ways];
    return fold_lanes(sum[0]);
}

/* Does something for all vectors of n numbers, the last of which may be a part of one: that at
 * number `at` goes to the sums of way w. */
#define PF_EACH_VECTOR(...)                                               \
    int64_t first = 0;                                                    \
    for (; first + WAYS * LANES <= n; first += WAYS * LANES)              \
        PF_UNROLL for (int w = 0; w < WAYS; w++) {                        \
            const int64_t at = first + w * LANES;                         \
            const part lanes = first_lanes(LANES);                        \
            __VA_ARGS__;                                                  \
        }                                                                 \
    PF_UNROLL for (int w = 0; w < WAYS; w++) if (first + w * LANES < n) { \
        const int64_t at = first + w * LANES;                             \
        const part lanes = first_lanes(n - at);                           \
        __VA_ARGS__;                                                      \
    }

real PF_NAME(sum_block)(const real *restrict x, int64_t n) {
    if (n < PF_LANES) { /* a few numbers are not worth the folding */
        real total = 0;
        for (int64_t i = 0; i < n; i++) total += x[i];
        return total;
    }
    vec sum[WAYS] = {{0}};
    PF_EACH_VECTOR(sum[w] += load_part(x + at, lanes))
    return total_of(sum);
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
        for (int64_t i = 0; i < n; i++) total += a[i] * b[i];
        return total;
    }
    vec dot[WAYS] = {{0}};
    PF_EACH_VECTOR(dot[w] += load_part(a + at, lanes) * load_part(b + at, lanes))
    return total_of(dot);
}

real PF_NAME(dot_and_sum_block)(const real *restrict a, const real *restrict b, int64_t n,
                                real *sum) {
    vec dot[WAYS] = {{0}}, terms[WAYS] = {{0}};
    PF_EACH_VECTOR(const vec y = load_part(b + at, lanes); dot[w] += load_part(a + at, lanes) * y;
                   terms[w] += y)
    *sum = total_of(terms);
    return total_of(dot);
}

real PF_NAME(long_dot)(const real *restrict a, const real *restrict b, int64_t n) {
    pf_tree tree = {0};
    for (; n > PF_BLOCK; a += PF_BLOCK, b += PF_BLOCK, n -= PF_BLOCK)
        pf_tree_add(&tree, PF_NAME(dot_block)(a, b, PF_BLOCK));
    pf_tree_add(&tree, PF_NAME(dot_block)(a, b, n));
    return pf_tree_total(&tree);
}
