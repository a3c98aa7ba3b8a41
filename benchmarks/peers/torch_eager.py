"""PyTorch as one writes it: a loop of forward, backward and a fused optimizer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from workloads import ConvNet

from peers.common import Peer, Task, fastest, serve
from peers.torch_peer import Torch, versions


class TorchEager(Torch):
    """The model, called as it is."""

    setup = "fused optimizer"

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        if self.workload.predict:
            self.setup = "inference mode"
        if isinstance(self.workload, ConvNet):
            self.variant = fastest(
                {name: partial(self._try, name) for name in ("channels_first", "channels_last")},
                task.variant,
            )
            self.set_format(self.variant)
            self.setup += f", {self.variant.replace('_', ' ')}"

    def _try(self, layout: str) -> None:
        if self.variant != layout:
            self.variant = layout
            self.set_format(layout)
        self.train(1)

    def _step(self, x: Any, y: Any) -> Any:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss_function(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return loss

    def train(self, epochs: int) -> None:
        self.train_with(self._step, epochs)


def load() -> tuple[Callable[[Task], Peer], dict[str, str]]:
    """Return what makes the peer, and the versions."""
    return TorchEager, versions()


if __name__ == "__main__":
    serve(load)
