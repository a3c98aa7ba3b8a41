"""Fusion: the same results from fewer passes over memory.

Each pass looks at the ordered nodes of one specialization, whose shapes are all known, and says
what can be joined; the lowering does it. Each pass can be selected by its name in `FUSIONS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pyframe.errors import ArgumentError, ShapeError
from pyframe.graph.node import Constant, Leaf, Node, Value
from pyframe.graph.op import Op
from pyframe.graph.spec import Spec, known_shape
from pyframe.native.core import lib

Key = tuple[Node, int]  # an output of a node
Specs = dict[Node, tuple[Spec, ...]]

FUSIONS: dict[str, str] = {
    "constants": "what depends on constants alone is computed once, when the program is made",
    "epilogue": "an op takes over what happens to its result: bias, residual, activation",
    "tiles": "forward and backward run on one block of rows before the next, in several threads",
    "chains": "neighbouring element-wise ops run block by block, and over several threads",
    "in_place": "an element-wise result takes the memory of an operand that is needed no more",
    "rows": "of a large table only the rows that are looked up get a gradient and an update",
    "update": "clipping and the optimizer's update are one pass over the flat buffers",
}

# Below this the operands of a group stay in the L1 cache anyway.
GROUP_BYTES = 1 << 14
# From this size on a single element-wise instruction can use several threads.
SHARED_ELEMENTS = 1 << 16


def choose(fuse: bool | Collection[str]) -> frozenset[str]:
    """Return the names of the fusions that an argument ``fuse=`` asks for.

    Raises
    ------
    ArgumentError
        If one of them does not exist.

    Examples
    --------
    >>> sorted(choose({"chains", "in_place"}))
    ['chains', 'in_place']
    """
    if isinstance(fuse, bool):
        return frozenset(FUSIONS if fuse else ())
    if isinstance(fuse, str) or not isinstance(fuse, Collection) or not set(fuse) <= set(FUSIONS):
        raise ArgumentError(f"fuse={fuse!r}; use True, False, or a set of {', '.join(FUSIONS)}")
    return frozenset(fuse)


def given_specs(node: Node, specs: Specs) -> list[Spec | None]:
    """Return the specs of a node's inputs."""
    return [None if v is None else specs[v.node][v.index] for v in node.inputs]


def count_of(spec: Spec) -> int:
    """Return the number of elements of a known shape."""
    return math.prod(known_shape(spec))


# ---- constants ----


def constant_nodes(order: Sequence[Node]) -> list[Node]:
    """Return the nodes that depend on constants only, and could be computed beforehand."""
    found: list[Node] = []
    constant: set[Node] = set()
    for node in order:
        if isinstance(node, Constant):
            constant.add(node)
            continue
        for v in node.inputs:
            if v is not None and v.node not in constant:
                break
        else:
            if isinstance(node, Op) and not (
                node.states or node.uses_random or node.reads_training
            ):
                constant.add(node)
                found.append(node)
    return found


# ---- epilogues ----


def key_of(value: Value) -> Key:
    """Return the key of a value in the planner's tables."""
    return value.node, value.index


@dataclass(eq=False, repr=False)
class Rewritten:
    """Ordered nodes, some of which replace several others.

    `new_keys` maps the outputs of replaced nodes to their new places, and `absorbed` holds the
    values that no longer exist.
    """

    order: list[Node]
    new_keys: dict[Key, Key] = field(default_factory=dict)
    absorbed: set[Key] = field(default_factory=set)


def absorb(order: Sequence[Node], specs: Specs, targets: Collection[Key]) -> Rewritten:
    """Join ops with the only consumer of one of their outputs, where `Op.absorb` allows it.

    Adds the specs of new nodes to `specs`.
    """
    if not any(issubclass(t, Op) and t.absorb is not Op.absorb for t in set(map(type, order))):
        return Rewritten(list(order))
    return _Absorption(order, specs, targets).run()


class _Absorption:
    """One pass of `absorb`."""

    def __init__(self, order: Sequence[Node], specs: Specs, targets: Collection[Key]) -> None:
        self.places: list[Node | None] = list(order)
        self.place_of = {node: i for i, node in enumerate(order)}
        self.specs = specs
        self.result = Rewritten([])
        self.users: dict[Key, list[Node | None]] = {}  # None: a target of the program
        # Those of which some op needs the shape alone, and the place of the first such op.
        self.shapes_used: dict[Key, int] = {}
        for place, node in enumerate(order):
            shape_only = node.shape_only if isinstance(node, Op) else ()
            for i, v in enumerate(node.inputs):
                if v is not None and i in shape_only:
                    self.shapes_used.setdefault((v.node, v.index), place)
                elif v is not None:
                    self.users.setdefault((v.node, v.index), []).append(node)
        for key in targets:
            self.users.setdefault(key, []).append(None)

    def run(self) -> Rewritten:
        for i in range(len(self.places)):
            while self._absorb_at(i):
                pass
        self.result.order = [node for node in self.places if node is not None]
        return self.result

    def _absorb_at(self, i: int) -> bool:
        """Try to join the node at an index with a consumer; return whether that was possible."""
        node = self.places[i]
        if not isinstance(node, Op) or type(node).absorb is Op.absorb:
            return False
        for index in range(node.output_count):
            users = self.users.get((node, index), [])
            consumer = users[0] if len(users) == 1 else None
            if not isinstance(consumer, Op):
                continue
            if any(self.users.get((consumer, i)) for i in range(1, consumer.output_count)):
                continue  # the joined op would lack this output
            # With other outputs the joined op has to stay in the place of this one.
            early = node.output_count > 1
            if early and not self._is_ready(consumer, (node, index), i):
                continue
            same = self.specs[node][index] == self.specs[consumer][0]
            asked_at = self.shapes_used.get((node, index), len(self.places))
            if asked_at < len(self.places) and not (same and self.place_of[consumer] < asked_at):
                continue  # the result could not stand for it, or would not be there yet
            given = given_specs(consumer, self.specs)
            fused = node.absorb(index, consumer, given)
            if fused is not None and self._has_result_of(consumer, given, fused, index):
                self._replace(node, index, consumer, fused, early)
                return True
        return False

    def _has_result_of(
        self, consumer: Op, given: Sequence[Spec | None], fused: Op, index: int
    ) -> bool:
        """Return whether a joined op has the output that the consumer had, by its own shape rule.

        An `absorb` that ignores some of the shapes could lead to a kernel that writes more than
        its memory holds. Such ops are not joined. If all shapes are equal, nothing can differ.
        """
        result = self.specs[consumer][0]
        if all([spec is None or spec.shape == result.shape for spec in given]):
            return True
        try:
            specs = fused.check(*given_specs(fused, self.specs))
        except ShapeError:
            return False
        return specs[index] == result

    def _is_ready(self, consumer: Node, taken: Key, place: int) -> bool:
        """Return whether all that a consumer reads, except one value, exists before an index.

        Another output of the node at that index does not: the joined op would read what it writes.
        """
        keys = [self._resolve(key_of(v)) for v in consumer.inputs if v is not None]
        # What has no index exists from the start: a constant part, computed beforehand.
        return all(
            key == taken or isinstance(key[0], Leaf) or self.place_of.get(key[0], -1) < place
            for key in keys
        )

    def _resolve(self, key: Key) -> Key:
        while key in self.result.new_keys:
            key = self.result.new_keys[key]
        return key

    def _replace(self, node: Op, index: int, consumer: Op, fused: Op, early: bool) -> None:
        here, there = self.place_of.pop(node), self.place_of.pop(consumer)
        self.places[here] = self.places[there] = None
        self.place_of[fused] = here if early else there
        self.places[self.place_of[fused]] = fused
        self.specs[fused] = tuple(
            self.specs[consumer][0] if i == index else spec
            for i, spec in enumerate(self.specs[node])
        )
        self.result.absorbed.add((node, index))
        self._rename((consumer, 0), (fused, index))
        if (node, index) in self.shapes_used:
            self.result.new_keys[node, index] = fused, index
            self._move_shape((node, index), (fused, index))
        for i in range(node.output_count):
            if i != index:
                self._rename((node, i), (fused, i))
        for gone in (node, consumer):
            for v in gone.inputs:
                if v is not None:
                    users = self.users.get(self._resolve((v.node, v.index)), [])
                    users[:] = [user for user in users if user is not gone]
        for v in fused.inputs:
            if v is not None:
                self.users.setdefault(self._resolve((v.node, v.index)), []).append(fused)

    def _move_shape(self, old: Key, new: Key) -> None:
        place = self.shapes_used.pop(old, None)
        if place is not None:
            self.shapes_used[new] = min(place, self.shapes_used.get(new, place))

    def _rename(self, old: Key, new: Key) -> None:
        self.result.new_keys[old] = new
        self._move_shape(old, new)
        self.users[new] = self.users.pop(old, [])


# ---- groups, as "chains" asks for ----


def elementwise_count(
    node: Node, specs: Specs, given: Sequence[Spec | None] | None = None
) -> int | None:
    """Return the number of elements of an element-wise op, None for other ops.

    `given` are the specs of its inputs, where they are at hand.
    Stretches of the operands correspond only if each has as many elements as the result, or a
    single one. Operands of equal size are not enough: (n, 1) and (n,) give (n, n).
    """
    if not isinstance(node, Op) or type(node).is_elementwise is Op.is_elementwise:
        return None
    if given is None:
        given = given_specs(node, specs)
    if node.states or node.uses_random or not node.is_elementwise(given):
        return None
    outputs = specs[node]
    shape, count = outputs[0].shape, count_of(outputs[0])
    for spec in given:
        if spec is not None and spec.shape != shape and count_of(spec) not in (1, count):
            return None
    for spec in outputs[1:]:
        if spec.shape != shape and count_of(spec) != count:
            return None
    # The parts of a group run in parallel, but there is only one scratch memory.
    return None if node.scratch_bytes(given) else count


class Group(NamedTuple):
    """Nodes that run together, block by block; or one node by itself, with `elements` of 0."""

    nodes: list[Node]
    elements: int = 0  # that each member treats


def grouped(
    nodes: Sequence[Node],
    specs: Specs,
    counts: Mapping[Node, int | None],
    growing: Collection[Node] = (),
) -> list[Group]:
    """Return the nodes in order, divided into the groups that run as one.

    `counts` holds the `elementwise_count` of each. That of the `growing` nodes goes with the rows
    of a feed: they are in no group with others that happen to have as many elements.
    """
    result: list[Group] = []
    members: list[Node] = []
    form: tuple[int, int, bool] = (0, 0, False)
    elements = slots = 0

    def flush() -> None:
        nonlocal members
        if len(members) > 1 or elements >= SHARED_ELEMENTS:
            result.append(Group(members, elements))
        else:
            result.extend([Group([node]) for node in members])
        members = []

    for node in nodes:
        count, own_itemsize = counts[node], specs[node][0].dtype.itemsize
        if count is None or count * own_itemsize < GROUP_BYTES:
            if members:
                flush()
            result.append(Group([node]))
            continue
        own_slots = len(node.inputs) + node.output_count
        full = len(members) == lib.PF_GROUP_MEMBERS or slots + own_slots > lib.PF_GROUP_SLOTS
        own_form = count, own_itemsize, node in growing
        if members and (full or own_form != form):
            flush()
        if not members:
            elements, slots, form = count, 0, own_form
        members.append(node)
        slots += own_slots
    if members:
        flush()
    return result


# ---- update ----


def join_updates(
    after: Sequence[Any], update: Sequence[Any], same: Callable[[Any, Any], bool]
) -> tuple[list[Any], list[list[Any]]]:
    """Put the element-wise calls that end `after` (clips) in front of the update of the same array.

    Returns the remaining calls, and the updates, each with the calls joined to it.
    """
    stay = list(after)
    moved: list[Any] = []
    while stay and stay[-1].elementwise:
        moved.insert(0, stay.pop())
    groups = [[call] for call in update]
    for call in moved:
        (array,) = call.states
        home = next(
            (
                group
                for group in groups
                if group[-1].elementwise
                and group[-1].rows is None
                and any(same(array, x) for x in group[-1].inputs)
            ),
            None,
        )
        if home is None:
            stay.append(call)
        else:
            home.insert(len(home) - 1, call)
    return stay, groups
