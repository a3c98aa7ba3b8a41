"""What a product can take over: the activations of core_c/include/pyframe/activations.h."""

from __future__ import annotations

from typing import Any

import numpy as np

from pyframe.graph.op import Op
from pyframe.native import core

# "none" and the others, each at the place of its code. The list is that of the C core.
ACTIVATIONS: tuple[str, ...] = core.activations()


def as_activation(consumer: Op) -> dict[str, Any] | None:
    """Return the attributes with which a product does the work of an activation or its gradient.

    Parameters
    ----------
    consumer : Op
        The op that reads the product's result.

    Returns
    -------
    dict or None
        ``{"activation": name, "slope": number}``; None when a product cannot do its work.
    """
    kind = consumer.kernel.removesuffix("_grad")
    slope = consumer.attrs.get("slope", 0.0)
    # From the result alone the side of zero could not be told for a slope below zero.
    if kind == "none" or kind not in ACTIVATIONS or slope < 0:
        return None
    return {"activation": kind, "slope": float(slope)}


def activate(kind: str, x: Any, slope: float) -> Any:
    """Return f(x) in NumPy, for the references of ops."""
    if kind == "relu":
        return np.maximum(x, 0)
    if kind == "sigmoid":
        return 0.5 * (1 + np.tanh(0.5 * x))
    if kind == "tanh":
        return np.tanh(x)
    return np.where(x > 0, x, slope * x) if kind == "leaky_relu" else x


def activate_grad(kind: str, dy: Any, saved: Any, slope: float) -> Any:
    """Return dy f' in NumPy; `saved` is f' of sigmoid and tanh, of the others their result."""
    if kind == "relu":
        return np.where(saved <= 0, 0.0, dy)
    if kind in ("sigmoid", "tanh"):
        return dy * saved
    return np.where(saved > 0, dy, slope * dy) if kind == "leaky_relu" else dy
