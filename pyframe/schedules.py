"""Learning-rate schedules: functions from step numbers to learning rates.

A schedule is asked for many steps at once, so that training gets a table that the C loop reads.
Steps are counted from 0, one for each update.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from pyframe.errors import ArgumentError, check_integer, check_number, raise_if_signalled
from pyframe.hookspecs import hookimpl
from pyframe.plugins.registry import registries
from pyframe.strict import Strict

Rates = npt.NDArray[np.float64]


class Schedule(Strict):
    """The base of all schedules: a subclass defines ``rates(self, steps)``.

    Its constructor's arguments must be readable as attributes of the same names, and `arguments`
    lists them: then `config` and `from_config` work by themselves.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> class Hyperbolic(pf.schedules.Schedule):
    ...     name, arguments = "hyperbolic", ("learning_rate",)
    ...     def __init__(self, learning_rate):
    ...         self.learning_rate = learning_rate
    ...     def rates(self, steps):
    ...         return self.learning_rate / (1 + steps)
    >>> Hyperbolic(0.5)(np.arange(2))
    array([0.5 , 0.25])
    """

    name: ClassVar[str] = ""
    arguments: ClassVar[tuple[str, ...]] = ()

    def rates(self, steps: Rates) -> Any:
        """Return the learning rates of step numbers, given as a float64 array."""
        raise NotImplementedError

    def __call__(self, steps: npt.ArrayLike) -> Rates:
        """Return the learning rate of each step.

        Parameters
        ----------
        steps : array_like of int, of any shape

        Returns
        -------
        ndarray of float64, of the same shape
        """
        numbers = np.asarray(steps, np.float64)
        return np.array(np.broadcast_to(self.rates(numbers), numbers.shape), np.float64)

    def config(self) -> dict[str, Any]:
        """Return what `from_config` takes to build this schedule again; JSON can hold it."""
        return {"name": self.name, **{name: getattr(self, name) for name in self.arguments}}

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.config() == other.config()

    def __hash__(self) -> int:
        return hash((type(self), *self.config().values()))

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.arguments)
        return f"{type(self).__name__}({given})"


class Constant(Schedule):
    """The same rate at every step.

    Parameters
    ----------
    learning_rate : float, at least 0
    """

    name, arguments = "constant", ("learning_rate",)
    _attributes = dict.fromkeys(arguments, "")

    def __init__(self, learning_rate: float) -> None:
        self.learning_rate = check_number("learning_rate", learning_rate, at_least=0)

    def rates(self, steps: Rates) -> Any:
        return self.learning_rate


class Step(Schedule):
    """A rate that falls in steps: ``learning_rate * factor ** (step // every)``.

    Parameters
    ----------
    learning_rate : float, at least 0
    every : int
        Number of steps between two drops.
    factor : float, above 0
        The factor of each drop.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> pf.schedules.Step(0.1, every=2, factor=0.5)(np.arange(5))
    array([0.1  , 0.1  , 0.05 , 0.05 , 0.025])
    """

    name, arguments = "step", ("learning_rate", "every", "factor")
    _attributes = dict.fromkeys(arguments, "")

    def __init__(self, learning_rate: float, every: int, factor: float = 0.1) -> None:
        self.learning_rate = check_number("learning_rate", learning_rate, at_least=0)
        self.every = check_integer("every", every, at_least=1)
        self.factor = check_number("factor", factor, above=0)

    def rates(self, steps: Rates) -> Any:
        return self.learning_rate * self.factor ** (steps // self.every)


class Exponential(Schedule):
    """A rate that decays exponentially: ``learning_rate * decay ** (step / every)``.

    Parameters
    ----------
    learning_rate : float, at least 0
    decay : float, above 0
        The factor after `every` steps.
    every : int, default 1
    """

    name, arguments = "exponential", ("learning_rate", "decay", "every")
    _attributes = dict.fromkeys(arguments, "")

    def __init__(self, learning_rate: float, decay: float, every: int = 1) -> None:
        self.learning_rate = check_number("learning_rate", learning_rate, at_least=0)
        self.decay = check_number("decay", decay, above=0)
        self.every = check_integer("every", every, at_least=1)

    def rates(self, steps: Rates) -> Any:
        return self.learning_rate * self.decay ** (steps / self.every)


class Cosine(Schedule):
    """A linear warm-up, then half a cosine wave from `learning_rate` down to `final`.

    With w warm-up steps and T steps in all::

        rate(s) = learning_rate (s + 1) / w                                      s < w
        rate(s) = final + (learning_rate - final) (1 + cos(pi (s - w) / (T - w))) / 2   s <= T
        rate(s) = final                                                          s > T

    Parameters
    ----------
    learning_rate : float, at least 0
        The highest rate.
    total_steps : int
        Epochs times batches in an epoch.
    warmup_steps : int, default 0
        Fewer than `total_steps`.
    final : float, default 0.0

    References
    ----------
    Loshchilov, Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017, equation 5.
    The warm-up: Goyal et al., "Accurate, large minibatch SGD", 2017, section 2.2.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> pf.schedules.Cosine(0.8, total_steps=6, warmup_steps=2)(np.array([0, 1, 2, 4, 6, 9]))
    array([0.4, 0.8, 0.8, 0.4, 0. , 0. ])
    """

    name, arguments = "cosine", ("learning_rate", "total_steps", "warmup_steps", "final")
    _attributes = dict.fromkeys(arguments, "")

    def __init__(
        self, learning_rate: float, total_steps: int, warmup_steps: int = 0, final: float = 0.0
    ) -> None:
        self.learning_rate = check_number("learning_rate", learning_rate, at_least=0)
        self.total_steps = check_integer("total_steps", total_steps, at_least=1)
        self.warmup_steps = check_integer(
            "warmup_steps", warmup_steps, at_least=0, at_most=self.total_steps - 1
        )
        self.final = check_number("final", final, at_least=0)

    def rates(self, steps: Rates) -> Any:
        length = self.total_steps - self.warmup_steps
        done = np.clip((steps - self.warmup_steps) / length, 0.0, 1.0)
        wave = (1.0 + np.cos(np.pi * done)) / 2.0
        falling = self.final + (self.learning_rate - self.final) * wave
        rising = self.learning_rate * (steps + 1.0) / max(self.warmup_steps, 1)
        return np.where(steps < self.warmup_steps, rising, falling)


def get(schedule: Any) -> Any:
    """Return a schedule for a number, a schedule, a registered name or a saved config.

    Parameters
    ----------
    schedule : float, Schedule, str, dict or callable
        A number becomes a `Constant`; any callable from step numbers to rates is taken as it is.

    Raises
    ------
    UnknownNameError
        If the name is not registered.
    ArgumentError
        If the number is invalid, or the named schedule cannot be built without arguments.
    """
    if isinstance(schedule, str):
        made = registries["schedules"].get(schedule)
        try:
            return made()
        except TypeError as error:
            raise_if_signalled(error)
            raise ArgumentError(
                f"schedule {schedule!r} needs arguments; pass a {made.__name__}(...) instead"
            ) from error
    if isinstance(schedule, Mapping):
        return from_config(schedule)
    if callable(schedule):
        return schedule
    return Constant(check_number("learning_rate", schedule, at_least=0))


def from_config(config: Mapping[str, Any]) -> Schedule:
    """Return the schedule that ``Schedule.config`` described."""
    arguments = dict(config)
    made: Schedule = registries["schedules"].get(arguments.pop("name", ""))(**arguments)
    return made


@hookimpl
def pyframe_register_schedules() -> Mapping[str, type[Schedule]]:
    """Name the built-in schedules."""
    return {cls.name: cls for cls in (Constant, Step, Exponential, Cosine)}


def __getattr__(name: str) -> Any:
    """Return what a plugin has registered."""
    return registries["schedules"].attribute(name)
