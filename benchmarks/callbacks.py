"""What callbacks cost: ten epochs of MNIST with all logs, and a callback on every batch.

    python benchmarks/callbacks.py [ROUNDS]

Each with and without, in turns in one process; the ratios of the medians and of the best. A
callback on every batch is measured on a network whose step takes a few microseconds, where a
difference shows. MNIST is read from the folder that PYFRAME_DATA names, or from ``shared/data``
beside or above the repository.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import pyframe as pf
from pyframe.callbacks import Callback, CSVLogger, ModelCheckpoint, TensorBoard

FOLDERS = [above / "shared" / "data" for above in Path(__file__).resolve().parents[2:]]


def mnist() -> tuple[Any, Any]:
    """Return images as rows in [0, 1], and labels."""
    if "PYFRAME_DATA" not in os.environ:
        os.environ["PYFRAME_DATA"] = next((str(f) for f in FOLDERS if f.is_dir()), "")
    train, _ = pf.datasets.load_mnist()
    images = np.asarray(train.data, np.float32).reshape(len(train.data), -1)
    return images / max(float(images.max()), 1.0), np.asarray(train.target, np.int64)


def trainer(hidden: int, outputs: int) -> pf.Trainer:
    """Return a trainer of a network with one hidden layer."""
    pf.set_seed(0)
    layers = [pf.layers.Dense(hidden, activation="relu"), pf.layers.Dense(outputs)]
    return pf.Trainer(pf.Sequential(layers), "cross_entropy", metrics=["accuracy"])


def seconds(made: pf.Trainer, data: Any, epochs: int, callbacks: list[Any], verbose: int) -> float:
    """Return how long a fit takes that has been compiled."""
    made.fit(*(part[:512] for part in data), 1, 128, verbose=0)
    began = time.perf_counter()
    made.fit(*data, epochs, 128, callbacks=callbacks, verbose=verbose)
    return time.perf_counter() - began


class Bell(Callback):
    """Hears of every batch, and does nothing."""

    def on_batch_end(self, trainer: Any, step: int, logs: Any) -> None:
        pass


def watched(folder: str, histograms: int) -> list[Any]:
    """Return a board, a log and checkpoints."""
    return [
        TensorBoard(os.path.join(folder, "runs"), histograms=histograms),
        CSVLogger(os.path.join(folder, "log.csv")),
        ModelCheckpoint(os.path.join(folder, "net.pyframe")),
    ]


def main(rounds: int) -> None:
    """Print all figures."""
    data = mnist()
    times: dict[str, list[float]] = {"plain": [], "logs": [], "histograms": []}
    for _ in range(rounds):
        times["plain"].append(seconds(trainer(128, 10), data, 10, [], 0))
        for name, every in (("logs", 0), ("histograms", 1)):
            with tempfile.TemporaryDirectory() as folder:
                callbacks = watched(folder, every)
                times[name].append(seconds(trainer(128, 10), data, 10, callbacks, 1))
    plain = statistics.median(times["plain"])
    print(f"MNIST, 10 epochs: {plain:.2f} s")
    for name, what in (
        ("logs", "progress, TensorBoard, CSV log and checkpoints"),
        ("histograms", "the same, and histograms of weights and gradients each epoch"),
    ):
        ratio = statistics.median(times[name]) / plain
        best = min(times[name]) / min(times["plain"])
        print(f"  {what}: {ratio:.3f} times (best of {rounds}: {best:.3f})")
    draw = np.random.default_rng(0)
    few = draw.normal(size=(128 * 2000, 4)).astype(np.float32), draw.integers(0, 2, 128 * 2000)
    epoch = pf.callbacks.LambdaCallback(on_epoch_end=lambda *_: None)
    without, with_bell = [], []
    for _ in range(4 * rounds):
        without.append(seconds(trainer(4, 2), few, 5, [epoch], 0))
        with_bell.append(seconds(trainer(4, 2), few, 5, [epoch, Bell()], 0))
    for what, of in (("median", statistics.median), ("best", min)):
        each, more = (of(some) / 10_000 * 1e6 for some in (without, with_bell))
        print(f"a callback on every batch, {what}: {more - each:.2f} us more than {each:.2f} us")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
