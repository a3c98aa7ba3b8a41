"""The page that compares with others says of pyframe what is true."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

import pyframe
from pyframe.plugins import catalogue

pytestmark = [pytest.mark.docs, pytest.mark.once]

PAGE = Path(__file__).resolve().parents[1] / "docs" / "features.md"
ROWS = [
    [cell.strip() for cell in line.strip("|\n").split("|")]
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if line.count("|") == 8 and "---" not in line
]
NAMES = [name for row in ROWS for name in re.findall(r"`([\w.-]+)`", row[1])]


def found(name: str) -> Any:
    """Return what a dotted name stands for."""
    first, *rest = name.split(".")
    thing: Any = pyframe if first == "pf" else importlib.import_module(first)
    for part in rest:
        if not hasattr(thing, part):
            thing = importlib.import_module(f"{thing.__name__}.{part}")
        else:
            thing = getattr(thing, part)
    return thing


def test_there_are_rows_and_an_honest_no() -> None:
    assert len(ROWS) > 70 and len(NAMES) > 90
    assert sum(row[1] == "no" for row in ROWS) > 4


@pytest.mark.parametrize("name", [n for n in NAMES if not n.startswith("pyframe-")])
def test_what_it_names_is_there(name: str) -> None:
    if "estimators" in name:
        pytest.importorskip("sklearn")
    assert found(name) is not None


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("pyframe-")])
def test_the_packages_are_known(name: str) -> None:
    assert name in {plugin.name for plugin in catalogue.known()}


def test_a_no_is_a_no() -> None:
    """What is said to be missing is not found under the names that one would guess."""
    from pyframe.plugins.registry import registries

    missing = {"lstm", "gru", "multi_head_attention", "separable_conv2d", "adafactor"}
    everything = {name for registry in registries.values() for name in registry.built_ins()}
    assert not missing & everything
