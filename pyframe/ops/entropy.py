"""Cross-entropies: losses of classifiers, from logits. Kernels: losses.c.

Logits are what a network gives before softmax or sigmoid. If the graph shows that a prediction is
the output of one of these, its input is used instead: see `pyframe.ops.logits`. Weights and
reductions are those of `pyframe.ops.losses`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyframe.graph.node import Value
from pyframe.graph.op import Case, Op
from pyframe.ops.logits import binary_logits, class_logits
from pyframe.ops.losses import (
    REDUCTIONS,
    Loss,
    LossGrad,
    as_labels,
    coefficients,
    match_labels,
    reduce_loss,
)


class BinaryCrossEntropy(Loss):
    """Cross-entropy of two classes, from one logit x = y_hat for each element.

    With p = sigmoid(x), l = -y log p - (1 - y) log(1 - p), computed without overflow as
    max(x, 0) - x y + log(1 + exp(-|x|)). An infinite logit on the right side costs nothing.

    Parameters
    ----------
    y : Value of floats, shape (n, ...)
        The probability of the positive class, usually 0 or 1; (n,) goes with logits (n, 1).
    y_hat : Value, shape (n, ...)
        The logits, or the probabilities that `pyframe.Sigmoid` makes of them.
    sample_weight : Value, shape (n,), optional
    reduction : {"mean", "sum", "none"}, default "mean"
        ``sum_ij w_i l_ij / (m sum_i w_i)``, ``sum_ij w_i l_ij`` or ``w_i l_ij``; see
        `pyframe.ops.losses`.
    name : str, optional

    Returns
    -------
    Value, shape (); with reduction "none" that of y_hat

    Raises
    ------
    ShapeError
        If target and logits differ in shape.
    ArgumentError
        For an unknown reduction, and for a prediction that is a softmax.

    Examples
    --------
    >>> import pyframe as pf
    >>> y, logits = pf.Placeholder("y", shape=(None,)), pf.Placeholder("logits", shape=(None, 1))
    >>> pf.BinaryCrossEntropy(y, logits).shape
    ()
    """

    op = "binary_cross_entropy"
    aliases = ("bce",)
    of_values = False
    unit_target = True

    @classmethod
    def operands(cls, y: Any, y_hat: Any) -> tuple[Any, Any]:
        return y, binary_logits(y_hat, cls.__name__)

    @classmethod
    def element(cls, y: Any, y_hat: Any, delta: float) -> Any:
        return y * np.logaddexp(0, -y_hat) + (1 - y) * np.logaddexp(0, y_hat)

    @classmethod
    def sample(cls, draw: Any) -> Case:
        y = draw.uniform(draw.shape(max_ndim=3))
        return cls._sample(draw, y, draw.choice([1.0, 5.0]) * draw.normal(y.shape), {})

    @classmethod
    def cases(cls) -> Sequence[Case]:
        y, x = np.array([0.0, 1.0, 0.0, 1.0]), np.array([1e4, 1e4, -1e4, -1e4])
        return (*super().cases(), Case((y, x, None), {"reduction": "none"}))


class BinaryCrossEntropyGrad(LossGrad):
    """dx = dl w (sigmoid(x) - y), dy = -dl w x."""

    op = "binary_cross_entropy_grad"
    loss = BinaryCrossEntropy

    @classmethod
    def derivatives(cls, y: Any, y_hat: Any, delta: float) -> tuple[Any, Any]:
        e = np.exp(-np.abs(y_hat))
        return -y_hat, np.where(y_hat >= 0, 1.0, e) / (1 + e) - y

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        dl, y, y_hat, weight = inputs
        scale = np.abs(coefficients(dl, y_hat.shape, weight, attributes["reduction"]))
        by_y = (scale * np.abs(y_hat)).reshape(y.shape)
        return 16 + len(np.atleast_1d(y_hat)), (by_y, scale * (1 + y.reshape(y_hat.shape)))


BinaryCrossEntropy.grad = BinaryCrossEntropyGrad


def _log_sum_exp(x: Any) -> tuple[Any, Any]:
    """Return max(x) and log sum_c exp(x_c - max(x)), over the last axis."""
    if x.size == 0:
        return np.zeros(x.shape[:-1]), np.zeros(x.shape[:-1])
    top = x.max(axis=-1)
    return top, np.log(np.exp(x - top[..., None]).sum(axis=-1))


class CrossEntropy(Loss):
    """Cross-entropy of classes, from integer labels and logits: log-softmax and selection in one.

    l = log sum_c exp(x_c) - x_y for the logits x of a sample and its label y. A logit of -inf marks
    an impossible class: it gets no gradient, unless it is the label; then the loss is infinite.
    Where a logit is +inf, or all are -inf, loss and gradient are NaN.

    Parameters
    ----------
    y : Value of int64, shape (...)
        Labels in [0, classes).
    y_hat : Value, shape (..., classes)
        The logits, or the probabilities that `pyframe.Softmax` makes of them.
    sample_weight : Value, shape (n,), optional
        One weight for each entry of the first axis.
    reduction : {"mean", "sum", "none"}, default "mean"
        ``sum_ij w_i l_ij / (m sum_i w_i)``, ``sum_ij w_i l_ij`` or ``w_i l_ij``, with m labels a
        row (1 for labels (n,)); see `pyframe.ops.losses`.
    name : str, optional

    Returns
    -------
    Value, shape (); with reduction "none" that of y

    Raises
    ------
    ShapeError
        If the labels do not have the shape of the logits without their last axis.
    DTypeError
        If the labels are not integers.
    LabelError
        When a label is negative or not below the number of classes, at each run.
    ArgumentError
        For an unknown reduction, and for a prediction that is a sigmoid.

    Examples
    --------
    >>> import pyframe as pf
    >>> labels = pf.Placeholder("labels", shape=(None,), dtype="int64")
    >>> logits = pf.Placeholder("logits", shape=(None, 10))
    >>> pf.CrossEntropy(labels, logits).shape
    ()
    """

    op = "cross_entropy"
    aliases = ("softmax_cross_entropy", "log_loss")
    of_values = False
    integer_inputs = (0,)
    match = staticmethod(match_labels)
    batch = 0

    @classmethod
    def operands(cls, y: Any, y_hat: Any) -> tuple[Any, Any]:
        return as_labels(y), class_logits(y_hat, cls.__name__)

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return None, CrossEntropyGrad(grads[0], *self.inputs, **self.attrs), None

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        y, x, weight = inputs
        top, rest = _log_sum_exp(x)
        chosen = np.take_along_axis(x, y[..., None], axis=-1)[..., 0] if y.size else y * 0.0
        return reduce_loss(top - chosen + rest, weight, attributes["reduction"])

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        y, x, weight = inputs
        unweighted = cls.reference(y, x, None, reduction="none")
        # The sum is at least 1 and each of its exponentials is off by a unit: so is the logarithm.
        terms = reduce_loss(unweighted + 1, weight, attributes["reduction"])
        return 16 + y.size + x.shape[-1], np.abs(terms)

    @classmethod
    def sample(cls, draw: Any) -> Case:
        shape = draw.shape(max_ndim=2)
        classes = draw.size(low=1, high=37)
        weighted = shape and draw.choice([False, True])
        weight = draw.positive(shape[:1]) if weighted else None
        x = draw.choice([1.0, 8.0]) * draw.normal((*shape, classes))
        return Case(
            (draw.labels(shape, classes), x, weight), {"reduction": draw.choice(REDUCTIONS)}
        )

    @classmethod
    def cases(cls) -> Sequence[Case]:
        y, x = np.array([0, 2]), np.array([[1e4, 0.0, -1e4], [1e4, 0.0, -1e4]])
        return (
            Case((y, x, None), {"reduction": "none"}),
            Case((y, x / 1e4, np.zeros(2)), {"reduction": "mean"}),
            Case((y[:0], x[:0], None), {"reduction": "mean"}),
            Case((y[:0], x[:0], np.zeros(0)), {"reduction": "sum"}),
        )


class CrossEntropyGrad(LossGrad):
    """dx_c = dl w (softmax(x)_c - [c = y])."""

    op = "cross_entropy_grad"
    integer_inputs = (1,)
    output_count = 1
    loss = CrossEntropy

    def infer_shape(self, *shapes: Any) -> Any:
        return super().infer_shape(*shapes)[1]

    @classmethod
    def _parts(cls, *inputs: Any, **attributes: Any) -> tuple[Any, Any, Any]:
        dl, y, x, weight = inputs
        e = np.exp(x - _log_sum_exp(x)[0][..., None])
        probabilities = e / e.sum(axis=-1, keepdims=True)
        one_hot = (np.arange(x.shape[-1]) == y[..., None]).astype(float)
        scale = coefficients(dl, y.shape, weight, attributes["reduction"])[..., None]
        return scale, probabilities, one_hot

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        scale, probabilities, one_hot = cls._parts(*inputs, **attributes)
        return scale * (probabilities - one_hot)

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        scale, probabilities, one_hot = cls._parts(*inputs, **attributes)
        x = inputs[2]
        # x - max(x) is off by half a unit of its own last place; exp makes that a relative error.
        spread = np.abs(x - _log_sum_exp(x)[0][..., None])
        k = 16 + len(np.atleast_1d(inputs[1])) + x.shape[-1]
        return k, np.abs(scale) * (probabilities * (1 + spread) + one_hot)


CrossEntropy.grad = CrossEntropyGrad

OPS: tuple[type[Op], ...] = (
    BinaryCrossEntropy,
    BinaryCrossEntropyGrad,
    CrossEntropy,
    CrossEntropyGrad,
)
