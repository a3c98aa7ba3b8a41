"""The commands for tables: from a CSV to predictions, and how mistakes end."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tables import FRAME, PRICES, TABLE, stopping_at

import pyframe as pf
from pyframe.commands import cli
from pyframe.tabular import TableNetwork, TabularModel

pytestmark = [
    pytest.mark.sklearn,
    pytest.mark.once,
    pytest.mark.filterwarnings("ignore:it was still getting better"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("tables")
    FRAME.drop(columns=["id", "one", "price"]).to_csv(place / "t.csv", index=False)
    assert shell(place, "train t.csv --target dear --layers 16 --epochs 30 --quiet").returncode == 0
    return place


def shell(place, arguments, before="", after="", **options):
    command = f'{before} "{sys.executable}" -m pyframe {arguments} {after}'
    return subprocess.run(
        ["bash", "-c", command], cwd=place, capture_output=True, text=True, timeout=200, **options
    )


def test_from_a_csv_to_a_prediction(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)

    def said(arguments):
        assert cli.main(arguments.split()) == 0
        return capsys.readouterr().out

    lines = said("predict model.pyframe t.csv").splitlines()
    assert lines[0] == "prediction" and len(lines) == 301 and set(lines[1:]) == {"yes", "no"}
    assert shell(folder, "predict model.pyframe - --proba < t.csv").stdout.startswith("no,yes\n")
    scores = json.loads(said("evaluate model.pyframe t.csv --json"))
    assert scores["accuracy"] > 0.8
    worth = json.loads(said("explain model.pyframe t.csv --json"))
    assert set(worth) == {"size", "town", "day", "open"}
    assert "classification of 'dear', 2 classes" in said("summary model.pyframe")
    assert said("plot model.pyframe --out p").split() == ["p/loss.png", "p/graph.png"]
    for suffix in ("npz", "safetensors"):
        said(f"export model.pyframe --out w.{suffix}")
    with np.load(folder / "w.npz") as weights:
        assert set(weights) == set(pf.load(folder / "model.pyframe").get_weights())
    assert json.loads((folder / "w.json").read_text())["classes"] == ["no", "yes"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("train t.csv --target Dera --out x", 1, "did you mean 'dear'"),
        ("train none.csv --target dear --out x", 1, "none.csv"),
        ("train t.csv --target dear --out no/where.pyframe", 1, "no/where.pyframe"),
        ("train t.csv --target dear --out .", 1, "folder"),
        ("train t.csv --target dear --optimizer nonsense --out x", 1, "nonsense"),
        ("train t.csv", 2, "--target"),
        ("train t.csv --target dear --layers a", 2, "--layers"),
        ("predict t.csv t.csv", 1, "no saved model"),
        ("export model.pyframe --out w.onnx", 1, ".npz"),
    ],
)
def test_how_mistakes_end(folder, arguments, code, words, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    try:
        ended = cli.main(arguments.split())
    except SystemExit as raised:  # by argparse
        ended = raised.code
    said = capsys.readouterr().err
    assert ended == code and words in said and "Traceback" not in said
    if code == 1:
        assert len(said.splitlines()) == 1
    assert not (folder / "x").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("train t.csv --target dear --layers a", 2, "--layers"),
        ("train none.csv --target dear --out x", 1, "none.csv"),
        ("predict model.pyframe t.csv >&-", 1, "--out"),
        ("predict model.pyframe t.csv > /dev/full", 1, "No space"),
    ],
)
def test_how_mistakes_end_a_process(folder, arguments, code, words):
    found = shell(folder, arguments)
    assert found.returncode == code and words in found.stderr and "Traceback" not in found.stderr
    assert len(found.stderr.splitlines()) == 1 or code == 2


@pytest.mark.parametrize("after", ["| head -1", "| true"])
def test_a_pipe_that_breaks(folder, after):
    found = shell(
        folder, "predict model.pyframe t.csv", after=f'{after}; echo "${{PIPESTATUS[0]}}"'
    )
    assert found.stdout.splitlines()[-1] == "0" and not found.stderr


@pytest.mark.parametrize("before, after", [("", ">&-"), ("env -u HOME", ""), ("", "2>&-")])
def test_train_with_a_closed_output_or_no_home(folder, before, after, tmp_path):
    out = tmp_path / "m.pyframe"
    line = f'train t.csv --target dear --layers 8 --epochs 3 --out "{out}" --plot "{tmp_path}"'
    found = shell(folder, line, before, after)
    assert found.returncode == 0 and TabularModel.load(out) and (tmp_path / "loss.png").exists()


def test_ctrl_c_keeps_the_model_so_far(folder, tmp_path):
    command = [
        sys.executable, "-m", "pyframe", "train", "t.csv", "--target", "dear", "--epochs", "999999",
        "--validation", "0", "--out", str(tmp_path / "m.pyframe"),
    ]  # fmt: skip
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()  # the first line of progress
        while "epoch" not in line:
            line = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(60) == 130
    assert "so far" in rest
    assert TabularModel.load(tmp_path / "m.pyframe").n_iter_ > 0


def test_completion_knows_every_command_and_option(capsys):
    for shell_name in ("bash", "zsh", "fish"):
        assert cli.main(["completion", shell_name]) == 0
        text = capsys.readouterr().out
        assert "train" in text and "learning-rate" in text
        if shell_name == "bash":
            subprocess.run(["bash", "-n"], input=text, text=True, check=True)
            asked = (
                text
                + "COMP_WORDS=(pyframe train --ta); COMP_CWORD=2; _pyframe; echo ${COMPREPLY[*]}"
            )
            found = subprocess.run(
                ["bash", "-c", asked], capture_output=True, text=True, check=True
            )
            assert found.stdout.split() == ["--target", "--task"]


def commands_of_the_page():
    """Return the commands of the page that begin with "pyframe train" or go on from there."""
    text = (Path(__file__).parents[1] / "docs" / "levels.md").read_text(encoding="utf-8")
    section = text[text.index("## From a CSV") : text.index("## Your own nodes")]
    lines = re.findall(r"^\$ (.+)$", section, re.M)
    return [shlex.split(line) for line in lines if line.startswith("pyframe ")]


@pytest.mark.docs
def test_the_page_from_a_csv_to_predictions(tmp_path, monkeypatch, capsys):
    """Train, predict; train and watch, stop, resume."""
    pytest.importorskip("tensorboardX")
    monkeypatch.chdir(tmp_path)
    PRICES.to_csv("prices.csv", index=False)
    PRICES.drop(columns="price").to_csv("new.csv", index=False)
    train, predict, watched, resumed = commands_of_the_page()
    assert cli.main([*train[1:], "--quiet"]) == 0
    capsys.readouterr()
    assert predict[-2] == ">" and cli.main(predict[1:-2]) == 0
    predicted = capsys.readouterr().out.splitlines()
    assert predicted[0] == "prediction" and len(predicted) == len(PRICES) + 1
    with monkeypatch.context() as patch:
        stopping_at(patch, "early stopping", 3)
        assert cli.main([*watched[1:], "--log", "log.csv"]) == 130
    assert "--resume goes on" in capsys.readouterr().err and "--resume" in resumed
    assert list(Path("runs").glob("events*")) and len(Path("log.csv").read_text().split()) == 5
    assert cli.main([*resumed[1:], "--log", "log.csv"]) == 0
    history = TabularModel.load("watched.pyframe").history_
    assert len(Path("log.csv").read_text().split()) == 1 + len(history["val_loss"])
    assert TabularModel.load("watched.pyframe").history_ == TabularModel.load(train[-1]).history_


def test_logs_of_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    PRICES.to_csv("t.csv", index=False)
    train = ["train", "t.csv", "--target", "price", "--layers", "8", "--epochs", "2", "--quiet"]
    assert cli.main([*train, "--log", "log.jsonl"]) == 0
    first = json.loads(Path("log.jsonl").read_text().splitlines()[0])
    assert "val_loss" in first
    assert cli.main([*train, "--log", "log.txt"]) == 1
    assert "must end in .csv or .jsonl" in capsys.readouterr().err
    Path("file").touch()
    for option in (["--log", "file/log.csv"], ["--tensorboard", "file/runs"]):
        assert cli.main([*train, *option]) == 1
        assert "file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--out", "t.csv"],
        ["--log", "t.csv"],
        ["--tensorboard", "t.csv"],
        ["--out", "v.csv", "--log", "./v.csv"],
        ["--out", "v", "--log", "v.training"],
    ],
)
def test_no_file_is_written_over_another(options, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    TABLE.to_csv("t.csv", index=False)
    before = Path("t.csv").read_bytes()
    assert cli.main(["train", "t.csv", "--target", "a", *options]) == 1
    assert "choose another file" in capsys.readouterr().err
    assert Path("t.csv").read_bytes() == before and os.listdir() == ["t.csv"]


def test_ctrl_c_while_the_command_saves(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    PRICES.to_csv("t.csv", index=False)
    once = TableNetwork.save

    def pressed(self, path):
        signal.raise_signal(signal.SIGINT)
        once(self, path)

    monkeypatch.setattr(TableNetwork, "save", pressed)
    train = ["train", "t.csv", "--target", "price", "--layers", "8", "--epochs", "3", "--quiet"]
    assert cli.main(train) == 130
    assert TabularModel.load("model.pyframe").n_iter_ == 3
    assert "epochs" in capsys.readouterr().out


def test_ctrl_c_before_the_training_stops_at_once(tmp_path, monkeypatch):
    def pressed(*arguments):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.chdir(tmp_path)
    PRICES.to_csv("t.csv", index=False)
    monkeypatch.setattr("pyframe.tabular.model.learn", pressed)
    assert cli.main(["train", "t.csv", "--target", "price", "--quiet"]) == 130
    assert not Path("model.pyframe").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_model_that_cannot_be_written_where_it_should_is_somewhere(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    PRICES.to_csv("t.csv", index=False)
    once = TableNetwork.save

    def full(self, path):
        if Path(path).name == "model.pyframe":
            raise OSError(28, "No space left on device", str(path))
        once(self, path)

    monkeypatch.setattr(TableNetwork, "save", full)
    train = ["train", "t.csv", "--target", "price", "--layers", "8", "--epochs", "3", "--quiet"]
    assert cli.main(train) == 1
    said = capsys.readouterr().err
    where = re.search(r"the model is in (\S+) instead", said)
    assert where is not None and TabularModel.load(where[1]).n_iter_ == 3


def test_a_folder_in_the_place_of_the_state_is_found_before_the_training(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    PRICES.to_csv("t.csv", index=False)
    Path("model.pyframe.training").mkdir()
    assert cli.main(["train", "t.csv", "--target", "price", "--epochs", "1"]) == 1
    assert "model.pyframe.training" in capsys.readouterr().err


def test_the_command_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    PRICES.to_csv("t.csv", index=False)
    train = [
        "train",
        "t.csv",
        "--target",
        "price",
        "--layers",
        "16",
        "--epochs",
        "30",
        "--quiet",
        "--out",
    ]
    assert cli.main([*train, "whole.pyframe"]) == 0
    assert cli.main([*train, "m.pyframe", "--resume"]) == 1
    assert "nothing to resume: no m.pyframe.training" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        stopping_at(patch, "early stopping", 3)
        assert cli.main([*train, "m.pyframe"]) == 130
    assert "--resume goes on from m.pyframe.training" in capsys.readouterr().err
    assert cli.main([*train, "m.pyframe", "--resume"]) == 0
    capsys.readouterr()
    for name in ("whole", "m"):
        assert cli.main(["predict", f"{name}.pyframe", "t.csv"]) == 0
    one, other = capsys.readouterr().out.split("prediction\n")[1:]
    assert one == other and not Path("m.pyframe.training").exists()


def test_a_table_is_learned_without_scikit_learn(tmp_path):
    """Whose import takes longer than most trainings."""
    PRICES.to_csv(tmp_path / "t.csv", index=False)
    train = ["train", "t.csv", "--target", "price", "--epochs", "3", "--quiet"]
    code = f"""
import sys
from pyframe.commands.cli import main
assert main({train}) == 0 and main(["evaluate", "model.pyframe", "t.csv"]) == 0
sys.exit("sklearn" in sys.modules)
"""
    command = [sys.executable, "-P", "-W", "ignore", "-c", code]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0
