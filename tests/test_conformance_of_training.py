"""Tests of the kit: broken optimizers, schedules, initializers, callbacks and datasets."""

from __future__ import annotations

import functools
import itertools
import socket
from typing import Any, ClassVar

import numpy as np
import pytest
from test_conformance_faults import caught

import pyframe as pf
from pyframe.callbacks import Callback
from pyframe.initializers import Initial
from pyframe.optimizers import SGD, Optimizer
from pyframe.optimizers.base import LIMIT, Call
from pyframe.schedules import Schedule
from pyframe.testing import (
    callback_checks,
    check_optimizer,
    dataset_checks,
    initializer_checks,
    optimizer_checks,
    schedule_checks,
)

pytestmark = pytest.mark.once

# ---- optimizers ----


class Descent(Optimizer):
    """p = p - rate g, in NumPy; the base of the broken ones."""

    def update(self, parameters, gradients, slots, *, step, learning_rate):
        parameters -= learning_rate * gradients


class Undocumented(Descent):
    pass


class NoUpdate(Optimizer):
    """Does nothing at all."""


class Shouting(Descent):
    """Has no name for the registry."""

    name = "SHOUTING!"


class OddSlot(Descent):
    """Has a slot of a kind that there is not."""

    slots: ClassVar = {"memory": "long"}


class ForgetsOptions(Descent):
    """Does not say what it was made with."""

    def __init__(self, learning_rate=0.1, factor=1.0, **rest):
        super().__init__(learning_rate, **rest)
        self.factor = factor


class Ascent(Descent):
    """Goes up."""

    def update(self, parameters, gradients, slots, *, step, learning_rate):
        parameters += learning_rate * gradients


class ByNorm(Descent):
    """Divides by the norm of all gradients."""

    def update(self, parameters, gradients, slots, *, step, learning_rate):
        parameters -= learning_rate * gradients / (1 + np.abs(gradients).max())


class ByPosition(Descent):
    """The later an element stands, the smaller its steps."""

    def update(self, parameters, gradients, slots, *, step, learning_rate):
        parameters -= learning_rate * gradients / (1 + np.arange(len(gradients)) / 64)


class DividesByGradient(Descent):
    """Takes steps of one size, and divides by 0 to get there."""

    def update(self, parameters, gradients, slots, *, step, learning_rate):
        with np.errstate(all="ignore"):
            parameters -= learning_rate * gradients / np.abs(gradients)


class OwnRate(Descent):
    """Does not ask for a learning rate."""

    def update(self, parameters, gradients, slots, *, step, learning_rate):
        parameters -= 0.1 * gradients


class FirstRate(Descent):
    """Goes on with the learning rate that it was given at first."""

    def update(self, parameters, gradients, slots, *, step, learning_rate):
        rate = self.learning_rate if isinstance(self.learning_rate, float) else 0.1
        parameters -= (rate if learning_rate else 0.0) * gradients


class Shaky(Descent):
    """Takes half a step in float32."""

    def update(self, parameters, gradients, slots, *, step, learning_rate):
        half = 0.5 if parameters.dtype == np.float32 else 1.0
        parameters -= half * learning_rate * gradients


class FillsPadding(Descent):
    """Moves what is no parameter."""

    def update(self, parameters, gradients, slots, *, step, learning_rate):
        parameters -= learning_rate * (gradients + 0.01)


class RaisesOnNan(Descent):
    """Raises at the first NaN."""

    def update(self, parameters, gradients, slots, *, step, learning_rate):
        if np.isnan(gradients).any():
            raise ArithmeticError("NaN")
        parameters -= learning_rate * gradients


class Hoarder(Descent):
    """Keeps the gradients of every step."""

    kept: ClassVar[list[Any]] = []

    def update(self, parameters, gradients, slots, *, step, learning_rate):
        self.kept.append(gradients.copy())
        parameters -= learning_rate * gradients


class KeepsOnSelf(Descent):
    """A momentum that is no slot."""

    velocity: Any = 0.0

    def update(self, parameters, gradients, slots, *, step, learning_rate):
        self.velocity = 0.5 * self.velocity + gradients
        parameters -= learning_rate * self.velocity


class IgnoresGroups(SGD):
    """Does not read the factor of a group."""

    def for_group(self, group):
        return {**super().for_group(group), "learning_rate_factor": 1.0}


class Noisy(Descent):
    """Adds noise from numpy.random."""

    def update(self, parameters, gradients, slots, *, step, learning_rate):
        parameters -= learning_rate * gradients * (1 + np.random.uniform())  # noqa: NPY002


class ByThreads(Descent):
    """Depends on the number of threads."""

    def update(self, parameters, gradients, slots, *, step, learning_rate):
        parameters -= learning_rate * gradients * pf.get_num_threads()


class Collector(Descent):
    """Keeps a little of every step, for ever."""

    kept: ClassVar[list[Any]] = []

    def update(self, parameters, gradients, slots, *, step, learning_rate):
        self.kept.append(np.zeros(500))
        parameters -= learning_rate * gradients


class AsksForMore(SGD):
    """Calls a kernel with an operand that there is not."""

    def calls(self, group):
        return [Call("sgd_update", ("hessian",), ("parameters",))]


@pytest.mark.parametrize(
    ("optimizer", "check"),
    [
        (Undocumented, "declaration"),
        (NoUpdate, "declaration"),
        (Shouting, "declaration"),
        (OddSlot, "declaration"),
        (Ascent, "bowl"),
        (AsksForMore, "bowl"),
        (ByPosition, "segmentation"),
        (ByNorm, "segmentation"),
        (DividesByGradient, "zero"),
        (OwnRate, "rate"),
        (FirstRate, "rate"),
        (Shaky, "dtype"),
        (FillsPadding, "frozen"),
        (RaisesOnNan, "nan"),
        (KeepsOnSelf, "state"),
        (IgnoresGroups, "groups"),
        (Noisy, "determinism"),
        (ByThreads, "threads"),
        (Collector, "leak"),
        (Hoarder, "leak"),
    ],
)
def test_a_broken_optimizer_is_caught(optimizer, check) -> None:
    error = caught(optimizer_checks(optimizer), check, optimizer.__name__)
    assert error.kind == check and optimizer.__name__ in str(error), str(error)
    Collector.kept.clear()
    Hoarder.kept.clear()


# ---- the contract ----


class ChangesGradients(Descent):
    """Computes in the place of the gradients."""

    def update(self, parameters, gradients, slots, *, step, learning_rate):
        gradients *= learning_rate
        parameters -= gradients


class ClipsByItself(SGD):
    """Has a kernel change the gradients."""

    def calls(self, group):
        clip = Call("clip_value", (), ("gradients",), (), LIMIT.pack({"limit": 0.1}))
        return [clip, *super().calls(group)]


class Velocity(Descent):
    """A momentum, done right."""

    slots: ClassVar = {"velocity": "like"}

    def __init__(self, learning_rate=0.1, *, decay=0.5, **rest):
        super().__init__(learning_rate, decay=decay, **rest)

    def check_options(self, options):
        if options.keys() != {"decay"}:
            raise pf.ArgumentError(f"takes decay, and got {options}")
        return options

    def update(self, parameters, gradients, slots, *, step, learning_rate):
        velocity = slots["velocity"]
        velocity *= self.options["decay"]
        velocity += gradients
        parameters -= learning_rate * velocity


class AnyOption(Velocity):
    """Takes options that it does not have."""

    def check_options(self, options):
        return options


class RebindsSlot(Velocity):
    """Puts another array in the place of its slot."""

    def update(self, parameters, gradients, slots, *, step, learning_rate):
        slots["velocity"] = 0.5 * slots["velocity"] + gradients
        parameters -= learning_rate * slots["velocity"]


class UndeclaredSlot(Velocity):
    """Reads a slot that it does not declare."""

    def update(self, parameters, gradients, slots, *, step, learning_rate):
        parameters -= learning_rate * (gradients + slots["mean"])


class RebindsParameters(Descent):
    """Makes new parameters, which nobody sees."""

    def update(self, parameters, gradients, slots, *, step, learning_rate):
        parameters = parameters - learning_rate * gradients


class KeepsCopy(Velocity):
    """Looks at its option once."""

    def __init__(self, learning_rate=0.1, *, decay=0.5, **rest):
        super().__init__(learning_rate, decay=decay, **rest)
        self._decay = decay

    def update(self, parameters, gradients, slots, *, step, learning_rate):
        slots["velocity"] *= self._decay
        slots["velocity"] += gradients
        parameters -= learning_rate * slots["velocity"]


@pytest.mark.parametrize(
    ("optimizer", "check", "words"),
    [
        (ChangesGradients, "gradients", "after its update the gradient of p0 at"),
        (ClipsByItself, "gradients", "'gradients' among the inputs"),
        (RebindsSlot, "slots", "another array in the place of the slot 'velocity'"),
        (UndeclaredSlot, "slots", "uses the slot 'mean', and declares velocity"),
        (RebindsParameters, "bowl", "not parameters = ..."),
        (AnyOption, "options", "no_such_option=0.5, as it would take any that is misspelt"),
        (ForgetsOptions, "options", r"pass it on as an option: super().__init__(..., factor="),
        (KeepsCopy, "options", "read self.options['decay']"),
    ],
)
def test_a_breach_of_the_contract_is_caught(optimizer, check, words) -> None:
    error = caught(optimizer_checks(optimizer, learning_rate=0.05), check)
    assert error.kind == check and words in str(error), str(error)
    assert optimizer.__name__ in str(error)


def test_what_keeps_the_contract_passes() -> None:
    check_optimizer(Velocity)
    clipped = functools.partial(SGD, clip_value=0.1, clip_norm=0.5)
    optimizer_checks(clipped)["gradients"]()


def test_an_option_that_config_leaves_out_is_caught() -> None:
    class Scaled(ForgetsOptions):
        """Its factor counts."""

        def update(self, parameters, gradients, slots, *, step, learning_rate):
            parameters -= self.factor * learning_rate * gradients

    error = caught(optimizer_checks(functools.partial(Scaled, factor=0.5)), "config")
    assert error.kind == "config" and "otherwise" in str(error)


def test_plain_descent_passes() -> None:
    check_optimizer(Descent)


def test_a_failure_that_is_meant_can_be_said() -> None:
    check_optimizer(ByNorm, elementwise=False)
    meant = dict.fromkeys(["segmentation", "sizes"], "divides by a norm")
    check_optimizer(ByNorm, expected_failures=meant)
    with pytest.raises(pf.testing.ConformanceError) as found:
        check_optimizer(Descent, expected_failures={"segmentation": "divides by a norm"})
    assert found.value.kind == "expected"


# ---- schedules ----


class Falling(Schedule):
    """rate / (1 + step); the base of the broken ones."""

    name, arguments = "falling", ("rate",)

    def __init__(self, rate=0.1):
        self.rate = rate

    def rates(self, steps):
        return self.rate / (1 + steps)


class BelowZero(Falling):
    """Falls below 0."""

    def rates(self, steps):
        return self.rate - 1e-3 * steps


class ByPlace(Falling):  # type: ignore[no-redef]
    """Counts the steps of a call, whatever their numbers."""

    def rates(self, steps):
        return self.rate / (1 + np.arange(steps.size).reshape(steps.shape))


class Remembering(Falling):
    """Goes on from where it was."""

    calls = 0

    def rates(self, steps):
        self.calls += 1
        return self.rate / (1 + steps + self.calls)


class NoArguments(Falling):
    """Does not list its arguments."""

    arguments = ()


@pytest.mark.parametrize(
    ("schedule", "check"),
    [
        (BelowZero(), "rates"),
        (lambda: 0.1, "rates"),
        (ByPlace(), "purity"),
        (Remembering(), "purity"),
        (NoArguments(0.5), "config"),
        (Remembering(), "training"),
    ],
)
def test_a_broken_schedule_is_caught(schedule, check) -> None:
    assert caught(schedule_checks(schedule), check).kind == check


def test_a_schedule_that_is_fine_passes() -> None:
    pf.testing.check_schedule(Falling(0.5))
    pf.testing.check_schedule(Falling)


# ---- initializers ----


def initializer(draw, **arguments):
    """Return an initializer that draws like this."""

    def made(shape=None):
        return Initial("made", shape, arguments, draw)

    return made


def lottery(shape=None, low=0.0):
    """Draws from numpy.random."""

    def draw(stream, shape, low):
        return low + np.random.uniform(size=shape)  # noqa: NPY002

    return Initial("lottery", shape, {"low": low}, draw)


def pretender(shape=None):
    """Says that it is not random, and is."""
    return Initial(
        "pretender",
        shape,
        draw=lambda stream, shape: stream.normal(int(np.prod(shape))),
        is_random=False,
    )


def forgetful(shape=None, low=0.0):
    """Does not keep what it was given."""
    return Initial(
        "forgetful", shape, {"high": 1.0}, lambda stream, shape, high: np.full(shape, high)
    )


@pytest.mark.parametrize(
    ("made", "check"),
    [
        (initializer(lambda stream, shape: np.full(shape, np.nan)), "values"),
        (lambda shape=None: pf.initializers.normal((4, 5)), "values"),
        (lottery, "determinism"),
        (initializer(lambda stream, shape: np.arange(np.prod(shape))), "determinism"),
        (pretender, "determinism"),
        (forgetful, "config"),
        (lambda shape=None: pf.initializers.normal((4, 5)), "layer"),
    ],
)
def test_a_broken_initializer_is_caught(made, check) -> None:
    assert caught(initializer_checks(made), check).kind == check


# ---- callbacks ----


class Misspelt(Callback):
    """Listens to an event that there is not."""

    def on_epoch_ends(self, trainer, epoch, logs):
        pass


class FewArguments(Callback):
    """Takes less than it is given."""

    def on_epoch_end(self, trainer):
        pass


class Raises(Callback):
    """Raises where there is no validation."""

    def on_epoch_end(self, trainer, epoch, logs):
        logs["val_loss"]


class NeverAgain(Callback):
    """Stops the second fit at once."""

    fits = 0

    def on_fit_start(self, trainer):
        self.fits += 1

    def on_epoch_end(self, trainer, epoch, logs):
        trainer.stop_training = self.fits > 1


class Meddler(Callback):
    """Does something else in every instance."""

    made: ClassVar = itertools.count(1)

    def __init__(self):
        self.number = next(self.made)

    def on_fit_end(self, trainer, history):
        weights = trainer.model.get_weights()
        trainer.model.set_weights({name: self.number + w for name, w in weights.items()})


@pytest.mark.parametrize(
    ("factory", "check"),
    [
        (object, "declaration"),
        (Misspelt, "declaration"),
        (FewArguments, "declaration"),
        (Raises, "fit"),
        (NeverAgain, "again"),
        (Meddler, "determinism"),
    ],
)
def test_a_broken_callback_is_caught(factory, check) -> None:
    assert caught(callback_checks(factory), check).kind == check


# ---- datasets ----

SHARED = np.arange(6.0).reshape(3, 2)


def connecting():
    socket.create_connection(("127.0.0.1", 9), timeout=0.01)
    return SHARED, SHARED


@pytest.mark.parametrize(
    ("loader", "check"),
    [
        (lambda: (np.ones((3, 2)), np.ones(2)), "data"),
        (lambda: (np.full((3, 2), np.nan), np.ones(3)), "data"),
        (lambda: (np.ones((0, 2)), np.ones(0)), "data"),
        (lambda: ([[1.0]], [1.0]), "data"),
        (lambda: 3, "data"),
        (lambda: (), "data"),
        (lambda: (SHARED, SHARED.sum(axis=1)), "again"),
        (connecting, "offline"),
    ],
)
def test_a_broken_dataset_is_caught(loader, check) -> None:
    SHARED[...] = np.arange(6.0).reshape(3, 2)
    assert caught(dataset_checks(loader), check).kind == check


def test_a_dataset_that_is_fine_passes() -> None:
    pf.testing.check_dataset(lambda: (np.ones((3, 2)), np.ones(3)))
