/* Pools: the largest, or the mean, of each channel within a window. */
#include <math.h>

#include "vector.h"

typedef struct {
    int64_t window[AXES], stride[AXES];
    int64_t low[AXES]; /* what the first window sticks out in front of the image */
    int64_t adaptive;  /* windows that share the image evenly, instead of these */
    int64_t divide;    /* mean instead of sum: over what of the window lies in the image */
    int64_t rectified; /* the gradient is also that of the relu whose result x is */
} pool_attributes;

/* So many windows of 2 x 2 side by side that their part of the result is in one vector, and that of
 * each line of x in two. */
typedef struct {
    int64_t windows;
    part x[2], y;
} group;

typedef struct {
    const pf_call *call;
    const pool_attributes *attributes;
    images x, y;
    int apart; /* each pixel lies in one window, ... */
    int pairs; /* ... and that is of 2 x 2 pixels */
    /* With few channels the windows of a line are taken in groups, of which the last is smaller.
     * Lane i of the left, or right, pixels is number index[0][i], or index[1][i], of the two
     * vectors of x, and lane i of these number index[2][i] and index[3][i] of left and right ones.
     */
    group all, last;
    int32_t index[4][LANES];
    /* Of a mean: a power of two, no more than 1 / the pixels of a window, and 1 / unit. What it
     * scales down loses no digits, and has no sum that is too much if the mean is not. */
    real unit, units;
} pool;

/* The pixels of the image from `first` to before `end` along an axis. */
typedef struct {
    int64_t first, end;
} range;

/* Those of output q. */
static inline range range_of(const pool *p, int axis, int64_t q) {
    const pool_attributes *a = p->attributes;
    const int64_t extent = p->x.size[axis], outputs = p->y.size[axis];
    if (a->adaptive) return (range){q * extent / outputs, ceil_div((q + 1) * extent, outputs)};
    const int64_t at = q * a->stride[axis] - a->low[axis];
    return (range){max_of(at, 0), min_of(at + a->window[axis], extent)};
}

/* The window of one output, and LANES of its channels at most. */
typedef struct {
    range d, h, w;
    int64_t channels, line, plane; /* distances of pixels, lines and planes, in elements */
    part lanes;
} window;

/* What is done for one window: x is the first channel of the image's first pixel, y that of the
 * output. */
typedef void pool_body(const pool *p, const window *v, int64_t x, int64_t y);

/* The body for all outputs of image n, inlined. */
__attribute__((always_inline)) static inline void each_window(const pool *p, int64_t n,
                                                              pool_body *body) {
    const int64_t channels = p->x.channels, *outputs = p->y.size;
    window v = {.channels = channels,
                .line = p->x.size[2] * channels,
                .plane = p->x.size[1] * p->x.size[2] * channels};
    const int64_t x = n * image_elements(&p->x);
    int64_t y = n * image_elements(&p->y);
    for (int64_t qd = 0; qd < outputs[0]; qd++) {
        v.d = range_of(p, 0, qd);
        for (int64_t qh = 0; qh < outputs[1]; qh++) {
            v.h = range_of(p, 1, qh);
            for (int64_t qw = 0; qw < outputs[2]; qw++, y += channels) {
                v.w = range_of(p, 2, qw);
                for (int64_t c = 0; c < channels; c += LANES) {
                    v.lanes = first_lanes(channels - c);
                    body(p, &v, x + c, y + c);
                }
            }
        }
    }
}

/* The pixels of a window: `at` is where the image has each of them. */
#define POOL_EACH_PIXEL(v, x)                                               \
    for (int64_t line, d = (v)->d.first; d < (v)->d.end; d++)               \
        for (int64_t h = (v)->h.first; h < (v)->h.end; h++)                 \
            for (int64_t at = (line = (x) + d * (v)->plane + h * (v)->line, \
                              line + (v)->w.first * (v)->channels);         \
                 at < line + (v)->w.end * (v)->channels; at += (v)->channels)

static void choose_groups(pool *p);

static pool pool_of(const pf_call *call, const pf_operand *x, const pf_operand *y) {
    pool p = {.call = call,
              .attributes = call->attributes,
              .x = images_of(x),
              .y = images_of(y),
              .apart = 1};
    for (int axis = 0; axis < AXES; axis++)
        p.apart = p.apart && !p.attributes->adaptive && p.attributes->low[axis] == 0 &&
                  p.attributes->stride[axis] == p.attributes->window[axis] &&
                  p.attributes->window[axis] * p.y.size[axis] == p.x.size[axis];
    const int64_t *size = p.attributes->window;
    p.pairs = p.apart && size[0] == 1 && p.x.size[0] == 1 && size[1] == 2 && size[2] == 2;
    choose_groups(&p);
    return p;
}

static void in_images(const pool *p, pf_body body) {
    int64_t read = image_elements(p->attributes->adaptive ? &p->x : &p->y);
    /* Of a window, what of it can lie in the image. */
    for (int axis = 0; axis < AXES && !p->attributes->adaptive; axis++)
        read *= min_of(p->attributes->window[axis], p->x.size[axis]);
    p->call->host->parallel_for(p->x.count, p->x.count * read / 8, body, (void *)p);
}

/* ---- windows of 2 x 2 pixels, side by side ---- */

typedef struct {
    const real *x, *y, *dy;
    real *to; /* y or dx */
    int64_t channels, line;
    real bound; /* only windows whose y is above it are given dy */
} squares;

/* What is done for LANES elements of the result at most, or for their windows: y is the place of
 * the first one, x that of the first pixel of its window. */
typedef void squares_body(const squares *s, int64_t x, int64_t y, part lanes);

/* The body for all windows of image n, inlined. With fewer channels than lanes a whole vector is
 * read and written for each pixel, as what is behind it will be written afterwards; but not for the
 * `last` windows of a line, whose vectors would reach beyond its result. */
__attribute__((always_inline)) static inline void each_square(const pool *p, int64_t n, squares s,
                                                              squares_body *body) {
    const int64_t channels = p->x.channels, whole = channels / LANES * LANES;
    const int64_t last = whole > 0 ? p->y.size[2] : ceil_div(LANES, max_of(channels, 1)) - 1;
    const part all = first_lanes(LANES), rest = first_lanes(channels - whole);
    s.channels = channels;
    s.line = p->x.size[2] * channels;
    int64_t x = n * image_elements(&p->x), y = n * image_elements(&p->y);
    for (int64_t q = 0; q < p->y.size[1]; q++, x += s.line)
        for (int64_t left = p->y.size[2]; left > 0; left--, x += 2 * channels, y += channels) {
            for (int64_t c = 0; c < whole; c += LANES) body(&s, x + c, y + c, all);
            if (whole == channels) continue;
            if (left > last)
                body(&s, x + whole, y + whole, all);
            else
                body(&s, x + whole, y + whole, rest);
        }
}

/* ---- which places of x are the largest ---- */

/* The lanes that may be given dy: with a relu in front not those where it has cut x off. */
static inline mask opened(vec y, int64_t rectified) {
    const vec nothing = {0};
    return rectified ? ~at_most(y, nothing) : equal(nothing, nothing);
}

/* dy where x is the first to be y, or NaN. */
static inline vec first_match(vec x, vec y, vec dy, mask *open) {
    const mask here = *open & (equal(x, y) | is_nan(x));
    *open &= ~here;
    return select(here, dy, (vec){0});
}

/* The same, where y is finite, and so is x. */
static inline vec first_equal(vec x, vec y, vec dy, mask *open) {
    const mask here = equal_among(*open, x, y);
    *open &= ~here;
    return select(here, dy, (vec){0});
}

/* ---- groups of them ---- */

#if defined(__AVX512F__) && CNN_BITS == 32

static group group_of(int64_t windows, int64_t channels) {
    const int64_t n = windows * channels;
    return (group){
        windows, {first_lanes(2 * n), first_lanes(max_of(2 * n - LANES, 0))}, first_lanes(n)};
}

static void choose_groups(pool *p) {
    const int64_t channels = p->x.channels, outputs = p->y.size[2];
    if (!p->pairs || 2 * channels > LANES || channels * outputs == 0) return;
    const int64_t windows = min_of(LANES / channels, outputs);
    p->all = group_of(windows, channels);
    p->last = group_of((outputs - 1) % windows + 1, channels);
    for (int32_t side = 0; side < 2; side++)
        for (int32_t i = 0; i < LANES; i++) {
            const int32_t c = (int32_t)channels, at = i / c * 2 * c + i % c + side * c;
            p->index[side][i] = at % (2 * LANES); /* lanes that are not in use, too */
            const int32_t element = side * LANES + i, right = element / c % 2;
            p->index[2 + side][i] = element / (2 * c) * c + element % c + right * LANES;
        }
}

static inline vec lanes_of(const pool *p, int index, vec x, vec y) {
    return (vec)_mm512_permutex2var_ps((__m512)x, _mm512_loadu_si512(p->index[index]), (__m512)y);
}

static inline void largest_of_group(const pool *p, const squares *s, const group *g, int64_t x,
                                    int64_t y) {
    vec top[2];
    for (int i = 0; i < 2; i++) {
        const real *upper = s->x + x + i * LANES, *lower = upper + s->line;
        top[i] = larger(load(upper, g->x[i]), load(lower, g->x[i]));
    }
    const vec left = lanes_of(p, 0, top[0], top[1]), right = lanes_of(p, 1, top[0], top[1]);
    store(s->to + y, g->y, larger(left, right));
}

static inline void give_group(const pool *p, const squares *s, const group *g, int64_t x,
                              int64_t y) {
    const vec dy = load(s->dy + y, g->y), top = load(s->y + y, g->y);
    mask open = above(top, splat(s->bound));
    for (int line = 0; line < 2; line++, x += s->line) {
        const vec x0 = load(s->x + x, g->x[0]), x1 = load(s->x + x + LANES, g->x[1]);
        const vec left = first_equal(lanes_of(p, 0, x0, x1), top, dy, &open);
        const vec right = first_equal(lanes_of(p, 1, x0, x1), top, dy, &open);
        store(s->to + x, g->x[0], lanes_of(p, 2, left, right));
        store(s->to + x + LANES, g->x[1], lanes_of(p, 3, left, right));
    }
}

/* The body for all groups of image n, inlined. */
typedef void group_body(const pool *p, const squares *s, const group *g, int64_t x, int64_t y);
__attribute__((always_inline)) static inline void each_group(const pool *p, int64_t n, squares s,
                                                             group_body *body) {
    const int64_t windows = p->all.windows, channels = p->x.channels;
    s.line = p->x.size[2] * channels;
    int64_t x = n * image_elements(&p->x), y = n * image_elements(&p->y);
    for (int64_t q = 0; q < p->y.size[1]; q++, x += s.line) {
        int64_t left = p->y.size[2];
        for (; left > windows; left -= windows) {
            body(p, &s, &p->all, x, y);
            x += windows * 2 * channels;
            y += windows * channels;
        }
        body(p, &s, &p->last, x, y);
        x += left * 2 * channels;
        y += left * channels;
    }
}

static void largest_of_groups(const pool *p, int64_t n, squares s) {
    each_group(p, n, s, largest_of_group);
}
static void give_groups(const pool *p, int64_t n, squares s) { each_group(p, n, s, give_group); }

#else

static void choose_groups(pool *p) { (void)p; }
static void largest_of_groups(const pool *p, int64_t n, squares s) { (void)p, (void)n, (void)s; }
static void give_groups(const pool *p, int64_t n, squares s) { (void)p, (void)n, (void)s; }

#endif

/* ---- the largest ---- */

static inline void largest(const pool *p, const window *v, int64_t x, int64_t y) {
    const real *image = input(p->call, 0);
    vec top =
        load(image + x + v->d.first * v->plane + v->h.first * v->line + v->w.first * v->channels,
             v->lanes);
    POOL_EACH_PIXEL(v, x) top = larger(top, load(image + at, v->lanes));
    store(output(p->call, 0) + y, v->lanes, top);
}

static inline void largest_of_square(const squares *s, int64_t x, int64_t y, part lanes) {
    const real *upper = s->x + x, *lower = upper + s->line;
    const vec above = larger(load(upper, lanes), load(upper + s->channels, lanes));
    const vec below = larger(load(lower, lanes), load(lower + s->channels, lanes));
    store(s->to + y, lanes, larger(above, below));
}

static void max_image(void *context, int64_t n) {
    const pool *p = context;
    const squares s = {.x = input(p->call, 0), .to = output(p->call, 0)};
    if (p->all.windows > 0)
        largest_of_groups(p, n, s);
    else if (p->pairs)
        each_square(p, n, s, largest_of_square);
    else
        each_window(p, n, largest);
}

/* x (N, ..., C) -> y (N, ..., C): the largest number of each window */
int CNN_NAME(max_pool)(const pf_call *call) {
    const pool p = pool_of(call, call->inputs[0], call->outputs[0]);
    in_images(&p, max_image);
    return PF_OK;
}

__attribute__((always_inline)) static inline void give(const pool *p, const window *v, int64_t x,
                                                       int64_t y, const int apart) {
    const real *image = input(p->call, 1);
    real *dx = output(p->call, 0);
    const vec dy = load(input(p->call, 0) + y, v->lanes);
    const vec top = load(input(p->call, 2) + y, v->lanes);
    mask open = opened(top, p->attributes->rectified);
    POOL_EACH_PIXEL(v, x) {
        vec given = first_match(load(image + at, v->lanes), top, dy, &open);
        if (!apart) given += load(dx + at, v->lanes);
        store(dx + at, v->lanes, given);
    }
}

static inline void give_apart(const pool *p, const window *v, int64_t x, int64_t y) {
    give(p, v, x, y, 1);
}
static inline void give_shared(const pool *p, const window *v, int64_t x, int64_t y) {
    give(p, v, x, y, 0);
}

static inline void give_square(const squares *s, int64_t x, int64_t y, part lanes) {
    const int64_t at[] = {x, x + s->channels, x + s->line, x + s->line + s->channels};
    const vec dy = load(s->dy + y, lanes), top = load(s->y + y, lanes);
    mask open = above(top, splat(s->bound));
    for (int i = 0; i < 4; i++)
        store(s->to + at[i], lanes, first_equal(load(s->x + at[i], lanes), top, dy, &open));
}

static void clear_image(const pool *p, int64_t n) {
    const int64_t elements = image_elements(&p->x);
    memset(output(p->call, 0) + n * elements, 0, (size_t)elements * sizeof(real));
}

static int is_finite(const real *y, int64_t n) {
    vec nothing = {0}; /* 0, or NaN */
    for (int64_t i = 0; i < n; i += LANES) {
        const vec some = load(y + i, first_lanes(n - i));
        nothing += some - some;
    }
    const mask none = equal(nothing, nothing), all = equal((vec){0}, (vec){0});
    return memcmp(&none, &all, sizeof all) == 0;
}

static void max_grad_image(void *context, int64_t n) {
    const pool *p = context;
    const int64_t elements = image_elements(&p->y);
    if (p->pairs && is_finite(input(p->call, 2) + n * elements, elements)) {
        const squares s = {.dy = input(p->call, 0),
                           .x = input(p->call, 1),
                           .y = input(p->call, 2),
                           .to = output(p->call, 0),
                           .bound = p->attributes->rectified ? 0 : -(real)INFINITY};
        if (p->all.windows > 0)
            give_groups(p, n, s);
        else
            each_square(p, n, s, give_square);
    } else if (p->apart) {
        each_window(p, n, give_apart);
    } else {
        clear_image(p, n);
        each_window(p, n, give_shared);
    }
}

/* dy, x, y = max_pool(x) -> dx: each dy goes to the first place of its window where x = y, or x is
 * NaN. */
int CNN_NAME(max_pool_grad)(const pf_call *call) {
    pool p = pool_of(call, call->inputs[1], call->inputs[0]);
    in_images(&p, max_grad_image);
    return PF_OK;
}

/* ---- the mean ---- */

static inline int64_t length(range r) { return r.end - r.first; }

static inline real weight_of(const pool *p, const window *v) {
    if (!p->attributes->divide) return 1;
    return (real)1 / (real)(length(v->d) * length(v->h) * length(v->w));
}

static inline void mean(const pool *p, const window *v, int64_t x, int64_t y) {
    const real *image = input(p->call, 0), unit = p->unit;
    vec sum = {0};
    POOL_EACH_PIXEL(v, x) sum += load(image + at, v->lanes) * unit;
    store(output(p->call, 0) + y, v->lanes, sum * (weight_of(p, v) * p->units));
}

static void mean_image(void *context, int64_t n) { each_window(context, n, mean); }

/* x (N, ..., C) -> y (N, ..., C): the mean of each window, or its sum */
int CNN_NAME(avg_pool)(const pf_call *call) {
    pool p = pool_of(call, call->inputs[0], call->outputs[0]);
    double pixels = 1;
    for (int axis = 0; axis < AXES && p.attributes->divide; axis++)
        pixels *= (double)min_of(
            p.attributes->adaptive ? p.x.size[axis] : p.attributes->window[axis], p.x.size[axis]);
    for (p.unit = p.units = 1; (double)p.units < pixels; p.unit /= 2) p.units *= 2;
    in_images(&p, mean_image);
    return PF_OK;
}

static inline void share(const pool *p, const window *v, int64_t x, int64_t y) {
    real *dx = output(p->call, 0);
    const vec each = load(input(p->call, 0) + y, v->lanes) * weight_of(p, v);
    POOL_EACH_PIXEL(v, x) store(dx + at, v->lanes, load(dx + at, v->lanes) + each);
}

static void mean_grad_image(void *context, int64_t n) {
    clear_image(context, n);
    each_window(context, n, share);
}

/* dy, [x: its shape] -> dx: each dy is shared by the pixels of its window */
int CNN_NAME(avg_pool_grad)(const pf_call *call) {
    const pool p = pool_of(call, call->outputs[0], call->inputs[0]);
    in_images(&p, mean_grad_image);
    return PF_OK;
}
