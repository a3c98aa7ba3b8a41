"""What fits that run side by side have in common: whether they are to stop, and what they show."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from pyframe.training.progress import SECONDS_PER_BAR, Display, Progress


class Board(Display):
    """Shows how far many fits are, on one bar.

    Fits report from threads of their own, and one thread shows what they have reported.

    Parameters
    ----------
    fits : int
    verbose : int
        0 keeps silent.

    Attributes
    ----------
    done : int
        Finished fits.
    parts : list of Part
        The fits that are under way.
    """

    def __init__(self, fits: int, verbose: int) -> None:
        self.fits, self.done = fits, 0
        self.parts: list[Part] = []
        self._shown = 0.0  # never less than before, whatever a fit reports
        super().__init__(fits, verbose, unit=" fits")

    def show(self, end: str = "") -> None:
        """Show how many fits are done, and on a bar the parts of the others too."""
        description = f"{self.done}/{self.fits} fits"
        if self._bar is not None:
            reached = self.done + sum(part.fraction for part in list(self.parts))
            self._shown = min(max(self._shown, reached), self.fits)
            self._draw(description, self._shown, end)
        elif not self.silent:
            self._say(lambda seconds: f"{description}  {seconds:.1f} s{end}")

    def finish(self, interrupted: bool) -> None:
        """Show how it ended."""
        self.show("  interrupted" if interrupted else "")
        if self._bar is not None:
            self._refresh()


class Part:
    """One of the fits on a board, which reports to it as it would to a `Progress` of its own."""

    def __init__(self, board: Board, total: int) -> None:
        self._board, self._total = board, total
        self._next = 0.0
        self.fraction = 0.0
        board.parts.append(self)

    @property
    def due(self) -> bool:
        """Whether a report is wanted now."""
        return not self._board.silent and time.perf_counter() >= self._next

    def show(self, epoch: int, samples_done: int, logs: Mapping[str, Any]) -> None:
        """Report how much is done."""
        self._next = time.perf_counter() + SECONDS_PER_BAR
        self.fraction = samples_done / self._total if self._total else 0.0

    def finish(
        self, epoch: int, samples_done: int, logs: Mapping[str, Any], interrupted: bool
    ) -> None:
        """Report the end, which the thread that runs the fit tells of by itself."""

    def close(self) -> None:
        """Leave the board."""
        self._board.parts.remove(self)


class Company:
    """Fits that run side by side, each in a thread of its own.

    Attributes
    ----------
    stopped : bool
        Whether all are to stop. Each checks it where it would check for Ctrl-C, which reaches the
        main thread alone.
    board : Board or None
        What they report to; None: each shows how far it is by itself.
    """

    def __init__(self, board: Board | None = None) -> None:
        self.stopped, self.board = False, board

    def enter(self) -> None:
        """Have the fits of the present context belong to this company, from now on."""
        _company.set(self)

    def progress(self, epochs: int, samples: int, verbose: int) -> Progress | Part:
        """Return what a fit of some epochs over some rows reports to."""
        if self.board is None:
            return Progress(epochs, samples, verbose)
        return Part(self.board, epochs * samples)


_company: ContextVar[Company] = ContextVar("pyframe_company", default=Company())  # noqa: B039


def company() -> Company:
    """Return the company of the fits of this context; that of a single fit never stops."""
    return _company.get()


def stop_with_company() -> None:
    """Raise `KeyboardInterrupt` if the fits of this context are to stop, as Ctrl-C does of one."""
    if company().stopped:
        raise KeyboardInterrupt
