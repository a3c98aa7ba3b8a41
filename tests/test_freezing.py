"""A parameter that is frozen or set free between fits: the next fit heeds it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fit_small import X, Y, fit, freeze_layer, trainer

import pyframe as pf
from pyframe.errors import ArgumentError, GraphError
from pyframe.estimators import NetRegressor
from pyframe.training.compiled import CompiledGoals
from pyframe.training.goal import Goal

pytestmark = pytest.mark.once  # it says nothing of a kernel

ALL = {"a/weight", "a/bias", "b/weight", "b/bias"}
A = {"a/weight", "a/bias"}


def freeze_parameters(t: pf.Trainer, trainable: bool) -> None:
    for parameter in t.model.layers[0].parameters:
        parameter.trainable = trainable


OPTIMIZERS = [
    pf.optimizers.SGD(0.01, momentum=0.9),
    pf.optimizers.Adam(0.01),
    pf.optimizers.Adam(0.01, weight_decay=0.1, clip_norm=1.0),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
@pytest.mark.parametrize("set_it", [freeze_parameters, freeze_layer])
def test_freezing_between_fits_counts_in_both_directions(optimizer: Any, set_it: Any) -> None:
    t = trainer(optimizer)
    assert fit(t) == ALL
    set_it(t, False)
    assert "21 parameters, 5 of them trained" in t.model.summary()
    assert fit(t) == ALL - A
    assert t.evaluate(X, Y)["loss"] >= 0
    set_it(t, True)
    assert "21 parameters, 21 of them trained" in t.model.summary()
    assert fit(t) == ALL


def test_what_the_optimizer_keeps_stays_with_what_is_trained_on() -> None:
    t = trainer()
    fit(t)
    before = t.plan.named(t.plan.snapshot())
    freeze_layer(t, False)
    fit(t, 0)
    after = t.plan.named(t.plan.snapshot())
    slots = [key for key in before if key.startswith("slots/")]
    kept = [key for key in slots if "/b/" in key]
    assert kept and {key for key in after if key.startswith("slots/")} == set(kept)
    assert all((before[key] == after[key]).all() for key in kept)
    assert t.plan.step_count == 8
    freeze_layer(t, True)
    fit(t, 0)
    again = t.plan.named(t.plan.snapshot())
    assert set(again) == set(before)
    assert all((again[key] == 0).all() for key in slots if "/a/" in key)


def test_a_change_that_is_taken_back_changes_nothing() -> None:
    one, two = trainer(), trainer()
    fit(one, 2), fit(two, 2)
    freeze_layer(two, False)
    two.evaluate(X, Y)
    freeze_layer(two, True)
    fit(one, 2), fit(two, 2)
    for name, value in one.model.get_weights().items():
        assert (value == two.model.get_weights()[name]).all()


def test_freezing_a_model_freezes_all_of_it() -> None:
    x = pf.Placeholder("x", shape=(None, 3))
    loose = pf.Parameter(np.ones(3), name="loose")
    model = pf.Model([x], [pf.layers.Dense(1)(x * loose)])
    assert model.trainable
    model.trainable = False
    assert not model.trainable and not any(p.trainable for p in model.parameters)
    assert "0 of them trained" in model.summary()
    model.trainable = True
    assert all(p.trainable for p in model.parameters)


def test_a_model_with_nothing_to_train_is_not_fitted() -> None:
    model = pf.Sequential([pf.layers.Dense(1)], input_shape=(3,))
    model.trainable = False
    t = pf.Trainer(model, "l2")
    with pytest.raises(pf.GraphError, match="nothing to train: of the 2 parameters"):
        t.fit(X, Y, 1, verbose=0)
    assert t.evaluate(X, Y)["loss"] > 0
    model.trainable = True
    assert t.fit(X, Y, 1, verbose=0).epochs == 1
    empty = pf.Sequential([pf.layers.Flatten()], input_shape=(1,))
    with pytest.raises(pf.GraphError, match="of the 0 parameters"):
        pf.Trainer(empty).fit(X[:, :1], X[:, :1], 1, verbose=0)


def test_freezing_comes_before_building_too() -> None:
    model = pf.Sequential([pf.layers.Dense(2), pf.layers.Dense(1)])
    model.layers[0].trainable = False
    t = pf.Trainer(model, "l2")
    t.fit(X, Y, 1, verbose=0)
    assert [p.trainable for p in model.parameters] == [False, False, True, True]


class Half(pf.layers.Layer):
    """A layer with a parameter that is never trained, and a layer within."""

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.inner = pf.layers.Dense(2)

    def build(self, *specs: Any) -> None:
        self.fixed = self.add_parameter("fixed", (3,), 2.0, dtype="float32", trainable=False)
        self.free = self.add_parameter("free", (3,), 2.0, dtype="float32")

    def call(self, *inputs: Any) -> Any:
        return self.inner(inputs[0] * self.fixed * self.free)


def test_a_parameter_that_a_layer_never_trains_stays_so() -> None:
    layer = Half()
    layer(pf.Placeholder("x", shape=(None, 3)))
    for value in (False, True):
        layer.trainable = value
        assert layer.trainable is value is layer.inner.trainable
        assert layer.free.trainable is value and not layer.fixed.trainable


def test_an_estimator_heeds_a_frozen_layer_built_or_not() -> None:
    layer = pf.layers.Dense(4)
    layer.trainable = False
    for _ in range(2):
        net = NetRegressor([layer], epochs=1).fit(X, Y[:, 0])
        assert [p.trainable for p in net.model_.parameters] == [False, False, True, True]
        layer(pf.Placeholder("x", shape=(None, 3)))


def test_a_frozen_state_is_refused() -> None:
    layer = pf.layers.BatchNorm()
    layer(pf.Placeholder("x", shape=(None, 3)))
    layer.trainable = True
    with pytest.raises(ArgumentError, match="never trained"):
        layer.states[0].trainable = True


def test_a_plan_says_that_it_was_made_for_other_parameters() -> None:
    x = pf.Placeholder("x", shape=(None, 3))
    w, v = pf.Parameter(np.ones((3, 1)), name="w"), pf.Parameter(np.ones(1), name="v")
    plan = pf.compile(pf.L2Loss(Y, x @ w + v), pf.optimizers.SGD(0.1))
    plan.step({x: X}), plan.step({x: X})
    w.trainable = False
    kept = w.value.copy()
    with pytest.raises(GraphError, match=r"'w' is False.*compile it anew"):
        plan.step({x: X})
    with pytest.raises(GraphError, match="compile it anew"):
        plan.loop({x: X})
    assert (w.value == kept).all()
    w.trainable = True
    plan.step({x: X})
    assert (w.value != kept).all()


def test_a_new_optimizer_counts_and_begins_anew() -> None:
    t = trainer(pf.optimizers.SGD(0.0))
    assert fit(t) == set()
    t.optimizer = pf.optimizers.Adam(0.01)
    assert fit(t) == ALL and t.plan.step_count == 8
    t.optimizer = "sgd"
    assert isinstance(t.optimizer, pf.optimizers.SGD)
    t.optimizer.clip_value = 1e-30  # so small a step is lost
    assert fit(t) == set()
    with pytest.raises(ArgumentError):
        t.optimizer = 3


# ---- planted faults ----


@pytest.mark.parametrize("moment", [(pf.Trainer, "_data"), (CompiledGoals, "train_on")])
@pytest.mark.parametrize("change", ["trainable", "option"])
def test_a_change_while_a_fit_begins_asks_for_another_fit(
    moment: tuple[type, str], change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another thread may make it; nobody here has compiled anything."""
    t, step = trainer(), getattr(*moment)
    fit(t)

    def and_change(self: Any, *arguments: Any) -> Any:
        result = step(self, *arguments)
        if change == "trainable":
            freeze_layer(t, False)
        else:
            t.optimizer.weight_decay = 0.1
        return result

    before, epochs = t.model.get_weights(), t.epochs_done
    with monkeypatch.context() as patch:
        patch.setattr(*moment, and_change)
        with pytest.raises(pf.BusyError, match="another thread has changed it.*fit again"):
            t.fit(X, Y, 1, verbose=0)
    for name, value in t.model.get_weights().items():
        assert (value == before[name]).all()
    assert t.epochs_done == epochs
    assert fit(t) == (ALL - A if change == "trainable" else ALL)


def test_a_plan_made_while_something_changed_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    t, make = trainer(), Goal.compile

    def between(self: Any, *arguments: Any, **options: Any) -> Any:
        freeze_layer(t, False)
        return make(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Goal, "compile", between)
        t.evaluate(X, Y)
    freeze_layer(t, True)
    assert fit(t) == ALL


def test_a_trainer_that_does_not_look_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault planted: the first plan is kept for good."""
    look = CompiledGoals.get

    def keep(self: Any, optimizer: Any, *, weighted: bool, detect_anomaly: bool) -> Any:
        found = self._made.get(weighted)
        if found is None:
            found = look(self, optimizer, weighted=weighted, detect_anomaly=detect_anomaly)
        return found

    monkeypatch.setattr(CompiledGoals, "get", keep)
    with pytest.raises((AssertionError, pf.BusyError)):
        test_freezing_between_fits_counts_in_both_directions(OPTIMIZERS[1], freeze_layer)
    with pytest.raises((AssertionError, pf.BusyError)):
        test_a_new_optimizer_counts_and_begins_anew()
