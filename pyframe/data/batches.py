"""What is a source of batches, what is in a batch, and which rows are held out for validation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MappingView, Sequence, Set
from typing import Any

import numpy as np

from pyframe.graph.arrays import Array, is_lazy, is_table

OTHERS = (list, tuple, Mapping, Set, MappingView, str, bytes)  # a set has no order


def gives_batches(value: Any) -> bool:
    """Return whether a value gives batches one by one: it is no array, list, dict or table."""
    if isinstance(value, Iterator):
        return True
    if isinstance(value, OTHERS) or is_table(value) or is_lazy(value):
        return False
    arrays = ("__array__", "to_numpy", "__dlpack__", "tocsr")
    return isinstance(value, Iterable) and not any(hasattr(value, name) for name in arrays)


def inputs_of(batch: Any, names: Sequence[str]) -> Any:
    """Return what a batch has for inputs of these names, whatever else it brings."""
    if isinstance(batch, Mapping):
        return {key: value for key, value in batch.items() if key in names} or batch
    if not isinstance(batch, list | tuple) or len(batch) not in (1, 2, 3):
        return batch
    several = len(names) == len(batch) > 1 and not isinstance(batch[0], list | tuple | Mapping)
    return batch if several else batch[0]


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
