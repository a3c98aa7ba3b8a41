"""Zig as a C compiler that brings the C libraries of other platforms along.

``zig cc`` is clang with headers and start-up files for every target, so that one machine compiles
for all of them, against any version of glibc. CMake gets it as a toolchain file.
"""

from __future__ import annotations

import importlib.util
import shlex
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

from .say import Stop


class Target(NamedTuple):
    """What is compiled for.

    Attributes
    ----------
    name : str
        How the command line calls it.
    triple : str
        How Zig calls it; behind the last hyphen the C library and its oldest version.
    system, processor : str
        How CMake calls them.
    tag : str
        The platform in the name of a wheel, before auditwheel finds a better one; empty where no
        wheels are built from here.
    """

    name: str
    triple: str
    system: str
    processor: str
    tag: str = ""


# glibc 2.17 is of 2012: manylinux2014, the oldest that NumPy's own wheels know.
LINUX = {
    processor: Target(
        processor, f"{processor}-linux-gnu.2.17", "Linux", processor, f"linux_{processor}"
    )
    for processor in ("x86_64", "aarch64")
}

# Compiled and linked, to see that they can be; their wheels come from machines of their own.
ELSEWHERE = {
    target.name: target
    for target in (
        Target("windows-x86_64", "x86_64-windows-gnu", "Windows", "AMD64"),
        Target("windows-arm64", "aarch64-windows-gnu", "Windows", "ARM64"),
        Target("macos-x86_64", "x86_64-macos.11.0", "Darwin", "x86_64"),
        Target("macos-arm64", "aarch64-macos.11.0", "Darwin", "arm64"),
        Target("musl-x86_64", "x86_64-linux-musl", "Linux", "x86_64"),
        Target("musl-aarch64", "aarch64-linux-musl", "Linux", "aarch64"),
    )
}

# How CMake's variables call the programs that a toolchain consists of, and Zig its subcommands.
PROGRAMS = {"C_COMPILER": "cc", "AR": "ar", "RANLIB": "ranlib", "RC_COMPILER": "rc"}

# What is loaded at run time is no shared library on macOS but a bundle, which Zig cannot link.
AS_SHARED = """for word do
  shift
  if [ "$word" = -bundle ]; then word=-shared; fi
  set -- "$@" "$word"
done
"""


def zig() -> Path:
    """Return Zig's program, which the package ``ziglang`` carries."""
    found = importlib.util.find_spec("ziglang")
    if found is None or not found.submodule_search_locations:
        raise Stop("there is no Zig: pip install --group release")
    return Path(found.submodule_search_locations[0]) / "zig"


def toolchain(target: Target, folder: Path, sources: Path) -> Path:
    """Write CMake's toolchain file for a target and return its path.

    CMake wants programs, not programs with arguments, so each gets a script of one line. It calls
    Zig itself: ``python -m ziglang`` would look for the package in the isolated environment of a
    build, which lacks it. The names of the source folder and of this one are cut from what the
    compiler writes down, so that the same sources give the same bytes wherever they lie.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        f"set(CMAKE_SYSTEM_NAME {target.system})",
        f"set(CMAKE_SYSTEM_PROCESSOR {target.processor})",
        # No symbols but the exported ones; the linker drops them, since a strip knows one target.
        'set(CMAKE_MODULE_LINKER_FLAGS_INIT "-s")',
    ]
    flags = ["-target", target.triple, f"-ffile-prefix-map={sources.resolve()}=."]
    for variable, program in PROGRAMS.items():
        command = [str(zig()), program, *(flags if program == "cc" else [])]
        script = folder / program
        first = AS_SHARED if target.system == "Darwin" else ""
        script.write_text(f'#!/bin/sh\n{first}exec {shlex.join(command)} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
        lines.append(f"set(CMAKE_{variable} {script})")
    path = folder / "toolchain.cmake"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def check_headers() -> None:
    """Refuse a Python whose headers are those of one processor only, as Debian's are."""
    multiarch = sysconfig.get_config_var("MULTIARCH")
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    split = Path("/usr/include", str(multiarch), version)
    if sysconfig.get_path("include").startswith("/usr/include") and split.exists():
        raise Stop(
            f"{sys.executable} has headers for {multiarch} only, and Zig does not look where they "
            "are; run this with a Python that was not installed by the system"
        )
