"""What several ranks bring, and what more of them would.

    mpiexec -n 2 python benchmarks/scaling.py [--workloads cifar_cnn wide_mlp] [--threads 1]
    python -m pyframe_mpi.hosts -n 2 --rate 1gbit benchmarks/scaling.py

Measured, in turns: a step of one rank on the whole batch while the others sleep; a step of each on
its part without the others; steps of all ranks, with one reduction at the end and with buckets
beside the backward pass; and the reduction of the gradients, by a bare Allreduce of as many bytes
and through pyframe. From messages between two ranks come latency and bandwidth, and from these, by
the formulas in docs/scaling.md, steps of up to 4,096 ranks. With ``--latency`` and ``--bandwidth``
that is for another network than this one. ``--torch`` puts PyTorch's DistributedDataParallel over
gloo beside it, in the same processes (MASTER_ADDR and GLOO_SOCKET_IFNAME say where it finds the
others). ``--urgent`` is for a machine that has other work too.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

RANKS = [2**i for i in range(1, 13)]
BACKWARD = 2 / 3  # of a step


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
    ranks: int,
    compute: Callable[[float], float],
    size: int,
    network: Network,
    hidden: float = 0.0,
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
    hidden : float
        The share of a reduction in which a rank can compute: at most two thirds of a step, those of
        the backward pass, hide it.
    """
    alone = compute(1 / ranks)
    reduced = reduction(ranks, size, network)
    step = alone + max((1 - hidden) * reduced, reduced - BACKWARD * alone)
    return step, compute(1.0) / step


def sleep_until(comm: Any) -> None:
    """Wait for the other ranks, and leave the processor to them."""
    request = comm.Ibarrier()
    while not request.Test():
        time.sleep(1e-3)


@contextmanager
def urgent(wanted: bool) -> Iterator[None]:
    """Let nothing else run on the processors meanwhile, if wanted; bursts should be short.

    The threads beside the computation come before it, as a thread that has slept does elsewhere.
    """

    def set_policy(policy: int, own: int, others: int) -> None:
        for thread in map(int, os.listdir("/proc/self/task")):
            priority = own if thread == os.getpid() else others
            os.sched_setscheduler(thread, policy, os.sched_param(priority))

    if not wanted:
        yield
        return
    set_policy(os.SCHED_RR, 1, 2)
    try:
        yield
    finally:
        set_policy(os.SCHED_OTHER, 0, 0)
        time.sleep(0.3)


def network_of(comm: Any) -> Network:
    """Return what messages between ranks 0 and 1 cost."""
    times = {}
    for size, repeats in ((8, 500), (1 << 22, 4)):
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


class Distributed:
    """PyTorch's DistributedDataParallel on the same ranks: each has its part of every batch."""

    def __init__(self, ranks: Any, name: str, layout: str, threads: int) -> None:
        import torch
        from peers.common import Task
        from peers.torch_eager import TorchEager
        from workloads import WORKLOADS

        if not torch.distributed.is_initialized():
            os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
            os.environ.setdefault("MASTER_PORT", "29511")
            torch.distributed.init_process_group("gloo", rank=ranks.rank, world_size=ranks.size)
        whole = WORKLOADS[name]
        part = whole.batch // ranks.size
        workload = dataclasses.replace(whole, batch=part)
        with tempfile.TemporaryDirectory() as folder:
            rows = np.arange(whole.rows).reshape(-1, ranks.size, part)[:, ranks.rank].ravel()
            for key, array in zip("xy", whole.data(), strict=True):
                np.save(f"{folder}/{key}.npy", array[rows])
            for i, weights in enumerate(whole.first_weights()):
                for key, array in zip(("weight", "bias"), weights, strict=True):
                    np.save(f"{folder}/{key}{i}.npy", array)
            self.peer = TorchEager(Task(workload, Path(folder), threads, layout))
        self.peer.model = torch.nn.parallel.DistributedDataParallel(self.peer.model)
        self.batches = whole.batches
        self.peer.train(1)

    def step(self, ranks: Any, seconds: float) -> float:
        """Return the seconds of a step."""
        start = time.perf_counter()
        self.peer.train(1)
        once = time.perf_counter() - start
        epochs = max(ranks.broadcast(int(seconds / once)), 1)
        start = time.perf_counter()
        self.peer.train(epochs)
        return (time.perf_counter() - start) / (epochs * self.batches)


class Measured:
    """One workload on these ranks: trainers, and the medians of what was measured of each."""

    def __init__(self, comm: Any, ranks: Any, workload: Any, given: argparse.Namespace) -> None:
        from pyframe_mpi import MPI

        self.comm, self.ranks, self.workload, self.given = comm, ranks, workload, given
        self.x, self.y = workload.data()
        at_end = MPI(timeout=600, bucket_bytes=0)
        self.trainers = {"alone": self._trainer(None), "apart": self._trainer(None)}
        self.trainers["at the end"] = self._trainer(at_end)
        size = ranks.bucket_bytes if given.bucket_bytes is None else given.bucket_bytes
        if size:
            beside = MPI(timeout=600, bucket_bytes=size)
            self.trainers["in buckets"] = self._trainer(beside)
        for name in given.compress:
            self.trainers[name] = self._trainer(MPI(timeout=600, bucket_bytes=size, compress=name))
        self.part = max(workload.batch // ranks.size, 1)
        self.torch: dict[str, Distributed] = {}
        if given.torch:
            layouts = ("channels_first", "channels_last") if hasattr(workload, "image") else ("",)
            self.torch = {
                f"torch {layout}".strip(): Distributed(ranks, workload.name, layout, given.threads)
                for layout in layouts
            }

    def _trainer(self, communicator: Any) -> Any:
        import pyframe as pf
        from pyframe.commands import bench

        model = bench.build_model(self.workload)
        made = bench.build_trainer(self.workload, model)
        return pf.Trainer(
            model, loss=self.workload.loss, optimizer=made.optimizer, communicator=communicator
        )

    def _step(self, made: Any, batch: int) -> float:
        """Return the seconds of a step on batches of some rows, besides what begins a fit."""
        rows = batch * max(len(self.x) // batch, 1)

        def seconds(epochs: int) -> float:
            start = time.perf_counter()
            made.fit(self.x[:rows], self.y[:rows], epochs, batch, shuffle=False, verbose=0)
            return time.perf_counter() - start

        once = made.communicator.broadcast(seconds(1))
        epochs = max(round(self.given.seconds / once), 4)
        return (seconds(1 + epochs) - once) / (epochs * (rows // batch))

    def medians(self) -> dict[str, float]:
        """Return the seconds of a step of each kind; of the parts that of the slowest rank."""
        found: dict[str, list[float]] = {name: [] for name in (*self.trainers, *self.torch)}
        for _ in range(self.given.rounds):
            for name, made in self.trainers.items():
                if name == "alone" and self.ranks.rank:
                    found[name].append(0.0)
                else:
                    batch = self.part if name == "apart" else self.workload.batch
                    with urgent(self.given.urgent):
                        found[name].append(self._step(made, batch))
                sleep_until(self.comm)
            for name, peer in self.torch.items():
                with urgent(self.given.urgent):
                    found[name].append(peer.step(self.ranks, self.given.seconds))
                sleep_until(self.comm)
        medians = {name: statistics.median(times) for name, times in found.items()}
        return {name: max(self.comm.allgather(t)) for name, t in medians.items()}

    def reductions(self) -> tuple[int, float, float]:
        """Return the bytes of the gradients, and the seconds of a bare Allreduce and of ours."""
        import mpi4py.MPI

        in_place = mpi4py.MPI.IN_PLACE
        count = sum(p.size for p in self.trainers["alone"].model.parameters)
        buffer = np.zeros(count, np.float32)

        def time_of(reduce: Callable[[Any], Any]) -> float:
            self.comm.Barrier()
            start = time.perf_counter()
            for _ in range(self.given.repeats):
                reduce(buffer)
            return (time.perf_counter() - start) / self.given.repeats

        both: list[list[float]] = [[], []]
        for _ in range(9):  # in turns
            with urgent(self.given.urgent):
                both[0].append(time_of(lambda b: self.comm.Allreduce(in_place, b)))
                both[1].append(time_of(self.ranks.all_reduce))
        bare, ours = (statistics.median(times) for times in both)
        return buffer.nbytes, bare, ours


def report(measured: Measured, network: Network, say: Callable[[str], None]) -> None:
    """Measure a workload, and say what was found and what follows."""
    ranks, workload = measured.ranks, measured.workload
    found, (size, bare, ours) = measured.medians(), measured.reductions()
    alone, apart, at_end = found["alone"], found["apart"], found["at the end"]
    say(f"\n{workload.title}")
    say(f"  one rank {alone * 1e3:.2f} ms; a part of it by itself {apart * 1e3:.2f} ms")
    for name in measured.trainers:
        if name not in ("alone", "apart"):
            step, share = found[name], (found[name] - apart) / (at_end - apart)
            say(
                f"  {ranks.size} ranks, gradients {name}: {step * 1e3:.2f} ms, "
                f"{alone / step:.2f} times; of what the reduction adds {1 - share:.0%} are hidden"
            )
    for name in measured.torch:
        best = min(found[k] for k in measured.trainers if k not in ("alone", "apart"))
        say(f"  {name}: {found[name] * 1e3:.2f} ms, {found[name] / best:.2f} times pyframe's")
    say(
        f"  reduction of {size:,} bytes: bare {bare * 1e6:.0f} us, pyframe {ours * 1e6:.0f} us "
        f"({bare / ours:.0%})"
    )
    # The step on a part of the batch: what does not depend on the rows, and what each takes.
    slope = (alone - apart) / (1 - measured.part / workload.batch)
    fixed = max(alone - slope, 0.0)

    def compute(part: float) -> float:
        return fixed + slope * part

    hidden = ranks.links.hidden if ranks.bucket_bytes else 0.0
    say(f"   ranks   step, ms   times   efficiency   (hidden: {hidden:.0%} of a reduction)")
    for count in RANKS:
        if count > workload.batch:
            break
        seconds, times = predicted(count, compute, size, network, hidden)
        say(f"  {count:6,}  {seconds * 1e3:9.3f}  {times:6.2f}   {times / count:6.1%}")
    say("  with as many rows a rank as the whole batch has now:")
    for count in RANKS:
        seconds, _ = predicted(count, lambda part: compute(1.0), size, network, hidden)
        times = count * compute(1.0) / seconds
        say(f"  {count:6,}  {seconds * 1e3:9.3f}  {times:6.2f}   {times / count:6.1%}")


def main() -> None:
    """Measure and print."""
    import mpi4py.MPI
    from pyframe_mpi import MPI
    from pyframe_mpi.links import measure

    import pyframe as pf
    from pyframe.commands import bench
    from pyframe.commands.workloads import WORKLOADS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workloads", nargs="+", default=["cifar_cnn", "wide_mlp", "mnist_mlp"])
    parser.add_argument("--threads", type=int, default=1, help="of each rank")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=10, help="of each reduction, nine times")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--bucket-bytes", type=int, help="default: what the ranks choose")
    parser.add_argument("--compress", nargs="*", default=[], help="also float16, bfloat16")
    parser.add_argument("--torch", action="store_true", help="also PyTorch, over gloo")
    parser.add_argument(
        "--urgent", action="store_true", help="before all else on this machine; needs root"
    )
    parser.add_argument("--latency", type=float, help="microseconds, of another network")
    parser.add_argument("--bandwidth", type=float, help="gigabits a second, of another network")
    given = parser.parse_args()

    ranks, comm = MPI(timeout=600), mpi4py.MPI.COMM_WORLD
    pf.set_num_threads(given.threads)
    if ranks.size < 2:
        parser.error("begin it on 2 ranks or more: mpiexec -n 2 python benchmarks/scaling.py")
    with urgent(given.urgent):
        here = network_of(comm)
        if given.urgent:  # once more, with nothing else in between
            ranks.links = measure(mpi4py.MPI, comm, ranks.start)
            ranks.bucket_bytes = ranks.links.bucket_bytes()
    network = here._replace(
        **({} if given.latency is None else {"latency": given.latency * 1e-6}),
        **({} if given.bandwidth is None else {"bandwidth": given.bandwidth * 1e9 / 8}),
    )

    def say(text: str) -> None:
        if ranks.rank == 0:
            print(text, flush=True)

    say(
        f"{ranks.size} ranks of {given.threads} threads; between two of them "
        f"{here.latency * 1e6:.1f} us and {here.bandwidth / 1e9:.3f} GB/s, and adding takes "
        f"{here.adding * 1e9:.2f} ns a byte\nreductions: {ranks.links}, buckets of "
        f"{ranks.bucket_bytes:,} bytes"
    )
    for name in given.workloads:
        if bench.is_there(WORKLOADS[name]):
            report(Measured(comm, ranks, WORKLOADS[name], given), network, say)
        else:
            say(f"{name}: its plugin is not installed")


if __name__ == "__main__":
    main()
