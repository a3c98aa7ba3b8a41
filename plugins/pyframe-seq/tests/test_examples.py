"""The examples of sequences, in short: they run, learn and draw."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
SHORT = {
    "char_gpt.py": (["--steps", "4"], "characters"),
    "lstm_forecast.py": (["--epochs", "3"], "seasonal naive"),
    "sine_rnn.py": (["--steps", "3"], "LSTM"),
    "text_classifier.py": ([], "%"),
}


@pytest.mark.parametrize("name", SHORT)
def test_an_example(name: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the examples draw")
    if not EXAMPLES.is_dir():
        pytest.skip("the examples are in the repository")
    arguments, words = SHORT[name]
    picture = tmp_path / "picture.png"
    command = [sys.executable, str(EXAMPLES / name), *arguments, "--save", str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
    assert picture.stat().st_size > 1000
