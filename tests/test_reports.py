"""What a fit reports: which way is better, numbers that JSON can hold, losses that diverge."""

from __future__ import annotations

import json
import linecache
import math
import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import pyframe as pf
from pyframe.callbacks import EarlyStopping, ModelCheckpoint
from pyframe.graph.spec import Spec
from pyframe.layers import Dense
from pyframe.metrics import pyframe_register_metrics
from pyframe.plugins.registry import registries
from pyframe.training.fit import Fit
from pyframe.training.goal import Column, CompiledGoal

pytestmark = pytest.mark.once  # it says nothing of a kernel

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 3))
Y = X @ [[1.0], [2.0], [3.0]]
LABELS = (Y[:, 0] > 0).astype(int)

METRICS = registries["metrics"].names()  # those of plugins too


def metric_fit(metric: Any, **options: Any) -> tuple[pf.Trainer, dict[str, Any]]:
    """Return a trainer with a metric, and the data that it takes."""
    found = pf.metrics.get(metric) if isinstance(metric, str) else metric
    labels = isinstance(found, pf.metrics.WholeEpoch) or bool(getattr(found, "integer_inputs", ()))
    pf.set_seed(0)
    model = pf.Sequential([Dense(2 if labels else 1)], input_shape=(3,))
    work = pf.Trainer(model, "cross_entropy" if labels else "l2", metrics=[metric], **options)
    return work, {"X": X, "Y": LABELS if labels else Y, "verbose": 0}


# ---- which way is better ----


class Counted(pf.Node):
    """A metric in Python: the mean of what `rising` or falling numbers it was given."""

    higher_is_better: ClassVar[Any] = True

    def infer(self, *specs: Any) -> Spec:
        return Spec((2,), np.dtype(np.float64))

    def forward(self, ctx: Any, y: Any, y_hat: Any) -> Any:
        return np.array([-np.sum((y - y_hat) ** 2, dtype=np.float64), len(y)])

    def finalize(self, sums: Any) -> float:
        return float(sums[0] / sums[1])


class Falling(Counted):
    """The same, of which less is better."""

    higher_is_better = False


class Silent(Counted):
    """The same, without a word."""

    higher_is_better = None


def value_of(metric: Any, *, good: bool) -> Any:
    """Return a metric of a prediction that is right, or wrong."""
    y: Any = np.arange(14) % 7  # more classes than the five best
    if isinstance(metric, pf.metrics.WholeEpoch):
        return metric(y > 1, (y > 1) == good)
    if getattr(metric, "integer_inputs", ()):
        y_hat = 9.0 * np.eye(7)[y if good else (y + 1) % 7]
    else:
        y, y_hat = y + 0.0, y + (0.1 if good else 2.0)
    targets, predictions = (pf.Placeholder(shape=a.shape, dtype=a.dtype) for a in (y, y_hat))
    node = metric(targets, predictions).node
    return node.finalize(pf.compile(node).run({targets: y, predictions: y_hat}).tolist())


@pytest.mark.parametrize("name", pf.metrics.BUILT_IN)
def test_the_built_in_metrics_say_which_way_is_better(name: str) -> None:
    metric = pyframe_register_metrics()[name]
    good, bad = (value_of(metric, good=good) for good in (True, False))
    assert metric.higher_is_better is (None if np.ndim(good) else bool(good > bad))


@pytest.mark.parametrize("prefix", ["", "val_"])
@pytest.mark.parametrize(("metric", "rises"), [(Counted, True), (Falling, False), ("r2", True)])
def test_the_metric_decides_what_is_best(
    metric: Any, rises: bool, prefix: str, tmp_path: Path
) -> None:
    key = prefix + (metric if isinstance(metric, str) else metric.__name__)
    stop = EarlyStopping(key, patience=100)
    save = ModelCheckpoint(tmp_path / "best-{epoch}", key, save_best_only=True)
    work, given = metric_fit(metric, optimizer=pf.optimizers.Adam(0.3), callbacks=[stop, save])
    history = work.fit(epochs=12, batch_size=8, validation_split=0.25, **given)
    values = history[key]
    assert values.index(max(values)) != values.index(min(values))
    best = values.index(max(values) if rises else min(values))
    assert stop.best_epoch == best
    assert max(int(p.name.split("-")[1]) for p in tmp_path.iterdir()) == best


@pytest.mark.parametrize("key", ["Silent", "val_Silent"])
def test_a_metric_that_does_not_say_it_needs_a_mode(key: str, tmp_path: Path) -> None:
    makers: list[Any] = [
        lambda **given: EarlyStopping(key, **given),
        lambda **given: ModelCheckpoint(tmp_path / "m", key, save_best_only=True, **given),
    ]
    for make in makers:
        work, given = metric_fit(Silent)
        with pytest.raises(pf.ArgumentError, match="mode='max' or mode='min'.*higher_is_better"):
            work.fit(epochs=1, callbacks=[make()], validation_split=0.25, **given)
        assert work.epochs_done == 0
        work.fit(epochs=1, callbacks=[make(mode="max")], validation_split=0.25, **given)


def iou(y: Any, y_hat: Any) -> Any:
    """A metric that is a plain function, of a node that could be the mean of anything."""
    both = pf.Mean(pf.Square(y - y_hat))
    return pf.MeanOf(1.0 - both, y)


@pytest.mark.parametrize(("said", "rises"), [(True, True), (False, False), (None, None)])
def test_a_plugins_metric_is_never_guessed_at(
    said: bool | None, rises: bool | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Overlap:
        @pf.hookimpl
        def pyframe_register_metrics(self) -> dict[str, Any]:
            return {"overlap": iou}

    monkeypatch.setattr(iou, "higher_is_better", said, raising=False)
    plugin = Overlap()
    pf.plugins.register(plugin, "overlap")
    try:
        if rises is None:
            work, given = metric_fit("overlap", callbacks=[EarlyStopping("overlap")])
            with pytest.raises(pf.ArgumentError, match="'overlap' does not say.*mode='max'"):
                work.fit(epochs=1, **given)
            work.callbacks = [EarlyStopping("overlap", mode="max")]
            work.fit(epochs=1, **given)
        else:
            test_the_metric_decides_what_is_best("overlap", rises, "val_", tmp_path)
    finally:
        pf.plugins.unregister(plugin)


def test_a_loss_is_to_fall() -> None:
    x = pf.Placeholder("x", shape=(None, 3))
    model = pf.Model(x, [Dense(1, name="a")(x), Dense(1, name="b")(x)])
    work = pf.Trainer(model, "l2")
    work.fit(X, [Y, Y], 1, validation_split=0.25, verbose=0)
    assert [work.higher_is_better(name) for name in work.log_names] == [False] * 6


def test_several_outputs_have_directions_of_their_own() -> None:
    x = pf.Placeholder("x", shape=(None, 3))
    model = pf.Model(x, [Dense(1, name="a")(x), Dense(1, name="b")(x)])
    work = pf.Trainer(model, "l2", metrics=["r2", "mae"])
    work.fit(X, [Y, Y], 1, validation_split=0.25, verbose=0)
    rising = {name for name in work.log_names if work.higher_is_better(name)}
    assert rising == {"a_r2", "b_r2", "val_a_r2", "val_b_r2"}
    assert all(work.higher_is_better(name) is not None for name in work.log_names)


def test_the_direction_is_really_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Planted: everything is to fall, as if nobody had asked the metric."""
    monkeypatch.setattr(CompiledGoal, "higher_is_better", lambda self, name: False)
    with pytest.raises(AssertionError):
        test_the_metric_decides_what_is_best(Counted, True, "", tmp_path)


# ---- JSON ----


@pytest.mark.parametrize("metric", METRICS)
def test_a_history_is_json(metric: str) -> None:
    work, given = metric_fit(metric)
    history = work.fit(epochs=2, batch_size=8, validation_split=0.25, **given)
    assert json.loads(json.dumps(history)) == history
    seen: list[Any] = []
    watch = pf.callbacks.LambdaCallback(on_epoch_end=lambda t, e, logs: seen.append(logs))
    work.fit(epochs=1, validation_split=0.25, callbacks=[watch], **given)
    assert json.loads(json.dumps(seen)) == seen


def test_a_metric_of_any_number_type_is_json() -> None:
    for kind in (np.float32, np.int64, np.array, lambda v: [v, v], lambda v: (v,)):

        class Odd(Counted):
            finalize = staticmethod(lambda sums, kind=kind: kind(sums[0]))  # type: ignore[misc]

        work, given = metric_fit(Odd)
        json.dumps(work.fit(epochs=2, validation_split=0.25, **given))


def test_an_array_in_a_history_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: values go into the history as the metric gives them."""
    monkeypatch.setattr(Column, "plain_values", Column.values)
    with pytest.raises(TypeError, match="JSON"):
        test_a_history_is_json("confusion_matrix")


# ---- losses that are not finite ----


def diverging(**options: Any) -> pf.Trainer:
    pf.set_seed(0)
    model = pf.Sequential([Dense(1)], input_shape=(3,))
    return pf.Trainer(model, "l2", pf.optimizers.SGD(1e20), **options)


def caught(fit: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        fit()
    assert all(w.category is pf.DivergenceWarning for w in found)
    assert all(w.filename == __file__ for w in found)
    return [str(w.message) for w in found]


@pytest.mark.parametrize("batch_size", [None, 8])
@pytest.mark.parametrize("callbacks", [[], [pf.callbacks.Callback()], [EarlyStopping("loss")]])
def test_a_loss_that_is_not_finite_is_said_once(batch_size: Any, callbacks: Any) -> None:
    histories: list[Any] = []
    work = diverging(callbacks=callbacks)
    (message,) = caught(
        lambda: histories.append(work.fit(X, Y, 8, batch_size, validation_split=0.25, verbose=0))
    )
    losses, checked = histories[0]["loss"], histories[0]["val_loss"]
    first = next(i for i, v in enumerate(losses) if not math.isfinite(v))
    first_checked = next(i for i, v in enumerate(checked) if not math.isfinite(v))
    what, at = ("loss", first) if first <= first_checked else ("validation loss", first_checked)
    value = (losses if what == "loss" else checked)[at]
    assert f"the {what} is {value} after {at + 1} epoch" in message
    for help_ in ("lower learning rate", "clip_norm", "detect_anomaly", "isfinite"):
        assert help_ in message
    assert len(caught(lambda: work.fit(X, Y, 2, batch_size, verbose=0))) == 1  # the next fit again


@pytest.mark.parametrize("spoilt", [np.nan, np.inf])
def test_only_the_validation_loss_is_not_finite(spoilt: float) -> None:
    work, given = metric_fit("mae")
    bad = X.copy()
    bad[-1] = spoilt
    (message,) = caught(lambda: work.fit(epochs=3, validation_data=(bad, Y), **given))
    assert "the validation loss is" in message
    assert "after 1 epoch:" in message


def test_a_metric_may_be_nan() -> None:
    class Nothing(Counted):
        def finalize(self, sums: Any) -> float:
            return math.nan

    work, given = metric_fit(Nothing)
    assert not caught(lambda: work.fit(epochs=2, **given))


def test_as_an_error_it_leaves_the_history_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite turns warnings into errors."""
    work, fits, run = diverging(), [], Fit.run

    def noted(self: Fit, *arguments: Any) -> None:
        fits.append(self)
        run(self, *arguments)

    monkeypatch.setattr(Fit, "run", noted)
    with pytest.raises(pf.DivergenceWarning):
        work.fit(X, Y, 9, validation_split=0.25, verbose=0)
    history = fits[0].history
    assert work.epochs_done == history.epochs == len(history["loss"]) == len(history["val_loss"])


def test_the_loss_is_really_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: nobody looks whether a loss is finite."""
    monkeypatch.setattr(Fit, "_note_divergence", lambda *_: None)
    with pytest.raises(ValueError, match="not enough values"):
        test_a_loss_that_is_not_finite_is_said_once(None, [])


# ---- where a warning points ----


def line_of(found: list[warnings.WarningMessage]) -> str:
    (warning,) = found
    assert warning.filename == __file__
    return linecache.getline(__file__, warning.lineno).strip()


def test_a_divergence_is_told_at_the_line_that_called_fit() -> None:
    from pyframe.estimators import NetRegressor

    X = np.random.default_rng(0).normal(size=(40, 3))
    wild = pf.optimizers.SGD(1e30)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        pf.Trainer(pf.Sequential([pf.layers.Dense(1)]), "l2", wild).fit(X, X[:, 0], 3, verbose=0)
    assert line_of(found).startswith("pf.Trainer(")
    net = NetRegressor([pf.layers.Dense(1)], optimizer=wild, epochs=3)
    with warnings.catch_warnings(record=True) as found, pytest.raises(ValueError, match="finite"):
        warnings.simplefilter("always")
        net.fit(X, X[:, 0])
    assert line_of(found) == "net.fit(X, X[:, 0])"


def test_an_unused_parameter_is_told_at_the_line_that_called_compile() -> None:
    w, unused = pf.Parameter(np.ones(1), name="w"), pf.Parameter(np.ones(1), name="unused")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        pf.compile(pf.Sum(w), pf.optimizers.SGD(0.1), parameters=[unused])
    assert line_of(found).startswith("pf.compile(")
