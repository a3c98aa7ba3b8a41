"""Padding, buckets, windows and tokens."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pyframe_seq as seq
import pytest

import pyframe as pf


def test_padding() -> None:
    values, lengths, mask = seq.pad([[1.5, 2], [], [3, 4, 5]], value=-1)
    assert values.tolist() == [[1.5, 2, -1], [-1] * 3, [3, 4, 5]]
    assert lengths.tolist() == [2, 0, 3] and mask.sum(1).tolist() == [2, 0, 3]
    assert seq.pad([[1, 2, 3]], 2, side="left", truncate=True).values.tolist() == [[2, 3]]
    with pytest.raises(pf.ArgumentError, match="3 steps"):
        seq.pad([[1, 2, 3]], 2)
    with pytest.raises(pf.ArgumentError, match="alike"):
        seq.pad([[1], [[2, 3]]])
    with pytest.raises(pf.ArgumentError, match="side"):
        seq.pad([[1]], side="front")


@pytest.mark.parametrize("layer", [seq.SimpleRNN, seq.GRU, seq.LSTM])
def test_packed_batches_are_padded_ones_without_the_padding(layer: Any) -> None:
    """Outputs, states and all gradients, to the bit; what goes by rows runs on real ones alone."""
    lengths, rng = [4, 0, 7, 1], np.random.default_rng(0)
    sequences = [rng.standard_normal((n, 3)) for n in lengths]
    packed, padded = seq.pack(sequences), seq.pad(sequences)
    assert packed.values.shape == (12, 3) and packed.lengths.tolist() == lengths
    ints = {"dtype": "int64"}
    nodes = (
        pf.Placeholder("values", shape=(None, 3), dtype="float64"),
        pf.Placeholder("lengths", shape=(None,), **ints),
        pf.Placeholder("places", shape=(None, None), **ints),
        pf.Placeholder("rows", shape=(None,), **ints),
    )
    whole = pf.Placeholder("x", shape=(None, 7, 3), dtype="float64")
    pf.set_seed(0)
    net, head = layer(5, return_sequences=True, return_state=True), pf.layers.Dense(2)
    one, *states = net(seq.pad_rows(nodes[0], nodes[2]), lengths=nodes[1])
    other, *others = net(whole, lengths=nodes[1])
    ours = dict(zip(nodes, packed, strict=True))
    theirs = {whole: padded.values, nodes[1]: padded.lengths}
    narrow, wide = head(seq.pack_rows(one, nodes[3])), head(other)
    costs, feeds = [], [ours, theirs]
    found = pf.compile([narrow, *states]).run(ours)
    wanted = pf.compile([wide, *others]).run(theirs)
    np.testing.assert_allclose(found[0], wanted[0][padded.mask > 0], rtol=1e-12)
    for state, there in zip(found[1:], wanted[1:], strict=True):
        np.testing.assert_array_equal(state, there)
    mask = pf.Constant(padded.mask[..., None], dtype="float64")
    for y, factor in ((narrow, 1.0), (wide, mask)):
        plan = pf.compile(pf.Sum(pf.Square(y * factor)))
        feed = {n: a for n, a in feeds[len(costs)].items() if n in plan.graph.order}
        costs.append(plan.loss_and_gradients(feed)[1])
    assert costs[0].keys() == costs[1].keys()
    for parameter, gradient in costs[0].items():
        np.testing.assert_allclose(gradient, costs[1][parameter], rtol=1e-9, atol=1e-12)


def test_what_cannot_be_packed() -> None:
    with pytest.raises(pf.ArgumentError, match=r"pack takes arrays .* alike"):
        seq.pack([[1.0], [[2.0]]])
    with pytest.raises(pf.ArgumentError, match="pack takes"):
        seq.pack([])
    values = pf.Placeholder("values", shape=(None, 1))
    places = pf.Placeholder("places", shape=(None, None), dtype="int64")
    with pytest.raises(pf.LabelError, match="3"):
        pf.compile(seq.pad_rows(values, places)).run({values: np.ones((3, 1)), places: [[3]]})


def test_every_sequence_is_in_one_bucket() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 53)
    batches = list(seq.buckets(lengths, 8, seed=1))
    assert sorted(np.concatenate(batches).tolist()) == list(range(53))
    assert sum(np.ptp(lengths[batch]) for batch in batches) < 100


def test_windows_of_several_variables() -> None:
    series = np.arange(40.0).reshape(20, 2)
    x, y = seq.windows(series, 5, 3, stride=4, targets=[1])
    assert x.shape == (4, 5, 2) and y.shape == (4, 3, 1)
    assert np.array_equal(x[1], series[4:9]) and np.array_equal(y[1, :, 0], series[9:12, 1])
    with pytest.raises(pf.ArgumentError, match="18"):
        seq.windows(series, 18, 3)


def test_characters() -> None:
    tokenizer = seq.CharacterTokenizer("to be or not")
    assert tokenizer.decode(tokenizer.encode("not to be")) == "not to be"
    with pytest.raises(pf.LabelError, match="'x'"):
        tokenizer.encode("ox")


def test_byte_pairs() -> None:
    pytest.importorskip("tokenizers")
    tokenizer = seq.BytePairTokenizer("the theory of the thing " * 20, 300)
    tokens = tokenizer.encode("the thing")
    assert len(tokens) < 5 and max(tokens) < len(tokenizer) <= 300
    for text in ("the thing", "", "zebra", "naïve 字 \U0001f642\n\t the"):  # any bytes there are
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_byte_pairs_without_their_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"pyframe-seq\[text\]"):
        seq.BytePairTokenizer("the theory of the thing")


def test_teacher_forcing_shifts_by_a_token() -> None:
    tokens = np.arange(12).reshape(2, 6)
    inputs, targets = seq.teacher_forcing(tokens)
    assert np.array_equal(inputs, tokens[:, :5]) and np.array_equal(targets, tokens[:, 1:])
    assert np.array_equal(inputs[:, 1:], targets[:, :-1])
    for rows in (np.zeros((2, 1), int), np.zeros(())):
        with pytest.raises(pf.ArgumentError, match="two tokens"):
            seq.teacher_forcing(rows)
