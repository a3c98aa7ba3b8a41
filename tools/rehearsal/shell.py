"""Running commands, and environments to run them in."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

USUAL_INDEX = "https://pypi.org/simple"
# Where packages come from is the rehearsal's own business; all else is the user's.
OF_THE_INDEX = {"index-url", "extra-index-url", "find-links", "no-index", "config-file", "target"}


class Failure(Exception):
    """A step of the rehearsal did not do what it should."""


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Announce a step, and say how long it took."""
    say(f"== {name}")
    start = time.monotonic()
    yield
    say(f"   {time.monotonic() - start:.1f} s")


def run(
    command: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 900,
) -> str:
    """Run a command and return what it prints.

    Raises
    ------
    Failure
        With the end of what it printed, if its exit status is not 0 or it takes too long.
    """
    words = shlex.join(map(str, command))
    words = words if len(words) < 200 else f"{words[:200]}..."
    try:
        done = subprocess.run(
            [str(part) for part in command],
            env=env,
            cwd=cwd,
            timeout=timeout,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except subprocess.TimeoutExpired:
        raise Failure(f"{words}\n   took longer than {timeout:.0f} s") from None
    if done.returncode:
        raise Failure(f"{words}\n   ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout


def settings() -> dict[str, str]:
    """Return the user's settings of pip, as variables of the environment: proxies, certificates."""
    said = run([sys.executable, "-m", "pip", "config", "list"])
    pairs = (line.partition("=") for line in said.splitlines())
    return {name.rpartition(".")[2]: value.strip().strip("'\"") for name, _, value in pairs}


def environment(index: str, found: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which pip takes all from one index.

    Parameters
    ----------
    index : str
        Its address.
    found : mapping of str to str
        The user's settings of pip.
    """
    ours = ("PIP_", "PYFRAME_", "PYTHON", "VIRTUAL_ENV", "SKBUILD")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    kept |= {
        f"PIP_{name.upper().replace('-', '_')}": value
        for name, value in found.items()
        if name not in OF_THE_INDEX
    }
    return kept | {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": index,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTHONSAFEPATH": "1",
        "MPLBACKEND": "Agg",
    }


class Venv:
    """A fresh virtual environment."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")
        path = f"{self.bin}{os.pathsep}{env['PATH']}"
        self.env = {**env, "PATH": path, "VIRTUAL_ENV": str(folder)}
        run([sys.executable, "-m", "venv", folder])

    def run(self, *command: str | os.PathLike[str], cwd: Path, timeout: float = 900) -> str:
        """Run a command of this environment in a folder."""
        return run([self.bin / command[0], *command[1:]], env=self.env, cwd=cwd, timeout=timeout)

    def shell(self, line: str, *, cwd: Path) -> str:
        """Run a line of a page in a folder."""
        return run(["bash", "-euo", "pipefail", "-c", line], env=self.env, cwd=cwd)
