"""Checks of optimizers."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import pyframe
from pyframe import schedules
from pyframe.engine.plan import Plan
from pyframe.errors import AnomalyError, ArgumentError, SlotError
from pyframe.graph.node import Placeholder
from pyframe.graph.parameter import Parameter
from pyframe.graph.spec import Array
from pyframe.native.threads import num_threads
from pyframe.optimizers import Optimizer
from pyframe.optimizers.base import SETTABLE
from pyframe.testing.behaviour import THREADS, close, repeat, same_bits
from pyframe.testing.runner import Checks, Expected, fail, require, run_checks

BOWL_STEPS = 400
BUILDS = 25
# The share of a bowl's initial cost that may be left; more for a search without gradients.
LEFT, LEFT_BY_SEARCH = 0.02, 0.5
MANY = 200_003  # enough elements for several threads, and a prime

LARGE, FEW = 100_003, 1999  # elements, compared with a few at a time
NOTICED = 1000  # elements, whose bytes are many when a step leaves them behind

Factory = Callable[..., Any]


def check_optimizer(
    factory: Factory,
    *,
    learning_rate: float = 0.1,
    elementwise: bool = True,
    expected_failures: Expected | None = None,
) -> None:
    """Check an optimizer: that it descends, and that nothing but its formula affects the result.

    Parameters
    ----------
    factory : type of Optimizer, or callable
        Gives a new optimizer, also with ``learning_rate=`` and ``groups=`` if it has them: a class,
        or for example ``functools.partial(MyOptimizer, momentum=0.9)``.
    learning_rate : float, default 0.1
        The rate at the start of the checks; it falls to 0 where the minimum has to be reached.
    elementwise : bool, default True
        Whether each element's update depends on this element only, so that it does not matter how
        the elements are divided into parameters. False for an optimizer that takes norms.
    expected_failures : dict of str to str, optional
        Names of checks that must fail, with the reason. One that passes is an error.

    Raises
    ------
    ConformanceError
        An `AssertionError` whose `kind` says which check failed.

    See Also
    --------
    optimizer_checks : the checks by name.

    Examples
    --------
    >>> import functools
    >>> import pyframe as pf
    >>> from pyframe.testing import check_optimizer
    >>> check_optimizer(functools.partial(pf.optimizers.SGD, momentum=0.9), learning_rate=0.05)
    """
    checks = optimizer_checks(factory, learning_rate=learning_rate, elementwise=elementwise)
    run_checks(_name(factory), checks, expected_failures)


def optimizer_checks(
    factory: Factory, *, learning_rate: float = 0.1, elementwise: bool = True
) -> Checks:
    """Return the checks of an optimizer by name.

    - declaration: a docstring, a name in snake_case, an update.
    - options: every argument is an option, and so is saved; setting it later is as good; others are
      refused.
    - slots: what is kept from step to step is declared, and stays the same arrays.
    - gradients: they are what they were before the update.
    - config: what `config` returns is JSON and makes the same optimizer again.
    - bowl: the cost of a convex bowl falls to nearly nothing.
    - segmentation: the order of the parameters, and how elements are divided into them, changes no
      bit, if it is elementwise.
    - zero: gradients of 0, and parameters without elements, give only finite numbers.
    - rate: a rate of 0 moves nothing; a schedule gives the same bits as its numbers.
    - dtype: float32 stays float32, and agrees with float64 up to its precision.
    - frozen: untrainable parameters keep their bits, and the padding between parameters stays 0.
    - nan: NaN as a gradient reaches the parameters and breaks nothing else.
    - state: after restoring a snapshot, the same steps follow; one instance serves two plans.
    - groups: a factor of 0 for a group stops only that group (for an optimizer with kernels).
    - sizes: 10^5 elements move as they do a few at a time, if the optimizer is elementwise.
    - determinism, threads, leak.

    Examples
    --------
    >>> import pyframe as pf
    >>> list(optimizer_checks(pf.optimizers.SGD))[:2]
    ['declaration', 'options']
    """
    bench = _Bench(factory, learning_rate, elementwise)
    checks: Checks = {
        "declaration": bench.check_declaration,
        "options": bench.check_options,
        "slots": bench.check_slots,
        "gradients": bench.check_gradients,
        "config": bench.check_config,
        "bowl": bench.check_bowl,
        "segmentation": bench.check_segmentation,
        "zero": bench.check_zero,
        "rate": bench.check_rate,
        "dtype": bench.check_dtype,
        "frozen": bench.check_frozen,
        "nan": bench.check_nan,
        "state": bench.check_state,
        "groups": bench.check_groups,
        "determinism": bench.check_determinism,
        "threads": bench.check_threads,
        "sizes": bench.check_sizes,
        "leak": bench.check_leak,
    }
    return checks


def _name(factory: Factory) -> str:
    """Return the name of a factory for messages."""
    if isinstance(factory, functools.partial):
        given = ", ".join(f"{key}={value!r}" for key, value in factory.keywords.items())
        return f"{_name(factory.func)}({given})"
    return getattr(factory, "__name__", type(factory).__name__)


class Bowl:
    """sum_i a_i (p_i - c_i)^2 / 2 over some parameters, whose minimum is 0 at c.

    Parameters
    ----------
    optimizer : Optimizer
    sizes : sequence of int
        Sizes of the parameters, in the order of the graph.
    dtype : {"float32", "float64"}
    backwards : bool
        Whether to make the graph in the opposite order.
    groups : sequence of str, optional
        The group of each parameter.
    frozen : sequence of int
        The numbers of the parameters that are not trainable.
    first : int
        The index of the first element in a larger bowl that this one is a part of.
    """

    def __init__(
        self,
        optimizer: Any,
        sizes: Sequence[int],
        dtype: str = "float64",
        backwards: bool = False,
        groups: Sequence[str] | None = None,
        frozen: Sequence[int] = (),
        first: int = 0,
    ) -> None:
        count = sum(sizes)
        i = np.arange(first, first + count)
        curvature, center = 0.5 + 1.5 * ((i * 7) % 11) / 10, 0.4 * np.cos(1.7 * i)
        start = center + 0.5 * np.where(i % 3 == 0, -1.0, 1.0) + 0.1 * np.sin(i)
        self.noise = Placeholder("noise", shape=(), dtype=dtype)
        self.parameters: list[Parameter] = []
        terms, at = [], 0
        for k, size in enumerate(sizes):
            part = slice(at, at + size)
            at += size
            p = Parameter(
                start[part],
                f"p{k}",
                dtype=dtype,
                group="default" if groups is None else groups[k],
                trainable=k not in frozen,
            )
            self.parameters.append(p)
            away = p - center[part]
            terms.append(pyframe.Sum(0.5 * curvature[part] * away * away))
        cost = self.noise
        total = None
        for term in reversed(terms) if backwards else terms:
            total = term if total is None else total + term
        assert total is not None
        self.plan: Plan = pyframe.compile(total * cost, optimizer=optimizer)

    def step(self, count: int = 1, scale: float = 1.0) -> list[float]:
        """Take steps and return their costs."""
        return [self.plan.step({self.noise: scale}) for _ in range(count)]

    @property
    def values(self) -> Array:
        """All elements, in the order of the parameters."""
        return np.concatenate([p.value.ravel() for p in self.parameters])


class _Bench:
    """An optimizer under test."""

    def __init__(self, factory: Factory, learning_rate: float, elementwise: bool) -> None:
        self.factory, self.learning_rate, self.elementwise = factory, learning_rate, elementwise
        self.what = _name(factory)

    def make(self, rate: Any = None, **options: Any) -> Any:
        """Return a new optimizer with the learning rate under test, or another one."""
        if getattr(self.factory(), "needs_gradients", True):
            options["learning_rate"] = self.learning_rate if rate is None else rate
        return self.factory(**options)

    @functools.cached_property
    def searches(self) -> bool:
        """Whether it tries parameters and looks only at the cost."""
        return not self.factory().needs_gradients

    def require(self, condition: object, kind: str, message: str) -> None:
        require(condition, kind, self.what, message)

    def trained(self, steps: int = 6, sizes: Sequence[int] = (3, 5), **options: Any) -> Array:
        """Return all elements of a bowl after some steps."""
        bowl = Bowl(self.make(), sizes, **options)
        bowl.step(steps)
        return bowl.values

    def check_declaration(self) -> None:
        optimizer = self.factory()
        cls = type(optimizer)
        self.require(isinstance(optimizer, Optimizer), "declaration", f"it gives {optimizer!r}")
        own = cls.__dict__.get("__doc__")
        kinds = set(optimizer.slots.values())
        good = cls.name.isidentifier() and cls.name == cls.name.lower()
        has_update = optimizer.is_python or cls.calls is not Optimizer.calls
        wrong = [
            message
            for is_right, message in (
                (inspect.cleandoc(own or ""), "it has no docstring of its own"),
                (good, f"its name {cls.name!r} is no snake_case identifier"),
                (has_update, "it overrides neither update nor calls"),
                (
                    kinds <= {"like", "scalar"},
                    f"slots must be 'like' or 'scalar', and are {optimizer.slots}",
                ),
            )
            if not is_right
        ]
        self.require(not wrong, "declaration", "; ".join(wrong))
        if not self.searches:
            self.make()  # takes learning_rate=

    def check_options(self) -> None:
        optimizer = self.make()
        config = optimizer.config()
        taken = inspect.signature(type(optimizer)).parameters.values()
        named = [p.name for p in taken if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        lost = [name for name in named if name not in (*SETTABLE, *config)]
        self.require(
            not lost,
            "options",
            f"{', '.join(lost)}: what config() lacks is lost when a model is saved; pass it on as "
            f"an option: super().__init__(..., {', '.join(f'{name}={name}' for name in lost)})",
        )
        if optimizer.options:
            with contextlib.suppress(ArgumentError, TypeError):
                self.make(no_such_option=0.5)
                fail(
                    "options",
                    self.what,
                    "it takes no_such_option=0.5, as it would take any that is misspelt; "
                    "check_options raises an ArgumentError for what is no option of its own",
                )
        for name, value in optimizer.options.items():
            if type(value) is not float:
                continue
            other = value / 2 or 0.5
            try:
                given, set_later = self.make(**{name: other}), self.make()
                setattr(set_later, name, other)
            except (ArgumentError, TypeError):  # no value for it, or no argument of the factory
                continue
            ours, theirs = Bowl(given, (3, 5)), Bowl(set_later, (3, 5))
            ours.step(3)
            theirs.step(3)
            self.require(
                same_bits(ours.values, theirs.values),
                "options",
                f"{name}={other:g} moves it otherwise when it is given to the constructor than "
                f"when it is set afterwards; keep no copy, and read self.options[{name!r}]",
            )

    def check_slots(self) -> None:
        bowl = Bowl(self.make(), (3, 5))
        try:
            bowl.step(3)
        except SlotError as error:
            fail("slots", self.what, str(error))

    def check_gradients(self) -> None:
        if self.searches:
            return
        optimizer = self.make()
        # A plan changes them where they are, or takes them elsewhere.
        for name in ("clip_value", "clip_norm", "gradient_noise", "sharpness"):
            setattr(optimizer, name, None)
        bowl = Bowl(optimizer, (3, 5))
        # One that proposes begins at the parameters, and later takes gradients elsewhere.
        for _ in range(1 if optimizer.proposes else 3):
            _, before = bowl.plan.loss_and_gradients({bowl.noise: 1.0})
            bowl.step()
            for p in bowl.parameters:
                wrong = close(bowl.plan.gradient(p), before[p], 1e-12)
                if wrong:
                    fail(
                        "gradients",
                        self.what,
                        f"after its update the gradient of {p.name} {wrong} as before it; "
                        "gradients are read alone: write g = 2 * gradients, not gradients *= 2, "
                        "and in a Call 'gradients' among the inputs",
                    )

    def check_config(self) -> None:
        for rate in (None, schedules.Exponential(0.1, decay=0.5)):
            optimizer = self.make(rate)
            config = optimizer.config()
            read = json.loads(json.dumps(config))
            arguments = {key: value for key, value in read.items() if key != "name"}
            again = type(optimizer)(**arguments)
            self.require(
                repr(again) == repr(optimizer) and again.config() == config,
                "config",
                f"config() gives {config}, and that makes {again!r} instead of {optimizer!r}",
            )
            ours, theirs = Bowl(optimizer, (3, 5)), Bowl(again, (3, 5))
            ours.step(4)
            theirs.step(4)
            self.require(
                same_bits(ours.values, theirs.values),
                "config",
                f"an optimizer made from {config} moves otherwise than the one it describes",
            )

    def check_bowl(self) -> None:
        sizes = (2,) if self.searches else (3, 5)
        falling = schedules.Cosine(self.learning_rate, total_steps=BOWL_STEPS)
        for dtype in ("float32", "float64"):
            bowl = Bowl(self.make(falling), sizes, dtype)
            before = bowl.values.copy()
            costs = bowl.step(BOWL_STEPS)
            self.require(
                not same_bits(before, bowl.values),
                "bowl",
                f"{BOWL_STEPS} steps have moved nothing; write into the array that update is given "
                "(parameters -= ..., not parameters = ...)",
            )
            last = min(costs) if self.searches else costs[-1]
            left = LEFT_BY_SEARCH if self.searches else LEFT
            self.require(
                last <= left * costs[0],
                "bowl",
                f"{BOWL_STEPS} steps on a convex bowl of {sum(sizes)} elements in {dtype} brought "
                f"the cost from {costs[0]:.4g} to {last:.4g}; it should fall to {left:g} of it at "
                f"most (learning rate {self.learning_rate:g}, falling to 0; "
                "pass learning_rate= for another one)",
            )

    def check_segmentation(self) -> None:
        if self.searches or not self.elementwise:
            return
        wanted = self.trained(sizes=(8,))
        for how, options in (
            ("divided into parameters of 3 and 5 elements", {"sizes": (3, 5)}),
            ("divided into parameters of 1, 6 and 1 elements", {"sizes": (1, 6, 1)}),
            ("in the opposite order", {"sizes": (3, 5), "backwards": True}),
            ("in two groups", {"sizes": (3, 5), "groups": ("one", "other")}),
        ):
            self.require(
                same_bits(wanted, self.trained(**options)),  # type: ignore[arg-type]
                "segmentation",
                f"the same 8 elements, {how}, move otherwise than in one parameter; if that is "
                "meant (a norm of a whole parameter, say), pass elementwise=False",
            )

    def check_zero(self) -> None:
        bowl = Bowl(self.make(), (3, 0, 5))
        bowl.step(4, scale=0.0)
        finite = bool(np.isfinite(bowl.values).all())
        self.require(finite, "zero", "gradients of 0 lead to parameters that are not finite")
        bowl.step(2)
        finite = bool(np.isfinite(bowl.values).all())
        self.require(finite, "zero", "the first step after gradients of 0 gives what is not finite")

    def check_rate(self) -> None:
        if self.searches:
            return
        still = Bowl(self.make(0.0), (3, 5))
        before = still.values.copy()
        still.step(3)
        self.require(
            np.array_equal(before, still.values),
            "rate",
            "with a learning rate of 0 the parameters move; every change must scale with "
            "learning_rate",
        )
        number = self.trained(5)
        bowl = Bowl(self.make(schedules.Constant(self.learning_rate)), (3, 5))
        bowl.step(5)
        self.require(
            same_bits(number, bowl.values), "rate", "a constant schedule moves it otherwise"
        )
        stairs = schedules.Step(self.learning_rate, every=2, factor=0.5)
        scheduled, by_hand = Bowl(self.make(stairs), (3, 5)), Bowl(self.make(), (3, 5))
        scheduled.step(5)
        for step in range(5):
            rate = float(stairs(step))
            by_hand.plan.step({by_hand.noise: 1.0}, learning_rate=rate)
        self.require(
            not same_bits(scheduled.values, number),
            "rate",
            "a schedule that falls moves it as far as a constant rate; use the learning_rate that "
            "update is called with",
        )
        self.require(
            same_bits(scheduled.values, by_hand.values),
            "rate",
            "a schedule moves it otherwise than its numbers given step by step: the rate of each "
            "step must be that which update, or the kernel, is called with",
        )

    def check_dtype(self) -> None:
        narrow, wide = self.trained(4, dtype="float32"), self.trained(4, dtype="float64")
        self.require(narrow.dtype == np.float32, "dtype", f"float32 became {narrow.dtype}")
        self.require(wide.dtype == np.float64, "dtype", f"float64 became {wide.dtype}")
        wrong = None if self.searches else close(narrow, wide, 1e-3)
        if wrong:
            fail("dtype", self.what, f"after 4 steps in float32 a parameter {wrong} as in float64")

    def check_frozen(self) -> None:
        bowl = Bowl(self.make(), (3, 4, 5), frozen=(1,))
        before = bowl.parameters[1].value.copy()
        bowl.step(5)
        self.require(
            same_bits(before, bowl.parameters[1].value),
            "frozen",
            "it changes a parameter that is not trainable",
        )
        for storage in {id(s): s for s in (p.place.storage for p in bowl.parameters)}.values():
            inside = np.zeros(len(storage.data), bool)
            for p in bowl.parameters:
                inside[p.place.offset : p.place.offset + p.size] = True
            self.require(
                not np.any(storage.data[~inside]),
                "frozen",
                "it writes into the padding between parameters, where parameter and gradient are "
                "0; an element without value and gradient must stay 0",
            )

    def check_nan(self) -> None:
        bowl = Bowl(self.make(), (3, 5))
        bowl.step(2)
        steps = 5
        with np.errstate(all="ignore"):
            try:
                bowl.step(1, scale=float("nan"))
            except AnomalyError:  # clipping refuses such a step; it does not count
                steps = 4
            bowl.step(2)
        count = bowl.plan.step_count
        same = len(bowl.values) == 8 and count == steps
        self.require(same, "nan", f"after NaN the plan counts {count} steps, not {steps}")
        other = self.trained(3)
        self.require(
            bool(np.isfinite(other).all()),
            "nan",
            "after NaN in one plan a plan of another instance gives what is not finite",
        )

    def check_state(self) -> None:
        bowl = Bowl(self.make(), (3, 5))
        bowl.step(3)
        snapshot = bowl.plan.snapshot()
        bowl.step(4)
        wanted = bowl.values.copy()
        bowl.plan.restore(snapshot)
        bowl.step(4)
        self.require(
            same_bits(wanted, bowl.values),
            "state",
            "after Plan.restore the same steps lead elsewhere: it remembers something outside of "
            "its slots; name in `slots` whatever is kept from step to step",
        )
        shared = self.make()
        one, other = Bowl(shared, (3, 5)), Bowl(shared, (3, 5))
        for _ in range(7):
            one.step()
            other.step()
        self.require(
            same_bits(one.values, wanted) and same_bits(other.values, wanted),
            "state",
            "one instance in two plans moves them otherwise than an instance each: it keeps "
            "something on self",
        )

    def check_groups(self) -> None:
        if self.searches or self.factory().is_python:
            return
        groups = {"still": {"learning_rate_factor": 0.0}}
        bowl = Bowl(self.make(groups=groups), (3, 5), groups=("still", "default"))
        plain = Bowl(self.make(), (3, 5), groups=("still", "default"))
        before = bowl.parameters[0].value.copy()
        for each in (bowl, plain):
            each.step(5)
        self.require(
            same_bits(before, bowl.parameters[0].value),
            "groups",
            "a group whose learning_rate_factor is 0 moves; pass "
            "for_group(group)['learning_rate_factor'] to the kernel",
        )
        if self.elementwise:
            self.require(
                same_bits(bowl.parameters[1].value, plain.parameters[1].value),
                "groups",
                "options of one group change how another one moves",
            )

    def check_determinism(self) -> None:
        state = np.random.get_state()  # noqa: NPY002
        try:
            results = []
            for attempt in range(2):
                np.random.seed(attempt)  # noqa: NPY002
                results.append(self.trained(8))
        finally:
            np.random.set_state(state)  # noqa: NPY002
        self.require(
            same_bits(*results), "determinism", "the same steps, taken twice, give different bits"
        )

    def check_threads(self) -> None:
        results = {}
        for count in THREADS:
            with num_threads(count):
                results[count] = self.trained(3, sizes=(MANY,), dtype="float32")
        for count in THREADS[1:]:
            self.require(
                same_bits(results[1], results[count]),
                "threads",
                f"{count} threads move {MANY} elements otherwise than one",
            )

    def check_sizes(self) -> None:
        if self.searches or not self.elementwise:
            return
        for dtype, relative in (("float32", 1e-5), ("float64", 1e-12)):
            wanted = np.concatenate(
                [
                    self.trained(3, (min(FEW, LARGE - first),), dtype=dtype, first=first)
                    for first in range(0, LARGE, FEW)
                ]
            )
            for count in THREADS[:3]:
                with num_threads(count):
                    wrong = close(self.trained(3, (LARGE,), dtype=dtype), wanted, relative)
                if wrong:
                    fail(
                        "sizes",
                        self.what,
                        f"after 3 steps of {LARGE} elements in {dtype}, by {count} thread(s), a "
                        f"parameter {wrong} as when {FEW} elements are trained at a time",
                    )

    def check_leak(self) -> None:
        repeat(self.what, lambda: self.trained(1, (NOTICED,)), BUILDS)
        repeat(self.what, self.factory, 10 * BUILDS)
