"""Compilers for the tests that need one, and what they compile against."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

import pyframe

Test = TypeVar("Test", bound=Callable[..., Any])
TESTS = Path(__file__).resolve().parent
INCLUDE = Path(pyframe.get_include())
STRICT = ("-Wall", "-Wextra", "-Wshadow", "-pedantic", "-Werror")
C = [name for name in ("gcc", "clang") if shutil.which(name)]
CXX = [name for name in ("g++", "clang++") if shutil.which(name)]

without_compiler = pytest.mark.skipif(
    not C or sys.platform == "win32", reason="needs gcc or clang, on Linux or macOS"
)


def compiles(without: pytest.MarkDecorator) -> Callable[[Test], Test]:
    """Return what marks a test that compiles C, skipped where there is none of the compilers."""
    return lambda test: pytest.mark.compiler(without(test))


needs_compiler = compiles(without_compiler)


def compile_c(
    source: Path,
    result: Path,
    *flags: str,
    include: Path = INCLUDE,
    compiler: str | None = None,
) -> Path:
    """Compile a file and return what came out; fail with what the compiler said."""
    said = try_to_compile(source, result, *flags, include=include, compiler=compiler)
    assert not said, said
    return result


def try_to_compile(
    source: Path,
    result: Path,
    *flags: str,
    include: Path = INCLUDE,
    compiler: str | None = None,
) -> str:
    """Compile a file and return what the compiler said: nothing if all is well."""
    compiler = compiler or C[0]
    standard = "-std=c++17" if "++" in compiler else "-std=c11"
    command = [compiler, standard, *STRICT, f"-I{include}", *flags, str(source), "-o", str(result)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.stderr or ("" if done.returncode == 0 else f"it ended with {done.returncode}")


def library(
    folder: Path, source: str | Path, *flags: str, name: str = "plugin", **how: object
) -> Path:
    """Compile a shared library from a file or a text."""
    if isinstance(source, str):
        path = folder / f"{name}.c"
        path.write_text(source, encoding="utf-8")
        source = path
    return compile_c(source, folder / f"{name}.so", "-shared", "-fPIC", "-O1", *flags, **how)  # type: ignore[arg-type]
