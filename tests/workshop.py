"""A place where a test follows instructions: a folder, and a shell in which packages install.

``pip install`` puts packages into an environment of the test's own, which has all that is installed
here as well, and asks no network: what builds packages has to be here already, and what they depend
on is.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

COMMANDS = ("pip", "pyframe", "pytest")


class Workshop:
    """A shell that stays in the folder where a command has left it.

    Parameters
    ----------
    folder : Path
        For all that it has.
    isolated : bool, default False
        Leave it to the commands whether pip builds in an environment of its own, which it has to
        fill from an index: there is none.
    """

    def __init__(self, folder: Path, *, isolated: bool = False) -> None:
        self.folder = folder / "work"
        self.folder.mkdir()
        self.left = folder / "left-in"
        self.python = self._environment(folder / "environment")
        scripts = self.python.parent
        for name in COMMANDS:  # as its own, which the packages from here do not bring along
            script = scripts / name
            script.write_text(f'#!/bin/sh\nexec "{self.python}" -m {name} "$@"\n')
            script.chmod(0o755)
        settings = {
            "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
            "VIRTUAL_ENV": str(scripts.parent),
            "PYTHONSAFEPATH": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PIP_NO_INDEX": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
        }
        if not isolated:
            settings["PIP_NO_BUILD_ISOLATION"] = "0"  # 0: without isolation, as pip reads it
        ours = ("PYTEST_", "PYFRAME_PLUGINS", "COV_", "PYTHONPATH", "PIP_FIND_LINKS")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        self.environment = inherited | settings

    @staticmethod
    def _environment(folder: Path) -> Path:
        """Make an environment that has what is installed here too; return its Python."""
        command = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
        subprocess.run(command, check=True, timeout=240)
        (site,) = folder.glob("lib/python*/site-packages")
        places = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
        lines = [f"import site; site.addsitedir({place!r})\n" for place in sorted(places)]
        (site / "here.pth").write_text("".join(lines), encoding="utf-8")
        return folder / "bin" / "python"

    def run(self, commands: str, timeout: float = 240) -> str:
        """Run shell commands and return what they print; fail with it if one of them fails."""
        script = f'set -eu\n{commands}\npwd > "{self.left}"\n'
        result = subprocess.run(
            ["sh", "-c", script],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        assert result.returncode == 0, f"{commands}\n\nended with this:\n{result.stdout}"
        self.folder = Path(self.left.read_text(encoding="utf-8").strip())
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
            assert block.language not in ("sh", "text"), f"{block.path} is taken for a file"
            workshop.write(block.path, block.text)
            files += 1
        elif block.language == "sh":
            said = workshop.run(block.text)
            passed += sum(int(n) for n in re.findall(r"(\d+) passed", said))
        elif block.language == "text":
            assert block.text.strip() in said, f"it says\n{said}\nand not\n{block.text}"
    return files, passed
