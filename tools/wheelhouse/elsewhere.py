"""The C of the core and of the plugins, compiled and linked for systems that are not here.

It is a check by the compiler and the linker, no run: threads of Win32, the headers of macOS, other
C libraries than glibc.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from .building import ROOT, Project, projects
from .say import find_tool, run, say
from .zig import ELSEWHERE, toolchain

INCLUDE = ROOT / "core_c" / "include"
# The Python of another system is not here. For CMake's search for it this stands in: everything is
# compiled and linked but what includes Python's headers, the one file that cffi writes and the
# launcher, which is then a library of nothing that nobody builds.
NO_PYTHON = """
function(python_add_library name)
  list(FILTER ARGN INCLUDE REGEX "TARGET_OBJECTS")
  if(ARGN)
    add_library(${name} MODULE ${ARGN})
  else()
    file(WRITE "${CMAKE_CURRENT_BINARY_DIR}/${name}.c" "")
    add_library(${name} MODULE EXCLUDE_FROM_ALL "${CMAKE_CURRENT_BINARY_DIR}/${name}.c")
  endif()
  set_target_properties(${name} PROPERTIES LINKER_LANGUAGE C)
endfunction()
macro(no_python method package)
  if("${package}" STREQUAL "Python")
    set(Python_FOUND TRUE)
  endif()
endmacro()
cmake_language(SET_DEPENDENCY_PROVIDER no_python SUPPORTED_METHODS FIND_PACKAGE)
"""


def compile_elsewhere(names: Sequence[str] = tuple(ELSEWHERE)) -> None:
    """Compile and link every library for some targets; a warning is an error.

    Parameters
    ----------
    names : sequence of str
        Keys of `wheelhouse.zig.ELSEWHERE`.
    """
    with tempfile.TemporaryDirectory(prefix="elsewhere-") as folder:
        for name in names:
            for project in projects():
                if project.compiled:
                    size = compile_one(project, name, Path(folder, name, project.stem))
                    say(f"{size:>10,} bytes  {project.name} for {name}")


def compile_one(project: Project, name: str, work: Path) -> int:
    """Compile and link a library for a target, and return its size in bytes."""
    is_core = project.folder == ROOT
    sources = project.folder / ("core_c" if is_core else "kernels")
    options = [
        f"-DCMAKE_TOOLCHAIN_FILE={toolchain(ELSEWHERE[name], work / 'toolchain', sources)}",
        "-DCMAKE_C_FLAGS=-Werror",
        # Without Python's own file nothing calls the kernels, and a linker may leave them out.
        "-DCMAKE_MODULE_LINKER_FLAGS=-Wl,--no-gc-sections",
    ]
    build = work / "build"
    configure(sources, build, options if is_core else [*options, f"-DPYFRAME_INCLUDE={INCLUDE}"])
    run([find_tool("cmake"), "--build", build])
    suffixes = (".so", ".dll")
    (made,) = (path for path in build.iterdir() if path.suffix in suffixes)
    return made.stat().st_size


def configure(sources: Path, build: Path, options: Sequence[str]) -> None:
    """Have CMake make the files of a build in which there is no Python."""
    build.mkdir(parents=True)
    stand_in = build / "python.cmake"
    stand_in.write_text(NO_PYTHON, encoding="utf-8")
    options = [*options, f"-DCMAKE_MAKE_PROGRAM={find_tool('ninja')}"]
    options.append(f"-DCMAKE_PROJECT_TOP_LEVEL_INCLUDES={stand_in}")
    run([find_tool("cmake"), "-G", "Ninja", "-S", sources, "-B", build, *options])
