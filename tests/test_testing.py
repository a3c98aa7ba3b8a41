"""The conformance kit itself: what it draws, and what its guards see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pyframe.graph.op import Case, Op
from pyframe.testing import ConformanceError, Draw, check_declaration, check_op
from pyframe.testing.subject import GUARD_BYTES, Guarded, Subject

SEEDS = range(300)


@pytest.mark.parametrize("integers", [False, True])
def test_arrays_have_the_property_that_they_are_drawn_for(integers: bool) -> None:
    for seed in SEEDS:
        draw = Draw(seed, integers)
        shape = draw.shape()
        arrays = {
            name: getattr(draw, name)(shape)
            for name in ("normal", "uniform", "positive", "away_from_zero", "distinct")
        }
        for name, array in arrays.items():
            assert array.shape == shape and array.dtype == np.float64, name
            assert not integers or np.array_equal(array, np.round(array)), name
        assert np.all(np.abs(arrays["away_from_zero"]) >= 0.05)
        assert np.all(arrays["positive"] >= 0.1)
        if not integers:
            assert np.all((arrays["uniform"] > 0) & (arrays["uniform"] < 1))
        gaps = np.diff(np.sort(arrays["distinct"], axis=None))
        assert gaps.size == 0 or gaps.min() >= 1e-3
        labels = draw.labels(shape, 5)
        assert labels.dtype == np.int64 and np.all((labels >= 0) & (labels < 5))


def test_shapes_are_odd_bounded_and_of_every_rank() -> None:
    shapes = [Draw(seed).shape() for seed in SEEDS]
    assert {len(s) for s in shapes} == {0, 1, 2, 3, 4}
    assert max(int(np.prod(s)) for s in shapes) <= 4000
    extents = {n for s in shapes for n in s}
    assert {0, 1, 2, 7, 15, 17, 31, 33} <= extents
    # Any axis may be the long one.
    longest = {int(np.argmax(s)) for s in shapes if len(s) == 3 and 0 not in s}
    assert longest == {0, 1, 2}
    assert all(min(Draw(s).shape(1, 3, low=2)) >= 2 for s in SEEDS)


def test_axes_are_valid_and_distinct() -> None:
    for seed in SEEDS:
        draw = Draw(seed)
        ndim = 1 + seed % 4
        assert -ndim <= draw.axis(ndim) < ndim
        axes = draw.axes(ndim)
        assert len({a % ndim for a in axes}) == len(axes) >= 1
    assert Draw(0).axes(0) == ()


def test_one_seed_gives_one_case() -> None:
    one, other = Draw(7), Draw(7)
    assert np.array_equal(one.normal((5,)), other.normal((5,)))
    assert one.shape() == other.shape()
    assert not np.array_equal(Draw(7).normal((5,)), Draw(8).normal((5,)))


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 5)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8"])
def test_guards_see_a_write_on_either_side(shape: tuple[int, ...], dtype: str) -> None:
    guarded = Guarded(shape, np.dtype(dtype))
    assert guarded.array.ctypes.data % 64 == 0
    guarded.array[...] = 1
    assert guarded.broken() is None
    end = GUARD_BYTES + guarded.array.nbytes
    for at, text in ((GUARD_BYTES - 1, "before"), (end, "behind"), (end + 7, "behind")):
        guarded.bytes[at] ^= 1
        assert text in (guarded.broken() or "")
        guarded.bytes[at] ^= 1
    assert guarded.broken() is None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_was_not_written_is_found(dtype: str) -> None:
    guarded = Guarded((3, 4), np.dtype(dtype))
    assert guarded.unwritten() == (0, 0)
    assert np.isnan(guarded.array).all()
    guarded.array[...] = np.nan  # a NaN that was computed is not what was there before
    assert guarded.unwritten() is None
    guarded = Guarded((3, 4), np.dtype(dtype))
    guarded.array[:2] = 0
    guarded.array[2, :3] = 0
    assert guarded.unwritten() == (2, 3)


class Doubling(Op):
    """y = 2 x; borrows a kernel, so that its reference can be wrong in any way."""

    op = "doubling"
    kernel = "leaky_relu"
    attributes = {"slope": "f8"}

    def __init__(self, x: Any, *, name: str | None = None) -> None:
        super().__init__(x, name=name, slope=0.25)

    @classmethod
    def sample(cls, draw: Any) -> Case:
        return Case((draw.away_from_zero((3,)),))


@pytest.mark.parametrize(
    ("expected", "wrong"),
    [
        ([1.0, -0.5, 3.0], False),
        ([1.0, 0.5, 3.0], True),  # the sign counts
        ([1.0, -0.5, 3.001], True),
        ([1.0, -0.5, np.nan], True),
        ([1.0, -0.5, np.inf], True),
    ],
)
def test_a_comparison_sees_signs_and_what_is_not_finite(expected: list[float], wrong: bool) -> None:
    subject = Subject(Doubling, Case((np.array([1.0, -2.0, 3.0]),)), "float32", "by hand")
    (got,) = subject.call_ok().outputs
    wanted = np.array(expected)
    if not wrong:
        subject.compare(got, wanted, 1e-6 * np.abs(wanted), "y", "value")
        return
    with pytest.raises(ConformanceError) as caught:
        subject.compare(got, wanted, 1e-6 * np.abs(wanted), "y", "value")
    for part in ("Doubling", "(3,)", "float32", "by hand"):
        assert part in str(caught.value)


def test_infinity_is_not_within_an_infinite_bound() -> None:
    subject = Subject(Doubling, Case((np.ones(1),)), "float32", "by hand")
    with pytest.raises(ConformanceError):
        subject.compare(
            np.ones(1, np.float32), np.full(1, np.inf), np.full(1, np.inf), "y", "value"
        )


def test_what_an_op_class_lacks_is_named() -> None:
    with pytest.raises(ConformanceError, match="no reference"):
        check_declaration(Doubling)

    class Nameless(Doubling):
        """Has no name of its own."""

    with pytest.raises(ConformanceError, match="not the class name"):
        check_op(Nameless)
