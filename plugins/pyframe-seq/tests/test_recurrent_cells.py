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
