"""Feed patterns: a feed that looks like the last one needs no checks.

Checking a feed and finding its program takes some twenty microseconds. A feed with the keys,
dtypes and shapes of the one before it would give the same answers, so they are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy import ndarray

from pyframe.engine.program import Specialization
from pyframe.errors import raise_if_signalled
from pyframe.graph.node import Placeholder
from pyframe.native.core import ffi

from_buffer = ffi.from_buffer


class Pattern:
    """The form of a checked feed, and the specialization for it.

    Parameters
    ----------
    specialization : Specialization
    entries : list of (key, dtype, shape)
        In the order in which the program takes its feeds.
    """

    __slots__ = ("entries", "specialization")

    def __init__(
        self,
        specialization: Specialization,
        entries: list[tuple[Any, np.dtype[Any], tuple[int, ...]]],
    ) -> None:
        self.specialization, self.entries = specialization, entries

    def match(self, feed: Any) -> list[Any] | None:
        """Return the buffers of a feed that matches, None for one that has to be checked."""
        entries = self.entries
        if type(feed) is not dict or len(feed) != len(entries):
            return None
        buffers = []
        try:
            for key, dtype, shape in entries:
                array = feed[key]
                if type(array) is not ndarray or array.dtype is not dtype or array.shape != shape:
                    return None
                buffers.append(from_buffer(array))
        except (KeyError, ValueError) as error:  # another key; not contiguous
            raise_if_signalled(error)
            return None
        return buffers


def pattern_of(
    feed: Mapping[Any, Any], names: Mapping[Placeholder, str], specialization: Specialization
) -> Pattern | None:
    """Return the pattern of a checked feed, None if its arrays need converting."""
    entries = []
    for placeholder in specialization.program.feeds:
        key = placeholder if placeholder in feed else names[placeholder]
        array = feed.get(key)
        if type(array) is not ndarray or array.dtype is not placeholder.dtype:
            return None
        entries.append((key, array.dtype, array.shape))
    pattern = Pattern(specialization, entries)
    return pattern if pattern.match(feed) is not None else None
