"""Losses of margins and distances, composed of other ops; see `pyframe.ops.loss_base`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyframe.attributes import number
from pyframe.graph.composite import Composite, composite
from pyframe.graph.node import Value
from pyframe.graph.op import Case
from pyframe.ops.activations import Relu
from pyframe.ops.arithmetic import Maximum, Sqrt, Square
from pyframe.ops.loss_base import LEAST, as_pair, loss
from pyframe.ops.losses import REDUCTIONS, ReduceLoss, reduce_loss
from pyframe.ops.reductions import Sum


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
    Hinge,
    SquaredHinge,
    CosineLoss,
    ContrastiveLoss,
    TripletLoss,
)
