"""Schedules against their formulas."""

import json
import math

import numpy as np
import pytest

import pyframe as pf
from pyframe.errors import ArgumentError, UnknownNameError
from pyframe.schedules import Constant, Cosine, Exponential, Step

STEPS = np.arange(1000)


def cosine(step, peak, total, warmup, final):
    if step < warmup:
        return peak * (step + 1) / warmup
    if step > total:
        return final
    done = (step - warmup) / (total - warmup)
    return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * done))


FORMULAS = [
    (Constant(0.25), lambda s: 0.25),
    (Step(0.5, 7, 0.3), lambda s: 0.5 * 0.3 ** (s // 7)),
    (Step(0.5, 1000), lambda s: 0.5),
    (Exponential(0.1, 0.99), lambda s: 0.1 * 0.99**s),
    (Exponential(0.1, 0.5, every=100), lambda s: 0.1 * 0.5 ** (s / 100)),
    (Cosine(0.1, 800), lambda s: cosine(s, 0.1, 800, 0, 0.0)),
    (Cosine(0.1, 800, 50, 0.01), lambda s: cosine(s, 0.1, 800, 50, 0.01)),
    (Cosine(0.1, 5, 4), lambda s: cosine(s, 0.1, 5, 4, 0.0)),
]


@pytest.mark.parametrize(("schedule", "formula"), FORMULAS, ids=[repr(s) for s, _ in FORMULAS])
def test_formula(schedule, formula):
    rates = schedule(STEPS)
    assert rates.dtype == np.float64 and rates.shape == STEPS.shape
    np.testing.assert_allclose(rates, [formula(int(s)) for s in STEPS], rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("schedule", [s for s, _ in FORMULAS], ids=repr)
def test_any_shape_of_steps(schedule):
    assert schedule(np.zeros((0,), np.int64)).shape == (0,)
    table = schedule(np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(table.ravel(), schedule(np.arange(6)))
    assert schedule(3) == schedule(np.array([3]))[0]


@pytest.mark.parametrize("schedule", [s for s, _ in FORMULAS], ids=repr)
def test_config_round_trip(schedule):
    again = pf.schedules.from_config(json.loads(json.dumps(schedule.config())))
    assert again == schedule and hash(again) == hash(schedule) and repr(again) == repr(schedule)
    assert schedule != Constant(0.123)


def test_the_table_may_be_written_to():
    rates = Constant(0.5)(STEPS)
    rates[0] = 1.0
    assert rates[1] == 0.5


BAD = {
    "rate NaN": lambda: Constant(math.nan),
    "rate negative": lambda: Step(-0.1, 2, 0.5),
    "rate text": lambda: Constant("much"),
    "every 0": lambda: Step(0.1, 0, 0.5),
    "every a fraction": lambda: Exponential(0.1, 0.5, every=1.5),
    "factor 0": lambda: Step(0.1, 2, 0),
    "decay negative": lambda: Exponential(0.1, -0.5),
    "no steps": lambda: Cosine(0.1, 0),
    "all warm-up": lambda: Cosine(0.1, 10, 10),
    "warm-up negative": lambda: Cosine(0.1, 10, -1),
    "final negative": lambda: Cosine(0.1, 10, final=-1),
    "get NaN": lambda: pf.schedules.get(math.nan),
    "get None": lambda: pf.schedules.get(None),
    "get without arguments": lambda: pf.schedules.get("cosine"),
}


@pytest.mark.parametrize("case", BAD)
def test_values_that_make_no_sense_are_refused(case):
    with pytest.raises(ArgumentError):
        BAD[case]()


def test_get():
    assert pf.schedules.get(0.5) == Constant(0.5)
    schedule = Exponential(0.1, 0.5)
    assert pf.schedules.get(schedule) is schedule
    assert pf.schedules.get(schedule.config()) == schedule
    with pytest.raises(UnknownNameError, match="cosine"):
        pf.schedules.get("cosin")


def test_training_follows_a_schedule():
    x = pf.Placeholder("x", shape=(None, 1), dtype="float64")
    w = pf.Parameter(np.zeros((1, 1)), name="w", dtype="float64")
    schedule = Step(0.125, 2, 0.5)
    plan = pf.compile(pf.Sum(x @ w), pf.optimizers.SGD(schedule))
    seen = []
    for _ in range(6):
        before = w.value.item()
        plan.step({x: np.ones((1, 1))})
        seen.append(before - w.value.item())
    assert seen == [0.125, 0.125, 0.0625, 0.0625, 0.03125, 0.03125]
