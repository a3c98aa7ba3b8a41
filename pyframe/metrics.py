"""Metrics by name. They are ops, called as ``metric(y, y_hat)``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pyframe.hookspecs import hookimpl
from pyframe.ops import listed_in
from pyframe.plugins.registry import registries

BUILT_IN = tuple(listed_in("metrics"))


def get(metric: Any) -> Callable[..., Any]:
    """Return the metric of a name; a callable is returned as it is.

    Parameters
    ----------
    metric : str or callable
        A callable of (y, y_hat) that gives a node whose outputs add up over batches. Its attribute
        ``higher_is_better``, or that of the node's class, says which way is better.

    Raises
    ------
    UnknownNameError
        If the name is not registered.
    ArgumentError
        If it is neither.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.metrics.get("accuracy").__name__
    'Accuracy'
    """
    return registries["metrics"].function(metric, "metric", such_as="mae")


def higher_is_better(metric: Any, node: Any) -> bool | None:
    """Return whether a higher value of a metric means a better model.

    Parameters
    ----------
    metric : callable
        As `get` returns it. Its attribute ``higher_is_better``, True or False, takes precedence;
        a plain function can be given one.
    node : Node
        The node that the metric made; its class is asked otherwise.

    Returns
    -------
    bool or None
        None if neither has the attribute.

    Examples
    --------
    >>> import pyframe as pf
    >>> y, y_hat = pf.Placeholder("y", shape=(None, 1)), pf.Placeholder("y_hat", shape=(None, 1))
    >>> pf.metrics.higher_is_better(pf.R2, pf.R2(y, y_hat))
    True
    """
    said: bool | None = getattr(metric, "higher_is_better", None)
    return getattr(node, "higher_is_better", None) if said is None else said


@hookimpl
def pyframe_register_metrics() -> Mapping[str, Callable[..., Any]]:
    """Name the built-in metrics."""
    return listed_in("metrics")


def __getattr__(name: str) -> Any:
    """Return what a plugin has registered."""
    return registries["metrics"].attribute(name)
