"""Vector math of each instruction set over the range of float32, in units in the last place.

Every 65,521st bit pattern is looked at, and many numbers where functions bend. The slow tests look
at all 2^32 of them, which takes minutes a function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from pyframe.graph.op import Op
from pyframe.graph.spec import Array
from pyframe.native import core
from pyframe.ops import activations as act
from pyframe.ops import arithmetic as arith

pytestmark = pytest.mark.sweep

SETS = core.instruction_sets()
every_set = pytest.mark.parametrize("isa", SETS)


def apply(
    op: type[Op],
    x: Array,
    isa: str,
    ahead: tuple[Array, ...] = (),
    slope: bool = False,
    **attributes: Any,
) -> Array:
    """Return what the kernel of one instruction set makes of an array, or its second output."""
    outputs = [np.empty_like(x) for _ in range(1 + slope)]
    node = op(*(np.zeros(1),) * (1 + len(ahead)), **attributes)
    status, *_ = core.call_kernel(
        op.kernel,
        8 * x.itemsize,
        [*ahead, x],
        outputs,
        attributes=node.pack_attributes([]),
        kernel=core.find_kernel(op.kernel, 8 * x.itemsize, isa),
    )
    assert status == 0
    return outputs[-1]


def units_off(got: Array, expected: Array) -> Array:
    """Return how many units in the last place of its type `got` is off, infinite if it is amiss."""
    with np.errstate(all="ignore"):
        rounded = expected.astype(got.dtype)
        unit = np.spacing(np.abs(np.where(np.isfinite(rounded), rounded, 1))).astype(expected.dtype)
        off = np.abs(got.astype(expected.dtype) - expected) / unit
    same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    return np.where(same, 0.0, np.where(np.isnan(off), np.inf, off)).astype(np.float64)


def softplus(x: Array) -> Array:
    return np.where(x > 0, x, 0) + np.log1p(np.exp(-np.abs(x)))


def value_of(op: type[Op], x: Array, **attributes: Any) -> Any:
    """Return the first of an op's outputs."""
    return op.reference(x, **attributes)[0]


FUNCTIONS: list[tuple[type[Op], dict[str, Any], Callable[..., Any] | None]] = [
    (arith.Exp, {}, np.exp),
    (arith.Log, {}, np.log),
    (arith.Sqrt, {}, np.sqrt),
    (act.Tanh, {}, np.tanh),
    (act.Sigmoid, {}, act.logistic),
    (act.Softplus, {}, softplus),
    (act.Elu, {"alpha": 1.0}, None),
    (act.Silu, {}, None),
    (act.Gelu, {"approximate": "none"}, partial(value_of, act.Gelu, approximate="none")),
    (act.Gelu, {"approximate": "tanh"}, partial(value_of, act.Gelu, approximate="tanh")),
]
SLOPES: list[tuple[type[Op], dict[str, Any]]] = [
    (act.EluGrad, {"alpha": 1.0}),
    (act.SoftplusGrad, {}),
    (act.SiluGrad, {}),
]
WITH_SLOPES: list[tuple[type[Op], dict[str, Any]]] = [
    (act.Tanh, {}),
    (act.Sigmoid, {}),
    (act.Gelu, {"approximate": "none"}),
    (act.Gelu, {"approximate": "tanh"}),
]


def names(case: Any) -> str:
    op, attributes = case[:2]
    return "-".join([op.op, *map(str, attributes.values())])


def some_of_float32() -> Array:
    """Return every 65,521st bit pattern, and numbers of everyday size."""
    spread = np.arange(0, 2**32, 65_521, dtype=np.uint64).astype(np.uint32).view(np.float32)
    bends = np.linspace(-110, 110, 30_001, dtype=np.float32)
    everyday = np.linspace(-2.5, 2.5, 30_001, dtype=np.float32)
    special = np.array([-np.inf, np.inf, np.nan, -0.0, 0.0, 1e-45, -1e-45], np.float32)
    return np.concatenate([spread, bends, everyday, special])


def all_of_float32() -> Iterator[Array]:
    """Yield all bit patterns, some at a time."""
    for start in range(0, 2**32, 2**20):
        yield np.arange(start, start + 2**20, dtype=np.uint64).astype(np.uint32).view(np.float32)


@every_set
@pytest.mark.parametrize("case", FUNCTIONS, ids=names)
def test_functions_are_within_four_units(case: Any, isa: str) -> None:
    op, attributes, reference = case
    reference = reference or partial(op.reference, **attributes)
    x = some_of_float32()
    with np.errstate(all="ignore"):
        off = units_off(apply(op, x, isa, **attributes), reference(x.astype(np.float64)))
    assert off.max() <= 4, f"{off.max()} units at x = {x[off.argmax()]!r}"


@every_set
@pytest.mark.parametrize("case", SLOPES, ids=names)
def test_slopes_are_within_four_units(case: Any, isa: str) -> None:
    op, attributes = case
    x = some_of_float32()
    one = np.ones_like(x)
    with np.errstate(all="ignore"):
        expected = op.reference(one.astype(np.float64), x.astype(np.float64), **attributes)
        off = units_off(apply(op, x, isa, (one,), **attributes), expected)
    assert off.max() <= 4, f"{off.max()} units at x = {x[off.argmax()]!r}"


@every_set
@pytest.mark.parametrize("case", WITH_SLOPES, ids=names)
def test_slopes_beside_values_are_within_four_units(case: Any, isa: str) -> None:
    op, attributes = case
    x = some_of_float32()
    with np.errstate(all="ignore"):
        expected = op.reference(x.astype(np.float64), **attributes)[1]
        off = units_off(apply(op, x, isa, slope=True, **attributes), expected)
    assert off.max() <= 4, f"{off.max()} units at x = {x[off.argmax()]!r}"


@pytest.mark.slow
@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("case", WITH_SLOPES, ids=names)
def test_slopes_at_all_of_float32(case: Any, isa: str) -> None:
    op, attributes = case
    worst = 0.0
    for x in all_of_float32():
        with np.errstate(all="ignore"):
            expected = op.reference(x.astype(np.float64), **attributes)[1]
            off = units_off(apply(op, x, isa, slope=True, **attributes), expected)
        worst = max(worst, float(off.max()))
    assert worst <= 4


@pytest.mark.slow
@pytest.mark.parametrize("case", FUNCTIONS, ids=names)
def test_all_of_float32(case: Any) -> None:
    op, attributes, reference = case
    reference = reference or partial(op.reference, **attributes)
    worst = 0.0
    for x in all_of_float32():
        with np.errstate(all="ignore"):
            off = units_off(apply(op, x, SETS[-1], **attributes), reference(x.astype(np.float64)))
        worst = max(worst, float(off.max()))
    print(f"{names(case)}: {worst:.3f} units in the last place")
    assert worst <= 4


# Long double has 11 binary digits more than double on x86; where it has none more, there is
# nothing to compare with.
@pytest.mark.skipif(
    np.finfo(np.longdouble).nmant < 63, reason="long double is no wider than double"
)
@every_set
@pytest.mark.parametrize("op", [arith.Exp, arith.Log, act.Tanh, act.Sigmoid, act.Elu])
def test_float64_functions_are_within_four_units(op: type[Op], isa: str) -> None:
    rng = np.random.default_rng(1)
    patterns = rng.integers(0, 2**64, 20_000, dtype=np.uint64).view(np.float64)
    x = np.concatenate([patterns, np.linspace(-750, 715, 20_001), rng.normal(size=20_000)])

    def sigmoid(v: Any) -> Any:
        e = np.exp(-np.abs(v))
        return np.where(v >= 0, 1, e) / (1 + e)

    references: dict[type[Op], Callable[..., Any]] = {
        arith.Exp: np.exp,
        arith.Log: np.log,
        act.Tanh: np.tanh,
        act.Sigmoid: sigmoid,
        act.Elu: lambda v: np.where(v > 0, v, np.expm1(np.minimum(v, 0))),
    }
    attributes = {"alpha": 1.0} if op is act.Elu else {}
    with np.errstate(all="ignore"):
        expected = references[op](x.astype(np.longdouble))
        off = units_off(apply(op, x, isa, **attributes), expected)
    assert off.max() <= 4, f"{off.max()} units at x = {x[off.argmax()]!r}"


@every_set
@pytest.mark.parametrize("op", [arith.Exp, act.Sigmoid, act.Tanh])
def test_never_falls(op: type[Op], isa: str) -> None:
    """Numbers far enough apart that a unit in the last place of the result cannot hide a fall."""
    x = np.linspace(-8, 8, 4001, dtype=np.float32)
    assert (np.diff(apply(op, x, isa)) >= 0).all()
