"""Real signals, at any time, with handlers of any kind."""

from __future__ import annotations

import ast
import builtins
import functools
import gc
import io
import random
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from interrupting import (
    CALLS,
    ERRORS,
    KINDS,
    ORDINARY,
    SOURCES,
    TAKES_STEPS,
    TRUE_REASONS,
    X,
    Y,
    loop,
    prepared,
)

import pyframe as pf
from pyframe import errors

# A generator that is thrown away has an event too, at which no signal handler is called.
pytestmark = [
    pytest.mark.once,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Let go here of what an exception has left open: another test would be blamed for it."""
    yield
    gc.collect()


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


def test_errors_of_signal_handlers_forgiven_by_what_shows_a_fit_are_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(errors, "signalled", lambda error: None)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        show_a_fit(monkeypatch, TimeoutError("time is up"), is_terminal=False)
