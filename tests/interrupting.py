"""Raises an exception from a signal handler at any moment of a call.

Python calls signal handlers where a function is entered or gone on with, and after each call into
C: there a profile function is called as well, which raises at the one that is asked for.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import os
import pickle
import random
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trainers import Momentum

import pyframe as pf
from pyframe.callbacks import Callback, EarlyStopping
from pyframe.layers import BatchNorm, Dense, Dropout

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 3))
Y = X @ np.array([[1.0], [-2.0], [0.5]])
FIT: dict[str, Any] = {"epochs": 4, "batch_size": 7, "seed": 7, "verbose": 0}
SOURCES = (os.path.dirname(pf.__file__), contextlib.__file__)


class Ended(BaseException):
    """An exception that nobody knows."""


# Of types that code catches to make others of them, or to go on.
ORDINARY: list[type[Exception]] = [
    type(f"Late{kind.__name__}", (kind,), {})
    for kind in (
        ValueError,
        TypeError,
        KeyError,
        TimeoutError,
        AttributeError,
        ZeroDivisionError,
        AssertionError,
    )
]
ERRORS: list[type[BaseException]] = [
    SystemExit,
    KeyboardInterrupt,
    MemoryError,
    Ended,
    OSError,
    RuntimeError,
    *ORDINARY,
]


class Batches(Callback):
    """Counts batches and epochs, and what they begin with."""

    def on_fit_start(self, trainer: Any) -> None:
        self.batches = self.epochs = self.starts = 0

    def on_epoch_start(self, trainer: Any, epoch: int) -> None:
        self.starts += 1

    def on_batch_end(self, trainer: Any, step: int, logs: Any) -> None:
        self.batches += 1

    def on_epoch_end(self, trainer: Any, epoch: int, logs: Any) -> None:
        self.epochs += 1

    def training_state(self, trainer: Any) -> dict[str, Any]:
        return dict(vars(self))

    def restore_training_state(self, trainer: Any, state: dict[str, Any]) -> None:
        vars(self).update(state)


class Fits:
    """One way to fit, and the trainers for it."""

    def __init__(
        self, optimizer: Callable[[], Any], callbacks: Callable[[], list[Callback]], **options: Any
    ) -> None:
        self.optimizer, self.callbacks = optimizer, callbacks
        self.options = {**FIT, **options}

    def trainer(self) -> pf.Trainer:
        pf.set_seed(3)
        model = pf.Sequential(
            [Dense(4, "tanh"), BatchNorm(), Dropout(0.3), Dense(1)], input_shape=(3,)
        )
        return pf.Trainer(model, "l2", self.optimizer(), ["mae"])

    def fit(self, trainer: pf.Trainer, **more: Any) -> Any:
        callbacks = self.callbacks()
        history = trainer.fit(X, Y, callbacks=callbacks, **{**self.options, **more})
        counted = [vars(c) for c in callbacks if isinstance(c, Batches)]
        best = [
            (c.best, c.best_epoch, c.training_state(trainer)["waited"])
            for c in callbacks
            if type(c) is EarlyStopping
        ]
        named = trainer.plan.named(trainer.plan.snapshot())
        return {
            **{key: array.tobytes() for key, array in named.items()},
            **{key: np.asarray(values).tobytes() for key, values in history.items()},
            "epochs": (history.epochs, trainer.epochs_done, trainer.plan.step_count),
            "callbacks": (counted, best),
        }


KINDS = {
    "plain": Fits(lambda: pf.optimizers.Adam(0.02, clip_norm=1.0), list, epochs=30),
    "validated": Fits(lambda: pf.optimizers.SGD(0.05), list, validation_split=0.3),
    "stopping early": Fits(
        lambda: pf.optimizers.SGD(0.05),
        lambda: [EarlyStopping("val_loss", patience=9), Batches()],
        validation_split=0.3,
    ),
    "in python": Fits(lambda: Momentum(0.05), list),
}


class Bomb:
    """Has a signal handler raise an error at one of the moments at which one could.

    Only code of the package counts. Without `at` it counts them.
    """

    def __init__(self, at: int = -1, error: type[BaseException] = SystemExit) -> None:
        self.at, self.error, self.seen = at, error("time is up"), 0
        self.where = ""
        self.is_lost = False  # where Python itself can pass no exception on

    def _event(self, frame: Any, event: str, argument: Any) -> None:
        if event not in ("call", "c_return") or not frame.f_code.co_filename.startswith(SOURCES):
            return
        self.seen += 1
        if self.seen - 1 == self.at:
            name = getattr(argument, "__name__", "")
            code = frame.f_code
            self.where = f"{code.co_filename}:{frame.f_lineno} {code.co_name} {event} {name}"
            sys.setprofile(None)
            signal.raise_signal(signal.SIGTERM)

    def _handle(self, number: int, frame: Any) -> None:
        raise self.error

    def _lose(self, unraisable: Any) -> None:
        self.is_lost = self.is_lost or unraisable.exc_value is self.error

    def __call__(self, function: Callable[[], Any]) -> bool:
        """Call a function, and return whether it was interrupted; then its error comes out.

        It is kept with its frames, so that nothing is left to their going away.
        """
        before, hook = signal.signal(signal.SIGTERM, self._handle), sys.unraisablehook
        sys.unraisablehook = self._lose
        sys.setprofile(self._event)
        try:
            function()
        except BaseException as error:
            if error is not self.error:
                raise
            return True
        finally:
            sys.setprofile(None)
            sys.unraisablehook = hook
            signal.signal(signal.SIGTERM, before)
        is_known = isinstance(self.error, KeyboardInterrupt)  # a fit returns what it has
        assert not self.where or self.is_lost or is_known, f"lost: {self.error!r} at {self.where}"
        return False


TRUE_REASONS = (
    "no fit had begun",
    "interrupted before it had begun",
    "callbacks that count were called",
)


def check_healthy(work: pf.Trainer, kind: Fits, folder: Path) -> None:
    """Nothing is left behind: the trainer fits, other threads read, Ctrl-C does what it used to."""
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert handler is signal.default_int_handler or handler.__name__ == "_handle"
    kind.fit(work, epochs=1)
    work.predict(X)
    assert not [p for p in folder.iterdir() if p.suffix == ".tmp"]


def interrupted(
    kind: Fits, expected: Any, at: int, error: type[BaseException], folder: Path
) -> str:
    """Interrupt a fit; return "whole", "refused" or "unsaved", having checked what that means."""
    work, path = kind.trainer(), folder / "m"
    path.unlink(missing_ok=True)
    bomb = Bomb(at, error)
    was_hit = bomb(lambda: kind.fit(work))
    try:
        work.save(path)
    except pf.GraphError as problem:
        assert "fit first" in str(problem), bomb.where
        result = "unsaved"
    else:
        try:
            found = kind.fit(kind.trainer(), resume=path)
        except pf.CheckpointError as problem:
            assert was_hit and any(reason in str(problem) for reason in TRUE_REASONS), (
                bomb.where,
                problem,
            )
            result = "refused"
        else:
            different = [key for key in expected if found[key] != expected[key]]
            assert not different, (at, bomb.where, different)
            result = "whole"
    check_healthy(work, kind, folder)
    return result


def moments(total: int, seed: int, wanted: int) -> list[int]:
    return sorted(random.Random(seed).sample(range(total), min(wanted, total)))


# ---- everything else that one can call ----


class Thing:
    """What is interrupted, on objects of its own, and what it comes to in bits."""

    def __init__(self, folder: Path) -> None:
        self.fits, self.path = KINDS["validated"], folder / "thing"
        self.trainer = self.fits.trainer()
        self.fits.fit(self.trainer, epochs=2)
        x, w = pf.Placeholder("x", shape=(None, 3)), pf.Parameter(np.ones((3, 1)), name="w")
        b = pf.Parameter(np.zeros(1), name="b", dtype="float64")
        hidden = self.layer(pf.Dropout(x @ w, 0.3))
        cost = pf.L2Loss(hidden, pf.Placeholder("y", shape=(None, 1))) + pf.Mean(0.0 * w)
        self.plan = pf.compile(cost, self.fits.optimizer(), outputs=[hidden], parameters=[])
        self.output, self.w, self.b = hidden, w, b
        self.feed = {"x": X.astype(np.float32), "y": Y.astype(np.float32)}

    @staticmethod
    def layer(x: Any) -> Any:
        return BatchNorm()(x)

    def bits(self) -> Any:
        """Return all that can be told of it, which also uses all that could have been left."""
        plans = (self.plan, self.trainer.plan)
        arrays = [plan.named(copy.deepcopy(plan).snapshot()) for plan in plans]
        loss, gradients = self.plan.loss_and_gradients(self.feed)
        return [
            [{key: array.tobytes() for key, array in named.items()} for named in arrays],
            [plan.step_count for plan in plans],
            self.trainer.epochs_done,
            self.trainer.evaluate(X, Y),
            self.trainer.predict(X).tobytes(),
            self.plan.run(self.feed).tobytes(),
            (loss, [g.tobytes() for g in gradients.values()]),
        ]


def write(thing: Thing) -> None:
    thing.w.value = thing.w.value + 0.0


def loop(thing: Thing, training: bool) -> None:
    stop = "step" if training else None
    with (
        thing.plan.claim() if training else contextlib.nullcontext(),
        thing.plan.loop(
            thing.feed, batch_size=5, epochs=2, stop=stop, training=training, claimed=training
        ) as it,
    ):
        while it.run(0.0) != "done":
            pass


CALLS: dict[str, Callable[[Thing], Any]] = {
    "step": lambda t: t.plan.step(t.feed),
    "step, converted": lambda t: t.plan.step({"x": X, "y": Y.tolist()}),
    "run": lambda t: t.plan.run(t.feed),
    "run, training": lambda t: t.plan.run(t.feed, t.output, training=True),
    "loss_and_gradients": lambda t: t.plan.loss_and_gradients(t.feed),
    "predict": lambda t: t.trainer.predict(X),
    "predict in parts": lambda t: t.trainer.model.predict(X.astype(np.float32), 5),
    "evaluate": lambda t: t.trainer.evaluate(X, Y, 7),
    "loop": lambda t: loop(t, True),
    "evaluating loop": lambda t: loop(t, False),
    "set a value": write,
    "get weights": lambda t: t.trainer.model.get_weights(),
    "set weights": lambda t: t.trainer.model.set_weights(t.trainer.model.get_weights()),
    "copy": lambda t: copy.deepcopy(t.trainer),
    "pickle": lambda t: pickle.dumps(t.plan),
    "compile": lambda t: pf.compile(t.output),
    "value": lambda t: t.plan.value(t.w),
    "build": lambda t: pf.Sequential([Dense(4, "relu"), Dense(1)], input_shape=(3,)),
    "save the model": lambda t: t.trainer.model.save(t.path.with_name("model")),
    "load the model": lambda t: pf.load(t.path),
    "load the trainer": lambda t: pf.Trainer.load(t.path),
    "profile": lambda t: t.plan.profile(t.feed, repeats=1),
}
TAKES_STEPS = {"step", "step, converted", "loop"}


def prepared(folder: Path, steps: int = 0) -> Thing:
    """Return what a call is interrupted on."""
    thing = Thing(folder)
    thing.trainer.save(thing.path)
    if steps:
        with thing.plan.loop(thing.feed, batch_size=5, epochs=2, stop="step") as it:
            while thing.plan.step_count < steps:
                it.run(0.0)
    return thing


def places(do: Callable[[], Any], wanted: Callable[[str, str, str], bool]) -> list[int]:
    """Return the moments, by the name of the function, the event and what has returned."""
    found: list[int] = []

    class Notes(Bomb):
        def _event(self, frame: Any, event: str, argument: Any) -> None:
            seen = self.seen
            super()._event(frame, event, argument)
            if self.seen > seen and wanted(
                frame.f_code.co_name, event, getattr(argument, "__name__", "")
            ):
                found.append(seen)

    Notes()(do)
    return found


def of_properties(do: Callable[[], Any]) -> list[int]:
    """Return a moment for each place from which a property is read: where it is entered.

    There an AttributeError is lost if it is `getattr` with a default, or `hasattr`, that reads.
    """
    found: dict[Any, int] = {}

    class Notes(Bomb):
        def _event(self, frame: Any, event: str, argument: Any) -> None:
            seen = self.seen
            super()._event(frame, event, argument)
            back = frame.f_back
            if self.seen > seen and event == "call" and is_property(frame.f_code, frame.f_locals):
                found.setdefault((frame.f_code, back.f_code, back.f_lineno), seen)

    Notes()(do)
    return list(found.values())


def is_property(code: Any, names: dict[str, Any]) -> bool:
    """Return whether this is the code of a property of its first argument."""
    first = names.get(code.co_varnames[0]) if code.co_argcount == 1 else None
    there = inspect.getattr_static(type(first), code.co_name, None)
    getter = there.fget if isinstance(there, property) else getattr(there, "func", None)
    return getattr(getter, "__code__", None) is code
