"""Names of checks, running them, and expected failures.

A kit is a dict of check names to functions without arguments. Each function raises a
`ConformanceError`; whatever else comes out of it becomes one, with the name of the check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn
from unittest import SkipTest

from pyframe.errors import ArgumentError
from pyframe.initializers import get_seed, set_seed
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
        try:
            check()
        except (ConformanceError, SkipTest):
            raise
        except Exception as error:
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
    """Run checks until one fails that is not expected to, and print what cannot be tried here.

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
        Of the first check that fails; of kind "expected" if one passes that should not.
    ArgumentError
        If an expected failure names no check, or has no reason.
    """
    expected = expected_failures or {}
    known_names(expected, checks, what)
    for name, check in checks.items():
        run = checked(what, name, check, foreign)
        try:
            run()
        except SkipTest as reason:
            print(f"{what}: {name}: {reason}")
            continue
        except ConformanceError:
            if name not in expected:
                raise
            continue
        if name not in expected:
            continue
        fail(
            "expected",
            what,
            f"the check {name!r} passes and is expected to fail, since {expected[name]!r}; take "
            "it out of expected_failures",
        )
