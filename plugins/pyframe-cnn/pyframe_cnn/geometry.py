"""Extents, paddings and windows: what the ops of this package check and hand to their kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pyframe.errors import ArgumentError

# A tuple with one whole number an axis; pairs (in front, behind) for a padding.
Extents = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]

AXES = 3  # kernels see images of depth, height and width
# Above this, products of a few of them leave 64 bits.
LARGEST = 2**31 - 1
PADDINGS = ("valid", "same", "causal")


def whole(value: Any, what: str, at_least: int = 1) -> int:
    """Return a whole number of at least `at_least`, or raise `ArgumentError`."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ArgumentError(f"{what} is {value!r}; it must be a whole number")
    number = int(value.__index__())
    if not at_least <= number <= LARGEST:
        raise ArgumentError(f"{what} is {number}; it must lie between {at_least} and {LARGEST}")
    return number


def axes_of(value: Any, what: str, at_least: int = 1) -> int | Extents:
    """Return one whole number for all axes, or a tuple with one for each."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        if not 1 <= len(value) <= AXES:
            raise ArgumentError(f"{what} is {value!r}; give one number, or one for each axis")
        return tuple(whole(v, what, at_least) for v in value)
    return whole(value, what, at_least)


def padding_of(value: Any, what: str) -> str | int | Pairs:
    """Return a padding in one form: a word, one number, or a pair for each axis."""
    if isinstance(value, str):
        if value not in PADDINGS:
            raise ArgumentError(f"{what} is {value!r}; use one of {PADDINGS}, or numbers")
        return value
    if isinstance(value, Sequence):
        if not 1 <= len(value) <= AXES:
            raise ArgumentError(f"{what} is {value!r}; give one pair (front, behind) for each axis")
        pairs = []
        for side in value:
            pair = side if isinstance(side, Sequence) and not isinstance(side, str) else (side,) * 2
            if len(pair) != 2:
                raise ArgumentError(f"{what} is {value!r}; an axis takes a pair (front, behind)")
            pairs.append((whole(pair[0], what, 0), whole(pair[1], what, 0)))
        return tuple(pairs)
    return whole(value, what, 0)


def numbers_of(value: Any, what: str) -> int | Pairs:
    """Return a padding that is no word: one number, or a pair for each axis."""
    padding = padding_of(value, what)
    if isinstance(padding, str):
        raise ArgumentError(f"{what} is {padding!r}; give numbers")
    return padding


def expand(value: int | Extents, rank: int) -> Extents | None:
    """Return one number for each of `rank` axes; None when there are others."""
    expanded = value if isinstance(value, tuple) else (value,) * rank
    return expanded if len(expanded) == rank else None


def fill(values: Sequence[int], default: int) -> Extents:
    """Return the three numbers that a kernel takes: axes in front that are not there are 1."""
    return (default,) * (AXES - len(values)) + tuple(values)


class Window(NamedTuple):
    """How a window moves along one axis."""

    size: int
    stride: int
    dilation: int
    low: int | None  # None: the extent is not known yet
    high: int | None

    @property
    def reach(self) -> int:
        """The extent that the window covers."""
        return (self.size - 1) * self.dilation + 1

    def outputs(self, extent: int | None) -> int | None:
        """Return how many positions there are, 0 or less when the window does not fit."""
        if extent is None or self.low is None or self.high is None:
            return None
        return (extent + self.low + self.high - self.reach) // self.stride + 1

    def inputs(self, outputs: int | None) -> int | None:
        """Return the smallest extent with so many positions."""
        if outputs is None or self.low is None or self.high is None:
            return None
        return (outputs - 1) * self.stride + self.reach - self.low - self.high


def window(
    size: int | None, stride: int, dilation: int, padding: str | tuple[int, int], extent: int | None
) -> Window:
    """Return the window along one axis; "same" and "causal" become numbers.

    With "same" there are ceil(extent / stride) positions, and what has to be padded for that is
    shared out, the larger half behind. With "causal" all of it is in front.
    """
    if size is None:
        return Window(1, stride, dilation, None, None)
    reach = (size - 1) * dilation + 1
    if padding == "valid":
        return Window(size, stride, dilation, 0, 0)
    if padding == "causal":
        return Window(size, stride, dilation, reach - 1, 0)
    if padding == "same":
        if extent is None:
            return Window(size, stride, dilation, None, None)
        missing = max((-(-extent // stride) - 1) * stride + reach - extent, 0)
        return Window(size, stride, dilation, missing // 2, missing - missing // 2)
    assert not isinstance(padding, str)
    return Window(size, stride, dilation, *padding)
