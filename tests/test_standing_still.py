"""A batch normalization that is frozen: in training, too, it uses its averages, and keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.errors import ArgumentError, GraphError

pytestmark = pytest.mark.once  # it says nothing of a kernel

RNG = np.random.default_rng(3)
X = RNG.normal(3.0, 2.0, size=(32, 3))
Y = RNG.normal(size=(32, 1))


class Block(pf.layers.Layer):
    """A layer that holds the one that is frozen."""

    def build(self, *specs: Any) -> None:
        self.norm = pf.layers.BatchNorm(momentum=0.5)

    def call(self, *inputs: Any) -> Any:
        return self.norm(*inputs)


def model(layer: pf.layers.Layer) -> pf.Sequential:
    pf.set_seed(0)
    return pf.Sequential([layer, pf.layers.Dense(1)], input_shape=(3,))


def states(m: pf.Model) -> list[Any]:
    return [s.value.copy() for s in m.states]


def fit(t: pf.Trainer) -> tuple[bool, Any]:
    """Return whether a fit has changed the averages, and its first loss."""
    before = states(t.model)
    history = t.fit(X, Y, 2, 8, shuffle=False, verbose=0)
    changed = [(b != a).any() for b, a in zip(before, states(t.model), strict=True)]
    assert len(set(changed)) == 1
    return bool(changed[0]), history["loss"][0]


@pytest.mark.parametrize("make", [lambda: pf.layers.BatchNorm(0.5), Block], ids=["norm", "block"])
@pytest.mark.parametrize("when", ["before", "after", "model"])
def test_a_frozen_one_keeps_its_averages(make: Any, when: str) -> None:
    layer = make()
    if when == "before":
        layer.trainable = False
    m = model(layer)
    if when == "after":
        layer.trainable = False
    if when == "model":
        m.trainable = False
        m.layers[1].trainable = True
    assert fit(pf.Trainer(m, "l2", "sgd"))[0] is False
    assert layer.trainable is False


def test_a_trainer_heeds_it_from_its_next_fit_on() -> None:
    m = model(pf.layers.BatchNorm(0.5))
    t = pf.Trainer(m, "l2", pf.optimizers.SGD(1e-3))
    assert fit(t)[0] is True
    m.layers[0].trainable = False
    assert fit(t)[0] is False
    m.layers[0].trainable = True
    assert fit(t)[0] is True


def test_states_alone_may_be_frozen_for_a_trainer() -> None:
    m = model(pf.layers.BatchNorm(0.5))
    t = pf.Trainer(m, "l2", pf.optimizers.SGD(1e-3))
    assert fit(t)[0] is True
    for state in m.states:
        state.frozen = True
    assert fit(t)[0] is False


def plan_of(m: pf.Model) -> tuple[Any, dict[Any, Any]]:
    y = pf.Placeholder("y", shape=(None, 1))
    plan = pf.compile(pf.L2Loss(y, m.outputs[0]), optimizer=pf.optimizers.SGD(0.01))
    return plan, {m.inputs[0]: X, y: Y}


def test_a_plan_refuses_to_go_on_until_it_is_compiled_anew() -> None:
    m = model(pf.layers.BatchNorm(0.5))
    plan, feed = plan_of(m)
    plan.step(feed)
    for state in m.states:
        state.frozen = True
    kept = states(m)
    with pytest.raises(GraphError, match="frozen of state .*batch_norm/mean.* is True and was Fal"):
        plan.step(feed)
    assert all((a == b).all() for a, b in zip(kept, states(m), strict=True))
    plan, feed = plan_of(m)
    plan.step(feed)
    assert all((a == b).all() for a, b in zip(kept, states(m), strict=True))


def test_runs_in_training_heed_it_at_once() -> None:
    m = model(pf.layers.BatchNorm(0.5))
    plan, feed = plan_of(m)
    out, inputs = m.outputs[0], {m.inputs[0]: X}
    there = plan.run(inputs, out, training=False)
    assert not np.allclose(plan.run(inputs, out, training=True), there)
    m.layers[0].trainable = False
    assert (plan.run(inputs, out, training=True) == there).all()
    m.layers[0].trainable = True
    assert not np.allclose(plan.run(inputs, out, training=True), there)


def test_gradients_are_those_of_the_averages() -> None:
    """The scale is free here: the gradients, through relu, too, are those of an affine map."""
    x = pf.Placeholder("x", shape=(None, 3), dtype="float64")
    w = pf.Parameter(RNG.normal(size=(3, 3)), "w", dtype="float64")
    scale = pf.Parameter(RNG.normal(size=3), "scale", dtype="float64")
    shift = pf.Parameter(RNG.normal(size=3), "shift", dtype="float64")
    mean = pf.State(RNG.normal(size=3), "mean", dtype="float64", frozen=True)
    variance = pf.State(RNG.uniform(1, 2, size=3), "variance", dtype="float64", frozen=True)
    given = [mean.value.copy(), variance.value.copy()]
    h = pf.Linear(x, w)
    y = pf.Relu(pf.BatchNorm(h, scale, shift, mean, variance, epsilon=1e-3))
    by_hand = pf.Relu((h - given[0]) * (1 / np.sqrt(given[1] + 1e-3)) * scale + shift)
    results = [
        pf.compile(pf.Mean(pf.Square(node)), optimizer=pf.optimizers.SGD(0.1)).loss_and_gradients(
            {x: X}
        )
        for node in (y, by_hand)
    ]
    (loss, got), (loss_by_hand, want) = results
    assert loss == pytest.approx(loss_by_hand, rel=1e-12)
    for p in (w, scale, shift):
        np.testing.assert_allclose(got[p], want[p], rtol=1e-10, atol=1e-12)


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    m = model(Block())
    m.layers[0].trainable = False
    m.save(tmp_path / "m.pyframe")
    loaded = pf.load(tmp_path / "m.pyframe", custom_ops={"Block": Block})
    assert [s.frozen for s in loaded.states] == [True, True]
    assert loaded.layers[0].trainable is False
    assert fit(pf.Trainer(loaded, "l2", "sgd"))[0] is False
    loaded.layers[0].trainable = True
    assert fit(pf.Trainer(loaded, "l2", "sgd"))[0] is True


def test_a_flag_is_a_flag() -> None:
    with pytest.raises(ArgumentError, match="frozen"):
        pf.State(np.zeros(3), frozen=1)  # type: ignore[arg-type]
