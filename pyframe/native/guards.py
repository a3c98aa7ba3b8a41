"""Who may read and who may write: guards of sets of arrays, which C takes and gives back."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any
from weakref import ref

from pyframe.errors import BusyError, ResourceError
from pyframe.native.core import ffi, lib


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


def refuse_if_taken(guards: Iterable[Guard]) -> None:
    """Raise `BusyError` if somebody is training the guarded parameters."""
    if any(lib.pf_guard_is_taken(guard.pointer) for guard in guards):
        raise already_trained()


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


def hold_all(guards: Iterable[Guard]) -> AbstractContextManager[Any]:
    """Keep readers and updates out until the end of a ``with`` block."""
    ordered = in_order(guards)
    for guard in ordered:
        guard.refuse_own()
    return hold(ordered, lib.PF_TO_WRITE)


def in_order(guards: Iterable[Guard]) -> list[Guard]:
    """Return each guard once, in the global order of locking."""
    return sorted(set(guards), key=lambda guard: int(ffi.cast("uintptr_t", guard.pointer)))
