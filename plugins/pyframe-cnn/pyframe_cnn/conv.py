"""Convolutions and their gradients. Kernels: conv.c, conv_weight.c, depthwise.c."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pyframe as pf
from pyframe import Case, Op

from pyframe_cnn.base import (
    ACTIVATIONS,
    Shape,
    WindowOp,
    as_activation,
    check_activation,
    checked,
    known,
    known_shape,
    lowered,
    pieces,
    same,
)
from pyframe_cnn.geometry import Window, whole

WIDEST = 32  # at least as many as elements of a vector: what packed weights are filled up to
FEW_CHANNELS = 16  # below this a convolution copies its images with zeros around them


class _Convolution(WindowOp):
    """What convolutions share: kernel (..., C / groups, F), stride, padding, dilation, groups."""

    attributes = {
        "stride": "3i8",
        "dilation": "3i8",
        "padding": "3i8",
        "groups": "i8",
        "activation": "i8",
        "slope": "f8",
    }
    exact_on_integers = True
    defaults = {
        "stride": 1,
        "dilation": 1,
        "padding": "valid",
        "groups": 1,
        "activation": "none",
        "slope": 0.0,
    }

    def __init__(
        self,
        *inputs: Any,
        stride: Any = 1,
        padding: Any = "valid",
        dilation: Any = 1,
        groups: int = 1,
        activation: str = "none",
        slope: float = 0.0,
        name: str | None = None,
    ) -> None:
        label = self._label(name)
        attributes = checked(label, stride=stride, padding=padding, dilation=dilation)
        attributes["groups"] = whole(groups, f"{label}: groups")
        attributes |= check_activation(label, activation, slope)
        super().__init__(*inputs, name=name, **attributes)

    def _check_weight(self, x: Shape, weight: Shape, bias: Shape | None, axis: int) -> Shape:
        """Check the weight for images x, and the bias, which has its axis -2 (C) or -1 (F)."""
        rank, groups = self._check_images(x), self.attrs["groups"]
        if len(weight) != rank + 2:
            self.bad_shapes(
                f"the weight must be (kernel, C / groups, F) with {rank} extents of the kernel"
            )
        for extent in weight[:-2]:
            if extent == 0:
                self.bad_shapes("no extent of the kernel may be 0")
        if weight[-1] is not None and weight[-1] % groups:
            self.bad_shapes(f"groups = {groups} does not divide the {weight[-1]} filters")
        if bias is not None:
            wanted = weight[-1]
            if axis == -2:
                wanted = None if weight[-2] is None else weight[-2] * groups
            if len(bias) != 1 or not same(bias[0], wanted):
                self.bad_shapes("the bias must have one element for each channel of the result")
        return weight[:-2]

    def _check_channels(self, channels: int | None, weight: Shape) -> None:
        groups = self.attrs["groups"]
        if channels is not None and channels % groups:
            self.bad_shapes(f"groups = {groups} does not divide the {channels} channels")
        if channels is not None and weight[-2] is not None and channels != weight[-2] * groups:
            self.bad_shapes(
                f"the images have {channels} channels; with groups = {groups} the weight takes "
                f"{weight[-2] * groups}"
            )

    def _windows_over(self, images: Shape, weight: Shape) -> list[Window]:
        kernel = weight[:-2]
        return self._windows(kernel, images[1:-1], self._expand("dilation", len(kernel)))

    def _lower(self, images: Any, weight: Any) -> dict[str, Any]:
        windows = self._windows_over(known_shape(images), known_shape(weight))
        block: dict[str, Any] = {**self.attrs, **lowered(windows)}
        del block["window"]
        return {**block, "activation": ACTIVATIONS.index(self.attrs["activation"])}

    def _geometry(self) -> dict[str, Any]:
        return {key: self.attrs[key] for key in ("stride", "padding", "dilation", "groups")}

    @staticmethod
    def _work(images: Any, weight: Any) -> int:
        """Return the operations of a convolution whose filtered images these are."""
        return 2 * math.prod(known_shape(images)) * math.prod(known_shape(weight)[:-1])

    def _copied(self, images: Any, windows: Sequence[Window], outputs: Sequence[int]) -> int:
        """Return the elements of the images with zeros around them."""
        shape = known_shape(images)
        extents = [
            max((n - 1) * w.stride + w.reach - (w.low or 0), extent) + (w.low or 0)
            for w, extent, n in zip(windows, shape[1:-1], outputs, strict=True)
        ]
        return shape[0] * math.prod(extents) * shape[-1]

    # ---- of the tests ----

    @classmethod
    def _layout(
        cls, images: Any, kernel: Sequence[int], attributes: dict[str, Any]
    ) -> tuple[list[Window], list[int]]:
        """Return the windows over images, and how many positions they have."""
        probe = cls._probe(attributes)
        windows = probe._windows_over(images.shape, (*kernel, 0, 0))
        counts = [w.outputs(n) for w, n in zip(windows, images.shape[1:-1], strict=True)]
        return windows, [n or 0 for n in counts]

    @staticmethod
    def _taps(windows: Sequence[Window], counts: Sequence[int]) -> Any:
        """Yield each tap of the kernel, and the pixels of the padded images that it sees."""
        for tap in product(*(range(w.size) for w in windows)):
            seen = []
            for t, w, n in zip(tap, windows, counts, strict=True):
                first = t * w.dilation
                seen.append(slice(first, first + (n - 1) * w.stride + 1, w.stride))
            yield tap, (slice(None), *seen)

    @staticmethod
    def _padded(images: Any, windows: Sequence[Window], counts: Sequence[int]) -> Any:
        """Return images with zeros around them: all that is seen, and what is there."""
        sides = [(0, 0)]
        for w, n, extent in zip(windows, counts, images.shape[1:-1], strict=True):
            seen = (n - 1) * w.stride + w.reach
            sides.append((w.low or 0, max(seen - (w.low or 0) - extent, 0)))
        return np.pad(images, [*sides, (0, 0)])

    @staticmethod
    def _sample_geometry(draw: Any) -> tuple[tuple[int, ...], dict[str, Any], tuple[int, ...]]:
        """Return the extents of the kernel, attributes, and extents of the images."""
        rank = draw.choice([1, 2, 2, 2, 3])
        kernel = tuple(draw.choice([1, 2, 3, 3, 5]) for _ in range(rank))
        dilation = tuple(draw.choice([1, 1, 2, 3]) for _ in range(rank))
        stride = tuple(draw.choice([1, 1, 2, 3]) for _ in range(rank))
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        kind = draw.choice(["valid", "same", "explicit", "causal" if rank == 1 else "same"])
        padding: Any = kind
        longest = {1: 40, 2: 10, 3: 4}[rank]
        if kind == "explicit":
            padding = tuple((draw.choice([0, 1, 2]), draw.choice([0, 1, 2])) for _ in range(rank))
        low = 1 if kind in ("same", "causal") else 0
        extents = tuple(low or max(r, 2) for r in reach)
        extents = tuple(n + draw.choice(range(longest)) for n in extents)
        attributes = {"stride": stride, "dilation": dilation, "padding": padding}
        return kernel, attributes, extents

    @classmethod
    def _sample(cls, draw: Any) -> tuple[Any, Any, dict[str, Any]]:
        """Return images, a weight for them, and attributes."""
        kernel, attributes, extents = cls._sample_geometry(draw)
        groups = draw.choice([1, 1, 1, 2, 3, 5])
        of_group = draw.choice([1, 1, 2, draw.size(0, 33)])
        filters = draw.choice([1, 2, draw.size(0, 40)])
        channels = of_group * groups if groups > 1 else draw.choice([1, 3, 6, draw.size(0, 40)])
        batch = draw.choice([0, 1, 2, 3, 5])
        images = draw.normal((batch, *extents, channels))
        weight = draw.normal((*kernel, channels // groups, filters * groups))
        return images, weight, {**attributes, "groups": groups}

    @staticmethod
    def _sample_activation(draw: Any) -> dict[str, Any]:
        smooth = [] if draw.integers else ["sigmoid", "tanh"]
        kind = draw.choice(["none", "none", "relu", "leaky_relu", *smooth])
        return {"activation": kind, "slope": draw.choice([0.0, 0.25])}


def _activate(x: Any, activation: str, slope: float) -> Any:
    if activation == "relu":
        return np.maximum(x, 0)
    if activation == "sigmoid":
        return 0.5 * (1 + np.tanh(0.5 * x))
    if activation == "tanh":
        return np.tanh(x)
    return np.where(x > 0, x, slope * x) if activation == "leaky_relu" else x


def _derivative(y: Any, activation: str, slope: float) -> Any:
    if activation == "relu":
        return np.where(y <= 0, 0.0, 1.0)
    if activation == "sigmoid":
        return y * (1 - y)
    if activation == "tanh":
        return (1 - y) * (1 + y)
    return np.where(y > 0, 1.0, slope) if activation == "leaky_relu" else np.ones_like(y)


def _activation_gradient(dy: Any, y: Any, attrs: dict[str, Any]) -> Any:
    """Return the node of the gradient in front of an activation, whose result is y."""
    kind = attrs["activation"]
    if kind == "none":
        return dy
    extra = {"slope": attrs["slope"]} if kind == "leaky_relu" else {}
    return getattr(pf, "".join(map(str.capitalize, kind.split("_"))) + "Grad")(dy, y, **extra)


def _skips_zeros(x: Sequence[int], weight: Sequence[int], attributes: dict[str, Any]) -> bool:
    """Return whether a transposed convolution leaves out the zeros around x.

    That matters if a weight is NaN. Depthwise kernels do, and those of small images to few
    channels.
    """
    if attributes["groups"] > 1:
        return weight[-2] == 1
    return weight[-2] <= 8 and math.prod(x[1:-1]) * math.prod(weight[:-1]) <= 2**17


def _inside(x: Any, sides: Sequence[tuple[int, int]]) -> Any:
    """Return where images with zeros around them are not zeros, (N, ..., 1, 1)."""
    return np.pad(np.ones(x.shape[:-1]), [(0, 0), *sides])[..., None, None] > 0


def _away_from_kinks(x: Any, weight: Any, bias: Any, attributes: dict[str, Any]) -> Case:
    """Return a case in which nothing that goes into a relu is near zero.

    With numbers from a grid the sum of products lies on a finer one, and the bias between its
    points.
    """
    if attributes["activation"] not in ("relu", "leaky_relu"):
        return Case((x, weight, bias), attributes)
    if bias is None:
        return Case((x, weight), {**attributes, "activation": "none"})
    x, weight, bias = (np.round(4 * x) / 4, np.round(4 * weight) / 4, np.round(bias) + 1 / 32)
    return Case((x, weight, bias), attributes)


def _grouped(x: Any, groups: int) -> Any:
    return x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)


class Conv(_Convolution):
    """Convolution of images, or cross-correlation as mathematics has it.

    y[n, o, f] = sum over taps t and channels c of x[n, o stride + t dilation - low, c]
    weight[t, c, f] + bias[f], where x is zero outside of the image.

    Parameters
    ----------
    x : Value, shape (N, L, C), (N, H, W, C) or (N, D, H, W, C)
    weight : Value, shape (kernel..., C / groups, F)
        One extent of the kernel for each spatial axis.
    bias : Value, shape (F,), optional
    stride, dilation : int or tuple of int, default 1
        The distance of neighbouring outputs, and of neighbouring taps, in pixels; one number for
        all spatial axes or one for each.
    padding : {"valid", "same", "causal"}, int or tuple of pairs, default "valid"
        Zeros around the image. "same": as many as make ceil(extent / stride) outputs, the larger
        half behind, as in Keras; "causal": in front only, so that no output sees what is behind
        it (one spatial axis); or numbers (front, behind) for each axis.
    groups : int, default 1
        Filters f of group g see only the channels of group g. As many groups as channels: a
        depthwise convolution.
    activation : {"none", "relu", "sigmoid", "tanh", "leaky_relu"}, default "none"
        Applied last, while the result is in registers. A plan puts a neighbouring activation here
        by itself.
    slope : float >= 0, default 0.0
        That of the leaky relu.
    name : str, optional

    Returns
    -------
    Value, shape (N, ..., F)

    Raises
    ------
    ShapeError
        If the extents do not fit, groups do not divide, or no output is left.
    ArgumentError
        If a stride, dilation or number of groups is 0.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> from pyframe_cnn import Conv
    >>> x = pf.Placeholder("x", shape=(None, 28, 28, 1))
    >>> Conv(x, np.zeros((5, 5, 1, 6)), np.zeros(6), padding="same").shape
    (None, 28, 28, 6)

    References
    ----------
    Dumoulin, Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285.
    """

    op = "conv"
    kernel = "pyframe_cnn:conv"
    optional_inputs = (2,)

    def __init__(self, x: Any, weight: Any, bias: Any = None, **attributes: Any) -> None:
        super().__init__(x, weight, *(() if bias is None else (bias,)), **attributes)

    def infer_shape(self, *shapes: Any) -> Shape:
        x, weight, bias = (*shapes, None)[:3]
        self._check_weight(x, weight, bias, -1)
        self._check_channels(x[-1], weight)
        outputs = self._outputs(self._windows_over(x, weight), x[1:-1])
        filters = weight[-1] if bias is None else known(weight[-1], bias[0])
        return (x[0], *outputs, filters)

    def lower_attributes(self, specs: Sequence[Any]) -> dict[str, Any]:
        return self._lower(specs[0], specs[1])

    def gradient(self, *grads: Any) -> Sequence[Any]:
        x, weight, bias = (*self.inputs, None)[:3]
        dy, geometry = _activation_gradient(grads[0], self, self.attrs), self._geometry()
        dx = ConvInputGrad(dy, weight, x, **geometry)
        dweight, dbias = ConvWeightGrad(dy, x, weight, **geometry)
        return (dx, dweight) if bias is None else (dx, dweight, dbias)

    def flops(self, specs: Sequence[Any], outputs: Sequence[Any], wanted: Sequence[bool]) -> int:
        extra = (len(specs) > 2) + (self.attrs["activation"] != "none")
        return self._work(outputs[0], specs[1]) + extra * math.prod(known_shape(outputs[0]))

    def absorb(self, index: int, consumer: Op, specs: Sequence[Any]) -> Op | None:
        activation = as_activation(consumer)
        if activation is None or self.attrs["activation"] != "none" or len(consumer.inputs) != 1:
            return None
        name = f"{self.label()}+{consumer.label()}"
        return Conv(*self.inputs, **self._geometry(), **activation, name=name)

    def scratch_bytes(self, specs: Sequence[Any]) -> int:
        x, weight, y = (known_shape(s) for s in (specs[0], specs[1], self._y(specs)))
        return _scratch(
            self.specs[0].dtype.itemsize,
            taps=math.prod(weight[:-2]),
            depth=weight[-2],
            columns=weight[-1] // self.attrs["groups"],
            groups=self.attrs["groups"],
            pixels=math.prod(y[1:-1]),
            copied=self._copied(specs[0], self._windows_over(x, weight), y[1:-1])
            if x[-1] < FEW_CHANNELS
            else 0,
        )

    def _y(self, specs: Sequence[Any]) -> Any:
        return type(specs[0])(self.infer_shape(*[s and s.shape for s in specs]), specs[0].dtype)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        x, weight, bias = (*inputs, None)[:3]
        groups = attributes["groups"]
        windows, counts = cls._layout(x, weight.shape[:-2], attributes)
        padded = _grouped(cls._padded(x, windows, counts), groups)
        y = np.zeros((len(x), *counts, groups, weight.shape[-1] // groups))
        # A depthwise kernel leaves out what it sees of the zeros: it matters if a weight is NaN.
        ones = cls._padded(np.ones_like(x), windows, counts)[..., :1, None] > 0
        inside = ones if weight.shape[-2] == 1 and groups > 1 else None
        for tap, seen in cls._taps(windows, counts):
            terms = np.einsum("...gc,cgf->...gf", padded[seen], _grouped(weight[tap], groups))
            y += terms if inside is None else np.where(inside[seen], terms, 0)
        y = y.reshape(*y.shape[:-2], weight.shape[-1])
        y = y if bias is None else y + bias
        return _activate(y, attributes["activation"], attributes["slope"])

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        plain = {**attributes, "activation": "none"}
        terms = cls.reference(*(None if i is None else np.abs(i) for i in inputs), **plain)
        k = 3 + math.prod(inputs[1].shape[:-1])
        if attributes["activation"] in ("sigmoid", "tanh"):
            return 9 + k, terms + np.abs(cls.reference(*inputs, **attributes))
        return k, terms

    @classmethod
    def sample(cls, draw: Any) -> Case:
        x, weight, attributes = cls._sample(draw)
        bias = draw.normal(weight.shape[-1:]) if draw.choice([True, False]) else None
        return _away_from_kinks(x, weight, bias, {**attributes, **cls._sample_activation(draw)})

    @classmethod
    def cases(cls) -> Sequence[Case]:
        rng = np.random.default_rng(0)
        return (
            Case(_numbers(rng, (2, 17, 18, 3), (5, 3, 3, 33), (33,)), {"padding": "same"}),
            Case(_numbers(rng, (2, 19, 19, 32), (3, 3, 32, 7)), {"padding": 1}),
            Case(_numbers(rng, (1, 9, 9, 40), (3, 3, 40, 65)), {"stride": 2, "padding": "same"}),
            Case(_numbers(rng, (3, 20, 5), (3, 5, 4), (4,)), {"padding": "causal", "dilation": 4}),
            Case(_numbers(rng, (2, 5, 5, 34), (3, 3, 1, 34)), {"groups": 34, "padding": "same"}),
            Case(_numbers(rng, (2, 5, 5, 5), (3, 3, 1, 10), (10,)), {"groups": 5, "stride": 2}),
            Case(_numbers(rng, (1, 3, 4, 5, 2), (2, 2, 3, 2, 4)), {"padding": "same"}),
        )


def _numbers(rng: np.random.Generator, *shapes: tuple[int, ...]) -> tuple[Any, ...]:
    return tuple(rng.standard_normal(shape) for shape in shapes)


def _scratch(
    itemsize: int,
    *,
    taps: int,
    depth: int,
    columns: int,
    groups: int,
    pixels: int,
    copied: int,
    turned: int = 0,
) -> int:
    """Return what the product of a convolution needs; see conv.c."""
    packed = groups * taps * depth * -(-columns // WIDEST) * WIDEST
    return pieces(itemsize, packed, copied, turned, taps * depth) + pieces(8, taps * pixels)


class _Transposed(_Convolution):
    """What the transposed convolution and the gradient of an input share: F to C channels."""

    def _transposed_scratch(self, specs: Sequence[Any], y: Sequence[int]) -> int:
        x, weight = known_shape(specs[0]), known_shape(specs[1])
        groups = self.attrs["groups"]
        if groups == 1 and _skips_zeros(x, weight, self.attrs):  # scatter.c
            columns, itemsize = math.prod(weight[:-1]), self.specs[0].dtype.itemsize
            terms = min(x[0], 8) * math.prod(x[1:-1]) * columns
            packed = weight[-1] * -(-columns // WIDEST) * WIDEST
            return pieces(itemsize, packed, terms) + pieces(24, *fill_ones(y[1:-1]))
        windows = self._windows_over((x[0], *y[1:-1], x[-1]), weight)
        # Of the copy of x, with as many zeros as the outermost taps read.
        sides = [
            n + 2 * w.reach + -(-m // w.stride)
            for n, m, w in zip(x[1:-1], y[1:-1], windows, strict=True)
        ]
        few = x[-1] < FEW_CHANNELS
        return _scratch(
            self.specs[0].dtype.itemsize,
            taps=math.prod(weight[:-2]),
            depth=weight[-1] // groups,
            columns=weight[-2],
            groups=groups,
            pixels=math.prod(-(-m // w.stride) for m, w in zip(y[1:-1], windows, strict=True)),
            copied=x[0] * math.prod(sides) * x[-1] if few else 0,
            turned=math.prod(weight),
        )

    @classmethod
    def _spread(cls, x: Any, weight: Any, shape: tuple[int, ...], attributes: Any) -> Any:
        """Return the transposed convolution, of a given shape."""
        groups = attributes["groups"]
        windows = cls._probe(attributes)._windows_over(shape, weight.shape)
        y = _grouped(np.zeros(shape), groups)
        # Of the filtered images, with zeros around them, each tap is added to every stride-th pixel.
        sides = [
            (w.reach + (w.low or 0), n + (w.low or 0))
            for w, n in zip(windows, shape[1:-1], strict=True)
        ]
        padded = _grouped(np.pad(x, [(0, 0), *sides, (0, 0)]), groups)
        skips = _skips_zeros(x.shape, weight.shape, attributes)
        inside = _inside(x, sides) if skips else None
        for tap in product(*(range(w.size) for w in windows)):
            to, seen = [], []
            for t, w, n, side in zip(tap, windows, shape[1:-1], sides, strict=True):
                first = (t * w.dilation - (w.low or 0)) % w.stride
                start = (first + (w.low or 0) - t * w.dilation) // w.stride + side[0]
                to.append(slice(first, n, w.stride))
                seen.append(slice(start, start + len(range(first, n, w.stride))))
            pixels = (slice(None), *seen)
            terms = np.einsum("...gf,cgf->...gc", padded[pixels], _grouped(weight[tap], groups))
            y[(slice(None), *to)] += terms if inside is None else np.where(inside[pixels], terms, 0)
        return y.reshape(shape)


class ConvTranspose(_Transposed):
    """Transposed convolution: what `Conv` does to gradients, as a layer that enlarges images.

    y[n, i, c] = bias[c] + the sum over outputs o and taps t with o stride + t dilation - low = i,
    and filters f, of x[n, o, f] weight[t, c, f].

    Parameters
    ----------
    x : Value, shape (N, L, F), (N, H, W, F) or (N, D, H, W, F)
    weight : Value, shape (kernel..., C / groups, F)
        As that of the `Conv` from C to F channels whose transpose this is.
    bias : Value, shape (C,), optional
    stride, padding, dilation, groups
        Of that `Conv`. The result has the extents (n - 1) stride + (kernel - 1) dilation + 1 less
        the padding; n stride with "same" and "causal".
    activation, slope, name
        As for `Conv`.

    Returns
    -------
    Value, shape (N, ..., C)

    Raises
    ------
    ShapeError
        If the extents do not fit, groups do not divide, or nothing is left.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> from pyframe_cnn import ConvTranspose
    >>> x = pf.Placeholder("x", shape=(None, 7, 7, 16))
    >>> ConvTranspose(x, np.zeros((3, 3, 8, 16)), stride=2, padding="same").shape
    (None, 14, 14, 8)
    """

    op = "conv_transpose"
    kernel = "pyframe_cnn:conv_transpose"
    optional_inputs = (2,)

    def __init__(self, x: Any, weight: Any, bias: Any = None, **attributes: Any) -> None:
        super().__init__(x, weight, *(() if bias is None else (bias,)), **attributes)

    def infer_shape(self, *shapes: Any) -> Shape:
        x, weight, bias = (*shapes, None)[:3]
        kernel = self._check_weight(x, weight, bias, -2)
        if not same(x[-1], weight[-1]):
            self.bad_shapes(f"x has {x[-1]} channels, the weight takes {weight[-1]}")
        if x[-1] is not None and x[-1] % self.attrs["groups"]:
            self.bad_shapes(f"groups = {self.attrs['groups']} does not divide the {x[-1]} channels")
        channels = None if weight[-2] is None else weight[-2] * self.attrs["groups"]
        return (
            x[0],
            *self._extents(x, kernel),
            channels if bias is None else known(channels, bias[0]),
        )

    def _extents(self, x: Shape, kernel: Sequence[int | None]) -> Shape:
        stride = self._expand("stride", len(kernel))
        grown = [None if n is None else n * s for n, s in zip(x[1:-1], stride, strict=True)]
        if self.attrs["padding"] in ("same", "causal"):
            self._windows_over((0, *grown, 0), (*kernel, 0, 0))
            extents: list[int | None] = grown
        else:
            windows = self._windows_over((0, *[None] * len(kernel), 0), (*kernel, 0, 0))
            extents = [w.inputs(n) for w, n in zip(windows, x[1:-1], strict=True)]
        for axis, (n, given) in enumerate(zip(extents, x[1:-1], strict=True)):
            if given == 0 or (n is not None and n < 1):
                self.bad_shapes(f"spatial axis {axis} of the result would have {n} pixels")
        return tuple(extents)

    def lower_attributes(self, specs: Sequence[Any]) -> dict[str, Any]:
        y = type(specs[0])(self.infer_shape(*[s and s.shape for s in specs]), specs[0].dtype)
        return self._lower(y, specs[1])

    def gradient(self, *grads: Any) -> Sequence[Any]:
        x, weight, bias = (*self.inputs, None)[:3]
        dy, geometry = _activation_gradient(grads[0], self, self.attrs), self._geometry()
        dx = Conv(dy, weight, **geometry)
        dweight = ConvWeightGrad(x, dy, weight, **geometry)[0]
        return (dx, dweight) if bias is None else (dx, dweight, pf.SumTo(dy, bias))

    def flops(self, specs: Sequence[Any], outputs: Sequence[Any], wanted: Sequence[bool]) -> int:
        extra = (len(specs) > 2) + (self.attrs["activation"] != "none")
        return self._work(specs[0], specs[1]) + extra * math.prod(known_shape(outputs[0]))

    def absorb(self, index: int, consumer: Op, specs: Sequence[Any]) -> Op | None:
        activation = as_activation(consumer)
        if activation is None or self.attrs["activation"] != "none" or len(consumer.inputs) != 1:
            return None
        name = f"{self.label()}+{consumer.label()}"
        return ConvTranspose(*self.inputs, **self._geometry(), **activation, name=name)

    def scratch_bytes(self, specs: Sequence[Any]) -> int:
        y = self.infer_shape(*[s and s.shape for s in specs])
        return self._transposed_scratch(specs, [n or 0 for n in y])

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        x, weight, bias = (*inputs, None)[:3]
        y = cls._spread(x, weight, cls._result_shape(x, weight, attributes), attributes)
        y = y if bias is None else y + bias
        return _activate(y, attributes["activation"], attributes["slope"])

    @classmethod
    def _result_shape(cls, x: Any, weight: Any, attributes: Any) -> tuple[int, ...]:
        probe = cls._probe(attributes)
        extents = probe._extents(x.shape, weight.shape[:-2])
        return (len(x), *[n or 0 for n in extents], weight.shape[-2] * attributes["groups"])

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        plain = {**attributes, "activation": "none"}
        terms = cls.reference(*(None if i is None else np.abs(i) for i in inputs), **plain)
        k = 3 + math.prod(inputs[1].shape[:-2]) * inputs[1].shape[-1]
        if attributes["activation"] in ("sigmoid", "tanh"):
            return 9 + k, terms + np.abs(cls.reference(*inputs, **attributes))
        return k, terms

    @classmethod
    def sample(cls, draw: Any) -> Case:
        images, weight, attributes = cls._sample(draw)
        _, counts = cls._layout(images, weight.shape[:-2], attributes)
        x = draw.normal((len(images), *counts, weight.shape[-1]))
        if any(
            n < 1 for n in cls._result_shape(x, weight, attributes)[1:-1]
        ):  # less than the padding
            attributes = {**attributes, "padding": "valid"}
        bias = draw.normal(images.shape[-1:]) if draw.choice([True, False]) else None
        return _away_from_kinks(x, weight, bias, {**attributes, **cls._sample_activation(draw)})


class ConvInputGrad(_Transposed):
    """The gradient of x of `Conv`, from dy and the weight; of x only the shape is used.

    With `saved` (of the shape of x), the result of the activation in front of the layer, dx is
    the gradient of what went into that activation: it is multiplied by the derivative.
    """

    op = "conv_input_grad"
    kernel = "pyframe_cnn:conv_input_grad"
    optional_inputs = (3,)
    shape_only = (2,)
    differentiable = False

    def __init__(self, dy: Any, weight: Any, x: Any, saved: Any = None, **attributes: Any) -> None:
        super().__init__(dy, weight, x, *(() if saved is None else (saved,)), **attributes)

    def infer_shape(self, *shapes: Any) -> Shape:
        dy, weight, x, saved = (*shapes, None)[:4]
        self._check_weight(x, weight, None, -1)
        self._check_channels(x[-1], weight)
        _check_filtered(self, dy, x, weight)
        if saved is not None and not (len(saved) == len(x) and all(map(same, saved, x))):
            self.bad_shapes("saved must have the shape of x")
        return tuple(x)

    def lower_attributes(self, specs: Sequence[Any]) -> dict[str, Any]:
        return self._lower(specs[2], specs[1])

    def flops(self, specs: Sequence[Any], outputs: Sequence[Any], wanted: Sequence[bool]) -> int:
        derivative = math.prod(known_shape(outputs[0])) if len(specs) > 3 else 0
        return self._work(specs[0], specs[1]) + derivative

    def absorb(self, index: int, consumer: Op, specs: Sequence[Any]) -> Op | None:
        activation = as_activation(consumer)
        if activation is None or len(self.inputs) > 3 or len(consumer.inputs) != 2:
            return None
        flowing, result = consumer.inputs
        if flowing is None or flowing.node is not self:
            return None
        name = f"{self.label()}*{consumer.label()}"
        return ConvInputGrad(*self.inputs, result, **self._geometry(), **activation, name=name)

    def scratch_bytes(self, specs: Sequence[Any]) -> int:
        return self._transposed_scratch(specs, known_shape(specs[2]))

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, weight, x, saved = (*inputs, None)[:4]
        dx = cls._spread(dy, weight, x.shape, attributes)
        if saved is None:
            return dx
        return dx * _derivative(saved, attributes["activation"], attributes["slope"])

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        dy, weight, x, saved = (*inputs, None)[:4]
        dx = cls._spread(np.abs(dy), np.abs(weight), x.shape, attributes)
        if saved is not None:
            dx = dx * (1 + np.abs(saved)) ** 2
        return 6 + math.prod(weight.shape[:-2]) * weight.shape[-1], dx

    @classmethod
    def sample(cls, draw: Any) -> Case:
        x, weight, attributes = cls._sample(draw)
        _, counts = cls._layout(x, weight.shape[:-2], attributes)
        dy = draw.normal((len(x), *counts, weight.shape[-1]))
        if draw.choice([True, False]):
            return Case((dy, weight, x), attributes)
        saved = draw.away_from_zero(x.shape)
        return Case((dy, weight, x, saved), {**attributes, **cls._sample_activation(draw)})


def _check_filtered(op: _Convolution, dy: Shape, x: Shape, weight: Shape) -> None:
    """Check that dy has the shape that `Conv` makes of x."""
    outputs = op._outputs(op._windows_over(x, weight), x[1:-1])
    wanted = (x[0], *outputs, weight[-1])
    if len(dy) != len(wanted) or not all(map(same, dy, wanted)):
        op.bad_shapes("dy must have the shape of the convolution's result")


class ConvWeightGrad(_Convolution):
    """The gradients of weight and bias of `Conv`, from dy and x; of the weight the shape is used.

    dweight[t, c, f] = sum over images n and outputs o of x[n, o stride + t dilation - low, c]
    dy[n, o, f]; dbias = the sum of dy over all pixels.
    """

    op = "conv_weight_grad"
    kernel = "pyframe_cnn:conv_weight_grad"
    output_count = 2
    shape_only = (2,)
    differentiable = False

    def __init__(self, dy: Any, x: Any, weight: Any, **attributes: Any) -> None:
        super().__init__(dy, x, weight, **attributes)

    def infer_shape(self, *shapes: Any) -> Any:
        dy, x, weight = shapes
        self._check_weight(x, weight, None, -1)
        self._check_channels(x[-1], weight)
        _check_filtered(self, dy, x, weight)
        return tuple(weight), (weight[-1],)

    def lower_attributes(self, specs: Sequence[Any]) -> dict[str, Any]:
        return self._lower(specs[1], specs[2])

    def flops(self, specs: Sequence[Any], outputs: Sequence[Any], wanted: Sequence[bool]) -> int:
        bias = math.prod(known_shape(specs[0]))
        return wanted[0] * self._work(specs[0], specs[2]) + wanted[1] * bias

    def scratch_bytes(self, specs: Sequence[Any]) -> int:
        dy, x, weight = (known_shape(s) for s in specs)
        itemsize, size, pixels = (
            self.specs[0].dtype.itemsize,
            math.prod(weight),
            math.prod(dy[1:-1]),
        )
        if self.attrs["groups"] > 1 and weight[-2] == 1:
            return pieces(itemsize, dy[0] * size)
        outer = fill_ones(weight[:-2])[:2]
        rows = math.prod(weight[:-1])
        if rows > PART_ROWS:
            rows //= math.prod(outer)
        # The lines of dy that a product sums over.
        if pixels <= MANY_TERMS:
            lines = max(min(MANY_TERMS // pixels, dy[0]), 1) * math.prod(dy[1:-2])
        else:
            lines = max(min(MANY_TERMS // dy[-2], fill_ones(dy[1:-1])[1]), 1)
        copied = self._copied(specs[1], self._windows_over(x, weight), dy[1:-1])
        return pieces(itemsize, copied, (PARTS - 1) * size) + pieces(8, rows, rows * lines)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, x, weight = inputs
        groups = attributes["groups"]
        windows, counts = cls._layout(x, weight.shape[:-2], attributes)
        padded = _grouped(cls._padded(x, windows, counts), groups)
        filtered = _grouped(dy, groups).reshape(
            math.prod(dy.shape[:-1]), groups, dy.shape[-1] // groups
        )
        dweight = np.zeros(weight.shape)
        for tap, seen in cls._taps(windows, counts):
            pixels = padded[seen].reshape(len(filtered), *padded.shape[-2:])
            terms = np.einsum("pgc,pgf->cgf", pixels, filtered)
            dweight[tap] = terms.reshape(weight.shape[-2:])
        return dweight, dy.sum(axis=tuple(range(dy.ndim - 1)))

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        dy, x, weight = inputs
        return 3 + math.prod(dy.shape[:-1]), cls.reference(
            np.abs(dy), np.abs(x), weight, **attributes
        )

    @classmethod
    def sample(cls, draw: Any) -> Case:
        x, weight, attributes = cls._sample(draw)
        _, counts = cls._layout(x, weight.shape[:-2], attributes)
        return Case((draw.normal((len(x), *counts, weight.shape[-1])), x, weight), attributes)

    @classmethod
    def cases(cls) -> Sequence[Case]:
        rng = np.random.default_rng(0)
        shapes = (17, 6, 6, 20), (17, 8, 8, 50), (3, 3, 50, 20)  # several parts and sums
        long = (3, 30, 30, 17), (3, 30, 30, 3), (3, 3, 3, 17)
        return (
            Case(_numbers(rng, *shapes), {}),
            Case(_numbers(rng, *long), {"padding": "same"}),
            Case(_numbers(rng, (40, 4, 4, 6), (40, 8, 8, 1), (5, 5, 1, 6)), {}),
        )


# How conv_weight.c cuts the work.
MANY_TERMS, PART_ROWS, PARTS = 128, 384, 8


def fill_ones(kernel: Sequence[int]) -> tuple[int, ...]:
    """Return the three extents of a kernel."""
    return (1,) * (3 - len(kernel)) + tuple(kernel)


OPS = (Conv, ConvTranspose, ConvInputGrad, ConvWeightGrad)
