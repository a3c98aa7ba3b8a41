"""scikit-learn's multilayer perceptrons and pyframe's: seconds of a fit, and scores.

    python benchmarks/estimators.py [--mnist FOLDER] [--seeds 5] [--threads 1]

Each pair has the same parameters, split and `random_state`, and is fitted one after the other, in
an order that changes with the seed. Reported are medians over the seeds. scikit-learn's BLAS and
pyframe get as many threads as asked for. FOLDER holds the four files of MNIST; without it that row
is left out.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import sklearn
from scipy.sparse import csr_array
from sklearn import neural_network
from sklearn.datasets import load_breast_cancer, load_digits, make_friedman1
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

import pyframe as pf
from pyframe import estimators


class Task(NamedTuple):
    """What is learned: (x, y, x_test, y_test) of a seed, the class and its parameters."""

    data: Callable[[int], tuple[Any, ...]]
    kind: str
    parameters: dict[str, Any]


def split(x: Any, y: Any, seed: int) -> tuple[Any, ...]:
    """Return three quarters and a quarter, scaled by the mean and deviation of the former."""
    x, x_test, y, y_test = train_test_split(x, y, random_state=seed)
    scaler = StandardScaler().fit(x)
    return scaler.transform(x), y, scaler.transform(x_test), y_test


def synthetic(seed: int) -> tuple[Any, ...]:
    """Return 20,000 rows of 8 features; five of them decide, with noise."""
    x, y = make_friedman1(20_000, 8, noise=1.0, random_state=0)
    return split(x, (y - y.mean()) / y.std(), seed)


def words(seed: int) -> tuple[Any, ...]:
    """Return 3,000 texts of 60 words out of 20,000, the frequent ones more often; five topics."""
    rng = np.random.default_rng(0)
    topic = rng.integers(5, size=3_000)
    rank = rng.zipf(1.3, size=(3_000, 60)) * (1 + topic[:, None]) % 20_000
    x = csr_array((np.ones(rank.size), rank.ravel(), np.arange(0, rank.size + 1, 60)))
    x.resize(3_000, 20_000)
    x, x_test, topic, topic_test = train_test_split(x, topic, random_state=seed)
    return x, topic, x_test, topic_test


def mnist(folder: str) -> Callable[[int], tuple[Any, ...]]:
    """Return MNIST in float32, images in [0, 1]; the same for each seed."""
    train, test = pf.datasets.load_mnist(folder)
    x, x_test = (p.images.reshape(len(p.images), -1).astype("f") / 255 for p in (train, test))
    return lambda seed: (x, train.target, x_test, test.target)


def tasks(folder: str | None) -> Iterator[tuple[str, Task]]:
    """Yield the tasks by name."""
    digits = load_digits(return_X_y=True)
    cancer = load_breast_cancer(return_X_y=True)
    yield "digits", Task(lambda seed: split(*digits, seed), "Classifier", {})
    yield "breast cancer", Task(lambda seed: split(*cancer, seed), "Classifier", {})
    yield "20,000 x 8, numbers", Task(synthetic, "Regressor", {})
    yield "3,000 x 20,000, sparse", Task(words, "Classifier", {"max_iter": 5})
    if folder:
        parameters = {"hidden_layer_sizes": (256, 128), "max_iter": 5, "batch_size": 128}
        yield "MNIST, float32", Task(mnist(folder), "Classifier", parameters)


def measure(task: Task, seed: int) -> dict[str, tuple[float, float]]:
    """Return seconds and score of both."""
    x, y, x_test, y_test = task.data(seed)
    sides = {"scikit-learn": neural_network, "pyframe": estimators}
    measured = {}
    for name in sorted(sides, reverse=bool(seed % 2)):
        model = getattr(sides[name], f"MLP{task.kind}")(random_state=seed, **task.parameters)
        began = time.perf_counter()
        model.fit(x, y)
        seconds = time.perf_counter() - began
        measured[name] = (seconds, model.score(x_test, y_test))
    return measured


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="scikit-learn's multilayer perceptrons and ours")
    parser.add_argument("--mnist", metavar="FOLDER")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    pf.set_num_threads(given.threads)
    print(
        f"{platform.machine()}, {given.threads} thread(s), Python {platform.python_version()}, "
        f"numpy {np.__version__}, scikit-learn {sklearn.__version__}, pyframe {pf.__version__}; "
        f"{datetime.now(UTC):%Y-%m-%d}; medians of {given.seeds} seeds\n"
    )
    print("| data | scikit-learn | pyframe | times as fast | score of scikit-learn | of pyframe |")
    print("| --- | --- | --- | --- | --- | --- |")
    with threadpool_limits(given.threads):
        for name, task in tasks(given.mnist):
            runs = [measure(task, seed) for seed in range(given.seeds)]
            theirs, ours = (
                [statistics.median(run[side][i] for run in runs) for i in (0, 1)]
                for side in ("scikit-learn", "pyframe")
            )
            ratio = statistics.median(run["scikit-learn"][0] / run["pyframe"][0] for run in runs)
            print(
                f"| {name} | {theirs[0]:.2f} s | {ours[0]:.2f} s | {ratio:.1f} | "
                f"{theirs[1]:.4f} | {ours[1]:.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
