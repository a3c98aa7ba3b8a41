"""The example in the repository: two ranks come to the accuracy of one process."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn")

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "digits_on_ranks.py"


def test_digits_on_two_ranks(mpiexec: str, tmp_path: Path) -> None:
    if not EXAMPLE.exists():
        pytest.skip("the examples are in the repository")
    said = [
        subprocess.run(
            [*begin, sys.executable, str(EXAMPLE)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for begin in ([], [mpiexec, "-n", "2"])
    ]
    assert "ranks: 1, " in said[0] and "ranks: 2, " in said[1]
    one, two = (float(re.search(r"accuracy on the last fifth: ([\d.]+)", s)[1]) for s in said)
    assert one > 0.85 and abs(one - two) <= 1 / 360  # of 360 digits one may fall on the other side
