"""Where NaN and infinity come from: data, parameters, or the first node that makes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pyframe.graph.node import Constant, Leaf, Node, Placeholder
from pyframe.graph.order import topological_order
from pyframe.graph.spec import Array
from pyframe.training.goal import CompiledGoal

ROWS_AT_ONCE, ROWS_AT_MOST = 256, 16384  # that are computed to find a node

# What usually makes an op turn finite numbers into NaN or infinity.
CAUSES = {
    "div": "a division by 0 or nearly so; add a small number to the divisor",
    "exp": "float32 has no exp of more than 88; subtract the largest value first, or use softmax",
    "log": "there is no logarithm of 0 or less; add a small number, or use a loss of logits",
    "pow": "a power of 0 or of a negative number, or too large a one",
    "sqrt": "a root of a negative number",
}
OVERFLOW = (
    "numbers beyond what its dtype holds: scale the inputs and targets to about 1, or lower the "
    "learning rate"
)


def first_nonfinite(
    goal: CompiledGoal, arrays: Mapping[Placeholder, Array], of: str = "the data"
) -> str:
    """Say what holds NaN or infinity first, and why; empty if nothing is found.

    `of` says what the arrays are rows of.

    Looked at, in this order: the data, the parameters, and each node on the way to the loss, for
    the first rows of the data.
    """
    for placeholder, array in arrays.items():
        rows = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))
        if len(rows):
            kind = "targets" if placeholder in goal.targets else "data"
            return (
                f"the first bad node is {placeholder.label()!r}: the {kind} hold "
                f"{_what(array[rows[0]])} in row {rows[0]} of {of}"
                + (f", and in {len(rows) - 1} rows more" if len(rows) > 1 else "")
            )
    order = topological_order([goal.plan.cost] if goal.plan.cost is not None else [])
    for node in order:
        value = getattr(node, "value", None) if _holds_numbers(node) else None
        if value is not None and not np.isfinite(value).all():
            return (
                f"the first bad node is the parameter {node.label()!r}, which holds "
                f"{_what(value)}: usually a step was too large, for the learning rate is too high "
                "or the gradients explode; or its gradient was no number, as of a logarithm of 0"
            )
    nodes = [n for n in order if not isinstance(n, Leaf) and n.dtype.kind == "f"]
    return _first_node(goal, arrays, nodes)


def _holds_numbers(node: Node) -> bool:
    return isinstance(node, Leaf) and not isinstance(node, Constant | Placeholder)


def _first_node(goal: CompiledGoal, arrays: Mapping[Placeholder, Array], nodes: list[Node]) -> str:
    rows = min(len(next(iter(arrays.values()))), ROWS_AT_MOST)
    for start in range(0, rows, ROWS_AT_ONCE):
        part = {p: a[start : start + ROWS_AT_ONCE] for p, a in arrays.items()}
        for node, value in zip(nodes, goal.plan.run(part, outputs=nodes), strict=True):
            if not np.isfinite(value).all():
                cause = CAUSES.get(getattr(node, "op", ""), OVERFLOW)
                return (
                    f"the first bad node is {node.label()!r} ({type(node).__name__}), which gives "
                    f"{_what(value)}: usually {cause}"
                )
    return ""


def _what(value: Any) -> str:
    return "NaN" if np.isnan(value).any() else "infinity"
