/* The geometry of convolutions. */
#ifndef PYFRAME_CNN_CONV_H
#define PYFRAME_CNN_CONV_H

#include "cnn.h"

/* Of every kernel of the family; what an axis that is not there has is 1, 1 and 0. */
typedef struct {
    int64_t stride[AXES], dilation[AXES];
    int64_t
        low[AXES]; /* zeros in front of the image; how many are behind follows from the shapes */
    int64_t groups;
    int64_t activation; /* enum pf_activation */
    double slope;       /* of the leaky relu */
    int64_t winograd;   /* the extent of the tiles by which winograd.h is to do it, or 0 */
} conv_attributes;

/* The weights of a convolution: (KD, KH, KW, channels / groups, filters). */
typedef struct {
    int64_t kernel[AXES], channels, filters; /* channels: of one group */
} weights_shape;

static inline weights_shape weights_of(const pf_operand *t) {
    weights_shape w = {{1, 1, 1}, t->dims[t->ndim - 2], t->dims[t->ndim - 1]};
    for (int axis = 0; axis + 2 < t->ndim; axis++)
        w.kernel[axis + AXES + 2 - t->ndim] = t->dims[axis];
    return w;
}

/* One axis of a sum over taps: output q reads, with tap j, the source at q step + first + j by.
 * Outside of the source there are zeros. */
typedef struct {
    int64_t outputs, step, first;
    int64_t taps, by;                /* by > 0 */
    int64_t extent;                  /* of the source */
    int64_t weight_first, weight_by; /* tap j is number weight_first + j weight_by of the kernel */
    int64_t output_first, output_by; /* and output q is number output_first + q output_by */
} tap_axis;

/* The zeros that are missing in front of and behind the source. */
static inline int64_t zeros_before(const tap_axis *a) { return a->first < 0 ? -a->first : 0; }
static inline int64_t zeros_behind(const tap_axis *a) {
    return max_of((a->outputs - 1) * a->step + a->first + (a->taps - 1) * a->by + 1 - a->extent, 0);
}

/* y[o] = sum_t x[o stride + t dilation - low] w[t] */
static inline tap_axis convolution_axis(const conv_attributes *attributes, int axis,
                                        int64_t outputs, int64_t kernel, int64_t extent) {
    return (tap_axis){.outputs = outputs,
                      .step = attributes->stride[axis],
                      .first = -attributes->low[axis],
                      .taps = kernel,
                      .by = attributes->dilation[axis],
                      .extent = extent,
                      .weight_by = 1,
                      .output_by = 1};
}

/* Images with zeros around them: `to` has the extents size + before + behind. Parallel over images.
 * `behind` may be negative: then what is there is left out. */
typedef struct {
    const real *from;
    real *to;
    images size;
    int64_t before[AXES], padded[AXES];
} padding;

void CNN_NAME(pad)(const pf_call *call, const padding *p);

/* Depthwise: as many groups as channels. */
int CNN_NAME(depthwise)(const pf_call *call);
int CNN_NAME(depthwise_transpose)(const pf_call *call, const real *bias, const real *saved);
int CNN_NAME(depthwise_weight_grad)(const pf_call *call);

/* Convolutions of few channels to few filters. */
int CNN_NAME(is_few)(const conv_attributes *attributes, const weights_shape *w);
int CNN_NAME(few_filters)(const pf_call *call);

/* Transposed convolutions of small images to few channels. */
int CNN_NAME(scatters)(const conv_attributes *attributes, const weights_shape *w, const images *x);
int CNN_NAME(scatter)(const pf_call *call, const real *bias, const real *saved);

/* 3 x 3 taps, by tiles of outputs; CNN_NOT_FINITE: the result is not to be relied on. */
enum { CNN_NOT_FINITE = -1 };
int CNN_NAME(winograd2)(const pf_call *call, const images *x, const images *y, int transposed,
                        const real *bias, const real *saved);
int CNN_NAME(winograd4)(const pf_call *call, const images *x, const images *y, int transposed,
                        const real *bias, const real *saved);
int CNN_NAME(winograd_weight_grad2)(const pf_call *call, const images *x, const images *dy);
int CNN_NAME(winograd_weight_grad4)(const pf_call *call, const images *x, const images *dy);
/* The one of them for tiles of some extent; doubles have none but 2. */
#if CNN_BITS == 32
#define CNN_BY_TILES(name, extent) ((extent) == 4 ? CNN_NAME(name##4) : CNN_NAME(name##2))
#else
#define CNN_BY_TILES(name, extent) CNN_NAME(name##2)
#endif

/* sum (F,) = the sum over all rows of y (rows, F) */
void CNN_NAME(sum_rows)(const pf_call *call, const real *y, int64_t rows, int64_t filters,
                        real *sum);

#endif
