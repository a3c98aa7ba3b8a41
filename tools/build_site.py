"""Build the documentation site: pages, pictures, gallery and reference, without a warning.

    python tools/build_site.py            # into build/site/html; open index.html there
    python tools/build_site.py --serve    # and show it at http://localhost:8000

The pages are those of docs/. This adds, in build/site/source, what is made and kept nowhere: the
reference, a page for each public module, from docstrings; the gallery, from the examples and what
they print and draw; the pictures that blocks on pages save; and pages from elsewhere in the
repository. Needs the extra ``docs``.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools")]

from site_gallery import gallery  # noqa: E402
from site_reference import reference  # noqa: E402

# Pages that lie elsewhere in the repository: where they are, and where the site has them.
BROUGHT = {
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "benchmarks/README.md": "project/benchmarks.md",
    "plugins/pyframe-cnn/README.md": "packages/cnn.md",
    "plugins/pyframe-seq/README.md": "packages/seq.md",
    "plugins/pyframe-lion/README.md": "packages/lion.md",
    "plugins/pyframe-mpi/README.md": "packages/mpi.md",
    "plugins/pyframe-testing/README.md": "packages/testing.md",
}


def page_of(path: str) -> str | None:
    """Return the page of the site that shows a file of the repository, None if none does."""
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/") and (ROOT / path).is_file():
        return "index.md" if path == "docs/index-page.md" else path.removeprefix("docs/")
    return BROUGHT.get(path)


def relinked(text: str, source: str, page: str) -> str:
    """Return the text of a file with its links as they are on the page that shows it.

    A link to a file that is no page becomes its text, which names the file.
    """

    def link(found: re.Match[str]) -> str:
        mark, words, path, anchor = found.groups(default="")
        if "://" in path or path.startswith("mailto:") or not path:
            return found[0]
        where = os.path.normpath(PurePosixPath(source).parent / path)
        shown = page_of(PurePosixPath(where).as_posix())
        if shown is None:
            if mark or not (ROOT / where).exists():
                return found[0]  # what a block draws, or a page that is made
            return words
        there = os.path.relpath(shown, PurePosixPath(page).parent)
        return f"{mark}[{words}]({PurePosixPath(there).as_posix()}{anchor})"

    pattern = r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)#\s]*)(#[^)\s]*)?\)"
    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    parts[::2] = [re.sub(pattern, lambda m: link(m), part) for part in parts[::2]]
    return "".join(parts)


def bring(source: Path) -> None:
    """Write the pages of docs/, and those from elsewhere, into the folder of sources."""
    for path in sorted(DOCS.rglob("*")):
        name = path.relative_to(DOCS).as_posix()
        if path.is_dir() or name.startswith(("static/", "conf.py", "__pycache__")):
            continue
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".md":
            text = relinked(path.read_text(encoding="utf-8"), f"docs/{name}", name)
            target.write_text(text, encoding="utf-8")
        else:
            shutil.copyfile(path, target)
    pages = {(ROOT / of).read_text(encoding="utf-8"): (of, page) for of, page in BROUGHT.items()}
    for text, (of, page) in pages.items():
        target = source / page
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(relinked(text, of, page), encoding="utf-8")


def blocks(text: str) -> str:
    """Return the Python of a page, its blocks one after the other."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL))


def draw(page: Path) -> None:
    """Run the blocks of a page where it lies, so that what they save lies there too."""
    code = blocks(page.read_text(encoding="utf-8"))
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd=page.parent, capture_output=True, text=True, check=False)
    if done.returncode:
        raise subprocess.CalledProcessError(1, f"the blocks of {page}:\n{done.stderr}")


def build(out: Path, *, jobs: int = 2) -> Path:
    """Build the site and return the folder of its pages.

    Raises
    ------
    subprocess.CalledProcessError
        If a block or an example fails, or Sphinx has an error or a warning.
    """
    source, html = out / "source", out / "html"
    for folder in (source, html):
        shutil.rmtree(folder, ignore_errors=True)
    source.mkdir(parents=True)
    bring(source)
    reference(source / "reference")
    drawn = [p for p in source.rglob("*.md") if "savefig(" in blocks(p.read_text("utf-8"))]
    with ThreadPoolExecutor(jobs) as pool:
        made = pool.submit(gallery, source / "gallery", out / "examples", jobs)
        list(pool.map(draw, drawn))
        made.result()
    options = ["-W", "--keep-going", "-q", "-E", "-j", str(jobs), "-c", str(DOCS)]
    command = [sys.executable, "-P", "-m", "sphinx.cmd.build", *options, str(source), str(html)]
    subprocess.run(command, check=True)
    return html


def main() -> int:
    """Build it, and serve it if asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "site", metavar="DIR")
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 4))
    parser.add_argument("--serve", action="store_true")
    given = parser.parse_args()
    began = time.perf_counter()
    try:
        html = build(given.out, jobs=given.jobs)
    except subprocess.CalledProcessError as error:
        print(f"the site was not built: {error}", file=sys.stderr)
        return 1
    print(f"built {html} in {time.perf_counter() - began:.0f} s")
    if given.serve:
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=html)
        http.server.ThreadingHTTPServer(("127.0.0.1", 8000), handler).serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
