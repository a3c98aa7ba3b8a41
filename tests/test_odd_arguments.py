"""Odd values of the arguments of fits are refused by name, at every entry point."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pyframe as pf

pytest.importorskip("sklearn")

from sklearn.datasets import load_iris

from pyframe.estimators import MLPClassifier, MLPRegressor, NetClassifier, NetRegressor
from pyframe.layers import Dense

pytestmark = [
    pytest.mark.sklearn,
    pytest.mark.once,
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

X, Y = (part[:60:2] for part in load_iris(return_X_y=True))
Y = np.arange(30) % 3

KINDS = {
    "net": (NetClassifier, {"layers": [Dense(3)], "epochs": 1, "tol": None}),
    "net of numbers": (NetRegressor, {"layers": [Dense(3)], "epochs": 1, "tol": None}),
    "perceptron": (MLPClassifier, {"hidden_layer_sizes": (3,), "max_iter": 1}),
    "perceptron of numbers": (MLPRegressor, {"hidden_layer_sizes": (3,), "max_iter": 1}),
}
ODD: dict[str, Any] = {
    "an object": object(),
    "a text": "nonsense",
    "-1": -1,
    "NaN": float("nan"),
    "a list of None": [None],
    "a list in a list": [[]],
    "a dict of texts": {"a": "b"},
    "a dict of numbers": {0: -1.0, 1: 1.0, 2: 1.0},
    "bytes": b"x",
    "complex": 1j,
    "an array": np.ones((2, 2)),
}


def entries(kind: str, name: str, value: Any) -> Any:
    """Yield what calls each entry point with an odd argument."""
    make, given = KINDS[kind]
    classes = {"classes": [0, 1, 2]} if "numbers" not in kind else {}
    yield lambda: make(**{**given, name: value}).fit(X, Y)
    if name == "solver":  # which scikit-learn asks whether there is a partial_fit
        return
    yield lambda: make(**{**given, name: value}).partial_fit(X, Y, **classes)
    fitted = make(**given).partial_fit(X, Y, **classes)
    yield lambda: fitted.set_params(**{name: value}).partial_fit(X, Y)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("kind", KINDS)
def test_odd_parameters_are_named(kind: str, odd: str) -> None:
    make, _ = KINDS[kind]
    for name in make().get_params(deep=False):
        for call in entries(kind, name, ODD[odd]):
            try:
                call()
            except pf.PyframeError:
                continue
            except (ValueError, TypeError) as error:
                assert name in str(error), (name, odd, error)


TRAINER = ("loss", "optimizer", "metrics", "callbacks", "loss_weights", "weighted_metrics")
FIT = (
    "epochs", "batch_size", "validation_split", "validation_data", "shuffle", "seed",
    "sample_weight", "callbacks", "schedule", "accumulate", "initial_epoch", "steps_per_epoch",
)  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
def test_a_trainer_raises_errors_of_this_package(odd: str) -> None:
    def trainer(**given: Any) -> pf.Trainer:
        return pf.Trainer(pf.Sequential([Dense(1)]), **given)

    for name in TRAINER:
        try:
            trainer(**{name: ODD[odd]}).fit(X, Y, 1, verbose=0)
        except pf.PyframeError:
            continue
    for name in FIT:
        for data in ((X, Y), ([(X, Y)],)):
            try:
                trainer().fit(*data, **{"epochs": 1, "verbose": 0, name: ODD[odd]})
            except pf.PyframeError:
                continue


def test_weights_below_0_are_refused_by_all() -> None:
    """They may add up to 0, and then nothing could be divided by them."""
    weights = np.where(np.arange(30) % 2, 1.0, -1.0)
    for make, given in KINDS.values():
        with pytest.raises(ValueError, match="[Nn]egative"):
            make(**given).fit(X, Y, sample_weight=weights)
        with pytest.raises(ValueError, match="0 for all rows|non-zero"):
            make(**given).fit(X, Y, sample_weight=np.zeros(30))
    for make, given in (KINDS["net"], KINDS["perceptron"]):
        with pytest.raises(ValueError, match=r"class_weight\[1\] is -2.0"):
            make(**given, class_weight={0: 1.0, 1: -2.0, 2: 1.0}).fit(X, Y)


@pytest.mark.parametrize("path", [3, None, "", "a\0b", ["x"]])
@pytest.mark.parametrize("name", ["CSVLogger", "JSONLogger", "TensorBoard", "ModelCheckpoint"])
def test_what_is_no_file_is_refused_by_a_callback(name: str, path: Any) -> None:
    with pytest.raises(pf.ArgumentError, match="the name of no file"):
        getattr(pf.callbacks, name)(path)


@pytest.mark.parametrize("separator", ["", "ab", None, 3, "\n", '"'])
def test_a_separator_is_one_character(separator: Any) -> None:
    with pytest.raises(pf.ArgumentError, match="one character"):
        pf.callbacks.CSVLogger("log.csv", separator=separator)


def test_a_function_that_gives_no_batches_is_named() -> None:
    def nothing() -> None:
        pass

    with pytest.raises(pf.DTypeError, match="'nothing' gave None"):
        pf.Trainer(pf.Sequential([Dense(1)])).fit(nothing, epochs=1, verbose=0)
