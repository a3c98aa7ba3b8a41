"""Tables: what columns become, what is refused, and the commands from a CSV to a prediction."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

import pyframe as pf
from pyframe import checkpoint
from pyframe.commands import cli
from pyframe.errors import ArgumentError, CheckpointError, DatasetError
from pyframe.tabular import TabularModel, read_table, reading, resuming
from pyframe.tabular.columns import KINDS, LEFT_OUT, encode, learn

pytestmark = [
    pytest.mark.sklearn,
    pytest.mark.once,
    pytest.mark.filterwarnings("ignore:it was still getting better"),
]

QUICK = {"layers": (16,), "epochs": 30, "random_state": 1}


def mixed(rows=300, seed=0):
    draw = np.random.default_rng(seed)
    size = draw.normal(size=rows)
    frame = pd.DataFrame(
        {
            "id": np.arange(rows) * 3 + 5,
            "size": np.where(draw.random(rows) < 0.1, np.nan, size),
            "town": draw.choice(["Ulm", "Bonn", "Kiel", None], rows),
            "day": pd.date_range("2020-01-01", periods=rows).strftime("%d.%m.%Y"),
            "open": draw.random(rows) < 0.5,
            "one": 1,
        }
    )
    frame["price"] = 100 + 20 * size + 30 * (frame["town"] == "Ulm") + 10 * frame["open"]
    frame["dear"] = np.where(frame["price"] > 115, "yes", "no")
    return frame


FRAME = mixed()


@pytest.fixture(scope="module")
def fitted():
    with pytest.warns(UserWarning, match="'id': it is an identifier.*'one': it is always 1"):
        return TabularModel(**QUICK).fit(FRAME.drop(columns="price"), "dear")


def test_kinds_of_columns_are_found(fitted):
    kinds = {column["name"]: column["kind"] for column in fitted.columns_}
    assert kinds == {
        "id": LEFT_OUT, "size": "number", "town": "category", "day": "date", "open": "boolean",
        "one": LEFT_OUT,
    }  # fmt: skip
    assert fitted.task_ == "classification" and fitted.target_ == "dear"
    assert fitted.classes_.tolist() == ["no", "yes"]


def test_encoding_of_each_kind():
    table = pd.DataFrame(
        {"n": [1.0, 2, 3, None], "b": [True, False, None, True], "c": ["u", "u", None, "v"]}
    )
    columns = learn(table, {"b": "boolean"}, 10)
    inputs = encode(table, columns)
    z = np.array([-1, 0, 1, 0.0])
    np.testing.assert_allclose(inputs[:, 0], z / np.sqrt(1 + (z / 3) ** 2), rtol=1e-6)
    assert inputs[:, 1:].tolist() == [
        [0, 1, 0, 1, 0, 0],
        [0, -1, 0, 1, 0, 0],
        [0, 0, 1, 0, 0, 1],
        [1, 1, 0, 0, 1, 0],
    ]
    unseen = encode(pd.DataFrame({"c": ["w"], "b": ["true"], "n": ["2"]}), columns)
    assert unseen.tolist() == [[0, 0, 1, 0, 0, 0, 0]]


def test_dates_have_parts_and_elapsed_time():
    table = pd.DataFrame({"d": ["2020-01-31", "2020-04-30", "2020-07-31"]})
    (column,) = learn(table, {}, 10)
    assert column["kind"] == "date" and column["parts"] == ["month", "day_of_week"]
    inputs = encode(table, [column])
    angle = np.array([1, 4, 7]) * 2 * np.pi / 12
    np.testing.assert_allclose(inputs[:, 1], np.sin(angle), atol=1e-6)
    np.testing.assert_allclose(inputs[:, 2], np.cos(angle), atol=1e-6)
    assert inputs[1, 0] == 0 and inputs[2, 0] > 0 > inputs[0, 0]
    with pytest.raises(DatasetError, match=r"column 'd', row 0: 'soon' is no date"):
        encode(pd.DataFrame({"d": ["soon"]}), [column])


def test_it_learns_both_tasks(fitted):
    assert fitted.score(FRAME) > 0.9
    table = FRAME.drop(columns=["dear", "id", "one"])
    model = TabularModel(epochs=100).fit(table, "price")
    assert model.task_ == "regression" and model.score(table) > 0.85
    found = model.predict(table)
    assert abs(found.mean() - table["price"].mean()) < 2  # in its own units
    assert set(model.evaluate(table)) == {"r2", "rmse", "mae"}
    with pytest.raises(AttributeError):
        model.predict_proba(table)
    worth = model.explain(table)
    assert set(worth) == {"size", "town", "day", "open"} and next(iter(worth)) == "size"


def as_polars(frame):
    return pytest.importorskip("polars").DataFrame(
        frame.astype({"town": object}).where(frame.notna(), None).to_dict("list")
    )


def as_arrow(frame):
    return pytest.importorskip("pyarrow").Table.from_pandas(frame)


@pytest.mark.parametrize("made", [dict, as_polars, as_arrow, lambda f: f.to_dict("records")])
def test_every_table_gives_the_same(fitted, made):
    expected = fitted.predict_proba(FRAME)
    np.testing.assert_allclose(fitted.predict_proba(made(FRAME)), expected, atol=1e-6)


def test_arrays_and_scikit_learn():
    draw = np.random.default_rng(0)
    X = draw.normal(size=(200, 3))
    y = (X[:, 0] > 0).astype(int)
    model = TabularModel(task="classification", **QUICK)
    assert cross_val_score(clone(model), X, y, cv=3).mean() > 0.85
    assert model.fit(X, y).predict(X).dtype == np.int64
    proba = model.predict_proba(X)
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-5)
    again = TabularModel(task="classification", **QUICK).fit(X, y)
    assert (again.predict_proba(X) == proba).all()


def test_nullable_and_categorical_columns():
    frame = pd.DataFrame(
        {
            "a": pd.array([1, 2, None, 4] * 20, dtype="Int64"),
            "c": pd.Categorical(["x", "y", "x", "z"] * 20),
            "y": pd.array(["p", "q", "p", None] * 20, dtype="string"),
        }
    )
    with pytest.warns(UserWarning, match="20 rows have no target"):
        model = TabularModel(**QUICK).fit(frame, "y")
    assert model.score(frame.dropna(subset="y")) == 1.0


def test_columns_of_arrow_in_pandas_and_periods():
    pytest.importorskip("pyarrow")
    plain = pd.DataFrame(
        {
            "n": pd.array([1, 2, None, 4] * 20, dtype="Int64"),
            "f": [0.5, None, 1.5, 2.0] * 20,
            "t": pd.array(["u", "v", None, "v"] * 20, dtype="string"),
            "b": pd.array([True, None, False, True] * 20, dtype="boolean"),
            "d": pd.date_range("2020-01-01", periods=80),
            "y": pd.array(["p", "q", "p", "q"] * 20, dtype="string"),
        }
    )
    arrow = plain.convert_dtypes(dtype_backend="pyarrow")
    assert all(isinstance(dtype, pd.ArrowDtype) for dtype in arrow.dtypes)
    one, other = (TabularModel(**QUICK).fit(f, "y") for f in (plain, arrow))
    kinds = [c["kind"] for c in other.columns_]
    assert kinds == ["number", "number", "category", "boolean", "date"]
    assert one.columns_ == other.columns_
    assert (one.predict_proba(plain) == other.predict_proba(arrow)).all()
    assert (other.fit(arrow.drop(columns="y"), arrow["y"]).predict(arrow) == plain["y"]).all()
    months = pd.DataFrame({"m": pd.period_range("2020-01", periods=80, freq="M"), "y": plain["y"]})
    (column,) = TabularModel(**QUICK).fit(months, "y").columns_
    assert column["kind"] == "date" and column["parts"] == ["month", "day_of_week"]


def test_a_lazy_frame_of_polars_is_collected(fitted):
    lazy = as_polars(FRAME).lazy()
    np.testing.assert_allclose(fitted.predict_proba(lazy), fitted.predict_proba(FRAME), atol=1e-6)
    model = pf.Sequential([pf.layers.Dense(1)])
    with pytest.raises(pf.DTypeError, match=r"X is a LazyFrame.*; pass frame.collect\(\)"):
        pf.Trainer(model).fit(lazy, np.ones(300), 1, verbose=0)


def test_a_file_holds_all_of_it(fitted, tmp_path):
    path = tmp_path / "m.pyframe"
    fitted.save(path)
    same = TabularModel.load(path)
    assert (same.predict(FRAME) == fitted.predict(FRAME)).all()
    assert (same.predict_proba(FRAME) == fitted.predict_proba(FRAME)).all()
    assert same.summary() == fitted.summary()
    network = pf.load(path)
    assert isinstance(network, pf.Sequential)
    network.save(tmp_path / "again.pyframe")  # keeps what belongs to the table
    assert TabularModel.load(tmp_path / "again.pyframe").classes_.tolist() == ["no", "yes"]
    pf.Sequential([pf.layers.Dense(1)], input_shape=(2,)).save(path)
    with pytest.raises(CheckpointError, match="nothing of a table"):
        TabularModel.load(path)


HOSTILE = {
    "no columns": lambda kept: kept.pop("columns"),
    "a column without a kind": lambda kept: kept["columns"][1].pop("kind"),
    "an unknown kind": lambda kept: kept["columns"][1].update(kind="__import__"),
    "a scale of 0": lambda kept: kept["columns"][1].update(scale=0.0),
    "a center that is a text": lambda kept: kept["columns"][1].update(center="x"),
    "a format of its own": lambda kept: kept["columns"][3].update(format="%n" * 9),
    "categories that are numbers": lambda kept: kept["columns"][2].update(values=[1, 2]),
    "more categories": lambda kept: kept["columns"][2]["values"].append("x"),
    "fewer columns": lambda kept: kept["columns"].pop(1),
    "more classes": lambda kept: kept["classes"].append("perhaps"),
    "no classes": lambda kept: kept.update(classes=None),
    "a class that is a list": lambda kept: kept["classes"].__setitem__(0, []),
    "an unknown task": lambda kept: kept.update(task="clustering"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files_are_refused(fitted, tmp_path, what):
    kept = json.loads(json.dumps(fitted.as_json()))
    HOSTILE[what](kept)
    model = pf.load(_saved(fitted, tmp_path))
    model.extra = {"tabular": kept}
    model.save(tmp_path / "m.pyframe")
    with pytest.raises(CheckpointError, match="tabular|placeholder"):
        TabularModel.load(tmp_path / "m.pyframe")


def _saved(model, folder):
    model.save(folder / "m.pyframe")
    return folder / "m.pyframe"


@pytest.mark.parametrize(
    "extra", [[1], {"a": float("nan")}, {"a": object()}, "text", {"a": {1, 2}}]
)
def test_extra_of_a_model_is_plain_json(extra):
    model = pf.Sequential([pf.layers.Dense(1)], input_shape=(2,))
    with pytest.raises(ArgumentError, match="extra"):
        model.extra = extra
    assert checkpoint.plain_json({"a": (1, 2)}) == {"a": [1, 2]}


# ---- what cannot be learned from ----

REFUSED = {
    "one class": (lambda: (FRAME.assign(dear="no"), "dear"), "always 'no'"),
    "one row": (lambda: (FRAME.head(1), "dear"), "at least 2 are needed"),
    "no target": (lambda: (FRAME, "Dera"), "did you mean 'dear'"),
    "an empty target": (lambda: (FRAME.assign(dear=None), "dear"), "no values"),
    "two columns of one name": (
        lambda: (pd.DataFrame([[1, 2, 3]], columns=["a", "a", "b"]), "b"), "two columns 'a'",
    ),
    "nothing to learn from": (lambda: (FRAME[["one", "dear"]], "dear"), "no column is left"),
    "infinity": (lambda: (FRAME.assign(size=np.inf * FRAME["size"]), "dear"), "not finite"),
    "lists in cells": (lambda: (FRAME.assign(size=[[1]] * 300), "dear"), "neither number, text"),
    "texts without end": (
        lambda: (FRAME.assign(dear=[f"t{i}" for i in range(300)]), "dear"), "too many",
    ),
    "another length": (lambda: (FRAME, np.arange(7)), "300 rows and y has 7"),
    "a single number": (lambda: (np.float64(3), "y"), "shape|table"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_learned_from(what):
    made, words = REFUSED[what]
    with pytest.raises(DatasetError, match=words):
        TabularModel(**QUICK).fit(*made())


def test_other_columns_at_prediction(fitted):
    with pytest.raises(DatasetError, match="lacks the columns 'town', 'open'; it has .*'Town'"):
        fitted.predict(FRAME.rename(columns={"town": "Town"}).drop(columns="open"))
    shuffled = FRAME[sorted(FRAME.columns)].assign(more=3)
    assert (fitted.predict(shuffled) == fitted.predict(FRAME)).all()
    with pytest.raises(DatasetError, match="column 'size', row 1: 'wide' is no number"):
        fitted.predict(FRAME.head(3).assign(size=["1", "wide", "3"]))


@pytest.mark.parametrize(
    "given",
    [
        {"task": "x"},
        {"validation": 1.0},
        {"layers": (0,)},
        {"epochs": 0},
        {"kinds": {"q": "number"}},
    ],
)
def test_arguments_that_make_no_sense(given):
    with pytest.raises(ArgumentError):
        TabularModel(**given).fit(FRAME, "dear")


# ---- files ----

TABLE = pd.DataFrame({"a": [1.5, -2.25, 3000.0], "b": ["x", "ü", None], "c": [1, 2, 3]})
COMMA = b"a;b;c\n1,5;x;1\n-2,25;\xc3\xbc;2\n3000,0;;3\n"
WRITTEN = {
    "plain": TABLE.to_csv(index=False).encode(),
    "byte-order mark": b"\xef\xbb\xbf" + TABLE.to_csv(index=False).encode(),
    "semicolons and decimal commas": COMMA,
    "windows": COMMA.decode().replace("\n", "\r\n").encode("cp1252"),
    "utf-16": COMMA.decode().encode("utf-16"),
    "tabs": TABLE.to_csv(index=False, sep="\t").encode(),
    "quoted decimal commas": b'a,b,c\n"1,5",x,1\n"-2,25",\xc3\xbc,2\n"3000,0",,3\n',
    "json lines": TABLE.to_json(orient="records", lines=True).encode(),
    "gzip": __import__("gzip").compress(TABLE.to_csv(index=False).encode()),
}


@pytest.mark.parametrize("what", WRITTEN)
def test_how_a_table_is_written_is_found_by_looking(what, tmp_path):
    (tmp_path / "t").write_bytes(WRITTEN[what])
    found = read_table(tmp_path / "t")
    assert found["a"].tolist() == TABLE["a"].tolist() and found["c"].tolist() == [1, 2, 3]
    assert found["b"].isna().tolist() == [False, False, True]
    assert found["b"].tolist()[:2] == ["x", "ü"]


def test_parquet_and_npz(tmp_path):
    pytest.importorskip("pyarrow")
    TABLE.to_parquet(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.parquet"), TABLE)
    np.savez(tmp_path / "t.npz", X=np.ones((4, 2)), y=np.arange(4))
    assert read_table(tmp_path / "t.npz").columns.tolist() == ["X0", "X1", "y"]


def test_a_csv_without_a_heading(tmp_path):
    (tmp_path / "t").write_text("1.5,2\n3.5,4\n")
    assert read_table(tmp_path / "t").to_dict("list") == {"0": [1.5, 3.5], "1": [2, 4]}


BROKEN = {
    "empty": (b"", "is empty"),
    "heading alone": (b"a,b\n", "no rows"),
    "ragged": (b"a,b\n1,2\n1,2,3,4\n", "more fields|Expected 2"),
    "no table": (bytes(range(256)) * 9, "no table|no rows|fields"),
    "no JSON": (b'{"a": 1}\n{"a": \n', "line 2 is no JSON"),
    "a million columns": (b",".join(b"c%d" % i for i in range(10**6)) + b"\n", "1,000,000 columns"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_files_that_are_no_tables(what, tmp_path):
    content, words = BROKEN[what]
    (tmp_path / "t").write_bytes(content)
    began = time.monotonic()
    with pytest.raises(DatasetError, match=words):
        read_table(tmp_path / "t")
    assert time.monotonic() - began < 60


def test_a_description_of_the_widest_table_can_be_saved(tmp_path):
    width = reading.MOST_COLUMNS
    columns = [
        {"name": f"a column with a long name {i}", "kind": "number", "missing": False,
         "center": 0.123456789012345, "scale": 1.23456789012345}
        for i in range(width)
    ]  # fmt: skip
    model = pf.Sequential([pf.layers.Dense(1)], input_shape=(2,))
    model.extra = {"tabular": {"columns": columns}}
    model.save(tmp_path / "m")
    assert len(pf.load(tmp_path / "m").extra["tabular"]["columns"]) == width


# ---- commands ----


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
    weights = np.load(folder / "w.npz")
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


def test_it_says_when_there_were_too_few_epochs():
    with pytest.warns(UserWarning, match="still getting better after 2 epochs"):
        TabularModel(epochs=2).fit(FRAME[["size", "open", "price"]], "price")


def test_all_kinds_are_tried():
    assert set(KINDS) == {"number", "boolean", "category", "date"} and Path(os.devnull)


# ---- stopping and going on ----

RESUMED = {"first epochs": ("early stopping", 3), "on all rows": ("all rows", 4)}
PRICES = FRAME.drop(columns=["dear", "id", "one"])


def stopping_at(monkeypatch, fit, epoch):
    """Have Ctrl-C come at the end of an epoch of the first or the second fit of a training."""

    def on_epoch_end(self, trainer, number, logs):
        if self.stage.fit == fit and number == epoch:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(resuming.Interruption, "on_epoch_end", on_epoch_end, raising=False)


def everything(model):
    return [model.predict(PRICES), *model.model_.get_weights().values()], model.history_


@pytest.mark.parametrize("target", ["price", "open"])
@pytest.mark.parametrize("where", RESUMED)
def test_a_training_goes_on_to_the_same_bits(where, target, tmp_path, monkeypatch):
    given = {"layers": (16,), "epochs": 40, "patience": 5, "random_state": 3}
    whole = TabularModel(**given).fit(PRICES, target)
    path = tmp_path / "m.training"
    with monkeypatch.context() as patch:
        stopping_at(patch, *RESUMED[where])
        stopped = TabularModel(**given).fit(PRICES, target, training=path)
    assert stopped.interrupted_ and path.exists()
    stopped.predict(PRICES)
    again = TabularModel(**given).fit(PRICES, target, training=path, resume=True)
    assert not again.interrupted_ and not path.exists()
    (ours, history), (theirs, wanted) = everything(again), everything(whole)
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert history == wanted and again.scores_ == whole.scores_ and again.n_iter_ == whole.n_iter_
    assert again.summary() == whole.summary()


def test_what_cannot_go_on_says_why(tmp_path, monkeypatch):
    path = tmp_path / "m.training"
    with monkeypatch.context() as patch:
        stopping_at(patch, "early stopping", 3)
        TabularModel(**QUICK).fit(PRICES, "price", training=path)
    with pytest.raises(CheckpointError, match=r"had layers=\[16\], and now it is \[8\]"):
        TabularModel(**{**QUICK, "layers": (8,)}).fit(PRICES, "price", training=path, resume=True)
    with pytest.raises(CheckpointError, match="was on other data"):
        TabularModel(**QUICK).fit(PRICES[::-1], "price", training=path, resume=True)
    more = {**QUICK, "epochs": 60}
    assert TabularModel(**more).fit(PRICES, "price", training=path, resume=True).n_iter_ > 4
    with pytest.raises(OSError, match=r"m\.training"):
        TabularModel(**QUICK).fit(PRICES, "price", training=path, resume=True)
    TabularModel(**QUICK).fit(PRICES, "price").save(path)
    with pytest.raises(CheckpointError, match="no training of a table"):
        TabularModel(**QUICK).fit(PRICES, "price", training=path, resume=True)


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


BETWEEN = ["_scores", "_history", "_trainer", "_go_on"]


@pytest.mark.parametrize("name", BETWEEN)
@pytest.mark.parametrize("kept", [True, False])
def test_ctrl_c_between_the_two_fits_loses_no_epoch(name, kept, tmp_path, monkeypatch):
    given = {"layers": (16,), "epochs": 40, "patience": 5, "random_state": 3}
    whole = TabularModel(**given).fit(PRICES, "price")
    path = tmp_path / "m.training" if kept else None
    once, calls = getattr(TabularModel, name), []

    def pressed(self, *arguments):
        calls.append(name)
        if len(calls) == (2 if name == "_trainer" else 1):
            signal.raise_signal(signal.SIGINT)
        return once(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(TabularModel, name, pressed)
        stopped = TabularModel(**given).fit(PRICES, "price", training=path)
    assert stopped.interrupted_ and stopped.scores_ == whole.scores_
    stopped.predict(PRICES)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if kept:
        again = TabularModel(**given).fit(PRICES, "price", training=path, resume=True)
        assert np.array_equal(again.predict(PRICES), whole.predict(PRICES))


def test_ctrl_c_at_the_very_end_comes_out_when_all_is_there(tmp_path, monkeypatch):
    def removed(self):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(resuming.Resumption, "remove", removed)
    model = TabularModel(**QUICK)
    with pytest.raises(KeyboardInterrupt):
        model.fit(PRICES, "price")
    assert not model.interrupted_ and len(model.predict(PRICES)) == len(PRICES)


def test_ctrl_c_while_the_command_saves(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    PRICES.to_csv("t.csv", index=False)
    once = TabularModel.save

    def pressed(self, path):
        signal.raise_signal(signal.SIGINT)
        once(self, path)

    monkeypatch.setattr(TabularModel, "save", pressed)
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


def test_a_state_that_cannot_be_written_loses_nothing(tmp_path, monkeypatch):
    def full(self, path):
        raise OSError(28, "No space left on device", str(path))

    path = tmp_path / "m.training"
    stopping_at(monkeypatch, "early stopping", 3)
    monkeypatch.setattr(pf.Trainer, "save", full)
    with pytest.warns(UserWarning, match="cannot be resumed.*No space left"):
        stopped = TabularModel(**QUICK).fit(PRICES, "price", training=path)
    assert stopped.interrupted_ and stopped.n_iter_ == 4 and stopped.scores_
    stopped.save(tmp_path / "m")


def test_a_model_that_cannot_be_written_where_it_should_is_somewhere(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    PRICES.to_csv("t.csv", index=False)
    once = TabularModel.save

    def full(self, path):
        if Path(path).name == "model.pyframe":
            raise OSError(28, "No space left on device", str(path))
        once(self, path)

    monkeypatch.setattr(TabularModel, "save", full)
    train = ["train", "t.csv", "--target", "price", "--layers", "8", "--epochs", "3", "--quiet"]
    assert cli.main(train) == 1
    said = capsys.readouterr().err
    where = re.search(r"the model is in (\S+) instead", said)
    assert where is not None and TabularModel.load(where[1]).n_iter_ == 3


def test_the_state_of_a_stopped_training_is_not_overwritten(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    PRICES.to_csv("t.csv", index=False)
    train = ["train", "t.csv", "--target", "price", "--layers", "16", "--epochs", "9", "--quiet"]
    state = Path("model.pyframe.training")
    with monkeypatch.context() as patch:
        stopping_at(patch, "early stopping", 3)
        assert cli.main(train) == 130
    before = state.read_bytes()
    assert cli.main(train) == 1 and state.read_bytes() == before
    assert "--resume goes on with it" in capsys.readouterr().err
    with pytest.raises(ArgumentError, match=r"model.pyframe.training is there"):
        TabularModel(**QUICK).fit(PRICES, "price", training=state)
    with pytest.raises(ArgumentError, match=r"t.csv is there"):  # it would be removed at the end
        TabularModel(**QUICK).fit(PRICES, "price", training="t.csv")
    assert cli.main([*train, "--resume"]) == 0 and not state.exists()


def test_a_folder_in_the_place_of_the_state_is_found_before_the_training(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    PRICES.to_csv("t.csv", index=False)
    Path("model.pyframe.training").mkdir()
    assert cli.main(["train", "t.csv", "--target", "price", "--epochs", "1"]) == 1
    assert "model.pyframe.training" in capsys.readouterr().err


def test_a_fit_after_loading_is_the_fit_of_before(tmp_path):
    given = {"layers": (16,), "epochs": 12, "patience": 2, "random_state": 3, "validation": 0.3}
    given |= {"optimizer": "sgd", "learning_rate": 0.02, "max_categories": 2}
    given |= {"kinds": {"open": "left out"}, "label_smoothing": 0.0}
    model = TabularModel(**given).fit(PRICES, "price")
    model.save(tmp_path / "m")
    again = TabularModel.load(tmp_path / "m")
    assert again.get_params() == {**model.get_params(), "target": "price"}
    assert np.array_equal(again.fit(PRICES).predict(PRICES), model.predict(PRICES))

    class Own(pf.optimizers.SGD):
        pass

    TabularModel(**{**given, "optimizer": Own(0.1)}).fit(PRICES, "price").save(tmp_path / "m")
    with pytest.raises(CheckpointError, match="does not hold its optimizer"):
        TabularModel.load(tmp_path / "m").fit(PRICES)


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


def test_an_optimizer_that_is_given_is_used_and_left_as_it_was():
    given = pf.optimizers.Adam(0.5)
    one, other = (
        TabularModel(optimizer=optimizer, epochs=2).fit(PRICES, "price").predict(PRICES)
        for optimizer in (given, pf.optimizers.Adam(0.01))
    )
    assert given.learning_rate == 0.5 and one.tobytes() != other.tobytes()
