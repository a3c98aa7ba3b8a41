"""Tests of the tests: a fault planted in a kernel or a gradient must turn the derived tests red."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import mutants
import numpy as np
import pytest
import test_accumulation
import test_callbacks
import test_changed_gradients
import test_optimizers

import pyframe as pf
from pyframe.engine import emission
from pyframe.graph.node import Value
from pyframe.native import core
from pyframe.plugins import registry
from pyframe.testing import (
    ConformanceError,
    check_attributes,
    check_bad_calls,
    check_forward,
    check_gradients,
    check_zero_extents,
    layer_checks,
)

# That the checks see a fault is of the checks, whichever set the kernel is compiled for.
pytestmark = [pytest.mark.sweep, pytest.mark.once]


class Fault(NamedTuple):
    """A piece of a file and what becomes of it, and the op in whose tests it must show."""

    name: str
    file: str
    old: str
    new: str
    op: str
    kinds: tuple[str, ...] = ("value",)


FAULTS = [
    # activations.c
    Fault(
        "a flipped sign",
        "activations.c",
        "PF_MAP_GRAD(sigmoid_grad, slope, slope *dy)",
        "PF_MAP_GRAD(sigmoid_grad, slope, -slope *dy)",
        "sigmoid_grad",
    ),
    Fault(
        "a dropped factor",
        "activations.c",
        "PF_MAP_GRAD(sigmoid_grad, slope, slope *dy)",
        "PF_MAP_GRAD(sigmoid_grad, slope, slope)",
        "sigmoid_grad",
    ),
    Fault(
        "a result a millionth off",
        "activations.c",
        "ys[at + i] = both.value;",
        "ys[at + i] = both.value * R(1.000001);",
        "sigmoid",
    ),
    Fault(
        "a derivative of which a term is lost",
        "activations.c",
        "zs[i] = (real)r_##name##_slope(x))",
        "zs[i] = (real)r_##name##_slope(x) - x * R(1e-4))",
        "gelu",
    ),
    Fault(
        "the last element left out",
        "activations.c",
        "i < n; i++) y[i] = x[i] > 0 ? x[i] : slope * x[i];",
        "i < n - 1; i++) y[i] = x[i] > 0 ? x[i] : slope * x[i];",
        "leaky_relu",
        ("unwritten",),
    ),
    Fault(
        "one element too many",
        "activations.c",
        "i < n; i++) y[i] = x[i] > 0 ? x[i] : slope * x[i];",
        "i <= n; i++) y[i] = x[i] > 0 ? x[i] : slope * x[i];",
        "leaky_relu",
        ("guard",),
    ),
    Fault(
        "added to what was there",
        "activations.c",
        "i++) y[i] = x[i] > 0 ? x[i] : slope * x[i];",
        "i++) y[i] += x[i] > 0 ? x[i] : slope * x[i];",
        "leaky_relu",
        ("unwritten",),
    ),
    Fault(
        "an input that is overwritten",
        "activations.c",
        "i++) dx[i] = x[i] > 0 ? dy[i] : slope * dy[i];",
        "i++) dx[i] = x[i] > 0 ? dy[i] : (((real *)x)[i] = 0, slope * dy[i]);",
        "leaky_relu_grad",
        ("input",),
    ),
    # linear.c and gemm.c
    Fault(
        "a forgotten bias",
        "linear.c",
        "g.bias = bias;",
        "g.bias = NULL;",
        "linear",
    ),
    Fault(
        "a bias of the wrong sign",
        "linear.c",
        "y[i] = slope * x[i] + offset;",
        "y[i] = slope * x[i] - offset;",
        "linear",
    ),
    Fault(
        "a transpose forgotten",
        "linear.c",
        "product(0, 1, rows, in, out, dy, weight, dx);",
        "product(0, 0, rows, in, out, dy, weight, dx);",
        "linear_grad",
    ),
    Fault(
        "only the last panel of a long sum",
        "gemm.c",
        "t.add = g->accumulate || b > 0;",
        "t.add = g->accumulate;",
        "linear",
    ),
    Fault(
        "the bias of a layer with few inputs forgotten",
        "gemm_row.h",
        "store(c, sum + bias);",
        "store(c, sum);",
        "linear",
    ),
    Fault(
        "one row for all in the gradient of a layer with few outputs",
        "gemm_row.h",
        "i < whole; i++, a += a_row, c += c_row",
        "i < whole; i++, c += c_row",
        "linear_grad",
    ),
    Fault(
        "the last term of a row by itself forgotten",
        "gemm_row.h",
        "for (; q + ways <= depth;",
        "for (; q + ways < depth;",
        "linear",
    ),
    # softmax.c
    Fault(
        "a flipped sign within a sum",
        "softmax.c",
        "sum[j] += dy[i + j] * y[i + j];",
        "sum[j] -= dy[i + j] * y[i + j];",
        "softmax_grad",
    ),
    Fault(
        "no guard against overflow",
        "softmax.c",
        "e[i * width + j] = x[i * apart + j] - top[j];",
        "e[i * width + j] = x[i * apart + j] + 0 * top[j];",
        "softmax",
    ),
    # losses.c
    Fault(
        "no check of negative labels",
        "losses.c",
        "labels[i] < 0 || labels[i] >= classes",
        "labels[i] >= classes",
        "cross_entropy",
        ("label",),
    ),
    Fault(
        "a label too many",
        "losses.c",
        "labels[i] < 0 || labels[i] >= classes",
        "labels[i] < 0 || labels[i] > classes",
        "cross_entropy",
        ("label", "shape", "unwritten", "value"),
    ),
    Fault(
        "no check of labels in the backward pass",
        "losses.c",
        "const int status = check_labels(call, 1, classes, ignored);",
        "const int status = PF_OK;",
        "cross_entropy_grad",
        ("label",),
    ),
    Fault(
        "the sign of the label's term",
        "losses.c",
        "dx[labels[i]] = -w * (others * inverse);",
        "dx[labels[i]] = w * (others * inverse);",
        "cross_entropy_grad",
    ),
    Fault(
        "a forgotten 2",
        "losses.c",
        "return R(2.0) * (y_hat - y);",
        "return y_hat - y;",
        "l2_loss_grad",
    ),
    Fault(
        "a weighted mean over the count",
        "losses.c",
        "if (b->weight && b->reduction == MEAN) weigh(b);",
        "",
        "l2_loss",
    ),
    # reductions.c
    Fault(
        "all blocks of a sum but the last dropped",
        "reductions.c",
        "        total += block;",
        "        total = block;",
        "sum",
        ("value", "exact"),
    ),
    Fault(
        "a mean over one more",
        "reductions.c",
        "real divisor = (real)terms(call->inputs[0], attributes->axes);",
        "real divisor = (real)terms(call->inputs[0], attributes->axes) + 1;",
        "mean",
    ),
    Fault(
        "a maximum that overlooks NaN",
        "reductions.c",
        "return b > a || b != b ? b : a;",
        "return b > a ? b : a;",
        "max",
        ("nan",),
    ),
    # norm.c and random.c
    Fault(
        "a biased running variance",
        "norm.c",
        "const real unbiased = (real)(rows > 1 ? rows - 1 : 1);",
        "const real unbiased = (real)rows;",
        "batch_norm",
        ("state",),
    ),
    Fault(
        "running statistics that move outside of training",
        "norm.c",
        "            mean[c] = running_mean[c];",
        "            mean[c] = running_mean[c] *= R(0.9);",
        "batch_norm",
        ("state", "value"),
    ),
    Fault(
        "a term dropped from a gradient",
        "norm.c",
        "k->lanes) - level - off * slope;",
        "k->lanes) - level;",
        "batch_norm_grad",
    ),
    Fault(
        "a dropout that does not scale",
        "random.c",
        "const real kept = x[i] * scale;",
        "const real kept = scale > 0 ? x[i] : 0;",
        "dropout",
        ("random",),
    ),
    Fault(
        "a dropout that forgets the step",
        "random.c",
        "(uint64_t)call->step->step, words",
        "0, words",
        "dropout",
        ("random",),
    ),
    Fault(
        "a dropout that forgets where the batch is",
        "random.c",
        "const uint64_t first = (uint64_t)(call->step->first_sample * row);",
        "const uint64_t first = 0 * (uint64_t)row;",
        "dropout",
        ("random",),
    ),
    Fault(
        "a noise that forgets the step",
        "random.c",
        "(uint64_t)block, (uint64_t)call->step->step,",
        "(uint64_t)block, 0,",
        "gaussian_noise",
        ("random",),
    ),
    Fault(
        "a noise that forgets where the batch is",
        "random.c",
        "const int64_t first = call->step->first_sample * row;",
        "const int64_t first = 0 * row;",
        "gaussian_noise",
        ("random",),
    ),
    # sums.c, which all stand on
    Fault(
        "the tail of a sum dropped",
        "sums.c",
        "if (first + w * LANES < n) {",
        "if (0) {",
        "sum",
    ),
]


SHAPES = 200  # as many cases as the suite tries


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> mutants.Workshop:
    return mutants.Workshop(tmp_path_factory)


@pytest.mark.slow
@mutants.needs_compiler
@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f"{f.op}: {f.name}")
def test_a_fault_in_a_kernel_is_noticed(fault: Fault, workshop: mutants.Workshop) -> None:
    kernels = workshop.build(fault.file, fault.old, fault.new)
    op_class = registry.ops.get(fault.op)
    for dtype in ("float32", "float64"):
        with pytest.raises(ConformanceError) as caught:
            check_forward(op_class, dtype, shapes=SHAPES, kernels=kernels)
            check_bad_calls(op_class, shapes=SHAPES // 4, kernels=kernels)
        assert caught.value.kind in fault.kinds
        assert op_class.__name__ in str(caught.value)


@pytest.mark.slow
@mutants.needs_compiler
@pytest.mark.parametrize("op", sorted({fault.op for fault in FAULTS}))
def test_the_core_as_it_is_passes(op: str, workshop: mutants.Workshop) -> None:
    kernels = workshop.build()
    op_class = registry.ops.get(op)
    for dtype in ("float32", "float64"):
        check_forward(op_class, dtype, shapes=SHAPES, kernels=kernels)
    check_bad_calls(op_class, shapes=SHAPES // 4, kernels=kernels)


# ---- faults in the updates, which have tests of their own ----

UPDATE_FAULTS = [
    ("p[i] -= rate * (v[i] + shrink * p[i]);", "p[i] -= rate * v[i];", "momentum, decoupled"),
    ("p[i] -= rate * (g[i] + decay * p[i]);", "p[i] += rate * (g[i] + decay * p[i]);", "sgd"),
    ("p[i] -= rate * (g[i] + decay * p[i]);", "p[i] -= rate * g[i];", "sgd, decay"),
    ("v[i] = momentum * v[i] + (g[i]", "v[i] = momentum * v[i] - (g[i]", "momentum"),
    ("p[i] -= rate * (h + momentum * v[i] + shrink * p[i]);", "p[i] -= rate * v[i];", "nesterov"),
    (
        "    double rest1 = 1.0 - pow(beta1, t), left2",
        "    t += 1;\n    double rest1 = 1.0 - pow(beta1, t), left2",
        "adam",
    ),
    (
        "real square = c.beta2 * v[i] + c.rest2 * h * h;",
        "real square = c.beta2 * v[i] + c.rest2 * h;",
        "adam",
    ),
    ("square = square > most ? square : most;", "square = most;", "amsgrad"),
    ("(weight_decay){0, (real)(1.0 - rate * decay)}", "(weight_decay){0, 1}", "adamw"),
    ("0.5 * pow(0.96, t *", "0.5 * pow(0.96, (t + 1) *", "nadam, decay"),
    ("if (looks) u += c.look * h;", "if (looks) u -= c.look * h;", "nadam"),
    ("if (rho > 5) {", "if (rho > 4) {", "radam"),
    ("step *= sqrt((rho - 4) * (rho - 2)", "step *= sqrt((rho - 4) * (rho - 4)", "radam"),
    ("u[i] = kept > now ? kept : now;", "u[i] = now;", "adamax"),
    ("q = r_fabs(q - mean * mean);", "q = r_fabs(q + mean * mean);", "rmsprop, centered"),
    (
        "if (moves) v[i] = u = momentum * v[i] + u;",
        "if (moves) v[i] = momentum * v[i] + u;",
        "rmsprop, momentum",
    ),
    ("real keep = attributes->sums ? 1 :", "real keep = attributes->sums ? R(0.99) :", "adagrad"),
    ("call->step->step * attributes->learning_rate_decay", "0", "adagrad, decay"),
    ("d[i] = rho * d[i] + rest * u * u;", "d[i] = rho * d[i] + u * u;", "adadelta"),
    ("b[i] = same < 0 ? 0 : g[i];", "b[i] = g[i];", "rprop"),
    ("s[i] = x = x > high ? high : x;", "s[i] = x;", "rprop, bounds"),
    ("(of_g + decay * of_p)", "(of_g)", "lars, decay"),
    ("rate *= of_p / of_u;", "rate *= of_u / of_p;", "lamb"),
    ("const real z = d[i] - rate * u;", "const real z = d[i] + rate * u;", "schedule-free"),
    ("y[i] = x[i] + rest * d[i];", "y[i] = x[i];", "schedule-free, decay"),
    ("factor * factor / weight : 0.0", "factor / weight : 0.0", "schedule-free"),
]


@pytest.mark.slow
@mutants.needs_compiler
@pytest.mark.parametrize(("old", "new", "case"), UPDATE_FAULTS)
def test_a_fault_in_an_update_is_noticed(
    old: str, new: str, case: str, workshop: mutants.Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "find_kernel", workshop.build("optimizers.c", old, new))
    for dtype in ("float32", "float64"):
        with pytest.raises(AssertionError), np.errstate(all="ignore"):
            test_optimizers.test_updates_follow_their_formulas(case, dtype)


MATRIX_FAULTS = [
    ("c = 2.0315;", "c = 2.1;", "muon"),
    ("const int tall = rows > columns;", "const int tall = 0;", "muon"),
    ("ahead * (g[i] - m[i])", "ahead * g[i]", "muon"),
    ("attributes->match_rms * sqrt(longer)", "attributes->match_rms * longer", "muon"),
    ("sqrt(columns > rows ? longer", "sqrt(columns < rows ? longer", "muon, first version"),
]


@pytest.mark.slow
@mutants.needs_compiler
@pytest.mark.parametrize(("old", "new", "case"), MATRIX_FAULTS)
def test_a_fault_in_an_update_of_a_matrix_is_noticed(
    old: str, new: str, case: str, workshop: mutants.Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emission, "find_kernel", workshop.build("optimizers.c", old, new))
    with pytest.raises(AssertionError), np.errstate(all="ignore"):
        test_optimizers.test_plans_follow_the_formulas_parameter_by_parameter(case, "float64")


CHANGE_FAULTS = [
    (
        "attributes->sharpness / norm",
        "-attributes->sharpness / norm",
        lambda: test_changed_gradients.test_gradients_are_taken_where_the_loss_is_higher(
            lambda: pf.optimizers.SAM(0.1, sharpness=0.3),
            lambda: pf.optimizers.SGD(0.1, momentum=0.9),
        ),
    ),
    (
        "pow(steps, attributes->gamma)",
        "steps",
        test_changed_gradients.test_noise_is_normal_and_fades,
    ),
    ("if (mask[j] != 0) g[j] +=", "g[j] +=", test_changed_gradients.test_noise_is_normal_and_fades),
    (
        "pf_philox(call->step->seed, call->stream, (uint64_t)(i / 4), (uint64_t)call->step->step,\n"
        "                  words);\n        pf_normal",
        "pf_philox(call->step->seed, call->stream, (uint64_t)(i / 4), 0,\n"
        "                  words);\n        pf_normal",
        test_changed_gradients.test_noise_is_normal_and_fades,
    ),
    *(
        (old, new, test_accumulation.test_batches_of_no_weight_change_nothing)
        for old, new in [
            ("*weight += w;", "*weight += 1;"),
            ("total[i] += (real)w * g[i];", "total[i] += g[i];"),
            ("if (call->step->first_sample == 0) {", "if (call->step->step == 0) {"),
            ("g[i] = scale * total[i];", "g[i] = total[i];"),
        ]
    ),
    *(
        (old, new, lambda: test_callbacks.test_the_model_ends_with_the_average(None, "step", 2))
        for old, new in [
            ("1.0 / (count + 1.0)", "1.0 / (count + 2.0)"),
            ("c.part * (p[i] - a[i]);", "c.part * p[i];"),
        ]
    ),
]


@pytest.mark.slow
@mutants.needs_compiler
@pytest.mark.parametrize(("old", "new", "check"), CHANGE_FAULTS)
def test_a_fault_in_changed_gradients_is_noticed(
    old: str, new: str, check: Any, workshop: mutants.Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emission, "find_kernel", workshop.build("optimizers.c", old, new))
    with pytest.raises(AssertionError), np.errstate(all="ignore"):
        check()


@pytest.mark.slow
@mutants.needs_compiler
def test_the_updates_as_they_are_pass(
    workshop: mutants.Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "find_kernel", workshop.build())
    for case in {case for _, _, case in UPDATE_FAULTS}:
        test_optimizers.test_updates_follow_their_formulas(case, "float32")


# ---- faults on the Python side ----


class FlippedSign(pf.Sigmoid):
    """A sigmoid whose gradient points the wrong way."""

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return super().gradient(-grads[0])


class ForgottenFactor(pf.LeakyRelu):
    """A leaky relu whose gradient forgets the slope."""

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (grads[0],)


class NoGradient(pf.Sigmoid):
    """A sigmoid that lets nothing flow back."""

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (None,)


class OtherNumbers(pf.Dropout):
    """A dropout whose gradient drops other elements than it did itself."""

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        return (pf.Dropout(grads[0], **self.attrs),)


@pytest.mark.parametrize("op_class", [FlippedSign, ForgottenFactor, NoGradient, OtherNumbers])
def test_a_wrong_gradient_is_noticed(op_class: type[pf.Op]) -> None:
    with pytest.raises(ConformanceError, match="gradient") as caught:
        check_gradients(op_class)
    assert caught.value.kind == "gradient"


class AnyShape(pf.Softplus):
    """A softplus whose shape rule is wrong."""

    def infer_shape(self, *shapes: Any) -> Any:
        return (*shapes[0], 1)


class NamelessError(pf.Softplus):
    """A softplus that refuses vectors and does not say where."""

    def infer_shape(self, *shapes: Any) -> Any:
        if len(shapes[0]) == 1:
            raise pf.errors.ShapeError("no vectors here")
        return shapes[0]


def test_a_wrong_shape_rule_is_noticed() -> None:
    with pytest.raises(ConformanceError) as caught:
        check_forward(AnyShape, "float32")
    assert caught.value.kind == "shape"


def test_an_error_that_names_nothing_is_noticed() -> None:
    with pytest.raises(ConformanceError, match="does not name") as caught:
        check_bad_calls(NamelessError)
    assert caught.value.kind == "shape"


# ---- operands without elements ----

EMPTY_FAULTS = [
    Fault(
        "sums of nothing that are not written",
        "gemm.c",
        "if (g->m == 0 || g->n == 0) return;",
        "if (g->m == 0 || g->n == 0 || g->k == 0) return;",
        "matmul",
        ("unwritten",),
    ),
    Fault(
        "gradients of no rows that are not written",
        "norm.c",
        "    if (dscale) memset(dscale, 0, bytes);",
        "    if (dscale && rows > 0) memset(dscale, 0, bytes);",
        "layer_norm_grad",
        ("unwritten",),
    ),
]


@pytest.mark.slow
@mutants.needs_compiler
@pytest.mark.parametrize("fault", EMPTY_FAULTS, ids=lambda f: f"{f.op}: {f.name}")
def test_a_fault_with_nothing_in_it(fault: Fault, workshop: mutants.Workshop) -> None:
    op_class = registry.ops.get(fault.op)
    check_zero_extents(op_class, kernels=workshop.build())
    with pytest.raises(ConformanceError, match="set to 0") as caught:
        check_zero_extents(op_class, kernels=workshop.build(fault.file, fault.old, fault.new))
    assert caught.value.kind in fault.kinds


class NothingToLookAt(pf.Softplus):
    """A softplus of nothing, too, whose gradient is one of something only."""

    def gradient(self, *grads: Any) -> Sequence[Value | None]:
        if 0 in (self.inputs[0].shape or ()):  # type: ignore[union-attr]
            raise pf.errors.ShapeError("nothing to look at")
        return super().gradient(*grads)


def test_a_gradient_that_refuses_what_the_op_takes() -> None:
    with pytest.raises(ConformanceError, match="nothing to look at") as caught:
        check_zero_extents(NothingToLookAt)
    assert caught.value.kind == "zero"


def test_what_a_fault_replaces_stands_in_its_file_once() -> None:
    """So the tests above, which run every week, do not fail because a text is gone."""
    replaced = [(fault.file, fault.old) for fault in (*FAULTS, *EMPTY_FAULTS)]
    updates = (*UPDATE_FAULTS, *MATRIX_FAULTS, *CHANGE_FAULTS)
    replaced += [("optimizers.c", old) for old, _, _ in updates]
    for file, old in replaced:
        text = (mutants.CORE / file).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"


# ---- checks of attributes that are left out ----


@pytest.mark.parametrize(
    ("op", "key"),
    [
        ("dropout", "rate"),
        ("layer_norm", "epsilon"),
        ("concat", "position"),
        ("l2_loss", "reduction"),
        ("linear", "activation"),
        ("matmul", "transpose_a"),
        ("softmax", "axis"),
    ],
)
def test_a_skipped_check_of_an_attribute(
    op: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    op_class = registry.ops.get(op)
    check_attributes(op_class)
    kept = {other: rule for other, rule in op_class._rules.items() if other != key}
    monkeypatch.setattr(op_class, "_rules", kept)
    with pytest.raises(ConformanceError, match=key) as caught:
        check_attributes(op_class)
    assert caught.value.kind == "attribute"


class Checked(pf.Dropout):
    """A dropout whose author checks in the constructor alone."""

    op, kernel, rules = "checked", "dropout", {}

    def __init__(self, x: Any, rate: float = 0.5, *, name: str | None = None) -> None:
        if not (isinstance(rate, float) and 0 <= rate < 1):
            raise pf.ArgumentError(f"{name}: rate is {rate!r}")
        super().__init__(x, rate, name=name)


def test_a_check_that_stands_in_the_constructor_alone() -> None:
    with pytest.raises(ConformanceError, match="and a file gets past"):
        check_attributes(Checked)


class Uncounted(pf.Relu):
    """A relu that takes any number of inputs, and reads one."""

    op, kernel = "uncounted", "relu"

    def infer_shape(self, *shapes: Any) -> Any:
        return shapes[0]


def test_inputs_that_are_not_counted() -> None:
    with pytest.raises(ConformanceError, match="2 inputs, it is taken") as caught:
        check_attributes(Uncounted)
    assert caught.value.kind == "operand"


def test_an_argument_of_a_layer_that_is_not_checked() -> None:
    class Careless(pf.layers.Dense):
        """A dense layer that takes whatever is more than 0."""

        def __init__(self, units: Any, *, name: str | None = None) -> None:
            super().__init__(1, name=name)
            self.units = units if units > 0 else 1

    checks = layer_checks(Careless, [((4, 3), {"units": 2})])
    with pytest.raises(ConformanceError, match="units=") as caught:
        checks["arguments"]()
    assert caught.value.kind == "argument"
