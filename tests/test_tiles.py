"""Tiles: forward and backward on one block of rows before the next, and the same numbers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from test_fusion import outcome, random_net

import pyframe as pf
from pyframe.engine import tiling
from pyframe.engine.fusion import FUSIONS
from pyframe.engine.program import LANE, Context, Program
from pyframe.errors import AnomalyError, LabelError
from pyframe.graph.op import Op, Rows
from pyframe.native.core import lib
from pyframe.testing import ConformanceError, check_capabilities, check_graphs

PLAIN = frozenset(FUSIONS) - {"tiles"}
COUNTS = (1, 2, 3, 7)
RNG = np.random.default_rng(3)


@pytest.fixture(autouse=True)
def _restore_count() -> Iterator[None]:
    before = pf.get_num_threads()
    yield
    pf.set_num_threads(before)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have everything that can be a tile be one, of as many blocks as possible."""
    monkeypatch.setattr(tiling, "SAVED_BYTES", 0)
    monkeypatch.setattr(tiling, "CHUNKS", 5)
    monkeypatch.setattr(tiling, "LEAST_CHUNKS", 0)
    monkeypatch.setattr(tiling, "SUMS_OF_SAVED", 1e-9)
    monkeypatch.setattr(tiling, "MOST_LANE_BYTES", 2**60)
    monkeypatch.setattr(tiling, "LEAST_ROWS", tiling.UNIT)
    monkeypatch.setattr(tiling, "MOST_ROWS", 2 * tiling.UNIT)


def program_of(plan: pf.Plan) -> Program:
    """Return the program that a plan ran last."""
    return plan.engine.latest.program


def tiles_of(plan: pf.Plan) -> list[list[str]]:
    """Return the kernels of each tile of the program that a plan ran last."""
    program = program_of(plan)
    return [
        [row.kernel.rsplit("_", 1)[0] for row in program.rows[at + 1 : at + 1 + count]]
        for at, count in program.members.items()
        if program.rows[at].kernel == "tile"
    ]


class Net:
    """A network with its plan, and the data for any number of rows."""

    def __init__(
        self,
        layers: Callable[[pf.Value], pf.Value],
        loss: Callable[[pf.Value, pf.Value], pf.Value] = pf.L2Loss,
        *,
        width: int = 5,
        outputs: int = 3,
        labels: bool = False,
        dtype: str = "float32",
        metrics: tuple[Any, ...] = (),
        **options: Any,
    ) -> None:
        pf.set_seed(4)
        self.width, self.outputs, self.labels, self.dtype = width, outputs, labels, dtype
        self.x = pf.Placeholder("x", shape=(None, width), dtype=dtype)
        shape = (None,) if labels else (None, outputs)
        self.y = pf.Placeholder("y", shape=shape, dtype="int64" if labels else dtype)
        self.y_hat = layers(self.x)
        self.plan = pf.compile(
            loss(self.y, self.y_hat),
            pf.optimizers.SGD(1e-4),
            outputs=[self.y_hat],
            metrics=[metric(self.y, self.y_hat) for metric in metrics],
            **options,
        )

    def feed(self, rows: int) -> dict[pf.Placeholder, Any]:
        rng = np.random.default_rng(rows)
        target = (
            rng.integers(0, self.outputs, rows)
            if self.labels
            else rng.normal(size=(rows, self.outputs)).astype(self.dtype)
        )
        return {self.x: rng.normal(size=(rows, self.width)).astype(self.dtype), self.y: target}

    def gradients(self, rows: int) -> list[np.ndarray]:
        _, gradients = self.plan.loss_and_gradients(self.feed(rows))
        return [np.array(gradients[p]) for p in self.plan.parameters]

    def everything(self, rows: int) -> list[np.ndarray]:
        """Return outputs, loss, gradients, and the parameters after two steps."""
        feed = self.feed(rows)
        loss, _ = self.plan.loss_and_gradients(feed)
        found = [self.plan.run({self.x: feed[self.x]}, outputs=self.y_hat), np.array(loss)]
        found += self.gradients(rows)
        found += [np.array(self.plan.step(feed)) for _ in range(2)]
        return [*found, *(p.value.copy() for p in self.plan.parameters)]


def dense(*units: int, activation: str = "tanh") -> Callable[[pf.Value], pf.Value]:
    def layers(x: pf.Value) -> pf.Value:
        for n in units[:-1]:
            x = pf.layers.Dense(n, activation=activation)(x)
        return pf.layers.Dense(units[-1])(x)

    return layers


def compare(tiled: Net, plain: Net, rows: int, exact: bool = True) -> None:
    """See that what goes by rows has the same bits, and that sums over rows are near."""
    feed, same = tiled.feed(rows), plain.feed(rows)
    a = tiled.plan.run({tiled.x: feed[tiled.x]}, outputs=tiled.y_hat)
    b = plain.plan.run({plain.x: same[plain.x]}, outputs=plain.y_hat)
    assert not exact or a.tobytes() == b.tobytes()
    tolerance = 2e-4 if tiled.dtype == "float32" else 1e-11
    for one, other in zip(tiled.everything(rows), plain.everything(rows), strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


# ---- what comes out ----

NETS: dict[str, Callable[..., Net]] = {
    "tanh": lambda **o: Net(dense(32, 16, 3), **o),
    "relu": lambda **o: Net(dense(9, 7, 3, activation="relu"), pf.L1Loss, **o),
    "gelu": lambda **o: Net(dense(9, 3, activation="gelu"), pf.HuberLoss, **o),
    "one output": lambda **o: Net(dense(8, 1, activation="sigmoid"), outputs=1, **o),
    "classes": lambda **o: Net(
        dense(8, 3), pf.CrossEntropy, labels=True, metrics=(pf.metrics.Accuracy,), **o
    ),
    "probabilities": lambda **o: Net(
        lambda x: pf.Sigmoid(dense(8, 3)(x)), pf.L2Loss, metrics=(pf.metrics.Mae,), **o
    ),
    "layer norm": lambda **o: Net(
        lambda x: dense(3)(pf.layers.LayerNorm()(dense(12)(x))),
        lambda y, y_hat: pf.L2Loss(y, y_hat, reduction="sum"),
        **o,
    ),
    "no reduction": lambda **o: Net(
        dense(8, 3), lambda y, y_hat: pf.Sum(pf.L2Loss(y, y_hat, reduction="none")), **o
    ),
    "softmax": lambda **o: Net(
        lambda x: pf.Softmax(dense(8, 3)(x)) * pf.Constant(np.ones((1, 3)), dtype=x.dtype), **o
    ),
    "residual": lambda **o: Net(lambda x: dense(3)(dense(5, 5)(x) + x), **o),
    "matmul": lambda **o: Net(
        lambda x: pf.MatMul(x, pf.Parameter(np.ones((5, 3)), name="w", dtype=x.dtype)) + 1.0, **o
    ),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NETS)
def test_a_tile_computes_what_layer_by_layer_does(name: str, dtype: str, small_tiles: None) -> None:
    for rows in (1000, 33, 1003):
        tiled, plain = NETS[name](dtype=dtype), NETS[name](dtype=dtype, fuse=PLAIN)
        compare(tiled, plain, rows)
        assert tiles_of(tiled.plan) and not tiles_of(plain.plan)


@pytest.mark.parametrize("name", NETS)
def test_the_bits_do_not_depend_on_the_number_of_threads(name: str, small_tiles: None) -> None:
    found = []
    for count in COUNTS:
        pf.set_num_threads(count)
        found.append(b"".join(a.tobytes() for a in NETS[name]().everything(2000)))
    assert found[1:] == found[:-1]


@pytest.mark.parametrize("rows", [0, 1, 2, 15, 16, 17, 31, 32, 33, 47, 48, 49, 513, 529])
def test_any_number_of_rows(rows: int, small_tiles: None) -> None:
    tiled, plain = (NETS["tanh"](fuse=fuse) for fuse in (True, PLAIN))
    with np.errstate(invalid="ignore"):
        feed, same = tiled.feed(rows), plain.feed(rows)
        one, other = tiled.plan.step(feed), plain.plan.step(same)
    np.testing.assert_allclose(one, other, rtol=1e-6)
    assert bool(tiles_of(tiled.plan)) == (rows >= 32)
    for a, b in zip(tiled.plan.parameters, plain.plan.parameters, strict=True):
        np.testing.assert_allclose(a.value, b.value, rtol=1e-4, atol=1e-6)


def test_the_default_is_what_pays() -> None:
    """Forward and backward of a small network on many rows, and only those."""
    net = Net(dense(32, 16, 4), width=4, outputs=4)
    net.plan.step(net.feed(200))
    assert tiles_of(net.plan) == []
    net.plan.step(net.feed(10_000))
    assert tiles_of(net.plan) == [
        ["linear", "tanh"] * 2 + ["linear", "l2_loss", "l2_loss_grad"] + 3 * ["linear_grad"]
    ]
    assert [row.kernel for row in program_of(net.plan).rows][-1] == "sgd_update_f32"
    wide = Net(dense(512, 512, 4), width=512, outputs=4)
    wide.plan.step(wide.feed(1000))
    assert tiles_of(wide.plan) == []  # each block would read a megabyte of weights


def test_what_lies_between_exists_for_one_block_only() -> None:
    tiled, plain = (Net(dense(32, 16, 4), width=4, outputs=4, fuse=f) for f in (True, PLAIN))
    for net in (tiled, plain):
        net.plan.step(net.feed(10_000))
    one, other = program_of(tiled.plan), program_of(plain.plan)
    assert one.memory(1) * 20 < other.memory(1)
    assert one.memory(1) < one.memory(2) < 2 * one.memory(1)
    tiled, plain = (Net(dense(32, 16, 4), width=4, outputs=4, fuse=f) for f in (True, PLAIN))
    for net in (tiled, plain):
        net.plan.step(net.feed(40_000))
    assert program_of(tiled.plan).memory(2) < 1.5 * one.memory(2)
    assert program_of(plain.plan).memory(1) == 4 * other.memory(1)
    profile = tiled.plan.profile(tiled.feed(10_000), repeats=1)
    assert profile.arena_bytes == one.memory(1)


def test_what_is_wanted_is_written_whole(small_tiles: None) -> None:
    for fuse in (True, PLAIN):
        net = Net(dense(8, 8, 3), fuse=fuse)
        hidden = net.y_hat.node.inputs[0]
        feed = net.feed(500)
        one, other = net.plan.run({net.x: feed[net.x]}, outputs=[hidden, net.y_hat])
        if fuse is True:
            assert tiles_of(net.plan)
            expected = one, other
        assert one.tobytes() == expected[0].tobytes()
        assert other.tobytes() == expected[1].tobytes()


def test_dropout_drops_what_it_would(small_tiles: None) -> None:
    def layers(x: pf.Value) -> pf.Value:
        return dense(3)(pf.Dropout(dense(8)(x), 0.4, name="drop"))

    found = []
    for fuse in (True, PLAIN):
        net = Net(layers, fuse=fuse)
        feed = net.feed(300)
        found.append(net.plan.run({net.x: feed[net.x]}, outputs=net.y_hat, training=True))
        assert any("dropout" in tile for tile in tiles_of(net.plan)) == (fuse is True)
    assert found[0].tobytes() == found[1].tobytes()
    compare(Net(layers), Net(layers, fuse=PLAIN), 300)


# ---- what ends a tile ----


def test_normalization_over_the_batch_ends_a_tile(small_tiles: None) -> None:
    def layers(x: pf.Value) -> pf.Value:
        return dense(8, 3)(pf.layers.BatchNorm()(dense(9, 8)(x)))

    tiled, plain = Net(layers), Net(layers, fuse=PLAIN)
    compare(tiled, plain, 600)
    tiled, plain = Net(layers), Net(layers, fuse=PLAIN)
    tiled.plan.step(tiled.feed(600))
    assert all("batch_norm" not in kernel for tile in tiles_of(tiled.plan) for kernel in tile)
    assert len(tiles_of(tiled.plan)) == 3  # in front of it, behind it, and behind its gradient
    plain.plan.step(plain.feed(600))
    for a, b in zip(tiled.plan.states, plain.plan.states, strict=True):
        assert a.value.tobytes() == b.value.tobytes()


class Cube(pf.Node):
    def forward(self, ctx: Any, x: Any) -> Any:
        return x**3

    def backward(self, ctx: Any, dy: Any) -> Any:
        return 3 * ctx.inputs[0] ** 2 * dy


@pytest.mark.parametrize(
    "layer",
    [
        pytest.param(lambda h: h / pf.Sum(pf.Square(h)), id="a sum that is needed at once"),
        pytest.param(Cube, id="a node in Python"),
        pytest.param(lambda h: pf.Transpose(pf.Transpose(h)), id="an op that says nothing"),
        pytest.param(lambda h: h - pf.Mean(h, axis=0), id="a mean over the rows"),
        pytest.param(lambda h: h * pf.Max(h), id="a maximum over all"),
        pytest.param(lambda h: pf.Softmax(h, axis=0), id="a softmax over the rows"),
        pytest.param(lambda h: pf.MatMul(pf.MatMul(h, h, transpose_b=True), h) / 1e3, id="h h^T h"),
        pytest.param(lambda h: pf.Reshape(pf.Relu(pf.Reshape(h, (-1, 4))), (-1, 8)), id="halves"),
    ],
)
def test_what_looks_at_several_rows_ends_a_tile(
    layer: Any, small_tiles: None, request: pytest.FixtureRequest
) -> None:
    def layers(x: pf.Value) -> pf.Value:
        return dense(8, 3)(layer(dense(9, 8)(x)))

    tiled, plain = Net(layers, dtype="float64"), Net(layers, dtype="float64", fuse=PLAIN)
    compare(tiled, plain, 160, exact="a sum" not in request.node.name)
    assert len(tiles_of(tiled.plan)) >= 2


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_weighted_mean_needs_all_weights(reduction: str, small_tiles: None) -> None:
    weights = pf.Placeholder("weights", shape=(None,))

    def loss(y: pf.Value, y_hat: pf.Value) -> pf.Value:
        node = pf.L2Loss(y, y_hat, weights, reduction)
        return pf.Mean(node) if reduction == "none" else node

    found = []
    for fuse in (True, PLAIN):
        net = Net(dense(8, 3), loss, fuse=fuse)
        feed = {**net.feed(400), weights: np.linspace(0, 3, 400).astype(np.float32)}
        found.append(net.plan.loss_and_gradients(feed))
        if fuse is True:
            inside = [kernel for tile in tiles_of(net.plan) for kernel in tile]
            assert "linear" in inside
            assert ("l2_loss" in inside) == (reduction != "mean")
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-6)
    for a, b in zip(found[0][1].values(), found[1][1].values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_tied_weights_and_several_losses(small_tiles: None) -> None:
    """Gradients that are sums of sums, and one weight in two tiles or twice in one."""

    def layers(x: pf.Value) -> pf.Value:
        w = pf.Parameter(np.eye(5) + 0.1, name="w", dtype=x.dtype)
        h = pf.Tanh(pf.Linear(pf.Tanh(pf.Linear(x, w)), w))
        return dense(3)(h) + pf.SumOfSquares(w) + pf.Mean(h)

    compare(Net(layers, dtype="float64"), Net(layers, dtype="float64", fuse=PLAIN), 400)


@pytest.mark.parametrize("options", [{"inspect": True}, {"detect_anomaly": True}, {"fuse": False}])
def test_where_every_value_has_to_exist_there_are_no_tiles(options: Any, small_tiles: None) -> None:
    net = NETS["tanh"](**options)
    net.plan.step(net.feed(500))
    assert tiles_of(net.plan) == []


def test_a_plan_that_is_watched_says_where_the_first_nan_came_from() -> None:
    net = Net(dense(32, 16, 4), width=4, outputs=4, detect_anomaly=True)
    feed = net.feed(10_000)
    feed[net.x][9_000, 2] = np.nan
    with pytest.raises(AnomalyError, match="linear"):
        net.plan.step(feed)


# ---- errors, pauses, profiles ----


@pytest.mark.parametrize("threads", COUNTS)
def test_a_wrong_label_is_told_by_its_place_in_the_batch(threads: int, small_tiles: None) -> None:
    pf.set_num_threads(threads)
    net = NETS["classes"]()
    feed = net.feed(3000)
    before = [p.value.copy() for p in net.plan.parameters]
    for wrong in ([2999], [0], [1234, 1236], [700, 2500]):
        labels = feed[net.y].copy()
        labels[wrong] = 7
        with pytest.raises(LabelError, match=rf"label 7 at index {wrong[0]} .*\[0, 3\)") as caught:
            net.plan.step({**feed, net.y: labels})
        assert caught.value.index == wrong[0]
        assert "accuracy" in str(caught.value) or "cross_entropy" in str(caught.value)
    for p, old in zip(net.plan.parameters, before, strict=True):
        assert p.value.tobytes() == old.tobytes()
    net.plan.step(feed)
    assert net.plan.step_count == 1


def test_a_long_tile_is_left_for_the_clock_and_gone_on_with() -> None:
    net = Net(dense(32, 16, 4), width=4, outputs=4)
    feed = net.feed(100_000)
    loss = net.plan.loss_and_gradients(feed)[0]
    expected = net.gradients(100_000)
    context: Context = net.plan.engine.latest
    assert tiles_of(net.plan)
    head = next(i for i, row in enumerate(context.program.rows) if row.kernel == "tile")

    def pauses(until: int) -> int:
        """Run with a deadline that is always over; return how often that was noticed."""
        count = 0
        while (
            count < until
            and lib.pf_context_run(context.pointer, len(context.program), 0.0) == lib.PF_PAUSED
        ):
            assert lib.pf_context_position(context.pointer) == head or count > 0
            count += 1
        return count

    lib.pf_context_begin(context.pointer, 0, 0, 0.0)
    assert pauses(2) == 2  # given up in the middle of it ...
    lib.pf_context_reset(context.pointer)
    lib.pf_context_begin(context.pointer, 0, 0, 0.0)
    assert pauses(100) >= 2  # ... and once more, from its beginning to its end
    assert float(context.loss[0]) == float(loss)
    for p, gradient in zip(net.plan.parameters, expected, strict=True):
        assert net.plan.engine.state.gradient_array(p).tobytes() == gradient.tobytes()


def test_several_threads_of_the_user_predict_at_once(small_tiles: None) -> None:
    pf.set_num_threads(2)
    net = NETS["tanh"]()
    data = net.feed(4000)[net.x]
    expected = net.plan.run({net.x: data}, outputs=net.y_hat).tobytes()
    found: list[bytes] = []

    def predict() -> None:
        found.extend(net.plan.run({net.x: data}, outputs=net.y_hat).tobytes() for _ in range(20))

    users = [threading.Thread(target=predict) for _ in range(3)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert found == [expected] * 60
    assert tiles_of(net.plan)


def test_a_profile_shows_a_tile_as_one_line_with_what_is_in_it() -> None:
    net = Net(dense(32, 16, 4), width=4, outputs=4)
    profile = net.plan.profile(net.feed(10_000), repeats=2)
    (record,) = [r for r in profile if r.kernel.startswith("tile: ")]
    assert record.kernel == (
        "tile: 3 linear_f32 + 2 tanh_f32 + l2_loss_f32 + l2_loss_grad_f32 + 3 linear_grad_f32"
    )
    plain = Net(dense(32, 16, 4), width=4, outputs=4, fuse=PLAIN)
    parts = plain.plan.profile(plain.feed(10_000), repeats=2)
    update = parts[-1].flops
    assert record.flops == sum(r.flops for r in parts) - update
    assert record.bytes < sum(r.bytes for r in parts) / 10
    text = str(net.plan)
    assert "tile" in text and "linear_grad" in text


@pytest.mark.parametrize("threads", [1, 2])
def test_epochs_with_batches_short_last_ones_and_metrics(
    threads: int, small_tiles: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = RNG.normal(size=(1000, 6)), RNG.integers(0, 4, 1000)
    found = []
    for least in (0, 2**60):
        monkeypatch.setattr(tiling, "SAVED_BYTES", least)
        pf.set_seed(0)
        pf.set_num_threads(threads)
        model = pf.Sequential(
            [
                pf.layers.Dense(16, activation="relu"),
                pf.layers.Dropout(0.2),
                pf.layers.Dense(4),
            ]
        )
        trainer = pf.Trainer(model, loss="cross_entropy", metrics=["accuracy"])
        history = trainer.fit(x, y, epochs=3, batch_size=300, seed=1, verbose=0)
        found.append((history, model.predict(x)))
        assert bool(tiles_of(trainer.plan)) == (least == 0)
    np.testing.assert_allclose(found[0][0]["loss"], found[1][0]["loss"], rtol=1e-5)
    np.testing.assert_allclose(found[0][0]["accuracy"], found[1][0]["accuracy"], atol=0.003)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-3, atol=1e-4)


# ---- random graphs ----


# A third of them under another set than that of the whole suite, as of those that are not cut.
GRAPHS = 20 if "PYFRAME_ISA" in os.environ else 60


@pytest.mark.sweep
def test_random_graphs_in_tiles(small_tiles: None, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []
    real = tiling.cut

    def watched(*given: Any) -> Any:
        parts = real(*given)
        for tile in [part for part in parts if isinstance(part, tiling.Tile)]:
            found.extend(node.op for node in tile.nodes if isinstance(node, Op))
        return parts

    monkeypatch.setattr(tiling, "cut", watched)
    usable = with_tiles = 0
    for seed in range(GRAPHS):
        found.clear()
        usable += check_graphs(1, seed=seed)
        with_tiles += bool(found)
    assert usable >= 0.9 * GRAPHS
    assert with_tiles >= (8 if GRAPHS == 60 else 1)


@pytest.mark.parametrize("seed", range(200, 240))
def test_random_nets_in_tiles(seed: int, small_tiles: None) -> None:
    """Residuals, reshapes and sums of long element-wise stretches: see `random_net`."""
    tiled = outcome(seed, "float64", True)
    for fuse in ({"tiles"}, PLAIN):
        for a, b in zip(tiled, outcome(seed, "float64", fuse), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


def test_random_nets_have_tiles(small_tiles: None) -> None:
    found = []
    for seed in range(200, 240):
        x, _, cost = random_net(seed, "float64")
        plan = pf.compile(cost)
        plan.loss_and_gradients({x: RNG.normal(size=(600, 24))})
        found.append(tiles_of(plan))
    assert sum(map(bool, found)) >= 20  # others are element-wise alone, which run as groups
    assert any(len(tiles) > 1 for tiles in found)


# ---- wrong declarations ----


@pytest.mark.parametrize(
    "op_class, rows",
    [
        (pf.Softmax, Rows((True,), (True,))),  # over the first axis, too
        (pf.Mean, Rows((True,), (False,))),  # each part divides by its own rows
        (pf.BinaryCrossEntropy, Rows((True, True, True), (False,))),  # weighted means, too
        (pf.Linear, Rows((True, True, False, True), (True,))),
    ],
)
def test_a_wrong_declaration_is_found(
    op_class: type[Op], rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_capabilities(op_class, shapes=60)
    count = len(rows.inputs)

    def wrong(node: Op, specs: Any) -> Rows | None:
        if not specs[0] or not specs[0].shape:
            return None
        return Rows(rows.inputs[: len(specs)] if count > 1 else rows.inputs, rows.outputs)

    monkeypatch.setattr(op_class, "rows", wrong)
    with pytest.raises(ConformanceError, match=r"capability.*(\n.*)*rows\(\)"):
        check_capabilities(op_class, shapes=60)


def test_values_inside_of_a_tile_are_not_readable() -> None:
    net = Net(dense(32, 16, 4), width=4, outputs=4)
    net.plan.step(net.feed(10_000))
    program = program_of(net.plan)
    inner = [v for v, (base, _) in enumerate(program.places) if base == LANE]
    assert inner and program.readable.isdisjoint(inner)
    with pytest.raises(pf.errors.ValueReusedError, match="inspect=True"):
        net.plan.value(net.y_hat.node.inputs[0])
