"""Metrics by name. They are ops, called as ``metric(y, y_hat)``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

import numpy as np

from pyframe.attributes import one_of
from pyframe.hookspecs import hookimpl
from pyframe.ops import listed_in, ranking
from pyframe.plugins.registry import registries


def get(metric: Any) -> Callable[..., Any]:
    """Return the metric of a name; a callable is returned as it is.

    Parameters
    ----------
    metric : str or callable
        A callable of (y, y_hat) that gives a node whose outputs add up over batches; or, for a
        `Trainer`, a node of one number, the mean of a batch, a node (n, ...) of numbers to be
        averaged, or a pair of nodes, a sum and what to divide it by. Its attribute
        ``higher_is_better``, or that of the node's class, says which way is better. A function of
        ``sklearn.metrics`` becomes a `WholeEpoch`.

    Raises
    ------
    UnknownNameError
        If the name is not registered.
    ArgumentError
        If it is neither.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.metrics.get("accuracy").__name__
    'Accuracy'
    """
    found = registries["metrics"].function(metric, "metric", such_as="mae")
    if (getattr(found, "__module__", "") or "").startswith("sklearn.metrics"):
        return WholeEpoch(found)
    return found


def higher_is_better(metric: Any, node: Any) -> bool | None:
    """Return whether a higher value of a metric means a better model.

    Parameters
    ----------
    metric : callable
        As `get` returns it. Its attribute ``higher_is_better``, True or False, takes precedence;
        a plain function can be given one.
    node : Node
        The node that the metric made; its class is asked otherwise.

    Returns
    -------
    bool or None
        None if neither has the attribute.

    Examples
    --------
    >>> import pyframe as pf
    >>> y, y_hat = pf.Placeholder("y", shape=(None, 1)), pf.Placeholder("y_hat", shape=(None, 1))
    >>> pf.metrics.higher_is_better(pf.R2, pf.R2(y, y_hat))
    True
    """
    said: bool | None = getattr(metric, "higher_is_better", None)
    return getattr(node, "higher_is_better", None) if said is None else said


class WholeEpoch:
    """A metric of all predictions of an epoch at once, which no sums over batches can give.

    It is computed for validation data and by `Trainer.evaluate`, where the predictions of all rows
    are kept meanwhile. While training it would be of outputs that a changing model has given: the
    logs of a fit have it under ``val_<name>`` alone, and not without validation data.

    Parameters
    ----------
    function : callable
        ``function(y_true, y_pred)`` gives a number; it may take ``sample_weight=`` too. Those of
        ``sklearn.metrics`` are of this kind.
    on : {"labels", "probabilities", "outputs"}, optional
        What y_pred is: the predicted classes; probabilities, of the positive class if there are
        two; or what the model gives. Default: for functions of scikit-learn what they need, else
        "outputs".
    name : str, optional
        In the logs; default: that of the function.
    higher_is_better : bool, optional
        Default: what the name says: a "score" or an "auc" is better the higher it is, an "error" or
        a "loss" the lower.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> X = np.linspace(-1, 1, 40)[:, None]
    >>> y = (X[:, 0] > 0).astype(int)
    >>> def share_of_ones(y_true, y_pred):
    ...     return np.mean(y_pred)
    >>> metric = pf.metrics.WholeEpoch(share_of_ones, on="labels")
    >>> model = pf.Sequential([pf.layers.Dense(1)])
    >>> trainer = pf.Trainer(model, "bce", pf.optimizers.Adam(0.1), metrics=[metric, "roc_auc"])
    >>> history = trainer.fit(X, y, epochs=50, validation_data=(X, y), verbose=0)
    >>> history["val_roc_auc"][-1]
    1.0
    """

    aliases: tuple[str, ...] = ()

    def __init__(
        self,
        function: Callable[..., Any],
        on: str | None = None,
        *,
        name: str | None = None,
        higher_is_better: bool | None = None,
        aliases: tuple[str, ...] = (),
    ) -> None:
        own = getattr(function, "__name__", type(function).__name__)
        self.function, self.op = function, name or own
        self.__name__ = self.op
        self.on = one_of(KINDS)(on or _kind_of(function), "WholeEpoch: on")
        if higher_is_better is None:
            worse = self.op.endswith(("error", "loss", "deviance"))
            better = self.op.endswith(("score", "auc", "precision", "coef", "corrcoef"))
            higher_is_better = False if worse else True if better else None
        self.higher_is_better = higher_is_better
        self.aliases = aliases
        self._takes_weights = "sample_weight" in signature(function).parameters

    def __call__(self, y: Any, y_hat: Any, sample_weight: Any = None) -> float:
        """Return the metric of arrays; one row for each sample."""
        extra = {} if sample_weight is None else {"sample_weight": sample_weight}
        return float(self.function(y, y_hat, **(extra if self._takes_weights else {})))

    def __repr__(self) -> str:
        return f"<metric {self.op} of a whole epoch>"


KINDS = ("labels", "probabilities", "outputs")


def _kind_of(function: Callable[..., Any]) -> str:
    """Return what a function of scikit-learn is computed from."""
    module = getattr(function, "__module__", "") or ""
    if not module.startswith("sklearn.metrics"):
        return "outputs"
    name = function.__name__
    if module.endswith("_ranking") or name in ("log_loss", "brier_score_loss", "d2_log_loss_score"):
        return "probabilities"
    return "outputs" if module.endswith("_regression") else "labels"


def _each_class(measure: Callable[..., float]) -> Callable[..., float]:
    """Return a metric of two classes, or the mean over one-against-the-rest for more."""

    def of(y_true: Any, y_pred: Any, sample_weight: Any = None) -> float:
        y, score = np.asarray(y_true), np.asarray(y_pred, np.float64)
        weight = np.ones(len(score)) if sample_weight is None else np.asarray(sample_weight, float)
        if score.ndim == 1:
            return measure(y.reshape(-1) > 0.5, score, weight)
        if y.ndim == 1:  # labels
            y = np.arange(score.shape[1]) == y[:, None]
        columns = (measure(y[:, c] > 0.5, score[:, c], weight) for c in range(score.shape[1]))
        return float(np.mean(list(columns)))

    return of


roc_auc = WholeEpoch(
    _each_class(ranking.roc_auc),
    "probabilities",
    name="roc_auc",
    higher_is_better=True,
    aliases=("auc", "roc_auc_score"),
)
average_precision = WholeEpoch(
    _each_class(ranking.average_precision),
    "probabilities",
    name="average_precision",
    higher_is_better=True,
    aliases=("average_precision_score", "pr_auc"),
)
WHOLE = {metric.op: metric for metric in (roc_auc, average_precision)}
BUILT_IN = (*listed_in("metrics"), *WHOLE)


@hookimpl
def pyframe_register_metrics() -> Mapping[str, Callable[..., Any]]:
    """Name the built-in metrics."""
    return {**listed_in("metrics"), **WHOLE}


def __getattr__(name: str) -> Any:
    """Return what a plugin has registered."""
    return registries["metrics"].attribute(name)
