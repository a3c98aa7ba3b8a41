/* Matrix products: the linear layer and the batched product. */
#include "activation.h"
#include "cost.h"
#include "elementwise.h"
#include "gemm.h"
#include "parallel.h"

/* What is done to a product before it is stored. */
typedef struct {
    int64_t activation; /* enum pf_activation */
    double slope;       /* of the leaky relu */
} linear_attributes;

/* An optional input; a caller may also leave it out of the list. */
static const real *input_or_null(const pf_call *call, uint32_t i) {
    return i < call->input_count ? pf_in(call, (int)i) : NULL;
}

/* The bare product, without an epilogue: c (m, n) = op(a) op(b), all contiguous. */
static pf_gemm product(int transpose_a, int transpose_b, int64_t m, int64_t n, int64_t k,
                       const real *a, const real *b, real *c) {
    return (pf_gemm){.size = sizeof(pf_gemm),
                     .m = m,
                     .n = n,
                     .k = k,
                     .a = a,
                     .a_row = transpose_a ? 1 : k,
                     .a_step = transpose_a ? m : 1,
                     .b = b,
                     .b_row = transpose_b ? k : n,
                     .b_transposed = transpose_b,
                     .c = c,
                     .c_row = n,
                     .residual_row = n,
                     .saved_row = n};
}

/* Runs it with the scratch memory of the call, as often as that has the size. */
static void multiply(const pf_call *call, pf_gemm *g) {
    const int64_t size = PF_NAME(gemm_scratch_size)(g) * (int64_t)sizeof(real);
    const int64_t pieces = size > 0 ? (int64_t)call->scratch_size / size : 0;
    if (pieces > 0) g->scratch = call->scratch;
    PF_NAME(gemm_in_pieces)(g, pieces);
}

/* Linear, for a weight matrix:  x (B, in), weight (in, out), [bias (out,)], [residual (B, out)]
 *     y (B, out) = activation(x weight + bias + residual)
 * and for a weight that is a number, as in the lesson's k x + b:  x (...), weight s(), bias s()
 *     y = weight x + bias */
int PF_NAME(linear)(const pf_call *call) {
    const linear_attributes *attributes = call->attributes;
    const pf_operand *weights = call->inputs[1];
    const real *x = pf_in(call, 0), *weight = pf_in(call, 1), *bias = input_or_null(call, 2);
    real *y = pf_out(call, 0);
    if (pf_count(weights) == 1 && !input_or_null(call, 3)) { /* a 1 x 1 matrix is a number too */
        const real slope = weight[0], offset = bias ? bias[0] : 0;
        const int64_t n = pf_count(call->outputs[0]);
        PF_INDEPENDENT
        for (int64_t i = 0; i < n; i++) y[i] = slope * x[i] + offset;
        if (attributes && attributes->activation)
            PF_NAME(activate_all)((int)attributes->activation, (real)attributes->slope, 1, n, y, n,
                                  NULL, 0);
        return PF_OK;
    }
    pf_gemm g = product(0, 0, pf_row_count(call->inputs[0]), weights->dims[1], weights->dims[0], x,
                        weight, y);
    g.bias = bias;
    g.residual = input_or_null(call, 3);
    if (attributes) g.activation = (int32_t)attributes->activation, g.slope = attributes->slope;
    multiply(call, &g);
    return PF_OK;
}

/* dx = dy weight^T, dweight = x^T dy, dbias = sum of dy over the rows; for a scalar weight
 * dx = weight dy, dweight = sum x dy, dbias = sum dy. An output that is not wanted is skipped.
 *
 * With an optional fourth input `saved`, of the shape of x, dx is multiplied by the derivative of
 * an activation; activations.h says what `saved` holds. */
int PF_NAME(linear_grad)(const pf_call *call) {
    const linear_attributes *attributes = call->attributes;
    const pf_operand *weights = call->inputs[2];
    const real *restrict dy = pf_in(call, 0), *restrict x = pf_in(call, 1);
    const real *restrict weight = pf_in(call, 2);
    real *restrict dx = pf_out(call, 0), *restrict dweight = pf_out(call, 1);
    real *restrict dbias = pf_out(call, 2);
    if (pf_count(weights) == 1) {
        const int64_t n = pf_count(call->inputs[0]);
        const real *restrict saved = input_or_null(call, 3);
        if (dx)
            for (int64_t i = 0; i < n; i++) dx[i] = weight[0] * dy[i];
        if (dx && saved && attributes)
            PF_NAME(activate_all)((int)attributes->activation, (real)attributes->slope, 1, n, dx, n,
                                  saved, n);
        if (dweight && dbias && n >= PF_LANES && n <= PF_BLOCK) {
            dweight[0] = PF_NAME(dot_and_sum_block)(x, dy, n, dbias);
            return PF_OK;
        }
        if (dweight) dweight[0] = pf_dot(x, dy, n);
        if (dbias) dbias[0] = pf_sum(dy, n);
        return PF_OK;
    }
    const int64_t rows = pf_row_count(call->inputs[0]);
    const int64_t in = weights->dims[0], out = weights->dims[1];
    if (dx) {
        pf_gemm g = product(0, 1, rows, in, out, dy, weight, dx);
        g.saved = input_or_null(call, 3);
        if (g.saved && attributes)
            g.activation = (int32_t)attributes->activation, g.slope = attributes->slope;
        multiply(call, &g);
    }
    if (dweight) {
        pf_gemm g = product(1, 0, in, out, rows, x, dy, dweight);
        multiply(call, &g);
    }
    if (dbias && out == 1) {
        dbias[0] = pf_sum(dy, rows);
    } else if (dbias) { /* a row of ones times dy */
        static const real one = 1;
        pf_gemm g = product(0, 0, 1, out, rows, &one, dy, dbias);
        g.a_step = 0;
        PF_NAME(gemm)(&g);
    }
    return PF_OK;
}

typedef struct {
    int64_t transpose_a, transpose_b;
} matmul_attributes;

/* The offset, in matrices, of the matrix of `part` that belongs to matrix number `index` of
 * `whole`, to whose leading axes `part` is broadcast. */
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

enum { LARGE = 1 << 22 }; /* terms: about a tenth of a millisecond */

typedef struct {
    const pf_call *call;
    int64_t m, n, k;
} products_of;

/* Product number i of several. */
static pf_gemm matrix(const products_of *products, int64_t i) {
    const pf_call *call = products->call;
    const matmul_attributes *attributes = call->attributes;
    const pf_operand *y = call->outputs[0];
    const int64_t m = products->m, n = products->n, k = products->k;
    return product(attributes->transpose_a != 0, attributes->transpose_b != 0, m, n, k,
                   pf_in(call, 0) + matrix_offset(call->inputs[0], y, i) * m * k,
                   pf_in(call, 1) + matrix_offset(call->inputs[1], y, i) * k * n,
                   pf_out(call, 0) + i * m * n);
}

static void multiply_one(void *context, int64_t i) {
    pf_gemm g = matrix(context, i);
    PF_NAME(gemm)(&g);
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
        pf_gemm g = product(0, tb, count / n, n, k, pa, pb, py);
        multiply(call, &g);
        return PF_OK;
    }
    products_of products = {.call = call, .m = m, .n = n, .k = k};
    const int64_t matrices = count / (m * n), terms = m * n * k;
    /* Each large product is split among the threads; small ones are handed out whole. */
    if (terms >= LARGE)
        for (int64_t i = 0; i < matrices; i++) {
            pf_gemm g = matrix(&products, i);
            multiply(call, &g);
        }
    else
        pf_parallel_for(matrices, matrices * terms / PF_SMALL_TERMS_PER_NANOSECOND, multiply_one,
                        &products);
    return PF_OK;
}
