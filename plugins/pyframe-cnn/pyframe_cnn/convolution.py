"""What all convolutions share: geometry, scratch memory, and what their tests need."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

import pyframe as pf
from pyframe import Case
from pyframe.attributes import flag, number, one_of, whole
from pyframe.ops import epilogue
from pyframe_cnn.base import (
    Shape,
    WindowOp,
    known_shape,
    lowered,
    pieces,
    same,
)
from pyframe_cnn.geometry import LARGEST, Window, axes_of, padding_of

WIDEST = 32  # at least as many as elements of a vector: what packed weights are filled up to
# When tiles of outputs pay, by their extent: from so many channels and filters on, from so many
# tiles on, and if there are so many times the products of the smaller tiles, or of plain sums, at
# most; and up to so many weights of a tap. Those of 4 x 4 are for float32 only.
TILES = {4: (16, 128, 3 / 4), 2: (16, 32, 2 / 3)}
WINOGRAD_WEIGHTS = 1 << 16
FEW_CHANNELS = 16  # below this a convolution copies its images with zeros around them


class Tiling(NamedTuple):
    """So many tiles of extent x extent outputs; see winograd.h."""

    extent: int
    count: int

    @property
    def points(self) -> int:
        """How many pixels a tile sees, which is how many products it needs."""
        return (self.extent + 2) ** 2

    @property
    def products(self) -> int:
        """How many products there are for a channel and a filter."""
        return self.count * self.points


NO_TILES = Tiling(0, 0)


class Convolution(WindowOp):
    """What convolutions share: kernel (..., C / groups, F), stride, padding, dilation, groups."""

    attributes = {
        "stride": "3i8",
        "dilation": "3i8",
        "padding": "3i8",
        "groups": "i8",
        "activation": "i8",
        "slope": "f8",
        "winograd": "i8",
    }
    # From the result alone the side of zero could not be told for a slope below zero.
    rules = {
        "stride": axes_of,
        "dilation": axes_of,
        "padding": padding_of,
        "groups": whole(at_least=1, at_most=LARGEST),
        "activation": one_of(epilogue.ACTIVATIONS),
        "slope": number(at_least=0),
        "winograd": flag,
    }
    exact_on_integers = True
    defaults = {
        "stride": 1,
        "dilation": 1,
        "padding": "valid",
        "groups": 1,
        "activation": "none",
        "slope": 0.0,
        "winograd": True,
    }

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

    def _y(self, specs: Sequence[Any]) -> Any:
        return type(specs[0])(self.infer_shape(*[s and s.shape for s in specs]), specs[0].dtype)

    def _lower(self, images: Any, weight: Any, made: Any) -> dict[str, Any]:
        windows = self._windows_over(known_shape(images), known_shape(weight))
        block: dict[str, Any] = {**self.attrs, **lowered(windows)}
        del block["window"]
        return {
            **block,
            "activation": epilogue.ACTIVATIONS.index(self.attrs["activation"]),
            "winograd": self._tiling(images, weight, made).extent,
        }

    def _geometry(self) -> dict[str, Any]:
        kept = ("stride", "padding", "dilation", "groups", "winograd")
        return {key: self.attrs[key] for key in kept}

    def _tiling(self, images: Any, weight: Any, made: Any) -> Tiling:
        """Return the tiles of `made` that winograd.h works on.

        `images` and `weight` are those of the convolution; `made` is its result, or that of its
        transpose.
        """
        x, w, y = known_shape(images), known_shape(weight), known_shape(made)
        if not self.attrs["winograd"] or w[:-2] != (3, 3) or self.attrs["groups"] > 1:
            return NO_TILES
        if any((each.stride, each.dilation) != (1, 1) for each in self._windows_over(x, w)):
            return NO_TILES
        channels, filters = w[-2:]
        if channels * filters > WINOGRAD_WEIGHTS:
            return NO_TILES
        best, products = NO_TILES, 9 * math.prod(y[:-1])
        for extent, (fewest, count, share) in sorted(TILES.items()):
            found = Tiling(extent, y[0] * math.prod(-(-n // extent) for n in y[1:-1]))
            enough = min(channels, filters) >= fewest and found.count >= count
            enough = enough and (extent < 4 or images.dtype.itemsize == 4)
            if enough and found.products <= share * products:
                best, products = found, found.products
        return best

    def _work(self, images: Any, weight: Any, filtered: Any, made: Any) -> int:
        """Return the operations of a convolution from `images` to `filtered`; see `_tiling`."""
        w, tiles = known_shape(weight), self._tiling(images, weight, made)
        products = tiles.products * w[-2] or math.prod((*known_shape(filtered)[:-1], *w[:-1]))
        return 2 * products * w[-1]

    def _copied(self, images: Any, windows: Sequence[Window], outputs: Sequence[int]) -> int:
        """Return the elements of the images with zeros around them."""
        shape = known_shape(images)
        extents = [
            max((n - 1) * w.stride + w.reach - (w.low or 0), extent) + (w.low or 0)
            for w, extent, n in zip(windows, shape[1:-1], outputs, strict=True)
        ]
        return shape[0] * math.prod(extents) * shape[-1]

    def _few_scratch(
        self, images: Any, filtered: Any, weight: Sequence[int], *, gradient: bool
    ) -> int:
        """Return what few_filters.c needs, if few filters see few channels."""
        channels, filters = weight[-2:]
        if self.attrs["groups"] > 1 or not (0 < channels <= 4 and 0 < filters <= 8):
            return 0
        y, kernel = known_shape(filtered), three(weight[:-2])
        stride, by = (three(self._expand(what, len(y) - 2)) for what in ("stride", "dilation"))
        height, pixels = three(y[1:-1])[1:]
        one = height == 1 and stride[2] == 1
        width = pixels + (kernel[2] - 1) * by[2] if one else pixels
        slots, rows = kernel[0] * (1 if one else kernel[2]) * channels, math.prod(weight[:-1])
        above, parts, lanes = (kernel[1] - 1) * by[1], min(y[0], 8), 16
        band = min(max((1 << 15) // max(slots * width, 1) - above, 1), height)
        copies = slots * (band + above) * width + 2 * lanes
        apart = channels * (band + above) * known_shape(images)[-2] if channels > 1 else 0
        sums = (rows + 1) * filters * lanes if gradient else 0
        planes = filters * -(-band * pixels // lanes) * lanes if gradient else 0
        itemsize = self.specs[0].dtype.itemsize
        return pieces(8, rows) + pieces(
            itemsize, parts * copies, parts * apart, parts * planes, parts * sums
        )

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
        if draw.choice([True] + [False] * 7):
            return cls._sample_tiles(draw)
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
    def _sample_tiles(draw: Any) -> tuple[Any, Any, dict[str, Any]]:
        """Return the same for what winograd.h does."""
        extents = [draw.choice([8, 9, 10, 11, 14]) for _ in range(2)]
        channels, filters = (draw.choice([16, 17, 18, 33]) for _ in range(2))
        padding = draw.choice(["valid", "same", 1, ((0, 2), (1, 0)), ((3, 1), (0, 0))])
        images = draw.normal((draw.choice([2, 3, 5]), *extents, channels))
        return images, draw.normal((3, 3, channels, filters)), {"padding": padding, "groups": 1}

    @staticmethod
    def _sample_activation(draw: Any) -> dict[str, Any]:
        smooth = [] if draw.integers else ["sigmoid", "tanh"]
        kind = draw.choice(["none", "none", "relu", "leaky_relu", *smooth])
        return {"activation": kind, "slope": draw.choice([0.0, 0.25])}


def activation_gradient(dy: Any, y: Any, attrs: dict[str, Any]) -> Any:
    """Return the node of the gradient in front of an activation, whose result y is a node."""
    kind = attrs["activation"]
    if kind == "none":
        return dy
    if kind in ("sigmoid", "tanh"):  # from the slope, which the result alone does not say
        plain = type(y)(*y.inputs, **{**y.attrs, "activation": "none"})
        return (pf.Sigmoid if kind == "sigmoid" else pf.Tanh)(plain).gradient(dy)[0]
    extra = {"slope": attrs["slope"]} if kind == "leaky_relu" else {}
    return getattr(pf, "".join(map(str.capitalize, kind.split("_"))) + "Grad")(dy, y, **extra)


def skips_zeros(x: Sequence[int], weight: Sequence[int], attributes: dict[str, Any]) -> bool:
    """Return whether a transposed convolution leaves out the zeros around x.

    That matters if a weight is NaN. Depthwise kernels do, and those of small images to few
    channels.
    """
    if attributes["groups"] > 1:
        return weight[-2] == 1
    return weight[-2] <= 8 and math.prod(x[1:-1]) * math.prod(weight[:-1]) <= 2**17


def inside_of(x: Any, sides: Sequence[tuple[int, int]]) -> Any:
    """Return where images with zeros around them are not zeros, (N, ..., 1, 1)."""
    return np.pad(np.ones(x.shape[:-1]), [(0, 0), *sides])[..., None, None] > 0


def away_from_kinks(x: Any, weight: Any, bias: Any, attributes: dict[str, Any]) -> Case:
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


def grouped(x: Any, groups: int) -> Any:
    return x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)


def by_group(pixels: Any, weight: Any) -> Any:
    """Return the products of pixels (..., G, C) and weights (C, G, F) of each group."""
    groups, depth = pixels.shape[-2:]
    rows = pixels.reshape(math.prod(pixels.shape[:-2]), groups, depth).swapaxes(0, 1)
    terms = rows @ weight.swapaxes(0, 1)
    return terms.swapaxes(0, 1).reshape(*pixels.shape[:-1], weight.shape[-1])


def numbers(rng: np.random.Generator, *shapes: tuple[int, ...]) -> tuple[Any, ...]:
    return tuple(rng.standard_normal(shape) for shape in shapes)


def scratch_of(
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


def winograd_scratch(itemsize: int, tiles: Tiling, x: int, y: int, *, gradient: bool) -> int:
    """Return what winograd.h needs for tiles of x to y channels."""
    if tiles.count == 0:
        return 0
    points, whole, parts, many, apart = tiles.points, 24, 8, 1 << 20, 64 // itemsize
    size, buffer = points * x * y, 384 << 10
    block = buffer // (points * (x + y) * itemsize)
    if gradient:
        block = max(block, 2 * x * y // (x + y))
        parts = max(min(many // size, parts), 2)
    block = min(max(block // whole * whole, whole), tiles.count)
    blocks = -(-tiles.count // block)
    parts = min(parts, -(-blocks // 2) if gradient else blocks)
    buffers = parts * points * (block * (x + y) + 2 * apart)
    weights = (parts * size,) if gradient else (points * x * -(-y // WIDEST) * WIDEST, size)
    return pieces(itemsize, max(x, y), buffers, *weights) + pieces(1, parts)


def three(extents: Sequence[int]) -> tuple[int, ...]:
    """Return three spatial extents; those in front that are not there are 1."""
    return (1,) * (3 - len(extents)) + tuple(extents)
