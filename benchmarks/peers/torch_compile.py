"""PyTorch with ``torch.compile``, in three ways, of which the fastest is taken.

``loss``
    The model and the loss are compiled, the optimizer is the fused one.
``optimizer``
    That, and the optimizer's step is compiled as well.
``whole``
    One compiled function for loss, gradients (`torch.func.grad_and_value`) and update; not for
    images, for which the other two are tried with the channels first and last instead, nor for
    recurrent networks, whose layers PyTorch 2.13 compiles for predictions alone: in training they
    run as they are, between what is compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sequences import Recurrent
from workloads import BETA1, BETA2, EPSILON, ConvNet

from peers.common import Peer, Task, fastest, serve
from peers.torch_peer import Torch, versions


class TorchCompile(Torch):
    """The model, compiled."""

    layout = "channels_first"
    whole_state: Sequence[Any] = ()  # of the optimizer that the way `whole` has

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        torch = self.torch
        torch._dynamo.config.suppress_errors = False
        torch._dynamo.config.allow_rnn = self.workload.predict
        if self.workload.predict:
            self._choose_forward()
            return
        self.ways = {"loss": self._loss_way(), "optimizer": self._optimizer_way()}
        layouts = ["channels_first", "channels_last"]
        if not isinstance(self.workload, ConvNet):
            layouts = [""]
        if not isinstance(self.workload, ConvNet | Recurrent):
            self.ways["whole"] = self._whole_way()
        names = [f"{way} {layout}".strip() for way in self.ways for layout in layouts]
        self.variant = fastest({name: partial(self._try, name) for name in names}, task.variant)
        self._choose(self.variant)
        way, _, layout = self.variant.partition(" ")
        self.setup = {
            "loss": "compiled loss, fused optimizer",
            "optimizer": "compiled loss, compiled optimizer",
            "whole": "whole step compiled",
        }[way] + (f", {layout.replace('_', ' ')}" if layout else "")

    def _choose(self, name: str) -> None:
        way, _, layout = name.partition(" ")
        self._step = self.ways[way]
        if layout and layout != self.layout:
            self.layout = layout
            self.set_format(layout)

    def _try(self, name: str) -> None:
        self._choose(name)
        self.train(10 if self.workload.flops < 10**7 else 1)

    def train(self, epochs: int) -> None:
        self.train_with(self._step, epochs)

    # ---- the ways to a step ----

    def _compiled_loss(self) -> Any:
        whole = not isinstance(self.workload, Recurrent)
        return self.torch.compile(
            lambda x, y: self.loss_function(self.model(x), y), fullgraph=whole
        )

    def _loss_way(self) -> Callable[[Any, Any], Any]:
        loss_of, optimizer = self._compiled_loss(), self.optimizer

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(x, y)
            loss.backward()
            optimizer.step()
            return loss

        return step

    def _optimizer_way(self) -> Callable[[Any, Any], Any]:
        torch, optim, rate = self.torch, self.torch.optim, self.workload.rate
        loss_of = self._compiled_loss()
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        if self.workload.optimizer == "sgd":
            optimizer: Any = optim.SGD(parameters, rate)
        else:
            # The counts of steps as tensors: otherwise each step would be compiled anew.
            optimizer = optim.Adam(
                parameters, rate, betas=(BETA1, BETA2), eps=EPSILON, capturable=False
            )
        self.compiled_optimizer = optimizer
        update = torch.compile(optimizer.step)

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(x, y)
            loss.backward()
            update()
            return loss

        return step

    def _whole_way(self) -> Callable[[Any, Any], Any]:
        torch, rate = self.torch, self.workload.rate
        named = self.model.named_parameters()
        parameters = {n: p.detach() for n, p in named if p.requires_grad}
        adam = self.workload.optimizer == "adam"
        self.m = {n: torch.zeros_like(p) for n, p in parameters.items()} if adam else {}
        self.v = {n: torch.zeros_like(p) for n, p in parameters.items()} if adam else {}
        self.t = torch.zeros(())
        self.whole_state = [*self.m.values(), *self.v.values(), self.t]
        call, loss_function = torch.func.functional_call, self.loss_function
        model, m, v, t = self.model, self.m, self.v, self.t

        def loss_of(parameters: Any, x: Any, y: Any) -> Any:
            return loss_function(call(model, parameters, (x,)), y)

        @torch.compile(fullgraph=True)
        def step(x: Any, y: Any) -> Any:
            gradients, loss = torch.func.grad_and_value(loss_of)(parameters, x, y)
            if adam:
                t.add_(1)
                root = (1 - BETA2**t).sqrt()
                factor, epsilon = rate * root / (1 - BETA1**t), EPSILON * root
            for name, g in gradients.items():
                w = parameters[name]
                if adam:
                    m[name].lerp_(g, 1 - BETA1)
                    v[name].mul_(BETA2).add_((1 - BETA2) * g * g)
                    w.sub_(factor * m[name] / (v[name].sqrt() + epsilon))
                else:
                    w.sub_(rate * g)
            return loss

        def without_gradients(x: Any, y: Any) -> Any:
            with torch.no_grad():
                return step(x, y)

        return without_gradients

    def reset(self) -> None:
        super().reset()
        with self.torch.no_grad():
            for tensor in self.whole_state:
                tensor.zero_()
            for memory in self.compiled_optimizer.state.values():
                for value in memory.values():
                    if value is not None:
                        value.zero_()

    # ---- prediction ----

    def _choose_forward(self) -> None:
        torch, rows = self.torch, [x for x, _ in self.batches]
        self.model.eval()
        self.ways = {
            "default": torch.compile(self.model, fullgraph=True),
            "cpp_wrapper": torch.compile(
                self.model, fullgraph=True, options={"cpp_wrapper": True, "freezing": True}
            ),
        }

        def run(way: Callable[[Any], Any]) -> None:
            with torch.inference_mode():
                for _ in range(20):
                    for row in rows:
                        way(row)

        calls = {name: partial(run, way) for name, way in self.ways.items()}
        self.variant = fastest(calls, self.task.variant)
        self.setup = f"compiled ({self.variant}), inference mode"

    def forward(self) -> Callable[[Any], Any]:
        return self.ways[self.variant]


def load() -> tuple[Callable[[Task], Peer], dict[str, str]]:
    """Return what makes the peer, and the versions."""
    return TorchCompile, versions()


if __name__ == "__main__":
    serve(load)
