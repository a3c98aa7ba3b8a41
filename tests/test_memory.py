"""Memory is given back when the last reference goes, without waiting for the cyclic collector.

The collector counts objects, not bytes: a plan of a few hundred of them may hold gigabytes.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.engine import program

pytestmark = pytest.mark.once

X, Y = np.linspace(-1, 1, 240).reshape(24, 10), np.linspace(0, 1, 24).reshape(24, 1)
LIVES: dict[str, Callable[[Path], Any]] = {}


class Cube(pf.Node):
    def forward(self, ctx: Any, x: Any) -> Any:
        if np.isnan(x).any():
            raise ValueError("NaN")
        return x**3

    def backward(self, ctx: Any, dy: Any) -> Any:
        return 3 * ctx.inputs[0] ** 2 * dy


def life(make: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Enter something that is made, used and dropped."""
    LIVES[make.__name__] = make
    return make


def graph() -> tuple[pf.Placeholder, pf.Value]:
    x = pf.Placeholder("x", shape=(None, 10))
    w = pf.Parameter(np.eye(10), name="w")
    return x, pf.Mean(Cube(pf.Tanh(pf.Linear(x, w))))


def model() -> pf.Sequential:
    layers = pf.layers
    return pf.Sequential(
        [
            layers.Dense(6, activation="relu"),
            layers.BatchNorm(),
            layers.Dropout(0.1),
            layers.Dense(1),
        ]
    )


@life
def a_graph(folder: Path) -> None:
    graph()


@life
def a_plan(folder: Path) -> None:
    x, cost = graph()
    plan = pf.compile(cost, pf.optimizers.Adam(0.1))
    plan.step({x: X})
    plan.run({x: X})
    plan.loss_and_gradients({x: X})
    plan.profile({x: X}, repeats=1)
    str(plan)
    assert plan.value(cost).shape == ()


@life
def an_inspected_plan(folder: Path) -> None:
    x, cost = graph()
    plan = pf.compile(cost, inspect=True)
    plan.loss_and_gradients({x: X})
    assert cost.node.gradients and x.gradients


@life
def many_sizes(folder: Path) -> None:
    plan_of_sizes = model()
    for rows in range(1, 20):
        plan_of_sizes.predict(X[:rows])


@life
def a_loop(folder: Path) -> None:
    x, cost = graph()
    plan = pf.compile(cost, pf.optimizers.SGD(0.1, clip_norm=1.0))
    with plan.loop({x: X}, epochs=2, batch_size=5) as loop:
        while loop.run(1) != "done":
            pass


@life
def an_unfinished_loop(folder: Path) -> None:
    x, cost = graph()
    plan = pf.compile(cost, pf.optimizers.SGD(0.1))
    with plan.loop({x: X}, epochs=2, batch_size=5, stop="step") as loop:
        loop.run(1)


@life
def errors(folder: Path) -> None:
    x, cost = graph()
    plan = pf.compile(cost, pf.optimizers.SGD(0.1))
    for wrong in (X[:, :3], np.full((2, 10), np.nan), None):
        for call in (plan.step, plan.run, plan.loss_and_gradients):
            with pytest.raises((ValueError, TypeError)):
                call({x: wrong})


@life
def a_trainer(folder: Path) -> None:
    trainer = pf.Trainer(model(), metrics=["mae"])
    best = pf.callbacks.EarlyStopping(monitor="val_loss", restore_best=True)
    saving = pf.callbacks.ModelCheckpoint(folder / "best.pyframe")
    trainer.fit(X, Y, 3, validation_split=0.25, verbose=0, callbacks=[best, saving])
    trainer.fit(X, Y, 1, sample_weight=np.ones(24), verbose=0)
    trainer.evaluate(X, Y)
    trainer.model.summary()


class Failing(pf.callbacks.Callback):
    def on_epoch_end(self, trainer: Any, epoch: int, logs: Any) -> None:
        raise RuntimeError("no")


@life
def a_fit_that_fails(folder: Path) -> None:
    trainer = pf.Trainer(model())
    with pytest.raises(RuntimeError):
        trainer.fit(X, Y, 2, verbose=0, callbacks=[Failing()])


@life
def files(folder: Path) -> None:
    trainer = pf.Trainer(model())
    trainer.fit(X, Y, 2, verbose=0)
    path = folder / "file.pyframe"
    trainer.save(path)
    pf.load(path).predict(X)
    pf.Trainer.load(path).fit(X, Y, 1, verbose=0)
    pf.Trainer(model()).fit(X, Y, 3, verbose=0, resume=path)


@life
def estimators(folder: Path) -> None:
    pytest.importorskip("sklearn")
    from pyframe.estimators import MLPRegressor, NetRegressor

    NetRegressor(epochs=2).fit(X, Y[:, 0]).predict(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has not converged
        for solver in ("adam", "lbfgs"):
            mlp = MLPRegressor(hidden_layer_sizes=(4,), max_iter=2, solver=solver)
            mlp.fit(X, Y[:, 0]).predict(X)


@life
def the_lesson(folder: Path) -> None:
    x, y = pf.Placeholder("x", shape=(None,)), pf.Placeholder("y", shape=(None,))
    k, b = pf.Parameter(1.0, "k"), pf.Parameter(0.0, "b")
    cost = pf.L2_LOSS(y, pf.Linear(x, k, b))
    order = pf.node_computing_sort({x: X[:, 0], y: Y[:, 0]}, [cost])
    pf.forward_and_backward(order)


def left_behind(make: Callable[[Path], Any], folder: Path) -> Counter[str]:
    """Return what only the collector can free of something that was made, used and dropped."""
    make(folder)  # what is made once in a process is made now
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        make(folder)
        gc.collect()
        own = [o for o in gc.garbage if type(o).__module__.startswith(("pyframe", "_cffi"))]
        return Counter(type(o).__name__ for o in own)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("name", LIVES)
def test_nothing_waits_for_the_collector(name: str, tmp_path: Path) -> None:
    assert not left_behind(LIVES[name], tmp_path)


def test_a_context_that_keeps_its_home_turns_these_tests_red(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "ref", lambda home: lambda: home)
    assert left_behind(LIVES["a_plan"], tmp_path)["Context"] > 0


# ---- bytes ----

RESIDENT = """
import gc, sys
import numpy as np
import pyframe as pf
gc.disable()

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
"""
SIZES = """
model = pf.Sequential([pf.layers.Dense(2048)], input_shape=(4,))
plan = 600 * 2048 * 4  # bytes, at most
for rows in range(91, 101):
    model.predict(np.zeros((rows, 4)))
before = resident()
for rows in range(101, 601):
    model.predict(np.zeros((rows, 4)))
assert resident() - before < 12 * plan, (resident() - before) / plan
"""
MODELS = """
X, Y = np.zeros((64, 100)), np.zeros((64, 1))
def one():
    model = pf.Sequential([pf.layers.Dense(1000, activation="relu"), pf.layers.Dense(1)])
    trainer = pf.Trainer(model)
    trainer.fit(X, Y, 1, verbose=0)
    trainer.evaluate(X, Y)
    model.predict(X)
for _ in range(10):
    one()
before, size = resident(), 4 * 101_000 * 4  # parameters, gradients, and Adam's two slots
for _ in range(200):
    one()
assert resident() - before < 8 * size, (resident() - before) / size
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("script", [SIZES, MODELS], ids=["batch sizes", "models"])
def test_memory_stays_flat(script: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", RESIDENT + script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr


LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


LARGE = """
import numpy as np, pyframe as pf

def asked_for_large_pages():  # bytes of memory, for which this process has asked for pages of 2 MB
    with open("/proc/self/smaps", encoding="utf-8", errors="replace") as file:
        regions = file.read().split("VmFlags:")
    sizes = (int(region.rpartition("\\nSize:")[2].split()[0]) for region in regions[:-1])
    flags = (region.partition("\\n")[0].split() for region in regions[1:])
    return sum(1024 * size for size, has in zip(sizes, flags) if "hg" in has)

x, y = pf.Placeholder("x", shape=(2048, 1)), pf.Placeholder("y", shape=(1, 2048))
plan = pf.compile(pf.Sum(pf.Tanh(x * y)), fuse=False)
before = asked_for_large_pages()
plan.run({x: np.ones((2048, 1)), y: np.ones((1, 2048))})
values = 2 * 2048**2 * 4
assert asked_for_large_pages() - before > values / 2
"""


@pytest.mark.skipif(not LARGE_PAGES.exists(), reason="this system has no large pages")
def test_memory_for_activations_asks_for_large_pages(tmp_path: Path) -> None:
    # In a process of its own: in another one the memory may be some that has been asked for before.
    command = [sys.executable, "-c", LARGE]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
