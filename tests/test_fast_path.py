"""A feed that looks like the last one is not checked again: the same bits, the same errors."""

import gc
import sys
import weakref

import numpy as np
import pytest
from quick_net import Net, Unchecked, is_fast, touchy_plan

import pyframe as pf
from pyframe.errors import (
    ArgumentError,
    BusyError,
    DTypeError,
    FeedError,
    LabelError,
    ShapeError,
)

pytestmark = pytest.mark.sanitize

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
        net.plan.run({net.x: net.xs[:1]}, [net.out] * rows)
    other.plan.step(other.feed())
    assert all("train" not in key[0] for key in net.plan.engine.programs.kept)
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


@pytest.mark.parametrize("known", [False, True], ids=["first", "again"])
def test_out_of_any_form_takes_the_same_bits_or_is_refused(known):
    net = Net()
    feed = {net.x: net.xs[:8]}
    wanted = net.plan.run(feed if known else Unchecked(feed), net.out)
    strided = np.zeros((8, 8), np.float32)[:, ::2]
    unaligned = np.frombuffer(bytearray(8 * 4 * 4 + 1), np.float32, 32, offset=1).reshape(8, 4)
    for out in (
        np.zeros((8, 4), np.float32),
        np.zeros((8, 4), np.float32, order="F"),
        np.zeros((8, 4), ">f4"),
        np.zeros((8, 4), np.float64),
        np.zeros((8, 4), np.float32).view(np.matrix),
        strided,
        unaligned,
    ):
        assert net.plan.run(feed, net.out, out=out) is out
        np.testing.assert_array_equal(np.asarray(out), wanted)
    locked = np.zeros((8, 4), np.float32)
    locked.flags.writeable = False
    for out in (
        locked,
        np.zeros((4, 8), np.float32),
        np.zeros(32, np.float32),
        np.zeros((8, 4, 1), np.float32),
        np.zeros((8, 4), np.int64),
        bytearray(128),
        [[0.0] * 4] * 8,
        (),
    ):
        with pytest.raises(ArgumentError, match="out="):
            net.plan.run(feed, net.out, out=out)
        assert not np.any(np.asarray(locked))
    np.testing.assert_array_equal(net.plan.run(feed, net.out), wanted)
    several = [np.zeros((8, 4), np.float32)]
    assert net.plan.run(feed, [net.out], out=several) is several
    np.testing.assert_array_equal(several[0], wanted)


def test_out_may_be_what_is_fed():
    x = pf.Placeholder("x", shape=(None, 4))
    double = 2 * x
    plan = pf.compile(double)
    array = np.ones((2, 4), np.float32)
    for n in range(1, 4):
        (result,) = plan.run({x: array}, [double], out=[array])
        assert result is array
        np.testing.assert_array_equal(array, np.full((2, 4), 2**n))
    for n in range(4, 7):
        assert plan.run({x: array}, out=array) is array
        np.testing.assert_array_equal(array, np.full((2, 4), 2**n))


@pytest.mark.parametrize("count", [1, 15, 16, 17, 40])
def test_a_graph_may_have_any_number_of_feeds(count):
    xs = [pf.Placeholder(f"x{i}", shape=(None, 2)) for i in range(count)]
    w = pf.Parameter(np.array(1.0), name="w")
    total = w * sum(xs[1:], xs[0])
    plan = pf.compile(pf.Sum(total), pf.optimizers.SGD(0.0), outputs=[total])
    feed = {x: np.full((3, 2), i + 1, np.float32) for i, x in enumerate(xs)}
    expected = count * (count + 1) / 2
    for _ in range(3):
        assert plan.step(feed) == 6 * expected
        np.testing.assert_array_equal(plan.run(feed, total), np.full((3, 2), expected))
    assert is_fast(plan, feed)
    feed[xs[-1]] = np.zeros((3, 3), np.float32)
    with pytest.raises(ShapeError):
        plan.step(feed)


def test_a_seed_may_be_an_integer_of_numpy():
    x = pf.Placeholder("x", shape=(None, 50))
    ones = np.ones((4, 50), np.float32)
    masks = []
    for seed in (7, np.int64(7), np.uint8(7)):
        plan = pf.compile(pf.Dropout(x, 0.5), seed=seed)
        masks += [plan.run({x: ones}, training=True) for _ in range(2)]
    for mask in masks[1:]:
        np.testing.assert_array_equal(mask, masks[0])


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "a", None])
def test_a_seed_that_is_none_is_refused_where_it_is_set(seed):
    net = Net()
    with pytest.raises(ArgumentError, match="seed is"):
        net.plan.seed = seed
    assert net.plan.seed == 0
    with pytest.raises(ArgumentError, match="seed is"):
        Net(seed=seed)


@pytest.mark.parametrize("what", ["step", "run"])
def test_references_are_neither_lost_nor_kept(what):
    net = Net()
    feed = net.feed()
    out = np.zeros((8, 4), np.float32)
    bad = feed[net.y].copy()
    bad[3] = 9

    def once():
        if what == "step":
            net.plan.step(feed)
            with pytest.raises(LabelError):
                net.plan.step({net.x: feed[net.x], net.y: bad})
        else:
            net.plan.run({net.x: feed[net.x]}, net.out)
            net.plan.run({net.x: feed[net.x]}, net.out, out=out)
            net.plan.run({net.x: feed[net.x][:, ::-1][:, ::-1]}, net.out)

    def counts():
        gc.collect()
        arrays = (feed[net.x], feed[net.y], out, bad, np.ndarray, np.dtype("float32"))
        return [sys.getrefcount(a) for a in (net.x, net.y, net.plan.engine.latest, *arrays, None)]

    for _ in range(5):
        once()
    before = counts()
    for _ in range(500):
        once()
    assert np.abs(np.subtract(counts(), before)).max() < 100


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


@pytest.mark.parametrize("rows", [4, None])
@pytest.mark.parametrize("fed", [False, True])
def test_several_outputs_are_arrays_of_their_own(rows: int | None, fed: bool) -> None:
    """Where they stay from run to run, and where feeds or numbers of rows move them."""
    x = pf.Placeholder("x", shape=(rows, 3))
    plan = pf.compile([x * 2.0, x + 1.0, *([x, pf.Reshape(x, (-1,))] if fed else [])])
    runs = []
    for value in (1.0, 5.0, -3.0):  # the first one by the long way
        given = np.full((4 if rows else 2 + len(runs), 3), value, np.float32)
        runs.append((given.copy(), plan.run({x: given})))
        given[:] = 0
    for given, arrays in runs:
        wanted = [2 * given, given + 1, *([given, given.ravel()] if fed else [])]
        for array, numbers in zip(arrays, wanted, strict=True):
            np.testing.assert_array_equal(array, numbers)
    found = [array for _, arrays in runs for array in arrays]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(found) for b in found[:i])
