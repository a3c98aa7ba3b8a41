"""Hidden rows and carried states: the conformance kit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pyframe_seq import rows

import pyframe as pf
from pyframe.testing import op_checks

CHECKS = [(op, name) for op in rows.OPS for name in op_checks(op)]


@pytest.mark.parametrize(("op", "check"), CHECKS, ids=lambda v: getattr(v, "__name__", v))
def test_conformance(op: Any, check: str) -> None:
    op_checks(op, shapes=60)[check]()


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([[1, 0, 1], [1, 1, 2]], "mask 2 of sequence 1, step 2, of this batch is neither 1"),
        ([[1, -7, 1], [1, 1, 1]], "mask -7 of sequence 0, step 1, of this batch is neither 1"),
        ([0, 4], r"length 4 of sequence 1 of this batch lies outside of \[0, 3\]"),
        ([-1, 3], r"length -1 of sequence 0 of this batch lies outside of \[0, 3\]"),
    ],
)
def test_steps_that_cannot_be_are_named(steps: Any, words: str) -> None:
    x = pf.Placeholder("x", shape=(2, 3, 4))
    given = pf.Placeholder("steps", shape=np.shape(steps), dtype="int64")
    with pytest.raises(pf.LabelError, match=words):
        pf.compile(rows.MaskRows(x, given)).run({x: np.ones((2, 3, 4)), given: steps})


@pytest.mark.parametrize("shape", [(2, 4), (3,), (3, 3), (2, 3, 1), ()])
def test_steps_of_another_extent_are_refused(shape: Any) -> None:
    x = pf.Placeholder("x", shape=(2, 3, 4))
    with pytest.raises(pf.ShapeError, match=r"steps must be \(2,\), lengths, or a mask \(2, 3\)"):
        rows.MaskRows(x, pf.Placeholder("steps", shape=shape, dtype="int64"))
