"""Lion against the formula of the paper, on a net that it trains, and the conformance kit."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pyframe as pf
import pytest
from pyframe.testing import check_optimizer

import pyframe_lion
from pyframe_lion import Lion


def test_conformance() -> None:
    check_optimizer(Lion)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_does_what_the_paper_says(dtype: str) -> None:
    """Twenty steps on cost = sum(w p^2) beside the three lines of algorithm 2 in float64."""
    rate, beta1, beta2, decay = 0.01, 0.8, 0.95, 0.3
    scale = np.array([0.5, 2.0, 3.0])
    p, m = np.array([1.0, -2.0, 0.5]), np.zeros(3)
    trained = pf.Parameter(p, name="p", dtype=dtype)
    weight = pf.Placeholder("weight", shape=(3,), dtype=dtype)
    plan = pf.compile(
        pf.Sum(weight * trained * trained),
        optimizer=Lion(rate, betas=(beta1, beta2), weight_decay=decay),
    )
    for _ in range(20):
        plan.step({weight: scale})
        g = 2 * scale * p
        p = p - rate * (np.sign(beta1 * m + (1 - beta1) * g) + decay * p)
        m = beta2 * m + (1 - beta2) * g
        np.testing.assert_allclose(trained.value, p, rtol=1e-5 if dtype == "float32" else 1e-12)


def test_a_gradient_of_zero_moves_nothing_but_the_decay() -> None:
    p = pf.Parameter([1.0, -4.0], name="p", dtype="float64")
    pf.compile(0.0 * pf.Sum(p), optimizer=Lion(0.1, weight_decay=0.5)).step({})
    np.testing.assert_allclose(p.value, [0.95, -3.8])


def test_a_net_learns() -> None:
    pf.set_seed(0)
    x = np.random.default_rng(0).uniform(-2, 2, (256, 2))
    y = np.sin(x[:, :1]) * x[:, 1:]
    model = pf.Sequential([pf.layers.Dense(32, activation="tanh"), pf.layers.Dense(1)])
    trainer = pf.Trainer(model, loss="l2", optimizer=Lion(3e-3))
    trainer.fit(x, y, epochs=60, batch_size=32, seed=0, verbose=0)
    assert trainer.evaluate(x, y)["loss"] < 0.05 * float(np.var(y))


def test_its_name_is_enough() -> None:
    assert isinstance(pf.optimizers.get("lion"), Lion)


def test_a_saved_config_builds_it_again() -> None:
    lion = Lion(pf.schedules.Cosine(1e-3, total_steps=9), betas=(0.5, 0.6), clip_norm=1.0)
    assert repr(pf.optimizers.from_config(lion.config())) == repr(lion)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"betas": (1.0, 0.9)}, "betas is"),
        ({"betas": (0.9, -0.1)}, "betas is"),
        ({"betas": (0.9, float("nan"))}, "betas is"),
        ({"betas": 0.9}, "betas="),
        ({"betas": (0.9, 0.99, 0.999)}, "betas="),
        ({"weight_decay": -1}, "weight_decay is"),
        ({"weight_decay": float("inf")}, "weight_decay is"),
        ({"weight_decay": "much"}, "weight_decay="),
        ({"momentum": 0.9}, "has no momentum"),
        ({"groups": {"bias": {"weight_decay": 0.0}}}, "no groups"),
        ({"learning_rate": -1}, "learning"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(pf.ArgumentError, match=message):
        Lion(**options)


def test_it_leaves_out_steps_that_are_not_finite() -> None:
    p = pf.Parameter([1.0, -4.0], name="p", dtype="float64")
    x = pf.Placeholder("x", shape=(), dtype="float64")
    plan = pf.compile(x * pf.Sum(p), optimizer=Lion(0.1, nonfinite="skip"))
    plan.step({x: np.inf})
    assert plan.skipped_steps == 1 and p.value.tolist() == [1.0, -4.0]


def test_examples() -> None:
    assert doctest.testmod(pyframe_lion).failed == 0
