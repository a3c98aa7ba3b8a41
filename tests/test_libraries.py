"""What becomes of shared libraries that are no plugin's, or a wrong one's: refused, with words."""

from __future__ import annotations

import re
import shutil
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from toolchain import library, needs_compiler

import pyframe as pf
from pyframe.native import core
from pyframe.native.libraries import read_targets

pytestmark = pytest.mark.once  # it says nothing of a kernel

SOURCE = """
#include <pyframe/pyframe.h>
static int kernel(const pf_call *call) { return call->size ? PF_OK : PF_ERROR_KERNEL; }
static const pf_plugin_kernel kernels[] = {@KERNELS@};
static const pf_plugin plugin = {@PLUGIN@};
const pf_plugin *pyframe_plugin(const pf_host *host) {
    return host && kernels[0].name ? &plugin : 0;
}
"""
HEAD = "sizeof(pf_plugin), PF_ABI_MAJOR, 0"
COUNT = "sizeof kernels / sizeof kernels[0]"
ROW = '{"work", "baseline", 32, 0, kernel}'


def source(name: str = "refused", kernels: str = ROW, plugin: str = "") -> str:
    plugin = plugin or f'{HEAD}, "{name}", kernels, {COUNT}, sizeof kernels[0]'
    return SOURCE.replace("@KERNELS@", kernels).replace("@PLUGIN@", plugin)


@pytest.fixture(autouse=True)
def _forgets() -> Iterator[None]:
    """Take out what a test has opened, so that names can be used again."""
    before = dict(core.open_libraries)
    yield
    core.open_libraries.clear()
    core.open_libraries.update(before)


def refused(path: Path | str, words: str) -> None:
    before = dict(core.open_libraries)
    with pytest.raises(pf.errors.PluginError, match=words) as caught:
        core.open_library(path)
    assert str(path) in str(caught.value)
    assert core.open_libraries == before


# ---- files ----


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no shared library: it is empty"),
        (b"int main;\n", r"no shared library: it is a file that begins with b'int main"),
        (b"\0" * 5000, "a file that begins with"),
        (b"!<arch>\nfoo", "an archive of object files"),
        (b"\x7fELF", "ends in the middle of its header, after 4 bytes"),
        (b"\x7fELF" + b"\2\1\1" + b"\0" * 9 + b"\3\0\x3e\0", "ends in the middle"),
        (b"\xcf\xfa\xed\xfe\0", "ends in the middle"),
        (b"\xca\xfe\xba\xbe\0\0\0\x34", "compiled Java"),
        (b"\xca\xfe\xba\xbe\0\0\0\2", "ends in the middle"),
        (b"MZ", "ends in the middle"),
        (b"MZ" + b"\0" * 200, "a program for DOS"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_files_that_are_no_libraries(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "thing.so"
    path.write_bytes(content)
    refused(path, words)


def test_paths_that_lead_to_no_file(tmp_path: Path) -> None:
    refused(tmp_path / "none.so", "there is no shared library .*; install the plugin again")
    refused(tmp_path, "is a folder")


@pytest.mark.skipif(sys.platform == "win32", reason="needs permissions as POSIX has them")
def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "locked.so"
    path.write_bytes(b"\x7fELF")
    path.chmod(0)
    try:
        path.read_bytes()
    except PermissionError:
        refused(path, "cannot be read: Permission denied")
    else:
        pytest.skip("this user may read everything")


# ---- headers, as the systems' own documents have them ----


def elf(
    machine: int, *, kind: int = 3, wide: bool = True, order: str = "<", system: int = 0
) -> bytes:
    ident = b"\x7fELF" + bytes([1 + wide, 1 + (order == ">"), 1, system]) + b"\0" * 8
    addresses = struct.pack(order + ("3Q" if wide else "3I"), 0, 64, 0)
    head = struct.pack(order + "HHI", kind, machine, 1) + addresses
    return ident + head + struct.pack(order + "I6H", 0, 64, 56, 0, 0, 0, 0)


def mach(machine: int, kind: int = 6) -> bytes:
    return struct.pack("<IiiI4I", 0xFEEDFACF, machine, 0, kind, 0, 0, 0, 0)


def universal(*slices: bytes) -> bytes:
    at, table, body = 8 + 20 * len(slices), b"", b""
    for piece in slices:
        table += struct.pack(">5I", 0, 0, at + len(body), len(piece), 0)
        body += piece
    return struct.pack(">II", 0xCAFEBABE, len(slices)) + table + body


def pe(machine: int, flags: int = 0x2022) -> bytes:
    dos = b"MZ" + b"\0" * 0x3A + struct.pack("<I", 0x40)
    return dos + b"PE\0\0" + struct.pack("<HHIIIHH", machine, 1, 0, 0, 0, 240, flags)


X86_64, AARCH64 = 0x01000007, 0x0100000C


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (elf(62), ["Linux on x86-64"]),
        (elf(62, system=3), ["Linux on x86-64"]),
        (elf(62, wide=False), ["Linux on x86-64 with 32-bit pointers"]),
        (elf(183), ["Linux on aarch64"]),
        (elf(183, order=">"), ["Linux on aarch64, big-endian"]),
        (elf(3, wide=False), ["Linux on x86"]),
        (elf(243), ["Linux on RISC-V (64-bit)"]),
        (elf(62, system=9), ["FreeBSD on x86-64"]),
        (elf(999), ["Linux on machine 999"]),
        (mach(X86_64), ["macOS on x86-64"]),
        (mach(AARCH64, 8), ["macOS on aarch64"]),
        (universal(mach(X86_64), mach(AARCH64)), ["macOS on x86-64", "macOS on aarch64"]),
        (pe(0x8664), ["Windows on x86-64"]),
        (pe(0xAA64), ["Windows on aarch64"]),
    ],
    ids=lambda given: given[0] if isinstance(given, list) else "",
)
def test_headers_are_read(content: bytes, expected: list[str], tmp_path: Path) -> None:
    path = tmp_path / "library"
    path.write_bytes(content)
    assert [str(target) for target in read_targets(str(path))] == expected


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (elf(62, kind=1), "it is an object file"),
        (elf(62, kind=2), "it is a program"),
        (elf(62, kind=4), "it is a core dump"),
        (mach(X86_64, 1), "it is an object file"),
        (universal(mach(AARCH64, 2)), "it is a program"),
        (pe(0x8664, 0x22), "it is a program for Windows"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_other_binaries_are_told_apart(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "binary"
    path.write_bytes(content)
    refused(path, words)


@pytest.mark.parametrize(
    "content",
    [elf(62), elf(183), elf(8), mach(X86_64), mach(AARCH64), pe(0x8664)],
    ids=["elf-x86", "elf-arm", "elf-mips", "mach-x86", "mach-arm", "pe"],
)
def test_a_library_of_another_machine_names_both(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "library.so"
    path.write_bytes(content)
    (there,), (here,) = read_targets(str(path)), read_targets(core.CORE_PATH)
    if there == here:
        pytest.skip("that is this machine")
    refused(path, re.escape(f"is for {there}, and this process runs {here}; install the wheel"))


# ---- libraries ----


@needs_compiler
def test_nothing_of_a_foreign_or_broken_library_runs(tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"
    text = source() + (
        f"#include <stdio.h>\n__attribute__((constructor)) static void run(void) "
        f'{{ fclose(fopen("{mark}", "w")); }}\n'
    )
    path = library(tmp_path, text)
    whole = path.read_bytes()
    if not whole.startswith(b"\x7fELF"):
        pytest.skip("changes an ELF header")
    other = 183 if whole[18] != 183 else 62
    path.write_bytes(whole[:18] + bytes([other]) + whole[19:])
    refused(path, "and this process runs")
    for length in (5000, 4097, 600, 100):
        path.write_bytes(whole[:length])
        refused(path, "the first .* bytes of one that has at least|ends in the middle")
    assert not mark.exists()
    path.write_bytes(whole)
    core.open_library(path)
    assert mark.exists()  # the constructor would have told


@needs_compiler
def test_a_library_that_misses_a_symbol_of_its_own(tmp_path: Path) -> None:
    path = library(
        tmp_path,
        source() + "int nowhere(void);\nint use(void);\nint use(void) { return nowhere(); }\n",
    )
    refused(path, "cannot be opened: .*nowhere")


@needs_compiler
def test_a_library_without_the_function(tmp_path: Path) -> None:
    path = library(tmp_path, "int other_function(void);\nint other_function(void) { return 1; }\n")
    refused(path, "exports no function pyframe_plugin")


@needs_compiler
def test_a_library_that_hides_the_function(tmp_path: Path) -> None:
    text = source().replace(
        "const pf_plugin *pyframe_plugin(const", "const pf_plugin *other_name(const"
    )
    path = library(tmp_path, "struct pf_plugin;\n" + text, "-Wno-missing-prototypes")
    refused(path, "exports no function pyframe_plugin")


@needs_compiler
def test_a_library_that_says_that_it_cannot_run(tmp_path: Path) -> None:
    refused(library(tmp_path, source(kernels='{0, "baseline", 32, 0, kernel}')), "returned NULL")


@needs_compiler
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it would stay that way")
def test_a_library_that_changes_how_the_process_computes(tmp_path: Path) -> None:
    """As one does that GCC links with -ffast-math."""
    change = "__attribute__((constructor)) static void run(void) { fesetround(FE_UPWARD); }\n"
    path = library(tmp_path, f"#include <fenv.h>\n{source()}{change}", "-lm")
    refused(path, "how the whole process computes: results are not rounded to the nearest")
    assert core.odd_arithmetic() == ""


def row(*fields: str) -> str:
    return f"{ROW}, {{{', '.join(fields)}}}"


@needs_compiler
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"plugin": f'sizeof(pf_plugin), 7, 0, "refused", kernels, {COUNT}, sizeof kernels[0]'},
         r"built for version 7\.0 of the kernel interface, and this pyframe has 1\.0: another"),
        ({"plugin": f'sizeof(pf_plugin), 0, 0, "refused", kernels, {COUNT}, sizeof kernels[0]'},
         r"version 0\.0 of the kernel interface, and this pyframe has 1\.0: .* build it again"),
        ({"plugin": f'sizeof(pf_plugin), 0, 9, "refused", kernels, {COUNT}, sizeof kernels[0]'},
         r"built for version 0\.9 of the kernel interface, and this pyframe has 1\.0: another"),
        ({"plugin": f'sizeof(pf_plugin), 2, 0, "refused", kernels, {COUNT}, sizeof kernels[0]'},
         r"built for version 2\.0 of the kernel interface, and this pyframe has 1\.0: another"),
        ({"plugin": f'sizeof(pf_plugin), PF_ABI_MAJOR, 1, "refused", kernels, {COUNT}, 32'},
         r"needs version 1\.1 of the kernel interface, and this pyframe has 1\.0; install a newer"),
        ({"plugin": f'sizeof(pf_plugin), PF_ABI_MAJOR, 9, "refused", kernels, {COUNT}, 32'},
         r"needs version 1\.9 of the kernel interface, and this pyframe has 1\.0; install a newer"),
        ({"plugin": f'24, PF_ABI_MAJOR, 0, "refused", kernels, {COUNT}, sizeof kernels[0]'},
         "its pf_plugin says that it has 24 bytes, and it has at least 32; begin it with"),
        ({"plugin": f"{HEAD}, 0, kernels, {COUNT}, 32"}, "the name of its pf_plugin is NULL"),
        ({"plugin": f'{HEAD}, "", kernels, {COUNT}, 32'}, "the name of its pf_plugin is ''"),
        ({"name": "no name"}, "the name of its pf_plugin is 'no name'; it must be an identifier"),
        ({"name": "2nd"}, "is '2nd'"),
        ({"name": "a:b"}, "is 'a:b'"),
        ({"name": "caf\u00e9"}, "is 'caf"),
        ({"name": "x" * 150}, "longer than 100 bytes: 'x{40}'"),
        ({"plugin": f'{HEAD}, "refused", kernels, {COUNT}, 24'},
         "kernel_size is 24, and a pf_plugin_kernel has at least 32 bytes"),
        ({"plugin": f'{HEAD}, "refused", kernels, {COUNT}, 36'}, "kernel_size is 36"),
        ({"plugin": f'{HEAD}, "refused", 0, {COUNT}, 32'}, "kernel_count is 1, .* is NULL"),
        ({"plugin": f'{HEAD}, "refused", kernels, 0xffffffff, 32'}, "kernel_count is 4294967295"),
        ({"kernels": row("0", '"baseline"', "32", "0", "kernel")}, "kernel 1: its name is NULL"),
        ({"kernels": row('"a-b"', '"baseline"', "32", "0", "kernel")}, "kernel 1: its name is 'a"),
        ({"kernels": row('"more"', "0", "32", "0", "kernel")}, "1 .more. is for the isa None"),
        ({"kernels": row('"more"', '"AVX2"', "32", "0", "kernel")},
         "is for the isa 'AVX2'; there are baseline, avx2, avx512, neon"),
        ({"kernels": row('"more"', '"baseline"', "16", "0", "kernel")}, "of 16 bits; it must be"),
        ({"kernels": row('"more"', '"baseline"', "64", "2", "kernel")}, "has flags 0x2, and"),
        ({"kernels": row('"more"', '"baseline"', "64", "0", "0")},
         "kernel 1 .more. for baseline, 64 bits: its function is NULL"),
        ({"kernels": f"{ROW}, {ROW}"}, "kernel 1 .work. for baseline, 32 bits, is there twice"),
        ({"kernels": row('"more"', '"avx2"', "64", "0", "kernel")},
         "the kernel more for 64 bits is there for avx2, but not for baseline"),
    ],
)  # fmt: skip
def test_tables_that_are_wrong(how: dict[str, str], words: str, tmp_path: Path) -> None:
    refused(library(tmp_path, source(**how)), words)


@needs_compiler
def test_one_that_was_refused_can_be_built_again_and_opened(tmp_path: Path) -> None:
    path = library(tmp_path, source(kernels=f"{ROW}, {ROW}"))
    refused(path, "twice")
    path.unlink()
    opened = core.open_library(library(tmp_path, source("later")))
    assert (opened.name, opened.path) == ("later", str(path))
    assert core.find_kernel("later:work", 32)
    assert not core.find_kernel("later:work", 64)


@needs_compiler
def test_rows_and_tables_may_be_longer_than_this_pyframe_knows(tmp_path: Path) -> None:
    text = """
#include <pyframe/pyframe.h>
static int kernel(const pf_call *call) { return call->size ? PF_OK : PF_ERROR_KERNEL; }
typedef struct { pf_plugin_kernel row; uint64_t later[3]; } longer_row;
static const longer_row kernels[] = {{{"one", "baseline", 32, 0, kernel}, {1, 2, 3}},
                                     {{"two", "baseline", 64, 0, kernel}, {1, 2, 3}}};
static const struct { pf_plugin plugin; uint64_t later[5]; } longer = {
    {sizeof longer, PF_ABI_MAJOR, 0, "longer", &kernels[0].row, 2, sizeof kernels[0]}, {9}};
const pf_plugin *pyframe_plugin(const pf_host *host) { return host ? &longer.plugin : 0; }
"""
    opened = core.open_library(library(tmp_path, text, name="longer"))
    assert set(opened.kernels) == {("one", 32), ("two", 64)}


@needs_compiler
def test_two_libraries_of_one_name(tmp_path: Path) -> None:
    first = library(tmp_path, source("twin"), name="first")
    core.open_library(first)
    address = core.find_kernel("twin:work", 32)
    second = library(tmp_path, source("twin"), name="second")
    refused(second, f"second.so and {first} are both called 'twin'")
    assert core.find_kernel("twin:work", 32) == address


@needs_compiler
def test_opening_twice_is_harmless(tmp_path: Path) -> None:
    path = library(tmp_path, source("again"))
    opened = core.open_library(path)
    assert core.open_library(path) is opened
    assert core.open_library(path.parent / "." / path.name) is opened


@needs_compiler
def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "h\u00e9 l\u00f6 \u4f60"
    folder.mkdir()
    built = library(tmp_path, source("abroad"))
    moved = Path(shutil.move(built, folder / built.name))
    assert core.open_library(moved).path == str(moved)


@needs_compiler
def test_a_bare_name_is_a_file_here_and_none_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library(tmp_path, source("here"), name="libm.so.6")
    monkeypatch.chdir(tmp_path)
    assert core.open_library("libm.so.6.so").name == "here"
    refused("libc.so.6", "there is no shared library")
