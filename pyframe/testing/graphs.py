"""Recipes of random graphs: how they are built, what comes out of them, and how they are printed.

A graph is a list of steps. A step is a leaf with its array, or an op with references to earlier
steps' outputs as inputs. Everything comes from the registry: each op's `sample`, `cases` and shape
rule say what it takes, and its `reference` what comes out, so that a plugin's ops take part as soon
as the plugin is installed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from pyframe.errors import PyframeError
from pyframe.graph.node import Constant, Node, Placeholder, Value
from pyframe.graph.op import Op
from pyframe.graph.parameter import Parameter, State
from pyframe.graph.spec import INT64, Array, Shape, Spec, known_shape
from pyframe.native.core import MAX_NDIM
from pyframe.plugins.registry import ops

Ref = tuple[int, int]  # a step, and which of its outputs

LEAVES = ("placeholder", "parameter", "constant")
# No array of a graph, fed or computed, has more elements: room for two long extents, beyond which
# groups and threads do nothing new. Five shorter axes would already be billions of elements.
MAX_ELEMENTS = 100_000
# No op of a graph does more (`Op.flops`). Intermediate arrays of its reference, such as an unfolded
# convolution, have no more elements than that, since each has to be computed.
MAX_WORK = 1 << 22
MAX_VALUE = 1e3  # larger values are left out of graphs: their errors say nothing


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


# ---- graphs to read ----


def code_of(graph: RandomGraph) -> str:
    """Return a program that builds a graph and prints its results, fused and unfused.

    Examples
    --------
    >>> from pyframe.testing.graph_drawing import draw_graph
    >>> from pyframe.testing.graphs import code_of
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
