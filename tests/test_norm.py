"""Normalization in a plan: running statistics, modes and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.errors import ArgumentError, DTypeError, GraphError, ShapeError


def batch_norm(x: Any, features: int, **arguments: Any) -> tuple[Any, Any, Any]:
    mean = pf.State(np.zeros(features), "mean", dtype="float64")
    variance = pf.State(np.ones(features), "variance", dtype="float64")
    scale = pf.Parameter(np.ones(features), "scale", dtype="float64")
    shift = pf.Parameter(np.zeros(features), "shift", dtype="float64")
    return pf.BatchNorm(x, scale, shift, mean, variance, **arguments), mean, variance


def test_training_uses_the_batch_and_inference_the_running_statistics() -> None:
    x = pf.Placeholder("x", shape=(None, 2, 3), dtype="float64")
    node, mean, variance = batch_norm(x, 3, momentum=0.75, epsilon=1e-3)
    cost = pf.L2Loss(np.zeros((4, 2, 3)), node)
    plan = pf.compile(cost, optimizer=pf.optimizers.SGD(0.0))
    data = np.random.default_rng(0).normal(2.0, 3.0, (4, 2, 3))
    rows = data.reshape(8, 3)

    trained = plan.run({x: data}, outputs=node, training=True)
    wanted = (data - rows.mean(axis=0)) / np.sqrt(rows.var(axis=0) + 1e-3)
    assert np.allclose(trained, wanted, rtol=1e-12)
    assert np.array_equal(mean.value, np.zeros(3))  # looking does not move them

    plan.step({x: data})
    moved_mean, moved = 0.25 * rows.mean(axis=0), 0.75 + 0.25 * rows.var(axis=0, ddof=1)
    assert np.allclose(mean.value, moved_mean, rtol=1e-13)
    assert np.allclose(variance.value, moved, rtol=1e-13)

    wanted = (data - moved_mean) / np.sqrt(moved + 1e-3)
    assert np.allclose(plan.run({x: data}, outputs=node), wanted, rtol=1e-12)


def test_the_statistics_are_outputs_too() -> None:
    x = pf.Placeholder("x", shape=(None, 2), dtype="float64")
    node, _, _ = batch_norm(x, 2, epsilon=1.0)
    plan = pf.compile([node[1], node[2]])
    mean, inverse = plan.run({x: [[1.0, 2.0], [3.0, 2.0]]}, training=True)
    assert np.allclose(mean, [2, 2]) and np.allclose(inverse, [0.5**0.5, 1])
    with pytest.raises(GraphError, match="output 0 only"):
        pf.compile(pf.L2Loss(np.zeros(2), node[1]), optimizer=pf.optimizers.SGD(0.1))


def test_a_mean_far_from_zero_does_not_cost_the_variance() -> None:
    """Two passes: the variance of 1000 +- 1 in float32 is still 1."""
    column = (1000 + np.array([-1.0, 1.0] * 50, np.float32))[:, None]
    x = pf.Placeholder("x", shape=(None, 1))
    mean, variance = pf.State(np.zeros(1), "mean"), pf.State(np.ones(1), "variance")
    batch = pf.BatchNorm(x, np.ones(1), np.zeros(1), mean, variance)
    plan = pf.compile(batch)
    assert np.allclose(plan.run({x: column}, training=True), column - 1000, atol=1e-4)
    row = pf.LayerNorm(pf.Placeholder("row", shape=(1, 100)), np.ones(100), np.zeros(100))
    plan = pf.compile(row)
    assert np.allclose(plan.run({row.inputs[0]: column.T}), column.T - 1000, atol=1e-4)


def test_what_batch_norm_refuses() -> None:
    x = pf.Placeholder("x", shape=(None, 3), dtype="float64")
    with pytest.raises(ShapeError, match="state mean has shape \\(4,\\)"):
        wrong = pf.State(np.zeros(4), "mean", dtype="float64")
        pf.BatchNorm(x, np.ones(3), np.zeros(3), wrong, wrong)
    with pytest.raises(DTypeError, match="state mean is float32"):
        single = pf.State(np.zeros(3), "mean")
        pf.BatchNorm(x, np.ones(3), np.zeros(3), single, single)
    with pytest.raises(ArgumentError, match="two pyframe.State"):
        pf.BatchNorm(x, np.ones(3), np.zeros(3))
    with pytest.raises(ShapeError, match="at least 2 axes"):
        batch_norm(pf.Placeholder("x", shape=(3,), dtype="float64"), 3)
    for momentum in (-0.1, 1.1, np.nan):
        with pytest.raises(ArgumentError, match="momentum"):
            batch_norm(x, 3, momentum=momentum)
    for epsilon in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ArgumentError, match="epsilon"):
            batch_norm(x, 3, epsilon=epsilon)
        with pytest.raises(ArgumentError, match="epsilon"):
            pf.LayerNorm(x, np.ones(3), np.zeros(3), epsilon)
