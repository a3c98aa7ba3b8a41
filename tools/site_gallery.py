"""The gallery: each example with its source, what it prints, and the pictures that it draws."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from small_mnist import write_small_mnist

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
LIST = EXAMPLES / "gallery.toml"
SECONDS = 120  # an example that takes longer is no example


def listed() -> dict[str, dict[str, Any]]:
    """Return what examples/gallery.toml says of each example, by the name of its file."""
    return tomllib.loads(LIST.read_text(encoding="utf-8"))


def run(name: str, about: dict[str, Any], folder: Path) -> str:
    """Run an example, if it has not run as it is now, and return what it printed."""
    script = EXAMPLES / f"{name}.py"
    arguments = about.get("arguments", [])
    if about.get("mnist"):
        arguments = [str(write_small_mnist(folder / "FOLDER"))]
    key = hashlib.sha256(script.read_bytes() + repr(arguments).encode()).hexdigest()
    stamp, printed = folder / "key.txt", folder / "printed.txt"
    if stamp.exists() and stamp.read_text() == key:
        return printed.read_text(encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    command = [sys.executable, str(script), *arguments]
    # Threads that wait for one another, of libraries beside each other, may take minutes.
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    result = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    if result.returncode:
        print(result.stderr, file=sys.stderr)
        result.check_returncode()
    print(f"examples/{name}.py ran in {time.perf_counter() - began:.0f} s", flush=True)
    # Its folder is nobody else's, and a bar of progress is no text.
    text = re.sub(r"^.*\r", "", result.stdout.replace(str(folder), "."), flags=re.MULTILINE)
    printed.write_text(text, encoding="utf-8")
    stamp.write_text(key)
    return printed.read_text(encoding="utf-8")


def docstring(name: str) -> tuple[str, str]:
    """Return the first line of an example's docstring, and the rest."""
    code = compile((EXAMPLES / f"{name}.py").read_text("utf-8"), name, "exec")
    first, _, rest = (code.co_consts[0] or "").strip().partition("\n\n")
    return " ".join(first.split()), rest


def page(name: str, about: dict[str, Any], printed: str | None, drawn: dict[str, str]) -> str:
    """Return the text of the page of one example."""
    first, rest = docstring(name)
    parts = [f"# {about['title']}", first, "```text\n" + rest.rstrip() + "\n```" if rest else ""]
    parts += [f"![{alt}]({file})" for file, alt in drawn.items()]
    given = ["FOLDER"] if about.get("mnist") else about.get("arguments", [])
    line = " ".join(["python", f"examples/{name}.py", *given])
    if printed is None:
        parts.append(f"It is not run here: {about['not_run']}.")
    else:
        shown = f"```text\n{printed.rstrip()}\n```"
        parts.append(f"What `{line}` prints:\n\n:::{{div}} gallery-output\n{shown}\n:::")
    if about.get("mnist"):
        parts.append("The files here hold scikit-learn's digits, made larger, instead of MNIST's.")
    source = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    parts.append(f"## `examples/{name}.py`\n\n````python\n{source}````")
    return "\n\n".join(part for part in parts if part) + "\n"


def gallery(folder: Path, results: Path, jobs: int = 1) -> None:
    """Run the examples, write their pages, and one that leads to them."""
    folder.mkdir(parents=True, exist_ok=True)
    table = listed()
    with ThreadPoolExecutor(jobs) as pool:
        ran = [name for name, about in table.items() if "not_run" not in about]
        texts = pool.map(lambda name: run(name, table[name], results / name), ran)
        printed = dict(zip(ran, texts, strict=True))
    cards = []
    for name, about in table.items():
        drawn = {}
        for file, alt in about.get("pictures", {}).items():
            (found,) = (results / name).glob(file)
            flat = f"{name}-{found.name}"
            (folder / flat).write_bytes(found.read_bytes())
            drawn[flat] = alt
        (folder / f"{name}.md").write_text(
            page(name, about, printed.get(name), drawn), encoding="utf-8"
        )
        first = docstring(name)[0]
        shown = next(iter(drawn.items()), None)
        image = f"![{shown[1]}]({shown[0]})\n\n" if shown else ""
        title = about["title"]
        cards.append(
            f":::{{grid-item-card}} {title}\n:link: {name}\n:link-type: doc\n\n{image}{first}\n:::"
        )
    names = "\n".join(table)
    text = (
        "# Gallery\n\nExamples with what they draw and print. All of them are files in "
        "`examples/`, which you can run.\n\n"
        "::::{grid} 1 2 2 3\n:gutter: 3\n\n" + "\n\n".join(cards) + "\n\n::::\n\n"
        f"```{{toctree}}\n:hidden:\n\n{names}\n```\n"
    )
    (folder / "index.md").write_text(text, encoding="utf-8")
