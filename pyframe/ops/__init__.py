"""The built-in ops, one family a file, as in core_c.

In come nodes and attributes. Out go nodes that know everything about their op: its shape rule,
kernel, gradient, reference and cases. Each family lists its classes in `OPS`.
"""

from __future__ import annotations

from typing import Any

from pyframe.graph.composite import Composite
from pyframe.graph.op import Op
from pyframe.hookspecs import hookimpl
from pyframe.ops import (
    activation_formulas,
    activations,
    arithmetic,
    arrangement,
    axes,
    class_losses,
    class_metrics,
    comparisons,
    ctc,
    embedding,
    entropy,
    indexing,
    linear,
    loss_formulas,
    losses,
    metric_formulas,
    metrics,
    norm,
    powers,
    random,
    reductions,
    shapes,
    softmax,
)
from pyframe.plugins.registry import registries

FAMILIES = (
    activation_formulas,
    activations,
    arithmetic,
    arrangement,
    axes,
    class_losses,
    class_metrics,
    comparisons,
    ctc,
    embedding,
    entropy,
    indexing,
    linear,
    loss_formulas,
    losses,
    metric_formulas,
    metrics,
    norm,
    powers,
    random,
    reductions,
    shapes,
    softmax,
)


def get(name: str) -> type[Op] | Composite:
    """Return the op class or the composite of a name, built-in or from a plugin.

    Raises
    ------
    UnknownNameError
        If nothing has this name; the message lists similar names.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.ops.get("softmax").__name__
    'Softmax'
    """
    return registries["ops"].get(name)  # type: ignore[no-any-return]


@hookimpl
def pyframe_register_ops() -> dict[str, type[Op] | Composite]:
    """Return the built-in ops and composites by name."""
    return {cls.op: cls for family in FAMILIES for cls in family.OPS}


# Functions that give several nodes, and so are no composites.
FUNCTIONS = {function.__name__: function for function in arrangement.FUNCTIONS}


def listed_in(kind: str) -> dict[str, type[Op] | Composite]:
    """Return what of it is in another registry, too: "losses" or "metrics".

    Examples
    --------
    >>> sorted(listed_in("losses"))[:2]
    ['binary_cross_entropy', 'binary_focal_loss']
    """
    return {name: cls for name, cls in pyframe_register_ops().items() if cls.listed_in == kind}


def __getattr__(name: str) -> Any:
    """Return the op class of a built-in or of a plugin."""
    return registries["ops"].attribute(name)
