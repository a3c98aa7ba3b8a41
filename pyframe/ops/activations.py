"""Activations: element-wise, the output has the shape of the input. Kernels: activations.c."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyframe.node import Value
from pyframe.op import Case, Op


class ElementwiseOp(Op):
    """An op of one input whose output has the same shape."""

    @classmethod
    def sample(cls, draw: Any) -> Case:
        """Return one array of a random shape, away from zero, where derivatives may jump."""
        return Case((draw.away_from_zero(draw.shape()),))


class ElementwiseGrad(Op):
    """dx from dy and a saved array, all of one shape."""

    differentiable = False

    @classmethod
    def sample(cls, draw: Any) -> Case:
        """Return two arrays of one random shape."""
        shape = draw.shape()
        return Case((draw.normal(shape), draw.away_from_zero(shape)))


class Sigmoid(ElementwiseOp):
    """y = 1 / (1 + exp(-x)), the logistic function.

    Parameters
    ----------
    x : Value, of any shape
    """

    op = "sigmoid"

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (SigmoidGrad(grads[0], self),)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        (x,) = inputs
        e = np.exp(-np.abs(x))
        return np.where(x >= 0, 1.0, e) / (1 + e)


class SigmoidGrad(ElementwiseGrad):
    """dx = dy y (1 - y), with y = sigmoid(x)."""

    op = "sigmoid_grad"

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, y = inputs
        return dy * y * (1 - y)

    @classmethod
    def sample(cls, draw: Any) -> Case:
        shape = draw.shape()
        return Case((draw.normal(shape), draw.uniform(shape)))


class LeakyRelu(ElementwiseOp):
    """y = x for x > 0, else slope * x.

    Parameters
    ----------
    x : Value, of any shape
    slope : float, default 0.01

    References
    ----------
    Maas, Hannun, Ng, "Rectifier nonlinearities improve neural network acoustic models", 2013.
    """

    op = "leaky_relu"
    attributes = {"slope": "f8"}

    def __init__(self, x: Any, slope: float = 0.01, *, name: str | None = None) -> None:
        super().__init__(x, name=name, slope=float(slope))

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (LeakyReluGrad(grads[0], self.inputs[0], **self.attrs),)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        (x,) = inputs
        return np.where(x > 0, x, attributes["slope"] * x)

    @classmethod
    def sample(cls, draw: Any) -> Case:
        slope = draw.choice([0.0, 0.01, 0.25])
        return Case((draw.away_from_zero(draw.shape()),), {"slope": slope})


class LeakyReluGrad(ElementwiseGrad):
    """dx = dy for x > 0, else slope * dy."""

    op = "leaky_relu_grad"
    attributes = {"slope": "f8"}

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, x = inputs
        return np.where(x > 0, dy, attributes["slope"] * dy)

    @classmethod
    def sample(cls, draw: Any) -> Case:
        case = super().sample(draw)
        return Case(case.inputs, {"slope": draw.choice([0.0, 0.25])})


OPS = (Sigmoid, SigmoidGrad, LeakyRelu, LeakyReluGrad)
