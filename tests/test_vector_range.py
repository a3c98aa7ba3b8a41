"""The functions of math32.h and math64.h, through the ops that expose them, in units in the last
place: over the whole range of float32, and over samples of float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
from registered import OPS

import pyframe as pf
from pyframe.engine.fusion import elementwise_count
from pyframe.graph.op import Case, Op
from pyframe.native import core
from pyframe.plugins import registry
from pyframe.testing.draw import Draw

pytestmark = pytest.mark.sweep

STRIDE = 65_521  # a prime: every exponent and both signs are met, and all low bits
CHUNK = 1 << 24
# The best references there are: with 64 bits or more of mantissa on x86 and Linux on ARM.
Wide = np.longdouble
needs_wide = pytest.mark.skipif(
    np.finfo(Wide).nmant < 63, reason="long double is no wider than double here"
)
SETS = core.instruction_sets()


def normal_tail(x: np.ndarray) -> np.ndarray:
    """P(Z < x), from the C library's erfc."""
    return 0.5 * np.vectorize(math.erfc, otypes=[float])(np.clip(-x / math.sqrt(2), -40, 40))


FUNCTIONS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], bytes]] = {
    "exp": (np.exp, b""),
    "log": (np.log, b""),
    "tanh": (np.tanh, b""),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), b""),
    "softplus": (lambda x: np.logaddexp(x, 0), b""),
    "silu": (lambda x: np.where(x == -np.inf, -0.0, x / (1 + np.exp(-x))), b""),
    "elu": (lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))), np.ones(1).tobytes()),
    "sqrt": (np.sqrt, b""),
    "erf": (lambda x: np.vectorize(math.erf, otypes=[float])(x.astype(float)), b""),
    "gelu": (
        lambda x: np.where(x == -np.inf, -0.0, x * normal_tail(x.astype(float))),
        np.zeros(1, np.int64).tobytes(),
    ),
}
C_LIBRARY = ("erf", "gelu")  # whose references are double only


def compute(name: str, x: np.ndarray, isa: str) -> np.ndarray:
    bits = 8 * x.itemsize
    y = np.full_like(x, np.nan)
    kernel = core.find_kernel(name, bits, isa)
    status, *_ = core.call_kernel(
        name, bits, [x], [y], attributes=FUNCTIONS[name][1], kernel=kernel
    )
    assert status == 0
    return y


def off_by(y: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """How far y is from the reference, in units in the last place; infinite for a wrong kind."""
    with np.errstate(all="ignore"):
        rounded = reference.astype(y.dtype)
        error = np.abs(y.astype(Wide) - reference.astype(Wide))
        units = error / np.spacing(np.abs(rounded)).astype(Wide)
    right = (np.isnan(y) & np.isnan(rounded)) | (y == rounded)
    # Next to the largest number, infinity is a neighbour.
    largest = np.finfo(y.dtype).max
    edge = np.isinf(rounded) != np.isinf(y)
    near = edge & (np.minimum(np.abs(y), np.abs(rounded)) > largest * (1 - 2e-6))
    wrong = np.isnan(y) != np.isnan(rounded)
    units = np.where(right | near, 0, np.where(wrong | edge, np.inf, units))
    return units.astype(float)


def worst(name: str, x: np.ndarray, isa: str) -> tuple[float, float]:
    with np.errstate(all="ignore"):
        wide = float if name in C_LIBRARY or x.dtype == np.float32 else Wide
        units = off_by(compute(name, x, isa), FUNCTIONS[name][0](x.astype(wide)))
    at = int(units.argmax())
    return float(units[at]), float(x[at])


def patterns(start: int, step: int, count: int) -> np.ndarray:
    return (start + step * np.arange(count, dtype=np.uint64)).astype(np.uint32).view(np.float32)


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_float32_over_its_whole_range(name: str, isa: str) -> None:
    units, at = worst(name, patterns(0, STRIDE, 2**32 // STRIDE + 1), isa)
    assert units <= 4, f"{name}({at!r}) is off by {units:.2f} units"


@pytest.mark.slow
@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_float32(name: str, isa: str) -> None:
    results = [worst(name, patterns(s, 1, CHUNK), isa) for s in range(0, 2**32, CHUNK)]
    units, at = max(results)
    print(f"{name} {isa}: at most {units:.3f} units, at {at!r}")
    assert units <= 4, f"{name}({at!r}) is off by {units:.2f} units"


def doubles() -> np.ndarray:
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=20_000) * scale for scale in (1e-9, 1e-3, 0.3, 1, 5, 30, 600)]
    anything = rng.integers(0, 2**64, 40_000, dtype=np.uint64).view(np.float64)
    return np.concatenate([*parts, anything])


@needs_wide
@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_float64_over_samples(name: str, isa: str) -> None:
    x = doubles()
    if name == "gelu":
        # In the tail the reference's own rounding of x / sqrt(2) counts x^2 times.
        x = x[~((x < -0.7) & (x > -60))]
    units, at = worst(name, x, isa)
    assert units <= (5 if name == "gelu" else 4), f"{name}({at!r}) is off by {units:.2f} units"


# gelu(x), to 20 digits, by 50-digit arithmetic.
GELU_TAIL = {
    -1.0: -0.15865525393145705141,
    -2.5: -0.015524163314440337917,
    -7.25: -1.5107971650372503376e-12,
    -20.0: -5.5072482372124673902e-88,
    -37.0: -2.1184613523340934244e-298,
    -38.0: -1.0964627768261380372e-314,
}


@pytest.mark.parametrize("isa", SETS)
def test_the_tail_of_gelu_in_float64(isa: str) -> None:
    x = np.array(list(GELU_TAIL))
    units = off_by(compute("gelu", x, isa), np.array(list(GELU_TAIL.values())))
    assert units.max() <= 5, dict(zip(GELU_TAIL, units, strict=True))


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_special_values(dtype: type, isa: str) -> None:
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan], dtype)
    expected = {
        "exp": [1, 1, np.inf, 0, np.nan],
        "log": [-np.inf, -np.inf, np.inf, np.nan, np.nan],
        "tanh": [0.0, -0.0, 1, -1, np.nan],
        "sigmoid": [0.5, 0.5, 1, 0, np.nan],
        "softplus": [np.log(2), np.log(2), np.inf, 0, np.nan],
        "elu": [0.0, -0.0, np.inf, -1, np.nan],
        "erf": [0.0, -0.0, 1, -1, np.nan],
        "gelu": [0.0, -0.0, np.inf, -0.0, np.nan],
        "silu": [0.0, -0.0, np.inf, -0.0, np.nan],
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(compute(name, x, isa), np.array(values, dtype), name)


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("name", ["exp", "log", "tanh", "sigmoid", "erf"])
def test_where_the_function_rises_so_do_its_values(name: str, isa: str) -> None:
    x = np.sort(np.abs(patterns(0, 65_537, 30_000)))
    x = x[np.isfinite(x)]
    if name != "log":
        x = np.concatenate([-x[::-1], x])
    y = compute(name, x, isa)
    assert np.all(y[1:] >= y[:-1])


# ---- ops that call themselves element-wise ----


def subjects() -> Iterator[tuple[str, Case]]:
    """Cases of every op that says it is element-wise, of a few hundred elements."""
    for op_class in OPS:
        if op_class.is_elementwise is Op.is_elementwise:
            continue
        for seed in range(8):
            yield op_class.op, op_class.sample(Draw(seed))


def node_of(name: str, case: Case, dtype: str) -> tuple[pf.Node, list[np.ndarray | None]]:
    arrays = [None if a is None else np.asarray(a, dtype) for a in case.inputs]
    values = [
        None if a is None else pf.Placeholder(f"x{i}", shape=a.shape, dtype=dtype)
        for i, a in enumerate(arrays)
    ]
    attributes = {**case.attributes}
    return registry.ops.get(name)(*values, **attributes), arrays


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_elementwise_kernels_take_parts_and_work_in_place(dtype: str, isa: str) -> None:
    seen = set()
    for name, case in subjects():
        node, arrays = node_of(name, case, dtype)
        specs = [None if v is None else v.spec for v in node.inputs]
        around = [node, *(v.node for v in node.inputs if v is not None)]
        count = elementwise_count(node, {n: tuple(n.specs) for n in around})
        if not count:
            continue
        seen.add(name)
        bits = 64 if dtype == "float64" else 32
        kernel = core.find_kernel(node.kernel, bits, isa)
        call = partial(
            core.call_kernel,
            node.kernel,
            bits,
            attributes=node.pack_attributes(specs),
            kernel=kernel,
        )
        shapes = [s.shape for s in node.specs]
        whole = [np.full(shape, np.nan, dtype) for shape in shapes]
        assert call(arrays, whole)[0] == 0
        count = whole[0].size
        for i, array in enumerate(arrays):
            if array is None or array.size != count:
                continue
            inputs = [None if a is None else a.copy() for a in arrays]
            outputs = [inputs[i].reshape(shapes[0]), *(np.empty(s, dtype) for s in shapes[1:])]
            assert call(inputs, outputs)[0] == 0
            np.testing.assert_array_equal(outputs[0], whole[0], f"{name} in place of input {i}")
        start, stop = count // 3, count - count // 5
        part = [
            a if a is None or a.size != count else a.reshape(-1)[start:stop].copy() for a in arrays
        ]
        if count > 1:
            outputs = [np.empty(stop - start, dtype) for _ in shapes]
            assert call(part, outputs)[0] == 0
            for got, want in zip(outputs, whole, strict=True):
                np.testing.assert_array_equal(got, want.reshape(-1)[start:stop], name)
    assert {"add", "add_n", "relu", "relu_grad", "gelu", "linear", "maximum_grad"} <= seen
