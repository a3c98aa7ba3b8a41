"""Pools: the largest number or the mean of each window. Kernels: pool.c."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from pyframe import Case, Op
from pyframe.attributes import flag, optional
from pyframe_cnn.base import Shape, WindowOp, known_shape, lowered, same
from pyframe_cnn.geometry import Window, axes_of, expand, fill, padding_of


class _Pool(WindowOp):
    """What pools share; `like` is the input whose shape is that of the images."""

    attributes = {
        "window": "3i8",
        "stride": "3i8",
        "padding": "3i8",
        "adaptive": "i8",
        "divide": "i8",
        "rectified": "i8",
    }
    rules = {
        "window": optional(axes_of),
        "stride": optional(axes_of),
        "padding": padding_of,
        "adaptive": flag,
        "divide": flag,
        "rectified": flag,
    }
    like = 0
    defaults = {
        "window": None,
        "stride": None,
        "padding": "valid",
        "adaptive": False,
        "divide": True,
        "rectified": False,
    }

    def _pool_windows(self, x: Shape) -> list[Window]:
        """Return the windows over images x; without a size they are all of the image."""
        rank = self._check_images(x)
        if self.attrs["window"] is None:
            windows = []
            for extent in x[1:-1]:
                if extent == 0:
                    self.bad_shapes("there is nothing in an image without pixels")
                windows.append(Window(extent or 1, 1, 1, None if extent is None else 0, 0))
            return windows
        size = self._expand("window", rank)
        windows = self._windows(size, x[1:-1], (1,) * rank)
        for axis, each in enumerate(windows):
            if max(each.low or 0, each.high or 0) >= each.size:
                self.bad_shapes(
                    f"the padding of spatial axis {axis} is as large as the window of {each.size}"
                )
        return windows

    def _pooled(self, x: Shape) -> Shape:
        """Return the shape of the result for images x."""
        rank = self._check_images(x)
        if self.attrs["adaptive"]:
            size = self._expand("window", rank)
            for axis, (n, extent) in enumerate(zip(size, x[1:-1], strict=True)):
                if extent is not None and n > extent:
                    self.bad_shapes(f"{extent} pixels of spatial axis {axis} do not make {n}")
            return (x[0], *size, x[-1])
        if self.attrs["window"] is None:
            self._pool_windows(x)
            return (x[0], *(1,) * rank, x[-1])
        return (x[0], *self._outputs(self._pool_windows(x), x[1:-1]), x[-1])

    def _check_pooled(self, y: Shape, x: Shape, what: str) -> None:
        wanted = self._pooled(x)
        if len(y) != len(wanted) or not all(map(same, y, wanted)):
            self.bad_shapes(f"{what} must have the shape of the pool's result")

    def lower_attributes(self, specs: Sequence[Any]) -> dict[str, Any]:
        x = known_shape(specs[self.like])
        flags = {key: self.attrs[key] for key in ("adaptive", "divide", "rectified")}
        if self.attrs["adaptive"]:
            size = fill(self._expand("window", len(x) - 2), 1)
            return {"window": size, "stride": size, "padding": (0, 0, 0), **flags}
        block = lowered(self._pool_windows(x))
        del block["dilation"]
        return {**block, **flags}

    def flops(self, specs: Sequence[Any], outputs: Sequence[Any], wanted: Sequence[bool]) -> int:
        x = known_shape(specs[self.like])
        if self.attrs["adaptive"] or self.attrs["window"] is None:
            return math.prod(x)
        y = [n or 0 for n in self._pooled(x)]
        return math.prod(y) * math.prod(self._expand("window", len(x) - 2))

    # ---- of the tests ----

    @classmethod
    def _each_window(cls, x: Any, attributes: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
        """Yield each output's index, and the slices of its window, for images x."""
        probe = cls._probe(attributes)
        extents = x.shape[1:-1]
        if attributes.get("adaptive"):
            size = expand(attributes["window"], len(extents)) or ()
            ranges = [
                [(q * n // m, -(-(q + 1) * n // m)) for q in range(m)]
                for n, m in zip(extents, size, strict=True)
            ]
        else:
            ranges = []
            for w, n in zip(probe._pool_windows(x.shape), extents, strict=True):
                starts = [q * w.stride - (w.low or 0) for q in range(w.outputs(n) or 0)]
                ranges.append([(max(s, 0), min(s + w.size, n)) for s in starts])
        for q in product(*(range(len(r)) for r in ranges)):
            window = (slice(*r[i]) for r, i in zip(ranges, q, strict=True))
            yield (slice(None), *q), (slice(None), *window)

    @classmethod
    def _pooled_shape(cls, x: Any, attributes: dict[str, Any]) -> tuple[int, ...]:
        probe = cls._probe(attributes)
        return tuple(n or 0 for n in probe._pooled(x.shape))

    @staticmethod
    def _sample_pool(draw: Any) -> tuple[tuple[int, ...], dict[str, Any]]:
        """Return a shape of images, and attributes."""
        rank = draw.choice([1, 2, 2, 3])
        window = tuple(draw.choice([1, 2, 2, 3]) for _ in range(rank))
        stride = draw.choice([None, tuple(draw.choice([1, 2, 3]) for _ in range(rank))])
        padding: Any = draw.choice(["valid", "same", "explicit"])
        if padding == "explicit":
            padding = tuple((draw.choice(range(w)), draw.choice(range(w))) for w in window)
        longest = {1: 40, 2: 8, 3: 4}[rank]
        extents = (w + draw.choice(range(longest)) for w in window)
        shape = (draw.choice([0, 1, 2, 3]), *extents, draw.choice([1, 3, draw.size(0, 97)]))
        attributes = {"window": window, "stride": stride, "padding": padding}
        if draw.choice([True, False, False, False]):
            attributes = {"window": None, "stride": None, "padding": "valid"}
        return shape, attributes


class _Forward(_Pool):
    """A pool itself, in contrast to its gradient."""

    def __init__(self, x: Any, window: Any = None, **attributes: Any) -> None:
        super().__init__(x, window=window, **attributes)

    def infer_shape(self, *shapes: Any) -> Shape:
        (x,) = shapes
        return self._pooled(x)


class MaxPool(_Forward):
    """The largest number of each window, channel by channel. Padding never wins.

    Parameters
    ----------
    x : Value, shape (N, L, C), (N, H, W, C) or (N, D, H, W, C)
    window : int or tuple of int, optional
        Its extents; one number for all spatial axes or one for each. Without it the window is all
        of the image.
    stride : int or tuple of int, optional
        The distance of neighbouring windows; default: that of the window, so that they do not
        overlap.
    padding : {"valid", "same"}, int or tuple of pairs, default "valid"
        As for `Conv`; less than the window.
    name : str, optional

    Returns
    -------
    Value, shape (N, ..., C)

    Raises
    ------
    ShapeError
        If the window does not fit.

    Notes
    -----
    The gradient goes to the first of several equal numbers.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_cnn import MaxPool
    >>> MaxPool(pf.Placeholder("x", shape=(None, 28, 28, 6)), window=2).shape
    (None, 14, 14, 6)
    """

    op = "max_pool"
    kernel = "pyframe_cnn:max_pool"

    def gradient(self, *grads: Any) -> Sequence[Any]:
        return (MaxPoolGrad(grads[0], self.inputs[0], self, **self.attrs),)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        (x,) = inputs
        y = np.zeros(cls._pooled_shape(x, attributes))
        for q, window in cls._each_window(x, attributes):
            y[q] = x[window].max(axis=tuple(range(1, x.ndim - 1)))
        return y

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        return 0, np.zeros(cls._pooled_shape(inputs[0], attributes))  # one of x, exactly

    @classmethod
    def sample(cls, draw: Any) -> Case:
        shape, attributes = cls._sample_pool(draw)
        return Case((draw.distinct(shape),), attributes)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        x = np.random.default_rng(0).permutation(np.arange(9360.0)).reshape(2, 6, 6, 130) / 100
        odd = np.where(np.arange(36).reshape(1, 6, 6, 1) % 7 == 3, np.nan, x[..., :3])
        return (
            Case((x,), {"window": 2}),
            Case((x[..., :20],), {"window": 3, "stride": 2, "padding": "same"}),
            Case((odd,), {"window": 2, "stride": 1}),
        )


class MaxPoolGrad(_Pool):
    """The gradient of `MaxPool`, from dy, x and y: dy goes to the first x that is y, or is NaN.

    With `rectified` x is the result of a relu, and dx the gradient of what went into that: zero
    where x <= 0.
    """

    op = "max_pool_grad"
    kernel = "pyframe_cnn:max_pool_grad"
    differentiable = False
    like = 1

    def __init__(self, dy: Any, x: Any, y: Any, **attributes: Any) -> None:
        super().__init__(dy, x, y, **attributes)

    def infer_shape(self, *shapes: Any) -> Shape:
        dy, x, y = shapes
        self._check_pooled(dy, x, "dy")
        self._check_pooled(y, x, "y")
        return tuple(x)

    def absorb(self, index: int, consumer: Op, specs: Sequence[Any]) -> Op | None:
        if consumer.op != "relu_grad" or self.attrs["rectified"]:
            return None
        flowing, result = consumer.inputs
        x = self.inputs[1]
        if flowing is None or flowing.node is not self or x is None or result is None:
            return None
        if (result.node, result.index) != (x.node, x.index):
            return None
        name = f"{self.label()}*{consumer.label()}"
        return MaxPoolGrad(*self.inputs, **{**self.attrs, "rectified": True}, name=name)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, x, y = inputs
        dx = np.zeros(x.shape)
        for q, window in cls._each_window(x, attributes):
            seen, share = x[window], dx[window]
            left = dy[q].copy()
            for at in np.ndindex(seen.shape[1:-1]):
                pixel = (slice(None), *at)
                here = (seen[pixel] == y[q]) | np.isnan(seen[pixel])
                share[pixel] += np.where(here, left, 0)
                left[here] = 0
        return np.where(x <= 0, 0.0, dx) if attributes.get("rectified") else dx

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        dy, x, y = inputs
        return 27, cls.reference(np.abs(dy), x, y, **attributes)

    @classmethod
    def sample(cls, draw: Any) -> Case:
        shape, attributes = cls._sample_pool(draw)
        x = draw.distinct(shape)
        if draw.choice([True, False]):
            x = np.round(x)  # ties
        y = MaxPool.reference(x, **attributes)
        attributes["rectified"] = draw.choice([True, False])
        return Case((draw.normal(y.shape), x, y), attributes)


class AvgPool(_Forward):
    """The mean of each window, channel by channel; padding does not count.

    Parameters
    ----------
    x : Value, shape (N, L, C), (N, H, W, C) or (N, D, H, W, C)
    window : int or tuple of int, optional
        Its extents; without it the window is all of the image.
    stride, padding
        As for `MaxPool`.
    adaptive : bool, default False
        `window` says how many outputs there are, and the windows share the image evenly: output i
        of n sees the pixels from floor(i extent / n) to before ceil((i + 1) extent / n).
    divide : bool, default True
        False: the sum instead of the mean.
    name : str, optional

    Returns
    -------
    Value, shape (N, ..., C)

    Raises
    ------
    ShapeError
        If the window does not fit, or there are fewer pixels than outputs.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_cnn import AvgPool
    >>> x = pf.Placeholder("x", shape=(None, 28, 28, 6))
    >>> AvgPool(x, window=2).shape, AvgPool(x, window=(5, 5), adaptive=True).shape
    ((None, 14, 14, 6), (None, 5, 5, 6))
    """

    op = "avg_pool"
    kernel = "pyframe_cnn:avg_pool"

    def gradient(self, *grads: Any) -> Sequence[Any]:
        return (AvgPoolGrad(grads[0], self.inputs[0], **self.attrs),)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        (x,) = inputs
        y = np.zeros(cls._pooled_shape(x, attributes))
        fold = np.mean if attributes.get("divide", True) else np.sum
        for q, window in cls._each_window(x, attributes):
            y[q] = fold(x[window], axis=tuple(range(1, x.ndim - 1)))
        return y

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        (x,) = inputs
        return 3 + math.prod(x.shape[1:-1]), cls.reference(np.abs(x), **attributes)

    @classmethod
    def sample(cls, draw: Any) -> Case:
        shape, attributes = cls._sample_average(draw)
        return Case((draw.normal(shape),), attributes)

    @classmethod
    def _sample_average(cls, draw: Any) -> tuple[tuple[int, ...], dict[str, Any]]:
        shape, attributes = cls._sample_pool(draw)
        if draw.choice([True, False, False]):
            size = tuple(draw.choice(range(1, min(n, 6) + 1)) for n in shape[1:-1])
            attributes = {"window": size, "adaptive": True}
        return shape, {**attributes, "divide": draw.choice([True, True, False])}


class AvgPoolGrad(_Pool):
    """The gradient of `AvgPool`, from dy; of x only the shape is used."""

    op = "avg_pool_grad"
    kernel = "pyframe_cnn:avg_pool_grad"
    differentiable = False
    shape_only = (1,)
    like = 1

    def __init__(self, dy: Any, x: Any, **attributes: Any) -> None:
        super().__init__(dy, x, **attributes)

    def infer_shape(self, *shapes: Any) -> Shape:
        dy, x = shapes
        self._check_pooled(dy, x, "dy")
        return tuple(x)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, x = inputs
        dx = np.zeros(x.shape)
        for q, window in cls._each_window(x, attributes):
            share = dx[window]
            count = math.prod(share.shape[1:-1]) if attributes.get("divide", True) else 1
            share += (dy[q] / count).reshape(len(x), *(1,) * (x.ndim - 2), x.shape[-1])
        return dx

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        dy, x = inputs
        return 30, cls.reference(np.abs(dy), x, **attributes)

    @classmethod
    def sample(cls, draw: Any) -> Case:
        shape, attributes = AvgPool._sample_average(draw)
        x = draw.normal(shape)
        return Case((draw.normal(cls._pooled_shape(x, attributes)), x), attributes)


OPS = (MaxPool, MaxPoolGrad, AvgPool, AvgPoolGrad)
