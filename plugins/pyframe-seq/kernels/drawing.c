/* A token drawn by its logits.
 *
 *     z_j = x_j, if j is seen x_j / penalty for x_j > 0, else x_j penalty
 *     p_j = exp((z_j - max z) / temperature) / sum,  0 for tokens that may not be drawn
 *     y   = the first j with p_0 + ... + p_j > u;  the first with the largest z at temperature 0
 *
 * Sums are in double precision: u decides between those of as many terms as there are words. */
#include <math.h>

#include "pyframe/real.h"

/* Of the likeliest tokens the top_k first, and those as likely as the last of them, may be drawn;
 * of these the first ones whose shares add up to top_p. */
typedef struct {
    double temperature, top_k, top_p, penalty;
} choice;

/* Whether word i comes before word j: it is likelier, or as likely and a lower number. */
static int comes_first(const double *z, int64_t i, int64_t j) {
    return z[i] > z[j] || (z[i] == z[j] && i < j);
}

/* Of the words at the places from first to end, puts those that come before one of them in front of
 * it. Returns its place. Which one it is depends on the places alone, and on no logit. */
static int64_t split(const double *z, int64_t *word, int64_t first, int64_t end) {
    const uint64_t mixed = (uint64_t)(31 * first + end) * UINT64_C(0x9E3779B97F4A7C15);
    const int64_t pick = first + (int64_t)(mixed >> 33) % (end - first), pivot = word[pick];
    int64_t place = first;
    word[pick] = word[end - 1];
    for (int64_t i = first; i < end - 1; i++) {
        const int64_t moved = word[i];
        word[i] = word[place];
        word[place] = moved;
        place += comes_first(z, moved, pivot);
    }
    word[end - 1] = word[place];
    word[place] = pivot;
    return place;
}

/* Puts the likeliest words, up to rank top_k and as likely as the last of these, in front of the
 * others. Returns how many they are. */
static int64_t likeliest(double top_k, const double *z, int64_t words, int64_t *word) {
    const int64_t count = top_k > 0 ? (int64_t)ceil(top_k) : 0;
    for (int64_t first = 0, end = words; first < end;) {
        const int64_t at = split(z, word, first, end);
        if (at < count)
            first = at + 1;
        else
            end = at;
    }
    int64_t kept = count;
    double least = INFINITY;
    for (int64_t i = 0; i < count; i++) least = z[word[i]] < least ? z[word[i]] : least;
    for (int64_t i = count; i < words; i++)
        if (z[word[i]] == least) {
            const int64_t equal = word[i];
            word[i] = word[kept];
            word[kept++] = equal;
        }
    return kept;
}

/* The same for words of which those before each have less than the share top_p of all. */
static int64_t nucleus(double top_p, const double *z, const double *p, int64_t words,
                       int64_t *word) {
    double total = 0, before = 0; /* before: the sum of those at places up to `first` */
    for (int64_t i = 0; i < words; i++) total += p[word[i]];
    int64_t first = 0;
    for (int64_t end = words; first < end;) {
        const int64_t at = split(z, word, first, end);
        double sum = before;
        for (int64_t i = first; i < at; i++) sum += p[word[i]];
        if (sum < top_p * total)
            before = sum + p[word[at]], first = at + 1;
        else
            end = at;
    }
    return first;
}

/* Sets p of the words that may not be drawn to 0. */
static void leave_out(const choice *of, const double *z, int64_t words, double *p, int64_t *word) {
    const int bounded = of->top_k < (double)words;
    if (!bounded && !(of->top_p < 1)) return;
    for (int64_t j = 0; j < words; j++) word[j] = j;
    int64_t kept = bounded ? likeliest(of->top_k, z, words, word) : words;
    if (of->top_p < 1) kept = nucleus(of->top_p, z, p, kept, word);
    for (int64_t i = kept; i < words; i++) p[word[i]] = 0;
}

/* NaN if u is NaN, which says that nobody asks, if a logit is NaN or the largest one infinite, and
 * if no word is left. */
static double draw(const pf_call *call, int64_t n, const choice *of) {
    const int64_t words = columns(call, 0), *given = call->inputs[3]->data;
    const int64_t *seen = given && of->penalty != 1 ? given + n * words : NULL;
    const real *x = input(call, 0) + n * words;
    const double u = (double)input(call, 1)[n];
    double *z = call->scratch, *p = z + words, top = -INFINITY;
    if (isnan(u)) return NAN;
    for (int64_t j = 0; j < words; j++) z[j] = (double)x[j];
    for (int64_t j = 0; seen && j < words; j++)
        if (seen[j]) z[j] = z[j] > 0 ? z[j] / of->penalty : z[j] * of->penalty;
    int unordered = 0;
    for (int64_t j = 0; j < words; j++) {
        unordered |= z[j] != z[j];
        top = z[j] > top ? z[j] : top;
    }
    if (unordered || isinf(top)) return NAN;
    if (of->temperature == 0) {
        int64_t first = 0;
        while (z[first] != top) first++;
        return (double)first;
    }
    for (int64_t j = 0; j < words; j++) p[j] = (z[j] - top) / of->temperature;
    call->host->vector(64)->exp(words, p, p);
    leave_out(of, z, words, p, (int64_t *)(p + words));
    double total = 0, sum = 0, word = NAN;
    for (int64_t j = 0; j < words; j++) total += p[j];
    if (!(u * total >= 0)) return NAN;
    for (int64_t j = 0; j < words && !(sum > u * total); j++)
        if (p[j] > 0) sum += p[j], word = (double)j;
    return word;
}

/* Whether numbers are 0 or 1, all of them. */
static int are_flags(const int64_t *numbers, int64_t count) {
    uint64_t others = 0;
    for (int64_t i = 0; i < count; i++) others |= (uint64_t)numbers[i] >> 1;
    return others == 0;
}

/* x (N, V), u (N,), settings (4,): temperature, top_k, top_p, penalty; [seen (N, V)] -> y (N,) */
int NAME(draw_token)(const pf_call *call) {
    const real *settings = input(call, 2);
    const int64_t *seen = call->inputs[3]->data;
    if (seen && !are_flags(seen, elements(call, 3)))
        for (int64_t i = 0;; i++)
            if (seen[i] < 0 || seen[i] > 1)
                return call->host->fail(call, PF_ERROR_LABEL, 3, i, seen[i]);
    const choice of = {(double)settings[0], (double)settings[1], (double)settings[2],
                       (double)settings[3]};
    for (int64_t n = 0; n < call->inputs[0]->dims[0]; n++)
        output(call, 0)[n] = (real)draw(call, n, &of);
    return PF_OK;
}
