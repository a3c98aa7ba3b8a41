/* Convolutions of few channels to few filters, as the first layer of a small network is, and the
 * gradients of their weights.
 *
 * As products with a column for each filter, most lanes of a wide vector would be idle. Here a
 * vector holds neighbouring pixels of one filter. Several lines of the result make a band. For each
 * channel c and tap (td, tw) what the band sees of x with it is copied,
 *
 *     copy[td, tw, c][line, ow] = x[.., line, ow stride + tw dilation - low, c],
 *
 * so that with each tap th all pixels of the band see a stretch of a copy, from line th dilation
 * on: the band is one long line. */
#include "epilogue.h"
#include "few.h"
#include "vector.h"

/* float32 only, and where vectors are wide or there are many of them. */
#if CNN_BITS == 32 && (PF_VECTOR_BYTES > 16 || PF_VECTOR_REGISTERS == 32)
#include "planes.h"

enum {
    FEW_CHANNELS = 4,
    PARTS = 8,
    BAND = 1 << 15, /* elements of its copies, to stay in the cache */
    VECTORS = 8,    /* of pixels, at once, at most */
    TERMS_PER_NANOSECOND = 2 * LANES
};

/* As many vectors of pixels as registers hold beside a sum of each for each filter, and a factor.
 */
static inline int at_once(int filters) {
    const int fit = (PF_VECTOR_REGISTERS - 1) / (filters + 1);
    return fit < VECTORS ? fit : VECTORS;
}

typedef struct {
    const pf_call *call;
    const conv_attributes *attributes;
    images x, y; /* y: or dy */
    weights_shape w;
    int64_t rows;        /* of the weights (taps x channels, filters) */
    int64_t summed;      /* of them in the gradient: none where the bias alone is wanted */
    int64_t band, lines; /* a band's lines of y, and the lines of x that it sees */
    /* The taps along a line with a copy of their own, and the length of lines that are copied: y of
     * one line needs but one copy, in which each tap sees a stretch. */
    int64_t copied, width;
    int64_t parts, part_copies, part_apart;
    int64_t *offset;      /* for each row of the weights: where the copies have what it sees */
    real *copies, *apart; /* of each part; apart: the channels of a band of x */
    sorting sorted;
    /* of the gradient, for each part: */
    real *planes; /* (filters, plane): dy of a band */
    real *sums;   /* (rows + 1, filters, LANES); the last ones are the bias's */
    int64_t plane, part_sums;
} few;

int CNN_NAME(is_few)(const conv_attributes *attributes, const weights_shape *w) {
    return attributes->groups == 1 && attributes->stride[1] == 1 && w->filters > 0 &&
           w->filters <= FEW_FILTERS && w->channels > 0 && w->channels <= FEW_CHANNELS;
}

/* ---- copies ---- */

/* Where taps see pixels first + w step of an axis: inside of it for begin <= w < end. */
typedef struct {
    int64_t first, step, begin, end;
} seen;

static seen seen_of(const few *s, int axis, int64_t tap, int64_t first, int64_t step,
                    int64_t count) {
    const int64_t at = first + tap * s->attributes->dilation[axis] - s->attributes->low[axis];
    const int64_t begin = min_of(ceil_div(max_of(-at, 0), step), count);
    const int64_t end = min_of(ceil_div(max_of(s->x.size[axis] - at, 0), step), count);
    return (seen){at, step, begin, max_of(begin, end)};
}

/* to (count, width) = the lines from[i line + w step], and zeros where w is outside. The end of a
 * vector may be stored behind a line: it is overwritten with the next one. */
static void copy_lines(const real *from, int64_t line, seen w, int64_t count, int64_t width,
                       real *to) {
    if (w.step == 1 && w.begin == 0 && w.end == width && width >= LANES) { /* no zeros */
        for (int64_t i = 0; i < count; i++, from += line, to += width) {
            for (int64_t at = 0; at < width - LANES; at += LANES)
                *(vec *)(to + at) = *(const vec *)(from + at);
            *(vec *)(to + width - LANES) = *(const vec *)(from + width - LANES);
        }
        return;
    }
    const int64_t whole = w.begin + (w.end - w.begin) / LANES * LANES;
    const part rest = first_lanes(w.end - whole);
    for (int64_t i = 0; i < count; i++, from += line, to += width) {
        int64_t at = 0;
        for (; at < w.begin; at += LANES) *(vec *)(to + at) = (vec){0};
        at = w.begin;
        if (w.step == 1) {
            for (; at < whole; at += LANES) *(vec *)(to + at) = *(const vec *)(from + at);
            if (rest) *(vec *)(to + at) = load(from + at, rest), at += LANES;
        } else {
            for (; at < w.end; at++) to[at] = from[at * w.step];
        }
        for (; at < width; at += LANES) *(vec *)(to + at) = (vec){0};
    }
}

/* apart[c][i] = pixels[i][c]: channels that lie side by side become planes, `plane` apart. */
__attribute__((always_inline)) static inline void take_apart(const real *restrict pixels,
                                                             int64_t count, const int channels,
                                                             int64_t plane, real *restrict apart) {
    for (int64_t i = 0; i < count; i++)
        for (int c = 0; c < channels; c++) apart[c * plane + i] = pixels[i * channels + c];
}

/* What lines h to h + count of plane d see of an image; `apart` is memory for its channels. */
static void copy_band(const few *s, const real *image, int64_t d, int64_t h, int64_t count,
                      real *apart, real *to) {
    const int64_t *kernel = s->w.kernel, *stride = s->attributes->stride, *size = s->x.size;
    const int64_t width = s->width, channels = s->x.channels, line = size[2];
    const int64_t lines = count + s->lines - s->band;
    for (int64_t td = 0; td < kernel[0]; td++) {
        const seen plane = seen_of(s, 0, td, d * stride[0], 1, 1);
        seen i = seen_of(s, 1, 0, h, 1, lines);
        if (plane.begin == plane.end) i.end = i.begin;
        const int64_t inside = i.end - i.begin;
        const real *from = image + (plane.first * size[1] + i.first + i.begin) * line * channels;
        if (channels == 2) take_apart(from, inside * line, 2, s->lines * line, apart);
        if (channels == 3) take_apart(from, inside * line, 3, s->lines * line, apart);
        if (channels == 4) take_apart(from, inside * line, 4, s->lines * line, apart);
        for (int64_t tw = 0; tw < s->copied; tw++)
            for (int64_t c = 0; c < channels; c++, to += s->lines * width) {
                const seen w = seen_of(s, 2, tw, 0, stride[2], width);
                const real *first = channels > 1 ? apart + c * s->lines * line : from;
                memset(to, 0, (size_t)(i.begin * width) * sizeof(real));
                copy_lines(first + w.first, line, w, inside, width, to + i.begin * width);
                memset(to + i.end * width, 0, (size_t)((lines - i.end) * width) * sizeof(real));
            }
    }
}

static void fill_offsets(const few *s) {
    const int64_t *kernel = s->w.kernel, *by = s->attributes->dilation;
    int64_t *offset = s->offset;
    for (int64_t td = 0; td < kernel[0]; td++)
        for (int64_t th = 0; th < kernel[1]; th++)
            for (int64_t tw = 0; tw < kernel[2]; tw++)
                for (int64_t c = 0; c < s->x.channels; c++) {
                    const int64_t copy = td * s->copied + (s->copied > 1 ? tw : 0);
                    const int64_t line = (copy * s->x.channels + c) * s->lines + th * by[1];
                    *offset++ = line * s->width + (s->copied > 1 ? 0 : tw * by[2]);
                }
}

/* The bands of a part of the images. */
typedef struct {
    int64_t pixels, at; /* at: of y, in elements */
} band;
typedef void band_body(const few *s, int64_t part_index, const real *copies, band b);

static void each_band(const few *s, int64_t part_index, band_body *body) {
    const int64_t *size = s->y.size, end = s->x.count * (part_index + 1) / s->parts;
    const real *x = input(s->call, s->planes ? 1 : 0);
    real *copies = s->copies + part_index * s->part_copies;
    real *apart = s->apart + part_index * s->part_apart;
    for (int64_t n = s->x.count * part_index / s->parts; n < end; n++)
        for (int64_t d = 0; d < size[0]; d++)
            for (int64_t h = 0; h < size[1]; h += s->band) {
                const int64_t count = min_of(s->band, size[1] - h);
                copy_band(s, x + n * image_elements(&s->x), d, h, count, apart, copies);
                const int64_t line = (n * size[0] + d) * size[1] + h;
                body(s, part_index, copies, (band){count * size[2], line * size[2] * s->w.filters});
            }
}

/* ---- the convolution ---- */

/* `vectors` vectors of pixels, of which there are `left`; x is what the first one sees. */
__attribute__((always_inline)) static inline void filter(const few *s, const int filters,
                                                         const int vectors, const real *x,
                                                         int64_t left, real *y) {
    const real *w = input(s->call, 1), *bias = input(s->call, 2);
    const int64_t *offset = s->offset, rows = s->rows;
    vec sum[VECTORS][FEW_FILTERS];
    CNN_UNROLL for (int v = 0; v < vectors; v++) CNN_UNROLL for (int f = 0; f < filters; f++)
        sum[v][f] = splat(bias ? bias[f] : 0);
    for (int64_t row = 0; row < rows; row++, w += filters) {
        vec pixels[VECTORS];
        CNN_UNROLL for (int v = 0; v < vectors; v++) pixels[v] =
            *(const vec *)(x + offset[row] + v * LANES);
        CNN_UNROLL for (int f = 0; f < filters; f++) CNN_UNROLL for (int v = 0; v < vectors; v++)
            sum[v][f] += pixels[v] * w[f];
    }
    if (s->attributes->activation == PF_RELU)
        CNN_UNROLL for (int v = 0; v < vectors; v++) CNN_UNROLL for (int f = 0; f < filters; f++)
            sum[v][f] = rectified(sum[v][f]);
    const int64_t size = LANES * filters;
    CNN_UNROLL for (int v = 0; v < vectors; v++)
        put_planes(&s->sorted, filters, sum[v], y + v * size, left * filters - v * size);
}

__attribute__((always_inline)) static inline void filter_band(const few *s, const int filters,
                                                              const real *x, band b) {
    real *y = output(s->call, 0) + b.at;
    const int many = at_once(filters);
    int64_t p = 0;
    for (; p + (many - 1) * LANES < b.pixels; p += many * LANES)
        filter(s, filters, many, x + p, b.pixels - p, y + p * filters);
    for (; p < b.pixels; p += LANES) filter(s, filters, 1, x + p, b.pixels - p, y + p * filters);
    if (s->attributes->activation != PF_RELU) finish(s->call, y, NULL, b.pixels * filters);
}

/* ---- the gradient of the weights ---- */

/* The planes of dy; their sums are the bias's. */
__attribute__((always_inline)) static inline void sort_dy(const few *s, const int filters,
                                                          const real *dy, int64_t pixels,
                                                          real *planes, vec *sums) {
    for (int64_t p = 0; p < pixels; p += LANES) {
        vec plane[FEW_FILTERS];
        take_planes(&s->sorted, filters, dy + p * filters, (pixels - p) * filters, plane);
        CNN_UNROLL for (int f = 0; f < filters; f++) {
            *(vec *)(planes + f * s->plane + p) = plane[f];
            sums[f] += plane[f];
        }
    }
}

/* sum[i][f] += x of row i times dy of filter f, for a vector of pixels */
__attribute__((always_inline)) static inline void add_pixels(const few *s, const int filters,
                                                             const int rows, const int64_t *offset,
                                                             const real *x, const real *dy,
                                                             part lanes, vec sum[][FEW_FILTERS]) {
    vec pixel[VECTORS];
    CNN_UNROLL for (int i = 0; i < rows; i++) pixel[i] = load(x + offset[i], lanes);
    CNN_UNROLL for (int f = 0; f < filters; f++) {
        const vec of_dy = *(const vec *)(dy + f * s->plane);
        CNN_UNROLL for (int i = 0; i < rows; i++) sum[i][f] += pixel[i] * of_dy;
    }
}

/* The same, added to sums[row, f], for all pixels and some rows at once. */
__attribute__((always_inline)) static inline void add_rows(const few *s, const int filters,
                                                           const int rows, const int64_t *offset,
                                                           const real *x, const real *dy,
                                                           int64_t pixels, vec *sums) {
    vec sum[VECTORS][FEW_FILTERS];
    CNN_UNROLL for (int i = 0; i < rows; i++) CNN_UNROLL for (int f = 0; f < filters; f++)
        sum[i][f] = sums[i * filters + f];
    for (; pixels >= LANES; pixels -= LANES, x += LANES, dy += LANES)
        add_pixels(s, filters, rows, offset, x, dy, first_lanes(LANES), sum);
    if (pixels > 0) add_pixels(s, filters, rows, offset, x, dy, first_lanes(pixels), sum);
    CNN_UNROLL for (int i = 0; i < rows; i++) CNN_UNROLL for (int f = 0; f < filters; f++)
        sums[i * filters + f] = sum[i][f];
}

/* Few rows less at once are better than one row that is left. */
__attribute__((always_inline)) static inline void add_band(const few *s, const int filters,
                                                           int64_t part_index, const real *x,
                                                           band b) {
    const int many = at_once(filters), fewer = many > 1 ? many - 1 : 1;
    real *planes = s->planes + part_index * filters * s->plane;
    vec *sums = (vec *)(s->sums + part_index * s->part_sums);
    sort_dy(s, filters, input(s->call, 0) + b.at, b.pixels, planes, sums + s->rows * filters);
    for (int64_t row = 0, rows; row < s->summed; row += rows, sums += rows * filters) {
        const int64_t left = s->summed - row, *offset = s->offset + row;
        rows = left % many == 0 ? many : left >= fewer ? fewer : 1;
        if (rows == many)
            add_rows(s, filters, many, offset, x, planes, b.pixels, sums);
        else if (rows == fewer)
            add_rows(s, filters, fewer, offset, x, planes, b.pixels, sums);
        else
            add_rows(s, filters, 1, offset, x, planes, b.pixels, sums);
    }
}

/* ---- for each number of filters ---- */

#define CNN_FEW(filters)                                                                    \
    static void filter_##filters(const few *s, int64_t part_index, const real *x, band b) { \
        (void)part_index;                                                                   \
        filter_band(s, filters, x, b);                                                      \
    }                                                                                       \
    static void add_##filters(const few *s, int64_t part_index, const real *x, band b) {    \
        add_band(s, filters, part_index, x, b);                                             \
    }
CNN_FEW(1)
CNN_FEW(2)
CNN_FEW(3)
CNN_FEW(4)
CNN_FEW(5)
CNN_FEW(6)
CNN_FEW(7)
CNN_FEW(8)
static band_body *const filter_with[] = {NULL,     filter_1, filter_2, filter_3, filter_4,
                                         filter_5, filter_6, filter_7, filter_8};
static band_body *const add_with[] = {NULL, add_1, add_2, add_3, add_4, add_5, add_6, add_7, add_8};

static void filter_part(void *context, int64_t index) {
    const few *s = context;
    each_band(s, index, filter_with[s->w.filters]);
}

static void add_part(void *context, int64_t index) {
    const few *s = context;
    memset(s->sums + index * s->part_sums, 0, (size_t)s->part_sums * sizeof(real));
    each_band(s, index, add_with[s->w.filters]);
}

/* What both have in common; the memory is that of `few_scratch` in convolution.py. */
static few few_of(const pf_call *call, const pf_operand *x, const pf_operand *y,
                  const pf_operand *weight) {
    few s = {.call = call,
             .attributes = call->attributes,
             .x = images_of(x),
             .y = images_of(y),
             .w = weights_of(weight)};
    const int64_t *kernel = s.w.kernel, *by = s.attributes->dilation;
    const int one = s.y.size[1] == 1 && s.attributes->stride[2] == 1;
    s.copied = one ? 1 : kernel[2];
    s.width = s.y.size[2] + (one ? (kernel[2] - 1) * by[2] : 0);
    const int64_t above = (kernel[1] - 1) * by[1];
    const int64_t copies = kernel[0] * s.copied * s.x.channels;
    s.rows = kernel[0] * kernel[1] * kernel[2] * s.x.channels;
    s.band = min_of(max_of(BAND / max_of(copies * s.width, 1) - above, 1), s.y.size[1]);
    s.lines = s.band + above;
    s.parts = min_of(s.x.count, PARTS);
    s.part_copies = copies * s.lines * s.width + LANES; /* read behind the last line */
    s.part_apart = s.x.channels > 1 ? s.x.channels * s.lines * s.x.size[2] : 0;
    return s;
}

static int take_memory(few *s, arena *scratch) {
    s->offset = take(scratch, s->rows * (int64_t)sizeof(int64_t));
    s->copies = take(scratch, s->parts * s->part_copies * (int64_t)sizeof(real));
    s->apart = take(scratch, s->parts * s->part_apart * (int64_t)sizeof(real));
    if (!s->offset || !s->copies || !s->apart) return 0;
    fill_offsets(s);
    return 1;
}

static int64_t nanoseconds(const few *s) {
    return s->y.count * image_elements(&s->y) * s->rows / TERMS_PER_NANOSECOND;
}

int CNN_NAME(few_filters)(const pf_call *call) {
    few s = few_of(call, call->inputs[0], call->outputs[0], call->inputs[1]);
    arena scratch = arena_of(call);
    if (!take_memory(&s, &scratch)) return out_of_scratch(call);
    s.sorted = sorting_of((int)s.w.filters, 0);
    call->host->parallel_for(s.parts, nanoseconds(&s), filter_part, &s);
    return PF_OK;
}

/* sum over all parts and lanes */
static real total(const few *s, int64_t row, int64_t filter_index) {
    vec sum = {0};
    for (int64_t i = 0; i < s->parts; i++)
        sum += *(const vec *)(s->sums + i * s->part_sums +
                              (row * s->w.filters + filter_index) * LANES);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) sum[i] += sum[i + width];
    return sum[0];
}

int CNN_NAME(few_weight_grad)(const pf_call *call) {
    few s = few_of(call, call->inputs[1], call->inputs[0], call->outputs[0]);
    real *dweight = output(call, 0), *dbias = output(call, 1);
    const int64_t filters = s.w.filters;
    s.summed = dweight ? s.rows : 0;
    s.plane = ceil_div(s.band * s.y.size[2], LANES) * LANES;
    s.part_sums = (s.rows + 1) * filters * LANES;
    arena scratch = arena_of(call);
    if (!take_memory(&s, &scratch)) return out_of_scratch(call);
    s.planes = take(&scratch, s.parts * filters * s.plane * (int64_t)sizeof(real));
    s.sums = take(&scratch, s.parts * s.part_sums * (int64_t)sizeof(real));
    if (!s.planes || !s.sums) return out_of_scratch(call);
    s.sorted = sorting_of((int)filters, 1);
    call->host->parallel_for(s.parts, nanoseconds(&s), add_part, &s);
    for (int64_t row = 0; row < s.summed; row++)
        for (int64_t f = 0; f < filters; f++) *dweight++ = total(&s, row, f);
    for (int64_t f = 0; dbias && f < filters; f++) dbias[f] = total(&s, s.rows, f);
    return PF_OK;
}

#else

int CNN_NAME(is_few)(const conv_attributes *attributes, const weights_shape *w) {
    (void)attributes, (void)w;
    return 0;
}

/* Never called. */
int CNN_NAME(few_filters)(const pf_call *call) { return out_of_scratch(call); }
int CNN_NAME(few_weight_grad)(const pf_call *call) { return out_of_scratch(call); }

#endif
