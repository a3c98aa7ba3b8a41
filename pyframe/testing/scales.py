"""Kernels on very large and very small numbers whose results are in range."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from pyframe.graph.op import Case, Op
from pyframe.graph.spec import INT64, Array
from pyframe.testing.draw import Draw
from pyframe.testing.subject import Kernels, Subject

DEFAULT_SHAPES = 4
# Squares and products of these overflow, or vanish; quotients and differences do not.
FACTORS = {"float32": (2.0**100, 2.0**-100), "float64": (2.0**1000, 2.0**-1000)}
# A share of the largest number: a difference of two such numbers is finite, a sum of many is not.
TOP = 0.25
# Shares for numbers of either sign, nearer still: a sum of three, or a difference of two, is not
# finite, but their mean is.
EDGES = (0.45, 0.9)
Wide = np.longdouble


def check_scales(
    op_class: type[Op],
    dtype: str,
    *,
    shapes: int = DEFAULT_SHAPES,
    seed: int = 0,
    kernels: Kernels | None = None,
) -> None:
    """Check that an op gives every finite result, even if intermediate ones would overflow or
    vanish.

    In the random cases of the op, each float input by itself, and all together, are scaled near the
    largest and the smallest numbers, and close to the largest with either sign; for an op that is
    not differentiable, as gradients are not, only so far that products overflow and vanish. Unless
    a sum of terms, the `m` of `Op.magnitude`, overflows, the result must be as near to the
    reference as usual: not infinite, NaN or 0 because an intermediate sum, square or quotient was.
    The product of 0 and a number that overflows may be NaN.

    Float64 is compared in a type of greater range, on machines that have one.

    Parameters
    ----------
    op_class : type of Op
    dtype : {"float32", "float64"}
    shapes : int, default 4
        Number of non-empty random cases, each with several scales.
    seed : int
        The seed of the first case.
    kernels : callable, optional
        ``kernels(name, bits)`` gives the address of a kernel; default: the built-in ones.

    Raises
    ------
    ConformanceError
        An `AssertionError` of kind "scale".

    Examples
    --------
    >>> import pyframe as pf
    >>> check_scales(pf.Relu, "float32", shapes=3)
    """
    if np.finfo(dtype).maxexp >= np.finfo(Wide).maxexp or op_class.uses_random:
        return
    samples = ((i, op_class.sample(Draw(i))) for i in range(seed, seed + 4 * shapes))
    full = ((i, s) for i, s in samples if all(a is None or np.size(a) for a in s.inputs))
    for i, sample in itertools.islice(full, shapes):
        for case, what in _scaled(op_class, sample, dtype):
            origin = f"{op_class.__name__}.sample(Draw({i})), {what}"
            subject = Subject(op_class, case, dtype, origin, kernels)
            if not subject.is_alias():
                for training in subject.modes():
                    _check(subject, training)


def _scaled(op_class: type[Op], case: Case, dtype: str) -> Iterator[tuple[Case, str]]:
    """Yield a case with its float inputs scaled: each by itself, and all together."""
    fixed = {*op_class.integer_inputs, *op_class.shape_only}
    floats = [i for i, a in enumerate(case.inputs) if a is not None and i not in fixed]
    if getattr(op_class, "unit_target", False):
        floats.remove(0)  # probabilities
    groups = [floats, *([i] for i in floats if len(floats) > 1)]
    top = [None] if op_class.differentiable else []
    for factor in (*FACTORS[dtype], *top):
        for group in groups:
            inputs = list(case.inputs)
            for i in group:
                array = np.asarray(inputs[i], np.float64)
                most = float(np.abs(array).max(initial=0)) or 1.0
                scale = factor or TOP * float(np.finfo(dtype).max) / max(most, 1.0)
                inputs[i] = array * scale
            words = "input " + " and ".join(map(str, group)) if group else "nothing"
            size = "near the largest number" if factor is None else f"times {factor:g}"
            yield case._replace(inputs=tuple(inputs)), f"{words} {size}"
    # A loss without reduction is a difference of two numbers.
    single = case.attributes.get("reduction") == "none"
    for share in EDGES if op_class.differentiable and not single else ():
        for group in groups:
            inputs = list(case.inputs)
            for i in group:
                array = np.asarray(inputs[i], np.float64)
                inputs[i] = np.sign(array) * share * float(np.finfo(dtype).max)
            words = "input " + " and ".join(map(str, group)) if group else "nothing"
            size = f"of either sign and {share} times the largest number"
            yield case._replace(inputs=tuple(inputs)), f"{words} {size}"


def _check(subject: Subject, training: bool) -> None:
    given = [a if a is None or a.dtype == INT64 else a.astype(Wide) for a in subject.arrays]
    op, attributes = subject.op_class, dict(subject.attributes)
    if op.reads_training:
        attributes["training"] = training
    if subject.initial_states:
        attributes |= {"states": [s.astype(Wide) for s in subject.initial_states]}
    with np.errstate(all="ignore"):
        expected = _tuple(op.reference(*given, **attributes))
        k, magnitudes = op.magnitude(*given, **attributes)
        outcome = subject.call_ok(training=training)
        info = np.finfo(subject.dtype)
        unit = 2 * Wide(info.eps) * (1 + np.sqrt(Wide(k)))
        # An intermediate result that has vanished may have been multiplied with the largest input.
        sizes = [np.abs(a).max(initial=1) for a in given if a is not None and a.dtype != INT64]
        least = Wide(info.tiny) * max(sizes, default=1)
        for i, (got, wanted, size) in enumerate(
            zip(outcome.outputs, expected, _tuple(magnitudes), strict=True)
        ):
            limit, terms = Wide(info.max) / 2, np.abs(size)
            fair = np.isfinite(wanted) & (terms < limit)
            off = np.abs(got.astype(Wide) - wanted)
            lost = (wanted == 0) & (terms == 0) & np.isnan(got)
            wrong = fair & ~lost & ~(off <= unit * terms + least)
            if wrong.any():
                index = tuple(int(n) for n in np.argwhere(wrong)[0])
                raise subject.fail(
                    "scale",
                    f"output {i} at {list(index)} is {got[index]!r}, and {wanted[index]:g} is no "
                    "more or less than the dtype can hold: something overflows or vanishes on the "
                    "way to it",
                )


def _tuple(arrays: Any) -> tuple[Array, ...]:
    several = arrays if isinstance(arrays, tuple) else (arrays,)
    return tuple(np.asarray(a, Wide) for a in several)
