"""Subnormal numbers: updates take them for 0, everything else works with them."""

import numpy as np
import pytest
from updates import UPDATES

import pyframe as pf

pytestmark = pytest.mark.sanitize

DTYPES = ["float32", "float64"]


def subnormal(array):
    """Whether each element is below the least normal number, but not 0."""
    return (np.abs(array) < np.finfo(array.dtype).tiny) & (array != 0)


def floats_of(plan):
    """Return what a plan has of parameters and of the slots of its optimizer."""
    return [array for array in plan.snapshot().arrays if array.dtype.kind == "f"]


def fed_gradients(optimizer, shape, dtype):
    """Return a plan whose gradient is what it is fed, and what is to be fed."""
    p = pf.Parameter(np.zeros(shape), name="p", dtype=dtype)
    g = pf.Placeholder("g", shape=shape, dtype=dtype)
    return pf.compile(pf.Sum(g * p), optimizer), g


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", UPDATES)
@pytest.mark.parametrize("power", [1, 0.5], ids=["first moments", "second moments"])
def test_no_state_of_an_optimizer_stays_subnormal(case, dtype, power):
    """Gradients that were small, and then 0: moments fade, and those that are left are 0."""
    plan, g = fed_gradients(UPDATES[case].optimizer(), (4, 5), dtype)
    tiny = float(np.finfo(dtype).tiny)
    some = np.random.default_rng(0).uniform(1, 50, (4, 5)) * tiny**power
    for step in range(60):
        plan.step({g: some if step < 3 else np.zeros((4, 5))})
        assert not any(subnormal(array).any() for array in floats_of(plan)), step


def test_moments_fade_until_their_steps_are_zero():
    """With fused multiply-add to 0; otherwise until a tenth of them is below the normal numbers."""
    plan, g = fed_gradients(pf.optimizers.Adam(1e-3), (3,), "float32")
    plan.step({g: np.full(3, 1e-36)})
    slots = plan.engine.named(plan.snapshot())
    np.testing.assert_allclose(slots["slots/first_moment/p"], 1e-37, rtol=1e-6)
    assert not slots["slots/second_moment/p"].any()
    before = slots["values/p"]
    for _ in range(50):
        plan.step({g: np.zeros(3)})
    slots = plan.engine.named(plan.snapshot())
    assert (slots["slots/first_moment/p"] < 10 * np.finfo(np.float32).tiny).all()
    moved = slots["values/p"].copy()
    plan.step({g: np.zeros(3)})
    np.testing.assert_array_equal(plan.engine.named(plan.snapshot())["values/p"], moved)
    np.testing.assert_allclose(moved, before, rtol=0, atol=1e-30)


def test_what_comes_before_an_update_keeps_them():
    """Forward and backward pass: a gradient is not 0 as long as it can be written down."""
    p = pf.Parameter(np.full(3, 1e-20), name="p", dtype="float32")
    x = pf.Placeholder("x", shape=(3,))
    plan = pf.compile(pf.Sum(p * x) * 1e-20, pf.optimizers.SGD(1e-3))
    loss = plan.step({x: np.full(3, 1.0)})
    assert 0 < loss < np.finfo(np.float32).tiny
    y = pf.Placeholder("y", shape=(3,))
    assert subnormal(pf.compile(y * 0.5).run({y: np.full(3, 1.5e-38)})).all()


class Faulty(pf.optimizers.Optimizer):
    """Fails in its update, after the plan has begun to write."""

    def update(self, parameters, gradients, slots, *, step, learning_rate):
        assert subnormal(np.full(1, 1.5e-38, np.float32) * np.float32(0.5)).all()
        raise RuntimeError("fails")


def test_an_update_leaves_the_modes_of_the_thread_alone():
    half = np.full(4, 1.5e-38, np.float32)
    plan, g = fed_gradients(pf.optimizers.Adam(1e-3), (3,), "float32")
    plan.step({g: np.ones(3)})
    assert subnormal(half * np.float32(0.5)).all()
    plan, g = fed_gradients(Faulty(0.1), (3,), "float32")
    with pytest.raises(RuntimeError, match="fails"):
        plan.step({g: np.ones(3)})
    assert subnormal(half * np.float32(0.5)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("optimizer", [pf.optimizers.SGD, pf.optimizers.Adam])
@pytest.mark.parametrize("clip", ["clip_value", "clip_norm"])
@pytest.mark.parametrize("bound", [0.25, 1.5, 40.0])
def test_a_clip_within_the_update_or_before_it_gives_the_same_bits(clip, bound, optimizer, dtype):
    """What the clip keeps below the normal numbers is 0 in the update in either case."""
    tiny = float(np.finfo(dtype).tiny)
    drawn, states = np.random.default_rng(0), []
    given = tiny * 2.0 ** drawn.uniform(-4, 8, (30, 4, 5)) * drawn.choice([-1, 1], (30, 4, 5))
    for fuse in (None, False):
        p = pf.Parameter(np.zeros((4, 5)), name="p", dtype=dtype)
        g = pf.Placeholder("g", shape=(4, 5), dtype=dtype)
        rule = optimizer(1.0, **{clip: bound * tiny})
        plan = pf.compile(pf.Sum(g * p), rule, **({} if fuse is None else {"fuse": fuse}))
        for gradient in given:
            plan.step({g: gradient})
        assert ("_update  group" in str(plan)) == (fuse is None)
        states.append(floats_of(plan))
    for joined, apart in zip(*states, strict=True):
        assert joined.tobytes() == apart.tobytes()
    assert bound < 40 or states[0][0].any()


def test_threads_take_the_same_numbers_for_zero():
    """Workers compute with the modes of the thread that called them."""
    size, states = 400_000, []
    gradients = np.random.default_rng(0).uniform(-1e-36, 1e-36, size).astype(np.float32)
    before = pf.get_num_threads()
    try:
        for threads in (1, 2, 3, 7):
            pf.set_num_threads(threads)
            plan, g = fed_gradients(pf.optimizers.Adam(1e-3), (size,), "float32")
            for step in range(40):
                plan.step({g: gradients if step == 0 else np.zeros(size)})
            states.append(floats_of(plan))
    finally:
        pf.set_num_threads(before)
    for state in states:
        for array, first in zip(state, states[0], strict=True):
            assert not subnormal(array).any()
            np.testing.assert_array_equal(array, first)
