"""Losses: formulas against numbers worked out by hand, and what is refused."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.errors import ArgumentError, DTypeError, LabelError, ShapeError
from pyframe.native import core

ELEMENTWISE = [pf.L1Loss, pf.L2Loss, pf.HuberLoss, pf.BinaryCrossEntropy]


def value(node: Any) -> Any:
    return pf.compile(node).run({})


def constant(x: Any, dtype: str = "float64") -> Any:
    return pf.Constant(x, dtype=dtype)


def test_the_lessons_examples() -> None:
    """The lesson's two guesses; of the first it says 4 = 2 + 2, but |4 - 1| is 3."""
    y = constant([3.0, 4.0, 4.0])
    first, second = constant([1.0, 1.0, 4.0]), constant([3.0, 4.0, 0.0])
    assert value(pf.L1Loss(y, first, reduction="sum")) == 2 + 3
    assert value(pf.L1Loss(y, second, reduction="sum")) == 4
    assert np.isclose(value(pf.L2Loss(y, first)), (4 + 9) / 3, rtol=1e-15)
    assert np.isclose(value(pf.L2Loss(y, second)), 16 / 3, rtol=1e-15)


def test_huber_by_hand() -> None:
    y, y_hat = constant([0.0, 0.0, 0.0]), constant([0.5, -2.0, 3.0])
    losses = value(pf.HuberLoss(y, y_hat, reduction="none", delta=2.0))
    assert np.array_equal(losses, [0.125, 2.0, 4.0])


def test_cross_entropy_by_hand() -> None:
    logits = constant(np.log([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]))
    loss = pf.CrossEntropy([0, 2], logits, reduction="none")
    assert np.allclose(value(loss), -np.log([0.5, 0.7]), rtol=1e-14)
    binary = pf.BinaryCrossEntropy(
        constant([1.0, 0.0, 0.25]), constant([np.log(3)] * 3), reduction="none"
    )
    wanted = [-np.log(0.75), -np.log(0.25), -0.25 * np.log(0.75) - 0.75 * np.log(0.25)]
    assert np.allclose(value(binary), wanted, rtol=1e-14)


def test_great_logits_neither_overflow_nor_lose_the_loss() -> None:
    for x, y, loss in ((1e4, 1.0, 0.0), (1e4, 0.0, 1e4), (-1e4, 1.0, 1e4), (-1e4, 0.0, 0.0)):
        assert value(pf.BinaryCrossEntropy(constant([y]), constant([x]))) == loss
    logits = constant([[1e4, 0.0], [1e4, 0.0]])
    assert np.array_equal(value(pf.CrossEntropy([0, 1], logits, reduction="none")), [0.0, 1e4])


@pytest.mark.parametrize("loss", ELEMENTWISE)
def test_weighted_mean_is_sum_wl_over_sum_w(loss: Any) -> None:
    rng = np.random.default_rng(0)
    y, y_hat = constant(rng.uniform(size=(5, 3))), constant(rng.normal(size=(5, 3)))
    w = np.array([1.0, 0.0, 2.0, 0.5, 3.0])
    l = value(loss(y, y_hat, reduction="none"))  # noqa: E741
    weighted = constant(w)
    assert np.allclose(value(loss(y, y_hat, weighted)), np.sum(w * l.mean(axis=1)) / np.sum(w))
    assert np.allclose(value(loss(y, y_hat, weighted, "sum")), np.sum(w[:, None] * l))
    assert np.allclose(value(loss(y, y_hat, weighted, "none")), w[:, None] * l)
    assert np.allclose(value(loss(y, y_hat)), l.mean())


def test_weighted_cross_entropy_of_sequences() -> None:
    rng = np.random.default_rng(1)
    labels, logits = rng.integers(0, 4, (3, 5)), constant(rng.normal(size=(3, 5, 4)))
    w = np.array([2.0, 0.0, 1.0])
    l = value(pf.CrossEntropy(labels, logits, reduction="none"))  # noqa: E741
    assert l.shape == (3, 5)
    mean = value(pf.CrossEntropy(labels, logits, constant(w)))
    assert np.allclose(mean, np.sum(w * l.mean(axis=1)) / 3)


@pytest.mark.parametrize("loss", [*ELEMENTWISE, pf.CrossEntropy])
def test_weights_of_zero_give_zero_and_no_rows_give_nan(loss: Any) -> None:
    labels = loss is pf.CrossEntropy
    y = pf.Placeholder("y", shape=(None,), dtype="int64" if labels else "float32")
    x = pf.Placeholder("x", shape=(None, 3 if labels else 1))
    w = pf.Placeholder("w", shape=(None,))
    scale = pf.Parameter(1.0, name="scale")
    plan = pf.compile(loss(y, scale * x, w))
    feed = {y: np.ones(4, np.int64), x: np.full((4, x.shape[1]), 2.0)}
    cost, gradients = plan.loss_and_gradients({**feed, w: np.zeros(4)})
    assert cost == 0 and gradients[scale] == 0
    assert np.isnan(plan.run({y: np.zeros(0, np.int64), x: np.zeros((0, x.shape[1])), w: []}))


@pytest.mark.parametrize("loss", ELEMENTWISE)
def test_nothing_is_broadcast(loss: Any) -> None:
    shapes = [(), (4,), (1,), (4, 1), (1, 4), (4, 4), (4, 1, 1)]
    for a, b in itertools.permutations(shapes, 2):
        y = pf.Placeholder("target", shape=a)
        y_hat = pf.Placeholder("prediction", shape=b)
        if (a, b) == ((4,), (4, 1)):  # the one exception: a 1-D target is a column
            assert loss(y, y_hat, reduction="none").shape == (4, 1)
            continue
        with pytest.raises(ShapeError, match=r"target .*prediction") as error:
            loss(y, y_hat)
        assert str(a).replace(",)", ",") in str(error.value)


def test_a_column_that_only_the_feed_shows() -> None:
    y = pf.Placeholder("y", shape=(None,))
    y_hat = pf.Placeholder("y_hat", shape=(None, None))
    plan = pf.compile(pf.L2Loss(y, y_hat))
    assert plan.run({y: [1.0, 2.0], y_hat: [[1.0], [4.0]]}) == 2
    with pytest.raises(ShapeError, match="y_hat"):
        plan.run({y: [1.0, 2.0], y_hat: [[1.0, 1.0], [4.0, 4.0]]})


def test_both_sides_of_a_difference_get_their_gradient() -> None:
    y = pf.Parameter([1.0, 2.0], name="y", dtype="float64")
    y_hat = pf.Parameter([[3.0], [0.0]], name="y_hat", dtype="float64")
    _, gradients = pf.compile(pf.L2Loss(y, y_hat)).loss_and_gradients({})
    assert np.array_equal(gradients[y_hat], [[2.0], [-2.0]])
    assert np.array_equal(gradients[y], [-2.0, 2.0])


@pytest.mark.parametrize("label", [-1, 3, 2**40, -(2**63)])
@pytest.mark.parametrize("bits", [32, 64])
def test_labels_are_checked_forward_and_backward(bits: int, label: int) -> None:
    real = np.dtype(f"f{bits // 8}")
    labels, logits = np.array([0, 2, label, -7]), np.zeros((4, 3), real)
    mean = np.zeros(1, np.int64).tobytes()
    loss, dl, dx = np.zeros((), real), np.ones((), real), np.zeros((4, 3), real)
    failed = (core.lib.PF_ERROR_LABEL, 0, 2, label)
    call = core.call_kernel
    assert call("cross_entropy", bits, [labels, logits, None], [loss], attributes=mean) == failed
    backward = call("cross_entropy_grad", bits, [dl, labels, logits, None], [dx], attributes=mean)
    assert backward == (failed[0], 1, *failed[2:])
    sums = np.zeros(2)
    assert call("accuracy", bits, [labels, logits, None], [sums]) == failed


def test_a_wrong_label_is_named_and_the_plan_goes_on() -> None:
    y = pf.Placeholder("y", shape=(None,), dtype="int64")
    scale = pf.Parameter(np.ones(3), name="scale")
    plan = pf.compile(pf.CrossEntropy(y, np.ones((2, 3)) * scale, name="loss"))
    with pytest.raises(LabelError, match=r"loss.*5.*\[0, 3\)"):
        plan.loss_and_gradients({y: [0, 5]})
    assert np.isclose(plan.loss_and_gradients({y: [0, 2]})[0], np.log(3))


def test_arguments_are_checked() -> None:
    y, x = pf.Placeholder("y", shape=(4,)), pf.Placeholder("x", shape=(4,))
    with pytest.raises(ArgumentError, match="average"):
        pf.L2Loss(y, x, reduction="average")
    for delta in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ArgumentError, match="delta"):
            pf.HuberLoss(y, x, delta=delta)
    with pytest.raises(DTypeError, match="int64"):
        pf.CrossEntropy(y, pf.Placeholder("logits", shape=(4, 3)))
    with pytest.raises(DTypeError, match="whole numbers"):
        pf.CrossEntropy([0.5, 1.0], pf.Placeholder("logits", shape=(2, 3)))
    for weight in ((4, 1), (3,), ()):
        with pytest.raises(ShapeError, match="sample_weight"):
            pf.L2Loss(y, x, np.ones(weight))
    with pytest.raises(ShapeError, match="batch axis"):
        pf.L2Loss(np.float32(1), pf.Placeholder("x", shape=()), np.ones(1))
