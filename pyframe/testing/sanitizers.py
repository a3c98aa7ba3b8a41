"""A plugin's kernels under the sanitizers of the C compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyframe
from pyframe import plugins
from pyframe.errors import (
    ArgumentError,
    CompilationError,
    MissingCompilerError,
    PluginError,
    raise_if_signalled,
)
from pyframe.plugins.discovery import normalized, source_folder
from pyframe.testing.toolchain import find_compiler

PROJECT = "pyproject.toml"
LINES = 30  # of what a build says, at the end of which stands why it failed


class Sanitizer(NamedTuple):
    """One kind of fault that is looked for.

    Attributes
    ----------
    flags : tuple of str
        For the compiler.
    runtime : str
        The library that the process begins with.
    options : dict of str to str
        Variables of the environment, without where reports go.
    first : str
        What the process does before it imports anything.
    """

    flags: tuple[str, ...]
    runtime: str
    options: dict[str, str]
    first: str = "pass"


START = """\
{first}
import sys
from pyframe.testing.sanitized import main
sys.exit(main())
"""
# Undefined behaviour meets an instruction that does not exist, which the address sanitizer reports
# (ILL) with its line: of two runtimes in a process, one would write elsewhere than it is told to.
ADDRESS = (
    "-fsanitize=address,undefined",
    "-fsanitize-undefined-trap-on-error",
    "-fno-omit-frame-pointer",
)
SANITIZERS = {
    "address": Sanitizer(ADDRESS, "libasan.so", {"ASAN_OPTIONS": "detect_leaks=0:handle_sigill=1"}),
    "leaks": Sanitizer(
        ("-fsanitize=address", "-fno-omit-frame-pointer"),
        "libasan.so",
        {
            "ASAN_OPTIONS": "detect_leaks=1:leak_check_at_exit=0",
            "LSAN_OPTIONS": "print_suppressions=0",
        },
        # What Python keeps until it ends, and beyond, need not be looked through.
        "import ctypes; ctypes.CDLL(None).__lsan_disable()",
    ),
    "threads": Sanitizer(
        ("-fsanitize=thread",),
        "libtsan.so",
        # Python's and NumPy's own code was not built for it.
        {"TSAN_OPTIONS": "die_after_fork=0:ignore_noninstrumented_modules=1"},
    ),
}

# By which kernels are called for the thread sanitizer.
HELPER = Path(__file__).with_name("call_in_threads.c")


def check_sanitized(plugin: str, sanitizer: str) -> int:
    """Build a plugin's kernels with a sanitizer, check its ops under it, and print what is found.

    The package is built again from its sources, into a folder that is deleted afterwards; what is
    installed stays as it is.

    Parameters
    ----------
    plugin : str
        The name of a distribution that was installed from a folder that is still there, or the path
        of such a folder, installed or not.
    sanitizer : {"address", "leaks", "threads"}

    Returns
    -------
    int
        0, or 1 if anything was found.

    Raises
    ------
    PluginError
        If there is no such plugin, or if its sources are not to be had.
    MissingCompilerError
        If no compiler is there, or none with the sanitizer; or if this is not Linux.
    CompilationError
        If the package cannot be built.
    """
    if sanitizer not in SANITIZERS:
        raise ArgumentError(f"no sanitizer {sanitizer!r}; use one of {', '.join(SANITIZERS)}")
    name, sources = find_sources(plugin)
    chosen = SANITIZERS[sanitizer]
    compiler, runtime = find_runtime(chosen.runtime)
    with tempfile.TemporaryDirectory(prefix="pyframe-") as made:
        folder = Path(made)
        site, reports = folder / "site", folder / "reports"
        reports.mkdir()
        build(sources, site, [*compiler, *chosen.flags], folder / "build")
        command = [sys.executable, "-P", "-c", START.format(first=chosen.first), sanitizer, name]
        command += ["--site", str(site), "--sources", str(sources), "--reports", str(reports)]
        if sanitizer == "threads":
            command += ["--helper", str(build_helper(folder, [*compiler, *chosen.flags]))]
        status = subprocess.run(
            command, env=_environment(chosen, compiler, runtime, reports, name), check=False
        ).returncode
    if status not in (0, 1):
        how = f"with status {status}" if status > 0 else f"by signal {-status}"
        raise PluginError(f"the process that checked {name} under a sanitizer ended {how}")
    return status


def find_sources(plugin: str) -> tuple[str, Path]:
    """Return the name of a plugin's distribution, and the folder with its sources.

    Raises
    ------
    PluginError
        If it is not installed and no folder either, or was installed without its sources.
    """
    given = Path(plugin)
    is_path = os.sep in plugin or plugin == os.curdir or not _is_installed(plugin)
    if is_path and given.is_dir():
        project = given.resolve() / PROJECT
        if not project.is_file():
            raise PluginError(f"there is no {PROJECT} in the folder {given}")
        table = tomllib.loads(project.read_text(encoding="utf-8")).get("project", {})
        if not table.get("name"):
            raise PluginError(f"{project} names no project")
        return str(table["name"]), project.parent
    if not _is_installed(plugin):
        plugins.load(plugin)  # raises an error that says what is installed
    folder = source_folder(plugin)
    if folder is None or not Path(folder, PROJECT).is_file():
        raise PluginError(
            f"the sources of {plugin}, which a sanitizer needs, are not to be had: it was not "
            f"installed from a folder of this machine. Give the folder that has them, as in "
            f"'pyframe plugins check ./{plugin}'"
        )
    return plugin, Path(folder)


def _is_installed(plugin: str) -> bool:
    return normalized(plugin) in plugins.installed()


def find_runtime(library: str) -> tuple[list[str], Path]:
    """Return a compiler, and where the library of a sanitizer lies that comes with it.

    Raises
    ------
    MissingCompilerError
        If there is none.
    """
    if sys.platform != "linux":
        raise MissingCompilerError(f"sanitizers are used on Linux only, and this is {sys.platform}")
    tried = [find_compiler()]
    if "CC" not in os.environ and shutil.which("gcc"):
        tried.append(["gcc"])
    for compiler in tried:
        path = _library_of(compiler, library)
        if path is not None:
            return compiler, path
    raise MissingCompilerError(
        f"no {library} lies beside {' or '.join(command[0] for command in tried)}; it is GCC's, "
        "and comes with it on most systems: install gcc, or set CC to one that has it"
    )


def _library_of(compiler: Sequence[str], library: str) -> Path | None:
    try:
        said = subprocess.check_output([*compiler, f"-print-file-name={library}"], text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise_if_signalled(error)
        return None
    path = Path(said.strip())
    return path if path.is_absolute() and path.exists() else None


def build(sources: Path, site: Path, compiler: Sequence[str], folder: Path) -> None:
    """Build a package with a compiler and its flags, and install it in a folder of its own.

    Raises
    ------
    CompilationError
        If that fails; it ends with what the build said last.
    """
    # Not as a release: to compile checks with -O3 takes five times as long.
    flags = ["-O1", "-g", *(part for part in compiler if part.startswith("-"))]
    program = [part for part in compiler if not part.startswith("-")]
    command = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps"]
    command += ["--disable-pip-version-check", "--target", str(site)]
    if "scikit_build_core" in (sources / PROJECT).read_text(encoding="utf-8"):
        command += [f"-Cbuild-dir={folder}", "-Ccmake.build-type=Debug"]
    environment = {**os.environ, "CC": " ".join(program), "CFLAGS": " ".join(flags)}
    _run([*command, str(sources)], environment, f"{sources} cannot be built with a sanitizer")


def build_helper(folder: Path, compiler: Sequence[str]) -> Path:
    """Build the library by which kernels are called for the thread sanitizer."""
    made = folder / "helper.so"
    command = [*compiler, "-std=c11", "-O1", "-g", "-shared", "-fPIC", "-pthread"]
    command += [f"-I{pyframe.get_include()}", str(HELPER), "-o", str(made)]
    _run(command, dict(os.environ), "the helper of the thread sanitizer cannot be built")
    return made


def _run(command: Sequence[str], environment: dict[str, str], what: str) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip().splitlines()
        raise CompilationError("\n".join([f"{what}; the end of what was said:", *said[-LINES:]]))


def _environment(
    sanitizer: Sanitizer, compiler: Sequence[str], runtime: Path, reports: Path, name: str
) -> dict[str, str]:
    """Return the environment of the process that checks."""
    # That of C++ has to be there before anything throws: other packages bring it along later.
    first = [runtime, _library_of(compiler, "libstdc++.so.6")]
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(str(path) for path in first if path),
        "PYFRAME_PLUGINS": name,
        "OPENBLAS_NUM_THREADS": "1",  # the threads of other libraries are not built for it
    }
    environment.pop("PYFRAME_TESTING_IN_PROCESS", None)
    for variable, options in sanitizer.options.items():
        environment[variable] = f"{options}:log_path={reports}/report"
    return environment
