"""The public headers: that they compile alone, that nothing moves, and that versions get along."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from toolchain import CXX, INCLUDE, TESTS, C, compile_c, library, needs_compiler, try_to_compile
from workshop import blocks

import pyframe as pf
from pyframe.native import core

pytestmark = pytest.mark.once  # it says nothing of a kernel

RECORD = (TESTS / "abi_layout.txt").read_text(encoding="utf-8")
FIELDS = [line.split(" ", 3) for line in RECORD.splitlines() if "." in line]
SIZES = [line.split() for line in RECORD.splitlines() if "." not in line]

# ---- the layout ----


def layout() -> list[str]:
    """Return the record of the layout as the core was built."""
    ffi, lines = core.ffi, []
    for name, _ in SIZES:
        for field, place in ffi.typeof(name).fields:
            kind = place.type
            lines.append(f"{name}.{field} {place.offset} {ffi.sizeof(kind)} {kind.cname}")
        lines.append(f"{name} {ffi.sizeof(name)}")
    return lines


@pytest.mark.skipif(core.ffi.sizeof("void *") != 8, reason="the record is of 64-bit platforms")
def test_the_layout_is_the_recorded_one() -> None:
    assert layout() == RECORD.splitlines(), (
        "the layout of the kernel interface has changed. A field that was released never moves and "
        "never changes its type; one that is new comes at the end of its struct, under its minor "
        "version. If that is what was done, it is a line more in abi_layout.txt and in layout.h"
    )


def test_every_public_struct_is_recorded() -> None:
    text = "".join((INCLUDE / "pyframe" / f).read_text() for f in ("gemm.inc", "abi.inc"))
    structs = {line.split()[2] for line in text.splitlines() if line.startswith("typedef struct ")}
    assert structs == {name for name, _ in SIZES}


def test_every_field_is_guarded() -> None:
    guards = (INCLUDE / "pyframe" / "layout.h").read_text(encoding="utf-8")
    for name, offset, *_ in FIELDS:
        struct, field = name.split(".")
        assert f"PF_AT({struct}, {field}, {offset});" in guards


@needs_compiler
@pytest.mark.parametrize("compiler", [*C, *CXX])
def test_compilers_agree_on_the_layout(compiler: str, tmp_path: Path) -> None:
    lines = [
        f'printf("{name} %d %d\\n", (int)offsetof({name.replace(".", ", ")}), '
        f"(int)sizeof((({name.split('.')[0]} *)0)->{name.split('.')[1]}));"
        for name, *_ in FIELDS
    ]
    lines += [f'printf("{name} %d\\n", (int)sizeof({name}));' for name, _ in SIZES]
    program = tmp_path / ("program.cpp" if "++" in compiler else "program.c")
    body = "\n".join(lines)
    program.write_text(
        f"#include <stdio.h>\n#include <pyframe/pyframe.h>\nint main(void) {{\n{body}\n}}\n"
    )
    built = compile_c(program, tmp_path / "program", compiler=compiler)
    said = subprocess.run([built], capture_output=True, text=True, check=True).stdout
    expected = [" ".join(field[:3]) for field in FIELDS] + [" ".join(size) for size in SIZES]
    assert said.splitlines() == expected


# ---- compilers ----


@needs_compiler
@pytest.mark.parametrize("compiler", [*C, *CXX])
def test_the_header_compiles_alone(compiler: str, tmp_path: Path) -> None:
    standards = ("c++11", "c++17", "c++20") if "++" in compiler else ("c11", "c17")
    source = tmp_path / ("alone.cpp" if "++" in compiler else "alone.c")
    source.write_text("#include <pyframe/pyframe.h>\n#include <pyframe/pyframe.h>\n")
    for standard in standards:
        flags = (f"-std={standard}", "-fsyntax-only", "-Wconversion", "-Wundef")
        assert not try_to_compile(source, tmp_path / "none", *flags, compiler=compiler)


@needs_compiler
@pytest.mark.parametrize("compiler", [*C, *CXX])
def test_the_header_of_one_element_type_compiles_alone(compiler: str, tmp_path: Path) -> None:
    source = tmp_path / ("alone.cpp" if "++" in compiler else "alone.c")
    source.write_text("#include <pyframe/real.h>\n#include <pyframe/real.h>\n")
    flags = ("-fsyntax-only", "-Wconversion", "-Wundef", "-DISA=baseline")
    for bits in (32, 64):
        build = (*flags, f"-DBITS={bits}")
        assert not try_to_compile(source, tmp_path / "none", *build, compiler=compiler)
    said = try_to_compile(source, tmp_path / "none", *flags, compiler=compiler)
    assert "define BITS (32 or 64) and ISA" in said


@needs_compiler
@pytest.mark.parametrize("compiler", [*C, *CXX])
def test_a_field_that_moves_stops_the_compiler(compiler: str, tmp_path: Path) -> None:
    source = tmp_path / ("moved.cpp" if "++" in compiler else "moved.c")
    source.write_text("#include <pyframe/pyframe.h>\n")
    moved = (
        "abi.inc",
        "    uint64_t seed;\n    int64_t step; ",
        "    int64_t step;\n    uint64_t seed; ",
    )
    swapped = variant(tmp_path / "swapped", moved)
    for include, words in ((INCLUDE, ""), (swapped, "pf_step.seed has moved")):
        said = try_to_compile(
            source, tmp_path / "none", "-fsyntax-only", compiler=compiler, include=include
        )
        assert words in said if words else not said


# ---- versions ----

PLUGIN = """
#include <pyframe/pyframe.h>

static void part(void *context, int64_t i) { ((double *)context)[i] += (double)i; }

/* y[i] = x[i] + i; the first number must not be negative */
static int count(const pf_call *call) {
    const double *x = (const double *)call->inputs[0]->data;
    double *y = (double *)call->outputs[0]->data;
    const int64_t n = call->inputs[0]->dims[0];
    if (n > 0 && x[0] < 0) return call->host->fail(call, PF_ERROR_OWN, 0, 0, (int64_t)x[0]);
    for (int64_t i = 0; i < n; i++) y[i] = x[i];
    call->host->parallel_for(n, 1, part, y);
    USE_LATER
    return PF_OK;
}

static const pf_plugin_kernel kernels[] = {{"count", "baseline", 64, 0, count}};
static const pf_plugin plugin = {PF_PLUGIN_HEAD, LIBRARY, kernels, 1, sizeof kernels[0]};
const pf_plugin *pyframe_plugin(const pf_host *host) {
    return host->size CONDITION sizeof(pf_host) && host->abi_major == 1 ? &plugin : NULL;
}
"""


def plugin(name: str, *, condition: str = "==", later: str = "") -> str:
    text = PLUGIN.replace("LIBRARY", f'"{name}"').replace("CONDITION", condition)
    return text.replace("USE_LATER", later)


def variant(folder: Path, *changes: tuple[str, str, str]) -> Path:
    """Copy the headers and change their text: (file, what stands there, what shall)."""
    shutil.copytree(INCLUDE, folder)
    for name, old, new in changes:
        path = folder / "pyframe" / name
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {name}"
        path.write_text(text.replace(old, new), encoding="utf-8")
    return folder


def older(folder: Path) -> Path:
    """Return headers whose host table ends after parallel_for, as an older version's might."""
    text = (INCLUDE / "pyframe" / "abi.inc").read_text(encoding="utf-8")
    start = text.index("    /* The matrix product and vector math")
    later = text[start : text.index("} pf_host;")]
    guards = [f"PF_AT(pf_host, {f}, {at});\n" for f, at in (("gemm", 40), ("vector", 48))]
    cuts = [("layout.h", guard, "") for guard in guards]
    return variant(folder, ("abi.inc", later, ""), *cuts)


def newer(folder: Path) -> Path:
    """Return headers of the next minor version: one more function, and one more field in a call."""
    return variant(
        folder,
        ("pyframe.h", "#define PF_ABI_MINOR 0", "#define PF_ABI_MINOR 1"),
        (
            "abi.inc",
            "} pf_host;",
            "#if PF_TARGET_MINOR >= 1\n    int64_t (*later)(int64_t x);\n#endif\n} pf_host;",
        ),
        (
            "abi.inc",
            "} pf_call;",
            "#if PF_TARGET_MINOR >= 1\n    uint64_t later;\n#endif\n} pf_call;",
        ),
    )


def run_count(name: str) -> None:
    x, y = np.array([5.0, 5.0, 5.0]), np.zeros(3)
    assert core.call_kernel(f"{name}:count", 64, [x], [y])[0] == 0
    np.testing.assert_array_equal(y, [5, 6, 7])
    assert core.call_kernel(f"{name}:count", 64, [-x], [y]) == (100, 0, 0, -5)


@needs_compiler
def test_a_plugin_built_with_older_headers_runs_here(tmp_path: Path) -> None:
    headers = older(tmp_path / "older")
    text = plugin("built_before", condition=">")
    assert core.open_library(library(tmp_path, text, include=headers)).abi[1] == 0
    run_count("built_before")


@needs_compiler
def test_a_plugin_built_with_newer_headers_runs_here_unless_it_asks_for_more(
    tmp_path: Path,
) -> None:
    headers = newer(tmp_path / "newer")
    opened = core.open_library(library(tmp_path, plugin("built_after"), include=headers))
    assert opened.abi[1] == 0
    run_count("built_after")

    later = "y[0] = (double)call->host->later(1);"
    asks, cautious = (plugin("asks", condition=c, later=later) for c in ("<", "=="))
    target = "-DPF_TARGET_MINOR=1"
    path = library(tmp_path, cautious, target, name="cautious", include=headers)
    with pytest.raises(pf.errors.PluginError, match="returned NULL"):  # it has looked at the size
        core.open_library(path)
    path = library(tmp_path, asks, target, name="asks", include=headers)
    with pytest.raises(
        pf.errors.PluginError, match=r"asks.so needs version 1\.1 .* and this pyframe has 1\.0; ins"
    ):
        core.open_library(path)


@needs_compiler
def test_what_came_later_is_not_declared_unless_asked_for(tmp_path: Path) -> None:
    headers = newer(tmp_path / "newer")
    source = tmp_path / "uses.c"
    source.write_text(plugin("uses", later="y[0] = (double)call->host->later(1);"))
    out = tmp_path / "uses.so"
    flags = ("-shared", "-fPIC")
    assert "later" in try_to_compile(source, out, *flags, include=headers)
    assert not try_to_compile(source, out, *flags, "-DPF_TARGET_MINOR=1", include=headers)
    for include in (INCLUDE, headers):
        said = try_to_compile(source, out, *flags, "-DPF_TARGET_MINOR=2", include=include)
        assert "PF_TARGET_MINOR is newer than these headers" in said


@needs_compiler
def test_a_plugin_of_another_major_version_is_refused(tmp_path: Path) -> None:
    headers = variant(
        tmp_path / "other", ("pyframe.h", "#define PF_ABI_MAJOR 1", "#define PF_ABI_MAJOR 3")
    )
    path = library(tmp_path, plugin("other"), include=headers)
    with pytest.raises(
        pf.errors.PluginError, match=r"for version 3\.0 of the .* this pyframe has 1\.0: another ma"
    ):
        core.open_library(path)


HOST = """
/* A host of the next minor version, with longer structs, and one plugin. */
#include <dlfcn.h>
#include <stdio.h>
#include <pyframe/pyframe.h>

static int fail(const pf_call *call, int code, int32_t operand, int64_t index, int64_t value) {
    *call->error = (pf_error){sizeof(pf_error), code, operand, 0, index, value, ""};
    return code;
}
static void in_turn(int64_t parts, int64_t nanoseconds, pf_body body, void *context) {
    for (int64_t i = 0; i < parts + 0 * nanoseconds; i++) body(context, i);
}
static int64_t later(int64_t x) { return x; }

int main(int count, char **arguments) {
    const pf_host host = {.size = sizeof(pf_host), .abi_major = PF_ABI_MAJOR,
                          .abi_minor = 1, .fail = fail, .parallel_for = in_turn, .later = later};
    void *library = dlopen(arguments[count - 1], RTLD_NOW);
    if (!library) return printf("%s", dlerror()), 1;
    void *found = dlsym(library, "pyframe_plugin");
    const pf_plugin *plugin = ((pf_plugin_function)(uintptr_t)found)(&host);
    if (!plugin) return 2;
    double x[] = {5, 5, 5}, y[3];
    const int64_t dims[] = {3};
    const pf_operand in = {.size = sizeof in, .ndim = 1, .data = x, .dims = dims};
    const pf_operand out = {.size = sizeof out, .ndim = 1, .data = y, .dims = dims};
    const pf_operand *ins[] = {&in}, *outs[] = {&out};
    pf_error error = {.size = sizeof error};
    const pf_call call = {.size = sizeof call, .input_count = 1, .output_count = 1, .inputs = ins,
                          .outputs = outs, .error = &error, .host = &host, .later = 1};
    printf("%d.%d %s %d: ", plugin->abi_major, plugin->abi_minor, plugin->name,
           plugin->kernels[0].kernel(&call));
    printf("%g %g %g, ", y[0], y[1], y[2]);
    x[0] = -4;
    const int status = plugin->kernels[0].kernel(&call);
    printf("%d %d\\n", status, (int)error.value);
    return 0;
}
"""


@needs_compiler
@pytest.mark.parametrize("headers", [older, None], ids=["older", "these"])
def test_a_host_table_longer_than_the_plugin_knows(headers: object, tmp_path: Path) -> None:
    include = older(tmp_path / "older") if headers else INCLUDE
    built = library(tmp_path, plugin("guest", condition=">"), include=include)
    program = tmp_path / "host.c"
    program.write_text(HOST)
    target = "-DPF_TARGET_MINOR=1"
    host = compile_c(program, tmp_path / "host", target, include=newer(tmp_path / "newer"))
    said = subprocess.run([host, built], capture_output=True, text=True, timeout=60)
    assert (said.stdout, said.returncode) == ("1.0 guest 0: 5 6 7, 100 -4\n", 0)


@needs_compiler
@pytest.mark.skipif(not CXX, reason="needs a C++ compiler")
def test_a_plugin_may_be_written_in_cpp(tmp_path: Path) -> None:
    source = tmp_path / "in_cpp.cpp"
    source.write_text(plugin("in_cpp"))
    built = compile_c(source, tmp_path / "in_cpp.so", "-shared", "-fPIC", compiler=CXX[0])
    core.open_library(built)
    run_count("in_cpp")


def build_script() -> ModuleType:
    path = TESTS.parent / "build_ffi.py"
    spec = importlib.util.spec_from_file_location("build_ffi", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_core_itself_has_what_came_later(tmp_path: Path) -> None:
    headers = newer(tmp_path / "newer") / "pyframe"
    script = build_script()
    ffi = type(script.ffibuilder)()
    for name in ("gemm.inc", "abi.inc"):
        ffi.cdef(script.declarations(str(headers / name)))
    assert ffi.typeof("pf_host").fields[-1][0] == "later"


# ---- the page on kernels ----

PAGE = TESTS.parent / "docs" / "plugins" / "kernels.md"
SNIPPETS = [
    block.text
    for block in blocks(PAGE.read_text(encoding="utf-8"))
    if block.language == "c" and block.path is None
]


@needs_compiler
@pytest.mark.parametrize("compiler", C)
def test_the_snippets_of_the_page_compile(compiler: str, tmp_path: Path) -> None:
    source = tmp_path / "snippets.c"
    kernels = ("softsign_f32_baseline", "softsign_f64_baseline", "softsign_f32_avx2")
    declared = "".join(f"int {name}(const pf_call *call);\n" for name in kernels)
    source.write_text("#include <pyframe/pyframe.h>\n" + declared + "\n".join(SNIPPETS))
    flags = ("-fsyntax-only", "-Wno-unused-function")
    assert len(SNIPPETS) == 3
    assert not try_to_compile(source, tmp_path / "none", *flags, compiler=compiler)
