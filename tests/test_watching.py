"""Callbacks that log, watch, set rates and end fits: what they write, and what goes wrong."""

from __future__ import annotations

import copy
import csv
import json
import math
import os
import subprocess
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.callbacks import (
    Callback,
    CSVLogger,
    GradualUnfreezing,
    HealthCheck,
    JSONLogger,
    LearningRateFinder,
    LearningRateScheduler,
    MLflowLogger,
    ModelCheckpoint,
    TensorBoard,
    TerminateOnNaN,
    TimeLimit,
    WeightAverage,
)
from pyframe.layers import Dense

pytestmark = pytest.mark.once

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype("float32")
Y = X @ np.array([1.0, 2.0, 3.0], "float32")


def trainer(*layers: Any, rate: float = 0.01, **options: Any) -> pf.Trainer:
    pf.set_seed(0)
    model = pf.Sequential([*layers, Dense(4, activation="relu"), Dense(1)], input_shape=(3,))
    return pf.Trainer(model, optimizer=pf.optimizers.SGD(rate), **options)


def fit(work: pf.Trainer, epochs: int = 4, **options: Any) -> pf.History:
    return work.fit(X, Y, epochs, 8, verbose=0, **options)


def weights(work: pf.Trainer) -> np.ndarray:
    return np.concatenate([v.ravel() for v in work.model.get_weights().values()])


# ---- logs ----


def test_a_csv_holds_the_bits_of_the_history(tmp_path: Path) -> None:
    path = tmp_path / "a" / "log.csv"
    log = CSVLogger(path, separator=";")
    work = trainer(callbacks=[log])
    history = fit(work, validation_split=0.2)
    rows = list(csv.DictReader(path.read_text().splitlines(), delimiter=";"))
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2, 3]
    for name in ("loss", "val_loss"):
        assert [float(row[name]) for row in rows] == history[name]
    fit(work, 2, validation_split=0.2)  # the next fit begins anew
    assert [
        row["epoch"] for row in csv.DictReader(path.read_text().splitlines(), delimiter=";")
    ] == ["4", "5"]


def test_append_goes_on_behind_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    work = trainer(callbacks=[CSVLogger(path, append=True)])
    fit(work, 2)
    fit(work, 2)
    assert [row["epoch"] for row in csv.DictReader(path.read_text().splitlines())] == [
        "0",
        "1",
        "2",
        "3",
    ]


def test_json_lines_are_json_also_of_nan(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with pytest.warns(pf.DivergenceWarning):
        fit(trainer(rate=1e20, callbacks=[JSONLogger(path)]), 3)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert lines[-1]["loss"] is None


COUNTING = {
    "csv": lambda folder: CSVLogger(folder / "log"),
    "json": lambda folder: JSONLogger(folder / "log"),
    "finder": lambda folder: LearningRateFinder(steps=20),
    "scheduler": lambda folder: LearningRateScheduler(lambda epoch, rate: rate * 0.9),
    "unfreezing": lambda folder: GradualUnfreezing(every=2),
    "health": lambda folder: HealthCheck(),
    "average": lambda folder: WeightAverage(every="step"),
    "best": lambda folder: ModelCheckpoint(folder / "{epoch}", "loss", keep=2),
    "nan": lambda folder: TerminateOnNaN(),
    "limit": lambda folder: TimeLimit(hours=1),
    "board": lambda folder: TensorBoard(folder / "runs", histograms=1),
}


def written(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in folder.glob("log")}


@pytest.mark.parametrize("name", COUNTING)
def test_a_resumed_fit_comes_to_the_same_bits(name: str, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    first = trainer()
    expected = fit(first, 6, callbacks=[COUNTING[name](whole)])
    saved = parts / "saved.pyframe"
    save = pf.callbacks.LambdaCallback(
        on_epoch_end=lambda t, epoch, logs: t.save(saved) if epoch == 2 else None
    )
    fit(trainer(), 5, callbacks=[COUNTING[name](parts), save])  # two epochs too many: killed later
    again = trainer()
    history = fit(again, 6, callbacks=[COUNTING[name](parts), save], resume=saved)
    assert history == expected
    np.testing.assert_array_equal(weights(again), weights(first))
    assert written(parts) == written(whole)


@pytest.mark.parametrize("name", COUNTING)
def test_a_copy_is_one_of_its_own(name: str, tmp_path: Path) -> None:
    made = COUNTING[name](tmp_path)
    fit(trainer(), 2, callbacks=[made])
    before = {k: repr(v) for k, v in vars(made).items()}
    for copied in (copy.deepcopy(made), copy.copy(made)):
        assert repr(copied) == repr(made)
        fit(trainer(), 3, callbacks=[copied])
        assert {k: repr(v) for k, v in vars(made).items()} == before


# ---- trouble ----


@pytest.mark.parametrize("make", [CSVLogger, JSONLogger, TensorBoard])
def test_a_folder_that_cannot_be_written_is_said_before_the_first_step(
    make: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    work = trainer()
    before = weights(work)
    with pytest.raises(OSError, match="file"):
        fit(work, callbacks=[make(tmp_path / "file" / "log")])
    np.testing.assert_array_equal(weights(work), before)
    assert fit(work).epochs == 4


def test_a_disk_that_fills_up_costs_no_epoch(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    log = CSVLogger(tmp_path / "log.csv")

    def break_(trainer: Any, epoch: int) -> None:
        if epoch == 1:
            log.close()
            log._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115

    breaker = pf.callbacks.LambdaCallback(on_epoch_start=break_)
    with pytest.warns(UserWarning, match="cannot be written any more"):
        history = fit(trainer(), callbacks=[breaker, log])
    assert history.epochs == 4


class Bad(Callback):
    def __init__(self, event: str) -> None:
        self.event, self.closed = event, 0

    def close(self) -> None:
        self.closed += 1

    def _raise(self, event: str, when: bool) -> None:
        if event == self.event and when:
            raise RuntimeError("spoilt")

    def on_epoch_start(self, trainer: Any, epoch: int) -> None:
        self._raise("on_epoch_start", epoch == 2)

    def on_batch_end(self, trainer: Any, step: int, logs: Any) -> None:
        self._raise("on_batch_end", step == 10)

    def on_epoch_end(self, trainer: Any, epoch: int, logs: Any) -> None:
        self._raise("on_epoch_end", epoch == 1)


@pytest.mark.parametrize("event", ["on_epoch_start", "on_batch_end", "on_epoch_end"])
def test_a_callback_that_raises_costs_no_epoch(event: str, tmp_path: Path) -> None:
    bad, log = Bad(event), CSVLogger(tmp_path / "log.csv")
    work = trainer()
    with pytest.raises(RuntimeError, match="spoilt") as caught:
        fit(work, callbacks=[log, bad])
    notes = "\n".join(caught.value.__notes__)
    assert f"raised in {event} of the callback Bad" in notes
    assert "trainer.history" in notes
    assert work.history is not None and work.history.epochs == 2
    expected = trainer()
    assert fit(expected, 2) == work.history
    np.testing.assert_array_equal(weights(work), weights(expected))
    assert bad.closed == 1 and log._file is None
    assert fit(work, 1).epochs == 1


SCRIPT = """
import numpy as np, pyframe as pf
from pyframe.callbacks import *
X = np.ones((16, 2), "f")
trainer = pf.Trainer(pf.Sequential([pf.layers.Dense(1)]))
logs = [CSVLogger("log.csv"), TensorBoard("runs"), RichProgressBar(), TimeLimit(60)]
history = trainer.fit(X, X[:, 0], 3, callbacks=logs)
trainer.model.save(f"{history.epochs}.pyframe")
"""


@pytest.mark.parametrize("trouble", ["no home", "closed", "broken pipe"])
def test_without_a_home_or_a_terminal_it_trains(trouble: str, tmp_path: Path) -> None:
    pytest.importorskip("rich")
    pytest.importorskip("tensorboardX")
    kept = {k: v for k, v in os.environ.items() if trouble != "no home" or k != "HOME"}
    command = [sys.executable, "-P", "-c", SCRIPT]
    if trouble == "closed":
        command = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *command]
    if trouble == "broken pipe":
        reading, writing = os.pipe()
        os.close(reading)
        subprocess.run(command, cwd=tmp_path, env=kept, stdout=writing, stderr=writing, timeout=120)
        os.close(writing)
    else:
        subprocess.run(command, cwd=tmp_path, env=kept, check=True, timeout=120)
    assert (tmp_path / "3.pyframe").exists()
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 4


def test_a_notebook_gets_the_bar_of_tqdm_for_notebooks(monkeypatch: pytest.MonkeyPatch) -> None:
    from tqdm import auto

    bars: list[Any] = []

    class Bar(auto.tqdm):  # type: ignore[misc]
        def __init__(self, *given: Any, **options: Any) -> None:
            super().__init__(*given, **options)
            bars.append(self)

    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    monkeypatch.setattr(auto, "tqdm", Bar)
    trainer().fit(X, Y, 3, 8)
    (bar,) = bars
    assert (bar.n, bar.total) == (120, 120) and bar.disable  # it is closed


# ---- boards ----


def test_tensorboard_gets_scalars_histograms_images_and_the_graph(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto import event_pb2
    from tensorboardX.record_writer import RecordWriter  # noqa: F401

    images = RNG.random(size=(8, 4, 4, 1)).astype("float32")
    model = pf.Sequential([pf.layers.Flatten(), Dense(1)], input_shape=(4, 4, 1))
    board = TensorBoard(tmp_path / "runs", histograms=1, images=3, steps=2)
    work = pf.Trainer(model, callbacks=[board])
    work.fit(images, images.mean((1, 2, 3)), 2, 2, verbose=0)
    (file,) = (tmp_path / "runs").iterdir()
    data, events = file.read_bytes(), []
    while data:  # length (8 bytes), its checksum (4), the event, its checksum
        length = int.from_bytes(data[:8], "little")
        events.append(event_pb2.Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    values = [value for event in events for value in event.summary.value]
    tags = {value.tag for value in values}
    assert {"loss", "learning_rate", "batch/loss", "weights/dense/weight"} <= tags
    assert "gradients/dense/weight" in tags
    assert sum(value.HasField("image") for value in values) >= 1
    assert [v.simple_value for v in values if v.tag == "loss"] == [
        pytest.approx(v) for v in work.history["loss"]
    ]
    assert any(event.graph_def for event in events)
    assert board.writer is None


class FakeMLflow(types.ModuleType):
    def __init__(self) -> None:
        super().__init__("mlflow")
        self.said: list[Any] = []
        self.run: Any = None

    def active_run(self) -> Any:
        return self.run

    def start_run(self, run_name: Any = None, run_id: str = "one") -> None:
        self.run = types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_id))
        self.said.append(("start", run_id))

    def end_run(self, status: str = "FINISHED") -> None:
        self.run = None
        self.said.append(("end", status))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *given, **options: self.said.append((name, *given, *options.values()))


@pytest.mark.parametrize("spoilt", [False, True])
def test_mlflow_gets_arguments_numbers_and_the_model(
    spoilt: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeMLflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    work = trainer()
    callbacks = [MLflowLogger(experiment="e", log_model=not spoilt)]
    if spoilt:
        with pytest.raises(RuntimeError):
            fit(work, callbacks=[*callbacks, Bad("on_epoch_end")])
    else:
        fit(work, 2, callbacks=callbacks)
    said = {entry[0]: entry for entry in fake.said}
    assert said["log_params"][1]["optimizer"] == "sgd"
    steps = [entry for entry in fake.said if entry[0] == "log_metrics"]
    assert [entry[1]["loss"] for entry in steps] == work.history["loss"]
    assert [entry[2] for entry in steps] == [0, 1]
    assert ("log_artifact" in said) is not spoilt
    assert fake.said[-1] == ("end", "FAILED" if spoilt else "FINISHED")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(pf.errors.MissingExtraError, match=r"pyframe-nn\[mlflow\]"):
        fit(trainer(), callbacks=[MLflowLogger()])


# ---- rates, times and layers ----


def test_a_scheduler_sets_the_rate_of_each_epoch() -> None:
    scheduler = LearningRateScheduler(lambda epoch: 0.01 * (epoch + 1))
    work = trainer(callbacks=[scheduler])
    fit(work, 3)
    assert scheduler.rates == [0.01, 0.02, 0.03]
    assert work.optimizer.learning_rate == 0.03
    by_hand = trainer()
    for rate in scheduler.rates:
        by_hand.optimizer.learning_rate = rate
        fit(by_hand, 1)
    np.testing.assert_array_equal(weights(work), weights(by_hand))


@pytest.mark.parametrize("rate", [-1.0, math.nan, "much"])
def test_a_schedule_that_gives_no_rate_is_refused(rate: Any) -> None:
    with pytest.raises(pf.ArgumentError, match="the learning rate of epoch 0"):
        fit(trainer(), callbacks=[LearningRateScheduler(lambda epoch: rate)])


def test_a_finder_changes_the_rate_and_nothing_else() -> None:
    finder = LearningRateFinder(high=10.0)
    work = trainer(callbacks=[finder])
    history = fit(work)
    assert work.optimizer.learning_rate == finder.learning_rate == finder.found.suggestion
    plain = trainer(rate=finder.learning_rate)
    assert fit(plain) == history
    np.testing.assert_array_equal(weights(plain), weights(work))


def test_a_time_limit_ends_a_fit_in_the_middle() -> None:
    limit = TimeLimit(0.1)
    history = fit(trainer(), 10**8, callbacks=[limit])
    assert limit.stopped and history.epochs < 10**8
    assert not fit(trainer(), 1, callbacks=[limit]).interrupted
    assert not limit.stopped
    for bad in ({}, {"seconds": -1}, {"hours": 1e99}):
        with pytest.raises(pf.ArgumentError):
            TimeLimit(**bad)


@pytest.mark.parametrize("every", ["step", "epoch"])
def test_nan_ends_a_fit(every: str) -> None:
    stop = TerminateOnNaN(every)
    with pytest.warns(pf.DivergenceWarning) if every == "epoch" else pytest.MonkeyPatch.context():
        history = fit(trainer(rate=1e20), 50, callbacks=[stop])
    assert history.epochs < 3 and stop.stopped_epoch is not None


def test_layers_thaw_one_by_one() -> None:
    work = trainer(Dense(5, activation="tanh"))
    thaw = GradualUnfreezing(every=2)
    seen: list[list[bool]] = []
    kept = [[p.value.copy() for p in layer.parameters] for layer in work.model.layers]

    def look(trainer: Any, epoch: int, logs: Any) -> None:
        now = [[p.value.copy() for p in layer.parameters] for layer in work.model.layers]
        seen.append([not np.array_equal(a[0], b[0]) for a, b in zip(now, kept, strict=True)])

    watch = pf.callbacks.LambdaCallback(on_epoch_end=look)
    fit(work, 6, callbacks=[thaw, watch])
    f, t = False, True
    assert seen == [[f, f, t], [f, f, t], [f, t, t], [f, t, t], [t, t, t], [t, t, t]]


def test_the_k_best_files_are_kept(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path / "{epoch}.pyframe", "loss", mode="max", keep=2)
    history = fit(trainer(), 5, callbacks=[keep])
    assert {p.name for p in tmp_path.iterdir()} == {"0.pyframe", "1.pyframe"}
    assert [value for value, _ in keep.kept] == sorted(history["loss"], reverse=True)[:2]
    with pytest.raises(pf.ArgumentError, match="epoch"):
        fit(trainer(), callbacks=[ModelCheckpoint(tmp_path / "one", "loss", keep=2)])


# ---- health ----


def findings(*layers: Any, rate: float = 1e-3, scale: float = 1.0) -> str:
    pf.set_seed(0)
    health = HealthCheck()
    model = pf.Sequential([*layers, Dense(1)], input_shape=(3,))
    work = pf.Trainer(model, optimizer=pf.optimizers.SGD(rate), callbacks=[health])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        work.fit(X * scale, Y * scale, 2, 8, verbose=0)
    return "\n".join(health.findings)


def test_a_healthy_net_has_no_findings() -> None:
    assert not findings(Dense(16, activation="relu"), Dense(16, activation="tanh"))


def test_sick_nets_are_told_in_plain_words() -> None:
    deep = [Dense(4, activation="sigmoid") for _ in range(12)]
    assert "vanish" in findings(*deep)
    assert "explode" in findings(Dense(16), Dense(16), rate=0.0, scale=1e6)
    low = Dense(8, activation="relu", bias_initializer=lambda: np.full(8, -100.0))
    assert "dead" in findings(low)
    assert "ends of its range" in findings(Dense(8, activation="tanh"), scale=1e4)


# ---- where NaN comes from ----


def told(**given: Any) -> str:
    layers = given.pop("layers", [Dense(1)])
    pf.set_seed(0)
    work = pf.Trainer(
        pf.Sequential(layers, input_shape=(3,)),
        optimizer=pf.optimizers.SGD(given.pop("rate", 0.0), nonfinite="skip"),
    )
    with pytest.warns(pf.DivergenceWarning) as found:
        work.fit(**{"X": X, "Y": Y, "epochs": 2, "verbose": 0, **given})
    return str(found[0].message)


def spoilt(array: Any, row: int) -> Any:
    array = array.copy()
    array[row] = np.nan
    return array


def test_the_first_bad_node_is_named() -> None:
    assert "the data hold NaN in row 7" in told(X=spoilt(X, 7))
    assert "the targets hold NaN in row 5" in told(Y=spoilt(Y, 5))
    assert "in row 2" in told(validation_data=(spoilt(X, 2), Y))
    log = pf.layers.Activation(lambda x: pf.Log(x - 1e6))
    assert "Log), which gives NaN: usually there is no logarithm" in told(layers=[Dense(1), log])
    exp = pf.layers.Activation(lambda x: pf.Exp(x * 1e3))
    assert "Exp), which gives infinity: usually float32 has no exp" in told(layers=[Dense(1), exp])
    model = pf.Sequential([Dense(1)], input_shape=(3,))
    work = pf.Trainer(model, optimizer=pf.optimizers.SGD(1e20))
    with pytest.warns(pf.DivergenceWarning, match="the parameter 'dense/weight', which holds"):
        work.fit(X, Y, 3, verbose=0)


# ---- plugins ----


def test_plugins_hear_of_epochs_and_batches() -> None:
    class Listener:
        heard: list[Any] = []

        @pf.hookimpl
        def pyframe_epoch_start(self, trainer: Any, epoch: int) -> None:
            self.heard.append(("epoch", epoch))

        @pf.hookimpl
        def pyframe_batch_end(self, trainer: Any, step: int, logs: Any) -> None:
            self.heard.append((step, logs["loss"] > 0))

    listener = Listener()
    pf.plugins.register(listener)
    try:
        fit(trainer(), 1)
    finally:
        pf.plugins.unregister(listener)
    assert Listener.heard == [("epoch", 0), *((step, True) for step in range(1, 6))]


# ---- names of others ----

NAMES = [
    "EarlyStopping",
    "ModelCheckpoint",
    "CSVLogger",
    "TensorBoard",
    "TerminateOnNaN",
    "LearningRateScheduler",
    "ReduceLROnPlateau",
    "LRScheduler",
    "Checkpoint",
    "Timer",
    "RichProgressBar",
    "LearningRateFinder",
    "StochasticWeightAveraging",
    "SwapEMAWeights",
    "BackupAndRestore",
    "TensorBoardLogger",
    "MLflow",
    "LambdaCallback",
    "BackboneFinetuning",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_others_answer(name: str) -> None:
    try:
        assert issubclass(getattr(pf.callbacks, name), Callback)
    except AttributeError as error:
        assert "write pyframe.callbacks." in str(error)
