"""The watch: a thread in each rank that ends all of them when one is waited for in vain.

MPI waits for ever. So the main thread notes before each collective what it waits for and until
when. When that is over, the watch asks all other ranks where they are. Their watches answer, also
while their main threads are busy; a process that is stopped or gone does not. Whoever is not
waiting in the same collective is named, and everything is aborted.

The same thread brings on what goes on beside the computation: MPI moves nothing but in its calls.
"""

from __future__ import annotations

import atexit
import math
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

TICK = 0.1  # seconds between two looks
PUSH = 2e-3  # the same while something goes on beside the computation, which a look interrupts
ANSWER = 1.0  # that the others have to answer in
ASK, ANSWERED = 1, 2  # tags
LATE = 124  # the exit status, that of timeout(1)
GONE = "does not answer: it was killed or stopped, or has ended"


class Watch:
    """Watches the collectives of one rank.

    Parameters
    ----------
    module : module
        ``mpi4py.MPI``.
    place : (int, int)
        The rank and how many there are.
    end : callable
        Of a message and an exit status: ends all ranks.

    Attributes
    ----------
    moving : threading.Event
        Set while something goes on beside the computation.
    push : callable
        Brings it on, besides what a look into MPI does.
    """

    def __init__(
        self, module: Any, place: tuple[int, int], end: Callable[[str, int], None]
    ) -> None:
        self._module, self._end = module, end
        self._rank, self._size = place
        self._comm = module.COMM_WORLD.Dup()
        self._count = 0  # collectives begun
        self._what = ""  # the one that is waited in; empty: none
        self._until = math.inf
        self._seconds, self._end_of_patience = math.inf, math.inf
        self._thread: threading.Thread | None = None
        self.moving = threading.Event()
        self.push: Callable[[], None] = lambda: None
        self._is_over = False
        if module.Query_thread() == module.THREAD_MULTIPLE:
            self._thread = threading.Thread(target=self._run, name="pyframe-mpi", daemon=True)
            self._thread.start()
            atexit.register(self._stop)  # before mpi4py ends MPI

    @contextmanager
    def over(self, what: str, seconds: float, at_most: float = 0.0) -> Iterator[None]:
        """Watch a collective, which is a ``with`` block.

        After so many seconds all ranks have to be in it; `at_most` is how long a network may take.
        """
        self._count += 1
        now = time.monotonic()
        self._seconds, self._until, self._end_of_patience = seconds, now + seconds, now + at_most
        self._what = what
        try:
            yield
        finally:
            self._until, self._what = math.inf, ""

    def _stop(self) -> None:
        self._is_over = True
        self.moving.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._is_over:
            if self.moving.wait(TICK):
                self.push()
                time.sleep(PUSH)
            self._answer()
            if self._what and time.monotonic() > self._until:
                self._call_the_roll()

    def _where(self) -> tuple[int, str]:
        """Return which collective this rank is at, and in words what it does."""
        count, what = self._count, self._what
        if what:
            return count, f"waits in {what} (collective {count})"
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        place = traceback.extract_stack(frame)[-1] if frame is not None else None
        at = f"{place.filename}:{place.lineno}, in {place.name}" if place is not None else "its end"
        return -count, f"is at {at}"

    def _answer(self) -> None:
        """Answer those that ask where this rank is."""
        status = self._module.Status()
        while self._comm.iprobe(tag=ASK, status=status):
            self._comm.recv(source=status.Get_source(), tag=ASK)
            self._comm.isend(self._where(), status.Get_source(), ANSWERED)

    def _call_the_roll(self) -> None:
        """Ask all ranks where they are, name those that are elsewhere, and end everything."""
        ours, what = self._where()
        others = [rank for rank in range(self._size) if rank != self._rank]
        asked = [self._comm.isend(None, rank, ASK) for rank in others]
        found: dict[int, tuple[int, str]] = {}
        end = time.monotonic() + ANSWER
        while len(found) < len(others) and time.monotonic() < end:
            self._answer()
            status = self._module.Status()
            while self._comm.iprobe(tag=ANSWERED, status=status):
                rank = status.Get_source()
                found[rank] = self._comm.recv(source=rank, tag=ANSWERED)
            time.sleep(TICK / 10)
        del asked
        if not self._what:
            return  # it has come after all
        late = [
            f"rank {rank} {found[rank][1] if rank in found else GONE}"
            for rank in others
            if rank not in found or found[rank][0] != ours
        ]
        if not late and time.monotonic() < self._end_of_patience:
            self._until = time.monotonic() + self._seconds  # much is under way
            return
        self._end(
            f"rank {self._rank} of {self._size} {what} in vain; "
            f"{'; '.join(late) or 'all are there, and MPI brings nothing through'}",
            LATE,
        )
