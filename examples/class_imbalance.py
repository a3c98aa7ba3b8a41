"""One malignant case in twenty: what a classifier makes of a rare class, and what helps.

    pip install "pyframe-nn[plot,sklearn]"
    python examples/class_imbalance.py

Of the 569 tumours in scikit-learn's breast cancer data 12 malignant and 228 benign ones are for
training; the rest, 200 malignant ones among them, is for looking at the result. The network is
the same each time; what differs is what the rare class counts for: nothing special, weights for
the rows, copies of the rare rows, a loss that turns to hard rows, another threshold. Everything
is repeated with other rows, so that one sees what is luck. The pictures go to ./class-imbalance:
recall of both classes for each way, and how the probabilities lie.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import balanced_accuracy_score, recall_score, roc_auc_score

import pyframe as pf

Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
RARE, COMMON = 12, 228


def split(seed: int) -> tuple[Array, Labels, Array, Labels]:
    """Return rows to train on, 1 in 20 of them malignant, and the rest; scaled by the former."""
    data = load_breast_cancer()
    x, y = data.data, 1 - data.target  # 1: malignant
    rng = np.random.default_rng(seed)
    malignant, benign = (rng.permutation(np.flatnonzero(y == label)) for label in (1, 0))
    train = np.concatenate([malignant[:RARE], benign[:COMMON]])
    test = np.concatenate([malignant[RARE:], benign[COMMON:]])
    mean, std = x[train].mean(0), x[train].std(0)
    x = ((x - mean) / std).astype(np.float32)
    return x[train], y[train], x[test], y[test]


def probabilities(
    x: Array, y: Labels, x_test: Array, *, loss: Any = "binary_cross_entropy", seed: int,
    weight: Array | None = None,
) -> Array:  # fmt: skip
    """Train the network and return what it says of other rows."""
    pf.set_seed(seed)
    model = pf.Sequential([pf.layers.Dense(16, "relu"), pf.layers.Dense(1)])
    trainer = pf.Trainer(model, loss, pf.optimizers.Adam(1e-2))
    trainer.fit(
        x,
        y.astype(np.float32),
        epochs=60,
        batch_size=32,
        seed=seed,
        sample_weight=weight,
        verbose=0,
    )
    logits = model.predict(x_test)[:, 0].astype(np.float64)
    return 1 / (1 + np.exp(-logits))


def compare(seed: int) -> tuple[Labels, dict[str, tuple[Array, float]]]:
    """Return the labels of the test rows, and for each way probabilities and threshold."""
    x, y, x_test, y_test = split(seed)
    share = y.mean()
    balance = np.where(y == 1, 0.5 / share, 0.5 / (1 - share)).astype(np.float32)
    copies = np.repeat(np.arange(len(y)), np.where(y == 1, COMMON // RARE, 1))
    plain = probabilities(x, y, x_test, seed=seed)
    # What is right already hardly counts, and a malignant row as much as all its likes.
    focal = functools.partial(pf.BinaryFocalLoss, alpha=1 - share)
    return y_test, {
        "as it is": (plain, 0.5),
        "focal loss": (probabilities(x, y, x_test, loss=focal, seed=seed), 0.5),
        "weights": (probabilities(x, y, x_test, weight=balance, seed=seed), 0.5),
        "copies": (probabilities(x[copies], y[copies], x_test, seed=seed), 0.5),
        "threshold = share": (plain, share),
    }


def draw_recalls(scores: Mapping[str, Array]) -> Figure:
    """Return recall of the malignant beside recall of the benign, one dot a repetition."""
    figure = Figure(figsize=(7, 4.5), dpi=110, layout="constrained")
    axes = figure.subplots()
    for i, (name, values) in enumerate(scores.items()):
        axes.scatter(*values[:, :2].T, s=16, alpha=0.35, color=f"C{i}")
        axes.scatter(*values[:, :2].mean(0), s=120, marker="X", color=f"C{i}", label=name)
    axes.set(
        title="Dots: repetitions; crosses: their means",
        xlabel="malignant ones that are found", ylabel="benign ones that are left alone",
    )  # fmt: skip
    axes.legend(frameon=False, loc="lower left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_probabilities(y: Labels, found: Mapping[str, tuple[Array, float]]) -> Figure:
    """Return histograms of the probabilities, with the threshold."""
    figure = Figure(figsize=(10, 5), dpi=110, layout="constrained")
    for axes, (name, (p, threshold)) in zip(
        figure.subplots(2, 3).flat, found.items(), strict=False
    ):
        edges = np.linspace(0, 1, 26)
        axes.hist([p[y == 0], p[y == 1]], edges, stacked=True, color=["#2471a3", "#c0392b"])
        axes.axvline(threshold, color="black", linestyle="--", linewidth=1)
        axes.set(title=name, xlabel="probability of malignant")
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[-1].set_axis_off()
    figure.axes[-1].legend(
        figure.axes[0].patches[::25], ["benign", "malignant"], frameon=False, loc="center"
    )
    return figure


def main() -> None:
    """Compare, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("class-imbalance"), metavar="DIR")
    given = parser.parse_args()

    scores: dict[str, list[list[float]]] = {}
    for seed in range(given.repeats):
        y, found = compare(seed)
        for name, (p, threshold) in found.items():
            guess = p > threshold
            scores.setdefault(name, []).append([
                recall_score(y, guess), recall_score(y, guess, pos_label=0),
                balanced_accuracy_score(y, guess), roc_auc_score(y, p),
            ])  # fmt: skip
    table = {name: np.array(values) for name, values in scores.items()}
    print(f"{'':18} {'found':>7} {'left alone':>11} {'balanced accuracy':>20} {'ROC AUC':>9}")
    for name, values in table.items():
        found_, alone, balanced, auc = values.mean(0)
        spread = values[:, 2].std()
        print(f"{name:18} {found_:7.3f} {alone:11.3f} {balanced:12.3f} +- {spread:.3f} {auc:9.3f}")

    given.out.mkdir(parents=True, exist_ok=True)
    figures = {
        "recalls.png": draw_recalls(table),
        "probabilities.png": draw_probabilities(y, found),
    }
    for name, figure in figures.items():
        figure.savefig(given.out / name)
        print(given.out / name)


if __name__ == "__main__":
    main()
