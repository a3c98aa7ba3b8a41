"""Softmax and cross-entropy over rows of every kind of length, for each instruction set."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from pyframe.graph.spec import Array
from pyframe.native import core

every_set = pytest.mark.parametrize("isa", core.instruction_sets())


@every_set
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("classes", [1, 2, 10, 16, 17, 1000, 1025, 3000])
def test_softmax_and_cross_entropy_of_rows(classes: int, dtype: str, isa: str) -> None:
    rng = np.random.default_rng(classes)
    rows = 131
    x = (30 * rng.normal(size=(rows, classes))).astype(dtype)
    labels = rng.integers(0, classes, rows)
    bits, eps = 8 * x.itemsize, np.finfo(dtype).eps

    def call(name: str, inputs: list[Any], shape: tuple[int, ...], attributes: bytes) -> Array:
        y = np.full(shape, np.nan, dtype)
        status, *_ = core.call_kernel(
            name,
            bits,
            inputs,
            [y],
            attributes=attributes,
            kernel=core.find_kernel(name, bits, isa),
        )
        assert status == 0
        return y

    wide = x.astype(np.longdouble)
    shifted = wide - wide.max(axis=1, keepdims=True)
    expected = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    last_axis, as_is = np.int64(1).tobytes(), np.int64(2).tobytes() + np.float64(0).tobytes()
    tolerance = (8 + math.log2(classes)) * eps
    got = call("softmax", [x], x.shape, last_axis)
    # x - max is rounded, and the exponential multiplies that error.
    allowed = tolerance * (expected * (1 + np.abs(shifted)) + np.finfo(dtype).tiny)
    assert (np.abs(got - expected) <= allowed).all()
    loss = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(rows), labels]
    got = call("cross_entropy", [labels, x, None], (rows,), as_is)
    assert (np.abs(got - loss) <= tolerance * (1 + np.abs(loss))).all()
    one_hot = np.arange(classes) == labels[:, None]
    got = call("cross_entropy_grad", [np.ones(rows, dtype), labels, x, None], x.shape, as_is)
    assert (np.abs(got - (expected - one_hot)) <= tolerance).all()
