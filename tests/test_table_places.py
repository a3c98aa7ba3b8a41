"""Where a training of a table writes: links, folders, files of others; and how far it had come."""

from __future__ import annotations

import json
import os
import signal
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pandas")

import pandas as pd

import pyframe as pf
from pyframe.commands import cli
from pyframe.errors import ArgumentError, CheckpointError
from pyframe.tabular import TabularModel, resuming

pytestmark = [pytest.mark.sklearn, pytest.mark.once]

RNG = np.random.default_rng(0)
TABLE = pd.DataFrame(RNG.normal(size=(120, 3)), columns=["a", "b", "c"])
TABLE["price"] = TABLE["a"] * 3 + TABLE["b"] ** 2
TRAIN = ["train", "t.csv", "--target", "price", "--layers", "8", "--quiet", "--epochs"]
QUICK: dict[str, Any] = {"layers": (8,), "epochs": 6}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    TABLE.to_csv("t.csv", index=False)
    return tmp_path


def stopping(monkeypatch: pytest.MonkeyPatch, fit: str = "early stopping", epoch: int = 3) -> None:
    """Have Ctrl-C come at the end of an epoch of the first or the second fit of a training."""

    def on_epoch_end(self: Any, trainer: Any, number: int, logs: Any) -> None:
        if self.stage.fit == fit and number == epoch:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(resuming.Interruption, "on_epoch_end", on_epoch_end, raising=False)


def stop(monkeypatch: pytest.MonkeyPatch, *options: str, **where: Any) -> None:
    with monkeypatch.context() as patch:
        stopping(patch, **where)
        assert cli.main([*TRAIN, "20", *options]) == 130


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line of an error."""
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pyframe: ") and "Traceback" not in line
    return line


# ---- going on ----


@pytest.mark.parametrize("option", [["--log", "l.csv"], ["--tensorboard", "runs"]])
@pytest.mark.parametrize("before", [True, False])
def test_logs_may_come_and_go(
    option: list[str], before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if option[0] == "--tensorboard":
        pytest.importorskip("tensorboardX")
    assert cli.main([*TRAIN, "20", "--out", "whole"]) == 0
    stop(monkeypatch, *(option if before else []))
    assert cli.main([*TRAIN, "20", "--resume", *([] if before else option)]) == 0
    one, other = TabularModel.load("whole"), TabularModel.load("model.pyframe")
    np.testing.assert_array_equal(one.predict(TABLE), other.predict(TABLE))
    if option[0] == "--log":
        lines = Path("l.csv").read_text().splitlines()
        assert len(lines) - 1 == (4 if before else len(one.history_["loss"]))


def test_a_log_that_is_gone_is_written_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.main([*TRAIN, "20", "--out", "whole", "--log", "whole.csv"]) == 0
    stop(monkeypatch, "--log", "l.csv")
    Path("l.csv").unlink()
    assert cli.main([*TRAIN, "20", "--resume", "--log", "l.csv"]) == 0
    assert Path("l.csv").read_text() == Path("whole.csv").read_text()


def test_logs_hear_nothing_of_the_epochs_on_all_rows_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stop(monkeypatch, fit="all rows")
    capsys.readouterr()
    assert cli.main([*TRAIN, "20", "--resume", "--log", "l.csv"]) == 0
    assert "only epochs on all rows are left" in capsys.readouterr().err


@pytest.mark.parametrize("fit", ["early stopping", "all rows"])
def test_fewer_epochs_than_there_were_are_refused(
    fit: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stop(monkeypatch, fit=fit)
    before = Path("model.pyframe.training").read_bytes(), Path("model.pyframe").read_bytes()
    capsys.readouterr()
    assert cli.main([*TRAIN, "3", "--resume"]) == 1
    line = said(capsys)
    assert "epochs=3, and" in line and "has had" in line and "model.pyframe.training" in line
    assert before == (
        Path("model.pyframe.training").read_bytes(),
        Path("model.pyframe").read_bytes(),
    )
    assert cli.main([*TRAIN, "20", "--resume"]) == 0


def test_as_many_epochs_as_there_were_end_the_first_part(monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = TabularModel((8,), epochs=4).fit(TABLE, "price")
        stop(monkeypatch)
        assert cli.main([*TRAIN, "4", "--resume"]) == 0
    found = TabularModel.load("model.pyframe").predict(TABLE)
    np.testing.assert_array_equal(found, whole.predict(TABLE))


# ---- places ----


def test_the_state_may_be_a_link_to_where_nothing_is_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("elsewhere").mkdir()
    state = Path("model.pyframe.training")
    state.symlink_to("elsewhere/state")
    stop(monkeypatch)
    assert state.is_symlink() and Path("elsewhere/state").exists()
    assert cli.main([*TRAIN, "20", "--resume"]) == 0
    assert state.is_symlink() and not Path("elsewhere/state").exists()
    assert cli.main([*TRAIN, "2"]) == 0


@pytest.mark.parametrize("name", ["model.pyframe", "model.pyframe.training"])
def test_a_link_into_a_folder_that_is_not_there_is_found_before_the_training(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(name).symlink_to("nowhere/file")
    assert cli.main([*TRAIN, "2"]) == 1
    assert name in said(capsys)


OPTIONS = {
    "a file in the place of the folder": ["--tensorboard", "file"],
    "a file above the folder": ["--tensorboard", "file/runs"],
    "a link to nowhere": ["--tensorboard", "link"],
    "no folder of ours": ["--tensorboard", "/proc/runs"],
    "a folder in the place of the log": ["--log", "folder.csv"],
    "a file above the log": ["--log", "file/l.csv"],
    "no file of ours": ["--log", "/proc/l.csv"],
    "a device": ["--out", "/dev/null"],
    "a name that is too long": ["--out", "x" * 300],
    "a link in a circle": ["--out", "circle"],
    "a picture over the model": ["--out", "p/loss.png", "--plot", "p"],
    "a file in the place of the pictures": ["--plot", "file"],
}


@pytest.mark.parametrize("what", OPTIONS)
def test_a_place_that_cannot_be_written_is_found_before_the_training(
    what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if what.startswith("no ") and not os.path.exists("/proc"):
        pytest.skip("there is no /proc")
    if "--tensorboard" in OPTIONS[what]:
        pytest.importorskip("tensorboardX")
    if "--plot" in OPTIONS[what]:
        pytest.importorskip("matplotlib")
    Path("file").touch()
    Path("folder.csv").mkdir()
    Path("link").symlink_to("no/where")
    Path("circle").symlink_to("circle")
    monkeypatch.setattr(TabularModel, "_scores", None)  # what comes after the first fit
    assert cli.main([*TRAIN, "2", *OPTIONS[what]]) == 1
    assert OPTIONS[what][1].removesuffix("/l.csv")[:100] in said(capsys)
    assert not Path("model.pyframe").exists()


def test_a_board_that_cannot_be_written_any_more_costs_no_epoch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    board = pytest.importorskip("tensorboardX")

    def full(self: Any, *rest: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(board.SummaryWriter, "flush", full)
    assert cli.main([*TRAIN, "3", "--tensorboard", "runs"]) == 0
    err = capsys.readouterr().err
    assert err.count("No space left") == 1 and "the training goes on" in err
    assert TabularModel.load("model.pyframe").n_iter_ == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "model.pyframe", "t.csv", "--out", "t.csv"],
        ["predict", "model.pyframe", "t.csv", "--out", "./model.pyframe"],
        ["predict", "model.pyframe", "t.csv", "--out", "link"],
        ["export", "m.safetensors", "--out", "m.safetensors"],
        ["export", "m.json", "--out", "m.npz"],
    ],
)
def test_nothing_is_written_over_what_is_read(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*TRAIN, "2", "--out", arguments[1]]) == 0
    Path("link").symlink_to("t.csv")
    before = {path: path.read_bytes() for path in Path().iterdir()}
    capsys.readouterr()
    assert cli.main(arguments) == 1
    assert "choose another file" in said(capsys)
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


# ---- what a file says ----

ODD: dict[str, Any] = {
    "layers": [3, "ab", [0], ["a"], [{}], [[1]], {"pairs": []}],
    "task": ["clustering", 1, []],
    "target": [1, ["a"]],
    "epochs": [0, "x", 1.5, None],
    "batch_size": [0, "x", [1]],
    "learning_rate": ["x", None, -1.0, {"number": "nan"}],
    "optimizer": [3, None, [1]],
    "validation": [1, "x", None, {"number": "nan"}],
    "patience": [0, "x"],
    "label_smoothing": [1, -1, "x"],
    "max_categories": [0, "x"],
    "kinds": [3, ["a"], {"pairs": [["a", "odd"]]}, {"pairs": [["a", 3]]}, "number"],
    "random_state": [-1, "x", 1.5],
    "verbose": ["x", None, []],
}


@pytest.fixture(scope="module")
def fitted() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return TabularModel((4,), epochs=2).fit(TABLE, "price")


@pytest.mark.parametrize(
    ("name", "odd"), [(name, one) for name, some in ODD.items() for one in some]
)
def test_odd_arguments_are_refused_by_a_file_and_by_a_fit(fitted: Any, name: str, odd: Any) -> None:
    kept = json.loads(json.dumps(fitted.as_json()))
    kept["arguments"][name] = odd
    model = fitted.model_
    before = model.extra
    try:
        model.extra = {"tabular": kept}
        model.save("m")
    finally:
        model.extra = before
    if odd == [{}]:  # what it stands for cannot be found out
        with pytest.raises(CheckpointError, match="m does not describe"):
            TabularModel.load("m")
        return
    with pytest.raises(CheckpointError, match=name):
        TabularModel.load("m")
    value = pf.checkpoint.arguments.unpack({name: odd})[name]
    with pytest.raises(ArgumentError, match=name):
        TabularModel(**{name: value}).fit(TABLE, None if name == "target" else "price")


def test_the_arguments_of_a_grid_are_taken() -> None:
    given = {"layers": [np.int64(4)], "epochs": np.int64(1), "validation": np.float32(0.25)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        TabularModel(**given, verbose=False, random_state=None).fit(TABLE, "price")
        TabularModel(np.array([4, 4]), epochs=1, optimizer=pf.optimizers.Adam).fit(TABLE, "price")


def test_a_fit_that_fails_leaves_what_was_learned(fitted: Any) -> None:
    before, columns = fitted.predict(TABLE), fitted.columns_
    other = pd.DataFrame({"q": ["x", "y"] * 50, "r": np.arange(100.0) % 7, "price": ["yes"] * 100})
    for target in ("price", "missing"):
        with pytest.raises(pf.PyframeError):
            fitted.fit(other, target)
    assert fitted.task_ == "regression" and fitted.target_ == "price"
    assert fitted.columns_ is columns
    np.testing.assert_array_equal(fitted.predict(TABLE), before)
