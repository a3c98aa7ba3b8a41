"""Checks that an op's kernel has the capabilities that the op class declares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pyframe.engine.fusion import elementwise_count
from pyframe.graph.op import Op, Rows
from pyframe.graph.spec import Array
from pyframe.native import core
from pyframe.testing.subject import Kernels, Subject, all_cases

DEFAULT_SHAPES = 20


def unwritten(like: Array) -> Array:
    """Return an array full of what no kernel gives: NaN, or a label that is out of any range."""
    return np.full_like(like, np.nan if like.dtype.kind == "f" else -(2**62))


def check_capabilities(
    op_class: type[Op],
    *,
    dtype: str = "float32",
    shapes: int = DEFAULT_SHAPES,
    seed: int = 0,
    kernels: Kernels | None = None,
) -> None:
    """Check what an op class declares about its kernel, on which the planner relies.

    - Without `reads_training` and states, training changes no bit.
    - Without `uses_random`, neither do seed, stream and step.
    - Where it `is_elementwise` and the shapes allow it, the kernel gives the same bits for any
      stretch of the elements as a 1-D array, also with its output in the place of an input.
    - Where it says how it treats `rows`, calls for some of the rows at a time give the same bits
      in what goes by rows, and sums that add up to those of all rows.

    Raises
    ------
    ConformanceError
        An `AssertionError` of kind "capability".

    Examples
    --------
    >>> import pyframe as pf
    >>> check_capabilities(pf.Relu, shapes=3)
    """
    for case, origin in all_cases(op_class, shapes, seed):
        subject = Subject(op_class, case, dtype, origin, kernels)
        if subject.is_alias() and not subject.address():
            continue
        whole = subject.call_ok().outputs
        if not op_class.reads_training and not op_class.uses_random and not case.states:
            _check_same(subject, whole, "reads_training", {"training": False})
        if not op_class.uses_random:
            _check_same(subject, whole, "uses_random", {"seed": 3, "stream": 9, "step": 12})
        node = subject.node
        around = [node, *(v.node for v in node.inputs if v is not None)]
        if elementwise_count(node, {each: tuple(each.specs) for each in around}) is not None:
            _check_stretches(subject, whole)
        _check_rows(subject, whole)


def _check_same(
    subject: Subject, whole: Sequence[Array], what: str, options: dict[str, int]
) -> None:
    """Fail if options of a call change the outputs and the class does not declare it."""
    for one, other in zip(whole, subject.call_ok(**options).outputs, strict=True):
        if one.tobytes() != other.tobytes():
            raise subject.fail(
                "capability",
                f"the outputs depend on {', '.join(options)}; the class must say {what} = True",
            )


def _check_stretches(subject: Subject, whole: Sequence[Array]) -> None:
    """Call the kernel on parts of all elements, as the planner's fusion does."""
    op_class = subject.op_class
    arrays = [None if a is None else a.ravel() for a in subject.arrays]
    n = whole[0].size
    if n == 0 or op_class.integer_inputs or op_class.shape_only:
        return
    for start, stop in {(0, n), (n // 3, n - n // 5), (n // 2, n // 2 + 1)}:
        if stop <= start:
            continue
        parts = [a if a is None or a.size == 1 else a[start:stop].copy() for a in arrays]
        wanted = [a.ravel()[start:stop] for a in whole]
        _compare(subject, parts, wanted, None, (start, stop))
        for i, part in enumerate(parts if len(wanted) == 1 else ()):
            if part is not None and part.size == stop - start:
                _compare(subject, list(parts), wanted, i, (start, stop))


def _compare(
    subject: Subject,
    parts: list[Array | None],
    wanted: list[Array],
    place: int | None,
    stretch: tuple[int, int],
) -> None:
    """Call the kernel on a stretch; if `place` is given, output 0 is in the memory of that
    input."""
    outputs: list[Array | None] = [unwritten(w) for w in wanted]
    if place is not None:
        shared = parts[place]
        assert shared is not None
        parts[place] = outputs[0] = shared.copy()
    _call(subject, parts, outputs)
    for o, (got, expected) in enumerate(zip(outputs, wanted, strict=True)):
        if got is not None and got.tobytes() != expected.tobytes():
            where = f"elements {stretch[0]} to {stretch[1] - 1} as a 1-D array"
            how = "" if place is None else f", with output 0 in the place of input {place},"
            raise subject.fail(
                "capability",
                f"is_elementwise() says yes, and the kernel gives other bits in output {o} for "
                f"{where}{how} than for all elements",
            )


def _call(
    subject: Subject, inputs: list[Array | None], outputs: list[Array | None], first_sample: int = 0
) -> None:
    """Call the kernel on a part of the operands, with what it gets for all of them."""
    size = subject.node.scratch_bytes(subject.specs)
    status, *_ = core.call_kernel(
        subject.node.kernel,
        8 * subject.dtype.itemsize,
        inputs,
        outputs,
        states=[],
        attributes=subject.node.pack_attributes(subject.specs),
        scratch=np.empty(max(size, 1), np.uint8),
        scratch_bytes=size,
        training=True,
        kernel=subject.address(),
        first_sample=first_sample,
    )
    if status != core.lib.PF_OK:
        raise subject.fail("capability", f"the kernel answers {status} for a part of its operands")


def _check_rows(subject: Subject, whole: Sequence[Array]) -> None:
    """Call the kernel on some of the rows at a time, as the planner's tiles do."""
    rows = subject.node.rows(subject.specs)
    if rows is None or subject.case.states:
        return
    given = [(a, by_row) for a, by_row in zip(subject.arrays, rows.inputs, strict=True)]
    going = [a for a, by_row in [*given, *zip(whole, rows.outputs, strict=True)] if by_row]
    extents = {a.shape[:1] for a in going if a is not None}
    if len(extents) != 1 or () in extents:
        raise subject.fail(
            "capability", f"rows() says that operands go by rows whose first extents are {extents}"
        )
    ((extent,),) = extents
    bounds = subject.bounds()
    for size in {2, 5, extent // 2} - {0, 1}:
        starts = range(0, extent - 1, size)  # a last row by itself goes with those before it
        if len(starts) > 1:
            parts = zip(starts, [*starts[1:], extent], strict=True)
            _check_parts(subject, rows, whole, bounds, list(parts))


def _check_parts(
    subject: Subject,
    rows: Rows,
    whole: Sequence[Array],
    bounds: Sequence[Array],
    parts: Sequence[tuple[int, int]],
) -> None:
    """Compare calls for some rows each with one for all of them."""
    sums = [np.zeros(w.shape) for w in whole]
    for start, stop in parts:
        outputs: list[Array | None] = [
            unwritten(w[start:stop] if by_row else w)
            for w, by_row in zip(whole, rows.outputs, strict=True)
        ]
        _call(
            subject,
            [
                a[start:stop].copy() if by_row and a is not None else a
                for a, by_row in zip(subject.arrays, rows.inputs, strict=True)
            ],
            outputs,
            first_sample=start,
        )
        for o, (got, by_row) in enumerate(zip(outputs, rows.outputs, strict=True)):
            assert got is not None
            if by_row and got.tobytes() != whole[o][start:stop].tobytes():
                raise subject.fail(
                    "capability",
                    f"rows() says that output {o} goes by rows, and the kernel gives other bits "
                    f"for rows {start} to {stop - 1} alone than for all {parts[-1][1]}",
                )
            if not by_row:
                sums[o] += got
    for o, by_row in enumerate(rows.outputs):
        if not by_row:
            what = (
                f"the sum of output {o} over {len(parts)} calls for some rows each, as of rows(),"
            )
            # Both have rounded, and so has each part.
            bound = (2 + len(parts)) * bounds[o]
            subject.compare(sums[o], np.asarray(whole[o], np.float64), bound, what, "capability")
