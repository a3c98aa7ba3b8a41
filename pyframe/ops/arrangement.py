"""Arrangements: arrays stacked, split, padded, repeated, and sums over named axes.

Kernels: shapes.c. Importing this module gives nodes their index: ``node[:, 1:3]``.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from pyframe.attributes import whole
from pyframe.errors import ArgumentError, GraphError, ShapeError, check_integer
from pyframe.graph.composite import Composite, composite
from pyframe.graph.node import OPERATORS, Constant, Value
from pyframe.graph.op import Case, Op, same_extent
from pyframe.graph.spec import FLOAT32, INT64, Shape, Spec, describe, known_shape
from pyframe.native.core import MAX_NDIM
from pyframe.ops.arithmetic import Mul
from pyframe.ops.indexing import Take
from pyframe.ops.linear import MatMul
from pyframe.ops.reductions import Sum, varied
from pyframe.ops.shapes import Concat, Reshape, Reshaped, Slice, Transpose


def as_value(x: Any) -> Value:
    """Return a node as it is, and numbers as a constant."""
    return x if isinstance(x, Value) else Constant(x, dtype=FLOAT32)


def shape_of(x: Value, what: str) -> Shape:
    """Return the shape of a node, of which at least the number of axes must be known."""
    if x.shape is None:
        raise ShapeError(f"{what}: the number of axes of {x!r} must be known")
    return x.shape


def axis_of(axis: int, ndim: int, what: str) -> int:
    """Return an axis counted from the front, or raise `ShapeError`."""
    axis = check_integer(f"{what}: axis", axis)
    if not -ndim <= axis < ndim:
        raise ShapeError(f"{what}: there is no axis {axis} among {ndim}")
    return axis % ndim


def several(values: tuple[Any, ...], what: str) -> list[Value]:
    """Return the values of a call, given one by one or as one list."""
    if len(values) == 1 and isinstance(values[0], list | tuple):
        values = tuple(values[0])
    if not values:
        raise GraphError(f"{what} takes one value or more and got none")
    dtype = next((v.dtype for v in values if isinstance(v, Value)), FLOAT32)
    return [v if isinstance(v, Value) else Constant(v, dtype=dtype) for v in values]


# ---- axes of extent 1 ----


class ExpandDims(Reshaped):
    """x with a new axis of extent 1.

    Parameters
    ----------
    x : Value
    axis : int
        Where the new axis stands in the result; negative ones count from the back.

    Raises
    ------
    ShapeError
        If the result has no such axis.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.ExpandDims(pf.Placeholder("x", shape=(None, 3)), axis=1).shape
    (None, 1, 3)
    """

    op = "expand_dims"
    kernel = "copy"
    attributes = {"axis": "i8"}
    rules = {"axis": whole()}

    def __init__(self, x: Any, axis: int, *, name: str | None = None) -> None:
        super().__init__(x, name=name, axis=axis)

    def pack_attributes(self, specs: Sequence[Spec | None]) -> bytes:
        return b""  # a copy needs none

    def infer_shape(self, *shapes: Any) -> Any:
        (x,) = shapes
        axis, ndim = self.attrs["axis"], len(x) + 1
        if not -ndim <= axis < ndim:
            self.bad_shapes(f"there is no axis {axis} among {ndim}")
        axis %= ndim
        return (*x[:axis], 1, *x[axis:])

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return np.array(np.expand_dims(inputs[0], attributes["axis"]))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        return [Case((varied((2, 3)),), {"axis": axis}) for axis in (0, 1, 2, -1, -3)]

    @classmethod
    def sample(cls, draw: Any) -> Case:
        x = draw.normal(draw.shape())
        return Case((x,), {"axis": draw.axis(x.ndim + 1)})


class Squeeze(Reshaped):
    """x without one of its axes, which has extent 1.

    Parameters
    ----------
    x : Value
    axis : int

    Raises
    ------
    ShapeError
        If x has no such axis, or its extent is not 1.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.Squeeze(pf.Placeholder("x", shape=(None, 1, 3)), axis=1).shape
    (None, 3)
    """

    op = "squeeze"
    kernel = "copy"
    attributes = {"axis": "i8"}
    rules = {"axis": whole()}

    def __init__(self, x: Any, axis: int, *, name: str | None = None) -> None:
        super().__init__(x, name=name, axis=axis)

    def pack_attributes(self, specs: Sequence[Spec | None]) -> bytes:
        return b""  # a copy needs none

    def infer_shape(self, *shapes: Any) -> Any:
        (x,) = shapes
        axis = self.attrs["axis"]
        if not -len(x) <= axis < len(x) or not same_extent(x[axis], 1):
            self.bad_shapes(f"there is no axis {axis} of extent 1")
        axis %= len(x)
        return (*x[:axis], *x[axis + 1 :])

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return np.array(np.squeeze(inputs[0], attributes["axis"]))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        return [Case((varied((2, 1, 3)),), {"axis": axis}) for axis in (1, -2)]

    @classmethod
    def sample(cls, draw: Any) -> Case:
        shape = list(draw.shape())
        axis = draw.choice(range(len(shape) + 1))
        shape.insert(axis, 1)
        return Case((draw.normal(shape),), {"axis": axis - len(shape) * draw.choice([0, 1])})


def item_of(x: Value, index: Any) -> Value:
    """Return x[index]: slices, whole numbers, ... and None, as in NumPy; or rows by their numbers.

    Raises
    ------
    ArgumentError
        If the index is none of these.
    ShapeError
        If it does not fit the shape.
    """
    if isinstance(index, Value):
        if index.dtype != INT64:
            raise ArgumentError(
                f"{x!r} is indexed by {index!r}; nodes of int64 take rows. For a choice by a "
                "condition write pyframe.Where"
            )
        return Take(x, index)
    items = list(index) if isinstance(index, tuple) else [index]
    plain = [item for item in items if item is not None]
    y: Value = Slice(x, tuple(plain)) if plain and plain != [Ellipsis] else x
    if len(plain) == len(items):
        return y
    # Where each new axis stands in the result, which lacks the axes that a whole number takes;
    # counted from the back if it comes after the ellipsis.
    at = items.index(Ellipsis) if Ellipsis in items else len(items)
    front, behind = (
        [item is None for item in part if item is None or isinstance(item, slice)]
        for part in (items[:at], items[at:])
    )
    for i in [i for i, new in enumerate(front) if new]:
        y = ExpandDims(y, i)
    for i in [i for i, new in reversed(list(enumerate(behind))) if new]:
        y = ExpandDims(y, i - len(behind))
    return y


# ---- joining and parting ----


def _draw_stack(draw: Any) -> Case:
    shape = draw.shape(max_ndim=3)
    arrays = tuple(draw.normal(shape) for _ in range(draw.choice([1, 2, 4])))
    return Case(arrays, {"axis": draw.axis(len(shape) + 1)})


@composite(
    "stack",
    reference=lambda *values, axis=0: np.stack(values, axis),
    sample=_draw_stack,
)
def Stack(*values: Any, axis: int = 0) -> Value:
    """The values one after the other along a new axis.

    Parameters
    ----------
    *values : Value
        One or more values (or one list of them), of one shape.
    axis : int, default 0
        Where the new axis stands in the result.

    Raises
    ------
    ShapeError
        If the shapes differ, or the result has no such axis.

    Examples
    --------
    >>> import pyframe as pf
    >>> a, b = pf.Placeholder("a", shape=(None, 3)), pf.Placeholder("b", shape=(None, 3))
    >>> pf.Stack([a, b], axis=1).shape
    (None, 2, 3)
    """
    return Concat([ExpandDims(v, axis) for v in several(values, "Stack")], axis=axis)


def Split(x: Value, sections: int | Sequence[int], axis: int = 0) -> list[Value]:
    """Return the parts of x along an axis, of equal length, or of the lengths given.

    Parameters
    ----------
    x : Value
        Its extent along the axis must be known.
    sections : int or sequence of int
        How many equal parts, or the length of each part.
    axis : int, default 0

    Returns
    -------
    list of Value

    Raises
    ------
    ShapeError
        If x has no such axis, its extent is unknown, or the parts do not make up all of it.
    ArgumentError
        If sections is no positive whole number, nor a list of lengths.

    Examples
    --------
    >>> import pyframe as pf
    >>> [part.shape for part in pf.Split(pf.Placeholder("x", shape=(None, 6)), 3, axis=1)]
    [(None, 2), (None, 2), (None, 2)]
    """
    shape = shape_of(x, "Split")
    axis = axis_of(axis, len(shape), "Split")
    extent = shape[axis]
    if extent is None:
        raise ShapeError(f"Split: the extent of axis {axis} of {x!r} must be known")
    if isinstance(sections, Sequence):
        lengths = [check_integer("Split: a length", n, at_least=0) for n in sections]
    else:
        count = check_integer("Split: sections", sections, at_least=1)
        lengths = [extent // count] * count
    if sum(lengths) != extent:
        raise ShapeError(f"Split: axis {axis} of {x!r} is not made up of parts of {sections!r}")
    ends = np.cumsum(lengths)
    before = (slice(None),) * axis
    return [
        Slice(x, (*before, slice(int(e) - n, int(e)))) for n, e in zip(lengths, ends, strict=True)
    ]


# ---- more of the same ----


def pad_widths(value: Any, what: str) -> tuple[tuple[int, int], ...] | int:
    """Return how much to add to each axis, checked: the rule of that attribute."""
    if isinstance(value, int | np.integer):
        return check_integer(what, value, at_least=0)
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise ArgumentError(f"{what} is {value!r:.80}; give a pair (before, after) for each axis")
    pairs = []
    for pair in value:
        both = (pair, pair) if isinstance(pair, int | np.integer) else pair
        if isinstance(both, str | bytes) or not isinstance(both, Sequence) or len(both) != 2:
            raise ArgumentError(f"{what} is {value!r:.80}; give a pair (before, after) an axis")
        first, last = (check_integer(what, n, at_least=0) for n in both)
        pairs.append((first, last))
    return tuple(pairs)


class Pad(Op):
    """x with zeros around it.

    Parameters
    ----------
    x : Value
    padding : int or sequence
        How many zeros before and after: one number for all axes, or for each axis one number or
        a pair (before, after), as in NumPy.

    Raises
    ------
    ShapeError
        If there are not as many pairs as axes.

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None, 2))
    >>> pf.compile(pf.Pad(x, ((0, 0), (1, 2)))).run({x: [[1.0, 2.0]]})
    array([[0., 1., 2., 0., 0.]], dtype=float32)
    """

    op = "pad"
    kernel = "slice_grad"
    attributes = {"padding": "(3,8)i8"}  # as `Slice` has it: start, step, count
    rules = {"padding": pad_widths}
    exact_on_integers = True

    def __init__(self, x: Any, padding: Any, *, name: str | None = None) -> None:
        super().__init__(x, name=name, padding=padding)

    def _pairs(self, ndim: int) -> tuple[tuple[int, int], ...]:
        padding = self.attrs["padding"]
        if isinstance(padding, int):
            return ((padding, padding),) * ndim
        if len(padding) != ndim:
            self.bad_shapes(f"padding={padding!r} has {len(padding)} pairs for {ndim} axes")
        return tuple(padding)

    def infer_shape(self, *shapes: Any) -> Any:
        (x,) = shapes
        pairs = self._pairs(len(x))
        return tuple(None if n is None else n + sum(p) for n, p in zip(x, pairs, strict=True))

    def lower_attributes(self, specs: Sequence[Spec | None]) -> dict[str, Any]:
        shape = known_shape(specs[0])
        block = np.zeros((3, MAX_NDIM), np.int64)
        for axis, (n, (before, _)) in enumerate(zip(shape, self._pairs(len(shape)), strict=True)):
            block[:, axis] = before, 1, n
        return {"padding": block}

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        padding = self.attrs["padding"]
        if isinstance(padding, int):
            assert self.specs[0].shape is not None
            padding = ((padding, padding),) * len(self.specs[0].shape)
        inside = tuple(slice(before, -after if after else None) for before, after in padding)
        return (Slice(grads[0], inside),)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        (x,) = inputs
        padding = attributes["padding"]
        if not isinstance(padding, int):
            padding = [(p, p) if isinstance(p, int) else p for p in padding]
        return np.pad(x, padding) if x.ndim else np.array(x)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        return [
            Case((varied((2, 3)),), {"padding": 1}),
            Case((varied(()),), {"padding": ()}),
            Case((varied((0, 3)),), {"padding": ((1, 2), (0, 0))}),
            Case((varied((2,) * 8),), {"padding": ((0, 1), (1, 0)) * 4}),
        ]

    @classmethod
    def sample(cls, draw: Any) -> Case:
        x = draw.normal(draw.shape(max_ndim=3))
        width = [0, 0, 1, 2, 3]
        pairs = tuple((draw.choice(width), draw.choice(width)) for _ in range(x.ndim))
        return Case((x,), {"padding": pairs})


def _draw_tile(draw: Any) -> Case:
    x = draw.normal(draw.shape(max_ndim=3))
    count = draw.choice(range(x.ndim + 2))
    return Case((x,), {"repeats": tuple(draw.choice([1, 2, 3]) for _ in range(count))})


@composite(
    "tile",
    reference=lambda x, repeats: np.tile(x, repeats),
    sample=_draw_tile,
)
def Tile(x: Any, repeats: int | Sequence[int]) -> Value:
    """The whole of x several times along its axes: 1 2 becomes 1 2 1 2.

    Parameters
    ----------
    x : Value
    repeats : int or sequence of int
        How often along each axis, from the last one back; more of them than axes add axes in
        front, as in NumPy.

    Raises
    ------
    ArgumentError
        If one of them is no positive whole number.

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None, 2))
    >>> pf.compile(pf.Tile(x, (1, 2))).run({x: [[1.0, 2.0]]})
    array([[1., 2., 1., 2.]], dtype=float32)
    """
    given = repeats if isinstance(repeats, Sequence) else (repeats,)
    counts = [check_integer("Tile: repeats", n, at_least=1) for n in given]
    y = as_value(x)
    for _ in range(len(counts) - len(shape_of(y, "Tile"))):
        y = ExpandDims(y, 0)
    for i, count in enumerate(counts):
        if count > 1:
            y = Concat([y] * count, axis=i - len(counts))
    return y


def _draw_repeat(draw: Any) -> Case:
    x = draw.normal(draw.shape(min_ndim=1, max_ndim=3))
    return Case((x,), {"repeats": draw.choice([1, 2, 5]), "axis": draw.axis(x.ndim)})


@composite(
    "repeat",
    reference=lambda x, repeats, axis=-1: np.repeat(x, repeats, axis),
    sample=_draw_repeat,
)
def Repeat(x: Any, repeats: int, axis: int = -1) -> Value:
    """Each entry of x along an axis several times: 1 2 becomes 1 1 2 2.

    Parameters
    ----------
    x : Value
        At most one of its extents may be unknown.
    repeats : int
    axis : int, default -1

    Raises
    ------
    ArgumentError
        If repeats is no positive whole number.
    ShapeError
        If x has no such axis.

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None, 2))
    >>> pf.compile(pf.Repeat(x, 2)).run({x: [[1.0, 2.0]]})
    array([[1., 1., 2., 2.]], dtype=float32)
    """
    count = check_integer("Repeat: repeats", repeats, at_least=1)
    x = as_value(x)
    shape = shape_of(x, "Repeat")
    axis = axis_of(axis, len(shape), "Repeat")
    ones = Constant(np.ones((count,) + (1,) * (len(shape) - axis - 1)), dtype=x.dtype)
    extent = shape[axis]
    return with_shape(
        Mul(ExpandDims(x, axis + 1), ones),
        (*shape[:axis], None if extent is None else extent * count, *shape[axis + 1 :]),
        "Repeat",
    )


def with_shape(x: Value, shape: Shape, what: str) -> Value:
    """Return x reshaped; of one extent of the new shape it is enough that x decides it."""
    if shape.count(None) > 1:
        raise ShapeError(
            f"{what}: the result has the shape {describe(shape)}, of which at most one extent may "
            "be unknown; give the placeholder a shape"
        )
    return Reshape(x, tuple(-1 if n is None else n for n in shape))


# ---- sums over named axes ----


def _parse(equation: Any, count: int) -> tuple[list[str], str]:
    """Return the letters of each operand and of the result, or raise `ArgumentError`."""
    if not isinstance(equation, str):
        raise ArgumentError(
            f"Einsum: the equation is {equation!r:.80}; give a text such as 'ij,jk'"
        )
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow:  # as in NumPy: what occurs once, in alphabetical order
        right = "".join(sorted(c for c in set(left) if left.count(c) == 1 and c != ","))
    letters = set("".join(terms)) | set(right)
    if not letters <= set(string.ascii_letters):
        raise ArgumentError(f"Einsum: {equation!r} has more than letters, commas and one arrow")
    if len(terms) != count:
        raise ArgumentError(f"Einsum: {equation!r} is of {len(terms)} operands and got {count}")
    for term in (*terms, right):
        if len(set(term)) < len(term):
            raise ArgumentError(f"Einsum: {term!r} names an axis twice, which is not supported")
    unknown = set(right) - set("".join(terms))
    if unknown:
        raise ArgumentError(f"Einsum: {equation!r}: no operand has {', '.join(sorted(unknown))}")
    return terms, right


def _ordered(x: Value, term: str, wanted: str) -> Value:
    """Return x with its axes in another order."""
    if term == wanted:
        return x
    return Transpose(x, tuple(term.index(c) for c in wanted))


def _merged(x: Value, kept: int, groups: Sequence[int]) -> Value:
    """Return x with `kept` leading axes as they are, and each group of the others as one axis."""
    if all(n == 1 for n in groups):
        return x
    shape = shape_of(x, "Einsum")
    result, at = list(shape[:kept]), kept
    for n in groups:
        extents = shape[at : at + n]
        result.append(None if None in extents else int(np.prod(extents, dtype=np.int64)))  # type: ignore[arg-type]
        at += n
    return with_shape(x, tuple(result), "Einsum")


def _contract(a: Value, left: str, b: Value, right: str, wanted: set[str]) -> tuple[Value, str]:
    """Return the sum of a b over the letters that are not wanted, and the letters of the result."""
    both = [c for c in left if c in right]
    batch = "".join(c for c in both if c in wanted)
    inner = "".join(c for c in both if c not in wanted)
    rows = "".join(c for c in left if c not in right)
    columns = "".join(c for c in right if c not in left)
    extents: dict[str, int | None] = {}
    for term, x in ((left, a), (right, b)):
        for c, n in zip(term, shape_of(x, "Einsum"), strict=True):
            if not same_extent(extents.get(c), n):
                raise ShapeError(f"Einsum: axis {c} has the extents {extents[c]} and {n}")
            extents[c] = n if extents.get(c) is None else extents[c]
    a = _merged(_ordered(a, left, batch + rows + inner), len(batch), (len(rows), len(inner)))
    b = _merged(_ordered(b, right, batch + inner + columns), len(batch), (len(inner), len(columns)))
    y: Value = MatMul(a, b)
    if len(rows) != 1 or len(columns) != 1:
        y = with_shape(y, tuple(extents[c] for c in batch + rows + columns), "Einsum")
    return y, batch + rows + columns


EQUATIONS = (
    *("ij,jk->ik", "bij,bkj->bik", "ij,j->i", "ij->ji", "ij->i", "ij,ij->", "bhqd,bhkd->bhqk"),
    *("i,j->ij", "abc,cd,d->ba", "ijk,jkl", "bi,bi->b", "ij,kj->k", "ab->"),
)


def _draw_einsum(draw: Any) -> Case:
    equation = draw.choice(EQUATIONS)
    extents = {c: draw.choice([1, 2, 3, 5]) for c in string.ascii_letters}
    terms = equation.partition("->")[0].split(",")
    arrays = tuple(draw.normal([extents[c] for c in term]) for term in terms)
    return Case(arrays, {"equation": equation})


def _einsum_size(*inputs: Any, equation: str) -> tuple[int, Any]:
    return 100, np.einsum(equation, *map(np.abs, inputs))


@composite(
    "einsum",
    reference=lambda *inputs, equation: np.einsum(equation, *inputs),
    sample=_draw_einsum,
    magnitude=_einsum_size,
)
def Einsum(*operands: Any, equation: str | None = None) -> Value:
    """The sum of products over named axes: ``Einsum("ij,jk->ik", a, b)`` is a matrix product.

    Each letter names an axis. One that the result lacks is summed over. Products of two operands
    are those of `MatMul`, from left to right.

    Parameters
    ----------
    equation : str
        The letters of each operand, and behind an arrow those of the result. Without an arrow the
        result has those that occur once, in alphabetical order. No letter may occur twice in one
        operand, and there is no ellipsis. It may be given first, as in NumPy, or by name.
    *operands : Value

    Raises
    ------
    ArgumentError
        If the equation cannot be read, or is of another number of operands.
    ShapeError
        If an operand has another number of axes, or two axes of one name differ.

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None, 5, 3))
    >>> w = pf.Parameter([[1.0], [2.0], [3.0]])
    >>> pf.Einsum("btc,cd->btd", x, w).shape
    (None, 5, 1)
    """
    if equation is None and operands:
        equation, operands = operands[0], operands[1:]
    terms, result = _parse(equation, len(operands))
    values = several(operands, "Einsum")
    for term, value in zip(terms, values, strict=True):
        if len(shape_of(value, "Einsum")) != len(term):
            raise ShapeError(f"Einsum: {term!r} does not name the axes of {value!r}")
    y, letters = values[0], terms[0]
    for i in range(len(values)):
        # What neither the result nor a later operand has is summed before it is multiplied.
        later = set(result).union(*terms[i + 1 :])
        y, letters = _summed(y, letters, later)
        if i + 1 < len(values):
            after = set(result).union(*terms[i + 2 :])
            other, names = _summed(values[i + 1], terms[i + 1], after | set(letters))
            y, letters = _contract(y, letters, other, names, after)
    return _ordered(y, letters, result)


def _summed(x: Value, letters: str, wanted: set[str]) -> tuple[Value, str]:
    """Return x without the axes that are not wanted, which are summed over."""
    axes = tuple(i for i, c in enumerate(letters) if c not in wanted)
    if not axes:
        return x, letters
    return Sum(x, axis=axes), "".join(c for c in letters if c in wanted)


OPS: list[type[Op] | Composite] = [ExpandDims, Squeeze, Stack, Pad, Tile, Repeat, Einsum]
FUNCTIONS = (Split,)  # what gives several nodes

OPERATORS.update(item=item_of)
