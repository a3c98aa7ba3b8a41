"""Many small models side by side: `fit_many`, and joblib's backend "pyframe", against one by one.

    python benchmarks/many.py [--threads 2] [--models 20] [--epochs 100] [--rounds 7]

One by one and side by side take turns; printed are medians, their ratio and the best round's, and
with them what two threads reach here that only compute: on a machine with other work that is less
than their number, and the rest cannot be better. Without scikit-learn its rows are left out.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import os
import platform
import statistics
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import pyframe as pf

ROWS, FEATURES = 506, 13
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, FEATURES)).astype(np.float32)
Y = np.tanh(X @ RNG.normal(size=(FEATURES, 1))).astype(np.float32)

# One by one and side by side; what is called gets what the first of the three has made.
Pair = tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any], Any]]


def pure_computing(threads: int) -> Pair:
    """Return work that needs no interpreter: the most that side by side can bring."""
    block = bytes(1 << 20)

    def work() -> None:
        for _ in range(60):
            hashlib.sha256(block).digest()

    def one_by_one(_: Any) -> None:
        for _ in range(threads):
            work()

    def side_by_side(_: Any) -> None:
        started = [threading.Thread(target=work) for _ in range(threads)]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()

    return lambda: None, one_by_one, side_by_side


def tabular(seed: int) -> pf.Trainer:
    """Return a trainer of the benchmark's network `tabular`: 13-64-64-1, relu, L2, Adam."""
    layers = [pf.layers.Dense(64, "relu"), pf.layers.Dense(64, "relu"), pf.layers.Dense(1)]
    with pf.initializers.seeded(seed):
        model = pf.Sequential(layers, input_shape=(FEATURES,))
    return pf.Trainer(model, "l2", pf.optimizers.Adam(1e-3))


def trainers(models: int, epochs: int, **options: Any) -> Pair:
    """Return fits of trainers that have not been fitted before."""
    options = {"epochs": epochs, "batch_size": 32, "verbose": 0, **options}

    def one_by_one(made: list[pf.Trainer]) -> None:
        for seed, trainer in enumerate(made):
            trainer.fit(X, Y, seed=seed, **options)

    def side_by_side(made: list[pf.Trainer]) -> None:
        pf.fit_many(made, X, Y, each=[{"seed": seed} for seed in range(models)], **options)

    return lambda: [tabular(seed) for seed in range(models)], one_by_one, side_by_side


def of_scikit_learn() -> Iterator[tuple[str, Pair]]:
    """Yield what scikit-learn runs in parallel, by name."""
    import joblib
    from sklearn.ensemble import BaggingRegressor
    from sklearn.model_selection import GridSearchCV, cross_val_score

    from pyframe.estimators import MLPRegressor, NetRegressor

    target = Y[:, 0]
    net = NetRegressor(epochs=300, batch_size=32, random_state=0)
    mlp = MLPRegressor(max_iter=300, batch_size=32, tol=0.0, n_iter_no_change=300, random_state=0)
    search = GridSearchCV(mlp, {"alpha": [1e-4, 1e-2]}, cv=5, refit=False)
    bagging = BaggingRegressor(NetRegressor(epochs=300, batch_size=32), 10, random_state=0)
    calls: dict[str, Callable[[], Any]] = {
        "cross_val_score, 10 folds": lambda: cross_val_score(net, X, target, cv=10),
        "GridSearchCV, 10 fits": lambda: search.fit(X, target),
        "BaggingRegressor, 10 members": lambda: bagging.fit(X, target),
    }

    def side_by_side(call: Callable[[], Any]) -> None:
        with joblib.parallel_config("pyframe"):
            call()

    for name, call in calls.items():
        yield name, (lambda call=call: call, lambda call: call(), side_by_side)


def seconds(make: Callable[[], Any], call: Callable[[Any], Any]) -> float:
    made = make()
    gc.collect()
    began = time.perf_counter()
    call(made)
    return time.perf_counter() - began


def row(name: str, pair: Pair, rounds: int) -> None:
    """Measure both of a pair in turns, and print them."""
    make, one_by_one, side_by_side = pair
    for call in (one_by_one, side_by_side):
        call(make())
    measured = [(seconds(make, one_by_one), seconds(make, side_by_side)) for _ in range(rounds)]
    alone, together = (statistics.median(both[i] for both in measured) for i in (0, 1))
    best = min(both[0] for both in measured) / min(both[1] for both in measured)
    print(
        f"| {name} | {alone:.3f} s | {together:.3f} s | {alone / together:.2f} | {best:.2f} |",
        flush=True,
    )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="many small models, one by one and side by side")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # nothing has converged
    pf.set_num_threads(given.threads)
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(
        f"{platform.machine()}, {given.threads} threads, Python {platform.python_version()}, "
        f"pyframe {pf.__version__}{load}; medians of {given.rounds} rounds\n"
    )
    print("| what | one by one | side by side | ratio of the medians | of the best |")
    print("| --- | --- | --- | --- | --- |")
    row("nothing but computing", pure_computing(given.threads), given.rounds)
    what = f"{given.models} x 13-64-64-1, {given.epochs} epochs"
    row(what, trainers(given.models, given.epochs), given.rounds)
    validated = trainers(given.models, given.epochs, validation_split=0.2)
    row(f"{what}, validated after each", validated, given.rounds)
    try:
        rows = list(of_scikit_learn())
    except ImportError:
        return
    for name, pair in rows:
        row(name, pair, given.rounds)


if __name__ == "__main__":
    main()
