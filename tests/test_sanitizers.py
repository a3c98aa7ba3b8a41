"""Faults in a plugin's kernels that only a sanitizer sees, and what there is without one."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from toolchain import without_compiler

import pyframe as pf
from pyframe.commands import cli
from pyframe.commands.scaffold import new_plugin
from pyframe.testing import sanitizers

# It builds a package anew and runs it in processes of their own.
pytestmark = pytest.mark.once

KERNEL = "csrc/planted.c"
TOP = '#include "kernels.h"\n'
LOOP = "    for (int64_t r = 0; r < m; r++)\n"


def needs(sanitizer: str) -> None:
    pytest.importorskip("scikit_build_core")
    for tool in ("cmake", "ninja"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    try:
        sanitizers.find_runtime(sanitizers.SANITIZERS[sanitizer].runtime)
    except pf.errors.MissingCompilerError as error:
        pytest.skip(str(error))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package with kernels in C, of which nothing is installed."""
    new_plugin("pyframe-planted", "c", tmp_path, op="planted", layer="planting")
    return tmp_path / "pyframe-planted"


def plant(package: Path, before: str, inside: str) -> None:
    """Put C before the kernels of a package, and where the first one begins its work."""
    text = (package / KERNEL).read_text(encoding="utf-8")
    text = text.replace(TOP, TOP + before).replace(LOOP, inside + LOOP, 1)
    (package / KERNEL).write_text(text, encoding="utf-8")


PARTS = """
typedef struct { real *y; int64_t n; } work;
static void write_part(void *context, int64_t part) { /* and the first of the next part */
    const work *w = context;
    for (int64_t i = 100 * part; i <= 100 * (part + 1) && i < w->n; i++) w->y[i] = 0;
}
"""

FAULTS = {
    "64 kB are lost at each call": (
        "leaks",
        "#include <stdlib.h>\n",
        "    char *volatile lost = malloc(65536);\n    lost[0] = 1;\n    lost = NULL;\n",
        "[leak] planted: forward: what the kernel allocated is lost: ",
    ),
    "an input is read beyond its end, and nothing comes of it": (
        "address",
        "",
        "    volatile real beyond = x[m * n];\n    (void)beyond;\n",
        "memory right beside an operand",
    ),
    "a sum of integers is too large for them": (
        "address",
        "",
        "    volatile int32_t large = INT32_MAX;\n    large = large + (int32_t)(n >= 0);\n",
        "undefined behaviour",
    ),
    "a counter that all threads count with": (
        "threads",
        "static int64_t calls;\n",
        "    calls++;\n",
        "Location is global 'calls'",
    ),
    "two parts that write the same number to the same place": (
        "threads",
        PARTS,
        "    work w = {y, m * n};\n"
        "    call->host->parallel_for((m * n + 99) / 100, 1, write_part, &w);\n",
        "in write_part",
    ),
}


@pytest.mark.compiler
@pytest.mark.slow
@pytest.mark.package
@without_compiler
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_changes_no_result_is_named(
    fault: str, package: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sanitizer, before, inside, words = FAULTS[fault]
    needs(sanitizer)
    plant(package, before, inside)
    assert sanitizers.check_sanitized(str(package), sanitizer) == 1
    said = capfd.readouterr().out
    assert words in said and f"{package / KERNEL}:" in said, said
    assert "planted_grad: forward: nothing found" in said  # the others go on
    if sanitizer != "leaks":
        assert "case: Planted.sample(Draw(" in said, said


@pytest.mark.compiler
@pytest.mark.slow
@pytest.mark.package
@without_compiler
def test_kernels_without_a_fault_pass(package: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for sanitizer, flag in (("address", "--asan"), ("leaks", "--leaks"), ("threads", "--tsan")):
        needs(sanitizer)
        assert cli.main(["plugins", "check", str(package), flag]) == 0
        said = capfd.readouterr().out
        assert said.count("nothing found") == len(said.splitlines()) >= 4, said


# ---- what is not to be had ----


def check(*arguments: str) -> int:
    return cli.main(["plugins", "check", *arguments])


def test_without_a_runtime_it_is_left_out(
    package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sanitizers, "_library_of", lambda compiler, library: None)
    monkeypatch.setattr(sanitizers, "find_compiler", lambda: ["cc"])
    assert check(str(package), "--asan") == cli.LEFT_OUT == 77
    if sys.platform == "linux":
        assert "no libasan.so lies beside cc" in capsys.readouterr().err
    monkeypatch.setattr(sys, "platform", "darwin")
    assert check(str(package), "--tsan") == 77
    assert "on Linux only, and this is darwin" in capsys.readouterr().err


def test_a_plugin_without_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check("no-such-plugin", "--asan") == 1
    assert "'no-such-plugin' is not installed" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert check(str(tmp_path / "empty"), "--asan") == 1
    assert "there is no pyproject.toml in" in capsys.readouterr().err
    monkeypatch.setattr(sanitizers, "_is_installed", lambda plugin: True)
    monkeypatch.setattr(sanitizers, "source_folder", lambda plugin: None)
    assert check("pyframe-far", "--asan") == 1
    assert "check ./pyframe-far'" in capsys.readouterr().err


@pytest.mark.compiler
@without_compiler
def test_a_package_that_cannot_be_built(
    package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("address")
    (package / "pyproject.toml").write_text('[project]\nname = "pyframe-planted"\nversion = "x"\n')
    assert check(str(package), "--asan") == 1
    assert "cannot be built with a sanitizer; the end of what was said:" in capsys.readouterr().err


def test_flags_that_go_with_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plugins", "list", "--asan"]) == 1
    assert "go with 'pyframe plugins check NAME'" in capsys.readouterr().err
    assert cli.main(["plugins", "check"]) == 1
    assert "check NAME" in capsys.readouterr().err


def test_a_plugin_is_checked_by_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed = [plugin.name for plugin in pf.plugins.installed().values()]
    if "pyframe-lion" not in installed:
        pytest.skip("needs pyframe-lion")
    (tmp_path / "test_it.py").write_text("raise SystemExit(3)\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)  # tests that lie about are not its matter
    assert check("pyframe-lion") == 0
    assert "pyframe-lion: all checks pass" in capsys.readouterr().out
    assert check("pyframe-nowhere") == 1
