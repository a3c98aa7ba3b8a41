"""All built-in layers, optimizers, losses and the rest pass the kit that plugins have to pass."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from registered import COMPOSITES, OPS

import pyframe as pf
from pyframe.errors import ArgumentError
from pyframe.graph.op import Op
from pyframe.optimizers import SGD, Adam
from pyframe.plugins import registry
from pyframe.testing import (
    ConformanceError,
    PartCase,
    apart,
    check_capabilities,
    check_dataset,
    check_node,
    check_optimizer,
    check_plugin,
    conformance,
    layer_checks,
    node_checks,
    plugin_checks,
)
from pyframe.testing.runner import run_checks

pytestmark = pytest.mark.once

# Ops have test_ops.py, where each is checked for every instruction set by itself; the loader of
# MNIST needs files that are not shipped.
ELSEWHERE = ("ops.", "datasets.mnist:")


@pytest.mark.parametrize(
    "check",
    [case for case in conformance("pyframe-nn") if not str(case.id).startswith(ELSEWHERE)],
)
def test_built_in(check, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # As where no plugin is installed, whose kernels have each check run in a process of its own.
    monkeypatch.setenv(apart.VARIABLE, "1")
    check()


@pytest.mark.parametrize(
    "check",
    [
        case
        for case in conformance("pyframe-nn")
        if str(case.id).startswith("ops.") and str(case.id).endswith((":declaration", ":scale"))
    ],
)
def test_of_ops_what_no_other_test_asks(check) -> None:
    check()


def test_composites_are_held_to_their_references() -> None:
    checks = plugin_checks("pyframe-nn")
    for made in COMPOSITES:
        assert f"ops.{made.op}:reference" in checks


@pytest.mark.parametrize("op_class", OPS, ids=lambda c: c.op)
def test_what_ops_declare_of_their_kernels(op_class: type[Op]) -> None:
    for dtype in ("float32", "float64"):
        check_capabilities(op_class, dtype=dtype)


def test_no_plugin_is_loaded_for_what_is_built_in() -> None:
    code = (
        "import sys, pyframe as pf; from pyframe.testing import conformance\n"
        "assert len(conformance('pyframe-nn')) > 800\n"
        "assert not [p for p in pf.plugins.installed().values() if p.status == 'loaded']"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True, timeout=120)


def test_every_kind_of_thing_is_checked() -> None:
    found = {name.partition(".")[0] for name in plugin_checks("pyframe-nn")}
    assert found - {"plugin:names"} == set(registry.KINDS)


@pytest.mark.parametrize(
    "factory",
    [
        functools.partial(SGD, momentum=0.9, nesterov=True),
        functools.partial(SGD, weight_decay=0.01, clip_value=0.5),
        functools.partial(Adam, weight_decay=0.01),
    ],
)
def test_optimizers_with_options(factory) -> None:
    check_optimizer(factory, learning_rate=0.05)


def test_an_optimizer_that_looks_at_a_norm_says_so() -> None:
    check_optimizer(functools.partial(Adam, clip_norm=1.0), elementwise=False)


def test_mnist(data_dir) -> None:
    check_dataset(functools.partial(pf.datasets.load_mnist, data_dir))


# ---- nodes and layers of other kinds ----


class TwoWays(pf.Node):
    """A node in Python with two inputs and two outputs."""

    output_count = 2

    def forward(self, ctx, x, y):
        return x * y, x - y

    def backward(self, ctx, dp, dm):
        x, y = ctx.inputs
        dp = np.zeros_like(x) if dp is None else dp
        dm = np.zeros_like(x) if dm is None else dm
        return dp * y + dm, dp * x - dm


def test_a_node_with_several_inputs_and_outputs() -> None:
    check_node(TwoWays, [(((4, 3), (4, 3)), {})])


def test_a_composed_node() -> None:
    check_node(lambda x: x * pf.Sigmoid(x))


class Pick(pf.layers.Layer):
    """A row of a table for each label, by a product with a one-hot matrix."""

    def __init__(self, size: int, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.size = size

    def build(self, *specs) -> None:
        shape = (specs[1].shape[-1], self.size)
        self.table = self.add_parameter("table", shape, "normal", dtype=specs[1].dtype)

    def call(self, *inputs):
        labels, x = inputs
        return pf.CrossEntropy(labels, pf.Linear(x, self.table, None), reduction="none")


class Block(pf.layers.Layer):
    """Layers within a layer, one of them in a list."""

    def __init__(self, units: int, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.units = units
        self.inner = [pf.layers.Dense(units, "tanh"), pf.layers.BatchNorm()]
        self.last = pf.layers.Dropout(0.2)

    def call(self, *inputs):
        (y,) = inputs
        for layer in [*self.inner, self.last]:
            y = layer(y)
        return y


def labels_and_logits(draw, shape):
    return draw.labels(shape, 5) if len(shape) == 1 else draw.normal(shape)


LAYERS = [
    (Pick, [PartCase(((4,), (4, 3)), {"size": 5}, labels_and_logits)]),
    (Block, [((4, 3), {"units": 2})]),
]


@pytest.mark.parametrize(
    ("layer_class", "name"),
    [
        pytest.param(layer_class, name, id=f"{layer_class.__name__}-{name}")
        for layer_class, cases in LAYERS
        for name in layer_checks(layer_class, cases)
    ],
)
def test_layers_with_labels_and_with_layers(layer_class, name: str) -> None:
    layer_checks(layer_class, dict(LAYERS)[layer_class])[name]()


# ---- expected failures ----


def broken() -> None:
    raise ConformanceError("it", "is broken")


def test_an_expected_failure_is_no_failure() -> None:
    run_checks("x", {"a": broken, "b": lambda: None}, {"a": "not done yet"})


def test_an_expected_failure_that_passes_is_one() -> None:
    with pytest.raises(ConformanceError, match="not done yet") as caught:
        run_checks("x", {"a": lambda: None}, {"a": "not done yet"})
    assert caught.value.kind == "expected"


@pytest.mark.parametrize(
    ("expected", "message"), [({"c": "why"}, "no such check"), ({"a": " "}, "say why")]
)
def test_an_expected_failure_needs_a_check_and_a_reason(expected, message) -> None:
    with pytest.raises(ArgumentError, match=message):
        run_checks("x", {"a": broken}, expected)


def test_what_comes_out_of_a_check_is_told_with_its_name() -> None:
    def crash() -> None:
        raise KeyError("weight")

    with pytest.raises(ConformanceError, match="Mine: KeyError came out of it") as caught:
        run_checks("Mine", {"save": crash})
    assert caught.value.kind == "save" and isinstance(caught.value.__cause__, KeyError)


def test_checks_leave_the_seed_as_it_was() -> None:
    pf.set_seed(41)
    run_checks("x", {"a": lambda: pf.set_seed(5)})
    assert pf.initializers.get_seed() == 41


# ---- plugins ----


class Halves:
    """An object with hooks: a layer, and a schedule that needs its arguments."""

    @pf.hookimpl
    def pyframe_register_layers(self):
        return {"half": Half}


class Narrow(pf.layers.Dense):
    """A dense layer of one unit, which has inherited cases that say how many there are."""

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(1, name=name)


def test_a_layer_says_itself_what_it_is_tried_on() -> None:
    for layer_class in pf.layers.pyframe_register_layers().values():
        layer_checks(layer_class)["config"]()
    assert pf.layers.Flatten.cases() == ()


def test_cases_that_do_not_fit_the_constructor_are_told() -> None:
    with pytest.raises(ConformanceError, match="'units': 2.*cases.. of its own") as caught:
        layer_checks(Narrow)["declaration"]()
    assert caught.value.kind == "declaration"
    Narrow.cases = classmethod(lambda cls: [((4, 3), {})])
    layer_checks(Narrow)["declaration"]()


class Half(pf.layers.Layer):
    """y = x / 2."""

    def call(self, *inputs):
        return 0.5 * inputs[0]


def test_a_plugin_in_one_call() -> None:
    plugin = Halves()
    try:
        check_plugin(plugin)
        with pytest.raises(ArgumentError, match="layers.third"):
            check_plugin(plugin, options={"layers.third": {}})
        with pytest.raises(ArgumentError, match="no such check"):
            check_plugin(plugin, expected_failures={"layers.half:speed": "slow"})
        (case,) = [
            c
            for c in conformance(plugin, expected_failures={"layers.half:save": "why"})
            if c.id == "layers.half:save"
        ]
        (mark,) = case.marks
        assert mark.name == "xfail" and mark.kwargs["strict"] and mark.kwargs["reason"] == "why"
    finally:
        pf.plugins.unregister(plugin)


def test_a_plugin_that_registers_nothing_is_told_so() -> None:
    class Nothing:
        pass

    plugin = Nothing()
    try:
        with pytest.raises(ConformanceError, match="registers nothing"):
            check_plugin(plugin)
    finally:
        pf.plugins.unregister(plugin)


def test_a_plugin_that_is_not_installed() -> None:
    with pytest.raises(pf.PluginError, match="not installed"):
        check_plugin("no-such-plugin")


def test_nodes_are_checked_by_op_checks_too() -> None:
    assert pf.testing.op_checks(TwoWays).keys() == node_checks(TwoWays).keys()


def run_pytest(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", *arguments]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    return result.stdout + result.stderr


WITHOUT_CASES = "import pyframe\npyframe.layers.Dense.cases = pyframe.layers.Layer.cases\n"


def test_a_session_of_pytest_without_a_file(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(WITHOUT_CASES)
    option = ("-p", "pyframe.testing.pytest_plugin", "--pyframe-plugin", "pyframe-nn")
    said = run_pytest(tmp_path, *option, "-k", "l1_loss:weights or dense:gradient")
    assert "pyframe-nn[losses.l1_loss:weights] PASSED" in said
    # No case says how many units there are; the failure is told without the kit's own traceback.
    assert "pyframe-nn[layers.dense:gradient] FAILED" in said
    assert "pass cases=[(shape, arguments)]" in said and "runner.py" not in said
    assert "1 failed, 1 passed" in said


def test_a_file_of_three_lines(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        WITHOUT_CASES + "import pytest\n"
        "from pyframe.testing import conformance\n"
        "reasons = {'layers.flatten:modes': 'x', 'layers.dense:model': 'needs its arguments'}\n"
        "cases = conformance('pyframe-nn', expected_failures=reasons)\n"
        "@pytest.mark.parametrize('check', cases)\n"
        "def test_it(check):\n"
        "    check()\n"
    )
    said = run_pytest(tmp_path, "-k", "flatten:modes or dense:model or huber_loss:shape")
    assert "test_it[losses.huber_loss:shape] PASSED" in said
    assert "test_it[layers.dense:model] XFAIL (needs its arguments)" in said
    assert "[XPASS(strict)] x" in said
    assert "1 failed, 1 passed" in said and "1 xfailed" in said
