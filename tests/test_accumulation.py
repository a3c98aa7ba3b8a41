"""Steps on several batches: what they come to is a step on all of their rows at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trainers import Momentum, bits_of, small_network
from updates import UPDATES

import pyframe as pf
from pyframe.callbacks import LambdaCallback
from pyframe.layers import BatchNorm, Dense, Dropout, Embedding

pytestmark = pytest.mark.once

RNG = np.random.default_rng(0)
ROWS = 62  # steps on 24, 24 and 14 of them, the last in parts of 8 and 6
X = RNG.normal(size=(ROWS, 3))
Y = X @ RNG.normal(size=(3, 2)) + RNG.normal(size=(ROWS, 2))
WEIGHTS = RNG.uniform(0.0, 2.0, size=ROWS)
FIT: dict[str, Any] = {"epochs": 3, "seed": 5, "verbose": 0}

OPTIMIZERS: dict[str, Any] = {
    **{
        name: update.optimizer
        for name, update in UPDATES.items()
        if update.make.needs_gradients and update.make is not pf.optimizers.SAM
    },
    "clipped": lambda: pf.optimizers.Adam(0.05, clip_norm=0.5, clip_value=0.1),
    "noisy": lambda: pf.optimizers.SGD(0.05, gradient_noise=0.1),
    "groups": lambda: pf.optimizers.Adam(0.05, groups={"bias": {"learning_rate_factor": 3.0}}),
    "scheduled": lambda: pf.optimizers.SGD(pf.schedules.Exponential(0.1, 0.5)),
    "in python": lambda: Momentum(0.05),
}


def make(optimizer: Any = "sgd", loss: Any = "l2", *layers: Any) -> pf.Trainer:
    pf.set_seed(3)
    layers = layers or (Dense(6, "tanh", weight_regularizer="l2"), Dropout(0.3), Dense(2))
    model = pf.Sequential(list(layers), dtype="float64")
    return pf.Trainer(model, loss, optimizer, ["mae"] if loss == "l2" else [])


def close(one: pf.Trainer, other: pf.Trainer) -> None:
    for a, b in zip(one.model.parameters, other.model.parameters, strict=True):
        np.testing.assert_allclose(a.value, b.value, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_it_is_a_step_on_all_rows_at_once(optimizer: str, weighted: bool) -> None:
    one, other = make(OPTIMIZERS[optimizer]()), make(OPTIMIZERS[optimizer]())
    weights = {"sample_weight": WEIGHTS} if weighted else {}
    history = one.fit(X, Y, batch_size=8, accumulate=3, **weights, **FIT)
    expected = other.fit(X, Y, batch_size=24, **weights, **FIT)
    close(one, other)
    assert one.plan.step_count == other.plan.step_count == 9
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-10)


def test_in_one_part_it_is_the_same_to_the_bit() -> None:
    results = []
    for accumulate in (1, 4):
        trainer = make("adam")
        results.append(bits_of(trainer, trainer.fit(X, Y, batch_size=None, accumulate=accumulate)))
    assert results[0] == results[1]


def test_more_batches_than_an_epoch_has_are_one_step() -> None:
    one, other = make(), make()
    one.fit(X, Y, batch_size=10, accumulate=99, shuffle=False, **FIT)
    other.fit(X, Y, batch_size=None, **FIT)
    close(one, other)


def test_integer_labels_and_a_table_of_rows() -> None:
    words, labels = RNG.integers(0, 9000, size=(ROWS, 4)), RNG.integers(0, 5, size=ROWS)
    layers = lambda: (Embedding(9000, 8, dtype="float64"), pf.layers.Flatten(), Dense(5))  # noqa: E731
    one, other = (make("adagrad", "cross_entropy", *layers()) for _ in range(2))
    one.fit(words, labels, batch_size=8, accumulate=3, **FIT)
    other.fit(words, labels, batch_size=24, **FIT)
    close(one, other)


def test_batches_of_no_weight_change_nothing() -> None:
    weights = np.where(np.arange(ROWS) // 8 % 2 == 0, WEIGHTS, 0.0)
    one, other = make(), make()
    fit = {**FIT, "shuffle": False, "sample_weight": weights}
    one.fit(X, Y, batch_size=8, accumulate=2, **fit)
    other.fit(X, Y, batch_size=16, **fit)
    close(one, other)


def test_statistics_follow_each_batch() -> None:
    trainer = make("sgd", "l2", BatchNorm(momentum=0.5), Dense(2))
    trainer.fit(X[:16], Y[:16], 1, batch_size=8, accumulate=2, shuffle=False, verbose=0)
    mean = 0.5 * (0.5 * X[:8].mean(0)) + 0.5 * X[8:16].mean(0)
    np.testing.assert_allclose(trainer.model.states[0].value, mean, rtol=1e-12)


def test_a_callback_hears_of_steps_and_of_the_loss_of_all_their_rows() -> None:
    heard: list[list[Any]] = [[], []]
    for into, size in zip(
        heard, ({"batch_size": 8, "accumulate": 3}, {"batch_size": 24}), strict=True
    ):
        hear = LambdaCallback(
            on_batch_end=lambda trainer, step, logs, into=into: into.append((step, logs["loss"]))
        )
        make().fit(X, Y, callbacks=[hear], sample_weight=WEIGHTS, **size, **FIT)
    assert [step for step, _ in heard[0]] == list(range(1, 10))
    np.testing.assert_allclose(heard[0], heard[1], rtol=1e-10)


class Stopped(Exception):
    """Stands for the end of a process."""


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_a_fit_goes_on_to_the_same_bits(batch: int, tmp_path: Path) -> None:
    fit = {**FIT, "batch_size": 8, "accumulate": 3, "validation_split": 0.1}

    def trainer() -> pf.Trainer:
        return pf.Trainer(small_network(input_shape=(3,)), "l2", "adam", ["mae"])

    def save(trainer: Any, step: int, logs: Any) -> None:
        if step == batch:
            trainer.save(tmp_path / "m")
            raise Stopped

    whole, first, second = trainer(), trainer(), trainer()
    expected = bits_of(whole, whole.fit(X, Y[:, :1], **fit))
    with pytest.raises(Stopped):
        first.fit(X, Y[:, :1], callbacks=[LambdaCallback(on_batch_end=save)], **fit)
    with pytest.raises(pf.CheckpointError, match="batches to accumulate of its fit was 3"):
        second.fit(X, Y[:, :1], resume=tmp_path / "m", **{**fit, "accumulate": 2})
    history = second.fit(X, Y[:, :1], resume=tmp_path / "m", **fit)
    assert bits_of(second, history) == expected


def test_a_step_that_fails_in_a_later_part_has_not_happened() -> None:
    labels = RNG.integers(0, 2, size=ROWS)
    wrong = labels.copy()
    wrong[40] = 7  # in the second part of the second step
    layers = lambda: (BatchNorm(), Dense(2))  # noqa: E731
    one, other = (make("adam", "cross_entropy", *layers()) for _ in range(2))
    fit = {**FIT, "batch_size": 8, "accumulate": 3, "shuffle": False}
    with pytest.raises(pf.LabelError, match="row 40 of the data"):
        one.fit(X, wrong, **fit)
    other.fit(X[:24], labels[:24], **{**fit, "epochs": 1})
    assert one.plan.step_count == other.plan.step_count == 1
    for a, b in zip(one.model.states, other.model.states, strict=True):
        np.testing.assert_array_equal(a.value, b.value)
    for trainer in (one, other):
        trainer.fit(X, labels, **{**fit, "initial_epoch": 4})
    for a, b in zip(one.model.parameters, other.model.parameters, strict=True):
        np.testing.assert_array_equal(a.value, b.value)


def test_a_step_without_finite_gradients_is_skipped_as_a_whole() -> None:
    broken = X.copy()
    broken[30] = 1e160  # in the first part of the second step of two
    trainers = [make(pf.optimizers.SGD(0.1, nonfinite="skip"), "l2", Dense(2)) for _ in range(2)]
    fit = {**FIT, "epochs": 1, "batch_size": 8, "accumulate": 3, "shuffle": False}
    with pytest.warns(pf.errors.DivergenceWarning):
        trainers[0].fit(broken[:48], Y[:48], **fit)
    trainers[1].fit(X[:24], Y[:24], **fit)
    assert trainers[0].plan.skipped_steps == 1
    for a, b in zip(*(t.model.parameters for t in trainers), strict=True):
        np.testing.assert_array_equal(a.value, b.value)


# ---- of batches that come one by one ----

UNEQUAL = (8, 5, 11, 24, 14)  # steps on 24 and 38


def batches_of(sizes: Sequence[int], weighted: bool = False) -> list[tuple[Any, ...]]:
    parts = (X, Y, WEIGHTS) if weighted else (X, Y)
    ends = np.cumsum(sizes)
    return [tuple(p[a:b] for p in parts) for a, b in zip([0, *ends], ends, strict=False)]


def overwritten(made: Any) -> Iterator[Any]:
    """Yield batches that are lost once the next one is asked for, as those in one buffer are."""
    for parts in made:
        batch = [part.copy() for part in parts]
        yield tuple(batch)
        for part in batch:
            part[...] = np.nan


SOURCES: dict[str, tuple[Callable[[Any], Any], dict[str, Any]]] = {
    "a list": (list, {}),
    "a function": (lambda made: lambda: iter(made), {}),
    "one buffer": (lambda made: lambda: overwritten(made), {}),
    "a loader": (lambda made: pf.data.Loader(lambda: iter(made), None), {}),
    "without end": (itertools.cycle, {"steps_per_epoch": 5}),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("source", SOURCES)
def test_unequal_batches_come_to_a_step_on_all_their_rows(source: str, weighted: bool) -> None:
    make_source, options = SOURCES[source]
    one, other = make("adam"), make("adam")
    given = make_source(batches_of(UNEQUAL, weighted))
    history = one.fit(given, accumulate=3, **options, **FIT)
    expected = other.fit(batches_of((24, 38), weighted), **FIT)
    close(one, other)
    assert one.plan.step_count == other.plan.step_count == 6
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-10)


def test_rows_that_are_read_batch_by_batch_are_those_in_memory() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    results = []
    for rows in (X, sparse.csr_matrix(X)):
        trainer = make("adam")
        results.append(bits_of(trainer, trainer.fit(rows, Y, batch_size=8, accumulate=3, **FIT)))
    assert results[0] == results[1]


def test_a_batch_may_have_no_weight_at_all() -> None:
    parts = batches_of((8, 8, 24), weighted=True)
    parts[1] = (*parts[1][:2], np.zeros(8))
    one, other = (make("sgd", "l2", Dense(2)) for _ in range(2))
    one.fit(parts, accumulate=3, **FIT)
    other.fit([parts[0], parts[2]], accumulate=3, **FIT)
    close(one, other)


def test_a_callback_hears_of_steps_on_batches_too() -> None:
    heard: list[tuple[int, float]] = []
    hear = LambdaCallback(on_batch_end=lambda t, step, logs: heard.append((step, logs["loss"])))
    trainer = make("sgd", "l2", Dense(2))
    history = trainer.fit(batches_of(UNEQUAL), accumulate=3, callbacks=[hear], **FIT)
    assert [step for step, _ in heard] == list(range(1, 7))
    first, second = (loss for _, loss in heard[:2])
    np.testing.assert_allclose((24 * first + 38 * second) / 62, history["loss"][0], rtol=1e-10)


@pytest.mark.parametrize("source", ["a list", "a loader", "without end"])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_a_fit_on_batches_goes_on_to_the_same_bits(source: str, batch: int, tmp_path: Path) -> None:
    make_source, options = SOURCES[source]

    def fit(trainer: pf.Trainer, **more: Any) -> dict[str, Any]:
        given = make_source(batches_of(UNEQUAL))
        return bits_of(trainer, trainer.fit(given, accumulate=3, **options, **FIT, **more))

    def save(trainer: Any, step: int, logs: Any) -> None:
        if step == batch:
            trainer.save(tmp_path / "m")
            raise Stopped

    expected = fit(make("adam"))
    with pytest.raises(Stopped):
        fit(make("adam"), callbacks=[LambdaCallback(on_batch_end=save)])
    assert fit(make("adam"), resume=tmp_path / "m") == expected


def test_a_source_that_fails_within_a_step_leaves_the_step_before() -> None:
    def failing() -> Iterator[Any]:
        yield from batches_of(UNEQUAL)[:4]
        raise OSError("the disk is gone")

    one, other = make("adam"), make("adam")
    with pytest.raises(OSError, match="gone"):
        one.fit(failing, accumulate=3, **FIT)
    other.fit(batches_of((24,)), **{**FIT, "epochs": 1})
    close(one, other)
    assert one.plan.step_count == 1
    one.fit(batches_of(UNEQUAL), accumulate=3, **FIT)  # and it can go on


def test_a_wrong_label_names_its_batch() -> None:
    labels = RNG.integers(0, 2, size=ROWS)
    labels[26] = 7  # in the fourth batch, the first of the second step
    ends = np.cumsum(UNEQUAL)
    parts = [(X[a:b], labels[a:b]) for a, b in zip([0, *ends], ends, strict=False)]
    trainer = make("adam", "cross_entropy", Dense(2))
    with pytest.raises(pf.LabelError, match="row 2 of batch 3"):
        trainer.fit(parts, accumulate=3, **FIT)
    assert trainer.plan.step_count == 1


def test_fits_side_by_side_come_to_the_same() -> None:
    fit = {**FIT, "batch_size": 8, "accumulate": 3}
    alone = make("adam")
    expected = bits_of(alone, alone.fit(X, Y, **fit))
    together = [make("adam") for _ in range(2)]
    histories = pf.fit_many(together, X, Y, **fit)
    for trainer, history in zip(together, histories, strict=True):
        assert bits_of(trainer, history) == expected


@pytest.mark.parametrize(
    ("optimizer", "accumulate", "message"),
    [
        ("sgd", 0, "accumulate"),
        ("sgd", 1.5, "accumulate"),
        ("random_search", 2, "RandomSearch looks at the loss of a batch.*batch_size 2 times"),
        ("direction_search", 2, "looks at the loss of a batch"),
        ("lbfgs", 2, "runs a batch several times"),
        ("sam", 2, "runs a batch several times"),
    ],
)
def test_what_is_refused(optimizer: str, accumulate: Any, message: str) -> None:
    made = pf.optimizers.RandomSearch(-1, 1) if optimizer == "random_search" else optimizer
    made = pf.optimizers.DirectionSearch(0.1) if optimizer == "direction_search" else made
    with pytest.raises(pf.ArgumentError, match=message):
        make(made).fit(X, Y, accumulate=accumulate, **FIT)


def test_other_names_are_answered() -> None:
    with pytest.raises(pf.ArgumentError, match="write accumulate="):
        make().fit(X, Y, gradient_accumulation_steps=4)
    with pytest.raises(pf.ArgumentError, match="give fit accumulate="):
        pf.optimizers.Adam(gradient_accumulation_steps=4)


def _summed(y: pf.Value, y_hat: pf.Value) -> pf.Value:
    return pf.Sum(pf.Square(y - y_hat))


@pytest.mark.parametrize(
    ("loss", "targets", "why"),
    [
        (partial(pf.CrossEntropy, ignore_index=-100), "labels", "has an ignore_index"),
        (partial(pf.L2Loss, reduction="sum"), "numbers", "is a sum over the batch"),
        (_summed, "numbers", "is a sum over the batch"),
    ],
    ids=["ignore_index", "reduction", "callable"],
)
def test_a_loss_whose_parts_do_not_add_up_is_refused(loss: Any, targets: str, why: str) -> None:
    draw = np.random.default_rng(0)
    y = draw.integers(0, 3, 12) if targets == "labels" else draw.normal(size=(12, 3))
    penalty = pf.regularizers.L2(0.1)
    layers = [pf.layers.Dense(3, weight_regularizer=penalty)]
    trainer = pf.Trainer(pf.Sequential(layers), loss, "sgd")
    x = draw.normal(size=(12, 4))
    with pytest.raises(pf.errors.ArgumentError, match=why):
        trainer.fit(x, y, 1, 4, accumulate=3)
    trainer.fit(x, y, 1, 4)
