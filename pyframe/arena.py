"""The arena: one block of memory that values share as long as they do not live together."""

from __future__ import annotations

from bisect import bisect_left, insort

ALIGNMENT = 64


def round_up(size: int) -> int:
    """Return the size as a multiple of the alignment, at least one."""
    return max(-(-size // ALIGNMENT), 1) * ALIGNMENT


class Arena:
    """Gives out offsets, best fit first, and takes them back.

    Free blocks are kept by offset, so that neighbours merge. With the few blocks that are free at
    any time in a network, looking through all of them is cheap.

    Examples
    --------
    >>> arena = Arena()
    >>> a = arena.allocate(100)
    >>> arena.free(a, 100)
    >>> arena.allocate(50) == a, arena.size
    (True, 128)
    """

    def __init__(self) -> None:
        self.size = 0
        self._free: list[tuple[int, int]] = []  # (offset, size), sorted, never adjacent

    def allocate(self, size: int) -> int:
        """Return the offset of a block of at least `size` bytes."""
        size = round_up(size)
        fits = [(room, offset) for offset, room in self._free if room >= size]
        if not fits:
            return self._grow(size)
        room, offset = min(fits)
        self._free.remove((offset, room))
        if room > size:
            insort(self._free, (offset + size, room - size))
        return offset

    def _grow(self, size: int) -> int:
        """Take new memory, beginning with the free block at the end when there is one."""
        offset = self.size
        if self._free and sum(self._free[-1]) == self.size:
            offset = self._free.pop()[0]
        self.size = offset + size
        return offset

    def free(self, offset: int, size: int) -> None:
        """Take a block back."""
        size = round_up(size)
        at = bisect_left(self._free, (offset, size))
        if at < len(self._free) and self._free[at][0] == offset + size:
            size += self._free.pop(at)[1]
        if at > 0 and sum(self._free[at - 1]) == offset:
            before, room = self._free.pop(at - 1)
            offset, size = before, size + room
        insort(self._free, (offset, size))
