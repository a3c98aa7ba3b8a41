"""What the commands say, and how they run others."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .building import Project


class Stop(Exception):
    """Ends the command with a sentence."""


def say(text: str) -> None:
    """Print a line at once, also when the output goes to a file."""
    print(text, flush=True)


def run(
    command: Sequence[str | Path],
    *,
    where: Path | None = None,
    environment: Mapping[str, str] | None = None,
    show: bool = False,
) -> str:
    """Run a command and return what it printed.

    Parameters
    ----------
    command : sequence of str or path
    where : path, optional
        The folder that it runs in.
    environment : mapping, optional
        Variables beside those of this process.
    show : bool, default False
        Pass on what it prints, line by line, instead of keeping it for the case of a failure.

    Raises
    ------
    Stop
        If it fails, with what it printed.
    """
    words = [str(word) for word in command]
    lines = []
    with subprocess.Popen(
        words,
        cwd=where,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if show:
                sys.stdout.write(line)
                sys.stdout.flush()
    said = "".join(lines)
    if process.returncode != 0:
        tail = "" if show else f"\n{said[-6000:]}"
        raise Stop(f"this ended with {process.returncode}: {shlex.join(words)}{tail}")
    return said


def find_tool(name: str, how: str = "pip install --group release") -> Path:
    """Return where a program is: beside this Python, or on PATH; say how it is had if nowhere."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which(name, path=beside) or shutil.which(name)
    if found is None:
        raise Stop(f"there is no {name}: {how}")
    return Path(found)


def find_wheel(folder: Path, project: Project, platform: str) -> Path:
    """Return the one wheel of a project for a processor, or for ``any``."""
    found = sorted(folder.glob(f"{project.stem}-*{platform}.whl"))
    if len(found) != 1:
        number = "several wheels" if found else "no wheel"
        raise Stop(f"{folder} has {number} of {project.name} for {platform}: tools/wheels.py build")
    return found[0]
