"""Wheels of one version of the kernel interface with a core of another.

A plugin built today has to run in each later core of the same major version, whose host table is
longer. One that needs more than a core has is set aside, with both versions named, and the rest of
pyframe goes on. Here these are real wheels, in environments of their own.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

from .building import ROOT, build, read, source_distribution
from .say import Stop, find_wheel, run, say

PLUGINS = ROOT / "plugins"
# What a later minor version might add at the end of the host table.
FIELD = """#if PF_TARGET_MINOR >= {minor}
    int64_t (*later)(int64_t x); /* x + 1 */
#endif
"""
FUNCTION = "static int64_t later(int64_t x) { return x + 1; }\n\n"
# What a plugin of a folder has: a layer, a model with it, and data to train that.
LAYERS = {
    "pyframe-cnn": (
        "pf.layers.Conv2D(4, 3)",
        "[pf.layers.Conv2D(4, 3), pf.layers.Flatten(), pf.layers.Dense(2)]",
        "(32, 8, 8, 1)",
    ),
    "pyframe-seq": (
        "pf.layers.LSTM(4)",
        "[pf.layers.LSTM(4, return_sequences=True), pf.layers.TransformerDecoderBlock(2), "
        "pf.layers.Flatten(), pf.layers.Dense(2)]",
        "(32, 6, 3)",
    ),
}
TRAIN = """
import numpy as np, pyframe as pf, pyframe.native.core as native
host = native.lib.pf_get_host()
model = pf.Sequential({model})
trainer = pf.Trainer(model, loss="cross_entropy", optimizer="adam")
data = np.random.default_rng(0).normal(size={shape})
trainer.fit(data, np.arange(32) % 2, epochs=2, verbose=0)
(library,) = native.open_libraries.values()
print(host.abi_major, host.abi_minor, host.size, *library.abi)
"""
REFUSE = """
import numpy as np, pyframe as pf
try:
    {layer}
except Exception as error:
    print(type(error).__name__, error)
model = pf.Sequential([pf.layers.Dense(2)])
pf.Trainer(model, loss="l2").fit(np.zeros((8, 3)), np.zeros((8, 2)), epochs=1, verbose=0)
print("the rest runs")
"""


def try_versions(wheels: Path) -> None:
    """Try the wheels in a folder with wheels of other versions, which are built for that.

    Parameters
    ----------
    wheels : path
        The folder with the wheels of this version.
    """
    machine = os.uname().machine
    core = read(ROOT)
    ours = find_wheel(wheels, core, machine)
    with tempfile.TemporaryDirectory(prefix="versions-") as name:
        work = Path(name)
        sources = source_distribution(core, work / "sources", work / "unpacked")
        major, minor = version(sources)
        here = f"{major}.{minor}"
        later = lengthen(sources, minor + 1)
        (long_core,) = build(work / "later", [read(sources)], [machine])
        flags = [f"cmake.define.CMAKE_C_FLAGS=-DPF_TARGET_MINOR={minor + 1}"]
        for plugin in LAYERS:
            at, project = work / plugin, read(PLUGINS / plugin)
            theirs = find_wheel(wheels, project, machine)
            expect_training(plugin, at, [ours, theirs], [long_core, theirs])
            (newer,) = build(at / "newer", [project], [machine], include=later, options=flags)
            expect_refusal(plugin, [ours, newer], at / "refused", f"{major}.{minor + 1}", here)

        other = edit(later / "pyframe/pyframe.h", r"(#define PF_ABI_MAJOR) \d+", rf"\1 {major + 1}")
        for plugin in LAYERS:
            at, project = work / plugin, read(PLUGINS / plugin)
            (foreign,) = build(at / "foreign", [project], [machine], include=other.parents[1])
            expect_refusal(plugin, [ours, foreign], at / "other", f"{major + 1}.0", here)


def expect_training(plugin: str, folder: Path, same: list[Path], later: list[Path]) -> None:
    """See that a plugin trains in the core of its build, and in one with a longer host table."""
    _, model, shape = LAYERS[plugin]
    code = TRAIN.format(model=model, shape=shape)
    here, there = (
        tried(wheels, folder / name, code).split()
        for name, wheels in (("same", same), ("later", later))
    )
    if int(there[1]) != int(here[1]) + 1 or int(there[2]) <= int(here[2]) or there[3:] != here[3:]:
        raise Stop(f"{plugin} in this core says {here}, and in a later one {there}")
    for found in (here, there):
        say(f"core {found[0]}.{found[1]}, host table of {found[2]} bytes, and {plugin}: trains")


def version(sources: Path) -> tuple[int, int]:
    """Return the version of the interface that sources have."""
    text = (sources / "core_c/include/pyframe/pyframe.h").read_text(encoding="utf-8")
    found = dict(re.findall(r"#define PF_ABI_(MAJOR|MINOR) (\d+)", text))
    return int(found["MAJOR"]), int(found["MINOR"])


def lengthen(sources: Path, minor: int) -> Path:
    """Make sources those of a later minor version, with a longer host table; return its headers."""
    core_c = sources / "core_c"
    include = core_c / "include"
    edit(include / "pyframe/pyframe.h", r"(#define PF_ABI_MINOR) \d+", rf"\1 {minor}")
    edit(include / "pyframe/abi.inc", r"(?=\} pf_host;)", FIELD.format(minor=minor))
    edit(core_c / "host.c", r"(?=static const pf_host host = \{)", FUNCTION)
    edit(core_c / "host.c", r"(\.vector = pf_host_vector,\n)", r"\1    .later = later,\n")
    return include


def edit(path: Path, pattern: str, replacement: str) -> Path:
    """Replace the one place in a file that fits a pattern; return the file's path."""
    text, count = re.subn(pattern, replacement, path.read_text(encoding="utf-8"))
    if count != 1:
        raise Stop(f"{path.name} has {count} places like {pattern!r}, and one is expected")
    path.write_text(text, encoding="utf-8")
    return path


def tried(wheels: list[Path], folder: Path, code: str) -> str:
    """Return what code prints in a new environment with wheels in it."""
    python = folder / "bin" / "python"
    run([sys.executable, "-m", "venv", folder])
    install = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--only-binary=:all:"]
    run([python, *install, *wheels])
    return run([python, "-c", code], environment={"PYTHONSAFEPATH": "1"})


def expect_refusal(plugin: str, wheels: list[Path], folder: Path, built: str, here: str) -> None:
    """See that a plugin is set aside with both versions named, and that all else goes on."""
    said = tried(wheels, folder, REFUSE.format(layer=LAYERS[plugin][0]))
    if not all(words in said for words in (built, here, plugin, "the rest runs")):
        raise Stop(f"{plugin} for {built} in a core of {here} was not refused as designed:\n{said}")
    say(f"core {here}, and {plugin} built for {built}: refused, and the rest runs:")
    say("  " + said.splitlines()[0])
