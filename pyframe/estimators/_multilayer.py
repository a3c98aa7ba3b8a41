"""The network behind `MLPClassifier` and `MLPRegressor`: its graph, its plan and its arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from scipy.sparse import issparse

import pyframe as pf
from pyframe.graph.spec import Array, Spec, known_shape
from pyframe.layers import activation_function
from pyframe.training.company import stop_with_company
from pyframe.training.goal import loss_node

ROWS_AT_ONCE = 4096  # of a prediction: it bounds the memory, also for sparse input

# scikit-learn's names of activations, where ours differ.
ACTIVATIONS = {"identity": None, "logistic": "sigmoid"}
LINKS: dict[str, Callable[[Any], Any]] = {
    "identity": lambda z: z,
    "logistic": pf.Sigmoid,
    "softmax": pf.Softmax,
    "exp": pf.Exp,
}


class WithoutGap(pf.Sub):
    """trained - gap, where only the first input is differentiated.

    scikit-learn follows the gradient of one loss, and reports the value of another.
    """

    def gradient(self, *grads: Any) -> Sequence[Any]:
        """Return the gradient for the first input, and none for the second."""
        return grads[0], None


def shown(value: Any, trained: Any) -> Any:
    """Return a node with the value of one and the gradient of another, of the same shape."""
    return WithoutGap(trained, trained - value)


class FixedSigmoid(pf.Sigmoid):
    """sigmoid(x) as a constant: it is not differentiated."""

    def gradient(self, *grads: Any) -> Sequence[Any]:
        """Return no gradient."""
        return (None,)


class SparseLinear(pf.Node):
    """z = X[rows] W, for a sparse X that is set before each fit.

    Shapes: rows (n,) of int64, W (features, units), z (n, units). SciPy multiplies the
    nonzero elements, so that neither X nor a batch of it is ever made dense.
    """

    source: Any = None

    def infer(self, *specs: Spec | None) -> Spec:
        """Return the shape of z, and the dtype of W."""
        rows, w = specs
        assert rows and w and rows.shape and w.shape
        return Spec((rows.shape[0], w.shape[1]), w.dtype)

    def forward(self, ctx: Any, rows: Array, w: Array) -> Array:
        """Return z; a full batch is in order, and is not copied."""
        ctx.batch = self.source if len(rows) == self.source.shape[0] else self.source[rows]
        return ctx.batch @ w  # type: ignore[no-any-return]

    def backward(self, ctx: Any, dz: Array) -> tuple[None, Array]:
        """Return dW = X[rows]^T dz."""
        return None, ctx.batch.T @ dz


def log_loss(y: Any, z: Any, sample_weight: Any) -> Any:
    """Return the weighted mean over rows of -log max(softmax(z)_y, eps); z (n, classes), y (n,).

    The gradient, here and below, ignores the bound.
    """
    losses = pf.CrossEntropy(y, z, reduction="none")
    excess = pf.Relu(losses + float(np.log(np.finfo(z.dtype).eps)))
    return weighted_mean(WithoutGap(losses, excess), sample_weight)


def binary_log_loss(y: Any, z: Any, sample_weight: Any) -> Any:
    """Return the weighted mean of the log losses of sigmoid(z), added up over the outputs.

    With p = sigmoid(z), q = p where y is 1 and 1 - p where it is 0, l = -log max(q, eps): taken
    from q as scikit-learn does it, since 1 - p is coarse where p is near 1. Shapes: (n, m).
    The gradient p - y is that of z (p - y), with p held fixed.
    """
    p = FixedSigmoid(z)
    right = (1.0 - y) + (2.0 * y - 1.0) * p
    value = -pf.Log(pf.Maximum(right, float(np.finfo(z.dtype).eps)))
    return weighted_mean(pf.Sum(shown(value, z * (p - y)), axis=1), sample_weight)


def squared_error(y: Any, z: Any, sample_weight: Any) -> Any:
    """Return the weighted mean of (y - z)^2 / 2, shapes (n, m), over rows and outputs.

    The gradient is that of the sum over the outputs.
    """
    mean = pf.L2Loss(y, z, sample_weight) * 0.5
    outputs = known_shape(Spec(z.shape[1:], z.dtype))[0]
    return mean if outputs == 1 else shown(mean, mean * float(outputs))


def poisson(y: Any, z: Any, sample_weight: Any) -> Any:
    """Return the weighted mean of half the Poisson deviance of exp(z), added up over the outputs.

    l = y log y - y - y z + exp z, with 0 log 0 = 0. Shapes: y and z (n, m), sample_weight (n,).
    """
    entropy = y * pf.Log(pf.Maximum(y, float(np.finfo(z.dtype).tiny)))
    return weighted_mean(pf.Sum(entropy - y - y * z + pf.Exp(z), axis=1), sample_weight)


def weighted_mean(losses: Any, weights: Any) -> Any:
    """Return sum(w l) / sum(w); shapes (n,)."""
    return pf.Sum(losses * weights) / pf.Sum(weights)


# scikit-learn's losses, by name and link.
LOSSES: dict[tuple[str, str], Callable[..., Any]] = {
    ("log_loss", "softmax"): log_loss,
    ("log_loss", "logistic"): binary_log_loss,
    ("squared_error", "identity"): squared_error,
    ("poisson", "exp"): poisson,
}


def _is_now(parameter: pf.Parameter, array: Array) -> bool:
    """Return whether a parameter has a given value; NaN counts as equal to NaN."""
    value = parameter.value
    if value.shape != array.shape:
        return False
    # A quick test first.
    return bool((value == array).all()) or np.array_equal(value, array, equal_nan=True)


class Multilayer:
    """A multilayer perceptron, with the loss and the penalty of scikit-learn.

    For rows x with targets y and weights w, and z the output before the link, the cost is::

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
    sparse : bool
        Whether it is trained on sparse rows. Predictions take both kinds.

    Attributes
    ----------
    rate : float or None
        The learning rate, if it differs from the optimizer's.
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
        sparse: bool,
    ) -> None:
        self.options = {
            "activation": activation,
            "link": link,
            "loss": loss,
            "alpha": alpha,
            "dropout": dropout,
            "sparse": sparse,
        }
        self.seed = seed
        self.rate: float | None = None
        self.dtype, self.sparse = coefs[0].dtype, sparse
        self.weights, squares = [], []
        for i, w in enumerate(coefs):
            self.weights.append(pf.Parameter(w, f"coefs_{i}", dtype=self.dtype))
            # Gradients run in reverse order of making. So that of the penalty comes when the one
            # of the loss is there, and adding it up is one pass over both.
            squares.append(pf.SumOfSquares(self.weights[-1]))
        self.biases = [
            pf.Parameter(b, f"intercepts_{i}", dtype=self.dtype) for i, b in enumerate(intercepts)
        ]
        self.w = pf.Placeholder("sample_weight", shape=(None,), dtype=self.dtype)
        z = self._rest(self._first())
        self._prediction = LINKS[link](z)
        function = LOSSES.get((loss, link)) if isinstance(loss, str) else None
        self.y, mean = loss_node(function or pf.losses.get(loss), z, "y", self.w)
        cost = mean
        if alpha:
            cost = mean + sum(squares[1:], squares[0]) * (0.5 * alpha) / pf.Sum(self.w)
        self.plan = pf.compile(
            cost,
            optimizer,
            outputs=[self._prediction],
            metrics=[pf.MeanOf(cost, self.x)],
            parameters=[*self.weights, *self.biases],
            seed=seed,
        )

    def _first(self) -> Any:
        """Return the output of the first layer, (n, units), and set its input."""
        if not self.sparse:
            features = known_shape(self.weights[0].spec)[0]
            self.x = pf.Placeholder("X", shape=(None, features), dtype=self.dtype)
            return pf.Linear(self.x, self.weights[0], self.biases[0])
        self.x = pf.Placeholder("rows", shape=(None,), dtype="int64")
        self._products = SparseLinear(self.x, self.weights[0])
        return self._products + self.biases[0]

    def _rest(self, z: Any) -> Any:
        """Return the output before the link, (n, outputs), from that of the first layer."""
        activation, dropout = self.options["activation"], self.options["dropout"]
        name = (
            ACTIVATIONS.get(activation, activation) if isinstance(activation, str) else activation
        )
        function = activation_function(name)
        layers = zip(self.weights[1:], self.biases[1:], strict=True)
        for i, (w, b) in enumerate(layers, 1):
            if function is not None:
                z = function(z)
            if dropout:
                z = pf.Dropout(z, rate=dropout, name=f"dropout_{i}")
            z = pf.Linear(z, w, b)
        return z

    @cached_property
    def _behind_the_first(self) -> tuple[Any, Any]:
        """What the first layer gives, and a plan from there to the predictions."""
        units = known_shape(self.biases[0].spec)[0]
        z = pf.Placeholder("z", shape=(None, units), dtype=self.dtype)
        return z, pf.compile(LINKS[self.options["link"]](self._rest(z)))

    # ---- data ----

    def _dense(self, X: Any) -> Array:  # noqa: N803
        return np.ascontiguousarray(X.toarray() if issparse(X) else X, self.dtype)

    def feed(self, X: Any, y: Array, sample_weight: Any) -> dict[Any, Any]:  # noqa: N803
        """Return the feed of a loop or a step; for sparse X it holds the row numbers.

        Targets are (n, outputs); one-hot ones become labels if the loss takes labels.
        """
        if sample_weight is None:
            sample_weight = np.ones(X.shape[0])
        if self.sparse:
            self._products.source = X.tocsr().astype(self.dtype, copy=False)
        labels = self.y.dtype == np.int64
        return {
            self.x: np.arange(X.shape[0]) if self.sparse else self._dense(X),
            self.y: y.argmax(axis=1) if labels else np.ascontiguousarray(y, self.dtype),
            self.w: np.ascontiguousarray(sample_weight, self.dtype),
        }

    def forget_feed(self) -> None:
        """Release the data of `feed`."""
        if self.sparse:
            self._products.source = None

    # ---- parameters ----

    def coefs(self) -> list[Array]:
        """Return the weights, as read-only views that follow the training."""
        return [w.value for w in self.weights]

    def intercepts(self) -> list[Array]:
        """Return the biases, as read-only views that follow the training."""
        return [b.value for b in self.biases]

    def has(self, coefs: Sequence[Array], intercepts: Sequence[Array]) -> bool:
        """Return whether the parameters have these values."""
        own, other = [*self.weights, *self.biases], [*coefs, *intercepts]
        return len(own) == len(other) and all(map(_is_now, own, other))

    def take(self, coefs: Sequence[Array], intercepts: Sequence[Array]) -> None:
        """Set the parameters, unless they have these values already."""
        for parameter, array in zip(
            [*self.weights, *self.biases], [*coefs, *intercepts], strict=True
        ):
            if not _is_now(parameter, array):
                parameter.value = array

    def take_slots(self, other: Multilayer) -> None:
        """Copy all trained state of a network with the same parameters and optimizer."""
        self.plan.restore(other.plan.snapshot())
        self.rate = other.rate

    def set_learning_rate(self, rate: float) -> None:
        """Set the rate; the velocity of `SGD` is that of scikit-learn divided by it."""
        old = self.plan.optimizer.learning_rate if self.rate is None else self.rate
        self.rate = rate
        for slots in self.plan.engine.state.slots:
            if "velocity" in slots:
                slots["velocity"] *= old / rate

    # ---- runs ----

    def predict(self, X: Any) -> Array:  # noqa: N803
        """Return predictions, shape (n, outputs), of dense or sparse rows."""
        predict = self._predict_sparse if issparse(X) or self.sparse else self._predict_dense
        parts = [predict(X[i : i + ROWS_AT_ONCE]) for i in range(0, X.shape[0], ROWS_AT_ONCE)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _predict_dense(self, X: Any) -> Any:  # noqa: N803
        return self.plan.run({self.x: self._dense(X)}, outputs=self._prediction)

    def _predict_sparse(self, X: Any) -> Any:  # noqa: N803
        z, plan = self._behind_the_first
        return plan.run({z: X @ self.weights[0].value + self.biases[0].value})

    def function(self, feed: dict[Any, Any]) -> Callable[[Array], tuple[float, Array]]:
        """Return the cost, and its gradient in float64, as a function of one vector of parameters.

        First come the weights, then the biases.
        """
        parameters = [*self.weights, *self.biases]
        ends = np.cumsum([p.size for p in parameters]).tolist()
        places = [slice(end - p.size, end) for p, end in zip(parameters, ends, strict=True)]
        shapes = [known_shape(p.spec) for p in parameters]

        def evaluate(packed: Array) -> tuple[float, Array]:
            stop_with_company()
            for p, place, shape in zip(parameters, places, shapes, strict=True):
                p.value = packed[place].reshape(shape)
            cost, gradients = self.plan.loss_and_gradients(feed)
            result = np.empty(len(packed))
            for p, place in zip(parameters, places, strict=True):
                result[place] = gradients[p].ravel()
            return cost, result

        return evaluate

    # ---- copies ----

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is made from; the snapshot has parameters and optimizer slots."""
        return {
            "layers": [(w.shape, w.dtype) for w in self.coefs()],
            "optimizer": self.plan.optimizer,
            "seed": self.seed,
            "options": self.options,
            "rate": self.rate,
            "snapshot": self.plan.snapshot(),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Rebuild the network, and restore all trained state."""
        coefs = [np.zeros(shape, dtype) for shape, dtype in state["layers"]]
        intercepts = [np.zeros(w.shape[1], w.dtype) for w in coefs]
        made = (coefs, intercepts, state["optimizer"], state["seed"])
        self.__init__(*made, **state["options"])  # type: ignore[misc]
        self.rate = state["rate"]
        self.plan.restore(state["snapshot"])
