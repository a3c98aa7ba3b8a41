"""Plans that are interrupted, or used by several threads."""

import threading
import time

import numpy as np
import pytest

import pyframe as pf
from pyframe.errors import (
    AnomalyError,
    BusyError,
)

pytestmark = pytest.mark.sanitize

# ---- interruption ----


class Bomb(pf.Node):
    """Passes its input on, until it is armed."""

    error: BaseException | None = None

    def forward(self, ctx, x):
        if self.error is not None:
            raise self.error
        return x

    def backward(self, ctx, dy):
        return dy


def armed_plan():
    x = pf.Placeholder("x", shape=(None, 2), dtype="float64")
    w = pf.Parameter(np.ones((2, 2)), name="w", dtype="float64")
    bomb = Bomb(x @ w)
    return pf.compile(pf.Mean(pf.Square(bomb)), pf.optimizers.SGD(0.1)), x, w, bomb


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
def test_a_step_that_is_interrupted_before_its_update_is_dropped(error):
    plan, x, w, bomb = armed_plan()
    feed = {x: np.ones((3, 2))}
    plan.step(feed)
    before = w.value.copy()
    bomb.error = error
    with pytest.raises(type(error)):
        plan.step(feed)
    np.testing.assert_array_equal(w.value, before)
    assert plan.step_count == 1
    bomb.error = None
    plan.step(feed)
    assert plan.step_count == 2
    assert not np.array_equal(w.value, before)


class FailingDescent(pf.optimizers.Optimizer):
    """Descends, and fails in the middle of an update when it is told to."""

    fail = False

    def update(self, parameters, gradients, slots, *, step, learning_rate):
        parameters[: parameters.size // 2] -= learning_rate * gradients[: parameters.size // 2]
        if self.fail:
            raise KeyboardInterrupt
        parameters[parameters.size // 2 :] -= learning_rate * gradients[parameters.size // 2 :]


def test_an_update_in_python_that_fails_changes_nothing():
    optimizer = FailingDescent(0.1)
    x = pf.Placeholder("x", shape=(None, 3), dtype="float64")
    parts = [pf.Parameter(np.ones((3, 3)), name=n, group=n, dtype="float64") for n in "ab"]
    mean = pf.State(np.zeros(3), name="mean", dtype="float64")
    variance = pf.State(np.ones(3), name="variance", dtype="float64")
    scale, shift = (pf.Parameter(np.ones(3), name=n, dtype="float64") for n in ("scale", "shift"))
    h = pf.BatchNorm(x @ parts[0] @ parts[1], scale, shift, mean, variance)
    plan = pf.compile(pf.Mean(pf.Square(h - 3.0)), optimizer)
    data = np.random.default_rng(0).normal(size=(8, 3))
    plan.step({x: data})
    before = [a.copy() for a in plan.snapshot().arrays]
    optimizer.fail = True
    with pytest.raises(KeyboardInterrupt):
        plan.step({x: data})
    with (
        plan.loop({x: data}, batch_size=4, shuffle=False) as loop,
        pytest.raises(KeyboardInterrupt),
    ):
        loop.run()
    assert plan.step_count == 1
    for old, now in zip(before, plan.snapshot().arrays, strict=True):
        np.testing.assert_array_equal(old, now)
    optimizer.fail = False
    plan.step({x: data})
    assert plan.step_count == 2


def test_a_loop_with_a_python_node_comes_back_in_time():
    plan, x, _, _ = armed_plan()
    with plan.loop({x: np.ones((4, 2))}, epochs=10**7, batch_size=2) as loop:
        began = time.monotonic()
        assert loop.run(0.05) == "paused"
        assert time.monotonic() - began < 5.0
        assert 0 < loop.epoch < 10**7


def test_a_loop_that_is_interrupted_can_go_on():
    plan, x, w, bomb = armed_plan()
    data = np.random.default_rng(0).normal(size=(9, 2))
    with plan.loop({x: data}, epochs=4, batch_size=3, stop="step") as loop:
        loop.run()
        bomb.error = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            loop.run()
        assert plan.step_count == 1
        bomb.error = None
        while loop.run() != "done":
            pass
    assert plan.step_count == 12
    wanted = w.value.copy()
    again, x, w, _ = armed_plan()
    with again.loop({x: data}, epochs=4, batch_size=3) as loop:
        while loop.run() != "done":
            pass
    np.testing.assert_array_equal(w.value, wanted)


def test_state_commits_with_the_update_only():
    x = pf.Placeholder("x", shape=(None, 2), dtype="float64")
    scale = pf.Parameter(np.ones(2), name="scale", dtype="float64")
    shift = pf.Parameter(np.zeros(2), name="shift", dtype="float64")
    mean = pf.State(np.zeros(2), name="mean", dtype="float64")
    variance = pf.State(np.ones(2), name="variance", dtype="float64")
    bomb = Bomb(pf.BatchNorm(x, scale, shift, mean, variance))
    plan = pf.compile(pf.Mean(pf.Square(bomb)), pf.optimizers.SGD(0.1), outputs=[bomb])
    feed = {x: np.array([[1.0, 2.0], [3.0, 6.0]])}
    bomb.error = ValueError("stop")
    with pytest.raises(ValueError, match="stop"):
        plan.step(feed)
    np.testing.assert_array_equal(mean.value, [0, 0])
    bomb.error = None
    plan.run(feed, training=True)
    plan.loss_and_gradients(feed)
    np.testing.assert_array_equal(mean.value, [0, 0])
    plan.step(feed)
    assert np.all(mean.value != 0)


def test_detect_anomaly_names_the_first_node():
    x = pf.Placeholder("x", shape=(2,))
    y = pf.Sum(pf.Sqrt(pf.Log(x, name="the_log"), name="the_root"))
    feed = {x: [1.0, -1.0]}
    assert np.isnan(pf.compile(y).run(feed))
    with pytest.raises(AnomalyError, match="the_log"):
        pf.compile(y, detect_anomaly=True).run(feed)


# ---- threads ----


def test_a_second_thread_in_step_is_told_that_the_plan_is_busy():
    entered, leave = threading.Event(), threading.Event()

    class Wait(pf.Node):
        def forward(self, ctx, x):
            entered.set()
            assert leave.wait(10)
            return x

        def backward(self, ctx, dy):
            return dy

    x = pf.Placeholder("x", shape=(None, 2))
    w = pf.Parameter(np.ones((2, 1)), name="w")
    hidden = x @ w
    plan = pf.compile(pf.Mean(Wait(hidden)), pf.optimizers.SGD(0.1))
    reader = pf.compile(hidden)
    feed = {x: np.ones((3, 2))}
    thread = threading.Thread(target=plan.step, args=(feed,))
    thread.start()
    try:
        assert entered.wait(10)
        with pytest.raises(BusyError, match="trained already"):
            plan.step(feed)
        np.testing.assert_array_equal(reader.run(feed), np.full((3, 1), 2.0))
    finally:
        leave.set()
        thread.join()
    plan.step(feed)


def test_predictions_from_many_threads_never_see_half_an_update():
    """All elements of w are equal before and after every update, so a torn read would show."""
    x = pf.Placeholder("x", shape=(None, 64), dtype="float64")
    w = pf.Parameter(np.ones((64, 64)), name="w", dtype="float64")
    y = x @ w
    plan = pf.compile(pf.Mean(y), pf.optimizers.SGD(0.01), outputs=[y])
    feed = {x: np.ones((2, 64))}
    stop, wrong = threading.Event(), []

    def predict():
        while not stop.is_set():
            result = plan.run(feed, outputs=y)
            if np.ptp(result) > 1e-9:
                wrong.append(result)

    threads = [threading.Thread(target=predict) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        plan.step(feed)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_training_step_inside_a_python_node_is_refused():
    plan, x, _, bomb = armed_plan()

    class Nested(pf.Node):
        def forward(self, ctx, value):
            plan.step({x: np.ones((1, 2))})
            return value

    outer = pf.compile(Nested(x))
    with pytest.raises(BusyError, match="within a node"):
        outer.run({x: np.ones((1, 2))})
    plan.step({x: np.ones((1, 2))})


def test_writing_while_an_evaluation_is_paused_is_refused_not_waited_for():
    x = pf.Placeholder("x", shape=(None, 256))
    w = pf.Parameter(np.eye(256), name="w")
    node = x
    for _ in range(50):
        node = node @ w
    plan = pf.compile(pf.Mean(node), pf.optimizers.SGD(0.0))
    data = np.ones((256, 256))
    with plan.loop({x: data}, training=False) as loop:
        while loop.run(1e-4) != "paused":
            pytest.fail("the batch is too small to be interrupted")
        with pytest.raises(BusyError, match="paused"):
            w.value = np.eye(256)
        with pytest.raises(BusyError, match="paused"):
            plan.step({x: data})
        while loop.run(1.0) == "paused":
            pass
        w.value = np.eye(256)
    plan.step({x: data})
