"""Options of optimizers and callbacks, and groups: what is set has an effect, or is refused."""

from __future__ import annotations

import copy
import gc
import inspect
import weakref
from typing import Any

import numpy as np
import pytest
from fit_small import BUILT_IN, X, Y, fit, freeze_layer, registered, trainer

import pyframe as pf
from pyframe.errors import ArgumentError, GraphError, NoEffectError

pytestmark = pytest.mark.once  # it says nothing of a kernel

# ---- groups ----


def test_the_group_of_the_docs_matches_the_biases() -> None:
    groups = {"bias": {"learning_rate_factor": 0.0}}
    t = trainer(pf.optimizers.SGD(0.01, groups=groups))
    assert fit(t) == {"a/weight", "b/weight"}


def test_a_group_that_a_parameter_was_given_comes_first() -> None:
    p = pf.Parameter(0.0, name="x/bias", group="slow")
    factors = {"slow": {"learning_rate_factor": 0.5}, "bias": {"learning_rate_factor": 2.0}}
    assert pf.optimizers.SGD(0.1, groups=factors).group_of(p) == "slow"
    assert pf.optimizers.SGD(0.1, groups={"bias": {}}).group_of(p) == "bias"
    assert pf.optimizers.SGD(0.1).group_of(p) == "slow"


def test_default_is_the_group_of_all_that_no_other_one_fits() -> None:
    still = {"learning_rate_factor": 0.0}
    assert fit(trainer(pf.optimizers.SGD(0.01, groups={"default": still, "bias": {}}))) == {
        "a/bias",
        "b/bias",
    }
    groups = {"default": {}, "bias": still}
    assert fit(trainer(pf.optimizers.SGD(0.01, groups=groups))) == {"a/weight", "b/weight"}


def test_an_unknown_group_is_refused() -> None:
    t = trainer(pf.optimizers.SGD(0.01, groups={"biases": {"learning_rate_factor": 0.0}}))
    with pytest.raises(ArgumentError, match="no parameter belongs to the group 'biases'.*'bias'"):
        fit(t)


# ---- the options of optimizers ----


def changed(optimizer: Any, option: str) -> Any:
    """Return another value of an option, which changes what a step does."""
    value = getattr(optimizer, option)
    others: dict[str, Any] = {
        "learning_rate": 0.123,
        "clip_value": 1e-3,
        "clip_norm": 1e-3,
        "nonfinite": "skip",
        "gradient_noise": 0.5,
        "max_evaluations": 1,
        "sharpness": 0.25,
        "betas": (0.5, 0.6),
        "etas": (0.3, 2.0),
        "step_sizes": (1e-3, 2e-3),
        "low": -2.0,
        "groups": {"w": {"learning_rate_factor": 0.1}},
    }
    if option == "groups" and not optimizer.needs_gradients:
        own = next(iter(optimizer.options))
        return {"w": {own: changed(optimizer, own)}}
    if option in others:
        return others[option]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 2
    assert isinstance(value, float), (option, value)
    return value / 2 + 0.01


def settable(make: Any) -> list[str]:
    """Return the arguments of an optimizer's constructor."""
    names = inspect.signature(make).parameters
    return [name for name in names if getattr(make(), name, names) is not names]


CASES = [(name, option) for name, make in registered().items() for option in settable(make)]


def test_every_argument_of_a_built_in_can_be_read() -> None:
    for name, make in BUILT_IN.items():
        assert settable(make) == list(inspect.signature(make).parameters), name
        assert len(settable(make)) >= 2


def plan_for(optimizer: Any) -> tuple[Any, Any]:
    x = pf.Placeholder("x", shape=(None, 3), dtype="float64")
    w = pf.Parameter(np.ones((3, 1)), name="w", dtype="float64")
    return pf.compile(pf.L2Loss(Y, x @ w), optimizer), w


FEED = {"x": X}


@pytest.mark.parametrize(("name", "option"), CASES)
def test_an_option_that_is_set_has_an_effect_or_is_refused(name: str, option: str) -> None:
    make = registered()[name]
    optimizer = make(momentum=0.9) if option == "nesterov" else make()
    value = changed(optimizer, option)
    if option == "groups" and optimizer.is_python:
        with pytest.raises(ArgumentError, match="takes no groups"):
            optimizer.groups = value
        return
    plan, w = plan_for(optimizer)
    for _ in range(2):
        plan.step(FEED)
    twin, v = plan_for(copy.deepcopy(optimizer))
    twin.restore(plan.snapshot())
    setattr(optimizer, option, value)
    try:
        plan.step(FEED)
    except GraphError as problem:
        assert "compile it anew" in str(problem) and type(optimizer).__name__ in str(problem)
        with pytest.raises(GraphError, match="compile it anew"):
            plan.loop(FEED)
        setattr(optimizer, option, changed_back := getattr(twin.optimizer, option))
        assert getattr(optimizer, option) == changed_back
        plan.step(FEED), twin.step(FEED)
        assert (w.value == v.value).all()  # and nothing had happened
    else:
        twin.step(FEED)
        rng = np.random.default_rng(0)
        for _ in range(20):  # of those that look at signs only
            feed = {"x": 1e-3 * rng.normal(size=X.shape)}
            plan.step(feed), twin.step(feed)
        assert (w.value != v.value).any()
    # What a new plan does is what an optimizer made like this one does.
    setattr(optimizer, option, value)
    arguments = {"momentum": 0.9} if option == "nesterov" else {}
    one, w = plan_for(optimizer)
    two, v = plan_for(make(**{**arguments, option: value}))
    for _ in range(2):
        one.step(FEED), two.step(FEED)
    assert (w.value == v.value).all()
    assert optimizer.config() == two.optimizer.config()


@pytest.mark.parametrize("name", BUILT_IN)
def test_an_option_that_makes_no_sense_is_refused_when_it_is_set(name: str) -> None:
    optimizer = BUILT_IN[name]()
    before = repr(optimizer)
    for option in set(settable(BUILT_IN[name])) - {"learning_rate", "epsilon_hat", "nesterov"}:
        with pytest.raises(ArgumentError):
            setattr(optimizer, option, {"no": {"such": 3}} if option == "groups" else -np.inf)
    with pytest.raises(NoEffectError, match="set the option itself"):
        optimizer.options["weight_decay"] = 3.0
    with pytest.raises(NoEffectError, match="set all of them"):
        optimizer.groups["w"] = {}
    assert repr(optimizer) == before


def test_a_changed_momentum_gets_its_velocity() -> None:
    t = trainer(pf.optimizers.SGD(0.01))
    fit(t)
    assert not [key for key in t.plan.named(t.plan.snapshot()) if key.startswith("slots/")]
    t.optimizer.momentum = 0.9
    fit(t)
    assert "slots/velocity/a/weight" in t.plan.named(t.plan.snapshot())
    assert t.plan.step_count == 16
    with pytest.raises(ArgumentError, match="momentum, which is 0"):
        t.optimizer.momentum, t.optimizer.nesterov = 0.0, True
    assert not t.optimizer.nesterov and t.optimizer.momentum == 0.0


class Slower(pf.callbacks.Callback):
    """Sets the learning rate to 0 after the second epoch."""

    def on_epoch_end(self, trainer: Any, epoch: int, logs: Any) -> None:
        self.weights = [*getattr(self, "weights", []), trainer.model.get_weights()["a/weight"]]
        if epoch == 1:
            trainer.optimizer.learning_rate = 0.0


def test_a_learning_rate_that_a_callback_sets_counts_from_then_on() -> None:
    t, slower = trainer(pf.optimizers.SGD(0.01)), Slower()
    t.fit(X, Y, 4, 8, callbacks=[slower], verbose=0)
    first, second, third, fourth = slower.weights
    assert (first != second).any() and (second == third).all() and (third == fourth).all()


def test_the_table_of_segments_says_what_is_now() -> None:
    t = trainer()
    fit(t)
    freeze_layer(t, False)
    t.model.layers[1].parameters[0].group = "slow"
    for plan in (t.plan, copy.deepcopy(t).plan):
        table = {s.name: (s.trainable, s.group) for s in plan.segments}
        assert table == {
            "a/weight": (False, "default"),
            "a/bias": (False, "default"),
            "b/weight": (True, "slow"),
            "b/bias": (True, "default"),
        }
    freeze_layer(t, True)
    assert all(s.trainable for s in t.plan.segments)


def test_a_copy_made_after_a_change_goes_on_as_the_original_does() -> None:
    one = trainer(pf.optimizers.SGD(0.01, groups={"b": {"momentum": 0.5}, "weight": {}}))
    one.model.layers[1].parameters[0].group = "b"
    fit(one)
    one.model.layers[1].parameters[1].group = "b"
    one.optimizer.momentum = 0.9
    freeze_layer(one, False)
    two = copy.deepcopy(one)
    assert fit(one) == fit(two) == {"b/weight", "b/bias"}
    for name, value in one.model.get_weights().items():
        assert (value == two.model.get_weights()[name]).all()


def test_a_group_that_is_set_later_counts() -> None:
    t = trainer(pf.optimizers.SGD(0.01, groups={"bias": {"learning_rate_factor": 0.0}}))
    assert fit(t) == {"a/weight", "b/weight"}
    plan = pf.compile(
        pf.L2Loss(Y, t.model.outputs[0]), pf.optimizers.SGD(0.1), parameters=t.model.parameters
    )
    plan.step({"x": X})
    t.model.layers[0].parameters[0].group = "bias"
    assert fit(t) == {"b/weight"}
    with pytest.raises(GraphError, match=r"group of parameter 'a/weight' is bias and was default"):
        plan.step({"x": X})


# ---- callbacks ----


def test_an_event_set_on_a_callback_is_heard() -> None:
    heard = []
    one, two = pf.callbacks.LambdaCallback(), pf.callbacks.Callback()
    one.on_epoch_end = lambda trainer, epoch, logs: heard.append(("one", epoch))  # type: ignore[method-assign]
    two.on_epoch_end = lambda trainer, epoch, logs: heard.append(("two", epoch))  # type: ignore[method-assign]
    trainer().fit(X, Y, 1, callbacks=[one, two], verbose=0)
    assert heard == [("one", 0), ("two", 0)]


def test_what_is_set_on_early_stopping_counts() -> None:
    stop = pf.callbacks.EarlyStopping("loss", patience=99)
    stop.patience, stop.mode = 1, "max"
    assert trainer().fit(X, Y, 9, callbacks=[stop], verbose=0).epochs < 9
    stop.monitor, stop.tol = "parameters", 1e9
    assert trainer().fit(X, Y, 9, callbacks=[stop], verbose=0).epochs == 1
    stop.mode = "up"
    with pytest.raises(ArgumentError, match="mode='up'"):
        trainer().fit(X, Y, 9, callbacks=[stop], verbose=0)


def test_what_is_set_later_is_checked_as_what_is_given() -> None:
    t, stop = trainer(), pf.callbacks.EarlyStopping("loss")
    checkpoint = pf.callbacks.ModelCheckpoint("m")
    for thing, name, wrong in (
        (t, "callbacks", 3),
        (t, "detect_anomaly", "yes"),
        (stop, "patience", -1),
        (stop, "min_delta", -1.0),
        (stop, "tol", "small"),
        (checkpoint, "every", 0),
    ):
        before = getattr(thing, name)
        with pytest.raises(ArgumentError, match=name):
            setattr(thing, name, wrong)
        assert getattr(thing, name) is before
    t.callbacks, t.detect_anomaly = [stop], True
    assert t.callbacks == [stop] and t.detect_anomaly


def test_what_belongs_to_the_class_of_an_optimizer_is_refused() -> None:
    for make in BUILT_IN.values():
        for name, value in (("name", "zz"), ("slots", {}), ("proposes", True)):
            optimizer = make()
            before = getattr(optimizer, name)
            with pytest.raises(NoEffectError, match="belongs to the class|read-only"):
                setattr(optimizer, name, value)
            assert getattr(optimizer, name) == before


def references_to_methods() -> int:
    return sum(isinstance(one, weakref.WeakMethod) for one in gc.get_objects())


def test_an_optimizer_forgets_the_plans_that_are_gone() -> None:
    optimizer = pf.optimizers.Adam(0.01)
    w = pf.Parameter(np.ones(3), name="w")
    counts = []
    for _ in range(3):
        for _ in range(20):
            plan = pf.compile(pf.Sum(w * w), optimizer)
            plan.step({})
        gc.collect()
        last = pf.compile(pf.Sum(w * w), optimizer)
        counts.append(references_to_methods())
    assert counts[1] == counts[2]
    optimizer.weight_decay = 0.5
    for one in (plan, last):
        with pytest.raises(GraphError, match="compile it anew"):
            one.step({})


def test_a_plan_that_does_not_hear_of_options_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pf.optimizers.Optimizer, "on_change", lambda self, method: None)
    for name, option in (("adam", "weight_decay"), ("sgd", "clip_norm"), ("random_search", "low")):
        with pytest.raises(AssertionError):
            test_an_option_that_is_set_has_an_effect_or_is_refused(name, option)
