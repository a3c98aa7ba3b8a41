/* A token drawn by its logits.
 *
 *     z_j = x_j, if j is seen x_j / penalty for x_j > 0, else x_j penalty
 *     p_j = exp((z_j - max z) / temperature) / sum,  0 for tokens that may not be drawn
 *     y   = the first j with p_0 + ... + p_j > u;  the first with the largest z at temperature 0
 *
 * All of it is in double precision: u decides between sums of as many terms as there are words. */
#include <math.h>

#include "pyframe/real.h"

/* Of the likeliest tokens the top_k first, and those as likely as the last of them, may be drawn;
 * of these the first ones whose shares add up to top_p. */
typedef struct {
    double temperature, top_k, top_p, penalty;
} choice;

/* Words in a heap: none is less likely than those below it. What is taken from its top lies behind
 * it, so that the likeliest word comes last. */
typedef struct {
    const double *z;
    int64_t *word, count, all;
} word_heap;

/* Whether word i comes before word j: it is likelier, or as likely and a lower number. */
static int comes_first(const word_heap *h, int64_t i, int64_t j) {
    return h->z[i] > h->z[j] || (h->z[i] == h->z[j] && i < j);
}

/* Moves the word at a place down to where it belongs. */
static void sink(const word_heap *h, int64_t place) {
    const int64_t word = h->word[place];
    for (int64_t below; (below = 2 * place + 1) < h->count; place = below) {
        if (below + 1 < h->count && comes_first(h, h->word[below + 1], h->word[below])) below++;
        if (comes_first(h, word, h->word[below])) break;
        h->word[place] = h->word[below];
    }
    h->word[place] = word;
}

static word_heap heap_of(const double *z, int64_t words, int64_t *room) {
    word_heap h = {z, room, words, words};
    for (int64_t j = 0; j < words; j++) room[j] = j;
    for (int64_t place = words / 2 - 1; place >= 0; place--) sink(&h, place);
    return h;
}

/* The word at the given rank, 0 for the likeliest; ranks are asked for in order. */
static int64_t ranked(word_heap *h, int64_t rank) {
    if (rank < h->all - h->count) return h->word[h->all - 1 - rank];
    const int64_t top = h->word[0], last = h->word[--h->count];
    h->word[0] = last;
    if (h->count > 0) sink(h, 0);
    h->word[h->count] = top;
    return top;
}

/* Sets p of the words that may not be drawn to 0. */
static void leave_out(const choice *of, const double *z, int64_t words, double *p, int64_t *room) {
    if (!(of->top_k < (double)words || of->top_p < 1)) return;
    word_heap heap = heap_of(z, words, room);
    int64_t kept = words;
    double total = 0;
    if (of->top_k < (double)words) {
        double least = INFINITY; /* of the words up to rank top_k */
        for (kept = 0; kept < words; kept++) {
            const int64_t word = ranked(&heap, kept);
            if ((double)kept >= of->top_k && z[word] != least) break;
            least = z[word];
            total += p[word];
        }
    } else {
        for (int64_t j = 0; j < words; j++) total += p[j];
    }
    if (of->top_p < 1) {
        const double wanted = of->top_p * total;
        const int64_t most = kept;
        total = 0;
        for (kept = 0; kept < most && total < wanted; kept++) total += p[ranked(&heap, kept)];
    }
    for (int64_t place = 0; place < words - kept; place++) p[heap.word[place]] = 0;
}

/* NaN if a logit is NaN, or the largest one infinite. */
static double drawn(const pf_call *call, int64_t n, const choice *of) {
    const int64_t words = columns(call, 0), *given = call->inputs[3]->data;
    const int64_t *seen = given && of->penalty != 1 ? given + n * words : NULL;
    const real *x = input(call, 0) + n * words;
    double *z = call->scratch, *p = z + words;
    int64_t top = 0;
    for (int64_t j = 0; j < words; j++) {
        z[j] = (double)x[j];
        if (seen && seen[j]) z[j] = z[j] > 0 ? z[j] / of->penalty : z[j] * of->penalty;
        if (!(z[j] <= z[top])) top = j;
        if (isnan(z[j])) return NAN;
    }
    if (isinf(z[top])) return NAN;
    if (of->temperature == 0) return (double)top;
    for (int64_t j = 0; j < words; j++) p[j] = (z[j] - z[top]) / of->temperature;
    call->host->vector(64)->exp(words, p, p);
    leave_out(of, z, words, p, (int64_t *)(p + words));
    double total = 0, sum = 0, last = NAN;
    for (int64_t j = 0; j < words; j++) total += p[j];
    const double share = (double)input(call, 1)[n] * total;
    if (isnan(share)) return NAN;
    for (int64_t j = 0; j < words && !(sum > share); j++)
        if (p[j] > 0) sum += p[j], last = (double)j;
    return last;
}

/* x (N, V), u (N,), settings (4,): temperature, top_k, top_p, penalty; [seen (N, V)] -> y (N,) */
int NAME(draw_token)(const pf_call *call) {
    const real *settings = input(call, 2);
    const int64_t *seen = call->inputs[3]->data;
    for (int64_t i = 0; seen && i < elements(call, 3); i++)
        if (seen[i] < 0 || seen[i] > 1)
            return call->host->fail(call, PF_ERROR_LABEL, 3, i, seen[i]);
    const choice of = {(double)settings[0], (double)settings[1], (double)settings[2],
                       (double)settings[3]};
    for (int64_t n = 0; n < call->inputs[0]->dims[0]; n++)
        output(call, 0)[n] = (real)drawn(call, n, &of);
    return PF_OK;
}
