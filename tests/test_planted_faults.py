"""Tests of the tests: a fault planted in a kernel or a gradient must turn the derived tests red."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import mutants
import pytest

import pyframe as pf
from pyframe import registry
from pyframe.node import Value
from pyframe.testing import ConformanceError, check_bad_calls, check_forward, check_gradients

needs_compiler = pytest.mark.skipif(mutants.COMPILER is None, reason="there is no C compiler")


class Fault(NamedTuple):
    """One line of a family's file and what becomes of it; the op and the check that must notice."""

    name: str
    file: str
    old: str
    new: str
    op: str
    kind: str


FAULTS = [
    Fault(
        "a flipped sign",
        "activations.c",
        "dx[i] = dy[i] * y[i] * (R(1.0) - y[i]);",
        "dx[i] = dy[i] * y[i] * (y[i] - R(1.0));",
        "sigmoid_grad",
        "value",
    ),
    Fault(
        "a dropped factor",
        "activations.c",
        "dx[i] = dy[i] * y[i] * (R(1.0) - y[i]);",
        "dx[i] = dy[i] * y[i];",
        "sigmoid_grad",
        "value",
    ),
    Fault(
        "the last element left out",
        "activations.c",
        "i < n; i++) y[i] = sigmoid(x[i]);",
        "i < n - 1; i++) y[i] = sigmoid(x[i]);",
        "sigmoid",
        "unwritten",
    ),
    Fault(
        "one element too many",
        "activations.c",
        "i < n; i++) y[i] = sigmoid(x[i]);",
        "i <= n; i++) y[i] = sigmoid(x[i]);",
        "sigmoid",
        "guard",
    ),
    Fault(
        "a result a thousandth off",
        "activations.c",
        "y[i] = sigmoid(x[i]);",
        "y[i] = sigmoid(x[i]) * R(1.001);",
        "sigmoid",
        "value",
    ),
    Fault(
        "an output that is added to",
        "activations.c",
        "y[i] = sigmoid(x[i]);",
        "y[i] += sigmoid(x[i]);",
        "sigmoid",
        "unwritten",
    ),
]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> mutants.Workshop:
    return mutants.Workshop(tmp_path_factory.mktemp("core"))


@needs_compiler
@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f"{f.op}: {f.name}")
def test_a_fault_in_a_kernel_is_noticed(fault: Fault, workshop: mutants.Workshop) -> None:
    kernels = workshop.build(fault.file, fault.old, fault.new)
    op_class = registry.ops.get(fault.op)
    for dtype in ("float32", "float64"):
        with pytest.raises(ConformanceError) as caught:
            check_forward(op_class, dtype, kernels=kernels)
            check_bad_calls(op_class, kernels=kernels)
        assert caught.value.kind == fault.kind
        assert op_class.__name__ in str(caught.value)


@needs_compiler
@pytest.mark.parametrize("op", sorted({fault.op for fault in FAULTS}))
def test_the_core_as_it_is_passes(op: str, workshop: mutants.Workshop) -> None:
    kernels = workshop.build()
    op_class = registry.ops.get(op)
    for dtype in ("float32", "float64"):
        check_forward(op_class, dtype, kernels=kernels)
    check_bad_calls(op_class, kernels=kernels)


# ---- faults on the Python side ----


class FlippedSign(pf.Sigmoid):
    """A sigmoid whose gradient points the wrong way."""

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return super().gradient(-grads[0])


class ForgottenFactor(pf.LeakyRelu):
    """A leaky relu whose gradient forgets the slope."""

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (grads[0],)


class NoGradient(pf.Sigmoid):
    """A sigmoid that lets nothing flow back."""

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (None,)


@pytest.mark.parametrize("op_class", [FlippedSign, ForgottenFactor, NoGradient])
def test_a_wrong_gradient_is_noticed(op_class: type[pf.Op]) -> None:
    with pytest.raises(ConformanceError, match="gradient") as caught:
        check_gradients(op_class)
    assert caught.value.kind == "gradient"


class AnyShape(pf.Sigmoid):
    """A sigmoid whose shape rule is wrong."""

    def infer_shape(self, *shapes: Any) -> Any:
        return (*shapes[0], 1)


class NamelessError(pf.Sigmoid):
    """A sigmoid that refuses vectors and does not say where."""

    def infer_shape(self, *shapes: Any) -> Any:
        if len(shapes[0]) == 1:
            raise pf.errors.ShapeError("no vectors here")
        return shapes[0]


def test_a_wrong_shape_rule_is_noticed() -> None:
    with pytest.raises(ConformanceError) as caught:
        check_forward(AnyShape, "float32")
    assert caught.value.kind == "shape"


def test_an_error_that_names_nothing_is_noticed() -> None:
    with pytest.raises(ConformanceError, match="does not name") as caught:
        check_bad_calls(NamelessError)
    assert caught.value.kind == "shape"
