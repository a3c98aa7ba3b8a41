/* Groups: chains of element-wise instructions that run block by block. */
#ifndef PYFRAME_BLOCKS_H
#define PYFRAME_BLOCKS_H

#include "plan.h"

/* An instruction made ready. */
typedef struct pf_prepared {
    pf_kernel kernel;
    int64_t work;
    int64_t length; /* 1, and a group's members: where the next instruction begins */
    pf_call call;
} pf_prepared;

/* What a group's call has for attributes: where its members and their operands are. */
typedef struct pf_group {
    const pf_program_spec *spec;
    const pf_operand *operands; /* of the context, one a value */
    const pf_prepared *members; /* of the context */
    int64_t head;               /* the instruction that stands for the group; its members follow */
} pf_group;

/* The kernel of a group. */
int pf_run_group(const pf_call *call);

#endif
