"""Regularizers: penalties for large parameters, which a `Trainer` adds to its loss.

In comes the node of a parameter. Out goes the node of a number, its penalty. A parameter is given
one by its layer (``weight_regularizer="l2"``) or by `Parameter` itself. The loss that a fit
reports, and that `Trainer.evaluate` does, holds the penalties of all trainable parameters, as in
Keras; metrics, and the losses of single outputs, do not. A plan of one's own has the loss that it
was given: add ``regularizer(parameter)`` to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pyframe.graph.node import Value
from pyframe.hookspecs import hookimpl
from pyframe.plugins.registry import registries
from pyframe.regularizers.sums import L1, L1L2, L2

__all__ = ["L1", "L1L2", "L2", "get"]


def get(regularizer: Any) -> Callable[[Value], Value] | None:
    """Return the regularizer of a name, a class or a saved config; a callable is returned as it is.

    Parameters
    ----------
    regularizer : str, type, dict, callable or None

    Raises
    ------
    UnknownNameError
        If the name is not registered.
    ArgumentError
        If it is none of these.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.regularizers.get("l2")
    L2(strength=0.01)
    """
    return registries["regularizers"].made(regularizer, "regularizer", such_as="l2")


@hookimpl
def pyframe_register_regularizers() -> Mapping[str, Callable[..., Any]]:
    """Name the built-in regularizers."""
    return {"l1": L1, "l1_l2": L1L2, "l2": L2}


def __getattr__(name: str) -> Any:
    """Return what a plugin has registered."""
    return registries["regularizers"].attribute(name)
