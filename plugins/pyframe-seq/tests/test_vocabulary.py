"""Cross-entropy of a large vocabulary: as the one of all logits at once, in less memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyframe_seq as seq
import pytest
from pyframe_seq import vocabulary

import pyframe as pf
from pyframe.testing import check_loss, check_op


@pytest.mark.parametrize("op", vocabulary.OPS, ids=lambda op: op.op)
def test_op(op: Any) -> None:
    check_op(op, shapes=25)


def test_loss() -> None:
    check_loss(pf.losses.get("linear_cross_entropy"))


def numbers(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


CASES = [
    ({}, False),
    ({"reduction": "sum"}, False),
    ({"ignore_index": -1}, False),
    ({"ignore_index": 7}, True),
    ({}, True),
    ({"reduction": "none", "ignore_index": -1}, True),
]


@pytest.mark.parametrize(("options", "weighted"), CASES, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_cross_entropy(options: Any, weighted: bool, bias: bool) -> None:
    n, t, d, words = 130, 10, 6, 1100  # two tiles of rows, and three of words
    x = pf.Parameter(numbers(n, t, d), name="x", dtype="float64")
    dense = pf.layers.Dense(words, bias=bias)
    logits = dense(x)
    y = np.random.default_rng(1).integers(0, words, (n, t))
    y[::3] = options.get("ignore_index", 0)
    feed, given = {}, dict(options)
    if weighted:
        given["sample_weight"] = pf.Placeholder("w", shape=(n,), dtype="float64")
        feed[given["sample_weight"]] = np.abs(numbers(n, seed=2))
    labels = pf.Placeholder("y", shape=(n, t), dtype="int64")
    feed[labels] = y
    found = []
    for loss in (seq.linear_cross_entropy, pf.CrossEntropy):
        cost = loss(labels, logits, **given)
        if options.get("reduction") == "none":
            cost = pf.Sum(cost * numbers(n, t, seed=3))
        value, gradients = pf.compile(cost).loss_and_gradients(feed)
        found.append([value, *(np.array(gradients[p]) for p in (x, *dense.parameters))])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_the_same_bits_at_any_number_of_threads() -> None:
    x = pf.Parameter(numbers(1500, 16), name="x")
    logits = pf.layers.Dense(3000)(x)
    y = np.random.default_rng(1).integers(0, 3000, 1500)
    plan = pf.compile(seq.linear_cross_entropy(y, logits))
    found = []
    for threads in (1, 2, 3, 7):
        with pf.num_threads(threads):
            loss, gradients = plan.loss_and_gradients({})
            found.append([loss, *(np.array(g) for g in gradients.values())])
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(one, other)


def model_of(words: int) -> Any:
    pf.set_seed(0)
    layers = [pf.layers.Embedding(words, 16), seq.GRU(24, return_sequences=True)]
    return pf.Sequential([*layers, pf.layers.Dense(words)], input_shape=(32,))


def test_a_language_model_learns_with_it_as_with_all_logits() -> None:
    tokens = np.random.default_rng(0).integers(0, 300, (40, 33))
    inputs, targets = seq.teacher_forcing(tokens)
    histories = []
    for loss in ("linear_cross_entropy", "cross_entropy"):
        model = model_of(300)
        trainer = pf.Trainer(model, loss=loss, optimizer=pf.optimizers.Adam(1e-2))
        history = trainer.fit(inputs, targets, epochs=3, batch_size=16, seed=0, verbose=0)
        histories.append(history["loss"])
        assert model.predict(inputs).shape == (40, 32, 300)
    np.testing.assert_allclose(*histories, rtol=1e-4)
    assert histories[0][-1] < histories[0][0]


def test_a_step_has_no_logits() -> None:
    rows, words = 64 * 32, 4096
    y = pf.Placeholder("y", shape=(None, 32), dtype="int64")
    sizes = {}
    for loss in (seq.linear_cross_entropy, pf.CrossEntropy):
        model = model_of(words)
        plan = pf.compile(loss(y, model.outputs[0]), optimizer=pf.optimizers.SGD(0.1))
        feed = {model.inputs[0]: np.zeros((64, 32), np.int64), y: np.zeros((64, 32), np.int64)}
        sizes[loss] = plan.profile(feed, repeats=1).arena_bytes
    all_logits = rows * words * 4
    assert sizes[pf.CrossEntropy] > all_logits
    assert sizes[seq.linear_cross_entropy] < all_logits / 4


def test_labels_out_of_range_are_refused() -> None:
    x = pf.Placeholder("x", shape=(3, 4))
    plan = pf.compile(seq.linear_cross_entropy(np.array([0, 5, -1]), pf.layers.Dense(5)(x)))
    with pytest.raises(pf.LabelError, match="5"):
        plan.run({x: np.ones((3, 4))})
