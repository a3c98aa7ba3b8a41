"""Learning-rate schedules: functions from step numbers to learning rates.

A schedule is asked for many steps at once, so that training gets a table that the C loop reads.
Steps are counted from 0, one for each update.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
    aliases: ClassVar[tuple[str, ...]] = ()  # other names of a built-in one
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
        given = {name: getattr(self, name) for name in self.arguments}
        return {
            "name": self.name,
            **{k: v.config() if isinstance(v, Schedule) else v for k, v in given.items()},
        }

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.config() == other.config()

    def __hash__(self) -> int:
        return hash((type(self), repr(self.config())))

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.arguments)
        return f"{type(self).__name__}({given})"


class Constant(Schedule):
    """The same rate at every step.

    Parameters
    ----------
    learning_rate : float, at least 0

    Examples
    --------
    >>> Constant(0.1)(5)
    array(0.1)
    """

    name, arguments = "constant", ("learning_rate",)
    _attributes = dict.fromkeys(arguments, "")

    def __init__(self, learning_rate: float) -> None:
        self.learning_rate = check_number("learning_rate", learning_rate, at_least=0)

    def rates(self, steps: Rates) -> Any:
        return self.learning_rate


class Step(Schedule):
    """A rate that falls in steps: ``learning_rate * factor ** (step // every)``, without an end.

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
    aliases = ("StepLR",)
    _attributes = dict.fromkeys(arguments, "")

    def __init__(self, learning_rate: float, every: int, factor: float = 0.1) -> None:
        self.learning_rate = check_number("learning_rate", learning_rate, at_least=0)
        self.every = check_integer("every", every, at_least=1)
        self.factor = check_number("factor", factor, above=0)

    def rates(self, steps: Rates) -> Any:
        return self.learning_rate * self.factor ** (steps // self.every)


class Exponential(Schedule):
    """A rate that decays exponentially: ``learning_rate * decay ** (step / every)``, without end.

    Parameters
    ----------
    learning_rate : float, at least 0
    decay : float, above 0
        The factor after `every` steps.
    every : int, default 1

    Examples
    --------
    >>> Exponential(0.1, 0.5, every=10)(20)
    array(0.025)
    """

    name, arguments = "exponential", ("learning_rate", "decay", "every")
    aliases = ("ExponentialLR", "ExponentialDecay")
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
    aliases = ("CosineAnnealingLR", "CosineDecay")
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


class MultiStep(Schedule):
    """A rate that falls at some steps: ``learning_rate * factor ** k``, k of which have come.

    After the last one it stays where it is.

    Parameters
    ----------
    learning_rate : float, at least 0
    milestones : sequence of int
        The steps from which on the rate is lower, in ascending order.
    factor : float, above 0, default 0.1

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> pf.schedules.MultiStep(0.1, [2, 3], factor=0.5)(np.arange(5))
    array([0.1  , 0.1  , 0.05 , 0.025, 0.025])
    """

    name, arguments = "multi_step", ("learning_rate", "milestones", "factor")
    aliases = ("MultiStepLR",)
    _attributes = dict.fromkeys(arguments, "")

    def __init__(
        self, learning_rate: float, milestones: Sequence[int], factor: float = 0.1
    ) -> None:
        self.learning_rate = check_number("learning_rate", learning_rate, at_least=0)
        if isinstance(milestones, str) or not isinstance(milestones, Iterable):
            raise ArgumentError(f"milestones is {milestones!r}; it must be a list of steps")
        self.milestones = [check_integer("a milestone", m, at_least=0) for m in milestones]
        if self.milestones != sorted(set(self.milestones)):
            raise ArgumentError(f"milestones is {milestones!r}; it must be in ascending order")
        self.factor = check_number("factor", factor, above=0)

    def rates(self, steps: Rates) -> Any:
        return self.learning_rate * self.factor ** np.searchsorted(self.milestones, steps, "right")


class Polynomial(Schedule):
    """A rate that falls from `learning_rate` to `final` as a power of what is left.

    With T steps in all::

        rate(s) = final + (learning_rate - final) (1 - min(s, T) / T)^power

    From step T on it is `final`.

    Parameters
    ----------
    learning_rate : float, at least 0
    total_steps : int
    power : float, above 0, default 1.0
        1 is a straight line.
    final : float, at least 0, default 0.0

    References
    ----------
    Chen et al., "DeepLab: semantic image segmentation", 2017, section 4.1.2, the "poly" policy.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> pf.schedules.Polynomial(0.8, total_steps=4, power=2)(np.arange(6))
    array([0.8 , 0.45, 0.2 , 0.05, 0.  , 0.  ])
    """

    name, arguments = "polynomial", ("learning_rate", "total_steps", "power", "final")
    aliases = ("PolynomialLR", "PolynomialDecay")
    _attributes = dict.fromkeys(arguments, "")

    def __init__(
        self, learning_rate: float, total_steps: int, power: float = 1.0, final: float = 0.0
    ) -> None:
        self.learning_rate = check_number("learning_rate", learning_rate, at_least=0)
        self.total_steps = check_integer("total_steps", total_steps, at_least=1)
        self.power = check_number("power", power, above=0)
        self.final = check_number("final", final, at_least=0)

    def rates(self, steps: Rates) -> Any:
        left = 1.0 - np.minimum(steps / self.total_steps, 1.0)
        return self.final + (self.learning_rate - self.final) * left**self.power


class CosineRestarts(Schedule):
    """Half a cosine wave from `learning_rate` down to `final`, again and again, without an end.

    In cycle i, which is T = period growth^i steps long, at its step s::

        rate(s) = final + (learning_rate factor^i - final) (1 + cos(pi s / T)) / 2

    Parameters
    ----------
    learning_rate : float, at least 0
        The rate at the start of the first cycle.
    period : int
        Steps in the first cycle.
    growth : int, at least 1, default 1
        How much longer each cycle is than the one before.
    factor : float, above 0, default 1.0
        By which the highest rate changes from cycle to cycle.
    final : float, at least 0, default 0.0

    References
    ----------
    Loshchilov, Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017, section 3.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> pf.schedules.CosineRestarts(0.8, period=2, growth=2)(np.arange(7)).round(3)
    array([0.8  , 0.4  , 0.8  , 0.683, 0.4  , 0.117, 0.8  ])
    """

    name = "cosine_restarts"
    aliases = ("CosineAnnealingWarmRestarts", "CosineDecayRestarts")
    arguments = ("learning_rate", "period", "growth", "factor", "final")
    _attributes = dict.fromkeys(arguments, "")

    def __init__(
        self,
        learning_rate: float,
        period: int,
        growth: int = 1,
        factor: float = 1.0,
        final: float = 0.0,
    ) -> None:
        self.learning_rate = check_number("learning_rate", learning_rate, at_least=0)
        self.period = check_integer("period", period, at_least=1)
        self.growth = check_integer("growth", growth, at_least=1)
        self.factor = check_number("factor", factor, above=0)
        self.final = check_number("final", final, at_least=0)

    def _start(self, cycle: Rates) -> Rates:
        """Return the first step of each cycle."""
        if self.growth == 1:
            return self.period * cycle
        return self.period * (float(self.growth) ** cycle - 1.0) / (self.growth - 1)

    def rates(self, steps: Rates) -> Any:
        if self.growth == 1:
            cycle = np.floor(steps / self.period)
        else:
            reached = 1.0 + steps * (self.growth - 1) / self.period
            cycle = np.maximum(np.floor(np.log(reached) / np.log(self.growth)), 0.0)
            # A logarithm may round across the border of two cycles.
            cycle += self._start(cycle + 1.0) <= steps
            cycle -= self._start(cycle) > steps
        start = self._start(cycle)
        done = (steps - start) / (self._start(cycle + 1.0) - start)
        peak = self.learning_rate * self.factor**cycle
        return self.final + (peak - self.final) * (1.0 + np.cos(np.pi * done)) / 2.0


class OneCycle(Schedule):
    """One rise to the highest rate and one long fall, both along half a cosine wave.

    With T steps in all, a = max(rise T - 1, 0) of them rising, and a wave from 0 to 1,
    w(x) = (1 - cos(pi x)) / 2::

        first = learning_rate / start_divisor,    last = first / final_divisor
        rate(s) = first + (learning_rate - first) w(s / a)                   s < a
        rate(s) = learning_rate + (last - learning_rate) w((s - a) / (T - 1 - a))

    From step T - 1 on it is `last`.

    Parameters
    ----------
    learning_rate : float, at least 0
        The highest rate.
    total_steps : int, at least 2
    rise : float in [0, 1), default 0.3
        The part of the steps in which the rate rises.
    start_divisor : float, at least 1, default 25.0
    final_divisor : float, at least 1, default 1e4

    References
    ----------
    Smith, Topin, "Super-convergence: very fast training of neural networks using large learning
    rates", 2018; with waves instead of straight lines, and names of its numbers, as in PyTorch.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> schedule = pf.schedules.OneCycle(0.8, total_steps=9, rise=0.5, start_divisor=4)
    >>> schedule(np.arange(0, 9, 2)).round(3)
    array([0.2  , 0.567, 0.776, 0.331, 0.   ])
    """

    name = "one_cycle"
    aliases = ("OneCycleLR",)
    arguments = ("learning_rate", "total_steps", "rise", "start_divisor", "final_divisor")
    _attributes = dict.fromkeys(arguments, "")

    def __init__(
        self,
        learning_rate: float,
        total_steps: int,
        rise: float = 0.3,
        start_divisor: float = 25.0,
        final_divisor: float = 1e4,
    ) -> None:
        self.learning_rate = check_number("learning_rate", learning_rate, at_least=0)
        self.total_steps = check_integer("total_steps", total_steps, at_least=2)
        self.rise = check_number("rise", rise, at_least=0, below=1)
        self.start_divisor = check_number("start_divisor", start_divisor, at_least=1)
        self.final_divisor = check_number("final_divisor", final_divisor, at_least=1)

    def rates(self, steps: Rates) -> Any:
        top = max(self.rise * self.total_steps - 1.0, 0.0)
        first = self.learning_rate / self.start_divisor
        last = first / self.final_divisor
        rising = first + (self.learning_rate - first) * _wave(steps / max(top, 1.0))
        done = (steps - top) / (self.total_steps - 1.0 - top)
        falling = self.learning_rate + (last - self.learning_rate) * _wave(done)
        return np.where(steps < top, rising, falling)


def _wave(x: Rates) -> Any:
    """Return half a cosine wave from 0 to 1, which stays there."""
    return (1.0 - np.cos(np.pi * np.clip(x, 0.0, 1.0))) / 2.0


class Cyclic(Schedule):
    """A rate that goes up and down between two bounds in straight lines, without an end.

    In cycle i = floor(s / (2 half)), with half a cycle of `half` steps::

        rate(s) = low + (high - low) factor^i (1 - |s / half - 2 i - 1|)

    Parameters
    ----------
    low : float, at least 0
    high : float, above low
    half : int
        Steps from the lowest rate to the highest.
    factor : float, above 0, default 1.0
        By which the height of a cycle changes from one to the next; 0.5 is "triangular2".

    References
    ----------
    Smith, "Cyclical learning rates for training neural networks", 2017, section 3.2.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> pf.schedules.Cyclic(0.1, 0.5, half=2, factor=0.5)(np.arange(8))
    array([0.1, 0.3, 0.5, 0.3, 0.1, 0.2, 0.3, 0.2])
    """

    name, arguments = "cyclic", ("low", "high", "half", "factor")
    aliases = ("CyclicLR",)
    _attributes = dict.fromkeys(arguments, "")

    def __init__(self, low: float, high: float, half: int, factor: float = 1.0) -> None:
        self.low = check_number("low", low, at_least=0)
        self.high = check_number("high", high, above=self.low)
        self.half = check_integer("half", half, at_least=1)
        self.factor = check_number("factor", factor, above=0)

    def rates(self, steps: Rates) -> Any:
        cycle = np.floor(steps / (2 * self.half))
        height = 1.0 - np.abs(steps / self.half - 2.0 * cycle - 1.0)
        return self.low + (self.high - self.low) * self.factor**cycle * height


class Warmup(Schedule):
    """A straight line up to where another schedule begins, and then that schedule.

    With w steps of warm-up before a schedule f::

        rate(s) = start + (f(0) - start) (s + 1) / w         s < w
        rate(s) = f(s - w)                                   s >= w

    Parameters
    ----------
    schedule : float, Schedule or its config
    steps : int, at least 1
    start : float, at least 0, default 0.0

    References
    ----------
    Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", 2017, section 2.2.

    Examples
    --------
    >>> import numpy as np, pyframe as pf
    >>> pf.schedules.Warmup(pf.schedules.Step(0.8, every=2, factor=0.5), steps=2)(np.arange(6))
    array([0.4, 0.8, 0.8, 0.8, 0.4, 0.4])
    """

    name, arguments = "warmup", ("schedule", "steps", "start")
    aliases = ("LinearLR",)
    _attributes = dict.fromkeys(arguments, "")

    def __init__(self, schedule: Any, steps: int, start: float = 0.0) -> None:
        made = get(schedule)
        if not isinstance(made, Schedule):
            raise ArgumentError(
                f"Warmup takes a Schedule or a number, and got {schedule!r}; make it a subclass of "
                "pyframe.schedules.Schedule"
            )
        self.schedule = made
        self.steps = check_integer("steps", steps, at_least=1)
        self.start = check_number("start", start, at_least=0)

    def rates(self, steps: Rates) -> Any:
        first = self.schedule(0)
        rising = self.start + (first - self.start) * (steps + 1.0) / self.steps
        later = self.schedule(np.maximum(steps - self.steps, 0.0))
        return np.where(steps < self.steps, rising, later)


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

    Examples
    --------
    >>> get(0.1)(7)
    array(0.1)
    """
    if isinstance(schedule, str):
        made = registries["schedules"].get(schedule)
        try:
            return made()
        except TypeError as error:
            raise_if_signalled(error)
            raise ArgumentError(
                f"schedule {schedule!r} needs arguments; pass {made.__name__}(...) instead"
            ) from error
    if isinstance(schedule, Mapping):
        return from_config(schedule)
    if callable(schedule):
        return schedule
    return Constant(check_number("learning_rate", schedule, at_least=0))


def from_config(config: Mapping[str, Any]) -> Schedule:
    """Return the schedule that ``Schedule.config`` described.

    Examples
    --------
    >>> from_config(Constant(0.1).config())
    Constant(learning_rate=0.1)
    """
    arguments = dict(config)
    made: Schedule = registries["schedules"].get(arguments.pop("name", ""))(**arguments)
    return made


BUILT_IN: tuple[type[Schedule], ...] = (
    Constant,
    Step,
    MultiStep,
    Exponential,
    Polynomial,
    Cosine,
    CosineRestarts,
    OneCycle,
    Cyclic,
    Warmup,
)


@hookimpl
def pyframe_register_schedules() -> Mapping[str, type[Schedule]]:
    """Name the built-in schedules."""
    return {cls.name: cls for cls in BUILT_IN}


def __getattr__(name: str) -> Any:
    """Return what a plugin has registered."""
    return registries["schedules"].attribute(name)
