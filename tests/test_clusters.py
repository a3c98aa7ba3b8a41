"""Estimators on joblib's processes, on Dask and on Ray: real local clusters of two processes each.

Dask and Ray are in the extra `search`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import pyframe as pf

joblib = pytest.importorskip("joblib")
pytest.importorskip("sklearn")

from sklearn.datasets import load_iris  # noqa: E402
from sklearn.ensemble import BaggingClassifier  # noqa: E402
from sklearn.experimental import enable_halving_search_cv  # noqa: E402, F401
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402

from pyframe.estimators import MLPClassifier, NetClassifier  # noqa: E402
from pyframe.native import core  # noqa: E402

pytestmark = [
    pytest.mark.sklearn,
    pytest.mark.once,
    pytest.mark.filterwarnings("ignore"),  # of clusters that come and go: sockets, processes
]

PAGE = Path(__file__).resolve().parents[1] / "docs" / "searches.md"
WORKERS = 2
PATIENCE = 60.0  # seconds
X, Y = load_iris(return_X_y=True)
LAYERS = [pf.layers.Dense(8, activation="relu"), pf.layers.Dropout(0.1)]
NET: dict[str, Any] = {"layers": LAYERS, "epochs": 4, "tol": None, "random_state": 3}


class Cluster(NamedTuple):
    """Some workers, and what `joblib.parallel_config` is told to use them."""

    name: str
    options: dict[str, Any]
    client: Any = None  # Dask's
    outliving: dict[str, Any] | None = None  # options with which a search survives a worker


@contextlib.contextmanager
def loky() -> Iterator[Cluster]:
    yield Cluster("loky", {"n_jobs": WORKERS})


@contextlib.contextmanager
def dask() -> Iterator[Cluster]:
    distributed = importlib.import_module("distributed")
    with (
        distributed.LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.amm.stop()  # it would leave but one copy of the data, after two seconds
        yield Cluster("dask", {}, client, {"scatter": [X, Y]})


@contextlib.contextmanager
def ray() -> Iterator[Cluster]:
    module = importlib.import_module("ray")
    importlib.import_module("ray.util.joblib").register_ray()
    with pytest.MonkeyPatch.context() as patch:  # what a worker is to import, and where from
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        patch.chdir(Path(__file__).parent)  # where the sources are it would find those
        module.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    retrying = {"ray_remote_args": {"max_restarts": 2, "max_task_retries": 2}}
    try:
        yield Cluster("ray", {"n_jobs": WORKERS}, outliving=retrying)
    finally:
        module.shutdown()


KINDS: dict[str, tuple[str, Callable[[], Any]]] = {
    "loky": ("joblib", loky),
    "dask": ("distributed", dask),
    "ray": ("ray", ray),
}


@pytest.fixture(scope="module", params=KINDS)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    package, begin = KINDS[request.param]
    pytest.importorskip(package, reason=f"{package} is in the extra search")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with begin() as made:
            yield made


def use(cluster: Cluster, **more: Any) -> Any:
    return joblib.parallel_config(cluster.name, **cluster.options, **more)


# ---- what reaches the workers ----


class Twice(pf.layers.Layer):
    """y = 2 x: registered nowhere."""

    def call(self, x: Any) -> Any:
        return 2.0 * x


def doubled(y: Any, y_hat: Any, sample_weight: Any = None) -> Any:
    """Return a loss that is registered nowhere, unless `Plugin` is."""
    return 2.0 * pf.CrossEntropy(y, y_hat, sample_weight)


class Plugin:
    @pf.hookimpl
    def pyframe_register_losses(self) -> dict[str, Any]:
        return {"doubled": doubled}


def meet(folder: str) -> None:
    """Wait until so many processes as there are workers have been here."""
    Path(folder, str(os.getpid())).touch()
    end = time.monotonic() + PATIENCE
    while len(os.listdir(folder)) < WORKERS:
        assert time.monotonic() < end, "one process does all of it"
        time.sleep(0.01)


class Look:
    """Scores a net, and looks at the process in which it was fitted."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.main = str(folder), os.getpid()

    def __call__(self, net: Any, x: Any, y: Any) -> float:
        if os.getpid() != self.main:
            meet(self.folder)
            wide = np.ones((1024, 512), np.float32)  # what is shared out to all threads there are
            pf.compile(pf.Linear(pf.Placeholder("x", shape=wide.shape), wide.T)).run({"x": wide})
            assert pf.get_num_threads() == 1 and core.pool_report()["workers"] == 0
        return float(np.log(net.predict_proba(x)[np.arange(len(y)), y]).mean())


def grid(look: Look) -> Any:
    """Return a search through layers, losses and optimizers of several origins."""
    losses = ["cross_entropy", doubled]
    optimizers = ["lion", "adam"] if find_spec("pyframe_lion") else ["sgd", "adam"]
    return GridSearchCV(
        make_pipeline(StandardScaler(), NetClassifier([*LAYERS, Twice()], **without("layers"))),
        {"netclassifier__loss": losses, "netclassifier__optimizer": optimizers},
        cv=3,
        scoring=look,
        error_score="raise",
    )


def halving(look: Look) -> Any:
    """Return a search that trains the better half for twice as many epochs."""
    return HalvingGridSearchCV(
        NetClassifier(**without("epochs")),
        {"learning_rate": [0.3, 0.03, 0.003, 0.0003]},
        resource="epochs",
        factor=2,
        min_resources=2,
        max_resources=8,
        cv=2,
        scoring=look,
        error_score="raise",
        random_state=0,
    )


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in NET.items() if name not in names}


def bits(net: Any) -> dict[str, bytes]:
    """Return all of a fitted estimator that must not differ by a bit."""
    if hasattr(net, "estimators_"):
        members = map(bits, net.estimators_)
        return {f"{i}/{k}": v for i, member in enumerate(members) for k, v in member.items()}
    last = net[-1] if hasattr(net, "steps") else net
    if hasattr(last, "model_"):
        found = {**last.model_.get_weights(), "history": np.asarray(last.history_["loss"])}
    else:
        found = {str(i): a for i, a in enumerate([*last.coefs_, *last.intercepts_])}
    return {name: np.asarray(array).tobytes() for name, array in found.items()}


SEARCHES = {"loky": [grid], "dask": [grid, halving], "ray": [halving]}


def test_a_search_finds_what_one_process_finds(cluster: Cluster, tmp_path: Path) -> None:
    look = Look(tmp_path)
    for search in SEARCHES[cluster.name]:
        alone = search(look).fit(X, Y)
        with use(cluster):
            found = search(look).fit(X, Y)
        processes = {int(name) for name in os.listdir(tmp_path)}
        assert len(processes) == WORKERS and os.getpid() not in processes
        for key, values in found.cv_results_.items():
            if key.startswith("split"):
                assert values.tobytes() == alone.cv_results_[key].tobytes(), key
        assert found.best_params_ == alone.best_params_
        assert found.best_score_ == alone.best_score_
        assert bits(found.best_estimator_) == bits(alone.best_estimator_)


@pytest.mark.skipif(not PAGE.exists(), reason="the pages are in the repository")
def test_the_script_of_the_page(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="distributed is in the extra search")
    blocks = re.findall(r"^```\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    (script,) = (block for block in blocks if "LocalCluster" in block)
    path = tmp_path / "search.py"
    path.write_text(script, encoding="utf-8")
    said = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    assert re.fullmatch(r"\{'learning_rate': 0\.01, 'epochs': 8\} 0\.9\d\d\n", said)


# ---- there and back ----


def fitted(net: Any) -> tuple[int, Any]:
    return os.getpid(), net.fit(X, Y)


def test_estimators_come_back_as_they_would_be_here(cluster: Cluster) -> None:
    """Also those that have parallel tasks of their own; and they go on to the same bits."""
    made = [
        NetClassifier(**NET, callbacks=["early_stopping"], validation_split=0.2),
        MLPClassifier((8,), max_iter=4, dropout=0.2, random_state=3),
        BaggingClassifier(NetClassifier(**without("random_state")), 4, n_jobs=2, random_state=0),
    ]
    here = [net.fit(X, Y) for net in made]
    with use(cluster):
        there = joblib.Parallel()(joblib.delayed(fitted)(net) for net in made)
    for one, (process, other) in zip(here, there, strict=True):
        assert process != os.getpid()
        assert bits(one) == bits(other)
        if hasattr(one, "partial_fit"):
            assert bits(one.partial_fit(X, Y)) == bits(other.partial_fit(X, Y))


# ---- when something goes wrong ----


def test_an_error_says_of_which_parameters(cluster: Cluster) -> None:
    search = GridSearchCV(
        make_pipeline(StandardScaler(), NetClassifier(**NET)),
        {"standardscaler__with_mean": [True], "netclassifier__learning_rate": [1e-3, -2.0]},
        cv=2,
        error_score="raise",
    )
    with use(cluster), pytest.raises(pf.ArgumentError, match="learning rate -2.0 must") as caught:
        search.fit(X, Y)
    assert "in the fit of NetClassifier(epochs=4" in "".join(caught.value.__notes__)
    assert "learning_rate=-2.0" in "".join(caught.value.__notes__)


def test_what_only_this_process_has_registered(cluster: Cluster) -> None:
    """A worker does not know its name, and says so; it can be told."""
    if cluster.client is None:
        pytest.skip("as of Dask, which can tell its workers")
    plugin = Plugin()
    search = GridSearchCV(NetClassifier(**NET, loss="doubled"), {}, cv=3, error_score="raise")
    pf.plugins.register(plugin, "of-this-process")
    try:
        with use(cluster):
            with pytest.raises(pf.UnknownNameError, match="there is no 'doubled' among the losses"):
                search.fit(X, Y)
            cluster.client.run(pf.plugins.register, plugin, "of-this-process")
            score = search.fit(X, Y).best_score_
        assert score == search.fit(X, Y).best_score_
    finally:
        pf.plugins.unregister(plugin)


def killing(shape: Any, outputs: int, main: int, flag: str) -> Any:
    """Return layers, but kill the process, if it is the first worker that comes here."""
    if os.getpid() != main:
        with contextlib.suppress(FileExistsError):
            Path(flag).touch(exist_ok=False)
            os.kill(os.getpid(), signal.SIGKILL)
    return [pf.layers.Dense(4), pf.layers.Dense(outputs)]


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_worker_that_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    """The search ends with an error; where the cluster is told to try again, as if nothing was."""
    flag = tmp_path / "killed"
    arguments = {"main": os.getpid(), "flag": str(flag)}
    net = NetClassifier(build_fn=killing, build_args=arguments, **without("layers"))
    search = GridSearchCV(net, {"learning_rate": [1e-3, 1e-2, 1e-1]}, cv=2, error_score="raise")
    if cluster.outliving is None:
        words = "A worker process .* was unexpectedly terminated"
        with use(cluster), pytest.raises(Exception, match=words):
            search.fit(X, Y)
        assert flag.exists()
        return
    with use(cluster, **cluster.outliving):
        search.fit(X, Y)
    assert flag.exists()
    alone = GridSearchCV(net, search.param_grid, cv=2).fit(X, Y)
    key = "mean_test_score"
    assert search.cv_results_[key].tobytes() == alone.cv_results_[key].tobytes()
    assert bits(search.best_estimator_) == bits(alone.best_estimator_)
