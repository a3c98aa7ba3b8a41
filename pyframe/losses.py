"""Losses by name. They are ops, called as ``loss(y, y_hat)``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pyframe.hookspecs import hookimpl
from pyframe.ops import listed_in
from pyframe.plugins.registry import registries

BUILT_IN = tuple(listed_in("losses"))


def get(loss: Any) -> Callable[..., Any]:
    """Return the loss of a name; a callable is returned as it is.

    Parameters
    ----------
    loss : str or callable
        A callable of (y, y_hat, sample_weight=None, reduction="mean") that gives a node.

    Raises
    ------
    UnknownNameError
        If the name is not registered.
    ArgumentError
        If it is neither.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.losses.get("mse").__name__
    'L2Loss'
    """
    return registries["losses"].function(loss, "loss", such_as="l2")


@hookimpl
def pyframe_register_losses() -> Mapping[str, Callable[..., Any]]:
    """Name the built-in losses."""
    return listed_in("losses")


def __getattr__(name: str) -> Any:
    """Return what a plugin has registered."""
    return registries["losses"].attribute(name)
