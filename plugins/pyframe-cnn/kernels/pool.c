/* Pools: the largest, or the mean, of each channel within a window. */
#include "vector.h"

typedef struct {
    int64_t window[AXES], stride[AXES];
    int64_t low[AXES]; /* what the first window sticks out in front of the image */
    int64_t adaptive;  /* windows that share the image evenly, instead of these */
    int64_t divide;    /* mean instead of sum: over what of the window lies in the image */
    int64_t rectified; /* the gradient is also that of the relu whose result x is */
} pool_attributes;

typedef struct {
    const pf_call *call;
    const pool_attributes *attributes;
    images x, y;
    int apart; /* each pixel lies in one window, ... */
    int pairs; /* ... and that is of 2 x 2 pixels */
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

/* The body for all outputs of image n, inlined; `pairs`: for windows of 2 x 2, side by side. */
__attribute__((always_inline)) static inline void windows(const pool *p, int64_t n, pool_body *body,
                                                          const int pairs) {
    const int64_t channels = p->x.channels, *outputs = p->y.size;
    window v = {.channels = channels,
                .line = p->x.size[2] * channels,
                .plane = p->x.size[1] * p->x.size[2] * channels};
    const int64_t x = n * image_elements(&p->x);
    int64_t y = n * image_elements(&p->y);
    for (int64_t qd = 0; qd < outputs[0]; qd++) {
        v.d = pairs ? (range){0, 1} : range_of(p, 0, qd);
        for (int64_t qh = 0; qh < outputs[1]; qh++) {
            v.h = pairs ? (range){2 * qh, 2 * qh + 2} : range_of(p, 1, qh);
            for (int64_t qw = 0; qw < outputs[2]; qw++, y += channels) {
                v.w = pairs ? (range){2 * qw, 2 * qw + 2} : range_of(p, 2, qw);
                for (int64_t c = 0; c < channels; c += LANES) {
                    v.lanes = first_lanes(channels - c);
                    body(p, &v, x + c, y + c);
                }
            }
        }
    }
}

__attribute__((always_inline)) static inline void each_window(const pool *p, int64_t n,
                                                              pool_body *body) {
    if (p->pairs)
        windows(p, n, body, 1);
    else
        windows(p, n, body, 0);
}

/* The pixels of a window: `at` is where the image has each of them. */
#define POOL_EACH_PIXEL(v, x)                                               \
    for (int64_t line, d = (v)->d.first; d < (v)->d.end; d++)               \
        for (int64_t h = (v)->h.first; h < (v)->h.end; h++)                 \
            for (int64_t at = (line = (x) + d * (v)->plane + h * (v)->line, \
                              line + (v)->w.first * (v)->channels);         \
                 at < line + (v)->w.end * (v)->channels; at += (v)->channels)

static pool pool_of(const pf_call *call, const pf_operand *x, const pf_operand *y) {
    pool p = {call, call->attributes, images_of(x), images_of(y), 1, 0};
    for (int axis = 0; axis < AXES; axis++)
        p.apart = p.apart && !p.attributes->adaptive && p.attributes->low[axis] == 0 &&
                  p.attributes->stride[axis] == p.attributes->window[axis] &&
                  p.attributes->window[axis] * p.y.size[axis] == p.x.size[axis];
    const int64_t *size = p.attributes->window;
    p.pairs = p.apart && size[0] == 1 && p.x.size[0] == 1 && size[1] == 2 && size[2] == 2;
    return p;
}

static void in_images(const pool *p, pf_body body) {
    const int64_t *size = p->attributes->window;
    const int64_t read = p->attributes->adaptive
                             ? image_elements(&p->x)
                             : image_elements(&p->y) * size[0] * size[1] * size[2];
    p->call->host->parallel_for(p->x.count, p->x.count * read / 8, body, (void *)p);
}

/* ---- the largest ---- */

static inline void largest(const pool *p, const window *v, int64_t x, int64_t y) {
    const real *image = input(p->call, 0);
    vec top =
        load(image + x + v->d.first * v->plane + v->h.first * v->line + v->w.first * v->channels,
             v->lanes);
    POOL_EACH_PIXEL(v, x) { /* NaN stays, and comes */
        const vec here = load(image + at, v->lanes);
        top = select((top >= here) | (top != top), top, here);
    }
    store(output(p->call, 0) + y, v->lanes, top);
}

static void max_image(void *context, int64_t n) { each_window(context, n, largest); }

/* x (N, ..., C) -> y (N, ..., C): the largest number of each window */
int CNN_NAME(max_pool)(const pf_call *call) {
    const pool p = pool_of(call, call->inputs[0], call->outputs[0]);
    in_images(&p, max_image);
    return PF_OK;
}

/* dy goes to the first x that is y; what has found its place is gone. */
__attribute__((always_inline)) static inline void give(const pool *p, const window *v, int64_t x,
                                                       int64_t y, const int apart) {
    const real *image = input(p->call, 1);
    real *dx = output(p->call, 0);
    const vec top = load(input(p->call, 2) + y, v->lanes), nothing = {0};
    vec left = load(input(p->call, 0) + y, v->lanes);
    if (p->attributes->rectified) left = select(top <= 0, nothing, left);
    POOL_EACH_PIXEL(v, x) {
        const vec value = load(image + at, v->lanes);
        const mask here = (value == top) | (value != value);
        vec given = select(here, left, nothing);
        if (!apart) given += load(dx + at, v->lanes);
        store(dx + at, v->lanes, given);
        left = select(here, nothing, left);
    }
}

static inline void give_apart(const pool *p, const window *v, int64_t x, int64_t y) {
    give(p, v, x, y, 1);
}
static inline void give_shared(const pool *p, const window *v, int64_t x, int64_t y) {
    give(p, v, x, y, 0);
}

static void clear_image(const pool *p, int64_t n) {
    const int64_t elements = image_elements(&p->x);
    memset(output(p->call, 0) + n * elements, 0, (size_t)elements * sizeof(real));
}

static void max_grad_image(void *context, int64_t n) {
    const pool *p = context;
    if (p->apart) {
        each_window(p, n, give_apart);
        return;
    }
    clear_image(p, n);
    each_window(p, n, give_shared);
}

/* dy, x, y = max_pool(x) -> dx: each dy goes to the first place of its window where x = y, or x is
 * NaN. */
int CNN_NAME(max_pool_grad)(const pf_call *call) {
    const pool p = pool_of(call, call->inputs[1], call->inputs[0]);
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
    const real *image = input(p->call, 0);
    vec sum = {0};
    POOL_EACH_PIXEL(v, x) sum += load(image + at, v->lanes);
    store(output(p->call, 0) + y, v->lanes, sum * weight_of(p, v));
}

static void mean_image(void *context, int64_t n) { each_window(context, n, mean); }

/* x (N, ..., C) -> y (N, ..., C): the mean of each window, or its sum */
int CNN_NAME(avg_pool)(const pf_call *call) {
    const pool p = pool_of(call, call->inputs[0], call->outputs[0]);
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
