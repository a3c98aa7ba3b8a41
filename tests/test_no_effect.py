"""An attribute that nothing reads cannot be set on a public object."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from fit_small import BUILT_IN, X, Y, trainer

import pyframe as pf
from pyframe import strict
from pyframe.errors import ArgumentError, NoEffectError

pytestmark = pytest.mark.once  # it says nothing of a kernel


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
    leaves = {"parameter": pf.Parameter(np.ones(3), name="w"), "state": pf.State(0.0)}
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
        ("schedule step", "gamma", "did you mean 'factor'"),
        ("schedule step", "wavelength", "what can be set is learning_rate, every, factor"),
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
    with pytest.raises(ArgumentError, match=r"Dense\(...\), with parentheses"):
        model.predict(X)
    with pytest.raises(ArgumentError, match="at least one layer"):
        model.layers = []
    loaded = copy.deepcopy(trainer().model)
    with pytest.raises(NoEffectError):
        loaded.layers.pop()


def test_a_list_that_takes_what_nothing_reads_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(strict.FixedList, "append")
    with pytest.raises(pytest.fail.Exception):
        test_no_list_takes_what_nothing_reads()
