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
