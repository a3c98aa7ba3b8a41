"""The tasks, workflows and pages for those who work on pyframe name what exists."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import conftest
import pytest

pytestmark = pytest.mark.docs

ROOT = Path(__file__).resolve().parents[1]
JUSTFILE = (ROOT / "justfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
MARKERS = {line.split(":")[0] for line in PROJECT["tool"]["pytest"]["ini_options"]["markers"]}
TASKS = {"setup", "quick", "test", "c", "lint", "docs", "fuzz"}
COMMANDS = [ROOT / name for name in ("justfile", ".ci/run", "README.md", "CONTRIBUTING.md")]
COMMANDS += [*sorted((ROOT / ".github").rglob("*.yml")), *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = [path for path in COMMANDS if path.exists()]  # .ci is not in a source distribution


def recipes(text: str) -> dict[str, str]:
    """Return the commands of each task of a justfile."""
    found = re.finditer(r"^(\w+)[^\n:]*(?:`[^`]*`)?:\n((?:[ ]{4}.*\n)+)", text, re.MULTILINE)
    return {m[1]: m[2] for m in found}


def absent(text: str) -> list[str]:
    """Return the files, extras and markers that commands name and that are not there."""
    words = re.findall(r"(?:\.|[\w-]+)/[\w./*\[\]-]+|\b\w+\.(?:py|toml|yml|md)\b", text)
    missing = [word for word in words if not list(ROOT.glob(word.removeprefix("./")))]
    for extras in re.findall(r'"\.\[([\w,]+)\]"', text):
        missing += [extra for extra in extras.split(",") if extra not in EXTRAS]
    return missing + unknown_markers(text)


def unknown_markers(text: str) -> list[str]:
    """Return the words of marker expressions that are no markers: pytest does not check them."""
    expressions = re.findall(
        r"""(?:pytest .*-m |varies=)(?:"([^"$]+)"|'([^'$]+)'|([a-z]\w*))""", text
    )
    words = {word for groups in expressions for word in re.findall(r"\w+", " ".join(groups))}
    return sorted(words - MARKERS - {"and", "or", "not"})


def test_there_are_the_tasks() -> None:
    assert set(recipes(JUSTFILE)) == TASKS | {"default"}


@pytest.mark.parametrize("task", sorted(TASKS))
def test_a_task_names_what_exists(task: str) -> None:
    assert absent(recipes(JUSTFILE)[task]) == []


@pytest.mark.parametrize(
    "command",
    [
        "python tests/fuss.py",
        "cd plugins/pyframe-rnn && pytest",
        "clang-format kernels/*.[ch]",
        'pip install -e ".[test,tools]"',
        'pytest -n auto -m "not (slow or packages)"',
        "pytest -m slower tests/test_sdist.py",
    ],
)
def test_a_task_that_names_something_else_is_found(command: str) -> None:
    assert len(absent(command)) == 1


@pytest.mark.parametrize("file", COMMANDS, ids=lambda file: file.name)
def test_expressions_are_of_markers_that_exist(file: Path) -> None:
    assert unknown_markers(file.read_text(encoding="utf-8")) == []


@pytest.mark.skipif(shutil.which("just") is None, reason="the extra 'dev' brings just")
def test_just_reads_its_file() -> None:
    command = ["just", "--justfile", str(ROOT / "justfile"), "--summary"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert set(said.split()) == TASKS | {"default"}


def test_the_test_line_runs_in_parallel() -> None:
    assert any(line.startswith("pytest-xdist") for line in EXTRAS["test"])
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    line = page.split("<!-- test line -->\n```sh\n")[1].splitlines()[0]
    assert line == 'pip install ".[test]" && pytest -n auto'


# ---- CONTRIBUTING.md ----

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_page_names_files_that_exist() -> None:
    links = [t for t in re.findall(r"\]\(([^)#]+)\)", PAGE) if "://" not in t]
    quoted = re.findall(
        r"`([\w./-]+\.(?:py|c|h|md|toml|json|yaml|yml|txt)|[\w-]+(?:/[\w.-]*)+)`", PAGE
    )
    assert len(quoted) > 20
    assert [path for path in (*links, *quoted) if not (ROOT / path).exists()] == []


def test_the_page_names_things_that_the_files_beside_them_have() -> None:
    """A name in backticks that is followed by "in `file`" stands in that file."""
    pairs = re.findall(r"`([\w.]+)(?:\(\))?` in\s+`([\w./-]+)`", PAGE)
    assert len(pairs) > 8
    for name, file in pairs:
        assert re.search(rf"\b{name}\b", (ROOT / file).read_text(encoding="utf-8")), (name, file)


def test_the_page_names_tasks_that_exist() -> None:
    assert set(re.findall(r"\bjust (\w+)`", PAGE)) | set(
        re.findall(r"^just (\w+)", PAGE, re.M)
    ) >= {"setup", "quick", "test", "c", "lint", "docs"}
    named = re.findall(r"(?:`|^)just (\w+)", PAGE, re.MULTILINE)
    assert set(named) <= TASKS


@pytest.mark.parametrize(("dist", "ours"), [("load", True), ("loadfile", False), ("no", False)])
def test_workers_take_tests_from_one_another_unless_told_otherwise(dist: str, ours: bool) -> None:
    pytest.importorskip("xdist")
    given: dict[str, Any] = {"dist": dist, "tx": ["popen", "popen"]}
    config: Any = SimpleNamespace(getoption=given.get, getvalue=given.get)
    made = conftest.pytest_xdist_make_scheduler(config, None)
    assert (made is not None) == ours
    assert not ours or made.numnodes == 2


@pytest.mark.skipif(not (ROOT / ".github").is_dir(), reason="not in a source distribution")
def test_every_workflow_has_jobs_that_run_something() -> None:
    files = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    texts = {path.name: path.read_text(encoding="utf-8") for path in files}
    words = ("\non:\n", "\njobs:\n", " steps:\n", "run: ")
    assert texts
    assert not [name for name, text in texts.items() if not all(word in text for word in words)]
