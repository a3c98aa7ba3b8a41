/* Gradients of few filters' weights; the convolution itself is declared in conv.h. */
#ifndef PYFRAME_CNN_FEW_H
#define PYFRAME_CNN_FEW_H

#include "conv.h"

/* Of conv_weight_grad's inputs and outputs, where is_few. */
int CNN_NAME(few_weight_grad)(const pf_call *call);

#endif
