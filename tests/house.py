"""The map of the package, made from its folders: each room and each module by its own first line.

``docs/architecture.md`` has a line for each room and for each module. It is written by

    python tests/house.py

and a test says when it is out of date.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "pyframe"

# From the machine up to the command line: each room stands on those before it.
ROOMS = (
    *("native", "plugins", "graph", "ops", "engine"),
    *("optimizers", "regularizers", "constraints", "layers", "data", "datasets", "checkpoint"),
    "model",
    *("training", "callbacks", "estimators", "tabular", "plotting", "testing", "commands"),
)


def first_line(path: Path) -> str:
    """Return the first paragraph of a module's docstring, in Markdown."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return re.sub(r"`+([^`]+)`+", r"`\1`", paragraph)


def rooms() -> list[str]:
    """Return the folders of the package that hold code."""
    return [path.parent.name for path in sorted(PACKAGE.glob("*/__init__.py"))]


def single_modules() -> list[Path]:
    """Return the files beside the rooms that a person may import."""
    return [path for path in sorted(PACKAGE.glob("*.py")) if not path.name.startswith("_")]


def table_of_rooms() -> Iterator[str]:
    """Yield the lines of the table of folders."""
    yield "| where | what |"
    yield "| --- | --- |"
    for room in ROOMS:
        yield f"| `pyframe/{room}/` | {first_line(PACKAGE / room / '__init__.py')} |"


def tables() -> Iterator[str]:
    """Yield the lines of the tables in the page on the architecture."""
    yield from table_of_rooms()
    yield ""
    for room in ROOMS:
        yield f"### `pyframe/{room}/`"
        yield ""
        yield "| module | what |"
        yield "| --- | --- |"
        for path in sorted((PACKAGE / room).glob("*.py")):
            if path.name != "__init__.py":
                yield f"| `{path.name}` | {first_line(path)} |"
        yield ""
    yield "### Beside the rooms"
    yield ""
    yield "| module | what |"
    yield "| --- | --- |"
    for path in single_modules():
        yield f"| `{path.name}` | {first_line(path)} |"


PAGES = {
    ROOT / "docs" / "architecture.md": tables,
}
BEGIN, END = "<!-- made by tests/house.py -->\n", "<!-- end -->\n"


def written(page: Path) -> str:
    """Return a page with its map made anew."""
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + "".join(f"{line}\n" for line in PAGES[page]()) + END + after


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(written(page), encoding="utf-8")
