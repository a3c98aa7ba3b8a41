/* Vectors of `real`, for files that are compiled once for each element type. */
#ifndef PYFRAME_SEQ_VECTORS_H
#define PYFRAME_SEQ_VECTORS_H

#include "pyframe/lanes.h"
#include "pyframe/real.h"

#if BITS == 32
#define OF_REAL(name) name##_f32
#else
#define OF_REAL(name) name##_f64
#endif
/* Goes before a loop of a few steps, the number of which is known. */
#if defined(__clang__)
#define SEQ_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define SEQ_UNROLL _Pragma("GCC unroll 8")
#else
#define SEQ_UNROLL
#endif

typedef OF_REAL(pf_vec) vec;
enum { LANES = PF_VECTOR_BYTES / (int)sizeof(real) };

static inline vec load(const real *x) { return OF_REAL(pf_load)(x); }
static inline void store(real *x, vec y) { OF_REAL(pf_store)(x, y); }

#endif
