"""The parts of random test cases: odd sizes, odd shapes, arrays with a stated property.

Sizes are those at which loops go wrong: 0, 1, primes, and one less or more than a vector's lanes or
a tile's rows and columns. Everything is determined by one seed, which a failing test prints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")
Floats = npt.NDArray[np.float64]

# 0 and 1; primes; and lanes (4, 8, 16) and tiles (32, 64), each minus one, exact, and plus one.
SIZES = (0, 1, 2, 3, 4, 5, 7, 8, 9, 11, 13, 15, 16, 17, 19, 23, 31, 32, 33, 37, 63, 64, 65, 97)
# Longer than the panels that long sums are cut into; drawn rarely, since they cost time.
LONG_SIZES = (127, 129, 256, 257, 521)
MAX_ELEMENTS = 4000


class Draw:
    """A source of random test cases, for `Op.sample`.

    Parameters
    ----------
    seed : int
        Seed of all random choices: the same seed gives the same cases.
    integers : bool, default False
        Whether to draw small whole numbers wherever floats are asked for, so that sums and products
        are exact and results can be compared to the bit.

    Examples
    --------
    >>> from pyframe.testing import Draw
    >>> draw = Draw(seed=3)
    >>> x = draw.normal(draw.shape(min_ndim=2, max_ndim=2, low=1))
    >>> x.ndim, x.dtype.name
    (2, 'float64')
    >>> Draw(seed=3).size() == Draw(seed=3).size()
    True
    """

    def __init__(self, seed: int, integers: bool = False) -> None:
        self.seed, self.integers = seed, integers
        self._rng = np.random.default_rng(seed)

    def size(self, low: int = 0, high: int = LONG_SIZES[-1]) -> int:
        """Return one odd size, at least `low` and at most `high`."""
        sizes = LONG_SIZES if self._rng.integers(8) == 0 else SIZES
        return self.choice([n for n in sizes if low <= n <= high] or [low])

    def shape(self, min_ndim: int = 0, max_ndim: int = 4, low: int = 0) -> tuple[int, ...]:
        """Return a shape of odd extents, each at least `low`, of about 4000 elements at most."""
        ndim = int(self._rng.integers(min_ndim, max_ndim + 1))
        extents: list[int] = []
        room = MAX_ELEMENTS
        for _ in range(ndim):
            extents.append(self.size(low, max(room, low)))
            room //= max(extents[-1], 1)
        # The first extents had the most choice: let any axis be the longest.
        self._rng.shuffle(extents)
        return tuple(extents)

    def normal(self, shape: Sequence[int]) -> Floats:
        """Return standard normal numbers; whole numbers from -4 to 4 in integer mode."""
        if self.integers:
            return self._whole(-4, 4, shape)
        return self._rng.standard_normal(tuple(shape))

    def uniform(self, shape: Sequence[int]) -> Floats:
        """Return numbers within (0, 1); ones in integer mode."""
        if self.integers:
            return np.ones(tuple(shape))
        return self._rng.uniform(0.01, 0.99, tuple(shape))

    def positive(self, shape: Sequence[int]) -> Floats:
        """Return numbers of at least 0.1; whole numbers from 1 to 4 in integer mode."""
        if self.integers:
            return self._whole(1, 4, shape)
        return self._rng.uniform(0.1, 3.0, tuple(shape))

    def away_from_zero(self, shape: Sequence[int]) -> Floats:
        """Return numbers of both signs, none closer to zero than 0.05."""
        sign = self._rng.choice([-1.0, 1.0], tuple(shape))
        if self.integers:
            return sign * self._whole(1, 4, shape)
        return np.asarray(sign * (0.05 + np.abs(self._rng.standard_normal(tuple(shape)))))

    def distinct(self, shape: Sequence[int]) -> Floats:
        """Return numbers that are at least 1e-3 apart."""
        count = int(np.prod(tuple(shape), dtype=np.int64))
        order = self._rng.permutation(count) - count // 2
        if self.integers:
            return order.astype(np.float64).reshape(tuple(shape))
        gap = max(2e-3, 4.0 / max(count, 1))
        jitter = self._rng.uniform(-0.25, 0.25, count)
        return np.asarray((gap * (order + jitter)).reshape(tuple(shape)))

    def labels(self, shape: Sequence[int], classes: int) -> npt.NDArray[np.int64]:
        """Return int64 labels of at least 0 and less than `classes`."""
        if 0 in shape:
            return np.zeros(tuple(shape), np.int64)
        return self._rng.integers(0, classes, tuple(shape), dtype=np.int64)

    def choice(self, options: Sequence[T]) -> T:
        """Return one of the options."""
        return options[int(self._rng.integers(len(options)))]

    def axis(self, ndim: int) -> int:
        """Return an axis of an array of `ndim` >= 1 axes, counted from either end."""
        return int(self._rng.integers(-ndim, ndim))

    def axes(self, ndim: int) -> tuple[int, ...]:
        """Return at least one axis (none for a scalar), each counted from either end."""
        if ndim == 0:
            return ()
        count = int(self._rng.integers(1, ndim + 1))
        chosen: list[Any] = list(self._rng.permutation(ndim)[:count])
        return tuple(int(a) - ndim * int(self._rng.integers(2)) for a in chosen)

    def _whole(self, low: int, high: int, shape: Sequence[int]) -> Floats:
        return self._rng.integers(low, high, tuple(shape), endpoint=True).astype(np.float64)
