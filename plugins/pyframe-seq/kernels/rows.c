/* Rows of sequences that are hidden, and states that are carried from one call to the next. */
#include <string.h>

#include "steps.h"

/* x (N, T, C), lengths (N) or a mask (N, T) of 0 and 1 -> y (N, T, C): x, and zeros in the rows
 * that are hidden, whatever stands there */
int NAME(mask_rows)(const pf_call *call) {
    const int64_t *dims = call->inputs[0]->dims, *steps = call->inputs[1]->data;
    const int by_length = call->inputs[1]->ndim == 1;
    const int status = check_steps(call, 1, dims[1]);
    if (status != PF_OK) return status;
    const real *x = input(call, 0);
    real *y = output(call, 0);
    const size_t bytes = (size_t)dims[2] * sizeof(real);
    for (int64_t n = 0, row = 0; n < dims[0]; n++)
        for (int64_t t = 0; t < dims[1]; t++, row++, x += dims[2], y += dims[2]) {
            if (by_length ? t < steps[n] : steps[row])
                memcpy(y, x, bytes);
            else
                memset(y, 0, bytes);
        }
    return PF_OK;
}

/* y, final states (N, W) ... -> the same; the states of the call become the final ones, outside of
 * training, too */
int NAME(carry)(const pf_call *call) {
    for (uint32_t i = 0; i < call->input_count; i++) {
        const size_t bytes = (size_t)elements(call, (int)i) * sizeof(real);
        if (output(call, (int)i)) memcpy(output(call, (int)i), input(call, (int)i), bytes);
    }
    for (uint32_t i = 0; i < call->state_count; i++)
        memcpy(call->states[i]->data, input(call, (int)i + 1),
               (size_t)elements(call, (int)i + 1) * sizeof(real));
    return PF_OK;
}
