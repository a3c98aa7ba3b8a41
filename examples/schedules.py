"""What each schedule does to the learning rate, as a picture of small ones.

    pip install "pyframe-nn[plot]"
    python examples/schedules.py

The picture is written to ./schedules/schedules.png and .svg; the latter is that of
docs/schedules.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from pyframe.schedules import (
    Constant,
    Cosine,
    CosineRestarts,
    Cyclic,
    Exponential,
    MultiStep,
    OneCycle,
    Polynomial,
    Schedule,
    Step,
    Warmup,
)

STEPS = 400
SHOWN: Mapping[str, Schedule] = {
    "Constant(0.1)": Constant(0.1),
    "Step(0.1, every=100, factor=0.5)": Step(0.1, every=100, factor=0.5),
    "MultiStep(0.1, [150, 300])": MultiStep(0.1, [150, 300]),
    "Exponential(0.1, decay=0.5, every=100)": Exponential(0.1, decay=0.5, every=100),
    "Polynomial(0.1, 300, power=2)": Polynomial(0.1, 300, power=2),
    "Cosine(0.1, 400, warmup_steps=50)": Cosine(0.1, 400, warmup_steps=50),
    "CosineRestarts(0.1, 50, growth=2)": CosineRestarts(0.1, 50, growth=2),
    "OneCycle(0.1, 400)": OneCycle(0.1, 400),
    "Cyclic(0.01, 0.1, half=50)": Cyclic(0.01, 0.1, half=50),
    "Warmup(Step(0.1, 100), 80)": Warmup(Step(0.1, 100), 80),
}


def draw() -> Figure:
    """Return one small picture for each."""
    columns = 2
    rows = -(-len(SHOWN) // columns)
    figure = Figure(figsize=(9, 1.75 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True)
    for axes, (title, schedule) in zip(grid.flat, SHOWN.items(), strict=False):
        axes.plot(schedule(np.arange(STEPS)), color="#1f6fb4", linewidth=1.8)
        axes.set_title(title, fontsize=9, family="monospace", loc="left")
        axes.set_ylim(0, 0.11)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("step")
    for axes in grid[:, 0]:
        axes.set_ylabel("rate")
    return figure


def main() -> None:
    """Draw, and say where."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, default=Path("schedules"), help="folder of the picture")
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    # The same bytes each time, and text that can be searched.
    with mpl.rc_context({"svg.hashsalt": "schedules", "svg.fonttype": "none"}):
        figure = draw()
        for kind, options in (("png", {"dpi": 120}), ("svg", {"metadata": {"Date": None}})):
            path = folder / f"schedules.{kind}"
            figure.savefig(path, facecolor="white", **options)
            print(path)


if __name__ == "__main__":
    main()
