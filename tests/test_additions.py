"""One of each kind is added to a copy of the tree: few files are touched, and the rest follows.

What a thing is stands on its class. So its name is found, the conformance kit tries it, its docs,
which are its docstring, are run, and no table elsewhere asks for a line.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from pyframe.native import core

# A copy of the package by itself is the same under each instruction set; its docs are run too.
pytestmark = [pytest.mark.once, pytest.mark.docs, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[1]
MOST_FILES = 3
TABLE = "tests/test_meaning.py::test_the_table_knows_every_loss_and_metric"
LINE = "CHANGELOG.md", "### Added\n\n", "### Added\n\n- Something new.\n"

ACTIVATION = '''class SteepRelu(LeakyRelu):
    """y = x for x > 0, else x / 4.

    Examples
    --------
    >>> import pyframe as pf
    >>> x = pf.Placeholder("x", shape=(None,))
    >>> pf.compile(pf.SteepRelu(x)).run({x: [-1.0, 2.0]})
    array([-0.25,  2.  ], dtype=float32)
    """

    op = "steep_relu"
    kernel = "leaky_relu"
    defaults = {"slope": 0.25}

    def __init__(self, x: Any, slope: float = 0.25, *, name: str | None = None) -> None:
        super().__init__(x, slope, name=name)

    @classmethod
    def reference(cls, *inputs: Any, **attributes: Any) -> Any:
        return super().reference(*inputs, **{"slope": 0.25, **attributes})


'''
LAYER = '''class Shift(Layer):
    """y = x + shift, one number for each channel.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.layers.Shift()(pf.Placeholder("x", shape=(None, 3))).shape
    (None, 3)
    """

    _attributes = dict.fromkeys(["shift"], VALUE)

    def build(self, *specs: Spec) -> None:
        (spec,) = specs
        self.shift = self.add_parameter("shift", _channels(self, spec), 0.5, dtype=spec.dtype)

    def call(self, *inputs: Value) -> Value:
        (x,) = inputs
        return x + self.shift


'''
OPTIMIZER = '''"""Plain descent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyframe.optimizers.base import Call, Optimizer


class Descent(Optimizer):
    """p = p - learning_rate g.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.optimizers.get("plain")
    Descent(learning_rate=0.1)
    """

    name = "descent"
    aliases = ("plain",)
    attributes = {
        "learning_rate_factor": "f8",
        "weight_decay": "f8",
        "momentum": "f8",
        "nesterov": "i8",
    }
    _attributes = Optimizer._attributes

    def __init__(
        self,
        learning_rate: Any = 0.1,
        *,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        nonfinite: str | None = None,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(
            learning_rate,
            clip_value=clip_value,
            clip_norm=clip_norm,
            nonfinite=nonfinite,
            groups=groups,
        )

    def lower_attributes(self, group: str) -> Mapping[str, Any]:
        return {**self.for_group(group), "weight_decay": 0.0, "momentum": 0.0, "nesterov": False}

    def calls(self, group: str) -> list[Call]:
        block = self.pack_attributes(group)
        return [Call("sgd_update", ("gradients",), ("parameters",), (), block, True, 4)]
'''
LOSS = '''class SmoothLoss(HuberLoss):
    """Huber's loss with another name.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.losses.get("smooth") is pf.SmoothLoss
    True
    """

    op = "smooth_loss"
    kernel = "huber_loss"
    aliases = ("smooth",)


'''
METRIC = '''class QuadraticError(Rmse):
    """The mean squared error.

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.metrics.get("quadratic") is pf.QuadraticError
    True
    """

    op = "quadratic_error"
    kernel = "rmse"
    aliases = ("quadratic",)

    def finalize(self, sums: Any) -> Any:
        return ratio(sums[0], sums[1])


'''

CALLBACK = '''class LossFloor(Callback):
    """End a fit once its loss is as small as wanted.

    Parameters
    ----------
    floor : float, default 0

    Examples
    --------
    >>> import pyframe as pf
    >>> pf.callbacks.get("loss_floor").floor
    0.0
    """

    _attributes: ClassVar[dict[str, str]] = {"floor": ""}

    def __init__(self, floor: float = 0.0) -> None:
        self.floor = check_number("floor", floor)

    def on_epoch_end(self, trainer: Any, epoch: int, logs: Logs) -> None:
        if logs["loss"] <= self.floor:
            trainer.stop_training = True


'''


class Addition(NamedTuple):
    """What is added, as one would by hand: (file, old text, new text)."""

    kind: str
    name: str
    edits: tuple[tuple[str, str, str], ...]
    tests: tuple[str, ...]  # besides those that are there for every kind


def before(text: str, added: str) -> tuple[str, str]:
    return text, added + text


ADDITIONS = {
    "activation": Addition(
        "ops",
        "steep_relu",
        (
            ("pyframe/ops/activations.py", *before("class LeakyReluGrad(", ACTIVATION)),
            ("pyframe/ops/activations.py", "    LeakyRelu,\n", "    LeakyRelu,\n    SteepRelu,\n"),
            (
                "tests/test_layers.py",
                'expected = {"relu",',
                'expected = {"steep_relu", "relu",',
            ),
            LINE,
        ),
        ("tests/test_layers.py::test_the_rectifiers_get_larger_weights", TABLE),
    ),
    "layer": Addition(
        "layers",
        "shift",
        (
            ("pyframe/layers/norm.py", *before("class LayerNorm(", LAYER)),
            (
                "pyframe/layers/__init__.py",
                "LayerNorm, RMSNorm\n",
                "LayerNorm, RMSNorm, Shift\n",
            ),
            (
                "pyframe/layers/__init__.py",
                '    "LayerNorm",\n',
                '    "LayerNorm",\n    "Shift",\n',
            ),
            (
                "pyframe/layers/__init__.py",
                *before('        "layer_norm": LayerNorm,\n', '        "shift": Shift,\n'),
            ),
            LINE,
        ),
        (),
    ),
    "optimizer": Addition(
        "optimizers",
        "descent",
        (
            ("pyframe/optimizers/descent.py", "", OPTIMIZER),
            (
                "pyframe/optimizers/__init__.py",
                *before(
                    "from pyframe.optimizers.search",
                    "from pyframe.optimizers.descent import Descent\n",
                ),
            ),
            ("pyframe/optimizers/__init__.py", '    "Call",\n', '    "Call",\n    "Descent",\n'),
            (
                "pyframe/optimizers/__init__.py",
                "    SGD,\n    Adam,\n",
                "    SGD,\n    Descent,\n    Adam,\n",
            ),
            LINE,
        ),
        ("tests/test_options.py",),
    ),
    "loss": Addition(
        "losses",
        "smooth_loss",
        (
            ("pyframe/ops/losses.py", *before("class HuberLossGrad(", LOSS)),
            (
                "pyframe/ops/losses.py",
                "    HuberLoss,\n    HuberLossGrad,\n",
                "    SmoothLoss,\n    HuberLoss,\n    HuberLossGrad,\n",
            ),
            (
                "tests/test_meaning.py",
                '"huber_loss", ',
                '"huber_loss", "smooth_loss", ',
            ),
            LINE,
        ),
        (TABLE, "tests/test_losses_and_metrics.py"),
    ),
    "metric": Addition(
        "metrics",
        "quadratic_error",
        (
            ("pyframe/ops/metrics.py", *before("class R2(", METRIC)),
            (
                "pyframe/ops/metrics.py",
                "    R2,\n    MeanOf,",
                "    QuadraticError,\n    R2,\n    MeanOf,",
            ),
            (
                "tests/test_meaning.py",
                'METRICS = ["accuracy",',
                'METRICS = ["quadratic_error", "accuracy",',
            ),
            (
                "tests/test_meaning.py",
                *before(
                    '        "mae": np.mean(', '        "quadratic_error": np.mean(error**2),\n'
                ),
            ),
            LINE,
        ),
        (TABLE, "tests/test_losses_and_metrics.py", "tests/test_reports.py"),
    ),
    "callback": Addition(
        "callbacks",
        "loss_floor",
        (
            ("pyframe/callbacks/ending.py", *before("class TerminateOnNaN(", CALLBACK)),
            (
                "pyframe/callbacks/__init__.py",
                "import TerminateOnNaN, TimeLimit\n",
                "import LossFloor, TerminateOnNaN, TimeLimit\n",
            ),
            (
                "pyframe/callbacks/__init__.py",
                '    "Logs",\n',
                '    "Logs",\n    "LossFloor",\n',
            ),
            (
                "pyframe/callbacks/__init__.py",
                *before('        "mlflow_logger"', '        "loss_floor": LossFloor,\n'),
            ),
            LINE,
        ),
        (),
    ),
}

# Runs pytest on the copy: an editable install would lead imports to the tree it was made from.
RUN = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if not type(f).__module__.startswith("_editable")]
sys.path.insert(0, sys.argv[1])
import pyframe, pytest
assert pyframe.__file__.startswith(sys.argv[1]), pyframe.__file__
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[2:]]))
"""

# In the copy: it is there, and the derived checks of it are.
THERE = """
import pytest
from pyframe.plugins.registry import BUILT_IN, registries
from pyframe.testing import conformance

def test_it_is_there():
    assert {name!r} in registries[{kind!r}].names()
    assert registries[{kind!r}].entry({name!r}).distribution == BUILT_IN
    assert registries[{kind!r}].get({name!r}).__doc__

@pytest.mark.parametrize("check", [
    case for case in conformance("pyframe-nn") if str(case.id).startswith("{kind}.{name}:")
])
def test_conformance(check):
    check()
"""


def copied(folder: Path) -> Path:
    """Return a copy of the tree with the core that is installed."""
    skip = shutil.ignore_patterns("__pycache__", "_core*", "_launcher*", "build")
    for part in ("pyframe", "tests", "docs"):
        shutil.copytree(ROOT / part, folder / part, ignore=skip)
    shutil.copytree(ROOT / "core_c", folder / "core_c", ignore=skip)
    for file in ("CHANGELOG.md", "README.md", "pyproject.toml"):
        shutil.copy2(ROOT / file, folder / file)
    library = Path(core.CORE_PATH)
    for extension in library.parent.glob("_*" + "".join(library.suffixes)):
        shutil.copy2(extension, folder / "pyframe" / extension.name)
    return folder


def add(addition: Addition, tree: Path) -> set[str]:
    """Make the edits, and return the files that they touch."""
    for file, old, new in addition.edits:
        path = tree / file
        text = path.read_text("utf-8") if old else ""
        assert not old or text.count(old) == 1, (file, old)
        path.write_text(text.replace(old, new) if old else new, "utf-8")
    return {file for file, _, _ in addition.edits}


def passes(tree: Path, *arguments: str) -> tuple[bool, str]:
    """Return whether pytest passes on the copy, and what it said."""
    command = [sys.executable, "-c", RUN, str(tree), *arguments]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=600)
    return done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_adding_one_touches_few_files(tmp_path: Path) -> None:
    """All are added to one copy, whose tests would take as long for each of them."""
    tree = copied(tmp_path)
    modules: set[str] = set()
    tests = ["tests/test_structure.py", "tests/test_changelog.py"]
    for what, addition in ADDITIONS.items():
        touched = add(addition, tree)
        assert len(touched) <= MOST_FILES, touched
        modules |= {file for file in touched if file.startswith("pyframe/")}
        written = THERE.format(kind=addition.kind, name=addition.name)
        (tree / "tests" / f"test_there_{what}.py").write_text(written, "utf-8")
        tests += [f"tests/test_there_{what}.py", *addition.tests]
    names = [m.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for m in modules]
    docs = [f"tests/test_docstrings.py::test_examples[{name}]" for name in sorted(names)]
    # What is planted in copies of the package is found whatever was added to it.
    fine, said = passes(tree, "-k", "not planted", *dict.fromkeys(tests), *docs)
    assert fine, said


def test_one_that_is_wrong_is_found(tmp_path: Path) -> None:
    """Planted: a metric with the kernel of another."""
    tree = copied(tmp_path)
    addition = ADDITIONS["metric"]
    add(addition, tree)
    path = tree / "pyframe" / "ops" / "metrics.py"
    text = path.read_text("utf-8")
    path.write_text(text.replace('    kernel = "rmse"\n', '    kernel = "mae"\n'), "utf-8")
    (tree / "tests" / "test_there.py").write_text(
        THERE.format(kind="ops", name="quadratic_error"), "utf-8"
    )
    fine, said = passes(tree, "tests/test_there.py")
    assert not fine and "FAILED tests/test_there.py::test_conformance[ops.quadratic_error:" in said
