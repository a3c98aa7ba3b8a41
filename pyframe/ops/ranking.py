"""Metrics of the order of scores, exact, in NumPy: they need all scores of an epoch at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pyframe.errors import UndefinedMetricWarning, warn

Array = npt.NDArray[Any]


def counts_by_score(y: Array, score: Array, weight: Array) -> tuple[Array, Array]:
    """Return the weights of negatives and positives at each score, from the highest down."""
    order = np.argsort(-score, kind="stable")
    y, score, weight = y[order], score[order], weight[order]
    last = np.flatnonzero(np.diff(score, append=np.nan))  # the last one of each tie
    both = [np.add.accumulate(np.where(y == label, weight, 0.0))[last] for label in (0, 1)]
    return both[0], both[1]


def roc_auc(y: Array, score: Array, weight: Array) -> float:
    """Return the area under the curve of true over false positives; NaN without both classes.

    It is the share of pairs of a positive and a negative in which the positive has the higher
    score, equal ones counting half.
    """
    negatives, positives = counts_by_score(y, score, weight)
    if not len(negatives) or negatives[-1] == 0 or positives[-1] == 0:
        warn("the ROC AUC of a single class is not defined; it is NaN", UndefinedMetricWarning)
        return float("nan")
    x, height = (np.concatenate([[0.0], each]) for each in (negatives, positives))
    area = np.sum(np.diff(x) * (height[1:] + height[:-1])) / 2
    return float(area / (negatives[-1] * positives[-1]))


def average_precision(y: Array, score: Array, weight: Array) -> float:
    """Return sum_k (recall_k - recall_(k-1)) precision_k over falling scores; 0 if none is true."""
    negatives, positives = counts_by_score(y, score, weight)
    if not len(positives) or positives[-1] == 0:
        warn(
            "the average precision without a positive sample is not defined; 0 is taken",
            UndefinedMetricWarning,
        )
        return 0.0
    total = negatives + positives
    precision = np.divide(positives, total, out=np.zeros_like(total), where=total > 0)
    steps = np.diff(positives, prepend=0.0) / positives[-1]
    return float(np.sum(steps * precision))
