"""Networks as scikit-learn estimators."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("sklearn")

from networks import RNG, Dense, X, Y, quick
from sklearn.base import clone
from sklearn.datasets import (
    load_breast_cancer,
    load_digits,
    load_iris,
)
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    cross_val_score,
    train_test_split,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import pyframe as pf
from pyframe.estimators import MLPClassifier, NetClassifier, NetRegressor

pytestmark = pytest.mark.sklearn


@parametrize_with_checks([NetClassifier(), NetRegressor()])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def test_it_learns():
    assert quick().fit(X, Y).score(X, Y) > 0.96
    images, digits = load_digits(return_X_y=True)
    net = quick(epochs=20, validation_split=0.2, metrics=["accuracy"], batch_size=32)
    net.fit(images[:1200] / 16, digits[:1200])
    assert net.score(images[1200:] / 16, digits[1200:]) > 0.9
    assert len(net.history_["val_accuracy"]) == net.n_iter_ == 20


def test_in_scikit_learns_company():
    search = GridSearchCV(
        make_pipeline(StandardScaler(), quick(epochs=30)),
        {"netclassifier__epochs": [1, 30], "netclassifier__loss": ["auto", "l2"]},
        n_jobs=2,
        cv=3,
    ).fit(X, Y)
    assert search.best_params_["netclassifier__epochs"] == 30 and search.best_score_ > 0.9
    assert cross_val_score(quick(), X, Y, cv=3).mean() > 0.9
    voters = [("net", quick()), ("line", LogisticRegression(max_iter=500))]
    assert VotingClassifier(voters, voting="soft").fit(X, Y).score(X, Y) > 0.95


def test_data_frames():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcd"))
    names = pandas.Series(np.array(["one", "two", "three"])[Y])
    scaled = make_pipeline(StandardScaler(), quick()).set_output(transform="pandas")
    scaled.fit(frame, names)
    assert set(scaled.predict(frame)) == {"one", "two", "three"}
    assert list(scaled[-1].feature_names_in_) == list("abcd")


def test_the_given_layers_are_a_description():
    layers = [Dense(8, activation="relu"), pf.layers.Dropout(0.1)]
    net = NetClassifier(layers, epochs=2, random_state=0)
    first = net.fit(X, Y).predict_proba(X)
    assert not any(layer.built for layer in layers)
    assert np.array_equal(net.fit(X, Y).predict_proba(X), first)
    assert np.array_equal(clone(net).fit(X, Y).predict_proba(X), first)
    assert not np.array_equal(
        clone(net).set_params(random_state=1).fit(X, Y).predict_proba(X), first
    )
    model = pf.Sequential([Dense(8, activation="relu"), Dense(3)], input_shape=(4,))
    before = model.get_weights()
    NetClassifier(model.layers, head=False, epochs=2).fit(X, Y)
    assert all(np.array_equal(before[key], value) for key, value in model.get_weights().items())


def test_fits_do_not_touch_the_global_seed():
    pf.set_seed(3)
    try:
        quick(epochs=1).fit(X, Y)
        assert pf.initializers.get_seed() == 3
    finally:
        pf.set_seed(0)


def test_the_same_bits_with_any_number_of_threads():
    found = []
    for count in (1, 2, 3):
        with pf.num_threads(count):
            found.append(quick(epochs=3).fit(X, Y).predict_proba(X))
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])


def test_pickles_predict_the_same_and_go_on():
    net = quick(epochs=3, warm_start=True).fit(X, Y)
    same = pickle.loads(pickle.dumps(net))
    assert np.array_equal(same.predict_proba(X), net.predict_proba(X))
    assert same.fit(X, Y).n_iter_ == 6


def test_a_pickle_is_read_in_another_process(tmp_path):
    net = quick(epochs=3).fit(X, Y)
    (tmp_path / "net.pickle").write_bytes(pickle.dumps(net))
    np.save(tmp_path / "x.npy", X)
    program = """
import pickle, sys, numpy as np
net = pickle.load(open("net.pickle", "rb"))
np.save("p.npy", net.predict_proba(np.load("x.npy")))
"""
    subprocess.run([sys.executable, "-P", "-c", program], cwd=tmp_path, check=True)
    assert np.array_equal(np.load(tmp_path / "p.npy"), net.predict_proba(X))


def test_warm_start_and_partial_fit_go_on():
    whole = quick(epochs=6, shuffle=False, batch_size=None).fit(X, Y)
    warm = quick(epochs=3, shuffle=False, batch_size=None, warm_start=True).fit(X, Y).fit(X, Y)
    assert np.array_equal(whole.predict_proba(X), warm.predict_proba(X))
    parts = quick(shuffle=False, batch_size=None)
    for _ in range(6):
        parts.partial_fit(X, Y, classes=[0, 1, 2])
    assert np.array_equal(whole.predict_proba(X), parts.predict_proba(X))
    assert parts.n_iter_ == 6 and len(parts.history_["loss"]) == 6


def test_an_interrupted_fit_warns():
    class Press(pf.callbacks.Callback):
        def on_epoch_end(self, trainer, epoch, logs):
            signal.raise_signal(signal.SIGINT)

    with pytest.warns(UserWarning, match="interrupted by user"):
        net = quick(epochs=50, callbacks=[Press()]).fit(X, Y)
    assert net.n_iter_ < 50


def test_partial_fit_knows_its_classes():
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        quick().partial_fit(X, Y)
    net = quick().partial_fit(X[:50], Y[:50], classes=[0, 1, 2])
    assert net.predict_proba(X).shape == (150, 3)
    with pytest.raises(ValueError, match="previously unseen labels: \\[7\\]"):
        net.partial_fit(X, np.where(Y == 2, 7, Y))
    with pytest.raises(ValueError, match="not the same as on last call"):
        net.partial_fit(X, Y, classes=[0, 1])


def test_one_class():
    net = quick(epochs=2).fit(X[:50], Y[:50])
    assert set(net.predict(X)) == {0} and np.array_equal(net.predict_proba(X), np.ones((150, 1)))


def test_several_labels_and_several_targets():
    labels = np.stack([X[:, 0] > 6, X[:, 2] > 4], axis=1).astype(int)
    net = quick(epochs=400).fit(X, labels)
    assert net.predict(X).shape == (150, 2) and net.score(X, labels) > 0.85
    assert ((net.predict_proba(X) > 0.5) == net.predict(X)).all()
    twice = np.stack([X[:, 0], -X[:, 1]], axis=1)
    regressor = NetRegressor(optimizer=pf.optimizers.Adam(0.005), random_state=0).fit(X, twice)
    assert regressor.predict(X).shape == (150, 2) and regressor.score(X, twice) > 0.9


def test_sparse_input_is_dense_input():
    scipy = pytest.importorskip("scipy.sparse")
    dense = np.where(RNG.random((60, 30)) < 0.2, 1.0, 0.0)
    y = (dense[:, 0] + dense[:, 1] > 0).astype(int)
    for kind in (scipy.csr_matrix, scipy.csc_array, scipy.coo_array):
        one, two = quick(epochs=5).fit(kind(dense), y), quick(epochs=5).fit(dense, y)
        assert np.array_equal(one.predict_proba(kind(dense)), two.predict_proba(dense))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_data_decide_the_dtype(dtype):
    net = quick(epochs=1).fit(X.astype(dtype), Y)
    assert net.model_.inputs[0].dtype == dtype and net.predict_proba(X).dtype == dtype
    assert quick(epochs=1, dtype="float32").fit(X, Y).model_.inputs[0].dtype == np.float32


def small(shape, outputs, units=4):
    return [pf.layers.Flatten(), Dense(units, activation="tanh"), Dense(outputs)]


def test_build_fn_and_images():
    images = RNG.random((40, 3, 2, 2))
    y = (images.mean(axis=(1, 2, 3)) > 0.5).astype(int)
    net = NetClassifier(build_fn=small, build_args={"units": 5}, epochs=2, random_state=0)
    assert net.fit(images, y).predict(images).shape == (40,)
    assert net.sample_shape_ == (3, 2, 2) and net.model_.layers[1].units == 5
    flat = clone(net).set_params(input_shape=(3, 2, 2)).fit(images.reshape(40, 12), y)
    assert np.array_equal(flat.predict_proba(images.reshape(40, 12)), net.predict_proba(images))
    search = GridSearchCV(net, {"build_args": [{"units": 2}, {"units": 6}]}, cv=2).fit(images, y)
    assert search.best_estimator_.model_.layers[1].units in (2, 6)


def test_build_fn_may_return_a_model():
    def build(shape, outputs):
        x = pf.Placeholder("x", shape=(None, *shape), dtype="float64")
        h = Dense(8, activation="relu")(x)
        return pf.Model(inputs=[x], outputs=[Dense(outputs)(h)])

    assert NetRegressor(build_fn=build, epochs=2).fit(X, Y).predict(X).shape == (150,)


def test_a_convolutional_network():
    pytest.importorskip("pyframe_cnn")
    images, digits = load_digits(return_X_y=True)
    net = NetClassifier(
        [
            pf.layers.Conv2D(8, 3, activation="relu"),
            pf.layers.MaxPool2D(2),
            pf.layers.Flatten(),
        ],
        optimizer=pf.optimizers.Adam(3e-3),
        input_shape=(8, 8, 1),
        dtype="float32",
        epochs=30,
        batch_size=32,
        random_state=0,
    )
    seen, unseen, of_seen, of_unseen = train_test_split(images / 16, digits, random_state=0)
    net.fit(seen, of_seen)
    assert pickle.loads(pickle.dumps(net)).score(unseen, of_unseen) > 0.95


BAD = [
    (np.where(X > 6, np.nan, X), "Input X contains NaN"),
    (np.where(X > 6, np.inf, X), "Input X contains infinity"),
    (X[:0], "Found array with 0 sample"),
    (X[:, 0], "Expected 2D array, got 1D array instead"),
    (X + 1j, "Complex data not supported"),
    ([[1.0], [1.0, 2.0]], "inhomogeneous"),
    (X[:10], "inconsistent numbers of samples"),
    (np.array([["a"] * 4] * 150, object), "could not convert string to float"),
]


@pytest.mark.parametrize(("data", "message"), BAD)
@pytest.mark.parametrize("kind", [NetClassifier, NetRegressor])
def test_bad_data(kind, data, message):
    with pytest.raises(ValueError, match=message):
        kind(epochs=1).fit(data, Y)


@pytest.mark.parametrize("missing", [None, np.nan])
def test_a_missing_target_among_objects_is_named(missing):
    y = np.array([*Y[1:], missing], object)
    with pytest.raises(ValueError, match="Input.* contains NaN"):
        NetRegressor(epochs=1).fit(X, y)


def test_before_and_after_fitting():
    with pytest.raises(NotFittedError):
        quick().predict(X)
    net = quick(epochs=1).fit(X, Y)
    with pytest.raises(ValueError, match="X has 3 features, but NetClassifier is expecting 4"):
        net.predict(X[:, :3])
    assert not hasattr(quick(loss="l2"), "predict_proba")


def test_without_scikit_learn():
    program = """
import sys
sys.modules["sklearn"] = None
try:
    import pyframe.estimators
except ImportError as error:
    print(type(error).__name__, error)
"""
    run = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.startswith("MissingExtraError") and "pyframe-nn[sklearn]" in run.stdout


@pytest.mark.parametrize("rows", [5, 101])
def test_a_validation_split_that_does_not_divide_the_rows(rows):
    x = np.random.default_rng(0).normal(size=(rows, 3))
    net = NetRegressor(validation_split=0.5, epochs=2, random_state=0).fit(x, x[:, 0])
    assert len(net.history_["val_loss"]) == 2


def test_validation_rows_are_of_all_classes():
    held = []

    class Look(pf.callbacks.Callback):
        def on_fit_start(self, trainer):
            held.append(len(trainer.sample(1000)[trainer.model.inputs[0]]))

    net = quick(validation_split=0.2, metrics=["balanced_accuracy"], callbacks=[Look()])
    net.fit(X, Y)  # sorted by class
    assert held == [120] and net.history_["val_balanced_accuracy"][-1] > 0.9
    with pytest.raises(ValueError, match="validation_split=0.001 of 150 rows is none"):
        quick(validation_split=0.001).fit(X, Y)
    weights = np.where(Y == 2, 0.0, 1.0)
    weighted = quick(validation_split=0.2).fit(X, Y, weights)
    assert weighted.predict(X[:100]).tolist() == Y[:100].tolist()


MIXED = [[1, "a"] * 75, np.array([1, "a"] * 75, object), [True, "a"] * 75, [1.5, "a"] * 75]


@pytest.mark.parametrize("labels", MIXED, ids=["list", "objects", "booleans", "floats"])
def test_labels_of_several_types_are_refused_with_words(labels):
    if isinstance(labels, list) and labels[0] == 1:
        labels = np.array(labels, object)
    labels = np.array(labels, object)
    with pytest.raises(pf.PyframeError, match=r"labels of several types.*str"):
        NetClassifier(epochs=1).fit(X, labels)
    with pytest.raises(pf.PyframeError, match=r"labels of several types.*str"):
        NetClassifier(epochs=1).partial_fit(X, labels, classes=["a"])


@pytest.mark.parametrize("dtype", ["string", "category", object])
def test_a_missing_label_is_named(dtype):
    pandas = pytest.importorskip("pandas")
    y = pandas.Series(["p", None, *["q"] * 148], dtype=dtype)
    with pytest.raises(ValueError, match="missing label .* in row 1: leave it out"):
        NetClassifier(epochs=1).fit(X, y)


def test_a_loaded_network_goes_on_from_where_it_was(tmp_path):
    X, y = load_iris(return_X_y=True)
    net = NetClassifier(random_state=0).fit(100 * X, y)
    net.save(tmp_path / "net")
    again = NetClassifier.load(tmp_path / "net").partial_fit(100 * X[:5], y[:5])
    assert again.score(100 * X, y) > net.score(100 * X, y) - 0.1
    layers = [Dense(16, activation="tanh")]
    net = NetClassifier(layers, random_state=0).fit(X, y)
    net.save(tmp_path / "net")
    assert NetClassifier.load(tmp_path / "net").partial_fit(X, y).n_iter_ == 1


def test_a_network_of_one_output_for_two_classes_is_refused(tmp_path):
    X, y = load_breast_cancer(return_X_y=True)
    MLPClassifier(tol=1e9).fit(X, y).save(tmp_path / "mlp")
    with pytest.raises(ValueError, match="1 output.* for 2 classes"):
        NetClassifier.load(tmp_path / "mlp")
