"""Matrix products: what the derived tests do not say."""

from __future__ import annotations

import numpy as np
import pytest

import pyframe as pf
from pyframe.errors import ShapeError
from pyframe.native import core

# Around the tile (4 rows, 8 or 4 columns), the panel (256 terms) and the special cases of one row,
# one column and few rows.
SHAPES = [
    (m, n, k)
    for m in (1, 2, 3, 4, 5, 15, 16, 17)
    for n in (1, 3, 4, 7, 8, 9, 17)
    for k in (0, 1, 63, 64, 255, 256, 257, 513)
]


@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_of_whole_numbers_are_exact(
    dtype: type, transpose_a: bool, transpose_b: bool
) -> None:
    rng = np.random.default_rng(0)
    block = np.array([transpose_a, transpose_b], np.int64).tobytes()
    for m, n, k in SHAPES:
        a = rng.integers(-4, 5, (k, m) if transpose_a else (m, k)).astype(dtype)
        b = rng.integers(-4, 5, (n, k) if transpose_b else (k, n)).astype(dtype)
        # a second matrix in a batch, so that the path for one tall matrix is not taken
        a, b = np.stack([a, -a]), np.stack([b, b])
        y = np.full((2, m, n), np.nan, dtype)
        bits = 8 * y.itemsize
        status, *_ = core.call_kernel("matmul", bits, [a, b], [y], attributes=block)
        assert status == 0
        left = np.swapaxes(a, 1, 2) if transpose_a else a
        right = np.swapaxes(b, 1, 2) if transpose_b else b
        assert np.array_equal(y, left @ right), (m, n, k)


def test_every_column_of_a_long_sum_is_close() -> None:
    """A float32 sum of 100,000 terms: the error stays near that of a tree, not of a chain."""
    rng = np.random.default_rng(1)
    dy = rng.uniform(0.5, 1.5, (100_000, 3)).astype(np.float32)
    x = np.ones((100_000, 1), np.float32)
    weight = np.ones((1, 3), np.float32)
    dweight, dbias = np.empty((1, 3), np.float32), np.empty(3, np.float32)
    core.call_kernel("linear_grad", 32, [dy, x, weight], [None, dweight, dbias])
    exact = dy.astype(np.float64).sum(axis=0)
    assert np.abs(dbias / exact - 1).max() < 1e-5
    assert np.abs(dweight[0] / exact - 1).max() < 1e-5


def test_weights_whose_rank_only_the_feed_tells() -> None:
    """The lesson feeds its weights: numbers or matrices, as it likes."""
    x, k, b = pf.Placeholder("x"), pf.Placeholder("k"), pf.Placeholder("b")
    line = pf.Linear(x, k, b)
    assert line.shape is None
    plan = pf.compile(line)
    rooms = np.array([6.0, 7.0])
    assert np.array_equal(plan.run({x: rooms, k: 2.0, b: -1.0}), [11.0, 13.0])
    columns = {x: rooms[:, None], k: [[1.0, 10.0]], b: [0.5, 0.0]}
    assert np.array_equal(plan.run(columns), [[6.5, 60.0], [7.5, 70.0]])


@pytest.mark.parametrize(
    ("x", "weight", "bias", "said"),
    [
        ((4, 3), (1,), None, "a number of shape \\(\\)"),
        ((3,), (3, 2), None, "at least one axis of rows"),
        ((4, 3), (2, 3), None, "the rows of x have 3 elements, the weight takes 2"),
        ((4, 3), (3, 2), (3,), "the bias must have one element for each column"),
        ((4, 3), (), (1,), "a scalar weight goes with a scalar bias"),
    ],
)
def test_linear_refuses(x: tuple, weight: tuple, bias: tuple | None, said: str) -> None:
    value = pf.Placeholder("rooms", shape=x)
    with pytest.raises(ShapeError, match=f"layer.*{said}.*rooms"):
        pf.Linear(value, np.ones(weight), None if bias is None else np.ones(bias), name="layer")


def test_matmul_of_a_vector_tells_to_reshape() -> None:
    with pytest.raises(ShapeError, match="reshape a vector"):
        pf.Placeholder("x", shape=(4, 3)) @ np.ones(3)


@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("transpose_a", [False, True])
def test_matmul_sums_the_gradient_of_what_was_broadcast(
    transpose_a: bool, transpose_b: bool
) -> None:
    rng = np.random.default_rng(2)
    a = pf.Parameter(rng.normal(size=(1, 3, 4) if not transpose_a else (1, 4, 3)), dtype="float64")
    b = pf.Parameter(rng.normal(size=(5, 4, 2) if not transpose_b else (5, 2, 4)), dtype="float64")
    product = pf.MatMul(a, b, transpose_a, transpose_b)
    target = rng.normal(size=(5, 3, 2))
    cost = pf.L2Loss(target, product, reduction="sum")
    _, gradients = pf.compile(cost).loss_and_gradients({})
    left = a.value.swapaxes(1, 2) if transpose_a else a.value
    right = b.value.swapaxes(1, 2) if transpose_b else b.value
    dy = 2 * (left @ right - target)
    da = (dy @ right.swapaxes(1, 2)).sum(axis=0, keepdims=True)
    db = left.swapaxes(1, 2) @ dy
    assert np.allclose(gradients[a], da.swapaxes(1, 2) if transpose_a else da, rtol=1e-12)
    assert np.allclose(gradients[b], db.swapaxes(1, 2) if transpose_b else db, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", [pf.Relu, pf.LeakyRelu, pf.Sigmoid, pf.Tanh])
def test_a_number_for_a_weight_takes_the_slope_in_front_of_it(activation: type, dtype: str) -> None:
    x = pf.Placeholder("x", shape=(None,), dtype=dtype)
    first, second = (
        [pf.Parameter(value, name, dtype=dtype) for value, name in pairs]
        for pairs in ([(0.7, "k1"), (-0.2, "b1")], [(1.3, "k2"), (0.4, "b2")])
    )
    cost = pf.Sum(pf.Linear(activation(pf.Linear(x, *first)), *second))
    feed = {x: np.linspace(-3, 3, 47)}
    found = []
    for fuse in (["epilogue"], False):
        plan = pf.compile(cost, fuse=fuse)
        loss, gradients = plan.loss_and_gradients(feed)
        found.append([loss, *(gradients[p] for p in (*first, *second))])
        assert (f" {activation.op}_grad " in str(plan)) != bool(fuse), str(plan)
    for got, wanted in zip(*found, strict=True):
        assert np.array_equal(got, wanted)
