"""Every op by the conformance kit, on every instruction set that the machine has."""

from __future__ import annotations

import os
import subprocess
import sys

import pyframe_cnn
import pytest

import pyframe as pf
from pyframe.testing import check_op

OPS = list(pyframe_cnn.pyframe_register_ops().values())


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.op)
def test_op(op: type[pf.Op]) -> None:
    check_op(op, shapes=200)


EVERY_OP = """
import pyframe_cnn
from pyframe.testing import check_forward
for op in pyframe_cnn.pyframe_register_ops().values():
    for dtype in ("float32", "float64"):
        check_forward(op, dtype, shapes=60, seed=1000)
"""


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512", "neon"])
def test_kernels_of_an_instruction_set(isa: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", EVERY_OP],
        env={**os.environ, "PYFRAME_ISA": isa, "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    if run.returncode and f"PYFRAME_ISA={isa}: this machine" in run.stderr:
        pytest.skip(f"no {isa} here")
    assert run.returncode == 0, run.stderr


def test_it_is_found_by_name() -> None:
    assert pf.layers.get("conv2d") is pyframe_cnn.Conv2D
    assert pf.layers.get("pyframe-cnn:max_pool2d") is pyframe_cnn.MaxPool2D
    assert pf.layers.Conv2D is pyframe_cnn.Conv2D
