"""What the recurrent ops share: shapes, scratch memory, and the order of the steps of a batch."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pyframe import Case, Op

Shape = tuple[int | None, ...]

WIDEST = 64  # columns of strips, and of panels: what packed weights are filled up to
PRODUCT_ROWS = 64  # of x in one product, if the batch is small, as in kernels/recurrent.c
PART_ROWS, LARGE_PART_ROWS = 16, 64  # sequences that one thread takes, ...
LARGE_WEIGHTS = 1 << 20  # ... from so many bytes of recurrent weights on
DEPTH = 512  # terms of a product at a time


def same_extent(a: int | None, b: int | None) -> bool:
    """Return whether two extents can be the same one."""
    return a is None or b is None or a == b


def known(a: int | None, b: int | None) -> int | None:
    """Return whichever of two equal extents is known."""
    return b if a is None else a


class Extents(NamedTuple):
    """N sequences of T steps, C channels, H units, G gates; h is W wide."""

    samples: int
    steps: int
    channels: int
    units: int
    width: int
    gates: int  # G H


class RecurrentOp(Op):
    """An op over whole sequences (N, T, C); `gate_count` weights belong to each unit."""

    gate_count = 1
    first = 0  # the input that is x; behind it come both weights
    passes = 1  # over the data: the gradient has twice the products
    computed = {"part_rows": "i8"}

    # ---- shapes ----

    def _check_weights(self, x: Shape, weight: Shape, recurrent: Shape) -> tuple[Any, ...]:
        """Return (N, T, C, H, W), as far as they are known."""
        if len(x) != 3:
            self.bad_shapes("x must be (N, T, C): sequences, steps, channels")
        if len(weight) != 2 or len(recurrent) != 2:
            self.bad_shapes("the weights must be (C, G H) and (H, G H)")
        if not (same_extent(weight[0], x[2]) and same_extent(weight[1], recurrent[1])):
            self.bad_shapes("the weight must have a row for each channel, and all gates")
        gates = known(weight[1], recurrent[1])
        if gates is not None and gates % self.gate_count:
            self.bad_shapes(f"the columns of the weights must be those of {self.gate_count} gates")
        units = None if gates is None else gates // self.gate_count
        return x[0], x[1], known(x[2], weight[0]), units, recurrent[0]

    def _check_square(self, units: int | None, width: int | None) -> int | None:
        if not same_extent(units, width):
            self.bad_shapes("the recurrent weight must have a row for each unit")
        return known(units, width)

    def _check(self, what: str, shape: Shape | None, *extents: int | None) -> None:
        """Refuse an operand that is there and has other extents."""
        if shape is not None and not (
            len(shape) == len(extents) and all(map(same_extent, shape, extents))
        ):
            wanted = ", ".join("?" if n is None else str(n) for n in extents)
            self.bad_shapes(f"{what} must be ({wanted})")

    def _check_steps(self, steps: Shape | None, samples: int | None, count: int | None) -> None:
        if steps is not None and len(steps) != 1:
            self._check("lengths must be (N,), and a mask", steps, samples, count)
        else:
            self._check("lengths", steps, samples)

    # ---- what the kernel is given ----

    def _extents(self, specs: Sequence[Any]) -> Extents:
        """Return what is known of the operands of a feed."""
        raise NotImplementedError

    def lower_attributes(self, specs: Sequence[Any]) -> dict[str, Any]:
        return {**self.attrs, "part_rows": self._part_rows(self._extents(specs))}

    def _part_rows(self, e: Extents) -> int:
        """Return how many sequences a part has."""
        large = e.width * e.gates * self.specs[0].dtype.itemsize > LARGE_WEIGHTS
        return LARGE_PART_ROWS if large else PART_ROWS

    def _scratch(self, specs: Sequence[Any], *matrices: int, per_row: int, per_sample: int) -> int:
        """Return the bytes for packed matrices, and what each packed row and sequence needs."""
        e = self._extents(specs)
        rows, samples = e.samples * e.steps, e.samples
        part_rows = self._part_rows(e)
        parts = -(-samples // part_rows)
        room = parts * min(part_rows, samples)
        elements = [*matrices, rows * (e.channels + per_row), samples * per_sample]
        elements += [max(room, PRODUCT_ROWS) * e.gates, room * (4 * e.units + e.width)]
        elements += [parts * 4 * e.units, 2 * DEPTH * max(e.channels, e.width, e.units, WIDEST)]
        words = 2 * samples + 3 * (e.steps + 1) + rows
        pieces = 32 * 64  # what filling up to 64 bytes costs
        return sum(elements) * self.specs[0].dtype.itemsize + 8 * words + pieces

    def flops(self, specs: Sequence[Any], outputs: Sequence[Any], wanted: Sequence[bool]) -> int:
        e = self._extents(specs)  # the products, and the gates
        return self.passes * e.samples * e.steps * (2 * (e.channels + e.width) + 10) * e.gates

    # ---- of the tests ----

    @classmethod
    def _run(cls, *inputs: Any, **attributes: Any) -> Any:
        """Return what the kernel computes; see `Forward` and `Backward`."""
        raise NotImplementedError

    @classmethod
    def terms_of(cls, *inputs: Any) -> int:
        """Return how many terms an output is a sum of; of a gradient, what a step adds to that."""
        raise NotImplementedError


class Forward(RecurrentOp):
    """`_run` gives the outputs, and how far each may be off in units of the last place.

    That takes as long as the outputs: it is all zeros unless it is `sized`.
    """

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return cls._run(*inputs, sized=False, **attributes)[0]

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        off = cls._run(*inputs, sized=True, **attributes)[1]
        return cls.terms_of(*inputs), tuple(map(bounded, off))


class Backward(RecurrentOp):
    """`_run` gives the gradients for `np.subtract`; for `np.add`, and sizes, those of the terms."""

    passes = 2
    differentiable = False

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return cls._run(np.subtract, *inputs, **attributes)

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        n, t, _ = inputs[cls.first].shape
        sizes = cls._run(np.add, *map(size_of, inputs), **attributes)
        return 16 + n * t + (t + 1) * cls.terms_of(*inputs), sizes


def packed(k: int, n: int) -> int:
    """Return how many elements a packed matrix (k, n) has."""
    return k * -(-n // WIDEST) * WIDEST


def extents(spec: Any) -> tuple[int, ...]:
    """Return a shape all of whose extents are known."""
    assert spec is not None and spec.shape is not None
    return tuple(int(n) for n in spec.shape)


# ---- of the tests: what the kernels do, in NumPy ----


class Order:
    """The order of the steps of a batch: see recurrent.h.

    Attributes
    ----------
    sample : ndarray (N,)
        Which sequence is at a place: longest first.
    rows : list of slice
        The packed rows of each step.
    at : ndarray (total,)
        Which row n T + t of an array (N, T, ...) a packed row is.
    """

    def __init__(self, samples: int, steps: int, given: Any, reverse: bool) -> None:
        there = _there(samples, steps, given)
        lengths = there.sum(axis=1)
        self.samples, self.steps = samples, steps
        self.sample = np.argsort(-lengths, kind="stable")
        times = np.argsort(~there, axis=1, kind="stable")  # the steps that are there come first
        if reverse:
            back = np.maximum(lengths[:, None] - 1 - np.arange(steps), 0)
            times = np.take_along_axis(times, back, axis=1)
        counts = np.count_nonzero(lengths[:, None] > np.arange(steps), axis=0)
        ends = np.cumsum(counts)
        self.rows = [slice(end - n, end) for n, end in zip(counts, ends, strict=True)]
        here = np.arange(samples) < counts[:, None]  # (T, N): the longest ones
        self.at = (self.sample * steps + times[self.sample].T)[here]

    def pack(self, x: Any) -> Any:
        """Return the packed rows of an array (N, T, ...)."""
        return x.reshape(self.samples * self.steps, x.shape[-1])[self.at]

    def unpack(self, rows: Any) -> Any:
        """Return (N, T, ...) of packed rows, with zeros where there is no step."""
        x = np.zeros((self.samples * self.steps, rows.shape[-1]), rows.dtype)
        x[self.at] = rows[: len(self.at)]
        return x.reshape(self.samples, self.steps, rows.shape[-1])

    def states(self, given: Any, width: int, dtype: Any) -> Any:
        """Return states in order, zeros if there are none."""
        return np.zeros((self.samples, width), dtype) if given is None else given[self.sample]

    def give(self, ordered: Any) -> Any:
        """Return states (N, width) of ordered ones."""
        states = np.zeros_like(ordered)
        states[self.sample] = ordered
        return states

    def empty(self, width: int, dtype: Any) -> Any:
        """Return packed rows of zeros, as many as there could be."""
        return np.zeros((self.samples * self.steps, width), dtype)

    def flat(self, kept: Any) -> Any:
        """Return the packed rows of (T, N, width)."""
        return kept.reshape(self.samples * self.steps, kept.shape[-1])[: len(self.at)]

    def kept(self, rows: Any) -> Any:
        """Return packed rows in the shape in which an op gives them: (T, N, width)."""
        return rows.reshape(self.steps, self.samples, rows.shape[-1])


def order_of(x: Any, steps: Any, attributes: dict[str, Any]) -> Order:
    """Return the order of the steps of x (N, T, C), made anew only for others than before."""
    given = None if steps is None else (steps.shape, steps.dtype.str, steps.tobytes())
    return _order(len(x), x.shape[1], given, bool(attributes.get("reverse", False)))


@functools.lru_cache(4)
def _order(samples: int, steps: int, given: tuple[Any, str, bytes] | None, reverse: bool) -> Order:
    there = None if given is None else np.frombuffer(given[2], given[1]).reshape(given[0])
    return Order(samples, steps, there, reverse)


def _there(samples: int, steps: int, given: Any) -> Any:
    """Return which steps (N, T) are there: all, as many as the lengths, or where a mask is 1."""
    if given is None:
        return np.ones((samples, steps), bool)
    if given.ndim == 1:
        wrong = given[(given < 0) | (given > steps)]
        if len(wrong):
            raise IndexError(f"a length of {wrong[0]} in {steps} steps")
        return np.arange(steps) < given[:, None]
    if ((given != 0) & (given != 1)).any():
        raise IndexError("a mask of other numbers than 0 and 1")
    return given == 1


def parts(x: Any, count: int) -> Any:
    """Return a matrix cut into so many of equal width."""
    return x.reshape(len(x), count, x.shape[1] // count).swapaxes(0, 1)


def sigmoid(x: Any) -> Any:
    """Return 1 / (1 + exp(-x)), without overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def magnitude_of(x: Any) -> Any:
    """Return |x|, or None."""
    return None if x is None else np.abs(x)


def bounded(off: Any) -> Any:
    """Return how far something may be off, but finite: over many steps bounds grow without end."""
    return np.minimum(off, 1.7e308)


def up_to(x: Any, off: Any) -> Any:
    """Return how large a gate may be that is off by so many units of a float32's last place."""
    return x + 1e-7 * off


def given(x: Any, gradient: Any) -> Any:
    """Return the gradient of an optional input: None if it is absent."""
    return None if x is None else gradient


def size_of(x: Any) -> Any:
    """Return |x| of an input; lengths and masks as they are."""
    return x if x is None or x.dtype == np.int64 else np.abs(x)


def plus(a: Any, b: Any) -> Any:
    """Return a + b where b may be absent."""
    return a if b is None else a + b


# ---- random cases ----


def sample_extents(draw: Any, gate_count: int) -> Extents:
    """Return extents that are odd: few or many sequences, whole vectors and parts of them."""
    samples = draw.choice([0, 1, 2, 3, 5, 17, 35])
    steps = draw.choice([0, 1, 2, 3, 4, 6])
    channels, units = (draw.choice([0, 1, 2, 3, 5, 8, 17]) for _ in range(2))
    if samples < 6:
        units = draw.choice([units, 15, 33])
    return Extents(samples, steps, channels, units, units, gate_count * units)


def sample_steps(draw: Any, e: Extents) -> Any:
    """Return lengths, a mask, or neither."""
    kind = draw.choice(["none", "lengths", "mask"])
    if kind == "none":
        return None
    if kind == "lengths":
        return draw.labels((e.samples,), e.steps + 1)
    return draw.labels((e.samples, e.steps), 2)


def sample_weights(draw: Any, e: Extents) -> tuple[Any, Any, Any]:
    """Return x, and weights with which states stay in range."""
    x = draw.normal((e.samples, e.steps, e.channels))
    weight = draw.normal((e.channels, e.gates)) / max(e.channels, 1) ** 0.5
    recurrent = 0.5 * draw.normal((e.width, e.gates)) / max(e.width, 1) ** 0.5
    return x, weight, recurrent


def maybe(draw: Any, shape: tuple[int, ...]) -> Any:
    """Return normal numbers, or None."""
    return draw.choice([None, draw.normal(shape)])


def maybe_keep(draw: Any, e: Extents) -> Any:
    """Return factors of h as a dropout has them, or None."""
    return draw.choice([None, None, 1.25 * draw.labels((e.samples, e.width), 2)])


def without_zeros(draw: Any, case: Case, *, state: int, keep: int) -> Case:
    """Return a case with an initial state, and in which no h is taken away.

    Very large weights make gradients overflow on their way to the first step; where a zero is
    multiplied with them there, the result is NaN.
    """
    inputs = list(case.inputs)
    x, recurrent, factors = inputs[0], inputs[2], inputs[keep]
    assert x is not None and recurrent is not None
    if inputs[state] is None:
        inputs[state] = draw.away_from_zero((len(x), len(recurrent)))
    inputs[keep] = None if factors is None else factors + 0.5
    return case._replace(inputs=tuple(inputs))
