"""Metrics against scikit-learn's of the same name, over unequal batches, with ties and weights."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as sk

import pyframe as pf
from pyframe.errors import UndefinedMetricWarning

pytestmark = pytest.mark.sklearn

Data = tuple[Any, Any]


def classes(seed: int, count: int, *, missing: bool = False) -> Data:
    """Return labels and logits on a grid, so that many of them are equal."""
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(3, 90))
    y = rng.integers(0, count - missing, rows)
    return y, np.round(2 * rng.normal(size=(rows, count))) / 2


def value(metric: Any, y: Any, x: Any, weight: Any = None, batch: int = 7) -> Any:
    """Return a metric, in float64, its sums added up over batches of unequal size."""
    target = pf.Placeholder("y", shape=(None, *y.shape[1:]), dtype=y.dtype.name)
    logits = pf.Placeholder("x", shape=(None, *x.shape[1:]), dtype="float64")
    extra = (
        {} if weight is None else {"sample_weight": pf.Placeholder(shape=(None,), dtype="float64")}
    )
    node = metric(target, logits, **extra).node
    plan = pf.compile(node)
    total: Any = 0.0
    for start in range(0, len(y), batch):
        rows = slice(start, start + batch)
        feed = {target: y[rows], logits: x[rows]}
        if weight is not None:
            feed[extra["sample_weight"]] = weight[rows]
        total = total + plan.run(feed)
    return node.finalize(total.tolist())


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


AVERAGED = {
    "precision": sk.precision_score,
    "recall": sk.recall_score,
    "f1": sk.f1_score,
    "iou": sk.jaccard_score,
}
SEEDS = range(12)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("count", [2, 3, 6])
@pytest.mark.parametrize("name", AVERAGED)
def test_averages_of_classes(name: str, count: int, weighted: bool) -> None:
    theirs = partial(AVERAGED[name], zero_division=0)
    for seed in SEEDS:
        y, x = classes(seed, count, missing=seed % 3 == 2)
        weight = np.random.default_rng(seed).uniform(0.1, 2, len(y)) if weighted else None
        guess = x.argmax(-1)
        for average in ("macro", "micro", "weighted", *(["binary"] if count == 2 else [])):
            got = value(partial(pf.metrics.get(name), average=average), y, x, weight)
            wanted = theirs(y, guess, average=average, sample_weight=weight)
            assert got == pytest.approx(wanted, rel=1e-12, abs=1e-12), (seed, average)
        each = value(partial(pf.metrics.get(name), average="none"), y, x, weight)
        wanted = theirs(y, guess, average=None, labels=range(count), sample_weight=weight)
        np.testing.assert_allclose(each, wanted, rtol=1e-12, atol=1e-12)
        auto = value(pf.metrics.get(name), y, x, weight)
        usual = "binary" if count == 2 else "macro"
        assert auto == value(partial(pf.metrics.get(name), average=usual), y, x, weight)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("count", [2, 5])
def test_scores_of_the_confusion_matrix(count: int, weighted: bool) -> None:
    for seed in SEEDS:
        y, x = classes(seed, count, missing=seed % 3 == 2)
        w = np.random.default_rng(seed).uniform(0.1, 2, len(y)) if weighted else None
        guess = x.argmax(-1)
        for name, theirs in (
            ("balanced_accuracy", sk.balanced_accuracy_score),
            ("cohen_kappa", sk.cohen_kappa_score),
            ("matthews_corrcoef", sk.matthews_corrcoef),
            ("accuracy", sk.accuracy_score),
        ):
            wanted = theirs(y, guess, sample_weight=w)
            got = value(pf.metrics.get(name), y, x, w)
            assert got == pytest.approx(wanted, rel=1e-12, abs=1e-12, nan_ok=True), (name, seed)
        for k in (1, 2, count):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                scores = x[:, 1] if count == 2 else x
                if count == 2:
                    continue
                wanted = sk.top_k_accuracy_score(
                    y, scores, k=k, labels=range(count), sample_weight=w
                )
            got = value(partial(pf.TopKAccuracy, k=k), y, x, w)
            assert got == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_means(weighted: bool) -> None:
    for seed in SEEDS:
        y, x = classes(seed, 4)
        rng = np.random.default_rng(seed)
        w = rng.uniform(0.1, 2, len(y)) if weighted else None
        p, every = softmax(x), range(4)
        loss = sk.log_loss(y, p, labels=every, sample_weight=w)
        assert value(pf.CrossEntropyMetric, y, x, w) == pytest.approx(loss, rel=1e-12)
        assert value(pf.Perplexity, y, x, w) == pytest.approx(np.exp(loss), rel=1e-12)
        brier = np.average(((p - np.eye(4)[y]) ** 2).sum(-1), weights=w)
        assert value(pf.Brier, y, x, w) == pytest.approx(brier, rel=1e-12)
        real, guess = rng.normal(size=(2, len(y)))
        for name, theirs in (
            ("mape", sk.mean_absolute_percentage_error),
            ("mse", sk.mean_squared_error),
            ("mae", sk.mean_absolute_error),
            ("r2", sk.r2_score),
        ):
            wanted = theirs(real, guess, sample_weight=w)
            assert value(pf.metrics.get(name), real, guess, w) == pytest.approx(wanted, rel=1e-12)
        ones = (y > 1).astype(float)
        odds = x[:, 0]
        wanted = sk.brier_score_loss(ones, 1 / (1 + np.exp(-odds)), sample_weight=w)
        assert value(pf.Brier, ones, odds, w) == pytest.approx(wanted, rel=1e-12)
        hits = sk.f1_score(ones, odds > 0, sample_weight=w, zero_division=0)
        assert value(pf.F1, ones, odds, w) == pytest.approx(hits, rel=1e-12)


def test_certainty_beside_what_is_right() -> None:
    y, x = classes(0, 3)
    p = softmax(x)
    bins = np.minimum((p.max(-1) * 5).astype(int), 4)
    gaps = [abs((p.max(-1) - (p.argmax(-1) == y))[bins == b].sum()) for b in range(5)]
    got = value(partial(pf.CalibrationError, bins=5), y, x)
    assert got == pytest.approx(sum(gaps) / len(y), rel=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_ranking(weighted: bool) -> None:
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        score = np.round(rng.normal(size=60), 1)  # with ties
        y = (score + rng.normal(size=60) > 0).astype(int)
        w = rng.uniform(0, 2, 60) if weighted else None
        for ours, theirs in (
            (pf.metrics.roc_auc, sk.roc_auc_score),
            (pf.metrics.average_precision, sk.average_precision_score),
        ):
            wanted = theirs(y, score, sample_weight=w)
            assert ours(y, score, w) == pytest.approx(wanted, rel=1e-12)
        p = softmax(rng.normal(size=(60, 3)))
        labels = np.arange(60) % 3
        wanted = sk.roc_auc_score(labels, p, multi_class="ovr", sample_weight=w)
        assert pf.metrics.roc_auc(labels, p, w) == pytest.approx(wanted, rel=1e-12)


def test_what_is_not_defined_is_said() -> None:
    y, x = np.array([0, 0]), np.array([[1.0, 0, 0], [0, 1.0, 0]])
    with pytest.warns(UndefinedMetricWarning, match="recall is not defined for 1 of 2 classes"):
        assert value(pf.Recall, y, x) == 0.25
    with pytest.warns(UndefinedMetricWarning, match="single class"):
        assert np.isnan(pf.metrics.roc_auc(y, np.array([0.1, 0.2])))
    with pytest.warns(UndefinedMetricWarning, match="without a positive"):
        assert pf.metrics.average_precision(y, np.array([0.1, 0.2])) == 0


# ---- in a fit ----


def network(outputs: int) -> pf.Model:
    pf.set_seed(0)
    return pf.Sequential([pf.layers.Dense(outputs)], input_shape=(3,), dtype="float64")


def test_functions_of_scikit_learn_are_of_the_whole_epoch() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(101, 3)), rng.integers(0, 2, 101)
    for loss, outputs in (("bce", 1), ("cross_entropy", 2)):
        model = network(outputs)
        trainer = pf.Trainer(model, loss, metrics=[sk.f1_score, sk.roc_auc_score, "roc_auc"])
        found = trainer.evaluate(X, y, batch_size=10)
        z = model.predict(X)
        score = z[:, 0] if outputs == 1 else z[:, 1] - z[:, 0]
        assert found["f1_score"] == sk.f1_score(y, score > 0)
        assert found["roc_auc_score"] == pytest.approx(sk.roc_auc_score(y, score), rel=1e-12)
        assert found["roc_auc"] == pytest.approx(found["roc_auc_score"], rel=1e-12)
        stop = pf.callbacks.EarlyStopping("val_roc_auc", patience=50)
        history = trainer.fit(X, y, epochs=3, validation_split=0.3, callbacks=[stop], verbose=0)
        assert len(history["val_roc_auc"]) == 3 and "roc_auc" not in history
        assert trainer.higher_is_better("val_roc_auc") is True


def test_what_a_function_may_give() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(50, 3)), rng.normal(size=50)

    def scalar(y: Any, y_hat: Any) -> Any:
        return pf.Mean(abs(y - y_hat))

    def elements(y: Any, y_hat: Any) -> Any:
        return abs(y - y_hat)

    def pair(y: Any, y_hat: Any) -> Any:
        return pf.Sum(abs(y - y_hat)), pf.Sum(abs(y))

    model = network(1)
    found = pf.Trainer(model, "l2", metrics=[scalar, elements, pair]).evaluate(X, y, 7)
    error = np.abs(model.predict(X)[:, 0] - y)
    assert found["scalar"] == pytest.approx(error.mean())
    assert found["elements"] == pytest.approx(error.mean())
    assert found["pair"] == pytest.approx(error.sum() / np.abs(y).sum())
    with pytest.raises(pf.GraphError, match="a sum and its divisor"):
        pf.Trainer(model, "l2", metrics=[lambda y, y_hat: 3]).evaluate(X, y)


def test_metrics_and_weights_by_the_name_of_the_output() -> None:
    x = pf.Placeholder("x", shape=(None, 3))
    a, b = pf.layers.Dense(1, name="a")(x), pf.layers.Dense(3, name="b")(x)
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(20, 3)), {"a": rng.normal(size=20), "b": rng.integers(0, 3, 20)}
    model = pf.Model([x], [a, b])
    losses, weights = {"a": "l2", "b": "cross_entropy"}, {"b": 2.0, "a": 0.5}
    metrics = {"a": ["mae"], "b": "accuracy"}
    found = pf.Trainer(model, losses, metrics=metrics, loss_weights=weights).evaluate(X, Y)
    assert [*found] == ["loss", "a_loss", "a_mae", "b_loss", "b_accuracy"]
    assert found["loss"] == pytest.approx(0.5 * found["a_loss"] + 2 * found["b_loss"], rel=1e-6)
    with pytest.raises(pf.ArgumentError, match="metrics for 'c'; the outputs are a, b"):
        pf.Trainer(model, losses, metrics={"c": ["mae"]}).evaluate(X, Y)
    with pytest.raises(pf.ArgumentError, match="the loss_weights are for a; the outputs are a, b"):
        pf.Trainer(model, losses, loss_weights={"a": 1.0}).evaluate(X, Y)
