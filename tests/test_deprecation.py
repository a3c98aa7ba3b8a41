"""Deprecations warn at the line that is to be changed, and do not outstay their time."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pyframe
from pyframe import deprecation
from pyframe.deprecation import Deprecation, deprecated, deprecated_argument, deprecated_names
from pyframe.errors import PyframeDeprecationWarning

pytestmark = pytest.mark.once

VERSIONS = {"since": "0.2.0", "removed_in": "999.0.0"}


@pytest.fixture(autouse=True)
def _leaves_no_deprecation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deprecation, "DEPRECATIONS", list(deprecation.DEPRECATIONS))


def of_all_modules() -> Iterator[Deprecation]:
    for module in pkgutil.walk_packages(pyframe.__path__, "pyframe."):
        if not module.name.endswith("__main__") and "templates" not in module.name:
            importlib.import_module(module.name)
    yield from deprecation.DEPRECATIONS


def overdue(version: str) -> list[str]:
    return [str(found) for found in of_all_modules() if found.is_due(version)]


def test_nothing_is_there_that_was_to_be_removed_by_now() -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    assert overdue(pyframe.__version__) == [], "remove it, and say so in the changelog"


def test_what_outstays_its_time_is_found() -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")

    @deprecated(since="0.2.0", removed_in="0.10.0", instead="new()")
    def old() -> None: ...

    assert len(overdue("0.9.9")) + 1 == len(overdue("0.10.0")) == len(overdue("1.0.0"))


def warned(call: Any, *args: Any, **kwargs: Any) -> tuple[Any, str]:
    """Call something that warns once, at this line; return its result and what it said."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call(*args, **kwargs)
    (warning,) = caught
    assert warning.category is PyframeDeprecationWarning
    assert warning.filename == __file__
    return result, str(warning.message)


def test_a_function_warns_at_the_line_that_calls_it() -> None:
    @deprecated(**VERSIONS, instead="new()")
    def old(x: int) -> int:
        """Say it."""
        return x + 1

    assert (old.__name__, old.__doc__) == ("old", "Say it.")
    result, said = warned(old, 1)
    assert result == 2
    assert said.endswith(
        "old() is deprecated since 0.2.0 and will be removed in 999.0.0; use new()"
    )
    assert "test_deprecation" in said


def test_a_class_stays_a_class() -> None:
    @deprecated(**VERSIONS, instead="New")
    class Old:
        def __init__(self, x: int) -> None:
            self.x = x

    found, said = warned(Old, 3)
    assert isinstance(found, Old)
    assert found.x == 3
    assert "Old() is deprecated" in said


def test_a_method_keeps_its_self() -> None:
    class Thing:
        @deprecated(**VERSIONS, instead="new")
        def old(self, x: int) -> tuple[Any, int]:
            return self, x

    thing = Thing()
    assert warned(thing.old, 1)[0] == (thing, 1)


def test_a_renamed_argument_is_passed_on() -> None:
    @deprecated_argument("lr", **VERSIONS, instead="learning_rate", renamed="learning_rate")
    def step(learning_rate: float = 0.1) -> float:
        return learning_rate

    assert step() == 0.1
    assert step(0.2) == step(learning_rate=0.2) == 0.2
    result, said = warned(step, lr=0.5)
    assert result == 0.5
    assert said.startswith("the argument 'lr' of ")
    with (
        pytest.warns(PyframeDeprecationWarning),
        pytest.raises(TypeError, match="both 'lr' and 'learning_rate'"),
    ):
        step(lr=1, learning_rate=2)
    with pytest.raises(TypeError):
        step(rate=1)


def test_an_argument_that_goes_still_arrives() -> None:
    @deprecated_argument("old", **VERSIONS, instead="nothing")
    def call(*, old: int = 0) -> int:
        return old

    assert call() == 0
    assert warned(call, old=7)[0] == 7


def test_names_that_moved_are_found_with_a_warning() -> None:
    look_up = deprecated_names("pyframe.x", {"Old": "pyframe.training.Trainer"}, **VERSIONS)
    found, said = warned(look_up, "Old")
    assert found is pyframe.Trainer
    assert said.startswith("pyframe.x.Old is deprecated")
    with pytest.raises(AttributeError, match="'pyframe.x' has no attribute 'New'"):
        look_up("New")


def test_versions_in_the_wrong_order_are_refused() -> None:
    for since, removed_in in (("0.10.0", "0.9.0"), ("0.2.0", "0.2.0")):
        with pytest.raises(AssertionError, match="before it is deprecated"):
            deprecated(since=since, removed_in=removed_in, instead="new()")(print)


def test_a_script_sees_the_warning_and_its_own_line(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from pyframe.deprecation import deprecated\n"
        "@deprecated(since='0.2.0', removed_in='999.0.0', instead='new()')\n"
        "def old(): pass\n"
        "old()\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert "script.py:4: PyframeDeprecationWarning: __main__.old() is deprecated" in done.stderr
