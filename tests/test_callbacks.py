"""Callbacks: which events come, early stopping, files along the way, plugins that listen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.callbacks import (
    Callback,
    EarlyStopping,
    LambdaCallback,
    ModelCheckpoint,
    ReduceLROnPlateau,
    WeightAverage,
)
from pyframe.layers import Dense

pytestmark = pytest.mark.once  # it says nothing of a kernel

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 3))
Y = X @ [1.0, 2.0, 3.0]


def trainer(rate: float = 0.05, **options: Any) -> pf.Trainer:
    model = pf.Sequential([Dense(1)], input_shape=(3,), dtype="float64")
    return pf.Trainer(model, optimizer=pf.optimizers.SGD(rate), **options)


def weights_of(model: pf.Model) -> Any:
    return np.concatenate([a.ravel() for a in model.get_weights().values()])


class Recorder(Callback):
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def on_fit_start(self, trainer: Any) -> None:
        self.heard.append(("fit_start",))

    def on_epoch_start(self, trainer: Any, epoch: int) -> None:
        self.heard.append(("epoch_start", epoch))

    def on_batch_end(self, trainer: Any, step: int, logs: Any) -> None:
        assert logs["loss"] > 0
        self.heard.append(("batch_end", step))

    def on_epoch_end(self, trainer: Any, epoch: int, logs: Any) -> None:
        assert set(logs) == {"loss", "val_loss"}
        self.heard.append(("epoch_end", epoch))

    def on_fit_end(self, trainer: Any, history: Any) -> None:
        self.heard.append(("fit_end", history.epochs))


def test_events_come_in_order() -> None:
    recorder = Recorder()
    work = trainer(callbacks=[recorder])
    work.fit(X, Y, 2, 8, validation_split=0.2, verbose=0)
    expected: list[tuple[Any, ...]] = [("fit_start",)]
    for epoch in (0, 1):
        expected += [("epoch_start", epoch)]
        expected += [("batch_end", 2 * epoch + step) for step in (1, 2)]
        expected += [("epoch_end", epoch)]
    assert recorder.heard == [*expected, ("fit_end", 2)]
    recorder.heard.clear()
    work.fit(X, Y, 1, 16, validation_split=0.2, verbose=0)
    assert ("epoch_start", 2) in recorder.heard  # the numbers go on


def test_listening_changes_no_bits() -> None:
    plain, heard = trainer(), trainer()
    first = plain.fit(X, Y, 5, 8, verbose=0)
    second = heard.fit(X, Y, 5, 8, verbose=0, callbacks=[LambdaCallback(on_batch_end=_nothing)])
    third = trainer().fit(X, Y, 5, 8, verbose=0, callbacks=[LambdaCallback(on_epoch_end=_nothing)])
    assert first["loss"] == second["loss"] == third["loss"]
    np.testing.assert_array_equal(weights_of(plain.model), weights_of(heard.model))


def _nothing(*arguments: Any) -> None:
    pass


@pytest.mark.parametrize("event", ["on_batch_end", "on_epoch_end"])
def test_a_callback_stops_a_fit(event: str) -> None:
    def stop(trainer: Any, number: int, logs: Any) -> None:
        trainer.stop_training = number >= 3

    history = trainer().fit(X, Y, 100, 5, verbose=0, callbacks=[LambdaCallback(**{event: stop})])
    assert history.epochs == (0 if event == "on_batch_end" else 4)
    assert not history.interrupted


@pytest.mark.parametrize(
    "event", ["on_fit_start", "on_epoch_start", "on_epoch_end", "on_batch_end"]
)
def test_an_exception_comes_out_and_leaves_the_trainer_usable(event: str) -> None:
    def fail(*arguments: Any) -> None:
        raise ZeroDivisionError("of its own")

    work = trainer()
    with pytest.raises(ZeroDivisionError, match="of its own"):
        work.fit(X, Y, 3, 8, verbose=0, callbacks=[LambdaCallback(**{event: fail})])
    steps = work.plan.step_count
    assert steps == {"on_epoch_end": 3, "on_batch_end": 1}.get(event, 0)
    assert work.fit(X, Y, 3, 8, verbose=0).epochs == 3
    assert work.plan.step_count == steps + 9


def test_a_callback_may_look_and_change_weights() -> None:
    def reset(trainer: Any, epoch: int, logs: Any) -> None:
        seen.append(trainer.predict(X[:1])[0, 0])
        trainer.model.set_weights({"dense/weight": np.zeros((3, 1)), "dense/bias": [0.0]})

    seen: list[float] = []
    history = trainer().fit(
        X, Y, 3, None, verbose=0, callbacks=[LambdaCallback(on_epoch_end=reset)]
    )
    assert history["loss"][1] == history["loss"][2] == pytest.approx(np.mean(Y**2))
    assert seen[1] == seen[2] != 0


# ---- early stopping ----


def test_it_stops_when_nothing_improves_and_brings_back_the_best() -> None:
    work = trainer()
    rates = np.array([0.05, 0.05, 0.05, 3.0, 0.05, 0.0, 0.0, 0.0, 0.0])
    stop = EarlyStopping("loss", patience=2)
    kept: list[Any] = []
    keep = LambdaCallback(on_epoch_end=lambda t, e, logs: kept.append(weights_of(t.model)))
    history = work.fit(
        X, Y, 9, None, schedule=lambda s: rates[s], callbacks=[stop, keep], verbose=0
    )
    # The loss of an epoch is that before its step: it rises in epoch 4, after the leap.
    assert history.epochs == 6
    assert (stop.best_epoch, stop.stopped_epoch) == (3, 5)
    assert stop.best == min(history["loss"])
    np.testing.assert_array_equal(weights_of(work.model), kept[3])
    assert (kept[3] != kept[5]).any()
    assert work.plan.step_count == 4


def test_it_may_leave_the_last() -> None:
    work = trainer(0.0)
    before = weights_of(work.model)
    shift = LambdaCallback(
        on_epoch_end=lambda t, e, logs: t.model.set_weights({"dense/bias": [float(e + 1)]})
    )
    stop = EarlyStopping("loss", patience=2, restore_best=False)
    work.fit(X, Y + 1e3, 9, None, callbacks=[shift, stop], verbose=0)
    assert weights_of(work.model)[-1] == 9.0
    assert before[-1] == 0.0


def test_it_falls_back_to_the_loss_and_minds_min_delta() -> None:
    stop = EarlyStopping(patience=3, min_delta=1e9)
    assert trainer().fit(X, Y, 50, None, callbacks=[stop], verbose=0).epochs == 4
    assert EarlyStopping("val_accuracy").improves(0.5)
    rising = EarlyStopping("val_accuracy", mode="max")
    rising.best = 0.5
    assert rising.improves(0.6)
    assert not rising.improves(0.4)
    assert not rising.improves(0.5)
    assert not rising.improves(0.625, min_delta=0.125)
    falling = EarlyStopping("val_accuracy", mode="min")
    falling.best = 0.5
    assert falling.improves(0.4)


@pytest.mark.parametrize("monitor", ["loss", "parameters"])
def test_tol_stops_when_nothing_changes_any_more(monitor: str) -> None:
    work = trainer(0.1)
    stop = EarlyStopping(monitor, patience=3, tol=1e-9)
    history = work.fit(X, Y, 100_000, None, callbacks=[stop], verbose=0)
    assert 20 < history.epochs < 2000
    changes = -np.diff(history["loss"])
    if monitor == "loss":
        assert (changes[-3:] <= 1e-9).all()
        assert changes[-4] > 1e-9
    np.testing.assert_allclose(weights_of(work.model), [1, 2, 3, 0], atol=1e-4)


def test_nan_does_not_improve() -> None:
    stop = EarlyStopping("loss", patience=2)
    with pytest.warns(pf.DivergenceWarning):
        history = trainer().fit(X * np.nan, Y, 50, None, callbacks=[stop], verbose=0)
    assert history.epochs == 2
    assert stop.best_epoch is None


def test_it_starts_anew_with_every_fit() -> None:
    stop = EarlyStopping("loss", patience=1, min_delta=1e9)
    work = trainer(callbacks=[stop])
    assert work.fit(X, Y, 9, None, verbose=0).epochs == 2
    assert work.fit(X, Y, 9, None, verbose=0).epochs == 2


# ---- lower learning rates ----


class Fake:
    """A trainer that a callback sees, and numbers that it hears of."""

    def __init__(self, callback: Callback, rate: float = 1.0) -> None:
        self.optimizer, self.callback = pf.optimizers.SGD(rate), callback
        self.log_names = ["loss"]
        self.epoch = 0
        callback.on_fit_start(self)

    def higher_is_better(self, name: str) -> bool:
        return False

    def hear(self, *losses: float) -> list[float]:
        """Return the rate after each of these epochs."""
        rates = []
        for loss in losses:
            self.callback.on_epoch_end(self, self.epoch, {"loss": loss})
            self.epoch += 1
            rates.append(self.optimizer.learning_rate)
        return rates


def test_the_rate_is_lowered_when_nothing_improves() -> None:
    lower = ReduceLROnPlateau("loss", 0.5, patience=2, min_delta=0.1)
    fake = Fake(lower)
    losses = [3.0, 2.0, 1.95, 1.95, 1.95, 1.95, 1.0, 1.0, np.nan, 1.0]
    assert fake.hear(*losses) == [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125, 0.125]
    assert lower.best == 1.0 and lower.reductions == [3, 5, 8]


def test_after_a_reduction_some_epochs_do_not_count() -> None:
    fake = Fake(ReduceLROnPlateau("loss", 0.5, patience=1, cooldown=2))
    assert fake.hear(*[1.0] * 8) == [1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]


def test_the_rate_is_not_lowered_beyond_its_least() -> None:
    lower = ReduceLROnPlateau("loss", 0.1, patience=1, min_learning_rate=0.05)
    assert Fake(lower).hear(*[1.0] * 5) == [1, 0.1, 0.05, 0.05, 0.05]
    assert lower.reductions == [1, 2]


def test_a_second_fit_counts_anew_and_goes_on_with_the_rate() -> None:
    lower = ReduceLROnPlateau("loss", 0.5, patience=3, min_delta=1e9)
    work = trainer(0.08, callbacks=[lower])
    work.fit(X, Y, 6, None, verbose=0)
    assert (work.optimizer.learning_rate, lower.reductions) == (0.04, [3])
    work.fit(X, Y, 3, None, verbose=0)
    assert (work.optimizer.learning_rate, lower.reductions) == (0.04, [])
    work.fit(X, Y, 4, None, verbose=0)
    assert (work.optimizer.learning_rate, lower.reductions) == (0.02, [12])


def test_the_lowered_rate_is_what_the_next_epoch_is_trained_with() -> None:
    lower = ReduceLROnPlateau("loss", 0.5, patience=1, min_delta=1e9)
    one, other = trainer(0.08), trainer(0.08)
    one.fit(X, Y, 4, None, callbacks=[lower], verbose=0)
    other.fit(X, Y, 4, None, schedule=lambda s: 0.08 * 0.5 ** np.maximum(s - 1.0, 0), verbose=0)
    np.testing.assert_array_equal(weights_of(one.model), weights_of(other.model))


@pytest.mark.parametrize(
    "optimizer",
    [
        pf.optimizers.SGD(pf.schedules.Exponential(0.1, 0.5)),
        pf.optimizers.Adam(lambda steps: 0.1 + 0 * steps),
        pf.optimizers.RandomSearch(),
    ],
)
def test_a_rate_that_is_no_number_cannot_be_lowered(optimizer: Any) -> None:
    work = trainer()
    work.optimizer = optimizer
    with pytest.raises(pf.ArgumentError, match="a learning rate that is a number"):
        work.fit(X, Y, 2, callbacks=[ReduceLROnPlateau("loss")], verbose=0)


# ---- averages ----


@pytest.mark.parametrize("decay", [None, 0.0, 0.75])
@pytest.mark.parametrize("every", ["epoch", "step"])
@pytest.mark.parametrize("start", [0, 2])
def test_the_model_ends_with_the_average(decay: float | None, every: str, start: int) -> None:
    kept: list[Any] = []
    event = "on_epoch_end" if every == "epoch" else "on_batch_end"
    keep = LambdaCallback(**{event: lambda t, i, logs: kept.append(weights_of(t.model))})
    average = WeightAverage(decay, start, every)
    work = trainer()
    work.fit(X, Y, 5, 8, callbacks=[average, keep], verbose=0)
    counted = kept[start if every == "epoch" else 3 * start :]
    expected = counted[0]
    for n, weights in enumerate(counted[1:], start=1):
        part = 1 / (n + 1) if decay is None else 1 - decay
        expected = expected + part * (weights - expected)
    assert average.count == len(counted)
    np.testing.assert_allclose(weights_of(work.model), expected, rtol=1e-13)
    if decay is None:
        np.testing.assert_allclose(expected, np.mean(counted, axis=0), rtol=1e-12)
    assert (expected != kept[-1]).any() or decay == 0.0


def test_an_average_may_be_read_alone_and_begins_anew_with_a_fit() -> None:
    average, work, plain = WeightAverage(apply=False, start_epoch=1), trainer(), trainer()
    for each, callbacks in ((work, [average]), (plain, [])):
        each.fit(X, Y, 3, 8, callbacks=callbacks, verbose=0)
    np.testing.assert_array_equal(weights_of(work.model), weights_of(plain.model))
    assert average.count == 2 and set(average.average) == set(work.model.get_weights())
    work.fit(X, Y, 1, 8, callbacks=[average], verbose=0)
    assert average.count == 0 and average.average == {}


def test_steps_add_to_an_average_without_a_stop_and_after_whatever_comes_before() -> None:
    """Constraints and statistics of batches are in it, and a step in several parts adds once."""
    kept: list[Any] = []
    keep = LambdaCallback(on_batch_end=lambda t, i, logs: kept.append(weights_of(t.model)))
    averages = [WeightAverage(0.5, every="step"), WeightAverage(every="step", apply=False)]
    pf.set_seed(1)
    layers = [pf.layers.Dense(3, weight_constraint="unit_norm"), pf.layers.BatchNorm()]
    work = pf.Trainer(pf.Sequential([*layers, pf.layers.Dense(1)], dtype="float64"))
    assert not any(one.listens_to("on_batch_end") for one in averages)
    work.fit(X, Y, 3, 4, callbacks=[*averages, keep], accumulate=2, verbose=0)
    fading = kept[0]
    for weights in kept[1:]:
        fading = 0.5 * fading + 0.5 * weights
    given = np.concatenate([a.ravel() for a in averages[0].average.values()])
    np.testing.assert_allclose(given, fading, rtol=1e-12, atol=1e-15)
    alike = np.concatenate([a.ravel() for a in averages[1].average.values()])
    np.testing.assert_allclose(alike, np.mean(kept, axis=0), rtol=1e-12, atol=1e-15)
    assert averages[0].count == averages[1].count == len(kept)


@pytest.mark.parametrize("every", ["epoch", "step"])
def test_the_model_has_an_average_that_keeps_to_its_constraints(every: str) -> None:
    """The mean of unit vectors is shorter than 1; what is frozen, or not constrained, stays."""
    layers = [
        pf.layers.Dense(3, weight_constraint="unit_norm", name="unit"),
        pf.layers.Dense(3, weight_constraint="unit_norm", name="still"),
        pf.layers.Dense(1, bias_constraint="non_negative"),
    ]
    model = pf.Sequential(layers, input_shape=X.shape[1:], dtype="float64")
    layers[1].trainable = False
    first, average = model.get_weights(), WeightAverage(every=every)
    pf.Trainer(model, optimizer="sgd").fit(X, Y, 4, 4, callbacks=[average], verbose=0)
    raw, weights = average.average, model.get_weights()
    lengths = np.linalg.norm(raw["unit/weight"], axis=0)
    assert (lengths < 0.9999).any()
    np.testing.assert_allclose(weights["unit/weight"], raw["unit/weight"] / lengths, rtol=1e-14)
    assert (np.linalg.norm(first["still/weight"], axis=0) != 1).all()
    for name in ("still/weight", "dense/weight", "dense/bias"):
        np.testing.assert_array_equal(weights[name], raw[name])
    np.testing.assert_array_equal(weights["still/weight"], first["still/weight"])


@pytest.mark.parametrize("every", ["epoch", "step"])
def test_a_resumed_fit_averages_on(every: str, tmp_path: Path) -> None:
    def fit(epochs: int, **options: Any) -> Any:
        work, average = trainer(), WeightAverage(0.5, 1, every)
        save = ModelCheckpoint(tmp_path / "{epoch}.pyframe", training=True)
        work.fit(X, Y, epochs, 8, callbacks=[average, save], verbose=0, **options)
        return average.count, weights_of(work.model)

    expected = fit(6)
    for stopped in (0, 1, 3):
        count, weights = fit(6, resume=tmp_path / f"{stopped}.pyframe")
        assert count == expected[0]
        np.testing.assert_array_equal(weights, expected[1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WeightAverage(1.0), "decay"),
        (lambda: WeightAverage(float("nan")), "decay"),
        (lambda: WeightAverage(start_epoch=-1), "start_epoch"),
        (lambda: WeightAverage(every="batch"), "'batch'"),
        (lambda: WeightAverage(apply="no"), "apply"),  # type: ignore[arg-type]
        (lambda: ReduceLROnPlateau(factor=1.0), "factor"),
        (lambda: ReduceLROnPlateau(factor=float("nan")), "factor"),
        (lambda: ReduceLROnPlateau(patience=0), "patience"),
        (lambda: ReduceLROnPlateau(cooldown=-1), "cooldown"),
        (lambda: ReduceLROnPlateau(min_delta=-0.1), "min_delta"),
        (lambda: ReduceLROnPlateau(min_learning_rate=-1), "min_learning_rate"),
        (lambda: EarlyStopping(patience=0), "patience"),
        (lambda: EarlyStopping(min_delta=-1), "min_delta"),
        (lambda: EarlyStopping(tol=float("nan")), "tol"),
        (lambda: EarlyStopping(mode="best"), "'best'"),
        (lambda: EarlyStopping("parameters"), "tol="),
        (lambda: LambdaCallback(on_epoch=print), "'on_epoch'"),
        (lambda: LambdaCallback(on_epoch_end=3), "callable"),  # type: ignore[arg-type]
        (lambda: pf.callbacks.get("model_checkpoint"), "needs arguments"),
    ],
)
def test_what_callbacks_refuse(make: Any, message: str) -> None:
    with pytest.raises(pf.ArgumentError, match=message):
        make()


@pytest.mark.parametrize(
    "callback",
    [
        EarlyStopping("rmse"),
        ReduceLROnPlateau("rmse"),
        EarlyStopping("val_mae"),
        ModelCheckpoint("m", "rmse", save_best_only=True),
        ModelCheckpoint("{epoch}-{rmse}"),
        ModelCheckpoint("{epoch}-{}"),
        ModelCheckpoint("{epoch"),
    ],
)
def test_an_unknown_name_is_refused_before_the_first_step(callback: Any) -> None:
    work = trainer(metrics=["mae"])
    work.fit(X, Y, 0, batch_size=4, verbose=0)
    before = work.model.get_weights()
    with pytest.raises(pf.ArgumentError, match=r"there is (epoch, )?loss, mae$"):
        work.fit(X, Y, 1, callbacks=[callback], verbose=0, batch_size=4)
    assert work.epochs_done == 0
    after = work.model.get_weights()
    assert all((after[name] == value).all() for name, value in before.items())


def test_a_number_that_is_none_is_refused_after_the_first_epoch() -> None:
    model = pf.Sequential([pf.layers.Dense(2)])
    work = pf.Trainer(model, "cross_entropy", metrics=["confusion_matrix"])
    with pytest.raises(pf.ArgumentError, match="there is loss"):
        work.fit(
            X, np.zeros(len(X), int), 1, callbacks=[EarlyStopping("confusion_matrix", mode="min")]
        )


# ---- files along the way ----


def test_checkpoints_of_every_epoch(tmp_path: Path) -> None:
    work = trainer()
    save = ModelCheckpoint(tmp_path / "net-{epoch:02d}-{loss:.1f}")
    history = work.fit(X, Y, 3, None, callbacks=[save], verbose=0)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [f"net-{i:02d}-{loss:.1f}" for i, loss in enumerate(history["loss"])]
    last = pf.load(tmp_path / names[-1])
    np.testing.assert_array_equal(last.predict(X), work.predict(X))


def test_every_second_epoch(tmp_path: Path) -> None:
    save = ModelCheckpoint(tmp_path / "{epoch}", every=2)
    trainer().fit(X, Y, 5, None, callbacks=[save], verbose=0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "3"]
    with pytest.raises(pf.ArgumentError, match="every"):
        ModelCheckpoint("m", every=0)


def test_only_the_best_is_kept(tmp_path: Path) -> None:
    work = trainer()
    rates = np.array([0.05, 0.05, 9.0, 0.0, 0.0])
    save = ModelCheckpoint(tmp_path / "best", save_best_only=True)
    kept: list[Any] = []
    keep = LambdaCallback(on_epoch_end=lambda t, e, logs: kept.append(t.predict(X)))
    work.fit(X, Y, 5, None, schedule=lambda s: rates[s], callbacks=[save, keep], verbose=0)
    np.testing.assert_array_equal(pf.load(tmp_path / "best").predict(X), kept[2])
    assert [p.name for p in tmp_path.iterdir()] == ["best"]


# ---- plugins ----


def test_plugins_hear_the_same_events() -> None:
    heard: list[Any] = []

    class Listener:
        @pf.hookimpl
        def pyframe_fit_start(self, trainer: Any) -> None:
            heard.append("start")

        @pf.hookimpl
        def pyframe_epoch_end(self, trainer: Any, epoch: int, logs: Any) -> None:
            heard.append((epoch, logs["loss"]))

        @pf.hookimpl
        def pyframe_fit_end(self, trainer: Any, history: Any) -> None:
            heard.append(history.epochs)

    listener = Listener()
    pf.plugins.register(listener, "listener")
    try:
        history = trainer().fit(X, Y, 3, None, verbose=0)
    finally:
        pf.plugins.unregister(listener)
    assert heard == ["start", *enumerate(history["loss"]), 3]
    trainer().fit(X, Y, 3, None, verbose=0)
    assert len(heard) == 5
