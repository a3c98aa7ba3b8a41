"""Exceptions from signal handlers, of any type, at any moment of a fit, a save, a resumption.

Python calls signal handlers where a function is entered or gone on with, and after each call into
C: there a profile function is called as well, which raises at the one that is asked for.
"""

from __future__ import annotations

import contextlib
import copy
import gc
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

import pyframe as pf
from pyframe.callbacks import Callback, EarlyStopping
from pyframe.fitting import Fit
from pyframe.layers import BatchNorm, Dense, Dropout

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 3))
Y = X @ np.array([[1.0], [-2.0], [0.5]])
FIT: dict[str, Any] = {"epochs": 4, "batch_size": 7, "seed": 7, "verbose": 0}
SOURCES = (os.path.dirname(pf.__file__), contextlib.__file__)
# A generator that is thrown away has an event too, at which no signal handler is called.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
SAMPLES = 40  # moments of each kind of fit, in the suite


class Ended(BaseException):
    """An exception that nobody knows."""


ERRORS = [SystemExit, KeyboardInterrupt, MemoryError, Ended, OSError, RuntimeError]


class Slow(pf.optimizers.Optimizer):
    """An optimizer in Python."""

    slots = {"velocity": "like", "count": "scalar"}

    def update(
        self, parameters: Any, gradients: Any, slots: Any, *, step: int, learning_rate: float
    ) -> None:
        slots["count"] += 1
        slots["velocity"] *= 0.9
        slots["velocity"] += gradients
        parameters -= learning_rate / np.sqrt(slots["count"]) * slots["velocity"]


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
        best = [(c.best, c.best_epoch, c._waited) for c in callbacks if type(c) is EarlyStopping]
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
    "in python": Fits(lambda: Slow(0.05), list),
}


class Bomb:
    """Raises an error at one of the moments at which a signal handler could.

    Only code of the package counts. Without `at` it counts them.
    """

    def __init__(self, at: int = -1, error: type[BaseException] = SystemExit) -> None:
        self.at, self.error, self.seen = at, error, 0
        self.where = ""
        self.caught: BaseException | None = None

    def _event(self, frame: Any, event: str, argument: Any) -> None:
        if event not in ("call", "c_return") or not frame.f_code.co_filename.startswith(SOURCES):
            return
        self.seen += 1
        if self.seen - 1 == self.at:
            name = getattr(argument, "__name__", "")
            code = frame.f_code
            self.where = f"{code.co_filename}:{frame.f_lineno} {code.co_name} {event} {name}"
            sys.setprofile(None)
            raise self.error

    def __call__(self, function: Callable[[], Any]) -> bool:
        """Call a function, and return whether it was interrupted."""
        sys.setprofile(self._event)
        try:
            function()
        except self.error as error:
            if not self.where:
                raise
            self.caught = error  # with its frames: nothing may be left to their going away
            return True
        finally:
            sys.setprofile(None)
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
    with thing.plan.loop(thing.feed, batch_size=5, epochs=2, training=training) as it:
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
    "save the model": lambda t: t.trainer.model.save(t.path),
    "load the model": lambda t: pf.load(t.path),
    "load the trainer": lambda t: pf.Trainer.load(t.path),
    "profile": lambda t: t.plan.profile(t.feed, repeats=1),
}
TAKES_STEPS = {"step", "step, converted", "loop"}


def prepared(call: str, folder: Path) -> Thing:
    """Return what a call is interrupted on: once as it comes, once when it has been made before."""
    thing = Thing(folder)
    thing.trainer.save(thing.path)
    return thing


@pytest.mark.parametrize("call", CALLS)
def test_a_call_interrupted_at_some_moments(call: str, tmp_path: Path) -> None:
    do = CALLS[call]
    whole = []  # what it may have come to: nothing, one step, ...
    thing = prepared(call, tmp_path)
    whole.append(thing.bits())
    if call in TAKES_STEPS:
        for _ in range(10 if call == "loop" else 1):
            thing = prepared(call, tmp_path)
    count = Bomb()
    count(lambda: do(thing))
    whole.append(thing.bits())
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}, {count.seen} moments")
    lock = threading.Lock()
    for i, at in enumerate(moments(count.seen, seed, 25)):
        thing = prepared(call, tmp_path)
        bomb = Bomb(at, ERRORS[i % len(ERRORS)])
        bomb(lambda thing=thing: do(thing))  # type: ignore[misc]
        assert gc.isenabled(), bomb.where
        with lock:
            found = thing.bits()
        if call != "loop":
            assert found in whole, (at, bomb.where)
        do(thing)
        if call not in TAKES_STEPS:
            assert thing.bits() == whole[0], (at, bomb.where)


# ---- planted faults: what was wrong once turns these tests red ----


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

    monkeypatch.setattr(Fit, "position", late)
    with pytest.raises((AssertionError, pf.DivergenceWarning)):  # or a loss that was never written
        all_of(KINDS["plain"], tmp_path, 10**3)


def test_an_epoch_heard_of_before_its_callbacks_is_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original = Fit._end_epoch

    def early(self: Fit) -> None:
        self.heard = self.done
        original(self)

    monkeypatch.setattr(Fit, "_end_epoch", early)
    with pytest.raises((AssertionError, pf.CheckpointError, pf.DivergenceWarning, IndexError)):
        all_of(KINDS["stopping early"], tmp_path, 10**3)
