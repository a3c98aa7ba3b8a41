"""Wheels of the core and of every plugin, built and proved on one Linux machine.

    python tools/wheels.py build --out dist         source distributions and wheels, with Zig
    python tools/wheels.py check dist               sizes, symbols, tags; settings for elsewhere
    python tools/wheels.py reproducible             two builds, the same bytes
    python tools/wheels.py test dist                the suite in fresh environments, no compiler
    python tools/wheels.py abi dist                 with a core, and plugins, of other versions
    python tools/wheels.py compile-elsewhere        Windows, macOS, musl: compiled and linked
    python tools/wheels.py emulate dist             the suite on aarch64; needs root, and time

docs/wheels.md tells the rest. What this needs is installed by ``pip install --group release``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from wheelhouse.building import build, projects
from wheelhouse.checking import check, reproducible
from wheelhouse.elsewhere import compile_elsewhere
from wheelhouse.emulating import emulate
from wheelhouse.say import Stop
from wheelhouse.trying import VERSIONS, try_wheels
from wheelhouse.versions import try_versions
from wheelhouse.zig import ELSEWHERE, LINUX


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    made = argparse.ArgumentParser(prog="wheels.py", description=__doc__.splitlines()[0])
    commands = made.add_subparsers(dest="command", required=True)

    one = commands.add_parser("build", help="source distributions and wheels")
    one.add_argument("--out", type=Path, default=Path("dist"), help="where they go: dist")
    some = one.add_mutually_exclusive_group()
    some.add_argument(
        "--platform", nargs="+", choices=LINUX, default=list(LINUX), help="processors: all"
    )
    some.add_argument(
        "--sources-only", action="store_true", help="no wheels of what has kernels in C"
    )
    one.add_argument("projects", nargs="*", metavar="PROJECT", help="folders: core and plugins")

    one = with_wheels(commands, "check", "look at wheels, and at the settings for elsewhere")

    commands.add_parser("reproducible", help="build twice and compare the bytes")

    one = with_wheels(commands, "test", "run the suite on the wheels, where no compiler is")
    one.add_argument(
        "--python", nargs="+", default=list(VERSIONS), help="versions, or paths of interpreters"
    )
    with_pytest(one)

    with_wheels(commands, "abi", "plugins with cores of other versions")

    one = commands.add_parser("compile-elsewhere", help="compile and link for other systems")
    one.add_argument("--target", nargs="+", choices=ELSEWHERE, default=list(ELSEWHERE))

    one = with_wheels(commands, "emulate", "run the suite on aarch64, under emulation")
    one.add_argument(
        "--work", type=Path, default=Path("build/aarch64"), help="where Debian for ARM is unpacked"
    )
    with_pytest(one)
    return made


def with_wheels(
    commands: argparse._SubParsersAction, name: str, words: str
) -> argparse.ArgumentParser:
    """Add a command that takes a folder of wheels."""
    one = commands.add_parser(name, help=words)
    one.add_argument("wheels", type=Path, nargs="?", default=Path("dist"), help="the folder: dist")
    return one


def with_pytest(one: argparse.ArgumentParser) -> None:
    """Let a command take what it hands on to pytest."""
    one.add_argument("--workers", type=int, default=2, help="processes at a time: 2")
    one.add_argument("--pytest", nargs="+", default=[], help="what pytest gets: the suites")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 if all is well."""
    options = parser().parse_args(arguments)
    commands = {
        "build": lambda: build(
            options.out,
            projects(options.projects),
            () if options.sources_only else options.platform,
        ),
        "check": lambda: check(options.wheels),
        "reproducible": lambda: reproducible(lambda out: build(out, projects())),
        "test": lambda: try_wheels(options.wheels, options.python, options.pytest, options.workers),
        "abi": lambda: try_versions(options.wheels),
        "compile-elsewhere": lambda: compile_elsewhere(options.target),
        "emulate": lambda: emulate(options.wheels, options.work, options.pytest, options.workers),
    }
    try:
        commands[options.command]()
    except Stop as stop:
        print(f"wheels.py: {stop}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
