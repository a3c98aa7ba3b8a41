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

/* losses.c: target y and prediction y_hat, both (n, ...), and an optional weight w (n,).
 * l (n, ...) is reduced to s() by its weighted mean or sum, or w l is returned as it is. */
PF_KERNEL(l1_loss)      /* y, y_hat, [w] -> loss                 l = |y_hat - y| */
PF_KERNEL(l1_loss_grad) /* dl, y, y_hat, [w] -> dy, dy_hat; the same of the next three */
PF_KERNEL(l2_loss)      /* y, y_hat, [w] -> loss                 l = (y_hat - y)^2 */
PF_KERNEL(l2_loss_grad)
PF_KERNEL(huber_loss) /* y, y_hat, [w] -> loss, d = |y_hat - y|
                         l = d <= delta ? d^2 / 2 : delta (d - delta / 2) */
PF_KERNEL(huber_loss_grad)
PF_KERNEL(binary_cross_entropy) /* y, x, [w] -> loss             l = max(x, 0) - x y
                                                                     + log(1 + exp(-|x|)) */
PF_KERNEL(binary_cross_entropy_grad)
PF_KERNEL(cross_entropy)      /* labels y (n, ...), x (n, ..., classes), [w] -> loss
                                 l = log sum_c exp(x_c) - x_y */
PF_KERNEL(cross_entropy_grad) /* dl, y, x, [w] -> dx             softmax(x)_c - [c = y] */
