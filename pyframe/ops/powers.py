"""Powers with any exponent. Kernels: arithmetic.c."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pyframe.graph.node import OPERATORS, Constant, Value
from pyframe.graph.op import Case, Op
from pyframe.ops.arithmetic import PAIRS, BinaryOp, Div, Log, Mul, Sqrt, Square, Sub, SumTo
from pyframe.ops.comparisons import Greater, Select


class Pow(BinaryOp):
    """y = a^b.

    As in C: NaN for a negative a and a b that is not whole, 1 for b = 0. The gradient of b is 0
    where a is not positive. ``x ** n`` for a small whole n is a product instead, which is sooner
    done, and exact on whole numbers.

    Parameters
    ----------
    a, b : Value or array_like
        Base and exponent; their shapes must broadcast.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None,))
    >>> pf.compile(x**1.5).run({x: [4.0, 9.0]})
    array([ 8., 27.], dtype=float32)
    """

    op = "pow"

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        # da = dy b a^(b-1), db = dy y log a
        a, b = self.inputs
        dy = grads[0]
        by_a: Value = Mul(Mul(dy, b), Pow(a, Sub(b, 1.0)))
        if not (isinstance(b, Constant) and bool(np.all(b.array != 0))):
            by_a = Select(b, by_a)  # not 0 times infinity
        by_b = Select(Greater(a, 0.0), Mul(Mul(dy, self), Log(a)))
        return SumTo(by_a, a), SumTo(by_b, b)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        a, b = inputs
        with np.errstate(all="ignore"):
            return np.power(a, b)

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        """Return |y| (1 + |b log a|): rounding that product changes y by as much."""
        a, b = inputs
        with np.errstate(all="ignore"):
            y = np.abs(cls.reference(a, b))
            return 9, np.nan_to_num(y * (1 + np.abs(b * np.log(np.abs(a)))))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Return pairs of shapes that broadcast in every possible way."""
        return [
            Case(
                (
                    0.5 + np.arange(np.prod(a)).reshape(a) % 7 / 4,
                    np.arange(np.prod(b)).reshape(b) % 5 - 1.75,
                )
            )
            for a, b in PAIRS
        ]

    @classmethod
    def sample(cls, draw: Any) -> Case:
        a, b = super().sample(draw).inputs
        assert a is not None and b is not None
        return Case((draw.positive(a.shape), b))


# Exponents that take a few products or a root.
SHORT: dict[float, Callable[[Value], Value]] = {
    -2: lambda x: Div(1.0, Square(x)),
    -1: lambda x: Div(1.0, x),
    -0.5: lambda x: Div(1.0, Sqrt(x)),
    0.5: Sqrt,
    1: lambda x: x,
    2: Square,
    3: lambda x: Mul(x, Square(x)),
    4: lambda x: Square(Square(x)),
}


def power(base: Value, exponent: Value) -> Value:
    """Return base ** exponent, by products where that is short."""
    if isinstance(exponent, Constant) and exponent.array.ndim == 0:
        short = SHORT.get(float(exponent.array))
        if short is not None:
            return short(base)
    return Pow(base, exponent)


OPS: list[type[Op]] = [Pow]

OPERATORS.update(pow=power)
