"""The plugin manager: brings what is registered through the hooks into the registries.

The built-ins come in through the same hooks as anybody's, when a name is first looked up.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Mapping
from typing import Any

import pluggy

from pyframe import hookspecs
from pyframe.errors import PluginError
from pyframe.registry import BUILT_IN, KINDS, registries

# The modules of the package that implement hooks.
BUILT_IN_MODULES = (
    "pyframe.ops",
    "pyframe.layers",
    "pyframe.losses",
    "pyframe.optimizers",
    "pyframe.schedules",
    "pyframe.initializers",
    "pyframe.metrics",
    "pyframe.callbacks",
    "pyframe.datasets",
)

_lock = threading.RLock()
_manager: pluggy.PluginManager | None = None


def manager() -> pluggy.PluginManager:
    """Return the one plugin manager, with the built-ins registered."""
    global _manager
    with _lock:
        if _manager is None:
            made = pluggy.PluginManager(hookspecs.PROJECT)
            made.add_hookspecs(hookspecs)
            _manager = made
            for name in BUILT_IN_MODULES:
                _register(importlib.import_module(name), BUILT_IN, _version())
    return _manager


def register(plugin: object, distribution: str = "unnamed", version: str = "0") -> None:
    """Register an object or module with hook implementations, for this process.

    Either all that it registers comes in, or nothing does.

    Parameters
    ----------
    plugin : object
        Has methods or functions marked with `pyframe.hookimpl`.
    distribution, version : str
        What messages and saved models name as its origin.

    Raises
    ------
    PluginError
        If a hook is misspelt, or a name is taken or malformed.

    Examples
    --------
    >>> import pyframe as pf
    >>> class Mine:
    ...     @pf.hookimpl
    ...     def pyframe_epoch_end(self, trainer, epoch, logs):
    ...         print(epoch, logs)
    >>> mine = Mine()
    >>> pf.plugins.register(mine, "my-package")
    >>> pf.plugins.unregister(mine)
    """
    manager()
    with _lock:
        _register(plugin, distribution, version)


def unregister(plugin: object) -> None:
    """Take back what `register` brought in."""
    with _lock:
        found = manager().unregister(plugin)
        for registry in registries.values():
            registry.remove(found)


def _register(plugin: object, distribution: str, version: str) -> None:
    assert _manager is not None
    things = _things(plugin, distribution)
    for kind, named in things.items():
        registries[kind].check(named, distribution)
    try:
        _manager.register(plugin)
    except (ValueError, pluggy.PluginValidationError) as error:
        raise PluginError(f"{distribution}: {error}") from error
    for kind, named in things.items():
        registries[kind].add(named, distribution, version, owner=plugin)


def _things(plugin: object, distribution: str) -> dict[str, Mapping[str, Any]]:
    """Call the plugin's register hooks and return what they give; misspelt hooks are refused."""
    assert _manager is not None
    known = {name for name in vars(hookspecs) if name.startswith("pyframe_")}
    found: dict[str, Mapping[str, Any]] = {}
    for name in dir(plugin):
        implementation = getattr(plugin, name, None)
        if not callable(implementation) or not name.startswith("pyframe_"):
            continue
        if name not in known:
            import difflib

            near = difflib.get_close_matches(name, known, 1, 0.0)[0]
            raise PluginError(f"{distribution}: there is no hook {name!r}; did you mean {near!r}?")
        kind = name.removeprefix("pyframe_register_")
        if kind in KINDS:
            things = implementation()
            if not isinstance(things, Mapping):
                raise PluginError(
                    f"{distribution}: {name} returned {type(things).__name__}; "
                    "it must return a dict of names to things"
                )
            found[kind] = things
    return found


def _version() -> str:
    from pyframe._version import __version__

    return __version__


def _load() -> None:
    manager()


for _registry in registries.values():
    _registry.load = _load
