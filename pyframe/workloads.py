"""What is measured: each workload once, for pyframe and every peer.

A workload is a multi-layer perceptron with its data, its first weights and its optimizer. They are
drawn once, from a fixed seed, and written to files that all peers read. Nothing is shuffled: every
peer sees the same batches in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Layers = Sequence[tuple[Floats, Floats]]  # weight (in, out) and bias (out,) of each layer

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # Adam, everywhere
SIGMOID_OPERATIONS = 50  # of one sigmoid: a polynomial for exp, and a division


@dataclass(frozen=True)
class Workload:
    """One row of the table.

    Attributes
    ----------
    name : str
    title : str
        For the table.
    sizes : tuple of int
        Features in, units of each layer, units out.
    hidden : {"relu", "sigmoid"}
        After every layer but the last.
    loss : {"l2", "cross_entropy"}
        The mean of (y_hat - y)^2 over rows and units; or the mean over the rows of
        -log softmax(y_hat)[y], with labels y.
    optimizer : {"sgd", "adam"}
    rate : float
        The learning rate.
    batch : int
        Rows a step.
    batches : int
        Steps an epoch.
    target : float
        How many times faster than the best peer pyframe is meant to be, on one thread.
    predict : bool
        Whether it is a prediction of single rows that is timed, not a training step.
    scalar : bool
        Whether the layers are k x + b with numbers k and b, which peers may make use of.
    """

    name: str
    title: str
    sizes: tuple[int, ...]
    hidden: str
    loss: str
    optimizer: str
    rate: float
    batch: int
    batches: int
    target: float
    predict: bool = False
    scalar: bool = False

    @property
    def rows(self) -> int:
        """How many samples there are."""
        return self.batch * self.batches

    @property
    def flops(self) -> int:
        """Floating-point operations of a step, or of one prediction.

        A layer of m inputs and n units takes 2 m n a row for its outputs, as many for the gradient
        of its weights and, unless it is the first, as many for that of its input. What a step does
        besides counts only where there is next to nothing else.
        """
        products = [2 * m * n for m, n in pairwise(self.sizes)]
        if self.predict:
            return sum(products)
        if self.scalar:
            return self.batch * (3 * sum(products) + SIGMOID_OPERATIONS + 8)
        return self.batch * (3 * sum(products) - products[0])

    def first_weights(self) -> list[tuple[Floats, Floats]]:
        """Return the first weights: (in, out) and (out,) for each layer."""
        random = np.random.default_rng(1)
        layers = []
        for m, n in pairwise(self.sizes):
            weight = random.standard_normal((m, n), dtype=np.float32)
            weight *= np.float32(1 if self.scalar else np.sqrt(2 / m))
            layers.append((weight, np.zeros(n, np.float32)))
        return layers

    def data(self) -> tuple[Floats, NDArray[np.float32] | NDArray[np.int64]]:
        """Return x of (rows, in) and y of (rows, out), or labels of (rows,)."""
        random = np.random.default_rng(2)
        x = random.standard_normal((self.rows, self.sizes[0]), dtype=np.float32)
        if self.scalar:  # rooms and prices
            x = x * np.float32(0.7) + np.float32(6.3)
            y = np.float32(9) * x - np.float32(34)
            y += np.float32(5) * random.standard_normal(x.shape, dtype=np.float32)
            return x, y
        teacher = random.standard_normal((self.sizes[0], self.sizes[-1]), dtype=np.float32)
        teacher /= np.float32(np.sqrt(self.sizes[0]))
        y = x @ teacher
        if self.loss == "cross_entropy":
            return x, y.argmax(axis=1)
        y += np.float32(0.5) * random.standard_normal(y.shape, dtype=np.float32)
        return x, y

    def outputs_of(self, layers: Layers, x: Floats) -> NDArray[np.float64]:
        """Return what a network with these weights makes of x, in float64."""
        h = x.astype(np.float64)
        for i, (weight, bias) in enumerate(layers):
            h = h @ weight.astype(np.float64) + bias
            if i < len(layers) - 1:
                h = np.maximum(h, 0) if self.hidden == "relu" else 1 / (1 + np.exp(-h))
        return h

    def loss_of(self, layers: Layers) -> float:
        """Return the loss of a network with these weights over all the data, in float64."""
        x, y = self.data()
        outputs = self.outputs_of(layers, x)
        if self.loss == "cross_entropy":
            logits = outputs - outputs.max(axis=1, keepdims=True)
            logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
            return float(-logs[np.arange(len(y)), y].mean())
        return float(np.mean((outputs - y) ** 2))

    def loss_of_outputs(self, outputs: Floats) -> float:
        """Return the L2 loss of predictions (rows, out) for the first rows of the data."""
        return float(np.mean((outputs.astype(np.float64) - self.data()[1][: len(outputs)]) ** 2))

    def write(self, folder: Path) -> None:
        """Write data and first weights to a folder of its own within another one."""
        own = folder / self.name
        own.mkdir()
        x, y = self.data()
        np.save(own / "x.npy", x)
        np.save(own / "y.npy", y)
        for i, (weight, bias) in enumerate(self.first_weights()):
            np.save(own / f"weight{i}.npy", weight)
            np.save(own / f"bias{i}.npy", bias)


WORKLOADS = {
    w.name: w
    for w in (
        Workload(
            name="lesson",
            title="lesson: 506x1, Linear-Sigmoid-Linear, L2, full batch, SGD",
            sizes=(1, 1, 1),
            hidden="sigmoid",
            loss="l2",
            optimizer="sgd",
            rate=1e-3,
            batch=506,
            batches=1,
            target=20,
            scalar=True,
        ),
        Workload(
            name="tabular",
            title="tabular: 13-64-64-1 relu, L2, batch 32, Adam",
            sizes=(13, 64, 64, 1),
            hidden="relu",
            loss="l2",
            optimizer="adam",
            rate=1e-3,
            batch=32,
            batches=20,
            target=4,
        ),
        Workload(
            name="mnist_mlp",
            title="mnist_mlp: 784-256-128-10 relu, cross entropy, batch 128, Adam",
            sizes=(784, 256, 128, 10),
            hidden="relu",
            loss="cross_entropy",
            optimizer="adam",
            rate=1e-3,
            batch=128,
            batches=10,
            target=1.35,
        ),
        Workload(
            name="wide_mlp",
            title="wide_mlp: 1024-4096-1024 relu, L2, batch 256, SGD",
            sizes=(1024, 4096, 1024),
            hidden="relu",
            loss="l2",
            optimizer="sgd",
            rate=0.1,
            batch=256,
            batches=2,
            target=1.15,
        ),
        Workload(
            name="predict_row",
            title="prediction of one row, 13-64-64-1 relu",
            sizes=(13, 64, 64, 1),
            hidden="relu",
            loss="l2",
            optimizer="adam",
            rate=1e-3,
            batch=1,
            batches=20,
            target=6,
            predict=True,
        ),
    )
}

# Their layers are still to be built; until then they are named, and not run.
NOT_YET = ("convolution", "lstm", "transformer")
