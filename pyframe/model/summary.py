"""What a model is made of and what it costs: shapes, parameters, memory, operations."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pyframe.checkpoint.inspection import HEADS, layer_table
from pyframe.engine.fusion import Specs, constant_nodes, count_of, given_specs
from pyframe.engine.lowering import infer
from pyframe.engine.program import Request
from pyframe.errors import ShapeError, check_integer
from pyframe.graph.node import Leaf, Node, Placeholder
from pyframe.graph.op import Op
from pyframe.graph.order import Graph
from pyframe.graph.parameter import Parameter
from pyframe.graph.spec import Shape, Spec, check_shape, describe
from pyframe.layers.base import outermost_layer_of

if TYPE_CHECKING:
    from pyframe.model.base import Model


class Row(NamedTuple):
    """A line of a `Summary`: an input, a layer, or a parameter of no layer.

    Operations are None where shapes are open, and of what is written in Python.
    """

    layer: str
    kind: str
    output_shape: Shape | None
    parameters: int | None
    operations: int | None


class Summary(str):
    """The table that `Model.summary` returns: a text; a notebook shows it as a table of HTML.

    Attributes
    ----------
    rows : list of Row
        Each with ``layer``, ``kind``, ``output_shape``, ``parameters``, ``operations``.
    parameters, trained, states : int
        Numbers of elements.
    parameter_bytes : int
        Of parameters and states.
    value_bytes, operations : int or None
        Of the forward pass of a batch; None where shapes are open.
    """

    rows: list[Row]
    parameters: int
    trained: int
    states: int
    parameter_bytes: int
    value_bytes: int | None
    operations: int | None

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        heads, *rows = _cells(self.rows)
        lines = [_html_row("th", heads), *(_html_row("td", cells) for cells in rows)]
        notes = "<br>".join(map(html.escape, self.splitlines()[-2:]))
        return "\n".join(["<table>", *lines, f"</table><p>{notes}</p>"])


def _html_row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}" for cell in cells)


def summarized(model: Model, shape: Any, batch_size: int) -> Summary:
    """Return the summary of a model that is built; see `Model.summary`."""
    graph, feeds = model.graph, _feeds(model, shape, batch_size)
    costs = _costs(graph, feeds, shape is not None or batch_size > 1)
    rows = [Row(graph.names[p], "input", p.shape, None, None) for p in model.inputs]
    seen: set[Parameter] = set()
    for layer in model.layers:
        own = [p for p in layer.parameters if p not in seen]
        seen.update(own)
        # Of a layer that is used again all operations are in its first row.
        used = layer in model.layers[: len(rows) - len(model.inputs)]
        nodes = {} if used else costs
        counts = [cost[0] for node, cost in nodes.items() if outermost_layer_of(node) is layer]
        size = sum(p.size for p in own)
        kind = type(layer).__name__
        rows.append(Row(layer.path, kind, layer.output_shape, size, _sum(counts)))
    for p in model.parameters:
        if p not in seen:
            rows.append(Row(graph.names[p], "parameter", p.shape, p.size, None))
    held, kept = model.parameters, model.states
    parameters, trained = sum(p.size for p in held), sum(p.size for p in held if p.trainable)
    states = sum(s.size for s in kept)
    size = sum(p.size * p.dtype.itemsize for p in (*held, *kept))
    line = f"{size:,} bytes of parameters{' and states' * bool(kept)}"
    operations = values = None
    if costs:
        operations = sum(count or 0 for count, _ in costs.values())
        values = sum(bytes_ for _, bytes_ in costs.values())
        least = "at least " * any(count is None for count, _ in costs.values())
        fed = next((spec.shape[0] for spec in feeds.values() if spec.shape), 1)
        line += f"; a batch of {fed:,}: {values:,} bytes of values, "
        line += f"{least}{operations:,} operations"
    table = layer_table(_cells(rows), parameters, trained, states)
    result = Summary(f"{table}\n{line}")
    result.rows, result.states = rows, states
    result.parameters, result.trained = parameters, trained
    result.parameter_bytes, result.value_bytes, result.operations = size, values, operations
    return result


def _cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Return the rows as texts, below their heads."""
    texts = [
        (row.layer, row.kind, describe(row.output_shape),
         *("" if n is None else f"{n:,}" for n in row[3:]))
        for row in rows
    ]  # fmt: skip
    return [(*HEADS, "operations"), *texts]


def _sum(counts: Sequence[int | None]) -> int | None:
    """Return a sum, None if a part of it is not known."""
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None


# ---- what a forward pass costs ----


def _costs(
    graph: Graph, feeds: dict[Placeholder, Spec], asked: bool
) -> dict[Node, tuple[int | None, int]]:
    """Return operations and bytes of the values of each node; nothing if shapes are open."""
    if not all(spec.is_known for spec in feeds.values()):
        return {}
    try:
        specs = infer(graph.order, Request(graph.outputs, feeds, graph.names))
    except ShapeError:
        if asked:
            raise
        return {}  # it may take other batches than one of a row
    read = [*graph.outputs, *(v for node in graph.order for v in node.inputs if v is not None)]
    used = {(v.node, v.index) for v in read}
    free = {*constant_nodes(graph.order)}
    return {
        node: _cost(node, specs, [(node, i) in used for i in range(len(specs[node]))])
        for node in graph.order
        if not isinstance(node, Leaf) and node not in free
    }


def _cost(node: Node, specs: Specs, wanted: Sequence[bool]) -> tuple[int | None, int]:
    given, made = given_specs(node, specs), specs[node]
    size = sum(count_of(s) * s.dtype.itemsize for s, w in zip(made, wanted, strict=True) if w)
    if not isinstance(node, Op):
        return None, size
    if node.alias(given, False) is not None:
        return 0, 0  # it is its input
    return node.flops(given, made, wanted), size


def _feeds(model: Model, shape: Any, batch_size: int) -> dict[Placeholder, Spec]:
    """Return what is fed for samples of a shape; a batch that an input fixes is kept."""
    check_integer("batch_size", batch_size, at_least=1)
    given = {} if shape is None else model.feed(shape)
    feeds = {}
    for p in model.inputs:
        full = _filled(p, given[p]) if p in given else p.shape
        if full and full[0] is None:
            full = (batch_size, *full[1:])
        feeds[p] = Spec(full, p.dtype)
    return feeds


def _filled(p: Placeholder, shape: Any) -> Shape:
    """Return the shape of an input, with the extents that are open taken from that of a sample."""
    sample = check_shape(shape, "shape")
    known = (None,) * (len(sample) + 1) if p.shape is None else p.shape
    if len(known) != len(sample) + 1 or any(
        wanted not in (None, n) for wanted, n in zip(known[1:], sample, strict=True)
    ):
        raise ShapeError(
            f"the model takes {p.label()!r} {p.spec}, and samples of shape= are {describe(sample)}"
        )
    return (known[0], *sample)
