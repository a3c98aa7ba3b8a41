/* Vector math: functions of many numbers at once. */
#include "vector_functions.h"

#include "activation.h"
#include "elementwise.h"

#define FUNCTION(name, expression)                                    \
    void PF_NAME(name##_all)(int64_t n, const void *from, void *to) { \
        const real *xs = from;                                        \
        real *ys = to;                                                \
        PF_INDEPENDENT                                                \
        for (int64_t i = 0; i < n; i++) {                             \
            const real x = xs[i];                                     \
            ys[i] = expression;                                       \
        }                                                             \
    }

FUNCTION(exp, r_exp(x))
FUNCTION(log, r_log(x))
FUNCTION(tanh, r_tanh(x))
FUNCTION(sigmoid, pf_sigmoid(x))
FUNCTION(erf, r_erf(x))

static double sum(int64_t n, const void *x) { return (double)pf_sum(x, n); }
static double dot(int64_t n, const void *x, const void *y) { return (double)pf_dot(x, y, n); }

const pf_vector_functions PF_NAME(vector_functions) = {.size = sizeof(pf_vector_functions),
                                                       .exp = PF_NAME(exp_all),
                                                       .log = PF_NAME(log_all),
                                                       .tanh = PF_NAME(tanh_all),
                                                       .sigmoid = PF_NAME(sigmoid_all),
                                                       .erf = PF_NAME(erf_all),
                                                       .softmax = PF_NAME(softmax_all),
                                                       .sum = sum,
                                                       .dot = dot};
