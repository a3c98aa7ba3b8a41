"""Nanoseconds an element of element-wise kernels in L2 and memory, as a Markdown table.

Each figure is the fastest of many rounds in CPU time of the thread; beside it stands what a copy
of as many bytes takes, measured in the same round.

    python benchmarks/elementwise.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from pyframe.native import core
from pyframe.plugins import registry

SIZES = {"L2": 2**16, "memory": 2**24}  # below, the call from Python costs more than it does
KERNELS = [
    "relu",
    "leaky_relu",
    "sigmoid",
    "tanh",
    "softplus",
    "silu",
    "gelu",
    "elu",
    "exp",
    "log",
    "sqrt",
    "square",
    "relu_grad",
    "sigmoid_grad",
    "tanh_grad",
    "silu_grad",
    "gelu_grad",
    "elu_grad",
    "add",
    "mul",
    "div",
    "maximum",
]


def seconds(work: Callable[[], object], rounds: int) -> float:
    """Return the fastest of a number of rounds."""
    best = float("inf")
    for _ in range(rounds):
        start = time.thread_time()
        work()
        best = min(best, time.thread_time() - start)
    return best


def nanoseconds(name: str, n: int) -> tuple[float, float]:
    """Return what an element of a kernel takes, and what copying as many bytes does."""
    op = registry.ops.get(name)
    count = 2 if name.endswith("_grad") or name in ("add", "mul", "div", "maximum") else 1
    rng = np.random.default_rng(0)
    inputs = [rng.uniform(0.1, 2, n).astype(np.float32) for _ in range(count)]
    y = np.empty(n, np.float32)
    half = np.ones((2, n * (count + 1) // 2), np.float32)
    attributes = {"slope": 0.01, "alpha": 1.0, "approximate": "none"}
    node = op(*inputs, **{k: attributes[k] for k in op.attributes})
    block = node.pack_attributes([])

    def call(arrays: list[np.ndarray], out: np.ndarray) -> None:
        core.call_kernel(op.kernel, 32, arrays, [out], attributes=block)

    # What a call from Python costs is taken off: that of one element.
    overhead = seconds(lambda: call([a[:1] for a in inputs], y[:1]), 200)
    rounds = max(5, min(300, 2**22 // n))
    took = seconds(lambda: call(inputs, y), rounds) - overhead
    copied = seconds(lambda: np.copyto(half[0], half[1]), rounds)
    return 1e9 * max(took, 0) / n, 1e9 * copied / n


def main() -> None:
    """Print the table."""
    print(f"float32, {core.instruction_set()}; ns an element\n")
    columns = [head for size in SIZES for head in (size, "copy")]
    print("| kernel | " + " | ".join(columns) + " |\n| --- |" + " --- |" * len(columns))
    for name in KERNELS:
        cells = [f"{ns:.2f}" for n in SIZES.values() for ns in nanoseconds(name, n)]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
