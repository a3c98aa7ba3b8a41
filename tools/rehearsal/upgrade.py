"""A version before the present one, and a model that was saved with it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from .checks import CORE, ROOT, version_of
from .index import files
from .shell import Failure, Venv, run, say

BEFORE = ".dev0"  # sorts before the version that it is appended to

# A model with state of its own, trained for a moment; its predictions go beside it.
SAVE = """
import numpy as np, pyframe as pf
x = np.random.default_rng(0).normal(size=(64, 8))
model = pf.Sequential([pf.layers.Dense(16, activation="relu"), pf.layers.BatchNorm(),
                       pf.layers.Dropout(0.2), pf.layers.Dense(3)])
trainer = pf.Trainer(model, loss="cross_entropy", optimizer="adam")
trainer.fit(x, np.arange(64) % 3, epochs=3, batch_size=16, verbose=0)
model.save("model.pyframe")
np.savez("expected.npz", x=x, y=model.predict(x))
print(pf.__version__, "has saved a model")
"""
LOAD = """
import numpy as np, pyframe as pf
expected = np.load("expected.npz")
model = pf.load("model.pyframe")
np.testing.assert_array_equal(model.predict(expected["x"]), expected["y"])
pf.Trainer(model, loss="cross_entropy", optimizer="adam").fit(
    expected["x"], np.arange(64) % 3, epochs=1, verbose=0)
print(pf.__version__, "predicts the same with it, to the bit, and trains it on")
"""


def number(version: str) -> tuple[int, ...]:
    """Return a version as numbers."""
    return tuple(int(part) for part in version.split("."))


def last_tag(version: str) -> str | None:
    """Return the tag of the last release before a version, if there is one."""
    command = ["git", "-C", str(ROOT), "tag", "--list", "v*"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None  # sources without a history
    found = [tag for tag in said.split() if re.fullmatch(r"v\d+\.\d+\.\d+", tag)]
    before = [tag for tag in found if number(tag[1:]) < number(version)]
    return max(before, key=lambda tag: number(tag[1:]), default=None)


def previous(tools: Venv, work: Path, dist: Path) -> str:
    """Put a wheel of the version before into a folder, and return that version.

    It is built from the tag of the last release. Before the first one, it is the present wheel
    under a lower version.
    """
    version = version_of(dist)
    work.mkdir()
    tag = last_tag(version)
    if tag is None:
        say(f"   there is no release before {version}: an upgrade from itself, named {BEFORE[1:]}")
        return relabelled(tools, work, dist, version)
    say(f"   from {tag}")
    archive = work / "sources.tar"
    run(["git", "-C", ROOT, "archive", "-o", archive, tag])
    shutil.unpack_archive(archive, work / "sources")
    tools.run("python", "-m", "build", "--wheel", "-o", dist, work / "sources", cwd=work)
    return tag[1:]


def relabelled(tools: Venv, work: Path, dist: Path, version: str) -> str:
    """Write the present wheels once more, with a lower version."""
    before = version + BEFORE
    for wheel in [path for path in files(dist)[CORE] if path.suffix == ".whl"]:
        tools.run("wheel", "unpack", "-d", work, wheel, cwd=work)
        (content,) = (path for path in work.iterdir() if path.is_dir())
        (info,) = content.glob("*.dist-info")
        for path, old, new in (
            (info / "METADATA", f"\nVersion: {version}\n", f"\nVersion: {before}\n"),
            (content / "pyframe" / "_version.py", f'"{version}"', f'"{before}"'),
        ):
            text = path.read_text(encoding="utf-8")
            if old not in text:
                raise Failure(f"{wheel.name}: no {old.strip()} in {path.name}")
            path.write_text(text.replace(old, new, 1), encoding="utf-8")
        info.rename(info.with_name(f"pyframe_nn-{before}.dist-info"))
        tools.run("wheel", "pack", "-d", dist, content, cwd=work)
        shutil.rmtree(content)
    return before


def is_earlier(path: Path) -> bool:
    """Return whether a file is there for the upgrade only."""
    return BEFORE in path.name
