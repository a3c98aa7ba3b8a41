"""The network behind `MLPClassifier` and `MLPRegressor`: its graph, its plan and its arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.sparse import issparse

import pyframe as pf
from pyframe.layers import activation_function
from pyframe.node import Array
from pyframe.objective import loss_node

ROWS_AT_ONCE = 4096  # of a prediction: it bounds the memory, also for sparse input

# scikit-learn's names of activations, where ours differ.
ACTIVATIONS = {"identity": None, "logistic": "sigmoid"}
LINKS: dict[str, Callable[[Any], Any]] = {
    "identity": lambda z: z,
    "logistic": pf.Sigmoid,
    "softmax": pf.Softmax,
    "exp": pf.Exp,
}


def poisson(y: Any, z: Any, sample_weight: Any) -> Any:
    """Return the mean of half the Poisson deviance of exp(z), added up over the outputs.

    l = y log y - y - y z + exp z, with 0 log 0 = 0. Shapes: y and z (n, m), sample_weight (n,).
    """
    entropy = y * pf.Log(pf.Maximum(y, float(np.finfo(z.dtype).tiny)))
    losses = pf.Sum(entropy - y - y * z + pf.Exp(z), axis=1)
    return pf.Sum(losses * sample_weight) / pf.Sum(sample_weight)


class Multilayer:
    """A multilayer perceptron, with the loss and the penalty of scikit-learn.

    For rows x with targets y and weights w, and z the output before the link::

        cost = sum_i w_i loss(y_i, z_i) / sum_i w_i + alpha / 2 sum_l |W_l|^2 / sum_i w_i

    Parameters
    ----------
    coefs : list of ndarray, shapes (fan_in, fan_out)
    intercepts : list of ndarray, shapes (fan_out,)
    optimizer : Optimizer
    seed : int
        Of dropout.
    activation : str or callable
        Of the hidden layers.
    link : {"identity", "logistic", "softmax", "exp"}
        From z to a prediction.
    loss : str or callable
        scikit-learn's "log_loss", "squared_error" or "poisson", or a loss of pyframe.
    alpha : float
    dropout : float
        The share of hidden units that is left out in training.

    Attributes
    ----------
    rate : float or None
        The learning rate, if it is another than the optimizer's.
    """

    def __init__(
        self,
        coefs: Sequence[Array],
        intercepts: Sequence[Array],
        optimizer: Any,
        seed: int,
        *,
        activation: Any,
        link: str,
        loss: Any,
        alpha: float,
        dropout: float,
    ) -> None:
        self.options = {
            "activation": activation,
            "link": link,
            "loss": loss,
            "alpha": alpha,
            "dropout": dropout,
        }
        self.seed = seed
        self.rate: float | None = None
        self.dtype, self.outputs, self.alpha = coefs[0].dtype, coefs[-1].shape[1], alpha
        self.weights = [
            pf.Parameter(w, f"coefs_{i}", dtype=self.dtype) for i, w in enumerate(coefs)
        ]
        self.biases = [
            pf.Parameter(b, f"intercepts_{i}", dtype=self.dtype) for i, b in enumerate(intercepts)
        ]
        self.x = pf.Placeholder("X", shape=(None, coefs[0].shape[0]), dtype=self.dtype)
        self.w = pf.Placeholder("sample_weight", shape=(None,), dtype=self.dtype)
        z = self._output(activation, dropout)
        self._prediction = LINKS[link](z)
        self.y, trained, reported = self._losses(loss, link, z)
        self._reports_less = trained is not reported
        penalty = self._penalty()
        self.plan = pf.compile(
            trained + penalty,
            optimizer,
            outputs=[self._prediction],
            metrics=[pf.MeanOf(reported + penalty, self.x)],
            parameters=[*self.weights, *self.biases],
            seed=seed,
        )

    def _output(self, activation: Any, dropout: float) -> Any:
        """Return z (n, outputs)."""
        name = (
            ACTIVATIONS.get(activation, activation) if isinstance(activation, str) else activation
        )
        function = activation_function(name)
        z: Any = self.x
        for i, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            if i and function is not None:
                z = function(z)
            if i and dropout:
                z = pf.Dropout(z, rate=dropout, name=f"dropout_{i}")
            z = pf.Linear(z, w, b)
        return z

    def _losses(self, loss: Any, link: str, z: Any) -> tuple[Any, Any, Any]:
        """Return the target, what is trained on and what is reported, without penalty.

        They differ for the squared error of several outputs, of which scikit-learn trains on the
        sum and reports the mean.
        """
        several = float(self.outputs)
        if loss == "squared_error":
            target, mean = loss_node(pf.L2Loss, z, "y", self.w)
            half: Any = mean * 0.5
            return target, half if self.outputs == 1 else half * several, half
        if loss == "log_loss" and link == "logistic":
            target, mean = loss_node(pf.BinaryCrossEntropy, z, "y", self.w)
            total = mean if self.outputs == 1 else mean * several
            return target, total, total
        known = {"poisson": poisson, "log_loss": pf.CrossEntropy}
        function = known.get(loss) if isinstance(loss, str) else None
        target, mean = loss_node(function or pf.losses.get(loss), z, "y", self.w)
        return target, mean, mean

    def _penalty(self) -> Any:
        if not self.alpha:
            return 0.0
        squares = [pf.Sum(pf.Square(w)) for w in self.weights]
        return sum(squares[1:], squares[0]) * (0.5 * self.alpha) / pf.Sum(self.w)

    # ---- data ----

    def rows(self, X: Any) -> Array:  # noqa: N803
        """Return dense rows of X, as the plan takes them."""
        return np.ascontiguousarray(X.toarray() if issparse(X) else X, self.dtype)

    def feed(self, X: Any, y: Array, sample_weight: Any) -> dict[Any, Any]:  # noqa: N803
        """Return what a loop or a step is fed; sparse X as CSR, of which rows can be taken.

        Targets are (n, outputs); one-hot ones become labels if the loss takes labels.
        """
        if sample_weight is None:
            sample_weight = np.ones(X.shape[0])
        labels = self.y.dtype == np.int64
        return {
            self.x: X.tocsr() if issparse(X) else self.rows(X),
            self.y: y.argmax(axis=1) if labels else np.ascontiguousarray(y, self.dtype),
            self.w: np.ascontiguousarray(sample_weight, self.dtype),
        }

    # ---- parameters ----

    def coefs(self) -> list[Array]:
        """Return the weights, as read-only views that follow the training."""
        return [w.value for w in self.weights]

    def intercepts(self) -> list[Array]:
        """Return the biases, as read-only views that follow the training."""
        return [b.value for b in self.biases]

    def take(self, coefs: Sequence[Array], intercepts: Sequence[Array]) -> None:
        """Take over parameters, if they are others."""
        for parameter, array in zip(
            [*self.weights, *self.biases], [*coefs, *intercepts], strict=True
        ):
            if not np.array_equal(parameter.value, array):
                parameter.value = array

    def take_slots(self, other: Multilayer) -> None:
        """Take over all that is trained of a network of the same parameters and optimizer."""
        self.plan.restore(other.plan.snapshot())
        self.rate = other.rate

    def set_learning_rate(self, rate: float) -> None:
        """Set the rate; the velocity of `SGD` is that of scikit-learn divided by it."""
        old = self.plan.optimizer.learning_rate if self.rate is None else self.rate
        self.rate = rate
        for slots in self.plan._train.slots:
            if "velocity" in slots:
                slots["velocity"] *= old / rate

    # ---- runs ----

    def predict(self, X: Any) -> Array:  # noqa: N803
        """Return predictions, shape (n, outputs), of dense or sparse rows."""
        parts = [
            self.plan.run({self.x: self.rows(X[i : i + ROWS_AT_ONCE])}, outputs=self._prediction)
            for i in range(0, X.shape[0], ROWS_AT_ONCE)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def step(self, feed: dict[Any, Any]) -> float:
        """Train on a batch and return the reported loss, of before the update."""
        penalty = self._penalty_value(feed)
        return self._reported(self.plan.step(feed, self.rate), penalty)

    def loss_and_gradients(self, feed: dict[Any, Any]) -> tuple[float, list[Array]]:
        """Return the reported loss, and the gradients of all weights and then all biases."""
        loss, gradients = self.plan.loss_and_gradients(feed)
        parameters = [*self.weights, *self.biases]
        loss = self._reported(loss, self._penalty_value(feed))
        return loss, [gradients[p] for p in parameters]

    def _penalty_value(self, feed: dict[Any, Any]) -> float:
        if not self._reports_less:
            return 0.0
        squares = sum(float(np.vdot(w.value, w.value)) for w in self.weights)
        return 0.5 * self.alpha * squares / float(feed[self.w].sum())

    def _reported(self, cost: float, penalty: float) -> float:
        return (cost - penalty) / self.outputs + penalty if self._reports_less else cost

    # ---- copies ----

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is made from: parameters, options, and the optimizer's state."""
        return {
            "coefs": [np.array(c) for c in self.coefs()],
            "intercepts": [np.array(b) for b in self.intercepts()],
            "optimizer": self.plan.optimizer,
            "seed": self.seed,
            "options": self.options,
            "rate": self.rate,
            "snapshot": self.plan.snapshot(),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Build the network anew, and put all that is trained in its place."""
        made = [state[name] for name in ("coefs", "intercepts", "optimizer", "seed")]
        self.__init__(*made, **state["options"])  # type: ignore[misc]
        self.rate = state["rate"]
        self.plan.restore(state["snapshot"])
