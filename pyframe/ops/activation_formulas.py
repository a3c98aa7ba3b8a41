"""Activations composed of other ops: one pass over the elements, like those with a kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pyframe.attributes import number
from pyframe.errors import ShapeError
from pyframe.graph.composite import Composite, composite
from pyframe.graph.node import Value
from pyframe.graph.op import Case
from pyframe.graph.spec import describe
from pyframe.ops.activations import (
    ElementwiseOp,
    Elu,
    Gelu,
    Sigmoid,
    Silu,
    Softplus,
    logistic,
    normal_cdf,
)
from pyframe.ops.arithmetic import Abs
from pyframe.ops.comparisons import Clip
from pyframe.ops.shapes import Slice

SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def activation(
    op: str, reference: Callable[..., Any], kinks: Sequence[float] = (), **declared: Any
) -> Callable[[Callable[..., Value]], Composite]:
    """Make an element-wise activation of the function below, whose slope jumps at its kinks."""

    def sample(draw: Any) -> Case:
        x = 3 * draw.away_from_zero(draw.shape())
        for kink in kinks:
            x = np.where(np.abs(x - kink) < 0.01, kink + 0.05, x)
        return Case((x,))

    return composite(
        op,
        reference=reference,
        sample=sample,
        cases=ElementwiseOp.cases(),
        magnitude=lambda x, **options: (100, np.abs(reference(x, **options)) + np.abs(x) + 1),
        **declared,
    )


def _elu(x: Any, alpha: float) -> Any:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


@activation("selu", lambda x: SELU_SCALE * _elu(x, SELU_ALPHA), rectifies=True)
def Selu(x: Value) -> Value:
    """y = 1.0507 x for x > 0, else 1.0507 1.6733 (exp(x) - 1): keeps mean 0 and variance 1.

    Parameters
    ----------
    x : Value, of any shape

    References
    ----------
    Klambauer et al., "Self-normalizing neural networks", NIPS 2017, equation 2.
    """
    return SELU_SCALE * Elu(x, SELU_ALPHA)


@activation("celu", lambda x, alpha=1.0: alpha * _elu(x / alpha, 1.0), rectifies=True)
def Celu(x: Value, alpha: float = 1.0) -> Value:
    """y = x for x > 0, else alpha (exp(x / alpha) - 1); its slope is 1 at 0 for every alpha.

    Parameters
    ----------
    x : Value, of any shape
    alpha : float, default 1.0

    References
    ----------
    Barron, "Continuously differentiable exponential linear units", arXiv:1704.07483, 2017.
    """
    a = number(above=0)(alpha, "Celu: alpha")
    result: Value = a * Elu(x / a)
    return result


@activation("relu6", lambda x: np.clip(x, 0, 6), kinks=(6,), rectifies=True)
def Relu6(x: Value) -> Value:
    """y = min(max(x, 0), 6).

    Parameters
    ----------
    x : Value, of any shape
    """
    return Clip(x, 0.0, 6.0)


@activation("hard_tanh", lambda x: np.clip(x, -1, 1), kinks=(-1, 1))
def HardTanh(x: Value) -> Value:
    """y = min(max(x, -1), 1).

    Parameters
    ----------
    x : Value, of any shape
    """
    return Clip(x, -1.0, 1.0)


@activation("hard_sigmoid", lambda x: np.clip(x + 3, 0, 6) / 6, kinks=(-3, 3))
def HardSigmoid(x: Value) -> Value:
    """y = min(max(x + 3, 0), 6) / 6, as in PyTorch and Keras 3.

    Parameters
    ----------
    x : Value, of any shape
    """
    return Clip(x + 3.0, 0.0, 6.0) / 6.0


@activation("hard_swish", lambda x: x * np.clip(x + 3, 0, 6) / 6, kinks=(-3, 3), rectifies=True)
def HardSwish(x: Value) -> Value:
    """y = x min(max(x + 3, 0), 6) / 6.

    Parameters
    ----------
    x : Value, of any shape

    References
    ----------
    Howard et al., "Searching for MobileNetV3", ICCV 2019, section 5.2.
    """
    return x * Clip(x + 3.0, 0.0, 6.0) / 6.0


@activation("softsign", lambda x: x / (1 + np.abs(x)))
def Softsign(x: Value) -> Value:
    """y = x / (1 + |x|).

    Parameters
    ----------
    x : Value, of any shape
    """
    return x / (1.0 + Abs(x))


@activation("log_sigmoid", lambda x: -np.logaddexp(0, -x))
def LogSigmoid(x: Value) -> Value:
    """y = log(sigmoid(x)), without overflow.

    Parameters
    ----------
    x : Value, of any shape
    """
    return -1.0 * Softplus(-1.0 * x)


# ---- gates: the last axis is cut in two, and one half lets the other through ----


def halves(x: Value, what: str) -> tuple[Value, Value]:
    """Return the first and the second half along the last axis."""
    shape = x.shape
    if not shape or shape[-1] is None or shape[-1] % 2:
        raise ShapeError(
            f"{what} cuts the last axis in two, and it is odd or unknown: {describe(shape)}"
        )
    k, front = shape[-1] // 2, (slice(None),) * (len(shape) - 1)
    return Slice(x, (*front, slice(0, k))), Slice(x, (*front, slice(k, 2 * k)))


def gate(
    op: str, reference: Callable[[Any, Any], Any]
) -> Callable[[Callable[..., Value]], Composite]:
    """Make a gate of the function below."""

    def of_halves(x: Any) -> Any:
        return reference(*np.split(x, 2, axis=-1))

    def sample(draw: Any) -> Case:
        shape = (*draw.shape(max_ndim=2), 2 * draw.size(low=0, high=19))
        return Case((draw.away_from_zero(shape),))

    return composite(
        op,
        reference=of_halves,
        sample=sample,
        magnitude=lambda x: (100, np.multiply(*map(np.abs, np.split(x, 2, axis=-1))) + 1),
    )


@gate("glu", lambda a, b: a * logistic(b))
def Glu(x: Value) -> Value:
    """y = a sigmoid(b), for x = (a, b) along the last axis.

    Parameters
    ----------
    x : Value, shape (..., 2c)

    Returns
    -------
    Value, shape (..., c)

    References
    ----------
    Dauphin et al., "Language modeling with gated convolutional networks", ICML 2017, equation 1.
    """
    a, b = halves(x, "Glu")
    return a * Sigmoid(b)


@gate("swiglu", lambda a, b: a * logistic(a) * b)
def Swiglu(x: Value) -> Value:
    """y = silu(a) b, for x = (a, b) along the last axis.

    Parameters
    ----------
    x : Value, shape (..., 2c)

    Returns
    -------
    Value, shape (..., c)

    References
    ----------
    Shazeer, "GLU variants improve transformer", arXiv:2002.05202, 2020, equation 5.
    """
    a, b = halves(x, "Swiglu")
    return Silu(a) * b


@gate("geglu", lambda a, b: a * normal_cdf(a) * b)
def Geglu(x: Value) -> Value:
    """y = gelu(a) b, for x = (a, b) along the last axis.

    Parameters
    ----------
    x : Value, shape (..., 2c)

    Returns
    -------
    Value, shape (..., c)

    References
    ----------
    Shazeer, "GLU variants improve transformer", arXiv:2002.05202, 2020, equation 5.
    """
    a, b = halves(x, "Geglu")
    return Gelu(a) * b


OPS: Sequence[Composite] = (
    Selu,
    Celu,
    Relu6,
    HardTanh,
    HardSigmoid,
    HardSwish,
    Softsign,
    LogSigmoid,
    Glu,
    Swiglu,
    Geglu,
)
