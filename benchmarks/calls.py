"""What a call of C costs, and a new array of one number: the floor beside the kernels of one row.

Compiles ``calls.c`` beside it, an extension of Python's stable ABI, with the C compiler of the
system, and prints processor time in nanoseconds: the least of several rounds.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

CALLS, ROUNDS = 200_000, 9
NAMES = {
    "nothing": "an empty call",
    "look_at_buffer": "a look at an array by the buffer protocol",
    "interpreter_lock": "releasing the interpreter's lock and taking it back",
    "new_by_numpy_c": "a new array of one number by NumPy's C interface",
    "new_by_empty": "by numpy.empty",
    "new_by_copy": "by ndarray.copy",
    "new_by_ndarray": "by the type ndarray",
}


def load(folder: str) -> Any:
    """Return the extension."""
    library = Path(folder) / "calls.so"
    command = ["cc", "-O2", "-shared", "-fPIC", "-I", sysconfig.get_path("include")]
    subprocess.run([*command, Path(__file__).with_suffix(".c"), "-o", library], check=True)
    spec = importlib.util.spec_from_file_location("calls", library)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def nanoseconds(call: Callable[[Any], Any], array: Any) -> float:
    """Return what a call takes, with its turn of the loop."""
    least = float("inf")
    for _ in range(ROUNDS):
        before = time.process_time()
        for _ in repeat(None, CALLS):
            call(array)
        least = min(least, time.process_time() - before)
    return 1e9 * least / CALLS


def main() -> None:
    """Print the table."""
    array = np.zeros((1, 13), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        calls = load(folder)
        nothing = nanoseconds(calls.nothing, array)
        print(f"{NAMES['nothing']}: {nothing:.0f} ns; more than that take")
        for name, what in NAMES.items():
            if name != "nothing":
                more = nanoseconds(getattr(calls, name), array) - nothing
                print(f"{what:>56}: {more:4.0f}")


if __name__ == "__main__":
    sys.exit(main())
