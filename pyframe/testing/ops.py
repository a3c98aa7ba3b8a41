"""All checks of an op in one call."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from pyframe.op import Op
from pyframe.testing import bad_calls, forward, gradients
from pyframe.testing.draw import Draw
from pyframe.testing.subject import ConformanceError, Kernels


def check_declaration(op_class: type[Op]) -> None:
    """Check what an op class states about itself.

    It has a docstring, a `reference` and a `sample` of its own; its name in the registry is that
    of the class in snake_case; its samples leave out each optional input at times, and give it at
    times.

    Raises
    ------
    ConformanceError
        An `AssertionError` that says what is missing.
    """
    name = op_class.__name__

    def require(condition: bool, message: str) -> None:
        if not condition:
            raise ConformanceError("declaration", f"{name}: {message}")

    require(bool(op_class.op), "it has no name; set op")
    same = op_class.op.replace("_", "") == name.lower()
    require(same, f"its name {op_class.op!r} is not the class name in snake_case")
    require(bool(inspect.cleandoc(op_class.__dict__.get("__doc__") or "")), "it has no docstring")
    for method in ("reference", "sample"):
        own = getattr(op_class, method).__func__
        require(own is not getattr(Op, method).__func__, f"it has no {method}()")
    if op_class.differentiable:
        require(op_class.gradient is not Op.gradient, "it is differentiable without gradient()")
    samples = [op_class.sample(Draw(seed)).inputs for seed in range(100)]
    for i in op_class.optional_inputs:
        given = {len(inputs) > i and inputs[i] is not None for inputs in samples}
        require(True in given, f"no sample has the optional input {i}")
        require(False in given, f"no sample leaves out the optional input {i}")


def check_op(
    op_class: type[Op],
    *,
    dtypes: Sequence[str] = ("float32", "float64"),
    shapes: int = forward.DEFAULT_SHAPES,
    seed: int = 0,
    kernels: Kernels | None = None,
) -> None:
    """Check an op: what it declares, its kernels, its gradients, and calls that are wrong.

    Parameters
    ----------
    op_class : type of Op
        A class of yours with `reference` and `sample`; see `pyframe.op.Op`.
    dtypes : sequence of str
    shapes : int, default 200
        How many random cases there are for each dtype, besides ``op_class.cases()``.
    seed : int
        That of the first random case. A failure prints the seed of its case.
    kernels : callable, optional
        ``kernels(name, bits)`` gives the address of a kernel; default: the built-in ones.

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
    check_forward, check_gradients, check_bad_calls : its parts, with what each of them checks.
    """
    check_declaration(op_class)
    for dtype in dtypes:
        forward.check_forward(op_class, dtype, shapes=shapes, seed=seed, kernels=kernels)
    if op_class.differentiable:
        gradients.check_gradients(op_class, shapes=min(shapes, 60), seed=seed)
    bad_calls.check_bad_calls(op_class, shapes=min(shapes, 30), seed=seed, kernels=kernels)
