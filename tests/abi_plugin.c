/* What tests/test_abi.py asks of the host table: each kernel passes on what one function of it
 * does. Compiled for a type with BITS 32 and 64 in one file, by including itself. */
#ifndef BITS

#include <stdio.h>
#include <string.h>

#include <pyframe/pyframe.h>

#ifndef NAME
#define NAME "abi_plugin"
#endif

#define BITS 32
#define REAL float
#define K(name) name##_f32
#include "abi_plugin.c"
#undef BITS
#undef REAL
#undef K
#define BITS 64
#define REAL double
#define K(name) name##_f64
#include "abi_plugin.c"

/* Which variant ran: y[...] = 1, 2, 3. */
#define WHICH(isa, number)                              \
    static int which_##isa##_f32(const pf_call *call) { \
        *(float *)call->outputs[0]->data = number;      \
        return PF_OK;                                   \
    }                                                   \
    static int which_##isa##_f64(const pf_call *call) { \
        *(double *)call->outputs[0]->data = number;     \
        return PF_OK;                                   \
    }
WHICH(baseline, 1)
WHICH(avx2, 2)
WHICH(avx512, 3)
WHICH(neon, 4)

#define ROWS(name) \
    {#name, "baseline", 32, 0, name##_f32}, { #name, "baseline", 64, 0, name##_f64 }
#define WHICH_ROWS(isa) \
    {"which", #isa, 32, 0, which_##isa##_f32}, { "which", #isa, 64, 0, which_##isa##_f64 }
static const pf_plugin_kernel kernels[] = {
    ROWS(product),
    ROWS(parts),
    ROWS(noise),
    ROWS(map),
    ROWS(answer),
    /* not in the order of their worth */
    WHICH_ROWS(avx512),
    WHICH_ROWS(baseline),
    WHICH_ROWS(neon),
    WHICH_ROWS(avx2),
};
static const pf_plugin plugin = {PF_PLUGIN_HEAD, NAME, kernels, sizeof kernels / sizeof kernels[0],
                                 sizeof kernels[0]};

const pf_plugin *pyframe_plugin(const pf_host *host) {
    return PF_HAS(host, parallel_for) ? &plugin : NULL;
}

#else

/* y (m, n) = relu(rows b + bias): the rows of a (m, k) in reverse order, through row pointers */
static int K(product)(const pf_call *call) {
    const pf_operand *a = call->inputs[0], *b = call->inputs[1];
    const REAL *from = a->data;
    const void **rows = call->scratch;
    const int64_t m = a->dims[0], k = a->dims[1];
    if (call->scratch_size < (uint64_t)m * sizeof *rows) return call->host->refuse(call, "no room");
    for (int64_t i = 0; i < m; i++) rows[i] = from + (m - 1 - i) * k;
    const pf_gemm g = {.size = sizeof g,
                       .activation = PF_RELU,
                       .m = m,
                       .n = b->dims[1],
                       .k = k,
                       .a_rows = rows,
                       .a_step = 1,
                       .taps = 1,
                       .b = b->data,
                       .b_row = b->dims[1],
                       .c = call->outputs[0]->data,
                       .c_row = b->dims[1],
                       .bias = call->inputs[2]->data};
    if (call->host->gemm(16) || call->host->vector(16)) return PF_ERROR_OWN + 16;
    call->host->gemm(BITS)->run(&g);
    return PF_OK;
}

/* y[i] = a sum over row i of x, and y[rows + i] = how often part i was run */
typedef struct {
    const pf_call *call;
    int64_t rows, columns;
} K(work);

static void K(one_part)(void *context, int64_t part) {
    const K(work) *w = context;
    const REAL *x = w->call->inputs[0]->data;
    REAL *y = w->call->outputs[0]->data;
    y[part] = (REAL)w->call->host->vector(BITS)->sum(w->columns, x + part * w->columns);
    y[w->rows + part] += 1;
}

static int K(parts)(const pf_call *call) {
    const pf_operand *x = call->inputs[0];
    K(work) w = {call, x->dims[0], x->dims[1]};
    memset(call->outputs[0]->data, 0, 2 * (size_t)w.rows * sizeof(REAL));
    call->host->parallel_for(w.rows, 1000000000, K(one_part), &w);
    return PF_OK;
}

/* y[4 i + j] = word j of counter (i, step), key (seed, stream), its upper 16 bits */
static int K(noise)(const pf_call *call) {
    REAL *y = call->outputs[0]->data;
    for (int64_t i = 0; 4 * i < call->outputs[0]->dims[0]; i++) {
        uint32_t words[4];
        call->host->philox(call->step->seed, call->stream, (uint64_t)i, (uint64_t)call->step->step,
                           words);
        for (int j = 0; j < 4; j++) y[4 * i + j] = (REAL)(words[j] >> 16);
    }
    return PF_OK;
}

/* y = f(x), x (rows, columns), f chosen by the one attribute */
static int K(map)(const pf_call *call) {
    const pf_operand *x = call->inputs[0];
    const pf_vector_functions *v = call->host->vector(BITS);
    const pf_map maps[] = {v->exp, v->log, v->tanh, v->sigmoid, v->erf};
    const int64_t which = *(const int64_t *)call->attributes, rows = x->dims[0], n = x->dims[1];
    REAL *y = call->outputs[0]->data;
    const REAL *from = x->data;
    if (which < 5) maps[which](rows * n, from, y);
    if (which == 5) v->softmax(rows, n, from, y);
    for (int64_t r = 0; r < rows && which > 5; r++)
        for (int64_t i = 0; i < n; i++)
            y[r * n + i] = (REAL)(which == 6 ? v->sum(n, from + r * n)
                                             : v->dot(n, from + r * n, from + r * n));
    return PF_OK;
}

/* The attribute says how this kernel fails. */
static int K(answer)(const pf_call *call) {
    const pf_host *host = call->host;
    const REAL *x = call->inputs[0]->data;
    char words[400];
    switch (*(const int64_t *)call->attributes) {
        case 1:
            return host->fail(call, PF_ERROR_KERNEL, 0, 2, 7);
        case 2:
            return host->fail(call, PF_ERROR_OWN + 7, 0, 2, 7);
        case 3:
            return host->refuse(call, "the sky is falling");
        case 4:
            return PF_ERROR_OWN + 8; /* without a word */
        case 5:
            memset(words, 'x', sizeof words);
            memcpy(words + 158, "\xc3\xa9", 3); /* a letter of two bytes, across the end */
            return host->refuse(call, words);
        case 6:
            host->fail(call, PF_ERROR_OWN + 9, -1, -1, 0);
            snprintf(call->error->message, sizeof call->error->message, "in %s", "its own words");
            return PF_ERROR_OWN + 9;
        case 7:
            return host->fail(call, PF_ERROR_LABEL, 0, 1, -5);
        case 8:
            host->fail(call, PF_ERROR_LABEL, 0, 1, -5);
            snprintf(call->error->message, sizeof call->error->message, "no such word");
            return PF_ERROR_LABEL;
        case 9:
            return -1;
        case 10:
            return PF_ERROR_LABEL; /* but of which element? */
        case 11:
            return PF_ERROR_NONFINITE;
        case 12:
            return PF_ERROR_KERNEL;
    }
    *(REAL *)call->outputs[0]->data = 2 * x[0];
    return PF_OK;
}

#endif
