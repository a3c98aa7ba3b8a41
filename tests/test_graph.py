"""Graphs: order, cycles, names."""

import numpy as np
import pytest

import pyframe as pf
from pyframe.graph.order import Graph, topological_order, topological_sort


def diamond():
    x = pf.Placeholder("x", shape=(None, 2))
    left, right = pf.Sigmoid(x, name="left"), pf.Tanh(x, name="right")
    return x, left, right, pf.Add(left, right, name="top")


def test_inputs_come_before_what_reads_them():
    x, left, right, top = diamond()
    order = topological_order([top])
    assert order == [x, left, right, top]


def test_the_order_is_that_of_making_when_that_is_one():
    x = pf.Placeholder("x", shape=(3,))
    nodes = [pf.Sigmoid(x) for _ in range(5)]
    total = nodes[0]
    sums = []
    for node in nodes[1:]:
        total = total + node
        sums.append(total)
    assert topological_order([total]) == [x, *nodes, *sums]


def test_a_cycle_is_spelt_out():
    x, left, right, top = diamond()
    left.inputs = (top,)
    with pytest.raises(pf.errors.GraphError, match="left -> top -> left|top -> left -> top"):
        pf.compile(top)


def test_a_cycle_elsewhere_is_found_among_many_nodes():
    edges = {i: [i - 1] for i in range(1, 1000)} | {0: []}
    edges[500] = [499, 600]
    with pytest.raises(pf.errors.GraphError, match="cycle") as caught:
        topological_sort(list(edges), edges.__getitem__)
    cycle = str(caught.value).split(": ")[1].split(";")[0].split(" -> ")
    assert cycle[0] == cycle[-1]
    assert {int(i) for i in cycle} == set(range(500, 601))
    for before, after in zip(cycle, cycle[1:], strict=False):
        assert int(before) in edges[int(after)]


def test_names_are_unique_and_given_ones_go_first():
    x = pf.Placeholder(shape=(2,))
    a = pf.Sigmoid(x)
    b = pf.Sigmoid(a)
    c = pf.Sigmoid(b, name="sigmoid")
    names = Graph([c]).names
    assert names[c] == "sigmoid"
    assert len(set(names.values())) == len(names)
    assert {names[a], names[b]} == {"sigmoid_1", "sigmoid_2"}


@pytest.mark.sweep
@pytest.mark.once
def test_a_chain_of_100000_nodes_compiles_runs_and_is_differentiated():
    w = pf.Parameter(np.ones(2), name="w", dtype="float64")
    node = w
    for _ in range(100_000):
        node = -node
    plan = pf.compile(pf.Sum(node * np.array([1.0, 2.0])))
    loss, gradients = plan.loss_and_gradients({})
    assert loss == 3.0
    np.testing.assert_array_equal(gradients[w], [1.0, 2.0])


def test_node_equality_is_identity_and_numpy_leaves_operators_to_nodes():
    x = pf.Placeholder("x", shape=(3,))
    y = pf.Placeholder("x", shape=(3,))
    assert x == x
    assert x != y
    product = np.ones(3) * x
    assert isinstance(product, pf.Value)
    assert product.shape == (3,)
    with pytest.raises(TypeError, match="no truth value"):
        bool(x)
    with pytest.raises(TypeError, match="not an array"):
        np.asarray(x)


def test_a_sole_writer_has_its_states_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = pf.layers.BatchNorm()
    first, second = (layer(pf.Placeholder(name, shape=(None, 3))) for name in ("a", "b"))
    pf.compile([first, second])  # running statistics may be written twice
    monkeypatch.setattr(type(first.node), "sole_writer", True)
    pf.compile(first)
    with pytest.raises(pf.GraphError, match="carried twice in one graph.*called twice"):
        pf.compile([first, second])
