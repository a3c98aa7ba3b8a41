"""Layers of several inputs, and layers that change a shape: each stands for an op."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyframe.errors import ArgumentError, GraphError, ShapeError, check_integer
from pyframe.graph.node import Value
from pyframe.graph.spec import describe
from pyframe.layers.base import Layer
from pyframe.ops.arithmetic import Maximum as MaximumOp
from pyframe.ops.arrangement import ExpandDims, Repeat
from pyframe.ops.reductions import Sum
from pyframe.ops.shapes import Concat, Transpose
from pyframe.ops.shapes import Reshape as ReshapeOp


class Merge(Layer):
    """The base of layers that take several inputs of one shape and join them, one after another."""

    _attributes = Layer._attributes

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return ((((4, 3), (4, 3)), {}), (((4, 2, 3), (4, 2, 3), (4, 2, 3)), {}))

    def check(self, inputs: Sequence[Value]) -> None:
        """Raise unless there are two inputs or more, all of one shape."""
        if len(inputs) < 2:
            raise GraphError(f"layer {self.path!r} joins two values or more, and got {len(inputs)}")
        shapes = {x.shape for x in inputs}
        if len(shapes) > 1:
            given = ", ".join(describe(x.shape) for x in inputs)
            raise ShapeError(f"layer {self.path!r} joins values of one shape, and got {given}")

    def join(self, a: Value, b: Value) -> Value:
        """Return two values as one."""
        raise NotImplementedError

    def call(self, *inputs: Value) -> Value:
        self.check(inputs)
        result = inputs[0]
        for x in inputs[1:]:
            result = self.join(result, x)
        return result


class _MergeTwo(Merge):
    """The base of those that take two inputs."""

    _attributes = Layer._attributes

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return ((((4, 3), (4, 3)), {}),)

    def check(self, inputs: Sequence[Value]) -> None:
        if len(inputs) != 2:
            raise GraphError(f"layer {self.path!r} takes two values, and got {len(inputs)}")
        super().check(inputs)


class Add(Merge):
    """y = a + b + ..., element by element: the end of a residual block.

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None, 8))
    >>> pf.layers.Add()(x, pf.layers.Dense(8)(x)).shape
    (None, 8)
    """

    _attributes = Layer._attributes

    def join(self, a: Value, b: Value) -> Value:
        return a + b


class Subtract(_MergeTwo):
    """y = a - b, element by element.

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None, 8))
    >>> pf.layers.Subtract()(x, pf.layers.Dense(8)(x)).shape
    (None, 8)
    """

    _attributes = Layer._attributes

    def join(self, a: Value, b: Value) -> Value:
        return a - b


class Multiply(Merge):
    """y = a b ..., element by element.

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None, 8))
    >>> pf.layers.Multiply()(x, pf.layers.Dense(8)(x)).shape
    (None, 8)
    """

    _attributes = Layer._attributes

    def join(self, a: Value, b: Value) -> Value:
        return a * b


class Average(Merge):
    """y = (a + b + ...) / n, element by element.

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None, 8))
    >>> pf.layers.Average()(x, pf.layers.Dense(8)(x)).shape
    (None, 8)
    """

    _attributes = Layer._attributes

    def join(self, a: Value, b: Value) -> Value:
        return a + b

    def call(self, *inputs: Value) -> Value:
        return super().call(*inputs) / float(len(inputs))


class Maximum(Merge):
    """y = max(a, b, ...), element by element.

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None, 8))
    >>> pf.layers.Maximum()(x, pf.layers.Dense(8)(x)).shape
    (None, 8)
    """

    _attributes = Layer._attributes

    def join(self, a: Value, b: Value) -> Value:
        return MaximumOp(a, b)


class Dot(_MergeTwo):
    """y = sum_c a_c b_c, along the last axis: (n, ..., c) and the same give (n, ...).

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None, 8))
    >>> pf.layers.Dot()(x, pf.layers.Dense(8)(x)).shape
    (None,)
    """

    _attributes = Layer._attributes

    def join(self, a: Value, b: Value) -> Value:
        return Sum(a * b, axis=-1)


class Concatenate(Layer):
    """The inputs one after another along an axis.

    Parameters
    ----------
    axis : int, default -1
        The last one, the channels, unless given.
    name : str, optional

    Examples
    --------
    >>> import pyframe as pf
    >>> x, z = pf.Placeholder("x", shape=(None, 8)), pf.Placeholder("z", shape=(None, 2))
    >>> pf.layers.Concatenate()(x, z).shape
    (None, 10)
    """

    _attributes = Layer._attributes

    def __init__(self, axis: int = -1, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.axis = check_integer("Concatenate: axis", axis, at_least=-8)

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return ((((4, 3), (4, 2)), {}), (((4, 2, 3), (4, 1, 3)), {"axis": 1}))

    def call(self, *inputs: Value) -> Value:
        return Concat(*inputs, axis=self.axis)


def _integers(given: Any, what: str, *, at_least: int) -> tuple[int, ...]:
    """Return several integers as a tuple, or raise `ArgumentError`."""
    if not isinstance(given, list | tuple):
        raise ArgumentError(f"{what} is {given!r}; it must be a tuple of integers")
    return tuple(check_integer(what, n, at_least=at_least, at_most=2**40) for n in given)


class Reshape(Layer):
    """Each sample in another shape: (n, ...) becomes (n, *shape).

    Parameters
    ----------
    shape : tuple of int
        Of a sample; one extent may be -1.
    name : str, optional

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.layers.Reshape((4, -1))(pf.Placeholder("x", shape=(None, 12))).shape
    (None, 4, 3)
    """

    _attributes = Layer._attributes

    def __init__(self, shape: Sequence[int], *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.shape = _integers(shape, "Reshape: shape", at_least=-1)

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return (((4, 6), {"shape": (2, 3)}), ((4, 2, 3), {"shape": (-1,)}))

    def call(self, *inputs: Value) -> Value:
        (x,) = inputs
        known = [n for n in (x.shape or ())[1:] if n is not None]
        shape = list(self.shape)
        if shape.count(-1) == 1 and x.shape is not None and len(known) == len(x.shape) - 1:
            size, rest = 1, 1
            for n in known:
                size *= n
            for n in shape:
                rest *= n if n != -1 else 1
            if rest and size % rest == 0:
                shape[shape.index(-1)] = size // rest
        return ReshapeOp(x, (-1, *shape))


class Permute(Layer):
    """The axes of each sample in another order.

    Parameters
    ----------
    axes : tuple of int
        Counted from 1, without the batch, as in Keras: ``(2, 1)`` swaps the two axes of a matrix.
    name : str, optional

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.layers.Permute((2, 1))(pf.Placeholder("x", shape=(None, 3, 5))).shape
    (None, 5, 3)
    """

    _attributes = Layer._attributes

    def __init__(self, axes: Sequence[int], *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.axes = _integers(axes, "Permute: axes", at_least=1)
        if sorted(self.axes) != list(range(1, len(self.axes) + 1)):
            raise ArgumentError(f"Permute: axes={self.axes} does not name each axis from 1 on once")

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return (((4, 2, 3), {"axes": (2, 1)}),)

    def call(self, *inputs: Value) -> Value:
        (x,) = inputs
        return Transpose(x, (0, *self.axes))


class RepeatVector(Layer):
    """(n, c) becomes (n, times, c): each row several times.

    Parameters
    ----------
    times : int, at most 65,536
    name : str, optional

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.layers.RepeatVector(4)(pf.Placeholder("x", shape=(None, 3))).shape
    (None, 4, 3)
    """

    _attributes = Layer._attributes

    def __init__(self, times: int, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.times = check_integer("RepeatVector: times", times, at_least=1, at_most=2**16)

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return (((4, 3), {"times": 2}),)

    def call(self, *inputs: Value) -> Value:
        (x,) = inputs
        if x.shape is not None and len(x.shape) != 2:
            raise ShapeError(f"layer {self.path!r} takes (n, c), and got {describe(x.shape)}")
        return Repeat(ExpandDims(x, 1), self.times, axis=1)
