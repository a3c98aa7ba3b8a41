"""The GPT of `examples/char_gpt.py` beside the same one in PyTorch: losses, and seconds.

Both have the same shape, the same first weights, the same batches in the same order, and Adam. What
counts is the loss on all of the text that is kept back, and the seconds of the training steps
alone, without validation and without what the first step compiles.

    python benchmarks/gpt_training.py [--steps 600] [--seeds 3] [--threads 1] [--compiled]
    PYTHONPATH=/path/to/site-packages python benchmarks/gpt_training.py   # where PyTorch is
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "examples")]

import char_gpt as example  # noqa: E402  of the examples
from peers.pyframe_peer import pair_of  # noqa: E402
from peers.torch_sequences import gpt as torch_gpt  # noqa: E402
from sequences import WORKLOADS  # noqa: E402

import pyframe as pf  # noqa: E402

Pair = tuple[np.ndarray, np.ndarray]  # tokens and targets
Step = Callable[[Any, Any], float]


def windows(of: np.ndarray) -> list[Pair]:
    """Return a text as batches of stretches that do not overlap."""
    count = (len(of) - 1) // example.CONTEXT
    at = np.arange(count)[:, None] * example.CONTEXT + np.arange(example.CONTEXT + 1)
    return [(of[rows][:, :-1], of[rows][:, 1:]) for rows in np.array_split(at, -(-count // 64))]


def mean_loss(loss_of: Step, batches: Iterable[Pair]) -> float:
    """Return the mean loss of a character over batches."""
    losses, sizes = zip(*[(loss_of(x, y), x.size) for x, y in batches], strict=True)
    return float(np.average(losses, weights=sizes))


def ours(model: pf.Model) -> tuple[Step, Step]:
    """Return a training step, and the loss of a batch."""
    x, y = model.inputs[0], pf.Placeholder("y", shape=(None, example.CONTEXT), dtype="int64")
    cost = pf.CrossEntropy(y, model.outputs[0])
    plan = pf.compile(cost, optimizer=pf.optimizers.Adam(example.RATE))
    return (
        lambda a, b: float(plan.step({x: a, y: b})),
        lambda a, b: float(plan.run({x: a, y: b}, outputs=cost)),
    )


def weights_of(model: pf.Model) -> list[list[Any]]:
    """Return weight and bias of each layer, in the order that the module of PyTorch has."""
    table, *blocks, norm, head = model.layers
    found = [[table.weight]]
    for b in blocks:
        parts = (b.first_norm, b.self_attention.projection, b.self_attention.merge, b.last_norm)
        found += [pair_of(part) for part in (*parts, b.widen, b.narrow)]
    return [*found, pair_of(norm), pair_of(head)]


def of_torch(model: pf.Model, vocabulary: int, *, compiled: bool) -> tuple[Step, Step]:
    """Return the same of PyTorch, with the weights that the model has now."""
    import torch

    shape = {"tokens": example.CONTEXT, "vocabulary": vocabulary, "units": example.UNITS}
    shape |= {"heads": example.HEADS, "blocks": example.BLOCKS}
    net, layers = torch_gpt(torch, replace(WORKLOADS["transformer"], **shape), rotary=True)
    with torch.no_grad():
        for layer, (weight, *bias) in zip(layers, weights_of(model), strict=True):
            layer.weight.copy_(torch.from_numpy(weight.value.T.copy()))
            if bias:
                layer.bias.copy_(torch.from_numpy(bias[0].value.copy()))
    adam = torch.optim.Adam(net.parameters(), example.RATE, fused=True)

    def loss(x: Any, y: Any) -> Any:
        return torch.nn.functional.cross_entropy(net(x).flatten(0, 1), y.flatten())

    loss_of = torch.compile(loss) if compiled else loss

    def step(x: Any, y: Any) -> float:
        adam.zero_grad(set_to_none=True)
        cost = loss_of(torch.from_numpy(x), torch.from_numpy(y))
        cost.backward()
        adam.step()
        return float(cost.detach())

    def check(x: Any, y: Any) -> float:
        with torch.no_grad():
            return float(loss(torch.from_numpy(x), torch.from_numpy(y)))

    return step, check


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compiled", action="store_true", help="measure torch.compile as well")
    given = parser.parse_args()
    import torch

    torch.set_num_threads(given.threads)
    pf.set_num_threads(given.threads)
    tokenizer, learned, kept = example.read()
    held_out = windows(kept)
    print("| seed | | loss, text kept back | beside pyframe's | seconds | beside pyframe's |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for seed in range(given.seeds):
        rng = np.random.default_rng(seed)
        batches = [example.batch(learned, example.BATCH, rng) for _ in range(given.steps)]
        pf.set_seed(seed)
        model = example.gpt(len(tokenizer))
        makers = {"PyTorch": of_torch(model, len(tokenizer), compiled=False)}
        if given.compiled:
            makers["PyTorch, compiled"] = of_torch(model, len(tokenizer), compiled=True)
        makers = {"pyframe": ours(model), **makers}
        seconds: dict[str, float] = dict.fromkeys(makers, 0.0)
        for i, (x, y) in enumerate(batches):  # in turn, so that others on the machine hit all alike
            for name, (step, _) in makers.items():
                begin = time.perf_counter()
                step(x, y)
                seconds[name] += time.perf_counter() - begin if i else 0.0
        losses = {name: mean_loss(check, held_out) for name, (_, check) in makers.items()}
        for name, loss in losses.items():
            beside = loss / losses["pyframe"] - 1, seconds[name] / seconds["pyframe"]
            print(
                f"| {seed} | {name} | {loss:.4f} | {beside[0]:+.2%} | {seconds[name]:.2f} | "
                f"{beside[1]:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
