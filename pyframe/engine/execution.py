"""Driving the C executor: how it is launched, nodes in Python in between, results and errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

import numpy as np

from pyframe.engine.program import NOWHERE, Context, Program, Row, Specialization
from pyframe.engine.state import TrainState
from pyframe.errors import (
    AnomalyError,
    ArgumentError,
    DTypeError,
    GraphError,
    KernelError,
    LabelError,
    ShapeError,
    SlotError,
)
from pyframe.graph.autodiff import PythonGradient
from pyframe.graph.node import Node, Placeholder
from pyframe.graph.op import Op
from pyframe.graph.spec import Array, describe
from pyframe.native.core import ffi, lib
from pyframe.native.guards import already_trained, reading, refuse_if_taken
from pyframe.native.launcher import Form, Launcher, new_launcher

# The longest time that C runs before it returns: Ctrl-C and the progress bar wait for it.
SECONDS_PER_LOOK = 0.05

DONE, PAUSED, BUSY, UNALIGNED = lib.PF_DONE, lib.PF_PAUSED, lib.PF_BUSY, lib.PF_UNALIGNED


def deliver(results: list[Array], out: Any, single: bool) -> Any:
    """Return copies of some results, or put them where `out` says."""
    if out is not None:
        targets = [out] if single else list(out)
        if len(targets) != len(results):
            raise ArgumentError(f"out= has {len(targets)} arrays for {len(results)} outputs")
        for target, result in zip(targets, results, strict=True):
            fits = (
                isinstance(target, np.ndarray)
                and target.shape == result.shape
                and target.flags.writeable
                and np.can_cast(result.dtype, target.dtype, "same_kind")
            )
            if not fits:
                given = type(target).__name__
                if isinstance(target, np.ndarray):
                    locked = "" if target.flags.writeable else ", read-only"
                    given = f"{target.dtype} of shape {target.shape}{locked}"
                raise ArgumentError(
                    f"out= takes a writable {result.dtype} array of shape {result.shape} and got "
                    f"{given}"
                )
        for target, result in zip(targets, results, strict=True):
            target[...] = result
        return out
    copies = [r.copy() for r in results]
    return copies[0] if single else copies


def collect(context: Context, out: Any, single: bool) -> Any:
    """Return copies of the outputs of a run, or put them where `out` says."""
    if context.outputs is not None and out is None and not single:
        return [output.copy() for output in context.outputs]  # a step of an LSTM has several
    results = [context.output(i) for i in range(len(context.program.output_ids))]
    return deliver(results, out, single)


def carry_on(
    status: int, context: Context, train: TrainState, seed: int, rate: float, training: bool
) -> None:
    """Finish a run that a `Launcher` has begun, and whose status is not `DONE`.

    Raises
    ------
    BusyError
        If it was a step, and somebody else trains the parameters.
    """
    if status == BUSY:
        raise already_trained()
    if status == UNALIGNED:  # arrays over other memory, such as a file's, may begin anywhere
        context.feeds = [feed.copy() for feed in context.feeds]
        buffers = list(map(ffi.from_buffer, context.feeds))
        status = lib.pf_context_launch(
            context.pointer, buffers, training, seed, train.step_count, rate, SECONDS_PER_LOOK
        )
        if status != DONE:
            carry_on(status, context, train, seed, rate, training)
        return
    if status != PAUSED:
        handle(context, status)
    drive(context)


def drive(context: Context, end: int | None = None) -> None:
    """Run a context to instruction `end`, through everything that stops it on the way.

    An exception, Ctrl-C among them, leaves no step half done: before its update has begun the step
    is dropped, afterwards it is completed first, and then the exception goes on.
    """
    program = context.program
    stop = len(program) if end is None else end
    try:
        while True:
            status = lib.pf_context_run(context.pointer, stop, SECONDS_PER_LOOK)
            if status == DONE:
                return
            if status != PAUSED:
                handle(context, status)
    except BaseException:
        give_up(context)
        raise


def give_up(context: Context) -> bool:
    """Complete the update that is under way, or drop the step; return whether it was completed."""
    return bool(lib.pf_context_give_up(context.pointer))


def handle(context: Context, status: int) -> None:
    """Run the Python instruction that the executor stopped at, or raise what a kernel reported."""
    rows = context.program.rows
    if status == lib.PF_FAILED:
        raise_kernel_error(context, rows[lib.pf_context_failed(context.pointer)])
    row = rows[lib.pf_context_position(context.pointer)]
    was_inside, reading.in_python_node = reading.in_python_node, True
    try:
        if row.call is not None and row.call.python is not None:
            row.call.python(context, lambda: _run_again(context))  # moves the context on by itself
        else:
            _run_python_node(context, row)
            lib.pf_context_skip(context.pointer)
    finally:
        reading.in_python_node = was_inside


def _run_again(context: Context) -> None:
    """Run everything before the present instruction once more, on what it reads now."""
    position = lib.pf_context_position(context.pointer)
    lib.pf_context_seek(context.pointer, 0)
    while (status := lib.pf_context_run(context.pointer, position, -1.0)) != DONE:
        handle(context, status)


class Kept:
    """The ``ctx`` of one run of a node in Python: what forward leaves for backward."""

    __slots__ = ("__dict__", "_label")

    def __init__(self, label: str) -> None:
        self._label = label

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # asked for by Python itself
            raise AttributeError(name)
        there = ", ".join(f"ctx.{other}" for other in vars(self))
        raise SlotError(
            f"{self._label}: it reads ctx.{name}, which its forward has not set; "
            f"{f'there is {there}' if there else 'nothing is there'}. Write ctx.{name} = ... in "
            "forward, on each of its ways"
        )


def _run_python_node(context: Context, row: Row) -> None:
    node = row.node
    assert node is not None
    owner = node.source if isinstance(node, PythonGradient) else node
    ctx: Any = context.python.get(owner)
    if ctx is None or owner is node:
        ctx = context.python[owner] = Kept(row.label)
    inputs = [None if v < 0 else context.read(v) for v in row.inputs]
    for array in inputs:
        if array is not None:
            array.flags.writeable = False
    if owner is node:
        ctx.inputs = tuple(inputs)
    results = node.forward(ctx, *inputs)
    if not isinstance(results, tuple | list):
        results = (results,)
    _store(context, row, node, results)
    if owner is node:
        ctx.outputs = tuple(context.read(v) for v in row.outputs)


def _store(context: Context, row: Row, node: Node, results: Sequence[Any]) -> None:
    """Copy what a node written in Python returned to where the plan wants it."""
    what = "backward" if isinstance(node, PythonGradient) else "forward"
    if len(results) != len(row.outputs):
        is_numbers = isinstance(results, list) and not any(
            r is None or isinstance(r, np.ndarray) for r in results
        )
        hint = "; a list of numbers is no array: return numpy.asarray(...)" if is_numbers else ""
        raise GraphError(
            f"{row.label}: {what} returned {len(results)} arrays, expected {len(row.outputs)}{hint}"
        )
    for i, (value, result) in enumerate(zip(row.outputs, results, strict=True)):
        spec = context.program.specs[value]
        target = context.read(value)
        if result is None and isinstance(node, PythonGradient):
            target[...] = 0
            continue
        array = np.asarray(result)
        if array.dtype.kind not in "fiub":
            raise DTypeError(f"{row.label}: {what} returned {array.dtype}, expected {spec.dtype}")
        if array.dtype.kind == "f" and spec.dtype.kind != "f":  # it would be cut, and NaN garbage
            raise DTypeError(
                f"{row.label}: {what} returned {array.dtype}, expected {spec.dtype}; say so in "
                "infer(), or round it"
            )
        if array.shape != spec.shape:
            raise ShapeError(
                f"{row.label}: {what} returned shape {describe(array.shape)} as number {i}, "
                f"expected {describe(spec.shape)}; override infer() if the shape is not that of "
                "the first input"
            )
        target[...] = array


def raise_kernel_error(context: Context, row: Row) -> None:
    """Raise the typed error for what a kernel has put into the context's error slot."""
    error = lib.pf_context_error(context.pointer)
    if error.code == lib.PF_ERROR_NONFINITE and row.call is not None and row.call.explain:
        raise row.call.explain(int(lib.pf_context_step(context.pointer).step))
    says_where = error.operand >= 0  # a kernel may answer a bare code
    if error.code == lib.PF_ERROR_NONFINITE and says_where:
        raise AnomalyError(
            f"{row.label} ({row.kernel}) is the first to give NaN or infinity, in output "
            f"{error.operand} of shape {describe(_shape_of(context, row.outputs, error.operand))};"
            " look at its inputs, the learning rate and the data"
        )
    message = ffi.string(error.message).decode(errors="replace")
    if error.code == lib.PF_ERROR_LABEL and message:
        raise LabelError(f"{row.label}: {message}")
    if error.code == lib.PF_ERROR_LABEL and says_where:
        wrong = LabelError(f"{row.label}: {_label_problem(context, row, error)}")
        wrong.index = int(error.index)
        raise wrong
    what = f"{row.label} ({row.kernel})"
    if error.operand >= 0:
        what += f" refused element {error.index} of input {error.operand}"
    else:
        what += " refused its operands"
    code = "" if error.code == lib.PF_ERROR_KERNEL else f"code {error.code}"
    value = f"value {error.value}" if error.operand >= 0 else ""
    details = ", ".join(filter(None, (code, value)))
    raise KernelError(
        what + (f" ({details})" if details else "") + (f": {message}" if message else "")
    )


def _shape_of(context: Context, values: Sequence[int], i: int) -> Any:
    return context.shape(values[i]) if 0 <= i < len(values) else None


def _label_problem(context: Context, row: Row, error: Any) -> str:
    """Say which integer of the batch is out of range, and of what range."""
    into = row.node.index_into if isinstance(row.node, Op) else None
    if into is None:
        classes = _class_count(context.program, row)
        return (
            f"label {error.value} at index {error.index} of input {error.operand} "
            f"of this batch lies outside of [0, {classes}); labels count from 0"
        )
    operand, axis = into
    count = _shape_of(context, row.inputs, operand)[axis]
    return (
        f"index {error.value} at position {error.index} of input {error.operand} of this batch "
        f"lies outside of [0, {count}), the extent of axis {axis} of input {operand}; indices "
        "count from 0"
    )


def _class_count(program: Program, row: Row) -> Any:
    """Return the number of classes: the last extent of the logits."""
    for value in row.inputs:
        spec = program.specs[value]
        if value >= 0 and spec.dtype.kind == "f" and spec.shape:
            return spec.shape[-1]
    return "classes"


# ---- launchers ----

# Checking a feed and finding its program takes some twenty microseconds. A feed with the keys,
# dtypes and shapes of one that was checked would give the same answers, so they are kept.


def form_of(
    feed: Mapping[Any, Any], names: Mapping[Placeholder, str], program: Program
) -> Form | None:
    """Return what a checked feed looks like, None if its arrays had to be converted."""
    if type(feed) is not dict or len(feed) != len(program.feeds):
        return None
    form = []
    for placeholder in program.feeds:
        grows = placeholder in program.growth.feeds
        key = placeholder if placeholder in feed else names[placeholder]
        array = feed.get(key)
        if type(array) is not np.ndarray or array.dtype is not placeholder.dtype:
            return None
        if not array.flags.c_contiguous:
            return None
        form.append((key, array.dtype, (-1, *array.shape[1:]) if grows else array.shape))
    return form


def launcher_of(
    specialization: Specialization,
    form: Form | None,
    feeds: Mapping[Placeholder, Array],
    state: TrainState,
    last: list[Any],
    *,
    training: bool,
    single: bool = True,
) -> Launcher:
    """Return what runs a specialization for feeds of some form; None is that of `feeds`."""
    program = specialization.program
    if form is None:
        form = [
            (p, a.dtype, (-1, *a.shape[1:]) if p in program.growth.feeds else a.shape)
            for p, a in ((p, feeds[p]) for p in program.feeds)
        ]
    cost, bits = program.cost_id, 0
    if cost != NOWHERE:
        bits = 8 * program.specs[cost].dtype.itemsize
    return new_launcher(
        form,
        idle=specialization.idle,
        borrow=partial(_borrow_to_train, specialization) if training else specialization.borrow,
        last=last,
        state=state,
        cost=(cost, bits),
        rows=program.growth.rows,
        grows=bool(program.output_ids) and program.output_ids[0] in program.growth.values,
        output_bytes=None if training or not single else program.bytes[program.output_ids[0]],
        seconds=SECONDS_PER_LOOK,
        carry_on=carry_on,
        collect=collect,
    )


def _borrow_to_train(specialization: Specialization) -> Context:
    refuse_if_taken(specialization.guards)  # unless a context was lost on its way back
    return specialization.borrow()
