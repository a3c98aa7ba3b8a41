/* Vector math as functions; see pf_vector_functions in pyframe/abi.inc. */
#ifndef PYFRAME_VECTOR_FUNCTIONS_H
#define PYFRAME_VECTOR_FUNCTIONS_H

#include "kernel.h"

extern const pf_vector_functions PF_NAME(vector_functions);

#endif
