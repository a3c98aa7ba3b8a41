"""What several ranks bring, and what more of them would.

    mpiexec -n 2 python benchmarks/scaling.py [--workloads cifar_cnn wide_mlp] [--threads 1]

Measured, in turns: a step of one rank on the whole batch while the others sleep; a step of all
ranks; a step of each on its part without the others; and the reduction of the gradients, by a bare
Allreduce of as many bytes and through pyframe. From messages between two ranks come latency and
bandwidth, and from these, by the formulas in docs/scaling.md, steps of up to 4,096 ranks. With
``--latency`` and ``--bandwidth`` that is for another network than this one.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

RANKS = [2**i for i in range(1, 13)]


class Network(NamedTuple):
    """What messages cost: seconds for any, bytes a second, seconds to add a byte to another."""

    latency: float
    bandwidth: float
    adding: float


def ring(ranks: int, size: int, network: Network) -> float:
    """Return the seconds of an all-reduce in a ring: each part goes around twice."""
    part = size / ranks
    there = network.latency + part / network.bandwidth + part * network.adding
    back = network.latency + part / network.bandwidth
    return (ranks - 1) * (there + back)


def tree(ranks: int, size: int, network: Network) -> float:
    """Return the seconds of an all-reduce up a binary tree and down again."""
    up = network.latency + size / network.bandwidth + size * network.adding
    down = network.latency + size / network.bandwidth
    return math.ceil(math.log2(ranks)) * (up + down)


def reduction(ranks: int, size: int, network: Network) -> float:
    """Return the seconds of the better one; both reductions of a step: few numbers, gradients."""
    return sum(
        min(ring(ranks, n, network), tree(ranks, n, network)) for n in (64, size) if ranks > 1
    )


def predicted(
    ranks: int, compute: Callable[[float], float], size: int, network: Network
) -> tuple[float, float]:
    """Return the seconds of a step, and how many times one rank's step that is.

    Parameters
    ----------
    ranks : int
    compute : callable
        From the share of the batch to the seconds of a step on it without others.
    size : int
        Bytes of gradients.
    network : Network
    """
    step = compute(1 / ranks) + reduction(ranks, size, network)
    return step, compute(1.0) / step


def sleep_until(comm: Any) -> None:
    """Wait for the other ranks, and leave the processor to them."""
    request = comm.Ibarrier()
    while not request.Test():
        time.sleep(1e-3)


def median_of(rounds: int, work: Callable[[], float]) -> float:
    """Return the median of some measurements."""
    return statistics.median(work() for _ in range(rounds))


def network_of(comm: Any) -> Network:
    """Return what messages between ranks 0 and 1 cost."""
    times = {}
    for size, repeats in ((8, 2000), (1 << 22, 20)):
        data = np.zeros(size, np.uint8)
        best = math.inf
        for _ in range(5):
            comm.Barrier()
            start = time.perf_counter()
            for _ in range(repeats):
                if comm.rank == 0:
                    comm.Send(data, 1)
                    comm.Recv(data, 1)
                elif comm.rank == 1:
                    comm.Recv(data, 0)
                    comm.Send(data, 0)
            best = min(best, (time.perf_counter() - start) / (2 * repeats))
        times[size] = best
    one, other = np.zeros(1 << 20, np.float32), np.zeros(1 << 20, np.float32)
    start = time.perf_counter()
    for _ in range(20):
        one += other
    adding = (time.perf_counter() - start) / 20 / one.nbytes
    latency = times[8]
    bandwidth = (1 << 22) / max(times[1 << 22] - latency, 1e-9)
    found = Network(latency, bandwidth, adding)
    return comm.bcast(found)


def main() -> None:
    """Measure and print."""
    import mpi4py.MPI
    from pyframe_mpi import MPI

    import pyframe as pf
    from pyframe.commands import bench
    from pyframe.commands.workloads import WORKLOADS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workloads", nargs="+", default=["cifar_cnn", "wide_mlp", "mnist_mlp"])
    parser.add_argument("--threads", type=int, default=1, help="of each rank")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--latency", type=float, help="microseconds, of another network")
    parser.add_argument("--bandwidth", type=float, help="gigabits a second, of another network")
    given = parser.parse_args()

    mpi = mpi4py.MPI
    ranks, comm = MPI(timeout=600), mpi.COMM_WORLD
    pf.set_num_threads(given.threads)
    if ranks.size < 2:
        parser.error("begin it on 2 ranks or more: mpiexec -n 2 python benchmarks/scaling.py")
    here = network_of(comm)
    network = here._replace(
        **({} if given.latency is None else {"latency": given.latency * 1e-6}),
        **({} if given.bandwidth is None else {"bandwidth": given.bandwidth * 1e9 / 8}),
    )

    def say(text: str) -> None:
        if ranks.rank == 0:
            print(text, flush=True)

    say(
        f"{ranks.size} ranks of {given.threads} threads; between two of them "
        f"{here.latency * 1e6:.1f} us and {here.bandwidth / 1e9:.2f} GB/s, and adding takes "
        f"{here.adding * 1e9:.2f} ns a byte"
    )
    for name in given.workloads:
        workload = WORKLOADS[name]
        if not bench.is_there(workload):
            say(f"{name}: its plugin is not installed")
            continue
        x, y = workload.data()

        def trainer(communicator: Any, workload: Any = workload) -> Any:
            model = bench.build_model(workload)
            made = bench.build_trainer(workload, model)
            return pf.Trainer(
                model, loss=workload.loss, optimizer=made.optimizer, communicator=communicator
            )

        def step(made: Any, batch: int, x: Any = x, y: Any = y) -> float:
            """Return the seconds of a step on batches of some rows."""
            rows = batch * max(len(x) // batch, 1)
            start = time.perf_counter()
            made.fit(x[:rows], y[:rows], 1, batch, shuffle=False, verbose=0)
            once = time.perf_counter() - start
            epochs = max(made.communicator.broadcast(int(given.seconds / once)), 1)
            start = time.perf_counter()
            made.fit(x[:rows], y[:rows], epochs, batch, shuffle=False, verbose=0)
            return (time.perf_counter() - start) / (epochs * (rows // batch))

        alone, together, apart = trainer(None), trainer(ranks), trainer(None)
        part = max(workload.batch // ranks.size, 1)
        found: dict[str, list[float]] = {"alone": [], "together": [], "apart": []}
        for _ in range(given.rounds):
            if ranks.rank == 0:
                found["alone"].append(step(alone, workload.batch))
            sleep_until(comm)
            found["together"].append(step(together, workload.batch))
            sleep_until(comm)
            found["apart"].append(step(apart, part))
            sleep_until(comm)
        medians = {k: statistics.median(v) if v else 0.0 for k, v in found.items()}
        apart_of_all = comm.allreduce(medians["apart"], mpi.MAX)

        buffer = np.zeros(sum(p.size for p in together.model.parameters), np.float32)

        def time_of(reduce: Callable[[Any], Any], buffer: Any = buffer) -> float:
            comm.Barrier()
            start = time.perf_counter()
            for _ in range(10):
                reduce(buffer)
            return (time.perf_counter() - start) / 10

        bare = median_of(9, lambda: time_of(lambda b: comm.Allreduce(mpi.IN_PLACE, b)))
        ours = median_of(9, lambda: time_of(ranks.all_reduce))
        if ranks.rank:
            continue
        speedup = medians["alone"] / medians["together"]
        say(
            f"\n{workload.title}\n"
            f"  one rank {medians['alone'] * 1e3:.2f} ms, {ranks.size} ranks "
            f"{medians['together'] * 1e3:.2f} ms: {speedup:.2f} times; a part by itself "
            f"{apart_of_all * 1e3:.2f} ms\n"
            f"  reduction of {buffer.nbytes:,} bytes: bare {bare * 1e6:.0f} us, pyframe "
            f"{ours * 1e6:.0f} us ({bare / ours:.0%})"
        )
        # The step on a part of the batch: what does not depend on the rows, and what each takes.
        share = part / workload.batch
        slope = (medians["alone"] - apart_of_all) / (1 - share)
        fixed = max(medians["alone"] - slope, 0.0)

        def compute(part: float, fixed: float = fixed, slope: float = slope) -> float:
            return fixed + slope * part

        say("   ranks   step, ms   times   efficiency")
        for count in RANKS:
            if count > workload.batch:
                break
            seconds, times = predicted(count, compute, buffer.nbytes, network)
            say(f"  {count:6,}  {seconds * 1e3:9.3f}  {times:6.2f}   {times / count:6.1%}")
        say("  with as many rows a rank as the whole batch has now:")
        for count in RANKS:
            seconds = compute(1.0) + reduction(count, buffer.nbytes, network)
            times = count * compute(1.0) / seconds
            say(f"  {count:6,}  {seconds * 1e3:9.3f}  {times:6.2f}   {times / count:6.1%}")


if __name__ == "__main__":
    main()
