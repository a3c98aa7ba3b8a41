"""What nobody would write: in constructors, in model files, and in the states of trainings.

Files are sealed anew after each change, so that their checksums are right. Each is refused with a
`CheckpointError`, or is a model that runs.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from registered import OPS
from test_checkpoint import rewritten

import pyframe as pf
from pyframe import checkpoint
from pyframe.checkpoint import Architecture, plain
from pyframe.checkpoint.encoding import INCIDENTAL, new_op
from pyframe.graph.op import Op
from pyframe.plugins import registry
from pyframe.testing import check_attributes
from pyframe.testing.draw import Draw
from pyframe.testing.hostile import MOST_BYTES, hostile_values, readable
from pyframe.testing.subject import NODE_NAME, Subject

pytestmark = [pytest.mark.once, pytest.mark.sanitize]


@pytest.mark.parametrize("op_class", OPS, ids=lambda c: c.op)
def test_by_constructor(op_class: type[Op]) -> None:
    check_attributes(op_class)


# ---- by file ----


def op_file(op_class: type[Op], seed: int = 0) -> tuple[Subject, bytes]:
    """Return a sample of an op, and a model file of it alone."""
    subject = Subject(op_class, op_class.sample(Draw(seed)), "float32", f"Draw({seed})")
    inputs = [v for v in subject.node.inputs if v is not None]
    outputs = [subject.node[i] for i in range(subject.node.output_count)]
    return subject, checkpoint.to_bytes(Architecture("Model", inputs, outputs, []))  # type: ignore[arg-type]


def run(architecture: Architecture, subject: Subject) -> None:
    """Run a model that was loaded, if it is not too large for a test."""
    node = architecture.outputs[0].node
    assert isinstance(node, Op)
    try:
        sizes = [math.prod(s.shape or ()) * s.dtype.itemsize for s in node.specs]  # type: ignore[arg-type]
        sizes.append(node.scratch_bytes(subject.specs))
        if max(sizes) <= MOST_BYTES:
            arrays = [a for a in subject.arrays if a is not None]
            feed = dict(zip(architecture.inputs, arrays, strict=True))
            for training in (False, True):
                pf.compile(list(architecture.outputs)).run(feed, training=training)
    except pf.PyframeError:
        pass


@pytest.mark.parametrize("op_class", [o for o in OPS if o.attributes], ids=lambda c: c.op)
def test_by_file(op_class: type[Op]) -> None:
    try:
        subject, data = op_file(op_class)
    except pf.CheckpointError as error:
        assert "which would be lost" in str(error)  # a gradient that keeps more than attributes
        return
    assert checkpoint.from_bytes(data).outputs[0].node.attrs == subject.node.attrs
    refused = 0
    for key, right in subject.node.attrs.items():
        for value in filter(readable, hostile_values(right)):

            def change(document: Any, tensors: Any, key: str = key, value: Any = value) -> None:
                (record,) = [r for r in document["nodes"] if "op" in r]
                record["attributes"][key] = plain(value)

            try:
                loaded = checkpoint.from_bytes(rewritten(data, change), source="odd.pyframe")
            except pf.CheckpointError as error:
                refused += 1
                for part in ("odd.pyframe", NODE_NAME):
                    assert part in str(error), (key, value, str(error))
                assert key in str(error) or "got" in str(error), (key, value, str(error))
                continue
            run(loaded, subject)
    assert refused


def check_alone(op_class: type[Op]) -> None:
    """Check that an op that keeps more than its attributes is refused, and that others load."""
    subject = Subject(op_class, op_class.sample(Draw(0)), "float32", "Draw(0)")
    anew = new_op(op_class, subject.node.inputs, subject.node.states, subject.node.attrs, "odd")
    inputs = [v for v in subject.node.inputs if v is not None]
    data = checkpoint.to_bytes(Architecture("Model", inputs, [anew[0]], []))  # type: ignore[arg-type]
    kept = set(vars(subject.node)) - set(vars(anew)) - INCIDENTAL
    if kept:
        with pytest.raises(pf.CheckpointError, match=r"node \d+, .*'odd'.*without its gradients"):
            checkpoint.from_bytes(data)
    else:
        run(checkpoint.from_bytes(data), subject)


@pytest.mark.parametrize("op_class", OPS, ids=lambda c: c.op)
def test_a_node_without_what_it_keeps(op_class: type[Op]) -> None:
    check_alone(op_class)


@pytest.mark.parametrize("name", ["dropout_grad", "concat_grad"])
def test_a_node_that_does_not_say_what_it_keeps_is_noticed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    op_class = registry.ops.get(name)
    check_alone(op_class)
    monkeypatch.setattr(op_class, "keeps", ())
    with pytest.raises(pytest.fail.Exception):
        check_alone(op_class)


def cnn() -> Any:
    return pytest.importorskip("pyframe_cnn", reason="pyframe-cnn is not installed")


def images() -> Any:
    return pf.Placeholder("images", shape=(2, 8, 8, 2))


FILES: dict[str, tuple[Callable[[], Any], str, Any, str]] = {
    "a padding below zero": (lambda: cnn().ZeroPad(images(), 1), "padding", -1, "padding"),
    "a factor of zero": (lambda: cnn().UpSample(images(), 2), "factor", [0, 4], "factor"),
    "a dilation below zero": (
        lambda: cnn().Conv(images(), np.zeros((3, 3, 2, 4))),
        "dilation",
        [-3, -3],
        "dilation",
    ),
    "two extents of -1": (lambda: pf.Reshape(images(), (2, -1)), "shape", [-1, -1], "shape"),
    "a window beyond memory": (lambda: cnn().AvgPool(images(), 2), "window", 2**40, "window"),
    "half a dilation": (
        lambda: cnn().ConvTranspose(images(), np.zeros((3, 3, 4, 2))),
        "dilation",
        0.5,
        "dilation",
    ),
    "a part that is not there": (lambda: pf.Concat(images(), axis=1), "position", 7, "position"),
    "a rate of 2": (lambda: pf.Dropout(images(), 0.5), "rate", 2.0, "rate"),
    "an unknown word": (lambda: pf.Gelu(images()), "approximate", "erf", "approximate"),
    "no epsilon": (
        lambda: pf.LayerNorm(images(), np.ones(2), np.zeros(2)),
        "epsilon",
        0.0,
        "epsilon",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_built_to_do_harm_is_refused(name: str, tmp_path: Path) -> None:
    make, key, value, word = FILES[name]
    node = make()
    inputs = [v for v in node.inputs if v.node.op == "placeholder"]
    path = tmp_path / "harm.pyframe"
    pf.Model(inputs, node).save(path)

    def change(document: Any, tensors: Any) -> None:
        (record,) = [r for r in document["nodes"] if "op" in r]
        record["attributes"][key] = value

    path.write_bytes(rewritten(path.read_bytes(), change))
    with pytest.raises(pf.CheckpointError, match=word) as caught:
        pf.load(path)
    for part in ("harm.pyframe", "node ", node.op):
        assert part in str(caught.value)


# ---- documents ----

MISSING = object()
ODD: tuple[Any, ...] = (
    *(MISSING, None, True, -1, 0, 1, 2**40, 2**63, 2**64, 2**70, 0.5, 1e308, "", "x", "../x"),
    *([], [None], [[]], {}, {"x": 1}, {"number": "x"}, {"dict": 1}, {"tensor": "no"}),
    {"array": [1.0], "shape": [2**40], "dtype": "<f4"},
    {"array": ["x"], "shape": [1], "dtype": "V9"},
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every field of a document."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def change_at(document: Any, path: tuple[Any, ...], value: Any) -> None:
    """Put another value in one place of a document."""
    at = document
    for key in path[:-1]:
        at = at[key]
    if value is MISSING:
        del at[path[-1]]
    else:
        at[path[-1]] = value


def odd_files(data: bytes, within: tuple[Any, ...] = ()) -> Iterator[tuple[str, bytes]]:
    """Yield files with each field of the document made odd, and what was changed."""
    found: list[Any] = []
    rewritten(data, lambda document, tensors: found.append(document))
    for path in places(found[0]):
        if path[: len(within)] != within or path[0] in ("sha256", "format_version"):
            continue
        here: Any = found[0]
        for key in path:
            here = here[key]
        for value in (*ODD, [here], {"dict": here}):

            def change(document: Any, tensors: Any, path: Any = path, value: Any = value) -> None:
                change_at(document, path, value)

            shown = "nothing" if value is MISSING else json.dumps(value)
            yield f"{path} is {shown:.80}", rewritten(data, change)


def write_anew(path: Path, data: bytes) -> None:
    """Write a file in the place of another: one that is cut short first goes to the disk."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def model_layers() -> list[pf.layers.Layer]:
    layers = pf.layers
    return [
        layers.Dense(3, activation="relu"),
        layers.BatchNorm(),
        layers.Dropout(0.5),
        layers.Dense(2),
    ]


def model() -> pf.Sequential:
    return pf.Sequential(model_layers(), input_shape=(3,))


def test_every_field_of_a_model(tmp_path: Path) -> None:
    path = tmp_path / "odd.pyframe"
    loaded = 0
    # A second dense layer has the fields of the first one.
    model = pf.Sequential(model_layers()[:-1], input_shape=(3,))
    for what, file in odd_files(checkpoint.to_bytes(model.architecture)):
        write_anew(path, file)
        try:
            found = pf.load(path)
            loaded += 1
            found.predict(np.ones((4, 3)))
            found.summary()
        except pf.CheckpointError as error:
            assert "odd.pyframe" in str(error), (what, str(error))
        except pf.PyframeError:
            pass  # it loads, and is a model for other data
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__} {error}") from error
    assert loaded


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the file of a training that was stopped in the middle of an epoch."""
    path = tmp_path_factory.mktemp("training") / "run.pyframe"

    class Stop(pf.callbacks.Callback):
        def on_batch_end(self, trainer: Any, batch: int, logs: Any) -> None:
            if trainer.epochs_done == 0 and batch == 2:
                trainer.save(path)

    trainer = new_trainer()
    trainer.fit(*DATA, 2, 4, callbacks=[*listeners(), Stop()], seed=1, verbose=0)
    trainer.save(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def odd_trainings(training: bytes) -> list[tuple[str, bytes]]:
    """Return what `odd_files` makes of the training."""
    return list(odd_files(training, ("training",)))


DATA = (np.ones((16, 3), np.float32), np.ones((16, 2), np.float32))


def listeners() -> list[Any]:
    return [pf.callbacks.EarlyStopping("loss", patience=9)]


def new_trainer() -> Any:
    optimizer = pf.optimizers.Adam(pf.schedules.Cosine(0.1, total_steps=50))
    return pf.Trainer(model(), loss="l2", optimizer=optimizer, metrics=["mae"])


USES: dict[str, Callable[[Path], Any]] = {
    "load": lambda path: pf.Trainer.load(path).predict(DATA[0]),
    "restore": lambda path: new_trainer().restore(path),
    "resume": lambda path: new_trainer().fit(
        *DATA, 3, 4, callbacks=listeners(), seed=1, resume=path, verbose=0
    ),
    "inspect": lambda path: checkpoint.inspect(path),
}


@pytest.mark.parametrize("use", USES)
def test_every_field_of_a_training(
    use: str, training: bytes, odd_trainings: list[tuple[str, bytes]], tmp_path: Path
) -> None:
    path = tmp_path / "odd.pyframe"
    path.write_bytes(training)
    USES[use](path)
    refused = 0
    for what, file in odd_trainings:
        write_anew(path, file)
        try:
            USES[use](path)
        except pf.CheckpointError as error:
            refused += 1
            assert "odd.pyframe" in str(error), (what, str(error))
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__} {error}") from error
    assert refused > 100


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("epochs_done",), MISSING),
        (("fit", "columns"), MISSING),
        (("optimizer", "dict", "learning_rate", "dict", "total_steps"), MISSING),
        (("optimizer", "dict", "learning_rate", "dict", "rate"), 1),
        (("optimizer", "dict", "betas"), "x"),
        (("fit", "first_epoch"), 2**62),
        (("fit", "first_epoch"), 10**30),
        (("step",), 2**70),
    ],
)
def test_an_edited_training_is_refused(
    place: tuple[str, ...], value: Any, training: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "odd.pyframe"

    def change(document: Any, tensors: Any) -> None:
        change_at(document["training"], place, value)

    path.write_bytes(rewritten(training, change))
    for use in ("load", "resume"):
        if use == "resume" and place[0] == "optimizer":
            continue  # the optimizer is given
        with pytest.raises(pf.CheckpointError, match=place[-1].removesuffix("s")):
            USES[use](path)


# ---- calls ----


class Calls:
    """What the calls below are made on."""

    def __init__(self) -> None:
        self.x, self.y = pf.Placeholder("x", shape=(None, 3)), pf.Placeholder("y", shape=(None, 1))
        self.out = self.x @ pf.Parameter(np.ones((3, 1)), name="w")
        cost = pf.L2Loss(self.y, self.out)
        self.plan = pf.compile(cost, optimizer=pf.optimizers.SGD(0.1))
        self.feed = {self.x: np.ones((4, 3)), self.y: np.ones((4, 1))}
        self.model = model()
        self.trainer = new_trainer()
        self.trainer.fit(*DATA, 1, verbose=0)
        # More rows than there are addresses, and none of them takes any memory.
        self.many = np.broadcast_to(np.float32(1), (2**45, 3))


CALLS: dict[str, tuple[Callable[[Calls], Any], type[Exception]]] = {
    "a huge rate": (lambda c: c.plan.step(c.feed, 10**400), pf.ArgumentError),
    "a rate of an optimizer": (lambda c: pf.optimizers.SGD(10**400), pf.ArgumentError),
    "outputs of run": (lambda c: c.plan.run(c.feed, outputs=1), pf.GraphError),
    "outputs of compile": (lambda c: pf.compile(c.out, outputs=1), pf.GraphError),
    "no node": (lambda c: pf.compile(1), pf.GraphError),
    "the value of a number": (lambda c: c.plan.value(1), pf.GraphError),
    "rows without end": (lambda c: pf.compile(c.out).run({c.x: c.many}), pf.ResourceError),
    "rows to predict": (lambda c: c.model.predict(c.many), pf.ResourceError),
    "rows to evaluate": (lambda c: c.trainer.evaluate(c.many, c.many[:, :2]), pf.ResourceError),
    "rows to fit": (lambda c: c.trainer.fit(c.many, c.many[:, :2], 1), pf.ResourceError),
    "rows of a batch": (
        lambda c: c.trainer.fit(c.many, c.many[:, :2], 1, None, shuffle=False),
        pf.ResourceError,
    ),
    "save": (lambda c: c.model.save("a\0b"), pf.ArgumentError),
    "load": (lambda c: pf.load("a\0b"), pf.ArgumentError),
    "trainer.save": (lambda c: c.trainer.save("a\0b"), pf.ArgumentError),
    "Trainer.load": (lambda c: pf.Trainer.load("a\0b"), pf.ArgumentError),
    "restore": (lambda c: c.trainer.restore("a\0b"), pf.ArgumentError),
    "inspect": (lambda c: checkpoint.inspect("a\0b"), pf.ArgumentError),
    "describe": (lambda c: checkpoint.describe("a\0b"), pf.ArgumentError),
    "save to no file": (lambda c: c.model.save(None), pf.ArgumentError),  # type: ignore[arg-type]
    "half an axis": (lambda c: pf.Mean(c.x, 1.0), pf.ArgumentError),  # type: ignore[arg-type]
    "an axis of letters": (lambda c: pf.Sum(c.x, "a"), pf.ArgumentError),  # type: ignore[arg-type]
    "no shape": (lambda c: pf.Reshape(c.x, None), pf.ArgumentError),
    "a slope of letters": (lambda c: pf.LeakyRelu(c.x, "a"), pf.ArgumentError),  # type: ignore[arg-type]
    "half an extent": (lambda c: pf.Placeholder("z", shape=(2.5,)), pf.ShapeError),
    "one axis to transpose": (lambda c: pf.Transpose(c.x, 1), pf.ArgumentError),  # type: ignore[arg-type]
    "yes": (lambda c: pf.MatMul(c.x, c.y, "yes"), pf.ArgumentError),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_makes_no_sense(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    call, error = CALLS[name]
    if error is pf.ResourceError and "asan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("the sanitizer ends a process that asks for so much memory")
    with pytest.raises(error):
        call(Calls())
    assert not list(tmp_path.iterdir())
