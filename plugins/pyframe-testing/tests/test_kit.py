"""The kit as it is installed: for the core of its version, and at work."""

from __future__ import annotations

from importlib.metadata import version

import pytest

import pyframe as pf
from pyframe.testing import ConformanceError, check_forward, check_op


def test_it_is_of_the_version_of_the_core() -> None:
    assert version("pyframe-testing") == version("pyframe-nn")


def test_it_passes_what_is_right() -> None:
    check_op(pf.ops.get("relu"))


def test_it_finds_what_is_wrong() -> None:
    class Doubled(pf.ops.get("square")):  # type: ignore[misc]
        @staticmethod
        def reference(x):  # type: ignore[no-untyped-def]
            return 2 * x * x

    with pytest.raises(ConformanceError, match="Doubled"):
        check_forward(Doubled, "float32")
