"""Rehearse a release, from the sources to a stranger's first training step.

    python tools/rehearse.py                   build plain wheels for this machine
    python tools/rehearse.py --wheels dist     take those that tools/wheels.py has built

It builds and checks the source distributions and wheels of the core and of every plugin, serves
them from an index on loopback, and does in fresh environments what people do with a release:
install it with extras, run the demo and all that the README shows, upgrade with a saved model. It
stops at the first thing that goes wrong. docs/releasing.md tells the rest.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent))  # also under PYTHONSAFEPATH

from rehearsal import checks, upgrade
from rehearsal.index import serve
from rehearsal.shell import (
    USUAL_INDEX,
    Failure,
    Venv,
    environment,
    say,
    settings,
    step,
)
from wheelhouse.building import read
from workshop import blocks

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("build", "twine", "check-wheel-contents", "abi3audit", "wheel")
EXTRAS = "cnn,plot,seq,sklearn"
FIRST_STEP_SECONDS = 15  # what is aimed at; told, and no reason to fail: machines differ

FIRST_STEP = """
import numpy as np, pyframe as pf
x, y = pf.Placeholder("x", shape=(None, 13)), pf.Placeholder("y", shape=(None, 1))
w = pf.Parameter(pf.initializers.he_normal((13, 1)), name="w")
plan = pf.compile(pf.L2Loss(y, x @ w), optimizer=pf.optimizers.Adam(1e-3))
assert plan.step({x: np.ones((32, 13)), y: np.zeros((32, 1))}) > 0
"""


def projects() -> list[Path]:
    """Return the folders of the core and of every plugin."""
    return [ROOT, *sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))]


class Rehearsal:
    """A rehearsal in a folder: its archives, its index, its environments."""

    def __init__(self, work: Path, dist: Path, index: str, found: dict[str, str]) -> None:
        self.work, self.dist = work, dist
        self.env = environment(index, found)
        self.clone = work / "clone"  # what the core's source distribution holds

    def venv(self, name: str) -> Venv:
        """Make a fresh environment."""
        return Venv(self.work / name, self.env)

    def build(self, tools: Venv, ready: Path | None) -> None:
        """Make the source distributions, and the wheels from them unless they are there already."""
        if ready is not None:
            for path in sorted(ready.glob("*.whl")):
                shutil.copy(path, self.dist)
        for project in projects():
            tools.run("python", "-m", "build", "--sdist", "-o", self.dist, project, cwd=self.work)
        unpacked = self.work / "unpacked"
        for archive in sorted(self.dist.glob("*.tar.gz"), key=lambda p: "pyframe_nn" not in p.name):
            with tarfile.open(archive) as content:
                content.extractall(unpacked, filter="data")
            sources = unpacked / archive.name.removesuffix(".tar.gz")
            if "pyframe_nn" in archive.name:
                self.clone = sources
            if ready is None:
                # In isolation: with what the package declares that it is built with, and no more.
                published = [f"-C{setting}" for setting in read(sources).settings]
                command = ("python", "-m", "build", "--wheel", *published, "-o", self.dist, sources)
                tools.run(*command, cwd=self.work)

    def install(self) -> Venv:
        """Do what a stranger does first: install with extras, look around, run the demo."""
        fresh = self.venv("fresh")
        fresh.run("pip", "install", f"pyframe-nn[{EXTRAS}]", cwd=self.work)
        version = checks.version_of(self.dist)
        said = fresh.run("pyframe", "info", cwd=self.work)
        if f"pyframe {version}\n" not in said or "warning" in said:
            raise Failure(f"'pyframe info' says, of version {version}:\n{said}")
        say("   " + said.splitlines()[1].strip())
        fresh.run("pyframe", "plugins", "doctor", cwd=self.work)
        return fresh

    def demo(self, fresh: Venv) -> None:
        """Run the demo."""
        fresh.run("pyframe", "demo", "--out", self.work / "pictures", cwd=self.work)
        found = len(list((self.work / "pictures").glob("*.png")))
        if found < 6:
            raise Failure(f"'pyframe demo' has drawn {found} pictures instead of 6")

    def first_step(self) -> float:
        """Return the seconds from nothing installed to a training step that is done."""
        script = self.work / "first_step.py"
        script.write_text(FIRST_STEP, encoding="utf-8")
        quick = self.venv("quick")
        start = time.monotonic()
        quick.run("pip", "install", "pyframe-nn", cwd=self.work)
        quick.run("python", script, cwd=self.work)
        return time.monotonic() - start

    def python_snippets(self, fresh: Venv) -> None:
        """Run what the README and those of the plugins show, each block by itself."""
        fresh.run("pip", "install", *(path.name for path in projects()[1:]), cwd=self.work)
        count = 0
        for page in [project / "README.md" for project in projects()]:
            for block in blocks(page.read_text(encoding="utf-8")):
                if block.language == "python":
                    count += 1
                    folder = self.work / "snippets" / f"{page.parent.name}-{count}"
                    folder.mkdir(parents=True)
                    (folder / "snippet.py").write_text(block.text, encoding="utf-8")
                    fresh.run("python", "snippet.py", cwd=folder)
        say(f"   {count} blocks of Python")

    def shell_snippets(self, fresh: Venv, as_they_stand: bool) -> None:
        """Run the README's command lines in a copy of the sources, in their order.

        Of the line that runs the suite only the installing is done: the suite is CI's. Nor is
        everything compiled and installed again, unless the lines are to be run as they stand: what
        they install from the sources comes from the index, into the environment that is there.
        """
        stranger = self.venv("stranger") if as_they_stand else fresh
        for block in blocks((self.clone / "README.md").read_text(encoding="utf-8")):
            if block.language == "sh":
                for line in block.text.strip().splitlines():
                    line = line.partition(" && pytest")[0]
                    if not as_they_stand:
                        line = line.replace('".[', '"pyframe-nn[').replace(" ./plugins/", " ")
                    start = time.monotonic()
                    stranger.shell(line, cwd=self.clone)
                    say(f"   {time.monotonic() - start:5.1f} s  {line}")

    def upgrade(self, tools: Venv) -> None:
        """Install the version before, save a model, upgrade, and see that it does the same."""
        before = upgrade.previous(tools, self.work / "before", self.dist)
        old = self.venv("upgraded")
        folder = self.work / "model"
        folder.mkdir()
        for name, text in (("save.py", upgrade.SAVE), ("load.py", upgrade.LOAD)):
            (folder / name).write_text(text, encoding="utf-8")
        old.run("pip", "install", f"pyframe-nn=={before}", cwd=folder)
        said = [old.run("python", "save.py", cwd=folder)]
        old.run("pip", "install", "--upgrade", "pyframe-nn", cwd=folder)
        said.append(old.run("python", "load.py", cwd=folder))
        if [line.split()[0] for line in said] != [before, checks.version_of(self.dist)]:
            raise Failure(f"it was to go from {before} to the new version, and it said {said}")
        say("   " + "".join(said).strip().replace("\n", "\n   "))


def rehearse(work: Path, dist: Path, ready: Path | None, clone: bool) -> None:
    """Do all of it."""
    found = settings()
    usual = found.get("index-url", USUAL_INDEX)
    with serve(dist, usual) as index:
        rehearsal = Rehearsal(work, dist, index, found)
        with step("tools"):
            tools = rehearsal.venv("tools")
            tools.run("pip", "install", *TOOLS, cwd=work)
        with step("source distributions and wheels"):
            rehearsal.build(tools, ready)
        with step("checks"):
            for line in checks.check(tools, dist, work, [path.name for path in projects()[1:]]):
                say(f"   {line}")
        with step(f'pip install "pyframe-nn[{EXTRAS}]"'):
            fresh = rehearsal.install()
        with step("pyframe demo"):
            rehearsal.demo(fresh)
        with step("what the READMEs show"):
            rehearsal.python_snippets(fresh)
            rehearsal.shell_snippets(fresh, clone)
        with step("an upgrade with a saved model"):
            rehearsal.upgrade(tools)
        with step("from the index to the first training step"):
            seconds = rehearsal.first_step()
            met = "" if seconds < FIRST_STEP_SECONDS else ": MISSED"
            say(f"   {seconds:.1f} s with pip's cache warm; the aim is {FIRST_STEP_SECONDS} s{met}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Rehearse; 0 if all went well."""
    parser = argparse.ArgumentParser(prog="rehearse.py", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--wheels", type=Path, metavar="DIR", help="a folder with wheels that are built already"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where the archives go: nowhere, they are deleted"
    )
    parser.add_argument(
        "--clone",
        action="store_true",
        help="run the README's lines as they stand, which compiles everything again",
    )
    options = parser.parse_args(arguments)
    start = time.monotonic()
    try:
        if options.wheels is not None and not list(options.wheels.glob("*.whl")):
            raise Failure(f"there is no wheel in {options.wheels}")
        with tempfile.TemporaryDirectory(prefix="rehearsal-") as name:
            work = Path(name).resolve()
            dist = work / "dist"
            dist.mkdir()
            rehearse(work, dist, options.wheels, options.clone)
            if options.out is not None:
                options.out.mkdir(parents=True, exist_ok=True)
                for path in dist.iterdir():
                    if not upgrade.is_earlier(path):
                        shutil.copy(path, options.out)
    except Failure as failed:
        print(f"\nrehearse.py: this would have gone wrong:\n   {failed}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("rehearse.py: stopped", file=sys.stderr)
        return 130
    say(f"== all is well, after {time.monotonic() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
