"""Graphs: which nodes there are, in which order they run, and what they are called."""

from __future__ import annotations

import gc
import heapq
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, TypeVar

from pyframe.errors import GraphError
from pyframe.graph.node import Constant, Leaf, Node, Placeholder, Value
from pyframe.graph.parameter import Parameter, State

T = TypeVar("T", bound=Hashable)
Made = TypeVar("Made")


def topological_sort(
    items: Sequence[T],
    predecessors: Callable[[T], Iterable[T]],
    label: Callable[[T], str] = str,
) -> list[T]:
    """Return the items so that each comes after its predecessors.

    Of those that could come next, the first in `items` is taken, so the sort is stable. It is
    iterative: graphs may be of any depth.

    Raises
    ------
    GraphError
        If there is a cycle; the message lists it.

    References
    ----------
    Kahn, "Topological sorting of large networks", CACM 5(11), 1962.
    """
    rank = {item: i for i, item in enumerate(items)}
    waiting: dict[T, int] = {}
    followers: dict[T, list[T]] = {item: [] for item in items}
    ready: list[int] = []
    for i, item in enumerate(items):
        before = {p for p in predecessors(item) if p in rank}
        waiting[item] = len(before)
        for p in before:
            followers[p].append(item)
        if not before:
            ready.append(i)  # already in ascending order, so it is a heap
    order: list[T] = []
    while ready:
        item = items[heapq.heappop(ready)]
        order.append(item)
        for follower in followers[item]:
            waiting[follower] -= 1
            if waiting[follower] == 0:
                heapq.heappush(ready, rank[follower])
    if len(order) < len(items):
        stuck = {item for item in items if waiting[item] > 0}
        cycle = _find_cycle(stuck, predecessors)
        raise GraphError(
            "the graph has a cycle: "
            + " -> ".join(label(item) for item in [*cycle, cycle[0]])
            + "; a node cannot depend on its own output"
        )
    return order


def _find_cycle(stuck: set[T], predecessors: Callable[[T], Iterable[T]]) -> list[T]:
    """Walk backwards among items that all have a stuck predecessor, until one repeats."""
    item = next(iter(stuck))
    path: list[T] = []
    seen: dict[T, int] = {}
    while item not in seen:
        seen[item] = len(path)
        path.append(item)
        item = next(p for p in predecessors(item) if p in stuck)
    return path[seen[item] :][::-1]


def with_collector_paused(make: Callable[[], Made]) -> Made:
    """Call a function while the cyclic garbage collector is paused.

    Planning a large graph makes hundreds of thousands of objects, all of which stay alive; scanning
    them repeatedly meanwhile would take a third of the time.
    """
    was_enabled = gc.isenabled()
    try:  # an exception from a signal handler could keep a context manager from its end
        gc.disable()
        return make()
    finally:
        if was_enabled:
            gc.enable()


def input_nodes(node: Node) -> list[Node]:
    """Return the nodes that a node reads: its inputs and its states."""
    nodes = [v.node for v in node.inputs if v is not None]
    return [*nodes, *node.states] if node.states else nodes


def topological_order(values: Iterable[Value]) -> list[Node]:
    """Return the nodes that the values depend on, inputs first, by creation where possible."""
    stack = [v.node for v in values]
    seen = dict.fromkeys(stack)  # a stable order: a node and its copy have the same number
    by_creation = True  # nodes are made after their inputs, unless inputs were replaced
    while stack:
        node = stack.pop()
        for v in (*node.inputs, *node.states):
            if v is None:
                continue
            source = v.node
            if source.serial >= node.serial:
                by_creation = False
            if source not in seen:
                seen[source] = None
                stack.append(source)
    nodes = sorted(seen, key=attrgetter("serial"))
    return nodes if by_creation else topological_sort(nodes, input_nodes, Node.label)


class Graph:
    """The nodes that some outputs depend on.

    Attributes
    ----------
    order : list of Node
        Topological; leaves included.
    names : dict of Node to str
        A unique name for each node: its own, or its op's, with a number where two would clash.
    placeholders, parameters, states : list
        In topological order.

    Raises
    ------
    GraphError
        If there is a cycle, or two nodes of which each is to be the only writer of one state.
    """

    def __init__(self, outputs: Sequence[Value]) -> None:
        self.outputs = list(outputs)
        self.order = topological_order(outputs)
        _check_writers(self.order)
        self.names = unique_names(self.order)
        leaves = [n for n in self.order if isinstance(n, Leaf)]
        self.placeholders = [n for n in leaves if isinstance(n, Placeholder)]
        self.states = [n for n in leaves if isinstance(n, State)]
        self.parameters = [
            n for n in leaves if isinstance(n, Parameter) and not isinstance(n, State)
        ]

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for a copy; the order comes first, which avoids deep recursion."""
        return {"order": self.order, **vars(self)}

    def consumers(self) -> dict[Node, list[Node]]:
        """Return the nodes that read each node."""
        result: dict[Node, list[Node]] = {node: [] for node in self.order}
        for node in self.order:
            for source in dict.fromkeys(input_nodes(node)):
                result[source].append(node)
        return result


def _check_writers(order: Iterable[Node]) -> None:
    writers: dict[Node, Node] = {}
    for node in order:
        for state in node.states if node.sole_writer else ():
            if writers.setdefault(state, node) is not node:
                raise GraphError(
                    f"{state.label()!r} would be carried twice in one graph: a layer that keeps "
                    "its states for the next call was called twice. Call it once, use a layer for "
                    "each, or hand states from one call to the next yourself, without stateful="
                )


def unique_names(order: Iterable[Node]) -> dict[Node, str]:
    """Return a unique name for each node."""
    names: dict[Node, str] = {}
    taken: set[str] = set()
    counts: dict[str, int] = {}
    nodes = list(order)
    for node in sorted(nodes, key=lambda n: n.name is None):  # given names go first
        wanted = node.label() if not isinstance(node, Constant) or node.name else "constant"
        name = wanted
        while name in taken:
            counts[wanted] = counts.get(wanted, 0) + 1
            name = f"{wanted}_{counts[wanted]}"
        taken.add(name)
        names[node] = name
    return {node: names[node] for node in nodes}


def on_other_inputs(
    order: Iterable[Node], outputs: Iterable[Value], given: Mapping[Node, Value]
) -> list[Value]:
    """Return the outputs anew, with other values in place of some nodes.

    Parameters
    ----------
    order : iterable of Node
        All that the outputs depend on, inputs first. Parameters, states and constants are shared.
    outputs : iterable of Value
    given : dict of Node to Value
        What stands in place of which node. It has to fit what reads it.
    """
    anew = dict(given)

    def moved(value: Value) -> Value:
        node = anew.get(value.node)
        return value if node is None else node if value.index == 0 else node.node[value.index]

    for node in order:
        inputs = [None if i is None else moved(i) for i in node.inputs]
        if node not in anew and any(i is not j for i, j in zip(inputs, node.inputs, strict=True)):
            anew[node] = node.on(*inputs)
    return [moved(value) for value in outputs]
