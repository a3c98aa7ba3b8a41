"""The multilayer perceptrons on data that are sparse, not scaled, or weighted by 0."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest

pytest.importorskip("sklearn")

import scipy.sparse
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from test_mlp import assert_same, both, cancer, digits, numbers, several_labels, sparse

from pyframe import estimators

pytestmark = [
    pytest.mark.sklearn,
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


def wine():
    return load_wine(return_X_y=True)


def raw_cancer():
    return load_breast_cancer(return_X_y=True)


def raw_labels():
    x, y = several_labels()
    return 10 * x, y


# ---- not scaled: log losses reach the bound that scikit-learn puts on them ----


@pytest.mark.parametrize(
    ("kind", "data", "parameters"),
    [
        ("Classifier", wine, {"max_iter": 40}),
        ("Classifier", wine, {"solver": "sgd"}),
        ("Classifier", raw_cancer, {"max_iter": 40}),
        ("Classifier", raw_cancer, {"early_stopping": True, "max_iter": 40}),
        ("Classifier", raw_cancer, {"solver": "lbfgs"}),
        ("Classifier", raw_labels, {}),
        ("Regressor", lambda: load_diabetes(return_X_y=True), {"max_iter": 40}),
    ],
)
def test_the_same_numbers_of_data_that_are_not_scaled(kind, data, parameters):
    x, y = data()
    theirs, ours = (m.fit(x, y) for m in both(kind, parameters))
    assert_same(theirs, ours, x, rtol=1e-6 if parameters.get("solver") == "lbfgs" else 1e-9)


@pytest.mark.parametrize("data", [wine, raw_cancer])
def test_losses_in_float32_have_the_bound_of_float32(data):
    x, y = data()
    theirs, ours = (m.fit(x.astype("f"), y) for m in both("Classifier", {"max_iter": 3}))
    assert 2 < theirs.loss_curve_[0] < -np.log(np.finfo("f").eps)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-4)


# ---- sparse ----


@pytest.mark.parametrize(
    "parameters",
    [
        {"early_stopping": True},
        {"solver": "lbfgs"},
        {"hidden_layer_sizes": ()},
        {"hidden_layer_sizes": (20, 10), "activation": "tanh"},
        {"shuffle": False, "batch_size": 600},
    ],
)
def test_the_same_numbers_of_sparse_data(parameters):
    x, y = sparse()
    theirs, ours = (m.fit(x, y) for m in both("Classifier", parameters))
    assert_same(theirs, ours, x, rtol=1e-6 if "solver" in parameters else 1e-9)
    np.testing.assert_allclose(ours.predict_proba(x.toarray()), ours.predict_proba(x), atol=1e-12)


@pytest.mark.parametrize("kind", [scipy.sparse.csr_matrix, scipy.sparse.csc_array])
def test_sparse_and_dense_parts_in_turn(kind):
    x, y = digits()
    theirs, ours = both("Classifier", {})
    for part in (x, kind(x), x):
        for model in (theirs, ours):
            model.partial_fit(part, y, classes=np.arange(10))
        assert_same(theirs, ours, kind(x))
        assert_same(theirs, ours, x)


def test_float32_stays_float32_when_sparse():
    x, y = sparse()
    model = estimators.MLPClassifier(max_iter=3).fit(x.astype("f"), y)
    assert {c.dtype for c in model.coefs_} == {np.dtype("f")}
    assert model.predict_proba(x.astype("f")).dtype == np.float32


@pytest.mark.parametrize("parameters", [{"max_iter": 2}, {"solver": "lbfgs", "max_iter": 2}])
def test_sparse_data_are_never_made_dense(parameters):
    columns = np.random.default_rng(0).integers(50_000, size=20_000)
    x = scipy.sparse.csr_array((np.ones(20_000), (np.arange(20_000) % 2_000, columns)))
    y = np.arange(2_000) % 2
    model = estimators.MLPClassifier(hidden_layer_sizes=(2,), **parameters)
    tracemalloc.start()
    try:
        model.fit(x, y).predict(x)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60e6 < x.shape[0] * x.shape[1] * 8 / 10  # dense, it takes 800 MB


def test_data_are_not_kept_after_a_fit():
    x, y = sparse()
    x = scipy.sparse.vstack([x] * 20, format="csr")
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        model = estimators.MLPClassifier(max_iter=2).fit(x.copy(), np.tile(y, 20))
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert kept < x.data.nbytes and model.n_iter_ == 2


# ---- weights ----


def test_weights_of_0():
    x, y = numbers()
    weight = np.arange(400) % 3.0
    theirs, ours = (m.fit(x, y, sample_weight=weight) for m in both("Regressor", {}))
    assert_same(theirs, ours, x)
    for parameters in ({}, {"shuffle": False}):
        for model in both("Regressor", parameters):
            with pytest.raises(ZeroDivisionError, match="Weights sum to zero"):
                model.fit(x, y, sample_weight=np.arange(400) < 3)
    with pytest.raises((ValueError, ZeroDivisionError), match="non-zero|sum to zero"):
        estimators.MLPRegressor().fit(x, y, sample_weight=np.zeros(400))


def test_labels_that_are_strings_stop_early():
    x, y = cancer()
    given = {"early_stopping": True, "random_state": 0, "max_iter": 20}
    strings = estimators.MLPClassifier(**given).fit(x, y)
    numbers = estimators.MLPClassifier(**given).fit(x, (y == "malignant").astype(int))
    assert strings.validation_scores_ == numbers.validation_scores_


@pytest.mark.parametrize("parameters", [{}, {"early_stopping": True}, {"shuffle": False}])
def test_as_many_random_numbers_are_drawn(parameters):
    x, y = cancer()
    after = []
    for model in both("Classifier", parameters):
        stream = np.random.RandomState(7)
        model.set_params(random_state=stream).fit(x, y == "benign")
        after.append(stream.randint(2**30))
    assert after[0] == after[1]
