"""Metrics that look at sample weights, against scikit-learn's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as sk

import pyframe as pf

pytestmark = [pytest.mark.once, pytest.mark.sklearn]

RNG = np.random.default_rng(5)
X = RNG.normal(size=(53, 4))
LABELS = RNG.integers(0, 3, 53)
WEIGHT = RNG.random(53) * (RNG.random(53) < 0.8)


def net(units: int) -> pf.Sequential:
    return pf.Sequential([pf.layers.Dense(units)], input_shape=(4,), dtype="float64")


def first_column(y: Any, y_hat: Any) -> Any:
    return y_hat[:, 0] * 1.0


def weighted_sum(y: Any, y_hat: Any, sample_weight: Any = None) -> Any:
    w = pf.Constant(np.ones(())) if sample_weight is None else sample_weight
    return pf.Sum(y_hat[:, 0] * w), pf.Sum(w)


def scalar(y: Any, y_hat: Any, scale: float = 2.0) -> Any:
    return pf.Mean(y_hat) * scale


@pytest.mark.parametrize("size", [7, 53])
def test_they_are_those_of_the_weighted_rows(size: int) -> None:
    model = net(3)
    names = ["accuracy", "log_loss", "balanced_accuracy", "roc_auc", first_column, weighted_sum]
    trainer = pf.Trainer(
        model, "cross_entropy", metrics=["accuracy", "roc_auc"], weighted_metrics=names
    )
    logs = trainer.evaluate(X, LABELS, size, sample_weight=WEIGHT)
    out = model.predict(X)
    p = np.exp(out - out.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    guess = out.argmax(1)
    wanted = {
        "accuracy": sk.accuracy_score(LABELS, guess),
        "roc_auc": sk.roc_auc_score(LABELS, p, multi_class="ovr"),
        "weighted_accuracy": sk.accuracy_score(LABELS, guess, sample_weight=WEIGHT),
        "weighted_log_loss": sk.log_loss(LABELS, p, sample_weight=WEIGHT),
        "weighted_balanced_accuracy": sk.balanced_accuracy_score(
            LABELS, guess, sample_weight=WEIGHT
        ),
        "weighted_roc_auc": sk.roc_auc_score(LABELS, p, multi_class="ovr", sample_weight=WEIGHT),
        "weighted_first_column": np.average(out[:, 0], weights=WEIGHT),
        "weighted_weighted_sum": np.average(out[:, 0], weights=WEIGHT),
    }
    for name, value in wanted.items():
        assert logs[name] == pytest.approx(value, rel=1e-12), name


def test_without_weights_they_are_the_plain_ones() -> None:
    trainer = pf.Trainer(
        net(1), "l2", metrics=["mae", "r2"], weighted_metrics=["mae", "r2", "rmse"]
    )
    logs = trainer.evaluate(X, X[:, :1], 10)
    assert logs["weighted_mae"] == logs["mae"]
    assert logs["weighted_r2"] == logs["r2"]
    assert logs["weighted_rmse"] > 0


def test_in_a_fit_and_in_its_file(tmp_path: Path) -> None:
    trainer = pf.Trainer(net(1), "l2", weighted_metrics=["mae"])
    data = (X, X[:, :1], WEIGHT)
    history = trainer.fit(X, X[:, :1], 3, 16, sample_weight=WEIGHT, validation_data=data, verbose=0)
    logs = trainer.evaluate(X, X[:, :1], sample_weight=WEIGHT)
    assert history["val_weighted_mae"][-1] == pytest.approx(logs["weighted_mae"], rel=1e-12)
    assert trainer.higher_is_better("val_weighted_mae") is False
    trainer.save(tmp_path / "t.pyframe")
    loaded = pf.Trainer.load(tmp_path / "t.pyframe")
    assert loaded.evaluate(X, X[:, :1], sample_weight=WEIGHT) == logs


def test_a_function_that_cannot_heed_them_says_so() -> None:
    trainer = pf.Trainer(net(1), "l2", weighted_metrics=[scalar])
    assert "weighted_scalar" in trainer.evaluate(X, X[:, :1])
    with pytest.raises(pf.ArgumentError, match="'weighted_scalar' takes no sample weights"):
        trainer.evaluate(X, X[:, :1], sample_weight=WEIGHT)
    with pytest.raises(pf.ArgumentError, match="weighted_metrics='mae'; pass a list"):
        pf.Trainer(net(1), weighted_metrics="mae")
