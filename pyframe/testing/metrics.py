"""Checks of metrics."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

import pyframe
from pyframe.graph.node import Placeholder
from pyframe.graph.spec import Array, describe
from pyframe.metrics import WholeEpoch
from pyframe.native.threads import num_threads
from pyframe.ops.class_metrics import BinaryAccuracy, BinaryConfusionMatrix
from pyframe.testing.behaviour import THREADS, close, repeat, same_bits
from pyframe.testing.draw import Draw
from pyframe.testing.losses import BUILDS, MANY, Pairing, Pairs
from pyframe.testing.runner import Checks, Expected, fail, require, run_checks


def check_metric(
    metric: Callable[..., Any],
    *,
    draw: Pairs | None = None,
    expected_failures: Expected | None = None,
) -> None:
    """Check a metric: that its sums add up over batches, and the result computed from them.

    Parameters
    ----------
    metric : callable
        A function of (y, y_hat) that gives a node whose output is a vector of float64 sums, and
        whose ``finalize(sums)`` computes the metric.
    draw : callable, optional
        The same as for `check_loss`.
    expected_failures : dict of str to str, optional
        Names of checks that must fail, with the reason. One that passes is an error.

    Raises
    ------
    ConformanceError
        An `AssertionError` whose `kind` says which check failed.

    See Also
    --------
    metric_checks : the checks by name.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe.testing import check_metric
    >>> check_metric(pf.metrics.get("mae"))
    """
    what = getattr(metric, "__name__", "the metric")
    run_checks(what, metric_checks(metric, draw=draw), expected_failures)


def metric_checks(metric: Callable[..., Any], *, draw: Pairs | None = None) -> Checks:
    """Return the checks of a metric by name.

    - shape: a vector of float64, of one length for any number of rows, and `finalize`.
    - direction: `higher_is_better` says which way is better, unless the metric is not a number.
    - additive: the sums over parts of the data add up to those over all, or to equivalent ones; for
      no rows they are 0.
    - broadcast: prediction and target of other shapes are refused.
    - dtype, threads, determinism, leak.
    - training: `Trainer.evaluate` gives the same in batches and at once.

    Of a `pyframe.metrics.WholeEpoch`: shape (one number for classes and probabilities), direction,
    additive (the order of the rows is of no matter, a weight of 2 counts as a row twice) and
    training.

    Examples
    --------
    >>> import pyframe as pf
    >>> list(metric_checks(pf.Mae))[:2]
    ['shape', 'direction']
    """
    if isinstance(metric, WholeEpoch):
        return _whole_checks(metric)
    bench = _Bench(metric, draw)
    checks: Checks = {
        "shape": bench.check_shape,
        "direction": bench.check_direction,
        "additive": bench.check_additive,
        "broadcast": bench.check_no_broadcast,
        "dtype": bench.check_dtype,
        "determinism": bench.check_determinism,
        "threads": bench.check_threads,
        "training": bench.check_training,
        "leak": bench.check_leak,
    }
    return checks


def _whole_checks(metric: WholeEpoch) -> Checks:
    """Return the checks of a metric of whole epochs, on classes 0 and 1 and probabilities."""
    what = metric.__name__
    y = np.array([0, 1, 1, 0, 1, 0, 0, 1])
    p = np.array([0.1, 0.8, 0.8, 0.8, 0.3, 0.3, 0.2, 0.6])
    made = (p > 0.5).astype(np.int64) if metric.on == "labels" else p

    def check_shape() -> None:
        require(np.isfinite(metric(y, made)), "shape", what, "it gives no number for 0 and 1")

    def check_direction() -> None:
        right = y.astype(made.dtype)
        better = metric(y, right) - metric(y, 1 - right)
        said = metric.higher_is_better
        require(
            said is None or (better > 0) == said,
            "direction",
            what,
            f"higher_is_better is {said}, and right answers change it by {better!r}",
        )

    def check_additive() -> None:
        back = metric(y[::-1], made[::-1])
        require(np.isclose(back, metric(y, made)), "additive", what, "the order of rows matters")
        weight = np.array([1.0, 2, 1, 1, 2, 1, 1, 1])
        twice = metric(np.repeat(y, weight.astype(int)), np.repeat(made, weight.astype(int)))
        ignores = metric(y, made, np.array([9.0, *[1] * 7])) == metric(y, made)
        require(
            ignores or np.isclose(metric(y, made, weight), twice),
            "additive",
            what,
            "a row of weight 2 does not count as two rows",
        )

    def check_training() -> None:
        model = pyframe.Sequential([pyframe.layers.Dense(1)])
        trainer = pyframe.Trainer(model, "binary_cross_entropy", metrics=[metric])
        x = Draw(0).normal((len(y), 3))
        whole, parts = (trainer.evaluate(x, y, size)[metric.op] for size in (None, 3))
        require(whole == parts, "training", what, f"evaluate gives {whole}, in batches {parts}")

    return {
        "shape": check_shape,
        "direction": check_direction,
        "additive": check_additive,
        "training": check_training,
    }


class _Bench(Pairing):
    """A metric under test."""

    def require(self, condition: object, kind: str, message: str) -> None:
        require(condition, kind, self.what, message)

    def node(self) -> Any:
        y, y_hat = self.pair(4)
        return self.function(*self._placeholders(y, y_hat, "float64")).node

    def check_shape(self) -> None:
        node = self.node()
        self.require(
            callable(getattr(node, "finalize", None)),
            "shape",
            f"its node {node!r} has no finalize(sums), which says what the sums mean; derive it "
            "from pyframe.ops.metrics.Metric",
        )
        lengths = set()
        for rows in (0, 1, 7):
            got = self.compute(*self.pair(rows))
            self.require(
                got.ndim == 1, "shape", f"it gives {describe(got.shape)}; a vector of sums is due"
            )
            self.require(got.dtype == np.float64, "dtype", f"its sums are {got.dtype}, not float64")
            lengths.add(len(got))
        self.require(
            lengths == {(node.shape or (None,))[0]},
            "shape",
            f"the node states {describe(node.shape)}, and vectors of {sorted(lengths)} came",
        )
        sums = self.compute(*self.pair(7))
        value = np.asarray(node.finalize(sums.tolist()), np.float64)
        finite = bool(np.isfinite(value).all())
        self.require(finite, "shape", f"finalize({sums.tolist()}) gives {value!r}")
        every = getattr(node, "finalize_all", None)
        if every is not None:
            together = every(np.stack([sums, sums]))
            same = np.array_equal(np.asarray(together[1], np.float64), value)
            self.require(same, "shape", "finalize_all gives something else than finalize")

    def check_direction(self) -> None:
        node = self.node()
        value = node.finalize(self.compute(*self.pair(7)).tolist())
        declared = pyframe.metrics.higher_is_better(self.function, node)
        self.require(
            np.ndim(value) > 0 or declared is True or declared is False,
            "direction",
            f"its node has higher_is_better={declared!r}, and its value is a number: say True or "
            "False, there or on the function, so that EarlyStopping and ModelCheckpoint know what "
            "is better",
        )

    def check_additive(self) -> None:
        y, y_hat = self.pair(11)
        whole, finalize = self.compute(y, y_hat), self.node().finalize
        for cuts in ((0, 4, 11), (0, 1, 2, 11), (0, 0, 11)):
            parts = [self.compute(y[a:b], y_hat[a:b]) for a, b in itertools.pairwise(cuts)]
            added = np.sum(parts, axis=0)
            wrong = close(added, whole, 1e-12)
            # Sums of many digits are given in parts, which may be divided differently.
            if wrong and close(np.asarray(finalize(added)), np.asarray(finalize(whole)), 1e-12):
                fail(
                    "additive",
                    self.what,
                    f"its sums over rows {cuts} add up to something else than over all 11: a sum "
                    f"{wrong}; give sums and counts, and divide in finalize",
                )
        empty = self.compute(*self.pair(0))
        self.require(not empty.any(), "additive", f"no rows give {empty.tolist()}, not zeros")

    def check_dtype(self) -> None:
        y, y_hat = self.pair(11, "float32")
        wide = y if y.dtype.kind == "i" else y.astype(np.float64)
        got, wanted = self.compute(y, y_hat), self.compute(wide, y_hat.astype(np.float64))
        wrong = close(got, wanted, 1e-5)
        if wrong:
            fail("dtype", self.what, f"for float32 a sum {wrong} as for float64")

    def check_determinism(self) -> None:
        y, y_hat = self.pair(33, "float32")
        same = same_bits(self.compute(y, y_hat), self.compute(y, y_hat))
        self.require(same, "determinism", "the same arrays give other bits the second time")

    def check_threads(self) -> None:
        y, y_hat = self.pair(MANY, "float32")
        results: dict[int, Array] = {}
        for count in THREADS:
            with num_threads(count):
                results[count] = self.compute(y, y_hat)
        for count in THREADS[1:]:
            self.require(
                same_bits(results[1], results[count]),
                "threads",
                f"{count} threads give other bits than one, on {MANY} rows",
            )

    def check_training(self) -> None:
        y, y_hat = self.pair(21, "float32")
        model = pyframe.Sequential([pyframe.layers.Dense(y_hat.shape[-1])])
        x = np.random.default_rng(0).normal(size=(21, 4))
        loss: Any = "cross_entropy" if self.takes_labels else "l2"
        if isinstance(
            self.node(), BinaryAccuracy | BinaryConfusionMatrix
        ):  # it takes probabilities
            loss, y = "binary_cross_entropy", np.clip(y, 0, 1)
        trainer = pyframe.Trainer(model, loss, metrics=[self.function])
        history = trainer.fit(x, y, 2, 8, verbose=0)
        (key,) = [key for key in history if key != "loss"]
        at_once = np.asarray(trainer.evaluate(x, y)[key], np.float64)
        in_parts = np.asarray(trainer.evaluate(x, y, 5)[key], np.float64)
        wrong = close(in_parts, at_once, 1e-6)
        if wrong:
            fail("training", self.what, f"evaluated in batches of 5 it {wrong} as at once")

    def check_leak(self) -> None:
        y, y_hat = self.pair(4)
        shapes = [(n.shape, n.dtype) for n in self._placeholders(y, y_hat, "float64")]

        def build() -> None:
            self.function(*(Placeholder(shape=s, dtype=d) for s, d in shapes))

        repeat(self.what, build, BUILDS)
