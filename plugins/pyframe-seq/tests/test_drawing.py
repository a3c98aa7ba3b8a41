"""Drawing a token: the op against NumPy, writing against both, and what cannot be drawn."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyframe_seq as seq
import pytest

import pyframe as pf
from pyframe.testing import check_op

LAST = 1 - 2.0**-53  # the largest u
OPTIONS = [
    {},
    {"temperature": 0},
    {"temperature": 0.6},
    {"top_k": 3},
    {"top_p": 0.7},
    {"repetition_penalty": 1.5},
    {"temperature": 1.7, "top_k": 5, "top_p": 0.9, "repetition_penalty": 1.2},
]


def test_op() -> None:
    check_op(seq.DrawToken)


def model_of(words: int = 23, dtype: str = "float64") -> Any:
    pf.set_seed(5)
    layers = [pf.layers.Embedding(words, 16, weight_initializer="normal", dtype=dtype)]
    layers += [seq.TransformerDecoderBlock(2, attention={"rotary": True}), pf.layers.Dense(words)]
    return pf.Sequential(layers, input_shape=(None,), dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_text_is_that_of_a_decoder_and_draws_by_numpy(options: Any, dtype: str) -> None:
    model, prompt, length = model_of(dtype=dtype), [4, 7, 4], 40
    decoder, rng, text = seq.Decoder(model, 50), np.random.default_rng(11), list(prompt)
    for token in prompt:
        logits = decoder.step(token)
    while len(text) < len(prompt) + length:
        text.append(seq.draw_token(logits, rng, **options, seen=np.array(text)))
        logits = decoder.step(text[-1])
    told: list[int] = []
    found = seq.generate(model, prompt, length, seed=11, on_token=told.append, **options)
    assert found.tolist() == text and told == text[len(prompt) :]


def test_of_words_as_likely_as_the_last_none_is_left_out() -> None:
    rng, logits = np.random.default_rng(0), np.array([1.0, 0.0, 1.0, 1.0, -1.0])
    drawn = {seq.draw_token(logits, rng, top_k=2) for _ in range(200)}
    assert drawn == {0, 2, 3}
    drawn = {seq.draw_token(logits, rng, top_k=2, top_p=0.5) for _ in range(200)}
    assert drawn == {0, 2}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_an_error(value: float) -> None:
    with pytest.raises(pf.ArgumentError, match="no token can be drawn"):
        seq.draw_token(np.array([0.0, value]), np.random.default_rng(0))
    model = model_of()
    bias = model.parameters[-1]
    assert bias.shape == (23,)
    bias.value = np.where(np.arange(23) == 9, value, 0.0)
    with pytest.raises(pf.ArgumentError, match="no token can be drawn"):
        seq.generate(model, [1], 3)


def test_a_u_of_nan_draws_no_token() -> None:
    logits = pf.Placeholder("logits", shape=(None, 2))
    plan = pf.compile(seq.DrawToken(logits, np.array([np.nan, 0.9]), np.array([1.0, 9, 1, 1])))
    assert np.isnan(plan.run({logits: [[0.0, 1.0], [0.0, 1.0]]})).tolist() == [True, False]


def test_no_u_is_rounded_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 the largest one below 1 would draw the last word, however unlikely it is."""
    model = model_of(dtype="float32")
    bias = model.parameters[-1]
    bias.value = np.where(np.arange(23) == 9, 90.0, 0.0)
    monkeypatch.setattr(np.random, "default_rng", lambda seed: SimpleNamespace(random=lambda: LAST))
    assert seq.generate(model, [1], 3).tolist() == [1, 9, 9, 9]


LARGE = [{"top_k": 10**400}, {"temperature": 1e200}, {"top_p": 1e-200}]
LARGE += [{"repetition_penalty": 1e-200}, {"repetition_penalty": 1e200}, {"temperature": 1e-200}]


@pytest.mark.parametrize("options", LARGE, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.filterwarnings("error")
def test_settings_beyond_a_type_are_its_ends(options: Any, dtype: str) -> None:
    with np.errstate(all="raise"):
        assert len(seq.generate(model_of(dtype=dtype), [1], 3, seed=0, **options)) == 4


@pytest.mark.parametrize("options", [{"top_k": 0}, {"top_p": 0.0}, {"temperature": -1.0}], ids=str)
def test_settings_out_of_range_are_named(options: Any) -> None:
    with pytest.raises(pf.ArgumentError, match=f"draw_token: {next(iter(options))}"):
        seq.draw_token(np.zeros(3), np.random.default_rng(0), **options)
