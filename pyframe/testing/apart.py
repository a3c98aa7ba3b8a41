"""Checks in a process of their own: if it crashes, the check fails and the run goes on."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import pickle
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from pyframe.native import core
from pyframe.testing import witness
from pyframe.testing.subject import ConformanceError

# If set to anything but 0, everything runs in the process of the tests, where a debugger sees it.
VARIABLE = "PYFRAME_TESTING_IN_PROCESS"
LONGEST_CALL = 120.0  # seconds that one call of a kernel may take


def why_together() -> str | None:
    """Return why checks have to run in the calling process, or None if they need not."""
    if os.environ.get(VARIABLE, "0") not in ("", "0"):
        return f"{VARIABLE} is set"
    if sys.platform != "linux":
        return f"a process cannot be forked safely on {sys.platform}"
    return None


def foreign_code() -> bool:
    """Return whether kernels of a plugin are in this process."""
    return bool(core.open_libraries)


def run_apart(what: str, check: Callable[[], None], foreign: bool = False) -> None:
    """Run a check in a child process if there are kernels that might end the process.

    The check is simply called if `why_together` gives a reason, or if there are no kernels of
    plugins and `foreign` announces no others.

    Raises
    ------
    ConformanceError
        The error that the check raised; of kind "crash" if the process ended by itself, and "hang"
        if a call of a kernel did not return.
    """
    inside = witness.current is not None
    if inside or why_together() is not None or not (foreign or foreign_code()):
        check()
        return
    seen = witness.Witness()
    try:
        status, answer = _in_child(what, check, seen)
        if answer is None:
            _tell(what, status, seen.words())
    finally:
        seen.close()
    how, error, cause = answer
    if how == "failed":
        raise ConformanceError(*error) from (None if cause is None else pickle.loads(cause))
    if how == "raised":  # not a failure but, say, a skip: repeat it here
        check()


def _in_child(
    what: str, check: Callable[[], None], seen: witness.Witness
) -> tuple[int | None, Any]:
    """Return the status of the child, None if it was killed for taking too long, and its answer,
    None if there was none."""
    reading, writing = os.pipe()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # otherwise both processes would write what is in its buffer
    with warnings.catch_warnings():
        # Other libraries may have started threads; those of the core handle forks.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os.close(reading)
        _be_the_child(writing, check, seen)
    os.close(writing)
    ended = False
    try:
        data, in_time = _read(reading, seen)
        if not in_time:
            return None, None
        _, status = os.waitpid(pid, 0)
        ended = True
    finally:
        os.close(reading)
        if not ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), pickle.loads(data) if data else None


def _read(reading: int, seen: witness.Witness) -> tuple[bytes, bool]:
    """Return everything that comes through a pipe, and whether no call took too long."""
    data, steps, since = b"", -1, time.monotonic()
    while True:
        if select.select([reading], [], [], 1.0)[0]:
            piece = os.read(reading, 1 << 16)
            if not piece:
                return data, True
            data += piece
        words = seen.words()
        if words.steps != steps or not words.calling:
            steps, since = words.steps, time.monotonic()
        elif time.monotonic() - since > LONGEST_CALL:
            return data, False


def _be_the_child(writing: int, check: Callable[[], None], seen: witness.Witness) -> NoReturn:
    """Run the check, answer, and end the process without its parent's exit handlers."""
    try:
        faulthandler.disable()  # the parent reports it in the author's terms
        with contextlib.suppress(ImportError, OSError, ValueError):
            import resource

            _, most = resource.getrlimit(resource.RLIMIT_CORE)
            resource.setrlimit(resource.RLIMIT_CORE, (0, most))
        witness.current = seen
        data = pickle.dumps(_answer(check))
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        while data:
            data = data[os.write(writing, data) :]
    finally:
        os._exit(0)


def _answer(check: Callable[[], None]) -> tuple[str, Any, Any]:
    """Return the outcome of a check: ("passed" or "failed" or "raised", the error, its cause)."""
    try:
        check()
    except ConformanceError as error:
        return "failed", (error.kind, error.message), _packed(error.__cause__)
    except BaseException:
        return "raised", None, None
    return "passed", None, None


def _packed(cause: BaseException | None) -> bytes | None:
    """Return a cause, with its traceback as a note, in a form that goes through a pipe."""
    if cause is None:
        return None
    told = "".join(traceback.format_exception(cause))
    cause.add_note(told)
    try:
        packed = pickle.dumps(cause)
        pickle.loads(packed)  # what can be packed cannot always be unpacked
    except Exception:
        packed = pickle.dumps(RuntimeError(told))
    return packed


def _tell(what: str, status: int | None, words: witness.Words) -> NoReturn:
    """Raise the error of a process that has ended without an answer."""
    about = words.case or what
    if status is None:
        raise ConformanceError(
            "hang",
            f"{about}\n  the kernel did not return within {LONGEST_CALL:g} seconds; does each of "
            "its loops end for these shapes?",
        )
    how = f"with status {status}" if status >= 0 else f"by {_name(-status)}"
    if words.seen:
        raise ConformanceError(words.kind, f"{words.seen}\n  then the process ended {how}")
    if words.calling:
        text = (
            f"the kernel ended the process {how}; before this call the guards of all operands were "
            "whole. Does it write or read far outside of an operand, divide by an extent of 0, or "
            "load vectors that have to be aligned?"
        )
    elif words.case:
        text = (
            f"after this the process ended {how}; no guard around an operand was written over. "
            "In a plan, which has no guards, does a kernel write outside of its operands?"
        )
    else:
        text = f"the process of the check ended {how}"
    raise ConformanceError("crash", f"{about}\n  {text}")


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
