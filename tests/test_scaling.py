"""Features and targets of any size are learned from, in whatever unit they come."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe import data

pytest.importorskip("sklearn")

from pyframe.estimators import NetClassifier
from pyframe.estimators._scaling import Scaling

pytestmark = [
    pytest.mark.sklearn,
    pytest.mark.once,
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:it was still getting better"),
]

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 3))
Y = (X[:, 0] + 0.5 * X[:, 1] > 0).astype(int)

SCALES = {
    "float32": [1e-36, 1e-20, 1e-8, 1e-4, 1e-2, 1e4, 1e19, 1e25, 1e37],
    "float64": [1e-300, 1e-160, 1e-36, 1e-8, 1e-4, 1e4, 1e25, 1e150, 1e200, 1e300],
}


@pytest.mark.parametrize(("dtype", "scale"), [(d, s) for d, some in SCALES.items() for s in some])
def test_features_of_any_scale_are_learned(dtype: str, scale: float) -> None:
    net = NetClassifier(epochs=60, random_state=0, tol=None)
    assert net.fit((X * scale).astype(dtype), Y).score((X * scale).astype(dtype), Y) > 0.95


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_small_feature_beside_a_large_one_is_learned(dtype: str) -> None:
    rows = (X * [1e-9, 1e-9, 1e6]).astype(dtype)
    assert NetClassifier(random_state=0, tol=None, epochs=100).fit(rows, Y).score(rows, Y) > 0.95


def scaled(rows: np.ndarray) -> np.ndarray:
    layer = pf.layers.BatchNorm()
    x = pf.Placeholder("x", shape=(None, rows.shape[1]), dtype=rows.dtype)
    layer.trainable = False
    out = layer(x)
    scaling = Scaling()
    scaling.add(rows)
    scaling.set(layer)
    result: np.ndarray = pf.compile(out).run({x: rows})
    return result


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("constant", [0.1, 1e-12, 1e12, -3e7, 0.0])
def test_a_constant_column_stays_one(constant: float, dtype: str) -> None:
    column = np.full(300, constant, dtype)
    if constant:
        column[::2] = np.nextafter(column[0], np.asarray(1e30, dtype))  # the last bit is rounding
    rows = np.column_stack([column, X[:, 0].astype(dtype)])
    assert np.ptp(scaled(rows)[:, 0]) < 1e-5
    standard, _, deviation = data.standardize(rows)
    assert np.abs(standard[:, 0]).max() < 1e-3 * max(1.0, abs(constant)) or deviation[0] == 1


def test_parts_of_very_different_sizes_add_up() -> None:
    whole, parts = Scaling(), Scaling()
    rows = np.concatenate([np.zeros((5, 2)), X[:100, :2] * 1e-200, X[:50, :2] * [1.0, 1e-150]])
    whole.add(rows)
    for part in np.array_split(rows, 7):
        parts.add(part)
    for scaling in (whole, parts):
        deviation = np.ldexp(np.sqrt(scaling.squares / scaling.total), scaling.exponent)
        expected = rows / np.abs(rows).max(0)
        np.testing.assert_allclose(deviation, expected.std(0) * np.abs(rows).max(0), rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-200, 1e-9, 1.0, 1e200])
def test_standard_columns_do_not_depend_on_their_unit(scale: float) -> None:
    found, _, deviation = data.standardize(X * scale)
    np.testing.assert_allclose(found, data.standardize(X)[0], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(deviation, X.std(0) * scale, rtol=1e-10)


@pytest.mark.parametrize("scale", [1e-200, 1e-9, 1e150, 1e200])
def test_targets_of_a_table_may_have_any_unit(scale: float) -> None:
    pytest.importorskip("pandas")
    from pyframe.tabular import TabularModel

    target: Any = X[:, 0] * scale
    model = TabularModel((16,), epochs=40, random_state=0).fit(X, target)
    error = (model.predict(X) - target) / scale
    assert np.mean(error**2) < 0.2
    assert all(np.isfinite(list(model.evaluate(X, target).values())))
