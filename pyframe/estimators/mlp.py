"""`MLPClassifier` and `MLPRegressor`: scikit-learn's, trained by pyframe."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from numbers import Real
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn import neural_network
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network._multilayer_perceptron import BaseMultilayerPerceptron
from sklearn.utils import check_consistent_length, compute_sample_weight, gen_batches
from sklearn.utils._param_validation import Interval, StrOptions, validate_parameter_constraints
from sklearn.utils.validation import _check_sample_weight, _check_y, validate_data

from pyframe.estimators._multilayer import Multilayer
from pyframe.loop import Loop
from pyframe.optimizers import SGD, Adam, Optimizer
from pyframe.registry import registries

SECONDS_PER_LOOK = 0.05  # so long C may stay away before Ctrl-C is noticed


class _Schedule:
    """The learning rate of the solver "sgd", from epoch to epoch.

    Parameters
    ----------
    kind : {"constant", "invscaling", "adaptive"}
    initial : float
    power : float
        Of "invscaling": after t samples the rate is ``initial / (t + 1) ** power``.
    """

    def __init__(self, kind: str, initial: float, power: float) -> None:
        self.kind, self.initial, self.power = kind, initial, power
        self.rate = initial

    def end_epoch(self, samples: int) -> None:
        if self.kind == "invscaling":
            self.rate = float(self.initial) / (samples + 1) ** self.power

    def stops(self, message: str, verbose: Any) -> bool:
        """Return whether training stops when nothing improves; "adaptive" goes on more slowly."""
        stop = self.kind != "adaptive" or self.rate <= 1e-6
        if stop and self.kind == "adaptive":
            message += " Learning rate too small."
        if not stop:
            self.rate /= 5.0
        if verbose:
            print(message + (" Stopping." if stop else f" Setting learning rate to {self.rate:f}"))
        return stop


class _Trained(BaseMultilayerPerceptron):  # type: ignore[misc]
    """What is ours of both estimators; the rest of them is scikit-learn's own."""

    _net: Multilayer | None = None
    _no_improvement_count: int
    _schedule: _Schedule

    def _validate_params(self) -> None:
        """Check the parameters as scikit-learn does; the registries' names count too."""
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

    # ---- the network ----

    def _network(self) -> Multilayer:
        """Return the network, with the parameters that the estimator has now."""
        options = {
            "activation": self.activation,
            "link": self.out_activation_,
            "loss": self.loss,
            "alpha": self.alpha,
            "dropout": self.dropout,
        }
        old = self._net
        if old is not None and old.options == options:
            old.take(self.coefs_, self.intercepts_)
            return old
        optimizer = self._new_optimizer() if old is None else old.plan.optimizer
        seed = int(self._random_state.randint(2**31)) if self.dropout else 0
        self._net = Multilayer(self.coefs_, self.intercepts_, optimizer, seed, **options)
        if old is not None:
            self._net.take_slots(old)
        return self._net

    def _new_optimizer(self) -> Any:
        if isinstance(self.optimizer, str):
            return registries["optimizers"].get(self.optimizer)(self.learning_rate_init)
        if self.optimizer is not None:
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
        if not incremental:
            self._net = None  # a new fit has a new optimizer, also one that starts warm
        return super()._fit(X, y, sample_weight=sample_weight, incremental=incremental)

    def _fit_lbfgs(self, X: Any, y: Any, sample_weight: Any, *rest: Any) -> None:  # noqa: N803
        if self.dropout:
            raise ValueError("dropout needs a solver that takes batches; solver is 'lbfgs'")
        network = self._network()
        self._feed = network.feed(network.rows(X), y, sample_weight)
        try:
            super()._fit_lbfgs(X, y, sample_weight, *rest)
        finally:
            del self._feed

    def _loss_grad_lbfgs(self, packed: Any, *_: Any) -> tuple[float, Any]:
        """Return loss and gradients at some parameters, packed as scikit-learn packs them."""
        self._unpack(packed)
        loss, gradients = self._network().loss_and_gradients(self._feed)
        return loss, np.concatenate([g.ravel() for g in gradients], dtype=np.float64)

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
        if self._net is None:
            scheduled = self.solver == "sgd" and not isinstance(self.optimizer, Optimizer)
            self._schedule = _Schedule(
                self.learning_rate if scheduled else "constant",
                self.learning_rate_init,
                self.power_t,
            )
        network = self._network()
        train, held_out = self._split(X, y, sample_weight)
        epochs = _Epochs(self, network, train, 1 if incremental else self.max_iter)
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
                    warnings.warn(
                        f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) "
                        "reached and the optimization hasn't converged yet.",
                        ConvergenceWarning,
                        stacklevel=4,
                    )
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=4)
        finally:
            epochs.close()
            self.coefs_ = [np.array(w) for w in self.coefs_]
            self.intercepts_ = [np.array(b) for b in self.intercepts_]
        if self.early_stopping:
            self.coefs_, self.intercepts_ = self._best_coefs, self._best_intercepts

    def _split(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any]:  # noqa: N803
        """Return what is trained on and what is held out, (X, y, weights) each."""
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
        """Note the loss of an epoch; return whether to stop."""
        self.n_iter_ += 1
        self.loss_ = loss
        self.t_ += samples
        self.loss_curve_.append(loss)
        if self.verbose:
            print(f"Iteration {self.n_iter_}, loss = {loss:.8f}")
        self._update_no_improvement_count(self.early_stopping, *held_out)
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

    # ---- predictions ----

    def _forward_pass_fast(self, X: Any, check_input: bool = True) -> Any:  # noqa: N803
        if check_input:
            X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)  # noqa: N806
        return self._network().predict(X.tocsr() if issparse(X) else X)


class _Epochs:
    """The losses of one epoch after the other: in C for dense data, batch by batch for sparse."""

    def __init__(
        self,
        estimator: Any,
        network: Multilayer,
        data: Any,
        epochs: int,
    ) -> None:
        X, y, sample_weight = data  # noqa: N806
        self.network, self.epochs = network, epochs
        self.samples: int = X.shape[0]
        self.shuffles, self.random_state = estimator.shuffle, estimator._random_state
        self.batch = self._batch_size(estimator.batch_size)
        self.rows = np.arange(self.samples)
        self.loop: Loop | None = None
        self.feed = network.feed(X, y, sample_weight)
        if issparse(X):
            return
        self.loop = network.plan.loop(
            self.feed,
            epochs=epochs,
            batch_size=self.batch,
            shuffle=False,
            order=self._shuffled if self.shuffles else None,
            seed=network.seed,
            stop="epoch",
        )
        if network.rate is not None:
            self.loop.set_learning_rate(network.rate)

    def _batch_size(self, wanted: Any) -> int:
        if wanted == "auto":
            return min(200, self.samples)
        if wanted > self.samples:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be "
                "clipped",
                stacklevel=5,
            )
        return min(int(wanted), self.samples)

    def _shuffled(self, epoch: int) -> Any:
        """Return the order of the next epoch: that of the last one, shuffled.

        As `sklearn.utils.shuffle` does it, without its checks, which take longer than a small step.
        """
        places = np.arange(self.samples)
        self.random_state.shuffle(places)
        self.rows = self.rows[places]
        return self.rows

    def __iter__(self) -> Iterator[float]:
        for epoch in range(self.epochs):
            yield self._run_batches(epoch) if self.loop is None else self._run_in_c(self.loop)

    def _run_in_c(self, loop: Loop) -> float:
        while loop.run(SECONDS_PER_LOOK) == "paused":
            pass
        total, count = loop.records[-1]
        return float(total / count)

    def _run_batches(self, epoch: int) -> float:
        if self.shuffles:
            self._shuffled(epoch)
        total = 0.0
        for part in gen_batches(self.samples, self.batch):
            rows = self.rows[part]
            feed = {p: data[rows] for p, data in self.feed.items()}
            feed[self.network.x] = self.network.rows(feed[self.network.x])
            total += self.network.step(feed) * len(rows)
        return total / self.samples

    def set_learning_rate(self, rate: float) -> None:
        """Use a rate from the next epoch on."""
        if rate != self.network.rate:
            self.network.set_learning_rate(rate)
            if self.loop is not None:
                self.loop.set_learning_rate(rate)

    def close(self) -> None:
        """Give the parameters free."""
        if self.loop is not None:
            self.loop.close()


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

    Sparse X is trained on batch by batch, each made dense; with "lbfgs" all of it is made dense.

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
            weight = compute_sample_weight(self.class_weight, labels)
            if sample_weight is not None:
                weight = weight * _check_sample_weight(sample_weight, X)
            sample_weight = weight
        return super()._fit(X, y, sample_weight=sample_weight, incremental=incremental)


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

    Sparse X is trained on batch by batch, each made dense; with "lbfgs" all of it is made dense.

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
