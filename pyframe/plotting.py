"""Pictures: data with fitted curves, loss curves, graphs and how they are computed, images.

Every function returns a ``matplotlib.figure.Figure``, to be kept with ``figure.savefig(path)``.
Needs the extra ``plot`` (matplotlib and networkx); no window is ever opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pyframe.errors import ArgumentError, GraphError, PyframeError, require_extra
from pyframe.graph import Graph, input_nodes
from pyframe.node import Array, Constant, Node, Parameter, Placeholder, Value
from pyframe.plan import Plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WAITING, FORWARD, BACKWARD = "#e8e8e8", "#a8dba8", "#a9c8ee"
DATA = "#9aa7b5"
LINES = ("#c0392b", "#2471a3", "#1e8449", "#b9770e", "#7d3c98", "#148f77", "#5d6d7e")

Layout = dict[Node, tuple[float, float]]


def _figure(width: float, height: float) -> Figure:
    figure = require_extra("matplotlib.figure", "plot").Figure(
        figsize=(width, height), dpi=110, layout="constrained"
    )
    result: Figure = figure
    return result


def _finish(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)


# ---- data and curves ----


def scatter_with_line(
    x: Any,
    y: Any,
    lines: Mapping[str, Callable[[Array], Any]] | None = None,
    *,
    title: str = "",
    x_label: str = "x",
    y_label: str = "y",
) -> Figure:
    """Draw points, and functions over them.

    Parameters
    ----------
    x, y : array_like, (n,)
    lines : dict of str to callable, optional
        A legend text for each function of an array of x.

    Returns
    -------
    Figure

    Examples
    --------
    >>> figure = scatter_with_line([1, 2, 3], [2, 4, 5], {"2 x": lambda x: 2 * x})
    >>> len(figure.axes[0].lines)
    1
    """
    figure = _figure(7, 4.6)
    axes = figure.add_subplot()
    x = np.ravel(np.asarray(x, float))
    axes.scatter(x, np.ravel(y), s=14, color=DATA, alpha=0.7, linewidths=0, label="data")
    grid = np.linspace(x.min(), x.max(), 400)
    for (text, function), color in zip((lines or {}).items(), LINES * 9, strict=False):
        axes.plot(grid, np.ravel(function(grid)), color=color, linewidth=2, label=text)
    _finish(axes, title, x_label, y_label)
    if lines:
        axes.legend(frameon=False)
    return figure


def curves(
    x: Any, ys: Sequence[Any], *, title: str = "", x_label: str = "x", y_label: str = "y"
) -> Figure:
    """Draw several functions of one x, without a legend.

    Parameters
    ----------
    x : array_like, (n,)
    ys : list of array_like, (n,)
    """
    figure = _figure(7, 4.2)
    axes = figure.add_subplot()
    for y, color in zip(ys, LINES * (1 + len(ys) // len(LINES)), strict=False):
        axes.plot(np.ravel(x), np.ravel(y), color=color, linewidth=1.4, alpha=0.85)
    _finish(axes, title, x_label, y_label)
    return figure


def loss_curve(
    history: Any,
    names: Sequence[str] | None = None,
    *,
    title: str = "Loss",
    x_label: str = "epoch",
    y_label: str = "loss",
    log: bool | None = None,
) -> Figure:
    """Draw how losses or metrics went.

    Parameters
    ----------
    history : History, dict of str to list, or list of float
    names : list of str, optional
        Which entries of a history; default: those whose names end in "loss".
    log : bool, optional
        A logarithmic axis; default: when the values span more than a factor of 30.
    """
    table: Mapping[str, Any] = history if isinstance(history, Mapping) else {"loss": history}
    chosen = list(names) if names else [n for n in table if n.endswith("loss")] or list(table)
    for name in chosen:
        if name not in table:
            raise ArgumentError(f"there is no {name!r} in the history; it has {', '.join(table)}")
    figure = _figure(7, 4.2)
    axes = figure.add_subplot()
    everything = np.concatenate([np.ravel(np.asarray(table[n], float)) for n in chosen])
    positive = everything[np.isfinite(everything)]
    for name, color in zip(chosen, LINES * 9, strict=False):
        values = np.ravel(np.asarray(table[name], float))
        axes.plot(np.arange(1, len(values) + 1), values, color=color, linewidth=1.8, label=name)
    if log is None:
        log = bool(positive.size and positive.min() > 0 and positive.max() > 30 * positive.min())
    if log:
        axes.set_yscale("log")
    _finish(axes, title, x_label, y_label)
    if len(chosen) > 1:
        axes.legend(frameon=False)
    return figure


def gradient_norms(norms: Mapping[str, Sequence[float]], *, title: str = "") -> Figure:
    """Draw the norm of the gradient by depth, one line for each network, on a logarithmic axis.

    Parameters
    ----------
    norms : dict of str to list of float
        From the first layer to the last.
    """
    figure = _figure(7, 4.4)
    axes = figure.add_subplot()
    for (text, values), color in zip(norms.items(), LINES * 9, strict=False):
        depth = np.arange(1, len(values) + 1)
        axes.plot(depth, values, marker="o", markersize=4, color=color, label=text)
    axes.set_yscale("log")
    _finish(axes, title, "layer (1 is next to the input)", "norm of the weight's gradient")
    axes.legend(frameon=False)
    return figure


# ---- classification ----


def confusion_matrix(matrix: Any, names: Sequence[str] | None = None) -> Figure:
    """Draw how often each class was taken for each.

    Parameters
    ----------
    matrix : array_like of int, (classes, classes)
        Row: the true class; column: the predicted one.
    names : list of str, optional
    """
    counts = np.asarray(matrix)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ArgumentError(f"a confusion matrix is square, and got shape {counts.shape}")
    classes = len(counts)
    labels = list(names) if names is not None else [str(i) for i in range(classes)]
    size = 2.2 + 0.46 * classes
    figure = _figure(size, size)
    axes = figure.add_subplot()
    # Colours by the square root, so that single mistakes can be seen beside hundreds of hits.
    axes.imshow(np.sqrt(counts), cmap="Blues")
    for i in range(classes):
        for j in range(classes):
            dark = counts[i, j] > counts.max() * 0.35
            axes.text(
                j,
                i,
                f"{counts[i, j]:.0f}",
                ha="center",
                va="center",
                fontsize=9,
                color="white" if dark else "#333333" if counts[i, j] else "#c8c8c8",
            )
    axes.set_xticks(range(classes), labels)
    axes.set_yticks(range(classes), labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    total = counts.sum()
    right = np.trace(counts)
    axes.set_title(f"{right:.0f} of {total:.0f} right ({100 * right / max(total, 1):.1f} %)")
    return figure


def image_grid(
    images: Any, titles: Sequence[str] = (), *, columns: int = 6, title: str = ""
) -> Figure:
    """Draw grey images side by side.

    Parameters
    ----------
    images : array_like, (n, height, width)
    titles : list of str, optional
        One above each.
    """
    pictures = np.asarray(images)
    rows = max(-(-len(pictures) // columns), 1)
    figure = _figure(1.25 * columns, 1.5 * rows + 0.5)
    for i, picture in enumerate(pictures):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.imshow(picture, cmap="gray_r", interpolation="nearest")
        axes.set_axis_off()
        if i < len(titles):
            axes.set_title(titles[i], fontsize=9)
    if not len(pictures):
        figure.add_subplot().set_axis_off()
    figure.suptitle(title if len(pictures) else f"{title}: none")
    return figure


# ---- graphs ----


def graph_layout(graph: Graph) -> Layout:
    """Return a place for every node: from left to right, in layers.

    A node stands right of everything it reads; a leaf stands just left of its first reader. Within
    a layer nodes are ordered by where their neighbours stand, to keep the lines apart.

    Returns
    -------
    dict of Node to (x, y)
        Layers are 1 apart, and so are the nodes of one layer.

    References
    ----------
    Sugiyama, Tagawa, Toda, "Methods for visual understanding of hierarchical system structures",
    IEEE Trans. SMC 11(2), 1981.
    """
    order = [n for n in graph.order if not isinstance(n, Constant)]
    readers = graph.consumers()
    depth: dict[Node, int] = {}
    for node in order:
        before = [depth[p] for p in input_nodes(node) if p in depth]
        depth[node] = max(before, default=-1) + 1
    for node in order:
        if not input_nodes(node) and readers[node]:
            depth[node] = min(depth[r] for r in readers[node]) - 1
    layers: dict[int, list[Node]] = {}
    for node in order:
        layers.setdefault(depth[node], []).append(node)
    y: dict[Node, float] = {}
    for layer in layers.values():
        _spread(layer, y)
    for sweep in range(8):
        neighbours = input_nodes if sweep % 2 == 0 else readers.__getitem__
        for number in sorted(layers, reverse=bool(sweep % 2)):
            layer = layers[number]
            wish = {}
            for node in layer:
                around = [y[n] for n in neighbours(node) if n in y]
                wish[node] = sum(around) / len(around) if around else y[node]
            layer.sort(key=wish.__getitem__)
            _spread(layer, y)
    return {node: (float(depth[node]), y[node]) for node in order}


def _spread(layer: list[Node], y: dict[Node, float]) -> None:
    """Put the computing nodes of a layer around 0 and its leaves outside of them, in their order.

    So the way of the data runs along the middle, and what feeds it comes from above and below.
    """
    leaves = [n for n in layer if not input_nodes(n)]
    computing = [n for n in layer if input_nodes(n)]
    if not computing:
        computing, leaves = leaves, []
    half = (len(leaves) + 1) // 2
    placed = [*leaves[:half], *computing, *leaves[half:]] if leaves else computing
    middle = (len(computing) - 1) / 2 + (half if leaves else 0)
    for i, node in enumerate(placed):
        y[node] = i - middle


def draw_graph(
    graph: Plan | Graph | Value | Sequence[Value],
    *,
    values: bool = False,
    gradients: bool = False,
    title: str = "",
) -> Figure:
    """Draw a computing graph from left to right, with the names of its nodes.

    Parameters
    ----------
    graph : Plan, Graph, or the node(s) at its end
    values, gradients : bool
        Write them beside the nodes; takes a plan compiled with ``inspect=True`` that has run.
    """
    plan = graph if isinstance(graph, Plan) else None
    if plan is None and (values or gradients):
        raise ArgumentError("values and gradients are in a plan; pass one instead of the graph")
    whole = _as_graph(graph)
    layout = graph_layout(whole)
    notes = {}
    for node in layout:
        lines = [_value_text(plan, node)] if values and plan else []
        lines += [_gradient_text(plan, node)] if gradients and plan else []
        notes[node] = "\n".join(line for line in lines if line)
    width, height = _extent(layout)
    figure = _figure(1.2 + 1.5 * width, 1.4 + 1.0 * height)
    colors = {node: _kind_color(node) for node in layout}
    _draw(figure.add_subplot(), whole, layout, colors, notes)
    figure.suptitle(title)
    return figure


def forward_steps(plan: Plan) -> Figure:
    """Draw the feed-forward: one picture a step, what is computed so far coloured.

    Parameters
    ----------
    plan : Plan, compiled with ``inspect=True``, that has computed its loss

    Returns
    -------
    Figure
        A grid; each picture adds one node, with its value beside it.
    """
    order = [n for n in plan.graph.order if not isinstance(n, Constant)]
    return _steps(plan, order, FORWARD, _value_text, "Feed-forward")


def backward_steps(plan: Plan) -> Figure:
    """Draw the back-propagation: the order reversed, values and gradients beside the nodes.

    Parameters
    ----------
    plan : Plan, compiled with ``inspect=True``, that has computed its gradients
    """
    order = [n for n in plan.graph.order if not isinstance(n, Constant)][::-1]

    def text(of: Plan, node: Node) -> str:
        return f"{_value_text(of, node)}\n{_gradient_text(of, node)}"

    return _steps(plan, order, BACKWARD, text, "Back-propagation")


def _steps(
    plan: Plan, order: list[Node], color: str, text: Callable[[Plan, Node], str], title: str
) -> Figure:
    if not plan.inspect:
        raise GraphError(
            "the steps show every value: compile with inspect=True, and run the plan first"
        )
    layout = graph_layout(plan.graph)
    count = len(order) + 1
    columns = max(2, round(np.sqrt(count / 1.4)))
    rows = -(-count // columns)
    width, height = _extent(layout)
    figure = _figure(columns * (0.6 + 1.35 * width), rows * (0.9 + 0.95 * height) + 0.5)
    before = FORWARD if color == BACKWARD else WAITING
    for step in range(count):
        visited = order[:step]
        colors = {n: color if n in visited else before for n in layout}
        notes = {n: text(plan, n) if n in visited else "" for n in layout}
        axes = figure.add_subplot(rows, columns, step + 1)
        _draw(axes, plan.graph, layout, colors, notes, latest=visited[-1] if visited else None)
        name = plan.graph.names[visited[-1]] if visited else "start"
        axes.set_title(f"step {step}: {name}", fontsize=11)
    figure.suptitle(title, fontsize=15)
    return figure


def _as_graph(graph: Any) -> Graph:
    if isinstance(graph, Plan):
        return graph.graph
    if isinstance(graph, Graph):
        return graph
    return Graph([graph] if isinstance(graph, Value) else list(graph))


def _extent(layout: Layout) -> tuple[float, float]:
    xs, ys = zip(*layout.values(), strict=True)
    return max(xs) - min(xs) + 1, max(ys) - min(ys) + 1


def _kind_color(node: Node) -> str:
    if isinstance(node, Placeholder):
        return "#fde3b4"
    if isinstance(node, Parameter):
        return "#d5f0d5"
    return "#dbe7f7"


def _draw(
    axes: Axes,
    graph: Graph,
    layout: Layout,
    colors: Mapping[Node, str],
    notes: Mapping[Node, str],
    latest: Node | None = None,
) -> None:
    """Draw boxes with names, arrows between them, and a note below each."""
    # An arrow leaves a box in the middle of its right side and ends at that of a left side: the
    # places of the "ports" that networkx draws between.
    networkx = require_extra("networkx", "plot")
    half = {n: 0.024 * len(graph.names[n]) + 0.05 for n in layout}
    ports = {(n, "in"): (x - half[n], y) for n, (x, y) in layout.items()}
    ports |= {(n, "out"): (x + half[n], y) for n, (x, y) in layout.items()}
    arrows = networkx.DiGraph()
    arrows.add_nodes_from(ports)
    arrows.add_edges_from(
        ((p, "out"), (n, "in")) for n in layout for p in input_nodes(n) if p in layout
    )
    networkx.draw_networkx_edges(
        arrows, ports, ax=axes, node_size=1, arrowsize=11, edge_color="#95a5a6", width=1.2
    )
    for node, (x, y) in layout.items():
        axes.text(
            x,
            y,
            graph.names[node],
            ha="center",
            va="center",
            fontsize=10,
            zorder=3,
            bbox={
                "boxstyle": "round,pad=0.35",
                "facecolor": colors[node],
                "edgecolor": "#c0392b" if node is latest else "#7f8c8d",
                "linewidth": 2.0 if node is latest else 1.0,
            },
        )
        if notes.get(node):
            axes.text(
                x,
                y - 0.22,
                notes[node],
                ha="center",
                va="top",
                fontsize=7.5,
                color="#333333",
                zorder=2.5,
                bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"},
            )
    xs, ys = zip(*layout.values(), strict=True)
    axes.set_xlim(min(xs) - 0.6, max(xs) + 0.6)
    axes.set_ylim(min(ys) - 0.75, max(ys) + 0.5)
    axes.set_axis_off()


def _short(array: Any) -> str:
    """Return a number, or the mean of an array."""
    array = np.asarray(array)
    if array.size == 1:
        return f"{array.reshape(()).item():.4g}"
    return f"mean {array.mean():.3g}"


def _value_text(plan: Plan, node: Node) -> str:
    try:
        value = np.asarray(node.value if isinstance(node, Placeholder) else plan.value(node))
    except PyframeError:
        return ""
    shape = "x".join(map(str, value.shape))
    return f"[{shape}]\n{_short(value)}" if value.size > 1 else _short(value)


def _gradient_text(plan: Plan, node: Node) -> str:
    try:
        return f"grad {_short(plan.gradient(node))}"
    except PyframeError:
        return "no gradient"
