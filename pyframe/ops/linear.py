"""Matrix products: the linear layer and the batched product. Kernels: linear.c, gemm*.c."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from pyframe.attributes import flag, number, one_of
from pyframe.graph.node import OPERATORS, Value
from pyframe.graph.op import (
    Case,
    Op,
    Rows,
    broadcast_shapes,
    known,
    merge_shapes,
    same_extent,
    same_shape,
)
from pyframe.graph.spec import Shape, Spec
from pyframe.native.threads import get_num_threads
from pyframe.ops.activations import LeakyReluGrad, ReluGrad, Sigmoid, SigmoidGrad, Tanh, TanhGrad
from pyframe.ops.arithmetic import Add
from pyframe.ops.epilogue import ACTIVATIONS, activate, activate_grad, as_activation
from pyframe.ops.reductions import SumTo


def _known_shape(spec: Spec | None) -> tuple[int, ...]:
    assert spec is not None and spec.shape is not None
    return tuple(n or 0 for n in spec.shape)


def _rows(x: Any) -> Any:
    """Return an array as a matrix whose rows are its last axis."""
    return x.reshape(int(np.prod(x.shape[:-1])), x.shape[-1])


def _scratch_bytes(dtype: np.dtype[Any], *products: tuple[int, int]) -> int:
    """Return the bytes in which large products keep rows of their left operands (m, k).

    That is a block of at most 256 rows and 512 terms, and padding between the rows; or, with AVX2,
    of 264 rows and 256 terms in tiles of 6, which in float64 have the room of 8; see gemm.c.
    """

    def row(k: int) -> int:
        return max(min(k, 512), min(k, 256) * 4 // 3) + 32

    return max(
        0 if m * k < 2**15 else (min(m, 264) + 8) * row(k) * dtype.itemsize for m, k in products
    )


class _Product(Op):
    """An op whose kernel multiplies matrices."""

    def scratch_pieces(self) -> int:
        """Return how many threads may copy rows of the left operand: all that may come, to 16."""
        return min(max(get_num_threads(), os.cpu_count() or 1), 16)


class _FusedOp(_Product):
    """An op whose kernel can apply an activation, or its derivative, to what it computes."""

    attributes = {"activation": "i8", "slope": "f8"}
    # With a negative slope the result alone does not show on which side of zero x was.
    rules = {"activation": one_of(ACTIVATIONS), "slope": number(at_least=0)}
    exact_on_integers = True

    def __init__(
        self, *inputs: Any, activation: str = "none", slope: float = 0.0, name: str | None
    ) -> None:
        super().__init__(*inputs, name=name, activation=activation, slope=slope)

    def lower_attributes(self, specs: Sequence[Spec | None]) -> dict[str, Any]:
        return {**self.attrs, "activation": ACTIVATIONS.index(self.attrs["activation"])}

    @staticmethod
    def _sample_attributes(draw: Any) -> dict[str, Any]:
        smooth = [] if draw.integers else ["sigmoid", "tanh"]
        kind = draw.choice(["none", "none", "relu", "leaky_relu", *smooth])
        return {"activation": kind, "slope": draw.choice([0.0, 0.25])}


class Linear(_FusedOp):
    """y = x @ weight + bias, the affine map of a layer.

    Parameters
    ----------
    x : Value, shape (..., in)
        Any shape, if the weight is a scalar.
    weight : Value, shape (in, out) or ()
        A scalar weight is the lesson's way to write ``k * x + b``.
    bias : Value, shape (out,), optional
        Shape (), if the weight is a scalar.
    residual : Value, shape (..., out), optional
        Added to the result, before the activation. Not with a scalar weight.
    activation : {"none", "relu", "sigmoid", "tanh", "leaky_relu"}, default "none"
        Applied last, while the result is in registers: y = f(x @ weight + bias + residual). A plan
        moves a neighbouring activation here by itself. Not with a scalar weight.
    slope : float >= 0, default 0.0
        The slope of the leaky relu.
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
    optional_inputs = (2, 3)

    def __init__(
        self,
        x: Any,
        weight: Any,
        bias: Any = None,
        residual: Any = None,
        *,
        activation: str = "none",
        slope: float = 0.0,
        name: str | None = None,
    ) -> None:
        extra = () if residual is None else (residual,)
        super().__init__(x, weight, bias, *extra, activation=activation, slope=slope, name=name)

    def infer_shape(self, *shapes: Any) -> Any:
        x, weight, bias, residual = shapes if len(shapes) == 4 else (*shapes, None)
        if len(weight) == 0:
            if bias is not None and len(bias) != 0:
                self.bad_shapes("a scalar weight goes with a scalar bias, of shape ()")
            if residual is not None or self.attrs["activation"] != "none":
                self.bad_shapes("a scalar weight goes with neither residual nor activation")
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
        y = (*x[:-1], weight[1] if bias is None else known(weight[1], bias[0]))
        if residual is None:
            return y
        if not same_shape(residual, y):
            self.bad_shapes("the residual must have the shape of x @ weight")
        return merge_shapes(y, residual)

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        x, weight, bias, residual = (*self.inputs, None)[:4]
        (dy,) = grads
        kind = self.attrs["activation"]
        if kind == "relu":
            dy = ReluGrad(dy, self)
        elif kind == "sigmoid":  # from the slope, which the result alone does not determine
            dy = SigmoidGrad(dy, Sigmoid(Linear(x, weight, bias, residual))[1])
        elif kind == "tanh":
            dy = TanhGrad(dy, Tanh(Linear(x, weight, bias, residual))[1])
        elif kind == "leaky_relu":  # from y instead of x: both are on the same side of zero
            dy = LeakyReluGrad(dy, self, slope=self.attrs["slope"])
        dx, dweight, dbias = LinearGrad(dy, x, weight)
        own = (dx, dweight, None if bias is None else dbias)
        return own if residual is None else (*own, dy)

    def flops(
        self, specs: Sequence[Spec | None], outputs: Sequence[Spec], wanted: Sequence[bool]
    ) -> int:
        y: int = math.prod(_known_shape(outputs[0]))
        terms: int = math.prod(_known_shape(specs[1])[:1])
        extra = sum(s is not None for s in specs[2:]) + (self.attrs["activation"] != "none")
        return int((2 * terms + extra) * y)

    def is_elementwise(self, specs: Sequence[Spec | None]) -> bool:
        return specs[1] is not None and specs[1].shape == ()

    def rows(self, specs: Sequence[Spec | None]) -> Rows | None:
        if specs[0] is None or not specs[0].shape:
            return None
        return Rows((True, False, False, True)[: len(specs)], (True,))

    def absorb(self, index: int, consumer: Op, specs: Sequence[Spec | None]) -> Op | None:
        x, weight, bias, residual = (*self.inputs, None)[:4]
        assert weight is not None
        if not weight.shape or self.attrs["activation"] != "none":
            return None
        name = f"{self.label()}+{consumer.label()}"
        activation = as_activation(consumer)
        if activation is not None and len(consumer.inputs) == 1:  # a gradient has two
            return Linear(x, weight, bias, residual, **activation, name=name)
        if isinstance(consumer, Add) and residual is None:
            first, second = consumer.inputs
            if specs[0] == specs[1]:
                other = second if first is not None and first.node is self else first
                return Linear(x, weight, bias, other, name=name)
        return None

    def scratch_bytes(self, specs: Sequence[Spec | None]) -> int:
        x, weight = (_known_shape(spec) for spec in specs[:2])
        if not weight:
            return 0
        return _scratch_bytes(self.specs[0].dtype, (math.prod(x[:-1]), weight[0]))

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        x, weight, bias, residual = (*inputs, None)[:4]
        y = weight * x if weight.ndim == 0 else np.matmul(x, weight)
        for term in (bias, residual):
            y = y if term is None else y + term
        return activate(attributes["activation"], y, attributes["slope"])

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        # The activations have slopes of at most 1, and errors of at most 4 units in the last place.
        sizes = (None if i is None else np.abs(i) for i in inputs)
        terms = cls.reference(*sizes, activation="none", slope=0.0)
        k = 3 + (inputs[1].shape[0] if inputs[1].ndim else 1)
        if attributes["activation"] in ("sigmoid", "tanh"):
            return 9 + k, terms + np.abs(cls.reference(*inputs, **attributes))
        return k, terms

    @classmethod
    def sample(cls, draw: Any) -> Case:
        biased = draw.choice([True, True, False])
        if draw.choice([True, True, True, False]):
            x = draw.normal(draw.shape(min_ndim=2))
            weight = draw.normal((x.shape[-1], draw.size()))
            bias = draw.normal(weight.shape[1:]) if biased else None
            attributes = cls._sample_attributes(draw)
            if draw.choice([True, False]):
                return Case((x, weight, bias))
            # The input of an activation stays away from its kink at zero.
            y = draw.away_from_zero((*x.shape[:-1], weight.shape[1]))
            residual = y - cls.reference(x, weight, bias, activation="none", slope=0.0)
            return Case((x, weight, bias, residual), attributes)
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
            Case((x.reshape(1, 12), np.arange(132.0).reshape(12, 11), np.arange(11.0))),  # one row
            Case((x, np.ones((3, 2)), None, x[:, 1:] * 7), {"activation": "relu"}),
        )


class LinearGrad(_FusedOp):
    """dx, dweight and dbias of `Linear`, from dy, x and weight.

    dx = dy @ weight.T, dweight = x.T @ dy, dbias = the sum of dy over its rows; for a scalar
    weight dx = weight * dy, dweight = sum(x * dy), dbias = sum(dy).

    `saved` (of the shape of x) is the result of the activation in front of the layer, or its slope
    if that is a sigmoid or tanh. With it, dx is the gradient of that activation's input: it is
    multiplied by the derivative.
    """

    op = "linear_grad"
    output_count = 3
    optional_inputs = (3,)
    differentiable = False

    def __init__(
        self,
        dy: Any,
        x: Any,
        weight: Any,
        saved: Any = None,
        *,
        activation: str = "none",
        slope: float = 0.0,
        name: str | None = None,
    ) -> None:
        extra = () if saved is None else (saved,)
        super().__init__(dy, x, weight, *extra, activation=activation, slope=slope, name=name)

    def infer_shape(self, *shapes: Any) -> Any:
        dy, x, weight, saved = shapes if len(shapes) == 4 else (*shapes, None)
        if len(weight) not in (0, 2):
            self.bad_shapes("the weight must be a matrix (in, out), or a number of shape ()")
        if len(weight) == 2 and (len(x) < 2 or not same_extent(x[-1], weight[0])):
            self.bad_shapes("the rows of x must be as long as the weight is high")
        if not same_shape(dy, (*x[:-1], weight[1]) if weight else x):
            self.bad_shapes("dy must have the shape of x @ weight")
        if saved is not None and not same_shape(saved, x):
            self.bad_shapes("saved must have the shape of x")
        return x, weight, weight[1:]

    def flops(
        self, specs: Sequence[Spec | None], outputs: Sequence[Spec], wanted: Sequence[bool]
    ) -> int:
        dy: int = math.prod(_known_shape(specs[0]))
        dx: int = math.prod(_known_shape(outputs[0]))
        product = 2 * dy * (_known_shape(outputs[1])[0] if _known_shape(outputs[1]) else 1)
        derivative = dx if len(specs) > 3 else 0
        return wanted[0] * (product + derivative) + wanted[1] * product + wanted[2] * dy

    def rows(self, specs: Sequence[Spec | None]) -> Rows | None:
        if specs[0] is None or not specs[0].shape:
            return None
        return Rows((True, True, False, True)[: len(specs)], (True, False, False))

    def absorb(self, index: int, consumer: Op, specs: Sequence[Spec | None]) -> Op | None:
        dy, x, weight, saved = (*self.inputs, None)[:4]
        activation = as_activation(consumer)
        if index != 0 or saved is not None or activation is None:
            return None
        if len(consumer.inputs) != 2:  # an activation of dx, no gradient
            return None
        flowing, result = consumer.inputs
        if flowing is None or (flowing.node, flowing.index) != (self, index):
            return None
        name = f"{self.label()}*{consumer.label()}"
        return LinearGrad(dy, x, weight, result, **activation, name=name)

    def scratch_bytes(self, specs: Sequence[Spec | None]) -> int:
        x, weight = (_known_shape(spec) for spec in specs[1:3])
        if not weight:
            return 0
        rows, (inner, outer) = math.prod(x[:-1]), weight
        return _scratch_bytes(self.specs[0].dtype, (rows, outer), (inner, rows))

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, x, weight, saved = (*inputs, None)[:4]
        dx = weight * dy if weight.ndim == 0 else np.matmul(dy, weight.T)
        if saved is not None:
            dx = activate_grad(attributes["activation"], dx, saved, attributes["slope"])
        if weight.ndim == 0:
            return dx, np.sum(x * dy), np.sum(dy)
        return dx, _rows(x).T @ _rows(dy), _rows(dy).sum(axis=0)

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        # The terms of a derivative, 1 + |y|, instead of the derivative, in which they cancel.
        dx, dweight, dbias = cls.reference(*(np.abs(i) for i in inputs[:3]))
        if len(inputs) > 3 and attributes["activation"] != "none":
            dx = dx * (1 + np.abs(inputs[3])) ** 2
        return 6 + max(inputs[0].size, 1), (dx, dweight, dbias)

    @classmethod
    def sample(cls, draw: Any) -> Case:
        x, weight, *_ = Linear.sample(draw).inputs
        assert x is not None and weight is not None
        dy = draw.normal((*x.shape[:-1], weight.shape[1]) if weight.ndim else x.shape)
        if draw.choice([True, False]):
            return Case((dy, x, weight))
        return Case((dy, x, weight, draw.away_from_zero(x.shape)), cls._sample_attributes(draw))


class MatMul(_Product):
    """y = a @ b, matrix by matrix; the leading axes broadcast as in `numpy.matmul`.

    Parameters
    ----------
    a : Value, shape (..., m, k)
    b : Value, shape (..., k, n)
    transpose_a, transpose_b : bool, default False
        Whether to swap the operand's last two axes: a is then (..., k, m), b (..., n, k).
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
    rules = {"transpose_a": flag, "transpose_b": flag}
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
        super().__init__(a, b, name=name, transpose_a=transpose_a, transpose_b=transpose_b)

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

    def flops(
        self, specs: Sequence[Spec | None], outputs: Sequence[Spec], wanted: Sequence[bool]
    ) -> int:
        terms = _known_shape(specs[0])[-2 if self.attrs["transpose_a"] else -1]
        return 2 * terms * math.prod(_known_shape(outputs[0]))

    def rows(self, specs: Sequence[Spec | None]) -> Rows | None:
        a, b = (_known_shape(spec) for spec in specs)
        rank = max(len(a), len(b))
        if rank > 2:  # the rows of the result are matrices, or lists of them
            first = np.broadcast_shapes(a[:-2], b[:-2])[0]
            return Rows(tuple(len(s) == rank and s[0] == first for s in (a, b)), (True,))
        if self.attrs["transpose_a"]:  # the gradient of b: a and b go by rows, and are added up
            return None if self.attrs["transpose_b"] else Rows((True, True), (False,))
        return Rows((True, False), (True,))

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        a, b = self.inputs
        dy, ta, tb = grads[0], self.attrs["transpose_a"], self.attrs["transpose_b"]
        # y = A B gives dA = dy B^T and dB = A^T dy; if an operand is given transposed, both sides
        # are transposed.
        da = MatMul(b, dy, tb, True) if ta else MatMul(dy, b, False, not tb)
        db = MatMul(dy, a, True, ta) if tb else MatMul(a, dy, not ta, False)
        return SumTo(da, a), SumTo(db, b)

    def scratch_bytes(self, specs: Sequence[Spec | None]) -> int:
        a = _known_shape(specs[0])
        m, k = (a[-1], a[-2]) if self.attrs["transpose_a"] else (math.prod(a[:-1]), a[-1])
        return _scratch_bytes(self.specs[0].dtype, (m, k))

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
        part_b = part_b[draw.choice([0, len(part_b)]) :]  # leading axes may be missing
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
