"""The examples on real data run as commands, print their tables and draw their pictures."""

from __future__ import annotations

import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest
from small_mnist import write_small_mnist

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytestmark = [pytest.mark.sklearn, pytest.mark.once]

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CALLS = {
    "autoencoder_digits.py": (["--epochs", "3"], 4, "principal components"),
    "class_imbalance.py": (["--repeats", "1"], 2, "threshold = share"),
    "multi_task.py": (["--repeats", "1"], 4, "both"),
    "optuna_pruning.py": (["--trials", "12", "--epochs", "6"], 1, "were given up"),
    "schedules.py": ([], 1, "schedules.svg"),
    "tabular_boston.py": (["--repeats", "1"], 3, "pyframe MLP"),
}
# The lesson has tests of its own, and the files of MNIST are not shipped.
ELSEWHERE = {"lesson_01.py", "lesson_01_script.py", "mnist_cnn.py"}
# Those need the package of sequences, which is tested with them.
OF_RANKS = {"digits_on_ranks.py"}  # and that with the package for MPI
OF_SEQUENCES = {"char_gpt.py", "lstm_forecast.py", "sine_rnn.py", "text_classifier.py"}
# Tutorials of others, written for pyframe: the lines of code there, whether it takes the files of
# MNIST, the least accuracy on small digits in their place, and the file that it leaves.
TUTORIALS = {
    "keras_beginner.py": (26, True, r"test: .*'accuracy': ([\d.]+)", 0.85, None),
    "pytorch_quickstart.py": (
        100, True, r"epoch 5, test: .*'accuracy': ([\d.]+)", 0.9, "model.pyframe",
    ),
    "sklearn_mlp_alpha.py": (58, False, r"alpha 0.10: score ([\d.]+)", 0.85, "alpha.png"),
    "sklearn_mlp_training_curves.py": (
        65, False, r"digits, adam: score ([\d.]+)", 0.97, "training_curves.png",
    ),
    "sklearn_mlp_weights.py": (22, True, r"test score: ([\d.]+)", 0.85, "weights.png"),
}  # fmt: skip


def test_none_is_left_out() -> None:
    known = {*CALLS, *ELSEWHERE, *OF_RANKS, *OF_SEQUENCES, *TUTORIALS}
    assert {path.name for path in EXAMPLES.glob("*.py")} == known


def lines_of_code(path: Path) -> int:
    """Return the number of lines without blank ones, comments and the docstring."""
    none = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENCODING, tokenize.ENDMARKER)
    with open(path, "rb") as file:
        tokens = [t for t in tokenize.tokenize(file.readline) if t.type not in none]
    return len({n for t in tokens[1:] for n in range(t.start[0], t.end[0] + 1)})


@pytest.fixture(scope="module")
def small_mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the four files of MNIST, that hold scikit-learn's digits made larger."""
    return write_small_mnist(tmp_path_factory.mktemp("mnist"))


@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial(name: str, tmp_path: Path, small_mnist: Path) -> None:
    lines, takes_files, result, least, left = TUTORIALS[name]
    assert lines_of_code(EXAMPLES / name) <= lines
    command = [sys.executable, "-W", "error", "-W", "ignore:Stochastic", str(EXAMPLES / name)]
    command += [str(small_mnist)] * takes_files
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    found = re.search(result, done.stdout)
    assert found is not None and float(found[1]) >= least, done.stdout
    assert left is None or (tmp_path / left).stat().st_size > 5000


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n == "tabular_boston.py" else ()) for n in CALLS],
)
def test_an_example(name: str, tmp_path: Path) -> None:
    if name == "optuna_pruning.py":
        pytest.importorskip("optuna", reason="optuna is in the extra search")
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
