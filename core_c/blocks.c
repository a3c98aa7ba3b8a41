/* Groups of element-wise instructions.
 *
 * Run one after the other, a = relu(x), b = a * c, y = b + d would each pass through memory from
 * end to end. A group runs all of them on one block of elements before it goes on to the next, so
 * that what one writes is still in the cache when the next one reads it, and values that nobody
 * needs afterwards (base PF_IN_GROUP) only ever exist as one block on the stack.
 *
 * Parts, which are ranges of blocks, are divided among threads. Their borders depend on the group
 * alone; since every element is computed by itself, so do the results. */
#include "blocks.h"

#include <stdalign.h>
#include <stdatomic.h>
#include <string.h>

#include "parallel.h"

enum { PART = 1 << 15 }; /* elements; a multiple of every block */

/* A group being run. */
typedef struct {
    const pf_group *group;
    atomic_int status;
} under_way;

/* Calls of the members with operands of their own, which move on from block to block. */
typedef struct {
    pf_call calls[PF_GROUP_MEMBERS];
    pf_operand operands[PF_GROUP_SLOTS];
    const pf_operand *slots[PF_GROUP_SLOTS];
    int64_t step[PF_GROUP_SLOTS]; /* bytes from one element to the next; 0: a single number */
    int64_t count;                /* slots in use */
    int64_t length; /* elements of the present block, the only extent of every operand */
} view;

static int is_single(const pf_operand *operand) {
    for (int i = 0; i < operand->ndim; i++)
        if (operand->dims[i] != 1) return 0;
    return 1;
}

/* Points a view at the elements from `first` on. `scratch` holds the values of base PF_IN_GROUP. */
static void look(view *v, const pf_group *group, int64_t first, unsigned char *scratch) {
    const pf_program_spec *spec = group->spec;
    const pf_instruction *head = &spec->instructions[group->head];
    v->count = 0;
    for (uint32_t m = 0; m < head->group; m++) {
        const pf_instruction *member = head + 1 + m;
        pf_call *call = &v->calls[m];
        *call = group->members[m].call;
        call->inputs = v->slots + v->count;
        call->outputs = call->inputs + member->input_count;
        call->states = call->outputs + member->output_count;
        const uint32_t slots = member->input_count + member->output_count + member->state_count;
        for (uint32_t s = 0; s < slots; s++, v->count++) {
            const int32_t index = spec->slots[member->slots_at + s];
            pf_operand *operand = &v->operands[v->count];
            v->slots[v->count] = operand;
            v->step[v->count] = 0;
            if (index < 0) {
                *operand = (pf_operand){.size = sizeof(pf_operand)};
                continue;
            }
            *operand = group->operands[index];
            const int64_t bytes = operand->type_bits / 8;
            if (spec->values[index].base == PF_IN_GROUP)
                operand->data = scratch + spec->values[index].offset;
            else if (!is_single(operand) && operand->data)
                operand->data = (unsigned char *)operand->data + first * bytes,
                v->step[v->count] = bytes;
            if (!is_single(operand)) operand->ndim = 1, operand->dims = &v->length;
        }
    }
}

static void run_part(void *context, int64_t part) {
    under_way *whole = context;
    const pf_group *group = whole->group;
    const pf_instruction *head = &group->spec->instructions[group->head];
    const int64_t first = part * PART;
    const int64_t end = head->elements - first < PART ? head->elements : first + PART;
    alignas(64) unsigned char scratch[PF_GROUP_SCRATCH];
    view v;
    look(&v, group, first, scratch);
    for (int64_t i = first; i < end; i += head->block) {
        v.length = end - i < head->block ? end - i : head->block;
        for (uint32_t m = 0; m < head->group; m++) {
            const int status = head[1 + m].kernel(&v.calls[m]);
            if (status != PF_OK) {
                atomic_store(&whole->status, status);
                return;
            }
        }
        for (int64_t s = 0; s < v.count; s++)
            if (v.step[s])
                v.operands[s].data = (unsigned char *)v.operands[s].data + v.length * v.step[s];
    }
}

int pf_run_group(const pf_call *call) {
    const pf_group *group = call->attributes;
    const pf_instruction *head = &group->spec->instructions[group->head];
    under_way whole = {.group = group};
    atomic_init(&whole.status, PF_OK);
    const int64_t parts = (head->elements + PART - 1) / PART;
    pf_parallel_for(parts, head->work / PF_BYTES_PER_NANOSECOND, run_part, &whole);
    return atomic_load(&whole.status);
}

/* ---- rows ---- */

/* Rows being updated: those of `sums` (n, units) that are not 0, each of which belongs to the row
 * of a table whose number is at its place in the lists of the head. */
typedef struct {
    under_way whole;
    const pf_operand *const *lists;
    uint32_t list_count;
    unsigned char *sums;
    int64_t n, bytes; /* bytes of a row */
} row_update;

static int64_t count_of(const pf_operand *operand) {
    int64_t n = 1;
    for (int i = 0; i < operand->ndim; i++) n *= operand->dims[i];
    return n;
}

/* The number at a place of the lists, taken one after the other. */
static int64_t number_at(const row_update *update, int64_t at) {
    uint32_t k = 0;
    for (int64_t n; k + 1 < update->list_count && at >= (n = count_of(update->lists[k])); k++)
        at -= n;
    return ((const int64_t *)update->lists[k]->data)[at];
}

static int is_zero(const unsigned char *row, int64_t bytes) {
    return row[0] == 0 && memcmp(row, row + 1, (size_t)bytes - 1) == 0;
}

/* A table's row is updated once: where its sum is. So no two threads write to one. */
static void run_rows(void *context, int64_t part) {
    row_update *update = context;
    const pf_group *group = update->whole.group;
    const pf_instruction *head = &group->spec->instructions[group->head];
    const int64_t first = part * head->block;
    const int64_t end = update->n - first < head->block ? update->n : first + head->block;
    view v;
    unsigned char *origins[PF_GROUP_SLOTS];
    look(&v, group, 0, NULL);
    v.length = head->elements;
    for (int64_t s = 0; s < v.count; s++) origins[s] = v.operands[s].data;
    for (int64_t i = first; i < end; i++) {
        if (is_zero(update->sums + i * update->bytes, update->bytes)) continue;
        const int64_t row = number_at(update, i);
        for (int64_t s = 0; s < v.count; s++)
            if (v.step[s])
                v.operands[s].data =
                    origins[s] + (origins[s] == update->sums ? i : row) * update->bytes;
        for (uint32_t m = 0; m < head->group; m++) {
            const int status = head[1 + m].kernel(&v.calls[m]);
            if (status != PF_OK) {
                atomic_store(&update->whole.status, status);
                return;
            }
        }
    }
}

int pf_run_rows(const pf_call *call) {
    const pf_group *group = call->attributes;
    const pf_instruction *head = &group->spec->instructions[group->head];
    row_update update = {
        .whole.group = group,
        .lists = call->inputs + 1,
        .list_count = call->input_count - 1,
        .sums = call->inputs[0]->data,
        .n = head->elements ? count_of(call->inputs[0]) / head->elements : 0,
        .bytes = head->elements * call->inputs[0]->type_bits / 8,
    };
    atomic_init(&update.whole.status, PF_OK);
    pf_parallel_for((update.n + head->block - 1) / head->block,
                    head->work / PF_BYTES_PER_NANOSECOND, run_rows, &update);
    return atomic_load(&update.whole.status);
}
