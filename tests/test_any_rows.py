"""Programs for any number of rows compute, to the bit, what a program for each number does."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pytest
from registered import OPS

import pyframe as pf
from pyframe.engine import growth, programs
from pyframe.engine.growth import FEWEST, room_for
from pyframe.graph.op import Case, Op
from pyframe.testing.draw import Draw

pytestmark = pytest.mark.sanitize

SIZES = (5, 9, 2, 3, 8, 30, 7, 29, 1, 6, 0, 40)  # up and down, beyond what there is room for


def most_rows(plan: pf.Plan) -> int:
    """Return the most rows that one of the programs of a plan takes; 0: each has its own."""
    return max(program.growth.rows for program in plan.engine.programs.all())


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], Any]:
    """Return what runs something with a program for each number of rows."""

    def run(call: Callable[[], Any]) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(programs, "rows_of", lambda feeds: None)
            return call()

    return run


# ---- all ops ----

# Their cases look at rows by their place, or have none that all their inputs share.
NONE_FOR_ANY = {
    *("gru_grad", "lstm_grad", "rnn_grad"),  # what they keep has its rows second
    *("pad", "remember", "reshape_like", "slice_grad"),
}


def cases_of(op: type[Op]) -> Iterator[Case]:
    yield from op.cases()
    for seed in range(8):
        yield op.sample(Draw(np.random.default_rng(seed)))


def rows_of_case(op: type[Op], case: Case) -> int:
    """Return the rows of the first input, 0 if it has none, or too few."""
    first = next((a for a in case.inputs if a is not None), None)
    shape = np.shape(first) if first is not None else ()
    return shape[0] if shape and shape[0] >= FEWEST else 0


def longer(array: Any, rows: int) -> np.ndarray:
    """Return an array with so many rows: its own, over and over."""
    return np.ascontiguousarray(np.asarray(array)[np.arange(rows) % len(array)])


class OneOp:
    """A graph of one op, the inputs of which that have rows are fed."""

    def __init__(self, op: type[Op], case: Case, rows: int) -> None:
        self.case, self.fed = case, {}
        inputs: list[Any] = []
        for i, given in enumerate(case.inputs):
            array = None if given is None else np.asarray(given)
            if array is None:
                inputs.append(None)
            elif array.shape[:1] == (rows,):
                dtype = "int64" if i in op.integer_inputs else "float32"
                x = pf.Placeholder(f"x{i}", (None, *array.shape[1:]), dtype)
                self.fed[x] = array
                inputs.append(x)
            else:
                is_label = i in op.integer_inputs
                dtype = "int64" if is_label else "float32"
                inputs.append(pf.Constant(array.astype(dtype), dtype=dtype))
        states = {"states": [pf.State(np.asarray(s, "float32")) for s in case.states]}
        self.node = op(*inputs, **case.attributes, **(states if case.states else {}))
        self.outputs = [self.node[i] for i in range(self.node.output_count)]
        self.plan = pf.compile(self.outputs)

    def run(self, rows: int) -> list[bytes] | str:
        feed = {x: longer(array, rows) for x, array in self.fed.items()}
        try:
            return [a.tobytes() for a in self.plan.run(feed, self.outputs)]
        except pf.PyframeError as error:
            return str(error)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.op)
def test_an_op_for_any_rows_has_the_bits_of_one_for_each(
    op: type[Op], anew: Callable[[Callable[[], Any]], Any]
) -> None:
    used = tried = 0
    for case in cases_of(op):
        rows = rows_of_case(op, case)
        if not rows:
            continue
        one = OneOp(op, case, rows)
        found = [(n, one.run(n)) for n in SIZES]
        for n, bits in found:
            other = OneOp(op, case, rows)
            assert bits == anew(partial(other.run, n)), (case.attributes, n)
        tried += 1
        used += most_rows(one.plan) > 0 if one.plan.engine.programs.kept else 0
    assert used or not tried or op.op in NONE_FOR_ANY


# ---- networks ----


def small_net() -> tuple[pf.Plan, pf.Placeholder, pf.Placeholder, pf.Value]:
    """Return a plan with dropout, normalization, a metric and Adam, with x, y and the output."""
    pf.set_seed(3)
    x, y = pf.Placeholder("x", (None, 6)), pf.Placeholder("y", (None,), "int64")
    layers = pf.layers
    model = pf.Sequential(
        [
            layers.Dense(16, "tanh"),
            layers.BatchNorm(),
            layers.Dropout(0.3),
            layers.Dense(4),
        ]
    )
    logits = model(x)
    optimizer = pf.optimizers.Adam(0.01, clip_norm=1.0)
    plan = pf.compile(
        pf.CrossEntropy(y, logits), optimizer, outputs=[logits], metrics=[pf.Accuracy(y, logits)]
    )
    return plan, x, y, logits


def batches(sizes: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [(rng.normal(size=(n, 6)).astype(np.float32), rng.integers(0, 4, n)) for n in sizes if n]


def everything(net: Any, sizes: Sequence[int]) -> list[Any]:
    """Train, predict and differentiate with batches of some sizes, and return all that comes."""
    plan, x, y, logits = net
    found: list[Any] = []
    for a, b in batches(sizes):
        found.append(plan.step({x: a, y: b}))
        found.append(plan.run({x: a}, logits).tobytes())
        found.append(plan.run({x: a}, logits, training=True).tobytes())
        loss, gradients = plan.loss_and_gradients({x: a, y: b})
        found += [loss, *(g.tobytes() for g in gradients.values())]
    return [*found, *(p.value.tobytes() for p in plan.parameters)]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_net_for_any_rows_has_the_bits_of_one_for_each(
    threads: int, anew: Callable[[Callable[[], Any]], Any]
) -> None:
    with pf.num_threads(threads):
        net = small_net()
        found = everything(net, SIZES)
        assert most_rows(net[0]) > 0
        assert found == anew(lambda: everything(small_net(), SIZES))


def test_one_program_serves_them_all() -> None:
    plan, x, y, _ = small_net()
    for a, b in batches(range(2, 200)):
        plan.step({x: a, y: b})
    assert len(plan.engine.programs.kept) <= programs.SPECIALIZATIONS
    assert room_for(199) == most_rows(plan)
    made = plan.engine.programs.all()
    for a, b in batches(range(150, 160)):
        plan.step({x: a, y: b})
    assert plan.engine.programs.all() == made


def test_the_first_number_of_rows_has_a_program_of_its_own() -> None:
    plan, x, y, _ = small_net()
    for a, b in batches([32] * 3):
        plan.step({x: a, y: b})
    (program,) = plan.engine.programs.all()
    assert program.growth.rows == 0


# ---- groups, tiles, places ----


class Net:
    """A plan of some output of x (None, width) and a weight, and its sum as the loss."""

    def __init__(self, make: Callable[[pf.Value, pf.Value], pf.Value], *shape: int) -> None:
        self.x = pf.Placeholder("x", (None, shape[0]))
        values = np.linspace(-1, 1, shape[0] * shape[1], dtype=np.float32)
        self.w = pf.Parameter(values.reshape(shape), name="w")
        self.out = make(self.x, self.w)
        self.plan = pf.compile(pf.Sum(self.out * self.out), outputs=[self.out])

    def run(self, rows: int) -> list[Any]:
        data = Draw(rows).normal((rows, self.w.shape[0])).astype(np.float32)
        loss, gradients = self.plan.loss_and_gradients({self.x: data})
        bits = [a.tobytes() for a in gradients.values()]
        return [loss, *bits, self.plan.run({self.x: data}, self.out).tobytes()]


NETS: dict[str, Callable[[pf.Value, pf.Value], pf.Value]] = {
    # with 17 rows, the most for 15 and 16, both have as many elements, and no group may have both
    "as many elements as a weight": lambda x, w: pf.Tanh(x) @ pf.Exp(w),
    "the weight first": lambda x, w: (
        pf.Exp(w) * 0.5 + pf.Transpose(pf.Sum(pf.Tanh(x), axis=0, keepdims=True))
    ),
    "a chain": lambda x, w: pf.Square(pf.Sigmoid(pf.Abs(x) * 0.5)) @ w,
    "a table of its own": lambda x, w: pf.Tanh(x @ w) * pf.Sum(w),
}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
def test_groups_are_as_long_as_the_rows(
    make: Any, threads: int, anew: Callable[[Callable[[], Any]], Any]
) -> None:
    sizes = (9, 15, 16, 3, 17, 12, 200, 150, 15)
    with pf.num_threads(threads):
        net = Net(make, 300, 17)
        found = [net.run(rows) for rows in sizes]
        assert most_rows(net.plan) >= 200
        assert found == anew(lambda: [Net(make, 300, 17).run(rows) for rows in sizes])


def test_a_group_reads_no_further_than_the_rows() -> None:
    """What lies behind them shows if it is read: the sanitizer sees that."""
    net = Net(lambda x, w: pf.Square(pf.Sigmoid(pf.Abs(x) * 0.5)), 300, 1)
    for rows in (20, 40, 18, 33):
        data = np.ones((rows, 300), np.float32)
        assert net.plan.run({net.x: data}, net.out).shape == (rows, 300)
    kernels = [row.kernel for program in net.plan.engine.programs.all() for row in program.rows]
    assert "group" in kernels


def chain_net() -> Net:
    return Net(lambda x, w: pf.Tanh(pf.Tanh(x @ w) @ pf.Transpose(pf.Exp(w))) @ w, 16, 64)


def test_batches_that_run_in_tiles_have_programs_of_their_own(
    anew: Callable[[Callable[[], Any]], Any],
) -> None:
    sizes = (300, 9000, 400, 8000, 350, 2000, 1500, 9000, 70, 3000)
    net = chain_net()
    found = [net.run(rows) for rows in sizes]
    kinds = {
        (program.growth.rows > 0, any(row.kernel == "tile" for row in program.rows))
        for program in net.plan.engine.programs.all()
    }
    assert (True, True) not in kinds
    assert {(True, False), (False, True)} <= kinds
    assert found == anew(lambda: [chain_net().run(rows) for rows in sizes])


@pytest.mark.parametrize("first", [20_000, 300])
def test_a_large_batch_does_not_keep_small_ones_from_it(first: int) -> None:
    net = chain_net()
    for rows in (first, 100, 20_000, 101, 300, 500):
        net.run(rows)
    made = len(net.plan.engine.programs.all())
    for rows in range(300, 320):
        net.run(rows)
    assert len(net.plan.engine.programs.all()) == made
    most = [p.growth.rows for p in net.plan.engine.programs.all() if p.growth.rows]
    assert max(most) == room_for(500)


def test_a_program_for_more_rows_stands_last() -> None:
    net = Net(NETS["a chain"], 6, 2)
    for rows in (4, 6, 1, 40):
        net.plan.run({net.x: np.ones((rows, 6))}, net.out)
    assert [p.growth.rows for p in net.plan.engine.programs.all()] == [0, 0, room_for(40)]


def test_how_many_rows_are_evaluated_at_once_is_no_matter_of_what_was_before() -> None:
    def evaluated(*sizes: int) -> Any:
        pf.set_seed(0)
        model = pf.Sequential([pf.layers.Dense(2000, "tanh"), pf.layers.Dense(1)])
        trainer = pf.Trainer(model, "l2", "sgd")
        data = Draw(0).normal((20_000, 30)).astype(np.float32)
        return [trainer.evaluate(data[:n], data[:n, :1])["loss"] for n in sizes][-1]

    assert evaluated(9000) == evaluated(20_000, 18_000, 9000)


# ---- what is no case for it ----


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x[:5],
        lambda x: x[1:],
        lambda x: x[::2],
        lambda x: x[-1:],
        lambda x: pf.Transpose(x),
        lambda x: pf.MatMul(x, x, transpose_b=True),
        lambda x: pf.Reshape(x, (-1, 2)),
        lambda x: pf.Concat(x, np.ones((3, 4), np.float32), axis=0),
        lambda x: pf.Softmax(x, axis=0),
        lambda x: pf.Cumsum(x, axis=0),
        lambda x: pf.Mean(x, axis=0),
        lambda x: pf.Max(x),
        lambda x: pf.Sum(x, axis=1),
    ],
)
def test_what_is_taken_of_the_rows_is_what_it_is(make: Callable[[pf.Value], pf.Value]) -> None:
    x = pf.Placeholder("x", (None, 4))
    w = pf.Parameter(np.linspace(-1, 1, 4, dtype=np.float32), name="w")
    out = make(x * w)
    plan = pf.compile(pf.Sum(pf.Square(out)), outputs=[out])
    for rows in (6, 7, 9, 20, 4, 8, 3, 2, 33):
        data = Draw(rows).normal((rows, 4)).astype(np.float32)
        fresh = pf.compile(pf.Sum(pf.Square(out)), outputs=[out])
        expected = fresh.run({x: data}, out)
        got = plan.run({x: data}, out)
        assert got.shape == expected.shape
        assert got.tobytes() == expected.tobytes()
        one, other = (p.loss_and_gradients({x: data}) for p in (plan, fresh))
        assert one[0] == other[0]
        assert one[1][w].tobytes() == other[1][w].tobytes()


class Odd(pf.Op):
    """An op that a program for any rows cannot have, for one reason."""

    op = "odd"
    kernel = "neg"
    attributes: ClassVar[dict[str, str]] = {"mode": "i8"}


class LessScratch(Odd):
    op = "less_scratch_for_more_rows"
    kernel = "neg"

    def scratch_bytes(self, specs: Any) -> int:
        return 4096 // specs[0].shape[0]


class AliasOfFew(Odd):
    op = "alias_of_few"
    kernel = "neg"

    def alias(self, specs: Any, training: bool) -> int | None:
        return 0 if specs[0].shape[0] < 5 else None


class Becomes(Odd):
    """Joins what reads it where there are few rows: then the graph is another one."""

    op = "becomes"
    kernel = "neg"

    def absorb(self, index: int, consumer: pf.Op, specs: Any) -> pf.Op | None:
        few = isinstance(consumer, pf.Abs) and specs[0].shape[0] < 5
        return Odd(self.inputs[0], mode=0) if few else None


class Fraction(Odd):
    op = "fraction_of_the_rows"
    kernel = "neg"
    attributes: ClassVar[dict[str, str]] = {"mode": "f8"}

    def lower_attributes(self, specs: Any) -> dict[str, Any]:
        return {"mode": 1 / specs[0].shape[0]}


class EachOther(Odd):
    op = "each_other_row"
    kernel = "neg"

    def lower_attributes(self, specs: Any) -> dict[str, Any]:
        return {"mode": specs[0].shape[0] // 2 * 2}


@pytest.mark.parametrize("op", Odd.__subclasses__(), ids=lambda op: op.op)
def test_what_depends_on_the_rows_in_other_ways_is_planned_each_time(op: type[pf.Op]) -> None:
    x = pf.Placeholder("x", (None, 2))
    plan = pf.compile(pf.Abs(op(x, mode=0)))
    for rows in (4, 5, 6, 3, 9):
        plan.run({x: np.ones((rows, 2))})
    assert most_rows(plan) == 0
    assert len(plan.engine.programs.kept) == 5


def test_feeds_with_different_numbers_of_rows() -> None:
    x, z = pf.Placeholder("x", (None, 2)), pf.Placeholder("z", (None, 2))
    plan = pf.compile(pf.Sum(x) + pf.Sum(z))
    for n, m in ((3, 4), (5, 6), (4, 4), (6, 6), (7, 3), (8, 8), (9, 9)):
        got = plan.run({x: np.ones((n, 2)), z: np.ones((m, 2))})
        assert got.item() == 2 * (n + m)


def test_several_extents_may_change() -> None:
    x = pf.Placeholder("x", (None, None))
    out = pf.Square(x)
    plan = pf.compile(out)
    for shape in ((3, 4), (4, 4), (5, 4), (5, 3), (4, 3), (6, 3), (40, 4), (7, 4)):
        data = Draw(1).normal(shape).astype(np.float32)
        np.testing.assert_array_equal(plan.run({x: data}), data * data)


# ---- what is around it ----


def test_results_go_where_they_are_wanted() -> None:
    plan, x, _, logits = small_net()
    fresh = small_net()
    for a, _ in batches((8, 9, 12, 10)):
        out = np.empty((len(a), 4), np.float32)
        assert plan.run({x: a}, logits, out=out) is out
        expected = fresh[0].run({fresh[1]: a}, fresh[3])
        assert out.tobytes() == expected.tobytes()
        both = plan.run({x: a}, [logits, x])
        assert [array.shape for array in both] == [(len(a), 4), (len(a), 6)]
        with pytest.raises(pf.ArgumentError, match=rf"\({len(a)}, 4\)"):
            plan.run({x: a}, logits, out=np.empty((len(a) + 1, 4), np.float32))


def test_values_are_those_of_the_last_run() -> None:
    x = pf.Placeholder("x", (None, 3))
    hidden = pf.Tanh(x)
    plan = pf.compile([hidden, pf.Sum(hidden, axis=1)])
    for rows in (4, 6, 5):
        data = Draw(rows).normal((rows, 3)).astype(np.float32)
        plan.run({x: data})
        assert plan.value(hidden).shape == (rows, 3)
        np.testing.assert_allclose(plan.value(hidden), np.tanh(data), rtol=1e-5)


def test_errors_speak_of_the_rows_at_hand() -> None:
    plan, x, y, _ = small_net()
    for a, b in batches((8, 9, 12)):
        plan.step({x: a, y: b})
    steps = plan.step_count
    (a, b) = batches((10,))[0]
    b[7] = 4
    with pytest.raises(pf.LabelError, match="label 4 at index 7"):
        plan.step({x: a, y: b})
    with pytest.raises(pf.ShapeError):
        plan.step({x: a, y: b[:9]})
    with pytest.raises(pf.ShapeError, match="6"):
        plan.step({x: a[:, :5], y: b})
    assert plan.step_count == steps
    b[7] = 3
    plan.step({x: a, y: b})


def test_a_watched_plan_names_the_rows() -> None:
    x = pf.Placeholder("x", (None, 3))
    plan = pf.compile(pf.Log(x), detect_anomaly=True)
    for rows in (4, 6):
        plan.run({x: np.ones((rows, 3))})
    with pytest.raises(pf.AnomalyError, match=r"\(5, 3\)"):
        plan.run({x: -np.ones((5, 3))})


def test_copies_begin_anew() -> None:
    net = small_net()
    everything(net, (4, 6, 8))
    plan = copy.deepcopy(net[0])
    names = {"x": batches((7,))[0][0], "y": batches((7,))[0][1]}
    assert plan.step(names) == net[0].step(names)


def test_a_printed_plan_says_what_goes_with_the_rows() -> None:
    plan, x, _, logits = small_net()
    for a, _ in batches((8, 9)):
        plan.run({x: a}, logits)
    text = str(plan)
    assert "(?, 4)" in text
    assert f"bytes are those of {room_for(9)}" in text


def test_threads_of_the_user_predict_with_rows_of_their_own() -> None:
    plan, x, _, logits = small_net()
    data = batches(range(2, 40))
    expected = [plan.run({x: a}, logits) for a, _ in data]
    wrong: list[int] = []

    def predict(start: int) -> None:
        for i in range(200):
            at = (start + 7 * i) % len(data)
            got = plan.run({x: data[at][0]}, logits)
            if got.tobytes() != expected[at].tobytes():
                wrong.append(at)

    threads = [threading.Thread(target=predict, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_batches_of_all_lengths_train_as_they_would_each(
    anew: Callable[[Callable[[], Any]], Any],
) -> None:
    data = batches([20, 7, 13, 2, 20, 31, 18, 6, 19, 5, 1, 40])

    def train() -> tuple[list[bytes], list[Any]]:
        pf.set_seed(5)
        model = pf.Sequential(
            [pf.layers.Dense(8, "relu"), pf.layers.Dropout(0.2), pf.layers.Dense(4)]
        )
        trainer = pf.Trainer(model, "cross_entropy", "adam", metrics=["accuracy"])
        history = trainer.fit(lambda: iter(data), epochs=3, verbose=0, seed=2)
        return [p.value.tobytes() for p in model.parameters], history["loss"]

    found = train()
    assert found == anew(train)


def test_targets_whose_rows_are_fixed_in_a_program() -> None:
    """A placeholder without a shape has those of its feed, whatever other feeds have."""
    x, y = pf.Placeholder("x", (None, 3)), pf.Placeholder("y")
    w = pf.Parameter(np.ones((3, 1), np.float32), name="w")
    plan = pf.compile(pf.Mean(x @ w) + pf.Mean(y), pf.optimizers.SGD(0.1))
    for n in (6, 7):
        plan.step({x: np.ones((n, 3)), y: np.ones((9, 1))})
    before = w.value.copy()
    feeds = [{x: np.full((n, 3), n), y: np.ones((n, 1))} for n in (6, 9, 4, 7)]
    losses = [plan.step(feed) for feed in feeds]
    other = pf.Parameter(before, name="w")
    again = pf.compile(pf.Mean(x @ other) + pf.Mean(y), pf.optimizers.SGD(0.1))
    assert losses == [again.step(feed) for feed in feeds]


def test_a_part_that_is_longer_than_those_before_it(
    anew: Callable[[Callable[[], Any]], Any],
) -> None:
    data = batches([4, 6, 5, 17, 3, 33, 2, 8])

    def train() -> list[bytes]:
        pf.set_seed(5)
        model = pf.Sequential([pf.layers.Dense(8, "relu"), pf.layers.Dense(4)])
        trainer = pf.Trainer(model, "cross_entropy", "adam")
        trainer.fit(lambda: iter(data), epochs=3, accumulate=2, verbose=0, seed=2)
        return [p.value.tobytes() for p in model.parameters]

    assert train() == anew(train)


def test_what_was_found_is_checked_against_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong answer of the comparison changes results: the tests above can fail."""
    right = growth.compare

    def careless(*given: Any) -> Any:
        found = right(*given)
        if found is not None:
            found.attributes.clear()  # as if no attribute went with the rows
        return found

    monkeypatch.setattr("pyframe.engine.lowering.compare", careless)
    plan, x, y, _ = small_net()
    losses = [plan.step({x: a, y: b}) for a, b in batches((8, 9))]
    monkeypatch.undo()
    other, x, y, _ = small_net()
    assert losses != [other.step({x: a, y: b}) for a, b in batches((8, 9))]
