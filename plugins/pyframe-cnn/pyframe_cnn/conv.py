"""Convolution. Kernels: conv.c, depthwise.c."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pyframe import Case, Op
from pyframe.ops import epilogue
from pyframe_cnn.base import Shape, known, known_shape
from pyframe_cnn.conv_grad import ConvInputGrad, ConvWeightGrad
from pyframe_cnn.convolution import (
    FEW_CHANNELS,
    Convolution,
    activation_gradient,
    away_from_kinks,
    by_group,
    grouped,
    numbers,
    scratch_of,
    winograd_scratch,
)


class Conv(Convolution):
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
    winograd : bool, default True
        Whether 3 x 3 kernels of stride 1 may be done by tiles of 2 x 2 outputs, with 16 products
        instead of 36, or, in float32, of 4 x 4, with 36 instead of 144. They are, where it pays:
        from 16 channels and filters on, and from 32 and 128 tiles on. The error is two to three
        times that of plain sums, that of the weights' gradient up to five times, relative to the
        largest numbers that a tile sees; and tiles of 4 x 4 round whole numbers, too. A plan's
        FLOPs count the products that are done.
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
    Lavin, Gray, "Fast algorithms for convolutional neural networks", arXiv:1509.09308, section 4.
    """

    op = "conv"
    kernel = "pyframe_cnn:conv"
    optional_inputs = (2,)

    def __init__(self, x: Any, weight: Any, bias: Any = None, **attributes: Any) -> None:
        super().__init__(x, weight, *(() if bias is None else (bias,)), **attributes)

    def infer_shape(self, *shapes: Any) -> Shape:
        x, weight, bias = shapes if len(shapes) == 3 else (*shapes, None)
        self._check_weight(x, weight, bias, -1)
        self._check_channels(x[-1], weight)
        outputs = self._outputs(self._windows_over(x, weight), x[1:-1])
        filters = weight[-1] if bias is None else known(weight[-1], bias[0])
        return (x[0], *outputs, filters)

    def lower_attributes(self, specs: Sequence[Any]) -> dict[str, Any]:
        return self._lower(specs[0], specs[1], self._y(specs))

    def gradient(self, *grads: Any) -> Sequence[Any]:
        x, weight, bias = (*self.inputs, None)[:3]
        dy, geometry = activation_gradient(grads[0], self, self.attrs), self._geometry()
        dx = ConvInputGrad(dy, weight, x, **geometry)
        dweight, dbias = ConvWeightGrad(dy, x, weight, **geometry)
        return (dx, dweight) if bias is None else (dx, dweight, dbias)

    def flops(self, specs: Sequence[Any], outputs: Sequence[Any], wanted: Sequence[bool]) -> int:
        extra = len(specs) - 2 + int(self.attrs["activation"] != "none")
        y = outputs[0]
        return self._work(specs[0], specs[1], y, y) + extra * math.prod(known_shape(y))

    def absorb(self, index: int, consumer: Op, specs: Sequence[Any]) -> Op | None:
        activation = epilogue.as_activation(consumer)
        if activation is None or self.attrs["activation"] != "none" or len(consumer.inputs) != 1:
            return None
        name = f"{self.label()}+{consumer.label()}"
        x, weight, bias = (*self.inputs, None)[:3]
        return Conv(x, weight, bias, **self._geometry(), **activation, name=name)

    def scratch_bytes(self, specs: Sequence[Any]) -> int:
        x, weight, y = (known_shape(s) for s in (specs[0], specs[1], self._y(specs)))
        few, itemsize = x[-1] < FEW_CHANNELS, self.specs[0].dtype.itemsize
        tiles = self._tiling(specs[0], specs[1], self._y(specs))
        direct = scratch_of(
            itemsize,
            taps=math.prod(weight[:-2]),
            depth=weight[-2],
            columns=weight[-1] // self.attrs["groups"],
            groups=self.attrs["groups"],
            pixels=math.prod(y[1:-1]),
            copied=self._copied(specs[0], self._windows_over(x, weight), y[1:-1]) if few else 0,
        )
        winograd = winograd_scratch(itemsize, tiles, *weight[-2:], gradient=False)
        return max(
            direct, winograd, self._few_scratch(specs[0], self._y(specs), weight, gradient=False)
        )

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        x, weight, bias = (*inputs, None)[:3]
        groups = attributes["groups"]
        windows, counts = cls._layout(x, weight.shape[:-2], attributes)
        padded = grouped(cls._padded(x, windows, counts), groups)
        y = np.zeros((len(x), *counts, groups, weight.shape[-1] // groups))
        # A depthwise kernel leaves out what it sees of the zeros: it matters if a weight is NaN.
        ones = cls._padded(np.ones((*x.shape[:-1], 1)), windows, counts)[..., None] > 0
        inside = ones if weight.shape[-2] == 1 and groups > 1 else None
        for tap, seen in cls._taps(windows, counts):
            terms = by_group(padded[seen], grouped(weight[tap], groups))
            y += terms if inside is None else np.where(inside[seen], terms, 0)
        y = y.reshape(*y.shape[:-2], weight.shape[-1])
        y = y if bias is None else y + bias
        return epilogue.activate(attributes["activation"], y, attributes["slope"])

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
        return away_from_kinks(x, weight, bias, {**attributes, **cls._sample_activation(draw)})

    @classmethod
    def cases(cls) -> Sequence[Case]:
        rng = np.random.default_rng(0)
        return (
            Case(numbers(rng, (2, 17, 18, 3), (5, 3, 3, 33), (33,)), {"padding": "same"}),
            Case(numbers(rng, (2, 19, 19, 32), (3, 3, 32, 7)), {"padding": 1}),
            Case(numbers(rng, (1, 9, 9, 40), (3, 3, 40, 65)), {"stride": 2, "padding": "same"}),
            Case(numbers(rng, (3, 20, 5), (3, 5, 4), (4,)), {"padding": "causal", "dilation": 4}),
            Case(numbers(rng, (2, 5, 5, 34), (3, 3, 1, 34)), {"groups": 34, "padding": "same"}),
            Case(numbers(rng, (2, 5, 5, 5), (3, 3, 1, 10), (10,)), {"groups": 5, "stride": 2}),
            Case(numbers(rng, (1, 3, 4, 5, 2), (2, 2, 3, 2, 4)), {"padding": "same"}),
            Case(numbers(rng, (2, 20, 300, 3), (3, 3, 3, 5), (5,)), {"padding": "same"}),  # bands
            Case(
                numbers(rng, (2, 3, 9, 40, 2), (2, 3, 5, 2, 8)), {"padding": 1, "stride": (2, 1, 2)}
            ),
            Case(numbers(rng, (9, 12, 11, 17), (3, 3, 17, 33), (33,)), {"padding": "same"}),
            Case(numbers(rng, (2, 9, 20, 6), (5, 5, 6, 16), (16,)), {}),  # narrow
            Case(numbers(rng, (1, 9, 9, 4), (3, 3, 4, 7), (7,)), {"padding": "same"}),  # few
        )


OPS = (Conv,)
