"""The lesson's own way of running a graph: sort the nodes, then forward and backward.

It is the same plan as everywhere else, compiled so that every value and gradient stays readable.
Nothing is updated: the caller decides what to do with the gradients.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pyframe.engine.plan import Plan, compile
from pyframe.errors import GraphError
from pyframe.graph.node import Node, Placeholder, Value
from pyframe.graph.order import topological_sort

T = TypeVar("T", bound=Hashable)


class ComputingOrder(list[Node]):
    """Nodes in the order in which they are computed, with the plan that computes them."""

    def __init__(self, nodes: Iterable[Node], plan: Plan) -> None:
        super().__init__(nodes)
        self.plan = plan


def node_computing_sort(feed_dict: Mapping[Node, Any], nodes: Sequence[Value]) -> ComputingOrder:
    """Return all nodes of a graph in the order of computing, placeholders included.

    Parameters
    ----------
    feed_dict : dict of Placeholder to array_like
        What the placeholders hold; a scalar weight is a number.
    nodes : list of Node
        The graph; the node that no other node reads is the loss.

    Returns
    -------
    ComputingOrder
        A list of nodes, for `forward_and_backward`, or for calling ``node.forward()`` one by one
        and ``node.backward()`` in the reverse order.

    Raises
    ------
    GraphError
        If there is no loss, or more than one, or a cycle.
    FeedError
        If a placeholder is not fed.

    Examples
    --------
    >>> from pyframe import Placeholder, Linear, L2_LOSS, node_computing_sort, forward_and_backward
    >>> x, y, k, b = Placeholder("x"), Placeholder("y"), Placeholder("k"), Placeholder("b")
    >>> y_hat = Linear(x, k, b)
    >>> cost = L2_LOSS(y, y_hat)
    >>> order = node_computing_sort({x: [1, 2], y: [2, 4], k: 1.0, b: 0.0}, [y_hat, cost])
    >>> forward_and_backward(order)
    >>> float(cost.value), float(k.gradients[k])
    (2.5, -5.0)
    """
    read = {v.node for node in nodes for v in node.node.inputs if v is not None}
    ends = [node for node in nodes if node.node not in read]
    if len(ends) != 1:
        names = ", ".join(repr(node.node.label()) for node in ends) or "none"
        raise GraphError(
            f"the graph must end in one node, the loss, and ends in {len(ends)}: {names}"
        )
    plan = compile(ends[0], inspect=True)
    given = plan.resolve(feed_dict)
    plan.check_feeds(given, ends)
    for placeholder, value in given.items():
        placeholder.value = value
    return ComputingOrder(plan.graph.order, plan)


def forward_and_backward(graph_order: Sequence[Node]) -> None:
    """Compute every value of a graph, and every gradient of its loss, once.

    Parameters
    ----------
    graph_order : list of Node, from `node_computing_sort`

    Examples
    --------
    See `node_computing_sort`.

    Examples
    --------
    >>> from pyframe import Placeholder, Square, node_computing_sort
    >>> x = Placeholder("x")
    >>> order = node_computing_sort({x: 3.0}, [Square(x)])
    >>> forward_and_backward(order)
    >>> float(x.gradients[x])
    6.0
    """
    plan = getattr(graph_order, "plan", None)
    if plan is None:
        plan = next((n.last_plan() for n in graph_order if not isinstance(n, Placeholder)), None)
    if plan is None:
        raise GraphError("there is nothing to compute: pass what node_computing_sort has returned")
    plan.loss_and_gradients(plan.held_feed(), training=False)


def toplogic(graph: Mapping[T, Sequence[T]]) -> list[T]:
    """Return the nodes of a dictionary graph so that each comes before those it leads to.

    Parameters
    ----------
    graph : dict of node to list of nodes
        What each node leads to. A node that leads nowhere may be left out as a key.

    Returns
    -------
    list
        Every node once. The argument stays as it is.

    Raises
    ------
    GraphError
        If there is a cycle; the message lists it.

    Examples
    --------
    >>> toplogic({"x": ["linear"], "k": ["linear"], "linear": ["loss"]})
    ['x', 'k', 'linear', 'loss']
    """
    before: dict[T, list[T]] = {node: [] for node in graph}
    for node, followers in graph.items():
        for follower in followers:
            before.setdefault(follower, []).append(node)
    return topological_sort(list(before), before.__getitem__)
