"""Metrics of numbers: errors, and means of what a user computes. Kernels: metrics.c."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pyframe.graph.op import Case, Op, Rows, same_shape
from pyframe.graph.spec import Shape, Spec
from pyframe.ops.losses import by_row, match_weight
from pyframe.ops.metric_base import ElementMetric, Metric, Ratio, ratio, sums_over_rows


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


OPS: tuple[type[Op], ...] = (
    Mae,
    Mse,
    Rmse,
    R2,
    MeanOf,
    ElementMean,
    SumOverCount,
)
