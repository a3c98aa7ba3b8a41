/* Shuffles epochs and gathers batches. */
#include "batches.h"

#include <string.h>

#include "cost.h"
#include "parallel.h"
#include "plan.h"
#include "random.h"

enum { PART_BYTES = 1 << 15, MOST_FETCHED = 1 << 12 };

/* Streams of the core have their high bits set; the planner clears these bits in nodes' streams. */
static const uint64_t SHUFFLE_STREAM = UINT64_C(0xFFFF000000000001);

/* The high half of the 128-bit product, from four 64-bit ones. */
static uint64_t multiply_high(uint64_t a, uint64_t b) {
    const uint64_t low = UINT64_C(0xFFFFFFFF);
    uint64_t middle = (a & low) * (b & low) >> 32;
    uint64_t left = (a >> 32) * (b & low) + middle, right = (a & low) * (b >> 32) + (left & low);
    return (a >> 32) * (b >> 32) + (left >> 32) + (right >> 32);
}

/* Fisher-Yates. The swap of place i scales 64 bits, half i % 2 of the words of counter i / 2, to
 * [0, i + 1): the bias is below n / 2^64. */
void pf_shuffle(uint64_t seed, int64_t epoch, int64_t n, int64_t *order) {
    enum { BLOCK = 64 };
    uint32_t words[2 * BLOCK];
    for (int64_t i = 0; i < n; i++) order[i] = i;
    for (int64_t block = (n - 1) / BLOCK * BLOCK; block >= 0; block -= BLOCK) {
        for (int64_t j = 0; j < BLOCK; j += 2)
            pf_philox(seed, SHUFFLE_STREAM, (uint64_t)(block + j) / 2, (uint64_t)epoch,
                      words + 2 * j);
        int64_t last = block + BLOCK < n ? block + BLOCK - 1 : n - 1;
        for (int64_t i = last; i >= block && i > 0; i--) {
            const uint32_t *two = words + 2 * (i - block);
            int64_t j = (int64_t)multiply_high((uint64_t)two[1] << 32 | two[0], (uint64_t)i + 1);
            int64_t kept = order[i];
            order[i] = order[j];
            order[j] = kept;
        }
    }
}

void pf_random_words(uint64_t seed, uint64_t stream, int64_t n, uint32_t *words) {
    for (int64_t i = 0; i < n; i += 4) {
        uint32_t four[4];
        pf_philox(seed, stream, (uint64_t)(i / 4), 0, four);
        for (int64_t j = i; j < n && j < i + 4; j++) words[j] = four[j - i];
    }
}

/* memcpy for rows of equal length: pieces of a fixed size compile to moves instead of calls. The
 * last piece ends where the row does, and so may overlap the one before it. */
static inline void copy_row(unsigned char *to, const unsigned char *from, size_t n) {
    if (n > 256 || n < 4) {
        memcpy(to, from, n);
    } else if (n >= 16) {
        for (size_t i = 0; i + 16 < n; i += 16) memcpy(to + i, from + i, 16);
        memcpy(to + n - 16, from + n - 16, 16);
    } else if (n >= 8) {
        memcpy(to, from, 8);
        memcpy(to + n - 8, from + n - 8, 8);
    } else {
        memcpy(to, from, 4);
        memcpy(to + n - 4, from + n - 4, 4);
    }
}

/* One gather in progress. */
typedef struct {
    unsigned char *to;
    const unsigned char *from;
    const int64_t *order;
    int64_t rows, row_bytes;
    int64_t rows_of_part;
} gathering;

/* The next row begins elsewhere, where the processor does not look ahead by itself. */
static inline void fetch_row(const unsigned char *row, int64_t bytes) {
    for (int64_t i = 0; i < bytes && i < MOST_FETCHED; i += 64) __builtin_prefetch(row + i);
}

static void gather_part(void *context, int64_t part) {
    const gathering *g = context;
    const int64_t first = part * g->rows_of_part;
    const int64_t end = g->rows - first < g->rows_of_part ? g->rows : first + g->rows_of_part;
    for (int64_t r = first; r < end; r++) {
        if (g->row_bytes > 256 && r + 1 < end)
            fetch_row(g->from + g->order[r + 1] * g->row_bytes, g->row_bytes);
        copy_row(g->to + r * g->row_bytes, g->from + g->order[r] * g->row_bytes,
                 (size_t)g->row_bytes);
    }
}

void pf_gather_rows(void *to, const void *from, const int64_t *order, int64_t rows,
                    int64_t row_bytes) {
    gathering g = {to, from, order, rows, row_bytes, 1};
    if (row_bytes < PART_BYTES) g.rows_of_part = PART_BYTES / (row_bytes > 0 ? row_bytes : 1);
    pf_parallel_for((rows + g.rows_of_part - 1) / g.rows_of_part,
                    rows * row_bytes / PF_SCATTERED_BYTES_PER_NANOSECOND, gather_part, &g);
}
