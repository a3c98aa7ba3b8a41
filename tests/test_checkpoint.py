"""Saved models: the same bits come back, nothing half-written stays, damage is noticed."""

from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load as read_tensors
from safetensors.numpy import load_file
from safetensors.numpy import save as write_tensors

import pyframe as pf
from pyframe import checkpoint
from pyframe.checkpoint.container import serialize
from pyframe.layers import BatchNorm, Dense, Dropout, Flatten, Layer, LayerNorm

pytestmark = pytest.mark.once  # it says nothing of a kernel

X = np.random.default_rng(0).normal(size=(11, 2, 3))


class Cube(pf.Node):
    """x^3, in Python."""

    def forward(self, ctx: Any, *inputs: Any) -> Any:
        return inputs[0] ** 3

    def backward(self, ctx: Any, *grads: Any) -> Any:
        return 3 * ctx.inputs[0] ** 2 * grads[0]


class Power(Cube):
    """x^n, in Python, with an argument of its own."""

    def __init__(self, x: Any, n: int = 2, *, name: str | None = None) -> None:
        self.n = n
        super().__init__(x, name=name)

    def config(self) -> dict[str, Any]:
        return {"n": self.n}

    def forward(self, ctx: Any, *inputs: Any) -> Any:
        return inputs[0] ** self.n


class Shy(Cube):
    """Keeps something without saying so."""

    def __init__(self, x: Any, *, name: str | None = None) -> None:
        self.secret = 3
        super().__init__(x, name=name)


class Wide(Layer):
    """A layer that nobody registers, with layers within."""

    def __init__(self, units: int, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.units, self.inner = units, [Dense(units, "relu"), Dense(units)]

    def build(self, *specs: Any) -> None:
        self.scale = self.add_parameter("scale", (self.units,), 2.0, dtype=specs[0].dtype)

    def call(self, *inputs: pf.Value) -> pf.Value:
        return self.inner[1](self.inner[0](*inputs)) * self.scale


def everything(dtype: str = "float32") -> pf.Sequential:
    layers = [Flatten(), Dense(8, "gelu"), BatchNorm(), Dropout(0.2), LayerNorm(), Dense(2, "elu")]
    model = pf.Sequential(layers, dtype=dtype)
    trainer = pf.Trainer(model, optimizer="adam")
    trainer.fit(X, np.ones((11, 2)), 3, 4, verbose=0)
    return model


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.pyframe"
    everything().save(path)
    return path


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_sequential_comes_back_to_the_bit(dtype: str, tmp_path: Path) -> None:
    model = everything(dtype)
    model.save(tmp_path / "m")
    same = pf.load(tmp_path / "m")
    assert isinstance(same, pf.Sequential)
    np.testing.assert_array_equal(same.predict(X), model.predict(X))
    assert same.summary() == model.summary()
    assert [(type(a), a.config()) for a in same.layers] == [
        (type(b), b.config()) for b in model.layers
    ]
    assert [p.name for p in same.parameters] == [p.name for p in model.parameters]


def test_a_loaded_model_trains_on_and_its_layers_can_be_called(file: Path) -> None:
    model = pf.load(file)
    before = model.get_weights()
    pf.Trainer(model).fit(X, np.ones((11, 2)), 2, 4, verbose=0)
    after = model.get_weights()
    assert all((before[name] != after[name]).any() for name in before)
    x = pf.Placeholder("x", shape=(None, 2, 3))
    y: pf.Value = x
    for layer in model.layers:
        y = layer(y)
    np.testing.assert_array_equal(pf.Model(x, y).predict(X), model.predict(X))


def test_saving_again_gives_the_same_bytes(file: Path, tmp_path: Path) -> None:
    pf.load(file).save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == file.read_bytes()


def test_a_graph_of_nodes_comes_back(tmp_path: Path) -> None:
    x = pf.Placeholder("x", shape=(None, 4))
    labels = pf.Placeholder("labels", shape=(None,), dtype="int64")
    w = pf.Parameter(np.arange(16.0).reshape(4, 4) / 16, name="w", group="slow")
    fixed = pf.Parameter(np.ones(4), name="fixed", trainable=False)
    h = pf.MatMul(pf.LeakyRelu(x @ w, 0.3) * 2.0 + fixed, w, transpose_b=True)
    y = pf.Transpose(h) if hasattr(pf, "Transpose") else h
    model = pf.Model([x, labels], [y, h[0], pf.CrossEntropy(labels, h, reduction="none")])
    model.save(tmp_path / "m")
    assert set(load_file(tmp_path / "m")) == {"w", "fixed", "constant"}  # w is there once
    same = pf.load(tmp_path / "m")
    data = [np.random.default_rng(1).normal(size=(5, 4)), np.array([0, 1, 2, 3, 0])]
    for a, b in zip(model.predict(data), same.predict(data), strict=True):
        np.testing.assert_array_equal(a, b)
    again = {p.name: (p.group, p.trainable) for p in same.parameters}
    assert again == {"w": ("slow", True), "fixed": ("default", False)}


def test_a_layer_that_stands_there_twice_comes_back_as_one(tmp_path: Path) -> None:
    shared = Dense(3, "tanh")
    model = pf.Sequential([shared, Dense(3), shared], input_shape=(3,))
    model.save(tmp_path / "m")
    same = pf.load(tmp_path / "m")
    assert same.layers[0] is same.layers[2] is not same.layers[1]
    assert len(same.parameters) == 4
    assert same.summary() == model.summary()
    assert list(same.graph.names.values()) == list(model.graph.names.values())


def test_every_kind_of_attribute_survives() -> None:
    for value in (None, True, 3, 0.1, -np.inf, "mean", (1, (2, 3)), {"a": (1,)}):
        assert checkpoint.restored(json.loads(json.dumps(checkpoint.plain(value)))) == value
    array = np.arange(3, dtype=">i2")
    back = checkpoint.restored(json.loads(json.dumps(checkpoint.plain(array))))
    np.testing.assert_array_equal(back, array)
    assert back.dtype == array.dtype
    assert checkpoint.plain(np.float64(0.5)) == 0.5
    with pytest.raises(pf.CheckpointError, match="cannot be saved"):
        checkpoint.plain(object())


# ---- nodes and layers of one's own ----


def test_nodes_in_python_are_named_when_they_are_missing(tmp_path: Path) -> None:
    x = pf.Placeholder("x", shape=(None, 3))
    model = pf.Model(x, Power(Cube(Dense(2)(x)), n=4))
    model.save(tmp_path / "m")
    with pytest.raises(pf.CheckpointError, match=r'custom_ops=\{"Cube": Cube\}'):
        pf.load(tmp_path / "m")
    same = pf.load(tmp_path / "m", custom_ops={"Cube": Cube, "Power": Power})
    data = np.ones((2, 3))
    np.testing.assert_array_equal(same.predict(data), model.predict(data))
    assert not (same.predict(data) == pf.Model(x, Cube(x)).predict(data)[:, :2]).all()


def test_what_a_python_node_keeps_is_not_lost_silently(tmp_path: Path) -> None:
    x = pf.Placeholder("x", shape=(None, 3))
    with pytest.raises(pf.CheckpointError, match=r"secret.*config\(\)"):
        pf.Model(x, Shy(x)).save(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


class Registers:
    """A plugin with an op and a layer."""

    @pf.hookimpl
    def pyframe_register_ops(self) -> dict[str, type]:
        return {"cube": Cube}

    @pf.hookimpl
    def pyframe_register_layers(self) -> dict[str, type]:
        return {"wide": Wide}


def test_a_missing_plugin_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cube, "op", "cube")
    plugin = Registers()
    pf.plugins.register(plugin, "pyframe-cubes", "1.2")
    try:
        x = pf.Placeholder("x", shape=(None, 3))
        model = pf.Model(x, Cube(Wide(2)(x)))
        model.save(tmp_path / "m")
        data = np.ones((2, 3))
        same = pf.load(tmp_path / "m")
        np.testing.assert_array_equal(same.predict(data), model.predict(data))
        assert isinstance(same.layers[0], Wide)
    finally:
        pf.plugins.unregister(plugin)
    with pytest.raises(pf.CheckpointError, match=r"pip install pyframe-cubes"):
        pf.load(tmp_path / "m")
    described = checkpoint.describe(tmp_path / "m")
    assert described["provenance"]["ops"]["cube"]["version"] == "1.2"


def test_a_model_outlives_the_class_of_its_layer(tmp_path: Path) -> None:
    model = pf.Sequential([Wide(4), Dense(1, activation=lambda v: pf.Tanh(v))], input_shape=(3,))
    model.save(tmp_path / "m")
    same = pf.load(tmp_path / "m")
    data = np.ones((2, 3))
    np.testing.assert_array_equal(same.predict(data), model.predict(data))
    assert [p.name for p in same.layers[0].parameters] == [
        p.name for p in model.layers[0].parameters
    ]
    with pytest.raises(pf.CheckpointError, match="Wide"):
        same.layers[0](pf.Placeholder("x", shape=(None, 3)))
    with pytest.raises(pf.CheckpointError, match="could not be saved"):
        same.layers[1](pf.Placeholder("x", shape=(None, 4)))
    known = pf.load(tmp_path / "m", custom_ops={"Wide": Wide})
    assert isinstance(known.layers[0], Wide)
    again = known.layers[0](pf.Placeholder("x", shape=(None, 3)))
    assert again.shape == (None, 4)


# ---- damaged files ----


def rewritten(data: bytes, change: Any) -> bytes:
    """Return the file with its description and arrays changed by a function."""
    length = struct.unpack("<Q", data[:8])[0]
    description = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["pyframe"])
    tensors = dict(read_tensors(data))
    change(description, tensors)
    return serialize(description, tensors)


def test_every_cut_is_noticed(file: Path) -> None:
    data = file.read_bytes()
    for end in [*range(0, 64), *range(64, len(data) - 1, 997), len(data) - 1]:
        file.write_bytes(data[:end])
        with pytest.raises(pf.CheckpointError):
            pf.load(file)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no saved model"),
        (b"PK\x03\x04 a zip file, of all things", "no saved model"),
        (struct.pack("<Q", 2**63) + b"{}", "no saved model"),
        (write_tensors({"a": np.zeros(3)}), "no saved model"),
        (write_tensors({"a": np.zeros(3)}, {"pyframe": "{}"}), "no saved model"),
        (write_tensors({"a": np.zeros(3)}, {"pyframe": "[" * 10**5}), "nested too deeply"),
    ],
)
def test_other_files_are_no_models(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(data)
    with pytest.raises(pf.CheckpointError, match=message):
        pf.load(tmp_path / "m")
    with pytest.raises(pf.CheckpointError, match=message):
        checkpoint.describe(tmp_path / "m")


def first(description: Any, key: str, value: Any) -> Any:
    return next(n for n in description["nodes"] if n.get(key) == value)


DAMAGE: dict[str, tuple[Any, str]] = {
    "a later format": (lambda d, t: d.update(format_version=99), "upgrade"),
    "no such array": (lambda d, t: t.pop("dense/bias"), "lacks the array 'dense/bias'"),
    "another shape": (
        lambda d, t: t.update({"dense/bias": np.zeros(9, "f4")}),
        r"array 'dense/bias'.*\[9\]",
    ),
    "another dtype": (lambda d, t: t.update({"dense/bias": np.zeros(8)}), "float64"),
    "an unknown op": (lambda d, t: first(d, "op", "linear").update(op="os_system"), "os_system"),
    "an op of a later version": (
        lambda d, t: (
            first(d, "op", "linear").update(op="later"),
            d["provenance"]["ops"].update(
                later={"distribution": "pyframe-nn", "version": "9.0", "module": "x"}
            ),
        ),
        "'later', and it came with pyframe 9.0; this is .*: upgrade it",
    ),
    "an input ahead": (lambda d, t: first(d, "op", "linear")["inputs"][0].__setitem__(0, 99), "99"),
    "no inputs": (lambda d, t: first(d, "op", "linear").pop("inputs"), "does not describe"),
    "an odd attribute": (
        lambda d, t: first(d, "op", "gelu")["attributes"].update(__class__=1),
        "does not describe",
    ),
    "an odd output": (lambda d, t: d.update(outputs=[[0, 7]]), "does not describe"),
    "an output that is no pair": (lambda d, t: d.update(outputs=[3]), "does not describe"),
    "an input that is no placeholder": (lambda d, t: d.update(inputs=[1]), "no Placeholder"),
    "a leaf of no kind": (lambda d, t: first(d, "leaf", "parameter").update(leaf="x"), "'x'"),
    "a layer's odd argument": (
        lambda d, t: d["layers"][1]["config"].update(units=-3),
        "does not describe",
    ),
    "no nodes": (lambda d, t: d.update(nodes=7), "does not describe"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(damage: str, file: Path) -> None:
    change, message = DAMAGE[damage]
    file.write_bytes(rewritten(file.read_bytes(), change))
    with pytest.raises(pf.CheckpointError, match=message):
        pf.load(file)


def test_the_undamaged_file_passes_the_same_way(file: Path) -> None:
    expected = pf.load(file).predict(X)
    file.write_bytes(rewritten(file.read_bytes(), lambda d, t: None))
    np.testing.assert_array_equal(pf.load(file).predict(X), expected)


def test_a_missing_file_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        pf.load(tmp_path / "nothing")


def test_an_unbuilt_model_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(pf.GraphError, match="input_shape="):
        pf.Sequential([Dense(1)]).save(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


ODD = [
    *(None, True, -1, 10**30, 1e300, "", "x" * 40, [], [[]], {}, {"dict": {}}, {"number": "x"}),
    *({"array": [1], "dtype": "V9999999"}, {"array": ["a"], "dtype": "O"}),
    {"array": [1], "shape": [9], "dtype": "<f4"},
]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return each place within lists and objects, as (container, key)."""
    found: list[tuple[Any, Any]] = []
    pairs: Any = ()
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list):
        pairs = enumerate(value)
    for key, inner in pairs:
        found += [(value, key), *places(inner)]
    return found


def test_odd_values_anywhere_give_one_kind_of_error(file: Path) -> None:
    data, rng = file.read_bytes(), np.random.default_rng(0)
    outcomes = {"loaded": 0, "refused": 0}
    for _ in range(400):

        def change(description: Any, tensors: Any) -> None:
            found = places(description)
            container, key = found[rng.integers(len(found))]
            container[key] = ODD[rng.integers(len(ODD))]

        file.write_bytes(rewritten(data, change))
        with contextlib.suppress(pf.CheckpointError):
            checkpoint.as_text(checkpoint.inspect(file))
        try:
            pf.load(file)
        except pf.CheckpointError:
            outcomes["refused"] += 1
        else:
            outcomes["loaded"] += 1
    assert min(outcomes.values()) > 40
