"""Metrics: exact over unequal batches, and equal to scikit-learn's formulas."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.errors import ArgumentError, DTypeError, ShapeError

CUTS = ([200], [64, 64, 64, 8], [1, 199], [0, 200, 0])


def epoch(metric: Any, feed: dict[Any, Any], sizes: list[int]) -> Any:
    """Return the metric over batches of these sizes."""
    plan = pf.compile(metric)
    sums: Any = 0.0
    for start, stop in zip(np.cumsum([0, *sizes]), np.cumsum(sizes), strict=False):
        sums = sums + plan.run({p: a[start:stop] for p, a in feed.items()})
    return metric.finalize(sums)


def regression() -> tuple[Any, ...]:
    rng = np.random.default_rng(0)
    y, w = rng.normal(20.0, 5.0, 200), rng.uniform(0.0, 2.0, 200)
    y_hat = (y + rng.normal(0, 3.0, 200))[:, None]
    nodes = [pf.Placeholder(n, shape=s, dtype="float64") for n, s in
             (("y", (None,)), ("y_hat", (None, 1)), ("w", (None,)))]  # fmt: skip
    return nodes, (y, y_hat, w)


@pytest.mark.parametrize("sizes", CUTS)
def test_regression(sizes: list[int]) -> None:
    nodes, arrays = regression()
    y, y_hat, w = arrays[0], arrays[1][:, 0], arrays[2]
    feed = dict(zip(nodes, arrays, strict=True))
    mean = np.sum(w * y) / w.sum()
    wanted = {
        pf.Mae: np.sum(w * np.abs(y - y_hat)) / w.sum(),
        pf.Rmse: np.sqrt(np.sum(w * (y - y_hat) ** 2) / w.sum()),
        pf.R2: 1 - np.sum(w * (y - y_hat) ** 2) / np.sum(w * (y - mean) ** 2),
    }
    for metric, value in wanted.items():
        assert np.isclose(epoch(metric(*nodes), feed, sizes), value, rtol=1e-12)


def test_against_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    nodes, (y, y_hat, w) = regression()
    feed = dict(zip(nodes, (y, y_hat, w), strict=True))
    r2 = sklearn.r2_score(y, y_hat[:, 0], sample_weight=w)
    assert np.isclose(epoch(pf.R2(*nodes), feed, [200]), r2, rtol=1e-12)
    rng = np.random.default_rng(1)
    labels, logits = rng.integers(0, 4, 200), rng.normal(size=(200, 4))
    l, x = pf.Placeholder("l", (None,), "int64"), pf.Placeholder("x", (None, 4))  # noqa: E741
    matrix = epoch(pf.ConfusionMatrix(l, x), {l: labels, x: logits}, [150, 50])
    assert np.array_equal(matrix, sklearn.confusion_matrix(labels, logits.argmax(axis=1)))


@pytest.mark.parametrize("sizes", CUTS)
def test_classification(sizes: list[int]) -> None:
    rng = np.random.default_rng(2)
    labels, logits, w = rng.integers(0, 5, 200), rng.normal(size=(200, 5)), rng.uniform(size=200)
    y, x = pf.Placeholder("y", (None,), "int64"), pf.Placeholder("x", (None, 5), "float64")
    v = pf.Placeholder("w", (None,), "float64")
    feed = {y: labels, x: logits, v: w}
    right = logits.argmax(axis=1) == labels
    assert np.isclose(epoch(pf.Accuracy(y, x, v), feed, sizes), np.sum(w * right) / w.sum())
    matrix = epoch(pf.ConfusionMatrix(y, x), {y: labels, x: logits}, sizes)
    assert matrix.shape == (5, 5) and matrix.sum() == 200
    assert np.trace(matrix) == right.sum()
    assert np.array_equal(matrix.sum(axis=1), np.bincount(labels, minlength=5))


def test_two_classes_with_one_logit() -> None:
    y, x = pf.Placeholder("y", (None,)), pf.Placeholder("x", (None, 1))
    metric = pf.Accuracy(y, x)
    assert type(metric) is pf.BinaryAccuracy and isinstance(metric, pf.Accuracy)
    feed = {y: np.array([0.0, 1.0, 1.0, 0.0]), x: np.array([[-1.0], [2.0], [-3.0], [0.0]])}
    assert epoch(metric, feed, [3, 1]) == 0.75
    with pytest.raises(DTypeError, match="int64 labels"):
        pf.Accuracy(y, pf.Placeholder("logits", (None, 3)))


def test_the_mean_loss_of_unequal_batches_is_that_of_all_rows() -> None:
    nodes, (y, y_hat, w) = regression()
    feed = dict(zip(nodes, (y, y_hat, w), strict=True))
    plain = pf.MeanOf(pf.L2Loss(nodes[0], nodes[1]), nodes[0])
    losses = (y - y_hat[:, 0]) ** 2
    part = {n: feed[n] for n in nodes[:2]}
    for sizes in CUTS:
        assert np.isclose(epoch(plain, part, sizes), losses.mean(), rtol=1e-12)
        weighted = pf.MeanOf(pf.L2Loss(*nodes), nodes[0], nodes[2])
        wanted = np.sum(w * losses) / w.sum()
        assert np.isclose(epoch(weighted, feed, sizes), wanted, rtol=1e-12)


def test_the_mean_loss_of_labels() -> None:
    y, x = pf.Placeholder("y", (None,), "int64"), pf.Placeholder("x", (None, 3))
    metric = pf.MeanOf(pf.CrossEntropy(y, x), y)
    feed = {y: np.zeros(4, np.int64), x: np.zeros((4, 3))}
    assert np.isclose(epoch(metric, feed, [3, 1]), np.log(3))


def test_nothing_counted_is_nan() -> None:
    x = pf.Placeholder("x", (None,))
    for metric in (pf.Mae(x, x), pf.Rmse(x, x), pf.R2(x, x), pf.BinaryAccuracy(x, x)):
        assert np.isnan(epoch(metric, {x: np.zeros(0)}, [0]))


@pytest.mark.parametrize("scale", [1.0, 1e-9, 0.1, 3e7])
def test_r2_of_a_constant_target(scale: float) -> None:
    y, x = (pf.Placeholder(n, (None,), "float64") for n in ("y", "x"))
    target = np.full(1001, scale)
    assert epoch(pf.R2(y, x), {y: target, x: target}, [1001]) == 1
    assert epoch(pf.R2(y, x), {y: target, x: target + scale}, [1001]) == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mean", [0.0, 1e6, -1e8, 1e12])
def test_r2_of_a_target_far_from_zero(mean: float, dtype: str) -> None:
    rng = np.random.default_rng(0)
    sd = 1.0 if dtype == "float64" else max(1.0, abs(mean) * 1e-6)
    y = (mean + sd * rng.normal(size=1000)).astype(dtype)
    y_hat = (y + 0.5 * sd * rng.normal(size=1000)).astype(dtype)
    w = rng.uniform(size=1000).astype(dtype)
    w[0], y[0] = 0, 1e30 if dtype == "float64" else 1e15  # which does not count
    target, prediction, weight = ([Fraction(float(v)) for v in a] for a in (y, y_hat, w))
    middle = sum(v * t for v, t in zip(weight, target, strict=True)) / sum(weight)
    errors = sum(v * (t - p) ** 2 for v, t, p in zip(weight, target, prediction, strict=True))
    variation = sum(v * (t - middle) ** 2 for v, t in zip(weight, target, strict=True))
    exact = 1 - float(errors / variation)
    nodes = [pf.Placeholder(n, (None,), dtype) for n in ("y", "y_hat", "w")]
    feed = dict(zip(nodes, (y, y_hat, w), strict=True))
    rtol = 1e-12 if abs(mean) < 1e10 or dtype == "float32" else 1e-7
    for sizes in ([1000], [1, 499, 500], [10] * 100, [0, 999, 1]):
        assert np.isclose(epoch(pf.R2(*nodes), feed, sizes), exact, rtol=rtol), sizes


def test_r2_of_a_trainer_does_not_depend_on_batches_or_threads() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1000, 3))
    y = 1e9 + x @ [1.0, 2.0, 3.0] + rng.normal(size=1000)
    model = pf.Sequential([pf.layers.Dense(1)], input_shape=(3,), dtype="float64")
    weight, bias = (model.parameters[n] for n in (0, 1))
    weight.value, bias.value = np.array([[1.0], [2.0], [3.0]]), np.array([1e9])
    trainer = pf.Trainer(model, "l2", metrics=["r2"])
    expected = 1 - np.mean((y - model.predict(x)[:, 0]) ** 2) / np.var(y - 1e9)
    assert 0.8 < expected < 1
    for threads in (1, 2, 3):
        with pf.num_threads(threads):
            for size in (1000, 64, 7):
                got = trainer.evaluate(x, y, size)["r2"]
                assert got == pytest.approx(expected, rel=1e-9), (threads, size)


def test_what_metrics_refuse() -> None:
    labels = pf.Placeholder("labels", (None,), "int64")
    logits = pf.Placeholder("logits", (None, 3))
    with pytest.raises(ShapeError, match="3 logits for 4 classes"):
        pf.ConfusionMatrix(labels, logits, classes=4)
    with pytest.raises(ArgumentError, match="at least 1"):
        pf.ConfusionMatrix(labels, logits, classes=0)
    with pytest.raises(ShapeError, match="one number, of shape"):
        pf.MeanOf(pf.Placeholder("loss", (4,)), labels)
    with pytest.raises(ShapeError, match="target and prediction"):
        pf.Mae(pf.Placeholder("y", (4,)), pf.Placeholder("y_hat", (4, 2)))
