"""Metrics of classes: how many are right, which is taken for which. Kernels: metrics.c."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyframe.attributes import optional, whole
from pyframe.graph.node import Value
from pyframe.graph.op import Case, Op, same_extent
from pyframe.graph.spec import Shape, Spec
from pyframe.ops.logits import binary_logits
from pyframe.ops.losses import by_row, match_target, match_weight
from pyframe.ops.metrics import ElementMetric, LabelMetric, Ratio, ratio


class Accuracy(Ratio, LabelMetric):
    """The share of rows whose largest logit is that of the label; the first one of a tie counts.

    For two classes and one logit, a target of floats is taken as the probability of the positive
    class, and the result is a `BinaryAccuracy`.

    Parameters
    ----------
    y : Value of int64, shape (...)
        Labels in [0, classes).
    y_hat : Value, shape (..., classes)
        Logits or probabilities.
    sample_weight : Value, shape (n,), optional
    name : str, optional

    Returns
    -------
    Value of float64, shape (2,)
        The weight of the right ones, and the weight of all.

    Raises
    ------
    ShapeError
        If the labels do not have the shape of the logits without their last axis.
    LabelError
        When a label is negative or not below the number of classes, at each run.

    Examples
    --------
    >>> import pyframe as pf
    >>> labels = pf.Placeholder("labels", shape=(None,), dtype="int64")
    >>> metric = pf.Accuracy(labels, pf.Placeholder("logits", shape=(None, 10)))
    >>> metric.finalize([45.0, 50.0])
    0.9
    """

    op = "accuracy"
    aliases = (
        "acc",
        "binary_accuracy",
        "categorical_accuracy",
        "sparse_categorical_accuracy",
    )
    higher_is_better = True

    def __new__(cls, y: Any = None, y_hat: Any = None, *args: Any, **kwargs: Any) -> Accuracy:
        binary = cls is Accuracy and is_binary(y, y_hat)
        return object.__new__(BinaryAccuracy if binary else cls)

    def infer_shape(self, *shapes: Any) -> Shape:
        self.check_batch(shapes)
        return (2,)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        y, predicted, weight = cls._weighted(*inputs)
        return np.array([np.sum(weight * (predicted == y)), np.sum(weight)])


def is_binary(y: Any, y_hat: Any) -> bool:
    """Return whether y holds probabilities of one class, not labels of several."""
    if not isinstance(y, Value) or y.dtype.kind != "f":
        return False
    shape = y_hat.shape if isinstance(y_hat, Value) else np.shape(y_hat)
    if y.shape is None or shape is None:
        return True
    return not (len(shape) == len(y.shape) + 1 and shape[-1] not in (None, 1))


class BinaryAccuracy(Accuracy):
    """The share of elements on the right side: logit > 0 exactly where y > 1/2.

    Parameters
    ----------
    y : Value of floats, shape (n, ...)
        The probability of the positive class, usually 0 or 1; (n,) goes with logits (n, 1).
    y_hat : Value, shape (n, ...)
        The logits, or the probabilities that `pyframe.Sigmoid` makes of them.
    sample_weight : Value, shape (n,), optional
    name : str, optional

    Returns
    -------
    Value of float64, shape (2,)
        The weight of the right ones, and the weight of all.

    Raises
    ------
    ShapeError
        If target and logits differ in shape.
    ArgumentError
        If the prediction is a softmax.

    Examples
    --------
    >>> import pyframe as pf
    >>> y, logits = pf.Placeholder("y", shape=(None,)), pf.Placeholder("logits", shape=(None, 1))
    >>> type(pf.Accuracy(y, logits)).__name__
    'BinaryAccuracy'
    """

    op = "binary_accuracy"
    listed_in = ""  # `Accuracy` makes one when needed
    integer_inputs = ()
    unit_target = True

    def __init__(
        self, y: Any, y_hat: Any, sample_weight: Any = None, *, name: str | None = None
    ) -> None:
        super().__init__(y, binary_logits(y_hat, "Accuracy"), sample_weight, name=name)

    def infer_shape(self, *shapes: Any) -> Shape:
        y, y_hat, weight = shapes
        match_weight(self, weight, match_target(self, y, y_hat))
        return (2,)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        y, y_hat, weight = ElementMetric._weighted(*inputs)
        return np.array([np.sum(weight * ((y_hat > 0) == (y > 0.5))), np.sum(weight)])

    @classmethod
    def sample(cls, draw: Any) -> Case:
        return ElementMetric.sample(draw)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        y, y_hat = np.array([0.0, 1.0, 0.5, 1.0]), np.array([0.0, 0.0, -1.0, 2.0])
        return (Case((y, y_hat, None)), Case((y, y_hat[:, None], np.array([1.0, 0.0, 2.0, 4.0]))))


class ConfusionMatrix(LabelMetric):
    """How often (label, largest logit) occurs: rows are true classes, columns predicted ones.

    Parameters
    ----------
    y : Value of int64, shape (...)
        Labels in [0, classes).
    y_hat : Value, shape (..., classes)
        Logits or probabilities.
    sample_weight : Value, shape (n,), optional
    classes : int, optional
        Number of classes; default: the last extent of y_hat.
    name : str, optional

    Returns
    -------
    Value of float64, shape (classes * classes,)
        `finalize` gives the matrix (classes, classes).

    Raises
    ------
    ShapeError
        If the labels do not have the shape of the logits without their last axis, or there are
        not as many logits as classes.
    LabelError
        When a label is negative or not below the number of classes, at each run.

    Examples
    --------
    >>> import pyframe as pf
    >>> labels = pf.Placeholder("labels", shape=(None,), dtype="int64")
    >>> metric = pf.ConfusionMatrix(labels, pf.Placeholder("logits", shape=(None, 2)))
    >>> metric.finalize([3.0, 1.0, 0.0, 4.0])
    array([[3., 1.],
           [0., 4.]])
    """

    op = "confusion_matrix"
    attributes = {"classes": "i8"}
    rules = {"classes": optional(whole(at_least=1))}

    def __init__(
        self,
        y: Any,
        y_hat: Any,
        sample_weight: Any = None,
        classes: int | None = None,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(y, y_hat, sample_weight, name=name, classes=classes)

    def infer_shape(self, *shapes: Any) -> Shape:
        self.check_batch(shapes)
        classes = shapes[1][-1]
        wanted = self.attrs["classes"]
        if not same_extent(classes, wanted):
            self.bad_shapes(f"there are {classes} logits for {wanted} classes")
        classes = wanted if classes is None else classes
        return (None if classes is None else classes * classes,)

    def lower_attributes(self, specs: Sequence[Spec | None]) -> dict[str, Any]:
        assert specs[1] is not None and specs[1].shape is not None
        return {"classes": specs[1].shape[-1]}

    def finalize(self, sums: Any) -> Any:
        flat = np.array(sums, np.float64)
        return flat.reshape(round(flat.size**0.5), -1)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        y, predicted, weight = cls._weighted(*inputs)
        classes = inputs[1].shape[-1]
        counts = np.zeros((classes, classes))
        np.add.at(counts, (y, predicted), weight)
        return counts.ravel()


class BinaryConfusionMatrix(ElementMetric):
    """How often (class, predicted class) occurs, of two classes and one logit for each element.

    Parameters
    ----------
    y : Value of floats, shape (n, ...)
        The probability of the positive class, usually 0 or 1; above 1/2 it counts as positive.
    y_hat : Value, shape (n, ...)
        The logits, or the probabilities that `pyframe.Sigmoid` makes of them.
    sample_weight : Value, shape (n,), optional
    name : str, optional

    Returns
    -------
    Value of float64, shape (4,)
        `finalize` gives the matrix (2, 2): rows are true classes, columns predicted ones.

    Examples
    --------
    >>> import pyframe as pf
    >>> y, p = pf.Constant([0.0, 1.0]), pf.Constant([0.2, 0.9])
    >>> pf.compile(pf.BinaryConfusionMatrix(y, p)).run({})
    array([0., 1., 0., 1.])
    """

    op = "binary_confusion_matrix"
    listed_in = ""  # `Precision` and others make one when needed
    length = 4
    unit_target = True
    exact_on_integers = True

    def __init__(
        self, y: Any, y_hat: Any, sample_weight: Any = None, *, name: str | None = None
    ) -> None:
        logits = binary_logits(y_hat, "a metric of two classes")
        super().__init__(y, logits, sample_weight, name=name)

    def finalize(self, sums: Any) -> Any:
        return np.array(sums, np.float64).reshape(2, 2)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        y, y_hat, weight = cls._weighted(*inputs)
        counts = np.zeros(4)
        np.add.at(counts, 2 * (y > 0.5) + (y_hat > 0), weight)
        return counts


class TopKAccuracy(Ratio, LabelMetric):
    """The share of rows whose label is among the k largest logits.

    Of equal logits those of higher classes count as larger, as in scikit-learn.

    Parameters
    ----------
    y : Value of int64, shape (...)
        Labels in [0, classes).
    y_hat : Value, shape (..., classes)
        Logits or probabilities.
    sample_weight : Value, shape (n,), optional
    k : int, default 5
    name : str, optional

    Returns
    -------
    Value of float64, shape (2,)
        The weight of the right ones, and the weight of all.

    Examples
    --------
    >>> import functools, pyframe as pf
    >>> model = pf.Sequential([pf.layers.Dense(100)])
    >>> top_3 = functools.partial(pf.TopKAccuracy, k=3)
    >>> trainer = pf.Trainer(model, "cross_entropy", metrics=["top_k_accuracy", top_3])
    """

    op = "top_k_accuracy"
    aliases = (
        "top_k",
        "top_k_accuracy_score",
        "sparse_top_k_categorical_accuracy",
        "top_k_categorical_accuracy",
    )
    higher_is_better = True
    attributes = {"k": "i8"}
    rules = {"k": whole(at_least=1)}
    defaults = {"k": 5}

    def __init__(
        self, y: Any, y_hat: Any, sample_weight: Any = None, k: int = 5, *, name: str | None = None
    ) -> None:
        super().__init__(y, y_hat, sample_weight, name=name, k=k)

    def infer_shape(self, *shapes: Any) -> Shape:
        self.check_batch(shapes)
        return (2,)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        y, x, weight = inputs
        w = np.broadcast_to(by_row(weight, y.shape), y.shape)
        order = np.argsort(x, axis=-1, kind="stable")[..., ::-1][..., : attributes.get("k", 5)]
        return np.array([np.sum(w * (order == y[..., None]).any(-1)), np.sum(w)])

    @classmethod
    def sample(cls, draw: Any) -> Case:
        return Case(super().sample(draw).inputs, {"k": draw.choice([1, 2, 5, 50])})


class CalibrationBins(LabelMetric):
    """How right the predicted class is beside how certain it is, in bins of certainty.

    Parameters
    ----------
    y : Value of int64, shape (...)
        Labels in [0, classes).
    probabilities : Value, shape (..., classes)
    sample_weight : Value, shape (n,), optional
    bins : int, default 15
        Of equal width, from 0 to 1.
    name : str, optional

    Returns
    -------
    Value of float64, shape (3 bins,)
        `finalize` gives sum_b |sum_b w p - sum_b w [right]| / sum w, the calibration error.

    Examples
    --------
    >>> import pyframe as pf
    >>> y, p = pf.Constant([1], dtype="int64"), pf.Constant([[0.2, 0.8]])
    >>> pf.compile(pf.CalibrationBins(y, p, bins=2)).run({}).shape
    (6,)
    """

    op = "calibration_bins"
    listed_in = ""  # of probabilities: `CalibrationError` makes them of logits
    higher_is_better = False
    exact_on_integers = False
    attributes = {"bins": "i8"}
    rules = {"bins": whole(at_least=1, at_most=10_000)}
    defaults = {"bins": 15}

    def __init__(
        self,
        y: Any,
        probabilities: Any,
        sample_weight: Any = None,
        bins: int = 15,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(y, probabilities, sample_weight, name=name, bins=bins)

    def infer_shape(self, *shapes: Any) -> Shape:
        self.check_batch(shapes)
        return (3 * int(self.attrs["bins"]),)

    def finalize(self, sums: Any) -> Any:
        weight, certainty, right = np.array(sums, np.float64).reshape(-1, 3).T
        return ratio(float(np.abs(certainty - right).sum()), float(weight.sum()))

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        y, p, weight = inputs
        bins = attributes.get("bins", 15)
        sums = np.zeros((bins, 3))
        if y.size:
            most, best = p.max(-1), p.argmax(-1)
            w = np.broadcast_to(by_row(weight, y.shape), y.shape)
            inside = (most >= 0) & (most <= 1)
            at = np.minimum((np.where(inside, most, 0) * bins).astype(int), bins - 1)
            for column, value in enumerate((w, w * most, w * (best == y))):
                np.add.at(sums[:, column], at[inside], value[inside])
            if not inside.all():
                sums[0, 0] = np.nan
        return sums.ravel()

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        return 16 + inputs[0].size, np.abs(cls.reference(*inputs, **attributes))

    @classmethod
    def sample(cls, draw: Any) -> Case:
        y, x, weight = super().sample(draw).inputs
        assert x is not None
        bins = draw.choice([1, 4, 15])
        p = np.exp(x - x.max(-1, keepdims=True, initial=0))
        p /= p.sum(-1, keepdims=True)
        # Exact in float32, and not on the edge of a bin.
        p = (np.floor(p * 2**10) + 0.5) / 2**11
        return Case((y, p, weight), {"bins": bins})

    @classmethod
    def cases(cls) -> Sequence[Case]:
        p = np.array([[0.25, 0.75], [1.0, 0.0]])
        return (
            Case((np.array([1, 0]), p, None), {"bins": 4}),
            Case((np.array([1, 1]), p, np.array([0.5, 2.0])), {"bins": 15}),
            Case((np.zeros(0, np.int64), p[:0], None), {"bins": 3}),
        )


OPS: tuple[type[Op], ...] = (
    Accuracy,
    BinaryAccuracy,
    TopKAccuracy,
    ConfusionMatrix,
    BinaryConfusionMatrix,
    CalibrationBins,
)
