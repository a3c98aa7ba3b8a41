"""Tests of the kit: each check is shown a part that breaks its rule, and must say so."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from typing import Any, ClassVar

import numpy as np
import pytest
from broken_parts import (
    ByThreads,
    Centered,
    Coarse,
    Collector,
    Counting,
    DividesByRows,
    EachByItself,
    Fine,
    FixedRows,
    FlippedSign,
    Forgetful,
    ForgottenFactor,
    Hidden,
    Hoarder,
    Idle,
    KeepsAnother,
    KeepsOnClass,
    KeepsOnSelf,
    LosesHalf,
    LosesPair,
    Lottery,
    Misnamed,
    Nameless,
    Needy,
    NewParameters,
    NoGradient,
    OffABit,
    Overwrites,
    Restless,
    Secret,
    Undocumented,
    Unspeakable,
    WrongShapeNode,
    of_node,
)

import pyframe as pf
from pyframe.testing import (
    ConformanceError,
    check_layer,
    check_plugin,
    conformance,
    layer_checks,
    loss_checks,
    metric_checks,
    node_checks,
    op_checks,
)
from pyframe.testing.runner import checked, run_checks

pytestmark = pytest.mark.once

ROWS = [((4, 3), {})]


def caught(checks: dict[str, Any], name: str, what: str = "it") -> ConformanceError:
    """Return what a check raises."""
    with pytest.raises(ConformanceError) as found, np.errstate(all="ignore"):
        checked(what, name, checks[name])()
    return found.value


ARGUMENTS = {
    KeepsAnother: [((4, 3), {"factor": 4.0})],
    LosesHalf: [((4, 3), {"factor": 4.0})],
    LosesPair: [((4, 3), {"pair": (4.0, 1.0)})],
}


@pytest.mark.parametrize(
    ("layer_class", "check", "kind", "message"),
    [
        (Undocumented, "declaration", "declaration", "docstring"),
        (Nameless, "declaration", "declaration", "takes no name"),
        (Forgetful, "config", "config", "factor"),
        (KeepsAnother, "config", "config", "factor"),
        (LosesHalf, "config", "config", "self.factor"),
        (LosesPair, "config", "config", "something else"),
        (Unspeakable, "config", "config", "JSON"),
        (NewParameters, "parameters", "parameters", "build"),
        (Hidden, "parameters", "parameters", "add_parameter"),
        (Idle, "parameters", "parameters", "does not depend on it"),
        (Misnamed, "parameters", "parameters", "not named after"),
        (of_node(WrongShapeNode), "shape", "shape", ""),
        (FixedRows, "shape", "batch", "row"),
        (Centered, "batch", "batch", "neighbours"),
        (Counting, "model", "model", "Sequential"),
        (LosesHalf, "save", "save", "calling the layer anew"),
        (Hidden, "save", "save", "new ones"),
        (of_node(Coarse), "dtype", "dtype", "float32"),
        (Lottery, "determinism", "determinism", "numpy.random"),
        (of_node(Restless), "determinism", "determinism", "two runs"),
        (of_node(ByThreads), "threads", "threads", "threads"),
        (of_node(FlippedSign), "gradient", "gradient", "input 0"),
        (of_node(KeepsOnSelf), "purity", "purity", "self.x"),
        (of_node(KeepsOnClass), "purity", "purity", "with another one in the same graph"),
        (of_node(lambda x: Secret(x, 0.5)), "modes", "modes", "uses_random"),
        (of_node(Overwrites), "determinism", "input", "changes its input"),
        (of_node(DividesByRows), "training", "training", "1 row"),
        (Collector, "leak", "leak", "Collector"),
        (of_node(Hoarder), "leak", "leak", "bytes"),
    ],
)
def test_a_broken_layer_is_caught(layer_class, check, kind, message) -> None:
    cases = ARGUMENTS.get(layer_class, ROWS)
    error = caught(layer_checks(layer_class, cases), check)
    assert error.kind == kind and message in str(error), str(error)


def test_a_layer_that_is_fine_passes() -> None:
    for check in layer_checks(Fine).values():
        check()


def test_a_layer_that_needs_arguments_asks_for_cases() -> None:
    error = caught(layer_checks(Needy), "declaration")
    assert error.kind == "declaration" and "cases=" in str(error)


def test_a_layer_that_takes_no_usual_shape_asks_for_cases() -> None:
    class Picky(Fine):
        """Takes twelve features."""

        def build(self, *specs):
            if specs[0].shape[-1] != 12:
                raise pf.ShapeError("twelve")

    assert "usual shapes" in str(caught(layer_checks(Picky), "declaration"))
    layer_checks(Picky, [((2, 12), {})])["declaration"]()


@pytest.mark.parametrize("node", [FlippedSign, ForgottenFactor, NoGradient, OffABit])
def test_a_wrong_gradient_is_caught(node) -> None:
    assert caught(node_checks(node), "gradient").kind == "gradient"


def test_a_wrong_gradient_of_a_parameter_is_caught() -> None:
    class Product(pf.Node):
        """x w, whose gradient forgets a row of the sum."""

        def forward(self, ctx, x, w):
            return x * w

        def backward(self, ctx, dy):
            x, w = ctx.inputs
            return dy * w, np.sum((dy * x)[1:], axis=0)

    class Scaled(Fine):
        """A weight for each feature."""

        def build(self, *specs):
            self.w = self.add_parameter("w", (3,), 1.0, dtype=specs[0].dtype)

        def call(self, *inputs):
            return Product(inputs[0], self.w)

    error = caught(layer_checks(Scaled, ROWS), "gradient")
    assert error.kind == "gradient" and "w" in str(error)


@pytest.mark.parametrize(
    ("node", "check", "kind"),
    [
        (WrongShapeNode, "shape", "shape"),
        (Restless, "determinism", "determinism"),
        (ByThreads, "threads", "threads"),
        (KeepsOnSelf, "purity", "purity"),
        (KeepsOnClass, "purity", "purity"),
        (Coarse, "dtype", "dtype"),
        (Hoarder, "leak", "leak"),
    ],
)
def test_a_broken_node_is_caught(node, check, kind) -> None:
    assert caught(node_checks(node), check).kind == kind


class Forgetting(pf.Node):
    """c x, of which a copy forgets c."""

    c = 1.0

    def __init__(self, x):
        self.c = 3.0
        super().__init__(x)

    def __getstate__(self):
        own, slots = super().__getstate__()
        return {key: value for key, value in own.items() if key != "c"}, slots

    def forward(self, ctx, x):
        return x * x.dtype.type(self.c)


class ForgettingLayer(pf.layers.Layer):
    """c x, of which a copy forgets c."""

    def call(self, *inputs):
        return Forgetting(inputs[0])


def test_what_a_copy_would_lose_is_caught() -> None:
    for checks in (node_checks(Forgetting), layer_checks(ForgettingLayer)):
        error = caught(checks, "copy")
        assert error.kind == "copy" and "copied as made" in str(error)


def test_a_node_whose_arguments_would_be_lost_is_caught() -> None:
    class Scaled(pf.Node):
        """c x"""

        def __init__(self, x, c=2.0):
            self.c = c
            super().__init__(x)

        def forward(self, ctx, x):
            return x * x.dtype.type(self.c)

    error = caught(node_checks(Scaled, [((4, 3), {"c": 3.0})]), "save")
    assert error.kind == "save" and "config()" in str(error)


# ---- ops ----


@pytest.mark.parametrize("op_class", [Secret, EachByItself])
def test_a_dishonest_op_is_caught(op_class) -> None:
    assert caught(op_checks(op_class, shapes=20), "capability").kind == "capability"


def test_an_op_without_reference_is_caught() -> None:
    class Bare(pf.Op):
        """Has nothing."""

        op = "bare"

    assert caught(op_checks(Bare), "declaration").kind == "declaration"


# ---- losses and metrics ----


def scaled(factor: float = 1.0, **fixed: Any):
    """Return a loss that does not do what it is told."""

    def loss(y, y_hat, sample_weight=None, reduction="mean"):
        options = {"sample_weight": sample_weight, "reduction": reduction} | fixed
        return factor * pf.L2Loss(y, y_hat, **options)

    return loss


def broadcasting(y, y_hat, sample_weight=None, reduction="mean"):
    """Lets NumPy's rules decide."""
    each = pf.Square(y - y_hat)
    if sample_weight is not None:
        each = pf.Reshape(sample_weight, (-1, 1)) * each
    return {"mean": pf.Mean, "sum": pf.Sum, "none": lambda x: x}[reduction](each)


def unweighted(y, y_hat, sample_weight=None, reduction="mean"):
    """Divides by the number of rows, whatever their weights."""
    each = pf.L2Loss(y, y_hat, sample_weight, reduction="none")
    return {"mean": pf.Mean, "sum": pf.Sum, "none": lambda x: x}[reduction](each)


def any_reduction(y, y_hat, sample_weight=None, reduction="mean"):
    """Takes any word for the mean."""
    known = reduction if reduction in ("sum", "none") else "mean"
    return pf.L2Loss(y, y_hat, sample_weight, reduction=known)


def rising(y, y_hat, sample_weight=None, reduction="mean"):
    """Is less the worse the prediction is."""
    return -1.0 * pf.L1Loss(y, y_hat, sample_weight, reduction=reduction)


def through(node):
    """Return a loss that passes the prediction through a node."""

    def loss(y, y_hat, sample_weight=None, reduction="mean"):
        return pf.L2Loss(y, node(y_hat), sample_weight, reduction=reduction)

    return loss


HELD: list[Any] = []


def holding(y, y_hat, sample_weight=None, reduction="mean"):
    """Keeps its nodes for ever."""
    HELD.append(pf.L2Loss(y, y_hat, sample_weight, reduction=reduction))
    return HELD[-1]


@pytest.mark.parametrize(
    ("loss", "check", "kind"),
    [
        (scaled(reduction="none"), "shape", "shape"),
        (scaled(reduction="mean"), "shape", "shape"),
        (any_reduction, "reduction", "reduction"),
        (unweighted, "weights", "weights"),
        (scaled(sample_weight=None), "weights", "weights"),
        (broadcasting, "broadcast", "broadcast"),
        (through(FlippedSign), "gradient", "gradient"),
        (through(OffABit), "gradient", "gradient"),
        (through(Coarse), "dtype", "dtype"),
        (through(Restless), "determinism", "determinism"),
        (through(ByThreads), "threads", "threads"),
        (through(FlippedSign), "training", "training"),
        (holding, "leak", "leak"),
    ],
)
def test_a_broken_loss_is_caught(loss, check, kind) -> None:
    error = caught(loss_checks(loss), check)
    assert error.kind == kind, str(error)


def test_a_loss_that_cannot_take_no_rows_is_caught() -> None:
    class NeedsRows(pf.Node):
        """Looks at the first row."""

        def forward(self, ctx, x):
            return x + 0 * x[0]

    assert caught(loss_checks(through(NeedsRows)), "batch").kind == "batch"


class MeanOfBatch(pf.Node):
    """A mean, where sums are due."""

    scale: ClassVar[Any] = 1.0
    higher_is_better: ClassVar[Any] = False

    def infer(self, *specs):
        return type(specs[0])((2,), np.dtype(np.float64))

    def forward(self, ctx, y, y_hat):
        error = np.abs(y.astype(np.float64) - y_hat)
        return np.array([error.mean() if error.size else 0.0, 1.0])

    def finalize(self, sums):
        return sums[0] / sums[1]


class SumOfErrors(MeanOfBatch):
    """Sums without saying what they mean."""

    finalize = None


class WithoutDirection(MeanOfBatch):
    """Does not say which way is better."""

    higher_is_better = None


class ByThreadsToo(MeanOfBatch):
    """Depends on the number of threads."""

    def forward(self, ctx, y, y_hat):
        return np.array([float(pf.get_num_threads()), 1.0])


class NewEachTime(MeanOfBatch):
    """Counts its runs."""

    runs: ClassVar = itertools.count()

    def forward(self, ctx, y, y_hat):
        return np.array([float(next(self.runs)), 1.0])


class ByDtype(MeanOfBatch):
    """Sees another thing in float32."""

    def forward(self, ctx, y, y_hat):
        return np.array([float(y_hat.itemsize), 1.0])


@pytest.mark.parametrize(
    ("metric", "check", "kind"),
    [
        (SumOfErrors, "shape", "shape"),
        (WithoutDirection, "direction", "direction"),
        (MeanOfBatch, "additive", "additive"),
        (MeanOfBatch, "broadcast", "broadcast"),
        (MeanOfBatch, "training", "training"),
        (ByThreadsToo, "threads", "threads"),
        (NewEachTime, "determinism", "determinism"),
        (ByDtype, "dtype", "dtype"),
        (lambda y, y_hat: HELD.append(m := pf.metrics.get("mae")(y, y_hat)) or m, "leak", "leak"),
    ],
)
def test_a_broken_metric_is_caught(metric, check, kind) -> None:
    error = caught(metric_checks(metric), check)
    assert error.kind == kind, str(error)


# ---- several faults at once ----


class Nothing(pf.Op):
    """Names no kernel."""

    op, kernel = "nothing", None

    def infer_shape(self, *shapes):
        return shapes[0]


class Several:
    """A plugin of which one thing states what makes no sense, one fails twice, and one is fine."""

    @pf.hookimpl
    def pyframe_register_ops(self):
        return {"nothing": Nothing}

    @pf.hookimpl
    def pyframe_register_layers(self):
        return {"fine": Fine, "forgetful": Forgetful}

    @pf.hookimpl
    def pyframe_register_optimizers(self):
        return {"unnamed": Unnamed}


class Unnamed(pf.optimizers.Optimizer):
    name = "Two words"
    slots = {"mean": "long"}

    def update(self, parameters, gradients, slots, *, step, learning_rate):
        parameters -= learning_rate * gradients


def test_one_failed_declaration_hides_no_other_check() -> None:
    plugin = Several()
    pf.plugins.register(plugin, "several")
    try:
        with pytest.raises(ConformanceError) as found:
            check_plugin(plugin)
        cases = {case.id: case.values[0] for case in conformance(plugin)}
    finally:
        pf.plugins.unregister(plugin)
    said = str(found.value)
    assert "ops.nothing: AttributeError" in said
    for name in ("ops.nothing:declaration", "layers.forgetful:config", "optimizers.unnamed:decl"):
        assert name in said, said
    assert "layers.fine" not in said
    assert "has no attribute 'factor'" in said
    assert "no docstring of its own; its name 'Two words'" in said and "'mean': 'long'" in said
    cases["layers.fine:gradient"]()
    with pytest.raises(ConformanceError, match=r"ops\.nothing.*came out of what it declares"):
        cases["ops.nothing:declaration"]()


def test_what_several_checks_say_is_said_once() -> None:
    with pytest.raises(ConformanceError) as found:
        check_layer(Needy)
    assert str(found.value).count("made without arguments") == 1
    assert "checks say so: declaration, config, " in str(found.value)


def test_an_op_says_all_that_is_missing_in_its_declaration() -> None:
    class Bare(pf.Op):
        op = "other"

    said = str(caught(op_checks(Bare), "declaration"))
    for part in ("'other' is not", "no docstring", "no reference()", "no sample()", "gradient()"):
        assert part in said, said


def test_what_exits_fails_its_check_alone() -> None:
    class Exits(pf.Node):
        """Ends the process."""

        def forward(self, ctx, x):
            raise SystemExit(3)

    error = caught(node_checks(Exits), "shape", "Exits")
    assert error.kind == "shape" and "Exits: SystemExit came out of it: 3" in str(error)


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such signals")
def test_an_exit_by_a_signal_ends_the_checks() -> None:
    def stop(number, frame):
        raise SystemExit(7)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(SystemExit, match="7"):
            checked("it", "one", lambda: os.kill(os.getpid(), signal.SIGTERM))()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_after_a_call_that_does_not_return_the_thing_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYFRAME_TESTING_IN_PROCESS", "1")  # where `begun` is
    begun = []

    def hangs() -> None:
        raise ConformanceError("hang", "the kernel did not return")

    checks = {"a:one": hangs, "a:two": lambda: begun.append("a"), "b:one": lambda: begun.append(1)}
    with pytest.raises(ConformanceError, match="did not return"):
        run_checks("it", checks)
    assert begun == [1]


@pytest.fixture(autouse=True)
def _let_go():
    yield
    for held in (HELD, Collector.made, Hoarder.kept):
        held.clear()
