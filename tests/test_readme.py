"""Runs the code in README.md and docs/."""

from __future__ import annotations

import doctest
import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.docs

ROOT = Path(__file__).resolve().parents[1]
# The pages of docs/plugins/ that have commands are followed word for word elsewhere.
ALL_PAGES = [
    *sorted(ROOT.glob("*.md")),
    *(
        p
        for folder in ("docs", "plugins", "benchmarks")
        for p in sorted((ROOT / folder).rglob("*.md"))
    ),
]
PAGES = [
    ROOT / "README.md",
    *(
        p
        for p in sorted((ROOT / "docs").rglob("*.md"))
        if p.parent.name != "plugins" or "```sh" not in p.read_text(encoding="utf-8")
    ),
]
# On these a block goes on where the one before it ended.
ONE_AFTER_ANOTHER = {
    ROOT / "docs" / "plots.md",
    ROOT / "docs" / "sequences.md",
    ROOT / "docs" / "guides" / "class-imbalance.md",
    ROOT / "docs" / "guides" / "transfer.md",
    *(ROOT / "docs" / "tutorial").glob("*.md"),
}
LEVELS = ROOT / "docs" / "levels.md"
COMING_FROM = sorted((ROOT / "docs" / "coming-from").glob("[!i]*.md"))


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Return the code blocks of a page with the lines where they begin."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, m.start(1)) + 1, m.group(1)) for m in found]


def programs(page: Path) -> list[tuple[int, str]]:
    """Return what of a page runs by itself, with the lines where it begins."""
    found = blocks(page, "python")
    if page not in ONE_AFTER_ANOTHER or not found:
        return found
    text = ""
    for line, code in found:
        text += "\n" * (line - 1 - text.count("\n")) + code
    return [(1, text)]


PYTHON = [
    pytest.param(page, line, code, id=f"{page.name}:{line}")
    for page in PAGES
    for line, code in programs(page)
]


def test_there_are_examples_to_run() -> None:
    assert len(blocks(ROOT / "README.md", "python")) == 1
    assert len(blocks(LEVELS, "python")) == 3
    assert len(PYTHON) >= 6


@pytest.mark.parametrize(("page", "line", "code"), PYTHON)
def test_python_runs(
    page: Path, line: int, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "load_digits" in code:
        pytest.importorskip("sklearn")
    if "plotting" in code:
        pytest.importorskip("matplotlib")
    if "pyframe_seq" in code:
        pytest.importorskip("pyframe_seq", reason="its plugin runs the pages on sequences")
    monkeypatch.chdir(tmp_path)
    padded = "\n" * (line - 1) + code  # so that a traceback names the line of the page
    exec(compile(padded, str(page), "exec"), {"__name__": "example"})


def rows_of(page: Path) -> list[tuple[str, str]]:
    """Return what is said there and here, of each row of the tables."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^\| (?:`(.*)`|\(.*\)) \| `(.*)` \|$", text, flags=re.MULTILINE)


@pytest.mark.parametrize("page", COMING_FROM, ids=lambda page: page.stem)
def test_forty_calls_have_a_counterpart_that_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    (_, setup), *_ = blocks(page, "python")
    found = rows_of(page)
    lines = re.findall(r"^\| [`(].* \|$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(found) == len(lines) and len({there for there, _ in found}) >= 40
    plugins = {"pyframe_cnn": "Conv2D|Pool2D", "pyframe_seq": "LSTM|GRU|MultiHead"}
    for _, here in found:
        needs = [p for p, words in plugins.items() if re.search(words, here)]
        if all(importlib.util.find_spec(plugin) for plugin in needs):
            names: dict[str, object] = {"__name__": "example"}
            exec(setup, names)
            try:
                exec(here, names)
            except Exception as error:
                raise AssertionError(f"{here}: {error!r}") from error


def test_the_page_shows_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    code = blocks(LEVELS, "python")[0][1]
    exec(code, {"__name__": "example"})
    first, last = re.match(r"(\d+) -> (\d+)", capsys.readouterr().out).groups()
    assert int(last) < 40 < 400 < int(first)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_sessions_show_what_they_show(page: Path) -> None:
    text = "\n".join(code for _, code in blocks(page, "pycon"))
    test = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    report: list[str] = []
    runner = doctest.DocTestRunner()
    runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)


def test_the_page_on_nodes_has_a_session() -> None:
    assert len(blocks(ROOT / "docs" / "writing-a-node.md", "pycon")) >= 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [t for t in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in t]
    drawn = re.findall(r"save(?:fig)?\(\"([^\"]+)\"\)", text)  # by a block of the page
    made = {*drawn, "gallery/index", "reference/index"}
    missing = [t for t in links if t not in made and not (page.parent / t).exists()]
    paths = re.findall(r"`((?:core_c|pyframe|examples|docs|tests|benchmarks)/[\w/.-]*)`", text)
    missing += [p for p in paths if not (ROOT / p).exists()]
    assert not missing


def anchors(page: Path) -> set[str]:
    """Return what the headings of a page are called in links."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.name)
def test_links_to_sections_lead_to_sections(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for path, anchor in links:
        if "://" not in path:
            target = page.parent / path if path else page
            assert anchor in anchors(target), f"{path}#{anchor}"


def broken_rows(text: str) -> list[str]:
    """Return the rows of tables that have another number of cells than the head."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    prose = re.sub(r"``.*?``|`[^`\n]*`", "code", prose)
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", prose, re.MULTILINE):
        head, *rows = (row.replace("\\|", "") for row in table.splitlines())
        found += [row for row in (head, *rows) if not row.endswith("|")]
        found += [row for row in rows if row.count("|") != head.count("|")]
    return found


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.name)
def test_tables_are_whole(page: Path) -> None:
    assert not broken_rows(page.read_text(encoding="utf-8"))


def test_a_broken_table_is_found() -> None:
    assert not broken_rows("| a | b |\n| --- | --- |\n| `x | y` | z |\n")
    assert broken_rows("| a | b |\n| --- | --- |\n| a cell that\ngoes on | z |\n")
    assert broken_rows("| a | b |\n| --- | --- |\n| a |\n")


def test_the_lines_install_extras_that_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    lines = [code.strip() for _, code in blocks(ROOT / "README.md", "sh")]
    assert lines == [
        'pip install ".[demo]" && pyframe demo',
        'pip install ".[test]" && pytest -n auto',
        "pip install --no-build-isolation ./plugins/pyframe-cnn && pyframe demo --images",
        'pip install "pyframe-nn[cnn,seq,plot,sklearn]"',
    ]
    assert {"cnn", "demo", "plot", "seq", "sklearn", "test"} <= set(extras)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_readme_leads_to_every_page() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    parts = {"tutorial", "guides", "plugins"}  # have an index
    pages = [p.relative_to(ROOT) for p in (ROOT / "docs").rglob("*.md")]
    wanted = [p for p in pages if p.parent.name not in parts or p.name == "index.md"]
    unlinked = [p for p in wanted if f"]({p.as_posix()})" not in text]
    assert [p.as_posix() for p in unlinked] == ["docs/index-page.md", "docs/coming-from/index.md"]


def test_each_platform_has_a_state() -> None:
    text = (ROOT / "docs" / "wheels.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| ([^|]+) \| [^|]+ \| ([^|]+) \|$", text.split("## On one")[0], re.MULTILINE
    )
    states = {"built and tested here", "built here, tested by emulation", "configured, not yet run"}
    assert {re.split(r"[;(]", state)[0].strip() for _, state in rows[2:]} <= states
    named = " ".join(platform for platform, _ in rows)
    for platform in ("x86-64", "aarch64", "musl", "macOS", "Windows", "free-threaded"):
        assert platform in named
