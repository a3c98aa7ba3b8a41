"""Kernels by themselves, against the float64 reference."""

from __future__ import annotations

import numpy as np

from pyframe.op import Op
from pyframe.testing.subject import HUGE_FILL, Kernels, Subject, all_cases

DEFAULT_SHAPES = 200


def check_forward(
    op_class: type[Op],
    dtype: str,
    *,
    shapes: int = DEFAULT_SHAPES,
    seed: int = 0,
    kernels: Kernels | None = None,
) -> None:
    """Call the kernel of an op on all its cases and compare it with the reference.

    - Each output lies within ``eps (1 + sqrt(k)) m`` of the reference, `k` and `m` being those of
      `Op.magnitude`; on small whole numbers it is equal, for an op that is `exact_on_integers`.
    - All of each output is written, nothing around it, and no input is changed.
    - An output that is the only one wanted, or the only one not wanted, is still right.
    - The same call gives the same bits, whatever its memory held before.

    Parameters
    ----------
    op_class : type of Op
    dtype : {"float32", "float64"}
    shapes : int, default 200
        Random cases besides ``op_class.cases()``.
    seed : int
        That of the first random case; the others count on from it.
    kernels : callable, optional
        ``kernels(name, bits)`` gives the address of a kernel; default: the built-in ones.

    Raises
    ------
    ConformanceError
        An `AssertionError` that names op, dtype, shapes, attributes, the seed, and the first
        element that is wrong with both values.
    """
    for case, origin in all_cases(op_class, shapes, seed):
        _check_one(Subject(op_class, case, dtype, origin, kernels))
    if op_class.exact_on_integers:
        for case, origin in all_cases(op_class, shapes // 4, seed, integers=True):
            _check_exact(Subject(op_class, case, dtype, origin, kernels))


def _check_one(subject: Subject) -> None:
    with np.errstate(all="ignore"):
        expected, bounds = subject.expected(), subject.bounds()
    count = len(subject.node.specs)
    if len(expected) != count or len(bounds) != count:
        raise subject.fail(
            "declaration",
            f"the op has {count} output(s), its reference {len(expected)}, "
            f"its magnitude {len(bounds)}",
        )
    if subject.is_alias():
        _check_alias(subject, expected[0])
        if not subject.address():
            return  # never called: the output is the input's memory
    first = subject.call_ok()
    for i in range(count):
        subject.compare(first.outputs[i], expected[i], bounds[i], f"output {i}", "value")
    # Other garbage in the outputs, the scratch and around: the same bits.
    again = subject.call_ok(fill=HUGE_FILL)
    for i in range(count):
        if first.outputs[i].tobytes() != again.outputs[i].tobytes():
            raise subject.fail(
                "repeat", f"output {i} has other bits when memory held other garbage before"
            )
    for unwanted in _subsets(count):
        outcome = subject.call_ok(unwanted=unwanted)
        for i in set(range(count)) - unwanted:
            what = f"output {i}, with {sorted(unwanted)} not wanted,"
            subject.compare(outcome.outputs[i], expected[i], bounds[i], what, "value")


def _check_exact(subject: Subject) -> None:
    if subject.is_alias() and not subject.address():
        return
    outcome = subject.call_ok()
    for i, expected in enumerate(subject.expected()):
        what = f"output {i}, on whole numbers where nothing rounds,"
        subject.compare(outcome.outputs[i], expected, np.zeros(()), what, "exact")


def _check_alias(subject: Subject, expected: np.ndarray) -> None:
    """An aliasing op gives its input's elements, in their order, under another shape."""
    source = subject.arrays[subject.node.alias(subject.specs, True) or 0]
    assert source is not None
    if source.size != expected.size:
        raise subject.fail("value", "alias() names an input of another size than the output")
    got = source.reshape(expected.shape)
    subject.compare(got, expected, np.zeros(()), "the input that alias() names", "value")


def _subsets(count: int) -> list[set[int]]:
    """Return the sets of outputs to leave out: each one alone, and all but one."""
    if count < 2:
        return []
    every = set(range(count))
    alone = [{i} for i in range(count)]
    rest = [every - {i} for i in range(count)]
    return alone if count == 2 else alone + rest
