"""Training: epochs over arrays, with validation, metrics, callbacks and progress."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Literal

import numpy as np

from pyframe import optimizers, schedules
from pyframe.callbacks import Callback, listens
from pyframe.callbacks import get as get_callback
from pyframe.errors import (
    ArgumentError,
    GraphError,
    ShapeError,
    check_integer,
    check_number,
)
from pyframe.execution import check_feed
from pyframe.loop import Loop
from pyframe.model import Model
from pyframe.node import Array, Placeholder
from pyframe.objective import Goal, Objective
from pyframe.plan import Plan
from pyframe.plugins import listens as plugins_listen
from pyframe.plugins import notify
from pyframe.progress import Progress, describe_logs

DEFAULT_BATCH = 32
SECONDS_PER_LOOK = 0.05  # how long Ctrl-C and the progress may have to wait


class History(dict[str, list[Any]]):
    """What a fit reports: for each loss and metric a list with one value an epoch.

    Attributes
    ----------
    epochs : int
        Finished epochs.
    first_epoch : int
        The number of the first of them.
    interrupted : bool
        Whether Ctrl-C ended the fit.
    seed : int
    seconds : float
    """

    def __init__(self, seed: int, first_epoch: int) -> None:
        super().__init__()
        self.epochs = 0
        self.first_epoch, self.seed = first_epoch, seed
        self.interrupted = False
        self.seconds = 0.0

    def last(self) -> dict[str, Any]:
        """Return the values of the last epoch."""
        return {key: values[-1] for key, values in self.items() if values}

    def __repr__(self) -> str:
        end = ", interrupted" if self.interrupted else ""
        numbers = f": {describe_logs(self.last())}" if self.epochs else ""
        return f"<History of {self.epochs} epochs in {self.seconds:.2f} s{end}{numbers}>"


class Interrupt:
    """Within a ``with`` block Ctrl-C only sets `pressed`; the second one does what it used to."""

    def __init__(self) -> None:
        self.pressed = False
        self._before: Any = None

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            before = signal.getsignal(signal.SIGINT)
            if before not in (None, signal.SIG_IGN):
                signal.signal(signal.SIGINT, self._handle)
                self._before = before
        return self

    def _handle(self, number: int, frame: Any) -> None:
        if not self.pressed:
            self.pressed = True
            return
        self._give_back()
        signal.raise_signal(signal.SIGINT)

    def _give_back(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._give_back()


class Trainer:
    """Fits a model to data.

    Parameters
    ----------
    model : Model
    loss : str, callable, or a list or dict of them
        One for all outputs, or one for each (a dict goes by `Model.output_names`); their sum is
        minimized. A callable of (y, y_hat, sample_weight=None) that gives a scalar node.
    optimizer : str, Optimizer or class
    metrics : list of str or callable
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

    def __init__(
        self,
        model: Model,
        loss: Any = "l2",
        optimizer: Any = "adam",
        metrics: Sequence[Any] = (),
        *,
        callbacks: Sequence[Any] = (),
        loss_weights: Sequence[float] | None = None,
        detect_anomaly: bool = False,
    ) -> None:
        if not isinstance(model, Model):
            raise ArgumentError(f"a Trainer takes a Model, and got {type(model).__name__}")
        self.model = model
        self.goal = Goal(loss, metrics, loss_weights)
        self.optimizer = optimizers.get(optimizer)
        self.callbacks = _callbacks(callbacks)
        self.detect_anomaly = detect_anomaly
        self.stop_training = False
        self.epochs_done = 0
        self._objectives: dict[bool, Objective] = {}
        self._current: Objective | None = None

    @property
    def plan(self) -> Plan:
        """What the last `fit` ran on."""
        if self._current is None:
            raise GraphError("there is no plan yet: fit first")
        return self._current.plan

    # ---- the objective ----

    def _objective(self, weighted: bool) -> Objective:
        """Return the plan for data with or without sample weights."""
        if weighted not in self._objectives:
            self._objectives[weighted] = self.goal.objective(
                self.model,
                self.optimizer,
                weighted=weighted,
                detect_anomaly=self.detect_anomaly,
            )
        return self._objectives[weighted]

    def _train_on(self, objective: Objective) -> None:
        """Go on with the optimizer's memory of the plan that was trained on before."""
        if self._current is not None and self._current is not objective:
            objective.plan.restore(self._current.plan.snapshot())
        self._current = objective

    # ---- data ----

    def _data(self, X: Any, Y: Any, sample_weight: Any) -> tuple[Objective, dict[Any, Array]]:  # noqa: N803
        """Return the objective and the arrays to feed it with, all of them checked."""
        feed: dict[Placeholder, Any] = self.model.feed(X)
        for value in feed.values():
            if np.shape(value)[:1] == (0,):
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
        callbacks: Sequence[Any] = (),
        verbose: int = 1,
        schedule: Any = None,
        initial_epoch: int | None = None,
    ) -> History:
        """Train for some epochs. A second fit goes on from where the first one ended.

        Parameters
        ----------
        X : array_like of n rows, or for several inputs a list or dict of them
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

        Returns
        -------
        History
            After Ctrl-C that of the finished epochs, with ``interrupted`` True.

        Raises
        ------
        ArgumentError
            For empty data, a batch size that is not in 1..n, a learning rate that makes no sense.
        ShapeError, DTypeError, FeedError
            If the data do not fit the model. In all these cases nothing has changed.
        LabelError
            At the first label outside of the classes.
        BusyError
            If the parameters are being trained already.
        """
        began = time.perf_counter()
        seed = check_integer("seed", seed, at_least=0, at_most=2**64 - 1)
        epochs = check_integer("epochs", epochs, at_least=0)
        listeners = [*self.callbacks, *_callbacks(callbacks)]
        objective, arrays = self._data(X, Y, sample_weight)
        arrays, held_out = _split(arrays, check_number("validation_split", validation_split))
        if validation_data is not None:
            if held_out:
                raise ArgumentError("pass validation_split or validation_data, not both")
            held_out = self._validation_arrays(objective, validation_data)
        self._train_on(objective)
        if batch_size == "auto":
            batch_size = min(DEFAULT_BATCH, _rows(arrays))
        first = self.epochs_done
        if initial_epoch is not None:
            first = check_integer("initial_epoch", initial_epoch, at_least=0)
        history = History(seed, first)
        rates = None if schedule is None else schedules.get(schedule)
        with ExitStack() as stack:
            validation = None
            if held_out:
                size = None if batch_size is None else min(batch_size, _rows(held_out))
                validation = stack.enter_context(
                    objective.plan.loop(
                        held_out,
                        epochs=epochs,
                        batch_size=size,
                        shuffle=False,
                        stop="epoch",
                        training=False,
                    )
                )
            loop = stack.enter_context(
                objective.plan.loop(
                    arrays,
                    epochs=epochs,
                    batch_size=batch_size,
                    shuffle=shuffle,
                    seed=seed,
                    learning_rates=rates,
                    first_epoch=first,
                    stop=_stops(listeners, validation is not None),
                )
            )
            progress = Progress(epochs, loop.samples, verbose)
            stack.callback(progress.close)
            try:
                _Fit(self, objective, loop, validation, listeners, history, progress).run()
            finally:  # also when a callback raises: what is trained is trained
                self.epochs_done = first + loop.epoch
        history.seconds = time.perf_counter() - began
        for callback in listeners:
            callback.on_fit_end(self, history)
        notify("fit_end", trainer=self, history=history)
        return history

    def _validation_arrays(self, objective: Objective, data: Any) -> dict[Any, Array]:
        if not isinstance(data, list | tuple) or len(data) not in (2, 3):
            raise ArgumentError("validation_data is a tuple (X, Y) or (X, Y, sample_weight)")
        X, Y, *rest = data  # noqa: N806
        weight = rest[0] if rest else None
        if objective.weight is None and weight is not None:
            raise ArgumentError("validation has sample weights and training has none")
        if objective.weight is not None and weight is None:
            first = next(iter(self.model.feed(X).values()))
            weight = np.ones(len(first))
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


class _Fit:
    """One fit under way."""

    def __init__(
        self,
        trainer: Trainer,
        objective: Objective,
        loop: Loop,
        validation: Loop | None,
        listeners: list[Callback],
        history: History,
        progress: Progress,
    ) -> None:
        self.trainer, self.objective, self.loop = trainer, objective, loop
        self.validation, self.history, self.progress = validation, history, progress
        self.listeners = listeners
        self.on_epoch_start = [c for c in listeners if listens(c, "on_epoch_start")]
        self.on_epoch_end = [c for c in listeners if listens(c, "on_epoch_end")]
        self.on_batch_end = [c for c in listeners if listens(c, "on_batch_end")]
        self.interrupt = Interrupt()
        keys = [c.key for c in objective.columns]
        for key in [*keys, *(f"val_{k}" for k in keys if validation is not None)]:
            history[key] = []

    def run(self) -> None:
        """Train until the end, a callback's word, or Ctrl-C."""
        trainer, loop, history = self.trainer, self.loop, self.history
        trainer.stop_training = False
        for callback in self.listeners:
            callback.on_fit_start(trainer)
        notify("fit_start", trainer=trainer)
        with self.interrupt:
            self._start_epoch()
            status = "paused" if loop.epochs else "done"
            while status != "done" and not (self.interrupt.pressed or trainer.stop_training):
                status = loop.run(SECONDS_PER_LOOK)
                if status == "step":
                    self._end_batch()
                if status in ("epoch", "step") and loop.epoch > history.epochs:
                    self._end_epoch()
                elif status == "paused":
                    self._note_epochs(loop.epoch)  # now, so that none pile up for the end
                if self.progress.due:
                    self.progress.show(loop.epoch, loop.samples_done, self._latest())
        self._note_epochs(loop.epoch)
        history.interrupted = self.interrupt.pressed
        self.progress.finish(loop.epoch, loop.samples_done, self._latest(), history.interrupted)

    def _latest(self) -> dict[str, Any]:
        """Return the numbers to show: of the last epoch, or of what is done of the first."""
        if self.history.epochs:
            return self.history.last()
        if self.loop.epoch:
            return self.objective.logs(self.loop.records[-1])
        if self.loop.batch_index:
            return self.objective.logs(self.loop.partial_record)
        return {}

    def _note_epochs(self, until: int) -> None:
        """Enter the records of the epochs up to `until` into the history."""
        history = self.history
        records = self.loop.records[history.epochs : until]
        for column in self.objective.columns:
            history[column.key] += column.values(records)
        history.epochs = until

    def _start_epoch(self) -> None:
        if self.loop.epoch < self.loop.epochs:
            for callback in self.on_epoch_start:
                callback.on_epoch_start(self.trainer, self._number())

    def _number(self) -> int:
        return self.history.first_epoch + self.loop.epoch

    def _end_batch(self) -> None:
        step, loss = self.objective.plan.step_count, self.loop.loss
        for callback in self.on_batch_end:
            callback.on_batch_end(self.trainer, step, {"loss": loss})

    def _end_epoch(self) -> None:
        self._note_epochs(self.loop.epoch)
        if self.validation is not None:
            for key, value in self._validate(self.validation).items():
                self.history[key].append(value)
        logs = self.history.last()
        epoch = self._number() - 1
        for callback in self.on_epoch_end:
            callback.on_epoch_end(self.trainer, epoch, logs)
        notify("epoch_end", trainer=self.trainer, epoch=epoch, logs=logs)
        if not self.trainer.stop_training:
            self._start_epoch()

    def _validate(self, loop: Loop) -> dict[str, Any]:
        """Return the validation's numbers, NaN if Ctrl-C came in between."""
        done = loop.epoch
        while True:
            loop.run(SECONDS_PER_LOOK)
            if loop.epoch > done:
                return self.objective.logs(loop.records[-1], "val_")
            if self.interrupt.pressed:
                return {f"val_{c.key}": float("nan") for c in self.objective.columns}


# ---- helpers ----


def _callbacks(callbacks: Any) -> list[Callback]:
    if isinstance(callbacks, Callback | str):
        raise ArgumentError(f"callbacks={callbacks!r}; pass a list: callbacks=[...]")
    return [get_callback(c) for c in callbacks]


def _rows(arrays: Mapping[Any, Array]) -> int:
    return len(next(iter(arrays.values())))


def _split(arrays: dict[Any, Array], part: float) -> tuple[dict[Any, Array], dict[Any, Array]]:
    """Divide rows into those to train on and the last ones, to validate with; as Keras does."""
    if part == 0:
        return arrays, {}
    if not 0 < part < 1:
        raise ArgumentError(f"validation_split={part!r}; it must be at least 0 and below 1")
    rows = _rows(arrays)
    at = int(rows * (1 - part) + 1e-9)  # 5 rows, a part of 0.8: one is left
    if at in (0, rows):
        raise ArgumentError(
            f"validation_split={part} of {rows} rows leaves {at} to train on and {rows - at} to "
            "validate with"
        )
    return {p: a[:at] for p, a in arrays.items()}, {p: a[at:] for p, a in arrays.items()}


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
