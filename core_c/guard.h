/* The reader's side of the guard; the rest is in plan.inc. */
#ifndef PYFRAME_GUARD_H
#define PYFRAME_GUARD_H

#include "plan.h"

void pf_guard_retain(pf_guard *guard); /* pf_guard_free drops the reference */
void pf_guard_lock_read(pf_guard *guard);
int pf_guard_try_read(pf_guard *guard); /* 0 where another thread writes, or waits to write */
void pf_guard_unlock_read(pf_guard *guard);

#endif
