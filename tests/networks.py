"""A network that learns quickly, and data for it."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.datasets import (
    load_iris,
)

import pyframe as pf
from pyframe.estimators import NetClassifier

Dense = pf.layers.Dense
X, Y = load_iris(return_X_y=True)
RNG = np.random.default_rng(0)


def quick(**parameters):
    given = {"optimizer": pf.optimizers.Adam(0.02), "random_state": 0, **parameters}
    return NetClassifier([Dense(16, activation="relu")], **given)
