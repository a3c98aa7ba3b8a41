"""The figures that the project states about itself, measured: run with no arguments.

Needs the extra ``sklearn`` for the digits.
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import time

import numpy as np

import pyframe as pf


def cpu() -> str:
    """Return the processor's name."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
        return names[0] if names else platform.processor()
    except OSError:
        return platform.processor()


def rooms_and_prices() -> tuple[np.ndarray, np.ndarray]:
    """Return RM as (506, 1) and the prices as (506, 1), both float64."""
    boston = pf.datasets.load_boston()
    rooms = boston.data[:, boston.feature_names.index("RM")]
    return rooms.reshape(-1, 1), boston.target.reshape(-1, 1)


def straight_line() -> None:
    """Fit k * rm + b by full-batch gradient descent and compare with least squares."""
    x, y = rooms_and_prices()
    model = pf.Sequential([pf.layers.Dense(1)], input_shape=(1,), dtype="float64")
    optimizer = pf.optimizers.SGD(0.02, momentum=0.99)
    start = time.perf_counter()
    history = pf.Trainer(model, loss="l2", optimizer=optimizer).fit(
        x, y, epochs=20_000, batch_size=None, verbose=0
    )
    seconds = time.perf_counter() - start
    (k, b), *_ = np.linalg.lstsq(np.hstack([x, np.ones_like(x)]), y[:, 0], rcond=None)
    best = float(np.mean((k * x + b - y) ** 2))
    weight, bias = (float(p.value.item()) for p in model.parameters)
    loss = history["loss"][-1]
    print(
        f"straight line: L2 {loss:.5f}, k {weight:.5f}, b {bias:.5f}; least squares {best:.5f}, "
        f"k {k:.5f}, b {b:.5f}; off by {100 * (loss / best - 1):.6f} %; {seconds:.2f} s"
    )


def one_hidden_layer() -> None:
    """Fit a network with one hidden layer on RM alone; it must go below the line."""
    x, y = rooms_and_prices()
    x = (x - x.mean()) / x.std()
    model = pf.Sequential([pf.layers.Dense(16, activation="tanh"), pf.layers.Dense(1)])
    history = pf.Trainer(model, loss="l2", optimizer=pf.optimizers.Adam(0.01)).fit(
        x, y, epochs=3000, batch_size=None, verbose=0
    )
    print(f"one hidden layer on RM alone: L2 {history['loss'][-1]:.4f} (the line: 43.6005)")


def digits_cross_validation() -> None:
    """Mean accuracy of a 64-128-64-10 network over five stratified folds."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import StratifiedKFold

    data, labels = load_digits(return_X_y=True)
    data, labels = data / 16, labels.astype(np.int64)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    scores = []
    start = time.perf_counter()
    for train, test in folds.split(data, labels):
        model = pf.Sequential(
            [
                pf.layers.Dense(128, activation="relu"),
                pf.layers.Dense(64, activation="relu"),
                pf.layers.Dense(10),
            ]
        )
        trainer = pf.Trainer(
            model, loss="cross_entropy", optimizer=pf.optimizers.Adam(2e-3), metrics=["accuracy"]
        )
        trainer.fit(data[train], labels[train], epochs=40, batch_size=32, verbose=0, seed=0)
        scores.append(trainer.evaluate(data[test], labels[test])["accuracy"])
    seconds = time.perf_counter() - start
    text = ", ".join(f"{s:.4f}" for s in scores)
    mean = np.mean(scores)
    print(f"digits 64-128-64-10, 5 folds: mean {mean:.4f} ({text}); {seconds:.1f} s")


def lesson_epochs() -> None:
    """50,000 full-batch epochs of the 506-row network of the lesson, through fit."""
    x, y = rooms_and_prices()
    seconds = []
    for _ in range(3):
        model = pf.Sequential([pf.layers.Dense(1, activation="sigmoid"), pf.layers.Dense(1)])
        trainer = pf.Trainer(model, loss="l2", optimizer=pf.optimizers.SGD(1e-3))
        trainer.fit(x, y, epochs=1, batch_size=None, verbose=0)
        start = time.perf_counter()
        history = trainer.fit(x, y, epochs=50_000, batch_size=None, verbose=0)
        seconds.append(time.perf_counter() - start)
        assert len(history["loss"]) == 50_000
    median = statistics.median(seconds)
    print(f"506-row network, 50,000 full-batch epochs through fit: median {median:.3f} s")


def import_time(rounds: int = 11) -> None:
    """What `import pyframe` costs above `import numpy`, in processes of their own, in turn."""

    def once(statement: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        return time.perf_counter() - start

    numpy_only, both = [], []
    for _ in range(rounds):
        numpy_only.append(once("import numpy"))
        both.append(once("import numpy, pyframe"))
    above = statistics.median(both) - statistics.median(numpy_only)
    print(f"import pyframe: {1000 * above:.1f} ms above import numpy (medians of {rounds})")


if __name__ == "__main__":
    print(f"{cpu()}; Python {platform.python_version()}; NumPy {np.__version__}; {time.ctime()}")
    straight_line()
    one_hidden_layer()
    digits_cross_validation()
    lesson_epochs()
    import_time()
