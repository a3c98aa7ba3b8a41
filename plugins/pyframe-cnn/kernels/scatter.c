/* Transposed convolutions of small images to few channels.
 *
 * As a product with a column for each channel of the result, most lanes of a vector would be idle.
 * Here the product has a column for each tap and channel: terms[o, t, c] = x[o] . weight[t, c] is
 * what pixel o of x gives to pixel o stride + t dilation - low of the result, which adds up what it
 * is given. */
#include "epilogue.h"
#include "vector.h"

enum {
    FEW_CHANNELS = 8,
    MANY_TERMS = 1 << 17, /* of an image: no more, for they are to stay in the cache */
    PARTS = 8,
    TERMS_PER_NANOSECOND = 40
};

/* The terms that reach an output along one axis: `count` of them, `step` apart. */
typedef struct {
    int64_t first, count, step;
} reach;

typedef struct {
    const pf_call *call;
    const pf_gemm_functions *gemm;
    images x, y;
    weights_shape w;
    int64_t columns; /* taps x channels */
    const real *packed, *bias, *saved;
    reach *reach[AXES]; /* for each output along an axis */
    real *terms;
    int64_t parts;
} scattering;

static int64_t columns_of(const weights_shape *w) {
    return w->kernel[0] * w->kernel[1] * w->kernel[2] * w->channels;
}

int CNN_NAME(scatters)(const conv_attributes *attributes, const weights_shape *w, const images *x) {
    return attributes->groups == 1 && w->channels <= FEW_CHANNELS &&
           pixels_of(x) * columns_of(w) <= MANY_TERMS;
}

/* What reaches output o of an axis, along which pixels of x and taps are `pixel` and `tap` elements
 * apart: the taps t for which stride divides o + low - t dilation. */
static reach reach_of(const conv_attributes *attributes, int axis, int64_t o, int64_t kernel,
                      int64_t extent, int64_t pixel, int64_t tap) {
    const int64_t stride = attributes->stride[axis], dilation = attributes->dilation[axis];
    const int64_t at = o + attributes->low[axis];
    reach r = {0, 0, 0};
    for (int64_t t = 0; t < kernel && t * dilation <= at; t++) {
        const int64_t from = at - t * dilation;
        if (from % stride != 0 || from / stride >= extent) continue;
        const int64_t place = from / stride * pixel + t * tap;
        if (r.count == 0) r.first = place;
        if (r.count == 1) r.step = place - r.first;
        r.count++;
    }
    return r;
}

/* The sum of all terms that reach output (d, h, w), LANES of its channels at most. */
static inline vec sum_of(const real *terms, const reach *d, const reach *h, const reach *w,
                         part lanes) {
    vec sum = {0};
    for (int64_t i = 0; i < d->count; i++)
        for (int64_t j = 0; j < h->count; j++) {
            const real *from = terms + d->first + i * d->step + h->first + j * h->step + w->first;
            for (int64_t k = 0; k < w->count; k++, from += w->step) sum += load(from, lanes);
        }
    return sum;
}

static void scatter_image(const scattering *s, int64_t n, real *terms) {
    const int64_t *size = s->y.size, channels = s->y.channels, filters = s->w.filters;
    const pf_gemm g = {.size = sizeof g,
                       .m = pixels_of(&s->x),
                       .n = s->columns,
                       .k = filters,
                       .a = input(s->call, 0) + n * image_elements(&s->x),
                       .a_row = filters,
                       .a_step = 1,
                       .b = s->packed,
                       .b_packed = 1,
                       .c = terms,
                       .c_row = s->columns};
    s->gemm->run(&g);
    const int64_t at = n * image_elements(&s->y);
    real *image = output(s->call, 0) + at, *y = image;
    for (int64_t d = 0; d < size[0]; d++)
        for (int64_t h = 0; h < size[1]; h++)
            for (int64_t w = 0; w < size[2]; w++, y += channels)
                for (int64_t c = 0; c < channels; c += LANES) {
                    const part lanes = first_lanes(channels - c);
                    vec sum =
                        sum_of(terms + c, &s->reach[0][d], &s->reach[1][h], &s->reach[2][w], lanes);
                    if (s->bias) sum += load(s->bias + c, lanes);
                    store(y + c, lanes, sum);
                }
    finish(s->call, image, s->saved ? s->saved + at : NULL, image_elements(&s->y));
}

static void scatter_part(void *context, int64_t part_index) {
    const scattering *s = context;
    real *terms = s->terms + part_index * pixels_of(&s->x) * s->columns;
    const int64_t end = s->x.count * (part_index + 1) / s->parts;
    for (int64_t n = s->x.count * part_index / s->parts; n < end; n++) scatter_image(s, n, terms);
}

/* Fills the tables of what reaches each output; 0 without the memory for them. */
static int find_reaches(scattering *s, arena *scratch) {
    int64_t pixel = s->columns, tap = s->w.channels;
    for (int axis = AXES - 1; axis >= 0; axis--) {
        s->reach[axis] = take(scratch, s->y.size[axis] * (int64_t)sizeof(reach));
        if (!s->reach[axis]) return 0;
        for (int64_t o = 0; o < s->y.size[axis]; o++)
            s->reach[axis][o] = reach_of(s->call->attributes, axis, o, s->w.kernel[axis],
                                         s->x.size[axis], pixel, tap);
        pixel *= s->x.size[axis];
        tap *= s->w.kernel[axis];
    }
    return 1;
}

int CNN_NAME(scatter)(const pf_call *call, const real *bias, const real *saved) {
    scattering s = {.call = call,
                    .gemm = call->host->gemm(CNN_BITS),
                    .x = images_of(call->inputs[0]),
                    .y = images_of(call->outputs[0]),
                    .w = weights_of(call->inputs[1]),
                    .bias = bias,
                    .saved = saved};
    s.columns = columns_of(&s.w);
    s.parts = min_of(s.x.count, PARTS);
    const int64_t filters = s.w.filters;
    const pf_gemm weights = {.size = sizeof weights,
                             .n = s.columns,
                             .k = filters,
                             .b = input(call, 1), /* (taps channels, F) */
                             .b_row = filters,
                             .b_transposed = 1};
    arena scratch = arena_of(call);
    real *packed = take(&scratch, s.gemm->packed_size(&weights) * (int64_t)sizeof(real));
    s.terms = take(&scratch, s.parts * pixels_of(&s.x) * s.columns * (int64_t)sizeof(real));
    if (!packed || !s.terms || !find_reaches(&s, &scratch)) return out_of_scratch(call);
    if (s.columns > 0 && filters > 0) s.gemm->pack(&weights, packed);
    s.packed = packed;
    const int64_t products = s.x.count * pixels_of(&s.x) * s.columns * filters;
    call->host->parallel_for(s.parts, products / TERMS_PER_NANOSECOND, scatter_part, &s);
    return PF_OK;
}
