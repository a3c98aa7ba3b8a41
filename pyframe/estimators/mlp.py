"""`MLPClassifier` and `MLPRegressor`: scikit-learn's, trained by pyframe."""

from __future__ import annotations

import copy
import warnings
from numbers import Real
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn import neural_network
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import compute_sample_weight, gen_batches, shuffle
from sklearn.utils._param_validation import Interval, StrOptions, validate_parameter_constraints
from sklearn.utils.validation import _check_sample_weight, validate_data

import pyframe as pf
from pyframe.estimators._multilayer import Multilayer
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


class _Multilayer:
    """What classifier and regressor share; it goes in front of scikit-learn's class."""

    _net: Multilayer | None = None
    _own_constraints: dict[str, list[Any]] = {
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "optimizer": [str, object, None],
    }

    def _validate_params(self) -> None:
        """Check the parameters as scikit-learn does, with the names of the registry beside its."""
        own: Any = self
        constraints = {**own._parameter_constraints, **self._own_constraints}
        activations = {"identity", "logistic", "tanh", "relu", *registries["ops"].names()}
        constraints["activation"] = [StrOptions(activations), callable]
        builtin = {"log_loss"} if "class_weight" in constraints else {"squared_error", "poisson"}
        constraints["loss"] = [StrOptions(builtin | set(registries["losses"].names())), callable]
        optimizers = set(registries["optimizers"].names())
        constraints["optimizer"] = [StrOptions(optimizers), pf.optimizers.Optimizer, None]
        validate_parameter_constraints(
            constraints, own.get_params(deep=False), caller_name=type(self).__name__
        )

    # ---- fitting ----

    def _fit(
        self,
        X: Any,  # noqa: N803
        y: Any,
        sample_weight: Any = None,
        incremental: bool = False,
    ) -> Any:
        own: Any = self
        if getattr(own, "class_weight", None) is not None:
            given = compute_sample_weight(own.class_weight, y)
            if sample_weight is not None:
                given = given * _check_sample_weight(sample_weight, X)
            sample_weight = given
        if not incremental:
            self._net = None
        super()._fit(X, y, sample_weight=sample_weight, incremental=incremental)  # type: ignore[misc]
        return self

    def _network(self) -> Multilayer:
        """Return the network, with the parameters that the estimator shows."""
        own: Any = self
        if self._net is None:
            self._net = Multilayer(
                own.coefs_,
                own.intercepts_,
                activation=own.activation,
                link=own.out_activation_,
                loss=own.loss,
                alpha=own.alpha,
                dropout=own.dropout,
                optimizer=self._optimizer_of_pyframe(),
            )
        else:
            self._net.take(own.coefs_, own.intercepts_)
        return self._net

    def _optimizer_of_pyframe(self) -> Any:
        own: Any = self
        if isinstance(own.optimizer, str):
            return registries["optimizers"].get(own.optimizer)(learning_rate=own.learning_rate_init)
        if own.optimizer is not None:
            return copy.deepcopy(own.optimizer)
        if own.solver == "adam":
            return pf.optimizers.Adam(
                own.learning_rate_init,
                betas=(own.beta_1, own.beta_2),
                epsilon=own.epsilon,
                epsilon_hat=True,
            )
        return pf.optimizers.SGD(
            own.learning_rate_init,
            momentum=own.momentum,
            nesterov=own.nesterovs_momentum and own.momentum > 0,
        )

    def _loss_grad_lbfgs(
        self,
        packed: Any,
        X: Any,  # noqa: N803
        y: Any,
        sample_weight: Any,
        *_: Any,
    ) -> tuple[float, Any]:
        """Return loss and gradients, packed as scikit-learn packs them."""
        own: Any = self
        own._unpack(packed)
        network = self._network()
        if self._fed is None or self._fed[0] is not X:
            self._fed = (X, network.feed(X, y, sample_weight))
        loss, weights, biases = network.loss_and_gradients(self._fed[1])
        return loss, np.concatenate([g.ravel() for g in (*weights, *biases)]).astype(float)

    _fed: Any = None

    def _fit_lbfgs(self, *arguments: Any, **named: Any) -> None:
        try:
            super()._fit_lbfgs(*arguments, **named)  # type: ignore[misc]
        finally:
            self._fed = None

    def _split(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any]:  # noqa: N803
        """Return what is trained on and what is held out, (X, y, weights) each."""
        own: Any = self
        if not own.early_stopping:
            return (X, y, sample_weight), (None, None, None)
        classifies = hasattr(own, "_label_binarizer")
        arrays = [X, y] if sample_weight is None else [X, y, sample_weight]
        parts = train_test_split(
            *arrays,
            random_state=own._random_state,
            test_size=own.validation_fraction,
            stratify=y if classifies and own.n_outputs_ == 1 else None,
        )
        train, held_out = list(parts[::2]), list(parts[1::2])
        if held_out[0].shape[0] < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' "
                "or the size of your dataset."
            )
        if classifies:
            held_out[1] = own._label_binarizer.inverse_transform(held_out[1])
        if sample_weight is None:
            train.append(None)
            held_out.append(None)
        return tuple(train), tuple(held_out)

    def _batch(self, samples: int) -> int:
        own: Any = self
        if own.batch_size == "auto":
            return min(200, samples)
        if own.batch_size > samples:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped",
                stacklevel=2,
            )
        return int(np.clip(own.batch_size, 1, samples))

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
        own: Any = self
        if own.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        if self._net is None:
            kind = own.learning_rate if own.solver == "sgd" else "constant"
            self._schedule = _Schedule(kind, own.learning_rate_init, own.power_t)
        network = self._network()
        own.coefs_, own.intercepts_ = network.coefs(), network.intercepts()
        train, held_out = self._split(X, y, sample_weight)
        epochs = _Epochs(self, network, train, 1 if incremental else own.max_iter)
        try:
            own.n_iter_ = 0
            for loss in epochs:
                if self._end_iteration(loss, train[0].shape[0], held_out):
                    break
                epochs.set_learning_rate(self._schedule.rate)
                if own.n_iter_ == own.max_iter and not incremental:
                    warnings.warn(
                        f"Stochastic Optimizer: Maximum iterations ({own.max_iter}) "
                        "reached and the optimization hasn't converged yet.",
                        ConvergenceWarning,
                        stacklevel=2,
                    )
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=2)
        finally:
            epochs.close()
            own.coefs_ = [np.array(w) for w in own.coefs_]
            own.intercepts_ = [np.array(b) for b in own.intercepts_]
        if own.early_stopping:
            own.coefs_, own.intercepts_ = own._best_coefs, own._best_intercepts

    def _end_iteration(self, loss: float, samples: int, held_out: Any) -> bool:
        """Note the loss of an epoch; return whether to stop."""
        own: Any = self
        own.n_iter_ += 1
        own.loss_ = loss
        own.t_ += samples
        own.loss_curve_.append(loss)
        if own.verbose:
            print(f"Iteration {own.n_iter_}, loss = {loss:.8f}")
        own._update_no_improvement_count(own.early_stopping, *held_out)
        self._schedule.end_epoch(own.t_)
        if own._no_improvement_count <= own.n_iter_no_change:
            return False
        what = "Validation score" if own.early_stopping else "Training loss"
        message = (
            f"{what} did not improve more than tol={own.tol:f} for {own.n_iter_no_change} "
            "consecutive epochs."
        )
        if self._schedule.stops(message, own.verbose):
            return True
        own._no_improvement_count = 0
        return False

    # ---- predictions ----

    def _forward_pass_fast(self, X: Any, check_input: bool = True) -> Any:  # noqa: N803
        if check_input:
            X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)  # noqa: N806
        return self._network().predict(X.tocsr() if issparse(X) else X)


class _Epochs:
    """The losses of one epoch after the other: in C for dense data, batch by batch for sparse."""

    def __init__(self, estimator: Any, network: Multilayer, data: Any, epochs: int) -> None:
        X, y, weight = data  # noqa: N806
        self.estimator, self.network, self.epochs = estimator, network, epochs
        self.samples = X.shape[0]
        self.batch = estimator._batch(self.samples)
        self.rows = np.arange(self.samples)
        self.rate: float | None = None
        self.loop: Any = None
        seed = int(estimator._random_state.randint(2**31)) if estimator.dropout else 0
        if issparse(X):
            self.data = X.tocsr(), network.targets(y), network.sample_weights(weight, self.samples)
        else:
            self.loop = network.plan.loop(
                network.feed(X, y, weight),
                epochs=epochs,
                batch_size=self.batch,
                shuffle=False,
                order=self._shuffled if estimator.shuffle else None,
                seed=seed,
                stop="epoch",
            )

    def _shuffled(self, epoch: int) -> Any:
        self.rows = shuffle(self.rows, random_state=self.estimator._random_state)
        return self.rows

    def __iter__(self) -> Any:
        for epoch in range(self.epochs):
            yield self._run_batches(epoch) if self.loop is None else self._run_loop()

    def _run_loop(self) -> float:
        while self.loop.run(SECONDS_PER_LOOK) == "paused":
            pass
        total, count = self.loop.records[-1]
        return float(total / count)

    def _run_batches(self, epoch: int) -> float:
        X, y, weight = self.data  # noqa: N806
        if self.estimator.shuffle:
            self._shuffled(epoch)
        total = 0.0
        for part in gen_batches(self.samples, self.batch):
            rows = self.rows[part]
            network = self.network
            feed = {network.x: network.rows(X[rows]), network.y: y[rows], network.w: weight[rows]}
            total += network.plan.step(feed, self.rate) * len(rows)
        return total / self.samples

    def set_learning_rate(self, rate: float) -> None:
        """Use a rate from the next epoch on."""
        old = self.network.plan.optimizer.learning_rate if self.rate is None else self.rate
        if rate == old or callable(old):
            return
        self.network.scale_velocity(old / rate)
        self.rate = rate
        if self.loop is not None:
            self.loop.set_learning_rate(rate)

    def close(self) -> None:
        """Give the parameters free."""
        if self.loop is not None:
            self.loop.close()


class MLPClassifier(_Multilayer, neural_network.MLPClassifier):  # type: ignore[misc]
    """doc"""

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


class MLPRegressor(_Multilayer, neural_network.MLPRegressor):  # type: ignore[misc]
    """doc"""

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
