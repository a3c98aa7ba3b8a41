"""Files whose packages are missing: everything is named at once, with what to install."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trainers import Momentum

import pyframe as pf
from pyframe import checkpoint
from pyframe.callbacks import Callback
from pyframe.checkpoint import container
from pyframe.layers import Dense, Layer

pytestmark = pytest.mark.once

X, Y = np.ones((8, 3)), np.ones((8, 1))
FIT: dict[str, Any] = {"batch_size": 4, "seed": 0, "verbose": 0}


class Same(pf.Node):
    """x, in Python."""

    op = "same"

    def forward(self, ctx: Any, *inputs: Any) -> Any:
        return inputs[0]

    def backward(self, ctx: Any, *grads: Any) -> Any:
        return grads[0]


class Twice(Same):
    op = "twice"


class Thrice(Same):
    op = "thrice"


class Through(Layer):
    """A layer that computes with the nodes of two packages."""

    def call(self, *inputs: pf.Value) -> pf.Value:
        return Thrice(Twice(Same(*inputs)))


class Slowly(pf.schedules.Exponential):
    name = "slowly"


class Worst(pf.ops.get("mae")):  # type: ignore[misc]
    """A metric."""


class Counts(Callback):
    """A callback that counts."""

    def training_state(self, trainer: Any) -> dict[str, Any]:
        return {"n": 1}

    def restore_training_state(self, trainer: Any, state: Any) -> None:
        pass


def squares(y: Any, y_hat: Any, sample_weight: Any = None) -> Any:
    return pf.L2Loss(y, y_hat)


PACKAGES: dict[str, dict[str, dict[str, Any]]] = {
    "pyframe-one": {"ops": {"same": Same, "twice": Twice}},
    "pyframe-two": {"ops": {"thrice": Thrice}},
    "pyframe-three": {"layers": {"through": Through}},
    "pyframe-slow": {"optimizers": {"momentum": Momentum}, "schedules": {"slowly": Slowly}},
    "pyframe-aims": {"losses": {"squares": squares}, "metrics": {"worst": Worst}},
    "pyframe-calls": {"callbacks": {"counts": Counts}},
}


def hook(things: dict[str, Any]) -> Any:
    """Return a method that registers things."""
    return pf.hookimpl(lambda self: things)


@contextmanager
def installed(*packages: str) -> Iterator[None]:
    """Have the parts of some packages registered."""
    plugins = []
    try:
        for package in packages:
            brings = {
                f"pyframe_register_{k}": hook(things) for k, things in PACKAGES[package].items()
            }
            plugins.append(type("Brings", (), brings)())
            pf.plugins.register(plugins[-1], package, "1.2")
        yield
    finally:
        for plugin in plugins:
            pf.plugins.unregister(plugin)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Return a file of a training, all parts of which came from packages."""
    with installed(*PACKAGES):
        model = pf.Sequential([Through(), Dense(1)], input_shape=(3,))
        trainer = pf.Trainer(model, "squares", Momentum(Slowly(0.1, 0.9)), ["worst"])
        trainer.fit(X, Y, 2, callbacks=[Counts()], **FIT)
        trainer.save(tmp_path / "m")
        pf.Trainer.load(tmp_path / "m")
    return tmp_path / "m"


MODEL = ("pyframe-one", "pyframe-two")
TRAINING = ("pyframe-aims", "pyframe-slow")


def error(call: Any, *packages: str) -> str:
    """Return what is said when only some packages are there."""
    with installed(*packages), pytest.raises(pf.CheckpointError) as caught:
        call()
    return str(caught.value)


def test_a_model_names_all_that_it_lacks_at_once(saved: Path) -> None:
    said = error(lambda: pf.load(saved))
    assert "'same' and 'twice', and they came from the package pyframe-one 1.2" in said
    assert "'thrice', and it came from the package pyframe-two 1.2" in said
    assert said.endswith(
        "pip install pyframe-one pyframe-two pyframe-three pyframe-aims pyframe-slow pyframe-calls"
    )
    said = error(lambda: pf.load(saved), *PACKAGES.keys() - {"pyframe-two"})
    assert said.count("pip install") == 1 and said.endswith("pip install pyframe-two")
    with installed(*MODEL):
        np.testing.assert_array_equal(pf.load(saved).predict(X).shape, (8, 1))


@pytest.mark.parametrize("missing", [TRAINING, TRAINING[:1], TRAINING[1:]])
def test_a_training_names_all_that_it_lacks_at_once(missing: tuple[str, ...], saved: Path) -> None:
    said = error(lambda: pf.Trainer.load(saved), *PACKAGES.keys() - {*missing})
    for package in TRAINING:
        names = " and ".join(repr(n) for part in PACKAGES[package].values() for n in part)
        text = f"{names}, and they came from the package {package} 1.2."
        assert (text in said) == (package in missing), said
    assert f"pip install {' '.join(missing)}" in said


@pytest.mark.parametrize(
    ("given", "lost"),
    [
        ({"optimizer": "sgd"}, "'squares' and 'worst'"),
        ({"loss": "l2", "metrics": []}, "'momentum' and 'slowly'"),
        ({"loss": "l2", "optimizer": "sgd"}, "'worst'"),
    ],
)
def test_what_is_given_is_not_missing(given: dict[str, Any], lost: str, saved: Path) -> None:
    said = error(lambda: pf.Trainer.load(saved, **given), *MODEL)
    assert f"needs {lost}, and" in said


def test_another_optimizer_or_callback_is_told_whose_there_was(saved: Path) -> None:
    def resume(optimizer: Any = None) -> None:
        model = pf.load(saved)
        given = Momentum(0.1) if optimizer is None else optimizer
        pf.Trainer(model, "l2", given, ["mae"]).fit(X, Y, 3, resume=saved, **FIT)

    assert "'momentum' of the package pyframe-slow 1.2, and" in error(lambda: resume("sgd"), *MODEL)
    assert "the callbacks Counts of the package pyframe-calls 1.2 (of" in error(resume, *MODEL)


def rewrite(path: Path, change: Any) -> None:
    """Change the document of a file."""
    with open(path, "rb") as file:
        header = container.read_header(file, "m")
        arrays = container.read_arrays(file, header, "m")
    document = {key: value for key, value in header.document.items() if key != "sha256"}
    change(document)
    path.write_bytes(container.serialize(document, arrays))


def test_of_what_is_built_in_the_release_is_named(saved: Path) -> None:
    def rename(document: dict[str, Any]) -> None:
        document["training"]["optimizer"]["dict"]["name"] = "sophia"
        origin = {"distribution": "pyframe-nn", "version": "7.0", "module": "pyframe.optimizers"}
        document["provenance"]["optimizers"] = {"sophia": origin}

    rewrite(saved, rename)
    said = error(lambda: pf.Trainer.load(saved), *PACKAGES)
    assert "'sophia', and it came with pyframe 7.0; this is" in said
    assert "pip install" not in said


def test_older_files_do_not_say_where_losses_came_from(saved: Path) -> None:
    def forget(document: dict[str, Any]) -> None:
        for kind in ("losses", "metrics", "callbacks"):
            del document["provenance"][kind]

    rewrite(saved, forget)
    there = (*MODEL, "pyframe-slow")
    said = error(lambda: pf.Trainer.load(saved), *there)
    assert "'squares', and nothing here is registered under that name: pass loss=" in said
    with installed(*there):
        assert pf.Trainer.load(saved, loss="l2", metrics=["mae"]).epochs_done == 2


def test_a_file_with_thousands_of_names_gets_a_short_answer(saved: Path) -> None:
    def add(document: dict[str, Any]) -> None:
        many = {
            f"op{i}": {"distribution": f"package-{i // 2}", "version": "1.0", "module": "m"}
            for i in range(2000)
        }
        document["provenance"]["ops"] |= many
        node = next(n for n in document["nodes"] if n.get("op") == "same")
        document["nodes"] += [{**node, "op": name} for name in many]

    rewrite(saved, add)
    said = error(lambda: pf.load(saved), *PACKAGES)
    assert said.count("pip install") <= 11 and said.endswith(" ...") and len(said) < 4000


def test_the_report_lists_every_package(saved: Path) -> None:
    page = checkpoint.as_text(checkpoint.inspect(saved))
    assert "pyframe-aims 1.2 (1 loss, 1 metric), which is not installed: pip install" in page
    assert "pyframe-calls 1.2 (1 callback), which is not installed: pip install" in page
