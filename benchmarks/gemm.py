"""The core's matrix product against NumPy's, on shapes as they occur in training and around them.

    python benchmarks/gemm.py [--dtype float64] [--rounds 15] [--isa avx2] [--json FILE] [--only NT]

Both run in this process, on one thread, on the same arrays, in turns; what packing there is counts.
The time is that of this thread's processor; each figure is the median over the rounds. The peak is
that of a core: multiply-adds of independent vectors in registers, as `pyframe bench` measures it.
NumPy's figures contain its call from Python (about half a microsecond), as any use of it does.
"""

# ruff: noqa: E402  (the libraries read these variables when they are imported)
from __future__ import annotations

import os
import sys

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYFRAME_NUM_THREADS"):
    os.environ[_name] = "1"
for _name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(_name, None)
# NumPy's products are held to AVX2 where ours are.
if any(_word in ("avx2", "--isa=avx2") for _word in sys.argv):
    os.environ["OPENBLAS_CORETYPE"] = "Haswell"

import argparse
import datetime
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pyframe import __version__
from pyframe.engine.profiler import doubts, machine_peaks
from pyframe.native import core
from pyframe.native.core import Product

NN, NT, TN = (False, False), (False, True), (True, False)
NAMES = {NN: "NN", NT: "NT", TN: "TN"}

# (group, transposes, m, n, k, batch)
SQUARES = [16, 32, 48, 64, 97, 128, 256, 512, 1024]
GRID: list[tuple[str, tuple[bool, bool], int, int, int, int]] = [
    *(("square", t, n, n, n, 1) for n in SQUARES for t in (NN, NT, TN)),
    ("tabular", NN, 32, 64, 13, 1),
    ("tabular", NN, 32, 64, 64, 1),
    ("tabular", NN, 32, 1, 64, 1),
    ("tabular", NT, 32, 64, 1, 1),
    ("tabular", NT, 32, 64, 64, 1),
    ("tabular", NT, 32, 13, 64, 1),
    ("tabular", TN, 64, 1, 32, 1),
    ("tabular", TN, 64, 64, 32, 1),
    ("tabular", TN, 13, 64, 32, 1),
    ("mnist_mlp", NN, 128, 256, 784, 1),
    ("mnist_mlp", NN, 128, 128, 256, 1),
    ("mnist_mlp", NN, 128, 10, 128, 1),
    ("mnist_mlp", NT, 128, 128, 10, 1),
    ("mnist_mlp", NT, 128, 256, 128, 1),
    ("mnist_mlp", TN, 128, 10, 128, 1),
    ("mnist_mlp", TN, 256, 128, 128, 1),
    ("mnist_mlp", TN, 784, 256, 128, 1),
    ("wide_mlp", NN, 256, 4096, 1024, 1),
    ("wide_mlp", NN, 256, 1024, 4096, 1),
    ("wide_mlp", NT, 256, 4096, 1024, 1),
    ("wide_mlp", NT, 256, 1024, 4096, 1),
    ("wide_mlp", TN, 4096, 1024, 256, 1),
    ("wide_mlp", TN, 1024, 4096, 256, 1),
    ("one row", NN, 1, 64, 13, 1),
    ("one row", NN, 1, 64, 64, 1),
    ("one row", NN, 1, 1, 64, 1),
    ("one row", NN, 1, 512, 512, 1),
    ("one row", NT, 1, 512, 512, 1),
    ("lesson", NN, 506, 1, 13, 1),
    ("lesson", NT, 506, 13, 1, 1),
    ("lesson", TN, 13, 1, 506, 1),
    ("few", NN, 200, 32, 4, 1),
    ("few", NT, 200, 16, 4, 1),
    ("few", TN, 16, 4, 200, 1),
    ("few", TN, 32, 16, 200, 1),
    ("few", TN, 512, 10, 512, 1),
    ("few", TN, 512, 10, 65536, 1),
    ("tall", NN, 4096, 64, 64, 1),
    ("tall", NN, 4096, 8, 512, 1),
    ("tall", NT, 4096, 64, 64, 1),
    ("tall", NN, 10000, 16, 16, 1),
    ("tall", NN, 2048, 2, 100, 1),
    ("flat", NN, 8, 4096, 64, 1),
    ("flat", NN, 8, 512, 2048, 1),
    ("flat", NT, 8, 512, 2048, 1),
    ("flat", TN, 64, 64, 4096, 1),
    ("flat", TN, 8, 8, 4096, 1),
    ("flat", NN, 3, 64, 64, 1),
    ("primes", NN, 97, 101, 103, 1),
    ("primes", NT, 97, 101, 103, 1),
    ("primes", TN, 97, 101, 103, 1),
    ("primes", NN, 251, 257, 263, 1),
    ("primes", NT, 251, 257, 263, 1),
    ("primes", TN, 251, 257, 263, 1),
    ("primes", NN, 509, 7, 131, 1),
    ("primes", NN, 7, 509, 131, 1),
    ("primes", NN, 31, 37, 997, 1),
    ("primes", NN, 1021, 1019, 1013, 1),
    ("batched", NN, 64, 64, 64, 16),
    ("batched", NT, 64, 64, 32, 32),
    ("batched", NN, 64, 32, 64, 32),
    ("batched", TN, 64, 32, 64, 32),
    ("batched", NN, 17, 13, 11, 64),
]


class Result(NamedTuple):
    """One row of the table; seconds for one product, all of its batch."""

    group: str
    transposes: str
    m: int
    n: int
    k: int
    batch: int
    seconds: float
    numpy_seconds: float
    ratio: float
    gflops: float
    share: float


def timed(run: Callable[[int], None], repeats: int) -> float:
    """Return the seconds of one of several runs."""
    start = time.thread_time()
    run(repeats)
    return (time.thread_time() - start) / repeats


def repeats_for(run: Callable[[int], None], least: float = 1e-3) -> int:
    """Return how often to run something for a round to take long enough for the clock."""
    repeats = 1
    while (seconds := timed(run, repeats) * repeats) < least / 4:
        repeats *= 4
    return max(1, round(repeats * least / seconds))


def measure(
    case: tuple[str, tuple[bool, bool], int, int, int, int],
    dtype: str,
    rounds: int,
    isa: str | None,
    most: float,
) -> Result:
    """Compare the two on one shape."""
    group, (ta, tb), m, n, k, batch = case
    rng = np.random.default_rng(0)
    a = rng.standard_normal((batch, *((k, m) if ta else (m, k)))).astype(dtype)
    b = rng.standard_normal((batch, *((n, k) if tb else (k, n)))).astype(dtype)
    ours, theirs = np.empty((batch, m, n), dtype), np.empty((batch, m, n), dtype)
    products = [
        Product(a[i], b[i], ours[i], transpose_a=ta, transpose_b=tb, isa=isa) for i in range(batch)
    ]
    left, right, out = a.swapaxes(1, 2) if ta else a, b.swapaxes(1, 2) if tb else b, theirs
    if batch == 1:
        left, right, out = left[0], right[0], out[0]

    def pyframe_run(repeats: int) -> None:
        Product.repeat(products, repeats)

    def numpy_run(repeats: int) -> None:
        for _ in range(repeats):
            np.matmul(left, right, out=out)

    pyframe_run(1)
    numpy_run(1)
    assert np.allclose(ours, theirs, rtol=1e-3, atol=1e-3 * k**0.5), case
    runs = pyframe_run, numpy_run
    repeats = [repeats_for(run) for run in runs]
    times = [[timed(run, r) for run, r in zip(runs, repeats, strict=True)] for _ in range(rounds)]
    seconds, numpy_seconds = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(other / own for own, other in times)
    flops = 2 * m * n * k * batch / seconds
    share = flops / most
    name = NAMES[ta, tb]
    return Result(group, name, m, n, k, batch, seconds, numpy_seconds, ratio, flops / 1e9, share)


def table(results: list[Result]) -> str:
    """Return the results as a table in Markdown."""
    lines = [
        "| | | m x n x k | µs | GFLOP/s | of the peak | NumPy µs | NumPy / ours |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for r in results:
        shape = f"{r.m} x {r.n} x {r.k}" + (f", {r.batch} of them" if r.batch > 1 else "")
        share = f"{r.share:.0%}"
        own, other = 1e6 * r.seconds, 1e6 * r.numpy_seconds
        lines.append(
            f"| {r.group} | {r.transposes} | {shape} | {own:.4g} | {r.gflops:.1f} | {share} | "
            f"{other:.4g} | {r.ratio:.2f} |"
        )
    return "\n".join(lines)


def processor() -> str:
    """Return the name of the processor."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    names = [line.split(":")[1].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--isa", choices=core.instruction_sets())
    parser.add_argument("--only", default="", help="a word of the rows wanted: a group, NN, NT, TN")
    parser.add_argument("--json", type=Path, help="write the results there, too")
    options = parser.parse_args()
    peaks = machine_peaks(0.5, options.isa)
    most = peaks.flops[options.dtype]
    results = [
        measure(case, options.dtype, options.rounds, options.isa, most)
        for case in GRID
        if options.only in (*case, NAMES[case[1]], "")
    ]
    about: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "pyframe": __version__,
        "numpy": np.__version__,
        "dtype": options.dtype,
        "instruction set": options.isa or core.instruction_set(),
        "peak GFLOP/s": round(most / 1e9, 1),
        "shapes": len(results),
        "behind NumPy": [f"{r.transposes} {r.m} x {r.n} x {r.k}" for r in results if r.ratio < 1],
        "median ratio": round(statistics.median(r.ratio for r in results), 2),
    }
    print("\n".join(f"{key}: {value}" for key, value in about.items()), "", sep="\n")
    print(table(results))
    shares = [(f"{r.transposes} {r.m} x {r.n} x {r.k}", r.share) for r in results]
    print(*doubts(peaks.agreement, shares), sep="\n")
    if options.json:
        rows = [r._asdict() for r in results]
        options.json.write_text(json.dumps({**about, "results": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
