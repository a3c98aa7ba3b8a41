"""The pages to look things up in are those of docstrings and of the registry, and complete."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import reference

from pyframe.graph.op import Op
from pyframe.plugins.registry import BUILT_IN, registries

pytestmark = [pytest.mark.docs, pytest.mark.once]


@pytest.mark.parametrize("page", reference.PAGES, ids=lambda page: page.name)
def test_the_page_is_what_the_sources_say(page: Path) -> None:
    assert page.read_text(encoding="utf-8") == reference.written(page), (
        "write it anew: python tests/reference.py"
    )


def test_every_built_in_op_is_in_the_list() -> None:
    text = (reference.FOLDER / "list-of-ops.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)`", text, re.MULTILINE)
    registry = registries["ops"]
    there = [n for n in registry.names() if registry.entry(n).distribution == BUILT_IN]
    assert sorted(listed) == there and len(there) > 80


def test_the_class_tells_of_all_that_it_declares() -> None:
    """Of each attribute and each method that is public, the docstring of the class says a word."""
    said = inspect.getdoc(Op)
    names = [name for name in Op.__annotations__ if not name.startswith("_")]
    names += [name for name, _ in reference.methods(Op)]
    assert len(names) > 30
    unsaid = [n for n in names if not re.search(rf"`(?:self\.)?{n}\b", said)]
    assert unsaid == ["attribute_dtype"]  # made of `attributes`


def test_sections_of_docstrings_become_markdown() -> None:
    text = (
        "Return ``x``.\n\nParameters\n----------\nx : int\n    A number,\n    any.\ny : int\n\n"
        "Examples\n--------\n>>> 1\n1"
    )
    assert "\n".join(reference.markdown(text)) == (
        "Return `x`.\n\n**Parameters**\n\n- `x : int`: A number, any.\n- `y : int`\n\n"
        "```pycon\n>>> 1\n1\n```"
    )
