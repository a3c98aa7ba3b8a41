"""Tables of which a step uses a few rows: their gradients, and updates, of these rows alone.

The gradient of a look-up is 0 in all rows that were not used. `Op.by_rows` gives the others, and
where the optimizer leaves what has a gradient of 0 as it is, nothing else has to be touched: a step
takes time for the rows used alone, and the table gets the same bits as if all were updated. A lazy
optimizer leaves such rows by its own decision: then a whole gradient is searched for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import cast

from pyframe.engine.lowering import infer
from pyframe.engine.program import Request, Rows
from pyframe.engine.state import Tables, TrainState
from pyframe.graph.autodiff import SUM_OP, Gradients
from pyframe.graph.node import Node
from pyframe.graph.op import Op
from pyframe.graph.order import topological_order
from pyframe.graph.parameter import Parameter
from pyframe.graph.spec import known_shape

LEAST_ELEMENTS = 1 << 14  # a smaller table is updated as a whole, with its neighbours
ROWS_WORTH = 4  # what a row by itself costs, in rows of a table that is updated as a whole
OTHER_USES = "its look-ups do not allow less, or it has other uses"


def choose(
    state: TrainState,
    differentiated: Callable[[], Gradients | None],
    parameters: Sequence[Parameter],
    fuse: Collection[str],
) -> Tables:
    """Return the tables among the parameters that a plan trains."""
    optimizer, whole, candidates = state.optimizer, dict[Parameter, str](), list[Parameter]()
    lazy: list[Parameter] = []
    if optimizer is None or not optimizer.needs_gradients:
        return Tables({}, {})
    gradients = differentiated()
    assert gradients is not None
    for p in parameters:
        if not any(map(_is_made_of_rows, _parts(gradients, p))):
            continue
        if _is_lazy(state, p):
            lazy.append(p)
        elif p.size < LEAST_ELEMENTS:
            continue
        if "rows" not in fuse:
            whole[p] = "the plan was compiled without the fusion 'rows'"
        elif why := _need_of_all_rows(state, p):
            whole[p] = why
        else:
            candidates.append(p)
    found = _row_gradients(gradients, candidates)
    whole |= {p: OTHER_USES for p in candidates if p not in found}
    return Tables(found, whole, frozenset(_row_gradients(gradients, lazy)))


def _is_lazy(state: TrainState, table: Parameter) -> bool:
    """Return whether the update is not to see rows of a table whose gradient is 0."""
    optimizer = state.optimizer
    return not optimizer.is_python and any(c.lazy for c in optimizer.calls(state.group_of(table)))


def _need_of_all_rows(state: TrainState, table: Parameter) -> str:
    """Return why an update has to see each row of a table; empty: it need not."""
    optimizer, group = state.optimizer, state.group_of(table)
    name = type(optimizer).__name__
    if optimizer.is_python:
        return f"{name} is written in Python"
    if optimizer.proposes or getattr(optimizer, "sharpness", None) is not None:
        return f"{name} takes gradients at other parameters"
    clips_itself = getattr(optimizer, "clips_itself", lambda group: False)
    if any(optimizer.clip_calls(*([group] if clips_itself(group) else []))):
        return f"{name} looks at all gradients first, for its clip or the like"
    calls = optimizer.calls(group)
    if not all(c.elementwise and (c.skips_zeros or c.lazy) for c in calls):
        return f"{name}, with these options, changes what has a gradient of 0"
    return ""


def chosen(
    differentiated: Callable[[], Gradients | None],
    by_rows: Sequence[Parameter],
    whole: dict[Parameter, str],
    lazy: frozenset[Parameter],
) -> Tables:
    """Return tables as they were chosen for a plan that this one is a copy of."""
    return Tables(_row_gradients(differentiated(), by_rows) if by_rows else {}, whole, lazy)


def _row_gradients(
    gradients: Gradients | None, parameters: Sequence[Parameter]
) -> dict[Parameter, Rows]:
    """Return the gradients of those parameters whose gradients are made of rows alone."""
    found: dict[Parameter, Rows] = {}
    for p in parameters:
        assert gradients is not None
        parts = _parts(gradients, p)
        kind = type(parts[0])
        if issubclass(kind, Op) and all(type(part) is kind for part in parts):
            rows = kind.by_rows(cast(list[Op], parts))
            if rows is not None:
                found[p] = Rows(*rows)
    return found


def take(tables: Tables, request: Request, parameters: Sequence[Parameter]) -> list[Parameter]:
    """Request the gradients of tables by rows where that pays; return the other parameters."""
    for table, rows in tables.by_rows.items():
        specs = infer(topological_order(rows.numbers), request)
        count = sum(math.prod(known_shape(specs[v.node][v.index])) for v in rows.numbers)
        if ROWS_WORTH * count <= known_shape(table.spec)[0]:
            request.row_gradients[table] = rows
    return [p for p in parameters if p not in request.row_gradients]


def _parts(gradients: Gradients, parameter: Parameter) -> list[Node]:
    """Return the nodes whose sum is a gradient."""
    total = gradients.total[parameter, 0].node
    return [v.node for v in total.inputs if v is not None] if total.op == SUM_OP else [total]


def _is_made_of_rows(node: Node) -> bool:
    return isinstance(node, Op) and type(node).by_rows.__func__ is not Op.by_rows.__func__  # type: ignore[attr-defined]
