"""The plugin manager: brings what is registered through the hooks into the registries.

The built-ins come in through the same hooks as anybody's, when a name is first looked up.
"""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Mapping
from typing import Any

import pluggy

from pyframe import hookspecs
from pyframe._version import __version__
from pyframe.errors import PluginError
from pyframe.registry import BUILT_IN, KINDS, registries

# The module that registers the built-ins of each kind, imported when the kind is first asked for.
BUILT_IN_MODULES = {kind: f"pyframe.{kind}" for kind in KINDS}

_lock = threading.RLock()
_manager: pluggy.PluginManager | None = None


def manager() -> pluggy.PluginManager:
    """Return the one plugin manager."""
    global _manager
    with _lock:
        if _manager is None:
            made = pluggy.PluginManager(hookspecs.PROJECT)
            made.add_hookspecs(hookspecs)
            _manager = made
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
        for kind in KINDS:
            if hasattr(plugin, f"pyframe_register_{kind}"):
                load_built_ins(kind)  # so that a clash with a built-in is seen
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


def load_built_ins(kind: str) -> None:
    """Register what the package itself has of a kind, unless that is done."""
    with _lock:
        module = importlib.import_module(BUILT_IN_MODULES[kind])
        if not manager().is_registered(module):
            _register(module, BUILT_IN, __version__)


for _kind, _registry in registries.items():
    _registry.load = functools.partial(load_built_ins, _kind)
