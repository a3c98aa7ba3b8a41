"""Operands without elements: every axis of every operand is set to 0 where that is legal."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from pyframe.errors import PyframeError
from pyframe.graph.op import Case, Op
from pyframe.graph.spec import FLOAT32, FLOAT64, INT64, Spec
from pyframe.testing.bad_calls import has_no_classes
from pyframe.testing.forward import check_case
from pyframe.testing.gradients import check_case_gradients
from pyframe.testing.subject import (
    ConformanceError,
    Kernels,
    Subject,
    all_cases,
    build,
    describe_case,
)

Axis: TypeAlias = tuple[int, int]  # the number of an input, and of its axis

DEFAULT_SHAPES = 5
# The limits on the sets of axes of a case that are tried, and on the legal ones.
MOST_UNIONS = 256  # of all axes with one extent
MOST_SETS = 300  # of any axes, small ones first
MOST_LEGAL = 40
# Gradients go through a plan of their own, and their ops are checked by themselves, too.
MOST_GRADIENTS = 10  # of a case


def check_zero_extents(
    op_class: type[Op],
    *,
    shapes: int = DEFAULT_SHAPES,
    seed: int = 0,
    kernels: Kernels | None = None,
    besides: Sequence[Kernels | None] = (),
) -> None:
    """Set each axis of each operand to 0, together with those that the shape rule ties to it.

    What the shape rule refuses with a `PyframeError` is not legal. Everything else is called, in
    both dtypes, with guard words around every operand, and is compared with the reference as in
    `check_forward`, unless there are labels but no classes. So are the gradients of the first ten
    of a case, as in `check_gradients`, if `kernels` is not given.

    Parameters
    ----------
    op_class : type of Op
    shapes : int, default 5
        Random cases besides ``op_class.cases()``.
    seed : int
        The seed of the first random case.
    kernels : callable, optional
        ``kernels(name, bits)`` gives the address of a kernel; default: the built-in ones.
    besides : sequence of callables
        More of them, as for other instruction sets: they are called with the same cases.

    Raises
    ------
    ConformanceError
        An `AssertionError` that names op, shapes, attributes and what is wrong.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe.testing import check_zero_extents
    >>> check_zero_extents(pf.MatMul)
    """
    seen: dict[str, bool] = {}
    for case, origin in all_cases(op_class, shapes, seed):
        for number, (empty, what) in enumerate(empty_cases(op_class, case, seen)):
            for dtype in ("float32", "float64"):
                subject = Subject(op_class, empty, dtype, f"{origin} with {what}")
                try:
                    for subject.kernels in (kernels, *besides):
                        _check(subject, number < MOST_GRADIENTS)
                except ConformanceError:
                    raise
                except Exception as error:
                    raise subject.fail(
                        "zero",
                        f"the shape rule takes it, and then {type(error).__name__} came: {error}",
                    ) from error


def _check(subject: Subject, with_gradients: bool) -> None:
    if has_no_classes(subject):
        return
    check_case(subject)
    differentiable = subject.op_class.differentiable and subject.kernels is None
    if differentiable and with_gradients and subject.dtype == FLOAT64:
        check_case_gradients(subject, np.random.default_rng(0))


def empty_cases(
    op_class: type[Op], case: Case, seen: dict[str, bool]
) -> Iterator[tuple[Case, str]]:
    """Yield the legal cases with axes set to 0 that are new, each with a description of the axes.

    How long an axis is, beside an empty one, is of no matter once it is more than 1: what counts is
    which extents are equal. `seen` tells of such a pattern whether it is legal.
    """
    axes = [
        (i, axis)
        for i, array in enumerate(case.inputs)
        if array is not None
        for axis in range(np.ndim(array))
        if np.shape(array)[axis]
    ]
    found = 0
    for chosen in _sets_of(case, axes):
        key = _pattern(case, _emptied_shapes(case, chosen))
        is_new = key not in seen
        if is_new:
            seen[key] = _is_legal(op_class, case, chosen)
        found += seen[key]
        if is_new and seen[key]:
            what = " and ".join(f"axis {axis} of input {i}" for i, axis in chosen)
            yield _emptied(case, chosen), f"{what} set to 0"
        if found == MOST_LEGAL:
            return


def _sets_of(case: Case, axes: list[Axis]) -> Iterator[tuple[Axis, ...]]:
    """Yield sets of axes: single ones, those with the same extents, which a rule may tie, others.

    That rules tie axes of other extents too, as 4 h and h of an LSTM, unions of them are for.
    """
    same: dict[int, list[Axis]] = {}
    for i, axis in axes:
        same.setdefault(np.shape(np.asarray(case.inputs[i]))[axis], []).append((i, axis))
    unions = (
        tuple(sorted(itertools.chain.from_iterable(groups)))
        for groups in itertools.islice(_subsets(list(same.values())), MOST_UNIONS)
    )
    others = itertools.islice(_subsets(axes), MOST_SETS)
    yield from dict.fromkeys(itertools.chain(zip(axes), unions, others))


def _subsets(things: list[Any]) -> Iterator[tuple[Any, ...]]:
    """Yield all but the empty one, small ones first."""
    for count in range(1, len(things) + 1):
        yield from itertools.combinations(things, count)


def _pattern(case: Case, shapes: list[list[int] | None]) -> str:
    """Return what two cases have in common whose extents above 1 are equal in the same places."""
    names = {0: 0, 1: 1}
    for array in case.inputs:
        for extent in () if array is None else np.shape(array):
            names.setdefault(extent, len(names))
    return repr(([s and [names[n] for n in s] for s in shapes], case.attributes))


def _emptied(case: Case, chosen: tuple[Axis, ...]) -> Case:
    """Return a case with some axes of its inputs emptied."""
    inputs = list(case.inputs)
    for i, axis in chosen:
        inputs[i] = np.take(np.asarray(inputs[i]), [], axis)
    return case._replace(inputs=tuple(inputs))


def _emptied_shapes(case: Case, chosen: tuple[Axis, ...]) -> list[list[int] | None]:
    """Return the shapes of a case's inputs with some axes set to 0."""
    shapes = [None if a is None else list(np.shape(a)) for a in case.inputs]
    for i, axis in chosen:
        shape = shapes[i]
        assert shape is not None
        shape[axis] = 0
    return shapes


def _is_legal(op_class: type[Op], case: Case, chosen: tuple[Axis, ...]) -> bool:
    """Return whether the shape rule accepts a case with some axes set to 0."""
    specs = [
        None
        if shape is None
        else Spec(tuple(shape), INT64 if i in op_class.integer_inputs else FLOAT32)
        for i, shape in enumerate(_emptied_shapes(case, chosen))
    ]
    try:
        build(op_class, specs, case)
    except PyframeError:
        return False
    except Exception as error:
        raise ConformanceError(
            "shape",
            f"{describe_case(op_class, _emptied(case, chosen), 'float32')}\n  the shape rule must "
            f"refuse it with a PyframeError or take it, and raised {type(error).__name__}: {error}",
        ) from error
    return True
