/* The executor: programs, contexts and the loop over epochs.
 *
 * A program is a flat list of instructions over a table of values. A context gives each value an
 * address and each instruction a ready-made pf_call, so running an instruction is one indirect
 * call. All that is allocated is allocated when a program or a context is made, never while one
 * runs. */
#define _POSIX_C_SOURCE 200809L
#include "plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef _WIN32
#include <windows.h>
#else
#include <time.h>
#endif

#include "blocks.h"
#include "guard.h"
#include "random.h"

enum { ALIGNMENT = 64 };

/* How many bytes the kernels may touch between two looks at the clock: well below a millisecond. */
static const int64_t WORK_PER_CLOCK = 1 << 20;

static double now(void) {
#ifdef _WIN32
    LARGE_INTEGER count, frequency;
    QueryPerformanceCounter(&count);
    QueryPerformanceFrequency(&frequency);
    return (double)count.QuadPart / (double)frequency.QuadPart;
#else
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
#endif
}

/* ---- host table ---- */

static int fail(const pf_call *call, int code, int32_t operand, int64_t index, int64_t value) {
    call->error->code = code;
    call->error->operand = operand;
    call->error->index = index;
    call->error->value = value;
    return code;
}

static const pf_host host = {
    .size = sizeof(pf_host),
    .abi_major = PF_ABI_MAJOR,
    .abi_minor = PF_ABI_MINOR,
    .philox = pf_philox,
    .fail = fail,
};

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

/* ---- program ---- */

struct pf_program {
    pf_program_spec spec;  /* its pointers lead into `memory` */
    int64_t scratch_bytes; /* the largest that an instruction asks for */
    unsigned char *memory;
};

static int64_t round_up(int64_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

/* Copies `bytes` bytes to *at, moves *at on, and returns where they are now. */
static const void *keep(unsigned char **at, const void *from, int64_t bytes) {
    unsigned char *copy = *at;
    if (bytes > 0) memcpy(copy, from, (size_t)bytes);
    *at += round_up(bytes);
    return copy;
}

pf_program *pf_program_new(const pf_program_spec *spec) {
    int64_t values = spec->value_count * (int64_t)sizeof(pf_value);
    int64_t instructions = spec->instruction_count * (int64_t)sizeof(pf_instruction);
    int64_t dims = spec->dims_count * (int64_t)sizeof(int64_t);
    int64_t slots = spec->slot_count * (int64_t)sizeof(int32_t);
    int64_t records = spec->record_count * (int64_t)sizeof(int32_t);
    int64_t total = round_up(values) + round_up(instructions) + round_up(dims) + round_up(slots) +
                    round_up(spec->attribute_bytes) + round_up(records);

    pf_program *program = calloc(1, sizeof *program);
    if (!program) return NULL;
    program->memory = malloc((size_t)total + 1);
    if (!program->memory) {
        free(program);
        return NULL;
    }
    unsigned char *at = program->memory;
    program->spec = *spec;
    program->spec.values = keep(&at, spec->values, values);
    pf_instruction *kept = (pf_instruction *)at;
    program->spec.instructions = keep(&at, spec->instructions, instructions);
    for (int64_t i = 0; i < spec->instruction_count; i++)
        if (kept[i].group) kept[i].kernel = pf_run_group;
    program->spec.dims = keep(&at, spec->dims, dims);
    program->spec.slots = keep(&at, spec->slots, slots);
    program->spec.attributes = keep(&at, spec->attributes, spec->attribute_bytes);
    program->spec.records = keep(&at, spec->records, records);
    for (int64_t i = 0; i < spec->instruction_count; i++)
        if (spec->instructions[i].scratch_bytes > program->scratch_bytes)
            program->scratch_bytes = spec->instructions[i].scratch_bytes;
    return program;
}

void pf_program_free(pf_program *program) {
    if (!program) return;
    free(program->memory);
    free(program);
}

/* ---- context ---- */

struct pf_context {
    const pf_program *program;
    pf_guard **guards;
    int64_t guard_count;
    unsigned char **bases;
    pf_operand *operands;     /* one a value */
    const pf_operand **slots; /* as in the program, as pointers */
    pf_call *calls;           /* one an instruction */
    pf_group *groups;         /* one an instruction; of use for the heads of groups */
    int64_t *values_of_base;  /* the values in the order of their bases ... */
    int64_t *first_of_base;   /* ... and where each base's begin; base_count + 1 entries */
    void *arena_memory;
    void *scratch_memory;
    int64_t position;
    int writing, reading;
    pf_step step;
    pf_error error;
};

static const pf_operand absent = {.size = sizeof(pf_operand)};

static void *aligned(void *memory) {
    return (void *)(((uintptr_t)memory + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
}

/* Counting sort of the values by their bases, so that binding a base touches its values only. */
static void index_bases(pf_context *context) {
    const pf_program_spec *spec = &context->program->spec;
    for (int64_t v = 0; v < spec->value_count; v++)
        if (spec->values[v].base >= 0) context->first_of_base[spec->values[v].base + 1]++;
    for (int64_t b = 0; b < spec->base_count; b++)
        context->first_of_base[b + 1] += context->first_of_base[b];
    for (int64_t v = 0; v < spec->value_count; v++) {
        int32_t base = spec->values[v].base;
        if (base >= 0) context->values_of_base[context->first_of_base[base]++] = v;
    }
    for (int64_t b = spec->base_count; b > 0; b--)
        context->first_of_base[b] = context->first_of_base[b - 1];
    context->first_of_base[0] = 0;
}

static void fill_operands(pf_context *context) {
    const pf_program_spec *spec = &context->program->spec;
    for (int64_t v = 0; v < spec->value_count; v++) {
        const pf_value *value = &spec->values[v];
        context->operands[v] = (pf_operand){
            .size = sizeof(pf_operand),
            .ndim = value->ndim,
            .dims = spec->dims + value->dims_at,
            .type_code = value->type_code,
            .type_bits = value->type_bits,
            .type_lanes = 1,
        };
    }
    for (int64_t s = 0; s < spec->slot_count; s++)
        context->slots[s] = spec->slots[s] < 0 ? &absent : &context->operands[spec->slots[s]];
}

/* The call of a group's head leads to its members. */
static void fill_group(pf_context *context, int64_t head) {
    context->groups[head] = (pf_group){
        .spec = &context->program->spec,
        .operands = context->operands,
        .calls = context->calls,
        .head = head,
    };
    context->calls[head].attributes = &context->groups[head];
}

static void fill_calls(pf_context *context) {
    const pf_program_spec *spec = &context->program->spec;
    for (int64_t i = 0; i < spec->instruction_count; i++) {
        const pf_instruction *instruction = &spec->instructions[i];
        const pf_operand **slots = context->slots + instruction->slots_at;
        context->calls[i] = (pf_call){
            .size = sizeof(pf_call),
            .flags = instruction->flags,
            .input_count = instruction->input_count,
            .output_count = instruction->output_count,
            .state_count = instruction->state_count,
            .attribute_size = instruction->attribute_size,
            .inputs = slots,
            .outputs = slots + instruction->input_count,
            .states = slots + instruction->input_count + instruction->output_count,
            .attributes = (const unsigned char *)spec->attributes + instruction->attributes_at,
            .scratch = aligned(context->scratch_memory),
            .scratch_size = (uint64_t)instruction->scratch_bytes,
            .accumulate = instruction->accumulate,
            .stream = instruction->stream,
            .step = &context->step,
            .error = &context->error,
            .host = &host,
        };
        if (instruction->group) fill_group(context, i);
    }
}

pf_context *pf_context_new(const pf_program *program, pf_guard *const *guards,
                           int64_t guard_count) {
    const pf_program_spec *spec = &program->spec;
    pf_context *context = calloc(1, sizeof *context);
    if (!context) return NULL;
    context->program = program;
    context->guard_count = guard_count;
    context->guards = calloc((size_t)guard_count + 1, sizeof *context->guards);
    context->bases = calloc((size_t)spec->base_count + 1, sizeof *context->bases);
    context->operands = calloc((size_t)spec->value_count + 1, sizeof *context->operands);
    context->slots = calloc((size_t)spec->slot_count + 1, sizeof *context->slots);
    context->calls = calloc((size_t)spec->instruction_count + 1, sizeof *context->calls);
    context->groups = calloc((size_t)spec->instruction_count + 1, sizeof *context->groups);
    context->values_of_base = calloc((size_t)spec->value_count + 1, sizeof(int64_t));
    context->first_of_base = calloc((size_t)spec->base_count + 2, sizeof(int64_t));
    context->arena_memory = malloc((size_t)spec->arena_bytes + 2 * ALIGNMENT);
    context->scratch_memory = malloc((size_t)program->scratch_bytes + 2 * ALIGNMENT);
    if (!context->guards || !context->bases || !context->operands || !context->slots ||
        !context->calls || !context->groups || !context->values_of_base ||
        !context->first_of_base || !context->arena_memory || !context->scratch_memory) {
        pf_context_free(context);
        return NULL;
    }
    for (int64_t g = 0; g < guard_count; g++) context->guards[g] = guards[g];
    context->step.size = sizeof context->step;
    context->error.size = sizeof context->error;
    index_bases(context);
    fill_operands(context);
    fill_calls(context);
    pf_context_bind(context, 0, aligned(context->arena_memory));
    return context;
}

void pf_context_free(pf_context *context) {
    if (!context) return;
    if (context->guards) pf_context_reset(context);
    free(context->guards);
    free(context->bases);
    free(context->operands);
    free((void *)context->slots);
    free(context->calls);
    free(context->groups);
    free(context->values_of_base);
    free(context->first_of_base);
    free(context->arena_memory);
    free(context->scratch_memory);
    free(context);
}

void pf_context_bind(pf_context *context, int64_t base, void *data) {
    const pf_value *values = context->program->spec.values;
    context->bases[base] = data;
    for (int64_t i = context->first_of_base[base]; i < context->first_of_base[base + 1]; i++) {
        int64_t v = context->values_of_base[i];
        context->operands[v].data = (unsigned char *)data + values[v].offset;
    }
}

void *pf_context_data(const pf_context *context, int64_t value) {
    return context->operands[value].data;
}

static void unlock(pf_context *context) {
    for (int64_t g = 0; g < context->guard_count; g++) {
        if (context->writing) pf_guard_unlock_write(context->guards[g]);
        if (context->reading) pf_guard_unlock_read(context->guards[g]);
    }
    context->writing = context->reading = 0;
}

void pf_context_reset(pf_context *context) {
    unlock(context);
    context->position = 0;
}

void pf_context_begin(pf_context *context, uint64_t seed, int64_t step, double learning_rate) {
    context->position = 0;
    context->step.seed = seed;
    context->step.step = step;
    context->step.learning_rate = learning_rate;
}

/* Takes the locks that the instruction at the position needs. Guards come sorted by address, so
 * two contexts that share several take them in one order. */
static void lock(pf_context *context) {
    int64_t update_at = context->program->spec.update_at;
    if (update_at < 0 && !context->reading) {
        for (int64_t g = 0; g < context->guard_count; g++) pf_guard_lock_read(context->guards[g]);
        context->reading = 1;
    }
    if (update_at >= 0 && context->position >= update_at && !context->writing) {
        for (int64_t g = 0; g < context->guard_count; g++) pf_guard_lock_write(context->guards[g]);
        context->writing = 1;
    }
}

static int is_finite(const pf_operand *t) {
    int64_t n = 1;
    for (int i = 0; i < t->ndim; i++) n *= t->dims[i];
    if (t->type_code != PF_FLOAT || !t->data) return 1;
    for (int64_t i = 0; i < n; i++) {
        double x =
            t->type_bits == 32 ? (double)((const float *)t->data)[i] : ((const double *)t->data)[i];
        if (!isfinite(x)) return 0;
    }
    return 1;
}

static int check_finite(pf_context *context, const pf_call *call) {
    for (uint32_t i = 0; i < call->output_count; i++)
        if (!is_finite(call->outputs[i])) {
            context->error.code = PF_ERROR_NONFINITE;
            context->error.operand = (int32_t)i;
            return PF_FAILED;
        }
    return PF_DONE;
}

static int run_until(pf_context *context, int64_t end, double deadline) {
    const pf_program_spec *spec = &context->program->spec;
    int64_t work = 0;
    while (context->position < end) {
        const pf_instruction *instruction = &spec->instructions[context->position];
        const pf_call *call = &context->calls[context->position];
        lock(context);
        if (!instruction->kernel) return PF_PYTHON;
        if (instruction->kernel(call) != PF_OK) return PF_FAILED;
        if (spec->detect_anomaly && check_finite(context, call) != PF_DONE) return PF_FAILED;
        context->position += 1 + instruction->group;
        work += instruction->work;
        if (work > WORK_PER_CLOCK && !context->writing) {
            work = 0;
            if (now() > deadline) return PF_PAUSED;
        }
    }
    if (context->position == spec->instruction_count) unlock(context);
    return PF_DONE;
}

static double deadline_in(double seconds) { return seconds < 0 ? INFINITY : now() + seconds; }

int pf_context_run(pf_context *context, int64_t end, double seconds) {
    int64_t count = context->program->spec.instruction_count;
    return run_until(context, end < count ? end : count, deadline_in(seconds));
}

void pf_context_seek(pf_context *context, int64_t position) { context->position = position; }
int64_t pf_context_position(const pf_context *context) { return context->position; }

void pf_context_skip(pf_context *context) {
    if (context->position < context->program->spec.instruction_count) context->position++;
}

int pf_context_updating(const pf_context *context) { return context->writing; }
const pf_step *pf_context_step(const pf_context *context) { return &context->step; }
const pf_error *pf_context_error(const pf_context *context) { return &context->error; }

/* ---- loop ---- */

/* Streams that are no node's: their high bits are set, and a node's are not (see node streams in
 * the planner, which clears them). */
static const uint64_t SHUFFLE_STREAM = UINT64_C(0xFFFF000000000001);

/* Fisher-Yates; the swap of place i takes the words of counter i, 64 bits of them, so that the bias
 * of the remainder is below n / 2^64. */
void pf_shuffle(uint64_t seed, int64_t epoch, int64_t n, int64_t *order) {
    for (int64_t i = 0; i < n; i++) order[i] = i;
    for (int64_t i = n - 1; i > 0; i--) {
        uint32_t words[4];
        pf_philox(seed, SHUFFLE_STREAM, (uint64_t)i, (uint64_t)epoch, words);
        uint64_t word = (uint64_t)words[1] << 32 | words[0];
        int64_t j = (int64_t)(word % (uint64_t)(i + 1)), kept = order[i];
        order[i] = order[j];
        order[j] = kept;
    }
}

void pf_random_words(uint64_t seed, uint64_t stream, int64_t n, uint32_t *words) {
    for (int64_t i = 0; i < n; i += 4) {
        uint32_t four[4];
        pf_philox(seed, stream, (uint64_t)(i / 4), 0, four);
        for (int64_t j = i; j < n && j < i + 4; j++) words[j] = four[j - i];
    }
}

static int64_t batch_count(const pf_loop *loop) {
    return (loop->samples + loop->batch - 1) / loop->batch;
}

pf_context *pf_loop_context(const pf_loop *loop) {
    int last = loop->batch_index == batch_count(loop) - 1;
    return last && loop->tail ? loop->tail : loop->full;
}

static void begin_step(pf_loop *loop) {
    pf_context *context = pf_loop_context(loop);
    int64_t first = loop->batch_index * loop->batch;
    int64_t rows = loop->samples - first < loop->batch ? loop->samples - first : loop->batch;
    int shuffle = loop->flags & PF_LOOP_SHUFFLE;
    if (shuffle && loop->batch_index == 0)
        pf_shuffle(loop->seed, loop->first_epoch + loop->epoch, loop->samples, loop->order);
    for (int64_t f = 0; f < loop->feed_count; f++) {
        const pf_feed *feed = &loop->feeds[f];
        const unsigned char *data = feed->data;
        if (!shuffle) {
            pf_context_bind(context, feed->base, (void *)(data + first * feed->row_bytes));
            continue;
        }
        unsigned char *gathered = feed->full_rows;
        for (int64_t r = 0; r < rows; r++)
            memcpy(gathered + r * feed->row_bytes, data + loop->order[first + r] * feed->row_bytes,
                   (size_t)feed->row_bytes);
        pf_context_bind(context, feed->base, gathered);
    }
    pf_context_begin(context, loop->seed, loop->step, loop->learning_rates[loop->steps_done]);
    loop->in_step = 1;
}

void pf_loop_end_step(pf_loop *loop) {
    pf_context *context = pf_loop_context(loop);
    const pf_program_spec *spec = &context->program->spec;
    int64_t width = 0;
    for (int64_t r = 0; r < spec->record_count; r++)
        width += spec->values[spec->records[r]].bytes / (int64_t)sizeof(double);
    double *sums = loop->records + loop->epoch * width;
    for (int64_t r = 0; r < spec->record_count; r++) {
        const double *value = context->operands[spec->records[r]].data;
        int64_t n = spec->values[spec->records[r]].bytes / (int64_t)sizeof(double);
        for (int64_t i = 0; i < n; i++) sums[i] += value[i];
        sums += n;
    }
    loop->in_step = 0;
    loop->step++;
    loop->steps_done++;
    if (++loop->batch_index == batch_count(loop)) {
        loop->batch_index = 0;
        loop->epoch++;
    }
}

int pf_loop_run(pf_loop *loop, double seconds) {
    double deadline = deadline_in(seconds);
    while (loop->epoch < loop->epochs) {
        if (!loop->in_step) begin_step(loop);
        pf_context *context = pf_loop_context(loop);
        int status = run_until(context, context->program->spec.instruction_count, deadline);
        if (status != PF_DONE) return status;
        pf_loop_end_step(loop);
        if (loop->flags & PF_LOOP_STOP_STEP) return PF_STEP_END;
        if (loop->batch_index == 0 && loop->flags & PF_LOOP_STOP_EPOCH) return PF_EPOCH_END;
        if (now() > deadline) return PF_PAUSED;
    }
    return PF_DONE;
}
