"""What ``pyframe launch`` has mpiexec begin for each rank: the script, in a process of its own.

If that is killed, this one says so. mpiexec kills all other ranks then, and cannot tell afterwards
which was the first. It runs as a file, and imports nothing that takes time.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from types import FrameType

NUMBERED = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")
END_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


def end_with_parent() -> None:
    """Have the kernel end this process when the one that began it is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(END_WITH_PARENT, signal.SIGKILL)


def main() -> int:
    """Run a script with its arguments, and return its exit status."""
    with subprocess.Popen(
        [sys.executable, *sys.argv[1:]],
        close_fds=False,  # one of them leads to mpiexec
        process_group=0,  # what mpiexec is told by Ctrl-C comes once, from here
        preexec_fn=end_with_parent,
    ) as script:

        def pass_on(number: int, frame: FrameType | None) -> None:
            script.send_signal(number)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, pass_on)
        status = script.wait()
    if status >= 0:
        return status
    rank = next((os.environ[name] for name in NUMBERED if name in os.environ), "of unknown number")
    name = signal.Signals(-status).name
    print(f"pyframe launch: rank {rank} was killed, by {name}", file=sys.stderr, flush=True)
    return 128 - status


if __name__ == "__main__":
    sys.exit(main())
