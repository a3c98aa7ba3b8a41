"""Activations that a product can apply itself: those of core_c/include/pyframe/activations.h."""

from __future__ import annotations

from typing import Any

import numpy as np

from pyframe.graph.op import Op
from pyframe.native import core

# "none" and the others, each at the index of its code. The list comes from the C core.
ACTIVATIONS: tuple[str, ...] = core.activations()


def as_activation(consumer: Op) -> dict[str, Any] | None:
    """Return the attributes that make a product apply an activation or its gradient itself.

    Parameters
    ----------
    consumer : Op
        The op that reads the product's result.

    Returns
    -------
    dict or None
        ``{"activation": name, "slope": number}``; None if a product cannot do this.
    """
    kind = consumer.kernel.removesuffix("_grad")
    slope = consumer.attrs.get("slope", 0.0)
    # With a negative slope the result alone does not show on which side of zero x was.
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
    """Return dy f' in NumPy; `saved` is f' for sigmoid and tanh, and f's result for the others."""
    if kind == "relu":
        return np.where(saved <= 0, 0.0, dy)
    if kind in ("sigmoid", "tanh"):
        return dy * saved
    return np.where(saved > 0, dy, slope * dy) if kind == "leaky_relu" else dy
