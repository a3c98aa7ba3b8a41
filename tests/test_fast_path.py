"""A feed that looks like the last one is not checked again: the same bits, the same errors."""

import gc
import signal
import threading
import time
import weakref

import numpy as np
import pytest

import pyframe as pf
from pyframe.errors import (
    ArgumentError,
    BusyError,
    DTypeError,
    FeedError,
    LabelError,
    ShapeError,
    ValueReusedError,
)


class Net:
    """A small classifier with its plan; `data` has the right dtypes, so its feeds match."""

    def __init__(self, *, optimizer="sgd", **options):
        rng = np.random.default_rng(0)
        self.x = pf.Placeholder("x", shape=(None, 3))
        self.y = pf.Placeholder("y", shape=(None,), dtype="int64")
        self.w = pf.Parameter(rng.normal(size=(3, 4)), name="w")
        self.b = pf.Parameter(np.zeros(4), name="b")
        self.out = pf.Linear(self.x, self.w, self.b, name="out")
        cost = pf.CrossEntropy(self.y, self.out)
        makers = {"sgd": pf.optimizers.SGD, "adam": pf.optimizers.Adam}
        self.plan = pf.compile(cost, makers[optimizer](0.1), outputs=[self.out], **options)
        self.xs = rng.normal(size=(64, 3)).astype(np.float32)
        self.ys = rng.integers(0, 4, 64)

    def feed(self, start=0, stop=8):
        return {self.x: self.xs[start:stop], self.y: self.ys[start:stop]}

    def bits(self):
        return self.w.value.tobytes() + self.b.value.tobytes()


def is_fast(plan, feed):
    """Whether a step with this feed would go unchecked."""
    pattern = plan.engine.step_pattern
    return pattern is not None and pattern.match(feed) is not None


class Unchecked(dict):
    """A feed that is no plain dict always takes the slow path."""


# ---- the same numbers ----


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_steps_give_the_bits_of_steps_that_are_checked(optimizer):
    fast, slow = Net(optimizer=optimizer), Net(optimizer=optimizer)
    for i in range(8):
        feed = fast.feed(8 * i, 8 * i + 8)
        assert is_fast(fast.plan, feed) == (i > 0)
        checked = Unchecked({slow.x: feed[fast.x], slow.y: feed[fast.y]})
        assert not is_fast(slow.plan, checked)
        assert fast.plan.step(feed) == slow.plan.step(checked)
        assert fast.bits() == slow.bits()
    assert fast.plan.step_count == slow.plan.step_count == 8


def test_runs_give_the_bits_of_runs_that_are_checked():
    net = Net()
    for i in range(4):
        rows = net.xs[8 * i : 8 * i + 8]
        fast = net.plan.run({net.x: rows}, net.out)
        np.testing.assert_array_equal(fast, net.plan.run(Unchecked({net.x: rows}), net.out))
        np.testing.assert_array_equal(fast, net.plan.run({"x": rows.astype(np.float64)}, net.out))


def test_a_loop_takes_the_same_steps():
    one, other = Net(), Net()
    for i in range(8):
        one.plan.step(one.feed(8 * i, 8 * i + 8))
    with other.plan.loop(other.feed(0, 64), batch_size=8, shuffle=False) as loop:
        while loop.run() != "done":
            pass
    assert one.bits() == other.bits()


def test_results_are_fresh_and_stay_as_they_are():
    net = Net()
    first = net.plan.run({net.x: net.xs[:8]}, net.out)
    kept = first.copy()
    second = net.plan.run({net.x: net.xs[8:16]}, net.out)
    assert not np.shares_memory(first, second)
    np.testing.assert_array_equal(first, kept)
    first[...] = 0
    np.testing.assert_array_equal(net.plan.run({net.x: net.xs[8:16]}, net.out), second)


def test_an_output_that_is_the_feed_itself_is_a_copy_of_the_new_feed():
    x = pf.Placeholder("x", shape=(2, 2))
    plan = pf.compile(pf.Reshape(x, (4,)))
    for value in (1, 2, 3):
        array = np.full((2, 2), value, np.float32)
        result = plan.run({x: array})
        assert not np.shares_memory(result, array)
        np.testing.assert_array_equal(result, np.full(4, value))


def test_a_rate_counts_for_its_step_and_the_optimizers_for_the_others():
    net, other = Net(), Net()
    for rate in (None, 0.5, 0, np.float32(0.25)):
        net.plan.step(net.feed(), learning_rate=rate)
        other.plan.step(Unchecked(other.feed()), learning_rate=rate)
        assert net.bits() == other.bits()
    net.plan.optimizer.learning_rate = other.plan.optimizer.learning_rate = 1.0
    net.plan.step(net.feed())
    other.plan.step(Unchecked(other.feed()))
    assert net.bits() == other.bits()
    before = net.bits()
    for bad in (-1.0, float("nan"), "fast", True, lambda step: 1.0):
        with pytest.raises(ArgumentError, match="learning rate"):
            net.plan.step(net.feed(), learning_rate=bad)
    assert net.bits() == before and net.plan.step_count == 5


def test_a_schedule_is_asked_in_every_step():
    class Halving:
        def __call__(self, steps):
            return 0.5**steps

    x = pf.Placeholder("x", shape=(1,))
    w = pf.Parameter(np.zeros(1), name="w")
    plan = pf.compile(pf.Sum(w * x), pf.optimizers.SGD(Halving()))
    moves = []
    for _ in range(4):
        before = w.value.item()
        plan.step({x: np.ones(1, np.float32)})
        moves.append(before - w.value.item())
    assert moves == [1.0, 0.5, 0.25, 0.125]


# ---- what looks different is checked ----


def test_feeds_that_look_different_are_converted_as_before():
    net = Net()
    net.plan.step(net.feed())
    wanted = net.plan.run({net.x: net.xs[:8]}, net.out)
    wide = np.zeros((8, 6), np.float32)
    wide[:, ::2] = net.xs[:8]
    raw = bytearray(8 * 12 + 1)
    unaligned = np.frombuffer(raw, np.float32, 24, offset=1).reshape(8, 3)
    unaligned[...] = net.xs[:8]
    locked = net.xs[:8].copy()
    locked.flags.writeable = False
    for same in (
        wide[:, ::2],
        np.asfortranarray(net.xs[:8]),
        net.xs[:8][::-1][::-1],
        net.xs[:8].astype(np.float64),
        net.xs[:8].astype(">f4"),
        net.xs[:8].tolist(),
        net.xs[:8].view(np.matrix),
        unaligned,
        locked,
    ):
        np.testing.assert_array_equal(net.plan.run({net.x: same}, net.out), wanted)
        np.testing.assert_array_equal(net.plan.run({"x": same}, net.out), wanted)


def test_a_step_takes_unaligned_and_read_only_arrays():
    net, other = Net(), Net()
    raw = bytearray(8 * 12 + 2)
    unaligned = np.frombuffer(raw, np.float32, 24, offset=2).reshape(8, 3)
    unaligned[...] = net.xs[:8]
    labels = net.ys[:8].copy()
    labels.flags.writeable = False
    for _ in range(3):
        assert net.plan.step({net.x: unaligned, net.y: labels}) == other.plan.step(other.feed())
    assert net.bits() == other.bits() and net.plan.step_count == 3


def test_errors_are_those_of_the_slow_path_and_change_nothing():
    net = Net()
    net.plan.step(net.feed())
    before = net.bits()
    x, y = net.xs[:8], net.ys[:8]
    bad = y.copy()
    bad[5] = 4
    stranger = pf.Placeholder("z", shape=(None, 3))
    for error, feed in (
        (ShapeError, {net.x: x[:, :2].copy(), net.y: y}),
        (ShapeError, {net.x: x[:4].copy(), net.y: y}),
        (DTypeError, {net.x: x, net.y: y.astype(np.float32)}),
        (DTypeError, {net.x: x.astype(np.complex64), net.y: y}),
        (FeedError, {net.x: x}),
        (FeedError, {net.x: x, "z": y}),
        (FeedError, {net.x: x, net.y: y, "z": y}),
        (FeedError, {net.x: x, net.y: y, stranger: x}),
        (FeedError, [x, y]),
        (FeedError, None),
        (LabelError, {net.x: x, net.y: bad}),
        (LabelError, {net.x: x, net.y: y - 9}),
    ):
        for _ in range(2):
            with pytest.raises(error):
                net.plan.step(feed)
            assert net.bits() == before and net.plan.step_count == 1
    net.plan.step(net.feed())
    assert net.plan.step_count == 2


def test_names_and_placeholders_may_take_turns():
    net, other = Net(), Net()
    for i in range(6):
        feed = net.feed()
        named = [feed, {"x": feed[net.x], "y": feed[net.y]}, {"y": feed[net.y], net.x: feed[net.x]}]
        assert net.plan.step(named[i % 3]) == other.plan.step(Unchecked(other.feed()))
    assert net.bits() == other.bits()


def test_a_name_beside_its_placeholder_is_as_it_was():
    net = Net()
    feed = {net.x: net.xs[:8], net.y: net.ys[:8], "x": net.xs[8:16]}
    first = net.plan.step(feed)
    other = Net()
    assert first == other.plan.step({other.x: net.xs[8:16], other.y: net.ys[:8]})
    assert not is_fast(net.plan, feed)


def test_one_dimensional_targets_stay_a_column():
    x, y = pf.Placeholder("x", shape=(None, 1)), pf.Placeholder("y", shape=(None, 1))
    w = pf.Parameter(np.ones((1, 1)), name="w")
    plan = pf.compile(pf.L2Loss(y, x @ w), pf.optimizers.SGD(0.0))
    xs = np.arange(4, dtype=np.float32)
    feed = {x: xs[:, None].copy(), y: 2 * xs}
    assert plan.step(feed) == plan.step(feed) == np.mean(xs**2)
    assert is_fast(plan, feed)


def test_shapes_may_change_and_come_back():
    net, other = Net(), Net()
    for stop in (8, 4, 8, 1, 4, 64, 8):
        assert net.plan.step(net.feed(0, stop)) == other.plan.step(Unchecked(other.feed(0, stop)))
        assert net.plan.run({net.x: net.xs[:stop]}, net.out).shape == (stop, 4)
    assert net.bits() == other.bits()


def test_no_rows_and_no_axes():
    x = pf.Placeholder("x", shape=(None, 2))
    s = pf.Placeholder("s", shape=())
    plan = pf.compile([x * s, pf.Sum(s)])
    for rows in (0, 0, 3, 3, 0):
        feed = {x: np.ones((rows, 2), np.float32), s: np.array(2, np.float32)}
        product, total = plan.run(feed)
        np.testing.assert_array_equal(product, np.full((rows, 2), 2))
        assert total == 2 and total.shape == ()


def test_a_graph_without_placeholders_runs():
    w = pf.Parameter(np.ones(3), name="w")
    plan = pf.compile(pf.Sum(w * w), pf.optimizers.SGD(0.25))
    assert [plan.step({}) for _ in range(3)] == [3.0, 0.75, 0.1875]


def test_a_pattern_outlives_its_place_among_the_specializations():
    net, other = Net(), Net()
    net.plan.step(net.feed())
    for rows in range(1, 20):
        net.plan.run({net.x: net.xs[:rows]}, net.out)
    other.plan.step(other.feed())
    assert all("train" not in key for key in net.plan.engine.specializations)
    assert is_fast(net.plan, net.feed())
    assert net.plan.step(net.feed()) == other.plan.step(other.feed())
    assert net.bits() == other.bits()


def test_outputs_asked_for_by_turns_are_the_right_ones():
    net = Net()
    doubled = net.plan
    x = {net.x: net.xs[:8]}
    logits = doubled.run(x, net.out)
    both = doubled.run(net.feed(), [net.out, net.plan.cost])
    for _ in range(2):
        np.testing.assert_array_equal(doubled.run(x, net.out), logits)
        np.testing.assert_array_equal(doubled.run(net.feed(), [net.out])[0], logits)
        wanted = [net.out, net.plan.cost]
        for given, expected in zip(doubled.run(net.feed(), wanted), both, strict=True):
            np.testing.assert_array_equal(given, expected)
        wanted.reverse()  # the same list, with other values in it
        assert doubled.run(net.feed(), wanted)[0] == both[1]


def test_training_or_not_is_no_detail():
    x = pf.Placeholder("x", shape=(None, 50))
    plan = pf.compile(pf.Dropout(x, 0.5))
    ones = np.ones((4, 50), np.float32)
    for _ in range(3):
        np.testing.assert_array_equal(plan.run({x: ones}), ones)
        assert (plan.run({x: ones}, training=True) == 0).any()


def test_out_takes_the_result_and_is_checked():
    net = Net()
    x = {net.x: net.xs[:8]}
    wanted = net.plan.run(x, net.out)
    for dtype in (np.float32, np.float64):
        out = np.empty((8, 4), dtype)
        assert net.plan.run(x, net.out, out=out) is out
        np.testing.assert_array_equal(out, wanted)
    with pytest.raises(ArgumentError, match="out="):
        net.plan.run(x, net.out, out=np.empty((4, 8), np.float32))
    np.testing.assert_array_equal(net.plan.run(x, net.out), wanted)


# ---- what stops a run on the way ----


class Touchy(pf.Node):
    """Passes its input on, and does what it is told to before."""

    action = staticmethod(lambda: None)

    def forward(self, ctx, x):
        type(self).action()
        return x

    def backward(self, ctx, dy):
        return dy


def touchy_plan():
    x = pf.Placeholder("x", shape=(None, 2))
    w = pf.Parameter(np.ones((2, 1)), name="w")

    class Mine(Touchy):
        pass

    plan = pf.compile(pf.Mean(Mine(x @ w)), pf.optimizers.SGD(0.5))
    return plan, {x: np.ones((3, 2), np.float32)}, w, Mine


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
    (evaluation,) = [s for key, s in plan.engine.specializations.items() if key[0] == "evaluate"]
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


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer signal")
def test_interrupts_lose_no_step_and_count_none_twice():
    w = pf.Parameter(np.zeros(1), name="w", dtype="float64")
    plan = pf.compile(pf.Sum(w), pf.optimizers.SGD(1.0))
    start = time.perf_counter()
    for _ in range(50):
        plan.step({})
    several = (time.perf_counter() - start) / 10  # seconds of five steps, as this machine has them

    class Stop(BaseException):
        pass

    def stop(number, frame):
        raise Stop

    old = signal.signal(signal.SIGALRM, stop)
    try:
        for i in range(300):
            try:
                signal.setitimer(signal.ITIMER_REAL, several * (1 + i % 7))
                while True:
                    plan.step({})
            except Stop:
                pass
            assert w.value.item() == -plan.step_count  # each step moves w by 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert plan.step_count > 300


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer signal")
@pytest.mark.parametrize("what", ["claim", "write"])
def test_interrupts_leave_no_claim_behind(what):
    w = pf.Parameter(np.zeros(1), name="w")
    plan = pf.compile(pf.Sum(w), pf.optimizers.SGD(1.0))

    class Stop(BaseException):
        pass

    def stop(number, frame):
        raise Stop

    old = signal.signal(signal.SIGALRM, stop)
    try:
        for i in range(500):
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-5 * (1 + i % 7))
                while True:
                    with plan.claim() if what == "claim" else w.place.storage.guard.write():
                        pass
            except Stop:
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
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


# ---- memory ----


def test_what_was_fed_lives_as_long_as_it_can_be_read():
    net = Net(inspect=True)
    for i in range(3):
        x = net.xs[:8] + np.float32(i)
        alive = weakref.ref(x)
        net.plan.step({net.x: x, net.y: net.ys[:8]})
        expected = x.copy()
        del x
        gc.collect()
        assert alive() is not None
        np.testing.assert_array_equal(net.plan.value(net.x), expected)
    x = net.xs[:8] + np.float32(9)
    net.plan.step({net.x: x, net.y: net.ys[:8]})
    gc.collect()
    assert alive() is None


def test_a_refused_step_leaves_nothing_pointing_to_freed_memory():
    plan, feed, w, mine = touchy_plan()
    (x,) = feed
    plan.step({x: np.full((3, 2), 7, np.float32)})
    with plan.claim():
        for i in range(3):
            with pytest.raises(BusyError):
                plan.step({x: np.full((3, 2), i, np.float32)})
            gc.collect()
    assert plan.step_count == 1
    assert plan.step(feed) == pytest.approx(-5.0)  # w was 1, and became 1 - 0.5 * 7
    np.testing.assert_array_equal(plan.value(x), feed[x])


def test_a_plan_and_its_patterns_are_freed():
    net = Net()
    net.plan.step(net.feed())
    net.plan.run({net.x: net.xs[:8]}, net.out)
    alive = weakref.ref(net.plan)
    del net
    gc.collect()
    assert alive() is None


# ---- models ----


def test_predict_is_the_same_for_all_that_means_the_same():
    model = pf.Sequential([pf.layers.Dense(4, activation="relu"), pf.layers.Dense(2)])
    row = np.linspace(-1, 1, 13, dtype=np.float32).reshape(1, 13)
    wanted = model.predict(row)
    for same in (
        row,
        row.astype(np.float64),
        row.tolist(),
        np.asfortranarray(row),
        {"x": row},
        np.repeat(row, 2, axis=0)[::2],
    ):
        for _ in range(2):
            result = model.predict(same)
            np.testing.assert_array_equal(result, wanted)
            assert result.dtype == np.float32 and result.flags.owndata and result.flags.writeable
        np.testing.assert_array_equal(model.predict(same, batch_size=1), wanted)
    for wrong in (row[0], row[:, :12].copy(), np.zeros((1, 13), complex)):
        with pytest.raises((ShapeError, DTypeError)):
            model.predict(wrong)


def test_predict_sees_new_weights():
    model = pf.Sequential([pf.layers.Dense(1)], input_shape=(2,))
    row = np.ones((1, 2), np.float32)
    model.predict(row)
    weights = model.get_weights()
    model.set_weights({name: np.ones_like(value) for name, value in weights.items()})
    assert model.predict(row) == 3.0


# ---- loops ----


class Watch(pf.Node):
    """Passes its input on, and notes the address and a copy of it."""

    def forward(self, ctx, x):
        self.address, self.rows = x.ctypes.data, x.copy()
        return x

    def backward(self, ctx, dy):
        return dy


def test_a_full_batch_in_order_is_read_where_it_is():
    data = np.random.default_rng(0).normal(size=(2, 64, 3)).astype(np.float32)
    watches = [Watch(pf.Placeholder(name, shape=(None, 3))) for name in "xy"]
    w = pf.Parameter(np.ones(3), name="w")
    plan = pf.compile(pf.Mean(watches[0] * w + watches[1]), pf.optimizers.SGD(0.1))
    feed = dict(zip("xy", data, strict=True))
    with plan.loop(feed, epochs=2, batch_size=None, stop="step") as loop:
        for _ in range(2):
            loop.run()
            for watch, array in zip(watches, data, strict=True):
                assert watch.address == array.ctypes.data
    with plan.loop(feed, epochs=1, batch_size=16, shuffle=False, stop="step") as loop:
        for i in range(4):
            loop.run()
            for watch, array in zip(watches, data, strict=True):
                assert watch.address == array[16 * i :].ctypes.data


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 7, 8, 13, 16, 17, 33, 64, 65, 100])
def test_rows_of_every_length_are_gathered_whole(width, dtype):
    rows = np.arange(23 * width, dtype=dtype).reshape(23, width)
    x = pf.Placeholder("x", shape=(None, width), dtype=dtype)
    w = pf.Parameter(np.ones(1), name="w", dtype=dtype)
    watch = Watch(x)
    plan = pf.compile(pf.Mean(watch * w), pf.optimizers.SGD(0.0))
    order = pf.native.core.shuffle(3, 0, 23)
    with plan.loop({x: rows}, batch_size=10, seed=3, stop="step") as loop:
        for i in range(2):
            loop.run()
            np.testing.assert_array_equal(watch.rows, rows[order[10 * i : 10 * i + 10]])


def test_every_place_of_a_shuffle_is_as_likely_as_any_other():
    counts = np.zeros((5, 5))
    for epoch in range(4000):
        counts[np.arange(5), pf.native.core.shuffle(11, epoch, 5)] += 1
    # 800 expected, with a standard deviation of 25
    assert np.abs(counts - 800).max() < 5 * 25


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 127, 128, 129, 1000])
def test_a_shuffle_holds_every_index_once(count):
    np.testing.assert_array_equal(np.sort(pf.native.core.shuffle(0, 7, count)), np.arange(count))
