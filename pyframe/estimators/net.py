"""Whole networks as scikit-learn estimators."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from scipy.sparse import issparse
from sklearn.base import ClassifierMixin, RegressorMixin, _fit_context, is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import assert_all_finite, check_random_state, column_or_1d
from sklearn.utils._param_validation import Hidden, Interval, Options, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from pyframe import losses
from pyframe.callbacks import Callback
from pyframe.callbacks import get as get_callback
from pyframe.data.held_out import held_out
from pyframe.errors import warn
from pyframe.estimators import _files
from pyframe.estimators._reach import Reaching
from pyframe.estimators._weights import sample_weights
from pyframe.estimators._whole import fitting, twin
from pyframe.graph.arrays import unmasked
from pyframe.initializers import seeded
from pyframe.layers import BatchNorm, Dense, Layer
from pyframe.layers.base import unbuilt
from pyframe.model import Model, Sequential
from pyframe.ops.logits import before_sigmoid, behind
from pyframe.ops.softmax import Softmax
from pyframe.optimizers import AdamW
from pyframe.outcomes import OF_CLASSES, OF_LABELS, Outcome, classes_of, labels_in, named
from pyframe.training.trainer import Trainer

ROWS_OF_PRIOR = 150  # that the weight decay of a classifier counts as much as
AUTO_BATCH = 32
ROWS_AT_ONCE = 4096  # of a prediction: it bounds the memory, also for sparse input
FLOATS = (np.float64, np.float32)
IN_UNITS = ("l2", "l1", "huber", "log_cosh")  # losses of predictions in the targets' unit


def _is(loss: Any, name: str) -> bool:
    """Return whether a loss, given by name or as a callable, is the one of a name."""
    return losses.get(loss) is losses.get(name)


class _Convergence(Callback):
    """Stops a fit whose loss has fallen by no more than `tol` in each of some epochs.

    Of numbers, whose loss has a unit, `tol` is a part of the loss. With `restores` the fit ends
    where the loss was least: steps of a great rate end anywhere.
    """

    def __init__(self, tol: float, patience: int, relative: bool, restores: bool) -> None:
        self.tol, self.patience, self.relative, self.restores = tol, patience, relative, restores

    def on_fit_start(self, trainer: Any) -> None:
        self.best, self.waited = np.inf, 0
        self.snapshot: Any = None

    def on_epoch_end(self, trainer: Any, epoch: int, logs: Mapping[str, Any]) -> None:
        loss = logs["loss"]
        least = self.tol * min(abs(self.best), 1e300) if self.relative else self.tol
        self.waited = self.waited + 1 if loss > self.best - least else 0
        if loss < self.best:
            self.best = loss
            self.snapshot = trainer.plan.snapshot() if self.restores else None
        if self.waited >= self.patience:
            trainer.stop_training = True

    def on_fit_end(self, trainer: Any, history: Any) -> None:
        if self.snapshot is not None:
            trainer.plan.restore(self.snapshot)
        self.snapshot = None


class _Net(Reaching):
    """The base of classifiers and regressors: the network, its data and its training."""

    _parameter_constraints: dict[str, Any] = {
        "layers": ["array-like", None],
        "build_fn": [callable, None],
        "build_args": [dict, None],
        "head": ["boolean"],
        "loss": [str, callable],
        "optimizer": [object],
        "learning_rate": [object],
        "metrics": ["array-like"],
        "callbacks": ["array-like"],
        "epochs": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left"), None],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left"), None],
        "validation_split": [Interval(Real, 0, 1, closed="left")],
        "shuffle": ["boolean"],
        "schedule": [object],
        "input_shape": [tuple, list, None],
        "dtype": [Options(object, {None}), Hidden(type), StrOptions({"float32", "float64"})],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    # ---- data ----

    def _checked(self, *data: Any, reset: bool, **checks: Any) -> Any:
        """Return X, or (X, y), checked by scikit-learn."""
        data = tuple(map(unmasked, data, ("X", "y")))
        return validate_data(
            self, *data, reset=reset, accept_sparse="csr", allow_nd=True, dtype=FLOATS, **checks
        )

    def _shape_of(self, X: Any) -> tuple[int, ...]:  # noqa: N803
        """Return the shape of a sample for the network."""
        if self.input_shape is None or X.ndim > 2:
            return tuple(X.shape[1:])
        shape = tuple(int(n) for n in self.input_shape)
        if int(np.prod(shape)) != X.shape[1]:
            raise ValueError(
                f"input_shape {shape} needs {int(np.prod(shape))} features a sample, and X has "
                f"{X.shape[1]}"
            )
        return shape

    def _dense(self, X: Any) -> Any:  # noqa: N803
        """Return some rows in the form that the network takes."""
        rows = X.toarray() if issparse(X) else X
        return np.ascontiguousarray(rows, self.model_.inputs[0].dtype).reshape(
            len(rows), *self.sample_shape_
        )

    # ---- the network ----

    def _layers(self) -> list[Layer]:
        """Return fresh layers: those given are a description, and are never trained."""
        given = self._described()
        for layer in given:
            if not isinstance(layer, Layer):
                raise TypeError(f"layers: {layer!r} is no pyframe layer")
        layers = [unbuilt(layer) for layer in given]
        if self.layers is None:
            layers.insert(0, BatchNorm(name="features"))
            layers[0].trainable = False
        return layers

    def _described(self) -> Sequence[Any]:
        return [Dense(100, activation="relu")] if self.layers is None else self.layers

    def _network(self, shape: tuple[int, ...], outputs: int, dtype: Any) -> Model:
        if self.build_fn is None:
            layers = self._layers()
            if self.head:
                layers.append(Dense(outputs))
            return Sequential(layers, input_shape=shape, dtype=dtype)
        if self.layers is not None:
            raise ValueError("pass layers or build_fn, not both")
        made = self.build_fn(shape, outputs, **(self.build_args or {}))
        if isinstance(made, Layer):
            made = [made]
        if isinstance(made, Model):
            if not made.built:
                made.build_for(np.empty((1, *shape), dtype))
            return made
        if not isinstance(made, Sequence) or isinstance(made, str):
            raise TypeError(
                f"build_fn must return a Model or a list of layers, and returned {made!r}"
            )
        return Sequential(list(made), input_shape=shape, dtype=dtype)

    def _build(self, shape: tuple[int, ...], outputs: int, dtype: Any) -> None:
        """Make the network, its initial weights and its trainer."""
        self.sample_shape_ = shape
        with seeded(self._seed):
            model = self._network(shape, outputs, dtype)
            if len(model.inputs) != 1 or len(model.outputs) != 1:
                raise ValueError(
                    f"an estimator needs a network of one input and one output; this one has "
                    f"{len(model.inputs)} and {len(model.outputs)}"
                )
            made = model.outputs[0].shape
            if made is None or len(made) != 2 or made[1] != outputs:
                raise ValueError(
                    f"the network gives {made} for a batch, and these targets need (n, {outputs}): "
                    "end with as many units, or leave the last layer to head=True"
                )
        self.model_ = model
        self.history_: dict[str, list[Any]] = {}
        self.n_iter_ = 0
        self._begun = False  # what depends on the data is still to be set
        self._trainer: Trainer | None = None
        self._settings: list[Any] = []  # that it was made with

    def _new_trainer(self) -> Trainer:
        self.callbacks_ = [self._own(callback) for callback in self.callbacks]
        return Trainer(
            self.model_,
            loss=self._loss(),
            optimizer=copy.deepcopy(self._optimizer()),
            metrics=list(self.metrics),
            callbacks=self.callbacks_,
        )

    @staticmethod
    def _own(callback: Any) -> Callback:
        return get_callback(callback if isinstance(callback, type | str) else copy.copy(callback))

    def _loss(self) -> Any:
        return self.loss

    def _optimizer(self) -> Any:
        if self._is_auto():
            return AdamW(2e-3, weight_decay=0.1)
        return (
            "adam"
            if isinstance(self.optimizer, str) and self.optimizer == "auto"
            else self.optimizer
        )

    def _is_auto(self) -> bool:
        """Return whether the optimizer is the one for classes that nobody has asked for."""
        auto = isinstance(self.optimizer, str) and self.optimizer == "auto"
        return auto and bool(is_classifier(self))

    def _start(self, X: Any, outputs: int, *, go_on: bool) -> None:  # noqa: N803
        """Make the network, unless an existing one is to be trained further."""
        shape = self._shape_of(X)
        if not go_on:
            self._seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
            self._build(shape, outputs, self.dtype or X.dtype)
            return
        if shape != self.sample_shape_:
            raise ValueError(
                f"a sample has the shape {shape}; the network was made for {self.sample_shape_}"
            )
        before = (self.model_.outputs[0].shape or ())[-1]
        if before != outputs:
            raise ValueError(
                f"the targets need {outputs} outputs; the network to go on with has {before}"
            )

    def _present_trainer(self) -> Trainer:
        """Return the trainer, a new one if what it was made with has been set anew."""
        settings = [self.loss, self.optimizer, self.metrics, self.callbacks]
        if self._trainer is None or any(
            now is not then and not (isinstance(now, str) and now == then)
            for now, then in zip(settings, self._settings, strict=True)
        ):
            self._trainer, self._settings = self._new_trainer(), settings
        if self.learning_rate is not None:
            self._trainer.optimizer.learning_rate = self.learning_rate
        return self._trainer

    def _train(
        self,
        X: Any,  # noqa: N803
        targets: Any,
        weight: Any,
        strata: Any,
        epochs: int | None = None,
    ) -> None:
        """Train for some epochs, or until the loss falls no more; rows are held out by strata."""
        trainer = self._present_trainer()
        rows, validation = self._dense(X), None
        if self.validation_split:
            kept, held = held_out(strata, self.validation_split, self._seed)
            if not len(held):
                raise ValueError(
                    f"validation_split={self.validation_split} of {len(rows)} rows is none"
                )
            parts = [rows, targets, *([] if weight is None else [weight])]
            validation = tuple(part[held] for part in parts)
            rows, targets, weight = (*(part[kept] for part in parts), None)[:3]
        if not self._begun:
            self._begin(rows, targets, weight)
            if self._is_auto() and epochs is None:  # a prior weighs less the more rows there are
                trainer.optimizer.weight_decay = min(1.0, ROWS_OF_PRIOR / len(rows))
            self._begun = True
        batch = AUTO_BATCH if self.batch_size == "auto" else self.batch_size
        stop = []
        if epochs is None and self.tol is not None:
            relative, alone = not is_classifier(self), not self.callbacks_
            stop.append(_Convergence(self.tol, self.n_iter_no_change, relative, alone))
        history = trainer.fit(
            rows,
            targets,
            epochs or self.epochs,
            min(batch, len(rows)) if batch is not None else None,
            validation_data=validation,
            shuffle=self.shuffle,
            seed=self._seed,
            sample_weight=weight,
            callbacks=stop,
            schedule=self.schedule,
            verbose=int(self.verbose),
        )
        if history.interrupted:
            warn("Training interrupted by user.")
        last = [np.asarray(history["loss"][-1:]), *self.model_.get_weights().values()]
        if not all(np.isfinite(numbers).all() for numbers in last):
            raise ValueError(  # scikit-learn's own words
                "Solver produced non-finite parameter weights. The input data may contain large "
                "values and need to be preprocessed."
            )
        if stop and not (trainer.stop_training or history.interrupted):
            warn(
                f"{type(self).__name__} has not converged in {self.epochs} epochs: its loss was "
                "still falling. Raise epochs or learning_rate, scale the features "
                "(StandardScaler), or pass tol=None, which trains for all epochs and says nothing",
                ConvergenceWarning,
            )
        self.history_ = {k: [*self.history_.get(k, ()), *v] for k, v in history.items()}
        self.n_iter_ += history.epochs

    def _begin(self, rows: Any, targets: Any, weight: Any) -> None:
        """Set what depends on the data: how the network that stands for none scales features."""
        if self.layers is not None or self.build_fn is not None:
            return
        weight = weight if weight is None or np.any(weight) else None
        mean = np.average(rows, axis=0, weights=weight)
        variance = np.average((rows - mean) ** 2, axis=0, weights=weight)
        wide = variance > 1
        scaling: Any = self.model_.layers[0]
        scaling.mean.value = np.where(wide, mean, 0)
        scaling.variance.value = np.where(wide, variance, 1)

    def _outputs(self, X: Any) -> Any:  # noqa: N803
        """Return the outputs of the network, computed part by part."""
        check_is_fitted(self)
        X = self._checked(X, reset=False)  # noqa: N806
        shape = self._shape_of(X)
        if shape != self.sample_shape_:
            raise ValueError(
                f"a sample has the shape {shape}; the network was fitted to {self.sample_shape_}"
            )
        parts = [
            self.model_.predict(self._dense(X[start : start + ROWS_AT_ONCE]))
            for start in range(0, X.shape[0], ROWS_AT_ONCE)
        ]
        return np.concatenate(parts)

    def _weights(self, sample_weight: Any, X: Any) -> Any:  # noqa: N803
        return None if sample_weight is None else _check_sample_weight(sample_weight, X)

    # ---- files ----

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted network, with its classes, to a file that `load` and `pf.load` read.

        Of the parameters those are in it that are numbers, texts or lists of them.

        Parameters
        ----------
        path : path-like
        """
        check_is_fitted(self)
        _files.save(self, self.model_, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], **parameters: Any) -> Self:
        """Return a fitted estimator with the network of a file.

        Parameters
        ----------
        path : path-like
        **parameters
            Of the estimator, in place of those in the file: what the next fit goes by.

        Raises
        ------
        CheckpointError, OSError
            If the file is damaged or cannot be read.
        ValueError
            If it is not of an estimator of this kind.
        """
        net: Self
        net, model = _files.read(cls, path, parameters)
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            raise ValueError(f"{os.fspath(path)} has a network of several inputs or outputs")
        net.model_, net.history_, net.n_iter_ = model, {}, 0
        net.sample_shape_ = tuple(n or 0 for n in (model.inputs[0].shape or ())[1:])
        net.n_features_in_ = (net.input_shape or net.sample_shape_ or (1,))[0]
        if net.input_shape is not None:
            net.n_features_in_ = int(np.prod(net.input_shape))
        net._trainer, net._settings, net._seed, net._begun = None, [], 0, True
        net._take_meaning(model)
        return net

    def _take_meaning(self, model: Model) -> None:
        """Learn from a model of a file what its outputs mean."""
        raise NotImplementedError

    # ---- scikit-learn's protocol ----

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.three_d_array = True
        return tags


class NetClassifier(ClassifierMixin, _Net):
    """A network of pyframe layers as a scikit-learn classifier.

    Parameters
    ----------
    layers : list of Layer, optional
        The layers before the output layer. Each fit builds fresh ones like these. Default:
        ``[Dense(100, activation="relu")]``, behind a `BatchNorm` that stands still: it centers and
        scales features whose standard deviation is above 1.
    build_fn : callable, optional
        Instead of layers: ``build_fn(shape, outputs, **build_args)`` with the shape of a sample
        and the number of outputs returns all layers of the network, or a `Model`; called in every
        fit.
    build_args : dict, optional
    head : bool, default True
        Append ``Dense(outputs)`` to `layers`. With False the last of them must have as many
        outputs as there are classes.
    loss : str or callable, default "auto"
        ``"cross_entropy"``, or ``"binary_cross_entropy"`` for several labels a sample. Losses that
        take no labels get one-hot targets.
    optimizer : str, Optimizer or class, default "auto"
        For classes ``AdamW(2e-3)`` with a weight decay of 150 / rows, at most 1, as a prior weighs
        less the more rows there are (0.1 for `partial_fit`); for numbers ``"adam"``. An instance is
        copied for each fit.
    learning_rate : float, Schedule, str or callable, optional
        In place of the optimizer's.
    metrics : list of str or callable
    callbacks : list of Callback
        Each fit copies them; see ``callbacks_``.
    epochs : int, default 200
        At most; a `ConvergenceWarning` says when they were not enough.
    tol : float, optional, default 1e-4
        Training ends once the loss has not fallen by more than this, for numbers by this part of
        it, in any of `n_iter_no_change` epochs, and goes back to the least loss if there are no
        callbacks. None trains for all epochs, and ends with the last.
    n_iter_no_change : int, default 10
    batch_size : int, None or "auto"
        "auto" is 32, or all rows when there are fewer; None all of them.
    validation_split : float in [0, 1), default 0.0
        A part of the data that is not trained on, but evaluated after each epoch: drawn at random,
        in proportion to the classes, or to the targets' values.
    shuffle : bool, default True
    schedule : Schedule, str or callable, optional
    class_weight : dict or "balanced", optional
    input_shape : tuple of int, optional
        Of a sample, where X comes flat, (n, features): images in a pipeline, say.
    dtype : {"float32", "float64"}, optional
        Default: that of X; whole numbers count as float64.
    warm_start : bool, default False
        Continue from the last fit.
    random_state : int, RandomState or None
        Seed of initial weights, shuffling and dropout.
    verbose : int, default 0

    Attributes
    ----------
    model_ : Model
    classes_ : ndarray, or list of ndarray
    history_ : dict of str to list
        One value an epoch.
    callbacks_ : list of Callback
    n_iter_ : int
        Number of epochs so far.
    n_features_in_ : int
    feature_names_in_ : ndarray
        Only if X had column names.

    Raises
    ------
    ValueError, TypeError
        scikit-learn's own, for data and parameters that do not fit.

    Notes
    -----
    Parameters of the optimizer, the layers and the callbacks are parameters too:
    ``optimizer__learning_rate``, ``layers__0__units``, ``callbacks__early_stopping__patience``.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe.estimators import NetClassifier
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> net = NetClassifier(
    ...     [pf.layers.Dense(16, activation="relu")],
    ...     optimizer=pf.optimizers.Adam(0.02),
    ...     random_state=0,
    ... )
    >>> net.fit(X, y).score(X, y) > 0.95
    True
    """

    _parameter_constraints: dict[str, Any] = {
        **_Net._parameter_constraints,
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }

    def __init__(
        self,
        layers: Sequence[Layer] | None = None,
        *,
        build_fn: Callable[..., Any] | None = None,
        build_args: Mapping[str, Any] | None = None,
        head: bool = True,
        loss: Any = "auto",
        optimizer: Any = "auto",
        learning_rate: Any = None,
        metrics: Sequence[Any] = (),
        callbacks: Sequence[Any] = (),
        epochs: int = 200,
        tol: float | None = 1e-4,
        n_iter_no_change: int = 10,
        batch_size: Any = "auto",
        validation_split: float = 0.0,
        shuffle: bool = True,
        schedule: Any = None,
        class_weight: Any = None,
        input_shape: Sequence[int] | None = None,
        dtype: Any = None,
        warm_start: bool = False,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.layers = layers
        self.build_fn = build_fn
        self.build_args = build_args
        self.head = head
        self.loss = loss
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.metrics = metrics
        self.callbacks = callbacks
        self.epochs = epochs
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.batch_size = batch_size
        self.validation_split = validation_split
        self.shuffle = shuffle
        self.schedule = schedule
        self.class_weight = class_weight
        self.input_shape = input_shape
        self.dtype = dtype
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    def _loss(self) -> Any:
        if self.loss != "auto":
            return self.loss
        return "binary_cross_entropy" if self._multilabel else "cross_entropy"

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:  # noqa: N803
        """Fit the network.

        Parameters
        ----------
        X : array_like or sparse matrix, (n, features) or (n, ...)
        y : array_like (n,) of classes, or (n, labels) of 0 and 1
        sample_weight : array_like (n,), optional

        Returns
        -------
        self
        """
        with fitting(self) as net:
            go_on = net.warm_start and hasattr(net, "model_")
            X, y = net._check_data(X, y, reset=not go_on)  # noqa: N806
            if not go_on:
                net._learn_classes(y)
            net._fit(X, y, sample_weight, None, go_on)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self,
        X: Any,  # noqa: N803
        y: Any,
        classes: Any = None,
        sample_weight: Any = None,
    ) -> Self:
        """Train for one more epoch.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.
        classes : array_like, optional
            All classes that can occur; required in the first call.

        Returns
        -------
        self
        """
        if isinstance(self.class_weight, str):
            raise ValueError(
                "class_weight='balanced' needs all labels at once; for partial_fit pass the "
                "weights as a dict, or sample_weight"
            )
        with fitting(self) as net:
            go_on = hasattr(net, "model_")
            if not go_on and classes is None:
                raise ValueError("classes must be passed on the first call to partial_fit.")
            X, y = net._check_data(X, y, reset=not go_on)  # noqa: N806
            if not go_on:
                net._learn_classes(y, classes)
            elif classes is not None and not np.array_equal(np.unique(classes), net.classes_):
                raise ValueError(
                    f"`classes={classes!r}` is not the same as on last call to partial_fit, was: "
                    f"{net.classes_!r}"
                )
            net._fit(X, y, sample_weight, 1, go_on)
        return self

    def _check_data(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Any]:  # noqa: N803
        labels = labels_in(y)
        if labels is not None:
            classes_of(labels)  # says which is missing
        X, y = self._checked(X, y, reset=reset, multi_output=True)  # noqa: N806
        check_classification_targets(y)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return X, y

    def _learn_classes(self, y: Any, classes: Any = None) -> None:
        self._multilabel = type_of_target(y) == "multilabel-indicator"
        if y.ndim == 2 and not self._multilabel:
            raise ValueError(f"y is {type_of_target(y)}: several columns must be labels of 0 and 1")
        if self._multilabel:
            self.classes_ = np.arange(y.shape[1])
        else:
            self._encoder = LabelEncoder().fit(y if classes is None else np.asarray(classes))
            self.classes_ = self._encoder.classes_

    def _fit(self, X: Any, y: Any, weight: Any, epochs: int | None, go_on: bool) -> None:  # noqa: N803
        weight = self._weights(weight, X)
        self._start(X, len(self.classes_), go_on=go_on)
        if self._multilabel:
            if self.class_weight is not None:
                raise ValueError(
                    "class_weight is for one label a sample, and y has several: pass sample_weight"
                )
            targets = np.asarray(y, self.model_.inputs[0].dtype)
            strata = np.zeros(len(targets))
        else:
            unseen = np.setdiff1d(y, self.classes_)
            if len(unseen):
                raise ValueError(f"y contains previously unseen labels: {unseen.tolist()}")
            targets = strata = self._encoder.transform(y)
            if self.class_weight is not None:
                balanced = isinstance(self.class_weight, str)
                of_class = sample_weights(self.class_weight, y, None if balanced else self.classes_)
                weight = of_class if weight is None else weight * of_class
            if not _is(self._loss(), "cross_entropy"):
                targets = np.eye(len(self.classes_))[targets]
        self._train(X, targets, weight, strata, epochs)
        if not self._multilabel:  # for the file
            gives = self.model_.outcomes[0].gives
            gives = gives if gives in OF_CLASSES else "scores"
            self.model_.outcomes = [Outcome(gives, tuple(self.classes_.tolist()))]

    def _take_meaning(self, model: Model) -> None:
        outcome, units = model.outcomes[0], (model.outputs[0].shape or ())[-1] or 0
        if outcome.gives == "values":
            raise ValueError("the network of this file was not trained to classify")
        self._multilabel = outcome.gives in OF_LABELS and outcome.classes is None
        if outcome.classes is not None and units != len(outcome.classes):
            raise ValueError(
                f"the network of this file has {units} output(s) for {len(outcome.classes)} "
                "classes, and this estimator one for each; pyframe.load(...).predict_classes, or "
                "the kind of estimator that wrote it, reads it"
            )
        names = range(units) if outcome.classes is None else outcome.classes
        self._encoder = LabelEncoder().fit(named(list(names)))
        self.classes_ = self._encoder.classes_

    def decision_function(self, X: Any) -> Any:  # noqa: N803
        """Return the network's outputs, (n, classes); of two classes their difference, (n,)."""
        net = twin(self)
        outputs = net._outputs(X)
        if not net._multilabel and len(net.classes_) == 2:
            return outputs[:, 1] - outputs[:, 0]
        return outputs

    def _has_probabilities(self) -> bool:
        names = ("cross_entropy", "binary_cross_entropy")
        return self.loss == "auto" or any(_is(self.loss, name) for name in names)

    @available_if(_has_probabilities)
    def predict_proba(self, X: Any) -> Any:  # noqa: N803
        """Return the probability of each class, or label, (n, classes)."""
        net = twin(self)
        outputs = net._outputs(X)
        made = net.model_.outputs[0]
        if _is(net._loss(), "cross_entropy"):
            if behind(Softmax, made) is not None:
                return outputs
            powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
            return powers / powers.sum(axis=1, keepdims=True)
        is_sigmoid = before_sigmoid(made) is not None
        probabilities = outputs if is_sigmoid else 0.5 * (1 + np.tanh(0.5 * outputs))
        if net._multilabel:
            return probabilities
        return probabilities / probabilities.sum(axis=1, keepdims=True)

    @available_if(_has_probabilities)
    def predict_log_proba(self, X: Any) -> Any:  # noqa: N803
        """Return the logarithm of `predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def predict(self, X: Any) -> Any:  # noqa: N803
        """Return the most likely class (n,), or which labels are likely (n, labels)."""
        net = twin(self)
        outputs = net._outputs(X)
        if net._multilabel:
            logits = before_sigmoid(net.model_.outputs[0]) is None and _is(
                net._loss(), "binary_cross_entropy"
            )
            least = 0.0 if logits else 0.5
            return (outputs > least).astype(int)
        return net.classes_[outputs.argmax(axis=1)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class NetRegressor(RegressorMixin, _Net):
    """A network of pyframe layers as a scikit-learn regressor.

    Parameters
    ----------
    layers, build_fn, build_args, head, optimizer, learning_rate, metrics, callbacks, epochs, tol,
    n_iter_no_change, batch_size, validation_split, shuffle, schedule, input_shape, dtype,
    warm_start, random_state, verbose
        As for `NetClassifier`.
    loss : str or callable, default "l2"
        With "l2", "l1", "huber" and "log_cosh" outputs begin at the mean of the targets.

    Attributes
    ----------
    model_, history_, callbacks_, n_iter_, n_features_in_, feature_names_in_
        As of `NetClassifier`.
    n_outputs_ : int

    Raises
    ------
    ValueError, TypeError
        scikit-learn's own, for data and parameters that do not fit.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> from pyframe.estimators import NetRegressor
    >>> X = np.linspace(-1, 1, 200).reshape(-1, 1)
    >>> net = NetRegressor(optimizer=pf.optimizers.Adam(0.01), epochs=300, random_state=0)
    >>> net.fit(X, X[:, 0] ** 2).score(X, X[:, 0] ** 2) > 0.95
    True
    """

    def __init__(
        self,
        layers: Sequence[Layer] | None = None,
        *,
        build_fn: Callable[..., Any] | None = None,
        build_args: Mapping[str, Any] | None = None,
        head: bool = True,
        loss: Any = "l2",
        optimizer: Any = "auto",
        learning_rate: Any = None,
        metrics: Sequence[Any] = (),
        callbacks: Sequence[Any] = (),
        epochs: int = 200,
        tol: float | None = 1e-4,
        n_iter_no_change: int = 10,
        batch_size: Any = "auto",
        validation_split: float = 0.0,
        shuffle: bool = True,
        schedule: Any = None,
        input_shape: Sequence[int] | None = None,
        dtype: Any = None,
        warm_start: bool = False,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.layers = layers
        self.build_fn = build_fn
        self.build_args = build_args
        self.head = head
        self.loss = loss
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.metrics = metrics
        self.callbacks = callbacks
        self.epochs = epochs
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.batch_size = batch_size
        self.validation_split = validation_split
        self.shuffle = shuffle
        self.schedule = schedule
        self.input_shape = input_shape
        self.dtype = dtype
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:  # noqa: N803
        """Fit the network.

        Parameters
        ----------
        X : array_like or sparse matrix, (n, features) or (n, ...)
        y : array_like (n,) or (n, outputs)
        sample_weight : array_like (n,), optional

        Returns
        -------
        self
        """
        with fitting(self) as net:
            go_on = net.warm_start and hasattr(net, "model_")
            net._fit(X, y, sample_weight, None, go_on)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:  # noqa: N803
        """Train for one more epoch; the arguments are those of `fit`."""
        with fitting(self) as net:
            net._fit(X, y, sample_weight, 1, hasattr(net, "model_"))
        return self

    def _fit(self, X: Any, y: Any, weight: Any, epochs: int | None, go_on: bool) -> None:  # noqa: N803
        X, y = self._checked(X, y, reset=not go_on, multi_output=True, y_numeric=True)  # noqa: N806
        assert_all_finite(y, input_name="y")  # None among objects is NaN only now
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        weight = self._weights(weight, X)
        self._column = y.ndim == 1
        targets = y.reshape(len(y), -1)
        self._start(X, targets.shape[1], go_on=go_on)
        self.n_outputs_ = targets.shape[1]
        self._train(X, targets, weight, targets[:, 0], epochs)

    def _begin(self, rows: Any, targets: Any, weight: Any) -> None:
        """Have the outputs begin at the mean of the targets, if they are in its unit."""
        super()._begin(rows, targets, weight)
        if self.build_fn is None and self.head and any(_is(self.loss, n) for n in IN_UNITS):
            if weight is not None and not np.any(weight):
                weight = None
            bias = self.model_.layers[-1].own_parameters()["bias"]
            bias.value = np.average(targets, axis=0, weights=weight)

    def _take_meaning(self, model: Model) -> None:
        if model.outcomes[0].gives != "values":
            raise ValueError("the network of this file was trained to classify")
        self.n_outputs_ = (model.outputs[0].shape or ())[-1]
        self._column = self.n_outputs_ == 1

    def predict(self, X: Any) -> Any:  # noqa: N803
        """Return the network's outputs, (n,) or (n, outputs) as y was."""
        net = twin(self)
        outputs = net._outputs(X)
        return outputs[:, 0] if net._column else outputs

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
