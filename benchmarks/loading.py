"""Training on more data than memory: speed and memory on a memmap, beside the same from memory.

    python benchmarks/loading.py [--gigabytes 20] [--steps 400] [--rounds 7] [--threads 1]
                                 [--touch 4] [--folder DIR]

The file is sparse: it has its size, and takes no room on the disk. Each way trains for so many
steps of a shuffled epoch, in turns, in one process; the ratio is that of the medians. The memory is
RssAnon of /proc/self/status at its highest, asked for every 20 ms: what the process has allocated,
without the pages of the file that the system keeps in memory and gives back when it needs them.

A virtual machine may get memory from its host only when it is used for the first time, at 5 us a
page, which a longer training does once. So before each way another process uses so many gigabytes
and gives them back, which the pages of the file then come to lie in.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import pyframe as pf

FEATURES, BATCH = 784, 128


class EnoughError(Exception):
    """So many steps are done."""


def anonymous() -> int:
    """Return the bytes of anonymous memory that are resident."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))


class Highest(threading.Thread):
    """Looks how much memory there is at most."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.done = 0, threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.02):
            self.most = max(self.most, anonymous())


def seconds(steps: int, seed: int, *data: Any, **options: Any) -> float:
    """Return how long some steps take, from the first one on."""
    model = pf.Sequential(
        [pf.layers.Dense(256, "relu"), pf.layers.Dense(128, "relu"), pf.layers.Dense(10)],
        input_shape=(FEATURES,),
    )
    trainer = pf.Trainer(model, "cross_entropy", pf.optimizers.Adam(1e-3))
    began: list[float] = []

    def look(trainer: Any, step: int, logs: Any) -> None:
        if not began:
            began.append(time.perf_counter())
        if step > steps:
            raise EnoughError

    watch = pf.callbacks.LambdaCallback(on_batch_end=look)
    with suppress(EnoughError):
        trainer.fit(*data, epochs=100, seed=seed, callbacks=[watch], verbose=0, **options)
    return time.perf_counter() - began[0]


def touch(size: int) -> None:
    """Have the machine use so many bytes once."""
    subprocess.run([sys.executable, "-c", f"b'x' * {size}"], check=True)


def ways_of(steps: int, mapped: Any, small: Any) -> dict[str, Callable[[int], float]]:
    """Return ways to train, each from a seed to the seconds that it takes."""
    return {
        "memory": lambda r: seconds(steps, r, *small, batch_size=BATCH),
        "memmap": lambda r: seconds(steps, r, *mapped, batch_size=BATCH),
        "Loader": lambda r: seconds(steps, r, pf.data.Loader(mapped, BATCH, shuffle=True, seed=r)),
    }


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=20)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--touch", type=float, default=4)
    parser.add_argument("--folder", default=None)
    given = parser.parse_args()
    pf.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for dtype in ("float32", "uint8"):
            rows = int(given.gigabytes * 1e9) // (FEATURES * np.dtype(dtype).itemsize)
            path = Path(folder) / dtype
            x = np.memmap(path, dtype, "w+", shape=(rows, FEATURES))
            y = np.memmap(Path(folder) / f"y_{dtype}", np.int64, "w+", shape=(rows,))
            small = np.zeros((10_000, FEATURES), np.float32), np.zeros(10_000, np.int64)
            ways = ways_of(given.steps, (x, y), small)
            times: dict[str, list[float]] = {name: [] for name in ways}
            before, highest = anonymous(), Highest()
            highest.start()
            for number in range(given.rounds):
                for place, (name, way) in enumerate(ways.items()):  # with other rows each
                    touch(int(given.touch * 1e9))
                    times[name].append(way(3 * number + place))
            highest.done.set()
            highest.join()
            size = path.stat().st_size
            print(f"{dtype}: {rows:,} rows, {size / 1e9:.1f} GB, batches of {BATCH}")
            base = statistics.median(times["memory"])
            for name, some in times.items():
                middle = statistics.median(some)
                print(
                    f"  {name:8} {middle / given.steps * 1e3:7.3f} ms a step {base / middle:6.1%}"
                )
            print(
                f"  anonymous memory: {before / 1e6:.0f} MB before, {highest.most / 1e6:.0f} MB at "
                "its highest, with 31 MB of rows to compare with"
            )
            del x, y, ways


if __name__ == "__main__":
    main()
