"""Runs every example in the docstrings of the package."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import pyframe
from pyframe import hookspecs

pytestmark = pytest.mark.docs

MODULES = [
    "pyframe",
    *(
        m.name
        for m in pkgutil.walk_packages(pyframe.__path__, "pyframe.")
        if not m.name.endswith(("._core", ".__main__"))
    ),
]
HOOKS = [name for name, _ in inspect.getmembers(hookspecs) if name.startswith("pyframe_")]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # an example may write files
    module = importlib.import_module(name)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=flags)
    for test in doctest.DocTestFinder().find(module, name):
        runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_shows_an_example(name: str) -> None:
    doc = inspect.getdoc(getattr(hookspecs, name)) or ""
    assert doctest.DocTestParser().get_examples(doc), f"{name} has no example"


def test_every_public_name_shows_an_example_that_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each entry of the reference, its docstring has a session, which `test_examples` runs."""
    pytest.importorskip("griffe")
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "tools")
    import site_reference

    pages = site_reference.entries().values()
    names = [full for page in pages for full, other in page if other is None]
    run = {
        test.name
        for name in MODULES
        for test in doctest.DocTestFinder().find(importlib.import_module(name), name)
        if test.examples
    }
    missing = []
    for full in names:
        module, _, name = full.rpartition(".")
        of = getattr(importlib.import_module(module), name)
        home = f"{getattr(of, '__module__', None)}.{getattr(of, '__qualname__', None)}"
        if (inspect.isclass(of) or inspect.isroutine(of)) and home not in run:
            missing.append(full)
    assert len(names) > 430 and not missing


def test_a_wrong_example_is_found() -> None:
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "planted", None, 0)
    runner = doctest.DocTestRunner()
    runner.run(test, out=lambda text: None)
    assert runner.failures == 1
