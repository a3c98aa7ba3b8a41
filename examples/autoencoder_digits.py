"""An autoencoder: 64 pixels of a digit through two numbers and back, and a map of what they mean.

    pip install "pyframe-nn[plot,sklearn]"
    python examples/autoencoder_digits.py

Encoder and decoder are layers that three models share: the whole one is trained, the encoder
alone gives a digit its place on the map, the decoder alone draws what lies at a place. The
pictures go to ./autoencoder-digits: digits and what comes back of them, the map of the digits
that were not trained on, the digits along a grid over the map, and the loss.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

import pyframe as pf
from pyframe import plotting

Array = npt.NDArray[np.float32]
SIDE, CODE = 8, 2


class Autoencoder(NamedTuple):
    """Three models over the same layers."""

    whole: pf.Model
    encoder: pf.Model
    decoder: pf.Model


def build() -> Autoencoder:
    """Return 64 -> 64 -> 32 -> 2 -> 32 -> 64 -> 64, and its two halves."""
    dense = pf.layers.Dense
    down = [dense(64, "relu"), dense(32, "relu"), dense(CODE)]
    up = [dense(32, "relu"), dense(64, "relu"), dense(SIDE * SIDE)]

    def through(layers: list[pf.layers.Layer], node: pf.Value) -> pf.Value:
        for layer in layers:
            node = layer(node)
        return node

    image = pf.Placeholder("image", shape=(None, SIDE * SIDE))
    place = pf.Placeholder("place", shape=(None, CODE))
    code = through(down, image)
    # The pixels are the sigmoid of the last layer; the loss takes its input, the logits.
    whole = pf.Model([image], [through(up, code)])
    return Autoencoder(
        whole, pf.Model([image], [code]), pf.Model([place], [pf.Sigmoid(through(up, place))])
    )


def load() -> tuple[Array, npt.NDArray[np.int64], Array, npt.NDArray[np.int64]]:
    """Return digits (n, 64) in [0, 1] with their labels, to train on and to look at."""
    digits = pf.datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x, y = (
        digits.images.reshape(-1, SIDE * SIDE)[order].astype(np.float32) / 16,
        digits.target[order],
    )
    held_out = len(x) // 5
    return x[held_out:], y[held_out:], x[:held_out], y[:held_out]


def draw_pairs(x: Array, back: Array) -> Figure:
    """Return digits above what comes back of them."""
    rows = np.concatenate([x[:8], back[:8]]).reshape(-1, SIDE, SIDE)
    titles = ["given"] * 8 + ["back"] * 8
    return plotting.image_grid(rows, titles, columns=8, title="Through two numbers and back")


def draw_map(code: Array, y: npt.NDArray[np.int64]) -> Figure:
    """Return the places of the digits, each class in a colour of its own."""
    figure = Figure(figsize=(7, 6), dpi=110, layout="constrained")
    axes = figure.subplots()
    for digit in range(10):
        at = code[y == digit]
        axes.scatter(*at.T, s=14, color=f"C{digit}", label=str(digit))
        axes.annotate(
            str(digit), np.median(at, axis=0), fontsize=15, weight="bold", ha="center", va="center"
        )
    axes.set(title="Where the encoder puts digits it has never seen", xlabel="1st", ylabel="2nd")
    axes.legend(ncols=2, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_grid(decoder: pf.Model, code: Array, steps: int = 16) -> Figure:
    """Return what the decoder makes of a grid over the map."""
    low, high = np.quantile(code, [0.02, 0.98], axis=0)
    across, down = np.meshgrid(
        np.linspace(low[0], high[0], steps), np.linspace(high[1], low[1], steps)
    )
    images = decoder.predict(np.stack([across.ravel(), down.ravel()], 1))
    framed = np.pad(images.reshape(steps, steps, SIDE, SIDE), ((0, 0), (0, 0), (1, 1), (1, 1)))
    sheet = framed.swapaxes(1, 2).reshape(steps * (SIDE + 2), -1)
    figure = Figure(figsize=(7, 7), dpi=110, layout="constrained")
    axes = figure.subplots()
    extent = (low[0], high[0], low[1], high[1])
    axes.imshow(sheet, cmap="gray_r", extent=extent, aspect="auto", interpolation="nearest")
    axes.set(title="What the decoder draws at each place", xlabel="1st", ylabel="2nd")
    return figure


def main() -> None:
    """Train, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("autoencoder-digits"), metavar="DIR")
    given = parser.parse_args()

    x, _, x_test, y_test = load()
    pf.set_seed(0)
    nets = build()
    rate = pf.schedules.Cosine(3e-3, total_steps=given.epochs * -(-len(x) // 64))
    trainer = pf.Trainer(nets.whole, "binary_cross_entropy", pf.optimizers.Adam(rate))
    history = trainer.fit(
        x, x, epochs=given.epochs, batch_size=64, validation_data=(x_test, x_test), seed=0
    )

    code = nets.encoder.predict(x_test)
    back = nets.decoder.predict(code)
    # Principal components are the best that two numbers can do with matrices alone.
    center = x.mean(0)
    axes = np.linalg.svd(x - center, full_matrices=False)[2][:CODE]
    linear = (x_test - center) @ axes.T @ axes + center
    for name, result in (("autoencoder", back), ("2 principal components", linear)):
        print(f"{name:24} mean squared error {np.mean((result - x_test) ** 2):.4f}")

    given.out.mkdir(parents=True, exist_ok=True)
    figures = {
        "pairs.png": draw_pairs(x_test, back),
        "map.png": draw_map(code, y_test),
        "grid.png": draw_grid(nets.decoder, code),
        "loss.png": plotting.loss_curve(history),
    }
    for name, figure in figures.items():
        figure.savefig(given.out / name)
        print(given.out / name)


if __name__ == "__main__":
    main()
