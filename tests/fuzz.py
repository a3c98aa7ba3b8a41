"""Check random graphs for as long as you like, under every instruction set of this machine.

    python tests/fuzz.py --seconds 3600             # an hour, split among the instruction sets
    python tests/fuzz.py --seconds 60 --seed 5000   # from that graph on
    just fuzz 3600                                  # the same

Each instruction set has a process of its own, since a fault may end it. Ends with 1 if anything was
wrong, and with the smallest graph that shows it as a program.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from itertools import count

from pyframe.native.core import instruction_sets
from pyframe.testing import check_graphs


def work(seconds: float, seed: int) -> None:
    """Check graphs until the time is over; say which one comes, in case the process ends there."""
    end, usable, checked = time.monotonic() + seconds, 0, 0
    for i in count(seed):
        if time.monotonic() > end:
            break
        print(f"graph {i}", end="\r", flush=True)
        usable += check_graphs(1, seed=i)
        checked += 1
    print(f"{checked} graphs, {usable} of them compared with the references: all right")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--here", action="store_true", help="in this process and instruction set")
    given = parser.parse_args()
    if given.here:
        work(given.seconds, given.seed)
        return 0
    sets = instruction_sets()
    status = 0
    for isa in sets:
        print(f"{isa}: graphs from {given.seed} on", flush=True)
        command = [sys.executable, __file__, "--here", "--seed", str(given.seed)]
        command += ["--seconds", str(given.seconds / len(sets))]
        done = subprocess.run(command, env={**os.environ, "PYFRAME_ISA": isa}, check=False)
        status |= done.returncode != 0
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
