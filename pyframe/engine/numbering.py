"""Numbering: the values of a program, each with a number, a shape, and the memory it lies in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from pyframe.engine.fusion import Key, Rewritten, Specs
from pyframe.engine.program import NOWHERE, Request
from pyframe.graph.node import Constant, Leaf, Node, Placeholder, Value
from pyframe.graph.op import Op
from pyframe.graph.parameter import Parameter, State
from pyframe.graph.spec import Array, Spec, known_shape


class Values:
    """The values of a program; each list has one entry a value, at its number.

    A value lies `offsets` bytes behind the beginning of one of the `bases`: the arena is base 0,
    then come what is fed, and the arrays that live longer than a run. What nothing has placed yet
    is `NOWHERE`.

    Parameters
    ----------
    feeds : iterable of Placeholder
        In the order of their bases.

    Attributes
    ----------
    specs : list of Spec
    bytes, bases, offsets : list of int
    ids : dict of Key to int
        The number of each value of the graph; those of flat arrays are in no graph.
    roots : dict of int to int
        Of each value of the graph, the one whose memory it is: itself, unless it is an alias.
    operands : dict of Node to two lists of int
        The inputs and the outputs of each node that is no leaf; an absent input is `NOWHERE`.
    given : dict of Node to list of Spec or None
        The specs of the inputs of each of them.
    read_roots : dict of Node to list of int
        The memory that each of them reads: not that of inputs whose shape alone counts.
    feed_bases : dict of Placeholder to int
    fixed_bases : list of (base, address)
        Of the arrays.
    arrays : list of ndarray
        Those that the addresses point to.
    base_count : int
    """

    def __init__(self, feeds: Iterable[Placeholder]) -> None:
        self.specs: list[Spec] = []
        self.bytes: list[int] = []
        self.bases: list[int] = []
        self.offsets: list[int] = []
        self.ids: dict[Key, int] = {}
        self.roots: dict[int, int] = {}
        self.operands: dict[Node, tuple[list[int], list[int]]] = {}
        self.given: dict[Node, list[Spec | None]] = {}
        self.read_roots: dict[Node, list[int]] = {}
        self.feed_bases = {placeholder: i for i, placeholder in enumerate(feeds, start=1)}
        self.fixed_bases: list[tuple[int, int]] = []
        self.arrays: list[Array] = []
        self.base_count = 1 + len(self.feed_bases)
        self._sizes: dict[Spec, int] = {}  # in bytes
        self._base_of_array: dict[int, int] = {}  # by id
        self._array_ids: dict[tuple[int, int], int] = {}  # by address and size

    def add(self, spec: Spec, base: int, offset: int) -> int:
        """Return the number of a new value."""
        size = self._sizes.get(spec)
        if size is None:
            size = self._sizes[spec] = math.prod(known_shape(spec)) * spec.dtype.itemsize
        self.specs.append(spec)
        self.bytes.append(size)
        self.bases.append(base)
        self.offsets.append(offset)
        return len(self.specs) - 1

    def name(self, key: Key, value: int) -> None:
        """Say which value of the graph a new one stands for."""
        self.ids[key] = self.roots[value] = value

    def place_of_array(self, array: Array) -> tuple[int, int]:
        """Return (base, offset) of an array, which may be a part of a larger one."""
        owner = array
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        if id(owner) not in self._base_of_array:
            self._base_of_array[id(owner)] = self.base_count
            self.arrays.append(owner)
            self.fixed_bases.append((self.base_count, owner.ctypes.data))
            self.base_count += 1
        return self._base_of_array[id(owner)], array.ctypes.data - owner.ctypes.data

    def of_array(self, array: Array) -> int:
        """Return the value that is a flat array, the same one for the same memory."""
        place = self.place_of_array(array)
        key = (array.ctypes.data, array.size)
        if key not in self._array_ids:
            self._array_ids[key] = self.add(Spec(array.shape, array.dtype), *place)
        return self._array_ids[key]

    def is_same(self, a: Any, b: Any) -> bool:
        """Return whether two operands are one array."""
        arrays = isinstance(a, np.ndarray) and isinstance(b, np.ndarray)
        return arrays and self.of_array(a) == self.of_array(b)

    def root_of(self, value: Value) -> int:
        """Return the value whose memory a value of the graph is."""
        return self.roots[self.ids[value.node, value.index]]

    def place_aliases(self) -> None:
        """Give each alias the place of the value whose memory it is."""
        for value, root in self.roots.items():
            if value != root:
                self.bases[value] = self.bases[root]
                self.offsets[value] = self.offsets[root]


def number(
    rewritten: Rewritten, specs: Specs, folded: Mapping[Key, Array], request: Request
) -> Values:
    """Return the values of some ordered nodes. Leaves have their places, all others have none."""
    values = Values(request.feeds)
    ids, roots = values.ids, values.roots
    old_keys: dict[Key, list[Key]] = {}
    for old, new in rewritten.new_keys.items():
        old_keys.setdefault(new, []).append(old)
    for key, array in folded.items():
        values.name(key, values.of_array(array))
    for node in rewritten.order:
        if isinstance(node, Leaf):
            place = _place_of_leaf(node, values, request)
            values.name((node, 0), values.add(specs[node][0], *place))
            continue
        inputs: list[int] = []
        outputs: list[int] = []
        values.operands[node] = inputs, outputs
        given = values.given[node] = []
        read = values.read_roots[node] = []
        unread = node.shape_only if isinstance(node, Op) else ()
        for i, v in enumerate(node.inputs):
            if v is None:
                inputs.append(NOWHERE)
                given.append(None)
                continue
            value = ids[v.node, v.index]
            inputs.append(value)
            given.append(values.specs[value])
            if i not in unread:
                read.append(roots[value])
        for index, spec in enumerate(specs[node]):
            value = values.add(spec, NOWHERE, 0)
            outputs.append(value)
            ids[node, index] = roots[value] = value
            waiting = old_keys.pop((node, index), None) if old_keys else None
            while waiting:
                key = waiting.pop()
                ids[key] = value
                waiting.extend(old_keys.get(key, ()))
        if isinstance(node, Op) and type(node).alias is not Op.alias:
            alias = node.alias(given, request.training)
            if alias is not None:
                roots[outputs[0]] = roots[inputs[alias]]
    return values


def _place_of_leaf(node: Leaf, values: Values, request: Request) -> tuple[int, int]:
    if isinstance(node, Placeholder):
        return values.feed_bases[node], 0
    if isinstance(node, Constant):
        return values.place_of_array(node.array)
    assert isinstance(node, Parameter)
    arrays = request.state_arrays if isinstance(node, State) else {}
    return values.place_of_array((arrays or request.parameter_arrays)[node])
