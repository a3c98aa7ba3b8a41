"""Metrics composed of other ops, or made of a confusion matrix at the end of an epoch.

All take ``(y, y_hat, sample_weight=None)`` and options by keyword. Targets of classes are int64
labels with a logit for each class; or, for two classes, floats of 0 and 1 with one logit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pyframe.attributes import number, one_of
from pyframe.graph.composite import Composite, composite
from pyframe.graph.node import Value
from pyframe.graph.op import Case
from pyframe.ops import scores
from pyframe.ops.activations import Sigmoid
from pyframe.ops.arithmetic import Abs, Exp, Maximum, Square
from pyframe.ops.class_metrics import (
    BinaryConfusionMatrix,
    CalibrationBins,
    ConfusionMatrix,
    is_binary,
)
from pyframe.ops.entropy import BinaryCrossEntropy, CrossEntropy
from pyframe.ops.logits import binary_logits, class_logits
from pyframe.ops.loss_formulas import as_pair
from pyframe.ops.losses import as_labels, by_row
from pyframe.ops.metrics import ElementMean, ElementMetric, LabelMetric, scored
from pyframe.ops.reductions import Sum
from pyframe.ops.softmax import Softmax


def confusion(
    y: Any, y_hat: Any, sample_weight: Any, score: Callable[[scores.Matrix], Any]
) -> Value:
    """Return a confusion matrix with a score: of labels, or of 0 and 1 with one logit."""
    made = BinaryConfusionMatrix if is_binary(y, y_hat) else ConfusionMatrix
    return scored(made(y, y_hat, sample_weight), score)


def _average(value: str, what: str) -> str:
    return str(one_of(scores.AVERAGES)(value, f"{what}: average"))


def of_classes(
    op: str, *, aliases: Sequence[str] = ()
) -> Callable[[Callable[..., Value]], Composite]:
    """Make a metric of the function below, which gives a confusion matrix with a score."""
    return composite(
        op,
        reference=lambda y, x, w=None: ConfusionMatrix.reference(y, x, w),
        sample=LabelMetric.sample,
        cases=LabelMetric.cases(),
        differentiable=False,
        listed_in="metrics",
        aliases=aliases,
        integer_inputs=(0,),
        optional_inputs=(2,),
        constant_inputs=(2,),
        higher_is_better=True,
    )


@of_classes("precision", aliases=("precision_score",))
def Precision(y: Any, y_hat: Any, sample_weight: Any = None, *, average: str = "auto") -> Value:
    """The share of what is predicted as a class that is of it.

    Parameters
    ----------
    y : Value of int64, shape (...), or of floats, 0 and 1
    y_hat : Value, shape (..., classes), or that of y for floats
        Logits or probabilities.
    sample_weight : Value, shape (n,), optional
    average : {"auto", "binary", "macro", "weighted", "micro", "none"}, default "auto"
        See `pyframe.ops.scores.averaged`. "auto" is the class 1 of two, and the mean over more.

    Examples
    --------
    >>> import functools, pyframe as pf
    >>> each = functools.partial(pf.Precision, average="none")
    >>> model = pf.Sequential([pf.layers.Dense(3)])
    >>> trainer = pf.Trainer(model, "cross_entropy", metrics=["precision", each])
    """
    score = functools.partial(
        scores.averaged, scores.precision, average=_average(average, "Precision")
    )
    return confusion(y, y_hat, sample_weight, score)


@of_classes("recall", aliases=("recall_score", "sensitivity"))
def Recall(y: Any, y_hat: Any, sample_weight: Any = None, *, average: str = "auto") -> Value:
    """The share of a class that is predicted as such.

    Parameters
    ----------
    y, y_hat, sample_weight, average
        As for `Precision`.
    """
    score = functools.partial(scores.averaged, scores.recall, average=_average(average, "Recall"))
    return confusion(y, y_hat, sample_weight, score)


@of_classes("f1", aliases=("f1_score",))
def F1(
    y: Any, y_hat: Any, sample_weight: Any = None, *, average: str = "auto", beta: float = 1.0
) -> Value:
    """The harmonic mean of precision and recall, or the weighted one: F-beta.

    Parameters
    ----------
    y, y_hat, sample_weight, average
        As for `Precision`.
    beta : float, default 1.0
        How much more recall counts than precision.
    """
    weight = number(above=0)(beta, "F1: beta")
    score = functools.partial(scores.f_score, beta=weight)
    made = functools.partial(scores.averaged, score, average=_average(average, "F1"))
    return confusion(y, y_hat, sample_weight, made)


@of_classes("iou", aliases=("jaccard", "jaccard_score", "mean_io_u"))
def Iou(y: Any, y_hat: Any, sample_weight: Any = None, *, average: str = "auto") -> Value:
    """Intersection over union of where a class is and where it is predicted (Jaccard's index).

    Parameters
    ----------
    y, y_hat, sample_weight, average
        As for `Precision`.
    """
    score = functools.partial(scores.averaged, scores.iou, average=_average(average, "Iou"))
    return confusion(y, y_hat, sample_weight, score)


@of_classes("balanced_accuracy", aliases=("balanced_accuracy_score",))
def BalancedAccuracy(y: Any, y_hat: Any, sample_weight: Any = None) -> Value:
    """The mean recall of all classes: 1 / classes for guesses, however rare some of them are.

    Parameters
    ----------
    y, y_hat, sample_weight
        As for `Precision`.
    """
    return confusion(y, y_hat, sample_weight, scores.balanced_accuracy)


@of_classes("cohen_kappa", aliases=("cohen_kappa_score",))
def CohenKappa(y: Any, y_hat: Any, sample_weight: Any = None) -> Value:
    """1 - the share of errors divided by that of guesses with the same frequencies.

    Parameters
    ----------
    y, y_hat, sample_weight
        As for `Precision`.

    References
    ----------
    Cohen, "A coefficient of agreement for nominal scales", 1960.
    """
    return confusion(y, y_hat, sample_weight, scores.cohen_kappa)


@of_classes("matthews_corrcoef", aliases=("mcc",))
def MatthewsCorrcoef(y: Any, y_hat: Any, sample_weight: Any = None) -> Value:
    """The correlation of true and predicted class, from -1 to 1.

    Parameters
    ----------
    y, y_hat, sample_weight
        As for `Precision`.

    References
    ----------
    Gorodkin, "Comparing two K-category assignments by a K-category correlation coefficient", 2004.
    """
    return confusion(y, y_hat, sample_weight, scores.matthews)


# ---- means of a formula ----


def mean_of_elements(
    op: str,
    *,
    element: Callable[[Any, Any], Any],
    sample: Callable[[Any], Case],
    size: Callable[[Any, Any], Any],
    labels: bool = False,
    aliases: Sequence[str] = (),
    target_domain: str = "",
) -> Callable[[Callable[..., Value]], Composite]:
    """Make a metric of the function below, which gives an `ElementMean`; less of it is better."""

    def sums(values: Any, weight: Any) -> Any:
        w = np.broadcast_to(by_row(weight, values.shape), values.shape)
        return np.array([np.sum(w * values), np.sum(w)])

    return composite(
        op,
        reference=lambda y, y_hat, w=None: sums(element(y, y_hat), w),
        magnitude=lambda y, y_hat, w=None: (100 + np.size(y_hat), sums(size(y, y_hat), w)),
        sample=sample,
        differentiable=False,
        listed_in="metrics",
        aliases=aliases,
        integer_inputs=(0,) if labels else (),
        optional_inputs=(2,),
        constant_inputs=(2,),
        higher_is_better=False,
        target_domain=target_domain,
    )


def _relative(y: Any, y_hat: Any) -> Any:
    return np.abs(y - y_hat.reshape(y.shape)) / np.maximum(np.abs(y), np.finfo(np.float64).eps)


def _away(draw: Any) -> Case:
    y, *others = ElementMetric.sample(draw).inputs
    return Case((draw.away_from_zero(np.shape(np.asarray(y))), *others))


@mean_of_elements(
    "mape",
    element=_relative,
    sample=_away,
    size=lambda y, p: 1 + _relative(y, p),
    aliases=("mean_absolute_percentage_error",),
)
def Mape(y: Any, y_hat: Any, sample_weight: Any = None) -> Value:
    """The mean of |y - y_hat| / max(|y|, 2^-52), a share and no percentage, as in scikit-learn.

    Parameters
    ----------
    y, y_hat : Value, shape (n, ...)
    sample_weight : Value, shape (n,), optional
    """
    target, prediction = as_pair(y, y_hat, "mape")
    return ElementMean(Abs(target - prediction) / Maximum(Abs(target), 2.0**-52), sample_weight)


def _entropy(y: Any, x: Any) -> Any:
    return CrossEntropy.reference(y, x, None, reduction="none")


def _entropies(y: Any, y_hat: Any) -> Value:
    """Return the cross-entropy of each row, or of each element for targets of 0 and 1."""
    if is_binary(y, y_hat):
        return BinaryCrossEntropy(y, y_hat, None, "none")
    return CrossEntropy(y, y_hat, None, "none")


def _certainty(y: Any, x: Any) -> Any:
    return 2 + 2 * np.abs(x).sum(-1)


@mean_of_elements(
    "cross_entropy_metric",
    element=_entropy,
    sample=LabelMetric.sample,
    size=_certainty,
    labels=True,
    aliases=("log_loss", "cross_entropy_mean"),
)
def CrossEntropyMetric(y: Any, y_hat: Any, sample_weight: Any = None) -> Value:
    """The mean of -log p of the true class, of logits or probabilities.

    Parameters
    ----------
    y : Value of int64, shape (...), or of floats, 0 and 1
    y_hat : Value, shape (..., classes), or that of y for floats
    sample_weight : Value, shape (n,), optional
    """
    return ElementMean(_entropies(y, y_hat), sample_weight)


@mean_of_elements(
    "perplexity", element=_entropy, sample=LabelMetric.sample, size=_certainty, labels=True
)
def Perplexity(y: Any, y_hat: Any, sample_weight: Any = None) -> Value:
    """exp of the mean of -log p of the true class: among how many classes it is still open.

    Parameters
    ----------
    y, y_hat, sample_weight
        As for `CrossEntropyMetric`.
    """
    return scored(ElementMean(_entropies(y, y_hat), sample_weight), math.exp)


def _brier(y: Any, x: Any) -> Any:
    if not y.size:
        return np.zeros(y.shape)
    e = np.exp(x - x.max(-1, keepdims=True))
    p = e / e.sum(-1, keepdims=True)
    return ((p - (np.arange(x.shape[-1]) == y[..., None])) ** 2).sum(-1)


@mean_of_elements(
    "brier",
    element=_brier,
    sample=LabelMetric.sample,
    size=lambda y, x: np.full(y.shape, 4.0) * (1 + np.abs(x).max(-1, initial=0)),
    labels=True,
    aliases=("brier_score", "brier_score_loss"),
    target_domain="unit",
)
def Brier(y: Any, y_hat: Any, sample_weight: Any = None) -> Value:
    """The mean squared distance of the probabilities from what is true.

    For integer labels sum_c (p_c - [c = y])^2, from 0 to 2; for targets of 0 and 1 (p - y)^2,
    from 0 to 1, half of the former, as in scikit-learn.

    Parameters
    ----------
    y, y_hat, sample_weight
        As for `CrossEntropyMetric`.

    References
    ----------
    Brier, "Verification of forecasts expressed in terms of probability", 1950.
    """
    if is_binary(y, y_hat):
        target, logits = as_pair(y, binary_logits(y_hat, "brier"), "brier")
        return ElementMean(Square(Sigmoid(logits) - target), sample_weight)
    logits = class_logits(y_hat, "brier")
    squares = Sum(Square(Softmax(logits)), axis=-1)
    own = Exp(-1.0 * CrossEntropy(as_labels(y), logits, None, "none"))
    return ElementMean(squares - 2.0 * own + 1.0, sample_weight)


def _bins(y: Any, x: Any, w: Any = None, *, bins: int = 15) -> Any:
    if not y.size:
        return np.zeros(3 * bins)
    e = np.exp(x - x.max(-1, keepdims=True))
    return CalibrationBins.reference(y, e / e.sum(-1, keepdims=True), w, bins=bins)


def _clear(draw: Any) -> Case:
    """Return labels and logits whose largest probability is on no edge of a bin."""
    y, x, w = LabelMetric.sample(draw).inputs
    assert x is not None and y is not None
    bins = draw.choice([4, 15])
    for _ in range(100):
        if not y.size:
            break
        e = np.exp(x - x.max(-1, keepdims=True))
        edge = (e / e.sum(-1, keepdims=True)).max(-1) * bins
        close = np.abs(edge - np.round(edge)) < 1e-3
        if not close.any():
            break
        x = np.where(close[..., None], x * 1.01, x)
    return Case((y, x, w), {"bins": bins})


@composite(
    "calibration_error",
    reference=_bins,
    sample=_clear,
    differentiable=False,
    listed_in="metrics",
    aliases=("expected_calibration_error", "ece"),
    integer_inputs=(0,),
    optional_inputs=(2,),
    constant_inputs=(2,),
    higher_is_better=False,
)
def CalibrationError(y: Any, y_hat: Any, sample_weight: Any = None, *, bins: int = 15) -> Value:
    """How far certainty is from being right: sum_b |mean p - share right| weight_b / weight.

    p is the largest probability of a row; the rows are put into bins of equal width by it.

    Parameters
    ----------
    y : Value of int64, shape (...)
        Labels in [0, classes).
    y_hat : Value, shape (..., classes)
        The logits, or the probabilities that `pyframe.Softmax` makes of them.
    sample_weight : Value, shape (n,), optional
    bins : int, default 15

    References
    ----------
    Guo et al., "On calibration of modern neural networks", ICML 2017, equation 3.
    """
    logits = class_logits(y_hat, "calibration_error")
    return CalibrationBins(as_labels(y), Softmax(logits), sample_weight, bins)


OPS: Sequence[Composite] = (
    Precision,
    Recall,
    F1,
    Iou,
    BalancedAccuracy,
    CohenKappa,
    MatthewsCorrcoef,
    Mape,
    CrossEntropyMetric,
    Perplexity,
    Brier,
    CalibrationError,
)
