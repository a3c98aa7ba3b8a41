"""The workloads of the benchmark, defined once for pyframe and every peer.

A workload is a network with its data, its first weights and its optimizer. They are drawn once,
from a fixed seed, and written to files that all peers read. Nothing is shuffled: every peer sees
the same batches in the same order.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

BATCH_NORM_EPSILON = 1e-5
SIGMOID_OPERATIONS = 50  # of one sigmoid: a polynomial for exp, and a division


@dataclass(frozen=True, kw_only=True)
class Workload(ABC):
    """One row of the table.

    Attributes
    ----------
    name : str
    title : str
        For the table.
    loss : {"l2", "cross_entropy"}
        The mean of (y_hat - y)^2 over rows and units; or the mean over the rows of
        -log softmax(y_hat)[y], with labels y.
    optimizer : {"sgd", "adam"}
    rate : float
        The learning rate.
    batch : int
        Number of rows in a batch.
    batches : int
        Number of batches in an epoch.
    predict : bool
        Whether predictions of a batch are timed instead of training steps.
    scalar : bool
        Whether the layers are k x + b with numbers k and b, which peers may make use of.
    """

    name: str
    title: str
    loss: str
    optimizer: str
    rate: float
    batch: int
    batches: int
    predict: bool = False
    scalar: bool = False

    @property
    def rows(self) -> int:
        """Number of samples."""
        return self.batch * self.batches

    @property
    @abstractmethod
    def flops(self) -> int:
        """Floating-point operations of a step, or of one prediction: those of its products."""

    @abstractmethod
    def first_weights(self) -> list[tuple[Floats, Floats]]:
        """Return the first weights: weight and bias of each layer that has them."""

    @abstractmethod
    def data(self) -> tuple[Floats, NDArray[np.float32] | NDArray[np.int64]]:
        """Return x of (rows, ...) and y of (rows, out), or labels of (rows,)."""


@dataclass(frozen=True, kw_only=True)
class MLP(Workload):
    """A multi-layer perceptron.

    Attributes
    ----------
    sizes : tuple of int
        Features in, units of each layer, units out.
    hidden : {"relu", "sigmoid", "tanh"}
        The activation after every layer but the last.
    """

    sizes: tuple[int, ...]
    hidden: str

    @property
    def flops(self) -> int:
        """Floating-point operations of a step, or of one prediction.

        A layer of m inputs and n units takes 2 m n a row for its outputs, as many for the gradient
        of its weights and, unless it is the first, as many for that of its input. What a step does
        besides counts only where there is next to nothing else.
        """
        products = [2 * m * n for m, n in pairwise(self.sizes)]
        if self.predict:
            return self.batch * sum(products)
        if self.scalar:
            return self.batch * (3 * sum(products) + SIGMOID_OPERATIONS + 8)
        return self.batch * (3 * sum(products) - products[0])

    def first_weights(self) -> list[tuple[Floats, Floats]]:
        random = np.random.default_rng(1)
        layers = []
        for m, n in pairwise(self.sizes):
            weight = random.standard_normal((m, n), dtype=np.float32)
            weight *= np.float32(1 if self.scalar else np.sqrt(2 / m))
            layers.append((weight, np.zeros(n, np.float32)))
        return layers

    def data(self) -> tuple[Floats, NDArray[np.float32] | NDArray[np.int64]]:
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


@dataclass(frozen=True, kw_only=True)
class ConvNet(Workload):
    """A network of convolutions over images, channels last.

    Attributes
    ----------
    image : tuple of int
        Height, width and channels of the input.
    layers : tuple of tuples
        ``("conv", kernel, filters, padding)`` with padding "valid" or "same", ``("batch_norm",)``
        over all axes but the channels, ``("relu",)``, ``("max_pool", size)``, ``("mean",)`` over
        the axes of space, ``("flatten",)``, ``("dense", units)``.
    """

    image: tuple[int, int, int]
    layers: tuple[tuple[Any, ...], ...]

    def shapes(self) -> Iterator[tuple[tuple[Any, ...], tuple[int, ...], tuple[int, ...]]]:
        """Yield each layer, and the shapes of what goes into it and comes out of it."""
        shape: tuple[int, ...] = self.image
        for layer in self.layers:
            before = shape
            match layer:
                case ("conv", kernel, filters, padding):
                    lost = kernel - 1 if padding == "valid" else 0
                    shape = (shape[0] - lost, shape[1] - lost, filters)
                case ("max_pool", size):
                    shape = (shape[0] // size, shape[1] // size, shape[2])
                case ("mean",):
                    shape = shape[-1:]
                case ("flatten",):
                    shape = (math.prod(shape),)
                case ("dense", units):
                    shape = (units,)
            yield layer, before, shape

    @property
    def flops(self) -> int:
        """Floating-point operations of the products of a step, as for an `MLP`."""
        products = []
        for layer, before, after in self.shapes():
            if layer[0] == "conv":
                products.append(2 * math.prod(after) * layer[1] ** 2 * before[-1])
            elif layer[0] == "dense":
                products.append(2 * before[0] * after[0])
        return int(self.batch * (3 * sum(products) - products[0]))

    def first_weights(self) -> list[tuple[Floats, Floats]]:
        random = np.random.default_rng(1)
        found = []
        for layer, before, after in self.shapes():
            n = after[-1]
            match layer[0]:
                case "conv":
                    shape: tuple[int, ...] = (layer[1], layer[1], before[-1], n)
                case "dense":
                    shape = (before[0], n)
                case "batch_norm":
                    found.append((np.ones(n, np.float32), np.zeros(n, np.float32)))
                    continue
                case _:
                    continue
            weight = random.standard_normal(shape, dtype=np.float32)
            weight *= np.float32(np.sqrt(2 / math.prod(shape[:-1])))
            found.append((weight, np.zeros(n, np.float32)))
        return found

    def data(self) -> tuple[Floats, NDArray[np.int64]]:
        random = np.random.default_rng(2)
        x = random.standard_normal((self.rows, *self.image), dtype=np.float32)
        classes = self.layers[-1][1]
        teacher = random.standard_normal((math.prod(self.image), classes), dtype=np.float32)
        return x, (x.reshape(self.rows, -1) @ teacher).argmax(axis=1)


def _simplechains(name: str, title: str, batch: int) -> MLP:
    """Return the network that SimpleChains.jl is compared by, with batches of so many rows."""
    return MLP(
        name=name,
        title=f"{name}: 4-32-16-4 tanh, L2, {title}, Adam",
        sizes=(4, 32, 16, 4),
        hidden="tanh",
        loss="l2",
        optimizer="adam",
        rate=1e-3,
        batch=batch,
        batches=10_000 // batch,
    )


def _deep(batch: int, batches: int) -> MLP:
    """Return seven dense layers, trained in batches of so many rows."""
    return MLP(
        name=f"mlp_7x_{batch}",
        title=f"mlp_7x: 32-256x6-10 relu, cross entropy, batch {batch:,}, Adam",
        sizes=(32, *[256] * 6, 10),
        hidden="relu",
        loss="cross_entropy",
        optimizer="adam",
        rate=1e-4,  # larger steps multiply what rounding has left, and no two peers agree
        batch=batch,
        batches=batches,
    )


def _predict(name: str, rows: int) -> MLP:
    """Return the prediction of so many rows at a time."""
    return MLP(
        name=name,
        title=f"prediction of {rows:,} row{'s' if rows > 1 else ''}, 13-64-64-1 relu",
        sizes=(13, 64, 64, 1),
        hidden="relu",
        loss="l2",
        optimizer="adam",
        rate=1e-3,
        batch=rows,
        batches=20,
        predict=True,
    )


def _block(filters: int) -> tuple[tuple[Any, ...], ...]:
    return ("conv", 3, filters, "same"), ("batch_norm",), ("relu",)


WORKLOADS: dict[str, Workload] = {
    w.name: w
    for w in (
        MLP(
            name="lesson",
            title="lesson: 506x1, Linear-Sigmoid-Linear, L2, full batch, SGD",
            sizes=(1, 1, 1),
            hidden="sigmoid",
            loss="l2",
            optimizer="sgd",
            rate=1e-3,
            batch=506,
            batches=1,
            scalar=True,
        ),
        MLP(
            name="tabular",
            title="tabular: 13-64-64-1 relu, L2, batch 32, Adam",
            sizes=(13, 64, 64, 1),
            hidden="relu",
            loss="l2",
            optimizer="adam",
            rate=1e-3,
            batch=32,
            batches=20,
        ),
        MLP(
            name="mnist_mlp",
            title="mnist_mlp: 784-256-128-10 relu, cross entropy, batch 128, Adam",
            sizes=(784, 256, 128, 10),
            hidden="relu",
            loss="cross_entropy",
            optimizer="adam",
            rate=1e-3,
            batch=128,
            batches=10,
        ),
        MLP(
            name="wide_mlp",
            title="wide_mlp: 1024-4096-1024 relu, L2, batch 256, SGD",
            sizes=(1024, 4096, 1024),
            hidden="relu",
            loss="l2",
            optimizer="sgd",
            rate=0.1,
            batch=256,
            batches=2,
        ),
        _simplechains("simplechains", "full batch of 10,000", 10_000),
        _simplechains("simplechains_200", "batch 200", 200),
        *(_deep(batch, batches) for batch, batches in ((32, 20), (128, 20), (2048, 4))),
        _predict("predict_row", 1),
        *(_predict(f"predict_{rows}", rows) for rows in (8, 64, 1024)),
        ConvNet(
            name="lenet",
            title="lenet: 28x28x1, conv5x5 6 and 16, dense 120-84-10, batch 64, SGD",
            image=(28, 28, 1),
            layers=(
                ("conv", 5, 6, "valid"),
                ("relu",),
                ("max_pool", 2),
                ("conv", 5, 16, "valid"),
                ("relu",),
                ("max_pool", 2),
                ("flatten",),
                ("dense", 120),
                ("relu",),
                ("dense", 84),
                ("relu",),
                ("dense", 10),
            ),
            loss="cross_entropy",
            optimizer="sgd",
            rate=0.01,
            batch=64,
            batches=5,
        ),
        ConvNet(
            name="cifar_cnn",
            title="cifar_cnn: 32x32x3, conv3x3-BN-relu 32 32 64 64 128, dense 10, batch 32, SGD",
            image=(32, 32, 3),
            layers=(
                *_block(32),
                *_block(32),
                ("max_pool", 2),
                *_block(64),
                *_block(64),
                ("max_pool", 2),
                *_block(128),
                ("mean",),
                ("dense", 10),
            ),
            loss="cross_entropy",
            optimizer="sgd",
            rate=0.01,
            batch=32,
            batches=4,
        ),
    )
}
