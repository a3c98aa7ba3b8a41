"""Graphs as pictures, and the steps of computing them as a grid of pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from pyframe.engine.plan import Plan
from pyframe.errors import ArgumentError, GraphError, require_extra
from pyframe.graph.node import Constant, Node, Placeholder, Value
from pyframe.graph.order import Graph, input_nodes
from pyframe.graph.parameter import Parameter
from pyframe.graph.spec import FLOAT32, Spec
from pyframe.lesson import toplogic
from pyframe.model import Model
from pyframe.plotting.layout import Box, Layout, Point, layered
from pyframe.training.trainer import Trainer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WAITING, FORWARD, BACKWARD = "#ececec", "#a8dba8", "#a9c8ee"
INPUT, PARAMETER, COMPUTED = "#fde3b4", "#d5f0d5", "#dbe7f7"
OUTLINE, LATEST, LINE = "#7f8c8d", "#c0392b", "#95a5a6"

NAME_SIZE, NOTE_SIZE = 10.0, 7.5  # points
PAD = 0.35  # of a box around a name, in font sizes
NOTE_GAP = 0.05  # inches between a box and its note
MARGIN, TITLE, LEGEND = 0.3, 0.4, 0.55  # inches
MOST_NODES, MOST_STEPS = 300, 60  # more cannot be read

Notes = Mapping[Node, str]


def graph_layout(graph: Plan | Graph | Value | Sequence[Value]) -> dict[Node, tuple[float, float]]:
    """Return a place for every node: from left to right, in layers.

    A node stands right of everything it reads; a leaf stands just left of its first reader. Within
    a layer nodes are ordered so that few lines cross, and each is brought level with its
    neighbours. Boxes never overlap. Constants are left out.

    Parameters
    ----------
    graph : Plan, Graph, or the node(s) at its end

    Returns
    -------
    dict of Node to (x, y)
        In inches.

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x")
    >>> places = graph_layout(pf.Sigmoid(pf.Sigmoid(x)))
    >>> xs = [px for px, _ in places.values()]
    >>> xs == sorted(xs), {round(py, 9) for _, py in places.values()}
    (True, {0.0})
    """
    whole = _as_graph(graph)
    return _layout(whole, _shown(whole), {}).places


def draw_graph(
    graph: Model | Trainer | Plan | Graph | Value | Sequence[Value] | Mapping[Any, Any],
    *,
    values: bool = False,
    gradients: bool = False,
    title: str = "",
) -> Figure:
    """Draw a computing graph from left to right, with the names of its nodes.

    Parameters
    ----------
    graph : Model, Trainer, Plan, Graph, the node(s) at its end, or dict
        A dict says of each node, or of each name, what it leads to, as `toplogic` has it.
    values, gradients : bool
        Write them below the nodes; takes a plan compiled with ``inspect=True`` that has run.
    title : str

    Returns
    -------
    Figure

    Raises
    ------
    ArgumentError
        If values are wanted and there is no plan, or the graph has too many nodes to be read.
    GraphError, ValueReusedError
        If values are wanted and the plan has not run, or does not keep them.

    Examples
    --------
    >>> import pyframe as pf
    >>> x, y = pf.Placeholder("x"), pf.Placeholder("y")
    >>> figure = draw_graph(pf.L2Loss(y, pf.Sigmoid(x)))
    >>> sorted(text.get_text() for text in figure.axes[0].texts)
    ['l2_loss', 'sigmoid', 'x', 'y']
    >>> figure = draw_graph({"x": ["linear"], "k": ["linear"], "linear": ["loss"]})
    >>> len(figure.axes[0].texts)
    4
    """
    plan = graph if isinstance(graph, Plan) else None
    if plan is None and (values or gradients):
        raise ArgumentError("values and gradients are in a plan; pass one instead of the graph")
    whole = _as_graph(graph)
    order = _shown(whole)
    notes = {}
    if plan is not None and (values or gradients):
        notes = {node: _note(plan, node, values, gradients) for node in order}
    layout = _layout(whole, order, notes)
    sheet = Sheet(layout, 1, title, _legend_of_kinds(order), values, gradients)
    colors = {node: _kind_color(node) for node in order}
    _draw(sheet.panel(0, ""), whole, layout, colors, notes)
    return sheet.figure


def forward_steps(plan: Plan, *, title: str = "Feed-forward") -> Figure:
    """Draw the forward pass: one picture for each step, with the computed nodes coloured.

    Parameters
    ----------
    plan : Plan
        Compiled with ``inspect=True``, after a run of `Plan.loss_and_gradients`;
        ``node_computing_sort(...).plan`` is such a plan.
    title : str

    Returns
    -------
    Figure
        A grid of as many pictures as nodes, and one before the first; each adds one node, with its
        value below it.

    Raises
    ------
    GraphError
        If the plan does not keep its values, or has not run.
    ArgumentError
        If there are too many steps for one picture.

    Examples
    --------
    >>> import pyframe as pf
    >>> plan = pf.compile(pf.Sum(pf.Parameter([3.0], name="w")), inspect=True)
    >>> _ = plan.loss_and_gradients({})
    >>> len(forward_steps(plan).axes)
    3
    """
    order = _shown(plan.graph)
    legend = {"not yet": WAITING, "computed": FORWARD}
    return _steps(plan, order, legend, title, gradients=False)


def backward_steps(plan: Plan, *, title: str = "Back-propagation") -> Figure:
    """Draw the back-propagation: the order reversed, values and gradients beside the nodes.

    Parameters
    ----------
    plan : Plan
        As for `forward_steps`.
    title : str

    Returns
    -------
    Figure
        A grid as that of `forward_steps`; each picture adds one node, with the gradient of the
        loss by it below its value.

    Raises
    ------
    GraphError, ArgumentError
        As for `forward_steps`.

    Examples
    --------
    >>> import pyframe as pf
    >>> plan = pf.compile(pf.Sum(pf.Parameter([3.0], name="w")), inspect=True)
    >>> _ = plan.loss_and_gradients({})
    >>> len(backward_steps(plan).axes)
    3
    """
    order = _shown(plan.graph)[::-1]
    legend = {"value computed": FORWARD, "gradient computed": BACKWARD}
    return _steps(plan, order, legend, title, gradients=True)


def _steps(
    plan: Plan, order: list[Node], legend: dict[str, str], title: str, gradients: bool
) -> Figure:
    if not plan.inspect:
        raise GraphError(
            "the steps show every value: compile with inspect=True, and run the plan first"
        )
    count = len(order) + 1
    if count > MOST_STEPS:
        raise ArgumentError(
            f"{len(order)} nodes make too many pictures; at most {MOST_STEPS - 1} can be read"
        )
    before, after = legend.values()
    whole = {node: _note(plan, node, True, gradients) for node in order}
    # In the backward pass a node shows its value until its gradient is computed.
    early = {node: _note(plan, node, True, False) if gradients else "" for node in order}
    layout = _layout(plan.graph, order[::-1] if gradients else order, whole)
    legend = {**legend, "this step": LATEST}
    sheet = Sheet(layout, count, title, legend, True, gradients)
    for step in range(count):
        visited = order[:step]
        latest = visited[-1] if visited else None
        colors = {node: after if node in visited else before for node in order}
        notes = {node: whole[node] if node in visited else early[node] for node in order}
        name = plan.graph.names[latest] if latest is not None else "start"
        axes = sheet.panel(step, f"step {step}: {name}")
        _draw(axes, plan.graph, layout, colors, notes, latest)
    return sheet.figure


# ---- what stands where ----


class _Named(Node):
    """A node of which nothing is known but its name."""

    def infer(self, *specs: Spec | None) -> Spec:
        return Spec(None, FLOAT32)


def _as_graph(graph: Any) -> Graph:
    if isinstance(graph, Plan | Model | Trainer):
        return graph.model.graph if isinstance(graph, Trainer) else graph.graph
    if isinstance(graph, Graph):
        return graph
    if isinstance(graph, Mapping):
        return Graph(_ends_of(graph))
    ends = [graph] if isinstance(graph, Value) else graph
    if not isinstance(ends, Sequence) or not all(isinstance(end, Value) for end in ends):
        raise ArgumentError(
            f"{graph!r:.80} is no graph; pass a model, a plan, the node at the end of a graph, or "
            "a dictionary of names, such as {'x': ['linear'], 'linear': ['loss']}"
        )
    return Graph(ends)


def _ends_of(graph: Mapping[Any, Any]) -> list[Value]:
    """Return the nodes of a dictionary graph, which says of each what it leads to."""
    order = toplogic(graph)
    made: dict[Any, Value] = {name: name for name in order if isinstance(name, Value)}
    for name in order:
        if name not in made:
            before = [made[other] for other in graph if name in graph[other]]
            node = _Named(*before, name=str(name)) if before else Placeholder(str(name))
            made[name] = node
    return list(made.values())


def _shown(graph: Graph) -> list[Node]:
    """Return the nodes that are drawn, in the order of computing."""
    order = [n for n in graph.order if not isinstance(n, Constant)]
    if not order:
        raise ArgumentError(
            "there is nothing to draw: the graph has no nodes; pass a model, a plan, the node at "
            "its end, or a dictionary such as {'x': ['linear'], 'linear': ['loss']}"
        )
    if len(order) > MOST_NODES:
        raise ArgumentError(
            f"a picture of {len(order)} nodes cannot be read; draw a part of at most {MOST_NODES}"
        )
    return order


def _layout(graph: Graph, order: Sequence[Node], notes: Notes) -> Layout:
    shown = set(order)
    before = {node: [p for p in input_nodes(node) if p in shown] for node in order}
    boxes = {node: _box(graph.names[node], notes.get(node, "")) for node in order}
    return layered(order, before, boxes)


def _box(name: str, note: str) -> Box:
    """Return the room for a name in its box and for the note below it."""
    half = NAME_SIZE * (0.5 + PAD) / 72
    lines = note.split("\n") if note else []
    below = NOTE_GAP + len(lines) * 1.25 * NOTE_SIZE / 72 if lines else 0.0
    width = max([_name_width(name), *(text_width(line, NOTE_SIZE) for line in lines)])
    return Box(width, half, half + below)


def _name_width(name: str) -> float:
    return text_width(name, NAME_SIZE) + 2 * PAD * NAME_SIZE / 72


def text_width(text: str, size: float) -> float:
    """Return the width of a line of text in inches."""
    textpath = require_extra("matplotlib.textpath", "plot")
    font = require_extra("matplotlib.font_manager", "plot").FontProperties(size=size)
    width, _, _ = textpath.text_to_path.get_text_width_height_descent(text, font, False)
    return float(width) / 72


# ---- what is written below a node ----


def _note(plan: Plan, node: Node, value: bool, gradient: bool) -> str:
    lines = []
    if value:
        lines.append(_short(node.value if isinstance(node, Placeholder) else plan.value(node)))
    if gradient:
        try:
            lines.append(f"grad {_short(plan.gradient(node), with_shape=not value)}")
        except GraphError:
            lines.append("no gradient")
    return "\n".join(lines)


def _short(array: Any, *, with_shape: bool = True) -> str:
    """Return a number, or the shape and mean of an array."""
    array = np.asarray(array)
    if array.size == 1:
        return f"{array.reshape(()).item():.4g}"
    shape = f"[{' x '.join(map(str, array.shape))}] " if with_shape else ""
    return f"{shape}mean {array.mean():.3g}" if array.size else f"{shape}empty"


# ---- drawing ----


def _kind_color(node: Node) -> str:
    if isinstance(node, Placeholder):
        return INPUT
    return PARAMETER if isinstance(node, Parameter) else COMPUTED


def _legend_of_kinds(order: Iterable[Node]) -> dict[str, str]:
    every = {"input": INPUT, "parameter": PARAMETER, "computed": COMPUTED}
    used = {_kind_color(node) for node in order}
    return {name: color for name, color in every.items() if color in used}


class Sheet:
    """A figure with a grid of equal panels, in which one unit is one inch."""

    def __init__(
        self,
        layout: Layout,
        count: int,
        title: str,
        legend: Mapping[str, str],
        values: bool,
        gradients: bool,
    ) -> None:
        self.layout = layout
        self.panel_width = layout.right - layout.left + 2 * MARGIN
        self.panel_height = layout.top - layout.bottom + 2 * MARGIN
        ratio = self.panel_height / self.panel_width
        self.columns = min(count, max(1, round((3.0 * count * ratio) ** 0.5)))
        self.rows = -(-count // self.columns)
        self.captions = TITLE if count > 1 else 0.0
        self.width = max(self.columns * self.panel_width, 4.0)
        self.height = self.rows * (self.panel_height + self.captions) + TITLE + LEGEND
        self.figure: Figure = require_extra("matplotlib.figure", "plot").Figure(
            figsize=(self.width, self.height), dpi=110
        )
        self.figure.text(
            0.5, 1 - 0.6 * TITLE / self.height, title, ha="center", va="center", fontsize=14
        )
        self._legend(legend, values, gradients)

    def _legend(self, legend: Mapping[str, str], values: bool, gradients: bool) -> None:
        patch = require_extra("matplotlib.patches", "plot").Patch
        handles = [
            patch(facecolor="white", edgecolor=color, linewidth=2, label=name)
            if color == LATEST
            else patch(facecolor=color, edgecolor=OUTLINE, label=name)
            for name, color in legend.items()
        ]
        self.figure.legend(
            handles=handles,
            loc="lower center",
            bbox_to_anchor=(0.5, 0.2 / self.height),
            ncols=len(handles),
            frameon=False,
            fontsize=9,
        )
        wanted = [
            text for text, yes in (("value", values), ("loss's gradient by it", gradients)) if yes
        ]
        if wanted:
            text = f"below each node: its {' and the '.join(wanted)}; of an array, [shape] and mean"
            y = 0.13 / self.height
            self.figure.text(0.5, y, text, ha="center", va="center", fontsize=8, color="#555555")

    def panel(self, index: int, caption: str) -> Axes:
        """Return the axes of one panel, with a caption above."""
        row, column = divmod(index, self.columns)
        left = (self.width - self.columns * self.panel_width) / 2 + column * self.panel_width
        height = self.panel_height + self.captions
        bottom = LEGEND + (self.rows - 1 - row) * height
        rectangle = (
            left / self.width,
            bottom / self.height,
            self.panel_width / self.width,
            self.panel_height / self.height,
        )
        axes = self.figure.add_axes(rectangle)
        layout = self.layout
        axes.set_xlim(layout.left - MARGIN, layout.right + MARGIN)
        axes.set_ylim(layout.bottom - MARGIN, layout.top + MARGIN)
        axes.set_axis_off()
        if caption:
            axes.set_title(caption, fontsize=11, pad=2)
        return axes


def _draw(
    axes: Axes,
    graph: Graph,
    layout: Layout,
    colors: Mapping[Node, str],
    notes: Notes,
    latest: Node | None = None,
) -> None:
    """Draw names in boxes, lines between them, and a note below each."""
    networkx = require_extra("networkx", "plot")
    drawn = networkx.DiGraph()
    drawn.add_nodes_from(layout.places)
    drawn.add_edges_from(layout.routes)
    for edge in drawn.edges:
        axes.add_patch(_arrow(graph, layout, *edge))
    styles: dict[tuple[str, bool], list[Node]] = {}
    for node in drawn.nodes:
        styles.setdefault((colors[node], node is latest), []).append(node)
    for (color, marked), nodes in styles.items():
        networkx.draw_networkx_labels(
            drawn,
            layout.places,
            {node: plain(graph.names[node]) for node in nodes},
            ax=axes,
            font_size=NAME_SIZE,
            clip_on=False,
            bbox={
                "boxstyle": f"round,pad={PAD}",
                "facecolor": color,
                "edgecolor": LATEST if marked else OUTLINE,
                "linewidth": 2.0 if marked else 1.0,
            },
        )
    down = NAME_SIZE * (0.5 + PAD) / 72 + NOTE_GAP
    written = {node: note for node, note in notes.items() if note}
    networkx.draw_networkx_labels(
        drawn,
        {node: (x, y - down) for node, (x, y) in layout.places.items()},
        written,
        ax=axes,
        font_size=NOTE_SIZE,
        font_color="#333333",
        verticalalignment="top",
        clip_on=False,
    )


def plain(text: str) -> str:
    return text.replace("$", r"\$")  # or matplotlib would set it as a formula


def _arrow(graph: Graph, layout: Layout, source: Node, target: Node) -> Any:
    """Return the arrow of an edge, from box to box."""
    (x0, y0), (x1, y1) = layout.places[source], layout.places[target]
    start = (x0 + _name_width(graph.names[source]) / 2, y0)
    end = (x1 - _name_width(graph.names[target]) / 2, y1)
    return arrow([start, *layout.routes[source, target], end])


def arrow(points: Sequence[Point], *, turned: bool = False) -> Any:
    """Return an arrow: level at boxes and within columns, bent between columns.

    Parameters
    ----------
    points : list of (x, y)
        From a box, along a route of `Layout`, to a box.
    turned : bool
        Whether x and y change places, and y points down: columns are rows then.
    """
    patches = require_extra("matplotlib.patches", "plot")
    path = require_extra("matplotlib.path", "plot").Path
    way, codes = [points[0], points[1]], [path.MOVETO, path.LINETO]
    for i, ((x0, y0), (x, y)) in enumerate(pairwise(points[1:-1])):
        if i % 2:
            way, codes = [*way, (x, y)], [*codes, path.LINETO]
            continue
        middle = (x0 + x) / 2
        way += [(middle, y0), (middle, y), (x, y)]
        codes += [path.CURVE4] * 3
    way = [*way, points[-1]]
    return patches.FancyArrowPatch(
        path=path([(y, -x) for x, y in way] if turned else way, [*codes, path.LINETO]),
        arrowstyle="-|>",
        mutation_scale=9,
        color=LINE,
        linewidth=1.2,
        shrinkA=0,
        shrinkB=0,
        zorder=0.5,
    )
