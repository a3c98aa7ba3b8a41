"""Reductions: sum, mean and max over any axes. Kernels: reductions.c."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pyframe.attributes import axes as any_axes
from pyframe.attributes import flag, optional
from pyframe.graph.node import Value
from pyframe.graph.op import Case, Op, Rows, broadcast_shapes, same_shape
from pyframe.graph.spec import Shape, Spec, known_shape

Axis = int | Sequence[int] | None


def normalize_axis(node: Op, axis: Axis, ndim: int) -> tuple[int, ...]:
    """Return the axes counted from the front and sorted; all of them for None."""
    if axis is None:
        return tuple(range(ndim))
    axes = [axis] if isinstance(axis, int | np.integer) else list(axis)
    if any(not -ndim <= a < ndim for a in axes):
        node.bad_shapes(f"axis={axis} does not exist in an array of {ndim} axes")
    result = sorted(int(a) % ndim for a in axes)
    if len(set(result)) < len(result):
        node.bad_shapes(f"axis={axis} names one of {ndim} axes twice")
    return tuple(result)


def reduced_shape(shape: Shape, axes: Sequence[int], keepdims: bool) -> Shape:
    """Return the shape that remains when the axes are reduced."""
    if keepdims:
        return tuple(1 if i in axes else n for i, n in enumerate(shape))
    return tuple(n for i, n in enumerate(shape) if i not in axes)


class Reduction(Op):
    """The base of sum, mean and max and their gradients; `like` is the index of the input x.

    The kernel reads the axes as a mask: bit i for axis i.
    """

    attributes = {"axis": "u8", "keepdims": "i8"}
    rules = {"axis": optional(any_axes), "keepdims": flag}
    like = 0

    def __init__(
        self, *inputs: Any, axis: Axis = None, keepdims: bool = False, name: str | None = None
    ) -> None:
        super().__init__(*inputs, name=name, axis=axis, keepdims=keepdims)

    def _axes(self, shape: Shape) -> tuple[int, ...]:
        return normalize_axis(self, self.attrs["axis"], len(shape))

    def _reduced(self, shape: Shape) -> Shape:
        return reduced_shape(shape, self._axes(shape), self.attrs["keepdims"])

    def infer_shape(self, *shapes: Any) -> Any:
        (x,) = shapes
        return self._reduced(x)

    def lower_attributes(self, specs: Sequence[Spec | None]) -> dict[str, Any]:
        spec = specs[self.like]
        assert spec is not None and spec.shape is not None
        mask = sum(1 << axis for axis in self._axes(spec.shape))
        return {"axis": mask, "keepdims": self.attrs["keepdims"]}

    def _reduces_rows(self, specs: Sequence[Spec | None]) -> bool:
        """Return whether the first axis is among those that are reduced, or there is none."""
        shape = known_shape(specs[self.like])
        return not shape or 0 in self._axes(shape)

    def rows(self, specs: Sequence[Spec | None]) -> Rows | None:
        return None if self._reduces_rows(specs) else Rows((True,) * len(specs), (True,))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Return every set of axes of one shape, long ones, and empty ones."""
        found: list[tuple[tuple[int, ...], dict[str, Any]]] = []
        for mask in range(16):
            axes = tuple(i for i in range(4) if mask >> i & 1)
            found.append(((3, 2, 5, 4), {"axis": axes, "keepdims": mask % 3 == 0}))
        found += [
            ((), {}),
            ((4097,), {"axis": 0}),
            ((1031, 67), {"axis": 0}),
            ((67, 1031), {"axis": -1, "keepdims": True}),
            ((0, 3), {"axis": 1}),
            ((2, 3, 2, 3, 2, 3, 2, 3), {"axis": (0, 2, -1)}),
        ]
        return [Case((varied(shape),), attributes) for shape, attributes in found]

    @classmethod
    def sample(cls, draw: Any) -> Case:
        """Return an array and any of its axes."""
        x = draw.distinct(draw.shape(low=1)) if cls.op == "max" else draw.normal(draw.shape())
        return Case((x,), draw_axes(draw, x.ndim))


class ReductionGrad(Reduction):
    """dx (the shape of x) from dy (the reduced shape), x, and what else the kernel takes."""

    differentiable = False
    like = 1
    takes = 2  # how many inputs

    def infer_shape(self, *shapes: Any) -> Any:
        dy, x, *rest = shapes
        if len(shapes) != self.takes:
            self.bad_shapes(f"it takes {self.takes} inputs")
        if any(not same_shape(s, self._reduced(x)) for s in (dy, *rest)):
            self.bad_shapes("the gradient must have the shape that the reduction leaves")
        return x

    @classmethod
    def _expand(cls, y: Any, x: Any, axis: Axis, keepdims: bool) -> Any:
        """Return y with its reduced axes put back, with extent 1."""
        axes = range(x.ndim) if axis is None else np.atleast_1d(np.asarray(axis, int)) % x.ndim
        return np.reshape(y, [1 if i in axes else n for i, n in enumerate(x.shape)])

    @classmethod
    def cases(cls) -> Sequence[Case]:
        return ()

    @classmethod
    def sample(cls, draw: Any) -> Case:
        x = draw.normal(draw.shape())
        attributes = draw_axes(draw, x.ndim)
        return Case((draw.normal(np.sum(x, **attributes).shape), x), attributes)


def varied(shape: tuple[int, ...]) -> Any:
    """Return unordered numbers of both signs, at least 0.1 apart."""
    count = math.prod(shape)
    order = np.arange(count) * 7919 % max(count, 1)  # a prime: none comes twice
    return ((order - count // 2) / 10).reshape(shape)


def draw_axes(draw: Any, ndim: int) -> dict[str, Any]:
    """Return random arguments `axis` and `keepdims` for an array of ndim axes."""
    kinds: list[Any] = [None, draw.axes(ndim)]
    if ndim > 0:
        kinds.append(draw.axis(ndim))
    return {"axis": draw.choice(kinds), "keepdims": draw.choice([False, True])}


def reduced_count(x: Any, axis: Axis = None, keepdims: bool = False) -> int:
    """Return the number of elements of x for each element of the result."""
    axes = range(x.ndim) if axis is None else np.atleast_1d(np.asarray(axis, int))
    return math.prod(x.shape[a] for a in axes)


class Sum(Reduction):
    """y = the sum of x over some axes; 0 over none.

    Parameters
    ----------
    x : Value
    axis : int or tuple of int, optional
        The axes to sum over; negative ones count from the back, None is all.
    keepdims : bool, default False
        Whether to keep the summed axes, with extent 1.

    Raises
    ------
    ShapeError
        If x has no such axis.

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None, 3))
    >>> pf.compile(pf.Sum(x, axis=1)).run({x: [[1.0, 2.0, 3.0]]})
    array([6.], dtype=float32)
    """

    op = "sum"
    exact_on_integers = True

    def __init__(
        self, x: Any, axis: Axis = None, keepdims: bool = False, *, name: str | None = None
    ) -> None:
        super().__init__(x, axis=axis, keepdims=keepdims, name=name)

    def rows(self, specs: Sequence[Spec | None]) -> Rows | None:
        if not known_shape(specs[0]):
            return None
        return Rows((True,), (not self._reduces_rows(specs),))

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (SumGrad(grads[0], self.inputs[0], **self.attrs),)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return np.sum(inputs[0], **attributes)

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        (x,) = inputs
        return reduced_count(x, **attributes), np.sum(np.abs(x), **attributes)


class SumGrad(ReductionGrad):
    """dx = dy, repeated along the axes that were summed."""

    op = "sum_grad"
    shape_only = (1,)
    exact_on_integers = True

    def rows(self, specs: Sequence[Spec | None]) -> Rows | None:
        if not known_shape(specs[1]):
            return None
        return Rows((not self._reduces_rows(specs), True), (True,))

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, x = inputs
        return np.array(np.broadcast_to(cls._expand(dy, x, **attributes), x.shape))


class Mean(Reduction):
    """y = the mean of x over some axes; NaN over none. The arguments are those of `Sum`.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.compile(pf.Mean(pf.Constant([[1.0, 2.0], [3.0, 6.0]]), axis=1)).run({})
    array([1.5, 4.5], dtype=float32)
    """

    op = "mean"

    def __init__(
        self, x: Any, axis: Axis = None, keepdims: bool = False, *, name: str | None = None
    ) -> None:
        super().__init__(x, axis=axis, keepdims=keepdims, name=name)

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (MeanGrad(grads[0], self.inputs[0], **self.attrs),)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        (x,) = inputs
        with np.errstate(invalid="ignore"):
            return np.divide(np.sum(x, **attributes), reduced_count(x, **attributes))

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        (x,) = inputs
        return reduced_count(x, **attributes), cls.reference(np.abs(x), **attributes)


class MeanGrad(ReductionGrad):
    """dx = dy / n, repeated along the axes whose mean was taken, n elements in each."""

    op = "mean_grad"
    shape_only = (1,)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, x = inputs
        count = max(reduced_count(x, **attributes), 1)
        return np.array(np.broadcast_to(cls._expand(dy, x, **attributes) / count, x.shape))


class Max(Reduction):
    """y = the largest x over some axes, NaN if any is. The arguments are those of `Sum`.

    Elements that tie for the maximum get equal shares of the gradient, as in `Maximum`.

    Raises
    ------
    ShapeError
        If x has no such axis, or an axis is empty: there is no maximum of nothing.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.compile(pf.Max(pf.Constant([[1.0, 2.0], [3.0, 6.0]]), axis=1)).run({})
    array([2., 6.], dtype=float32)
    """

    op = "max"
    exact_on_integers = True

    def __init__(
        self, x: Any, axis: Axis = None, keepdims: bool = False, *, name: str | None = None
    ) -> None:
        super().__init__(x, axis=axis, keepdims=keepdims, name=name)

    def infer_shape(self, *shapes: Any) -> Any:
        (x,) = shapes
        if any(x[axis] == 0 for axis in self._axes(x)):
            self.bad_shapes(f"an axis of axis={self.attrs['axis']} is empty: it has no maximum")
        return self._reduced(x)

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (MaxGrad(grads[0], self.inputs[0], self, **self.attrs),)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return np.max(inputs[0], **attributes)

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        return 0, np.zeros_like(cls.reference(*inputs, **attributes))  # one of the inputs, exactly


class MaxGrad(ReductionGrad):
    """dx = dy / (how many elements are the largest) at each of these, else 0."""

    op = "max_grad"
    takes = 3

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, x, y = inputs
        dy, y = (cls._expand(v, x, **attributes) for v in (dy, y))
        greatest = (x == y) | np.isnan(x)
        ties = np.sum(greatest, axis=attributes.get("axis"), keepdims=True)
        return np.where(greatest, dy / np.maximum(ties, 1), 0.0)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        x = np.array([[1.0, 3.0, 3.0], [np.nan, 5.0, 5.0], [2.0, 2.0, 2.0], [4.0, 1.0, 0.0]])
        return [
            Case((np.arange(1.0, 5.0), x, x.max(axis=1)), {"axis": 1}),
            Case((np.arange(1.0, 4.0), x, x.max(axis=0)), {"axis": 0}),
        ]

    @classmethod
    def sample(cls, draw: Any) -> Case:
        x = draw.distinct(draw.shape(low=1))
        attributes = draw_axes(draw, x.ndim)
        y = np.max(x, **attributes)
        return Case((draw.normal(y.shape), x, y), attributes)


class SumOfSquares(Op):
    """y = the sum of all x^2: what a penalty on weights is made of.

    It takes one pass over x, and its gradient 2 x dy another one; `Sum` of `Square` takes two for
    each.

    Parameters
    ----------
    x : Value, of any shape

    Returns
    -------
    Value, shape ()

    Examples
    --------
    >>> import pyframe as pf
    >>> w = pf.Parameter([[1.0, 2.0], [3.0, 4.0]])
    >>> float(pf.compile(pf.SumOfSquares(w)).run({}))
    30.0
    """

    op = "sum_of_squares"
    exact_on_integers = True

    def infer_shape(self, *shapes: Any) -> Any:
        (_,) = shapes
        return ()

    def rows(self, specs: Sequence[Spec | None]) -> Rows | None:
        return Rows((True,), (False,)) if known_shape(specs[0]) else None

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        (x,) = self.inputs
        assert x is not None
        return (x * (2.0 * grads[0]),)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return np.sum(np.square(inputs[0]))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        return [
            Case((varied(shape),)) for shape in ((), (0, 3), (1,), (31, 67), (2049,), (3, 2, 5))
        ]

    @classmethod
    def sample(cls, draw: Any) -> Case:
        return Case((draw.normal(draw.shape()),))

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        return inputs[0].size, cls.reference(*inputs)


class SumTo(Op):
    """dx = dy summed over the axes along which `like` was stretched to dy's shape.

    The gradient of broadcasting. If both shapes are the same, nothing is computed.

    Parameters
    ----------
    dy : Value
    like : Value
        A value whose shape broadcasts to that of dy; only the shape is used.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.compile(pf.SumTo(pf.Constant([[1.0, 2.0], [3.0, 6.0]]), pf.Constant([0.0]))).run({})
    array([12.], dtype=float32)
    """

    op = "sum_to"
    shape_only = (1,)
    differentiable = False
    exact_on_integers = True

    def infer_shape(self, *shapes: Any) -> Any:
        dy, like = shapes
        result = broadcast_shapes(dy, like)
        if result is None or not same_shape(result, dy):
            self.bad_shapes("the second shape must broadcast to the first")
        return like

    def alias(self, specs: Sequence[Spec | None], training: bool) -> int | None:
        dy, like = specs
        assert dy is not None and like is not None
        return 0 if dy.shape == like.shape else None

    def rows(self, specs: Sequence[Spec | None]) -> Rows | None:
        dy, like = (known_shape(spec) for spec in specs)
        if not dy:
            return None
        by_row = len(like) == len(dy) and like[0] == dy[0]
        return Rows((True, by_row), (by_row,))

    @staticmethod
    def _axes(dy: Any, like: Any) -> tuple[int, ...]:
        missing = dy.ndim - like.ndim
        shape = (0,) * missing + like.shape
        return tuple(i for i in range(dy.ndim) if i < missing or shape[i] != dy.shape[i])

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, like = inputs
        return np.sum(dy, axis=cls._axes(dy, like)).reshape(like.shape)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        pairs: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
            ((3, 4), (3, 4)),
            ((3, 4), ()),
            ((0, 4), (1, 4)),
            ((0, 4), (4,)),
            ((2, 3, 4, 5), (3, 1, 5)),
            ((2, 3, 2, 3, 2, 3, 2, 3), (2, 1, 2, 1, 2, 1, 2, 1)),
        ]
        return [Case((varied(dy), np.zeros(like))) for dy, like in pairs]

    @classmethod
    def sample(cls, draw: Any) -> Case:
        a, b = broadcast_pair(draw)
        return Case((draw.normal(np.broadcast_shapes(a, b)), np.zeros(b)))

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        dy, like = inputs
        terms = math.prod(dy.shape[i] for i in cls._axes(dy, like))
        return terms, cls.reference(np.abs(dy), like)


def broadcast_pair(draw: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return two shapes that broadcast: axes of either are stretched or left out at random."""
    full = draw.shape()

    def narrowed() -> tuple[int, ...]:
        shape = [1 if draw.choice([False, False, True]) else n for n in full]
        return tuple(shape[draw.choice([0, 0, *range(len(full) + 1)]) :])

    a, b = narrowed(), narrowed()
    kind = draw.choice(["equal", "left", "right", "both"])
    return (full if kind in ("equal", "right") else a), (full if kind in ("equal", "left") else b)


OPS: list[type[Op]] = [Sum, SumGrad, SumOfSquares, Mean, MeanGrad, Max, MaxGrad, SumTo]
