"""Buckets: what of the gradients is summed over the ranks as soon as it is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt


def cut(
    arrays: Sequence[npt.NDArray[Any]],
    gradients: Sequence[tuple[npt.NDArray[Any], Any]],
    size: int,
) -> list[tuple[npt.NDArray[Any], list[Any]]]:
    """Return arrays cut into buckets of at least so many bytes, and the gradients in each.

    The backward pass comes to the last parameters first. So they are cut from the end: what is left
    over, and is behind all that could hide it, is the smallest. They are sorted by the earliest
    parameter in them, and not by what a rank makes of the graph for its number of rows: all ranks
    begin them in the same order.

    Parameters
    ----------
    arrays : list of ndarray, (n,)
    gradients : list of (ndarray, value)
        Parts of the arrays and what computes them, in the order of the graph.
    size : int
        In bytes, above 0.

    Examples
    --------
    >>> import numpy as np
    >>> flat = np.arange(10.0)
    >>> found = cut([flat], [(flat[:2], "a"), (flat[2:3], "b"), (flat[3:], "c")], 24)
    >>> [(part.tolist(), inside) for part, inside in found]
    [([3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], ['c']), ([0.0, 1.0, 2.0], ['b', 'a'])]
    """
    found: list[tuple[int, npt.NDArray[Any], list[Any]]] = []
    for array in arrays:
        places = {
            part.ctypes.data - array.ctypes.data: (i, value)
            for i, (part, value) in enumerate(gradients)
        }
        stop, inside = array.size, list[tuple[int, Any]]()
        for at in sorted((at for at in places if 0 <= at < array.nbytes), reverse=True):
            inside.append(places[at])
            start = at // array.itemsize
            if at == 0 or (stop - start) * array.itemsize >= size:
                earliest = min(i for i, _ in inside)
                found.append((earliest, array[start:stop], [value for _, value in inside]))
                stop, inside = start, []
    found.sort(key=lambda bucket: -bucket[0])
    return [(part, values) for _, part, values in found]
