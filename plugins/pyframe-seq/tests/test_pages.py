"""The pages on sequences: each of their blocks runs by itself; those of the tutorial in order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGES = [ROOT / "docs" / name for name in ("attention.md", "recurrent.md")]
BLOCKS = [
    pytest.param(block, id=f"{page.name}:{number}")
    for page in PAGES
    if page.is_file()
    for number, block in enumerate(
        re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    )
]


PICTURES = {
    "recurrent": ["LSTM: a step", "sigmoid", "lengths=[8, 3, 5]", "the same, reverse=True"],
    "attention": ["causal=True, window=3", "a mask with holes", "alibi, slope 1/2", "query i"],
    "sequences": ["transformer", "SimpleRNN", "where one query looks, trained"],
}


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "page", "exec"), {"__name__": "example"})


def test_the_tutorial_runs_from_its_begin_to_its_end() -> None:
    page = ROOT / "docs" / "sequences.md"
    if not page.is_file():
        pytest.skip("the pages are in the repository")
    names: dict[str, object] = {"__name__": "example"}
    blocks = re.findall(
        r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    for block in blocks:
        exec(compile(block, page.name, "exec"), names)
    losses = names["losses"]
    assert isinstance(losses, dict) and len(losses) == 5
    assert min(losses["transformer"]) < min(losses["Linear"]) / 8


@pytest.mark.parametrize("name", PICTURES)
def test_a_page_has_its_picture(name: str) -> None:
    """They are made by tools/pictures.py."""
    page = ROOT / "docs" / f"{name}.md"
    if not page.is_file():
        pytest.skip("the pages are in the repository")
    assert f"]({name}.svg)" in page.read_text("utf-8")
    picture = (ROOT / "docs" / f"{name}.svg").read_text("utf-8")
    for words in PICTURES[name]:
        assert f">{words}</text>" in picture
