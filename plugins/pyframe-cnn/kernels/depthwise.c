/* Depthwise convolutions: every channel by itself, with F / C filters for each. There is nothing to
 * multiply as matrices; the loops run over the channels, which lie side by side. */
#include "epilogue.h"

enum { TERMS_PER_NANOSECOND = 8 };

typedef struct {
    const pf_call *call;
    const conv_attributes *attributes;
    images x, y; /* the images and the filtered ones, of channels C and F */
    weights_shape w;
    int64_t each; /* filters of a channel */
    const real *bias, *saved;
} depthwise;

static depthwise depthwise_of(const pf_call *call, const pf_operand *x, const pf_operand *y,
                              const pf_operand *weight) {
    depthwise d = {call, call->attributes, images_of(x), images_of(y), weights_of(weight), 0, NULL,
                   NULL};
    d.each = d.w.filters / d.x.channels;
    return d;
}

/* The taps from `first` to before `end` along an axis are those with which output q sees the
 * image. */
typedef struct {
    int64_t first, end, at; /* at: where tap 0 reads */
} window;

static window window_of(const depthwise *d, int axis, int64_t q) {
    const int64_t by = d->attributes->dilation[axis], extent = d->x.size[axis];
    window v = {.at = q * d->attributes->stride[axis] - d->attributes->low[axis]};
    v.first = v.at < 0 ? ceil_div(-v.at, by) : 0;
    v.end = v.at < extent ? min_of(ceil_div(extent - v.at, by), d->w.kernel[axis]) : 0;
    return v;
}

/* What is done for one tap of one output pixel: y (F,), x (C,) and w (F,) are the places. */
typedef void tap_body(real *y, real *x, real *w, int64_t channels, int64_t each);

/* The body for all taps of the outputs of image n. */
__attribute__((always_inline)) static inline void each_tap(const depthwise *d, int64_t n, real *y,
                                                           real *x, real *w, tap_body *body) {
    const int64_t *size = d->x.size, *kernel = d->w.kernel, *by = d->attributes->dilation;
    x += n * image_elements(&d->x);
    y += n * image_elements(&d->y);
    for (int64_t qd = 0; qd < d->y.size[0]; qd++) {
        const window vd = window_of(d, 0, qd);
        for (int64_t qh = 0; qh < d->y.size[1]; qh++) {
            const window vh = window_of(d, 1, qh);
            for (int64_t qw = 0; qw < d->y.size[2]; qw++, y += d->y.channels) {
                const window vw = window_of(d, 2, qw);
                for (int64_t td = vd.first; td < vd.end; td++)
                    for (int64_t th = vh.first; th < vh.end; th++)
                        for (int64_t tw = vw.first; tw < vw.end; tw++) {
                            const int64_t plane = vd.at + td * by[0], line = vh.at + th * by[1];
                            const int64_t pixel =
                                (plane * size[1] + line) * size[2] + vw.at + tw * by[2];
                            const int64_t tap = (td * kernel[1] + th) * kernel[2] + tw;
                            body(y, x + pixel * d->x.channels, w + tap * d->w.filters,
                                 d->x.channels, d->each);
                        }
            }
        }
    }
}

/* Loops over (channel, filter), the frequent case of one filter a channel as vectors. */
#define DEPTHWISE_LOOP(with_one, with_each)                                \
    if (each == 1) {                                                       \
        CNN_INDEPENDENT                                                    \
        for (int64_t c = 0; c < channels; c++) with_one;                   \
    } else {                                                               \
        for (int64_t c = 0; c < channels; c++)                             \
            for (int64_t i = c * each; i < (c + 1) * each; i++) with_each; \
    }

static inline void filter(real *y, real *x, real *w, int64_t channels, int64_t each) {
    DEPTHWISE_LOOP(y[c] += x[c] * w[c], y[i] += x[c] * w[i])
}
static inline void spread(real *y, real *x, real *w, int64_t channels, int64_t each) {
    DEPTHWISE_LOOP(x[c] += y[c] * w[c], x[c] += y[i] * w[i])
}
static inline void weigh(real *y, real *x, real *w, int64_t channels, int64_t each) {
    DEPTHWISE_LOOP(w[c] += x[c] * y[c], w[i] += x[c] * y[i])
}

static void in_images(const depthwise *d, pf_body body) {
    const int64_t taps = d->w.kernel[0] * d->w.kernel[1] * d->w.kernel[2];
    const int64_t terms = d->y.count * image_elements(&d->y) * taps;
    d->call->host->parallel_for(d->y.count, terms / TERMS_PER_NANOSECOND, body, (void *)d);
}

/* ---- the kernels ---- */

static void forward_image(void *context, int64_t n) {
    const depthwise *d = context;
    real *y = output(d->call, 0), *own = y + n * image_elements(&d->y);
    start(own, d->bias, pixels_of(&d->y), d->y.channels);
    each_tap(d, n, y, (real *)input(d->call, 0), (real *)input(d->call, 1), filter);
    finish(d->call, own, NULL, image_elements(&d->y));
}

int CNN_NAME(depthwise)(const pf_call *call) {
    depthwise d = depthwise_of(call, call->inputs[0], call->outputs[0], call->inputs[1]);
    d.bias = input(call, 2);
    in_images(&d, forward_image);
    return PF_OK;
}

static void transpose_image(void *context, int64_t n) {
    const depthwise *d = context;
    const int64_t at = n * image_elements(&d->x);
    real *x = output(d->call, 0);
    start(x + at, d->bias, pixels_of(&d->x), d->x.channels);
    each_tap(d, n, (real *)input(d->call, 0), x, (real *)input(d->call, 1), spread);
    finish(d->call, x + at, d->saved ? d->saved + at : NULL, image_elements(&d->x));
}

int CNN_NAME(depthwise_transpose)(const pf_call *call, const real *bias, const real *saved) {
    depthwise d = depthwise_of(call, call->outputs[0], call->inputs[0], call->inputs[1]);
    d.bias = bias, d.saved = saved;
    in_images(&d, transpose_image);
    return PF_OK;
}

static void weight_image(void *context, int64_t n) {
    const depthwise *d = context;
    const int64_t size = d->w.kernel[0] * d->w.kernel[1] * d->w.kernel[2] * d->w.filters;
    real *own = (real *)d->call->scratch + n * size;
    memset(own, 0, (size_t)size * sizeof(real));
    each_tap(d, n, (real *)input(d->call, 0), (real *)input(d->call, 1), own, weigh);
}

/* Each image leaves its sum in scratch memory; these are added up in their order. */
int CNN_NAME(depthwise_weight_grad)(const pf_call *call) {
    const depthwise d = depthwise_of(call, call->inputs[1], call->inputs[0], call->outputs[0]);
    const int64_t size = d.w.kernel[0] * d.w.kernel[1] * d.w.kernel[2] * d.w.filters;
    if ((uint64_t)(d.y.count * size) * sizeof(real) > call->scratch_size)
        return out_of_scratch(call);
    in_images(&d, weight_image);
    real *dweight = output(call, 0);
    memset(dweight, 0, (size_t)size * sizeof(real));
    for (int64_t n = 0; n < d.y.count; n++) {
        const real *own = (const real *)call->scratch + n * size;
        for (int64_t i = 0; i < size; i++) dweight[i] += own[i];
    }
    return PF_OK;
}
