"""The kit as it is installed: for the core of its version, and at work."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

import pyframe as pf
from pyframe import testing


def test_it_is_of_the_version_of_the_core() -> None:
    assert version("pyframe-testing") == pf.__version__


def test_it_lies_beside_the_core() -> None:
    assert Path(testing.__file__).parent == Path(pf.__file__).parent / "testing"


def test_it_passes_what_is_right() -> None:
    testing.check_op(pf.ops.get("relu"))


def test_it_finds_what_is_wrong() -> None:
    class Doubled(pf.ops.get("square")):  # type: ignore[misc]
        def reference(self, x):  # type: ignore[no-untyped-def]
            return 2 * x * x

    with pytest.raises(testing.ConformanceError, match="square"):
        testing.check_forward(Doubled, "float32")
