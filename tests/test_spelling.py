"""What users of other frameworks type, and what they are told."""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe import callbacks, layers, schedules
from pyframe.optimizers import SGD, Adam
from pyframe.plugins.registry import registries
from pyframe.spelling import ELSEWHERE, INSTEAD, THERE

pytestmark = pytest.mark.once  # it says nothing of a kernel

X, Y = np.ones((8, 3), "f4"), np.ones((8, 1), "f4")


def trainer(**options: Any) -> pf.Trainer:
    return pf.Trainer(pf.Sequential([layers.Dense(1)]), **options)


ANSWERS: dict[str, tuple[Any, str]] = {
    "kernel_initializer": (
        lambda: layers.Dense(2, kernel_initializer="ones"),
        "weight_initializer=",
    ),
    "use_bias": (lambda: layers.Dense(2, use_bias=False), "write bias="),
    "in_features": (lambda: layers.Dense(in_features=3, units=2), "from the first input"),
    "out_features": (lambda: layers.Dense(out_features=2), "write units="),
    "input_shape": (lambda: layers.Dense(2, input_shape=(3,)), r"Sequential\(..., input_shape=\)"),
    "p": (lambda: layers.Dropout(p=0.5), "write rate="),
    "eps": (lambda: layers.LayerNorm(eps=1e-6), "write epsilon="),
    "num_groups": (lambda: layers.GroupNorm(num_groups=2), "write groups="),
    "input_dim": (lambda: layers.Embedding(input_dim=9, units=2), "write vocabulary="),
    "padding_idx": (lambda: layers.Embedding(9, 2, padding_idx=0), "write padding_index="),
    "lr": (lambda: SGD(lr=0.1), "SGD has no argument 'lr'; write learning_rate="),
    "beta_1": (lambda: Adam(beta_1=0.9), "write betas="),
    "clipnorm": (lambda: Adam(clipnorm=1.0), "write clip_norm="),
    "params": (lambda: Adam(params=[]), "a plan or a Trainer hands them to it"),
    "step_size": (lambda: schedules.Step(0.1, step_size=10), "write every="),
    "gamma": (lambda: schedules.Step(0.1, 10, gamma=0.5), "write factor="),
    "T_max": (lambda: schedules.Cosine(0.1, T_max=100), "write total_steps="),
    "min_lr": (lambda: callbacks.ReduceLROnPlateau(min_lr=1e-5), "write min_learning_rate="),
    "filepath": (lambda: callbacks.ModelCheckpoint(filepath="m"), "write path="),
    "restore_best_weights": (
        lambda: callbacks.EarlyStopping(restore_best_weights=True),
        "write restore_best=",
    ),
    "criterion": (lambda: trainer(criterion="mse"), "write loss="),
    "x": (lambda: trainer().fit(x=X, Y=Y), "fit has no argument 'x'; write X="),
    "max_epochs": (lambda: trainer().fit(X, Y, max_epochs=2), "write epochs="),
    "class_weight": (lambda: trainer().fit(X, Y, class_weight={}), "sample_weight"),
    "bs": (lambda: trainer().evaluate(X, Y, bs=2), "evaluate has no argument 'bs'"),
    "lr_scheduler": (lambda: trainer().fit(X, Y, lr_scheduler=None), "write schedule="),
    "requires_grad": (lambda: pf.Parameter(1.0, requires_grad=False), "write trainable="),
    "batch_shape": (lambda: pf.Placeholder("x", batch_shape=(3,)), "write shape="),
    "unit": (lambda: layers.Dense(unit=2), "write units="),
    "nothing": (lambda: layers.Flatten(nothing=2), "its arguments are name"),
}


@pytest.mark.parametrize("written", ANSWERS)
def test_an_argument_of_another_framework_is_answered(written: str) -> None:
    call, answer = ANSWERS[written]
    with pytest.raises(pf.UnknownArgumentError, match=answer) as caught:
        call()
    assert repr(written) in str(caught.value)
    assert isinstance(caught.value, TypeError)


def test_subclasses_and_functions_answer_in_their_own_name() -> None:
    class Narrow(layers.Dense):
        def __init__(self, units: int, *, name: str | None = None) -> None:
            super().__init__(units, "tanh", name=name)

    with pytest.raises(pf.UnknownArgumentError, match="Narrow has no argument 'bias'"):
        Narrow(3, bias=False)  # type: ignore[call-arg]
    with pytest.raises(pf.UnknownArgumentError, match="compile has no argument 'lr'"):
        pf.compile(pf.Placeholder("x", shape=(3,)), lr=0.1)  # type: ignore[call-arg]


def test_other_type_errors_stay() -> None:
    class Broken(layers.Layer):
        def __init__(self, *, name: str | None = None) -> None:
            super().__init__(name=name)
            len(3)  # type: ignore[arg-type]

    with pytest.raises(TypeError, match="has no len") as caught:
        Broken()
    assert not isinstance(caught.value, pf.PyframeError)
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        layers.Dense()  # type: ignore[call-arg]


def known_arguments() -> set[str]:
    """Return every name of an argument that there is to point to."""
    made = [r.get(name) for kind, r in registries.items() if kind != "ops" for name in r.names()]
    made += [pf.Trainer, pf.Trainer.fit, pf.compile, pf.Sequential, pf.Parameter, pf.Placeholder]
    made += [getattr(initializer, "__wrapped__", initializer) for initializer in made]
    return {key for thing in made if callable(thing) for key in inspect.signature(thing).parameters}


def test_every_answer_points_to_something() -> None:
    """Some answers belong to the convolutions, which a package of its own brings."""
    of_convolutions = {"dilation", "filters", "kernel_size", "padding", "stride"}
    attributes = {"custom_ops", "weight", "trainable", "weight_constraint", "weight_regularizer"}
    known = known_arguments() | of_convolutions | attributes
    for written, names in ELSEWHERE.items():
        assert set(names) & known, written
        assert written not in names
    assert all(INSTEAD.values())


def owner(name: str) -> Any:
    """Return the function that takes the arguments of a class or method."""
    rooms = (pf.layers, pf.callbacks, pf.schedules, pf)
    made, _, method = name.partition(".")
    found = next(getattr(room, made) for room in rooms if hasattr(room, made))
    return getattr(found, method or "__init__")


@pytest.mark.parametrize("name", THERE)
def test_an_answer_of_one_thing_is_of_an_argument_that_it_has_not(name: str) -> None:
    known = inspect.signature(owner(name)).parameters
    for written, told in THERE[name].items():
        assert written not in known
        for own in re.findall(r"write (\w+)=", told):
            assert own in known, told


def test_an_answer_is_of_the_thing_that_was_given_the_argument() -> None:
    """What the same name means elsewhere is not told, and what is told does as it says."""
    x = pf.Placeholder("x", shape=(None,), dtype="int64")
    answers = [
        (lambda: layers.Embedding(9, 2, max_norm=1.0), r"MaxNorm\(max_norm, axis=-1\)"),
        (lambda: Adam(max_norm=1.0), "write clip_norm="),
        (lambda: trainer().evaluate(X, Y, return_dict=False), "always returns a dict"),
        (lambda: trainer().evaluate(X, Y, verbose=0), "it shows nothing"),
        (lambda: callbacks.EarlyStopping(verbose=1), "give it to fit"),
        (lambda: schedules.OneCycle(0.1, 10, optimizer=None), "give the optimizer the schedule"),
        (lambda: trainer().fit(X, Y, optimizer="sgd"), "give it to the Trainer"),
        (lambda: schedules.Cosine(0.1, 10, alpha=0.1), r"alpha \* learning_rate"),
        (lambda: pf.optimizers.RMSProp(alpha=0.9), "write rho="),
        (lambda: pf.Sequential(trainable=False), "model.trainable = False"),
        (lambda: layers.Dense(2, trainable=False), "layer.trainable = False"),
    ]
    for call, told in answers:
        with pytest.raises(pf.UnknownArgumentError, match=told):
            call()
    limit = pf.constraints.MaxNorm(0.03, axis=-1)
    layer = layers.Embedding(9, 2, weight_constraint=limit)
    model = pf.Model(x, layer(x))
    pf.Trainer(model, optimizer="sgd").fit(np.arange(9), np.ones((9, 2)), 3, verbose=0)
    lengths = np.linalg.norm(layer.parameters[0].value, axis=1)
    assert (lengths < 0.03 + 1e-6).all() and (lengths > 0.029).any()
