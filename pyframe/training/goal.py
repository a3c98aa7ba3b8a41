"""The goal of a training: losses and metrics, by name, and compiled into one plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pyframe import losses, metrics
from pyframe.engine.plan import Plan, compile
from pyframe.errors import ArgumentError, DTypeError, FeedError, GraphError, check_number
from pyframe.graph.node import Node, Placeholder, Value
from pyframe.graph.order import topological_order
from pyframe.graph.spec import INT64, Array, describe
from pyframe.layers.base import unused_name
from pyframe.model import Model
from pyframe.ops.logits import before_sigmoid
from pyframe.ops.losses import Loss
from pyframe.ops.metrics import BinaryAccuracy, ElementMetric, MeanOf, Ratio

Function = Callable[..., Any]


class Column(NamedTuple):
    """One loss or metric: its name in the logs, its part of a record, and which way is better."""

    key: str
    node: Node
    start: int
    stop: int
    higher_is_better: bool | None

    def values(self, records: Array) -> list[Any]:
        """Return the value for each row of records, which are sums over an epoch."""
        sums = records[:, self.start : self.stop]
        finalize_all = getattr(self.node, "finalize_all", None)  # absent: no subclass of Metric
        if finalize_all is not None:
            return finalize_all(sums)  # type: ignore[no-any-return]
        return list(map(self.node.finalize, sums.tolist()))  # type: ignore[attr-defined]

    def plain_values(self, records: Array) -> list[Any]:
        """Return the same as numbers, and lists of them, which JSON can hold."""
        values = self.values(records)
        if isinstance(self.node, Ratio):  # floats already, and perhaps a million of them
            return values
        return [np.asarray(value).tolist() for value in values]


def _are_shares(array: Array) -> bool:
    sums = array.sum(axis=-1, dtype=np.float64)
    return bool(array.min() >= 0 and np.abs(sums - 1).max() < 1e-3)


# What a loss may demand of its targets: a test, and what to say of those that fail it.
DOMAINS: dict[str, tuple[Callable[[Array], bool], str]] = {
    "unit": (
        lambda a: bool(a.min() >= 0 and a.max() <= 1),
        "binary losses and the accuracy of floats take 0, 1 or a probability between them. For "
        "real numbers use the loss l2 with the metrics mae, rmse or r2, for several classes "
        "cross_entropy with integer labels",
    ),
    "shares": (
        _are_shares,
        "this loss takes probabilities of classes along the last axis, which add up to 1. For "
        "integer labels use cross_entropy, for labels that do not exclude each other "
        "binary_cross_entropy",
    ),
    "counts": (
        lambda a: bool(a.min() >= 0),
        "this loss takes counts, which are at least 0. For real numbers use l2 or l1",
    ),
    "signs": (
        lambda a: bool(np.all(np.abs(a) == 1)),
        "this loss takes -1 and 1. For targets of 0 and 1 write 2 * y - 1, or use "
        "binary_cross_entropy",
    ),
}


class Measured(NamedTuple):
    """A loss or metric before it has its place in a record."""

    key: str
    node: Node
    higher_is_better: bool | None


class CompiledGoal(NamedTuple):
    """A goal for one model: its plan, with the placeholders that targets go to."""

    plan: Plan
    targets: list[Placeholder]
    target_names: list[str]  # those of the outputs that they are for
    weight: Placeholder | None
    columns: list[Column]
    domains: list[tuple[Placeholder, str]]  # targets that are not any numbers; see DOMAINS

    def check_targets(self, arrays: Mapping[Any, Array]) -> None:
        """Raise `ArgumentError` for targets that a loss or a metric cannot mean."""
        for target, domain in self.domains:
            array, (is_inside, advice) = arrays[target], DOMAINS[domain]
            if array.size and not is_inside(array):
                raise ArgumentError(
                    f"the targets {target.label()!r} lie in [{array.min():g}, {array.max():g}]; "
                    f"{advice}"
                )

    def logs(self, record: Array, prefix: str = "") -> dict[str, Any]:
        """Return the losses and metrics of one record."""
        return {prefix + c.key: c.values(record[None])[0] for c in self.columns}

    def higher_is_better(self, name: str) -> bool | None:
        """Return whether more is better of a number in the logs; None if it does not say."""
        columns = {column.key: column for column in self.columns}
        key = name if name in columns else name.removeprefix("val_")
        return columns[key].higher_is_better

    def log_names(self, *, validated: bool) -> list[str]:
        """Return the names in the logs of a fit, with validation or without."""
        keys = [column.key for column in self.columns]
        return [*keys, *(f"val_{key}" for key in keys if validated)]

    def target_feed(self, Y: Any) -> dict[Placeholder, Any]:  # noqa: N803
        """Return targets as a feed: one array, or a list or dict (by name) of several."""
        names = self.target_names
        if isinstance(Y, Mapping):
            if set(names) != set(Y):
                raise FeedError(f"targets are needed for {', '.join(names)}; got {', '.join(Y)}")
            return {p: Y[name] for p, name in zip(self.targets, names, strict=True)}
        if len(self.targets) == 1:
            return {self.targets[0]: Y}
        if not isinstance(Y, list | tuple) or len(Y) != len(self.targets):
            raise FeedError(
                f"the model has {len(names)} outputs ({', '.join(names)}); pass a list of as many "
                "targets, or a dict"
            )
        return dict(zip(self.targets, Y, strict=True))


class Goal:
    """The losses and metrics that a `Trainer` was given, found by their names.

    Parameters
    ----------
    loss : str, callable, or a list or dict of them
    metrics : list of str or callable
    loss_weights : list of float, optional

    Attributes
    ----------
    arguments : dict of str to object
        What was given, by the names that a `Trainer` has for it.

    Raises
    ------
    UnknownNameError, ArgumentError
        If one of them does not exist or makes no sense.
    """

    def __init__(
        self, loss: Any, measures: Iterable[Any] | None, loss_weights: Sequence[float] | None
    ) -> None:
        if isinstance(measures, str):
            raise ArgumentError(f"metrics={measures!r}; pass a list: metrics=[{measures!r}]")
        if measures is None:
            measures = ()
        if not isinstance(measures, Iterable):
            raise ArgumentError(f"metrics={measures!r}; pass a list of names or callables")
        given = list(measures)
        self.arguments = {"loss": loss, "metrics": given, "loss_weights": loss_weights}
        self.loss = _resolve_losses(loss)
        self.metrics: list[tuple[str, Function]] = [(_name_of(m), metrics.get(m)) for m in given]
        self.factors: list[float] | None = None
        if loss_weights is not None:
            self.factors = [check_number("loss_weights", w, at_least=0) for w in loss_weights]

    def compile(
        self, model: Model, optimizer: Any, *, weighted: bool, detect_anomaly: bool
    ) -> CompiledGoal:
        """Return the goal for a model, as a plan with or without sample weights."""
        outputs, names = model.outputs, model.output_names
        weight = None
        if weighted:
            weight = Placeholder("sample_weight", shape=(None,), dtype=outputs[0].dtype)
        several = len(outputs) > 1
        pairs = [
            loss_node(function, output, f"y_{name}" if several else "y", weight)
            for function, output, name in zip(self._losses_of(names), outputs, names, strict=True)
        ]
        cost = self._cost([term for _, term in pairs])
        targets = [target for target, _ in pairs]
        measured = [Measured("loss", MeanOf(cost, targets[0], weight), False)]
        for name, (target, term), output in zip(names, pairs, outputs, strict=True):
            prefix = f"{name}_" if several else ""
            if several:
                measured.append(Measured(f"{name}_loss", MeanOf(term, target, weight), False))
            for key, metric in self.metrics:
                node = metric(target, output)
                if not isinstance(node, Node):
                    raise GraphError(
                        f"metric {key!r} must give a node, and gave {type(node).__name__}"
                    )
                _check_meaning(key, node, output, term)
                rises = metrics.higher_is_better(metric, node)
                measured.append(Measured(prefix + key, node, rises))
        plan = compile(
            cost,
            optimizer,
            outputs=outputs,
            metrics=[one.node for one in measured],
            parameters=model.parameters,
            detect_anomaly=detect_anomaly,
        )
        units = [
            node.inputs[0]
            for node in plan.graph.order
            if getattr(node, "unit_target", False) and node.inputs
        ]
        domains = [(target, "unit") for target in targets if target in units]
        for target, function in zip(targets, self._losses_of(names), strict=True):
            domain = getattr(getattr(function, "func", function), "target_domain", "")
            if domain and (target, domain) not in domains:
                domains.append((target, domain))
        return CompiledGoal(plan, targets, names, weight, _columns(measured), domains)

    def _losses_of(self, names: list[str]) -> list[Function]:
        """Return the loss of each output."""
        if isinstance(self.loss, dict):
            if set(self.loss) != set(names):
                raise ArgumentError(
                    f"the losses are for {', '.join(self.loss)}; the outputs are {', '.join(names)}"
                )
            return [self.loss[name] for name in names]
        if isinstance(self.loss, list):
            if len(self.loss) != len(names):
                raise ArgumentError(f"{len(self.loss)} losses for {len(names)} outputs")
            return self.loss
        return [self.loss] * len(names)

    def _cost(self, terms: list[Value]) -> Value:
        """Return the sum of the losses, each times its factor."""
        if self.factors is not None:
            if len(self.factors) != len(terms):
                raise ArgumentError(f"{len(self.factors)} loss_weights for {len(terms)} outputs")
            terms = [term * factor for term, factor in zip(terms, self.factors, strict=True)]
        cost = terms[0]
        for term in terms[1:]:
            cost = cost + term
        return cost


def _resolve_losses(loss: Any) -> Any:
    if isinstance(loss, Mapping):
        return {name: losses.get(one) for name, one in loss.items()}
    if isinstance(loss, list | tuple):
        return [losses.get(one) for one in loss]
    return losses.get(loss)


def _name_of(metric: Any) -> str:
    if isinstance(metric, str):
        return metric
    return getattr(metric, "op", "") or getattr(metric, "__name__", type(metric).__name__)


def loss_node(
    function: Callable[..., Any], output: Value, name: str, weight: Placeholder | None
) -> tuple[Placeholder, Value]:
    """Return the target's placeholder and the loss; labels if the loss takes no floats there."""
    shape = output.shape
    of_targets = getattr(getattr(function, "func", function), "target_shape", None)
    kinds = [(shape if of_targets is None else of_targets(shape), output.dtype)]
    if shape and of_targets is None:
        kinds.append((shape[:-1], INT64))
    refused: DTypeError | None = None
    for target_shape, dtype in kinds:
        target = Placeholder(name, shape=target_shape, dtype=dtype)
        try:
            term = function(target, output, **({} if weight is None else {"sample_weight": weight}))
        except DTypeError as error:
            refused = refused or error
            continue
        if not isinstance(term, Value) or term.shape not in ((), None):
            shown = describe(term.shape) if isinstance(term, Value) else type(term).__name__
            raise GraphError(f"a loss must give one number, a node of shape (), and gave {shown}")
        return target, term
    assert refused is not None
    raise refused


def _check_meaning(key: str, metric: Node, output: Value, term: Value) -> None:
    """Raise `ArgumentError` if a metric, of what a loss makes of an output, means nothing.

    A sigmoid gives probabilities under any loss. Otherwise the loss decides: under one of values
    an output is compared with its target itself, under a cross-entropy it is a logit.
    """
    if before_sigmoid(output) is not None:
        return
    found = [node for node in topological_order([term]) if isinstance(node, Loss)]
    if isinstance(metric, BinaryAccuracy) and any(loss.of_values for loss in found):
        raise ArgumentError(
            f"metric {key!r} counts how often a class is right, and with the loss {found[0].op} "
            "the output is a real number: use mae, rmse or r2. To classify, use "
            "binary_cross_entropy, or cross_entropy with integer labels"
        )
    if isinstance(metric, ElementMetric) and found and not any(x.of_values for x in found):
        raise ArgumentError(
            f"metric {key!r} compares the output with its target, and with the loss "
            f"{found[0].op} the output is a logit: end with activation='sigmoid', or use accuracy"
        )


def _columns(measured: list[Measured]) -> list[Column]:
    columns: list[Column] = []
    start = 0
    for wanted, node, rises in measured:
        key = unused_name(wanted, [column.key for column in columns])
        if node.shape is None or len(node.shape) != 1 or node.shape[0] is None:
            raise GraphError(f"metric {key!r} must give a vector of known length")
        if not callable(getattr(node, "finalize", None)):
            raise GraphError(
                f"metric {key!r} is a {type(node).__name__} without finalize(sums), which says "
                "what the sums over an epoch mean"
            )
        stop = start + node.shape[0]
        columns.append(Column(key, node, start, stop, rises))
        start = stop
    return columns
