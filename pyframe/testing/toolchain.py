"""The machine's C compiler: finding it, and making a library from a file of kernels."""

from __future__ import annotations

import concurrent.futures
import functools
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyframe
from pyframe.errors import (
    ArgumentError,
    CompilationError,
    MissingCompilerError,
    raise_if_signalled,
    warn,
)
from pyframe.native import core

WINDOWS = sys.platform == "win32"
SUFFIX = ".dll" if WINDOWS else ".so"
COMPILERS = ("clang", "gcc") if WINDOWS else ("cc", "gcc", "clang")
FLAGS = ("-std=c11", "-O3", "-Wall", "-Wextra", "-ffp-contract=fast", "-fno-math-errno")
INSTALL = {
    "linux": "on Debian and Ubuntu 'apt install gcc', on Fedora 'dnf install gcc'",
    "darwin": "on macOS 'xcode-select --install'",
    "win32": "on Windows 'winget install LLVM.LLVM'",
}
ENTRY = "pyframe_plugin"  # what a library exports
BITS = (32, 64)
TIMEOUT = 300.0  # seconds for one file

# Parts of a C text that are not code: comments, strings and characters.
_NO_CODE = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)
_TAKES_CALL = r"\(\s*(?:const\s+pf_call|pf_call\s+const)\s*\*\s*\w+\s*\)\s*\{"
_KERNEL = re.compile(rf"(\bstatic\s+)?\bint\s+NAME\(\s*(\w+)\s*\)\s*{_TAKES_CALL}")
_UNNAMED = re.compile(rf"\bint\s+(\w+)\s*{_TAKES_CALL}")

TABLE = """\
#include <pyframe/pyframe.h>
{declarations}
static const pf_plugin_kernel kernels[] = {{
{rows}
}};
static const pf_plugin plugin = {{PF_PLUGIN_HEAD, "{name}", kernels,
                                 sizeof kernels / sizeof kernels[0], sizeof kernels[0]}};
const pf_plugin *pyframe_plugin(const pf_host *host) {{
    (void)host;
    return &plugin;
}}
"""


def find_compiler() -> list[str]:
    """Return the command of a C compiler that takes the flags of GCC and Clang.

    That is the command in the environment variable ``CC`` if it is set; otherwise ``cc``, ``gcc``
    or ``clang``, whichever is found first; otherwise Zig's, if the package ``ziglang`` is
    installed.

    Raises
    ------
    MissingCompilerError
        If there is none; the message says what to install.
    """
    wanted = os.environ.get("CC")
    if wanted:
        command = shlex.split(wanted, posix=not WINDOWS)
        if shutil.which(command[0]) is None:
            raise MissingCompilerError(
                f"CC={wanted}: there is no {command[0]!r} on PATH; set CC to a C compiler that is "
                "there, or unset it"
            )
        return command
    for name in COMPILERS:
        if shutil.which(name) is not None:
            return [name]
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc"]
    here = INSTALL.get(sys.platform, "install GCC or Clang")
    raise MissingCompilerError(
        f"there is no C compiler: none of {', '.join(COMPILERS)} is on PATH, and CC is not set. "
        f"Install one: {here}, or, in any environment of Python, 'pip install ziglang', which "
        "brings one along"
    )


def kernels_of(text: str, file: str) -> list[str]:
    """Return the names of the kernels in a C text; none for a whole library with its own table.

    Raises
    ------
    CompilationError
        If there is no kernel in it, or one that a table in another file cannot name.
    """
    code = _NO_CODE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    if re.search(rf"\b{ENTRY}\s*\(", code):
        return []
    found = list(_KERNEL.finditer(code))
    for one in found:
        if one[1]:
            line = code.count("\n", 0, one.start(2)) + 1
            raise CompilationError(
                f"{file}:{line}: the kernel {one[2]} is static, and the table of kernels is in "
                "another file; take 'static' away"
            )
    if not found:
        other = _UNNAMED.search(code)
        name = other[1] if other else "scan"
        where = f"{file}:{code.count(chr(10), 0, other.start()) + 1}" if other else file
        raise CompilationError(
            f"{where}: there is no kernel in it; write one as 'int NAME({name})(const pf_call "
            "*call)': it is compiled for float32 and for float64, and NAME tells the two apart"
        )
    return list(dict.fromkeys(one[2] for one in found))


@functools.cache
def flags_of(isa: str) -> list[str]:
    """Return the compiler's flags for an instruction set, the same as in a build by CMake."""
    path = Path(pyframe.get_include(), "pyframe", "instruction_sets.cmake")
    found = re.search(rf"set\(FLAGS_{isa} ([^)\"]*)\)", path.read_text(encoding="utf-8"))
    return found[1].split() if found else []


def build_library(source: Path, library: Path, name: str) -> list[str]:
    """Compile a file to a shared library for this machine.

    Parameters
    ----------
    source : Path
        Kernels, written with ``pyframe/real.h``: each is compiled for float32 and float64 and for
        every instruction set of this machine, and the table of them is added. Or a whole library
        with a ``pyframe_plugin`` of its own, which is compiled as it is.
    library : Path
        Path of the result.
    name : str
        The name of the library, under which its kernels are found: ``<name>:<kernel>``.

    Returns
    -------
    list of str
        The kernels; none if the library has a table of its own.

    Raises
    ------
    MissingCompilerError, CompilationError
        The latter repeats the compiler's messages, with the lines of `source`.
    ArgumentError
        If no library can have that name.
    """
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        raise ArgumentError(
            f"{source.name}: its library would be called {name!r}; give the file a name of "
            "letters, digits and '_', as in scan.c"
        )
    kernels = kernels_of(source.read_text(encoding="utf-8"), source.name)
    compiler = find_compiler()
    target = [] if WINDOWS else ["-fPIC"]
    common = [*compiler, *FLAGS, *target, f"-I{pyframe.get_include()}"]
    with tempfile.TemporaryDirectory() as folder:
        if not kernels:
            said = _run([*common, "-shared", source.name, "-o", str(library.absolute())], source)
            _pass_on(said)
            return []
        units = [(bits, isa) for isa in core.instruction_sets() for bits in BITS]
        objects = [str(Path(folder, f"f{bits}_{isa}.o")) for bits, isa in units]
        commands = [
            [
                *(*common, *flags_of(isa), f"-DBITS={bits}", f"-DISA={isa}"),
                *("-include", "pyframe/real.h", "-c", source.name, "-o", made),
            ]
            for (bits, isa), made in zip(units, objects, strict=True)
        ]
        said = _run(commands[0], source)  # only one, so that each error is reported once
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda command: _run(command, source), commands[1:]))
        table = Path(folder, "table.c")
        table.write_text(_table(name, kernels, units), encoding="utf-8")
        _run([*common, "-shared", str(table), *objects, "-o", str(library.absolute())], source)
    _pass_on(said)
    return kernels


def _table(name: str, kernels: Sequence[str], units: Sequence[tuple[int, str]]) -> str:
    each = [(k, bits, isa, f"{k}_f{bits}_{isa}") for k in kernels for bits, isa in units]
    return TABLE.format(
        name=name,
        declarations="\n".join(f"int {symbol}(const pf_call *call);" for *_, symbol in each),
        rows="\n".join(f'    {{"{k}", "{isa}", {b}, 0, {symbol}}},' for k, b, isa, symbol in each),
    )


def _run(command: Sequence[str], source: Path) -> str:
    """Run a compiler in the folder of the source, so that it prints the file's plain name."""
    try:
        done = subprocess.run(
            command, cwd=source.parent, capture_output=True, text=True, timeout=TIMEOUT
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise_if_signalled(error)
        raise CompilationError(f"{command[0]} could not compile {source.name}: {error}") from error
    said = done.stderr.strip() or done.stdout.strip()
    if done.returncode != 0:
        hint = ""
        if "multiple definition" in said or "duplicate symbol" in said:
            hint = "\nEvery function that is no kernel has to be static."
        raise CompilationError(f"{command[0]} refused {source.name}:\n{said}{hint}")
    return said


def _pass_on(said: str) -> None:
    if said:
        warn(f"the C compiler says:\n{said}")
