"""Gradients that are taken elsewhere or changed before the update: sharpness, and noise."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.native.threads import num_threads
from pyframe.optimizers import SAM, SGD, Adam, ScheduleFreeAdamW

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 5)), RNG.normal(size=(40, 2))
FEED = {"x": X, "y": Y}


def plan_for(optimizer: Any, dtype: str = "float64") -> Any:
    """Return a plan of a small network with a state, a parameter in a group, and one frozen."""
    x, y = (pf.Placeholder(n, shape=(None, c), dtype=dtype) for n, c in (("x", 5), ("y", 2)))
    rng = np.random.default_rng(1)
    w = pf.Parameter(rng.normal(size=(5, 4)), name="w", dtype=dtype)
    b = pf.Parameter(rng.normal(size=4), name="b", dtype=dtype, group="other")
    v = pf.Parameter(rng.normal(size=(4, 2)), name="v", dtype=dtype)
    still = pf.Parameter(rng.normal(size=2), name="still", dtype=dtype, trainable=False)
    return pf.compile(pf.L2Loss(y, pf.Tanh(x @ w + b) @ v + still), optimizer)


def values(plan: Any) -> Any:
    return np.concatenate([p.value.ravel() for p in plan.parameters])


def sharp_gradients(plan: Any, rho: float) -> tuple[float, dict[Any, Any]]:
    """Foret et al., 2021, algorithm 1, lines 4 to 6."""
    _, gradients = plan.loss_and_gradients(FEED)
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in gradients.values()))
    before = {p: p.value.copy() for p in gradients}
    for p, g in gradients.items():
        p.value = before[p] + rho * g / norm
    loss, sharp = plan.loss_and_gradients(FEED)
    for p, value in before.items():
        p.value = value
    return loss, sharp


@pytest.mark.parametrize(
    ("make", "base"),
    [
        (lambda: SAM(0.1, sharpness=0.3), lambda: SGD(0.1, momentum=0.9)),
        (lambda: Adam(0.05, sharpness=0.2), lambda: Adam(0.05)),
        (
            lambda: pf.optimizers.LAMB(0.05, sharpness=0.2, clip_norm=0.1),
            lambda: pf.optimizers.LAMB(0.05, clip_norm=0.1),
        ),
    ],
)
def test_gradients_are_taken_where_the_loss_is_higher(make: Any, base: Any) -> None:
    ours, by_hand = plan_for(make()), plan_for(base())
    rho = ours.optimizer.sharpness
    for _ in range(20):
        loss = ours.step(FEED)
        there, gradients = sharp_gradients(by_hand, rho)
        by_hand.apply_gradients(gradients)
        assert loss == pytest.approx(there, rel=1e-10)
        np.testing.assert_allclose(values(ours), values(by_hand), rtol=1e-9, atol=1e-12)


def test_an_average_is_left_from_where_it_proposes() -> None:
    plan = plan_for(ScheduleFreeAdamW(0.05, sharpness=0.2))
    plain = plan_for(ScheduleFreeAdamW(0.05))
    losses = [[each.step(FEED) for _ in range(100)] for each in (plan, plain)]
    assert losses[0][0] > losses[1][0] and losses[0][-1] < losses[0][0]


def test_epochs_in_c_and_threads_take_the_same_steps() -> None:
    found = []
    for count in (1, 3):
        with num_threads(count):
            one, other = plan_for(SAM(0.05), "float32"), plan_for(SAM(0.05), "float32")
            for _ in range(6):
                one.step(FEED)
            with other.loop(FEED, epochs=6, batch_size=None) as loop:
                while loop.run() != "done":
                    pass
            np.testing.assert_array_equal(values(one), values(other))
            found.append(values(one))
    np.testing.assert_array_equal(*found)


def test_states_are_updated_once_a_step() -> None:
    model = pf.Sequential([pf.layers.BatchNorm(), pf.layers.Dense(2)], input_shape=(5,))
    trainer = pf.Trainer(model, optimizer=SAM(0.1))
    trainer.fit(X, Y, 1, None, verbose=0)
    plain = pf.Sequential([pf.layers.BatchNorm(), pf.layers.Dense(2)], input_shape=(5,))
    pf.Trainer(plain, optimizer=SGD(0.1)).fit(X, Y, 1, None, verbose=0)
    ours, theirs = model.get_weights(), plain.get_weights()
    names = [name for name in ours if "running" in name or "mean" in name or "variance" in name]
    assert names
    for name in names:  # of the data alone, which the first layer sees
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_a_gradient_of_zero_leads_nowhere() -> None:
    p = pf.Parameter(np.zeros(3), name="p", dtype="float64")
    plan = pf.compile(pf.Sum(p * p), SAM(0.1, sharpness=1.0))
    assert plan.step({}) == 0.0 and not p.value.any()


# ---- limits of groups ----


def given(optimizer: Any) -> tuple[Any, list[Any], list[Any]]:
    """Return a plan on gradients that are fed, for parameters of three groups."""
    parameters, fed, cost = [], [], pf.Constant(0.0, dtype="float64")
    for i, group in enumerate(("a", "b", "c")):
        p = pf.Parameter(np.zeros(4), name=f"p{i}", dtype="float64", group=group)
        g = pf.Placeholder(f"g{i}", shape=(4,), dtype="float64")
        cost = cost + pf.Sum(p * g)
        parameters.append(p)
        fed.append(g)
    return pf.compile(cost, optimizer), parameters, fed


@pytest.mark.parametrize("fuse", [True, False])
def test_a_group_is_clipped_by_its_own_limits(fuse: bool) -> None:
    groups = {"b": {"clip_norm": 0.5}, "c": {"clip_norm": None, "clip_value": 0.25}}
    plan, parameters, fed = given(SGD(1.0, clip_norm=2.0, groups=groups))
    if not fuse:
        plan = pf.compile(plan.cost, plan.optimizer, fuse=False)
    gradients = [RNG.normal(size=4) + 3 for _ in fed]
    plan.step(dict(zip(fed, gradients, strict=True)))
    a, b, c = gradients
    moved = [-p.value for p in parameters]
    np.testing.assert_allclose(moved[0], 2.0 * a / np.linalg.norm(a), rtol=1e-12)
    np.testing.assert_allclose(moved[1], 0.5 * b / np.linalg.norm(b), rtol=1e-12)
    np.testing.assert_allclose(moved[2], np.clip(c, -0.25, 0.25), rtol=1e-12)


def test_groups_without_limits_share_one_norm() -> None:
    plan, parameters, fed = given(SGD(1.0, clip_norm=1.0, groups={"b": {"clip_norm": 1e9}}))
    gradients = [np.full(4, 3.0), np.full(4, 5.0), np.full(4, 4.0)]
    plan.step(dict(zip(fed, gradients, strict=True)))
    moved = [-p.value[0] for p in parameters]
    np.testing.assert_allclose(moved, [3 / 10, 5.0, 4 / 10], rtol=1e-12)


def test_gradients_of_a_group_that_are_no_numbers_are_found() -> None:
    plan, parameters, fed = given(SGD(1.0, groups={"b": {"clip_norm": 1.0}}))
    feed = dict.fromkeys(fed, np.ones(4))
    with pytest.raises(pf.AnomalyError, match="'p1' holds NaN"):
        plan.step({**feed, fed[1]: np.full(4, np.nan)})
    assert not any(p.value.any() for p in parameters)


@pytest.mark.parametrize("value", [0, -1.0, np.nan, "much"])
@pytest.mark.parametrize("name", ["clip_value", "clip_norm"])
def test_limits_of_groups_that_make_no_sense_are_refused(name: str, value: Any) -> None:
    with pytest.raises(pf.ArgumentError, match=f"group 'b': {name}"):
        SGD(1.0, groups={"b": {name: value}})


# ---- noise ----


def noisy(optimizer: Any, size: int = 20_001, **options: Any) -> tuple[Any, Any]:
    p = pf.Parameter(np.zeros(size), name="p", dtype="float64")
    q = pf.Parameter(np.zeros(3), name="q", dtype="float64")
    plan = pf.compile(0.0 * (pf.Sum(p) + pf.Sum(q)), optimizer, **options)
    return plan, p


def test_noise_is_normal_and_fades() -> None:
    eta = 0.3
    plan, p = noisy(SGD(1.0, gradient_noise=eta))
    drawn = []
    for step in range(3):
        before = p.value.copy()
        plan.step({})
        noise = before - p.value
        sigma = np.sqrt(eta / (1 + step) ** 0.55)
        standard, count = noise / sigma, len(noise)
        assert abs(standard.mean()) < 5 / np.sqrt(count)
        assert abs(standard.var() - 1) < 5 * np.sqrt(2 / count)
        assert abs((standard**4).mean() - 3) < 5 * np.sqrt(96 / count)
        np.testing.assert_allclose(plan.gradient(p), noise, atol=1e-12)
        drawn.append(standard)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert abs(np.mean(drawn[one] * drawn[other])) < 5 / np.sqrt(len(drawn[0]))
    (storage,) = {id(x.place.storage): x.place.storage for x in plan.parameters}.values()
    inside = np.zeros(len(storage.data), bool)
    for x in plan.parameters:
        inside[x.place.offset : x.place.offset + x.size] = True
    assert not storage.data[~inside].any()


def test_the_seed_decides_the_noise() -> None:
    results = []
    for seed in (0, 0, 1):
        plan, p = noisy(Adam(0.1, gradient_noise=0.1), 9, seed=seed)
        for _ in range(3):
            plan.step({})
        results.append(p.value.copy())
    np.testing.assert_array_equal(results[0], results[1])
    assert (results[0] != results[2]).all()


def test_noise_is_clipped() -> None:
    plan, p = noisy(SGD(1.0, gradient_noise=10.0, clip_value=0.5))
    plan.step({})
    assert np.abs(p.value).max() == 0.5


@pytest.mark.parametrize("option", ["gradient_noise", "sharpness"])
@pytest.mark.parametrize("value", [0, -1.0, np.nan, np.inf, "much"])
def test_values_that_make_no_sense_are_refused(option: str, value: Any) -> None:
    with pytest.raises(pf.ArgumentError, match=option):
        SGD(0.1, **{option: value})
    with pytest.raises(pf.ArgumentError, match=option):
        setattr(SGD(0.1), option, value)


@pytest.mark.parametrize(
    "factory",
    [
        functools.partial(Adam, sharpness=0.05),
        functools.partial(SGD, gradient_noise=1e-6),
    ],
)
def test_conformance(factory: Any) -> None:
    pf.testing.check_optimizer(factory, elementwise=False)
