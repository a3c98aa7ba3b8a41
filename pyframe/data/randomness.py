"""Random numbers of a sample: the same in any batch, from (seed, epoch, transform, sample)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

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
