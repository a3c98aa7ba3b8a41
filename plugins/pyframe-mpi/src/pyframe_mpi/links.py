"""What reductions cost between these ranks, and into which buckets that divides the gradients."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

PROBE = 1 << 20  # bytes
REPEATS = 5
START = 5e-5  # seconds that it takes to leave the backward pass for a bucket and to come back
LEAST_HIDDEN = 0.2  # with less there is nothing to be had from buckets
WORTH = 4  # a bucket hides at least so many times what it costs
LEAST_BYTES = 1 << 14


class Links(NamedTuple):
    """What was measured on all ranks when they began; of each number the worst of them.

    Attributes
    ----------
    latency : float
        Seconds of a reduction of 8 bytes.
    bandwidth : float
        Bytes a second of one of 1 MB.
    hidden : float
        The share of that time, from 0 to 1, in which a rank can compute.
    """

    latency: float
    bandwidth: float
    hidden: float

    def bucket_bytes(self) -> int:
        """Return the size of the buckets that pay, 0 for one reduction of everything at the end.

        A bucket of B bytes takes B / bandwidth, of which a share is hidden behind the backward
        pass, and costs a latency and a call.
        """
        if self.hidden < LEAST_HIDDEN:
            return 0
        pays_from = WORTH * (self.latency + START) * self.bandwidth / self.hidden
        return max(int(pays_from), LEAST_BYTES)


def measure(module: Any, comm: Any, start: Callable[[Any], Callable[[], None]]) -> Links:
    """Measure reductions; all ranks do so together.

    Parameters
    ----------
    module : module
        ``mpi4py.MPI``.
    comm : mpi4py.MPI.Intracomm
    start : callable
        Begins to sum an array over all ranks, and returns what waits for it.
    """

    def seconds(array: Any, busy: float = 0.0) -> float:
        comm.Barrier()
        begin = time.perf_counter()
        wait = start(array)
        _compute(busy)
        wait()
        return time.perf_counter() - begin

    small, large = np.zeros(1), np.zeros(PROBE // 8)
    seconds(large)
    # The least of several, since what else there is to do on a machine adds to all of them.
    latency = min(seconds(small) for _ in range(REPEATS))
    whole = comm.allreduce(min(seconds(large) for _ in range(REPEATS)), module.MAX)
    beside = min(seconds(large, busy=whole) for _ in range(REPEATS))
    hidden = min(max(2 - beside / whole, 0.0), 1.0)
    worst = np.array([latency, -hidden])
    comm.Allreduce(module.IN_PLACE, worst, module.MAX)
    return Links(float(worst[0]), PROBE / whole, -float(worst[1]) + 0.0)


def _compute(seconds: float) -> None:
    """Keep the processor busy for a while, as kernels do: without Python's lock."""
    work, end = np.ones(1 << 14), time.perf_counter() + seconds
    while time.perf_counter() < end:
        np.sqrt(work, out=work)
