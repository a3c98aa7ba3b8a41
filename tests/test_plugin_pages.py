"""Follows the pages on writing plugins word for word, from an empty folder to passing tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from toolchain import C
from workshop import Workshop, blocks, follow

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "plugins"
PAGES = [
    page
    for page in sorted(FOLDER.glob("*.md"))
    if any(block.language == "sh" for block in blocks(page.read_text(encoding="utf-8")))
]
COMPLETE = {"index.md", "composed.md", "numpy.md", "optimizer.md", "kernels.md"}  # end with tests

pytestmark = [
    pytest.mark.package,
    pytest.mark.compiler,
    pytest.mark.docs,
    pytest.mark.skipif(shutil.which("sh") is None, reason="the pages need a POSIX shell"),
]


def test_the_pages_are_there() -> None:
    assert {page.name for page in PAGES} >= COMPLETE


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_page_works_word_for_word(page: Path, tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    is_compiled = page.name == "kernels.md"
    if is_compiled:
        if not C:
            pytest.skip("needs a C compiler")
        for tool in ("scikit_build_core", "build", "auditwheel", "twine"):
            pytest.importorskip(tool, reason="the extra 'test' brings it")
    # What says how to do without an index is held to it.
    workshop = Workshop(tmp_path, isolated=is_compiled)
    files, passed = follow(page.read_text(encoding="utf-8"), workshop)
    if page.name in COMPLETE:
        assert files >= 2
        assert passed >= 2


def test_a_page_that_does_not_work_is_found(tmp_path: Path) -> None:
    page = "Write `test_sum.py`:\n\n```python\ndef test_sum():\n    assert 1 + 1 == 3\n```\n"
    with pytest.raises(AssertionError, match="1 failed"):
        follow(page + "\n```sh\npytest test_sum.py\n```\n", Workshop(tmp_path))
