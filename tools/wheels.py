"""Wheels of the core and of every plugin, built and proved on one Linux machine.

    python tools/wheels.py build --out dist     the wheels, and the source distributions

docs/wheels.md tells the rest. What this needs is installed by ``pip install --group release``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from wheelhouse.building import build, projects
from wheelhouse.say import Stop
from wheelhouse.zig import LINUX


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    made = argparse.ArgumentParser(prog="wheels.py", description=__doc__.splitlines()[0])
    commands = made.add_subparsers(dest="command", required=True)
    one = commands.add_parser("build", help="source distributions and wheels")
    one.add_argument("--out", type=Path, default=Path("dist"), help="where they go: dist")
    one.add_argument(
        "--platform", nargs="+", choices=LINUX, default=list(LINUX), help="processors: all"
    )
    one.add_argument("projects", nargs="*", metavar="PROJECT", help="folders: core and plugins")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 if all is well."""
    options = parser().parse_args(arguments)
    try:
        if options.command == "build":
            build(options.out, projects(options.projects), options.platform)
    except Stop as stop:
        print(f"wheels.py: {stop}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
