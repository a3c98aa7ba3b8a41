"""Metrics: how good a model is, in numbers that people read. Kernels: metrics.c.

A metric's output is a vector of float64 sums over its batch. Sums add up over batches, so the value
of an epoch, ``metric.finalize(sum of the outputs)``, is exact even if the batches differ in size.
Each takes ``(y, y_hat, sample_weight=None)``, the weight with one number for each row. Here are
those of numbers, and means of what a user computes; `class_metrics.py` has those of classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np

from pyframe.graph.op import Case, Op, Rows, same_shape
from pyframe.graph.spec import FLOAT64, Array, Shape, Spec
from pyframe.ops.losses import as_labels, by_row, match_labels, match_target, match_weight


def ratio(a: float, b: float) -> float:
    """Return a / b, or NaN if nothing was counted."""
    return float(a) / float(b) if b != 0 else float("nan")


def sums_over_rows(specs: Sequence[Spec | None]) -> Rows | None:
    has_rows = specs[0] is not None and bool(specs[0].shape)
    return Rows((True,) * len(specs), (False,)) if has_rows else None


class Metric(Op):
    """The base of the metrics: the sums of a batch, and the metric computed from their totals.

    Parameters
    ----------
    y : Value, shape (n, ...)
        The target.
    y_hat : Value
        The prediction.
    sample_weight : Value, shape (n,), optional
    name : str, optional

    Notes
    -----
    A subclass states the kernel, `infer_shape` (a vector), `finalize` and `higher_is_better`.

    Attributes
    ----------
    higher_is_better : bool or None
        Whether a higher value means a better model; callbacks in mode "auto" follow it. None for a
        metric that is not a number, such as a matrix.
    """

    listed_in = "metrics"
    higher_is_better: ClassVar[bool | None] = None
    differentiable = False
    output_dtype = FLOAT64
    optional_inputs: ClassVar[tuple[int, ...]] = (2,)
    constant_inputs: ClassVar[tuple[int, ...]] = (2,)

    def finalize(self, sums: Any) -> Any:
        """Return the metric for the sum of the outputs of all batches: a number, or an array."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its sums mean")

    def finalize_all(self, records: Array) -> list[Any]:
        """Return the metric for each row of sums, as `finalize` would."""
        return list(map(self.finalize, records.tolist()))

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        return 16 + inputs[1].size, np.abs(cls.reference(*inputs, **attributes))


class Ratio:
    """A mixin for metrics whose two sums are a total and its divisor."""

    def finalize(self, sums: Any) -> Any:
        """Return total / count, or NaN if nothing was counted."""
        return ratio(sums[0], sums[1])

    def finalize_all(self, records: Array) -> list[Any]:
        """Return total / count for each row."""
        total, count = records[:, 0], records[:, 1]
        result = np.full(len(records), np.nan)
        with np.errstate(all="ignore"):
            np.divide(total, count, out=result, where=count != 0)
        return result.tolist()  # type: ignore[no-any-return]


class ElementMetric(Metric):
    """A metric of target and prediction, element by element."""

    length = 2

    def __init__(
        self, y: Any, y_hat: Any, sample_weight: Any = None, *, name: str | None = None
    ) -> None:
        super().__init__(y, y_hat, sample_weight, name=name)

    def infer_shape(self, *shapes: Any) -> Shape:
        y, y_hat, weight = shapes
        match_weight(self, weight, match_target(self, y, y_hat))
        return (self.length,)

    def rows(self, specs: Sequence[Spec | None]) -> Rows | None:
        return sums_over_rows(specs)

    @classmethod
    def _weighted(cls, *inputs: Any) -> tuple[Any, Any, Any]:
        """Return target, prediction and weight, all in the shape of the prediction."""
        y, y_hat, weight = inputs
        return (
            y.reshape(y_hat.shape),
            y_hat,
            np.broadcast_to(by_row(weight, y_hat.shape), y_hat.shape),
        )

    @classmethod
    def sample(cls, draw: Any) -> Case:
        y_hat = draw.normal(draw.shape(max_ndim=3))
        y = draw.normal(y_hat.shape)
        if y_hat.ndim == 1 and draw.choice([False, True]):
            y_hat = y_hat[:, None]
        weighted = y.ndim > 0 and draw.choice([False, True])
        return Case((y, y_hat, draw.positive(y.shape[:1]) if weighted else None))


class LabelMetric(Metric):
    """A metric of integer labels (...) and logits (..., classes)."""

    integer_inputs: ClassVar[tuple[int, ...]] = (0,)
    exact_on_integers = True

    def __init__(
        self,
        y: Any,
        y_hat: Any,
        sample_weight: Any = None,
        *,
        name: str | None = None,
        **attributes: Any,
    ) -> None:
        target = as_labels(y) if self.integer_inputs else y
        super().__init__(target, y_hat, sample_weight, name=name, **attributes)

    def rows(self, specs: Sequence[Spec | None]) -> Rows | None:
        return sums_over_rows(specs)

    def check_batch(self, shapes: Sequence[Any]) -> None:
        """Raise `ShapeError` unless labels, logits and weight belong together."""
        y, logits, weight = shapes
        match_weight(self, weight, match_labels(self, y, logits))

    @classmethod
    def _weighted(cls, *inputs: Any) -> tuple[Any, Any, Any]:
        """Return labels, the classes predicted, and a weight for each label."""
        y, logits, weight = inputs
        predicted = logits.argmax(axis=-1) if y.size else np.zeros(y.shape, np.int64)
        return y, predicted, np.broadcast_to(by_row(weight, y.shape), y.shape)

    @classmethod
    def sample(cls, draw: Any) -> Case:
        shape = draw.shape(max_ndim=2)
        classes = draw.choice([2, 3, 10, 17])
        weighted = shape and draw.choice([False, True])
        weight = draw.positive(shape[:1]) if weighted else None
        return Case((draw.labels(shape, classes), draw.distinct((*shape, classes)), weight))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        ties = np.array([[0.0, 1.0, 1.0], [2.0, 2.0, 2.0]])  # the first of a tie counts
        return (
            Case((np.array([1, 0]), ties, None)),
            Case((np.array([2, 1]), ties, np.array([0.5, 2.0]))),
            Case((np.zeros(0, np.int64), ties[:0], None)),
        )


class Mae(Ratio, ElementMetric):
    """The mean absolute error: sum w |y_hat - y| / sum w over all elements.

    Parameters
    ----------
    y : Value, shape (n, ...)
        The target; (n,) goes with a prediction (n, 1).
    y_hat : Value, shape (n, ...)
    sample_weight : Value, shape (n,), optional
    name : str, optional

    Returns
    -------
    Value of float64, shape (2,)
        The two sums of the formula.

    Raises
    ------
    ShapeError
        If target and prediction differ in shape.

    Examples
    --------
    >>> import pyframe as pf
    >>> y, y_hat = pf.Placeholder("y", shape=(None,)), pf.Placeholder("y_hat", shape=(None, 1))
    >>> pf.Mae(y, y_hat).finalize([12.0, 4.0])
    3.0
    """

    op = "mae"
    aliases = ("mean_absolute_error",)
    higher_is_better = False
    exact_on_integers = True

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        y, y_hat, weight = cls._weighted(*inputs)
        return np.array([np.sum(weight * np.abs(y_hat - y)), np.sum(weight)])


class Mse(Ratio, ElementMetric):
    """The mean squared error: sum w (y_hat - y)^2 / sum w over all elements.

    Parameters
    ----------
    y : Value, shape (n, ...)
        The target; (n,) goes with a prediction (n, 1).
    y_hat : Value, shape (n, ...)
    sample_weight : Value, shape (n,), optional
    name : str, optional

    Returns
    -------
    Value of float64, shape (2,)
        The two sums of the formula.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.compile(pf.Mse(pf.Constant([[1.0]]), pf.Constant([[3.0]]))).run({})
    array([4., 1.])
    """

    op = "mse"
    kernel = "rmse"
    aliases = ("mean_squared_error",)
    higher_is_better = False
    exact_on_integers = True

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        y, y_hat, weight = cls._weighted(*inputs)
        return np.array([np.sum(weight * (y_hat - y) ** 2), np.sum(weight)])


class Rmse(ElementMetric):
    """The root of the mean squared error: sqrt(sum w (y_hat - y)^2 / sum w) over all elements.

    Parameters
    ----------
    y : Value, shape (n, ...)
        The target; (n,) goes with a prediction (n, 1).
    y_hat : Value, shape (n, ...)
    sample_weight : Value, shape (n,), optional
    name : str, optional

    Returns
    -------
    Value of float64, shape (2,)
        The two sums of the formula.

    Raises
    ------
    ShapeError
        If target and prediction differ in shape.

    Examples
    --------
    >>> import pyframe as pf
    >>> y, y_hat = pf.Placeholder("y", shape=(None,)), pf.Placeholder("y_hat", shape=(None, 1))
    >>> pf.Rmse(y, y_hat).finalize([36.0, 4.0])
    3.0
    """

    op = "rmse"
    aliases = ("root_mean_squared_error",)
    higher_is_better = False
    exact_on_integers = True

    def finalize(self, sums: Any) -> Any:
        return float(np.sqrt(ratio(sums[0], sums[1])))

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        y, y_hat, weight = cls._weighted(*inputs)
        return np.array([np.sum(weight * (y_hat - y) ** 2), np.sum(weight)])


class R2(ElementMetric):
    """The coefficient of determination: the share of the target's variance that is explained.

    1 - sum w (y_hat - y)^2 / sum w (y - m)^2 with m the weighted mean of y, over all elements: 1 is
    perfect, 0 no better than the mean. For a target that does not vary it is 1 when the prediction
    has no error, else 0, as in scikit-learn. The second sum is the difference of two that are added
    up with twice the digits of float64. If the mean of the target is 10^k times its standard
    deviation, about 31 - 2k digits of the difference remain; from k = 14.7 on the target counts as
    one that does not vary.

    Parameters
    ----------
    y : Value, shape (n, ...)
        The target; (n,) goes with a prediction (n, 1).
    y_hat : Value, shape (n, ...)
    sample_weight : Value, shape (n,), optional
    name : str, optional

    Returns
    -------
    Value of float64, shape (9,)
        sum w (y_hat - y)^2; then sum w in two parts, sum w y in three, sum w y^2 in three. The
        parts of a number add up to it. Each but the last has 26 binary digits, so that those of
        many batches are added without rounding.

    Raises
    ------
    ShapeError
        If target and prediction differ in shape.

    Examples
    --------
    >>> import pyframe as pf
    >>> y, y_hat = pf.Placeholder("y", shape=(None,)), pf.Placeholder("y_hat", shape=(None,))
    >>> pf.R2(y, y_hat).finalize([1, 2, 0, 0, 0, 0, 4, 0, 0])  # targets -sqrt(2), sqrt(2)
    0.75
    """

    op = "r2"
    aliases = ("r2_score",)
    higher_is_better = True
    exact_on_integers = True
    length = 9

    def rows(self, specs: Sequence[Spec | None]) -> Rows | None:
        return None  # sums in several parts, which say how exact the first one is

    def finalize(self, sums: Any) -> Any:
        from fractions import Fraction  # slow to import, and only this metric needs it

        errors, *parts = map(float, sums)
        if not all(map(math.isfinite, parts)):
            return float("nan")
        # As fractions: if the mean is far from 0, the difference below keeps only the last digits.
        exact = [Fraction(part) for part in parts]
        weight, first, second = sum(exact[:2]), sum(exact[2:5]), sum(exact[5:])
        if weight == 0:
            return float("nan")
        variation = second - first**2 / weight
        # For a constant target the difference is only the rounding of its sums.
        if variation <= second * Fraction(2) ** -98:
            return 1.0 if errors == 0 else 0.0
        return 1 - errors / float(variation)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        y, y_hat, weight = cls._weighted(*inputs)
        sums = [np.sum(weight * (y_hat - y) ** 2)]
        for power, count in ((0, 2), (1, 3), (2, 3)):
            left = np.sum(weight * y**power)
            for _ in range(count - 1):
                sums.append(np.trunc(left / _unit(left)) * _unit(left))
                left = left - sums[-1]
            sums.append(left)
        return np.array(sums)

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        y, y_hat, weight = cls._weighted(*inputs)
        terms = [np.sum(weight * (y_hat - y) ** 2)]
        for power, count in ((0, 2), (1, 3), (2, 3)):
            terms += count * [np.sum(weight * np.abs(y) ** power)]
        return 16 + inputs[1].size, np.array(terms)


def _unit(x: Any) -> Any:
    """Return the value of the 26th binary digit of a number."""
    return np.ldexp(1.0, np.frexp(x)[1] - 26)


class MeanOf(Ratio, Metric):
    """The mean of a loss over an epoch: each batch counts by its weight, or its number of rows.

    For losses that are means over their batch this is exactly the mean over all rows, even if the
    last batch is shorter.

    Parameters
    ----------
    loss : Value, shape ()
    batch : Value, shape (n, ...)
        A value with the rows that the loss is the mean of, usually the target: its first axis gives
        n. May be int64.
    sample_weight : Value, shape (n,), optional
        The weight that the loss was given.
    name : str, optional

    Returns
    -------
    Value of float64, shape (2,)
        loss * sum w, sum w. A batch of total weight 0 adds nothing.

    Raises
    ------
    ShapeError
        If the loss is not one number, or the weight does not have n elements.

    Examples
    --------
    >>> import pyframe as pf
    >>> y, y_hat = pf.Placeholder("y", shape=(None,)), pf.Placeholder("y_hat", shape=(None,))
    >>> pf.MeanOf(pf.L2Loss(y, y_hat), y).finalize([10.0, 4.0])
    2.5
    """

    op = "mean_of"  # of any loss: the metric made with it says which way is better
    listed_in = ""
    shape_only = (1,)
    exact_on_integers = True

    def __init__(
        self, loss: Any, batch: Any, sample_weight: Any = None, *, name: str | None = None
    ) -> None:
        super().__init__(loss, batch, sample_weight, name=name)

    def infer_shape(self, *shapes: Any) -> Shape:
        loss, batch, weight = shapes
        if loss != ():
            self.bad_shapes("the loss must be one number, of shape ()")
        match_weight(self, weight, batch)
        return (2,)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        loss, batch, weight = inputs
        rows = batch.shape[0] if batch.ndim else 1
        total = float(rows) if weight is None else np.sum(weight)
        return np.array([loss * total if total else 0.0, total])

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        return 16 + inputs[1].size, np.abs(cls.reference(*inputs, **attributes))

    @classmethod
    def sample(cls, draw: Any) -> Case:
        shape = draw.shape()
        weighted = shape and draw.choice([False, True])
        weight = draw.positive(shape[:1]) if weighted else None
        return Case((draw.normal(()), np.zeros(shape), weight))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        nan = np.array(np.nan)  # the mean of an empty batch
        return (Case((nan, np.zeros((0, 2)), None)), Case((nan, np.zeros(2), np.zeros(2))))


class ElementMean(Ratio, Metric):
    """The mean of some values over an epoch: sum w v / sum w over all elements.

    What makes a metric of any formula: ``pf.ElementMean(abs(y - y_hat) / abs(y))``.

    Parameters
    ----------
    values : Value, shape (n, ...)
    sample_weight : Value, shape (n,), optional
    name : str, optional

    Returns
    -------
    Value of float64, shape (2,)
        The two sums of the formula.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.ElementMean(pf.Placeholder("values", shape=(None,))).finalize([10.0, 4.0])
    2.5
    """

    op = "element_mean"  # of any formula: the metric made with it says which way is better
    listed_in = ""
    optional_inputs = (1,)
    constant_inputs = (1,)
    exact_on_integers = True

    def __init__(self, values: Any, sample_weight: Any = None, *, name: str | None = None) -> None:
        super().__init__(values, sample_weight, name=name)

    def infer_shape(self, *shapes: Any) -> Shape:
        values, weight = shapes
        match_weight(self, weight, values)
        return (2,)

    def rows(self, specs: Sequence[Spec | None]) -> Rows | None:
        return sums_over_rows(specs)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        values, weight = inputs
        w = np.broadcast_to(by_row(weight, values.shape), values.shape)
        return np.array([np.sum(w * values), np.sum(w)])

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        return 16 + inputs[0].size, cls.reference(np.abs(inputs[0]), inputs[1])

    @classmethod
    def sample(cls, draw: Any) -> Case:
        values = draw.normal(draw.shape(max_ndim=3))
        weighted = values.ndim > 0 and draw.choice([False, True])
        return Case((values, draw.positive(values.shape[:1]) if weighted else None))


class SumOverCount(Ratio, Metric):
    """A sum and its divisor, each added up over an epoch before they are divided.

    Parameters
    ----------
    total, count : Value, of one shape
        Numbers of a batch, usually one each, of shape (); several are added up.
    name : str, optional

    Returns
    -------
    Value of float64, shape (2,)

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None,))
    >>> pf.SumOverCount(pf.Sum(x), pf.Sum(x * x)).finalize([3.0, 4.0])
    0.75
    """

    op = "sum_over_count"
    listed_in = ""
    optional_inputs = ()
    constant_inputs = ()
    exact_on_integers = True

    def __init__(self, total: Any, count: Any, *, name: str | None = None) -> None:
        super().__init__(total, count, name=name)

    def infer_shape(self, *shapes: Any) -> Shape:
        total, count = shapes
        if not same_shape(total, count):
            self.bad_shapes("the sum and its divisor must have one shape")
        return (2,)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return np.array([np.sum(x) for x in inputs])

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        return 16 + inputs[0].size, np.array([np.sum(np.abs(x)) for x in inputs])

    @classmethod
    def sample(cls, draw: Any) -> Case:
        shape = draw.shape(max_ndim=2)
        return Case((draw.normal(shape), draw.normal(shape)))


def scored(node: Metric, score: Callable[[Any], Any]) -> Metric:
    """Return a metric of which another one makes a number at the end of an epoch.

    Parameters
    ----------
    node : Metric
        It is changed.
    score : callable
        From what its `finalize` returns to the metric.
    """
    plain = node.finalize
    vars(node)["finalize"] = partial(_then, plain, score)
    vars(node)["finalize_all"] = partial(_then_all, plain, score)
    return node


def _then(plain: Callable[[Any], Any], score: Callable[[Any], Any], sums: Any) -> Any:
    return score(plain(sums))


def _then_all(
    plain: Callable[[Any], Any], score: Callable[[Any], Any], records: Array
) -> list[Any]:
    return [score(plain(sums)) for sums in records.tolist()]


OPS: tuple[type[Op], ...] = (
    Mae,
    Mse,
    Rmse,
    R2,
    MeanOf,
    ElementMean,
    SumOverCount,
)
