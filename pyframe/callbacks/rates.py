"""Callbacks that set the learning rate, or what is trained, from epoch to epoch."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, ClassVar

from pyframe.callbacks.base import Callback, Logs, counted
from pyframe.errors import ArgumentError, check_integer, check_number, raise_if_signalled
from pyframe.training.history import History


def rate_of(trainer: Any, who: Callback) -> float:
    """Return the optimizer's learning rate, which must be a number for a callback to set it."""
    optimizer = trainer.optimizer
    rate = optimizer.learning_rate
    if not optimizer.needs_gradients or not isinstance(rate, float):
        raise ArgumentError(
            f"{type(who).__name__} sets a learning rate that is a number; that of {optimizer!r} "
            "is none: use the one or the other"
        )
    return rate


class LearningRateScheduler(Callback):
    """Set the learning rate before each epoch, to what a function says.

    Schedules of steps, `pyframe.schedules`, do without a callback: ``Adam(Cosine(0.01, ...))``, or
    ``fit(schedule=...)``. The rate stays what it became when a fit has ended.

    Parameters
    ----------
    schedule : callable
        ``schedule(epoch)`` or ``schedule(epoch, rate)``, with the number of the epoch, from 0, and
        the present rate, returns the new one.

    Attributes
    ----------
    rates : list of float
        Those of the epochs of the last fit.

    Raises
    ------
    ArgumentError
        If it is not callable; from the fit, if it gives no rate, or the optimizer's own is no
        number.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> halve = pf.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2 if epoch else rate)
    >>> trainer = pf.Trainer(pf.Sequential([pf.layers.Dense(1)]), optimizer=pf.optimizers.SGD(0.4))
    >>> _ = trainer.fit(np.ones((4, 2)), np.ones(4), 3, callbacks=[halve], verbose=0)
    >>> halve.rates
    [0.4, 0.2, 0.1]
    """

    aliases: ClassVar[tuple[str, ...]] = ("lr_scheduler",)
    _attributes: ClassVar[dict[str, str]] = {"schedule": "", "rates": ""}

    def __init__(self, schedule: Callable[..., float]) -> None:
        if not callable(schedule):
            raise ArgumentError(f"schedule={schedule!r:.80}; pass a function of the epoch")
        self.schedule = schedule
        self.rates: list[float] = []

    def on_fit_start(self, trainer: Any) -> None:
        self.rates = []
        rate_of(trainer, self)
        try:  # classes of C have no signature
            self._takes_rate = len(inspect.signature(self.schedule).parameters) > 1
        except ValueError as error:
            raise_if_signalled(error)
            self._takes_rate = False

    def on_epoch_start(self, trainer: Any, epoch: int) -> None:
        before = rate_of(trainer, self)
        rate = self.schedule(epoch, before) if self._takes_rate else self.schedule(epoch)
        rate = check_number(f"the learning rate of epoch {epoch}", rate, at_least=0)
        trainer.optimizer.learning_rate = rate
        self.rates.append(rate)

    def training_state(self, trainer: Any) -> dict[str, Any]:
        return {"rates": list(self.rates), "learning_rate": rate_of(trainer, self)}

    def restore_training_state(self, trainer: Any, state: dict[str, Any]) -> None:
        self.rates = [check_number("a rate", rate, at_least=0) for rate in state["rates"]]
        trainer.optimizer.learning_rate = check_number(
            "learning_rate", state["learning_rate"], at_least=0
        )


class LearningRateFinder(Callback):
    """Find a learning rate for a fit before its first step, and train with it.

    What `Trainer.find_learning_rate` does, on the data of the fit: it trains for some steps on
    rates that rise, puts everything back, and suggests the rate at which the loss falls fastest.
    A fit that is resumed goes on with the rate that was found.

    Parameters
    ----------
    low, high : float, above 0
    steps : int, default 100

    Attributes
    ----------
    found : RateRange or None
        What the last fit has tried.
    learning_rate : float
        What was suggested; NaN if the loss fell nowhere, and the rate stayed.

    Raises
    ------
    ArgumentError
        From the fit, if a number makes no sense, or the optimizer's rate is no number.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> find = pf.callbacks.LearningRateFinder(high=10.0)
    >>> trainer = pf.Trainer(pf.Sequential([pf.layers.Dense(1)]), optimizer="sgd")
    >>> x = np.linspace(-1, 1, 64)
    >>> _ = trainer.fit(x, 3 * x + 1, 5, callbacks=[find], verbose=0)
    >>> trainer.optimizer.learning_rate == find.learning_rate
    True
    """

    aliases: ClassVar[tuple[str, ...]] = ("lr_finder", "learning_rate_range_test")
    _attributes: ClassVar[dict[str, str]] = dict.fromkeys(
        ["low", "high", "steps", "found", "learning_rate"], ""
    )

    def __init__(self, low: float = 1e-6, high: float = 1.0, steps: int = 100) -> None:
        self.low, self.high, self.steps = low, high, steps
        self.found: Any = None
        self.learning_rate = math.nan

    def on_fit_start(self, trainer: Any) -> None:
        rate_of(trainer, self)
        self.found, self.learning_rate, self._is_done = None, math.nan, False

    def on_epoch_start(self, trainer: Any, epoch: int) -> None:
        if self._is_done:
            return
        self.found = trainer.find_learning_rate(low=self.low, high=self.high, steps=self.steps)
        self._is_done, self.learning_rate = True, self.found.suggestion
        if math.isfinite(self.learning_rate):
            trainer.optimizer.learning_rate = self.learning_rate

    def training_state(self, trainer: Any) -> dict[str, Any]:
        rate = rate_of(trainer, self)
        return {"done": self._is_done, "suggestion": self.learning_rate, "learning_rate": rate}

    def restore_training_state(self, trainer: Any, state: dict[str, Any]) -> None:
        self._is_done, self.learning_rate = bool(state["done"]), counted(state, "suggestion")
        trainer.optimizer.learning_rate = check_number(
            "learning_rate", state["learning_rate"], at_least=0
        )


class GradualUnfreezing(Callback):
    """Train the last layers first, and from time to time one layer more.

    Layers that wait keep their weights, and their statistics, to the bit: those are put back after
    each step, which also computes their gradients. It saves no time; `Layer.trainable`, set between
    two fits, does.

    Parameters
    ----------
    every : int, default 1
        How many epochs pass before one more layer is trained.
    first : int, default 1
        How many layers are trained from the beginning; those without parameters do not count.

    Attributes
    ----------
    trained : int
        How many layers have been trained in the last epoch.

    Raises
    ------
    ArgumentError
        If a number makes no sense.

    References
    ----------
    Howard, Ruder, "Universal language model fine-tuning for text classification", 2018, section
    3.3.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> thaw = pf.callbacks.GradualUnfreezing(every=2)
    >>> model = pf.Sequential([pf.layers.Dense(4), pf.layers.Dense(1)], input_shape=(2,))
    >>> before = model.layers[0].weight.value.copy()
    >>> trainer = pf.Trainer(model, callbacks=[thaw])
    >>> _ = trainer.fit(np.ones((4, 2)), np.ones(4), 2, verbose=0)
    >>> bool((model.layers[0].weight.value == before).all())
    True
    >>> _ = trainer.fit(np.ones((4, 2)), np.ones(4), 3, verbose=0)
    >>> thaw.trained, bool((model.layers[0].weight.value == before).all())
    (2, False)
    """

    aliases: ClassVar[tuple[str, ...]] = ("base_finetuning", "backbone_finetuning", "freezer")
    _attributes: ClassVar[dict[str, str]] = {"every": "", "first": "", "trained": ""}
    _checks: ClassVar[dict[str, Callable[[Any], Any]]] = {
        "every": lambda given: check_integer("every", given, at_least=1),
        "first": lambda given: check_integer("first", given, at_least=1),
    }

    def __init__(self, every: int = 1, first: int = 1) -> None:
        self.every, self.first = every, first
        self.trained = 0
        self._kept: list[tuple[Any, Any]] = []

    def on_fit_start(self, trainer: Any) -> None:
        self._epochs = 0
        self._layers = [x for x in trainer.model.layers if x.parameters]
        self._freeze()

    def _freeze(self) -> None:
        self.trained = min(self.first + self._epochs // self.every, len(self._layers))
        last = {p for x in self._layers[-self.trained :] for p in (*x.parameters, *x.states)}
        waiting = self._layers[: len(self._layers) - self.trained]
        held = [p for x in waiting for p in (*x.parameters, *x.states) if p not in last]
        self._kept = [(p, p.value.copy()) for p in held]

    def on_batch_end(self, trainer: Any, step: int, logs: Logs) -> None:
        for parameter, value in self._kept:
            parameter.value = value

    def on_epoch_end(self, trainer: Any, epoch: int, logs: Logs) -> None:
        self._epochs += 1

    def on_epoch_start(self, trainer: Any, epoch: int) -> None:
        if self._kept:
            self._freeze()

    def on_fit_end(self, trainer: Any, history: History) -> None:
        self._kept = []

    def training_state(self, trainer: Any) -> dict[str, Any]:
        return {"epochs": self._epochs}

    def restore_training_state(self, trainer: Any, state: dict[str, Any]) -> None:
        self._epochs = check_integer("epochs", state["epochs"], at_least=0)
        self._freeze()
