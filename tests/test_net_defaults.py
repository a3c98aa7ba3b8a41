"""The defaults of network estimators: what they score, when they end, how they scale."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn")

from networks import Dense, X, Y, quick
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import (
    KFold,
    StratifiedKFold,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import pyframe as pf
from pyframe.estimators import NetClassifier, NetRegressor

pytestmark = pytest.mark.sklearn


# What scikit-learn's MLPs reach with their defaults (1.9.1), raw and scaled: means of five folds
# and three seeds. Here it is one seed, for which some thousandths more or less are chance.
THEIRS = {
    load_iris: (0.9711, 0.9467),
    load_wine: (0.8128, 0.9776),
    load_breast_cancer: (0.9315, 0.9719),
    load_diabetes: (-3.1, -1.06),
    load_digits: (0.9733, 0.9787),
}


@pytest.mark.parametrize("load", THEIRS)
@pytest.mark.parametrize("scaled", [False, True])
def test_defaults_reach_what_scikit_learns_do(load, scaled):
    x, y = load(return_X_y=True)
    is_regression = load is load_diabetes
    net = (NetRegressor if is_regression else NetClassifier)(random_state=0)
    folds = (KFold if is_regression else StratifiedKFold)(5, shuffle=True, random_state=0)
    found = cross_val_score(make_pipeline(StandardScaler(), net) if scaled else net, x, y, cv=folds)
    assert found.mean() > THEIRS[load][scaled] - 0.005


@pytest.mark.filterwarnings("error:Net")
def test_a_fit_ends_when_it_has_converged_and_warns_when_it_has_not():
    with pytest.warns(ConvergenceWarning, match="NetClassifier has not converged in 3 epochs"):
        assert quick(epochs=3).fit(X, Y).n_iter_ == 3
    with pytest.warns(ConvergenceWarning, match="NetRegressor"):
        NetRegressor(epochs=3).fit(X, Y)
    assert quick(epochs=3, tol=None).fit(X, Y).n_iter_ == 3
    assert 11 <= quick(epochs=1000, tol=1e-2).fit(X, Y).n_iter_ < 1000
    few = quick(epochs=1000, tol=1e-2, n_iter_no_change=2).fit(X, Y).n_iter_
    assert few < quick(epochs=1000, tol=1e-2).fit(X, Y).n_iter_
    stop = pf.callbacks.EarlyStopping("val_loss", patience=1)
    assert quick(callbacks=[stop], validation_split=0.3).fit(X, Y).n_iter_ < 200
    quick().partial_fit(X, Y, classes=[0, 1, 2])


def test_targets_too_great_to_be_learned_are_told_of() -> None:
    """Steps are short in their unit: the loss hardly falls, and the fit stops early."""
    features = np.random.default_rng(0).standard_normal((200, 4))
    great = 1e5 * features[:, 0] + 2e5
    with pytest.warns(ConvergenceWarning, match="TransformedTargetRegressor"):
        NetRegressor(random_state=0).fit(features, great)


@pytest.mark.filterwarnings("ignore:NetRegressor has learned next to nothing")  # of great ones
def test_of_numbers_convergence_does_not_depend_on_their_unit():
    y = np.random.default_rng(0).normal(size=150)
    given = {"random_state": 0, "tol": 1e-2, "epochs": 1000}
    found = [NetRegressor(**given).fit(X, y * unit).n_iter_ for unit in (1e-3, 1.0, 1e3)]
    assert max(found) < 1000


def test_outputs_of_a_regressor_begin_at_the_mean():
    for loss in ("l2", pf.HuberLoss):
        net = NetRegressor(epochs=1, learning_rate=0.0, loss=loss).fit(X * 0, Y + 1000.0)
        np.testing.assert_allclose(net.predict(X * 0), 1001.0, rtol=1e-6)
    net = NetRegressor(epochs=1, learning_rate=0.0, loss="poisson").fit(X * 0, Y + 1000.0)
    assert abs(net.predict(X * 0)).max() < 10
    twice = np.stack([Y, -Y], axis=1)
    net = NetRegressor(epochs=1, learning_rate=0.0).fit(X * 0, twice, np.where(Y == 2, 1.0, 0.0))
    np.testing.assert_allclose(net.predict(X * 0)[0], [2, -2], rtol=1e-6)


def test_scaling_does_not_jump_at_a_deviation_of_one():
    x = np.random.default_rng(0).normal(size=(100, 2)) * [1.0, 0.3] + [1000.0, 5.0]
    y = (x[:, 1] > 5).astype(int)
    found = []
    for factor in (0.999, 1.001):
        spread = (x - x.mean(0)) / x.std(0) * [factor, 0.3] + x.mean(0)
        net = NetClassifier(epochs=1, tol=None, random_state=0).fit(spread, y)
        inside = net.model_.layers[0].output
        found.append(pf.compile(inside).run({net.model_.inputs[0]: spread}))
    np.testing.assert_allclose(found[0], found[1], atol=0.02)
    assert abs(found[0].mean(0)).max() < 5  # also of the mean of 1000


def test_partial_fit_scales_by_all_batches_so_far():
    x, y = load_wine(return_X_y=True)
    parts = NetClassifier(random_state=0)
    for rows in np.array_split(np.arange(len(x)), 9):  # sorted by class
        parts.partial_fit(x[rows], y[rows], classes=[0, 1, 2])
    scaling = parts.model_.layers[0]
    kept = np.maximum(1 - x.std(0), 0) * np.minimum(x.mean(0), 10)
    np.testing.assert_allclose(scaling.mean.value, x.mean(0) - kept, rtol=1e-9)
    np.testing.assert_allclose(scaling.scale.value, 1 / np.maximum(x.std(0), 1), rtol=1e-9)
    wide = x.std(0) > 1

    def centers(net):
        return net.model_.layers[0].mean.value[wide]

    again = pickle.loads(pickle.dumps(parts)).partial_fit(x + 10, y)
    np.testing.assert_allclose(centers(again), x.mean(0)[wide] + 5, rtol=1e-9)
    whole = NetClassifier(epochs=1, tol=None).fit(x, y).partial_fit(x + 10, y)
    np.testing.assert_allclose(centers(whole), x.mean(0)[wide], rtol=1e-9)
    weights = np.r_[np.zeros(100), np.ones(len(x) - 100)]
    weighted = NetClassifier(epochs=1, tol=None).fit(x, y, weights)
    still_wide = x[100:].std(0)[wide] > 1
    np.testing.assert_allclose(
        centers(weighted)[still_wide], x[100:].mean(0)[wide][still_wide], rtol=1e-9
    )


def test_a_fit_that_fails_leaves_the_scaling_as_it_was():
    net = NetClassifier(random_state=0).partial_fit(X, Y, classes=[0, 1, 2])
    before = net._scaling.total
    with pytest.raises(ValueError, match="unseen"):
        net.partial_fit(X, Y + 9)
    assert net._scaling.total == before == 150


def two_spirals(rows, turns, seed=0):
    radius = np.linspace(0.2, 1, rows)
    angle = radius * turns * 2 * np.pi
    one = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    noise = np.random.default_rng(seed).normal(size=(2 * rows, 2)) * 0.01
    return np.r_[one, -one] + noise, np.arange(2 * rows) // rows


def test_a_plateau_is_not_taken_for_the_end():
    """scikit-learn's MLPClassifier gets 0.67 of these right with its defaults."""
    (x, y), unseen = two_spirals(200, 1.5), two_spirals(500, 1.5, seed=1)
    assert NetClassifier(random_state=0).fit(x, y).score(*unseen) > 0.9
    layers = [Dense(64, activation="relu"), Dense(64, activation="relu")]
    (x, y), unseen = two_spirals(500, 2), two_spirals(500, 2, seed=1)
    assert NetClassifier(layers, random_state=0).fit(x, y).score(*unseen) > 0.99


def test_a_deep_network_has_the_time_to_leave_its_plateau():
    """With 10 epochs to wait, this ends after 25, at 0.56."""
    draw = np.random.default_rng(0)
    angle = np.sqrt(draw.random(250)) * 780 * 2 * np.pi / 360
    one = np.stack([-np.cos(angle) * angle, np.sin(angle) * angle], 1) + draw.random((250, 2)) * 0.5
    x, y = np.r_[one, -one], np.arange(500) // 250
    layers = [Dense(64, activation="relu") for _ in range(3)]
    found = [NetClassifier(layers, random_state=seed).fit(x, y).score(x, y) for seed in (0, 1)]
    assert min(found) > 0.95
