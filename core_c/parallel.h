/* Work divided among threads. */
#ifndef PYFRAME_PARALLEL_H
#define PYFRAME_PARALLEL_H

#include "pyframe/pyframe.h"

#include "parallel.inc"

#endif
