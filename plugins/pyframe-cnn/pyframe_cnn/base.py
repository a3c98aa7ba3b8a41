"""What the ops of this package share: windows that move over images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

from pyframe import Op
from pyframe_cnn.geometry import AXES, Extents, Window, expand, fill, window

Shape = tuple[int | None, ...]


def known_shape(spec: Any) -> tuple[int, ...]:
    """Return a shape all of whose extents are known."""
    assert spec is not None and spec.shape is not None
    return tuple(int(n) for n in spec.shape)


def same(a: int | None, b: int | None) -> bool:
    """Return whether two extents can be the same one."""
    return a is None or b is None or a == b


def known(a: int | None, b: int | None) -> int | None:
    """Return whichever of two equal extents is known."""
    return b if a is None else a


class WindowOp(Op):
    """An op whose windows move over the spatial axes of images (N, ..., C)."""

    @classmethod
    def _probe(cls, attributes: dict[str, Any]) -> Self:
        """Return an op without inputs, which the tests ask about shapes."""
        probe = object.__new__(cls)
        probe.attrs, probe.name, probe.inputs = {**cls.defaults, **attributes}, None, ()
        probe._shapes_for_message = []
        return probe

    def _check_images(self, x: Shape, what: str = "x") -> int:
        """Return how many spatial axes there are."""
        if not 3 <= len(x) <= AXES + 2:
            self.bad_shapes(
                f"{what} must be (N, L, C), (N, H, W, C) or (N, D, H, W, C): samples first, "
                "channels last"
            )
        return len(x) - 2

    def _expand(self, what: str, rank: int, default: Any = None) -> Extents:
        value = self.attrs[what]
        expanded = expand(tuple(default) if value is None else value, rank)
        if expanded is None:
            self.bad_shapes(f"{what} {value} does not go with {rank} spatial axes")
        return expanded

    def _windows(
        self, size: Sequence[int | None], extents: Sequence[int | None], dilation: Sequence[int]
    ) -> list[Window]:
        """Return the window of each axis, for the extents of the images that it moves over."""
        rank, padding = len(size), self.attrs["padding"]
        if padding == "causal" and rank != 1:
            self.bad_shapes('padding "causal" is for one spatial axis: (N, L, C)')
        each: Sequence[Any] = padding if isinstance(padding, tuple) else (padding,) * rank
        if len(each) != rank:
            self.bad_shapes(f"padding {padding} does not go with {rank} spatial axes")
        stride = self._expand("stride", rank, size)
        windows = []
        for axis, extent in enumerate(extents):
            pair = (each[axis],) * 2 if isinstance(each[axis], int) else each[axis]
            made = window(size[axis], stride[axis], dilation[axis], pair, extent)
            if not isinstance(pair, str) and extent is not None and max(pair) > extent:
                self.bad_shapes(
                    f"padding {pair} of spatial axis {axis} is larger than its extent {extent}"
                )
            windows.append(made)
        return windows

    def _outputs(self, windows: Sequence[Window], extents: Sequence[int | None]) -> Shape:
        """Return how many positions each window has, at least one."""
        result = []
        for axis, (each, extent) in enumerate(zip(windows, extents, strict=True)):
            count = each.outputs(extent)
            if count is not None and count < 1:
                self.bad_shapes(
                    f"the window reaches over {each.reach} pixels of spatial axis {axis}, which "
                    f"has {extent}, and {each.low} + {each.high} of padding: no output is left "
                    "(channels are the last axis: numpy.moveaxis(x, 1, -1) puts them there)"
                )
            result.append(count)
        return tuple(result)


def lowered(windows: Sequence[Window]) -> dict[str, Extents]:
    """Return what a kernel reads of the windows."""
    return {
        "window": fill([w.size for w in windows], 1),
        "stride": fill([w.stride for w in windows], 1),
        "dilation": fill([w.dilation for w in windows], 1),
        "padding": fill([w.low or 0 for w in windows], 0),
    }


def pieces(itemsize: int, *counts: int) -> int:
    """Return the bytes of scratch memory for pieces of so many elements each."""
    return sum(-(-count * itemsize // 64) * 64 for count in counts)


def product(numbers: Sequence[int]) -> int:
    """Return the product of whole numbers."""
    return math.prod(numbers)
