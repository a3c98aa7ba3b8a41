"""Hidden rows and carried states: the conformance kit."""

from __future__ import annotations

from typing import Any

import pytest
from pyframe_seq import rows

from pyframe.testing import op_checks

CHECKS = [(op, name) for op in rows.OPS for name in op_checks(op)]


@pytest.mark.parametrize(("op", "check"), CHECKS, ids=lambda v: getattr(v, "__name__", v))
def test_conformance(op: Any, check: str) -> None:
    op_checks(op, shapes=60)[check]()
