"""Plans: memory, values and gradients, specializations, parameters."""

import gc
import warnings
import weakref

import numpy as np
import pytest
from plans import numpy_gradients, regression

import pyframe as pf
from pyframe.engine.memory import ALIGNMENT, Arena, round_up
from pyframe.errors import (
    FeedError,
    GraphError,
    UnusedParameterWarning,
    ValueReusedError,
)

pytestmark = pytest.mark.sanitize

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
    (specialization,) = plan.engine.programs.kept.values()
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
    x = pf.Placeholder("x")
    plan = pf.compile(pf.Sum(x))
    for rows in range(1, 13):
        plan.run({x: np.zeros((rows, 3))})
    assert len(plan.engine.programs.kept) == 8


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
