"""Every activation under every loss with every metric: the right figure, or a typed error.

The activations, losses and metrics are those of the registry, so a plugin's are in it too.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.errors import ArgumentError, PyframeError
from pyframe.estimators import NetClassifier, NetRegressor
from pyframe.ops import entropy, logits
from pyframe.plugins.registry import ops, registries

pytestmark = pytest.mark.once  # it says nothing of a kernel

RNG = np.random.default_rng(3)
ROWS = 24
X = RNG.normal(size=(ROWS, 4))


def activations() -> list[str | None]:
    """Return the names of the ops that keep a matrix as it is, from one input, deterministic."""
    found: list[str | None] = [None]
    x = pf.Placeholder("x", shape=(None, 3))
    for name in sorted(ops):
        cls = ops.get(name)
        if name.endswith("_grad") or getattr(cls, "uses_random", False):
            continue
        if not getattr(cls, "differentiable", False):
            continue
        try:
            node = pf.layers.Activation(name)(x)
        except (PyframeError, TypeError):
            continue
        if node.shape == (None, 3):
            found.append(name)
    return found


def softmax(z: Any) -> Any:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


def true_loss(loss: str, activation: str | None, z: Any, out: Any, y: Any) -> float | None:
    """Return the loss of a prediction as it is meant, or None for one that nobody can mean."""
    if loss == "binary_cross_entropy":
        if activation in ("softmax", "log_softmax"):
            return None
        p = out if activation == "sigmoid" else sigmoid(out)
        return float(-np.mean(y * np.log(p) + (1 - y) * np.log1p(-p)))
    if loss == "cross_entropy":
        if activation == "sigmoid":
            return None
        p = out if activation == "softmax" else softmax(out)
        return float(-np.mean(np.log(p[np.arange(len(y)), y])))
    error = out - y
    if loss == "l2_loss":
        return float(np.mean(error**2))
    if loss == "l1_loss":
        return float(np.mean(np.abs(error)))
    size = np.abs(error)
    return float(np.mean(np.where(size <= 1, 0.5 * error**2, size - 0.5)))


def true_metric(metric: str, loss: str, activation: str | None, out: Any, y: Any) -> Any:
    """Return a metric of a prediction as it is meant, or None."""
    binary = loss != "cross_entropy"
    if metric in ("accuracy", "confusion_matrix") and not binary:
        predicted = out.argmax(axis=1)
        if metric == "accuracy":
            return float(np.mean(predicted == y))
        matrix = np.zeros((3, 3))
        np.add.at(matrix, (y, predicted), 1)
        return matrix
    if metric == "accuracy":
        if activation == "sigmoid":
            return float(np.mean((out > 0.5) == (y > 0.5)))
        return float(np.mean((out > 0) == (y > 0.5))) if loss == "binary_cross_entropy" else None
    if metric == "confusion_matrix" or not binary:
        return None
    if loss == "binary_cross_entropy" and activation != "sigmoid":
        return None
    error = out - y
    return {
        "mae": np.mean(np.abs(error)),
        "rmse": np.sqrt(np.mean(error**2)),
        "r2": 1 - np.sum(error**2) / np.sum((y - y.mean()) ** 2),
    }[metric]


# What the losses composed of other ops take: classes, of which a softmax makes probabilities;
# classes that are independent of each other, of which a sigmoid does; or values.
COMPOSED = {
    "binary_focal_loss": "independent",
    "contrastive_loss": "values",
    "cosine_loss": "values",
    "dice_loss": "independent",
    "focal_loss": "classes",
    "hinge": "values",
    "kl_divergence": "classes",
    "log_cosh": "values",
    "poisson_loss": "values",
    "quantile_loss": "values",
    "soft_cross_entropy": "classes",
    "squared_hinge": "values",
    "weighted_binary_cross_entropy": "independent",
}
# Its prediction has twice as many columns as its target; a target of another length.
APART = {"gaussian_nll", "ctc_loss"}
LOSSES = ["l1_loss", "l2_loss", "huber_loss", "cross_entropy", "binary_cross_entropy"]
METRICS = ["accuracy", "mae", "rmse", "r2", "confusion_matrix"]
# Those composed of other ops, or made of a confusion matrix, and what they are of.
MADE = {
    **dict.fromkeys(("precision", "recall", "f1", "iou", "balanced_accuracy"), "classes"),
    **dict.fromkeys(("cohen_kappa", "matthews_corrcoef", "top_k_accuracy"), "classes"),
    **dict.fromkeys(("cross_entropy_metric", "perplexity", "brier"), "classes"),
    "calibration_error": "classes",
    **dict.fromkeys(("mse", "mape"), "values"),
    **dict.fromkeys(("roc_auc", "average_precision"), "whole"),
}


def test_the_table_knows_every_loss_and_metric() -> None:
    """A new built-in one needs its truth here."""
    assert {*LOSSES, *COMPOSED, *APART} == set(pf.losses.BUILT_IN)
    assert {*METRICS, *MADE} == set(pf.metrics.BUILT_IN)
    assert {"sigmoid", "softmax", "log_softmax", "relu", "tanh"} < set(activations())
    assert len(registries["losses"].names()) >= len(LOSSES)


def model_and_truth(activation: str | None, loss: str) -> tuple[pf.Model, Any, Any, Any]:
    x = pf.Placeholder("x", shape=(None, 4), dtype="float64")
    z = pf.layers.Dense(3)(x)
    out = z if activation is None else pf.layers.Activation(activation)(z)
    model = pf.Model(inputs=[x], outputs=[out])
    with np.errstate(all="ignore"):
        values, raw = model.predict(X), pf.compile(z).run({x: X})
    labels = RNG.integers(0, 3, ROWS)
    y = labels if loss == "cross_entropy" else RNG.integers(0, 2, (ROWS, 3)).astype(float)
    return model, raw, values, y


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", activations())
def test_the_right_figure_or_a_typed_error(activation: str | None, loss: str) -> None:
    model, z, out, y = model_and_truth(activation, loss)
    if out.shape != (ROWS, 3):
        pytest.skip("it is no activation")
    with np.errstate(all="ignore"):
        wanted = true_loss(loss, activation, z, out, y)
    if wanted is None:
        with pytest.raises(ArgumentError, match="end with activation="):
            pf.Trainer(model, loss).evaluate(X, y)
        return
    assert pf.Trainer(model, loss).evaluate(X, y, 7)["loss"] == pytest.approx(
        wanted, rel=1e-9, nan_ok=True
    )
    for metric in METRICS:
        truth = true_metric(metric, loss, activation, out, y)
        if truth is not None and not np.isfinite(out).all():
            continue  # of NaN nothing can be said
        trainer = pf.Trainer(model, loss, metrics=[metric])
        if truth is None:
            with pytest.raises((ArgumentError, pf.ShapeError, pf.DTypeError)):
                trainer.evaluate(X, y)
        else:
            got = trainer.evaluate(X, y, 7)[metric]
            np.testing.assert_allclose(got, truth, rtol=1e-9, atol=1e-12)


# ---- what Keras users write first ----


def test_a_sigmoid_is_applied_once() -> None:
    data = np.random.default_rng(0).normal(size=(500, 4))
    y = (data[:, 0] > 0).astype(float)
    model = pf.Sequential([pf.layers.Dense(1, activation="sigmoid")])
    trainer = pf.Trainer(model, "binary_cross_entropy", pf.optimizers.Adam(0.1), ["accuracy"])
    last = trainer.fit(data, y, 20, verbose=0, validation_data=(data, y)).last()
    p = trainer.predict(data)[:, 0].astype(float)
    assert last["val_accuracy"] == np.mean((p > 0.5) == y) > 0.98
    true = -np.mean(np.log(np.where(y > 0.5, p, 1 - p)))
    assert last["val_loss"] == pytest.approx(true, rel=1e-4)


@pytest.mark.parametrize(
    "activation, loss, y",
    [
        ("sigmoid", "binary_cross_entropy", (X[:, :3] > 0).astype(float)),
        ("softmax", "cross_entropy", X[:, :3].argmax(axis=1)),
    ],
)
def test_probabilities_train_to_the_bits_of_their_logits(
    activation: str, loss: str, y: Any
) -> None:
    def weights(*tail: pf.layers.Layer) -> Any:
        model = pf.Sequential([pf.layers.Dense(3, name="d"), *tail], input_shape=(4,))
        trainer = pf.Trainer(model, loss, metrics=["accuracy"])
        history = trainer.fit(X, y, 3, 8, verbose=0)
        return model.get_weights()["d/weight"].tolist(), dict(history)

    pf.set_seed(5)
    bare = weights()
    assert weights(pf.layers.Activation(activation)) == bare
    assert weights(pf.layers.Activation(activation), pf.layers.Flatten()) == bare


def test_saturated_probabilities_are_exact() -> None:
    y, z = np.array([[0.0], [1.0]]), np.array([[1000.0], [-1000.0]])
    x = pf.Placeholder("x", shape=(None, 1))
    assert pf.compile(pf.BinaryCrossEntropy(y, pf.Sigmoid(x))).run({x: z}) == 1000.0


@pytest.mark.parametrize(
    "move",
    [
        lambda v: pf.Flatten(v),
        lambda v: pf.Reshape(v, (-1, 4)),
        lambda v: pf.Slice(v, (slice(None), slice(1, 3))),
        lambda v: pf.Concat(v, v),
        lambda v: pf.Dropout(v, 0.1),
        lambda v: pf.Transpose(pf.Transpose(v)),
    ],
)
def test_ops_that_move_elements_are_looked_through(move: Any) -> None:
    x = pf.Placeholder("x", shape=(2, 4), dtype="float64")
    feed = {x: X[:2]}
    moved = move(pf.Sigmoid(x))
    y = np.zeros(moved.shape)
    a, b = pf.BinaryCrossEntropy(y, moved), pf.BinaryCrossEntropy(y, move(x))
    assert pf.compile(a).run(feed) == pf.compile(b).run(feed)


@pytest.mark.parametrize("kind", [pf.Sigmoid, pf.Softmax])
@pytest.mark.parametrize(
    "mix",
    [
        lambda a, b: a * 1.0,
        lambda a, b: (a + b) * 0.5,
        lambda a, b: (a + b) / 2,
        lambda a, b: 0.3 * a + 0.7 * pf.Dropout(b, 0.1),
    ],
)
def test_mixed_probabilities_are_refused(kind: Any, mix: Any) -> None:
    x = pf.Placeholder("x", shape=(2, 4))
    out = mix(kind(x), kind(x * 2.0))
    with pytest.raises(ArgumentError, match="end with activation="):
        pf.BinaryCrossEntropy(np.zeros((2, 4)), out)
    with pytest.raises(ArgumentError, match="end with activation="):
        pf.CrossEntropy(np.zeros(2, np.int64), out)
    for other in (mix(x, x), pf.Sigmoid(x) * 10.0 - 5.0, pf.Sigmoid(x) @ np.ones((4, 4))):
        pf.BinaryCrossEntropy(np.zeros((2, 4)), other)


def test_a_softmax_over_another_axis_is_refused() -> None:
    x = pf.Placeholder("x", shape=(None, 3))
    labels = pf.Placeholder("y", shape=(None,), dtype="int64")
    with pytest.raises(ArgumentError, match="last axis"):
        pf.CrossEntropy(labels, pf.Softmax(x, axis=0))


def test_the_accuracy_of_real_numbers_is_refused() -> None:
    model = pf.Sequential([pf.layers.Dense(1)])
    with pytest.raises(ArgumentError, match="mae, rmse or r2"):
        pf.Trainer(model, "l2", metrics=["accuracy"]).fit(X, X[:, 0], verbose=0)
    for loss in ("binary_cross_entropy", lambda y, y_hat: pf.Mean(pf.Square(y - y_hat))):
        trainer = pf.Trainer(model, loss, metrics=["accuracy"])
        with pytest.raises(ArgumentError, match=r"lie in \[.*mae, rmse or r2"):
            trainer.fit(X, 100 * X[:, 0], verbose=0)
        with pytest.raises(ArgumentError, match=r"lie in \["):
            trainer.evaluate(X, 100 * X[:, 0])


# ---- estimators ----


@pytest.mark.parametrize("tail, loss", [("softmax", "auto"), ("sigmoid", "binary_cross_entropy")])
def test_an_estimator_gives_the_probabilities_of_its_network(tail: str, loss: str) -> None:
    y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)
    net = NetClassifier(
        [pf.layers.Dense(3, activation=tail)], head=False, loss=loss, epochs=5, random_state=0
    ).fit(X, y)
    p = net.model_.predict(X.astype(np.float64))
    p = p / p.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(net.predict_proba(X), p, rtol=1e-12)
    both = (X[:, :2] > 0).astype(int)
    several = NetClassifier(
        [pf.layers.Dense(2, activation="sigmoid")], head=False, epochs=200, random_state=0
    ).fit(X, both)
    assert (several.predict(X) == (several.predict_proba(X) > 0.5)).all()


@pytest.mark.parametrize("cls", [NetClassifier, NetRegressor])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_divergent_estimator_raises(cls: Any, method: str) -> None:
    y = (X[:, 0] > 0).astype(int) if cls is NetClassifier else X[:, 0]
    net = cls(loss="l2", optimizer=pf.optimizers.SGD(1e30), batch_size=2, random_state=0)
    more = {"classes": [0, 1]} if method == "partial_fit" and cls is NetClassifier else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="non-finite parameter weights"):
            getattr(net, method)(X, y, **more)


# ---- planted faults ----


def test_without_the_look_behind_a_sigmoid_the_table_is_red(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(entropy, "binary_logits", lambda value, what: value)
    with pytest.raises(AssertionError):
        test_the_right_figure_or_a_typed_error("sigmoid", "binary_cross_entropy")
    with pytest.raises(pytest.fail.Exception):
        test_the_right_figure_or_a_typed_error("softmax", "binary_cross_entropy")


def test_without_the_look_behind_a_softmax_the_table_is_red(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logits, "behind", lambda *args: None)
    monkeypatch.setattr(logits, "check_not_mixed", lambda *args: None)
    with pytest.raises(AssertionError):
        test_the_right_figure_or_a_typed_error("softmax", "cross_entropy")


def test_without_the_check_of_meaning_the_table_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyframe.training.goal._check_meaning", lambda *args: None)
    with pytest.raises(pytest.fail.Exception):
        test_the_right_figure_or_a_typed_error(None, "l2_loss")


def test_without_the_check_of_mixtures_they_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logits, "check_not_mixed", lambda *args: None)
    with pytest.raises(pytest.fail.Exception):
        test_mixed_probabilities_are_refused(pf.Sigmoid, lambda a, b: a * 1.0)


@pytest.mark.parametrize("loss", COMPOSED)
@pytest.mark.parametrize("activation", activations())
def test_a_composed_loss_is_of_what_it_says(activation: str | None, loss: str) -> None:
    model, z, out, _ = model_and_truth(activation, "l2_loss")
    if out.shape != (ROWS, 3):
        pytest.skip("it is no activation")
    labels, ones = RNG.integers(0, 3, ROWS), RNG.integers(0, 2, (ROWS, 3)).astype(float)
    function, kind = pf.losses.get(loss), COMPOSED[loss]
    y: Any = {"signs": 2 * ones - 1, "shares": np.eye(3)[labels]}.get(function.target_domain, ones)
    y = labels if function.integer_inputs else y
    refused = {"classes": ("sigmoid",), "independent": ("softmax", "log_softmax"), "values": ()}
    if activation in refused[kind]:
        with pytest.raises(ArgumentError, match="end with activation="):
            pf.Trainer(model, loss).evaluate(X, y)
        return
    logits_of = {"classes": "softmax", "independent": "sigmoid", "values": ""}[kind]
    with np.errstate(all="ignore"):
        truth = function.reference(y, z if activation == logits_of else out, None, reduction="mean")
    assert pf.Trainer(model, loss).evaluate(X, y, 7)["loss"] == pytest.approx(
        float(truth), rel=1e-9, nan_ok=True
    )


@pytest.mark.parametrize("metric", [name for name, kind in MADE.items() if kind == "classes"])
@pytest.mark.parametrize("activation", [None, "softmax", "tanh", "log_softmax"])
def test_a_metric_of_classes_is_that_of_its_logits(activation: str | None, metric: str) -> None:
    model, z, out, y = model_and_truth(activation, "cross_entropy")
    function = pf.metrics.get(metric)
    node = function(pf.Placeholder(shape=(None,), dtype="int64"), pf.Placeholder(shape=(None, 3)))
    sums = function.reference(y, z if activation == "softmax" else out, None)
    got = pf.Trainer(model, "cross_entropy", metrics=[metric]).evaluate(X, y, 7)[metric]
    assert got == pytest.approx(node.finalize(sums.tolist()), rel=1e-9)


@pytest.mark.parametrize("metric", [name for name, kind in MADE.items() if kind == "classes"])
def test_a_metric_of_classes_refuses_values(metric: str) -> None:
    model, _, _, _ = model_and_truth(None, "l2_loss")
    with pytest.raises(PyframeError):
        pf.Trainer(model, "l2", metrics=[metric]).evaluate(X, 3 * RNG.normal(size=(ROWS, 3)))
