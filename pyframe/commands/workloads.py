"""The workloads of the benchmark, defined once for pyframe and every peer.

A workload is a network with its data, its first weights and its optimizer. They are drawn once,
from a fixed seed, and written to files that all peers read. Nothing is shuffled: every peer sees
the same batches in the same order.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Layers = Sequence[tuple[Floats, Floats]]  # weight (in, out) and bias (out,) of each layer

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # Adam, everywhere
BATCH_NORM_EPSILON = 1e-5
SIGMOID_OPERATIONS = 50  # of one sigmoid: a polynomial for exp, and a division
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
}
CHECK_STEPS = 20  # after which all peers must have come to the same loss, or some more


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
    def check_steps(self) -> int:
        """The number of steps before losses are compared: whole epochs, of 20 steps or more."""
        return self.batches * -(-CHECK_STEPS // self.batches)

    @property
    @abstractmethod
    def flops(self) -> int:
        """Floating-point operations of a step, or of one prediction: those of its products."""

    @property
    @abstractmethod
    def sizes_of_values(self) -> list[int]:
        """The number of elements in a row of the input and of each value that a layer makes."""

    @property
    def elements(self) -> int:
        """The number of elements of all that a step works on, Adam's averages too."""
        parameters = self.parameters * (3 if self.optimizer == "adam" and not self.predict else 1)
        return self.batch * sum(self.sizes_of_values) + parameters

    @property
    def parameters(self) -> int:
        """The number of weights and biases."""
        return sum(weight.size + bias.size for weight, bias in self.first_weights())

    @property
    def traffic(self) -> int:
        """The bytes that a step, or a prediction, moves at least: each operand once for each use.

        A prediction reads parameters and input and writes its result. A step reads the input twice,
        writes each value, reads it for the next layer and once more for the gradients, and does the
        same for its gradient; it reads the parameters forward and backward, writes and reads their
        gradients, and the update reads and writes parameters and Adam's two averages. A layer whose
        activation or normalization is not counted as a value of its own is taken to be fused.
        """
        inputs, *values = (self.batch * n for n in self.sizes_of_values)
        if self.predict:
            return 4 * (self.parameters + inputs + values[-1])
        updated = 3 if self.optimizer == "adam" else 1
        return 4 * (2 * inputs + 5 * sum(values) + self.parameters * (4 + 2 * updated))

    @abstractmethod
    def first_weights(self) -> list[tuple[Floats, Floats]]:
        """Return the first weights: weight and bias of each layer that has them."""

    @abstractmethod
    def data(self) -> tuple[Floats, NDArray[np.float32] | NDArray[np.int64]]:
        """Return x of (rows, ...) and y of (rows, out), or labels of (rows,)."""

    @abstractmethod
    def outputs_of(self, layers: Layers, x: Floats) -> NDArray[np.float64]:
        """Return what a network with these weights makes of x, in float64."""

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

    @property
    def sizes_of_values(self) -> list[int]:
        """The number of elements in a row of the input and of each value that a layer makes."""
        return list(self.sizes)

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

    def outputs_of(self, layers: Layers, x: Floats) -> NDArray[np.float64]:
        h = x.astype(np.float64)
        for i, (weight, bias) in enumerate(layers):
            h = h @ weight.astype(np.float64) + bias
            if i < len(layers) - 1:
                h = ACTIVATIONS[self.hidden](h)
        return h


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

    @property
    def sizes_of_values(self) -> list[int]:
        """The number of elements in a row of the input and of each value that a layer makes."""
        made = ("conv", "max_pool", "mean", "dense")  # the others are fused, or move nothing
        shapes = [after for layer, _, after in self.shapes() if layer[0] in made]
        return [math.prod(self.image), *map(math.prod, shapes)]

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

    def outputs_of(self, layers: Layers, x: Floats) -> NDArray[np.float64]:
        """Return what the network makes of x; its batch is all of x."""
        h: Any = x.astype(np.float64)
        weights = iter(layers)
        for layer, before, _ in self.shapes():
            match layer:
                case ("conv", kernel, _, padding):
                    weight, bias = (np.asarray(a, np.float64) for a in next(weights))
                    if padding == "same":
                        low, high = (kernel - 1) // 2, kernel // 2
                        h = np.pad(h, ((0, 0), (low, high), (low, high), (0, 0)))
                    views = np.lib.stride_tricks.sliding_window_view(h, (kernel, kernel), (1, 2))
                    h = np.einsum("nhwcij,ijcf->nhwf", views, weight, optimize=True) + bias
                case ("batch_norm",):
                    scale, offset = (np.asarray(a, np.float64) for a in next(weights))
                    axes = tuple(range(h.ndim - 1))
                    h = (h - h.mean(axes)) / np.sqrt(h.var(axes) + BATCH_NORM_EPSILON)
                    h = h * scale + offset
                case ("relu",):
                    h = np.maximum(h, 0)
                case ("max_pool", size):
                    rows, columns = before[0] // size, before[1] // size
                    h = h[:, : rows * size, : columns * size]
                    h = h.reshape(len(h), rows, size, columns, size, -1).max((2, 4))
                case ("mean",):
                    h = h.mean((1, 2))
                case ("flatten",):
                    h = h.reshape(len(h), -1)
                case ("dense", _):
                    weight, bias = (np.asarray(a, np.float64) for a in next(weights))
                    h = h @ weight + bias
        return h  # type: ignore[no-any-return]


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
