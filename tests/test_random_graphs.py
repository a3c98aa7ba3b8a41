"""Random graphs: what the planner makes of them, against the references of their ops."""

from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe import fusion, lowering
from pyframe.op import Op
from pyframe.testing import ConformanceError, check_graphs
from pyframe.testing.graph_checks import check_graph
from pyframe.testing.graphs import RandomGraph, Step, code_of, draw_graph

# ---- graphs of all registered ops ----


@pytest.mark.parametrize("first", range(0, 60, 10))
def test_graphs_of_all_ops_are_what_their_references_say(first: int) -> None:
    assert check_graphs(10, seed=first) > 5  # the others overflow somewhere


def test_a_graph_is_the_same_again_and_can_be_printed() -> None:
    assert code_of(draw_graph(7)) == code_of(draw_graph(7))
    program = code_of(draw_graph(7)).replace("print(", "note(")
    results: list[Any] = []
    exec(program, {"note": lambda *given: results.append(given)})
    assert results


def two_operands(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> RandomGraph:
    """Return tanh(a - b) for operands of some shapes."""
    rng = np.random.default_rng(0)
    a, b = (Step("placeholder", array=rng.normal(size=s).astype("float32")) for s in shapes)
    steps = (a, b, Step("sub", ((0, 0), (1, 0))), Step("tanh", ((2, 0),)))
    return RandomGraph("float32", steps, ((3, 0),))


def test_groups_formed_by_the_operands_alone_turn_it_red(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = two_operands(((128, 1), (128,)))
    check_graph(graph)
    real = fusion.elementwise_count

    def by_operands(node: Any, specs: Any) -> int | None:
        given = [s for s in fusion.given_specs(node, specs) if s is not None]
        each = isinstance(node, Op) and type(node).is_elementwise is not Op.is_elementwise
        if each and len({fusion.count_of(s) for s in given} - {1}) == 1:
            return fusion.count_of(specs[node][0])  # whatever they broadcast to
        return real(node, specs)

    monkeypatch.setattr(fusion, "elementwise_count", by_operands)
    with pytest.raises(ConformanceError):
        check_graph(graph)


def test_results_in_the_place_of_what_is_still_read_turn_it_red(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def release(self: Any, inputs: Any, outputs: Any, position: int) -> None:
        real(self, inputs, outputs, position + 1)  # one node too early

    real = lowering.Builder._release
    monkeypatch.setattr(lowering.Builder, "_release", release)
    with pytest.raises(ConformanceError):
        check_graphs(60, seed=0, shrink_seconds=0.1)


# ---- sharing memory changes no bit ----

UNARY = [pf.Sigmoid, pf.Tanh, pf.Neg, pf.Square, pf.Relu, pf.Silu, lambda v: pf.Softmax(v)]
BINARY = [pf.Add, pf.Sub, pf.Mul, pf.Maximum]


def random_graph(seed):
    """A graph over (n, 4) values with views, sums, several readers and unused nodes."""
    rng = np.random.default_rng(seed)
    x = pf.Placeholder("x", shape=(None, 4), dtype="float64")
    parameters = [
        pf.Parameter(rng.normal(size=(4, 4)), name="w", dtype="float64"),
        pf.Parameter(rng.normal(size=4), name="b", dtype="float64"),
        pf.Parameter(rng.normal(size=(1, 4)), name="row", dtype="float64"),
    ]
    w, b, row = parameters
    nodes = [x, pf.Linear(x, w, b), x + row]
    for _ in range(int(rng.integers(5, 30))):
        kind = rng.integers(6)
        pick = [nodes[i] for i in rng.integers(len(nodes), size=2)]
        if kind <= 1:
            node = UNARY[rng.integers(len(UNARY))](pick[0])
        elif kind <= 3:
            node = BINARY[rng.integers(len(BINARY))](*pick)
        elif kind == 4:
            node = pf.Reshape(pf.Sigmoid(pf.Reshape(pick[0], (-1, 2, 2))), (-1, 4))
        else:
            node = pf.Linear(pick[0], w, b)
        nodes.append(node)
    outputs = [nodes[i] for i in rng.integers(3, len(nodes), size=3)]
    cost = pf.Mean(pf.Tanh(nodes[-1])) + sum((pf.Mean(pf.Tanh(o)) for o in outputs), start=0.0)
    return x, parameters, outputs, cost


@pytest.mark.parametrize("seed", range(60))
def test_sharing_memory_changes_no_bit(seed):
    results = []
    for inspect in (False, True):
        x, parameters, outputs, cost = random_graph(seed)
        plan = pf.compile(cost, pf.optimizers.Adam(0.01), outputs=outputs, inspect=inspect)
        rng = np.random.default_rng(seed)
        got = []
        for rows in (3, 1, 7, 3):
            data = rng.normal(size=(rows, 4))
            got += plan.run({x: data}, outputs=[*outputs, cost])
            loss, gradients = plan.loss_and_gradients({x: data})
            got += [np.array(loss), *(gradients[p] for p in parameters if p in gradients)]
            got.append(np.array(plan.step({x: data})))
        results.append([*got, *(p.value.copy() for p in parameters)])
    shared, kept = results
    assert len(shared) == len(kept)
    for a, b in zip(shared, kept, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("seed", range(60, 75))
def test_gradients_are_central_differences(seed):
    x, parameters, _, cost = random_graph(seed)
    plan = pf.compile(cost)
    rng = np.random.default_rng(seed)
    data = rng.normal(size=(3, 4))
    _, gradients = plan.loss_and_gradients({x: data})
    for parameter in parameters:
        if parameter not in gradients:
            continue
        direction = rng.normal(size=parameter.shape)
        value, h = parameter.value.copy(), 1e-6
        sides = []
        for sign in (1, -1):
            parameter.value = value + sign * h * direction
            sides.append(float(plan.run({x: data}, outputs=cost)))
        parameter.value = value
        slope = (sides[0] - sides[1]) / (2 * h)
        assert np.sum(gradients[parameter] * direction) == pytest.approx(slope, rel=1e-5, abs=1e-8)
