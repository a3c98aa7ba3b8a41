/* Shapes: elements move and keep their values. */
#include "elementwise.h"
#include "walk.h"

typedef struct {
    int64_t axes[PF_MAX_NDIM]; /* a permutation, none negative */
} transpose_attributes;

/* y's axis i is x's axis axes[i] */
int PF_NAME(transpose)(const pf_call *call) {
    const transpose_attributes *attributes = call->attributes;
    const pf_operand *x = call->inputs[0];
    pf_walk walk = {0};
    int64_t strides[PF_MAX_NDIM];
    pf_strides(x, strides);
    for (int i = 0; i < x->ndim; i++) {
        int64_t axis = attributes->axes[i];
        pf_walk_push(&walk, x->dims[axis], strides[axis], 0);
    }
    pf_gather(call, pf_in(call, 0), walk);
    return PF_OK;
}

typedef struct {
    int64_t axis;     /* not negative */
    int64_t position; /* concat_grad: the index of the input whose part is taken */
} concat_attributes;

/* The number of elements that share one index along all axes before `axis`. */
static int64_t chunk(const pf_operand *t, int64_t axis) {
    int64_t n = 1;
    for (int64_t i = axis; i < t->ndim; i++) n *= t->dims[i];
    return n;
}
/* The number of such chunks. */
static int64_t chunks(const pf_operand *t, int64_t axis) {
    int64_t n = 1;
    for (int64_t i = 0; i < axis; i++) n *= t->dims[i];
    return n;
}

/* Copies of `count` chunks of n elements, `from_step` and `to_step` apart. */
typedef struct {
    const real *from;
    real *to;
    int64_t n, from_step, to_step;
} chunk_copy;

static void copy_part(const pf_call *call, int64_t part, int64_t first, int64_t end, void *copy) {
    (void)call, (void)part;
    const chunk_copy *c = copy;
    for (int64_t r = first; r < end; r++)
        memcpy(c->to + r * c->to_step, c->from + r * c->from_step, (size_t)c->n * sizeof(real));
}

static void copy_chunks(const pf_call *call, int64_t count, chunk_copy copy) {
    const int64_t bytes = copy.n * (int64_t)sizeof(real);
    if (copy.n > 0) pf_in_parts(call, count, pf_rows_of_part(bytes), 2 * bytes, copy_part, &copy);
}

/* y = x_1, .., x_n, one after the other along the axis */
int PF_NAME(concat)(const pf_call *call) {
    const concat_attributes *attributes = call->attributes;
    int64_t count = chunks(call->outputs[0], attributes->axis);
    int64_t row = chunk(call->outputs[0], attributes->axis), at = 0;
    for (uint32_t k = 0; k < call->input_count; k++) {
        int64_t n = chunk(call->inputs[k], attributes->axis);
        chunk_copy copy = {pf_in(call, (int)k), pf_out(call, 0) + at, n, n, row};
        copy_chunks(call, count, copy);
        at += n;
    }
    return PF_OK;
}

/* dx_i = the part of dy that came from x_i; inputs: dy, then all x, for their shapes */
int PF_NAME(concat_grad)(const pf_call *call) {
    const concat_attributes *attributes = call->attributes;
    int64_t axis = attributes->axis, count = chunks(call->outputs[0], axis);
    int64_t n = chunk(call->outputs[0], axis), row = chunk(call->inputs[0], axis), at = 0;
    for (int64_t k = 0; k < attributes->position; k++) at += chunk(call->inputs[1 + k], axis);
    chunk_copy copy = {pf_in(call, 0) + at, pf_out(call, 0), n, row, n};
    copy_chunks(call, count, copy);
    return PF_OK;
}

typedef struct {
    /* For each axis of x: indices start + j step, 0 <= j < count, all of them within x. */
    int64_t start[PF_MAX_NDIM], step[PF_MAX_NDIM], count[PF_MAX_NDIM];
} slice_attributes;

/* The walk over the part of x given by the attributes, and where it begins. */
static pf_walk part(const pf_operand *x, const slice_attributes *attributes, int64_t *begin) {
    pf_walk walk = {0};
    int64_t strides[PF_MAX_NDIM];
    pf_strides(x, strides);
    *begin = 0;
    for (int i = 0; i < x->ndim; i++) {
        *begin += attributes->start[i] * strides[i];
        pf_walk_push(&walk, attributes->count[i], attributes->step[i] * strides[i], 0);
    }
    return walk;
}

/* y = the part of x given by the attributes */
int PF_NAME(slice)(const pf_call *call) {
    int64_t begin;
    pf_walk walk = part(call->inputs[0], call->attributes, &begin);
    if (pf_count(call->outputs[0]) > 0) pf_gather(call, pf_in(call, 0) + begin, walk);
    return PF_OK;
}

/* dx = dy in the part that was taken, else 0 */
int PF_NAME(slice_grad)(const pf_call *call) {
    const real *restrict dy = pf_in(call, 0);
    real *restrict dx = pf_out(call, 0);
    int64_t begin, n = pf_count(call->outputs[0]);
    for (int64_t i = 0; i < n; i++) dx[i] = 0;
    pf_walk walk = part(call->outputs[0], call->attributes, &begin);
    if (pf_walk_count(&walk) == 0) return PF_OK;
    pf_axis row = pf_walk_pop(&walk);
    int64_t rows = pf_walk_count(&walk);
    dx += begin;
    for (int64_t r = 0; r < rows; r++, dy += row.extent, pf_walk_next(&walk))
        for (int64_t i = 0; i < row.extent; i++) dx[walk.offset[0] + i * row.strides[0]] = dy[i];
    return PF_OK;
}

PF_RARE_KERNEL(take)
PF_RARE_KERNEL(take_grad)
#if PF_DEFINES_RARE
/* Fails at the first index of input 1 that lies outside of [0, n). */
static int check_indices(const pf_call *call, int64_t n) {
    const int64_t *indices = pf_in_int(call, 1), count = pf_count(call->inputs[1]);
    for (int64_t i = 0; i < count; i++)
        if (indices[i] < 0 || indices[i] >= n)
            return call->host->fail(call, PF_ERROR_LABEL, 1, i, indices[i]);
    return PF_OK;
}

/* y[i] = x[indices[i]], along the first axis of x */
int PF_RARE(take)(const pf_call *call) {
    const pf_operand *x = call->inputs[0];
    const int status = check_indices(call, x->dims[0]);
    if (status != PF_OK) return status;
    const int64_t *indices = pf_in_int(call, 1), count = pf_count(call->inputs[1]);
    const int64_t row = chunk(x, 1);
    const real *from = pf_in(call, 0);
    real *y = pf_out(call, 0);
    if (row > 0)
        for (int64_t i = 0; i < count; i++, y += row)
            memcpy(y, from + indices[i] * row, (size_t)row * sizeof(real));
    return PF_OK;
}

/* dx[k] = the sum of dy[i] over all i with indices[i] = k, in the order of i */
int PF_RARE(take_grad)(const pf_call *call) {
    const pf_operand *x = call->outputs[0];
    const int status = check_indices(call, x->dims[0]);
    if (status != PF_OK) return status;
    const int64_t *indices = pf_in_int(call, 1), count = pf_count(call->inputs[1]);
    const int64_t row = chunk(x, 1), n = pf_count(x);
    const real *restrict dy = pf_in(call, 0);
    real *restrict dx = pf_out(call, 0);
    for (int64_t i = 0; i < n; i++) dx[i] = 0;
    for (int64_t i = 0; i < count; i++, dy += row) {
        real *to = dx + indices[i] * row;
        PF_RARE_INDEPENDENT
        for (int64_t j = 0; j < row; j++) to[j] += dy[j];
    }
    return PF_OK;
}
#endif
