"""Flat buffers that hold parameters and states.

All parameters of a model that share a dtype lie in one array, each segment 64-byte aligned, so
that an update, a clip or a checkpoint is one pass. A parameter is placed when it is first
compiled, and then stays where it is: later plans over it share its memory.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple
from weakref import ref

import numpy as np

from pyframe.errors import BusyError, ResourceError, raise_if_signalled
from pyframe.graph.node import Array, Parameter, Place, Shape, settle
from pyframe.native.building import building
from pyframe.native.core import empty_aligned, ffi, lib

ALIGNMENT = 64


class _Reading(threading.local):
    """The evaluations of this thread that hold a read lock: a write would wait for them forever."""

    def __init__(self) -> None:
        self.in_python_node = False
        self.paused_loops: set[ref[object]] = set()  # evaluations paused inside a batch

    def pause(self, loop: object) -> None:
        """Register an evaluation that is paused inside a batch."""
        self.paused_loops.add(ref(loop, self.paused_loops.discard))

    def resume(self, loop: object) -> None:
        """Remove it again."""
        self.paused_loops.discard(ref(loop))


reading = _Reading()


def refuse_while_reading(what: str) -> None:
    """Raise `BusyError` if this thread would wait for itself."""
    if reading.in_python_node:
        raise BusyError(f"{what} is not possible from within a node's own Python code")
    if reading.paused_loops:
        raise BusyError(
            f"{what} is not possible while an evaluation of this thread is paused inside a batch; "
            "run its loop on, or close it"
        )


def already_trained() -> BusyError:
    """Return the error for parameters that are being trained elsewhere."""
    return BusyError(
        "these parameters are being trained already, by another thread or by a fit "
        "that has called you; wait for it, or train a copy"
    )


class Segment(NamedTuple):
    """One parameter's part of a flat buffer; offset and size count elements."""

    name: str
    offset: int
    size: int
    shape: Shape
    trainable: bool
    group: str


class Guard:
    """The read-write lock of a set of buffers; the lock itself is in C."""

    def __init__(self) -> None:
        pointer = lib.pf_guard_new()
        if pointer == ffi.NULL:
            raise ResourceError("there is no memory left for a lock")
        self.pointer = ffi.gc(pointer, lib.pf_guard_free)
        self.updating_thread: int | None = None  # while an optimizer written in Python updates

    def __reduce__(self) -> Any:
        return Guard, ()  # the copy guards other buffers, and is not locked

    def refuse_own(self) -> None:
        """Raise `BusyError` if this thread would wait for itself when it writes."""
        if self.updating_thread == threading.get_ident():
            raise BusyError(
                "these parameters are being updated by the optimizer that is running this code; "
                "change the arrays that update() was given instead"
            )
        refuse_while_reading("writing parameters")

    def write(self) -> AbstractContextManager[Any]:
        """Keep readers out until the end of a ``with`` block."""
        self.refuse_own()
        return hold([self], lib.PF_TO_WRITE)


def hold(guards: Sequence[Guard], purpose: int) -> AbstractContextManager[Any]:
    """Take some guards, all or none, until the end of a ``with`` block over what is returned.

    A signal handler may raise an exception wherever a function begins or a call returns. So this is
    a C object: its block ends in one call, with no Python code that such an exception could skip.
    If the object is lost, its destructor releases the guards.

    Raises
    ------
    BusyError
        If the guarded parameters are being trained elsewhere.
    """
    held: AbstractContextManager[Any] = new_hold(guards, purpose)
    try:
        if not lib.pf_hold_take(held):
            raise already_trained()
    except BaseException:  # the frames of the exception keep it alive
        ffi.release(held)
        raise
    return held


def new_hold(guards: Sequence[Guard], purpose: int) -> Any:
    """Return an object that takes guards by ``lib.pf_hold_take``, and frees them when released.

    `purpose` is ``lib.PF_TO_TRAIN``, ``PF_TO_WRITE`` or ``PF_TO_RESTORE``.
    """
    pointers = ffi.new("pf_guard *[]", [guard.pointer for guard in guards])
    made = lib.pf_hold_new(pointers, len(guards), purpose)
    if made == ffi.NULL:
        raise ResourceError("there is no memory left for a lock")
    return ffi.gc(made, lib.pf_hold_free)


class Storage:
    """One flat buffer.

    Attributes
    ----------
    data : ndarray, 1-D
    segments : list of Segment
    version : int
        Incremented by every write from Python, so that a copy can detect that it is stale.
    """

    def __init__(self, data: Array, segments: list[Segment], guard: Guard) -> None:
        self.data, self.segments, self.guard = data, segments, guard
        self.version = 0
        self.on_freeze: list[Callable[[], Any]] = []  # weak references to methods of plans

    def __reduce__(self) -> Any:
        with self.guard.write():
            data = self.data.copy()
        return _copied_storage, (data, self.segments, self.guard)

    def view(self, offset: int, shape: tuple[int, ...]) -> Array:
        """Return the part of the buffer that begins at an offset."""
        return self.data[offset : offset + math.prod(shape)].reshape(shape)

    def note(self, offset: int, size: int, changes: dict[str, Any]) -> None:
        """Update the table entry of the parameter at an offset."""
        self.segments[:] = [
            s._replace(**changes) if (s.offset, s.size) == (offset, size) else s
            for s in self.segments
        ]

    def write(self, offset: int, array: Array) -> None:
        """Copy an array into the buffer while nobody reads."""
        with self.guard.write():
            self.data[offset : offset + array.size] = array.ravel()
            self.version += 1


def _copied_storage(data: Array, segments: list[Segment], guard: Guard) -> Storage:
    aligned = empty_aligned(data.size, data.dtype)
    aligned[:] = data
    return Storage(aligned, segments, guard)


def place(parameters: Sequence[Parameter], names: Sequence[str]) -> None:
    """Place all parameters without storage in new flat buffers, one for each dtype.

    Trainable ones of one group lie side by side, so that an update covers them in one run. If
    several threads place the same parameters, only the first one does so.
    """
    with building:
        _place(parameters, names)


def _place(parameters: Sequence[Parameter], names: Sequence[str]) -> None:
    placed = [p.place.storage.guard for p in parameters if p.is_placed]
    waiting = [(p, n) for p, n in zip(parameters, names, strict=True) if not p.is_placed]
    if not waiting:
        return
    guard = placed[0] if placed else Guard()
    for dtype in dict.fromkeys(p.dtype for p, _ in waiting):
        chosen = [(p, n) for p, n in waiting if p.dtype == dtype]
        chosen.sort(key=lambda pair: (not pair[0].trainable, pair[0].group))
        _place_together(chosen, dtype, guard)


def _place_together(
    chosen: list[tuple[Parameter, str]], dtype: np.dtype[Any], guard: Guard
) -> None:
    lane = ALIGNMENT // dtype.itemsize
    segments, arrays, end = [], [], 0
    for parameter, name in chosen:
        array = parameter.initial_array(name)
        segments.append(
            Segment(name, end, array.size, array.shape, parameter.trainable, parameter.group)
        )
        arrays.append(array)
        end += -(-array.size // lane) * lane
    try:
        data = empty_aligned(end, dtype)
    except (MemoryError, ValueError) as error:
        raise_if_signalled(error)
        raise ResourceError(f"{end * dtype.itemsize} bytes of parameters do not fit") from error
    storage = Storage(data, segments, guard)
    for segment, array in zip(segments, arrays, strict=True):
        data[segment.offset : segment.offset + segment.size] = array.ravel()
    settle([p for p, _ in chosen], [Place(storage, s.offset) for s in segments])


class Run(NamedTuple):
    """A contiguous stretch of one buffer that an optimizer treats alike."""

    storage: Storage
    start: int
    stop: int
    group: str


def runs(parameters: Sequence[Parameter], group_of: Callable[[Parameter], str]) -> list[Run]:
    """Return the stretches that cover exactly these parameters (with the padding between)."""
    result: list[Run] = []
    where = sorted(((*p.place, p) for p in parameters), key=lambda t: (id(t[0]), t[1]))
    for storage, offset, parameter in where:
        lane = ALIGNMENT // storage.data.itemsize
        stop = offset + -(-parameter.size // lane) * lane
        last = result[-1] if result else None
        if (
            last is not None
            and last.storage is storage
            and last.stop == offset
            and last.group == group_of(parameter)
        ):
            result[-1] = last._replace(stop=stop)
        else:
            result.append(Run(storage, offset, stop, group_of(parameter)))
    # By the order of the parameters, not of addresses: the same model gives the same runs.
    first = {id(p.place.storage): i for i, p in reversed(list(enumerate(parameters)))}
    return sorted(result, key=lambda run: (first[id(run.storage)], run.start))


def views(parameters: Iterable[Parameter]) -> tuple[dict[Parameter, Array], set[Guard]]:
    """Return views of some values, and the guards to pass to `hold_all` for a consistent copy.

    The first value of a parameter without a place is what it was, even if another thread places and
    trains it meanwhile.
    """
    with building:
        values = {p: p.value for p in parameters}
        return values, {p.place.storage.guard for p in values if p.is_placed}


def hold_all(guards: Iterable[Guard]) -> AbstractContextManager[Any]:
    """Keep readers and updates out until the end of a ``with`` block."""
    ordered = in_order(guards)
    for guard in ordered:
        guard.refuse_own()
    return hold(ordered, lib.PF_TO_WRITE)


def in_order(guards: Iterable[Guard]) -> list[Guard]:
    """Return each guard once, in the global order of locking."""
    return sorted(set(guards), key=lambda guard: int(ffi.cast("uintptr_t", guard.pointer)))
