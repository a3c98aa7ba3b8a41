"""Losses composed of other ops: a formula for the elements, reduced by `ReduceLoss`.

All take ``(y, y_hat, sample_weight=None, reduction="mean")`` and options by keyword. Shapes,
weights and reductions are those of `pyframe.ops.losses`; losses of rows of several numbers have one
loss for each row. Here are those of numbers and of margins; `class_losses.py` has those of classes.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pyframe.attributes import number
from pyframe.errors import ArgumentError, ShapeError
from pyframe.graph.composite import Composite, composite
from pyframe.graph.node import Constant, Value
from pyframe.graph.op import Case
from pyframe.graph.spec import describe
from pyframe.ops.activations import Relu, Softplus
from pyframe.ops.arithmetic import Abs, Exp, Log, Maximum, Sqrt, Square
from pyframe.ops.losses import REDUCTIONS, MatchTarget, ReduceLoss, reduce_loss
from pyframe.ops.reductions import Sum
from pyframe.ops.shapes import Slice

LEAST = 1e-30  # what a number is raised to before its logarithm is taken
Formula = Callable[..., Value]


def as_pair(y: Any, y_hat: Any, loss: str) -> tuple[Value, Value]:
    """Return target and prediction in one shape; see `MatchTarget`.

    Raises
    ------
    ArgumentError
        If the prediction is no node.
    ShapeError
        If they differ in shape: nothing is broadcast.
    """
    prediction = _node(y_hat, loss)
    target = y if isinstance(y, Value) else Constant(y, dtype=prediction.dtype)
    return MatchTarget(target, prediction, name=loss), prediction


def _node(y_hat: Any, loss: str) -> Value:
    if not isinstance(y_hat, Value):
        raise ArgumentError(f"{loss}: the prediction must be a node, and is {type(y_hat).__name__}")
    return y_hat


def loss(
    op: str,
    *,
    element: Callable[..., Any],
    sample: Callable[[Any], tuple[Any, Any, dict[str, Any]]],
    pair: Callable[..., tuple[Value, Value]] = as_pair,
    **declared: Any,
) -> Callable[[Formula], Composite]:
    """Make a loss of the function below, which gives the losses of a target and a prediction.

    Parameters
    ----------
    op : str
        Its name.
    element : callable
        The same in NumPy.
    sample : callable
        ``sample(draw)`` gives target, prediction and options.
    pair : callable
        ``pair(y, y_hat, loss)`` checks the two and may change their shape.
    **declared
        As for `composite`.
    """

    def make(formula: Formula) -> Composite:
        @functools.wraps(formula)
        def whole(
            y: Any, y_hat: Any, sample_weight: Any = None, reduction: str = "mean", **options: Any
        ) -> Value:
            losses = formula(*pair(y, y_hat, op), **options)
            return ReduceLoss(losses, sample_weight, reduction)

        def reference(
            y: Any, y_hat: Any, weight: Any = None, *, reduction: str = "mean", **options: Any
        ) -> Any:
            return reduce_loss(element(y, y_hat, **options), weight, reduction)

        def magnitude(
            y: Any, y_hat: Any, weight: Any = None, *, reduction: str = "mean", **options: Any
        ) -> tuple[int, Any]:
            size = declared_size(y, y_hat, **options)
            return 100 + np.size(y_hat), np.abs(reduce_loss(size, weight, reduction))

        def draw_case(draw: Any) -> Case:
            y, y_hat, options = sample(draw)
            weighted = y_hat.ndim > 0 and draw.choice([False, True])
            weight = draw.positive(y_hat.shape[:1]) if weighted else None
            return Case((y, y_hat, weight), {"reduction": draw.choice(REDUCTIONS), **options})

        own = [
            p.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for p in list(inspect.signature(formula).parameters.values())[2:]
        ]
        common = list(inspect.signature(whole, follow_wrapped=False).parameters.values())[:4]
        whole.__signature__ = inspect.Signature([*common, *own])  # type: ignore[attr-defined]
        settings = {"listed_in": "losses", "optional_inputs": (2,), "constant_inputs": (2,)}
        made = composite(
            op,
            reference=reference,
            sample=draw_case,
            **{**settings, "magnitude": magnitude, **declared},
        )
        return made(whole)

    size = declared.pop("size", None)

    def declared_size(y: Any, y_hat: Any, **options: Any) -> Any:
        """Return the size of the terms of each loss."""
        return (size or (lambda *a, **k: np.abs(element(*a, **k)) + 1))(y, y_hat, **options)

    return make


# ---- numbers ----


def _values(draw: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Return a target and a prediction that are nowhere equal."""
    y_hat = draw.normal(draw.shape(max_ndim=3))
    return y_hat + draw.away_from_zero(y_hat.shape), y_hat, {}


@loss(
    "log_cosh",
    element=lambda y, y_hat: np.logaddexp(y_hat - y, y - y_hat) - math.log(2),
    sample=_values,
    aliases=("logcosh", "log_cosh_loss"),
)
def LogCosh(y: Value, y_hat: Value) -> Value:
    """l = log cosh(y_hat - y): like half the square near the target, like the distance far from it.

    Parameters
    ----------
    y, y_hat : Value, shape (n, ...)
    sample_weight : Value, shape (n,), optional
    reduction : {"mean", "sum", "none"}, default "mean"

    Examples
    --------
    >>> import pyframe as pf
    >>> y, y_hat = pf.Placeholder("y", shape=(None,)), pf.Placeholder("y_hat", shape=(None,))
    >>> float(pf.compile(pf.LogCosh(y, y_hat)).run({y: [0.0], y_hat: [100.0]})) < 99.31
    True
    """
    d = Abs(y_hat - y)
    return d + Softplus(-2.0 * d) - math.log(2)


def _draw_quantile(draw: Any) -> tuple[Any, Any, dict[str, Any]]:
    y, y_hat, _ = _values(draw)
    return y, y_hat, {"quantile": draw.choice([0.1, 0.5, 0.9])}


@loss(
    "quantile_loss",
    element=lambda y, y_hat, quantile=0.5: np.maximum(
        quantile * (y - y_hat), (quantile - 1) * (y - y_hat)
    ),
    sample=_draw_quantile,
    aliases=("quantile", "pinball", "pinball_loss"),
)
def QuantileLoss(y: Value, y_hat: Value, quantile: float = 0.5) -> Value:
    """l = q (y - y_hat) above the prediction, (1 - q) (y_hat - y) below: least at the q-quantile.

    Parameters
    ----------
    y, y_hat : Value, shape (n, ...)
    sample_weight : Value, shape (n,), optional
    reduction : {"mean", "sum", "none"}, default "mean"
    quantile : float in (0, 1), default 0.5
        0.5 is half the absolute error, whose least is at the median.

    References
    ----------
    Koenker, Bassett, "Regression quantiles", Econometrica 46, 1978, equation 3.1.
    """
    q = number(above=0, below=1)(quantile, "QuantileLoss: quantile")
    d = y - y_hat
    return Maximum(q * d, (q - 1.0) * d)


def _draw_counts(draw: Any) -> tuple[Any, Any, dict[str, Any]]:
    y_hat = draw.normal(draw.shape(max_ndim=3))
    log_input = draw.choice([True, False])
    return (
        draw.positive(y_hat.shape),
        y_hat if log_input else np.abs(y_hat) + 0.1,
        {"log_input": log_input},
    )


@loss(
    "poisson_loss",
    target_domain="counts",
    element=lambda y, y_hat, log_input=True: (
        np.exp(y_hat) - y * y_hat if log_input else y_hat - y * np.log(y_hat + 1e-8)
    ),
    sample=_draw_counts,
    size=lambda y, y_hat, log_input=True: (
        np.exp(y_hat) + np.abs(y * y_hat) if log_input else y_hat + y * (1 + np.abs(np.log(y_hat)))
    ),
    aliases=("poisson", "poisson_nll", "poisson_nll_loss"),
)
def PoissonLoss(y: Value, y_hat: Value, log_input: bool = True) -> Value:
    """l = rate - y log(rate): counts whose rate is predicted, up to a constant of the target.

    Parameters
    ----------
    y : Value, shape (n, ...)
        Counts, at least 0. A `Trainer` refuses negative ones.
    y_hat : Value, shape (n, ...)
        The logarithm of the rate, any number; with ``log_input=False`` the rate itself, to which
        1e-8 is added in the logarithm.
    sample_weight : Value, shape (n,), optional
    reduction : {"mean", "sum", "none"}, default "mean"
    log_input : bool, default True

    References
    ----------
    McCullagh, Nelder, "Generalized linear models", 2nd ed. 1989, section 6.2.
    """
    return Exp(y_hat) - y * y_hat if log_input else y_hat - y * Log(y_hat + 1e-8)


def _pair_with_variance(y: Any, y_hat: Any, loss: str) -> tuple[Value, Value]:
    """Return the target of k means, and a prediction (n, ..., 2k)."""
    shape = _node(y_hat, loss).shape
    if not shape or shape[-1] is None or shape[-1] % 2:
        raise ShapeError(
            f"{loss}: the prediction must be (n, ..., 2k), k means and then k logarithms of "
            f"variances; got {describe(shape)}"
        )
    return as_pair(y, _part(y_hat, 0), loss)[0], y_hat


def _part(y_hat: Value, which: int) -> Value:
    """Return the first or the second half along the last axis."""
    assert y_hat.shape is not None and y_hat.shape[-1] is not None
    k = y_hat.shape[-1] // 2
    front = (slice(None),) * (len(y_hat.shape) - 1)
    return Slice(y_hat, (*front, slice(which * k, (which + 1) * k)))


def _gaussian(y: Any, y_hat: Any) -> Any:
    k = y_hat.shape[-1] // 2
    mean, log_variance = y_hat[..., :k], y_hat[..., k:]
    return 0.5 * (log_variance + (y.reshape(mean.shape) - mean) ** 2 * np.exp(-log_variance))


def _draw_gaussian(draw: Any) -> tuple[Any, Any, dict[str, Any]]:
    shape = draw.shape(min_ndim=1, max_ndim=2)
    k = draw.choice([1, 2, 3])
    return draw.normal((*shape, k)), draw.normal((*shape, 2 * k)), {}


@loss(
    "gaussian_nll",
    element=_gaussian,
    sample=_draw_gaussian,
    size=lambda y, y_hat: (
        np.abs(_gaussian(y, y_hat))
        + 1
        + np.abs(y_hat[..., y.shape[-1] :])
        * (1 + (y - y_hat[..., : y.shape[-1]]) ** 2 * np.exp(-y_hat[..., y.shape[-1] :]))
    ),
    pair=_pair_with_variance,
    target_shape=lambda shape: shape and (*shape[:-1], shape[-1] and shape[-1] // 2),
    aliases=("gaussian_nll_loss",),
)
def GaussianNll(y: Value, y_hat: Value) -> Value:
    """l = (log v + (y - m)^2 / v) / 2: a normal distribution with a predicted mean and variance.

    Up to the constant log(2 pi) / 2.

    Parameters
    ----------
    y : Value, shape (n, ..., k); (n,) for k = 1
    y_hat : Value, shape (n, ..., 2k)
        k means m, then k logarithms of the variances, log v, which may be any numbers.
    sample_weight : Value, shape (n,), optional
    reduction : {"mean", "sum", "none"}, default "mean"

    References
    ----------
    Nix, Weigend, "Estimating the mean and variance of the target probability distribution", ICNN
    1994, equation 5.
    """
    log_variance = _part(y_hat, 1)
    return 0.5 * (log_variance + Square(y - _part(y_hat, 0)) * Exp(-log_variance))


# ---- margins ----


def _signs(draw: Any) -> tuple[Any, Any, dict[str, Any]]:
    y_hat = draw.normal(draw.shape(max_ndim=3))
    y = np.where(draw.uniform(y_hat.shape) < 0.5, -1.0, 1.0)
    return y, np.where(np.abs(1 - y * y_hat) < 0.05, y_hat + 0.2, y_hat), {}


@loss(
    "hinge",
    target_domain="signs",
    element=lambda y, y_hat: np.maximum(1 - y * y_hat, 0),
    sample=_signs,
    aliases=("hinge_loss",),
)
def Hinge(y: Value, y_hat: Value) -> Value:
    """l = max(1 - y y_hat, 0), the loss of a support vector machine; its derivative at 1 is 0.

    Parameters
    ----------
    y : Value, shape (n, ...)
        -1 or 1. A `Trainer` refuses anything else: write 2 y - 1 for targets 0 and 1.
    y_hat : Value, shape (n, ...)
        Any number; its sign is the class.
    sample_weight : Value, shape (n,), optional
    reduction : {"mean", "sum", "none"}, default "mean"

    References
    ----------
    Cortes, Vapnik, "Support-vector networks", Machine Learning 20, 1995, section 3.
    """
    return Relu(1.0 - y * y_hat)


@loss(
    "squared_hinge",
    target_domain="signs",
    element=lambda y, y_hat: np.maximum(1 - y * y_hat, 0) ** 2,
    sample=_signs,
    aliases=("squared_hinge_loss",),
)
def SquaredHinge(y: Value, y_hat: Value) -> Value:
    """l = max(1 - y y_hat, 0)^2; see `Hinge`.

    Parameters
    ----------
    y : Value, shape (n, ...)
        -1 or 1.
    y_hat : Value, shape (n, ...)
    sample_weight : Value, shape (n,), optional
    reduction : {"mean", "sum", "none"}, default "mean"
    """
    return Square(Relu(1.0 - y * y_hat))


def _cosine(y: Any, y_hat: Any) -> Any:
    lengths = np.sqrt((y * y).sum(-1) * (y_hat * y_hat).sum(-1))
    return 1 - (y * y_hat).sum(-1) / np.maximum(lengths, 1e-8)


def _directions(draw: Any) -> tuple[Any, Any, dict[str, Any]]:
    shape = (*draw.shape(min_ndim=1, max_ndim=2), draw.choice([2, 3, 8]))
    return draw.away_from_zero(shape), draw.away_from_zero(shape), {}


@loss(
    "cosine_loss",
    element=_cosine,
    sample=_directions,
    size=lambda y, y_hat: np.full(y.shape[:-1], 4.0),
    aliases=("cosine",),
)
def CosineLoss(y: Value, y_hat: Value) -> Value:
    """l = 1 - cos(y, y_hat), of the angle between two vectors along the last axis.

    A vector of length 0 has the loss 1. One loss for each row, not for each element.

    Parameters
    ----------
    y, y_hat : Value, shape (n, ..., c)
    sample_weight : Value, shape (n,), optional
    reduction : {"mean", "sum", "none"}, default "mean"
    """
    lengths = Sqrt(Maximum(Sum(y * y, axis=-1) * Sum(y_hat * y_hat, axis=-1), 1e-16))
    return 1.0 - Sum(y * y_hat, axis=-1) / lengths


def _distances(draw: Any) -> tuple[Any, Any, dict[str, Any]]:
    d = draw.positive(draw.shape(max_ndim=2))
    margin = draw.choice([0.5, 1.0])
    y = np.where(draw.uniform(d.shape) < 0.5, 0.0, 1.0)
    return y, np.where(np.abs(d - margin) < 0.05, d + 0.2, d), {"margin": margin}


@loss(
    "contrastive_loss",
    target_domain="unit",
    element=lambda y, d, margin=1.0: y * d**2 + (1 - y) * np.maximum(margin - d, 0) ** 2,
    sample=_distances,
    aliases=("contrastive",),
    size=lambda y, d, margin=1.0: d**2 + margin**2 + 1,
)
def ContrastiveLoss(y: Value, y_hat: Value, margin: float = 1.0) -> Value:
    """l = d^2 for a pair of one kind, max(margin - d, 0)^2 for one of two kinds, d its distance.

    Parameters
    ----------
    y : Value, shape (n, ...)
        1 for a pair of one kind, 0 for one of two kinds.
    y_hat : Value, shape (n, ...)
        The distance d of the pair, at least 0.
    sample_weight : Value, shape (n,), optional
    reduction : {"mean", "sum", "none"}, default "mean"
    margin : float, default 1.0

    References
    ----------
    Hadsell, Chopra, LeCun, "Dimensionality reduction by learning an invariant mapping", CVPR 2006,
    equation 4, without its factor 1/2.
    """
    m = number(above=0)(margin, "ContrastiveLoss: margin")
    return y * Square(y_hat) + (1.0 - y) * Square(Relu(m - y_hat))


def _triplet(a: Any, p: Any, n: Any, weight: Any = None, *, margin: float = 1.0,
             reduction: str = "mean") -> Any:  # fmt: skip
    near, far = (np.sqrt(((a - x) ** 2).sum(-1)) for x in (p, n))
    return reduce_loss(np.maximum(near - far + margin, 0), weight, reduction)


def _draw_triplet(draw: Any) -> Case:
    shape = (draw.size(low=1, high=9), draw.choice([2, 5]))
    anchor = draw.normal(shape)
    weight = draw.positive(shape[:1]) if draw.choice([False, True]) else None
    options = {"reduction": draw.choice(REDUCTIONS), "margin": draw.choice([0.1, 7.0])}
    # Two directions apart, so that no difference of distances is at the kink or at 0.
    near, far = anchor + draw.away_from_zero(shape), anchor + 3 * draw.away_from_zero(shape)
    return Case((anchor, near, far, weight), options)


@composite(
    "triplet_loss",
    reference=_triplet,
    sample=_draw_triplet,
    magnitude=lambda a, p, n, weight=None, margin=1.0, reduction="mean": (
        100 + np.size(a),
        np.abs(reduce_loss(np.full(len(a), 30.0 + margin), weight, reduction)),
    ),
    optional_inputs=(3,),
    constant_inputs=(3,),
)
def TripletLoss(
    anchor: Value,
    positive: Value,
    negative: Value,
    sample_weight: Any = None,
    *,
    reduction: str = "mean",
    margin: float = 1.0,
) -> Value:
    """l = max(|a - p| - |a - n| + margin, 0): p of the anchor's kind is to be nearer than n.

    Of three nodes, not of a target and a prediction: for a plan, ``pf.compile(pf.TripletLoss(a, p,
    n), optimizer)``.

    Parameters
    ----------
    anchor, positive, negative : Value, shape (n, ..., c)
        Vectors along the last axis, of one network for three inputs, usually.
    sample_weight : Value, shape (n,), optional
    reduction : {"mean", "sum", "none"}, default "mean"
    margin : float, default 1.0

    References
    ----------
    Schroff, Kalenichenko, Philbin, "FaceNet", CVPR 2015, equation 3, with distances that are not
    squared, as in Balntas et al., BMVC 2016.
    """
    m = number(above=0)(margin, "TripletLoss: margin")
    anchor, positive = as_pair(anchor, positive, "triplet_loss")
    _, negative = as_pair(anchor, negative, "triplet_loss")

    def distance(other: Value) -> Value:
        return Sqrt(Maximum(Sum(Square(anchor - other), axis=-1), LEAST))

    return ReduceLoss(Relu(distance(positive) - distance(negative) + m), sample_weight, reduction)


OPS: Sequence[Composite] = (
    LogCosh,
    QuantileLoss,
    PoissonLoss,
    GaussianNll,
    Hinge,
    SquaredHinge,
    CosineLoss,
    ContrastiveLoss,
    TripletLoss,
)
