"""Data before training: checks, splits, scaling, one-hot rows, and loaders of batches.

In come arrays, tables, files and whatever gives batches. Out go rows and batches for a model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pyframe.data import transforms
from pyframe.data.loading import Loader
from pyframe.engine.loop import check_batch_size
from pyframe.errors import (
    ArgumentError,
    DTypeError,
    LabelError,
    ShapeError,
    check_integer,
    check_number,
    raise_if_signalled,
    require_extra,
)
from pyframe.graph.arrays import plain_array
from pyframe.native.core import shuffle

__all__ = [
    "Array",
    "Loader",
    "as_array",
    "as_columns",
    "check_batch_size",
    "check_rows",
    "k_fold",
    "one_hot",
    "standardize",
    "train_test_split",
    "transforms",
]

Array = npt.NDArray[Any]


def as_array(values: Any, what: str) -> Array:
    """Return an array of real numbers with at least one axis, the rows.

    Raises
    ------
    DTypeError
        For complex numbers, strings and objects, and for what is no array, such as a generator.
    ShapeError
        For a single number, and for rows of unequal lengths.
    ArgumentError
        For missing values.

    Examples
    --------
    >>> as_array([[1, 2]], "X").shape
    (1, 2)
    """
    array = plain_array(values, what)
    if array.dtype.kind not in "fiub":
        raise DTypeError(f"{what} has dtype {array.dtype}; it must hold real numbers")
    if array.ndim == 0:
        raise ShapeError(f"{what} is a single number; it must have rows, one a sample")
    return array


def as_columns(values: Any, what: str = "y") -> Array:
    """Return a 1-D array as a column, (n,) as (n, 1), and any other unchanged.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.data.as_columns([3.0, 4.0]).shape
    (2, 1)
    """
    array = as_array(values, what)
    return array[:, np.newaxis] if array.ndim == 1 else array


def check_rows(X: Any, y: Any) -> tuple[Array, Array]:  # noqa: N803
    """Return both as arrays that have the same number of rows, at least one.

    Raises
    ------
    ShapeError
        If the numbers of rows differ.
    ArgumentError
        If there are none.

    Examples
    --------
    >>> [a.shape for a in check_rows([[1.0], [2.0]], [0, 1])]
    [(2, 1), (2,)]
    """
    features, targets = as_array(X, "X"), as_array(y, "y")
    if len(features) != len(targets):
        raise ShapeError(
            f"X has {len(features)} rows and y has {len(targets)} "
            f"(shapes {features.shape} and {targets.shape}); every sample needs one of each"
        )
    if not features.size or not targets.size:
        raise ArgumentError(
            f"there is nothing to learn from: X has shape {features.shape}, y {targets.shape}"
        )
    return features, targets


def train_test_split(
    X: Any,  # noqa: N803
    y: Any,
    test_fraction: float = 0.25,
    *,
    seed: int = 0,
) -> tuple[Array, Array, Array, Array]:
    """Divide samples at random into a part to train on and a part to test on.

    Parameters
    ----------
    X, y : array_like of n rows
    test_fraction : float, above 0 and below 1
        Of n rows, ``round(test_fraction * n)`` go to the test, at least one and not all.
    seed : int, in [0, 2**64)

    Returns
    -------
    X_train, X_test, y_train, y_test : ndarray
        Copies, in random order.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> parts = pf.data.train_test_split(np.zeros((10, 3)), np.arange(10), 0.2, seed=1)
    >>> [part.shape for part in parts]
    [(8, 3), (2, 3), (8,), (2,)]
    """
    features, targets = check_rows(X, y)
    fraction = check_number("test_fraction", test_fraction, above=0, below=1)
    count = len(features)
    if count < 2:
        raise ArgumentError("one row cannot be split into a part to train on and a part to test on")
    test_count = min(max(round(fraction * count), 1), count - 1)
    order = shuffle(check_integer("seed", seed, at_least=0, at_most=2**64 - 1), 0, count)
    test, train = order[:test_count], order[test_count:]
    return features[train], features[test], targets[train], targets[test]


def k_fold(
    X: Any,  # noqa: N803
    y: Any,
    folds: int = 5,
    *,
    seed: int = 0,
    stratify: bool = False,
) -> Iterator[tuple[Array, Array, Array, Array]]:
    """Yield for each fold what to train on and what to test on, by scikit-learn.

    Parameters
    ----------
    X, y : array_like of n rows
        The targets may be names of classes.
    folds : int, at least 2
    seed : int, in [0, 2**32)
        Of the order in which rows are dealt out.
    stratify : bool, default False
        Give each fold the classes in the shares that all of the data have.

    Yields
    ------
    X_train, X_test, y_train, y_test : ndarray
        As of `train_test_split`; each row is in one of the tests.

    Raises
    ------
    MissingExtraError
        If scikit-learn is not installed.
    ArgumentError, ShapeError
        If there are fewer rows than folds, or fewer of a class, or X and y do not belong together.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> X, y = np.arange(12.0).reshape(6, 2), ["a", "b"] * 3
    >>> for X_train, X_test, y_train, y_test in pf.data.k_fold(X, y, 3, stratify=True):
    ...     print(X_train.shape, sorted(y_test.tolist()))
    (4, 2) ['a', 'b']
    (4, 2) ['a', 'b']
    (4, 2) ['a', 'b']
    """
    selection = require_extra("sklearn.model_selection", "sklearn")
    features, targets = as_array(X, "X"), np.asarray(y)
    if targets.ndim == 0 or len(features) != len(targets):
        raise ShapeError(
            f"X has {len(features)} rows, and y has the shape {targets.shape}; every sample needs "
            "one of each"
        )
    kind = selection.StratifiedKFold if stratify else selection.KFold
    try:
        dealt = kind(
            check_integer("folds", folds, at_least=2),
            shuffle=True,
            random_state=check_integer("seed", seed, at_least=0, at_most=2**32 - 1),
        ).split(features, targets)
        yield from (
            (features[train], features[test], targets[train], targets[test])
            for train, test in dealt
        )
    except ValueError as error:
        raise_if_signalled(error)
        raise ArgumentError(f"k_fold: {error}") from error


def standardize(
    X: Any,  # noqa: N803
    mean: npt.ArrayLike | None = None,
    std: npt.ArrayLike | None = None,
) -> tuple[Array, Array, Array]:
    """Return (X - mean) / std with mean and std of each column, and these two.

    Pass these two back in to scale new data in the same way.

    Parameters
    ----------
    X : array_like of shape (n, ...)
    mean, std : array_like of shape (...), optional
        Computed from `X` when not given. A column that is constant, but for rounding, has a std of
        0, which is replaced by 1, so that the column becomes 0.

    Returns
    -------
    scaled : ndarray of shape (n, ...)
        float32 if X is, else float64.
    mean, std : ndarray of shape (...), float64

    Examples
    --------
    >>> import pyframe as pf
    >>> scaled, mean, std = pf.data.standardize([[1.0, 5.0], [3.0, 5.0]])
    >>> scaled.tolist(), mean.tolist(), std.tolist()
    ([[-1.0, 0.0], [1.0, 0.0]], [2.0, 5.0], [1.0, 1.0])
    """
    array = as_array(X, "X")
    if not len(array) and (mean is None or std is None):
        raise ArgumentError("X has no rows to take mean and std from; pass both")
    if mean is None or std is None:
        own = _moments(array if array.dtype.kind == "f" else array.astype(np.float64))
    centre = own[0] if mean is None else np.asarray(mean, np.float64)
    scale = np.where(own[1] == 0, 1.0, own[1]) if std is None else np.asarray(std, np.float64)
    for name, given in (("mean", centre), ("std", scale)):
        if given.shape not in ((), array.shape[1:]):
            raise ShapeError(
                f"{name} has shape {given.shape}; for X of shape {array.shape} "
                f"it must be {array.shape[1:]}"
            )
    if (scale == 0).any():
        raise ArgumentError("std has a 0; pass 1 for a column that never changes")
    dtype = np.float32 if array.dtype == np.float32 else np.float64
    return ((array - centre) / scale).astype(dtype), np.asarray(centre), np.asarray(scale)


def _moments(array: Array) -> tuple[Array, Array]:
    """Return mean and standard deviation of each column; 0 if it is constant but for rounding.

    Squares of very large or small numbers are out of range: they are taken of x / 2^e.
    """
    exponent = np.frexp(np.abs(array).max(axis=0))[1]
    scaled = np.ldexp(array.astype(np.float64), -exponent)
    least = scaled.min(axis=0)  # so equal numbers have their own value as their mean
    mean, deviation = (scaled - least).mean(axis=0) + least, (scaled - least).std(axis=0)
    still = deviation <= np.finfo(array.dtype).eps * np.abs(mean)
    return np.ldexp(mean, exponent), np.ldexp(np.where(still, 0.0, deviation), exponent)


def one_hot(labels: Any, classes: int | None = None, dtype: npt.DTypeLike = "float32") -> Array:
    """Return rows of zeros with a 1 in the column of the label.

    Parameters
    ----------
    labels : array_like of int, shape (...)
    classes : int, optional
        The highest label plus one, unless given.

    Returns
    -------
    ndarray of shape (..., classes)

    Raises
    ------
    DTypeError
        If the labels are no integers.
    LabelError
        If one lies outside of [0, classes).

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.data.one_hot([2, 0])
    array([[0., 0., 1.],
           [1., 0., 0.]], dtype=float32)
    """
    array = plain_array(labels, "labels")
    if array.dtype.kind not in "iu":
        raise DTypeError(
            f"labels have dtype {array.dtype}; they must be integers "
            "(.astype(numpy.int64) if they are whole numbers)"
        )
    highest = int(array.max()) if array.size else -1
    count = highest + 1 if classes is None else check_integer("classes", classes, at_least=1)
    lowest = int(array.min()) if array.size else 0
    if lowest < 0 or highest >= count:
        wrong = lowest if lowest < 0 else highest
        raise LabelError(f"label {wrong} lies outside of [0, {count})")
    rows = np.zeros((*array.shape, count), dtype)
    np.put_along_axis(rows, array[..., np.newaxis].astype(np.int64), 1, axis=-1)
    return rows
