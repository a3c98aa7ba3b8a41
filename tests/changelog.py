"""Reads CHANGELOG.md, and says what is wrong with its form.

The form is that of Keep a Changelog: a heading for each version, the newest first, and under each
the kinds of changes with a list. Before a release its entries stand under "Unreleased", which says
in its first line what version they will be.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

FILE = Path(__file__).resolve().parents[1] / "CHANGELOG.md"
KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
HEADING = re.compile(r"\[(Unreleased|\d+\.\d+\.\d+)\](?: - (\d{4}-\d{2}-\d{2}))?")
NEXT = re.compile(r"What will be (\d+\.\d+\.\d+)\.")


@dataclass
class Section:
    """A version: its name, the day of its release, its kinds of changes with their entries."""

    heading: str
    version: str = ""
    day: str | None = None
    text: str = ""
    changes: dict[str, list[str]] = field(default_factory=dict)


def number(version: str) -> tuple[int, ...]:
    """Return a version as numbers, for comparing: "0.10.1" as (0, 10, 1)."""
    return tuple(int(part) for part in version.split("."))


def sections(text: str) -> list[Section]:
    """Return the versions of a changelog in the order in which they stand there."""
    found = []
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        heading, _, rest = part.partition("\n")
        section = Section(heading)
        if match := HEADING.fullmatch(heading):
            section.version, section.day = match.groups()
        before, *kinds = re.split(r"^### ", rest, flags=re.MULTILINE)
        section.text = before.strip()
        for kind in kinds:
            name, _, entries = kind.partition("\n")
            items = re.split(r"^- ", entries, flags=re.MULTILINE)[1:]
            section.changes.setdefault(name, []).extend(" ".join(item.split()) for item in items)
        found.append(section)
    return found


def complaints(text: str, version: str) -> list[str]:
    """Return what is wrong with a changelog's form, or with the version beside it."""
    found, parts = [], sections(text)
    if not text.startswith("# Changelog\n"):
        found.append("the first line is not '# Changelog'")
    if not parts or parts[0].version != "Unreleased":
        found.append("the first section is not '## [Unreleased]'")
    for part in parts:
        if not part.version:
            found.append(f"'## {part.heading}' is not '## [1.2.3] - 2030-12-31'")
        found += [
            f"[{part.version}] '### {kind}' is none of {', '.join(KINDS)}"
            for kind in part.changes
            if kind not in KINDS
        ]
        found += [f"[{part.version}] '### {k}' is empty" for k, v in part.changes.items() if not v]
    releases = [part for part in parts if part.version not in ("", "Unreleased")]
    for part in releases:
        try:
            date.fromisoformat(part.day or "")
        except ValueError:
            found.append(f"[{part.version}] has no day of release")
        if not part.changes:
            found.append(f"[{part.version}] says nothing")
    for newer, older in zip(releases, releases[1:], strict=False):
        if number(newer.version) <= number(older.version):
            found.append(f"[{newer.version}] stands above [{older.version}]")
        if (newer.day or "") < (older.day or ""):
            found.append(f"[{newer.version}] is dated before [{older.version}]")
    return found + _of_the_version(parts, releases, version)


def _of_the_version(parts: list[Section], releases: list[Section], version: str) -> list[str]:
    newest = releases[0].version if releases else None
    if not parts or not parts[0].changes:  # this very state is released
        if newest != version:
            return [f"the version is {version}, and the newest one in the changelog is {newest}"]
        return []
    said = NEXT.match(parts[0].text)
    if said is None:
        return ["[Unreleased] does not begin with 'What will be 1.2.3.'"]
    found = []
    if said[1] != version:
        found.append(f"the version is {version}, and [Unreleased] says 'What will be {said[1]}.'")
    if newest is not None and number(said[1]) <= number(newest):
        found.append(f"[Unreleased] will be {said[1]}, and {newest} is released")
    return found


def announced(text: str, since: str) -> str:
    """Return the entries that announce breaks, of all that came after a version was recorded.

    While nothing is released, that is what stands under "Unreleased".
    """
    newer = [
        part
        for part in sections(text)
        if part.version == "Unreleased" or (part.version and number(part.version) > number(since))
    ]
    entries = [
        entry
        for part in newer
        for kind in ("Changed", "Removed")
        for entry in part.changes.get(kind, ())
    ]
    return "\n".join(entries)
