"""Losses by name. They are ops, called as ``loss(y, y_hat)``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pyframe.errors import ArgumentError
from pyframe.hookspecs import hookimpl
from pyframe.ops import pyframe_register_ops
from pyframe.registry import registries

BUILT_IN = ("l1_loss", "l2_loss", "huber_loss", "cross_entropy", "binary_cross_entropy")


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
    found = registries["losses"].get(loss) if isinstance(loss, str) else loss
    if not callable(found):
        raise ArgumentError(
            f"{loss!r} is no loss; pass a name such as 'l2', or a callable of (y, y_hat)"
        )
    return found  # type: ignore[no-any-return]


@hookimpl
def pyframe_register_losses() -> Mapping[str, Callable[..., Any]]:
    """Name the built-in losses."""
    ops = pyframe_register_ops()
    return {name: ops[name] for name in BUILT_IN}


def __getattr__(name: str) -> Any:
    """Return what a plugin has registered."""
    return registries["losses"].attribute(name)
