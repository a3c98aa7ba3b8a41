"""The layers of convolutional networks. Images are channels-last."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import pyframe as pf
from pyframe.errors import ShapeError
from pyframe.layers import Layer, activation_function, default_weights
from pyframe_cnn.conv import Conv
from pyframe_cnn.conv_transpose import ConvTranspose
from pyframe_cnn.geometry import Extents, axes_of, expand, padding_of, whole
from pyframe_cnn.pool import AvgPool, MaxPool
from pyframe_cnn.resize import UpSample, ZeroPad

# What the arguments that have no default may be.
EXAMPLES = {"filters": 4, "kernel_size": 2, "output_size": 3, "padding": 1}
AXES = {1: "(n, length, channels)", 2: "(n, height, width, channels)"}
AXES[3] = "(n, depth, height, width, channels)"

# What is set by `build`, and what to do instead of setting it anew.
VALUE = "assign to its value, as in layer.weight.value = ..., or call model.set_weights"
WEIGHTS = dict.fromkeys(["weight", "offset"], VALUE)
INPUT = "it follows from the channels of the input"


class _ImageLayer(Layer):
    """A layer over images with `rank` spatial axes."""

    rank: ClassVar[int] = 2

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name=name)

    @classmethod
    def cases(cls) -> list[tuple[tuple[int, ...], dict[str, Any]]]:
        """Return the shape of an input and arguments, for the conformance kit."""
        needed = [n for n, p in inspect.signature(cls).parameters.items() if p.default is p.empty]
        return [((5, *(7, 8, 6)[: cls.rank], 3), {name: EXAMPLES[name] for name in needed})]

    def _what(self, argument: str) -> str:
        return f"{type(self).__name__}: {argument}"

    def _extents(self, value: Any, argument: str) -> Extents:
        """Return one whole number for each spatial axis."""
        expanded = expand(axes_of(value, self._what(argument)), self.rank)
        if expanded is None:
            raise pf.ArgumentError(
                f"{self._what(argument)} is {value!r}; give one number, or {self.rank}"
            )
        return expanded

    def _check_padding(self, value: Any) -> Any:
        padding = padding_of(value, self._what("padding"))
        if isinstance(padding, tuple) and len(padding) != self.rank:
            raise pf.ArgumentError(
                f"{self._what('padding')} is {value!r}; give a word, a number, or {self.rank} pairs"
            )
        if padding == "causal" and self.rank != 1:
            raise pf.ArgumentError(f'{self._what("padding")}: "causal" is for Conv1D')
        return padding

    def _check_input(self, spec: Any, channels: bool = False) -> None:
        shape = spec.shape
        if shape is None or len(shape) != self.rank + 2 or (channels and shape[-1] is None):
            extra = " whose channels are known" if channels else ""
            raise ShapeError(
                f"layer {self.path!r} ({type(self).__name__}) takes images "
                f"{AXES[self.rank]}{extra}, and got {shape}"
            )

    def build(self, *specs: Any) -> None:
        self._check_input(specs[0])


class _ConvLayer(_ImageLayer):
    """What the convolutional layers share: a weight, a bias, an activation."""

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = "valid",
        dilation: Any = 1,
        groups: int = 1,
        activation: Any = None,
        bias: bool = True,
        weight_initializer: Any = None,
        bias_initializer: Any = "zeros",
        *,
        weight_regularizer: Any = None,
        bias_regularizer: Any = None,
        weight_constraint: Any = None,
        bias_constraint: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.filters = whole(filters, self._what("filters"))
        self.kernel_size, self.stride = kernel_size, stride
        self.padding, self.dilation = padding, dilation
        self._kernel = self._extents(kernel_size, "kernel_size")
        self._geometry = {
            "stride": self._extents(stride, "stride"),
            "padding": self._check_padding(padding),
            "dilation": self._extents(dilation, "dilation"),
        }
        self.groups = whole(groups, self._what("groups"))
        if self.filters % self.groups:
            raise pf.ArgumentError(
                f"{self._what('groups')} = {groups} does not divide the {filters} filters"
            )
        self.activation, self.bias = activation, bool(bias)
        self.weight_initializer, self.bias_initializer = weight_initializer, bias_initializer
        self.weight_regularizer = pf.regularizers.get(weight_regularizer)
        self.bias_regularizer = pf.regularizers.get(bias_regularizer)
        self.weight_constraint = pf.constraints.get(weight_constraint)
        self.bias_constraint = pf.constraints.get(bias_constraint)
        self._function = activation_function(activation)

    def build(self, *specs: Any) -> None:
        (spec,) = specs
        self._check_input(spec, channels=True)
        if spec.shape[-1] % self.groups:
            raise ShapeError(
                f"layer {self.path!r} ({type(self).__name__}): groups = {self.groups} does not "
                f"divide the {spec.shape[-1]} channels of the input {spec.shape}"
            )
        weight = self.weight_initializer
        if weight is None:
            weight = default_weights(self._function)
        shape = self._weight_shape(spec.shape[-1])
        self.weight = self.add_parameter(
            "weight",
            shape,
            weight,
            dtype=spec.dtype,
            regularizer=self.weight_regularizer,
            constraint=self.weight_constraint,
        )
        self.offset = None
        if self.bias:
            self.offset = self.add_parameter(
                "bias",
                (self.filters,),
                self.bias_initializer,
                dtype=spec.dtype,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def _weight_shape(self, channels: int) -> tuple[int, ...]:
        return (*self._kernel, channels // self.groups, self.filters)

    def call(self, *inputs: Any) -> Any:
        (x,) = inputs
        y = Conv(x, self.weight, self.offset, **self._geometry, groups=self.groups)
        return y if self._function is None else self._function(y)


class Conv2D(_ConvLayer):
    """Convolution of images, with a bias and an activation.

    Parameters
    ----------
    filters : int
        The number of channels of the result.
    kernel_size : int or tuple of int
        One number for all spatial axes, or one for each.
    stride : int or tuple of int, default 1
        The distance of neighbouring outputs.
    padding : {"valid", "same"}, int or tuple of pairs, default "valid"
        Zeros around the image: none; as many as make ceil(extent / stride) outputs, as in Keras;
        or numbers, (front, behind) for each axis. Conv1D also knows "causal": in front only.
    dilation : int or tuple of int, default 1
        The distance of the kernel's taps.
    groups : int, default 1
        The filters of a group see the channels of that group only.
    activation : str or callable, optional
    bias : bool, default True
    weight_initializer : str, callable or array_like, optional
        Default: ``"he_uniform"`` before a rectifier, ``"xavier_uniform"`` otherwise.
    bias_initializer : str, callable or array_like, default "zeros"
    weight_regularizer, bias_regularizer, weight_constraint, bias_constraint : str or callable, \
optional
        As for `pyframe.layers.Dense`.
    name : str, optional

    Notes
    -----
    Input (n, height, width, channels) gives (n, ..., filters). Parameters: weight (kernel...,
    channels / groups, filters), bias (filters,).

    Raises
    ------
    ArgumentError
        If filters, kernel, stride, dilation or groups are 0, or groups do not divide the filters.
    ShapeError
        If the input is of another rank, groups do not divide its channels, or nothing is left of
        it.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_cnn import Conv2D
    >>> layer = Conv2D(6, 5, padding="same", activation="relu")
    >>> layer(pf.Placeholder("x", shape=(None, 28, 28, 1))).shape
    (None, 28, 28, 6)
    >>> layer.weight.shape
    (5, 5, 1, 6)
    """

    _attributes = WEIGHTS


class Conv1D(_ConvLayer):
    """Convolution of sequences (n, length, channels); see `Conv2D`.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_cnn import Conv1D
    >>> Conv1D(8, 3, padding="causal")(pf.Placeholder("x", shape=(None, 20, 4))).shape
    (None, 20, 8)
    """

    _attributes = WEIGHTS

    rank = 1


class Conv3D(_ConvLayer):
    """Convolution of volumes (n, depth, height, width, channels); see `Conv2D`.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_cnn import Conv3D
    >>> Conv3D(8, 3)(pf.Placeholder("x", shape=(None, 9, 9, 9, 1))).shape
    (None, 7, 7, 7, 8)
    """

    _attributes = WEIGHTS

    rank = 3


class DepthwiseConv2D(_ConvLayer):
    """Convolution of each channel by itself; see `Conv2D`.

    Parameters
    ----------
    kernel_size, stride, padding, dilation, activation, bias
    weight_initializer, bias_initializer
    weight_regularizer, bias_regularizer, weight_constraint, bias_constraint, name
        As for `Conv2D`.
    multiplier : int, default 1
        The number of filters of each channel: filter i belongs to channel i // multiplier.

    Notes
    -----
    Input (n, height, width, channels) gives (n, ..., channels multiplier). Parameters: weight
    (kernel..., 1, channels multiplier), bias (channels multiplier,).

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_cnn import DepthwiseConv2D
    >>> DepthwiseConv2D(3, padding="same")(pf.Placeholder("x", shape=(None, 8, 8, 16))).shape
    (None, 8, 8, 16)
    """

    _attributes = {**WEIGHTS, "filters": INPUT, "groups": INPUT}

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = "valid",
        dilation: Any = 1,
        multiplier: int = 1,
        activation: Any = None,
        bias: bool = True,
        weight_initializer: Any = None,
        bias_initializer: Any = "zeros",
        *,
        weight_regularizer: Any = None,
        bias_regularizer: Any = None,
        weight_constraint: Any = None,
        bias_constraint: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            1,
            kernel_size,
            stride,
            padding,
            dilation,
            1,
            activation,
            bias,
            weight_initializer,
            bias_initializer,
            weight_regularizer=weight_regularizer,
            bias_regularizer=bias_regularizer,
            weight_constraint=weight_constraint,
            bias_constraint=bias_constraint,
            name=name,
        )
        self.multiplier = whole(multiplier, self._what("multiplier"))

    def build(self, *specs: Any) -> None:
        self._check_input(specs[0], channels=True)
        self.groups = specs[0].shape[-1]
        if self.groups < 1:
            raise ShapeError(f"layer {self.path!r} (DepthwiseConv2D): the input has no channels")
        self.filters = self.groups * self.multiplier
        super().build(*specs)


class _TransposeLayer(_ConvLayer):
    """What the transposed convolutions share."""

    def _weight_shape(self, channels: int) -> tuple[int, ...]:
        return (*self._kernel, self.filters // self.groups, channels)

    def call(self, *inputs: Any) -> Any:
        (x,) = inputs
        y = ConvTranspose(x, self.weight, self.offset, **self._geometry, groups=self.groups)
        return y if self._function is None else self._function(y)


class ConvTranspose2D(_TransposeLayer):
    """Transposed convolution, which enlarges images by its stride; parameters as for `Conv2D`.

    Notes
    -----
    Input (n, height, width, channels) gives (n, height', width', filters), with extents
    (n - 1) stride + (kernel - 1) dilation + 1 less the padding, or n stride with "same".
    Parameters: weight (kernel..., filters / groups, channels), bias (filters,).

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_cnn import ConvTranspose2D
    >>> x = pf.Placeholder("x", shape=(None, 7, 7, 16))
    >>> ConvTranspose2D(8, 3, stride=2, padding="same")(x).shape
    (None, 14, 14, 8)
    """

    _attributes = WEIGHTS


class ConvTranspose1D(_TransposeLayer):
    """Transposed convolution of sequences (n, length, channels); see `ConvTranspose2D`."""

    _attributes = WEIGHTS

    rank = 1


class ConvTranspose3D(_TransposeLayer):
    """Transposed convolution of volumes; see `ConvTranspose2D`."""

    _attributes = WEIGHTS

    rank = 3


class _PoolLayer(_ImageLayer):
    """What the pools share."""

    pool: ClassVar[Any] = MaxPool

    def __init__(
        self,
        pool_size: Any = 2,
        stride: Any = None,
        padding: Any = "valid",
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.pool_size, self.stride, self.padding = pool_size, stride, padding
        self._window = self._extents(pool_size, "pool_size")
        self._stride = None if stride is None else self._extents(stride, "stride")
        self._zeros = self._check_padding(padding)

    def call(self, *inputs: Any) -> Any:
        (x,) = inputs
        return self.pool(x, self._window, stride=self._stride, padding=self._zeros)


class MaxPool2D(_PoolLayer):
    """The largest number of each window, channel by channel.

    Parameters
    ----------
    pool_size : int or tuple of int, default 2
    stride : int or tuple of int, optional
        Default: the window, so that windows do not overlap.
    padding : {"valid", "same"}, int or tuple of pairs, default "valid"
    name : str, optional

    Raises
    ------
    ArgumentError
        If an extent or stride is 0.
    ShapeError
        If the window does not fit into the image.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_cnn import MaxPool2D
    >>> MaxPool2D(2)(pf.Placeholder("x", shape=(None, 28, 28, 6))).shape
    (None, 14, 14, 6)
    """

    _attributes = Layer._attributes


class MaxPool1D(_PoolLayer):
    """The largest number of each window of sequences (n, length, channels); see `MaxPool2D`."""

    _attributes = Layer._attributes

    rank = 1


class AvgPool2D(_PoolLayer):
    """The mean of each window, channel by channel; padding does not count. See `MaxPool2D`."""

    _attributes = Layer._attributes

    pool = AvgPool


class AvgPool1D(_PoolLayer):
    """The mean of each window of sequences (n, length, channels); see `MaxPool2D`."""

    _attributes = Layer._attributes

    rank, pool = 1, AvgPool


class _GlobalPoolLayer(_ImageLayer):
    """One number for each channel of an image."""

    pool: ClassVar[Any] = AvgPool

    def call(self, *inputs: Any) -> Any:
        return pf.Flatten(self.pool(*inputs))


class GlobalAvgPool2D(_GlobalPoolLayer):
    """The mean of each channel: (n, height, width, channels) becomes (n, channels).

    Parameters
    ----------
    name : str, optional

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_cnn import GlobalAvgPool2D
    >>> GlobalAvgPool2D()(pf.Placeholder("x", shape=(None, 8, 8, 128))).shape
    (None, 128)
    """

    _attributes = Layer._attributes


class GlobalAvgPool1D(_GlobalPoolLayer):
    """The mean of each channel: (n, length, channels) becomes (n, channels)."""

    _attributes = Layer._attributes

    rank = 1


class GlobalMaxPool2D(_GlobalPoolLayer):
    """The largest number of each channel: (n, height, width, channels) becomes (n, channels)."""

    _attributes = Layer._attributes

    pool = MaxPool


class GlobalMaxPool1D(_GlobalPoolLayer):
    """The largest number of each channel: (n, length, channels) becomes (n, channels)."""

    _attributes = Layer._attributes

    rank, pool = 1, MaxPool


class AdaptiveAvgPool2D(_ImageLayer):
    """The mean of windows that share the image evenly, as many as are asked for.

    Parameters
    ----------
    output_size : int or tuple of int
    name : str, optional

    Raises
    ------
    ShapeError
        If the image has fewer pixels than outputs.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_cnn import AdaptiveAvgPool2D
    >>> AdaptiveAvgPool2D(3)(pf.Placeholder("x", shape=(None, 8, 7, 5))).shape
    (None, 3, 3, 5)
    """

    _attributes = Layer._attributes

    def __init__(self, output_size: Any, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.output_size = output_size
        self._outputs = self._extents(output_size, "output_size")

    def call(self, *inputs: Any) -> Any:
        (x,) = inputs
        return AvgPool(x, self._outputs, adaptive=True)


class ZeroPad2D(_ImageLayer):
    """Images with zeros around them.

    Parameters
    ----------
    padding : int or tuple of pairs, default 1
        How many are in front of and behind each spatial axis.
    name : str, optional

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_cnn import ZeroPad2D
    >>> ZeroPad2D(2)(pf.Placeholder("x", shape=(None, 28, 28, 1))).shape
    (None, 32, 32, 1)
    """

    _attributes = Layer._attributes

    def __init__(self, padding: Any = 1, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.padding, self._zeros = padding, self._check_padding(padding)
        if isinstance(padding, str):
            raise pf.ArgumentError(f"{self._what('padding')} is {padding!r}; give numbers")

    def call(self, *inputs: Any) -> Any:
        (x,) = inputs
        return ZeroPad(x, self._zeros)


class ZeroPad1D(ZeroPad2D):
    """Sequences (n, length, channels) with zeros in front and behind; see `ZeroPad2D`."""

    _attributes = Layer._attributes

    rank = 1


class UpSample2D(_ImageLayer):
    """Images enlarged by whole factors: each pixel is repeated.

    Parameters
    ----------
    factor : int or tuple of int, default 2
    name : str, optional

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe_cnn import UpSample2D
    >>> UpSample2D(2)(pf.Placeholder("x", shape=(None, 7, 7, 16))).shape
    (None, 14, 14, 16)
    """

    _attributes = Layer._attributes

    def __init__(self, factor: Any = 2, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.factor, self._factors = factor, self._extents(factor, "factor")

    def call(self, *inputs: Any) -> Any:
        (x,) = inputs
        return UpSample(x, self._factors)


class UpSample1D(UpSample2D):
    """Sequences (n, length, channels) enlarged by a whole factor; see `UpSample2D`."""

    _attributes = Layer._attributes

    rank = 1


LAYERS: tuple[type[Layer], ...] = (
    Conv1D,
    Conv2D,
    Conv3D,
    DepthwiseConv2D,
    ConvTranspose1D,
    ConvTranspose2D,
    ConvTranspose3D,
    MaxPool1D,
    MaxPool2D,
    AvgPool1D,
    AvgPool2D,
    GlobalAvgPool1D,
    GlobalAvgPool2D,
    GlobalMaxPool1D,
    GlobalMaxPool2D,
    AdaptiveAvgPool2D,
    ZeroPad1D,
    ZeroPad2D,
    UpSample1D,
    UpSample2D,
)
