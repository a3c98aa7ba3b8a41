"""Predicting: some rows after the other, as many at a time as few bytes take."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from pyframe.engine.batches import FEW_BYTES, rows_at_once
from pyframe.engine.plan import Plan
from pyframe.errors import ArgumentError, ShapeError
from pyframe.graph.arrays import is_lazy, plain_array
from pyframe.graph.node import Placeholder, Value
from pyframe.graph.spec import Array, empty_rows


def predicted(
    plan: Plan, feed: Mapping[Placeholder, Any], outputs: list[Value], size: int | None
) -> Any:
    """Return the outputs for a feed, computed so many rows at a time; None: as few bytes take."""
    arrays = {
        p: value if is_lazy(value) else plain_array(value, f"placeholder {p.label()!r}")
        for p, value in feed.items()
    }
    rows = {len(a) if a.ndim else 0 for a in arrays.values()}
    if len(rows) > 1:
        raise ShapeError(f"the inputs have different numbers of rows: {sorted(rows)}")
    (count,) = rows

    def part(start: int, stop: int) -> Any:
        return plan.run({p: a[start:stop] for p, a in arrays.items()})

    few = sum(math.prod(a.shape) * p.dtype.itemsize for p, a in arrays.items()) <= FEW_BYTES
    if size is None:
        size = count
        if not few:
            sample = plan.check_feeds({p: a[:1] for p, a in arrays.items()}, outputs)
            size = rows_at_once(plan.engine, "run", outputs, sample, count)
            size = min(max(size, 2), count)  # a row by itself could not show that it needs others
            shift = min((size + 1) // 2, count - size)
            if shift and not _goes_by_rows(part(0, size), part(shift, shift + size), size, shift):
                size = count
    if count <= size:
        return plan.run(arrays)
    parts = (part(start, start + size) for start in range(0, count, size))
    return joined(parts, len(outputs), count)


def _goes_by_rows(one: Any, other: Any, rows: int, shift: int) -> bool:
    """Return whether outputs have the same bits where they are of the same rows.

    They have not in a model that looks at several rows together. Both are of as many rows, the
    second of those that begin `shift` rows further on: kernels may be chosen by how many there are.
    """
    pairs = zip(one, other, strict=True) if isinstance(one, list) else [(one, other)]
    return all(
        a.shape[:1] == b.shape[:1] == (rows,) and a[shift:].tobytes() == b[: rows - shift].tobytes()
        for a, b in pairs
    )


def joined(parts: Iterable[Any], outputs: int, count: int = 0) -> Any:
    """Return the outputs of parts as those of all of their rows, `count` if that is known."""
    columns: list[list[Array]] = [[] for _ in range(outputs)]
    whole: list[Array] = []
    done = 0
    for part in parts:
        arrays = part if outputs > 1 else [part]
        if count and not whole and all(a.ndim for a in arrays):
            whole = [empty_rows(count, a, "the outputs") for a in arrays]
        for i, array in enumerate(arrays):
            if whole:
                whole[i][done : done + len(array)] = array
            else:
                columns[i].append(array)
        done += len(arrays[0]) if whole else 0
    if not whole and not columns[0]:
        raise ArgumentError("there are no data: not one batch came")
    results = whole or [np.concatenate(column) for column in columns]
    return results if outputs > 1 else results[0]
