"""Numbers at the edges: signed zeros, infinity, tails, squares that overflow, equal numbers.

What is said of every op is derived from the registry, so that it holds for plugins too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import mpmath
import mutants
import numpy as np
import pytest
from registered import OPS

import pyframe as pf
from pyframe.graph.op import Op
from pyframe.native import core
from pyframe.plugins import registry
from pyframe.testing import check_scales
from pyframe.testing.draw import Draw

pytestmark = pytest.mark.sanitize

INF, NAN = np.inf, np.nan
DTYPES = ["float32", "float64"]
SETS = core.instruction_sets()


def functions() -> Iterator[tuple[str, type[Op], dict[str, Any]]]:
    """Every op of one array that treats each element by itself, with its attributes."""
    for op in OPS:
        if op.is_elementwise is Op.is_elementwise:
            continue
        if op.uses_random or not op.differentiable or op.attribute_dtype.names == ("axes",):
            continue
        found: dict[str, dict[str, Any]] = {}
        for seed in range(12):
            case = op.sample(Draw(seed))
            if len(case.inputs) == 1 and not op.optional_inputs:
                found[repr(sorted(case.attributes.items()))] = case.attributes
        for attributes in found.values():
            label = "-".join([op.op, *(str(v) for v in attributes.values())])
            try:
                node = op(pf.Placeholder("x", shape=(3,)), **attributes)
            except pf.errors.PyframeError:
                continue  # a shape is among the attributes
            if node.is_elementwise([v.spec for v in node.inputs if v is not None]):
                yield label, op, attributes


FUNCTIONS = {label: (op, attributes) for label, op, attributes in functions()}
every_function = pytest.mark.parametrize("label", FUNCTIONS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_set = pytest.mark.parametrize("isa", SETS)


def apply(label: str, x: np.ndarray, find: Any) -> np.ndarray:
    """Return output 0 of the kernel that `find` gives for (name, bits)."""
    op, attributes = FUNCTIONS[label]
    node = op(pf.Placeholder("x", shape=x.shape, dtype=x.dtype.name), **attributes)
    outputs = [np.full_like(x, NAN) for _ in range(node.output_count)]
    bits = 8 * x.itemsize
    status, *_ = core.call_kernel(
        node.kernel,
        bits,
        [x],
        outputs,
        attributes=node.pack_attributes([v.spec for v in node.inputs if v is not None]),
        kernel=find(node.kernel, bits),
    )
    assert status == 0
    return outputs[0]


def check_special_values(label: str, dtype: str, find: Any) -> None:
    # Several times over, so that whole vectors and what is left of them are met.
    x = np.tile(np.array([0.0, -0.0, INF, -INF, NAN], dtype), 9)
    op, attributes = FUNCTIONS[label]
    with np.errstate(all="ignore"):
        expected = op.reference(x.astype(np.float64), **attributes)
    if isinstance(expected, tuple):
        expected = expected[0]
    got = apply(label, x, find)
    np.testing.assert_array_equal(got, expected.astype(dtype), label)
    if op is not pf.Relu:  # of which either zero is the maximum
        zero = expected == 0
        np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(expected[zero]), label)


@every_set
@every_dtype
@every_function
def test_zeros_keep_their_signs_and_infinity_and_nan_go_through(
    label: str, dtype: str, isa: str
) -> None:
    check_special_values(label, dtype, lambda name, bits: core.find_kernel(name, bits, isa))


# ---- against 60 digits ----

mp = mpmath.mp.clone() if hasattr(mpmath.mp, "clone") else mpmath.mp
mp.dps = 60


def logistic(v: Any) -> Any:
    return 1 / (1 + mp.exp(-v))


def gelu_by_tanh(x: Any) -> Any:
    return x * logistic(2 * mp.sqrt(2 / mp.pi) * (x + mp.mpf("0.044715") * x**3))


SMOOTH: dict[str, Callable[..., Any]] = {
    "exp": lambda x: mp.exp(x),
    "erf": lambda x: mp.erf(x),
    "tanh": lambda x: mp.tanh(x),
    "sigmoid": logistic,
    "softplus": lambda x: mp.log1p(mp.exp(x)),
    "silu": lambda x: x * logistic(x),
    "gelu-none": lambda x: x * mp.erfc(-x / mp.sqrt(2)) / 2,
    "gelu-tanh": gelu_by_tanh,
    "elu-1.0": lambda x: x if x > 0 else mp.expm1(x),
    "elu-0.3": lambda x: x if x > 0 else mp.mpf(0.3) * mp.expm1(x),
    "elu-2.0": lambda x: x if x > 0 else 2 * mp.expm1(x),
}
SIMPLE = {
    "abs",
    "add_n",
    "copy",
    "log",
    "neg",
    "relu",
    "leaky_relu",
    "sqrt",
    "square",
}  # or not for all x
# Of the others by differences; that of erf has no digits left of them.
SLOPES: dict[str, Callable[..., Any]] = {"erf": lambda x: 2 / mp.sqrt(mp.pi) * mp.exp(-x * x)}
POINTS = np.concatenate([np.linspace(-30, 30, 121), [-9.7, -25.8, -0.01, 1e-4, -40, 40, -90, 90]])


def test_every_function_of_the_registry_is_looked_at() -> None:
    known = {*SMOOTH, *SIMPLE}
    own = {label for label, (op, _) in FUNCTIONS.items() if op.__module__.startswith("pyframe.")}
    assert not {name for name in own if name not in known and name.split("-")[0] not in SIMPLE}


def units_off(got: np.ndarray, x: np.ndarray, exact: Callable[[Any], Any]) -> np.ndarray:
    """How many units in the last place of the exact value each number is off."""
    info, off = np.finfo(got.dtype), []
    for y, at in zip(got, x, strict=True):
        wanted = exact(mp.mpf(float(at)))
        size = abs(wanted)
        if size > float(info.max):
            off.append(0.0 if np.isinf(y) else INF)
            continue
        exponent = mp.floor(mp.log(size, 2)) if size > 0 else mp.mpf(-5000)
        unit = max(mp.mpf(2) ** (exponent - info.nmant), mp.mpf(float(info.smallest_subnormal)))
        off.append(float(abs(mp.mpf(float(y)) - wanted) / unit))
    return np.array(off)


@every_dtype
@pytest.mark.parametrize("label", SMOOTH)
def test_functions_and_slopes_to_a_few_units_far_out(label: str, dtype: str) -> None:
    op, attributes = FUNCTIONS[label]
    x = POINTS.astype(dtype)
    p = pf.Parameter(x, "p", dtype=dtype)
    plan = pf.compile(pf.Sum(op(p, **attributes)))
    slopes = plan.loss_and_gradients({})[1][p]
    bound = 5 if dtype == "float64" else 4
    values = apply(label, x, core.find_kernel)
    off = units_off(values, x, SMOOTH[label])
    assert off.max() <= bound, f"{label}({x[off.argmax()]!r}) is off by {off.max()} units"
    # Where a slope changes its sign its own unit is as small as one likes: there, that of 1/4.
    by_differences = lambda v: mp.diff(SMOOTH[label], v, h=mp.mpf(10) ** -25)  # noqa: E731
    off = units_off(slopes, x, SLOPES.get(label, by_differences))
    near = (x > -3) & (x < -0.3) & (np.abs(slopes) < 0.25)
    off[near] *= np.spacing(np.abs(slopes[near])) / np.spacing(np.asarray(0.25, dtype))
    kinks = np.abs(x) < 1e-3
    off[kinks & (label.startswith("elu"))] = 0
    assert off.max() <= bound + 1, f"{label}'({x[off.argmax()]!r}) is off by {off.max()} units"


@every_set
@every_dtype
def test_slopes_of_sigmoid_and_tanh_where_they_are_one(dtype: str, isa: str) -> None:
    x = np.array([17.0, -17.0, 30.0, 80.0, 10.0, -10.0, 0.0], dtype)
    y, slope = np.full_like(x, NAN), np.full_like(x, NAN)
    wide = np.abs(x.astype(float))
    for name, expected in (
        ("sigmoid", np.exp(-wide) / (1 + np.exp(-wide)) ** 2),
        ("tanh", 4 * np.exp(-2 * wide) / (1 + np.exp(-2 * wide)) ** 2),
    ):
        kernel = core.find_kernel(name, 8 * x.itemsize, isa)
        assert core.call_kernel(name, 8 * x.itemsize, [x], [y, slope], kernel=kernel)[0] == 0
        np.testing.assert_allclose(slope, expected, rtol=8 * np.finfo(dtype).eps, atol=1e-45)


@every_set
@every_dtype
def test_sigmoid_near_one_is_rounded_as_by_others(dtype: str, isa: str) -> None:
    # A log loss of y near 1 is a multiple of its rounding: as 1 - e it is another one.
    e = 2.0 ** -np.arange(14.0, 30.0) if dtype == "float32" else 2.0 ** -np.arange(20.0, 60.0)
    for factor in (1.1, 1.3, 1.7):
        x = -np.log(factor * e).astype(dtype)
        y = np.full_like(x, NAN)
        kernel = core.find_kernel("sigmoid", 8 * x.itemsize, isa)
        assert core.call_kernel("sigmoid", 8 * x.itemsize, [x], [y], kernel=kernel)[0] == 0
        assert np.array_equal(y, 1 / (1 + np.exp(-x)))


@pytest.mark.parametrize("layer", ["sigmoid", "tanh"])
@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("explicit", [True, False])
def test_gradients_through_a_saturated_layer(layer: str, fuse: bool, explicit: bool) -> None:
    x = pf.Placeholder("x", shape=(None, 2))
    w = pf.Parameter(np.array([[10.0], [10.0]]), "w")
    made = {"sigmoid": pf.Sigmoid, "tanh": pf.Tanh}[layer]
    y = pf.Linear(x, w, activation=layer) if explicit else made(pf.Linear(x, w))
    plan = pf.compile(pf.Sum(pf.Linear(y, np.ones((1, 3)))), fuse=fuse)
    _, found = plan.loss_and_gradients({x: np.ones((5, 2))})
    slope = np.exp(-20.0) if layer == "sigmoid" else 4 * np.exp(-40.0)
    np.testing.assert_allclose(found[w], np.full((2, 1), 15 * slope), rtol=1e-6)


# ---- losses of certain answers ----


@every_dtype
def test_binary_cross_entropy_of_infinite_logits(dtype: str) -> None:
    y = pf.Placeholder("y", shape=(None,), dtype=dtype)
    x = pf.Parameter(np.array([-INF, INF, INF, -INF, NAN, 20.0, -20.0]), "x", dtype=dtype)
    labels = [0, 1, 0, 1, 0, 1, 0]
    each = pf.compile(pf.BinaryCrossEntropy(y, x, reduction="none")).run({y: labels})
    small = np.log1p(np.exp(-20.0))
    np.testing.assert_allclose(each, [0, 0, INF, INF, NAN, small, small], rtol=1e-6)
    cost = pf.BinaryCrossEntropy(y, x, reduction="sum")
    slopes = pf.compile(cost).loss_and_gradients({y: labels})[1][x]
    one = np.exp(-20.0) / (1 + np.exp(-20.0))
    np.testing.assert_allclose(slopes, [0, 0, 1, -1, NAN, -one, one], rtol=1e-6)


@every_dtype
def test_cross_entropy_of_certain_answers(dtype: str) -> None:
    x = pf.Parameter(np.array([[-INF, 0.0, -INF], [30.0, 0.0, 0.0]]), "x", dtype=dtype)
    y = pf.Placeholder("y", shape=(None,), dtype="int64")
    plan = pf.compile(pf.CrossEntropy(y, x, reduction="sum"))
    slopes = plan.loss_and_gradients({y: [1, 0]})[1][x]
    small = np.exp(-30.0)
    np.testing.assert_allclose(slopes, [[0, 0, 0], [-2 * small, small, small]], rtol=1e-6)
    for made in (pf.Softmax, pf.LogSoftmax):
        got = pf.compile(made(x)).run({})[0]
        with np.errstate(divide="ignore"):
            wanted = np.array([0.0, 1.0, 0.0])
            np.testing.assert_array_equal(got, wanted if made is pf.Softmax else np.log(wanted))


# ---- normalization ----


def layer_norm(rows: Any, dtype: str) -> np.ndarray:
    data = np.atleast_2d(np.asarray(rows, dtype))
    n = data.shape[1]
    x = pf.Placeholder("x", shape=(None, n), dtype=dtype)
    return np.asarray(pf.compile(pf.LayerNorm(x, np.ones(n), np.zeros(n))).run({x: data}))


BIG = {"float32": [2e19, 1e30, 3e38], "float64": [2e154, 1e200, 1.5e308]}


@every_dtype
def test_layer_norm_of_great_and_of_equal_numbers(dtype: str) -> None:
    for big in BIG[dtype]:
        np.testing.assert_allclose(layer_norm([-big, big], dtype), [[-1, 1]], rtol=1e-6)
        np.testing.assert_array_equal(layer_norm([big] * 5, dtype), np.zeros((1, 5)))
    for n in (4096, 3001, 17):
        for value in (100000.5, 100000.3, 1e9 + 0.1):
            np.testing.assert_array_equal(layer_norm([value] * n, dtype), np.zeros((1, n)))
    assert np.isnan(layer_norm([NAN, 1.0], dtype)).all()
    assert np.isnan(layer_norm([INF, 1.0], dtype)).any()


def check_spread(dtype: str, top: float, find: Any = core.find_kernel) -> None:
    y = batch_norm(np.array([[top], [-top], [top]], dtype), find)
    np.testing.assert_allclose(y[:, 0], np.array([1, -2, 1]) / np.sqrt(2), rtol=1e-5)


@every_dtype
@pytest.mark.parametrize("share", [0.6, 0.9, 1.0])
def test_a_spread_beyond_the_type(dtype: str, share: float) -> None:
    """In LayerNorm, in BatchNorm, and in the means of losses."""
    top = share * float(np.finfo(dtype).max)
    hat = np.array([1, -2, 1]) / np.sqrt(2)
    data = np.array([top, -top, top], dtype)
    np.testing.assert_allclose(layer_norm(data, dtype), [hat], rtol=1e-5)
    check_spread(dtype, top)
    p = pf.Placeholder("p", shape=(4, 1), dtype=dtype)
    far = np.array([[-top], [0], [0], [0]], dtype)
    for loss, wanted in ((pf.L1Loss, top / 2), (pf.HuberLoss, top / 2)):
        y = np.array([[top], [0], [0], [0]], dtype)
        np.testing.assert_allclose(pf.compile(loss(y, p)).run({p: far}), wanted, rtol=1e-5)


@every_dtype
def test_layer_norm_gradients_of_great_numbers(dtype: str) -> None:
    for big in BIG[dtype][:2]:
        x = pf.Parameter(np.array([[-big, big, 0.0]]), "x", dtype=dtype)
        scale = pf.Parameter(np.ones(3), "scale", dtype=dtype)
        weights = np.array([[1.0, 2.0, 4.0]])
        cost = pf.Sum(pf.LayerNorm(x, scale, np.zeros(3)) * weights)
        found = pf.compile(cost).loss_and_gradients({})[1]
        hat = np.array([-1, 1, 0]) * np.sqrt(1.5)
        inverse = np.sqrt(1.5) / big
        slope = inverse * (weights - weights.mean() - hat * np.mean(weights * hat))
        np.testing.assert_allclose(found[scale], (weights * hat)[0], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(found[x], slope, rtol=1e-5, atol=1e-6 * inverse)


def batch_norm(data: np.ndarray, find: Any = core.find_kernel) -> np.ndarray:
    """Return y of a batch of training, from the kernel."""
    rows, c = data.shape
    op = registry.ops.get("batch_norm")
    x = pf.Placeholder("x", shape=data.shape, dtype=data.dtype.name)
    states = [pf.State(np.zeros(c), n, dtype=data.dtype.name) for n in ("mean", "variance")]
    node = op(x, np.ones(c), np.zeros(c), *states)
    outputs = [np.full_like(data, NAN), *(np.full(c, NAN, data.dtype) for _ in range(3))]
    one, bits = np.ones(c, data.dtype), 8 * data.itemsize
    specs = [v.spec for v in node.inputs if v is not None]
    status, *_ = core.call_kernel(
        "batch_norm",
        bits,
        [data, one, 0 * one],
        outputs,
        states=[0 * one, one.copy()],
        attributes=node.pack_attributes(specs),
        training=True,
        scratch_bytes=node.scratch_bytes(specs),
        kernel=find("batch_norm", bits),
    )
    assert status == 0
    return outputs[0]


def check_batch_norm(dtype: str, rows: int, find: Any) -> None:
    for big in BIG[dtype][:2]:
        data = np.empty((rows, 19), dtype)
        data[:, 3:] = 1e5 * (1 + np.random.default_rng(0).random(16))
        data[:, 0] = np.where(np.arange(rows) % 2, -big, big)
        data[:, 1] = 100000.3
        data[:, 2] = np.arange(rows)
        y = batch_norm(data, find)
        np.testing.assert_allclose(y[:, 0], np.sign(data[:, 0]), rtol=1e-5)
        np.testing.assert_array_equal(y[:, 1], np.zeros(rows))
        np.testing.assert_array_equal(y[:, 3:], np.zeros((rows, 16)))
        ramp = (data[:, 2] - data[:, 2].mean()) / np.sqrt(data[:, 2].astype(float).var() + 1e-5)
        np.testing.assert_allclose(y[:, 2], ramp, rtol=1e-4, atol=1e-5)


@every_set
@every_dtype
@pytest.mark.parametrize("rows", [2, 64, 100, 3000, 70_000])
def test_batch_norm_of_great_and_of_equal_numbers(rows: int, dtype: str, isa: str) -> None:
    check_batch_norm(dtype, rows, lambda name, bits: core.find_kernel(name, bits, isa))


@every_dtype
@pytest.mark.parametrize("rows", [50, 64, 300, 5000])
def test_batch_norm_of_a_mean_far_from_zero(rows: int, dtype: str) -> None:
    rng = np.random.default_rng(0)
    data = (rng.choice([1e5, -3e6, 0.0], 19) + rng.normal(size=(rows, 19))).astype(dtype)
    flow = (1 + rng.normal(size=(rows, 19))).astype(dtype)
    x = pf.Parameter(data, "x", dtype=dtype)
    scale, shift = (pf.Parameter(np.full(19, v), n, dtype=dtype) for v, n in ((1, "a"), (0, "b")))
    states = [pf.State(np.zeros(19), n, dtype=dtype) for n in ("mean", "variance")]
    y = pf.BatchNorm(x, scale, shift, *states)
    found = pf.compile(pf.Sum(y * flow), outputs=y).loss_and_gradients({})[1]
    got = batch_norm(data)
    wide, dy = data.astype(np.float64), flow.astype(np.float64)
    off = wide - wide.mean(axis=0)
    off -= off.mean(axis=0)
    inverse = 1 / np.sqrt(np.mean(off**2, axis=0) + 1e-5)
    hat = off * inverse
    slope = inverse * (dy - dy.mean(axis=0) - hat * np.mean(dy * hat, axis=0))
    near = 20 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(got, hat, atol=near)
    np.testing.assert_allclose(found[x], slope, atol=near)
    np.testing.assert_allclose(found[scale], np.sum(dy * hat, axis=0), atol=near * rows)


# ---- results that are finite, of sums that are not ----


@every_dtype
def test_means_of_numbers_whose_sum_overflows(dtype: str) -> None:
    most = float(np.finfo(dtype).max)
    data = np.full((300, 40), 0.9 * most)
    data[:, 1] *= -1
    data[:, 2] = np.arange(300)
    x = pf.Placeholder("x", shape=(None, 40), dtype=dtype)
    for axis in (None, 0, 1, (0, 1)):
        wanted = np.mean(data.astype(dtype).astype(np.longdouble) / 1e10, axis=axis) * 1e10
        got = pf.compile(pf.Mean(x, axis)).run({x: data})
        np.testing.assert_allclose(got, wanted.astype(dtype), rtol=1e-6)
    data[0, 0], data[1, 1] = INF, NAN
    got = pf.compile(pf.Mean(x, 0)).run({x: data})
    np.testing.assert_array_equal(got[:2], [INF, NAN])
    assert np.isfinite(got[2:]).all()


@every_dtype
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", [pf.L1Loss, pf.L2Loss, pf.HuberLoss])
def test_losses_whose_mean_alone_is_finite(loss: Any, weighted: bool, dtype: str) -> None:
    most = float(np.finfo(dtype).max)
    size = 0.5 * (np.sqrt(most) if loss is pf.L2Loss else most)
    y = pf.Placeholder("y", shape=(None, 3), dtype=dtype)
    w = pf.Placeholder("w", shape=(None,), dtype=dtype)
    x = pf.Parameter(np.full((1000, 3), size), "x", dtype=dtype)
    cost = loss(y, x, w) if weighted else loss(y, x)
    plan = pf.compile(cost)
    wanted = size**2 if loss is pf.L2Loss else size
    for weight in (1.0, 0.9 * most, 1e3 * float(np.finfo(dtype).tiny)) if weighted else (1.0,):
        feed = {y: np.zeros((1000, 3))} | ({w: np.full(1000, weight)} if weighted else {})
        value, slopes = plan.loss_and_gradients(feed)
        np.testing.assert_allclose(value, wanted, rtol=1e-5)
        slope = 2 * size / 3000 if loss is pf.L2Loss else 1 / 3000
        np.testing.assert_allclose(slopes[x], np.full((1000, 3), slope), rtol=1e-5)


@every_dtype
def test_cross_entropy_whose_mean_alone_is_finite(dtype: str) -> None:
    size = 0.4 * float(np.finfo(dtype).max)
    y = pf.Placeholder("y", shape=(None,), dtype="int64")
    x = pf.Parameter(np.tile([size, -size], (1000, 1)), "x", dtype=dtype)
    value, slopes = pf.compile(pf.CrossEntropy(y, x)).loss_and_gradients({y: np.ones(1000, int)})
    np.testing.assert_allclose(value, 2 * size, rtol=1e-6)
    np.testing.assert_allclose(slopes[x], np.tile([1e-3, -1e-3], (1000, 1)), rtol=1e-6)


@every_set
@every_dtype
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "cross_entropy"])
def test_classes_that_are_masked_and_certain(name: str, dtype: str, isa: str) -> None:
    find = lambda kernel, bits: core.find_kernel(kernel, bits, isa)  # noqa: E731
    check_classes(name, dtype, find)


def check_classes(name: str, dtype: str, find: Any) -> None:
    """-INF among logits is a class that cannot be; +INF, and nothing but -INF, are no logits."""
    bits = 8 * np.dtype(dtype).itemsize
    good = np.array([[1.0, -INF, 2.0, -INF], [-INF, -INF, -INF, 3.0]], dtype)
    bad = np.array([[INF, 0.0, 1.0, 2.0], [INF, INF, 0.0, -INF], [-INF] * 4], dtype)
    share = 1 / (1 + np.exp(1.0))
    p = np.array([[share, 0, 1 - share, 0], [0, 0, 0, 1]])
    for x, fine in ((good, True), (bad, False)):
        dy, y = np.ones_like(x), np.full_like(x, NAN)
        dy[:, 2] = 3
        if name == "cross_entropy":
            labels, losses = np.full(len(x), 2), np.full(len(x), NAN, dtype)
            block = np.zeros((), pf.CrossEntropy.attribute_dtype)
            block["reduction"] = 2  # none
            call = functools.partial(core.call_kernel, attributes=block.tobytes())
            inputs = [labels, x, None]
            assert call(name, bits, inputs, [losses], kernel=find(name, bits))[0] == 0
            grad = "cross_entropy_grad"
            inputs = [np.ones_like(losses), labels, x, None]
            assert call(grad, bits, inputs, [y], kernel=find(grad, bits))[0] == 0
            wanted = p - np.eye(4)[2]
            with np.errstate(divide="ignore"):
                expected = -np.log(p[:, 2])
            if fine:
                np.testing.assert_allclose(losses, expected, rtol=1e-6)
                np.testing.assert_allclose(y, wanted, rtol=1e-6)
            else:
                assert np.isnan(losses).all() and np.isnan(y).all()
            continue
        for axis, turn in ((1, lambda a: a), (0, lambda a: np.ascontiguousarray(a.T))):
            out, dx = np.full_like(turn(x), NAN), np.full_like(turn(x), NAN)
            axes = np.array([axis], np.int64).tobytes()
            call = functools.partial(core.call_kernel, attributes=axes)
            assert call(name, bits, [turn(x)], [out], kernel=find(name, bits))[0] == 0
            grad = f"{name}_grad"
            assert call(grad, bits, [turn(dy), out], [dx], kernel=find(grad, bits))[0] == 0
            if not fine:
                assert np.isnan(out).all() and np.isnan(dx).all()
                continue
            with np.errstate(divide="ignore"):
                np.testing.assert_allclose(out, turn(p if name == "softmax" else np.log(p)), 1e-6)
            flow = dy.astype(float)
            if name == "softmax":
                wanted = p * (flow - np.sum(flow * p, axis=1, keepdims=True))
            else:
                wanted = flow - p * np.sum(flow, axis=1, keepdims=True)
            np.testing.assert_allclose(dx, turn(wanted), rtol=1e-5, atol=1e-7)


# ---- the faults that these tests are there for ----


LAYER_NORM_GRAD = registry.ops.get("layer_norm_grad")


def check_r2(find: Any) -> None:
    y = 1e8 + np.arange(100.0)
    sums = np.full(9, NAN)
    inputs = [y, y + 1, None]
    assert core.call_kernel("r2", 64, inputs, [sums], kernel=find("r2", 64))[0] == 0
    x = pf.Placeholder("x", shape=(None,), dtype="float64")
    assert pf.R2(x, x).finalize(sums) == pytest.approx(1 - 100 / np.sum((y - y.mean()) ** 2))


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> mutants.Workshop:
    return mutants.Workshop(tmp_path_factory)


@pytest.mark.once
@mutants.needs_compiler
@pytest.mark.parametrize(
    ("file", "old", "new", "check"),
    [
        (
            "math32.h",
            "x == x ? copysignf(x > 0.0f ? share : left, x) : x;",
            "x > 0.0f ? share : x == x ? -left : x;",
            lambda find: check_special_values("silu", "float32", find),
        ),
        (
            "norm.c",
            "if (!(squares[c] < INFINITY))",
            "if (0)",
            lambda find: check_batch_norm("float32", 100, find),
        ),
        (
            "norm.c",
            "hat[i] = normal_of(x[i], mean, low, inverse);",
            "hat[i] = (x[i] - mean - low) * inverse;",
            lambda find: check_scales(registry.ops.get("layer_norm"), "float32", kernels=find),
        ),
        (
            "norm.c",
            "return r_fabs(b->mean[c]) > GREAT_MEAN ||",
            "return",
            lambda find: check_spread("float32", 3e38, find),
        ),
        (
            "losses.c",
            "return l1(y * LITTLE, y_hat * LITTLE, delta);",
            "return l1(y, y_hat, delta) * LITTLE;",
            lambda find: check_scales(pf.L1Loss, "float32", kernels=find),
        ),
        (
            "norm.c",
            "settle(&m, middle, rest / (real)k->count);",
            "m.mean = middle;",
            lambda find: check_batch_norm("float32", 100, find),
        ),
        (
            "reductions.c",
            "if (overflow)",
            "if (0)",
            lambda find: check_scales(pf.Mean, "float32", kernels=find),
        ),
        (
            "losses.c",
            "out[0] = PF_RARE(great_mean)(&b, rare, y, y_hat, delta);",
            ";",
            lambda find: check_scales(pf.L1Loss, "float32", kernels=find),
        ),
        (
            "losses.c",
            "if (!(sum > R(0x1p-16) && sum < R(0x1p16)))",
            "if (0)",
            lambda find: check_scales(pf.L1Loss, "float32", kernels=find),
        ),
        (
            "losses.c",
            "out[0] = PF_RARE(great_cross_entropy)(&b, labels, pf_in(call, 1), classes, ignored);",
            ";",
            lambda find: check_scales(pf.CrossEntropy, "float32", shapes=8, kernels=find),
        ),
        (
            "norm.c",
            "if (!(r_fabs(mean_g) + r_fabs(mean_g_hat) < INFINITY))",
            "if (0)",
            lambda find: check_scales(LAYER_NORM_GRAD, "float32", kernels=find),
        ),
        (
            "metrics.c",
            "return (wide){high, fma(a, b, -high)};",
            "return (wide){high, 0};",
            lambda find: check_r2(find),
        ),
    ],
)
def test_a_planted_fault_is_noticed(
    file: str, old: str, new: str, check: Any, workshop: mutants.Workshop
) -> None:
    check(workshop.build())
    # All families include the header; the kernel that is looked at is in this one.
    only = "activations.c" if file == "math32.h" else None
    with pytest.raises(AssertionError), np.errstate(all="ignore"):
        check(workshop.build(file, old, new, only))
