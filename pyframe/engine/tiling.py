"""Tiling: which instructions run on one block of rows before the next.

Layer by layer, the values of a large batch go through memory once for each layer that writes or
reads them. A *tile* runs all of its nodes, forward and backward, on a block of rows, then on the
next: what lies between two of them stays in the cache, and exists for one block only. Threads take
blocks, so that there is one call of them instead of one for each layer. See core_c/tiles.c.

Ops say what they do with rows (`Op.rows`). What looks at several rows together, as a normalization
over the batch does, ends a tile, and so does whatever needs a sum over the rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pyframe.engine.fusion import Specs, elementwise_count
from pyframe.engine.numbering import Values
from pyframe.engine.program import NOWHERE, Request
from pyframe.graph.node import Node
from pyframe.graph.op import Op
from pyframe.graph.spec import Spec, known_shape
from pyframe.native.core import lib

UNIT: int = lib.PF_TILE_UNIT  # rows; blocks are multiples of so many
# Of a block: products of fewer rows run below their speed, and read the weights too often; of more,
# nothing is gained. In between it is as many as share the L2 cache with the weights.
LEAST_ROWS, MOST_ROWS = 256, 512
LANE_BYTES = 1 << 19
MOST_LANE_BYTES = 1 << 22  # with which even the fewest rows are worth it
EXTENTS = 2  # tried, where a graph has several: of rows and of what they are reshaped to
# Sums over the rows are kept for so many chunks: enough to keep several threads busy, and so few
# that they take an eighth, at most, of the traffic that the tile saves.
CHUNKS, LEAST_CHUNKS = 32, 8
SUMS_OF_SAVED = 8
SAVED_BYTES = 1 << 21  # what stays in the L2 cache anyway is not worth a tile


@dataclass(eq=False, repr=False)
class Tile:
    """Nodes that run together, block of rows by block of rows.

    Attributes
    ----------
    nodes : list of Node
    by_row : list of int
        For each node a mask: bit i says that its slot i, inputs first, goes by rows.
    extent : int
        The number of rows.
    blocks, chunks : int
        Into how many blocks the rows are cut, and into how many chunks the blocks.
    lane_bytes : int
        The memory of one block; found by `Memory`.
    """

    nodes: list[Node]
    by_row: list[int]
    extent: int
    blocks: int
    chunks: int
    lane_bytes: int = 0

    @property
    def block(self) -> int:
        """The most rows of a block, as core_c/tiles.c cuts them."""
        units = self.extent // UNIT
        return -(-units // self.blocks) * UNIT + self.extent % UNIT

    def bytes_of_block(self, size: int) -> int:
        """Return the bytes of the rows of one block, of a value of so many bytes in all."""
        return size // self.extent * self.block

    def block_specs(self, by_row: int, given: Sequence[Spec | None]) -> list[Spec | None]:
        """Return the specs of a node's inputs for one block; `by_row` is the node's mask."""
        block = self.block
        return [
            Spec((block, *known_shape(spec)[1:]), spec.dtype)
            if spec is not None and by_row >> i & 1
            else spec
            for i, spec in enumerate(given)
        ]


def cut(
    nodes: list[Node], values: Values, specs: Specs, request: Request
) -> list[list[Node] | Tile]:
    """Return ordered nodes as tiles, and lists of what runs between them, in a valid order."""
    if "tiles" not in request.fuse or sum(values.bytes) < SAVED_BYTES:
        return [nodes]
    targets = {values.root_of(v) for v in request.targets}
    parts: list[list[Node] | Tile] = []
    rest = nodes
    while rest:
        behind: list[Node] = []
        for extent in _extents(rest, values):
            found = _Candidate(rest, values, specs, targets, extent)
            tile, behind = found.tile(), found.behind
            if tile is not None:
                parts += [found.before, tile]
                break
        else:
            late = set(behind)
            parts.append([node for node in rest if node not in late])
        rest = behind
    return parts if any(isinstance(part, Tile) for part in parts) else [nodes]


def _extents(nodes: Sequence[Node], values: Values) -> list[int]:
    """Return what may be the number of rows: the first extents of the most bytes.

    Left out is what no tile can come of, before anything is asked of the ops.
    """
    counts: Counter[int] = Counter()
    specs, sizes = values.specs, values.bytes
    for node in nodes:
        for value in values.operands[node][1]:
            shape = specs[value].shape
            if shape:
                counts[shape[0] or 0] += sizes[value]
    return [
        extent
        for extent, size in counts.most_common(EXTENTS)
        if extent >= 2 * UNIT
        and 2 * size >= SAVED_BYTES
        and size // extent * LEAST_ROWS <= 4 * MOST_LANE_BYTES  # some are needed elsewhere
    ]


@dataclass(eq=False, repr=False)
class _Found:
    """What the walk over the nodes has found; values are given by the roots of their memory."""

    by_rows: set[int] = field(default_factory=set)  # made in the tile, row by row
    late: set[int] = field(default_factory=set)  # there once the tile is done
    sums: set[int] = field(default_factory=set)


class _Candidate:
    """The nodes that could be one tile, what has to run before it, and what behind it."""

    def __init__(
        self,
        nodes: Sequence[Node],
        values: Values,
        specs: Specs,
        targets: set[int],
        extent: int,
    ) -> None:
        self.values, self.specs, self.targets, self.extent = values, specs, targets, extent
        self.before: list[Node] = []
        self.members: list[Node] = []
        self.by_row: list[int] = []
        self.behind: list[Node] = []
        self.found = _Found()
        in_order = False  # what changes states, and Python, runs in the order of the graph
        for node in nodes:
            has_effects = node.is_python or bool(node.states)
            if (has_effects and in_order) or not self._enter(node):
                self.behind.append(node)
                self.found.late.update(values.operands[node][1])
                in_order = in_order or has_effects

    def _enter(self, node: Node) -> bool:
        """Put a node into the tile, or in front of it, if that can be."""
        found, values = self.found, self.values
        roots = values.read_roots[node]
        if not found.late.isdisjoint(roots):
            return False
        mask = self._mask(node)
        if mask is None:
            if not found.by_rows.isdisjoint(roots):
                return False
            self.before.append(node)
            return True
        inputs, outputs = values.operands[node]
        shape_only = node.shape_only if isinstance(node, Op) else ()
        whole = {
            values.roots[v]
            for i, v in enumerate(inputs)
            if v != NOWHERE and i not in shape_only and not mask >> i & 1
        }
        if not found.by_rows.isdisjoint(whole):
            return False
        for i, value in enumerate(outputs, start=len(inputs)):
            if mask >> i & 1:
                found.by_rows.add(value)
            else:
                found.sums.add(value)
                found.late.add(value)
        self.members.append(node)
        self.by_row.append(mask)
        return True

    def _mask(self, node: Node) -> int | None:
        """Return which slots of a node go by rows; None if it cannot be in the tile."""
        if not isinstance(node, Op) or node.states:
            return None
        rows = node.rows(self.values.given[node])
        inputs, outputs = self.values.operands[node]
        if rows is None or len(inputs) + len(outputs) > lib.PF_TILE_SLOTS:
            return None
        specs, extent, mask = self.values.specs, self.extent, 0
        for i, by_row in enumerate(rows.inputs):
            if by_row and inputs[i] != NOWHERE:
                shape = specs[inputs[i]].shape
                if not shape or shape[0] != extent:
                    return None
                mask |= 1 << i
        if mask == 0:
            return None
        for i, by_row in enumerate(rows.outputs):
            shape, dtype = specs[outputs[i]]
            if by_row:
                if not shape or shape[0] != extent:
                    return None
                mask |= 1 << (len(inputs) + i)
            elif dtype.kind != "f":
                return None
        return mask

    def tile(self) -> Tile | None:
        """Return the tile, None if it would not pay."""
        found, values = self.found, self.values
        given, specs = values.given, self.specs
        if all(elementwise_count(m, specs, given[m]) is not None for m in self.members):
            return None  # such run as groups
        read = [root for node in self.members for root in values.read_roots[node]]
        outside = {root for node in self.behind for root in values.read_roots[node]}
        outside |= self.targets
        inner = found.by_rows.intersection(read) - outside
        bytes_of_row = self._bytes(inner) // max(self.extent, 1)
        if bytes_of_row == 0:
            return None
        saved = 2 * self._bytes(inner)  # each is written and read
        sums = self._bytes(found.sums & outside)
        chunks = min(CHUNKS, int(saved / (SUMS_OF_SAVED * sums)) if sums else CHUNKS)
        rows = min(max(LANE_BYTES // bytes_of_row // UNIT * UNIT, LEAST_ROWS), MOST_ROWS)
        too_wide = rows * bytes_of_row > MOST_LANE_BYTES
        if saved < SAVED_BYTES or too_wide or chunks < LEAST_CHUNKS:
            return None
        # A block for each chunk, if that leaves them large enough.
        blocks = max(-(-self.extent // rows), min(chunks, self.extent // LEAST_ROWS))
        if blocks < 2:
            return None
        if blocks > chunks:  # as many in each
            blocks = min(-(-blocks // chunks) * chunks, self.extent // UNIT)
        return Tile(self.members, self.by_row, self.extent, blocks, min(blocks, chunks))

    def _bytes(self, roots: Iterable[int]) -> int:
        return sum(self.values.bytes[root] for root in roots)
