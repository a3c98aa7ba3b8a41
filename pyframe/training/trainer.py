"""Training: epochs over arrays, with validation, metrics, callbacks and progress."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, ClassVar, Literal, Self

import numpy as np

from pyframe import checkpoint, optimizers, schedules
from pyframe.callbacks import Callback, listens
from pyframe.callbacks import get as get_callback
from pyframe.engine.execution import SECONDS_PER_LOOK, check_feed
from pyframe.engine.loop import Loop
from pyframe.engine.plan import Plan, Snapshot
from pyframe.engine.storage import already_trained
from pyframe.errors import (
    ArgumentError,
    GraphError,
    ShapeError,
    check_flag,
    check_integer,
    check_number,
)
from pyframe.graph.arrays import plain_array
from pyframe.graph.node import Array, Placeholder
from pyframe.model import Model, load
from pyframe.native.building import building
from pyframe.plugins import listens as plugins_listen
from pyframe.plugins import notify
from pyframe.strict import Strict
from pyframe.training import resuming
from pyframe.training.fit import Fit, in_order
from pyframe.training.history import History
from pyframe.training.objective import Goal, Objective
from pyframe.training.progress import Progress

DEFAULT_BATCH = 32


@dataclass(frozen=True)
class _Job:
    """What a fit is to do; its arrays are checked, and have one length."""

    objective: Objective
    arrays: dict[Any, Array]
    held_out: dict[Any, Array]
    epochs: int
    batch_size: int | None
    shuffle: bool
    seed: int
    rates: Any
    listeners: list[Callback]
    history: History
    first: int  # the number of the first epoch
    saved: resuming.Saved | None = None

    @property
    def left(self) -> int:
        """Epochs to run."""
        return max(self.epochs - self.history.epochs, 0)

    def check(self, saved: resuming.Saved) -> None:
        """Raise `CheckpointError` if the fit in a file is another one than this."""
        rows = _rows(self.arrays)
        saved.check(
            self.listeners,
            seed=self.seed,
            batch_size=rows if self.batch_size is None else self.batch_size,
            rows=rows,
            validation_rows=_rows(self.held_out) if self.held_out else 0,
            shuffle=self.shuffle,
            columns=self.objective.log_names(validated=bool(self.held_out)),
        )

    def loop(self, stop: str | None) -> Loop:
        """Return the loop over its epochs; the parameters have been claimed."""
        return self.objective.plan.loop(
            self.arrays,
            epochs=self.left,
            batch_size=self.batch_size,
            shuffle=self.shuffle,
            seed=self.seed,
            learning_rates=self.rates,
            first_epoch=self.first + self.history.epochs,
            stop=stop,
            claimed=True,
        )


class Trainer(Strict):
    """Fits a model to data.

    Parameters
    ----------
    model : Model
    loss : str, callable, or a list or dict of them
        One for all outputs, or one for each (a dict goes by `Model.output_names`); their sum is
        minimized. A callable of (y, y_hat, sample_weight=None) that gives a scalar node.
    optimizer : str, Optimizer or class
    metrics : list of str or callable, optional
        Computed for every output, during training and validation. They do not look at sample
        weights.
    callbacks : list of Callback
        For every fit.
    loss_weights : list of float, optional
        Factors of the outputs' losses.
    detect_anomaly : bool, default False
        Stop with an `AnomalyError` that names the first node to give NaN or infinity.

    Attributes
    ----------
    model : Model
    plan : Plan
        What the last `fit` ran on.
    stop_training : bool
        A callback sets it to end the fit after this epoch.

    Raises
    ------
    UnknownNameError
        If a loss, optimizer, metric or callback is unknown.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> X = np.linspace(-1, 1, 64).reshape(-1, 1)
    >>> model = pf.Sequential([pf.layers.Dense(8, activation="tanh"), pf.layers.Dense(1)])
    >>> trainer = pf.Trainer(model, loss="l2", optimizer=pf.optimizers.Adam(0.05))
    >>> history = trainer.fit(X, X**2, epochs=200, batch_size=16, verbose=0)
    >>> history["loss"][-1] < 0.01 < history["loss"][0]
    True
    """

    _attributes: ClassVar[dict[str, str]] = {
        "model": "make a new Trainer",
        "goal": "make a new Trainer",
        "callbacks": "",
        "detect_anomaly": "",
        "stop_training": "",
    }
    _checks: ClassVar[dict[str, Callable[[Any], Any]]] = {
        "callbacks": lambda given: _callbacks(given),
        "detect_anomaly": lambda given: check_flag("detect_anomaly", given),
    }

    def __init__(
        self,
        model: Model,
        loss: Any = "l2",
        optimizer: Any = "adam",
        metrics: Sequence[Any] | None = (),
        *,
        callbacks: Sequence[Any] | None = (),
        loss_weights: Sequence[float] | None = None,
        detect_anomaly: bool = False,
    ) -> None:
        if not isinstance(model, Model):
            raise ArgumentError(f"a Trainer takes a Model, and got {type(model).__name__}")
        self.model = model
        self.goal = Goal(loss, metrics, loss_weights)
        self._optimizer = optimizers.get(optimizer)
        self.callbacks: Any = callbacks
        self.detect_anomaly = detect_anomaly
        self.stop_training = False
        self._epochs_before = 0  # what `epochs_done` is if there has been no fit since
        self._objectives: dict[bool, Objective] = {}
        self._made_for: Any = None  # what the objectives depend on, besides the model's graph
        self._current: Objective | None = None
        self._last_fit: Fit | None = None

    @property
    def log_names(self) -> list[str]:
        """The names in the logs of the fit that is under way, or was the last."""
        return [] if self._last_fit is None else list(self._last_fit.log_names)

    def higher_is_better(self, name: str) -> bool | None:
        """Return whether more is better of a number in `log_names`; None if its metric is silent.

        It is the metric's own `higher_is_better`.
        """
        return None if self._current is None else self._current.higher_is_better(name)

    @property
    def plan(self) -> Plan:
        """What the last `fit` ran on."""
        if self._current is None:
            raise GraphError("there is no plan yet: fit first")
        return self._current.plan

    @property
    def epochs_done(self) -> int:
        """Finished epochs, of all fits."""
        fit = self._last_fit
        return self._epochs_before if fit is None else fit.history.first_epoch + fit.done

    @property
    def optimizer(self) -> Any:
        """What the parameters are updated by. A new one begins anew in the next fit, at step 0."""
        return self._optimizer

    @optimizer.setter
    def optimizer(self, optimizer: Any) -> None:
        self._optimizer = optimizers.get(optimizer)

    # ---- copies ----

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is made of: it goes on from here, but is in the middle of no fit."""
        epochs = self.epochs_done
        with building:
            objectives = dict(self._objectives)
        return {
            **vars(self),
            "_objectives": objectives,
            "_last_fit": None,
            "_epochs_before": epochs,
        }

    def __copy__(self) -> Self:
        """Return a trainer with a model of its own: two would train the same one otherwise."""
        return copy.deepcopy(self)

    # ---- the objective ----

    def _objective(self, weighted: bool) -> Objective:
        """Return the plan for data with or without sample weights."""
        optimizer = self.optimizer
        made_for = optimizer, self._dependencies(optimizer)
        with building:
            if made_for != self._made_for:  # the present one stays where it is, in self._current
                self._objectives, self._made_for = {}, made_for
            if weighted not in self._objectives:
                self._objectives[weighted] = self.goal.objective(
                    self.model,
                    optimizer,
                    weighted=weighted,
                    detect_anomaly=self.detect_anomaly,
                )
                if (optimizer, self._dependencies(optimizer)) != made_for:
                    # Another thread has changed something meanwhile: the next one is made anew.
                    self._made_for = None
            return self._objectives[weighted]

    def _dependencies(self, optimizer: Any) -> tuple[Any, ...]:
        """Return what the objectives depend on, besides the model's graph and the optimizer."""
        settings = {
            name: value
            for name, value in vars(optimizer).items()
            if name != "learning_rate" and isinstance(value, int | float | str | None)
        }
        options = {**getattr(optimizer, "options", {})}
        groups = {k: {**v} for k, v in getattr(optimizer, "groups", {}).items()}
        trainable = [(p.trainable, p.group) for p in self.model.parameters]
        return trainable, settings, options, groups, self.detect_anomaly

    def _train_on(self, objective: Objective) -> None:
        """Go on with the optimizer's memory of the plan that was trained on before.

        Whoever calls this has claimed the parameters.
        """
        if self._current is not None and self._current is not objective:
            objective.plan.take_over(self._current.plan)
        self._current = objective

    def _go_back_to(self, saved: resuming.Saved) -> None:
        """Go back to what a file holds: all of it, or with an error nothing.

        Parameters, states, slots, the step count, the number of epochs. Whoever calls this has
        claimed the parameters.
        """
        names = {"_last_fit": None, "_epochs_before": saved.epochs_done}
        saved.plan.restore(saved.snapshot, also=map(setattr, repeat(self), names, names.values()))

    def _state(self) -> checkpoint.Training:
        """Return the state of the training, for a file; whoever asks keeps updates out."""
        return resuming.collect(self, self._last_fit, *self._upcoming())

    def _upcoming(self) -> tuple[Objective, Snapshot]:
        """Return what the next fit trains on, and the state that it begins with.

        Nothing is changed: a fit that is under way goes on, and what is changed back is as it was.
        Whoever asks keeps updates out.
        """
        current = self._current
        assert current is not None
        if current.plan.optimizer is self.optimizer and not current.plan.engine.change():
            return current, current.plan.engine.held_snapshot()
        objective = self._objective(current.weight is not None)
        return objective, objective.plan.engine.taken_over(current.plan.engine)

    # ---- data ----

    def _data(self, X: Any, Y: Any, sample_weight: Any) -> tuple[Objective, dict[Any, Array]]:  # noqa: N803
        """Return the objective and the arrays to feed it with, all of them checked."""
        feed: dict[Placeholder, Any] = {
            p: plain_array(value, f"placeholder {p.label()!r}")
            for p, value in self.model.feed(X).items()
        }
        for value in feed.values():
            if value.shape[:1] == (0,):
                raise ArgumentError("there are no data: X has no rows")
        objective = self._objective(sample_weight is not None)
        feed |= objective.target_feed(Y, self.model.output_names)
        if objective.weight is not None:
            feed[objective.weight] = sample_weight
        names = objective.plan.graph.names
        arrays = {p: check_feed(p, names.get(p, p.label()), v) for p, v in feed.items()}
        rows = {names.get(p, p.label()): len(a) for p, a in arrays.items() if a.ndim}
        if len(set(rows.values())) > 1 or len(rows) < len(arrays):
            text = ", ".join(f"{name!r} {count}" for name, count in rows.items())
            raise ShapeError(
                f"the numbers of rows differ: {text}; every sample needs its own row in each"
            )
        objective.check_targets(arrays)
        if objective.weight is not None:
            weights = arrays[objective.weight]
            if not (np.all(np.isfinite(weights)) and np.all(weights >= 0) and np.any(weights)):
                raise ArgumentError("sample weights must be finite, at least 0, and not all 0")
        return objective, arrays

    # ---- what one calls ----

    def fit(
        self,
        X: Any,  # noqa: N803
        Y: Any,  # noqa: N803
        epochs: int = 10,
        batch_size: int | Literal["auto"] | None = "auto",
        *,
        validation_split: float = 0.0,
        validation_data: tuple[Any, ...] | None = None,
        shuffle: bool = True,
        seed: int = 0,
        sample_weight: Any = None,
        callbacks: Sequence[Any] | None = (),
        verbose: int = 1,
        schedule: Any = None,
        initial_epoch: int | None = None,
        resume: str | os.PathLike[str] | None = None,
    ) -> History:
        """Train for some epochs. A second fit goes on from where the first one ended.

        Parameters
        ----------
        X : array_like of n rows, or for several inputs a list or dict of them
            Data frames too, of numbers: pandas' own dtypes and mixed columns are taken.
        Y : array_like of n rows, or for several outputs a list or dict of them
            One-dimensional targets count as a column for an output (n, 1); for ``cross_entropy``
            integer labels (n,).
        epochs : int
            How many to run.
        batch_size : int, None or "auto"
            Rows a step; by default 32, or all of them when there are fewer. None, or n, is a full
            batch: it is read in place, in order.
        validation_split : float in [0, 1)
            This part of the data, the last rows before any shuffling, is not trained on but
            evaluated after every epoch.
        validation_data : tuple (X, Y) or (X, Y, sample_weight), optional
            To be evaluated instead.
        shuffle : bool, default True
            Take the rows in a new random order in every epoch.
        seed : int
            Of the shuffling and of dropout: the same seed gives the same bits.
        sample_weight : array_like (n,), optional
            The loss is sum(w l) / sum(w) over a batch, and over an epoch too.
        callbacks : list of Callback
            Besides those of the trainer.
        verbose : {1, 0}
            0 shows nothing.
        schedule : Schedule, str or callable, optional
            From step numbers to learning rates, instead of the optimizer's own.
        initial_epoch : int, optional
            The number of the first epoch, which the shuffling depends on; default: count on.
        resume : path-like, optional
            Go on with the fit that this file holds (see `save`), with the same data and arguments:
            parameters, history and callbacks come to the same bits as if it had never stopped.
            `epochs` counts those in the file.

        Returns
        -------
        History
            After Ctrl-C that of the finished epochs, with ``interrupted`` True.

        Raises
        ------
        ArgumentError
            For empty data or missing values, a batch size that is not in 1..n, a learning rate
            that makes no sense.
        ShapeError, DTypeError, FeedError
            If the data do not fit the model. In all these cases nothing has changed.
        LabelError
            At the first label outside of the classes.
        BusyError
            If the parameters are being trained already, or another thread has changed what is
            trainable or an option of the optimizer while this began.
        CheckpointError
            If the file to resume from is damaged, or of another model, optimizer or fit.
        """
        began, epochs_done = time.perf_counter(), self.epochs_done
        job = self._job(
            self._data(X, Y, sample_weight),
            validation_split,
            validation_data,
            epochs=check_integer("epochs", epochs, at_least=0),
            batch_size=batch_size,
            shuffle=bool(shuffle),
            seed=check_integer("seed", seed, at_least=0, at_most=2**64 - 1),
            rates=None if schedule is None else schedules.get(schedule),
            listeners=in_order([*self.callbacks, *_callbacks(callbacks)]),
            first=_first_epoch(initial_epoch, resume, epochs_done),
            resume=resume,
        )
        history = job.history
        with job.objective.plan.claim(), ExitStack() as stack:
            if self.epochs_done != epochs_done:
                raise already_trained()  # a fit in another thread has come and gone meanwhile
            fit = self._prepared(job, verbose, stack)
            self._last_fit = fit
            try:
                fit.run(lambda: None if job.saved is None else job.saved.give_back(fit))
            finally:  # let go of the data; where it has ended is counted elsewhere
                fit.running = False
                del fit.loop, fit.validation, fit.trainer
        history.seconds += time.perf_counter() - began
        for callback in fit.listeners:
            callback.on_fit_end(self, history)
        notify("fit_end", trainer=self, history=history)
        return history

    def _job(
        self,
        data: tuple[Objective, dict[Any, Array]],
        validation_split: float,
        validation_data: Any,
        *,
        epochs: int,
        batch_size: Any,
        resume: Any,
        **rest: Any,
    ) -> _Job:
        """Return what a fit is to do, all of it checked; nothing has been changed yet."""
        objective, arrays = data
        arrays, held_out = _split(arrays, check_number("validation_split", validation_split))
        if validation_data is not None:
            if held_out:
                raise ArgumentError("pass validation_split or validation_data, not both")
            held_out = self._validation_arrays(objective, validation_data)
        if batch_size == "auto":
            batch_size = min(DEFAULT_BATCH, _rows(arrays))
        job = _Job(
            objective,
            arrays,
            held_out,
            epochs=epochs,
            batch_size=batch_size,
            history=History(rest["seed"], rest["first"]),
            **rest,
        )
        if resume is None:
            return job
        saved = resuming.read(resume, self, objective)
        job.check(saved)
        history = saved.history()
        return replace(job, saved=saved, history=history, first=history.first_epoch)

    def _prepared(self, job: _Job, verbose: int, stack: ExitStack) -> Fit:
        """Return a fit that can run; `stack` closes what it runs on.

        Whoever calls this has claimed the parameters.
        """
        objective, saved = job.objective, job.saved
        if saved is not None:  # otherwise nothing is lost when the loop refuses
            objective.plan.engine.require_unchanged()
        self._train_on(objective)
        if saved is not None:
            self._go_back_to(saved)
        validation = _validation(objective, job.held_out, job.left, job.batch_size)
        if validation is not None:
            stack.enter_context(validation)
        try:
            loop = stack.enter_context(job.loop(_stops(job.listeners, validation is not None)))
        except GraphError:
            objective.plan.engine.require_unchanged()
            raise
        progress = Progress(job.left, loop.samples, verbose)
        stack.callback(progress.close)
        fit = Fit(
            self, objective, loop, validation, job.listeners, job.history, progress, job.shuffle
        )
        if saved is not None:
            saved.seek(loop)
        self.stop_training = False
        return fit

    def _validation_arrays(self, objective: Objective, data: Any) -> dict[Any, Array]:
        if not isinstance(data, list | tuple) or len(data) not in (2, 3):
            raise ArgumentError("validation_data is a tuple (X, Y) or (X, Y, sample_weight)")
        X, Y, *rest = data  # noqa: N806
        weight = rest[0] if rest else None
        if objective.weight is None and weight is not None:
            raise ArgumentError("validation has sample weights and training has none")
        if objective.weight is not None and weight is None:
            first = plain_array(next(iter(self.model.feed(X).values())), "X")
            weight = np.ones(first.shape[:1])
        return self._data(X, Y, weight)[1]

    def evaluate(
        self,
        X: Any,  # noqa: N803
        Y: Any,  # noqa: N803
        batch_size: int | None = None,
        *,
        sample_weight: Any = None,
    ) -> dict[str, Any]:
        """Return the loss and the metrics over some data, exact also for unequal batches.

        Parameters
        ----------
        X, Y, sample_weight
            As for `fit`.
        batch_size : int, optional
            Rows that are computed at a time, to bound the memory; default: all of them.

        Returns
        -------
        dict of str to float
            (of str to ndarray for metrics that are no numbers)

        Raises
        ------
        ArgumentError, ShapeError, DTypeError, FeedError, LabelError
        """
        objective, arrays = self._data(X, Y, sample_weight)
        loop = objective.plan.loop(
            arrays, epochs=1, batch_size=batch_size, shuffle=False, training=False
        )
        with loop:
            while loop.run(SECONDS_PER_LOOK) != "done":
                pass
            return objective.logs(loop.records[0])

    def predict(self, X: Any, batch_size: int | None = None) -> Any:  # noqa: N803
        """Return the model's outputs; see `Model.predict`."""
        return self.model.predict(X, batch_size)

    # ---- files ----

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model and the state of its training to one file.

        `pyframe.load` reads the model from it; `load` and `restore` read the training too, and
        ``fit(..., resume=path)`` goes on with a fit. A callback may call this in the middle of one;
        what another thread writes meanwhile holds no fit to go on with, for that is not at rest.
        What was frozen, set or exchanged since the fit began counts in the file as it does in the
        next fit; there is no fit to resume then.

        Parameters
        ----------
        path : path-like
            An existing file is replaced; if anything goes wrong, it stays as it was.

        Raises
        ------
        GraphError
            If nothing has been trained yet.
        CheckpointError
            If a node written in Python keeps values that would be lost.
        OSError
            If the file cannot be written.

        Examples
        --------
        >>> import numpy as np, pyframe as pf
        >>> X = np.linspace(-1, 1, 64).reshape(-1, 1)
        >>> trainer = pf.Trainer(pf.Sequential([pf.layers.Dense(1)], input_shape=(1,)))
        >>> _ = trainer.fit(X, 3 * X, 4, verbose=0)
        >>> trainer.save("line.pyframe")
        >>> same = pf.Trainer.load("line.pyframe")
        >>> a = trainer.fit(X, 3 * X, 4, verbose=0)["loss"]
        >>> a == same.fit(X, 3 * X, 4, verbose=0)["loss"]
        True
        """
        assert self.plan
        checkpoint.save(self.model, path, lambda: self._state())

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        custom_ops: Mapping[str, type] | None = None,
        **arguments: Any,
    ) -> Trainer:
        """Return a trainer with the model of a file, as far as it was when `save` wrote it.

        Parameters
        ----------
        path : path-like
        custom_ops : dict of str to type, optional
            As for `pyframe.load`.
        **arguments
            Those of a `Trainer`, instead of what the file says. Functions and classes of one's own
            have to be passed: a file holds names. Callbacks are not in it.

        Raises
        ------
        CheckpointError
            If the file is damaged, holds no training, or needs something that is missing.
        OSError
            If it cannot be read.
        """
        given = resuming.arguments(path, arguments)
        model = load(path, custom_ops)
        with resuming.naming(path, arguments):
            trainer = cls(model, **given)
            trainer.restore(path)
        return trainer

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Go back to what `save` has written: parameters, states, optimizer, step, epoch.

        The next fit counts on from there, as a second one does.

        Parameters
        ----------
        path : path-like
            Of a model like this one, trained with an optimizer of the same kind.

        Raises
        ------
        CheckpointError
            If the file is damaged, or does not fit. Nothing has changed then.
        """
        objective = self._objective(resuming.is_weighted(path))
        saved = resuming.read(path, self, objective)
        with objective.plan.claim():  # or BusyError: somebody else is training them
            self._train_on(objective)
            self._go_back_to(saved)


# ---- helpers ----


def _first_epoch(initial_epoch: int | None, resume: Any, epochs_done: int) -> int:
    """Return the number of the first epoch, unless a file has it."""
    if initial_epoch is None:
        return epochs_done
    if resume is not None:
        raise ArgumentError("pass resume or initial_epoch: the file has the epoch")
    return check_integer("initial_epoch", initial_epoch, at_least=0)


def _callbacks(callbacks: Any) -> list[Callback]:
    if isinstance(callbacks, Callback | str):
        raise ArgumentError(f"callbacks={callbacks!r}; pass a list: callbacks=[...]")
    if not isinstance(callbacks, Iterable | None):
        raise ArgumentError(f"callbacks={callbacks!r}; pass a list of callbacks")
    return [get_callback(c) for c in callbacks or ()]


def _rows(arrays: Mapping[Any, Array]) -> int:
    return len(next(iter(arrays.values())))


def rows_to_train_on(rows: int, validation_split: float) -> int:
    """Return how many rows, the first ones, are not set aside for validation."""
    return int(rows * (1 - validation_split) + 1e-9)  # 5 rows, a part of 0.8: one is left


def _split(arrays: dict[Any, Array], part: float) -> tuple[dict[Any, Array], dict[Any, Array]]:
    """Divide rows into those to train on and the last ones, to validate with; as Keras does."""
    if part == 0:
        return arrays, {}
    if not 0 < part < 1:
        raise ArgumentError(f"validation_split={part!r}; it must be at least 0 and below 1")
    rows = _rows(arrays)
    at = rows_to_train_on(rows, part)
    if at in (0, rows):
        raise ArgumentError(
            f"validation_split={part} of {rows} rows leaves {at} to train on and {rows - at} to "
            "validate with"
        )
    return {p: a[:at] for p, a in arrays.items()}, {p: a[at:] for p, a in arrays.items()}


def _validation(
    objective: Objective, held_out: dict[Any, Array], epochs: int, batch_size: int | None
) -> Loop | None:
    """Return the loop that evaluates what is held out, once for each epoch of training."""
    if not held_out:
        return None
    return objective.plan.loop(
        held_out,
        epochs=epochs,
        batch_size=None if batch_size is None else min(batch_size, _rows(held_out)),
        shuffle=False,
        stop="epoch",
        training=False,
    )


def _stops(listeners: Sequence[Callback], validates: bool) -> str | None:
    """Return where the loop must come back to Python, besides every 50 ms."""
    if any(listens(c, "on_batch_end") for c in listeners):
        return "step"
    events = ("on_epoch_start", "on_epoch_end")
    if (
        validates
        or plugins_listen("epoch_end")
        or any(listens(c, e) for c in listeners for e in events)
    ):
        return "epoch"
    return None
