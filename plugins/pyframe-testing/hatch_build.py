"""Takes the kit from where it is written: beside the package that it checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Kit(BuildHookInterface):
    """Adds the modules of pyframe/testing/ but for its door, which belongs to the core's wheel.

    In the repository they lie two folders up; a source distribution brings a copy along.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add them to what is built."""
        kit = Path(self.root, "../../pyframe/testing").resolve()
        if kit.is_dir():
            build_data["force_include"] |= {
                str(path): f"pyframe/testing/{path.name}"
                for path in kit.iterdir()
                if path.is_file() and path.name != "__init__.py"
            }
