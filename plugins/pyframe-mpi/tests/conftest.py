"""Running the script of the tests on several ranks."""

from __future__ import annotations

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
    """How a run has ended."""

    status: int
    said: str
    seconds: float
    result: dict[str, Any] | None


@pytest.fixture(scope="session")
def mpiexec() -> str:
    """Return the path of mpiexec."""
    try:
        return find_mpiexec()
    except pf.MissingExtraError as error:
        pytest.skip(f"needs an MPI: {error}")


@pytest.fixture
def run(mpiexec: str, tmp_path: Path) -> Callable[..., Ended]:
    """Return what runs the script: `run(3, how="kill")`."""

    def runs(ranks: int, *command: str, launch: bool = False, **given: Any) -> Ended:
        out = tmp_path / "result.json"
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
        start = time.monotonic()
        ended = subprocess.run(
            [*begin, str(SCRIPT), str(out), *arguments],
            cwd=tmp_path,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
        )
        result = json.loads(out.read_text("utf-8")) if out.exists() else None
        return Ended(ended.returncode, ended.stdout, time.monotonic() - start, result)

    return runs
