"""Cross-entropies: losses of classifiers, from logits. Kernels: losses.c.

Logits are what a network gives before softmax or sigmoid. If the graph shows that a prediction is
the output of one of these, its input is used instead: see `pyframe.ops.logits`. Weights and
reductions are those of `pyframe.ops.losses`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pyframe.attributes import number, optional, whole
from pyframe.errors import ArgumentError, ShapeError
from pyframe.graph.node import Constant, Value
from pyframe.graph.op import Case, Op
from pyframe.graph.spec import Spec
from pyframe.ops.arithmetic import Maximum
from pyframe.ops.logits import binary_logits, class_logits
from pyframe.ops.losses import (
    COMPUTED,
    REDUCTIONS,
    Loss,
    LossGrad,
    ReduceLoss,
    as_labels,
    coefficients,
    match_labels,
    reduce_loss,
    rows_of,
)
from pyframe.ops.reductions import Sum
from pyframe.ops.softmax import LogSoftmax


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
    aliases = (
        *("bce", "binary_crossentropy", "BCEWithLogitsLoss", "BCELoss"),
        "multi_label_soft_margin_loss",
    )
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
    ignore_index : int, optional
        A label, usually -1, that stands for "not known": it counts as if it were not there.
    class_weight : array_like (classes,) or dict of label to weight, optional
        A factor v_y of the weight of each label; 1 for the labels that a dict leaves out. The mean
        is sum v_y w l / sum v_y w.
    label_smoothing : float in [0, 1), default 0.0
        The target gives this share e evenly to all classes: l = -(1 - e) log p_y - e / classes
        sum_c log p_c (Szegedy et al., "Rethinking the Inception architecture", CVPR 2016, section
        7). With class weights the terms of the second sum have those of their classes.
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
    aliases = (
        *("softmax_cross_entropy", "log_loss", "nll_loss"),
        *("sparse_categorical_crossentropy", "sparse_categorical_cross_entropy"),
        "CrossEntropyLoss",
    )
    of_values = False
    attributes = {"reduction": "i8", "ignore_index": "i8"}
    computed = {"ignores": "i8", **COMPUTED}
    rules = {**Loss.rules, "ignore_index": optional(whole())}
    defaults = {"ignore_index": None}
    integer_inputs = (0,)
    match = staticmethod(match_labels)
    batch = 0

    def __new__(
        cls,
        y: Any = None,
        y_hat: Any = None,
        sample_weight: Any = None,
        reduction: str = "mean",
        *,
        ignore_index: int | None = None,
        class_weight: Any = None,
        label_smoothing: float = 0.0,
        name: str | None = None,
    ) -> Any:
        plain = class_weight is None and label_smoothing == 0
        if plain and (ignore_index is None or reduction == "none"):
            return object.__new__(cls)
        return weighted_cross_entropy(
            *(y, y_hat, sample_weight, reduction),
            ignore_index=ignore_index,
            class_weight=class_weight,
            label_smoothing=label_smoothing,
            name=name,
        )

    def __init__(
        self,
        y: Any,
        y_hat: Any,
        sample_weight: Any = None,
        reduction: str = "mean",
        *,
        ignore_index: int | None = None,
        class_weight: Any = None,
        label_smoothing: float = 0.0,
        name: str | None = None,
    ) -> None:
        super().__init__(y, y_hat, sample_weight, reduction, name=name, ignore_index=ignore_index)

    def lower_attributes(self, specs: Sequence[Spec | None]) -> dict[str, Any]:
        return lowered_label(super().lower_attributes(specs))

    @classmethod
    def operands(cls, y: Any, y_hat: Any) -> tuple[Any, Any]:
        return as_labels(y), class_logits(y_hat, cls.__name__)

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return None, CrossEntropyGrad(grads[0], *self.inputs, **self.attrs), None

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        y, x, weight = inputs
        top, rest = _log_sum_exp(x)
        known = y != attributes.get("ignore_index")
        labels = np.where(known, y, 0)[..., None]
        chosen = np.take_along_axis(x, labels, axis=-1)[..., 0] if y.size else y * 0.0
        losses = np.where(known, top - chosen + rest, 0.0)
        return reduce_loss(losses, weight, attributes["reduction"])

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        y, x, weight = inputs
        unweighted = cls.reference(y, x, None, **{**attributes, "reduction": "none"})
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
        labels, attributes = draw.labels(shape, classes), {"reduction": draw.choice(REDUCTIONS)}
        if attributes["reduction"] == "none" and draw.choice([False, True]):
            attributes["ignore_index"] = draw.choice([-100, 0])
            labels = np.where(draw.uniform(shape) < 0.3, attributes["ignore_index"], labels)
        return Case((labels, x, weight), attributes)

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
    attributes = CrossEntropy.attributes
    computed = CrossEntropy.computed
    rules = CrossEntropy.rules
    defaults = CrossEntropy.defaults
    integer_inputs = (1,)
    output_count = 1
    loss = CrossEntropy

    def infer_shape(self, *shapes: Any) -> Any:
        return super().infer_shape(*shapes)[1]

    def lower_attributes(self, specs: Sequence[Spec | None]) -> dict[str, Any]:
        return lowered_label(super().lower_attributes(specs))

    @classmethod
    def _parts(cls, *inputs: Any, **attributes: Any) -> tuple[Any, Any, Any]:
        dl, y, x, weight = inputs
        e = np.exp(x - _log_sum_exp(x)[0][..., None])
        probabilities = e / e.sum(axis=-1, keepdims=True)
        one_hot = (np.arange(x.shape[-1]) == y[..., None]).astype(float)
        scale = coefficients(dl, y.shape, weight, attributes["reduction"])
        known = y != attributes.get("ignore_index")
        return (scale * known)[..., None], probabilities, one_hot

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


def lowered_label(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return attributes for a kernel: the label to be ignored, and whether there is one."""
    ignored = attributes["ignore_index"]
    return {**attributes, "ignore_index": ignored or 0, "ignores": ignored is not None}


class LabelWeight(Op):
    """w = table[y] for labels y, and 0 for the label to be ignored.

    Parameters
    ----------
    y : Value of int64, shape (...)
        Labels in [0, classes).
    table : Value, shape (classes,)
    ignore_index : int, optional

    Raises
    ------
    ShapeError
        If the table is no vector.
    LabelError
        When a label is not below the number of classes, and not `ignore_index`, at each run.

    Examples
    --------
    >>> import pyframe as pf
    >>> y = pf.Constant([1, 0], dtype="int64")
    >>> pf.compile(pf.LabelWeight(y, pf.Constant([0.2, 0.9]))).run({})
    array([0.9, 0.2], dtype=float32)
    """

    op = "label_weight"
    integer_inputs = (0,)
    constant_inputs = (1,)
    differentiable = False
    attributes = {"ignore_index": "i8"}
    computed = {"ignores": "i8"}
    rules = {"ignore_index": optional(whole())}
    defaults = {"ignore_index": None}

    def infer_shape(self, *shapes: Any) -> Any:
        y, table = shapes
        if len(table) != 1 or table[0] == 0:
            self.bad_shapes("the table must be (classes,), of one class at least")
        return y

    def lower_attributes(self, specs: Sequence[Spec | None]) -> dict[str, Any]:
        return lowered_label(self.attrs)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        y, table = inputs
        known = y != attributes.get("ignore_index")
        return np.where(known, table[np.where(known, y, 0)], 0.0)

    @classmethod
    def sample(cls, draw: Any) -> Case:
        classes, shape = draw.size(low=1, high=37), draw.shape(max_ndim=3)
        labels, ignored = draw.labels(shape, classes), draw.choice([None, -100, 0])
        if ignored is not None:
            labels = np.where(draw.uniform(shape) < 0.3, ignored, labels)
        return Case((labels, draw.normal((classes,))), {"ignore_index": ignored})


def weighted_cross_entropy(
    y: Any,
    y_hat: Any,
    sample_weight: Any,
    reduction: str,
    *,
    ignore_index: int | None,
    class_weight: Any,
    label_smoothing: float,
    name: str | None,
) -> Value:
    """Return a cross-entropy with what `CrossEntropy` takes beyond labels and logits."""
    share = number(at_least=0, below=1)(label_smoothing, "CrossEntropy: label_smoothing")
    labels = as_labels(y)
    # Of its own class, without the factors that are applied here.
    plain = CrossEntropy(labels, y_hat, None, "none", ignore_index=ignore_index, name=name)
    logits = plain.inputs[1]
    assert logits is not None
    table = _class_weights(class_weight, logits)
    weight: Value = LabelWeight(plain.inputs[0], table, ignore_index=ignore_index, name=name)
    if sample_weight is not None:
        weight = weight * rows_of(sample_weight, weight)
    if share == 0:
        return ReduceLoss(plain, weight, reduction, name=name)
    every = -1.0 * Sum(LogSoftmax(logits) * table, axis=-1)  # sum_c v_c (-log p_c)
    ones = Constant(np.ones(table.shape), dtype=table.dtype)
    known: Value = LabelWeight(plain.inputs[0], ones, ignore_index=ignore_index)
    if sample_weight is not None:
        known = known * rows_of(sample_weight, weight)
    total = weight * plain * (1.0 - share) + known * every * (share / table.shape[0])
    if reduction != "mean":
        return ReduceLoss(total, None, reduction, name=name)
    return Sum(total) / Maximum(Sum(weight), float(np.finfo(weight.dtype).tiny))


def _class_weights(given: Any, logits: Value) -> Any:
    """Return a weight for each class, as a constant in the dtype of the logits."""
    classes = logits.shape[-1] if logits.shape else None
    if isinstance(given, Mapping):
        if classes is None:
            raise ShapeError(
                "a dict of class weights needs logits whose number of classes is known"
            )
        unknown = [label for label in given if label not in range(classes)]
        if unknown:
            raise ArgumentError(f"class_weight: {unknown[0]!r} is none of the {classes} classes")
        weights = np.array([given.get(label, 1.0) for label in range(classes)], np.float64)
    elif given is None:
        if classes is None:
            raise ShapeError("ignore_index needs logits whose number of classes is known")
        weights = np.ones(classes)
    else:
        weights = np.asarray(given, np.float64)
    if weights.ndim != 1 or (classes is not None and len(weights) != classes):
        raise ShapeError(
            f"class_weight has the shape {weights.shape}, and there are {classes} classes"
        )
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ArgumentError("class_weight must be numbers of at least 0")
    return Constant(weights, dtype=logits.dtype, name="class_weight")


OPS: tuple[type[Op], ...] = (
    BinaryCrossEntropy,
    BinaryCrossEntropyGrad,
    CrossEntropy,
    CrossEntropyGrad,
    LabelWeight,
)
