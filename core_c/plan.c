/* The executor: programs and contexts.
 *
 * A program is a flat list of instructions over a table of values. A context gives each value an
 * address and each instruction a ready-made pf_call, so running an instruction is one indirect
 * call. All memory is allocated when a program or a context is made, never while one runs. */
#include "context.h"

#include "parallel.h"
#include "subnormals.h"
#include "system.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    ALIGNMENT = 64,
    BRIEF_WORK = 1 << 16 /* bytes that kernels touch in some microseconds */
};

/* ---- program ---- */

static int64_t round_up(int64_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

/* Copies `bytes` bytes to *at, moves *at on, and returns where they are now. */
static const void *keep(unsigned char **at, const void *from, int64_t bytes) {
    unsigned char *copy = *at;
    if (bytes > 0) memcpy(copy, from, (size_t)bytes);
    *at += round_up(bytes);
    return copy;
}

/* Finds how much each of the scaled numbers is for a row. */
static void scale(pf_program *program) {
    const pf_program_spec *spec = &program->spec;
    const void *tables[] = {spec->instructions, spec->dims, spec->attributes};
    for (int64_t i = 0; i < spec->scaled_count; i++) {
        const unsigned char *at = (const unsigned char *)tables[spec->scaled[i].table];
        at += spec->scaled[i].at;
        int64_t whole;
        memcpy(&whole, at, sizeof whole);
        program->shares[i] = (pf_share){.at = at - program->memory, .each = whole / spec->rows};
    }
}

pf_program *pf_program_new(const pf_program_spec *spec) {
    int64_t values = spec->value_count * (int64_t)sizeof(pf_value);
    int64_t instructions = spec->instruction_count * (int64_t)sizeof(pf_instruction);
    int64_t dims = spec->dims_count * (int64_t)sizeof(int64_t);
    int64_t slots = spec->slot_count * (int64_t)sizeof(int32_t);
    int64_t records = spec->record_count * (int64_t)sizeof(int32_t);
    int64_t total = round_up(values) + round_up(instructions) + round_up(dims) + round_up(slots) +
                    round_up(spec->attribute_bytes) + round_up(records);
    int64_t shares = spec->scaled_count * (int64_t)sizeof(pf_share);

    pf_program *program = calloc(1, sizeof *program);
    if (!program) return NULL;
    program->memory = malloc((size_t)total + 1);
    program->shares = malloc((size_t)shares + 1);
    program->memory_bytes = total;
    if (!program->memory || !program->shares) {
        pf_program_free(program);
        return NULL;
    }
    unsigned char *at = program->memory;
    program->spec = *spec;
    program->spec.values = keep(&at, spec->values, values);
    pf_instruction *kept = (pf_instruction *)at;
    program->spec.instructions = keep(&at, spec->instructions, instructions);
    for (int64_t i = 0; i < spec->instruction_count; i++)
        if (kept[i].group)
            kept[i].kernel = kept[i].blocks        ? pf_run_tile
                             : kept[i].input_count ? pf_run_rows
                                                   : pf_run_group;
    program->spec.dims = keep(&at, spec->dims, dims);
    program->spec.slots = keep(&at, spec->slots, slots);
    program->spec.attributes = keep(&at, spec->attributes, spec->attribute_bytes);
    program->spec.records = keep(&at, spec->records, records);
    for (int64_t i = 0; i < spec->instruction_count; i++) {
        program->work += spec->instructions[i].work;
        if (spec->instructions[i].scratch_bytes > program->scratch_bytes)
            program->scratch_bytes = spec->instructions[i].scratch_bytes;
    }
    program->tile_bytes = pf_program_tile_bytes(program, PF_MAX_THREADS);
    scale(program);
    return program;
}

int64_t pf_program_tile_bytes(const pf_program *program, int threads) {
    const pf_program_spec *spec = &program->spec;
    int64_t most = 0;
    for (int64_t i = 0; i < spec->instruction_count; i++) {
        if (!spec->instructions[i].blocks) continue;
        const int64_t bytes = pf_tile_bytes(spec, i, threads);
        if (bytes > most) most = bytes;
    }
    return most;
}

void pf_program_free(pf_program *program) {
    if (!program) return;
    free(program->memory);
    free(program->shares);
    free(program);
}

/* ---- context ---- */

static const pf_operand absent = {.size = sizeof(pf_operand)};

static void *aligned(void *memory) {
    return (void *)(((uintptr_t)memory + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
}

/* Sorts the values by base, by counting, so that binding a base touches only its values. */
static void index_bases(pf_context *context) {
    const pf_program_spec *spec = &context->spec;
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
    const pf_program_spec *spec = &context->spec;
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

/* The call of a head leads to the members of its group or tile. */
static void fill_group(pf_context *context, int64_t head) {
    const pf_group group = {
        .spec = &context->spec,
        .operands = context->operands,
        .members = &context->instructions[head + 1],
        .head = head,
    };
    if (group.spec->instructions[head].blocks) {
        context->tiles[head] = (pf_tile){
            .group = group,
            .memory = aligned(context->tile_memory),
            .blocks_done = &context->blocks_done,
            .failed = &context->failed,
        };
        context->instructions[head].call.attributes = &context->tiles[head];
        return;
    }
    context->groups[head] = group;
    context->instructions[head].call.attributes = &context->groups[head];
}

static void fill_instructions(pf_context *context) {
    const pf_program_spec *spec = &context->spec;
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
            .host = pf_get_host(),
        };
        if (instruction->group) fill_group(context, i);
    }
}

/* Where a context's own copy of a program's table is. */
static const void *own(const pf_context *context, const void *table) {
    return context->tables + ((const unsigned char *)table - context->program->memory);
}

/* Gives a context tables of its own if they depend on the rows; 0: no memory. */
static int own_tables(pf_context *context) {
    const pf_program *program = context->program;
    pf_program_spec *spec = &context->spec;
    *spec = program->spec;
    context->rows = spec->rows;
    if (!spec->rows) return 1;
    context->tables = malloc((size_t)program->memory_bytes + 1);
    if (!context->tables) return 0;
    memcpy(context->tables, program->memory, (size_t)program->memory_bytes);
    spec->instructions = own(context, spec->instructions);
    spec->dims = own(context, spec->dims);
    spec->attributes = own(context, spec->attributes);
    return 1;
}

void pf_context_resize(pf_context *context, int64_t rows) {
    const pf_program *program = context->program;
    if (rows == context->rows) return;
    context->rows = rows;
    for (int64_t i = 0; i < program->spec.scaled_count; i++) {
        const int64_t scaled = program->shares[i].each * rows;
        memcpy(context->tables + program->shares[i].at, &scaled, sizeof scaled);
    }
}

int64_t pf_context_rows(const pf_context *context) { return context->rows; }

pf_context *pf_context_new(const pf_program *program, pf_guard *const *guards,
                           int64_t guard_count) {
    const pf_program_spec *spec = &program->spec;
    pf_context *context = calloc(1, sizeof *context);
    if (!context) return NULL;
    context->program = program;
    if (!own_tables(context)) {
        pf_context_free(context);
        return NULL;
    }
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
    pf_ask_for_large_pages(context->arena_memory, spec->arena_bytes);
    if (program->tile_bytes) {
        context->tiles = calloc((size_t)spec->instruction_count, sizeof *context->tiles);
        context->tile_memory = malloc((size_t)program->tile_bytes + ALIGNMENT);
        if (!context->tiles || !context->tile_memory) {
            pf_context_free(context);
            return NULL;
        }
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
    free(context->tables);
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
    free(context->tiles);
    free(context->tile_memory);
    free(context);
}

void pf_context_bind(pf_context *context, int64_t base, void *data) {
    const pf_value *values = context->spec.values;
    context->bases[base] = data;
    for (int64_t i = context->first_of_base[base]; i < context->first_of_base[base + 1]; i++) {
        int64_t v = context->values_of_base[i];
        context->operands[v].data = (unsigned char *)data + values[v].offset;
    }
}

void *pf_context_data(const pf_context *context, int64_t value) {
    return context->operands[value].data;
}

void pf_restore_steps(int64_t *count, int64_t steps) { pf_set_steps(count, steps); }

static void leave(pf_context *context) {
    for (int64_t g = 0; context->claimed && g < context->guard_count; g++)
        pf_guard_leave(context->guards[g]);
    context->claimed = 0;
}

/* Claims all guards or none. */
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
    if (context->step_count) pf_count_step(context->step_count);
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
    context->position = context->blocks_done = 0;
    context->step.seed = seed;
    context->step.step = step;
    context->step.learning_rate = learning_rate;
    context->error.code = PF_OK;
}

/* Takes the locks that the instruction at the position needs. Guards are sorted by address, so two
 * contexts that share several take them in the same order. */
static void lock(pf_context *context) {
    int64_t update_at = context->spec.update_at;
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

/* For a kernel that returns an error without filling it in: the code is all there is. */
static void note_status(pf_context *context, int status) {
    if (context->error.code == status) return;
    context->error =
        (pf_error){.size = sizeof(pf_error), .code = status, .operand = -1, .index = -1};
}

/* Runs the instructions up to `stop`, all of which need the locks that are held. */
static int run_locked(pf_context *context, int64_t stop, pf_stopwatch *watch) {
    const int detect_anomaly = context->spec.detect_anomaly;
    int status = PF_DONE;
    int64_t at = context->position;
    while (at < stop) {
        const pf_prepared *instruction = &context->instructions[at];
        if (!instruction->kernel) {
            status = PF_PYTHON;
            break;
        }
        const int answer = instruction->kernel(&instruction->call);
        if (answer != PF_OK) {
            if (answer == PF_SKIP_UPDATE) {
                at = context->spec.instruction_count;
                break;
            }
            if (answer == PF_MORE) {
                if (context->writing || !pf_is_over(watch)) continue;
                status = PF_PAUSED;
                break;
            }
            note_status(context, answer);
            status = PF_FAILED;
            break;
        }
        if (detect_anomaly && check_finite(context, &instruction->call) != PF_DONE) {
            status = PF_FAILED;
            break;
        }
        at += instruction->length;
        watch->work += instruction->work;
        if (watch->work > PF_WORK_PER_CLOCK && !context->writing && pf_is_over(watch)) {
            status = PF_PAUSED;
            break;
        }
    }
    context->position = at;
    return status;
}

/* Runs instructions of an update. Workers take over the modes of the thread that calls them. */
static int run_update(pf_context *context, int64_t stop, pf_stopwatch *watch) {
    const uint64_t modes = pf_float_modes();
    pf_set_float_modes(modes | PF_FLUSH_SUBNORMALS);
    const int status = run_locked(context, stop, watch);
    pf_set_float_modes(modes);
    return status;
}

int pf_run_until(pf_context *context, int64_t end, pf_stopwatch *watch) {
    const int64_t update_at = context->spec.update_at;
    while (context->position < end) {
        const int before_update = context->position < update_at && update_at < end;
        lock(context);
        int status = context->writing ? run_update(context, end, watch)
                                      : run_locked(context, before_update ? update_at : end, watch);
        if (status != PF_DONE) return status;
    }
    if (context->position == context->spec.instruction_count) finish(context);
    return PF_DONE;
}

int pf_context_run(pf_context *context, int64_t end, double seconds) {
    int64_t count = context->spec.instruction_count;
    pf_stopwatch watch = {.seconds = seconds};
    return pf_run_until(context, end < count ? end : count, &watch);
}

int pf_context_give_up(pf_context *context) {
    const int64_t count = context->spec.instruction_count;
    if (context->writing) pf_context_run(context, count, -1.0);
    const int completed = context->position == count;
    pf_context_reset(context);
    return completed;
}

static double now(void) { return 1e-9 * (double)pf_nanoseconds(); }

/* What reading the clock costs: the least of a few readings. */
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
    while (context->position < context->spec.instruction_count) {
        const int64_t at = context->position;
        pf_stopwatch watch = {.seconds = -1};
        const double before = now();
        const int status = pf_run_until(context, at + context->instructions[at].length, &watch);
        const double taken = now() - before - cost;
        if (status != PF_DONE) return status;
        seconds[at] += taken > 0 ? taken : 0;
    }
    /* After a last instruction in Python, locks stay held until a later call gets to the end. */
    pf_stopwatch watch = {.seconds = -1};
    return pf_run_until(context, context->spec.instruction_count, &watch);
}

static int is_aligned(const pf_context *context, int64_t base, const void *data) {
    int64_t first = context->first_of_base[base];
    if (first == context->first_of_base[base + 1]) return 1; /* nothing reads it */
    const pf_value *value = &context->spec.values[context->values_of_base[first]];
    return (uintptr_t)data % (value->type_bits / 8) == 0;
}

/* Takes the locks of a run that needs them for some microseconds only, if nobody writes. */
static int lock_briefly(pf_context *context) {
    const pf_program_spec *spec = &context->spec;
    int64_t work = context->program->work;
    if (spec->rows) work = work / spec->rows * context->rows;
    if (work > BRIEF_WORK || spec->update_at >= 0) return 0;
    for (int64_t g = 0; g < context->guard_count; g++)
        if (!pf_guard_try_read(context->guards[g])) {
            while (g-- > 0) pf_guard_unlock_read(context->guards[g]);
            return 0;
        }
    return context->reading = 1;
}

int pf_context_launch(pf_context *context, void *const *feeds, int kind, uint64_t seed,
                      int64_t *step_count, double learning_rate, double seconds) {
    const int64_t feed_count = context->spec.feed_count;
    const int training = kind & PF_TRAINING;
    pf_context_reset(context);
    if (kind & PF_BRIEFLY && !lock_briefly(context)) return PF_LATER;
    for (int64_t f = 0; f < feed_count; f++) pf_context_bind(context, f + 1, feeds[f]);
    for (int64_t f = 0; f < feed_count; f++)
        if (!is_aligned(context, f + 1, feeds[f])) return PF_UNALIGNED;
    if (training && !claim(context)) return PF_BUSY;
    pf_context_begin(context, seed, pf_steps(step_count), learning_rate);
    if (training) context->step_count = step_count;
    return pf_context_run(context, context->spec.instruction_count, seconds);
}

void pf_context_seek(pf_context *context, int64_t position) {
    context->position = position;
    context->blocks_done = 0;
}
int64_t pf_context_position(const pf_context *context) { return context->position; }

void pf_context_skip(pf_context *context) {
    if (context->position < context->spec.instruction_count) context->position++;
}

const pf_step *pf_context_step(const pf_context *context) { return &context->step; }
const pf_error *pf_context_error(const pf_context *context) { return &context->error; }

int64_t pf_context_failed(const pf_context *context) {
    const int64_t at = context->position;
    return context->spec.instructions[at].blocks ? at + 1 + context->failed : at;
}
