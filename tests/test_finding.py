"""The range test: rates that rise, what it suggests, and that it leaves nothing behind."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.training.finding import RateRange

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 3))
Y = X @ np.array([[1.0], [-2.0], [0.5]])


def trainer(optimizer: Any = None, **options: Any) -> pf.Trainer:
    layers = [pf.layers.Dense(8, "tanh"), pf.layers.BatchNorm(), pf.layers.Dense(1)]
    model = pf.Sequential(layers, input_shape=(3,))
    return pf.Trainer(model, optimizer=optimizer or pf.optimizers.Adam(0.01), **options)


def test_the_losses_are_those_of_a_training_on_these_rates() -> None:
    low, high, steps = 1e-4, 1e-2, 25
    found = trainer().find_learning_rate(X, Y, low=low, high=high, steps=steps, batch_size=16)
    np.testing.assert_allclose(found.rates, np.geomspace(low, high, steps), rtol=1e-12)
    work, seen = trainer(), []
    keep = pf.callbacks.LambdaCallback(
        on_batch_end=lambda t, step, logs: seen.append(float(logs["loss"]))
    )
    schedule = lambda s: low * (high / low) ** (s / (steps - 1))  # noqa: E731
    work.fit(X, Y, 7, 16, schedule=schedule, callbacks=[keep], verbose=0)
    assert len(found.losses) == steps
    np.testing.assert_array_equal(found.losses, seen[:steps])


def test_nothing_is_left_behind() -> None:
    one, other = trainer(), trainer()
    for work in (one, other):
        work.fit(X, Y, 3, 16, verbose=0)
    snapshot = one.plan.snapshot()
    found = one.find_learning_rate(X, Y, high=100.0, steps=60)
    assert len(found.losses) > 10
    for before, after in zip(snapshot.arrays, one.plan.snapshot().arrays, strict=True):
        np.testing.assert_array_equal(before, after)
    assert one.plan.step_count == other.plan.step_count and one.epochs_done == 3
    histories = [work.fit(X, Y, 3, 16, verbose=0) for work in (one, other)]
    assert histories[0]["loss"] == histories[1]["loss"]


def test_a_rate_that_is_too_large_ends_it_early() -> None:
    work = trainer(pf.optimizers.SGD(0.1))
    with np.errstate(all="ignore"):
        found = work.find_learning_rate(X, Y, low=1e-3, high=1e6, steps=200)
    assert 3 < len(found.losses) < 200
    assert len(found.rates) == len(found.losses)
    assert found.losses[-1] > 2 * found.losses[0] or not np.isfinite(found.losses[-1])
    assert 1e-3 < found.suggestion < 10


def test_gradients_that_are_refused_end_it() -> None:
    model = pf.Sequential([pf.layers.Dense(1)], input_shape=(3,), dtype="float64")
    work = pf.Trainer(model, optimizer=pf.optimizers.SGD(0.1, nonfinite="raise"))
    with np.errstate(all="ignore"):
        found = work.find_learning_rate(X, Y, low=1e-3, high=1e200, steps=10)
    assert len(found.losses) < 10
    with pytest.raises(pf.PyframeError, match="NaN|infinity"):
        work.find_learning_rate(1e200 * X, Y, steps=10)
    assert np.isfinite(work.predict(X)).all()


def test_the_suggestion_is_where_the_loss_falls_fastest() -> None:
    rates = np.geomspace(1e-4, 1, 200)
    losses = 1 / (1 + np.exp(3 * (np.log(rates) - np.log(1e-2))))
    found = RateRange(rates, losses)
    # The running mean is late by about nine steps.
    assert 1e-2 < found.suggestion < 2e-2
    assert math.isnan(RateRange(rates, rates).suggestion)
    assert math.isnan(RateRange(rates[:2], losses[:2]).suggestion)
    assert RateRange(rates, np.where(rates > 0.5, np.nan, losses)).suggestion == found.suggestion


def test_sample_weights_and_full_batches() -> None:
    found = trainer().find_learning_rate(
        X, Y, steps=5, batch_size=None, sample_weight=np.ones(50), seed=3
    )
    assert len(found.losses) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 0.0}, "low"),
        ({"low": math.nan}, "low"),
        ({"low": 1.0, "high": 0.5}, "high"),
        ({"steps": 2}, "steps"),
        ({"batch_size": 0}, "batch"),
        ({"batch_size": 51}, "batch"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(pf.ArgumentError, match=message):
        trainer().find_learning_rate(X, Y, **options)


def test_a_search_has_no_rate_to_find() -> None:
    with pytest.raises(pf.ArgumentError, match="no learning rate"):
        trainer(pf.optimizers.RandomSearch()).find_learning_rate(X, Y)


def test_in_the_middle_of_a_fit_it_is_refused() -> None:
    work = trainer()
    ask = pf.callbacks.LambdaCallback(
        on_epoch_end=lambda t, epoch, logs: t.find_learning_rate(X, Y)
    )
    with pytest.raises(pf.BusyError):
        work.fit(X, Y, 2, callbacks=[ask], verbose=0)
