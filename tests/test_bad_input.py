"""Wrong and awkward input to graphs and plans: a typed error, or the right result; nothing lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.errors import (
    AnomalyError,
    ArgumentError,
    BusyError,
    DTypeError,
    FeedError,
    GraphError,
    LabelError,
    PyframeError,
    ShapeError,
)

pytestmark = pytest.mark.sanitize

ROWS, COLUMNS, CLASSES = 6, 4, 3


class Classifier:
    """A linear classifier with its plan, its data, and a way to see that it is still the same."""

    def __init__(self, **options: Any) -> None:
        rng = np.random.default_rng(0)
        self.x = pf.Placeholder("x", shape=(None, COLUMNS), dtype="float64")
        self.labels = pf.Placeholder("labels", shape=(None,), dtype="int64")
        self.w = pf.Parameter(rng.normal(size=(COLUMNS, CLASSES)), name="w", dtype="float64")
        self.b = pf.Parameter(rng.normal(size=CLASSES), name="b", dtype="float64")
        self.logits = pf.Linear(self.x, self.w, self.b, name="scores")
        self.cost = pf.CrossEntropy(self.labels, self.logits, name="loss")
        sgd = pf.optimizers.SGD(0.1, momentum=0.9)
        self.plan = pf.compile(self.cost, optimizer=sgd, outputs=[self.logits], **options)
        self.rows = rng.normal(size=(ROWS, COLUMNS))
        self.truth = np.arange(ROWS) % CLASSES

    def feed(self, **changes: Any) -> dict[Any, Any]:
        return {"x": self.rows, "labels": self.truth, **changes}

    def scores(self, rows: Any) -> Any:
        return self.plan.run({self.x: rows}, outputs=self.logits)

    def expected(self, rows: Any) -> Any:
        return np.asarray(rows, np.float64) @ self.w.value + self.b.value

    def refuses(self, error: type[Exception], match: str, **changes: Any) -> None:
        """See that each way of running refuses a feed, and that nothing has changed by it."""
        before = [p.value.copy() for p in (self.w, self.b)]
        steps = self.plan.step_count
        for run in (self.plan.step, self.plan.run, self.plan.loss_and_gradients):
            with pytest.raises(error, match=match) as caught:
                run(self.feed(**changes))
            assert isinstance(caught.value, PyframeError)
        assert self.plan.step_count == steps
        for parameter, old in zip((self.w, self.b), before, strict=True):
            assert np.array_equal(parameter.value, old)
        assert np.isfinite(self.plan.step(self.feed()))  # and it goes on


@pytest.fixture
def classifier() -> Classifier:
    return Classifier()


# ---- shapes ----


def test_shapes_that_do_not_fit_are_refused_when_the_graph_is_built() -> None:
    x = pf.Placeholder("pixels", shape=(None, 5))
    with pytest.raises(ShapeError, match=r"middle.*pixels \(\?, 5\).*weights \(4, 3\)"):
        pf.Linear(x, pf.Parameter(np.ones((4, 3)), name="weights"), name="middle")
    with pytest.raises(ValueError, match="middle"):
        pf.Linear(x, np.ones((4, 3)), name="middle")


@pytest.mark.parametrize(
    "rows", [np.ones((6, 5)), np.ones((6, 3)), np.ones(4), np.ones((6, 4, 1)), np.ones(()), 1.0, []]
)
def test_a_feed_of_another_shape_is_refused(classifier: Classifier, rows: Any) -> None:
    classifier.refuses(ShapeError, r"'x'.*\(\?, 4\)", x=rows)


def test_feeds_that_do_not_fit_each_other_are_refused(classifier: Classifier) -> None:
    classifier.refuses(ShapeError, "loss", labels=classifier.truth[:-1])


@pytest.mark.parametrize("shape", [(-1, 3), ("a", 2), (2.5j,), object()])
def test_a_shape_that_is_none_is_refused(shape: Any) -> None:
    with pytest.raises(ShapeError, match="x"):
        pf.Placeholder("x", shape=shape)


def test_ragged_lists_are_refused(classifier: Classifier) -> None:
    classifier.refuses(PyframeError, "x", x=[[1.0, 2.0], [3.0]])


# ---- feeds ----


def test_a_missing_feed_is_named(classifier: Classifier) -> None:
    with pytest.raises(FeedError, match="'labels' is not fed"):
        classifier.plan.step({"x": classifier.rows})
    with pytest.raises(KeyError):
        classifier.plan.run({})


@pytest.mark.parametrize("key", ["z", 3, None, pf.Placeholder("stranger", shape=(None,))])
def test_an_unknown_feed_is_named(classifier: Classifier, key: Any) -> None:
    name = key.name if isinstance(key, pf.Placeholder) else str(key)
    with pytest.raises(FeedError, match=name):
        classifier.plan.step({**classifier.feed(), key: 1.0})


@pytest.mark.parametrize("feed", [None, [1.0], np.ones(3)])
def test_a_feed_that_is_no_dict_is_refused(classifier: Classifier, feed: Any) -> None:
    with pytest.raises(FeedError, match="dict"):
        classifier.plan.run(feed)


def test_what_an_output_does_not_need_need_not_be_fed(classifier: Classifier) -> None:
    assert np.allclose(classifier.scores(classifier.rows), classifier.expected(classifier.rows))


# ---- dtypes ----


@pytest.mark.parametrize(
    "rows",
    [
        np.ones((ROWS, COLUMNS), complex),
        np.full((ROWS, COLUMNS), object()),
        np.full((ROWS, COLUMNS), "1.0"),
        np.full((ROWS, COLUMNS), b"1"),
        np.zeros((ROWS, COLUMNS), "datetime64[s]"),
        np.zeros((ROWS, COLUMNS), [("a", "f8")]),
        "words",
    ],
    ids=["complex", "object", "string", "bytes", "datetime", "record", "str"],
)
def test_what_is_no_real_number_is_refused(classifier: Classifier, rows: Any) -> None:
    classifier.refuses(DTypeError, "x", x=rows)


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int64", "uint64", "bool", "float16"])
def test_other_real_numbers_become_floats(classifier: Classifier, dtype: str) -> None:
    rows = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS).astype(dtype)
    assert np.allclose(classifier.scores(rows), classifier.expected(rows))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats_for_labels_are_refused(classifier: Classifier, dtype: str) -> None:
    classifier.refuses(DTypeError, "labels.*integers", labels=classifier.truth.astype(dtype))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint64"])
def test_any_integers_are_labels(classifier: Classifier, dtype: str) -> None:
    losses = [
        classifier.plan.run(
            classifier.feed(labels=classifier.truth.astype(d)), outputs=classifier.cost
        )
        for d in (dtype, "int64")
    ]
    assert losses[0] == losses[1]


def test_an_unsigned_label_beyond_int64_is_refused(classifier: Classifier) -> None:
    classifier.refuses(DTypeError, "labels", labels=np.full(ROWS, 2**63 + 1, np.uint64))


def test_mixed_dtypes_are_refused_when_the_graph_is_built() -> None:
    x = pf.Placeholder("x", shape=(None, 2), dtype="float32")
    with pytest.raises(DTypeError, match=r"middle.*w.*float64"):
        pf.Linear(x, pf.Parameter(np.ones((2, 2)), name="w", dtype="float64"), name="middle")
    with pytest.raises(DTypeError, match="float16"):
        pf.Placeholder("x", dtype="float16")
    with pytest.raises(DTypeError, match="float32"):
        pf.Parameter(np.ones(2), dtype="int64")


# ---- labels ----


@pytest.mark.parametrize("label", [-1, CLASSES, -(2**63), 2**62])
def test_a_label_out_of_range_is_named(classifier: Classifier, label: int) -> None:
    labels = classifier.truth.copy()
    labels[4] = label
    classifier.refuses(LabelError, rf"loss.*{label} at index 4.*\[0, {CLASSES}\)", labels=labels)


@pytest.mark.parametrize(
    "given",
    [
        {"shuffle": False},
        {"shuffle": True},
        {"shuffle": False, "order": lambda e: np.arange(6)[::-1]},
    ],
)
@pytest.mark.parametrize("row", [0, 3, 5])
def test_an_epoch_names_the_row_of_a_label_out_of_range(
    classifier: Classifier, row: int, given: dict[str, Any]
) -> None:
    labels = classifier.truth[:6].copy()
    labels[row] = -7
    feeds = {classifier.x: classifier.rows[:6], classifier.labels: labels}
    loop = classifier.plan.loop(feeds, epochs=1, batch_size=4, **given)
    with loop, pytest.raises(LabelError, match=rf"label -7 .* it is in row {row} of the data"):
        while True:
            loop.run(60.0)


def test_a_label_out_of_range_stops_an_epoch_before_its_update(classifier: Classifier) -> None:
    labels = classifier.truth.copy()
    labels[5] = CLASSES
    feeds = {classifier.x: classifier.rows, classifier.labels: labels}
    loop = classifier.plan.loop(feeds, epochs=2, batch_size=2, shuffle=False)
    with loop, pytest.raises(LabelError, match=str(CLASSES)):
        loop.run(60.0)
    # Two batches were whole; the third, with the wrong label, left nothing behind.
    assert classifier.plan.step_count == 2
    other = Classifier()
    for first in (0, 2):
        part = slice(first, first + 2)
        other.plan.step({"x": other.rows[part], "labels": other.truth[part]})
    assert np.array_equal(classifier.w.value, other.w.value)


# ---- extents of zero, and very large ones ----


def test_no_rows_are_legal_for_run(classifier: Classifier) -> None:
    assert classifier.scores(np.empty((0, COLUMNS))).shape == (0, CLASSES)


def test_no_columns_are_legal() -> None:
    x = pf.Placeholder("x", shape=(None, 0))
    plan = pf.compile(pf.Linear(x, np.ones((0, 3)), np.arange(3.0)))
    assert np.array_equal(plan.run({x: np.empty((2, 0))}), [[0, 1, 2], [0, 1, 2]])


def test_counts_beyond_2_to_the_31_are_legal_and_beyond_2_to_the_63_refused() -> None:
    many = pf.Placeholder("many", shape=(2**31 + 5, 3))
    y = pf.Linear(many, np.ones((3, 2)))
    assert y.shape == (2**31 + 5, 2)
    with pytest.raises(ShapeError, match="endless"):
        pf.Placeholder("endless", shape=(2**31, 2**31, 4))
    tall = pf.Placeholder("tall", shape=(2**40, 1))
    wide = pf.Placeholder("wide", shape=(1, 2**40))
    with pytest.raises(ShapeError, match=r"product.*tall.*wide"):
        pf.MatMul(tall, wide, name="product")


# ---- NaN and infinity ----


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_go_through(classifier: Classifier, value: float) -> None:
    rows = classifier.rows.copy()
    rows[2, 1] = value
    scores = classifier.scores(rows)
    assert not np.isfinite(scores[2]).any()
    keep = np.arange(ROWS) != 2
    assert np.allclose(scores[keep], classifier.expected(classifier.rows[keep]))


def test_detect_anomaly_names_the_first_node_that_makes_one() -> None:
    x = pf.Placeholder("x", shape=(None,))
    y = pf.Exp(pf.Log(x, name="logarithm"), name="exponential")
    plan = pf.compile(y, detect_anomaly=True)
    with pytest.raises(AnomalyError, match="logarithm"):
        plan.run({x: [1.0, 0.0]})
    assert np.allclose(plan.run({x: [1.0, 2.0]}), [1.0, 2.0])


def test_an_anomaly_leaves_parameters_alone() -> None:
    classifier = Classifier(detect_anomaly=True)
    classifier.refuses(AnomalyError, "scores", x=np.full((ROWS, COLUMNS), np.inf))


# ---- memory that is laid out otherwise ----


def misaligned(rows: Any) -> Any:
    raw = np.zeros(rows.nbytes + 1, np.uint8)
    view = raw[1:].view(rows.dtype).reshape(rows.shape)
    view[...] = rows
    assert not view.flags.aligned
    return view


def read_only(rows: Any) -> Any:
    rows.flags.writeable = False
    return rows


LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "Fortran order": np.asfortranarray,
    "every other column": lambda rows: np.repeat(rows, 2, axis=1)[:, ::2],
    "negative strides": lambda rows: rows[::-1, ::-1].copy()[::-1, ::-1],
    "transposed": lambda rows: np.ascontiguousarray(rows.T).T,
    "misaligned": misaligned,
    "big-endian": lambda rows: rows.astype(rows.dtype.newbyteorder(">")),
    "read-only": read_only,
    "broadcast": lambda rows: np.broadcast_to(rows[0], rows.shape),
    "a list": lambda rows: rows.tolist(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_of_memory_is_read_correctly(layout: str) -> None:
    ours, plain = Classifier(), Classifier()
    rows = LAYOUTS[layout](ours.rows.copy())
    labels = LAYOUTS[layout](np.tile(ours.truth[:, None], (1, 2)))
    labels = np.asarray(labels)[:, 0] if layout != "misaligned" else misaligned(ours.truth)
    kept = np.array(rows)
    same = {"x": np.array(rows, np.float64), "labels": np.array(labels, np.int64)}
    assert np.array_equal(ours.scores(rows), plain.scores(same["x"]))
    assert ours.plan.step({"x": rows, "labels": labels}) == plain.plan.step(same)
    assert np.array_equal(ours.w.value, plain.w.value)
    assert np.array_equal(rows, kept)
    with ours.plan.loop({ours.x: rows, ours.labels: labels}, epochs=2, batch_size=4) as loop:
        assert loop.run(60.0) == "done"
    with plain.plan.loop(
        {plain.x: same["x"], plain.labels: same["labels"]}, epochs=2, batch_size=4
    ) as loop:
        assert loop.run(60.0) == "done"
    assert np.array_equal(ours.w.value, plain.w.value)


def test_out_may_be_the_fed_array_itself() -> None:
    x = pf.Placeholder("x", shape=(None, 3), dtype="float64")
    w = np.arange(9.0).reshape(3, 3)
    plan = pf.compile(pf.Linear(x, pf.Constant(w, dtype="float64")))
    rows = np.random.default_rng(0).normal(size=(5, 3))
    expected = rows @ w
    shifted = np.concatenate([rows, rows])  # out overlaps the input, one row further on
    assert plan.run({x: rows}, out=rows) is rows
    assert np.allclose(rows, expected)
    plan.run({x: shifted[:5]}, out=shifted[1:6])
    assert np.allclose(shifted[1:6], expected)


def test_a_parameter_can_be_fed_and_is_not_written_through() -> None:
    classifier = Classifier()
    with pytest.raises(ValueError, match="read-only"):
        classifier.w.value[0, 0] = 1.0
    with pytest.raises(ShapeError, match="w"):
        classifier.w.value = np.ones(3)
    with pytest.raises(DTypeError, match="w"):
        classifier.w.value = np.ones((COLUMNS, CLASSES), complex)


@pytest.mark.parametrize("out", [np.empty((ROWS, 1)), [1.0], None.__class__])
def test_an_out_of_the_wrong_shape_is_refused(classifier: Classifier, out: Any) -> None:
    with pytest.raises(ArgumentError, match="out="):
        classifier.plan.run({classifier.x: classifier.rows}, outputs=classifier.logits, out=out)


# ---- arguments ----


@pytest.mark.parametrize("rate", [float("nan"), -0.1, float("inf"), None.__class__])
def test_a_rate_that_makes_no_sense_is_refused(classifier: Classifier, rate: Any) -> None:
    before = classifier.w.value.copy()
    with pytest.raises(ArgumentError, match="learning rate"):
        classifier.plan.step(classifier.feed(), learning_rate=rate)
    if isinstance(rate, float):
        with pytest.raises(ArgumentError, match="learning"):
            pf.optimizers.SGD(rate)
    assert np.array_equal(classifier.w.value, before)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "all"])
def test_a_batch_size_that_makes_no_sense_is_refused(
    classifier: Classifier, batch_size: Any
) -> None:
    feeds = {classifier.x: classifier.rows, classifier.labels: classifier.truth}
    with pytest.raises(ArgumentError, match="batch_size"):
        classifier.plan.loop(feeds, batch_size=batch_size)
    assert np.isfinite(classifier.plan.step(classifier.feed()))


def test_a_batch_larger_than_the_data_is_refused(classifier: Classifier) -> None:
    feeds = {classifier.x: classifier.rows, classifier.labels: classifier.truth}
    with pytest.raises(ArgumentError, match="larger than the data"):
        classifier.plan.loop(feeds, batch_size=1000)
    classifier.plan.step(classifier.feed())  # and the plan is not left claimed


def test_data_of_unequal_lengths_is_refused(classifier: Classifier) -> None:
    feeds = {classifier.x: classifier.rows, classifier.labels: classifier.truth[:-1]}
    with pytest.raises(ShapeError, match=r"rows.*(6.*5|5.*6)"):
        classifier.plan.loop(feeds)


def test_data_without_rows_is_refused(classifier: Classifier) -> None:
    feeds = {classifier.x: classifier.rows[:0], classifier.labels: classifier.truth[:0]}
    with pytest.raises(ArgumentError, match="empty"):
        classifier.plan.loop(feeds)


def test_a_loss_that_is_no_scalar_is_refused() -> None:
    w = pf.Parameter(np.ones(3), name="w")
    with pytest.raises((ShapeError, GraphError), match=r"\(3,\)"):
        pf.compile(w * w, optimizer=pf.optimizers.SGD(0.1)).step({})


# ---- code of the user's that raises, and threads of the user's ----


class Trap(pf.Node):
    """y = x, until it is told to raise."""

    where = ""

    def forward(self, ctx: Any, *inputs: Any) -> Any:
        if Trap.where == "forward":
            raise RuntimeError("a mistake in forward")
        return inputs[0]

    def backward(self, ctx: Any, *grads: Any) -> Any:
        if Trap.where == "backward":
            raise RuntimeError("a mistake in backward")
        return grads[0]


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_the_exception_of_a_python_node_comes_out_as_it_is(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = pf.Placeholder("x", shape=(None, 2), dtype="float64")
    w = pf.Parameter(np.ones((2, 1)), name="w", dtype="float64")
    cost = pf.Mean(pf.Square(Trap(x @ w)))
    plan = pf.compile(cost, optimizer=pf.optimizers.SGD(0.1))
    rows = np.ones((3, 2))
    plan.step({x: rows})
    before = w.value.copy()
    monkeypatch.setattr(Trap, "where", where)
    with pytest.raises(RuntimeError, match=f"a mistake in {where}"):
        plan.step({x: rows})
    loop = plan.loop({x: rows}, epochs=3)
    with loop, pytest.raises(RuntimeError, match=f"a mistake in {where}"):
        loop.run(60.0)
    assert np.array_equal(w.value, before) and plan.step_count == 1
    monkeypatch.setattr(Trap, "where", "")
    assert plan.step({x: rows}) > 0
    assert not np.array_equal(w.value, before)


class Wrong(pf.Node):
    """Returns whatever the test wants."""

    result: Any = None

    def forward(self, ctx: Any, *inputs: Any) -> Any:
        return Wrong.result

    def backward(self, ctx: Any, *grads: Any) -> Any:
        return grads[0]


@pytest.mark.parametrize(
    ("result", "error"),
    [
        (np.ones((2, 2)), ShapeError),
        (np.ones(3, complex), DTypeError),
        ("text", DTypeError),
        (None, PyframeError),
        ((np.ones(3), np.ones(3)), GraphError),
    ],
)
def test_what_a_python_node_returns_is_checked(
    result: Any, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = pf.Placeholder("x", shape=(None,))
    plan = pf.compile(Wrong(x, name="mine"))
    monkeypatch.setattr(Wrong, "result", result)
    with pytest.raises(error, match="mine"):
        plan.run({x: np.ones(3)})
    monkeypatch.setattr(Wrong, "result", np.arange(3.0))
    assert np.array_equal(plan.run({x: np.ones(3)}), [0, 1, 2])


class Gate(pf.Node):
    """Lets a step wait inside, so that another thread can knock."""

    entered = threading.Event()
    opened = threading.Event()

    def forward(self, ctx: Any, *inputs: Any) -> Any:
        Gate.entered.set()
        assert Gate.opened.wait(30)
        return inputs[0]

    def backward(self, ctx: Any, *grads: Any) -> Any:
        return grads[0]


def test_a_second_thread_is_told_that_the_plan_is_busy_and_may_predict() -> None:
    x = pf.Placeholder("x", shape=(None, 2), dtype="float64")
    w = pf.Parameter(np.ones((2, 1)), name="w", dtype="float64")
    y_hat = pf.Linear(x, w)
    plan = pf.compile(pf.Mean(Gate(y_hat)), optimizer=pf.optimizers.SGD(0.1), outputs=[y_hat])
    rows = np.ones((3, 2))
    losses: list[float] = []
    trainer = threading.Thread(target=lambda: losses.append(plan.step({x: rows})))
    trainer.start()
    try:
        assert Gate.entered.wait(30)
        with pytest.raises(BusyError):
            plan.step({x: rows})
        with pytest.raises(BusyError):
            plan.loop({x: rows}).run(1.0)
        answers: list[Any] = []
        readers = [
            threading.Thread(target=lambda: answers.append(plan.run({x: rows}, outputs=y_hat)))
            for _ in range(4)
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(30)
        assert len(answers) == 4
        assert all(np.array_equal(a, np.full((3, 1), 2.0)) for a in answers)
    finally:
        Gate.opened.set()
        trainer.join(30)
    assert losses == [2.0]
    assert plan.step({x: rows}) < 2.0


@pytest.mark.parametrize("optimizer", ["sgd", pf.optimizers.SGD, 0.1])
def test_what_is_no_optimizer_is_refused(optimizer: Any) -> None:
    w = pf.Parameter(np.ones(3), name="w")
    with pytest.raises(ArgumentError, match="no optimizer"):
        pf.compile(pf.Sum(w * w), optimizer)


@pytest.mark.parametrize("seed", [-1, 2**64, 0.5, None])
def test_a_seed_that_makes_no_sense_is_refused(seed: Any) -> None:
    with pytest.raises(ArgumentError, match="seed"):
        pf.compile(pf.Sum(pf.Parameter(np.ones(3), name="w")), seed=seed)


@pytest.mark.parametrize("what", ["metrics", "parameters", "outputs"])
@pytest.mark.parametrize("wrong", [1, [1], "w", 2.5], ids=repr)
def test_what_is_no_list_of_nodes_is_refused(what: str, wrong: Any) -> None:
    w = pf.Parameter(np.ones(3), name="w")
    with pytest.raises(pf.GraphError, match=r"no node|takes nodes|no Parameter"):
        pf.compile(pf.Sum(w), pf.optimizers.SGD(0.1), **{what: wrong})


@pytest.mark.parametrize("wrong", [1, None, "dense"], ids=repr)
def test_what_is_no_list_of_layers_is_refused(wrong: Any) -> None:
    with pytest.raises(ArgumentError, match=r"no list of layers|no layer"):
        pf.Sequential(wrong)


@pytest.mark.parametrize("wrong", [3, []], ids=repr)
def test_what_is_no_file_cannot_be_resumed(wrong: Any) -> None:
    with pytest.raises(ArgumentError, match="is the name of no file"):
        small_trainer().fit(np.ones((4, 2)), np.ones(4), 1, verbose=0, resume=wrong)


def test_a_single_further_output_need_not_be_a_list() -> None:
    x = pf.Placeholder("x", shape=(3,))
    square = x * x
    assert pf.compile(pf.Sum(square), outputs=square).run({x: [1, 2, 3]}) == 14.0


def test_out_must_be_able_to_hold_the_result() -> None:
    x = pf.Placeholder("x", shape=(3,))
    plan = pf.compile(pf.Sigmoid(x))
    locked = np.zeros(3, np.float32)
    locked.flags.writeable = False
    for out in (locked, np.zeros(3, np.int64)):
        with pytest.raises(ArgumentError, match="writable float32"):
            plan.run({x: [1, 2, 3]}, out=out)


@pytest.mark.parametrize("value", ["a", None, float("nan"), -1.0, True])
def test_numbers_of_ops_and_layers_are_checked(value: Any) -> None:
    x = pf.Placeholder("x", shape=(3,))
    for make in (
        lambda: pf.Dropout(x, value),
        lambda: pf.layers.Dropout(value),
        lambda: pf.layers.BatchNorm(value),
        lambda: pf.layers.BatchNorm(epsilon=value),
        lambda: pf.layers.LayerNorm(epsilon=value),
    ):
        with pytest.raises(ArgumentError):
            make()
    if value is not None:
        with pytest.raises(pf.errors.PyframeError):
            pf.optimizers.SGD(value)


# ---- what stands for nothing, and what is no node ----


def small_trainer(**arguments):
    return pf.Trainer(pf.Sequential([pf.layers.Dense(1)], input_shape=(2,)), **arguments)


def test_none_stands_for_no_metrics_and_no_callbacks(tmp_path):
    trainer = small_trainer(metrics=None, callbacks=None)
    history = trainer.fit(np.ones((4, 2)), np.ones(4), 1, callbacks=None, verbose=0)
    assert list(history) == ["loss"]
    trainer.save(tmp_path / "m")
    assert pf.Trainer.load(tmp_path / "m").evaluate(np.ones((4, 2)), np.ones(4)).keys() == {"loss"}
    trainer = small_trainer(metrics=iter(["mae"]))  # which can be read once
    trainer.fit(np.ones((4, 2)), np.ones(4), 1, verbose=0)
    trainer.save(tmp_path / "m")
    scores = pf.Trainer.load(tmp_path / "m").evaluate(np.ones((4, 2)), np.ones(4))
    assert scores.keys() == {"loss", "mae"}
    for wrong in ({"metrics": 3}, {"callbacks": 3}):
        with pytest.raises(ArgumentError, match="pass a list"):
            small_trainer(**wrong)


@pytest.mark.parametrize("wrong", [1, None, "w", 2.5, [], np.ones(2)], ids=repr)
def test_what_is_no_node_has_no_value_and_no_gradient(wrong):
    w = pf.Parameter(np.ones(2), name="w")
    plan = pf.compile(pf.Sum(w), pf.optimizers.SGD(0.1), inspect=True)
    plan.step({})
    for ask in (
        plan.value,
        plan.gradient,
        plan.contributions,
        plan.forward_node,
        plan.backward_node,
    ):
        with pytest.raises(pf.GraphError, match="is no node"):
            ask(wrong)
    with pytest.raises(ArgumentError, match=r"no snapshot; pass what plan.snapshot\(\) gave"):
        plan.restore(wrong)


@pytest.mark.parametrize("path", ["", b""])
def test_an_empty_path_is_refused_with_help(path):
    trainer = small_trainer()
    trainer.fit(np.ones((4, 2)), np.ones(4), 1, verbose=0)
    for do in (
        trainer.save,
        trainer.restore,
        trainer.model.save,
        pf.load,
        pf.Trainer.load,
        pf.checkpoint.inspect,
    ):
        with pytest.raises(ArgumentError, match="the name of no file: it is empty"):
            do(path)
