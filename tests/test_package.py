"""The package as it is shipped: headers, wheel, version, the price of an import."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import pyframe as pf
from pyframe.errors import ArgumentError
from pyframe.native import core
from pyframe.native.core import newer_sources

pytestmark = pytest.mark.package

ROOT = Path(__file__).resolve().parent.parent

# Puts a folder first on the path, in front of an editable install's finder too.
FROM_FOLDER = """
import sys
sys.meta_path = [f for f in sys.meta_path if "ditable" not in repr(f)]
sys.path.insert(0, {folder!r})
import pyframe as pf
assert pf.__file__.startswith({folder!r}), pf.__file__
"""

HEADER_USER = """
#include "pyframe/pyframe.h"
int use(const pf_call *call);
int use(const pf_call *call) { return call->host->abi_major == PF_ABI_MAJOR ? PF_OK : 1; }
"""


@pytest.mark.parametrize(
    ("compiler", "suffix", "standard"),
    [
        ("cc", ".c", "-std=c11"),
        ("c++", ".cpp", "-std=c++17"),
    ],
)
def test_the_header_compiles_alone(tmp_path, compiler, suffix, standard):
    found = shutil.which(compiler)
    if found is None:
        pytest.skip(f"there is no {compiler} on this machine")
    source = tmp_path / f"user{suffix}"
    source.write_text(HEADER_USER)
    flags = [standard, "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", pf.get_include()]
    result = subprocess.run([found, *flags, str(source)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_core_needs_five_packages_only():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {d.split(">")[0].strip() for d in project["dependencies"]}
    assert names == {"numpy", "cffi", "pluggy", "safetensors", "tqdm"}


def test_a_source_tree_that_is_not_built_says_so(tmp_path):
    shutil.copytree(
        ROOT / "pyframe", tmp_path / "pyframe", ignore=shutil.ignore_patterns("*.so", "*.pyd")
    )
    code = FROM_FOLDER.format(folder=str(tmp_path))
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert result.returncode != 0
    assert "has not been built" in result.stderr


def test_a_core_that_is_older_than_its_sources_is_noticed(tmp_path):
    built = tmp_path / "core.so"
    built.touch()
    os.utime(built, (1000, 1000))
    (tmp_path / "include").mkdir()
    for name, when in (
        ("old.c", 900),
        ("new.c", 1100),
        ("include/new.inc", 1001),
        ("new.py", 2000),
    ):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (when, when))
    assert newer_sources(str(tmp_path), str(built)) == ["new.c", "new.inc"]


def with_isa(name: str) -> subprocess.CompletedProcess[str]:
    code = "import pyframe.native.core as n; print(n.instruction_set())"
    environment = {**os.environ, "PYFRAME_ISA": name}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_the_best_instruction_set_is_taken_unless_one_is_asked_for() -> None:
    sets = core.instruction_sets()
    assert sets[0] == "baseline"
    assert with_isa("").stdout.strip() == sets[-1]
    for name in sets:
        assert with_isa(name).stdout.strip() == name


@pytest.mark.parametrize("name", ["mmx", "AVX2"])
def test_an_instruction_set_that_is_not_there_is_refused(name: str) -> None:
    result = with_isa(name)
    assert result.returncode != 0
    assert f"ArgumentError: PYFRAME_ISA={name}: this machine" in result.stderr


def test_a_set_that_the_machine_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "instruction_sets", lambda: ["baseline"])
    with pytest.raises(ArgumentError, match="PYFRAME_ISA=avx2: this machine.*have baseline;"):
        core.choose_instruction_set("avx2")
    assert core.choose_instruction_set(None) == "baseline"


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="/proc/cpuinfo is Linux's")
def test_the_probing_agrees_with_the_operating_system() -> None:
    flags = set(re.findall(r"\w+", Path("/proc/cpuinfo").read_text(encoding="utf-8")))
    needs = {
        "avx2": {"avx2", "fma"},
        "avx512": {"avx512f", "avx512dq", "avx512bw", "avx512vl", "avx2", "fma"},
        "neon": {"asimd"},
    }
    lib, ffi = core.lib, core.ffi
    built = [ffi.string(lib.pf_isa_name(i)).decode() for i in range(lib.pf_isa_count())]
    expected = [name for name in built if needs.get(name, set()) <= flags]
    assert core.instruction_sets() == expected
