"""The goal of a training: losses and metrics, by name, and compiled into one plan."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from pyframe import losses, metrics
from pyframe.engine.batches import BatchLoop
from pyframe.engine.loop import Loop
from pyframe.engine.plan import Plan, compile
from pyframe.errors import (
    ArgumentError,
    DTypeError,
    FeedError,
    GraphError,
    ShapeError,
    check_number,
    raise_if_signalled,
)
from pyframe.graph.node import Node, Placeholder, Value
from pyframe.graph.order import topological_order
from pyframe.graph.parameter import Parameter
from pyframe.graph.spec import INT64, Array, describe
from pyframe.layers.base import unused_name
from pyframe.model import Model
from pyframe.ops.activations import logistic
from pyframe.ops.class_metrics import BinaryAccuracy, BinaryConfusionMatrix
from pyframe.ops.logits import before_sigmoid, behind, is_mixed
from pyframe.ops.losses import Loss
from pyframe.ops.metrics import ElementMean, ElementMetric, MeanOf, Ratio, SumOverCount
from pyframe.ops.softmax import Softmax

Function = Callable[..., Any]
ROWS_AT_ONCE = 4096  # are predicted for the metrics of a whole epoch


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


class Asked(NamedTuple):
    """A metric that was asked for: its name, its function, and whether it heeds sample weights."""

    key: str
    function: Function
    weighted: bool


class Whole(NamedTuple):
    """A metric of a whole epoch: its name in the logs, what it is of, and the kind of output."""

    key: str
    metric: metrics.WholeEpoch
    target: Placeholder
    output: Value
    gives: str  # "probabilities", "logits" or "values"
    weighted: bool

    def value(self, given: Array, made: Array, weight: Array | None) -> float:
        """Return the metric for targets and outputs of all rows."""
        y, y_hat = (a[:, 0] if a.ndim == 2 and a.shape[1] == 1 else a for a in (given, made))
        if self.metric.on != "outputs":
            y_hat = as_probabilities(y_hat.astype(np.float64), self.gives, y)
        if self.metric.on == "labels":
            y_hat = y_hat.argmax(-1) if y_hat.ndim > y.ndim else (y_hat > 0.5).astype(np.int64)
            y = y if y.dtype.kind == "i" else (y > 0.5).astype(np.int64)
        return self.metric(y, y_hat, weight if self.weighted else None)


def as_probabilities(outputs: Array, gives: str, y: Array) -> Array:
    """Return outputs as probabilities, of the positive class if there are two."""
    if gives == "logits" and outputs.ndim > y.ndim:
        e = np.exp(outputs - outputs.max(-1, keepdims=True))
        outputs = e / e.sum(-1, keepdims=True)
    elif gives == "logits":
        outputs = logistic(outputs)
    return outputs[..., 1] if outputs.ndim > y.ndim and outputs.shape[-1] == 2 else outputs


class CompiledGoal(NamedTuple):
    """A goal for one model: its plan, with the placeholders that targets go to."""

    plan: Plan
    targets: list[Placeholder]
    target_names: list[str]  # those of the outputs that they are for
    weight: Placeholder | None
    columns: list[Column]
    domains: list[tuple[Placeholder, str]]  # targets that are not any numbers; see DOMAINS
    whole: list[Whole] = []
    gives: list[str] = []  # what each output gives: see `pyframe.outcomes`
    terms: list[Value] = []  # the loss of each output

    def check_targets(self, arrays: Mapping[Any, Array]) -> None:
        """Raise `ArgumentError` for targets that a loss or a metric cannot mean."""
        for target, domain in self.domains:
            array, (is_inside, advice) = arrays[target], DOMAINS[domain]
            if array.size and not is_inside(array):
                raise ArgumentError(
                    f"the targets {target.label()!r} lie in [{array.min():g}, {array.max():g}]; "
                    f"{advice}"
                )

    def collected(self) -> Collected | None:
        """Return what collects the outputs of an epoch, if any metric wants them."""
        return Collected(self) if self.whole else None

    def whole_logs(self, loop: Loop) -> dict[str, float]:
        """Return the metrics of a whole epoch that a loop has run over."""
        if not self.whole:
            return {}
        if isinstance(loop, BatchLoop):
            assert isinstance(loop.each, Collected)
            return loop.each.logs()
        collected = Collected(self)
        for start in range(0, loop.samples, ROWS_AT_ONCE):
            collected({p: a[start : start + ROWS_AT_ONCE] for p, a in loop.arrays.items()})
        return collected.logs()

    def logs(self, record: Array, prefix: str = "") -> dict[str, Any]:
        """Return the losses and metrics of one record."""
        return {prefix + c.key: c.values(record[None])[0] for c in self.columns}

    def higher_is_better(self, name: str) -> bool | None:
        """Return whether more is better of a number in the logs; None if it does not say."""
        rises = {column.key: column.higher_is_better for column in self.columns}
        rises |= {one.key: one.metric.higher_is_better for one in self.whole}
        return rises[name if name in rises else name.removeprefix("val_")]

    def log_names(self, *, validated: bool) -> list[str]:
        """Return the names in the logs of a fit, with validation or without."""
        keys = [column.key for column in self.columns]
        held_out = [*keys, *(one.key for one in self.whole)] if validated else []
        return [*keys, *(f"val_{key}" for key in held_out)]

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


class Collected:
    """Outputs, targets and weights of an epoch, for the metrics that need all of them at once."""

    def __init__(self, goal: CompiledGoal) -> None:
        self.goal = goal
        self.outputs = list(dict.fromkeys(one.output for one in goal.whole))
        self.given = [*goal.targets, *([] if goal.weight is None else [goal.weight])]
        self.parts: list[list[Array]] = []

    def __call__(self, feed: Mapping[Placeholder, Array]) -> None:
        """Predict a batch, and keep what is needed of it."""
        inputs = {p: a for p, a in feed.items() if p not in self.given}
        made = self.goal.plan.run(inputs, outputs=self.outputs)
        self.parts.append([*made, *(np.array(feed[p]) for p in self.given)])

    def logs(self) -> dict[str, float]:
        """Return the metrics, and forget what they were made of."""
        columns = map(np.concatenate, zip(*self.parts, strict=True))
        found: dict[Any, Array] = dict(zip([*self.outputs, *self.given], columns, strict=True))
        self.parts.clear()
        weight = None if self.goal.weight is None else found[self.goal.weight]
        return {w.key: w.value(found[w.target], found[w.output], weight) for w in self.goal.whole}


class Goal:
    """The losses and metrics that a `Trainer` was given, found by their names.

    Parameters
    ----------
    loss : str, callable, or a list or dict of them
    measures, weighted_measures : list of str or callable, or a dict of such lists
        The metrics, and those that look at sample weights.
    loss_weights : list or dict of float, optional

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
        self,
        loss: Any,
        measures: Iterable[Any] | Mapping[str, Any] | None,
        loss_weights: Sequence[float] | Mapping[str, float] | None,
        weighted_measures: Iterable[Any] | Mapping[str, Any] | None = (),
    ) -> None:
        self.arguments: dict[str, Any] = {"loss": loss, "loss_weights": loss_weights}
        self.loss = _resolve_losses(loss)
        # For every output under None, or for each by its name.
        self.metrics: dict[str | None, list[Asked]] = {}
        for argument, given in (("metrics", measures), ("weighted_metrics", weighted_measures)):
            listed = self.arguments[argument] = _listed(argument, given)
            weighted = argument == "weighted_metrics"
            for name, some in _by_output(listed).items():
                asked = [Asked(_name_of(m), metrics.get(m), weighted) for m in some]
                self.metrics.setdefault(name, []).extend(asked)
        self.factors: list[float] | dict[str, float] | None = None
        if isinstance(loss_weights, Mapping):
            self.factors = {
                name: check_number(f"loss_weights[{name!r}]", w, at_least=0)
                for name, w in loss_weights.items()
            }
        elif not isinstance(loss_weights, Iterable | None):
            raise ArgumentError(f"loss_weights={loss_weights!r}; pass a list or dict of numbers")
        elif loss_weights is not None:
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
        terms = [term for _, term in pairs]
        cost = self._cost(terms, names)
        for parameter in model.parameters:
            if parameter.trainable and parameter.regularizer is not None:
                cost = cost + _penalty(parameter, parameter.regularizer)
        whole: list[Whole] = []
        domains: list[tuple[Placeholder, str]] = []
        targets = [target for target, _ in pairs]
        measured = [Measured("loss", MeanOf(cost, targets[0], weight), False)]
        kinds = kinds_of(outputs, terms, self._losses_of(names))
        for name, (target, term), output, gives in zip(names, pairs, outputs, kinds, strict=True):
            prefix = f"{name}_" if several else ""
            if several:
                measured.append(Measured(f"{name}_loss", MeanOf(term, target, weight), False))
            for key, metric, heeds in self._metrics_of(name, names):
                key = f"weighted_{key}" if heeds else key
                if isinstance(metric, metrics.WholeEpoch):
                    whole.append(Whole(prefix + key, metric, target, output, gives, heeds))
                    continue
                node = measure(key, metric, target, output, weight if heeds else None)
                domain = getattr(getattr(metric, "func", metric), "target_domain", "")
                if domain and target.dtype.kind == "f":
                    domains.append((target, domain))
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
        domains += [(target, "unit") for target in targets if target in units]
        for target, function in zip(targets, self._losses_of(names), strict=True):
            domain = getattr(getattr(function, "func", function), "target_domain", "")
            if domain:
                domains.append((target, domain))
        domains = list(dict.fromkeys(domains))
        meant = outcomes_of(outputs, targets, kinds, domains)
        columns = _columns(measured)
        return CompiledGoal(plan, targets, names, weight, columns, domains, whole, meant, terms)

    def _metrics_of(self, name: str, names: list[str]) -> list[Asked]:
        """Return the metrics of an output."""
        unknown = [one for one in self.metrics if one is not None and one not in names]
        if unknown:
            raise ArgumentError(
                f"there are metrics for {unknown[0]!r}; the outputs are {', '.join(names)}"
            )
        return [*self.metrics.get(None, ()), *self.metrics.get(name, ())]

    def _losses_of(self, names: list[str]) -> list[Function]:
        """Return the loss of each output."""
        if isinstance(self.loss, dict):
            if set(self.loss) != set(names):
                raise ArgumentError(
                    f"the losses are for {', '.join(map(str, self.loss))}; the outputs are "
                    f"{', '.join(names)}"
                )
            return [self.loss[name] for name in names]
        if isinstance(self.loss, list):
            if len(self.loss) != len(names):
                raise ArgumentError(f"{len(self.loss)} losses for {len(names)} outputs")
            return self.loss
        return [self.loss] * len(names)

    def _cost(self, terms: list[Value], names: list[str]) -> Value:
        """Return the sum of the losses, each times its factor."""
        factors = self.factors
        if isinstance(factors, dict):
            if set(factors) != set(names):
                raise ArgumentError(
                    f"the loss_weights are for {', '.join(map(str, factors))}; the outputs are "
                    f"{', '.join(names)}"
                )
            factors = [factors[name] for name in names]
        if factors is not None:
            if len(factors) != len(terms):
                raise ArgumentError(f"{len(factors)} loss_weights for {len(terms)} outputs")
            terms = [term * factor for term, factor in zip(terms, factors, strict=True)]
        cost = terms[0]
        for term in terms[1:]:
            cost = cost + term
        return cost


def _penalty(parameter: Parameter, regularizer: Callable[[Value], Value]) -> Value:
    """Return the number that a parameter adds to the loss, or raise if it is none."""
    penalty = regularizer(parameter)
    if not isinstance(penalty, Value):
        raise GraphError(
            f"the regularizer of {parameter.label()} gives {penalty!r:.80}, which is no node"
        )
    if penalty.shape != ():
        raise ShapeError(
            f"the regularizer of {parameter.label()} gives {describe(penalty.shape)}; a penalty is "
            "one number: sum it"
        )
    return penalty


def _resolve_losses(loss: Any) -> Any:
    if isinstance(loss, Mapping):
        return {name: losses.get(one) for name, one in loss.items()}
    if isinstance(loss, list | tuple):
        return [losses.get(one) for one in loss]
    return losses.get(loss)


def _listed(argument: str, given: Any) -> Any:
    """Return metrics as a list, or a dict of them as it is."""
    if isinstance(given, str):
        raise ArgumentError(f"{argument}={given!r}; pass a list: {argument}=[{given!r}]")
    if given is not None and not isinstance(given, Iterable):
        raise ArgumentError(f"{argument}={given!r}; pass a list of names or callables")
    return given if isinstance(given, Mapping) else list(() if given is None else given)


def _by_output(given: Any) -> dict[str | None, list[Any]]:
    """Return lists of metrics by the output that they are for, None for all."""
    if not isinstance(given, Mapping):
        return {None: given}
    return {
        name: list(some) if isinstance(some, list | tuple) else [some]
        for name, some in given.items()
    }


def measure(key: str, metric: Function, target: Value, output: Value, weight: Value | None) -> Node:
    """Return the node of a metric of a target and an output, and of sample weights if there are.

    Its function gives a node whose outputs add up over batches; or a node of one number, the mean
    over the batch; one of shape (n, ...), to be averaged; or a pair of them, a sum and its divisor.
    """
    takes = weight is not None and _takes_weights(metric)
    if not takes and _needs_a_third(metric):
        raise ArgumentError(
            f"metric {key!r} needs three arguments, and there are no sample weights: give the "
            "third a default, as in def metric(y, y_hat, sample_weight=None)"
        )
    made = metric(target, output, weight) if takes else metric(target, output)
    is_pair = isinstance(made, tuple) and len(made) == 2
    is_whole = isinstance(made, Node) and callable(getattr(made, "finalize", None))
    rows = isinstance(made, Value) and made.dtype.kind == "f" and made.shape != ()
    if weight is not None and not takes and (is_pair or is_whole or not rows):
        raise ArgumentError(
            f"metric {key!r} takes no sample weights: give its function a third argument for them, "
            "or have it give a node of one number for each row"
        )
    if is_pair and all(isinstance(v, Value) for v in made):
        return SumOverCount(*made)
    if is_whole:
        return made  # type: ignore[no-any-return]
    if isinstance(made, Value) and made.dtype.kind == "f":
        return ElementMean(made, weight) if rows else MeanOf(made, target, weight)
    raise GraphError(
        f"metric {key!r} must give a node, or a pair of nodes, a sum and its divisor, and gave "
        f"{type(made).__name__}"
    )


def _takes_weights(metric: Function) -> bool:
    """Return whether the third argument of a function, or of an op, is for weights."""
    optional = getattr(getattr(metric, "func", metric), "optional_inputs", None)
    if optional is not None:
        return 2 in optional
    return "weight" in "".join([*inspect.signature(metric).parameters][2:3])


def _needs_a_third(metric: Function) -> bool:
    """Return whether a function cannot be called with a target and an output alone."""
    try:
        third = [*inspect.signature(metric).parameters.values()][2:3]
    except ValueError as error:  # one in C may have no signature
        raise_if_signalled(error)
        return False
    return any(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in third)


def kind_of_output(output: Value, term: Value, loss: Any) -> str:
    """Return whether an output is probabilities, logits or values, by its node and its loss."""
    if is_mixed(output) or before_sigmoid(output) is not None:
        return "probabilities"
    found = topological_order([term])
    losses = [getattr(loss, "func", loss), *(n for n in found if isinstance(n, Loss))]
    of_classes = not all(getattr(one, "of_values", True) for one in losses)
    return "logits" if of_classes else "values"


def kinds_of(outputs: list[Value], terms: list[Value], losses: list[Function]) -> list[str]:
    """Return the kind of each output."""
    return [kind_of_output(*each) for each in zip(outputs, terms, losses, strict=True)]


def outcomes_of(
    outputs: list[Value],
    targets: list[Placeholder],
    kinds: list[str],
    domains: list[tuple[Placeholder, str]],
) -> list[str]:
    """Return what each output gives, by its target, its kind, and the domains of all targets."""
    return [
        outcome_of(output, target, kind, [domain for other, domain in domains if other is target])
        for output, target, kind in zip(outputs, targets, kinds, strict=True)
    ]


def outcome_of(output: Value, target: Placeholder, gives: str, domains: list[str]) -> str:
    """Return what an output gives, of `pyframe.outcomes.GIVES`."""
    if gives == "values":
        return gives
    if target.dtype == INT64 or "shares" in domains or behind(Softmax, output) is not None:
        return "classes" if gives == "probabilities" else "softmax"
    if gives == "probabilities":
        return "labels"
    return "sigmoid" if "unit" in domains else "margins"


def _name_of(metric: Any) -> str:
    if isinstance(metric, str):
        return metric
    if isinstance(metric, partial):
        return _name_of(metric.func)
    return getattr(metric, "op", "") or getattr(metric, "__name__", type(metric).__name__)


def loss_node(
    function: Callable[..., Any], output: Value, name: str, weight: Placeholder | None
) -> tuple[Placeholder, Value]:
    """Return the target's placeholder and the loss; labels if the loss takes no floats there."""
    shape = output.shape
    of_targets = getattr(getattr(function, "func", function), "target_shape", None)
    given = shape if of_targets is None else of_targets(shape)
    kinds = [(given, output.dtype)]
    if shape:
        kinds.append((shape[:-1] if of_targets is None else given, INT64))
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
    """Raise `ArgumentError` if a metric means nothing for an output under this loss.

    A sigmoid gives probabilities under any loss. Otherwise the loss decides: under one of values
    an output is compared with its target itself, under a cross-entropy it is a logit.
    """
    if before_sigmoid(output) is not None:
        return
    found = [node for node in topological_order([term]) if isinstance(node, Loss)]
    if isinstance(metric, BinaryAccuracy | BinaryConfusionMatrix):
        if not any(loss.of_values for loss in found):
            return
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
