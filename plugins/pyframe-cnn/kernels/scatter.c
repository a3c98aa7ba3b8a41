/* Transposed convolutions of small images to few channels.
 *
 * As a product with a column for each channel of the result, most lanes of a vector would be idle.
 * Here there is a product for each line of the result, with a row for each pixel ow of the lines of
 * x that reach it and a column for each tap along the line and channel:
 *
 *     terms[ow, (tw, c)] = sum over lines h and filters f of x[h, ow, f] weight[th(h), tw, c, f]
 *
 * is what pixels ow give to pixel ow stride + tw dilation - low of the line, which adds up what it
 * is given. Several images are taken at once. */
#include "epilogue.h"
#include "vector.h"

enum {
    FEW_CHANNELS = 8,
    MANY_TERMS = 1 << 17, /* of an image, if each tap had its own */
    ROWS = 32,            /* of a product: x, weights and terms are to stay in the L1 cache */
    PARTS = 8,
    TERMS_PER_NANOSECOND = 40
};

/* All channels of a pixel, and what follows them in memory. */
typedef real pixel
    __attribute__((vector_size(FEW_CHANNELS * sizeof(real)), aligned(sizeof(real)), may_alias));

/* The terms that reach a pixel of a line: `count` of them, `step` apart. */
typedef struct {
    int64_t first, count, step;
} reach;

/* The taps that reach a line: `count` of them, side by side in the packed weights. */
typedef struct {
    int64_t first, count;
} stretch;

typedef struct {
    const pf_call *call;
    const pf_gemm_functions *gemm;
    images x, y;
    weights_shape w;
    int64_t columns; /* taps of a line x channels, filled up to whole vectors */
    const real *bias, *saved;
    real *packed;       /* weights (KD, KH, F, columns), the KH in the order of place_of */
    stretch *stretches; /* for each line of a plane of y, ... */
    const real **lines; /* ... and the KH or less lines of a plane of x that they read */
    reach *reaches;     /* for each pixel of a line of y */
    /* What each part has of its own: */
    real *x_lines; /* x of `together` images, (D, H, together, W, F) */
    real *terms;   /* (together, W, columns), and a pixel more that is read */
    int64_t parts, together, part_x, part_terms;
} scattering;

int CNN_NAME(scatters)(const conv_attributes *attributes, const weights_shape *w, const images *x) {
    return attributes->groups == 1 && w->channels <= FEW_CHANNELS &&
           pixels_of(x) * w->kernel[0] * w->kernel[1] * w->kernel[2] * w->channels <= MANY_TERMS;
}

/* The number of the pixel along an axis of x that tap t brings to output o; -1: there is none. */
static int64_t giver(const scattering *s, int axis, int64_t o, int64_t t) {
    const conv_attributes *a = s->call->attributes;
    const int64_t at = o + a->low[axis] - t * a->dilation[axis], stride = a->stride[axis];
    return at >= 0 && at % stride == 0 && at / stride < s->x.size[axis] ? at / stride : -1;
}

/* The place of tap t of axis 1. Taps that reach the same outputs are those whose dilated distance
 * leaves the same rest when divided by the stride: sorted by it, they lie side by side. */
static int64_t place_of(const scattering *s, int64_t t) {
    const conv_attributes *a = s->call->attributes;
    const int64_t rest = t * a->dilation[1] % a->stride[1];
    int64_t place = 0;
    for (int64_t u = 0; u < s->w.kernel[1]; u++) {
        const int64_t other = u * a->dilation[1] % a->stride[1];
        place += other < rest || (other == rest && u < t);
    }
    return place;
}

/* packed[td, place of th, f, (tw, c)] = weight[td, th, tw, c, f], and zeros behind */
static void pack_weights(const scattering *s) {
    const int64_t filters = s->w.filters, given = s->w.kernel[2] * s->w.channels;
    const real *weight = input(s->call, 1);
    for (int64_t td = 0; td < s->w.kernel[0]; td++)
        for (int64_t th = 0; th < s->w.kernel[1]; th++, weight += given * filters) {
            real *to = s->packed + (td * s->w.kernel[1] + place_of(s, th)) * filters * s->columns;
            for (int64_t f = 0; f < filters; f++, to += s->columns) {
                for (int64_t j = 0; j < given; j++) to[j] = weight[j * filters + f];
                for (int64_t j = given; j < s->columns; j++) to[j] = 0;
            }
        }
}

/* Finds out what reaches each line and pixel. */
static void fill_tables(const scattering *s) {
    const int64_t line = s->together * s->x.size[2] * s->w.filters;
    for (int64_t h = 0; h < s->y.size[1]; h++) {
        stretch taps = {0, 0};
        for (int64_t t = 0; t < s->w.kernel[1]; t++) {
            const int64_t from = giver(s, 1, h, t);
            if (from < 0) continue;
            if (taps.count == 0) taps.first = place_of(s, t);
            s->lines[h * s->w.kernel[1] + taps.count++] = s->x_lines + from * line;
        }
        s->stretches[h] = taps;
    }
    for (int64_t w = 0; w < s->y.size[2]; w++) {
        reach r = {0, 0, 0};
        for (int64_t t = 0; t < s->w.kernel[2]; t++) {
            const int64_t from = giver(s, 2, w, t), place = from * s->columns + t * s->w.channels;
            if (from < 0) continue;
            if (r.count == 0) r.first = place;
            if (r.count == 1) r.step = place - r.first;
            r.count++;
        }
        s->reaches[w] = r;
    }
}

/* x_lines (D, H, together, W, F) of `count` images */
static void take_lines(const scattering *s, int64_t image, int64_t count, real *x_lines) {
    const int64_t line = s->x.size[2] * s->w.filters, lines = s->x.size[0] * s->x.size[1];
    const real *x = input(s->call, 0) + image * lines * line;
    for (int64_t n = 0; n < count; n++)
        for (int64_t h = 0; h < lines; h++, x += line)
            memcpy(x_lines + (h * s->together + n) * line, x, (size_t)line * sizeof(real));
}

/* The terms of line h of plane d, for `count` images whose x is part number `index`. */
static void multiply(const scattering *s, int64_t d, int64_t h, int64_t count, int64_t index,
                     real *terms) {
    const stretch taps = s->stretches[h];
    const int64_t filters = s->w.filters, plane = s->part_x / max_of(s->x.size[0], 1);
    pf_gemm g = {.size = sizeof g,
                 .m = count * s->x.size[2],
                 .n = s->columns,
                 .k = taps.count * filters,
                 .a_rows = (const void *const *)(s->lines + h * s->w.kernel[1]),
                 .a_rows_shared = 1,
                 .a_row = filters,
                 .a_step = 1,
                 .taps = taps.count,
                 .b_row = s->columns,
                 .c = terms,
                 .c_row = s->columns};
    for (int64_t td = 0; td < s->w.kernel[0] && taps.count > 0; td++) {
        const int64_t from = giver(s, 0, d, td);
        if (from < 0) continue;
        g.a_offset = index * s->part_x + from * plane;
        g.b = s->packed + (td * s->w.kernel[1] + taps.first) * filters * s->columns;
        s->gemm->run(&g);
        g.accumulate = 1;
    }
    if (!g.accumulate) memset(terms, 0, (size_t)(g.m * g.n) * sizeof(real));
}

/* A line of y, of an image with `left` elements from there on. */
static void add_up(const scattering *s, const real *terms, real *y, int64_t left) {
    const int64_t channels = s->y.channels;
    pixel bias = {0};
    for (int64_t c = 0; c < channels && s->bias; c++) bias[c] = s->bias[c];
    for (int64_t w = 0; w < s->y.size[2]; w++, y += channels, left -= channels) {
        const reach r = s->reaches[w];
        const real *from = terms + r.first;
        pixel sum = bias;
        for (int64_t i = 0; i < r.count; i++, from += r.step) sum += *(const pixel *)from;
        if (left >= FEW_CHANNELS) /* what is stored behind this pixel is overwritten by the next */
            *(pixel *)y = sum;
        else
            for (int64_t c = 0; c < channels; c++) y[c] = sum[c];
    }
}

static void scatter_images(const scattering *s, int64_t image, int64_t count, int64_t index) {
    const int64_t size = image_elements(&s->y), line = s->y.size[2] * s->y.channels;
    real *terms = s->terms + index * s->part_terms, *y = output(s->call, 0) + image * size;
    take_lines(s, image, count, s->x_lines + index * s->part_x);
    for (int64_t d = 0; d < s->y.size[0]; d++)
        for (int64_t h = 0; h < s->y.size[1]; h++) {
            const int64_t at = (d * s->y.size[1] + h) * line;
            multiply(s, d, h, count, index, terms);
            for (int64_t n = 0; n < count; n++)
                add_up(s, terms + n * s->x.size[2] * s->columns, y + n * size + at, size - at);
        }
    finish(s->call, y, s->saved ? s->saved + image * size : NULL, count * size);
}

static void scatter_part(void *context, int64_t index) {
    const scattering *s = context;
    const int64_t end = s->x.count * (index + 1) / s->parts;
    for (int64_t n = s->x.count * index / s->parts; n < end; n += s->together)
        scatter_images(s, n, min_of(s->together, end - n), index);
}

/* Hands out the scratch memory; 0 if there is too little. See `_scatter_scratch` in
 * conv_grad.py. */
static int take_memory(scattering *s) {
    const int64_t *kernel = s->w.kernel, *y = s->y.size, real_size = sizeof(real);
    arena scratch = arena_of(s->call);
    s->packed = take(&scratch, kernel[0] * kernel[1] * s->w.filters * s->columns * real_size);
    s->x_lines = take(&scratch, s->parts * s->part_x * real_size);
    s->terms = take(&scratch, s->parts * s->part_terms * real_size);
    s->stretches = take(&scratch, y[1] * (int64_t)sizeof(stretch));
    s->lines = take(&scratch, y[1] * kernel[1] * (int64_t)sizeof(real *));
    s->reaches = take(&scratch, y[2] * (int64_t)sizeof(reach));
    return s->packed && s->x_lines && s->terms && s->stretches && s->lines && s->reaches;
}

int CNN_NAME(scatter)(const pf_call *call, const real *bias, const real *saved) {
    scattering s = {.call = call,
                    .gemm = call->host->gemm(CNN_BITS),
                    .x = images_of(call->inputs[0]),
                    .y = images_of(call->outputs[0]),
                    .w = weights_of(call->inputs[1]),
                    .bias = bias,
                    .saved = saved};
    if (s.x.count == 0) return PF_OK;
    s.columns = ceil_div(s.w.kernel[2] * s.w.channels, LANES) * LANES;
    s.parts = min_of(s.x.count, PARTS);
    s.together = min_of(max_of(ROWS / max_of(s.x.size[2], 1), 1), ceil_div(s.x.count, s.parts));
    s.part_x = s.together * pixels_of(&s.x) * s.w.filters;
    s.part_terms = s.together * s.x.size[2] * s.columns + FEW_CHANNELS;
    if (!take_memory(&s)) return out_of_scratch(call);
    pack_weights(&s);
    fill_tables(&s);
    const int64_t taps = s.w.kernel[0] * s.w.kernel[1];
    const int64_t products = s.x.count * pixels_of(&s.x) * taps * s.columns * s.w.filters;
    call->host->parallel_for(s.parts, products / TERMS_PER_NANOSECOND, scatter_part, &s);
    return PF_OK;
}
