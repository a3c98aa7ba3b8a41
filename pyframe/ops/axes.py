"""More along axes: minimum, log-sum-exp, cumulative sums, where the largest is.

Kernels: reductions.c.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyframe.attributes import flag, whole
from pyframe.graph.composite import Composite, composite
from pyframe.graph.node import Value
from pyframe.graph.op import Case, Op, Rows
from pyframe.graph.spec import INT64, Shape, Spec, known_shape
from pyframe.ops.arithmetic import Abs, Exp, Log, Neg, StopGradient
from pyframe.ops.comparisons import Less, Select
from pyframe.ops.reductions import Axis, Max, Sum, draw_axes, varied


def _of_distinct(draw: Any) -> Case:
    x = draw.distinct(draw.shape(low=1))
    return Case((x,), draw_axes(draw, x.ndim))


@composite(
    "min",
    reference=lambda x, **attributes: np.min(x, **attributes),
    sample=_of_distinct,
)
def Min(x: Value, axis: Axis = None, keepdims: bool = False) -> Value:
    """y = the smallest x over some axes, NaN if any is. Elements that tie share the gradient.

    Parameters
    ----------
    x : Value
    axis : int or tuple of int, optional
        The axes; negative ones count from the back, None is all.
    keepdims : bool, default False
        Whether to keep the reduced axes, with extent 1.

    Raises
    ------
    ShapeError
        If x has no such axis, or an axis is empty.

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None, 3))
    >>> pf.compile(pf.Min(x, axis=1)).run({x: [[1.0, -2.0, 3.0]]})
    array([-2.], dtype=float32)
    """
    return Neg(Max(Neg(x), axis, keepdims))


def _log_sum_exp(x: Any, **attributes: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        top = np.max(x, axis=attributes.get("axis"), keepdims=True)
        top = np.where(np.isfinite(top), top, 0.0)
        low = np.log(np.sum(np.exp(x - top), **attributes))
    return low + np.reshape(top, np.shape(low))


def _log_sum_exp_size(x: Any, **attributes: Any) -> tuple[int, Any]:
    return 100, np.abs(_log_sum_exp(x, **attributes)) + np.nan_to_num(
        np.max(np.abs(x), **attributes), posinf=0
    )


@composite(
    "log_sum_exp",
    reference=_log_sum_exp,
    sample=_of_distinct,
    magnitude=_log_sum_exp_size,
)
def LogSumExp(x: Value, axis: Axis = None, keepdims: bool = False) -> Value:
    """y = log of the sum of exp(x) over some axes, without overflow.

    The largest x is subtracted first, and added at the end.

    Parameters
    ----------
    x : Value
    axis, keepdims
        As for `Sum`.

    Raises
    ------
    ShapeError
        If x has no such axis, or an axis is empty.

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None, 2))
    >>> pf.compile(pf.LogSumExp(x, axis=1)).run({x: [[1000.0, 1000.0]]})
    array([1000.6932], dtype=float32)

    References
    ----------
    Blanchard, Higham, Higham, "Accurately computing the log-sum-exp and softmax functions", IMA
    Journal of Numerical Analysis 41, 2021.
    """
    peak = StopGradient(Max(x, axis, keepdims=True))
    top = Select(Less(Abs(peak), np.inf), peak)  # infinity minus itself would be NaN
    total = Log(Sum(Exp(x - top), axis, keepdims))
    return total + Sum(top, axis, keepdims)  # of one element each: their axes are dropped


class AlongAxis(Op):
    """The base of ops that go along one axis."""

    rules = {"axis": whole()}

    def _axis(self, shape: Shape) -> int:
        axis: int = self.attrs["axis"]
        if not -len(shape) <= axis < len(shape):
            self.bad_shapes(f"there is no axis {axis} among {len(shape)}")
        return axis % len(shape)

    def lower_attributes(self, specs: Sequence[Spec | None]) -> dict[str, Any]:
        return {**self.attrs, "axis": self._axis(known_shape(specs[0]))}

    def rows(self, specs: Sequence[Spec | None]) -> Rows | None:
        return None if self._axis(known_shape(specs[0])) == 0 else Rows((True,), (True,))


class Cumsum(AlongAxis):
    """y_i = x_0 + ... + x_i along an axis.

    Parameters
    ----------
    x : Value, with one axis at least
    axis : int, default -1
    reverse : bool, default False
        Whether to add from the end: y_i = x_i + ... + x_last.

    Raises
    ------
    ShapeError
        If x has no such axis.

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None, 3))
    >>> pf.compile(pf.Cumsum(x)).run({x: [[1.0, 2.0, 3.0]]})
    array([[1., 3., 6.]], dtype=float32)
    """

    op = "cumsum"
    attributes = {"axis": "i8", "reverse": "i8"}
    rules = {"axis": whole(), "reverse": flag}
    exact_on_integers = True

    def __init__(
        self, x: Any, axis: int = -1, reverse: bool = False, *, name: str | None = None
    ) -> None:
        super().__init__(x, axis=axis, reverse=reverse, name=name)

    def infer_shape(self, *shapes: Any) -> Any:
        (x,) = shapes
        self._axis(x)
        return x

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (Cumsum(grads[0], self.attrs["axis"], not self.attrs["reverse"]),)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        (x,) = inputs
        axis = attributes.get("axis", -1)
        if not attributes.get("reverse"):
            return np.cumsum(x, axis)
        return np.flip(np.cumsum(np.flip(x, axis), axis), axis)

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        (x,) = inputs
        return x.shape[attributes.get("axis", -1)], cls.reference(np.abs(x), **attributes)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        return [
            Case((varied((3, 5, 4)),), {"axis": axis, "reverse": reverse})
            for axis in (0, 1, -1)
            for reverse in (False, True)
        ] + [Case((varied((0, 3)),), {"axis": 0}), Case((varied((5,)),))]

    @classmethod
    def sample(cls, draw: Any) -> Case:
        x = draw.normal(draw.shape(min_ndim=1))
        return Case((x,), {"axis": draw.axis(x.ndim), "reverse": draw.choice([False, True])})


class Argmax(AlongAxis):
    """y = the index of the largest x along an axis, int64; of the first one of a tie, or first NaN.

    Parameters
    ----------
    x : Value, with one axis at least
    axis : int, default -1
    keepdims : bool, default False
        Whether to keep the axis, with extent 1.

    Raises
    ------
    ShapeError
        If x has no such axis, or it is empty.

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None, 3))
    >>> pf.compile(pf.Argmax(x)).run({x: [[1.0, 7.0, 3.0]]})
    array([1])
    """

    op = "argmax"
    attributes = {"axis": "i8", "keepdims": "i8"}
    rules = {"axis": whole(), "keepdims": flag}
    output_dtype = INT64
    differentiable = False

    def __init__(
        self, x: Any, axis: int = -1, keepdims: bool = False, *, name: str | None = None
    ) -> None:
        super().__init__(x, axis=axis, keepdims=keepdims, name=name)

    def infer_shape(self, *shapes: Any) -> Any:
        (x,) = shapes
        axis = self._axis(x)
        if x[axis] == 0:
            self.bad_shapes(f"axis {axis} is empty: it has no maximum")
        return (*x[:axis], *((1,) if self.attrs["keepdims"] else ()), *x[axis + 1 :])

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (None,)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        keepdims = attributes.get("keepdims", False)
        return np.argmax(inputs[0], attributes.get("axis", -1), keepdims=keepdims)

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        return 0, np.zeros(np.shape(cls.reference(*inputs, **attributes)))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        x = np.array([[1.0, 3.0, 3.0], [np.nan, 5.0, np.nan], [5.0, np.nan, 9.0], [2.0, 2.0, 2.0]])
        return [Case((x,)), Case((x,), {"axis": 0, "keepdims": True}), Case((varied((2, 5, 3)),))]

    @classmethod
    def sample(cls, draw: Any) -> Case:
        x = draw.distinct(draw.shape(min_ndim=1, low=1))
        return Case((x,), {"axis": draw.axis(x.ndim), "keepdims": draw.choice([False, True])})


@composite(
    "argmin",
    reference=lambda x, axis=-1, keepdims=False: np.argmin(x, axis, keepdims=keepdims),
    sample=Argmax.sample,
    magnitude=Argmax.magnitude,
    differentiable=False,
)
def Argmin(x: Value, axis: int = -1, keepdims: bool = False) -> Value:
    """y = the index of the smallest x along an axis, int64; see `Argmax`.

    Parameters
    ----------
    x : Value, with one axis at least
    axis, keepdims
        As for `Argmax`.

    Raises
    ------
    ShapeError
        If x has no such axis, or it is empty.

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None, 3))
    >>> pf.compile(pf.Argmin(x)).run({x: [[1.0, 7.0, -3.0]]})
    array([2])
    """
    return Argmax(Neg(x), axis, keepdims)


OPS: list[type[Op] | Composite] = [Min, LogSumExp, Cumsum, Argmax, Argmin]
