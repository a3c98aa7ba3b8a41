"""A model as a picture: its layers as boxes, and around those within another one a frame."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyframe.errors import require_extra
from pyframe.graph.node import Node, Placeholder
from pyframe.graph.order import input_nodes, topological_sort
from pyframe.graph.parameter import Parameter, State
from pyframe.graph.spec import describe
from pyframe.layers.base import Layer, layer_of, outermost_layer_of
from pyframe.model import Model
from pyframe.model.base import Nested
from pyframe.plotting.graphs import (
    COMPUTED,
    INPUT,
    NAME_SIZE,
    NOTE_SIZE,
    OUTLINE,
    PARAMETER,
    Sheet,
    arrow,
    plain,
    text_width,
)
from pyframe.plotting.layout import LANE, Box, Layout, layered
from pyframe.training.trainer import Trainer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAD, LINE, GAP = 0.1, 0.19, 0.34  # inches: around texts, of a line of text, between rows
SIZES, FRAME = (NAME_SIZE, NOTE_SIZE), "#f6f7f8"
PORT = "what goes into a frame"


def model(model: Model | Trainer, shape: Any = None, *, title: str = "") -> Figure:
    """Draw the layers of a model from top to bottom, with output shapes and parameters.

    A layer that holds others, as a model within the model does, is a frame around theirs. A layer
    that is used several times is drawn once where that makes no circle.

    Parameters
    ----------
    model : Model or Trainer
    shape : tuple of int, optional
        Of a sample: for a `Sequential` that has seen no data, which stays as it is.
    title : str

    Returns
    -------
    Figure
        To be kept by ``savefig("model.svg")``, or as PNG.

    Raises
    ------
    GraphError
        If the model has seen no data and there is no `shape`.

    Examples
    --------
    >>> import pyframe as pf
    >>> block = pf.layers.Residual([pf.layers.Dense(8, "relu")])
    >>> figure = pf.plotting.model(pf.Sequential([block, pf.layers.Dense(2)]), (8,))
    >>> [text.get_text() for text in figure.axes[0].texts][-2:]
    ['dense: Dense', '(?, 2), 18 parameters']
    """
    whole = (model.model if isinstance(model, Trainer) else model).for_shape(shape)
    read: dict[Node, set[Parameter]] = {}  # of each node that is drawn, its parameters
    for node in whole.graph.order:
        if isinstance(node, Placeholder) or any(p in read for p in input_nodes(node)):
            read[node] = _parameters(node, read)
    picture = _Picture(whole.graph.names, read)
    layout = picture.arrange(_grouped(list(read), {node: _chain(node) for node in read}))
    turned = Layout({}, {}, layout.bottom, layout.top, -layout.right, -layout.left)
    kinds = {"input": INPUT, "with parameters": PARAMETER, "without": COMPUTED}
    sheet = Sheet(turned, 1, title, kinds, False, False)
    picture.draw(sheet.panel(0, ""), layout)
    return sheet.figure


def _parameters(node: Node, drawn: Mapping[Node, Any]) -> set[Parameter]:
    """Return the parameters that a node reads, by itself or through nodes that are not drawn."""
    found = [node]
    for one in found:
        found += [p for p in input_nodes(one) if p not in drawn]
    return {p for p in found if isinstance(p, Parameter) and not isinstance(p, State)}


# ---- what is a box ----


class _Unit:
    """A layer or a node that is drawn as a box, or as a frame around `parts`."""

    def __init__(self, thing: Layer | Node) -> None:
        self.thing = thing
        self.nodes: list[Node] = []
        self.before: dict[_Unit, None] = {}
        self.parts: list[_Unit] = []
        self.layout: Layout | None = None  # of the parts


def _chain(node: Node) -> list[Layer]:
    """Return the layers that a node lies in, from the outermost to the one that made it."""
    outermost, made = outermost_layer_of(node), layer_of(node)
    if outermost is None:
        return []
    return _way(outermost, made) or [outermost]


def _way(layer: Layer, to: Layer | None) -> list[Layer]:
    if layer is to:
        return [layer]
    ways = (_way(inner, to) for inner in layer.sublayers.values())
    return next(([layer, *way] for way in ways if way), [])


def _grouped(
    nodes: Sequence[Node], chains: Mapping[Node, Sequence[Layer]], depth: int = 0
) -> list[_Unit]:
    """Return ordered nodes as units of the layers that they lie in at some depth."""
    units: list[_Unit] = []
    latest: dict[Any, _Unit] = {}
    where: dict[Node, _Unit] = {}
    for node in nodes:
        thing = chains[node][depth] if depth < len(chains[node]) else node
        before = dict.fromkeys(where[p] for p in input_nodes(node) if p in where)
        unit = latest.get(thing)
        if unit is None or any(b is not unit and _depends(b, unit) for b in before):
            unit = latest[thing] = _Unit(thing)
            units.append(unit)
        before.pop(unit, None)
        unit.before.update(before)
        unit.nodes.append(node)
        where[node] = unit
    for unit in units:
        if any(len(chains[node]) > depth + 1 for node in unit.nodes):
            unit.parts = _grouped(unit.nodes, chains, depth + 1)
    return topological_sort(units, lambda unit: unit.before)


def _depends(unit: _Unit, on: _Unit) -> bool:
    found = {unit: None}
    for one in (stack := [unit]):
        stack += one.before.keys() - found.keys()
        found |= one.before
    return on in found


# ---- where it stands, and drawing ----


class _Picture:
    """Places and draws units. Layouts run from left to right, and are turned when drawn."""

    def __init__(self, names: Mapping[Node, str], read: Mapping[Node, set[Parameter]]) -> None:
        self.names, self.read = names, read
        self.boxes: dict[Any, Box] = {PORT: LANE}

    def arrange(self, units: Sequence[_Unit], inside: Collection[Node] = ()) -> Layout:
        """Return the layout of all units, or of those of a frame around some nodes."""
        before: dict[Any, list[Any]] = {PORT: []}
        for unit in units:
            self.boxes[unit] = self._box(unit)
            sources = {p for node in unit.nodes for p in input_nodes(node)} & self.read.keys()
            before[unit] = [*unit.before, *[PORT] * bool(inside and sources - {*inside})]
        return layered([*[PORT] * bool(inside), *units], before, self.boxes, GAP)

    def _box(self, unit: _Unit) -> Box:
        texts = zip(self._texts(unit), SIZES, strict=True)
        width = 2 * PAD + max(text_width(*text) for text in texts)
        if not unit.parts:
            return Box(2 * LINE + PAD, width / 2, width / 2)
        layout = unit.layout = self.arrange(unit.parts, unit.nodes)
        port = layout.places[PORT][1]
        left, right = port - layout.bottom + 2 * PAD, layout.top - port + 2 * PAD
        height = layout.right - layout.left + 2 * LINE + 2 * PAD
        return Box(height, max(right, width - left), left)

    def _texts(self, unit: _Unit) -> tuple[str, str]:
        """Return name and kind, and below them the shape of the output, and parameters."""
        thing, note = unit.thing, describe(unit.nodes[-1].shape)
        count = sum(p.size for p in set().union(*map(self.read.__getitem__, unit.nodes)))
        note += f", {count:,} parameters" if count else ""
        if not isinstance(thing, Layer):
            return self.names[thing].rpartition("/")[2], note
        kind = type(thing.model if isinstance(thing, Nested) else thing).__name__
        return f"{thing.path.rpartition('/')[2]}: {kind}", note

    def draw(self, axes: Axes, layout: Layout, x: float = 0.0, y: float = 0.0) -> None:
        """Draw a layout; what is `across` and `along` in it stands at (x + across, y - along)."""
        for (source, target), route in layout.routes.items():
            (a0, b0), (a1, b1) = layout.places[source], layout.places[target]
            ends = (a0 + self.boxes[source].width / 2, b0), (a1 - self.boxes[target].width / 2, b1)
            way = [(a - y, b + x) for a, b in (ends[0], *route, ends[1])]
            axes.add_patch(arrow(way, turned=True))
        patch = require_extra("matplotlib.patches", "plot").FancyBboxPatch
        for unit, (along, across) in layout.places.items():
            if unit is PORT:
                continue
            box, inner = self.boxes[unit], unit.layout
            middle, left, top = x + across, x + across - box.below, y - along + box.width / 2
            axes.add_patch(patch((left, top - box.width), box.above + box.below, box.width,
                                 "round,pad=0,rounding_size=0.06", facecolor=self._color(unit),
                                 edgecolor=OUTLINE, zorder=0.3))  # fmt: skip
            at, side = (left + PAD, "left") if inner else (middle, "center")
            for text, size, down in zip(self._texts(unit), SIZES, (0.85, 1.8), strict=True):
                axes.text(at, top - down * LINE, plain(text), fontsize=size, va="center", ha=side)
            if inner:
                top += inner.left - 2 * LINE - PAD
                self.draw(axes, inner, middle - inner.places[PORT][1], top)

    def _color(self, unit: _Unit) -> str:
        if unit.parts:
            return FRAME
        if isinstance(unit.thing, Placeholder):
            return INPUT
        return PARAMETER if any(self.read[node] for node in unit.nodes) else COMPUTED
