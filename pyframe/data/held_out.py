"""Rows held out for validation: at random, in proportion to classes, or to the targets' values."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def held_out(targets: Array, share: float, seed: int) -> tuple[Array, Array]:
    """Return the numbers of the rows to train on, in random order, and of those held out.

    Of the rows in the order of their targets (n,), every so manieth is held out, from a random one
    on: each class, and each range of values, is there in proportion.
    """
    draw, rows = np.random.default_rng(seed), len(targets)
    held = min(round(rows * share), rows - 1)
    if held < 1:
        return draw.permutation(rows), np.arange(0)
    order = draw.permutation(rows)
    order = order[np.argsort(targets[order], kind="stable")]
    chosen = order[((np.arange(held) + draw.random()) * rows / held).astype(np.int64)]
    return draw.permutation(np.setdiff1d(order, chosen)), chosen
