"""Writing token by token: the cache against the whole forward pass, and bad arguments."""

from __future__ import annotations

import copy
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyframe_seq as seq
import pytest
from pyframe_seq import generation
from pyframe_seq.attention import Attention

import pyframe as pf

OPTIONS = [
    {},
    {"attention": {"rotary": True}},
    {"attention": {"alibi": True, "kv_heads": 2}},
    {"attention": {"window": 3, "rotary": 100.0}, "activation": "swiglu", "norm": "rms_norm"},
    {"attention": {"qk_norm": True, "size": 6}, "norm_first": False},
]


def model_of(options: Any, positions: Any = None, vocabulary: int = 11) -> Any:
    pf.set_seed(3)
    layers = [pf.layers.Embedding(vocabulary, 16, weight_initializer="normal", dtype="float64")]
    layers += [] if positions is None else [positions]
    layers += [seq.TransformerDecoderBlock(4, **options) for _ in range(2)]
    layers += [pf.layers.Dense(vocabulary)]
    return pf.Sequential(layers, input_shape=(None,), dtype="float64")


MODELS = [(o, None) for o in OPTIONS]
MODELS += [({}, seq.LearnedPositions), ({}, seq.SinusoidalPositions)]


@pytest.mark.parametrize("options,positions", MODELS)
def test_the_cache_gives_the_logits_of_the_whole(options: Any, positions: Any) -> None:
    model = model_of(options, None if positions is None else positions(20))
    tokens = np.random.default_rng(0).integers(0, 11, 14)
    whole = model.predict(tokens[None])[0]
    decoder = seq.Decoder(model, 14)
    for token, logits in zip(tokens, whole, strict=True):
        np.testing.assert_allclose(decoder.step(int(token)), logits, rtol=1e-9, atol=1e-10)
    with pytest.raises(pf.ArgumentError, match="room for 14"):
        decoder.step(0)


def test_greedy_is_the_likeliest_each_time() -> None:
    model = model_of({"attention": {"rotary": True}})
    text = seq.generate(model, [1, 2], 9, temperature=0)
    for end in range(2, 11):
        assert text[end] == model.predict(text[None, :end])[0, -1].argmax()
    assert np.array_equal(seq.generate(model, [1, 2], 9, top_k=1), text)
    assert np.array_equal(seq.generate(model, [1, 2], 9, top_p=1e-9), text)


def test_one_seed_one_text() -> None:
    model = model_of({})
    a, b, c = (seq.generate(model, [5], 20, seed=s) for s in (1, 1, 2))
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    assert seq.generate(model, [5], 0).tolist() == [5]


@pytest.mark.parametrize("positions", [None, seq.LearnedPositions(30)])
def test_a_graph_made_once_writes_what_one_made_anew_does(positions: Any) -> None:
    model, given = model_of({"attention": {"rotary": True}}, positions), np.arange(8) % 11
    trainer = pf.Trainer(model, loss="cross_entropy", optimizer="adam")
    for length in (20, 12):
        first = seq.generate(model, [1, 2], length, seed=1)
        trainer.fit(given[None, :-1], given[None, 1:], epochs=3, batch_size=1, verbose=0)
        trained = seq.generate(model, [1, 2], length, seed=1)
        anew = seq.generate(copy.deepcopy(model), [1, 2], length, seed=1)
        assert np.array_equal(trained, anew) and not np.array_equal(trained, first)
    if positions is not None:
        with pytest.raises(pf.ArgumentError, match="30 positions"):
            seq.generate(model, [1, 2], 29)


def test_threads_write_the_same_side_by_side() -> None:
    model = model_of({})
    lengths = [5, 9, 13, 17] * 3
    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(lambda n: seq.generate(model, [3], n, seed=n), lengths))
    for length, text in zip(lengths, texts, strict=True):
        assert np.array_equal(text, seq.generate(copy.deepcopy(model), [3], length, seed=length))


def test_decoders_of_many_capacities_are_lowered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, lowered = model_of({"attention": {"window": 3}}), []
    counted = Attention.scratch_bytes

    def count(node: Any, specs: Any) -> int:
        lowered.append(specs)
        return counted(node, specs)

    monkeypatch.setattr(Attention, "scratch_bytes", count)
    alone = seq.Decoder(copy.deepcopy(model), 64)
    texts = [[alone.step(token).copy() for token in (1, 2, 3, 4)]] * 24
    once = len(lowered)
    assert once > 0
    decoders = [seq.Decoder(model, capacity) for capacity in range(4, 28)]
    for at, token in enumerate((1, 2, 3, 4)):
        for decoder, logits in zip(decoders, texts, strict=True):
            np.testing.assert_array_equal(decoder.step(token), logits[at])
    assert len(lowered) == 2 * once
    with pytest.raises(pf.ArgumentError, match="room for 4"):
        decoders[0].step(5)


@pytest.mark.parametrize("length", [14, 60])
@pytest.mark.parametrize("options", OPTIONS)
def test_more_room_changes_no_bit(
    options: Any, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = np.random.default_rng(1).integers(0, 11, length)
    found = []
    for least in (1, 512):
        monkeypatch.setattr(generation, "LEAST_ROOM", least)
        decoder = seq.Decoder(model_of(options), len(tokens))
        found.append([decoder.step(int(token)).copy() for token in tokens])
    np.testing.assert_array_equal(*found)


def test_what_is_made_for_writing_goes_with_the_model() -> None:
    model = model_of({})
    seq.generate(model, [1], 2)
    gone = weakref.ref(model), weakref.ref(model.graph), weakref.ref(model.parameters[0])
    del model
    gc.collect()
    assert [thing() for thing in gone] == [None] * 3


def test_tokens_are_drawn_by_their_probabilities() -> None:
    rng, logits = np.random.default_rng(0), np.log([0.5, 0.3, 0.15, 0.05])

    def share(**options: Any) -> Any:
        drawn = [seq.draw_token(logits, rng, **options) for _ in range(4000)]
        return np.bincount(drawn, minlength=4) / 4000

    np.testing.assert_allclose(share(), [0.5, 0.3, 0.15, 0.05], atol=0.03)
    np.testing.assert_allclose(share(top_k=2), [0.625, 0.375, 0, 0], atol=0.03)
    np.testing.assert_allclose(share(top_p=0.7), [0.625, 0.375, 0, 0], atol=0.03)
    p = np.array([0.25, 0.09, 0.0225, 0.0025])
    np.testing.assert_allclose(share(temperature=0.5), p / p.sum(), atol=0.03)
    few = seq.draw_token(logits, rng, 0, repetition_penalty=3.0, seen=np.array([0]))
    assert few == 1


@pytest.mark.parametrize(
    "options,word",
    [
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"temperature": -1}, "temperature"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"length": -1}, "length"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [0.5]}, "prompt"),
    ],
)
def test_bad_arguments_are_named(options: Any, word: str) -> None:
    given = {"prompt": [1], "length": 3, **options}
    with pytest.raises(pf.ArgumentError, match=word):
        seq.generate(model_of({}), **given)


def test_what_cannot_be_written_is_refused() -> None:
    with pytest.raises(pf.LabelError, match="11"):
        seq.generate(model_of({}), [11], 3)
    with pytest.raises(pf.ArgumentError, match="5 positions"):
        seq.generate(model_of({}, seq.LearnedPositions(5)), [1, 2, 3], 3)
    recurrent = [pf.layers.Embedding(5, 8), seq.GRU(4, return_sequences=True), pf.layers.Dense(5)]
    with pytest.raises(pf.GraphError, match="no states"):
        seq.generate(pf.Sequential(recurrent, input_shape=(None,)), [1, 2, 3], 3)
    layers = [pf.layers.Embedding(5, 8), seq.TransformerEncoderBlock(2), pf.layers.Dense(5)]
    with pytest.raises(pf.GraphError, match="causal"):
        seq.generate(pf.Sequential(layers, input_shape=(None,)), [1], 3)
