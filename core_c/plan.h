/* The executor. plan.inc holds the declarations, as build_ffi.py hands them to cffi too. */
#ifndef PYFRAME_PLAN_H
#define PYFRAME_PLAN_H

#include "pyframe/pyframe.h"

#include "plan.inc"

#endif
