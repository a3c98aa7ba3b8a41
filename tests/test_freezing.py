"""What is set on a public object has an effect, or is refused."""

from __future__ import annotations

import copy
import gc
import inspect
import weakref
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe import strict
from pyframe.errors import ArgumentError, GraphError, NoEffectError
from pyframe.estimators import NetRegressor
from pyframe.training import objective

RNG = np.random.default_rng(1)
X = RNG.normal(size=(32, 3))
Y = X @ RNG.normal(size=(3, 1))


def trainer(optimizer: Any = None) -> pf.Trainer:
    pf.set_seed(0)
    layers = [pf.layers.Dense(4, activation="tanh", name="a"), pf.layers.Dense(1, name="b")]
    model = pf.Sequential(layers, input_shape=(3,))
    return pf.Trainer(model, "l2", optimizer or pf.optimizers.Adam(0.01))


def fit(t: pf.Trainer, epochs: int = 2) -> set[str]:
    """Return the names of the parameters that a fit has changed."""
    before = t.model.get_weights()
    t.fit(X, Y, epochs, 8, verbose=0)
    after = t.model.get_weights()
    return {name for name in before if (before[name] != after[name]).any()}


ALL = {"a/weight", "a/bias", "b/weight", "b/bias"}
A = {"a/weight", "a/bias"}


def freeze_parameters(t: pf.Trainer, trainable: bool) -> None:
    for parameter in t.model.layers[0].parameters:
        parameter.trainable = trainable


def freeze_layer(t: pf.Trainer, trainable: bool) -> None:
    t.model.layers[0].trainable = trainable


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


def test_an_unknown_group_is_refused() -> None:
    t = trainer(pf.optimizers.SGD(0.01, groups={"biases": {"learning_rate_factor": 0.0}}))
    with pytest.raises(ArgumentError, match="no parameter belongs to the group 'biases'.*'bias'"):
        fit(t)


# ---- attributes ----


@pytest.mark.parametrize("wrong", ["optimiser", "metrics", "loss", "epochs", "learning_rate"])
def test_an_attribute_that_nothing_reads_is_refused(wrong: str) -> None:
    t = trainer()
    for thing in (t, t.model):
        with pytest.raises(ArgumentError, match="no effect"):
            setattr(thing, wrong, 1)
        assert not hasattr(thing, wrong)


def test_what_has_been_read_is_refused() -> None:
    t = trainer()
    for thing, name in (
        (t, "model"),
        (t, "goal"),
        (t.model, "dtype"),
        (t.model.layers[0], "units"),
        (t.model.layers[0], "activation"),
    ):
        before = getattr(thing, name)
        with pytest.raises(ArgumentError, match="no effect"):
            setattr(thing, name, None)
        assert getattr(thing, name) is before
    with pytest.raises(ArgumentError, match="did you mean 'trainable'"):
        t.model.layers[0].trainble = False


class Own(pf.Trainer):
    pass


def test_a_subclass_keeps_what_it_likes() -> None:
    t = Own(pf.Sequential([pf.layers.Dense(1)]))
    t.anything = 3
    assert t.anything == 3


def objects() -> dict[str, Any]:
    t = trainer()
    t.fit(X, Y, 1, verbose=0)
    leaves = {"parameter": pf.Parameter(np.ones(3), name="w"), "state": pf.graph.node.State(0.0)}
    return {
        "trainer": t,
        "plan": t.plan,
        "model": t.model,
        "placeholder": pf.Placeholder("x", shape=(None, 3)),
        **leaves,
        "base callback": pf.callbacks.Callback(),
        "lambda callback": pf.callbacks.LambdaCallback(),
        "early stopping": pf.callbacks.EarlyStopping(),
        "checkpoint": pf.callbacks.ModelCheckpoint("m"),
        "schedule constant": pf.schedules.Constant(0.1),
        "schedule step": pf.schedules.Step(0.1, every=2),
        "schedule exponential": pf.schedules.Exponential(0.1, decay=0.5),
        "schedule cosine": pf.schedules.Cosine(0.1, total_steps=9),
        **{f"optimizer {name}": make() for name, make in BUILT_IN.items()},
    }


def registered() -> dict[str, Any]:
    names = sorted(pf.plugins.registry.registries["optimizers"].names())
    return {name: pf.plugins.registry.registries["optimizers"].get(name) for name in names}


BUILT_IN = {
    name: make for name, make in registered().items() if make.__module__.startswith("pyframe.")
}


@pytest.mark.parametrize("name", objects())
def test_no_public_object_takes_an_attribute_that_nothing_reads(name: str) -> None:
    thing = objects()[name]
    for wrong in ("requires_grad", "traning", "colour", "epochs"):
        with pytest.raises(NoEffectError, match=f"setting '{wrong}' of a .* would have no effect"):
            setattr(thing, wrong, 1)
        assert not hasattr(thing, wrong)
    copied = copy.deepcopy(thing)
    with pytest.raises(AttributeError, match="no effect"):
        copied.requires_grad = False


@pytest.mark.parametrize("name", objects())
def test_what_is_read_only_says_so(name: str) -> None:
    thing = objects()[name]
    for attribute in dir(type(thing)):
        found = getattr(type(thing), attribute)
        if isinstance(found, property) and found.fset is None and attribute[0] != "_":
            with pytest.raises(NoEffectError, match="read-only|no effect"):
                setattr(thing, attribute, None)


@pytest.mark.parametrize(
    ("name", "wrong", "hint"),
    [
        ("optimizer adam", "lr", "did you mean 'learning_rate'"),
        ("optimizer sgd", "clipnorm", "did you mean 'clip_norm'"),
        ("optimizer random_search", "learning_rate", "what can be set is groups"),
        ("plan", "training", "what can be set is seed"),
        ("plan", "optimizer", "compile a new plan"),
        ("plan", "outputs", "outputs="),
        ("plan", "parameters", "compile a new plan"),
        ("plan", "step_count", "read-only"),
        ("parameter", "requires_grad", "did you mean 'trainable'"),
        ("parameter", "inputs", "make a new one"),
        ("placeholder", "shape", "read-only"),
        ("early stopping", "patiance", "did you mean 'patience'"),
        ("schedule cosine", "warm_up_steps", "did you mean 'warmup_steps'"),
        ("schedule step", "gamma", "what can be set is learning_rate, every, factor"),
        ("checkpoint", "save_best", "did you mean 'save_best_only'"),
        ("lambda callback", "functions", "make a new"),
        ("trainer", "epochs", "no such attribute"),
        ("trainer", "epochs_done", "read-only"),
        ("model", "layers", "make a new one"),
    ],
)
def test_the_nearest_right_attribute_is_named(name: str, wrong: str, hint: str) -> None:
    with pytest.raises(NoEffectError, match=hint):
        setattr(objects()[name], wrong, 1)


def test_no_list_takes_what_nothing_reads() -> None:
    t = trainer()
    t.fit(X, Y, 1, verbose=0)
    dense = pf.layers.Dense(1)
    for fixed, item in (
        (t.model.layers, dense),
        (t.plan.parameters, pf.Parameter(0.0)),
        (t.plan.outputs, t.model.outputs[0]),
        (t.plan.metrics, t.model.outputs[0]),
        (t.plan.states, None),
    ):
        kept = list(fixed)
        for change in (
            lambda fixed=fixed, item=item: fixed.append(item),
            lambda fixed=fixed, item=item: fixed.insert(0, item),
            lambda fixed=fixed, item=item: fixed.extend([item]),
            lambda fixed=fixed, item=item: fixed.__iadd__([item]),
            lambda fixed=fixed: fixed.pop(),
            lambda fixed=fixed: fixed.clear(),
        ):
            with pytest.raises(NoEffectError, match="make a new|compile a new|plan.run"):
                change()
        assert list(fixed) == kept
        assert list(copy.copy(fixed)) == kept
    with pytest.raises(NoEffectError, match="make a new"):
        t.model.layers[0] = dense
    with pytest.raises(NoEffectError, match="make a new"):
        del t.model.layers[0]


def test_layers_can_be_changed_until_the_model_is_built() -> None:
    model = pf.Sequential([pf.layers.Dense(4)])
    model.layers.append(pf.layers.Dense(1))
    assert model.predict(X).shape == (32, 1)
    model = pf.Sequential([pf.layers.Dense(4)])
    model.layers = [pf.layers.Dense(2)]
    assert model.predict(X).shape == (32, 2)
    model = pf.Sequential([pf.layers.Dense(4)])
    model.layers.append(pf.layers.Dense)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"Dense\(1\), with parentheses"):
        model.predict(X)
    with pytest.raises(ArgumentError, match="at least one layer"):
        model.layers = []
    loaded = copy.deepcopy(trainer().model)
    with pytest.raises(NoEffectError):
        loaded.layers.pop()


# ---- the options of optimizers ----


def changed(optimizer: Any, option: str) -> Any:
    """Return another value of an option, which changes what a step does."""
    value = getattr(optimizer, option)
    others: dict[str, Any] = {
        "learning_rate": 0.123,
        "clip_value": 1e-3,
        "clip_norm": 1e-3,
        "nonfinite": "skip",
        "betas": (0.5, 0.6),
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


# ---- layers ----


def layers() -> dict[str, Any]:
    """Return the layers of pyframe and of its own plugins."""
    registry = pf.plugins.registry.registries["layers"]
    found = {name: registry.get(name) for name in sorted(registry.names())}
    return {k: v for k, v in found.items() if v.__module__.startswith(("pyframe.", "pyframe_"))}


# The first value is given where there is no default, or where the second needs it.
OPTIONS: dict[str, tuple[Any, Any]] = {
    "name": (None, "other"),
    "units": (3, 5),
    "activation": ("sigmoid", "relu"),
    "bias": (True, False),
    "weight_initializer": (None, "ones"),
    "bias_initializer": ("zeros", 0.5),
    "rate": (0.5, 0.25),
    "momentum": (0.9, 0.5),
    "epsilon": (1e-5, 0.1),
    "filters": (6, 3),
    "groups": (1, 3),
    "kernel_size": (2, 3),
    "stride": (1, 2),
    "padding": (1, 2),
    "dilation": (1, 2),
    "multiplier": (1, 2),
    "pool_size": (3, 4),
    "output_size": (3, 2),
    "factor": (2, 3),
}


def options(make: Any) -> list[str]:
    return list(inspect.signature(make).parameters)


def arguments(make: Any) -> dict[str, Any]:
    return {option: OPTIONS[option][0] for option in options(make)}


def model_of(layer: Any) -> pf.Model:
    pf.set_seed(3)
    return pf.Sequential([layer], input_shape=(*(9, 8, 7)[: getattr(layer, "rank", 0)], 3))


def outcome(model: pf.Model) -> Any:
    shape = [2, *model.inputs[0].shape[1:]]
    return model.predict(np.random.default_rng(0).normal(size=shape))


OF_LAYERS = [(name, option) for name, make in layers().items() for option in options(make)]


@pytest.mark.parametrize(("name", "option"), OF_LAYERS)
def test_an_option_set_on_a_layer_is_as_if_given(name: str, option: str) -> None:
    make, value = layers()[name], OPTIONS[option][1]
    given = {**arguments(make), option: value}
    one, two = make(**arguments(make)), make(**given)
    one.trainable = False
    setattr(one, option, value)
    assert one.config() == two.config() == given
    assert one.path == two.path
    first, second = model_of(one), model_of(two)
    assert (outcome(first) == outcome(second)).all()
    assert first.summary().splitlines()[:-1] == second.summary().splitlines()[:-1]
    assert not any(p.trainable for p in first.parameters)


@pytest.mark.parametrize(("name", "option"), OF_LAYERS)
def test_an_option_of_a_layer_that_makes_no_sense_is_refused(name: str, option: str) -> None:
    make = layers()[name]
    for value in (object(), "foo", -1, 1e9, None, (1, 2, 3, 4)):
        layer = make(**arguments(make))
        before = vars(layer).copy()
        try:
            wanted: Any = make(**{**arguments(make), option: value})
        except pf.PyframeError as error:
            with pytest.raises(type(error)) as refused:
                setattr(layer, option, value)
            assert str(refused.value) == str(error)
            assert vars(layer) == before
        else:
            setattr(layer, option, value)
            assert layer.config() == wanted.config()


@pytest.mark.parametrize("name", layers())
def test_a_built_layer_refuses_what_has_been_read(name: str) -> None:
    make = layers()[name]
    layer = make(**arguments(make))
    model = model_of(layer)
    before, expected = vars(layer).copy(), outcome(model)
    made = [key for key in before if key[0] != "_" and key not in ("name", *options(make))]
    assert {"path", "built", "output_shape", "input_specs"} <= set(made)
    for option in {*options(make), *made} - {"name"}:
        with pytest.raises(NoEffectError, match=f"setting '{option}' of a .* have no effect"):
            setattr(layer, option, OPTIONS.get(option, (0, 0))[1])
    assert vars(layer) == before
    assert (outcome(model) == expected).all()
    layer.name = "other"
    assert model_of(layer).layers[0].path == "other"
    with pytest.raises(ArgumentError, match="layer name"):
        layer.name = "a/b"


WRONG = {
    "kernel",
    "frozen",
    "requires_grad",
    "use_bias",
    "dtype",
    "initializer",
    "trainble",
    "colour",
}


@pytest.mark.parametrize("name", layers())
def test_a_layer_refuses_what_nothing_reads(name: str) -> None:
    make = layers()[name]
    layer, other = make(**arguments(make)), make(**arguments(make))
    model_of(other)
    settable = {*options(make), "name", "trainable"}
    fixed = {key for key in vars(other) if not key.startswith("_")} - settable
    fixed |= {"parameters", "states", "sublayers", "built", "path"}
    for _ in range(2):
        for wrong in WRONG | fixed:
            with pytest.raises(NoEffectError, match=f"setting '{wrong}' of a .* have no effect"):
                setattr(layer, wrong, 1)
            assert wrong in fixed or not hasattr(layer, wrong)
        for wrong in ("frozen", "requires_grad", "trainble"):
            with pytest.raises(NoEffectError, match="did you mean 'trainable'"):
                setattr(layer, wrong, 1)
        for value in ("no", 0, None, np.ones(2)):
            with pytest.raises(ArgumentError, match="True or False"):
                layer.trainable = value
        assert layer.trainable
        layer.trainable = np.False_
        layer.trainable = True
        model_of(layer)


def test_a_layer_names_what_was_meant() -> None:
    layer = pf.layers.Dense(2)
    for wrong, meant in (("kernel", "weight"), ("use_bias", "bias"), ("activaton", "activation")):
        with pytest.raises(NoEffectError, match=f"did you mean '{meant}'"):
            setattr(layer, wrong, 1)
    for _ in range(2):
        with pytest.raises(NoEffectError, match="assign to its value"):
            layer.weight = np.zeros((3, 2))  # type: ignore[assignment]
        model_of(layer)


@pytest.mark.parametrize("value", ["no", 1, None])
def test_trainable_is_true_or_false(value: Any) -> None:
    model = trainer().model
    for thing in (model, model.layers[0], model.parameters[0]):
        with pytest.raises(ArgumentError, match="trainable is .*; it must be True or False"):
            thing.trainable = value
        assert thing.trainable
    with pytest.raises(ArgumentError, match="True or False"):
        pf.Parameter(0.0, trainable=value)


def test_what_was_set_before_building_is_saved(tmp_path: Any) -> None:
    layer = pf.layers.Dense(3)
    layer.activation = "relu"
    model = model_of(layer)
    assert (outcome(model) >= 0).all()
    model.save(tmp_path / "m.pyframe")
    assert (outcome(pf.load(tmp_path / "m.pyframe")) == outcome(model)).all()


class Scaled(pf.Node):
    """Reads its layer's factor in each pass."""

    def __init__(self, x: Any, layer: Any) -> None:
        self.owner = layer
        super().__init__(x)

    def forward(self, ctx: Any, x: Any) -> Any:
        return x * self.owner.factor

    def backward(self, ctx: Any, dy: Any) -> Any:
        return dy * self.owner.factor


class Annealed(pf.layers.Layer):
    def __init__(self, factor: float = 1.0, axis: int = -1, trainable: bool = True) -> None:
        self.trainable = trainable
        super().__init__()
        self.factor, self.axis = factor, axis

    def call(self, *inputs: Any) -> Any:
        if self.axis < 0:
            self.axis += len(inputs[0].shape)
        return Scaled(inputs[0], self)


def test_a_layer_of_ones_own_keeps_what_it_likes() -> None:
    layer = Annealed(trainable=False)
    assert not layer.trainable
    model = pf.Sequential([layer], input_shape=(2,))
    assert layer.axis == 1
    for factor in (1.0, 3.0):
        layer.factor = factor
        assert (model.predict(np.ones((1, 2))) == factor).all()
    layer.temperature = 2
    layer.trainble = 3
    layer(pf.Placeholder("x", shape=(None, 2)))

    class Own(pf.layers.Dense):
        pass

    dense = Own(2)
    dense.note = "mine"
    model_of(dense)
    dense.note = "still"
    for thing in (layer, dense):
        with pytest.raises(NoEffectError, match="no effect; give the layer a name"):
            thing.path = "elsewhere"


# ---- planted faults ----


@pytest.mark.parametrize("moment", ["_data", "_train_on"])
@pytest.mark.parametrize("change", ["trainable", "option"])
def test_a_change_while_a_fit_begins_asks_for_another_fit(
    moment: str, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another thread may make it; nobody here has compiled anything."""
    t, step = trainer(), getattr(pf.Trainer, moment)
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
        patch.setattr(pf.Trainer, moment, and_change)
        with pytest.raises(pf.BusyError, match="another thread has changed it.*fit again"):
            t.fit(X, Y, 1, verbose=0)
    for name, value in t.model.get_weights().items():
        assert (value == before[name]).all()
    assert t.epochs_done == epochs
    assert fit(t) == (ALL - A if change == "trainable" else ALL)


def test_a_plan_made_while_something_changed_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    t, make = trainer(), objective.Goal.objective

    def between(self: Any, *arguments: Any, **options: Any) -> Any:
        freeze_layer(t, False)
        return make(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(objective.Goal, "objective", between)
        t.evaluate(X, Y)
    freeze_layer(t, True)
    assert fit(t) == ALL


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


def test_a_trainer_that_does_not_look_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault planted: the first plan is kept for good."""
    look = pf.Trainer._objective

    def keep(self: Any, weighted: bool) -> Any:
        found = self._objectives.get(weighted)
        return look(self, weighted) if found is None else found

    monkeypatch.setattr(pf.Trainer, "_objective", keep)
    with pytest.raises((AssertionError, pf.BusyError)):
        test_freezing_between_fits_counts_in_both_directions(OPTIMIZERS[1], freeze_layer)
    with pytest.raises((AssertionError, pf.BusyError)):
        test_a_new_optimizer_counts_and_begins_anew()


def test_an_unguarded_attribute_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    for cls in (strict.Strict, pf.layers.Layer):
        monkeypatch.delattr(cls, "__setattr__")
    with pytest.raises(pytest.fail.Exception):
        test_an_attribute_that_nothing_reads_is_refused("optimiser")
    with pytest.raises(pytest.fail.Exception):
        test_what_has_been_read_is_refused()
    for name, option in (("dense", "activation"), ("dropout", "rate"), ("batch_norm", "epsilon")):
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            test_an_option_set_on_a_layer_is_as_if_given(name, option)
            test_an_option_of_a_layer_that_makes_no_sense_is_refused(name, option)
        with pytest.raises(pytest.fail.Exception):
            test_a_built_layer_refuses_what_has_been_read(name)


def test_a_plan_that_does_not_hear_of_options_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pf.optimizers.Optimizer, "on_change", lambda self, method: None)
    for name, option in (("adam", "weight_decay"), ("sgd", "clip_norm"), ("random_search", "low")):
        with pytest.raises(AssertionError):
            test_an_option_that_is_set_has_an_effect_or_is_refused(name, option)


def test_a_list_that_takes_what_nothing_reads_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(strict.FixedList, "append")
    with pytest.raises(pytest.fail.Exception):
        test_no_list_takes_what_nothing_reads()
