"""Comparisons, and choices between two values. Kernels: arithmetic.c.

A comparison gives the numbers 1 and 0, of the dtype of its operands, and no gradient flows through
it. Importing this module gives nodes their operators: ``a > b`` is ``Greater(a, b)``. ``a == b`` is
whether both are one node; `Equal` compares the elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from pyframe.errors import ArgumentError
from pyframe.graph.composite import Composite, composite
from pyframe.graph.node import OPERATORS, Value
from pyframe.graph.op import Case, Op
from pyframe.graph.spec import Spec
from pyframe.ops.activations import ElementwiseOp
from pyframe.ops.arithmetic import BinaryOp, Maximum, Neg, SumTo, distinct_pair
from pyframe.ops.reductions import broadcast_pair


class Comparison(BinaryOp):
    """The base of the comparisons: 1 where the relation holds, else 0."""

    kernel = "compare"
    attributes = {}
    computed = dict.fromkeys(("less", "equal", "greater", "unordered"), "f8")
    differentiable = False
    exact_on_integers = True
    table: ClassVar[tuple[int, int, int, int]]  # the result for <, =, > and NaN
    relation: ClassVar[Any]  # NumPy's

    def pack_attributes(self, specs: Sequence[Spec | None]) -> bytes:
        return self._block.pack(dict(zip(self.computed, map(float, self.table), strict=True)))

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return None, None

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        a, b = inputs
        return np.asarray(cls.relation(a, b), np.float64)

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        return 0, np.zeros_like(cls.reference(*inputs))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Return pairs that are less, equal, greater and not comparable."""
        a = np.array([1.0, 2.0, 3.0, np.nan, 0.0, np.nan, np.inf])
        b = np.array([2.0, 2.0, 2.0, 2.0, np.nan, np.nan, np.inf])
        return [*super().cases(), Case((a, b)), Case((a, np.array(2.0))), Case((a[:, None], b))]

    @classmethod
    def sample(cls, draw: Any) -> Case:
        """Return whole numbers, many of which are equal."""
        a, b = broadcast_pair(draw)
        return Case((np.round(draw.normal(a)), np.round(draw.normal(b))))


class Greater(Comparison):
    """y = 1 where a > b, else 0.

    Parameters
    ----------
    a, b : Value or array_like
        The operands; their shapes must broadcast.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None,))
    >>> pf.compile(x > 1.0).run({x: [0.0, 1.0, 2.0]})
    array([0., 0., 1.], dtype=float32)
    """

    op, kernel = "greater", "compare"
    table, relation = (0, 0, 1, 0), np.greater


class GreaterEqual(Comparison):
    """y = 1 where a >= b, else 0; see `Greater`.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.compile(pf.Constant([1.0, 2.0, 3.0]) >= 2.0).run({})
    array([0., 1., 1.], dtype=float32)
    """

    op, kernel = "greater_equal", "compare"
    table, relation = (0, 1, 1, 0), np.greater_equal


class Less(Comparison):
    """y = 1 where a < b, else 0; see `Greater`.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.compile(pf.Constant([1.0, 2.0, 3.0]) < 2.0).run({})
    array([1., 0., 0.], dtype=float32)
    """

    op, kernel = "less", "compare"
    table, relation = (1, 0, 0, 0), np.less


class LessEqual(Comparison):
    """y = 1 where a <= b, else 0; see `Greater`.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.compile(pf.Constant([1.0, 2.0, 3.0]) <= 2.0).run({})
    array([1., 1., 0.], dtype=float32)
    """

    op, kernel = "less_equal", "compare"
    table, relation = (1, 1, 0, 0), np.less_equal


class Equal(Comparison):
    """y = 1 where a = b, else 0; see `Greater`. ``a == b`` asks whether both are one node.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.compile(pf.Equal(pf.Constant([1.0, 2.0]), pf.Constant([1.0, 3.0]))).run({})
    array([1., 0.], dtype=float32)
    """

    op, kernel = "equal", "compare"
    table, relation = (0, 1, 0, 0), np.equal


class NotEqual(Comparison):
    """y = 1 where a and b differ, NaN from everything, else 0; see `Greater`.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.compile(pf.NotEqual(pf.Constant([1.0, 2.0]), pf.Constant([1.0, 3.0]))).run({})
    array([0., 1.], dtype=float32)
    """

    op, kernel = "not_equal", "compare"
    table, relation = (1, 0, 1, 1), np.not_equal


class Select(BinaryOp):
    """y = b where mask is not 0, else 0, whatever b is there: NaN and infinity are left out too.

    Parameters
    ----------
    mask : Value or array_like
        What a comparison gives; no gradient flows to it.
    b : Value or array_like
        The shapes must broadcast.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None,))
    >>> pf.compile(pf.Select(x > 0.0, pf.Log(x))).run({x: [0.0, 1.0]})
    array([0., 0.], dtype=float32)
    """

    op = "select"
    exact_on_integers = True
    constant_inputs = (0,)

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        mask, b = self.inputs
        return None, SumTo(Select(mask, grads[0]), b)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        mask, b = inputs
        return np.where(np.not_equal(mask, 0), b, 0.0)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        mask, b = np.array([0.0, 1.0, -2.0, np.nan]), np.array([np.nan, 1.0, np.inf, 3.0])
        return [*super().cases(), Case((mask, b)), Case((mask[:, None], b))]

    @classmethod
    def sample(cls, draw: Any) -> Case:
        a, b = broadcast_pair(draw)
        return Case((np.round(draw.normal(a)), draw.normal(b)))


def _choice(draw: Any) -> Case:
    a, b = broadcast_pair(draw)
    return Case((np.round(draw.normal(b)), draw.normal(a), draw.normal(b)))


@composite(
    "where",
    reference=lambda condition, a, b: np.where(np.not_equal(condition, 0), a, b),
    sample=_choice,
    constant_inputs=(0,),
)
def Where(condition: Value, a: Any, b: Any) -> Value:
    """y = a where the condition is not 0, else b; what is not chosen may be NaN or infinite.

    Parameters
    ----------
    condition : Value
        What a comparison gives; no gradient flows to it.
    a, b : Value or array_like
        All three shapes must broadcast.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None,))
    >>> pf.compile(pf.Where(x > 0.0, x, 0.1 * x)).run({x: [-10.0, 2.0]})
    array([-1.,  2.], dtype=float32)
    """
    chosen: Value = Select(condition, a)
    if isinstance(b, int | float) and b == 0:
        return chosen
    return chosen + Select(Equal(condition, 0.0), b)


def _distinct(draw: Any) -> Case:
    return Case(distinct_pair(draw, *broadcast_pair(draw)))


@composite("minimum", reference=np.minimum, sample=_distinct)
def Minimum(a: Any, b: Any) -> Value:
    """y = min(a, b), NaN where either is. Equal operands share the gradient, as in `Maximum`.

    Parameters
    ----------
    a, b : Value or array_like
        The operands; their shapes must broadcast.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None,))
    >>> pf.compile(pf.Minimum(x, 1.0)).run({x: [0.0, 2.0]})
    array([0., 1.], dtype=float32)
    """
    return Neg(Maximum(negative(a), negative(b)))


def negative(x: Any) -> Any:
    """Return -x, of a node as of numbers."""
    return Neg(x) if isinstance(x, Value) else -np.asarray(x, np.float64)


@composite(
    "clip",
    reference=lambda x, low=None, high=None: np.clip(x, low, high),
    sample=lambda draw: Case(
        (np.round(draw.normal(draw.shape()), 1),), {"low": -0.55, "high": 0.75}
    ),
    cases=[Case((np.array([-2.0, 0.3, 2.0, np.nan]),), {"low": -1.0})],
)
def Clip(x: Value, low: Any = None, high: Any = None) -> Value:
    """y = x, but low where x is less, and high where it is greater.

    Parameters
    ----------
    x : Value, of any shape
    low, high : float, Value or None
        The bounds, one of them at least. On a bound the gradient is half of that inside.

    Raises
    ------
    ArgumentError
        If there is no bound, or low is above high.

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None,))
    >>> pf.compile(pf.Clip(x, -1.0, 1.0)).run({x: [-3.0, 0.5, 2.0]})
    array([-1. ,  0.5,  1. ], dtype=float32)
    """
    if low is None and high is None:
        raise ArgumentError("Clip needs a bound: low=, high=, or both")
    if isinstance(low, int | float) and isinstance(high, int | float) and not low <= high:
        raise ArgumentError(f"Clip: low is {low} and high is {high}; low must not be above high")
    if low is not None:
        x = Maximum(x, low)
    return x if high is None else Minimum(x, high)


@composite(
    "sign",
    reference=lambda x: np.nan_to_num(np.sign(x)),
    sample=lambda draw: Case((draw.away_from_zero(draw.shape()),)),
    cases=[*ElementwiseOp.cases(), Case((np.array([0.0, -0.0, np.nan, np.inf]),))],
    differentiable=False,
)
def Sign(x: Value) -> Value:
    """y = 1 for x > 0, -1 for x < 0, else 0, for NaN too; no gradient flows through it.

    Parameters
    ----------
    x : Value, of any shape

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None,))
    >>> pf.compile(pf.Sign(x)).run({x: [-3.0, 0.0, 2.0]})
    array([-1.,  0.,  1.], dtype=float32)
    """
    return Greater(x, 0.0) - Less(x, 0.0)


OPS: list[type[Op] | Composite] = [Greater, GreaterEqual, Less, LessEqual, Equal, NotEqual]
OPS += [Select, Where, Minimum, Clip, Sign]

OPERATORS.update(gt=Greater, ge=GreaterEqual, lt=Less, le=LessEqual)
