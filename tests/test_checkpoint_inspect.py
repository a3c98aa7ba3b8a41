"""Looking into model files: without plugins, without arrays."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe import checkpoint
from pyframe.checkpoint.container import serialize
from pyframe.commands import cli
from pyframe.layers import BatchNorm, Dense, Layer

pytestmark = pytest.mark.once  # it says nothing of a kernel

X = np.random.default_rng(0).normal(size=(20, 3))


class Pair(Layer):
    """Two layers in one, and a number."""

    def __init__(self, units: int, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.units, self.inner = units, [Dense(units, "relu"), BatchNorm()]

    def build(self, *specs: Any) -> None:
        self.scale = self.add_parameter("scale", (), 2.0, dtype=specs[0].dtype)

    def call(self, *inputs: pf.Value) -> pf.Value:
        return self.inner[1](self.inner[0](*inputs)) * self.scale


class Brings:
    """A plugin with a layer."""

    @pf.hookimpl
    def pyframe_register_layers(self) -> dict[str, type]:
        return {"pair": Pair}


def deep() -> pf.Model:
    shared = Dense(3, "tanh")
    x = pf.Placeholder("x", shape=(None, 3))
    loose = pf.Parameter(np.ones(3), name="loose", trainable=False)
    h = shared(Pair(3)(shared(x))) * loose
    return pf.Model(x, Dense(2)(h))


def numbers(table: str) -> list[list[str]]:
    """Return layer, shape and parameters of each row of a summary."""
    rows = [re.split("  +", line) for line in table.splitlines()]
    return [row[:4:2] + row[3:4] for row in rows if len(row) > 2]


def test_the_table_is_that_of_the_model(tmp_path: Path) -> None:
    for model in (deep(), pf.Sequential([Dense(2), Dense(2)], input_shape=(3,))):
        model.save(tmp_path / "m")
        report = checkpoint.inspect(tmp_path / "m")
        page = checkpoint.as_text(report)
        assert page.splitlines()[-1] == model.summary().splitlines()[-2]
        rows, expected = numbers(page), numbers(model.summary())
        assert rows[-len(expected) :] == expected
        assert report["parameters"] == sum(p.size for p in model.parameters)
        assert report["states"] == sum(s.size for s in model.states)
        assert report["bytes"] == (tmp_path / "m").stat().st_size


def test_arrays_and_versions_are_listed(tmp_path: Path) -> None:
    deep().save(tmp_path / "m")
    report = checkpoint.inspect(tmp_path / "m")
    assert report["arrays"]["loose"] == {"dtype": "float32", "shape": [3], "bytes": 12}
    assert report["versions"]["pyframe"] == pf.__version__
    assert set(report["versions"]) == {"pyframe", "abi", "numpy", "python"}
    assert report["inputs"] == [{"name": "x", "dtype": "float32", "shape": [None, 3]}]
    (core, own) = report["packages"]
    assert (core["name"], core["installed"]) == ("pyframe-nn", pf.__version__)
    assert own["provides"] == {"layers": ["Pair"]}
    assert "custom_ops=" in own["remedy"]


def test_the_command_prints_a_page_and_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = pf.Trainer(pf.Sequential([Dense(1)], input_shape=(3,)), metrics=["mae"])
    work.fit(X, X[:, 0], 3, 8, validation_split=0.2, verbose=0)
    work.fit(X, X[:, 0], 2, 8, validation_split=0.2, verbose=0)
    path = tmp_path / "m"
    work.save(path)
    assert cli.main(["inspect", str(path)]) == 0
    page = capsys.readouterr().out
    assert "there, not verified" in page
    assert "adam, 10 steps, 5 epochs" in page
    assert "2 epochs of 16 rows, batch size 8, seed 0; loss " in page
    assert cli.main(["inspect", str(path), "--verify"]) == 0
    assert "checksum right" in capsys.readouterr().out

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    assert cli.main(["inspect", str(path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert report == checkpoint.inspect(path)
    assert report["training"]["optimizer"]["name"] == "adam"
    work.model.save(path)
    assert cli.main(["inspect", str(path)]) == 0
    assert "training  not in the file" in capsys.readouterr().out


def test_numbers_that_json_has_not_are_texts(tmp_path: Path) -> None:
    work = pf.Trainer(pf.Sequential([Dense(1)], input_shape=(3,)), optimizer=pf.optimizers.SGD(1e9))
    with pytest.warns(pf.DivergenceWarning):
        work.fit(X, X[:, 0], 20, None, verbose=0)
    work.save(tmp_path / "m")
    report = checkpoint.inspect(tmp_path / "m")
    assert json.dumps(report, allow_nan=False)
    assert report["training"]["fit"]["last"]["loss"] in ("nan", "inf")
    assert "loss nan" in checkpoint.as_text(report) or "loss inf" in checkpoint.as_text(report)
    text = checkpoint.read_training(tmp_path / "m")
    assert not np.isfinite(text[1]["training/history/loss"][-1])


def test_damage_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m"
    deep().save(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert cli.main(["inspect", str(path)]) == 0  # the arrays are not looked at
    capsys.readouterr()
    assert cli.main(["inspect", str(path), "--verify"]) == 1
    path.write_bytes(data[:100])
    assert cli.main(["inspect", str(path)]) == 1
    assert cli.main(["inspect", str(tmp_path / "nothing")]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    assert all(error.startswith("pyframe: ") and str(tmp_path) in error for error in errors)


def test_a_missing_plugin_is_named_with_its_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = Brings()
    pf.plugins.register(plugin, "pyframe-pairs", "1.2")
    try:
        deep().save(tmp_path / "m")
    finally:
        pf.plugins.unregister(plugin)
    assert cli.main(["inspect", str(tmp_path / "m")]) == 0
    page = capsys.readouterr().out
    assert "pyframe-pairs 1.2 (1 layer), which is not installed: pip install pyframe-pairs" in page
    same = pf.load(tmp_path / "m")  # the graph is there without the layer
    np.testing.assert_array_equal(same.predict(X).shape, (20, 2))
    same.save(tmp_path / "again")  # and nothing is forgotten on the way
    packages = checkpoint.inspect(tmp_path / "again")["packages"]
    assert [row["name"] for row in packages] == ["pyframe-nn", "pyframe-pairs"]
    with pytest.raises(pf.CheckpointError, match="pip install pyframe-pairs"):
        pf.load(tmp_path / "again").layers[1](pf.Placeholder("x", shape=(None, 3)))


def test_no_plugin_is_loaded(tmp_path: Path) -> None:
    pytest.importorskip("pyframe_cnn")
    model = pf.Sequential([pf.layers.Conv2D(2, 3), pf.layers.Flatten(), Dense(1)])
    model.predict(np.ones((1, 5, 5, 1)))
    model.save(tmp_path / "m")
    script = """
        import sys
        from pyframe.commands import cli
        assert cli.main(["inspect", sys.argv[1]]) == 0
        assert not [m for m in sys.modules if m.startswith("pyframe_")]
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "m")]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert run.returncode == 0, run.stderr
    assert "pyframe-cnn" in run.stdout
    command[2] = command[2].replace('"inspect", sys.argv[1]', '"plugins"')
    with pytest.raises(AssertionError):  # that command does load them
        again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
        assert again.returncode == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("nodes"),
        lambda d: d.update(nodes=7),
        lambda d: d.update(order=[9]),
        lambda d: d.update(inputs=[99]),
        lambda d: d["layers"][0].update(parameters={"w": 99}),
        lambda d: d.update(provenance=[]),
        lambda d: d.update(training={}),
        lambda d: next(n for n in d["nodes"] if "tensor" in n).update(shape="long"),
        lambda d: d.update(training={**d, "optimizer": [], "step": 1}),
    ],
)
def test_odd_documents_are_refused(change: Any, tmp_path: Path) -> None:
    path = tmp_path / "m"
    deep().save(path)
    document = checkpoint.describe(path)
    change(document)
    path.write_bytes(serialize(document, {}))
    with pytest.raises(pf.CheckpointError, match="does not describe a model"):
        checkpoint.as_text(checkpoint.inspect(path))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["provenance"]["layers"]["dense"].update(distribution="--index-url=http://x"),
        lambda d: d["provenance"]["layers"]["dense"].update(distribution="pyframe nn"),
        lambda d: d["provenance"]["layers"]["dense"].update(distribution=3),
        lambda d: d["provenance"]["layers"]["dense"].update(version="\x1b]0;title\x07"),
        lambda d: d["provenance"]["layers"]["dense"].update(version="1" * 1000),
        lambda d: d.update(order=[0] * 500_000),
    ],
)
def test_what_a_message_would_pass_on_is_refused(change: Any, tmp_path: Path) -> None:
    path = tmp_path / "m"
    deep().save(path)
    document = checkpoint.describe(path)
    change(document)
    path.write_bytes(serialize(document, {}))
    for read in (checkpoint.inspect, pf.load):
        with pytest.raises(pf.CheckpointError, match="is damaged: it (names|uses)") as caught:
            read(path)
        assert str(caught.value).isprintable()


def test_a_file_does_not_speak_to_the_terminal(tmp_path: Path) -> None:
    x = pf.Placeholder("x", shape=(None, 1))
    pf.Model(x, x * pf.Parameter([1.0], name="\x1b]0;title\x07")).save(tmp_path / "m")
    page = checkpoint.as_text(checkpoint.inspect(tmp_path / "m"))
    assert "]0;title" in page
    assert page.replace("\n", "").isprintable()


def test_the_longest_text_does_not_widen_all_rows(tmp_path: Path) -> None:
    pf.Sequential([pf.layers.Dense(1)], input_shape=(3,)).save(tmp_path / "m")
    report = pf.checkpoint.inspect(tmp_path / "m")
    report["layers"] = [*report["layers"] * 50, dict(report["layers"][0], path="p" * 10_000)]
    assert len(pf.checkpoint.as_text(report)) < 20_000
