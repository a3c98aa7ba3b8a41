"""Random graphs are shrunk: from one that fails to the smallest graph that fails as well."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from pyframe.graph.spec import INT64
from pyframe.testing.graphs import RandomGraph, Ref, Step, all_values, resized, without_unused


def smaller(graph: RandomGraph) -> Iterator[RandomGraph]:
    """Yield graphs that are a little smaller than one, within the limits of drawn graphs."""
    feeds = range(len(graph.feeds))
    for candidate in _candidates(graph):
        # An extent that grows in a feed takes along others that have become equal to it.
        if all(all_values(candidate, k) is not None for k in feeds[: len(candidate.feeds)]):
            yield candidate


def _candidates(graph: RandomGraph) -> Iterator[RandomGraph]:
    """Yield graphs that are smaller than the given one, the much smaller ones first."""
    if len(graph.feeds) > 1:
        yield replace(graph, feeds=graph.feeds[:1])
        yield replace(graph, feeds=graph.feeds[:2])
    if graph.cost is not None and graph.outputs:
        yield without_unused(replace(graph, outputs=()))
        yield without_unused(replace(graph, cost=None))
    if len(graph.outputs) > 1:
        for i in range(len(graph.outputs)):
            yield without_unused(replace(graph, outputs=(graph.outputs[i],)))
        for i in range(len(graph.outputs)):
            rest = (*graph.outputs[:i], *graph.outputs[i + 1 :])
            yield without_unused(replace(graph, outputs=rest))
    if not graph.cost and len(graph.outputs) == 1:
        i = graph.outputs[0][0]
        for ref in graph.steps[i].inputs:
            if ref is not None and not graph.steps[ref[0]].is_leaf:
                yield without_unused(replace(graph, outputs=(ref,)))
    values = all_values(graph, 0)
    if values is None:
        return
    for i in reversed(range(len(graph.steps))):
        step = graph.steps[i]
        if step.is_leaf or graph.cost == (i, 0):
            continue
        for ref in step.inputs:  # the step left out
            if ref is not None and values[ref].shape == values[i, 0].shape:
                yield _rewired(graph, i, ref)
        if (i, 1) not in values and (i, 0) not in graph.outputs:  # its value fed instead
            array = values[i, 0].astype(graph.dtype)
            steps = list(graph.steps)
            for kind in ("placeholder", "parameter"):
                steps[i] = Step(kind, array=array)
                yield without_unused(replace(graph, steps=tuple(steps)))
    yield from _plainer(graph)


def _rewired(graph: RandomGraph, i: int, to: Ref) -> RandomGraph:
    """Return a graph in which an earlier value replaces output 0 of a step."""

    def other(ref: Ref) -> Ref:
        return to if ref == (i, 0) else ref

    steps = tuple(
        s._replace(inputs=tuple(None if r is None else other(r) for r in s.inputs))
        for s in graph.steps
    )
    outputs = tuple(dict.fromkeys(map(other, graph.outputs)))
    return without_unused(replace(graph, steps=steps, outputs=outputs))


def _plainer(graph: RandomGraph) -> Iterator[RandomGraph]:
    """Yield graphs with smaller extents, and with simpler numbers."""
    leaves = [i for i, s in enumerate(graph.steps) if s.array is not None]
    arrays = {i: a for i in leaves if (a := graph.steps[i].array) is not None}
    for n in sorted({n for a in arrays.values() for n in a.shape if n > 1}, reverse=True):
        for less in sorted({1, 2, n // 2, n - 1} - {n, 0}):
            steps = list(graph.steps)
            for i, array in arrays.items():
                steps[i] = steps[i]._replace(array=resized(array, {n: less}))
            yield replace(graph, steps=tuple(steps))
    for i, array in arrays.items():
        plain = np.round(np.linspace(0.25, 1.0, max(array.size, 1)), 3)[: array.size]
        simple = plain.reshape(array.shape).astype(array.dtype)
        if array.dtype != INT64 and not np.array_equal(simple, array):
            steps = list(graph.steps)
            steps[i] = steps[i]._replace(array=simple)
            yield replace(graph, steps=tuple(steps))
