"""Every registered op, built in or from a plugin, against what it says about itself."""

from __future__ import annotations

import pytest

from pyframe import registry
from pyframe.op import Op
from pyframe.testing import (
    check_bad_calls,
    check_declaration,
    check_forward,
    check_gradients,
)

# What runs the parameter updates has no op; its kernels are tested with the optimizers.
UPDATES = "optimizers.c"

OPS: list[type[Op]] = [
    thing
    for thing in (registry.ops.get(name) for name in registry.ops.names())
    if isinstance(thing, type) and issubclass(thing, Op)
]
every_op = pytest.mark.parametrize("op_class", OPS, ids=lambda c: c.op)


@every_op
def test_declaration(op_class: type[Op]) -> None:
    check_declaration(op_class)
    assert registry.ops.get(op_class.op) is op_class


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_op
def test_forward(op_class: type[Op], dtype: str) -> None:
    check_forward(op_class, dtype)


@pytest.mark.parametrize("op_class", [c for c in OPS if c.differentiable], ids=lambda c: c.op)
def test_gradients(op_class: type[Op]) -> None:
    check_gradients(op_class)


@every_op
def test_bad_calls(op_class: type[Op]) -> None:
    check_bad_calls(op_class)
