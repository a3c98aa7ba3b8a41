"""What only watches need not be there when a fit is resumed, and reports all of it if it is."""

from __future__ import annotations

import itertools
import json
import math
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from test_watching import FakeMLflow, fit, trainer, weights

import pyframe as pf
from pyframe.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    HealthCheck,
    JSONLogger,
    LambdaCallback,
    MLflowLogger,
    ModelCheckpoint,
    TensorBoard,
)

pytestmark = pytest.mark.once


class Counter(Callback):
    only_watches: ClassVar[bool] = True

    def __init__(self) -> None:
        self.epochs = 0

    def on_epoch_end(self, trainer: Any, epoch: int, logs: Any) -> None:
        self.epochs += 1

    def training_state(self, trainer: Any) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def restore_training_state(self, trainer: Any, state: dict[str, Any]) -> None:
        self.epochs = state["epochs"]


WATCHERS: dict[str, Any] = {
    "csv": lambda folder: CSVLogger(folder / "log"),
    "json": lambda folder: JSONLogger(folder / "log"),
    "health": lambda folder: HealthCheck(),
    "best": lambda folder: ModelCheckpoint(folder / "best", "loss", save_best_only=True),
    "board": lambda folder: TensorBoard(folder / "runs"),
    "own": lambda folder: Counter(),
}


def saving(path: Path, at: int = 2) -> Callback:
    return LambdaCallback(on_epoch_end=lambda t, epoch, _: t.save(path) if epoch == at else None)


@pytest.mark.parametrize("name", WATCHERS)
@pytest.mark.parametrize("before", [True, False])
def test_the_other_fit_may_have_none(name: str, before: bool, tmp_path: Path) -> None:
    if name == "board":
        pytest.importorskip("tensorboardX")
    made, path = WATCHERS[name](tmp_path), tmp_path / "saved"
    whole = trainer()
    expected = fit(whole, 6, callbacks=[EarlyStopping("loss")])
    first = [made] if before else []
    fit(trainer(), 3, callbacks=[*first, EarlyStopping("loss"), saving(path)])
    again = trainer()
    callbacks = [EarlyStopping("loss"), *([] if before else [made])]
    assert fit(again, 6, callbacks=callbacks, resume=path) == expected
    np.testing.assert_array_equal(weights(again), weights(whole))


def test_one_of_a_kind_gets_back_what_it_had(tmp_path: Path) -> None:
    path, counters = tmp_path / "saved", (Counter(), Counter())
    fit(trainer(), 3, callbacks=[counters[0], HealthCheck(), saving(path)])
    fit(trainer(), 5, callbacks=[HealthCheck(), counters[1], Counter()], resume=path)
    assert counters[1].epochs == 5 - 3 + counters[0].epochs


def test_what_decides_has_to_be_the_same(tmp_path: Path) -> None:
    path = tmp_path / "saved"
    fit(trainer(), 3, callbacks=[CSVLogger(tmp_path / "log"), EarlyStopping("loss"), saving(path)])
    with pytest.raises(pf.CheckpointError, match=r"had the callbacks EarlyStopping .*has none"):
        fit(trainer(), 6, callbacks=[CSVLogger(tmp_path / "log")], resume=path)


LOGS = {"csv": CSVLogger, "json": JSONLogger}


@pytest.mark.parametrize("kind", LOGS)
@pytest.mark.parametrize("lost", ["never there", "gone", "cut off", "another name"])
def test_a_log_has_all_epochs(kind: str, lost: str, tmp_path: Path) -> None:
    whole, path, log = tmp_path / "whole", tmp_path / "saved", tmp_path / "log"
    fit(trainer(), 6, callbacks=[LOGS[kind](whole)], validation_split=0.2)
    callbacks = [] if lost == "never there" else [LOGS[kind](log)]
    fit(trainer(), 4, callbacks=[*callbacks, saving(path)], validation_split=0.2)
    if lost == "gone":
        log.unlink()
    elif lost == "cut off":
        log.write_bytes(log.read_bytes()[:20])
    log = tmp_path / "b" if lost == "another name" else log
    fit(trainer(), 6, callbacks=[LOGS[kind](log)], validation_split=0.2, resume=path)
    assert log.read_text() == whole.read_text()


def test_a_log_that_is_appended_to_keeps_what_was_there(tmp_path: Path) -> None:
    log, path = tmp_path / "log", tmp_path / "saved"
    log.write_text("before\n")
    fit(trainer(), 3, callbacks=[JSONLogger(log, append=True), saving(path)])
    fit(trainer(), 5, callbacks=[JSONLogger(log, append=True)], resume=path)
    before, *lines = log.read_text().splitlines()
    assert before == "before" and [json.loads(line)["epoch"] for line in lines] == [0, 1, 2, 3, 4]


def test_an_epoch_whose_line_was_not_written_gets_it_later(tmp_path: Path) -> None:
    log, path = tmp_path / "log", tmp_path / "saved"

    def fail(work: Any, epoch: int, logs: Any) -> None:
        if epoch == 2:
            raise RuntimeError

    work = trainer()
    with pytest.raises(RuntimeError):
        fit(work, 5, callbacks=[LambdaCallback(on_epoch_end=fail), CSVLogger(log)])
    assert len(log.read_text().splitlines()) == 3
    work.save(path)
    fit(trainer(), 5, callbacks=[CSVLogger(log)], resume=path)
    assert [line.split(",")[0] for line in log.read_text().split()] == ["epoch", *"01234"]


def test_what_another_callback_adds_to_the_logs_is_not_known_of_earlier_epochs(
    tmp_path: Path,
) -> None:
    path, log = tmp_path / "saved", tmp_path / "log"
    fit(trainer(), 2, callbacks=[saving(path, 1)])
    add = LambdaCallback(on_epoch_end=lambda t, epoch, logs: logs.update(more=7.0))
    fit(trainer(), 3, callbacks=[add, CSVLogger(log)], resume=path)
    names, *rows = (line.split(",") for line in log.read_text().split())
    assert names == ["epoch", "loss", "more"] or names == ["epoch", "more", "loss"]
    found = [float(row[names.index("more")]) for row in rows]
    assert math.isnan(found[0]) and math.isnan(found[1]) and found[2] == 7.0


@pytest.mark.parametrize("lost", ["never there", "gone", "kept"])
def test_tensorboard_shows_all_epochs(lost: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    path, runs = tmp_path / "saved", tmp_path / "runs"
    callbacks = [] if lost == "never there" else [TensorBoard(runs)]
    fit(trainer(), 4, callbacks=[*callbacks, saving(path)])
    if lost == "gone":
        for file in runs.iterdir():
            file.unlink()
    if lost == "kept":
        (file,) = runs.iterdir()
        file.rename(runs / f"{file.name}.1")  # its name is the second in which it was made
    history = fit(trainer(), 6, callbacks=[TensorBoard(runs, histograms=1)], resume=path)
    found = dict(
        sorted(
            itertools.chain.from_iterable(scalars(file, "loss") for file in sorted(runs.iterdir()))
        )
    )
    assert list(found) == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(list(found.values()), history["loss"], rtol=1e-6)


def scalars(file: Path, name: str) -> list[tuple[int, float]]:
    from tensorboardX.proto import event_pb2
    from tensorboardX.record_writer import directory_check  # noqa: F401

    data, found = file.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        event = event_pb2.Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]
        found += [(event.step, v.simple_value) for v in event.summary.value if v.tag == name]
    return found


@pytest.mark.parametrize("own", [True, False])
def test_a_run_of_mlflow_has_all_epochs(
    own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, path = FakeMLflow(), tmp_path / "saved"
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    fit(trainer(), 4, callbacks=[*([MLflowLogger()] if own else []), saving(path)])
    fake.said.clear()
    fit(trainer(), 6, callbacks=[MLflowLogger(log_model=False)], resume=path)
    steps = [entry[2] for entry in fake.said if entry[0] == "log_metrics"]
    assert steps == ([3, 4, 5] if own else [0, 1, 2, 3, 4, 5])


def test_fewer_epochs_than_there_were_are_refused(tmp_path: Path) -> None:
    path, work = tmp_path / "saved", trainer()
    fit(work, 4)
    work.save(path)
    with pytest.raises(pf.ArgumentError, match=r"epochs=2, .*saved has had 4"):
        fit(trainer(), 2, resume=path)
    again = trainer()
    assert fit(again, 4, resume=path).epochs == 4
    np.testing.assert_array_equal(weights(again), weights(work))


def test_odd_states_of_watchers_are_refused(tmp_path: Path) -> None:
    path, log = tmp_path / "saved", tmp_path / "log"

    class Odd(CSVLogger):
        def training_state(self, trainer: Any) -> dict[str, Any]:
            return {"size": 0, "reported": 9}

    Odd.__name__ = "CSVLogger"
    fit(trainer(), 3, callbacks=[Odd(log), saving(path)])
    with pytest.raises(pf.CheckpointError, match="reported is 9"):
        fit(trainer(), 6, callbacks=[CSVLogger(log)], resume=path)
