"""Zeros around images, and images enlarged. Kernels: resize.c."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import pyframe as pf
from pyframe import Case
from pyframe_cnn.base import Shape, WindowOp, known_shape
from pyframe_cnn.geometry import Pairs, axes_of, fill, numbers_of
from pyframe_cnn.pool import AvgPool


class ZeroPad(WindowOp):
    """Images with zeros around them.

    Parameters
    ----------
    x : Value, shape (N, L, C), (N, H, W, C) or (N, D, H, W, C)
    padding : int or tuple of pairs
        How many zeros are in front of and behind each spatial axis.
    name : str, optional

    Returns
    -------
    Value, shape (N, ..., C)

    Raises
    ------
    ShapeError
        If the padding is for another number of axes, or the result too large.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_cnn import ZeroPad
    >>> ZeroPad(pf.Placeholder("x", shape=(None, 28, 28, 1)), ((2, 2), (0, 1))).shape
    (None, 32, 29, 1)
    """

    op = "zero_pad"
    kernel = "pyframe_cnn:zero_pad"
    attributes = {"padding": "3i8"}
    rules = {"padding": numbers_of}
    exact_on_integers = True

    def __init__(self, x: Any, padding: Any = 1, *, name: str | None = None) -> None:
        super().__init__(x, name=name, padding=padding)

    def _pairs(self, rank: int) -> Pairs:
        padding = self.attrs["padding"]
        pairs = padding if isinstance(padding, tuple) else ((padding, padding),) * rank
        if len(pairs) != rank:
            self.bad_shapes(f"padding {padding} does not go with {rank} spatial axes")
        return pairs

    def infer_shape(self, *shapes: Any) -> Shape:
        (x,) = shapes
        pairs = self._pairs(self._check_images(x))
        padded = (
            None if n is None else n + sum(pair) for n, pair in zip(x[1:-1], pairs, strict=True)
        )
        return (x[0], *padded, x[-1])

    def lower_attributes(self, specs: Sequence[Any]) -> dict[str, Any]:
        pairs = self._pairs(len(known_shape(specs[0])) - 2)
        return {"padding": fill([low for low, _ in pairs], 0)}

    def gradient(self, *grads: Any) -> Sequence[Any]:
        shape = self.inputs[0].shape if self.inputs[0] is not None else None
        assert shape is not None
        inside = (slice(low, -high or None) for low, high in self._pairs(len(shape) - 2))
        return (pf.Slice(grads[0], (slice(None), *inside, slice(None))),)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        (x,) = inputs
        padding = attributes["padding"]
        pairs = padding if isinstance(padding, tuple) else ((padding, padding),) * (x.ndim - 2)
        return np.pad(x, [(0, 0), *pairs, (0, 0)])

    @classmethod
    def sample(cls, draw: Any) -> Case:
        shape = draw.shape(min_ndim=3, max_ndim=5)
        pairs = tuple((draw.choice([0, 1, 3]), draw.choice([0, 1, 2])) for _ in shape[2:])
        return Case((draw.normal(shape),), {"padding": draw.choice([1, pairs])})


class UpSample(WindowOp):
    """Images enlarged by whole factors: each pixel is repeated.

    Parameters
    ----------
    x : Value, shape (N, L, C), (N, H, W, C) or (N, D, H, W, C)
    factor : int or tuple of int, default 2
        For all spatial axes, or one for each.
    name : str, optional

    Returns
    -------
    Value, shape (N, ..., C)

    Raises
    ------
    ShapeError
        If the factors are for another number of axes, an image has no pixels, or the result is too
        large.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_cnn import UpSample
    >>> UpSample(pf.Placeholder("x", shape=(None, 7, 7, 16)), (2, 3)).shape
    (None, 14, 21, 16)
    """

    op = "up_sample"
    kernel = "pyframe_cnn:up_sample"
    attributes = {"factor": "3i8"}
    rules = {"factor": axes_of}
    exact_on_integers = True

    def __init__(self, x: Any, factor: Any = 2, *, name: str | None = None) -> None:
        super().__init__(x, name=name, factor=factor)

    def infer_shape(self, *shapes: Any) -> Shape:
        (x,) = shapes
        factor = self._expand("factor", self._check_images(x))
        if 0 in x[1:-1]:  # nor has its gradient, a pool, anything to look at
            self.bad_shapes("there is nothing to enlarge in an image without pixels")
        grown = (None if n is None else n * f for n, f in zip(x[1:-1], factor, strict=True))
        return (x[0], *grown, x[-1])

    def lower_attributes(self, specs: Sequence[Any]) -> dict[str, Any]:
        return {"factor": fill(self._expand("factor", len(known_shape(specs[0])) - 2), 1)}

    def gradient(self, *grads: Any) -> Sequence[Any]:
        return (AvgPool(grads[0], window=self.attrs["factor"], divide=False),)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        (y,) = inputs
        factor = attributes["factor"]
        each = factor if isinstance(factor, tuple) else (factor,) * (y.ndim - 2)
        for axis, times in enumerate(each):
            y = np.repeat(y, times, axis=axis + 1)
        return y

    @classmethod
    def sample(cls, draw: Any) -> Case:
        shape = draw.shape(min_ndim=3, max_ndim=5)
        shape = (shape[0], *(max(n, 1) for n in shape[1:-1]), shape[-1])
        factor = tuple(draw.choice([1, 2, 3]) for _ in shape[2:])
        return Case((draw.normal(shape),), {"factor": draw.choice([2, factor])})


OPS = (ZeroPad, UpSample)
