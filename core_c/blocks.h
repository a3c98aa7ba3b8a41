/* Groups: chains of element-wise instructions that run block by block. */
#ifndef PYFRAME_BLOCKS_H
#define PYFRAME_BLOCKS_H

#include "plan.h"

/* An instruction ready to run. */
typedef struct pf_prepared {
    pf_kernel kernel;
    int64_t work;
    int64_t length; /* 1 plus the members of a group: the distance to the next instruction */
    pf_call call;
} pf_prepared;

/* The attributes of a group's call: where its members and their operands are. */
typedef struct pf_group {
    const pf_program_spec *spec;
    const pf_operand *operands; /* of the context, one a value */
    const pf_prepared *members; /* of the context */
    int64_t head;               /* the instruction that stands for the group; its members follow */
} pf_group;

/* The kernel of a group. */
int pf_run_group(const pf_call *call);

/* That of a group whose members run on some rows of their operands, row by row. */
int pf_run_rows(const pf_call *call);

#endif
