"""`NetClassifier` and `NetRegressor`: whole networks as scikit-learn estimators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin, _fit_context
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import assert_all_finite, column_or_1d
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from pyframe import losses
from pyframe.checkpoint.arguments import Lost
from pyframe.errors import ArgumentError
from pyframe.estimators._network import NetworkEstimator, is_named
from pyframe.estimators._weights import sample_weights
from pyframe.layers import Layer
from pyframe.model import Model
from pyframe.outcomes import (
    GIVES,
    OF_CLASSES,
    OF_LABELS,
    Outcome,
    classes_of,
    labels_in,
    outcome_of,
)
from pyframe.training.atomic import fitting, twin
from pyframe.training.goal import loss_node

IN_UNITS = ("l2", "l1", "huber", "log_cosh")  # losses of predictions in the targets' unit
PROBABLE = ("softmax", "classes", "sigmoid", "labels")  # what gives probabilities


class NetClassifier(ClassifierMixin, NetworkEstimator):
    """A network of pyframe layers as a scikit-learn classifier.

    Parameters
    ----------
    layers : list of Layer, optional
        The layers before the output layer. Each fit builds fresh ones like these. Default:
        ``[Dense(100, activation="relu")]``.
    build_fn : callable, optional
        Instead of layers: ``build_fn(shape, outputs, **build_args)`` with the shape of a sample
        and the number of outputs returns all layers of the network, or a `Model`; called in every
        fit.
    build_args : dict, optional
    head : bool, default True
        Append ``Dense(outputs)`` to `layers`. With False the last of them must have as many
        outputs as there are classes.
    scale_features : bool or "auto", default "auto"
        Begin with a `BatchNorm` that stands still: it centers features and divides them by their
        standard deviation s where that is above 1; below, they keep 1 - s of a mean of up to 10,
        and where it is below 0.1 it becomes 0.1.
        Of `partial_fit` all batches so far decide. "auto": if the layers are the default ones, also
        with other parameters.
    loss : str or callable, default "auto"
        ``"cross_entropy"``, or ``"binary_cross_entropy"`` for several labels a sample. Losses that
        take no labels get one-hot targets.
    optimizer : str, Optimizer or class, default "auto"
        For classes ``AdamW(2e-3)``, for numbers ``"adam"``. An instance is copied for each fit.
    learning_rate : float, Schedule or callable, optional
        In place of the optimizer's.
    weight_decay : float, "prior" or "auto", optional, default "auto"
        In place of the optimizer's. "prior" is 150 / rows, at most 1, as a prior weighs less the
        more rows there are (of `partial_fit` the optimizer's, 0.1). "auto": that, if the optimizer
        is the default one for classes, also with other parameters.
    metrics : list of str or callable
    callbacks : list of Callback
        Each fit copies them; see ``callbacks_``.
    epochs : int, default 200
        At most; a `ConvergenceWarning` says when they were not enough.
    tol : float, optional, default 1e-4
        Training ends once the loss has not fallen by more than this, for numbers by this part of
        it, in any of `n_iter_no_change` epochs, and goes back to the least loss if there are no
        callbacks. None trains for all epochs, and ends with the last.
    n_iter_no_change : int, default 20
        scikit-learn has 10, in greater batches, whose loss is less noisy.
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
        **NetworkEstimator._parameter_constraints,
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }

    def __init__(
        self,
        layers: Sequence[Layer] | None = None,
        *,
        build_fn: Callable[..., Any] | None = None,
        build_args: Mapping[str, Any] | None = None,
        head: bool = True,
        scale_features: Any = "auto",
        loss: Any = "auto",
        optimizer: Any = "auto",
        learning_rate: Any = None,
        weight_decay: Any = "auto",
        metrics: Sequence[Any] = (),
        callbacks: Sequence[Any] = (),
        epochs: int = 200,
        tol: float | None = 1e-4,
        n_iter_no_change: int = 20,
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
        self.scale_features = scale_features
        self.loss = loss
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
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
            kinds = sorted({"str" if isinstance(k, str) else type(k).__name__ for k in labels.flat})
            if len(kinds) > 1:
                raise ArgumentError(
                    f"y has labels of several types, {', '.join(kinds)}: make them all texts, as "
                    "with numpy.asarray(y, str)"
                )
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
            takes, _ = loss_node(losses.get(self._loss()), self.model_.outputs[0], "y", None)
            if takes.dtype != np.int64:
                targets = np.eye(len(self.classes_))[targets]
        self._train(X, targets, weight, strata, epochs)
        # In the model's own words, which are of its outputs one by one: not of two classes in two.
        self._gives = gives = self.model_.outcomes[0].gives
        if not self._multilabel:
            gives = gives if gives in OF_CLASSES else "scores"
            self.model_.outcomes = [outcome_of(gives, self.classes_)]

    def _notes(self) -> dict[str, Any]:
        return {**super()._notes(), "gives": self._gives, "labels": self._multilabel}

    def _take_meaning(self, model: Model, notes: Mapping[str, Any]) -> None:
        outcome, units = model.outcomes[0], (model.outputs[0].shape or ())[-1] or 0
        self._gives = notes.get("gives", outcome.gives)
        if self._gives not in GIVES or ("gives" not in notes and self._gives == "values"):
            raise ValueError("the network of this file was not trained to classify")
        self._multilabel = bool(
            notes.get("labels", outcome.gives in OF_LABELS and outcome.classes is None)
        )
        if outcome.classes is not None and units != len(outcome.classes):
            raise ValueError(
                f"the network of this file has {units} output(s) for {len(outcome.classes)} "
                "classes, and this estimator one for each; pyframe.load(...).predict_classes, or "
                "the kind of estimator that wrote it, reads it"
            )
        names = np.arange(units) if outcome.classes is None else outcome.names
        self._encoder = LabelEncoder().fit(names)
        self.classes_ = self._encoder.classes_

    def decision_function(self, X: Any) -> Any:  # noqa: N803
        """Return the network's outputs, (n, classes); of two classes their difference, (n,)."""
        net = twin(self)
        outputs = net.outputs_of(X)
        if not net._multilabel and len(net.classes_) == 2:
            return outputs[:, 1] - outputs[:, 0]
        return outputs

    def _has_probabilities(self) -> bool:
        given = vars(self).get("_gives")
        if given is not None:  # by a fit
            return given in PROBABLE
        if isinstance(self.loss, Lost):
            return False
        return self.loss == "auto" or not getattr(losses.get(self.loss), "of_values", True)

    @available_if(_has_probabilities)
    def predict_proba(self, X: Any) -> Any:  # noqa: N803
        """Return the probability of each class, or label, (n, classes)."""
        net = twin(self)
        outputs = net.outputs_of(X)
        probabilities = Outcome(net._gives).probabilities(outputs)
        if net._multilabel or net._gives in OF_CLASSES:
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
        outputs = net.outputs_of(X)
        if net._multilabel:
            return (outputs > (0.0 if net._gives in ("sigmoid", "margins") else 0.5)).astype(int)
        return net.classes_[outputs.argmax(axis=1)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class NetRegressor(RegressorMixin, NetworkEstimator):
    """A network of pyframe layers as a scikit-learn regressor.

    Parameters
    ----------
    layers, build_fn, build_args, head, scale_features, optimizer, learning_rate, weight_decay, \
metrics, callbacks, epochs, tol, n_iter_no_change, batch_size, validation_split, shuffle, \
schedule, input_shape, dtype, warm_start, random_state, verbose
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
        scale_features: Any = "auto",
        loss: Any = "l2",
        optimizer: Any = "auto",
        learning_rate: Any = None,
        weight_decay: Any = "auto",
        metrics: Sequence[Any] = (),
        callbacks: Sequence[Any] = (),
        epochs: int = 200,
        tol: float | None = 1e-4,
        n_iter_no_change: int = 20,
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
        self.scale_features = scale_features
        self.loss = loss
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
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
        if self.build_fn is None and self.head and any(is_named(self.loss, n) for n in IN_UNITS):
            if weight is not None and not np.any(weight):
                weight = None
            bias = self.model_.layers[-1].own_parameters()["bias"]
            bias.value = np.average(targets, axis=0, weights=weight)

    def _take_meaning(self, model: Model, notes: Mapping[str, Any]) -> None:
        if "gives" in notes or model.outcomes[0].gives != "values":
            raise ValueError("the network of this file was trained to classify")
        self.n_outputs_ = (model.outputs[0].shape or ())[-1]
        self._column = self.n_outputs_ == 1

    def predict(self, X: Any) -> Any:  # noqa: N803
        """Return the network's outputs, (n,) or (n, outputs) as y was."""
        net = twin(self)
        outputs = net.outputs_of(X)
        return outputs[:, 0] if net._column else outputs

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
