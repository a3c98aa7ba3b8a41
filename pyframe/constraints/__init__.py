"""Constraints: what every update of a parameter ends with, such as a largest norm.

In comes the node of a parameter. Out goes a node of its shape, made of ops: its new value. A
parameter is given one by its layer (``weight_constraint="max_norm"``) or by `Parameter` itself. It
is applied within each training step, in C, after the optimizer's update; a search, such as
`RandomSearch`, tries only what keeps to it. First values, and values that are assigned, are left as
they are until then. What an optimizer keeps of earlier steps is not constrained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pyframe.constraints.norms import MaxNorm, NonNegative, UnitNorm
from pyframe.graph.node import Value
from pyframe.hookspecs import hookimpl
from pyframe.plugins.registry import registries

__all__ = ["MaxNorm", "NonNegative", "UnitNorm", "get"]


def get(constraint: Any) -> Callable[[Value], Value] | None:
    """Return the constraint of a name, a class or a saved config; a callable is returned as it is.

    Parameters
    ----------
    constraint : str, type, dict, callable or None

    Raises
    ------
    UnknownNameError
        If the name is not registered.
    ArgumentError
        If it is none of these.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.constraints.get("max_norm")
    MaxNorm(limit=2.0, axis=None)
    """
    return registries["constraints"].made(constraint, "constraint", such_as="max_norm")


@hookimpl
def pyframe_register_constraints() -> Mapping[str, Callable[..., Any]]:
    """Name the built-in constraints."""
    return {"max_norm": MaxNorm, "non_negative": NonNegative, "unit_norm": UnitNorm}


def __getattr__(name: str) -> Any:
    """Return what a plugin has registered."""
    return registries["constraints"].attribute(name)
