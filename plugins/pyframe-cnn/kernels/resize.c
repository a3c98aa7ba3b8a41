/* Zeros around images, and images enlarged. */
#include "conv.h"

/* ---- zeros around ---- */

static void pad_image(void *context, int64_t n) {
    const padding *p = context;
    const int64_t *size = p->size.size, *padded = p->padded, *before = p->before;
    const int64_t channels = p->size.channels, line = padded[2] * channels;
    const int64_t copied = min_of(size[2], padded[2] - before[2]) * channels;
    const real *from = p->from + n * image_elements(&p->size);
    real *to = p->to + n * padded[0] * padded[1] * line;
    for (int64_t d = 0; d < padded[0]; d++)
        for (int64_t h = 0; h < padded[1]; h++, to += line) {
            const int64_t at_d = d - before[0], at_h = h - before[1];
            if (at_d < 0 || at_d >= size[0] || at_h < 0 || at_h >= size[1] || copied <= 0) {
                memset(to, 0, (size_t)line * sizeof(real));
                continue;
            }
            const int64_t left = before[2] * channels;
            memset(to, 0, (size_t)left * sizeof(real));
            memcpy(to + left, from + (at_d * size[1] + at_h) * size[2] * channels,
                   (size_t)copied * sizeof(real));
            memset(to + left + copied, 0, (size_t)(line - left - copied) * sizeof(real));
        }
}

void CNN_NAME(pad)(const pf_call *call, const padding *p) {
    const int64_t elements =
        p->size.count * p->padded[0] * p->padded[1] * p->padded[2] * p->size.channels;
    call->host->parallel_for(p->size.count, elements / 8, pad_image, (void *)p);
}

typedef struct {
    int64_t before[AXES];
} pad_attributes;

/* x (N, ..., C) -> y (N, ..., C) with zeros in front of and behind each axis */
int CNN_NAME(zero_pad)(const pf_call *call) {
    const pad_attributes *attributes = call->attributes;
    const images y = images_of(call->outputs[0]);
    padding p = {.from = input(call, 0), .to = output(call, 0), .size = images_of(call->inputs[0])};
    for (int axis = 0; axis < AXES; axis++) {
        p.before[axis] = attributes->before[axis];
        p.padded[axis] = y.size[axis];
    }
    CNN_NAME(pad)(call, &p);
    return PF_OK;
}

/* ---- enlarged ---- */

typedef struct {
    int64_t factor[AXES];
} scale_attributes;

typedef struct {
    const real *small;
    real *large;
    images from;
    const int64_t *factor;
} scaling;

static void scale_image(void *context, int64_t n) {
    const scaling *s = context;
    const int64_t *size = s->from.size, *factor = s->factor, channels = s->from.channels;
    const int64_t line = size[2] * factor[2] * channels;
    const real *small = s->small + n * image_elements(&s->from);
    real *to = s->large + n * image_elements(&s->from) * factor[0] * factor[1] * factor[2];
    for (int64_t d = 0; d < size[0]; d++) {
        const real *plane = to;
        for (int64_t h = 0; h < size[1]; h++) {
            const real *first = to;
            for (int64_t w = 0; w < size[2]; w++, small += channels)
                for (int64_t i = 0; i < factor[2]; i++, to += channels)
                    memcpy(to, small, (size_t)channels * sizeof(real));
            for (int64_t i = 1; i < factor[1]; i++, to += line)
                memcpy(to, first, (size_t)line * sizeof(real));
        }
        const int64_t elements = size[1] * factor[1] * line;
        for (int64_t i = 1; i < factor[0]; i++, to += elements)
            memcpy(to, plane, (size_t)elements * sizeof(real));
    }
}

/* x (N, ..., C) -> y (N, ..., C): each pixel is repeated `factor` times along each axis */
int CNN_NAME(up_sample)(const pf_call *call) {
    const scale_attributes *attributes = call->attributes;
    const scaling s = {input(call, 0), output(call, 0), images_of(call->inputs[0]),
                       attributes->factor};
    const images y = images_of(call->outputs[0]);
    call->host->parallel_for(y.count, y.count * image_elements(&y) / 8, scale_image, (void *)&s);
    return PF_OK;
}
