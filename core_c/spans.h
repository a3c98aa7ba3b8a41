/* Loops with long bodies, such as exponentials. Each is compiled for whole vectors only; what is
 * left at the end of an array goes through the same loop, in vectors of its own. That is half of
 * the code, and takes a fraction of the time of one element after the other. */
#ifndef PYFRAME_SPANS_H
#define PYFRAME_SPANS_H

#include "elementwise.h"
#include "vector.h"

/* y_i, and perhaps z_i, from a_i and perhaps b_i, i < n, with constants p and q. What there is not
 * is NULL. Outputs may share the memory of inputs. */
typedef void pf_loop(int64_t n, const real *a, const real *b, real *y, real *z, real p, real q);

/* Runs a loop over the last n % LANES elements. */
void PF_NAME(rest_of)(pf_loop *loop, int64_t n, const real *a, const real *b, real *y, real *z,
                      real p, real q);

/* The loop name_loop, whose body makes ys[i] and zs[i] of as[i] and bs[i]. */
#define PF_LOOP(name, ...)                                                                       \
    __attribute__((noinline)) static void name##_loop(int64_t n, const real *as, const real *bs, \
                                                      real *ys, real *zs, real p, real q) {      \
        const int64_t whole = n & -(int64_t)LANES;                                               \
        (void)bs, (void)zs;                                                                      \
        PF_INDEPENDENT                                                                           \
        for (int64_t i = 0; i < whole; i++) {                                                    \
            __VA_ARGS__;                                                                         \
        }                                                                                        \
        if (whole < n) PF_NAME(rest_of)(name##_loop, n, as, bs, ys, zs, p, q);                   \
    }

/* powers (1 + fractions) = exp(-|factor x|), n of them, whole vectors */
void PF_NAME(decays)(int64_t n, const real *x, real factor, real *powers, real *fractions);

/* The same for a body of x and d = exp(-|factor x|), which writes to ys[at + i] and zs[at + i].
 * There are two loops, one after the other for a block of numbers. How many rounds of a loop a
 * processor has under way at once is limited by its registers, 160 vectors on Zen 3: fewer than
 * four of one loop with an exponential and a division, which wait for each other, and twice as many
 * of two. */
#define PF_DECAY_LOOP(name, factor, ...)                                                         \
    __attribute__((noinline)) static void name##_loop(int64_t n, const real *as, const real *bs, \
                                                      real *ys, real *zs, real p, real q) {      \
        enum { BLOCK = 256 };                                                                    \
        real powers[BLOCK], fractions[BLOCK];                                                    \
        const int64_t whole = n & -(int64_t)LANES;                                               \
        (void)bs, (void)zs;                                                                      \
        for (int64_t at = 0; at < whole; at += BLOCK) {                                          \
            const int64_t count = (whole - at < BLOCK ? whole - at : BLOCK) & -(int64_t)LANES;   \
            PF_NAME(decays)(count, as + at, factor, powers, fractions);                          \
            PF_INDEPENDENT                                                                       \
            for (int64_t i = 0; i < count; i++) {                                                \
                const real x = as[at + i];                                                       \
                const r_decay d = {powers[i], fractions[i]};                                     \
                __VA_ARGS__;                                                                     \
            }                                                                                    \
        }                                                                                        \
        if (whole < n) PF_NAME(rest_of)(name##_loop, n, as, bs, ys, zs, p, q);                   \
    }

/* PF_MAP and PF_MAP_GRAD with such a loop. */
#define PF_LONG_MAP(name, expression)                                                           \
    PF_LOOP(name, const real x = as[i]; ys[i] = expression)                                     \
    int PF_NAME(name)(const pf_call *call) {                                                    \
        name##_loop(pf_count(call->outputs[0]), pf_in(call, 0), NULL, pf_out(call, 0), NULL, 0, \
                    0);                                                                         \
        return PF_OK;                                                                           \
    }
#define PF_LONG_MAP_GRAD(name, saved, expression)                                                \
    PF_LOOP(name, const real dy = as[i], saved = bs[i]; ys[i] = expression)                      \
    int PF_NAME(name)(const pf_call *call) {                                                     \
        name##_loop(pf_count(call->outputs[0]), pf_in(call, 0), pf_in(call, 1), pf_out(call, 0), \
                    NULL, 0, 0);                                                                 \
        return PF_OK;                                                                            \
    }

#endif
