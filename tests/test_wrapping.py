"""Layers made of functions and of other layers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.errors import ArgumentError, CheckpointError, GraphError, ShapeError, UnknownNameError

pytestmark = pytest.mark.once  # it says nothing of a kernel

X = np.random.default_rng(0).normal(size=(6, 4))


def sequential(*layers: Any) -> pf.Sequential:
    pf.set_seed(5)
    return pf.Sequential([*layers, pf.layers.Dense(1)], input_shape=(4,), dtype="float64")


def residual() -> pf.layers.Layer:
    return pf.layers.Residual([pf.layers.Dense(5, "tanh"), pf.layers.Dense(4, name="out")])


def test_a_residual_adds_what_its_layers_make() -> None:
    m = sequential(residual())
    w = m.get_weights()
    block = w["residual/layers_0/weight"], w["residual/layers_0/bias"]
    out = w["residual/out/weight"], w["residual/out/bias"]
    h = X + np.tanh(X @ block[0] + block[1]) @ out[0] + out[1]
    np.testing.assert_allclose(m.predict(X), h @ w["dense/weight"] + w["dense/bias"], rtol=1e-12)


def test_a_residual_takes_one_layer_and_models() -> None:
    inner = pf.Sequential([pf.layers.Dense(3), pf.layers.Dense(4)], dtype="float64")
    m = sequential(pf.layers.Residual(pf.layers.Dense(4)), pf.layers.Residual(inner))
    assert m.predict(X).shape == (6, 1)
    assert len(m.parameters) == 2 + 4 + 2
    m.layers[0].trainable = False
    assert sum(p.trainable for p in m.parameters) == 6


@pytest.mark.parametrize("wrong", [[], [pf.layers.Dense(2), abs], "dense", None])
def test_what_is_no_layer_is_refused(wrong: Any) -> None:
    with pytest.raises(ArgumentError, match="Residual takes layers"):
        pf.layers.Residual(wrong)


def test_a_residual_wants_its_shape_back() -> None:
    layer = pf.layers.Residual(pf.layers.Dense(3))
    with pytest.raises(ShapeError, match=r"gives?, \(\?, 3\), to what they get, \(\?, 4\)"):
        layer(pf.Placeholder("x", shape=(None, 4)))


def test_it_is_saved_with_what_is_in_it(tmp_path: Path) -> None:
    deep = pf.layers.Residual([residual(), pf.layers.Dense(4, weight_regularizer="l2")])
    m = sequential(deep)
    pf.Trainer(m, "l2", "adam").fit(X, X[:, :1], 3, 2, verbose=0)
    m.save(tmp_path / "m.pyframe")
    loaded = pf.load(tmp_path / "m.pyframe")
    assert (loaded.predict(X) == m.predict(X)).all()
    assert [p.name for p in loaded.parameters] == [p.name for p in m.parameters]
    assert type(loaded.layers[0]) is pf.layers.Residual
    x = pf.Placeholder("x", shape=(None, 4), dtype="float64")
    again = pf.Model([x], [loaded.layers[0](x)])
    before = pf.Model([x], [m.layers[0](x)])
    assert (again.predict(X) == before.predict(X)).all()
    loaded.layers[0].parameters[0].value = np.zeros((4, 5))  # it is that of both
    assert (again.parameters[0].value == 0).all()


class Own(pf.layers.Layer):
    def call(self, *inputs: Any) -> Any:
        return inputs[0] * 2.0


def test_a_layer_of_ones_own_within(tmp_path: Path) -> None:
    m = sequential(pf.layers.Residual(Own()))
    m.save(tmp_path / "m.pyframe")
    loaded = pf.load(tmp_path / "m.pyframe", custom_ops={"Own": Own})
    assert isinstance(loaded.layers[0].layers[0], Own)
    with pytest.raises(CheckpointError, match="Own"):
        pf.load(tmp_path / "m.pyframe")


def test_an_estimator_copies_it_without_its_weights() -> None:
    pytest.importorskip("sklearn")
    from pyframe.estimators import NetRegressor

    net = NetRegressor([residual()], epochs=2, random_state=0)
    one = net.fit(X, X[:, 0]).predict(X)
    assert (one == net.fit(X, X[:, 0]).predict(X)).all()


def test_weight_norm_begins_as_the_layer_would() -> None:
    m = sequential(pf.layers.WeightNorm(pf.layers.Dense(5, "tanh", name="in")))
    w = m.get_weights()
    assert {k: v.shape for k, v in w.items()} == {
        "weight_norm/scale": (5,),
        "weight_norm/in/weight": (4, 5),
        "weight_norm/in/bias": (5,),
        "dense/weight": (5, 1),
        "dense/bias": (1,),
    }
    h = np.tanh(X @ w["weight_norm/in/weight"] + w["weight_norm/in/bias"])
    np.testing.assert_allclose(m.predict(X), h @ w["dense/weight"], rtol=1e-12)
    m.parameters[m.parameters.index(m.layers[0].parameters[0])].value = np.full(5, 2.0)
    unit = w["weight_norm/in/weight"] / np.linalg.norm(w["weight_norm/in/weight"], axis=0)
    np.testing.assert_allclose(m.predict(X), np.tanh(X @ unit * 2) @ w["dense/weight"], rtol=1e-12)


def test_two_weight_norms_of_one_shape_begin_differently() -> None:
    m = sequential(*[pf.layers.WeightNorm(pf.layers.Dense(4)) for _ in range(2)])
    w = m.get_weights()
    assert (w["weight_norm/layer/weight"] != w["weight_norm_1/layer/weight"]).all()
    assert (w["weight_norm/scale"] != w["weight_norm_1/scale"]).all()


def test_weight_norm_is_trained_saved_copied_and_set_anew(tmp_path: Path) -> None:
    layer = pf.layers.WeightNorm(pf.layers.Dense(2))
    layer.layer = pf.layers.Dense(5, weight_regularizer="l2")
    m = sequential(layer)
    assert len(layer.parameters) == 3
    before = m.get_weights()
    pf.Trainer(m, "l2", "adam").fit(X, X[:, :1], 3, 2, verbose=0)
    assert all((m.get_weights()[k] != v).any() for k, v in before.items())
    m.save(tmp_path / "m.pyframe")
    for twin in (pf.load(tmp_path / "m.pyframe"), copy.deepcopy(m)):
        assert (twin.predict(X) == m.predict(X)).all()
        x = pf.Placeholder("x", shape=(None, 4), dtype="float64")
        again = pf.Model([x], [twin.layers[0](x)])
        assert len(again.parameters) == 3
        h = again.predict(X)
        for p in again.parameters:  # they are those of the twin, and not of the first
            p.value = 2 * p.value
        assert not np.allclose(again.predict(X), h) and not (twin.predict(X) == m.predict(X)).all()
    layer.trainable = False
    assert sum(p.trainable for p in m.parameters) == 2


def test_what_weight_norm_refuses() -> None:
    x = pf.Placeholder("x", shape=(None, 4))
    dense = pf.layers.Dense(3)
    dense(x)
    with pytest.raises(GraphError, match="not built yet"):
        pf.layers.WeightNorm(dense)
    with pytest.raises(ArgumentError, match="takes a layer, and"):
        pf.layers.WeightNorm(abs)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="the parameters of LayerNorm are: scale, shift"):
        pf.layers.WeightNorm(pf.layers.LayerNorm())(x)
    with pytest.raises(GraphError, match="with its 'weight' as it is"):
        dense.compute_parameter("weight", abs)


def test_spectral_norm_finds_the_largest_singular_value() -> None:
    m = sequential(pf.layers.SpectralNorm(pf.layers.Dense(5)))
    layer = m.layers[0]
    weight, (state,) = layer.layer.parameters[0], layer.states
    t = pf.Trainer(m, "l2", pf.optimizers.SGD(0.0))
    first = state.value.copy()
    t.fit(X, X[:, :1], 100, 6, verbose=0)
    u, sizes, _ = np.linalg.svd(weight.value.T)
    assert abs(state.value[:, 0] @ u[:, 0]) == pytest.approx(1, rel=1e-9)
    w = m.get_weights()
    h = X @ (weight.value / sizes[0]) + w["spectral_norm/layer/bias"]
    np.testing.assert_allclose(m.predict(X), h @ w["dense/weight"], rtol=1e-9)
    assert (first != state.value).all()


def test_spectral_norm_takes_one_step_of_power_iteration_a_step() -> None:
    m = sequential(pf.layers.SpectralNorm(pf.layers.Dense(5)))
    weight, (state,) = m.layers[0].layer.parameters[0], m.layers[0].states
    y = pf.Placeholder("y", shape=(None, 1), dtype="float64")
    plan = pf.compile(pf.L2Loss(y, m.outputs[0]), optimizer=pf.optimizers.SGD(0.1))
    for _ in range(3):
        v = weight.value @ state.value
        u = weight.value.T @ v
        plan.step({m.inputs[0]: X, y: X[:, :1]})
        np.testing.assert_allclose(state.value, u / np.linalg.norm(u), rtol=1e-12)
    kept = state.value.copy()
    m.predict(X), plan.run({m.inputs[0]: X}, m.outputs[0], training=True)
    assert (state.value == kept).all()
    m.layers[0].trainable = False
    assert state.frozen


def value_and_slopes(m: pf.Model) -> tuple[Any, dict[str, Any]]:
    """Return the outputs, and the gradients of their sum of squares from 1, by name."""
    plan = pf.compile(pf.L2Loss(np.ones((6, 1)), m.outputs[0]))
    _, slopes = plan.loss_and_gradients({m.inputs[0]: X})
    return m.predict(X), {p.name: slopes[p] for p in m.parameters}


@pytest.mark.parametrize("kind", ["WeightNorm", "SpectralNorm"])
@pytest.mark.parametrize("tiny", [0.0, 1e-200])
def test_weights_of_zeros_are_those_of_the_layer_itself(kind: str, tiny: float) -> None:
    """No NaN in values, gradients, states, nor after updates, in which they grow."""
    zeros = np.full((4, 1), tiny)
    inner, plain = (pf.layers.Dense(1, weight_initializer=zeros, name="in") for _ in range(2))
    wrapped, plain = (
        pf.Sequential([layer], input_shape=(4,), dtype="float64")
        for layer in (getattr(pf.layers, kind)(inner), plain)
    )
    path = pf.layers.base.snake_case(kind)
    (value, slopes), (wanted, gradients) = value_and_slopes(wrapped), value_and_slopes(plain)
    np.testing.assert_array_equal(value, wanted)
    np.testing.assert_array_equal(slopes[f"{path}/in/weight"], gradients["in/weight"])
    assert np.abs(gradients["in/weight"]).min() > 0.01
    assert all(np.isfinite(slope).all() for slope in slopes.values())
    states = [s.value.copy() for s in wrapped.states]
    trainer = pf.Trainer(wrapped, "l2", pf.optimizers.SGD(0.1))
    trainer.fit(X, X[:, :1], 1, 6, verbose=0)
    for state, before in zip(wrapped.states, states, strict=True):
        np.testing.assert_array_equal(state.value, before)  # there was nothing to find
    trainer.fit(X, X[:, :1], 3, 6, verbose=0)
    weight = wrapped.get_weights()[f"{path}/in/weight"]
    assert np.isfinite(wrapped.predict(X)).all() and np.abs(weight).max() > 0.01


def test_weight_norm_of_one_unit_of_zeros() -> None:
    """The others are as ever; a scale that is set to 0 lets w grow from there."""
    weight = np.array([[1.0, 0.0], [2.0, 0.0], [0.5, 0.0], [3.0, 0.0]])
    dense = pf.layers.Dense(2, weight_initializer=weight, name="in")
    m = pf.Sequential([pf.layers.WeightNorm(dense)], input_shape=(4,), dtype="float64")
    np.testing.assert_allclose(m.predict(X), X @ weight, rtol=1e-12)
    weights = m.get_weights()
    np.testing.assert_allclose(
        weights["weight_norm/scale"], [np.linalg.norm(weight[:, 0]), 1.0], rtol=1e-12
    )
    m.set_weights({"weight_norm/scale": np.zeros(2), "weight_norm/in/weight": weight + 1})
    assert (m.predict(X) == 0).all()
    pf.Trainer(m, "l2", pf.optimizers.SGD(0.01)).fit(X, X[:, :2], 1, 6, verbose=0)
    assert 0 < np.abs(m.predict(X)).max() < 0.2


def test_spectral_norm_is_saved_with_its_state(tmp_path: Path) -> None:
    m = sequential(pf.layers.SpectralNorm(pf.layers.Dense(5, "relu")))
    t = pf.Trainer(m, "l2", "adam")
    t.fit(X, X[:, :1], 3, 2, seed=1, verbose=0)
    t.save(tmp_path / "t.pyframe")
    loaded = pf.Trainer.load(tmp_path / "t.pyframe")
    assert (loaded.model.states[0].value == m.states[0].value).all()
    assert (loaded.model.predict(X) == m.predict(X)).all()
    for one in (t, loaded):
        one.fit(X, X[:, :1], 2, 2, seed=2, verbose=0)
    assert (loaded.model.predict(X) == m.predict(X)).all()
    assert (loaded.model.states[0].value == m.states[0].value).all()


def test_a_lambda_takes_ops_names_and_functions(tmp_path: Path) -> None:
    m = sequential(pf.layers.Lambda("square"), pf.layers.Lambda(pf.Mish))
    by_hand = sequential(pf.layers.Activation("square"), pf.layers.Activation("mish"))
    assert (m.predict(X) == by_hand.predict(X)).all()
    m.save(tmp_path / "m.pyframe")
    loaded = pf.load(tmp_path / "m.pyframe")
    assert [type(layer).__name__ for layer in loaded.layers] == ["Lambda", "Lambda", "Dense"]
    x, z = (pf.Placeholder(name, shape=(None, 4)) for name in "xz")
    y = pf.layers.Lambda(lambda a, b: a * b + 1.0)(x, z)
    assert (pf.compile(y).run({x: X, z: X}) == np.float32(X) ** 2 + 1).all()


def test_a_function_of_ones_own_is_saved_as_its_nodes(tmp_path: Path) -> None:
    m = sequential(pf.layers.Lambda(lambda x: x * 3.0 + 1.0))
    m.save(tmp_path / "m.pyframe")
    loaded = pf.load(tmp_path / "m.pyframe")
    assert (loaded.predict(X) == m.predict(X)).all()
    with pytest.raises(CheckpointError, match="this layer cannot be called on other nodes"):
        loaded.layers[0](pf.Placeholder("x", shape=(None, 4)))


def test_what_a_lambda_refuses() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'square'"):
        pf.layers.Lambda("sqare")
    with pytest.raises(ArgumentError, match="neither a name nor callable"):
        pf.layers.Lambda(3)
    with pytest.raises(GraphError, match="gives 3.0, and no node"):
        pf.layers.Lambda(lambda x: 3.0)(pf.Placeholder("x", shape=(None, 4)))


@pytest.mark.parametrize("shapes", [((4,), (3,)), ((2, 3, 4), (2, 3, 5)), ((2, 4), (2, 4))])
def test_bilinear(shapes: Any) -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.normal(size=(5, *shape)) for shape in shapes)
    x, z = (
        pf.Placeholder(name, shape=(None, *shape), dtype="float64")
        for name, shape in zip("xz", shapes, strict=True)
    )
    layer = pf.layers.Bilinear(6, bias_initializer="normal")
    plan = pf.compile(layer(x, z))
    w, bias = (p.value for p in layer.parameters)
    wanted = np.einsum("...i,ijk,...j->...k", a, w, b) + bias
    np.testing.assert_allclose(plan.run({x: a, z: b}), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "shapes", [((None, 4),), ((None, 4), (None, None)), ((None, 2, 4), (None, 3, 4)), ((4,), (4,))]
)
def test_inputs_that_bilinear_refuses(shapes: Any) -> None:
    with pytest.raises(ShapeError, match="takes two inputs"):
        pf.layers.Bilinear(2)(*[pf.Placeholder(f"x{i}", shape=s) for i, s in enumerate(shapes)])
