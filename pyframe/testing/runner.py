"""Names of checks, running them, and expected failures.

A kit is a dict of check names to functions without arguments. Each function raises a
`ConformanceError`; whatever else comes out of it becomes one, with the name of the check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn
from unittest import SkipTest

import numpy as np

from pyframe.errors import ArgumentError, raise_if_signalled
from pyframe.initializers import get_seed, set_seed
from pyframe.native import core
from pyframe.testing.apart import run_apart
from pyframe.testing.subject import ConformanceError

Checks = dict[str, Callable[[], None]]
Expected = Mapping[str, str]


def fail(kind: str, what: str, message: str) -> NoReturn:
    """Raise the error of a check of `what`."""
    raise ConformanceError(kind, f"{what}: {message}")


def require(condition: object, kind: str, what: str, message: str) -> None:
    """Raise the error of a check unless a condition holds."""
    if not condition:
        fail(kind, what, message)


def checked(
    what: str, name: str, check: Callable[[], None], foreign: bool = False
) -> Callable[[], None]:
    """Return a check that raises a `ConformanceError` or `unittest.SkipTest`, and ends no process.

    It runs in a process of its own if there are kernels of a plugin or, as `foreign` announces,
    other ones.
    """

    def guarded() -> None:
        before = np.geterr(), core.odd_arithmetic()
        try:
            check()
            _check_surroundings(what, *before)
        except (ConformanceError, SkipTest):
            raise
        except (Exception, SystemExit) as error:  # a plugin that exits ends its check only
            raise_if_signalled(error)
            raise ConformanceError(
                name, f"{what}: {type(error).__name__} came out of it: {error}"
            ) from error

    def run() -> None:
        seed = get_seed()
        try:
            run_apart(f"{what}: {name}", guarded, foreign)
        finally:
            set_seed(seed)

    return run


def _check_surroundings(what: str, errors: Any, arithmetic: str) -> None:
    """Raise if a check has left behind what everything else in the process computes with."""
    now = np.geterr()
    if now != errors:
        np.seterr(**errors)
        fail("surroundings", what, f"it leaves numpy.geterr() as {now}; use numpy.errstate")
    odd = core.odd_arithmetic()
    require(
        odd == arithmetic,
        "surroundings",
        what,
        f"afterwards {odd}; a kernel leaves the modes of the processor as they are",
    )


def known_names(expected: Expected, names: Mapping[str, object], what: str) -> None:
    """Raise unless every expected failure names a check, and has a reason."""
    for name, reason in expected.items():
        if name not in names:
            raise ArgumentError(
                f"{what}: expected_failures names {name!r}, and there is no such check; "
                f"there are {', '.join(names)}"
            )
        if not isinstance(reason, str) or not reason.strip():
            raise ArgumentError(f"{what}: say why the check {name!r} is expected to fail")


def run_checks(
    what: str,
    checks: Checks,
    expected_failures: Expected | None = None,
    *,
    foreign: bool = False,
) -> None:
    """Run all checks, and print what cannot be tried here.

    Parameters
    ----------
    what : str
        Name of what is checked, at the start of every message.
    checks : dict of str to callable
    expected_failures : dict of str to str, optional
        Names of checks that must fail, each with the reason.
    foreign : bool, default False
        Whether the checks call kernels that belong neither to the core nor to a plugin.

    Raises
    ------
    ConformanceError
        Of the first check that fails, with what the others say behind it; of kind "expected" if one
        passes that should not. After a call that did not return no other check of the same thing is
        begun.
    ArgumentError
        If an expected failure names no check, or has no reason.
    """
    expected = expected_failures or {}
    known_names(expected, checks, what)
    failed: dict[str, ConformanceError] = {}
    hung: set[str] = set()
    for name, check in checks.items():
        thing = name.rpartition(":")[0]
        if thing in hung:
            continue
        try:
            _run_check(what, name, check, expected, foreign)
        except ConformanceError as error:
            failed[name] = error
            if error.kind == "hang":
                hung.add(thing)
    if failed:
        raise _together(failed)


def _run_check(
    what: str, name: str, check: Callable[[], None], expected: Expected, foreign: bool
) -> None:
    """Run one check, which must fail if that is expected."""
    run = checked(what, name, check, foreign)
    try:
        run()
    except SkipTest as reason:
        print(f"{what}: {name}: {reason}")
        return
    except ConformanceError:
        if name not in expected:
            raise
        return
    if name in expected:
        fail(
            "expected",
            what,
            f"the check {name!r} passes and is expected to fail, since {expected[name]!r}; take "
            "it out of expected_failures",
        )


def _together(failed: Mapping[str, ConformanceError]) -> ConformanceError:
    """Return the first error, with what the others say behind it, each text once."""
    first, *others = failed.values()
    if not others:
        return first
    texts = dict.fromkeys(str(error) for error in others if str(error) != str(first))
    text = "\n".join(
        [first.message, f"{len(failed)} checks fail: {', '.join(failed)}; the others say:", *texts]
        if texts
        else [first.message, f"{len(failed)} checks say so: {', '.join(failed)}"]
    )
    error = ConformanceError(first.kind, text)
    error.__cause__ = first.__cause__
    return error
