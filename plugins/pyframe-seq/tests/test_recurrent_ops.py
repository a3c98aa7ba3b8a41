"""The kernels of the recurrent ops, by the conformance kit, and what it cannot know."""

from __future__ import annotations

import numpy as np
import pyframe_seq as seq
import pytest

import pyframe as pf
from pyframe.errors import ArgumentError, LabelError, ShapeError
from pyframe.testing import op_checks

OPS = [seq.Rnn, seq.RnnGrad, seq.Gru, seq.GruGrad, seq.Lstm, seq.LstmGrad]
CHECKS = [(op, name) for op in OPS for name in op_checks(op)]


@pytest.mark.parametrize(("op", "check"), CHECKS, ids=lambda v: getattr(v, "__name__", v))
def test_conformance(op, check):
    op_checks(op, shapes=60)[check]()


@pytest.mark.parametrize(("lengths", "wrong"), [([2, 5, 3], "5 of sequence 1"), ([0, 1, -1], "-1")])
def test_a_length_that_cannot_be(lengths, wrong):
    x = pf.Placeholder("x", shape=(None, 4, 2))
    steps = pf.Placeholder("steps", shape=(None,), dtype="int64")
    plan = pf.compile(seq.Rnn(x, np.ones((2, 3)), np.ones((3, 3)), steps=steps)[0])
    with pytest.raises(LabelError, match=rf"length {wrong}.*\[0, 4\]"):
        plan.run({x: np.ones((3, 4, 2)), steps: lengths})


def test_a_mask_of_other_numbers():
    x = pf.Placeholder("x", shape=(None, 4, 2))
    steps = pf.Placeholder("steps", shape=(None, 4), dtype="int64")
    plan = pf.compile(seq.Rnn(x, np.ones((2, 3)), np.ones((3, 3)), steps=steps)[0])
    with pytest.raises(LabelError, match="mask 2 of sequence 1"):
        plan.run({x: np.ones((2, 4, 2)), steps: [[1, 1, 0, 0], [1, 2, 0, 0]]})


def test_attributes_that_do_not_fit():
    x = np.zeros((2, 3, 4))
    with pytest.raises(ShapeError, match="reset_after"):
        seq.Gru(x, np.ones((4, 6)), np.ones((2, 6)), None, np.ones(2), reset_after=False)
    with pytest.raises(ShapeError, match="4 gates"):
        seq.Lstm(x, np.ones((4, 6)), np.ones((2, 6)))
    with pytest.raises(ArgumentError, match="activation"):
        seq.Rnn(x, np.ones((4, 2)), np.ones((2, 2)), activation="gelu")
