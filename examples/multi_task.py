"""Two questions to one network: which digit it is, and how it was turned.

    pip install "pyframe-nn[plot,sklearn]"
    python examples/multi_task.py

Every digit is shown in four positions. How it was turned is asked of all of them, which digit it is
of the upright ones alone, since a 6 that stands on its head is a 9: the loss of the first question
ignores the others. One network with two heads is compared with a network for each question: how
often each is right, how many parameters there are, how long training takes. The pictures go to
./multi-task: accuracy for each repetition, the two losses, digits with both answers, the graph.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

import pyframe as pf
from pyframe import plotting

Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
EPOCHS, SIDE, UNASKED = 25, 8, -1
CLASSES = {"digit": 10, "turn": 4}
NETWORKS: dict[str, Sequence[str]] = {
    "digit alone": ["digit"],
    "turn alone": ["turn"],
    "both": ["digit", "turn"],
}


class Data(NamedTuple):
    """Turned images, flat, and the answers to both questions."""

    x: Array
    answers: dict[str, Labels]

    def upright(self) -> npt.NDArray[np.bool_]:
        """Return which images have not been turned."""
        return self.answers["turn"] == 0


def turned(images: Array, digits: Labels) -> Data:
    """Return the images in all four positions, with their answers."""
    every = np.concatenate([np.rot90(images, quarter, axes=(1, 2)) for quarter in range(4)])
    quarters = np.repeat(np.arange(4), len(images))
    answers = {"digit": np.where(quarters == 0, np.tile(digits, 4), UNASKED), "turn": quarters}
    return Data(every.reshape(len(every), SIDE * SIDE), answers)


def split(seed: int) -> tuple[Data, Data]:
    """Return digits to train on and to test on."""
    digits = pf.datasets.load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    images, y = digits.images[order].astype(np.float32) / 16, digits.target[order]
    return turned(images[400:], y[400:]), turned(images[:400], y[:400])


def build(questions: Sequence[str]) -> pf.Model:
    """Return a network of two shared layers, with a head for each question."""
    x = pf.Placeholder("image", shape=(None, SIDE * SIDE))
    shared = pf.layers.Dense(96, "relu", name="shared_1")(x)
    shared = pf.layers.Dense(64, "relu", name="shared_2")(shared)
    return pf.Model([x], [pf.layers.Dense(CLASSES[q], name=q)(shared) for q in questions])


def train(data: Data, questions: Sequence[str], seed: int) -> tuple[pf.Trainer, pf.History, float]:
    """Return a trained network, its history and the seconds that it took."""
    pf.set_seed(seed)
    loss = functools.partial(pf.CrossEntropy, ignore_index=UNASKED)
    trainer = pf.Trainer(build(questions), loss, pf.optimizers.Adam(2e-3))
    answers = {question: data.answers[question] for question in questions}
    start = time.perf_counter()
    history = trainer.fit(data.x, answers, epochs=EPOCHS, batch_size=64, seed=seed, verbose=0)
    return trainer, history, time.perf_counter() - start


def accuracies(model: pf.Model, questions: Sequence[str], test: Data) -> dict[str, float]:
    """Return the share of right answers to each question."""
    outputs = model.predict(test.x)
    found = {}
    for question, logits in zip(
        questions, outputs if len(questions) > 1 else [outputs], strict=True
    ):
        asked = test.upright() if question == "digit" else slice(None)
        found[question] = float(np.mean(logits.argmax(1)[asked] == test.answers[question][asked]))
    return found


def draw_accuracies(results: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Return the accuracy of each network in each repetition, for each question."""
    figure = Figure(figsize=(7.5, 3), dpi=110, layout="constrained")
    for axes, question in zip(figure.subplots(1, 2), CLASSES, strict=True):
        rows = {name: found[question] for name, found in results.items() if found[question]}
        for row, values in enumerate(rows.values()):
            axes.plot(values, [row] * len(values), "o", color="#2471a3", alpha=0.5)
            axes.plot(np.mean(values), row, "|", color="#c0392b", markersize=24, mew=3)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set(title=f"Which {question}?", xlabel="share of right answers", ylim=(-0.6, 1.6))
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_answers(model: pf.Model, test: Data) -> Figure:
    """Return some images with what the network says of them."""
    rows = np.random.default_rng(0).choice(len(test.x), 12, replace=False)
    digit, turn = (logits.argmax(1) for logits in model.predict(test.x[rows]))
    titles = [f"{d}" if t == 0 else f"turned by {90 * t}" for d, t in zip(digit, turn, strict=True)]
    images = test.x[rows].reshape(-1, SIDE, SIDE)
    return plotting.image_grid(images, titles, columns=6, title="What it says")


def main() -> None:
    """Compare, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("multi-task"), metavar="DIR")
    given = parser.parse_args()

    results: dict[str, Any] = {name: {q: [] for q in CLASSES} for name in NETWORKS}
    print(f"{'':12} {'parameters':>10} {'seconds':>8} {'digit':>7} {'turn':>7}")
    for name, questions in NETWORKS.items():
        seconds = []
        for seed in range(given.repeats):
            data, test = split(seed)
            trainer, history, took = train(data, questions, seed)
            seconds.append(took)
            for question, value in accuracies(trainer.model, questions, test).items():
                results[name][question].append(value)
        count = sum(p.size for p in trainer.model.parameters)
        shown = [f"{np.mean(v):7.3f}" if v else " " * 7 for v in results[name].values()]
        print(f"{name:12} {count:10,} {np.median(seconds):8.2f} {' '.join(shown)}")

    given.out.mkdir(parents=True, exist_ok=True)
    figures = {
        "accuracies.png": draw_accuracies(results),
        "losses.png": plotting.loss_curve(history, ["digit_loss", "turn_loss"]),
        "answers.png": draw_answers(trainer.model, test),
        "network.png": plotting.draw_graph(trainer.model.outputs),
    }
    for file, figure in figures.items():
        figure.savefig(given.out / file)
        print(given.out / file)


if __name__ == "__main__":
    main()
