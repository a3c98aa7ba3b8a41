"""Microseconds of an update of 10^6 parameters on one thread, as a Markdown table.

The update alone is timed, with gradients at hand: of a plan its own instructions, of PyTorch (if it
is installed) the faster of its foreach and its fused `step()`. NumPy is the formula, a line a
statement, into arrays that are there. The bound is what a plain pass takes that moves as many bytes
as the update has to, over as much memory. Medians, all measured in turn.

    python benchmarks/optimizers.py [--rounds 15] [--dtype float64]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import pyframe as pf
from pyframe.native import core

COUNT = 10**6
LAYER = (1000, 1000)  # of the layerwise ones

# Optimizer: its options, PyTorch's name and options, and how many arrays it reads and writes.
OPTIMIZERS: dict[str, tuple[Any, str, dict[str, Any], int, int]] = {
    "SGD": (pf.optimizers.SGD(1e-3), "SGD", {}, 2, 1),
    "SGD, momentum": (
        pf.optimizers.SGD(1e-3, momentum=0.9),
        "SGD",
        {"momentum": 0.9},
        3,
        2,
    ),
    "Adam": (pf.optimizers.Adam(1e-3), "Adam", {}, 4, 3),
    "Adam, AMSGrad": (pf.optimizers.Adam(1e-3, amsgrad=True), "Adam", {"amsgrad": True}, 5, 4),
    "AdamW": (pf.optimizers.AdamW(1e-3), "AdamW", {}, 4, 3),
    "NAdam": (pf.optimizers.NAdam(1e-3), "NAdam", {}, 4, 3),
    "RAdam": (pf.optimizers.RAdam(1e-3), "RAdam", {}, 4, 3),
    "AdaMax": (pf.optimizers.AdaMax(1e-3), "Adamax", {}, 4, 3),
    "RMSProp": (pf.optimizers.RMSProp(1e-3), "RMSprop", {}, 3, 2),
    "RMSProp, centered, momentum": (
        pf.optimizers.RMSProp(1e-3, centered=True, momentum=0.9),
        "RMSprop",
        {"centered": True, "momentum": 0.9},
        5,
        4,
    ),
    "Adagrad": (pf.optimizers.Adagrad(1e-3), "Adagrad", {}, 3, 2),
    "Adadelta": (pf.optimizers.Adadelta(1e-3), "Adadelta", {}, 4, 3),
    "Rprop": (pf.optimizers.Rprop(1e-3), "Rprop", {}, 4, 3),
    "Schedule-free AdamW": (pf.optimizers.ScheduleFreeAdamW(1e-3), "", {}, 7, 4),
    # A norm, or the length of a step, is known only after a pass.
    "LARS": (pf.optimizers.LARS(1e-3), "", {}, 5, 2),
    "LAMB": (pf.optimizers.LAMB(1e-3), "", {}, 8, 4),
    "Muon": (pf.optimizers.Muon(1e-3), "Muon", {}, 3, 2),
}
WORDS = ("update", "product", "propose", "weight")  # of the kernels of an update
LAYERWISE = ("LARS", "LAMB", "Muon")


def our_update(optimizer: Any, shape: tuple[int, ...], dtype: str) -> Callable[[], float]:
    """Return what takes a step and returns the seconds of its update."""
    p = pf.Parameter(np.random.default_rng(0).normal(size=shape), name="p", dtype=dtype)
    factor = pf.Placeholder("factor", shape=(), dtype=dtype)
    plan = pf.compile(pf.Sum(p * factor), optimizer)
    plan.step({factor: 1.0})

    def seconds() -> float:
        records = plan.profile({factor: 1.0}, repeats=1)
        # The last instructions, behind those of the graph.
        return sum(r.seconds for r in records if any(word in r.kernel for word in WORDS))

    return seconds


def their_updates(
    name: str, options: dict[str, Any], shape: tuple[int, ...], dtype: str
) -> dict[str, Callable[[], float]]:
    """Return the same for PyTorch, by what is said of how it runs."""
    try:
        import torch
    except ImportError:
        return {}
    if not name:
        return {}
    torch.set_num_threads(1)
    found = {}
    for how in ("foreach", "fused"):
        start = np.random.default_rng(0).normal(size=shape)
        tensor = torch.tensor(start, dtype=getattr(torch, dtype), requires_grad=True)
        tensor.grad = torch.ones_like(tensor)
        try:
            optimizer = getattr(torch.optim, name)([tensor], lr=1e-3, **options, **{how: True})
        except (TypeError, RuntimeError):
            if how == "fused":
                continue  # there is none
            optimizer = getattr(torch.optim, name)([tensor], lr=1e-3, **options)

        def seconds(step: Callable[[], Any] = optimizer.step) -> float:
            began = time.perf_counter()
            step()
            return time.perf_counter() - began

        seconds()
        found[how] = seconds
    return found


def numpy_adam(shape: tuple[int, ...], dtype: str) -> Callable[[], float]:
    """Return Adam by hand; what else NumPy has to do is as long, for each array and operation."""
    p, m, v, a, b = (np.zeros(shape, dtype) for _ in range(5))
    g = np.ones(shape, dtype)
    one = p.dtype.type

    def seconds() -> float:
        began = time.perf_counter()
        np.subtract(g, m, out=a)
        np.multiply(a, one(0.1), out=a)
        np.add(m, a, out=m)
        np.multiply(g, g, out=a)
        np.multiply(a, one(0.001), out=a)
        np.multiply(v, one(0.999), out=v)
        np.add(v, a, out=v)
        np.sqrt(v, out=b)
        np.multiply(b, one(30.0), out=b)
        np.add(b, one(1e-8), out=b)
        np.divide(m, b, out=b)
        np.multiply(b, one(1e-2), out=b)
        np.subtract(p, b, out=p)
        return time.perf_counter() - began

    return seconds


def pass_over(arrays: int, moves: int, dtype: str) -> Callable[[], float]:
    """Return p = p / 2 + g over the memory of so many arrays, as long as `moves` of them take."""
    n = arrays * COUNT // 2
    p, g = np.zeros(n, dtype), np.zeros(n, dtype)
    peaks = core.lib.pf_find_peaks(core.lib.pf_selected_isa(), 8 * p.itemsize)

    def seconds() -> float:
        to, start = core.pointer(p), core.pointer(g)  # which keep neither array alive
        began = time.perf_counter()
        peaks.bytes(to, start, n, 1)
        return (time.perf_counter() - began) * moves / (1.5 * arrays)

    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--only", nargs="*")
    arguments = parser.parse_args()
    pf.set_num_threads(1)
    print(
        "| optimizer | pyframe | PyTorch | NumPy | best peer / pyframe | bound | bound / pyframe |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in arguments.only or OPTIMIZERS:
        optimizer, peer, options, reads, writes = OPTIMIZERS[name]
        shape = LAYER if name in LAYERWISE else (COUNT,)
        work = {
            "pyframe": our_update(optimizer, shape, arguments.dtype),
            **their_updates(peer, options, shape, arguments.dtype),
            "bound": pass_over(min(reads, 5), reads + writes, arguments.dtype),
        }
        if name == "Adam":
            work["NumPy"] = numpy_adam(shape, arguments.dtype)
        taken: dict[str, list[float]] = {key: [] for key in work}
        for _ in range(arguments.rounds):
            for key, seconds in work.items():
                taken[key].append(seconds())
        medians = {key: 1e6 * statistics.median(values) for key, values in taken.items()}
        torch = {how: medians[how] for how in ("foreach", "fused") if how in medians}
        best = min(torch, key=lambda how: torch[how]) if torch else ""
        ours, bound = medians["pyframe"], medians["bound"]
        shown = f"{torch[best]:.0f} ({best})" if best else "-"
        by_hand = f"{medians['NumPy']:.0f}" if "NumPy" in medians else "-"
        ratio = f"{torch[best] / ours:.2f}" if best else "-"
        print(
            f"| {name} | {ours:.0f} | {shown} | {by_hand} | {ratio} | {bound:.0f} "
            f"| {100 * bound / ours:.0f} % |",
            flush=True,
        )


if __name__ == "__main__":
    main()
