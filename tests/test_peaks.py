"""The roofs that shares are measured against: that their loops stay in registers, and that a report
says so when they are off. No clock decides here."""

from __future__ import annotations

import importlib.util
import itertools
import platform
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import mutants
import numpy as np
import pytest
from toolchain import C

import pyframe as pf
from pyframe.commands import bench
from pyframe.engine import profiler
from pyframe.engine.profiler import Profile, Record, doubts
from pyframe.native import core

# ---- the object code ----

ZIG = importlib.util.find_spec("ziglang") is not None
COMPILERS = {name: [name] for name in C}
if ZIG:
    COMPILERS["zig"] = [sys.executable, "-m", "ziglang", "cc"]
X86 = platform.machine() in ("x86_64", "AMD64")
SETS = ["baseline", "avx2", "avx512"] if X86 else ["baseline", "neon"]
CASES = [(name, isa, "") for name in COMPILERS for isa in SETS]
if ZIG and X86:
    CASES.append(("zig", "neon", "aarch64-linux-gnu"))

needs_listing = pytest.mark.skipif(
    not CASES or sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"),
    reason="reads the assembly of gcc, clang or zig on Linux",
)


def knows(folder: Path, compiler: list[str], flag: str) -> bool:
    """Tell whether a compiler takes a flag, as CMakeLists.txt asks."""
    source = folder / "nothing.c"
    source.write_text("int nothing;", encoding="utf-8")
    command = [*compiler, "-Werror", flag, "-c", str(source), "-o", str(folder / "nothing.o")]
    return subprocess.run(command, capture_output=True).returncode == 0


def assembly(folder: Path, name: str, isa: str, target: str, bits: int, text: str) -> str:
    """Return what a compiler makes of peaks.c, or of a variant of it, with the project's flags."""
    compiler = [*COMPILERS[name], *(["-target", target] if target else [])]
    flags = (
        mutants.flags_set_to("CMAKE_C_FLAGS_RELEASE")
        + mutants.flags_set_to("PYFRAME_FLOATS")
        + mutants.flags_set_to(f"FLAGS_{isa}")
    )
    flags += [f for f in mutants.flags_set_to("WANTED") if knows(folder, compiler, f)]
    flags += [f"-DPF_REAL_BITS={bits}", f"-DPF_ISA={isa}", "-DPF_TARGET_MINOR=PF_ABI_MINOR"]
    flags += [f"-I{mutants.CORE}", f"-I{mutants.CORE / 'include'}"]
    source, result = folder / "peaks.c", folder / "peaks.s"
    source.write_text(text, encoding="utf-8")
    command = [*compiler, "-std=c11", "-fPIC", *flags, "-S", str(source), "-o", str(result)]
    subprocess.run(command, check=True)
    return result.read_text(encoding="utf-8")


def loops(text: str, function: str) -> list[list[str]]:
    """Return the lines of each loop of a function: from a label to the jump back to it."""
    begin = re.search(rf"^{function}:", text, re.MULTILINE)
    assert begin is not None, f"{function} is not in the listing"
    body = text[begin.end() :].split(f".size\t{function}")[0].splitlines()
    at = {line.split(":")[0]: i for i, line in enumerate(body) if line.startswith(".L")}
    found = []
    for i, line in enumerate(body):
        label = re.search(r"(\.L\w+)\s*$", line) if line.startswith("\t") else None
        if label and at.get(label[1], i) < i and not line.startswith("\t."):
            found.append(body[at[label[1]] : i + 1])
    return found


def trouble(text: str, function: str) -> str:
    """Return what is wrong with the loop of a peak: it must hold all of its sums, and no memory."""
    steps = re.compile(r"^\tv?(fn?m(add|la|sub)|mul)", re.MULTILINE)
    full = [loop for loop in loops(text, function) if len(steps.findall("\n".join(loop))) >= 12]
    if not full:
        return "no loop works on all sums"
    memory = [line for loop in full for line in loop if re.search(r"\(%r|\[(sp|x\d)", line)]
    if memory:
        return f"a loop moves memory: {memory}"
    # The plain set of x86 has nothing but copies to make; elsewhere one a sum halves the rate.
    for loop in map("\n".join, full):
        copies = len(re.findall(r"^\tv?mov\w*\s+(?:%[xyz]mm|v\d)", loop, re.MULTILINE))
        if "fm" in loop and 2 * copies > len(steps.findall(loop)):
            return f"a loop copies {copies} sums"
    return ""


PEAKS = (mutants.CORE / "peaks.c").read_text(encoding="utf-8")


@pytest.mark.compiler
@needs_listing
@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize(("name", "isa", "target"), CASES)
def test_the_sums_of_a_peak_stay_in_registers(
    tmp_path: Path, name: str, isa: str, target: str, bits: int
) -> None:
    text = assembly(tmp_path, name, isa, target, bits, PEAKS)
    for loop in ("peak_operations", "peak_operations_again"):
        assert not trouble(text, f"pf_{loop}_f{bits}_{isa}")


@pytest.mark.compiler
@needs_listing
@pytest.mark.parametrize(("name", "isa", "target"), CASES)
def test_sums_on_the_stack_are_seen(tmp_path: Path, name: str, isa: str, target: str) -> None:
    # A volatile sum is one that every compiler keeps in memory.
    text = PEAKS.replace("vec sum[SUMS];", "volatile vec sum[SUMS];")
    assert text != PEAKS
    listing = assembly(tmp_path, name, isa, target, 32, text)
    assert trouble(listing, f"pf_peak_operations_f32_{isa}")
    assert not trouble(listing, f"pf_peak_operations_again_f32_{isa}")


@pytest.mark.compiler
@needs_listing
@pytest.mark.skipif("gcc" not in COMPILERS, reason="others unroll by themselves")
def test_sums_that_are_not_unrolled_are_seen(tmp_path: Path) -> None:
    listing = assembly(tmp_path, "gcc", SETS[-1], "", 32, PEAKS.replace("PF_UNROLL ", ""))
    assert trouble(listing, f"pf_peak_operations_f32_{SETS[-1]}") == "no loop works on all sums"


@pytest.mark.compiler
@needs_listing
@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize(
    ("name", "isa", "target"), [case for case in CASES if case[1] != "baseline"]
)
def test_loops_over_elements_call_no_function(
    tmp_path: Path, name: str, isa: str, target: str, bits: int
) -> None:
    """What compilers do not inline makes a loop one of single numbers, up to 15 times as slow."""
    for file in ("activations.c", "arithmetic.c", "vector_functions.c"):
        text = (mutants.CORE / file).read_text(encoding="utf-8")
        headers = [mutants.CORE / f"math{n}.h" for n in (32, 64)]
        declared = "".join([text, *(path.read_text(encoding="utf-8") for path in headers)])
        inline = set(re.findall(r"(?:inline|PF_IN_LOOPS) (?:float|double|real) (\w+)\(", declared))
        listing = assembly(tmp_path, name, isa, target, bits, text)
        assert len(inline) > 20
        assert not inline & set(re.findall(r"^(\w+)[.\w]*:", listing, re.MULTILINE)), file


# What stores some of a vector of AVX2: of a `y = c ? x : y` in place, or of one under a condition
# that only a run decides.
STORED_BY_MASK = re.compile(r"^\tvp?maskmov\w+\s+%ymm\d+, %ymm\d+, .*\(.*$", re.MULTILINE)
ACCUMULATED = """
#include <stdint.h>
void more(float *y, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) if (x[i] > 0) y[i] = x[i];
}
"""


@pytest.mark.compiler
@needs_listing
@pytest.mark.skipif(not X86, reason="of AVX2")
@pytest.mark.parametrize("name", COMPILERS)
def test_no_vector_is_stored_by_a_mask(tmp_path: Path, name: str) -> None:
    """That takes dozens of cycles on some processors."""
    assert STORED_BY_MASK.search(assembly(tmp_path, name, "avx2", "", 32, ACCUMULATED))
    files = ("activations", "losses", "norm", "optimizers", "reductions", "shapes", "softmax")
    widths = (32,) if name == "gcc" else (32, 64)  # the stores that were found were mostly others'
    for file, bits in itertools.product(files, widths):
        text = (mutants.CORE / f"{file}.c").read_text(encoding="utf-8")
        listing = assembly(tmp_path, name, "avx2", "", bits, text)
        assert not STORED_BY_MASK.findall(listing), (file, bits)


# ---- the loops ----


@pytest.mark.parametrize("isa", core.instruction_sets())
@pytest.mark.parametrize("bits", [32, 64])
def test_the_two_loops_count_alike(bits: int, isa: str) -> None:
    peaks = core.peak_loops(bits, isa)
    assert peaks.operations(10) == 2 * peaks.operations(5) > 0
    assert peaks.operations_again(5) == peaks.operations(10)  # two steps a round


# ---- what is said ----


def measured(monkeypatch: pytest.MonkeyPatch, rates: list[float]) -> profiler.Peaks:
    """Return the peaks of a machine whose loops have these rates, one after the other."""
    left = iter([*rates, *[1e11] * len(profiler.LEVELS)])
    monkeypatch.setattr(profiler, "_best_rate", lambda call, work, seconds: next(left))
    return profiler.machine_peaks.__wrapped__(0.001)


def test_loops_that_agree_raise_no_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = measured(monkeypatch, [99e9, 103e9, 52e9, 51e9])
    assert peaks.flops == {"float32": 103e9, "float64": 52e9}
    assert doubts(peaks.agreement, [("a", 0.98), ("b", 1.004)]) == []


@pytest.mark.parametrize(
    ("rates", "name"),
    [([44e9, 103e9, 51e9, 51e9], "float32"), ([99e9, 99e9, 50e9, 25e9], "float64")],
)
def test_loops_that_differ_raise_doubt(
    monkeypatch: pytest.MonkeyPatch, rates: list[float], name: str
) -> None:
    peaks = measured(monkeypatch, rates)
    (said,) = doubts(peaks.agreement, [])
    assert said.startswith(f"The ruler is off: two loops for the {name} peak differ")
    result: dict[str, Any] = {"machine": {}, "left out": [], "workloads": []}
    workload = {"name": "w", "title": "w", "threads": 1, "microseconds": 10.0, "floor": 5.0}
    text = bench.report({**result, "peaks": vars(peaks), "workloads": [workload]})
    assert text.splitlines()[-1] == said


def a_profile(share: float, agreement: float = 1.0) -> Profile:
    peaks = profiler.Peaks(
        {"float32": 1e11, "float64": 5e10},
        dict.fromkeys(profiler.LEVELS, 1e11),
        dict(profiler.LEVELS),
        {"float32": agreement, "float64": 1.0},
    )
    record = Record("Linear_1", "linear_f32", "(2, 2)", 1e-6, 100, 100, "compute", share)
    return Profile([record, replace(record, share=0.5)], peaks, 2e-6, 0, 0, 1)


def test_a_profile_beyond_its_peak_says_so() -> None:
    assert a_profile(1.0).doubts == []
    assert "ruler" not in str(a_profile(1.0))
    profile = a_profile(1.75)
    (said,) = profile.doubts
    assert said.startswith("The ruler is off: Linear_1 shows 175 % of its peak. ")
    assert str(profile).splitlines()[-1] == said
    assert profile.to_dict()["doubts"] == [said]
    assert len(a_profile(1.75, agreement=0.4).doubts) == 2


def test_a_roofline_beyond_its_peak_says_so() -> None:
    pytest.importorskip("matplotlib")
    from pyframe import plotting

    for share, is_off in ((0.9, False), (1.75, True)):
        (axes,) = plotting.roofline(a_profile(share), title="a net").axes
        assert axes.get_title().startswith("a net")
        assert ("The ruler is off" in axes.get_title()) == is_off


def test_a_workload_beyond_its_peak_says_so() -> None:
    workload = {"name": "lenet", "title": "lenet", "threads": 1, "microseconds": 4.0, "floor": 7.0}
    second = {**workload, "name": "other", "floor": 5.0}
    peaks = vars(a_profile(1.0).peaks)
    result = {"machine": {}, "peaks": peaks, "workloads": [workload, second], "left out": []}
    last = bench.report(result).splitlines()[-1]
    assert last.startswith("The ruler is off: lenet shows 175 % of its peak, and 1 more")


def test_a_profile_of_a_plan_carries_its_doubts(monkeypatch: pytest.MonkeyPatch) -> None:
    x = pf.Placeholder("x", shape=(None, 64))
    plan = pf.compile(pf.MatMul(x, pf.Parameter(np.ones((64, 64)), name="w")))
    # a machine that is said to do next to nothing, so that any kernel exceeds it
    slow = replace(a_profile(1.0).peaks, flops={"float32": 1.0, "float64": 1.0})
    monkeypatch.setattr(profiler, "machine_peaks", lambda: slow)
    profile = plan.profile({x: np.ones((64, 64))}, repeats=1)
    assert profile[0].share > 1 and len(profile.doubts) == 1
