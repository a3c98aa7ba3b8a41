/* The activations that a product can take over: the one list of them, for the core, for plugins and
 * for Python. A released code keeps its meaning for good; a new activation is a line at the end.
 * What they compute is also written here; epilogue.h makes functions of it. */
#ifndef PYFRAME_ACTIVATIONS_H
#define PYFRAME_ACTIVATIONS_H

/* EACH(code, number, name, f(y), dx f'): f and dx f' of an element, as expressions;
 * ROW(code, number, name, dx f'): f of a row is the vector function of that name.
 *
 * `slope` comes with the activation. `saved` is the result f(y), or, for sigmoid and tanh, the
 * derivative itself, which they give as a second output: where their result has rounded to 1, it no
 * longer tells the derivative, which is small but still a normal number. Comparisons are written so
 * that NaN falls through. */
#define PF_ACTIVATIONS(EACH, ROW)                              \
    EACH(PF_RELU, 1, relu, y < 0 ? 0 : y, saved <= 0 ? 0 : dx) \
    ROW(PF_SIGMOID, 2, sigmoid, dx *saved)                     \
    ROW(PF_TANH, 3, tanh, dx *saved)                           \
    EACH(PF_LEAKY_RELU, 4, leaky_relu, y > 0 ? y : slope * y, saved > 0 ? dx : slope * dx)

#define PF_CODE_OF_EACH(code, number, name, value, grad) , code = number
#define PF_CODE_OF_ROW(code, number, name, grad) , code = number
enum pf_activation { PF_NO_ACTIVATION = 0 PF_ACTIVATIONS(PF_CODE_OF_EACH, PF_CODE_OF_ROW) };
#undef PF_CODE_OF_EACH
#undef PF_CODE_OF_ROW

#endif
