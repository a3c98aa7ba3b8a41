"""What the two peers of PyTorch share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from sequences import Gpt, Recurrent
from workloads import BATCH_NORM_EPSILON, BETA1, BETA2, EPSILON, ConvNet, Floats

from peers import torch_sequences
from peers.common import Peer, Task


class Torch(Peer):
    """Layers of torch.nn and a fused optimizer; how they are called is up to the two peers."""

    def __init__(self, task: Task) -> None:
        import torch

        super().__init__(task)
        self.torch = torch
        torch.set_num_threads(task.threads)
        self.of_flat: dict[Any, tuple[int, ...]] = {}  # linear layers behind a flattened image
        self.model, self.weighted = self._network()
        self.batches = [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in task.batches()]
        self.format = torch.contiguous_format
        if isinstance(self.workload, ConvNet):
            self.set_format("channels_first")
        functional = torch.nn.functional
        self.loss_function: Any = (
            functional.mse_loss if self.workload.loss == "l2" else functional.cross_entropy
        )
        if isinstance(self.workload, Gpt):
            self.loss_function = lambda outputs, y: functional.cross_entropy(
                outputs.flatten(0, 1), y.flatten()
            )
        self._set_weights()
        self.optimizer = self._new_optimizer()

    def _network(self) -> tuple[Any, list[Any]]:
        """Return the model, and its layers that have a weight, in order."""
        if isinstance(self.workload, Gpt):
            return torch_sequences.gpt(self.torch, self.workload)
        if isinstance(self.workload, Recurrent):
            return torch_sequences.recurrent(self.torch, self.workload)
        layers = self._images() if isinstance(self.workload, ConvNet) else self._dense()
        model = self.torch.nn.Sequential(*layers)
        return model, [layer for layer in model if hasattr(layer, "weight")]

    def _dense(self) -> list[Any]:
        nn, workload = self.torch.nn, self.workload
        layers: list[Any] = []
        activation = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}[workload.hidden]
        for m, n in pairwise(workload.sizes):
            layers += [nn.Linear(m, n), activation()]
        return layers[:-1]

    def _images(self) -> list[Any]:
        nn, layers = self.torch.nn, []
        flat: tuple[int, ...] = ()
        for layer, before, after in self.workload.shapes():
            match layer:
                case ("conv", kernel, filters, padding):
                    layers.append(nn.Conv2d(before[-1], filters, kernel, padding=padding))
                case ("batch_norm",):
                    layers.append(nn.BatchNorm2d(after[-1], eps=BATCH_NORM_EPSILON))
                case ("relu",):
                    layers.append(nn.ReLU())
                case ("max_pool", size):
                    layers.append(nn.MaxPool2d(size))
                case ("mean",):
                    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
                case ("flatten",):
                    layers.append(nn.Flatten())
                    flat = before
                case ("dense", units):
                    layers.append(nn.Linear(before[0], units))
                    if flat:
                        self.of_flat[layers[-1]], flat = flat, ()
        return layers

    def set_format(self, name: str) -> None:
        """Lay images and kernels out with the channels first or last."""
        torch = self.torch
        last = name == "channels_last"
        self.format = torch.channels_last if last else torch.contiguous_format
        self.model.to(memory_format=self.format)
        self.batches = [
            (
                torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=self.format),
                torch.from_numpy(y),
            )
            for x, y in self.task.batches()
        ]

    def _to_torch(self, layer: Any, weight: Floats) -> Any:
        """Return a weight as PyTorch has it."""
        if weight.ndim == 4:
            weight = weight.transpose(3, 2, 0, 1)
        elif weight.ndim == 2:
            if layer in self.of_flat:  # rows by channel first, as PyTorch flattens
                h, w, c = self.of_flat[layer]
                weight = weight.reshape(h, w, c, -1).transpose(2, 0, 1, 3).reshape(h * w * c, -1)
            weight = weight.T
        return self.torch.from_numpy(np.ascontiguousarray(weight))

    def _from_torch(self, layer: Any) -> Floats:
        weight: Floats = layer.weight.detach().numpy()
        if weight.ndim == 4:
            weight = weight.transpose(2, 3, 1, 0)
        elif weight.ndim == 2:
            weight = weight.T
            if layer in self.of_flat:
                h, w, c = self.of_flat[layer]
                weight = weight.reshape(c, h, w, -1).transpose(1, 2, 0, 3).reshape(h * w * c, -1)
        return weight.copy()

    def _new_optimizer(self) -> Any:
        optim, rate = self.torch.optim, self.workload.rate
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        if self.workload.optimizer == "sgd":
            return optim.SGD(parameters, rate, fused=True)
        return optim.Adam(parameters, rate, betas=(BETA1, BETA2), eps=EPSILON, fused=True)

    def _set_weights(self) -> None:
        torch = self.torch
        with torch.no_grad():
            first = self.task.first_weights()
            for layer, (weight, bias) in zip(self.weighted, first, strict=True):
                layer.weight.copy_(self._to_torch(layer, weight))
                layer.bias.copy_(torch.from_numpy(bias))

    def reset(self) -> None:
        self._set_weights()
        with self.torch.no_grad():
            for memory in self.optimizer.state.values():
                for value in memory.values():
                    if value is not None:
                        value.zero_()

    def weights(self) -> list[tuple[Floats, Floats]]:
        return [
            (self._from_torch(layer), layer.bias.detach().numpy().copy()) for layer in self.weighted
        ]

    def predictor(self) -> tuple[Callable[[Any], Any], Sequence[Any]]:
        torch = self.torch
        self.model.eval()
        self.mode = torch.inference_mode()
        self.mode.__enter__()  # for good: nothing is trained in this process
        return self.forward(), [x for x, _ in self.batches]

    def forward(self) -> Callable[[Any], Any]:
        """Return what predicts, within inference mode."""
        return self.model

    def train_with(self, step: Callable[[Any, Any], Any], epochs: int) -> None:
        """Call the step for every batch."""
        for _ in range(epochs):
            for x, y in self.batches:
                self.loss = step(x, y)


def versions() -> dict[str, str]:
    """Return the versions."""
    import torch

    return {"torch": torch.__version__, "numpy": np.__version__}
