"""Layers made of other layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyframe.errors import ArgumentError, GraphError, ShapeError
from pyframe.graph.node import Value
from pyframe.graph.parameter import Parameter
from pyframe.graph.spec import Array, describe, known_shape
from pyframe.layers.base import Layer, LayerLike, as_layer
from pyframe.layers.core import Dense
from pyframe.ops.arithmetic import Remember, Sqrt, Square, StopGradient
from pyframe.ops.comparisons import Where
from pyframe.ops.linear import MatMul
from pyframe.ops.reductions import Sum
from pyframe.ops.shapes import Reshape


class Residual(Layer):
    """y = x + f(x), f being a layer, or several one after the other.

    Parameters
    ----------
    layers : Layer, Model or a list of them
    name : str, optional

    Raises
    ------
    ShapeError
        If f changes the shape; add a layer that brings it back, or a `Dense` to x by hand, as in
        ``x_small + f(x)``.
    ArgumentError
        If there is no layer, or something is none.

    Examples
    --------
    >>> import pyframe as pf
    >>> block = pf.layers.Residual([pf.layers.Dense(32, "relu"), pf.layers.Dense(8)])
    >>> block(pf.Placeholder("x", shape=(None, 8))).shape
    (None, 8)
    >>> len(block.parameters)
    4

    References
    ----------
    He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016, equation 1.
    """

    _attributes = Layer._attributes

    def __init__(self, layers: Any, *, name: str | None = None) -> None:
        super().__init__(name=name)
        given = layers if isinstance(layers, list | tuple) else [layers]
        wrong = [one for one in given if not isinstance(one, Layer | LayerLike)]
        if wrong or not given:
            what = f"{wrong[0]!r:.80} is none" if wrong else "there is none"
            raise ArgumentError(
                f"Residual takes layers, and {what}; a function goes into pyframe.layers.Lambda"
            )
        self.layers = list(map(as_layer, given))

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return (((4, 3), {"layers": [Dense(5, "tanh"), Dense(3)]}),)

    def call(self, *inputs: Value) -> Value:
        (x,) = inputs
        y = x
        for layer in self.layers:
            y = layer(y)
        if y.shape != x.shape:
            raise ShapeError(
                f"layer {self.path!r} (Residual) adds what its layers give, {describe(y.shape)}, "
                f"to what they get, {describe(x.shape)}; have the last one bring back its shape"
            )
        return x + y


class Reparametrized(Layer):
    """The base of layers that hold another one, which computes with a function of its weight."""

    _attributes = Layer._attributes

    def __init__(self, layer: Layer, *, name: str | None = None) -> None:
        super().__init__(name=name)
        if not isinstance(layer, Layer):
            raise ArgumentError(f"{type(self).__name__} takes a layer, and {layer!r:.80} is none")
        if layer.built:
            raise GraphError(
                f"{type(self).__name__} takes a layer that is not built yet, and {layer.path!r} "
                "computes with its weight as it is"
            )
        self.layer = layer

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return (((4, 3), {"layer": Dense(5, "tanh")}),)

    def weight_of(self, parameter: Parameter) -> Value:
        """Return the node that takes the place of the weight."""
        raise NotImplementedError

    def build(self, *specs: Any) -> None:
        self.layer.compute_parameter("weight", self.weight_of)

    def call(self, *inputs: Value) -> Value:
        y = self.layer(*inputs)
        if "weight" not in self.layer.own_parameters():
            there = ", ".join(self.layer.own_parameters()) or "none"
            raise ArgumentError(
                f"layer {self.path!r} ({type(self).__name__}) takes a layer with a weight of its "
                f"own, and the parameters of {type(self.layer).__name__} are: {there}"
            )
        return y


class WeightNorm(Reparametrized):
    """A layer whose weight is w = scale v / |v|, unit by unit: length and direction by themselves.

    v is the parameter "weight" of the layer, and begins as its weight would; the scale begins as
    |v|, so that at first the layer computes what it would without. Zeros have no direction: a unit
    all of whose weights are zeros (up to 1e-18) has w = scale v, with the gradients of that, and
    its scale begins as 1. So it learns, and the first update takes its |w| from 0 to 1; where w is
    to grow from 0, set the scale to 0 instead. PyTorch has NaN there.

    Parameters
    ----------
    layer : Layer
        One with a weight, not yet built, as `Dense` or a convolution.
    name : str, optional

    Notes
    -----
    Norms are over all axes but the last, as in `pyframe.constraints.MaxNorm`. Parameters: scale
    (units,) and those of the layer.

    Raises
    ------
    GraphError
        If the layer has been built.
    ArgumentError
        If it is none, or has no weight.

    Examples
    --------
    >>> import pyframe as pf
    >>> layer = pf.layers.WeightNorm(pf.layers.Dense(5))
    >>> layer(pf.Placeholder("x", shape=(None, 8))).shape
    (None, 5)
    >>> sorted(p.shape for p in layer.parameters)
    [(5,), (5,), (8, 5)]

    References
    ----------
    Salimans, Kingma, "Weight normalization: a simple reparameterization to accelerate training of
    deep neural networks", NeurIPS 2016, equation 2.
    """

    _attributes = Layer._attributes

    def weight_of(self, parameter: Parameter) -> Value:
        units = known_shape(parameter.spec)[-1:]
        scale = self.add_parameter("scale", units, _Norms(parameter), dtype=parameter.dtype)
        axes = tuple(range(len(known_shape(parameter.spec)) - 1))
        w: Value = parameter * (scale / _length(parameter, axes))
        return w


class SpectralNorm(Reparametrized):
    """A layer whose weight is w / sigma, sigma being the largest singular value of w.

    It is found by one step of power iteration in each training step, from where the last one
    ended: v = w u / |w u|, u = w^T v / |w^T v| and sigma = u^T w^T v, w being taken as a matrix of
    all but its last axis by the last. No gradient flows through u and v. Outside of training the
    same is computed, and u is kept.

    A weight of zeros has no singular vector: w is the weight itself then, with the gradient of
    that, and u is kept. PyTorch has NaN there.

    Parameters
    ----------
    layer : Layer
        One with a weight, not yet built, as `Dense` or a convolution.
    name : str, optional

    Notes
    -----
    Parameters: those of the layer; state: u (units, 1), which begins with normal numbers.

    Raises
    ------
    GraphError
        If the layer has been built.
    ArgumentError
        If it is none, or has no weight.

    Examples
    --------
    >>> import pyframe as pf
    >>> layer = pf.layers.SpectralNorm(pf.layers.Dense(5))
    >>> layer(pf.Placeholder("x", shape=(None, 8))).shape
    (None, 5)
    >>> [s.shape for s in layer.states]
    [(5, 1)]

    References
    ----------
    Miyato, Kataoka, Koyama, Yoshida, "Spectral normalization for generative adversarial networks",
    ICLR 2018, algorithm 1.
    """

    _attributes = Layer._attributes

    @classmethod
    def cases(cls) -> Sequence[Any]:
        # Of one column, or one row, power iteration finds the singular vectors at once; otherwise
        # its gradient, which takes them as constants, is not yet the derivative.
        return (((4, 3), {"layer": Dense(1, "tanh")}), ((4, 1), {"layer": Dense(5, "tanh")}))

    def weight_of(self, parameter: Parameter) -> Value:
        units = known_shape(parameter.spec)[-1]
        state = self.add_state("u", (units, 1), "normal", dtype=parameter.dtype)
        matrix = Reshape(parameter, (-1, units))
        fixed = StopGradient(matrix)
        before = StopGradient(state)
        along = MatMul(fixed, before)
        v = StopGradient(along / _length(along))
        back = MatMul(fixed, v, transpose_a=True)
        found = Where(Sum(Square(back)) > SMALLEST, back / _length(back), before)
        u = Remember(StopGradient(found), state)
        w: Value = parameter / _or_one(Sum(u * MatMul(matrix, v, transpose_a=True)), SMALLEST**0.5)
        return w


def _length(x: Value, axis: Any = None) -> Value:
    """Return the root of the sum of squares along some axes, and 1 where there are but zeros."""
    return Sqrt(_or_one(Sum(Square(x), axis=axis), SMALLEST))


def _or_one(x: Value, least: float) -> Value:
    """Return what is above a least number, and 1 in place of anything else, without a gradient."""
    return Where(x > least, x, 1.0)


SMALLEST = 1e-36  # that the square of a length is above: 0 is near in float32


class _Norms:
    """First values: the norms of a parameter's own, unit by unit; 1 for zeros."""

    def __init__(self, of: Parameter) -> None:
        self._of = of
        self.shape = known_shape(of.spec)[-1:]

    def materialize(self, name: str) -> Array:
        """Return the norms of the values that the parameter has now."""
        of = self._of
        values = of.value if of.is_placed else of.initial_array()
        squares = np.square(values).reshape(-1, *self.shape).sum(axis=0)
        norms: Array = np.sqrt(np.where(squares > SMALLEST, squares, 1))
        return norms
