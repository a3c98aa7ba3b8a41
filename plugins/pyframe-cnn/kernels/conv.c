/* Convolutions, as products of matrices.
 *
 * Each output pixel is a row of the product, each tap of the kernel a stretch of its terms: the
 * product reads them through a table of pointers to the pixels of the source, and no copy of the
 * image is made. One table serves all images of a batch; what lies outside of an image is a row of
 * zeros. With few channels, stretches would be short: then the source is copied with zeros around
 * it, and a whole row of the kernel, whose taps lie side by side, is one stretch. */
#include "epilogue.h"
#include "vector.h"

enum {
    BLOCK_PIXELS = 256, /* rows of one product */
    FEW_CHANNELS = 16,
    TERMS_PER_NANOSECOND = 40 /* roughly */
};

/* One convolution: y[n, q] = f(sum_j x[n, q step + first + j by] w[j] + bias), for the outputs q
 * of a lattice. */
typedef struct {
    const pf_call *call;
    const pf_gemm_functions *gemm;
    tap_axis axis[AXES];
    int64_t groups, depth, columns; /* depth: terms a tap and group; columns: outputs a group */
    const real *source, *zero;
    int64_t source_image, source_channels;
    real *result;
    int64_t result_image, result_size[AXES];
    const real *bias, *saved;
    /* pixels are cut into blocks, each with a table of its own */
    int64_t pixels, blocks, taps;
    int in_lines; /* a block is a line of outputs, which lie apart */
    const real **table;
    const real *packed;
    int64_t packed_size;
} convolution;

static int64_t lattice_pixels(const tap_axis axis[AXES]) {
    return axis[0].outputs * axis[1].outputs * axis[2].outputs;
}

static int64_t tap_count(const tap_axis axis[AXES]) {
    return axis[0].taps * axis[1].taps * axis[2].taps;
}

/* ---- the table of pointers ---- */

static int64_t block_start(const convolution *c, int64_t block) {
    return c->in_lines ? block * c->axis[2].outputs : c->pixels * block / c->blocks;
}

/* Where output q reads along an axis, with tap j; -1 outside of the source. */
static inline int64_t source_index(const tap_axis *a, int64_t q, int64_t j) {
    const int64_t at = q * a->step + a->first + j * a->by;
    return at < 0 || at >= a->extent ? -1 : at;
}

/* table[t m + i] = where pixel number i of the block has the terms of tap t, in the first image */
static void fill_table(void *context, int64_t block) {
    const convolution *c = context;
    const tap_axis *d = &c->axis[0], *h = &c->axis[1], *w = &c->axis[2];
    const int64_t start = block_start(c, block), m = block_start(c, block + 1) - start;
    const real **row = c->table + start * c->taps;
    for (int64_t jd = 0; jd < d->taps; jd++)
        for (int64_t jh = 0; jh < h->taps; jh++)
            for (int64_t jw = 0; jw < w->taps; jw++, row += m) {
                int64_t qw = start % w->outputs, qh = start / w->outputs % h->outputs;
                int64_t qd = start / w->outputs / h->outputs;
                for (int64_t i = 0; i < m;) {
                    const int64_t end = min_of(m, i + w->outputs - qw);
                    const int64_t at_d = source_index(d, qd, jd), at_h = source_index(h, qh, jh);
                    const real *line =
                        c->source + (at_d * h->extent + at_h) * w->extent * c->source_channels;
                    for (; i < end; i++, qw++) {
                        const int64_t at_w = source_index(w, qw, jw);
                        const int inside = at_d >= 0 && at_h >= 0 && at_w >= 0;
                        row[i] = inside ? line + at_w * c->source_channels : c->zero;
                    }
                    qw = 0;
                    if (++qh == h->outputs) qh = 0, qd++;
                }
            }
}

/* ---- the products ---- */

/* Pixel number i of the lattice, as a pixel of the result. */
static int64_t result_pixel(const convolution *c, int64_t i) {
    const tap_axis *d = &c->axis[0], *h = &c->axis[1], *w = &c->axis[2];
    const int64_t qw = i % w->outputs, qh = i / w->outputs % h->outputs;
    const int64_t qd = i / w->outputs / h->outputs;
    const int64_t at_d = d->output_first + qd * d->output_by;
    const int64_t at_h = h->output_first + qh * h->output_by;
    return (at_d * c->result_size[1] + at_h) * c->result_size[2] + w->output_first +
           qw * w->output_by;
}

/* One block of pixels of one image. */
static void run_block(void *context, int64_t index) {
    const convolution *c = context;
    const conv_attributes *attributes = c->call->attributes;
    const int64_t block = index % c->blocks, image = index / c->blocks;
    const int64_t start = block_start(c, block), m = block_start(c, block + 1) - start;
    const int64_t channels = c->groups * c->columns;
    const int64_t at = image * c->result_image + result_pixel(c, start) * channels;
    const int64_t row = c->axis[2].output_by * channels;
    pf_gemm g = {.size = sizeof g,
                 .activation = (int32_t)attributes->activation,
                 .m = m,
                 .n = c->columns,
                 .k = c->taps * c->depth,
                 .a_step = 1,
                 .taps = c->taps,
                 .b_row = c->columns,
                 .b_packed = 1,
                 .c_row = row,
                 .slope = attributes->slope,
                 .saved_row = row};
    if (g.k > 0) g.a_rows = (const void *const *)(c->table + start * c->taps), g.a_zero = c->zero;
    for (int64_t group = 0; group < c->groups; group++) {
        const int64_t column = group * c->columns;
        g.a_offset = image * c->source_image + group * c->depth;
        g.b = c->packed + group * c->packed_size;
        g.c = c->result + at + column;
        g.bias = c->bias ? c->bias + column : NULL;
        g.saved = c->saved ? c->saved + at + column : NULL;
        c->gemm->run(&g);
    }
}

/* ---- narrow: no more outputs than a vector has lanes ---- */

/* In a product, a vector of weights would serve the 8 rows of a tile, and 8 sums are hardly enough
 * to keep the multiply-adds busy. With the many registers of AVX-512 it serves two times 8
 * neighbouring pixels: the addresses of 8 numbers with one distance need but a few registers. */
#if defined(__AVX512F__) && CNN_BITS == 32

enum { NEIGHBOURS = 8, BAND_LINES = 16 };

/* Of a convolution that is no transpose. */
static int is_narrow(const convolution *c) {
    int inside = 1;
    for (int axis = 0; axis < AXES; axis++)
        inside = inside && zeros_before(&c->axis[axis]) == 0 && zeros_behind(&c->axis[axis]) == 0;
    return inside && c->groups == 1 && c->columns <= LANES && c->axis[2].outputs >= NEIGHBOURS &&
           c->depth * c->taps > 0;
}

/* sum[g][i] += the terms of one stretch, for `groups` times 8 pixels `apart` bytes from each other;
 * x has what the first ones see, w rows of `columns` weights. */
__attribute__((always_inline)) static inline void add_stretch(const int groups, const real *x[2],
                                                              int64_t apart, const real *w,
                                                              int64_t columns, part lanes,
                                                              int64_t depth,
                                                              vec sum[2][NEIGHBOURS]) {
    int64_t three = 3 * apart, five = 5 * apart, seven = 7 * apart;
    const char *from[2] = {(const char *)x[0], (const char *)x[1]};
    __asm__("" : "+r"(three), "+r"(five), "+r"(seven)); /* or they would be 16 pointers */
    for (int64_t k = 0; k < depth; k++, w += columns) {
        const int64_t at[NEIGHBOURS] = {0,         apart, 2 * apart, three,
                                        4 * apart, five,  2 * three, seven};
        const vec weights = load(w, lanes);
        CNN_UNROLL for (int g = 0; g < groups; g++) {
            CNN_UNROLL for (int i = 0; i < NEIGHBOURS; i++) sum[g][i] +=
                *(const real *)(from[g] + at[i]) * weights;
            from[g] += sizeof(real);
        }
    }
}

/* Up to two times 8 pixels: x has the first terms of each, y where they go. */
__attribute__((always_inline)) static inline void narrow_tile(const convolution *c,
                                                              const int groups, const real *x[2],
                                                              real *y[2]) {
    const tap_axis *d = &c->axis[0], *h = &c->axis[1], *w = &c->axis[2];
    const int64_t columns = c->columns, channels = c->source_channels;
    const int64_t apart = w->step * channels * (int64_t)sizeof(real);
    const part lanes = first_lanes(columns);
    const real *weights = input(c->call, 1);
    const vec bias = c->bias ? load(c->bias, lanes) : (vec){0};
    vec sum[2][NEIGHBOURS];
    CNN_UNROLL for (int g = 0; g < groups; g++) CNN_UNROLL for (int i = 0; i < NEIGHBOURS; i++)
        sum[g][i] = bias;
    for (int64_t jd = 0; jd < d->taps; jd++)
        for (int64_t jh = 0; jh < h->taps; jh++)
            for (int64_t jw = 0; jw < w->taps; jw++, weights += c->depth * columns) {
                const int64_t line = jd * d->by * h->extent + jh * h->by;
                const int64_t at = (line * w->extent + jw * w->by) * channels;
                const real *seen[2] = {x[0] + at, x[1] + at};
                add_stretch(groups, seen, apart, weights, columns, lanes, c->depth, sum);
            }
    const conv_attributes *attributes = c->call->attributes;
    CNN_UNROLL for (int g = 0; g < groups; g++) CNN_UNROLL for (int i = 0; i < NEIGHBOURS; i++)
        store(y[g] + i * columns, lanes,
              attributes->activation == PF_RELU ? rectified(sum[g][i]) : sum[g][i]);
}

/* Some lines of one image. The last 8 pixels of a line may overlap the ones in front of them. */
static void narrow_band(void *context, int64_t index) {
    const convolution *c = context;
    const tap_axis *d = &c->axis[0], *h = &c->axis[1], *w = &c->axis[2];
    const int64_t lines = d->outputs * h->outputs, bands = ceil_div(lines, BAND_LINES);
    const int64_t image = index / bands, first = index % bands * BAND_LINES;
    const int64_t end = min_of(first + BAND_LINES, lines);
    const real *source = c->source + image * c->source_image + w->first * c->source_channels;
    real *result = c->result + image * c->result_image;
    const real *x[2];
    real *y[2];
    int waiting = 0;
    for (int64_t line = first; line < end; line++) {
        const int64_t at_d = line / h->outputs * d->step + d->first;
        const int64_t at_h = line % h->outputs * h->step + h->first;
        for (int64_t q = 0; q < w->outputs; q += NEIGHBOURS) {
            const int64_t at = min_of(q, w->outputs - NEIGHBOURS);
            x[waiting] = source + ((at_d * h->extent + at_h) * w->extent + at * w->step) *
                                      c->source_channels;
            y[waiting] = result + (line * w->outputs + at) * c->columns;
            if (waiting) narrow_tile(c, 2, x, y);
            waiting = !waiting;
        }
    }
    x[1] = x[0], y[1] = y[0];
    if (waiting) narrow_tile(c, 1, x, y);
    const conv_attributes *attributes = c->call->attributes;
    if (attributes->activation != PF_NO_ACTIVATION && attributes->activation != PF_RELU)
        finish(c->call, result + first * w->outputs * c->columns, NULL,
               (end - first) * w->outputs * c->columns);
}

static void run_narrow(convolution *c, int64_t batch) {
    const int64_t terms = batch * lattice_pixels(c->axis) * c->taps * c->depth * c->columns;
    const int64_t bands = ceil_div(c->axis[0].outputs * c->axis[1].outputs, BAND_LINES);
    c->call->host->parallel_for(batch * bands, terms / TERMS_PER_NANOSECOND, narrow_band, c);
}

#else

static int is_narrow(const convolution *c) {
    (void)c;
    return 0;
}
static void run_narrow(convolution *c, int64_t batch) { (void)c, (void)batch; }

#endif

/* A copy of the source with all zeros that are read, if that makes longer stretches. */
static int pad_source(convolution *c, arena *scratch, const images *source) {
    tap_axis *w = &c->axis[2];
    const int inside = zeros_before(w) == 0 && zeros_behind(w) == 0;
    if (c->groups > 1 || w->by != 1 || w->taps < 2 || c->source_channels >= FEW_CHANNELS) return 1;
    if (inside) return 1;
    padding p = {.from = c->source, .size = *source};
    int64_t elements = source->count * source->channels;
    for (int axis = 0; axis < AXES; axis++) {
        tap_axis *a = &c->axis[axis];
        p.before[axis] = zeros_before(a);
        p.padded[axis] = a->extent + p.before[axis] + zeros_behind(a);
        elements *= p.padded[axis];
        a->extent = p.padded[axis];
        a->first += p.before[axis];
    }
    p.to = take(scratch, elements * (int64_t)sizeof(real));
    if (!p.to) return 0;
    CNN_NAME(pad)(c->call, &p);
    c->source = p.to;
    c->source_image = p.padded[0] * p.padded[1] * p.padded[2] * source->channels;
    return 1;
}

/* Taps of one row of the kernel that lie side by side become one. */
static void merge_taps(convolution *c) {
    tap_axis *w = &c->axis[2];
    if (c->groups > 1 || w->by != 1 || zeros_before(w) > 0 || zeros_behind(w) > 0) return;
    c->depth *= w->taps;
    w->taps = w->taps > 0;
}

/* The weights of a group as the product takes them, k x columns, from `weights` with rows b_row
 * apart. */
static int pack_weights(convolution *c, arena *scratch, const real *weights, int64_t group_step,
                        int64_t b_row) {
    pf_gemm g = {.size = sizeof g,
                 .n = c->columns,
                 .k = c->taps * c->depth,
                 .taps = c->taps,
                 .b_row = b_row};
    c->packed_size = c->gemm->packed_size(&g);
    real *packed = take(scratch, c->groups * c->packed_size * (int64_t)sizeof(real));
    if (!packed) return 0;
    for (int64_t group = 0; group < c->groups && g.k > 0; group++) {
        g.b = weights + group * group_step;
        c->gemm->pack(&g, packed + group * c->packed_size);
    }
    c->packed = packed;
    return 1;
}

/* What is left once the taps and the weights are known. */
static int run_convolution(convolution *c, arena *scratch, int64_t batch) {
    c->pixels = lattice_pixels(c->axis);
    if (c->pixels == 0 || batch == 0) return 1;
    c->in_lines =
        c->axis[2].output_by != 1 || c->axis[1].output_by != 1 || c->axis[0].output_by != 1;
    c->blocks = c->in_lines ? c->pixels / c->axis[2].outputs : ceil_div(c->pixels, BLOCK_PIXELS);
    c->table = take(scratch, c->pixels * c->taps * (int64_t)sizeof(void *));
    real *zero = take(scratch, c->depth * (int64_t)sizeof(real));
    if (!c->table || !zero) return 0;
    memset(zero, 0, (size_t)c->depth * sizeof(real));
    c->zero = zero;
    const pf_host *host = c->call->host;
    host->parallel_for(c->blocks, c->pixels * c->taps, fill_table, c);
    const int64_t terms = batch * c->pixels * c->taps * c->depth * c->columns * c->groups;
    host->parallel_for(c->blocks * batch, terms / TERMS_PER_NANOSECOND, run_block, c);
    return 1;
}

/* x (N, ..., C), weight (..., C / groups, F), [bias (F,)]
 *     y (N, ..., F) = f(sum_t x[o stride + t dilation - low] weight[t] + bias) */
int CNN_NAME(conv)(const pf_call *call) {
    const conv_attributes *attributes = call->attributes;
    const images x = images_of(call->inputs[0]), y = images_of(call->outputs[0]);
    const weights_shape w = weights_of(call->inputs[1]);
    if (attributes->groups > 1 && w.channels == 1) return CNN_NAME(depthwise)(call);
    if (CNN_NAME(is_few)(attributes, &w)) return CNN_NAME(few_filters)(call);
    if (attributes->winograd) {
        const int status =
            CNN_BY_TILES(winograd, attributes->winograd)(call, &x, &y, 0, input(call, 2), NULL);
        if (status != CNN_NOT_FINITE) return status;
    }
    convolution c = {.call = call,
                     .gemm = call->host->gemm(CNN_BITS),
                     .groups = attributes->groups,
                     .depth = w.channels,
                     .columns = w.filters / attributes->groups,
                     .source = input(call, 0),
                     .source_image = image_elements(&x),
                     .source_channels = x.channels,
                     .result = output(call, 0),
                     .result_image = image_elements(&y),
                     .result_size = {y.size[0], y.size[1], y.size[2]},
                     .bias = input(call, 2)};
    for (int axis = 0; axis < AXES; axis++)
        c.axis[axis] =
            convolution_axis(attributes, axis, y.size[axis], w.kernel[axis], x.size[axis]);
    arena scratch = arena_of(call);
    if (!pad_source(&c, &scratch, &x)) return out_of_scratch(call);
    merge_taps(&c);
    c.taps = tap_count(c.axis);
    if (is_narrow(&c)) {
        run_narrow(&c, y.count);
        return PF_OK;
    }
    if (!pack_weights(&c, &scratch, input(call, 1), c.columns, w.filters))
        return out_of_scratch(call);
    return run_convolution(&c, &scratch, y.count) ? PF_OK : out_of_scratch(call);
}

/* ---- transposed ---- */

/* The outputs first, first + stride, ... (first < stride) as a dense sum over the taps that reach
 * them:  y[o] = sum over t with (o + low - t dilation) divisible by stride of
 * x[(o + low - t dilation) / stride] w[t]. The taps are turned round, so that `by` is positive. */
static tap_axis phase_axis(const conv_attributes *attributes, int axis, int64_t first,
                           int64_t extent, int64_t kernel, int64_t source) {
    const int64_t stride = attributes->stride[axis], dilation = attributes->dilation[axis];
    const int64_t at = first + attributes->low[axis];
    tap_axis a = {.outputs = ceil_div(extent - first, stride),
                  .step = 1,
                  .by = 1,
                  .extent = source,
                  .output_first = first,
                  .output_by = stride};
    int64_t tap = 0, apart = 1; /* the first such tap, and the distance of the next one */
    while (tap < kernel && (at - tap * dilation) % stride != 0) tap++;
    while (apart < kernel && apart * dilation % stride != 0) apart++;
    if (tap == kernel) return a;
    a.taps = (kernel - 1 - tap) / apart + 1;
    if (a.taps > 1) a.by = apart * dilation / stride;
    a.weight_first = tap + (a.taps - 1) * apart;
    a.weight_by = -apart;
    a.first = (at - a.weight_first * dilation) / stride;
    return a;
}

/* turned[j, f, c] = weight[tap j, c, group's f], for all taps of the axes: (taps F) x C */
static void turn_weights(const tap_axis axis[AXES], const weights_shape *w, int64_t groups,
                         const real *weight, real *turned) {
    const int64_t filters = w->filters / groups;
    for (int64_t group = 0; group < groups; group++)
        for (int64_t jd = 0; jd < axis[0].taps; jd++)
            for (int64_t jh = 0; jh < axis[1].taps; jh++)
                for (int64_t jw = 0; jw < axis[2].taps; jw++) {
                    const int64_t d = axis[0].weight_first + jd * axis[0].weight_by;
                    const int64_t h = axis[1].weight_first + jh * axis[1].weight_by;
                    const int64_t v = axis[2].weight_first + jw * axis[2].weight_by;
                    const int64_t tap = (d * w->kernel[1] + h) * w->kernel[2] + v;
                    const real *from = weight + tap * w->channels * w->filters + group * filters;
                    for (int64_t f = 0; f < filters; f++)
                        for (int64_t c = 0; c < w->channels; c++)
                            *turned++ = from[c * w->filters + f];
                }
}

/* One phase: the outputs that are `first` and multiples of the stride from it. */
static int run_phase(convolution c, const int64_t first[AXES], const images *x, const images *y,
                     const weights_shape *w) {
    for (int axis = 0; axis < AXES; axis++)
        c.axis[axis] = phase_axis(c.call->attributes, axis, first[axis], y->size[axis],
                                  w->kernel[axis], x->size[axis]);
    arena scratch = arena_of(c.call);
    const int64_t size = tap_count(c.axis) * w->filters * w->channels;
    real *turned = take(&scratch, size * (int64_t)sizeof(real));
    if (!turned) return 0;
    turn_weights(c.axis, w, c.groups, input(c.call, 1), turned);
    if (!pad_source(&c, &scratch, x)) return 0;
    merge_taps(&c);
    c.taps = tap_count(c.axis);
    return pack_weights(&c, &scratch, turned, size / c.groups, c.columns) &&
           run_convolution(&c, &scratch, y->count);
}

static int transpose(const pf_call *call, const real *bias, const real *saved) {
    const conv_attributes *attributes = call->attributes;
    const images x = images_of(call->inputs[0]), y = images_of(call->outputs[0]);
    const weights_shape w = weights_of(call->inputs[1]);
    if (attributes->groups > 1 && w.channels == 1)
        return CNN_NAME(depthwise_transpose)(call, bias, saved);
    if (attributes->winograd) {
        const int status =
            CNN_BY_TILES(winograd, attributes->winograd)(call, &x, &y, 1, bias, saved);
        if (status != CNN_NOT_FINITE) return status;
    }
    if (CNN_NAME(scatters)(attributes, &w, &x)) return CNN_NAME(scatter)(call, bias, saved);
    const convolution c = {.call = call,
                           .gemm = call->host->gemm(CNN_BITS),
                           .groups = attributes->groups,
                           .depth = w.filters / attributes->groups,
                           .columns = w.channels,
                           .source = input(call, 0),
                           .source_image = image_elements(&x),
                           .source_channels = x.channels,
                           .result = output(call, 0),
                           .result_image = image_elements(&y),
                           .result_size = {y.size[0], y.size[1], y.size[2]},
                           .bias = bias,
                           .saved = saved};
    int64_t first[AXES], phases[AXES];
    for (int axis = 0; axis < AXES; axis++)
        phases[axis] = min_of(attributes->stride[axis], y.size[axis]);
    for (first[0] = 0; first[0] < phases[0]; first[0]++)
        for (first[1] = 0; first[1] < phases[1]; first[1]++)
            for (first[2] = 0; first[2] < phases[2]; first[2]++)
                if (!run_phase(c, first, &x, &y, &w)) return out_of_scratch(call);
    return PF_OK;
}

/* x (N, ..., F), weight (..., C / groups, F), [bias (C,)]
 *     y (N, ..., C) = f(sum over o, t with o stride + t dilation - low = i of x[o] weight[t]^T
 *                       + bias),  the transpose of conv's matrix */
int CNN_NAME(conv_transpose)(const pf_call *call) { return transpose(call, input(call, 2), NULL); }

/* dy (N, ..., F), weight (..., C / groups, F), [x: its shape], [saved (N, ..., C)]
 *     dx (N, ..., C) = conv_transpose(dy, weight) f'(where f has the value saved) */
int CNN_NAME(conv_input_grad)(const pf_call *call) { return transpose(call, NULL, input(call, 3)); }
