/* The one function that this library exports, and the table that it returns. */
#include "pyframe/pyframe.h"

/* Every kernel, once. */
#define CNN_EACH_KERNEL(line, isa)                                               \
    line(conv, isa) line(conv_transpose, isa) line(conv_input_grad, isa)         \
        line(conv_weight_grad, isa) line(max_pool, isa) line(max_pool_grad, isa) \
            line(avg_pool, isa) line(avg_pool_grad, isa) line(zero_pad, isa) line(up_sample, isa)

#define CNN_DECLARE(kernel, isa)                       \
    int cnn_##kernel##_f32_##isa(const pf_call *call); \
    int cnn_##kernel##_f64_##isa(const pf_call *call);
#define CNN_ROWS(kernel, isa)                         \
    {#kernel, #isa, 32, 0, cnn_##kernel##_f32_##isa}, \
        {#kernel, #isa, 64, 0, cnn_##kernel##_f64_##isa},

CNN_EACH_KERNEL(CNN_DECLARE, baseline)
CNN_EACH_KERNEL(CNN_DECLARE, avx2)
CNN_EACH_KERNEL(CNN_DECLARE, avx512)
CNN_EACH_KERNEL(CNN_DECLARE, neon)

/* clang-format off */
static const pf_plugin_kernel kernels[] = {
    CNN_EACH_KERNEL(CNN_ROWS, baseline)
#ifdef CNN_HAVE_AVX2
    CNN_EACH_KERNEL(CNN_ROWS, avx2)
#endif
#ifdef CNN_HAVE_AVX512
    CNN_EACH_KERNEL(CNN_ROWS, avx512)
#endif
#ifdef CNN_HAVE_NEON
    CNN_EACH_KERNEL(CNN_ROWS, neon)
#endif
};
/* clang-format on */

const pf_plugin *pyframe_plugin(const pf_host *host) {
    static const pf_plugin plugin = {PF_PLUGIN_HEAD, "pyframe_cnn", kernels,
                                     sizeof kernels / sizeof kernels[0], sizeof kernels[0]};
    (void)host; /* each call brings it */
    return &plugin;
}
