"""Run a command, pytest above all, on a build of the C code with a sanitizer.

    python tools/sanitize.py address pytest tests/test_gemm.py
    python tools/sanitize.py thread pytest -k "not fork" tests/test_threads.py
    python tools/sanitize.py --no-build address python tests/fuzz.py --seconds 60

`address` looks for undefined behaviour as well. The core, and for `address` the plugins too, are
installed into the environment that this runs in, which must have been made by
``pip install ".[test]"``: with --sets baseline,avx2 without kernels for other instruction sets,
such as one that this processor does not run; with --no-build what an earlier call installed is
taken. The command's status is passed on, and is 1 where any process that it started has reported
something, whether or not anybody looked at how that process ended. Where no sanitizer lies beside
cc the status is 77, as of a test that was left out.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = 77
# Undefined behaviour meets an instruction that does not exist, which the address sanitizer reports
# (ILL) with its line: of two runtimes in a process, one would write elsewhere than it is told to.
FLAGS = {
    "address": "-fsanitize=address,undefined -fsanitize-undefined-trap-on-error",
    "thread": "-fsanitize=thread",
}
# What the interpreter has on the stack tells nothing.
OF_PYTHON = re.compile(r"^ +#\d+ .* (Python|Objects|Modules|Include)/\S+:\d+$")
OPTIONAL = {"avx2", "avx512"}  # what a build of the core may have no kernels for
RUNTIMES = {"address": "libasan.so", "thread": "libtsan.so"}


def find_library(name: str) -> Path | None:
    """Return where a library lies that comes with cc, or None if it does not."""
    try:
        said = subprocess.check_output(["cc", f"-print-file-name={name}"], text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    path = Path(said.strip())
    return path if path.is_absolute() and path.exists() else None


def build(sanitizer: str, sets: Collection[str] = ()) -> None:
    """Install the core, and for `address` the plugins, compiled with a sanitizer.

    Parameters
    ----------
    sanitizer : str
        "address" or "thread".
    sets : collection of str
        The instruction sets that there are kernels for; by default all that the compiler knows.
    """
    # Not as a release: to compile checks with -O3 takes five times as long. A report needs lines.
    flags = f"{FLAGS[sanitizer]} -O1 -g1 -fno-omit-frame-pointer"
    environment = {**os.environ, "CC": "cc", "CFLAGS": flags}
    options = {
        "cmake.build-type": "Debug",
        # A plugin would ask pyframe, which is not to be had without the sanitizer's runtime.
        "cmake.define.PYFRAME_INCLUDE": str(ROOT / "core_c" / "include"),
    }
    # What CMake has found once stays in its folder, so each choice has one.
    folder = Path(sys.prefix) / "sanitized" / "-".join([sanitizer, *sorted(sets)])
    if sets:
        options |= {f"cmake.define.COMPILER_HAS_{isa}": "OFF" for isa in OPTIONAL - set(sets)}
    plugins = sorted((ROOT / "plugins").glob("*/")) if sanitizer == "address" else []
    for project in [ROOT, *plugins]:
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-build-isolation"]
        command += ["--no-deps", "--force-reinstall"]
        if "scikit_build_core" in (project / "pyproject.toml").read_text(encoding="utf-8"):
            options["build-dir"] = str(folder / project.name)
            command += [f"-C{name}={value}" for name, value in options.items()]
        subprocess.run([*command, str(project)], env=environment, check=True)


def run(sanitizer: str, command: Sequence[str], runtime: Path) -> int:
    """Run a command under a sanitizer, print what was reported, and return the status."""
    # That of C++ has to be there before anything throws: matplotlib brings it along later.
    first = [runtime, find_library("libstdc++.so.6")]
    with tempfile.TemporaryDirectory() as folder:
        options = f"log_path={folder}/report"
        environment = {
            **os.environ,
            "PYFRAME_TESTING_IN_PROCESS": "1",  # a sanitizer says by itself what ended a process
            "LD_PRELOAD": " ".join(str(path) for path in first if path),
            # Python keeps what it has until it ends, and beyond.
            "ASAN_OPTIONS": f"{options}:detect_leaks=0:handle_sigill=1",
            "TSAN_OPTIONS": options,
            # The threads of other libraries are not built for it.
            "OPENBLAS_NUM_THREADS": "1",
        }
        status = subprocess.run(command, env=environment, check=False).returncode
        reports = sorted(Path(folder).iterdir())
        for report in reports:
            lines = report.read_text(encoding="utf-8", errors="replace").splitlines()
            print(*(line for line in lines if not OF_PYTHON.search(line)), sep="\n", flush=True)
    if reports:
        print(f"the {sanitizer} sanitizer reported something in {len(reports)} process(es)")
    return 1 if reports else status


def main(arguments: Sequence[str] | None = None) -> int:
    """Build if asked to, and run the command."""
    parser = argparse.ArgumentParser(prog="sanitize.py", description=__doc__.splitlines()[0])
    parser.add_argument("--no-build", action="store_true", help="take what was built before")
    parser.add_argument(
        "--sets", default="", help="instruction sets to compile for, with commas between them"
    )
    parser.add_argument("sanitizer", choices=FLAGS)
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what runs under it")
    given = parser.parse_args(arguments)
    if not given.command:
        parser.error("which command is to run under it?")
    sets = {isa for isa in given.sets.split(",") if isa}
    if not sets <= {"baseline", "neon", *OPTIONAL}:
        parser.error(f"--sets {given.sets}: they are baseline, neon, {', '.join(sorted(OPTIONAL))}")
    if "avx512" in sets:
        sets.add("avx2")  # some of whose kernels it takes
    runtime = find_library(RUNTIMES[given.sanitizer])
    if runtime is None:
        print(f"no {given.sanitizer} sanitizer lies beside cc: this is left out")
        return LEFT_OUT
    if not given.no_build:
        build(given.sanitizer, sets)
    return run(given.sanitizer, given.command, runtime)


if __name__ == "__main__":
    sys.exit(main())
