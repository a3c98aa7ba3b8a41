"""Tables of which a step makes and applies the gradient of the rows used alone.

What is compared with is the same plan without this, which makes the gradient of the whole table.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.engine import tables
from pyframe.engine.fusion import FUSIONS

WHOLE = frozenset(FUSIONS) - {"rows"}
ROWS, UNITS = 4099, 5  # odd, and large enough to be treated by rows

Batch = dict[str, Any]


def network(
    optimizer: Any,
    fuse: Any = True,
    dtype: str = "float32",
    padding: int | None = None,
    lookups: int = 1,
    count: int = 1,
    **options: Any,
) -> pf.Plan:
    """Return a plan of some tables, each looked up several times by indices of its own."""
    rng = np.random.default_rng(3)
    terms = []
    for t in range(count):
        table = pf.Parameter(rng.standard_normal((ROWS, UNITS)), name=f"table{t}", dtype=dtype)
        for k in range(lookups):
            x = pf.Placeholder(f"x{t}{k}", shape=(None, 3), dtype="int64")
            terms.append(pf.Sum(pf.Embedding(x, table, padding), axis=1) * (0.3 + k))
    h = terms[0]
    for term in terms[1:]:
        h = h + term
    last = pf.Parameter(rng.standard_normal((UNITS, 2)), name="last", dtype=dtype)
    return pf.compile(0.01 * pf.Sum(pf.Square(pf.Tanh(h) @ last)), optimizer, fuse=fuse, **options)


def batches(plan: pf.Plan, steps: int = 100) -> list[Batch]:
    """Return feeds: duplicates, none, all rows, one row over and over, and some at random."""
    rng = np.random.default_rng(0)
    shapes = [(0, ROWS), (4, 3), (ROWS, ROWS), (7, 1), (40, ROWS), (1, ROWS), (60, 30)]
    found = []
    for step in range(steps):
        n, below = shapes[step % len(shapes)] if step % 20 < len(shapes) else (9, 50)
        feed = {p.name: rng.integers(0, below, (n, 3)) for p in plan.graph.placeholders}
        if below == ROWS == n:
            feed = {name: np.arange(3 * ROWS).reshape(-1, 3) % ROWS for name in feed}
        found.append(feed)
    return found


def bits(plan: pf.Plan) -> list[bytes]:
    return [array.tobytes() for array in plan.named(plan.snapshot()).values()]


def kernels(plan: pf.Plan) -> list[str]:
    """Return the kernels of the program that ran last."""
    return [row.kernel for row in plan.engine.latest.program.rows]


def is_by_rows(plan: pf.Plan) -> bool:
    return "rows" in kernels(plan)


OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "sgd": lambda: pf.optimizers.SGD(0.5),
    "adagrad": lambda: pf.optimizers.Adagrad(0.1, learning_rate_decay=0.01),
    "adagrad, begun": lambda: pf.optimizers.Adagrad(0.1, initial_accumulator=0.1),
}


@pytest.mark.parametrize(("lookups", "count"), [(1, 1), (2, 1), (4, 1), (1, 2), (3, 2)])
@pytest.mark.parametrize("padding", [None, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_hundred_steps_give_the_bits_of_the_whole_gradient(
    name: str, dtype: str, padding: int | None, lookups: int, count: int
) -> None:
    options = {"dtype": dtype, "padding": padding, "lookups": lookups, "count": count}
    rows = network(OPTIMIZERS[name](), **options)
    whole = network(OPTIMIZERS[name](), WHOLE, **options)
    used = 0
    for feed in batches(rows):
        assert rows.step(feed) == whole.step(feed)
        used += is_by_rows(rows)
        assert not is_by_rows(whole)
    assert bits(rows) == bits(whole)
    assert 80 < used < 100  # not where a batch has all rows


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_bits_do_not_depend_on_the_number_of_threads(name: str) -> None:
    rng = np.random.default_rng(0)
    found = []
    feeds = [rng.integers(0, size, (1000, 4)) for size in (20_000, 20_000, 300, 1)]
    for fuse, threads in ((True, 1), (True, 2), (True, 3), (WHOLE, 1)):
        x = pf.Placeholder("x", shape=(None, 4), dtype="int64")
        table = pf.Parameter(np.full((20_000, 64), 0.5), name="table")
        y = pf.Sum(pf.Embedding(x, table), axis=1)
        plan = pf.compile(pf.Mean(pf.Square(y)), OPTIMIZERS[name](), fuse=fuse)
        with pf.num_threads(threads):
            for feed in feeds:
                plan.step({x: feed})
        assert is_by_rows(plan) == (fuse is True)
        found.append(bits(plan))
    assert found[1:] == found[:-1]


# ---- what may go wrong between two steps ----


@pytest.mark.parametrize("place", ["x00", "x01"])
def test_an_index_out_of_range_changes_nothing(place: str) -> None:
    plan = network(OPTIMIZERS["adagrad"](), lookups=2)
    twin = network(OPTIMIZERS["adagrad"](), lookups=2)
    for feed in batches(plan, 15)[4:]:
        before = bits(plan)
        wrong = {**feed, place: np.full((len(feed[place]) or 1, 3), ROWS)}
        if len(feed[place]):
            with pytest.raises(pf.LabelError, match=f"index {ROWS} at position 0"):
                plan.step(wrong)
            assert bits(plan) == before
        plan.step(feed)
        twin.step(feed)
    assert bits(plan) == bits(twin)


def test_a_step_that_stops_before_its_update_leaves_nothing_behind() -> None:
    fails = []

    class Checked(pf.Node):
        """The identity, whose gradient is refused now and then."""

        def infer(self, *specs: Any) -> Any:
            return [specs[0]]

        def forward(self, ctx: Any, *arrays: Any) -> Any:
            return arrays[0]

        def backward(self, ctx: Any, *grads: Any) -> Any:
            if fails and fails.pop():
                raise RuntimeError("not now")
            return grads[0]

    def make() -> pf.Plan:
        rng = np.random.default_rng(0)
        x = pf.Placeholder("x", shape=(None, 3), dtype="int64")
        one, two = (
            pf.Parameter(rng.standard_normal((ROWS, UNITS)), name=name) for name in ("one", "two")
        )
        # The gradient of one is made before that of two is refused.
        y = pf.Sum(pf.Square(pf.Embedding(x, one))) + pf.Sum(
            pf.Square(Checked(pf.Embedding(x, two)))
        )
        return pf.compile(y, pf.optimizers.SGD(0.1))

    plan, twin = make(), make()
    rng = np.random.default_rng(1)
    for _ in range(20):
        feed = {"x": rng.integers(0, 99, (8, 3))}
        before = bits(plan)
        fails.append(True)
        with pytest.raises(RuntimeError, match="not now"):
            plan.step({"x": rng.integers(0, 99, (8, 3))})
        assert bits(plan) == before
        plan.step(feed)
        twin.step(feed)
    assert is_by_rows(plan)
    assert bits(plan) == bits(twin)


# ---- when it is not done ----


class Halved(pf.optimizers.Optimizer):
    """One in NumPy."""

    def update(self, parameters: Any, gradients: Any, slots: Any, **rest: Any) -> None:
        parameters -= gradients / 2


@pytest.mark.parametrize(
    ("optimizer", "reason"),
    [
        (pf.optimizers.SGD(0.1, momentum=0.9), "changes what has a gradient of 0"),
        (pf.optimizers.SGD(0.1, weight_decay=0.1), "changes what has a gradient of 0"),
        (pf.optimizers.Adagrad(0.1, weight_decay=0.1), "changes what has a gradient of 0"),
        (pf.optimizers.Adam(0.1), "changes what has a gradient of 0"),
        (pf.optimizers.RMSProp(0.1), "changes what has a gradient of 0"),
        (pf.optimizers.SGD(0.1, clip_norm=1.0), "looks at all gradients first"),
        (pf.optimizers.SGD(0.1, clip_value=1.0), "looks at all gradients first"),
        (pf.optimizers.SGD(0.1, nonfinite="skip"), "looks at all gradients first"),
        (pf.optimizers.SGD(0.1, gradient_noise=0.1), "looks at all gradients first"),
        (pf.optimizers.SAM(0.1, momentum=0.0), "takes gradients at other parameters"),
        (pf.optimizers.ScheduleFreeAdamW(0.1), "takes gradients at other parameters"),
        (pf.optimizers.LAMB(0.1), "changes what has a gradient of 0"),
        (Halved(0.1), "is written in Python"),
        (
            pf.optimizers.SGD(0.1, groups={"table0": {"weight_decay": 0.1}}),
            "changes what has a gradient of 0",
        ),
        (
            pf.optimizers.SGD(0.1, groups={"table0": {"clip_norm": 0.1}}),
            "looks at all gradients first",
        ),
    ],
)
def test_where_every_row_counts_the_whole_table_is_updated(optimizer: Any, reason: str) -> None:
    plan = network(optimizer)
    plan.step({"x00": [[1, 2, 3]]})
    assert not is_by_rows(plan)
    assert f"table0: all rows are updated, because {type(optimizer).__name__}" in str(plan)
    assert reason in str(plan)


def test_what_other_groups_need_does_not_count() -> None:
    groups = {"last": {"weight_decay": 0.1, "clip_norm": 1.0}}
    rows, whole = (network(pf.optimizers.SGD(0.1, groups=groups), fuse) for fuse in (True, WHOLE))
    for feed in batches(rows, 15):
        rows.step(feed)
        whole.step(feed)
    assert is_by_rows(rows)
    assert bits(rows) == bits(whole)


def test_the_plan_says_what_it_does() -> None:
    plan, whole = network(OPTIMIZERS["sgd"]()), network(OPTIMIZERS["sgd"](), WHOLE)
    assert "rows are" not in str(plan)
    for p in (plan, whole):
        p.step({"x00": [[1, 2, 3]]})
    assert str(plan).endswith("table0: the rows used are updated")
    assert str(whole).endswith(
        "table0: all rows are updated, because the plan was compiled without the fusion 'rows'"
    )
    plan.run({"x00": [[1, 2, 3]]})
    assert "table0:" not in str(plan)


@pytest.mark.parametrize("option", ["inspect", "detect_anomaly"])
def test_a_plan_to_look_into_has_the_whole_gradient(option: str) -> None:
    plan, rows = network(OPTIMIZERS["sgd"](), **{option: True}), network(OPTIMIZERS["sgd"]())
    for feed in batches(plan, 10):
        plan.step(feed)
        rows.step(feed)
        assert not is_by_rows(plan)
    assert bits(plan) == bits(rows)


def test_tied_weights_have_a_whole_gradient() -> None:
    def make(fuse: Any) -> pf.Plan:
        x = pf.Placeholder("x", shape=(None,), dtype="int64")
        table = pf.Parameter(np.random.default_rng(0).standard_normal((ROWS, UNITS)), name="t")
        scores = pf.MatMul(pf.Embedding(x, table), table, transpose_b=True)
        return pf.compile(pf.Mean(pf.Square(scores)), pf.optimizers.SGD(0.1), fuse=fuse)

    plan, whole = make(True), make(WHOLE)
    for p in (plan, whole):
        p.step({"x": [1, 2, 2]})
    assert not is_by_rows(plan)
    assert "t: all rows are updated, because its look-ups do not allow" in str(plan)
    assert bits(plan) == bits(whole)


def test_more_look_ups_than_four_and_different_paddings_have_a_whole_gradient() -> None:
    x = pf.Placeholder("x", shape=(None,), dtype="int64")
    for paddings in ([None] * 5, [None, 1]):
        table = pf.Parameter(np.ones((ROWS, UNITS)), name="t")
        cost = sum(
            (pf.Sum(pf.Square(pf.Embedding(x, table, p))) for p in paddings[1:]),
            pf.Sum(pf.Square(pf.Embedding(x, table, paddings[0]))),
        )
        plan = pf.compile(cost, pf.optimizers.SGD(0.1))
        plan.step({x: [1, 2, 2]})
        assert not is_by_rows(plan)


def test_a_dense_gradient_on_request(tmp_path: Path) -> None:
    for sparse in (True, False):
        layers = [pf.layers.Embedding(ROWS, UNITS, sparse=sparse), pf.layers.Flatten()]
        model = pf.Sequential([*layers, pf.layers.Dense(1)])
        model.predict(words(8)[0])
        model.save(tmp_path / "m.pyframe")
        loaded = pf.load(tmp_path / "m.pyframe")
        x, y = loaded.inputs[0], pf.Placeholder("y", shape=(None, 1))
        plan = pf.compile(pf.L2Loss(y, loaded.outputs[0]), pf.optimizers.SGD(0.1))
        plan.step({x: words(8)[0], y: words(8)[1]})
        assert is_by_rows(plan) == sparse


def test_a_small_table_is_updated_with_its_neighbours() -> None:
    x = pf.Placeholder("x", shape=(None,), dtype="int64")
    y = pf.Embedding(x, pf.Parameter(np.ones((100, 5)), name="t"))
    plan = pf.compile(pf.Sum(pf.Square(y)), pf.optimizers.SGD(0.1))
    plan.step({x: [1]})
    assert not is_by_rows(plan)
    assert "all rows" not in str(plan)


# ---- gradients that are asked for ----


def test_the_gradient_of_the_last_step_is_whole() -> None:
    plan, whole = (network(OPTIMIZERS["sgd"](), fuse, lookups=2) for fuse in (True, WHOLE))
    table = next(p for p in plan.parameters if p.name == "table0")
    other = next(p for p in whole.parameters if p.name == "table0")
    for feed in batches(plan, 10):
        plan.step(feed)
        whole.step(feed)
        np.testing.assert_array_equal(plan.gradient(table), whole.gradient(other))
        _, gradients = plan.loss_and_gradients(feed)
        _, others = whole.loss_and_gradients(feed)
        np.testing.assert_array_equal(gradients[table], others[other])
        np.testing.assert_array_equal(plan.gradient(table), gradients[table])
    plan.step(batches(plan)[1])
    plan.run(batches(plan)[1])
    with pytest.raises(pf.ValueReusedError, match="table0 was not kept.*loss_and_gradients"):
        plan.gradient(table)


# ---- lazy updates ----


def lazy_adam(p: Any, gradients: Any, rate: float, decay: float, betas: Any, amsgrad: bool) -> Any:
    """Return a table after steps that see its rows alone whose gradient is not 0."""
    p = p.copy()
    m, v, largest = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    for t, g in enumerate(gradients, start=1):
        for row in np.flatnonzero(g.any(axis=1)):
            m[row] = betas[0] * m[row] + (1 - betas[0]) * g[row]
            v[row] = betas[1] * v[row] + (1 - betas[1]) * g[row] ** 2
            largest[row] = np.maximum(largest[row], v[row]) if amsgrad else v[row]
            root = np.sqrt(largest[row] / (1 - betas[1] ** t)) + 1e-8
            p[row] -= rate * (decay * p[row] + m[row] / (1 - betas[0] ** t) / root)
    return p


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("rows", [6, ROWS])
@pytest.mark.parametrize(
    "how", ["by rows", "whole", "clipped", "inspected", "applied", "in parts", "copied"]
)
def test_a_lazy_update_leaves_rows_without_a_gradient(how: str, rows: int, amsgrad: bool) -> None:
    rng = np.random.default_rng(1)
    first = rng.standard_normal((rows, UNITS))
    table = pf.Parameter(first, "table", dtype="float64")
    w = pf.Parameter(np.ones(UNITS), "w", dtype="float64")
    x = pf.Placeholder("x", shape=(None,), dtype="int64")
    cost = pf.Mean(pf.Square(pf.Tanh(pf.Embedding(x, table)) * w))
    options = {"clip_norm": 1e9} if how == "clipped" else {}
    optimizer = pf.optimizers.AdamW(
        0.1, weight_decay=0.02, betas=(0.8, 0.9), amsgrad=amsgrad, lazy=True, **options
    )
    fuse = WHOLE if how == "whole" else True
    metric = pf.MeanOf(cost, x)
    plan = pf.compile(cost, optimizer, metrics=[metric], fuse=fuse, inspect=how == "inspected")
    gradients = []
    for step in range(12):
        feed = {x: rng.integers(0, rows if step % 3 else 3, size=8)}
        gradients.append(plan.loss_and_gradients(feed)[1][table])
        if how == "applied":
            plan.apply_gradients(plan.loss_and_gradients(feed)[1])
        elif how == "in parts":
            loop = pf.engine.loop.Loop(
                plan.engine, feed, batch_size=3, accumulate=9, sums=metric, shuffle=False
            )
            with loop:
                assert loop.run() == "done"
        else:
            plan.step(feed)
        plan = copy.deepcopy(plan) if how == "copied" and step == 5 else plan
        if plan.parameters[0] is not table and step == 5:
            table, w = (next(p for p in plan.parameters if p.name == n) for n in ("table", "w"))
            x = plan.graph.placeholders[0]
    expected = lazy_adam(first, gradients, 0.1, 0.02, (0.8, 0.9), amsgrad)
    np.testing.assert_allclose(table.value, expected, rtol=1e-12)
    assert "rows" in kernels(plan)
    assert (w.value != 1).all()


def test_an_update_is_dense_unless_it_is_asked_to_be_lazy() -> None:
    plan = network(pf.optimizers.Adam(0.1))
    plan.step({p: [[1, 2, 3]] for p in plan.graph.placeholders})
    assert not is_by_rows(plan)
    with pytest.raises(pf.ArgumentError, match="lazy"):
        pf.optimizers.Adam(lazy=2)


def test_a_table_with_other_uses_is_updated_as_a_whole() -> None:
    table = pf.Parameter(np.ones((6, UNITS)), "table")
    x = pf.Placeholder("x", shape=(None,), dtype="int64")
    cost = pf.Sum(pf.Embedding(x, table)) + pf.Sum(pf.Square(table))
    plan = pf.compile(cost, pf.optimizers.Adam(0.1, lazy=True))
    plan.step({x: [1]})
    assert not is_by_rows(plan) and (table.value != 1).all()


def test_given_gradients_are_applied_to_all_rows() -> None:
    plan, whole = (network(OPTIMIZERS["adagrad"](), fuse) for fuse in (True, WHOLE))
    for feed in batches(plan, 12):
        for p in (plan, whole):
            _, gradients = p.loss_and_gradients(feed)
            p.apply_gradients(gradients)
            p.step(feed)
    assert is_by_rows(plan)
    assert bits(plan) == bits(whole)


# ---- snapshots, copies, files, epochs ----


def test_snapshots_and_copies_go_on_to_the_same_bits() -> None:
    plan = network(OPTIMIZERS["adagrad"](), count=2)
    feeds = batches(plan, 30)
    for feed in feeds[:10]:
        plan.step(feed)
    snapshot, copied = plan.snapshot(), copy.deepcopy(plan)
    for feed in feeds[10:]:
        plan.step(feed)
        copied.step(feed)
    wanted = bits(plan)
    assert is_by_rows(copied)
    assert bits(copied) == wanted
    plan.restore(snapshot)
    for feed in feeds[10:]:
        plan.step(feed)
    assert bits(plan) == wanted


def test_a_copy_is_laid_out_as_it_was_whatever_has_been_set_since() -> None:
    plan = network(OPTIMIZERS["sgd"]())
    plan.step({"x00": [[1, 2, 3]]})
    plan.optimizer.weight_decay = 0.1
    copied = copy.deepcopy(plan)
    assert bits(copied) == bits(plan)
    with pytest.raises(pf.GraphError, match="weight_decay"):
        copied.step({"x00": [[1, 2, 3]]})


def words(n: int = 200) -> tuple[Any, Any]:
    rng = np.random.default_rng(5)
    return rng.integers(0, ROWS, (n, 3)), rng.standard_normal((n, 1))


def trainer(optimizer: Any = "adagrad") -> pf.Trainer:
    layers = pf.layers
    model = pf.Sequential([layers.Embedding(ROWS, UNITS), layers.Flatten(), layers.Dense(1)])
    return pf.Trainer(model, loss="l2", optimizer=optimizer)


def weights(t: pf.Trainer) -> list[bytes]:
    return [p.value.tobytes() for p in t.model.parameters]


@pytest.fixture
def as_a_whole(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what has all tables updated as a whole from then on."""
    return lambda: monkeypatch.setattr(tables, "LEAST_ELEMENTS", 2**62)


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad"])
def test_epochs_in_c_and_resumed_ones(
    optimizer: str, tmp_path: Path, as_a_whole: Callable[[], None]
) -> None:
    def fit(t: pf.Trainer, epochs: int, **options: Any) -> pf.Trainer:
        t.fit(*words(), epochs=epochs, batch_size=32, seed=1, validation_split=0.2, **options)
        return t

    done = weights(fit(trainer(optimizer), 6))
    begun = fit(trainer(optimizer), 3)
    begun.save(tmp_path / "state.pyframe")
    assert weights(fit(trainer(optimizer), 6, resume=tmp_path / "state.pyframe")) == done
    as_a_whole()
    assert weights(fit(trainer(optimizer), 6)) == done
    # And a state that was saved while all rows were updated.
    assert weights(fit(trainer(optimizer), 6, resume=tmp_path / "state.pyframe")) == done


def test_fits_side_by_side(as_a_whole: Callable[[], None]) -> None:
    def fit() -> list[list[bytes]]:
        trainers = [trainer() for _ in range(3)]
        seeds = [{"seed": seed} for seed in range(3)]
        with pf.num_threads(2):
            pf.fit_many(trainers, *words(), each=seeds, epochs=2, batch_size=32, verbose=0)
        return [weights(t) for t in trainers]

    done = fit()
    assert len({w[0] for w in done}) == 3
    as_a_whole()
    assert fit() == done


# ---- what it costs ----


def test_a_step_moves_bytes_of_the_rows_used_alone() -> None:
    plan = network(OPTIMIZERS["adagrad"]())
    feed = {"x00": [[1, 2, 3], [4, 5, 6]]}
    profile = plan.profile(feed, repeats=1)
    row = UNITS * 4
    by_kernel = {record.kernel: record for record in reversed(profile.records)}
    assert by_kernel["embedding_f32"].bytes == 6 * (8 + row + row)
    assert by_kernel["embedding_grad_rows_f32"].bytes == 6 * (row + 8 + row)
    update = by_kernel["squares_update_f32"]  # reads a gradient, changes two arrays
    assert update.bytes == 6 * (row + 2 * 2 * row)
    assert update.flops == 8 * 6 * UNITS
    assert sum(record.bytes for record in profile) < 6000


@pytest.mark.parametrize("count", [ROWS // 12, ROWS // 12 + 1])
def test_a_batch_with_many_indices_has_a_whole_gradient(count: int) -> None:
    plan = network(OPTIMIZERS["sgd"]())
    plan.step({"x00": np.zeros((count, 3), np.int64)})
    assert is_by_rows(plan) == (4 * 3 * count <= ROWS)
