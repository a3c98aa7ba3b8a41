"""Options of layers: what is set has an effect, or is refused."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import numpy as np
import pytest
import test_no_effect
from fit_small import trainer

import pyframe as pf
from pyframe import strict
from pyframe.errors import ArgumentError, NoEffectError
from pyframe.layers.base import snake_case

pytestmark = pytest.mark.once  # it says nothing of a kernel


def layers() -> dict[str, Any]:
    """Return the layers of pyframe and of pyframe-cnn, if that is there."""
    registry = pf.plugins.registry.registries["layers"]
    found = {name: registry.get(name) for name in sorted(registry.names())}
    return {k: v for k, v in found.items() if v.__module__.startswith(("pyframe.", "pyframe_cnn."))}


# The first value is given where there is no default, or where the second needs it.
OPTIONS: dict[str, tuple[Any, Any]] = {
    "name": (None, "other"),
    "units": (3, 5),
    "activation": ("sigmoid", "relu"),
    "bias": (True, False),
    "weight_initializer": (None, "ones"),
    "bias_initializer": ("zeros", 0.5),
    "rate": (0.5, 0.25),
    "std": (0.5, 0.25),
    "function": ("square", "relu"),
    "layer": (pf.layers.Dense(3), pf.layers.Dense(5)),
    "layers": ([pf.layers.Dense(3)], [pf.layers.Dense(5), pf.layers.Dense(3)]),
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
    "vocabulary": (9, 5),
    "padding_index": (None, 2),
    "dtype": ("float32", "float64"),
    "pieces": (2, 3),
    "initializer": (0.25, 0.5),
    "shared": (False, True),
    "sparse": (True, False),
    "affine": (True, False),
    "axis": (-1, 1),
    "shape": ((3, 8), (4, -1)),
    "axes": ((1, 2), (2, 1)),
    "times": (2, 3),
    "weight_regularizer": (None, pf.regularizers.L2(0.1)),
    "bias_regularizer": (None, pf.regularizers.L1(0.1)),
    "weight_constraint": (None, pf.constraints.MaxNorm(0.5)),
    "bias_constraint": (None, pf.constraints.MaxNorm(0.5)),
    "regularizer": (None, pf.regularizers.L2(0.1)),
    "constraint": (None, pf.constraints.MaxNorm(0.5)),
    "scale_regularizer": (None, pf.regularizers.L2(0.1)),
    "shift_regularizer": (None, pf.regularizers.L1(0.1)),
    "scale_constraint": (None, pf.constraints.MaxNorm(0.5)),
    "shift_constraint": (None, pf.constraints.MaxNorm(0.5)),
}
RANKS = {"spatial_dropout": 1, "reshape": 1, "permute": 1, "concatenate": 1}


def options(make: Any) -> list[str]:
    return list(inspect.signature(make).parameters)


def arguments(make: Any) -> dict[str, Any]:
    own = {key: p.default for key, p in inspect.signature(make).parameters.items()}
    given = {option: copy.deepcopy(OPTIONS[option][0]) for option in options(make)}
    needs = {key for key, value in own.items() if isinstance(value, str)}  # None is no default
    return {k: own[k] if v is None and k in needs else v for k, v in given.items()}


def model_of(layer: Any) -> pf.Model:
    pf.set_seed(3)
    if isinstance(layer, pf.layers.Embedding):
        return pf.Sequential([layer], input_shape=(4,), dtype=layer.dtype)
    name = snake_case(type(layer).__name__)
    rank = getattr(layer, "rank", RANKS.get(name, 0))
    shape = (*((8,) if name in RANKS else (9, 8, 7)[:rank]), 3)
    first = layer.cases()[0][0] if hasattr(layer, "cases") and layer.cases() else (4, 3)
    count = len(first) if isinstance(first[0], tuple) else 1
    if count == 1:
        return pf.Sequential([layer], input_shape=shape)
    inputs = [pf.Placeholder(f"x{i}", shape=(None, *shape)) for i in range(count)]
    return pf.Model(inputs, [layer(*inputs)])


def outcome(model: pf.Model) -> Any:
    rng = np.random.default_rng(0)
    feed = []
    for x in model.inputs:
        size = [2, *x.shape[1:]]
        feed.append(rng.integers(0, 5, size) if x.dtype.kind == "i" else rng.normal(size=size))
    return model.predict(feed[0] if len(feed) == 1 else feed)


OF_LAYERS = [(name, option) for name, make in layers().items() for option in options(make)]


@pytest.mark.parametrize(("name", "option"), OF_LAYERS)
def test_an_option_set_on_a_layer_is_as_if_given(name: str, option: str) -> None:
    make, value = layers()[name], copy.deepcopy(OPTIONS[option][1])
    own = arguments(make)
    given = {**own, option: value}
    one, two = make(**own), make(**given)
    one.trainable = False
    setattr(one, option, value)
    assert one.config() == two.config() == given
    assert one.path == two.path
    two = copy.deepcopy(two)  # layers among the arguments are those of both
    first, second = model_of(one), model_of(two)
    assert (outcome(first) == outcome(second)).all()
    assert first.summary().rows == second.summary().rows
    assert not any(p.trainable for p in first.parameters)


@pytest.mark.parametrize(("name", "option"), OF_LAYERS)
def test_an_option_of_a_layer_that_makes_no_sense_is_refused(name: str, option: str) -> None:
    make = layers()[name]
    for value in (object(), "foo", -1, 1e9, None, (1, 2, 3, 4)):
        own = arguments(make)
        layer = make(**own)
        before = vars(layer).copy()
        try:
            wanted: Any = make(**{**own, option: value})
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
        for wrong in (WRONG | fixed) - settable:
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


def test_an_unguarded_attribute_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    for cls in (strict.Strict, pf.layers.Layer):
        monkeypatch.delattr(cls, "__setattr__")
    with pytest.raises(pytest.fail.Exception):
        test_no_effect.test_an_attribute_that_nothing_reads_is_refused("optimiser")
    with pytest.raises(pytest.fail.Exception):
        test_no_effect.test_what_has_been_read_is_refused()
    for name, option in (("dense", "activation"), ("dropout", "rate"), ("batch_norm", "epsilon")):
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            test_an_option_set_on_a_layer_is_as_if_given(name, option)
            test_an_option_of_a_layer_that_makes_no_sense_is_refused(name, option)
        with pytest.raises(pytest.fail.Exception):
            test_a_built_layer_refuses_what_has_been_read(name)
