/* The table of contents: every built-in kernel, its operands with their shapes, its formula, and
 * the file of its family. A row is PF_KERNEL(name); the symbols are pf_<name>_f32_<set> and
 * pf_<name>_f64_<set>, one for each instruction set. B is a product of leading axes, (...) any
 * shape, s() a scalar.
 *
 * Operands are written as inputs | states -> outputs, one name for each; a kernel that only reads
 * and writes states has no arrow, one without states has no bar. [x] may be absent, x_1 .. x_n are
 * any number, "shape of x" is an input of which only the shape is read. The list ends at two
 * spaces, or at the end of a line that no arrow follows. A test holds each row against the op
 * class, or the optimizer.
 *
 * A row of PF_PLAIN is of a kernel that waits for memory, or for divisions, most of the time: its
 * float64 gains little from AVX-512, and is that of AVX2 there. A row of PF_SHARED gains nothing
 * from AVX-512 in either type.
 *
 * This header has no include guard: kernels.c reads it twice, once to declare, once to list. */

/* activations.c: element-wise on (...). */
PF_KERNEL(relu)            /* x -> y                    y = max(x, 0) */
PF_KERNEL(relu_grad)       /* dy, y -> dx               dx = y > 0 ? dy : 0 */
PF_KERNEL(leaky_relu)      /* x -> y                    y = x > 0 ? x : slope x */
PF_KERNEL(leaky_relu_grad) /* dy, x -> dx               dx = dy (x > 0 ? 1 : slope) */
PF_KERNEL(elu)             /* x -> y                    y = x > 0 ? x : alpha (exp(x) - 1) */
PF_KERNEL(elu_grad)        /* dy, x -> dx               dx = dy (x > 0 ? 1 : alpha exp(x)) */
PF_KERNEL(sigmoid)         /* x -> y, y'                y = 1 / (1 + exp(-x)), y' = y (1 - y) */
PF_KERNEL(sigmoid_grad)    /* dy, y' -> dx              dx = dy y' */
PF_KERNEL(tanh)            /* x -> y, y'                y = tanh(x), y' = 1 - y^2 */
PF_KERNEL(gelu)            /* x -> y, y'                y = x P(Z < x), Z standard normal */
PF_KERNEL(silu)            /* x -> y                    y = x s, s = 1 / (1 + exp(-x)) */
PF_KERNEL(silu_grad)       /* dy, x -> dx               dx = dy (s + x s (1 - s)) */
PF_KERNEL(softplus)        /* x -> y                    y = log(1 + exp(x)) */
PF_KERNEL(softplus_grad)   /* dy, x -> dx               dx = dy / (1 + exp(-x)) */

/* arithmetic.c: two operands broadcast as in NumPy: A, B -> the shape that both stretch to. */
PF_PLAIN(add)          /* a(A), b(B) -> y           y = a + b */
PF_PLAIN(sub)          /* a(A), b(B) -> y           y = a - b */
PF_PLAIN(mul)          /* a(A), b(B) -> y           y = a b */
PF_PLAIN(div)          /* a(A), b(B) -> y           y = a / b */
PF_PLAIN(maximum)      /* a(A), b(B) -> y           y = max(a, b); NaN if either is */
PF_PLAIN(compare)      /* a(A), b(B) -> y           y: one number for each of <, =, >, NaN */
PF_PLAIN(select)       /* a(A), b(B) -> y           y = a is 0 ? 0 : b */
PF_PLAIN(pow)          /* a(A), b(B) -> y           y = a^b */
PF_PLAIN(maximum_grad) /* dy, a(A), b(B) -> dx   dx: dy if a > b, dy / 2 if a = b, else 0 */
PF_PLAIN(neg)          /* x(...) -> y(...)          y = -x */
PF_PLAIN(abs)          /* x(...) -> y(...)          y = |x| */
PF_PLAIN(abs_grad)     /* dy, x -> dx               dx = dy sign(x) */
PF_PLAIN(square)       /* x(...) -> y(...)          y = x^2 */
PF_PLAIN(square_grad)  /* dy, x -> dx               dx = 2 dy x */
PF_PLAIN(sqrt)         /* x(...) -> y(...)          y = sqrt(x) */
PF_PLAIN(sqrt_grad)    /* dy, y -> dx               dx = dy / (2 y) */
PF_PLAIN(exp)          /* x(...) -> y(...)          y = exp(x) */
PF_PLAIN(log)          /* x(...) -> y(...)          y = log(x) */
PF_PLAIN(erf)          /* x(...) -> y(...)          y = erf(x) */
PF_PLAIN(erf_grad)     /* dy, x -> dx               dx = dy 2 / sqrt(pi) exp(-x^2) */
PF_PLAIN(add_n)        /* x_1(...) .. x_n(...) -> y  y = x_1 + .. + x_n, left to right */
PF_PLAIN(copy)         /* x(...), [shape of y] -> y(...)  y = x, of the same count */
PF_PLAIN(remember)     /* x(...) | s(...) -> y(...)       y = x and, in training, s = x */

/* reductions.c: over any set of axes, a bit mask in the attributes. K: the axes that are kept. */
PF_PLAIN(sum)            /* x(...) -> y(K)               y = sum x */
PF_PLAIN(sum_grad)       /* dy(K), shape of x -> dx(...)  dx = dy, repeated */
PF_PLAIN(sum_of_squares) /* x(...) -> y()           y = sum x^2, over everything */
PF_PLAIN(mean)           /* x(...) -> y(K)               y = sum x / n, n elements in each sum */
PF_PLAIN(mean_grad)      /* dy(K), shape of x -> dx(...)  dx = dy / n, repeated */
PF_PLAIN(max)            /* x(...) -> y(K)               y = max x; NaN if any x is */
PF_PLAIN(max_grad)       /* dy(K), x(...), y(K) -> dx    dx = x = y ? dy / (how many are) : 0 */
PF_PLAIN(sum_to)         /* dy(...), shape of x(A) -> dx(A)  sums along broadcast axes */
PF_PLAIN(cumsum)         /* x(...) -> y(...)             y_i = x_0 + .. + x_i along an axis */
PF_PLAIN(argmax)         /* x(...) -> y(K)               int64: where x is largest along an axis */

/* shapes.c: elements move and keep their values. */
PF_PLAIN(transpose)   /* x(...) -> y                 y's axis i is x's axis axes[i] */
PF_PLAIN(concat)      /* x_1 .. x_n -> y             one after the other along an axis */
PF_PLAIN(concat_grad) /* dy, shape of x_1 .. x_n -> dx_i  the part of dy that came from x_i */
PF_PLAIN(slice)       /* x(...) -> y                 y[j] = x[start + j step] along each axis */
PF_PLAIN(slice_grad)  /* dy, [shape of x] -> dx(...)  dx[start + j step] = dy[j], else 0 */
PF_PLAIN(take)        /* x(n, ...), indices -> y      y[i] = x[indices[i]] */
PF_PLAIN(take_grad)   /* dy, indices, shape of x -> dx(n, ...)  dx[indices[i]] += dy[i] */

/* embedding.c: rows of a table, V of d numbers each. */
PF_KERNEL(embedding)      /* indices (...), weight (V, d) -> y (..., d)
                             y_i = weight[indices_i] */
PF_KERNEL(embedding_grad) /* dy (..., d), indices (...), shape of weight (V, d) -> dweight (V, d)
                             dweight_r = sum of the dy_i with indices_i = r, 0 for the padding */
PF_KERNEL(embedding_grad_rows) /*
    shape of weight (V, d), dy (..., d), indices (...), [dy_2], [i_2], [dy_3], [i_3], [dy_4], [i_4]
    -> sums (n, d)  n indices in all: where one occurs first, the sum of its dy; 0 elsewhere */

/* linear.c: matrix products. A weight may be a number, s(): then x is of any shape. */
PF_KERNEL(linear)      /* x (B, in), weight (in, out), [bias (out,)], [residual (B, out)]
                          -> y (B, out)
                          y = f(x weight + bias + residual), f of activation.h */
PF_KERNEL(linear_grad) /* dy (B, out), x (B, in), weight (in, out), [saved (B, in)]
                          -> dx (B, in), dweight (in, out), dbias (out,)
                          dx = dy weight^T, times the f' that `saved` gives;
                          dweight = x^T dy, dbias = sum of dy over B */
PF_KERNEL(matmul)      /* a (..., m, k), b (..., k, n) -> y (..., m, n)
                          y = op(a) op(b), op transposes where asked to */

/* softmax.c: over one axis of n elements; x (outer, n, inner). */
PF_KERNEL(softmax)          /* x -> y          y_i = exp(x_i) / sum_j exp(x_j) */
PF_KERNEL(softmax_grad)     /* dy, y -> dx     dx_i = y_i (dy_i - sum_j dy_j y_j) */
PF_KERNEL(log_softmax)      /* x -> y          y_i = x_i - log sum_j exp(x_j) */
PF_KERNEL(log_softmax_grad) /* dy, y -> dx     dx_i = dy_i - exp(y_i) sum_j dy_j */

/* losses.c: target y and prediction y_hat, both (n, ...), and an optional weight w (n,).
 * l (n, ...) is reduced to s() by its weighted mean or sum, or w l is returned as it is. In the
 * gradients v is the factor that dl and w give an element. */
PF_PLAIN(l1_loss)         /* y, y_hat, [w] -> loss
                              l = |y_hat - y| */
PF_PLAIN(l1_loss_grad)    /* dl, y, y_hat, [w] -> dy, dy_hat
                              dy_hat = v sign(y_hat - y), dy = -dy_hat */
PF_PLAIN(l2_loss)         /* y, y_hat, [w] -> loss
                              l = (y_hat - y)^2 */
PF_PLAIN(l2_loss_grad)    /* dl, y, y_hat, [w] -> dy, dy_hat
                              dy_hat = 2 v (y_hat - y), dy = -dy_hat */
PF_PLAIN(huber_loss)      /* y, y_hat, [w] -> loss
                              d = |y_hat - y|, l = d <= delta ? d^2 / 2 : delta (d - delta / 2) */
PF_PLAIN(huber_loss_grad) /* dl, y, y_hat, [w] -> dy, dy_hat
                              dy_hat = v min(max(y_hat - y, -delta), delta), dy = -dy_hat */
PF_PLAIN(binary_cross_entropy)
/* y, x, [w] -> loss
   l = max(x, 0) - x y + log(1 + exp(-|x|)) */
PF_PLAIN(binary_cross_entropy_grad)
/* dl, y, x, [w] -> dy, dx
   dx = v (1 / (1 + exp(-x)) - y), dy = -v x */
PF_PLAIN(reduce_loss)        /* l (n, ...), [w (n,) or (n, ...)] -> loss */
PF_PLAIN(reduce_loss_grad)   /* dloss, shape of l, [w] -> dl
                                 dl = v */
PF_PLAIN(cross_entropy)      /* labels y (n, ...), x (n, ..., classes), [w] -> loss
                                 l = log sum_c exp(x_c) - x_y, 0 for the label to be ignored */
PF_PLAIN(cross_entropy_grad) /* dl, labels y, x, [w] -> dx
                                 dx_c = v (softmax(x)_c - [c = y]) */
PF_PLAIN(label_weight)       /* labels (...), table (classes,) -> w (...)
                                 w = table[label], 0 for the label to be ignored */

/* norm.c: x (B, C), scale and shift (C,); x^ = (x - mean) inverse, inverse = (var + eps)^(-1/2);
 * low is what rounding the mean has cut off. */
PF_PLAIN(batch_norm)      /* x, scale, shift | running mean (C,), running variance (C,)
                              -> y, mean (C,), inverse (C,), low (C,)
                              y = scale x^ + shift, statistics over B */
PF_PLAIN(batch_norm_grad) /* dy, x, scale, mean, inverse, low -> dx, dscale (C,), dshift (C,) */
PF_PLAIN(layer_norm)      /* x, scale, shift -> y            statistics over C, row by row */
PF_PLAIN(layer_norm_grad) /* dy, x, scale -> dx, dscale (C,), dshift (C,) */

/* random.c */
PF_PLAIN(dropout)        /* x (n, ...) -> y                         y = x / (1 - rate), or 0; x -> x
                                                                     outside of training */
PF_PLAIN(gaussian_noise) /* x (n, ...) -> y                  y = x + std n, or x (1 + std n), n
                                                              normal; x -> x as above */

/* optimizers.c: p parameters, g gradients, both (n); states are read and written; slots v, m, mask,
 * direction (n); norm, skipped, best, redraw, span one double. */
PF_PLAIN(sgd_update)            /* g | p             p -= rate (g + decay p) */
PF_PLAIN(sgd_momentum_update)   /* g | p, v          v = momentum v + g + decay p
                                                      p -= rate v */
PF_PLAIN(nadam_product)         /* | product         1 - product of the momenta of NAdam so far */
PF_PLAIN(adam_update)           /* g, [product] | p, m, v, [w]   Adam with bias correction; AMSGrad
                                    with w, NAdam with product, RAdam, AdaMax */
PF_PLAIN(squares_update)        /* g | p, s_1 .. s_n   RMSProp, Adagrad: p -= rate g / sqrt(s) */
PF_PLAIN(adadelta_update)       /* g | p, s, d         p -= rate g sqrt(d / s) */
PF_PLAIN(rprop_update)          /* g | p, b, s         p -= rate s sign(g), s grows or shrinks */
PF_PLAIN(schedule_free_propose) /* p, d -> y                y = p + (1 - beta1) d */
PF_PLAIN(schedule_free_weight)  /* | weight                 weight = weight + rate^2 */
PF_PLAIN(schedule_free_update)  /* g, y, weight | p, d, v   d = d - rate g / sqrt(v), and a part of
                                    d goes to p */
PF_PLAIN(lars_update)           /* g | p, v      p -= v, v = momentum v + rate |p| / |g| g */
PF_PLAIN(lamb_update)           /* g | p, m, v   p -= rate |p| / |u| u, u Adam's step */
PF_PLAIN(muon_update)    /* g | p, m, v   p -= rate m, m made orthogonal; a vector as AdamW */
PF_PLAIN(add_gradients)  /* g, loss | t, weight   t = t + w g, weight = weight + w;
                             loss (2) of a part times w, and w */
PF_PLAIN(mean_gradients) /* t, weight | g   g = t / weight */
PF_PLAIN(average_update) /* p, decay | a, count  a = decay a + (1 - decay) p */
PF_PLAIN(clip_value)     /* | g               g = min(max(g, -limit), limit) */
PF_PLAIN(gradient_norm)  /* g | norm          norm = sqrt(norm^2 + sum g^2) */
PF_PLAIN(check_norm)     /* norm | skipped    refuses NaN or infinity, or skips the step */
PF_PLAIN(scale_by_norm)  /* norm | g          g *= min(1, limit / norm) */
PF_PLAIN(gradient_noise) /* mask | g          g += sigma n, n normal */
PF_PLAIN(ascent)         /* g, norm | c       c += sharpness g / norm */
PF_PLAIN(random_search_propose)    /* mask -> c         c uniform in [low, high) */
PF_PLAIN(direction_search_propose) /* p, mask, span | direction, redraw -> c
                                       c = p + size direction */
PF_PLAIN(search_accept)            /* c, cost | p, best, [redraw]   p = c if cost < best */

/* ctc.c: labels y (n, L) of T frames x (n, T, classes), over all alignments. */
PF_SHARED(ctc_nll) /* labels y (n, L), x (n, T, classes), [mask (n, T)]
                      -> l (n,), slope (n, T, classes)
                      l = -log P(y | softmax(x)), slope = dl/dx */

/* metrics.c: float64 sums that add up over batches, all in one output; an optional weight w (n,),
 * one a row. */
PF_SHARED(accuracy)         /* labels (n, ...), x (n, ..., classes), [w] -> sums (2,)
                               sum w [argmax x = label], sum w */
PF_SHARED(confusion_matrix) /* labels (n, ...), x (n, ..., classes), [w] -> sums (classes^2,)
                               (classes, classes), flat: sum w at [label][argmax x] */
PF_SHARED(binary_accuracy) /* y, x (n, ...), [w] -> sums (2,)  sum w [(x > 0) = (y > 1/2)], sum w */
PF_SHARED(mae)             /* y, y_hat (n, ...), [w] -> sums (2,)  sum w |y_hat - y|, sum w */
PF_SHARED(rmse)            /* y, y_hat (n, ...), [w] -> sums (2,)  sum w (y_hat - y)^2, sum w */
PF_SHARED(r2)              /* y, y_hat (n, ...), [w] -> sums (9,)
                              the first sum of rmse; then sum w, sum w y and
                              sum w y^2, in 2, 3 and 3 parts */
PF_SHARED(element_mean)    /* v (n, ...), [w] -> sums (2,)  sum w v, sum w */
PF_SHARED(sum_over_count)  /* total (...), count (...) -> sums (2,)  sum total, sum count */
PF_SHARED(binary_confusion_matrix)
/* y, x (n, ...), [w] -> sums (4,)
   (2, 2), flat: sum w at [y > 1/2][x > 0] */
PF_SHARED(top_k_accuracy)   /* labels (n, ...), x (n, ..., classes), [w] -> sums (2,)
                               sum w [x_label among the k largest], sum w */
PF_SHARED(calibration_bins) /* labels (n, ...), p (n, ..., classes), [w] -> sums (3 bins,)
                               (bins, 3), flat: sum w, sum w max p, sum w [argmax p = label] of the
                               rows whose max p lies in a bin */
PF_SHARED(mean_of)          /* loss s(), shape of y (n, ...), [w] -> sums (2,)  loss sum w, sum w */
