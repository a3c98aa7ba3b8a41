"""The examples on real data run as commands, print their tables and draw their pictures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytestmark = [pytest.mark.sklearn, pytest.mark.once]

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CALLS = {
    "autoencoder_digits.py": (["--epochs", "3"], 4, "principal components"),
    "class_imbalance.py": (["--repeats", "1"], 2, "threshold = share"),
    "multi_task.py": (["--repeats", "1"], 4, "both"),
    "schedules.py": ([], 1, "schedules.svg"),
    "tabular_boston.py": (["--repeats", "1"], 3, "pyframe MLP"),
}
# The lesson has tests of its own, and the files of MNIST are not shipped.
ELSEWHERE = {"lesson_01.py", "lesson_01_script.py", "mnist_cnn.py"}
# Those need the package of sequences, which is tested with them.
OF_SEQUENCES = {"char_gpt.py", "lstm_forecast.py", "sine_rnn.py", "text_classifier.py"}


def test_none_is_left_out() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*CALLS, *ELSEWHERE, *OF_SEQUENCES}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n == "tabular_boston.py" else ()) for n in CALLS],
)
def test_an_example(name: str, tmp_path: Path) -> None:
    arguments, pictures, words = CALLS[name]
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert words in done.stdout
    made = sorted((tmp_path / "out").glob("*.png"))
    assert len(made) == pictures and all(path.stat().st_size > 5000 for path in made)
    assert all(str(path) in done.stdout for path in made)
