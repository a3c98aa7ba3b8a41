/* Where every field of the public structs lies on 64-bit platforms. A released field stays where it
 * is: a later one is a new line here, under its condition, and no line changes. A plugin whose
 * compiler lays structs out differently fails to compile here. */
#ifndef PYFRAME_LAYOUT_H
#define PYFRAME_LAYOUT_H

#define PF_AT(type, field, at) \
    PF_STATIC_ASSERT(offsetof(type, field) == (at), #type "." #field " has moved")

PF_AT(pf_operand, size, 0);
PF_AT(pf_operand, ndim, 4);
PF_AT(pf_operand, data, 8);
PF_AT(pf_operand, dims, 16);
PF_AT(pf_operand, strides, 24);
PF_AT(pf_operand, type_code, 32);
PF_AT(pf_operand, type_bits, 33);
PF_AT(pf_operand, type_lanes, 34);
PF_AT(pf_operand, reserved, 36);

PF_AT(pf_step, size, 0);
PF_AT(pf_step, reserved, 4);
PF_AT(pf_step, seed, 8);
PF_AT(pf_step, step, 16);
PF_AT(pf_step, first_sample, 24);
PF_AT(pf_step, learning_rate, 32);

PF_AT(pf_error, size, 0);
PF_AT(pf_error, code, 4);
PF_AT(pf_error, operand, 8);
PF_AT(pf_error, reserved, 12);
PF_AT(pf_error, index, 16);
PF_AT(pf_error, value, 24);
PF_AT(pf_error, message, 32);

PF_AT(pf_call, size, 0);
PF_AT(pf_call, flags, 4);
PF_AT(pf_call, input_count, 8);
PF_AT(pf_call, output_count, 12);
PF_AT(pf_call, state_count, 16);
PF_AT(pf_call, attribute_size, 20);
PF_AT(pf_call, inputs, 24);
PF_AT(pf_call, outputs, 32);
PF_AT(pf_call, states, 40);
PF_AT(pf_call, attributes, 48);
PF_AT(pf_call, scratch, 56);
PF_AT(pf_call, scratch_size, 64);
PF_AT(pf_call, accumulate, 72);
PF_AT(pf_call, stream, 80);
PF_AT(pf_call, step, 88);
PF_AT(pf_call, error, 96);
PF_AT(pf_call, host, 104);

PF_AT(pf_vector_functions, size, 0);
PF_AT(pf_vector_functions, reserved, 4);
PF_AT(pf_vector_functions, exp, 8);
PF_AT(pf_vector_functions, log, 16);
PF_AT(pf_vector_functions, tanh, 24);
PF_AT(pf_vector_functions, sigmoid, 32);
PF_AT(pf_vector_functions, erf, 40);
PF_AT(pf_vector_functions, softmax, 48);
PF_AT(pf_vector_functions, sum, 56);
PF_AT(pf_vector_functions, dot, 64);

PF_AT(pf_gemm, size, 0);
PF_AT(pf_gemm, activation, 4);
PF_AT(pf_gemm, m, 8);
PF_AT(pf_gemm, n, 16);
PF_AT(pf_gemm, k, 24);
PF_AT(pf_gemm, a, 32);
PF_AT(pf_gemm, a_row, 40);
PF_AT(pf_gemm, a_step, 48);
PF_AT(pf_gemm, a_rows, 56);
PF_AT(pf_gemm, a_zero, 64);
PF_AT(pf_gemm, a_offset, 72);
PF_AT(pf_gemm, taps, 80);
PF_AT(pf_gemm, a_rows_shared, 88);
PF_AT(pf_gemm, reserved, 92);
PF_AT(pf_gemm, b, 96);
PF_AT(pf_gemm, b_row, 104);
PF_AT(pf_gemm, b_transposed, 112);
PF_AT(pf_gemm, b_packed, 116);
PF_AT(pf_gemm, c, 120);
PF_AT(pf_gemm, c_row, 128);
PF_AT(pf_gemm, accumulate, 136);
PF_AT(pf_gemm, reserved2, 140);
PF_AT(pf_gemm, scale, 144);
PF_AT(pf_gemm, bias, 152);
PF_AT(pf_gemm, residual, 160);
PF_AT(pf_gemm, residual_row, 168);
PF_AT(pf_gemm, slope, 176);
PF_AT(pf_gemm, saved, 184);
PF_AT(pf_gemm, saved_row, 192);
PF_AT(pf_gemm, scratch, 200);

PF_AT(pf_gemm_functions, size, 0);
PF_AT(pf_gemm_functions, reserved, 4);
PF_AT(pf_gemm_functions, run, 8);
PF_AT(pf_gemm_functions, scratch_size, 16);
PF_AT(pf_gemm_functions, packed_size, 24);
PF_AT(pf_gemm_functions, pack, 32);

PF_AT(pf_host, size, 0);
PF_AT(pf_host, abi_major, 4);
PF_AT(pf_host, abi_minor, 6);
PF_AT(pf_host, philox, 8);
PF_AT(pf_host, fail, 16);
PF_AT(pf_host, refuse, 24);
PF_AT(pf_host, parallel_for, 32);
PF_AT(pf_host, gemm, 40);
PF_AT(pf_host, vector, 48);

PF_AT(pf_plugin_kernel, name, 0);
PF_AT(pf_plugin_kernel, isa, 8);
PF_AT(pf_plugin_kernel, bits, 16);
PF_AT(pf_plugin_kernel, flags, 20);
PF_AT(pf_plugin_kernel, kernel, 24);

PF_AT(pf_plugin, size, 0);
PF_AT(pf_plugin, abi_major, 4);
PF_AT(pf_plugin, abi_minor, 6);
PF_AT(pf_plugin, name, 8);
PF_AT(pf_plugin, kernels, 16);
PF_AT(pf_plugin, kernel_count, 24);
PF_AT(pf_plugin, kernel_size, 28);

#undef PF_AT

#endif
