"""scikit-learn's gallery of multilayer perceptrons, on small data, with one import changed."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn import neural_network
from sklearn.datasets import load_digits, load_iris, make_circles, make_classification, make_moons
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from pyframe import estimators

pytestmark = pytest.mark.sklearn


def test_filters_of_digits(capsys):
    """plot_mnist_filters.py: visualization of MLP weights."""
    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x / 16, y, random_state=0, test_size=0.7)
    said, models = [], []
    for module in (neural_network, estimators):
        mlp = module.MLPClassifier(
            hidden_layer_sizes=(40,),
            max_iter=8,
            alpha=1e-4,
            solver="sgd",
            verbose=10,
            random_state=1,
            learning_rate_init=0.2,
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=ConvergenceWarning)
            mlp.fit(x_train, y_train)
        print(f"{mlp.score(x_train, y_train):.4f} {mlp.score(x_test, y_test):.4f}")
        said.append(capsys.readouterr().out)
        models.append(mlp)
    assert said[0] == said[1] and "Iteration 8, loss = " in said[0]
    for a, b in zip(models[0].coefs_[0].T, models[1].coefs_[0].T, strict=True):
        np.testing.assert_allclose(a.reshape(8, 8), b.reshape(8, 8), rtol=1e-9, atol=1e-12)


CURVES = {
    "constant learning-rate": {"learning_rate": "constant", "momentum": 0},
    "constant with momentum": {"learning_rate": "constant", "nesterovs_momentum": False},
    "constant with Nesterov's momentum": {"learning_rate": "constant"},
    "inv-scaling learning-rate": {"learning_rate": "invscaling", "momentum": 0},
    "inv-scaling with momentum": {"learning_rate": "invscaling", "nesterovs_momentum": False},
    "inv-scaling with Nesterov's momentum": {"learning_rate": "invscaling"},
    "adam": {"solver": "adam", "learning_rate_init": 0.01},
}


@pytest.mark.parametrize("name", CURVES)
def test_training_curves(name):
    """plot_mlp_training_curves.py: compare stochastic learning strategies."""
    data = [
        load_iris(return_X_y=True),
        make_circles(noise=0.2, factor=0.5, random_state=1),
        make_moons(noise=0.3, random_state=0),
    ]
    given = {"solver": "sgd", "learning_rate_init": 0.2, "random_state": 0, "max_iter": 60}
    given |= CURVES[name]
    for x, y in data:
        models = []
        for module in (neural_network, estimators):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", category=ConvergenceWarning)
                models.append(module.MLPClassifier(**given).fit(MinMaxScaler().fit_transform(x), y))
        theirs, ours = models
        np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-7)


@pytest.mark.parametrize("alpha", [1.0, 10.0])
def test_varying_regularization(alpha):
    """plot_mlp_alpha.py: varying regularization in multi-layer perceptron."""
    linear = make_classification(
        n_features=2, n_redundant=0, n_informative=2, random_state=0, n_clusters_per_class=1
    )
    for x, y in (linear, make_moons(noise=0.3, random_state=0)):
        x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.4, random_state=42)
        probabilities, scores = [], []
        for module in (neural_network, estimators):
            pipeline = make_pipeline(
                StandardScaler(),
                module.MLPClassifier(
                    solver="lbfgs",
                    alpha=alpha,
                    random_state=1,
                    max_iter=2000,
                    early_stopping=True,
                    hidden_layer_sizes=[10, 10],
                ),
            )
            pipeline.fit(x_train, y_train)
            probabilities.append(pipeline.predict_proba(x_test)[:, 1])
            scores.append(pipeline.score(x_test, y_test))
        np.testing.assert_allclose(probabilities[1], probabilities[0], atol=0.01)
        assert abs(scores[1] - scores[0]) <= 1 / len(y_test)
