"""Composites, through a plan: values and gradients against the reference of the composite."""

from __future__ import annotations

from typing import Any

import numpy as np

import pyframe
from pyframe.graph.composite import Composite
from pyframe.graph.node import Placeholder
from pyframe.testing.gradients import check_case_gradients
from pyframe.testing.subject import Subject, all_cases
from pyframe.testing.zero_extents import empty_cases

DEFAULT_SHAPES = 60
EMPTIED = 3  # random cases whose axes are set to 0
FUSED: tuple[Any, ...] = (True, False)


class CompositeSubject(Subject):
    """A composite with one case in one dtype."""

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes of the case; the reference has defaults of its own."""
        return self.case.attributes


def check_composite(
    composite: Composite,
    dtypes: tuple[str, ...] = ("float32", "float64"),
    *,
    shapes: int = DEFAULT_SHAPES,
    seed: int = 0,
) -> None:
    """Compare a composite with its reference: its values, and its gradients with differences of it.

    The values are those of a plan, with neighbours joined and each op by itself; they may be off by
    ``eps (1 + sqrt(k)) m``, `k` and `m` being those of the composite's `magnitude`. Axes are set to
    0, too, as by `check_zero_extents`.

    Parameters
    ----------
    composite : Composite
    dtypes : sequence of str
    shapes : int, default 60
        Random cases besides ``composite.cases()``.
    seed : int
        The seed of the first random case; the others count up from it.

    Raises
    ------
    ConformanceError
        An `AssertionError` that names composite, dtype, shapes, attributes, the seed, and the first
        element that is wrong with both values.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe.testing import check_composite
    >>> check_composite(pf.Mish, shapes=5)
    """
    like_an_op: Any = composite
    seen: dict[str, bool] = {}
    for case, origin in all_cases(like_an_op, EMPTIED, seed):
        for empty, what in empty_cases(like_an_op, case, seen):
            _check_values(CompositeSubject(like_an_op, empty, "float64", f"{origin} with {what}"))
    for case, origin in all_cases(like_an_op, shapes, seed):
        for dtype in dtypes:
            _check_values(CompositeSubject(like_an_op, case, dtype, origin))
        if composite.differentiable:
            subject = CompositeSubject(like_an_op, case, "float64", origin)
            check_case_gradients(subject, np.random.default_rng(seed))


def _check_values(subject: CompositeSubject) -> None:
    with np.errstate(all="ignore"):
        (expected,), _ = subject.expected()
        (bound,) = subject.bounds()
    inputs = [
        None if spec is None else Placeholder(f"input_{i}", shape=spec.shape, dtype=spec.dtype)
        for i, spec in enumerate(subject.specs)
    ]
    feeds = {x: a for x, a in zip(inputs, subject.arrays, strict=True) if x is not None}
    value = subject.op_class(*inputs, **subject.case.attributes)
    for fuse in FUSED:
        got = pyframe.compile(value, fuse=fuse).run(feeds)
        subject.compare(got, expected, bound, f"the value with fuse={fuse}", "value")
