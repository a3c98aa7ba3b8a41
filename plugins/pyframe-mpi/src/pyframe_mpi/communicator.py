"""The communicator: reductions and small messages between the processes that mpiexec has begun."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Any

import numpy.typing as npt
import pyframe as pf

from pyframe_mpi.watch import Watch

# What launchers tell the processes that they begin: of MPICH and its kin, of PMIx, of Open MPI.
LAUNCHED = ("PMI_SIZE", "PMIX_RANK", "OMPI_COMM_WORLD_SIZE")
# How many processes it has begun; the last is srun's.
SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
TO_BE_SHOWN = 0.5  # seconds for mpiexec to pass on what all ranks say, which an end cuts off
PIECE = 1 << 19  # bytes that are summed at a time within one machine
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

    Attributes
    ----------
    rank, size : int

    Raises
    ------
    pyframe.ArgumentError
        If a time is not above 0.
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

    def __init__(self, timeout: float = 8.0, patience: float = 600.0) -> None:
        for name, seconds in (("timeout", timeout), ("patience", patience)):
            if not 0 < seconds < float("inf"):
                raise pf.ArgumentError(f"{name} is {seconds!r}; it must be above 0 seconds")
        self.timeout, self.patience = timeout, patience
        self._world = world()
        self.rank, self.size = (0, 1) if self._world is None else self._world.place

    def all_reduce(self, array: npt.NDArray[Any]) -> None:
        if self._world is not None:
            with self._world.watch.over("all_reduce", self.timeout, self.patience):
                self._world.sum(array.reshape(-1))

    def gather(self, value: Any) -> list[Any]:
        if self._world is None:
            return [value]
        with self._world.watch.over("gather", self.patience):
            return list(self._world.comm.allgather(value))

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
        return type(self), (self.timeout, self.patience)

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
        self._is_one_machine = local.Get_size() == self.place[1]
        if not os.environ.get("PYFRAME_NUM_THREADS"):
            self._share_processors(local)
        local.Free()
        self._hook, sys.excepthook = sys.excepthook, self._raised

    def _share_processors(self, local: Any) -> None:
        """Have the ranks of one machine take no more threads together than it has processors."""
        usable = getattr(os, "sched_getaffinity", lambda process: None)(0)
        together = [other for other in local.allgather(usable) if other == usable]
        pf.set_num_threads(max(pf.get_num_threads() // len(together), 1))

    def sum(self, array: npt.NDArray[Any]) -> None:
        """Make a flat array the sum of those of all ranks.

        Within one machine a piece at a time, which the caches hold: twice as fast where the whole
        is larger than they are. Between machines each piece would have to wait for a message.
        """
        at_once = PIECE // array.itemsize if self._is_one_machine else max(array.size, 1)
        for start in range(0, array.size, at_once):
            self.comm.Allreduce(self.MPI.IN_PLACE, array[start : start + at_once])

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
            self.MPI.COMM_WORLD.Abort(status)


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
