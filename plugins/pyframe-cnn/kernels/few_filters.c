/* Convolutions of few channels to few filters, as the first layer of a small network is.
 *
 * As a product with a column for each filter, most lanes of a wide vector would be idle. Here a
 * vector holds neighbouring pixels of one filter: the channels of an image are copied into planes
 * with zeros around them, in which neighbours lie side by side, and the sums are brought back into
 * the order of channels when they are stored. With narrower vectors than those of AVX-512 the
 * product is as good. */
#include "epilogue.h"
#include "vector.h"

enum {
    FEW_FILTERS = 8,
    FEW_CHANNELS = 4,
    PARTS = 8,
    VECTORS = 2, /* of pixels, at once */
    TERMS_PER_NANOSECOND = 30
};

#if defined(__AVX512F__) && CNN_BITS == 32

typedef struct {
    const pf_call *call;
    const conv_attributes *attributes;
    images x, y;
    weights_shape w;
    int64_t before[AXES], padded[AXES], plane; /* plane: elements of one channel's */
    real *planes;
    int64_t parts;
    /* lane i of vector v, of the filters in their order, is pixel from[v][i] of that filter for
     * which takes[v][filter] has bit i */
    __m512i from[FEW_FILTERS];
    __mmask16 takes[FEW_FILTERS][FEW_FILTERS];
} few;

int CNN_NAME(is_few)(const conv_attributes *attributes, const weights_shape *w) {
    return attributes->groups == 1 && attributes->stride[2] == 1 && w->filters > 0 &&
           w->filters <= FEW_FILTERS && w->channels > 0 && w->channels <= FEW_CHANNELS;
}

/* planes[c][d][h][w] = image[d][h][w][c], with zeros around */
static void fill_planes(const few *s, const real *image, real *planes) {
    const int64_t *size = s->x.size, channels = s->x.channels;
    for (int64_t c = 0; c < channels; c++) {
        real *plane = planes + c * s->plane;
        memset(plane, 0, (size_t)s->plane * sizeof(real));
        const real *from = image + c;
        for (int64_t d = 0; d < size[0]; d++)
            for (int64_t h = 0; h < size[1]; h++) {
                real *to = plane +
                           ((d + s->before[0]) * s->padded[1] + h + s->before[1]) * s->padded[2] +
                           s->before[2];
                for (int64_t w = 0; w < size[2]; w++, from += channels) to[w] = *from;
            }
    }
}

/* The sums of a stretch of pixels, brought into the order of channels. */
__attribute__((always_inline)) static inline void put(const few *s, const int filters, const int at,
                                                      int64_t left, vec sum[][VECTORS], real *y) {
    const int64_t elements = (left < LANES ? left : LANES) * filters;
    for (int v = 0; v < filters && v * LANES < elements; v++) {
        __m512 out = _mm512_permutexvar_ps(s->from[v], (__m512)sum[0][at]);
        for (int f = 1; f < filters; f++)
            out = _mm512_mask_permutexvar_ps(out, s->takes[v][f], s->from[v], (__m512)sum[f][at]);
        store(y + v * LANES, first_lanes(elements - v * LANES), (vec)out);
    }
}

/* `vectors` vectors of pixels from x on, the first one a tap sees. */
__attribute__((always_inline)) static inline void stretch(const few *s, const int filters,
                                                          const int vectors, const real *x,
                                                          int64_t left, real *y) {
    const int64_t *kernel = s->w.kernel, *by = s->attributes->dilation;
    const real *w = input(s->call, 1), *bias = input(s->call, 2);
    vec sum[FEW_FILTERS][VECTORS];
    for (int f = 0; f < filters; f++)
        for (int v = 0; v < vectors; v++) sum[f][v] = splat(bias ? bias[f] : 0);
    for (int64_t td = 0; td < kernel[0]; td++)
        for (int64_t th = 0; th < kernel[1]; th++) {
            const real *line = x + (td * by[0] * s->padded[1] + th * by[1]) * s->padded[2];
            for (int64_t tw = 0; tw < kernel[2]; tw++, line += by[2])
                for (int64_t c = 0; c < s->w.channels; c++, w += filters) {
                    vec pixels[VECTORS];
                    for (int v = 0; v < vectors; v++)
                        pixels[v] = *(const vec *)(line + c * s->plane + v * LANES);
                    for (int f = 0; f < filters; f++)
                        for (int v = 0; v < vectors; v++) sum[f][v] += pixels[v] * w[f];
                }
        }
    for (int v = 0; v < vectors; v++)
        put(s, filters, v, left - v * LANES, sum, y + v * LANES * filters);
}

__attribute__((always_inline)) static inline void image_of(const few *s, const int filters,
                                                           const real *planes, real *y) {
    const int64_t *outputs = s->y.size, *stride = s->attributes->stride;
    for (int64_t d = 0; d < outputs[0]; d++)
        for (int64_t h = 0; h < outputs[1]; h++, y += outputs[2] * filters) {
            const real *x = planes + (d * stride[0] * s->padded[1] + h * stride[1]) * s->padded[2];
            for (int64_t w = 0; w < outputs[2]; w += VECTORS * LANES) {
                const int64_t left = outputs[2] - w;
                if (left > LANES)
                    stretch(s, filters, 2, x + w, left, y + w * filters);
                else
                    stretch(s, filters, 1, x + w, left, y + w * filters);
            }
        }
}

#define CNN_FEW(filters)                                                        \
    static void image_of_##filters(const few *s, const real *planes, real *y) { \
        image_of(s, filters, planes, y);                                        \
    }
CNN_FEW(1)
CNN_FEW(2)
CNN_FEW(3)
CNN_FEW(4)
CNN_FEW(5)
CNN_FEW(6)
CNN_FEW(7)
CNN_FEW(8)
static void (*const image_with[])(const few *, const real *, real *) = {
    NULL,       image_of_1, image_of_2, image_of_3, image_of_4,
    image_of_5, image_of_6, image_of_7, image_of_8,
};

static void run_part(void *context, int64_t index) {
    const few *s = context;
    real *planes = s->planes + index * s->x.channels * s->plane;
    const int64_t end = s->x.count * (index + 1) / s->parts;
    for (int64_t n = s->x.count * index / s->parts; n < end; n++) {
        real *y = output(s->call, 0) + n * image_elements(&s->y);
        fill_planes(s, input(s->call, 0) + n * image_elements(&s->x), planes);
        image_with[s->w.filters](s, planes, y);
        finish(s->call, y, NULL, image_elements(&s->y));
    }
}

static void choose_lanes(few *s) {
    const int filters = (int)s->w.filters;
    for (int v = 0; v < filters; v++) {
        int32_t from[LANES];
        for (int f = 0; f < filters; f++) s->takes[v][f] = 0;
        for (int i = 0; i < LANES; i++) {
            const int element = v * LANES + i;
            from[i] = element / filters;
            s->takes[v][element % filters] |= (__mmask16)(1 << i);
        }
        s->from[v] = _mm512_loadu_si512(from);
    }
}

int CNN_NAME(few_filters)(const pf_call *call) {
    few s = {.call = call,
             .attributes = call->attributes,
             .x = images_of(call->inputs[0]),
             .y = images_of(call->outputs[0]),
             .w = weights_of(call->inputs[1])};
    for (int axis = 0; axis < AXES; axis++) {
        const tap_axis a =
            convolution_axis(s.attributes, axis, s.y.size[axis], s.w.kernel[axis], s.x.size[axis]);
        s.before[axis] = zeros_before(&a);
        s.padded[axis] = a.extent + s.before[axis] + zeros_behind(&a);
    }
    /* the last vectors of the last line read on behind it */
    s.plane = s.padded[0] * s.padded[1] * s.padded[2] + VECTORS * LANES;
    s.parts = min_of(s.x.count, PARTS);
    arena scratch = arena_of(call);
    s.planes = take(&scratch, s.parts * s.x.channels * s.plane * (int64_t)sizeof(real));
    if (!s.planes) return out_of_scratch(call);
    choose_lanes(&s);
    const int64_t taps = s.w.kernel[0] * s.w.kernel[1] * s.w.kernel[2];
    const int64_t terms = s.y.count * image_elements(&s.y) * taps * s.w.channels;
    call->host->parallel_for(s.parts, terms / TERMS_PER_NANOSECOND, run_part, &s);
    return PF_OK;
}

#else

int CNN_NAME(is_few)(const conv_attributes *attributes, const weights_shape *w) {
    (void)attributes, (void)w;
    return 0;
}

int CNN_NAME(few_filters)(const pf_call *call) { return out_of_scratch(call); /* never called */ }

#endif
