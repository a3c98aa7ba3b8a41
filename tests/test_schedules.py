"""Schedules against their formulas."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

import pyframe as pf
from pyframe.errors import ArgumentError, UnknownNameError
from pyframe.plugins.registry import registries
from pyframe.schedules import (
    BUILT_IN,
    Constant,
    Cosine,
    CosineRestarts,
    Cyclic,
    Exponential,
    MultiStep,
    OneCycle,
    Polynomial,
    Step,
    Warmup,
)

pytestmark = pytest.mark.once  # it says nothing of a kernel

STEPS = np.arange(1000)


def cosine(step, peak, total, warmup, final):
    if step < warmup:
        return peak * (step + 1) / warmup
    if step > total:
        return final
    done = (step - warmup) / (total - warmup)
    return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * done))


def restarts(step, peak, period, growth, factor, final):
    while step >= period:
        step, period, peak = step - period, period * growth, peak * factor
    return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * step / period))


def one_cycle(step, peak, total, rise, start, end):
    first, top = peak / start, max(rise * total - 1, 0)
    if step < top:
        return first + (peak - first) * 0.5 * (1 - math.cos(math.pi * step / top))
    done = min((step - top) / (total - 1 - top), 1)
    return peak + (first / end - peak) * 0.5 * (1 - math.cos(math.pi * done))


def cyclic(step, low, high, half, factor):
    while step >= 2 * half:
        step, high = step - 2 * half, low + (high - low) * factor
    return low + (high - low) * (step / half if step <= half else 2 - step / half)


FORMULAS = [
    (Constant(0.25), lambda s: 0.25),
    (Step(0.5, 7, 0.3), lambda s: 0.5 * 0.3 ** (s // 7)),
    (Step(0.5, 1000), lambda s: 0.5),
    (Exponential(0.1, 0.99), lambda s: 0.1 * 0.99**s),
    (Exponential(0.1, 0.5, every=100), lambda s: 0.1 * 0.5 ** (s / 100)),
    (Cosine(0.1, 800), lambda s: cosine(s, 0.1, 800, 0, 0.0)),
    (Cosine(0.1, 800, 50, 0.01), lambda s: cosine(s, 0.1, 800, 50, 0.01)),
    (Cosine(0.1, 5, 4), lambda s: cosine(s, 0.1, 5, 4, 0.0)),
    (MultiStep(0.5, [3, 4, 500], 0.5), lambda s: 0.5 * 0.5 ** sum(s >= m for m in (3, 4, 500))),
    (MultiStep(0.5, []), lambda s: 0.5),
    (Polynomial(0.5, 300), lambda s: 0.5 * max(1 - s / 300, 0)),
    (
        Polynomial(0.5, 300, 2.5, 0.1),
        lambda s: 0.1 + 0.4 * max(1 - s / 300, 0) ** 2.5,
    ),
    (CosineRestarts(0.1, 30), lambda s: restarts(s, 0.1, 30, 1, 1.0, 0.0)),
    (CosineRestarts(0.1, 1, 3, 0.5, 0.01), lambda s: restarts(s, 0.1, 1, 3, 0.5, 0.01)),
    (CosineRestarts(0.1, 7, 2), lambda s: restarts(s, 0.1, 7, 2, 1.0, 0.0)),
    (OneCycle(0.1, 900), lambda s: one_cycle(s, 0.1, 900, 0.3, 25, 1e4)),
    (OneCycle(0.1, 901, 0.77, 3, 10), lambda s: one_cycle(s, 0.1, 901, 0.77, 3, 10)),
    (OneCycle(0.1, 2, 0.0), lambda s: one_cycle(s, 0.1, 2, 0.0, 25, 1e4)),
    (Cyclic(0.1, 0.5, 13), lambda s: cyclic(s, 0.1, 0.5, 13, 1.0)),
    (Cyclic(0.0, 0.5, 1, 0.9), lambda s: cyclic(s, 0.0, 0.5, 1, 0.9)),
    (Warmup(0.5, 10), lambda s: 0.5 * min((s + 1) / 10, 1)),
    (
        Warmup(Step(0.5, 7, 0.3), 9, 0.1),
        lambda s: 0.1 + 0.4 * (s + 1) / 9 if s < 9 else 0.5 * 0.3 ** ((s - 9) // 7),
    ),
    (
        Warmup(Warmup(Polynomial(0.4, 50), 3), 2),
        lambda s: (
            0.4 / 3 * (s + 1) / 2
            if s < 2
            else 0.4 * (s - 1) / 3
            if s < 5
            else 0.4 * max(1 - (s - 5) / 50, 0)
        ),
    ),
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


def test_every_built_in_has_a_formula():
    assert {type(schedule) for schedule, _ in FORMULAS} == set(BUILT_IN)


@pytest.mark.parametrize(
    ("schedule", "last"),
    [
        (Cosine(0.1, 50, 5, 0.01), 0.01),
        (Polynomial(0.1, 50, 2, 0.01), 0.01),
        (OneCycle(0.1, 50, start_divisor=10, final_divisor=5), 0.002),
        (MultiStep(0.1, [3, 50], 0.5), 0.025),
        (Warmup(Polynomial(0.1, 40, 2, 0.01), 10), 0.01),
    ],
    ids=repr,
)
def test_past_its_end_a_schedule_stays_where_it_is(schedule, last):
    far = schedule(np.array([50, 51, 10**6, 2**53]))
    np.testing.assert_allclose(far, last, rtol=1e-12)


@pytest.mark.parametrize("schedule", [s for s, _ in FORMULAS], ids=repr)
def test_no_rate_is_ever_below_zero_or_no_number(schedule):
    rates = schedule(np.concatenate([STEPS, 10 ** np.arange(3, 16)]))
    assert np.isfinite(rates).all() and (rates >= 0).all()


def test_a_warm_up_before_a_cosine_is_that_of_the_cosine():
    steps = np.arange(60)
    np.testing.assert_allclose(
        Warmup(Cosine(0.3, 40), 10)(steps), Cosine(0.3, 50, 10)(steps), rtol=1e-14, atol=1e-16
    )


def test_schedules_are_those_of_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    lr = torch.optim.lr_scheduler
    rate, count = 0.4, 60
    for ours, theirs in [
        (Step(rate, 7, 0.3), lambda o: lr.StepLR(o, 7, 0.3)),
        (MultiStep(rate, [3, 10, 11], 0.5), lambda o: lr.MultiStepLR(o, [3, 10, 11], 0.5)),
        (Exponential(rate, 0.9), lambda o: lr.ExponentialLR(o, 0.9)),
        (Polynomial(rate, 40, 2.0), lambda o: lr.PolynomialLR(o, 40, 2.0)),
        (
            CosineRestarts(rate, 5, 2, final=0.1),
            lambda o: lr.CosineAnnealingWarmRestarts(o, 5, 2, 0.1),
        ),
        (OneCycle(rate, count, 0.4), lambda o: lr.OneCycleLR(o, rate, count, pct_start=0.4)),
        (
            Cyclic(0.1, rate, 8, 0.5),
            lambda o: lr.CyclicLR(o, 0.1, rate, 8, mode="triangular2", cycle_momentum=False),
        ),
    ]:
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=rate, momentum=0.9)
        scheduler, seen = theirs(optimizer), []
        for i in range(count):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if i + 1 < count:
                scheduler.step()
        np.testing.assert_allclose(ours(np.arange(count)), seen, rtol=1e-10, err_msg=repr(ours))


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
    "milestones down": lambda: MultiStep(0.1, [5, 3]),
    "milestones twice": lambda: MultiStep(0.1, [3, 3]),
    "milestones a number": lambda: MultiStep(0.1, 3),
    "milestones text": lambda: MultiStep(0.1, "35"),
    "power 0": lambda: Polynomial(0.1, 10, 0),
    "power NaN": lambda: Polynomial(0.1, 10, math.nan),
    "period 0": lambda: CosineRestarts(0.1, 0),
    "growth 0": lambda: CosineRestarts(0.1, 3, 0),
    "cycle of one step": lambda: OneCycle(0.1, 1),
    "all rise": lambda: OneCycle(0.1, 10, 1.0),
    "divisor below 1": lambda: OneCycle(0.1, 10, start_divisor=0.5),
    "high below low": lambda: Cyclic(0.2, 0.1, 3),
    "no warm-up": lambda: Warmup(0.1, 0),
    "warm-up of a function": lambda: Warmup(lambda steps: steps, 3),
    "warm-up of NaN": lambda: Warmup(math.nan, 3),
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


def test_the_page_and_its_picture_show_every_schedule() -> None:
    """The picture is made by examples/schedules.py."""
    docs = Path(__file__).resolve().parents[1] / "docs"
    page = (docs / "schedules.md").read_text(encoding="utf-8")
    picture = (docs / "schedules.svg").read_text(encoding="utf-8")
    for name in registries["schedules"].built_ins():
        written = registries["schedules"].get(name).__name__
        assert f"| `{written}` |" in page
        assert f">{written}(" in picture
