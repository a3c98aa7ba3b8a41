"""The built-in constraints: norms, and no negative weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyframe.errors import ArgumentError, check_integer, check_number
from pyframe.graph.node import Value
from pyframe.ops.activations import Relu
from pyframe.ops.arithmetic import Maximum, Sqrt, Square
from pyframe.ops.reductions import Sum

Axes = int | Sequence[int] | None


@dataclass(frozen=True)
class MaxNorm:
    """w / max(|w| / limit, 1): the weights into each unit are scaled down to a norm of `limit`.

    Parameters
    ----------
    limit : float, above 0, default 2
    axis : int or tuple of int, optional
        The axes that a norm is over. Default: all but the last, which counts the units of a
        `Dense` and the filters of a convolution; of a vector its only one.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> w = pf.Parameter([[3.0, 0.6], [4.0, 0.8]])
    >>> pf.compile(pf.constraints.MaxNorm(1.0)(w)).run({})
    array([[0.6, 0.6],
           [0.8, 0.8]], dtype=float32)

    References
    ----------
    Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR
    15, 2014, section 5.1.
    """

    limit: float = 2.0
    axis: Axes = None

    def __post_init__(self) -> None:
        limit = check_number("MaxNorm: limit", self.limit, above=0)
        object.__setattr__(self, "limit", limit)
        object.__setattr__(self, "axis", _checked_axes("MaxNorm", self.axis))

    def __call__(self, w: Value) -> Value:
        return w / Maximum(_norm(w, self.axis) / self.limit, 1.0)


@dataclass(frozen=True)
class NonNegative:
    """max(w, 0).

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> pf.compile(pf.constraints.NonNegative()(pf.Parameter([2.0, -3.0]))).run({})
    array([2., 0.], dtype=float32)
    """

    def __call__(self, w: Value) -> Value:
        return Relu(w)


@dataclass(frozen=True)
class UnitNorm:
    """w / |w|: the weights into each unit have a norm of 1. Zeros stay zeros.

    Parameters
    ----------
    axis : int or tuple of int, optional
        As for `MaxNorm`.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> pf.compile(pf.constraints.UnitNorm()(pf.Parameter([3.0, 4.0]))).run({})
    array([0.6, 0.8], dtype=float32)
    """

    axis: Axes = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "axis", _checked_axes("UnitNorm", self.axis))

    def __call__(self, w: Value) -> Value:
        return w / Maximum(_norm(w, self.axis), SMALLEST)


SMALLEST = 1e-18  # that a norm is divided by: its square is above 0 in float32


def _checked_axes(what: str, axis: Any) -> Axes:
    if axis is None:
        return None
    if isinstance(axis, list | tuple):
        if not axis:
            raise ArgumentError(f"{what}: axis={axis!r} names no axis")
        return tuple(check_integer(f"{what}: axis", one, at_least=-8, at_most=7) for one in axis)
    return check_integer(f"{what}: axis", axis, at_least=-8, at_most=7)


def _norm(w: Value, axis: Axes) -> Value:
    """Return the norms over some axes, of which an extent of 1 is left."""
    if axis is None:
        ndim = len(w.shape or ())
        axis = tuple(range(max(ndim - 1, 1))) if ndim else ()
    return Sqrt(Sum(Square(w), axis=axis, keepdims=True)) if axis != () else Sqrt(Square(w))
