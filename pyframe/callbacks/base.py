"""The base of all callbacks, and functions as one."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

from pyframe.checkpoint.writing import check_path
from pyframe.engine.plan import Plan
from pyframe.errors import ArgumentError, check_integer, raise_if_signalled, warn
from pyframe.model import Model
from pyframe.strict import FixedDict, Strict, arguments_of, as_call
from pyframe.training.history import History

Logs = dict[str, Any]

EVENTS = ("on_fit_start", "on_epoch_start", "on_epoch_end", "on_batch_end", "on_fit_end")


class FittingTrainer(Protocol):
    """What the callbacks here use of the `pyframe.Trainer` that calls them, which is one.

    Examples
    --------
    >>> import pyframe as pf
    >>> trainer = pf.Trainer(pf.Sequential([pf.layers.Dense(1)]))
    >>> all(hasattr(trainer, name) for name in ("stop_training", "model", "optimizer"))
    True
    """

    stop_training: bool

    @property
    def model(self) -> Model:
        """What is trained."""

    @property
    def plan(self) -> Plan:
        """What the fit runs on."""

    @property
    def optimizer(self) -> Any:
        """What the parameters are updated by."""

    @property
    def epochs_done(self) -> int:
        """Finished epochs, of all fits."""

    @property
    def history(self) -> History | None:
        """What the fit reports."""

    @property
    def log_names(self) -> list[str]:
        """The names in the logs of the fit."""

    def higher_is_better(self, name: str) -> bool | None:
        """Return whether more is better of a number in the logs; None if it does not say."""

    def sample(self, rows: int) -> dict[Any, Any]:
        """Return some rows that the fit under way trains on, as a feed of `plan`."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model and the state of its training to one file."""


class Callback(Strict):
    """The base of all callbacks; override what you want to hear of.

    What it is given as `trainer` is the `pyframe.Trainer` that calls it. It may set
    ``trainer.stop_training = True``, read and set the model's weights, predict and evaluate, but
    not fit. An exception that it raises ends the fit and comes out of it, with a note that names
    the callback and the event; the model keeps what it has learnt, and ``trainer.history`` the
    epochs.

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
    shows_progress: ClassVar[bool] = False  # whether a fit need not do it
    only_watches: ClassVar[bool] = False  # a fit that is resumed may have others of these, or none
    once: ClassVar[bool] = False  # whether of several ranks only the first calls it: it writes

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

    def close(self) -> None:
        """Let go of what is open: called last, whatever ended the fit, also one that never began.

        An exception of another callback does not keep it from being called.
        """

    def listens_to(self, event: str) -> bool:
        """Return whether it does anything at an event; without ``on_batch_end`` C goes on.

        By default whether the class, or the object, has a function of its own for it.
        """
        method = getattr(self, event)
        return getattr(method, "__func__", method) is not getattr(Callback, event)

    def __repr__(self) -> str:
        return as_call(self, arguments_of(self))

    def training_state(self, trainer: Any) -> dict[str, Any]:
        """Return what this has counted in the fit under way: numbers, texts, arrays, dicts.

        Override both methods in a callback that remembers one epoch in the next: then a fit that
        is resumed from a file (`Trainer.save`) goes on as if it had never stopped. It has to have
        the same ones of these, but for those whose class says ``only_watches = True``.
        """
        return {}

    def restore_training_state(self, trainer: Any, state: dict[str, Any]) -> None:
        """Take back what `training_state` has returned; called after `on_fit_start`."""


class Watcher(Callback):
    """The base of those that report each epoch, once, and change nothing.

    In a fit that is resumed the epochs that were reported nowhere come first. When it cannot be
    written, a full disk say, it is said once, and the training goes on.
    """

    only_watches: ClassVar[bool] = True

    def on_fit_start(self, trainer: Any) -> None:
        self._reported, self._failed = 0, False  # epochs of the fit

    def on_epoch_end(self, trainer: Any, epoch: int, logs: Logs) -> None:
        if self._failed:
            return
        history = trainer.history
        try:
            for i in range(self._reported, history.epochs - 1):
                earlier = {key: values[i] for key, values in history.items()}
                known = {**dict.fromkeys(logs, math.nan), **earlier}
                self.report(trainer, history.first_epoch + i, known)
                self._reported = i + 1
            self.report(trainer, epoch, logs)
            self._reported = history.epochs
        except OSError as error:
            raise_if_signalled(error)
            self._failed = True
            warn(
                f"{self!r} cannot be written any more ({error}); the training goes on, and "
                "trainer.history has all of it"
            )

    def report(self, trainer: Any, epoch: int, logs: Logs) -> None:
        """Report an epoch."""
        raise NotImplementedError

    def training_state(self, trainer: Any) -> dict[str, Any]:
        return {"reported": self._reported}

    def restore_training_state(self, trainer: Any, state: dict[str, Any]) -> None:
        done = trainer.history.epochs
        self._reported = check_integer("reported", state["reported"], at_least=0, at_most=done)


def file_name(path: Any) -> str:
    """Return the name of a file or folder, or raise `ArgumentError`."""
    check_path(path)
    return os.fsdecode(path)


def counted(state: Mapping[str, Any], key: str) -> float:
    """Return a number that a file holds of a callback; it may be NaN or infinite."""
    value = state[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ArgumentError(f"{key} is {value!r:.80}; it must be a number")
    return float(value)


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

    def listens_to(self, event: str) -> bool:
        """Return whether there is a function for an event."""
        return event in self.functions or event in vars(self)

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
