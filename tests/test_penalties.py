"""Regularizers and constraints of parameters: in losses, in updates, in files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyframe as pf
from pyframe.constraints import MaxNorm, NonNegative, UnitNorm
from pyframe.errors import (
    ArgumentError,
    CheckpointError,
    GraphError,
    ShapeError,
    UnknownNameError,
)
from pyframe.regularizers import L1, L1L2, L2
from pyframe.testing import ConformanceError, check_constraint, check_regularizer

pytestmark = pytest.mark.once  # it says nothing of a kernel

RNG = np.random.default_rng(2)
X = RNG.normal(size=(32, 3))
Y = X @ RNG.normal(size=(3, 1)) + 1


def model(dtype: str = "float64", **options: Any) -> pf.Sequential:
    pf.set_seed(1)
    layers = [pf.layers.Dense(4, "tanh", **options, name="a"), pf.layers.Dense(1, name="b")]
    return pf.Sequential(layers, input_shape=(3,), dtype=dtype)


def weights(m: pf.Model) -> dict[str, Any]:
    return {name: array.copy() for name, array in m.get_weights().items()}


# ---- regularizers ----


def test_the_reported_loss_holds_the_penalties_and_metrics_do_not() -> None:
    m = model(weight_regularizer=L1L2(0.1, 0.2), bias_regularizer=L2(0.3))
    w, b = m.layers[0].parameters
    b.value = RNG.normal(size=4)
    penalty = 0.1 * abs(w.value).sum() + 0.2 * (w.value**2).sum() + 0.3 * (b.value**2).sum()
    logs = pf.Trainer(m, "l2", "sgd", metrics=["mse"]).evaluate(X, Y, batch_size=5)
    assert logs["mse"] == pytest.approx(((m.predict(X) - Y) ** 2).mean(), rel=1e-12)
    assert logs["loss"] == pytest.approx(logs["mse"] + penalty, rel=1e-12)
    history = pf.Trainer(m, "l2", pf.optimizers.SGD(0.0)).fit(X, Y, 1, 5, verbose=0)
    assert history["loss"][0] == pytest.approx(logs["loss"], rel=1e-12)


def test_a_step_is_that_of_the_sum() -> None:
    one, two = model(weight_regularizer=L2(0.3)), model()
    rate = 0.01
    pf.Trainer(one, "l2", pf.optimizers.SGD(rate)).fit(X, Y, 1, 32, verbose=0)
    before = weights(two)
    pf.Trainer(two, "l2", pf.optimizers.SGD(rate)).fit(X, Y, 1, 32, verbose=0)
    got, wanted = weights(one), weights(two)
    wanted["a/weight"] -= rate * 2 * 0.3 * before["a/weight"]
    for name, array in wanted.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-12, atol=1e-15)


def test_what_is_frozen_adds_nothing_as_in_keras() -> None:
    m = model(weight_regularizer="l2")
    t = pf.Trainer(m, "l2", "sgd")
    with_it = t.evaluate(X, Y)["loss"]
    m.layers[0].trainable = False
    without = t.evaluate(X, Y)["loss"]
    assert with_it == pytest.approx(
        without + 0.01 * (m.layers[0].parameters[0].value ** 2).sum(), rel=1e-12
    )
    m.layers[0].trainable = True
    m.layers[0].parameters[0].regularizer = None
    assert t.evaluate(X, Y)["loss"] == without


def test_a_function_will_do_and_must_give_a_number() -> None:
    m = model(weight_regularizer=lambda w: 0.5 * pf.Sum(abs(w)))
    one, two = (pf.Trainer(k, "l2", "sgd") for k in (m, model(weight_regularizer=L1(0.5))))
    assert one.evaluate(X, Y)["loss"] == pytest.approx(two.evaluate(X, Y)["loss"], rel=1e-12)
    for wrong, error in ((lambda w: w, ShapeError), (lambda w: 3.0, GraphError)):
        with pytest.raises(error, match="regularizer of a/weight gives"):
            pf.Trainer(model(weight_regularizer=wrong), "l2", "sgd").evaluate(X, Y)


# ---- constraints ----

CONSTRAINTS = [MaxNorm(0.5), NonNegative(), UnitNorm(), MaxNorm(0.3, axis=(0, 1))]


def by_hand(constraint: Any, w: Any) -> Any:
    if isinstance(constraint, NonNegative):
        return np.maximum(w, 0)
    axes = constraint.axis or tuple(range(max(w.ndim - 1, 1)))
    norm = np.sqrt((w**2).sum(axis=axes, keepdims=True))
    if isinstance(constraint, UnitNorm):
        return np.where(norm > 0, w / np.where(norm > 0, norm, 1), 0)
    return np.where(norm > constraint.limit, w * constraint.limit / np.maximum(norm, 1e-30), w)


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=repr)
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 4)])
def test_constraints_are_what_they_say(constraint: Any, shape: tuple[int, ...]) -> None:
    values = RNG.normal(size=shape)
    values[..., 0] = 0
    w = pf.Parameter(values, "w", dtype="float64")
    got = pf.compile(constraint(w)).run({})
    np.testing.assert_allclose(got, by_hand(constraint, values), rtol=1e-12, atol=1e-15)


OPTIMIZERS = [
    pf.optimizers.SGD(0.1, momentum=0.9),
    pf.optimizers.Adam(0.05, clip_norm=1.0),
    pf.optimizers.AdamW(0.05),
    pf.optimizers.LAMB(0.05),
    pf.optimizers.SAM(0.05),
    pf.optimizers.ScheduleFreeAdamW(0.05),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("constraint", CONSTRAINTS[:3], ids=repr)
def test_a_step_is_the_optimizers_own_and_then_the_constraint(
    optimizer: Any, constraint: Any
) -> None:
    """Step by step against a plan without it, whose parameters are brought to it by hand."""
    values = RNG.normal(size=(3, 4))

    def plan(constraint: Any) -> tuple[Any, Any]:
        x = pf.Placeholder("x", shape=(None, 3), dtype="float64")
        w = pf.Parameter(values, "w", dtype="float64", constraint=constraint)
        b = pf.Parameter(np.ones(4), "b", dtype="float64")
        return pf.compile(pf.Mean(pf.Tanh(pf.Linear(x, w, b))), optimizer=optimizer), w

    (one, w), (two, v) = plan(constraint), plan(None)
    for _ in range(4):
        one.step({"x": X}), two.step({"x": X})
        v.value = by_hand(constraint, v.value)
        np.testing.assert_allclose(w.value, v.value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("optimizer", ["random_search", "direction_search"])
def test_a_search_tries_what_keeps_to_it(optimizer: str) -> None:
    m = model(weight_constraint=NonNegative())
    m.parameters[0].value = abs(m.parameters[0].value)
    t = pf.Trainer(m, "l2", optimizer)
    for _ in range(5):
        t.fit(X, Y, 10, 32, shuffle=False, verbose=0)
        assert (m.parameters[0].value >= 0).all()
    least = min(t.evaluate(X, Y)["loss"], np.inf)
    assert least <= pf.Trainer(model(), "l2", "sgd").evaluate(X, Y)["loss"]


class Descent(pf.optimizers.Optimizer):
    """Gradient descent in Python."""

    name = "descent"

    def update(self, parameters: Any, gradients: Any, slots: Any, **rest: Any) -> None:
        parameters -= rest["learning_rate"] * gradients


def test_an_update_in_python_ends_with_it() -> None:
    one, two = (model(weight_constraint=MaxNorm(0.5)) for _ in range(2))
    pf.Trainer(one, "l2", Descent(0.1)).fit(X, Y, 3, 8, verbose=0)
    pf.Trainer(two, "l2", pf.optimizers.SGD(0.1)).fit(X, Y, 3, 8, verbose=0)
    for name, array in weights(two).items():
        np.testing.assert_allclose(weights(one)[name], array, rtol=1e-12)
    assert (np.linalg.norm(one.parameters[0].value, axis=0) <= 0.5 + 1e-12).all()


def test_epochs_in_c_and_single_steps_are_the_same() -> None:
    """The same bits with one thread and with three, too."""
    found = []
    for threads in (1, 3):
        with pf.num_threads(threads):
            m = model("float32", weight_constraint="max_norm", weight_regularizer="l2")
            pf.Trainer(m, "l2", pf.optimizers.Adam(0.1)).fit(X, Y, 4, 8, shuffle=False, verbose=0)
            found.append(weights(m))
    m = model("float32", weight_constraint="max_norm")
    y = pf.Placeholder("y", shape=(None, 1))
    penalty = L2()(m.parameters[0])
    plan = pf.compile(pf.L2Loss(y, m.outputs[0]) + penalty, optimizer=pf.optimizers.Adam(0.1))
    for i in range(16):
        rows = slice(8 * (i % 4), 8 * (i % 4) + 8)
        plan.step({m.inputs[0]: X[rows], y: Y[rows]})
    for other in (found[1], weights(m)):
        assert all((found[0][name] == other[name]).all() for name in other)


def test_many_fits_and_a_resumed_one(tmp_path: Path) -> None:
    def trainer() -> pf.Trainer:
        m = model(weight_constraint=MaxNorm(0.4), weight_regularizer=L2(0.1))
        return pf.Trainer(m, "l2", pf.optimizers.Adam(0.05))

    whole = trainer()
    whole.fit(X, Y, 4, 8, seed=3, verbose=0)
    half = trainer()
    half.fit(X, Y, 2, 8, seed=3, verbose=0)
    half.save(tmp_path / "half.pyframe")
    again = pf.Trainer.load(tmp_path / "half.pyframe")
    again.fit(X, Y, 4, 8, seed=3, verbose=0, resume=tmp_path / "half.pyframe")
    beside = [trainer(), trainer()]
    pf.fit_many(beside, X, Y, epochs=4, batch_size=8, seed=3, verbose=0)
    for other in (again, *beside):
        for name, array in weights(whole.model).items():
            assert (weights(other.model)[name] == array).all()


def test_a_change_counts_from_the_next_fit_on_and_stops_a_plan() -> None:
    m = model()
    t = pf.Trainer(m, "l2", pf.optimizers.SGD(0.05))
    t.fit(X, Y, 2, 8, verbose=0)
    m.parameters[0].constraint = MaxNorm(0.2)
    with pytest.raises(GraphError, match="constraint of parameter 'a/weight' is MaxNorm"):
        t.plan.step({m.inputs[0]: X, "y": Y})
    t.fit(X, Y, 1, 8, verbose=0)
    assert (np.linalg.norm(m.parameters[0].value, axis=0) <= 0.2 + 1e-12).all()
    m.parameters[0].constraint = None
    t.fit(X, Y, 3, 8, verbose=0)
    assert (np.linalg.norm(m.parameters[0].value, axis=0) > 0.2 + 1e-12).any()


def test_first_and_frozen_values_stay() -> None:
    m = model(weight_constraint=MaxNorm(0.01))
    before = weights(m)["a/weight"]
    assert (np.linalg.norm(before, axis=0) > 0.01).any()
    m.layers[0].trainable = False
    pf.Trainer(m, "l2", "sgd").fit(X, Y, 1, 8, verbose=0)
    assert (weights(m)["a/weight"] == before).all()


class Half(pf.Node):
    def forward(self, ctx: Any, x: Any) -> Any:
        return x / 2


@pytest.mark.parametrize(
    ("constraint", "error", "says"),
    [
        (lambda w: 3.0, GraphError, "no node"),
        (lambda w: pf.Sum(w), ShapeError, r"gives \(\), and it has \(3, 4\)"),
        (Half, GraphError, "holds 'Half'"),
        (lambda w: pf.Dropout(w), GraphError, "holds 'dropout'"),
        (lambda w: w * pf.Parameter(np.ones(4), "v", dtype="float64"), GraphError, "holds 'v'"),
    ],
)
def test_what_is_no_constraint_is_refused(constraint: Any, error: Any, says: str) -> None:
    m = model(weight_constraint=constraint)
    before = weights(m)
    with pytest.raises(error, match=f"constraint of a/weight .*{says}"):
        pf.Trainer(m, "l2", "sgd").fit(X, Y, 1, 8, verbose=0)
    assert all((weights(m)[name] == array).all() for name, array in before.items())


# ---- names, files ----


def test_names() -> None:
    assert pf.regularizers.get("l1_l2") == L1L2(0.01, 0.01)
    assert pf.regularizers.get({"name": "l2", "strength": 0.5}) == L2(0.5)
    assert pf.constraints.get("non_neg") == NonNegative() == pf.constraints.get(NonNegative)
    assert pf.constraints.get(None) is None
    with pytest.raises(UnknownNameError, match="did you mean 'maxnorm' or 'max_norm'"):
        pf.constraints.get("maxnrm")
    for wrong in (3, object()):
        with pytest.raises(ArgumentError, match="is no regularizer"):
            pf.regularizers.get(wrong)
    with pytest.raises(ArgumentError, match="strenth"):
        pf.regularizers.get({"name": "l2", "strenth": 1})
    with pytest.raises(ArgumentError, match=r"pyframe.constraints.get\('max_norm'\)"):
        pf.Parameter(0.0, constraint="max_norm")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        lambda: L2(-1),
        lambda: L1(float("nan")),
        lambda: L1L2(0.1, "x"),  # type: ignore[arg-type]
        lambda: MaxNorm(0),
        lambda: MaxNorm(1.0, axis=()),
        lambda: UnitNorm(axis=1.5),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments(make: Any) -> None:
    with pytest.raises(ArgumentError):
        make()


def test_files_hold_them_and_what_was_set_later(tmp_path: Path) -> None:
    m = model(weight_regularizer="l1", weight_constraint=MaxNorm(0.3, axis=0))
    m.parameters[1].constraint = NonNegative()
    m.save(tmp_path / "m.pyframe")
    loaded = pf.load(tmp_path / "m.pyframe")
    assert [(p.regularizer, p.constraint) for p in loaded.parameters] == [
        (p.regularizer, p.constraint) for p in m.parameters
    ]
    assert loaded.layers[0].config() == m.layers[0].config()
    fresh = type(m.layers[0]).from_config(loaded.layers[0].config())
    assert fresh.weight_constraint == MaxNorm(0.3, axis=0)


def test_one_without_a_name_is_not_lost_in_silence(tmp_path: Path) -> None:
    m = model(weight_constraint=lambda w: pf.Relu(w))
    with pytest.raises(CheckpointError, match="constraint of 'a/weight' .* would be lost"):
        m.save(tmp_path / "m.pyframe")
    assert not (tmp_path / "m.pyframe").exists()


# ---- the kit ----


@dataclass(frozen=True)
class Vector:
    """No number."""

    def __call__(self, w: Any) -> Any:
        return w * w


@dataclass(frozen=True)
class Shrinking:
    """Never content."""

    def __call__(self, w: Any) -> Any:
        return w * 0.5


UNREGISTERED = {"config": "it is not registered"}


def test_the_kit_finds_wrong_ones() -> None:
    with pytest.raises(ConformanceError, match="a penalty is one number"):
        check_regularizer(Vector, expected_failures=UNREGISTERED)
    with pytest.raises(ConformanceError, match="applied again"):
        check_constraint(Shrinking, expected_failures=UNREGISTERED)


@pytest.mark.parametrize("kind", ["regularizer", "constraint"])
@pytest.mark.parametrize(
    ("layer", "arguments"),
    [
        (pf.layers.Dense, {"units": 3, "weight": "weight", "bias": "bias"}),
        (pf.layers.Maxout, {"units": 3, "weight": "weight", "bias": "bias"}),
        (pf.layers.PReLU, {"": "slope"}),
        (pf.layers.BatchNorm, {"scale": "scale", "shift": "shift"}),
        (pf.layers.LayerNorm, {"scale": "scale", "shift": "shift"}),
        (pf.layers.RMSNorm, {"scale": "scale"}),
        (pf.layers.GroupNorm, {"groups": 1, "scale": "scale", "shift": "shift"}),
    ],
)
def test_each_parameter_has_its_own(layer: Any, arguments: dict[str, Any], kind: str) -> None:
    found = {"regularizer": L2(0.5), "constraint": pf.constraints.NonNegative()}[kind]
    numbers = {key: value for key, value in arguments.items() if isinstance(value, int)}
    for argument, last in arguments.items():
        if argument in numbers:
            continue
        made = layer(**numbers, **{f"{argument}_{kind}".strip("_"): found})
        made(pf.Placeholder("x", shape=(None, 4)))
        have = {p.name.rpartition("/")[2] for p in made.parameters if getattr(p, kind) == found}
        assert have == {last}
