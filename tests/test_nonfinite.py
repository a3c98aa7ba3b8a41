"""Gradients that hold NaN or infinity: named in an error, or skipped and counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mutants
import numpy as np
import pytest

import pyframe as pf
from pyframe.engine import emission

CLIPS: dict[str, dict[str, Any]] = {
    "by norm": {"clip_norm": 1.0},
    "by value": {"clip_value": 0.5},
    "by both": {"clip_value": 0.5, "clip_norm": 1.0},
}
every_clip = pytest.mark.parametrize("clip", CLIPS.values(), ids=CLIPS)
every_bad = pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])


class Two:
    """Two parameters, of which the second one's gradient is what is fed; and a running mean."""

    def __init__(self, optimizer: Any, dtype: str = "float32") -> None:
        self.x = pf.Placeholder("x", shape=(None, 3), dtype=dtype)
        self.fine = pf.Parameter(np.ones(3), "fine", dtype=dtype)
        self.steep = pf.Parameter(np.ones(3), "steep", dtype=dtype)
        cost = pf.Sum(self.fine) + pf.Sum(self.x * self.steep)
        self.plan = pf.compile(cost, optimizer)

    @property
    def values(self) -> np.ndarray:
        return np.array([self.fine.value, self.steep.value])


def rows(bad: float) -> np.ndarray:
    return np.array([[1.0, bad, 2.0]])


@every_clip
@every_bad
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_error_names_the_parameter_and_nothing_is_updated(
    clip: dict[str, Any], bad: float, dtype: str
) -> None:
    net = Two(pf.optimizers.Adam(0.1, **clip), dtype)
    net.plan.step({"x": rows(1.0)})
    before, snapshot = net.values, net.plan.snapshot()
    with pytest.raises(pf.errors.AnomalyError, match=r"'steep'.*step 1.*nonfinite='skip'"):
        net.plan.step({"x": rows(bad)})
    np.testing.assert_array_equal(net.values, before)
    for was, now in zip(snapshot.arrays, net.plan.snapshot().arrays, strict=True):
        np.testing.assert_array_equal(was, now)
    assert (net.plan.step_count, net.plan.skipped_steps) == (1, 0)
    net.plan.step({"x": rows(1.0)})  # and it goes on
    assert np.all(net.values < before)


@every_clip
@every_bad
def test_a_skipped_step_updates_nothing_and_is_counted(clip: dict[str, Any], bad: float) -> None:
    net = Two(pf.optimizers.Adam(0.1, nonfinite="skip", **clip))
    net.plan.step({"x": rows(1.0)})
    before, snapshot = net.values, net.plan.snapshot()
    assert not np.isfinite(net.plan.step({"x": rows(bad)}))
    np.testing.assert_array_equal(net.values, before)
    for was, now in zip(snapshot.arrays[:-1], net.plan.snapshot().arrays[:-1], strict=True):
        np.testing.assert_array_equal(was, now)
    assert (net.plan.step_count, net.plan.skipped_steps) == (2, 1)
    net.plan.restore(snapshot)
    assert (net.plan.step_count, net.plan.skipped_steps) == (1, 0)


def test_without_clipping_it_looks_when_it_is_told_to() -> None:
    quiet, loud = Two(pf.optimizers.SGD(0.1)), Two(pf.optimizers.SGD(0.1, nonfinite="raise"))
    quiet.plan.step({"x": rows(np.nan)})
    assert np.isnan(quiet.values).any()
    with pytest.raises(pf.errors.AnomalyError, match="'steep'"):
        loud.plan.step({"x": rows(np.nan)})
    with pytest.raises(pf.errors.ArgumentError, match="use 'raise' or 'skip'"):
        pf.optimizers.SGD(0.1, nonfinite="ignore")


def test_an_optimizer_in_python_is_skipped_too() -> None:
    class Plain(pf.optimizers.Optimizer):
        def update(self, parameters: Any, gradients: Any, slots: Any, **how: Any) -> None:
            parameters -= 0.1 * gradients

    net = Two(Plain(0.1, clip_norm=1.0, nonfinite="skip"))
    net.plan.step({"x": rows(np.nan)})
    assert net.plan.skipped_steps == 1
    np.testing.assert_array_equal(net.values, np.ones((2, 3)))


def test_epochs_in_c_skip_and_count_and_raise() -> None:
    data = np.ones((12, 3))
    data[5] = np.nan
    net = Two(pf.optimizers.SGD(0.1, clip_norm=1.0, nonfinite="skip"))
    with net.plan.loop({"x": data}, epochs=3, batch_size=2, shuffle=False, seed=0) as loop:
        assert loop.run(60) == "done"
    assert (net.plan.step_count, net.plan.skipped_steps) == (18, 3)
    assert np.isfinite(net.values).all()
    strict = Two(pf.optimizers.SGD(0.1, clip_norm=1.0))
    with (
        pytest.raises(pf.errors.AnomalyError, match=r"'steep'.*step 2"),
        strict.plan.loop({"x": data}, epochs=3, batch_size=2, shuffle=False, seed=0) as loop,
    ):
        loop.run(60)
    assert strict.plan.step_count == 2


def trainer() -> Any:
    pf.set_seed(0)
    model = pf.Sequential(
        [pf.layers.Dense(4, activation="tanh"), pf.layers.BatchNorm(), pf.layers.Dense(1)],
        input_shape=(3,),
    )
    return pf.Trainer(
        model, loss="l2", optimizer=pf.optimizers.Adam(0.01, clip_norm=1.0, nonfinite="skip")
    )


@pytest.mark.filterwarnings("ignore::pyframe.DivergenceWarning")
def test_a_fit_that_is_resumed_keeps_the_count(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 3))
    y = x.sum(axis=1)
    y[7] = np.inf
    fit = {"batch_size": 8, "verbose": 0, "seed": 0}
    whole = trainer()
    whole.fit(x, y, epochs=4, **fit)
    assert whole.plan.skipped_steps == 4
    half = trainer()
    half.fit(x, y, epochs=2, **fit)
    half.save(tmp_path / "half.pyframe")
    other = trainer()
    other.fit(x, y, epochs=4, resume=tmp_path / "half.pyframe", batch_size=8, verbose=0)
    assert (other.plan.step_count, other.plan.skipped_steps) == (20, 4)
    for a, b in zip(
        whole.model.get_weights().values(), other.model.get_weights().values(), strict=True
    ):
        np.testing.assert_array_equal(a, b)
        assert np.isfinite(a).all()


@pytest.mark.parametrize(("dtype", "size"), [("float32", 1e30), ("float64", 1e200)])
def test_squares_that_overflow_clip_right(dtype: str, size: float) -> None:
    net = Two(pf.optimizers.SGD(1.0, clip_norm=5.0), dtype)
    net.plan.step({"x": np.array([[3 * size, 0.0, 4 * size]])})
    np.testing.assert_allclose(net.values, [[1, 1, 1], [-2, 1, -3]], rtol=1e-6)


@pytest.mark.once
@pytest.mark.slow
@mutants.needs_compiler
def test_without_the_check_it_would_be_noticed(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = mutants.Workshop(tmp_path_factory)
    check = "if (isfinite(*(const double *)call->inputs[0]->data)) return PF_OK;"
    kernels = workshop.build("optimizers.c", check, "return PF_OK;")
    monkeypatch.setattr(emission, "find_kernel", kernels)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        test_an_error_names_the_parameter_and_nothing_is_updated(
            CLIPS["by norm"], np.nan, "float32"
        )


@pytest.mark.filterwarnings("ignore::pyframe.DivergenceWarning")
def test_a_history_tells_of_skipped_steps() -> None:
    X, Y = np.ones((12, 2)), np.ones(12)
    X[5] = np.inf
    model = pf.Sequential([pf.layers.Dense(1)], input_shape=(2,))
    trainer = pf.Trainer(model, "l2", pf.optimizers.SGD(0.01, nonfinite="skip"))
    for _ in range(2):
        history = trainer.fit(X, Y, 2, 3, shuffle=False, verbose=0)
        assert history.skipped_steps == 2 and ", 2 steps skipped" in repr(history)
    assert trainer.plan.skipped_steps == 4
    history = trainer.fit(X[:3], Y[:3], 1, verbose=0)
    assert history.skipped_steps == 0 and "skipped" not in repr(history)
