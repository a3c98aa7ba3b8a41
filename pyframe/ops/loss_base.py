"""How losses are composed of other ops: a formula for the elements, reduced by `ReduceLoss`.

All take ``(y, y_hat, sample_weight=None, reduction="mean")`` and options by keyword. Shapes,
weights and reductions are those of `pyframe.ops.losses`; losses of rows of several numbers have one
loss for each row.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from pyframe.errors import ArgumentError
from pyframe.graph.composite import Composite, composite
from pyframe.graph.node import Constant, Value
from pyframe.graph.op import Case
from pyframe.ops.losses import REDUCTIONS, MatchTarget, ReduceLoss, reduce_loss

LEAST = 1e-30  # what a number is raised to before its logarithm is taken
Formula = Callable[..., Value]


def as_pair(y: Any, y_hat: Any, loss: str) -> tuple[Value, Value]:
    """Return target and prediction in one shape; see `MatchTarget`.

    Raises
    ------
    ArgumentError
        If the prediction is no node.
    ShapeError
        If they differ in shape: nothing is broadcast.
    """
    prediction = node_of(y_hat, loss)
    target = y if isinstance(y, Value) else Constant(y, dtype=prediction.dtype)
    return MatchTarget(target, prediction, name=loss), prediction


def node_of(y_hat: Any, loss: str) -> Value:
    if not isinstance(y_hat, Value):
        raise ArgumentError(f"{loss}: the prediction must be a node, and is {type(y_hat).__name__}")
    return y_hat


def loss(
    op: str,
    *,
    element: Callable[..., Any],
    sample: Callable[[Any], tuple[Any, Any, dict[str, Any]]],
    pair: Callable[..., tuple[Value, Value]] = as_pair,
    **declared: Any,
) -> Callable[[Formula], Composite]:
    """Make a loss of the function below, which gives the losses of a target and a prediction.

    Parameters
    ----------
    op : str
        Its name.
    element : callable
        The same in NumPy.
    sample : callable
        ``sample(draw)`` gives target, prediction and options.
    pair : callable
        ``pair(y, y_hat, loss)`` checks the two and may change their shape.
    **declared
        As for `composite`.
    """

    def make(formula: Formula) -> Composite:
        @functools.wraps(formula)
        def whole(
            y: Any, y_hat: Any, sample_weight: Any = None, reduction: str = "mean", **options: Any
        ) -> Value:
            losses = formula(*pair(y, y_hat, op), **options)
            return ReduceLoss(losses, sample_weight, reduction)

        def reference(
            y: Any, y_hat: Any, weight: Any = None, *, reduction: str = "mean", **options: Any
        ) -> Any:
            return reduce_loss(element(y, y_hat, **options), weight, reduction)

        def magnitude(
            y: Any, y_hat: Any, weight: Any = None, *, reduction: str = "mean", **options: Any
        ) -> tuple[int, Any]:
            size = declared_size(y, y_hat, **options)
            return 100 + np.size(y_hat), np.abs(reduce_loss(size, weight, reduction))

        def draw_case(draw: Any) -> Case:
            y, y_hat, options = sample(draw)
            weighted = y_hat.ndim > 0 and draw.choice([False, True])
            weight = draw.positive(y_hat.shape[:1]) if weighted else None
            return Case((y, y_hat, weight), {"reduction": draw.choice(REDUCTIONS), **options})

        own = [
            p.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for p in list(inspect.signature(formula).parameters.values())[2:]
        ]
        common = list(inspect.signature(whole, follow_wrapped=False).parameters.values())[:4]
        whole.__signature__ = inspect.Signature([*common, *own])  # type: ignore[attr-defined]
        settings = {"listed_in": "losses", "optional_inputs": (2,), "constant_inputs": (2,)}
        made = composite(
            op,
            reference=reference,
            sample=draw_case,
            **{**settings, "magnitude": magnitude, **declared},
        )
        return made(whole)

    size = declared.pop("size", None)

    def declared_size(y: Any, y_hat: Any, **options: Any) -> Any:
        """Return the size of the terms of each loss."""
        return (size or (lambda *a, **k: np.abs(element(*a, **k)) + 1))(y, y_hat, **options)

    return make
