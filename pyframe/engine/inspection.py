"""Looking inside a plan: values and gradients of the last run, and one node run by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyframe.engine.engine import Engine
from pyframe.engine.execution import drive
from pyframe.engine.program import Context
from pyframe.errors import GraphError, ValueReusedError
from pyframe.graph.autodiff import Gradients
from pyframe.graph.node import Node, Placeholder, Value
from pyframe.graph.parameter import Parameter
from pyframe.graph.spec import Array, known_shape
from pyframe.native.core import lib


def value(engine: Engine, of: Value) -> Array:
    """Return a copy of what a node computed in the last run; see `Plan.value`."""
    return of.value if isinstance(of, Parameter) else _read(engine, of, "value")


def gradient(engine: Engine, of: Value) -> Array:
    """Return a copy of the loss's gradient by a node; see `Plan.gradient`."""
    gradients = _gradients_of(engine)
    _require_value(of, "gradient")
    if isinstance(of, Parameter) and of.trainable and (of, 0) in gradients.total:
        return _gradient_of_parameter(engine, of)
    total = gradients.total.get((of.node, of.index))
    if total is None:
        hint = "" if engine.inspect else ", or it is no parameter: compile with inspect=True"
        raise GraphError(f"the loss has no gradient by {of.node.label()}{hint}")
    return _read(engine, total, "gradient", of)


def _gradient_of_parameter(engine: Engine, parameter: Parameter) -> Array:
    array = engine.state.gradient_array(parameter).reshape(known_shape(parameter.spec))
    if parameter not in engine.state.tables.by_rows:
        return array.copy()
    request = None if engine.latest is None else engine.latest.program.request
    rows = None if request is None else request.row_gradients.get(parameter)
    if rows is not None:
        numbers = [_read(engine, v, "gradient", parameter).ravel() for v in rows.numbers]
        result = np.zeros(array.shape, array.dtype)
        np.add.at(result, np.concatenate(numbers), _read(engine, rows.sums, "gradient", parameter))
        return result
    if request is not None and any(p is parameter for p, _, _ in request.gradients):
        return array.copy()
    raise ValueReusedError(
        f"the gradient of {parameter.label()} was not kept: a step makes that of the rows used "
        "alone, and the last run made none; ask plan.loss_and_gradients, or compile with "
        "inspect=True"
    )


def contributions(engine: Engine, node: Node) -> dict[Value, Array]:
    """Return what flows through a node to each of its inputs; a leaf has its whole gradient."""
    gradients = _gradients_of(engine)
    _require_value(node, "gradient")
    if not node.inputs:
        return {node: gradient(engine, node)}
    result: dict[Value, Array] = {}
    for i, source in enumerate(node.inputs):
        flowing = gradients.contributions.get((node, i))
        if source is not None and flowing is not None:
            array = _read(engine, flowing, "gradient", source)
            result[source] = result[source] + array if source in result else array
    return result


def held_feed(engine: Engine) -> dict[Placeholder, Any]:
    """Return what has been set on the placeholders by hand."""
    return {p: p.held for p in engine.graph.placeholders if p.held is not None}


class Stepper:
    """Runs single nodes of a plan, as the lesson does: each from what its inputs hold."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._context: Context | None = None

    def forward(self, node: Node) -> None:
        """Compute one node."""
        _require_value(node, "value")
        self._run([node])

    def backward(self, node: Node) -> None:
        """Compute the gradients that flow through one node."""
        _require_value(node, "gradient")
        self._run(_gradients_of(self.engine).nodes.get(node, []))

    def _run(self, nodes: Sequence[Node]) -> None:
        engine = self.engine
        if not engine.inspect:
            raise GraphError("running single nodes needs a plan compiled with inspect=True")
        feeds = engine.feeds_of(held_feed(engine), [engine.require_cost()])
        with engine.claim():
            specialization = engine.specialize("gradients", [], feeds, False)
            if self._context is None or self._context.program is not specialization.program:
                self._context = Context(specialization.program, [])
            context = engine.last[0] = self._context
            context.bind(feeds)
            position = context.program.position
            for at in sorted(position[n] for n in nodes if n in position):
                lib.pf_context_seek(context.pointer, at)
                drive(context, at + 1)


def _gradients_of(engine: Engine) -> Gradients:
    if engine.gradients is None:
        raise GraphError("this plan was compiled without a loss; there are no gradients")
    return engine.gradients


def _require_value(value: Any, what: str) -> None:
    if not isinstance(value, Value):
        raise GraphError(f"{value!r:.80} is no node, and has no {what}; pass a node of this plan")


def _read(engine: Engine, value: Value, what: str, shown: Value | None = None) -> Array:
    """Return a copy of a value of the last run; messages speak of `shown`, if it is given."""
    _require_value(value, what)
    label = (value if shown is None else shown).node.label()
    context = engine.latest
    if context is None:
        raise GraphError(f"{label} has no {what} yet: run the plan first")
    with context.held() as is_held:
        if not is_held:
            raise ValueReusedError(f"the {what} of {label} is being computed by another run")
        program = context.program
        number = program.value_ids.get((value.node, value.index))
        if (value.node, value.index) in program.absorbed:
            raise ValueReusedError(
                f"the {what} of {label} was not kept: the next node computes it on its way; "
                "compile with inspect=True to keep them all"
            )
        if number is None:
            raise GraphError(f"{label} was not part of the last run, so it has no {what}")
        if number not in program.readable:
            raise ValueReusedError(
                f"the {what} of {label} was not kept: its memory was given to a later value; "
                "compile with inspect=True to keep them all"
            )
        return context.read(number).copy()
