"""Sums over ranks that go on beside the computation, with the same bits whatever they are cut into.

For a part of the array each, one rank adds up what all have sent of it, in the order of the ranks,
and sends the sum to all: two collectives, of as many bytes as a reduction in a ring. What MPI's own
reductions add first depends on the size of the array, so that the bits would be others with other
buckets, and these depend on what was measured.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pyframe_mpi.halves import pack, unpack

Buffers = tuple[npt.NDArray[Any], npt.NDArray[Any]]  # for an array of all ranks, for their parts


class Pool:
    """Buffers of sums that are done, for the next ones: fresh memory takes as long as the sums."""

    def __init__(self) -> None:
        self._free: dict[Any, list[Buffers]] = {}

    def take(self, ranks: int, part: int, dtype: Any) -> Buffers:
        """Return buffers for some ranks' parts of so many elements."""
        free = self._free.get((part, np.dtype(dtype)))
        return (
            free.pop() if free else (np.zeros(ranks * part, dtype), np.zeros((ranks, part), dtype))
        )

    def give_back(self, buffers: Buffers) -> None:
        """Take what is no longer used."""
        parts = buffers[1]
        self._free.setdefault((parts.shape[1], parts.dtype), []).append(buffers)


class Exchange:
    """A sum that is under way.

    Parameters
    ----------
    comms : pair of mpi4py.MPI.Intracomm
        For the parts, and for their sums: on each, all ranks begin in the same order.
    array : ndarray, (n,)
        The result comes into it.
    factor : float
        By which this rank counts; with 0 for nothing, whatever is in the array.
    pool : Pool
    format : {"float16", "bfloat16"}, optional
        Of what is sent: see `pyframe_mpi.halves`. Default: that of the array.

    Attributes
    ----------
    is_summed : bool
        Whether this rank has sent the sums of its part.
    """

    def __init__(
        self,
        comms: tuple[Any, Any],
        array: npt.NDArray[Any],
        factor: float,
        pool: Pool,
        format: str | None = None,
    ) -> None:
        self._comms, self._array, self._format, self._pool = comms, array, format, pool
        size = comms[0].Get_size()
        part = -(-array.size // size)
        dtype = array.dtype if format is None else np.uint16
        self._all, self._parts = pool.take(size, part, dtype)
        if not factor:
            self._all[:] = 0
        elif format is None:
            np.multiply(array, factor, out=self._all[: array.size])
        else:
            pack(format, array, factor, self._all[: array.size])
        self._request = comms[0].Ialltoall(self._all, self._parts)
        self.is_summed = False

    def add_up(self, *, wait: bool) -> bool:
        """Begin to send the sums of this rank's part, once it has all of them."""
        if wait:
            self._request.Wait()
        elif not self._request.Test():
            return False
        own, *others = self._parts
        if self._format is None:
            for other in others:
                own += other
        else:
            total = unpack(self._format, own)
            for other in others:
                total += unpack(self._format, other)
            pack(self._format, total, 1.0, own)
        self._request = self._comms[1].Iallgather(own, self._all)
        self.is_summed = True
        return True

    def finish(self) -> None:
        """Wait for the sums of all parts."""
        self._request.Wait()
        found = self._all[: self._array.size]
        self._array[:] = found if self._format is None else unpack(self._format, found)
        self._pool.give_back((self._all, self._parts))
