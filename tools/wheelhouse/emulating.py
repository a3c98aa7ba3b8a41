"""The suite on another processor, which this one plays.

QEMU's user mode runs the programs of 64-bit ARM one by one; what they ask of the system this
system answers. It knows NEON, so its kernels compute here what they compute there, to the bit;
how fast they do says nothing.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .building import ROOT, projects
from .say import Stop, find_tool, find_wheel, run, say

# Debian's release whose Python is of the oldest version that pyframe runs on.
RELEASE, PYTHON = "bookworm", "3.11"
PACKAGES = ("python3", "python3-venv", "libstdc++6", "libgomp1", "coreutils", "dash")
# pip compares each of them as it is written, and packages name the one that they need.
PLATFORMS = [f"manylinux_2_{minor}_aarch64" for minor in range(36, 16, -1)]
BINFMT = Path("/proc/sys/fs/binfmt_misc")
# How programs of 64-bit ARM begin, and what runs them. F: found now, not when one is started.
FORMAT = (
    r":pyframe-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:"
    r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:{}:F"
)
# What builds packages, draws, measures, or trains what scikit-learn's checks ask for is the same on
# each processor, and would take hours here.
ELSEWHERE = (
    "test_benchmarks",
    "test_cli",
    "test_docstrings",
    "test_lesson",
    "test_lesson_pictures",
    "test_mlp",
    "test_net_defaults",
    "test_net_estimators",
    "test_net_parameters",
    "test_net_weights",
    "test_package",
    "test_plotting",
    "test_plugin_pages",
    "test_pytest_plugin",
    "test_readme",
    "test_scaffold",
    "test_structure",
)


def emulate(wheels: Path, work: Path, chosen: Sequence[str] = (), workers: int = 2) -> None:
    """Run the tests with the aarch64 wheels under emulation.

    Parameters
    ----------
    wheels : path
        The folder that the wheels are in.
    work : path
        Where a small Debian for ARM and the packages go; what is there already is used again.
    chosen : sequence of str
        What pytest gets; by default the suite of the core and of each plugin with kernels in C,
        without `ELSEWHERE`.
    workers : int
        Processes at a time.
    """
    emulator = find_tool("qemu-aarch64-static", "apt-get install qemu-user-static")
    root, site = (work / "debian").resolve(), (work / "site").resolve()
    make_root(root)
    install(wheels, site)
    environment = {
        "QEMU_LD_PREFIX": str(root),
        "PYTHONPATH": str(site),
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        # no compiler among them: it would compile for the processor that is really there
        "PATH": os.pathsep.join(str(path) for path in (site / "bin", root / "usr/bin")),
        "OPENBLAS_NUM_THREADS": "1",
    }
    python = root / f"usr/bin/python{PYTHON}"
    with binary_format(emulator):
        code = "import pyframe.native.core as n, platform as p; "
        code += "print(p.machine(), n.instruction_set())"
        said = run([python, "-c", code], environment=environment).split()
        if said != ["aarch64", "neon"]:
            raise Stop(f"the kernels picked are {said}, not those of NEON")
        say("aarch64: the kernels of neon were picked")
        pytest = [python, "-m", "pytest", "-p", "no:cacheprovider", "-n", str(workers)]
        if chosen:
            run([*pytest, *chosen], where=ROOT, environment=environment, show=True)
            return
        skipped = [f"--ignore=tests/{name}.py" for name in ELSEWHERE]
        run([*pytest, *skipped, "tests"], where=ROOT, environment=environment, show=True)
        environment["PYFRAME_STRICT_PLUGINS"] = "1"  # the core's own suite plants broken ones
        for project in projects():
            if project.compiled and project.folder != ROOT:
                run([*pytest, "tests"], where=project.folder, environment=environment, show=True)


def make_root(root: Path) -> None:
    """Unpack a Debian for ARM with a Python, unless it is there."""
    if (root / f"usr/bin/python{PYTHON}").exists():
        return
    command = find_tool("mmdebstrap", "apt-get install mmdebstrap")
    say(f"unpacking Debian {RELEASE} for arm64 to {root}")
    root.parent.mkdir(parents=True, exist_ok=True)
    options = ["--variant=extract", "--architectures=arm64", f"--include={','.join(PACKAGES)}"]
    run([command, *options, RELEASE, root])


def install(wheels: Path, site: Path) -> None:
    """Put the wheels for ARM and what the tests need into a folder, with this machine's pip."""
    shutil.rmtree(site, ignore_errors=True)
    found = [
        find_wheel(wheels, project, "aarch64" if project.compiled else "any")
        for project in projects()
    ]
    command = [sys.executable, "-m", "pip", "install", "-q", "--target", site]
    command += ["--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=cp"]
    command += [f"--abi={abi}" for abi in (f"cp{PYTHON.replace('.', '')}", "abi3", "none")]
    command += [f"--platform={platform}" for platform in (*PLATFORMS, "manylinux2014_aarch64")]
    run([*command, f"{found[0]}[test]", *found[1:]])


@contextmanager
def binary_format(emulator: Path) -> Iterator[None]:
    """Have the system start programs for ARM with an emulator, for as long as this lasts.

    Without it the first program can be given to the emulator by hand, but none that it starts.
    """
    if os.geteuid() != 0:
        raise Stop("only root may say what runs the programs of another processor; use sudo")
    mounted = (BINFMT / "register").exists()
    if not mounted:
        run(["mount", "-t", "binfmt_misc", "none", BINFMT])
    entry = BINFMT / "pyframe-aarch64"
    try:
        if not entry.exists():
            (BINFMT / "register").write_text(FORMAT.format(emulator), encoding="ascii")
        yield
    finally:
        if entry.exists():
            entry.write_text("-1", encoding="ascii")
        if not mounted:
            run(["umount", BINFMT])
