"""Operators and indices on nodes, against NumPy; and what they refuse."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest

import pyframe as pf

X = np.arange(24.0).reshape(2, 3, 4) - 7.25


def placeholder(shape: tuple[int | None, ...] = (None, 3, 4), dtype: str = "float64") -> Any:
    return pf.Placeholder("x", shape=shape, dtype=dtype)


INDICES: list[Any] = [
    np.s_[:, 1:3],
    np.s_[..., None],
    np.s_[None],
    np.s_[None, ..., 0, None],
    np.s_[:, None, 1, None, ::-1],
    np.s_[-1, :, None, 2],
    np.s_[..., None, 1:],
    np.s_[1:],
    np.s_[...],
    np.s_[None, 1, ..., None, None],
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_an_index_takes_what_numpy_takes(index: Any) -> None:
    x = placeholder()
    got = pf.compile(x[index]).run({x: X})
    assert got.shape == X[index].shape and (got == X[index]).all()


@pytest.mark.parametrize("output", [pf.Sigmoid(placeholder())[1]])
def test_an_output_takes_an_index_too(output: Any) -> None:
    assert output[:, 1:].shape == (None, 2, 4)
    with pytest.raises(TypeError, match=r"write \[0, \.\.\.\]"):
        output[0]
    with pytest.raises(TypeError):
        iter(output)


@pytest.mark.parametrize(
    "compare", [operator.lt, operator.le, operator.gt, operator.ge], ids=lambda f: f.__name__
)
def test_comparisons_are_those_of_elements(compare: Any) -> None:
    x = placeholder()
    for other in (X[0], X[1] + 1, -3.25):
        assert (pf.compile(compare(x, other)).run({x: X}) == compare(X, other)).all()
    assert x == x and x != placeholder()  # identity


@pytest.mark.parametrize("exponent", [-2, -1, -0.5, 0, 0.5, 1, 2, 3, 4, 5, 1.5, -0.3, 20])
def test_powers(exponent: float) -> None:
    whole = float(exponent).is_integer()
    base = np.array([-3.0, -1.0, 0.25, 1.0, 2.5]) if whole else np.array([0.25, 1.0, 2.5])
    x = placeholder((None,))
    plan = pf.compile(pf.Sum(x**exponent))
    np.testing.assert_allclose(pf.compile(x**exponent).run({x: base}), base**exponent, rtol=1e-14)
    w = pf.Parameter(base, dtype="float64")
    _, gradients = pf.compile(pf.Sum(w**exponent)).loss_and_gradients({})
    slope = exponent * base ** (exponent - 1.0)
    np.testing.assert_allclose(gradients[w], slope, rtol=1e-13, atol=1e-14)
    assert plan is not None


def test_powers_at_the_edges() -> None:
    """As in C, infinities and zeros too; the gradient at 0 is that of the power, not NaN."""
    a = np.array([0.0, 0.0, -8.0, -8.0, 2.0, np.inf, -1.0, np.nan, 0.0])
    b = np.array([2.5, -1.0, 3.0, 1 / 3, -np.inf, 2.0, np.inf, 0.0, 0.0])
    with np.errstate(all="ignore"):
        expected = a**b
    got = pf.compile(pf.Pow(pf.Constant(a, dtype="float64"), b)).run({})
    np.testing.assert_allclose(got, expected, rtol=1e-14)
    w = pf.Parameter([0.0, 4.0], dtype="float64")
    _, gradients = pf.compile(pf.Sum(w**1.5)).loss_and_gradients({})
    assert gradients[w].tolist() == [0.0, 3.0]
    x = placeholder((None,))
    np.testing.assert_allclose(pf.compile(2.0**x).run({x: [0.5, -3.0]}), [2**0.5, 0.125])


def test_float32_powers_are_right_to_the_last_bits() -> None:
    a = np.geomspace(1e-3, 1e3, 4001).astype(np.float32)
    got = pf.compile(pf.Pow(pf.Constant(a), np.float32(9.7))).run({})
    expected = a.astype(np.float64) ** float(np.float32(9.7))
    assert np.max(np.abs(got / expected - 1)) < 1.2e-7


def test_what_is_not_chosen_does_no_harm() -> None:
    w = pf.Parameter([0.0, 4.0], dtype="float64")
    cost = pf.Sum(pf.Where(w > 0.0, 3.0 * w, np.array([-1.0, np.inf])))
    loss, gradients = pf.compile(cost).loss_and_gradients({})
    assert float(loss) == 11.0 and gradients[w].tolist() == [0.0, 3.0]
    x = placeholder((None,))
    chosen = pf.compile(pf.Where(x > 0.0, pf.Log(x), -x))
    assert chosen.run({x: [0.0, 1.0, -2.0]}).tolist() == [0.0, 0.0, 2.0]


def test_rows_by_their_numbers() -> None:
    w = pf.Parameter(X[0], name="table", dtype="float64")
    rows = pf.Placeholder("rows", shape=(None,), dtype="int64")
    taken = w[rows]
    plan = pf.compile(pf.Sum(taken * taken))
    loss, gradients = plan.loss_and_gradients({rows: [2, 0, 2]})
    assert float(loss) == (X[0][[2, 0, 2]] ** 2).sum()
    assert (gradients[w] == 2 * X[0] * [[1], [0], [2]]).all()
    with pytest.raises(pf.LabelError, match=r"take: index 3 at position 1 .*\[0, 3\), .*; indices"):
        plan.loss_and_gradients({rows: [0, 3]})
    with pytest.raises(pf.ArgumentError, match=r"pyframe\.Where"):
        w[w > 0.0]


def test_parts() -> None:
    x = placeholder()
    got = pf.compile(pf.Split(x, [1, 3], axis=-1)).run({x: X})
    for mine, numpys in zip(got, np.split(X, [1], axis=-1), strict=True):
        assert (mine == numpys).all()
    with pytest.raises(pf.ShapeError, match="not made up of parts"):
        pf.Split(x, 3, axis=-1)
    with pytest.raises(pf.ShapeError, match="must be known"):
        pf.Split(x, 2)


def test_what_einsum_refuses() -> None:
    x = placeholder()
    for equation, match in {
        "abc,cd": "of 2 operands and got 1",
        "aac->c": "twice",
        "a...->a": "letters",
        "abc->d": "no operand has d",
    }.items():
        with pytest.raises(pf.ArgumentError, match=match):
            pf.Einsum(equation, x)
    with pytest.raises(pf.ShapeError, match="does not name the axes"):
        pf.Einsum("ab->a", x)
    with pytest.raises(pf.ShapeError, match="extents 4 and 3"):
        pf.Einsum("abc,bb1->a".replace("bb1", "cb"), x, x[0, ...])


def test_clip_needs_a_bound_that_makes_sense() -> None:
    for bounds in ({}, {"low": 1.0, "high": 0.0}, {"low": float("nan"), "high": 1.0}):
        with pytest.raises(pf.ArgumentError, match="Clip"):
            pf.Clip(placeholder(), **bounds)
