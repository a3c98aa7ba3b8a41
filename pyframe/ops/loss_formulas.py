"""Losses of numbers and counts, composed of other ops; see `pyframe.ops.loss_base`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pyframe.attributes import number
from pyframe.errors import ShapeError
from pyframe.graph.composite import Composite
from pyframe.graph.node import Value
from pyframe.graph.spec import describe
from pyframe.ops.activations import Softplus
from pyframe.ops.arithmetic import Abs, Exp, Log, Maximum, Square
from pyframe.ops.loss_base import as_pair, loss, node_of
from pyframe.ops.shapes import Slice


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
    shape = node_of(y_hat, loss).shape
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


OPS: Sequence[Composite] = (
    LogCosh,
    QuantileLoss,
    PoissonLoss,
    GaussianNll,
)
