"""Training: epochs over arrays, with validation, metrics, callbacks and progress."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from itertools import repeat
from typing import Any, ClassVar, Literal, Self

from pyframe import checkpoint, communicators, optimizers
from pyframe.engine.batches import BYTES_AT_ONCE, BatchLoop
from pyframe.engine.execution import SECONDS_PER_LOOK
from pyframe.engine.plan import Plan
from pyframe.errors import ArgumentError, GraphError, check_flag
from pyframe.model import Model, load
from pyframe.native.guards import already_trained
from pyframe.plugins import notify
from pyframe.spelling import answering
from pyframe.strict import Strict
from pyframe.training import resuming
from pyframe.training.company import company
from pyframe.training.compiled import CompiledGoals
from pyframe.training.feeds import Feeds, feeds_of, input_arrays
from pyframe.training.finding import RateRange, range_test
from pyframe.training.fit import Fit
from pyframe.training.goal import CompiledGoal, Goal
from pyframe.training.history import History
from pyframe.training.labels import Labels
from pyframe.training.request import FitRequest, callbacks_of, first_epoch, request_fit
from pyframe.training.streams import Batches, Streamed, parts_of


class Trainer(Strict):
    """Fits a model to data.

    Parameters
    ----------
    model : Model
    loss : str, callable, or a list or dict of them
        One for all outputs, or one for each (a dict goes by `Model.output_names`); their sum is
        minimized. A callable of (y, y_hat, sample_weight=None) that gives a scalar node.
    optimizer : str, Optimizer or class
    metrics : list of str or callable, or a dict of such lists, optional
        Computed for every output, or for those that the dict names, during training and
        validation. They do not look at sample weights; `weighted_metrics` do. What a callable may
        give says `pyframe.metrics.get`; metrics of a `pyframe.metrics.WholeEpoch` are those of
        validation and `evaluate` alone.
    callbacks : list of Callback
        For every fit.
    loss_weights : list or dict of float, optional
        Factors of the outputs' losses; a dict goes by `Model.output_names`.
    weighted_metrics : list of str or callable, or a dict of such lists, optional
        Metrics that look at sample weights, where there are any; in the logs they are called
        ``weighted_<name>``. A callable takes them as its third argument, ``sample_weight``, or
        gives one number for each row.
    detect_anomaly : bool, default False
        Stop with an `AnomalyError` that names the first node to give NaN or infinity.
    communicator : str, Communicator or class, optional
        With which several processes train together, such as "mpi" of the plugin pyframe-mpi. Each
        runs the same script on the whole data, and has its part of every batch; `evaluate` and
        `predict` are of one process alone.

    Attributes
    ----------
    model : Model
    communicator : Communicator
        With ``rank`` and ``size``: 0 and 1 of a process by itself.
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
        "communicator": "make a new Trainer",
        "callbacks": "",
        "detect_anomaly": "",
        "stop_training": "",
    }
    _checks: ClassVar[dict[str, Callable[[Any], Any]]] = {
        "callbacks": callbacks_of,
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
        weighted_metrics: Sequence[Any] | None = (),
        detect_anomaly: bool = False,
        communicator: Any = None,
    ) -> None:
        if not isinstance(model, Model):
            raise ArgumentError(f"a Trainer takes a Model, and got {type(model).__name__}")
        self.model = model
        self.goal = Goal(loss, metrics, loss_weights, weighted_metrics)
        self._optimizer = optimizers.get(optimizer)
        self.communicator = communicators.get(communicator)
        self.callbacks: Any = callbacks
        self.detect_anomaly = detect_anomaly
        self.stop_training = False
        self._epochs_before = 0  # what `epochs_done` is if there has been no fit since
        self._compiled = CompiledGoals(self.goal, model)
        if self.communicator.shard_state and self.communicator.size > 1:
            self._compiled.ranks = self.communicator
        self._last_fit: Fit | None = None

    @property
    def log_names(self) -> list[str]:
        """The names in the logs of the fit that is under way, or was the last."""
        return [] if self._last_fit is None else list(self._last_fit.log_names)

    def higher_is_better(self, name: str) -> bool | None:
        """Return whether more is better of a number in `log_names`; None if its metric is silent.

        It is the metric's own `higher_is_better`.
        """
        current = self._compiled.current
        return None if current is None else current.higher_is_better(name)

    @property
    def history(self) -> History | None:
        """What the last fit reported, or reports; also of one that an exception has ended."""
        return None if self._last_fit is None else self._last_fit.history

    @property
    def epochs_asked(self) -> int:
        """How many epochs the fit under way, or the last one, was asked for."""
        return 0 if self._last_fit is None else self._last_fit.epochs

    def sample(self, rows: int) -> dict[Any, Any]:
        """Return the first rows that the fit under way trains on, as a feed of `plan`.

        Of a fit on batches they are those of the batch at hand.

        For callbacks, which look at gradients and activations.

        Raises
        ------
        GraphError
            If no fit is under way.
        """
        fit = self._last_fit
        if fit is None or not fit.running:
            raise GraphError("no fit is under way: only a callback may ask for what it trains on")
        return {p: array[:rows] for p, array in fit.loop.arrays.items()}

    @property
    def plan(self) -> Plan:
        """What the last `fit` ran on."""
        if self._compiled.current is None:
            raise GraphError("there is no plan yet: fit first")
        return self._compiled.current.plan

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
        # As it is now: what another thread compiles while the model is copied is not for the copy.
        compiled = copy.copy(self._compiled)
        return {**vars(self), "_compiled": compiled, "_last_fit": None, "_epochs_before": epochs}

    def __copy__(self) -> Self:
        """Return a trainer with a model of its own: two would train the same one otherwise."""
        return copy.deepcopy(self)

    # ---- what one calls ----

    @answering
    def fit(
        self,
        X: Any,  # noqa: N803
        Y: Any = None,  # noqa: N803
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
        accumulate: int = 1,
        initial_epoch: int | None = None,
        steps_per_epoch: int | None = None,
        resume: str | os.PathLike[str] | None = None,
    ) -> History:
        """Train for some epochs. A second fit goes on from where the first one ended.

        Parameters
        ----------
        X : array_like of n rows, or for several inputs a list or dict of them
            Data frames too, of numbers: pandas' own dtypes and mixed columns are taken. What is
            sparse or lies in a file, such as zarr arrays, is read a batch at a time, and a
            `numpy.memmap` is never copied whole. Without Y, batches: a `pyframe.data.Loader`, a
            PyTorch DataLoader, a generator, or any iterable of (X, Y), (X, Y, sample_weight) or
            dicts by the names of inputs and targets; or a function that returns one.
        Y : array_like of n rows, or for several outputs a list or dict of them
            One-dimensional targets count as a column for an output (n, 1); for ``cross_entropy``
            integer labels (n,), or the names of classes, such as texts, in sorted order: the model
            keeps them (`Model.classes`), and `Model.predict_classes` gives them back.
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
        accumulate : int, default 1
            Batches whose gradients are averaged before an update. A step is then on so many, with
            the memory of one: its result is that of one step on all of their rows at once, weighted
            as the loss of an epoch is; a loss that is a sum, or has an `ignore_index`, is refused,
            since those of parts do not add up to it. Statistics of a batch, as `BatchNorm` takes
            them, are of each batch by itself. Steps are what schedules and callbacks count; the
            last one of an epoch may be on fewer batches. Of batches that come one by one, it is on
            so many of them, whatever their sizes.
        initial_epoch : int, optional
            The number of the first epoch, which the shuffling depends on; default: count on.
        steps_per_epoch : int, optional
            Of batches: how many an epoch has. The next one goes on behind them.
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
            If the data do not fit the model.
        GraphError
            If there is nothing to train. In all these cases nothing has changed.
        LabelError
            At the first label outside of the classes.
        BusyError
            If the parameters are being trained already, or another thread has changed what is
            trainable or an option of the optimizer while this began.
        CheckpointError
            If the file to resume from is damaged, or of another model, optimizer or fit.
        """
        began, epochs_done = time.perf_counter(), self.epochs_done
        first = first_epoch(initial_epoch, resume, epochs_done)
        with (
            closing(self._data(X, Y, sample_weight, steps_per_epoch, first)) as data,
            ExitStack() as callbacks_to_close,
        ):
            request = request_fit(
                self.model,
                data,
                epochs=epochs,
                batch_size=batch_size,
                validation_split=validation_split,
                validation_data=validation_data,
                shuffle=shuffle,
                seed=seed,
                callbacks=[*self.callbacks, *callbacks_of(callbacks)],
                schedule=schedule,
                accumulate=accumulate,
                first_epoch=first,
                communicator=self.communicator,
            )
            if resume is not None:
                request = request.going_on(resuming.read(resume, self, request.goal))
            for callback in request.listeners:
                callbacks_to_close.callback(callback.close)
            with request.goal.plan.claim(), ExitStack() as stack:
                fit = self._prepared(request, epochs_done, verbose, stack)
                self._run(fit, request.saved)
            fit.history.seconds += time.perf_counter() - began
            self._tell_of_end(fit)
        return fit.history

    def _prepared(
        self, request: FitRequest, epochs_done: int, verbose: int, stack: ExitStack
    ) -> Fit:
        """Return a fit that can run; `stack` closes what it runs on.

        The caller has claimed the parameters, and `epochs_done` were done when it asked.
        """
        if self.epochs_done != epochs_done:
            raise already_trained()  # a fit in another thread has come and gone meanwhile
        goal, saved = request.goal, request.saved
        if saved is not None:  # otherwise nothing is lost when the loop refuses
            goal.plan.engine.require_unchanged()
        self._compiled.train_on(goal)
        if saved is not None:
            self._go_back_to(saved)
        if request.share is not None:
            request.begin_together(request.share)
        validation = request.validation()
        if validation is not None:
            stack.enter_context(validation)
        try:
            loop = stack.enter_context(request.loop())
        except GraphError:
            goal.plan.engine.require_unchanged()
            raise
        shown = verbose and not any(c.shows_progress for c in request.listeners)
        shown = shown and self.communicator.rank == 0
        progress = company().progress(request.left, loop.samples, shown)
        stack.callback(progress.close)
        fit = Fit(
            self,
            goal,
            loop,
            validation,
            request.listeners,
            request.history,
            progress,
            request.shuffle,
            request.accumulate,
            request.validation_rows,
        )
        if saved is not None:
            saved.seek(loop)
        request.data.labels.keep(goal)
        self.stop_training = False
        return fit

    def _run(self, fit: Fit, saved: resuming.SavedTraining | None) -> None:
        """Train to the end, and let go of the data; how far it has come is counted elsewhere."""
        self._last_fit = fit
        try:
            fit.run(lambda: None if saved is None else saved.give_back(fit))
        finally:
            fit.running = False
            del fit.loop, fit.validation, fit.trainer

    def _tell_of_end(self, fit: Fit) -> None:
        for callback in fit.called:
            callback.on_fit_end(self, fit.history)
        notify("fit_end", trainer=self, history=fit.history)

    @answering
    def evaluate(
        self,
        X: Any,  # noqa: N803
        Y: Any = None,  # noqa: N803
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
            Rows that are computed at a time; default: all of them, or as many as some 64 MB take.

        Returns
        -------
        dict of str to float
            (of str to ndarray for metrics that are no numbers)

        Raises
        ------
        ArgumentError, ShapeError, DTypeError, FeedError, LabelError
        """
        with closing(self._data(X, Y, sample_weight, bound=BYTES_AT_ONCE)) as data:
            goal, size = data.goal, batch_size
            if isinstance(data, Streamed):
                size = data.size(size)
            elif size is None:
                size = data.rows_at_once()
            with data.loop(epochs=1, batch_size=size, shuffle=False, training=False) as loop:
                while loop.run(SECONDS_PER_LOOK) != "done":
                    pass
                return goal.logs(loop.records[0]) | goal.whole_logs(loop)

    @answering
    def find_learning_rate(
        self,
        X: Any = None,  # noqa: N803
        Y: Any = None,  # noqa: N803
        *,
        low: float = 1e-6,
        high: float = 1.0,
        steps: int = 100,
        batch_size: int | Literal["auto"] | None = "auto",
        sample_weight: Any = None,
        seed: int = 0,
    ) -> RateRange:
        """Train for a while on rates that rise from low to high, and put everything back.

        Where the loss falls fastest is a good rate; where it begins to rise, one is too large. The
        test ends early once the loss has grown far beyond what it was, or is no number. Parameters,
        states, what the optimizer keeps, and the count of steps are then what they were before.

        Parameters
        ----------
        X, Y, batch_size, sample_weight, seed
            As for `fit`. A callback passes none: those of the fit under way count.
        low, high : float, above 0
            Step s of n has the rate ``low (high / low)^(s / (n - 1))``.
        steps : int, at least 3, default 100

        Returns
        -------
        RateRange
            With ``rates``, ``losses`` and a ``suggestion``; `plotting.learning_rate_finder` draws
            it.

        Raises
        ------
        ArgumentError
            If a number makes no sense, or the optimizer has no learning rate.
        ShapeError, DTypeError, FeedError, LabelError
            If the data do not fit the model.
        BusyError
            If the parameters are being trained.

        References
        ----------
        Smith, "Cyclical learning rates for training neural networks", 2017, section 3.3; with rates
        that rise exponentially.

        Examples
        --------
        >>> import numpy as np, pyframe as pf
        >>> x = np.linspace(-1, 1, 64).reshape(-1, 1)
        >>> model = pf.Sequential([pf.layers.Dense(8, activation="tanh"), pf.layers.Dense(1)])
        >>> found = pf.Trainer(model, optimizer="sgd").find_learning_rate(x, x**2, high=10.0)
        >>> bool(1e-6 < found.suggestion < 10)
        True
        """
        fit = self._last_fit
        if X is None and fit is not None and fit.running:
            if isinstance(fit.loop, BatchLoop):
                raise ArgumentError(
                    "a fit on batches has no data to try rates on: find the rate before it, by "
                    "trainer.find_learning_rate(X, Y)"
                )
            under_way = Feeds(fit.goal, dict(fit.loop.arrays), Labels(self.model))
            return range_test(
                under_way, low, high, steps, fit.batch_size, fit.history.seed, claimed=True
            )
        with closing(self._data(X, Y, sample_weight)) as data:
            return range_test(data, low, high, steps, data.size(batch_size), seed)

    @answering
    def predict(self, X: Any, batch_size: int | None = None) -> Any:  # noqa: N803
        """Return the model's outputs; see `Model.predict`."""
        return self.model.predict(X, batch_size)

    def _data(
        self,
        X: Any,  # noqa: N803
        Y: Any,  # noqa: N803
        sample_weight: Any,
        steps: int | None = None,
        first_epoch: int = 0,
        bound: int | None = None,
    ) -> Feeds | Streamed:
        """Return data for the goal, which is compiled if it is not yet."""
        if Y is None:
            if sample_weight is not None:
                raise ArgumentError("batches bring their weights: (X, Y, sample_weight)")
            batches = Batches(X, steps)
            parts = parts_of(batches.begin(first_epoch), self.model)
            input_arrays(self.model, parts.X)  # the model is built for them
            goal, labels = self._goal(parts.weight is not None), Labels(self.model, are_all=False)
            return Streamed(goal, self.model, batches, labels)
        if steps is not None:
            raise ArgumentError("steps_per_epoch is for batches; of arrays an epoch has all rows")
        inputs = input_arrays(self.model, X, bound)
        goal = self._goal(sample_weight is not None)
        return feeds_of(goal, inputs, Y, sample_weight, Labels(self.model))

    def _goal(self, weighted: bool) -> CompiledGoal:
        """Return the goal for data with or without sample weights, as a plan."""
        return self._compiled.get(
            self.optimizer, weighted=weighted, detect_anomaly=self.detect_anomaly
        )

    # ---- files ----

    @answering
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model and the state of its training to one file.

        `pyframe.load` reads the model from it; `load` and `restore` read the training too, and
        ``fit(..., resume=path)`` goes on with a fit. A callback may call this in the middle of one;
        what another thread writes meanwhile holds no fit to go on with, for that is not at rest.
        Where ranks share out the optimizer's state, all of them call this, and the first writes.
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
        ranks = self.plan.engine.state.ranks
        if ranks is None or not ranks.rank:
            checkpoint.save(self.model, path, self._training)
        else:
            self._training()  # its part
        if ranks is not None:
            ranks.barrier()

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

    @answering
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
        goal = self._goal(resuming.is_weighted(path))
        saved = resuming.read(path, self, goal)
        with goal.plan.claim():  # or BusyError: somebody else is training them
            self._compiled.train_on(goal)
            self._go_back_to(saved)

    def _training(self) -> checkpoint.Training:
        """Return the state of the training, for a file; the caller keeps updates out."""
        upcoming = self._compiled.upcoming(self.optimizer, detect_anomaly=self.detect_anomaly)
        return resuming.collect(self, self._last_fit, *upcoming)

    def _go_back_to(self, saved: resuming.SavedTraining) -> None:
        """Go back to what a file holds: all of it, or with an error nothing.

        Parameters, states, slots, the step count, the number of epochs. The caller has claimed the
        parameters.
        """
        names = {"_last_fit": None, "_epochs_before": saved.epochs_done}
        saved.plan.restore(saved.snapshot, also=map(setattr, repeat(self), names, names.values()))
