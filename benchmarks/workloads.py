"""The workloads of `pyframe.commands.workloads`, read from their file, and what they come to.

So a peer's process holds nothing of pyframe, and peers can be measured where it is not installed.
Here they learn what every peer must have come to, in NumPy and float64, and what a step moves at
least.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import fields
from importlib.util import module_from_spec, spec_from_file_location
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_path = Path(__file__).resolve().parents[1] / "pyframe" / "commands" / "workloads.py"
_spec = spec_from_file_location("pyframe_workloads", _path)
assert _spec is not None and _spec.loader is not None
_package = sys.modules[_spec.name] = module_from_spec(_spec)
_spec.loader.exec_module(_package)

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # Adam, everywhere
BATCH_NORM_EPSILON = _package.BATCH_NORM_EPSILON
Floats = NDArray[np.float32]
Layers = Sequence[tuple[Floats, Floats]]  # weight (in, out) and bias (out,) of each layer
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
}
CHECK_STEPS = 20  # after which all peers must have come to the same loss, or some more


class Workload(_package.Workload):  # type: ignore[misc,name-defined]
    """One row of the table."""

    @property
    def check_steps(self) -> int:
        """The number of steps before losses are compared: whole epochs, of 20 steps or more."""
        return self.batches * -(-CHECK_STEPS // self.batches)

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


class MLP(Workload, _package.MLP):  # type: ignore[misc,name-defined]
    """A multi-layer perceptron."""

    @property
    def sizes_of_values(self) -> list[int]:
        """The number of elements in a row of the input and of each value that a layer makes."""
        return list(self.sizes)

    def outputs_of(self, layers: Layers, x: Floats) -> NDArray[np.float64]:
        h = x.astype(np.float64)
        for i, (weight, bias) in enumerate(layers):
            h = h @ weight.astype(np.float64) + bias
            if i < len(layers) - 1:
                h = ACTIVATIONS[self.hidden](h)
        return h


class ConvNet(Workload, _package.ConvNet):  # type: ignore[misc,name-defined]
    """A network of convolutions over images, channels last."""

    @property
    def sizes_of_values(self) -> list[int]:
        """The number of elements in a row of the input and of each value that a layer makes."""
        made = ("conv", "max_pool", "mean", "dense")  # the others are fused, or move nothing
        shapes = [after for layer, _, after in self.shapes() if layer[0] in made]
        return [prod(self.image), *map(prod, shapes)]

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


def _measured(given: Any) -> Workload:
    """Return a workload of the package as one of those here."""
    kind = MLP if isinstance(given, _package.MLP) else ConvNet
    return kind(**{field.name: getattr(given, field.name) for field in fields(given)})


WORKLOADS: dict[str, Workload] = {
    name: _measured(given) for name, given in _package.WORKLOADS.items()
}
