"""Checks of regularizers and constraints."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import pyframe
from pyframe.graph.spec import describe
from pyframe.plugins.registry import registries
from pyframe.testing.behaviour import same_bits
from pyframe.testing.runner import Checks, Expected, require, run_checks

SHAPES = ((), (3,), (4, 5), (3, 2, 2, 4))
STEP = 1e-6  # of a difference quotient


def check_regularizer(
    regularizer: Callable[..., Any], *, expected_failures: Expected | None = None
) -> None:
    """Check a regularizer.

    Parameters
    ----------
    regularizer : callable
        A class that makes one without arguments, or one itself.
    expected_failures : dict of str to str, optional
        Names of checks that must fail, with the reason. One that passes is an error.

    Raises
    ------
    ConformanceError
        An `AssertionError` whose `kind` says which check failed.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe.testing import check_regularizer
    >>> check_regularizer(pf.regularizers.L2)
    """
    run_checks(repr(regularizer), regularizer_checks(regularizer), expected_failures)


def regularizer_checks(regularizer: Callable[..., Any]) -> Checks:
    """Return the checks of a regularizer by name.

    - value: one finite number for a parameter of any shape, in its dtype.
    - gradient: that of the number, where it has one.
    - config: what its fields say makes the same again.

    Examples
    --------
    >>> import pyframe as pf
    >>> list(regularizer_checks(pf.regularizers.get("l2")))[:2]
    ['value', 'gradient']
    """
    what = repr(regularizer)
    return {
        "value": partial(_check_penalty, regularizer, what),
        "gradient": partial(_check_penalty_gradient, regularizer, what),
        "config": partial(_check_config, "regularizers", regularizer, what),
    }


def check_constraint(
    constraint: Callable[..., Any], *, expected_failures: Expected | None = None
) -> None:
    """Check a constraint.

    Parameters
    ----------
    constraint : callable
        A class that makes one without arguments, or one itself.
    expected_failures : dict of str to str, optional
        Names of checks that must fail, with the reason. One that passes is an error.

    Raises
    ------
    ConformanceError
        An `AssertionError` whose `kind` says which check failed.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe.testing import check_constraint
    >>> check_constraint(pf.constraints.MaxNorm)
    """
    run_checks(repr(constraint), constraint_checks(constraint), expected_failures)


def constraint_checks(constraint: Callable[..., Any]) -> Checks:
    """Return the checks of a constraint by name.

    - value: finite, of the shape and dtype of the parameter, also for zeros.
    - again: what keeps to it stays, up to rounding.
    - training: a step ends with it.
    - config: what its fields say makes the same again.

    Examples
    --------
    >>> import pyframe as pf
    >>> list(constraint_checks(pf.constraints.get("non_negative")))[:2]
    ['value', 'again']
    """
    what = repr(constraint)
    return {
        "value": partial(_check_constrained, constraint, what),
        "again": partial(_check_again, constraint, what),
        "training": partial(_check_constraint_training, constraint, what),
        "config": partial(_check_config, "constraints", constraint, what),
    }


def _made(thing: Any) -> Any:
    return thing() if isinstance(thing, type) else thing


def _values(shape: tuple[int, ...]) -> Any:
    """Return numbers of both signs, none of them near 0."""
    rng = np.random.default_rng(0)
    values = rng.choice([-1.0, 1.0], shape) * rng.uniform(0.5, 3.0, shape)
    return np.asarray(values)


def _run(function: Any, values: Any, dtype: str) -> Any:
    return pyframe.compile(function(pyframe.Parameter(values, "w", dtype=dtype))).run({})


def _check_penalty(regularizer: Any, what: str) -> None:
    for dtype in ("float32", "float64"):
        for shape in SHAPES:
            got = _run(_made(regularizer), _values(shape), dtype)
            require(
                got.shape == () and got.dtype == dtype and bool(np.isfinite(got)),
                "value",
                what,
                f"for {dtype} {describe(shape)} it gives {got.dtype} {describe(got.shape)}: {got}; "
                "a penalty is one number",
            )


def _check_penalty_gradient(regularizer: Any, what: str) -> None:
    values = _values((3, 2))
    w = pyframe.Parameter(values, "w", dtype="float64")
    _, gradients = pyframe.compile(_made(regularizer)(w)).loss_and_gradients({})
    for i in np.ndindex(values.shape):
        up, down = values.copy(), values.copy()
        up[i] += STEP
        down[i] -= STEP
        one = _made(regularizer)
        wanted = float(_run(one, up, "float64") - _run(one, down, "float64")) / (2 * STEP)
        require(
            abs(float(gradients[w][i]) - wanted) <= 1e-6 * max(1.0, abs(wanted)),
            "gradient",
            what,
            f"its gradient at {values[i]:.3f} is {gradients[w][i]}, and its slope {wanted}",
        )


def _check_constrained(constraint: Any, what: str) -> None:
    for dtype in ("float32", "float64"):
        for shape in SHAPES:
            for values in (_values(shape), np.zeros(shape)):
                got = _run(_made(constraint), values, dtype)
                require(
                    got.shape == shape and got.dtype == dtype and bool(np.isfinite(got).all()),
                    "value",
                    what,
                    f"of {dtype} {describe(shape)} it makes {got.dtype} {describe(got.shape)}: "
                    f"{got}",
                )


def _check_again(constraint: Any, what: str) -> None:
    for shape in SHAPES:
        once = _run(_made(constraint), _values(shape), "float64")
        twice = _run(_made(constraint), once, "float64")
        same = np.allclose(once, twice, rtol=1e-12, atol=1e-12)
        require(same, "again", what, f"applied again it makes {twice} of {once}")


def _check_constraint_training(constraint: Any, what: str) -> None:
    values, rate = _values((4, 5)), 0.25
    w = pyframe.Parameter(values, "w", dtype="float64", constraint=_made(constraint))
    plan = pyframe.compile(pyframe.Sum(w), optimizer=pyframe.optimizers.SGD(rate))
    plan.step({})
    wanted = _run(_made(constraint), values - rate, "float64")
    same = same_bits(w.value, wanted)
    require(same, "training", what, f"a step ends with {w.value}, and {wanted} keeps to it")


def _check_config(kind: str, thing: Any, what: str) -> None:
    made = _made(thing)
    config = registries[kind].config(made)
    if config is None:
        require(False, "config", what, "it cannot be saved: register a dataclass")
    again = registries[kind].made(json.loads(json.dumps(config)), kind, such_as="")
    require(again == made, "config", what, f"made again from {config} it is {again!r}")
