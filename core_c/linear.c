/* Matrix products: the linear layer and the batched product. */
#include "activation.h"
#include "columns.h"
#include "gemm.h"

/* What is done to a product before it is stored. */
typedef struct {
    int64_t activation; /* enum pf_activation */
    double slope;       /* of the leaky relu */
} linear_attributes;

/* An optional input that older callers do not know of. */
static const real *input_or_null(const pf_call *call, uint32_t i) {
    return i < call->input_count ? pf_in(call, (int)i) : NULL;
}

/* Linear, for a weight matrix:  x (B, in), weight (in, out), [bias (out,)], [residual (B, out)]
 *     y (B, out) = activation(x weight + bias + residual)
 * and for a weight that is a number, as in the lesson's k x + b:  x (...), weight s(), bias s()
 *     y = weight x + bias */
int PF_NAME(linear)(const pf_call *call) {
    const linear_attributes *attributes = call->attributes;
    const pf_operand *weights = call->inputs[1];
    const real *restrict x = pf_in(call, 0), *restrict weight = pf_in(call, 1);
    const real *restrict bias = input_or_null(call, 2), *restrict residual = input_or_null(call, 3);
    real *restrict y = pf_out(call, 0);
    const int64_t n = pf_count(call->outputs[0]);
    if (weights->ndim == 0) {
        const real slope = weight[0], offset = bias ? bias[0] : 0;
        for (int64_t i = 0; i < n; i++) y[i] = slope * x[i] + offset;
        return PF_OK;
    }
    const int64_t rows = pf_row_count(call->inputs[0]);
    const int64_t in = weights->dims[0], out = weights->dims[1];
    if (bias)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = 0; j < out; j++) y[r * out + j] = bias[j];
    PF_NAME(gemm)(0, 0, rows, out, in, x, weight, y, bias != NULL);
    if (residual)
        for (int64_t i = 0; i < n; i++) y[i] += residual[i];
    if (attributes && attributes->activation != PF_NO_ACTIVATION)
        for (int64_t i = 0; i < n; i++)
            y[i] = pf_activate((int)attributes->activation, y[i], (real)attributes->slope);
    return PF_OK;
}

/* dx = dy weight^T, dweight = x^T dy, dbias = sum of dy over the rows; for a scalar weight
 * dx = weight dy, dweight = sum x dy, dbias = sum dy. An output nobody wants is skipped.
 *
 * With an optional fourth input `saved`, of the shape of x, dx is multiplied by the derivative of
 * the activation whose result `saved` is. */
int PF_NAME(linear_grad)(const pf_call *call) {
    const linear_attributes *attributes = call->attributes;
    const pf_operand *weights = call->inputs[2];
    const real *restrict dy = pf_in(call, 0), *restrict x = pf_in(call, 1);
    const real *restrict weight = pf_in(call, 2), *saved = input_or_null(call, 3);
    real *restrict dx = pf_out(call, 0), *restrict dweight = pf_out(call, 1);
    real *restrict dbias = pf_out(call, 2);
    if (weights->ndim == 0) {
        const int64_t n = pf_count(call->inputs[0]);
        if (dx)
            for (int64_t i = 0; i < n; i++) dx[i] = weight[0] * dy[i];
        if (dweight) dweight[0] = pf_dot(x, dy, n);
        if (dbias) dbias[0] = pf_sum(dy, n);
        return PF_OK;
    }
    const int64_t rows = pf_row_count(call->inputs[0]);
    const int64_t in = weights->dims[0], out = weights->dims[1];
    if (dx) PF_NAME(gemm)(0, 1, rows, in, out, dy, weight, dx, 0);
    if (dx && saved && attributes)
        for (int64_t i = 0; i < rows * in; i++)
            dx[i] = pf_activate_grad((int)attributes->activation, dx[i], saved[i],
                                     (real)attributes->slope);
    if (dweight) PF_NAME(gemm)(1, 0, in, out, rows, x, dy, dweight, 0);
    if (dbias && out == 1) {
        dbias[0] = pf_sum(dy, rows);
    } else if (dbias) {
        PF_SUM_COLUMNS(dbias, rows, out, dy[i]);
    }
    return PF_OK;
}

typedef struct {
    int64_t transpose_a, transpose_b;
} matmul_attributes;

/* The product of the leading axes of `whole` that `part` has, or repeats: the offset, in matrices,
 * of part's matrix that belongs to matrix number `index` of whole. */
static int64_t matrix_offset(const pf_operand *part, const pf_operand *whole, int64_t index) {
    int64_t offset = 0, step = 1;
    for (int axis = part->ndim - 3; axis >= 0; axis--) {
        const int64_t extent = whole->dims[axis + whole->ndim - part->ndim];
        if (part->dims[axis] > 1) offset += index % extent * step;
        step *= part->dims[axis];
        index /= extent;
    }
    return offset;
}

/* a (..., m, k), b (..., k, n), each perhaps stored transposed -> y (..., m, n); the leading axes
 * broadcast. */
int PF_NAME(matmul)(const pf_call *call) {
    const matmul_attributes *attributes = call->attributes;
    const int ta = attributes->transpose_a != 0, tb = attributes->transpose_b != 0;
    const pf_operand *a = call->inputs[0], *b = call->inputs[1], *y = call->outputs[0];
    const int64_t m = y->dims[y->ndim - 2], n = y->dims[y->ndim - 1];
    const int64_t k = a->dims[a->ndim - (ta ? 2 : 1)];
    const int64_t count = pf_count(y);
    if (count == 0) return PF_OK;
    const real *pa = pf_in(call, 0), *pb = pf_in(call, 1);
    real *py = pf_out(call, 0);
    if (b->ndim == 2 && !ta) {
        /* One b for all: the matrices of a lie below each other, one tall matrix. */
        PF_NAME(gemm)(0, tb, count / n, n, k, pa, pb, py, 0);
        return PF_OK;
    }
    for (int64_t i = 0; i < count / (m * n); i++)
        PF_NAME(gemm)(ta, tb, m, n, k, pa + matrix_offset(a, y, i) * m * k,
                      pb + matrix_offset(b, y, i) * k * n, py + i * m * n, 0);
    return PF_OK;
}
