"""Charts: data with fitted curves, losses, gradients, classification, images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pyframe.engine.loop import rates_of
from pyframe.errors import ArgumentError, check_integer, require_extra
from pyframe.graph.spec import Array
from pyframe.schedules import get as get_schedule
from pyframe.training.finding import RateRange

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DATA = "#9aa7b5"
LINES = ("#c0392b", "#2471a3", "#1e8449", "#b9770e", "#7d3c98", "#148f77", "#5d6d7e")


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, in inches, that no window will show."""
    figure = require_extra("matplotlib.figure", "plot").Figure(
        figsize=(width, height), dpi=110, layout="constrained"
    )
    result: Figure = figure
    return result


def finish(axes: Axes, title: str, x: str, y: str) -> None:
    """Write title and names of the axes, and leave out the upper and the right line."""
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
    title, x_label, y_label : str

    Returns
    -------
    Figure

    Examples
    --------
    >>> figure = scatter_with_line([1, 2, 3], [2, 4, 5], {"2 x": lambda x: 2 * x})
    >>> len(figure.axes[0].lines)
    1
    """
    figure = new_figure(7, 4.6)
    axes = figure.add_subplot()
    x = np.ravel(np.asarray(x, float))
    axes.scatter(x, np.ravel(y), s=14, color=DATA, alpha=0.7, linewidths=0, label="data")
    grid = np.linspace(x.min(), x.max(), 400)
    for (text, function), color in zip((lines or {}).items(), LINES * 9, strict=False):
        axes.plot(grid, np.ravel(function(grid)), color=color, linewidth=2, label=text)
    finish(axes, title, x_label, y_label)
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
    title, x_label, y_label : str

    Returns
    -------
    Figure

    Examples
    --------
    >>> len(curves([0, 1, 2], [[0, 1, 4], [0, 1, 8]]).axes[0].lines)
    2
    """
    figure = new_figure(7, 4.2)
    axes = figure.add_subplot()
    for y, color in zip(ys, LINES * (1 + len(ys) // len(LINES)), strict=False):
        axes.plot(np.ravel(x), np.ravel(y), color=color, linewidth=1.4, alpha=0.85)
    finish(axes, title, x_label, y_label)
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
    """Draw losses or metrics by epoch.

    Parameters
    ----------
    history : History, dict of str to list, or list of float
    names : list of str, optional
        Which entries of a history; default: those whose names end in "loss".
    log : bool, optional
        A logarithmic axis; default: when the values span more than a factor of 30.
    title, x_label, y_label : str

    Returns
    -------
    Figure

    Raises
    ------
    ArgumentError
        If the history has no entry of a given name.

    Examples
    --------
    >>> figure = loss_curve({"loss": [3.0, 2.0, 1.5], "val_loss": [3.5, 2.5, 2.4]})
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    ['loss', 'val_loss']
    """
    table: Mapping[str, Any] = history if isinstance(history, Mapping) else {"loss": history}
    chosen = list(names) if names else [n for n in table if n.endswith("loss")] or list(table)
    for name in chosen:
        if name not in table:
            raise ArgumentError(f"there is no {name!r} in the history; it has {', '.join(table)}")
    figure = new_figure(7, 4.2)
    axes = figure.add_subplot()
    everything = np.concatenate([np.ravel(np.asarray(table[n], float)) for n in chosen])
    for name, color in zip(chosen, LINES * 9, strict=False):
        values = np.ravel(np.asarray(table[name], float))
        axes.plot(np.arange(1, len(values) + 1), values, color=color, linewidth=1.8, label=name)
    if _spans_much(everything) if log is None else log:
        axes.set_yscale("log")
    finish(axes, title, x_label, y_label)
    if len(chosen) > 1:
        axes.legend(frameon=False)
    return figure


def _spans_much(values: Array) -> bool:
    """Return whether values are better seen on a logarithmic axis."""
    known = values[np.isfinite(values)]
    return bool(known.size and known.min() > 0 and known.max() > 30 * known.min())


def history(
    history: Mapping[str, Any],
    names: Sequence[str] | None = None,
    *,
    monitor: str = "val_loss",
    mode: str = "min",
    title: str = "",
) -> Figure:
    """Draw a training: losses and metrics, those of validation dashed, with the best epoch marked.

    Parameters
    ----------
    history : History or dict of str to list
        As `Trainer.fit` returns it.
    names : list of str, optional
        What to draw, without "val_"; default: all that are numbers.
    monitor : str, default "val_loss"
        What is best at the best epoch; ``val_loss`` means ``loss`` if nothing was validated.
    mode : {"min", "max"}, default "min"
        Whether the best is the least or the greatest.
    title : str

    Returns
    -------
    Figure
        A picture for each loss or metric; a loss of a wide range has a logarithmic axis.

    Raises
    ------
    ArgumentError
        If there is no such name, no epoch, or another mode.

    Examples
    --------
    >>> figure = history({"loss": [3.0, 2.0, 1.5], "val_loss": [3.5, 2.4, 2.5], "mae": [2, 1, 1]})
    >>> [axes.get_title() for axes in figure.axes], figure.axes[0].lines[2].get_label()
    (['loss', 'mae'], 'best epoch: 2')
    """
    table = {n: np.asarray(v, float) for n, v in history.items() if np.ndim(v) == 1}
    chosen = dict.fromkeys(n.removeprefix("val_") for n in names or table)
    if monitor == "val_loss" and monitor not in table:
        monitor = "loss"
    for name in (monitor, *chosen):
        if not np.size(table.get(name, ())):
            raise ArgumentError(f"the history has no epoch of {name!r}; it has {', '.join(table)}")
    if mode not in ("min", "max"):
        raise ArgumentError(f"mode={mode!r}; use 'min' or 'max'")
    first = 1 + getattr(history, "first_epoch", 0)
    worst, find = (np.inf, np.argmin) if mode == "min" else (-np.inf, np.argmax)
    best = int(find(np.where(np.isnan(table[monitor]), worst, table[monitor])))
    columns = min(len(chosen), 3)
    rows = -(-len(chosen) // columns)
    figure = new_figure(4.3 * columns + 1.2, 3.4 * rows)
    for i, name in enumerate(chosen):
        axes = figure.add_subplot(rows, columns, i + 1)
        drawn = [(n, *look) for n, *look in ((name, "-", LINES[1]), (f"val_{name}", "--", LINES[0]))
                 if n in table]  # fmt: skip
        for one, style, color in drawn:
            epochs = first + np.arange(len(table[one]))
            label = "validation" if one != name else "training"
            axes.plot(epochs, table[one], style, color=color, linewidth=1.8, label=label)
        axes.axvline(first + best, color=DATA, linestyle=":", label=f"best epoch: {first + best}")
        axes.plot(epochs[best : best + 1], table[one][best : best + 1], "o", color=color)
        if name.endswith("loss") and _spans_much(np.concatenate([table[n] for n, *_ in drawn])):
            axes.set_yscale("log")
        axes.xaxis.set_major_locator(
            require_extra("matplotlib.ticker", "plot").MaxNLocator(integer=True)
        )
        finish(axes, name, "epoch", "")
    every = max((axes.get_legend_handles_labels() for axes in figure.axes), key=lambda h: len(h[0]))
    figure.legend(*every, loc="outside lower center", ncols=3, frameon=False)
    if title:
        figure.suptitle(title)
    return figure


def schedule(
    schedules: Any, steps: int, *, title: str = "Learning rate", log: bool = False
) -> Figure:
    """Draw the rates of schedules, step by step.

    Parameters
    ----------
    schedules : Schedule, callable, float, or dict of str to these
        With names for the legend.
    steps : int, at least 1
    title : str
    log : bool, default False
        A logarithmic axis of rates.

    Returns
    -------
    Figure

    Raises
    ------
    ArgumentError
        If a schedule gives what is no rate.

    Examples
    --------
    >>> import pyframe as pf
    >>> one_cycle = pf.schedules.OneCycle(0.1, total_steps=100)
    >>> figure = schedule({"one cycle": one_cycle, "constant": 0.05}, 100)
    >>> len(figure.axes[0].get_lines())
    2
    """
    table: Mapping[str, Any] = schedules if isinstance(schedules, Mapping) else {"": schedules}
    numbers = np.arange(check_integer("steps", steps, at_least=1))
    figure = new_figure(7, 4.2)
    axes = figure.add_subplot()
    for (name, one), color in zip(table.items(), LINES * 9, strict=False):
        axes.plot(numbers, rates_of(get_schedule(one), numbers), color=color, label=name)
    if log:
        axes.set_yscale("log")
    finish(axes, title, "step", "learning rate")
    if len(table) > 1:
        axes.legend(frameon=False)
    return figure


def learning_rate_finder(found: RateRange, *, title: str = "Range test") -> Figure:
    """Draw the losses of a range test by their rates, smoothed ones and the suggestion too.

    Parameters
    ----------
    found : RateRange
        As `Trainer.find_learning_rate` returns it.
    title : str

    Returns
    -------
    Figure

    Examples
    --------
    >>> import numpy as np
    >>> from pyframe.training.finding import RateRange
    >>> rates = np.geomspace(1e-3, 1, 20)
    >>> figure = learning_rate_finder(RateRange(rates, (np.log10(rates) + 1) ** 2))
    >>> figure.axes[0].get_xscale()
    'log'
    """
    figure = new_figure(7, 4.2)
    axes = figure.add_subplot()
    axes.plot(found.rates, found.losses, color=DATA, linewidth=1, label="loss of the batch")
    axes.plot(found.rates, found.smoothed, color=LINES[0], linewidth=1.8, label="smoothed")
    if np.isfinite(found.suggestion):
        text = f"falls fastest at {found.suggestion:.2g}"
        axes.axvline(found.suggestion, color=LINES[1], linestyle="--", label=text)
    axes.set_xscale("log")
    finite = found.losses[np.isfinite(found.losses)]
    if finite.size and finite.min() < finite.max():
        # What comes last may be beyond all bounds.
        top = min(finite.max(), finite.min() + 2.0 * max(finite[0] - finite.min(), 1e-12))
        room = 0.05 * (top - finite.min())
        axes.set_ylim(finite.min() - room, top + room)
    finish(axes, title, "learning rate", "loss")
    axes.legend(frameon=False)
    return figure


def gradient_norms(norms: Mapping[str, Sequence[float]], *, title: str = "") -> Figure:
    """Draw the norm of the gradient by depth, one line for each network, on a logarithmic axis.

    Parameters
    ----------
    norms : dict of str to list of float
        From the first layer to the last.
    title : str

    Returns
    -------
    Figure

    Examples
    --------
    >>> gradient_norms({"sigmoid": [1e-9, 1e-3], "relu": [0.8, 1.1]}).axes[0].get_yscale()
    'log'
    """
    figure = new_figure(7, 4.4)
    axes = figure.add_subplot()
    for (text, values), color in zip(norms.items(), LINES * 9, strict=False):
        depth = np.arange(1, len(values) + 1)
        axes.plot(depth, values, marker="o", markersize=4, color=color, label=text)
    axes.set_yscale("log")
    ticker = require_extra("matplotlib.ticker", "plot")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    finish(axes, title, "layer (1 is next to the input)", "norm of the weight's gradient")
    axes.legend(frameon=False)
    return figure


# ---- classification ----


def confusion_matrix(matrix: Any, names: Sequence[str] | None = None) -> Figure:
    """Draw a confusion matrix.

    Parameters
    ----------
    matrix : array_like of int, (classes, classes)
        Row: the true class; column: the predicted one.
    names : list of str, optional
        Of the classes; default: their numbers.

    Returns
    -------
    Figure

    Raises
    ------
    ArgumentError
        If the matrix is not square, or the names are not one for each class.

    Examples
    --------
    >>> confusion_matrix([[5, 1], [0, 4]], ["cat", "dog"]).axes[0].get_title()
    '9 of 10 right (90.0 %)'
    """
    counts = np.asarray(matrix)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ArgumentError(f"a confusion matrix is square, and got shape {counts.shape}")
    classes = len(counts)
    if names is not None and len(names) != classes:
        raise ArgumentError(f"{len(names)} names for {classes} classes")
    labels = list(names) if names is not None else [str(i) for i in range(classes)]
    size = 2.2 + 0.46 * classes
    figure = new_figure(size, size)
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
                color="white" if dark else "#333333" if counts[i, j] else "#767676",
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
    columns : int
    title : str
        Above them all.

    Returns
    -------
    Figure

    Examples
    --------
    >>> import numpy as np
    >>> figure = image_grid(np.zeros((2, 8, 8)), ["3 read as 5", "4 read as 9"])
    >>> [axes.get_title() for axes in figure.axes]
    ['3 read as 5', '4 read as 9']
    """
    pictures = np.asarray(images)
    rows = max(-(-len(pictures) // columns), 1)
    figure = new_figure(1.25 * columns, 1.5 * rows + 0.5)
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
