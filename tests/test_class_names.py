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


@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
@pytest.mark.parametrize("dtype", [float, int])
def test_one_hot_rows_for_labels_are_refused_with_the_remedy(loss: str, dtype: Any) -> None:
    rows = np.eye(3, dtype=dtype)[NUMBERS]
    with pytest.raises(pf.ShapeError, match=r"Y.argmax\(axis=-1\).*soft_cross_entropy"):
        trainer(loss).fit(X, rows, verbose=0)
    trainer("soft_cross_entropy").fit(X, rows, verbose=0)


@pytest.mark.parametrize("loss", ["binary_focal", "dice", "weighted_binary_cross_entropy"])
def test_losses_made_of_other_ops_give_classes_too(loss: str) -> None:
    y = np.where(NUMBERS == 2, "yes", "no")
    one = pf.Trainer(pf.Sequential([pf.layers.Dense(1)]), loss, pf.optimizers.Adam(0.1))
    one.fit(X, y, 60, verbose=0)
    assert one.model.predict_classes(X).tolist() == y.tolist()
    assert ((one.model.predict_proba(X)[:, 0] > 0.5) == (y == "yes")).all()
    pair = pf.Trainer(pf.Sequential([pf.layers.Dense(1)]), "contrastive")
    pair.fit(X, (y == "yes").astype(float)[:, None], 1, verbose=0)
    with pytest.raises(ArgumentError, match="gives values"):
        pair.model.predict_proba(X)


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


MLP_TARGETS = {
    "texts": ("MLPClassifier", {}, lambda: targets(NAMES["texts"]).astype(str)),
    "two classes": ("MLPClassifier", {}, lambda: np.where(NUMBERS == 2, "yes", "no")),
    "several labels": ("MLPClassifier", {}, lambda: np.eye(3, dtype=int)[NUMBERS]),
    "other arguments": (
        "MLPClassifier",
        {"activation": "gelu", "hidden_layer_sizes": (5, 4), "early_stopping": True},
        lambda: NUMBERS + 5,
    ),
    "numbers": ("MLPRegressor", {"activation": "logistic"}, lambda: X[:, 0] * 3),
    "counts": ("MLPRegressor", {"loss": "poisson"}, lambda: NUMBERS + 1.0),
    "several outputs": ("MLPRegressor", {"activation": "identity"}, lambda: X),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", MLP_TARGETS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_perceptrons_are_saved_and_loaded(kind: str, dtype: str, tmp_path: Path) -> None:
    estimators = pytest.importorskip("pyframe.estimators")
    name, given, make = MLP_TARGETS[kind]
    x, y, cls = X.astype(dtype), make(), getattr(estimators, name)
    net = cls(random_state=0, max_iter=30, **given).fit(x, y)
    net.save(tmp_path / "net")
    same, model = cls.load(tmp_path / "net"), pf.load(tmp_path / "net")
    np.testing.assert_array_equal(same.predict(x), net.predict(x))
    assert same.predict(x).dtype == net.predict(x).dtype
    if name == "MLPClassifier":
        np.testing.assert_array_equal(same.classes_, net.classes_)
        np.testing.assert_array_equal(same.predict_proba(x), net.predict_proba(x))
        np.testing.assert_array_equal(model.predict_classes(x), net.predict(x))
    else:
        np.testing.assert_allclose(np.squeeze(model.predict(x)), net.predict(x), rtol=1e-5)
    kept = {k: list(v) if isinstance(v, tuple) else v for k, v in net.get_params().items()}
    kept["hidden_layer_sizes"] = list(net.hidden_layer_sizes)
    found = {**same.get_params(), "hidden_layer_sizes": list(same.hidden_layer_sizes)}
    assert found == kept and cls.load(tmp_path / "net", max_iter=3).max_iter == 3
    if not net.early_stopping:
        assert same.partial_fit(x, y).n_iter_ == 1  # goes on
        assert np.abs(same.coefs_[0] - net.coefs_[0]).max() < 0.01
    other = "MLPRegressor" if name == "MLPClassifier" else "MLPClassifier"
    with pytest.raises(ValueError, match="trained to classify"):
        getattr(estimators, other).load(tmp_path / "net")


def test_what_files_of_estimators_keep(tmp_path: Path) -> None:
    estimators = pytest.importorskip("pyframe.estimators")
    pd = pytest.importorskip("pandas")
    net = estimators.NetClassifier(
        [pf.layers.Dense(4)], epochs=3, optimizer="sgd", learning_rate=0.05, input_shape=(3,)
    )
    net.fit(pd.DataFrame(X, columns=list("abc")), targets(NAMES["texts"]).astype(str))
    net.save(tmp_path / "net")
    same = estimators.NetClassifier.load(tmp_path / "net", epochs=5)
    assert (same.epochs, same.optimizer, same.learning_rate) == (5, "sgd", 0.05)
    assert list(same.feature_names_in_) == list("abc") and same.layers[0].units == 4
    with pytest.raises(ValueError, match="no multilayer perceptron"):
        estimators.NetClassifier([pf.layers.Dropout(0.1)], epochs=1).fit(X, NUMBERS).save(
            tmp_path / "net"
        )
        estimators.MLPClassifier.load(tmp_path / "net")
    model = pf.load(tmp_path / "net")
    for extra in ({"parameters": 3}, {"parameters": {"epochs": {}}, "features": None}):
        model.extra = {"estimator": extra}
        model.save(tmp_path / "bad")
        with pytest.raises(CheckpointError, match="estimator"):
            estimators.NetClassifier.load(tmp_path / "bad")


ANY_LABELS = {
    "booleans": (lambda: NUMBERS == 2, {}),
    "floats": (lambda: np.array([1.0, -2.0, 7.0])[NUMBERS], {}),
    "one-hot by another loss": (lambda: np.array(["p", "q", "r"])[NUMBERS], {"loss": "l2"}),
    "by a sigmoid": (
        lambda: np.array(["p", "q", "r"])[NUMBERS], {"loss": "binary_cross_entropy"},
    ),
    "a softmax at the end": (
        lambda: NUMBERS * 10,
        {"layers": [pf.layers.Dense(3, activation="softmax")], "head": False},
    ),
    "several": (lambda: np.eye(3, dtype=int)[NUMBERS], {}),
}  # fmt: skip


@pytest.mark.parametrize("kind", ANY_LABELS)
def test_a_loaded_model_predicts_what_its_classifier_does(kind: str, tmp_path: Path) -> None:
    estimators = pytest.importorskip("pyframe.estimators")
    make, given = ANY_LABELS[kind]
    net = estimators.NetClassifier(random_state=0, learning_rate=0.02, epochs=40, **given)
    net.fit(X, make()).save(tmp_path / "net")
    model, same = pf.load(tmp_path / "net"), estimators.NetClassifier.load(tmp_path / "net")
    for found in (model.predict_classes(X), same.predict(X)):
        np.testing.assert_array_equal(found, net.predict(X))
    assert (net.predict(X) == make()).mean() > 0.9
