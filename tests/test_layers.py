"""Layers: shapes, names, sharing, first values, what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.layers import Activation, BatchNorm, Dense, Dropout, Flatten, Layer, LayerNorm
from pyframe.layers.base import snake_case


def source(*shape: int | None, dtype: str = "float32") -> pf.Placeholder:
    return pf.Placeholder("x", shape=(None, *shape), dtype=dtype)


def test_dense_computes_activation_of_an_affine_map() -> None:
    x = source(3, dtype="float64")
    layer = Dense(2, activation="tanh", bias_initializer=[0.5, -0.5])
    model = pf.Model(x, layer(x))
    data = np.arange(12.0).reshape(4, 3) / 10
    weight, bias = (p.value for p in layer.parameters)
    assert weight.dtype == np.float64
    np.testing.assert_allclose(model.predict(data), np.tanh(data @ weight + bias), rtol=1e-13)


def test_dense_takes_leading_axes_and_no_bias() -> None:
    x = source(5, 3)
    layer = Dense(2, bias=False)
    assert layer(x).shape == (None, 5, 2)
    assert [p.name for p in layer.parameters] == ["dense/weight"]


@pytest.mark.parametrize(
    ("activation", "limit"),
    [("relu", np.sqrt(6 / 200)), ("tanh", np.sqrt(6 / 300)), (None, np.sqrt(6 / 300))],
)
def test_the_first_weights_suit_the_activation(activation: str | None, limit: float) -> None:
    layer = Dense(100, activation=activation)
    layer(source(200))
    largest = np.abs(layer.parameters[0].value).max()
    assert 0.99 * limit < largest <= limit


def test_a_second_call_shares_the_weights() -> None:
    layer = Dense(3)
    x = source(3)
    y = layer(layer(x))
    model = pf.Model(x, y)
    assert len(model.parameters) == 2
    weight, bias = (p.value for p in layer.parameters)
    data = np.ones((2, 3), np.float32)
    expected = (data @ weight + bias) @ weight + bias
    np.testing.assert_allclose(model.predict(data), expected, rtol=1e-5)


def test_a_shared_layer_refuses_another_width_and_names_itself() -> None:
    layer = Dense(3)
    layer(source(4))
    with pytest.raises(pf.ShapeError, match="dense/weight"):
        layer(source(5))


def test_names_are_given_in_the_order_of_use_within_a_model() -> None:
    a, b, c = Dense(4), Dense(4, name="middle"), Dense(4)
    x = source(4)
    model = pf.Model(x, a(b(c(x))))
    assert [layer.path for layer in model.layers] == ["dense", "middle", "dense_1"]
    assert c.parameters[0].name == "dense/weight"
    assert a.parameters[0].name == "dense_1/weight"


def test_first_values_depend_on_seed_and_path_and_not_on_the_order_of_building() -> None:
    def weights(before: bool) -> dict[str, Any]:
        if before:
            pf.Sequential([Dense(7), Dense(7)], input_shape=(3,)).predict(np.ones((1, 3)))
        return pf.Sequential([Dense(4), Dense(4)], input_shape=(4,)).get_weights()

    first, second = weights(False), weights(True)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    assert (first["dense/weight"] != first["dense_1/weight"]).any()
    pf.set_seed(1)
    assert (weights(False)["dense/weight"] != first["dense/weight"]).all()


def test_layers_outside_of_a_model_do_not_begin_alike() -> None:
    a, b = Dense(3), Dense(3)
    x = source(3)
    plan = pf.compile(b(a(x)))
    plan.run({x: np.ones((1, 3))})
    assert (a.parameters[0].value != b.parameters[0].value).any()


def test_two_layers_of_one_name_are_refused() -> None:
    x = source(2)
    with pytest.raises(pf.ArgumentError, match="'twin'"):
        pf.Model(x, Dense(2, name="twin")(Dense(2, name="twin")(x)))


def test_dropout_drops_in_training_only_and_two_of_them_differ() -> None:
    x = source(1000)
    a, b = Dropout(0.5), Dropout(0.5)
    first, second = a(x), b(x)
    model = pf.Model(x, [first, second])
    data = np.ones((1, 1000), np.float32)
    for result in model.predict(data):
        np.testing.assert_array_equal(result, data)
    plan = pf.compile(model.outputs)
    left, right = plan.run({x: data}, training=True)
    assert 400 < (left == 0).sum() < 600
    assert set(np.unique(left)) == {0.0, 2.0}
    assert (left != right).any()


def test_batch_norm_keeps_states_and_layer_norm_none() -> None:
    x = source(3)
    batch, layer = BatchNorm(), LayerNorm()
    model = pf.Model(x, layer(batch(x)))
    assert [s.name for s in model.states] == ["batch_norm/mean", "batch_norm/variance"]
    assert layer.states == []
    assert len(layer.parameters) == 2
    data = np.random.default_rng(0).normal(3, 2, (50, 3))
    trainer = pf.Trainer(model, optimizer=pf.optimizers.SGD(0.0))
    trainer.fit(data, np.zeros((50, 3)), 100, None, verbose=0)
    np.testing.assert_allclose(batch.states[0].value, data.mean(axis=0), rtol=1e-3)


def test_flatten_and_activation() -> None:
    x = source(4, 3)
    y = Activation("sigmoid")(Flatten()(x))
    assert y.shape == (None, 12)
    result = pf.Model(x, y).predict(np.zeros((2, 4, 3)))
    np.testing.assert_array_equal(result, np.full((2, 12), 0.5))


class Block(Layer):
    """Two layers with a shortcut."""

    def __init__(self, units: int, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.units = units
        self.first, self.second = Dense(units, "relu"), Dense(units)

    def call(self, *inputs: pf.Value) -> pf.Value:
        return inputs[0] + self.second(self.first(*inputs))


def test_layers_within_a_layer() -> None:
    x = source(4)
    block = Block(4)
    model = pf.Model(x, Dense(1)(block(x)))
    assert [layer.path for layer in model.layers] == ["block", "dense"]
    assert [p.name for p in block.parameters] == [
        "block/first/weight",
        "block/first/bias",
        "block/second/weight",
        "block/second/bias",
    ]


def test_a_node_named_by_its_layer_keeps_that_name_within_the_path() -> None:
    class Named(Layer):
        def call(self, *inputs: pf.Value) -> pf.Value:
            return pf.Tanh(inputs[0] * 2.0, name="squash")

    x = source(4)
    model = pf.Model(x, Named(name="twice")(Named()(x)))
    pf.Model(x, model.outputs)  # naming anew changes nothing
    names = [n.name for n in model.graph.order if n.inputs]
    assert names == ["named/mul", "named/squash", "twice/mul", "twice/squash"]


def test_config_makes_a_layer_like_it() -> None:
    layer = Dense(3, activation=pf.Relu, bias=False, name="wide")
    twin = Dense.from_config(layer.config())
    assert twin.config() == layer.config()
    assert layer.config()["activation"] == "relu"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Dense(0), pf.ArgumentError, "units is 0"),
        (lambda: Dense(2.5), pf.ArgumentError, "units is 2.5"),  # type: ignore[arg-type]
        (lambda: Dense(True), pf.ArgumentError, "units is True"),
        (lambda: Dense(2, "rellu"), pf.UnknownNameError, "'relu'"),
        (lambda: Dense(2, "linear"), pf.ArgumentError, "more than one input"),
        (lambda: Dense(2, 7), pf.ArgumentError, "neither"),
        (lambda: Dense(2, weight_initializer="he")(source(2)), pf.UnknownNameError, "he_normal"),
        (lambda: Dense(2, weight_initializer=np.ones(3))(source(2)), pf.ShapeError, "dense/weight"),
        (lambda: Dense(2)(pf.Placeholder("x", shape=(None, None))), pf.ShapeError, "last extent"),
        (lambda: Dense(2)(pf.Placeholder("x", shape=(3,))), pf.ShapeError, "dense"),
        (lambda: Dense(2)(np.ones((2, 2))), pf.GraphError, "model.predict"),
        (lambda: Dropout(1.0), pf.ArgumentError, "rate is 1.0"),
        (lambda: Dropout(float("nan")), pf.ArgumentError, "nan"),
        (lambda: BatchNorm(momentum=2), pf.ArgumentError, "momentum is 2"),
        (lambda: BatchNorm()(pf.Placeholder("x")), pf.ShapeError, "batch_norm"),
        (lambda: Activation(None), pf.ArgumentError, "name of an op"),
        (lambda: Dense(2, name="a/b"), pf.ArgumentError, "'a/b'"),
        (lambda: pf.layers.get("dens"), pf.UnknownNameError, "'dense'"),
    ],
)
def test_what_layers_refuse(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_every_registered_layer_is_found_by_name() -> None:
    for name in pf.plugins.registry.registries["layers"]:
        cls = pf.layers.get(name)
        assert issubclass(cls, Layer)
        assert snake_case(cls.__name__).replace("_", "") == name.replace("_", "")


# ---- the weights before an activation ----


def test_the_rectifiers_get_larger_weights():
    expected = {"relu", "leaky_relu", "elu", "gelu", "silu", "softplus", "mish"}
    expected |= {"selu", "celu", "relu6", "hard_swish"}
    ops = pf.plugins.registry.ops
    said = {name for name in ops if getattr(ops.get(name), "rectifies", False)}
    assert said == expected == pf.layers.RECTIFIERS


@pytest.mark.parametrize("rectifies", [False, True])
def test_an_activation_of_ones_own_says_whether_it_rectifies(rectifies):
    class Steep(pf.Node):
        def forward(self, ctx, x):
            return 2 * x

    Steep.rectifies = rectifies
    layer = pf.layers.Dense(400, Steep)
    layer(pf.Placeholder("x", shape=(None, 600)))
    largest = float(np.abs(layer.weight.value).max())
    assert largest == pytest.approx((6 / 600) ** 0.5 if rectifies else (6 / 1000) ** 0.5, rel=1e-2)
