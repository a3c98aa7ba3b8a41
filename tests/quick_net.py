"""Small plans for the tests of the fast path, and whether a step would take it."""

import numpy as np

import pyframe as pf


class Net:
    """A small classifier with its plan; `data` has the right dtypes, so its feeds match."""

    def __init__(self, *, optimizer="sgd", **options):
        rng = np.random.default_rng(0)
        self.x = pf.Placeholder("x", shape=(None, 3))
        self.y = pf.Placeholder("y", shape=(None,), dtype="int64")
        self.w = pf.Parameter(rng.normal(size=(3, 4)), name="w")
        self.b = pf.Parameter(np.zeros(4), name="b")
        self.out = pf.Linear(self.x, self.w, self.b, name="out")
        cost = pf.CrossEntropy(self.y, self.out)
        makers = {"sgd": pf.optimizers.SGD, "adam": pf.optimizers.Adam}
        self.plan = pf.compile(cost, makers[optimizer](0.1), outputs=[self.out], **options)
        self.xs = rng.normal(size=(64, 3)).astype(np.float32)
        self.ys = rng.integers(0, 4, 64)

    def feed(self, start=0, stop=8):
        return {self.x: self.xs[start:stop], self.y: self.ys[start:stop]}

    def bits(self):
        return self.w.value.tobytes() + self.b.value.tobytes()


def is_fast(plan, feed):
    """Whether a step with this feed would go unchecked."""
    launcher = plan.engine.step_launcher
    return launcher is not None and launcher.matches(feed)


class Unchecked(dict):
    """A feed that is no plain dict always takes the slow path."""


class Touchy(pf.Node):
    """Passes its input on, and does what it is told to before."""

    action = staticmethod(lambda: None)

    def forward(self, ctx, x):
        type(self).action()
        return x

    def backward(self, ctx, dy):
        return dy


def touchy_plan():
    x = pf.Placeholder("x", shape=(None, 2))
    w = pf.Parameter(np.ones((2, 1)), name="w")

    class Mine(Touchy):
        pass

    plan = pf.compile(pf.Mean(Mine(x @ w)), pf.optimizers.SGD(0.5))
    return plan, {x: np.ones((3, 2), np.float32)}, w, Mine
