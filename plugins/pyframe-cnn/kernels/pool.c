/* Pools: the largest, or the mean, of each channel within a window. */
#include "conv.h"

typedef struct {
    int64_t window[AXES], stride[AXES];
    int64_t low[AXES]; /* what the first window sticks out in front of the image */
    int64_t adaptive;  /* windows that share the image evenly, instead of these */
    int64_t divide;    /* mean instead of sum: over what of the window lies in the image */
} pool_attributes;

typedef struct {
    const pf_call *call;
    const pool_attributes *attributes;
    images x, y;
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

static inline int64_t length(range r) { return r.end - r.first; }

/* `loop` for each pixel of the window, x being its channels. */
#define POOL_EACH_PIXEL(p, image, d, h, w, x, ...)                                              \
    for (int64_t at_d = (d).first; at_d < (d).end; at_d++)                                      \
        for (int64_t at_h = (h).first; at_h < (h).end; at_h++)                                  \
            for (int64_t at_w = (w).first; at_w < (w).end; at_w++) {                            \
                x = (image) +                                                                   \
                    ((at_d * (p)->x.size[1] + at_h) * (p)->x.size[2] + at_w) * (p)->x.channels; \
                __VA_ARGS__                                                                     \
            }

/* `body` for each output pixel q of image n, with its ranges d, h, w. */
#define POOL_EACH_OUTPUT(p, ...)                                   \
    for (int64_t qd = 0, q = 0; qd < (p)->y.size[0]; qd++) {       \
        const range d = range_of(p, 0, qd);                        \
        for (int64_t qh = 0; qh < (p)->y.size[1]; qh++) {          \
            const range h = range_of(p, 1, qh);                    \
            for (int64_t qw = 0; qw < (p)->y.size[2]; qw++, q++) { \
                const range w = range_of(p, 2, qw);                \
                __VA_ARGS__                                        \
            }                                                      \
        }                                                          \
    }

static void in_images(const pool *p, pf_body body) {
    const int64_t *window = p->attributes->window;
    const int64_t read = p->attributes->adaptive
                             ? image_elements(&p->x)
                             : image_elements(&p->y) * window[0] * window[1] * window[2];
    p->call->host->parallel_for(p->x.count, p->x.count * read / 8, body, (void *)p);
}

/* ---- the largest ---- */

static void max_image(void *context, int64_t n) {
    const pool *p = context;
    const int64_t channels = p->x.channels;
    const real *image = input(p->call, 0) + n * image_elements(&p->x), *x;
    real *y = output(p->call, 0) + n * image_elements(&p->y);
    POOL_EACH_OUTPUT(p, {
        real *to = y + q * channels;
        int first = 1;
        POOL_EACH_PIXEL(p, image, d, h, w, x, {
            if (first)
                memcpy(to, x, (size_t)channels * sizeof(real));
            else
                CNN_INDEPENDENT
            for (int64_t c = 0; c < channels; c++) /* NaN stays, and comes */
                to[c] = to[c] >= x[c] || to[c] != to[c] ? to[c] : x[c];
            first = 0;
        })
    })
}

/* x (N, ..., C) -> y (N, ..., C): the largest number of each window */
int CNN_NAME(max_pool)(const pf_call *call) {
    const pool p = {call, call->attributes, images_of(call->inputs[0]),
                    images_of(call->outputs[0])};
    in_images(&p, max_image);
    return PF_OK;
}

static void max_grad_image(void *context, int64_t n) {
    const pool *p = context;
    const int64_t channels = p->x.channels, at = n * image_elements(&p->x);
    const real *dy = input(p->call, 0) + n * image_elements(&p->y), *x;
    const real *image = input(p->call, 1) + at, *y = input(p->call, 2) + n * image_elements(&p->y);
    real *dx = output(p->call, 0) + at;
    memset(dx, 0, (size_t)image_elements(&p->x) * sizeof(real));
    POOL_EACH_OUTPUT(p, {
        for (int64_t from = 0; from < channels; from += CHUNK) {
            const int64_t count = min_of(CHUNK, channels - from);
            const real *largest = y + q * channels + from;
            real left[CHUNK]; /* what has found no place yet */
            memcpy(left, dy + q * channels + from, (size_t)count * sizeof(real));
            POOL_EACH_PIXEL(p, image, d, h, w, x, {
                const real *value = x + from;
                real *to = dx + (x - image) + from;
                CNN_INDEPENDENT
                for (int64_t c = 0; c < count; c++) {
                    const int here = value[c] == largest[c] || value[c] != value[c];
                    to[c] += here ? left[c] : 0;
                    left[c] = here ? 0 : left[c];
                }
            })
        }
    })
}

/* dy, x, y = max_pool(x) -> dx: each dy goes to the first place of its window where x = y */
int CNN_NAME(max_pool_grad)(const pf_call *call) {
    const pool p = {call, call->attributes, images_of(call->inputs[1]), images_of(call->inputs[0])};
    in_images(&p, max_grad_image);
    return PF_OK;
}

/* ---- the mean ---- */

static inline real weight_of(const pool *p, range d, range h, range w) {
    return p->attributes->divide ? (real)1 / (real)(length(d) * length(h) * length(w)) : (real)1;
}

static void mean_image(void *context, int64_t n) {
    const pool *p = context;
    const int64_t channels = p->x.channels;
    const real *image = input(p->call, 0) + n * image_elements(&p->x), *x;
    real *y = output(p->call, 0) + n * image_elements(&p->y);
    POOL_EACH_OUTPUT(p, {
        const real weight = weight_of(p, d, h, w);
        for (int64_t from = 0; from < channels; from += CHUNK) {
            const int64_t count = min_of(CHUNK, channels - from);
            real sum[CHUNK] = {0};
            POOL_EACH_PIXEL(p, image, d, h, w, x,
                            for (int64_t c = 0; c < count; c++) sum[c] += x[from + c];)
            real *to = y + q * channels + from;
            for (int64_t c = 0; c < count; c++) to[c] = weight * sum[c];
        }
    })
}

/* x (N, ..., C) -> y (N, ..., C): the mean of each window, or its sum */
int CNN_NAME(avg_pool)(const pf_call *call) {
    const pool p = {call, call->attributes, images_of(call->inputs[0]),
                    images_of(call->outputs[0])};
    in_images(&p, mean_image);
    return PF_OK;
}

static void mean_grad_image(void *context, int64_t n) {
    const pool *p = context;
    const int64_t channels = p->x.channels;
    const real *dy = input(p->call, 0) + n * image_elements(&p->y);
    real *dx = output(p->call, 0) + n * image_elements(&p->x), *x;
    memset(dx, 0, (size_t)image_elements(&p->x) * sizeof(real));
    POOL_EACH_OUTPUT(p, {
        const real weight = weight_of(p, d, h, w), *from = dy + q * channels;
        POOL_EACH_PIXEL(p, dx, d, h, w, x, {
            CNN_INDEPENDENT
            for (int64_t c = 0; c < channels; c++) x[c] += weight * from[c];
        })
    })
}

/* dy, [x: its shape] -> dx: each dy is shared by the pixels of its window */
int CNN_NAME(avg_pool_grad)(const pf_call *call) {
    const pool p = {call, call->attributes, images_of(call->outputs[0]),
                    images_of(call->inputs[0])};
    in_images(&p, mean_grad_image);
    return PF_OK;
}
