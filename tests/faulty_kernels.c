/* Kernels that are wrong in one way each, for tests/test_kernel_faults.py: y = 2 x, element by
 * element, but for one fault. Compiled for a type with BITS 32 and 64 in one file, by including
 * itself. */
#ifndef BITS

#include <fenv.h>
#include <stdlib.h>
#include <string.h>

#include <pyframe/pyframe.h>

enum { PART = 1 << 14 };

typedef struct {
    const void *from;
    void *to;
    int64_t n;
    int fault;
} work;

static int64_t count(const pf_operand *x) {
    int64_t n = 1;
    for (int i = 0; i < x->ndim; i++) n *= x->dims[i];
    return n;
}

#define BITS 32
#define REAL float
#define K(name) name##_f32
#include "faulty_kernels.c"
#undef BITS
#undef REAL
#undef K
#define BITS 64
#define REAL double
#define K(name) name##_f64
#include "faulty_kernels.c"

#define ROWS(name) {#name, "baseline", 32, 0, name##_f32}, {#name, "baseline", 64, 0, name##_f64},
static const pf_plugin_kernel kernels[] = {ALL(ROWS)};
static const pf_plugin plugin = {PF_PLUGIN_HEAD, "faulty_kernels", kernels,
                                 sizeof kernels / sizeof kernels[0], sizeof kernels[0]};

const pf_plugin *pyframe_plugin(const pf_host *host) {
    return PF_HAS(host, parallel_for) ? &plugin : NULL;
}

#else

#define OPERANDS                              \
    const REAL *x = call->inputs[0]->data;    \
    REAL *y = call->outputs[0]->data;         \
    const int64_t n = count(call->inputs[0]); \
    for (int64_t i = 0; i < n; i++) y[i] = 2 * x[i]

static int K(fine)(const pf_call *call) {
    OPERANDS;
    return PF_OK;
}

/* ---- wrong from a certain size on ---- */

static void K(run_part)(void *context, int64_t part) {
    const work *w = context;
    const REAL *x = w->from;
    REAL *y = w->to;
    const int64_t end = (part + 1) * PART < w->n ? (part + 1) * PART : w->n;
    for (int64_t i = part * PART; i < end; i++) y[i] = (part == w->fault ? 3 : 2) * x[i];
    if (w->fault == -1 && end < w->n) y[end] = 0; /* which the next part writes afterwards */
}

static int K(in_parts)(const pf_call *call, int fault) {
    work w = {call->inputs[0]->data, call->outputs[0]->data, count(call->inputs[0]), fault};
    /* so short, it says, that one thread does all: the order of the parts is left to show a race */
    call->host->parallel_for((w.n + PART - 1) / PART, 1, K(run_part), &w);
    return PF_OK;
}

static int K(second_part)(const pf_call *call) { return K(in_parts)(call, 1); }
static int K(third_part)(const pf_call *call) { return K(in_parts)(call, 2); }
static int K(part_into_the_next)(const pf_call *call) { return K(in_parts)(call, -1); }

static int K(above_20000)(const pf_call *call) {
    OPERANDS;
    if (n > 20000) y[20000] = 0;
    return PF_OK;
}

static int K(short_counter)(const pf_call *call) {
    OPERANDS;
    for (int64_t i = 0; i < n; i++) y[i] = 2 * x[(uint16_t)i];
    return PF_OK;
}

static int K(large_tail)(const pf_call *call) {
    OPERANDS;
    if (n > PART)
        for (int64_t i = n / 8 * 8; i < n; i++) y[i] = x[i];
    return PF_OK;
}

static int K(whole_parts)(const pf_call *call) {
    OPERANDS;
    if (n >= PART && n % PART == 0) y[n - 1] = 0;
    return PF_OK;
}

static int K(long_rows)(const pf_call *call) {
    OPERANDS;
    const pf_operand *a = call->inputs[0];
    const int64_t row = a->ndim ? a->dims[a->ndim - 1] : 1;
    for (int64_t i = 0; i < n; i++)
        if (i % row >= 5000) y[i] = 0;
    return PF_OK;
}

static int K(many_rows)(const pf_call *call) {
    OPERANDS;
    const pf_operand *a = call->inputs[0];
    if (a->ndim > 1 && a->dims[0] > 10000) y[n - 1] = 0;
    return PF_OK;
}

/* ---- wrong where few samples are ---- */

static int K(at_zero)(const pf_call *call) {
    const REAL *x = call->inputs[0]->data;
    REAL *y = call->outputs[0]->data;
    const int64_t n = count(call->inputs[0]);
    for (int64_t i = 0; i < n; i++)
        if (x[i] != 0) y[i] = 2 * x[i];
    return PF_OK;
}

static int K(five_axes)(const pf_call *call) {
    OPERANDS;
    if (call->inputs[0]->ndim > 5)
        for (int64_t i = 0; i < n; i++) y[i] = 0;
    return PF_OK;
}

static int K(aligned_loads)(const pf_call *call) { /* as compilers make them of whole vectors */
    OPERANDS;
    if (n * (int64_t)sizeof *x >= 32 && ((uintptr_t)x | (uintptr_t)y) % 32) abort();
    return PF_OK;
}

static int K(rounds_up)(const pf_call *call) {
    OPERANDS;
    fesetround(FE_UPWARD);
    return PF_OK;
}

/* ---- wrong places ---- */

static int K(before_the_start)(const pf_call *call) {
    OPERANDS;
    y[-1] = 0;
    return PF_OK;
}

static int K(behind_the_end)(const pf_call *call) {
    OPERANDS;
    y[n] = 0;
    return PF_OK;
}

static int K(far_behind)(const pf_call *call) {
    OPERANDS;
    y[n + 100] = 0;
    return PF_OK;
}

static int K(far_before)(const pf_call *call) {
    OPERANDS;
    y[-100] = 0;
    return PF_OK;
}

static int K(over_scratch)(const pf_call *call) {
    OPERANDS;
    ((char *)call->scratch)[call->scratch_size + 8] = 1;
    return PF_OK;
}

static int K(twice_as_much)(const pf_call *call) {
    OPERANDS;
    memset(y, 0, (size_t)(2 * n) * sizeof *y);
    return PF_OK;
}

/* ---- the end of the process ---- */

static int K(nowhere)(const pf_call *call) {
    OPERANDS;
    y[(int64_t)1 << 40] = 0;
    return PF_OK;
}

static int K(all_of_memory)(const pf_call *call) {
    OPERANDS;
    for (int64_t i = 0; i < (int64_t)1 << 40; i++) y[i] = 0;
    return PF_OK;
}

static int K(divides_by_zero)(const pf_call *call) {
    OPERANDS;
    const pf_operand *a = call->inputs[0];
    volatile int64_t total = 0;
    for (int i = 0; i < a->ndim; i++) total += n / a->dims[i];
    return PF_OK;
}

static int K(null_of_nothing)(const pf_call *call) {
    OPERANDS;
    if (n == 0) *(volatile REAL *)NULL = 1;
    return PF_OK;
}

static int K(frees_what_is_not_its_own)(const pf_call *call) {
    OPERANDS;
    free(call->outputs[0]->data);
    return PF_OK;
}

static int K(aborts)(const pf_call *call) {
    OPERANDS;
    if (n > 100) abort();
    return PF_OK;
}

static int K(exits)(const pf_call *call) {
    OPERANDS;
    _Exit(3);
    return PF_OK;
}

static int K(never_ends)(const pf_call *call) {
    OPERANDS;
    for (volatile int64_t i = 0; n == 0;) i++;
    return PF_OK;
}

/* inputs: dy, x; outputs: dx */
static int K(crashes_in_a_plan)(const pf_call *call) {
    REAL *dx = call->outputs[0]->data;
    dx[(int64_t)1 << 40] = 0;
    return PF_OK;
}

#define ALL(of)                                                                                    \
    of(fine) of(second_part) of(third_part) of(part_into_the_next) of(above_20000)                 \
        of(short_counter) of(large_tail) of(whole_parts) of(long_rows) of(many_rows)               \
            of(before_the_start) of(behind_the_end) of(far_behind) of(far_before) of(over_scratch) \
                of(twice_as_much) of(nowhere) of(all_of_memory) of(divides_by_zero)                \
                    of(null_of_nothing) of(frees_what_is_not_its_own) of(aborts) of(exits)         \
                        of(never_ends) of(crashes_in_a_plan) of(at_zero) of(five_axes)             \
                            of(aligned_loads) of(rounds_up)

#endif
