"""Whole trainings and predictions give the same bits whatever the number of threads."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import pyframe as pf
from pyframe.layers import BatchNorm, Dense, Dropout, LayerNorm
from pyframe.native import core

pytestmark = pytest.mark.sweep

COUNTS = (1, 2, 3, 7)
ROWS, FEATURES, CLASSES = 700, 300, 10
RNG = np.random.default_rng(5)
X = RNG.normal(size=(ROWS, FEATURES))
LABELS = RNG.integers(0, CLASSES, ROWS)
TARGETS = RNG.normal(size=(ROWS, 3))


@pytest.fixture(autouse=True)
def _restore_count() -> Iterator[None]:
    before = pf.get_num_threads()
    yield
    pf.set_num_threads(before)


def regions() -> int:
    return core.pool_report()["regions"]


def digest(*arrays: np.ndarray) -> str:
    """Return a fingerprint of the bits of arrays, their types and shapes included."""
    together = hashlib.sha256()
    for array in arrays:
        together.update(f"{array.dtype} {array.shape}".encode())
        together.update(np.ascontiguousarray(array).tobytes())
    return together.hexdigest()


def classifier(dtype: str) -> pf.Trainer:
    model = pf.Sequential(
        [
            Dense(384),
            BatchNorm(),
            pf.layers.Activation("relu"),
            Dropout(0.2),
            Dense(256, "gelu"),
            LayerNorm(),
            Dense(CLASSES),
        ],
        dtype=dtype,
    )
    optimizer = pf.optimizers.Adam(1e-3, clip_norm=1.0)
    return pf.Trainer(model, loss="cross_entropy", optimizer=optimizer, metrics=["accuracy"])


def regressor(dtype: str) -> pf.Trainer:
    model = pf.Sequential([Dense(512, "tanh"), Dense(257, "sigmoid"), Dense(3)], dtype=dtype)
    optimizer = pf.optimizers.SGD(0.01, momentum=0.9, clip_value=0.5)
    return pf.Trainer(model, loss="l2", optimizer=optimizer, metrics=["mae", "r2"])


TRAINERS = {"classifier": (classifier, LABELS), "regressor": (regressor, TARGETS)}


def train(kind: str, dtype: str, batch_size: int | None) -> tuple[list[float], str]:
    """Return the losses and the fingerprint of all that a training leaves behind."""
    pf.set_seed(0)
    make, y = TRAINERS[kind]
    trainer = make(dtype)
    history = trainer.fit(
        X, y, epochs=3, batch_size=batch_size, validation_split=0.1, seed=1, verbose=0
    )
    model = trainer.model
    weights = model.get_weights()
    marks = digest(*weights.values(), model.predict(X), model.predict(X[:1]))
    return [*history["loss"], *history["val_loss"]], marks


@pytest.mark.parametrize("batch_size", [128, None])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", TRAINERS)
def test_training_gives_the_same_bits(kind: str, dtype: str, batch_size: int | None) -> None:
    results = {}
    for count in COUNTS:
        pf.set_num_threads(count)
        before = regions()
        results[count] = train(kind, dtype, batch_size)
        assert (regions() > before) == (count > 1), "the test is of no use: nothing was shared out"
    losses, marks = results[1]
    assert np.isfinite(losses).all()
    assert losses[2] < losses[0]
    for count in COUNTS[1:]:
        assert results[count][0] == losses, f"other losses with {count} threads"
        assert results[count][1] == marks, f"other weights or predictions with {count} threads"


def test_the_fingerprint_sees_one_bit() -> None:
    array = np.ones(1000, np.float32)
    other = array.copy()
    other[999] = np.nextafter(np.float32(1), np.float32(2))
    assert digest(array) != digest(other)
    assert digest(array) != digest(array.astype(np.float64))


def test_many_threads_predict_at_once() -> None:
    pf.set_num_threads(1)
    pf.set_seed(0)
    trainer = classifier("float32")
    trainer.fit(X, LABELS, epochs=1, seed=0, verbose=0)
    model = trainer.model
    many = np.tile(X, (5, 1))
    sizes = (1, 7, 300, len(many))
    expected = {n: digest(model.predict(many[:n])) for n in sizes}
    pf.set_num_threads(3)
    start = threading.Barrier(6)
    wrong: list[int] = []

    def predict(first: int) -> None:
        start.wait()
        for i in range(12):
            n = sizes[(first + i) % len(sizes)]
            if digest(model.predict(many[:n])) != expected[n]:
                wrong.append(n)

    callers = [threading.Thread(target=predict, args=(i,)) for i in range(6)]
    before = regions()
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(120)
        assert not caller.is_alive()
    assert wrong == []
    assert regions() > before


def test_the_number_may_change_while_a_plan_runs() -> None:
    pf.set_num_threads(1)
    expected = train("regressor", "float32", 128)
    done = threading.Event()

    def change() -> None:
        count = 1
        while not done.wait(0.0005):
            count = count % 7 + 1
            pf.set_num_threads(count)

    changer = threading.Thread(target=change)
    changer.start()
    try:
        assert train("regressor", "float32", 128) == expected
    finally:
        done.set()
        changer.join(60)


# ---- kernels that share out their rows themselves ----
# What they do takes well over 200 microseconds: more than waking threads is ever taken to cost.

A, B = RNG.normal(size=(901, 1203)), RNG.normal(size=(901, 257))


def evaluate(make: Callable[..., pf.Node], *arrays: np.ndarray) -> np.ndarray:
    feeds = {pf.Placeholder(f"x{i}", shape=a.shape, dtype=a.dtype): a for i, a in enumerate(arrays)}
    return np.array(pf.compile(make(*feeds)).run(feeds))


MOVES: dict[str, tuple[Callable[..., pf.Node], Callable[..., np.ndarray], list[np.ndarray]]] = {
    "transpose": (pf.Transpose, np.transpose, [A]),
    "transpose of three axes": (
        lambda x: pf.Transpose(x, axes=(1, 0, 2)),
        lambda x: x.transpose(1, 0, 2),
        [A[:900].reshape(60, 15, 1203)],
    ),
    "slice": (
        lambda x: pf.Slice(x, (slice(3, None, 2), slice(None, 5, -1))),
        lambda x: x[3::2, :5:-1],
        [np.concatenate([A, A])],
    ),
    "concat along the columns": (
        lambda x, y: pf.Concat([x, y], axis=1),
        lambda x, y: np.concatenate([x, y], axis=1),
        [A, B],
    ),
}


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MOVES)
def test_what_moves_is_moved_right(name: str, dtype: str, count: int) -> None:
    make, expect, arrays = MOVES[name]
    arrays = [a.astype(dtype) for a in arrays]
    pf.set_num_threads(count)
    before = regions()
    np.testing.assert_array_equal(evaluate(make, *arrays), expect(*arrays))
    assert (regions() > before) == (count > 1), "the test is of no use: nothing was shared out"


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("n", [(1 << 14) - 1, (1 << 14) + 1, (1 << 20) + 17, 3_000_001])
def test_sums_of_squares(n: int, bits: int) -> None:
    g = RNG.normal(size=n).astype(f"float{bits}")
    totals = []
    for count in COUNTS:
        pf.set_num_threads(count)
        before = regions()
        total = np.ones(1)
        core.call_kernel("gradient_norm", bits, [g], [], states=[total])
        totals.append(total[0])
        if n > 2_000_000:
            assert (regions() > before) == (count > 1)
    assert len(set(totals)) == 1
    assert totals[0] == pytest.approx(math.hypot(1, *g.astype(float)), rel=1e-14)
