"""What metrics make of a confusion matrix: rows are true classes, columns predicted ones.

The definitions are scikit-learn's, for the classes that occur: among the labels or the predictions.
A score that is not defined, as the precision of a class that was never predicted, counts as 0, with
an `UndefinedMetricWarning`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pyframe.errors import UndefinedMetricWarning, warn

Matrix = npt.NDArray[np.float64]
AVERAGES = ("auto", "binary", "macro", "weighted", "micro", "none")


class Counts(NamedTuple):
    """Of each class that occurs: hits, how often it was predicted, and how often it is true."""

    hits: Matrix
    predicted: Matrix
    true: Matrix

    @classmethod
    def of(cls, matrix: Matrix, average: str) -> Counts:
        """Return the counts of a matrix, for one way of averaging."""
        counts = cls(matrix.diagonal(), matrix.sum(0), matrix.sum(1))
        if average == "none":
            return counts
        if average == "binary":
            return cls(*(each[1:2] for each in counts))
        if average == "micro":
            return cls(*(each.sum(keepdims=True) for each in counts))
        occurs = (counts.predicted > 0) | (counts.true > 0)
        return cls(*(each[occurs] for each in counts))


def _ratio(above: Matrix, below: Matrix, what: str) -> Matrix:
    undefined = below == 0
    if undefined.any():
        warn(
            f"{what} is not defined for {int(undefined.sum())} of {len(below)} classes, which have "
            "no such samples; 0 is taken",
            UndefinedMetricWarning,
        )
    return np.divide(above, below, out=np.zeros_like(above), where=~undefined)


def averaged(
    score: Callable[[Counts], Matrix], matrix: Matrix, average: str
) -> float | npt.NDArray[np.float64]:
    """Return a score of classes as `average` says.

    Parameters
    ----------
    score : callable
        From `Counts` to one number a class.
    matrix : ndarray (classes, classes)
    average : {"auto", "binary", "macro", "weighted", "micro", "none"}
        "binary": that of class 1 of two; "macro": the mean over the classes that occur;
        "weighted": the same, weighted by how often they are true; "micro": of all counts together;
        "none": an array, one number a class. "auto" is "binary" for two classes, else "macro".
    """
    if average == "auto":
        average = "binary" if len(matrix) == 2 else "macro"
    counts = Counts.of(matrix, average)
    each = score(counts)
    if average == "none":
        return each
    if average == "weighted":
        return float(np.average(each, weights=counts.true)) if counts.true.sum() else float("nan")
    return float(each.mean()) if len(each) else float("nan")


def precision(counts: Counts) -> Matrix:
    """Return hits / predicted."""
    return _ratio(counts.hits, counts.predicted, "precision")


def recall(counts: Counts) -> Matrix:
    """Return hits / true."""
    return _ratio(counts.hits, counts.true, "recall")


def f_score(counts: Counts, beta: float) -> Matrix:
    """Return (1 + beta^2) hits / (beta^2 true + predicted), the weighted harmonic mean."""
    below = beta**2 * counts.true + counts.predicted
    return _ratio((1 + beta**2) * counts.hits, below, "the F score")


def iou(counts: Counts) -> Matrix:
    """Return hits / (predicted + true - hits), intersection over union."""
    return _ratio(counts.hits, counts.predicted + counts.true - counts.hits, "IoU")


def balanced_accuracy(matrix: Matrix) -> float:
    """Return the mean recall of the classes that are true somewhere."""
    true = matrix.sum(1)
    found = true > 0
    if not found.any():
        return float("nan")
    return float((matrix.diagonal()[found] / true[found]).mean())


def cohen_kappa(matrix: Matrix) -> float:
    """Return 1 - the share of errors / that of errors by chance; NaN if chance makes none."""
    total = matrix.sum()
    by_chance = np.outer(matrix.sum(1), matrix.sum(0)) / total if total else matrix
    expected = by_chance.sum() - np.trace(by_chance)
    return float(1 - (total - np.trace(matrix)) / expected) if expected else float("nan")


def matthews(matrix: Matrix) -> float:
    """Return the correlation of true and predicted class; 0 where one of them never varies."""
    true, predicted = matrix.sum(1), matrix.sum(0)
    total, hits = matrix.sum(), np.trace(matrix)
    covariance = hits * total - true @ predicted
    spread = (total**2 - predicted @ predicted) * (total**2 - true @ true)
    return float(covariance / np.sqrt(spread)) if spread > 0 else 0.0
