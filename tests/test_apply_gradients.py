"""Steps on gradients that were computed elsewhere, for loops of one's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from updates import UPDATES

import pyframe as pf

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(24, 3)), RNG.normal(size=(24, 2))


def plan_for(optimizer: Any, dtype: str = "float32") -> Any:
    x, y = (pf.Placeholder(n, shape=(None, c), dtype=dtype) for n, c in (("x", 3), ("y", 2)))
    rng = np.random.default_rng(1)
    w = pf.Parameter(rng.normal(size=(3, 4)), name="w", dtype=dtype)
    b = pf.Parameter(np.zeros(4), name="b", dtype=dtype, group="bias")
    v = pf.Parameter(rng.normal(size=(4, 2)), name="v", dtype=dtype)
    cost = pf.L2Loss(y, pf.Tanh(x @ w + b) @ v)
    return pf.compile(cost, optimizer)


def values(plan: Any) -> Any:
    return np.concatenate([p.value.ravel() for p in plan.parameters])


class InPython(pf.optimizers.Optimizer):
    """Momentum in NumPy."""

    slots = {"velocity": "like"}

    def update(self, parameters, gradients, slots, *, step, learning_rate):  # type: ignore[no-untyped-def]
        slots["velocity"] *= 0.5
        slots["velocity"] += gradients
        parameters -= learning_rate * slots["velocity"] / (1 + step)


MAKERS: dict[str, Any] = {
    # Some take gradients elsewhere.
    **{
        name: update.optimizer
        for name, update in UPDATES.items()
        if not update.make.proposes and update.make is not pf.optimizers.SAM
    },
    "clipped": lambda: pf.optimizers.Adam(0.1, clip_norm=0.01, clip_value=0.005),
    "groups": lambda: pf.optimizers.Adam(0.1, groups={"bias": {"learning_rate_factor": 3.0}}),
    "scheduled": lambda: pf.optimizers.SGD(pf.schedules.Exponential(0.1, 0.5)),
    "in python": lambda: InPython(0.1),
}


@pytest.mark.parametrize("case", MAKERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_step_on_a_plans_own_gradients_is_its_step(case: str, dtype: str) -> None:
    one, other = plan_for(MAKERS[case](), dtype), plan_for(MAKERS[case](), dtype)
    for _ in range(4):
        one.step({"x": X, "y": Y})
        _, gradients = other.loss_and_gradients({"x": X, "y": Y})
        other.apply_gradients(gradients)
        np.testing.assert_array_equal(values(one), values(other))
    assert one.step_count == other.step_count == 4


def test_given_gradients_are_taken_from_nowhere_else() -> None:
    one, other = plan_for(pf.optimizers.SAM(0.1)), plan_for(pf.optimizers.SGD(0.1, momentum=0.9))
    for plan in (one, other):
        for step in range(3):
            plan.apply_gradients({p: np.full(p.shape, step + 1.0) for p in plan.parameters})
    np.testing.assert_array_equal(values(one), values(other))


def test_gradients_of_parts_add_up_to_that_of_the_whole() -> None:
    one, other = (plan_for(pf.optimizers.Adam(0.1), "float64") for _ in range(2))
    for _ in range(5):
        one.step({"x": X, "y": Y})
        total: dict[Any, Any] = {}
        for part in np.split(np.arange(24), 4):
            _, gradients = other.loss_and_gradients({"x": X[part], "y": Y[part]})
            total = {p: total.get(p, 0) + g / 4 for p, g in gradients.items()}
        other.apply_gradients(total)
    np.testing.assert_allclose(values(other), values(one), rtol=1e-10)


def test_names_rates_lists_and_other_dtypes_are_taken() -> None:
    plan = plan_for(pf.optimizers.SGD(0.5))
    before = values(plan)
    ones = {"w": np.ones((3, 4)).tolist(), "b": np.ones(4), "v": np.ones((4, 2), np.float32)}
    plan.apply_gradients(ones, learning_rate=0.25)
    np.testing.assert_allclose(values(plan), before - 0.25, rtol=1e-6)
    steps = plan.step({"x": X, "y": Y})
    assert np.isfinite(steps) and plan.step_count == 2


def test_states_stay_as_they_are() -> None:
    model = pf.Sequential([pf.layers.BatchNorm(), pf.layers.Dense(1)], input_shape=(3,))
    trainer = pf.Trainer(model)
    trainer.fit(X, Y[:, :1], 2, verbose=0)
    plan = trainer.plan
    before = [state.value.copy() for state in plan.states]
    plan.apply_gradients({p: np.ones(p.shape) for p in plan.parameters if p.trainable})
    assert before
    for state, was in zip(plan.states, before, strict=True):
        np.testing.assert_array_equal(state.value, was)


def ones(plan: Any) -> dict[Any, Any]:
    return {p: np.ones(p.shape) for p in plan.parameters}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda g, plan: g.popitem(), pf.ArgumentError, "'v' is missing"),
        (lambda g, plan: g.update(u=1.0), pf.ArgumentError, "'u' is one too many"),
        (
            lambda g, plan: g.update({plan.parameters[0]: np.ones((4, 3))}),
            pf.ShapeError,
            r"gradient of w.*\(3, 4\)",
        ),
        (
            lambda g, plan: g.update({plan.parameters[0]: np.full((3, 4), "x")}),
            pf.DTypeError,
            "gradient of w",
        ),
    ],
)
def test_gradients_that_do_not_fit_change_nothing(change: Any, error: Any, message: str) -> None:
    plan = plan_for(pf.optimizers.SGD(0.1))
    before, gradients = values(plan), ones(plan)
    change(gradients, plan)
    with pytest.raises(error, match=message):
        plan.apply_gradients(gradients)
    np.testing.assert_array_equal(values(plan), before)
    assert plan.step_count == 0


def test_what_takes_no_gradients_says_so() -> None:
    plan = plan_for(pf.optimizers.RandomSearch())
    with pytest.raises(pf.ArgumentError, match="takes no gradients"):
        plan.apply_gradients({})
    plan = pf.compile(pf.Sum(pf.Parameter(1.0, name="p")))
    with pytest.raises(pf.GraphError, match="no optimizer"):
        plan.apply_gradients({})
    with pytest.raises(pf.ArgumentError, match="a list"):
        plan_for(pf.optimizers.SGD(0.1)).apply_gradients([1.0])


def test_what_is_no_number_is_refused_or_skipped() -> None:
    plan = plan_for(pf.optimizers.SGD(0.1, nonfinite="raise"))
    gradients = ones(plan)
    gradients[plan.parameters[1]] = np.full(4, np.nan)
    before = values(plan)
    with pytest.raises(pf.AnomalyError, match="'b' holds NaN"):
        plan.apply_gradients(gradients)
    skipping = plan_for(pf.optimizers.SGD(0.1, nonfinite="skip"))
    skipping.apply_gradients({p.name: g for p, g in gradients.items()})
    assert skipping.skipped_steps == skipping.step_count == 1
    np.testing.assert_array_equal(values(plan), before)
    np.testing.assert_array_equal(values(skipping), before)


def test_while_another_trains_it_is_refused() -> None:
    plan = plan_for(pf.optimizers.SGD(0.1))
    with plan.loop({"x": X, "y": Y}, epochs=2), pytest.raises(pf.BusyError):
        plan.apply_gradients(ones(plan))
