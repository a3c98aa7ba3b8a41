/* Tiles: forward and backward on one block of rows before the next.
 *
 * Layer by layer, the values of a large batch go through memory once for each layer that writes or
 * reads them. A tile runs all of its instructions on a block of rows before it goes on to the next
 * block, so that what lies between two layers stays in the cache, and only ever exists for one
 * block (base PF_IN_TILE).
 *
 * An operand goes by rows, or all of it is read for each block (weights), or it is a sum over the
 * rows (gradients of weights, losses). The blocks are dealt out in chunks of neighbours. A chunk
 * adds up its blocks in their order, and at the end the chunks are added in a tree. Blocks and
 * chunks depend on the program alone, so the bits do not depend on the number of threads: each
 * thread takes a chunk, then the next that nobody has taken yet. */
#include "tiles.h"

#include <stdatomic.h>
#include <string.h>

#include "parallel.h"

enum {
    ALIGNMENT = 64,
    WORK_OF_CALL = 1 << 26 /* bytes of operands that one call goes through: some milliseconds */
};

/* What became of a chunk that has failed. */
typedef struct {
    int status;
    int64_t member;
    pf_error error;
} outcome;

/* What a thread that works on a tile has to itself: the members' calls with operands of their own,
 * and behind these the values at PF_IN_TILE, sums of one block, and scratch memory. */
typedef struct {
    pf_call *calls;
    pf_operand *operands;
    const pf_operand **slots;
    int64_t (*dims)[PF_MAX_NDIM];
    unsigned char **first; /* where a slot's row 0 would be */
    int64_t *row;          /* bytes from one row of a slot to the next; 0: it does not go by rows */
    int64_t *sum;          /* where a slot's sums are among all sums of a chunk; -1: it has none */
    unsigned char *values, *sums, *scratch;
    pf_step step;
    pf_error error;
} lane;

/* One call of a tile. */
typedef struct {
    const pf_tile *tile;
    const pf_call *call;
    const pf_instruction *head;
    outcome *outcomes;
    unsigned char *sums, *lanes;
    int64_t sum_bytes, lane_bytes;
    int64_t from, to;  /* which blocks of each chunk */
    atomic_llong next; /* the first chunk that nobody has taken */
    atomic_int has_failed;
} under_way;

static int64_t round_up(int64_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

static uint32_t slot_count(const pf_instruction *member) {
    return member->input_count + member->output_count + member->state_count;
}

/* Whether slot s of a member is an output that is added up, and wanted. */
static int is_sum(const pf_program_spec *spec, const pf_instruction *member, uint32_t s) {
    return s >= member->input_count && !(member->by_row >> s & 1) &&
           spec->values[spec->slots[member->slots_at + s]].base != PF_NOWHERE;
}

static int64_t sum_bytes_of(const pf_program_spec *spec, int64_t head) {
    const pf_instruction *member = &spec->instructions[head + 1];
    int64_t bytes = 0;
    for (uint32_t m = 0; m < spec->instructions[head].group; m++, member++)
        for (uint32_t s = member->input_count; s < slot_count(member); s++)
            if (is_sum(spec, member, s))
                bytes += round_up(spec->values[spec->slots[member->slots_at + s]].bytes);
    return bytes;
}

/* Sets *to, and what it points to, to lie at `memory`; returns how many bytes that takes. */
static int64_t lay_out(lane *to, const pf_program_spec *spec, int64_t head, unsigned char *memory) {
    const pf_instruction *first = &spec->instructions[head];
    int64_t slots = 0, at = 0;
    for (uint32_t m = 0; m < first->group; m++) slots += slot_count(&first[1 + m]);
    const int64_t sizes[] = {first->group * (int64_t)sizeof *to->calls,
                             slots * (int64_t)sizeof *to->operands,
                             slots * (int64_t)sizeof *to->slots,
                             slots * (int64_t)sizeof *to->dims,
                             slots * (int64_t)sizeof *to->first,
                             slots * (int64_t)sizeof *to->row,
                             slots * (int64_t)sizeof *to->sum,
                             first->lane_bytes,
                             sum_bytes_of(spec, head),
                             first->scratch_bytes};
    enum { COUNT = sizeof sizes / sizeof *sizes };
    unsigned char *place[COUNT];
    for (int i = 0; i < COUNT; i++) {
        place[i] = memory ? memory + at : NULL;
        at += round_up(sizes[i]);
    }
    to->calls = (void *)place[0], to->operands = (void *)place[1];
    to->slots = (void *)place[2], to->dims = (void *)place[3];
    to->first = (void *)place[4], to->row = (void *)place[5], to->sum = (void *)place[6];
    to->values = place[7], to->sums = place[8], to->scratch = place[9];
    return at;
}

static int64_t lane_count(const pf_instruction *head, int threads) {
    return head->chunks < threads ? head->chunks : threads;
}

static int64_t outcome_bytes(const pf_instruction *head) {
    return round_up(head->chunks * (int64_t)sizeof(outcome));
}

int64_t pf_tile_bytes(const pf_program_spec *spec, int64_t head, int threads) {
    lane unused;
    const pf_instruction *first = &spec->instructions[head];
    return outcome_bytes(first) + first->chunks * sum_bytes_of(spec, head) +
           lane_count(first, threads) * lay_out(&unused, spec, head, NULL);
}

/* ---- a lane ---- */

/* Makes the members' calls ready, and returns how many slots they have; where the operands that go
 * by rows are is left to `move_to`. */
static int64_t enter(lane *l, const under_way *u, int64_t index) {
    const pf_group *group = &u->tile->group;
    const pf_program_spec *spec = group->spec;
    lay_out(l, spec, group->head, u->lanes + index * u->lane_bytes);
    l->step = *u->call->step;
    l->error = (pf_error){.size = sizeof(pf_error), .code = PF_OK};
    int64_t at = 0, sums = 0;
    for (uint32_t m = 0; m < u->head->group; m++) {
        const pf_instruction *member = &u->head[1 + m];
        pf_call *call = &l->calls[m];
        *call = group->members[m].call;
        call->inputs = l->slots + at;
        call->outputs = call->inputs + member->input_count;
        call->states = call->outputs + member->output_count;
        call->scratch = l->scratch;
        call->step = &l->step;
        call->error = &l->error;
        for (uint32_t s = 0; s < slot_count(member); s++, at++) {
            const int32_t number = spec->slots[member->slots_at + s];
            pf_operand *operand = &l->operands[at];
            l->slots[at] = operand;
            l->row[at] = 0, l->sum[at] = -1;
            if (number < 0) {
                *operand = (pf_operand){.size = sizeof(pf_operand)};
                continue;
            }
            const pf_value *value = &spec->values[number];
            *operand = group->operands[number];
            if (is_sum(spec, member, s)) {
                l->sum[at] = sums;
                sums += round_up(value->bytes);
            }
            if (!(member->by_row >> s & 1)) continue;
            memcpy(l->dims[at], operand->dims, (size_t)operand->ndim * sizeof(int64_t));
            operand->dims = l->dims[at];
            if (value->base == PF_IN_TILE)
                operand->data = l->values + value->offset;
            else if (operand->data)
                l->first[at] = operand->data, l->row[at] = value->bytes / u->head->elements;
        }
    }
    return at;
}

/* The first row of a block; that of block number `blocks` is behind the last. */
static int64_t first_row(const pf_instruction *head, int64_t block) {
    return block < head->blocks
               ? head->elements / PF_TILE_UNIT * block / head->blocks * PF_TILE_UNIT
               : head->elements;
}

/* Points the operands to the rows of a block, and the sums to `sums`. */
static void move_to(lane *l, int64_t slots, int64_t row, int64_t rows, unsigned char *sums) {
    for (int64_t s = 0; s < slots; s++) {
        l->dims[s][0] = rows;
        if (l->row[s]) l->operands[s].data = l->first[s] + row * l->row[s];
        if (l->sum[s] >= 0) l->operands[s].data = sums + l->sum[s];
    }
}

/* to += from, n bytes of floats */
static void add(void *restrict to, const void *restrict from, int64_t bytes, int bits) {
    float *restrict to32 = to;
    double *restrict to64 = to;
    const float *restrict from32 = from;
    const double *restrict from64 = from;
    if (bits == 32)
        for (int64_t i = 0; i < bytes / 4; i++) to32[i] += from32[i];
    else
        for (int64_t i = 0; i < bytes / 8; i++) to64[i] += from64[i];
}

static int64_t bytes_of(const pf_operand *t) {
    int64_t bytes = t->type_bits / 8;
    for (int i = 0; i < t->ndim; i++) bytes *= t->dims[i];
    return bytes;
}

/* Writes down the error of a member, with the element's index in all rows. */
static void note(const lane *l, const under_way *u, int64_t chunk, uint32_t m, int status) {
    const pf_instruction *member = &u->head[1 + m];
    const pf_call *call = &l->calls[m];
    pf_error error = l->error;
    if (error.code != status) /* it has not said what was wrong */
        error = (pf_error){.size = sizeof(pf_error), .code = status, .operand = -1, .index = -1};
    if (error.index >= 0 && error.operand >= 0 && (uint32_t)error.operand < member->input_count &&
        member->by_row >> error.operand & 1) {
        const pf_operand *operand = call->inputs[error.operand];
        const int64_t rows = l->step.first_sample - u->call->step->first_sample;
        error.index += rows * (bytes_of(operand) / (operand->type_bits / 8) / operand->dims[0]);
    }
    u->outcomes[chunk] = (outcome){status, m, error};
}

/* Runs blocks `from` to `to` of a chunk; 0: a member has failed. */
static int run_chunk(lane *l, const under_way *u, int64_t chunk, int64_t slots) {
    const pf_instruction *head = u->head;
    const int64_t start = head->blocks * chunk / head->chunks;
    const int64_t count = head->blocks * (chunk + 1) / head->chunks - start;
    unsigned char *sums = u->sums + chunk * u->sum_bytes;
    for (int64_t b = u->from; b < u->to && b < count; b++) {
        const int64_t row = first_row(head, start + b), end = first_row(head, start + b + 1);
        move_to(l, slots, row, end - row, b == 0 ? sums : l->sums);
        l->step.first_sample = u->call->step->first_sample + row;
        for (uint32_t m = 0; m < head->group; m++) {
            const int status = head[1 + m].kernel(&l->calls[m]);
            if (status != PF_OK) {
                note(l, u, chunk, m, status);
                return 0;
            }
        }
        for (int64_t s = 0; b > 0 && s < slots; s++)
            if (l->sum[s] >= 0)
                add(sums + l->sum[s], l->sums + l->sum[s], bytes_of(&l->operands[s]),
                    l->operands[s].type_bits);
    }
    return 1;
}

/* One thread's part: chunks, as long as there are any. When one fails, those before it are taken
 * and run to their ends, so that the first one to fail does not depend on the threads. */
static void run_lane(void *context, int64_t index) {
    under_way *u = context;
    lane l;
    int64_t slots = -1;
    while (!atomic_load(&u->has_failed)) {
        const int64_t chunk = atomic_fetch_add(&u->next, 1);
        if (chunk >= u->head->chunks) return;
        if (slots < 0) slots = enter(&l, u, index);
        if (!run_chunk(&l, u, chunk, slots)) atomic_store(&u->has_failed, 1);
    }
}

/* ---- the tile ---- */

/* Adds the sums of the chunks in a tree, and puts them where they belong. */
static void add_chunks(const under_way *u) {
    const pf_group *group = &u->tile->group;
    const int64_t chunks = u->head->chunks;
    unsigned char *sums = u->sums;
    for (uint32_t m = 0; m < u->head->group; m++) {
        const pf_instruction *member = &u->head[1 + m];
        for (uint32_t s = member->input_count; s < slot_count(member); s++) {
            if (!is_sum(group->spec, member, s)) continue;
            const int32_t number = group->spec->slots[member->slots_at + s];
            const pf_value *value = &group->spec->values[number];
            for (int64_t apart = 1; apart < chunks; apart *= 2)
                for (int64_t c = 0; c + apart < chunks; c += 2 * apart)
                    add(sums + c * u->sum_bytes, sums + (c + apart) * u->sum_bytes, value->bytes,
                        value->type_bits);
            memcpy(group->operands[number].data, sums, (size_t)value->bytes);
            sums += round_up(value->bytes);
        }
    }
}

/* Answers the error of the first chunk that has failed. */
static int fail(const under_way *u) {
    for (int64_t c = 0; c < u->head->chunks; c++)
        if (u->outcomes[c].status != PF_OK) {
            *u->tile->failed = u->outcomes[c].member;
            *u->call->error = u->outcomes[c].error;
            return u->outcomes[c].status;
        }
    return PF_OK;
}

int pf_run_tile(const pf_call *call) {
    const pf_tile *tile = call->attributes;
    const pf_program_spec *spec = tile->group.spec;
    const pf_instruction *head = &spec->instructions[tile->group.head];
    lane unused;
    under_way u = {.tile = tile,
                   .call = call,
                   .head = head,
                   .outcomes = (outcome *)tile->memory,
                   .sums = tile->memory + outcome_bytes(head),
                   .sum_bytes = sum_bytes_of(spec, tile->group.head),
                   .lane_bytes = lay_out(&unused, spec, tile->group.head, NULL),
                   .from = *tile->blocks_done};
    u.lanes = u.sums + head->chunks * u.sum_bytes;
    const int64_t longest = (head->blocks + head->chunks - 1) / head->chunks;
    const int64_t work = head->work / head->blocks * head->chunks; /* of a block of each chunk */
    const int64_t left = longest - u.from, most = WORK_OF_CALL / (work + 1) + 1;
    u.to = u.from + (left < most ? left : most);
    for (int64_t c = 0; c < head->chunks; c++) u.outcomes[c].status = PF_OK;
    atomic_init(&u.next, 0);
    atomic_init(&u.has_failed, 0);
    pf_parallel_for(lane_count(head, PF_MAX_THREADS),
                    work * (u.to - u.from) / PF_BYTES_PER_NANOSECOND, run_lane, &u);
    *tile->blocks_done = 0;
    if (atomic_load(&u.has_failed)) return fail(&u);
    if (u.to < longest) {
        *tile->blocks_done = u.to;
        return PF_MORE;
    }
    add_chunks(&u);
    return PF_OK;
}
