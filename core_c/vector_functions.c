/* Vector math: functions of many numbers at once. */
#include "vector_functions.h"

#include "activation.h"
#include "spans.h"

void PF_NAME(rest_of)(pf_loop *loop, int64_t n, const real *a, const real *b, real *y, real *z,
                      real p, real q) {
    const int64_t whole = n & -(int64_t)LANES;
    const part rest = first_lanes(n - whole);
    __attribute__((aligned(PF_VECTOR_BYTES))) real of_a[LANES], of_b[LANES], of_y[LANES],
        of_z[LANES];
    store(of_a, load_part(a + whole, rest));
    if (b) store(of_b, load_part(b + whole, rest));
    loop(LANES, of_a, b ? of_b : NULL, of_y, z ? of_z : NULL, p, q);
    store_part(y + whole, rest, load(of_y));
    if (z) store_part(z + whole, rest, load(of_z));
}

#if PF_DEFINES_RARE && PF_REAL_BITS == 32
const float pf_least_exponent = -104.0f, pf_most_exponent = 89.0f;
#endif

#define FUNCTION(name, expression)                                \
    PF_LOOP(name, const real x = as[i]; ys[i] = expression)       \
    void PF_NAME(name##_all)(int64_t n, const void *x, void *y) { \
        name##_loop(n, x, NULL, y, NULL, 0, 0);                   \
    }

FUNCTION(exp, r_exp(x))
FUNCTION(log, r_log(x))
FUNCTION(erf, r_erf(x))

__attribute__((noinline)) void PF_NAME(decays)(int64_t n, const real *x, real factor, real *powers,
                                               real *fractions) {
    const int64_t whole = n & -(int64_t)LANES;
    PF_INDEPENDENT
    for (int64_t i = 0; i < whole; i++) {
        const r_decay d = r_decay_of(factor * x[i]);
        powers[i] = d.power, fractions[i] = d.fraction;
    }
}

#define DECAY_FUNCTION(name, factor)                                \
    PF_DECAY_LOOP(name, factor, ys[at + i] = pf_##name(x, d).value) \
    void PF_NAME(name##_all)(int64_t n, const void *x, void *y) {   \
        name##_loop(n, x, NULL, y, NULL, 0, 0);                     \
    }

DECAY_FUNCTION(tanh, 2)
DECAY_FUNCTION(sigmoid, 1)

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
