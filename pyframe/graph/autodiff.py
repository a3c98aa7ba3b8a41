"""Reverse-mode differentiation: adds gradient nodes to the graph.

Nothing is computed here. Each node builds the nodes that compute its gradient; the planner treats
them like any others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pyframe.errors import GraphError, ShapeError
from pyframe.graph.node import Constant, Node, Value, next_serial
from pyframe.graph.spec import Spec, describe
from pyframe.plugins.registry import ops

SUM_OP = "add_n"  # adds up the gradients of several consumers

Key = tuple[Node, int]


class Gradients(NamedTuple):
    """The result of `differentiate`.

    `total` is the gradient of each output (node, index); `contributions` that of input i of a
    node through that node alone, under (node, i); `nodes` the gradient nodes of each node, for
    running it backwards by itself.
    """

    total: dict[Key, Value]
    contributions: dict[Key, Value]
    nodes: dict[Node, list[Node]]


class PythonGradient(Node):
    """The gradient of a node written in Python: calls its ``backward``.

    Its inputs are the node's inputs, outputs and the gradients of the outputs, so that all of
    them are still there when backward runs.
    """

    op = "python_grad"
    keeps = ("source",)

    def __init__(self, source: Node, grads: Sequence[Value | None]) -> None:
        self.source = source
        self.output_count = len(source.inputs)  # type: ignore[misc]
        outputs = [source[i] for i in range(source.output_count)]
        super().__init__(*source.inputs, *outputs, *grads, name=f"{source.label()}_grad")

    def infer(self, *specs: Spec | None) -> Sequence[Spec]:
        given = specs[: len(self.source.inputs)]
        return [s if s is not None else Spec((), np.dtype(np.float32)) for s in given]

    def forward(self, ctx: Any, *arrays: Any) -> Any:
        """Call the source's backward with its own context."""
        inputs, outputs = len(self.source.inputs), self.source.output_count
        ctx.inputs = arrays[:inputs]
        ctx.outputs = arrays[inputs : inputs + outputs]
        return self.source.backward(ctx, *arrays[inputs + outputs :])


def differentiate(cost: Value, order: Sequence[Node], wanted: set[Node]) -> Gradients:
    """Build the gradient of a scalar cost by every node in `wanted`, and by what lies between.

    Parameters
    ----------
    cost : Value, a scalar
    order : list of Node, topological, with the cost's node among them
    wanted : set of Node, usually the trainable parameters

    Raises
    ------
    ShapeError
        If the cost is known not to be a scalar.
    GraphError
        If an op between cost and wanted has no gradient.

    References
    ----------
    Griewank, Walther, "Evaluating Derivatives", 2nd ed., SIAM 2008, section 3.2.
    """
    if cost.shape not in ((), None):
        raise ShapeError(
            f"the loss {cost.node.label()} has shape {describe(cost.shape)}; it must be a scalar: "
            "use reduction='mean' or 'sum', or wrap it in Mean(...)"
        )
    needed: set[Node] = set()
    for node in order:
        if node in wanted:
            needed.add(node)
            continue
        for v in node.inputs:
            if v is not None and v.node in needed:
                needed.add(node)
                break

    pending: dict[Key, list[Value]] = {
        (cost.node, cost.index): [Constant(1.0, dtype=cost.dtype, name="one")]
    }
    result = Gradients({}, {}, {})
    for node in reversed(order):
        if node not in needed:
            continue
        built: list[Node] = []
        grads: list[Value | None] = [None] * node.output_count
        given: list[int] = []
        for index in range(node.output_count):
            key = node, index
            parts = pending.pop(key, None)
            if parts is None:
                continue
            if len(parts) > 1:
                parts = [ops.get(SUM_OP)(*parts)]
                built.append(parts[0].node)
            result.total[key] = grads[index] = parts[0]
            given.append(index)
        if node.inputs and given:
            flows = getattr(node, "differentiable_outputs", None)
            if flows is not None and not any(map(flows.__contains__, given)):
                allowed = ", ".join(map(str, flows))
                raise GraphError(
                    f"{node.label()}: a loss may depend on its output {allowed} only; output "
                    f"{given[0]} gets no gradient"
                )
            _pass_on(node, grads, needed, pending, result, built)
        result.nodes[node] = built
    return result


def _pass_on(
    node: Node,
    grads: list[Value | None],
    needed: set[Node],
    pending: dict[Key, list[Value]],
    result: Gradients,
    built: list[Node],
) -> None:
    """Propagate the gradients of a node's outputs to its inputs."""
    mark = next_serial()
    flowing = _gradients_of_inputs(node, grads)
    for i, (source, grad) in enumerate(zip(node.inputs, flowing, strict=True)):
        if source is None or grad is None:
            continue
        key = source.node, source.index
        if key[0] in needed:
            _collect_new(grad.node, mark, built)
            result.contributions[node, i] = grad
            pending.setdefault(key, []).append(grad)


def _collect_new(node: Node, mark: int, built: list[Node]) -> None:
    """Append a node, and those made since the mark that it depends on."""
    stack = [node]
    while stack:
        node = stack.pop()
        if node.serial > mark and node not in built:
            built.append(node)
            for v in node.inputs:
                if v is not None:
                    stack.append(v.node)


def _gradients_of_inputs(node: Node, grads: list[Value | None]) -> Sequence[Value | None]:
    if node.is_python:
        gradient = PythonGradient(node, grads)
        return [gradient[i] for i in range(len(node.inputs))]
    if not hasattr(node, "gradient"):
        raise node.lacks("forward(self, ctx, *inputs)")
    flowing: Sequence[Value | None] = node.gradient(*grads)  # type: ignore[attr-defined]
    if len(flowing) != len(node.inputs):
        raise GraphError(
            f"{node.label()} ({type(node).__name__}).gradient returned {len(flowing)} values for "
            f"{len(node.inputs)} inputs; it must give one (or None) for each"
        )
    return flowing
