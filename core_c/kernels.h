/* The table of contents: every built-in kernel, its inputs -> outputs with their shapes, its
 * formula, and the file of its family. A row is PF_KERNEL(name); the symbols are pf_<name>_f32 and
 * pf_<name>_f64. B is a product of leading axes, (...) any shape, s() a scalar.
 *
 * This header has no include guard: kernels.c reads it twice, once to declare, once to list. */

/* activations.c: element-wise on (...). */
PF_KERNEL(sigmoid)         /* x -> y                    y = 1 / (1 + exp(-x)) */
PF_KERNEL(sigmoid_grad)    /* dy, y -> dx               dx = dy y (1 - y) */
PF_KERNEL(leaky_relu)      /* x -> y                    y = x > 0 ? x : slope x */
PF_KERNEL(leaky_relu_grad) /* dy, x -> dx               dx = dy (x > 0 ? 1 : slope) */

/* optimizers.c: p parameters, g gradients, both (n); | divides inputs from states, which are read
 * and written; slots v, m, mask, direction (n); total, best, redraw one double. */
PF_KERNEL(sgd_update)               /* g | p             p -= rate (g + decay p) */
PF_KERNEL(sgd_momentum_update)      /* g | p, v          v = momentum v + g + decay p; p -= rate v */
PF_KERNEL(adam_update)              /* g | p, m, v       Adam with bias correction */
PF_KERNEL(clip_value)               /* | g               g = min(max(g, -limit), limit) */
PF_KERNEL(square_sum)               /* g | total         total += sum g^2 */
PF_KERNEL(scale_by_norm)            /* total | g         g *= min(1, limit / sqrt(total)) */
PF_KERNEL(random_search_propose)    /* mask -> c         c uniform in [low, high) */
PF_KERNEL(direction_search_propose) /* p, mask | direction, redraw -> c   c = p + size direction */
PF_KERNEL(search_accept)            /* c, cost | p, best, redraw   p = c if cost < best */
