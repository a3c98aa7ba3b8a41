/* Kernels that draw random numbers. */
#include "random.h"

#include "kernel.h"

enum { BLOCK = 64 };

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
    /* The words of elements block .. block + BLOCK; the first block may begin before x does. */
    uint32_t words[BLOCK];
    for (uint64_t block = first / 4 * 4; block < first + (uint64_t)n; block += BLOCK) {
        for (int j = 0; j < BLOCK; j += 4)
            pf_philox(call->step->seed, call->stream, (block + (uint64_t)j) / 4,
                      (uint64_t)call->step->step, words + j);
        const int64_t begin = block < first ? 0 : (int64_t)(block - first);
        const int64_t end =
            (int64_t)(block + BLOCK - first) < n ? (int64_t)(block + BLOCK - first) : n;
        const uint32_t *word = words + (first + (uint64_t)begin - block);
        for (int64_t i = begin; i < end; i++) {
            const real kept = x[i] * scale; /* loaded in any case: no branch to mispredict */
            y[i] = pf_uniform(word[i - begin]) >= rate ? kept : 0;
        }
    }
    return PF_OK;
}

typedef struct {
    double std;
    int64_t scales;
} noise_attributes;

/* Normal noise n on x (n, ...): in training y = x + std n or, if it scales, y = x (1 + std n);
 * otherwise y = x. Element e, counted within the whole batch, gets number e % 4 of those that
 * `pf_normal` makes of Philox's block e / 4 of this step. */
int PF_RARE(gaussian_noise)(const pf_call *call);
#if PF_DEFINES_RARE
int PF_RARE(gaussian_noise)(const pf_call *call) {
    const noise_attributes *attributes = call->attributes;
    const pf_operand *shape = call->inputs[0];
    const real *restrict x = pf_in(call, 0);
    real *restrict y = pf_out(call, 0);
    const int64_t n = pf_count(shape);
    if (n == 0) return PF_OK;
    if (!(call->flags & PF_TRAINING)) {
        memcpy(y, x, (size_t)n * sizeof(real));
        return PF_OK;
    }
    const int64_t row = shape->ndim > 0 ? n / shape->dims[0] : 1;
    const int64_t first = call->step->first_sample * row;
    for (int64_t block = first / 4; 4 * block < first + n; block++) {
        uint32_t words[4];
        double normal[4];
        pf_philox(call->step->seed, call->stream, (uint64_t)block, (uint64_t)call->step->step,
                  words);
        pf_normal(words, normal);
        for (int j = 0; j < 4; j++) {
            const int64_t i = 4 * block + j - first;
            if (i < 0 || i >= n) continue;
            const real noise = (real)(attributes->std * normal[j]);
            y[i] = attributes->scales ? x[i] * (1 + noise) : x[i] + noise;
        }
    }
    return PF_OK;
}
#endif

int PF_NAME(gaussian_noise)(const pf_call *call) { return PF_RARE(gaussian_noise)(call); }
