"""Constraints of parameters, as calls on flat arrays that come behind the update."""

from __future__ import annotations

import numpy as np

from pyframe.engine.program import COPY_KERNEL, FlatCall
from pyframe.errors import DTypeError, GraphError, ShapeError
from pyframe.graph.node import Constant, Placeholder, Value
from pyframe.graph.op import Op
from pyframe.graph.order import topological_order
from pyframe.graph.parameter import Parameter
from pyframe.graph.spec import Array, describe, known_shape
from pyframe.native.core import empty_aligned


def constraint_calls(parameter: Parameter, array: Array) -> list[FlatCall]:
    """Return the calls that bring an array, laid out as a parameter, to what its constraint says.

    The constraint is asked for its nodes once, and each of them becomes a call, with memory of its
    own for what it gives.

    Raises
    ------
    GraphError
        If it gives no node, or one that reads something else, draws random numbers, keeps a state,
        or is written in Python.
    ShapeError, DTypeError
        If what it gives is not like the parameter.
    """
    shape, label = known_shape(parameter.spec), f"constraint of {parameter.label()}"
    assert parameter.constraint is not None
    w = Placeholder(parameter.label(), shape, parameter.dtype)
    result: object = parameter.constraint(w)
    if not isinstance(result, Value):
        raise GraphError(f"the {label} gives {result!r:.80}, which is no node")
    if result.shape != shape:
        raise ShapeError(f"the {label} gives {describe(result.shape)}, and it has {shape}")
    if result.dtype != parameter.dtype:
        raise DTypeError(f"the {label} gives {result.dtype}, and it is {parameter.dtype}")
    arrays: dict[tuple[object, int], Array] = {(w, 0): array.reshape(shape)}
    calls = []
    for node in topological_order([result]):
        if node is w:
            continue
        if isinstance(node, Constant):
            arrays[node, 0] = node.array
            continue
        inputs = [v for v in node.inputs if v is not None]
        plain = isinstance(node, Op) and not (node.states or node.uses_random)
        if not (plain and isinstance(node, Op) and len(inputs) == len(node.inputs)):
            raise GraphError(
                f"the {label} holds {node.label()!r} ({type(node).__name__}); it is made of ops on "
                "the parameter alone, without states, random numbers or Python"
            )
        specs = [v.spec for v in inputs]
        for i, spec in enumerate(node.specs):
            made = empty_aligned(int(np.prod(known_shape(spec), dtype=np.int64)), spec.dtype)
            arrays[node, i] = made.reshape(known_shape(spec))
        calls.append(
            FlatCall(
                label,
                node.kernel,
                parameter.dtype,
                tuple(arrays[v.node, v.index] for v in inputs),
                tuple(arrays[node, i] for i in range(len(node.specs))),
                attributes=node.pack_attributes(specs),
                scratch=node.scratch_bytes(specs),
            )
        )
    if result.node is not w:
        source, target = arrays[result.node, result.index], arrays[w, 0]
        calls.append(FlatCall(label, COPY_KERNEL, parameter.dtype, (source,), (target,)))
    return calls
