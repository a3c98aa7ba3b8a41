"""Cells, and what is made of them, beside the layers with kernels of their own."""

from __future__ import annotations

import numpy as np
import pyframe_seq as seq
import pytest

import pyframe as pf
from pyframe.errors import ArgumentError, GraphError, ShapeError
from pyframe.testing import check_layer

N, T, C, UNITS = 5, 6, 3, 4
PAIRS = {
    "rnn": (seq.SimpleRNNCell, seq.SimpleRNN, {}),
    "gru": (seq.GRUCell, seq.GRU, {"reset_after": False}),
    "lstm": (seq.LSTMCell, seq.LSTM, {}),
}


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize(
    "layer", [seq.SimpleRNNCell, seq.GRUCell, seq.Recurrent, seq.Bidirectional]
)
def test_conformance(layer):
    check_layer(layer)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", PAIRS)
def test_a_cell_along_all_steps_is_the_layer(kind, reverse):
    cell_of, layer_of, options = PAIRS[kind]
    options = {**options, "reverse": reverse}
    x = pf.Placeholder("x", shape=(None, T, C), dtype="float64")
    common = {"return_sequences": True, "return_state": True}
    layer = layer_of(UNITS, **common, **options)
    fused = layer(x)
    cell = cell_of(UNITS)
    unrolled = seq.Recurrent(cell, reverse=reverse, **common)(x)
    for name, parameter in cell.own_parameters().items():
        parameter.value = layer.own_parameters()[name].initial_array()
    factors = [numbers(*[n or N for n in v.shape], seed=1) for v in fused]
    found = []
    for outputs, owner in ((fused, layer), (unrolled, cell)):
        cost = sum((pf.Sum(v * f) for v, f in zip(outputs, factors, strict=True)), start=0.0)
        plan = pf.compile(cost)
        _, gradients = plan.loss_and_gradients({x: numbers(N, T, C)})
        values = plan.run({x: numbers(N, T, C)}, outputs=list(outputs))
        own = owner.own_parameters()
        found.append([*values, *(gradients[own[name]] for name in cell.own_parameters())])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", PAIRS)
def test_a_normalized_cell_does_not_mind_the_size_of_x(kind):
    cell = PAIRS[kind][0](UNITS, layer_norm=True, bias=False)
    x = pf.Placeholder("x", shape=(None, T, C), dtype="float64")
    plan = pf.compile(seq.Recurrent(cell)(x))
    some = numbers(N, T, C)
    np.testing.assert_allclose(plan.run({x: some}), plan.run({x: 100 * some}), atol=2e-3)


def test_a_cell_of_ones_own():
    class Counter(pf.layers.Layer):
        """The state is the sum of all x so far."""

        state_widths = (C,)

        def call(self, *inputs):
            x, total = inputs
            return total + x

    x = pf.Placeholder("x", shape=(None, T, C), dtype="float64")
    plan = pf.compile(seq.Recurrent(Counter(), return_sequences=True)(x))
    some = numbers(N, T, C)
    np.testing.assert_allclose(plan.run({x: some}), some.cumsum(axis=1), rtol=1e-12)


class Faulty(pf.layers.Layer):
    """A cell that returns something else than `state_widths` says."""

    state_widths = (C, C)

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def call(self, *inputs):
        x, h, c = inputs
        if self.kind == "fewer":
            return h + x
        if self.kind == "more":
            return h + x, c, c
        return h + x, pf.Concat(c, c, axis=1)


@pytest.mark.parametrize("steps", [None, "lengths"])
@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("fewer", GraphError, r"Faulty.* returned 1 state.*\(3, 3\)"),
        ("more", GraphError, r"Faulty.* returned 3 state.*\(3, 3\)"),
        ("wider", ShapeError, r"Faulty.* returned \(.*6\) as state 1.*\(n, 3\)"),
    ],
)
def test_a_cell_that_returns_something_else(kind, error, words, steps):
    x = pf.Placeholder("x", shape=(None, T, C))
    lengths = pf.Placeholder("lengths", shape=(None,), dtype="int64")
    with pytest.raises(error, match=words):
        seq.Recurrent(Faulty(kind))(x, **({} if steps is None else {"lengths": lengths}))


def layer_normalized(a, eps=1e-5):
    return (a - a.mean(-1, keepdims=True)) / np.sqrt(a.var(-1, keepdims=True) + eps)


@pytest.mark.parametrize("reset_after", [False, True])
def test_a_normalized_gru_is_that_of_the_paper(reset_after):
    """Ba, Kiros, Hinton, arXiv:1607.06450: r and z together, and n by itself, on each side."""
    cell = seq.GRUCell(UNITS, reset_after=reset_after, layer_norm=True, bias_initializer="normal")
    x, h = (
        pf.Placeholder(n, shape=(None, k), dtype="float64") for n, k in (("x", C), ("h", UNITS))
    )
    plan = pf.compile(cell(x, h))
    some, before = numbers(N, C), numbers(N, UNITS, seed=1)
    w, u, b = (cell.own_parameters()[k].value for k in ("weight", "recurrent_weight", "bias"))
    both, ours = 2 * UNITS, some @ w
    gates = layer_normalized(ours[:, :both]) + b[:both] + layer_normalized(before @ u[:, :both])
    r, z = np.split(1 / (1 + np.exp(-gates)), 2, axis=1)
    inner = (
        r * layer_normalized(before @ u[:, both:])
        if reset_after
        else layer_normalized((r * before) @ u[:, both:])
    )
    n = np.tanh(layer_normalized(ours[:, both:]) + b[both:] + inner)
    wanted = (1 - z) * n + z * before
    np.testing.assert_allclose(plan.run({x: some, h: before}), wanted, rtol=1e-9)


@pytest.mark.parametrize("kind", PAIRS)
def test_bidirectional_takes_the_states_of_both_directions(kind):
    layer_of = PAIRS[kind][1]
    inner = layer_of(UNITS, return_sequences=True)
    x = pf.Placeholder("x", shape=(None, T, C), dtype="float64")
    count = 2 * inner.states_taken
    nodes = [pf.Placeholder(f"s{i}", shape=(None, UNITS), dtype="float64") for i in range(count)]
    wrapped = seq.Bidirectional(inner)
    inside = layer_of(UNITS, return_sequences=True, bidirectional="concat")
    outputs = [wrapped(x, *nodes), inside(x, *nodes)]
    for layer, end in ((wrapped.layer, ""), (wrapped.backward, "_reverse")):
        for name, parameter in layer.own_parameters().items():
            parameter.value = inside.own_parameters()[name + end].initial_array()
    feed = {node: numbers(N, UNITS, seed=i) for i, node in enumerate(nodes)}
    one, other = pf.compile(outputs).run({x: numbers(N, T, C), **feed})
    np.testing.assert_array_equal(one, other)
    with pytest.raises(GraphError, match=rf"no state or {count}.* got 1 "):
        seq.Bidirectional(layer_of(UNITS))(x, nodes[0])


@pytest.mark.parametrize("inner", [seq.LSTM(UNITS), seq.Recurrent(seq.LSTMCell(UNITS))], ids=repr)
def test_bidirectional_never_reads_padding(inner):
    x = pf.Placeholder("x", shape=(None, T, C), dtype="float64")
    lengths = pf.Placeholder("lengths", shape=(None,), dtype="int64")
    plan = pf.compile(seq.Bidirectional(inner)(x, lengths=lengths))
    some, given = numbers(N, T, C), np.array([6, 0, 3, 1, 2])
    padded = np.where(np.arange(T)[:, None] < given[:, None, None], some, np.nan)
    whole, cut = (plan.run({x: a, lengths: given}) for a in (some, padded))
    np.testing.assert_array_equal(whole, cut)
    assert not cut[1].any() and cut[2].all()


@pytest.mark.parametrize("merge", ["concat", "sum"])
def test_bidirectional_is_the_argument(merge):
    x = pf.Placeholder("x", shape=(None, T, C), dtype="float64")
    wrapped = seq.Bidirectional(seq.GRU(UNITS, return_sequences=True), merge)
    inside = seq.GRU(UNITS, return_sequences=True, bidirectional=merge)
    outputs = [wrapped(x), inside(x)]
    for layer, end in ((wrapped.layer, ""), (wrapped.backward, "_reverse")):
        for name, parameter in layer.own_parameters().items():
            parameter.value = inside.own_parameters()[name + end].initial_array()
    one, other = pf.compile(outputs).run({x: numbers(N, T, C)})
    np.testing.assert_array_equal(one, other)


def test_wrong_calls():
    x = pf.Placeholder("x", shape=(None, T, C))
    step, state = x[:, 0], pf.Placeholder("state", shape=(None, UNITS))
    with pytest.raises(ArgumentError, match="takes a cell"):
        seq.Recurrent(pf.layers.Dense(3))
    with pytest.raises(ShapeError, match="known number of steps"):
        seq.Recurrent(seq.GRUCell(UNITS))(pf.Placeholder("x", shape=(None, None, C)))
    with pytest.raises(GraphError, match="2 state"):
        seq.LSTMCell(UNITS)(step, state)
    with pytest.raises(ShapeError, match=r"\(n, 3\)"):
        seq.GRUCell(3)(step, state)
    with pytest.raises(GraphError, match="no state or 2"):
        seq.Recurrent(seq.LSTMCell(UNITS))(x, state)
    with pytest.raises(ArgumentError, match="recurrent layer"):
        seq.Bidirectional(pf.layers.Dense(3))
    with pytest.raises(ArgumentError, match="without reverse"):
        seq.Bidirectional(seq.GRU(3, reverse=True))
