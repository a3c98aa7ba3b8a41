"""The conformance kit without a test file: ``pytest -p pyframe.testing.pytest_plugin``.

It adds an option, ``--pyframe-plugin NAME``, which may be given several times. Each adds the checks
of everything that a distribution registers to the session::

    pytest -p pyframe.testing.pytest_plugin --pyframe-plugin my-package

Tests of files belong to the session only if the command names them: those in the folder where it
is given have nothing to do with a plugin that is installed.

It is not an entry point of pytest, which would import pyframe in every session of an environment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def pytest_addoption(parser: Any) -> None:
    """Add the option."""
    parser.getgroup("pyframe").addoption(
        "--pyframe-plugin",
        action="append",
        default=[],
        metavar="NAME",
        help="check everything that this distribution registers; may be given several times",
    )


def pytest_configure(config: Any) -> None:
    """Leave out the tests of the present folder, which nobody has named."""
    if config.getoption("--pyframe-plugin") and config.args_source is not config.ArgsSource.ARGS:
        config.args = []


class CheckItem(pytest.Item):
    """One check as a test."""

    def __init__(self, *, check: Callable[[], None], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.check = check

    def runtest(self) -> None:
        """Run the check."""
        self.check()

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        """Return the message of the check, without the traceback of the kit."""
        from pyframe.testing.subject import ConformanceError

        if isinstance(excinfo.value, ConformanceError):
            cause = excinfo.value.__cause__
            said = str(excinfo.value)
            return said if cause is None else f"{said}\n{_traceback(cause)}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        """Return its location, which has no line, and its name."""
        return self.path, None, self.name


def _traceback(error: BaseException) -> str:
    import traceback

    return "".join(traceback.format_exception(error))


@pytest.hookimpl(tryfirst=True)  # before -k and -m select items
def pytest_collection_modifyitems(session: Any, config: Any, items: list[Any]) -> None:
    """Add the checks of the requested plugins."""
    from pyframe.testing.plugins import plugin_checks
    from pyframe.testing.runner import checked

    for plugin in config.getoption("--pyframe-plugin"):
        for name, check in plugin_checks(plugin).items():
            thing, _, kind = name.rpartition(":")
            items.append(
                CheckItem.from_parent(
                    session, name=f"{plugin}[{name}]", check=checked(thing, kind, check)
                )
            )
