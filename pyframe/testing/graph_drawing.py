"""Random graphs are drawn: whatever the registered ops take, joined in all ways.

In come a seed and names of ops; out goes a recipe, the same one for the same seed and registry.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np

from pyframe.errors import PyframeError
from pyframe.graph.node import Node
from pyframe.graph.op import Op
from pyframe.graph.spec import INT64, Array
from pyframe.native.core import MAX_NDIM
from pyframe.plugins.registry import ops
from pyframe.testing.draw import Draw
from pyframe.testing.graphs import (
    LEAVES,
    MAX_ELEMENTS,
    RandomGraph,
    Ref,
    Step,
    all_values,
    feed_arrays,
    known_outputs,
    make_node,
    without_unused,
)

EXTENTS = (0, 1, 1, 2, 3, 4, 5, 7, 8, 16, 33, 64, 65)
LONG_EXTENTS = (129, 256, 260, 300)
MAX_RANK = 5
ATTEMPTS = 10


def op_names() -> list[str]:
    """Return the names of all registered ops, those of plugins included."""
    found = {}
    for name in ops.names():
        cls = ops.get(name)
        if isinstance(cls, type) and issubclass(cls, Op):
            found[name] = cls
    return sorted(found)


def draw_graph(seed: int, names: Sequence[str] | None = None) -> RandomGraph:
    """Return the random graph of a seed.

    Parameters
    ----------
    seed : int
    names : list of str, optional
        Ops, of which the graph has at least one. Default: all ops in turn, one for each seed, if
        the op accepts what was drawn.

    Examples
    --------
    >>> from pyframe.testing.graph_drawing import draw_graph
    >>> graph = draw_graph(3, ["softmax"])
    >>> "softmax" in graph.op_names(), str(graph) == str(draw_graph(3, ["softmax"]))
    (True, True)
    """
    known = op_names()
    wanted = [known[seed % len(known)]] if names is None else names
    for attempt in count():
        graph = _Drawing(np.random.default_rng([seed, attempt]), wanted).run()
        if graph is None:
            continue
        if graph.op_names() & set(wanted) or (names is None and attempt >= ATTEMPTS):
            return graph
    raise AssertionError("unreachable")


class _Drawing:
    """One attempt at a graph."""

    def __init__(self, rng: np.random.Generator, wanted: Sequence[str]) -> None:
        self.rng = rng
        self.wanted = wanted
        self.kept: list[Ref] = []  # outputs of the graph in any case
        self.dtype = str(rng.choice(["float32", "float64"]))
        self.open = int(rng.choice([MAX_NDIM, 1, 0], p=[0.5, 0.35, 0.15]))
        self.steps: list[Step] = []
        self.nodes: list[Node] = []
        self.values: dict[Ref, Array] = {}
        self.smooth: dict[Ref, bool] = {}
        self.names = op_names()
        self.each = [n for n in self.names if _is_elementwise(ops.get(n))]
        taking = [n for n in self.names if ops.get(n).absorb is not Op.absorb]
        self.taking = [n for n in taking if ops.get(n).output_count > 1] + taking
        extents = [int(n) for n in rng.choice(EXTENTS, 2)]
        self.large = bool(rng.random() < 0.12)
        if self.large:
            extents[0] = int(rng.choice(LONG_EXTENTS))
        self.extents = extents

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def run(self) -> RandomGraph | None:
        for _ in range(int(self.rng.integers(1, 4))):
            self.leaf(self.numbers(self.shape()))
        moves = (self.elementwise, self.any_op, self.reshape, self.pair, self.beside, self.chain)
        shares = (0.27, 0.3, 0.08, 0.2, 0.1, 0.05)
        for _ in range(int(self.rng.integers(2, 6 if self.large else 12))):
            move = moves[int(self.rng.choice(len(moves), p=shares))]
            made = move()
            if made is not None and self.chance(0.9 if move == self.pair else 0.4):
                self.kept.append(made)
        for name in self.wanted:
            if self.chance(2 / len(self.wanted)):
                made = self.any_op(name)
                self.kept += [] if made is None else [made]
        return self.finish()

    # ---- leaves ----

    def shape(self) -> tuple[int, ...]:
        """Return a shape made of the extents of this graph, so that shapes match often."""
        rank = int(self.rng.choice([0, 1, 1, 2, 2, 2, 3, 4, 5]))
        while True:
            shape = tuple(int(self.rng.choice([1, *self.extents])) for _ in range(rank))
            if math.prod(shape) <= MAX_ELEMENTS // 4:
                return shape
            rank -= 1

    def partner(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return a shape that broadcasts with another, in one of all possible ways."""
        if len(shape) == 2 and shape[1] == 1 and self.chance(0.5):
            return shape[:1]  # (n, 1) and (n,) make (n, n)
        if len(shape) == 1 and self.chance(0.4):
            return (*shape, 1)
        kept = [n if self.chance(0.7) else 1 for n in shape]
        if self.chance(0.5):  # stretched along axes of extent 1
            stretched = zip(shape, kept, strict=True)
            kept = [int(self.rng.choice(self.extents)) if m == 1 else n for m, n in stretched]
        start = int(self.rng.integers(len(kept) + 1)) if self.chance(0.4) else 0
        kept = kept[start:]
        while len(kept) < MAX_RANK and self.chance(0.2):
            kept.insert(0, int(self.rng.choice([1, *self.extents])))
        while math.prod(kept) > MAX_ELEMENTS:
            kept.pop(0)
        return tuple(kept)

    def numbers(self, shape: tuple[int, ...]) -> Array:
        numbers: Array = self.rng.normal(size=shape)
        numbers *= self.rng.choice([1.0, 1e-3, 30.0], p=[0.8, 0.1, 0.1])
        return np.asarray(np.round(numbers * 8) / 8 if self.chance(0.3) else numbers)

    def leaf(self, array: Array, kind: str | None = None) -> Ref:
        """Add a leaf and return where it is."""
        is_label = array.dtype == INT64
        array = np.array(array, INT64 if is_label else self.dtype)
        weights = [0.8, 0.0, 0.2] if is_label else [0.5, 0.4, 0.1]
        chosen = str(self.rng.choice(LEAVES, p=weights)) if kind is None else kind
        step = Step(chosen, array=array)
        self.nodes.append(make_node(step, len(self.steps), self.dtype, self.open, self.nodes))
        self.steps.append(step)
        ref = len(self.steps) - 1, 0
        self.values[ref] = array if is_label else array.astype(np.float64)
        self.smooth[ref] = True
        return ref

    # ---- ops ----

    def floats(self) -> list[Ref]:
        """Return the values that others can be computed from."""
        return [r for r in self.values if self.nodes[r[0]].specs[r[1]].dtype.name == self.dtype]

    def upstream(self, smooth: bool = False) -> Ref:
        """Return a value that has a gradient, more often a later one than an early one."""
        known = self.floats()
        if smooth:
            known = [r for r in known if self.smooth[r]] or known
        if self.chance(0.6):
            known = known[-4:]
        return known[int(self.rng.integers(len(known)))]

    def apply(
        self,
        name: str,
        inputs: Sequence[Ref | None],
        attributes: Mapping[str, Any] | None = None,
        states: Sequence[Array] = (),
    ) -> Ref | None:
        """Add an op and return where it is; None if it refuses its inputs or overflows."""
        kept = tuple(np.array(s, self.dtype) for s in states)
        step = Step(name, tuple(inputs), dict(attributes or {}), kept)
        i = len(self.steps)
        try:
            node = make_node(step, i, self.dtype, self.open, self.nodes)
            assert isinstance(node, Op)
            outputs = known_outputs(node, step, self.values, self.nodes)
        except PyframeError:
            return None
        if outputs is None:
            return None
        self.steps.append(step)
        self.nodes.append(node)
        cls = type(node)
        ignored = {*cls.integer_inputs, *cls.shape_only, *cls.constant_inputs}
        smooth = cls.differentiable and all(
            ref is None or k in ignored or self.smooth[ref] for k, ref in enumerate(inputs)
        )
        good = cls.differentiable_outputs
        for k, array in enumerate(outputs):
            self.values[i, k] = array
            self.smooth[i, k] = smooth and (good is None or k in good)
        return i, 0

    def case(self, name: str) -> Any:
        cls = ops.get(name)
        cases = cls.cases()
        if cases and self.chance(0.1):
            return cases[int(self.rng.integers(len(cases)))]
        case = cls.sample(Draw(int(self.rng.integers(2**31))))
        if any(a is not None and np.size(a) == 0 for a in case.inputs) and self.chance(0.7):
            case = cls.sample(Draw(int(self.rng.integers(2**31))))  # empty ones less often
        return case

    def elementwise(self, name: str | None = None, source: Ref | None = None) -> Ref | None:
        """Add an op to values as they are, whatever the resulting shape."""
        name = name or str(self.rng.choice(self.each))
        case = self.case(name)
        if ops.get(name).integer_inputs or case.states:
            return self.any_op(name)
        for _ in range(4):
            first = self.upstream() if source is None else source
            shape = self.values[first].shape
            inputs: list[Ref | None] = []
            for given in case.inputs:
                kind = self.rng.random()
                if given is None:
                    inputs.append(None)
                elif kind < 0.2:
                    inputs.append(first)
                elif kind < 0.35:
                    inputs.append(self.upstream())
                elif kind < 0.8:
                    inputs.append(self.leaf(self.numbers(self.partner(shape))))
                else:
                    alike = [r for r in self.floats() if self.values[r].shape == shape]
                    inputs.append(alike[int(self.rng.integers(len(alike)))])
            if first not in inputs:
                inputs[int(self.rng.integers(len(inputs)))] = first
            made = self.apply(name, inputs, case.attributes)
            if made is not None:
                return made
        return None

    def any_op(self, name: str | None = None) -> Ref | None:
        """Add an op on one of its own cases, with some of the arrays made of earlier values."""
        name = name or str(self.rng.choice(self.names))
        case = self.case(name)
        cls = ops.get(name)
        if any(np.size(a) > MAX_ELEMENTS for a in case.inputs if a is not None):
            return None
        smooth = cls.differentiable and self.chance(0.8)
        for share in (0.8, 0.4, 0.0):
            inputs: list[Ref | None] = []
            for i, given in enumerate(case.inputs):
                if given is None:
                    inputs.append(None)
                    continue
                array = np.asarray(given)
                if i in cls.integer_inputs:
                    inputs.append(self.leaf(array.astype(INT64)))
                elif i in cls.shape_only and self.chance(0.5):
                    inputs.append(self.squashed(self.leaf(array.astype(np.float64))))
                elif self.chance(share) and array.size:
                    inputs.append(self.adapted(self.upstream(smooth), array))
                else:
                    leaf = self.leaf(array.astype(np.float64))
                    inputs.append((self.beside(leaf) if self.chance(share / 4) else None) or leaf)
            made = self.apply(name, inputs, case.attributes, case.states)
            if made is not None:
                return made
        return None

    def adapted(self, ref: Ref, like: Array) -> Ref:
        """Return a value computed from another one, with the shape and range of an array."""
        value = self.values[ref]
        fresh = self.leaf(like)
        if value.size != like.size:
            mean = self.apply("mean", [ref])
            found = None if mean is None else self.apply("tanh", [mean])
            one = self.leaf(np.ones(()), "constant")
            sums = None if found is None else self.apply("add", [self.squashed(found), one])
            made = None if sums is None else self.apply("mul", [fresh, sums])
            return fresh if made is None else made
        if value.shape != like.shape:
            shaped = self.apply("reshape", [ref], {"shape": like.shape})
            ref = fresh if shaped is None else shaped
        low, high = float(like.min()), float(like.max())
        inside = bool((self.values[ref] >= low).all() and (self.values[ref] <= high).all())
        if inside or not np.isfinite([low, high]).all():
            return ref
        bounds = [self.leaf(np.array(x), "constant") for x in (high - low, low)]
        scaled = self.apply("mul", [self.squashed(ref), bounds[0]])
        moved = None if scaled is None else self.apply("add", [scaled, bounds[1]])
        return fresh if moved is None else moved

    def squashed(self, ref: Ref) -> Ref:
        made = self.apply("sigmoid", [ref])
        return ref if made is None else made

    def reshape(self) -> Ref | None:
        """Add a value in another shape: flat, with two axes joined, or with one more axis."""
        ref = self.upstream()
        shape = list(self.values[ref].shape)
        kind = int(self.rng.integers(3))
        if kind == 0 or not shape:
            shape = [int(np.prod(shape, dtype=np.int64))]
        elif kind == 1 and len(shape) > 1:
            at = int(self.rng.integers(len(shape) - 1))
            shape[at : at + 2] = [shape[at] * shape[at + 1]]
        elif len(shape) < MAX_RANK:
            shape.insert(int(self.rng.integers(len(shape) + 1)), 1)
        extents: list[int] = shape
        if 0 not in shape and self.chance(0.5):
            extents[int(self.rng.integers(len(shape)))] = -1
        return self.apply("reshape", [ref], {"shape": tuple(extents)})

    def pair(self) -> Ref | None:
        """Add an op on two operands that broadcast to a shape, in one of all possible ways.

        Often to (n, 1) and (n,), which make (n, n): both have fewer elements than the result.
        """
        if self.chance(0.3):
            long = self.large or self.chance(0.2)
            n = int(self.rng.choice(LONG_EXTENTS if long else EXTENTS))
            shapes: list[tuple[int, ...]] = [(n, 1), (n,)]
        else:
            whole = [int(self.rng.choice(EXTENTS)) for _ in range(self.rng.integers(MAX_RANK + 1))]
            while math.prod(whole) > MAX_ELEMENTS // 4:
                whole[int(np.argmax(whole))] = 2
            ones = [tuple(n if self.chance(0.6) else 1 for n in whole) for _ in range(2)]
            shapes = [ones[0], ones[1][int(self.rng.integers(len(whole) + 1)) :]]
        pair = [self.leaf(self.numbers(shape)) for shape in shapes]
        self.rng.shuffle(pair)
        return self.apply_pair(pair)

    def apply_pair(self, pair: Sequence[Ref]) -> Ref | None:
        """Add an element-wise op of two operands that takes their shapes."""
        for name in self.rng.permutation(self.each):
            case = self.case(str(name))
            made = self.apply(str(name), pair, case.attributes) if len(case.inputs) == 2 else None
            if made is not None:
                return made
        return None

    def beside(self, ref: Ref | None = None) -> Ref | None:
        """Add an op on a value and on a constant subgraph, which is computed beforehand if fused.

        Unless a value is given, it is the result of an op that absorbs what follows it, or an
        output of an op with several.
        """
        if ref is None and self.chance(0.5):
            ref = self.any_op(str(self.rng.choice(self.taking)))
        if ref is None:
            refs = [r for r in self.floats() if (r[0], 1) in self.values]
            ref = refs[int(self.rng.integers(len(refs)))] if refs else self.upstream()
        shape = self.values[ref].shape
        given = self.leaf(self.numbers(shape if self.chance(0.3) else ()), "constant")
        fixed = self.elementwise(source=given) if self.chance(0.2) else self.squashed(given)
        operands = [ref, fixed or given]
        return self.apply_pair(operands if self.chance(0.7) else operands[::-1])

    def chain(self) -> Ref:
        """Add a long run of element-wise ops, sometimes longer than a group can be."""
        ref = self.upstream()
        for _ in range(int(self.rng.integers(5, 25))):
            made = self.elementwise(str(self.rng.choice(self.each)), ref)
            if made is not None and self.values[made].shape == self.values[ref].shape:
                ref = made
        return ref

    # ---- the end ----

    def finish(self) -> RandomGraph | None:
        made = [r for r in self.values if not self.steps[r[0]].is_leaf]
        if not made:
            return None
        read = {ref for step in self.steps for ref in step.inputs}
        ends = [r for r in made if r not in read]
        some: list[Ref] = []
        for refs, most in ((made, 2), (ends, 5)):
            picked = self.rng.integers(len(refs), size=int(self.rng.integers(most)))
            some += [refs[int(i)] for i in picked]
        outputs = tuple(dict.fromkeys([*self.kept, *some])) or (made[-1],)
        if self.chance(0.1):
            outputs = (*outputs, self.floats()[0])
        cost = self.cost()
        graph = RandomGraph(self.dtype, tuple(self.steps), outputs, cost, self.open)
        graph = without_unused(graph)
        return with_feeds(graph, self.rng)

    def cost(self) -> Ref | None:
        """Add a scalar that depends on some of the values smoothly."""
        able = [
            r
            for r in self.floats()
            if self.smooth[r] and not self.steps[r[0]].is_leaf and self.values[r].size
        ]
        chosen = [r for r in self.kept if r in able]
        for i in self.rng.integers(len(able), size=int(self.rng.integers(1, 4))) if able else ():
            chosen.append(able[int(i)])
        total: Ref | None = None
        for ref in dict.fromkeys(chosen):
            bounded = self.apply("tanh", [ref]) if self.chance(0.5) else ref
            if bounded is not None and self.chance(0.5):
                bounded = self.apply("square", [bounded])
            part = None if bounded is None else self.apply("mean", [bounded])
            if part is not None:
                total = part if total is None else self.apply("add", [total, part])
        return total


def _is_elementwise(cls: type[Op]) -> bool:
    return cls.is_elementwise is not Op.is_elementwise


def with_feeds(graph: RandomGraph, rng: np.random.Generator) -> RandomGraph:
    """Return a graph that is fed other extents after the first ones, and then the first again."""
    extents = sorted({n for a in feed_arrays(graph, 0).values() for n in a.shape})
    if not graph.open or not extents:
        return graph
    labels = [s.array for s in graph.steps if s.array is not None and s.array.dtype == INT64]
    for _ in range(6):
        old, new = int(rng.choice(extents)), int(rng.choice(EXTENTS))
        # With labels, the number of rows may change, but there cannot be fewer classes; and where
        # there was no label, there need not be a class for one.
        if any(old not in a.shape or not old or (new and a.max(initial=0) >= new) for a in labels):
            continue
        changed = replace(graph, feeds=({}, {old: new}, {}))
        if all_values(changed, 1) is not None:
            return changed
    return graph
