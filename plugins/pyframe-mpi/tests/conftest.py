"""Running the script of the tests on several ranks."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyframe as pf
import pytest

from pyframe_mpi.launching import find_mpiexec

SCRIPT = Path(__file__).with_name("script.py")


class Ended(NamedTuple):
    """How a run has ended, and when."""

    status: int
    said: str
    at: float
    result: dict[str, Any] | None


@pytest.fixture(scope="session")
def mpiexec() -> str:
    """Return the path of mpiexec."""
    try:
        return find_mpiexec()
    except pf.MissingExtraError as error:
        pytest.skip(f"needs an MPI: {error}")


@pytest.fixture(scope="session")
def runs(mpiexec: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Ended]:
    """Return what runs the script as it is on so many ranks, 0 for a plain process, once."""
    folder = tmp_path_factory.mktemp("runs")
    return functools.cache(lambda ranks: _run(mpiexec, folder, ranks))


@pytest.fixture
def run(mpiexec: str, tmp_path: Path) -> Callable[..., Ended]:
    """Return what runs the script: `run(3, how="kill")`."""
    return functools.partial(_run, mpiexec, tmp_path)


def _run(
    mpiexec: str, folder: Path, ranks: int, *command: str, launch: bool = False, **given: Any
) -> Ended:
    out = folder / "result.json"
    out.unlink(missing_ok=True)
    begin: list[str] = []
    if launch:
        begin = [sys.executable, "-m", "pyframe", "launch", "-n", str(ranks), *command]
    elif ranks:
        begin = [mpiexec, "-n", str(ranks), sys.executable]
    else:
        begin = [sys.executable]
    arguments = [f"{key}={value}" for key, value in given.items()]
    environment = {k: v for k, v in os.environ.items() if k != "PYFRAME_NUM_THREADS"}
    ended = subprocess.run(
        [*begin, str(SCRIPT), str(out), *arguments],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        check=False,
    )
    result = json.loads(out.read_text("utf-8")) if out.exists() else None
    return Ended(ended.returncode, ended.stdout, time.time(), result)
