"""What the tests share."""

from __future__ import annotations

import pyframe as pf
import pytest
from pyframe import _native

import pyframe_cnn

_native.open_library(pyframe_cnn.library())


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    pf.set_seed(0)
