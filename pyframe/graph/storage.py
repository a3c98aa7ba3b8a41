"""Flat buffers: arrays in which parameters and states lie one after the other.

All parameters of a model that share a dtype lie in one array, each segment 64-byte aligned, so
that an update, a clip or a checkpoint is one pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from pyframe.graph.spec import Array, Shape
from pyframe.native.core import empty_aligned
from pyframe.native.guards import Guard

ALIGNMENT = 64


class Segment(NamedTuple):
    """One parameter's part of a flat buffer; offset and size count elements."""

    name: str
    offset: int
    size: int
    shape: Shape
    trainable: bool
    group: str


class Storage:
    """One flat buffer.

    Attributes
    ----------
    data : ndarray, 1-D
    segments : list of Segment
    version : int
        Incremented by every write from Python, so that a copy can detect that it is stale.
    """

    def __init__(self, data: Array, segments: list[Segment], guard: Guard) -> None:
        self.data, self.segments, self.guard = data, segments, guard
        self.version = 0
        self.on_freeze: list[Callable[[], Any]] = []  # weak references to methods of plans

    def __reduce__(self) -> Any:
        with self.guard.write():
            data = self.data.copy()
        return _copied_storage, (data, self.segments, self.guard)

    def view(self, offset: int, shape: tuple[int, ...]) -> Array:
        """Return the part of the buffer that begins at an offset."""
        return self.data[offset : offset + math.prod(shape)].reshape(shape)

    def note(self, offset: int, size: int, changes: dict[str, Any]) -> None:
        """Update the table entry of the parameter at an offset."""
        self.segments[:] = [
            s._replace(**changes) if (s.offset, s.size) == (offset, size) else s
            for s in self.segments
        ]

    def write(self, offset: int, array: Array) -> None:
        """Copy an array into the buffer while nobody reads."""
        with self.guard.write():
            self.data[offset : offset + array.size] = array.ravel()
            self.version += 1


def _copied_storage(data: Array, segments: list[Segment], guard: Guard) -> Storage:
    aligned = empty_aligned(data.size, data.dtype)
    aligned[:] = data
    return Storage(aligned, segments, guard)
