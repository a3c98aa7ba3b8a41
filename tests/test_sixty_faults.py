"""Sixty faults of plugins, by kind: the kit or the manager names each, and none ends the run.

Most are planted elsewhere, where each is looked at closely. Here all checks of a thing are run on
them, as an author does.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import broken_parts
import numpy as np
import pytest
import test_conformance_of_training as optimizers
import test_kernel_faults as kernels
import test_plugins as packages
import test_python_nodes as nodes
import test_sanitizers
from toolchain import without_compiler

import pyframe as pf
from pyframe.testing import (
    ConformanceError,
    apart,
    check_layer,
    check_node,
    check_op,
    check_optimizer,
)

pytestmark = [pytest.mark.once, pytest.mark.slow]

LEAST = 57  # that must be named, of sixty


class Fault(NamedTuple):
    """What is wrong, what tries it, and words of the message, which say where."""

    name: str
    tried_by: Callable[[], object]
    words: tuple[str, ...]


# ---- kernels ----

ALIKE = ("third_part", "far_before", "all_of_memory")  # as others that are on the list
BESIDE = ("at_zero", "five_axes", "aligned_loads", "rounds_up")  # kinds that were thought of later
KERNELS = [
    Fault(
        fault.kernel,
        lambda fault=fault: check_op(kernels.with_kernel(fault.kernel), shapes=5),
        (f"[{fault.kind}]", fault.words, "Twice(f(", "Twice.sample(Draw("),
    )
    for fault in kernels.FAULTS
    if fault.kernel not in (*ALIKE, *BESIDE)
]
# Nothing but a sanitizer sees these, whose tests take longer.
UNDER_A_SANITIZER = [
    "64 kB are lost at each call",
    "two parts that write the same number to the same place",
]

# ---- nodes and layers ----


class CallsExit(pf.Node):
    """Ends the process when it is run."""

    def forward(self, ctx: Any, x: Any) -> Any:
        sys.exit(3)


def node(node_class: type[pf.Node], *words: str) -> Fault:
    return Fault(node_class.__name__, lambda: check_node(node_class), words)


def layer(layer_class: type[pf.layers.Layer], *words: str) -> Fault:
    return Fault(layer_class.__name__, lambda: check_layer(layer_class, [((4, 3), {})]), words)


NODES = [
    node(broken_parts.FlippedSign, "[gradient]", "FlippedSign((4, 3))", "input 0"),
    node(broken_parts.KeepsOnSelf, "[purity]", "self.x"),
    node(broken_parts.Overwrites, "changes its input"),
    node(broken_parts.ByThreads, "[threads]", "ByThreads((4, 3))"),
    node(broken_parts.WrongShapeNode, "[shape]", "WrongShapeNode"),
    node(nodes.NoForward, "has no forward", "NoForward"),
    node(nodes.Lists, "forward returned", "numpy.asarray"),
    node(nodes.Gated, "ctx.slope, which its forward has not set"),
    node(CallsExit, "CallsExit", "SystemExit came out of it: 3"),
    layer(broken_parts.Forgetful, "[config]", "'factor'"),
    layer(broken_parts.Hidden, "[parameters]", "add_parameter"),
    layer(broken_parts.Centered, "[batch]", "neighbours"),
]

# ---- optimizers ----


def optimizer(optimizer_class: type[pf.optimizers.Optimizer], *words: str) -> Fault:
    what = optimizer_class.__name__
    return Fault(what, lambda: check_optimizer(optimizer_class), (what, *words))


OPTIMIZERS = [
    optimizer(optimizers.Ascent, "[bowl]"),
    optimizer(optimizers.ByPosition, "[segmentation]"),
    optimizer(optimizers.OwnRate, "[rate]", "learning rate of 0"),
    optimizer(optimizers.FillsPadding, "[frozen]", "padding"),
    optimizer(optimizers.KeepsOnSelf, "[state]", "slots"),
    optimizer(optimizers.ForgetsOptions, "[options]", "factor"),
    optimizer(optimizers.ChangesGradients, "[gradients]", "gradient of p0"),
    optimizer(optimizers.RebindsSlot, "[slots]", "slot 'velocity'"),
    optimizer(optimizers.UndeclaredSlot, "[slots]", "slot 'mean'"),
    optimizer(optimizers.RebindsParameters, "[bowl]", "moved nothing"),
]

# ---- packages: what each is set aside for ----

PACKAGES = {
    "raises at import": "RuntimeError: no luck",
    "exits at import": "SystemExit: good-bye",
    "imports what is not there": "No module named 'nowhere_at_all'",
    "raises in a hook": "ZeroDivisionError",
    "exits in a hook": "pyframe_register_layers called sys.exit(3)",
    "misspelt hook": "did you mean 'pyframe_register_layers'",
    "not marked": "@pyframe.hookimpl",
    "wrong argument": "parameter 'model'",
    "returns a list": "pyframe_register_layers returned list",
    "no class": "'bad' among the layers is no class",
    "bad name": "'Bad Name'",
    "not announced": 'add "layers.worse"',
    "not registered": 'take out "layers.bad"',
    "no library": ".py.so",
    "no kernel": "'nowhere:bad'",
}
SHARED = "two with one module"
ALL_PACKAGES = [*PACKAGES, SHARED]

LOOK = """
import json, pyframe as pf
found = {}
for plugin in list(pf.plugins.installed().values()):
    try:
        pf.plugins.load(plugin.name)
        found[plugin.name] = "loaded"
    except pf.PyframeError as error:
        found[plugin.name] = str(error)
print(json.dumps(found))
"""


def test_there_are_sixty() -> None:
    tried = [*KERNELS, *NODES, *OPTIMIZERS, *ALL_PACKAGES]
    assert len(tried) + len(UNDER_A_SANITIZER) == 60
    assert len(tried) >= LEAST  # all of which are named: see below
    assert test_sanitizers.FAULTS.keys() >= set(UNDER_A_SANITIZER)
    for kind in (KERNELS, NODES, OPTIMIZERS):
        assert len({fault.name for fault in kind}) == len(kind)


def said_of(fault: Fault) -> str:
    """Return what the kit says of a fault; empty if nothing."""
    try:
        with np.errstate(all="ignore"):
            fault.tried_by()
    except ConformanceError as error:
        return str(error)
    return ""


def not_named(faults: list[Fault]) -> dict[str, str]:
    """Return the faults that are not named, with what was said instead."""
    here = os.getpid()
    said = {fault.name: said_of(fault) for fault in faults}
    assert os.getpid() == here
    return {f.name: said[f.name] for f in faults if not all(w in said[f.name] for w in f.words)}


@pytest.mark.compiler
@without_compiler
@kernels.needs_fork
def test_faults_of_kernels_are_named(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "LONGEST_CALL", 2.0)
    kernels.open_faulty(tmp_path_factory)
    assert not_named(KERNELS) == {}


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> None:
    """No processes for code in Python alone, even where other tests have opened kernels."""
    monkeypatch.setattr(apart, "foreign_code", lambda: False)


@pytest.mark.usefixtures("together")
def test_faults_of_nodes_and_layers_are_named() -> None:
    assert not_named(NODES) == {}


@pytest.mark.usefixtures("together")
def test_faults_of_optimizers_are_named() -> None:
    assert not_named(OPTIMIZERS) == {}


def test_faults_of_packages_are_named(tmp_path: Path) -> None:
    world = packages.World(tmp_path / "site")
    names = {}
    for i, what in enumerate(PACKAGES):
        source = packages.BROKEN[what][0]
        names[what] = f"pyframe-bad{i}"
        kind = "ops" if "register_ops" in source else "layers"
        world.install(names[what], source, provides=(f"{kind}.bad",))
    for name in ("pyframe-old", "pyframe-new"):
        world.layer(name, "same", module="shared")
    world.layer("pyframe-good", "good")
    found = json.loads(world.says(LOOK))
    assert found["pyframe-good"] == "loaded"
    for what, name in names.items():
        assert f"{name} 1.2 was set aside at" in found[name], (what, found[name])
        assert PACKAGES[what] in found[name], (what, found[name])
    for name in ("pyframe-old", "pyframe-new"):
        assert "pyframe-new 1.2 and pyframe-old 1.2 both name 'shared'" in found[name]
