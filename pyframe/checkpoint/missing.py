"""What a file needs that is not here: all of it in one error, with the packages to install."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pyframe._version import __version__
from pyframe.errors import CheckpointError, UnknownNameError
from pyframe.plugins import installed
from pyframe.plugins.discovery import normalized
from pyframe.plugins.registry import BUILT_IN, registries

SHOWN = 10  # names and packages in a message: a file may name a million

# What to do about a part that no package has brought.
REMEDIES = {
    "losses": "pass loss= as to the Trainer",
    "metrics": "pass metrics= as to the Trainer",
    "optimizers": "pass optimizer= as to the Trainer",
    "schedules": "pass optimizer= as to the Trainer",
}


def origin(document: Mapping[str, Any], kind: str, name: str) -> Mapping[str, Any]:
    """Return the distribution, version and module that a file states for a part; {} if it does not.

    Parameters
    ----------
    document : dict
    kind, name : str
        As in a registry; the name may be of the form ``dist:name``.
    """
    stated: Mapping[str, Mapping[str, Any]] = document["provenance"].get(kind, {})
    return stated.get(name.rpartition(":")[2], {})


def package(document: Mapping[str, Any], kind: str, name: str) -> str:
    """Return " of the package ..." for a part that a plugin has brought, and "" for others."""
    stated = origin(document, kind, name)
    distribution = stated.get("distribution")
    if distribution in (None, BUILT_IN):
        return ""
    return f" of the package {distribution} {stated['version']}"


def find(document: Mapping[str, Any], kind: str, name: str) -> Any:
    """Return the registered part that a file means, or None."""
    distribution = origin(document, kind, name).get("distribution")
    with contextlib.suppress(UnknownNameError):
        # Another plugin may have the name by now.
        return registries[kind].get(
            f"{distribution}:{name}" if distribution and ":" not in name else name
        )
    return None


def lacking(document: Mapping[str, Any], kind: str, names: Iterable[str]) -> list[str]:
    """Return those names of a kind that are not found, each once."""
    known = {*registries[kind], *registries[kind].aliases()}
    unique = dict.fromkeys(names)
    return [n for n in unique if n not in known or find(document, kind, n) is None]


def why(document: Mapping[str, Any], kind: str, name: str, subject: str = "it") -> str:
    """Say where a part that is not found came from, and what to do about it."""
    stated = origin(document, kind, name)
    distribution = stated.get("distribution")
    if distribution == BUILT_IN:
        return f"{subject} came with pyframe {stated['version']}; this is {__version__}: upgrade it"
    if distribution:
        reason = registries[kind].why_missing(name, distribution)
        text = f"{subject} came from the package {distribution} {stated['version']}"
        if reason:
            return f"{text}. {reason}"
        return f"{text}, which is installed here and does not register {subject}: upgrade it"
    if kind in REMEDIES:
        reason = registries[kind].why_missing(name)
        return f"nothing here is registered under that name: {reason or REMEDIES[kind]}"
    return (
        f"it is the class of that name in the module {stated.get('module')!r}: "
        f'pass custom_ops={{"{name}": {name}}}, or register it'
    )


def complaint(
    document: Mapping[str, Any], wanted: Iterable[tuple[str, str]], source: str
) -> CheckpointError:
    """Return the error for parts that are not found.

    Parameters
    ----------
    document : dict
    wanted : iterable of (kind, name)
    source : str
        What messages call the file.
    """
    groups: dict[Any, list[tuple[str, str]]] = {}
    for kind, name in wanted:
        distribution = origin(document, kind, name).get("distribution")
        # Of one package all are told at once; anything else has a remedy of its own.
        key = (kind, name) if distribution in (None, BUILT_IN) else distribution
        groups.setdefault(key, []).append((kind, name))
    parts = [_part(document, group) for group in list(groups.values())[:SHOWN]]
    packages = to_install(document)
    line = f". All packages that are missing here: pip install {' '.join(packages)}"
    return CheckpointError(
        f"{source} needs {'; it needs '.join(parts)}{line if len(packages) > 1 else ''}"
    )


def _part(document: Mapping[str, Any], group: Sequence[tuple[str, str]]) -> str:
    kind, first = group[0]
    if len(group) == 1:
        return f"{first!r}, and {why(document, kind, first)}"
    names = [repr(name) for _, name in group[:SHOWN]]
    rest = len(group) - SHOWN
    last = f"{rest} more" if rest > 0 else names.pop()
    return f"{', '.join(names)} and {last}, and {why(document, kind, first, 'they')}"


def to_install(document: Mapping[str, Any]) -> list[str]:
    """Return the packages that a file names, are not installed, and have something it needs."""
    here, packages = installed(), dict[str, None]()
    for kind in registries:
        stated = document["provenance"].get(kind, {})
        for name in lacking(document, kind, stated):
            distribution = stated[name]["distribution"]
            if distribution not in (None, BUILT_IN) and normalized(distribution) not in here:
                packages[distribution] = None
                if len(packages) == SHOWN:
                    return [*packages, "..."]
    return list(packages)
