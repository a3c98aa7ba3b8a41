"""What callbacks cost: ten epochs of MNIST with all logs, and a callback on every batch.

    python benchmarks/callbacks.py [ROUNDS]

Each with and without, in turns in one process; the ratio of the medians. MNIST is read from the
folder that PYFRAME_DATA names, or from ``shared/data`` beside or above the repository.
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


def seconds(data: Any, epochs: int, batch: int, callbacks: list[Any], verbose: int) -> float:
    """Return how long a fit takes."""
    pf.set_seed(0)
    layers = [pf.layers.Dense(128, activation="relu"), pf.layers.Dense(10)]
    trainer = pf.Trainer(pf.Sequential(layers), "cross_entropy", metrics=["accuracy"])
    trainer.fit(*(part[:512] for part in data), 1, batch, verbose=0)
    began = time.perf_counter()
    trainer.fit(*data, epochs, batch, callbacks=callbacks, verbose=verbose)
    return time.perf_counter() - began


class Bell(Callback):
    """Hears of every batch, and does nothing."""

    def on_batch_end(self, trainer: Any, step: int, logs: Any) -> None:
        pass


def watched(folder: str) -> list[Any]:
    """Return a board, a log and checkpoints."""
    return [
        TensorBoard(os.path.join(folder, "runs"), histograms=1),
        CSVLogger(os.path.join(folder, "log.csv")),
        ModelCheckpoint(os.path.join(folder, "net.pyframe")),
    ]


def main(rounds: int) -> None:
    """Print both figures."""
    data = mnist()
    plain, logged = [], []
    for _ in range(rounds):
        plain.append(seconds(data, 10, 128, [], 0))
        with tempfile.TemporaryDirectory() as folder:
            logged.append(seconds(data, 10, 128, watched(folder), 1))
    a, b = statistics.median(plain), statistics.median(logged)
    best = min(logged) / min(plain)
    print(f"MNIST, 10 epochs: {a:.2f} s, with logs and progress {b:.2f} s: {b / a:.3f} times")
    print(f"  best of {rounds}: {best:.3f} times")
    few = tuple(part[:8192] for part in data)
    steps, without, with_bell = 8192 // 32 * 5, [], []
    epoch = pf.callbacks.LambdaCallback(on_epoch_end=lambda *_: None)
    for _ in range(4 * rounds):
        without.append(seconds(few, 5, 32, [epoch], 0))
        with_bell.append(seconds(few, 5, 32, [epoch, Bell()], 0))
    each = (statistics.median(with_bell) - statistics.median(without)) / steps * 1e6
    least = (min(with_bell) - min(without)) / steps * 1e6
    print(f"a callback on every batch: {each:.2f} us a batch (least of all: {least:.2f} us)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
