"""Follows the pages on writing plugins word for word, from an empty folder to passing tests."""

from __future__ import annotations

import re
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


@pytest.mark.parametrize(
    "page",
    [
        # compiles and checks wheels for a minute and a half, as the tests of the scaffold do, too
        pytest.param(page, marks=[pytest.mark.slow] if page.name == "kernels.md" else [])
        for page in PAGES
    ],
    ids=lambda page: page.name,
)
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


def lines_of(name: str) -> list[str]:
    return (FOLDER / name).read_text(encoding="utf-8").splitlines()


@pytest.mark.slow
def test_the_first_example_of_the_page_on_tests_passes_as_it_stands(tmp_path: Path) -> None:
    example = next(b for b in blocks("\n".join(lines_of("testing.md"))) if b.language == "python")
    workshop = Workshop(tmp_path)
    workshop.write("test_conformance.py", example.text)
    said = workshop.run("pytest -q -p no:cacheprovider", timeout=1200)
    assert int(re.search(r"(\d+) passed", said)[1]) > 1000
    assert "failed" not in said and "error" not in said


def test_the_command_of_the_page_on_tests_works(tmp_path: Path) -> None:
    pytest.importorskip("pyframe_lion")
    (command,) = (line for line in lines_of("testing.md") if line.startswith("pytest -p "))
    assert command.endswith(" --pyframe-plugin my-package")
    workshop = Workshop(tmp_path)
    workshop.write("test_planted.py", "raise SystemExit('collected')\n")
    said = workshop.run(command.replace("my-package", "pyframe-lion"))
    assert re.search(r"\d\d passed", said) and "failed" not in said


def test_the_page_on_kernels_tries_all_ways_to_install() -> None:
    page = lines_of("kernels.md")
    for line in (
        'pip install --no-build-isolation -e ".[test]"',
        "python -m build --no-isolation",
        "pip install --force-reinstall --no-deps dist/*.whl",
    ):
        assert line in page


def test_a_page_that_does_not_work_is_found(tmp_path: Path) -> None:
    page = "Write `test_sum.py`:\n\n```python\ndef test_sum():\n    assert 1 + 1 == 3\n```\n"
    with pytest.raises(AssertionError, match="1 failed"):
        follow(page + "\n```sh\npytest test_sum.py\n```\n", Workshop(tmp_path))
