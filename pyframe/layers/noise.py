"""Layers that disturb what goes through them in training, and leave it alone otherwise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pyframe.errors import ShapeError, check_number
from pyframe.graph.node import Value
from pyframe.graph.spec import describe
from pyframe.layers.base import Layer
from pyframe.layers.core import Dropout
from pyframe.ops.comparisons import Where
from pyframe.ops.random import Dropout as DropoutOp
from pyframe.ops.random import GaussianNoise as GaussianNoiseOp

# What SELU tends to for very negative numbers: -scale * alpha.
SELU_FLOOR = -1.7580993408473766


class GaussianNoise(Layer):
    """While training, y = x + std n, n normal with mean 0 and variance 1.

    Parameters
    ----------
    std : float, at least 0
    name : str, optional

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.layers.GaussianNoise(0.1)(pf.Placeholder("x", shape=(None, 3))).shape
    (None, 3)

    References
    ----------
    Bishop, "Training with noise is equivalent to Tikhonov regularization", Neural Computation 7,
    1995.
    """

    _attributes = Layer._attributes

    def __init__(self, std: float, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.std = check_number("GaussianNoise: std", std, at_least=0)

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return (((4, 3), {"std": 0.3}), ((3, 4, 4, 2), {"std": 0.0}))

    def call(self, *inputs: Value) -> Value:
        (x,) = inputs
        return GaussianNoiseOp(x, self.std)


class GaussianDropout(Dropout):
    """While training, y = x (1 + std n), n normal, with the variance that a dropout has.

    std = sqrt(rate / (1 - rate)), as in Keras.

    Parameters
    ----------
    rate : float, in [0, 1)
    name : str, optional

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.layers.GaussianDropout(0.5)(pf.Placeholder("x", shape=(None, 3))).shape
    (None, 3)

    References
    ----------
    Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR
    15, 2014, section 10.
    """

    _attributes = Layer._attributes

    def call(self, *inputs: Value) -> Value:
        (x,) = inputs
        return GaussianNoiseOp(x, math.sqrt(self.rate / (1 - self.rate)), scales=True)


class AlphaDropout(Dropout):
    """While training, each element becomes SELU's lowest value with probability `rate`.

    All are then scaled and shifted, so that numbers of mean 0 and variance 1 keep both: with m =
    -1.7581 and a = ((1 - rate) (1 + rate m^2))^(-1/2), y = a x - a rate m for those that are kept
    and y = a m - a rate m for the others. It goes with `Selu`.

    Parameters
    ----------
    rate : float, in [0, 1)
    name : str, optional

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.layers.AlphaDropout(0.1)(pf.Placeholder("x", shape=(None, 3))).shape
    (None, 3)

    References
    ----------
    Klambauer, Unterthiner, Mayr, Hochreiter, "Self-normalizing neural networks", NeurIPS 2017,
    section 2.
    """

    _attributes = Layer._attributes

    def call(self, *inputs: Value) -> Value:
        (x,) = inputs
        scale = ((1 - self.rate) * (1 + self.rate * SELU_FLOOR**2)) ** -0.5
        shift = -scale * self.rate * SELU_FLOOR
        # 1 / (1 - rate) where it keeps an element and 0 where not; outside of training 1.
        kept = DropoutOp(_ones_like(x), self.rate)
        result: Value = Where(
            kept > 1.0, x * scale + shift, Where(kept > 0.0, x, scale * SELU_FLOOR + shift)
        )
        return result


class SpatialDropout(Dropout):
    """While training, each channel of a sample becomes 0 as a whole with probability `rate`.

    The others are divided by 1 - rate. In images neighbours are alike, and a dropout of single
    elements takes little away. For sequences, images and volumes: (n, ..., c).

    Parameters
    ----------
    rate : float, in [0, 1)
    name : str, optional

    Raises
    ------
    ShapeError
        If the input has fewer than three axes.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.layers.SpatialDropout(0.2)(pf.Placeholder("x", shape=(None, 8, 8, 3))).shape
    (None, 8, 8, 3)

    References
    ----------
    Tompson, Goroshin, Jain, LeCun, Bregler, "Efficient object localization using convolutional
    networks", CVPR 2015, section 3.2.
    """

    _attributes = Layer._attributes

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return (((4, 5, 3), {"rate": 0.4}), ((3, 4, 4, 2), {"rate": 0.0}))

    def call(self, *inputs: Value) -> Value:
        (x,) = inputs
        if x.shape is None or len(x.shape) < 3:
            raise ShapeError(
                f"layer {self.path!r} takes (n, ..., c), one position at least between the samples "
                f"and the channels, and got {describe(x.shape)}; for rows there is Dropout"
            )
        first = x[(slice(None), *[slice(0, 1)] * (len(x.shape) - 2))]
        return x * DropoutOp(_ones_like(first), self.rate)


def _ones_like(x: Value) -> Value:
    """Return ones of a shape that a feed decides; no gradient flows through them."""
    return 1.0 - (x < x)
