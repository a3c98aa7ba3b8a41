"""What the two peers of PyTorch share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from workloads import BETA1, BETA2, EPSILON, Floats

from peers.common import Peer, Task


class Torch(Peer):
    """nn.Linear layers and a fused optimizer; how they are called is up to the two peers."""

    def __init__(self, task: Task) -> None:
        import torch

        super().__init__(task)
        self.torch = torch
        torch.set_num_threads(task.threads)
        sizes, nn = self.workload.sizes, torch.nn
        layers: list[Any] = []
        for m, n in pairwise(sizes):
            layers += [
                nn.Linear(m, n),
                nn.ReLU() if self.workload.hidden == "relu" else nn.Sigmoid(),
            ]
        self.model = nn.Sequential(*layers[:-1])
        self.linears = self.model[::2]
        self.batches = [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in task.batches()]
        functional = nn.functional
        self.loss_function = (
            functional.mse_loss if self.workload.loss == "l2" else functional.cross_entropy
        )
        self._set_weights()
        self.optimizer = self._new_optimizer()

    def _new_optimizer(self) -> Any:
        optim, parameters, rate = self.torch.optim, self.model.parameters(), self.workload.rate
        if self.workload.optimizer == "sgd":
            return optim.SGD(parameters, rate, fused=True)
        return optim.Adam(parameters, rate, betas=(BETA1, BETA2), eps=EPSILON, fused=True)

    def _set_weights(self) -> None:
        torch = self.torch
        with torch.no_grad():
            for linear, (weight, bias) in zip(self.linears, self.task.first_weights(), strict=True):
                linear.weight.copy_(torch.from_numpy(weight).T)
                linear.bias.copy_(torch.from_numpy(bias))

    def reset(self) -> None:
        self._set_weights()
        with self.torch.no_grad():
            for memory in self.optimizer.state.values():
                for value in memory.values():
                    if value is not None:
                        value.zero_()

    def weights(self) -> list[tuple[Floats, Floats]]:
        return [
            (layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy().copy())
            for layer in self.linears
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
