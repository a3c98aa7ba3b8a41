"""Normalizing layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pyframe import constraints, regularizers
from pyframe.errors import ShapeError, check_integer, check_number
from pyframe.graph.node import Value
from pyframe.graph.spec import Spec, describe
from pyframe.layers.base import VALUE, Layer
from pyframe.ops.arithmetic import Sqrt, Square
from pyframe.ops.norm import BatchNorm as BatchNormOp
from pyframe.ops.norm import LayerNorm as LayerNormOp
from pyframe.ops.reductions import Mean
from pyframe.ops.shapes import Reshape


def _channels(layer: Layer, spec: Spec) -> tuple[int]:
    """Return the last extent as a shape, or raise `ShapeError`."""
    if not spec.shape or spec.shape[-1] is None:
        raise ShapeError(
            f"layer {layer.path!r} ({type(layer).__name__}) needs an input whose last extent is "
            f"known, and got {describe(spec.shape)}"
        )
    return (spec.shape[-1],)


class Scaled(Layer):
    """The base of layers that have a scale and a shift for each channel, or the scale alone."""

    def penalize(
        self,
        scale_regularizer: Any,
        shift_regularizer: Any,
        scale_constraint: Any,
        shift_constraint: Any,
    ) -> None:
        """Keep the regularizers and constraints, all found by their names."""
        self.scale_regularizer = regularizers.get(scale_regularizer)
        self.shift_regularizer = regularizers.get(shift_regularizer)
        self.scale_constraint = constraints.get(scale_constraint)
        self.shift_constraint = constraints.get(shift_constraint)

    def add_scale(self, spec: Spec) -> Any:
        """Return the scale (c,), which begins as 1."""
        return self.add_parameter(
            "scale",
            _channels(self, spec),
            1.0,
            dtype=spec.dtype,
            regularizer=self.scale_regularizer,
            constraint=self.scale_constraint,
        )

    def add_shift(self, spec: Spec) -> Any:
        """Return the shift (c,), which begins as 0."""
        return self.add_parameter(
            "shift",
            _channels(self, spec),
            0.0,
            dtype=spec.dtype,
            regularizer=self.shift_regularizer,
            constraint=self.shift_constraint,
        )


class BatchNorm(Scaled):
    """y = scale (x - mean) / sqrt(variance + epsilon) + shift, over all axes but the last.

    While training, mean and variance are those of the batch, and running averages of them are
    kept as states; otherwise these averages are used.

    Parameters
    ----------
    momentum : float, in [0, 1], default 0.9
        Weight of the old average: average = momentum average + (1 - momentum) batch.
    epsilon : float, default 1e-5
    scale_regularizer, shift_regularizer, scale_constraint, shift_constraint : str or callable, \
optional
        As those of the weight of a `Dense`.
    name : str, optional

    Notes
    -----
    Input (n, ..., c). Parameters: scale (c,), shift (c,); states: mean (c,), variance (c,).
    With ``trainable = False`` it stands still, as in Keras: scale and shift stay, and in training,
    too, the running averages are used, and not updated.

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
        self,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        *,
        scale_regularizer: Any = None,
        shift_regularizer: Any = None,
        scale_constraint: Any = None,
        shift_constraint: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.penalize(scale_regularizer, shift_regularizer, scale_constraint, shift_constraint)
        self.momentum = check_number("BatchNorm: momentum", momentum, at_least=0, at_most=1)
        self.epsilon = check_number("BatchNorm: epsilon", epsilon, above=0)

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return (((4, 3), {"momentum": 0.7}), ((3, 4, 4, 2), {}))

    def build(self, *specs: Spec) -> None:
        (spec,) = specs
        shape = _channels(self, spec)
        self.scale, self.shift = self.add_scale(spec), self.add_shift(spec)
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


class LayerNorm(Scaled):
    """y = scale (x - mean) / sqrt(variance + epsilon) + shift, over the last axis of each row.

    Parameters
    ----------
    epsilon : float, default 1e-5
    scale_regularizer, shift_regularizer, scale_constraint, shift_constraint : str or callable, \
optional
        As those of the weight of a `Dense`.
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

    def __init__(
        self,
        epsilon: float = 1e-5,
        *,
        scale_regularizer: Any = None,
        shift_regularizer: Any = None,
        scale_constraint: Any = None,
        shift_constraint: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.penalize(scale_regularizer, shift_regularizer, scale_constraint, shift_constraint)
        self.epsilon = check_number("LayerNorm: epsilon", epsilon, above=0)

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return (((4, 3), {"epsilon": 1e-3}), ((3, 4, 4, 2), {}))

    def build(self, *specs: Spec) -> None:
        (spec,) = specs
        self.scale, self.shift = self.add_scale(spec), self.add_shift(spec)

    def call(self, *inputs: Value) -> Value:
        (x,) = inputs
        return LayerNormOp(x, self.scale, self.shift, epsilon=self.epsilon)


class RMSNorm(Scaled):
    """y = scale x / sqrt(mean(x^2) + epsilon), over the last axis of each row.

    Parameters
    ----------
    epsilon : float, default 1e-6
    scale_regularizer, scale_constraint : str or callable, optional
        As those of the weight of a `Dense`.
    name : str, optional

    Notes
    -----
    Input (..., c). Parameter: scale (c,).

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.layers.RMSNorm()(pf.Placeholder("x", shape=(None, 3))).shape
    (None, 3)

    References
    ----------
    Zhang, Sennrich, "Root mean square layer normalization", NeurIPS 2019, equation 4.
    """

    _attributes = dict.fromkeys(["scale"], VALUE)

    def __init__(
        self,
        epsilon: float = 1e-6,
        *,
        scale_regularizer: Any = None,
        scale_constraint: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.scale_regularizer = regularizers.get(scale_regularizer)
        self.scale_constraint = constraints.get(scale_constraint)
        self.epsilon = check_number("RMSNorm: epsilon", epsilon, above=0, at_most=1)

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return (((4, 3), {"epsilon": 1e-3}), ((3, 4, 4, 2), {}))

    def build(self, *specs: Spec) -> None:
        (spec,) = specs
        self.scale = self.add_scale(spec)

    def call(self, *inputs: Value) -> Value:
        (x,) = inputs
        size = Sqrt(Mean(Square(x), axis=-1, keepdims=True) + self.epsilon)
        result: Value = x / size * self.scale
        return result


class Grouped(Scaled):
    """The base of the layers that normalize groups of channels of a sample."""

    _attributes = dict.fromkeys(["scale", "shift"], VALUE)
    affine: bool
    epsilon: float

    def group_count(self, channels: int) -> int:
        """Return how many groups there are."""
        raise NotImplementedError

    def build(self, *specs: Spec) -> None:
        (spec,) = specs
        shape = _channels(self, spec)
        groups = self.group_count(shape[0])
        if shape[0] % groups:
            raise ShapeError(
                f"layer {self.path!r} makes {groups} groups of {shape[0]} channels, which leaves "
                "some over; take a number that divides them"
            )
        self.scale = self.shift = None
        if self.affine:
            self.scale, self.shift = self.add_scale(spec), self.add_shift(spec)

    def call(self, *inputs: Value) -> Value:
        (x,) = inputs
        if not x.shape or len(x.shape) < 2 or None in x.shape[1:]:
            raise ShapeError(
                f"layer {self.path!r} needs an input of known extents but for the first, and got "
                f"{describe(x.shape)}"
            )
        channels = x.shape[-1] or 0
        groups = self.group_count(channels)
        positions = math.prod(n or 0 for n in x.shape[1:-1])
        parts = Reshape(x, (-1, positions, groups, channels // groups))
        centered = parts - Mean(parts, axis=(1, 3), keepdims=True)
        variance = Mean(Square(centered), axis=(1, 3), keepdims=True)
        shape = (-1, *(n or 0 for n in x.shape[1:]))
        y: Value = Reshape(centered / Sqrt(variance + self.epsilon), shape)
        return y if self.scale is None else y * self.scale + self.shift


class GroupNorm(Grouped):
    """y = scale (x - mean) / sqrt(variance + epsilon) + shift, over groups of channels of a sample.

    Parameters
    ----------
    groups : int
        It divides the number of channels: neighbours are normalized together, over all positions.
    epsilon : float, default 1e-5
    affine : bool, default True
        Whether there are a scale and a shift.
    scale_regularizer, shift_regularizer, scale_constraint, shift_constraint : str or callable, \
optional
        As those of the weight of a `Dense`.
    name : str, optional

    Notes
    -----
    Input (n, ..., c). Parameters: scale (c,), shift (c,).

    Raises
    ------
    ShapeError
        If the groups do not divide the channels.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.layers.GroupNorm(2)(pf.Placeholder("x", shape=(None, 5, 5, 6))).shape
    (None, 5, 5, 6)

    References
    ----------
    Wu, He, "Group normalization", ECCV 2018, equation 7.
    """

    _attributes = dict.fromkeys(["scale", "shift"], VALUE)

    def __init__(
        self,
        groups: int,
        epsilon: float = 1e-5,
        affine: bool = True,
        *,
        scale_regularizer: Any = None,
        shift_regularizer: Any = None,
        scale_constraint: Any = None,
        shift_constraint: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.penalize(scale_regularizer, shift_regularizer, scale_constraint, shift_constraint)
        self.groups = check_integer("GroupNorm: groups", groups, at_least=1)
        self.epsilon = check_number("GroupNorm: epsilon", epsilon, above=0, at_most=1)
        self.affine = bool(affine)

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return (((4, 6), {"groups": 2}), ((3, 4, 4, 6), {"groups": 3, "affine": False}))

    def group_count(self, channels: int) -> int:
        return self.groups


class InstanceNorm(Grouped):
    """y = (x - mean) / sqrt(variance + epsilon), over the positions of each channel of a sample.

    Parameters
    ----------
    epsilon : float, default 1e-5
    affine : bool, default False
        Whether there are a scale and a shift.
    scale_regularizer, shift_regularizer, scale_constraint, shift_constraint : str or callable, \
optional
        As those of the weight of a `Dense`.
    name : str, optional

    Notes
    -----
    Input (n, ..., c).

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.layers.InstanceNorm()(pf.Placeholder("x", shape=(None, 5, 5, 6))).shape
    (None, 5, 5, 6)

    References
    ----------
    Ulyanov, Vedaldi, Lempitsky, "Instance normalization", arXiv:1607.08022, 2016, equation 2.
    """

    _attributes = dict.fromkeys(["scale", "shift"], VALUE)

    def __init__(
        self,
        epsilon: float = 1e-5,
        affine: bool = False,
        *,
        scale_regularizer: Any = None,
        shift_regularizer: Any = None,
        scale_constraint: Any = None,
        shift_constraint: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.penalize(scale_regularizer, shift_regularizer, scale_constraint, shift_constraint)
        self.epsilon = check_number("InstanceNorm: epsilon", epsilon, above=0, at_most=1)
        self.affine = bool(affine)

    @classmethod
    def cases(cls) -> Sequence[Any]:
        return (((3, 4, 4, 2), {}), ((3, 5, 2), {"affine": True}))

    def group_count(self, channels: int) -> int:
        return max(channels, 1)
