"""Models as parts of models and layers, and layers as what a model is made of."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.checkpoint.container import read_arrays, read_header, serialize
from pyframe.graph.autodiff import differentiate
from pyframe.graph.order import Graph
from pyframe.layers import BatchNorm, Concatenate, Dense, Dot, Dropout, Layer, Reshape

pytestmark = pytest.mark.once  # it says nothing of a kernel

X = np.random.default_rng(0).normal(size=(6, 4)).astype("f4")
Y = X[:, :1] * 2


def inner() -> pf.Sequential:
    return pf.Sequential([Dense(8, "tanh"), BatchNorm(), Dense(3)])


def graph() -> pf.Model:
    """Return a model of two outputs, with a parameter of no layer."""
    a = pf.Placeholder("a", shape=(None, 4))
    h = Dense(4, "tanh")(a * pf.Parameter(np.ones(4), "gain"))
    return pf.Model(a, [h, Dense(2)(h)])


def around(model: pf.Model) -> pf.Model:
    b = pf.Placeholder("b", shape=(None, 4))
    out = model(b)
    return pf.Model(b, Concatenate()(*out) if isinstance(out, list) else Dense(1)(out))


class Block(Layer):
    """x + f(x), f being a model that it makes."""

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.inner = pf.Sequential([Dense(4, "relu"), Dense(4)])

    def call(self, *inputs: pf.Value) -> pf.Value:
        (x,) = inputs
        y: pf.Value = self.inner(x)
        return x + y


class Fixed(Layer):
    """A layer that holds a graph, with the parameters that it had from the beginning."""

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name=name)
        a = pf.Placeholder("a", shape=(None, 4))
        self.inner = pf.Model(a, Dense(4)(a))

    def call(self, *inputs: pf.Value) -> pf.Value:
        y: pf.Value = self.inner(*inputs)
        return y


# ---- called ----


@pytest.mark.parametrize("make", [inner, graph])
def test_called_on_arrays_it_predicts(make: Any) -> None:
    model = make()
    got, wanted = model(X), model.predict(X)
    assert type(got) is type(wanted)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_several_inputs_are_taken_one_by_one_or_as_a_list() -> None:
    a, b = pf.Placeholder("a", shape=(None, 4)), pf.Placeholder("b", shape=(None, 4))
    model = pf.Model([a, b], a - b)
    np.testing.assert_array_equal(model(X, 2 * X), -X)
    np.testing.assert_array_equal(model([X, 2 * X]), -X)
    c = pf.Placeholder("c", shape=(None, 4))
    for made in (model(c, c * 3.0), model([c, c * 3.0])):
        np.testing.assert_allclose(pf.Model(c, made)(X), -2 * X, rtol=1e-6)


@pytest.mark.parametrize("make", [inner, graph])
def test_called_on_nodes_it_shares_its_parameters(make: Any) -> None:
    model = make()
    whole = around(model)
    assert set(model.parameters) <= set(whole.parameters)
    before = whole.predict(X)
    pf.Trainer(whole, optimizer=pf.optimizers.SGD(0.1)).fit(X, whole(X) + 1, epochs=3, verbose=0)
    assert np.abs(whole.predict(X) - before).max() > 0.01
    if make is graph:
        np.testing.assert_allclose(np.concatenate(model(X), 1), whole(X), rtol=1e-6)
    else:
        last = whole.layers[-1].parameters
        np.testing.assert_allclose(
            model(X) @ last[0].value + last[1].value, whole(X), rtol=1e-5, atol=1e-6
        )


def test_a_frozen_model_stays_as_it_is_within_another() -> None:
    base = inner()
    whole = pf.Sequential([base, Dense(1)], input_shape=(4,))
    base.trainable = False
    assert [p.name for p in whole.parameters if p.trainable] == ["dense/weight", "dense/bias"]
    before = [p.value.copy() for p in base.parameters]
    pf.Trainer(whole).fit(X, Y, epochs=2, verbose=0)
    for parameter, value in zip(base.parameters, before, strict=True):
        np.testing.assert_array_equal(parameter.value, value)


def test_what_does_not_fit_is_said() -> None:
    model = graph()
    node = pf.Placeholder("q", shape=(None, 4))
    for make, kind, says in [
        (lambda: model(node, node), pf.GraphError, "takes 1 node"),
        (lambda: model(pf.Placeholder("q", shape=(None, 5))), pf.ShapeError, r"got q .*5"),
        (lambda: model(pf.Placeholder("q", shape=(None, 4, 1))), pf.ShapeError, "got q"),
        (
            lambda: model(pf.Placeholder("q", shape=(None, 4), dtype="float64")),
            pf.DTypeError,
            "float64",
        ),
        (lambda: model(X, node), pf.GraphError, "takes nodes and got ndarray"),
        (lambda: inner()(pf.Placeholder("q", shape=())), pf.ShapeError, "takes rows"),
        (lambda: pf.Sequential()(node), pf.ArgumentError, "at least one layer"),
    ]:
        with pytest.raises(kind, match=says):
            make()


class Twice(pf.Node):
    """2 x, in Python."""

    def forward(self, *args: Any) -> Any:
        return 2 * args[1]

    def backward(self, *args: Any) -> Any:
        return 2 * args[1]


@pytest.mark.parametrize("make", [lambda x: pf.Dropout(x, rate=0.5), Twice], ids=["op", "python"])
def test_a_gradient_is_not_had_on_other_inputs(make: Any) -> None:
    x = pf.Placeholder("x", shape=(None, 4))
    cost = pf.Sum(make(x))
    slopes = differentiate(cost, Graph([cost]).order, {x})
    with pytest.raises(pf.GraphError, match="build the gradient anew"):
        pf.Model(x, slopes.total[x, 0])(pf.Placeholder("y", shape=(None, 4)))


# ---- within models, layers, files and copies ----


def test_names_say_where_a_parameter_is() -> None:
    block = Block()
    model = pf.Sequential([inner(), Dense(4), block, block, Block()], input_shape=(4,))
    names = [p.name for p in model.parameters]
    assert names[:2] == ["nested/dense/weight", "nested/dense/bias"]
    assert "block/inner/dense_1/weight" in names
    assert "block_1/inner/dense/bias" in names
    assert len(set(names)) == len(names)
    assert len(block.parameters) == 4


@pytest.mark.parametrize(
    "make",
    [
        lambda: pf.Sequential([inner(), pf.Relu, lambda x: x * 2.0, Dense(1)], input_shape=(4,)),
        lambda: around(graph()),
        lambda: pf.Sequential([Block(), Block(), Dense(1)], input_shape=(4,)),
        lambda: pf.Sequential([Fixed(), Dense(1)], input_shape=(4,)),
    ],
    ids=["sequential", "graph", "block", "fixed"],
)
def test_files_and_copies(make: Any, tmp_path: Path) -> None:
    model = make()
    trainer = pf.Trainer(model)
    trainer.fit(X, model(X) * 0.5, epochs=2, verbose=0)
    model.save(tmp_path / "m.pyframe")
    loaded = pf.load(tmp_path / "m.pyframe", custom_ops={"Block": Block, "Fixed": Fixed})
    loaded.save(tmp_path / "again.pyframe")
    again = pf.load(tmp_path / "again.pyframe", custom_ops={"Block": Block, "Fixed": Fixed})
    copies = [loaded, again, copy.deepcopy(model)]
    for twin in copies:
        np.testing.assert_array_equal(twin(X), model(X))
        assert not set(twin.parameters) & set(model.parameters)
        assert [p.name for p in twin.parameters] == [p.name for p in model.parameters]
    pf.Trainer(loaded).fit(X, model(X) * 0.25, epochs=2, verbose=0)
    assert np.abs(loaded(X) - model(X)).max() > 0


def test_a_pickled_model_is_called_on_nodes() -> None:
    model = around(graph())
    model.predict(X)  # now its parameters have values, whatever they are called later
    twin = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(around(twin).layers[0].model(X), model(X))


def test_a_loaded_layer_that_made_a_model_is_called_again(tmp_path: Path) -> None:
    block = Block()
    pf.Sequential([block], input_shape=(4,)).save(tmp_path / "b.pyframe")
    loaded = pf.load(tmp_path / "b.pyframe", custom_ops={"Block": Block}).layers[0]
    z, w = pf.Placeholder("z", shape=(None, 4)), pf.Placeholder("w", shape=(None, 4))
    np.testing.assert_array_equal(pf.Model(z, loaded(z))(X), pf.Model(w, block(w))(X))


def test_a_loaded_layer_that_held_a_graph_is_not_called_again(tmp_path: Path) -> None:
    pf.Sequential([Fixed()], input_shape=(4,)).save(tmp_path / "f.pyframe")
    loaded = pf.load(tmp_path / "f.pyframe", custom_ops={"Fixed": Fixed}).layers[0]
    with pytest.raises(pf.CheckpointError, match="cannot be called on other nodes"):
        loaded(pf.Placeholder("z", shape=(None, 4)))


def test_layers_that_two_models_name_alike_are_saved_apart(tmp_path: Path) -> None:
    """Each model calls its first layer dense; a third one has both."""
    first, second = Dense(4, "tanh"), Dense(4)
    a, b = pf.Placeholder("a", shape=(None, 4)), pf.Placeholder("b", shape=(None, 4))
    both = pf.Model(a, second(first(a)))
    pf.Model(b, second(b))
    assert first.path == second.path == "dense"
    both.save(tmp_path / "both.pyframe")
    loaded = pf.load(tmp_path / "both.pyframe")
    np.testing.assert_array_equal(loaded(X), both(X))
    one, two = loaded.layers
    assert one.path != two.path
    assert two.input is one.output
    np.testing.assert_array_equal(one.weight.value, first.weight.value)


# ---- what a Sequential is made of ----


def test_functions_and_ops_take_part() -> None:
    model = pf.Sequential([pf.Abs, lambda x: x**2.0, pf.Mish], input_shape=(4,))
    z = pf.Placeholder("z", shape=(None, 4))
    np.testing.assert_array_equal(model(X), pf.Model(z, pf.Mish(pf.Abs(z) ** 2.0))(X))


def test_add_and_pop() -> None:
    model = pf.Sequential()
    with pytest.raises(pf.ArgumentError, match="no layer to take away"):
        model.pop()
    model.add(Dense(8, "relu"))
    model.add(Dense(3))
    trainer = pf.Trainer(model)
    trainer.fit(X, np.tile(Y, 3), epochs=2, verbose=0)
    kept = model.layers[0].weight.value.copy()
    last = model.pop()
    assert last.units == 3
    assert model(X).shape == (6, 8)
    model.add(Dense(1))
    np.testing.assert_array_equal(model.layers[0].weight.value, kept)
    history = trainer.fit(X, Y, epochs=30, verbose=0)
    assert history["loss"][-1] < history["loss"][0]
    assert model(X).shape == (6, 1)
    assert trainer.evaluate(X, Y)["loss"] < history["loss"][0]


def test_a_trainer_goes_on_with_a_changed_model_from_a_file(tmp_path: Path) -> None:
    model = pf.Sequential([Dense(4, "relu"), Dense(3)], input_shape=(4,))
    trainer = pf.Trainer(model)
    trainer.fit(X, np.tile(Y, 3), epochs=2, verbose=0)
    model.pop()
    model.add(Dense(1))
    trainer.save(tmp_path / "t.pyframe")
    np.testing.assert_array_equal(pf.load(tmp_path / "t.pyframe")(X), model(X))


def test_a_change_that_does_not_fit_changes_nothing() -> None:
    model = pf.Sequential([Dense(4)], input_shape=(4,))
    before, layers = model(X), list(model.layers)
    for wrong in (Dot(), BatchNorm, 3):
        with pytest.raises(pf.PyframeError):
            model.add(wrong)
    with pytest.raises(pf.ArgumentError):
        model.pop()
    assert list(model.layers) == layers
    np.testing.assert_array_equal(model(X), before)


# ---- input and output of a layer ----


def test_the_nodes_of_a_layer() -> None:
    model = pf.Sequential([Dense(8, "tanh"), Reshape((2, 4)), Dense(1)], input_shape=(4,))
    first, second, third = model.layers
    assert first.input is model.inputs[0]
    assert second.input is first.output
    assert third.output is model.outputs[0]
    features = pf.Model(model.inputs, first.output)
    z = model.layers[0]
    np.testing.assert_allclose(
        features(X), np.tanh(X @ z.weight.value + z.offset.value), rtol=1e-5, atol=1e-6
    )


def test_the_nodes_of_a_copy_and_of_a_loaded_model_are_their_own(tmp_path: Path) -> None:
    model = pf.Sequential([Dense(8), Dense(1)], input_shape=(4,))
    model.save(tmp_path / "m.pyframe")
    for twin in (copy.deepcopy(model), pf.load(tmp_path / "m.pyframe")):
        assert twin.layers[0].output in [v for n in twin.graph.order for v in n.inputs]
        assert twin.layers[0].output is not model.layers[0].output


def test_layers_without_a_node_of_their_own_say_so() -> None:
    with pytest.raises(pf.GraphError, match="in no model that is built"):
        print(Dense(3).output)
    twice = Dense(4)
    x = pf.Placeholder("x", shape=(None, 4))
    model = pf.Model(x, twice(pf.Tanh(twice(x))))
    with pytest.raises(pf.GraphError, match="gives not one value in its model, but 2"):
        print(twice.output)
    assert model(X).shape == (6, 4)


def test_one_layer_after_itself_reads_the_first_and_gives_the_last() -> None:
    twice = Dense(4)
    model = pf.Sequential([twice, twice], input_shape=(4,))
    assert twice.input is model.inputs[0]
    assert twice.output is model.outputs[0]


def test_a_layer_may_call_a_part_of_its_own_output() -> None:
    class Two(Layer):
        def __init__(self) -> None:
            super().__init__()
            self.input, self.output = Dense(5), Dense(2)

        def call(self, *inputs: pf.Value) -> pf.Value:
            return self.output(self.input(*inputs))

    model = pf.Sequential([Two()], input_shape=(4,))
    assert model.parameters[0].name == "two/input/weight"
    assert model(X).shape == (6, 2)


def test_a_layer_may_have_several_outputs() -> None:
    class Halves(Layer):
        def call(self, *inputs: pf.Value) -> Any:
            (x,) = inputs
            return [x[:, :2], x[:, 2:]]

    x = pf.Placeholder("x", shape=(None, 4))
    a, b = Halves()(x)
    model = pf.Model(x, [b, a])
    assert [layer.path for layer in model.layers] == ["halves"]
    np.testing.assert_array_equal(model(X)[0], X[:, 2:])


def test_models_that_come_and_go_leave_a_layer_its_nodes() -> None:
    model = pf.Sequential([Dense(5), Dense(3), Dense(2)], input_shape=(4,))
    for _ in range(3):
        shapes = [pf.Model(model.inputs, layer.output)(X).shape for layer in model.layers]
        assert shapes == [(6, 5), (6, 3), (6, 2)]
    with pytest.raises(pf.ArgumentError, match="was given none"):
        model()


def test_a_loaded_sequential_within_a_model_is_one(tmp_path: Path) -> None:
    """It is called on other nodes and on arrays; the whole is built anew; all of it to the bit."""
    twice = Dense(4, "tanh")
    deep = pf.Sequential([twice, Dropout(0.2), pf.Sequential([Dense(4), BatchNorm()]), twice])
    model = pf.Sequential([deep, Dense(2)], input_shape=(4,))
    pf.Trainer(model).fit(X, np.tile(Y, 2), epochs=2, verbose=0)
    model.layers[0].trainable = False
    model.save(tmp_path / "n.pyframe")
    loaded = pf.load(tmp_path / "n.pyframe")
    loaded.save(tmp_path / "again.pyframe")
    for twin in (loaded, pf.load(tmp_path / "again.pyframe")):
        names = [p.name for p in twin.parameters]
        assert names == [p.name for p in model.parameters]
        part = twin.layers[0].model
        assert isinstance(part, pf.Sequential) and part.as_layer() is twin.layers[0]
        assert len(part.layers) == 4 and part.layers[0] is part.layers[3]
        assert not any(p.trainable for p in twin.layers[0].parameters)
        z = pf.Placeholder("z", shape=(None, 4))
        features = pf.Model(z, part(z))
        np.testing.assert_array_equal(features(X), deep(X))
        np.testing.assert_array_equal(part(X), deep(X))
        before = twin(X)
        last = twin.pop()
        np.testing.assert_array_equal(twin(X), deep(X))
        twin.add(last)
        np.testing.assert_array_equal(twin(X), before)
        assert [p.name for p in twin.parameters] == names
        pf.Trainer(twin).fit(X, np.tile(Y, 2), epochs=1, verbose=0)
        np.testing.assert_array_equal(part(X), deep(X))  # it is frozen
        assert np.abs(twin(X) - before).max() > 0


def deep() -> pf.Model:
    """Return a graph that holds a graph, a layer twice, and statistics."""
    a = pf.Placeholder("a", shape=(None, 4))
    twice = Dense(4, "tanh")
    h = Concatenate()(*graph()(twice(a)))
    return pf.Model(a, [twice(Dense(4)(BatchNorm()(h))), h])


HELD = {
    "graph": graph,
    "function": lambda: pf.Sequential([Dense(4), lambda x: x * 2.0]),
    "deep": deep,
    "graph in a sequential": lambda: pf.Sequential([Dense(4), deep_of_one(), Dense(3)]),
}


def deep_of_one() -> pf.Model:
    model = deep()
    return pf.Model(model.inputs, model.outputs[0])


@pytest.mark.parametrize("kind", HELD)
def test_a_loaded_model_of_nodes_within_a_model_is_one(kind: str, tmp_path: Path) -> None:
    """Called on other nodes and on arrays, trained and saved once more; its weights by name."""
    part = HELD[kind]()
    model = around(part)
    pf.Trainer(model).fit(X, model(X) * 0.5, epochs=2, verbose=0)
    model.save(tmp_path / "n.pyframe")
    loaded = pf.load(tmp_path / "n.pyframe")
    loaded.save(tmp_path / "again.pyframe")
    z = pf.Placeholder("z", shape=(None, 4))
    wanted = around(part)(X)
    for twin in (loaded, pf.load(tmp_path / "again.pyframe"), copy.deepcopy(loaded)):
        assert [p.name for p in twin.parameters] == [p.name for p in model.parameters]
        held = twin.layers[0].model
        assert held.as_layer() is twin.layers[0] and set(held.parameters) <= set(twin.parameters)
        for got, expected in zip(as_list(held(X)), as_list(part(X)), strict=True):
            np.testing.assert_array_equal(got, expected)
        for got, expected in zip(as_list(held(z)), as_list(part(X)), strict=True):
            np.testing.assert_array_equal(pf.Model(z, got)(X), expected)
        weights = part.get_weights()
        assert held.get_weights().keys() == weights.keys()
        held.set_weights({name: value * 0 for name, value in weights.items()})
        assert not any(as_list(held(X))[0].ravel())
        held.set_weights(weights)
        np.testing.assert_array_equal(twin(X), model(X))
        held.trainable = False
        trained = [p.name for p in twin.parameters if p.trainable]
        assert len(trained) == len(model.parameters) - len(part.parameters)
        held.trainable = True
    assert wanted.shape[0] == 6
    trainer = pf.Trainer(loaded)
    before = [array.copy() for array in as_list(loaded.layers[0].model(X))]
    trainer.fit(X, model(X) * 0.25, epochs=3, verbose=0)
    after = as_list(loaded.layers[0].model(X))
    assert any((a != b).any() for a, b in zip(before, after, strict=True))
    trainer.save(tmp_path / "t.pyframe")
    resumed = pf.Trainer.load(tmp_path / "t.pyframe")
    for one in (trainer, resumed):
        one.fit(X, model(X), epochs=2, verbose=0)
    np.testing.assert_array_equal(resumed.model(X), loaded(X))
    assert pf.checkpoint.inspect(tmp_path / "n.pyframe")["parameters"] == sum(
        p.size for p in model.parameters
    )


def as_list(outputs: Any) -> list[Any]:
    return outputs if isinstance(outputs, list) else [outputs]


def test_a_file_that_describes_no_model_within_is_refused(tmp_path: Path) -> None:
    around(graph()).save(tmp_path / "n.pyframe")
    document = pf.checkpoint.describe(tmp_path / "n.pyframe")
    held = document["layers"][0]["model"]
    for change in [
        {"inputs": []},
        {"inputs": [99]},
        {"outputs": []},
        {"outputs": [[0, 7]]},
        {"layers": ["nothing"]},
        {"layers": [0]},
        {"kind": 3},
        {"kind": "Sequential", "inputs": held["inputs"] * 2},
        {"outcomes": [["labels", None]]},
    ]:
        document["layers"][0]["model"] = {**held, **change}
        with open(tmp_path / "n.pyframe", "rb") as file:
            arrays = read_arrays(file, read_header(file, "n"), "n")
        (tmp_path / "odd.pyframe").write_bytes(serialize(document, arrays))
        with pytest.raises(pf.CheckpointError):
            pf.load(tmp_path / "odd.pyframe")


def test_a_sequential_that_is_not_built_predicts_batches() -> None:
    model = pf.Sequential([Dense(3)])
    assert model.predict(iter([(X[:4],), (X[4:],)])).shape == (6, 3)


def test_a_nested_sequential_is_made_anew_by_estimators() -> None:
    part = pf.Sequential([Dense(8, "tanh"), Dense(3)])
    from pyframe.estimators import NetRegressor

    part(X)  # built, with weights that no estimator takes
    net = NetRegressor([part.as_layer(), Dense(1)], epochs=2, verbose=0, random_state=0)
    first = net.fit(X, Y[:, 0]).predict(X)
    np.testing.assert_array_equal(net.fit(X, Y[:, 0]).predict(X), first)


def test_a_layer_with_weights_keeps_the_path_that_they_are_called_by() -> None:
    model = pf.Sequential([Dense(4), Dense(4), Dense(2)], input_shape=(4,))
    pf.Trainer(model).fit(X, np.tile(Y, 2), epochs=1, verbose=0)
    second = model.layers[1]
    rest = pf.Sequential([Dense(4), second, Dense(1)], input_shape=(4,))
    rest.predict(X)
    rest.pop()
    rest.add(Dense(3))
    for each in (model, rest):
        for layer in each.layers:
            assert all(p.name.startswith(f"{layer.path}/") for p in layer.parameters), layer
            assert set(layer.parameters) <= set(each.parameters)
    assert second.path == "dense_1"
    assert [layer.path for layer in rest.layers] == ["dense", "dense_1", "dense_2"]
    assert {"dense_1/weight", "dense_1/bias"} <= rest.get_weights().keys()
