"""Transposed convolution. Kernels: conv.c, scatter.c, depthwise.c."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

import pyframe as pf
from pyframe import Case, Op
from pyframe.ops import epilogue
from pyframe_cnn.base import Shape, known, known_shape, same
from pyframe_cnn.conv import Conv
from pyframe_cnn.conv_grad import ConvWeightGrad, Transposed
from pyframe_cnn.convolution import activation_gradient, away_from_kinks


class ConvTranspose(Transposed):
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
    activation, slope, winograd, name
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
        x, weight, bias = shapes if len(shapes) == 3 else (*shapes, None)
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
        self._windows_over((0, *extents, 0), (*kernel, 0, 0))  # which checks the padding
        return tuple(extents)

    def lower_attributes(self, specs: Sequence[Any]) -> dict[str, Any]:
        y = self._y(specs)
        return self._lower(y, specs[1], y)

    def gradient(self, *grads: Any) -> Sequence[Any]:
        x, weight, bias = (*self.inputs, None)[:3]
        dy, geometry = activation_gradient(grads[0], self, self.attrs), self._geometry()
        dx = Conv(dy, weight, **geometry)
        dweight = ConvWeightGrad(x, dy, weight, **geometry)[0]
        return (dx, dweight) if bias is None else (dx, dweight, pf.SumTo(dy, bias))

    def flops(self, specs: Sequence[Any], outputs: Sequence[Any], wanted: Sequence[bool]) -> int:
        extra = len(specs) - 2 + int(self.attrs["activation"] != "none")
        y = outputs[0]
        return self._work(y, specs[1], specs[0], y) + extra * math.prod(known_shape(y))

    def absorb(self, index: int, consumer: Op, specs: Sequence[Any]) -> Op | None:
        activation = epilogue.as_activation(consumer)
        if activation is None or self.attrs["activation"] != "none" or len(consumer.inputs) != 1:
            return None
        name = f"{self.label()}+{consumer.label()}"
        x, weight, bias = (*self.inputs, None)[:3]
        return ConvTranspose(x, weight, bias, **self._geometry(), **activation, name=name)

    def scratch_bytes(self, specs: Sequence[Any]) -> int:
        return self._transposed_scratch(specs, self._y(specs))

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        x, weight, bias = (*inputs, None)[:3]
        y = cls._spread(x, weight, cls._result_shape(x, weight, attributes), attributes)
        y = y if bias is None else y + bias
        return epilogue.activate(attributes["activation"], y, attributes["slope"])

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
        windows, counts = cls._layout(images, weight.shape[:-2], attributes)
        extents = [w.inputs(n) or 0 for w, n in zip(windows, counts, strict=True)]
        padded = [max(w.low or 0, w.high or 0) for w in windows]
        if isinstance(attributes["padding"], tuple) and any(map(int.__gt__, padded, extents)):
            attributes = {**attributes, "padding": "valid"}  # or padding is all of the result
            _, counts = cls._layout(images, weight.shape[:-2], attributes)
        x = draw.normal((len(images), *counts, weight.shape[-1]))
        bias = draw.normal(images.shape[-1:]) if draw.choice([True, False]) else None
        return away_from_kinks(x, weight, bias, {**attributes, **cls._sample_activation(draw)})


OPS = (ConvTranspose,)
