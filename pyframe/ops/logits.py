"""Which logits probabilities were computed from, as far as the graph shows it.

Losses and metrics of classes take logits. If a prediction consists of probabilities, from a sigmoid
or a softmax, they use the logits behind it: the same in exact arithmetic, and stable. What cannot
be meant, such as a softmax with independent labels, is refused.
"""

from __future__ import annotations

from typing import Any

from pyframe.errors import ArgumentError
from pyframe.graph.node import Constant, Value
from pyframe.graph.op import Op
from pyframe.ops.activations import Sigmoid
from pyframe.ops.arithmetic import Add, AddN, Div, Mul
from pyframe.ops.random import Dropout
from pyframe.ops.reductions import Mean
from pyframe.ops.shapes import Concat, Reshaped, Slice, Transpose
from pyframe.ops.softmax import LogSoftmax, Softmax

MOVERS = (Reshaped, Transpose, Slice, Concat, Dropout)


def is_mixed(value: Any) -> bool:
    """Return whether a value is made of probabilities only: moved, scaled down, added, averaged."""
    if not isinstance(value, Value):
        return False
    node = value.node
    if isinstance(node, Sigmoid | Softmax):
        return True
    if not isinstance(node, (*MOVERS, Mul, Div, Add, AddN, Mean)):
        return False
    assert isinstance(node, Op)
    parts = [v for i, v in enumerate(node.inputs) if v is not None and i not in node.shape_only]
    if isinstance(node, Mul | Div):
        factors = [v.node.value for v in parts if isinstance(v.node, Constant)]
        parts = [v for v in parts if not isinstance(v.node, Constant)]
        if not all(
            ((f >= 1) if isinstance(node, Div) else (f > 0) & (f <= 1)).all() for f in factors
        ):
            return False
        if isinstance(node, Div) and (len(parts) != 1 or parts[0] is not node.inputs[0]):
            return False
    return bool(parts) and all(is_mixed(v) for v in parts)


def check_not_mixed(value: Any, what: str) -> None:
    """Raise `ArgumentError` if a value without logits behind it is made of probabilities."""
    if is_mixed(value):
        raise ArgumentError(
            f"{what} takes logits, or what a sigmoid or softmax gives, and this prediction is "
            "computed from such probabilities by other ops, so that no logits stand behind it; "
            "apply these ops to the logits and end with activation= or none, or take l2_loss"
        )


def behind(
    kind: type[Op], value: Any, movers: tuple[type[Op], ...] = (Reshaped, Dropout)
) -> Value | None:
    """Return what a value would be if an op of some kind had not been applied to it, or None.

    The op may be the last, or be followed by ops that only move elements or drop some.
    """
    if not isinstance(value, Value):
        return None
    node = value.node
    if type(node) is kind:
        return node.inputs[0]
    if not isinstance(node, movers):
        return None
    assert isinstance(node, Op)
    inputs = list(node.inputs)
    for i, source in enumerate(node.inputs):
        if source is not None and i not in node.shape_only:
            inputs[i] = behind(kind, source, movers)
            if inputs[i] is None:
                return None
    same = type(node).__new__(type(node))
    Op.__init__(same, *inputs, **node.attrs)
    return same[value.index]


def before_sigmoid(value: Any) -> Value | None:
    """Return the logits of a value that is made of sigmoids, or None."""
    return behind(Sigmoid, value, MOVERS)


def binary_logits(value: Any, what: str) -> Any:
    """Return the logits of a prediction for classes that are independent of each other.

    Raises
    ------
    ArgumentError
        If the prediction is made by a softmax or its logarithm.
    """
    for kind in (Softmax, LogSoftmax):
        if behind(kind, value) is not None:
            raise ArgumentError(
                f"{what} takes logits, or what a sigmoid gives, for targets of 0 and 1, and this "
                f"prediction is a {kind.op}; end with activation='sigmoid' or none, or take "
                "cross_entropy with integer labels"
            )
    logits = before_sigmoid(value)
    if logits is None:
        check_not_mixed(value, what)
        return value
    return logits


def class_logits(value: Any, what: str) -> Any:
    """Return the logits of a prediction of one class out of several.

    The logarithm of a softmax is left as it is: its own softmax is that of the logits.

    Raises
    ------
    ArgumentError
        If the prediction is made by a sigmoid, or a softmax over an axis other than the last.
    """
    if before_sigmoid(value) is not None:
        raise ArgumentError(
            f"{what} takes logits, or what a softmax gives, and this prediction is a sigmoid; end "
            "with activation='softmax' or none, or take binary_cross_entropy with targets of 0 "
            "and 1"
        )
    logits = behind(Softmax, value)
    if logits is None:
        check_not_mixed(value, what)
        return value
    source, moved = value.node, False
    while not isinstance(source, Softmax):
        source, moved = source.inputs[0].node, True
    axis, shape = source.attrs["axis"], source.shape
    last = axis == -1 or (shape is not None and axis == len(shape) - 1)
    if not last or (moved and (not shape or not value.shape or shape[-1] != value.shape[-1])):
        raise ArgumentError(
            f"{what} takes the classes along the last axis, and this prediction is a softmax over "
            "another one; leave it out"
        )
    return logits
