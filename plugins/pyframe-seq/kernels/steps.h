/* Lengths (N,), or a mask (N, T) of 0 and 1, that say which steps each sequence has. */
#ifndef PYFRAME_SEQ_STEPS_H
#define PYFRAME_SEQ_STEPS_H

#include <inttypes.h>
#include <stdio.h>

#include "pyframe/real.h"

/* Fails, and says which length, or number of a mask, is wrong: element `index` of input `which`. */
static inline int refuse_steps(const pf_call *call, int which, int64_t index, int64_t steps) {
    const pf_operand *given = call->inputs[which];
    const int64_t value = ((const int64_t *)given->data)[index];
    const int status = call->host->fail(call, PF_ERROR_LABEL, which, index, value);
    char *message = call->error->message;
    const size_t size = sizeof call->error->message;
    if (given->ndim == 1)
        snprintf(message, size,
                 "length %" PRId64 " of sequence %" PRId64
                 " of this batch lies outside of [0, %" PRId64 "], the number of steps",
                 value, index, steps);
    else
        snprintf(message, size,
                 "mask %" PRId64 " of sequence %" PRId64 ", step %" PRId64
                 ", of this batch is neither 1, for a step that is there, nor 0",
                 value, index / steps, index % steps);
    return status;
}

/* Fails unless all of them are right. */
static inline int check_steps(const pf_call *call, int which, int64_t steps) {
    const pf_operand *given = call->inputs[which];
    const int64_t *value = given->data, most = given->ndim == 1 ? steps : 1;
    for (int64_t i = 0; value && i < elements(call, which); i++)
        if (value[i] < 0 || value[i] > most) return refuse_steps(call, which, i, steps);
    return PF_OK;
}

#endif
