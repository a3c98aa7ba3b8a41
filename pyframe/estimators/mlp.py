"""`MLPClassifier` and `MLPRegressor`: scikit-learn's, trained by pyframe."""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn import neural_network
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network._multilayer_perceptron import BaseMultilayerPerceptron
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions, validate_parameter_constraints
from sklearn.utils.validation import _check_y, validate_data

from pyframe.checkpoint.arguments import Lost, require
from pyframe.errors import check_integer, warn
from pyframe.estimators._epochs import Epochs, Schedule
from pyframe.estimators._files import Filed
from pyframe.estimators._multilayer import Multilayer
from pyframe.estimators._weights import sample_weights, weights_of
from pyframe.graph.arrays import unmasked
from pyframe.layers import Dense
from pyframe.model import Model, Sequential
from pyframe.optimizers import SGD, Adam, Optimizer
from pyframe.outcomes import Outcome, outcome_of
from pyframe.plugins.registry import registries
from pyframe.training.atomic import fitting, twin
from pyframe.training.progress import say

# What scikit-learn calls them, and what they are called here.
ACTIVATIONS = {"identity": None, "logistic": "sigmoid", "softmax": "softmax", "exp": "exp"}
ENDS = {"classes": "softmax", "labels": "sigmoid", "values": None}  # by what an output gives


class _Networks:
    """The networks of an estimator and of its twins.

    Attributes
    ----------
    trained : Multilayer or None
        The one that fits train.
    fixed : Multilayer or None
        The one to predict with while `trained` differs from the estimator's parameters.
    fits : int
        Number of fits of `trained` begun plus those ended: odd while one is running.
    """

    def __init__(self) -> None:
        self.trained: Multilayer | None = None
        self.fixed: Multilayer | None = None
        self.fits = 0


class _Trained(Filed, BaseMultilayerPerceptron):  # type: ignore[misc]
    """The part of both estimators that is pyframe's; the rest is scikit-learn's."""

    _kind = "perceptron"
    _networks: _Networks | None = None
    _is_training = False
    _no_improvement_count: int
    _schedule: Schedule

    def _validate_params(self) -> None:
        """Check the parameters as scikit-learn does; registered names are accepted too."""
        require(self)
        names = {
            kind: {*registries[kind].names(), *registries[kind].aliases()}
            for kind in ("ops", "losses", "optimizers")
        }
        own_losses = {"log_loss"} if is_classifier(self) else {"squared_error", "poisson"}
        known = {"identity", "logistic", "tanh", "relu"}
        constraints = {
            **self._parameter_constraints,
            "activation": [StrOptions(known | names["ops"]), callable],
            "loss": [StrOptions(own_losses | names["losses"]), callable],
            "dropout": [Interval(Real, 0, 1, closed="left")],
            "optimizer": [StrOptions(names["optimizers"]), Optimizer, None],
        }
        validate_parameter_constraints(
            constraints, self.get_params(deep=False), caller_name=type(self).__name__
        )
        sizes = self.hidden_layer_sizes
        for units in sizes if np.iterable(sizes) else [sizes]:
            check_integer("hidden_layer_sizes", units)

    # ---- the network ----

    def _network(self, data: Any) -> Multilayer:
        """Return the network to train on some data, with the present parameters."""
        assert self._networks is not None
        old, options = self._networks.trained, self._options(issparse(data))
        if old is not None and old.options == options:
            old.take(self.coefs_, self.intercepts_)
            return old
        optimizer = self._new_optimizer() if old is None else old.plan.optimizer
        seed = int(self._random_state.randint(2**31)) if self.dropout else 0
        made = Multilayer(self.coefs_, self.intercepts_, optimizer, seed, **options)
        if old is not None:
            made.take_slots(old)
        self._networks.trained = made
        return made

    def _options(self, sparse: bool) -> dict[str, Any]:
        return {
            "activation": self.activation,
            "link": self.out_activation_,
            # Without that of a file, predictions are the same.
            "loss": type(self)().loss if isinstance(self.loss, Lost) else self.loss,
            "alpha": self.alpha,
            "dropout": self.dropout,
            "sparse": sparse,
        }

    def _fixed_network(self) -> Multilayer:
        """Return a network with the present parameters that is not being trained."""
        assert self._networks is not None
        made = self._networks.fixed
        if made is None or not self._is(made):
            optimizer, options = self._new_optimizer(), self._options(sparse=False)
            made = Multilayer(self.coefs_, self.intercepts_, optimizer, 0, **options)
            self._networks.fixed = made
        return made

    def _is(self, network: Multilayer) -> bool:
        """Return whether a network matches the estimator's attributes."""
        options = self._options(network.sparse)
        return network.options == options and network.has(self.coefs_, self.intercepts_)

    def _new_optimizer(self) -> Any:
        if isinstance(self.optimizer, str):
            return registries["optimizers"].get(self.optimizer)(self.learning_rate_init)
        if self.optimizer is not None and not isinstance(self.optimizer, Lost):
            return copy.deepcopy(self.optimizer)
        if self.solver == "adam":
            return Adam(
                self.learning_rate_init,
                betas=(self.beta_1, self.beta_2),
                epsilon=self.epsilon,
                epsilon_hat=True,
            )
        return SGD(
            self.learning_rate_init,
            momentum=self.momentum,
            nesterov=self.nesterovs_momentum and self.momentum > 0,
        )

    # ---- fitting ----

    def _fit(self, X: Any, y: Any, sample_weight: Any = None, incremental: bool = False) -> Any:  # noqa: N803
        if incremental:  # also the second one, whose parameters nobody else checks
            self._validate_params()
        else:
            require(self)
        X, y = unmasked(X, "X"), unmasked(y, "y")  # noqa: N806
        sample_weight = weights_of(sample_weight, X)
        with fitting(self) as worker:
            if not incremental or worker._networks is None:
                # A new fit has a new optimizer, also one that starts warm.
                worker._networks = _Networks()
            networks = worker._networks
            networks.fits += 1
            worker._is_training = True
            try:
                super(_Trained, worker)._fit(
                    X, y, sample_weight=sample_weight, incremental=incremental
                )
            finally:
                worker._is_training = False
                networks.fits += 1
        return self

    def _fit_lbfgs(self, X: Any, y: Any, sample_weight: Any, *rest: Any) -> None:  # noqa: N803
        if self.dropout:
            raise ValueError("dropout needs a solver that takes batches; solver is 'lbfgs'")
        network = self._network(X)
        self._function = network.function(network.feed(X, y, sample_weight))
        try:
            super()._fit_lbfgs(X, y, sample_weight, *rest)
        finally:
            network.forget_feed()
            del self._function

    def _loss_grad_lbfgs(self, packed: Any, *_: Any) -> tuple[float, Any]:
        """Return loss and gradients at some parameters, packed as scikit-learn packs them."""
        result: tuple[float, Any] = self._function(packed)
        return result

    def _fit_stochastic(
        self,
        X: Any,  # noqa: N803
        y: Any,
        sample_weight: Any,
        activations: Any,
        deltas: Any,
        coef_grads: Any,
        intercept_grads: Any,
        layer_units: Any,
        incremental: bool,
    ) -> None:
        """Train by batches; the random numbers are drawn in scikit-learn's order."""
        if self.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        assert self._networks is not None
        if self._networks.trained is None:
            scheduled = self.solver == "sgd" and not isinstance(self.optimizer, Optimizer)
            self._schedule = Schedule(
                self.learning_rate if scheduled else "constant",
                self.learning_rate_init,
                self.power_t,
            )
        network = self._network(X)
        train, held_out = self._split(X, y, sample_weight)
        epochs = Epochs(self, network, train, 1 if incremental else self.max_iter)
        # Views that follow the training: what is scored and kept as the best are the present ones.
        self.coefs_, self.intercepts_ = network.coefs(), network.intercepts()
        self.n_iter_ = 0
        try:
            for loss in epochs:
                stops = self._end_iteration(loss, epochs.samples, held_out)
                if self._schedule.kind != "constant":
                    epochs.set_learning_rate(self._schedule.rate)
                if stops:
                    break
                if self.n_iter_ == self.max_iter and not incremental:
                    warn(
                        f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) "
                        "reached and the optimization hasn't converged yet.",
                        ConvergenceWarning,
                    )
        except KeyboardInterrupt:
            warn("Training interrupted by user.")
        finally:
            epochs.close()
            self.coefs_ = [np.array(w) for w in self.coefs_]
            self.intercepts_ = [np.array(b) for b in self.intercepts_]
        if self.early_stopping:
            self.coefs_, self.intercepts_ = self._best_coefs, self._best_intercepts

    def _split(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any]:  # noqa: N803
        """Return the training and the held-out part, (X, y, weights) each."""
        if not self.early_stopping:
            return (X, y, sample_weight), (None, None, None)
        parts = train_test_split(
            *([X, y] if sample_weight is None else [X, y, sample_weight]),
            random_state=self._random_state,
            test_size=self.validation_fraction,
            stratify=y if is_classifier(self) and self.n_outputs_ == 1 else None,
        )
        train, held_out = [*parts[::2], None][:3], [*parts[1::2], None][:3]
        if held_out[0].shape[0] < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' "
                "or the size of your dataset."
            )
        if is_classifier(self):
            held_out[1] = self._label_binarizer.inverse_transform(held_out[1])
        return train, held_out

    def _end_iteration(self, loss: float, samples: int, held_out: Any) -> bool:
        """Record the loss of an epoch; return whether to stop."""
        self.n_iter_ += 1
        self.loss_ = loss
        self.t_ += samples
        self.loss_curve_.append(loss)
        if self.verbose:
            say(f"Iteration {self.n_iter_}, loss = {loss:.8f}", sys.stdout)
        verbose: Any = self.verbose
        self.verbose: Any = False  # it would print, and end if nobody listens
        try:
            self._update_no_improvement_count(self.early_stopping, *held_out)
        finally:
            self.verbose = verbose
        if verbose and self.early_stopping:
            say(f"Validation score: {self.validation_scores_[-1]:f}", sys.stdout)
        self._schedule.end_epoch(self.t_)
        if self._no_improvement_count <= self.n_iter_no_change:
            return False
        what = "Validation score" if self.early_stopping else "Training loss"
        message = (
            f"{what} did not improve more than tol={self.tol:f} for {self.n_iter_no_change} "
            "consecutive epochs."
        )
        if self._schedule.stops(message, self.verbose):
            return True
        self._no_improvement_count = 0
        return False

    def _score(self, X: Any, y: Any, sample_weight: Any = None) -> float:  # noqa: N803
        """Return the score of held out data.

        The accuracy is computed here: scikit-learn's checks take longer than a small epoch, and
        before 1.9 they fail for labels that are strings.
        """
        if not is_classifier(self):
            return float(super()._score(X, y, sample_weight=sample_weight))
        right = self._predict(X, check_input=False) == y
        if right.ndim > 1:
            right = right.all(axis=1)
        return float(np.average(right, weights=sample_weight))

    # ---- files ----

    def _as_model(self) -> Model:
        hidden = ACTIVATIONS.get(self.activation, self.activation)
        ends = [hidden] * (len(self.coefs_) - 1) + [ACTIVATIONS[self.out_activation_]]
        dtype = self.coefs_[0].dtype
        layers = [Dense(w.shape[1], activation=f) for w, f in zip(self.coefs_, ends, strict=True)]
        model = Sequential(layers, input_shape=(self.coefs_[0].shape[0],), dtype=dtype)
        for layer, weight, bias in zip(model.layers, self.coefs_, self.intercepts_, strict=True):
            made = layer.own_parameters()
            made["weight"].value, made["bias"].value = weight, bias
        model.outcomes = [self._outcome()]
        return model

    def _take(self, model: Model, notes: Mapping[str, Any] | None, source: str) -> None:
        layers: Any = getattr(model, "layers", ())
        if not layers or not all(isinstance(layer, Dense) and layer.bias for layer in layers):
            raise ValueError(f"{source} has a network that is no multilayer perceptron")
        coefs = [layer.own_parameters()["weight"].value.copy() for layer in layers]
        self._take_meaning(model.outcomes[0], coefs[-1].shape[1])
        if notes is None:
            self._take_layers(layers, ENDS[model.outcomes[0].gives], source)
        self._begin_at(coefs, [layer.own_parameters()["bias"].value.copy() for layer in layers])

    def _take_layers(self, layers: list[Any], end: str | None, source: str) -> None:
        """Have the parameters that describe the layers of a network."""
        used = [layer.config()["activation"] for layer in layers]
        hidden = {*used[:-1]} or {None}
        if used[-1] != end or len(hidden) > 1:
            raise ValueError(
                f"{source} has a network with the activations {used}; this estimator has one kind "
                f"of hidden layers, and ends in {end or 'none'}"
            )
        self.hidden_layer_sizes = tuple(layer.units for layer in layers[:-1])
        self.activation = hidden.pop() or "identity"

    def _begin_at(self, coefs: list[Any], intercepts: list[Any]) -> None:
        """Set the attributes of an estimator that is to be trained from some weights on."""
        units = [coefs[0].shape[0], *(w.shape[1] for w in coefs)]
        self.n_features_in_ = units[0]
        self._random_state: Any = check_random_state(self.random_state)
        self._initialize(np.empty((1, units[-1])), units, coefs[0].dtype)
        self.coefs_, self.intercepts_ = coefs, intercepts

    # ---- predictions ----

    def _forward_pass_fast(self, X: Any, check_input: bool = True) -> Any:  # noqa: N803
        if check_input:
            X = unmasked(X, "X")  # noqa: N806
            X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)  # noqa: N806
        X = X.tocsr() if issparse(X) else X  # noqa: N806
        if self._networks is None:  # the parameters were set by the user
            self._networks = _Networks()
        trained, fits = self._networks.trained, self._networks.fits
        if trained is not None and self._is_training:
            return trained.predict(X)
        if trained is not None and fits % 2 == 0 and self._is(trained):
            result = trained.predict(X)
            if self._networks.fits == fits:  # otherwise it may have changed meanwhile
                return result
        return self._fixed_network().predict(X)

    def predict(self, X: Any) -> Any:  # noqa: N803
        """Predict, as scikit-learn's estimator does; see there."""
        return super(_Trained, twin(self)).predict(X)


class MLPClassifier(_Trained, neural_network.MLPClassifier):  # type: ignore[misc]
    """`sklearn.neural_network.MLPClassifier`, trained by pyframe.

    Parameters
    ----------
    loss : str or callable, default "log_loss"
        Or a registered loss, or a function of target, output and sample weight.
    dropout : float in [0, 1), default 0.0
        The share of hidden units that each training step leaves out.
    optimizer : str or Optimizer, optional
        In place of the solvers "sgd" and "adam": a registered name, which then has
        `learning_rate_init` as its rate, or an instance with a rate of its own.
    class_weight : dict, list of dict or "balanced", optional
        Weights of the classes, as elsewhere in scikit-learn: they multiply the sample weights.

    Notes
    -----
    All else is scikit-learn's: parameters, their defaults and checks, fitted attributes, messages
    and warnings. So are initial weights, batches and updates, drawn from `random_state` in the same
    order: in float64 the losses agree with scikit-learn's to the rounding of sums. `activation`
    takes every registered one besides, and any function of a node. float32 stays float32.

    Sparse X stays sparse: the first layer multiplies what is not 0.

    Raises
    ------
    ValueError
        scikit-learn's, for parameters and data that make no sense.

    Examples
    --------
    >>> from sklearn.datasets import make_classification
    >>> from pyframe.estimators import MLPClassifier
    >>> X, y = make_classification(n_samples=100, random_state=1)
    >>> net = MLPClassifier(random_state=1, max_iter=1000).fit(X, y)
    >>> net.predict(X[:5]) == y[:5]
    array([ True,  True,  True,  True,  True])
    """

    _parameter_constraints: dict[str, Any] = {
        **neural_network.MLPClassifier._parameter_constraints,
        "class_weight": [StrOptions({"balanced"}), dict, list, None],
    }

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        loss: Any = "log_loss",
        dropout: float = 0.0,
        class_weight: Any = None,
        optimizer: Any = None,
    ) -> None:
        super().__init__(
            hidden_layer_sizes,
            activation,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            power_t=power_t,
            max_iter=max_iter,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            n_iter_no_change=n_iter_no_change,
            max_fun=max_fun,
        )
        self.loss = loss
        self.dropout = dropout
        self.class_weight = class_weight
        self.optimizer = optimizer

    def _fit(self, X: Any, y: Any, sample_weight: Any = None, incremental: bool = False) -> Any:  # noqa: N803
        if self.class_weight is not None and y is not None:
            if incremental and isinstance(self.class_weight, str):
                raise ValueError(
                    "class_weight='balanced' needs all labels at once; for partial_fit pass the "
                    "weights as a dict, or sample_weight"
                )
            labels = _check_y(y, multi_output=True, estimator=self)
            check_consistent_length(X, labels)
            weight = sample_weights(
                self.class_weight, labels, self._all_classes(incremental, labels)
            )
            if sample_weight is not None:
                weight = weight * weights_of(sample_weight, X)
            sample_weight = weight
        return super()._fit(X, y, sample_weight=sample_weight, incremental=incremental)

    def _outcome(self) -> Outcome:
        gives = "classes" if self.out_activation_ == "softmax" else "labels"
        several = self._label_binarizer.y_type_.startswith("multilabel")
        return Outcome(gives) if several else outcome_of(gives, self.classes_)

    def _take_meaning(self, outcome: Outcome, units: int) -> None:
        if outcome.gives not in ("classes", "labels"):
            raise ValueError("the network of this file was not trained to classify")
        several = outcome.classes is None
        fits = several or (units == 1 if outcome.gives == "labels" else units > 2)
        if not fits:
            raise ValueError(
                f"the network of this file has {units} output(s) for {len(outcome.classes or ())} "
                "classes, and this estimator one for two and otherwise one for each; "
                "pyframe.load(...).predict_classes, or the estimator that wrote it, reads it"
            )
        labels = np.eye(units, dtype=int) if several else outcome.names
        self._label_binarizer = LabelBinarizer().fit(labels)
        self.classes_ = self._label_binarizer.classes_

    def _all_classes(self, incremental: bool, labels: Any) -> Any:
        """Return the possible labels of each column, if a batch may lack some."""
        if not incremental:
            return None
        return [0, 1] if labels.ndim > 1 and labels.shape[1] > 1 else self.classes_

    def predict_proba(self, X: Any) -> Any:  # noqa: N803
        """Return probabilities, as scikit-learn's estimator does; see there."""
        return super(MLPClassifier, twin(self)).predict_proba(X)


class MLPRegressor(_Trained, neural_network.MLPRegressor):  # type: ignore[misc]
    """`sklearn.neural_network.MLPRegressor`, trained by pyframe.

    Parameters
    ----------
    loss : str or callable, default "squared_error"
        Or "poisson", a registered loss, or a function of target, output and sample weight.
    dropout : float in [0, 1), default 0.0
        The share of hidden units that each training step leaves out.
    optimizer : str or Optimizer, optional
        In place of the solvers "sgd" and "adam": a registered name, which then has
        `learning_rate_init` as its rate, or an instance with a rate of its own.

    Notes
    -----
    All else is scikit-learn's: parameters, their defaults and checks, fitted attributes, messages
    and warnings. So are initial weights, batches and updates, drawn from `random_state` in the same
    order: in float64 the losses agree with scikit-learn's to the rounding of sums. `activation`
    takes every registered one besides, and any function of a node. float32 stays float32.

    Sparse X stays sparse: the first layer multiplies what is not 0.

    Raises
    ------
    ValueError
        scikit-learn's, for parameters and data that make no sense.

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> from pyframe.estimators import MLPRegressor
    >>> X, y = make_regression(n_samples=200, n_features=20, random_state=1)
    >>> net = MLPRegressor(random_state=1, max_iter=2000, tol=0.1).fit(X, y)
    >>> bool(net.score(X, y) > 0.95)
    True
    """

    def __init__(
        self,
        loss: Any = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        dropout: float = 0.0,
        optimizer: Any = None,
    ) -> None:
        super().__init__(
            loss,
            hidden_layer_sizes,
            activation,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            power_t=power_t,
            max_iter=max_iter,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            n_iter_no_change=n_iter_no_change,
            max_fun=max_fun,
        )
        self.dropout = dropout
        self.optimizer = optimizer

    def _outcome(self) -> Outcome:
        return Outcome()

    def _take_meaning(self, outcome: Outcome, units: int) -> None:
        if outcome.gives != "values":
            raise ValueError("the network of this file was trained to classify")
