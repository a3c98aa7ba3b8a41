"""Exceptions from signal handlers at any moment of whatever else one can call."""

from __future__ import annotations

import contextlib
import gc
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from interrupting import CALLS, ERRORS, TAKES_STEPS, Bomb, moments, of_properties, places, prepared

import pyframe as pf
from pyframe import errors
from pyframe.engine import engine as engine_module
from pyframe.engine import plan as plan_module
from pyframe.native import guards

# A generator that is thrown away has an event too, at which no signal handler is called.
pytestmark = [
    pytest.mark.once,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.mark.parametrize("call", CALLS)
def test_a_call_interrupted_at_some_moments(call: str, tmp_path: Path) -> None:
    interrupt_a_call(call, tmp_path, None)


@pytest.mark.parametrize("call", CALLS)
def test_an_attribute_error_within_a_property_comes_out(call: str, tmp_path: Path) -> None:
    late = next(error for error in ERRORS if issubclass(error, AttributeError))
    do = CALLS[call]
    do(prepared(tmp_path))
    thing = prepared(tmp_path)
    found = of_properties(lambda: do(thing))
    assert found
    for at in found:
        thing = prepared(tmp_path)
        assert Bomb(at, late)(lambda thing=thing: do(thing))  # type: ignore[misc]


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


def test_locks_in_python_are_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The fault planted: what takes the locks is a context manager made of a generator."""
    hold = guards.hold

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
