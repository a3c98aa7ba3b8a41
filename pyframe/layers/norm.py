"""Normalizing layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyframe.errors import ShapeError, check_number
from pyframe.graph.node import Value
from pyframe.graph.spec import Spec, describe
from pyframe.layers.base import VALUE, Layer
from pyframe.ops.norm import BatchNorm as BatchNormOp
from pyframe.ops.norm import LayerNorm as LayerNormOp


def _channels(layer: Layer, spec: Spec) -> tuple[int]:
    """Return the last extent as a shape, or raise `ShapeError`."""
    if not spec.shape or spec.shape[-1] is None:
        raise ShapeError(
            f"layer {layer.path!r} ({type(layer).__name__}) needs an input whose last extent is "
            f"known, and got {describe(spec.shape)}"
        )
    return (spec.shape[-1],)


class BatchNorm(Layer):
    """y = scale (x - mean) / sqrt(variance + epsilon) + shift, over all axes but the last.

    While training, mean and variance are those of the batch, and running averages of them are
    kept as states; otherwise these averages are used.

    Parameters
    ----------
    momentum : float, in [0, 1], default 0.9
        Weight of the old average: average = momentum average + (1 - momentum) batch.
    epsilon : float, default 1e-5
    name : str, optional

    Notes
    -----
    Input (n, ..., c). Parameters: scale (c,), shift (c,); states: mean (c,), variance (c,).
    ``trainable = False`` freezes scale and shift only: in training the statistics are still those
    of the batch, and the running averages are still updated.

    Examples
    --------
    >>> import pyframe as pf
    >>> layer = pf.layers.BatchNorm()
    >>> layer(pf.Placeholder("x", shape=(None, 3))).shape
    (None, 3)
    >>> [s.name for s in layer.states]
    ['batch_norm/mean', 'batch_norm/variance']

    References
    ----------
    Ioffe, Szegedy, "Batch normalization", ICML 2015, algorithm 1.
    """

    _attributes = dict.fromkeys(["scale", "shift", "mean", "variance"], VALUE)

    def __init__(
        self, momentum: float = 0.9, epsilon: float = 1e-5, *, name: str | None = None
    ) -> None:
        super().__init__(name=name)
        self.momentum = check_number("BatchNorm: momentum", momentum, at_least=0, at_most=1)
        self.epsilon = check_number("BatchNorm: epsilon", epsilon, above=0)

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return (((4, 3), {"momentum": 0.7}), ((3, 4, 4, 2), {}))

    def build(self, *specs: Spec) -> None:
        (spec,) = specs
        shape = _channels(self, spec)
        self.scale = self.add_parameter("scale", shape, 1.0, dtype=spec.dtype)
        self.shift = self.add_parameter("shift", shape, 0.0, dtype=spec.dtype)
        self.mean = self.add_state("mean", shape, 0.0, dtype=spec.dtype)
        self.variance = self.add_state("variance", shape, 1.0, dtype=spec.dtype)

    def call(self, *inputs: Value) -> Value:
        (x,) = inputs
        return BatchNormOp(
            x,
            self.scale,
            self.shift,
            self.mean,
            self.variance,
            momentum=self.momentum,
            epsilon=self.epsilon,
        )


class LayerNorm(Layer):
    """y = scale (x - mean) / sqrt(variance + epsilon) + shift, over the last axis of each row.

    Parameters
    ----------
    epsilon : float, default 1e-5
    name : str, optional

    Notes
    -----
    Input (..., c). Parameters: scale (c,), shift (c,).

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.layers.LayerNorm()(pf.Placeholder("x", shape=(None, 3))).shape
    (None, 3)

    References
    ----------
    Ba, Kiros, Hinton, "Layer normalization", arXiv:1607.06450, equation 4.
    """

    _attributes = dict.fromkeys(["scale", "shift"], VALUE)

    def __init__(self, epsilon: float = 1e-5, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.epsilon = check_number("LayerNorm: epsilon", epsilon, above=0)

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return (((4, 3), {"epsilon": 1e-3}), ((3, 4, 4, 2), {}))

    def build(self, *specs: Spec) -> None:
        (spec,) = specs
        shape = _channels(self, spec)
        self.scale = self.add_parameter("scale", shape, 1.0, dtype=spec.dtype)
        self.shift = self.add_parameter("shift", shape, 0.0, dtype=spec.dtype)

    def call(self, *inputs: Value) -> Value:
        (x,) = inputs
        return LayerNormOp(x, self.scale, self.shift, epsilon=self.epsilon)
