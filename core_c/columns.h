/* Sums over the rows of a matrix, one for each column. */
#ifndef PYFRAME_COLUMNS_H
#define PYFRAME_COLUMNS_H

#include "kernel.h"

/* Rows are added up PF_ROWS at a time and the partial sums then added, so that the error grows
 * with rows / PF_ROWS; the columns of a strip keep their partial sums on the stack. */
enum { PF_ROWS = 64, PF_STRIP = 64 };

/* sum[c] = the sum over r < rows of `term`, an expression of the row r, the column c < width and
 * i = r width + c. */
#define PF_SUM_COLUMNS(sum, rows, width, term)                                       \
    for (int64_t left = 0; left < (width); left += PF_STRIP) {                       \
        const int64_t right = (width) - left < PF_STRIP ? (width) : left + PF_STRIP; \
        for (int64_t c = left; c < right; c++) (sum)[c] = 0;                         \
        for (int64_t top = 0; top < (rows); top += PF_ROWS) {                        \
            const int64_t bottom = (rows) - top < PF_ROWS ? (rows) : top + PF_ROWS;  \
            real partial[PF_STRIP];                                                  \
            for (int64_t c = left; c < right; c++) partial[c - left] = 0;            \
            for (int64_t r = top; r < bottom; r++)                                   \
                for (int64_t c = left; c < right; c++) {                             \
                    const int64_t i = r * (width) + c;                               \
                    partial[c - left] += (term);                                     \
                }                                                                    \
            for (int64_t c = left; c < right; c++) (sum)[c] += partial[c - left];    \
        }                                                                            \
    }

#endif
