"""Plans: memory, specializations, steps, loops, interruption, threads."""

import gc
import threading
import time
import warnings
import weakref

import numpy as np
import pytest

import pyframe as pf
from pyframe.engine.memory import ALIGNMENT, Arena, round_up
from pyframe.errors import (
    AnomalyError,
    BusyError,
    FeedError,
    GraphError,
    UnusedParameterWarning,
    ValueReusedError,
)
from pyframe.native.core import shuffle


def regression(optimizer=None, *, dtype="float64", hidden=5, **options):
    """A two-layer network with its plan and data."""
    rng = np.random.default_rng(0)
    x = pf.Placeholder("x", shape=(None, 3), dtype=dtype)
    y = pf.Placeholder("y", shape=(None, 1), dtype=dtype)
    w1 = pf.Parameter(rng.normal(size=(3, hidden)), name="w1", dtype=dtype)
    b1 = pf.Parameter(np.zeros(hidden), name="b1", dtype=dtype)
    w2 = pf.Parameter(rng.normal(size=(hidden, 1)), name="w2", dtype=dtype)
    y_hat = pf.Linear(pf.Tanh(pf.Linear(x, w1, b1, name="first")), w2, name="second")
    cost = pf.L2Loss(y, y_hat)
    plan = pf.compile(cost, optimizer, outputs=[y_hat], **options)
    data = {"x": rng.normal(size=(20, 3)), "y": rng.normal(size=(20, 1))}
    return plan, data, (w1, b1, w2), y_hat


def numpy_gradients(data, w1, b1, w2):
    x, y = data["x"], data["y"]
    h = np.tanh(x @ w1 + b1)
    e = h @ w2 - y
    d = 2 * e / len(x)
    dh = d @ w2.T * (1 - h**2)
    return np.mean(e**2), [x.T @ dh, dh.sum(0), h.T @ d]


# ---- the arena ----


def test_arena_blocks_of_living_values_never_overlap():
    rng = np.random.default_rng(1)
    arena, living = Arena(), []
    for _ in range(5000):
        if living and rng.random() < 0.5:
            offset, size = living.pop(rng.integers(len(living)))
            arena.free(offset, size)
            continue
        size = int(rng.integers(0, 5000))
        offset = arena.allocate(size)
        assert offset % ALIGNMENT == 0
        assert offset + round_up(size) <= arena.size
        for other, other_size in living:
            assert offset + round_up(size) <= other or other + round_up(other_size) <= offset
        living.append((offset, size))
    for offset, size in living:
        arena.free(offset, size)
    assert arena.allocate(arena.size) == 0, "all free blocks have merged into one"


def test_a_deep_chain_needs_memory_for_two_values_only():
    node = x = pf.Placeholder("x", shape=(None, 16))
    for _ in range(1000):
        node = pf.Sigmoid(node)
    plan = pf.compile(node)
    plan.run({x: np.zeros((4, 16))})
    (specialization,) = plan.engine.specializations.values()
    assert specialization.program.arena_bytes <= 3 * 4 * 16 * 4


# ---- values and gradients ----


def test_loss_and_gradients_are_those_of_the_formulas():
    plan, data, parameters, _ = regression()
    loss, gradients = plan.loss_and_gradients(data)
    expected_loss, expected = numpy_gradients(data, *(p.value for p in parameters))
    assert loss == pytest.approx(expected_loss, rel=1e-13)
    for parameter, wanted in zip(parameters, expected, strict=True):
        np.testing.assert_allclose(gradients[parameter], wanted, rtol=1e-11, atol=1e-14)


def test_a_node_used_several_times_sums_its_gradients():
    w = pf.Parameter([2.0, -3.0], name="w", dtype="float64")
    plan = pf.compile(pf.Sum(w * w + w * 3.0 - w))
    _, gradients = plan.loss_and_gradients({})
    np.testing.assert_allclose(gradients[w], 2 * np.array([2.0, -3.0]) + 2)


def test_one_gradient_that_two_parameters_share_reaches_both():
    a = pf.Parameter([1.0, 2.0], name="a", dtype="float64")
    b = pf.Parameter([3.0, 4.0], name="b", dtype="float64")
    _, gradients = pf.compile(pf.Sum(a + b)).loss_and_gradients({})
    np.testing.assert_array_equal(gradients[a], [1, 1])
    np.testing.assert_array_equal(gradients[b], [1, 1])


def test_tied_weights_share_one_segment_and_one_gradient():
    w = pf.Parameter(np.eye(2), name="w", dtype="float64")
    x = pf.Placeholder("x", shape=(None, 2), dtype="float64")
    plan = pf.compile(pf.Sum(pf.Linear(pf.Linear(x, w), w)), pf.optimizers.SGD(0.1))
    assert [s.name for s in plan.segments] == ["w"]
    value = np.array([[1.0, 2.0]])
    _, gradients = plan.loss_and_gradients({x: value})
    ones = np.ones((1, 2))
    np.testing.assert_allclose(gradients[w], value.T @ ones + value.T @ ones)


def test_only_what_leads_to_the_output_is_run():
    calls = []

    class Spy(pf.Node):
        def forward(self, ctx, x):
            calls.append(self.name)
            return x

    x = pf.Placeholder("x", shape=(2,))
    wanted, other = Spy(x, name="wanted"), Spy(x, name="other")
    plan = pf.compile([wanted, other])
    plan.run({x: [1, 2]}, outputs=wanted)
    assert calls == ["wanted"]


def test_a_parameter_without_influence_is_named_and_left_alone():
    x = pf.Placeholder("x", shape=(None, 2))
    w, idle = pf.Parameter(np.ones((2, 1)), name="w"), pf.Parameter(np.ones(3), name="idle")
    with pytest.warns(UnusedParameterWarning, match="'idle'"):
        plan = pf.compile(pf.Mean(x @ w), pf.optimizers.SGD(0.1), parameters=[w, idle])
    plan.step({x: np.ones((4, 2))})
    np.testing.assert_array_equal(idle.value, np.ones(3))
    assert not np.array_equal(w.value, np.ones((2, 1)))


def test_reading_a_value_that_was_not_kept_says_how_to_keep_it():
    plan, data, _, y_hat = regression()
    hidden = y_hat.inputs[0]
    plan.run(data, outputs=y_hat)
    np.testing.assert_array_equal(plan.value(y_hat), plan.run(data, outputs=y_hat))
    with pytest.raises(ValueReusedError, match="inspect=True"):
        plan.value(hidden)
    kept, data, (w1, b1, _), y_hat = regression(inspect=True)
    kept.run(data, outputs=y_hat)
    hidden = y_hat.inputs[0]
    np.testing.assert_allclose(hidden.value, np.tanh(data["x"] @ w1.value + b1.value), rtol=1e-12)


def test_inspect_keeps_every_gradient():
    plan, data, parameters, y_hat = regression(inspect=True)
    plan.loss_and_gradients(data)
    error = plan.value(y_hat) - data["y"]
    np.testing.assert_allclose(plan.gradient(y_hat), 2 * error / 20, rtol=1e-12)
    np.testing.assert_allclose(
        y_hat.gradients[parameters[2]], plan.gradient(parameters[2]), rtol=1e-15
    )


def test_values_survive_another_run_of_another_shape():
    plan, data, _, y_hat = regression()
    first = plan.run(data, outputs=y_hat)
    kept = first.copy()
    plan.run({"x": np.zeros((7, 3))}, outputs=y_hat)
    np.testing.assert_array_equal(first, kept)


# ---- specializations ----


def test_only_the_last_eight_specializations_are_kept():
    plan, _, _, y_hat = regression()
    for rows in range(1, 13):
        plan.run({"x": np.zeros((rows, 3))}, outputs=y_hat)
    assert len(plan.engine.specializations) == 8


def test_a_plan_frees_its_memory():
    plan, data, _, _ = regression(pf.optimizers.Adam(1e-3))
    plan.step(data)
    watch = weakref.ref(plan)
    del plan
    gc.collect()
    assert watch() is None


def test_batch_extents_are_known_only_at_the_feed():
    plan, _, _, y_hat = regression()
    assert y_hat.shape == (None, 1)
    for rows in (0, 1, 5):
        assert plan.run({"x": np.zeros((rows, 3))}, outputs=y_hat).shape == (rows, 1)


# ---- steps and loops ----


def test_a_step_is_gradient_descent():
    plan, data, parameters, _ = regression(pf.optimizers.SGD(0.1))
    before = [p.value.copy() for p in parameters]
    loss, gradients = numpy_gradients(data, *before)
    assert plan.step(data) == pytest.approx(loss, rel=1e-13)
    for parameter, old, gradient in zip(parameters, before, gradients, strict=True):
        np.testing.assert_allclose(parameter.value, old - 0.1 * gradient, rtol=1e-12)
    assert plan.step_count == 1


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("batch_size", [20, 10, 7, 3, None])
def test_a_loop_gives_the_bits_of_steps_taken_one_by_one(shuffled, batch_size):
    one, data, wanted, _ = regression(pf.optimizers.SGD(0.05, momentum=0.9))
    rows = batch_size or 20
    for epoch in range(3):
        order = np.arange(20)
        if shuffled and rows < 20:
            order = shuffle(5, epoch, 20)
        for start in range(0, 20, rows):
            part = order[start : start + rows]
            one.step({k: v[part] for k, v in data.items()})
    two, _, got, _ = regression(pf.optimizers.SGD(0.05, momentum=0.9))
    with two.loop(data, epochs=3, batch_size=batch_size, shuffle=shuffled, seed=5) as loop:
        while loop.run(1.0) != "done":
            pass
        assert loop.epoch == 3
        assert loop.samples_done == 60
    assert two.step_count == one.step_count
    for a, b in zip(wanted, got, strict=True):
        np.testing.assert_array_equal(a.value, b.value)


@pytest.mark.parametrize("batch_size", [7, 20])
def test_a_loop_takes_rows_in_a_given_order(batch_size):
    rng = np.random.default_rng(0)
    orders = [rng.permutation(20), rng.integers(0, 20, 20), np.zeros(20, int)]
    one, data, wanted, _ = regression(pf.optimizers.SGD(0.05, momentum=0.9))
    for order in orders:
        rows = order if batch_size < 20 else np.arange(20)
        for start in range(0, 20, batch_size):
            one.step({k: v[rows[start : start + batch_size]] for k, v in data.items()})
    two, _, got, _ = regression(pf.optimizers.SGD(0.05, momentum=0.9))
    asked = []
    given = {"epochs": 3, "batch_size": batch_size, "shuffle": False}
    with two.loop(data, order=lambda e: asked.append(e) or orders[e], **given) as loop:
        assert [loop.run() for _ in range(4)] == ["epoch"] * 3 + ["done"]
    assert asked == [0, 1, 2]
    for a, b in zip(wanted, got, strict=True):
        np.testing.assert_array_equal(a.value, b.value)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (np.arange(19), r"int64 of shape \(19,\); .* 20 rows"),
        (np.arange(20.0), "float64"),
        (np.arange(20) - 1, "rows -1 to 18; there are rows 0 to 19"),
        (np.arange(20) + 1, "rows 1 to 20"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(order, message):
    plan, data, parameters, _ = regression(pf.optimizers.SGD(0.05))
    before = [p.value.copy() for p in parameters]
    given = {"epochs": 1, "batch_size": 5}
    with (
        plan.loop(data, order=lambda epoch: order, shuffle=False, **given) as loop,
        pytest.raises(pf.errors.ArgumentError, match=message),
    ):
        loop.run()
    for parameter, value in zip(parameters, before, strict=True):
        np.testing.assert_array_equal(parameter.value, value)
    with pytest.raises(pf.errors.ArgumentError, match="not both"):
        plan.loop(data, order=lambda epoch: order, shuffle=True, **given)


def test_a_learning_rate_set_in_between_counts_from_the_next_step():
    one, data, wanted, _ = regression(pf.optimizers.SGD(0.05))
    for rate in (0.05, 0.05, 0.01, 0.01):
        one.step({k: v[:10] for k, v in data.items()}, rate)
        one.step({k: v[10:] for k, v in data.items()}, rate)
    two, _, got, _ = regression(pf.optimizers.SGD(0.05))
    with two.loop(data, epochs=4, batch_size=10, shuffle=False, stop="epoch") as loop:
        loop.run(), loop.run()
        loop.set_learning_rate(0.01)
        assert loop.run() == loop.run() == "epoch"
        with pytest.raises(pf.errors.ArgumentError):
            loop.set_learning_rate(-1.0)
    for a, b in zip(wanted, got, strict=True):
        np.testing.assert_array_equal(a.value, b.value)


def test_a_shuffle_is_a_permutation_that_seed_and_epoch_decide():
    orders = [shuffle(seed, epoch, 1000) for seed in (1, 2) for epoch in (0, 1)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    for i, a in enumerate(orders):
        for b in orders[i + 1 :]:
            assert np.mean(a == b) < 0.05
    np.testing.assert_array_equal(orders[0], shuffle(1, 0, 1000))


def test_a_loop_stops_where_it_is_asked_to():
    plan, data, _, _ = regression(pf.optimizers.SGD(0.01))
    with plan.loop(data, epochs=2, batch_size=10, stop="step") as loop:
        statuses = [loop.run() for _ in range(4)]
        assert statuses == ["step"] * 4
        assert loop.run() == "done"
    with plan.loop(data, epochs=2, batch_size=10, stop="epoch") as loop:
        assert [loop.run(), loop.run(), loop.run()] == ["epoch", "epoch", "done"]


def test_the_learning_rate_of_each_step_comes_from_the_table():
    plan, data, _, _ = regression(pf.optimizers.SGD(1.0))
    seen = []

    def rates(steps):
        seen.append(steps.copy())
        return np.zeros(len(steps))

    before = plan.snapshot()
    with plan.loop(data, epochs=3, batch_size=8, learning_rates=rates) as loop:
        assert loop.run(1.0) == "done"
    np.testing.assert_array_equal(np.concatenate(seen), np.arange(9))
    for kept, now in zip(before.arrays, plan.snapshot().arrays, strict=True):
        np.testing.assert_array_equal(kept, now)


def test_many_epochs_are_handed_over_in_jobs_without_a_seam(monkeypatch):
    monkeypatch.setattr("pyframe.engine.loop.STEPS_PER_JOB", 6)
    one, data, wanted, _ = regression(pf.optimizers.SGD(0.05))
    with one.loop(data, epochs=7, batch_size=9, seed=1) as loop:
        assert loop.run(5.0) == "done"
        assert len(loop.records) == 7
    monkeypatch.undo()
    two, _, got, _ = regression(pf.optimizers.SGD(0.05))
    with two.loop(data, epochs=7, batch_size=9, seed=1) as loop:
        assert loop.run(5.0) == "done"
    for a, b in zip(wanted, got, strict=True):
        np.testing.assert_array_equal(a.value, b.value)


def test_a_loss_that_is_a_parameter_is_reported_as_it_was_before_the_update():
    w = pf.Parameter(3.0, name="w")
    assert pf.compile(w, pf.optimizers.SGD(1.0)).step({}) == 3.0
    assert w.value == 2.0
    assert pf.compile(pf.Reshape(w, ()), pf.optimizers.SGD(1.0)).step({}) == 2.0
    assert w.value == 1.0


def test_a_snapshot_brings_everything_back():
    plan, data, parameters, _ = regression(pf.optimizers.Adam(0.01))
    for _ in range(3):
        plan.step(data)
    kept = plan.snapshot()
    after = [plan.step(data) for _ in range(3)]
    plan.restore(kept)
    assert plan.step_count == 3
    assert [plan.step(data) for _ in range(3)] == after


# ---- nodes and optimizers written in Python ----


class Cube(pf.Node):
    def forward(self, ctx, x):
        ctx.square = x**2
        return x * ctx.square

    def backward(self, ctx, dy):
        return 3 * ctx.square * dy


def test_a_python_node_works_in_the_middle_of_a_trained_graph():
    rng = np.random.default_rng(2)
    x = pf.Placeholder("x", shape=(None, 3), dtype="float64")
    w = pf.Parameter(rng.normal(size=(3, 2)), name="w", dtype="float64")
    cost = pf.Mean(pf.Tanh(Cube(x @ w)))
    plan = pf.compile(cost, pf.optimizers.SGD(0.1))
    data = rng.normal(size=(8, 3))
    w0 = w.value.copy()
    h = data @ w0
    t = np.tanh(h**3)
    expected = data.T @ ((1 - t**2) * 3 * h**2 / t.size)
    plan.step({x: data})
    np.testing.assert_allclose(w.value, w0 - 0.1 * expected, rtol=1e-12)
    with plan.loop({x: data}, epochs=2, batch_size=3) as loop:
        assert loop.run(5.0) == "done"
    assert plan.step_count == 7


def test_a_python_node_with_two_outputs():
    class SumAndDifference(pf.Node):
        output_count = 2

        def forward(self, ctx, a, b):
            return a + b, a - b

        def backward(self, ctx, ds, dd):
            return ds + dd, ds - dd

    a = pf.Parameter([1.0, 2.0], name="a", dtype="float64")
    b = pf.Parameter([3.0, 5.0], name="b", dtype="float64")
    total, difference = SumAndDifference(a, b)
    _, gradients = pf.compile(pf.Sum(total * difference)).loss_and_gradients({})
    np.testing.assert_allclose(gradients[a], 2 * a.value)
    np.testing.assert_allclose(gradients[b], -2 * b.value)


def test_a_python_optimizer_updates_flat_arrays():
    class SignDescent(pf.optimizers.Optimizer):
        name = "sign_descent"

        def update(self, parameters, gradients, slots, *, step, learning_rate):
            parameters -= learning_rate * np.sign(gradients)

    plan, data, parameters, _ = regression(SignDescent(0.01))
    before = [p.value.copy() for p in parameters]
    _, gradients = numpy_gradients(data, *before)
    plan.step(data)
    for parameter, old, gradient in zip(parameters, before, gradients, strict=True):
        np.testing.assert_allclose(parameter.value, old - 0.01 * np.sign(gradient), rtol=1e-12)


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


# ---- parameters ----


def test_later_plans_share_the_storage_of_a_parameter():
    plan, data, (w1, _, _), y_hat = regression(pf.optimizers.SGD(0.1))
    view = w1.value
    other = pf.compile(y_hat)
    before = other.run(data if False else {"x": data["x"]})
    plan.step(data)
    assert not np.array_equal(before, other.run({"x": data["x"]}))
    np.testing.assert_array_equal(view, w1.value)
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 1.0
    w1.value = np.zeros((3, 5))
    np.testing.assert_array_equal(view, np.zeros((3, 5)))


def test_segments_are_aligned_and_do_not_overlap():
    plan, _, parameters, _ = regression(pf.optimizers.SGD(0.1))
    end = 0
    for segment in plan.segments:
        assert segment.offset % 8 == 0
        assert segment.offset >= end
        end = segment.offset + segment.size
    assert {s.name for s in plan.segments} == {p.name for p in parameters}
    for parameter in parameters:
        assert parameter.value.ctypes.data % 64 == 0


def test_a_frozen_parameter_stays():
    x = pf.Placeholder("x", shape=(None, 2))
    w = pf.Parameter(np.ones((2, 2)), name="w", trainable=False)
    v = pf.Parameter(np.ones((2, 1)), name="v")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = pf.compile(pf.Mean(x @ w @ v), pf.optimizers.SGD(0.1))
    plan.step({x: np.ones((3, 2))})
    np.testing.assert_array_equal(w.value, np.ones((2, 2)))
    assert not np.array_equal(v.value, np.ones((2, 1)))


def test_the_table_shows_nodes_kernels_shapes_and_bytes():
    plan, data, _, _ = regression(pf.optimizers.SGD(0.1))
    assert "Nothing has been fed yet" in str(plan)
    plan.step(data)
    text = str(plan)
    for part in ("first", "linear_f64", "(20, 3)", "l2_loss", "sgd", "bytes", "update begins"):
        assert part in text, text


def test_out_takes_the_result_and_may_be_an_input():
    x = pf.Placeholder("x", shape=(3,))
    plan = pf.compile(pf.Sigmoid(x))
    array = np.array([-1.0, 0.0, 1.0], np.float32)
    expected = plan.run({x: array})
    assert plan.run({x: array}, out=array) is array
    np.testing.assert_array_equal(array, expected)


def test_what_is_not_in_the_plan_is_refused():
    plan, data, _, _ = regression()
    with pytest.raises(GraphError, match="not part of this plan"):
        plan.run(data, outputs=pf.Placeholder("z", shape=(1,)))
    with pytest.raises(FeedError, match="no placeholder"):
        plan.run({**data, "z": 1})
    with pytest.raises(FeedError, match="'y' is not fed"):
        plan.loss_and_gradients({"x": data["x"]})
    with pytest.raises(GraphError, match="no optimizer"):
        plan.step(data)


def test_a_new_learning_rate_is_not_written_into_the_schedules_own_array() -> None:
    x, y = pf.Placeholder("x", shape=(None, 1)), pf.Placeholder("y", shape=(None, 1))
    w = pf.Parameter(np.ones((1, 1)), name="w")
    plan = pf.compile(pf.L2Loss(y, pf.MatMul(x, w)), optimizer=pf.optimizers.SGD(0.1))
    rates = np.full(100, 0.1)
    rates.flags.writeable = False
    ones = np.ones((8, 1), np.float32)
    with plan.loop({x: ones, y: ones}, epochs=2, learning_rates=lambda s: rates[: len(s)]) as loop:
        loop.set_learning_rate(0.01)
    assert (rates == 0.1).all()
