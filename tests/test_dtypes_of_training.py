"""Whatever dtype a metric, loss or output declares is read as that, or refused beforehand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.engine import execution
from pyframe.errors import DTypeError, GraphError
from pyframe.graph.spec import Spec

READ = ["float32", "float64", "int64"]
REFUSED = ["float16", "int32", "bool", "complex64"]
ROWS = 10
X = np.arange(ROWS, dtype=float).reshape(-1, 1) - 2


def metric_of(dtype: str, give: Callable[[Any], Any] = lambda sums: sums) -> type[pf.Node]:
    """Return a metric in Python: the mean of |y|, whose sums have some dtype."""

    class MeanOfTargets(pf.Node):
        def infer(self, *specs: Spec | None) -> Spec:
            return Spec((2,), np.dtype(dtype))

        def forward(self, ctx: Any, y: Any, y_hat: Any) -> Any:
            return give(np.array([np.abs(y).sum(), len(y)]).astype(dtype))

        def finalize(self, sums: Any) -> float:
            return float(sums[0] / sums[1])

    return MeanOfTargets


class Loss(pf.Node):
    """A squared error in Python, of a dtype that `dtype` says."""

    dtype_name = "float32"

    def infer(self, *specs: Spec | None) -> Spec:
        return Spec((), np.dtype(self.dtype_name))

    def forward(self, ctx: Any, y: Any, y_hat: Any) -> Any:
        return np.mean((y_hat - y) ** 2).astype(self.dtype_name)

    def backward(self, ctx: Any, dy: Any) -> Any:
        y, y_hat = ctx.inputs
        return None, 2 * (y_hat - y) / y.size * dy


def loss_of(dtype: str) -> type[Loss]:
    return type("Loss", (Loss,), {"dtype_name": dtype})


def trained(loss: Any, metrics: Any = (), dtype: str = "float32", **fit: Any) -> Any:
    model = pf.Sequential([pf.layers.Dense(1)], input_shape=(1,), dtype=dtype)
    trainer = pf.Trainer(model, loss=loss, optimizer=pf.optimizers.SGD(1e-3), metrics=list(metrics))
    return trainer, trainer.fit(X, 3 * X, 3, 4, verbose=0, **fit)


@pytest.mark.parametrize("model_dtype", ["float32", "float64"])
@pytest.mark.parametrize("dtype", READ)
def test_a_metric_in_python_is_read_as_what_it_declares(dtype: str, model_dtype: str) -> None:
    # Between two others: a wrong width would shift whatever stands behind it.
    metrics = ["mae", metric_of(dtype), "rmse"]
    trainer, history = trained("l2", metrics, model_dtype, validation_data=(X, 3 * X))
    true = np.abs(3 * X).mean()
    assert history["MeanOfTargets"] == [true] * 3 == history["val_MeanOfTargets"]
    got = trainer.evaluate(X, 3 * X, batch_size=3)
    error = trainer.predict(X).astype(float) - 3 * X
    assert got["MeanOfTargets"] == true
    assert got["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-5)
    assert got["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-5)
    assert got["loss"] == pytest.approx((error**2).mean(), rel=1e-5)
    assert history["val_loss"][-1] == pytest.approx(got["loss"], rel=1e-6)


@pytest.mark.parametrize("model_dtype", ["float32", "float64"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_loss_in_python_is_read_as_what_it_declares(dtype: str, model_dtype: str) -> None:
    _, reference = trained("l2", dtype=model_dtype)
    _, history = trained(loss_of(dtype), dtype=model_dtype)
    np.testing.assert_allclose(history["loss"], reference["loss"], rtol=1e-5)


@pytest.mark.parametrize("dtype", READ)
def test_an_output_in_python_is_read_as_what_it_declares(dtype: str) -> None:
    x = pf.Placeholder("x", shape=(None, 1))
    node = metric_of(dtype)(x, x)
    got = pf.compile(node).run({x: X})
    assert got.dtype == dtype
    assert got.tolist() == [np.abs(X).sum(), ROWS]


@pytest.mark.parametrize("dtype", READ)
def test_a_record_of_a_loop_is_read_as_what_it_declares(dtype: str) -> None:
    x = pf.Placeholder("x", shape=(None, 1))
    w = pf.Parameter(np.ones((1, 1)), name="w")
    plan = pf.compile(pf.L2Loss(x, x @ w), pf.optimizers.SGD(0.0), metrics=[metric_of(dtype)(x, x)])
    with plan.loop({x: X}, epochs=2, batch_size=3, shuffle=False) as loop:
        while loop.run() != "done":
            pass
        assert loop.records.tolist() == [[np.abs(X).sum(), ROWS]] * 2


@pytest.mark.parametrize("dtype", REFUSED)
def test_other_dtypes_are_refused_before_anything_runs(dtype: str) -> None:
    with pytest.raises(DTypeError, match="float32, float64 or int64"):
        trained("l2", [metric_of(dtype)])
    with pytest.raises(DTypeError, match="float32, float64 or int64"):
        trained(loss_of(dtype))


def test_a_loss_of_integers_is_refused() -> None:
    x = pf.Placeholder("x", shape=(None, 1))
    w = pf.Parameter(np.ones((1, 1)), name="w")
    with pytest.raises(DTypeError, match="int64"):
        pf.compile(loss_of("int64")(x, x @ w), pf.optimizers.SGD(0.1))
    with pytest.raises(DTypeError):
        trained(loss_of("int64"))


@pytest.mark.parametrize(
    "give, error",
    [
        (lambda sums: None, DTypeError),
        (lambda sums: sums + 0.5, DTypeError),  # floats where int64 was declared
        (lambda sums: np.array([np.nan, 1.0]), DTypeError),
        (lambda sums: sums[:1], pf.ShapeError),
        (lambda sums: [sums, sums], GraphError),
    ],
)
def test_results_that_are_not_as_declared_are_refused(give: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"forward returned"):
        trained("l2", [metric_of("int64", give)])


@pytest.mark.parametrize("dtype", READ)
def test_results_in_any_layout_are_copied_right(dtype: str) -> None:
    def strided(sums: Any) -> Any:
        return np.repeat(sums, 2)[::2]

    def swapped(sums: Any) -> Any:
        return sums.astype(sums.dtype.newbyteorder())

    for give in (strided, swapped):
        _, history = trained("l2", [metric_of(dtype, give)])
        assert history["MeanOfTargets"] == [np.abs(3 * X).mean()] * 3


def test_a_metric_that_cannot_be_one_is_refused_when_the_plan_is_made() -> None:
    with pytest.raises(GraphError, match="must give a node"):
        trained("l2", [lambda y, y_hat: pf.Argmax(y_hat)])
    with pytest.raises(GraphError, match="must give a node"):
        trained("l2", [lambda y, y_hat: 1.0])


def test_without_its_guard_a_float_becomes_an_integer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault planted: what a node returns is copied as it comes."""

    def store(context: Any, row: Any, node: Any, results: Any) -> None:
        for value, result in zip(row.outputs, results, strict=True):
            context.read(value)[...] = result

    monkeypatch.setattr(execution, "_store", store)
    with pytest.raises(pytest.fail.Exception):
        test_results_that_are_not_as_declared_are_refused(lambda sums: sums + 0.5, DTypeError)
