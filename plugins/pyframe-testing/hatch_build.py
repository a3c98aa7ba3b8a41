"""Takes the kit from where it is written: within the package that it checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Kit(BuildHookInterface):
    """Adds what the core's wheel leaves out: the modules of pyframe/testing/ but for its door, and
    what ``pyframe new-plugin`` runs, with its templates.

    In the repository they lie two folders up; a source distribution brings a copy along.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add them to what is built."""
        core = Path(self.root, "../..").resolve()
        kit, commands = core / "pyframe" / "testing", core / "pyframe" / "commands"
        scaffold = [commands / "scaffold.py", *(commands / "templates").rglob("*")]
        if kit.is_dir():
            build_data["force_include"] |= {
                str(path): path.relative_to(core).as_posix()
                for path in [*kit.iterdir(), *scaffold]
                if path.is_file() and path != kit / "__init__.py"
            }
