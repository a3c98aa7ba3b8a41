"""All checks of an op in one call."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from unittest import SkipTest

import numpy as np

from pyframe.errors import PyframeError
from pyframe.graph.composite import Composite
from pyframe.graph.op import Op
from pyframe.native import core
from pyframe.testing import bad_calls, forward, gradients
from pyframe.testing.capabilities import check_capabilities
from pyframe.testing.composites import check_composite
from pyframe.testing.draw import Draw
from pyframe.testing.hostile import check_attributes
from pyframe.testing.nodes import node_checks
from pyframe.testing.runner import Checks, Expected, run_checks
from pyframe.testing.scales import DEFAULT_SHAPES, check_scales
from pyframe.testing.sizes import check_sizes, large_cases
from pyframe.testing.subject import ConformanceError, Kernels
from pyframe.testing.zero_extents import check_zero_extents


def check_declaration(op_class: type[Op]) -> None:
    """Check what an op class states about itself.

    It has a docstring, a `reference` and a `sample` of its own; its name in the registry is that of
    the class in snake_case; some of its samples give each optional input, and some leave it out.

    Raises
    ------
    ConformanceError
        An `AssertionError` that says what is missing.

    Examples
    --------
    >>> import pyframe as pf
    >>> check_declaration(pf.Relu)
    """
    name = op_class.__name__
    wrong: list[str] = []

    def require(condition: bool, message: str) -> None:
        if not condition:
            wrong.append(message)

    require(bool(op_class.op), "it has no name; set op")
    same = op_class.op.replace("_", "") == name.lower()
    require(same, f"its name {op_class.op!r} is not the class name in snake_case")
    require(bool(inspect.cleandoc(op_class.__dict__.get("__doc__") or "")), "it has no docstring")
    for method in ("reference", "sample"):
        own = getattr(op_class, method).__func__
        require(own is not getattr(Op, method).__func__, f"it has no {method}()")
    if op_class.differentiable:
        require(op_class.gradient is not Op.gradient, "it is differentiable without gradient()")
    if "it has no sample()" not in wrong:
        samples = [op_class.sample(Draw(seed)).inputs for seed in range(100)]
        for i in op_class.optional_inputs:
            given = {len(inputs) > i and inputs[i] is not None for inputs in samples}
            require(True in given, f"no sample has the optional input {i}")
            require(False in given, f"no sample leaves out the optional input {i}")
    if wrong:
        raise ConformanceError("declaration", f"{name}: {'; '.join(wrong)}")


def check_op(
    op_class: type[Op] | Callable[..., Any],
    cases: Iterable[Any] | None = None,
    *,
    dtypes: Sequence[str] = ("float32", "float64"),
    shapes: int = forward.DEFAULT_SHAPES,
    seed: int = 0,
    kernels: Kernels | None = None,
    expected_failures: Expected | None = None,
) -> None:
    """Check an op: its declarations, its kernels, its gradients, and how it refuses wrong calls.

    Parameters
    ----------
    op_class : type of Op, or callable
        A class with `reference` and `sample`; see `pyframe.graph.op.Op`. A composite is checked by
        `check_composite`, and a node class written in Python, or a function that composes nodes, by
        `check_node`.
    cases : list of (shape, arguments), optional
        Cases for `check_node`; an `Op` has cases of its own.
    dtypes : sequence of str
    shapes : int, default 200
        Number of random cases, spread over the dtypes and instruction sets, besides
        ``op_class.cases()``, which each of them gets.
    seed : int
        The seed of the first random case. A failure prints the seed of its case.
    kernels : callable, optional
        ``kernels(name, bits)`` gives the address of a kernel; default: the built-in ones and those
        of plugins, for each instruction set that this machine has.
    expected_failures : dict of str to str, optional
        Names of checks that must fail, with the reason. One that passes is an error.

    Raises
    ------
    ConformanceError
        An `AssertionError` whose `kind` says which check failed.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe.testing import check_op
    >>> check_op(pf.Sigmoid, shapes=20)

    See Also
    --------
    op_checks : the checks by name.
    check_forward, check_scales, check_sizes, check_gradients, check_bad_calls, check_zero_extents,
    check_capabilities : the checks that this one runs.
    """
    checks = op_checks(op_class, cases, dtypes=dtypes, shapes=shapes, seed=seed, kernels=kernels)
    what = getattr(op_class, "__name__", type(op_class).__name__)
    run_checks(what, checks, expected_failures, foreign=kernels is not None)


def op_checks(
    op_class: type[Op] | Callable[..., Any],
    cases: Iterable[Any] | None = None,
    *,
    dtypes: Sequence[str] = ("float32", "float64"),
    shapes: int = forward.DEFAULT_SHAPES,
    seed: int = 0,
    kernels: Kernels | None = None,
) -> Checks:
    """Return the checks of an op by name.

    They are a round of some seconds; each of these functions by itself tries more.

    - declaration: `check_declaration`.
    - forward: `check_forward`, for each dtype and instruction set.
    - scale: `check_scales`, for each dtype and instruction set.
    - sizes: `check_sizes`, for each dtype and instruction set.
    - instruction_sets: skipped, with the reason, if a plugin's kernel is compiled for one that this
      machine does not have.
    - gradient: `check_gradients`, if it is differentiable.
    - bad_calls: `check_bad_calls`.
    - attributes: `check_attributes`.
    - zero_extents: `check_zero_extents`, for each instruction set.
    - capability: `check_capabilities`.

    Of a composite: reference, `check_composite`. Of any other function or node: `node_checks`.

    Examples
    --------
    >>> import pyframe as pf
    >>> list(op_checks(pf.Relu))[:2]
    ['declaration', 'forward']
    """
    if isinstance(op_class, Composite) and cases is None:
        made = op_class
        return {
            "reference": lambda: check_composite(
                made, tuple(dtypes), shapes=min(shapes, 8), seed=seed
            )
        }
    if not (isinstance(op_class, type) and issubclass(op_class, Op)):
        return node_checks(op_class, cases)
    op = op_class
    with contextlib.suppress(PyframeError):  # the checks say what is wrong
        core.find_kernel(op.kernel, 32)  # opens the kernel's library

    def check_empty() -> None:
        # The best set is what is called without `besides`.
        sets = _kernel_sets(op, 64, kernels)[:-1] if kernels is None else []
        check_zero_extents(op, shapes=3, seed=seed, kernels=kernels, besides=sets)

    def check_all_kernels(check: Callable[..., None], most: int) -> None:
        every = [
            (dtype, each)
            for dtype in dtypes
            for each in _kernel_sets(op, 8 * np.dtype(dtype).itemsize, kernels)
        ]
        share = -(-min(shapes, most) // len(every))
        for i, (dtype, each) in enumerate(every):  # the fixed cases, and shapes of its own
            check(op, dtype, shapes=share, seed=seed + i * share, kernels=each)

    def check_large() -> None:
        cases = list(large_cases(op, seed))  # of all types; the first has all of them
        for i, dtype in enumerate(dtypes):
            every = _kernel_sets(op, 8 * np.dtype(dtype).itemsize, kernels)
            check_sizes(op, dtype, seed=seed, kernels=every, cases=cases[:: 1 if i == 0 else 3])

    checks: Checks = {
        "declaration": lambda: check_declaration(op),
        "forward": lambda: check_all_kernels(forward.check_forward, shapes),
        "scale": lambda: check_all_kernels(check_scales, DEFAULT_SHAPES),
        "sizes": check_large,
        "bad_calls": lambda: bad_calls.check_bad_calls(
            op, shapes=min(shapes, 5), seed=seed, kernels=kernels
        ),
        "attributes": lambda: check_attributes(op, seed=seed, kernels=kernels),
        "zero_extents": check_empty,
        "capability": lambda: check_capabilities(
            op, shapes=min(shapes, 10), seed=seed, kernels=kernels
        ),
    }
    if kernels is None and ":" in op.kernel:
        checks["instruction_sets"] = lambda: _check_sets(op)
    if op.differentiable:
        checks["gradient"] = lambda: gradients.check_gradients(
            op, shapes=min(shapes, 40), seed=seed
        )
    return checks


def _check_sets(op_class: type[Op]) -> None:
    """Skip the test, with the reason, if the machine cannot run a variant of the kernel."""
    here = core.instruction_sets() if "PYFRAME_ISA" not in os.environ else [core.instruction_set()]
    missing = [isa for isa in core.kernel_sets(op_class.kernel) if isa not in here]
    if missing:
        raise SkipTest(
            f"not tried: the kernel {op_class.kernel!r} for {', '.join(missing)}; here runs "
            f"{', '.join(here)}"
        )


def _kernel_sets(op_class: type[Op], bits: int, kernels: Kernels | None) -> list[Kernels | None]:
    """Return the functions that look up kernels, one for each kernel that this machine can run."""
    if kernels is not None or "PYFRAME_ISA" in os.environ:
        return [kernels]
    found: dict[int, Kernels | None] = {}
    for isa in core.instruction_sets():  # a plugin may have the same kernel for several
        find = functools.partial(core.find_kernel, isa=isa)
        found.setdefault(find(op_class.kernel, bits), find)
    return list(found.values())
