"""What ``pyframe launch`` does: it begins the ranks of a script, anew if they fail."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pyframe as pf

RESTARTS = "PYFRAME_RESTART"  # how often the ranks were begun before
RANK = str(Path(__file__).with_name("rank.py"))


def main(argv: Sequence[str]) -> int:
    """Run the command ``pyframe launch``; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="pyframe launch",
        description="Runs a script on several ranks, by the mpiexec beside this Python or on the "
        "PATH, and names a rank that was killed.",
    )
    parser.add_argument("-n", type=int, default=2, metavar="N", help="how many ranks (default: 2)")
    parser.add_argument(
        "--restarts", type=int, default=0, metavar="N", help="how often to begin anew if one fails"
    )
    parser.add_argument(
        "--least", type=int, metavar="N", help="one rank fewer each time, down to so many"
    )
    parser.add_argument("--hostfile", metavar="FILE", help="names the machines, for mpiexec")
    parser.add_argument("script", metavar="SCRIPT")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of the script")
    given = parser.parse_args(argv)
    return launch(
        [given.script, *given.arguments],
        given.n,
        restarts=given.restarts,
        least=given.least,
        hostfile=given.hostfile,
    )


def find_mpiexec() -> str:
    """Return the path of mpiexec: beside this Python, or else on the PATH.

    Raises
    ------
    pyframe.MissingExtraError
        If there is none.
    """
    beside = Path(sys.executable).parent / "mpiexec"
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        raise pf.MissingExtraError(
            "there is no mpiexec beside this Python or on the PATH; pip install "
            '"pyframe-mpi[mpich]" brings one, and a cluster has its own (module load mpi)'
        )
    return found


def launch(
    script: Sequence[str],
    ranks: int,
    *,
    restarts: int = 0,
    least: int | None = None,
    hostfile: str | None = None,
) -> int:
    """Run a script on several ranks, and return its exit status.

    Parameters
    ----------
    script : list of str
        Its path, and its arguments.
    ranks : int
    restarts : int, default 0
        How often to begin anew after a failure; the script then finds its last checkpoint. In its
        environment PYFRAME_RESTART says how often that was.
    least : int, optional
        Each new beginning has one rank fewer, down to so many; default: all of them.
    hostfile : str, optional
        A file that names the machines, for mpiexec.

    Raises
    ------
    pyframe.ArgumentError
        If a number makes no sense.
    pyframe.MissingExtraError
        If there is no mpiexec.
    """
    least = ranks if least is None else least
    if not (1 <= least <= ranks and restarts >= 0):
        raise pf.ArgumentError(
            f"{ranks} ranks, at least {least}, {restarts} restarts; there is at least one rank, "
            "and no more than there are at first, and restarts are not below 0"
        )
    command = [find_mpiexec()]
    if hostfile is not None:
        command += ["-hostfile", hostfile]
    for attempt in range(restarts + 1):
        count = max(ranks - attempt, least)
        status = _run([*command, "-n", str(count), sys.executable, RANK, *script], attempt)
        if status == 0 or status == 128 + signal.SIGINT or attempt == restarts:
            break
        _say(f"{count} ranks ended with status {status}; restart {attempt + 1} of {restarts}")
    return status


def _run(command: list[str], attempt: int) -> int:
    """Run the ranks once."""
    environment = {**os.environ, RESTARTS: str(attempt)}
    with subprocess.Popen(command, env=environment) as process:
        while True:
            try:
                status = process.wait()
            except KeyboardInterrupt:  # mpiexec has got it too, and tells its processes
                continue
            return 128 - status if status < 0 else status


def _say(text: str) -> None:
    print(f"pyframe launch: {text}", file=sys.stderr, flush=True)
