"""Telling people in time that something will go.

What is public is removed in two steps: one release says what to use instead, and a later one does
without. A deprecation names both versions. The tests fail when the version of the package reaches
the one in which a thing was to be gone, and it is still there.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pyframe.errors import PyframeDeprecationWarning

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Deprecation:
    """That a thing is deprecated.

    Parameters
    ----------
    what : str
        The thing, as its users write it: ``"pyframe.old()"``.
    since, removed_in : str
        The versions that deprecated it and that will do without it: ``"0.2.0"``, ``"0.4.0"``.
    instead : str
        What to use: ``"pyframe.new()"``.

    Examples
    --------
    >>> print(Deprecation("pyframe.old()", "0.2.0", "0.4.0", "pyframe.new()"))
    pyframe.old() is deprecated since 0.2.0 and will be removed in 0.4.0; use pyframe.new()
    """

    what: str
    since: str
    removed_in: str
    instead: str

    def __str__(self) -> str:
        return (
            f"{self.what} is deprecated since {self.since} and will be removed in "
            f"{self.removed_in}; use {self.instead}"
        )

    def is_due(self, version: str) -> bool:
        """Return whether a version of the package should be without it.

        Examples
        --------
        >>> old = Deprecation("pyframe.old()", "0.2.0", "0.10.0", "pyframe.new()")
        >>> old.is_due("0.9.1"), old.is_due("0.10.0")
        (False, True)
        """
        return _number(version) >= _number(self.removed_in)

    def warn(self, stacklevel: int = 2) -> None:
        """Warn at the line that called the caller of this.

        Parameters
        ----------
        stacklevel : int, default 2
            How many calls up that line is: 1 is the caller, 2 the one that called it.
        """
        warnings.warn(str(self), PyframeDeprecationWarning, stacklevel=stacklevel + 1)


DEPRECATIONS: list[Deprecation] = []  # of all modules that were imported


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _noted(what: str, since: str, removed_in: str, instead: str) -> Deprecation:
    deprecation = Deprecation(what, since, removed_in, instead)
    if not _number(since) < _number(removed_in):
        raise AssertionError(f"{deprecation}: it cannot go before it is deprecated")
    DEPRECATIONS.append(deprecation)
    return deprecation


def deprecated(*, since: str, removed_in: str, instead: str) -> Callable[[F], F]:
    """Deprecate a function, a method, or a class: each call or construction warns.

    Parameters
    ----------
    since, removed_in, instead : str
        As for `Deprecation`.

    Examples
    --------
    >>> @deprecated(since="0.2.0", removed_in="999.0.0", instead="mean()")
    ... def average(x):
    ...     return sum(x) / len(x)
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     average([1, 3])
    2.0
    >>> str(caught[0].message).partition(" is ")[2]
    'deprecated since 0.2.0 and will be removed in 999.0.0; use mean()'
    """

    def decorate(thing: F) -> F:
        name = f"{thing.__module__}.{thing.__qualname__}()"
        deprecation = _noted(name, since, removed_in, instead)
        function = thing.__init__ if inspect.isclass(thing) else thing

        @functools.wraps(function)
        def warning(*args: Any, **kwargs: Any) -> Any:
            deprecation.warn()
            return function(*args, **kwargs)

        if inspect.isclass(thing):
            thing.__init__ = warning  # type: ignore[method-assign]
            return thing
        return warning  # type: ignore[return-value]

    return decorate


def deprecated_argument(
    name: str, *, since: str, removed_in: str, instead: str, renamed: str | None = None
) -> Callable[[F], F]:
    """Deprecate an argument that is given by its name.

    Parameters
    ----------
    name : str
        The argument.
    since, removed_in, instead : str
        As for `Deprecation`.
    renamed : str, optional
        The name under which the function gets the value now. Default: the function still knows the
        argument by its old name.

    Raises
    ------
    TypeError
        From the decorated function, if it is given both names.

    Examples
    --------
    >>> versions = {"since": "0.2.0", "removed_in": "999.0.0"}
    >>> @deprecated_argument("lr", **versions, instead="learning_rate", renamed="learning_rate")
    ... def step(learning_rate=0.1):
    ...     return learning_rate
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     step(lr=0.5), step(0.25), step()
    (0.5, 0.25, 0.1)
    >>> len(caught)
    1
    """

    def decorate(function: F) -> F:
        what = f"the argument {name!r} of {function.__module__}.{function.__qualname__}()"
        deprecation = _noted(what, since, removed_in, instead)

        @functools.wraps(function)
        def passing_on(*args: Any, **kwargs: Any) -> Any:
            if name in kwargs:
                deprecation.warn()
                if renamed is not None:
                    if renamed in kwargs:
                        raise TypeError(
                            f"{function.__qualname__}() got both {name!r} and {renamed!r}, which "
                            f"is its new name"
                        )
                    kwargs[renamed] = kwargs.pop(name)
            return function(*args, **kwargs)

        return passing_on  # type: ignore[return-value]

    return decorate


def deprecated_names(
    module: str, names: Mapping[str, str], *, since: str, removed_in: str
) -> Callable[[str], Any]:
    """Return a module's ``__getattr__`` for names that have moved.

    Parameters
    ----------
    module : str
        The module's ``__name__``.
    names : mapping of str to str
        The old names, and where each thing is now: ``"pyframe.training.Trainer"``.
    since, removed_in : str
        As for `Deprecation`.

    Returns
    -------
    callable
        Takes a name and returns the thing with a warning.

    Raises
    ------
    AttributeError
        From what is returned, for a name that is not among them.

    Examples
    --------
    >>> names = {"Fitter": "pyframe.training.Trainer"}
    >>> moved = deprecated_names("pyframe.demo", names, since="0.2.0", removed_in="999.0.0")
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     moved("Fitter")
    <class 'pyframe.training.Trainer'>
    >>> print(caught[0].message)  # doctest: +ELLIPSIS
    pyframe.demo.Fitter is deprecated since 0.2.0 ...; use pyframe.training.Trainer
    """
    noted = {
        name: _noted(f"{module}.{name}", since, removed_in, home) for name, home in names.items()
    }

    def look_up(name: str) -> Any:
        if name not in noted:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        noted[name].warn()
        home, _, attribute = names[name].rpartition(".")
        return getattr(importlib.import_module(home), attribute)

    return look_up
