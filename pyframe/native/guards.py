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
    """What in this thread is reading parameters right now: a write would wait for it forever."""

    def __init__(self) -> None:
        self.in_python_node = False
        self.paused_loops: set[ref[object]] = set()  # evaluations that stopped inside a batch

    def pause(self, loop: object) -> None:
        """Enter an evaluation that stopped inside a batch."""
        self.paused_loops.add(ref(loop, self.paused_loops.discard))

    def resume(self, loop: object) -> None:
        """Take it out again."""
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
    """Return the error for parameters that somebody else is training."""
    return BusyError(
        "these parameters are being trained already, by another thread or by a fit "
        "that has called you; wait for it, or train a copy"
    )


class Guard:
    """Who may read and who may write a set of buffers; the lock itself is in C."""

    def __init__(self) -> None:
        pointer = lib.pf_guard_new()
        if pointer == ffi.NULL:
            raise ResourceError("there is no memory left for a lock")
        self.pointer = ffi.gc(pointer, lib.pf_guard_free)
        self.updating_thread: int | None = None  # while an optimizer written in Python updates

    def __reduce__(self) -> Any:
        return Guard, ()  # a copy guards copies: nobody has it

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

    An exception from a signal handler comes where a function begins or a call has returned. So this
    is an object of C: its block ends in one call, with no Python code in which an exception could
    come first. And should it be lost, it gives them back when it goes.

    Raises
    ------
    BusyError
        If somebody else is training what they guard.
    """
    held: AbstractContextManager[Any] = new_hold(guards, purpose)
    try:
        if not lib.pf_hold_take(held):
            raise already_trained()
    except BaseException:  # it lives on in the frames of the exception
        ffi.release(held)
        raise
    return held


def new_hold(guards: Sequence[Guard], purpose: int) -> Any:
    """Return what takes some guards by ``lib.pf_hold_take`` and gives them back when released.

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
    """Return each guard once, in the one order in which everybody takes them."""
    return sorted(set(guards), key=lambda guard: int(ffi.cast("uintptr_t", guard.pointer)))
