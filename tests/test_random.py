"""Dropout: how much it keeps, and that its choice is a function of (seed, node, step, element)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.errors import ArgumentError
from pyframe.native import core


def dropout(x: Any, rate: float, **step: int) -> Any:
    y = np.full_like(x, np.nan)
    bits = 8 * x.itemsize
    block = np.float64(rate).tobytes()
    status, *_ = core.call_kernel(
        "dropout", bits, [x], [y], attributes=block, training=True, **step
    )
    assert status == 0
    return y


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_kept(dtype: type, rate: float) -> None:
    n = 200_000
    y = dropout(np.ones((n, 1), dtype), rate, seed=1, stream=2)
    kept = y != 0
    assert np.allclose(y[kept], 1 / (1 - rate), rtol=1e-6)
    spread = np.sqrt(n * rate * (1 - rate))
    assert abs(kept.sum() - n * (1 - rate)) <= 4 * spread
    # neighbours do not know of each other, wherever they lie in their block of four
    for lag in range(1, 9):
        both = (kept[lag:] & kept[:-lag]).mean()
        assert abs(both - (1 - rate) ** 2) < 0.01


def test_the_numbers_are_those_of_the_stream() -> None:
    n = 1000
    uniform = (core.random_words(11, 12, n) >> 8) * 2.0**-24
    assert np.array_equal(
        dropout(np.ones((n, 1)), 0.3, seed=11, stream=12) != 0, uniform[:, None] >= 0.3
    )


def test_each_part_of_the_key_matters() -> None:
    x = np.ones((64, 16))
    key = {"seed": 1, "stream": 2, "step": 3}
    first = dropout(x, 0.5, **key)
    assert np.array_equal(first, dropout(x, 0.5, **key))
    for name in key:
        other = dropout(x, 0.5, **{**key, name: key[name] + 1})
        assert 0.4 < np.mean(first == other) < 0.6


@pytest.mark.parametrize("row", [(), (1,), (3,), (5, 7)])
def test_a_split_batch_loses_what_the_whole_one_does(row: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(size=(23, *row))
    key = {"seed": 5, "stream": 6, "step": 7}
    whole = dropout(x, 0.5, **key)
    for cut in (1, 2, 3, 10, 22):
        parts = [
            dropout(np.array(x[:cut]), 0.5, **key),
            dropout(np.array(x[cut:]), 0.5, first_sample=cut, **key),
        ]
        assert np.array_equal(np.concatenate(parts), whole)


def test_nan_and_infinity_are_dropped_like_any_other() -> None:
    x = np.full((100, 4), np.nan)
    y = dropout(x, 0.5, seed=1)
    kept = dropout(np.ones((100, 4)), 0.5, seed=1) != 0
    assert np.isnan(y[kept]).all() and (y[~kept] == 0).all()


def test_the_gradient_keeps_the_same_elements() -> None:
    w = pf.Parameter(np.ones((50, 8)), name="w", dtype="float64")
    first, second = pf.Dropout(w, 0.4, name="first"), pf.Dropout(w, 0.4, name="second")
    cost = pf.L2Loss(np.zeros((50, 8)), first * np.full((50, 8), 1.0) + second, reduction="sum")
    plan = pf.compile(cost, inspect=True)
    _, gradients = plan.loss_and_gradients({}, training=True)
    a, b = np.array(plan.value(first)), np.array(plan.value(second))
    assert 0.3 < np.mean(a == b) < 0.7  # two nodes, two streams
    # cost = sum (a + b)^2 with a = m w, b = n w: its derivative is 2 (a + b) (m + n)
    assert np.allclose(gradients[w], 2 * (a + b) * (a + b), rtol=1e-12)
    assert np.count_nonzero(gradients[w] == 0) > 0


def test_outside_of_training_it_is_the_identity() -> None:
    x = pf.Placeholder("x", shape=(None, 4))
    plan = pf.compile(pf.Dropout(x, 0.9) * np.float32(1))
    data = np.arange(12.0).reshape(3, 4)
    assert np.array_equal(plan.run({x: data}), data)
    dropped = plan.run({x: np.ones((100, 4))}, training=True)
    assert 0.8 < np.mean(dropped == 0) < 0.97


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, np.nan, np.inf])
def test_rates_that_make_no_sense(rate: float) -> None:
    with pytest.raises(ArgumentError, match="rate.*at least 0 and below 1"):
        pf.Dropout(pf.Placeholder("x", shape=(None, 4)), rate)
