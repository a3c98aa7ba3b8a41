"""Losses of classes and masks, composed of other ops; see `pyframe.ops.loss_formulas`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyframe.attributes import number, one_of
from pyframe.errors import ArgumentError, ShapeError
from pyframe.graph.composite import Composite, composite
from pyframe.graph.node import Constant, Value
from pyframe.graph.op import Case
from pyframe.graph.spec import describe
from pyframe.ops.activations import Sigmoid, Softplus, logistic
from pyframe.ops.arithmetic import Exp, Log, Maximum
from pyframe.ops.entropy import CrossEntropy
from pyframe.ops.logits import binary_logits, class_logits
from pyframe.ops.loss_formulas import LEAST, as_pair, loss
from pyframe.ops.losses import REDUCTIONS, ReduceLoss, reduce_loss
from pyframe.ops.reductions import Sum
from pyframe.ops.softmax import LogSoftmax


def _soft(y: Any, x: Any, label_smoothing: float = 0.0) -> Any:
    if x.shape[-1] == 0:
        return np.zeros(x.shape[:-1])
    logs = x - np.logaddexp.reduce(x, axis=-1, keepdims=True)
    target = (1 - label_smoothing) * y + label_smoothing / max(x.shape[-1], 1)
    return -(target * logs).sum(-1)


def _shares(draw: Any) -> tuple[Any, Any]:
    shape = (*draw.shape(min_ndim=1, max_ndim=2), draw.choice([1, 2, 5, 17]))
    y = 1 + draw.uniform(shape)
    return y / y.sum(-1, keepdims=True), draw.choice([1.0, 5.0]) * draw.normal(shape)


def _logits_of(y: Any, y_hat: Any, loss: str) -> tuple[Value, Value]:
    return as_pair(y, class_logits(y_hat, loss), loss)


@loss(
    "soft_cross_entropy",
    of_values=False,
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
        y = (1.0 - share) * y + share / max(y_hat.shape[-1], 1)
    return -1.0 * Sum(y * LogSoftmax(y_hat), axis=-1)


@loss(
    "kl_divergence",
    of_values=False,
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
    of_values=False,
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
    of_values=False,
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
    of_values=False,
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
    SoftCrossEntropy,
    KlDivergence,
    BinaryFocalLoss,
    WeightedBinaryCrossEntropy,
    DiceLoss,
    FocalLoss,
)
