"""Parts of vectors: that they are the lanes asked for, and that no memory beyond is touched."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import mutants
import numpy as np
import pytest
from toolchain import CXX, INCLUDE, TESTS, C, needs_compiler, try_to_compile

from pyframe.native.core import Product, instruction_sets

LANES = INCLUDE / "pyframe" / "lanes.h"
EMULATOR = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
ZIG = importlib.util.find_spec("ziglang") is not None

needs_pages = pytest.mark.skipif(sys.platform == "win32", reason="protects a page by mprotect")


def flags_of(isa: str) -> list[str]:
    return mutants.flags_set_to(f"FLAGS_{isa}")


def check(program: list[str]) -> int:
    return subprocess.run(program, timeout=60).returncode


def built(
    folder: Path, compiler: list[str], isa: str, *flags: str, old: str = "", new: str = ""
) -> Path:
    """Compile the check with the header, or with one in which a text is replaced by another."""
    text = LANES.read_text(encoding="utf-8")
    assert not old or text.count(old) == 1, f"{old!r} stands {text.count(old)} times in lanes.h"
    (folder / "pyframe").mkdir()
    (folder / "pyframe" / "lanes.h").write_text(text.replace(old, new) if old else text)
    program = folder / "check"
    command = [*compiler, "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wshadow", "-Werror"]
    command += [*flags, *flags_of(isa), f"-I{folder}", str(TESTS / "lanes_check.c")]
    subprocess.run([*command, "-o", str(program)], check=True)
    return program


@needs_compiler
@needs_pages
@pytest.mark.parametrize("level", ["-O0", "-O2", "-O3"])
@pytest.mark.parametrize("isa", instruction_sets())
@pytest.mark.parametrize("compiler", C)
def test_parts_of_vectors(compiler: str, isa: str, level: str, tmp_path: Path) -> None:
    assert check([str(built(tmp_path, [compiler], isa, level))]) == 0


@pytest.mark.compiler
@pytest.mark.skipif(
    not ZIG or EMULATOR is None or platform.machine() == "aarch64" or sys.platform != "linux",
    reason="runs code for ARM under an emulator",
)
@pytest.mark.parametrize("level", ["-O0", "-O2"])
def test_parts_of_vectors_on_arm(level: str, tmp_path: Path) -> None:
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl"]
    assert check([str(EMULATOR), str(built(tmp_path, zig, "neon", level))]) == 0


# What is wrong, with which instruction set, in which the check must see it.
FAULTS = [
    (
        "a load of a whole vector",
        "avx2",
        "return (pf_vec_f32)_mm256_maskload_ps(p, pf_first_words(lanes));",
        "return pf_load_f32(p) + 0 * (float)lanes;",
    ),
    ("a mask one lane off", "avx2", "(words + 8 - count)", "(words + 7 - count)"),
    ("a mask of half the lanes", "avx2", "pf_first_words(2 * lanes)", "pf_first_words(lanes)"),
    ("a lane left out", "avx2", "if (lanes & 1) _mm_store_ss(p, rest);", "(void)rest;"),
    ("a lane too many", "avx2", "if (lanes & 1) _mm_store_sd(p, rest);", "_mm_store_sd(p, rest);"),
    ("a third lane too many", "baseline", "if (lanes & 1) p[2] = x[2];", "p[2] = x[2];"),
    ("a third lane not loaded", "baseline", "if (lanes & 1) x[2] = p[2];", ""),
    ("a count that wraps", "avx512", "count >= 16 ? 0xffff : (1 << count) - 1", "1 << count"),
]


@needs_compiler
@needs_pages
@pytest.mark.parametrize(("isa", "old", "new"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_a_planted_fault_is_seen(isa: str, old: str, new: str, tmp_path: Path) -> None:
    if isa not in instruction_sets() or (isa == "baseline" and platform.machine() == "aarch64"):
        pytest.skip(f"this machine does not run {isa}")
    assert check([str(built(tmp_path, [C[0]], isa, "-O2", old=old, new=new))]) != 0


@needs_compiler
@pytest.mark.parametrize("compiler", [*C, *CXX])
@pytest.mark.parametrize("isa", instruction_sets())
def test_the_header_compiles_alone(compiler: str, isa: str, tmp_path: Path) -> None:
    source = tmp_path / ("alone.cpp" if "++" in compiler else "alone.c")
    source.write_text("#include <pyframe/lanes.h>\n#include <pyframe/lanes.h>\n")
    flags = ("-fsyntax-only", "-Wundef", *flags_of(isa))
    assert not try_to_compile(source, tmp_path / "none", *flags, compiler=compiler)


# ---- in products ----


@pytest.mark.parametrize("isa", instruction_sets())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_a_column_comes_out_the_same_in_any_company(
    dtype: str, transpose_b: bool, isa: str
) -> None:
    """Wherever the vectors of a tile end: with a scale and all else that a product adds."""
    rng = np.random.default_rng(2)
    m, k, most = 11, 23, 70
    a = rng.standard_normal((m, k)).astype(dtype)
    b, bias = rng.standard_normal((k, most)).astype(dtype), rng.standard_normal(most).astype(dtype)
    start = rng.standard_normal((m, most)).astype(dtype)
    residual = rng.standard_normal((m, most)).astype(dtype)

    def product(n: int) -> np.ndarray:
        c = start[:, :n].copy()
        left = [np.ascontiguousarray(v[..., :n]) for v in (b, bias, residual)]
        right = np.ascontiguousarray(left[0].T) if transpose_b else left[0]
        fields = {"bias": left[1], "residual": left[2], "residual_row": n}
        options = {"scale": 0.37, "accumulate": 1, **fields}
        Product(a, right, c, transpose_b=transpose_b, isa=isa, **options).run()
        return c

    whole = product(most)
    for n in range(9, most):  # up to half a vector of columns are added up in another order
        assert np.array_equal(product(n), whole[:, :n]), n
