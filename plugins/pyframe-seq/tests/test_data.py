"""Padding, buckets, windows and tokens."""

from __future__ import annotations

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
    text = "the theory of the thing " * 20
    try:
        import tokenizers  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match="pyframe-seq"):
            seq.BytePairTokenizer(text)
        return
    tokenizer = seq.BytePairTokenizer(text, 300)
    tokens = tokenizer.encode("the thing")
    assert tokenizer.decode(tokens) == "the thing" and len(tokens) < 5
