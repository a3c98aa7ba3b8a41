"""What every metric is: sums of a batch, and what is made of their totals. Kernels: metrics.c.

A metric's output is a vector of float64 sums over its batch. Sums add up over batches, so the value
of an epoch, ``metric.finalize(sum of the outputs)``, is exact even if the batches differ in size.
Each takes ``(y, y_hat, sample_weight=None)``, the weight with one number for each row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np

from pyframe.graph.op import Case, Op, Rows
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
