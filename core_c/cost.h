/* How long work takes one core, roughly. With these numbers pf_parallel_for decides whether waking
 * threads is worth it (see CALL_COST and WAKE_COST in parallel.c). They are estimates for a typical
 * machine, and results never depend on them. PF_BYTES_PER_NANOSECOND, which the planner also uses,
 * is in plan.inc.
 */
#ifndef PYFRAME_COST_H
#define PYFRAME_COST_H

enum {
    /* Products and sums a nanosecond, in vectors: one and a half fused multiply-adds a cycle at
     * 2 GHz, with the operands of a product coming from the caches. */
    PF_VECTOR_TERMS_PER_NANOSECOND = 3,
    /* Products of small matrices, one by one, on any instruction set: most are done row by row. */
    PF_SMALL_TERMS_PER_NANOSECOND = 32,
    /* Numbers copied for a product from a transposed matrix: a load for each. */
    PF_TURNED_PER_NANOSECOND = 4,
    /* Bytes of operands that a simple loop gets through: some bytes a cycle, as memory and the
     * outer caches deliver them. */
    PF_LOOP_BYTES_PER_NANOSECOND = 16,
    /* Bytes of rows scattered in memory: each row begins with a cache miss. */
    PF_SCATTERED_BYTES_PER_NANOSECOND = 8,
    /* Numbers that one pass of a normalization sums up or writes, with some operations for each. */
    PF_NORMALIZED_PER_NANOSECOND = 8
};

#endif
