"""Connectionist temporal classification: against all alignments, PyTorch, and in a training."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.testing import Draw, check_loss

pytestmark = pytest.mark.once  # one copy of the kernel serves all instruction sets

RNG = np.random.default_rng(4)


def merged(path: tuple[int, ...], blank: int) -> list[int]:
    """Return what an alignment stands for."""
    return [k for k, _ in itertools.groupby(path) if k != blank]


def enumerated(labels: Any, x: Any, blank: int) -> tuple[float, Any]:
    """Return -log P and its derivatives by the logits, from every alignment that there is."""
    p = np.exp(x - x.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    target = [k for k in labels if k != blank]
    total, used = 0.0, np.zeros(x.shape)
    for path in itertools.product(range(x.shape[1]), repeat=len(x)):
        if merged(path, blank) == target:
            likely = np.prod(p[np.arange(len(x)), path]) if len(x) else 1.0
            total += likely
            used[np.arange(len(x)), path] += likely
    if total == 0:
        return np.inf, np.zeros(x.shape)
    return -np.log(total), p - used / total


def computed(y: Any, x: Any, mask: Any = None, blank: int = 0) -> tuple[Any, Any]:
    labels = pf.Placeholder("labels", shape=y.shape, dtype="int64")
    logits = pf.Placeholder("logits", shape=x.shape, dtype="float64")
    node = pf.CtcNll(labels, logits, mask if mask is None else pf.Constant(mask, dtype="f8"), blank)
    plan = pf.compile(list(node))
    loss, slope = plan.run({labels: y, logits: x})
    return loss, slope


@pytest.mark.parametrize("seed", range(60))
def test_all_alignments(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, frames, classes, length = 3, rng.integers(0, 6), rng.integers(1, 4), rng.integers(0, 4)
    blank = int(rng.integers(classes))
    y, x = rng.integers(0, classes, (n, length)), 2 * rng.normal(size=(n, frames, classes))
    mask = np.where(rng.random((n, frames)) < 0.2, 0.0, 2.0) if seed % 2 else None
    loss, slope = computed(y, x, mask, blank)
    for i in range(n):
        there = np.ones(frames, bool) if mask is None else mask[i] != 0
        wanted, gradient = enumerated(y[i], x[i][there], blank)
        np.testing.assert_allclose(loss[i], wanted, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(slope[i][there], gradient, rtol=1e-10, atol=1e-13)
        assert not slope[i][~there].any()


@pytest.mark.parametrize("seed", range(50))
def test_pytorch(seed: int) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    n, length, classes = rng.integers(1, 5), rng.integers(1, 9), rng.integers(2, 12)
    frames = 2 * length + rng.integers(0, 12)
    y, x = rng.integers(1, classes, (n, length)), rng.normal(size=(n, frames, classes))
    lengths, sizes = rng.integers(2 * length, frames + 1, n), rng.integers(0, length + 1, n)
    y[np.arange(length) >= sizes[:, None]] = 0
    mask = (np.arange(frames) < lengths[:, None]).astype(float)
    loss, slope = computed(y, x, mask)
    t = torch.tensor(x, requires_grad=True)
    theirs = torch.nn.functional.ctc_loss(
        t.log_softmax(2).transpose(0, 1),
        torch.tensor(y),
        torch.tensor(lengths),
        torch.tensor(sizes),
        reduction="none",
    )
    theirs.sum().backward()
    np.testing.assert_allclose(loss, theirs.detach().numpy(), rtol=1e-10)
    np.testing.assert_allclose(slope, t.grad.numpy(), rtol=1e-8, atol=1e-10)


def test_probabilities_that_no_float_holds() -> None:
    """P is far below the smallest number, and the loss and its derivatives are right."""
    x = np.zeros((1, 2000, 3))
    x[..., 2] = -20.0
    y = np.tile([1, 2], (1, 100))
    loss, slope = computed(y, x)
    assert 1500 < loss[0] < 4000
    wanted, exact = pf.CtcNll.reference(y, x, None, blank=0)
    np.testing.assert_allclose(loss, wanted, rtol=1e-11)
    np.testing.assert_allclose(slope, exact, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.parametrize("length", [1, 2, 40])
def test_logits_near_the_largest_number(dtype: str, share: float, length: int) -> None:
    """Where the loss is a number it is right, as that of `CrossEntropy` is; there is no NaN."""
    most = float(np.finfo(dtype).max)
    rng = np.random.default_rng(length)
    y, frames = rng.integers(1, 3, (2, length)), 2 * length + 1
    x = rng.choice([-share, share], (2, frames, 3)) * most
    x = x.astype(dtype)
    labels = pf.Placeholder("labels", shape=y.shape, dtype="int64")
    logits = pf.Parameter(x, "logits", dtype=dtype)
    for reduction in ("none", "mean"):
        value = pf.compile(pf.CtcLoss(labels, logits, None, reduction)).run({labels: y})
        total = pf.Sum(pf.CtcLoss(labels, logits, None, reduction))
        _, slopes = pf.compile(total).loss_and_gradients({labels: y})
        assert (value >= 0).all()  # and so no NaN
        assert np.abs(slopes[logits]).max() <= 1
    loss, slope = pf.compile(list(pf.CtcNll(labels, logits))).run({labels: y})
    assert np.abs(slope.sum(-1)).max() < 1e-6
    # Beside differences of 1e6 nothing else counts either, and so all is as with these.
    wanted, exact = pf.CtcNll.reference(y, x / most * 1e6, None, blank=0)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(loss, (wanted * (most / 1e6)).astype(dtype), rtol=1e-5)
    if dtype == "float32":  # of float64 sums of logits are not exact, nor finite
        p = (x == x.max(-1, keepdims=True)) / (x == x.max(-1, keepdims=True)).sum(-1, keepdims=True)
        got, right = p - slope, p - exact  # the share of the alignments that pass here
        for share in (0, 1):  # how many are alike is nothing beside what they cost
            np.testing.assert_allclose(got[np.abs(right - share) < 1e-9], share, atol=1e-6)


def test_large_logits_that_are_alike() -> None:
    """What they have in common changes nothing: not a bit of them is lost."""
    y, x = np.array([[1, 2, 1]]), RNG.integers(-9, 9, (1, 400, 3)).astype(float)
    near, far = computed(y, x), computed(y, x + 2.0**49)
    assert near[0] > 600  # so that it is computed in logarithms
    np.testing.assert_allclose(far[0], near[0], rtol=1e-14)
    np.testing.assert_allclose(far[1], near[1], rtol=1e-12)


@pytest.mark.parametrize(("frames", "length"), [(30_000, 10), (4000, 1500)])
def test_very_long_targets(frames: int, length: int) -> None:
    """Each frame gives out the whole of its probability, as far into the sequence as it is."""
    rng = np.random.default_rng(0)
    y, x = rng.integers(1, 4, (1, length)), 30 * rng.normal(size=(1, frames, 4))
    loss, slope = computed(y, x)
    assert 1e4 < loss[0] < np.inf
    np.testing.assert_allclose(slope.sum(-1), 0, atol=1e-14)
    assert np.abs(slope).max() <= 1
    wanted, exact = pf.CtcNll.reference(y, x, None, blank=0)
    np.testing.assert_allclose(loss, wanted, rtol=1e-12)
    np.testing.assert_allclose(slope, exact, atol=1e-7)


def test_too_few_frames_cost_infinity_and_move_nothing() -> None:
    loss, slope = computed(np.array([[1, 1], [1, 2]]), RNG.normal(size=(2, 2, 3)))
    assert np.isinf(loss[0])
    assert np.isfinite(loss[1])
    assert not slope[0].any()
    assert slope[1].any()


def test_what_makes_no_sense_is_refused() -> None:
    y = pf.Placeholder("y", shape=(None, 2), dtype="int64")
    x = pf.Placeholder("x", shape=(None, 4, 3))
    for wrong, kind, says in [
        (lambda: pf.CtcLoss(y, x, blank=3), pf.ShapeError, "blank=3 is none of the 3 classes"),
        (lambda: pf.CtcLoss(y, x, blank=-1), pf.ArgumentError, "blank"),
        (lambda: pf.CtcLoss(x, x), pf.DTypeError, "int64"),
        (lambda: pf.CtcLoss(y, y), pf.DTypeError, "float"),
        (lambda: pf.CtcLoss(y, x[:, 0]), pf.ShapeError, r"logits \(n, T, classes\)"),
        (lambda: pf.CtcNll(y, x, np.ones((2, 3))), pf.ShapeError, "one number for each frame"),
        (lambda: pf.CtcLoss(y, x, reduction="max"), pf.ArgumentError, "reduction"),
        (lambda: pf.CtcLoss(y, pf.Sigmoid(x)), pf.ArgumentError, "logits"),
    ]:
        with pytest.raises(kind, match=says):
            wrong()
    plan = pf.compile(pf.CtcLoss(y, x))
    with pytest.raises(pf.LabelError, match=r"label 3 at index 2"):
        plan.run({y: [[0, 1], [3, 0]], x: np.zeros((2, 4, 3))})


def pairs(draw: Draw, rows: int) -> tuple[Any, Any]:
    return draw.labels((rows, 2), 3), draw.normal((rows, 6, 3))


def test_conformance() -> None:
    check_loss(pf.CtcLoss, draw=pairs)


def test_a_network_learns_to_write_what_it_sees() -> None:
    """Rows of noise in which two of three marks stand somewhere, one after the other."""
    rng = np.random.default_rng(0)
    n, frames = 200, 12
    y = rng.integers(1, 4, (n, 2))
    X = 0.1 * rng.normal(size=(n, frames, 3))
    for row, (first, second) in zip(X, y, strict=True):
        at = np.sort(rng.choice(frames - 2, 2, replace=False)) + np.array([0, 2])
        row[at[0], first - 1] += 1
        row[at[1], second - 1] += 1
    model = pf.Sequential([pf.layers.Dense(16, activation="relu"), pf.layers.Dense(4)])
    trainer = pf.Trainer(model, "ctc", pf.optimizers.Adam(0.02))
    history = trainer.fit(X, y, epochs=40, batch_size=25, verbose=0)
    assert history["loss"][-1] < 0.2 < 2 < history["loss"][0]
    best = trainer.predict(X).argmax(axis=-1)
    read = [merged(tuple(path), 0) for path in best]
    assert np.mean([r == list(t) for r, t in zip(read, y, strict=True)]) > 0.95
