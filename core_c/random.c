/* Kernels that draw random numbers. */
#include "random.h"

#include "kernel.h"

typedef struct {
    double rate;
} dropout_attributes;

/* Inverted dropout of x (n, ...): in training y = x / (1 - rate) where an element is kept, which
 * happens with probability 1 - rate, else 0; otherwise y = x. The gradient is the same function of
 * dy: with the same stream it keeps the same elements.
 * Srivastava et al., "Dropout", JMLR 15, 2014, section 10.
 *
 * Element e, counted within the whole batch, is kept when word e % 4 of Philox's block e / 4 of
 * this step is at least rate. */
int PF_NAME(dropout)(const pf_call *call) {
    const dropout_attributes *attributes = call->attributes;
    const pf_operand *shape = call->inputs[0];
    const real *restrict x = pf_in(call, 0);
    real *restrict y = pf_out(call, 0);
    const int64_t n = pf_count(shape);
    if (n == 0) return PF_OK;
    if (!(call->flags & PF_TRAINING)) {
        memcpy(y, x, (size_t)n * sizeof(real));
        return PF_OK;
    }
    const real rate = (real)attributes->rate, scale = (real)(1 / (1 - attributes->rate));
    const int64_t row = shape->ndim > 0 ? n / shape->dims[0] : 1;
    const uint64_t first = (uint64_t)(call->step->first_sample * row);
    uint32_t words[4];
    for (int64_t i = 0; i < n; i++) {
        const uint64_t e = first + (uint64_t)i;
        if (i == 0 || e % 4 == 0)
            pf_philox(call->step->seed, call->stream, e / 4, (uint64_t)call->step->step, words);
        y[i] = pf_uniform(words[e % 4]) >= rate ? x[i] * scale : 0;
    }
    return PF_OK;
}
