"""Checks, splits, scaling, one-hot rows."""

import math

import numpy as np
import pytest

from pyframe import data
from pyframe.errors import ArgumentError, DTypeError, LabelError, ShapeError

pytestmark = pytest.mark.once  # it says nothing of a kernel


def test_columns():
    assert data.as_columns([1, 2, 3]).shape == (3, 1)
    assert data.as_columns(np.zeros((3, 2))).shape == (3, 2)
    values = np.arange(4.0)
    assert np.shares_memory(data.as_columns(values), values)


@pytest.mark.parametrize("bad", [3.0, np.float64(1)])
def test_a_number_has_no_rows(bad):
    with pytest.raises(ShapeError, match="single number"):
        data.as_columns(bad)


@pytest.mark.parametrize("bad", [["a"], [1j], ["a", 1], np.array(["2020-01-01"], "M8[D]")])
def test_only_real_numbers(bad):
    with pytest.raises(DTypeError, match="y has dtype"):
        data.as_columns(bad)


def test_other_objects_and_missing_values():
    with pytest.raises(DTypeError, match="y has an object of type object in row 0"):
        data.as_columns([object()])
    with pytest.raises(ArgumentError, match=r"y has a missing value \(None\) in row 0"):
        data.as_columns([None])


def test_ragged_rows():
    with pytest.raises(ShapeError, match="unequal lengths"):
        data.as_array([[1, 2], [3]], "X")


def test_rows_must_match():
    with pytest.raises(
        ShapeError, match=r"X has 3 rows and y has 4 \(shapes \(3, 2\) and \(4,\)\)"
    ):
        data.check_rows(np.zeros((3, 2)), np.zeros(4))
    features, targets = data.check_rows([[1], [2]], [3, 4])
    assert features.shape == (2, 1) and targets.shape == (2,)


@pytest.mark.parametrize("shapes", [((0, 2), (0,)), ((3, 0), (3,)), ((3, 2), (3, 0))])
def test_nothing_to_learn_from(shapes):
    with pytest.raises(ArgumentError, match="nothing to learn from"):
        data.check_rows(*map(np.zeros, shapes))


def test_batch_sizes():
    assert data.check_batch_size(None, 7) == 7
    assert data.check_batch_size(7, 7) == 7
    assert data.check_batch_size(np.int64(1), 7) == 1
    with pytest.raises(ArgumentError, match="only 7 rows; pass at most 7, or None"):
        data.check_batch_size(8, 7)


@pytest.mark.parametrize("bad", [0, -1, 2.0, "2", True, math.nan])
def test_bad_batch_sizes(bad):
    with pytest.raises(ArgumentError, match="batch_size"):
        data.check_batch_size(bad, 7)


@pytest.mark.parametrize("count", [2, 3, 10, 101])
@pytest.mark.parametrize("fraction", [0.01, 0.25, 0.5, 0.99])
def test_split(count, fraction):
    x = np.arange(count * 2).reshape(count, 2)
    y = np.arange(count)
    x_train, x_test, y_train, y_test = data.train_test_split(x, y, fraction, seed=3)
    assert len(y_test) == min(max(round(fraction * count), 1), count - 1)
    assert sorted([*y_train, *y_test]) == list(range(count))
    np.testing.assert_array_equal(x_train, x[y_train])
    np.testing.assert_array_equal(x_test, x[y_test])


def test_splits_are_random_and_reproducible():
    def test_part(seed):
        return data.train_test_split(np.zeros((100, 1)), np.arange(100), seed=seed)[3].tolist()

    assert test_part(0) == test_part(0) != test_part(1)
    assert test_part(0) != sorted(test_part(0))


@pytest.mark.parametrize("fraction", [0, 1, -0.1, math.nan, "half"])
def test_bad_fractions(fraction):
    with pytest.raises(ArgumentError, match="test_fraction"):
        data.train_test_split(np.zeros((9, 1)), np.zeros(9), fraction)


def test_one_row_cannot_be_split():
    with pytest.raises(ArgumentError, match="one row"):
        data.train_test_split([[1.0]], [1.0])


def test_standardize():
    rng = np.random.default_rng(0)
    x = rng.normal(5, 3, (50, 4))
    x[:, 2] = 0.1  # its mean is 0.1 but for a rounding
    scaled, mean, std = data.standardize(x)
    np.testing.assert_allclose(scaled[:, [0, 1, 3]].mean(0), 0, atol=1e-14)
    np.testing.assert_allclose(scaled[:, [0, 1, 3]].std(0), 1, rtol=1e-14)
    np.testing.assert_allclose(scaled[:, 2], 0, atol=1e-15)
    assert std[2] == 1
    again, mean_again, std_again = data.standardize(x[:3], mean, std)
    np.testing.assert_array_equal(again, scaled[:3])
    np.testing.assert_array_equal(mean_again, mean)
    np.testing.assert_array_equal(std_again, std)


def test_standardize_keeps_float32_and_takes_integers():
    assert data.standardize(np.eye(3, dtype=np.float32))[0].dtype == np.float32
    assert data.standardize(np.eye(3, dtype=np.int64))[0].dtype == np.float64
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 3), np.uint8)
    scaled, mean, _ = data.standardize(images)
    assert mean.shape == (3, 3)
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-14)


def test_standardize_refuses():
    with pytest.raises(ShapeError, match="mean has shape"):
        data.standardize(np.zeros((4, 3)), mean=np.zeros(2), std=1.0)
    with pytest.raises(ArgumentError, match="no rows"):
        data.standardize(np.zeros((0, 3)))
    with pytest.raises(ArgumentError, match="std has a 0"):
        data.standardize(np.zeros((4, 3)), std=[1.0, 0.0, 1.0])


def test_one_hot():
    labels = np.array([[2, 0], [1, 1]])
    rows = data.one_hot(labels, 4, "float64")
    np.testing.assert_array_equal(rows, np.eye(4)[labels])
    assert rows.dtype == np.float64


def test_one_hot_of_nothing():
    empty = np.zeros(0, np.int64)
    assert data.one_hot(empty, 3).shape == (0, 3)
    assert data.one_hot(empty).shape == (0, 0)


@pytest.mark.parametrize(("labels", "classes"), [([0, -1], None), ([0, 3], 3), ([-1], 3)])
def test_labels_out_of_range(labels, classes):
    with pytest.raises(LabelError, match="outside"):
        data.one_hot(labels, classes)


def test_labels_are_integers():
    with pytest.raises(DTypeError, match="integers"):
        data.one_hot([0.0, 1.0])
    with pytest.raises(ArgumentError, match="classes"):
        data.one_hot([0], 0)


@pytest.mark.parametrize("stratify", [False, True])
def test_folds(stratify):
    pytest.importorskip("sklearn")
    x, y = np.arange(40).reshape(20, 2), np.array(["a", "b", "b", "b"] * 5)
    tested = []
    for x_train, x_test, y_train, y_test in data.k_fold(x, y, 5, seed=1, stratify=stratify):
        assert len(x_train) == 16 and len(x_test) == 4
        np.testing.assert_array_equal(y[x_test[:, 0] // 2], y_test)
        np.testing.assert_array_equal(y[x_train[:, 0] // 2], y_train)
        assert not stratify or (y_test == "a").sum() == 1
        tested += x_test[:, 0].tolist()
    assert sorted(tested) == x[:, 0].tolist()


def test_folds_that_cannot_be():
    pytest.importorskip("sklearn")
    with pytest.raises(ArgumentError, match="folds"):
        list(data.k_fold(np.zeros((9, 1)), np.zeros(9), 1))
    with pytest.raises(ArgumentError, match="k_fold: .*n_splits=5"):
        list(data.k_fold(np.zeros((3, 1)), np.zeros(3)))
    with pytest.raises(ShapeError, match="X has 9 rows"):
        list(data.k_fold(np.zeros((9, 1)), np.zeros(8)))
