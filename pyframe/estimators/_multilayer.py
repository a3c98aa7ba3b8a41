"""The network behind `MLPClassifier` and `MLPRegressor`: its graph, its plan and its arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.sparse import issparse

import pyframe as pf
from pyframe.layers import activation_function
from pyframe.node import Array, Value
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


def poisson(y: Any, z: Any, sample_weight: Any) -> Value:
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
    activation : str or callable
        Of the hidden layers.
    link : {"identity", "logistic", "softmax", "exp"}
        From z to a prediction.
    loss : str or callable
        scikit-learn's "log_loss", "squared_error" or "poisson", or a loss of pyframe.
    alpha : float
    dropout : float
        The share of hidden units that is left out in training.
    optimizer : Optimizer
    """

    def __init__(
        self,
        coefs: Sequence[Array],
        intercepts: Sequence[Array],
        *,
        activation: Any,
        link: str,
        loss: Any,
        alpha: float,
        dropout: float,
        optimizer: Any,
    ) -> None:
        self._options = {
            "activation": activation,
            "link": link,
            "loss": loss,
            "alpha": alpha,
            "dropout": dropout,
            "optimizer": optimizer,
        }
        self.dtype, self.outputs, self.alpha = coefs[0].dtype, coefs[-1].shape[1], alpha
        self.weights = [
            pf.Parameter(w, f"coefs_{i}", dtype=self.dtype) for i, w in enumerate(coefs)
        ]
        self.biases = [
            pf.Parameter(b, f"intercepts_{i}", dtype=self.dtype) for i, b in enumerate(intercepts)
        ]
        self.x = pf.Placeholder("X", shape=(None, coefs[0].shape[0]), dtype=self.dtype)
        self.w = pf.Placeholder("sample_weight", shape=(None,), dtype=self.dtype)
        z = self._last(activation, dropout)
        self._prediction = LINKS[link](z)
        self.y, trained, reported = self._losses(loss, link, z)
        self._doubled = trained is not reported
        penalty = self._penalty()
        metric = pf.MeanOf(reported + penalty, self.x)
        self.plan = pf.compile(
            trained + penalty,
            optimizer,
            outputs=[self._prediction],
            metrics=[metric],
            parameters=[*self.weights, *self.biases],
        )

    def _last(self, activation: Any, dropout: float) -> Value:
        function = activation_function(ACTIVATIONS.get(activation, activation))
        z: Any = self.x
        for i, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            if i and function is not None:
                z = function(z)
            if i and dropout:
                z = pf.Dropout(z, rate=dropout, name=f"dropout_{i}")
            z = pf.Linear(z, w, b)
        return z  # type: ignore[no-any-return]

    def _losses(self, loss: Any, link: str, z: Value) -> tuple[pf.Placeholder, Value, Value]:
        """Return the target, what is trained on and what is reported, without penalty.

        They differ for the squared error of several outputs, of which scikit-learn trains on the
        sum and reports the mean.
        """
        function: Any = {"squared_error": pf.L2Loss, "poisson": poisson}.get(loss)
        if loss == "log_loss":
            function = pf.CrossEntropy if link == "softmax" else pf.BinaryCrossEntropy
        target, mean = loss_node(function or pf.losses.get(loss), z, "y", self.w)
        if loss == "squared_error":
            half = mean * 0.5
            return target, half if self.outputs == 1 else half * float(self.outputs), half
        if function is pf.BinaryCrossEntropy:
            mean = mean * float(self.outputs)
        return target, mean, mean

    def _penalty(self) -> Value | float:
        if not self.alpha:
            return 0.0
        squares: Any = sum((pf.Sum(pf.Square(w)) for w in self.weights[1:]), pf.Sum(pf.Square(self.weights[0])))
        return squares * (0.5 * self.alpha) / pf.Sum(self.w)  # type: ignore[no-any-return]

    # ---- data ----

    def rows(self, X: Any) -> Array:  # noqa: N803
        """Return rows of X as the plan takes them."""
        return np.ascontiguousarray(X.toarray() if issparse(X) else X, self.dtype)

    def targets(self, y: Array) -> Array:
        """Return targets (n, outputs) as the loss takes them; one-hot ones become labels."""
        if self.y.dtype == np.int64:
            return y.argmax(axis=1)
        return np.ascontiguousarray(y, self.dtype)

    def sample_weights(self, sample_weight: Any, count: int) -> Array:
        """Return a weight for each of `count` rows."""
        if sample_weight is None:
            return np.ones(count, self.dtype)
        return np.ascontiguousarray(sample_weight, self.dtype)

    def feed(self, X: Any, y: Array, sample_weight: Any) -> dict[Any, Array]:  # noqa: N803
        """Return what a loop or a step is fed."""
        return {
            self.x: self.rows(X),
            self.y: self.targets(y),
            self.w: self.sample_weights(sample_weight, X.shape[0]),
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

    # ---- runs ----

    def predict(self, X: Any) -> Array:  # noqa: N803
        """Return predictions, shape (n, outputs), of dense or sparse rows."""
        parts = [
            self.plan.run({self.x: self.rows(X[i : i + ROWS_AT_ONCE])}, outputs=self._prediction)
            for i in range(0, X.shape[0], ROWS_AT_ONCE)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def loss_and_gradients(self, feed: dict[Any, Array]) -> tuple[float, list[Array], list[Array]]:
        """Return the reported loss and the gradients of weights and biases."""
        cost, gradients = self.plan.loss_and_gradients(feed)
        penalty = 0.0
        if self.alpha and self._doubled:
            squares = sum(float(np.vdot(w.value, w.value)) for w in self.weights)
            penalty = 0.5 * self.alpha * squares / float(feed[self.w].sum())
        if self._doubled:
            cost = (cost - penalty) / self.outputs + penalty
        return cost, [gradients[w] for w in self.weights], [gradients[b] for b in self.biases]

    def scale_velocity(self, factor: float) -> None:
        """Multiply the velocity of `SGD`: scikit-learn's holds the learning rate, ours does not."""
        for table in self.plan._train.slots:
            if "velocity" in table:
                table["velocity"] *= factor

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is made from: parameters, options, and the optimizer's state."""
        return {
            "coefs": [np.array(c) for c in self.coefs()],
            "intercepts": [np.array(b) for b in self.intercepts()],
            "options": self._options,
            "snapshot": self.plan.snapshot(),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Build the network anew, and put the optimizer's state in its place."""
        self.__init__(state["coefs"], state["intercepts"], **state["options"])  # type: ignore[misc]
        self.plan.restore(state["snapshot"])
