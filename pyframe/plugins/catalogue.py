"""The catalogue of known plugins: what each brings, and the line that installs it.

It is a file that comes with the package, so that a name that is missing here can be answered with
the package that has it, without a network.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pyframe.errors import UnknownNameError
from pyframe.plugins.discovery import normalized

FILE = os.path.join(os.path.dirname(__file__), "catalogue.json")


class Known(NamedTuple):
    """A plugin of the catalogue."""

    name: str
    install: str
    summary: str
    provides: Mapping[str, Sequence[str]]


@functools.cache
def known() -> tuple[Known, ...]:
    """Return the plugins of the catalogue."""
    import json  # slow to import, and only a name that is missing needs it

    with open(FILE, encoding="utf-8") as file:
        return tuple(Known(**plugin) for plugin in json.load(file)["plugins"])


def folded(name: str) -> str:
    """Return a name in one spelling: the same for `Conv2D`, `conv2d` and `conv_2d`."""
    return name.replace("_", "").lower()


def providers(kind: str, name: str) -> list[Known]:
    """Return the plugins of the catalogue that have a name, in any spelling, among a kind.

    Examples
    --------
    >>> [plugin.name for plugin in providers("layers", "Conv2D")]
    ['pyframe-cnn']
    """
    wanted = folded(name)
    return [p for p in known() if wanted in map(folded, p.provides.get(kind, ()))]


def search(words: Sequence[str]) -> list[Known]:
    """Return the plugins of which the name, the summary or a part has all the words.

    Examples
    --------
    >>> [plugin.name for plugin in search(["optimizer"])]
    ['pyframe-lion']
    """

    def text(plugin: Known) -> str:
        parts = [name for names in plugin.provides.values() for name in names]
        shown = " ".join([plugin.name, plugin.summary, *plugin.provides, *parts]).lower()
        return f"{shown} {folded(shown)}"

    return [p for p in known() if all(word.lower() in text(p) for word in words)]


def find(name: str) -> Known:
    """Return the plugin of a name.

    Raises
    ------
    UnknownNameError
        If the catalogue does not have it.
    """
    for plugin in known():
        if normalized(plugin.name) in (normalized(name), normalized(f"pyframe-{name}")):
            return plugin
    names = ", ".join(plugin.name for plugin in known())
    raise UnknownNameError(f"the catalogue has no plugin {name!r}; it has {names}")
