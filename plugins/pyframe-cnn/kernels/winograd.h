/* Convolutions with 3 x 3 taps, by tiles of TILE x TILE outputs, with fewer products than plain
 * sums have: winograd2.c and winograd4.c include this, with the transforms of their tiles.
 *
 * A tile sees SIDE x SIDE pixels of the source. With weights g (3 x 3), pixels d (SIDE x SIDE) and
 * outputs y (TILE x TILE), for one channel and one filter:
 *
 *     y = A^T [ (G g G^T) * (B^T d B) ] A        * element by element
 *
 * Summed over channels, each of the POINTS elements is a product of matrices: (tiles, C) (C, F).
 * The gradient of the weights is the same read backwards:
 *
 *     dg = G^T [ sum over tiles of (B^T d B) * (A dy A^T) ] G
 *
 * A block of tiles is transformed, multiplied and transformed back while it is in the L2 cache.
 * Winograd, Arithmetic Complexity of Computations, 1980, section V; Lavin and Gray, Fast Algorithms
 * for Convolutional Neural Networks, arXiv:1509.09308, section 4.
 *
 * Sums of neighbouring pixels are rounded before they are multiplied, which makes the error about
 * twice that of a plain sum; and a number that is not finite spreads over its tile. So, where a
 * result is not finite, the caller has it computed again in the plain way. */

enum {
    SIDE = TILE + 2,      /* of what a tile sees */
    POINTS = SIDE * SIDE, /* elements of a transformed tile */
    BUFFER = 384 << 10,   /* bytes of a block's transformed tiles, ... */
    ROUND = 24,           /* ... which are a multiple of this, the rows of a product's tiles */
    PARTS = 8,
    MANY_SUMS = 1 << 20, /* elements, of all parts */
    /* between the planes of the points, which would else fall into the same sets of the L1 cache */
    APART = ALIGNMENT / (int)sizeof(real),
    TERMS_PER_NANOSECOND = 40
};

typedef struct {
    const pf_call *call;
    const pf_gemm_functions *gemm;
    images x, y;                  /* what the taps see, and what they give */
    int64_t low[2], lines, tiles; /* zeros in front; tiles in a column, and in all images */
    int64_t columns;              /* tiles in a line */
    const real *source, *zero;
    int64_t parts, blocks, block; /* a block: of so many tiles */
    int64_t x_plane, y_plane;     /* from point to point of the transformed tiles */
    real *buffers;
    int64_t buffer; /* elements of a part's */
    /* forward */
    const real *packed, *bias, *saved;
    int64_t packed_size;
    real *result;
    /* weight gradient: a part's sums are (POINTS, C, F) */
    const real *dy;
    real *sums;
    unsigned char *spoiled; /* for each part, whether something was not finite */
} winograd;

/* ---- tiles ---- */

/* A tile's place: image, and the first of its outputs. */
typedef struct {
    int64_t image, line, column;
} place;

static place place_of(const winograd *s, int64_t tile) {
    return (place){tile / (s->lines * s->columns), tile / s->columns % s->lines * TILE,
                   tile % s->columns * TILE};
}

static inline void next_place(const winograd *s, place *at) {
    at->column += TILE;
    if (at->column < TILE * s->columns) return;
    at->column = 0;
    at->line += TILE;
    if (at->line < TILE * s->lines) return;
    at->line = 0;
    at->image++;
}

/* The lines of the source that a line of tiles sees: where each begins, and the distance of its
 * pixels; outside of the image every pixel is the same zeros. And those that the next line of tiles
 * sees besides. */
typedef struct {
    const real *first[SIDE], *next[TILE];
    int64_t step[SIDE];
} seen_lines;

static seen_lines lines_of(const winograd *s, place at) {
    const int64_t height = s->x.size[1], channels = s->x.channels;
    const int64_t line = s->x.size[2] * channels, last = s->x.count * height * line - line;
    seen_lines l;
    for (int i = 0; i < SIDE; i++) {
        const int64_t h = at.line - s->low[0] + i;
        const int inside = h >= 0 && h < height;
        l.first[i] = inside ? s->source + (at.image * height + h) * line : s->zero;
        l.step[i] = inside ? channels : 0;
    }
    for (int i = 0; i < TILE; i++) /* after the last line of an image, of the next one */
        l.next[i] = s->source + min_of((at.image * height + at.line + SIDE - 1 + i) * line, last);
    return l;
}

/* B^T d, of some channels of one column of pixels */
__attribute__((always_inline)) static inline void see_column(const winograd *s, const seen_lines *l,
                                                             int64_t column, int64_t c, part lanes,
                                                             vec seen[SIDE]) {
    vec d[SIDE] = {{0}};
    if (column >= 0 && column < s->x.size[2])
        CNN_UNROLL for (int i = 0; i < SIDE; i++) d[i] =
            load(l->first[i] + column * l->step[i] + c, lanes);
    see(d, seen);
}

/* Some channels of neighbouring tiles, the first of which sees the pixels from `column` on. The
 * last two of a tile's columns are the next one's first. */
__attribute__((always_inline)) static inline void see_channels(const winograd *s,
                                                               const seen_lines *l, int64_t column,
                                                               int64_t count, int64_t c, part lanes,
                                                               real *to) {
    const int64_t channels = s->x.channels, plane = s->x_plane;
    vec across[SIDE][SIDE];
    see_column(s, l, column, c, lanes, across[0]);
    see_column(s, l, column + 1, c, lanes, across[1]);
    for (to += c; count > 0; count--, column += TILE, to += channels) {
        CNN_UNROLL for (int j = 0; j < TILE; j++) {
            CNN_UNROLL for (int i = 0; i < TILE; i++)
                __builtin_prefetch(l->next[i] + (column + 2 + j) * channels + c);
            see_column(s, l, column + 2 + j, c, lanes, across[2 + j]);
        }
        CNN_UNROLL for (int i = 0; i < SIDE; i++) {
            vec row[SIDE], seen[SIDE];
            CNN_UNROLL for (int j = 0; j < SIDE; j++) row[j] = across[j][i];
            see(row, seen);
            CNN_UNROLL for (int j = 0; j < SIDE; j++)
                store(to + (i * SIDE + j) * plane, lanes, seen[j]);
            across[0][i] = across[TILE][i];
            across[1][i] = across[TILE + 1][i];
        }
    }
}

/* to[point][tile][c] = B^T d B, for `count` tiles */
static void see_tiles(const winograd *s, int64_t first, int64_t count, real *to) {
    const int64_t channels = s->x.channels, whole = channels / LANES * LANES;
    const part rest = first_lanes(channels - whole);
    for (int64_t together; count > 0; first += together, count -= together) {
        const place at = place_of(s, first);
        const seen_lines l = lines_of(s, at);
        const int64_t column = at.column - s->low[1];
        together = min_of(s->columns - at.column / TILE, count);
        for (int64_t c = 0; c < whole; c += LANES)
            see_channels(s, &l, column, together, c, first_lanes(LANES), to);
        if (whole < channels) see_channels(s, &l, column, together, whole, rest, to);
        to += together * channels;
    }
}

/* y = A^T from A + bias, for `count` tiles; returns whether all is finite */
static int collect_tiles(const winograd *s, int64_t first, int64_t count, const real *from) {
    const int64_t filters = s->y.channels, plane = s->y_plane;
    const int64_t height = s->y.size[1], width = s->y.size[2];
    const conv_attributes *attributes = s->call->attributes;
    vec nothing = {0}; /* 0, or NaN */
    place at = place_of(s, first);
    for (int64_t tile = 0; tile < count; tile++, next_place(s, &at), from += filters) {
        const int64_t high = min_of(height - at.line, TILE), wide = min_of(width - at.column, TILE);
        const int64_t pixel = (at.image * height + at.line) * width + at.column;
        real *y = s->result + pixel * filters;
        for (int64_t f = 0; f < filters; f += LANES) {
            const part lanes = first_lanes(filters - f);
            vec across[SIDE][TILE];
            CNN_UNROLL for (int j = 0; j < SIDE; j++) {
                vec m[SIDE];
                CNN_UNROLL for (int i = 0; i < SIDE; i++) m[i] =
                    load(from + (i * SIDE + j) * plane + f, lanes);
                collect(m, across[j]);
            }
            const vec bias = s->bias ? load(s->bias + f, lanes) : (vec){0};
            for (int i = 0; i < high; i++) {
                vec row[SIDE], sum[TILE];
                CNN_UNROLL for (int j = 0; j < SIDE; j++) row[j] = across[j][i];
                collect(row, sum);
                for (int j = 0; j < wide; j++) {
                    nothing += sum[j] * 0;
                    store(y + (i * width + j) * filters + f, lanes, sum[j] + bias);
                }
            }
        }
        if (attributes->activation != PF_NO_ACTIVATION)
            for (int i = 0; i < high; i++) {
                const int64_t line = (pixel + i * width) * filters;
                finish(s->call, s->result + line, s->saved ? s->saved + line : NULL,
                       wide * filters);
            }
    }
    int finite = 1;
    for (int i = 0; i < LANES; i++) finite &= nothing[i] == 0;
    return finite;
}

/* Where the pixels of a tile of dy are; outside of the image there are zeros. */
static inline void find(const winograd *s, place at, const real *from[TILE * TILE]) {
    const int64_t height = s->y.size[1], width = s->y.size[2];
    for (int i = 0; i < TILE; i++)
        for (int j = 0; j < TILE; j++) {
            const int64_t line = at.line + i, column = at.column + j;
            const int64_t pixel = (at.image * height + line) * width + column;
            const int inside = line < height && column < width;
            from[i * TILE + j] = inside ? s->dy + pixel * s->y.channels : s->zero;
        }
}

/* to[point][tile][f] = A dy A^T, for `count` tiles */
static void spread_tiles(const winograd *s, int64_t first, int64_t count, real *to) {
    const int64_t filters = s->y.channels, plane = s->y_plane;
    place at = place_of(s, first);
    for (int64_t tile = 0; tile < count; tile++, next_place(s, &at), to += filters) {
        const real *from[TILE * TILE];
        find(s, at, from);
        for (int64_t f = 0; f < filters; f += LANES) {
            const part lanes = first_lanes(filters - f);
            vec down[TILE][SIDE];
            CNN_UNROLL for (int j = 0; j < TILE; j++) {
                vec y[TILE];
                CNN_UNROLL for (int i = 0; i < TILE; i++) y[i] =
                    load(from[i * TILE + j] + f, lanes);
                spread(y, down[j]);
            }
            CNN_UNROLL for (int i = 0; i < SIDE; i++) {
                vec row[TILE], m[SIDE];
                CNN_UNROLL for (int j = 0; j < TILE; j++) row[j] = down[j][i];
                spread(row, m);
                CNN_UNROLL for (int j = 0; j < SIDE; j++)
                    store(to + (i * SIDE + j) * plane + f, lanes, m[j]);
            }
        }
    }
}

/* ---- weights ---- */

/* to[point][i] = G g G^T, where g has taps (3, 3) of `size` weights each; `turned`: rotated by half
 * a turn */
static void widen_weights(const real *weights, int64_t size, int turned, real *to) {
    for (int64_t at = 0; at < size; at += LANES) {
        const part lanes = first_lanes(size - at);
        vec across[3][SIDE];
        for (int j = 0; j < 3; j++) {
            vec g[3];
            for (int i = 0; i < 3; i++) {
                const int tap = turned ? 8 - (i * 3 + j) : i * 3 + j;
                g[i] = load(weights + tap * size + at, lanes);
            }
            widen(g, across[j]);
        }
        for (int i = 0; i < SIDE; i++) {
            const vec row[3] = {across[0][i], across[1][i], across[2][i]};
            vec u[SIDE];
            widen(row, u);
            for (int j = 0; j < SIDE; j++) store(to + (i * SIDE + j) * size + at, lanes, u[j]);
        }
    }
}

/* dweight (3, 3) of `size` each = G^T u G, where u[point][i] is the sum of `sums` such arrays;
 * returns whether all is finite */
static int narrow_weights(const real *u, int64_t size, int64_t sums, real *dweight) {
    vec nothing = {0};
    for (int64_t at = 0; at < size; at += LANES) {
        const part lanes = first_lanes(size - at);
        vec across[SIDE][3];
        for (int j = 0; j < SIDE; j++) {
            vec column[SIDE];
            for (int i = 0; i < SIDE; i++) {
                const real *from = u + (i * SIDE + j) * size + at;
                column[i] = load(from, lanes);
                for (int64_t sum = 1; sum < sums; sum++)
                    column[i] += load(from + sum * POINTS * size, lanes);
            }
            narrow(column, across[j]);
        }
        for (int i = 0; i < 3; i++) {
            vec row[SIDE];
            for (int j = 0; j < SIDE; j++) row[j] = across[j][i];
            vec g[3];
            narrow(row, g);
            for (int j = 0; j < 3; j++) {
                nothing += g[j] * 0;
                store(dweight + (i * 3 + j) * size + at, lanes, g[j]);
            }
        }
    }
    int finite = 1;
    for (int i = 0; i < LANES; i++) finite &= nothing[i] == 0;
    return finite;
}

/* ---- what both directions share ---- */

/* Cuts the tiles into blocks, and these into `parts` parts at most, by shapes only; `sums`: there
 * are POINTS x channels x filters of them in each part, to which each block adds. 0 without the
 * memory for it. */
static int prepare(winograd *s, arena *scratch, int64_t parts, int sums) {
    const int64_t channels = s->x.channels, filters = s->y.channels;
    s->gemm = s->call->host->gemm(CNN_BITS);
    s->lines = ceil_div(s->y.size[1], TILE);
    s->columns = ceil_div(s->y.size[2], TILE);
    s->tiles = s->y.count * s->lines * s->columns;
    const int64_t fit = BUFFER / (POINTS * (channels + filters) * (int64_t)sizeof(real));
    const int64_t worth = sums ? 2 * channels * filters / (channels + filters) : 0;
    s->block = min_of(max_of(max_of(fit, worth) / ROUND * ROUND, ROUND), s->tiles);
    s->blocks = ceil_div(s->tiles, s->block);
    s->parts = min_of(parts, sums ? ceil_div(s->blocks, 2) : s->blocks);
    s->x_plane = s->block * channels + APART;
    s->y_plane = s->block * filters + APART;
    s->buffer = POINTS * (s->x_plane + s->y_plane);
    real *zero = take(scratch, max_of(channels, filters) * (int64_t)sizeof(real));
    s->buffers = take(scratch, s->parts * s->buffer * (int64_t)sizeof(real));
    s->spoiled = take(scratch, s->parts);
    if (!zero || !s->buffers || !s->spoiled) return 0;
    memset(zero, 0, (size_t)max_of(channels, filters) * sizeof(real));
    s->zero = zero;
    return 1;
}

/* The first tile of a part, which consists of whole blocks. */
static int64_t part_start(const winograd *s, int64_t index) {
    return min_of(s->blocks * index / s->parts * s->block, s->tiles);
}

/* Runs the parts; returns whether all they made is finite. */
static int run_parts(winograd *s, pf_body body) {
    const int64_t terms = POINTS * s->tiles * s->x.channels * s->y.channels;
    s->call->host->parallel_for(s->parts, terms / TERMS_PER_NANOSECOND, body, s);
    int finite = 1;
    for (int64_t i = 0; i < s->parts; i++) finite &= !s->spoiled[i];
    return finite;
}

/* ---- forward ---- */

static void filter_part(void *context, int64_t index) {
    const winograd *s = context;
    const int64_t channels = s->x.channels, filters = s->y.channels;
    real *seen = s->buffers + index * s->buffer, *made = seen + POINTS * s->x_plane;
    const int64_t end = part_start(s, index + 1);
    int finite = 1;
    for (int64_t tile = part_start(s, index); tile < end; tile += s->block) {
        const int64_t count = min_of(s->block, end - tile);
        see_tiles(s, tile, count, seen);
        pf_gemm g = {.size = sizeof g,
                     .m = count,
                     .n = filters,
                     .k = channels,
                     .a_row = channels,
                     .a_step = 1,
                     .b_packed = 1,
                     .c_row = filters};
        for (int point = 0; point < POINTS; point++) {
            g.a = seen + point * s->x_plane;
            g.b = s->packed + point * s->packed_size;
            g.c = made + point * s->y_plane;
            s->gemm->run(&g);
        }
        finite &= collect_tiles(s, tile, count, made);
    }
    s->spoiled[index] = !finite;
}

/* The weights of each point, as the products take them: from taps (3, 3) of (C, F), or, for the
 * transpose, of (F, C). */
static int pack_points(winograd *s, arena *scratch, const real *weights, int transposed) {
    const int64_t size = s->x.channels * s->y.channels;
    pf_gemm g = {.size = sizeof g,
                 .n = s->y.channels,
                 .k = s->x.channels,
                 .b_row = transposed ? s->x.channels : s->y.channels,
                 .b_transposed = transposed};
    s->packed_size = s->gemm->packed_size(&g);
    real *packed = take(scratch, POINTS * s->packed_size * (int64_t)sizeof(real));
    real *points = take(scratch, POINTS * size * (int64_t)sizeof(real));
    if (!packed || !points) return 0;
    widen_weights(weights, size, transposed, points);
    for (int point = 0; point < POINTS; point++) {
        g.b = points + point * size;
        s->gemm->pack(&g, packed + point * s->packed_size);
    }
    s->packed = packed;
    return 1;
}

/* x (N, H, W, C), weights (3, 3, C, F), [bias (F,)], [saved like y] -> y (N, H', W', F);
 * `transposed`: weights (3, 3, F, C), and y is the transpose of that convolution. */
int CNN_TILED(winograd)(const pf_call *call, const images *x, const images *y, int transposed,
                        const real *bias, const real *saved) {
    const conv_attributes *attributes = call->attributes;
    winograd s = {.call = call,
                  .x = *x,
                  .y = *y,
                  .source = input(call, 0),
                  .bias = bias,
                  .saved = saved,
                  .result = output(call, 0)};
    for (int axis = 0; axis < 2; axis++) {
        const int64_t low = attributes->low[axis + 1];
        s.low[axis] = transposed ? 2 - low : low;
    }
    arena scratch = arena_of(call);
    if (!prepare(&s, &scratch, PARTS, 0) || !pack_points(&s, &scratch, input(call, 1), transposed))
        return out_of_scratch(call);
    return run_parts(&s, filter_part) ? PF_OK : CNN_NOT_FINITE;
}

/* ---- the gradient of the weights ---- */

static void sum_part(void *context, int64_t index) {
    const winograd *s = context;
    const int64_t channels = s->x.channels, filters = s->y.channels, size = channels * filters;
    real *seen = s->buffers + index * s->buffer, *given = seen + POINTS * s->x_plane;
    real *sums = s->sums + index * POINTS * size;
    const int64_t start = part_start(s, index), end = part_start(s, index + 1);
    for (int64_t tile = start; tile < end; tile += s->block) {
        const int64_t count = min_of(s->block, end - tile);
        see_tiles(s, tile, count, seen);
        spread_tiles(s, tile, count, given);
        pf_gemm g = {.size = sizeof g,
                     .m = channels,
                     .n = filters,
                     .k = count,
                     .a_row = 1,
                     .a_step = channels,
                     .b_row = filters,
                     .c_row = filters,
                     .accumulate = tile > start};
        for (int point = 0; point < POINTS; point++) {
            g.a = seen + point * s->x_plane;
            g.b = given + point * s->y_plane;
            g.c = sums + point * size;
            s->gemm->run(&g);
        }
    }
    s->spoiled[index] = 0;
}

/* x (N, H, W, C), dy (N, H', W', F) -> dweight (3, 3, C, F) */
int CNN_TILED(winograd_weight_grad)(const pf_call *call, const images *x, const images *dy) {
    const conv_attributes *attributes = call->attributes;
    winograd s = {.call = call,
                  .x = *x,
                  .y = *dy,
                  .low = {attributes->low[1], attributes->low[2]},
                  .source = input(call, 1),
                  .dy = input(call, 0)};
    const int64_t size = x->channels * dy->channels;
    arena scratch = arena_of(call);
    const int64_t parts = max_of(min_of(MANY_SUMS / (POINTS * size), PARTS), 2);
    if (!prepare(&s, &scratch, parts, 1)) return out_of_scratch(call);
    s.sums = take(&scratch, s.parts * POINTS * size * (int64_t)sizeof(real));
    if (!s.sums) return out_of_scratch(call);
    run_parts(&s, sum_part);
    return narrow_weights(s.sums, size, s.parts, output(call, 0)) ? PF_OK : CNN_NOT_FINITE;
}
