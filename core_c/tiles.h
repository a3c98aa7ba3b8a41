/* Tiles: instructions that all run on some rows before they run on the next. */
#ifndef PYFRAME_TILES_H
#define PYFRAME_TILES_H

#include "blocks.h"

/* What a tile's call has for attributes. */
typedef struct pf_tile {
    pf_group group;        /* where its members and their operands are */
    unsigned char *memory; /* of the context; see pf_tile_bytes */
    int64_t *blocks_done;  /* of each chunk, by earlier calls */
    int64_t *failed;       /* which member has answered an error */
} pf_tile;

/* The memory that the tile whose head is instruction number `head` needs, with so many threads. */
int64_t pf_tile_bytes(const pf_program_spec *spec, int64_t head, int threads);

/* The kernel of a tile. */
int pf_run_tile(const pf_call *call);

#endif
