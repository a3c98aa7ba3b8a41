"""Noise: its distribution, that it is a function of (seed, node, step, element), and its layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.errors import ArgumentError, ShapeError
from pyframe.native import core

N = 200_000


def noise(x: Any, std: float, scales: int = 0, **step: int) -> Any:
    y = np.full_like(x, np.nan)
    block = np.float64(std).tobytes() + np.int64(scales).tobytes()
    status, *_ = core.call_kernel(
        "gaussian_noise", 8 * x.itemsize, [x], [y], attributes=block, training=True, **step
    )
    assert status == 0
    return y


def test_the_numbers_are_those_of_box_and_muller() -> None:
    n = 1000
    u = (core.random_words(11, 12, n) >> 8).reshape(-1, 2) * 2.0**-24
    radius, angle = np.sqrt(-2 * np.log1p(-u[:, 0])), 2 * np.pi * u[:, 1]
    normal = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).ravel()
    x = np.arange(n, dtype=np.float64)
    key = {"seed": 11, "stream": 12}
    np.testing.assert_allclose(noise(x, 0.5, **key), x + 0.5 * normal, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(noise(x, 0.5, 1, **key), x * (1 + 0.5 * normal), rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_they_are_normal(dtype: type) -> None:
    z = noise(np.zeros((N, 1), dtype), 1.0, seed=1, stream=2)[:, 0].astype(np.float64)
    bound = 4 / np.sqrt(N)
    assert abs(z.mean()) < bound
    assert abs((z**2).mean() - 1) < np.sqrt(2) * bound
    assert abs((z**3).mean()) < np.sqrt(15) * bound
    assert abs((z**4).mean() - 3) < np.sqrt(96) * bound
    for lag in range(1, 9):
        assert abs((z[lag:] * z[:-lag]).mean()) < bound


def test_each_part_of_the_key_matters() -> None:
    x = np.ones((64, 16))
    key = {"seed": 1, "stream": 2, "step": 3}
    first = noise(x, 0.5, **key)
    assert (first == noise(x, 0.5, **key)).all()
    for name in key:
        assert (first != noise(x, 0.5, **{**key, name: key[name] + 1})).mean() > 0.99


@pytest.mark.parametrize("row", [(), (1,), (3,), (5, 7)])
@pytest.mark.parametrize("scales", [0, 1])
def test_a_split_batch_gets_what_the_whole_one_does(row: tuple[int, ...], scales: int) -> None:
    x = np.random.default_rng(0).normal(size=(23, *row))
    key = {"seed": 5, "stream": 6, "step": 7}
    whole = noise(x, 0.5, scales, **key)
    for cut in (1, 2, 3, 10, 22):
        parts = [
            noise(np.array(x[:cut]), 0.5, scales, **key),
            noise(np.array(x[cut:]), 0.5, scales, first_sample=cut, **key),
        ]
        assert (np.concatenate(parts) == whole).all()


@pytest.mark.once
@pytest.mark.parametrize("scales", [False, True])
def test_gradients(scales: bool) -> None:
    w = pf.Parameter(np.random.default_rng(0).normal(size=(50, 8)), name="w", dtype="float64")
    one, two = (pf.GaussianNoise(w, 0.4, scales, name=name) for name in ("one", "two"))
    plan = pf.compile(pf.Sum(pf.Square(one)) + pf.Sum(pf.Square(two)), inspect=True)
    _, gradients = plan.loss_and_gradients({}, training=True)
    a, b = np.array(plan.value(one)), np.array(plan.value(two))
    assert (a != b).mean() > 0.99  # two nodes, two streams
    wanted = 2 * (a * a + b * b) / w.value if scales else 2 * (a + b)
    np.testing.assert_allclose(gradients[w], wanted, rtol=1e-10)


LAYERS = [
    pf.layers.GaussianNoise(0.7),
    pf.layers.GaussianDropout(0.3),
    pf.layers.AlphaDropout(0.3),
    pf.layers.SpatialDropout(0.3),
]


def run(layer: Any, x: Any, dtype: str = "float64") -> Any:
    """Return what a layer makes of an array, in training and otherwise."""
    node = pf.Placeholder("x", shape=(None, *x.shape[1:]), dtype=dtype)
    plan = pf.compile(layer(node))
    return plan.run({node: x}, training=True), plan.run({node: x})


@pytest.mark.once
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layers_leave_predictions_alone_to_the_bit(layer: Any, dtype: str) -> None:
    x = np.random.default_rng(1).normal(size=(7, 5, 3)).astype(dtype)
    fresh = type(layer)(*[v for k, v in layer.config().items() if k != "name"])
    trained, predicted = run(fresh, x, dtype)
    assert (predicted == x).all() and (trained != x).any()


@pytest.mark.once
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_layers_at_nothing_are_the_identity(layer: Any) -> None:
    x = np.random.default_rng(1).normal(size=(7, 5, 3))
    trained, predicted = run(type(layer)(0.0), x)
    assert (trained == x).all() and (predicted == x).all()


@pytest.mark.once
def test_gaussian_layers_have_the_moments_that_they_say() -> None:
    x = np.full((N // 10, 10), 3.0)
    added = run(pf.layers.GaussianNoise(0.7), x)[0]
    scaled = run(pf.layers.GaussianDropout(0.3), x)[0]
    assert added.mean() == pytest.approx(3, abs=0.01)
    assert added.std() == pytest.approx(0.7, rel=0.01)
    assert scaled.mean() == pytest.approx(3, abs=0.02)
    assert scaled.std() == pytest.approx(3 * np.sqrt(0.3 / 0.7), rel=0.01)


@pytest.mark.once
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_alpha_dropout_keeps_mean_and_variance(rate: float) -> None:
    x = np.random.default_rng(2).normal(size=(N // 10, 10))
    y = run(pf.layers.AlphaDropout(rate), x)[0]
    assert abs(y.mean()) < 0.02 and y.var() == pytest.approx(1, rel=0.02)
    m = -1.0507009873554805 * 1.6732632423543772
    a = ((1 - rate) * (1 + rate * m * m)) ** -0.5
    dropped = np.isclose(y, a * m - a * rate * m, rtol=1e-12)
    assert dropped.mean() == pytest.approx(rate, abs=0.01)
    np.testing.assert_allclose(y[~dropped], a * x[~dropped] - a * rate * m, rtol=1e-12, atol=1e-14)


@pytest.mark.once
def test_alpha_dropout_has_the_gradient_of_what_it_kept() -> None:
    x = pf.Parameter(np.random.default_rng(3).normal(size=(20, 5)), "x", dtype="float64")
    y = pf.layers.AlphaDropout(0.4)(x)
    plan = pf.compile(pf.Sum(y), inspect=True)
    _, gradients = plan.loss_and_gradients({}, training=True)
    found = np.unique(gradients[x].round(12))
    a = (0.6 * (1 + 0.4 * 1.7580993408473766**2)) ** -0.5
    np.testing.assert_allclose(found, [0, a], rtol=1e-11)


@pytest.mark.once
def test_spatial_dropout_takes_whole_channels_of_a_sample() -> None:
    x = np.random.default_rng(4).normal(size=(500, 4, 3, 8)) + 10
    y = run(pf.layers.SpatialDropout(0.3), x)[0]
    share = (y / x).reshape(500, 12, 8)
    np.testing.assert_allclose(share, np.broadcast_to(share[:, :1], share.shape), rtol=1e-12)
    kept = share[:, 0] != 0
    np.testing.assert_allclose(share[:, 0][kept], 1 / 0.7, rtol=1e-12)
    assert kept.mean() == pytest.approx(0.7, abs=0.03)
    assert len(np.unique(kept, axis=0)) > 100  # each sample its own
    x[0, 0, 0] = np.nan  # the first position is where the shape comes from, and nothing else
    again = run(pf.layers.SpatialDropout(0.3), x)[0]
    y[0, 0, 0] = np.nan
    assert np.array_equal(again, y, equal_nan=True)


@pytest.mark.once
def test_spatial_dropout_wants_positions() -> None:
    with pytest.raises(ShapeError, match=r"for rows there is Dropout"):
        pf.layers.SpatialDropout(0.3)(pf.Placeholder("x", shape=(None, 4)))


@pytest.mark.once
@pytest.mark.parametrize("kind", ["GaussianDropout", "AlphaDropout", "SpatialDropout"])
@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan"), "a"])
def test_rates_that_make_no_sense(kind: str, rate: Any) -> None:
    with pytest.raises(ArgumentError, match=f"{kind}: the rate"):
        getattr(pf.layers, kind)(rate)


@pytest.mark.once
@pytest.mark.parametrize("std", [-0.1, float("inf"), None])
def test_deviations_that_make_no_sense(std: Any) -> None:
    with pytest.raises(ArgumentError, match="GaussianNoise: std"):
        pf.layers.GaussianNoise(std)
