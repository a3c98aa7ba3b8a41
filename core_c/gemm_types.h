/* What describes a matrix product, whatever the type of its elements. */
#ifndef PYFRAME_GEMM_TYPES_H
#define PYFRAME_GEMM_TYPES_H

#include <stdint.h>

#include "gemm.inc"

#endif
