"""What is a source of batches, and what is in a batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MappingView, Sequence, Set
from typing import Any

from pyframe.graph.arrays import is_lazy, is_table

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
