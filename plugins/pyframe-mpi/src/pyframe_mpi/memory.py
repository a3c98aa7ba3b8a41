"""Sums over the ranks of one machine, in memory that all of them share.

Every rank copies a piece of its array, times its factor, to its slot; all meet; every rank adds up
the slots, in the order of the ranks, right into its array. Pieces are so small that the caches hold
them, so that the array passes through memory once. There are two slots a rank, in turns: who writes
to one has met the others since they read what was in it, so that they meet once for each piece.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

PIECE = 1 << 19  # bytes
MOST_RANKS = 4  # each reads the slots of all; with more of them it pays to divide the sums up


class SharedMemory:
    """Slots for the ranks of a communicator, all of which are on this machine.

    Parameters
    ----------
    module : module
        ``mpi4py.MPI``.
    comm : mpi4py.MPI.Intracomm
    """

    def __init__(self, module: Any, comm: Any) -> None:
        self._comm, self._rank, self._turn = comm, comm.Get_rank(), 0
        self._window = module.Win.Allocate_shared(2 * PIECE, 1, comm=comm)
        self._window.Lock_all()
        self._slots = [
            np.frombuffer(self._window.Shared_query(rank)[0], np.uint8, 2 * PIECE).reshape(2, PIECE)
            for rank in range(comm.Get_size())
        ]

    def sum(self, array: npt.NDArray[Any], factor: float | None = None) -> None:
        """Make a flat array the sum of those of all ranks, each times its factor."""
        at_once = PIECE // array.itemsize
        for start in range(0, array.size, at_once):
            part = array[start : start + at_once]
            slots = [slot[self._turn, : part.nbytes].view(part.dtype) for slot in self._slots]
            if factor is None or factor == 1:
                slots[self._rank][:] = part
            elif factor:
                np.multiply(part, factor, out=slots[self._rank])
            else:
                slots[self._rank][:] = 0
            self._window.Sync()
            self._comm.Barrier()
            self._window.Sync()
            np.add(slots[0], slots[1], out=part)
            for other in slots[2:]:
                part += other
            self._turn = 1 - self._turn
