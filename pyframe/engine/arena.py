"""The arena: one block of memory that values share as long as they do not live together."""

from __future__ import annotations

from bisect import bisect_left, insort

ALIGNMENT = 64


def round_up(size: int) -> int:
    """Return the size as a multiple of the alignment, at least one."""
    return max(-(-size // ALIGNMENT), 1) * ALIGNMENT


class Arena:
    """Gives out offsets, best fit first, and takes them back.

    Free blocks are kept twice: by offset, so that neighbours merge, and by size, so that the best
    fit is found by bisection.

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
        self._by_offset: list[tuple[int, int]] = []  # (offset, size), never adjacent
        self._by_size: list[tuple[int, int]] = []  # (size, offset)

    def allocate(self, size: int) -> int:
        """Return the offset of a block of at least `size` bytes."""
        size = round_up(size)
        at = bisect_left(self._by_size, (size, 0))
        if at == len(self._by_size):
            return self._grow(size)
        room, offset = self._by_size[at]
        self._remove(offset, room)
        if room > size:
            self._add(offset + size, room - size)
        return offset

    def _grow(self, size: int) -> int:
        """Take new memory, beginning with the free block at the end when there is one."""
        offset = self.size
        if self._by_offset and sum(self._by_offset[-1]) == self.size:
            offset, room = self._by_offset[-1]
            self._remove(offset, room)
        self.size = offset + size
        return offset

    def free(self, offset: int, size: int) -> None:
        """Take a block back."""
        size = round_up(size)
        at = bisect_left(self._by_offset, (offset, size))
        following = self._by_offset[at] if at < len(self._by_offset) else None
        before = self._by_offset[at - 1] if at > 0 else None
        if following is not None and following[0] == offset + size:
            self._remove(*following)
            size += following[1]
        if before is not None and sum(before) == offset:
            self._remove(*before)
            offset, size = before[0], before[1] + size
        self._add(offset, size)

    def _add(self, offset: int, size: int) -> None:
        insort(self._by_offset, (offset, size))
        insort(self._by_size, (size, offset))

    def _remove(self, offset: int, size: int) -> None:
        del self._by_offset[bisect_left(self._by_offset, (offset, size))]
        del self._by_size[bisect_left(self._by_size, (size, offset))]
