"""The example in the repository: two ranks come to the accuracy of one process.

On scikit-learn's digits, and on MNIST where its files are: in the folder that PYFRAME_DATA names,
or beside the repository.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn")

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "digits_on_ranks.py"


MNIST = Path(os.environ.get("PYFRAME_DATA", EXAMPLE.parents[2] / "shared" / "data"))


def accuracies(mpiexec: str, tmp_path: Path, *arguments: str) -> list[float]:
    """Return what one process and what two ranks come to."""
    if not EXAMPLE.exists():
        pytest.skip("the examples are in the repository")
    said = [
        subprocess.run(
            [*begin, sys.executable, str(EXAMPLE), *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for begin in ([], [mpiexec, "-n", "2"])
    ]
    assert "ranks: 1, " in said[0] and "ranks: 2, " in said[1]
    return [float(re.search(r"accuracy on others: ([\d.]+)", s)[1]) for s in said]


def test_mnist_on_two_ranks(mpiexec: str, tmp_path: Path) -> None:
    if not (MNIST / "train-images-idx3-ubyte.gz").exists():
        pytest.skip("no data: PYFRAME_DATA names a folder with the files of MNIST")
    one, two = accuracies(mpiexec, tmp_path, "--mnist", str(MNIST), "--epochs", "1")
    assert one > 0.94 and abs(one - two) < 0.004  # two standard errors of 10,000 digits


def test_digits_on_two_ranks(mpiexec: str, tmp_path: Path) -> None:
    one, two = accuracies(mpiexec, tmp_path)
    assert one > 0.85 and abs(one - two) <= 1 / 360  # of 360 digits one may fall on the other side
