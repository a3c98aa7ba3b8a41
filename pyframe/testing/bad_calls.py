"""Invalid calls, derived from valid ones: each must be refused or be computed correctly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pyframe.errors import ArgumentError, DTypeError, GraphError, ShapeError
from pyframe.graph.op import Case, Op, same_shape
from pyframe.graph.spec import FLOAT32, FLOAT64, INT64, Array, Shape, Spec, describe
from pyframe.native import core
from pyframe.testing.subject import (
    NODE_NAME,
    ConformanceError,
    Kernels,
    Subject,
    all_cases,
    build,
    describe_case,
)

DEFAULT_SHAPES = 30
# Lengths that no sample has.
SMALL = (101, 10007)
# No dimension is this long; with it, an operand of one axis has more than 2^31 elements.
LONG = 2**31 + 11
# Two of these multiply to more than memory can address.
HUGE = 2**40


def check_bad_calls(
    op_class: type[Op],
    *,
    shapes: int = DEFAULT_SHAPES,
    seed: int = 0,
    kernels: Kernels | None = None,
) -> None:
    """Derive wrong calls from an op's right ones and check that each is refused.

    - The rank of each input plus and minus one, the highest rank, each extent plus and minus one,
      and zero: a `ShapeError` that names the node and the shape, or exactly the right answer.
    - Floats as labels, integers as floats, float32 beside float64: a `DTypeError`.
    - A required input left out: a `GraphError`.
    - Labels below zero and just past the last class: the kernel refuses them, names the element,
      and touches nothing around its operands.
    - More than 2^31 elements: the same shape rule; more than 2^63 bytes: a `ShapeError`.
    - Unknown extents: the same result, as far as it can be known.

    Raises
    ------
    ConformanceError
        An `AssertionError` that names the call that was not refused.

    Examples
    --------
    >>> import pyframe as pf
    >>> check_bad_calls(pf.Relu, shapes=3)
    """
    for case, origin in all_cases(op_class, shapes, seed):
        subject = Subject(op_class, case, "float32", origin, kernels)
        _check_shapes(subject)
        _check_dtypes(subject)
        _check_absent(subject)
        _check_labels(subject)
        _check_unknown(subject)
        _check_sizes(subject)


def _replace(items: Sequence[Any], i: int, item: Any) -> list[Any]:
    return [*items[:i], item, *items[i + 1 :]]


# ---- shapes ----


def _wrong_shapes(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield the shapes next to a given one: rank +-1, the highest, each extent +-1, and zero."""
    yield (*[1] * (core.MAX_NDIM - len(shape)), *shape)
    yield (1, *shape)
    yield (2, *shape)
    yield (*shape, 1)
    if shape:
        yield shape[1:]
        yield shape[:-1]
    for axis, extent in enumerate(shape):
        for other in {extent - 1, extent + 1, 0} - {extent, -1}:
            yield (*shape[:axis], other, *shape[axis + 1 :])


def _resized(array: Array, shape: tuple[int, ...]) -> Array:
    """Return an array of another shape with elements like those of the given one."""
    if array.dtype == INT64:
        return np.zeros(shape, np.int64)  # a valid label wherever there is a class
    if array.size == 0:
        return np.ones(shape, array.dtype)
    return np.resize(array, shape)


def _check_shapes(subject: Subject) -> None:
    # With fewer classes the labels of the case may be too large; label 0 is valid if any is.
    inputs = [np.zeros_like(a) if a is not None and a.dtype == INT64 else a for a in subject.arrays]
    for i, array in enumerate(subject.arrays):
        if array is None:
            continue
        for shape in _wrong_shapes(array.shape):
            if int(np.prod(shape, dtype=np.int64)) > 20000:
                continue
            case = subject.case._replace(inputs=tuple(_replace(inputs, i, _resized(array, shape))))
            origin = f"{subject.origin} with input {i} made {describe(shape)}"
            _check_other_shape(subject, case, shape, origin)


def _check_other_shape(subject: Subject, case: Case, shape: Shape, origin: str) -> None:
    op_class = subject.op_class
    try:
        other = Subject(op_class, case, subject.dtype.name, origin, subject.kernels)
    except (ShapeError, ArgumentError) as error:
        # An attribute that does not fit these shapes is not an error in one input's shape.
        shown = (describe(shape),) if isinstance(error, ShapeError) else ()
        for part in (NODE_NAME, *shown):
            if part not in str(error):
                raise subject.fail(
                    "shape", f"{origin}: the error does not name {part}: {error}"
                ) from error
        return
    except Exception as error:
        raise ConformanceError(
            "shape",
            f"{describe_case(op_class, case, subject.dtype.name)}\n  must raise ShapeError or be "
            f"right, and raised {type(error).__name__}: {error}\n  case: {origin}",
        ) from error
    try:
        with np.errstate(all="ignore"):
            (expected, _), bounds = other.expected(), other.bounds()
    except Exception as error:
        if isinstance(error, IndexError) and has_no_classes(other):
            return
        raise other.fail(
            "shape",
            f"the shape rule takes shapes that the reference refuses ({error}): what would the "
            "kernel read?",
        ) from error
    for o, (spec, each) in enumerate(zip(other.node.specs, expected, strict=True)):
        if spec.shape != each.shape:
            raise other.fail(
                "shape",
                f"the shape rule gives output {o} {describe(spec.shape)}, the reference "
                f"{describe(each.shape)}",
            )
    if op_class.uses_random or (other.is_alias() and not other.address()):
        return
    if has_no_classes(other):
        return
    outcome = other.call_ok()
    for o, (got, each, bound) in enumerate(zip(outcome.outputs, expected, bounds, strict=True)):
        other.compare(got, each, bound, f"output {o}", "value")


def has_no_classes(subject: Subject) -> bool:
    """Return whether the kernel refuses even label 0, since the float inputs have no element."""
    arrays = [a for a in subject.arrays if a is not None]
    if not subject.op_class.integer_inputs or all(a.size for a in arrays):
        return False
    return subject.call().status == int(core.lib.PF_ERROR_LABEL)


def _check_unknown(subject: Subject) -> None:
    """Check that with unknown extents the rule says the same as with known ones, or less."""
    full = [s.shape for s in subject.node.specs]
    for axis in (*range(core.MAX_NDIM), None):
        specs: list[Spec | None] = []
        for spec in subject.specs:
            if spec is not None and spec.shape is not None:
                shape = tuple(
                    None if axis is None or j == axis else n for j, n in enumerate(spec.shape)
                )
                spec = Spec(shape, spec.dtype)
            specs.append(spec)
        if specs == subject.specs:
            continue
        what = "all extents" if axis is None else f"axis {axis} of every input"
        try:
            node = build(subject.op_class, specs, subject.case)
        except Exception as error:
            raise subject.fail(
                "shape", f"with {what} unknown it raised {type(error).__name__}: {error}"
            ) from error
        for o, (spec, known) in enumerate(zip(node.specs, full, strict=True)):
            if spec.shape is not None and known is not None and not same_shape(spec.shape, known):
                raise subject.fail(
                    "shape",
                    f"with {what} unknown, output {o} is {describe(spec.shape)}, which is not "
                    f"{describe(known)}",
                )


# ---- dtypes and absent inputs ----


def _check_refused(
    subject: Subject, specs: Sequence[Spec | None], error_type: type[Exception], what: str
) -> None:
    kind = "dtype" if error_type is DTypeError else "absent"
    try:
        build(subject.op_class, specs, subject.case)
    except error_type as error:
        if NODE_NAME not in str(error):
            raise subject.fail(
                kind, f"{what}: the error does not name the node: {error}"
            ) from error
    except Exception as error:
        raise subject.fail(
            kind,
            f"{what}: must raise {error_type.__name__}, raised {type(error).__name__}: {error}",
        ) from error
    else:
        raise subject.fail(kind, f"{what}: must raise {error_type.__name__}, was taken")


def _check_dtypes(subject: Subject) -> None:
    taken = set(range(len(subject.specs))) - set(subject.node.shape_only)  # others: shape only
    floats = [i for i, s in enumerate(subject.specs) if s and s.dtype.kind == "f" and i in taken]
    for i, spec in enumerate(subject.specs):
        if spec is None or i not in taken:
            continue
        wrong = INT64 if i in floats else FLOAT32
        specs = _replace(subject.specs, i, Spec(spec.shape, wrong))
        _check_refused(subject, specs, DTypeError, f"{wrong.name} as input {i}")
        if i in floats and len(floats) > 1:
            specs = _replace(subject.specs, i, Spec(spec.shape, FLOAT64))
            _check_refused(subject, specs, DTypeError, f"float64 as input {i} among float32")


def _check_absent(subject: Subject) -> None:
    for i, spec in enumerate(subject.specs):
        if spec is not None and i not in subject.op_class.optional_inputs:
            specs = _replace(subject.specs, i, None)
            _check_refused(subject, specs, GraphError, f"None as input {i}")


# ---- labels ----


def _check_labels(subject: Subject) -> None:
    for i in subject.op_class.integer_inputs:
        array = subject.arrays[i]
        if array is None or array.size == 0 or i in subject.op_class.shape_only:
            continue
        classes = _class_count(subject, i)
        flat = (7 * array.size) // 11
        for label in (-1, classes, -(2**63), 2**62):
            labels = array.copy()
            labels.flat[flat] = label
            origin = f"{subject.origin} with label {label} at flat index {flat} of input {i}"
            other = subject.with_input(i, labels, origin)
            outcome = other.call()
            got = (outcome.status, outcome.operand, outcome.element, outcome.value)
            wanted = (core.lib.PF_ERROR_LABEL, i, flat, label)
            if got != wanted:
                raise other.fail(
                    "label",
                    f"there are {classes} classes; the kernel must answer (status, operand, "
                    f"element, value) = {wanted} and answered {got}",
                )


def _class_count(subject: Subject, i: int) -> int:
    """Return the first label that the reference refuses; if it accepts all, the longest extent."""
    longest = max(int(n) for a in subject.arrays if a is not None for n in (1, *a.shape))
    array = subject.arrays[i]
    assert array is not None
    for label in range(longest + 2):  # a length may be as large as the extent that it counts
        inputs = _replace(subject.reference_inputs(), i, np.full_like(array, label))
        try:
            subject.expected(inputs=inputs)
        except IndexError:
            return label
    return longest


# ---- sizes ----


def _renamed(shape: Shape, old: int, new: int) -> Shape:
    return tuple(new if n == old else n for n in shape)


def _check_sizes(subject: Subject) -> None:
    """Change one extent wherever it occurs: the shape of the result must follow.

    Small lengths are tried first, to see whether the op scales like that (a concatenation does
    not).
    """
    shapes = [None if s is None else s.shape for s in subject.specs]
    extents = {n for shape in shapes for n in shape or () if n is not None and n > 1}
    for old in sorted(extents):
        try:
            scales = all(
                _scaled(subject, old, n) == _expected_scaled(subject, old, n) for n in SMALL
            )
        except ShapeError:
            continue
        if not scales:
            continue
        for new in (LONG, HUGE):
            wanted = _expected_scaled(subject, old, new)
            sizes = [
                8 * int(np.prod([max(n or 1, 1) for n in shape], dtype=object))
                for shape in [*wanted, *(_renamed(s, old, new) for s in shapes if s is not None)]
            ]
            fits = all(size < 2**63 for size in sizes)
            try:
                got = _scaled(subject, old, new)
            except ShapeError as error:
                if fits:
                    raise subject.fail(
                        "shape", f"with {new} for {old} it raised ShapeError: {error}"
                    ) from error
                continue
            if not fits:
                raise subject.fail(
                    "shape",
                    f"with {new} for {old} an array has 2^63 bytes or more, and no ShapeError came",
                )
            if got != wanted:
                raise subject.fail(
                    "shape",
                    f"with {new} for {old} the shape rule gives {[describe(s) for s in got]}, "
                    f"not {[describe(s) for s in wanted]}",
                )


def _expected_scaled(subject: Subject, old: int, new: int) -> list[Shape]:
    return [_renamed(s.shape or (), old, new) for s in subject.node.specs]


def _scaled(subject: Subject, old: int, new: int) -> list[Shape]:
    specs = [
        None if s is None or s.shape is None else Spec(_renamed(s.shape, old, new), s.dtype)
        for s in subject.specs
    ]
    return [s.shape or () for s in build(subject.op_class, specs, subject.case).specs]
