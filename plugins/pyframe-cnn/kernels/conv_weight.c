/* The gradient of a convolution's weights and bias.
 *
 * dweight[t, c, f] = sum over images and outputs o of x[o stride + t dilation - low, c] dy[o, f]:
 * a product whose terms are the pixels of dy. Those of one line of dy are a stretch; the rows, one
 * for each (tap, channel), read x from a table of pointers. Where the kernel sees zeros around the
 * image, x is copied with them. */
#include "conv.h"
#include "few.h"
#include "vector.h"

enum {
    MANY_TERMS = 128, /* of a product: what it reads of x and dy for them stays in the L1 cache */
    PART_ROWS = 384,
    PARTS = 8,
    MANY_SUMS = 1 << 19, /* elements */
    FULL = 16,           /* columns of a product that fill a vector */
    TERMS_PER_NANOSECOND = 40
};

typedef struct {
    const pf_call *call;
    const pf_gemm_functions *gemm;
    images x, dy;
    weights_shape w;
    int64_t groups, stride[AXES], dilation[AXES];
    const real *source;         /* x with the zeros that are read */
    int64_t line, plane, image; /* of the source, in elements */
    /* dweight consists of `outer` taps of `rows` rows each. Both are cut into parts, and the images
     * into as many as there are sums. */
    int64_t outer, rows, tap_parts, row_parts, sums;
    /* A product sums over `lines` lines of dy: those of `together` images, or of a part of a plane,
     * of which an image has `pieces`. */
    int64_t together, pieces, lines;
    const int64_t *offset; /* of each row's element from that of the first row */
    const real **table;
    real *partial, *dweight;
} weight_sum;

static int64_t tap_offset(const weight_sum *s, int64_t d, int64_t h, int64_t w) {
    return d * s->dilation[0] * s->plane + h * s->dilation[1] * s->line +
           w * s->dilation[2] * s->x.channels;
}

static void fill_offsets(const weight_sum *s, int64_t *offset) {
    const int64_t *kernel = s->w.kernel, inner = s->outer > 1 ? 1 : kernel[0] * kernel[1];
    for (int64_t tap = 0; tap < inner; tap++)
        for (int64_t v = 0; v < kernel[2]; v++)
            for (int64_t c = 0; c < s->w.channels; c++)
                *offset++ = tap_offset(s, tap / kernel[1], tap % kernel[1], v) + c;
}

static int64_t part_start(const weight_sum *s, int64_t index) {
    return s->rows * index / s->row_parts;
}

/* For each part of the rows, table[line m + i] = where its row i has the first term of that line of
 * dy, in the first images. */
static void fill_table(void *context, int64_t row_part) {
    const weight_sum *s = context;
    const int64_t start = part_start(s, row_part), m = part_start(s, row_part + 1) - start;
    const real **to = s->table + start * s->lines;
    for (int64_t line = 0; line < s->lines; line++) {
        const int64_t h = line % s->dy.size[1], plane = line / s->dy.size[1];
        const int64_t d = plane % s->dy.size[0], image = plane / s->dy.size[0];
        const real *first =
            s->source + image * s->image + d * s->stride[0] * s->plane + h * s->stride[1] * s->line;
        for (int64_t i = 0; i < m; i++) *to++ = first + s->offset[start + i];
    }
}

/* The lines of one product, and where they begin. */
typedef struct {
    int64_t count, at_x, at_dy;
} range;

/* Those of some images, or of a piece of one. */
static range lines_of(const weight_sum *s, int64_t image, int64_t images_left, int64_t piece) {
    const int64_t height = s->dy.size[1], line = s->dy.size[2] * s->dy.channels;
    range r = {.at_x = image * s->image, .at_dy = image * image_elements(&s->dy)};
    if (s->pieces == 1) {
        r.count = images_left * s->dy.size[0] * height;
        return r;
    }
    const int64_t each = s->pieces / s->dy.size[0]; /* of a plane */
    const int64_t plane = piece / each, first = piece % each * s->lines;
    r.count = min_of(s->lines, height - first);
    r.at_x += plane * s->stride[0] * s->plane + first * s->stride[1] * s->line;
    r.at_dy += (plane * height + first) * line;
    return r;
}

/* Adds what some images give to one part of the rows of one outer tap; or begins with it. */
static void add_images(const weight_sum *s, int64_t image, int64_t count, int64_t tap,
                       int64_t row_part, real *dweight, int begin) {
    const int64_t start = part_start(s, row_part), m = part_start(s, row_part + 1) - start;
    const int64_t all = s->w.filters, filters = all / s->groups;
    const int64_t at = tap_offset(s, tap / s->w.kernel[1], tap % s->w.kernel[1], 0);
    real *to = dweight + (tap * s->rows + start) * all;
    pf_gemm g = {.size = sizeof g,
                 .m = m,
                 .n = filters,
                 .a_rows = (const void *const *)(s->table + start * s->lines),
                 .a_step = s->stride[2] * s->x.channels,
                 .b_row = all,
                 .c_row = all,
                 .accumulate = !begin};
    for (int64_t piece = 0; piece < s->pieces; piece++) {
        const range r = lines_of(s, image, count, piece);
        g.taps = r.count;
        g.k = r.count * s->dy.size[2];
        for (int64_t group = 0; group < s->groups; group++) {
            g.a_offset = r.at_x + at + group * s->w.channels;
            g.b = input(s->call, 0) + r.at_dy + group * filters;
            g.c = to + group * filters;
            s->gemm->run(&g);
        }
        g.accumulate = 1;
    }
}

/* One part of the rows of some outer taps, summed over one part of the images: these are gone
 * through once, as they come from memory, for all those taps. */
static void run_part(void *context, int64_t index) {
    const weight_sum *s = context;
    const int64_t sum = index % s->sums, row_part = index / s->sums % s->row_parts;
    const int64_t taps = s->outer / s->tap_parts, tap = index / s->sums / s->row_parts * taps;
    const int64_t first = s->dy.count * sum / s->sums, end = s->dy.count * (sum + 1) / s->sums;
    const int64_t size = s->outer * s->rows * s->w.filters;
    real *to = sum == 0 ? s->dweight : s->partial + (sum - 1) * size;
    for (int64_t image = first; image < end; image += s->together)
        for (int64_t t = tap; t < tap + taps; t++)
            add_images(s, image, min_of(s->together, end - image), t, row_part, to, image == first);
}

/* ---- narrow: no more filters than a vector has lanes ---- */

/* In a product, a vector of dy would serve the 8 rows of a tile, each of which needs a load of its
 * own, and 8 sums are hardly enough to keep the multiply-adds busy. With the many registers of
 * AVX-512 it serves up to 30: neighbouring taps and channels, which x has side by side. */
#if defined(__AVX512F__) && CNN_BITS == 32

enum { NARROW_ROWS = 30, MANY_AT_ONCE = 256 /* terms, before they go to the others */ };

/* Of one row of taps, `rows` rows from x on, for some images: to (rows, filters). */
__attribute__((always_inline)) static inline void narrow_rows(const weight_sum *s, const int rows,
                                                              const real *x, const real *dy,
                                                              int64_t image_count, real *to) {
    const int64_t *size = s->dy.size, filters = s->w.filters, step = s->stride[2] * s->x.channels;
    const part lanes = first_lanes(filters);
    vec total[NARROW_ROWS], sum[NARROW_ROWS];
    CNN_UNROLL for (int i = 0; i < rows; i++) total[i] = sum[i] = (vec){0};
    int64_t terms = 0;
    for (int64_t n = 0; n < image_count; n++, x += s->image)
        for (int64_t d = 0; d < size[0]; d++)
            for (int64_t h = 0; h < size[1]; h++) {
                const real *at = x + d * s->stride[0] * s->plane + h * s->stride[1] * s->line;
                for (int64_t w = 0; w < size[2]; w++, at += step, dy += filters) {
                    const vec given = load(dy, lanes);
                    CNN_UNROLL for (int i = 0; i < rows; i++) sum[i] += at[i] * given;
                }
                terms += size[2];
                if (terms < MANY_AT_ONCE) continue;
                CNN_UNROLL for (int i = 0; i < rows; i++) total[i] += sum[i], sum[i] = (vec){0};
                terms = 0;
            }
    CNN_UNROLL for (int i = 0; i < rows; i++) store(to + i * filters, lanes, total[i] + sum[i]);
}

#define CNN_NARROW(rows)                                                                         \
    static void narrow_##rows(const weight_sum *s, const real *x, const real *dy, int64_t count, \
                              real *to) {                                                        \
        narrow_rows(s, rows, x, dy, count, to);                                                  \
    }
CNN_NARROW(8)
CNN_NARROW(12)
CNN_NARROW(16)
CNN_NARROW(20)
CNN_NARROW(24)
CNN_NARROW(30)
typedef void narrow_function(const weight_sum *s, const real *x, const real *dy, int64_t count,
                             real *to);
static const struct {
    int64_t rows;
    narrow_function *run;
} narrow[] = {{8, narrow_8},   {12, narrow_12}, {16, narrow_16},
              {20, narrow_20}, {24, narrow_24}, {30, narrow_30}};

static int is_narrow(const weight_sum *s) {
    const int64_t *kernel = s->w.kernel;
    return s->groups == 1 && s->w.filters <= LANES && (s->dilation[2] == 1 || kernel[2] == 1) &&
           kernel[2] * s->w.channels >= narrow[0].rows;
}

/* All rows, summed over one part of the images. A row of taps is cut into equal parts, the last of
 * which may begin before the one in front of it ends. */
static void narrow_part(void *context, int64_t sum) {
    const weight_sum *s = context;
    const int64_t *kernel = s->w.kernel, inner = kernel[2] * s->w.channels;
    const int64_t first = s->dy.count * sum / s->sums, end = s->dy.count * (sum + 1) / s->sums;
    const int64_t size = kernel[0] * kernel[1] * inner * s->w.filters;
    const real *dy = input(s->call, 0) + first * image_elements(&s->dy);
    real *to = sum == 0 ? s->dweight : s->partial + (sum - 1) * size;
    const int64_t each = ceil_div(inner, ceil_div(inner, NARROW_ROWS));
    int choice = 0;
    while (narrow[choice].rows < each && narrow[choice + 1].rows <= inner) choice++;
    const int64_t rows = narrow[choice].rows;
    for (int64_t tap = 0; tap < kernel[0] * kernel[1]; tap++, to += inner * s->w.filters) {
        const real *x =
            s->source + first * s->image + tap_offset(s, tap / kernel[1], tap % kernel[1], 0);
        for (int64_t row = 0; row < inner; row += rows) {
            const int64_t at = min_of(row, inner - rows);
            narrow[choice].run(s, x + at, dy, end - first, to + at * s->w.filters);
        }
    }
}

#else

static int is_narrow(const weight_sum *s) {
    (void)s;
    return 0;
}
static void narrow_part(void *context, int64_t sum) { (void)context, (void)sum; }

#endif

/* Where x lies with zeros around it; a copy, unless it needs none. */
static int pad_source(weight_sum *s, arena *scratch) {
    const conv_attributes *attributes = s->call->attributes;
    padding p = {.from = s->source, .size = s->x};
    int64_t elements = s->x.count * s->x.channels, zeros = 0;
    for (int axis = 0; axis < AXES; axis++) {
        const tap_axis a = convolution_axis(attributes, axis, s->dy.size[axis], s->w.kernel[axis],
                                            s->x.size[axis]);
        p.before[axis] = zeros_before(&a);
        p.padded[axis] = a.extent + p.before[axis] + zeros_behind(&a);
        zeros += p.padded[axis] - a.extent;
        elements *= p.padded[axis];
    }
    s->line = p.padded[2] * s->x.channels;
    s->plane = p.padded[1] * s->line;
    s->image = p.padded[0] * s->plane;
    if (zeros == 0) return 1;
    p.to = take(scratch, elements * (int64_t)sizeof(real));
    if (!p.to) return 0;
    CNN_NAME(pad)(s->call, &p);
    s->source = p.to;
    return 1;
}

/* How the work is cut: by shapes only. */
static void choose_parts(weight_sum *s) {
    const int64_t *kernel = s->w.kernel, taps = kernel[0] * kernel[1];
    const int64_t inner = kernel[2] * s->w.channels;
    s->outer = taps * inner <= PART_ROWS ? 1 : taps;
    s->rows = taps * inner / s->outer;
    s->row_parts = max_of(ceil_div(s->rows, PART_ROWS), 1);
    const int64_t *size = s->dy.size;
    s->together = max_of(min_of(MANY_TERMS / pixels_of(&s->dy), s->dy.count), 1);
    s->pieces = 1;
    s->lines = s->together * size[0] * size[1];
    if (pixels_of(&s->dy) > MANY_TERMS) {
        s->lines = max_of(min_of(MANY_TERMS / size[2], size[1]), 1);
        s->pieces = size[0] * ceil_div(size[1], s->lines);
        if (s->pieces == 1) s->lines = size[1];
    }
    const int64_t many = s->outer * s->rows * s->w.filters; /* of which there is one for each sum */
    s->sums = min_of(PARTS / s->row_parts, MANY_SUMS / max_of(many, 1));
    s->sums = max_of(min_of(s->sums, s->dy.count / s->together), 1);
    s->tap_parts = s->sums * s->row_parts >= PARTS / 2 ? 1 : s->outer;
}

static int weight_gradient(weight_sum *s, arena *scratch) {
    const int64_t size = s->outer * s->rows * s->w.filters;
    if (size == 0) return 1;
    if (s->dy.count == 0) {
        memset(s->dweight, 0, (size_t)size * sizeof(real));
        return 1;
    }
    int64_t *offset = take(scratch, s->rows * (int64_t)sizeof(int64_t));
    s->table = take(scratch, s->rows * s->lines * (int64_t)sizeof(void *));
    s->partial = take(scratch, (s->sums - 1) * size * (int64_t)sizeof(real));
    if (!offset || !s->table || !s->partial) return 0;
    const pf_host *host = s->call->host;
    const int64_t time = pixels_of(&s->dy) * s->dy.count * size / s->groups / TERMS_PER_NANOSECOND;
    if (is_narrow(s)) {
        host->parallel_for(s->sums, time, narrow_part, s);
    } else {
        fill_offsets(s, offset);
        s->offset = offset;
        host->parallel_for(s->row_parts, s->rows * s->lines, fill_table, s);
        host->parallel_for(s->tap_parts * s->row_parts * s->sums, time, run_part, s);
    }
    for (int64_t sum = 0; sum + 1 < s->sums; sum++) {
        const real *from = s->partial + sum * size;
        for (int64_t i = 0; i < size; i++) s->dweight[i] += from[i];
    }
    return 1;
}

/* With a few filters most lanes of a vector would be idle. Then `pixels` neighbouring pixels of dy,
 * whose filters lie side by side, are taken for one with as many filters more, and the kernel is
 * made wide enough to serve each of them. Of what it then sums up, pixel i needs the taps from
 * i stride on. */
static int64_t group_pixels(weight_sum *s) {
    int64_t pixels = 1;
    if (s->groups == 1 && s->dilation[2] == 1 && s->w.kernel[2] > s->stride[2])
        while (2 * pixels * s->w.filters <= FULL && s->dy.size[2] % (2 * pixels) == 0) pixels *= 2;
    s->w.kernel[2] += (pixels - 1) * s->stride[2];
    s->w.filters *= pixels;
    s->dy.size[2] /= pixels;
    s->dy.channels *= pixels;
    s->stride[2] *= pixels;
    return pixels;
}

/* dweight = the parts of `grouped` that belong to it */
static void take_apart(const weight_sum *s, int64_t pixels, const real *grouped, real *dweight) {
    const int64_t filters = s->w.filters / pixels, stride = s->stride[2] / pixels;
    const int64_t kernel = s->w.kernel[2] - (pixels - 1) * stride;
    const int64_t outer = s->w.kernel[0] * s->w.kernel[1], inner = kernel * s->w.channels;
    for (int64_t t = 0; t < outer; t++, grouped += s->w.kernel[2] * s->w.channels * s->w.filters)
        for (int64_t row = 0; row < inner; row++, dweight += filters)
            for (int64_t f = 0; f < filters; f++) {
                dweight[f] = 0;
                for (int64_t i = 0; i < pixels; i++)
                    dweight[f] += grouped[(row + i * stride * s->w.channels) * s->w.filters +
                                          i * filters + f];
            }
}

/* sum (F,) = the sum over all rows of y (rows, F): a row of ones times y. */
void CNN_NAME(sum_rows)(const pf_call *call, const real *y, int64_t rows, int64_t filters,
                        real *sum) {
    static const real one = 1;
    const pf_gemm g = {.size = sizeof g,
                       .m = 1,
                       .n = filters,
                       .k = rows,
                       .a = &one,
                       .b = y,
                       .b_row = filters,
                       .c = sum,
                       .c_row = filters};
    call->host->gemm(CNN_BITS)->run(&g);
}

/* dy (N, ..., F), x (N, ..., C), [weight: its shape] -> dweight (..., C / groups, F), dbias (F,) */
int CNN_NAME(conv_weight_grad)(const pf_call *call) {
    const conv_attributes *attributes = call->attributes;
    weight_sum s = {.call = call,
                    .gemm = call->host->gemm(CNN_BITS),
                    .x = images_of(call->inputs[1]),
                    .dy = images_of(call->inputs[0]),
                    .w = weights_of(call->outputs[0]),
                    .groups = attributes->groups,
                    .source = input(call, 1),
                    .dweight = output(call, 0)};
    /* By one kernel, whatever is wanted: the bias's sum has one order, and so the same bits. */
    if (CNN_NAME(is_few)(attributes, &s.w)) return CNN_NAME(few_weight_grad)(call);
    if (output(call, 1))
        CNN_NAME(sum_rows)(call, input(call, 0), s.dy.count * pixels_of(&s.dy), s.w.filters,
                           output(call, 1));
    if (!s.dweight) return PF_OK;
    if (s.groups > 1 && s.w.channels == 1) return CNN_NAME(depthwise_weight_grad)(call);
    if (attributes->winograd) {
        const int status =
            CNN_BY_TILES(winograd_weight_grad, attributes->winograd)(call, &s.x, &s.dy);
        if (status != CNN_NOT_FINITE) return status;
    }
    for (int axis = 0; axis < AXES; axis++) {
        s.stride[axis] = attributes->stride[axis];
        s.dilation[axis] = attributes->dilation[axis];
    }
    arena scratch = arena_of(call);
    if (!pad_source(&s, &scratch)) return out_of_scratch(call);
    const int64_t pixels = group_pixels(&s);
    if (pixels > 1) {
        const int64_t taps = s.w.kernel[0] * s.w.kernel[1] * s.w.kernel[2];
        s.dweight = take(&scratch, taps * s.w.channels * s.w.filters * (int64_t)sizeof(real));
        if (!s.dweight) return out_of_scratch(call);
    }
    choose_parts(&s);
    if (!weight_gradient(&s, &scratch)) return out_of_scratch(call);
    if (pixels > 1) take_apart(&s, pixels, s.dweight, output(call, 0));
    return PF_OK;
}
