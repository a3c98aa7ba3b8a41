"""Checks of schedules and initializers."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import pyframe
from pyframe.errors import ShapeError
from pyframe.graph.spec import describe
from pyframe.schedules import Schedule
from pyframe.testing.behaviour import same_bits
from pyframe.testing.runner import Checks, Expected, require, run_checks

STEPS = 200
FAR = 10**9  # a step that no training reaches: even there a rate is a number
SHAPES = ((), (3,), (0,), (4, 5), (0, 3), (3, 2, 2, 4))


def _name(thing: Any) -> str:
    return getattr(thing, "__name__", "") or repr(thing)


# ---- schedules ----


def check_schedule(schedule: Any, *, expected_failures: Expected | None = None) -> None:
    """Check a learning-rate schedule.

    Parameters
    ----------
    schedule : Schedule, or a callable without arguments that gives one
    expected_failures : dict of str to str, optional
        Names of checks that must fail, with the reason. One that passes is an error.

    Raises
    ------
    ConformanceError
        An `AssertionError` whose `kind` says which check failed.

    See Also
    --------
    schedule_checks : the checks by name.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe.testing import check_schedule
    >>> check_schedule(pf.schedules.Cosine(0.1, total_steps=100, warmup_steps=10))
    """
    run_checks(_name(schedule), schedule_checks(schedule), expected_failures)


def schedule_checks(schedule: Any) -> Checks:
    """Return the checks of a schedule by name.

    - rates: float64 of the shape of the steps, finite and at least 0, however far.
    - purity: the rate of a step depends only on its number.
    - config: `config` returns JSON data that makes the same schedule again.
    - training: an optimizer uses the rates that it gives.

    Examples
    --------
    >>> import pyframe as pf
    >>> list(schedule_checks(pf.schedules.Constant(0.1)))[:2]
    ['rates', 'purity']
    """
    what = _name(schedule)
    return {
        "rates": partial(_check_schedule_rates, schedule, what),
        "purity": partial(_check_schedule_purity, schedule, what),
        "config": partial(_check_schedule_config, schedule, what),
        "training": partial(_check_schedule_training, schedule, what),
    }


def _schedule_of(schedule: Any) -> Schedule:
    return schedule if isinstance(schedule, Schedule) else schedule()


def _check_schedule_rates(schedule: Any, what: str) -> None:
    one = _schedule_of(schedule)
    require(isinstance(one, Schedule), "rates", what, f"it gives {one!r}, which is no Schedule")
    for shape in ((), (0,), (STEPS,), (2, 3)):
        steps = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
        rates = one(steps)
        require(
            isinstance(rates, np.ndarray) and rates.shape == shape and rates.dtype == np.float64,
            "rates",
            what,
            f"for steps of shape {shape} it gives {np.shape(rates)} of "
            f"{getattr(rates, 'dtype', type(rates).__name__)}",
        )
    steps = np.array([*range(STEPS), 10**6, FAR])
    with np.errstate(all="ignore"):
        rates = one(steps)
    bad = np.flatnonzero(~(np.isfinite(rates) & (rates >= 0)))
    if len(bad):
        require(
            False,
            "rates",
            what,
            f"the rate of step {steps[bad[0]]} is {rates[bad[0]]!r}; a rate is finite and at "
            "least 0",
        )


def _check_schedule_purity(schedule: Any, what: str) -> None:
    one = _schedule_of(schedule)
    steps = np.arange(STEPS)
    table = one(steps)
    backwards = np.array([float(one(s)) for s in steps[::-1]])[::-1]
    wrong = np.flatnonzero(~(np.abs(table - backwards) <= 1e-12 * np.abs(table)))
    require(
        not len(wrong),
        "purity",
        what,
        f"step {wrong[:1]} has another rate when it is asked for by itself: a rate must depend "
        "on the step number alone, and steps be taken as an array",
    )
    require(same_bits(table, one(steps)), "purity", what, "asked again, it gives other rates")


def _check_schedule_config(schedule: Any, what: str) -> None:
    one = _schedule_of(schedule)
    config = json.loads(json.dumps(one.config()))
    again = type(one)(**{key: value for key, value in config.items() if key != "name"})
    same = again == one and same_bits(again(np.arange(STEPS)), one(np.arange(STEPS)))
    require(
        same,
        "config",
        what,
        f"config() gives {config}, and that makes {again!r} instead of {one!r}; list the "
        "constructor's arguments in `arguments`",
    )


def _check_schedule_training(schedule: Any, what: str) -> None:
    one = _schedule_of(schedule)
    p = pyframe.Parameter(np.zeros(1), "p", dtype="float64")
    plan = pyframe.compile(-pyframe.Sum(p), optimizer=pyframe.optimizers.SGD(one))
    for _ in range(5):
        plan.step({})
    wanted = float(np.sum(one(np.arange(5))))
    require(
        abs(float(p.value[0]) - wanted) <= 1e-12 * max(1.0, wanted),
        "training",
        what,
        f"five steps of descent on -p went to {float(p.value[0])!r}; its rates add up to "
        f"{wanted!r}",
    )


# ---- initializers ----


def check_initializer(
    initializer: Callable[..., Any], *, expected_failures: Expected | None = None
) -> None:
    """Check an initializer.

    Parameters
    ----------
    initializer : callable
        A function of (shape=None, ...) that gives an `Initial`.
    expected_failures : dict of str to str, optional
        Names of checks that must fail, with the reason. One that passes is an error.

    Raises
    ------
    ConformanceError
        An `AssertionError` whose `kind` says which check failed.

    See Also
    --------
    initializer_checks : the checks by name.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe.testing import check_initializer
    >>> check_initializer(pf.initializers.he_normal)
    """
    run_checks(_name(initializer), initializer_checks(initializer), expected_failures)


def initializer_checks(initializer: Callable[..., Any]) -> Checks:
    """Return the checks of an initializer by name.

    - values: finite float64 of the requested shape; at least a matrix must be possible.
    - determinism: only seed, parameter name and shape matter, not the state of numpy.random.
    - config: `config` returns JSON data that makes the same values again.
    - layer: a `Dense` layer uses it for its weights, in float32 and float64.

    Examples
    --------
    >>> import pyframe as pf
    >>> list(initializer_checks(pf.initializers.zeros))[:2]
    ['values', 'determinism']
    """
    what = _name(initializer)
    return {
        "values": partial(_check_initializer_values, initializer, what),
        "determinism": partial(_check_initializer_determinism, initializer, what),
        "config": partial(_check_initializer_config, initializer, what),
        "layer": partial(_check_initializer_layer, initializer, what),
    }


def _drawn(
    initializer: Callable[..., Any], shape: tuple[int, ...], name: str = "w", seed: int = 0
) -> Any:
    pyframe.set_seed(seed)
    return initializer(shape=shape).materialize(name)


def _check_initializer_values(initializer: Callable[..., Any], what: str) -> None:
    for shape in SHAPES:
        try:
            values = _drawn(initializer, shape)
        except ShapeError as error:
            require(shape != (4, 5), "values", what, f"it refuses a matrix (4, 5): {error}")
            continue
        require(
            values.shape == shape and values.dtype == np.float64,
            "values",
            what,
            f"for shape {describe(shape)} it gives {values.dtype} of {describe(values.shape)}",
        )
        finite = bool(np.isfinite(values).all())
        require(finite, "values", what, f"of shape {describe(shape)} not all are finite")
    later = initializer()
    require(later.shape is None, "values", what, "without a shape it has one")
    pyframe.set_seed(0)
    same = same_bits(later.with_shape((4, 5)).materialize("w"), _drawn(initializer, (4, 5)))
    require(same, "values", what, "a shape given later makes other values")


def _check_initializer_determinism(initializer: Callable[..., Any], what: str) -> None:
    state = np.random.get_state()  # noqa: NPY002
    try:
        found = []
        for attempt in range(2):
            np.random.seed(attempt)  # noqa: NPY002
            found.append(_drawn(initializer, (4, 5)))
    finally:
        np.random.set_state(state)  # noqa: NPY002
    require(
        same_bits(*found),
        "determinism",
        what,
        "with one seed and one name it draws other values the second time; draw from the "
        "stream that draw() is given, never from numpy.random",
    )
    constant = len(np.unique(found[0])) == 1
    is_random = getattr(initializer(shape=(4, 5)), "is_random", True)
    for change in ({"name": "v"}, {"seed": 1}):
        same = same_bits(found[0], _drawn(initializer, (4, 5), **change))  # type: ignore[arg-type]
        require(
            not same or constant or not is_random,
            "determinism",
            what,
            f"with another {next(iter(change))} it draws the same values; if that is meant, as of "
            "an identity matrix, say so: Initial(..., is_random=False)",
        )
        require(
            same or is_random,
            "determinism",
            what,
            f"with another {next(iter(change))} it gives other values, and says is_random=False",
        )


def _check_initializer_config(initializer: Callable[..., Any], what: str) -> None:
    initial = initializer(shape=(4, 5))
    config = json.loads(json.dumps(initial.config()))
    arguments = {key: v for key, v in config.items() if key not in ("name", "shape")}
    require(config.get("shape") == [4, 5], "config", what, f"config() gives {config}")
    if config["name"] != getattr(initializer, "__name__", None):
        return  # a special case of another initializer, as zeros is of constant
    pyframe.set_seed(0)
    again = initializer(shape=tuple(config["shape"]), **arguments).materialize("w")
    same = same_bits(again, _drawn(initializer, (4, 5)))
    require(same, "config", what, f"made again from {config} it gives other values")


def _check_initializer_layer(initializer: Callable[..., Any], what: str) -> None:
    for dtype in ("float32", "float64"):
        pyframe.set_seed(0)
        layer = pyframe.layers.Dense(3, weight_initializer=initializer)
        model = pyframe.Sequential([layer], dtype=dtype, input_shape=(4,))
        values = model.get_weights()["dense/weight"]
        require(
            values.shape == (4, 3) and values.dtype == np.dtype(dtype),
            "layer",
            what,
            f"as the weights of a Dense layer in {dtype} it gives {values.dtype} of "
            f"{describe(values.shape)}",
        )
        wanted = initializer(shape=(4, 3)).materialize("dense/weight").astype(dtype)
        require(
            same_bits(wanted, values),
            "layer",
            what,
            "a Dense layer begins with other values than it gives",
        )
