"""Element-wise kernels write over their inputs: the same bits as with memory of their own."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.engine.fusion import elementwise_count
from pyframe.graph.op import Case, Op
from pyframe.graph.spec import Spec
from pyframe.native.core import call_kernel
from pyframe.plugins import registry
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


class TwoSizes(pf.Add):
    """A sum that has a second result, of another size."""

    op = "two_sizes"
    output_count = 2

    def infer_shape(self, *shapes: Any) -> Any:
        return super().infer_shape(*shapes), (*shapes[0], 2)


class WithScratch(pf.Tanh):
    """An element-wise op that wants memory of its own."""

    op = "with_scratch"

    def scratch_bytes(self, specs: Any) -> int:
        return 64


def count(node: pf.Node) -> int | None:
    around = [node, *(v.node for v in node.inputs if v is not None)]
    return elementwise_count(node, {n: tuple(n.specs) for n in around})


def test_what_is_elementwise_depends_on_the_result() -> None:
    def of(*shape: int) -> pf.Placeholder:
        return pf.Placeholder("x", shape)

    assert count(of(4, 3) + of(4, 3)) == 12
    assert count(of(4, 3) + of()) == 12
    assert count(of(1, 1) + of(4, 3)) == 12
    assert count(of(1, 4, 3) + of(4, 3)) == 12
    assert count(of(1, 1) + of(1)) == 1
    assert count(of(4, 3) + of(3)) is None
    assert count(of(4, 3) + of(4, 1)) is None
    # Equal among themselves, and not to the result.
    assert count(of(4, 1) + of(4)) is None
    assert count(of(4, 1, 3) + of(4, 3)) is None
    assert count(of(0, 1) + of(1)) == 0
    assert count(of(0, 1) + of(3)) is None
    a, b = of(4, 1), of(4)
    assert count(registry.ops.get("maximum_grad")(of(4, 4), a, b)) is None
    assert count(pf.Linear(of(4, 3), np.zeros((3, 3)))) is None
    assert count(pf.Linear(of(4, 3), 2.0, 1.0)) == 12
    assert count(TwoSizes(of(4, 3), of(4, 3))) is None
    assert count(WithScratch(of(4, 3))) is None
