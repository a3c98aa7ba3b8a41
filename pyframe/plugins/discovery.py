"""Finding plugins among the installed distributions, without importing any of them.

A distribution has entry points in two groups. ``pyframe`` names the modules with its hooks;
``pyframe.provides`` is a manifest of what they register: ``layers.conv2d = pyframe_cnn``. So a
look-up loads the one plugin that answers it, and a clash is seen before any code runs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pyframe.errors import PluginError, forgiving, raise_if_signalled

GROUP, MANIFEST = "pyframe", "pyframe.provides"
EVENTS = "events"  # the kind under which a manifest announces hooks for training events


@dataclass
class Found:
    """An installed distribution that contains a plugin.

    Attributes
    ----------
    name : str
        As the distribution spells it.
    version : str
    modules : list of str
        The modules with hooks, as in their entry points: ``module`` or ``module:object``.
    manifest : dict
        The announced names by kind; empty if nothing is announced.
    folder : str
        Where it is installed.
    problem : str
        The fault in its entry points; empty if there is none.
    """

    name: str
    version: str
    modules: list[str] = field(default_factory=list)
    manifest: dict[str, set[str]] = field(default_factory=dict)
    folder: str = ""
    problem: str = ""

    @property
    def key(self) -> str:
        """The normalized name."""
        return normalized(self.name)

    def announces(self, kind: str, name: str) -> bool:
        """Return whether its manifest has a name."""
        return name in self.manifest.get(kind, ())


def normalized(name: str) -> str:
    """Return the name of a distribution, normalized as in PEP 503.

    Examples
    --------
    >>> normalized("PyFrame_CNN")
    'pyframe-cnn'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def find_plugins(kinds: Iterable[str]) -> dict[str, Found]:
    """Return the installed distributions with plugins, by normalized name.

    If a distribution is installed twice, the first one counts, as for Python's import.
    """
    from importlib.metadata import distributions  # slow to import, and only plugins need it

    known = {*kinds, EVENTS}
    found: dict[str, Found] = {}
    seen: set[str] = set()
    for distribution in distributions():
        problem = ""
        try:
            name = distribution.metadata["Name"]
            if not name or normalized(name) in seen:
                continue
            entries = [e for e in distribution.entry_points if e.group in (GROUP, MANIFEST)]
        except Exception as error:  # other people's files: whatever is in them
            raise_if_signalled(error)
            entries, problem = [], f"its entry points cannot be read: {error}"
            if not _is_ours(distribution):
                continue
        seen.add(normalized(name))
        if not entries and not problem:
            continue
        folder = str(distribution.locate_file(""))
        plugin = Found(name, distribution.version or "unknown", folder=folder, problem=problem)
        for entry in entries:
            if entry.group == GROUP:
                plugin.modules.append(entry.value)
                continue
            kind, dot, thing = entry.name.partition(".")
            if not dot or kind not in known or not thing:
                plugin.problem = (
                    f'it announces {entry.name!r} in its {MANIFEST!r}; write "<kind>.<name>" '
                    f'with a kind out of {", ".join(sorted(known))}, such as "layers.conv2d"'
                )
                continue
            plugin.manifest.setdefault(kind, set()).add(thing)
        if not plugin.modules and not problem:
            plugin.problem = f"it has a {MANIFEST!r}, and no module with hooks in {GROUP!r}"
        found[plugin.key] = plugin
    return found


def _is_ours(distribution: Any) -> bool:
    """Return whether a distribution with unreadable metadata means to be a plugin."""
    with forgiving(Exception):
        text = distribution.read_text("entry_points.txt") or ""
        return bool(distribution.metadata["Name"]) and f"[{GROUP}]" in text
    return False


def mark_shared(plugins: Iterable[Found]) -> None:
    """Give a `problem` to plugins that name the same module: the files of only one are there.

    It happens when a package was renamed and both names are installed, or with a fork.
    """
    owners: dict[str, list[Found]] = {}
    for plugin in plugins:
        for module in dict.fromkeys(plugin.modules):
            owners.setdefault("".join(module.split()), []).append(plugin)
    for module, sharing in owners.items():
        if len(sharing) < 2:
            continue
        sharing.sort(key=lambda plugin: plugin.key)
        names = [f"{plugin.name} {plugin.version}" for plugin in sharing]
        for plugin in sharing:
            plugin.problem = plugin.problem or (
                f"{' and '.join(names)} both name {module!r} in {GROUP!r}, and one's files have "
                f"replaced the other's: 'pip uninstall {' '.join(p.name for p in sharing)}', then "
                "install the one that is meant"
            )


def editable_folder(name: str) -> str | None:
    """Return the folder that an editable install of a distribution was made from.

    None if it was installed otherwise, or not at all.
    """
    origin = _origin(name)
    is_editable = origin.get("dir_info", {}).get("editable")
    return _path_of(origin["url"]) if is_editable else None


def source_folder(name: str) -> str | None:
    """Return the folder that a distribution was installed from, editable or not.

    None if it came from elsewhere, such as an index, or is not installed.
    """
    origin = _origin(name)
    return _path_of(origin["url"]) if "dir_info" in origin else None


def _origin(name: str) -> dict[str, Any]:
    """Return what pip has recorded of where a distribution came from; empty if nothing."""
    import json
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        text = distribution(name).read_text("direct_url.json")
    except (PackageNotFoundError, ValueError) as error:  # the latter for a name that is none
        raise_if_signalled(error)
        return {}
    origin: dict[str, Any] = json.loads(text or "{}")
    return origin


def _path_of(url: str) -> str:
    from urllib.parse import urlparse
    from urllib.request import url2pathname

    return url2pathname(urlparse(url).path)


def allowed(found: Iterable[Found]) -> set[str]:
    """Return the plugins that may be loaded: all, or those that PYFRAME_PLUGINS lists.

    Raises
    ------
    PluginError
        If it lists one that is not installed.
    """
    plugins = {plugin.key: plugin for plugin in found}
    wanted = os.environ.get("PYFRAME_PLUGINS")
    if wanted is None:
        return set(plugins)
    names = {normalized(name.strip()) for name in wanted.split(",") if name.strip()}
    missing = sorted(names - set(plugins))
    if missing:
        raise PluginError(
            f"PYFRAME_PLUGINS lists {missing[0]!r}, which is no installed plugin; installed: "
            f"{', '.join(sorted(plugins)) or 'none'}. Install it with 'pip install {missing[0]}', "
            "or take it off the list"
        )
    return names


def is_strict() -> bool:
    """Return whether a plugin that cannot be loaded is an error instead of being set aside."""
    return os.environ.get("PYFRAME_STRICT_PLUGINS", "") not in ("", "0")
