"""Draw the pictures of the pages on sequences: `recurrent.svg`, `attention.svg`, `sequences.svg`.

    python tools/pictures.py            # into docs/
    python tools/pictures.py --out DIR

What they show is computed: the order of steps by a cell that counts, weights by the op `Attention`,
losses by the code of docs/sequences.md, which is run.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pyframe_seq as seq
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import pyframe as pf

DOCS = Path(__file__).resolve().parents[1] / "docs"
TIMES = "\N{MULTIPLICATION SIGN}"
BLUE, RED, GREY = "#1f6fb4", "#c8502d", "#777777"


# ---- recurrent.svg ----


def box(axes: Axes, x: float, y: float, text: str, colour: str = "white") -> None:
    """Write a text into a box."""
    frame = {"boxstyle": "round,pad=0.3", "facecolor": colour, "edgecolor": GREY}
    axes.text(x, y, text, ha="center", va="center", fontsize=9, bbox=frame)


def arrow(axes: Axes, *points: tuple[float, float]) -> None:
    """Draw a line through some points, with a head at its end."""
    for (x0, y0), (x1, y1) in pairwise(points[:-1]):
        axes.plot([x0, x1], [y0, y1], color=GREY, lw=1.2, zorder=0)
    style = {"arrowstyle": "-|>", "color": GREY, "lw": 1.2, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", points[-1], points[-2], arrowprops=style, zorder=0)


def lstm_step(axes: Axes) -> None:
    """One step of an LSTM: c goes straight on, and h is made of it."""
    axes.set(xlim=(0, 10), ylim=(0, 6), title="LSTM: a step")
    gates = {"f": 2.0, "i": 3.6, "g": 5.2, "o": 6.8}
    for name, x in gates.items():
        kind = "tanh" if name == "g" else "sigmoid"
        arrow(axes, (x, 1.0), (x, 1.85))
        box(axes, x, 2.25, f"{name}\n{kind}", "#e8f0f8")
    axes.plot([0.9, 6.8], [1.0, 1.0], color=GREY, lw=1.2, zorder=0)
    box(axes, 1.1, 0.3, "x$_t$ W + h U + b")
    arrow(axes, (0.9, 0.6), (0.9, 1.0))
    box(axes, 0.5, 5.0, "c")
    arrow(axes, (0.75, 5.0), (9.2, 5.0))
    box(axes, 9.5, 5.0, "c'")
    box(axes, 2.0, 5.0, TIMES)
    arrow(axes, (2.0, 2.7), (2.0, 4.7))
    box(axes, 4.4, 5.0, "+")
    box(axes, 4.4, 3.8, TIMES)
    arrow(axes, (3.6, 2.7), (3.6, 3.8), (4.15, 3.8))
    arrow(axes, (5.2, 2.7), (5.2, 3.8), (4.65, 3.8))
    arrow(axes, (4.4, 4.1), (4.4, 4.7))
    box(axes, 8.3, 3.8, "tanh", "#e8f0f8")
    arrow(axes, (8.3, 5.0), (8.3, 4.1))
    box(axes, 8.3, 2.25, TIMES)
    arrow(axes, (8.3, 3.5), (8.3, 2.55))
    arrow(axes, (7.45, 2.25), (8.05, 2.25))
    arrow(axes, (8.55, 2.25), (9.2, 2.25))
    box(axes, 9.5, 2.25, "h'")
    axes.axis("off")


class Counter(pf.layers.Layer):
    """A cell whose state is how many steps there have been."""

    state_widths = (1,)

    def call(self, *inputs: Any) -> Any:
        return inputs[1] + 1.0 + 0.0 * inputs[0]


def order_of_steps(axes: Axes, title: str, **options: Any) -> None:
    """In which order the steps of some sequences are computed, which have lengths or a mask."""
    steps = {key: options.pop(key) for key in ("lengths", "mask") if key in options}
    ((what, given),) = steps.items()
    n, t = len(given), 8
    x = pf.Placeholder("x", shape=(n, t, 1))
    node = pf.Placeholder(what, shape=given.shape, dtype="int64")
    layer = seq.Recurrent(Counter(), return_sequences=True, **options)
    plan = pf.compile(layer(x, **{what: node}))
    order = plan.run({x: np.zeros((n, t, 1)), node: given})[..., 0].astype(int)
    axes.pcolormesh(order[::-1] > 0, cmap="Blues", vmin=0, vmax=3, edgecolor="white", lw=1)
    for (i, j), number in np.ndenumerate(order[::-1]):
        if number:
            axes.text(j + 0.5, i + 0.5, str(number), ha="center", va="center", fontsize=8)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=9)


def recurrent() -> Figure:
    """A step of an LSTM, and which steps of a batch are computed, and in which order."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.1, 1))
    lstm_step(left.subplots())
    lengths = np.array([8, 3, 5])
    holes = np.array([[0, 0, 1, 1, 1, 1, 1, 1], [1, 1, 0, 1, 0, 0, 0, 0], [0, 1, 1, 0, 1, 1, 1, 0]])
    top, bottom = right.subplots(2, 2)
    order_of_steps(top[0], "lengths=[8, 3, 5]", lengths=lengths)
    order_of_steps(top[1], "the same, reverse=True", lengths=lengths, reverse=True)
    order_of_steps(bottom[0], "a mask", mask=holes)
    order_of_steps(bottom[1], "the same, reverse=True", mask=holes, reverse=True)
    right.supxlabel("step of x; numbers: the order of computing", fontsize=9)
    return figure


# ---- attention.svg ----


def weights(tokens: int = 10, **options: Any) -> np.ndarray:
    """Return P (tokens, tokens) of one head: y, if the values are the rows of a unit matrix."""
    random = np.random.default_rng(3)
    q, k = 0.7 * random.standard_normal((2, 1, tokens, 8))
    inputs = {key: options.pop(key) for key in ("lengths", "mask", "slopes") if key in options}
    kinds = {"lengths": "int64", "mask": "int64", "slopes": "float64"}
    nodes = {key: pf.Constant(array, dtype=kinds[key]) for key, array in inputs.items()}
    arrays = [pf.Constant(a, dtype="float64") for a in (q, k, np.eye(tokens)[None])]
    y = pf.compile(seq.Attention(*arrays, **nodes, heads=1, **options)).run({})
    return np.asarray(y[0])


def attention() -> Figure:
    """Which keys a query sees, and how much it takes of each."""
    panels: dict[str, dict[str, Any]] = {
        "all": {},
        "causal=True": {"causal": True},
        "window=3": {"window": 3},
        "causal=True, window=3": {"causal": True, "window": 3},
        "lengths=[6]": {"lengths": np.array([6])},
        "a mask with holes": {"mask": np.array([[0, 1, 1, 1, 0, 0, 1, 1, 1, 0]])},
        "alibi, slope 1/2": {"slopes": np.array([0.5])},
        "causal, mask hides the first": {"causal": True, "mask": np.array([[0] + [1] * 9])},
    }
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    for axes, (title, options) in zip(figure.subplots(2, 4).flat, panels.items(), strict=True):
        p = weights(**options)
        shown = np.ma.masked_where(p == 0, p)
        axes.set_facecolor("#eeeeee")
        image = axes.pcolormesh(
            shown, cmap="Blues", vmin=0, vmax=0.6, edgecolor="white", lw=0.4, rasterized=True
        )
        axes.invert_yaxis()
        axes.set(xticks=[], yticks=[], aspect="equal")
        axes.set_title(title, fontsize=9)
    figure.supxlabel("key j", fontsize=9)
    figure.supylabel("query i", fontsize=9)
    bar = figure.colorbar(image, ax=figure.axes, shrink=0.7)
    bar.set_label("P$_{ij}$; grey: not seen, 0", fontsize=9)
    return figure


# ---- sequences.svg ----


def run_page(path: Path) -> dict[str, Any]:
    """Run the code of a page, block after block, and return its names."""
    blocks = re.findall(
        r"^```python\n(.*?)^```$", path.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, path.name, "exec"), names)
    return names


def sequences() -> Figure:
    """What each network of the tutorial learns, and where its attention goes."""
    names = run_page(DOCS / "sequences.md")
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.4, 1))
    for name, losses in names["losses"].items():
        left.semilogy(range(1, len(losses) + 1), losses, label=name, lw=1.8)
    left.set(xlabel="epoch", ylabel="squared error", title="adding two marked numbers")
    left.legend(fontsize=8)
    left.grid(alpha=0.25)
    right.bar(
        range(len(names["looked_at"])), names["looked_at"], color=BLUE, label="P of the query"
    )
    marks = np.flatnonzero(names["example"][:, 1])
    right.plot(marks, [0] * len(marks), "^", color=RED, ms=9, clip_on=False, label="marked")
    right.set(xlabel="step", title="where one query looks, trained")
    right.legend(fontsize=8)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


PICTURES: dict[str, Callable[[], Figure]] = {
    "recurrent": recurrent,
    "attention": attention,
    "sequences": sequences,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(PICTURES), default=list(PICTURES))
    parser.add_argument("--out", type=Path, default=DOCS)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for name in given.only:
        # The same bytes each time, and text that can be searched.
        with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
            path = given.out / f"{name}.svg"
            PICTURES[name]().savefig(path, facecolor="white", metadata={"Date": None})
            print(path)


if __name__ == "__main__":
    main()
