"""What is checked of archives before anybody installs them."""

from __future__ import annotations

import re
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from email.parser import HeaderParser
from pathlib import Path

from .index import files, normalized
from .shell import Failure, Venv

ROOT = Path(__file__).resolve().parents[2]
CORE = "pyframe-nn"
DEPENDENCIES = {"cffi", "numpy", "pluggy", "safetensors", "tqdm"}
CORE_BYTES, PLUGIN_BYTES = 1_000_000, 400_000
IN_THE_SOURCES = (
    "CHANGELOG.md",
    "LICENSE",
    "PKG-INFO",
    "README.md",
    "build_ffi.py",
    "core_c/CMakeLists.txt",
    "core_c/include/pyframe/pyframe.h",
    "docs/architecture.md",
    "plugins/pyframe-cnn/pyproject.toml",
    "pyframe/__init__.py",
    "pyproject.toml",
    "tests/data/abi-1.0/plugin-linux-x86_64.so",
    "tests/test_readme.py",
    "tools/rehearse.py",
)
IN_THE_WHEEL = (
    "pyframe/datasets/data/boston_house_prices.csv",
    "pyframe/include/pyframe/abi.inc",
    "pyframe/include/pyframe/activations.h",
    "pyframe/include/pyframe/epilogue.h",
    "pyframe/include/pyframe/instruction_sets.cmake",
    "pyframe/include/pyframe/lanes.h",
    "pyframe/include/pyframe/pyframe.h",
    "pyframe/include/pyframe/real.h",
    "pyframe/plugins/catalogue.json",
    "pyframe/py.typed",
    "pyframe/testing/__init__.py",
)
# What is in the wheel of pyframe-testing.
KIT = re.compile(r"pyframe/(testing/(?!__init__\.py$)|commands/(scaffold\.py$|templates/))")
# One library in the sources is built once and for all: plugins of its day must load for ever.
JUNK = re.compile(
    r"(^|/)(__pycache__|\.git|\.ci|build|dist|\.\w+_cache|\w+\.egg-info|venv)(/|$)"
    r"|\.(pyc|so|o|a|dylib|pyd|whl|orig|rej|swp)$|~$"
)


def metadata(wheel: Path) -> dict[str, list[str]]:
    """Return the fields of a wheel's metadata."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        parsed = HeaderParser().parsestr(archive.read(name).decode())
    return {key: [str(value) for value in parsed.get_all(key, [])] for key in set(parsed.keys())}


def dependencies(wheel: Path) -> set[str]:
    """Return the names that a wheel needs, without those of its extras."""
    needed = (text for text in metadata(wheel).get("Requires-Dist", []) if "extra ==" not in text)
    return {normalized(re.split(r"[^\w.-]", text)[0]) for text in needed}


def version_of(dist: Path) -> str:
    """Return the newest version of the core in a folder."""
    found = {path.name.removesuffix(".tar.gz").split("-")[1] for path in dist.glob("*nn-*.tar.gz")}
    if len(found) != 1:
        raise Failure(f"there should be one source distribution of {CORE}; found {sorted(found)}")
    return found.pop()


def in_sources(archive: Path) -> list[str]:
    """Return what is wrong with the content of the core's source distribution."""
    with tarfile.open(archive) as content:
        names = [n.partition("/")[2] for n in content.getnames()]
    found = [f"{name} is missing" for name in IN_THE_SOURCES if name not in names]
    junk = (name for name in names if JUNK.search(name) and name not in IN_THE_SOURCES)
    return found + [f"{name} has no place in it" for name in junk]


def in_wheel(wheel: Path) -> list[str]:
    """Return what is wrong with the content of a wheel of the core."""
    with zipfile.ZipFile(wheel) as content:
        names = content.namelist()
    found = [f"{name} is missing" for name in IN_THE_WHEEL if name not in names]
    for extension in ("_core", "_launcher"):
        if sum(name.startswith(f"pyframe/{extension}.") for name in names) != 1:
            found.append(f"pyframe/{extension} is not there once")
    stray = [
        n
        for n in names
        if KIT.match(n) or (n.split("/")[0] != "pyframe" and ".dist-info/" not in n)
    ]
    return found + [f"{name} has no place in it" for name in stray]


def check(tools: Venv, dist: Path, work: Path, plugins: Sequence[str]) -> Iterator[str]:
    """Check the archives in a folder, and yield what is to be told of them.

    Raises
    ------
    Failure
        At the first thing that is wrong.
    """
    found = files(dist)
    wheels = {name: [p for p in paths if p.suffix == ".whl"] for name, paths in found.items()}
    missing = [name for name in (CORE, *plugins) if not wheels.get(name)]
    if missing:
        raise Failure(f"there is no wheel of {', '.join(missing)}")
    version = version_of(dist)
    stale = [p.name for p in wheels[CORE] if p.name.split("-")[1] != version]
    if stale:
        raise Failure(f"{', '.join(stale)}: the sources are of version {version}")
    archives = [path for paths in found.values() for path in paths]
    tools.run("twine", "check", "--strict", *archives, cwd=work)
    every = [path for paths in wheels.values() for path in paths]
    # W002: the templates of several kinds of plugins have a page in common
    tools.run("check-wheel-contents", "--ignore", "W002", *every, cwd=work)
    stable = [path for path in every if "-abi3-" in path.name]
    if stable:  # free-threaded Pythons have wheels of their own
        tools.run("abi3audit", "--strict", *stable, cwd=work)
    needed = dependencies(wheels[CORE][0])
    if needed != DEPENDENCIES:
        raise Failure(f"{CORE} needs {sorted(needed)}, and should need {sorted(DEPENDENCIES)}")
    (sources,) = (path for path in found[CORE] if path.name.endswith(".tar.gz"))
    contents = {sources: in_sources(sources)}
    contents |= {path: in_wheel(path) for path in wheels[CORE]}
    for path, wrong in contents.items():
        if wrong:
            raise Failure(f"{path.name}: {'; '.join(wrong)}")
    for name, paths in wheels.items():
        limit = CORE_BYTES if name == CORE else PLUGIN_BYTES
        for path in paths:
            size = path.stat().st_size
            plain = "-linux_" in path.name  # by whatever compiler is here, and not to be published
            aim = "a plain build" if plain else f"less than {limit / 1000:.0f} kB are promised"
            yield f"{size / 1000:6.0f} kB  {path.name}: {aim}"
            if size >= limit and not plain:
                raise Failure(f"{path.name} has {size:,} bytes; less than {limit:,} is promised")
