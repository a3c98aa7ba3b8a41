"""The profiler: what it counts, that it changes nothing, and what it writes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from registered import OPS

import pyframe as pf
from pyframe.commands import bench, cli
from pyframe.engine import profiler
from pyframe.errors import ArgumentError, BusyError, GraphError, LabelError
from pyframe.testing.draw import Draw


def net(optimizer: object = None, rows: int = 8, **options: object) -> tuple[pf.Plan, dict]:
    rng = np.random.default_rng(0)
    x, y = pf.Placeholder("x", shape=(None, 12)), pf.Placeholder("y", shape=(None, 3))
    w1 = pf.Parameter(rng.normal(size=(12, 20)), name="w1")
    b1 = pf.Parameter(np.zeros(20), name="b1")
    w2 = pf.Parameter(rng.normal(size=(20, 3)), name="w2")
    cost = pf.L2Loss(y, pf.Linear(pf.Relu(pf.Linear(x, w1, b1)), w2))
    feed = {x: rng.normal(size=(rows, 12)), y: rng.normal(size=(rows, 3))}
    return pf.compile(cost, optimizer, **options), feed


def test_operations_and_bytes_are_counted_exactly() -> None:
    plan, feed = net(pf.optimizers.SGD(0.1))
    profile = plan.profile(feed, repeats=3)
    kernels = [r.kernel for r in profile]
    assert kernels == [
        *["linear_f32"] * 2,
        "l2_loss_f32",
        "l2_loss_grad_f32",
        *["linear_grad_f32"] * 2,
        "sgd_update_f32",
    ]
    first, second, loss, _, last_grad, first_grad, update = profile
    assert first.flops == 8 * 20 * (2 * 12 + 2)  # products, bias, relu
    assert second.flops == 8 * 3 * 2 * 20
    assert loss.flops == 8 * 3
    # dx with the derivative of relu, and dweight; nobody wants dbias
    assert last_grad.flops == 2 * (2 * 8 * 3 * 20) + 8 * 20
    assert first_grad.flops == 2 * 8 * 20 * 12 + 8 * 20  # dweight, dbias; nobody wants dx
    run = 240 + 16 + 64  # w1, b1, w2, each padded to 64 bytes: 240, 32, 64
    assert update.flops in (4 * run, 4 * 336)
    assert first.bytes == 4 * (8 * 12 + 12 * 20 + 20 + 8 * 20)
    assert all(r.seconds > 0 or r.flops < 100 for r in profile)
    assert all(r.share >= 0 for r in profile)
    assert profile.total_seconds >= profile.seconds > 0
    assert profile.arena_bytes == plan.engine.latest.program.arena_bytes


def test_a_group_counts_once_and_leaves_out_what_stays_inside() -> None:
    x = pf.Placeholder("x", shape=(None,))
    plan = pf.compile(pf.Tanh(pf.Square(pf.Neg(x))))
    (record,) = plan.profile({x: np.ones(50_000)}, repeats=2)
    assert record.kernel == "neg_f32 + square_f32 + tanh_f32"
    assert record.flops == 150_000
    assert record.bytes == 2 * 4 * 50_000


def test_every_op_has_a_count() -> None:
    for op_class in OPS:
        for seed in range(5):
            case = op_class.sample(Draw(seed))
            if any(a is not None and a.size == 0 for a in case.inputs):
                continue
            specs = [
                None if a is None else pf.graph.spec.Spec(a.shape, np.dtype(np.float32))
                for a in case.inputs
            ]
            shapes = None
            arrays = [None if a is None else np.asarray(a) for a in case.inputs]
            values = [
                None
                if a is None
                else pf.Placeholder(
                    shape=a.shape, dtype="int64" if a.dtype.kind in "iu" else "float32"
                )
                for a in arrays
            ]
            states = [pf.State(s, name=f"s{i}") for i, s in enumerate(case.states)]
            options = {"states": states} if states else {}
            node = op_class(*values, **case.attributes, **options)
            shapes = node.specs
            count = node.flops(specs, shapes, [True] * len(shapes))
            assert isinstance(count, int) and not isinstance(count, bool), op_class.op
            assert 0 < count < 10**9 or 0 in [math.prod(s.shape) for s in shapes], (
                op_class.op,
                count,
            )


@pytest.mark.parametrize("mode", ["step", "run", "gradients"])
def test_nothing_is_changed(mode: str) -> None:
    plan, feed = net(pf.optimizers.Adam(0.1, clip_norm=0.1))
    plan.step(feed)
    before = plan.snapshot()
    plan.profile(feed, mode, repeats=2)
    after = plan.snapshot()
    assert plan.step_count == before.step == after.step
    for a, b in zip(before.arrays, after.arrays, strict=True):
        np.testing.assert_array_equal(a, b)
    other, _ = net(pf.optimizers.Adam(0.1, clip_norm=0.1))
    other.step(feed_of(other, feed))
    assert plan.step(feed) == other.step(feed_of(other, feed))


def feed_of(plan: pf.Plan, feed: dict) -> dict:
    """The same arrays for the placeholders of another plan."""
    return {p.name: array for p, array in feed.items()}


class Twice(pf.Node):
    """A node written in Python."""

    def forward(self, ctx, x):
        return 2 * x

    def backward(self, ctx, dy):
        return 2 * dy


class Crawl(pf.optimizers.Optimizer):
    """An optimizer written in Python."""

    def update(self, parameters, gradients, slots, *, step, learning_rate):
        parameters -= learning_rate * np.sign(gradients)


def test_nodes_and_optimizers_in_python_are_timed_too() -> None:
    x = pf.Placeholder("x", shape=(None, 2))
    w = pf.Parameter(np.ones((2, 2)), name="w")
    plan = pf.compile(pf.Sum(Twice(x @ w)), Crawl(0.1))
    profile = plan.profile({x: np.ones((3, 2))}, repeats=3)
    python = [r for r in profile if r.kernel == "python"]
    assert len(python) == 3
    assert all(r.bound == "-" and r.seconds > 0 for r in python)
    np.testing.assert_array_equal(w.value, np.ones((2, 2)))


def test_searches_and_inspected_plans() -> None:
    for optimizer in (pf.optimizers.RandomSearch(), pf.optimizers.DirectionSearch()):
        plan, feed = net(optimizer)
        value = plan.parameters[0].value.copy()
        assert len(plan.profile(feed, repeats=2)) > 3
        np.testing.assert_array_equal(plan.parameters[0].value, value)
    plan, feed = net(pf.optimizers.SGD(0.1), inspect=True)
    assert "relu_f32" in [r.kernel for r in plan.profile(feed, repeats=2)]


def test_what_is_wrong_is_said() -> None:
    plan, feed = net()
    with pytest.raises(ArgumentError, match="mode='train'; use 'step', 'run', 'gradients'"):
        plan.profile(feed, "train")
    with pytest.raises(ArgumentError, match="repeats"):
        plan.profile(feed, repeats=0)
    with pytest.raises(GraphError, match="no optimizer"):
        plan.profile(feed, "step")
    plan, feed = net(pf.optimizers.SGD(0.1))
    with plan.claim(), pytest.raises(BusyError):
        plan.profile(feed)
    with pytest.raises(ArgumentError, match="by='time'"):
        plan.profile(feed, repeats=1).sorted("time")


def test_after_an_error_the_plan_goes_on() -> None:
    x, y = pf.Placeholder("x", shape=(None, 3)), pf.Placeholder("y", shape=(None,), dtype="int64")
    w = pf.Parameter(np.ones((3, 3)), name="w")
    plan = pf.compile(pf.CrossEntropy(y, x @ w), pf.optimizers.SGD(0.1))
    with pytest.raises(LabelError):
        plan.profile({x: np.ones((2, 3)), y: [0, 5]})
    assert np.isfinite(plan.step({x: np.ones((2, 3)), y: [0, 1]}))
    assert plan.step_count == 1


def test_the_trace_is_what_chrome_reads(tmp_path: Path) -> None:
    plan, feed = net(pf.optimizers.SGD(0.1))
    profile = plan.profile(feed, repeats=2)
    path = profile.to_chrome_trace(tmp_path / "trace.json")
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    assert [e["name"] for e in events] == [r.label for r in profile]
    end = 0.0
    for event, record in zip(events, profile, strict=True):
        assert event["ph"] == "X" and event["ts"] == pytest.approx(end)
        assert event["dur"] == pytest.approx(1e6 * record.seconds)
        assert event["args"]["flops"] == record.flops
        end = event["ts"] + event["dur"]


def test_the_table() -> None:
    plan, feed = net(pf.optimizers.SGD(0.1))
    profile = plan.profile(feed, repeats=2)
    lines = str(profile).splitlines()
    assert lines[0].split()[:3] == ["node", "kernel", "shapes"]
    assert len(lines) == len(profile) + 5
    assert "GFLOP/s float32" in lines[-1]
    assert json.loads(json.dumps(profile.to_dict()))["records"][0]["flops"] == profile[0].flops
    assert [r.seconds for r in profile.sorted()] == sorted(r.seconds for r in profile)[::-1]


def test_the_peaks_make_sense() -> None:
    peaks = profiler.machine_peaks()
    assert list(peaks.flops) == ["float32", "float64"]
    assert list(peaks.bandwidth) == ["L1", "L2", "L3", "memory"]
    for peak in (*peaks.flops.values(), *peaks.bandwidth.values()):
        assert 1e7 < peak < 1e14  # how they compare is for a machine with nothing else to do
    assert peaks.bandwidth_for(1000) == peaks.bandwidth["L1"]
    assert peaks.bandwidth_for(10**9) == peaks.bandwidth["memory"]
    assert profiler.machine_peaks() is peaks


def test_the_roofline_is_drawn() -> None:
    pytest.importorskip("matplotlib")
    from pyframe import plotting

    plan, feed = net(pf.optimizers.SGD(0.1))
    figure = plotting.roofline(plan.profile(feed, repeats=2), title="a net")
    (axes,) = figure.axes
    assert axes.get_title() == "a net"
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert len(axes.lines) == 4
    assert len(axes.collections) == 7
    x = pf.Placeholder("x", shape=(0,))
    with pytest.raises(ArgumentError, match="nothing can be drawn"):
        plotting.roofline(pf.compile(pf.Neg(x)).profile({x: []}, repeats=1))


def test_pyframe_bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "bench.json"
    command = ["bench", "lesson", "tabular", "predict_row", "--quick", "--json", str(target)]
    assert cli.main([*command, "--profile"]) == 0
    text = capsys.readouterr().out
    assert "peaks of one core" in text and "tabular: 13-64-64-1" in text
    assert "linear_grad_f32" in text
    result = json.loads(target.read_text(encoding="utf-8"))
    assert {w["name"] for w in result["workloads"]} == {"lesson", "tabular", "predict_row"}
    assert all(w["microseconds"] > 0 for w in result["workloads"])


def test_a_bench_without_the_plugin_for_images_says_so() -> None:
    result = bench.run(["lesson"], quick=True)
    assert result["left out"] == []  # nothing that was asked for
    result["left out"] = ["lenet"]
    assert "left out, for they need pyframe-cnn: lenet" in bench.report(result)


def test_pyframe_bench_names_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "imagenet"]) == 1
    assert "no workload 'imagenet'; there are lesson, tabular" in capsys.readouterr().err
