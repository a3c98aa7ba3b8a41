"""Random graphs of all registered ops, as recipes that can be built, shrunk and printed.

A graph is a list of steps. A step is a leaf with its array, or an op with references to earlier
steps' outputs as inputs. Everything comes from the registry: each op's `sample`, `cases` and shape
rule say what it takes, and its `reference` what comes out, so that a plugin's ops take part as soon
as the plugin is installed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from pyframe.errors import PyframeError
from pyframe.graph.node import Constant, Node, Placeholder, Value
from pyframe.graph.op import Op
from pyframe.graph.parameter import Parameter, State
from pyframe.graph.spec import INT64, Array, Shape, Spec, known_shape
from pyframe.native.core import MAX_NDIM
from pyframe.plugins.registry import ops
from pyframe.testing.draw import Draw

Ref = tuple[int, int]  # a step, and which of its outputs

LEAVES = ("placeholder", "parameter", "constant")
EXTENTS = (0, 1, 1, 2, 3, 4, 5, 7, 8, 16, 33, 64, 65)
LONG_EXTENTS = (129, 256, 260, 300)
# No array of a graph, fed or computed, has more elements: room for two long extents, beyond which
# groups and threads do nothing new. Five shorter axes would already be billions of elements.
MAX_ELEMENTS = 100_000
# No op of a graph does more (`Op.flops`). Intermediate arrays of its reference, such as an unfolded
# convolution, have no more elements than that, since each has to be computed.
MAX_WORK = 1 << 22
MAX_VALUE = 1e3  # larger values are left out of graphs: their errors say nothing
MAX_RANK = 5
ATTEMPTS = 10


class Step(NamedTuple):
    """One node: a leaf with an array, or an op."""

    op: str
    inputs: tuple[Ref | None, ...] = ()
    attributes: Mapping[str, Any] = {}
    states: tuple[Array, ...] = ()
    array: Array | None = None

    @property
    def is_leaf(self) -> bool:
        """Whether it is a leaf."""
        return self.op in LEAVES


@dataclass(frozen=True)
class RandomGraph:
    """A recipe.

    `cost` is a scalar that is differentiated, and `outputs` are computed as well; `open` is how
    many of their first axes the placeholders leave open, and `feeds` says which extents differ in
    the feeds after the first one: ``{3: 5}`` feeds five where the first feed has three.
    """

    dtype: str
    steps: tuple[Step, ...]
    outputs: tuple[Ref, ...]
    cost: Ref | None = None
    open: int = MAX_NDIM
    feeds: tuple[Mapping[int, int], ...] = field(default=({},))

    def op_names(self) -> set[str]:
        """Return the names of the ops in it."""
        return {step.op for step in self.steps if not step.is_leaf}

    def op_classes(self) -> list[type[Op]]:
        """Return the classes of the ops in it."""
        return [ops.get(name) for name in self.op_names()]


class Built(NamedTuple):
    """A graph as nodes."""

    nodes: list[Node]
    placeholders: dict[int, Placeholder]
    outputs: list[Value]
    cost: Value | None


def resized_shape(array: Array, sizes: Mapping[int, int]) -> tuple[int, ...]:
    """Return the shape of an array with other extents."""
    return tuple(sizes.get(n, n) for n in array.shape)


def resized(array: Array, sizes: Mapping[int, int]) -> Array:
    """Return an array with other extents, its numbers repeated."""
    shape = resized_shape(array, sizes)
    if shape == array.shape:
        return array
    if array.size == 0:
        array = np.full(1, 1 if array.dtype == INT64 else 0.5).astype(array.dtype)
        array = array * 0 if array.dtype == INT64 else array
    return np.resize(array, shape)


def declared(array: Array, open_axes: int) -> Shape:
    """Return the shape of the placeholder that is fed an array."""
    rank = min(open_axes, array.ndim)
    return (None,) * rank + array.shape[rank:]


def make_node(step: Step, i: int, dtype: str, open_axes: int, values: Sequence[Any]) -> Node:
    """Return the node of a step on those of the steps before it."""
    name = f"v{i}"
    if step.array is not None:
        kind = step.array.dtype.name
        if step.op == "placeholder":
            return Placeholder(name, declared(step.array, open_axes), kind)
        if step.op == "parameter":
            return Parameter(step.array, name, dtype=kind)
        return Constant(step.array, dtype=kind, name=name)
    inputs = [None if ref is None else values[ref[0]][ref[1]] for ref in step.inputs]
    states = [State(s, name=f"{name}_state{k}", dtype=dtype) for k, s in enumerate(step.states)]
    extra: dict[str, Any] = {"states": states} if states else {}
    node: Node = ops.get(step.op)(*inputs, name=name, **extra, **step.attributes)
    return node


def build(graph: RandomGraph) -> Built:
    """Return new nodes of a graph."""
    nodes: list[Node] = []
    for i, step in enumerate(graph.steps):
        nodes.append(make_node(step, i, graph.dtype, graph.open, nodes))
    placeholders = {i: n for i, n in enumerate(nodes) if isinstance(n, Placeholder)}
    outputs = [nodes[i][k] for i, k in graph.outputs]
    cost = None if graph.cost is None else nodes[graph.cost[0]][graph.cost[1]]
    return Built(nodes, placeholders, outputs, cost)


def feed_arrays(graph: RandomGraph, feed: int) -> dict[int, Array]:
    """Return the arrays of the placeholders in a feed, by step."""
    sizes = graph.feeds[feed]
    return {
        i: resized(step.array, sizes)
        for i, step in enumerate(graph.steps)
        if step.op == "placeholder" and step.array is not None
    }


def reference_outputs(
    node: Op, given: Sequence[Array | None], states: Sequence[Array], training: bool
) -> tuple[Array, ...]:
    """Return the outputs of an op's reference for float64 arrays."""
    cls = type(node)
    with np.errstate(all="ignore"):
        if states:
            result, _ = cls.reference_states(*given, states=states, training=training, **node.attrs)
        else:
            extra = {"training": training} if cls.reads_training and not cls.uses_random else {}
            result = cls.reference(*given, **node.attrs, **extra)
    several = result if isinstance(result, tuple) else (result,)
    return tuple(np.asarray(a, np.float64) for a in several)


# ---- drawing ----


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
    >>> from pyframe.testing.graphs import draw_graph
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


def known_outputs(
    node: Op, step: Step, values: Mapping[Ref, Array], nodes: Sequence[Node]
) -> tuple[Array, ...] | None:
    """Return a node's outputs for given inputs; None if they are too large or not finite.

    Raises
    ------
    PyframeError
        If the op does not take the shapes.
    """
    given: list[Array | None] = [None if r is None else values[r] for r in step.inputs]
    specs = [
        None if r is None else Spec(values[r].shape, nodes[r[0]].specs[r[1]].dtype)
        for r in step.inputs
    ]
    outs = node.check(*specs)
    if any(math.prod(known_shape(spec)) > MAX_ELEMENTS for spec in outs):
        return None
    if node.flops(specs, outs, [True] * len(outs)) > MAX_WORK:
        return None
    outputs = reference_outputs(
        node, given, [np.asarray(s, np.float64) for s in step.states], False
    )
    # If the reference's shape differs from the rule's, the conformance kit reports it.
    if any(not np.isfinite(a).all() or np.abs(a).max(initial=0) > MAX_VALUE for a in outputs):
        return None
    return outputs


# ---- graphs made of graphs ----


def without_unused(graph: RandomGraph) -> RandomGraph:
    """Return a graph without the steps that outputs and cost do not depend on."""
    needed = {r[0] for r in (*graph.outputs, *([graph.cost] if graph.cost else []))}
    for i in reversed(range(len(graph.steps))):
        if i in needed:
            needed.update(r[0] for r in graph.steps[i].inputs if r is not None)
    new = {old: i for i, old in enumerate(sorted(needed))}

    def moved(ref: Ref) -> Ref:
        return new[ref[0]], ref[1]

    steps = tuple(
        step._replace(inputs=tuple(None if r is None else moved(r) for r in step.inputs))
        for i, step in enumerate(graph.steps)
        if i in needed
    )
    cost = None if graph.cost is None else moved(graph.cost)
    return replace(graph, steps=steps, outputs=tuple(map(moved, graph.outputs)), cost=cost)


def all_values(graph: RandomGraph, feed: int) -> dict[Ref, Array] | None:
    """Return every value for a feed by the references, None if the feed does not work."""
    nodes: list[Node] = []
    values: dict[Ref, Array] = {}
    for step in graph.steps:
        if step.op == "placeholder" and step.array is not None:
            first, shape = step.array.shape, resized_shape(step.array, graph.feeds[feed])
            if math.prod(shape) > MAX_ELEMENTS or first[graph.open :] != shape[graph.open :]:
                return None
    fed = feed_arrays(graph, feed)
    try:
        for i, step in enumerate(graph.steps):
            node = make_node(step, i, graph.dtype, graph.open, nodes)
            nodes.append(node)
            if step.array is not None:
                array = fed.get(i, step.array)
                values[i, 0] = array if array.dtype == INT64 else array.astype(np.float64)
                continue
            assert isinstance(node, Op)
            outputs = known_outputs(node, step, values, nodes)
            if outputs is None:
                return None
            values.update({(i, k): a for k, a in enumerate(outputs)})
    except PyframeError:
        return None
    return values


def with_feeds(graph: RandomGraph, rng: np.random.Generator) -> RandomGraph:
    """Return a graph that is fed other extents after the first ones, and then the first again."""
    extents = sorted({n for a in feed_arrays(graph, 0).values() for n in a.shape})
    if not graph.open or not extents:
        return graph
    labels = [s.array for s in graph.steps if s.array is not None and s.array.dtype == INT64]
    for _ in range(6):
        old, new = int(rng.choice(extents)), int(rng.choice(EXTENTS))
        # With labels, the number of rows may change, but there cannot be fewer classes.
        if any(old not in a.shape or (new and a.max(initial=0) >= new) for a in labels):
            continue
        changed = replace(graph, feeds=({}, {old: new}, {}))
        if all_values(changed, 1) is not None:
            return changed
    return graph


# ---- smaller graphs ----


def smaller(graph: RandomGraph) -> Iterator[RandomGraph]:
    """Yield graphs that are a little smaller than one, within the limits of drawn graphs."""
    feeds = range(len(graph.feeds))
    for candidate in _candidates(graph):
        # An extent that grows in a feed takes along others that have become equal to it.
        if all(all_values(candidate, k) is not None for k in feeds[: len(candidate.feeds)]):
            yield candidate


def _candidates(graph: RandomGraph) -> Iterator[RandomGraph]:
    """Yield graphs that are smaller than the given one, the much smaller ones first."""
    if len(graph.feeds) > 1:
        yield replace(graph, feeds=graph.feeds[:1])
        yield replace(graph, feeds=graph.feeds[:2])
    if graph.cost is not None and graph.outputs:
        yield without_unused(replace(graph, outputs=()))
        yield without_unused(replace(graph, cost=None))
    if len(graph.outputs) > 1:
        for i in range(len(graph.outputs)):
            yield without_unused(replace(graph, outputs=(graph.outputs[i],)))
        for i in range(len(graph.outputs)):
            rest = (*graph.outputs[:i], *graph.outputs[i + 1 :])
            yield without_unused(replace(graph, outputs=rest))
    if not graph.cost and len(graph.outputs) == 1:
        i = graph.outputs[0][0]
        for ref in graph.steps[i].inputs:
            if ref is not None and not graph.steps[ref[0]].is_leaf:
                yield without_unused(replace(graph, outputs=(ref,)))
    values = all_values(graph, 0)
    if values is None:
        return
    for i in reversed(range(len(graph.steps))):
        step = graph.steps[i]
        if step.is_leaf or graph.cost == (i, 0):
            continue
        for ref in step.inputs:  # the step left out
            if ref is not None and values[ref].shape == values[i, 0].shape:
                yield _rewired(graph, i, ref)
        if (i, 1) not in values and (i, 0) not in graph.outputs:  # its value fed instead
            array = values[i, 0].astype(graph.dtype)
            steps = list(graph.steps)
            for kind in ("placeholder", "parameter"):
                steps[i] = Step(kind, array=array)
                yield without_unused(replace(graph, steps=tuple(steps)))
    yield from _plainer(graph)


def _rewired(graph: RandomGraph, i: int, to: Ref) -> RandomGraph:
    """Return a graph in which an earlier value replaces output 0 of a step."""

    def other(ref: Ref) -> Ref:
        return to if ref == (i, 0) else ref

    steps = tuple(
        s._replace(inputs=tuple(None if r is None else other(r) for r in s.inputs))
        for s in graph.steps
    )
    outputs = tuple(dict.fromkeys(map(other, graph.outputs)))
    return without_unused(replace(graph, steps=steps, outputs=outputs))


def _plainer(graph: RandomGraph) -> Iterator[RandomGraph]:
    """Yield graphs with smaller extents, and with simpler numbers."""
    leaves = [i for i, s in enumerate(graph.steps) if s.array is not None]
    arrays = {i: a for i in leaves if (a := graph.steps[i].array) is not None}
    for n in sorted({n for a in arrays.values() for n in a.shape if n > 1}, reverse=True):
        for less in sorted({1, 2, n // 2, n - 1} - {n, 0}):
            steps = list(graph.steps)
            for i, array in arrays.items():
                steps[i] = steps[i]._replace(array=resized(array, {n: less}))
            yield replace(graph, steps=tuple(steps))
    for i, array in arrays.items():
        plain = np.round(np.linspace(0.25, 1.0, max(array.size, 1)), 3)[: array.size]
        simple = plain.reshape(array.shape).astype(array.dtype)
        if array.dtype != INT64 and not np.array_equal(simple, array):
            steps = list(graph.steps)
            steps[i] = steps[i]._replace(array=simple)
            yield replace(graph, steps=tuple(steps))


# ---- graphs to read ----


def code_of(graph: RandomGraph) -> str:
    """Return a program that builds a graph and prints its results, fused and unfused.

    Examples
    --------
    >>> from pyframe.testing.graphs import code_of, draw_graph
    >>> code_of(draw_graph(5)).splitlines()[0]
    'import numpy as np'
    """
    lines = ["import numpy as np", "import pyframe as pf"]
    lines += ["from pyframe.plugins.registry import ops", ""]
    for i, step in enumerate(graph.steps):
        lines.append(f"v{i} = {_call(graph, i, step)}")
    outputs = ", ".join(f"v{i}[{k}]" for i, k in graph.outputs)
    cost = None if graph.cost is None else f"v{graph.cost[0]}"
    feeds = []
    for k in range(len(graph.feeds)):
        fed = feed_arrays(graph, k)
        feeds.append("{" + ", ".join(f"v{i}: {_array(a)}" for i, a in fed.items()) + "}")
    lines += ["feeds = [", *(f"    {feed}," for feed in feeds), "]"]
    lines += [f"outputs = [{outputs}]", "for fuse in (True, False):"]
    compiled = "outputs" if cost is None else f"{cost}, outputs=outputs"
    lines += [f"    plan = pf.compile({compiled}, fuse=fuse)", "    for feed in feeds:"]
    if graph.outputs:
        lines.append("        print(fuse, plan.run(feed, outputs=outputs))")
    if cost is not None:
        lines.append("        print(fuse, plan.loss_and_gradients(feed))")
    return "\n".join(lines) + "\n"


def _call(graph: RandomGraph, i: int, step: Step) -> str:
    if step.array is not None:
        kind = f'dtype="{step.array.dtype.name}"'
        if step.op == "placeholder":
            shape = declared(step.array, graph.open)
            return f'pf.Placeholder("v{i}", {shape}, {kind})'
        if step.op == "parameter":
            return f'pf.Parameter({_array(step.array)}, "v{i}", {kind})'
        return f'pf.Constant({_array(step.array)}, {kind}, name="v{i}")'
    given = ["None" if r is None else f"v{r[0]}[{r[1]}]" for r in step.inputs]
    given += [f"{name}={value!r}" for name, value in step.attributes.items()]
    if step.states:
        states = (
            f'pf.State({_array(s)}, "v{i}_state{k}", dtype="{graph.dtype}")'
            for k, s in enumerate(step.states)
        )
        given.append(f"states=[{', '.join(states)}]")
    return f'ops.get("{step.op}")({", ".join(given)}, name="v{i}")'


def _array(array: Array) -> str:
    plain = np.round(np.linspace(0.25, 1.0, max(array.size, 1)), 3)[: array.size]
    if array.size > 4 and np.array_equal(plain.reshape(array.shape).astype(array.dtype), array):
        numbers = f"np.linspace(0.25, 1.0, {array.size}).round(3).reshape({array.shape})"
        return f'{numbers}.astype("{array.dtype.name}")'
    flat = f'np.array({array.ravel().tolist()}, "{array.dtype.name}")'
    return f"{flat}.reshape({array.shape})"
