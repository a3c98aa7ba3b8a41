"""Checks of nodes without a kernel of their own: composed, or written in NumPy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from pyframe.testing import behaviour
from pyframe.testing.files import check_copied, check_saved
from pyframe.testing.parts import Part, PartCase, usual_cases
from pyframe.testing.runner import Checks, Expected, require, run_checks


def check_node(
    node: Callable[..., Any],
    cases: Iterable[Any] | None = None,
    *,
    expected_failures: Expected | None = None,
) -> None:
    """Check a node class written in Python, or a function that composes nodes.

    Parameters
    ----------
    node : type of Node, or callable
        The class or function to check; it takes nodes and gives a node.
    cases : list of (shape, arguments), optional
        The shape of the input, including the batch (a tuple of shapes for several inputs), and
        keyword arguments, as for `check_layer`. Default: the usual shapes of one input that it
        takes.
    expected_failures : dict of str to str, optional
        Names of checks that must fail, with the reason. One that passes is an error.

    Raises
    ------
    ConformanceError
        An `AssertionError` whose `kind` says which check failed.

    See Also
    --------
    node_checks : the checks by name.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe.testing import check_node
    >>> class Cube(pf.Node):
    ...     def forward(self, ctx, x):
    ...         return x**3
    ...     def backward(self, ctx, dy):
    ...         return 3 * ctx.inputs[0] ** 2 * dy
    >>> check_node(Cube, [((4, 3), {})])
    >>> check_node(lambda x, y: x * pf.Sigmoid(y), [(((4, 3), (4, 3)), {})])
    """
    run_checks(_name(node), node_checks(node, cases), expected_failures)


def node_checks(node: Callable[..., Any], cases: Iterable[Any] | None = None) -> Checks:
    """Return the checks of a node by name; each but the last runs over all cases and outputs.

    declaration, shape, save, copy, dtype, determinism, threads, sizes, gradient, purity, modes,
    leak: as for a layer, see `layer_checks`.

    Examples
    --------
    >>> import pyframe as pf
    >>> list(node_checks(pf.Relu))[:2]
    ['declaration', 'shape']
    """
    parts = functools.cache(lambda: _parts(node, cases))
    each = {
        "declaration": lambda part: None,  # making the cases is the check
        "shape": behaviour.check_shape,
        "save": check_saved,
        "copy": check_copied,
        **behaviour.COMMON,
    }
    return behaviour.over_parts(parts, each)


def _name(node: Callable[..., Any]) -> str:
    return getattr(node, "__name__", type(node).__name__)


def _parts(node: Callable[..., Any], cases: Iterable[Any] | None) -> list[Part]:
    name = _name(node)
    given = usual_cases(lambda: node) if cases is None else cases
    every = [c if isinstance(c, PartCase) else PartCase(*c) for c in given]
    require(
        every,
        "declaration",
        name,
        "there is no case to try it on: it takes none of the usual shapes; pass "
        "cases=[(shape, arguments)]",
    )
    parts = []
    for case in every:
        made = functools.partial(node, **case.arguments)
        for i in range(getattr(node, "output_count", 1)):
            parts.append(Part(name, functools.partial(_output, made, i), case))
    return parts


def _output(made: Callable[..., Any], i: int) -> Callable[..., Any]:
    """Return a function that gives output i of a node."""
    return made if i == 0 else lambda *inputs: made(*inputs)[i]
