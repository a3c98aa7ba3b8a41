"""Composites: functions that put a formula together from ops, and what they say about themselves.

A composite has no kernel and no gradient of its own: every op in it has one, and the planner joins
those that are element-wise into one pass. It is called like an op, stands in the registry like one,
and is tested like one, against a reference in NumPy. A graph, and a model file, holds its ops.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pyframe.graph.node import Value, next_serial
from pyframe.graph.op import Case

ROUNDINGS = 100  # as if of a sum of so many terms: 11 units in the last place


class Composite:
    """A function from nodes to a node, with a name, a reference and test cases.

    Made by the decorator `composite`, which says what the arguments are.
    """

    # What the checks ask of an op, and every composite answers in the same way.
    output_count = 1
    differentiable_outputs = None
    shape_only: tuple[int, ...] = ()
    reads_training = uses_random = exact_on_integers = False

    def __init__(
        self,
        function: Callable[..., Value],
        op: str,
        reference: Callable[..., Any],
        sample: Callable[[Any], Case],
        *,
        cases: Sequence[Case] = (),
        magnitude: Callable[..., tuple[int, Any]] | None = None,
        differentiable: bool = True,
        integer_inputs: Sequence[int] = (),
        optional_inputs: Sequence[int] = (),
        constant_inputs: Sequence[int] = (),
        rectifies: bool = False,
        listed_in: str = "",
        aliases: Sequence[str] = (),
        higher_is_better: bool | None = None,
        target_domain: str = "",
        target_shape: Callable[[Any], Any] | None = None,
        of_values: bool = True,
    ) -> None:
        functools.update_wrapper(self, function)
        self.__name__: str = function.__name__
        self.__signature__ = _with_name(inspect.signature(function))
        self.op, self.reference, self.sample = op, reference, sample
        self.magnitude = self._magnitude if magnitude is None else magnitude
        self.differentiable, self.rectifies = differentiable, rectifies
        self.integer_inputs = tuple(integer_inputs)
        self.optional_inputs = tuple(optional_inputs)
        self.constant_inputs = tuple(constant_inputs)
        self.listed_in, self.aliases = listed_in, tuple(aliases)
        self.higher_is_better = higher_is_better
        self.target_domain, self.target_shape = target_domain, target_shape
        self.of_values = of_values
        self._function, self._cases = function, tuple(cases)

    def __call__(self, *inputs: Any, name: str | None = None, **attributes: Any) -> Value:
        since = next_serial()
        result = self._function(*inputs, **attributes)
        if name is not None and result.node.serial > since:
            result.node.name = name
        return result

    def cases(self) -> Sequence[Case]:
        """Return the fixed test cases."""
        return self._cases

    def _magnitude(self, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        return ROUNDINGS, np.abs(self.reference(*inputs, **attributes))

    def __reduce__(self) -> str:
        return self.__name__  # it is a global of its module

    def __repr__(self) -> str:
        return f"<composite {self.__name__}>"


def composite(
    op: str,
    *,
    reference: Callable[..., Any],
    sample: Callable[[Any], Case],
    **declared: Any,
) -> Callable[[Callable[..., Value]], Composite]:
    """Make a composite of the function below.

    Parameters
    ----------
    op : str
        Its name in the registry, that of the function in snake_case.
    reference : callable
        The result in NumPy for float64 arrays, with the same attributes as keywords; slow and
        obvious.
    sample : callable
        ``sample(draw)`` gives a random `Case`; `draw` is a `pyframe.testing.Draw`.
    **declared
        `cases`, fixed test cases; `magnitude`, `differentiable`, `integer_inputs`,
        `optional_inputs`, `constant_inputs`, `rectifies`, `listed_in`, `aliases` and
        `higher_is_better`, all as for an `Op` or a metric. The magnitude is that of the result
        unless given. A loss may say in `target_domain` what its targets have to be: "unit", within
        [0, 1]; "shares", probabilities along the last axis; "counts", at least 0; or "signs", -1
        and 1; and `target_shape` gives their shape for that of the prediction, if it is another.
        One of logits has `of_values` False, as a `Loss`.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> from pyframe.graph.composite import composite
    >>> @composite(
    ...     "hard_tanh",
    ...     reference=lambda x: np.clip(x, -1, 1),
    ...     sample=lambda draw: pf.Case((draw.normal((4, 3)),)),
    ... )
    ... def HardTanh(x):
    ...     return pf.Maximum(-1.0, -pf.Maximum(-1.0, -x))
    >>> x = pf.Placeholder("x", shape=(3,))
    >>> pf.compile(HardTanh(x)).run({x: [-2.0, 0.5, 2.0]})
    array([-1. ,  0.5,  1. ], dtype=float32)
    """

    def make(function: Callable[..., Value]) -> Composite:
        return Composite(function, op, reference, sample, **declared)

    return make


def _with_name(signature: inspect.Signature) -> inspect.Signature:
    """Return a signature with the keyword that every op takes."""
    parameters: Mapping[str, inspect.Parameter] = signature.parameters
    name = inspect.Parameter("name", inspect.Parameter.KEYWORD_ONLY, default=None)
    return signature.replace(parameters=[*parameters.values(), name])
