/* What parts.h declares, once for all types and instruction sets. */
#include "parts.h"

typedef struct {
    const pf_call *call;
    pf_part_body *body;
    void *results;
    int64_t rows, each;
} pf_parts;

static void run_part(void *context, int64_t part) {
    const pf_parts *p = context;
    const int64_t first = part * p->each, end = first + p->each;
    p->body(p->call, part, first, end < p->rows ? end : p->rows, p->results);
}

void pf_in_parts(const pf_call *call, int64_t rows, int64_t each, int64_t row_bytes,
                 pf_part_body *body, void *results) {
    if (rows <= each) { /* the usual case; avoids the pool */
        body(call, 0, 0, rows, results);
        return;
    }
    pf_parts parts = {call, body, results, rows, each};
    call->host->parallel_for((rows + each - 1) / each,
                             rows * row_bytes / PF_LOOP_BYTES_PER_NANOSECOND, run_part, &parts);
}
