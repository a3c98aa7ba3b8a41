"""What the derived tests cannot know of the element-wise ops, reductions and shape ops.

Units in the last place over all of float32, infinity and NaN, NumPy's broadcasting and indexing up
to the highest rank, the error of long sums, and what is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.errors import ArgumentError, GraphError, ShapeError
from pyframe.graph.node import Constant, Value
from pyframe.graph.spec import Array
from pyframe.native import core
from pyframe.ops import activations as act
from pyframe.ops import arithmetic as arith
from pyframe.ops import reductions as red
from pyframe.ops import shapes

both_dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])
INF, NAN = np.inf, np.nan


def compute(op: type[pf.Op], *arrays: Any, dtype: str = "float32", **attributes: Any) -> Array:
    """Return what one op makes of arrays."""
    given = [np.asarray(a, dtype) for a in arrays]
    inputs = [pf.Placeholder(f"x{i}", a.shape, dtype) for i, a in enumerate(given)]
    plan = pf.compile(op(*inputs, **attributes))
    return np.asarray(plan.run(dict(zip(inputs, given, strict=True))))


def gradients(op: Any, *arrays: Any, dy: Any = 1.0) -> list[Array]:
    """Return the derivatives of sum(dy * op(arrays)) by each of the arrays, in float64."""
    parameters = [pf.Parameter(a, f"p{i}", dtype="float64") for i, a in enumerate(arrays)]
    result: Value = op(*parameters)
    plan = pf.compile(red.Sum(result * Constant(dy, dtype="float64")))
    _, found = plan.loss_and_gradients({})
    return [found[p] for p in parameters]


# ---- activations ----

ACTIVATIONS: list[tuple[type[pf.Op], type[pf.Op] | None, dict[str, Any]]] = [
    (act.Relu, None, {}),
    (act.LeakyRelu, act.LeakyReluGrad, {"slope": 0.01}),
    (act.Elu, act.EluGrad, {"alpha": 1.0}),
    (act.Sigmoid, None, {}),
    (act.Tanh, None, {}),
    (act.Softplus, act.SoftplusGrad, {}),
    (act.Silu, act.SiluGrad, {}),
    (act.Gelu, None, {"approximate": "none"}),
    (act.Gelu, None, {"approximate": "tanh"}),
    (arith.Exp, None, {}),
    (arith.Log, None, {}),
    (arith.Sqrt, None, {}),
]


def all_of_float32() -> Array:
    """Return numbers of every sign and exponent, and many where activations bend."""
    patterns = np.arange(0, 2**32, 2**15 + 1, dtype=np.uint64).astype(np.uint32)
    spread = patterns.view(np.float32)
    bends = np.linspace(-110, 110, 50_001, dtype=np.float32)
    zeros = np.linspace(-1.5, -0.5, 20_001, dtype=np.float32)  # of the gradients of gelu and silu
    return np.concatenate([spread[np.isfinite(spread)], bends, zeros])


def units_off(got: Array, expected: Array) -> Array:
    """Return how many float32 units in the last place `got` is off."""
    with np.errstate(over="ignore"):
        rounded = expected.astype(np.float32)
    unit = np.spacing(np.abs(np.where(np.isfinite(rounded), rounded, 1))).astype(np.float64)
    off = np.abs(got.astype(np.float64) - expected) / unit
    same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    return np.where(same, 0.0, np.where(np.isnan(off), INF, off))


@pytest.mark.parametrize("op, grad, attributes", ACTIVATIONS)
def test_four_units_in_the_last_place(
    op: type[pf.Op], grad: type[pf.Op] | None, attributes: dict[str, Any]
) -> None:
    x = all_of_float32()
    wide = x.astype(np.float64)
    with np.errstate(all="ignore"):
        expected = op.reference(wide, **attributes)
        if isinstance(expected, tuple):  # its slope is looked at below
            expected = expected[0]
        off = units_off(compute(op, x, **attributes), expected)
        assert off.max() <= 4, f"{off.max()} units at x = {x[off.argmax()]!r}"
        if grad is not None:
            expected = grad.reference(np.ones_like(wide), wide, **attributes)
            off = units_off(compute(grad, np.ones_like(x), x, **attributes), expected)
            assert off.max() <= 4, f"gradient: {off.max()} units at x = {x[off.argmax()]!r}"


def value_and_slope(op: type[pf.Op], x: Array, attributes: dict[str, Any]) -> tuple[Array, Array]:
    """Return both outputs of the kernel of an op."""
    block = op(x, **attributes).pack_attributes([])
    y, slope = np.full_like(x, np.nan), np.full_like(x, np.nan)
    status = core.call_kernel(op.kernel, 8 * x.itemsize, [x], [y, slope], attributes=block)[0]
    assert status == 0
    return y, slope


WITH_SLOPES: list[tuple[type[pf.Op], dict[str, Any], list[float]]] = [
    (act.Sigmoid, {}, [0, 0.25, 0.25, 0, NAN]),
    (act.Tanh, {}, [0, 1, 1, 0, NAN]),
    (act.Gelu, {"approximate": "none"}, [0, 0.5, 0.5, 1, NAN]),
    (act.Gelu, {"approximate": "tanh"}, [0, 0.5, 0.5, 1, NAN]),
]


@pytest.mark.parametrize("op, attributes, limits", WITH_SLOPES)
def test_slopes_to_four_units_where_the_output_saturates(
    op: type[pf.Op], attributes: dict[str, Any], limits: list[float]
) -> None:
    x = all_of_float32()
    y, slope = value_and_slope(op, x, attributes)
    np.testing.assert_array_equal(y, compute(op, x, **attributes))
    with np.errstate(all="ignore"):
        expected = op.reference(x.astype(np.float64), **attributes)[1]
    off = units_off(slope, expected)
    assert off.max() <= 4, f"{off.max()} units at x = {x[off.argmax()]!r}"


@pytest.mark.parametrize("op, attributes, limits", WITH_SLOPES)
def test_slopes_get_no_gradient(
    op: type[pf.Op], attributes: dict[str, Any], limits: list[float]
) -> None:
    slope = op(pf.Parameter(np.ones(3), name="w"), **attributes)[1]
    with pytest.raises(pf.GraphError, match="its output 0 only; output 1 gets no gradient"):
        pf.compile(pf.Sum(slope)).loss_and_gradients({})


# What comes of -infinity, -0.0, 0.0, infinity and NaN: the limits, and NaN.
LIMITS: list[tuple[type[pf.Op], dict[str, Any], list[float]]] = [
    (act.Relu, {}, [0, 0, 0, INF, NAN]),
    (act.LeakyRelu, {"slope": 0.5}, [-INF, 0, 0, INF, NAN]),
    (act.Elu, {"alpha": 2.0}, [-2, 0, 0, INF, NAN]),
    (act.Sigmoid, {}, [0, 0.5, 0.5, 1, NAN]),
    (act.Tanh, {}, [-1, 0, 0, 1, NAN]),
    (act.Softplus, {}, [0, np.log(2), np.log(2), INF, NAN]),
    (act.Silu, {}, [0, 0, 0, INF, NAN]),
    (act.Gelu, {"approximate": "none"}, [0, 0, 0, INF, NAN]),
    (act.Gelu, {"approximate": "tanh"}, [0, 0, 0, INF, NAN]),
    (arith.Neg, {}, [INF, 0, 0, -INF, NAN]),
    (arith.Abs, {}, [INF, 0, 0, INF, NAN]),
    (arith.Square, {}, [INF, 0, 0, INF, NAN]),
    (arith.Sqrt, {}, [NAN, 0, 0, INF, NAN]),
    (arith.Exp, {}, [0, 1, 1, INF, NAN]),
    (arith.Log, {}, [NAN, -INF, -INF, INF, NAN]),
]

# The derivative there.
SLOPES: list[tuple[type[pf.Op], dict[str, Any], list[float]]] = [
    (act.LeakyReluGrad, {"slope": 0.5}, [0.5, 0.5, 0.5, 1, 0.5]),
    (act.EluGrad, {"alpha": 2.0}, [0, 2, 2, 1, NAN]),
    (act.SoftplusGrad, {}, [0, 0.5, 0.5, 1, NAN]),
    (act.SiluGrad, {}, [0, 0.5, 0.5, 1, NAN]),
    (act.ReluGrad, {}, [0, 0, 0, 1, 1]),
    (arith.AbsGrad, {}, [-1, 0, 0, 1, NAN]),
]
SPECIAL = np.array([-INF, -0.0, 0.0, INF, NAN])


@both_dtypes
@pytest.mark.parametrize("op, attributes, expected", LIMITS)
def test_infinity_and_nan(
    op: type[pf.Op], attributes: dict[str, Any], expected: list[float], dtype: str
) -> None:
    # Behind one another and far apart: the vector loop and what is left over both see them.
    x = np.tile(SPECIAL, 13)
    got = compute(op, x, dtype=dtype, **attributes)
    np.testing.assert_array_equal(got, np.tile(np.array(expected, dtype), 13))


@both_dtypes
@pytest.mark.parametrize("op, attributes, expected", SLOPES)
def test_slopes_at_infinity_and_nan(
    op: type[pf.Op], attributes: dict[str, Any], expected: list[float], dtype: str
) -> None:
    x = np.tile(SPECIAL, 13)
    got = compute(op, np.ones(65), x, dtype=dtype, **attributes)
    np.testing.assert_array_equal(got, np.tile(np.array(expected, dtype), 13))


@both_dtypes
@pytest.mark.parametrize("op, attributes, limits", WITH_SLOPES)
def test_slopes_beside_values_at_infinity_and_nan(
    op: type[pf.Op], attributes: dict[str, Any], limits: list[float], dtype: str
) -> None:
    _, slope = value_and_slope(op, np.tile(SPECIAL, 13).astype(dtype), attributes)
    np.testing.assert_array_equal(slope, np.tile(np.array(limits, dtype), 13))


def test_gelu_knows_two_ways() -> None:
    x = pf.Placeholder("x", (3,))
    with pytest.raises(ArgumentError, match="'erf'"):
        act.Gelu(x, approximate="erf")
    exact, tanh = (compute(act.Gelu, [1.0], approximate=a)[0] for a in ("none", "tanh"))
    assert exact == pytest.approx(0.8413447, abs=1e-7)
    assert tanh == pytest.approx(0.8411920, abs=1e-7)


# ---- broadcasting ----


@both_dtypes
@pytest.mark.parametrize(
    "op, ufunc",
    [
        (arith.Add, np.add),
        (arith.Sub, np.subtract),
        (arith.Mul, np.multiply),
        (arith.Div, np.divide),
        (arith.Maximum, np.maximum),
    ],
)
def test_broadcasting_is_numpy_s_up_to_rank_8(op: type[pf.Op], ufunc: Any, dtype: str) -> None:
    rng = np.random.default_rng(3)
    for rank in [*range(9), 8, 8, 7, 6]:
        full = rng.choice([1, 2, 3, 4], rank)
        a, b = (
            rng.normal(size=np.where(rng.random(rank) < 0.4, 1, full)[rng.integers(rank + 1) :])
            for _ in range(2)
        )
        if a.ndim < rank and b.ndim < rank:
            a = a.reshape((1,) * (rank - a.ndim) + a.shape)
        expected = ufunc(a.astype(dtype), b.astype(dtype))
        got = compute(op, a, b, dtype=dtype)
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


def test_maximum_passes_nan_on_from_either_side() -> None:
    a, b = np.array([NAN, 1, NAN, 2.0, -INF]), np.array([1, NAN, NAN, INF, -INF])
    np.testing.assert_array_equal(compute(arith.Maximum, a, b), np.maximum(a, b))


def test_equal_operands_of_maximum_share_the_gradient() -> None:
    da, db = gradients(arith.Maximum, [1.0, 2.0, 3.0], [3.0, 2.0, 1.0], dy=[10.0, 20.0, 30.0])
    assert da.tolist() == [0, 10, 30]
    assert db.tolist() == [10, 10, 0]


def test_gradients_go_back_to_the_shape_before_broadcasting() -> None:
    rng = np.random.default_rng(0)
    a, b, dy = rng.normal(size=(4, 1, 3)), rng.normal(size=(5, 1)), rng.normal(size=(4, 5, 3))
    da, db = gradients(lambda a, b: a / b, a, b, dy=dy)
    np.testing.assert_allclose(da, (dy / b).sum(1, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(db, (-dy * a / b**2).sum((0, 2))[:, None], rtol=1e-12)
    da, db = gradients(lambda a, b: a - b * a, a, b, dy=dy)
    np.testing.assert_allclose(da, (dy * (1 - b)).sum(1, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(db, (-dy * a).sum((0, 2))[:, None], rtol=1e-12)


def test_operators_take_numbers_and_arrays_on_either_side() -> None:
    x = pf.Placeholder("x", (2,))
    fed = np.array([1.0, 4.0], np.float32)
    for node, expected in [
        (1 - x, 1 - fed),
        (np.ones(2) * x, fed),
        (2 / x + x / 2, 2 / fed + fed / 2),
        (abs(-x), fed),
        (x**2 - x**0.5, fed**2 - fed**0.5),
    ]:
        np.testing.assert_array_equal(pf.compile(node).run({x: fed}), expected)


def test_shapes_that_do_not_broadcast_are_named() -> None:
    a, b = pf.Placeholder("a", (None, 3)), pf.Placeholder("b", (4,))
    with pytest.raises(ShapeError, match=r"plus.*a \(\?, 3\), b \(4,\)"):
        arith.Add(a, b, name="plus")
    with pytest.raises(ShapeError, match="one shape"):
        arith.AddN(b, pf.Placeholder("c", (5,)))
    with pytest.raises(GraphError, match="got none"):
        arith.AddN()


def test_unknown_extents_are_broadcast_when_they_are_known() -> None:
    a, b = pf.Placeholder("a", (None, 3)), pf.Placeholder("b", (None, 3))
    plan = pf.compile(a + b)
    assert plan.run({a: np.ones((1, 3)), b: np.ones((5, 3))}).shape == (5, 3)
    with pytest.raises(ShapeError, match=r"\(2, 3\).*\(5, 3\)"):
        plan.run({a: np.ones((2, 3)), b: np.ones((5, 3))})


def test_more_than_eight_axes_are_refused() -> None:
    with pytest.raises(ShapeError, match="9 axes"):
        arith.Neg(pf.Placeholder("x", (1,) * 9))
    x = pf.Placeholder("x")
    with pytest.raises(ShapeError, match="9 axes"):
        pf.compile(red.Sum(x)).run({x: np.ones((1,) * 9)})
    with pytest.raises(ShapeError, match="9 axes"):
        shapes.Reshape(pf.Placeholder("x", (1,)), (1,) * 9)


# ---- reductions ----


@pytest.mark.parametrize(
    "shape, axis",
    [
        ((1_000_000,), 0),
        ((1_000_000, 3), 0),
        ((3, 1_000_000), 1),
        ((10_000, 2, 100), (0, 2)),
        ((1000, 1, 1000, 2), (0, 2)),
    ],
)
def test_the_error_of_a_long_sum_grows_with_its_root_only(shape: Any, axis: Any) -> None:
    # Equal terms are the worst case: all roundings of a running sum go the same way.
    x = np.full(shape, 0.1, np.float32)
    exact = x.astype(np.float64).sum(axis)
    terms = x.size // exact.size
    bound = np.finfo(np.float32).eps * (1 + np.sqrt(terms)) * exact
    assert np.all(np.abs(compute(red.Sum, x, axis=axis) - exact) <= bound)
    assert np.all(np.abs(compute(red.Mean, x, axis=axis) - np.float32(0.1)) <= bound / terms)


@both_dtypes
def test_reductions_pass_infinity_and_nan_on(dtype: str) -> None:
    x = np.zeros((9, 37), dtype)
    x[1, 30], x[2, 3], x[3, 36], x[4, 0], x[4, 20] = INF, NAN, -INF, INF, -INF
    x[5], x[6, 20], x[7, 35], x[7, 1] = -INF, NAN, NAN, INF
    for axis in (0, 1, None):
        with np.errstate(invalid="ignore"):
            for op, function in ((red.Sum, np.sum), (red.Mean, np.mean), (red.Max, np.max)):
                got = compute(op, x, dtype=dtype, axis=axis)
                np.testing.assert_array_equal(got, function(x, axis=axis))


def test_the_mean_of_nothing_is_nan_and_its_maximum_an_error() -> None:
    assert compute(red.Sum, np.zeros((2, 0)), axis=1).tolist() == [0, 0]
    assert np.isnan(compute(red.Mean, np.zeros((2, 0)), axis=1)).all()
    assert compute(red.Max, np.zeros((0, 3)), axis=1).shape == (0,)
    x = pf.Placeholder("x", (None, 3))
    greatest = pf.compile(red.Max(x, axis=0))
    assert greatest.run({x: [[1, 5, 2], [4, 3, 2]]}).tolist() == [4, 5, 2]
    with pytest.raises(ShapeError, match="empty"):
        greatest.run({x: np.zeros((0, 3))})


def test_tied_maxima_share_the_gradient() -> None:
    x = [[2.0, 7.0, 7.0, 1.0], [5.0, 5.0, 5.0, 5.0]]
    (dx,) = gradients(lambda x: red.Max(x, axis=1), x, dy=[6.0, 8.0])
    assert dx.tolist() == [[0, 3, 3, 0], [2, 2, 2, 2]]
    (dx,) = gradients(red.Max, x)
    assert dx.tolist() == [[0, 0.5, 0.5, 0], [0, 0, 0, 0]]


def test_axes_that_do_not_exist_are_refused() -> None:
    x = pf.Placeholder("x", (2, 3))
    for axis in (2, -3, (0, 5)):
        with pytest.raises(ShapeError, match="does not exist"):
            red.Sum(x, axis=axis)
    with pytest.raises(ShapeError, match="twice"):
        red.Mean(x, axis=(0, -2))


# ---- shapes ----


def random_index(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Any, ...]:
    def end() -> int | None:
        return None if rng.random() < 0.3 else int(rng.integers(-7, 8))

    index: list[Any] = [
        int(rng.integers(-n, n))
        if n > 0 and rng.random() < 0.25
        else slice(end(), end(), [None, 1, 2, 3, -1, -2, -5][rng.integers(7)])
        for n in shape
    ]
    if rng.random() < 0.5:
        start, stop = sorted(rng.integers(0, len(shape) + 1, 2))
        index[start:stop] = [Ellipsis]
    return tuple(index)


def test_slices_are_numpy_s() -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        x = rng.normal(
            size=rng.choice([0, 1, 2, 3, 5], rng.integers(0, 5), p=[0.1] + 3 * [0.2] + [0.3])
        )
        index = random_index(rng, x.shape)
        expected = x[index]
        got = compute(shapes.Slice, x, dtype="float64", index=index)
        assert got.shape == expected.shape, (x.shape, index)
        np.testing.assert_array_equal(got, expected, str((x.shape, index)))
        back = compute(shapes.SliceGrad, expected, x, dtype="float64", index=index)
        kept = np.zeros_like(x)
        kept[index] = expected
        np.testing.assert_array_equal(back, kept, str((x.shape, index)))


def test_a_slice_of_a_batch_follows_its_size() -> None:
    x = pf.Placeholder("x", (None, 3))
    last_first = shapes.Slice(x, (slice(None, None, -2), -1))
    assert last_first.shape == (None,)
    plan = pf.compile(last_first)
    for rows in (5, 2, 0):
        fed = np.arange(3.0 * rows, dtype=np.float32).reshape(rows, 3)
        np.testing.assert_array_equal(plan.run({x: fed}), fed[::-2, -1])


def test_an_index_can_be_written_as_plain_data() -> None:
    x = pf.Placeholder("x", (4, 5, 6))
    node = shapes.Slice(x, (slice(None, None, -1), Ellipsis, 2))
    assert node.attrs["index"] == ((None, None, -1), "...", 2)
    assert shapes.Slice(x, [[None, None, -1], "...", 2]).attrs == node.attrs


def test_indices_that_make_no_sense_are_refused() -> None:
    x = pf.Placeholder("x", (2, 3))
    for index in (slice(0, 1, 0), 1.5, None, True, (Ellipsis, Ellipsis), ([0, 1],), "all"):
        with pytest.raises(ArgumentError, match="index"):
            shapes.Slice(x, index)
    with pytest.raises(ShapeError, match="outside of axis 1"):
        shapes.Slice(x, (0, 3))
    with pytest.raises(ShapeError, match="3 axes of 2"):
        shapes.Slice(x, (0, 0, 0))


def test_reshape_keeps_a_batch_of_any_size() -> None:
    x = pf.Placeholder("x", (None, 3, 4))
    rows = shapes.Reshape(x, (-1, 12))
    assert rows.shape == (None, 12)
    plan = pf.compile([rows, shapes.Flatten(x), shapes.Reshape(rows, (-1, 2, 6))])
    for size in (3, 1, 0):
        fed = np.arange(12.0 * size, dtype=np.float32).reshape(size, 3, 4)
        for got, shape in zip(
            plan.run({x: fed}), [(size, 12), (size, 12), (size, 2, 6)], strict=True
        ):
            np.testing.assert_array_equal(got, fed.reshape(shape))


def test_shapes_that_do_not_fit_are_refused() -> None:
    x = pf.Placeholder("x", (2, 3))
    for shape in ((5,), (4, -1), (0, -1), ()):
        with pytest.raises(ShapeError, match="6 elements"):
            shapes.Reshape(x, shape)
    for shape in ((-1, -1), (-2, 3), (2.0, 3)):
        with pytest.raises(ArgumentError, match="extent"):
            shapes.Reshape(x, shape)
    with pytest.raises(ShapeError, match="each of 2 axes once"):
        shapes.Transpose(x, (0, 0))
    with pytest.raises(ShapeError, match="no rows"):
        shapes.Flatten(pf.Placeholder("s", ()))
    with pytest.raises(ShapeError, match="axis 1 only"):
        shapes.Concat(x, pf.Placeholder("y", (3, 3)), axis=1)
    with pytest.raises(ShapeError, match="axis=2"):
        shapes.Concat(x, x, axis=2)
    with pytest.raises(GraphError, match="got none"):
        shapes.Concat([])


def test_moving_elements_moves_their_gradients_back() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 5, 4))
    dy = rng.normal(size=(4, 2, 8))
    da, db = gradients(
        lambda a, b: shapes.Transpose(shapes.Concat([a, b], axis=1), (2, 0, -2)), a, b, dy=dy
    )
    back = dy.transpose(1, 2, 0)
    np.testing.assert_array_equal(da, back[:, :3])
    np.testing.assert_array_equal(db, back[:, 3:])
    (da,) = gradients(
        lambda a: shapes.Flatten(shapes.Slice(a, (slice(None), 1))), a, dy=dy[0, :, :4]
    )
    expected = np.zeros_like(a)
    expected[:, 1] = dy[0, :, :4]
    np.testing.assert_array_equal(da, expected)
