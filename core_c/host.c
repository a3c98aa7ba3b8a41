/* The host table: what the core offers to kernels, its own and those of plugins. */
#include <stdio.h>
#include <string.h>

#include "isa.h"
#include "parallel.h"
#include "random.h"

static int fail(const pf_call *call, int code, int32_t operand, int64_t index, int64_t value) {
    call->error->code = code;
    call->error->operand = operand;
    call->error->index = index;
    call->error->value = value;
    call->error->message[0] = 0;
    return code;
}

static int refuse(const pf_call *call, const char *message) {
    fail(call, PF_ERROR_KERNEL, -1, -1, 0);
    snprintf(call->error->message, sizeof call->error->message, "%s", message);
    return PF_ERROR_KERNEL;
}

static const pf_host host = {
    .size = sizeof(pf_host),
    .abi_major = PF_ABI_MAJOR,
    .abi_minor = PF_ABI_MINOR,
    .philox = pf_philox,
    .fail = fail,
    .refuse = refuse,
    .parallel_for = pf_parallel_for,
    .gemm = pf_host_gemm,
    .vector = pf_host_vector,
};

const char *pf_activation_name(int activation) {
#define NAME_OF_EACH(code, number, name, value, grad) \
    if (activation == code) return #name;
#define NAME_OF_ROW(code, number, name, grad) NAME_OF_EACH(code, number, name, , grad)
    PF_ACTIVATIONS(NAME_OF_EACH, NAME_OF_ROW)
    return activation == PF_NO_ACTIVATION ? "none" : NULL;
}

const pf_host *pf_get_host(void) { return &host; }

uint64_t pf_struct_size(const char *name) {
    if (strcmp(name, "pf_operand") == 0) return sizeof(pf_operand);
    if (strcmp(name, "pf_call") == 0) return sizeof(pf_call);
    if (strcmp(name, "pf_step") == 0) return sizeof(pf_step);
    if (strcmp(name, "pf_error") == 0) return sizeof(pf_error);
    if (strcmp(name, "pf_host") == 0) return sizeof(pf_host);
    if (strcmp(name, "pf_value") == 0) return sizeof(pf_value);
    if (strcmp(name, "pf_instruction") == 0) return sizeof(pf_instruction);
    return 0;
}
