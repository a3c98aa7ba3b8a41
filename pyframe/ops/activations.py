"""Activations: element-wise, the output has the shape of the input. Kernels: activations.c."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pyframe.attributes import number, one_of
from pyframe.graph.composite import Composite, composite
from pyframe.graph.node import Value
from pyframe.graph.op import Case, Op, merge_shapes, same_shape
from pyframe.graph.spec import Spec


class ElementwiseOp(Op):
    """An op of one input whose output has the same shape."""

    def infer_shape(self, *shapes: Any) -> Any:
        (x,) = shapes
        return x

    def is_elementwise(self, specs: Sequence[Spec | None]) -> bool:
        return True

    @classmethod
    def cases(cls) -> Sequence[Case]:
        """Return a scalar, empty arrays, and the highest rank."""
        shapes: list[tuple[int, ...]] = [(), (0,), (2, 0, 3), (1, 2, 1, 2, 1, 2, 1, 2)]
        return [Case((np.full(shape, 0.75),)) for shape in shapes]

    @classmethod
    def sample(cls, draw: Any) -> Case:
        """Return one array of a random shape, away from zero, where derivatives may jump."""
        return Case((draw.away_from_zero(draw.shape()),))


class ElementwiseGrad(Op):
    """dx from dy and a saved array, all of one shape."""

    differentiable = False

    def is_elementwise(self, specs: Sequence[Spec | None]) -> bool:
        return True

    def infer_shape(self, *shapes: Any) -> Any:
        dy, saved = shapes
        if not same_shape(dy, saved):
            self.bad_shapes("the gradient and the value it belongs to must have one shape")
        return merge_shapes(dy, saved)

    @classmethod
    def sample(cls, draw: Any) -> Case:
        """Return two arrays of one random shape."""
        shape = draw.shape()
        return Case((draw.normal(shape), draw.away_from_zero(shape)))


class Relu(ElementwiseOp):
    """y = max(x, 0); its derivative at 0 is taken as 0.

    Parameters
    ----------
    x : Value, of any shape

    References
    ----------
    Nair, Hinton, "Rectified linear units improve restricted Boltzmann machines", 2010.

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None,))
    >>> pf.compile(pf.Relu(x)).run({x: [-1.0, 2.0]})
    array([0., 2.], dtype=float32)
    """

    op = "relu"
    rectifies = True
    exact_on_integers = True

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (ReluGrad(grads[0], self),)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        (x,) = inputs
        return np.maximum(x, 0)


class ReluGrad(ElementwiseGrad):
    """dx = dy for y > 0, else 0, with y = relu(x)."""

    op = "relu_grad"
    exact_on_integers = True

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, y = inputs
        return np.where(y <= 0, 0.0, dy)


class LeakyRelu(ElementwiseOp):
    """y = x for x > 0, else slope * x.

    Parameters
    ----------
    x : Value, of any shape
    slope : float, default 0.01

    References
    ----------
    Maas, Hannun, Ng, "Rectifier nonlinearities improve neural network acoustic models", 2013.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.compile(pf.LeakyRelu(pf.Constant([-1.0, 2.0]))).run({})
    array([-0.01,  2.  ], dtype=float32)
    """

    op = "leaky_relu"
    rectifies = True
    attributes = {"slope": "f8"}
    rules = {"slope": number()}

    def __init__(self, x: Any, slope: float = 0.01, *, name: str | None = None) -> None:
        super().__init__(x, name=name, slope=slope)

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (LeakyReluGrad(grads[0], self.inputs[0], **self.attrs),)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        (x,) = inputs
        return np.where(x > 0, x, attributes.get("slope", 0.01) * x)

    @classmethod
    def sample(cls, draw: Any) -> Case:
        slope = draw.choice([0.0, 0.01, 0.25])
        return Case((draw.away_from_zero(draw.shape()),), {"slope": slope})


class LeakyReluGrad(ElementwiseGrad):
    """dx = dy for x > 0, else slope * dy."""

    op = "leaky_relu_grad"
    attributes = {"slope": "f8"}
    rules = {"slope": number()}

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, x = inputs
        return np.where(x > 0, dy, attributes["slope"] * dy)

    @classmethod
    def sample(cls, draw: Any) -> Case:
        case = super().sample(draw)
        return Case(case.inputs, {"slope": draw.choice([0.0, 0.25])})


class Elu(ElementwiseOp):
    """y = x for x > 0, else alpha * (exp(x) - 1).

    Parameters
    ----------
    x : Value, of any shape
    alpha : float, default 1.0
        Minus the value that y falls to for large negative x.

    References
    ----------
    Clevert, Unterthiner, Hochreiter, "Fast and accurate deep network learning by exponential
    linear units", 2016, equation 16.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.compile(pf.Elu(pf.Constant([-1.0, 2.0]))).run({})
    array([-0.63212055,  2.        ], dtype=float32)
    """

    op = "elu"
    rectifies = True
    attributes = {"alpha": "f8"}
    rules = {"alpha": number()}

    def __init__(self, x: Any, alpha: float = 1.0, *, name: str | None = None) -> None:
        super().__init__(x, name=name, alpha=alpha)

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (EluGrad(grads[0], self.inputs[0], **self.attrs),)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        (x,) = inputs
        left = np.where(x > 0, 0.0, x)  # a negative zero stays one
        return np.where(x > 0, x, attributes.get("alpha", 1.0) * np.expm1(left))

    @classmethod
    def sample(cls, draw: Any) -> Case:
        return Case(super().sample(draw).inputs, {"alpha": draw.choice([1.0, 0.3, 2.0])})


class EluGrad(ElementwiseGrad):
    """dx = dy for x > 0, else dy * alpha * exp(x)."""

    op = "elu_grad"
    attributes = {"alpha": "f8"}
    rules = {"alpha": number()}

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, x = inputs
        return np.where(x > 0, dy, dy * attributes["alpha"] * np.exp(np.minimum(x, 0)))

    @classmethod
    def sample(cls, draw: Any) -> Case:
        return Case(super().sample(draw).inputs, {"alpha": draw.choice([1.0, 0.3, 2.0])})


class SlopeOp(ElementwiseOp):
    """An activation that also gives its derivative, which y alone does not determine.

    Where y has rounded to 1, or -1, the derivative is small but still a normal number. The kernel
    computes it from the exponential that y needs anyway, and only if there is a gradient.
    """

    output_count = 2
    differentiable_outputs = (0,)

    def infer_shape(self, *shapes: Any) -> Any:
        (x,) = shapes
        return x, x


class SlopeGrad(ElementwiseGrad):
    """dx = dy slope, with the second output of a `SlopeOp`. A product can do it itself."""

    kernel = "sigmoid_grad"
    exact_on_integers = True

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, slope = inputs
        return dy * slope


class Sigmoid(SlopeOp):
    """y = 1 / (1 + exp(-x)), the logistic function.

    Parameters
    ----------
    x : Value, of any shape

    Returns
    -------
    Node with two outputs
        y and its derivative y (1 - y), both of the shape of x. The node itself stands for y; the
        derivative gets no gradient.

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None,))
    >>> pf.compile(pf.Sigmoid(x)).run({x: [0.0]})
    array([0.5], dtype=float32)
    """

    op = "sigmoid"

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (SigmoidGrad(grads[0], self[1]),)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        (x,) = inputs
        return logistic(x), logistic(x) * logistic(-x)


class SigmoidGrad(SlopeGrad):
    """dx = dy slope, with the slope of sigmoid(x), its second output."""

    op = "sigmoid_grad"


class Tanh(SlopeOp):
    """y = tanh(x).

    Parameters
    ----------
    x : Value, of any shape

    Returns
    -------
    Node with two outputs
        y and its derivative 1 - y^2, both of the shape of x. The node itself stands for y; the
        derivative gets no gradient.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.compile(pf.Tanh(pf.Constant([-1.0, 2.0]))).run({}).round(5)
    array([-0.76159,  0.96403], dtype=float32)
    """

    op = "tanh"

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (TanhGrad(grads[0], self[1]),)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        (x,) = inputs
        return np.tanh(x), 4 * logistic(2 * x) * logistic(-2 * x)


class TanhGrad(SlopeGrad):
    """dx = dy slope, with the slope of tanh(x), its second output."""

    op = "tanh_grad"
    kernel = SlopeGrad.kernel


class Softplus(ElementwiseOp):
    """y = log(1 + exp(x)), a smooth relu; large x does not overflow.

    Parameters
    ----------
    x : Value, of any shape

    References
    ----------
    Dugas et al., "Incorporating second-order functional knowledge for better option pricing", 2001.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.compile(pf.Softplus(pf.Constant([-1.0, 2.0]))).run({})
    array([0.3132617, 2.126928 ], dtype=float32)
    """

    op = "softplus"
    rectifies = True

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (SoftplusGrad(grads[0], self.inputs[0]),)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        (x,) = inputs
        return np.logaddexp(0, x)


class SoftplusGrad(ElementwiseGrad):
    """dx = dy / (1 + exp(-x))."""

    op = "softplus_grad"

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, x = inputs
        return dy * logistic(x)


class Silu(ElementwiseOp):
    """y = x / (1 + exp(-x)), also known as swish; at -infinity its limit, 0.

    Parameters
    ----------
    x : Value, of any shape

    References
    ----------
    Elfwing, Uchibe, Doya, "Sigmoid-weighted linear units for neural network function approximation
    in reinforcement learning", 2018.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.compile(pf.Silu(pf.Constant([-1.0, 2.0]))).run({})
    array([-0.26894143,  1.761594  ], dtype=float32)
    """

    op = "silu"
    rectifies = True

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (SiluGrad(grads[0], self.inputs[0]),)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        (x,) = inputs
        return np.maximum(x, -800) * logistic(x)


class SiluGrad(ElementwiseGrad):
    """dx = dy (s + x s (1 - s)), with s = 1 / (1 + exp(-x))."""

    op = "silu_grad"

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, x = inputs
        x = within(800, x)
        return dy * (logistic(x) + x * logistic(x) * logistic(-x))

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        """Return the size of the terms, not of their sum, which is zero at x = -1.278."""
        dy, x = inputs
        return 9, np.abs(dy) * (logistic(x) + np.abs(x) * logistic(x) * logistic(-x))


class Gelu(SlopeOp):
    """y = x P(Z < x), Z standard normal; at -infinity its limit, 0.

    Parameters
    ----------
    x : Value, of any shape
    approximate : {"none", "tanh"}, default "none"
        "none" is exact, y = x (1 + erf(x / sqrt(2))) / 2; "tanh" is
        y = x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2.

    Returns
    -------
    Node with two outputs
        y and its derivative, both of the shape of x. The node itself stands for y; the derivative
        gets no gradient.

    References
    ----------
    Hendrycks, Gimpel, "Gaussian error linear units (GELUs)", 2016, section 2.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.compile(pf.Gelu(pf.Constant([-1.0, 2.0]))).run({})
    array([-0.15865526,  1.9544997 ], dtype=float32)
    """

    op = "gelu"
    rectifies = True
    attributes = {"approximate": "i8"}
    rules = {"approximate": one_of(("none", "tanh"))}

    def __init__(self, x: Any, approximate: str = "none", *, name: str | None = None) -> None:
        super().__init__(x, name=name, approximate=approximate)

    def lower_attributes(self, specs: Sequence[Spec | None]) -> dict[str, Any]:
        return {"approximate": self.attrs["approximate"] == "tanh"}

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (GeluGrad(grads[0], self[1]),)

    @classmethod
    def _terms(cls, x: Any, approximate: str) -> tuple[Any, Any]:
        """Return s and x s', whose sum is the derivative of x s(x)."""
        x = within(40, x)
        if approximate == "none":
            return normal_cdf(x), x * np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
        v = tanh_argument(x)
        slope = 2 * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
        return logistic(v), x * logistic(v) * logistic(-v) * slope

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        (x,) = inputs
        share, rest = cls._terms(x, attributes.get("approximate", "none"))
        return np.maximum(x, -40) * share, share + rest

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        """Return the terms' sizes times 1 + x^2, as rounding the argument of an exponential counts.

        Those of the derivative, not their sum: it is 0 at x = -0.752. The kernel keeps all digits
        of the argument in float32, whose results show nothing of it.
        """
        (x,) = inputs
        y, _ = cls.reference(x, **attributes)
        terms = cls._terms(x, attributes.get("approximate", "none"))
        scale = 1 + within(40, x) ** 2
        return 9, (np.abs(y) * scale, sum(map(np.abs, terms)) * scale)

    @classmethod
    def sample(cls, draw: Any) -> Case:
        return Case(super().sample(draw).inputs, {"approximate": draw.choice(["none", "tanh"])})


class GeluGrad(SlopeGrad):
    """dx = dy slope, with the slope of gelu(x), its second output."""

    op = "gelu_grad"
    kernel = SlopeGrad.kernel


# ---- what the references share ----


@composite(
    "mish",
    reference=lambda x: x * np.tanh(np.logaddexp(0, x)),
    sample=lambda draw: Case((draw.away_from_zero(draw.shape()),)),
    cases=ElementwiseOp.cases(),
    rectifies=True,
)
def Mish(x: Value) -> Value:
    """y = x tanh(log(1 + exp(x))).

    Parameters
    ----------
    x : Value, of any shape

    References
    ----------
    Misra, "Mish: a self regularized non-monotonic activation function", BMVC 2020, equation 1.

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None,))
    >>> pf.compile(pf.Mish(x)).run({x: [0.0, 20.0]})
    array([ 0., 20.], dtype=float32)
    """
    return x * Tanh(Softplus(x))


def logistic(x: Any) -> Any:
    """Return 1 / (1 + exp(-x)) without overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1 + e)


def normal_cdf(x: Any) -> Any:
    """Return P(Z < x) for a standard normal Z."""
    return 0.5 * np.vectorize(math.erfc, otypes=[float])(np.multiply(x, -math.sqrt(0.5)))


def tanh_argument(x: Any) -> Any:
    """Return twice the argument of tanh in the approximation of gelu, clamped where tanh is 1."""
    x = within(40, x)
    return 2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)


def within(bound: float, x: Any) -> Any:
    """Return x clamped to [-bound, bound], beyond which a gate is fully closed or open."""
    return np.clip(x, -bound, bound)


OPS: list[type[Op] | Composite] = [
    Relu,
    ReluGrad,
    LeakyRelu,
    LeakyReluGrad,
    Elu,
    EluGrad,
    Sigmoid,
    SigmoidGrad,
    Tanh,
    TanhGrad,
    Softplus,
    SoftplusGrad,
    Silu,
    SiluGrad,
    Gelu,
    GeluGrad,
    Mish,
]
