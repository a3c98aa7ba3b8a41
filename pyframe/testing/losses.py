"""Checks of losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import pyframe
from pyframe.errors import DTypeError, PyframeError
from pyframe.graph.node import Placeholder, Value
from pyframe.graph.parameter import Parameter
from pyframe.graph.spec import Array, describe
from pyframe.native.threads import num_threads
from pyframe.testing.behaviour import THREADS, close, repeat, same_bits
from pyframe.testing.draw import Draw
from pyframe.testing.runner import Checks, Expected, fail, require, run_checks

FEATURES = 3
MANY = 20_011  # rows: enough for several threads
LARGE = (5462, 2**15 + 1, 43_691)  # rows, compared with a few at a time
FEW = 1000
BUILDS = 150
STEP = 1e-3

# ``draw(d, rows)`` gives target and prediction; `d` is a `Draw`.
Pairs = Callable[[Draw, int], tuple[Array, Array]]


def values(draw: Draw, rows: int) -> tuple[Array, Array]:
    """Return targets within (0, 1) and predictions of any sign, never equal."""
    shape = (rows, FEATURES)
    return draw.uniform(shape), 1.5 * draw.away_from_zero(shape) + 2e-3 * draw.normal(shape)


def classes(draw: Draw, rows: int) -> tuple[Array, Array]:
    """Return labels and logits."""
    return draw.labels((rows,), FEATURES), draw.normal((rows, FEATURES))


def signs(draw: Draw, rows: int) -> tuple[Array, Array]:
    """Return targets of -1 and 1, and predictions."""
    y, y_hat = values(draw, rows)
    return np.where(y < 0.5, -1.0, 1.0), y_hat


def shares(draw: Draw, rows: int) -> tuple[Array, Array]:
    """Return targets that add up to 1 along the last axis, and predictions."""
    y, y_hat = values(draw, rows)
    return (1 + y) / (1 + y).sum(-1, keepdims=True), y_hat


def halves(draw: Draw, rows: int) -> tuple[Array, Array]:
    """Return targets, and predictions with twice as many columns."""
    y, y_hat = values(draw, rows)
    return y, np.concatenate([y_hat, 0.3 * y_hat], axis=1)


# What is drawn for a loss that says what its targets have to be; see `composite`.
DRAWS: dict[str, Pairs] = {"signs": signs, "shares": shares}


def check_loss(
    loss: Callable[..., Any],
    *,
    draw: Pairs | None = None,
    expected_failures: Expected | None = None,
) -> None:
    """Check a loss: its reductions, weights, shapes and gradient, and that it trains.

    Parameters
    ----------
    loss : callable
        A function of (y, y_hat, sample_weight=None, reduction="mean") that gives a node.
    draw : callable, optional
        ``draw(d, rows)`` gives target and prediction, with `rows` rows each; `d` is a `Draw`.
        Default: targets within (0, 1) and any predictions, both (rows, 3); int64 labels (rows,)
        and logits (rows, 3) if the loss takes no floats as its target.
    expected_failures : dict of str to str, optional
        Names of checks that must fail, with the reason. One that passes is an error.

    Raises
    ------
    ConformanceError
        An `AssertionError` whose `kind` says which check failed.

    See Also
    --------
    loss_checks : the checks by name.

    Examples
    --------
    >>> import pyframe as pf
    >>> from pyframe.testing import check_loss
    >>> check_loss(pf.L2Loss)
    """
    run_checks(
        getattr(loss, "__name__", "the loss"), loss_checks(loss, draw=draw), expected_failures
    )


def loss_checks(loss: Callable[..., Any], *, draw: Pairs | None = None) -> Checks:
    """Return the checks of a loss by name.

    - shape: one number with "mean" and "sum", one for each element or row with "none".
    - reduction: sum and mean are those of the losses that "none" gives; unknown reductions are
      refused.
    - weights: the mean is sum(w l) / sum(w); a row of weight 0 has no influence.
    - broadcast: prediction and target of other shapes are refused; (n,) is taken as (n, 1).
    - batch: 0, 1 and 7 rows.
    - gradient: with respect to the prediction, against differences, with and without weights.
    - sizes: each loss, the sum and the gradient of many rows are the same as those of a few.
    - dtype, determinism, threads, leak.
    - training: a `Trainer` fits with it, also with weights, and the loss falls.

    Examples
    --------
    >>> import pyframe as pf
    >>> list(loss_checks(pf.L2Loss))[:2]
    ['shape', 'reduction']
    """
    bench = _Bench(loss, draw)
    checks: Checks = {
        "shape": bench.check_shape,
        "reduction": bench.check_reduction,
        "weights": bench.check_weights,
        "broadcast": bench.check_broadcast,
        "batch": bench.check_batch,
        "gradient": bench.check_gradient,
        "dtype": bench.check_dtype,
        "determinism": bench.check_determinism,
        "threads": bench.check_threads,
        "sizes": bench.check_sizes,
        "training": bench.check_training,
        "leak": bench.check_leak,
    }
    return checks


class Pairing:
    """A function of target and prediction, and the data to try it on."""

    def __init__(self, function: Callable[..., Any], draw: Pairs | None) -> None:
        self.function, self.given = function, draw
        self.what = getattr(function, "__name__", type(function).__name__)

    @property
    def draw(self) -> Pairs:
        """The function that draws target and prediction: floats, unless the loss refuses them."""
        of_domain = DRAWS.get(getattr(self.function, "target_domain", ""))
        if self.given is None and getattr(self.function, "target_shape", None) is not None:
            self.given = halves
        if self.given is None and of_domain is not None:
            self.given = of_domain
        if self.given is None:
            y, y_hat = self._placeholders(*values(Draw(0), 4), "float64")
            try:
                self.function(y, y_hat)
            except DTypeError:
                self.given = classes
            else:
                self.given = values
        assert self.given is not None
        return self.given

    @property
    def takes_labels(self) -> bool:
        """Whether targets are int64."""
        return self.draw(Draw(0), 2)[0].dtype.kind == "i"

    def pair(self, rows: int, dtype: str = "float64", seed: int = 0) -> tuple[Array, Array]:
        """Return target and prediction."""
        y, y_hat = self.draw(Draw(seed), rows)
        return (y.astype(np.int64) if y.dtype.kind == "i" else y.astype(dtype)), y_hat.astype(dtype)

    def _placeholders(self, y: Array, y_hat: Array, dtype: str) -> tuple[Placeholder, Placeholder]:
        kind = "int64" if y.dtype.kind == "i" else dtype
        return (
            Placeholder("y", shape=(None, *y.shape[1:]) if y.ndim else (), dtype=kind),
            Placeholder("y_hat", shape=(None, *y_hat.shape[1:]), dtype=dtype),
        )

    def compute(self, y: Array, y_hat: Array, weight: Array | None = None, **options: Any) -> Array:
        """Return the result of the function for arrays."""
        return self._compiled(y, y_hat, weight, **options)(y, y_hat)

    def _compiled(
        self, y: Array, y_hat: Array, weight: Array | None, **options: Any
    ) -> Callable[[Array, Array], Array]:
        """Return the function for target and prediction like these."""
        dtype = y_hat.dtype.name
        nodes = self._placeholders(y, y_hat, dtype)
        given: dict[Any, Array] = {}
        if weight is not None:
            options["sample_weight"] = Placeholder("weight", shape=(None,), dtype=dtype)
            given[options["sample_weight"]] = weight.astype(dtype)
        node = self.function(*nodes, **options)
        if not isinstance(node, Value):
            fail("shape", self.what, f"it gives {node!r}, which is no node")
        plan = pyframe.compile(node)

        def run(y: Array, y_hat: Array) -> Array:
            with np.errstate(all="ignore"):
                return np.asarray(plan.run({**given, nodes[0]: y, nodes[1]: y_hat}))

        return run

    def check_refused(self, y: Array, y_hat: Array, what: str) -> None:
        """Fail unless these are refused with a `PyframeError`."""
        try:
            got = self.compute(y, y_hat)
        except PyframeError:
            return
        fail(
            "broadcast",
            self.what,
            f"{what} must be refused with a ShapeError: it took the target {describe(y.shape)} "
            f"and the prediction {describe(y_hat.shape)}, and gave {describe(got.shape)}",
        )

    def check_no_broadcast(self) -> None:
        """Fail if target and prediction of other shapes are taken."""
        y, y_hat = self.pair(4)
        if self.takes_labels:
            self.check_refused(y[:, None], y_hat, "labels with an axis too many")
            self.check_refused(y[:3], y_hat, "labels for other rows")
            return
        if y.shape != y_hat.shape or y.ndim != 2 or y.shape[1] < 2:
            return
        self.check_refused(y[:, 0], y_hat, "a flat target for several columns")
        self.check_refused(y[:, :1], y_hat, "a column as the target of several")
        self.check_refused(y[:1], y_hat, "one row as the target of several")
        self.check_refused(y, y_hat[:, :1], "a column as the prediction of several")
        self.check_refused(np.asarray(y[0, 0]), y_hat, "a single number as the target")


def rows_of(losses: Array) -> Array:
    """Return the mean over each row."""
    return np.asarray(losses.reshape(len(losses), -1).mean(axis=1))


class _Bench(Pairing):
    """A loss under test."""

    def require(self, condition: object, kind: str, message: str) -> None:
        require(condition, kind, self.what, message)

    def agree(self, kind: str, got: Array, wanted: Any, message: str) -> None:
        wrong = close(np.asarray(got), np.asarray(wanted, np.float64), 1e-9)
        if wrong:
            fail(kind, self.what, f"{message}: the result {wrong}")

    def check_shape(self) -> None:
        y, y_hat = self.pair(7)
        for reduction in ("mean", "sum"):
            got = self.compute(y, y_hat, reduction=reduction)
            self.require(
                got.shape == (),
                "shape",
                f"with reduction={reduction!r} it gives {describe(got.shape)}; it must give one "
                "number, of shape ()",
            )
        got = self.compute(y, y_hat, reduction="none")
        self.require(
            got.ndim > 0 and len(got) == 7,
            "shape",
            f"with reduction='none' it gives {describe(got.shape)} for 7 rows; the first axis must "
            "be theirs",
        )
        default = self.compute(y, y_hat)
        mean = self.compute(y, y_hat, reduction="mean")
        self.require(same_bits(default, mean), "reduction", "its default is not the mean")

    def check_reduction(self) -> None:
        y, y_hat = self.pair(7)
        each = self.compute(y, y_hat, reduction="none")
        self.agree(
            "reduction",
            self.compute(y, y_hat, reduction="sum"),
            each.sum(),
            "with reduction='sum' it is not the sum of what 'none' gives",
        )
        self.agree(
            "reduction",
            self.compute(y, y_hat, reduction="mean"),
            each.mean(),
            "with reduction='mean' it is not the mean of what 'none' gives",
        )
        try:
            self.compute(y, y_hat, reduction="median")
        except (PyframeError, TypeError, ValueError):
            return
        fail("reduction", self.what, "it takes reduction='median'; refuse what is not known")

    def check_weights(self) -> None:
        y, y_hat = self.pair(7)
        rows = rows_of(self.compute(y, y_hat, reduction="none"))
        w = np.array([0.5, 2.0, 0.0, 1.0, 3.0, 0.25, 1.5])
        self.agree(
            "weights",
            self.compute(y, y_hat, w),
            np.sum(w * rows) / np.sum(w),
            "with sample_weight=w the mean is not sum(w l) / sum(w)",
        )
        self.agree(
            "weights",
            self.compute(y, y_hat, 10 * w),
            np.sum(w * rows) / np.sum(w),
            "ten times the weights change the mean",
        )
        self.agree(
            "weights",
            self.compute(y, y_hat, np.ones(7)),
            rows.mean(),
            "weights of 1 are not the same as none",
        )
        each = self.compute(y, y_hat, reduction="none")
        by_row = w.reshape(-1, *[1] * (each.ndim - 1))
        self.agree(
            "weights",
            self.compute(y, y_hat, w, reduction="sum"),
            np.sum(by_row * each),
            "with weights and reduction='sum' it is not sum(w l)",
        )
        kept = w > 0
        self.agree(
            "weights",
            self.compute(y, y_hat, w),
            self.compute(y[kept], y_hat[kept], w[kept]),
            "a row of weight 0 has a say",
        )

    def check_broadcast(self) -> None:
        self.check_no_broadcast()
        y, y_hat = self.pair(5)
        if self.takes_labels or y.ndim != 2 or y.shape != y_hat.shape:
            return
        try:
            flat = self.compute(y[:, 0], y_hat[:, :1])
        except PyframeError as error:
            fail(
                "broadcast",
                self.what,
                f"a flat target (n,) must count as the column of a prediction (n, 1): {error}",
            )
        self.agree(
            "broadcast",
            flat,
            self.compute(y[:, :1], y_hat[:, :1]),
            "a flat target (n,) does not count as the column of a prediction (n, 1)",
        )

    def check_batch(self) -> None:
        for rows in (0, 1, 7):
            y, y_hat = self.pair(rows)
            each = self.compute(y, y_hat, reduction="none")
            total = self.compute(y, y_hat, reduction="sum")
            self.require(len(each) == rows, "batch", f"{rows} row(s) gave {len(each)} losses")
            self.agree("batch", total, each.sum(), f"the sum over {rows} row(s)")
            mean = self.compute(y, y_hat)
            self.require(
                mean.shape == () and (rows == 0 or bool(np.isfinite(mean))),
                "batch",
                f"the mean over {rows} row(s) is {mean!r}",
            )

    def check_gradient(self) -> None:
        for seed, (weighted, reduction) in enumerate(
            [(False, "mean"), (True, "mean"), (True, "sum"), (False, "none")]
        ):
            self._check_gradient(seed, weighted, reduction)

    def _check_gradient(self, seed: int, weighted: bool, reduction: str) -> None:
        y, y_hat = self.pair(5, seed=seed)
        weight = np.array([0.5, 2.0, 1.0, 0.25, 3.0]) if weighted else None
        options: dict[str, Any] = {"reduction": reduction}
        if weight is not None:
            options["sample_weight"] = pyframe.Constant(weight, dtype="float64")
        target = pyframe.Constant(y, dtype=y.dtype)
        prediction = Parameter(y_hat, "y_hat", dtype="float64")
        cost = self.function(target, prediction, **options)
        if reduction == "none":
            cost = pyframe.Sum(cost)
        _, found = pyframe.compile(cost).loss_and_gradients({})
        got = found[prediction]

        function = self._compiled(y, y_hat, weight, reduction=reduction)

        def at(flat: int, t: float) -> float:
            moved = y_hat.copy()
            moved.flat[flat] += t
            return float(function(y, moved).sum())

        for flat in range(y_hat.size):
            near, far = (at(flat, STEP), at(flat, -STEP)), (at(flat, 2 * STEP), at(flat, -2 * STEP))
            slope = (8 * (near[0] - near[1]) - (far[0] - far[1])) / (12 * STEP)
            size = max(1.0, abs(slope), *map(abs, near))
            index = [int(i) for i in np.unravel_index(flat, y_hat.shape)]
            self.require(
                abs(float(got.flat[flat]) - slope) <= 1e-7 * size,
                "gradient",
                f"its gradient by the prediction at {index} is {float(got.flat[flat])!r}, and the "
                f"difference says {slope!r} (reduction={reduction!r}, weighted={weighted})",
            )

    def check_dtype(self) -> None:
        y, y_hat = self.pair(7, "float32")
        got = self.compute(y, y_hat)
        self.require(got.dtype == np.float32, "dtype", f"float32 gave {got.dtype}")
        y64 = y if y.dtype.kind == "i" else y.astype(np.float64)
        wanted = self.compute(y64, y_hat.astype(np.float64))
        self.require(wanted.dtype == np.float64, "dtype", f"float64 gave {wanted.dtype}")
        wrong = close(got, wanted, 1e-4)
        if wrong:
            fail("dtype", self.what, f"in float32 the result {wrong} as in float64")

    def check_determinism(self) -> None:
        y, y_hat = self.pair(33, "float32")
        self.require(
            same_bits(self.compute(y, y_hat), self.compute(y, y_hat)),
            "determinism",
            "the same arrays give other bits the second time",
        )

    def check_threads(self) -> None:
        y, y_hat = self.pair(MANY, "float32")
        results = {}
        for count in THREADS:
            with num_threads(count):
                results[count] = self.compute(y, y_hat)
        for count in THREADS[1:]:
            self.require(
                same_bits(results[1], results[count]),
                "threads",
                f"{count} threads give other bits than one, on {MANY} rows",
            )

    def check_sizes(self) -> None:
        for rows, reduction in zip(LARGE, ("none", "sum", "mean"), strict=True):
            y, y_hat = self.pair(rows)
            weight = Draw(1).uniform((rows,)) if reduction == "mean" else None
            got, slope = self._with_gradient(y, y_hat, weight, reduction)(0, rows)
            kind = "none" if reduction == "none" else "sum"
            by_few = self._with_gradient(y, y_hat, weight, kind)
            few = [by_few(i, min(i + FEW, rows)) for i in range(0, rows, FEW)]
            slopes = np.concatenate([slope for _, slope in few])
            wanted = np.asarray(np.sum([loss for loss, _ in few]) if reduction != "none" else 0.0)
            if reduction == "none":
                wanted = np.concatenate([loss for loss, _ in few])
            elif weight is not None:  # 'mean' is 'sum' divided by the weights of all elements
                of_a_row = self.compute(y[:2], y_hat[:2], reduction="none").size // 2
                total = float(np.sum(weight)) * of_a_row
                wanted, slopes = wanted / total, slopes / total
            how = f"of {rows} rows with reduction={reduction!r}, against {FEW} rows at a time"
            for name, one, other in (("loss", got, wanted), ("gradient", slope, slopes)):
                scale = float(np.abs(other).max(initial=1e-300))
                self.agree("sizes", one / scale, other / scale, f"the {name} {how}")

    def _with_gradient(
        self, y: Array, y_hat: Array, weight: Array | None, reduction: str
    ) -> Callable[[int, int], tuple[Array, Array]]:
        """Return a function of the first row and the one behind the last, which gives the loss of
        these rows, and the gradient of its sum with respect to the prediction."""
        made: dict[int, Any] = {}

        def make(rows: int) -> Any:
            options: dict[str, Any] = {"reduction": reduction}
            target, _ = self._placeholders(y, y_hat, "float64")
            if weight is not None:
                options["sample_weight"] = Placeholder("weight", shape=(None,), dtype="float64")
            prediction = Parameter(y_hat[:rows], "y_hat", dtype="float64")
            loss = self.function(target, prediction, **options)
            cost = pyframe.Sum(loss) if reduction == "none" else loss
            plan = pyframe.compile(cost, outputs=[loss])
            return target, options.get("sample_weight"), prediction, loss, plan

        def of_rows(start: int, stop: int) -> tuple[Array, Array]:
            if stop - start not in made:
                made[stop - start] = make(stop - start)
            target, weights, prediction, loss, plan = made[stop - start]
            prediction.value = y_hat[start:stop]
            feed = {target: y[start:stop]}
            if weight is not None:
                feed[weights] = weight[start:stop]
            _, found = plan.loss_and_gradients(feed)
            return np.asarray(plan.run(feed, outputs=loss)), np.asarray(found[prediction]).copy()

        return of_rows

    def check_training(self) -> None:
        pyframe.set_seed(0)
        y, y_hat = self.pair(21)
        x = np.random.default_rng(0).normal(size=(*y_hat.shape[:-1], 4))
        weight = np.linspace(0.5, 2.0, 21)
        for weights in (None, weight):
            model = pyframe.Sequential([pyframe.layers.Dense(y_hat.shape[-1])])
            trainer = pyframe.Trainer(model, self.function, pyframe.optimizers.Adam(0.03))
            history = trainer.fit(x, y, 30, 8, sample_weight=weights, verbose=0)
            first, last = history["loss"][0], history["loss"][-1]
            self.require(
                last < first,
                "training",
                f"thirty epochs of Adam on a linear model brought it from {first:.6g} to "
                f"{last:.6g} (sample weights: {weights is not None})",
            )
            evaluated = trainer.evaluate(x, y, sample_weight=weights)["loss"]
            in_parts = trainer.evaluate(x, y, 5, sample_weight=weights)["loss"]
            self.require(
                abs(evaluated - in_parts) <= 1e-5 * max(1.0, abs(evaluated)),
                "training",
                f"evaluated in batches of 5 it is {in_parts!r}, and {evaluated!r} at once",
            )

    def check_leak(self) -> None:
        y, y_hat = self.pair(4)
        nodes = self._placeholders(y, y_hat, "float64")
        shapes = [(n.shape, n.dtype) for n in nodes]

        def build() -> None:
            self.function(*(Placeholder(shape=s, dtype=d) for s, d in shapes))

        repeat(self.what, build, BUILDS)
