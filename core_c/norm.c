/* Normalization: x, y (B, C); scale and shift (C,).
 *
 * With a mean m and a variance v,  x^ = (x - m) / sqrt(v + epsilon)  and  y = scale x^ + shift.
 * BatchNorm takes m and v of each column over the batch, LayerNorm of each row by itself. */
#include "columns.h"

typedef struct {
    double momentum, epsilon;
} batch_norm_attributes;

/* x, scale, shift; states running mean and variance -> y, and the mean (C,) and 1 / sqrt(v +
 * epsilon) (C,) that were used. Training takes them from the batch and moves the running ones:
 *     running = momentum running + (1 - momentum) batch
 * with the unbiased variance of the batch, sum (x - m)^2 / (B - 1), as its estimate of all data's.
 * An empty batch has no statistics, and the running ones stand in. Scratch: 2 C reals. */
int PF_NAME(batch_norm)(const pf_call *call) {
    const batch_norm_attributes *attributes = call->attributes;
    const real *restrict x = pf_in(call, 0), *restrict scale = pf_in(call, 1);
    const real *restrict shift = pf_in(call, 2);
    real *restrict running_mean = pf_state(call, 0), *restrict running_variance = pf_state(call, 1);
    real *restrict y = pf_out(call, 0);
    const int64_t width = pf_last_dim(call->inputs[0]), rows = pf_row_count(call->inputs[0]);
    real *restrict mean = call->scratch, *restrict inverse = mean + width;

    if ((call->flags & PF_TRAINING) && rows > 0) {
        const real keep = (real)attributes->momentum, take = (real)(1 - attributes->momentum);
        PF_SUM_COLUMNS(mean, rows, width, x[i]);
        for (int64_t c = 0; c < width; c++) mean[c] /= (real)rows;
        PF_SUM_COLUMNS(inverse, rows, width, (x[i] - mean[c]) * (x[i] - mean[c]));
        const real unbiased = (real)(rows > 1 ? rows - 1 : 1);
        for (int64_t c = 0; c < width; c++) {
            running_mean[c] = keep * running_mean[c] + take * mean[c];
            running_variance[c] = keep * running_variance[c] + take * (inverse[c] / unbiased);
            inverse[c] /= (real)rows;
        }
    } else {
        for (int64_t c = 0; c < width; c++) {
            mean[c] = running_mean[c];
            inverse[c] = running_variance[c];
        }
    }
    const real epsilon = (real)attributes->epsilon;
    for (int64_t c = 0; c < width; c++) inverse[c] = R(1.0) / r_sqrt(inverse[c] + epsilon);
    if (y)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < width; c++) {
                const int64_t i = r * width + c;
                y[i] = (x[i] - mean[c]) * inverse[c] * scale[c] + shift[c];
            }
    const size_t bytes = (size_t)width * sizeof(real);
    if (pf_out(call, 1) && bytes > 0) memcpy(pf_out(call, 1), mean, bytes);
    if (pf_out(call, 2) && bytes > 0) memcpy(pf_out(call, 2), inverse, bytes);
    return PF_OK;
}

/* dy, x, scale, mean (C,), inverse (C,) -> dx, dscale = sum dy x^, dshift = sum dy.
 *     training:  dx = scale inverse (dy - dshift / B - x^ dscale / B)
 *     otherwise: dx = scale inverse dy, since the running statistics do not depend on x.
 * Ioffe and Szegedy, "Batch normalization", 2015, section 3. Scratch: 2 C reals. */
int PF_NAME(batch_norm_grad)(const pf_call *call) {
    const real *restrict dy = pf_in(call, 0), *restrict x = pf_in(call, 1);
    const real *restrict scale = pf_in(call, 2), *restrict mean = pf_in(call, 3);
    const real *restrict inverse = pf_in(call, 4);
    real *restrict dx = pf_out(call, 0);
    const int64_t width = pf_last_dim(call->inputs[0]), rows = pf_row_count(call->inputs[0]);
    real *restrict dscale = call->scratch, *restrict dshift = dscale + width;
    PF_SUM_COLUMNS(dshift, rows, width, dy[i]);
    PF_SUM_COLUMNS(dscale, rows, width, dy[i] * ((x[i] - mean[c]) * inverse[c]));
    if (dx) {
        const real share = call->flags & PF_TRAINING ? R(1.0) / (real)rows : 0;
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < width; c++) {
                const int64_t i = r * width + c;
                const real hat = (x[i] - mean[c]) * inverse[c];
                dx[i] = scale[c] * inverse[c] * (dy[i] - (dshift[c] + hat * dscale[c]) * share);
            }
    }
    const size_t bytes = (size_t)width * sizeof(real);
    if (pf_out(call, 1) && bytes > 0) memcpy(pf_out(call, 1), dscale, bytes);
    if (pf_out(call, 2) && bytes > 0) memcpy(pf_out(call, 2), dshift, bytes);
    return PF_OK;
}

typedef struct {
    double epsilon;
} layer_norm_attributes;

/* Mean and 1 / sqrt(variance + epsilon) of a row of n > 0 elements; `centred` is room for n. */
static real row_statistics(const real *restrict x, int64_t n, real epsilon, real *restrict centred,
                           real *mean) {
    *mean = pf_sum(x, n) / (real)n;
    for (int64_t i = 0; i < n; i++) centred[i] = x[i] - *mean;
    return R(1.0) / r_sqrt(pf_dot(centred, centred, n) / (real)n + epsilon);
}

/* x, scale, shift -> y */
int PF_NAME(layer_norm)(const pf_call *call) {
    const layer_norm_attributes *attributes = call->attributes;
    const real *restrict x = pf_in(call, 0), *restrict scale = pf_in(call, 1);
    const real *restrict shift = pf_in(call, 2);
    real *restrict y = pf_out(call, 0);
    const int64_t n = pf_last_dim(call->inputs[0]), rows = pf_row_count(call->inputs[0]);
    if (n == 0) return PF_OK;
    for (int64_t r = 0; r < rows; r++, x += n, y += n) {
        real mean, inverse = row_statistics(x, n, (real)attributes->epsilon, y, &mean);
        for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * inverse * scale[i] + shift[i];
    }
    return PF_OK;
}

/* dy, x, scale -> dx, dscale = sum over rows of dy x^, dshift = sum over rows of dy.
 * With g = dy scale, each row by itself:  dx = inverse (g - mean(g) - x^ mean(g x^)).
 * Ba, Kiros and Hinton, "Layer normalization", 2016. The sums over
 * rows are taken PF_ROWS rows at a time. Scratch: 4 C reals. */
int PF_NAME(layer_norm_grad)(const pf_call *call) {
    const layer_norm_attributes *attributes = call->attributes;
    const real *restrict dy = pf_in(call, 0), *restrict x = pf_in(call, 1);
    const real *restrict scale = pf_in(call, 2);
    real *restrict dx = pf_out(call, 0);
    real *restrict dscale = pf_out(call, 1), *restrict dshift = pf_out(call, 2);
    const int64_t n = pf_last_dim(call->inputs[0]), rows = pf_row_count(call->inputs[0]);
    if (n == 0) return PF_OK;
    real *restrict hat = call->scratch, *restrict g = hat + n;
    real *restrict scale_sum = g + n, *restrict shift_sum = scale_sum + n;
    const size_t bytes = (size_t)n * sizeof(real);
    if (dscale) memset(dscale, 0, bytes);
    if (dshift) memset(dshift, 0, bytes);
    memset(scale_sum, 0, 2 * bytes);
    for (int64_t r = 0; r < rows; r++, x += n, dy += n) {
        real mean, inverse = row_statistics(x, n, (real)attributes->epsilon, hat, &mean);
        for (int64_t i = 0; i < n; i++) {
            hat[i] *= inverse;
            scale_sum[i] += dy[i] * hat[i];
            shift_sum[i] += dy[i];
        }
        if (dx) {
            for (int64_t i = 0; i < n; i++) g[i] = dy[i] * scale[i];
            const real mean_g = pf_sum(g, n) / (real)n, mean_g_hat = pf_dot(g, hat, n) / (real)n;
            for (int64_t i = 0; i < n; i++)
                dx[r * n + i] = inverse * (g[i] - mean_g - hat[i] * mean_g_hat);
        }
        if ((r + 1) % PF_ROWS == 0 || r + 1 == rows) {
            if (dscale)
                for (int64_t i = 0; i < n; i++) dscale[i] += scale_sum[i];
            if (dshift)
                for (int64_t i = 0; i < n; i++) dshift[i] += shift_sum[i];
            memset(scale_sum, 0, 2 * bytes);
        }
    }
    return PF_OK;
}
