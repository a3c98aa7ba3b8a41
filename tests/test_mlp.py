"""scikit-learn's multilayer perceptrons, trained by pyframe: the same numbers, sooner."""

from __future__ import annotations

import copy
import inspect
import pickle
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

pytest.importorskip("sklearn")

import scipy.sparse
from sklearn import neural_network
from sklearn.base import clone
from sklearn.datasets import (
    load_breast_cancer,
    load_digits,
    load_iris,
    make_multilabel_classification,
    make_regression,
)
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.estimator_checks import parametrize_with_checks

import pyframe as pf
from pyframe import estimators

pytestmark = [
    pytest.mark.sklearn,
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

RNG = np.random.default_rng(0)


def digits():
    x, y = load_digits(return_X_y=True)
    return scale(x)[:600], y[:600]


def cancer():
    x, y = load_breast_cancer(return_X_y=True)
    return scale(x), np.array(["benign", "malignant"])[y]


def binary_cancer():
    return scale(load_breast_cancer().data), load_breast_cancer().target


def several_labels():
    return make_multilabel_classification(300, random_state=0)


def numbers(targets=1):
    x, y = make_regression(400, 8, n_targets=targets, noise=1.0, random_state=0)
    return x, y / 100


def counts(targets=1):
    x, y = numbers(targets)
    return x, np.abs(y).round()


def sparse():
    x, y = digits()
    return scipy.sparse.csr_array(np.where(x > 0.5, x, 0)), y


@parametrize_with_checks(
    [
        estimators.MLPClassifier(),
        estimators.MLPRegressor(),
        estimators.MLPClassifier(solver="sgd", learning_rate_init=0.1),
    ]
)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


# ---- the same numbers ----

CASES = {
    "digits": ("Classifier", digits, {}),
    "two classes": ("Classifier", cancer, {}),
    "several labels": ("Classifier", several_labels, {}),
    "sparse": ("Classifier", sparse, {}),
    "sgd": ("Classifier", digits, {"solver": "sgd", "learning_rate_init": 0.01}),
    "plain sgd": ("Regressor", numbers, {"solver": "sgd", "momentum": 0.0}),
    "not nesterov": ("Classifier", digits, {"solver": "sgd", "nesterovs_momentum": False}),
    "momentum 1": ("Classifier", cancer, {"solver": "sgd", "momentum": 1.0, "max_iter": 5}),
    "adaptive": (
        "Classifier",
        cancer,
        {
            "solver": "sgd",
            "learning_rate": "adaptive",
            "learning_rate_init": 0.1,
            "tol": 1e-2,
            "n_iter_no_change": 2,
            "max_iter": 60,
        },
    ),
    "adaptive, sparse": (
        "Classifier",
        sparse,
        {
            "solver": "sgd",
            "learning_rate": "adaptive",
            "tol": 0.1,
            "n_iter_no_change": 1,
        },
    ),
    "invscaling": (
        "Classifier",
        cancer,
        {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.5, "power_t": 0.3},
    ),
    "early stopping": (
        "Classifier",
        binary_cancer,
        {"early_stopping": True, "n_iter_no_change": 3},
    ),
    "early stopping of several labels": (
        "Classifier",
        several_labels,
        {"early_stopping": True, "validation_fraction": 0.3},
    ),
    "early stopping of numbers": ("Regressor", numbers, {"early_stopping": True}),
    "lbfgs": ("Classifier", cancer, {"solver": "lbfgs", "max_iter": 10}),
    "lbfgs of numbers": ("Regressor", lambda: numbers(2), {"solver": "lbfgs", "max_iter": 10}),
    "logistic": ("Classifier", digits, {"activation": "logistic"}),
    "tanh": ("Classifier", digits, {"activation": "tanh", "hidden_layer_sizes": (30, 20)}),
    "identity": ("Regressor", numbers, {"activation": "identity"}),
    "no hidden layer": ("Classifier", digits, {"hidden_layer_sizes": ()}),
    "penalty": ("Classifier", digits, {"alpha": 2.0, "batch_size": 100}),
    "no penalty": ("Classifier", digits, {"alpha": 0.0}),
    "numbers": ("Regressor", numbers, {}),
    "several numbers": ("Regressor", lambda: numbers(3), {"alpha": 0.5}),
    "several numbers, sparse": (
        "Regressor",
        lambda: (scipy.sparse.csc_array(numbers(3)[0]), numbers(3)[1]),
        {"alpha": 0.5},
    ),
    "counts": ("Regressor", counts, {"loss": "poisson"}),
    "several counts": ("Regressor", lambda: counts(2), {"loss": "poisson", "alpha": 1.0}),
    "in order": ("Regressor", numbers, {"shuffle": False}),
    "one batch": ("Classifier", cancer, {"batch_size": 569}),
}


def both(kind, parameters):
    given = {"random_state": 1, "max_iter": 12, **parameters}
    return [getattr(module, f"MLP{kind}")(**given) for module in (neural_network, estimators)]


def assert_same(theirs, ours, x, *, rtol=1e-9):
    assert ours.n_iter_ == theirs.n_iter_ and ours.t_ == theirs.t_
    assert ours.out_activation_ == theirs.out_activation_
    np.testing.assert_allclose(ours.loss_, theirs.loss_, rtol=rtol)
    for name in ("loss_curve_", "validation_scores_"):
        assert hasattr(ours, name) == hasattr(theirs, name)
        if getattr(theirs, name, None) is not None:
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=rtol)
    for name in ("coefs_", "intercepts_"):
        for a, b in zip(getattr(ours, name), getattr(theirs, name), strict=True):
            assert a.dtype == b.dtype and a.flags.writeable
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)
    if hasattr(theirs, "classes_"):
        np.testing.assert_array_equal(ours.classes_, theirs.classes_)
        np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))
        np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-9)
    else:
        np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_the_same_numbers(case, weighted):
    kind, data, parameters = CASES[case]
    x, y = data()
    weight = np.random.default_rng(1).uniform(0.2, 2, x.shape[0]) if weighted else None
    theirs, ours = (m.fit(x, y, sample_weight=weight) for m in both(kind, parameters))
    # A division by the learning rate's history stands between the two velocities of invscaling.
    assert_same(theirs, ours, x, rtol=1e-6 if "lbfgs" in case or case == "invscaling" else 1e-9)


@pytest.mark.parametrize("parameters", [{}, {"solver": "sgd", "learning_rate": "invscaling"}])
def test_the_same_numbers_warm_and_in_parts(parameters):
    x, y = digits()
    theirs, ours = both("Classifier", {"warm_start": True, "max_iter": 4, **parameters})
    for _ in range(3):
        theirs.fit(x, y), ours.fit(x, y)
        assert_same(theirs, ours, x, rtol=1e-7)
    theirs, ours = both("Classifier", parameters)
    for part in range(4):
        rows = slice(100 * part, 100 * part + 200)
        for model in (theirs, ours):
            model.partial_fit(x[rows], y[rows], classes=np.arange(10))
        # A copy goes on where the model was, the optimizer's moments included.
        ours = pickle.loads(pickle.dumps(ours)) if part % 2 else copy.deepcopy(ours)
        assert_same(theirs, ours, x, rtol=1e-7)
    x, y = numbers()
    theirs, ours = both("Regressor", parameters)
    for _ in range(3):
        theirs.partial_fit(x, y), ours.partial_fit(x, y)
    assert_same(theirs, ours, x, rtol=1e-7)


@pytest.mark.parametrize("parameters", [{"alpha": 0.5}, {"activation": "tanh"}])
def test_parameters_that_change_between_parts(parameters):
    x, y = digits()
    theirs, ours = both("Classifier", {})
    for model in (theirs, ours):
        model.partial_fit(x, y, classes=np.arange(10))
        model.set_params(**parameters).partial_fit(x, y)
    assert_same(theirs, ours, x)


def test_the_same_words(capsys):
    x, y = binary_cancer()
    stubborn = {"tol": 1.0, "n_iter_no_change": 2, "max_iter": 20, "verbose": True}
    for parameters in (
        {"early_stopping": True},
        {"solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 2e-6},
        {"solver": "sgd"},
    ):
        said = []
        for model in both("Classifier", {**stubborn, **parameters}):
            model.fit(x, y)
            said.append(capsys.readouterr().out)
        assert said[0] == said[1] and "Stopping" in said[0]


def test_the_same_signatures():
    for name in ("MLPClassifier", "MLPRegressor"):
        theirs, ours = (
            inspect.signature(getattr(m, name)).parameters for m in (neural_network, estimators)
        )
        assert list(ours)[: len(theirs)] == list(theirs)
        for parameter, given in theirs.items():
            assert (given.default, given.kind) == (ours[parameter].default, ours[parameter].kind)
        extra = set(ours) - set(theirs)
        assert extra == {"dropout", "optimizer"} | ({"loss", "class_weight"} - set(theirs)) - (
            {"class_weight"} if name == "MLPRegressor" else set()
        )


def test_what_is_used_of_scikit_learn_is_there():
    inside = neural_network.MLPClassifier
    for name in (
        "_fit",
        "_fit_lbfgs",
        "_loss_grad_lbfgs",
        "_fit_stochastic",
        "_forward_pass_fast",
        "_score",
    ):
        ours = getattr(estimators.MLPClassifier, name)
        assert ours is not getattr(inside, name), f"{name} is not ours"


def test_float32_stays_float32():
    x, y = digits()
    theirs, ours = (m.fit(x.astype("f"), y) for m in both("Classifier", {}))
    assert {c.dtype for c in ours.coefs_} == {np.dtype("f")}
    assert ours.predict_proba(x.astype("f")).dtype == np.float32
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-3)


# ---- what is only here ----


def test_what_scikit_learn_does_not_have():
    x, y = digits()
    plain = estimators.MLPClassifier(random_state=0, max_iter=20).fit(x, y)
    for parameters in (
        {"dropout": 0.3},
        {"activation": "gelu"},
        {"activation": pf.Softplus},
        {"optimizer": "sgd", "learning_rate_init": 0.1},
        {"optimizer": pf.optimizers.Adam(0.003, weight_decay=1e-3)},
        {"loss": "l2", "learning_rate_init": 0.01},
        {"loss": lambda y, z, sample_weight: pf.CrossEntropy(y, z, sample_weight)},
    ):
        model = estimators.MLPClassifier(random_state=0, max_iter=20, **parameters).fit(x, y)
        assert model.score(x, y) > 0.9
        assert model.loss_curve_ != plain.loss_curve_ or callable(parameters.get("loss"))
        again = clone(model).fit(x, y)
        assert again.loss_curve_ == model.loss_curve_
    x, y = numbers()
    for loss in ("l1", "huber"):
        model = estimators.MLPRegressor(loss=loss, random_state=0, max_iter=300)
        assert model.fit(x, y).score(x, y) > 0.9


def test_dropout_leaves_predictions_alone():
    x, y = digits()
    model = estimators.MLPClassifier(dropout=0.5, random_state=0, max_iter=5).fit(x, y)
    np.testing.assert_array_equal(model.predict_proba(x), model.predict_proba(x))
    hidden = np.maximum(x @ model.coefs_[0] + model.intercepts_[0], 0)
    z = hidden @ model.coefs_[1] + model.intercepts_[1]
    np.testing.assert_array_equal(model.predict(x), z.argmax(axis=1))


def test_class_weights():
    x, y = cancer()
    rare = np.r_[np.flatnonzero(y == "benign")[:30], np.flatnonzero(y == "malignant")]
    x, y = x[rare], y[rare]
    weights = {"benign": 7.0, "malignant": 0.5}
    given = {"random_state": 0, "max_iter": 10}
    named = estimators.MLPClassifier(class_weight=weights, **given).fit(x, y)
    by_hand = estimators.MLPClassifier(**given).fit(
        x, y, sample_weight=np.where(y == "benign", 7.0, 0.5)
    )
    assert named.loss_curve_ == by_hand.loss_curve_
    balanced = estimators.MLPClassifier(class_weight="balanced", **given).fit(x, y)
    assert balanced.loss_curve_ != named.loss_curve_
    with pytest.raises(ValueError, match="all labels at once"):
        balanced.partial_fit(x, y)


def test_parameters_may_be_changed_by_hand():
    x, y = numbers()
    model = estimators.MLPRegressor(random_state=0, max_iter=5).fit(x, y)
    before = model.predict(x)
    model.intercepts_[-1] += 1.0
    np.testing.assert_allclose(model.predict(x), before + 1.0)
    model.coefs_ = [np.zeros_like(c) for c in model.coefs_]
    assert np.ptp(model.predict(x)) == 0


# ---- in scikit-learn's company ----


def test_in_company():
    x, y = load_iris(return_X_y=True)
    net = estimators.MLPClassifier(max_iter=100, learning_rate_init=0.01, random_state=0)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), net),
        {"mlpclassifier__activation": ["relu", "gelu"], "mlpclassifier__alpha": [1e-4, 1.0]},
        n_jobs=2,
        cv=3,
    ).fit(x, y)
    assert search.best_score_ > 0.9
    assert cross_val_score(net, x, y, cv=3).mean() > 0.9
    voters = [("net", net), ("line", LogisticRegression(max_iter=500))]
    assert VotingClassifier(voters, voting="soft").fit(x, y).score(x, y) > 0.9


def test_pandas_frames():
    pandas = pytest.importorskip("pandas")
    x, y = load_iris(return_X_y=True, as_frame=True)
    pipeline = make_pipeline(StandardScaler(), estimators.MLPClassifier(max_iter=20))
    pipeline.set_output(transform="pandas").fit(x, y)
    assert list(pipeline[-1].feature_names_in_) == list(x.columns)
    assert isinstance(pipeline[:-1].transform(x), pandas.DataFrame)
    with pytest.raises(ValueError, match="feature names"):
        pipeline[-1].predict(x.rename(columns={"sepal length (cm)": "length"}))


def test_documented_examples():
    """The examples of scikit-learn's guide and docstrings, with other imports."""
    x, y = [[0.0, 0.0], [1.0, 1.0]], [0, 1]
    lbfgs = {"solver": "lbfgs", "alpha": 1e-5, "hidden_layer_sizes": (5, 2), "random_state": 1}
    for labels in (y, [[0, 1], [1, 1]]):
        theirs, ours = (m.MLPClassifier(**lbfgs) for m in (neural_network, estimators))
        theirs.fit(x, labels), ours.fit(x, labels)
        for rows in ([[2.0, 2.0], [-1.0, -2.0]], [[1.0, 2.0]]):
            np.testing.assert_array_equal(ours.predict(rows), theirs.predict(rows))
        assert [c.shape for c in ours.coefs_] == [c.shape for c in theirs.coefs_]
    from sklearn.datasets import make_classification

    x, y = make_classification(n_samples=100, random_state=1)
    parts = train_test_split(x, y, stratify=y, random_state=1)
    net = estimators.MLPClassifier(random_state=1, max_iter=300).fit(parts[0], parts[2])
    np.testing.assert_allclose(net.predict_proba(parts[1][:1]), [[0.0383, 0.961]], atol=1e-3)
    assert net.predict(parts[1][:5]).tolist() == [1, 0, 1, 0, 1] and net.score(*parts[1::2]) > 0.8
    x, y = make_regression(n_samples=200, n_features=20, random_state=1)
    parts = train_test_split(x, y, random_state=1)
    net = estimators.MLPRegressor(random_state=1, max_iter=2000, tol=0.1).fit(parts[0], parts[2])
    np.testing.assert_allclose(net.predict(parts[1][:2]), [28.98, -291], rtol=1e-2)
    assert net.score(*parts[1::2]) > 0.98


# ---- bad input ----


@pytest.mark.parametrize(
    "parameters",
    [
        {"activation": "rellu"},
        {"solver": "newton"},
        {"alpha": -1.0},
        {"batch_size": 0},
        {"dropout": 1.0},
        {"loss": "cross"},
        {"optimizer": "adom"},
        {"optimizer": 3},
        {"max_iter": 0},
        {"class_weight": "even"},
    ],
)
def test_parameters_that_make_no_sense(parameters):
    with pytest.raises(InvalidParameterError, match=next(iter(parameters))):
        estimators.MLPClassifier(**parameters).fit(*load_iris(return_X_y=True))


@pytest.mark.parametrize("kind", ["Classifier", "Regressor"])
@pytest.mark.parametrize(
    "bad",
    [
        lambda x, y: (np.where(x > 7, np.nan, x), y),
        lambda x, y: (np.where(x > 7, np.inf, x), y),
        lambda x, y: (x[:0], y[:0]),
        lambda x, y: (x[:, 0], y),
        lambda x, y: ([[1.0], [1.0, 2.0]], y[:2]),
        lambda x, y: (np.array([["a"], ["b"]], object), y[:2]),
        lambda x, y: (x + 1j, y),
        lambda x, y: (x, y[:-1]),
        lambda x, y: (x, np.where(y == 1, np.nan, y)),
        lambda x, y: (x, None),
        lambda x, y: (x[:, :0], y),
    ],
)
def test_bad_input_gets_scikit_learns_own_words(kind, bad):
    x, y = bad(*load_iris(return_X_y=True))
    said = []
    for model in both(kind, {}):
        with pytest.raises((ValueError, TypeError)) as caught:
            model.fit(x, y)
        said.append((caught.type, str(caught.value)))
    assert said[0] == said[1]


def test_labels_that_are_too_few_or_new():
    x, y = load_iris(return_X_y=True)
    theirs, ours = (m.fit(x, np.zeros(150)) for m in both("Classifier", {}))
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))
    said = []
    for model in both("Classifier", {}):
        model.partial_fit(x, y, classes=[0, 1, 2])
        with pytest.raises(ValueError) as caught:
            model.partial_fit(x, y + 1)
        said.append(str(caught.value))
    assert said[0] == said[1]
    for model in both("Classifier", {"early_stopping": True}):
        with pytest.raises(ValueError, match="partial_fit does not support early_stopping"):
            model.partial_fit(x, y, classes=[0, 1, 2])
    with pytest.raises(AttributeError, match="partial_fit"):
        estimators.MLPClassifier(solver="lbfgs").partial_fit(x, y)
    with pytest.raises(ValueError, match="takes batches"):
        estimators.MLPClassifier(solver="lbfgs", dropout=0.1).fit(x, y)
    with pytest.raises(ValueError, match="non-finite parameter weights"):
        estimators.MLPRegressor(solver="sgd", learning_rate_init=1e6).fit(*numbers())


def test_warnings():
    x, y = load_iris(return_X_y=True)
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(3\) reached"):
        estimators.MLPClassifier(max_iter=3).fit(x, y)
    with pytest.warns(UserWarning, match="going to be clipped"):
        estimators.MLPClassifier(max_iter=3, batch_size=200).fit(x, y)


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals")
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGALRM")
def test_control_c_keeps_what_is_trained():
    def interrupt(*_):
        raise KeyboardInterrupt

    x, y = digits()
    model = estimators.MLPClassifier(max_iter=10**6, tol=0, n_iter_no_change=np.inf)
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.warns(UserWarning, match="interrupted by user"):
            model.fit(x, y)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert 0 < model.n_iter_ < 10**6 and model.score(x, y) > 0.9


def test_scikit_learn_is_imported_on_demand():
    code = "import sys, pyframe; assert 'sklearn' not in sys.modules and 'scipy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_learning_rate_falls_also_in_epochs_that_do_not_improve():
    # scikit-learn's count of them goes on from one partial_fit to the next, and so does its rate.
    x = np.random.default_rng(0).normal(size=(60, 5))
    parameters = {"solver": "sgd", "learning_rate": "invscaling", "n_iter_no_change": 1, "tol": 10}
    theirs, ours = (
        m.MLPRegressor(hidden_layer_sizes=7, random_state=0, **parameters)
        for m in (neural_network, estimators)
    )
    for net in (theirs, ours):
        for _ in range(8):
            net.partial_fit(x, x.sum(axis=1))
    assert_same(theirs, ours, x, rtol=1e-6)


def test_a_fit_that_is_refused_leaves_arrays_of_its_own():
    x = np.random.default_rng(0).normal(size=(60, 5))
    net = estimators.MLPRegressor(max_iter=2, random_state=0).fit(x, x[:, 0])
    net.set_params(early_stopping=True, warm_start=True)
    with pytest.raises(ValueError, match="validation set is too small"):
        net.fit(x[:5], x[:5, 0])
    assert all(array.flags.writeable for array in [*net.coefs_, *net.intercepts_])


@pytest.mark.parametrize("rows", [None, 3])
def test_labels_that_do_not_fit_are_refused_alike_with_class_weights(rows):
    x, y = np.zeros((6, 2)), None if rows is None else np.arange(rows)
    messages = []
    for weights in (None, "balanced"):
        with pytest.raises(ValueError) as caught:
            estimators.MLPClassifier(class_weight=weights).fit(x, y, sample_weight=np.ones(6))
        messages.append(str(caught.value).split("\n")[0])
    assert messages[0] == messages[1]
