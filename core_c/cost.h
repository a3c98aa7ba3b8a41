/* What work takes one core, roughly: with these numbers pf_parallel_for decides whether waking
 * threads is worth it (see CALL_COST and WAKE_COST in parallel.c). They are estimates for a typical
 * machine, and results never depend on them. PF_BYTES_PER_NANOSECOND, for which the planner reckons
 * too, stands in plan.inc.
 */
#ifndef PYFRAME_COST_H
#define PYFRAME_COST_H

enum {
    /* Products and sums a nanosecond, in vectors: one and a half fused multiply-adds a cycle at
     * 2 GHz, for which a product's operands come out of the caches. */
    PF_VECTOR_TERMS_PER_NANOSECOND = 3,
    /* Products of small matrices, one by one, on any instruction set: most are done row by row. */
    PF_SMALL_TERMS_PER_NANOSECOND = 32,
    /* Numbers copied for a product from a matrix that is stored across: a load for each. */
    PF_TURNED_PER_NANOSECOND = 4,
    /* Bytes of operands that a simple loop over them gets through: some bytes each cycle, as memory
     * and the outer caches give them. */
    PF_LOOP_BYTES_PER_NANOSECOND = 16,
    /* Bytes of rows that lie anywhere in memory: each begins with a miss of the caches. */
    PF_SCATTERED_BYTES_PER_NANOSECOND = 8,
    /* Numbers that one pass of a normalization sums up or writes, some operations to each. */
    PF_NORMALIZED_PER_NANOSECOND = 8
};

#endif
