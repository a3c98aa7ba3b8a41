"""A small regression with its plan, for the tests of plans."""

import numpy as np

import pyframe as pf


def regression(optimizer=None, *, dtype="float64", hidden=5, **options):
    """A two-layer network with its plan and data."""
    rng = np.random.default_rng(0)
    x = pf.Placeholder("x", shape=(None, 3), dtype=dtype)
    y = pf.Placeholder("y", shape=(None, 1), dtype=dtype)
    w1 = pf.Parameter(rng.normal(size=(3, hidden)), name="w1", dtype=dtype)
    b1 = pf.Parameter(np.zeros(hidden), name="b1", dtype=dtype)
    w2 = pf.Parameter(rng.normal(size=(hidden, 1)), name="w2", dtype=dtype)
    y_hat = pf.Linear(pf.Tanh(pf.Linear(x, w1, b1, name="first")), w2, name="second")
    cost = pf.L2Loss(y, y_hat)
    plan = pf.compile(cost, optimizer, outputs=[y_hat], **options)
    data = {"x": rng.normal(size=(20, 3)), "y": rng.normal(size=(20, 1))}
    return plan, data, (w1, b1, w2), y_hat


def numpy_gradients(data, w1, b1, w2):
    x, y = data["x"], data["y"]
    h = np.tanh(x @ w1 + b1)
    e = h @ w2 - y
    d = 2 * e / len(x)
    dh = d @ w2.T * (1 - h**2)
    return np.mean(e**2), [x.T @ dh, dh.sum(0), h.T @ d]
