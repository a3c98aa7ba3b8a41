"""What both estimators of whole networks share: making the network, training it, running it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import (
    Hidden,
    Interval,
    StrOptions,
    validate_parameter_constraints,
)
from sklearn.utils.validation import check_is_fitted, validate_data

from pyframe import losses, optimizers
from pyframe.attributes import optional, whole
from pyframe.callbacks import Callback
from pyframe.callbacks import get as get_callback
from pyframe.checkpoint.arguments import Lost, require
from pyframe.data.batches import held_out
from pyframe.errors import check_integer, warn
from pyframe.estimators._files import Filed
from pyframe.estimators._reach import Reaching
from pyframe.estimators._scaling import Scaling
from pyframe.estimators._weights import weights_of
from pyframe.graph.arrays import unmasked
from pyframe.initializers import seeded
from pyframe.layers import BatchNorm, Dense, Layer
from pyframe.layers.base import unbuilt
from pyframe.model import Model, Sequential
from pyframe.optimizers import AdamW
from pyframe.training.trainer import Trainer

ROWS_OF_PRIOR = 150  # that the weight decay of a classifier counts as much as
AUTO_BATCH = 32
ROWS_AT_ONCE = 4096  # of a prediction: it bounds the memory, also for sparse input
LEARNED = 0.99  # of the first loss: below it something was learned
FLOATS = (np.float64, np.float32)


# What a network that is trained further still needs of the parameters.
OF_TRAINING = (
    "loss", "optimizer", "learning_rate", "metrics", "callbacks", "schedule", "class_weight",
)  # fmt: skip


def is_named(loss: Any, name: str) -> bool:
    """Return whether a loss, given by name or as a callable, is the one of a name."""
    return losses.get(loss) is losses.get(name)


def is_text(value: Any, text: str) -> bool:
    """Return whether a parameter, which may be anything as yet, is a text."""
    return isinstance(value, str) and value == text


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


class NetworkEstimator(Filed, Reaching):
    """The base of classifiers and regressors: the network, its data and its training."""

    _kind = "network"
    layers: Any
    _parameter_constraints: dict[str, Any] = {
        "layers": ["array-like", None],
        "build_fn": [callable, None],
        "build_args": [dict, None],
        "head": ["boolean"],
        "scale_features": ["boolean", StrOptions({"auto"})],
        "loss": [str, callable],
        "optimizer": [object],
        "learning_rate": [object],
        "weight_decay": [
            StrOptions({"auto", "prior"}),
            Interval(Real, 0, None, closed="left"),
            None,
        ],
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
        "dtype": [Hidden(type), StrOptions({"float32", "float64"}), None],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def _validate_params(self, *needed: str) -> None:
        """Check parameters; of those that a file has lost only what is needed, by default all."""
        require(self, *needed)
        given = self.get_params(deep=False)
        there = {name: value for name, value in given.items() if not isinstance(value, Lost)}
        validate_parameter_constraints(
            self._parameter_constraints, there, caller_name=type(self).__name__
        )

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
        lost = isinstance(self.input_shape, Lost)  # not in the file, whose network has it
        given = self.sample_shape_ if lost else self.input_shape
        shape = tuple(check_integer("input_shape", n, at_least=1) for n in given)
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

    def _weights(self, sample_weight: Any, X: Any) -> Any:  # noqa: N803
        return weights_of(sample_weight, X)

    # ---- the network ----

    def _described(self) -> Sequence[Any]:
        if self.build_fn is not None:
            return () if self.layers is None else self.layers
        return [Dense(100, activation="relu")] if self.layers is None else self.layers

    def _scales(self) -> bool:
        """Return whether the network begins with a scaling of the features."""
        if is_text(self.scale_features, "auto"):
            return self.layers is None and self.build_fn is None
        return bool(self.scale_features)

    def _layers(self, shape: tuple[int, ...], outputs: int) -> Sequence[Any] | Model:
        """Return fresh layers: those given are a description, and are never trained."""
        if self.build_fn is not None:
            if self.layers is not None:
                raise ValueError("pass layers or build_fn, not both")
            made = self.build_fn(shape, outputs, **(self.build_args or {}))
            if not isinstance(made, Layer | Model | Sequence) or isinstance(made, str):
                raise TypeError(
                    f"build_fn must return a Model or a list of layers, and returned {made!r}"
                )
            return [made] if isinstance(made, Layer) else made
        given = self._described()
        for layer in given:
            if not isinstance(layer, Layer):
                raise TypeError(f"layers: {layer!r} is no pyframe layer")
        return [*map(unbuilt, given), *([Dense(outputs)] if self.head else [])]

    def _network(self, shape: tuple[int, ...], outputs: int, dtype: Any) -> Model:
        made, scales = self._layers(shape, outputs), self._scales()
        if isinstance(made, Model):
            if scales:
                raise ValueError("scale_features takes layers, and build_fn has returned a Model")
            if not made.built:
                made.build_for(np.empty((1, *shape), dtype))
            return made
        layers = list(made)
        if scales:
            layers.insert(0, BatchNorm(name="features"))
            layers[0].trainable = False
        return Sequential(layers, input_shape=shape, dtype=dtype)

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
        self._have(model)

    def _have(self, model: Model, *, begun: bool = False) -> None:
        """Have a network that nothing is known of yet but whether it has begun to learn."""
        self.model_ = model
        self.history_: dict[str, list[Any]] = {}
        self.n_iter_ = 0
        self._begun = begun  # otherwise what depends on the data is still to be set
        self._rows: int | None = None  # that the prior of the weights is compared with
        self._scaling: Scaling | None = None  # that further batches are added to
        self._trainer: Trainer | None = None
        self._settings: list[Any] = []  # that it was made with
        self._sets_rate = False

    def _start(self, X: Any, outputs: int, *, go_on: bool) -> None:  # noqa: N803
        """Make the network, unless an existing one is to be trained further."""
        if go_on:  # also a second partial_fit, whose parameters nobody else checks
            self._validate_params(*OF_TRAINING)
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

    # ---- training ----

    def _loss(self) -> Any:
        return self.loss

    def _optimizer(self) -> Any:
        if not self._is_auto():
            return self.optimizer
        return AdamW(2e-3, weight_decay=0.1) if is_classifier(self) else "adam"

    def _is_auto(self) -> bool:
        """Return whether nobody has asked for an optimizer."""
        return is_text(self.optimizer, "auto")

    def _has_prior(self) -> bool:
        """Return whether the weight decay goes by the number of rows."""
        if is_text(self.weight_decay, "auto"):
            return self._is_auto() and bool(is_classifier(self))
        return is_text(self.weight_decay, "prior")

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

    def _present_trainer(self) -> Trainer:
        """Return the trainer, a new one if what it was made with has been set anew."""
        settings = [self.loss, self.optimizer, *self.metrics, None, *self.callbacks]
        if (
            self._trainer is None
            or len(settings) != len(self._settings)
            or any(
                now is not then and not (isinstance(now, str) and now == then)
                for now, then in zip(settings, self._settings, strict=True)
            )
        ):
            self._trainer, self._settings = self._new_trainer(), settings
            self._sets_rate = False
        optimizer = self._trainer.optimizer
        if self.learning_rate is not None:
            optimizer.learning_rate = self.learning_rate
        elif self._sets_rate:  # it has been set back: the optimizer's own
            optimizer.learning_rate = optimizers.get(self._optimizer()).learning_rate
        self._sets_rate = self.learning_rate is not None
        return self._trainer

    def _set_decay(self, optimizer: Any) -> None:
        """Have the optimizer's weight decay be what the estimator says, or the optimizer's own."""
        decay: Any = optimizers.get(self._optimizer()).options.get("weight_decay")
        if self._has_prior():
            if self._rows is not None:  # it weighs less the more rows there are
                decay = min(1.0, ROWS_OF_PRIOR / self._rows)
        elif self.weight_decay not in ("auto", None):
            decay = self.weight_decay
        if decay is None:
            return
        if "weight_decay" not in optimizer.options:
            name = type(optimizer).__name__
            raise ValueError(f"weight_decay={self.weight_decay!r}: {name} has none, and AdamW has")
        if optimizer.weight_decay != decay:  # setting it has the plan compiled anew
            optimizer.weight_decay = decay

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
            self._rows = len(rows) if epochs is None else None
            self._scaling = Scaling() if self._scales() else None
            self._begun = True
        self._scale(rows, weight, is_whole=epochs is None)
        self._set_decay(trainer.optimizer)
        batch = AUTO_BATCH if self.batch_size == "auto" else self.batch_size
        stop = []
        if epochs is None and self.tol is not None:
            relative, alone = not is_classifier(self), not self.callbacks_
            stop.append(Convergence(self.tol, self.n_iter_no_change, relative, alone))
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
        self._check_finite(history)
        if stop and not history.interrupted:
            self._tell_whether_converged(stop[0], trainer.stop_training)
        self.history_ = {k: [*self.history_.get(k, ()), *v] for k, v in history.items()}
        self.n_iter_ += history.epochs

    def _tell_whether_converged(self, convergence: Convergence, stopped: bool) -> None:
        name = type(self).__name__
        if not stopped:
            warn(
                f"{name} has not converged in {self.epochs} epochs: its loss was still falling. "
                "Raise epochs or learning_rate, scale the features (StandardScaler), or pass "
                "tol=None, which trains for all epochs and says nothing",
                ConvergenceWarning,
            )
        elif not convergence.has_learned():
            warn(
                f"{name} has learned next to nothing: its loss has fallen by less than a "
                "hundredth. If the targets are great numbers, scale them "
                "(TransformedTargetRegressor with a StandardScaler), or raise learning_rate",
                ConvergenceWarning,
            )

    def _check_finite(self, history: Mapping[str, Any]) -> None:
        last = [np.asarray(history["loss"][-1:]), *self.model_.get_weights().values()]
        if not all(np.isfinite(numbers).all() for numbers in last):
            raise ValueError(  # scikit-learn's own words
                "Solver produced non-finite parameter weights. The input data may contain large "
                "values and need to be preprocessed."
            )

    def _begin(self, rows: Any, targets: Any, weight: Any) -> None:
        """Set what depends on the data."""

    def _scale(self, rows: Any, weight: Any, *, is_whole: bool) -> None:
        """Scale features by the rows of the first fit, or of all batches of `partial_fit`."""
        if self._scaling is None:
            return
        scaling = copy.copy(self._scaling)
        scaling.add(rows, weight if weight is None or np.any(weight) else None)
        scaling.set(self.model_.layers[0])
        # What a whole fit has learned rests on its scale.
        self._scaling = None if is_whole else scaling

    def outputs_of(self, X: Any) -> Any:  # noqa: N803
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

    # ---- files ----

    def _as_model(self) -> Model:
        return self.model_

    def _notes(self) -> dict[str, Any]:
        return {"rows": self._rows}

    def _take(self, model: Model, notes: Mapping[str, Any] | None, source: str) -> None:
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            raise ValueError(f"{source} has a network of several inputs or outputs")
        notes = notes or {"parameters": {}}
        if "layers" not in notes["parameters"] and self.layers is None and self.build_fn is None:
            self.layers = Lost(f"no {type(self).__name__} has saved it")
        self._have(model, begun=True)
        self._rows = optional(whole(at_least=1))(notes.get("rows"), "estimator.rows")
        self.sample_shape_ = tuple(n or 0 for n in (model.inputs[0].shape or ())[1:])
        self.n_features_in_ = (self.sample_shape_ or (1,))[0]
        if self.input_shape is not None:
            lost = isinstance(self.input_shape, Lost)
            shape = self.sample_shape_ if lost else tuple(int(n) for n in self.input_shape)
            self.n_features_in_ = int(np.prod(shape))
        self._seed = 0
        self._take_meaning(model, notes)

    def _take_meaning(self, model: Model, notes: Mapping[str, Any]) -> None:
        """Learn from a model of a file what its outputs mean."""
        raise NotImplementedError

    # ---- scikit-learn's protocol ----

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.three_d_array = True
        return tags
