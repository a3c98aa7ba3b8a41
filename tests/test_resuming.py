"""Training that is saved and resumed: the same bits as without a stop, whenever it was killed."""

from __future__ import annotations

import copy
import json
import os
import pickle
import random
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trainers import Momentum, bits_of, small_network

import pyframe as pf
from pyframe.callbacks import (
    Callback,
    EarlyStopping,
    LambdaCallback,
    ModelCheckpoint,
    ReduceLROnPlateau,
)
from pyframe.checkpoint.container import serialize
from pyframe.layers import BatchNorm, Dense, Dropout
from pyframe.training.compiled import CompiledGoals

pytestmark = pytest.mark.once

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 3))
Y = X @ np.array([[1.0], [-2.0], [0.5]]) + 0.1 * RNG.normal(size=(50, 1))
FIT: dict[str, Any] = {"batch_size": 8, "validation_split": 0.2, "seed": 7, "verbose": 0}

OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda: pf.optimizers.SGD(0.05),
    "momentum": lambda: pf.optimizers.SGD(
        pf.schedules.Exponential(0.05, 0.9, every=5), momentum=0.9, nesterov=True
    ),
    "adam": lambda: pf.optimizers.Adam(
        pf.schedules.Cosine(0.02, total_steps=60, warmup_steps=7), clip_norm=1.0, weight_decay=0.01
    ),
    "groups": lambda: pf.optimizers.Adam(0.01, groups={"bias": {"learning_rate_factor": 2.0}}),
    "amsgrad, clipped": lambda: pf.optimizers.Adam(0.02, amsgrad=True, clip_norm=1.0),
    "nadam": lambda: pf.optimizers.NAdam(
        pf.schedules.Warmup(pf.schedules.OneCycle(0.02, total_steps=50), 5)
    ),
    "rmsprop": lambda: pf.optimizers.RMSProp(0.01, centered=True, momentum=0.5),
    "lamb": lambda: pf.optimizers.LAMB(0.01, groups={"bias": {"weight_decay": 0.0}}),
    "muon": lambda: pf.optimizers.Muon(0.01, clip_value=0.5),
    "schedule-free": lambda: pf.optimizers.ScheduleFreeAdamW(pf.schedules.Warmup(0.02, 5)),
    "sam": lambda: pf.optimizers.SAM(0.02, gradient_noise=0.1),
    "lbfgs": lambda: pf.optimizers.LBFGS(history=3),
    "random search": lambda: pf.optimizers.RandomSearch(-1, 1),
    "direction search": lambda: pf.optimizers.DirectionSearch(0.1),
    "in python": lambda: Momentum(0.05),
}


def make(optimizer: Any = "adam", dtype: str = "float32", **options: Any) -> pf.Trainer:
    model = small_network(dtype, input_shape=(3,))
    made = OPTIMIZERS[optimizer]() if optimizer in OPTIMIZERS else optimizer
    return pf.Trainer(model, "l2", made, ["mae"], **options)


def everything(trainer: pf.Trainer, history: pf.History) -> dict[str, Any]:
    """Return all that must not differ by a bit."""
    return {**bits_of(trainer, history), "epochs": history.epochs}


def stop_before(epoch: int) -> Callback:
    """Return a callback that raises before an epoch."""

    def check(trainer: Any, number: int) -> None:
        if number == epoch:
            raise Stopped

    return LambdaCallback(on_epoch_start=check)


class Stopped(Exception):
    """Stands for the end of a process."""


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_fit_goes_on_from_an_epoch(optimizer: str, dtype: str, tmp_path: Path) -> None:
    whole = make(optimizer, dtype)
    expected = everything(whole, whole.fit(X, Y, 7, **FIT))
    first = make(optimizer, dtype)
    save = ModelCheckpoint(tmp_path / "m", training=True)
    with pytest.raises(Stopped):
        first.fit(X, Y, 7, callbacks=[save, stop_before(3)], **FIT)
    second = make(optimizer, dtype)
    history = second.fit(X, Y, 7, resume=tmp_path / "m", **FIT)
    assert history.epochs == 7
    assert everything(second, history) == expected


@pytest.mark.parametrize("batch", [1, 3, 5, 12, 29])
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_fit_goes_on_from_the_middle_of_an_epoch(
    batch: int, shuffle: bool, tmp_path: Path
) -> None:
    whole = make()
    options = {**FIT, "shuffle": shuffle}
    expected = everything(whole, whole.fit(X, Y, 6, **options))

    def save(trainer: Any, step: int, logs: Any) -> None:
        if step == batch:
            trainer.save(tmp_path / "m")
            raise Stopped

    with pytest.raises(Stopped):
        make().fit(X, Y, 6, callbacks=[LambdaCallback(on_batch_end=save)], **options)
    second = make()
    assert everything(second, second.fit(X, Y, 6, resume=tmp_path / "m", **options)) == expected


def test_stopping_again_and_again_changes_nothing(tmp_path: Path) -> None:
    whole = make("momentum")
    weights = RNG.uniform(0.5, 2.0, size=50)
    expected = everything(whole, whole.fit(X, Y, 9, sample_weight=weights, **FIT))
    save = ModelCheckpoint(tmp_path / "m", training=True, every=2)
    resume = None
    for end in (3, 5, 8):
        work = make("momentum")
        with pytest.raises(Stopped):
            work.fit(
                X,
                Y,
                9,
                sample_weight=weights,
                callbacks=[save, stop_before(end)],
                resume=resume,
                **FIT,
            )
        resume = tmp_path / "m"
    last = make("momentum")
    history = last.fit(X, Y, 9, sample_weight=weights, resume=resume, **FIT)
    assert everything(last, history) == expected


@pytest.mark.parametrize("stop", [2, 4, 6, 8])
@pytest.mark.parametrize("before", [True, False])
def test_callbacks_count_on(stop: int, before: bool, tmp_path: Path) -> None:
    rates = np.where(np.arange(200) < 20, 0.05, 0.0)  # from epoch 4 on nothing changes any more

    def listeners(end: int | None) -> list[Callback]:
        save = ModelCheckpoint(tmp_path / "m", training=True)
        early = EarlyStopping("loss", patience=4, min_delta=1e-3)
        ends = [] if end is None else [stop_before(end)]
        return [*([save, early] if before else [early, save]), *ends]

    def fit(end: int | None, **options: Any) -> tuple[Any, ...]:
        work = make("sgd")
        called = listeners(end)
        history = work.fit(
            X, Y, 30, schedule=lambda s: rates[s], callbacks=called, **{**FIT, **options}
        )
        early = next(c for c in called if isinstance(c, EarlyStopping))
        found = everything(work, history)
        return found, history.epochs, early.best, early.best_epoch, early.stopped_epoch

    expected = fit(None)
    assert 8 <= expected[1] < 30
    with pytest.raises(Stopped):
        fit(stop)
    assert fit(None, resume=tmp_path / "m") == expected
    assert fit(None, resume=tmp_path / "m")[1] == expected[1]  # from its last epoch: none is run


@pytest.mark.parametrize("stop", [2, 5, 7])
@pytest.mark.parametrize("afresh", [True, False])
def test_a_lowered_rate_counts_on(stop: int, afresh: bool, tmp_path: Path) -> None:
    def fit(end: int | None, **options: Any) -> tuple[Any, ...]:
        work = make(pf.optimizers.SGD(0.2))
        if "resume" in options and afresh:
            work = pf.Trainer.load(tmp_path / "m")
        lower = ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=0.2, cooldown=1)
        called = [lower, ModelCheckpoint(tmp_path / "m", training=True)]
        ends = [] if end is None else [stop_before(end)]
        history = work.fit(X, Y, 9, callbacks=[*called, *ends], **{**FIT, **options})
        rate = work.optimizer.learning_rate
        return everything(work, history), rate, lower.best, lower.reductions

    expected = fit(None)
    assert len(expected[3]) > 2 and expected[1] == 0.2 * 0.5 ** len(expected[3])
    with pytest.raises(Stopped):
        fit(stop)
    assert fit(None, resume=tmp_path / "m") == expected


def test_a_callback_of_ones_own_counts_on(tmp_path: Path) -> None:
    class Mean(Callback):
        def on_fit_start(self, trainer: Any) -> None:
            self.sums, self.seen = np.zeros(2), 0

        def on_epoch_end(self, trainer: Any, epoch: int, logs: Any) -> None:
            self.sums += [logs["loss"], logs["mae"]]
            self.seen += 1

        def training_state(self, trainer: Any) -> dict[str, Any]:
            return {"sums": self.sums, "more": {"seen": self.seen, "odd": [float("nan"), "x"]}}

        def restore_training_state(self, trainer: Any, state: dict[str, Any]) -> None:
            self.sums, self.seen = state["sums"], state["more"]["seen"]
            assert np.isnan(state["more"]["odd"][0])

    whole, part, rest = Mean(), Mean(), Mean()
    make().fit(X, Y, 5, callbacks=[whole], **FIT)
    work = make()
    work.fit(X, Y, 2, callbacks=[part], **FIT)
    work.save(tmp_path / "m")
    make().fit(X, Y, 5, callbacks=[rest], resume=tmp_path / "m", **FIT)
    assert rest.seen == 5
    np.testing.assert_array_equal(rest.sums, whole.sums)


def test_metrics_that_are_no_numbers_come_back(tmp_path: Path) -> None:
    labels = (Y[:, 0] > 0).astype(int)

    def classify() -> pf.Trainer:
        pf.set_seed(1)
        model = pf.Sequential([Dense(2)], input_shape=(3,))
        return pf.Trainer(model, "cross_entropy", "adam", ["accuracy", "confusion_matrix"])

    expected = classify().fit(X, labels, 5, **FIT)
    work = classify()
    work.fit(X, labels, 2, **FIT)
    work.save(tmp_path / "m")
    assert "confusion" not in pf.checkpoint.as_text(pf.checkpoint.inspect(tmp_path / "m"))
    history = classify().fit(X, labels, 5, resume=tmp_path / "m", **FIT)
    assert np.shape(expected["confusion_matrix"][0]) == (2, 2)
    for key, values in expected.items():
        np.testing.assert_array_equal(history[key], values)


def test_a_second_fit_goes_on_from_a_loaded_trainer(tmp_path: Path) -> None:
    whole = make("momentum")
    whole.fit(X, Y, 3, **FIT)
    whole.save(tmp_path / "m")
    same = pf.Trainer.load(tmp_path / "m")
    assert repr(same.optimizer) == repr(whole.optimizer)
    assert (same.epochs_done, same.plan.step_count) == (3, 15)
    expected = everything(whole, whole.fit(X, Y, 4, **FIT))
    assert everything(same, same.fit(X, Y, 4, **FIT)) == expected
    other = make("momentum")
    other.restore(tmp_path / "m")
    assert everything(other, other.fit(X, Y, 4, **FIT)) == expected


def test_a_model_with_training_state_loads_as_a_model(tmp_path: Path) -> None:
    work = make()
    work.fit(X, Y, 2, **FIT)
    work.save(tmp_path / "m")
    model = pf.load(tmp_path / "m")
    np.testing.assert_array_equal(model.predict(X), work.predict(X))
    model.save(tmp_path / "alone")
    with pytest.raises(pf.CheckpointError, match="no training.*trainer.save"):
        pf.Trainer.load(tmp_path / "alone")


def test_ctrl_c_then_a_file_then_on(tmp_path: Path) -> None:
    import signal

    whole = make()
    expected = everything(whole, whole.fit(X, Y, 6, **FIT))
    work = make()

    def press(trainer: Any, step: int, logs: Any) -> None:
        if step == 12:
            signal.raise_signal(signal.SIGINT)

    history = work.fit(X, Y, 6, callbacks=[LambdaCallback(on_batch_end=press)], **FIT)
    assert history.interrupted
    work.save(tmp_path / "m")
    last = make()
    assert everything(last, last.fit(X, Y, 6, resume=tmp_path / "m", **FIT)) == expected


# ---- what is refused ----


def saved(tmp_path: Path, **options: Any) -> Path:
    work = make(**options)
    work.fit(X, Y, 2, **FIT)
    work.save(tmp_path / "m")
    return tmp_path / "m"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 8}, "the seed of its fit was 7, and now it is 8"),
        ({"batch_size": 4}, "batch_size of its fit was 8"),
        ({"shuffle": False}, "shuffle of its fit was True"),
        ({"validation_split": 0.5}, "number of rows to train on.* was 40, and now it is 25"),
        ({"sample_weight": np.ones(50)}, "had none, and this one has some"),
        ({"callbacks": [EarlyStopping()]}, "had the callbacks none.*has EarlyStopping"),
        ({"initial_epoch": 2}, "resume or initial_epoch"),
        ({"metrics": ["rmse"]}, r"losses and metrics of its fit was \['loss', 'mae', 'val_loss'"),
    ],
)
def test_another_fit_is_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    path, work = saved(tmp_path), make()
    options = dict(options)
    if "metrics" in options:
        work = pf.Trainer(work.model, metrics=options.pop("metrics"))
    before = work.model.get_weights()
    with pytest.raises(ValueError, match=message):
        work.fit(X, Y, 5, resume=path, **{**FIT, **options})
    after = work.model.get_weights()
    assert all((after[name] == value).all() for name, value in before.items())
    with pytest.raises(FileNotFoundError):
        work.fit(X, Y, 5, resume=tmp_path / "nothing", **FIT)


def test_another_model_or_optimizer_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    path = saved(tmp_path)
    layers = [Dense(6, "tanh"), BatchNorm(), Dropout(0.3), Dense(1)]
    others = {
        "the optimizer 'adam', and this one has 'sgd'": make("sgd"),
        "is of another model": pf.Trainer(pf.Sequential(layers[:1], input_shape=(3,))),
        r"float32 \[3, 6\] for 'values/dense/weight', and here float64": make(dtype="float64"),
        "another": pf.Trainer(pf.Sequential([Dense(5), *layers[1:]], input_shape=(3,))),
    }
    for message, work in others.items():
        before = {k: v.copy() for k, v in work.model.get_weights().items()}
        with pytest.raises(pf.CheckpointError, match=message):
            work.restore(path)
        for key, value in work.model.get_weights().items():
            np.testing.assert_array_equal(value, before[key])
        assert work.epochs_done == 0


def test_what_a_file_cannot_hold_must_be_passed(tmp_path: Path) -> None:
    def loss(y: Any, y_hat: Any, sample_weight: Any = None) -> Any:
        return pf.L2Loss(y, y_hat)

    pf.set_seed(0)
    rate = pf.optimizers.SGD(lambda steps: 0.1 / (1 + steps))
    work = pf.Trainer(pf.Sequential([Dense(1)], input_shape=(3,)), loss, rate)
    work.fit(X, Y, 2, **FIT)
    work.save(tmp_path / "m")
    with pytest.raises(pf.CheckpointError, match="no loss.*pass loss="):
        pf.Trainer.load(tmp_path / "m")
    with pytest.raises(pf.CheckpointError, match="no learning rate.*pass optimizer="):
        pf.Trainer.load(tmp_path / "m", loss=loss)
    same = pf.Trainer.load(tmp_path / "m", loss=loss, optimizer=rate)
    expected = work.fit(X, Y, 2, **FIT)["loss"]
    assert same.fit(X, Y, 2, **FIT)["loss"] == expected


def test_an_optimizer_of_a_missing_package_is_named(tmp_path: Path) -> None:
    class Brings:
        @pf.hookimpl
        def pyframe_register_optimizers(self) -> dict[str, type]:
            return {"momentum": Momentum}

    plugin = Brings()
    pf.plugins.register(plugin, "pyframe-slow", "1.2")
    try:
        path = saved(tmp_path, optimizer="in python")
        assert isinstance(pf.Trainer.load(path).optimizer, Momentum)
    finally:
        pf.plugins.unregister(plugin)
    with pytest.raises(pf.CheckpointError, match="pip install pyframe-slow"):
        pf.Trainer.load(path)
    report = pf.checkpoint.inspect(path)
    assert "pip install pyframe-slow" in pf.checkpoint.as_text(report)


def test_after_early_stopping_has_restored_the_best_there_is_no_fit_to_resume(
    tmp_path: Path,
) -> None:
    work = make("sgd")
    rates = np.array([0.05] * 10 + [3.0] * 100)
    stop = EarlyStopping("loss", patience=2)
    with pytest.warns(pf.DivergenceWarning):
        work.fit(X, Y, 9, schedule=lambda s: rates[s], callbacks=[stop], **FIT)
    assert stop.best_epoch == 1
    work.save(tmp_path / "m")
    with pytest.raises(pf.CheckpointError, match="restores the best.*trainer.restore"):
        make("sgd").fit(X, Y, 9, resume=tmp_path / "m", **FIT)
    other = make("sgd")
    other.restore(tmp_path / "m")
    np.testing.assert_array_equal(other.predict(X), work.predict(X))


def test_before_anything_is_trained_there_is_nothing_to_save(tmp_path: Path) -> None:
    with pytest.raises(pf.GraphError, match="fit first"):
        make().save(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


DAMAGE: dict[str, Any] = {
    "no arrays": lambda d, t: d["training"].pop("arrays"),
    "a missing array": lambda d, t: d["training"]["arrays"].popitem(),
    "an array of another name": lambda d, t: d["training"]["arrays"].update(x="nothing"),
    "another shape": lambda d, t: t.update(
        {"training/slots/first_moment/dense/weight": np.zeros((3, 5), "f4")}
    ),
    "a step that is none": lambda d, t: d["training"].update(step=-1),
    "a step beyond": lambda d, t: d["training"].update(step=2**80),
    "an optimizer that is none": lambda d, t: d["training"].update(optimizer=[]),
    "a fit that is none": lambda d, t: d["training"].update(fit=[1]),
    "a history of other length": lambda d, t: t.update({"training/history/loss": np.zeros(9)}),
    "epochs that are none": lambda d, t: d["training"]["fit"].update(epochs="two"),
    "a batch beyond": lambda d, t: d["training"]["fit"].update(batch=99),
    "sums of another shape": lambda d, t: (
        d["training"]["fit"].update(batch=1),
        t.update({"training/sums": np.zeros(1)}),
    ),
    "a first epoch beyond": lambda d, t: d["training"]["fit"].update(batch=1, first_epoch=-7),
    "no callbacks": lambda d, t: d["training"]["fit"].pop("callbacks"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_training_is_refused(damage: str, tmp_path: Path) -> None:
    path = saved(tmp_path)
    document, arrays = pf.checkpoint.read_training(path)
    DAMAGE[damage](document, arrays)
    path.write_bytes(serialize(document, arrays))
    work = make()
    with pytest.raises(pf.CheckpointError):
        work.fit(X, Y, 5, resume=path, **FIT)
    work.fit(X, Y, 1, **FIT)  # and it is as good as ever


# ---- killed ----

SCRIPT = """
    import json, sys
    from pathlib import Path
    import test_resuming as t
    from pyframe.callbacks import EarlyStopping, ModelCheckpoint

    print("ready", flush=True)
    result = []
    for optimizer in ("sgd", "momentum", "adam", "random search"):
        path = Path(sys.argv[1]) / optimizer
        work, early = t.make(optimizer), EarlyStopping("val_loss", patience=60)
        history = work.fit(
            t.X, t.Y, 60, callbacks=[early, ModelCheckpoint(path, training=True)],
            resume=path if path.exists() else None, **t.FIT,
        )
        found = t.everything(work, history)
        found = {k: v.hex() if isinstance(v, bytes) else v for k, v in found.items()}
        result.append([found, early.best, early.best_epoch, early.stopped_epoch])
    print(json.dumps(result))
"""


def test_killed_at_random_moments_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    def start(name: str) -> Any:
        (tmp_path / name).mkdir(exist_ok=True)
        command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path / name)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        return run

    def epochs() -> int:
        files = [p for p in (tmp_path / "killed").iterdir() if not p.name.startswith(".")]
        return sum(pf.checkpoint.describe(p)["training"]["epochs_done"] for p in files)

    expected, _ = start("whole").communicate(timeout=100)
    chance, reached = random.Random(0), []
    for epoch in sorted(chance.sample(range(5, 200), 5)):
        run = start("killed")
        while epochs() < epoch and run.poll() is None:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.01))
        run.kill()
        run.communicate()
        reached.append(epochs())
    text, _ = start("killed").communicate(timeout=100)
    assert json.loads(text) == json.loads(expected)
    assert any(0 < epoch < 240 for epoch in reached), "it was never killed between two epochs"


def test_a_restore_that_is_refused_keeps_the_fit(tmp_path: Path) -> None:
    work, other = make("adam"), make("sgd")
    for trainer in (work, other):
        trainer.fit(X, Y, 2, **FIT)
    other.save(tmp_path / "other")
    with pytest.raises(pf.CheckpointError):
        work.restore(tmp_path / "other")
    work.save(tmp_path / "m")
    assert len(make("adam").fit(X, Y, 3, resume=tmp_path / "m", **FIT)["loss"]) == 3


# ---- what is changed between two fits ----


def freeze(work: pf.Trainer) -> None:
    work.model.layers[0].trainable = False


def unfreeze(work: pf.Trainer) -> None:
    freeze(work)
    work.fit(X, Y, 1, **FIT)
    work.model.layers[0].trainable = True


def exchange(work: pf.Trainer) -> None:
    work.optimizer = pf.optimizers.SGD(0.05, momentum=0.9)


def set_option(work: pf.Trainer) -> None:
    """Set an option; a momentum needs something to be kept that was not before."""
    options = work.optimizer.options
    if "momentum" in options:
        work.optimizer.nesterov = False
        work.optimizer.momentum = 0.5 if options["momentum"] == 0 else 0.0
    elif "step_size" in options:
        work.optimizer.step_size = 0.3
    else:
        work.optimizer.clip_norm = 0.01


def set_group(work: pf.Trainer) -> None:
    work.model.layers[-1].parameters[0].group = "bias"


CHANGED = ["sgd", "momentum", "adam", "groups", "direction search"]
CHANGES = [(c, o) for c in (freeze, unfreeze, exchange, set_option) for o in CHANGED]
CHANGES += [(set_group, "groups")]


def through_a_file(work: pf.Trainer, path: Path) -> pf.Trainer:
    work.save(path)
    return pf.Trainer.load(path)


def restored_from_a_file(work: pf.Trainer, path: Path) -> pf.Trainer:
    """Return the same trainer, after it has been elsewhere meanwhile."""
    work.save(path)
    work.fit(X, Y, 2, **FIT)
    work.restore(path)
    return work


WAYS: dict[str, Any] = {
    "save and load": through_a_file,
    "save and restore": restored_from_a_file,
    "copy": lambda work, path: copy.deepcopy(work),
    "pickle": lambda work, path: pickle.loads(pickle.dumps(work)),
}


def check_that_a_change_survives(change: Any, way: str, optimizer: str, path: Path) -> None:
    first, second = make(optimizer), make(optimizer)
    for work in (first, second):
        work.fit(X, Y, 2, **FIT)
        change(work)
    second = WAYS[way](second, path)
    for _ in range(2):
        expected = everything(first, first.fit(X, Y, 2, **FIT))
        assert everything(second, second.fit(X, Y, 2, **FIT)) == expected


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("change", "optimizer"), CHANGES)
def test_what_was_changed_before_the_next_fit_survives(
    change: Any, optimizer: str, way: str, tmp_path: Path
) -> None:
    check_that_a_change_survives(change, way, optimizer, tmp_path / "m")


def test_saving_after_a_change_changes_nothing(tmp_path: Path) -> None:
    """What is changed back is as it was: what the optimizer had kept is still there."""
    first, second = make(), make()
    for work in (first, second):
        work.fit(X, Y, 2, **FIT)
    freeze(second)
    second.save(tmp_path / "m")
    second.model.layers[0].trainable = True
    expected = everything(first, first.fit(X, Y, 2, **FIT))
    assert everything(second, second.fit(X, Y, 2, **FIT)) == expected


@pytest.mark.parametrize("change", [freeze, exchange, set_option])
def test_a_change_by_a_callback_leaves_a_file_that_loads(change: Any, tmp_path: Path) -> None:
    def on_epoch_end(trainer: Any, epoch: int, logs: Any) -> None:
        if epoch == 1:
            change(trainer)

    callbacks = [
        LambdaCallback(on_epoch_end=on_epoch_end),
        ModelCheckpoint(tmp_path / "m", training=True),
    ]
    work, plain = make(), make()
    work.fit(X, Y, 3, callbacks=callbacks, **FIT)
    plain.fit(X, Y, 3, **FIT)
    for key, value in plain.model.get_weights().items():  # in the fit it does not count yet
        np.testing.assert_array_equal(work.model.get_weights()[key], value)
    other = pf.Trainer.load(tmp_path / "m")
    assert other.epochs_done == 3
    expected = everything(work, work.fit(X, Y, 2, **FIT))
    with pytest.raises(pf.CheckpointError, match="had been changed since its fit.*restore"):
        other.fit(X, Y, 5, resume=tmp_path / "m", **FIT)
    assert everything(other, other.fit(X, Y, 2, **FIT)) == expected


def test_a_file_of_what_was_before_the_change_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault planted: what is written is what the last fit ran on."""

    def last(self: CompiledGoals, *_: Any, **options: Any) -> Any:
        assert self.current is not None
        return self.current, self.current.plan.snapshot()

    monkeypatch.setattr(CompiledGoals, "upcoming", last)
    for change in (freeze, unfreeze, exchange):
        for way in ("save and load", "save and restore"):
            with pytest.raises(pf.CheckpointError, match="another model or optimizer"):
                check_that_a_change_survives(change, way, "adam", tmp_path / "m")
