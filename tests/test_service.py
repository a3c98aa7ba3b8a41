"""A service that retrains: threads predict with an estimator while it is fitted anew."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the extra 'sklearn' brings it")

from pyframe import estimators
from pyframe.estimators import mlp, net

pytestmark = pytest.mark.sklearn

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
# Two tasks of different sizes: what is of two fits does not fit together.
TASKS = {
    "classes": (np.arange(60) % 2, np.array(list("abcde"))[np.arange(60) % 5]),
    "numbers": (X[:, 0], X[:, :3]),
}
MAKE: dict[str, tuple[str, Callable[[], Any]]] = {
    "NetClassifier": ("classes", lambda: estimators.NetClassifier(epochs=3, random_state=0)),
    "NetRegressor": ("numbers", lambda: estimators.NetRegressor(epochs=3, random_state=0)),
    "MLPClassifier": (
        "classes",
        lambda: estimators.MLPClassifier(hidden_layer_sizes=(8,), max_iter=3, random_state=0),
    ),
    "MLPRegressor": (
        "numbers",
        lambda: estimators.MLPRegressor(hidden_layer_sizes=(8,), max_iter=3, random_state=0),
    ),
}
METHODS = {"classes": ("predict", "predict_proba"), "numbers": ("predict",)}


def asked(estimator: Any, kind: str) -> list[Any]:
    """Return what the methods of an estimator give."""
    return [getattr(estimator, name)(X).tolist() for name in METHODS[kind]]


@contextmanager
def readers(read: Callable[[], None], count: int = 4) -> Iterator[None]:
    """Have threads read again and again for the length of a ``with`` block."""
    done = threading.Event()

    def work() -> int:
        times = 0
        while not done.is_set():
            read()
            times += 1
        return times

    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(work) for _ in range(count)]
        try:
            yield
        finally:
            done.set()
        assert all(future.result() for future in futures)


def serve(name: str, fits: int) -> list[Any]:
    """Fit an estimator again and again while threads read; return what was of no one fit."""
    kind, make = MAKE[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # three epochs are too few
        fitted = [asked(make().fit(X, y), kind) for y in TASKS[kind]]
        right = list(zip(*fitted, strict=True))  # for each method what it gives after either fit
        estimator, wrong = make().fit(X, TASKS[kind][0]), []

        def read() -> None:
            for wanted, method in zip(right, METHODS[kind], strict=True):
                try:
                    got = getattr(estimator, method)(X).tolist()
                except Exception as error:
                    got = error
                if got not in wanted:
                    wrong.append(got)

        with readers(read):
            for i in range(fits):
                estimator.fit(X, TASKS[kind][1 - i % 2])
    return wrong


@pytest.mark.parametrize("name", MAKE)
def test_a_prediction_is_of_one_fit(name: str) -> None:
    assert not serve(name, 20)


@pytest.mark.parametrize("name", MAKE)
def test_predictions_beside_partial_fits_are_right(name: str) -> None:
    kind, make = MAKE[name]
    y = TASKS[kind][0]
    extra = {"classes": np.unique(y)} if kind == "classes" else {}
    estimator = make().partial_fit(X, y, **extra)
    wrong = []

    def read() -> None:
        for got in (estimator.predict(X), *(estimator.predict_proba(X) for _ in extra)):
            if got.shape[0] != len(X) or not np.isfinite(got).all():
                wrong.append(got)

    with readers(read):
        for _ in range(20):
            estimator.partial_fit(X, y)
    assert not wrong
    alone = make()
    for _ in range(21):
        alone.partial_fit(X, y, **extra)
    assert asked(estimator, kind) == asked(alone, kind)  # the readers have changed nothing


@pytest.mark.parametrize("name", MAKE)
def test_a_fit_that_fails_leaves_the_last_one(name: str) -> None:
    kind, make = MAKE[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator = make().fit(X, TASKS[kind][0])
    before = asked(estimator, kind)
    with pytest.raises(ValueError):
        estimator.fit(X[:, :2], TASKS[kind][1][:7])
    with (
        pytest.raises(ValueError, match="non-finite"),
        np.errstate(all="ignore"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        estimator.set_params(**_divergent(name)).fit(X, TASKS[kind][1])
    assert asked(estimator.set_params(**make().get_params()), kind) == before


def _divergent(name: str) -> dict[str, Any]:
    """Return parameters with which a fit ends in NaN."""
    if "Net" in name:
        from pyframe.optimizers import SGD

        return {"optimizer": SGD(1e300)}
    return {"solver": "sgd", "learning_rate_init": 1e300}


@pytest.mark.parametrize("name", MAKE)
def test_an_estimator_without_twins_turns_these_tests_red(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def in_place(estimator: Any) -> Iterator[Any]:
        yield estimator

    for module in (net, mlp):
        monkeypatch.setattr(module, "twin", lambda estimator: estimator)
        monkeypatch.setattr(module, "fitting", in_place)
    assert any(serve(name, 20) for _ in range(20))
