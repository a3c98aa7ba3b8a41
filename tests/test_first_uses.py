"""First uses in threads: what is made then is made once, whichever thread comes first.

Every pair of public calls begins at one moment on a new object. Each of them gives a right result
or raises `BusyError`, and the object is whole afterwards.
"""

from __future__ import annotations

import copy
import itertools
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.engine import placement
from pyframe.errors import BusyError, GraphError

pytestmark = pytest.mark.once

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(24, 5)), RNG.normal(size=(24, 1))
WEIGHT = np.linspace(0.5, 1.5, 24)
OFTEN = pytest.mark.parametrize("times", [4, pytest.param(50, marks=pytest.mark.slow)])

Calls = dict[str, Callable[[Any], Any]]


@pytest.fixture(autouse=True)
def threads_take_turns() -> Iterator[None]:
    """Have the interpreter change threads as often as it can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def at_once(subject: Any, *calls: Callable[[Any], Any]) -> list[Any]:
    """Make some calls at one moment; return what they gave, None for one that was refused."""
    barrier = threading.Barrier(len(calls))

    def wait_and(call: Callable[[Any], Any]) -> Any:
        barrier.wait()
        try:
            return call(subject)
        except BusyError:
            return None

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(wait_and, c) for c in calls]]


def pairs(calls: Calls) -> Any:
    """Parametrize a test by every pair of some calls, each with itself among them."""
    names = itertools.combinations_with_replacement(calls, 2)
    return pytest.mark.parametrize("names", list(names), ids=" + ".join)


# ---- models and trainers ----


class Save(pf.callbacks.Callback):
    """Write the training after an epoch, counted from 0."""

    def __init__(self, path: Path, epoch: int = 1) -> None:
        self.path, self.epoch = path, epoch

    def on_epoch_end(self, trainer: pf.Trainer, epoch: int, logs: dict[str, float]) -> None:
        if epoch == self.epoch:
            trainer.save(self.path)


class Subject:
    """A new model with its trainer."""

    def __init__(self, folder: Path, built: bool) -> None:
        layers = [pf.layers.Dense(6, activation="relu"), pf.layers.BatchNorm(), pf.layers.Dense(1)]
        self.model = pf.Sequential(layers, input_shape=(5,) if built else None)
        self.trainer = pf.Trainer(self.model, loss="l2", metrics=["mae"])
        self.folder, self.begun = folder, folder / "begun.training"

    def fit(self, trainer: pf.Trainer | None = None, **arguments: Any) -> Any:
        trainer = trainer or self.trainer
        return trainer.fit(X, Y, epochs=2, batch_size=7, verbose=0, **arguments)["loss"]

    def resume(self) -> Any:
        return self.trainer.fit(X, Y, 4, 7, verbose=0, resume=self.begun)["loss"]

    def save_training(self) -> Any:
        path = self.folder / f"{threading.get_ident()}.training"
        path.unlink(missing_ok=True)
        try:
            self.trainer.save(path)
        except GraphError:  # there is nothing to write until something has been trained
            assert not path.exists()
            return None
        return pf.Trainer.load(path).predict(X)

    def save(self) -> Any:
        path = self.folder / f"{threading.get_ident()}.pyframe"
        self.model.save(path)
        return pf.load(path).predict(X)

    def check(self) -> None:
        """Fail if the model is not whole: one memory for all that looks at it."""
        before = self.model.predict(X)
        self.fit()
        after = self.model.predict(X)
        assert (before != after).any()
        weights = self.model.get_weights()
        assert all(np.isfinite(array).all() for array in weights.values())
        assert [weights[p.name].tolist() for p in self.model.parameters] == [
            p.value.tolist() for p in self.model.parameters
        ]
        np.testing.assert_array_equal(self.save(), after)
        (x,), (y,) = self.model.inputs, self.model.outputs
        np.testing.assert_array_equal(pf.compile(y).run({x: X}), after)
        assert self.trainer.plan.step_count % 4 == 0


NEW: Calls = {
    "predict": lambda s: s.model.predict(X),
    "predict in parts": lambda s: s.model.predict(X, batch_size=5),
    "fit": lambda s: s.fit(),
    "fit with weights": lambda s: s.fit(sample_weight=WEIGHT),
    "fit by another trainer": lambda s: s.fit(pf.Trainer(s.model, optimizer="sgd")),
    "evaluate": lambda s: list(s.trainer.evaluate(X, Y).values()),
}
BUILT: Calls = {
    "predict": NEW["predict"],
    "fit": NEW["fit"],
    "save": Subject.save,
    # Views of what is trained: whoever reads the numbers meanwhile may see them change.
    "parameters": lambda s: [p.value.size for p in s.model.parameters],
    "get_weights": lambda s: np.concatenate([w.ravel() for w in s.model.get_weights().values()]),
    "set_weights": lambda s: s.model.set_weights({"dense/bias": np.ones(6)}),
    "summary": lambda s: [len(s.model.summary())],
    "pickle": lambda s: pickle.loads(pickle.dumps(s.model)).predict(X),
    "compile": lambda s: pf.compile(s.model.outputs).run({s.model.inputs[0]: X}),
}


# What a new trainer does with a file that another one wrote in the middle of its fit.
TRAINED: Calls = {
    "fit": NEW["fit"],
    "fit, resumed": lambda s: s.resume(),
    "evaluate": NEW["evaluate"],
    "predict": lambda s: s.trainer.predict(X),
    "save": lambda s: s.save_training(),
    "load": lambda s: pf.Trainer.load(s.begun).predict(X),
    "restore": lambda s: s.trainer.restore(s.begun),
    "plan": lambda s: s.trainer.plan.step_count if s.fit() else None,
    "epochs_done": lambda s: s.trainer.epochs_done,
    "optimizer": lambda s: setattr(s.trainer, "optimizer", "adam"),
    "copy": lambda s: copy.deepcopy(s.trainer).predict(X),
    "pickle": lambda s: pickle.loads(pickle.dumps(s.trainer)).predict(X),
}


def check_results(results: list[Any]) -> None:
    for result in results:
        assert result is None or np.isfinite(result).all()


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a file of training after the second of four epochs, with its remaining two to come."""
    subject = Subject(tmp_path_factory.mktemp("begun"), built=True)
    subject.trainer.fit(X, Y, epochs=4, batch_size=7, verbose=0, callbacks=[Save(subject.begun)])
    return subject.begun


@OFTEN
@pairs(NEW)
def test_the_first_uses_of_a_model(names: tuple[str, str], times: int, tmp_path: Path) -> None:
    for _ in range(times):
        subject = Subject(tmp_path, built=False)
        check_results(at_once(subject, *(NEW[name] for name in names)))
        subject.check()


@OFTEN
@pairs(BUILT)
def test_the_first_uses_of_a_built_model(
    names: tuple[str, str], times: int, tmp_path: Path
) -> None:
    for _ in range(times):
        subject = Subject(tmp_path, built=True)
        check_results(at_once(subject, *(BUILT[name] for name in names)))
        subject.check()


@OFTEN
@pairs(TRAINED)
def test_the_first_uses_of_a_trainer(
    names: tuple[str, str], times: int, tmp_path: Path, begun: Path
) -> None:
    for _ in range(times):
        subject = Subject(tmp_path, built=True)
        subject.begun = begun
        check_results(at_once(subject, *(TRAINED[name] for name in names)))
        subject.check()


def test_many_threads_fit_one_new_trainer(tmp_path: Path) -> None:
    for _ in range(10):
        subject = Subject(tmp_path, built=False)
        losses = at_once(subject, *[Subject.fit] * 6)
        done = [loss for loss in losses if loss is not None]
        assert done
        assert subject.trainer.plan.step_count == 8 * len(done)
        assert subject.trainer.epochs_done == 2 * len(done)
        subject.check()


# ---- plans over the same parameters ----


class Graphs:
    """Two losses over the same new parameters, and a plan of one of them."""

    def __init__(self) -> None:
        self.x = pf.Placeholder("x", shape=(None, 5))
        initial = pf.initializers.he_normal((5, 3))
        self.w = pf.Parameter(initial, name="w")
        self.b = pf.Parameter(np.zeros(3), name="b")
        self.y = pf.Linear(self.x, self.w, self.b)
        self.losses = pf.Mean(self.y * self.y), pf.Mean(pf.Tanh(self.y))
        self.feed = {self.x: X}

    def plan(self, number: int) -> pf.Plan:
        return pf.compile(self.losses[number], pf.optimizers.SGD(0.1), outputs=[self.y])


GRAPHS: Calls = {
    "step": lambda g: g.plan(0).step(g.feed),
    "step by another loss": lambda g: g.plan(1).step(g.feed),
    "loss_and_gradients": lambda g: next(iter(g.plan(0).loss_and_gradients(g.feed)[1].values())),
    "run": lambda g: g.plan(0).run(g.feed, outputs=g.y),
    "read": lambda g: g.w.value.shape,
    "write": lambda g: setattr(g.b, "value", np.ones(3)),
}


@OFTEN
@pairs(GRAPHS)
def test_plans_over_the_same_new_parameters(names: tuple[str, str], times: int) -> None:
    for _ in range(times):
        graphs = Graphs()
        check_results(at_once(graphs, *(GRAPHS[name] for name in names)))
        if "write" in names and not any("step" in name for name in names):
            assert graphs.b.value.tolist() == [1.0, 1.0, 1.0]
        first, second = graphs.plan(0), graphs.plan(1)
        first.step(graphs.feed)
        second.step(graphs.feed)
        w, b = graphs.w.value, graphs.b.value
        for plan in (first, second):
            got = plan.run(graphs.feed, outputs=graphs.y)
            np.testing.assert_allclose(got, X @ w.astype(float) + b, rtol=1e-4, atol=1e-5)


def one_epoch(plan: pf.Plan) -> Any:
    with plan.loop({"x": X}, batch_size=7) as loop:
        while loop.run() != "done":
            pass
        return loop.records.copy()


STEPS: Calls = {
    "step": lambda p: p.step({"x": X}),
    "run": lambda p: p.run({"x": X}),
    "run in training": lambda p: p.run({"x": X}, training=True),
    "loss_and_gradients": lambda p: p.loss_and_gradients({"x": X})[0],
    "gradients": lambda p: [len(p.gradients.total)],
    "profile": lambda p: [len(p.profile({"x": X}, repeats=1))],
    "snapshot, restore": lambda p: p.restore(p.snapshot()),
    "loop": lambda p: one_epoch(p),
}
TAKEN = {"step": 1, "loop": 4}  # steps


@OFTEN
@pairs(STEPS)
def test_the_first_uses_of_a_plan(names: tuple[str, str], times: int) -> None:
    for _ in range(times):
        x = pf.Placeholder("x", shape=(None, 5))
        layer = pf.layers.BatchNorm()
        cost = pf.Mean(pf.Square(pf.layers.Dense(3)(layer(x))))
        plan = pf.compile(cost, pf.optimizers.Adam(0.01))
        results = at_once(plan, *(STEPS[name] for name in names))
        check_results(results)
        done = zip(names, results, strict=True)
        taken = sum(TAKEN.get(name, 0) for name, result in done if result is not None)
        assert plan.step_count <= taken
        assert plan.step_count == taken or "snapshot, restore" in names
        loss, gradients = plan.loss_and_gradients({x: X})
        assert loss > 0 and len(gradients) == len(plan.parameters)


class Looks(pf.callbacks.Callback):
    """Looks at the model while its training is written, and keeps what it has seen."""

    def training_state(self, trainer: pf.Trainer) -> dict[str, Any]:
        weights = list(trainer.model.get_weights().values())
        snapshot = trainer.plan.snapshot()
        return {"weights": weights, "step": snapshot.step, "seen": trainer.model.predict(X)}


def test_who_writes_a_file_may_look_at_the_model_meanwhile(tmp_path: Path) -> None:
    subject = Subject(tmp_path, built=True)
    subject.fit(callbacks=[Looks(), Save(subject.begun, epoch=0)])
    assert pf.Trainer.load(subject.begun).predict(X).shape == (24, 1)


class SaveElsewhere(pf.callbacks.Callback):
    """Have another thread write the training after an epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_epoch_end(self, trainer: pf.Trainer, epoch: int, logs: dict[str, float]) -> None:
        with ThreadPoolExecutor(1) as other:
            other.submit(trainer.save, self.path).result()


def test_what_another_thread_writes_in_a_fit_is_no_fit_to_go_on_with(tmp_path: Path) -> None:
    subject = Subject(tmp_path, built=True)
    subject.fit(callbacks=[SaveElsewhere(subject.begun)])
    with pytest.raises(pf.CheckpointError, match="by another thread while its fit was under way"):
        Subject(tmp_path, built=True).resume()
    np.testing.assert_array_equal(
        pf.Trainer.load(subject.begun).predict(X), subject.model.predict(X)
    )


def test_nobody_restores_what_another_thread_trains() -> None:
    x = pf.Placeholder("x", shape=(None, 5))
    plan = pf.compile(pf.Mean(pf.Square(pf.layers.Dense(3)(x))), pf.optimizers.Adam(0.01))
    before = plan.snapshot()

    def refused() -> bool:
        try:
            plan.restore(before)
        except BusyError:
            return True
        return False

    with ThreadPoolExecutor(1) as other, plan.loop({"x": X}, batch_size=7, stop="step") as loop:
        for _ in range(2):
            loop.run()
            assert other.submit(refused).result()
        assert plan.step_count == 2
        plan.restore(before)  # by whoever trains it: that is what a callback does
        assert plan.step_count == 0
    assert not refused()


def test_threads_that_want_one_size_at_once_share_what_is_made_for_it() -> None:
    x = pf.Placeholder("x", shape=(None, 5))
    plan = pf.compile(pf.Softmax(x))
    for rows in range(1, 30):
        results = at_once(X[:rows], *[lambda part: plan.run({x: part})] * 4)
        for result in results:
            np.testing.assert_array_equal(result, results[0])


# ---- a missing lock shows ----


def test_a_missing_lock_turns_these_tests_red(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "building", nullcontext())

    def lose() -> bool:
        graphs = Graphs()
        at_once(graphs, lambda g: g.plan(0), lambda g: g.plan(1))
        plans = graphs.plan(0), graphs.plan(1)
        for plan in plans:
            plan.step(graphs.feed)
        wanted = X @ graphs.w.value.astype(float) + graphs.b.value
        return any(
            not np.allclose(plan.run(graphs.feed, outputs=graphs.y), wanted, rtol=1e-4, atol=1e-5)
            for plan in plans
        )

    def fails() -> bool:
        try:
            return lose()
        except Exception:
            return True

    assert any(fails() for _ in range(200))


# ---- nothing is left out ----

# What the loop, the profiler and files need of a plan, what reads what never changes, and what
# stands on `predict`.
NOT_FIRST_USES = {
    pf.Plan: "apply_gradients backward_node check_feeds claim contributions cost detect_anomaly "
    "forward_node fuse gradient graph held_feed inspect metrics named optimizer parameters "
    "prepare_restoring resolve segments skipped_steps states step_count take_over value",
    pf.Model: "architecture as_layer build_for built classes feed for_shape graph inputs "
    "is_made_anew layers of_architecture of_parts on outcomes output_names outputs "
    "predict_classes predict_proba states trainable",
    pf.Trainer: "epochs_asked find_learning_rate higher_is_better history log_names sample",
}
TABLES = {pf.Plan: GRAPHS | STEPS, pf.Model: NEW | BUILT, pf.Trainer: TRAINED}


@pytest.mark.parametrize("kind", TABLES, ids=lambda kind: kind.__name__)
def test_every_public_name_is_in_a_table_or_known_not_to_be(kind: type) -> None:
    names = {name for name in dir(kind) if not name.startswith("_")}
    used = {word.strip(",") for name in TABLES[kind] for word in name.split()}
    left_out = set(NOT_FIRST_USES[kind].split())
    assert names <= used | left_out
    assert left_out <= names


def test_no_thread_that_builds_waits_for_one_that_waits_to_build() -> None:
    """One is about to differentiate, and another one, which compiles a trainer's goal, as well."""
    about_to, builds = threading.Event(), threading.Event()

    class Waiting(pf.optimizers.SGD):
        def check_groups(self, parameters: Any) -> None:
            about_to.set()
            builds.wait(60)

    def loss(y: Any, y_hat: Any) -> Any:
        builds.set()
        time.sleep(0.2)  # the other one gets as far as it can
        return pf.L2Loss(y, y_hat)

    def compile_a_plan() -> None:
        w = pf.Parameter(np.ones(3), name="w")
        pf.compile(pf.SumOfSquares(w), Waiting(0.1))

    def fit() -> None:
        trainer = pf.Trainer(pf.Sequential([pf.layers.Dense(1)]), loss=loss)
        trainer.fit(np.ones((4, 2)), np.ones(4), 1, verbose=0)

    threads = [threading.Thread(target=do, daemon=True) for do in (compile_a_plan, fit)]
    threads[0].start()
    assert about_to.wait(60)
    threads[1].start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "they wait for each other"
