"""What the framework adds to its kernels, measured: run with no arguments.

Every figure is the median of rounds in which all of them take their turn, so that a machine that
slows down slows all of them down. Times are those of this thread on the processor.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import pyframe as pf

MICRO, NANO = 1e6, 1e9


class Figure(NamedTuple):
    """One row: `measure` returns seconds, `scale` makes the unit of them."""

    name: str
    unit: str
    target: str
    scale: float
    measure: Callable[[], float]


def seconds_each(call: Callable[[], object], count: int) -> float:
    """Return the processor time of one of `count` calls."""
    start = time.thread_time()
    for _ in range(count):
        call()
    return (time.thread_time() - start) / count


# ---- a tiny net: one step from Python, and its kernels alone ----


def tiny_net() -> tuple[pf.Plan, dict[pf.Placeholder, np.ndarray]]:
    """Return a plan of y = w x with its feed: four rows."""
    x, y = pf.Placeholder("x", shape=(None, 1)), pf.Placeholder("y", shape=(None, 1))
    w = pf.Parameter(np.ones((1, 1)), name="w")
    plan = pf.compile(pf.L2Loss(y, x @ w), pf.optimizers.SGD(1e-3))
    rows = np.arange(4, dtype=np.float32).reshape(4, 1)
    return plan, {x: rows, y: 2 * rows}


def step_from_python() -> Callable[[], float]:
    """Return what measures `Plan.step`; each is fed a dict of its own."""
    plan, feed = tiny_net()
    (x, xs), (y, ys) = feed.items()

    def measure() -> float:
        start = time.thread_time()
        for _ in range(2000):
            plan.step({x: xs, y: ys})
        return (time.thread_time() - start) / 2000

    return measure


def step_in_c() -> Callable[[], float]:
    """Return what measures the same program, run again and again inside of C."""
    plan, feed = tiny_net()

    def measure() -> float:
        with plan.loop(feed, epochs=20_000) as loop:
            loop.run(0)
            start, done = time.thread_time(), loop.epoch
            loop.run(60)
            return (time.thread_time() - start) / (loop.epoch - done)

    return measure


def run_from_python() -> Callable[[], float]:
    """Return what measures `Plan.run` of the same graph."""
    plan, feed = tiny_net()
    return lambda: seconds_each(lambda: plan.run(feed), 2000)


def fit_step() -> Callable[[], float]:
    """Return what measures a step of `fit`, a full batch of four rows an epoch."""
    x = np.arange(4, dtype=np.float32).reshape(4, 1)
    trainer = pf.Trainer(
        pf.Sequential([pf.layers.Dense(1)], input_shape=(1,)), "l2", pf.optimizers.SGD(1e-3)
    )
    epochs = 20_000
    return lambda: (
        seconds_each(lambda: trainer.fit(x, 2 * x, epochs=epochs, batch_size=None, verbose=0), 1)
        / epochs
    )


def lesson_step() -> Callable[[], float]:
    """Return what measures a full-batch step of the lesson's network through `fit`."""
    boston = pf.datasets.load_boston()
    rooms = boston.data[:, boston.feature_names.index("RM")].astype(np.float32)
    model = pf.Sequential([pf.layers.Dense(1, activation="sigmoid"), pf.layers.Dense(1)])
    trainer = pf.Trainer(model, "l2", pf.optimizers.SGD(1e-3))
    epochs = 2000
    return lambda: (
        seconds_each(
            lambda: trainer.fit(rooms, boston.target, epochs=epochs, batch_size=None, verbose=0), 1
        )
        / epochs
    )


# ---- prediction ----


def predict_one_row() -> Callable[[], float]:
    """Return what measures one row through the tabular net, 13-64-64-1 in float32."""
    layers = [pf.layers.Dense(64, activation="relu") for _ in range(2)]
    model = pf.Sequential([*layers, pf.layers.Dense(1)], input_shape=(13,))
    row = np.linspace(-1, 1, 13, dtype=np.float32).reshape(1, 13)
    return lambda: seconds_each(lambda: model.predict(row), 2000)


# ---- batches of changing size ----


def changing_rows(widths: list[int], classes: int) -> Callable[[], float]:
    """Return what measures how much longer a row takes if each step has another number of them.

    2,000 steps of 2 to 512 rows, compared with steps of 256.
    """
    rng = np.random.default_rng(0)
    xs = rng.normal(size=(512, widths[0])).astype(np.float32)
    ys = rng.normal(size=(512, classes)).astype(np.float32)
    sizes = rng.integers(2, 513, 2000)

    def seconds_a_row(sizes: np.ndarray) -> Callable[[], float]:
        x, y = pf.Placeholder("x", (None, widths[0])), pf.Placeholder("y", (None, classes))
        layers = [pf.layers.Dense(n, activation="relu") for n in widths[1:]]
        y_hat = pf.Sequential([*layers, pf.layers.Dense(classes)])(x)
        plan = pf.compile(pf.L2Loss(y, y_hat), pf.optimizers.Adam(1e-3))
        feeds = iter([{x: xs[:n], y: ys[:n]} for n in sizes] * 100)
        return lambda: (
            seconds_each(lambda: plan.step(next(feeds)), len(sizes)) * len(sizes) / sizes.sum()
        )

    changing, fixed = seconds_a_row(sizes), seconds_a_row(np.full(1000, 256))
    return lambda: changing() / fixed()


# ---- scalars, and large graphs ----


def scalar_nodes(shape: tuple[int, ...]) -> Callable[[], float]:
    """Return what measures a node of a chain of 1,000 tanh, mul and add on single numbers."""
    x = pf.Placeholder("x", shape=shape)
    value = x
    for i in range(1000):
        value = [pf.Tanh, lambda v: v * x, lambda v: v + x][i % 3](value)
    plan = pf.compile(value)
    feed = {x: np.full(shape, 0.5, np.float32)}
    return lambda: seconds_each(lambda: plan.run(feed), 50) / 1000


def chain(count: int, value: pf.Value | None = None) -> tuple[pf.Placeholder, pf.Value]:
    """Return a placeholder and the end of `count` nodes, one behind the other."""
    x = pf.Placeholder("x", shape=(None, 1))
    value = x if value is None else value
    for _ in range(count // 2):
        value = pf.Tanh(value) + x
    return x, value


def tree(count: int) -> tuple[pf.Placeholder, pf.Value]:
    """Return a placeholder and the sum of `count` / 2 nodes that stand side by side."""
    x = pf.Placeholder("x", shape=(None, 1))
    values: list[pf.Value] = [pf.Tanh(x) for _ in range(count // 2)]
    while len(values) > 1:
        pairs = zip(values[::2], values[1::2], strict=False)
        values = [a + b for a, b in pairs] + values[len(values) // 2 * 2 :]
    return x, values[0]


def compile_forward(make: Callable[[int], tuple[pf.Placeholder, pf.Value]]) -> Callable[[], float]:
    """Return what measures compiling 10,000 nodes and running them for the first time."""
    row = np.ones((1, 1), np.float32)

    def measure() -> float:
        x, value = make(10_000)
        return seconds_each(lambda: pf.compile(value).run({x: row}), 1)

    return measure


def compile_training() -> float:
    """Measure compiling 10,000 nodes with the gradients of all of them, and the first step."""
    row = np.ones((1, 1), np.float32)
    x, value = chain(10_000, pf.Parameter(np.ones((1, 1)), name="w"))
    cost = pf.Mean(value)

    def first_step() -> None:
        pf.compile(cost, pf.optimizers.SGD(0.0)).step({x: row})

    return seconds_each(first_step, 1)


def empty_call() -> float:
    """Measure a call of a function that does nothing: what the machine makes of Python today."""

    def nothing() -> None:
        pass

    return seconds_each(nothing, 20_000)


def figures() -> list[Figure]:
    """Return what is measured."""
    from_python, in_c = step_from_python(), step_in_c()
    return [
        Figure("`plan.step` above its kernels", "µs", "2", MICRO, lambda: from_python() - in_c()),
        Figure("the kernels of that step", "µs", "", MICRO, in_c),
        Figure("`plan.run` on the same net", "µs", "", MICRO, run_from_python()),
        Figure("a step of `fit` on a tiny net", "µs", "", MICRO, fit_step()),
        Figure("a step of `fit` on the lesson's net", "µs", "", MICRO, lesson_step()),
        Figure("`predict`, one row of 13-64-64-1", "µs", "2.5", MICRO, predict_one_row()),
        Figure("1,000 nodes of shape (), each", "ns", "50", NANO, scalar_nodes(())),
        Figure("1,000 nodes of shape (1,), each", "ns", "50", NANO, scalar_nodes((1,))),
        Figure("compile and run 10,000 nodes in a chain", "s", "0.5", 1, compile_forward(chain)),
        Figure("compile and run 10,000 nodes in a tree", "s", "0.5", 1, compile_forward(tree)),
        Figure("the chain with gradients and SGD", "s", "", 1, compile_training),
        Figure("changing rows, 13-64-64-1", "x", "1.05", 1, changing_rows([13, 64, 64], 1)),
        Figure("changing rows, 32-256x6-10", "x", "1.05", 1, changing_rows([32, *[256] * 6], 10)),
        Figure("an empty function of Python, to compare with", "ns", "", NANO, empty_call),
    ]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    table = figures()
    samples: list[list[float]] = [[] for _ in table]
    for figure in table:
        figure.measure()  # the first time, everything is cold
    for _ in range(rounds):
        for figure, values in zip(table, samples, strict=True):
            values.append(figure.scale * figure.measure())
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, {rounds} rounds\n")
    print("| what | median | least | at most |\n| --- | --- | --- | --- |")
    for figure, values in zip(table, samples, strict=True):
        middle, least = statistics.median(values), min(values)
        target = f"{figure.target} {figure.unit}" if figure.target else ""
        print(f"| {figure.name} | {middle:.3g} {figure.unit} | {least:.3g} | {target} |")


if __name__ == "__main__":
    main()
