"""What a model has learned, as pictures: what it decides, how surely, its weights, its loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pyframe.engine.plan import Plan
from pyframe.errors import ArgumentError, ShapeError, check_integer
from pyframe.graph.parameter import Parameter
from pyframe.graph.spec import Array, describe
from pyframe.model import Model
from pyframe.plotting.charts import LINES, confusion_matrix, finish, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of classes: they differ for all kinds of colour vision (Okabe, Ito, "Color universal design",
# 2008), and so do their markers.
COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#555555")
MARKERS = "os^Dv*P"  # one less than there are colours, so that no pair comes twice


def confusion(y_true: Any, y_pred: Any, names: Sequence[str] | None = None) -> Figure:
    """Draw which classes are taken for which; see `confusion_matrix` for a matrix.

    Parameters
    ----------
    y_true : array_like, (n,)
        The classes: whole numbers, texts or other things that can be sorted.
    y_pred : array_like, (n,)
        Such as `Model.predict_classes` gives.
    names : list of str, optional
        Of the classes in their order; default: as they are.

    Returns
    -------
    Figure

    Raises
    ------
    ShapeError
        If the two are not as long as each other.

    Examples
    --------
    >>> confusion(["a", "b", "b"], ["a", "b", "a"]).axes[0].get_title()
    '2 of 3 right (66.7 %)'
    """
    true, predicted = np.ravel(y_true), np.ravel(y_pred)
    _same_length(true, predicted, "y_pred")
    classes, places = np.unique(np.concatenate([true, predicted]), return_inverse=True)
    matrix = np.zeros((len(classes), len(classes)), int)
    np.add.at(matrix, (places[: len(true)], places[len(true) :]), 1)
    return confusion_matrix(matrix, [str(c) for c in classes] if names is None else names)


def decision_boundary(
    model: Any,
    X: Any,  # noqa: N803
    y: Any = None,
    *,
    steps: int = 200,
    title: str = "",
) -> Figure:
    """Draw the class that a model predicts everywhere in the plane, and points over it.

    Parameters
    ----------
    model : Model, estimator or callable
        It takes rows (n, 2) and gives classes: by `predict_classes` or `predict`, or when called.
    X : array_like, (n, 2)
    y : array_like, (n,), optional
        The classes of the points.
    steps : int, default 200
        Places along each side.
    title : str

    Returns
    -------
    Figure

    Raises
    ------
    ShapeError
        If the points do not lie in a plane, or have other than one class each.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0, 0.0], [1.0, 1.0]])
    >>> figure = decision_boundary(lambda rows: rows[:, 0] > 0.5, X, [0, 1], steps=20)
    >>> len(figure.axes[0].collections)  # the two regions as one, and the points of two classes
    3
    """
    points = np.asarray(X, float)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ShapeError(f"the points lie in a plane, (n, 2), these are {describe(points.shape)}")
    low, high = points.min(0), points.max(0)
    room = 0.08 * np.where(high > low, high - low, 1.0)
    sides = [np.linspace(a, b, steps) for a, b in zip(low - room, high + room, strict=True)]
    grid = np.stack([side.ravel() for side in np.meshgrid(*sides)], 1)
    predict = getattr(model, "predict_classes", getattr(model, "predict", model))
    found = np.ravel(predict(grid))
    given = found if y is None else np.ravel(y)
    if y is not None:
        _same_length(points, given, "y")
    classes = np.unique(np.concatenate([given, found]))
    figure = new_figure(6, 5)
    axes = figure.add_subplot()
    numbers = np.searchsorted(classes, found).reshape(steps, steps)
    colors = [COLORS[i % len(COLORS)] for i in range(len(classes))]
    levels = np.arange(len(classes) + 1) - 0.5
    axes.contourf(*sides, numbers, levels=levels, colors=colors, alpha=0.25)
    if y is not None:
        _classes(axes, points, given, classes)
    finish(axes, title, "first column", "second column")
    return figure


def _same_length(a: Array, b: Array, name: str) -> None:
    if len(a) != len(b):
        raise ShapeError(f"{name} has {len(b)} rows, where there are {len(a)}")


def _classes(axes: Any, points: Array, labels: Array, classes: Array) -> None:
    for i, one in enumerate(classes):
        x, y = points[labels == one].T
        color, marker = COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]
        style = {"marker": marker, "edgecolors": "#333333", "linewidths": 0.4}
        axes.scatter(x, y, 26, color, label=str(one), **style)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def embedding(vectors: Any, labels: Any = None, *, title: str = "") -> Figure:
    """Draw vectors in the plane of their two principal components.

    Parameters
    ----------
    vectors : array_like or Parameter, (n, m), m at least 2
    labels : array_like, (n,), optional
        Up to 20 different ones are classes, each with a colour; more are written at their points.
    title : str

    Returns
    -------
    Figure
        The axes say which part of the variance lies along them.

    Raises
    ------
    ShapeError
        If there are not at least two rows and columns, or not a label for each row.

    References
    ----------
    Pearson, "On lines and planes of closest fit to systems of points in space", 1901.

    Examples
    --------
    >>> embedding([[0, 0, 0], [3, 4, 0], [6, 8, 0]]).axes[0].get_xlabel()
    'first component, 100 % of the variance'
    """
    rows = np.asarray(getattr(vectors, "value", vectors), float)
    if rows.ndim != 2 or min(rows.shape) < 2:
        raise ShapeError(f"vectors are rows (n, m) of at least 2, these {describe(rows.shape)}")
    u, sizes, _ = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    places, shares = (u * sizes)[:, :2], sizes**2 / max((sizes**2).sum(), 1e-300)
    figure = new_figure(6.4, 5)
    axes = figure.add_subplot()
    if labels is None:
        axes.scatter(places[:, 0], places[:, 1], s=18, color=COLORS[0])
    else:
        named = np.ravel(labels)
        _same_length(rows, named, "labels")
        classes = np.unique(named)
        if len(classes) <= 20:
            _classes(axes, places, named, classes)
        else:
            axes.scatter(places[:, 0], places[:, 1], s=6, color=COLORS[0])
            for place, text in zip(places, named, strict=True):
                axes.annotate(str(text), place, fontsize=7)
    names = [f"{n} component, {100 * s:.0f} % of the variance" for n, s in
             zip(("first", "second"), shares, strict=False)]  # fmt: skip
    finish(axes, title, *names)
    return figure


# ---- how sure ----


def _two_classes(y: Any, scores: Any) -> tuple[Array, Array]:
    true, given = np.ravel(y), np.ravel(np.asarray(scores, float))
    _same_length(true, given, "scores")
    if set(np.unique(true)) != {0, 1}:
        raise ArgumentError(f"the classes are 0 and 1, both; these are {np.unique(true)[:5]}")
    if np.isnan(given).any():
        raise ArgumentError(f"row {np.flatnonzero(np.isnan(given))[0]} has no score: it is NaN")
    return true.astype(bool), given


def roc(y: Any, scores: Mapping[str, Any] | Any, *, title: str = "") -> Figure:
    """Draw how many of the positives are found at each rate of false alarms.

    Parameters
    ----------
    y : array_like of 0 and 1, (n,)
    scores : array_like, (n,), or dict of str to them
        The higher, the surer: probabilities or logits. With names for the legend.
    title : str

    Returns
    -------
    Figure
        The legend has the area under each curve.

    Raises
    ------
    ArgumentError
        If there are other classes than 0 and 1, or a score is NaN.
    ShapeError
        If the two are not as long as each other.

    Examples
    --------
    >>> roc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]).axes[0].get_legend().get_texts()[0].get_text()
    'area 0.750'
    """
    figure = new_figure(5.4, 5)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="#9aa7b5", linestyle=":")
    table = scores if isinstance(scores, Mapping) else {"": scores}
    for (name, one), color in zip(table.items(), LINES * 9, strict=False):
        true, given = _two_classes(y, one)
        order = np.argsort(-given, kind="stable")
        last = np.append(np.flatnonzero(np.diff(given[order])), len(given) - 1)  # of equal scores
        hits, alarms = np.cumsum(true[order])[last], np.cumsum(~true[order])[last]
        x, h = (np.append(0, n) / n[-1] for n in (alarms, hits))
        area = float(np.sum(np.diff(x) * (h[1:] + h[:-1]) / 2))
        axes.plot(x, h, color=color, label=f"{name} area {area:.3f}".strip())
    axes.legend(frameon=False, loc="lower right")
    finish(axes, title, "false alarms, of the negatives", "found, of the positives")
    return figure


def calibration(y: Any, probabilities: Any, *, bins: int = 10, title: str = "") -> Figure:
    """Draw how often an event happens that was given some probability.

    Parameters
    ----------
    y : array_like of 0 and 1, (n,)
    probabilities : array_like, (n,), in [0, 1]
        Of a 1.
    bins : int, default 10
        Of equal width.
    title : str

    Returns
    -------
    Figure
        Points for all bins that are not empty, on the diagonal if the model is right about itself,
        and below them how many rows are in each.

    Raises
    ------
    ArgumentError
        If there are other classes than 0 and 1, or what are no probabilities.
    ShapeError
        If the two are not as long as each other.

    Examples
    --------
    >>> line = calibration([0, 1, 1, 1], [0.25, 0.25, 0.75, 0.75], bins=2).axes[0].lines[1]
    >>> line.get_ydata().tolist()
    [0.5, 1.0]
    """
    true, given = _two_classes(y, probabilities)
    if not ((given >= 0) & (given <= 1)).all():
        raise ArgumentError("probabilities lie in [0, 1]; for logits use Model.predict_proba")
    places = np.minimum((given * check_integer("bins", bins, at_least=1)).astype(int), bins - 1)
    counts = np.bincount(places, minlength=bins)
    kept = counts > 0
    means = [np.bincount(places, w, minlength=bins)[kept] / counts[kept] for w in (given, true)]
    figure = new_figure(5.4, 5.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    upper.plot([0, 1], [0, 1], color="#9aa7b5", linestyle=":")
    upper.plot(*means, color=COLORS[0], marker="o")
    lower.bar((np.arange(bins) + 0.5) / bins, counts, 0.9 / bins, color=COLORS[0])
    finish(upper, title, "", "how often it happens")
    finish(lower, "", "predicted probability", "rows")
    return figure


# ---- inside ----


def attention(
    weights: Any, keys: Sequence[str] | None = None, queries: Sequence[str] | None = None,
    *, title: str = "",
) -> Figure:  # fmt: skip
    """Draw what each position attends to, a picture for each head.

    Parameters
    ----------
    weights : array_like, (queries, keys) or (heads, queries, keys)
        Of one sample; the darker, the more.
    keys, queries : list of str, optional
        Names of the positions; `queries` are those of `keys` if there are as many.
    title : str

    Returns
    -------
    Figure

    Raises
    ------
    ShapeError
        If there are not two or three axes, or not a name for each position.

    Examples
    --------
    >>> len(attention([[[1.0, 0.0], [0.5, 0.5]]], ["a", "cat"]).axes)
    1
    """
    heads = np.asarray(weights, float)
    heads = heads[None] if heads.ndim == 2 else heads
    if heads.ndim != 3:
        raise ShapeError(
            f"weights are (heads, queries, keys) of one sample, these {describe(heads.shape)}"
        )
    if queries is None and heads.shape[1] == heads.shape[2]:
        queries = keys
    for names, count in ((queries, heads.shape[1]), (keys, heads.shape[2])):
        if names is not None and len(names) != count:
            raise ShapeError(f"{len(names)} names for {count} positions")
    columns = min(len(heads), 4)
    rows = -(-len(heads) // columns)
    figure = new_figure(1.0 + 2.6 * columns, 0.9 + 2.7 * rows)
    for i, head in enumerate(heads):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.imshow(head, cmap="Blues", vmin=0.0, vmax=max(float(heads.max()), 1e-12))
        axes.set_title(f"head {i}" if len(heads) > 1 else "", fontsize=9)
        if keys is not None:
            axes.set_xticks(range(len(keys)), list(keys), fontsize=8, rotation=90)
        if queries is not None:
            axes.set_yticks(range(len(queries)), list(queries), fontsize=8)
    figure.supxlabel("attends to", fontsize=9)
    if title:
        figure.suptitle(title)
    return figure


def weights(model: Model, *, title: str = "Weights") -> Figure:
    """Draw how the weights of a model lie: a histogram of each parameter that is an array.

    Parameters
    ----------
    model : Model
        Built.
    title : str

    Returns
    -------
    Figure
        The titles have name, mean and standard deviation.

    Raises
    ------
    ArgumentError
        If it has no parameters.

    Examples
    --------
    >>> import pyframe as pf
    >>> model = pf.Sequential([pf.layers.Dense(3)], input_shape=(2,))
    >>> [axes.get_title().split(":")[0] for axes in weights(model).axes]
    ['dense/weight', 'dense/bias']
    """
    arrays = {name: np.ravel(a) for name, a in model.get_weights().items() if a.size > 1}
    if not arrays:
        raise ArgumentError("the model has no parameters; there is nothing to draw")
    columns = min(len(arrays), 4)
    rows = -(-len(arrays) // columns)
    figure = new_figure(3.1 * columns, 2.1 * rows + 0.4)
    for i, (name, values) in enumerate(arrays.items()):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.hist(values[np.isfinite(values)], bins=min(40, max(values.size // 4, 5)),
                  color=COLORS[0])  # fmt: skip
        axes.set_title(f"{name}: {values.mean():.2g} ± {values.std():.2g}", fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    return figure


def gradient_flow(gradients: Mapping[Any, Any], *, title: str = "Gradients") -> Figure:
    """Draw the size of the gradient of each parameter, from the input to the loss.

    Parameters
    ----------
    gradients : dict of Parameter or str to array_like
        As `Plan.loss_and_gradients` gives them.
    title : str

    Returns
    -------
    Figure
        Bars of the root mean square, on a logarithmic axis; a parameter whose gradient is 0 or not
        finite has none, and says so.

    Raises
    ------
    ArgumentError
        If there are none.

    Examples
    --------
    >>> figure = gradient_flow({"first": [3.0, 4.0], "dead": [0.0]})
    >>> [round(float(bar.get_width()), 2) for bar in figure.axes[0].patches]
    [3.54]
    """
    if not gradients:
        raise ArgumentError("there are no gradients to draw")
    names = [str(getattr(p, "name", None) or p) for p in gradients]
    sizes = np.array(
        [np.sqrt(np.mean(np.square(np.asarray(g, float)))) for g in gradients.values()]
    )
    shown = np.isfinite(sizes) & (sizes > 0)
    figure = new_figure(7, 0.9 + 0.28 * len(names))
    axes = figure.add_subplot()
    axes.barh(np.flatnonzero(shown), sizes[shown], color=COLORS[0])
    axes.set_xscale("log")
    if shown.any():  # whole powers of ten
        ends = np.log10([sizes[shown].min() / 1.01, sizes[shown].max()])
        axes.set_xlim(*10.0 ** np.array([np.floor(ends[0]), np.ceil(ends[1])]))
    for place in map(int, np.flatnonzero(~shown)):
        axes.text(0.01, place, f" {sizes[place]:g}", transform=axes.get_yaxis_transform(),
                  va="center", color=COLORS[5])  # fmt: skip
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    finish(axes, title, "root mean square of the gradient", "")
    return figure


def loss_surface(
    plan: Plan, feed: Mapping[Any, Any], *, reach: float = 1.0, steps: int = 21, seed: int = 0,
    title: str = "Loss around here",
) -> Figure:  # fmt: skip
    """Draw the loss in a plane through the parameters, along two random directions.

    Each direction is scaled, parameter by parameter, to the norm of what is there, so that
    networks of different scales can be compared.

    Parameters
    ----------
    plan : Plan
        With a loss; it is as it was when this returns.
    feed : dict of Placeholder to array_like
    reach : float, default 1.0
        How far it goes, in lengths of the parameters.
    steps : int, default 21
        Places along each side; each takes a run. An odd number has one at the parameters.
    seed : int
        Of the directions.
    title : str

    Returns
    -------
    Figure

    Raises
    ------
    GraphError
        If the plan has no loss.
    ArgumentError
        If there are less than 2 steps.

    References
    ----------
    Li, Xu, Taylor, Studer, Goldstein, "Visualizing the loss landscape of neural nets", 2018,
    section 4.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> w = pf.Parameter(np.array([3.0, 4.0]), name="w")
    >>> plan = pf.compile(pf.Sum(w * w))
    >>> figure = loss_surface(plan, {}, steps=3)
    >>> figure.axes[0].get_title()
    'Loss around here, 25 at the middle'
    """
    rng, places = (
        np.random.default_rng(seed),
        np.linspace(-reach, reach, check_integer("steps", steps, at_least=2)),
    )
    before = {p: np.array(p.value) for p in plan.parameters}
    ways: list[dict[Parameter, Array]] = []
    for _ in range(2):
        drawn = {p: rng.normal(size=v.shape) for p, v in before.items()}
        lengths = {p: float(np.linalg.norm(d)) or 1.0 for p, d in drawn.items()}
        ways.append({p: d * (np.linalg.norm(before[p]) / lengths[p]) for p, d in drawn.items()})

    def at(a: float, b: float) -> float:
        for p, value in before.items():
            p.value = value + a * ways[0][p] + b * ways[1][p]
        return float(plan.loss_and_gradients(feed)[0])

    try:
        losses = np.array([[at(a, b) for a in places] for b in places])
    finally:
        for p, value in before.items():
            p.value = value
    middle = float(plan.loss_and_gradients(feed)[0])
    figure = new_figure(6, 5)
    axes = figure.add_subplot()
    surface = axes.contourf(places, places, losses, 24, cmap="viridis")
    figure.colorbar(surface, label="loss")
    axes.plot(0, 0, "o", color="white", markeredgecolor="black")
    finish(axes, f"{title}, {middle:.4g} at the middle", "one direction", "another")
    return figure
