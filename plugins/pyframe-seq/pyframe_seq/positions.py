"""Places in a sequence: rotary embeddings, rows of a table, slopes. Kernels: positions.c."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

import pyframe as pf
from pyframe import Case, Op
from pyframe.attributes import flag, number, optional, whole
from pyframe.errors import check_integer
from pyframe.layers import Layer

VALUE = "assign to its value, as in layer.weight.value = ..., or call model.set_weights"


class Rotary(Op):
    """Rotary embedding: pairs of numbers of a head, turned by an angle that grows with the place.

    Pair i of a head of size D at place p = start + t is turned by p base^(-2 i / D), so that the
    product of a query and a key depends on the distance of their places alone.

    Parameters
    ----------
    x : Value, shape (N, T, heads D), D even
    start : Value, shape (N,), optional
        The place of the first token of each sample, as a float. Gets no gradient.
    heads : int
    rotated : int, optional
        How many heads are turned, the first ones; the others stay as they are. Default: all.
    base : float > 0, default 10000.0
    interleaved : bool, default False
        Whether pairs are neighbours (2 i, 2 i + 1), as in the paper, or (i, i + D / 2), as in
        Llama.
    inverse : bool, default False
        Whether it turns the other way: that is the gradient.
    name : str, optional

    Raises
    ------
    ShapeError
        If the features do not divide into heads of an even size.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_seq import Rotary
    >>> Rotary(pf.Placeholder("x", shape=(None, 5, 8)), heads=2).shape
    (None, 5, 8)

    References
    ----------
    Su et al., "RoFormer: enhanced transformer with rotary position embedding", arXiv:2104.09864,
    section 3.2.
    """

    op = "rotary"
    kernel = "pyframe_seq:rotary"
    attributes = {
        "heads": "i8",
        "rotated": "i8",
        "interleaved": "i8",
        "inverse": "i8",
        "base": "f8",
    }
    rules = {
        "heads": whole(at_least=1, at_most=2**31),
        "rotated": optional(whole(at_least=0)),
        "interleaved": flag,
        "inverse": flag,
        "base": number(above=0),
    }
    defaults = {"rotated": None, "interleaved": False, "inverse": False, "base": 10000.0}
    optional_inputs = (1,)
    constant_inputs = (1,)

    def __init__(self, x: Any, start: Any = None, **attributes: Any) -> None:
        super().__init__(x, start, **attributes)

    def infer_shape(self, *shapes: Any) -> Any:
        x, start = shapes
        heads, rotated = self.attrs["heads"], self.attrs["rotated"]
        if len(x) != 3 or (x[2] is not None and x[2] % (2 * heads)):
            self.bad_shapes(f"x must be (N, T, features): {heads} heads of one even size")
        if start is not None and (len(start) != 1 or len({x[0], start[0]} - {None}) > 1):
            self.bad_shapes("start must have one place for each sample")
        if rotated is not None and rotated > heads:
            self.bad_shapes(f"rotated = {rotated} of {heads} heads")
        return x

    def lower_attributes(self, specs: Sequence[Any]) -> dict[str, Any]:
        heads, rotated = self.attrs["heads"], self.attrs["rotated"]
        return {**self.attrs, "rotated": heads if rotated is None else rotated}

    def scratch_bytes(self, specs: Sequence[Any]) -> int:
        _, tokens, features = specs[0].shape
        return int(tokens * (features // self.attrs["heads"]) * specs[0].dtype.itemsize)

    def gradient(self, *grads: Any) -> Sequence[Any]:
        attributes = {**self.attrs, "inverse": not self.attrs["inverse"]}
        return Rotary(grads[0], self.inputs[1], **attributes), None

    @classmethod
    def _turned(cls, x: Any, start: Any, size: bool, **attributes: Any) -> Any:
        heads, rotated = attributes["heads"], attributes.get("rotated")
        samples, tokens, features = x.shape
        depth = features // heads
        place = np.arange(tokens) + (np.zeros(samples) if start is None else start)[:, None]
        base = attributes.get("base", 10000.0)
        angle = place[:, :, None, None] * base ** (-2.0 * np.arange(depth // 2) / max(depth, 1))
        angle = -angle if attributes.get("inverse") else angle
        c, s = np.cos(angle), np.sin(angle)
        y = np.array(x.reshape(samples, tokens, heads, depth))
        part = y[:, :, : heads if rotated is None else rotated]
        pairs = (0, 2), (1, 2)
        if attributes.get("interleaved"):
            one, two = (slice(a, None, b) for a, b in pairs)
        else:
            one, two = slice(0, depth // 2), slice(depth // 2, None)
        a, b = np.array(part[..., one]), np.array(part[..., two])
        if size:
            both = (np.abs(a) + np.abs(b)) * (1 + np.abs(angle))  # an angle is rounded, too
            part[..., one] = part[..., two] = both
            return np.abs(y).reshape(x.shape)
        part[..., one], part[..., two] = a * c - b * s, b * c + a * s
        return y.reshape(x.shape)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return cls._turned(*inputs, False, **attributes)

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        return 9, cls._turned(*inputs, True, **attributes)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        x = np.sin(np.arange(2 * 5 * 12.0)).reshape(2, 5, 12)
        return (
            Case((x, None), {"heads": 3}),
            Case((x, np.array([3.0, 70.0])), {"heads": 2, "rotated": 1, "interleaved": True}),
        )

    @classmethod
    def sample(cls, draw: Any) -> Case:
        heads, depth = draw.choice([1, 2, 3]), 2 * draw.size(high=17)
        x = draw.normal((draw.size(high=4), draw.size(high=33), heads * depth))
        start = draw.labels((len(x),), 90).astype(float) if draw.choice([True, False]) else None
        return Case(
            (x, start),
            {
                "heads": heads,
                "rotated": draw.choice([None, heads - 1]),
                "interleaved": draw.choice([False, True]),
                "inverse": draw.choice([False, True]),
                "base": draw.choice([10000.0, 100.0]),
            },
        )


class PositionRows(Op):
    """y = the first T rows of a table (P, d), for x (N, T, d) of which only the shape is used."""

    op = "position_rows"
    kernel = "pyframe_seq:position_rows"
    shape_only = (1,)
    exact_on_integers = True

    def infer_shape(self, *shapes: Any) -> Any:
        table, x = shapes
        if len(table) != 2 or len(x) != 3 or len({table[1], x[2]} - {None}) > 1:
            self.bad_shapes("the table must be (P, d), and x (N, T, d)")
        if None not in (table[0], x[1]) and x[1] > table[0]:
            self.bad_shapes(f"there are {table[0]} positions, and the sequence has {x[1]}")
        return x[1], table[1]

    def gradient(self, *grads: Any) -> Sequence[Any]:
        return PositionRowsGrad(grads[0], self.inputs[0]), None

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        table, x = inputs
        return np.array(table[: x.shape[1]])

    @classmethod
    def cases(cls) -> Sequence[Case]:
        table = np.arange(12.0).reshape(4, 3)
        return Case((table, np.zeros((2, 3, 3)))), Case((table, np.zeros((0, 4, 3))))

    @classmethod
    def sample(cls, draw: Any) -> Case:
        table = draw.normal((draw.size(high=40), draw.size(high=20)))
        tokens = draw.choice(range(len(table) + 1))
        return Case((table, draw.normal((draw.size(high=3), tokens, table.shape[1]))))


class PositionRowsGrad(Op):
    """dtable = dy in the first rows, and 0 in the others; only the shape of the table is used."""

    op = "position_rows_grad"
    kernel = "pyframe_seq:position_rows_grad"
    shape_only = (1,)
    differentiable = False
    exact_on_integers = True

    def infer_shape(self, *shapes: Any) -> Any:
        dy, table = shapes
        if len(table) != 2 or len(dy) != 2 or len({table[1], dy[1]} - {None}) > 1:
            self.bad_shapes("dy must be (T, d), and the table (P, d)")
        if None not in (table[0], dy[0]) and dy[0] > table[0]:
            self.bad_shapes(f"there are {table[0]} positions, and dy has {dy[0]}")
        return table

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, table = inputs
        result = np.zeros(table.shape)
        result[: len(dy)] = dy
        return result

    @classmethod
    def cases(cls) -> Sequence[Case]:
        return (Case((np.ones((2, 3)), np.zeros((4, 3)))),)

    @classmethod
    def sample(cls, draw: Any) -> Case:
        case = PositionRows.sample(draw)
        table, x = case.inputs
        return Case((draw.normal((x.shape[1], table.shape[1])), table))


def alibi_slopes(heads: int) -> Any:
    """Return the slopes of ALiBi for so many heads: 2^(-8 / heads), 2^(-16 / heads), ...

    For a number that is no power of two: those of the next lower power, then every other one of
    twice that power.

    Examples
    --------
    >>> from pyframe_seq import alibi_slopes
    >>> alibi_slopes(4)
    array([0.25      , 0.0625    , 0.015625  , 0.00390625])

    References
    ----------
    Press, Smith, Lewis, "Train short, test long", ICLR 2022, section 3.
    """
    power = 2 ** math.floor(math.log2(heads))
    slopes = 2.0 ** (-8 * np.arange(1, power + 1) / power)
    more = 2.0 ** (-4 * np.arange(1, 2 * (heads - power), 2) / power)
    return np.concatenate([slopes, more])


def sinusoids(length: int, units: int) -> Any:
    """Return the table (length, units) of sines and cosines, in turn, of Vaswani et al.

    Examples
    --------
    >>> from pyframe_seq import sinusoids
    >>> sinusoids(2, 4).round(3)
    array([[0.   , 1.   , 0.   , 1.   ],
           [0.841, 0.54 , 0.01 , 1.   ]])

    References
    ----------
    Vaswani et al., "Attention is all you need", NeurIPS 2017, section 3.5.
    """
    angle = np.arange(length)[:, None] * 10000.0 ** (-2 * (np.arange(units) // 2) / max(units, 1))
    return np.where(np.arange(units) % 2 == 0, np.sin(angle), np.cos(angle))


class _Positions(Layer):
    """What adds a row of a table to each token."""

    def __init__(self, length: int, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.length = check_integer(
            f"{type(self).__name__}: length", length, at_least=1, at_most=2**20
        )

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return (((3, 5, 4), {"length": 5}), ((2, 3, 6), {"length": 8}))

    def _units(self, spec: Any) -> int:
        shape = spec.shape
        if shape is None or len(shape) != 3 or shape[2] is None:
            raise pf.ShapeError(
                f"layer {self.path!r} ({type(self).__name__}) takes (N, T, units) whose last "
                f"extent is known, and got {shape}"
            )
        return int(shape[2])


class LearnedPositions(_Positions):
    """y = x + weight[:T]: a trained vector for each place, added to the token that stands there.

    Parameters
    ----------
    length : int
        The number of places: no sequence may be longer.
    weight_initializer : str, callable or array_like, default "uniform"
    name : str, optional

    Notes
    -----
    Input (N, T, units) gives the same shape. Parameter: weight (length, units).

    Raises
    ------
    ShapeError
        If a sequence is longer.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_seq import LearnedPositions
    >>> LearnedPositions(64)(pf.Placeholder("x", shape=(None, 50, 8))).shape
    (None, 50, 8)
    """

    _attributes = dict.fromkeys(["weight"], VALUE)

    def __init__(
        self, length: int, weight_initializer: Any = "uniform", *, name: str | None = None
    ) -> None:
        super().__init__(length, name=name)
        self.weight_initializer = weight_initializer

    def build(self, *specs: Any) -> None:
        shape = (self.length, self._units(specs[0]))
        self.weight = self.add_parameter(
            "weight", shape, self.weight_initializer, dtype=specs[0].dtype
        )

    def call(self, *inputs: Any) -> Any:
        (x,) = inputs
        return x + PositionRows(self.weight, x)


class SinusoidalPositions(_Positions):
    """y = x + table[:T], sines and cosines of the place; see `sinusoids`.

    Parameters
    ----------
    length : int, default 1024
        The number of places: no sequence may be longer.
    name : str, optional

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_seq import SinusoidalPositions
    >>> SinusoidalPositions()(pf.Placeholder("x", shape=(None, 50, 8))).shape
    (None, 50, 8)
    """

    _attributes = Layer._attributes

    def __init__(self, length: int = 1024, *, name: str | None = None) -> None:
        super().__init__(length, name=name)

    def build(self, *specs: Any) -> None:
        self._units(specs[0])

    def call(self, *inputs: Any) -> Any:
        (x,) = inputs
        table = sinusoids(self.length, self._units(x.spec))
        return x + PositionRows(pf.Constant(table, dtype=x.dtype), x)


OPS: tuple[type[Op], ...] = (Rotary, PositionRows, PositionRowsGrad)
LAYERS: dict[str, type[Layer]] = {
    "learned_positions": LearnedPositions,
    "sinusoidal_positions": SinusoidalPositions,
}
