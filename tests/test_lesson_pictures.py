"""The whole lesson runs, draws its pictures, and finds what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    pytest.importorskip("matplotlib")
    pytest.importorskip("networkx")
    folder = tmp_path_factory.mktemp("lesson")
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / "lesson_01.py")]
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout, folder / "lesson-pictures"


def test_every_piece_has_its_picture(lesson):
    text, folder = lesson
    names = sorted(p.name[3:-4] for p in folder.iterdir())
    for part in (
        "rooms-and-prices",
        "sigmoid",
        "relu",
        "graph",
        "feed-forward",
        "back-propagation",
        "vanishing-gradients",
        "stacked-linear-sigmoid",
        "stacked-six-linear-layers",
    ):
        assert part in names
    for method in (
        "random-search-far-off",
        "random-search-sane-range",
        "direction-search",
        "gradient-descent",
        "two-layer-network",
    ):
        assert {f"{method}-line", f"{method}-loss"} <= set(names)
    assert f"{len(names)} pictures are in" in text


def losses(text):
    return {
        name: float(loss)
        for name, loss in re.findall(
            r"^    ([a-z ,]+): k \S+, b \S+, L2 (\S+)$", text, re.MULTILINE
        )
    }


def test_the_three_methods_find_what_they_can(lesson):
    found = losses(lesson[0])
    assert found["random search, far off"] > 569_900  # the best corner of that range
    assert 43.6 < found["random search, sane range"] < 60
    assert found["direction search"] < 1000
    assert 43.7 < found["gradient descent, slow"] < 60
    assert abs(found["gradient descent"] / 43.60055 - 1) < 1e-4


def test_the_line_is_that_of_least_squares(lesson):
    (line,) = re.findall(r"    gradient descent: k (\S+), b (\S+), L2 (\S+)", lesson[0])
    assert [float(v) for v in line] == pytest.approx([9.10211, -34.67062, 43.60055], abs=2e-5)


def test_the_network_goes_below_the_line(lesson):
    (loss,) = re.findall(r"Its L2 is ([\d.]+);", lesson[0])
    assert float(loss) < 40


def test_the_losses_of_the_small_examples(lesson):
    text, _ = lesson
    assert "L1 8.75, L2 284.00" in text
    sums = re.findall(r"L1 as a sum (\d), L2 ([\d.]+)", text)
    assert sums == [("5", "4.33"), ("4", "2.67"), ("4", "5.33")]


def test_stacked_lines_stay_a_line(lesson):
    bent = [float(v) for v in re.findall(r"most bent one is ([\d.]+)%", lesson[0])]
    assert bent[-1] == 0.0
    assert min(bent[:3]) > 10


def test_gradients_vanish_through_sigmoids_only(lesson):
    ratios = dict(
        re.findall(r"(sigmoid|relu): the first layer's gradient is (\S+) times", lesson[0])
    )
    assert float(ratios["sigmoid"]) > 1e9
    assert float(ratios["relu"]) < 100
