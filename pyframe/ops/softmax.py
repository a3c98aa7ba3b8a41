"""Softmax and its logarithm over one axis. Kernels: softmax.c."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyframe.attributes import whole
from pyframe.graph.node import Value
from pyframe.graph.op import Case, Op, Rows, merge_shapes, same_shape
from pyframe.graph.spec import Shape, Spec
from pyframe.ops.arithmetic import Log


def _softmax(x: Any, axis: int) -> Any:
    if x.size == 0:
        return x
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def _log_softmax(x: Any, axis: int) -> Any:
    if x.size == 0:
        return x
    shifted = x - x.max(axis=axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


class AxisOp(Op):
    """An op along one axis; every operand and the output have one shape."""

    attributes = {"axis": "i8"}
    rules = {"axis": whole()}
    takes = 1  # how many inputs

    def __init__(self, *inputs: Any, axis: int = -1, name: str | None = None) -> None:
        super().__init__(*inputs, name=name, axis=axis)

    def infer_shape(self, *shapes: Any) -> Shape:
        shape: Shape = shapes[0]
        axis = self.attrs["axis"]
        if len(shapes) != self.takes:
            self.bad_shapes(f"it takes {self.takes} input(s)")
        if not -len(shape) <= axis < len(shape):
            self.bad_shapes(f"there is no axis {axis} among {len(shape)}")
        for other in shapes[1:]:
            if not same_shape(shape, other):
                self.bad_shapes("the shapes differ")
            shape = merge_shapes(shape, other)
        return shape

    def lower_attributes(self, specs: Sequence[Spec | None]) -> dict[str, Any]:
        assert specs[0] is not None and specs[0].shape is not None
        return {"axis": self.attrs["axis"] % len(specs[0].shape)}

    def rows(self, specs: Sequence[Spec | None]) -> Rows | None:
        if self.lower_attributes(specs)["axis"] == 0:
            return None
        return Rows((True,) * len(specs), (True,))


class Softmax(AxisOp):
    """y_i = exp(x_i) / sum_j exp(x_j): turns numbers into probabilities.

    Computed from x - max(x), so that large x do not overflow. An x of -inf, an impossible class,
    has probability 0 and gets no gradient; where one is +inf, or all are -inf, the result is NaN,
    as in PyTorch.

    Parameters
    ----------
    x : Value, of any shape with at least one axis
    axis : int, default -1
        The axis along which the result sums to 1.
    name : str, optional

    Returns
    -------
    Value, of the shape of x

    Raises
    ------
    ShapeError
        If x has no such axis.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.Softmax(pf.Placeholder("logits", shape=(None, 10))).shape
    (None, 10)
    """

    op = "softmax"

    def __init__(self, x: Any, axis: int = -1, *, name: str | None = None) -> None:
        super().__init__(x, axis=axis, name=name)

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (SoftmaxGrad(grads[0], self, **self.attrs),)

    def absorb(self, index: int, consumer: Op, specs: Sequence[Spec | None]) -> Op | None:
        # One pass, and accurate even where the probability itself rounds to zero.
        if isinstance(consumer, Log):
            return LogSoftmax(self.inputs[0], self.attrs["axis"], name=consumer.label())
        return None

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return _softmax(inputs[0], attributes["axis"])

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        (x,) = inputs
        axis = attributes["axis"]
        if x.size == 0:
            return 9, x
        # x - max(x) is off by half a unit of its own last place; exp makes that a relative error.
        spread = np.abs(x - x.max(axis=axis, keepdims=True))
        spread = np.where(np.isfinite(spread), spread, 0)
        return 9 + x.shape[axis], _softmax(x, axis) * (1 + spread)

    @classmethod
    def sample(cls, draw: Any) -> Case:
        x = draw.choice([1.0, 8.0]) * draw.normal(draw.shape(min_ndim=1))
        return Case((x,), {"axis": draw.choice([-1, draw.axis(x.ndim)])})

    @classmethod
    def cases(cls) -> Sequence[Case]:
        return (
            Case((np.array([[1e4, 1e4, -1e4], [-1e4, -1e4, -1e4]]),), {"axis": -1}),
            Case((np.array([[1e4, -1e4], [1e4, -1e4], [-1e4, -1e4]]),), {"axis": 0}),
            Case((np.array([[0.0, -np.inf], [3.0, 5.0]]),), {"axis": 0}),
        )


class SoftmaxGrad(AxisOp):
    """dx_i = y_i (dy_i - sum_j dy_j y_j), with y = softmax(x)."""

    op = "softmax_grad"
    takes = 2
    differentiable = False

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, y = inputs
        return y * (dy - (dy * y).sum(axis=attributes["axis"], keepdims=True))

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        dy, y = np.abs(inputs[0]), np.abs(inputs[1])
        axis = attributes["axis"]
        return 9 + dy.shape[axis], y * (dy + (dy * y).sum(axis=axis, keepdims=True))

    @classmethod
    def sample(cls, draw: Any) -> Case:
        shape = draw.shape(min_ndim=1)
        axis = draw.axis(len(shape))
        return Case((draw.normal(shape), _softmax(draw.normal(shape), axis)), {"axis": axis})


class LogSoftmax(AxisOp):
    """y_i = x_i - log sum_j exp(x_j): turns numbers into log-probabilities.

    More accurate than the logarithm of `Softmax`, which is -inf where `Softmax` underflows. For an
    x of -inf it is -inf; where one is +inf, or all are -inf, it is NaN, as `Softmax` is.

    Parameters
    ----------
    x : Value, of any shape with at least one axis
    axis : int, default -1
    name : str, optional

    Returns
    -------
    Value, of the shape of x

    Raises
    ------
    ShapeError
        If x has no such axis.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.LogSoftmax(pf.Placeholder("logits", shape=(None, 10)), axis=0).shape
    (None, 10)
    """

    op = "log_softmax"

    def __init__(self, x: Any, axis: int = -1, *, name: str | None = None) -> None:
        super().__init__(x, axis=axis, name=name)

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (LogSoftmaxGrad(grads[0], self, **self.attrs),)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return _log_softmax(inputs[0], attributes["axis"])

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        (x,) = inputs
        axis = attributes["axis"]
        if x.size == 0:
            return 9, x
        top = x.max(axis=axis, keepdims=True)
        terms = np.abs(x - top) + np.log(np.exp(x - top).sum(axis=axis, keepdims=True)) + 1
        return 9 + x.shape[axis], terms

    @classmethod
    def sample(cls, draw: Any) -> Case:
        return Softmax.sample(draw)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        return Softmax.cases()


class LogSoftmaxGrad(AxisOp):
    """dx_i = dy_i - exp(y_i) sum_j dy_j, with y = log_softmax(x)."""

    op = "log_softmax_grad"
    takes = 2
    differentiable = False

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, y = inputs
        return dy - np.exp(y) * dy.sum(axis=attributes["axis"], keepdims=True)

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        dy, y = inputs
        axis = attributes["axis"]
        terms = np.abs(dy) + np.exp(y) * np.abs(dy).sum(axis=axis, keepdims=True)
        return 9 + dy.shape[axis], terms

    @classmethod
    def sample(cls, draw: Any) -> Case:
        shape = draw.shape(min_ndim=1)
        axis = draw.axis(len(shape))
        return Case((draw.normal(shape), _log_softmax(draw.normal(shape), axis)), {"axis": axis})


OPS = (Softmax, SoftmaxGrad, LogSoftmax, LogSoftmaxGrad)
