"""Labels that are names of classes: encoded, kept in files, given back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.errors import ArgumentError, CheckpointError, LabelError

pytestmark = pytest.mark.once

X = np.repeat(np.eye(3, dtype=np.float32), 20, axis=0)
NUMBERS = np.repeat([2, 0, 1], 20)
NAMES = {
    "texts": ("ant", "bee", "cat"),
    "numbers apart": (-5, 3, 70),
    "tuples": ((0, 1), (0, 2), (1, 0)),
    "of several types": (2.5, "x", "y"),
}


def targets(names: Any) -> Any:
    result = np.empty(len(NUMBERS), object)
    result[:] = [names[n] for n in NUMBERS]
    return result


def trainer(loss: str = "cross_entropy", units: int = 3, end: Any = None) -> pf.Trainer:
    pf.set_seed(0)
    model = pf.Sequential([pf.layers.Dense(units, end)])
    return pf.Trainer(model, loss, pf.optimizers.Adam(0.1), metrics=["accuracy"])


@pytest.mark.parametrize("end", [None, "softmax"])
@pytest.mark.parametrize("kind", ["texts", "tuples", "of several types"])
def test_names_are_encoded_kept_and_given_back(kind: str, end: Any, tmp_path: Path) -> None:
    names = NAMES[kind]
    known, one = trainer(end=end), trainer(end=end)
    wanted = known.fit(X, NUMBERS, 30, verbose=0)
    y = targets(names)
    assert one.fit(X, y, 30, verbose=0, validation_data=(X, y))["loss"] == wanted["loss"]
    assert one.model.classes == names
    one.model.save(tmp_path / "m")
    one.save(tmp_path / "t")
    for model in (one.model, pf.load(tmp_path / "m"), pf.Trainer.load(tmp_path / "t").model):
        assert model.predict_classes(X).tolist() == y.tolist()
        proba = model.predict_proba(X)
        np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-6)
        np.testing.assert_array_equal(proba.argmax(1), NUMBERS)
    assert one.evaluate(X, y) == known.evaluate(X, NUMBERS)


@pytest.mark.parametrize("make", [list, lambda y: y.astype(str), lambda y: y.reshape(-1)])
def test_texts_in_lists_arrays_and_series(make: Any) -> None:
    pd = pytest.importorskip("pandas")
    y = targets(NAMES["texts"])
    for values in (
        make(y),
        pd.Series(list(y)),
        pd.Categorical(list(y)),
        pd.Series(y, dtype="category"),
    ):
        one = trainer()
        one.fit(X, values, 20, verbose=0)
        assert one.model.predict_classes(X).tolist() == y.tolist()


@pytest.mark.parametrize("end", [None, "sigmoid"])
def test_two_classes_in_one_output(end: Any) -> None:
    y = np.where(NUMBERS == 2, "yes", "no")
    one = trainer("binary_cross_entropy", 1, end)
    one.fit(X, y, 60, verbose=0)
    assert one.model.predict_classes(X).tolist() == y.tolist()
    assert ((one.model.predict_proba(X)[:, 0] > 0.5) == (y == "yes")).all()


def test_labels_that_are_numbers_stay_numbers() -> None:
    one = trainer()
    one.fit(X, NUMBERS, 30, verbose=0)
    assert one.model.classes is None
    np.testing.assert_array_equal(one.model.predict_classes(X), NUMBERS)


def test_several_labels_a_row() -> None:
    one = trainer("binary_cross_entropy", 3)
    one.fit(X, np.eye(3)[NUMBERS], 60, verbose=0)
    np.testing.assert_array_equal(one.model.predict_classes(X), np.eye(3)[NUMBERS])


def test_batches_need_to_be_told() -> None:
    y, one = targets(NAMES["texts"]), trainer()
    loader = pf.data.Loader((X, y.astype(str)), 16)
    with pytest.raises(ArgumentError, match="set model.classes"):
        one.fit(loader, epochs=20, verbose=0)
    one.model.classes = NAMES["texts"]
    one.fit(loader, epochs=20, verbose=0)
    assert one.model.predict_classes(X).tolist() == y.tolist()


def test_refusals(tmp_path: Path) -> None:
    y, one = targets(NAMES["texts"]), trainer()
    with pytest.raises(LabelError, match="Y has 3 classes .* is for 2"):
        trainer(units=2).fit(X, y, verbose=0)
    with pytest.raises(ArgumentError, match="missing label .* in row 4"):
        trainer().fit(X, [*y[:4], None, *y[5:]], verbose=0)
    one.fit(X, y, 1, verbose=0)
    with pytest.raises(LabelError, match="'dog' in row 7.*'ant', 'bee', 'cat'"):
        one.evaluate(X, [*y[:7], "dog", *y[8:]])
    with pytest.raises(ArgumentError, match="gives values, not classes"):
        regression = pf.Trainer(pf.Sequential([pf.layers.Dense(1)]))
        regression.fit(X, NUMBERS, 1, verbose=0)
        regression.model.predict_classes(X)
    one.model.classes = [object(), 1, 2]
    with pytest.raises(CheckpointError, match="cannot be saved"):
        one.model.save(tmp_path / "m")


def test_estimators_are_saved_and_loaded(tmp_path: Path) -> None:
    estimators = pytest.importorskip("pyframe.estimators")
    y = targets(NAMES["texts"]).astype(str)
    for labels in (y, NUMBERS + 5, np.eye(3, dtype=int)[NUMBERS]):
        net = estimators.NetClassifier(random_state=0, epochs=20).fit(X, labels)
        net.save(tmp_path / "net")
        same = estimators.NetClassifier.load(tmp_path / "net", epochs=3)
        np.testing.assert_array_equal(same.predict(X), net.predict(X))
        np.testing.assert_array_equal(same.predict_proba(X), net.predict_proba(X))
        np.testing.assert_array_equal(same.classes_, net.classes_)
        assert same.fit(X, labels).n_iter_ == 3
    with pytest.raises(ValueError, match="was trained to classify"):
        estimators.NetRegressor.load(tmp_path / "net")
    for values in (X[:, 0], X):
        net = estimators.NetRegressor(random_state=0, epochs=2).fit(X, values)
        net.save(tmp_path / "net")
        same = estimators.NetRegressor.load(tmp_path / "net")
        np.testing.assert_array_equal(same.predict(X), net.predict(X))
    with pytest.raises(ValueError, match="not trained to classify"):
        estimators.NetClassifier.load(tmp_path / "net")
