"""Averages of the weights that a training passes through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from pyframe.callbacks.base import Callback, Logs
from pyframe.engine.plan import compile
from pyframe.engine.state import Average, TrainState
from pyframe.errors import ArgumentError, check_flag, check_integer, check_number
from pyframe.graph.node import Placeholder
from pyframe.model import Model
from pyframe.training.history import History


class WeightAverage(Callback):
    """Average the weights of the epochs, and leave the model with the average at the end.

    With p the weights after an epoch, and the average a, at first p, over n epochs before this::

        a = a + (p - a) / (n + 1)             decay None: all epochs alike
        a = decay a + (1 - decay) p           an exponential moving average

    Training goes on from the weights themselves; a fit that is resumed averages on. States, such as
    the statistics of `BatchNorm`, are averaged as well. An average of weights that keep to a
    constraint need not: that of vectors of `UnitNorm` is shorter than 1. The model has it with its
    constraints applied once more, of norm 1; `average` is as the formula says.

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

    aliases: ClassVar[tuple[str, ...]] = (
        *("stochastic_weight_averaging", "swa", "ema", "exponential_moving_average"),
        *("swap_ema_weights", "weight_averaging", "ema_weight_averaging"),
    )
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
            names, weights = trainer.model.graph.names, dict(self.average)
            for p in trainer.model.parameters:
                if p.constraint is not None and p.trainable:
                    w = Placeholder("w", p.shape, p.dtype)
                    weights[names[p]] = compile(p.constraint(w)).run({w: weights[names[p]]})
            trainer.model.set_weights(weights)

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
