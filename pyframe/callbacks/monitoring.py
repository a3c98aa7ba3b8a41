"""Callbacks that follow a number of the logs: when it gets no better, they stop or slow down."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping
from typing import Any, ClassVar

import numpy as np

from pyframe.attributes import optional, whole
from pyframe.callbacks.base import Callback, FittingTrainer, Logs, counted
from pyframe.callbacks.rates import rate_of
from pyframe.engine.placement import views
from pyframe.errors import ArgumentError, check_integer, check_number
from pyframe.native.guards import hold_all
from pyframe.training.history import History


class Monitor(Callback):
    """What follows one number of the logs and knows when it was best."""

    _attributes: ClassVar[dict[str, str]] = dict.fromkeys(["monitor", "mode", "best", "rises"], "")

    def __init__(self, monitor: str, mode: str) -> None:
        self.monitor, self.mode = monitor, mode
        self.best = math.nan
        self.rises = self._rises()

    def _rises(self) -> bool:
        if self.mode not in ("min", "max", "auto"):
            raise ArgumentError(f"mode={self.mode!r}; use 'min', 'max' or 'auto'")
        return self.mode == "max"

    def on_fit_start(self, trainer: Any) -> None:
        self.best, self.rises = math.nan, self._rises()
        names = trainer.log_names
        if self.monitors and self._key(names) not in names:
            raise ArgumentError(
                f"{type(self).__name__}: there is no number {self.monitor!r} to monitor; "
                f"there is {', '.join(names)}"
            )
        if self.monitors and self.mode == "auto":
            rises = trainer.higher_is_better(self._key(names))
            if rises is None:
                raise ArgumentError(
                    f"{type(self).__name__}: {self.monitor!r} does not say whether more of it is "
                    "better; pass mode='max' or mode='min', or give its metric the attribute "
                    "higher_is_better, True or False"
                )
            self.rises = rises

    @property
    def monitors(self) -> bool:
        """Whether a number of the logs is followed."""
        return True

    def _key(self, names: Container[str]) -> str:
        return "loss" if self.monitor == "val_loss" and "val_loss" not in names else self.monitor

    def training_state(self, trainer: Any) -> dict[str, Any]:
        return {"best": self.best}

    def restore_training_state(self, trainer: Any, state: dict[str, Any]) -> None:
        self.best = counted(state, "best")

    def monitored(self, logs: Mapping[str, Any]) -> float:
        """Return the number that is followed: ``val_loss`` means loss if nothing is validated."""
        key = self._key(logs)
        if key not in logs or np.ndim(logs[key]) > 0:
            numbers = [name for name, value in logs.items() if np.ndim(value) == 0]
            raise ArgumentError(
                f"{type(self).__name__}: there is no number {self.monitor!r} to monitor; "
                f"there is {', '.join(numbers)}"
            )
        return float(logs[key])

    def improves(self, value: float, min_delta: float = 0.0) -> bool:
        """Return whether a value is better than the best so far by more than min_delta."""
        gain = value - self.best if self.rises else self.best - value
        return not math.isnan(value) and (math.isnan(self.best) or gain > min_delta)


class EarlyStopping(Monitor):
    """Stop when nothing gets better any more, or when nothing changes any more.

    Without `tol` a fit stops once the monitored value has not improved for `patience` epochs.
    With `tol` it stops once the value has changed by at most `tol` from one epoch to the next,
    `patience` times in a row: the lesson's "until nothing changes any more".

    Parameters
    ----------
    monitor : str, default "val_loss"
        A name in the logs; ``val_loss`` means ``loss`` when there is no validation. With `tol` it
        may be ``"parameters"``: then the change is the largest absolute one of any element of any
        trained parameter.
    patience : int, default 10
    min_delta : float, default 0.0
        Only more than this counts as an improvement.
    restore_best : bool, default True
        At the end, set parameters, states and the optimizer's memory back to the best epoch. Not
        done when ``"parameters"`` is monitored.
    mode : {"auto", "min", "max"}
        Auto: losses are to fall, and a metric says whether it is to rise, as accuracy does, or to
        fall (`higher_is_better`). One that does not say needs "min" or "max".
    tol : float, optional

    Attributes
    ----------
    best : float
    best_epoch, stopped_epoch : int or None

    Raises
    ------
    ArgumentError
        If an argument makes no sense, or what is monitored does not exist.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> stop = pf.callbacks.EarlyStopping("loss", patience=3, tol=1e-6)
    >>> trainer = pf.Trainer(pf.Sequential([pf.layers.Dense(1)]), optimizer="sgd")
    >>> x = np.linspace(-1, 1, 20)
    >>> history = trainer.fit(x, 3 * x + 1, 10_000, None, callbacks=[stop], verbose=0)
    >>> history.epochs < 10_000
    True
    """

    _attributes: ClassVar[dict[str, str]] = {
        **Monitor._attributes,
        **dict.fromkeys(["patience", "min_delta", "restore_best", "tol"], ""),
        **dict.fromkeys(["best_epoch", "stopped_epoch"], ""),
    }
    _checks: ClassVar[dict[str, Callable[[Any], Any]]] = {
        "patience": lambda given: check_integer("patience", given, at_least=1),
        "min_delta": lambda given: check_number("min_delta", given, at_least=0),
        "tol": lambda given: None if given is None else check_number("tol", given, at_least=0),
    }

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 10,
        min_delta: float = 0.0,
        restore_best: bool = True,
        mode: str = "auto",
        tol: float | None = None,
    ) -> None:
        super().__init__(monitor, mode)
        self.patience = patience
        self.min_delta = min_delta
        self.tol = tol
        if self.by_parameters and tol is None:
            raise ArgumentError("EarlyStopping: monitoring 'parameters' needs tol=")
        self.restore_best = restore_best
        self.best_epoch: int | None = None
        self.stopped_epoch: int | None = None

    def on_fit_start(self, trainer: Any) -> None:
        super().on_fit_start(trainer)
        self.best_epoch = self.stopped_epoch = None
        self._waited = 0
        self._snapshot: Any = None
        self._last = math.nan
        self._weights = self._trained(trainer) if self.by_parameters else []

    @property
    def by_parameters(self) -> bool:
        """Whether the parameters themselves are followed."""
        return self.monitor == "parameters"

    def on_epoch_end(self, trainer: Any, epoch: int, logs: Logs) -> None:
        if self.by_parameters:
            still = self._parameter_change(trainer) <= (self.tol or 0.0)
        else:
            value = self.monitored(logs)
            improved = self.improves(value, self.min_delta)
            if improved:
                self.best, self.best_epoch = value, epoch
                if self.restore_best:
                    self._snapshot = trainer.plan.snapshot()
            still = not improved
            if self.tol is not None:
                still = abs(value - self._last) <= self.tol
            self._last = value
        self._waited = self._waited + 1 if still else 0
        if self._waited >= self.patience:
            self.stopped_epoch = epoch
            trainer.stop_training = True

    def on_fit_end(self, trainer: Any, history: History) -> None:
        if self._snapshot is not None and history.epochs and self.best_epoch is not None:
            trainer.plan.restore(self._snapshot)
        self._snapshot = None
        self._weights = []

    @property
    def monitors(self) -> bool:
        """Whether a number of the logs is followed."""
        return not self.by_parameters

    def training_state(self, trainer: Any) -> dict[str, Any]:
        kept = self._snapshot
        snapshot = None
        if kept is not None:
            snapshot = {"arrays": trainer.plan.named(kept), "step": kept.step}
        return {
            **super().training_state(trainer),
            "best_epoch": self.best_epoch,
            "stopped_epoch": self.stopped_epoch,
            "waited": self._waited,
            "last": self._last,
            "snapshot": snapshot,
        }

    def restore_training_state(self, trainer: Any, state: dict[str, Any]) -> None:
        super().restore_training_state(trainer, state)
        epoch = optional(whole(at_least=0))
        self.best_epoch = epoch(state["best_epoch"], "best_epoch")
        self.stopped_epoch = epoch(state["stopped_epoch"], "stopped_epoch")
        self._waited = check_integer("waited", state["waited"], at_least=0)
        self._last = counted(state, "last")
        if state["snapshot"] is not None:
            arrays = state["snapshot"]["arrays"]
            step = check_integer("step", state["snapshot"]["step"], at_least=0, at_most=2**48)
            self._snapshot = trainer.plan.snapshot()._replace(step=step)
            trainer.plan.engine.set_named(self._snapshot, arrays)

    @staticmethod
    def _trained(trainer: FittingTrainer) -> list[Any]:
        values, guards = views(p for p in trainer.model.parameters if p.trainable)
        with hold_all(guards):
            return [value.copy() for value in values.values()]

    def _parameter_change(self, trainer: FittingTrainer) -> float:
        before, self._weights = self._weights, self._trained(trainer)
        changes = [
            float(np.max(np.abs(new - old), initial=0.0))
            for new, old in zip(self._weights, before, strict=True)
        ]
        return max(changes, default=0.0)


class ReduceLROnPlateau(Monitor):
    """Lower the optimizer's learning rate when nothing gets better any more.

    Once the monitored value has not improved for `patience` epochs, the rate becomes
    ``max(rate * factor, min_learning_rate)``. Then `cooldown` epochs pass before any are counted
    again. The rate stays what it became: a second fit goes on with it, while its counting, and
    what is the best, begin anew. A fit that is resumed goes on with both.

    Parameters
    ----------
    monitor : str, default "val_loss"
        As for `EarlyStopping`.
    factor : float in (0, 1), default 0.1
    patience : int, default 10
    min_delta : float, default 1e-4
        Only more than this counts as an improvement.
    cooldown : int, default 0
    min_learning_rate : float, default 0.0
    mode : {"auto", "min", "max"}
        As for `EarlyStopping`.

    Attributes
    ----------
    best : float
    reductions : list of int
        The epochs of the last fit after which the rate was lowered.

    Raises
    ------
    ArgumentError
        If an argument makes no sense; from the beginning of the fit, if what is monitored does not
        exist, or the rate is not the optimizer's own number but follows a schedule.

    References
    ----------
    As in PyTorch and Keras; the idea is in Krizhevsky, Sutskever, Hinton, "ImageNet classification
    with deep convolutional neural networks", 2012, section 5.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> lower = pf.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=2)
    >>> trainer = pf.Trainer(pf.Sequential([pf.layers.Dense(1)]), optimizer="sgd")
    >>> x = np.linspace(-1, 1, 20)
    >>> _ = trainer.fit(x, 3 * x + 1, 2_000, None, callbacks=[lower], verbose=0)
    >>> trainer.optimizer.learning_rate < 0.01
    True
    """

    _attributes: ClassVar[dict[str, str]] = {
        **Monitor._attributes,
        **dict.fromkeys(["factor", "patience", "min_delta", "cooldown"], ""),
        **dict.fromkeys(["min_learning_rate", "reductions"], ""),
    }
    _checks: ClassVar[dict[str, Callable[[Any], Any]]] = {
        "factor": lambda given: check_number("factor", given, above=0, below=1),
        "patience": lambda given: check_integer("patience", given, at_least=1),
        "min_delta": lambda given: check_number("min_delta", given, at_least=0),
        "cooldown": lambda given: check_integer("cooldown", given, at_least=0),
        "min_learning_rate": lambda given: check_number("min_learning_rate", given, at_least=0),
    }

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_learning_rate: float = 0.0,
        mode: str = "auto",
    ) -> None:
        super().__init__(monitor, mode)
        self.factor, self.patience, self.min_delta = factor, patience, min_delta
        self.cooldown, self.min_learning_rate = cooldown, min_learning_rate
        self.reductions: list[int] = []

    def on_fit_start(self, trainer: Any) -> None:
        super().on_fit_start(trainer)
        self.reductions = []
        self._waited = self._cooling = 0
        rate_of(trainer, self)

    def on_epoch_end(self, trainer: Any, epoch: int, logs: Logs) -> None:
        value = self.monitored(logs)
        if self.improves(value, self.min_delta):
            self.best, self._waited = value, 0
        elif self._cooling == 0:
            self._waited += 1
        self._cooling = max(self._cooling - 1, 0)
        if self._waited < self.patience:
            return
        self._waited, self._cooling = 0, self.cooldown
        rate = rate_of(trainer, self)
        lower = max(rate * self.factor, self.min_learning_rate)
        if lower < rate:
            trainer.optimizer.learning_rate = lower
            self.reductions.append(epoch)

    def training_state(self, trainer: Any) -> dict[str, Any]:
        return {
            **super().training_state(trainer),
            "waited": self._waited,
            "cooling": self._cooling,
            "reductions": list(self.reductions),
            "learning_rate": rate_of(trainer, self),
        }

    def restore_training_state(self, trainer: Any, state: dict[str, Any]) -> None:
        super().restore_training_state(trainer, state)
        self._waited = check_integer("waited", state["waited"], at_least=0)
        self._cooling = check_integer("cooling", state["cooling"], at_least=0)
        self.reductions = [check_integer("an epoch", e, at_least=0) for e in state["reductions"]]
        trainer.optimizer.learning_rate = check_number(
            "learning_rate", state["learning_rate"], at_least=0
        )
