"""Arithmetic, element by element; two operands broadcast as in NumPy. Kernels: arithmetic.c.

Importing this module gives nodes their operators: ``a + b`` is ``Add(a, b)``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pyframe.errors import ArgumentError, DTypeError, GraphError, ShapeError
from pyframe.graph.node import OPERATORS, Value
from pyframe.graph.op import Case, Op, Rows, broadcast_shapes, merge_shapes, same_shape
from pyframe.graph.parameter import State
from pyframe.graph.spec import Shape, Spec, describe, known_shape
from pyframe.ops.activations import ElementwiseGrad, ElementwiseOp
from pyframe.ops.reductions import SumTo, broadcast_pair

# Pairs of shapes that broadcast: equal, scalars, rows, columns, empty, both stretched, rank 8.
PAIRS: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((), ()),
    ((5,), ()),
    ((), (2, 3)),
    ((7, 17), (17,)),
    ((17,), (7, 17)),
    ((7, 1), (7, 17)),
    ((7, 1), (1, 17)),
    ((3, 1, 5), (4, 1)),
    ((0, 3), (3,)),
    ((0,), (1,)),
    ((2, 1, 2, 1, 2, 1, 2, 1), (1, 3, 1, 3, 1, 3, 1, 3)),
]


def broadcast_rows(specs: Sequence[Spec | None]) -> Rows | None:
    """Return how an element-wise op of broadcast operands treats rows: those of the result."""
    shapes = [known_shape(spec) for spec in specs if spec is not None]
    full = np.broadcast_shapes(*shapes)
    if not full:
        return None
    return Rows(tuple(len(s) == len(full) and s[0] == full[0] for s in shapes), (True,))


class BinaryOp(Op):
    """An op of two operands, broadcast as in NumPy."""

    def is_elementwise(self, specs: Sequence[Spec | None]) -> bool:
        return True

    def rows(self, specs: Sequence[Spec | None]) -> Rows | None:
        return broadcast_rows(specs)

    def infer_shape(self, *shapes: Any) -> Any:
        result = broadcast_shapes(*shapes)
        if result is None:
            self.bad_shapes(
                "the operands do not broadcast: seen from the last axis, two extents must be equal "
                "or one of them 1"
            )
        return result

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Return pairs of shapes that broadcast in every possible way."""
        return [
            Case(
                (np.arange(1.0, np.prod(a) + 1).reshape(a), 2.5 + np.arange(np.prod(b)).reshape(b))
            )
            for a, b in PAIRS
        ]

    @classmethod
    def sample(cls, draw: Any) -> Case:
        """Return two arrays whose shapes broadcast."""
        a, b = broadcast_pair(draw)
        return Case((draw.normal(a), draw.normal(b)))


class Add(BinaryOp):
    """y = a + b.

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
    >>> x = pf.Placeholder("x", shape=(None, 2))
    >>> pf.compile(x + [10.0, 20.0]).run({x: [[1.0, 2.0]]})
    array([[11., 22.]], dtype=float32)
    """

    op = "add"
    exact_on_integers = True

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        a, b = self.inputs
        return SumTo(grads[0], a), SumTo(grads[0], b)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        a, b = inputs
        return np.add(a, b)


class Sub(BinaryOp):
    """y = a - b; see `Add`.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.compile(pf.Constant([6.0, 8.0]) - 2.0).run({})
    array([4., 6.], dtype=float32)
    """

    op = "sub"
    exact_on_integers = True

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        a, b = self.inputs
        return SumTo(grads[0], a), Neg(SumTo(grads[0], b))

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        a, b = inputs
        return np.subtract(a, b)


class Mul(BinaryOp):
    """y = a b, element by element; see `Add`.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.compile(pf.Constant([6.0, 8.0]) * 2.0).run({})
    array([12., 16.], dtype=float32)
    """

    op = "mul"
    exact_on_integers = True

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        a, b = self.inputs
        return SumTo(Mul(grads[0], b), a), SumTo(Mul(grads[0], a), b)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        a, b = inputs
        return np.multiply(a, b)


class Div(BinaryOp):
    """y = a / b; division by zero gives infinity or NaN, as in IEEE 754. See `Add`.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.compile(pf.Constant([6.0, 8.0]) / 2.0).run({})
    array([3., 4.], dtype=float32)
    """

    op = "div"

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        # da = dy / b; db = -dy a / b^2 = -da y
        a, b = self.inputs
        quotient = Div(grads[0], b)
        return SumTo(quotient, a), Neg(SumTo(Mul(quotient, self), b))

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        a, b = inputs
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.divide(a, b)

    @classmethod
    def sample(cls, draw: Any) -> Case:
        a, b = broadcast_pair(draw)
        return Case((draw.normal(a), draw.positive(b) * draw.choice([-1.0, 1.0])))


class Maximum(BinaryOp):
    """y = max(a, b), NaN where either is; see `Add`.

    Where both are equal, each gets half of the gradient, as in PyTorch: the mean of the two
    one-sided derivatives.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.compile(pf.Maximum(pf.Constant([1.0, 5.0]), pf.Constant(3.0))).run({})
    array([3., 5.], dtype=float32)
    """

    op = "maximum"
    exact_on_integers = True

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        a, b = self.inputs
        return SumTo(MaximumGrad(grads[0], a, b), a), SumTo(MaximumGrad(grads[0], b, a), b)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        a, b = inputs
        return np.maximum(a, b)

    @classmethod
    def sample(cls, draw: Any) -> Case:
        a, b = broadcast_pair(draw)
        return Case(distinct_pair(draw, a, b))


class MaximumGrad(Op):
    """dy where a > b, dy / 2 where a = b, else 0; dy where one is NaN. The shape is that of dy."""

    op = "maximum_grad"
    differentiable = False

    def is_elementwise(self, specs: Sequence[Spec | None]) -> bool:
        return True

    def rows(self, specs: Sequence[Spec | None]) -> Rows | None:
        return broadcast_rows(specs)

    def infer_shape(self, *shapes: Any) -> Any:
        dy, a, b = shapes
        result = broadcast_shapes(a, b)
        if result is None or not same_shape(dy, result):
            self.bad_shapes("the gradient must have the shape that both operands broadcast to")
        return merge_shapes(dy, result)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, a, b = inputs
        return np.where(np.less(a, b), 0.0, np.where(np.equal(a, b), dy / 2, dy))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        a = np.array([1.0, 2.0, 3.0, np.nan, 0.0])
        b = np.array([2.0, 2.0, 2.0, 2.0, np.nan])
        return [Case((np.arange(5.0), a, b)), Case((np.ones((3, 5)), np.ones((3, 1)), b))]

    @classmethod
    def sample(cls, draw: Any) -> Case:
        a, b = broadcast_pair(draw)
        return Case((draw.normal(np.broadcast_shapes(a, b)), *distinct_pair(draw, a, b)))


def distinct_pair(draw: Any, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[Any, Any]:
    """Return arrays of two shapes; all of their elements are distinct."""
    both = draw.distinct((int(np.prod(a)) + int(np.prod(b)),))
    first, second = np.split(both, [int(np.prod(a))])
    return first.reshape(a), second.reshape(b)


class Neg(ElementwiseOp):
    """y = -x.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.compile(pf.Neg(pf.Constant([-1.0, 2.0]))).run({})
    array([ 1., -2.], dtype=float32)
    """

    op = "neg"
    exact_on_integers = True

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (Neg(grads[0]),)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return np.negative(inputs[0])


class Abs(ElementwiseOp):
    """y = |x|; its derivative at 0 is taken as 0.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.compile(pf.Abs(pf.Constant([-1.0, 2.0]))).run({})
    array([1., 2.], dtype=float32)
    """

    op = "abs"
    exact_on_integers = True

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (AbsGrad(grads[0], self.inputs[0]),)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return np.abs(inputs[0])


class AbsGrad(ElementwiseGrad):
    """dx = dy sign(x)."""

    op = "abs_grad"
    exact_on_integers = True

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, x = inputs
        return dy * np.sign(x)


class Square(ElementwiseOp):
    """y = x^2.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.compile(pf.Square(pf.Constant([4.0, 9.0]))).run({})
    array([16., 81.], dtype=float32)
    """

    op = "square"
    exact_on_integers = True

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (SquareGrad(grads[0], self.inputs[0]),)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return np.square(inputs[0])


class SquareGrad(ElementwiseGrad):
    """dx = 2 dy x."""

    op = "square_grad"
    exact_on_integers = True

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, x = inputs
        return 2 * dy * x


class Sqrt(ElementwiseOp):
    """y = sqrt(x); NaN for negative x, and an infinite gradient at 0.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.compile(pf.Sqrt(pf.Constant([4.0, 9.0]))).run({})
    array([2., 3.], dtype=float32)
    """

    op = "sqrt"

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (SqrtGrad(grads[0], self),)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        with np.errstate(invalid="ignore"):
            return np.sqrt(inputs[0])

    @classmethod
    def sample(cls, draw: Any) -> Case:
        return Case((draw.positive(draw.shape()),))


class SqrtGrad(ElementwiseGrad):
    """dx = dy / (2 y), with y = sqrt(x)."""

    op = "sqrt_grad"

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, y = inputs
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.divide(0.5 * dy, y)


class Exp(ElementwiseOp):
    """y = exp(x).

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.compile(pf.Exp(pf.Constant([0.0, 1.0]))).run({})
    array([1.       , 2.7182817], dtype=float32)
    """

    op = "exp"

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (Mul(grads[0], self),)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        with np.errstate(over="ignore"):
            return np.exp(inputs[0])


class Log(ElementwiseOp):
    """y = log(x), the natural logarithm; -infinity at 0, NaN below.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.compile(pf.Log(pf.Constant([1.0, 2.0]))).run({})
    array([0.       , 0.6931472], dtype=float32)
    """

    op = "log"

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (Div(grads[0], self.inputs[0]),)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log(inputs[0])

    @classmethod
    def sample(cls, draw: Any) -> Case:
        return Case((draw.positive(draw.shape()),))


class Erf(ElementwiseOp):
    """y = erf(x) = 2 / sqrt(pi) times the integral of exp(-t**2) from 0 to x.

    Parameters
    ----------
    x : Value, of any shape

    References
    ----------
    Abramowitz, Stegun, "Handbook of Mathematical Functions", 1964, section 7.1.

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None,), dtype="float64")
    >>> pf.compile(pf.Erf(x)).run({x: [0.0, 0.5]})
    array([0.        , 0.52049988])
    """

    op = "erf"

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (ErfGrad(grads[0], self.inputs[0]),)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return np.vectorize(math.erf, otypes=[float])(inputs[0])


class ErfGrad(ElementwiseGrad):
    """dx = dy 2 / sqrt(pi) exp(-x**2)."""

    op = "erf_grad"

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, x = inputs
        return dy * 2 / math.sqrt(math.pi) * np.exp(-x * x)

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        dy, x = inputs
        # Rounding x**2 changes the exponential by x**2 units in the last place.
        return 9, np.abs(cls.reference(dy, x)) * (1 + np.minimum(x * x, 1e3))


class AddN(Op):
    """y = x_1 + ... + x_n, added from left to right; nothing is broadcast.

    Differentiation uses it to sum the gradients from several consumers of one value.

    Parameters
    ----------
    *values : Value
        One or more values, all of one shape.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.compile(pf.AddN(*[pf.Constant([1.0, 2.0])] * 3)).run({})
    array([3., 6.], dtype=float32)
    """

    op = "add_n"
    exact_on_integers = True

    def is_elementwise(self, specs: Sequence[Spec | None]) -> bool:
        return True

    def __init__(self, *values: Any, name: str | None = None) -> None:
        if not values:
            raise GraphError("AddN adds one value or more and got none")
        super().__init__(*values, name=name)

    def infer_shape(self, *shapes: Any) -> Any:
        result: Shape = shapes[0]
        for shape in shapes[1:]:
            if not same_shape(result, shape):
                self.bad_shapes(f"all must have one shape, here {describe(result)}")
            result = merge_shapes(result, shape)
        return result

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return grads * len(self.inputs)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return functools.reduce(np.add, inputs)  # no 0 to start from: -0 stays -0

    @classmethod
    def cases(cls) -> Sequence[Case]:
        return [
            Case((np.arange(5.0),)),
            Case((np.zeros((0, 2)),) * 3),
            Case((np.array(2.0),) * 2),
        ]

    @classmethod
    def sample(cls, draw: Any) -> Case:
        shape = draw.shape()
        return Case(tuple(draw.normal(shape) for _ in range(draw.choice([1, 2, 3, 5]))))

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        return len(inputs), np.sum(np.abs(np.stack(inputs)), axis=0)


class Copy(ElementwiseOp):
    """y = x, in memory of its own.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.compile(pf.Copy(pf.Constant([1.0, 2.0]))).run({})
    array([1., 2.], dtype=float32)
    """

    op = "copy"
    exact_on_integers = True

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (grads[0],)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return np.array(inputs[0])


class Remember(Op):
    """y = x, and in training a state becomes x, to be read in the next step; no gradient.

    What reads the state in the same step, and is to see its old value, must lie before x.

    Parameters
    ----------
    x : Value, of any shape
    state : State, of the same shape
    name : str, optional

    Raises
    ------
    ShapeError
        If the shapes differ.
    ArgumentError
        If there is no state.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> count = pf.State(np.zeros(()), "count")
    >>> w = pf.Parameter(1.0, name="w")
    >>> cost = w * pf.Remember(count + 1.0, count)
    >>> plan = pf.compile(cost, optimizer=pf.optimizers.SGD(0.1))
    >>> _, _ = plan.step({}), plan.step({})
    >>> float(count.value)
    2.0
    """

    op = "remember"
    differentiable = False
    reads_training = True
    exact_on_integers = True

    def __init__(
        self,
        x: Any,
        state: State | None = None,
        *,
        name: str | None = None,
        states: Sequence[State] = (),
    ) -> None:
        super().__init__(x, name=name, states=states if state is None else (state,))

    def check(self, *specs: Spec | None) -> tuple[Spec, ...]:
        if len(self.states) != 1 or not isinstance(self.states[0], State):
            raise ArgumentError(f"{self.label()}: Remember takes one pyframe.State")
        result = super().check(*specs)
        if self.states[0].dtype != result[0].dtype:
            raise DTypeError(
                f"{self.label()}: state {self.states[0].label()} is {self.states[0].dtype.name} "
                f"and x is {result[0].dtype.name}; give both one dtype"
            )
        return result

    def infer_shape(self, *shapes: Any) -> Any:
        (x,) = shapes
        shape = self.states[0].shape or ()
        if not same_shape(x, shape):
            raise ShapeError(
                f"{self.label()}: x has shape {describe(x)}, and the state {describe(shape)}"
            )
        return shape

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (None,)

    @classmethod
    def reference_states(
        cls, *inputs: Any, states: Sequence[Any], training: bool, **attributes: Any
    ) -> tuple[Any, Sequence[Any]]:
        x = np.array(inputs[0])
        return x, (x,) if training else states

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return np.array(inputs[0])

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        return 0, np.zeros_like(inputs[0])

    @classmethod
    def sample(cls, draw: Any) -> Case:
        x = draw.normal(draw.shape())
        return Case((x,), {}, (draw.normal(x.shape),))


class StopGradient(ElementwiseOp):
    """y = x, and no gradient: differentiation takes it for a constant.

    Parameters
    ----------
    x : Value, of any shape

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> w = pf.Parameter(3.0, name="w")
    >>> plan = pf.compile(w * pf.StopGradient(w))
    >>> loss, gradients = plan.loss_and_gradients({})
    >>> float(loss), float(gradients[w])
    (9.0, 3.0)
    """

    op = "stop_gradient"
    kernel = "copy"
    differentiable = False
    exact_on_integers = True

    def alias(self, specs: Sequence[Spec | None], training: bool) -> int | None:
        return 0

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (None,)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return np.array(inputs[0])


OPS: list[type[Op]] = [
    Add,
    Sub,
    Mul,
    Div,
    Maximum,
    MaximumGrad,
    Neg,
    Abs,
    AbsGrad,
    Square,
    SquareGrad,
    Sqrt,
    SqrtGrad,
    Exp,
    Log,
    Erf,
    ErfGrad,
    AddN,
    Copy,
    Remember,
    StopGradient,
]

OPERATORS.update(add=Add, sub=Sub, mul=Mul, div=Div, neg=Neg, abs=Abs, square=Square, sqrt=Sqrt)
