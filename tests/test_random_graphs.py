"""Random graphs: what the planner does to memory must not change a bit of any result."""

import numpy as np
import pytest

import pyframe as pf

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
