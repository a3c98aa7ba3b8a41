"""When the fit of a network has converged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pyframe.callbacks import Callback

LEARNED = 0.99  # of the first loss: below it something was learned


class Convergence(Callback):
    """Stops a fit whose loss has fallen by no more than `tol` in each of some epochs.

    Of numbers, whose loss has a unit, `tol` is a part of the loss. With `restores` the fit ends
    where the loss was least: steps of a great rate end anywhere.
    """

    def __init__(self, tol: float, patience: int, relative: bool, restores: bool) -> None:
        self.tol, self.patience, self.relative, self.restores = tol, patience, relative, restores

    def on_fit_start(self, trainer: Any) -> None:
        self.best, self.waited = np.inf, 0
        self.first: float | None = None
        self.snapshot: Any = None

    def on_epoch_end(self, trainer: Any, epoch: int, logs: Mapping[str, Any]) -> None:
        loss = logs["loss"]
        least = self.tol * min(abs(self.best), 1e300) if self.relative else self.tol
        self.waited = self.waited + 1 if loss > self.best - least else 0
        if loss < self.best:
            self.best = loss
            self.snapshot = trainer.plan.snapshot() if self.restores else None
        self.first = loss if self.first is None else self.first
        if self.waited >= self.patience:
            trainer.stop_training = True

    def has_learned(self) -> bool:
        """Return whether the loss, of numbers, has fallen at all worth mentioning."""
        return not self.relative or self.first is None or self.best < LEARNED * self.first

    def on_fit_end(self, trainer: Any, history: Any) -> None:
        if self.snapshot is not None:
            trainer.plan.restore(self.snapshot)
        self.snapshot = None
