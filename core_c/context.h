/* The structs of programs and contexts: plan.c makes and runs them, and loop.c drives them. */
#ifndef PYFRAME_CONTEXT_H
#define PYFRAME_CONTEXT_H

#include "blocks.h"
#include "guard.h"
#include "plan.h"
#include "stopwatch.h"
#include "tiles.h"

/* A number that is proportional to the rows: where in a program's memory, and how much for each. */
typedef struct {
    int64_t at, each;
} pf_share;

struct pf_program {
    pf_program_spec spec;  /* its pointers lead into `memory` */
    int64_t scratch_bytes; /* the largest that an instruction asks for */
    int64_t tile_bytes;    /* and that a tile does, with any number of threads */
    int64_t work;          /* of all instructions */
    unsigned char *memory;
    int64_t memory_bytes;
    pf_share *shares; /* one for each of `spec.scaled` */
};

struct pf_context {
    const pf_program *program;
    pf_program_spec spec;  /* that of the program, or of ... */
    unsigned char *tables; /* ... tables for as many rows as there are; NULL: the program's */
    int64_t rows;
    pf_guard **guards;
    int64_t guard_count;
    unsigned char **bases;
    pf_operand *operands;     /* one a value */
    const pf_operand **slots; /* as in the program, as pointers */
    pf_prepared *instructions;
    pf_group *groups;        /* one an instruction; used for the heads of groups only */
    int64_t *values_of_base; /* the values in the order of their bases ... */
    int64_t *first_of_base;  /* ... and where each base's begin; base_count + 1 entries */
    void *arena_memory;
    void *scratch_memory;
    pf_tile *tiles; /* as `groups`, for the heads of tiles; NULL: there are none */
    void *tile_memory;
    int64_t position;
    int64_t blocks_done; /* of the tile at the position, see pf_tile */
    int64_t failed;      /* and which of its members has answered an error */
    int writing, reading, claimed;
    int64_t *step_count; /* incremented at the end of this run; NULL: nothing is */
    pf_step step;
    pf_error error;
};

/* The number of steps taken: one thread writes it, others may read it at any time. */
static inline int64_t pf_steps(const int64_t *count) {
    return __atomic_load_n(count, __ATOMIC_RELAXED);
}
static inline void pf_set_steps(int64_t *count, int64_t steps) {
    __atomic_store_n(count, steps, __ATOMIC_RELAXED);
}
static inline void pf_count_step(int64_t *count) { pf_set_steps(count, pf_steps(count) + 1); }

/* Runs up to instruction `end`, or until the watch makes it return. */
int pf_run_until(pf_context *context, int64_t end, pf_stopwatch *watch);

#endif
