"""A model as a picture: its layers as boxes, and around those within another one a frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyframe.errors import ArgumentError, require_extra
from pyframe.graph.node import Node, Parameter, Placeholder, State
from pyframe.graph.order import input_nodes, topological_sort
from pyframe.graph.spec import describe
from pyframe.layers.base import Layer, layer_of, outermost_layer_of
from pyframe.model import Model
from pyframe.model.base import Nested
from pyframe.plotting.graphs import (
    COMPUTED,
    INPUT,
    MOST_NODES,
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
FRAME = "#f6f7f8"
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
    ArgumentError
        If there are more than 300 boxes, which cannot be read.

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
    units = _grouped(list(read), {node: _chain(node) for node in read}, 0)
    picture = _Picture(whole, read)
    layout = picture.arrange(units, ())
    turned = Layout({}, {}, layout.bottom, layout.top, -layout.right, -layout.left)
    kinds = {"input": INPUT, "with parameters": PARAMETER, "without": COMPUTED}
    sheet = Sheet(turned, 1, title, kinds, False, False)
    picture.draw(sheet.panel(0, ""), layout, 0.0, 0.0)
    return sheet.figure


def _parameters(node: Node, drawn: Mapping[Node, Any]) -> set[Parameter]:
    """Return the parameters that a node reads, by itself or through nodes that are not drawn."""
    found, stack = set(), [node]
    while stack:
        for p in input_nodes(stack.pop()):
            if p not in drawn:
                stack.append(p)
                if isinstance(p, Parameter) and not isinstance(p, State):
                    found.add(p)
    return found


# ---- what is a box ----


class _Unit:
    """A layer or a node that is drawn as a box, or as a frame around `parts`."""

    def __init__(self, thing: Layer | Node) -> None:
        self.thing = thing
        self.nodes: dict[Node, None] = {}
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
    nodes: Sequence[Node], chains: Mapping[Node, Sequence[Layer]], depth: int
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
        unit.nodes[node] = None
        where[node] = unit
    for unit in units:
        if any(len(chains[node]) > depth + 1 for node in unit.nodes):
            unit.parts = _grouped(list(unit.nodes), chains, depth + 1)
    return topological_sort(units, lambda unit: unit.before)


def _depends(unit: _Unit, on: _Unit) -> bool:
    stack, seen = [unit], {unit}
    while stack:
        new = stack.pop().before.keys() - seen
        if on in new:
            return True
        seen |= new
        stack += new
    return False


# ---- where it stands, and drawing ----


class _Picture:
    """Places and draws units. Layouts run from left to right, and are turned when drawn."""

    def __init__(self, whole: Model, read: Mapping[Node, set[Parameter]]) -> None:
        self.names, self.read = whole.graph.names, read
        self.boxes: dict[Any, Box] = {PORT: LANE}
        self.readers: dict[Any, list[Node | None]] = {}
        for node in read:
            for value in node.inputs:
                if value is not None:
                    self.readers.setdefault((value.node, value.index), []).append(node)
        for value in whole.outputs:
            self.readers.setdefault((value.node, value.index), []).append(None)

    def arrange(self, units: Sequence[_Unit], inside: Mapping[Node, None] | tuple[()]) -> Layout:
        """Return the layout of some units, those of a frame around some nodes, or of all."""
        before: dict[Any, list[Any]] = {unit: [*unit.before] for unit in units}
        for unit in units:
            self.boxes[unit] = self._box(unit)
            sources = (p for node in unit.nodes for p in input_nodes(node) if p in self.read)
            if inside and any(p not in inside for p in sources):
                before[unit].append(PORT)
        if len(self.boxes) > MOST_NODES:
            raise ArgumentError(f"a picture of more than {MOST_NODES} layers cannot be read")
        order = [PORT, *units] if inside else list(units)
        return layered(order, {PORT: [], **before}, self.boxes, GAP)

    def _box(self, unit: _Unit) -> Box:
        head, note = self._texts(unit)
        width = 2 * PAD + max(text_width(head, NAME_SIZE), text_width(note, NOTE_SIZE))
        if not unit.parts:
            return Box(2 * LINE + PAD, width / 2, width / 2)
        layout = unit.layout = self.arrange(unit.parts, unit.nodes)
        port = layout.places[PORT][1]
        left, right = port - layout.bottom + 2 * PAD, layout.top - port + 2 * PAD
        return Box(layout.right - layout.left + 2 * LINE + 2 * PAD, max(right, width - left), left)

    def _texts(self, unit: _Unit) -> tuple[str, str]:
        """Return name and kind, and below them the shape of what others read, and parameters."""
        thing, shapes = unit.thing, dict[str, None]()
        for (node, index), readers in self.readers.items():
            if node in unit.nodes and any(reader not in unit.nodes for reader in readers):
                shapes[describe(node[index].shape)] = None
        notes = [" ".join(shapes)]
        count = sum(p.size for p in set().union(*(self.read[node] for node in unit.nodes)))
        if count:
            notes.append(f"{count:,} parameters")
        if isinstance(thing, Layer):
            kind = type(thing.model if isinstance(thing, Nested) else thing).__name__
            head = f"{thing.path.rpartition('/')[2]}: {kind}"
        else:
            head = self.names[thing].rpartition("/")[2]
        return head, ", ".join(notes)

    def draw(self, axes: Axes, layout: Layout, x: float, y: float) -> None:
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
            box, (head, note) = self.boxes[unit], self._texts(unit)
            middle, left, top = x + across, x + across - box.below, y - along + box.width / 2
            color = FRAME if unit.parts else self._color(unit)
            axes.add_patch(patch((left, top - box.width), box.above + box.below, box.width,
                                 "round,pad=0,rounding_size=0.06", facecolor=color,
                                 edgecolor=OUTLINE, zorder=0.3))  # fmt: skip
            at = left + PAD if unit.parts else middle
            for text, size, down in ((head, NAME_SIZE, 0.6), (note, NOTE_SIZE, 1.55)):
                axes.text(at, top - PAD / 2 - down * LINE, plain(text), fontsize=size, va="center",
                          ha="left" if unit.parts else "center")  # fmt: skip
            if unit.layout is not None:
                inner = unit.layout
                self.draw(axes, inner, middle - inner.places[PORT][1],
                          top - 2 * LINE - PAD + inner.left)  # fmt: skip

    def _color(self, unit: _Unit) -> str:
        if isinstance(unit.thing, Placeholder):
            return INPUT
        return PARAMETER if any(self.read[node] for node in unit.nodes) else COMPUTED
