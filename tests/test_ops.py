"""Every registered op, built in or from a plugin, against what it says about itself."""

from __future__ import annotations

import os
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
from registered import COMPOSITES, OPS

from pyframe import Constant, Parameter, State, Value, compile
from pyframe.graph.composite import Composite
from pyframe.graph.op import Op
from pyframe.native import core
from pyframe.plugins import registry
from pyframe.testing import (
    Draw,
    check_bad_calls,
    check_composite,
    check_declaration,
    check_forward,
    check_gradients,
    check_sizes,
    check_zero_extents,
)
from pyframe.testing.sizes import large_cases

pytestmark = [pytest.mark.sweep, pytest.mark.sanitize]

EVERY_SET = core.instruction_sets()
# All that the machine has, unless the suite is run for a certain one.
ALONE = "PYFRAME_ISA" in os.environ
SETS = [core.instruction_set()] if ALONE else EVERY_SET
every_op = pytest.mark.parametrize("op_class", OPS, ids=lambda c: c.op)
once = pytest.mark.once  # what goes through all of them within a test


@once
@every_op
def test_declaration(op_class: type[Op]) -> None:
    check_declaration(op_class)
    assert registry.ops.get(op_class.op) is op_class


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_op
def test_forward(op_class: type[Op], dtype: str, isa: str) -> None:
    # At least 200 random cases an op, others for each type and set: the same ones for a set by
    # itself, as under a sanitizer.
    shapes = -(-200 // (2 * len(EVERY_SET)))
    seed = shapes * (2 * EVERY_SET.index(isa) + (dtype == "float64"))
    kernels = partial(core.find_kernel, isa=isa)
    check_forward(op_class, dtype, shapes=shapes, seed=seed, kernels=kernels)


@once
@every_op
def test_sizes(op_class: type[Op]) -> None:
    cases, kernels = list(large_cases(op_class)), [partial(core.find_kernel, isa=i) for i in SETS]
    for dtype in ("float32", "float64"):
        # All of them in both types by the whole suite, and by the weekly run of a sanitizer.
        some = cases[:: 2 if dtype == "float32" else 6] if ALONE else cases
        check_sizes(op_class, dtype, kernels=kernels, cases=some)


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("op_class", [c for c in OPS if c.output_count > 1], ids=lambda c: c.op)
def test_an_output_that_is_wanted_alone_has_the_same_bits(op_class: type[Op], isa: str) -> None:
    cases = [*op_class.cases(), *(op_class.sample(Draw(seed)) for seed in range(40))]
    for dtype, case in product(("float32", "float64"), cases):
        inputs = [
            None
            if a is None
            else Constant(a, dtype="int64")
            if is_int(a)
            else Parameter(a, f"x{i}", dtype=dtype)
            for i, a in enumerate(case.inputs)
        ]
        states = [State(s, name=f"state{i}", dtype=dtype) for i, s in enumerate(case.states)]
        extra = {"states": states} if states else {}
        node = op_class(*inputs, **extra, **case.attributes)
        outputs = list(node)
        with core.using_instruction_set(isa):
            plan = compile(outputs, fuse=False)
            together = plan.run({}, outputs=outputs)
            for output, array in zip(outputs, together, strict=True):
                assert plan.run({}, outputs=output).tobytes() == array.tobytes()


def operand(array: Any, name: str, dtype: str) -> Value:
    """Return what an op reads without a feed: labels are constants."""
    return Constant(array, dtype="int64") if is_int(array) else Parameter(array, name, dtype=dtype)


def is_int(array: Any) -> bool:
    """Return whether an array holds labels."""
    return bool(np.asarray(array).dtype == np.int64)


# Which ops a gradient is made of; what each of them computes, test_forward looks at for every set.
@once
@pytest.mark.parametrize("op_class", [c for c in OPS if c.differentiable], ids=lambda c: c.op)
def test_gradients(op_class: type[Op]) -> None:
    check_gradients(op_class)


@every_op
def test_bad_calls(op_class: type[Op]) -> None:
    check_bad_calls(op_class, shapes=10)  # most is refused before there is a kernel


@once
@every_op
def test_zero_extents(op_class: type[Op]) -> None:
    others = [partial(core.find_kernel, isa=isa) for isa in SETS[:-1]]  # the last is in use
    check_zero_extents(op_class, besides=others)


@once  # likewise
@pytest.mark.parametrize("composite", COMPOSITES, ids=lambda c: c.op)
def test_composite(composite: Composite) -> None:
    assert registry.ops.get(composite.op) is composite
    assert composite.op.replace("_", "") == composite.__name__.lower()
    check_composite(composite)
