"""Exceptions from signal handlers, of any type, at any moment of a fit, a save, a resumption.

Python calls signal handlers where a function is entered or gone on with, and after each call into
C: there a profile function is called as well, which raises at the one that is asked for.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import copy
import functools
import gc
import io
import os
import pickle
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trainers import Momentum

import pyframe as pf
from pyframe import errors
from pyframe.callbacks import Callback, EarlyStopping
from pyframe.engine import engine as engine_module
from pyframe.engine import plan as plan_module
from pyframe.engine import storage
from pyframe.layers import BatchNorm, Dense, Dropout
from pyframe.training.fitting import Fit

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 3))
Y = X @ np.array([[1.0], [-2.0], [0.5]])
FIT: dict[str, Any] = {"epochs": 4, "batch_size": 7, "seed": 7, "verbose": 0}
SOURCES = (os.path.dirname(pf.__file__), contextlib.__file__)
# A generator that is thrown away has an event too, at which no signal handler is called.
pytestmark = [
    pytest.mark.once,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SAMPLES = 40  # moments of each kind of fit, in the suite


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


def all_of(kind: Fits, folder: Path, wanted: int) -> dict[str, int]:
    expected = kind.fit(kind.trainer())
    count, work = Bomb(), kind.trainer()
    count(lambda: kind.fit(work))
    assert count.seen > 1000
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}, {count.seen} moments")
    found: dict[str, int] = {}
    for i, at in enumerate(moments(count.seen, seed, wanted)):
        result = interrupted(kind, expected, at, ERRORS[i % len(ERRORS)], folder)
        found[result] = found.get(result, 0) + 1
    # Making the plans is most of it: the rest is looked at more closely.
    began = Bomb()
    original, work = Fit.run, kind.trainer()

    def run(self: Fit, resume: Any) -> None:
        began.at = began.seen
        original(self, resume)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Fit, "run", run)
        began(lambda: kind.fit(work))
    late = moments(count.seen - began.at, seed, wanted)
    for i, at in enumerate(late):
        result = interrupted(kind, expected, began.at + at, ERRORS[i % len(ERRORS)], folder)
        found[result] = found.get(result, 0) + 1
    print(found)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_interrupted_at_some_moments(kind: str, tmp_path: Path) -> None:
    assert all_of(KINDS[kind], tmp_path, SAMPLES)["whole"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_interrupted_at_any_moment(kind: str, tmp_path: Path) -> None:
    assert all_of(KINDS[kind], tmp_path, 10**9)["whole"]


def saved(kind: Fits, path: Path) -> Any:
    """Write a file in the middle of a fit, and return what the whole fit comes to."""
    work = kind.trainer()
    kind.fit(work, epochs=2)
    work.save(path)
    return kind.fit(kind.trainer())


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumption_interrupted_at_some_moments(kind: str, tmp_path: Path) -> None:
    fits, first, path = KINDS[kind], tmp_path / "first", tmp_path / "m"
    expected = saved(fits, first)
    count, work = Bomb(), fits.trainer()
    count(lambda: fits.fit(work, resume=first))
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}, {count.seen} moments")
    last = [count.seen - 900 + at for at in moments(900, seed, 20)]
    for i, at in enumerate([*moments(count.seen, seed, 20), *last]):
        work = fits.trainer()
        bomb = Bomb(at, ERRORS[i % len(ERRORS)])
        bomb(lambda work=work: fits.fit(work, resume=first))  # type: ignore[misc]
        with contextlib.suppress(pf.GraphError):
            work.save(path)
            try:
                found = fits.fit(fits.trainer(), resume=path)
            except pf.CheckpointError as problem:
                assert any(reason in str(problem) for reason in TRUE_REASONS), (bomb.where, problem)
            else:
                assert found == expected, bomb.where
        check_healthy(work, fits, tmp_path)
    assert fits.fit(fits.trainer(), resume=first) == expected


def test_a_save_and_a_restore_interrupted_at_some_moments(tmp_path: Path) -> None:
    fits, path = KINDS["validated"], tmp_path / "m"
    expected = saved(fits, path)
    writer, reader = fits.trainer(), fits.trainer()
    fits.fit(writer)
    fits.fit(reader)
    for do in (lambda: writer.save(path), lambda: reader.restore(path)):
        count = Bomb()
        count(do)
        seed = random.SystemRandom().randrange(2**32)
        print(f"seed {seed}, {count.seen} moments")
        for i, at in enumerate(moments(count.seen, seed, 40)):
            Bomb(at, ERRORS[i % len(ERRORS)])(do)
            assert fits.fit(fits.trainer(), resume=path) == expected
            reader.restore(path)  # which waits for no lock that was left
        writer.save(path)
        assert not [p for p in tmp_path.iterdir() if p.suffix == ".tmp"]


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


@pytest.mark.parametrize("call", CALLS)
def test_a_call_interrupted_at_some_moments(call: str, tmp_path: Path) -> None:
    interrupt_a_call(call, tmp_path, None)


def interrupt_a_call(call: str, folder: Path, at: list[int] | None) -> None:
    """Interrupt a call at some moments: it has done nothing or all, and what is left works on."""
    do = CALLS[call]
    thing = prepared(folder)
    before = thing.bits()
    do(prepared(folder))  # what is made once for all is made now
    count = Bomb()
    thing = prepared(folder)
    count(lambda: do(thing))
    after = thing.bits()
    assert (before == after) is (call not in TAKES_STEPS)
    if at is None:
        seed = random.SystemRandom().randrange(2**32)
        print(f"seed {seed}, {count.seen} moments")
        at = moments(count.seen, seed, 25)
    for i, moment in enumerate(at):
        thing = prepared(folder)
        bomb = Bomb(moment, ERRORS[i % len(ERRORS)])
        bomb(lambda thing=thing: do(thing))  # type: ignore[misc]
        assert bomb.where, f"there are fewer moments than {moment}"
        assert gc.isenabled(), bomb.where
        found = thing.bits()
        if call == "loop":  # some of its steps
            assert found == prepared(folder, steps=thing.plan.step_count).bits(), bomb.where
        else:
            assert found in (before, after), (moment, bomb.where)
        do(thing)


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


# ---- real signals ----

WITHOUT_STEPS = [call for call in CALLS if call not in TAKES_STEPS]


def strike(do: Callable[[], Any], seconds: float, error: type[BaseException]) -> Any:
    """Call a function, and raise an error in it, or soon after, by a timer's signal."""
    raised = error("time is up")

    def handler(number: int, frame: Any) -> None:
        raise raised

    before = signal.signal(signal.SIGALRM, handler)
    caught = None
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            do()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except BaseException as problem:
        step = problem.__traceback__
        while step is not None and step.tb_next is not None:
            step = step.tb_next
        assert step is not None
        made_elsewhere = not step.tb_frame.f_code.co_filename.startswith(SOURCES)
        if problem is not raised and not (problem.__context__ is raised and made_elsewhere):
            raise
        caught = problem
    finally:
        signal.signal(signal.SIGALRM, before)
    return caught


def duration(do: Callable[[], Any]) -> float:
    do()
    began = time.perf_counter()
    do()
    return time.perf_counter() - began


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer signal")
def test_signals_at_any_time(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    chance, thing = random.Random(seed), prepared(tmp_path)
    expected = thing.bits()
    long = {call: duration(lambda call=call: CALLS[call](thing)) for call in WITHOUT_STEPS}  # type: ignore[misc]
    kept = []
    for i in range(300):
        call = chance.choice(WITHOUT_STEPS)
        do, error = CALLS[call], ERRORS[i % len(ERRORS)]
        kept.append(strike(lambda do=do: do(thing), chance.uniform(1e-6, long[call]), error))  # type: ignore[misc]
        assert gc.isenabled()
        do(thing)  # waits for no lock
        if i % 10 == 9:
            assert thing.bits() == expected, (seed, i, call)
            thing.trainer.save(thing.path)
    assert sum(error is not None for error in kept) > 30
    assert not [p for p in tmp_path.iterdir() if p.suffix == ".tmp"]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer signal")
def test_signals_at_any_time_of_steps_and_fits(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    chance, thing = random.Random(seed), prepared(tmp_path)

    def steps() -> None:
        for _ in range(20):
            thing.plan.step(thing.feed)
        loop(thing, True)

    kept, long = [], duration(steps)
    for i in range(100):
        kept.append(strike(steps, chance.uniform(1e-6, long), ERRORS[i % len(ERRORS)]))
    assert sum(error is not None for error in kept) > 10
    count = thing.plan.step_count
    thing.plan.step(thing.feed)
    found = thing.bits()
    twin = prepared(tmp_path, steps=0)
    assert found[1][0] == count + 1
    fits, path = thing.fits, tmp_path / "fit"
    expected = fits.fit(fits.trainer())
    long = duration(lambda: fits.fit(twin.trainer))
    for i in range(100):
        work = fits.trainer()
        error = ERRORS[i % len(ERRORS)]
        kept.append(strike(lambda work=work: fits.fit(work), chance.uniform(1e-6, long), error))  # type: ignore[misc]
        try:
            work.save(path)
            again = fits.fit(fits.trainer(), resume=path)
        except pf.GraphError as problem:
            assert "fit first" in str(problem)
        except pf.CheckpointError as problem:
            assert any(reason in str(problem) for reason in TRUE_REASONS), problem
        else:
            assert again == expected, (seed, i)
        fits.fit(work, epochs=1)


class Ringing(io.StringIO):
    """A file of which the handler of a signal interrupts each use."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal

    def write(self, text: str) -> int:
        signal.raise_signal(signal.SIGTERM)
        return len(text)


def show_a_fit(monkeypatch: pytest.MonkeyPatch, error: BaseException, is_terminal: bool) -> None:
    """Fit, showing it, with an error from a signal handler while that is written."""

    def handler(number: int, frame: Any) -> None:
        raise error

    trainer = KINDS["plain"].trainer()
    before = signal.signal(signal.SIGTERM, handler)
    try:
        with monkeypatch.context() as patch, pytest.raises(type(error)) as caught:
            patch.setattr(sys, "stderr", Ringing(is_terminal))
            trainer.fit(X, Y, 2, verbose=1)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught.value is error


@pytest.mark.parametrize("is_terminal", [False, True])
@pytest.mark.parametrize("kind", ORDINARY)
def test_what_shows_a_fit_lets_errors_of_signal_handlers_through(
    kind: type[Exception], is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    show_a_fit(monkeypatch, kind("time is up"), is_terminal)


@pytest.mark.parametrize("kind", ORDINARY)
def test_a_warning_lets_errors_of_signal_handlers_through(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = kind("time is up")

    def show(*arguments: Any, **more: Any) -> None:
        signal.raise_signal(signal.SIGTERM)

    def handler(number: int, frame: Any) -> None:
        raise error

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with warnings.catch_warnings(), pytest.raises(kind) as caught:
            warnings.simplefilter("always")
            monkeypatch.setattr(warnings, "showwarning", show)
            errors.warn("careful")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught.value is error


class Handler:
    """A handler that is no function."""

    def __call__(self, number: int, frame: Any) -> None:
        raise ValueError("time is up")

    def method(self, number: int, frame: Any) -> None:
        raise ValueError("time is up")

    def called_with_more(self, more: str, number: int, frame: Any) -> None:
        raise ValueError("time is up")


@pytest.mark.parametrize(
    "handler",
    [Handler(), Handler().method, functools.partial(Handler().called_with_more, "more")],
    ids=["object", "method", "partial"],
)
def test_handlers_of_any_kind_are_known(handler: Any) -> None:
    class Number:
        def __index__(self) -> int:
            signal.raise_signal(signal.SIGTERM)
            return 1

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(ValueError, match=r"^time is up$"):
            pf.Placeholder("x", shape=(Number(),))  # type: ignore[arg-type]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_error_while_one_of_a_signal_handler_is_dealt_with_stays_itself() -> None:
    def handler(number: int, frame: Any) -> None:
        raise ValueError("time is up")

    before = signal.signal(signal.SIGTERM, handler)
    try:
        signal.raise_signal(signal.SIGTERM)
    except ValueError:
        with pytest.raises(pf.ShapeError, match="is no shape"):
            pf.Placeholder("x", shape=(1.5,))  # type: ignore[arg-type]
    finally:
        signal.signal(signal.SIGTERM, before)


OFTEN_RAISED = (ArithmeticError, AssertionError, AttributeError, LookupError, OSError, TypeError)


def deaf_handlers(source: str) -> list[int]:
    """Return the lines that catch what a signal's handler may well raise, and do not ask."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            caught, first = node.args, ""
        elif isinstance(node, ast.ExceptHandler) and node.type is not None:
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            first = ast.unparse(node.body[0])
        else:
            continue
        kinds = [getattr(builtins, ast.unparse(name), None) for name in caught]
        broad = [
            k for k in kinds if k and issubclass(k, (*OFTEN_RAISED, ValueError, RecursionError))
        ]
        is_broad = broad or Exception in kinds or "ODD" in map(ast.unparse, caught)
        if is_broad and first != "raise_if_signalled(error)":
            found.append(node.lineno)
    return found


def test_whatever_catches_often_raised_exceptions_lets_those_of_signal_handlers_through() -> None:
    root = Path(pf.__file__).parent
    files = [f for f in root.rglob("*.py") if f.relative_to(root).parts[0] != "testing"]
    found = {str(f): lines for f in files if (lines := deaf_handlers(f.read_text("utf-8")))}
    assert not found


def test_a_catch_that_asks_nothing_is_noticed() -> None:
    source = Path(errors.__file__).read_text("utf-8")
    asks = "        raise_if_signalled(error)\n"
    assert not deaf_handlers(source)
    assert len(deaf_handlers(source.replace(asks, "        pass\n"))) == source.count(asks)


# ---- planted faults: what was wrong once turns these tests red ----


def after_epochs(name: str, event: str, returned: str) -> bool:
    return returned == "pf_loop_run"


def at_the_end_of_epochs(name: str, event: str, returned: str) -> bool:
    return name == "_note_epochs" and event == "call"


def at_places(kind: str, wanted: Callable[[str, str, str], bool], folder: Path) -> None:
    """Interrupt a fit where a fault shows."""
    fits = KINDS[kind]
    expected = fits.fit(fits.trainer())
    work = fits.trainer()
    for at in places(lambda: fits.fit(work), wanted):
        interrupted(fits, expected, at, SystemExit, folder)


def test_a_position_counted_apart_from_the_steps_is_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original = Fit.position

    def late(self: Fit) -> Any:
        noted = self.history.epochs  # what Python has come to enter, and not what C has done
        if self.done <= noted:
            return original(self)
        return original(self)._replace(
            epochs=noted,
            batch=self.batches,
            history={key: values[:noted] for key, values in self.history.items()},
        )

    at_places("plain", after_epochs, tmp_path)
    monkeypatch.setattr(Fit, "position", late)
    with pytest.raises((AssertionError, pf.DivergenceWarning)):  # or a loss that was never written
        at_places("plain", after_epochs, tmp_path)


def test_an_epoch_heard_of_before_its_callbacks_is_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original = Fit._end_epoch

    def early(self: Fit) -> None:
        self.heard = self.done
        original(self)

    at_places("stopping early", at_the_end_of_epochs, tmp_path)
    monkeypatch.setattr(Fit, "_end_epoch", early)
    with pytest.raises((AssertionError, pf.CheckpointError, pf.DivergenceWarning, IndexError)):
        at_places("stopping early", at_the_end_of_epochs, tmp_path)


def test_locks_in_python_are_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The fault planted: what takes the locks is a context manager made of a generator."""
    hold = storage.hold

    @contextlib.contextmanager
    def generator(guards: Any, purpose: int) -> Any:
        with hold(guards, purpose):
            yield

    def around(name: str, event: str, returned: str) -> bool:
        return name in ("__enter__", "__exit__")

    thing = prepared(tmp_path)
    CALLS["loss_and_gradients"](prepared(tmp_path))
    monkeypatch.setattr(engine_module, "hold", generator)
    found = places(lambda: CALLS["loss_and_gradients"](thing), around)
    assert found
    with pytest.raises((pf.BusyError, AssertionError)):
        interrupt_a_call("loss_and_gradients", tmp_path, found)


def test_a_pause_of_the_collector_in_python_is_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    @contextlib.contextmanager
    def paused() -> Any:
        gc.disable()
        try:
            yield
        finally:
            gc.enable()

    def make(function: Callable[[], Any]) -> Any:
        with paused():
            return function()

    def around(name: str, event: str, returned: str) -> bool:
        return name in ("__enter__", "__exit__")

    thing = prepared(tmp_path)
    CALLS["compile"](prepared(tmp_path))
    monkeypatch.setattr(plan_module, "with_collector_paused", make)
    try:
        with pytest.raises(AssertionError):
            found = places(lambda: CALLS["compile"](thing), around)
            interrupt_a_call("compile", tmp_path, found)
    finally:
        gc.enable()


@pytest.mark.parametrize("call", ["load the model", "build"])
def test_errors_of_signal_handlers_taken_for_those_of_code_are_noticed(
    call: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def in_a_rule(name: str, event: str, returned: str) -> bool:
        return name in ("infer_shape", "check_shape") and event == "call"

    thing = prepared(tmp_path)
    CALLS[call](thing)
    found = places(lambda: CALLS[call](thing), in_a_rule)
    found = [at for at in found[-3:] for _ in ERRORS]  # with an error of each type
    assert found
    interrupt_a_call(call, tmp_path, found)
    monkeypatch.setattr(errors, "signalled", lambda error: None)
    with pytest.raises(pf.PyframeError, match="time is up|no shape"):
        interrupt_a_call(call, tmp_path, found)


def test_errors_of_signal_handlers_forgiven_by_what_shows_a_fit_are_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(errors, "signalled", lambda error: None)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        show_a_fit(monkeypatch, TimeoutError("time is up"), is_terminal=False)
