"""Callbacks that end a fit: when its time is over, or when its loss is no number."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar

from pyframe.callbacks.base import Callback, Logs, counted
from pyframe.errors import ArgumentError, check_number


class TimeLimit(Callback):
    """End a fit after some time, also in the middle of an epoch.

    A timer does it: the loop in C is not stopped for it, and ends at most 50 ms later. A fit that
    is resumed has the time that was left.

    Parameters
    ----------
    seconds, minutes, hours : float
        Together the time.

    Attributes
    ----------
    stopped : bool
        Whether the time of the last fit was over before the fit.

    Raises
    ------
    ArgumentError
        If that is not above 0, or beyond what a timer can wait for.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> limit = pf.callbacks.TimeLimit(0.2)
    >>> trainer = pf.Trainer(pf.Sequential([pf.layers.Dense(1)]))
    >>> _ = trainer.fit(np.ones((4, 2)), np.ones(4), 10**9, callbacks=[limit], verbose=0)
    >>> limit.stopped
    True
    """

    aliases: ClassVar[tuple[str, ...]] = ("timer",)
    _attributes: ClassVar[dict[str, str]] = dict.fromkeys(
        ["seconds", "minutes", "hours", "stopped"], ""
    )

    def __init__(self, seconds: float = 0.0, *, minutes: float = 0.0, hours: float = 0.0) -> None:
        self.seconds, self.minutes, self.hours = seconds, minutes, hours
        self.stopped = False
        self._timer: Any = None
        self._time()

    def _time(self) -> float:
        total = sum(
            check_number(name, getattr(self, name), at_least=0) * unit
            for name, unit in (("seconds", 1), ("minutes", 60), ("hours", 3600))
        )
        if not 0 < total <= threading.TIMEOUT_MAX:
            raise ArgumentError(
                f"a time limit of {total} s; it must be above 0 and at most "
                f"{threading.TIMEOUT_MAX:.0f} s: TimeLimit(minutes=10)"
            )
        return total

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_timer": None}  # a copy is in no fit

    def on_fit_start(self, trainer: Any) -> None:
        self.stopped = False
        self._begin(trainer, 0.0)

    def _begin(self, trainer: Any, spent: float) -> None:
        self.close()
        self._began = time.monotonic() - spent
        left = max(self._time() - spent, 0.0)
        self._timer = threading.Timer(left, self._end, [trainer])
        self._timer.daemon = True
        self._timer.start()

    def _end(self, trainer: Any) -> None:
        self.stopped = trainer.stop_training = True

    def close(self) -> None:
        """Stop the clock."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def training_state(self, trainer: Any) -> dict[str, Any]:
        return {"spent": time.monotonic() - self._began}

    def restore_training_state(self, trainer: Any, state: dict[str, Any]) -> None:
        self._begin(trainer, max(counted(state, "spent"), 0.0))


class TerminateOnNaN(Callback):
    """End a fit at the first loss that is NaN or infinite.

    A fit warns of such a loss in any case, once its epoch is over (`pyframe.DivergenceWarning`),
    and says where it comes from.

    Parameters
    ----------
    every : {"step", "epoch"}
        After what it looks. "step" stops the loop in C after every batch.

    Attributes
    ----------
    stopped_epoch : int or None

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> stop = pf.callbacks.TerminateOnNaN()
    >>> trainer = pf.Trainer(pf.Sequential([pf.layers.Dense(1)]), callbacks=[stop])
    >>> history = trainer.fit(np.ones((4, 2)), np.ones(4), 3, verbose=0)
    >>> stop.stopped_epoch is None
    True
    """

    _attributes: ClassVar[dict[str, str]] = dict.fromkeys(["every", "stopped_epoch"], "")
    _checks: ClassVar[dict[str, Callable[[Any], Any]]] = {"every": lambda given: check_every(given)}

    def __init__(self, every: str = "step") -> None:
        self.every = every
        self.stopped_epoch: int | None = None

    def listens_to(self, event: str) -> bool:
        """Return whether it looks at an event."""
        return super().listens_to(event) and (event != "on_batch_end" or self.every == "step")

    def on_fit_start(self, trainer: Any) -> None:
        self.stopped_epoch = None

    def on_batch_end(self, trainer: Any, step: int, logs: Logs) -> None:
        if not math.isfinite(logs["loss"]):
            self.stopped_epoch = trainer.epochs_done
            trainer.stop_training = True

    def on_epoch_end(self, trainer: Any, epoch: int, logs: Logs) -> None:
        if self.stopped_epoch is None and not math.isfinite(logs["loss"]):
            self.stopped_epoch = epoch
            trainer.stop_training = True


def check_every(every: Any) -> Any:
    """Return "epoch" or "step"."""
    if every not in ("epoch", "step"):
        raise ArgumentError(f"every={every!r}; use 'epoch' or 'step'")
    return every
