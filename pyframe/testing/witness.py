"""The file in which a check in a process of its own leaves notes, for its parent if it dies.

It writes the case there before each call of a kernel, and immediately what guards have found. In a
process that is not watched, all of this does nothing.
"""

from __future__ import annotations

import os
import tempfile
from typing import NamedTuple

ROOM = 8000  # bytes of a text


class Words(NamedTuple):
    """The notes of a process.

    Attributes
    ----------
    steps : int
        Number of notes; two for each call of a kernel.
    calling : bool
        Whether a call is in progress.
    case : str
        The case of the last call, empty if there was none.
    kind, seen : str
        The kind and message of an error that was found, empty if there was none.
    """

    steps: int
    calling: bool
    case: str
    kind: str
    seen: str


class Witness:
    """A file that a process shares with those that it forks afterwards.

    It has no name and is not in memory, where a kernel that writes anywhere could reach it.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  until close()

    def _write(self, place: int, text: str) -> None:
        data = text.encode()[: ROOM - 1]
        os.pwrite(self._file.fileno(), data + b"\0", 8 + place * ROOM)

    def _text(self, place: int) -> str:
        data = os.pread(self._file.fileno(), ROOM, 8 + place * ROOM)
        return data.partition(b"\0")[0].decode(errors="replace")

    def _count(self) -> int:
        return int.from_bytes(os.pread(self._file.fileno(), 8, 0), "little")

    def step(self, case: str | None) -> None:
        """Note that a call on a case begins, or, without a case, that it has ended."""
        if case is not None:
            self._write(0, case)
        count = self._count() + 1
        count += count % 2 != (case is not None)  # odd while a kernel is called
        os.pwrite(self._file.fileno(), count.to_bytes(8, "little"), 0)

    def found(self, kind: str, message: str) -> None:
        """Write an error."""
        self._write(1, kind)
        self._write(2, message)

    def words(self) -> Words:
        """Return what was written."""
        count = self._count()
        return Words(count, count % 2 == 1, *map(self._text, range(3)))

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


current: Witness | None = None  # that of this process


def begin(case: str) -> None:
    """Note that a kernel is called on a case."""
    if current is not None:
        current.step(case)


def end() -> None:
    """Note that the kernel has returned."""
    if current is not None:
        current.step(None)


def about(case: str) -> None:
    """Note what is computed from here on, by any kernels."""
    if current is not None:
        current.step(case)
        current.step(None)


def saw(kind: str, message: str) -> None:
    """Note an error that was found, before anything else can happen to the process."""
    if current is not None:
        current.found(kind, message)
