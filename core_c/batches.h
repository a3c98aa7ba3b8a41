/* The rows of a batch; the shuffle, which Python calls too, is declared in plan.inc. */
#ifndef PYFRAME_BATCHES_H
#define PYFRAME_BATCHES_H

#include <stdint.h>

/* to[r] = from[order[r]] for r < rows, in rows of row_bytes bytes */
void pf_gather_rows(void *to, const void *from, const int64_t *order, int64_t rows,
                    int64_t row_bytes);

#endif
