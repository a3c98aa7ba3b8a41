"""A place where a test follows instructions: a folder, and a shell in which packages install.

``pip install`` puts packages into a folder of the test's own and asks no network: what builds them
has to be here already, and what they depend on is.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

COMMANDS = ("pip", "pyframe", "pytest", "python")


class Workshop:
    """A shell that stays in the folder where a command has left it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "work"
        self.packages = folder / "packages"
        commands = folder / "commands"
        for made in (self.folder, self.packages, commands):
            made.mkdir()
        for name in COMMANDS:  # those of this very Python, which may have no scripts for them
            module = "" if name == "python" else f"-m {name}"
            (commands / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
            (commands / name).chmod(0o755)
        settings = {
            "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.packages),
            "PYTHONSAFEPATH": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PIP_TARGET": str(self.packages),
            "PIP_UPGRADE": "1",
            "PIP_NO_INDEX": "1",
            "PIP_NO_DEPS": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # 0: without isolation, as pip reads it
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
        }
        ours = ("PYTEST_", "PYFRAME_PLUGINS", "COV_")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        self.environment = inherited | settings

    def run(self, commands: str) -> str:
        """Run shell commands and return what they print; fail with it if one of them fails."""
        left = self.packages.parent / "left-in"
        script = f'set -eu\n{commands}\npwd > "{left}"\n'
        result = subprocess.run(
            ["sh", "-c", script],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
        )
        assert result.returncode == 0, f"{commands}\n\nended with this:\n{result.stdout}"
        self.folder = Path(left.read_text(encoding="utf-8").strip())
        return result.stdout

    def write(self, path: str, text: str) -> None:
        """Write a file, and the folders that it needs."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


class Block(NamedTuple):
    """A block of code in a page: what language, of which file if it is one, and its text."""

    language: str
    path: str | None
    text: str


def blocks(page: str) -> Iterator[Block]:
    """Yield the blocks of a page in order.

    One is a file when the line before it ends with the path in backticks and a colon.
    """
    pattern = r"(?:`([\w./-]+)`:\n\n)?^```(\w+)\n(.*?)^```$"
    for found in re.finditer(pattern, page, re.MULTILINE | re.DOTALL):
        yield Block(found[2], found[1], found[3])


def follow(page: str, workshop: Workshop) -> tuple[int, int]:
    """Do what a page says, and return how many files it wrote and how many tests passed."""
    files = passed = 0
    for block in blocks(page):
        if block.path is not None:
            workshop.write(block.path, block.text)
            files += 1
        elif block.language == "sh":
            said = workshop.run(block.text)
            passed += sum(int(n) for n in re.findall(r"(\d+) passed", said))
        elif block.language == "text":
            assert block.text.strip() in said, f"it says\n{said}\nand not\n{block.text}"
    return files, passed
