"""What an object with hooks brings: the hooks themselves, C libraries and things, each checked."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pyframe import hookspecs
from pyframe.errors import PluginError, raise_if_signalled, warn
from pyframe.native import core
from pyframe.plugins.discovery import editable_folder
from pyframe.plugins.registry import BUILT_IN, KINDS, registries

# Only classes can be registered under these kinds.
CLASSES = ("layers", "optimizers", "callbacks", "communicators")
PREFIX = "pyframe_"
REGISTER = "pyframe_register_"


def _hooks_of(thing: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name in dir(thing):
        if name.startswith(PREFIX):
            implementation = getattr(thing, name, None)
            if callable(implementation) and not isinstance(implementation, type):
                yield name, implementation


def events_of(thing: Any) -> list[str]:
    """Return the training events that an object has hooks for.

    Examples
    --------
    >>> events_of(object())
    []
    """
    names = (name for name, _ in _hooks_of(thing) if not name.startswith(REGISTER))
    return [name.removeprefix(PREFIX) for name in names]


def check_hooks(thing: Any, distribution: str) -> None:
    """Raise `PluginError` for a hook that is unknown, unmarked or has a wrong parameter.

    Examples
    --------
    >>> check_hooks(object(), "mine")
    """
    known = {name for name in vars(hookspecs) if name.startswith(PREFIX)}
    _check_prefixes(thing, known, distribution)
    for name, implementation in _hooks_of(thing):
        if name not in known:
            import difflib

            near = difflib.get_close_matches(name, known, 1, 0.0)[0]
            raise PluginError(f"{distribution}: there is no hook {name!r}; did you mean {near!r}?")
        marks = getattr(implementation, f"{hookspecs.PROJECT}_impl", None)
        if marks is None:
            raise PluginError(
                f"{distribution}: {name} is not marked as a hook, and would never be called; "
                "write @pyframe.hookimpl above it"
            )
        if marks.get("wrapper") or marks.get("hookwrapper"):
            raise PluginError(f"{distribution}: {name} is a wrapper; pyframe's hooks have none")
        takes = list(inspect.signature(getattr(hookspecs, name)).parameters)
        wrong = [p for p in inspect.signature(implementation).parameters if p not in takes]
        if wrong:
            hint = (
                "; name an instance of its class in the entry point" if wrong[0] == "self" else ""
            )
            raise PluginError(
                f"{distribution}: {name} has a parameter {wrong[0]!r}; a hook gets its arguments "
                f"by name, and this one has {', '.join(takes) or 'none'}{hint}"
            )


def _check_prefixes(thing: Any, known: set[str], distribution: str) -> None:
    """Raise `PluginError` for a hook that lacks the prefix: it would never be called."""
    for name in dir(thing):
        if name.startswith((PREFIX, "__")):
            continue
        found = getattr(thing, name, None)
        if not inspect.isroutine(found):
            continue
        is_marked = isinstance(getattr(found, f"{hookspecs.PROJECT}_impl", None), dict)
        if is_marked or (name.startswith("register_") and PREFIX + name in known):
            import difflib

            wanted = PREFIX + name
            near = difflib.get_close_matches(wanted, known, 1, 0.0)[0]
            raise PluginError(
                f"{distribution}: {name!r} would never be called: the names of hooks begin with "
                f"{PREFIX!r}; call it {near!r}"
            )


def _call(name: str, hook: Callable[[], Any], distribution: str) -> Any:
    """Return what a register hook returns; one that wants to end the process raises an error."""
    try:
        return hook()
    except SystemExit as error:
        raise_if_signalled(error)
        raise PluginError(
            f"{distribution}: {name} called sys.exit({error.code!r}); a hook returns what it "
            "registers, or raises an error that says why it cannot"
        ) from error


def open_kernels(thing: Any, distribution: str) -> list[core.Library]:
    """Open the C libraries that a plugin names.

    Examples
    --------
    >>> open_kernels(object(), "mine")
    []
    """
    hook = getattr(thing, "pyframe_register_kernels", None)
    if hook is None:
        return []
    paths = _call("pyframe_register_kernels", hook, distribution)
    if isinstance(paths, str | bytes) or not isinstance(paths, Sequence):
        raise PluginError(
            f"{distribution}: pyframe_register_kernels returned {type(paths).__name__}; "
            "it must return a list of paths"
        )
    return [core.open_library(_installed(path, thing, distribution)) for path in paths]


def _installed(path: str | os.PathLike[str], thing: Any, distribution: str) -> str:
    """Return where a library is that a hook names beside its module.

    An editable install leaves the sources where they are and puts what it compiles among the
    installed packages: both folders are in the ``__path__`` of the package. If sources are newer
    than the library there, a warning says how to compile it again.
    """
    path = os.path.abspath(os.fsdecode(path))
    package = sys.modules.get(getattr(thing, "__package__", None) or "")
    folders = [os.path.abspath(folder) for folder in getattr(package, "__path__", ())]
    if os.path.exists(path) or os.path.dirname(path) not in folders:
        return path
    for folder in folders:
        found = os.path.join(folder, os.path.basename(path))
        if os.path.exists(found):
            _warn_of_newer_sources(found, distribution)
            return found
    return path


def _warn_of_newer_sources(library: str, distribution: str) -> None:
    """Warn if the folder that an editable install was made from has newer C than the library."""
    folder = editable_folder(distribution)
    if folder and (changed := core.newer_sources(folder, library)):
        import shlex

        warn(
            f"{library} is older than {', '.join(changed)}; compile it again: "
            f"pip install --no-build-isolation -e {shlex.quote(folder)}"
        )


def things_of(thing: Any, distribution: str) -> dict[str, Mapping[str, Any]]:
    """Call an object's register hooks and return their results by kind.

    Examples
    --------
    >>> things_of(object(), "mine")
    {}
    """
    found: dict[str, Mapping[str, Any]] = {}
    for name, implementation in _hooks_of(thing):
        kind = name.removeprefix(REGISTER)
        if not name.startswith(REGISTER) or kind not in KINDS:
            continue
        things = _call(name, implementation, distribution)
        if not isinstance(things, Mapping):
            raise PluginError(
                f"{distribution}: {name} returned {type(things).__name__}; "
                "it must return a dict of names to things"
            )
        found[kind] = things
    return found


def check_things(kind: str, named: Mapping[str, Any], distribution: str) -> None:
    """Raise `PluginError` for a thing that does not fit the kind it is registered under.

    Examples
    --------
    >>> check_things("losses", {"mine": len}, "mine")
    """
    registries[kind].check(named, distribution)
    for name, thing in named.items():
        if kind in CLASSES and not isinstance(thing, type):
            raise PluginError(
                f"{distribution}: {name!r} among the {kind} is no class but {type(thing).__name__}"
            )
        if not callable(thing):
            raise PluginError(
                f"{distribution}: {name!r} among the {kind} cannot be called: it is "
                f"{type(thing).__name__}"
            )
        kernel = getattr(thing, "kernel", "") if kind == "ops" else ""
        if not kernel or not isinstance(kernel, str) or distribution == BUILT_IN:
            continue
        missing = [bits for bits in (32, 64) if not core.find_kernel(kernel, bits)]
        if missing:
            raise PluginError(
                f"{distribution}: the op {name!r} has the kernel {kernel!r}, and there is none for "
                f"float{missing[0]}; a plugin's kernels are called '<library>:<name>', and "
                "pyframe_register_kernels names the library"
            )
