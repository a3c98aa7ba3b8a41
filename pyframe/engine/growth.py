"""Programs for any number of rows.

A program is made for the shapes of one feed, and making one takes longer than a step of a small
network. Most networks compute the same for any number of rows: of all the numbers in a program's
tables some are proportional to the rows, and the others do not depend on them. Such a program is
made once, for many rows, and C rewrites those numbers when a feed has other rows; see
`pf_context_resize`. Values lie where they would for the most rows.

Which numbers these are is found, and not declared: the graph is analysed for two rows, the fewest,
and for the most, which are odd. What is neither the same for both nor proportional to the rows, as
are the extents of ``x[:5]`` or ``x[::2]``, has a program for each number of rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pyframe.engine.fusion import Rewritten, Specs, given_specs
from pyframe.engine.numbering import Values
from pyframe.engine.tiling import Tile
from pyframe.graph.node import Node, Placeholder
from pyframe.graph.op import Op
from pyframe.graph.spec import Spec, known_shape

FEWEST = 2  # one row broadcasts, and is not like others


class Analysis(NamedTuple):
    """What a graph computes for feeds of some shapes, before it has places and instructions."""

    specs: Specs
    rewritten: Rewritten
    values: Values
    parts: Sequence[Sequence[Node] | Tile]


class TooManyRowsError(Exception):
    """So many rows run in tiles, of which a program for any number has none."""


class Growth(NamedTuple):
    """What of a program is proportional to the rows.

    Attributes
    ----------
    rows : int
        The most; 0: nothing grows.
    values : dict of int to int
        Those of which an extent is, and the axis that has it.
    attributes : dict of Node to list of int
        Where those fields of its attributes are, in bytes.
    feeds : list of Placeholder
        Those that are fed the rows.
    """

    rows: int
    values: dict[int, int]
    attributes: dict[Node, list[int]]
    feeds: list[Placeholder]

    def nodes(self, values: Values) -> set[Node]:
        """Return the nodes whose first output grows."""
        if not self.values:
            return set()
        return {node for node, (_, out) in values.operands.items() if out[0] in self.values}


FIXED = Growth(0, {}, {}, [])


def growing(feeds: Iterable[Placeholder]) -> list[Placeholder]:
    """Return the placeholders that may be fed any number of rows."""
    return [p for p in feeds if p.shape and p.shape[0] is None]


def rows_of(feeds: Mapping[Placeholder, Spec]) -> int | None:
    """Return the rows that all growing feeds have; None if they differ, or are too few."""
    counts = {known_shape(feeds[p])[0] for p in growing(feeds)}
    rows = counts.pop() if len(counts) == 1 else 0
    return rows if rows >= FEWEST else None


def room_for(rows: int) -> int:
    """Return the most rows of a program that is to run so many: an odd number.

    It is at most a quarter more than asked for, and few programs do for rows that become more.

    Examples
    --------
    >>> [room_for(rows) for rows in (2, 3, 10, 100, 512, 513)]
    [3, 5, 11, 113, 513, 641]
    """
    step = max(1 << max(rows.bit_length() - 3, 0), 2)
    return -(-rows // step) * step + 1


def with_rows(feeds: Mapping[Placeholder, Spec], rows: int) -> dict[Placeholder, Spec]:
    """Return the specs of feeds of so many rows."""
    grown = set(growing(feeds))
    return {
        p: Spec((rows, *known_shape(spec)[1:]), spec.dtype) if p in grown else spec
        for p, spec in feeds.items()
    }


def compare(
    few: Analysis, most: Analysis, rows: int, feeds: Iterable[Placeholder]
) -> Growth | None:
    """Return what grows from the fewest rows to the most; None: something else changes, too."""
    values, others = most.values, few.values
    nodes, others_nodes = most.rewritten.order, few.rewritten.order
    same = (
        values.roots == others.roots
        and len(values.specs) == len(others.specs)
        and len(nodes) == len(others_nodes)
    )
    if not same:
        return None
    growth = Growth(rows, {}, {}, growing(feeds))
    for i, (spec, other) in enumerate(zip(values.specs, others.specs, strict=True)):
        shape, small = known_shape(spec), known_shape(other)
        if shape == small:
            continue
        axes = [axis for axis, (n, m) in enumerate(zip(shape, small, strict=False)) if n != m]
        if len(shape) != len(small) or len(axes) > 1:
            return None
        growth.values[i] = axis = axes[0]
        if not _is_proportional(shape[axis], small[axis], rows):
            return None
    for node, other_node in zip(nodes, others_nodes, strict=True):
        if node in values.operands and not _compare(node, most, other_node, few, growth):
            return None
    return growth


def _is_proportional(most: int, few: int, rows: int) -> bool:
    return most % rows == 0 and most // rows * FEWEST == few


def _compare(node: Node, most: Analysis, other: Node, few: Analysis, growth: Growth) -> bool:
    """Note the attributes of a node that grow; return whether all else is the same."""
    same = type(node) is type(other) and isinstance(node, Op)
    if not same or most.values.operands[node] != few.values.operands[other]:
        return False
    assert isinstance(node, Op) and isinstance(other, Op)
    given, small = given_specs(node, most.specs), given_specs(other, few.specs)
    a, b = node.pack_attributes(given), other.pack_attributes(small)
    if node.scratch_bytes(given) < other.scratch_bytes(small):
        return False
    if a == b:
        return True
    dtype = node.attribute_dtype
    if not len(a) == len(b) == dtype.itemsize:
        return False
    fields = [(name, *field[:2]) for name, field in (dtype.fields or {}).items()]
    for name, kind, at in fields:
        pairs = zip(*(np.ravel(np.frombuffer(x, dtype)[name]) for x in (a, b)), strict=True)
        for i, (n, m) in enumerate(pairs):
            if n == m:
                continue
            if kind.base != np.int64 or not _is_proportional(int(n), int(m), growth.rows):
                return False
            growth.attributes.setdefault(node, []).append(at + i * kind.base.itemsize)
    return True
