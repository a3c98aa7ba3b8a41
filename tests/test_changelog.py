"""CHANGELOG.md has the form that it says it has, and agrees with the version."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import changelog
import pytest

import pyframe

pytestmark = pytest.mark.docs

ROOT = Path(__file__).resolve().parents[1]
TEXT = changelog.FILE.read_text(encoding="utf-8")

GOOD = """# Changelog

## [Unreleased]

What will be 0.3.0.

### Removed

- `Trainer.old`, which nobody
  used.

## [0.2.0] - 2030-02-01

### Added

- More.

## [0.1.0] - 2030-01-01

### Added

- All of it.
"""
RELEASED = GOOD.replace(GOOD[GOOD.index("What will") : GOOD.index("## [0.2.0]")], "")


def test_the_changelog_has_its_form_and_agrees_with_the_version() -> None:
    assert changelog.complaints(TEXT, pyframe.__version__) == []


@pytest.mark.parametrize(("text", "version"), [(GOOD, "0.3.0"), (RELEASED, "0.2.0")])
def test_good_ones_pass(text: str, version: str) -> None:
    assert changelog.complaints(text, version) == []


@pytest.mark.parametrize(
    ("good", "bad", "words"),
    [
        ("# Changelog", "# History", "first line"),
        ("## [Unreleased]\n", "", "first section"),
        ("## [0.2.0] - ", "## 0.2.0 - ", "is not '## [1.2.3]"),
        ("2030-02-01", "2030-02-30", "[0.2.0] has no day"),
        ("[0.2.0] - 2030-02-01", "[0.2.0]", "[0.2.0] has no day"),
        ("2030-02-01", "2029-02-01", "dated before [0.1.0]"),
        ("[0.1.0]", "[0.2.0]", "[0.2.0] stands above [0.2.0]"),
        ("### Removed", "### Deleted", "'### Deleted' is none of"),
        ("- More.\n", "", "'### Added' is empty"),
        ("### Added\n\n- More.\n", "", "[0.2.0] says nothing"),
        ("What will be 0.3.0.", "Soon.", "does not begin"),
        ("What will be 0.3.0.", "What will be 0.4.0.", "the version is 0.3.0"),
        ("[0.2.0]", "[0.3.0]", "0.3.0 is released"),
    ],
)
def test_bad_ones_are_found(good: str, bad: str, words: str) -> None:
    assert good in GOOD
    found = changelog.complaints(GOOD.replace(good, bad), "0.3.0")
    assert any(words in complaint for complaint in found), found


def test_a_release_that_the_changelog_does_not_know_is_found() -> None:
    assert "newest one in the changelog is 0.2.0" in changelog.complaints(RELEASED, "0.2.1")[0]


def test_announcements_are_those_since_the_record() -> None:
    assert changelog.announced(GOOD, "0.2.0") == "`Trainer.old`, which nobody used."
    assert changelog.announced(RELEASED, "0.2.0") == ""
    assert "more" in changelog.announced(
        GOOD.replace("### Added\n\n- M", "### Changed\n\n- m"), "0.1.0"
    )
    assert "more" not in changelog.announced(GOOD.replace("- More", "- more"), "0.1.0")


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["dynamic"] == ["version"]
    source = ROOT / project["tool"]["scikit-build"]["metadata"]["version"]["input"]
    assert f'__version__ = "{pyframe.__version__}"' in source.read_text(encoding="utf-8")
    assert re.fullmatch(r"\d+\.\d+\.\d+", pyframe.__version__)
    again = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "pyframe").rglob("*.py")
        if re.search(r"^__version__ *=|version *= *[\"']\d", path.read_text("utf-8"), re.MULTILINE)
    ]
    assert again == ["pyframe/_version.py"]
