"""Steps that are not checked again: what stops them on the way, and other threads."""

import contextlib
import gc
import signal
import threading
import time

import numpy as np
import pytest
from quick_net import Net, touchy_plan

import pyframe as pf
from pyframe.errors import BusyError, ValueReusedError

pytestmark = pytest.mark.sanitize


def test_a_node_in_python_runs_in_every_step():
    plan, feed, w, mine = touchy_plan()
    calls = []
    mine.action = staticmethod(lambda: calls.append(1))
    assert [plan.step(feed) for _ in range(3)] == [2.0, 1.0, 0.0]
    assert len(calls) == plan.step_count == 3


def test_an_exception_in_a_node_drops_the_step_and_the_next_one_works():
    plan, feed, w, mine = touchy_plan()
    plan.step(feed)
    before = w.value.copy()

    def fail():
        raise RuntimeError("no")

    mine.action = staticmethod(fail)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no"):
            plan.step(feed)
        np.testing.assert_array_equal(w.value, before)
        assert plan.step_count == 1
    mine.action = staticmethod(lambda: None)
    assert plan.step(feed) == 1.0
    assert plan.step_count == 2


def test_a_step_from_within_a_step_is_refused():
    plan, feed, w, mine = touchy_plan()
    plan.step(feed)
    other = Net()
    other.plan.step(other.feed())
    mine.action = staticmethod(lambda: plan.step(feed))
    with pytest.raises(BusyError):
        plan.step(feed)
    mine.action = staticmethod(lambda: other.plan.step(other.feed()))
    with pytest.raises(BusyError, match="own Python code"):
        plan.step(feed)
    mine.action = staticmethod(lambda: None)
    plan.step(feed)
    assert plan.step_count == 2 and other.plan.step_count == 1


def test_a_step_while_an_evaluation_is_paused_inside_a_batch_is_refused():
    plan, feed, w, mine = touchy_plan()
    plan.step(feed)

    (x,) = feed
    loop = plan.loop({x: np.ones((6, 2), np.float32)}, batch_size=3, training=False)
    assert loop.run(0) == "paused"  # behind the node in Python
    with pytest.raises(BusyError, match="paused"):
        plan.step(feed)
    del loop
    gc.collect()
    plan.step(feed)  # nothing holds the parameters any more
    assert plan.step_count == 2
    # Its memory went with it: the next evaluation has a context of its own.
    (evaluation,) = [s for key, s in plan.engine.programs.kept.items() if key[0][0] == "evaluate"]
    assert not evaluation.idle
    with plan.loop({x: np.ones((6, 2), np.float32)}, batch_size=3, training=False) as loop:
        while loop.run() != "done":
            pass
    assert len(evaluation.idle) == 1
    with plan.loop(feed, training=True):
        pass
    plan.loop(feed, training=True)  # claims the parameters, and is thrown away
    gc.collect()
    plan.step(feed)


def test_a_loop_may_go_together_with_its_plan():
    for training in (False, True):
        plan, feed, w, mine = touchy_plan()
        (x,) = feed
        loop = plan.loop({x: np.ones((6, 2), np.float32)}, batch_size=3, training=training)
        assert loop.run(0) == "paused"
        vars(plan)["circle"], feed[loop] = loop, plan
        del plan, loop, feed, w, mine, x
        gc.collect()


def test_an_optimizer_in_python_is_all_or_nothing():
    class Mine(pf.optimizers.Optimizer):
        fail = False

        def update(self, parameters, gradients, slots, *, step, learning_rate):
            parameters -= learning_rate * gradients
            if self.fail:
                raise RuntimeError(f"at step {step}")

    x = pf.Placeholder("x", shape=(2,))
    w = pf.Parameter(np.ones(2), name="w")
    optimizer = Mine(0.5)
    plan = pf.compile(pf.Sum(w * x), optimizer)
    feed = {x: np.ones(2, np.float32)}
    assert plan.step(feed) == 2.0 and plan.step(feed) == 1.0
    optimizer.fail = True
    with pytest.raises(RuntimeError, match="at step 2"):
        plan.step(feed)
    np.testing.assert_array_equal(w.value, [0.0, 0.0])
    optimizer.fail = False
    assert plan.step(feed) == 0.0
    assert plan.step_count == 3


def test_an_anomaly_is_named_and_its_values_can_be_looked_at():
    x = pf.Placeholder("x", shape=(2,))
    w = pf.Parameter(np.ones(2), name="w")
    product = pf.Mul(x, w, name="product")
    plan = pf.compile(pf.Sum(product), pf.optimizers.SGD(0.5), detect_anomaly=True, inspect=True)
    plan.step({x: np.ones(2, np.float32)})
    with pytest.raises(pf.errors.AnomalyError, match="product"):
        plan.step({x: np.array([1, np.inf], np.float32)})
    np.testing.assert_array_equal(plan.value(product), [0.5, np.inf])
    assert plan.step_count == 1
    assert plan.step({x: np.ones(2, np.float32)}) == 1.0


class Stop(BaseException):
    """What the signal of a timer raises."""


@contextlib.contextmanager
def timer_stops():
    """Raise `Stop` whenever the timer of this process runs out, until the end of the block."""

    def stop(number, frame):
        raise Stop

    old = signal.signal(signal.SIGALRM, stop)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer signal")
def test_interrupts_lose_no_step_and_count_none_twice():
    w = pf.Parameter(np.zeros(1), name="w", dtype="float64")
    plan = pf.compile(pf.Sum(w), pf.optimizers.SGD(1.0))
    start = time.perf_counter()
    for _ in range(50):
        plan.step({})
    several = (time.perf_counter() - start) / 10  # seconds of five steps, as this machine has them

    with timer_stops():
        for i in range(300):
            try:
                signal.setitimer(signal.ITIMER_REAL, several * (1 + i % 7))
                while True:
                    plan.step({})
            except Stop:
                pass
            assert w.value.item() == -plan.step_count  # each step moves w by 1
    assert plan.step_count > 300


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer signal")
@pytest.mark.parametrize("what", ["claim", "write"])
def test_interrupts_leave_no_claim_behind(what):
    w = pf.Parameter(np.zeros(1), name="w")
    plan = pf.compile(pf.Sum(w), pf.optimizers.SGD(1.0))

    with timer_stops():
        for i in range(500):
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-5 * (1 + i % 7))
                while True:
                    with plan.claim() if what == "claim" else w.place.storage.guard.write():
                        pass
            except Stop:
                pass
    plan.step({})
    assert plan.step_count == 1


# ---- threads ----


def test_of_two_threads_one_steps_and_one_is_refused():
    plan, feed, w, mine = touchy_plan()
    plan.step(feed)
    inside, go_on = threading.Event(), threading.Event()

    def wait():
        inside.set()
        assert go_on.wait(10)

    mine.action = staticmethod(wait)
    losses = []
    thread = threading.Thread(target=lambda: losses.append(plan.step(feed)))
    thread.start()
    assert inside.wait(10)
    for _ in range(3):
        with pytest.raises(BusyError):
            plan.step(feed)
    with pytest.raises(ValueReusedError, match="another run"):
        plan.value(plan.cost)
    go_on.set()
    thread.join()
    mine.action = staticmethod(lambda: None)
    assert losses == [1.0] and plan.step_count == 2
    assert plan.value(plan.cost) == 1.0
    assert plan.step(feed) == 0.0


def test_steps_of_many_threads_are_each_taken_or_refused():
    net = Net()
    net.plan.step(net.feed())
    taken, refused = [], []

    def work():
        for _ in range(300):
            try:
                taken.append(net.plan.step(net.feed()))
            except BusyError:
                refused.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) + len(refused) == 1200
    assert net.plan.step_count == 1 + len(taken)
    other = Net()
    for _ in range(net.plan.step_count):
        other.plan.step(other.feed())
    assert other.bits() == net.bits()


def test_many_threads_predict_while_one_trains():
    model = pf.Sequential([pf.layers.Dense(8, activation="tanh"), pf.layers.Dense(2)])
    rows = [np.full((1, 3), i, np.float32) for i in range(8)]
    model.predict(rows[0])
    # Two rows that are equal must stay so, whatever the weights are: a torn read would differ.
    wrong = []

    def work(i):
        pair = np.concatenate([rows[i], rows[i]])
        for _ in range(300):
            one, two = model.predict(pair)
            if not np.array_equal(one, two) or model.predict(rows[i]).shape != (1, 2):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    pf.Trainer(model, optimizer=pf.optimizers.SGD(1e-3)).fit(
        np.ones((64, 3)), np.ones((64, 2)), epochs=200, batch_size=8, verbose=0
    )
    for thread in threads:
        thread.join()
    assert not wrong
