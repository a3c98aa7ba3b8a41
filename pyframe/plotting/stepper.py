"""A page on which one steps forward and backward through a graph, and along its training."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pyframe.checkpoint.writing import write_atomically
from pyframe.engine.plan import Plan
from pyframe.errors import ArgumentError, GraphError, check_integer
from pyframe.graph.node import Constant, Node, Placeholder
from pyframe.graph.order import input_nodes
from pyframe.graph.parameter import Parameter
from pyframe.graph.spec import Array
from pyframe.plotting.layout import Box, layered

MOST_NODES = 300  # more cannot be read
MOST_NUMBERS = 120_000  # of all arrays at all steps: the page stays below 1.5 MB
MOST_ROWS, MOST_COLUMNS = 32, 32  # of an array
DIGITS = 5
# Of a box, in inches: a letter of a monospaced font of 12 pixels, at 96 pixels an inch; below it
# are two lines of a note, as wide as "mean -1.2346e-10".
LETTER, PAD, HALF_HEIGHT, NOTE, NOTE_WIDTH = 7.3 / 96, 12 / 96, 15 / 96, 30 / 96, 112 / 96


class Page:
    """A page of HTML that needs nothing besides itself; see `stepper`.

    Attributes
    ----------
    text : str
        The page.

    Examples
    --------
    >>> Page("<title>Empty</title>").save("page.html").name
    'page.html'
    """

    def __init__(self, text: str) -> None:
        self.text = text

    def save(self, path: str | Path) -> Path:
        """Write the page into a file, whole or not at all, and return where it is."""
        write_atomically(path, self.text.encode("utf-8"))
        return Path(path)

    def _repr_html_(self) -> str:
        """Show it in a notebook, in a frame of its own."""
        source = html.escape(self.text)
        return f'<iframe srcdoc="{source}" style="width:100%;height:640px;border:0"></iframe>'


class Picture(NamedTuple):
    """What is shown of an array: its first numbers in rows, and what is to be known of all."""

    shape: list[int]
    rows: list[list[float | str]]
    low: float | str
    high: float | str
    mean: float | str


def stepper(
    plan: Plan, feed: Mapping[Any, Any], *, steps: int = 0, title: str = "Step by step"
) -> Page:
    """Return a page on which one steps through a graph, forward and then backward.

    It shows the graph; each step computes one node, first all values, then all gradients. Of the
    node that is chosen it shows the formula, the value and the gradient: numbers, or a heat map. A
    slider goes along `steps` steps of training. The page is one file, works without a network, by
    mouse, touch or keyboard (arrows, Home, End, Tab, Enter), in light and dark. Behind a ``#`` its
    address takes a place to begin with: ``page.html#step=3&training=10``.

    Parameters
    ----------
    plan : Plan
        Compiled with ``inspect=True`` and a loss; it is as it was when this returns.
    feed : dict of Placeholder to array_like
        As for `Plan.step`; each step trains on it.
    steps : int, default 0
        How many training steps there are to go along; the plan needs an optimizer for any.
    title : str

    Returns
    -------
    Page
        ``page.save(path)`` writes it; a notebook shows it. Of an array it has up to 32 rows, those
        of its last axis, with up to 32 numbers of 5 digits, fewer of many large ones.

    Raises
    ------
    GraphError
        If the plan has no loss or does not keep its values.
    ArgumentError
        If the graph has more than 300 nodes, or `steps` is negative.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> x, y = pf.Placeholder("x", shape=(None,)), pf.Placeholder("y", shape=(None,))
    >>> k = pf.Parameter(np.array(0.5), name="k")
    >>> plan = pf.compile(
    ...     pf.L2Loss(y, pf.Sigmoid(k * x)), optimizer=pf.optimizers.SGD(0.1), inspect=True
    ... )
    >>> page = pf.plotting.stepper(plan, {x: [1.0, 2.0], y: [0.0, 1.0]}, steps=20)
    >>> "<title>Step by step</title>" in page.text, len(page.text) < 100_000
    (True, True)
    """
    check_integer("steps", steps, at_least=0)
    if not plan.engine.inspect:
        raise GraphError("a page shows every value: compile the plan with inspect=True")
    order = [node for node in plan.graph.order if not isinstance(node, Constant)]
    if len(order) > MOST_NODES:
        raise ArgumentError(
            f"a page of {len(order)} nodes cannot be read; take a graph of at most {MOST_NODES}"
        )
    frames = [_frame(plan, order, steps, loss) for loss in _training(plan, feed, steps)]
    data = {"title": title, **_drawing(plan, order), "frames": frames}
    # In a script "<" could end it; as \u003c it is the same letter to JSON.
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    page = resources.files("pyframe.plotting").joinpath("stepper.html").read_text("utf-8")
    return Page(page.replace("{{title}}", html.escape(title)).replace("{{data}}", text))


def _training(plan: Plan, feed: Mapping[Any, Any], steps: int) -> Iterator[float]:
    """Yield the loss before each training step and after the last, with all values in the plan."""
    before = plan.snapshot()
    try:
        for step in range(steps + 1):
            if step:
                plan.step(feed)
            yield plan.loss_and_gradients(feed)[0]
    finally:
        plan.restore(before)


# ---- what does not change ----


def _drawing(plan: Plan, order: Sequence[Node]) -> dict[str, Any]:
    """Return the nodes with their places in pixels, the lines between them, and the extent."""
    shown, names = set(order), plan.graph.names
    before = {node: [p for p in input_nodes(node) if p in shown] for node in order}
    width = {node: len(names[node]) * LETTER + 2 * PAD for node in order}
    boxes = {
        node: Box(max(width[node], NOTE_WIDTH), HALF_HEIGHT, HALF_HEIGHT + NOTE) for node in order
    }
    layout = layered(order, before, boxes)
    numbers = {node: number for number, node in enumerate(order)}

    def pixels(x: float, y: float) -> list[int]:
        return [round((x - layout.left) * 96) + 10, round((layout.top - y) * 96) + 10]

    nodes = [
        {
            "name": names[node],
            "kind": _kind(node),
            "op": "" if isinstance(node, Parameter | Placeholder) else type(node).__name__,
            "formula": _formula(node),
            "inputs": [numbers[p] for p in before[node]],
            "at": pixels(*layout.places[node]),
            "width": round(width[node] * 96),
        }
        for node in order
    ]
    lines = []
    for (source, target), route in layout.routes.items():
        (x0, y0), (x1, y1) = layout.places[source], layout.places[target]
        ends = (x0 + width[source] / 2, y0), (x1 - width[target] / 2, y1)
        way = [pixels(*point) for point in (ends[0], *route, ends[1])]
        lines.append({"from": numbers[source], "to": numbers[target], "way": way})
    size = [round((layout.right - layout.left) * 96) + 20, round((layout.top - layout.bottom) * 96)]
    return {"nodes": nodes, "lines": lines, "size": [size[0], size[1] + 20]}


def _kind(node: Node) -> str:
    if isinstance(node, Placeholder):
        return "input"
    return "parameter" if isinstance(node, Parameter) else "computed"


def _formula(node: Node) -> str:
    """Return the first paragraph of what its class says of itself: of an op, its formula."""
    if isinstance(node, Placeholder):
        return "what is fed"
    if isinstance(node, Parameter):
        return "what is trained" if node.trainable else "a parameter that is not trained"
    paragraph = (type(node).__doc__ or "").strip().split("\n\n")[0]
    return " ".join(paragraph.split())


# ---- what changes from step to step ----


def _frame(plan: Plan, order: Sequence[Node], steps: int, loss: float) -> dict[str, Any]:
    """Return all values and gradients of the last run."""
    values = [node.value if isinstance(node, Placeholder) else plan.value(node) for node in order]
    gradients = [_gradient(plan, node) for node in order]
    arrays = [np.asarray(array) for array in (*values, *gradients) if array is not None]
    most = _most(arrays, MOST_NUMBERS // (steps + 1))
    return {
        "loss": _number(loss),
        "values": [_picture(array, most) for array in values],
        "gradients": [None if array is None else _picture(array, most) for array in gradients],
    }


def _gradient(plan: Plan, node: Node) -> Array | None:
    try:
        return plan.gradient(node)
    except GraphError:  # the loss does not depend on it
        return None


def _most(arrays: Sequence[Array], room: int) -> int:
    """Return how many numbers of each array there are, at most, so that all have room."""
    most = MOST_ROWS * MOST_COLUMNS
    while most > 1 and sum(min(array.size, most) for array in arrays) > room:
        most //= 2
    return most


def _picture(given: Any, most: int) -> Picture:
    array = np.asarray(given, np.float64)
    shape = list(array.shape)
    if not array.size:
        return Picture(shape, [], 0.0, 0.0, 0.0)
    flat = array.reshape(-1, shape[-1] if shape else 1)
    columns = min(MOST_COLUMNS, most, flat.shape[1])
    rows = [[_number(x) for x in row] for row in flat[: min(MOST_ROWS, most // columns), :columns]]
    with np.errstate(all="ignore"):
        return Picture(shape, rows, *map(_number, (array.min(), array.max(), array.mean())))


def _number(x: Any) -> float | str:
    """Return a number of few digits; those that JSON does not know as words."""
    x = float(x)
    return float(f"{x:.{DIGITS}g}") if np.isfinite(x) else str(x)
