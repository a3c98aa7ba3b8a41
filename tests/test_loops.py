"""Steps and loops: the same bits, whatever the batches, their order and where it stops."""

import numpy as np
import pytest
from plans import numpy_gradients, regression

import pyframe as pf
from pyframe.native.core import shuffle

pytestmark = pytest.mark.sanitize


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
