"""The source distribution: what is in it, and which compilers build it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from pyframe.native import core

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
from rehearsal import checks  # noqa: E402

pytestmark = [
    pytest.mark.package,
    pytest.mark.skipif(sys.platform == "win32", reason="compilers are shell scripts here"),
]
on_x86 = pytest.mark.skipif(
    "avx2"
    not in (
        core.ffi.string(core.lib.pf_isa_name(i)).decode() for i in range(core.lib.pf_isa_count())
    ),
    reason="these instruction sets are those of x86-64",
)

# Compilers of old: one does not know the flags, the other one takes them and cannot do it.
WITHOUT_AVX512 = {
    "refusing": 'case "$*" in *-mavx512*) echo "unknown option" >&2; exit 1;; esac\nexec cc "$@"\n',
    "ignoring": 'for a; do shift; case "$a" in -mavx512*) ;; *) set -- "$@" "$a";; esac; done\n'
    'exec cc "$@"\n',
}


def script(path: Path, text: str) -> Path:
    """Write a shell script that can be called."""
    path.write_text(f"#!/bin/sh\n{text}", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def compiler(name: str, folder: Path) -> Path:
    """Return the path of a compiler, a script if it is no program by itself."""
    if name in WITHOUT_AVX512:
        return script(folder / name, WITHOUT_AVX512[name])
    if name == "zig":
        package = importlib.util.find_spec("ziglang")
        if package is None or package.origin is None:
            pytest.skip("ziglang is not installed")
        return script(folder / name, f'exec "{Path(package.origin).parent / "zig"}" cc "$@"\n')
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name} on this machine")
    return Path(found)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an unpacked source distribution."""
    out = tmp_path_factory.mktemp("sdist")
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", out, ROOT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (archive,) = out.glob("*.tar.gz")
    with tarfile.open(archive) as content:
        content.extractall(out, filter="data")
    return out / archive.name.removesuffix(".tar.gz")


def test_it_holds_a_whole_copy_of_the_repository_and_no_more(sources: Path) -> None:
    names = {str(path.relative_to(sources)) for path in sources.rglob("*") if path.is_file()}
    here = {
        str(path.relative_to(ROOT))
        for folder in ("pyframe", "core_c", "plugins", "tests", "docs", "examples", "tools")
        for path in (ROOT / folder).rglob("*")
        if path.suffix
        in (".py", ".c", ".h", ".inc", ".in", ".md", ".toml", ".csv", ".json", ".txt")
    }
    here = {name for name in here if not re.search(r"(^|/)(build|dist|\.\w+|\w+\.egg-info)/", name)}
    assert here - names == set()
    assert {"LICENSE", "CHANGELOG.md", "README.md", "pyproject.toml", "PKG-INFO"} <= names
    (archive,) = sources.parent.glob("*.tar.gz")
    assert checks.in_sources(archive) == []


def configure(sources: Path, with_compiler: Path, folder: Path) -> str:
    """Return what CMake says about the core's kernels."""
    pytest.importorskip("cmake")
    command = [sys.executable, "-m", "cmake", "-S", sources / "core_c", "-B", folder]
    settings = [
        f"-DCMAKE_C_COMPILER={with_compiler}",
        f"-DPython_EXECUTABLE={sys.executable}",
        "-DSKBUILD_SABI_VERSION=3.11",
    ]
    done = subprocess.run([*command, *settings], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return " ".join(done.stderr.split())  # it wraps its lines


@on_x86
@pytest.mark.parametrize("name", [*WITHOUT_AVX512, "cc"])
def test_an_instruction_set_that_the_compiler_lacks_is_left_out_with_a_message(
    name: str, sources: Path, tmp_path: Path
) -> None:
    path = compiler(name, tmp_path)
    said = configure(sources, path, tmp_path / "build")
    words = f"{path} cannot compile for avx512 (-mavx512f"
    assert (words in said) == (name in WITHOUT_AVX512)
    assert "cannot compile for avx2" not in said


TRY = """
import sys
sys.path.insert(0, {folder!r})
sys.meta_path = [f for f in sys.meta_path if "ditable" not in repr(f)]
import numpy as np, pyframe as pf
from pyframe.native import core
assert pf.__file__.startswith({folder!r}), pf.__file__
x, y = pf.Placeholder("x", shape=(None, 8)), pf.Placeholder("y", shape=(None, 1))
w = pf.Parameter(np.zeros((8, 1)), name="w")
plan = pf.compile(pf.L2Loss(y, pf.Linear(x, w, pf.Parameter(np.zeros(1), name="b"))),
                  optimizer=pf.optimizers.SGD(0.01))
losses = [plan.step({{x: np.ones((32, 8)), y: np.ones((32, 1))}}) for _ in range(50)]
assert losses[-1] < 0.01 * losses[0], losses
sets = [core.ffi.string(core.lib.pf_isa_name(i)).decode()
        for i in range(core.lib.pf_isa_count())]
print(*sets, "/", core.instruction_set())
"""


@pytest.mark.slow
@on_x86
@pytest.mark.parametrize("name", ["gcc", "clang", "zig", *WITHOUT_AVX512])
def test_it_builds_with_what_it_declares_and_runs(name: str, sources: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "CC": str(compiler(name, tmp_path)), "PYFRAME_ISA": ""}
    # In isolation: with the declared build requirements and no others.
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--outdir",
        tmp_path,
        f"-Cbuild-dir={tmp_path}/build",
        sources,
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (wheel,) = tmp_path.glob("*.whl")
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", target, wheel]
    subprocess.run(pip, check=True)
    code = TRY.format(folder=str(target))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    built, _, used = done.stdout.strip().partition(" / ")
    expected = ["baseline", "avx2"] if name in WITHOUT_AVX512 else ["baseline", "avx2", "avx512"]
    assert built.split() == expected
    runs_here = [isa for isa in expected if isa in core.instruction_sets()]
    assert used == runs_here[-1]  # the best of what is left
