/* The executor: programs, contexts and the loop over epochs.
 *
 * A program is a flat list of instructions over a table of values. A context gives each value an
 * address and each instruction a ready-made pf_call, so running an instruction is one indirect
 * call. All that is allocated is allocated when a program or a context is made, never while one
 * runs. */
#define _POSIX_C_SOURCE 200809L
#include "plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef _WIN32
#include <windows.h>
#else
#include <time.h>
#endif

#include "batches.h"
#include "blocks.h"
#include "guard.h"
#include "isa.h"
#include "parallel.h"
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

/* When to come back. The first look at the clock starts it: what is over before WORK_PER_CLOCK
 * never looks. */
typedef struct {
    double seconds; /* negative: never */
    double deadline;
    int64_t work; /* since the last look */
    int started;
} stopwatch;

static int is_over(stopwatch *watch) {
    watch->work = 0;
    if (watch->seconds < 0) return 0;
    const double time = now();
    if (!watch->started) {
        watch->started = 1;
        watch->deadline = time + watch->seconds;
        return watch->seconds == 0;
    }
    return time > watch->deadline;
}

/* ---- host table ---- */

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
    pf_prepared *instructions;
    pf_group *groups;        /* one an instruction; of use for the heads of groups */
    int64_t *values_of_base; /* the values in the order of their bases ... */
    int64_t *first_of_base;  /* ... and where each base's begin; base_count + 1 entries */
    void *arena_memory;
    void *scratch_memory;
    int64_t position;
    int writing, reading, claimed;
    int64_t *step_count; /* what the end of this run counts on; NULL: nothing */
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
        .members = &context->instructions[head + 1],
        .head = head,
    };
    context->instructions[head].call.attributes = &context->groups[head];
}

static void fill_instructions(pf_context *context) {
    const pf_program_spec *spec = &context->program->spec;
    for (int64_t i = 0; i < spec->instruction_count; i++) {
        const pf_instruction *instruction = &spec->instructions[i];
        const pf_operand **slots = context->slots + instruction->slots_at;
        context->instructions[i].kernel = instruction->kernel;
        context->instructions[i].work = instruction->work;
        context->instructions[i].length = 1 + (int64_t)instruction->group;
        context->instructions[i].call = (pf_call){
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
    context->instructions =
        calloc((size_t)spec->instruction_count + 1, sizeof *context->instructions);
    context->groups = calloc((size_t)spec->instruction_count + 1, sizeof *context->groups);
    context->values_of_base = calloc((size_t)spec->value_count + 1, sizeof(int64_t));
    context->first_of_base = calloc((size_t)spec->base_count + 2, sizeof(int64_t));
    context->arena_memory = malloc((size_t)spec->arena_bytes + 2 * ALIGNMENT);
    context->scratch_memory = malloc((size_t)program->scratch_bytes + 2 * ALIGNMENT);
    if (!context->guards || !context->bases || !context->operands || !context->slots ||
        !context->instructions || !context->groups || !context->values_of_base ||
        !context->first_of_base || !context->arena_memory || !context->scratch_memory) {
        pf_context_free(context);
        return NULL;
    }
    for (int64_t g = 0; g < guard_count; g++) {
        context->guards[g] = guards[g];
        pf_guard_retain(guards[g]);
    }
    context->step.size = sizeof context->step;
    context->error.size = sizeof context->error;
    index_bases(context);
    fill_operands(context);
    fill_instructions(context);
    pf_context_bind(context, 0, aligned(context->arena_memory));
    return context;
}

void pf_context_free(pf_context *context) {
    if (!context) return;
    if (context->guards) {
        pf_context_reset(context);
        for (int64_t g = 0; g < context->guard_count && context->guards[g]; g++)
            pf_guard_free(context->guards[g]);
    }
    free(context->guards);
    free(context->bases);
    free(context->operands);
    free((void *)context->slots);
    free(context->instructions);
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

static void leave(pf_context *context) {
    for (int64_t g = 0; context->claimed && g < context->guard_count; g++)
        pf_guard_leave(context->guards[g]);
    context->claimed = 0;
}

/* Claims every guard or none. */
static int claim(pf_context *context) {
    for (int64_t g = 0; g < context->guard_count; g++)
        if (!pf_guard_enter(context->guards[g])) {
            while (g-- > 0) pf_guard_leave(context->guards[g]);
            return 0;
        }
    context->claimed = 1;
    return 1;
}

static void unlock(pf_context *context) {
    for (int64_t g = 0; g < context->guard_count; g++) {
        if (context->writing) pf_guard_unlock_write(context->guards[g]);
        if (context->reading) pf_guard_unlock_read(context->guards[g]);
    }
    context->writing = context->reading = 0;
}

static void finish(pf_context *context) {
    unlock(context);
    if (context->step_count) ++*context->step_count;
    context->step_count = NULL;
    leave(context);
}

void pf_context_reset(pf_context *context) {
    unlock(context);
    context->step_count = NULL;
    leave(context);
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

/* Runs the instructions up to `stop`, all of which need the locks that are held. */
static int run_locked(pf_context *context, int64_t stop, stopwatch *watch) {
    const int detect_anomaly = context->program->spec.detect_anomaly;
    int status = PF_DONE;
    int64_t at = context->position;
    while (at < stop) {
        const pf_prepared *instruction = &context->instructions[at];
        if (!instruction->kernel) {
            status = PF_PYTHON;
            break;
        }
        if (instruction->kernel(&instruction->call) != PF_OK ||
            (detect_anomaly && check_finite(context, &instruction->call) != PF_DONE)) {
            status = PF_FAILED;
            break;
        }
        at += instruction->length;
        watch->work += instruction->work;
        if (watch->work > WORK_PER_CLOCK && !context->writing && is_over(watch)) {
            status = PF_PAUSED;
            break;
        }
    }
    context->position = at;
    return status;
}

static int run_until(pf_context *context, int64_t end, stopwatch *watch) {
    const int64_t update_at = context->program->spec.update_at;
    while (context->position < end) {
        const int before_update = context->position < update_at && update_at < end;
        lock(context);
        int status = run_locked(context, before_update ? update_at : end, watch);
        if (status != PF_DONE) return status;
    }
    if (context->position == context->program->spec.instruction_count) finish(context);
    return PF_DONE;
}

int pf_context_run(pf_context *context, int64_t end, double seconds) {
    int64_t count = context->program->spec.instruction_count;
    stopwatch watch = {.seconds = seconds};
    return run_until(context, end < count ? end : count, &watch);
}

/* What looking at the clock costs: the least of a few looks. */
static double clock_cost(void) {
    double least = 1;
    for (int i = 0; i < 64; i++) {
        const double before = now(), cost = now() - before;
        least = cost < least ? cost : least;
    }
    return least;
}

int pf_context_profile(pf_context *context, double *seconds) {
    const double cost = clock_cost();
    while (context->position < context->program->spec.instruction_count) {
        const int64_t at = context->position;
        stopwatch watch = {.seconds = -1};
        const double before = now();
        const int status = run_until(context, at + context->instructions[at].length, &watch);
        const double taken = now() - before - cost;
        if (status != PF_DONE) return status;
        seconds[at] += taken > 0 ? taken : 0;
    }
    /* A last instruction in Python leaves the locks to whoever comes to the end next. */
    stopwatch watch = {.seconds = -1};
    return run_until(context, context->program->spec.instruction_count, &watch);
}

static int is_aligned(const pf_context *context, int64_t base, const void *data) {
    int64_t first = context->first_of_base[base];
    if (first == context->first_of_base[base + 1]) return 1; /* nothing reads it */
    const pf_value *value = &context->program->spec.values[context->values_of_base[first]];
    return (uintptr_t)data % (value->type_bits / 8) == 0;
}

int pf_context_launch(pf_context *context, void *const *feeds, int training, uint64_t seed,
                      int64_t *step_count, double learning_rate, double seconds) {
    const int64_t feed_count = context->program->spec.feed_count;
    pf_context_reset(context);
    for (int64_t f = 0; f < feed_count; f++) pf_context_bind(context, f + 1, feeds[f]);
    for (int64_t f = 0; f < feed_count; f++)
        if (!is_aligned(context, f + 1, feeds[f])) return PF_UNALIGNED;
    if (training && !claim(context)) return PF_BUSY;
    pf_context_begin(context, seed, *step_count, learning_rate);
    if (training) context->step_count = step_count;
    return pf_context_run(context, context->program->spec.instruction_count, seconds);
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
        pf_gather_rows(feed->full_rows, data, loop->order + first, rows, feed->row_bytes);
        pf_context_bind(context, feed->base, feed->full_rows);
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
    stopwatch watch = {.seconds = seconds};
    while (loop->epoch < loop->epochs) {
        if (!loop->in_step) begin_step(loop);
        pf_context *context = pf_loop_context(loop);
        int status = run_until(context, context->program->spec.instruction_count, &watch);
        if (status != PF_DONE) return status;
        pf_loop_end_step(loop);
        if (loop->flags & PF_LOOP_STOP_STEP) return PF_STEP_END;
        if (loop->batch_index == 0 && loop->flags & PF_LOOP_STOP_EPOCH) return PF_EPOCH_END;
        if ((watch.work > WORK_PER_CLOCK || seconds == 0) && is_over(&watch)) return PF_PAUSED;
    }
    return PF_DONE;
}
