"""The suite on installed wheels, in environments that have no compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .building import ROOT, projects
from .say import Stop, find_wheel, run, say

VERSIONS = ("3.11", "3.12", "3.13")
COMPILERS = ("cc", "gcc", "clang", "g++", "clang++", "c++", "tcc", "zig")
# What tests start besides Python. Folders of system programs hold compilers too, so these few are
# linked into a folder of their own.
PROGRAMS = ("bash", "cat", "chmod", "cp", "env", "git", "kill", "ls", "mkdir", "mv", "nproc", "ps")
PROGRAMS += ("pwd", "rm", "sed", "sh", "sleep", "tail", "touch", "true", "uname", "which")
# The processor's own words for the last thing that each set of instructions needs; the best first.
FEATURES = {
    "avx512": {"avx512f", "avx512dq", "avx512bw", "avx512vl", "avx2", "fma"},
    "avx2": {"avx2", "fma"},
}


def try_wheels(
    wheels: Path, versions: Sequence[str] = VERSIONS, chosen: Sequence[str] = (), workers: int = 2
) -> None:
    """Install the wheels into a fresh environment of each version, and run the suite in it.

    Parameters
    ----------
    wheels : path
        The folder that the wheels are in.
    versions : sequence of str
        Of Python, as ``3.12``, or paths of interpreters.
    chosen : sequence of str
        What pytest gets; by default the suite of the core and that of each plugin.
    workers : int
        Processes at a time.
    """
    interpreters = [find_python(version) for version in versions]  # all, before anything runs
    with tempfile.TemporaryDirectory(prefix="wheels-") as name:
        programs = link_programs(Path(name, "programs"))
        for number, python in enumerate(interpreters):
            try_one(wheels, python, Path(name, str(number)), programs, chosen, workers)


def try_one(
    wheels: Path, python: Path, folder: Path, programs: Path, chosen: Sequence[str], workers: int
) -> None:
    """Run the suite in an environment of one Python."""
    run([python, "-m", "venv", folder])
    scripts = folder / "bin"
    python = scripts / "python"
    found = [
        find_wheel(wheels, one, os.uname().machine if one.compiled else "any") for one in projects()
    ]
    # Of the core's dependencies and what tests need nothing is compiled either.
    command = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    command += ["--only-binary=:all:", f"{found[0]}[test]", *found[1:]]
    run(command)
    environment = {
        "PATH": os.pathsep.join(str(path) for path in (scripts, programs)),
        "VIRTUAL_ENV": str(folder),
        "PYTHONSAFEPATH": "1",
    }
    for name in COMPILERS:
        if there := shutil.which(name, path=environment["PATH"]):
            raise Stop(f"{there} is a compiler, and there is to be none")
    version = run([python, "-c", "import sys; print(sys.version.split()[0])"]).strip()
    picked = check_instruction_set(python, environment)
    say(f"== Python {version}, kernels of {picked}, no compiler")
    pytest = [python, "-m", "pytest", "-p", "no:cacheprovider", "-n", str(workers)]
    if chosen:
        run([*pytest, *chosen], where=ROOT, environment=environment, show=True)
        return
    for project in projects():
        # The core's own suite plants broken plugins; elsewhere one that is set aside is an error.
        strict = {} if project.folder == ROOT else {"PYFRAME_STRICT_PLUGINS": "1"}
        run([*pytest, "tests"], where=project.folder, environment=environment | strict, show=True)


def check_instruction_set(python: Path, environment: dict[str, str]) -> str:
    """Return the instruction set that an installed core picks; it has to be the machine's best.

    A core whose compiler cannot tell what the processor knows works all the same, slowly.
    """
    code = (
        "import pyframe.native.core as n; print(n.instruction_set()); print(*n.instruction_sets())"
    )
    picked, sets = run([python, "-c", code], environment=environment).splitlines()
    best = best_instruction_set()
    if picked != best or best not in sets.split():
        raise Stop(f"the core picked the kernels of {picked}, but this machine runs {best}")
    return picked


def best_instruction_set() -> str:
    """Return the best set of kernels for this machine, by what the system says of it."""
    if os.uname().machine == "aarch64":
        return "neon"
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    flags = next((line.split(":")[1].split() for line in lines if line.startswith("flags")), [])
    return next((name for name, needed in FEATURES.items() if needed <= set(flags)), "baseline")


def find_python(version: str) -> Path:
    """Return an interpreter: of a version, by its name on PATH, or by its path."""
    name = version if os.sep in version else f"python{version}"
    found = shutil.which(name)
    command = [str(found), "-c", "import ensurepip, venv"]
    if found is None or subprocess.run(command, capture_output=True).returncode != 0:
        raise Stop(f"there is no {name} with venv on PATH; give --python versions or paths")
    return Path(found)


def link_programs(folder: Path) -> Path:
    """Make a folder of links to the few programs that tests start."""
    folder.mkdir()
    for name in PROGRAMS:
        if there := shutil.which(name):
            (folder / name).symlink_to(there)
    return folder
