"""The layers of the package: which module may import which, and who may name an op."""

from __future__ import annotations

import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structure

import pyframe
from pyframe.engine import program
from pyframe.native import core
from pyframe.plugins import registry

pytestmark = pytest.mark.once

PACKAGE = Path(pyframe.__file__).parent


def op_names() -> tuple[list[str], list[str]]:
    names = registry.ops.names()
    return names, [registry.ops.get(n).__name__ for n in names]


def test_imports_run_down_the_layers() -> None:
    assert structure.wrong_imports(PACKAGE) == []


def test_no_module_reaches_into_anothers_objects() -> None:
    assert structure.reaches(PACKAGE) == []


@pytest.mark.parametrize(
    "line",
    [
        "def f(plan):\n    return plan._stepper",
        "def f(plan):\n    plan._stepper = None",
        "from pyframe.graph.node import _with_constants",
        "x = Parameter._place",
        "x = getattr(plan, '_stepper')",
        "vars(plan)['_stepper'] = None",
        "x = plan.__dict__['_stepper']",
        "from .plan import _listed",
        "for cls in classes:\n    print(cls._stepper)",
    ],
)
def test_a_planted_reach_is_found(line: str, tmp_path: Path) -> None:
    (tmp_path / "loop.py").write_text(f"class Loop:\n    pass\n\n\n{line}\n", encoding="utf-8")
    (found,) = structure.reaches(tmp_path)
    assert found.startswith("loop.py:")


def test_what_is_its_own_is_no_reach(tmp_path: Path) -> None:
    text = "class A:\n    def f(self, other):\n        self._x = other._x._replace(y=1)\n"
    (tmp_path / "loop.py").write_text(text, encoding="utf-8")
    assert structure.reaches(tmp_path) == []


def test_the_middle_names_no_op() -> None:
    names, classes = op_names()
    assert len(names) > 20
    assert structure.named_ops(PACKAGE, names, classes) == []


PLANTED_IMPORTS = {
    "upwards": ("graph/node.py", "from pyframe.engine.plan import Plan"),
    "upwards, of a whole module": ("errors.py", "import pyframe.graph.node"),
    "upwards, relative": ("graph/op.py", "from ..training.trainer import Trainer"),
    "upwards, relative, from a package": ("ops/activations.py", "from ..engine.plan import Plan"),
    "upwards, in a function": ("plugins/registry.py", "def f():\n    from pyframe import layers"),
    "within a room": ("graph/node.py", "from pyframe.graph.op import Op"),
    "of the package itself": ("graph/op.py", "import pyframe"),
    "of a room": ("training/trainer.py", "from pyframe import engine"),
    "by a door": ("graph/__init__.py", "from pyframe.graph.node import Node"),
    "of cffi": ("plugins/registry.py", "import cffi"),
    "of the extension": ("graph/op.py", "from pyframe._core import lib"),
}


@pytest.mark.parametrize("planted", PLANTED_IMPORTS)
def test_a_planted_import_is_found(planted: str, tmp_path: Path) -> None:
    file, line = PLANTED_IMPORTS[planted]
    copy = tmp_path / "pyframe"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    with (copy / file).open("a", encoding="utf-8") as stream:
        stream.write(f"\n{line}\n")
    (found,) = structure.wrong_imports(copy)
    assert found.startswith(file)


@pytest.mark.parametrize(
    "line", ["from pyframe.ops import activations", "x = Sigmoid", 'x = "sigmoid"', "x = y.Sigmoid"]
)
def test_a_planted_op_name_is_found(line: str, tmp_path: Path) -> None:
    (tmp_path / "graph").mkdir()
    (tmp_path / "graph" / "order.py").write_text(
        f'"""About sigmoid."""\n{line}\n', encoding="utf-8"
    )
    (found,) = structure.named_ops(tmp_path, ["sigmoid"], ["Sigmoid"])
    assert found.startswith("graph/order.py:2")


def test_what_only_a_type_checker_imports_is_no_import(tmp_path: Path) -> None:
    text = "if TYPE_CHECKING:\n    from pyframe.engine.plan import Plan\n"
    (tmp_path / "model.py").write_text(text, encoding="utf-8")
    assert structure.wrong_imports(tmp_path) == []


def test_no_annotation_looks_up_the_layers() -> None:
    assert structure.upward_types(PACKAGE) == []


PLANTED_TYPES = {
    "upwards": ("callbacks.py", "from pyframe.training.trainer import Trainer"),
    "upwards, of a whole module": ("graph/op.py", "import pyframe.engine.plan"),
    "upwards, relative": ("training/fit.py", "from .trainer import Trainer"),
    "within a room": ("engine/state.py", "from pyframe.engine.engine import Engine"),
    "from the ground": ("hookspecs.py", "from pyframe.training.history import History"),
}


@pytest.mark.parametrize("planted", PLANTED_TYPES)
@pytest.mark.parametrize("check", ["TYPE_CHECKING", "typing.TYPE_CHECKING"])
def test_a_planted_type_from_above_is_found(planted: str, check: str, tmp_path: Path) -> None:
    file, line = PLANTED_TYPES[planted]
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(f"if {check}:\n    {line}\n", encoding="utf-8")
    (found,) = structure.upward_types(tmp_path)
    assert found.startswith(f"{file}:2")
    assert structure.wrong_imports(tmp_path) == []  # which looks at what runs


def test_a_type_from_below_is_none_from_above(tmp_path: Path) -> None:
    text = "if TYPE_CHECKING:\n    from pyframe.engine.plan import Plan\n    import numpy\n"
    (tmp_path / "model.py").write_text(text, encoding="utf-8")
    assert structure.upward_types(tmp_path) == []


LARGEST_CIRCLE = 6  # files


def test_circles_of_imports_are_small() -> None:
    largest = next(iter(structure.circles(PACKAGE)), [])
    assert len(largest) <= LARGEST_CIRCLE, largest


def test_a_planted_circle_is_found(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    texts = {
        "__init__.py": "from pyframe import a, d\n",
        "a/__init__.py": "",
        "a/one.py": "if TYPE_CHECKING:\n    from pyframe.a.two import Two\n",
        "a/two.py": "def f():\n    from pyframe import c\n",
        "c.py": "from .a import one\n",
        "d.py": "import pyframe.a.one\nimport pyframe.e\n",
        "e.py": "from pyframe.d import f\n",
        "f.py": "from pyframe.d import g\n",
    }
    for file, text in texts.items():
        (tmp_path / file).write_text(text, encoding="utf-8")
    assert structure.circles(tmp_path) == [["a.one", "a.two", "c"], ["d", "e"]]
    (tmp_path / "c.py").write_text("", encoding="utf-8")
    assert structure.circles(tmp_path) == [["d", "e"]]


MOST_MODULES = 14  # on the way of a batch


def holds(value: Any, data: list[np.ndarray], depth: int = 2) -> bool:
    """Return whether a value is one of some arrays, or a part of one, or contains that."""
    if isinstance(value, np.ndarray):
        return value.size > 0 and any(np.may_share_memory(value, array) for array in data)
    if depth and isinstance(value, dict):
        return any(holds(x, data, depth - 1) for x in value.values())
    return (
        depth > 0
        and isinstance(value, list | tuple)
        and any(holds(x, data, depth - 1) for x in value)
    )


def modules_that_hold(data: list[np.ndarray], run: Callable[[], object]) -> set[str]:
    """Return the modules of the package whose functions get or give some data while one runs."""
    found = set()

    def look(frame: types.FrameType, event: str, given: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event not in ("call", "return") or not path.is_relative_to(PACKAGE):
            return
        if any(holds(value, data) for value in (*frame.f_locals.values(), given)):
            found.add(str(path.relative_to(PACKAGE)))

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        run()
    finally:
        sys.setprofile(before)
    return found


def test_a_batch_passes_few_modules_from_fit_to_its_kernels() -> None:
    x, y = np.ones((200, 3), np.float32), np.ones((200, 1), np.float32)
    model = pyframe.Sequential([pyframe.layers.Dense(4, "relu"), pyframe.layers.Dense(1)])
    trainer = pyframe.Trainer(model, "l2", "adam")
    passed = modules_that_hold([x, y], lambda: trainer.fit(x, y, 2, 32, verbose=0))
    assert {"training/trainer.py", "engine/loop.py"} <= passed
    assert len(passed) <= MOST_MODULES, sorted(passed)


def test_a_module_without_a_layer_is_found(tmp_path: Path) -> None:
    (tmp_path / "odds_and_ends.py").write_text("", encoding="utf-8")
    assert len(structure.wrong_imports(tmp_path)) == 1


def test_no_class_and_no_function_is_too_long() -> None:
    assert structure.too_long(PACKAGE) == []


def body(lines: int) -> str:
    """Return a body of so many lines that count, with a docstring and blank lines between them."""
    return '    """One.\n\n    Two.\n    """\n' + "    x = 1\n\n" * lines


@pytest.mark.parametrize(
    ("head", "limit"),
    [("class A:", structure.CLASS_LINES), ("def f():", structure.FUNCTION_LINES)],
)
def test_a_planted_length_is_found(head: str, limit: int, tmp_path: Path) -> None:
    file = tmp_path / "loop.py"
    file.write_text(f"{head}\n{body(limit - 1)}", encoding="utf-8")
    assert structure.too_long(tmp_path) == []
    file.write_text(f"{head}\n{body(limit)}", encoding="utf-8")
    (found,) = structure.too_long(tmp_path)
    assert found.startswith("loop.py:1:")


PLUGINS = Path(__file__).resolve().parents[1] / "plugins"


@pytest.mark.skipif(not PLUGINS.is_dir(), reason="the plugins are not here")
def test_plugins_use_only_what_a_stranger_has() -> None:
    names = [*pyframe.__all__, *(cls.__name__ for cls in map(registry.ops.get, registry.ops))]
    folders = [folder for folder in PLUGINS.iterdir() if folder.is_dir()]
    assert len(folders) >= 2
    for folder in folders:
        assert structure.private_uses(folder, names) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("a.py", "from pyframe.native.core import lib"),
        ("a.py", "from pyframe.layers.base import Layer"),
        ("a.py", "import pyframe as pf\nx = pf.native"),
        ("a.py", "from pyframe.engine.lowering import lower"),
        ("a.py", "import cffi"),
        ("a.c", '#include "pyframe/abi.inc"'),
    ],
)
def test_a_plugin_that_uses_more_is_found(file: str, line: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(line + "\n", encoding="utf-8")
    assert len(structure.private_uses(tmp_path, ["layers", "errors"])) == 1


def test_an_instruction_has_the_fields_that_c_has() -> None:
    names = core.INSTRUCTION_DTYPE.names
    assert names == program.Instruction._fields
