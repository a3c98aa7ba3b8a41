"""Memory: where the values of a program lie, and for how long.

Most of them share one block of memory, the arena: a place in it is free again after the last
instruction that reads what lies there. `Memory` decides, group by group.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence

from pyframe.engine.fusion import Group
from pyframe.engine.numbering import Values
from pyframe.engine.program import ARENA, BLOCK, LANE, NOWHERE, Request
from pyframe.engine.tiling import Tile
from pyframe.graph.node import Node, Value
from pyframe.graph.parameter import Parameter
from pyframe.graph.spec import Array
from pyframe.graph.storage import ALIGNMENT
from pyframe.native.core import lib

# Blocks: with values that exist inside of the group only, and without.
BLOCK_BYTES = 1 << 13
WIDE_BLOCK_BYTES = 1 << 15


def round_up(size: int) -> int:
    """Return the size as a multiple of the alignment, at least one."""
    return -(-size // ALIGNMENT) * ALIGNMENT or ALIGNMENT


class Arena:
    """Gives out offsets, best fit first, and takes them back.

    Free blocks are kept twice: by offset, so that neighbours merge, and by size, so that the best
    fit is found by bisection.

    Examples
    --------
    >>> arena = Arena()
    >>> a = arena.allocate(100)
    >>> arena.free(a, 100)
    >>> arena.allocate(50) == a, arena.size
    (True, 128)
    """

    def __init__(self) -> None:
        self.size = 0
        self._by_offset: list[tuple[int, int]] = []  # (offset, size), never adjacent
        self._by_size: list[tuple[int, int]] = []  # (size, offset)

    def allocate(self, size: int) -> int:
        """Return the offset of a block of at least `size` bytes."""
        size = round_up(size)
        at = bisect_left(self._by_size, (size, 0))
        if at == len(self._by_size):
            return self._grow(size)
        room, offset = self._by_size[at]
        self._remove(offset, room)
        if room > size:
            self._add(offset + size, room - size)
        return offset

    def _grow(self, size: int) -> int:
        """Take new memory, beginning with the free block at the end when there is one."""
        offset = self.size
        if self._by_offset and sum(self._by_offset[-1]) == self.size:
            offset, room = self._by_offset[-1]
            self._remove(offset, room)
        self.size = offset + size
        return offset

    def free(self, offset: int, size: int) -> None:
        """Take a block back."""
        size = round_up(size)
        at = bisect_left(self._by_offset, (offset, size))
        following = self._by_offset[at] if at < len(self._by_offset) else None
        before = self._by_offset[at - 1] if at > 0 else None
        if following is not None and following[0] == offset + size:
            self._remove(*following)
            size += following[1]
        if before is not None and sum(before) == offset:
            self._remove(*before)
            offset, size = before[0], before[1] + size
        self._add(offset, size)

    def _add(self, offset: int, size: int) -> None:
        insort(self._by_offset, (offset, size))
        insort(self._by_size, (size, offset))

    def _remove(self, offset: int, size: int) -> None:
        del self._by_offset[bisect_left(self._by_offset, (offset, size))]
        del self._by_size[bisect_left(self._by_size, (size, offset))]


class Scratch:
    """Places for the values that exist inside of a group only, each one block of 8-byte numbers.

    Examples
    --------
    >>> scratch = Scratch()
    >>> a = scratch.take()
    >>> scratch.give_back(a)
    >>> scratch.take() == a
    True
    """

    def __init__(self) -> None:
        self._free = list(range(0, lib.PF_GROUP_SCRATCH, BLOCK_BYTES))[::-1]

    def take(self) -> int | None:
        """Return the offset of a free place, None when there is none."""
        return self._free.pop() if self._free else None

    def give_back(self, offset: int) -> None:
        """Take a place back."""
        self._free.append(offset)


def block_elements(itemsize: int, *, uses_scratch: bool) -> int:
    """Return how many elements a group treats at a time."""
    return (BLOCK_BYTES if uses_scratch else WIDE_BLOCK_BYTES) // itemsize


class Memory:
    """The plan of a program's memory: fills in the places of the values that have none.

    Parameters
    ----------
    values : Values
    counts : dict of Node to int or None
        The `elementwise_count` of each node that may write over what it reads; empty without
        fusions.
    request : Request

    Attributes
    ----------
    last_use : dict of int to int
        The position of the last group that reads a value; behind all groups for a target. A value
        that is not in here is read by none.
    arena : Arena
    """

    def __init__(self, values: Values, counts: Mapping[Node, int | None], request: Request) -> None:
        self.values, self.counts = values, counts
        self.keep_all, self.in_place = request.keep_all, "in_place" in request.fuse
        self.last_use: dict[int, int] = {}
        self.arena = Arena()
        self._freed: set[int] = set()  # whose memory belongs to others at the end

    def place_gradients(
        self, gradients: Sequence[tuple[Parameter, Value, Array]]
    ) -> list[tuple[Value, Array]]:
        """Have the gradients of parameters computed right where they are wanted.

        Returns those that must be copied there, because they share memory with something.
        """
        values = self.values
        copies: list[tuple[Value, Array]] = []
        taken: set[int] = set()
        for _, gradient, target in gradients:
            root = values.root_of(gradient)
            if values.bases[root] == NOWHERE and root not in taken:
                taken.add(root)
                values.bases[root], values.offsets[root] = values.place_of_array(target)
            else:
                copies.append((gradient, target))
        return copies

    def plan(self, groups: Sequence[Group | Tile], targets: Sequence[Value]) -> None:
        """Place what the groups write, in their order; targets are kept to the end."""
        self._find_uses(groups, targets)
        for position, group in enumerate(groups):
            if isinstance(group, Tile):
                self._plan_tile(group, position)
            elif group.elements:
                self._plan_group(group, position)
            else:
                self._plan_node(group.nodes[0], position)
        self.values.place_aliases()

    def _find_uses(self, groups: Sequence[Group | Tile], targets: Sequence[Value]) -> None:
        last_use, read_roots = self.last_use, self.values.read_roots
        for position, group in enumerate(groups):
            for node in group.nodes:
                for root in read_roots[node]:
                    last_use[root] = position
        for value in targets:
            self.last_use[self.values.root_of(value)] = len(groups)

    def _plan_node(self, node: Node, position: int) -> None:
        values = self.values
        inputs, outputs = values.operands[node]
        for value in outputs:
            wanted = value in self.last_use or self.keep_all or node.is_python
            if not wanted or values.bases[value] != NOWHERE:
                continue
            if not (self.in_place and self._take_over(node, inputs, value, position)):
                self._allocate(value)
        self._release([*inputs, *outputs], position)

    def _allocate(self, value: int) -> None:
        self.values.bases[value] = ARENA
        self.values.offsets[value] = self.arena.allocate(self.values.bytes[value])

    def _take_over(self, node: Node, inputs: list[int], output: int, position: int) -> bool:
        """Give an output the memory of an input that is used here for the last time, if it may."""
        if self.counts[node] is None or node.output_count > 1:
            return False  # one of several results could lie where the next is read from
        values, last_use = self.values, self.last_use
        for value in inputs:
            root = values.roots[value] if value != NOWHERE else NOWHERE
            if (
                last_use.get(root) == position  # of no input that is absent
                and values.bases[root] == ARENA
                and root not in self._freed
                and values.bytes[root] == values.bytes[output]
            ):
                self._freed.add(root)  # its memory lives on under another name
                values.bases[output] = ARENA
                values.offsets[output] = values.offsets[root]
                return True
        return False

    def _plan_group(self, group: Group, position: int) -> None:
        """Place what the members of a group write.

        A value that only the group needs exists as one block of scratch memory. The others that die
        here keep their memory to the end of the group: it runs block by block, so its first member
        still reads when its last one has begun to write.
        """
        values, scratch = self.values, Scratch()
        members = [values.operands[node] for node in group.nodes]
        last: dict[int, int] = {}  # the last member that reads a value
        for m, (inputs, _) in enumerate(members):
            last.update({values.roots[v]: m for v in inputs if v != NOWHERE})
        for m, (inputs, outputs) in enumerate(members):
            over = [
                values.offsets[value]
                for value in {values.roots[v] for v in inputs if v != NOWHERE}
                if values.bases[value] == BLOCK and last[value] == m
            ]
            if len(outputs) == 1:  # it may be written over what it is made of
                while over:
                    scratch.give_back(over.pop())
            for value in outputs:
                if value in self.last_use and values.bases[value] == NOWHERE:
                    is_inner = self.last_use[value] == position
                    place = scratch.take() if is_inner else None
                    if place is None:
                        self._allocate(value)
                    else:
                        values.bases[value], values.offsets[value] = BLOCK, place
            while over:
                scratch.give_back(over.pop())
        touched = [v for inputs, outputs in members for v in (*inputs, *outputs)]
        self._release(touched, position)

    def _plan_tile(self, tile: Tile, position: int) -> None:
        """Place what the members of a tile write.

        What goes by rows and only the tile needs exists for one block, in an arena of its own. The
        others that die here keep their memory to the end of the tile, as in a group.
        """
        values, lane = self.values, Arena()
        last: dict[int, int] = {}  # the last member that reads a value
        for m, node in enumerate(tile.nodes):
            last.update(dict.fromkeys(values.read_roots[node], m))
        touched: list[int] = []
        for m, node in enumerate(tile.nodes):
            inputs, outputs = values.operands[node]
            over = [
                root
                for root in {values.roots[v] for v in inputs if v != NOWHERE}
                if values.bases[root] == LANE and last.get(root) == m
            ]
            for i, value in enumerate(outputs, start=len(inputs)):
                if value not in self.last_use or values.bases[value] != NOWHERE:
                    continue
                if self.last_use[value] > position or not tile.by_row[m] >> i & 1:
                    self._allocate(value)
                    continue
                values.bases[value] = LANE
                heir = self._heir(node, value, over)
                if heir is None:
                    values.offsets[value] = lane.allocate(tile.bytes_of_block(values.bytes[value]))
                else:
                    over.remove(heir)
                    values.offsets[value] = values.offsets[heir]
            for root in over:
                lane.free(values.offsets[root], tile.bytes_of_block(values.bytes[root]))
            touched += [*inputs, *outputs]
        tile.lane_bytes = lane.size
        self._release(touched, position)

    def _heir(self, node: Node, output: int, over: Sequence[int]) -> int | None:
        """Return which of the values that end at a node its only output may be written over."""
        if not self.in_place or self.counts[node] is None or node.output_count > 1:
            return None
        size = self.values.bytes[output]
        return next((root for root in over if self.values.bytes[root] == size), None)

    def _release(self, touched: Sequence[int], position: int) -> None:
        """Give back the memory of values that nothing behind a position reads."""
        if self.keep_all:
            return
        values, last_use = self.values, self.last_use
        for v in touched:
            if v == NOWHERE:
                continue
            value = values.roots[v]
            if value in last_use and last_use[value] > position:
                continue
            if values.bases[value] == ARENA and value not in self._freed:
                self._freed.add(value)
                self.arena.free(values.offsets[value], values.bytes[value])

    def readable(self) -> set[int]:
        """Return the values whose memory still holds them at the end."""
        return {
            value
            for value, root in self.values.roots.items()
            if self.values.bases[root] not in (NOWHERE, BLOCK, LANE) and root not in self._freed
        }
