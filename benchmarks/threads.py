"""What sharing work out to threads costs and brings; the pool's thresholds come from here.

Compiles ``threads.c`` beside it with the C compiler of the system. Run with no arguments on an idle
machine.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import pyframe as pf
from pyframe.native import core

NOTHING, STREAM, COMPUTE = range(3)
ROUNDS = 301
AWAKE, ASLEEP = 2_000, 400_000  # nanoseconds between two regions
WORTH_IT = 1 << 40  # nanoseconds of work as told to the pool: it must use all threads
WORKING_SET = 16 << 20  # numbers

Measure = Callable[..., int]


def load(folder: str) -> Measure:
    """Return `measure` of threads.c, bound to the pool of this process."""
    library = Path(folder) / "threads.so"
    source = Path(__file__).with_suffix(".c")
    command = ["cc", "-O3", "-march=native", "-std=c11", "-shared", "-fPIC"]
    subprocess.run([*command, "-I", pf.get_include(), source, "-o", library], check=True)
    function = ctypes.CDLL(str(library)).measure
    function.restype = ctypes.c_int64
    host = ctypes.c_void_p(int(core.ffi.cast("uintptr_t", core.lib.pf_get_host())))
    numbers = np.ones(WORKING_SET, np.float32)
    address = ctypes.c_void_p(numbers.ctypes.data)

    def measure(
        kind: int, parts: int, length: int = 0, pause: int = AWAKE, told: int = WORTH_IT
    ) -> int:
        assert parts * length <= numbers.size
        arguments = (ctypes.c_int64(n) for n in (parts, length, told, pause, ROUNDS))
        return int(function(host, ctypes.c_int(kind), address, *arguments))

    return measure


def report(measure: Measure, threads: int) -> None:
    """Print what a region costs and what it brings with this many threads."""
    pf.set_num_threads(threads)
    print("empty regions, microseconds (median):")
    print(f"{'parts':>8} {'1 thread':>10} {'awake':>10} {'asleep':>10}")
    for parts in (2, 8, 64, 1024):
        alone = measure(NOTHING, parts, told=0)
        awake, asleep = measure(NOTHING, parts), measure(NOTHING, parts, pause=ASLEEP)
        print(f"{parts:>8} {alone / 1e3:>10.2f} {awake / 1e3:>10.2f} {asleep / 1e3:>10.2f}")
    cost = core.pool_report()["wake_nanoseconds"]
    print(f"from the call of a sleeping thread until it is there: {cost / 1e3:.1f} us")
    for kind, name, lengths in (
        (COMPUTE, "bound by the processor", (256, 1024, 4096, 16384, 65536)),
        (STREAM, "bound by memory", (8192, 65536, 1 << 19, 1 << 21)),
    ):
        print(f"{name}, 8 parts; speed-up with {threads} threads:")
        print(f"{'1 thread us':>12} {'awake':>10} {'asleep':>10}")
        for length in lengths:
            alone = measure(kind, 8, length, told=0)
            awake = measure(kind, 8, length)
            asleep = measure(kind, 8, length, pause=ASLEEP)
            print(f"{alone / 1e3:>12.1f} {alone / awake:>10.2f} {alone / asleep:>10.2f}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        report(load(made), int(sys.argv[1]) if len(sys.argv) > 1 else 2)
