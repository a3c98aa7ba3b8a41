"""Ranks in threads of one process: a communicator for tests."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from pyframe.communicators import Communicator


class Meeting:
    """Where threads meet and leave something for each other."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.barrier = threading.Barrier(size, timeout=60)
        self.left: list[Any] = [None] * size
        self.reductions = 0  # of the first rank


class ThreadRank(Communicator):
    """A rank that is a thread."""

    def __init__(self, rank: int, meeting: Meeting) -> None:
        self.rank, self.size, self.meeting = rank, meeting.size, meeting

    def gather(self, value: Any) -> list[Any]:
        self.meeting.left[self.rank] = copy.copy(value)
        self.meeting.barrier.wait()
        found = list(self.meeting.left)
        self.meeting.barrier.wait()
        return found

    def all_reduce(self, array: Any) -> None:
        assert array.flags.c_contiguous and array.flags.writeable
        self.meeting.reductions += self.rank == 0
        array[...] = np.sum(self.gather(array), axis=0)


class LateRank(ThreadRank):
    """One that sums what is started when it is waited for: nobody may look at it before."""

    def __init__(self, rank: ThreadRank, bucket_bytes: int) -> None:
        super().__init__(rank.rank, rank.meeting)
        self.bucket_bytes = bucket_bytes
        self.started: list[tuple[int, int]] = []  # of each: elements, and how many others wait
        self.waiting = 0

    def buckets(self, arrays: Any, gradients: Any) -> Any:
        """Cut arrays, from the end, before gradients that make at least so many bytes."""
        found = []
        for array in arrays:
            inside, stop = [], array.size
            for part, value in reversed(gradients):
                at = (part.ctypes.data - array.ctypes.data) // array.itemsize
                if 0 <= at < array.size:
                    inside.append(value)
                    if at == 0 or (stop - at) * array.itemsize >= self.bucket_bytes:
                        found.append((array[at:stop], inside))
                        inside, stop = [], at
        return found

    def start(self, array: Any, factor: float = 1.0) -> Callable[[], None]:
        ours = array * factor if factor else np.zeros_like(array)
        array[...] = np.nan
        self.started.append((array.size, self.waiting))
        self.waiting += 1

        def wait() -> None:
            self.waiting -= 1
            self.all_reduce(ours)
            array[...] = ours

        return wait


def together(size: int, work: Callable[[ThreadRank], Any]) -> list[Any]:
    """Return what some work gives on each of so many ranks; the first error goes on."""
    meeting = Meeting(size)
    found: list[Any] = [None] * size
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            found[rank] = work(ThreadRank(rank, meeting))
        except BaseException as error:
            errors.append(error)
            meeting.barrier.abort()

    threads = [threading.Thread(target=run, args=[rank]) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    real = [e for e in errors if not isinstance(e, threading.BrokenBarrierError)]
    for error in real or errors:
        raise error
    return found
