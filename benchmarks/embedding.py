"""Microseconds of a training step on a large embedding, as a Markdown table.

256 samples of 8 indices look up rows of 64 numbers in a table of 100,000, on one thread; their mean
is fitted to a target. Of pyframe the step by the rows used and the one by the whole table, of
PyTorch (if it is installed) `torch.nn.Embedding(sparse=True)` and `EmbeddingBag`. Medians over
batches that differ; each in turn takes some steps, of which the first ones, in which it gets its
memory back into the caches, do not count.

    python benchmarks/embedding.py [--rows 100000] [--rounds 10]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import pyframe as pf
from pyframe.engine.fusion import FUSIONS

UNITS, SAMPLES, INDICES = 64, 256, 8
OPTIMIZERS = ("SGD", "Adagrad")
RATE = 0.1
BLOCK, UNTIMED = 20, 5  # steps of one in a row, and how many of them are not timed

Step = Callable[[Any, Any], Any]


def our_step(rows: int, optimizer: str, fuse: Any) -> Step:
    x = pf.Placeholder("x", shape=(None, INDICES), dtype="int64")
    y = pf.Placeholder("y", shape=(None, UNITS))
    table = pf.Parameter(np.random.default_rng(0).normal(size=(rows, UNITS)), name="table")
    cost = pf.L2Loss(y, pf.Mean(pf.Embedding(x, table), axis=1))
    plan = pf.compile(cost, getattr(pf.optimizers, optimizer)(RATE), fuse=fuse)
    return lambda indices, target: plan.step({x: indices, y: target})


def their_step(rows: int, optimizer: str, bag: bool) -> Step:
    import torch

    torch.set_num_threads(1)
    kind: Any = torch.nn.EmbeddingBag if bag else torch.nn.Embedding
    table = kind(rows, UNITS, sparse=True)
    descent = getattr(torch.optim, optimizer)(table.parameters(), lr=RATE)

    def step(indices: Any, target: Any) -> Any:
        descent.zero_grad()
        y = table(torch.from_numpy(indices))
        loss = ((y if bag else y.mean(1)) - torch.from_numpy(target)).square().mean()
        loss.backward()
        descent.step()
        return loss.item()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    pf.set_num_threads(1)
    columns: dict[str, Callable[[str], Step]] = {
        "rows used": lambda name: our_step(given.rows, name, True),
        "whole table": lambda name: our_step(given.rows, name, frozenset(FUSIONS) - {"rows"}),
    }
    try:
        import torch  # noqa: F401
    except ImportError:
        pass
    else:
        columns["PyTorch, Embedding"] = lambda name: their_step(given.rows, name, False)
        columns["PyTorch, EmbeddingBag"] = lambda name: their_step(given.rows, name, True)
    rng = np.random.default_rng(1)
    shape = (given.rounds * BLOCK, SAMPLES, INDICES)
    batches = rng.integers(0, given.rows, shape)
    targets = rng.normal(size=(SAMPLES, UNITS)).astype(np.float32)
    print("| optimizer |", " | ".join(columns), "|")
    print("| --- |", " | ".join("---:" for _ in columns), "|")
    for name in OPTIMIZERS:
        steps = [make(name) for make in columns.values()]
        times: list[list[float]] = [[] for _ in steps]
        for start in range(0, len(batches), BLOCK):
            for step, seconds in zip(steps, times, strict=True):
                for i, batch in enumerate(batches[start : start + BLOCK]):
                    begin = time.perf_counter()
                    step(batch, targets)
                    if i >= UNTIMED:
                        seconds.append(time.perf_counter() - begin)
        print(f"| {name} |", " | ".join(f"{1e6 * statistics.median(t):.0f}" for t in times), "|")


if __name__ == "__main__":
    main()
