"""The communicator: reductions and small messages between the processes that mpiexec has begun."""

from __future__ import annotations

import atexit
import faulthandler
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyframe as pf

from pyframe_mpi import norm, sharding
from pyframe_mpi.buckets import cut
from pyframe_mpi.exchange import Exchange, Pool
from pyframe_mpi.halves import FORMATS
from pyframe_mpi.links import Links, measure
from pyframe_mpi.memory import MOST_RANKS, SharedMemory
from pyframe_mpi.watch import Watch

# What launchers tell the processes that they begin: of MPICH and its kin, of PMIx, of Open MPI.
LAUNCHED = ("PMI_SIZE", "PMIX_RANK", "OMPI_COMM_WORLD_SIZE")
# How many processes it has begun; the last is srun's.
SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
TO_BE_SHOWN = 0.5  # seconds for mpiexec to pass on what all ranks say, which an end cuts off
TO_BE_ENDED = 3.0  # seconds for MPI to end this process, before it ends by itself
FAILED = 1  # the exit status of all ranks after an exception in one


class MPI(pf.communicators.Communicator):
    """The processes of MPI's world.

    Begun without mpiexec, or where there is no MPI, a process is alone, with rank 0 and size 1.

    An exception that ends one rank ends all of them. So does a rank that others wait for in vain:
    it is named, with the line at which it is, if it still answers. Each process has a thread for
    that, which needs an MPI with ``MPI_THREAD_MULTIPLE``, as MPICH and Open MPI are. Ranks on one
    machine share its processors out among themselves, unless PYFRAME_NUM_THREADS says how many
    threads each is to have.

    Parameters
    ----------
    timeout : float, default 8
        Seconds by which one rank may come later than another to a reduction, in which all have the
        same work to do before it.
    patience : float, default 600
        The same where one may have to wait for another that calls callbacks or writes a file; and
        how long a reduction may take once all are there.
    bucket_bytes : int, optional
        Gradients are summed in buckets of at least so many bytes while the backward pass goes on; 0
        sums all of them when it is over. Default: what pays by `links`.
    compress : {"float16", "bfloat16"}, optional
        Gradients are rounded to so many bits on their way: half the bytes. They are added up in
        float32, in the order of the ranks, and the sum is rounded once more; `pyframe_mpi.halves`
        has the bound of the error. Losses, metrics and parameters keep all their bits.
    sync_batch_norm : bool, default False
        Have `BatchNorm` train with the statistics of the rows of all ranks, as one process does,
        and not with those of each rank's own: three small reductions more for each such layer.
    shard_state : bool, default False
        Have each rank keep the optimizer's state of its share of the parameters alone, update
        these, and get the others from the other ranks: for a model whose state outgrows one memory.

    Attributes
    ----------
    rank, size : int
    bucket_bytes : int
    links : Links, optional
        What reductions cost, as all ranks have measured it at the beginning; None of a process that
        is alone. On one machine, where the processors themselves move the bytes, nothing is hidden.
    sync_batch_norm, shard_state : bool

    Raises
    ------
    pyframe.ArgumentError
        If a time is not above 0, `bucket_bytes` is below 0, there is no such format, or what is
        True or False is neither; on all ranks, if what they are given differs.
    pyframe.MissingExtraError
        If mpiexec or srun has begun this process, and there is no MPI that mpi4py could load; or
        that MPI is of another kind than the launcher, so that several processes are all alone.

    Examples
    --------
    >>> import pyframe_mpi
    >>> mpi = pyframe_mpi.MPI()
    >>> mpi.gather("here") == ["here"] * mpi.size
    True
    """

    links: Links | None = None
    bucket_bytes: int = 0

    def __init__(
        self,
        timeout: float = 8.0,
        patience: float = 600.0,
        *,
        bucket_bytes: int | None = None,
        compress: str | None = None,
        sync_batch_norm: bool = False,
        shard_state: bool = False,
    ) -> None:
        number, whole, flag = pf.attributes.number, pf.attributes.whole, pf.attributes.flag
        self.timeout = number(above=0)(timeout, "timeout")
        self.patience = number(above=0)(patience, "patience")
        self.sync_batch_norm = flag(sync_batch_norm, "sync_batch_norm")
        self.shard_state = flag(shard_state, "shard_state")
        if bucket_bytes is not None:
            bucket_bytes = whole(at_least=0)(bucket_bytes, "bucket_bytes")
        if compress not in (None, *FORMATS):
            raise pf.ArgumentError(
                f"compress is {compress!r}; it must be None, 'float16' or 'bfloat16'"
            )
        self.compress, self._given = compress, bucket_bytes
        self._world = world()
        if self._world is None:
            return
        self.rank, self.size = self._world.place
        self._compare(f"bucket_bytes={bucket_bytes}, compress={compress!r}")
        with self._world.watch.over("the measurement of the network", patience):
            self.links = self._world.links()
        self.bucket_bytes = self.links.bucket_bytes() if bucket_bytes is None else bucket_bytes

    def _compare(self, given: str) -> None:
        """Raise on all ranks if any was given something else than the first."""
        first, *others = self.gather(given)
        differ = [f"rank {r} has {said}" for r, said in enumerate(others, 1) if said != first]
        if differ:
            raise pf.ArgumentError(
                f"{'; '.join(differ)}, and rank 0 has {first}: all ranks sum the same gradients in "
                "the same way"
            )

    def all_reduce(self, array: npt.NDArray[Any]) -> None:
        if self._world is not None:
            with self._world.watch.over("all_reduce", self.timeout, self.patience):
                self._world.sum(array.reshape(-1))

    def start(self, array: npt.NDArray[Any], factor: float = 1.0) -> Callable[[], None]:
        if self._world is None:
            return super().start(array, factor)
        with self._world.watch.over("all_reduce", self.timeout, self.patience):
            finish = self._world.start(array, factor, self.compress)
        return lambda: self._finish(finish)

    def buckets(self, arrays: Sequence[Any], gradients: Sequence[Any]) -> list[Any]:
        return cut(arrays, gradients, self.bucket_bytes) if self.bucket_bytes else []

    def _finish(self, finish: Callable[[], None]) -> None:
        """Wait for what was started."""
        assert self._world is not None
        with self._world.watch.over("all_reduce", self.timeout, self.patience):
            finish()

    def gather(self, value: Any) -> list[Any]:
        if self._world is None:
            return [value]
        with self._world.watch.over("gather", self.patience):
            return list(self._world.comm.allgather(value))

    def all_gather(self, array: npt.NDArray[Any], part: slice) -> None:
        """Fill in a flat array of which each rank has a part.

        The parts follow each other in the order of the ranks.
        """
        if self._world is not None:
            with self._world.watch.over("all_gather", self.timeout, self.patience):
                self._world.fill_in(array, part)

    def parts(self, optimizer: Any, spans: Sequence[Any]) -> list[slice]:
        return sharding.parts(self.rank, self.size, optimizer, spans)

    def joint(self, node: Any, specs: Sequence[Any]) -> Any:
        return norm.joint(node, specs) if self.sync_batch_norm else None

    def broadcast(self, value: Any, root: int = 0) -> Any:
        if self._world is None:
            return value
        with self._world.watch.over("broadcast", self.patience):
            return self._world.comm.bcast(value, root)

    def barrier(self) -> None:
        if self._world is not None:
            with self._world.watch.over("barrier", self.patience):
                self._world.comm.Barrier()

    def abort(self, reason: str) -> None:
        if self._world is None:
            super().abort(reason)
        else:
            self._world.end(f"rank {self.rank} of {self.size} ends all: {reason}", FAILED)

    def __reduce__(self) -> Any:
        names = "timeout", "patience", "compress", "sync_batch_norm", "shard_state"
        options = {name: getattr(self, name) for name in names}
        return partial(type(self), bucket_bytes=self._given, **options), ()

    def __repr__(self) -> str:
        return f"<MPI: rank {self.rank} of {self.size}>"


class World:
    """All ranks, there being several; made once in a process."""

    def __init__(self, module: Any) -> None:
        self.MPI = module
        # Messages of its own, apart from those of a script that uses MPI as well.
        self.comm = module.COMM_WORLD.Dup()
        self.place = self.comm.Get_rank(), self.comm.Get_size()
        self.watch = Watch(module, self.place, self.end)
        local = self.comm.Split_type(module.COMM_TYPE_SHARED)
        self._memory: SharedMemory | None = None
        if local.Get_size() == self.place[1] <= MOST_RANKS:
            self._memory = SharedMemory(module, self.comm)
        self._comms = self.comm.Dup(), self.comm.Dup()
        # In the order in which they began; two threads bring them on.
        self._exchanges: deque[Exchange] = deque()
        self._lock, self._pool = threading.Lock(), Pool()
        self.watch.push = self._push
        self._links: Links | None = None
        if not os.environ.get("PYFRAME_NUM_THREADS"):
            self._share_processors(local)
        local.Free()
        self._hook, sys.excepthook = sys.excepthook, self._raised
        # Ctrl-C, by which all ranks end, may come to one that another has told of it already.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)

    def _share_processors(self, local: Any) -> None:
        """Have the ranks of one machine take no more threads together than it has processors."""
        usable = getattr(os, "sched_getaffinity", lambda process: None)(0)
        together = [other for other in local.allgather(usable) if other == usable]
        pf.set_num_threads(max(pf.get_num_threads() // len(together), 1))

    def links(self) -> Links:
        """Return what reductions cost, measured once; all ranks ask together."""
        if self._links is None:
            start = partial(self.start, factor=1.0, format=None)
            self._links = measure(self.MPI, self.comm, start)
        return self._links

    def sum(self, array: npt.NDArray[Any]) -> None:
        """Make a flat array the sum of those of all ranks."""
        if self._memory is not None:
            self._memory.sum(array)
        else:
            self.comm.Allreduce(self.MPI.IN_PLACE, array)

    def start(
        self, array: npt.NDArray[Any], factor: float, format: str | None
    ) -> Callable[[], None]:
        """Begin to sum flat arrays, each times its factor; return what waits for it.

        Within one machine it is done then: it takes the processors that would compute.
        """
        if format is None and self._memory is not None:
            return partial(self._memory.sum, array, factor)
        exchange = Exchange(self._comms, array, factor, self._pool, format)
        self._push()  # those before it
        with self._lock:
            self._exchanges.append(exchange)
        self.watch.moving.set()
        return partial(self._finish, exchange)

    def _push(self) -> None:
        """Bring sums on, unless another thread does."""
        if self._exchanges and self._lock.acquire(blocking=False):
            try:
                for exchange in self._exchanges:
                    if not exchange.is_summed and not exchange.add_up(wait=False):
                        break
            finally:
                self._lock.release()

    def _finish(self, exchange: Exchange) -> None:
        """Wait for a sum; whatever began before it goes on first."""
        self.watch.moving.clear()  # this thread brings them on by itself
        with self._lock:
            for earlier in self._exchanges:
                if not earlier.is_summed:
                    earlier.add_up(wait=True)
                if earlier is exchange:
                    break
            exchange.finish()
            self._exchanges.remove(exchange)

    def fill_in(self, array: npt.NDArray[Any], part: slice) -> None:
        """Get the parts of a flat array that other ranks have."""
        counts = np.empty(self.place[1], np.int64)
        self.comm.Allgather(np.array([part.stop - part.start]), counts)
        self.comm.Allgatherv(self.MPI.IN_PLACE, [array, counts.tolist()])

    def _raised(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        """Show an exception that ends this rank, and end the others."""
        self._hook(kind, error, trace)
        rank, size = self.place
        self.end(f"rank {rank} of {size} raised {kind.__name__}: {error}", FAILED)

    def end(self, message: str, status: int) -> None:
        """End all ranks."""
        print(f"pyframe: {message}", file=sys.stderr, flush=True)
        if not self.MPI.Is_finalized():
            sys.stdout.flush()
            time.sleep(TO_BE_SHOWN)
            # Of a host that was cut off nobody hears: Abort waits there for ever, or comes back.
            faulthandler.dump_traceback_later(TO_BE_ENDED, exit=True, file=open(os.devnull, "w"))
            self.MPI.COMM_WORLD.Abort(status)
            os._exit(status)


_worlds: list[World | None] = []


def world() -> World | None:
    """Return the world of several ranks, None for a process that is alone."""
    if not _worlds:
        module = _load()
        several = module is not None and module.COMM_WORLD.Get_size() > 1
        if module is not None and not several:
            _refuse_strangers(module)
        _worlds.append(World(module) if several else None)
    return _worlds[0]


def _begun() -> str | None:
    """Return the variable that tells of several processes; None: nobody has begun so many."""
    return next((name for name in SIZES if os.environ.get(name, "1") != "1"), None)


def _refuse_strangers(module: Any) -> None:
    """Refuse to be one of several processes that know nothing of each other.

    Each would train all of the network by itself, and write the same files.
    """
    name = _begun()
    if name is not None:
        first, *_ = module.Get_library_version().replace(",", "\n").splitlines()
        library = " ".join(first.split())
        raise pf.MissingExtraError(
            f"mpiexec or srun has begun {os.environ[name]} processes, as {name} says, and each is "
            f"alone in the MPI that mpi4py has found ({library}). Begin them by the launcher of "
            "that MPI: pyframe launch, the mpiexec beside this Python, srun --mpi=pmi2 for MPICH "
            "or srun --mpi=pmix for Open MPI; or install mpi4py for the MPI that mpiexec is of"
        )


def _load() -> Any:
    """Return mpi4py's module; None if there is no MPI, and nobody has begun several processes."""
    try:
        from mpi4py import MPI as module  # begins MPI, and ends it when Python ends
    except (ImportError, RuntimeError) as error:  # the latter: there is no library of an MPI
        launcher = next((name for name in LAUNCHED if os.environ.get(name)), _begun())
        if launcher is not None:
            raise pf.MissingExtraError(
                f"mpiexec or srun has begun this process ({launcher} is set), and mpi4py finds no "
                f'MPI ({error}); install one with: pip install "pyframe-mpi[mpich]", or have the '
                "cluster's in LD_LIBRARY_PATH"
            ) from error
        return None
    return module
