"""Models of tables: what columns become, what is refused, and what files hold."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from tables import FRAME, PRICES, QUICK

import pyframe as pf
from pyframe import checkpoint
from pyframe.errors import ArgumentError, CheckpointError, DatasetError
from pyframe.tabular import TabularModel, reading
from pyframe.tabular.columns import KINDS, LEFT_OUT, encode, learn

pytestmark = [
    pytest.mark.sklearn,
    pytest.mark.once,
    pytest.mark.filterwarnings("ignore:it was still getting better"),
]


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


def test_it_says_when_there_were_too_few_epochs():
    with pytest.warns(UserWarning, match="still getting better after 2 epochs"):
        TabularModel(epochs=2).fit(FRAME[["size", "open", "price"]], "price")


def test_all_kinds_are_tried():
    assert set(KINDS) == {"number", "boolean", "category", "date"} and Path(os.devnull)


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


def test_an_optimizer_that_is_given_is_used_and_left_as_it_was():
    given = pf.optimizers.Adam(0.5)
    one, other = (
        TabularModel(optimizer=optimizer, epochs=2).fit(PRICES, "price").predict(PRICES)
        for optimizer in (given, pf.optimizers.Adam(0.01))
    )
    assert given.learning_rate == 0.5 and one.tobytes() != other.tobytes()
