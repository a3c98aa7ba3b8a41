"""Losses composed of other ops: a formula for the elements, reduced by `ReduceLoss`.

All take ``(y, y_hat, sample_weight=None, reduction="mean")`` and options by keyword. Shapes,
weights and reductions are those of `pyframe.ops.losses`; losses of rows of several numbers have one
loss for each row.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pyframe.attributes import number, one_of
from pyframe.errors import ArgumentError, ShapeError
from pyframe.graph.composite import Composite, composite
from pyframe.graph.node import Constant, Value
from pyframe.graph.op import Case
from pyframe.graph.spec import describe
from pyframe.ops.activations import Relu, Sigmoid, Softplus, logistic
from pyframe.ops.arithmetic import Abs, Exp, Log, Maximum, Sqrt, Square
from pyframe.ops.entropy import CrossEntropy
from pyframe.ops.logits import binary_logits, class_logits
from pyframe.ops.losses import REDUCTIONS, MatchTarget, ReduceLoss, reduce_loss
from pyframe.ops.reductions import Sum
from pyframe.ops.shapes import Slice
from pyframe.ops.softmax import LogSoftmax

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


def _values(draw: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Return a target and a prediction that are nowhere equal."""
    y_hat = draw.normal(draw.shape(max_ndim=3))
    return y_hat + draw.away_from_zero(y_hat.shape), y_hat, {}


# ---- regression ----


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
    aliases=("poisson", "poisson_nll"),
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


# ---- classes ----


def _soft(y: Any, x: Any, label_smoothing: float = 0.0) -> Any:
    if x.shape[-1] == 0:
        return np.zeros(x.shape[:-1])
    logs = x - np.logaddexp.reduce(x, axis=-1, keepdims=True)
    target = (1 - label_smoothing) * y + label_smoothing / x.shape[-1]
    return -(target * logs).sum(-1)


def _shares(draw: Any) -> tuple[Any, Any]:
    shape = (*draw.shape(min_ndim=1, max_ndim=2), draw.choice([1, 2, 5, 17]))
    y = 1 + draw.uniform(shape)
    return y / y.sum(-1, keepdims=True), draw.choice([1.0, 5.0]) * draw.normal(shape)


def _logits_of(y: Any, y_hat: Any, loss: str) -> tuple[Value, Value]:
    return as_pair(y, class_logits(y_hat, loss), loss)


@loss(
    "soft_cross_entropy",
    target_domain="shares",
    element=_soft,
    sample=lambda draw: (*_shares(draw), {"label_smoothing": draw.choice([0.0, 0.1])}),
    size=lambda y, x, label_smoothing=0.0: 1 + np.abs(x).sum(-1) + x.shape[-1],
    pair=_logits_of,
    aliases=("categorical_crossentropy", "categorical_cross_entropy"),
)
def SoftCrossEntropy(y: Value, y_hat: Value, label_smoothing: float = 0.0) -> Value:
    """l = -sum_c y_c log softmax(x)_c, for targets that are one-hot or probabilities of classes.

    For integer labels there is `CrossEntropy`.

    Parameters
    ----------
    y : Value of floats, shape (n, ..., classes)
        Probabilities, which add up to 1; a `Trainer` refuses others.
    y_hat : Value, shape (n, ..., classes)
        The logits, or the probabilities that `pyframe.Softmax` makes of them.
    sample_weight : Value, shape (n,), optional
    reduction : {"mean", "sum", "none"}, default "mean"
    label_smoothing : float in [0, 1), default 0.0
        This share of the target is given evenly to all classes (Szegedy et al., CVPR 2016, section
        7).

    Examples
    --------
    >>> import pyframe as pf
    >>> y, x = pf.Placeholder("y", shape=(None, 3)), pf.Placeholder("x", shape=(None, 3))
    >>> loss = pf.compile(pf.SoftCrossEntropy(y, x)).run({y: [[1, 0, 0]], x: [[0, 0, 0]]})
    >>> round(float(loss), 4)
    1.0986
    """
    share = number(at_least=0, below=1)(label_smoothing, "SoftCrossEntropy: label_smoothing")
    if share:
        if not y_hat.shape or y_hat.shape[-1] is None:
            raise ShapeError("label_smoothing needs logits whose number of classes is known")
        y = (1.0 - share) * y + share / y_hat.shape[-1]
    return -1.0 * Sum(y * LogSoftmax(y_hat), axis=-1)


@loss(
    "kl_divergence",
    target_domain="shares",
    element=lambda y, x: _soft(y, x) + (y * np.log(np.maximum(y, LEAST))).sum(-1),
    sample=lambda draw: (*_shares(draw), {}),
    size=lambda y, x: 1 + np.abs(x).sum(-1) + x.shape[-1],
    pair=_logits_of,
    aliases=("kl_div", "kl_div_loss", "kld", "kullback_leibler_divergence"),
)
def KlDivergence(y: Value, y_hat: Value) -> Value:
    """l = sum_c y_c (log y_c - log softmax(x)_c), the divergence of the prediction from the target.

    Parameters
    ----------
    y : Value of floats, shape (n, ..., classes)
        Probabilities, which add up to 1; 0 log 0 counts as 0.
    y_hat : Value, shape (n, ..., classes)
        The logits, or the probabilities that `pyframe.Softmax` makes of them.
    sample_weight : Value, shape (n,), optional
    reduction : {"mean", "sum", "none"}, default "mean"
        The mean is that over the rows.

    References
    ----------
    Kullback, Leibler, "On information and sufficiency", Annals of Mathematical Statistics 22, 1951.
    """
    return Sum(y * (Log(Maximum(y, LEAST)) - LogSoftmax(y_hat)), axis=-1)


def _independent(y: Any, y_hat: Any, loss: str) -> tuple[Value, Value]:
    return as_pair(y, binary_logits(y_hat, loss), loss)


def _zeros_and_ones(draw: Any) -> tuple[Any, Any]:
    x = draw.choice([1.0, 5.0]) * draw.normal(draw.shape(max_ndim=3))
    return draw.uniform(x.shape), x


def _focal(y: Any, x: Any, gamma: float = 2.0, alpha: float | None = 0.25) -> Any:
    a, b = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
    p = logistic(x)
    return a * y * (1 - p) ** gamma * np.logaddexp(0, -x) + b * (1 - y) * p**gamma * np.logaddexp(
        0, x
    )


def _draw_focal(draw: Any) -> tuple[Any, Any, dict[str, Any]]:
    options = {"gamma": draw.choice([0.0, 1.5, 2.0]), "alpha": draw.choice([None, 0.25])}
    return *_zeros_and_ones(draw), options


@loss(
    "binary_focal_loss",
    target_domain="unit",
    element=_focal,
    sample=_draw_focal,
    size=lambda y, x, gamma=2.0, alpha=0.25: (1 + np.abs(x)) * (1 + gamma * (1 + np.abs(x))),
    pair=_independent,
    aliases=("binary_focal", "binary_focal_crossentropy", "sigmoid_focal_loss"),
)
def BinaryFocalLoss(
    y: Value, y_hat: Value, gamma: float = 2.0, alpha: float | None = 0.25
) -> Value:
    """l = -a y (1 - p)^gamma log p - (1 - a) (1 - y) p^gamma log(1 - p), p = sigmoid(x).

    The cross-entropy with less weight for what is right already, so that rare and hard rows count.

    Parameters
    ----------
    y : Value of floats, shape (n, ...)
        The probability of the positive class, usually 0 or 1.
    y_hat : Value, shape (n, ...)
        The logits, or the probabilities that `pyframe.Sigmoid` makes of them.
    sample_weight : Value, shape (n,), optional
    reduction : {"mean", "sum", "none"}, default "mean"
    gamma : float, default 2.0
        0 is the binary cross-entropy.
    alpha : float in [0, 1] or None, default 0.25
        The weight a of the positive class; None weighs neither.

    References
    ----------
    Lin et al., "Focal loss for dense object detection", ICCV 2017, equation 5.
    """
    g = number(at_least=0)(gamma, "BinaryFocalLoss: gamma")
    own = rest = 1.0
    if alpha is not None:
        own = number(at_least=0, at_most=1)(alpha, "BinaryFocalLoss: alpha")
        rest = 1.0 - own
    miss, hit = Softplus(-1.0 * y_hat), Softplus(y_hat)  # -log p, -log(1 - p)
    return own * y * Exp(-g * hit) * miss + rest * (1.0 - y) * Exp(-g * miss) * hit


def _positive_weight(y: Any, x: Any, pos_weight: Any = 1.0) -> Any:
    return pos_weight * y * np.logaddexp(0, -x) + (1 - y) * np.logaddexp(0, x)


@loss(
    "weighted_binary_cross_entropy",
    target_domain="unit",
    element=_positive_weight,
    sample=lambda draw: (*_zeros_and_ones(draw), {"pos_weight": draw.choice([1.0, 0.5, 4.0])}),
    size=lambda y, x, pos_weight=1.0: (1 + np.abs(x)) * (1 + pos_weight),
    pair=_independent,
)
def WeightedBinaryCrossEntropy(y: Value, y_hat: Value, pos_weight: Any = 1.0) -> Value:
    """l = -w y log p - (1 - y) log(1 - p), p = sigmoid(x): positives count w times.

    Parameters
    ----------
    y : Value of floats, shape (n, ...)
        0 and 1, or probabilities. Several labels a row are columns of their own.
    y_hat : Value, shape (n, ...)
        The logits, or the probabilities that `pyframe.Sigmoid` makes of them.
    sample_weight : Value, shape (n,), optional
    reduction : {"mean", "sum", "none"}, default "mean"
    pos_weight : float or array_like (labels,), default 1.0
        Usually how many negatives there are to a positive; one number, or one for each label along
        the last axis.
    """
    weight = np.asarray(pos_weight, np.float64)
    if not (np.isfinite(weight).all() and (weight >= 0).all()):
        raise ArgumentError("pos_weight must be numbers of at least 0")
    if weight.ndim and (weight.ndim > 1 or not y_hat.shape or y_hat.shape[-1] != len(weight)):
        raise ShapeError(
            f"pos_weight has the shape {weight.shape}, and the logits are {describe(y_hat.shape)}: "
            "give one number, or one for each label along the last axis"
        )
    factor = Constant(weight, dtype=y_hat.dtype)
    return factor * y * Softplus(-1.0 * y_hat) + (1.0 - y) * Softplus(y_hat)


def _dice(y: Any, x: Any, smooth: float = 1.0) -> Any:
    axes = tuple(range(1, x.ndim))
    p = logistic(x)
    return 1 - (2 * (p * y).sum(axes) + smooth) / (p.sum(axes) + y.sum(axes) + smooth)


def _draw_dice(draw: Any) -> tuple[Any, Any, dict[str, Any]]:
    x = draw.normal((draw.size(high=9), *draw.shape(min_ndim=1, max_ndim=2)))
    return draw.uniform(x.shape), x, {"smooth": draw.choice([1.0, 0.5])}


def _masks(y: Any, y_hat: Any, loss: str) -> tuple[Value, Value]:
    target, logits = _independent(y, y_hat, loss)
    if logits.shape is None or len(logits.shape) < 2:
        raise ShapeError(f"{loss}: the masks must be (n, ...); got {describe(logits.shape)}")
    return target, logits


@loss(
    "dice_loss",
    target_domain="unit",
    element=_dice,
    sample=_draw_dice,
    size=lambda y, x, smooth=1.0: np.full(len(x), 4.0),
    pair=_masks,
    aliases=("dice",),
)
def DiceLoss(y: Value, y_hat: Value, smooth: float = 1.0) -> Value:
    """l = 1 - (2 sum p y + s) / (sum p + sum y + s) of each sample, p = sigmoid(x).

    How little a predicted mask overlaps with the true one. One loss for each sample.

    Parameters
    ----------
    y : Value of floats, shape (n, ...)
        The mask, 0 or 1.
    y_hat : Value, shape (n, ...)
        The logits, or the probabilities that `pyframe.Sigmoid` makes of them.
    sample_weight : Value, shape (n,), optional
    reduction : {"mean", "sum", "none"}, default "mean"
    smooth : float, default 1.0
        s, above 0, so that two empty masks agree.

    References
    ----------
    Milletari, Navab, Ahmadi, "V-Net", 3DV 2016, section 3, without its squares.
    """
    s = number(above=0)(smooth, "DiceLoss: smooth")
    p = Sigmoid(y_hat)
    axes = tuple(range(1, len(y_hat.shape or ())))
    both: Value = Sum(p * y, axis=axes)
    result: Value = 1.0 - (2.0 * both + s) / (Sum(p, axis=axes) + Sum(y, axis=axes) + s)
    return result


def _class_focal(y: Any, x: Any, weight: Any = None, *, gamma: float = 2.0,
                 reduction: str = "mean") -> Any:  # fmt: skip
    plain = CrossEntropy.reference(y, x, None, reduction="none")
    return reduce_loss(np.maximum(1 - np.exp(-plain), LEAST) ** gamma * plain, weight, reduction)


def _draw_class_focal(draw: Any) -> Case:
    shape, classes = draw.shape(min_ndim=1, max_ndim=2), draw.choice([2, 3, 10])
    weight = draw.positive(shape[:1]) if draw.choice([False, True]) else None
    options = {"reduction": draw.choice(REDUCTIONS), "gamma": draw.choice([0.0, 1.5, 2.0])}
    return Case((draw.labels(shape, classes), draw.normal((*shape, classes)), weight), options)


@composite(
    "focal_loss",
    reference=_class_focal,
    sample=_draw_class_focal,
    magnitude=lambda y, x, weight=None, gamma=2.0, reduction="mean": (
        100 + np.size(y),
        np.abs(reduce_loss(4 + 4 * np.abs(x).sum(-1), weight, reduction)),
    ),
    listed_in="losses",
    aliases=("focal", "categorical_focal_crossentropy"),
    integer_inputs=(0,),
    optional_inputs=(2,),
    constant_inputs=(2,),
)
def FocalLoss(
    y: Any, y_hat: Any, sample_weight: Any = None, reduction: str = "mean", *, gamma: float = 2.0
) -> Value:
    """l = -(1 - p_y)^gamma log p_y, with p = softmax(x): a cross-entropy for hard rows.

    Parameters
    ----------
    y : Value of int64, shape (...)
        Labels in [0, classes).
    y_hat : Value, shape (..., classes)
        The logits, or the probabilities that `pyframe.Softmax` makes of them.
    sample_weight : Value, shape (n,), optional
    reduction : {"mean", "sum", "none"}, default "mean"
    gamma : float, default 2.0
        0 is the cross-entropy.

    References
    ----------
    Lin et al., "Focal loss for dense object detection", ICCV 2017, equation 4.
    """
    g = number(at_least=0)(gamma, "FocalLoss: gamma")
    one_of(REDUCTIONS)(reduction, "FocalLoss: reduction")
    plain = CrossEntropy(y, y_hat, None, "none")
    easy = Maximum(1.0 - Exp(-1.0 * plain), LEAST)
    return ReduceLoss(Exp(g * Log(easy)) * plain, sample_weight, reduction)


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
    SoftCrossEntropy,
    KlDivergence,
    BinaryFocalLoss,
    WeightedBinaryCrossEntropy,
    DiceLoss,
    FocalLoss,
)
