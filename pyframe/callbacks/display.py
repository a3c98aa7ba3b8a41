"""Progress shown by rich."""

from __future__ import annotations

import contextlib
import sys
from typing import Any, ClassVar

import numpy as np

from pyframe.callbacks.base import Callback, Logs
from pyframe.errors import raise_if_signalled, require_extra
from pyframe.training.history import History


class RichProgressBar(Callback):
    """Show how far a fit is as a bar of rich, with the numbers of the last epoch.

    The bar that a fit shows by itself, with tqdm, is left out then. Needs the extra ``rich``.

    Raises
    ------
    MissingExtraError
        From the fit, if rich is not installed.

    Examples
    --------
    >>> import pyframe as pf
    >>> bar = pf.callbacks.RichProgressBar()
    """

    aliases: ClassVar[tuple[str, ...]] = ("rich", "rich_progress")
    shows_progress: ClassVar[bool] = True
    once: ClassVar[bool] = True
    _attributes: ClassVar[dict[str, str]] = {}

    def __init__(self) -> None:
        self._bar: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_bar": None}  # a copy is in no fit

    def on_fit_start(self, trainer: Any) -> None:
        rich = require_extra("rich.progress", "rich")
        self.close()
        if sys.stderr is None:
            return
        console = require_extra("rich.console", "rich").Console(stderr=True)
        # Otherwise rich ends the process, from a thread of its own.
        console.on_broken_pipe = lambda: setattr(console, "quiet", True)
        bar = rich.Progress(
            rich.TextColumn("epoch {task.completed:.0f}/{task.total:.0f}"),
            rich.BarColumn(),
            rich.TimeElapsedColumn(),
            rich.TimeRemainingColumn(),
            rich.TextColumn("{task.fields[numbers]}"),
            console=console,
        )
        with self._quietly():
            bar.start()
            self._bar = bar
            total = trainer.epochs_asked
            self._task = bar.add_task("", total=total, numbers="", completed=trainer.history.epochs)

    @contextlib.contextmanager
    def _quietly(self) -> Any:
        """Show nothing any more once that fails: the fit is worth more than what is shown of it."""
        try:
            yield
        except (OSError, ValueError) as error:  # a broken pipe, a closed file
            raise_if_signalled(error)
            self._bar = None

    def on_epoch_end(self, trainer: Any, epoch: int, logs: Logs) -> None:
        if self._bar is not None:
            numbers = [f"{k} {float(v):.5g}" for k, v in logs.items() if np.ndim(v) == 0]
            with self._quietly():
                self._bar.update(
                    self._task, completed=trainer.history.epochs, numbers="  ".join(numbers)
                )

    def on_fit_end(self, trainer: Any, history: History) -> None:
        self.close()

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            with self._quietly():
                self._bar.stop()
            self._bar = None
