"""What a network of convolutions has learned, as pictures: its filters, and what they find."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pyframe.errors import ArgumentError, ShapeError
from pyframe.graph.node import Value
from pyframe.graph.order import topological_order
from pyframe.graph.spec import describe
from pyframe.model import Model
from pyframe.plotting.charts import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 16  # rows or columns of a picture


def filters(weight: Any, *, title: str = "Filters") -> Figure:
    """Draw the kernels of a convolution: positive weights red, negative ones blue.

    Parameters
    ----------
    weight : array_like or Parameter, shape (height, width, channels, filters)
        A row of the picture is an input channel, a column a filter; the first 16 of each. With
        three channels a filter is drawn in colours instead, scaled to the range of its weights.
    title : str

    Returns
    -------
    Figure

    Raises
    ------
    ShapeError
        If there are not four axes.

    Examples
    --------
    >>> import numpy as np
    >>> len(filters(np.random.default_rng(0).normal(size=(5, 5, 1, 6))).axes)
    6
    """
    kernels = np.asarray(getattr(weight, "value", weight), np.float64)
    if kernels.ndim != 4:
        raise ShapeError(
            "a convolution's weight has shape (height, width, channels, filters), "
            f"this array {describe(kernels.shape)}"
        )
    channels, count = kernels.shape[2:]
    columns = max(min(count, MOST), 1)
    rows = 1 if channels == 3 else max(min(channels, MOST), 1)
    figure = new_figure(0.8 * columns + 0.6, 0.8 * rows + 0.8)
    largest = float(np.abs(kernels).max(initial=0.0)) or 1.0
    for row in range(min(rows, channels)):
        for column in range(min(columns, count)):
            axes = figure.add_subplot(rows, columns, row * columns + column + 1)
            axes.set_axis_off()
            kernel = kernels[:, :, :, column]
            if channels == 3:
                low, high = kernel.min(), kernel.max()
                axes.imshow((kernel - low) / ((high - low) or 1.0), interpolation="nearest")
            else:
                picture = kernel[:, :, row]
                axes.imshow(
                    picture, cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest"
                )
    shown = "" if channels in (1, 3) else f", {min(rows, channels)} of {channels} input channels"
    figure.suptitle(f"{title}: {min(columns, count)} of {count}{shown}")
    return figure


def feature_maps(
    model: Model, image: Any, *, layers: Sequence[str] | None = None, title: str = "Feature maps"
) -> Figure:
    """Draw the output of each layer of a model for one image, channel by channel.

    Parameters
    ----------
    model : Model
        With one input, built.
    image : array_like, shape (height, width, channels), or (height, width) for one channel
    layers : list of str, optional
        Names of the nodes to show, as in the model's summary. Default: all that give images.
    title : str

    Returns
    -------
    Figure
        A row for the image and for each layer: its first 16 channels, the larger the darker.

    Raises
    ------
    ArgumentError
        If the model has several inputs, no node of a given name, or none that gives images.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> model = pf.Sequential([pf.layers.Activation("relu")], input_shape=(4, 4, 2))
    >>> len(feature_maps(model, np.ones((4, 4, 2))).axes)  # two channels, before and behind
    4
    """
    if len(model.inputs) != 1:
        raise ArgumentError(f"feature maps are of one image; the model takes {len(model.inputs)}")
    picture = np.asarray(image, model.inputs[0].dtype)
    picture = picture[..., None] if picture.ndim == 2 else picture
    found = _images_of(model, layers)
    together = Model(inputs=model.inputs, outputs=list(found.values()))
    results = together.predict(picture[None])
    maps = [results] if len(found) == 1 else list(results)
    names = ["the image", *found]
    rows = [picture, *(np.asarray(m)[0] for m in maps)]
    columns = max(min(row.shape[-1], MOST) for row in rows)
    figure = new_figure(0.8 * columns + 0.8, 1.05 * len(rows) + 0.5)
    for r, (name, row) in enumerate(zip(names, rows, strict=True)):
        for c in range(min(row.shape[-1], columns)):
            axes = figure.add_subplot(len(rows), columns, r * columns + c + 1)
            axes.imshow(row[:, :, c], cmap="gray_r", interpolation="nearest")
            axes.set_axis_off()
            if c == 0:
                height, width, count = row.shape
                label = f"{name}  {height} x {width} x {count}"
                axes.set_title(label, fontsize=8, loc="left")
    figure.suptitle(title)
    return figure


def _images_of(model: Model, names: Sequence[str] | None) -> dict[str, Value]:
    """Return the nodes that give images of shape (n, height, width, channels), by name."""
    order = topological_order(model.outputs)
    images: dict[str, Value] = {}
    for node in order:
        shape = node.shape if node.inputs else None
        if shape is not None and len(shape) == 4:
            images[node.label()] = node
    if names is not None:
        unknown = [name for name in names if name not in images]
        if unknown:
            raise ArgumentError(
                f"no node {unknown[0]!r} of the model gives images; those that do: "
                f"{', '.join(images) or 'none'}"
            )
        images = {name: images[name] for name in names}
    if not images:
        raise ArgumentError("no node of the model gives images of (n, height, width, channels)")
    return images
