"""Element-wise kernels write over their inputs: the same bits as with memory of their own."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import pyframe as pf
from pyframe import registry
from pyframe._native import call_kernel
from pyframe.node import Spec
from pyframe.op import Case, Op
from pyframe.testing.draw import Draw

ELEMENTWISE = sorted(
    (
        op
        for op in map(registry.ops.get, registry.ops.names())
        if isinstance(op, type) and op.is_elementwise is not Op.is_elementwise
    ),
    key=lambda op: str(op.op),
)
LENGTHS = (1, 15, 16, 64, 257, 3000)


def flat_case(op: type[Op], n: int, dtype: str, seed: int) -> Case:
    """Return a case of the op with n elements in every float input."""
    rng = np.random.default_rng(seed)
    case = op.sample(Draw(rng))
    inputs = [rng.uniform(0.1, 2.0, n).astype(dtype) for _ in case.inputs]
    if op is pf.Linear:
        inputs = [inputs[0], np.asarray(1.5, dtype), np.asarray(-0.5, dtype)]
        return Case(tuple(inputs), {})
    return Case(tuple(inputs), case.attributes)


def run_kernel(name: str, bits: int, block: bytes, inputs: list[np.ndarray], y: np.ndarray) -> None:
    status, *_ = call_kernel(name, bits, inputs, [y], attributes=block)
    assert status == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", ELEMENTWISE, ids=lambda op: op.op)
def test_output_in_the_place_of_an_input(op: type[Op], dtype: str) -> None:
    for n in LENGTHS:
        case = flat_case(op, n, dtype, n)
        placeholders = [pf.Placeholder(f"x{i}", a.shape, dtype) for i, a in enumerate(case.inputs)]
        node = op(*placeholders, **case.attributes)
        specs = [Spec(a.shape, np.dtype(dtype)) for a in case.inputs]
        assert node.is_elementwise(specs)
        block = node.pack_attributes(specs)
        bits = 8 * np.dtype(dtype).itemsize
        call = partial(run_kernel, op.kernel, bits, block)

        apart = np.empty(n, dtype)
        call([a.copy() for a in case.inputs], apart)
        for i, given in enumerate(case.inputs):
            if given.size != n:
                continue
            inputs = [a.copy() for a in case.inputs]
            call(inputs, inputs[i])
            np.testing.assert_array_equal(inputs[i], apart)
        pieces = np.empty(n, dtype)
        for start, stop in ((0, n // 3), (n // 3, n)):
            call(
                [a[start:stop] if a.size == n and a.ndim else a for a in case.inputs],
                pieces[start:stop],
            )
        np.testing.assert_array_equal(pieces, apart)


def test_what_is_elementwise_depends_on_the_shapes() -> None:
    def spec(*shape: int | None) -> Spec:
        return Spec(shape, np.dtype("float32"))

    x = pf.Placeholder("x", (None, 3))
    add = x + x
    assert add.is_elementwise([spec(4, 3), spec(4, 3)])
    assert add.is_elementwise([spec(4, 3), spec()])
    assert add.is_elementwise([spec(1, 1), spec(4, 3)])
    assert not add.is_elementwise([spec(4, 3), spec(3)])
    assert not add.is_elementwise([spec(4, 3), spec(4, 1)])
    assert not add.is_elementwise([spec(None, 3), spec(4, 3)])
    assert not pf.Linear(x, np.zeros((3, 3))).is_elementwise([spec(4, 3), spec(3, 3), None])
    assert pf.Linear(x, 2.0, 1.0).is_elementwise([spec(4, 3), spec(), spec()])
