"""Every op by the conformance kit, on every instruction set."""

from __future__ import annotations

from functools import partial

import pytest
from pyframe import _native
from pyframe.testing import check_bad_calls, check_declaration, check_forward, check_gradients

from pyframe_cnn import pyframe_register_ops

OPS = list(pyframe_register_ops().values())
every_op = pytest.mark.parametrize("op", OPS, ids=lambda op: op.op)


@every_op
def test_declaration(op):
    check_declaration(op)


@pytest.mark.parametrize("isa", _native.instruction_sets())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_op
def test_forward(op, dtype, isa):
    check_forward(op, dtype, shapes=100, kernels=partial(_native.find_kernel, isa=isa))


@pytest.mark.parametrize("op", [op for op in OPS if op.differentiable], ids=lambda op: op.op)
def test_gradients(op):
    check_gradients(op, shapes=40)


@every_op
def test_bad_calls(op):
    check_bad_calls(op, shapes=10)
