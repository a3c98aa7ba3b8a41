"""The gradients of convolutions. Kernels: conv.c, conv_weight.c, scatter.c, depthwise.c."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from pyframe import Case, Op
from pyframe.ops import epilogue
from pyframe_cnn.base import Shape, known_shape, pieces, same
from pyframe_cnn.convolution import (
    FEW_CHANNELS,
    WIDEST,
    Convolution,
    by_group,
    grouped,
    inside_of,
    numbers,
    scratch_of,
    skips_zeros,
    three,
    winograd_scratch,
)

# How conv_weight.c cuts the work.
MANY_TERMS, PART_ROWS, PARTS, FULL = 128, 384, 8, 16


class Transposed(Convolution):
    """What the transposed convolution and the gradient of an input share: F to C channels."""

    def _transposed_scratch(self, specs: Sequence[Any], made: Any) -> int:
        x, weight, y = known_shape(specs[0]), known_shape(specs[1]), known_shape(made)
        groups, itemsize = self.attrs["groups"], self.specs[0].dtype.itemsize
        if groups == 1 and skips_zeros(x, weight, self.attrs):  # scatter.c
            return self._scatter_scratch(x, weight, three(y[1:-1]))
        windows = self._windows_over((x[0], *y[1:-1], x[-1]), weight)
        # Of the copy of x, with as many zeros as the outermost taps read.
        sides = [
            n + 2 * w.reach + -(-m // w.stride)
            for n, m, w in zip(x[1:-1], y[1:-1], windows, strict=True)
        ]
        few = x[-1] < FEW_CHANNELS
        direct = scratch_of(
            itemsize,
            taps=math.prod(weight[:-2]),
            depth=weight[-1] // groups,
            columns=weight[-2],
            groups=groups,
            pixels=math.prod(-(-m // w.stride) for m, w in zip(y[1:-1], windows, strict=True)),
            copied=x[0] * math.prod(sides) * x[-1] if few else 0,
            turned=math.prod(weight),
        )
        tiles = self._tiling(made, specs[1], made)
        return max(
            direct, winograd_scratch(itemsize, tiles, weight[-1], weight[-2], gradient=False)
        )

    def _scatter_scratch(self, x: Sequence[int], weight: Sequence[int], y: Sequence[int]) -> int:
        """Return what scatter.c needs, or more."""
        kernel, pixels = three(weight[:-2]), three(x[1:-1])
        columns = -(-kernel[2] * weight[-2] // WIDEST) * WIDEST
        parts = min(x[0], 8)
        together = min(max(32 // max(pixels[2], 1), 1), -(-x[0] // max(parts, 1)))
        terms = together * pixels[2] * columns + 8
        return pieces(
            self.specs[0].dtype.itemsize,
            kernel[0] * kernel[1] * weight[-1] * columns,
            parts * together * math.prod(pixels) * weight[-1],
            parts * terms,
        ) + pieces(8, 2 * y[1], y[1] * kernel[1], 3 * y[2])

    @classmethod
    def _spread(cls, x: Any, weight: Any, shape: tuple[int, ...], attributes: Any) -> Any:
        """Return the transposed convolution, of a given shape."""
        groups = attributes["groups"]
        windows = cls._probe(attributes)._windows_over(shape, weight.shape)
        y = grouped(np.zeros(shape), groups)
        # x with zeros around it: each tap of it is added to every stride-th pixel of y.
        sides = [
            (w.reach + (w.low or 0), n + (w.low or 0))
            for w, n in zip(windows, shape[1:-1], strict=True)
        ]
        padded = grouped(np.pad(x, [(0, 0), *sides, (0, 0)]), groups)
        skips = skips_zeros(x.shape, weight.shape, attributes)
        inside = inside_of(x, sides) if skips else None
        for tap in product(*(range(w.size) for w in windows)):
            to, seen = [], []
            for t, w, n, side in zip(tap, windows, shape[1:-1], sides, strict=True):
                first = (t * w.dilation - (w.low or 0)) % w.stride
                start = (first + (w.low or 0) - t * w.dilation) // w.stride + side[0]
                to.append(slice(first, n, w.stride))
                seen.append(slice(start, start + len(range(first, n, w.stride))))
            pixels = (slice(None), *seen)
            terms = by_group(padded[pixels], grouped(weight[tap], groups).swapaxes(0, 2))
            y[(slice(None), *to)] += terms if inside is None else np.where(inside[pixels], terms, 0)
        return y.reshape(shape)


class ConvInputGrad(Transposed):
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
        dy, weight, x, saved = shapes if len(shapes) == 4 else (*shapes, None)
        self._check_weight(x, weight, None, -1)
        self._check_channels(x[-1], weight)
        check_filtered(self, dy, x, weight)
        if saved is not None and not (len(saved) == len(x) and all(map(same, saved, x))):
            self.bad_shapes("saved must have the shape of x")
        return tuple(x)

    def lower_attributes(self, specs: Sequence[Any]) -> dict[str, Any]:
        return self._lower(specs[2], specs[1], specs[2])

    def flops(self, specs: Sequence[Any], outputs: Sequence[Any], wanted: Sequence[bool]) -> int:
        derivative = math.prod(known_shape(outputs[0])) if len(specs) > 3 else 0
        return self._work(specs[2], specs[1], specs[0], specs[2]) + derivative

    def absorb(self, index: int, consumer: Op, specs: Sequence[Any]) -> Op | None:
        activation = epilogue.as_activation(consumer)
        if activation is None or len(self.inputs) > 3 or len(consumer.inputs) != 2:
            return None
        flowing, result = consumer.inputs
        if flowing is None or flowing.node is not self:
            return None
        name = f"{self.label()}*{consumer.label()}"
        dy, weight, x = self.inputs
        return ConvInputGrad(dy, weight, x, result, **self._geometry(), **activation, name=name)

    def scratch_bytes(self, specs: Sequence[Any]) -> int:
        return self._transposed_scratch(specs, specs[2])

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, weight, x, saved = (*inputs, None)[:4]
        dx = cls._spread(dy, weight, x.shape, attributes)
        if saved is None:
            return dx
        return epilogue.activate_grad(attributes["activation"], dx, saved, attributes["slope"])

    @classmethod
    def magnitude(cls, *inputs: Any, **attributes: Any) -> tuple[int, Any]:
        dy, weight, x, saved = (*inputs, None)[:4]
        dx = cls._spread(np.abs(dy), np.abs(weight), x.shape, attributes)
        if saved is not None:
            dx = dx * (1 + np.abs(saved)) ** 2
        return 6 + math.prod(weight.shape[:-2]) * weight.shape[-1], dx

    @classmethod
    def cases(cls) -> Sequence[Case]:
        rng = np.random.default_rng(0)
        shapes = (9, 10, 9, 18), (3, 3, 33, 18), (9, 12, 11, 33), (9, 12, 11, 33)
        return (
            Case(numbers(rng, *shapes[:3]), {}),
            Case(numbers(rng, *shapes), {"activation": "tanh"}),
            Case(numbers(rng, (19, 8, 8, 9), (5, 5, 6, 9), (19, 12, 12, 6)), {}),  # scattered
            Case(
                numbers(rng, (19, 4, 5, 7), (5, 4, 3, 7), (19, 18, 17, 3)),
                {"stride": (3, 4), "dilation": (2, 1), "padding": ((0, 0), (1, 2))},
            ),
        )

    @classmethod
    def sample(cls, draw: Any) -> Case:
        x, weight, attributes = cls._sample(draw)
        _, counts = cls._layout(x, weight.shape[:-2], attributes)
        dy = draw.normal((len(x), *counts, weight.shape[-1]))
        if draw.choice([True, False]):
            return Case((dy, weight, x), attributes)
        saved = draw.away_from_zero(x.shape)
        return Case((dy, weight, x, saved), {**attributes, **cls._sample_activation(draw)})


def check_filtered(op: Convolution, dy: Shape, x: Shape, weight: Shape) -> None:
    """Check that dy has the shape that `Conv` makes of x."""
    outputs = op._outputs(op._windows_over(x, weight), x[1:-1])
    wanted = (x[0], *outputs, weight[-1])
    if len(dy) != len(wanted) or not all(map(same, dy, wanted)):
        op.bad_shapes("dy must have the shape of the convolution's result")


class ConvWeightGrad(Convolution):
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
        check_filtered(self, dy, x, weight)
        return tuple(weight), (weight[-1],)

    def lower_attributes(self, specs: Sequence[Any]) -> dict[str, Any]:
        return self._lower(specs[1], specs[2], specs[0])

    def flops(self, specs: Sequence[Any], outputs: Sequence[Any], wanted: Sequence[bool]) -> int:
        bias = math.prod(known_shape(specs[0]))
        return wanted[0] * self._work(specs[1], specs[2], specs[0], specs[0]) + wanted[1] * bias

    def scratch_bytes(self, specs: Sequence[Any]) -> int:
        dy, x, weight = (known_shape(s) for s in specs)
        itemsize = self.specs[0].dtype.itemsize
        if self.attrs["groups"] > 1 and weight[-2] == 1:
            return pieces(itemsize, dy[0] * math.prod(weight))
        copied = self._copied(specs[1], self._windows_over(x, weight), dy[1:-1])
        together = self._together(dy, weight)
        stride = self._expand("stride", len(dy) - 2)[-1]
        width = weight[-3] + (together - 1) * stride
        weight = (*weight[:-3], width, weight[-2], weight[-1] * together)
        dy = (*dy[:-2], dy[-2] // together, dy[-1] * together)
        size, pixels = math.prod(weight), math.prod(dy[1:-1])
        outer = three(weight[:-2])[:2]
        rows = math.prod(weight[:-1])
        if rows > PART_ROWS:
            rows //= math.prod(outer)
        # The lines of dy that a product sums over.
        if pixels <= MANY_TERMS:
            lines = max(min(MANY_TERMS // pixels, dy[0]), 1) * math.prod(dy[1:-2])
        else:
            lines = max(min(MANY_TERMS // dy[-2], three(dy[1:-1])[1]), 1)
        direct = pieces(itemsize, copied, size, PARTS * size) + pieces(8, rows, rows * lines)
        tiles = self._tiling(specs[1], specs[2], specs[0])
        given = known_shape(specs[2])
        winograd = winograd_scratch(itemsize, tiles, *given[-2:], gradient=True)
        return max(direct, winograd, self._few_scratch(specs[1], specs[0], given, gradient=True))

    def _together(self, dy: Sequence[int], weight: Sequence[int]) -> int:
        """Return how many neighbouring pixels of dy are taken for one; see conv_weight.c."""
        rank, together = len(dy) - 2, 1
        stride, dilation = (self._expand(what, rank)[-1] for what in ("stride", "dilation"))
        if self.attrs["groups"] == 1 and dilation == 1 and weight[-3] > stride:
            while 2 * together * weight[-1] <= FULL and dy[-2] % (2 * together) == 0:
                together *= 2
        return together

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        dy, x, weight = inputs
        groups = attributes["groups"]
        windows, counts = cls._layout(x, weight.shape[:-2], attributes)
        padded = grouped(cls._padded(x, windows, counts), groups)
        filtered = grouped(dy, groups).reshape(
            math.prod(dy.shape[:-1]), groups, dy.shape[-1] // groups
        )
        dweight = np.zeros(weight.shape)
        for tap, seen in cls._taps(windows, counts):
            pixels = padded[seen].reshape(len(filtered), *padded.shape[-2:])
            terms = pixels.transpose(1, 2, 0) @ filtered.swapaxes(0, 1)
            dweight[tap] = terms.swapaxes(0, 1).reshape(weight.shape[-2:])
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
            Case(numbers(rng, *shapes), {}),
            Case(numbers(rng, *long), {"padding": "same"}),
            Case(numbers(rng, (40, 4, 4, 6), (40, 8, 8, 1), (5, 5, 1, 6)), {}),
            Case(numbers(rng, (2, 20, 300, 5), (2, 20, 300, 3), (3, 3, 3, 5)), {"padding": 1}),
            Case(
                numbers(rng, (2, 2, 9, 19, 8), (2, 3, 9, 40, 2), (2, 3, 5, 2, 8)),
                {"padding": 1, "stride": (2, 1, 2)},
            ),
            Case(numbers(rng, (9, 12, 11, 34), (9, 12, 11, 17), (3, 3, 17, 34)), {"padding": 1}),
            Case(numbers(rng, (9, 5, 16, 13), (9, 9, 20, 7), (5, 5, 7, 13)), {}),  # narrow
            Case(numbers(rng, (1, 9, 9, 7), (1, 9, 9, 4), (3, 3, 4, 7)), {"padding": 1}),  # few
        )


OPS = (ConvInputGrad, ConvWeightGrad)
