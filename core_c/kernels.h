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

/* linear.c: matrix products. A weight may be a number, s(): then x is of any shape. */
PF_KERNEL(linear)      /* x (B, in), weight (in, out), [bias (out,)] -> y (B, out)
                          y = x weight + bias */
PF_KERNEL(linear_grad) /* dy (B, out), x (B, in), weight (in, out)
                          -> dx (B, in), dweight (in, out), dbias (out,) */
PF_KERNEL(matmul)      /* a (..., m, k), b (..., k, n) -> y (..., m, n)
                          y = op(a) op(b), op the transpose where asked for */

/* softmax.c: over one axis of n elements; x (outer, n, inner). */
PF_KERNEL(softmax)          /* x -> y          y_i = exp(x_i) / sum_j exp(x_j) */
PF_KERNEL(softmax_grad)     /* dy, y -> dx     dx_i = y_i (dy_i - sum_j dy_j y_j) */
PF_KERNEL(log_softmax)      /* x -> y          y_i = x_i - log sum_j exp(x_j) */
PF_KERNEL(log_softmax_grad) /* dy, y -> dx     dx_i = dy_i - exp(y_i) sum_j dy_j */
