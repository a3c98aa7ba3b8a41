"""Mean and standard deviation of columns, of numbers in any unit."""

from __future__ import annotations

import numpy as np

from pyframe.graph.arrays import Array


def moments(array: Array) -> tuple[Array, Array]:
    """Return mean and standard deviation of each column, float64; NaN counts as no number.

    A column that is constant but for rounding has the deviation 0. Squares of very large and very
    small numbers are out of range, so they are taken of ``x / 2^e`` with e from the largest one.

    Parameters
    ----------
    array : ndarray of float (n, ...)
    """
    exponent = np.frexp(np.nanmax(np.abs(array), axis=0))[1]
    scaled = np.ldexp(array.astype(np.float64), -exponent)
    least = np.nanmin(scaled, axis=0)  # so equal numbers have their own value as their mean
    mean, deviation = np.nanmean(scaled - least, axis=0) + least, np.nanstd(scaled - least, axis=0)
    deviation = np.where(deviation <= np.finfo(array.dtype).eps * np.abs(mean), 0.0, deviation)
    return np.ldexp(mean, exponent), np.ldexp(deviation, exponent)
