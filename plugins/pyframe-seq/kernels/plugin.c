/* The one function that this library exports, and the table that it returns. */
#include "pyframe/pyframe.h"

/* Every kernel, once, a family a line. */
#define SEQ_RECURRENT(line, isa)                                                          \
    line(rnn, isa) line(rnn_grad, isa) line(gru, isa) line(gru_grad, isa) line(lstm, isa) \
        line(lstm_grad, isa)
#define SEQ_ATTENTION(line, isa)                                                              \
    line(attention, isa) line(attention_grad, isa) line(rotary, isa) line(position_rows, isa) \
        line(position_rows_grad, isa)
#define SEQ_ROWS_AND_WORDS(line, isa)                                     \
    line(mask_rows, isa) line(carry, isa) line(linear_cross_entropy, isa) \
        line(linear_cross_entropy_grad, isa) line(draw_token, isa)
#define SEQ_EACH_KERNEL(line, isa) \
    SEQ_RECURRENT(line, isa) SEQ_ATTENTION(line, isa) SEQ_ROWS_AND_WORDS(line, isa)

#define SEQ_DECLARE(kernel, isa)                 \
    int kernel##_f32_##isa(const pf_call *call); \
    int kernel##_f64_##isa(const pf_call *call);
#define SEQ_ROWS(kernel, isa) \
    {#kernel, #isa, 32, 0, kernel##_f32_##isa}, {#kernel, #isa, 64, 0, kernel##_f64_##isa},

SEQ_EACH_KERNEL(SEQ_DECLARE, baseline)
SEQ_EACH_KERNEL(SEQ_DECLARE, avx2)
SEQ_EACH_KERNEL(SEQ_DECLARE, avx512)
SEQ_EACH_KERNEL(SEQ_DECLARE, neon)

/* clang-format off */
static const pf_plugin_kernel kernels[] = {
    SEQ_EACH_KERNEL(SEQ_ROWS, baseline)
#ifdef SEQ_HAVE_AVX2
    SEQ_EACH_KERNEL(SEQ_ROWS, avx2)
#endif
#ifdef SEQ_HAVE_AVX512
    SEQ_EACH_KERNEL(SEQ_ROWS, avx512)
#endif
#ifdef SEQ_HAVE_NEON
    SEQ_EACH_KERNEL(SEQ_ROWS, neon)
#endif
};
/* clang-format on */

const pf_plugin *pyframe_plugin(const pf_host *host) {
    static const pf_plugin plugin = {PF_PLUGIN_HEAD, "pyframe_seq", kernels,
                                     sizeof kernels / sizeof kernels[0], sizeof kernels[0]};
    (void)host; /* each call brings it */
    return &plugin;
}
