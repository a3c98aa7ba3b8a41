"""Callbacks: what a `Trainer` calls between epochs and batches.

The same events are hooks for plugins: ``pyframe_fit_start``, ``pyframe_epoch_end`` and
``pyframe_fit_end``. Epochs of a fit in which nobody asks to be called run in C without a stop.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Container, Mapping
from typing import Any, ClassVar, Protocol

import numpy as np

from pyframe.attributes import optional, whole
from pyframe.engine.placement import views
from pyframe.engine.plan import Plan
from pyframe.engine.state import Average, TrainState
from pyframe.errors import (
    ArgumentError,
    check_flag,
    check_integer,
    check_number,
    raise_if_signalled,
)
from pyframe.hookspecs import hookimpl
from pyframe.model import Model
from pyframe.native.guards import hold_all
from pyframe.plugins.registry import registries
from pyframe.strict import FixedDict, Strict
from pyframe.training.history import History

Logs = dict[str, Any]

EVENTS = ("on_fit_start", "on_epoch_start", "on_epoch_end", "on_batch_end", "on_fit_end")


class FittingTrainer(Protocol):
    """What the callbacks here use of the `pyframe.Trainer` that calls them, which is one."""

    stop_training: bool

    @property
    def model(self) -> Model:
        """What is trained."""

    @property
    def plan(self) -> Plan:
        """What the fit runs on."""

    @property
    def log_names(self) -> list[str]:
        """The names in the logs of the fit."""

    def higher_is_better(self, name: str) -> bool | None:
        """Return whether more is better of a number in the logs; None if it does not say."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model and the state of its training to one file."""


class Callback(Strict):
    """The base of all callbacks; override what you want to hear of.

    What it is given as `trainer` is the `pyframe.Trainer` that calls it. It may set
    ``trainer.stop_training = True``, read and set the model's weights, predict and evaluate, but
    not fit. An exception that it raises ends the fit and comes out of it.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> class Bell(pf.callbacks.Callback):
    ...     def on_fit_end(self, trainer, history):
    ...         print("done after", history.epochs)
    >>> trainer = pf.Trainer(pf.Sequential([pf.layers.Dense(1)]))
    >>> _ = trainer.fit(np.ones((4, 2)), np.ones(4), 3, None, callbacks=[Bell()], verbose=0)
    done after 3
    """

    _attributes: ClassVar[dict[str, str]] = {}

    def on_fit_start(self, trainer: Any) -> None:
        """Before the first step; nothing has changed yet."""

    def on_epoch_start(self, trainer: Any, epoch: int) -> None:
        """Before each epoch."""

    def on_epoch_end(self, trainer: Any, epoch: int, logs: Logs) -> None:
        """After each epoch, with its losses and metrics; those of validation are ``val_...``."""

    def on_batch_end(self, trainer: Any, step: int, logs: Logs) -> None:
        """After each step, with its number and ``{"loss": ...}``."""

    def on_fit_end(self, trainer: Any, history: History) -> None:
        """At the end, also of an interrupted fit; not after an exception."""

    def training_state(self, trainer: Any) -> dict[str, Any]:
        """Return what this has counted in the fit under way: numbers, texts, arrays, dicts.

        Override both methods in a callback that remembers one epoch in the next: then a fit that
        is resumed from a file (`Trainer.save`) goes on as if it had never stopped.
        """
        return {}

    def restore_training_state(self, trainer: Any, state: dict[str, Any]) -> None:
        """Take back what `training_state` has returned; called after `on_fit_start`."""


def listens(callback: Callback, event: str) -> bool:
    """Return whether a callback does anything at an event."""
    if isinstance(callback, LambdaCallback) and event not in vars(callback):
        return event in callback.functions
    # Of the object, which may have been given a function of its own.
    method = getattr(callback, event)
    return getattr(method, "__func__", method) is not getattr(Callback, event)


def _counted(state: Mapping[str, Any], key: str) -> float:
    """Return a number that a file holds of a callback; it may be NaN or infinite."""
    value = state[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ArgumentError(f"{key} is {value!r:.80}; it must be a number")
    return float(value)


def get(callback: Any) -> Callback:
    """Return a callback for an instance, a class or a registered name.

    Raises
    ------
    UnknownNameError
        If the name is not registered.
    ArgumentError
        If it is no callback.
    """
    if isinstance(callback, str):
        callback = registries["callbacks"].get(callback)
    if isinstance(callback, type):
        try:
            callback = callback()
        except TypeError as error:
            raise_if_signalled(error)
            raise ArgumentError(f"callback {callback.__name__} needs arguments: {error}") from error
    if not isinstance(callback, Callback):
        raise ArgumentError(
            f"{callback!r} is no callback; derive its class from pyframe.callbacks.Callback, or "
            "wrap functions with LambdaCallback"
        )
    return callback


class LambdaCallback(Callback):
    """Functions as a callback.

    Parameters
    ----------
    **functions : callable
        By the name of the event: ``on_epoch_end=lambda trainer, epoch, logs: ...``.

    Raises
    ------
    ArgumentError
        If there is no such event.

    Examples
    --------
    >>> import pyframe as pf
    >>> stop = pf.callbacks.LambdaCallback(
    ...     on_epoch_end=lambda trainer, epoch, logs: setattr(trainer, "stop_training", True)
    ... )
    """

    _attributes: ClassVar[dict[str, str]] = {
        "functions": "make a new LambdaCallback, or set the event itself"
    }

    def __init__(self, **functions: Callable[..., Any]) -> None:
        for event, function in functions.items():
            if event not in EVENTS:
                raise ArgumentError(f"there is no event {event!r}; there are {', '.join(EVENTS)}")
            if not callable(function):
                raise ArgumentError(f"{event}={function!r} is not callable")
        self.functions = FixedDict(functions, self._attributes["functions"])

    def _tell(self, event: str, *arguments: Any) -> None:
        if event in self.functions:
            self.functions[event](*arguments)

    def on_fit_start(self, trainer: Any) -> None:
        self._tell("on_fit_start", trainer)

    def on_epoch_start(self, trainer: Any, epoch: int) -> None:
        self._tell("on_epoch_start", trainer, epoch)

    def on_epoch_end(self, trainer: Any, epoch: int, logs: Logs) -> None:
        self._tell("on_epoch_end", trainer, epoch, logs)

    def on_batch_end(self, trainer: Any, step: int, logs: Logs) -> None:
        self._tell("on_batch_end", trainer, step, logs)

    def on_fit_end(self, trainer: Any, history: History) -> None:
        self._tell("on_fit_end", trainer, history)


class _Monitor(Callback):
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
        self.best = _counted(state, "best")

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


class EarlyStopping(_Monitor):
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
        **_Monitor._attributes,
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
        self._last = _counted(state, "last")
        if state["snapshot"] is not None:
            arrays = state["snapshot"]["arrays"]
            step = check_integer("step", state["snapshot"]["step"], at_least=0, at_most=2**48)
            self._snapshot = trainer.plan.snapshot()._replace(step=step)
            for key, array in trainer.plan.named(self._snapshot).items():
                array[...] = arrays[key]

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


class ReduceLROnPlateau(_Monitor):
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
        **_Monitor._attributes,
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
        self._rate(trainer)

    def _rate(self, trainer: Any) -> float:
        """Return the optimizer's learning rate, which must be a number."""
        optimizer = trainer.optimizer
        rate = optimizer.learning_rate
        if not optimizer.needs_gradients or not isinstance(rate, float):
            raise ArgumentError(
                f"ReduceLROnPlateau lowers a learning rate that is a number; that of {optimizer!r} "
                "is none: use the one or the other"
            )
        return rate

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
        rate = self._rate(trainer)
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
            "learning_rate": self._rate(trainer),
        }

    def restore_training_state(self, trainer: Any, state: dict[str, Any]) -> None:
        super().restore_training_state(trainer, state)
        self._waited = check_integer("waited", state["waited"], at_least=0)
        self._cooling = check_integer("cooling", state["cooling"], at_least=0)
        self.reductions = [check_integer("an epoch", e, at_least=0) for e in state["reductions"]]
        trainer.optimizer.learning_rate = check_number(
            "learning_rate", state["learning_rate"], at_least=0
        )


class WeightAverage(Callback):
    """Average the weights of the epochs, and leave the model with the average at the end.

    With p the weights after an epoch, and the average a, at first p, over n epochs before this::

        a = a + (p - a) / (n + 1)             decay None: all epochs alike
        a = decay a + (1 - decay) p           an exponential moving average

    Training goes on from the weights themselves; a fit that is resumed averages on. States, such as
    the statistics of `BatchNorm`, are averaged as well. An average is left as it is: that of
    weights of `UnitNorm` is shorter than 1.

    Parameters
    ----------
    decay : float in [0, 1), optional
        None is stochastic weight averaging.
    start_epoch : int, default 0
        The first epoch of a fit that counts, from 0: averaging begins when training has settled.
    every : {"epoch", "step"}
        After what the average is updated. Steps do it in C, and one whose update was skipped does
        not count.
    apply : bool, default True
        Whether the model has the average when a fit has ended; otherwise read `average`.

    Attributes
    ----------
    average : dict of str to ndarray
        By the names that `Model.get_weights` gives; empty before anything has counted.
    count : int
        How many weights are in the average.

    Raises
    ------
    ArgumentError
        If an argument makes no sense.

    References
    ----------
    Izmailov et al., "Averaging weights leads to wider optima and better generalization", 2018,
    algorithm 1. With a decay: Polyak, Juditsky, "Acceleration of stochastic approximation by
    averaging", 1992, in the form of Tarvainen, Valpola, "Mean teachers", 2017, section 2.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> average = pf.callbacks.WeightAverage(start_epoch=50)
    >>> trainer = pf.Trainer(pf.Sequential([pf.layers.Dense(1)]), optimizer="sgd")
    >>> x = np.linspace(-1, 1, 40)
    >>> _ = trainer.fit(x, 3 * x + 1, 100, 8, callbacks=[average], verbose=0)
    >>> average.count
    50
    """

    _attributes: ClassVar[dict[str, str]] = {
        **dict.fromkeys(["decay", "start_epoch", "apply"], ""),
        "every": "make a new WeightAverage",
    }
    _checks: ClassVar[dict[str, Callable[[Any], Any]]] = {
        "decay": lambda given: (
            None if given is None else check_number("decay", given, at_least=0, below=1)
        ),
        "start_epoch": lambda given: check_integer("start_epoch", given, at_least=0),
        "apply": lambda given: check_flag("apply", given),
    }

    def __init__(
        self,
        decay: float | None = None,
        start_epoch: int = 0,
        every: str = "epoch",
        apply: bool = True,
    ) -> None:
        if every not in ("epoch", "step"):
            raise ArgumentError(f"every={every!r}; use 'epoch' or 'step'")
        self.decay, self.start_epoch, self.every, self.apply = decay, start_epoch, every, apply
        self._average: dict[str, Any] = {}
        self._count = self._epochs = 0
        # What the steps of a fit that is under way add to, and the model whose weights it is of.
        self._live: tuple[Average, Model] | None = None
        self._begun: Average | None = None

    @property
    def average(self) -> dict[str, Any]:
        """By the names that `Model.get_weights` gives; empty before anything has counted."""
        if self._live is None:
            return self._average
        average, model = self._live
        if average.count <= 0:
            return {}
        names, leaves = model.graph.names, [*model.parameters, *model.states]
        return {names[p]: average.of(p).copy() for p in leaves}

    @property
    def count(self) -> int:
        """How many weights are in the average."""
        return max(self._count if self._live is None else self._live[0].count, 0)

    def __getstate__(self) -> dict[str, Any]:
        own = {"_average": self.average, "_count": self.count, "_live": None, "_begun": None}
        return {**vars(self), **own}

    def begin(self, state: TrainState, steps: int) -> Average:
        """Return what each step of a fit that begins adds to; of so many steps is an epoch."""
        self._begun = state.average(self.decay)
        self._begun.count = -self.start_epoch * steps
        return self._begun

    def on_fit_start(self, trainer: Any) -> None:
        self._average, self._count, self._epochs, self._live = {}, 0, 0, None
        if self._begun is not None:
            self._live, self._begun = (self._begun, trainer.model), None

    def on_epoch_end(self, trainer: Any, epoch: int, logs: Logs) -> None:
        if self.every == "epoch" and self._epochs >= self.start_epoch:
            self._add(trainer)
        self._epochs += 1

    def _add(self, trainer: Any) -> None:
        weights = trainer.model.get_weights()
        if not self._count:
            self._average = {name: value.copy() for name, value in weights.items()}
        else:
            part = 1.0 / (self._count + 1) if self.decay is None else 1.0 - self.decay
            for name, value in weights.items():
                average = self._average[name]
                average += (part * (value - average)).astype(value.dtype)
        self._count += 1

    def on_fit_end(self, trainer: Any, history: History) -> None:
        self._average, self._count, self._live = self.average, self.count, None
        if self.apply and self.count:
            trainer.model.set_weights(self.average)

    def training_state(self, trainer: Any) -> dict[str, Any]:
        count = self._count if self._live is None else self._live[0].count
        return {"average": dict(self.average), "count": count, "epochs": self._epochs}

    def restore_training_state(self, trainer: Any, state: dict[str, Any]) -> None:
        count = check_integer("count", state["count"])
        self._epochs = check_integer("epochs", state["epochs"], at_least=0)
        average = {name: np.array(value) for name, value in state["average"].items()}
        if self._live is None:
            self._average, self._count = average, count
            return
        live, model = self._live
        names = model.graph.names
        for p in [*model.parameters, *model.states] if count > 0 else ():
            live.of(p)[...] = average[names[p]]
        live.count = count


class ModelCheckpoint(_Monitor):
    """Save the model after epochs.

    Parameters
    ----------
    path : path-like
        May name the epoch and the logs, as in ``"net-{epoch:03d}-{loss:.3f}.pyframe"``; otherwise
        each file replaces the one before it, and at any moment a whole one is there.
    monitor : str, default "val_loss"
        As for `EarlyStopping`.
    save_best_only : bool, default False
        Save only when the monitored value is the best so far.
    mode : {"auto", "min", "max"}
    every : int, default 1
        Save after every so many epochs.
    training : bool, default False
        Save the state of the training as well, as `Trainer.save` does: from such a file a fit can
        be resumed.

    Raises
    ------
    ArgumentError
        From the beginning of the fit, if `path` or `monitor` names what the logs do not have.
    OSError
        From the fit, if the file cannot be written.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> best = pf.callbacks.ModelCheckpoint("best.pyframe", save_best_only=True)
    >>> trainer = pf.Trainer(pf.Sequential([pf.layers.Dense(1)]))
    >>> _ = trainer.fit(np.ones((4, 2)), np.ones(4), 3, None, callbacks=[best], verbose=0)
    >>> pf.load("best.pyframe")
    <Sequential of 1 layers, 3 parameters>
    """

    _attributes: ClassVar[dict[str, str]] = {
        **_Monitor._attributes,
        **dict.fromkeys(["path", "save_best_only", "every", "training"], ""),
    }
    _checks: ClassVar[dict[str, Callable[[Any], Any]]] = {
        "path": os.fspath,
        "every": lambda given: check_integer("every", given, at_least=1),
    }

    def __init__(
        self,
        path: str | os.PathLike[str],
        monitor: str = "val_loss",
        save_best_only: bool = False,
        mode: str = "auto",
        every: int = 1,
        training: bool = False,
    ) -> None:
        super().__init__(monitor, mode)
        self.path, self.save_best_only = os.fspath(path), save_best_only
        self.every = every
        self.training = training

    @property
    def monitors(self) -> bool:
        """Whether a number of the logs is followed."""
        return self.save_best_only

    def on_fit_start(self, trainer: Any) -> None:
        super().on_fit_start(trainer)
        try:
            self.path.format(epoch=0, **dict.fromkeys(trainer.log_names, 0.0))
        except (LookupError, ValueError) as error:
            raise_if_signalled(error)
            raise ArgumentError(
                f"ModelCheckpoint: {self.path!r} cannot be filled in ({error}); there is epoch, "
                f"{', '.join(trainer.log_names)}"
            ) from error

    def on_epoch_end(self, trainer: Any, epoch: int, logs: Logs) -> None:
        if (epoch + 1) % self.every:
            return
        if self.save_best_only:
            value = self.monitored(logs)
            if not self.improves(value):
                return
            self.best = value
        writer = trainer if self.training else trainer.model
        writer.save(self.path.format(epoch=epoch, **logs))


@hookimpl
def pyframe_register_callbacks() -> Mapping[str, type[Callback]]:
    """Return the built-in callbacks by name."""
    return {
        "early_stopping": EarlyStopping,
        "lambda_callback": LambdaCallback,
        "model_checkpoint": ModelCheckpoint,
        "reduce_lr_on_plateau": ReduceLROnPlateau,
        "weight_average": WeightAverage,
    }


def __getattr__(name: str) -> Any:
    """Return what a plugin has registered."""
    return registries["callbacks"].attribute(name)
