"""Estimators side by side: `fit_many`, and what scikit-learn runs by joblib's backend "pyframe"."""

from __future__ import annotations

import multiprocessing.process
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import pyframe as pf

joblib = pytest.importorskip("joblib")
pytest.importorskip("sklearn")

import sklearn  # noqa: E402
from scipy.sparse import csr_array  # noqa: E402
from sklearn.base import BaseEstimator, RegressorMixin  # noqa: E402
from sklearn.ensemble import BaggingRegressor  # noqa: E402
from sklearn.exceptions import ConvergenceWarning  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402

from pyframe.callbacks import EarlyStopping, LambdaCallback  # noqa: E402
from pyframe.estimators import (  # noqa: E402
    MLPClassifier,
    MLPRegressor,
    NetClassifier,
    NetRegressor,
)
from pyframe.layers import BatchNorm, Dense, Dropout  # noqa: E402
from pyframe.native import core  # noqa: E402
from pyframe.native.threads import threads_left  # noqa: E402

pytestmark = [
    pytest.mark.sklearn,
    pytest.mark.filterwarnings(f"ignore::{ConvergenceWarning.__module__}.ConvergenceWarning"),
]

COUNTS = (1, 2, 3, 7)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 6))
LABELS = (X[:, 0] > 0).astype(int) + (X[:, 1] * X[:, 2] > 0)
NUMBERS = X[:, 0] * X[:, 1] + 0.1 * RNG.normal(size=120)
SINGLE = X.astype(np.float32)


@pytest.fixture(autouse=True)
def _restore_count() -> Iterator[None]:
    before = pf.get_num_threads()
    yield
    pf.set_num_threads(before)
    assert threads_left() == before, "a thread is still counted"


# ---- side by side ----

LAYERS = [Dense(8, "relu"), BatchNorm(), Dropout(0.2)]
MLP: dict[str, Any] = {"hidden_layer_sizes": (8,), "max_iter": 6, "random_state": 3}
NET: dict[str, Any] = {"layers": LAYERS, "epochs": 4, "random_state": 3}

# Each makes an estimator, its X and its y.
ESTIMATORS: dict[str, Callable[[], tuple[Any, Any, Any]]] = {
    "NetClassifier": lambda: (NetClassifier(**NET), X, LABELS),
    "NetClassifier, float32": lambda: (NetClassifier(**NET), SINGLE, LABELS),
    "NetClassifier, stopping early": lambda: (
        NetClassifier(
            **{**NET, "epochs": 9},
            validation_split=0.2,
            callbacks=[EarlyStopping(patience=1, min_delta=1.0)],
        ),
        X,
        LABELS,
    ),
    "NetRegressor": lambda: (NetRegressor(**NET, batch_size=16), X, NUMBERS),
    "NetRegressor, full batch": lambda: (NetRegressor(**NET, batch_size=None), SINGLE, NUMBERS),
    "MLPClassifier": lambda: (MLPClassifier(**MLP), X, LABELS),
    "MLPClassifier, dropout": lambda: (MLPClassifier(**MLP, dropout=0.3), SINGLE, LABELS),
    "MLPClassifier, stopping early": lambda: (
        MLPClassifier(**MLP, early_stopping=True, n_iter_no_change=1),
        X,
        LABELS,
    ),
    "MLPClassifier, sparse": lambda: (MLPClassifier(**MLP), csr_array(X * (X > 0)), LABELS),
    "MLPRegressor": lambda: (MLPRegressor(**MLP, batch_size=16), X, NUMBERS),
    "MLPRegressor, sgd": lambda: (
        MLPRegressor(**MLP, solver="sgd", learning_rate="invscaling"),
        X,
        NUMBERS,
    ),
    "MLPRegressor, lbfgs": lambda: (MLPRegressor(**MLP, solver="lbfgs"), SINGLE, NUMBERS),
    "pipeline": lambda: (make_pipeline(StandardScaler(), NetRegressor(**NET)), X, NUMBERS),
}


def bits(estimator: Any, x: Any) -> dict[str, bytes]:
    """Return all of a fitted estimator that must not differ by a bit."""
    last = estimator[-1] if hasattr(estimator, "steps") else estimator
    found = {"predictions": estimator.predict(x)}
    if hasattr(last, "model_"):
        found.update(last.model_.get_weights())
        found.update({f"history/{k}": np.asarray(v) for k, v in last.history_.items()})
        found["epochs"] = np.asarray(last.n_iter_)
    else:
        arrays = [*last.coefs_, *last.intercepts_, np.asarray(last.n_iter_)]
        found.update({f"array/{i}": array for i, array in enumerate(arrays)})
        found["losses"] = np.asarray(getattr(last, "loss_curve_", ()))
    return {name: np.asarray(array).tobytes() for name, array in found.items()}


@pytest.mark.parametrize("isa", core.instruction_sets())
def test_every_estimator_gets_the_bits_that_it_gets_alone(isa: str) -> None:
    with core.using_instruction_set(isa):
        expected = {}
        with pf.num_threads(1):
            for name, make in ESTIMATORS.items():
                estimator, x, y = make()
                expected[name] = bits(estimator.fit(x, y), x)
        for count in COUNTS:
            made = {name: make() for name, make in ESTIMATORS.items()}
            with pf.num_threads(count):
                fitted = pf.fit_many(
                    [estimator for estimator, _, _ in made.values()],
                    each=[{"X": x, "Y": y} for _, x, y in made.values()],
                    verbose=0,
                )
            for (name, (estimator, x, _)), result in zip(made.items(), fitted, strict=True):
                assert result is estimator
                assert bits(estimator, x) == expected[name], (name, count)


def test_a_fit_goes_on_as_it_would_alone() -> None:
    together, same = ([MLPClassifier(**MLP), MLPRegressor(**MLP)] for _ in range(2))
    each = [{"Y": LABELS}, {"Y": NUMBERS}]
    pf.fit_many(together, X, each=each, verbose=0)
    for one, other, own in zip(together, same, each, strict=True):
        other.fit(X, own["Y"])
        for _ in range(2):  # the optimizer goes on where it was
            one.partial_fit(X, own["Y"])
            other.partial_fit(X, own["Y"])
        assert bits(one, X) == bits(other, X)


def test_sample_weights_and_trainers_at_the_same_time() -> None:
    weights = RNG.uniform(size=120)
    trainer = pf.Trainer(pf.Sequential([Dense(1)], input_shape=(6,)))
    net = NetRegressor(**NET)
    history, fitted = pf.fit_many([trainer, net], X, NUMBERS, sample_weight=weights, verbose=0)
    assert isinstance(history, pf.History)
    assert bits(fitted, X) == bits(NetRegressor(**NET).fit(X, NUMBERS, weights), X)


def test_settings_of_scikit_learn_hold_in_every_fit() -> None:
    class Looking(BaseEstimator):  # type: ignore[misc]
        def fit(self, X: Any, y: Any) -> Looking:
            self.seen_ = sklearn.get_config()["working_memory"]
            return self

    with sklearn.config_context(working_memory=77):
        fitted = pf.fit_many([Looking(), Looking()], X, NUMBERS, verbose=0)
    assert [one.seen_ for one in fitted] == [77, 77]
    assert sklearn.get_config()["working_memory"] != 77


def one_state() -> list[Any]:
    state = np.random.RandomState(0)
    return [MLPRegressor(random_state=0), *(MLPRegressor(random_state=state) for _ in range(2))]


def one_step() -> list[Any]:
    scaler = StandardScaler()
    return [make_pipeline(scaler, NetRegressor()) for _ in range(2)]


def one_state_of_steps() -> list[Any]:
    state = np.random.default_rng(0)
    return [make_pipeline(StandardScaler(), NetRegressor(random_state=state)) for _ in range(2)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (one_state, "numbers 1 and 2 .*the random numbers of random_state in common"),
        (one_step, "numbers 0 and 1 .*this StandardScaler in common"),
        (one_state_of_steps, "numbers 0 and 1 .*the random numbers of random_state in common"),
    ],
)
def test_what_two_must_not_have_in_common(make: Callable[[], list[Any]], message: str) -> None:
    with pytest.raises(pf.ArgumentError, match=message):
        pf.fit_many(make(), X, NUMBERS, verbose=0)


def test_an_error_says_whose_it_is() -> None:
    nets = [NetRegressor(**NET), NetRegressor(**{**NET, "epochs": 0}), NetRegressor(**NET)]
    with pytest.raises(pf.FitManyError, match=r"^fit 1 of 3 .*the others are done") as caught:
        pf.fit_many(nets, X, NUMBERS, verbose=0)
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.results[1] is None
    assert bits(nets[2], X) == bits(NetRegressor(**NET).fit(X, NUMBERS), X)


# ---- Ctrl-C ----


def press_when(networks: int) -> Callable[..., Any]:
    """Return a loss; soon after so many networks have been made with it, Ctrl-C is pressed."""
    made: list[Any] = []

    def press() -> None:
        time.sleep(0.1)
        signal.raise_signal(signal.SIGINT)

    def loss(y: Any, y_hat: Any, sample_weight: Any = None) -> Any:
        made.append(y_hat)
        if len(made) == networks:
            threading.Thread(target=press).start()
        return pf.L2Loss(y, y_hat, sample_weight)

    return loss


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_stops_all_of_them() -> None:
    pf.set_num_threads(2)
    long: dict[str, Any] = {"max_iter": 10**6, "tol": 0.0, "n_iter_no_change": 10**6}
    loss = press_when(2)
    nets = [
        MLPRegressor(random_state=0, loss=loss, **long),
        NetRegressor(epochs=10**6, tol=None, random_state=0, loss=loss),
        NetRegressor(random_state=0),
    ]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fitted = pf.fit_many(nets, X, NUMBERS, verbose=0)
    assert all(one is other for one, other in zip(nets, fitted, strict=True))
    assert sorted(str(w.message) for w in caught) == [
        "Training interrupted by user. (in fit 0 of 3)",
        "Training interrupted by user. (in fit 1 of 3)",
        "fit 2, of a NetRegressor, was interrupted: it is as it was",
    ]
    assert nets[0].n_iter_ < 10**6
    assert nets[1].n_iter_ < 10**6
    assert not hasattr(nets[2], "model_")


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_leaves_an_estimator_that_cannot_stop_half_way_as_it_was() -> None:
    """As it does alone: L-BFGS lets the exception through."""
    options: dict[str, Any] = {"max_iter": 10**9, "max_fun": 10**9, "tol": 0.0, "random_state": 0}
    endless = MLPRegressor(solver="lbfgs", loss=press_when(1), **options)
    slow = np.tile(X, (200, 1)), np.tile(NUMBERS, 200)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pf.fit_many([endless], *slow, verbose=0)
    (warning,) = caught
    assert str(warning.message) == "fit 0, of a MLPRegressor, was interrupted: it is as it was"
    assert not hasattr(endless, "coefs_")


# ---- joblib ----


class Unpicklable(NetRegressor):
    """Cannot be sent to a process."""

    def __getstate__(self) -> Any:
        raise AssertionError("somebody pickles an estimator")

    def __reduce__(self) -> Any:
        raise AssertionError("somebody pickles an estimator")


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("somebody starts a process")

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", refuse)
    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    for name in ("fork", "posix_spawn"):
        if hasattr(os, name):
            monkeypatch.setattr(os, name, refuse)


def grid(n_jobs: int | None) -> Any:
    search = GridSearchCV(
        make_pipeline(StandardScaler(), Unpicklable(**NET)),
        {"unpicklable__epochs": [1, 3], "unpicklable__loss": ["l2", "huber"]},
        cv=3,
        n_jobs=n_jobs,
        return_train_score=True,
    ).fit(X, NUMBERS)
    results = {k: v for k, v in search.cv_results_.items() if "score" in k and "time" not in k}
    return {name: values.tobytes() for name, values in results.items()} | bits(
        search.best_estimator_, X
    )


def folds(n_jobs: int | None) -> Any:
    return cross_val_score(Unpicklable(**NET), X, NUMBERS, cv=5, n_jobs=n_jobs).tobytes()


def mlp_folds(n_jobs: int | None) -> Any:
    return cross_val_score(MLPClassifier(**MLP), X, LABELS, cv=4, n_jobs=n_jobs).tobytes()


def bag(n_jobs: int | None) -> Any:
    """Return the bits of the members: how many numbers at a time are added up is joblib's."""
    net = Unpicklable(**{k: v for k, v in NET.items() if k != "random_state"})
    bagged = BaggingRegressor(net, 5, random_state=0, n_jobs=n_jobs).fit(X, NUMBERS)
    with joblib.parallel_config("sequential"):
        score = bagged.set_params(n_jobs=1).score(X, NUMBERS)
    return [bits(member, X) for member in bagged.estimators_], score


@pytest.mark.parametrize("what", [grid, folds, mlp_folds, bag], ids=lambda what: what.__name__)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_scikit_learn_gets_the_same_bits(
    what: Callable[[int | None], Any], count: int, no_process: None
) -> None:
    with pf.num_threads(1):
        expected = what(1)
    pf.set_num_threads(count)
    with joblib.parallel_config("pyframe"):
        for n_jobs in (None, 1, 2, -1):
            assert what(n_jobs) == expected, n_jobs


class Meeting(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Notes how many fits are under way; some of them wait for each other."""

    barrier = threading.Barrier(1)
    lock = threading.Lock()
    begun = now = most = 0

    def fit(self, X: Any, y: Any) -> Meeting:
        kind = Meeting
        with kind.lock:
            kind.begun += 1
            kind.now += 1
            kind.most = max(kind.most, kind.now)
            is_first = kind.begun <= kind.barrier.parties
        if is_first:
            kind.barrier.wait(60)
        time.sleep(0.002)
        with kind.lock:
            kind.now -= 1
        return self

    def predict(self, X: Any) -> Any:
        return np.zeros(len(X))

    @classmethod
    def expect(cls, together: int) -> None:
        cls.barrier = threading.Barrier(together)
        cls.begun = cls.now = cls.most = 0


@pytest.mark.parametrize(
    ("threads", "n_jobs", "together"),
    [(3, None, 3), (3, -1, 3), (3, -2, 2), (3, 2, 2), (3, 1, 1), (1, None, 1), (2, 4, 4)],
)
def test_as_many_at_a_time_as_was_asked_for(
    threads: int, n_jobs: int | None, together: int
) -> None:
    pf.set_num_threads(threads)
    Meeting.expect(together)
    with joblib.parallel_config("pyframe"):
        cross_val_score(Meeting(), X, NUMBERS, cv=9, n_jobs=n_jobs)
    assert (Meeting.begun, Meeting.most) == (9, together)
    Meeting.expect(together)
    with joblib.parallel_config("pyframe", n_jobs=n_jobs):
        cross_val_score(Meeting(), X, NUMBERS, cv=9)
    assert (Meeting.begun, Meeting.most) == (9, together)


def test_no_jobs_make_no_sense() -> None:
    with joblib.parallel_config("pyframe"), pytest.raises(ValueError, match="n_jobs == 0"):
        joblib.Parallel(n_jobs=0)(joblib.delayed(abs)(i) for i in range(3))


def left(barrier: threading.Barrier | None = None) -> int:
    if barrier is not None:
        barrier.wait(60)
    found = threads_left()
    if barrier is not None:
        barrier.wait(60)
    return found


def nest(barrier: threading.Barrier, n_jobs: int | None) -> tuple[int, set[int]]:
    """Return how many threads are left to a task, and which ones its own tasks run in."""
    found = left(barrier)
    tasks = joblib.Parallel(n_jobs=n_jobs)(joblib.delayed(threading.get_ident)() for _ in range(20))
    barrier.wait(60)
    return found, set(tasks)


@pytest.mark.parametrize("n_jobs", [None, -1, 4])
def test_tasks_within_tasks_take_what_is_left(n_jobs: int | None) -> None:
    pf.set_num_threads(2)
    barrier = threading.Barrier(2)
    with joblib.parallel_config("pyframe"):
        found = joblib.Parallel()(joblib.delayed(nest)(barrier, n_jobs) for _ in range(2))
    assert [count for count, _ in found] == [1, 1]
    assert all(len(threads) == 1 for _, threads in found)
    pf.set_num_threads(4)
    with joblib.parallel_config("pyframe", n_jobs=2):
        found = joblib.Parallel()(joblib.delayed(nest)(barrier, n_jobs) for _ in range(2))
    assert [count for count, _ in found] == [3, 3]
    assert all(1 <= len(threads) <= 3 for _, threads in found)


def test_an_error_comes_out_and_the_others_stop() -> None:
    """A fit that is under way stops as after Ctrl-C: nobody waits for its million epochs."""
    pf.set_num_threads(2)
    begun, ended = threading.Event(), threading.Event()

    def build(shape: Any, outputs: int, fails: bool) -> Any:
        if fails:
            begun.wait(60)
            raise ZeroDivisionError("planted")
        begun.set()
        return [Dense(4), Dense(outputs)]

    net = NetRegressor(
        build_fn=build,
        epochs=10**6,
        tol=None,
        random_state=0,
        callbacks=[LambdaCallback(on_fit_end=lambda trainer, history: ended.set())],
    )
    search = GridSearchCV(
        net, {"build_args": [{"fails": False}, {"fails": True}]}, cv=2, error_score="raise"
    )
    search.set_params(cv=[(np.arange(80), np.arange(80, 120))])
    with (
        warnings.catch_warnings(),
        joblib.parallel_config("pyframe"),
        pytest.raises(ZeroDivisionError, match="planted"),
    ):
        warnings.simplefilter("ignore")  # of the one that was interrupted
        search.fit(X, NUMBERS)
        pytest.fail("no error")
    assert ended.wait(60)
    deadline = time.monotonic() + 60
    while threads_left() != 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    with joblib.parallel_config("pyframe"):  # and it can be used again
        assert len(cross_val_score(NetRegressor(**NET), X, NUMBERS, cv=3)) == 3


def test_filters_of_warnings_are_left_alone() -> None:
    pf.set_num_threads(3)
    before = warnings.filters
    kept = list(before)
    with joblib.parallel_config("pyframe"):
        for _ in range(5):
            cross_val_score(Meeting(), X, NUMBERS, cv=9)
    assert warnings.filters is before
    assert list(before) == kept


def test_the_backend_is_there_with_the_estimators_and_not_before() -> None:
    script = """
import sys
import pyframe
assert "joblib" not in sys.modules
import joblib
try:
    joblib.parallel_config("pyframe")
except ValueError:
    pass
else:
    raise SystemExit("known without the estimators")
import pyframe.estimators
with joblib.parallel_config("pyframe", n_jobs=2):
    print(joblib.Parallel()(joblib.delayed(abs)(-i) for i in range(4)))
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    assert run.stdout.split("\n")[0] == "[0, 1, 2, 3]"
