"""The roofline: what each instruction reaches, under what the machine allows."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from pyframe.engine.profiler import Profile, Record
from pyframe.errors import ArgumentError
from pyframe.plotting.charts import LINES, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMED = 6  # instructions that are named in the legend: those that take most of the time
REST = "#9aa7b5"


def roofline(profile: Profile, *, title: str = "") -> Figure:
    """Draw the speed of each instruction over its operations for each byte, both logarithmic.

    Slopes are the measured bandwidths of caches and memory, the level line the peak of
    multiply-adds: no point can lie above them, and if one does, the title says that the ruler is
    off. The area of a point is its share of the time.

    Parameters
    ----------
    profile : Profile
        From `Plan.profile`.
    title : str

    Returns
    -------
    Figure

    Raises
    ------
    ArgumentError
        If no instruction of the profile does arithmetic.

    References
    ----------
    Williams, Waterman, Patterson, "Roofline: an insightful visual performance model for multicore
    architectures", CACM 52(4), 2009.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None, 8))
    >>> figure = roofline(pf.compile(pf.Softmax(x)).profile({x: np.ones((4, 8))}, repeats=2))
    >>> figure.axes[0].get_xscale()
    'log'
    """
    records = [r for r in profile.sorted() if r.flops and r.bytes and r.seconds]
    if not records:
        raise ArgumentError("no instruction of this profile does arithmetic; nothing can be drawn")
    figure = new_figure(8.4, 5.2)
    axes = figure.add_subplot()
    low = min(0.05, *(r.intensity / 2 for r in records))
    high = max(64.0, *(r.intensity * 2 for r in records))
    _draw_roofs(axes, profile, low, high)
    for i, record in enumerate(records):
        named = i < NAMED
        axes.scatter(
            record.intensity,
            record.flops / record.seconds / 1e9,
            s=24 + 900 * record.seconds / profile.seconds,
            color=LINES[i % len(LINES)] if named else REST,
            alpha=0.75,
            linewidths=0.8,
            edgecolors="white",
            zorder=3,
            label=_caption(record, profile) if named else None,
        )
    axes.set(xscale="log", yscale="log", xlim=(low, high))
    axes.set_xlabel("operations for each byte moved")
    axes.set_ylabel("GFLOP/s")
    shown = title or "what each instruction reaches, of what the machine can do"
    axes.set_title("\n".join([shown, *(textwrap.fill(d, 90) for d in profile.doubts)]))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, which="major", color="#e5e8eb", linewidth=0.7, zorder=0)
    points = [p for p in axes.collections if not str(p.get_label()).startswith("_")]
    legend = axes.legend(
        handles=points, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=8
    )
    for handle in legend.legend_handles:
        handle.set_sizes([40])  # type: ignore[union-attr]
    return figure


def _caption(record: Record, profile: Profile) -> str:
    share = 100 * record.seconds / profile.seconds
    limit = "" if record.bound == "-" else f", {100 * record.share:.0f} % of {record.bound} peak"
    return f"{record.label}\n  {record.shapes}\n  {share:.0f} % of the time{limit}"


def _draw_roofs(axes: Axes, profile: Profile, low: float, high: float) -> None:
    peak = profile.threads * profile.peaks.flops["float32"] / 1e9
    x = np.geomspace(low, high, 200)
    styles = zip(profile.peaks.bandwidth.items(), ("-", "--", "-.", ":"), strict=False)
    lines = []
    for (level, rate), style in styles:
        slope = profile.threads * rate / 1e9
        lines += axes.plot(
            x,
            np.minimum(slope * x, peak),
            color="#5d6d7e",
            linewidth=1.2,
            linestyle=style,
            label=f"{level}: {slope:.0f} GB/s",
        )
    axes.add_artist(axes.legend(handles=lines, loc="lower right", frameon=False, fontsize=8))
    axes.annotate(
        f"{peak:.0f} GFLOP/s",
        (high, peak),
        xytext=(-2, 3),
        textcoords="offset points",
        fontsize=7.5,
        color="#5d6d7e",
        ha="right",
        va="bottom",
    )
