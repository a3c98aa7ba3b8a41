"""Layers made of other layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyframe.errors import ArgumentError, ShapeError
from pyframe.graph.node import Value
from pyframe.graph.spec import describe
from pyframe.layers.base import Layer, LayerLike, as_layer
from pyframe.layers.core import Dense


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
