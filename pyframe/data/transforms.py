"""Augmentation: random changes of images (N, H, W, C) and series (N, T, C), for a `Loader`.

What is drawn for a sample depends on seed, epoch, the place of the transform and the number of the
sample alone: it is the same in a batch of any size and in any order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pyframe.errors import ArgumentError, DTypeError, ShapeError, check_integer, check_number
from pyframe.graph.arrays import Array, plain_array

__all__ = ["crop", "cutout", "flip", "mixup", "noise", "rotate", "shift"]

Words = npt.NDArray[np.uint64]
Reals = npt.NDArray[np.float64]

ROUNDS = 100  # of a rejection: that it is not over then has a chance below 1e-7 up to alpha 2
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio


def _mixed(z: Words) -> Words:
    """Return words that depend on all bits of these: the finalizer of SplitMix64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class Draws:
    """Random numbers for the samples of a batch.

    Word j of a sample is mix(key + (j + 1) GOLDEN), with a key made of seed, epoch, the place of
    the transform and the number of the sample.

    Parameters
    ----------
    seed, epoch, place : int
    samples : ndarray of int, (n,)
        Their numbers in the data.
    others : tuple, optional
        How many samples there are, and a function from numbers of samples to a batch of them, as
        they are before this transform.

    References
    ----------
    Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014, figure 16.
    """

    def __init__(
        self,
        seed: int,
        epoch: int,
        place: int,
        samples: npt.NDArray[Any],
        others: tuple[int, Callable[[Any], Any]] | None = None,
    ) -> None:
        key = np.array([seed], np.uint64)
        for number in (epoch, place, samples):
            key = _mixed(key + GOLDEN) ^ np.asarray(number, np.uint64)
        self._keys, self._used, self.others = _mixed(key + GOLDEN), 0, others

    def __len__(self) -> int:
        return len(self._keys)

    def uniform(self, low: float, high: float, *shape: int) -> Reals:
        """Return numbers from [low, high), (n, *shape)."""
        count = int(np.prod(shape, dtype=np.int64))
        steps = np.arange(self._used + 1, self._used + count + 1, dtype=np.uint64)
        self._used += count
        words = _mixed(self._keys[:, None] + steps * GOLDEN)
        unit: Reals = (words >> np.uint64(11)) * np.float64(2.0**-53)
        return (low + (high - low) * unit).reshape(len(self), *shape)

    def integers(self, low: int, high: Any) -> npt.NDArray[np.int64]:
        """Return whole numbers from [low, high), (n,)."""
        unit = self.uniform(0.0, 1.0, 1)[:, 0]
        return np.asarray(low + np.floor(unit * (np.asarray(high) - low)), np.int64)

    def normal(self, *shape: int) -> Reals:
        """Return normally distributed numbers, (n, *shape), by Box and Muller."""
        radius = np.sqrt(-2.0 * np.log1p(-self.uniform(0.0, 1.0, *shape)))
        return np.asarray(radius * np.cos(self.uniform(0.0, 2.0 * np.pi, *shape)))

    def beta(self, alpha: float) -> Reals:
        """Return numbers of the distribution Beta(alpha, alpha), (n,), by Jöhnk's rejection."""
        result, open_ = np.full(len(self), 0.5), np.ones(len(self), bool)
        end = self._used + 2 * ROUNDS  # however many the batch needs
        for _ in range(ROUNDS):
            u, v = (self.uniform(0.0, 1.0, 1)[:, 0] ** (1.0 / alpha) for _ in range(2))
            taken = open_ & (u + v <= 1.0) & (u + v > 0.0)
            result[taken] = (u / np.where(u + v > 0, u + v, 1.0))[taken]
            open_ &= ~taken
            if not open_.any():
                break
        self._used = end
        return result


Change = Callable[[Array, Draws], Array]


class Transform:
    """A random change of the inputs of a batch; made by the functions of this module.

    Called with a batch, an array or a tuple that begins with one, and `Draws`.
    """

    draws = True  # a `Loader` passes it random numbers

    def __init__(self, name: str, change: Change, axes: tuple[int, ...] = (3, 4)) -> None:
        self.name, self.change, self.axes = name, change, axes

    def __call__(self, batch: Any, draws: Draws) -> Any:
        if isinstance(batch, dict):
            first = "x" if "x" in batch else next(iter(batch))
            return {**batch, first: self._changed(batch[first], draws)}
        if isinstance(batch, tuple | list):
            return (self._changed(batch[0], draws), *batch[1:])
        return self._changed(batch, draws)

    def _changed(self, x: Any, draws: Draws) -> Array:
        array = plain_array(x, "a batch")
        if array.ndim not in self.axes:
            takes = "images (N, H, W, C)" + (" and series (N, T, C)" if 3 in self.axes else "")
            raise ShapeError(f"{self.name} takes {takes}, and got the shape {array.shape}")
        return np.ascontiguousarray(self.change(array, draws))

    def __repr__(self) -> str:
        return f"<transform {self.name}>"


def _where(hit: Array, changed: Array, array: Array) -> Array:
    return np.where(hit.reshape(-1, *[1] * (array.ndim - 1)), changed, array)


def _share(probability: float) -> float:
    return check_number("probability", probability, at_least=0, at_most=1)


def flip(axis: int | None = None, probability: float = 0.5) -> Transform:
    """Turn some samples around: images left to right, series from end to beginning.

    Parameters
    ----------
    axis : int, optional
        Another one of the batch: 1 turns images upside down.
    probability : float

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> series = np.arange(3.0).reshape(1, 3, 1)
    >>> turn = pf.data.transforms.flip(probability=1.0)
    >>> next(iter(pf.data.Loader(series, transforms=turn)))[0, :, 0].tolist()
    [2.0, 1.0, 0.0]
    """
    probability = _share(probability)

    def change(x: Array, draws: Draws) -> Array:
        at = x.ndim - 2 if axis is None else axis
        if not 0 < at < x.ndim:
            raise ArgumentError(f"axis={axis}: a batch of shape {x.shape} has no such axis to flip")
        return _where(draws.uniform(0, 1) < probability, np.flip(x, at), x)

    return Transform("flip", change)


def _moved(x: Array, starts: list[Array], extents: list[int]) -> Array:
    """Return windows of the samples, each from its own place on; 0 outside of them.

    starts: for each axis between the first and the last (n,); extents: as many.
    """
    n, axes = len(x), len(extents)
    index: list[Any] = [np.arange(n).reshape(-1, *[1] * axes)]
    inside: Any = True
    for axis, (start, extent) in enumerate(zip(starts, extents, strict=True)):
        shape = [n if i == 0 else extent if i == axis + 1 else 1 for i in range(axes + 1)]
        at = (start[:, None] + np.arange(extent)).reshape(shape)
        inside = inside & (at >= 0) & (at < x.shape[axis + 1])
        index.append(at.clip(0, x.shape[axis + 1] - 1))
    return np.asarray(np.where(np.asarray(inside)[..., None], x[tuple(index)], x.dtype.type(0)))


def crop(*size: int, padding: int = 0) -> Transform:
    """Cut out a random window.

    Parameters
    ----------
    *size : int
        Height and width, or the number of steps.
    padding : int, default 0
        Zeros around the sample before.
    """
    extents = [check_integer("size", n, at_least=1) for n in size]
    padding = check_integer("padding", padding, at_least=0)

    def change(x: Array, draws: Draws) -> Array:
        room = [n + 2 * padding - e for n, e in zip(x.shape[1:-1], extents, strict=False)]
        if len(extents) != x.ndim - 2 or min(room) < 0:
            raise ShapeError(f"crop to {size} does not fit samples of shape {x.shape[1:]}")
        starts = [draws.integers(0, n + 1) - padding for n in room]
        return _moved(x, starts, extents)

    return Transform("crop", change)


def shift(most: int | float) -> Transform:
    """Move samples along their axes, filled up with zeros.

    Parameters
    ----------
    most : int or float
        How many places at most, in each direction; below 1 a share of the extent.
    """
    limit = check_number("most", most, at_least=0)

    def change(x: Array, draws: Draws) -> Array:
        extents = list(x.shape[1:-1])
        bounds = [int(limit * n) if limit < 1 else int(limit) for n in extents]
        return _moved(x, [draws.integers(-b, b + 1) for b in bounds], extents)

    return Transform("shift", change)


def rotate(degrees: float) -> Transform:
    """Turn images about their centre, between the pixels by bilinear interpolation.

    Parameters
    ----------
    degrees : float
        At most so many, either way.
    """
    limit = np.deg2rad(check_number("degrees", degrees, at_least=0))

    def change(x: Array, draws: Draws) -> Array:
        _, height, width, _ = x.shape
        angle = draws.uniform(-limit, limit).reshape(-1, 1, 1)
        rows, columns = np.mgrid[:height, :width] - np.array(
            [(height - 1) / 2, (width - 1) / 2]
        ).reshape(2, 1, 1)
        r = np.cos(angle) * rows + np.sin(angle) * columns + (height - 1) / 2
        c = np.cos(angle) * columns - np.sin(angle) * rows + (width - 1) / 2
        batch = np.arange(len(x)).reshape(-1, 1, 1)
        total = np.zeros(x.shape, np.result_type(x.dtype, np.float32))
        for dr in (0, 1):
            for dc in (0, 1):
                i, j = np.floor(r).astype(int) + dr, np.floor(c).astype(int) + dc
                weight = (1 - np.abs(r - i)) * (1 - np.abs(c - j))
                weight = weight * ((i >= 0) & (i < height) & (j >= 0) & (j < width))
                total += weight[..., None] * x[batch, i.clip(0, height - 1), j.clip(0, width - 1)]
        return np.asarray(total if x.dtype.kind == "f" else np.rint(total).astype(x.dtype))

    return Transform("rotate", change, (4,))


def noise(scale: float) -> Transform:
    """Add normally distributed numbers of this standard deviation; to floats alone."""
    scale = check_number("scale", scale, at_least=0)

    def change(x: Array, draws: Draws) -> Array:
        if x.dtype.kind != "f":
            raise DTypeError(f"noise is added to floats, and the samples are {x.dtype}: scale them")
        return np.asarray(x + (scale * draws.normal(*x.shape[1:])).astype(x.dtype))

    return Transform("noise", change, (2, 3, 4))


def cutout(size: int) -> Transform:
    """Set a square of an image, or a stretch of a series, to 0.

    Parameters
    ----------
    size : int
        Of its side; at the edge less of it lies within the sample.

    References
    ----------
    DeVries, Taylor, "Improved regularization of convolutional neural networks with cutout", 2017.
    """
    size = check_integer("size", size, at_least=1)

    def change(x: Array, draws: Draws) -> Array:
        hit: Any = True
        for axis, extent in enumerate(x.shape[1:-1], 1):
            start = draws.integers(0, extent)[:, None] - size // 2
            at = np.arange(extent)
            shape = [len(x), *[extent if i == axis else 1 for i in range(1, x.ndim)]]
            hit = hit & ((at >= start) & (at < start + size)).reshape(shape)
        return np.where(hit, x.dtype.type(0), x)

    return Transform("cutout", change)


def mixup(alpha: float = 0.2, classes: int | None = None) -> Mixup:
    """Mix each sample, and its target, with another one of the data: l x + (1 - l) x'.

    Parameters
    ----------
    alpha : float, above 0
        The share l has the distribution Beta(alpha, alpha).
    classes : int, optional
        Of integer labels, which become rows of shares: for losses that take such targets.

    References
    ----------
    Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: beyond empirical risk minimization", 2018.
    """
    return Mixup(check_number("alpha", alpha, above=0), classes)


class Mixup:
    """Mixes samples; made by `mixup`."""

    draws = True

    def __init__(self, alpha: float, classes: int | None) -> None:
        self.alpha = alpha
        self.classes = None if classes is None else check_integer("classes", classes, at_least=2)

    def __call__(self, batch: Any, draws: Draws) -> Any:
        if draws.others is None:
            raise ArgumentError(
                "mixup takes other samples of the data: the Loader needs arrays or a sequence"
            )
        count, load = draws.others
        share, others = draws.beta(self.alpha), load(draws.integers(0, count))
        if not isinstance(batch, tuple):
            return self._mixed(batch, others, share, False)
        pairs = list(zip(batch, others, strict=True))
        x = self._mixed(*pairs[0], share, False)
        return (x, *(self._mixed(*pair, share, True) for pair in pairs[1:2]), *batch[2:])

    def _mixed(self, one: Any, other: Any, share: Array, is_target: bool) -> Array:
        a, b = plain_array(one, "a batch"), plain_array(other, "a batch")
        if is_target and self.classes is not None:
            a, b = (np.eye(self.classes, dtype=np.float32)[labels] for labels in (a, b))
        elif a.dtype.kind != "f":
            what = "targets" if is_target else "samples"
            hint = "pass classes=" if is_target else "scale them to floats"
            raise DTypeError(f"mixup mixes floats, and the {what} are {a.dtype}: {hint}")
        shares = share.reshape(-1, *[1] * (a.ndim - 1)).astype(a.dtype)
        return np.asarray(shares * a + (1 - shares) * b)
