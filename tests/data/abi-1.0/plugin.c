/* A plugin for version 1.0 of the kernel interface. Its library stands beside it, as it was built
 * when that version was frozen; README.md has the command. It uses the whole host table, and no C
 * library. Compiled for both types in one file, by including itself. */
#ifndef BITS

#include <pyframe/pyframe.h>

#define BITS 32
#define REAL float
#define K(name) name##_f32
#include "plugin.c"
#undef BITS
#undef REAL
#undef K
#define BITS 64
#define REAL double
#define K(name) name##_f64
#include "plugin.c"

#define ROWS(name) \
    {#name, "baseline", 32, 0, name##_f32}, { #name, "baseline", 64, 0, name##_f64 }
static const pf_plugin_kernel kernels[] = {
    ROWS(dense), ROWS(dense_grad), ROWS(softsign), ROWS(softsign_grad),
    ROWS(noisy), ROWS(count),      ROWS(choose),
};
static const pf_plugin plugin = {PF_PLUGIN_HEAD, "abi_one", kernels,
                                 sizeof kernels / sizeof kernels[0], sizeof kernels[0]};

const pf_plugin *pyframe_plugin(const pf_host *host) {
    return PF_HAS(host, vector) && host->abi_major == 1 ? &plugin : NULL;
}

#else

static const REAL *K(in)(const pf_call *call, int i) { return (const REAL *)call->inputs[i]->data; }
static REAL *K(out)(const pf_call *call, int i) { return (REAL *)call->outputs[i]->data; }

/* y = relu(x w + b); inputs: x (m, k), w (k, n), b (n,); outputs: y (m, n) */
static int K(dense)(const pf_call *call) {
    const int64_t n = call->inputs[1]->dims[1], k = call->inputs[0]->dims[1];
    const pf_gemm_functions *gemm = call->host->gemm(BITS);
    pf_gemm g = {.size = sizeof g,
                 .activation = PF_RELU,
                 .m = call->inputs[0]->dims[0],
                 .n = n,
                 .k = k,
                 .a = K(in)(call, 0),
                 .a_row = k,
                 .a_step = 1,
                 .b = K(in)(call, 1),
                 .b_row = n,
                 .c = K(out)(call, 0),
                 .c_row = n,
                 .bias = K(in)(call, 2)};
    gemm->run(&g);
    return PF_OK;
}

/* dz = dy where y > 0, in the scratch; dx = dz w^T, dw = x^T dz, db = the rows of dz, summed;
 * inputs: dy (m, n), x (m, k), w (k, n), y (m, n); outputs: dx, dw, db, none of which may be wanted
 */
static int K(dense_grad)(const pf_call *call) {
    const int64_t m = call->inputs[0]->dims[0], n = call->inputs[0]->dims[1];
    const int64_t k = call->inputs[1]->dims[1];
    const pf_gemm_functions *gemm = call->host->gemm(BITS);
    const REAL *dy = K(in)(call, 0), *y = K(in)(call, 3);
    REAL *dz = (REAL *)call->scratch, *db = K(out)(call, 2);
    if (call->scratch_size < (uint64_t)(m * n) * sizeof *dz)
        return call->host->refuse(call, "too little scratch");
    for (int64_t i = 0; i < m * n; i++) dz[i] = y[i] > 0 ? dy[i] : 0;
    if (K(out)(call, 0)) {
        const pf_gemm g = {.size = sizeof g,
                           .m = m,
                           .n = k,
                           .k = n,
                           .a = dz,
                           .a_row = n,
                           .a_step = 1,
                           .b = K(in)(call, 2),
                           .b_row = n,
                           .b_transposed = 1,
                           .c = K(out)(call, 0),
                           .c_row = k};
        gemm->run(&g);
    }
    if (K(out)(call, 1)) {
        const pf_gemm g = {.size = sizeof g,
                           .m = k,
                           .n = n,
                           .k = m,
                           .a = K(in)(call, 1),
                           .a_row = 1,
                           .a_step = k,
                           .b = dz,
                           .b_row = n,
                           .c = K(out)(call, 1),
                           .c_row = n};
        gemm->run(&g);
    }
    if (db)
        for (int64_t j = 0; j < n; j++) {
            REAL sum = 0;
            for (int64_t i = 0; i < m; i++) sum += dz[i * n + j];
            db[j] = sum;
        }
    return PF_OK;
}

/* y = x / (s + |x|), dx = dy s / (s + |x|)^2, s an attribute; in parts that threads share */
enum { K(PART) = 1 << 12 };
typedef struct {
    const REAL *x, *dy;
    REAL *to, s;
    int64_t count;
} K(work);

static void K(part)(void *context, int64_t part) {
    const K(work) *w = (const K(work) *)context;
    const int64_t last = (part + 1) * K(PART), end = last < w->count ? last : w->count;
    for (int64_t i = part * K(PART); i < end; i++) {
        const REAL t = w->s + (w->x[i] < 0 ? -w->x[i] : w->x[i]);
        w->to[i] = w->dy ? w->dy[i] * (w->s / t / t) : w->x[i] / t;
    }
}

static int K(share)(const pf_call *call, const REAL *dy, int x) {
    K(work) w = {K(in)(call, x), dy, K(out)(call, 0), (REAL) * (const double *)call->attributes, 1};
    for (int i = 0; i < call->outputs[0]->ndim; i++) w.count *= call->outputs[0]->dims[i];
    call->host->parallel_for((w.count + K(PART) - 1) / K(PART), 2 * w.count, K(part), &w);
    return PF_OK;
}

static int K(softsign)(const pf_call *call) { return K(share)(call, NULL, 0); }
static int K(softsign_grad)(const pf_call *call) { return K(share)(call, K(in)(call, 0), 1); }

/* y = exp(x), and a random number in [0, 1) more while training; x (n,) */
static int K(noisy)(const pf_call *call) {
    const int64_t n = call->inputs[0]->dims[0];
    REAL *y = K(out)(call, 0);
    call->host->vector(BITS)->exp(n, K(in)(call, 0), y);
    for (int64_t i = 0; i < n && call->flags & PF_TRAINING; i++) {
        uint32_t words[4];
        call->host->philox(call->step->seed, call->stream, (uint64_t)(call->step->first_sample + i),
                           (uint64_t)call->step->step, words);
        y[i] += (REAL)(words[0] >> 8) / 16777216;
    }
    return PF_OK;
}

/* y = x; the state counts the calls: it is read and written */
static int K(count)(const pf_call *call) {
    const int64_t n = call->inputs[0]->dims[0];
    for (int64_t i = 0; i < n; i++) K(out)(call, 0)[i] = K(in)(call, 0)[i];
    *(REAL *)call->states[0]->data += 1;
    return PF_OK;
}

/* y[i] = table[index[i]], labels that are checked; table (n,), index (m,) of int64 */
static int K(choose)(const pf_call *call) {
    const int64_t *index = (const int64_t *)call->inputs[1]->data;
    const int64_t n = call->inputs[0]->dims[0], m = call->inputs[1]->dims[0];
    for (int64_t i = 0; i < m; i++) {
        if (index[i] < 0 || index[i] >= n)
            return call->host->fail(call, PF_ERROR_LABEL, 1, i, index[i]);
        K(out)(call, 0)[i] = K(in)(call, 0)[index[i]];
    }
    return PF_OK;
}

#endif
