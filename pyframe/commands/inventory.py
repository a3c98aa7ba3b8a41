"""What ``pyframe plugins`` shows: the installed plugins, and the status of each."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from pyframe import plugins
from pyframe._version import __version__
from pyframe.engine.printing import table
from pyframe.errors import PluginError
from pyframe.native import core
from pyframe.plugins.discovery import normalized
from pyframe.plugins.registry import registries


def inventory() -> list[dict[str, Any]]:
    """Load all installed plugins and return a description of each, as data for JSON.

    Returns
    -------
    list of dict
        ``name``, ``version``, ``status``, ``phase``, ``error`` and ``traceback`` (empty when
        nothing failed), ``modules``, ``folder``, ``provides`` (kind to names that are registered,
        or only announced by one that is not loaded), ``libraries`` (``path`` and ``abi``) and
        ``clashes`` (names that another plugin has, too).

    Examples
    --------
    >>> all("status" in plugin for plugin in inventory())
    True
    """
    found = list(plugins.installed().values())
    for plugin in found:
        if plugin.status == "installed":
            with contextlib.suppress(PluginError):  # set aside, with the reason
                plugins.load(plugin.name)
    announced = {kind: plugins.announced(kind) for kind in registries}
    rows = []
    for plugin in found:
        provides: Mapping[str, Sequence[str]] = plugin.things
        if plugin.status != "loaded":
            provides = {kind: sorted(names) for kind, names in plugin.found.manifest.items()}
        rows.append(
            {
                "name": plugin.name,
                "version": plugin.version,
                "status": plugin.status,
                "phase": plugin.phase,
                "error": plugin.error,
                "traceback": plugin.traceback,
                "modules": plugin.found.modules,
                "folder": plugin.found.folder,
                "provides": {kind: list(names) for kind, names in sorted(provides.items())},
                "libraries": [
                    {"path": path, "abi": f"{major}.{minor}"}
                    for path, (major, minor) in plugin.libraries
                ],
                "clashes": sorted(
                    f"{kind}.{name}"
                    for kind, names in announced.items()
                    for name, owners in names.items()
                    if plugin.name in owners and len(owners) > 1
                ),
            }
        )
    return rows


def host() -> dict[str, str]:
    """Return the versions that plugins must match: of the package and of its kernel interface."""
    table = core.lib.pf_get_host()
    return {"pyframe": __version__, "abi": f"{table.abi_major}.{table.abi_minor}"}


def as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the inventory as a table, one plugin a line."""
    if not rows:
        return "no plugin is installed"
    cells = [("plugin", "version", "status", "provides")]
    for row in rows:
        provided = ", ".join(f"{len(names)} {kind}" for kind, names in row["provides"].items())
        status = f"{row['status']} ({row['phase']})" if row["phase"] else row["status"]
        cells.append((row["name"], row["version"], status, provided))
    return "\n".join(table(cells))


def as_page(row: Mapping[str, Any]) -> str:
    """Return all that is known of one plugin."""
    lines = [f"{row['name']} {row['version']}: {row['status']}"]
    lines.append(f"installed in {row['folder']}, hooks in {', '.join(row['modules'])}")
    for kind, names in row["provides"].items():
        lines.append(f"{kind}: {', '.join(names)}")
    for library in row["libraries"]:
        lines.append(f"C library {library['path']}, built for interface {library['abi']}")
    if row["clashes"]:
        lines.append(
            f"also in another plugin: {', '.join(row['clashes'])}; look them up as "
            f"{row['name']}:{row['clashes'][0].partition('.')[2]}"
        )
    if row["error"]:
        lines.append(f"failed at {row['phase']!r}: {row['error']}")
    if row["traceback"]:
        lines += ["", row["traceback"].rstrip()]
    return "\n".join(lines)


def one(name: str) -> dict[str, Any]:
    """Return the row of one plugin.

    Raises
    ------
    PluginError
        If it is not installed.
    """
    rows = inventory()
    for row in rows:
        if normalized(row["name"]) == normalized(name):
            return row
    others = ", ".join(row["name"] for row in rows) or "none"
    raise PluginError(f"the plugin {name!r} is not installed; installed: {others}")


def complaints(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the faults of the installed plugins, one line each."""
    found = [
        f"{row['name']} {row['version']} was set aside at {row['phase']!r}: {row['error']}"
        for row in rows
        if row["status"] == "set aside"
    ]
    clashes = sorted({clash for row in rows for clash in row["clashes"]})
    for clash in clashes:
        owners = [row["name"] for row in rows if clash in row["clashes"]]
        name = clash.partition(".")[2]
        found.append(
            f"{clash} is in {' and '.join(owners)}: look it up as {owners[0]}:{name} or so"
        )
    return found
