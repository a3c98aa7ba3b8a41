"""L-BFGS: its direction against the full matrix, its line search, and whole trainings."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.optimizers import LBFGS, SGD
from pyframe.optimizers.lbfgs import CURVATURE, DECREASE, Point, strong_wolfe

RNG = np.random.default_rng(0)


def rosenbrock(optimizer: Any, dtype: str = "float64", start: Any = (-1.2, 1.0)) -> Any:
    x, y = (pf.Parameter(v, name=n, dtype=dtype) for n, v in zip("xy", start, strict=True))
    return pf.compile(pf.Square(1 - x) + 100 * pf.Square(y - x * x), optimizer)


def quadratic(optimizer: Any, size: int = 6) -> tuple[Any, Any, Any]:
    """Return a plan of p.A.p / 2 - b.p, its parameter and where its minimum is."""
    rng = np.random.default_rng(2)
    half = rng.normal(size=(size, size))
    matrix, b = half @ half.T + np.eye(size), rng.normal(size=(size, 1))
    p = pf.Parameter(rng.normal(size=(size, 1)), name="p", dtype="float64")
    cost = pf.Sum(0.5 * p * (matrix @ p) - b * p)
    return pf.compile(cost, optimizer), p, np.linalg.solve(matrix, b)


def test_the_minimum_of_rosenbrocks_valley_is_found() -> None:
    plan = rosenbrock(LBFGS())
    losses = [plan.step({}) for _ in range(45)]
    assert losses[-1] < 1e-20 and plan.step_count == 45
    assert all(after <= before for before, after in zip(losses, losses[1:], strict=False))
    np.testing.assert_allclose([p.value for p in plan.parameters], 1.0, rtol=1e-9)


def test_a_quadratic_is_solved_in_a_few_more_steps_than_it_has_elements() -> None:
    plan, p, minimum = quadratic(LBFGS(history=20))
    for _ in range(20):
        plan.step({})
    np.testing.assert_allclose(p.value, minimum, rtol=1e-6)


def test_the_direction_is_that_of_the_matrix_of_bfgs() -> None:
    """Nocedal, Wright, 2006, equation 6.17 from the scale of 7.20, on the same pairs."""
    history = 4
    optimizer = LBFGS(history=history)
    rng = np.random.default_rng(3)
    half = rng.normal(size=(7, 7))
    curvature = half @ half.T + np.eye(7)
    for stored in (1, 3, 4, 9):
        table = {name: np.zeros(7) for name, kind in optimizer.slots.items() if kind == "like"}
        pairs = []
        for i in range(stored):
            s = rng.normal(size=7)
            pairs.append((s, curvature @ s))
            table[f"step_{i % history}"][:] = s
            table[f"change_{i % history}"][:] = curvature @ s
        pairs = pairs[-history:]
        s, y = pairs[-1]
        inverse = np.dot(s, y) / np.dot(y, y) * np.eye(7)
        for s, y in pairs:
            rho = 1 / np.dot(s, y)
            left = np.eye(7) - rho * np.outer(s, y)
            inverse = left @ inverse @ left.T + rho * np.outer(s, s)
        g = rng.normal(size=7)
        ours = optimizer._times_inverse(g, [table], stored)
        np.testing.assert_allclose(ours, inverse @ g, rtol=1e-10)


LINES: dict[str, Any] = {
    # a function, and its slope
    "parabola": (lambda t: (t - 3) ** 2, lambda t: 2 * (t - 3)),
    "far": (lambda t: (t / 100 - 3) ** 2, lambda t: (t / 100 - 3) / 50),
    "steep": (lambda t: math.exp(9 * t) - 30 * t, lambda t: 9 * math.exp(9 * t) - 30),
    "waves": (lambda t: math.cos(5 * t) - 0.1 * t, lambda t: -5 * math.sin(5 * t) - 0.1),
    "quartic": (lambda t: t**4 - t, lambda t: 4 * t**3 - 1),
    "pole": (
        lambda t: -math.sqrt(t) + 5 * t if t < 1 else math.inf,
        lambda t: -0.5 / math.sqrt(max(t, 1e-3)) + 5 if t < 1 else math.nan,
    ),
}


@pytest.mark.parametrize("first", [1e-3, 0.1, 1.0, 30.0])
@pytest.mark.parametrize("case", LINES)
def test_the_line_search_satisfies_the_strong_wolfe_conditions(case: str, first: float) -> None:
    f, slope = LINES[case]
    tried = []

    def at(t: float) -> Point:
        tried.append(t)
        return Point(t, f(t), slope(t), np.zeros(0))

    begin = at(0.0)
    end = strong_wolfe(at, begin, first, 40)
    assert end.loss == f(end.length) and len(tried) <= 41
    assert end.loss <= begin.loss + DECREASE * end.length * begin.slope
    assert abs(end.slope) <= CURVATURE * abs(begin.slope)


def test_without_a_better_point_it_stays() -> None:
    def at(t: float) -> Point:
        return Point(t, 1.0 + t, -1.0, np.zeros(0))  # a slope that is a lie

    begin = Point(0.0, 1.0, -1.0, np.zeros(0))
    assert strong_wolfe(at, begin, 1.0, 10) is begin
    assert strong_wolfe(at, begin, 1.0, 1) is begin


def test_a_step_leaves_loss_and_gradients_of_its_beginning() -> None:
    plan, p, _ = quadratic(LBFGS())
    for _ in range(4):
        loss, gradients = plan.loss_and_gradients({})
        assert plan.step({}) == loss
        np.testing.assert_array_equal(plan.gradient(p), gradients[p])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_fit_of_a_network(dtype: str) -> None:
    x = RNG.normal(size=(60, 3))
    y = np.sin(x).sum(axis=1)
    results = []
    for optimizer in (LBFGS(), SGD(0.1, momentum=0.9)):
        layers = [pf.layers.Dense(16, "tanh"), pf.layers.Dense(1)]
        model = pf.Sequential(layers, input_shape=(3,), dtype=dtype)
        trainer = pf.Trainer(model, optimizer=optimizer, metrics=["mae"])
        results.append(trainer.fit(x, y, 60, None, verbose=0)["loss"])
    assert results[0][-1] < 0.2 * results[1][-1]


def test_parameters_of_two_groups_move_together() -> None:
    rng = np.random.default_rng(1)
    start = rng.normal(size=7)
    ends = []
    for groups in (("default", "default"), ("default", "other")):
        p = pf.Parameter(start[:4], name="p", dtype="float64", group=groups[0])
        q = pf.Parameter(start[4:], name="q", dtype="float64", group=groups[1])
        cost = pf.Sum(pf.Square(pf.Square(p) - 2.0)) + pf.Sum(pf.Square(q - 1.0)) * pf.Sum(p * p)
        plan = pf.compile(cost, LBFGS())
        for _ in range(12):
            plan.step({})
        ends.append(np.concatenate([p.value, q.value]))
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-9)
    np.testing.assert_allclose(np.abs(ends[0]), [*[2**0.5] * 4, *[1.0] * 3], rtol=1e-4)


class Interrupting(pf.Node):
    """Passes its input on, and raises at the n-th time."""

    count, at = 0, 10**9

    def __init__(self, x: Any) -> None:
        super().__init__(x)

    def infer(self, x: Any) -> Any:
        return [x]

    def forward(self, ctx: Any, x: Any) -> Any:
        type(self).count += 1
        if self.count == self.at:
            raise KeyboardInterrupt
        return x.copy()

    def backward(self, ctx: Any, dy: Any) -> Any:
        return dy


@pytest.mark.parametrize("at", [2, 3, 5])
def test_an_exception_in_an_evaluation_leaves_everything_as_it_was(at: int) -> None:
    x = pf.Parameter(np.array([-1.2, 1.0]), name="x", dtype="float64")
    plan = pf.compile(pf.Sum(pf.Square(pf.Square(Interrupting(x)) - 2.0)), LBFGS())
    Interrupting.count, Interrupting.at = 0, 10**9
    plan.step({})
    kept, arrays = x.value.copy(), [a.copy() for a in plan.snapshot().arrays]
    Interrupting.count, Interrupting.at = 0, at
    interrupted = False
    for _ in range(5):
        try:
            before, arrays = x.value.copy(), [a.copy() for a in plan.snapshot().arrays]
            plan.step({})
        except KeyboardInterrupt:
            interrupted = True
            np.testing.assert_array_equal(x.value, before)
            for was, now in zip(arrays, plan.snapshot().arrays, strict=True):
                np.testing.assert_array_equal(was, now)
            break
    assert interrupted and kept.shape == (2,)
    Interrupting.at = 10**9
    for _ in range(20):
        plan.step({})
    np.testing.assert_allclose(x.value**2, 2.0, rtol=1e-6)


def test_what_is_no_number_ends_a_step_before_it_moves_anything() -> None:
    scale = pf.Placeholder("scale", shape=(), dtype="float64")
    p = pf.Parameter(np.ones(3), name="p", dtype="float64")
    plan = pf.compile(pf.Sum(p * p) * scale, LBFGS())
    plan.step({scale: 1.0})
    before, steps = p.value.copy(), plan.step_count
    for wrong in (np.nan, np.inf):
        with pytest.raises(pf.AnomalyError, match="nothing to go by"):
            plan.step({scale: wrong})
    np.testing.assert_array_equal(p.value, before)
    assert plan.step_count == steps
    assert np.isfinite(plan.step({scale: 1.0}))


def test_it_takes_no_gradients_of_others() -> None:
    plan, p, _ = quadratic(LBFGS())
    with pytest.raises(pf.ArgumentError, match="evaluates the loss"):
        plan.apply_gradients({p: np.ones(p.shape)})


@pytest.mark.parametrize("options", [{"history": 0}, {"history": 1.5}, {"max_evaluations": 0}])
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(pf.ArgumentError, match=next(iter(options))):
        LBFGS(**options)
