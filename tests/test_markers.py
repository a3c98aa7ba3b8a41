"""Each test file carries the markers that its imports and words call for."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.docs

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "tests").glob("test_*.py"))

# What a file has to use for a marker: a module or a name of it, or a word among its constants.
SIGNS = {
    "package": {"workshop.Workshop", "rehearse", "rehearsal", "wheelhouse", "-m build", "-m pip"},
    "compiler": {
        *(f"toolchain.{name}" for name in ("C", "CXX", "compile_c", "library", "try_to_compile")),
        *("mutants.Workshop", "mutants.COMPILER", "needs_compiler", "without_compiler"),
        *("'cc'", "'gcc'", "'clang'"),
    },
    "sklearn": {"sklearn at the top"},
    "docs": {"doctest", "changelog", "'README.md'", "'CHANGELOG.md'", "'CONTRIBUTING.md'"},
}


def signs(text: str) -> Iterator[str]:
    """Yield what a test file imports, the attributes that it takes, and its constants, quoted."""
    tree = ast.parse(text)
    for node in tree.body:
        if re.match(r"(from|import) sklearn|pytest.importorskip\('sklearn'", ast.unparse(node)):
            yield "sklearn at the top"
    for node in ast.walk(tree):
        match node:
            case ast.Import(names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield module
                yield from (f"{module}.{alias.name}" for alias in names)
                yield from (alias.name for alias in names)
            case ast.Attribute(value=ast.Name(module), attr=name):
                yield f"{module}.{name}"
            case ast.Constant(str(word)):
                yield repr(word)
            case ast.List(parts):
                words = [p.value if isinstance(p, ast.Constant) else None for p in parts]
                pairs = zip(words, words[1:], strict=False)
                yield from (f"{one} {two}" for one, two in pairs)


def missing(text: str) -> set[str]:
    """Return the markers that a test file calls for and does not carry, on itself or on a test.

    What builds packages needs no other: compiling and reading are part of it.
    """
    found = set(signs(text))
    wanted = {marker for marker, those in SIGNS.items() if those & found}
    carried = set(re.findall(r"pytest\.mark\.(\w+)", text))
    if "needs_compiler" in found or "mutants.needs_compiler" in found:  # it marks as well
        carried.add("compiler")
    return set() if "package" in carried else wanted - carried


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_carries_the_markers_that_it_calls_for(file: Path) -> None:
    assert missing(file.read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize(
    ("text", "marker"),
    [
        ("from workshop import Workshop, follow", "package"),
        ("from wheelhouse import building", "package"),
        ("command = [sys.executable, '-m', 'build', ROOT]", "package"),
        ("from toolchain import library", "compiler"),
        ("import mutants\nmutants.Workshop(tmp_path)", "compiler"),
        ("subprocess.run(['gcc', source])", "compiler"),
        ("from sklearn.base import clone", "sklearn"),
        ("import pytest\npytest.importorskip('sklearn')", "sklearn"),
        ("page = ROOT / 'README.md'", "docs"),
        ("import doctest", "docs"),
    ],
)
def test_a_file_without_its_marker_is_found(text: str, marker: str) -> None:
    assert missing(text) == {marker}
    assert missing(f"{text}\npytestmark = pytest.mark.{marker}") == set()
