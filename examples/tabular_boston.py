"""Thirteen numbers to a price: a small network beside other methods, in one honest table.

    pip install "pyframe-nn[plot,sklearn]"
    python examples/tabular_boston.py

506 neighbourhoods of Boston (Harrison and Rubinfeld, 1978) with 13 features each. Every method
gets the same ten splits (two times five folds), scaled by what it was trained on, and none has
been tuned on them but by itself: ridge chooses its penalty within the training part, the networks
stop early on a part of theirs. The pictures go to ./tabular-boston: the errors of all methods,
predictions beside the truth, and which features the network cannot do without.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import BaggingRegressor, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.inspection import permutation_importance
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import RepeatedKFold
from sklearn.neural_network import MLPRegressor as TheirMLP
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import pyframe as pf
from pyframe.estimators import MLPRegressor

Array = npt.NDArray[np.float64]
NETWORK = {
    "hidden_layer_sizes": (64, 64),
    "learning_rate_init": 3e-3,
    "alpha": 1e-3,
    "max_iter": 400,
    "early_stopping": True,
    "n_iter_no_change": 40,
    "random_state": 0,
}
OURS, TEN = "pyframe MLP", "ten pyframe MLPs, averaged"


def scaled(regressor: Any) -> Any:
    """Return a regressor whose inputs and target are scaled by what it is trained on."""
    return TransformedTargetRegressor(
        make_pipeline(StandardScaler(), regressor), transformer=StandardScaler()
    )


def methods() -> Mapping[str, Callable[[], Any]]:
    """Return what is compared."""
    return {
        "ridge regression": lambda: scaled(RidgeCV(np.logspace(-2, 3, 30))),
        "gradient boosting": lambda: HistGradientBoostingRegressor(random_state=0),
        "scikit-learn MLP": lambda: scaled(TheirMLP(**NETWORK)),
        OURS: lambda: scaled(MLPRegressor(**NETWORK)),
        TEN: lambda: scaled(BaggingRegressor(MLPRegressor(**NETWORK), 10, random_state=0)),
    }


def cross_validate(x: Array, y: Array, repeats: int) -> dict[str, dict[str, Any]]:
    """Return the errors of each method on each split, its seconds, and all its predictions."""
    splits = list(RepeatedKFold(n_splits=5, n_repeats=repeats, random_state=0).split(x))
    results: dict[str, dict[str, Any]] = {}
    for name, make in methods().items():
        errors, predicted, start = [], np.zeros_like(y), time.perf_counter()
        for train, test in splits:
            guess = clone(make()).fit(x[train], y[train]).predict(x[test])
            predicted[test] += guess / repeats
            errors.append(np.sqrt(np.mean((guess - y[test]) ** 2)))
        seconds = (time.perf_counter() - start) / len(splits)
        results[name] = {"rmse": errors, "seconds": seconds, "predicted": predicted}
        r2 = 1 - np.sum((predicted - y) ** 2) / np.sum((y - y.mean()) ** 2)
        print(
            f"| {name:26} | {np.mean(errors):5.2f} +- {np.std(errors):4.2f} | {r2:5.3f} "
            f"| {seconds:7.3f} |"
        )
    return results


def draw_errors(results: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Return the error of each method on each split."""
    figure = Figure(figsize=(7, 3.4), dpi=110, layout="constrained")
    axes = figure.subplots()
    for row, (name, result) in enumerate(results.items()):
        color = "#c0392b" if "pyframe" in name else "#5d6d7e"
        axes.plot(result["rmse"], [row] * len(result["rmse"]), "o", color=color, alpha=0.45)
        axes.plot(np.mean(result["rmse"]), row, "|", color=color, markersize=26, markeredgewidth=3)
    axes.set_yticks(range(len(results)), list(results))
    axes.invert_yaxis()
    axes.set(title="One dot a split, the bar their mean", xlabel="root mean squared error, $1000")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_predictions(y: Array, predicted: Array) -> Figure:
    """Return predictions beside the truth, each made without the house it is of."""
    figure = Figure(figsize=(5, 5), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 52], [0, 52], color="#9aa7b5")
    axes.scatter(y, predicted, s=12, color="#2471a3", alpha=0.7)
    axes.set(title=TEN, xlabel="price, $1000", ylabel="predicted from the other folds")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_importance(x: Array, y: Array, names: list[str]) -> Figure:
    """Return how much worse the network gets on held-out rows when a feature is shuffled."""
    test = np.arange(len(y)) % 5 == 0
    model = methods()[OURS]().fit(x[~test], y[~test])
    found = permutation_importance(
        model, x[test], y[test], n_repeats=20, random_state=0,
        scoring="neg_root_mean_squared_error",
    )  # fmt: skip
    order = np.argsort(found.importances_mean)
    figure = Figure(figsize=(6, 4), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.barh(
        [names[i] for i in order], found.importances_mean[order],
        xerr=found.importances_std[order], color="#2471a3",
    )  # fmt: skip
    axes.set(title="Error added when one feature is shuffled", xlabel="$1000")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    """Compare, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=2, help="of the five folds")
    parser.add_argument("--out", type=Path, default=Path("tabular-boston"), metavar="DIR")
    given = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)

    boston = pf.datasets.load_boston()
    x, y, names = boston.data, boston.target, list(boston.feature_names)
    print(f"| {'method':26} | {'RMSE, $1000':13} | {'R2':5} | seconds |")
    print(f"| {'-' * 26} | {'-' * 13} | {'-' * 5} | {'-' * 7} |")
    results = cross_validate(x, y, given.repeats)

    given.out.mkdir(parents=True, exist_ok=True)
    figures = {
        "errors.png": draw_errors(results),
        "predictions.png": draw_predictions(y, results[TEN]["predicted"]),
        "importance.png": draw_importance(x, y, names),
    }
    for name, figure in figures.items():
        figure.savefig(given.out / name)
        print(given.out / name)


if __name__ == "__main__":
    main()
