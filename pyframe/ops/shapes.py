"""Shape ops, which move elements and keep their values. Kernels: shapes.c."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pyframe.attributes import axes as any_axes
from pyframe.attributes import optional, whole
from pyframe.errors import ArgumentError, GraphError, check_integer
from pyframe.graph.node import Value
from pyframe.graph.op import Case, Op, known, same_extent, same_shape
from pyframe.graph.spec import Shape, Spec, describe
from pyframe.native.core import MAX_NDIM
from pyframe.ops.reductions import varied


class Reshaped(Op):
    """x with another shape: the same memory, or a copy where that is not possible."""

    kernel = "copy"
    exact_on_integers = True

    def alias(self, specs: Sequence[Spec | None], training: bool) -> int | None:
        return 0

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (ReshapeLike(grads[0], self.inputs[0]),)


def extents_of(value: Any, what: str) -> tuple[int, ...]:
    """Return the extents of a reshape, checked: the rule of that attribute."""
    given = value if isinstance(value, Sequence | np.ndarray) else (value,)
    if isinstance(value, str | bytes):
        raise ArgumentError(f"{what} is {value!r:.80}; give whole numbers")
    extents = tuple(
        check_integer(f"{what} {value!r:.80}: an extent", n, at_least=-1) for n in given
    )
    if extents.count(-1) > 1:
        raise ArgumentError(f"{what}: only one extent can be -1")
    return extents


class Reshape(Reshaped):
    """x with another shape, its elements in the same order.

    Parameters
    ----------
    x : Value
    shape : tuple of int
        The new extents. One of them may be -1 and follows from the others, so that a batch of any
        size keeps its axis: ``Reshape(x, (-1, 12))``.

    Raises
    ------
    ShapeError
        If x does not have as many elements as the shape.

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None, 3, 4))
    >>> pf.Reshape(x, shape=(-1, 12)).shape
    (None, 12)
    """

    op = "reshape"
    kernel = "copy"
    attributes = {"shape": "8i8"}
    rules = {"shape": extents_of}

    def __init__(self, x: Any, shape: Any, *, name: str | None = None) -> None:
        super().__init__(x, name=name, shape=shape)

    def pack_attributes(self, specs: Sequence[Spec | None]) -> bytes:
        return b""  # a copy needs none

    def infer_shape(self, *shapes: Any) -> Any:
        (x,) = shapes
        shape: tuple[int, ...] = self.attrs["shape"]
        fixed = math.prod(n for n in shape if n != -1)
        if None in x:
            return tuple(None if n == -1 else n for n in shape)
        count = math.prod(x)
        if -1 not in shape:
            if fixed != count:
                self.bad_shapes(f"{count} elements cannot take the shape {describe(shape)}")
            return shape
        if fixed == 0 or count % fixed != 0:
            self.bad_shapes(f"{count} elements leave no whole number for the -1 in {shape}")
        return tuple(count // fixed if n == -1 else n for n in shape)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return np.reshape(inputs[0], attributes["shape"])

    @classmethod
    def cases(cls) -> Sequence[Case]:
        return [
            Case((varied((2, 3, 4)),), {"shape": (4, -1)}),
            Case((varied((0, 3)),), {"shape": (-1, 3)}),
            Case((varied((0, 3)),), {"shape": (7, 0)}),
            Case((varied((1, 1)),), {"shape": ()}),
            Case((varied(()),), {"shape": (1,) * MAX_NDIM}),
        ]

    @classmethod
    def sample(cls, draw: Any) -> Case:
        shape = draw.shape()
        other = list(shape[draw.choice(range(len(shape) + 1)) :])
        other.append(math.prod(shape) // max(math.prod(other), 1) if 0 not in shape else 0)
        if 0 not in shape and draw.choice([False, True]):
            other[draw.choice(range(len(other)))] = -1
        return Case((draw.normal(shape),), {"shape": tuple(other)})


class Flatten(Reshaped):
    """x (B, ...) as a matrix (B, product of the other extents).

    Parameters
    ----------
    x : Value, with at least one axis

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.Flatten(pf.Placeholder("x", shape=(None, 8, 8))).shape
    (None, 64)
    """

    op = "flatten"
    kernel = "copy"

    def infer_shape(self, *shapes: Any) -> Any:
        (x,) = shapes
        if len(x) == 0:
            self.bad_shapes("a scalar has no rows")
        return x[0], None if None in x[1:] else math.prod(x[1:])

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        (x,) = inputs
        return np.reshape(x, (x.shape[0], math.prod(x.shape[1:])))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        return [Case((varied(shape),)) for shape in ((3,), (0, 2, 3), (3, 0, 2), (3, 2, 2))]

    @classmethod
    def sample(cls, draw: Any) -> Case:
        return Case((draw.normal(draw.shape(min_ndim=1)),))


class ReshapeLike(Reshaped):
    """dx = dy in the shape of `like`; only the shape of `like` is used.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.compile(pf.ReshapeLike(pf.Constant([1.0, 2.0]), pf.Constant([[0.0], [0.0]]))).run({})
    array([[1.],
           [2.]], dtype=float32)
    """

    op = "reshape_like"
    kernel = "copy"
    shape_only = (1,)
    differentiable = False

    def infer_shape(self, *shapes: Any) -> Any:
        dy, like = shapes
        if None not in dy and None not in like and math.prod(dy) != math.prod(like):
            self.bad_shapes("both must have as many elements")
        return like

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, like = inputs
        return np.reshape(dy, like.shape)

    @classmethod
    def sample(cls, draw: Any) -> Case:
        shape = draw.shape()
        return Case((draw.normal((math.prod(shape),)), np.zeros(shape)))


def several_axes(value: Any, what: str) -> tuple[int, ...]:
    """Return axes as a tuple, checked: the rule of an attribute that is never a single axis."""
    axes = any_axes(value, what)
    if not isinstance(axes, tuple):
        raise ArgumentError(f"{what} is {value!r}; give the axes as a tuple")
    return axes


class Transpose(Op):
    """x with its axes in another order.

    Parameters
    ----------
    x : Value
    axes : tuple of int, optional
        Axis i of the result is axis ``axes[i]`` of x. None reverses the order.

    Raises
    ------
    ShapeError
        If axes does not name every axis of x once.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.Transpose(pf.Placeholder("x", shape=(None, 3, 8, 8)), axes=(0, 2, 3, 1)).shape
    (None, 8, 8, 3)
    """

    op = "transpose"
    attributes = {"axes": "8i8"}
    rules = {"axes": optional(several_axes)}
    exact_on_integers = True

    def __init__(
        self, x: Any, axes: Sequence[int] | None = None, *, name: str | None = None
    ) -> None:
        super().__init__(x, name=name, axes=axes)

    def _axes(self, ndim: int) -> list[int]:
        axes = self.attrs["axes"]
        if axes is None:
            return list(range(ndim))[::-1]
        if sorted(a + ndim if a < 0 else a for a in axes) != list(range(ndim)):
            self.bad_shapes(f"axes={axes} does not name each of {ndim} axes once")
        return [a % ndim for a in axes]

    def infer_shape(self, *shapes: Any) -> Any:
        (x,) = shapes
        return tuple(x[a] for a in self._axes(len(x)))

    def alias(self, specs: Sequence[Spec | None], training: bool) -> int | None:
        """Return 0 if only axes of extent 1 change places: the memory stays as it is."""
        (x,) = specs
        assert x is not None and x.shape is not None
        moved = [a for a in self._axes(len(x.shape)) if x.shape[a] != 1]
        return 0 if moved == sorted(moved) else None

    def lower_attributes(self, specs: Sequence[Spec | None]) -> dict[str, Any]:
        (x,) = specs
        assert x is not None and x.shape is not None
        axes = self._axes(len(x.shape))
        return {"axes": axes + [0] * (MAX_NDIM - len(axes))}

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        axes = self.attrs["axes"]
        if axes is not None:
            axes = tuple(int(a) for a in np.argsort([a % len(axes) for a in axes]))
        return (Transpose(grads[0], axes),)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return np.array(np.transpose(inputs[0], attributes.get("axes")))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        return [
            Case((varied((2, 3, 4)),)),
            Case((varied(()),), {"axes": ()}),
            Case((varied((1, 5, 1, 3)),), {"axes": (1, 0, -2, -1)}),
            Case((varied((2, 3, 2, 1, 2, 3, 2, 2)),), {"axes": (7, 2, 5, 0, 3, 6, 1, 4)}),
        ]

    @classmethod
    def sample(cls, draw: Any) -> Case:
        x = draw.normal(draw.shape())
        left, axes = list(range(x.ndim)), []
        while left:
            axes.append(left.pop(draw.choice(range(len(left)))) - x.ndim * draw.choice([0, 1]))
        return Case((x,), {"axes": draw.choice([None, tuple(axes)])})


class Concat(Op):
    """The values one after the other along an axis.

    Parameters
    ----------
    *values : Value
        One or more values (or one list of them), of one shape except along that axis.
    axis : int, default 0

    Raises
    ------
    ShapeError
        If the values differ along another axis.

    Examples
    --------
    >>> import pyframe as pf
    >>> a, b = pf.Placeholder("a", shape=(None, 3)), pf.Placeholder("b", shape=(None, 4))
    >>> pf.Concat([a, b], axis=1).shape
    (None, 7)
    """

    op = "concat"
    attributes = {"axis": "i8", "position": "i8"}
    rules = {"axis": whole(), "position": whole(at_least=0, at_most=0)}
    defaults = {"position": 0}
    exact_on_integers = True

    def __init__(self, *values: Any, axis: int = 0, name: str | None = None) -> None:
        if len(values) == 1 and isinstance(values[0], list | tuple):
            values = tuple(values[0])
        if not values:
            raise GraphError("Concat joins one value or more and got none")
        super().__init__(*values, name=name, axis=axis)

    def _axis(self, ndim: int) -> int:
        axis: int = self.attrs["axis"]
        if not -ndim <= axis < ndim:
            self.bad_shapes(f"axis={axis} does not exist in an array of {ndim} axes")
        return axis % ndim

    def infer_shape(self, *shapes: Any) -> Any:
        if not shapes:
            raise GraphError(f"{self.label()}: Concat joins one value or more and got none")
        axis = self._axis(len(shapes[0]))
        result: list[int | None] = list(shapes[0])
        for shape in shapes[1:]:
            if len(shape) != len(result):
                self.bad_shapes("the values differ in their number of axes")
            for i, n in enumerate(shape):
                mine = result[i]
                if i == axis:
                    result[i] = None if mine is None or n is None else mine + n
                elif same_extent(mine, n):
                    result[i] = known(mine, n)
                else:
                    self.bad_shapes(f"the values may differ along axis {axis} only")
        return tuple(result)

    def lower_attributes(self, specs: Sequence[Spec | None]) -> dict[str, Any]:
        spec = specs[0]
        assert spec is not None and spec.shape is not None
        return {"axis": self._axis(len(spec.shape)), "position": self.attrs["position"]}

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return [
            ConcatGrad(grads[0], *self.inputs, axis=self.attrs["axis"], position=i)
            for i in range(len(self.inputs))
        ]

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return np.concatenate(inputs, axis=attributes.get("axis", 0))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        a, b, c = varied((2, 3)), varied((2, 0)), varied((2, 5))
        return [Case((a, b, c), {"axis": -1}), Case((a,)), Case((b, b), {"axis": 0})]

    @classmethod
    def sample(cls, draw: Any) -> Case:
        arrays, axis = draw_parts(draw)
        return Case(tuple(arrays), {"axis": axis})


class ConcatGrad(Op):
    """dx = the part of dy that came from value number `position`.

    The inputs are dy and all values; only the shapes of the values are used.
    """

    op = "concat_grad"
    attributes = {"axis": "i8", "position": "i8"}
    rules = {"axis": whole(), "position": whole(at_least=0)}
    differentiable = False
    exact_on_integers = True
    keeps = ("shape_only",)

    def __init__(
        self, dy: Any, *values: Any, axis: int, position: int, name: str | None = None
    ) -> None:
        # Their number depends on the node, so this is an attribute of the node, not of its class.
        self.shape_only = tuple(range(1, 1 + len(values)))  # type: ignore[misc]
        super().__init__(dy, *values, name=name, axis=axis, position=position)

    def infer_shape(self, *shapes: Any) -> Any:
        dy, *values = shapes
        if any(len(value) != len(dy) for value in values):
            self.bad_shapes("the gradient must have as many axes as the values")
        axis = self.attrs["axis"]
        if not -len(dy) <= axis < len(dy):
            self.bad_shapes(f"axis={axis} does not exist in an array of {len(dy)} axes")
        if self.attrs["position"] >= len(values):
            self.bad_shapes(f"there is no value {self.attrs['position']} among {len(values)}")
        axis %= len(dy)
        for value in values:
            if not same_shape(dy[:axis] + dy[axis + 1 :], value[:axis] + value[axis + 1 :]):
                self.bad_shapes(f"the gradient and the values may differ along axis {axis} only")
        extents = [value[axis] for value in values]
        if None not in extents and not same_extent(dy[axis], sum(extents)):
            self.bad_shapes(f"along axis {axis} the gradient must be as long as all values")
        return values[self.attrs["position"]]

    def lower_attributes(self, specs: Sequence[Spec | None]) -> dict[str, Any]:
        spec = specs[0]
        assert spec is not None and spec.shape is not None
        return {**self.attrs, "axis": self.attrs["axis"] % len(spec.shape)}

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, *values = inputs
        axis, position = attributes["axis"], attributes["position"]
        ends = np.cumsum([value.shape[axis] for value in values])
        return np.array(np.split(dy, ends, axis)[position])

    @classmethod
    def sample(cls, draw: Any) -> Case:
        arrays, axis = draw_parts(draw)
        dy = draw.normal(np.concatenate(arrays, axis).shape)
        position = draw.choice(range(len(arrays)))
        return Case((dy, *map(np.zeros_like, arrays)), {"axis": axis, "position": position})


def draw_parts(draw: Any) -> tuple[list[Any], int]:
    """Return some arrays and the axis along which they can be joined."""
    shape = list(draw.shape(min_ndim=1))
    axis = draw.axis(len(shape))
    arrays = []
    for _ in range(draw.choice([1, 2, 3, 5])):
        shape[axis] = draw.choice([0, 1, 2, 3, 7, 16])
        arrays.append(draw.normal(shape))
    return arrays, axis


# ---- slices ----

Item = int | tuple[int | None, int | None, int | None] | str


def normalize_index(index: Any, what: str = "index") -> tuple[Item, ...]:
    """Return an index as plain data: ints, (start, stop, step) and "..."."""

    def item(part: Any) -> Item:
        if isinstance(part, slice):
            part = (part.start, part.stop, part.step)
        if isinstance(part, list | tuple) and len(part) == 3:
            if all(n is None or is_int(n) for n in part):
                start, stop, step = (None if n is None else int(n) for n in part)
                if step != 0:
                    return start, stop, step
        elif is_int(part):
            return int(part)
        elif part is Ellipsis or (isinstance(part, str) and part == "..."):
            return "..."
        raise ArgumentError(
            f"{what} is {index!r:.80}: each axis takes a whole number, a slice whose step is not "
            "0, or ..."
        )

    items = tuple(map(item, index if isinstance(index, tuple | list) else (index,)))
    if items.count("...") > 1:
        raise ArgumentError(f"{what} is {index!r:.80}: ... can stand once")
    return items


def is_int(n: Any) -> bool:
    """Return whether n is a whole number of 64 bits (True and False are not)."""
    whole_number = isinstance(n, int | np.integer) and not isinstance(n, bool)
    return whole_number and -(2**63) <= n < 2**63


def numpy_index(index: Any) -> tuple[Any, ...]:
    """Return a normalized index as NumPy takes it."""
    return tuple(
        slice(*part) if isinstance(part, tuple) else Ellipsis if part == "..." else part
        for part in normalize_index(index)
    )


class Sliced(Op):
    """The base of `Slice` and its gradient; `like` is the index of the input x."""

    # for each axis of x: the first index, the step and the number of indices
    attributes = {"index": "(3,8)i8"}
    rules = {"index": normalize_index}
    exact_on_integers = True
    like = 0

    def _items(self, ndim: int) -> list[Item]:
        """Return one item for each axis of x."""
        items = list(self.attrs["index"])
        at = items.index("...") if "..." in items else len(items)
        named = items[:at] + items[at + 1 :]
        if len(named) > ndim:
            self.bad_shapes(f"the index names {len(named)} axes of {ndim}")
        named[at:at] = [(None, None, None)] * (ndim - len(named))
        return named

    def _ranges(self, x: Shape) -> list[tuple[range | None, bool]]:
        """Return for each axis its indices (None: not known yet) and whether the axis is kept."""
        ranges: list[tuple[range | None, bool]] = []
        for axis, (item, n) in enumerate(zip(self._items(len(x)), x, strict=True)):
            if isinstance(item, tuple):
                ranges.append((None if n is None else range(*slice(*item).indices(n)), True))
                continue
            assert isinstance(item, int)
            if n is not None and not -n <= item < n:
                self.bad_shapes(f"index {item} lies outside of axis {axis} with {n} elements")
            first = item if n is None else item % n
            ranges.append((range(first, first + 1), False))
        return ranges

    def _part(self, x: Shape) -> Shape:
        return tuple(None if r is None else len(r) for r, kept in self._ranges(x) if kept)

    def lower_attributes(self, specs: Sequence[Spec | None]) -> dict[str, Any]:
        spec = specs[self.like]
        assert spec is not None and spec.shape is not None
        block = np.zeros((3, MAX_NDIM), np.int64)
        for axis, (indices, _) in enumerate(self._ranges(spec.shape)):
            assert indices is not None
            block[:, axis] = indices.start, indices.step, len(indices)
        return {"index": block}


class Slice(Sliced):
    """A part of x, indexed as in NumPy.

    Parameters
    ----------
    x : Value
    index : int, slice, Ellipsis, or tuple of these
        An integer removes its axis. Slices may have any step, including negative ones. A slice
        may also be written as (start, stop, step) within a tuple.

    Raises
    ------
    ShapeError
        If an integer lies outside of its axis, or there are more items than axes.

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None, 4))
    >>> backwards = pf.Slice(x, (slice(None), slice(None, None, -1)))
    >>> pf.compile(backwards).run({x: [[1.0, 2.0, 3.0, 4.0]]})
    array([[4., 3., 2., 1.]], dtype=float32)
    """

    op = "slice"

    def __init__(self, x: Any, index: Any, *, name: str | None = None) -> None:
        super().__init__(x, name=name, index=index)

    def infer_shape(self, *shapes: Any) -> Any:
        (x,) = shapes
        return self._part(x)

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (SliceGrad(grads[0], self.inputs[0], **self.attrs),)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return np.array(inputs[0][numpy_index(attributes["index"])])

    @classmethod
    def cases(cls) -> Sequence[Case]:
        x = varied((5, 4, 3))
        indices: list[Any] = [
            (),
            -1,
            (slice(None, None, -1), 2),
            (Ellipsis, 0),
            (slice(3, 0, -2), Ellipsis, slice(7, None)),
            (0, 0, 0),
            (slice(-100, 100), slice(None, None, 3), slice(None, None, -3)),
        ]
        return [
            *(Case((x,), {"index": index}) for index in indices),
            Case((varied((0, 3)),), {"index": (slice(None, None, -1), 1)}),
            Case((varied((2,) * 8),), {"index": (slice(None, None, -1), 0) * 4}),
        ]

    @classmethod
    def sample(cls, draw: Any) -> Case:
        x = draw.normal(draw.shape())
        return Case((x,), {"index": draw_index(draw, x.shape)})


class SliceGrad(Sliced):
    """dx = dy in the part that was taken, else 0; only the shape of x is used."""

    op = "slice_grad"
    shape_only = (1,)
    differentiable = False
    like = 1

    def __init__(self, dy: Any, x: Any, index: Any, *, name: str | None = None) -> None:
        super().__init__(dy, x, name=name, index=index)

    def infer_shape(self, *shapes: Any) -> Any:
        dy, x = shapes
        if not same_shape(dy, self._part(x)):
            self.bad_shapes(f"the gradient must have the shape {describe(self._part(x))}")
        return x

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, x = inputs
        dx = np.zeros(x.shape)
        dx[numpy_index(attributes["index"])] = dy
        return dx

    @classmethod
    def sample(cls, draw: Any) -> Case:
        x = np.zeros(draw.shape())
        index = draw_index(draw, x.shape)
        return Case((draw.normal(x[index].shape), x), {"index": index})


def draw_index(draw: Any, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Return a random index of an array of this shape."""
    index: list[Any] = []
    for n in shape:
        if n > 0 and draw.choice([False, False, True]):
            index.append(draw.choice([0, n // 2, n - 1, -1, -n]))
            continue
        # Both ends are counted from one side, so that tests with other extents can predict how many
        # indices lie between them.
        side = draw.choice([[0, 1, n // 2, n - 1, n, n + 3], [-1, -(n // 2) - 1, -n, -n - 3]])
        step = draw.choice([None, 1, 2, 3, n + 1, -1, -2, -n - 1])
        index.append(slice(draw.choice([None, *side]), draw.choice([None, *side]), step))
    start = draw.choice(range(len(index) + 1))
    if draw.choice([False, True]):
        index[start : draw.choice(range(start, len(index) + 1))] = [Ellipsis]
    else:
        del index[start:]
    return tuple(index)


OPS: list[type[Op]] = [Reshape, Flatten, ReshapeLike, Transpose, Concat, ConcatGrad]
OPS += [Slice, SliceGrad]
