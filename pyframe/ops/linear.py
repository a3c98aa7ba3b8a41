"""Matrix products: the linear layer and the batched product. Kernels: linear.c, gemm.c."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyframe.node import OPERATORS, Shape, Value
from pyframe.op import Case, Op, broadcast_shapes, known, same_extent, same_shape
from pyframe.ops.reductions import SumTo


def _rows(x: Any) -> Any:
    """Return an array as a matrix whose rows are its last axis."""
    return x.reshape(int(np.prod(x.shape[:-1])), x.shape[-1])


class Linear(Op):
    """y = x @ weight + bias, the affine map of a layer.

    Parameters
    ----------
    x : Value, shape (..., in)
        With a scalar weight: any shape.
    weight : Value, shape (in, out) or ()
        A scalar weight is the lesson's way to write ``k * x + b``.
    bias : Value, shape (out,), optional
        With a scalar weight: shape ().
    name : str, optional

    Returns
    -------
    Value, shape (..., out); with a scalar weight that of x

    Raises
    ------
    ShapeError
        If the extents do not fit, or x has no row axis to multiply.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None, 13))
    >>> pf.Linear(x, np.zeros((13, 2)), np.zeros(2)).shape
    (None, 2)
    """

    op = "linear"
    optional_inputs = (2,)
    exact_on_integers = True

    def __init__(self, x: Any, weight: Any, bias: Any = None, *, name: str | None = None) -> None:
        super().__init__(x, weight, bias, name=name)

    def infer_shape(self, *shapes: Any) -> Any:
        x, weight, bias = shapes
        if len(weight) == 0:
            if bias is not None and len(bias) != 0:
                self.bad_shapes("a scalar weight goes with a scalar bias, of shape ()")
            return x
        if len(weight) != 2:
            self.bad_shapes("the weight must be a matrix (in, out), or a number of shape ()")
        if len(x) < 2:
            self.bad_shapes(
                "x must be (..., in), with at least one axis of rows in front; "
                "reshape a single row of n numbers to (1, n), a single column to (n, 1)"
            )
        if not same_extent(x[-1], weight[0]):
            self.bad_shapes(f"the rows of x have {x[-1]} elements, the weight takes {weight[0]}")
        if bias is not None and (len(bias) != 1 or not same_extent(bias[0], weight[1])):
            self.bad_shapes("the bias must have one element for each column of the weight")
        out = weight[1] if bias is None else known(weight[1], bias[0])
        return (*x[:-1], out)

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        x, weight, bias = self.inputs
        dx, dweight, dbias = LinearGrad(grads[0], x, weight)
        return dx, dweight, None if bias is None else dbias

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        x, weight, bias = inputs
        y = weight * x if weight.ndim == 0 else np.matmul(x, weight)
        return y if bias is None else y + bias

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        terms = cls.reference(*(None if i is None else np.abs(i) for i in inputs))
        return 2 + (inputs[1].shape[0] if inputs[1].ndim else 1), terms

    @classmethod
    def sample(cls, draw: Any) -> Case:
        biased = draw.choice([True, True, False])
        if draw.choice([True, True, True, False]):
            x = draw.normal(draw.shape(min_ndim=2))
            weight = draw.normal((x.shape[-1], draw.size()))
            return Case((x, weight, draw.normal(weight.shape[1:]) if biased else None))
        bias = draw.normal(()) if biased else None
        return Case((draw.normal(draw.shape()), draw.normal(()), bias))

    @classmethod
    def cases(cls) -> Sequence[Case]:
        x = np.arange(12.0).reshape(4, 3) - 5
        return (
            Case((x, np.ones((3, 0)), np.ones(0))),
            Case((np.ones((4, 0)), np.ones((0, 2)), np.array([3.0, 4.0]))),
            Case((x, np.array([[1.0], [-2.0], [3.0]]), None)),
            Case((x, np.array(9.1), np.array(-34.7))),
        )


class LinearGrad(Op):
    """dx, dweight and dbias of `Linear`, from dy, x and weight.

    dx = dy @ weight.T, dweight = x.T @ dy, dbias = the sum of dy over its rows; for a scalar
    weight dx = weight * dy, dweight = sum(x * dy), dbias = sum(dy).
    """

    op = "linear_grad"
    output_count = 3
    differentiable = False
    exact_on_integers = True

    def infer_shape(self, *shapes: Any) -> Any:
        dy, x, weight = shapes
        if len(weight) not in (0, 2):
            self.bad_shapes("the weight must be a matrix (in, out), or a number of shape ()")
        if len(weight) == 2 and (len(x) < 2 or not same_extent(x[-1], weight[0])):
            self.bad_shapes("the rows of x must be as long as the weight is high")
        if not same_shape(dy, (*x[:-1], weight[1]) if weight else x):
            self.bad_shapes("dy must have the shape of x @ weight")
        return x, weight, weight[1:]

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, x, weight = inputs
        if weight.ndim == 0:
            return weight * dy, np.sum(x * dy), np.sum(dy)
        return np.matmul(dy, weight.T), _rows(x).T @ _rows(dy), _rows(dy).sum(axis=0)

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        terms = cls.reference(*(np.abs(i) for i in inputs))
        return 2 + max(inputs[0].size, 1), terms

    @classmethod
    def sample(cls, draw: Any) -> Case:
        x, weight, _ = Linear.sample(draw).inputs
        assert x is not None and weight is not None
        dy = draw.normal(x.shape if weight.ndim == 0 else (*x.shape[:-1], weight.shape[1]))
        return Case((dy, x, weight))


class MatMul(Op):
    """y = a @ b, matrix by matrix; the leading axes broadcast as in `numpy.matmul`.

    Parameters
    ----------
    a : Value, shape (..., m, k)
    b : Value, shape (..., k, n)
    transpose_a, transpose_b : bool, default False
        Take the operand's last two axes the other way round: a is then (..., k, m), b (..., n, k).
    name : str, optional

    Returns
    -------
    Value, shape (..., m, n)

    Raises
    ------
    ShapeError
        If an operand has fewer than two axes, or the extents do not fit.

    Examples
    --------
    >>> import pyframe as pf
    >>> q = pf.Placeholder("q", shape=(None, 8, 5, 16))
    >>> pf.MatMul(q, q, transpose_b=True).shape
    (None, 8, 5, 5)
    """

    op = "matmul"
    attributes = {"transpose_a": "i8", "transpose_b": "i8"}
    exact_on_integers = True

    def __init__(
        self,
        a: Any,
        b: Any,
        transpose_a: bool = False,
        transpose_b: bool = False,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(
            a, b, name=name, transpose_a=bool(transpose_a), transpose_b=bool(transpose_b)
        )

    def infer_shape(self, *shapes: Any) -> Shape:
        a, b = shapes
        for operand, name in ((a, "a"), (b, "b")):
            if len(operand) < 2:
                self.bad_shapes(
                    f"{name} must have at least two axes; reshape a vector of n numbers to "
                    "(1, n) or (n, 1)"
                )
        m, inner_a = (a[-1], a[-2]) if self.attrs["transpose_a"] else (a[-2], a[-1])
        inner_b, n = (b[-1], b[-2]) if self.attrs["transpose_b"] else (b[-2], b[-1])
        if not same_extent(inner_a, inner_b):
            self.bad_shapes(f"the inner extents {inner_a} and {inner_b} differ")
        batch = broadcast_shapes(a[:-2], b[:-2])
        if batch is None:
            self.bad_shapes("the leading axes do not broadcast")
        return (*batch, m, n)

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        a, b = self.inputs
        dy, ta, tb = grads[0], self.attrs["transpose_a"], self.attrs["transpose_b"]
        # y = A B gives dA = dy B^T and dB = A^T dy; for a stored transpose both sides are turned.
        da = MatMul(b, dy, tb, True) if ta else MatMul(dy, b, False, not tb)
        db = MatMul(dy, a, True, ta) if tb else MatMul(a, dy, not ta, False)
        return SumTo(da, a), SumTo(db, b)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        a, b = inputs
        a = np.swapaxes(a, -1, -2) if attributes.get("transpose_a") else a
        b = np.swapaxes(b, -1, -2) if attributes.get("transpose_b") else b
        return np.matmul(a, b)

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        a, b = inputs
        k = a.shape[-2] if attributes.get("transpose_a") else a.shape[-1]
        return 1 + k, cls.reference(np.abs(a), np.abs(b), **attributes)

    @classmethod
    def sample(cls, draw: Any) -> Case:
        m, k = draw.shape(min_ndim=2, max_ndim=2)
        n = draw.size(0, 40)
        batch = [draw.choice([0, 1, 2, 3]) for _ in range(draw.choice([0, 0, 1, 2]))]
        part_a, part_b = ([draw.choice([1, extent, extent]) for extent in batch] for _ in "ab")
        part_b = part_b[draw.choice([0, len(part_b)]) :]  # leading axes may be left out
        ta, tb = draw.choice([False, True]), draw.choice([False, True])
        a = draw.normal((*part_a, *((k, m) if ta else (m, k))))
        b = draw.normal((*part_b, *((n, k) if tb else (k, n))))
        return Case((a, b), {"transpose_a": ta, "transpose_b": tb})

    @classmethod
    def cases(cls) -> Sequence[Case]:
        plain = {"transpose_a": False, "transpose_b": False}
        grid = np.arange(24.0)
        return (
            Case((grid.reshape(2, 1, 3, 4), grid.reshape(3, 4, 2)), plain),
            Case((np.ones((3, 0)), np.ones((0, 5))), plain),  # a product of nothing is zero
        )


OPERATORS["matmul"] = MatMul

OPS = (Linear, LinearGrad, MatMul)
