"""Where the boxes of a graph stand and which way its lines go, in inches.

The picture is layered, from left to right. A line that skips layers is given a place in each of
them, as if a thin box stood there; so no line ever runs through a box.

References
----------
Sugiyama, Tagawa, Toda, "Methods for visual understanding of hierarchical system structures", IEEE
Trans. SMC 11(2), 1981.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Hashable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

Point = tuple[float, float]
Edge = tuple[Any, Any]

COLUMN_GAP, ROW_GAP = 0.6, 0.2
ARRIVAL = 0.16  # a line comes in level for so long: room for the head of its arrow
SWEEPS = 12


class Box(NamedTuple):
    """The room that something takes around the place where it stands."""

    width: float
    above: float
    below: float


class Lane(NamedTuple):
    """The place of the line from `source` to `target` in a layer between them."""

    source: Hashable
    target: Hashable
    layer: int


LANE = Box(0.0, 0.06, 0.06)


class Layout(NamedTuple):
    """A place for each node, the points on the way of each edge, and the extent of it all."""

    places: dict[Any, Point]
    routes: dict[Edge, list[Point]]
    left: float
    right: float
    bottom: float
    top: float


def layered(
    order: Sequence[Any],
    before: Mapping[Any, Sequence[Any]],
    boxes: Mapping[Any, Box],
    gap: float = COLUMN_GAP,
) -> Layout:
    """Return the layout of a graph.

    Parameters
    ----------
    order : list of nodes, topological
    before : dict of node to list of nodes
        What each node reads.
    boxes : dict of node to Box
    gap : float
        Between columns.
    """
    layer = _layers(order, before)
    edges = [(p, n) for n in order for p in dict.fromkeys(before[n])]
    columns: list[list[Any]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for node in order:
        columns[layer[node]].append(node)
    left: dict[Any, list[Any]] = {node: [] for node in order}
    right: dict[Any, list[Any]] = {node: [] for node in order}
    lanes: dict[Edge, list[Lane]] = {}
    for source, target in edges:
        lanes[source, target] = [
            Lane(source, target, i) for i in range(layer[source] + 1, layer[target])
        ]
        way = [source, *lanes[source, target], target]
        for lane in lanes[source, target]:
            columns[lane.layer].append(lane)
        for a, b in pairwise(way):
            right.setdefault(a, []).append(b)
            left.setdefault(b, []).append(a)
    leaves = {node for node in order if not before[node]}
    columns = _order([_leaves_outside(c, leaves) for c in columns], left, right)
    room = {item: boxes.get(item, LANE) for column in columns for item in column}
    y = _heights(columns, left, right, leaves, room)
    return _assemble(columns, lanes, y, room, gap)


def _layers(order: Sequence[Any], before: Mapping[Any, Sequence[Any]]) -> dict[Any, int]:
    """Put a node right of all that it reads, and a leaf just left of its first reader."""
    layer: dict[Any, int] = {}
    first: dict[Any, int] = {}
    for node in order:
        layer[node] = max((layer[p] for p in before[node]), default=-1) + 1
        for p in before[node]:
            first[p] = min(first.get(p, layer[node]), layer[node])
    for node in order:
        if not before[node] and node in first:
            layer[node] = first[node] - 1
    return layer


def _leaves_outside(column: list[Any], leaves: set[Any]) -> list[Any]:
    """Put leaves above and below the rest, so that the way of the data runs along the middle."""
    outside = [item for item in column if item in leaves]
    half = (len(outside) + 1) // 2
    inside = [item for item in column if item not in leaves]
    return [*outside[:half], *inside, *outside[half:]]


def _order(
    columns: list[list[Any]], left: Mapping[Any, list[Any]], right: Mapping[Any, list[Any]]
) -> list[list[Any]]:
    """Sort each column by where its neighbours stand, to and fro; keep what crosses least."""
    best, fewest = columns, _crossings(columns, right)
    for sweep in range(SWEEPS):
        if fewest == 0:
            break
        forth = sweep % 2 == 0
        columns = [list(column) for column in columns]
        rank = {item: float(i) for column in columns for i, item in enumerate(column)}
        for column in columns if forth else columns[::-1]:
            sides = left if forth else right
            middle = {}
            for item in column:
                around = [rank[n] for n in sides.get(item, ())]
                middle[item] = sum(around) / len(around) if around else rank[item]
            column.sort(key=middle.__getitem__)
            rank.update((item, float(i)) for i, item in enumerate(column))
        crossings = _crossings(columns, right)
        if crossings < fewest:
            best, fewest = columns, crossings
    return best


def _crossings(columns: Sequence[Sequence[Any]], right: Mapping[Any, list[Any]]) -> int:
    """Count the pairs of lines that cross between neighbouring columns."""
    count = 0
    for column, following in pairwise(columns):
        rank = {item: i for i, item in enumerate(following)}
        ends: list[int] = []
        for item in column:
            arrivals = [rank[n] for n in right.get(item, ())]
            count += sum(len(ends) - bisect_right(ends, end) for end in arrivals)
            for end in arrivals:
                insort(ends, end)
    return count


def _heights(
    columns: Sequence[Sequence[Any]],
    left: Mapping[Any, list[Any]],
    right: Mapping[Any, list[Any]],
    leaves: set[Any],
    room: Mapping[Any, Box],
) -> dict[Any, float]:
    """Bring every item level with its neighbours, as far as the boxes of its column allow."""
    y: dict[Any, float] = {}
    for column in columns:
        steps = _steps(column, room)
        shift = steps[-1] / 2 if steps else 0.0
        y.update((item, shift - step) for item, step in zip(column, steps, strict=True))
    for sweep in range(SWEEPS):
        for column in columns if sweep % 2 == 0 else columns[::-1]:
            wanted, weights = [], []
            for item in column:
                around = [*left.get(item, ()), *right.get(item, ())]
                around = [n for n in around if n not in leaves] or around
                wanted.append(sum(y[n] for n in around) / len(around) if around else y[item])
                weights.append(1.0 if item in leaves else 10.0 if isinstance(item, Lane) else 100.0)
            steps = _steps(column, room)
            # With z = -(y + step) the boxes keep apart if z rises from top to bottom.
            z = _rising([-(w + s) for w, s in zip(wanted, steps, strict=True)], weights)
            y.update((item, -v - s) for item, v, s in zip(column, z, steps, strict=True))
    return y


def _steps(column: Sequence[Any], room: Mapping[Any, Box]) -> list[float]:
    """Return how far below the first item of a column each must stand, at least."""
    steps = [0.0] if column else []
    for upper, lower in pairwise(column):
        steps.append(steps[-1] + room[upper].below + ROW_GAP + room[lower].above)
    return steps


def _rising(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Return the rising sequence that is nearest to values, by weighted squares.

    Pool adjacent violators: neighbours in the wrong order are replaced by their mean.
    """
    pools: list[tuple[float, float, int]] = []  # mean, weight, length
    for value, weight in zip(values, weights, strict=True):
        pool = (value, weight, 1)
        while pools and pools[-1][0] > pool[0]:
            mean, total, length = pools.pop()
            weight = total + pool[1]
            pool = ((mean * total + pool[0] * pool[1]) / weight, weight, length + pool[2])
        pools.append(pool)
    return [mean for mean, _, length in pools for _ in range(length)]


def _assemble(
    columns: Sequence[Sequence[Any]],
    lanes: Mapping[Edge, Sequence[Lane]],
    y: Mapping[Any, float],
    room: Mapping[Any, Box],
    gap: float,
) -> Layout:
    """Set the columns side by side; lines bend between them only."""
    places: dict[Any, Point] = {}
    sides: dict[Any, Point] = {}  # where the column of an item begins and ends
    x = 0.0
    for column in columns:
        width = max((room[item].width for item in column), default=0.0)
        for item in column:
            places[item] = (x + width / 2, y[item])
            sides[item] = (x, x + width)
        x += width + gap
    routes: dict[Edge, list[Point]] = {}
    for (source, target), between in lanes.items():
        points = [(sides[source][1], y[source])]
        for lane in between:
            points += [(side, y[lane]) for side in sides[lane]]
        routes[source, target] = [*points, (sides[target][0] - ARRIVAL, y[target])]
    tops = [y[item] + box.above for item, box in room.items()]
    bottoms = [y[item] - box.below for item, box in room.items()]
    nodes = {item: place for item, place in places.items() if not isinstance(item, Lane)}
    return Layout(nodes, routes, 0.0, max(x - gap, 0.0), min(bottoms), max(tops))
