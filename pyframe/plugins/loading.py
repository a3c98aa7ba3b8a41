"""The plugin manager: fills the registries through the hooks.

The built-ins register through the same hooks as plugins, when a name is first looked up. A plugin
is loaded by the first look-up that needs it, completely or not at all: one that fails is set aside
with the reason, and nothing else is affected.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pluggy

from pyframe import hookspecs
from pyframe._version import __version__
from pyframe.errors import PluginError, raise_if_signalled, signalled
from pyframe.native import core
from pyframe.native.building import building
from pyframe.plugins.discovery import (
    EVENTS,
    Found,
    allowed,
    find_plugins,
    is_strict,
    mark_shared,
    normalized,
)
from pyframe.plugins.hooks import (
    PREFIX,
    check_hooks,
    check_things,
    events_of,
    open_kernels,
    things_of,
)
from pyframe.plugins.registry import BUILT_IN, KINDS, registries

# The module that registers the built-ins of each kind, imported when the kind is first asked for.
BUILT_IN_MODULES = {kind: f"pyframe.{kind}" for kind in KINDS}


@dataclass
class Plugin:
    """An installed plugin and its status.

    Attributes
    ----------
    name, version : str
        Of the distribution.
    status : {"installed", "loading", "loaded", "set aside", "excluded"}
        "installed": not needed so far; "excluded": PYFRAME_PLUGINS does not list it.
    phase : {"", "manifest", "import", "hooks", "kernels", "register", "validate"}
        The phase in which it failed.
    error, traceback : str
    things : dict
        The registered names by kind.
    libraries : list
        Path and (major, minor) of the interface of each of its C libraries.

    Examples
    --------
    >>> import pyframe as pf
    >>> Plugin.status
    'installed'
    """

    found: Found
    status: str = "installed"
    phase: str = ""
    error: str = ""
    traceback: str = ""
    things: dict[str, list[str]] = field(default_factory=dict)
    libraries: list[tuple[str, tuple[int, int]]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The distribution's name."""
        return self.found.name

    @property
    def version(self) -> str:
        """The distribution's version."""
        return self.found.version


class Origin(NamedTuple):
    """Where a registered thing came from.

    Examples
    --------
    >>> Origin("mine", "1.0", None).version
    '1.0'
    """

    distribution: str
    version: str
    file: str | None


_manager: pluggy.PluginManager | None = None
_plugins: dict[str, Plugin] | None = None
_owners: dict[int, str] = {}  # id of an object with hooks -> distribution, for messages


def manager() -> pluggy.PluginManager:
    """Return the one plugin manager.

    Examples
    --------
    >>> manager().project_name
    'pyframe'
    """
    global _manager
    with building:
        if _manager is None:
            made = pluggy.PluginManager(hookspecs.PROJECT)
            made.add_hookspecs(hookspecs)
            _manager = made
    return _manager


# ---- installed plugins ----


def installed() -> dict[str, Plugin]:
    """Return the installed plugins by normalized name, without importing them.

    Raises
    ------
    PluginError
        If PYFRAME_PLUGINS lists one that is not installed.

    Examples
    --------
    >>> import pyframe as pf
    >>> all(plugin.status for plugin in pf.plugins.installed().values())
    True
    """
    global _plugins
    with building:
        if _plugins is None:
            found = find_plugins(KINDS)
            wanted = allowed(found.values())
            mark_shared(one for key, one in found.items() if key in wanted)
            made = {key: Plugin(one) for key, one in found.items()}
            for key, plugin in made.items():
                if key not in wanted:
                    plugin.status = "excluded"
                elif plugin.found.problem:
                    _set_aside(plugin, "manifest", PluginError(plugin.found.problem))
            _plugins = made
        return _plugins


def announced(kind: str) -> Mapping[str, Sequence[str]]:
    """Return the announced names of a kind, with the plugins that announce each.

    Plugins that are set aside or excluded are left out.

    Examples
    --------
    >>> isinstance(announced("layers"), dict)
    True
    """
    found: dict[str, list[str]] = {}
    for plugin in installed().values():
        if plugin.status in ("installed", "loading", "loaded"):
            for name in plugin.found.manifest.get(kind, ()):
                found.setdefault(name, []).append(plugin.name)
    return found


def load(name: str) -> Plugin:
    """Load an installed plugin, unless it is loaded.

    Parameters
    ----------
    name : str
        Of the distribution.

    Raises
    ------
    PluginError
        If it is not installed, or is set aside.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.plugins.load("no-such-plugin")
    Traceback (most recent call last):
    ...
    pyframe.errors.PluginError: the plugin 'no-such-plugin' is not installed...
    """
    plugin = installed().get(normalized(name))
    if plugin is None:
        import difflib

        others = [p.name for p in installed().values()]
        near = [one for one in others if one == f"pyframe-{normalized(name)}"]
        near = near or difflib.get_close_matches(name, others, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ";"
        raise PluginError(
            f"the plugin {name!r} is not installed{hint} installed: {', '.join(others) or 'none'}. "
            f"Install it with 'pip install {name}'"
        )
    _load(plugin)
    if plugin.status != "loaded":
        raise PluginError(_why(plugin))
    return plugin


def _load(plugin: Plugin) -> None:
    with building:
        if plugin.status != "installed":
            return
        loading = _Loading(plugin)
        try:
            plugin.status = "loading"
            loading.run()
        except BaseException as error:
            loading.undo()
            own = isinstance(error, Exception | SystemExit) and signalled(error) is None
            # `sys.exit` in a plugin that is being imported ends its import only.
            if not own:  # Ctrl-C or a timeout: it may be tried again
                plugin.status = "installed"
                raise_if_signalled(error)
                raise
            _set_aside(plugin, loading.phase, error)
            if is_strict():
                raise PluginError(_why(plugin)) from error
        else:
            plugin.status = "loaded"


def _set_aside(plugin: Plugin, phase: str, error: BaseException) -> None:
    plugin.status, plugin.phase = "set aside", phase
    plugin.error = f"{type(error).__name__}: {error}"
    plugin.traceback = "".join(traceback.format_exception(error))
    if is_strict() and phase == "manifest":
        raise PluginError(_why(plugin)) from error


def _why(plugin: Plugin) -> str:
    if plugin.status == "excluded":
        return f"{plugin.name} {plugin.version} is not listed in PYFRAME_PLUGINS"
    return (
        f"{plugin.name} {plugin.version} was set aside at {plugin.phase!r}: {plugin.error}. "
        f"'pyframe plugins show {plugin.name}' prints its traceback"
    )


class _Loading:
    """The loading of one plugin: each phase covers all of it before the next one begins."""

    def __init__(self, plugin: Plugin) -> None:
        self.plugin = plugin
        self.phase = "import"
        self.committed: list[Any] = []

    def run(self) -> None:
        plugin = self.plugin
        objects = [_import(module) for module in dict.fromkeys(plugin.found.modules)]
        self.phase = "hooks"
        for thing in objects:
            check_hooks(thing, plugin.name)
        self.phase = "kernels"
        libraries = [lib for o in objects for lib in open_kernels(o, plugin.name)]
        self.phase = "register"
        found = [(o, things_of(o, plugin.name)) for o in objects]
        self.phase = "validate"
        for kind in {kind for _, things in found for kind in things}:
            load_built_ins(kind)
        for _, things in found:
            for kind, named in things.items():
                check_things(kind, named, plugin.name)
        self._check_manifest(found)
        for thing, _ in found:
            check_free(thing, plugin.name)
        for thing, things in found:
            self.committed.append(thing)
            commit(thing, things, plugin.name, plugin.version)
        for _, things in found:
            for kind, named in things.items():
                plugin.things.setdefault(kind, []).extend(sorted(named))
        plugin.libraries = [(library.path, library.abi) for library in libraries]

    def undo(self) -> None:
        for thing in self.committed:
            withdraw(thing)
        self.plugin.things.clear()

    def _check_manifest(self, found: Sequence[tuple[Any, Mapping[str, Mapping[str, Any]]]]) -> None:
        """Check that what is registered matches what is announced, if anything is."""
        manifest = self.plugin.found.manifest
        if not manifest:
            return
        real: dict[str, set[str]] = {}
        for thing, things in found:
            for kind, named in things.items():
                real.setdefault(kind, set()).update(named)
            for event in events_of(thing):
                real.setdefault(EVENTS, set()).add(event)
        lines = []
        for kind in sorted({*manifest, *real}):
            announced, registered = manifest.get(kind, set()), real.get(kind, set())
            for name in sorted(registered - announced):
                lines.append(f'add "{kind}.{name}" = "{self.plugin.found.modules[0]}"')
            lines += [f'take out "{kind}.{name}"' for name in sorted(announced - registered)]
        if lines:
            raise PluginError(
                "its manifest and what it registers differ; in "
                f'[project.entry-points."pyframe.provides"] {"; ".join(lines)}'
            )


def _import(value: str) -> Any:
    """Return the module, or the object in it, that an entry point names."""
    module, _, path = value.partition(":")
    found = importlib.import_module(module.strip())
    for part in filter(None, path.strip().split(".")):
        found = getattr(found, part)
    return found


# ---- what is registered ----


def check_free(thing: Any, distribution: str) -> None:
    """Raise `PluginError` if an object with hooks has been registered, under whatever name."""
    if manager().is_registered(thing):
        raise PluginError(
            f"{distribution}: {getattr(thing, '__name__', thing)!r} has its hooks registered "
            f"already, by {_owners.get(id(thing), 'pyframe-nn')}; leave one of the two away"
        )


def commit(
    thing: Any, things: Mapping[str, Mapping[str, Any]], distribution: str, version: str
) -> None:
    """Register all that was checked.

    Examples
    --------
    >>> mine = object()
    >>> commit(mine, {}, "mine", "1.0")
    >>> withdraw(mine)
    """
    try:
        manager().register(thing)
    except (ValueError, pluggy.PluginValidationError) as error:
        raise_if_signalled(error)
        raise PluginError(f"{distribution}: {error}") from error
    _owners[id(thing)] = f"{distribution} {version}"
    for kind, named in things.items():
        registries[kind].add(named, distribution, version, owner=thing)


def withdraw(thing: Any) -> None:
    """Undo `commit`.

    Examples
    --------
    >>> withdraw(object())
    """
    if manager().is_registered(thing):
        manager().unregister(thing)
    _owners.pop(id(thing), None)
    for registry in registries.values():
        registry.remove(thing)


# ---- plugins of one process ----


def register(plugin: object, distribution: str = "unnamed", version: str = "0") -> None:
    """Register an object or module with hook implementations, for this process.

    Either everything is registered, or nothing.

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
    with building:
        check_hooks(plugin, distribution)
        open_kernels(plugin, distribution)
        things = things_of(plugin, distribution)
        for kind, named in things.items():
            load_built_ins(kind)  # so that a clash with a built-in is seen
            check_things(kind, named, distribution)
        check_free(plugin, distribution)
        commit(plugin, things, distribution, version)


def unregister(plugin: object) -> None:
    """Undo `register`.

    Examples
    --------
    >>> unregister(object())
    """
    with building:
        withdraw(plugin)


# ---- built-ins ----


def load_built_ins(kind: str) -> None:
    """Register the built-ins of a kind, unless that is done.

    Examples
    --------
    >>> load_built_ins("layers")
    """
    module = importlib.import_module(BUILT_IN_MODULES[kind])  # outside of the lock
    with building:
        if not manager().is_registered(module):
            things = things_of(module, BUILT_IN)
            for of_kind, named in things.items():
                check_things(of_kind, named, BUILT_IN)
            commit(module, things, BUILT_IN, __version__)


# ---- events ----


def listens(event: str) -> bool:
    """Return whether any plugin has a hook for an event; loads those that may.

    Examples
    --------
    >>> listens("epoch_end")
    False
    """
    _load_for_events()
    return bool(getattr(manager().hook, PREFIX + event).get_hookimpls())


def notify(event: str, **arguments: Any) -> None:
    """Call the hooks of all plugins for a training event, in pluggy's order.

    Raises
    ------
    PluginError
        If a plugin's hook raised; it names the first one. All other hooks have been called by then.

    Examples
    --------
    >>> notify("epoch_end", trainer=None, epoch=0, logs={})
    """
    _load_for_events()
    failed: tuple[str, BaseException] | None = None
    for hook in reversed(getattr(manager().hook, PREFIX + event).get_hookimpls()):
        try:
            hook.function(*(arguments[name] for name in hook.argnames))
        except (Exception, SystemExit) as error:  # a plugin does not end the process by `sys.exit`
            raise_if_signalled(error)
            if failed is None:
                failed = _owners.get(id(hook.plugin), hook.plugin_name), error
    if failed is not None:
        owner, cause = failed
        raise PluginError(
            f"the hook {PREFIX + event} of {owner} raised {type(cause).__name__}: {cause}"
        ) from cause


def _load_for_events() -> None:
    for plugin in installed().values():
        manifest = plugin.found.manifest
        if plugin.status == "installed" and (not manifest or EVENTS in manifest):
            _load(plugin)


# ---- what the registries and the kernels ask for ----


class _Source:
    """See `pyframe.plugins.registry.Source`."""

    def built_ins(self, kind: str) -> None:
        load_built_ins(kind)

    def announced(self, kind: str) -> Mapping[str, Sequence[str]]:
        return announced(kind)

    def withheld(self, kind: str) -> list[str]:
        plugins = [p for p in installed().values() if p.status in ("set aside", "excluded")]
        return [name for plugin in plugins for name in plugin.found.manifest.get(kind, ())]

    def load(self, kind: str, name: str, distribution: str | None = None) -> None:
        plugins = installed()
        if distribution is not None:
            if normalized(distribution) in plugins:
                _load(plugins[normalized(distribution)])
            return
        announcing = [p for p in plugins.values() if p.found.announces(kind, name)]
        for plugin in announcing:
            _load(plugin)
        if not any(p.status in ("loaded", "loading") for p in announcing):
            for plugin in plugins.values():  # it may be in a plugin without a manifest
                if not plugin.found.manifest:
                    _load(plugin)

    def load_owner(self, module: str) -> None:
        top = module.partition(".")[0]
        for plugin in installed().values():
            if any(m.partition(":")[0].partition(".")[0] == top for m in plugin.found.modules):
                _load(plugin)

    def why_missing(self, kind: str, name: str, distribution: str | None = None) -> str:
        reasons = []
        for plugin in installed().values():
            found = plugin.found
            if distribution is not None:
                concerned = found.key == normalized(distribution)
            else:
                concerned = found.announces(kind, name) or not found.manifest
            if concerned and plugin.status in ("set aside", "excluded"):
                reasons.append(_why(plugin))
        if distribution is not None and normalized(distribution) not in installed():
            reasons.append(f"No plugin {distribution!r} is installed: pip install {distribution}")
        return "; ".join(reasons)


def _load_library(name: str) -> None:
    """Load the plugin that brings a C library: by convention its module has the same name."""
    _source.load_owner(name)


def origin(thing: Any) -> Origin | None:
    """Return the origin of a registered thing; None if it is not registered.

    Parameters
    ----------
    thing : class or callable

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.plugins.origin(pf.layers.Dense).distribution
    'pyframe-nn'
    """
    for registry in registries.values():
        found = registry.find(thing)
        if found is not None:
            return Origin(found[1].distribution, found[1].version, found[1].file)
    return None


_source = _Source()
for _registry in registries.values():
    _registry.source = _source
core.on_unknown_library = _load_library
