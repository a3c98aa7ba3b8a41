"""What a fit shows while it runs: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

import numpy as np

from pyframe.errors import raise_if_signalled

SECONDS_PER_LINE = 5.0  # where the output is no terminal
SECONDS_PER_BAR = 0.1


def describe_logs(logs: Mapping[str, Any]) -> str:
    """Return the numbers of some logs as text: ``loss 0.1234  mae 1.5``."""
    return "  ".join(f"{key} {float(v):.5g}" for key, v in logs.items() if np.ndim(v) == 0)


def say(text: str, file: TextIO | None) -> bool:
    """Write a line; return whether that worked: a fit does not end because nobody can read it."""
    try:
        print(text, file=file, flush=True)
    except (OSError, ValueError) as error:  # a broken pipe, a terminal that is gone, a closed file
        raise_if_signalled(error)
        return False
    return True


def _is_terminal(file: TextIO) -> bool:
    try:
        return file.isatty()
    except (OSError, ValueError) as error:  # it is closed
        raise_if_signalled(error)
        return False


def _has_size() -> bool:
    """Return whether the terminal says how large it is; with 0 x 0 the bar would not be seen."""
    try:
        return 0 not in os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError) as error:
        raise_if_signalled(error)
        return False


class Display:
    """A bar on a terminal, a line now and then elsewhere.

    Parameters
    ----------
    total : int
        What the bar counts up to.
    verbose : int
        0 keeps silent.
    **bar
        How tqdm shows it: the unit, and whether it is scaled.
    """

    def __init__(self, total: int, verbose: int, **bar: Any) -> None:
        self.silent = not verbose or sys.stderr is None
        self._began = time.perf_counter()
        self._next = self._began + SECONDS_PER_LINE
        self._bar: Any = None
        notebook = "ipykernel" in sys.modules
        if not self.silent and (notebook or _is_terminal(sys.stderr)):
            if notebook:  # tqdm finds out whether it can show its own bar there
                from tqdm.auto import tqdm  # type: ignore[import-untyped, unused-ignore]
            else:
                from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

            size = {} if _has_size() else {"ncols": 80, "nrows": 24}
            with self._quietly():
                self._bar = tqdm(
                    total=total,
                    delay=1e-9,  # nothing is drawn while it is made, which could fail
                    dynamic_ncols=not size,
                    bar_format="{desc}: {percentage:3.0f}%|{bar:10}| {rate_fmt}{postfix}",
                    file=sys.stderr,
                    **bar,
                    **size,
                )
            self._next = self._began

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Show nothing more once that has failed: the fit is worth more than its display."""
        try:
            yield
        except (OSError, ValueError) as error:  # as in `say`
            raise_if_signalled(error)
            self.silent = True
            if self._bar is not None:
                self._bar.disable = True  # or it would try once more when it is closed

    @property
    def due(self) -> bool:
        """Whether something is to be shown now; the numbers need not be worked out otherwise."""
        return not self.silent and time.perf_counter() >= self._next

    def _draw(self, description: str, done: float, numbers: str) -> None:
        """Show on the bar how much is done, with some words before and behind it."""
        self._next = time.perf_counter() + SECONDS_PER_BAR
        with self._quietly():
            self._bar.set_description_str(description, refresh=False)
            self._bar.set_postfix_str(numbers, refresh=False)
            self._bar.update(done - self._bar.n)

    def _say(self, describe: Callable[[float], str]) -> None:
        """Write a line, made from the seconds since the beginning."""
        now = time.perf_counter()
        self._next = now + SECONDS_PER_LINE
        self.silent = not say(describe(max(now - self._began, 1e-9)), sys.stderr)

    def _refresh(self) -> None:
        with self._quietly():
            self._bar.refresh()

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            with self._quietly():
                self._bar.close()


class Progress(Display):
    """Shows how far a fit is.

    Parameters
    ----------
    epochs, samples : int
        How many epochs, of how many rows.
    verbose : int
        0 keeps silent.
    """

    def __init__(self, epochs: int, samples: int, verbose: int) -> None:
        self.epochs, self.samples = epochs, samples
        super().__init__(epochs * samples, verbose, unit=" samples", unit_scale=True)

    def show(self, epoch: int, samples_done: int, logs: Mapping[str, Any]) -> None:
        """Show the state: finished epochs, finished rows, the last numbers."""
        if self._bar is not None:
            self._draw(f"epoch {epoch}/{self.epochs}", samples_done, describe_logs(logs))
        elif not self.silent:
            self._line(epoch, samples_done, logs, "")

    def finish(
        self, epoch: int, samples_done: int, logs: Mapping[str, Any], interrupted: bool
    ) -> None:
        """Show how it ended."""
        if self._bar is not None:
            self.show(epoch, samples_done, logs)
            self._refresh()
        elif not self.silent:
            self._line(epoch, samples_done, logs, "  interrupted" if interrupted else "")

    def _line(self, epoch: int, samples_done: int, logs: Mapping[str, Any], end: str) -> None:
        self._say(
            lambda seconds: (
                f"epoch {epoch}/{self.epochs}  {describe_logs(logs)}  "
                f"{samples_done / seconds:,.0f} samples/s  {seconds:.1f} s{end}"
            )
        )
