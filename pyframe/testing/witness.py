"""What a check in a process of its own leaves in memory that its parent reads when it has died.

Before each call of a kernel it writes the case there, and what guards have seen at once. In a
process that nobody looks after all of this does nothing.
"""

from __future__ import annotations

import mmap
from typing import NamedTuple

ROOM = 8000  # bytes of a text


class Words(NamedTuple):
    """What a process has said.

    Attributes
    ----------
    steps : int
        How many there were; two for a call of a kernel.
    calling : bool
        Whether the last one is under way.
    case : str
        Of the last call, empty when there was none.
    kind, seen : str
        The kind and message of an error that was found, empty when none was.
    """

    steps: int
    calling: bool
    case: str
    kind: str
    seen: str


class Witness:
    """A piece of memory that a process shares with those that it forks afterwards."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8 + 3 * ROOM)

    def _write(self, place: int, text: str) -> None:
        data = text.encode()[: ROOM - 1]
        start = 8 + place * ROOM
        self._memory[start : start + len(data) + 1] = data + b"\0"

    def _text(self, place: int) -> str:
        start = 8 + place * ROOM
        return self._memory[start : start + ROOM].partition(b"\0")[0].decode(errors="replace")

    def _count(self) -> int:
        return int.from_bytes(self._memory[:8], "little")

    def step(self, case: str | None) -> None:
        """Write that a call begins on a case, or without one that it has ended."""
        if case is not None:
            self._write(0, case)
        count = self._count() + 1
        count += count % 2 != (case is not None)  # odd while a kernel is called
        self._memory[:8] = count.to_bytes(8, "little")

    def found(self, kind: str, message: str) -> None:
        """Write an error."""
        self._write(1, kind)
        self._write(2, message)

    def words(self) -> Words:
        """Return what was written."""
        count = self._count()
        return Words(count, count % 2 == 1, *map(self._text, range(3)))

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()


current: Witness | None = None  # that of this process


def begin(case: str) -> None:
    """Say that a kernel is called on a case."""
    if current is not None:
        current.step(case)


def end() -> None:
    """Say that it has returned."""
    if current is not None:
        current.step(None)


def about(case: str) -> None:
    """Say what is computed from here on, by whatever kernels."""
    if current is not None:
        current.step(case)
        current.step(None)


def saw(kind: str, message: str) -> None:
    """Say what was found, before anything else can happen to the process."""
    if current is not None:
        current.found(kind, message)
